"""etcd's alarms on real members: who is to be replaced, whatever member the alarm names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from provision.errors import Unhealthy
from provision.etcd.api.errors import EtcdRefused
from provision.etcd.cluster import gates, hashes, health, reconfigure
from provision.etcd.cluster.handle import Etcd
from provision.plans.etcd.data import alarms, disarm_alarms
from provision.ssh.session import Fleet
from tests.alarms import activate
from tests.component.conftest import Boot, Running
from tests.component.test_which_cluster import put, wait_serving
from tests.unit import builders


@pytest.fixture
def three(boot: Boot) -> Iterator[Running]:
    with boot(3) as running:
        yield running


def damage(running: Running, fleet: Fleet, name: str) -> None:
    """The disk of one member returns other bytes than were written, as the value of a key."""
    put(running, fleet, name, f"right-{name}")
    member = running.members[name]
    database = Path(member.declared.data_dir, "member", "snap", "db")
    right, wrong = f"right-{name}".encode(), f"wrong-{name}".encode()
    deadline = time.monotonic() + 10
    while right not in database.read_bytes():  # etcd commits every 0.1 s
        assert time.monotonic() < deadline
        time.sleep(0.05)
    member.kill()
    database.write_bytes(database.read_bytes().replace(right, wrong))
    member.start()
    wait_serving(running, fleet, *running.members)


@pytest.mark.parametrize(
    ("odd", "named"), [("infra2", "infra2"), ("infra0", "infra1"), ("infra1", "")]
)
def test_the_member_whose_data_differ_is_found_whatever_the_alarm_says(
    three: Running, fleet: Fleet, odd: str, named: str
) -> None:
    damage(three, fleet, odd)
    seen = health.observe(Etcd(three.cluster, fleet))
    ids = {m.member.name: m.status.member_id for m in seen.members if m.status is not None}
    with Etcd(three.cluster, fleet).any() as client:
        activate(client, "CORRUPT", ids.get(named, 0))
    # etcd refuses writes, and serves reads.
    with pytest.raises(EtcdRefused, match="corrupt"):
        put(three, fleet, "infra0", "more")
    seen = health.observe(Etcd(three.cluster, fleet))
    assert seen.all_healthy
    assert seen.alarms == {"CORRUPT"}
    assert hashes.compare(seen, Etcd(seen.cluster, fleet)).differing == (odd,)
    inventory = builders.inventory(None, etcd=three.cluster)
    with pytest.raises(Unhealthy) as refused:
        disarm_alarms.plan(Etcd(inventory.etcd, fleet))
    (problem,) = refused.value.problems
    assert (problem.id, problem.remedy) == ("alarm-corrupt", f"invoke replace-member {odd}")
    # What the replacement does: nobody writes before the alarm is disarmed.
    rest = replace(three.cluster, members=tuple(m for m in three.cluster.members if m.name != odd))
    gates.all_healthy(Etcd(rest, fleet), standing=seen.alarms).check()
    call = alarms.disarm(Etcd(rest, fleet), "CORRUPT")
    with pytest.raises(Unhealthy, match="not solved"):
        alarms.disarm(Etcd(three.cluster, fleet), "CORRUPT").do()
    reconfigure.remove(Etcd(three.cluster, fleet), ids[odd], rest.members)
    call.do()
    call.do()  # a run that was killed after it is made again
    gates.all_healthy(Etcd(rest, fleet)).check()
    assert not alarms.standing(Etcd(rest, fleet))


def test_etcds_own_check_names_a_right_member_when_the_odd_one_leads(
    boot: Boot, fleet: Fleet
) -> None:
    """``PeriodicCheck`` of etcd's ``corrupt.go`` names whoever differs from the leader."""
    with boot(3, args=lambda _: ["--corrupt-check-time", "1s"]) as three:
        damage(three, fleet, "infra1")
        odd = three.cluster.members[1]
        reconfigure.move_leadership_to(Etcd(three.cluster, fleet), odd)
        with Etcd(three.cluster, fleet).any() as client:
            for alarm in client.alarms():  # by a leader of before
                client.disarm(alarm)
        look = partial(health.observe, Etcd(three.cluster, fleet))
        seen = gates.until(look, lambda h: bool(h.alarms))
        assert seen.leader == odd.name
        (alarm,) = alarms.standing(Etcd(three.cluster, fleet))
        assert alarms.whose(alarm, seen) in ("infra0", "infra2")
        assert hashes.compare(seen, Etcd(seen.cluster, fleet)).differing == (odd.name,)


def test_without_a_majority_nobody_is_named(three: Running, fleet: Fleet) -> None:
    damage(three, fleet, "infra2")
    three.kill("infra1")
    look = partial(health.observe, Etcd(three.cluster, fleet))
    seen = gates.until(look, lambda h: h.healthy_count == 2)
    found = hashes.compare(seen, Etcd(seen.cluster, fleet))
    assert (found.equal, found.differing, found.right) == (False, (), ())
    (problem,) = alarms.unsolved(seen, Etcd(seen.cluster, fleet), "CORRUPT")
    assert "2 of 3 voters could be compared" in problem.remedy


def test_only_the_alarms_that_a_plan_mends_are_spared(
    three: Running, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = gates.all_healthy(Etcd(three.cluster, fleet), standing=("NOSPACE",))
    gate.check()
    with Etcd(three.cluster, fleet).any() as client:
        activate(client, "NOSPACE", 0)
        gate.check()
        activate(client, "CORRUPT", 0)
        monkeypatch.setattr(gates, "HEALTHY_WITHIN", 0.1)
        with pytest.raises(Unhealthy, match="no quorum write"):
            gate.check()
    # Raised for nothing: all is disarmed, whatever the alarms name.
    plan = disarm_alarms.plan(
        Etcd(three.cluster, fleet),
    )
    for call in plan.steps[0].calls:
        assert "the alarm names no member" in call.what
        call.do()
    assert not alarms.standing(Etcd(three.cluster, fleet))
    gates.all_healthy(Etcd(three.cluster, fleet)).check()


def test_nospace_is_disarmed_while_a_member_is_down(
    three: Running, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead member can be replaced only where etcd takes writes."""
    monkeypatch.setattr(gates, "BACK_WITHIN", 1.0)
    with Etcd(three.cluster, fleet).any() as client:
        activate(client, "NOSPACE", client.status().member_id)
    three.kill("infra2")
    look = partial(health.observe, Etcd(three.cluster, fleet))
    gates.until(look, lambda h: h.healthy_count == 2)
    plan = disarm_alarms.plan(
        Etcd(three.cluster, fleet),
    )
    for call in plan.steps[0].calls:
        call.do()
    assert not alarms.standing(Etcd(three.cluster, fleet))
