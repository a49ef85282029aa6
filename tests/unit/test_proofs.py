"""Which guards a plan has follows from what its steps do, and each guard is asked in one place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.worker import desired as worker
from provision.cli import commands
from provision.cli.run import Run
from provision.cli.tasks import common
from provision.engine.guards import APPLIES, EXEMPT, Guard, required
from provision.engine.plan import Action, HostChanges, Plan, Step
from provision.errors import PreflightFailed, ProvisionError
from provision.etcd.api.values import MemberStatus
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.member import layout
from provision.etcd.pki import own_ca
from provision.host import gather, tool_version
from provision.host.diff import Change, changes
from provision.host.effects import Effect
from provision.host.facts import PathState, Probe
from provision.host.resources import Certificate, File, Unit
from provision.inventory.resolved import Machine
from provision.plans import proofs
from provision.plans.etcd.certificates import replace_lost_ca, rotate_certs
from provision.plans.proofs import Subject
from provision.ssh.session import Fleet, Stats
from tests.unit import builders, hosts
from tests.unit.test_lost_ca import lose, state
from tests.unit.test_rotate import World, on

TASKS = set(commands.namespace.task_names)

#: Every command that changes something, with the guards that its plans have when their steps need
#: them: run Lock, tool Version, which Cluster, Unfinished, known cA, Other clusters, lEases.
TABLE = """
add-member          L V C U A O .
clean-host          L V . . A O E
decommission-worker L V C U A O E
defrag-etcd         L V C U A O E
deploy-etcd         L V C U A O .
destroy             L V . . A O E
disable-auth        L V C U A O E
disarm-alarms       L V C U A O E
enable-auth         L V C U A O E
export-csrs         L V . . A O E
forget-worker       . V C U A O E
import-certs        L V . . A O E
kept-data           L V . . A O E
move-leader         L V C U A O E
readmit-worker      . V C U A O E
recover-etcd        L V . . A O .
remove-member       L V C U A O .
replace-member      L V C U A O .
restart-workers     L V C U A O E
restore-etcd        L V . . A O .
rollback-workers    L V C U A O E
rotate-certs        L V C U A O E
start-masters       L V . . A O E
start-workers       L V C U A O E
stop-masters        L V . . A O E
stop-workers        L V . . A O E
upgrade-etcd        L V C U A O E
upgrade-workers     L V C U A O E
"""
LETTERS = dict(zip("LVCUAOE", Guard, strict=True))

#: The guards of each effect alone.
OF_EFFECT = """
HOST      L V C U . . .
SERVICE   L V C U . . .
WORKER    L V C U . . E
TRUST     L V C U A . .
ETCD      L . C U . . .
MEMBERS   L . C U . . .
REMOVAL   L . C U . . .
ETCD_GONE L V C U . O .
ETCD_BACK L V C U . O .
CLIENTS   L . C U . O .
HERE      . . . . . . .
"""


def rows(table: str) -> dict[str, tuple[Guard, ...]]:
    found = {}
    for line in table.strip().splitlines():
        name, *cells = line.split()
        assert [c for c in cells if c != "."] == [c for c in "LVCUAOE" if c in cells]
        found[name] = tuple(LETTERS[c] for c in cells if c != ".")
    return found


def changing() -> set[str]:
    import inspect

    return {
        name
        for name in TASKS
        if "dry_run" in inspect.signature(commands.namespace[name].body).parameters
    }


def test_the_table_has_every_command_that_changes_something() -> None:
    assert set(rows(TABLE)) == changing()
    assert set(EXEMPT) <= changing()


@pytest.mark.parametrize(("command", "guards"), rows(TABLE).items())
def test_a_command_has_every_guard_but_for_a_reason(
    command: str, guards: tuple[Guard, ...]
) -> None:
    assert required(command, frozenset(Effect)) == guards
    assert all(len(why) > 10 for why in EXEMPT.get(command, {}).values())


@pytest.mark.parametrize(("effect", "guards"), rows(OF_EFFECT).items())
def test_the_guards_of_an_effect(effect: str, guards: tuple[Guard, ...]) -> None:
    assert required("a-new-command", frozenset({Effect[effect]})) == guards
    assert set(rows(OF_EFFECT)) == {e.name for e in Effect}
    assert set(APPLIES) == set(proofs.CHECKS) == set(Guard)


class TestEffects:
    """Of changes as resources make them: no command has to say them."""

    def of(self, *resources: Unit | File | Certificate) -> frozenset[Effect]:
        todo = changes(resources, hosts.facts())
        return Step("x", (HostChanges("n", Machine("h"), todo),)).effects

    def test_a_file_changes_a_host_and_a_service_that_must_restart(self) -> None:
        assert self.of(File("/f", b"x")) == {Effect.HOST}
        assert self.of(File("/f", b"x", restarts=("u.service",))) == {Effect.HOST, Effect.SERVICE}

    def test_a_worker_that_starts_needs_a_lease(self) -> None:
        assert self.of(worker.running()) == {Effect.HOST, Effect.SERVICE, Effect.WORKER}
        assert self.of(Unit("other.service")) == {Effect.HOST, Effect.SERVICE}

    def test_a_certificate_however_it_is_made(self) -> None:
        for made in (
            Certificate("/c", "etcd", pair=(b"c", b"k")),
            Certificate("/c", "etcd", sign=lambda request: request),
        ):
            assert Effect.TRUST in self.of(made)
        half = PathState("file", "etcd", "etcd", 0o644, 1, b"c")
        seen = replace(hosts.facts(), paths={"/c.crt.new": half})
        [change] = changes([Certificate("/c", "etcd")], seen)
        assert Effect.TRUST in change.every_effect

    def test_a_rotation_in_each_of_its_phases(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        members = world.cluster.members
        leaves = rotate_certs.leaves(on(world.inventory), state(world), members, write=False)
        assert Effect.TRUST in leaves.effects
        plan = world.plan()
        phases = [s for s in plan.steps if s.hosts]
        assert len(phases) == 9
        assert all(Effect.TRUST in step.effects for step in phases)
        assert [s.effects for s in plan.steps if not s.hosts] == [{Effect.HERE}] * 2

    def test_a_call_changes_etcd_unless_it_says_something_else(self) -> None:
        assert Action("x", lambda: None).effects == (Effect.ETCD,)


def status(member: int, state: str) -> MemberHealth:
    if state == "silent":
        return MemberHealth(builders.member(member), error="no answer")
    errors = ("alarm:NOSPACE ",) if state == "alarm" else ()
    told = MemberStatus(1, member, "3.6.16", 1, 1, 1, 1, 1, 1, False, errors)
    return MemberHealth(builders.member(member), status=told)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def subject(world: World, command: str = "a-new-command", *, looked: bool = True) -> Subject:
    """For which every guard holds."""
    etcd = on(world.inventory)
    etcd.learned.passed |= {Guard.UNFINISHED, Guard.OTHER_CLUSTERS}
    if looked:
        etcd.learned.facts = state(world).facts
        for m in world.cluster.members:
            etcd.fleet.stats.facts[m.machine] = hosts.facts()
    return Subject(command, etcd, established=True, leases=False)


def plan(world: World, *effects: Effect, here: bool = True) -> Plan:
    change = Change("x", "true", effects=effects)
    host = HostChanges("infra1", world.cluster.members[0].machine, (change,))
    return Plan("x", "c", (Step("x", (host,) if here else (), (Action("y", print),)),))


def test_a_plan_with_all_its_guards(world: World) -> None:
    effects = set(Effect) - {Effect.WORKER}
    proofs.require(plan(world, *effects), subject(world))


def refused(
    plan: Plan, about: Subject, kind: type[BaseException] = PreflightFailed
) -> BaseException:
    with pytest.raises(kind) as caught:
        proofs.require(plan, about)
    return caught.value


class TestKnownCa:
    def test_a_new_command_that_sends_certificates_cannot_forget_it(self, world: World) -> None:
        lose(world)
        error = refused(plan(world, Effect.TRUST), subject(world))
        assert isinstance(error, ProvisionError)
        assert error.id == "ca-unknown"
        proofs.require(plan(world), subject(world))  # no certificate is sent

    def test_a_command_that_has_looked_at_no_member_is_a_mistake(self, world: World) -> None:
        about = subject(world)
        about.etcd.learned.facts = {}
        refused(plan(world, Effect.TRUST), about, AssertionError)

    def test_the_question_makes_no_ca(self, world: World) -> None:
        """As for a first deploy that is only shown."""
        for files in world.files.values():
            files.clear()
        home = lose(world)
        proofs.require(plan(world, Effect.TRUST), subject(world))
        assert not home.exists()

    def test_a_new_ca_needs_no_old_one(self, world: World) -> None:
        lose(world)
        seen = state(world)
        outage = replace_lost_ca.together(on(world.inventory), seen)
        proofs.require(outage, subject(world, "rotate-certs"))
        refused(replace(outage, waives=()), subject(world, "rotate-certs"))


class TestRunLock:
    def test_who_disturbs_a_member_locks_them_all(self, world: World) -> None:
        every = tuple(m.machine for m in world.cluster.members)
        for effect in (Effect.SERVICE, Effect.TRUST, Effect.MEMBERS):
            locked = proofs.require(plan(world, effect), subject(world)).machines
            assert set(locked) == set(every), effect
        assert proofs.require(plan(world), subject(world)).machines == every[:1]

    def test_a_change_of_the_members_list_alone_locks_them_all(self, world: World) -> None:
        """Its steps change no host."""
        call = Action("remove infra2", print, (Effect.MEMBERS,))
        alone = Plan("x", "c", (Step("x", calls=(call,)),))
        locked = proofs.require(alone, subject(world)).machines
        assert set(locked) == {m.machine for m in world.cluster.members}

    def test_a_plan_that_locks_nothing_is_a_mistake(self, world: World) -> None:
        refused(plan(world, here=False), subject(world), AssertionError)
        proofs.require(plan(world, here=False), subject(world, "forget-worker"))


class TestToolVersion:
    def test_hosts_that_were_not_looked_at_are_looked_at(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Machine] = []

        def look(fleet: Fleet, probes: dict[Machine, Probe]) -> None:
            asked.extend(probes)
            assert not any(p.kinds for p in probes.values()), "its version is enough"
            raise PreflightFailed("older", id="tool-too-old")

        monkeypatch.setattr(gather, "require_facts", look)
        about = subject(world, looked=False)
        refused(plan(world), about)
        assert asked == [world.cluster.members[0].machine]
        proofs.require(plan(world), subject(world))

    def test_the_look_refuses_a_newer_version(self) -> None:
        newer = replace(hosts.facts(), values={tool_version.FACT: "999.0"})
        with pytest.raises(PreflightFailed):
            tool_version.require_not_newer({Machine("h"): newer})


def test_which_cluster_it_is(world: World) -> None:
    about = replace(subject(world), established=False)
    refused(plan(world), about, AssertionError)
    for command in ("destroy", "stop-workers"):
        proofs.require(plan(world), replace(about, command=command))


def test_an_unfinished_restore(world: World) -> None:
    about = subject(world)
    about.etcd.learned.passed.clear()
    refused(plan(world), about, AssertionError)
    about = subject(world)
    m = world.cluster.members[1]
    seen = about.etcd.learned.facts[m.machine]
    mark = {layout.unfinished(m): hosts.text("restore x")}
    marked = replace(seen, paths={**seen.paths, **mark})
    about.etcd.learned.facts = {**about.etcd.learned.facts, m.machine: marked}
    error = refused(plan(world), about)
    assert isinstance(error, ProvisionError)
    assert error.id == "recovery-unfinished"


def test_other_clusters(world: World) -> None:
    about = subject(world, "destroy")
    about.etcd.learned.passed.discard(Guard.OTHER_CLUSTERS)
    error = refused(plan(world, Effect.ETCD_GONE), about)
    assert isinstance(error, ProvisionError)
    assert error.id == "other-clusters-unknown"
    proofs.require(plan(world), about)


@pytest.mark.parametrize("state", ["good", "alarm", "silent"])
def test_leases(world: World, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    seen = tuple(status(i, state) for i in (1, 2, 3))
    monkeypatch.setattr(health, "observe", lambda etcd: ClusterHealth(etcd.cluster, seen))
    about = replace(subject(world, "start-workers"), leases=True)
    if state == "good":
        proofs.require(plan(world, Effect.WORKER), about)
    else:
        refused(plan(world, Effect.WORKER), about, ProvisionError)
        proofs.require(plan(world), about)
        proofs.require(plan(world, Effect.WORKER), replace(about, command="deploy-etcd"))
        proofs.require(plan(world, Effect.WORKER), replace(about, leases=False))


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_one_place_where_plans_are_shown_and_applied_asks_them(
    world: World, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    """Whatever the command is: it refuses before the plan is shown."""
    applied: list[Plan] = []
    monkeypatch.setattr("provision.engine.plan.apply", lambda plan, *_: applied.append(plan))
    monkeypatch.setattr(Run, "inventory", world.inventory)
    lose(world)
    run = Run("a-new-command", dry_run=dry_run, established=True)
    run._fleet = Fleet(1, Stats())
    run._etcd = subject(world).etcd
    run._etcd.fleet.stats.facts[world.cluster.members[0].machine] = hosts.facts()
    with pytest.raises(PreflightFailed) as caught:
        common.carry_out(run, plan(world, Effect.TRUST))
    assert caught.value.id == "ca-unknown"
    assert not applied
    assert not own_ca.home(world.cluster.tls.pki_dir, "c").exists()
    assert common.carry_out(run, plan(world)) != dry_run
    assert bool(applied) != dry_run


def test_a_handle_shares_what_it_has_passed(world: World) -> None:
    etcd = Etcd(world.cluster, Fleet(1, Stats()))
    etcd.with_cluster(world.cluster).as_worker(None).learned.passed.add(Guard.UNFINISHED)
    assert etcd.learned.passed == {Guard.UNFINISHED}
