"""Which members the workers are told of, when, and whose hosts and certificates a plan is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from provision.engine.plan import Gate, Plan, Step
from provision.errors import PreflightFailed, Problem
from provision.etcd.api.values import RegisteredMember
from provision.etcd.cluster import gates, hashes, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.hashes import Comparison
from provision.etcd.cluster.todo_keys import Pending
from provision.etcd.member import layout
from provision.etcd.member.membership_diff import ChangeKind, MemberChange
from provision.etcd.pki import tls
from provision.host.facts import HostFacts, UnitState
from provision.inventory import etcd_releases
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory
from provision.plans.alluxio import endpoints
from provision.plans.alluxio.endpoints import Told
from provision.plans.etcd.members import add_member, member_plan, member_steps, remove_member
from provision.plans.etcd.members.member_plan import Options
from provision.plans.etcd.members.member_steps import MemberChanges, Steps
from provision.ssh.session import Fleet
from tests.unit import builders, hosts, plan_text
from tests.unit.test_deploy_plan import World

pytestmark = pytest.mark.usefixtures("no_other_clusters")

ONE, TWO, THREE, FOUR, FIVE = (builders.member(n) for n in range(1, 6))
CA = object()


@pytest.fixture(autouse=True)
def compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "compare", lambda *_: Comparison(9, {1: ("all",)}, 1))
    monkeypatch.setattr(hashes, "require_equal", lambda *_: None)


def registered(m: EtcdMember, *, learner: bool = False) -> RegisteredMember:
    return RegisteredMember(int(m.name[-1]), m.name, (m.peer_url,), (m.client_url,), learner)


def joining(m: EtcdMember) -> MemberChange:
    return MemberChange(ChangeKind.ADD, m)


def leaving(m: EtcdMember) -> MemberChange:
    return MemberChange(ChangeKind.REMOVE, m, int(m.name[-1]))


class TestInventory:
    """The inventory that the workers' endpoints are taken from."""

    def test_its_members_and_endpoints_are_the_named(self) -> None:
        inventory = builders.inventory()
        found = member_plan.with_members(inventory, [TWO, FOUR])
        assert found.etcd == replace(inventory.etcd, members=(TWO, FOUR))
        assert found.alluxio is not None
        assert found.alluxio.etcd_endpoints == (TWO.client_url, FOUR.client_url)
        assert replace(found, etcd=inventory.etcd, alluxio=inventory.alluxio) == inventory
        assert member_plan.with_members(builders.inventory(alluxio=None), [TWO]).alluxio is None

    def test_the_voters_after_a_change(self) -> None:
        world = World()
        world.registered = [registered(ONE), registered(TWO), registered(FIVE)]
        running = world.observed().running
        assert running is not None
        cluster = builders.etcd(ONE, TWO, THREE, FOUR)
        assert member_plan.voters_after(cluster, running, []) == (ONE, TWO)
        moves = [joining(FOUR), leaving(TWO)]
        assert member_plan.voters_after(cluster, running, moves) == (ONE, TWO, FOUR)


class Plans:
    """What the plan of a change asks of certificates and of workers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done = plan_text.spell(monkeypatch)
        self.asked: list[tuple[Any, ...]] = []
        self.told: list[tuple[Inventory, bool, bool]] = []
        monkeypatch.setattr(tls, "authority", lambda *_, **__: CA)
        monkeypatch.setattr(tls, "require_settled", lambda *g: self.asked.append(("settled", g[2])))
        monkeypatch.setattr(tls, "require", self._require)
        monkeypatch.setattr(tls, "material", lambda *_: None)
        monkeypatch.setattr(member_plan, "with_workers", self._workers)

    def _require(
        self, cluster: EtcdCluster, members: Sequence[EtcdMember], facts: object, ca: object
    ) -> list[Problem]:
        self.asked.append(("require", [m.name for m in members], ca))
        return [Problem("certificates", "end soon", "", "warning", id="certificate-expiring")]

    def _workers(
        self,
        made: Steps,
        inventory: Inventory,
        etcd: Etcd,
        running: object,
        changed: bool,
        wanted: bool,
    ) -> None:
        self.told.append((inventory, changed, wanted))

    def plan(self, make: Any, world: World, cluster: EtcdCluster, name: str) -> Plan:
        inventory = builders.inventory(etcd=cluster)
        with Fleet(1) as fleet:
            plan = make(
                inventory,
                Etcd(cluster, fleet),
                world.observed(),
                name,
                Options(write=False, workers=True),
            )
        assert isinstance(plan, Plan)
        return plan


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Plans:
    return Plans(monkeypatch)


def five(*undeclared: EtcdMember, learner: bool = False) -> World:
    """Five serve or learn; the inventory has the first three."""
    world = World(builders.etcd(ONE, TWO, THREE, FOUR, FIVE))
    world.registered = [
        registered(m, learner=learner and m in undeclared) for m in world.cluster.members
    ]
    return world


class TestPlan:
    def test_who_joins_gets_certificates_and_the_workers_know_all_that_stay(
        self, plans: Plans
    ) -> None:
        world = World(builders.etcd(ONE, TWO, THREE, FOUR))
        world.registered = [registered(ONE), registered(TWO), registered(FOUR)]
        world.clean("infra3")
        declared = builders.etcd(ONE, TWO, THREE)
        plan = plans.plan(add_member.plan, world, declared, "infra3")
        assert plans.asked == [("settled", CA), ("require", ["infra3"], CA)]
        ((inventory, changed, wanted),) = plans.told
        # infra4 is not declared, and it is not asked to leave.
        assert [m.name for m in inventory.etcd.members] == ["infra1", "infra2", "infra3", "infra4"]
        assert (changed, wanted) == (True, True)
        assert [n.id for n in plan.notes] == ["certificate-expiring"]

    def test_who_leaves_is_not_told_of(self, plans: Plans) -> None:
        world = five()
        plan = plans.plan(remove_member.plan, world, world.cluster, "infra5")
        assert plans.asked == [("settled", CA), ("require", [], CA)]
        ((inventory, changed, _),) = plans.told
        assert [m.name for m in inventory.etcd.members] == ["infra1", "infra2", "infra3", "infra4"]
        assert changed
        assert set(plan.guards) == {m.machine for m in world.cluster.members}

    def test_an_undeclared_one_that_leaves_or_learns_is_not_told_of(self, plans: Plans) -> None:
        for learner, others in ((False, ["infra4"]), (True, [])):
            world = five(FOUR, learner=learner)
            plans.told.clear()
            declared = builders.etcd(ONE, TWO, THREE)
            plans.plan(remove_member.plan, world, declared, "infra5")
            ((inventory, _, _),) = plans.told
            names = [m.name for m in inventory.etcd.members]
            assert names == ["infra1", "infra2", "infra3", *others]

    def test_without_a_change_no_certificate_is_asked_for(self, plans: Plans) -> None:
        world = World()
        plans.plan(add_member.plan, world, world.cluster, "")
        assert plans.asked == [("require", [], CA)]
        assert [changed for _, changed, _ in plans.told] == [False]


class TestBuild:
    """The steps of several moves in one plan."""

    @pytest.fixture(autouse=True)
    def spelled(self, monkeypatch: pytest.MonkeyPatch) -> plan_text.Done:
        return plan_text.spell(monkeypatch)

    def build(
        self, world: World, cluster: EtcdCluster, *moves: MemberChange, **change: Any
    ) -> Steps:
        with Fleet(1) as fleet:
            observed = world.observed(cluster)
            return member_steps.build(
                Etcd(cluster, fleet), observed, MemberChanges(moves, **change), None
            )

    def with_four(self, count: int = 3) -> tuple[World, EtcdCluster]:
        """Members that run, and infra4, which is declared and empty."""
        members = [builders.member(n) for n in range(1, count + 1)]
        world = World(builders.etcd(*members))
        world.facts["infra4"] = hosts.facts(4)
        world.down.add("infra4")
        return world, replace(world.cluster, members=(*members, FOUR))

    @staticmethod
    def at(made: Steps) -> str:
        """The step before which the workers learn the endpoints."""
        return made.steps[made.leaving].title if made.leaving is not None else ""

    def test_the_workers_are_told_before_a_working_member_leaves(self) -> None:
        world, cluster = self.with_four()
        made = self.build(world, cluster, joining(FOUR), leaving(THREE), leaving(TWO))
        assert [s.title for s in made.steps if s.title.startswith("remove")] == [
            "remove infra3",
            "remove infra2",
        ]
        assert self.at(made) == "remove infra3"

    def test_who_does_not_work_may_leave_before(self) -> None:
        world, cluster = self.with_four()
        world.stop("infra3")
        made = self.build(world, cluster, leaving(THREE), joining(FOUR), leaving(TWO))
        assert self.at(made) == "remove infra2"
        made = self.build(world, cluster, leaving(THREE))
        assert made.leaving is None

    def test_who_comes_back_under_its_name_does_not_leave(self) -> None:
        world = World()
        made = self.build(world, world.cluster, leaving(THREE), joining(THREE))
        assert made.leaving is None

    def test_what_is_cleaned_is_noted_at_those_that_stay(self, spelled: plan_text.Done) -> None:
        world, cluster = self.with_four()
        world.pending = Pending(clean={"infra9": "10.0.0.9"})
        made = self.build(world, cluster, joining(FOUR), leaving(THREE))
        assert "leader of infra1+infra2+infra4:" in plan_text.called(made.steps, spelled)

    def test_a_release_that_damages_data_with_a_login_takes_nobody_in(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[object, ...]] = []

        def fit(running: object, states: object, what: str, leaving: Sequence[str] = ()) -> None:
            asked.append((what, list(leaving)))

        monkeypatch.setattr(etcd_releases, "require_fit", fit)
        world, cluster = self.with_four()
        auth = cluster.auth.model_copy(update={"enabled": True})
        cluster = replace(cluster, auth=auth)
        self.build(world, cluster, leaving(THREE), joining(THREE), joining(FOUR), leaving(TWO))
        assert asked == [("adding infra3, infra4", ["infra3"])]
        asked.clear()
        self.build(world, cluster, joining(FOUR), recovering=True)
        self.build(world, cluster, leaving(TWO))
        assert asked == []


@pytest.mark.parametrize(
    ("active", "state", "stops"),
    [
        ("active", "enabled", True),
        ("active", "disabled", True),
        ("activating", "disabled", True),
        ("inactive", "enabled", True),
        ("failed", "enabled", True),
        ("inactive", "disabled", False),
        ("failed", "disabled", False),
    ],
)
def test_a_unit_is_stopped_and_disabled_unless_it_is(active: str, state: str, stops: bool) -> None:
    unit = {layout.UNIT: UnitState("loaded", active, active, state)}
    found = member_steps.retire(ONE, hosts.facts(1, units=unit), ())
    assert [c.what for c in found] == (["stop and disable etcd.service"] if stops else [])


def _with(data: str | None, commands: Mapping[str, str]) -> HostFacts:
    paths = {f"{data}/member": hosts.text("")} if data else {}
    unit = {layout.UNIT: UnitState("loaded", "inactive", "dead", "disabled")}
    return hosts.facts(1, units=unit, paths=paths, commands=commands)


@pytest.mark.parametrize(
    ("facts", "kept"),
    [
        (_with(None, {}), False),
        (_with("/var/lib/etcd", {}), True),
        (_with(None, {"data": "\n"}), False),
        (_with(None, {"data": "/var/lib/etcd\n"}), True),
    ],
)
def test_data_is_kept_aside_where_there_is_some(facts: HostFacts, kept: bool) -> None:
    assert len(member_steps.retire(ONE, facts, ())) == int(kept)


@pytest.mark.parametrize(
    ("complete", "steps", "pending", "recorded"),
    [
        (True, True, False, True),
        (True, False, True, True),
        (True, False, False, False),
        (False, True, True, False),
    ],
)
def test_it_is_recorded_when_every_worker_knows(
    complete: bool, steps: bool, pending: bool, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    world.pending = Pending(workers=pending)
    running = world.observed().running
    assert running is not None
    told = Told([Step("tell")] if steps else [], [], complete)
    monkeypatch.setattr(endpoints, "steps", lambda *_: told)
    made = Steps()
    with Fleet(1) as fleet:
        handle = Etcd(builders.etcd(), fleet)
        member_plan.with_workers(made, builders.inventory(None), handle, running, True, True)
    assert (made.steps[-1].title.startswith("record that every") if made.steps else False) is (
        recorded
    )


def test_an_alarm_that_a_recovery_left_is_spared() -> None:
    world = World()
    world.alarms = ("CORRUPT",)
    inventory = builders.inventory(etcd=world.cluster)
    with Fleet(1) as fleet:
        handle, options = Etcd(world.cluster, fleet), Options(write=False, workers=False)
        world.registered.pop()
        world.clean("infra3")
        seen = world.observed()
        with pytest.raises(PreflightFailed, match="CORRUPT"):
            add_member.plan(inventory, handle, seen, "infra3", options)
        plan = add_member.plan(
            inventory, handle, seen, "infra3", options, recovering=True, sparing=("CORRUPT",)
        )
    assert any(s.title.startswith("start infra3") for s in plan.steps)


class TestSteps:
    """Steps that have nothing to change on a host, and gates that spare an alarm."""

    @pytest.fixture(autouse=True)
    def spelled(self, monkeypatch: pytest.MonkeyPatch) -> plan_text.Done:
        return plan_text.spell(monkeypatch)

    def build(self, world: World, *moves: MemberChange, **change: Any) -> Steps:
        with Fleet(1) as fleet:
            return member_steps.build(
                Etcd(world.cluster, fleet), world.observed(), MemberChanges(moves, **change), None
            )

    def test_a_host_without_former_data_is_not_touched_before_its_member_is_added(self) -> None:
        world = World()
        world.clean("infra3")
        world.registered.pop()
        made = self.build(world, joining(THREE))
        (step,) = [s for s in made.steps if s.title.startswith("add infra3")]
        assert step.hosts == ()

    def test_other_alarms_stay_when_corrupt_is_disarmed(self) -> None:
        world = World()
        world.alarms = ("CORRUPT", "NOSPACE")
        made = self.build(world, leaving(THREE), odd=("infra3",), sparing=("CORRUPT", "NOSPACE"))
        (step,) = [s for s in made.steps if s.title.startswith("disarm")]
        assert step.after is not None
        assert step.after.title == "healthy infra1+infra2 while NOSPACE"
        assert made.standing == {"NOSPACE"}

    @pytest.mark.usefixtures("unplugged")
    def test_while_an_alarm_stands_no_note_is_taken(self) -> None:
        world = World()
        world.alarms = ("NOSPACE",)
        world.pending = Pending(clean={"infra9": "10.0.0.9"})
        made = self.build(world, leaving(THREE), clean=["infra9"], sparing=("NOSPACE",))
        cleaning = [s for s in made.steps if s.title.startswith("clean")]
        assert cleaning
        assert all(s.calls == () for s in cleaning)

    def test_a_member_that_moves_is_awaited_while_the_alarm_stands(self) -> None:
        world = World()
        world.alarms = ("NOSPACE",)
        new = replace(THREE, address="10.0.0.33")
        moved = MemberChange(ChangeKind.UPDATE, new, 3)
        made = self.build(world, moved, sparing=("NOSPACE",))
        told, restart = made.steps
        assert told.hosts == ()
        assert restart.after is not None
        assert restart.after.title == "healthy infra1+infra2+infra3 while NOSPACE"

    @pytest.mark.parametrize("right", [True, False])
    def test_the_new_data_of_one_that_differed_are_the_majority_s(
        self, right: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = (
            {7: ("infra1", "infra2", "infra3")}
            if right
            else {7: ("infra1", "infra2"), 8: ("infra3",)}
        )
        monkeypatch.setattr(gates, "all_healthy", lambda *_, **__: Gate("healthy", lambda: None))
        monkeypatch.setattr(health, "observe", lambda etcd: etcd.cluster)
        monkeypatch.setattr(hashes, "compare", lambda seen, etcd: Comparison(9, found, 3))
        made = self.build(World(), leaving(THREE), joining(THREE), odd=("infra3",))
        gate = made.steps[-1].after
        assert gate is not None
        assert gate.title == "healthy, and infra3 has the majority's data"
        if right:
            gate.check()
            return
        with pytest.raises(PreflightFailed) as refused:
            gate.check()
        assert refused.value.id == "etcd-data-differ"
