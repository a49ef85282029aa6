"""The plans of enable-auth and disable-auth: what comes first, who is restarted, who is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.membership import clusters
from provision.alluxio.membership.clusters import Cluster, Clusters
from provision.alluxio.worker import desired
from provision.alluxio.worker.desired import UNIT, UNIT_PATH, Artifacts
from provision.engine.plan import Gate, Plan
from provision.errors import PreflightFailed, Problem, Unhealthy, UsageError
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import Login, MemberStatus, Permission
from provision.etcd.cluster import gates, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.host import gather
from provision.host.effects import Effect
from provision.host.facts import HostFacts, Probe
from provision.host.ownership import KEY
from provision.host.predict import after
from provision.inventory.membership_type import MembershipType
from provision.inventory.model import AlluxioEtcd, EtcdAuth, Secret
from provision.inventory.resolved import (
    AlluxioCluster,
    AlluxioWorker,
    EtcdCluster,
    Inventory,
    Machine,
)
from provision.plans.alluxio import moved, start_workers
from provision.plans.etcd import auth, logins
from provision.plans.etcd.auth import AuthState
from provision.plans.etcd.state.other_clusters import Others
from provision.ssh.session import Fleet
from tests.unit import builders, fake_etcd, hosts
from tests.unit.hosts import TARBALL

ARTIFACTS = Artifacts(TARBALL, None)
WORKERS = Login("alluxio", "w-secret")
ROOT = Login("root", "r-secret")
RIGHTS = auth.permissions("c")
SITE = "change /opt/alluxio/313/conf/alluxio-site.properties"


class World:
    """Two workers that run without a login, and an etcd without authentication."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        for login in (ROOT, WORKERS):
            (folder / login.user).write_text(login.password)
        self.declared = EtcdAuth(enabled=True, root_password=Secret(file=folder / "root"))
        self.etcd = fake_etcd.install(monkeypatch)
        self.login = AlluxioEtcd(username="alluxio", password=Secret(file=folder / "alluxio"))
        self.alluxio: AlluxioCluster | None = builders.alluxio(etcd_login=self.login)
        self.facts: dict[Machine, HostFacts] = {}
        self.away: list[Problem] = []
        self.moving: dict[str, Problem] = {}
        self.asked: list[AlluxioCluster] = []
        self.alarms: tuple[str, ...] = ()
        self.sick: set[str] = set()
        self.others = [Cluster("c", 1, 1, clusters.OURS, ())]
        before = builders.alluxio()
        for n, w in enumerate(before.workers, 1):
            bare = hosts.facts(n)
            self.facts[w.machine] = after(desired.resources(before, w, ARTIFACTS, bare), bare)
        monkeypatch.setattr(start_workers, "fetch", lambda *_, **__: ARTIFACTS)
        monkeypatch.setattr(gather, "gather_facts", self._gather)
        monkeypatch.setattr(moved, "left_to_start_workers", self._moving)
        monkeypatch.setattr(start_workers, "RegistrationGate", self._gate)
        monkeypatch.setattr(gates, "all_healthy", self._healthy)
        monkeypatch.setattr(health, "observe", lambda etcd: self.seen())
        monkeypatch.setattr(gates, "BACK_WITHIN", 0.0)
        monkeypatch.setattr(
            clusters, "look", lambda inventory, etcd: Clusters(tuple(self.others), True, 9)
        )

    @property
    def inventory(self) -> Inventory:
        return builders.inventory(alluxio=self.alluxio, etcd=builders.etcd(auth=self.declared))

    def seen(self) -> ClusterHealth:
        cluster = self.inventory.etcd
        status = MemberStatus(1, 1, "3.6.16", 1, 1, 1, 1, 1, 1, False, ())
        status = replace(status, errors=tuple(f"memberID:1 alarm:{a}" for a in self.alarms))
        return ClusterHealth(
            cluster,
            tuple(
                MemberHealth(m, status=status, error="no" if m.name in self.sick else "")
                for m in cluster.members
            ),
        )

    def _gather(
        self, fleet: Fleet, probes: Mapping[Machine, Probe]
    ) -> tuple[dict[Machine, HostFacts], list[Problem]]:
        assert all(UNIT in p.units or p.resources for p in probes.values())
        return {m: self.facts[m] for m in probes}, self.away

    def _moving(
        self,
        alluxio: AlluxioCluster,
        etcd: Etcd,
        workers: Sequence[AlluxioWorker],
        facts: Mapping[Machine, HostFacts],
    ) -> dict[str, Problem]:
        assert list(facts) == [w.machine for w in alluxio.workers]
        assert etcd.cluster == self.inventory.etcd
        self.asked.append(alluxio)
        self.installed = [w.name for w in workers]
        return self.moving

    def _gate(
        self, alluxio: AlluxioCluster, etcd: Etcd, some: Sequence[AlluxioWorker], *_: Any
    ) -> Any:
        assert alluxio == self.alluxio
        assert etcd.cluster == self.inventory.etcd
        names = "+".join(w.name for w in some)
        gate = type("G", (), {})()
        gate.before, gate.after = (Gate(f"{w} {names}", lambda: None) for w in ("before", "after"))
        return gate

    def _healthy(self, etcd: Etcd) -> Gate:
        assert etcd.cluster == self.inventory.etcd
        return Gate("all healthy", lambda: None)

    def state(self, **changed: Any) -> AuthState:
        values: dict[str, Any] = {"enabled": False, "users": {}, "roles": {}}
        return AuthState(**{**values, **changed})

    def observe(self) -> AuthState:
        with Fleet(1) as fleet:
            inventory = self.inventory
            return auth.observe(inventory, Etcd(inventory.etcd, fleet))

    def enable(self, *lock_out: str, agreed: bool = False, **state: Any) -> Plan:
        with Fleet(1) as fleet:
            inventory = self.inventory
            etcd, seen = Etcd(inventory.etcd, fleet), self.state(**state)
            return auth.enable(inventory, etcd, seen, lock_out, agreed=agreed)

    def disable(self, *lock_out: str, agreed: bool = False, **state: Any) -> Plan:
        with Fleet(1) as fleet:
            inventory = self.inventory
            etcd, seen = Etcd(inventory.etcd, fleet), self.state(**state)
            return auth.disable(inventory, etcd, seen, lock_out, agreed=agreed)

    def unit(self, number: int, **changed: Any) -> None:
        assert self.alluxio is not None
        machine = self.alluxio.workers[number - 1].machine
        f = self.facts[machine]
        unit = replace(f.unit(UNIT), **changed)
        self.facts[machine] = replace(f, units={**f.units, UNIT: unit})

    def owner(self, number: int, name: str | None) -> None:
        assert self.alluxio is not None
        machine = self.alluxio.workers[number - 1].machine
        f = self.facts[machine]
        paths = dict(f.paths)
        del paths[UNIT_PATH]
        if name is not None:
            paths[UNIT_PATH] = hosts.text(f"[Unit]\n{KEY}={name}\n")
        self.facts[machine] = replace(f, paths=paths)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path)


def text(plan: Plan) -> list[tuple[str, list[tuple[str, list[str]]], int]]:
    return [
        (s.title, [(h.name, [c.what for c in h.changes]) for h in s.hosts], len(s.calls))
        for s in plan.steps
    ]


def called(plan: Plan, number: int, world: World) -> list[tuple[object, ...]]:
    for call in plan.steps[number].calls:
        call.do()
    return world.etcd.changes()


def test_no_more_workers_restart_at_a_time_than_etcd_can_log_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = world.enable()
    assert not plan.notes
    assert plan.steps[-1].at_once == world.inventory.parallel
    monkeypatch.setattr(logins, "SECONDS", 2.0 * len(world.inventory.etcd.members))
    plan = world.enable()
    assert [s.title for s in plan.steps[2:]] == ["turn authentication on", "restart w1 and 1 more"]
    assert plan.steps[-1].at_once == 1
    (note,) = plan.notes
    assert note.id == "logins-slow"
    assert note.severity == "warning"
    assert note.what.startswith("2 workers log in again, at most 1 at a time; with bcrypt-cost 10 ")
    assert "takes every member some 4 s of a core, and a lease lasts 120 s" in note.what


class TestLogins:
    def cluster(self, *costs: object) -> EtcdCluster:
        cluster = builders.etcd()
        member = cluster.members[0]
        made = [
            replace(member, settings={} if c is None else {"bcrypt-cost": c})  # type: ignore[dict-item]
            for c in costs
        ]
        return replace(cluster, members=tuple(made))

    def test_each_step_of_the_cost_doubles_the_time(self) -> None:
        assert logins.seconds(self.cluster(None, None, None), 3000) == pytest.approx(100)
        assert logins.seconds(self.cluster(12, 12, 12), 3000) == pytest.approx(400)
        assert logins.seconds(self.cluster(6, 6, 6), 4800) == pytest.approx(10)
        assert logins.seconds(self.cluster(None), 1) == pytest.approx(0.1)

    def test_the_slowest_member_counts_and_what_bcrypt_does_not_have_is_etcds_default(self) -> None:
        for costs in ((4, None), (4, 10), (4, 3), (4, 32), (4, "4"), (4, 99)):
            assert logins.seconds(self.cluster(*costs), 2) == pytest.approx(0.1)

    def test_together_they_take_three_seconds_or_a_quarter_of_a_lease(self) -> None:
        three = self.cluster(None, None, None)
        assert logins.together(three, builders.alluxio(failure_detection_timeout=120)) == 90
        assert logins.together(three, builders.alluxio(failure_detection_timeout=4)) == 30
        short = builders.alluxio(failure_detection_timeout=1)
        assert logins.together(self.cluster(14), short) == 1

    def test_the_note(self) -> None:
        three, alluxio = self.cluster(None, None, None), builders.alluxio()
        assert logins.note(three, alluxio, 900, 20) is None
        assert logins.note(three, alluxio, 90, 500) is None
        fewer = logins.note(three, alluxio, 91, 500)
        assert fewer is not None
        assert "at most 90 at a time" in fewer.what
        long = logins.note(three, alluxio, 901, 20)
        assert long is not None
        assert "at most 20 at a time" in long.what


class TestEnable:
    def test_users_then_files_then_the_switch_then_all_workers_together(self, world: World) -> None:
        plan = world.enable()
        assert text(plan) == [
            ("make etcd's users and roles", [], 3),
            ("give the workers their login", [("w1", [SITE]), ("w2", [SITE])], 0),
            ("turn authentication on", [], 1),
            (
                "restart w1 and 1 more",
                [("w1", [f"restart {UNIT}"]), ("w2", [f"restart {UNIT}"])],
                0,
            ),
        ]
        assert all(h.machine.host == h.name for s in plan.steps for h in s.hosts)
        switch, restart = plan.steps[2:]
        assert Effect.CLIENTS in switch.effects
        assert switch.after is not None
        assert switch.after.title == "all healthy"
        assert restart.before is not None
        assert restart.after is not None
        assert (restart.before.title, restart.after.title) == ("before w1+w2", "after w1+w2")
        assert restart.at_once == world.inventory.parallel
        assert (plan.command, plan.cluster, plan.notes) == ("enable-auth", "c", ())
        assert set(plan.guards) == {m.machine for m in world.inventory.etcd.members}

    def test_root_comes_before_the_workers_user_and_roles_before_users(self, world: World) -> None:
        assert called(world.enable(), 0, world) == [
            ("user_add", "root", "r-secret"),
            ("role_add", "root"),
            ("user_grant_role", "root", "root"),
            ("role_add", "alluxio"),
            *(("role_grant", "alluxio", p) for p in RIGHTS),
            ("user_add", "alluxio", "w-secret"),
            ("user_grant_role", "alluxio", "alluxio"),
        ]

    def test_what_is_there_is_not_made_again(self, world: World) -> None:
        odd = Permission.below("/other")
        world.etcd.users = {"root": ("root",), "alluxio": ("alluxio",)}
        world.etcd.roles = {"root": (), "alluxio": (RIGHTS[0], odd)}
        plan = world.enable(users=world.etcd.users, roles=world.etcd.roles)
        assert called(plan, 0, world) == [
            ("user_change_password", "root", "r-secret"),
            *(("role_grant", "alluxio", p) for p in RIGHTS),
            ("role_revoke", "alluxio", odd),
            ("user_change_password", "alluxio", "w-secret"),
        ]
        world.etcd.users = {"root": (), "alluxio": ()}
        world.etcd.roles = {"root": (), "alluxio": RIGHTS}
        plan = world.enable(users=world.etcd.users, roles=world.etcd.roles)
        assert called(plan, 0, world) == [
            ("user_change_password", "root", "r-secret"),
            ("user_grant_role", "root", "root"),
            ("user_change_password", "alluxio", "w-secret"),
            ("user_grant_role", "alluxio", "alluxio"),
        ]

    def test_the_switch_is_made_once(self, world: World) -> None:
        plan = world.enable()
        assert called(plan, 2, world) == [("auth_enable",)]
        assert called(plan, 2, world) == []
        assert {way for way, _ in world.etcd.clients} == {"any"}

    def test_a_second_run_finds_what_is_left(self, world: World) -> None:
        state: dict[str, Any] = {
            "enabled": True,
            "users": {"alluxio": ("alluxio",)},
            "roles": {"alluxio": tuple(reversed(RIGHTS))},
            "accepted": True,
        }
        assert [s.title for s in world.enable(**state).steps] == [
            "give the workers their login",
            "restart w1 and 1 more",
        ]
        state["accepted"] = False  # the password is another one
        assert called(world.enable(**state), 0, world) == [
            ("user_add", "alluxio", "w-secret"),
            ("user_grant_role", "alluxio", "alluxio"),
        ]
        state |= {"accepted": True, "users": {"alluxio": ()}}
        assert world.enable(**state).steps[0].title == "make etcd's users and roles"
        state |= {"users": {"alluxio": ("alluxio",)}, "roles": {"alluxio": RIGHTS[:1]}}
        assert world.enable(**state).steps[0].title == "make etcd's users and roles"

    def test_files_that_are_written_but_not_read_yet_need_a_restart(self, world: World) -> None:
        assert world.alluxio is not None
        for w in world.alluxio.workers:
            wanted = desired.resources(world.alluxio, w, ARTIFACTS, world.facts[w.machine])
            changed = after([r for r in wanted if auth._is_site(r)], world.facts[w.machine])
            world.facts[w.machine] = changed
        assert [s.title for s in world.enable(enabled=True, accepted=True).steps][1:] == [
            "restart w1 and 1 more"
        ]

    def test_nothing_to_do_guards_nothing(self, world: World) -> None:
        world.alluxio = None
        plan = world.enable(enabled=True)
        assert (plan.steps, plan.guards) == ((), ())

    def test_without_workers_there_is_root_alone(self, world: World) -> None:
        world.alluxio = None
        assert text(world.enable()) == [
            ("make etcd's users and roles", [], 1),
            ("turn authentication on", [], 1),
        ]

    def test_workers_without_a_lease_in_etcd_need_no_login(self, world: World) -> None:
        world.alluxio = builders.alluxio(etcd_login=world.login, membership=MembershipType.STATIC)
        assert text(world.enable()) == [
            ("make etcd's users and roles", [], 1),
            ("turn authentication on", [], 1),
        ]

    def test_the_inventory_has_to_say_so(self, world: World) -> None:
        for enabled in (False, None):
            world.declared = world.declared.model_copy(update={"enabled": enabled})
            with pytest.raises(UsageError, match="enabled: true"):
                world.enable()

    def test_a_release_that_would_damage_data_is_refused_unless_it_is_on(
        self, world: World
    ) -> None:
        with pytest.raises(PreflightFailed, match="enable-auth could damage data"):
            world.enable(running=(("infra1", "3.5.5"),))
        world.enable(running=(("infra1", "3.5.5"),), enabled=True)


class TestOthers:
    """Other clusters in this etcd."""

    def test_live_workers_of_others_are_not_cut_off_without_consent(self, world: World) -> None:
        others = Others({"d": 2, "e": 0, "f": 1})
        with pytest.raises(PreflightFailed, match="other clusters use this etcd") as refused:
            world.enable("d", others=others)
        assert [(p.where, p.severity) for p in refused.value.problems] == [
            ("cluster d", "warning"),
            ("cluster e", "warning"),
            ("cluster f", "error"),
        ]
        notes = world.enable("d", "f", others=others).notes
        assert [(p.where, p.severity) for p in notes] == [
            (f"cluster {n}", "warning") for n in "def"
        ]
        assert world.enable(others=Others({"e": 0})).notes[0].severity == "warning"

    def test_the_word_is_for_what_cannot_be_found_out(self, world: World) -> None:
        """With more keys than are read, authentication could never be turned on."""
        others = Others({"e": 0}, why="not everything was read")
        with pytest.raises(PreflightFailed) as refused:
            world.enable(others=others)
        assert refused.value.id == "other-clusters-unknown"
        assert refused.value.problems[-1].remedy.endswith("--other-clusters-unknown c")
        notes = world.enable(others=others, agreed=True).notes
        assert [n.id for n in notes] == ["other-clusters-unknown"]  # e may have live workers
        with pytest.raises(PreflightFailed, match="other clusters use this etcd"):
            world.enable(others=replace(others, live={"d": 2}), agreed=True)

    def test_who_is_locked_out_already_is_not_asked_for(self, world: World) -> None:
        assert world.enable(others=Others({"d": 2}), enabled=True).notes == ()

    def test_a_consent_for_nobody(self, world: World) -> None:
        with pytest.raises(UsageError, match="no other cluster in this etcd is called x"):
            world.enable("d", "x", others=Others({"d": 0}))


class TestDisable:
    @pytest.fixture(autouse=True)
    def _off(self, world: World) -> None:
        assert world.alluxio is not None
        world.declared = world.declared.model_copy(update={"enabled": False})
        many = [builders.worker(f"w{n}") for n in range(1, 21)]
        before = builders.alluxio(*many, etcd_login=world.login)
        for n, w in enumerate(many, 1):
            bare = hosts.facts(n)
            wanted = desired.resources(before, w, ARTIFACTS, bare)
            world.facts[w.machine] = after(wanted, bare)
        world.alluxio = builders.alluxio(*many)

    def test_live_workers_of_others_are_not_cut_off_without_consent(self, world: World) -> None:
        others = Others({"d": 2, "e": 0})
        with pytest.raises(PreflightFailed, match="other clusters use this etcd"):
            world.disable(enabled=True, others=others)
        unknown = Others(why="not everything was read")
        with pytest.raises(PreflightFailed, match="not known") as refused:
            world.disable(enabled=True, others=unknown)
        assert refused.value.problems[-1].remedy.endswith("--other-clusters-unknown c")
        assert world.disable(enabled=True, others=unknown, agreed=True).notes
        [note] = world.disable("d", enabled=True, others=others).notes
        assert (note.where, note.severity) == ("cluster d", "warning")
        assert world.disable(enabled=False, others=others).notes == ()

    def test_files_then_the_switch_then_the_workers_in_groups(self, world: World) -> None:
        plan = world.disable(enabled=True)
        assert [s.title for s in plan.steps] == [
            "take the workers' login away",
            "turn authentication off",
            *(f"restart w{n} and 1 more" for n in range(1, 21, 2)),
        ]
        assert [h.name for s in plan.steps[2:] for h in s.hosts] == [f"w{n}" for n in range(1, 21)]
        assert [h.name for h in plan.steps[0].hosts] == [f"w{n}" for n in range(1, 21)]
        world.etcd.enabled = True
        assert called(plan, 1, world) == [("auth_disable",)]
        assert called(plan, 1, world) == []
        assert (plan.command, plan.cluster) == ("disable-auth", "c")
        assert plan.steps[1].after is not None

    def test_it_is_off_already(self, world: World) -> None:
        assert world.disable().steps[1].title == "restart w1 and 1 more"

    def test_few_workers_are_restarted_one_by_one(self, world: World) -> None:
        assert world.alluxio is not None
        world.alluxio = replace(world.alluxio, workers=world.alluxio.workers[:3])
        plan = world.disable()
        assert [s.title for s in plan.steps[1:]] == ["restart w1", "restart w2", "restart w3"]

    @pytest.mark.parametrize("enabled", [True, None])
    def test_the_inventory_has_to_say_so(self, world: World, enabled: bool | None) -> None:
        world.declared = world.declared.model_copy(update={"enabled": enabled})
        with pytest.raises(UsageError, match="enabled: false"):
            world.disable(enabled=True)


class TestWorkers:
    def test_only_this_cluster_s_and_only_those_that_run_are_restarted(self, world: World) -> None:
        world.unit(1, active="inactive")
        plan = world.enable()
        assert text(plan)[1] == (
            "give the workers their login",
            [("w1", [SITE]), ("w2", [SITE])],
            0,
        )
        assert text(plan)[3] == ("restart w2", [("w2", [f"restart {UNIT}"])], 0)
        world.unit(1, active="activating")
        assert [h.name for h in world.enable().steps[3].hosts] == ["w1", "w2"]
        world.owner(1, "other")
        assert [h.name for h in world.enable().steps[1].hosts] == ["w2"]
        world.owner(1, None)
        assert [h.name for h in world.enable().steps[1].hosts] == ["w2"]
        assert world.installed == ["w2"]

    def test_a_host_that_is_away_ends_it(self, world: World) -> None:
        world.away = [Problem("w2", "no route", id="host-unreachable")]
        with pytest.raises(PreflightFailed, match="not every worker's host") as refused:
            world.enable()
        assert list(refused.value.problems) == world.away

    def test_a_worker_that_gets_another_address_ends_it(self, world: World) -> None:
        world.moving = {"w1": Problem("w1", "moves", id="worker-address-changing")}
        with pytest.raises(PreflightFailed, match="the address of 1 worker changes") as refused:
            world.enable()
        assert [p.where for p in refused.value.problems] == ["w1"]
        # Asked as root: etcd may not know the workers' login yet.
        assert [a.etcd_login for a in world.asked] == [AlluxioEtcd()]


class TestObserve:
    def test_what_etcd_has(self, world: World) -> None:
        world.etcd.users, world.etcd.roles = {"root": ("root",)}, {"alluxio": RIGHTS}
        world.others += [Cluster("d", 3, 2, clusters.DECLARED, ()), Cluster("e", 1, 0, "", ())]
        found = world.observe()
        assert (found.enabled, found.users, found.roles) == (
            False,
            {"root": ("root",)},
            {"alluxio": RIGHTS},
        )
        assert not found.accepted
        assert found.others == Others({"d": 2, "e": 0}, 1)
        assert found.running == tuple((f"infra{n}", "3.6.16") for n in (1, 2, 3))

    def test_whether_the_workers_login_is_accepted(self, world: World) -> None:
        world.etcd.enabled = True
        assert world.observe().accepted
        assert world.etcd.clients[-1] == ("infra1", WORKERS)
        refused = fake_etcd.refused()

        def before(name: str) -> None:
            as_worker = world.etcd.clients[-1] == ("infra1", WORKERS)
            world.etcd.fail = {"log_in": refused} if as_worker else {}

        world.etcd.before = before
        assert not world.observe().accepted
        refused = fake_etcd.refused(Reason.TIMEOUT)
        with pytest.raises(EtcdUnreachable):
            world.observe()

    def test_without_workers_there_is_no_login_to_accept(self, world: World) -> None:
        world.etcd.enabled = True
        world.alluxio = None
        assert not world.observe().accepted

    def test_root_s_password_is_needed(self, world: World) -> None:
        world.declared = EtcdAuth(enabled=True)
        with pytest.raises(UsageError, match="root_password is missing"):
            world.observe()

    def test_all_members_are_healthy_and_take_writes(self, world: World) -> None:
        world.sick = {"infra2"}
        with pytest.raises(Unhealthy, match="2 of 3"):
            world.observe()
        world.sick, world.alarms = set(), ("NOSPACE",)
        with pytest.raises(PreflightFailed, match="NOSPACE"):
            world.observe()


class TestAsDeclared:
    """Data of another time: its authentication may be another, and its users and roles, too."""

    USERS = (
        *("user_add", "role_add", "user_grant_role", "role_add", "role_grant", "role_grant"),
        *("user_add", "user_grant_role"),
    )

    @pytest.fixture(autouse=True)
    def _client(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(auth, "EtcdClient", fake_etcd.FakeClient)

    def run(self, world: World) -> tuple[str, list[object]]:
        """What the step says, and the changes that it makes."""
        inventory = world.inventory
        with Fleet(1) as fleet:
            step = auth.as_declared(inventory, Etcd(inventory.etcd, fleet))
            assert step.after is not None
            assert step.after.title == "all healthy"
            [call] = step.calls
            call.do()
            made = [name for name, *_ in world.etcd.changes()]
            call.do()
            assert world.etcd.changes() == [], "it is safe to repeat"
        return call.what, made

    def declare(self, world: World, enabled: bool) -> None:
        world.declared = world.declared.model_copy(update={"enabled": enabled})

    def test_users_and_roles_come_before_it_is_on(self, world: World) -> None:
        said = "authentication on, as declared, with its users and roles"
        assert self.run(world) == (said, [*self.USERS, "auth_enable"])
        assert world.etcd.enabled

    def test_what_is_as_declared_is_left_alone(self, world: World) -> None:
        world.etcd.enabled = True
        assert self.run(world)[1] == []
        world.alluxio = None
        assert self.run(world)[1] == []

    def test_a_login_of_another_time_is_replaced(self, world: World) -> None:
        """Authentication is on in the data, and the workers' password is another one."""
        world.etcd.enabled = True
        refused = True

        def before(name: str) -> None:
            nonlocal refused
            as_worker = world.etcd.clients[-1] == ("infra1", WORKERS)
            refused = refused and name != "user_grant_role"
            fails = as_worker and refused
            world.etcd.fail = {"log_in": fake_etcd.refused()} if fails else {}

        world.etcd.before = before
        made = ["role_add", "role_grant", "role_grant", "user_add", "user_grant_role"]
        assert self.run(world)[1] == made

    def test_it_is_turned_off_and_users_stay(self, world: World) -> None:
        self.declare(world, False)
        world.etcd.enabled = True
        assert self.run(world) == ("authentication off, as declared", ["auth_disable"])
        assert not world.etcd.enabled
