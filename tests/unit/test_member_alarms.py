"""The member commands while an alarm of etcd stands: which are its remedy, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from provision.engine.plan import Plan
from provision.errors import PreflightFailed
from provision.etcd.cluster import hashes
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.hashes import Comparison
from provision.etcd.member import layout
from provision.etcd.pki import tls
from provision.plans.etcd.members import add_member, remove_member, replace_member
from provision.plans.etcd.members.member_plan import Options
from provision.ssh.session import Fleet
from tests.unit import builders
from tests.unit.test_deploy_plan import World

pytestmark = pytest.mark.usefixtures("no_other_clusters")

Names = tuple[str, ...]


#: A plan that is only shown, without the workers.
SHOWN = Options(write=False, workers=False)


@pytest.fixture
def agree(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``agree(("infra1",), ("infra2",))``: whose data are the same, by group."""

    def said(*groups: Names) -> None:
        found = Comparison(9, dict(enumerate(groups)), sum(map(len, groups)))
        monkeypatch.setattr(hashes, "compare", lambda *_: found)

    monkeypatch.setattr(tls, "authority", lambda *_, **__: None)
    return said


def world(*alarms: str, count: int = 3) -> World:
    made = World(builders.etcd(*(builders.member(n) for n in range(1, count + 1))))
    made.alarms = alarms
    return made


def replaced(of: World, name: str) -> Plan:
    inventory = builders.inventory(None, etcd=of.cluster)
    with Fleet(1) as fleet:
        return replace_member.plan(inventory, Etcd(of.cluster, fleet), of.observed(), name, SHOWN)


def removed(of: World, name: str) -> Plan:
    inventory = builders.inventory(None, etcd=of.cluster)
    with Fleet(1) as fleet:
        return remove_member.plan(inventory, Etcd(of.cluster, fleet), of.observed(), name, SHOWN)


def titles(plan: Plan) -> list[str]:
    return [s.title for s in plan.steps if not s.title.startswith("prepare")]


REPLACED = [
    "remove infra2",
    "disarm the alarm CORRUPT",
    "add infra2 as a learner",
    "start infra2, and make it a voter when it has caught up",
]


def test_the_odd_member_goes_the_alarm_is_disarmed_and_it_comes_again(
    agree: Callable[..., None],
) -> None:
    agree(("infra1", "infra3"), ("infra2",))
    plan = replaced(world("CORRUPT"), "infra2")
    assert titles(plan) == REPLACED
    gates = {s.title: (s.before, s.after) for s in plan.steps}
    for gate in gates["remove infra2"]:
        assert gate is not None
        assert "while the alarm CORRUPT is raised" in gate.title
    for title in REPLACED[1:]:
        for gate in gates[title]:
            assert gate is None or "stands" not in gate.title
    last = gates[REPLACED[-1]][1]
    assert last is not None
    assert "infra2 has the majority's data" in last.title


def test_another_name_is_refused_with_the_right_one(agree: Callable[..., None]) -> None:
    agree(("infra1", "infra3"), ("infra2",))
    with pytest.raises(PreflightFailed, match="data differ") as refused:
        replaced(world("CORRUPT"), "infra1")
    assert refused.value.problems[0].remedy == "invoke replace-member infra2"


def test_a_run_that_was_killed_after_the_removal_goes_on(agree: Callable[..., None]) -> None:
    agree(("infra1", "infra3"))
    begun = world("CORRUPT")
    begun.registered = [r for r in begun.registered if r.name != "infra2"]
    begun.down.add("infra2")
    assert titles(replaced(begun, "infra2")) == REPLACED[1:]


def test_with_two_odd_of_five_the_alarm_stands_until_the_second_is_replaced(
    agree: Callable[..., None],
) -> None:
    agree(("infra1", "infra3", "infra5"), ("infra2",), ("infra4",))
    plan = replaced(world("CORRUPT", count=5), "infra2")
    # The new one gets its data from the leader.
    lead = "give the lead to a member with the majority's data"
    assert titles(plan) == [REPLACED[0], lead, *REPLACED[2:]]
    assert all(
        "while the alarm CORRUPT is raised" in gate.title
        for s in plan.steps
        for gate in (s.before, s.after)
        if gate is not None
    )


def test_nobody_is_replaced_without_a_majority(agree: Callable[..., None]) -> None:
    agree(("infra1",), ("infra2",), ("infra3",))
    for name in ("infra1", "infra2", "infra3"):
        with pytest.raises(PreflightFailed, match="data differ") as refused:
            replaced(world("CORRUPT"), name)
        remedy = refused.value.problems[0].remedy
        assert "restore-etcd" in remedy
        assert "recover-etcd" in remedy


def test_a_dead_member_is_replaced_while_the_database_is_full(agree: Callable[..., None]) -> None:
    """Neither a higher quota nor a defragmentation is possible while a member is down."""
    agree(("infra1", "infra3"))
    of = world("NOSPACE")
    of.down.add("infra2")
    plan = replaced(of, "infra2")
    assert titles(plan) == [REPLACED[0], *REPLACED[2:]]
    plan = removed(of, "infra2")
    assert titles(plan)[0] == "remove infra2"
    calls = [c.what for s in plan.steps for c in s.calls]
    assert not any("note" in what for what in calls)  # a note is a write


@pytest.mark.parametrize("kind", ["NOSPACE", "CORRUPT"])
def test_what_is_no_remedy_is_refused_before_it_begins(
    agree: Callable[..., None], kind: str
) -> None:
    agree(("infra1", "infra2", "infra3"))
    of = world(kind)
    with pytest.raises(PreflightFailed, match=kind):
        removed(of, "infra2")
    of.registered = [r for r in of.registered if r.name != "infra2"]
    of.down.add("infra2")
    inventory = builders.inventory(None, etcd=of.cluster)
    with Fleet(1) as fleet, pytest.raises(PreflightFailed, match=kind):
        add_member.plan(inventory, Etcd(of.cluster, fleet), of.observed(), "infra2", SHOWN)


def test_a_host_with_a_unit_of_somebody_elses_is_not_cleaned(agree: Callable[..., None]) -> None:
    """The member leaves etcd all the same, and it is said."""
    agree(("infra1", "infra2", "infra3"))
    of = world()
    path = layout.UNIT_PATH
    facts = of.facts["infra3"]
    other = replace(facts.paths[path], content=b"[Unit]\nDescription=etcd of a package\n")
    of.facts["infra3"] = replace(facts, paths={**facts.paths, path: other})
    plan = removed(of, "infra3")
    assert "remove infra3" in titles(plan)
    assert not any("clean the host" in title for title in titles(plan))
    assert ("host-not-cleaned", "warning") in [(n.id, n.severity) for n in plan.notes]
