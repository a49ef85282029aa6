"""The plan of move-leader, as a value."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import pytest

from provision.engine.plan import Gate, Plan
from provision.errors import PreflightFailed, UsageError
from provision.etcd.api.values import MemberStatus
from provision.etcd.cluster import gates, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.plans.etcd import move_leader
from provision.ssh.session import Fleet
from tests.unit import builders, plan_text

INVENTORY = builders.inventory()
Seen = Callable[..., None]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """``seen(down, leader)``: the members that are down, and the number of the leader."""

    def looked(down: Collection[int] = (), leader: int = 1) -> None:
        members = [
            MemberHealth(m, error="no answer")
            if n in down
            else MemberHealth(
                m, status=MemberStatus(1, n, "3.6.16", 1, 1, leader, 1, 1, 1, False, ())
            )
            for n, m in enumerate(INVENTORY.etcd.members, 1)
        ]
        found = ClusterHealth(INVENTORY.etcd, tuple(members))
        monkeypatch.setattr(health, "observe", lambda *_, **__: found)

    return looked


def plan(to: str) -> Plan:
    with Fleet(1) as fleet:
        return move_leader.plan(INVENTORY, Etcd(INVENTORY.etcd, fleet), to)


def test_one_step_with_a_gate_on_all_that_serve(seen: Seen) -> None:
    seen()
    (step,) = plan("infra2").steps
    assert [c.what for c in step.calls] == ["etcd: move leadership from infra1 to infra2"]
    assert step.hosts == ()
    assert step.after is not None
    assert "every member healthy" in step.after.title


def test_who_leads_already_is_left(seen: Seen) -> None:
    seen(leader=2)
    assert plan("infra2") == Plan("move-leader", "c")


def test_a_third_member_that_is_down_is_no_obstacle(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(down=[3])
    asked: list[str] = []

    def all_healthy(etcd: Etcd, *_: object, **__: object) -> Gate:
        asked.extend(m.name for m in etcd.cluster.members)
        return Gate("", lambda: None)

    monkeypatch.setattr(gates, "all_healthy", all_healthy)
    assert len(plan("infra2").steps) == 1
    assert asked == ["infra1", "infra2"]


def test_one_that_is_down_cannot_lead(seen: Seen) -> None:
    seen(down=[2])
    with pytest.raises(PreflightFailed, match="infra2 is not healthy") as refused:
        plan("infra2")
    assert refused.value.id == "member-down"


def test_a_name_that_nobody_has(seen: Seen) -> None:
    seen()
    with pytest.raises(UsageError, match=r"not in etcd\.members"):
        plan("infra9")


def test_the_call_moves_the_lead_and_the_gate_spares_the_alarm_that_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = plan_text.spell(monkeypatch)
    asked: list[Etcd] = []
    full = ("memberID:1 alarm:NOSPACE",)

    def observe(etcd: Etcd) -> ClusterHealth:
        asked.append(etcd)
        status = MemberStatus(1, 1, "3.6.16", 1, 1, 1, 1, 1, 1, False, full)
        members = [
            MemberHealth(m, status=replace(status, member_id=n))
            for n, m in enumerate(INVENTORY.etcd.members, 1)
        ]
        return ClusterHealth(INVENTORY.etcd, tuple(members))

    monkeypatch.setattr(health, "observe", observe)
    found = plan("infra2")
    assert plan_text.text(found) == [
        "make infra2 the leader",
        " call: etcd: move leadership from infra1 to infra2",
        " after: healthy infra1+infra2+infra3 through infra2 while NOSPACE",
    ]
    assert plan_text.called(found, done) == [
        "move_leadership_to in infra1+infra2+infra3: infra2 http://10.0.0.2:2380"
    ]
    assert [e.cluster for e in asked] == [INVENTORY.etcd]
    assert (found.command, found.cluster) == ("move-leader", "c")
    assert found.guards == (INVENTORY.etcd.members[1].machine,)


def test_one_that_etcd_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "observe", lambda _: ClusterHealth(INVENTORY.etcd, ()))
    with pytest.raises(PreflightFailed) as refused:
        plan("infra2")
    assert [(p.where, p.id) for p in refused.value.problems] == [("infra2", "member-not-joined")]
