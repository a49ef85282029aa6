"""The step that changes one member: without gates of its own it has the usual two."""

from __future__ import annotations

from provision.engine.plan import Gate, HostChanges
from provision.etcd.cluster import gates, rolling
from provision.etcd.cluster.handle import Etcd
from provision.host.diff import Change
from provision.ssh.session import Fleet
from tests.unit import builders

TODO = (Change("write a file", "true"), Change("restart etcd", "true", disrupts=True))


def test_a_member_is_changed_between_the_usual_gates() -> None:
    etcd = Etcd(builders.etcd(), Fleet(1))
    member = etcd.cluster.member("infra2")
    step = rolling.rolling_step(etcd, member, "change infra2", TODO)
    assert step.title == "change infra2"
    assert step.hosts == (HostChanges("infra2", member.machine, TODO),)
    assert step.calls == ()
    assert step.before is not None
    assert step.before.title == gates.require_others_healthy(etcd, member).title
    assert step.after is not None
    assert step.after.title == gates.all_healthy(etcd, member).title


def test_a_command_gives_gates_of_its_own() -> None:
    etcd = Etcd(builders.etcd(), Fleet(1))
    before, after = (Gate(title, lambda: None) for title in ("no alarm", "runs 3.6.16"))
    step = rolling.rolling_step(
        etcd, etcd.cluster.member("infra1"), "infra1: upgrade", TODO, before=before, after=after
    )
    assert step.before is before
    assert step.after is after
