"""The gates before and after a member is touched, while members of a real cluster come and go."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from provision.errors import Unhealthy
from provision.etcd.cluster import gates, health
from provision.etcd.cluster.handle import Etcd
from provision.ssh.session import Fleet
from tests.component.conftest import Boot, Running


@pytest.fixture
def three(boot: Boot) -> Iterator[Running]:
    with boot(3) as running:
        yield running


def test_a_member_that_is_back_in_a_moment_is_waited_for(
    three: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd starts a member that was killed again: no reason to stop a roll-out."""
    first, second, _ = three.cluster.members
    with Fleet(4) as fleet:
        gate = gates.require_others_healthy(Etcd(three.cluster, fleet), first)
        three.members[second.name].kill()
        seen: list[health.ClusterHealth] = []
        observe = health.observe

        def look(*args: object, **options: object) -> health.ClusterHealth:
            seen.append(observe(*args, **options))  # type: ignore[arg-type]
            if len(seen) == 1:
                threading.Thread(target=three.members[second.name].start).start()
            return seen[-1]

        monkeypatch.setattr(health, "observe", look)
        gate.check()
        assert not seen[0].is_member_healthy(second.name)
        assert seen[-1].all_healthy


def test_a_member_on_its_way_back_is_waited_for(
    three: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = three.cluster.members[1]
    three.members[member.name].kill()
    monkeypatch.setattr(gates, "BACK_WITHIN", 0.2)
    with Fleet(4) as fleet:
        seen = health.observe(Etcd(three.cluster, fleet))
        assert not seen.is_member_healthy(member.name)
        with pytest.raises(Unhealthy, match="2 of 3 members are healthy"):
            gates.wait_until_recovered(Etcd(three.cluster, fleet), seen)
        monkeypatch.setattr(gates, "BACK_WITHIN", 20.0)
        three.members[member.name].start()
        assert gates.wait_until_recovered(Etcd(three.cluster, fleet), seen).all_healthy


def test_what_stays_down_is_in_the_way(three: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = three.cluster.members
    three.members[second.name].kill()
    monkeypatch.setattr(gates, "BACK_WITHIN", 3.0)  # longer than an election
    monkeypatch.setattr(gates, "HEALTHY_WITHIN", 0.2)
    with Fleet(4) as fleet:
        with pytest.raises(Unhealthy, match=f"{first.name} is not changed while {second.name}"):
            gates.require_others_healthy(Etcd(three.cluster, fleet), first).check()
        with pytest.raises(Unhealthy, match="2 of 3 members are healthy"):
            gates.all_healthy(Etcd(three.cluster, fleet)).check()
        # It is down already: touching it costs nothing, even when another is down, too.
        three.members[third.name].kill()
        gates.require_others_healthy(Etcd(three.cluster, fleet), second).check()


def test_a_write_that_meets_an_election_is_made_again(
    three: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the write a member may be killed, and be back."""
    asked: list[int] = []
    write = health.verify_write

    def meets_an_election(*args: object, **options: object) -> None:
        asked.append(1)
        if len(asked) == 1:
            three.members[three.cluster.members[0].name].kill()
            try:
                write(*args, **options)  # type: ignore[arg-type]
            finally:
                three.members[three.cluster.members[0].name].start()
        write(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(health, "verify_write", meets_an_election)
    with Fleet(4) as fleet:
        gates.all_healthy(Etcd(three.cluster, fleet)).check()
    assert len(asked) > 1
