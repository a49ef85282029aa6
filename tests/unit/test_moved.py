"""Workers that are registered under another address: planned, or refused as clones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import Entry, Registration, RegistrationSnapshot
from provision.engine.plan import Plan
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd.api.values import KeyValue, Login
from provision.etcd.cluster.handle import Etcd
from provision.host import gather
from provision.host.facts import HostFacts, Probe, UnitState
from provision.inventory.membership_type import MembershipType
from provision.inventory.model import AlluxioEtcd, EtcdAuth, Secret
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory, Machine
from provision.plans.alluxio import endpoints, forget_worker, moved, restart_workers, start_workers
from provision.ssh.session import Fleet
from tests.unit import builders, fake_etcd
from tests.unit.hosts import text
from tests.unit.test_start_plan import ARTIFACTS, running

UUIDS = {n: f"{n:08}-1111-2222-3333-444444444444" for n in (1, 2)}
FILE = "/var/lib/alluxio/worker_identity"
UNIT = "alluxio-worker.service"


def entry(n: int, host: str, lease: int = 0, **changed: Any) -> Entry:
    values = {"data_port": 29997, "web_port": 30000, "state": "AUTHORIZED", "generation": -1}
    found = Registration(f"worker-{UUIDS[n]}", host=host, rpc_port=29999, **{**values, **changed})
    key = f"/DHT/c/AUTHORIZED/worker-{UUIDS[n]}".encode()
    return Entry(KeyValue(key, b"v", lease, 5), found)


def registered(*entries: Entry, live: tuple[Entry, ...] = ()) -> RegistrationSnapshot:
    def by_id(some: tuple[Entry, ...]) -> dict[str, Entry]:
        return {e.registration.worker_id: e for e in some}

    return RegistrationSnapshot("c", 9, by_id(entries), by_id(live))


class World:
    """w1 and w2 as declared and running, with the identities 1 and 2."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.alluxio = builders.alluxio()
        self.facts: dict[Machine, HostFacts] = {}
        for n, (name, f) in enumerate(running(self.alluxio).items(), 1):
            paths = {**f.paths, FILE: replace(text(UUIDS[n] + "\n"), owner="alluxio")}
            self.facts[self.machine(name)] = replace(f, paths=paths)
        self.seen = registered(entry(1, "w1"), entry(2, "w2"))
        self.answering: set[str] = set()
        self.addresses: dict[str, str] = {}
        monkeypatch.setattr(registrations, "port_answers", self.answers)
        monkeypatch.setattr(gather, "gather_facts", self.look)

    def machine(self, name: str) -> Machine:
        return self.alluxio.worker(name).machine

    def answers(self, fleet: Fleet, worker: AlluxioWorker, timeout: float = 2.0) -> bool:
        return worker.hostname in self.answering

    def look(
        self, fleet: Fleet, probes: Mapping[Machine, Probe]
    ) -> tuple[dict[Machine, HostFacts], list[Problem]]:
        found = {
            m: replace(
                self.facts[m],
                resolved={name: self.addresses.get(name, "") for name in probe.resolve or ()},
                addresses=frozenset({"10.0.0.1"}),
            )
            for m, probe in probes.items()
        }
        return found, []

    def unit(self, name: str, active: str) -> None:
        machine = self.machine(name)
        units = {UNIT: UnitState("loaded", active, "", "enabled", 1)}
        self.facts[machine] = replace(self.facts[machine], units=units)

    def found(self, alluxio: AlluxioCluster | None = None) -> list[moved.Moved]:
        cluster = alluxio or self.alluxio
        return moved.found(cluster, cluster.workers, self.facts, self.seen)

    def clones(self, alluxio: AlluxioCluster) -> list[Problem]:
        with Fleet(2) as fleet:
            return moved.clones(alluxio, fleet, self.found(alluxio), self.facts, self.seen)

    def plan(self, alluxio: AlluxioCluster) -> Plan:
        observed = start_workers.WorkersState(
            ARTIFACTS, self.facts, moved=tuple(self.found(alluxio))
        )
        with Fleet(2) as fleet:
            inventory = builders.inventory(alluxio)
            handle = Etcd(inventory.etcd, fleet)
            return start_workers.plan(inventory, alluxio, handle, observed, alluxio.workers)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def changed(alluxio: AlluxioCluster, name: str, **values: Any) -> AlluxioCluster:
    workers = tuple(w._replace(**values) if w.name == name else w for w in alluxio.workers)
    return replace(alluxio, workers=workers)


WEB = {"alluxio.worker.web.port": 30001}


def test_as_registered_nothing_is_found(world: World) -> None:
    assert world.found() == []
    assert world.plan(world.alluxio).steps == ()


def test_a_worker_whose_web_port_changes(world: World) -> None:
    (one,) = world.found(changed(world.alluxio, "w1", properties=WEB))
    assert (one.worker.name, one.what) == ("w1", "web port 30000 becomes 30001")
    assert not one.live


@pytest.mark.parametrize(
    "membership_type", [MembershipType.STATIC, MembershipType.SERVICE_REGISTRY]
)
def test_without_a_permanent_key_nothing_is_in_the_way(world: World, membership_type: Any) -> None:
    other = changed(world.alluxio, "w1", properties=WEB)
    assert world.found(replace(other, membership=membership_type)) == []


def test_one_that_runs_is_stopped_first(world: World) -> None:
    other = changed(world.alluxio, "w1", properties=WEB)
    world.seen = registered(entry(1, "w1"), entry(2, "w2"), live=(entry(1, "w1", 7),))
    plan = world.plan(other)
    assert [s.title for s in plan.steps] == [
        "stop w1 for the new address",
        "remove the old address of w1",
        "restart w1",
    ]
    stop, remove, restart = plan.steps
    assert [c.what for c in stop.hosts[0].changes] == [f"stop {UNIT}"]
    assert stop.after is not None
    assert stop.after.title == "the lease of w1 has ended"
    (call,) = remove.calls
    assert call.what.startswith(f"etcd: remove /DHT/c/AUTHORIZED/worker-{UUIDS[1]}; kept in ")
    assert call.what.endswith("web port 30000 becomes 30001")
    assert [h.name for h in restart.hosts] == ["w1"]


def test_one_that_was_stopped_by_a_killed_run(world: World) -> None:
    world.unit("w1", "inactive")
    plan = world.plan(changed(world.alluxio, "w1", properties=WEB))
    assert [s.title for s in plan.steps] == [
        "remove the old address of w1",
        "start workers",
    ]
    world.seen = registered(entry(1, "w1"), entry(2, "w2"), live=(entry(1, "w1", 7),))
    first, *_ = world.plan(changed(world.alluxio, "w1", properties=WEB)).steps
    assert (first.title, first.hosts) == ("wait until the lease of w1 has ended", ())
    assert first.after is not None


def test_of_two_it_is_said_that_they_are_two(world: World) -> None:
    world.seen = registered(
        *(entry(1, "w1"), entry(2, "w2")), live=(entry(1, "w1", 7), entry(2, "w2", 8))
    )
    both = changed(changed(world.alluxio, "w1", properties=WEB), "w2", properties=WEB)
    inventory = builders.inventory(both)
    with Fleet(2) as fleet:
        etcd = Etcd(inventory.etcd, fleet)
        found = world.found(both)
        stop, _ = moved.steps(inventory, both, etcd, found, world.facts, "start-workers")
    assert stop.title == "stop w1 and 1 more for the new address"
    assert stop.after is not None
    assert stop.after.title == "the leases of w1 and 1 more have ended"


def test_one_that_systemd_starts_in_vain_is_stopped_first(world: World) -> None:
    world.unit("w1", "activating")
    plan = world.plan(changed(world.alluxio, "w1", properties=WEB))
    assert plan.steps[0].title == "stop w1 for the new address"


def test_one_that_runs_and_is_not_let_in_is_started_again(world: World) -> None:
    """Its files were written by a run that was killed, and its host has started it since."""
    world.seen = registered(entry(1, "w1", web_port=1), entry(2, "w2"))
    assert [s.title for s in world.plan(world.alluxio).steps][-1] == "restart w1"
    live = (entry(1, "w1", 7, web_port=1),)
    world.seen = registered(entry(1, "w1", web_port=1), entry(2, "w2"), live=live)
    assert world.plan(world.alluxio).steps == ()  # what it has registered stands


class TestClones:
    def test_a_new_name_of_the_host(self, world: World) -> None:
        """Its own process is live at the old name, which is this host's still."""
        other = changed(world.alluxio, "w1", hostname="new")
        world.seen = registered(entry(1, "old"), live=(entry(1, "old", 7),))
        world.answering = {"old"}
        world.addresses["old"] = "10.0.0.1"
        assert world.clones(other) == []
        world.addresses["old"] = "127.0.1.1"
        assert world.clones(other) == []
        world.addresses["old"] = "10.0.0.2"
        (problem,) = world.clones(other)
        assert problem.id == "worker-registered-elsewhere"
        assert "registered in etcd as old:29999, where that worker is LIVE" in problem.what
        world.answering = set()
        assert world.clones(other) == []

    def test_live_elsewhere_while_nothing_runs_here(self, world: World) -> None:
        world.unit("w1", "inactive")
        other = changed(world.alluxio, "w1", hostname="new")
        world.seen = registered(entry(1, "old"), live=(entry(1, "old", 7),))
        world.addresses["old"] = "10.0.0.1"
        world.answering = {"old"}
        assert len(world.clones(other)) == 1
        world.answering = set()
        assert world.clones(other) == []  # the step's gate waits for the lease

    def test_not_live_and_nobodys(self, world: World) -> None:
        world.seen = registered(entry(1, "gone"))
        world.answering = {"gone"}
        assert world.clones(world.alluxio) == []

    def test_the_address_of_another_declared_worker(self, world: World) -> None:
        """Live or not: w1 has the identity that w2 comes back under."""
        world.seen = registered(entry(1, "w2"))
        (problem,) = world.clones(world.alluxio)
        assert "the address of w2" in problem.what
        assert FILE in problem.remedy
        # Unless w2 lives there under an id of its own.
        world.seen = registered(entry(1, "w2"), entry(2, "w2"), live=(entry(2, "w2", 7),))
        assert world.clones(world.alluxio) == []


class TestRestart:
    @pytest.fixture
    def restart(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(gather, "require_facts", lambda fleet, probes: world.facts)
        monkeypatch.setattr(start_workers, "live", lambda *_: {"w1": 1, "w2": 1})
        monkeypatch.setattr(forget_worker, "look", lambda *_: world.seen)

        def plan(alluxio: AlluxioCluster) -> list[str]:
            inventory = builders.inventory(alluxio)
            with Fleet(2) as fleet:
                handle = Etcd(inventory.etcd, fleet)
                found = restart_workers.restart(inventory, alluxio, handle, alluxio.workers)
            return [s.title for s in found.steps]

        return plan

    def test_what_a_live_worker_has_registered_stands(self, world: World, restart: Any) -> None:
        other = changed(world.alluxio, "w1", properties=WEB)
        world.seen = registered(entry(1, "w1"), entry(2, "w2"), live=(entry(1, "w1", 7),))
        assert restart(other)[1:] == ["restart w1", "restart w2"]

    def test_unless_files_were_written_since(self, world: World, restart: Any) -> None:
        other = changed(world.alluxio, "w1", properties=WEB)
        world.seen = registered(entry(1, "w1"), entry(2, "w2"), live=(entry(1, "w1", 7),))
        pending = replace(world.facts[world.machine("w1")], pending_restarts=frozenset({UNIT}))
        world.facts[world.machine("w1")] = pending
        assert restart(other)[1:] == [
            "stop w1 for the new address",
            "remove the old address of w1",
            "restart w1",
            "restart w2",
        ]

    def test_a_clone_is_refused(self, world: World, restart: Any) -> None:
        world.seen = registered(entry(1, "w2"))
        with pytest.raises(PreflightFailed):
            restart(world.alluxio)


def test_what_other_commands_leave_to_start_workers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forget_worker, "look", lambda *_: world.seen)
    other = changed(world.alluxio, "w1", properties=WEB)
    with Fleet(1) as fleet:
        handle = Etcd(builders.inventory(other).etcd, fleet)
        found = moved.left_to_start_workers(other, handle, other.workers, world.facts)
        assert list(found) == ["w1"]
        assert found["w1"].what == "its address changes: web port 30000 becomes 30001"
        static = replace(other, membership=MembershipType.STATIC)
        assert moved.left_to_start_workers(static, handle, other.workers, {}) == {}


@pytest.mark.parametrize(
    ("declared", "enabled", "root"),
    [
        *((True, False, False), (True, True, False), (False, True, True), (False, False, True)),
        (False, False, False),
    ],
)
def test_workers_get_the_login_that_etcd_wants_now(
    declared: bool,
    enabled: bool,
    root: bool,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Declared, and not turned on yet: with a login they could not join, and the run would wait for
    each of them until start_timeout ends."""
    etcd = fake_etcd.install(monkeypatch)
    etcd.enabled = enabled
    monkeypatch.setattr(forget_worker, "look", lambda *_: registered())
    monkeypatch.setattr(start_workers, "fetch", lambda *_, **__: ARTIFACTS)
    monkeypatch.setattr(start_workers, "host_problems", lambda *_: [])
    monkeypatch.setattr(gather, "gather_facts", lambda *_: (world.facts, []))
    (tmp_path / "p").write_text("secret\n")
    secret = Secret(file=tmp_path / "p")
    login = AlluxioEtcd(username="alluxio", password=secret) if declared else AlluxioEtcd()
    told_of = replace(world.alluxio, etcd_login=login, etcd_endpoints=("http://10.0.0.9:2379",))
    cluster = builders.etcd(auth=EtcdAuth(root_password=secret if root else None))
    inventory = builders.inventory(told_of, etcd=cluster)
    asked: list[str] = []
    planned: list[bool] = []
    made = start_workers.plan

    def plan(inventory: Inventory, alluxio: AlluxioCluster, *rest: Any) -> Plan:
        planned.append(inventory.alluxio == alluxio)
        return made(inventory, alluxio, *rest)

    etcd.before = asked.append
    monkeypatch.setattr(start_workers, "plan", plan)
    with Fleet(1) as fleet:
        told = endpoints.steps(inventory, told_of, Etcd(cluster, fleet), cluster)
    # Whoever has a login proves it; others see it at a read.
    assert ("log_in" in asked, "auth_enabled" in asked) == ((True, False), (False, True))[
        not (declared or root)
    ]
    assert etcd.clients[-1] == ("any", Login("alluxio", "secret") if declared else None)
    assert all(planned), "the plan is of the same workers as its inventory"
    diffs = "".join(c.diff for s in told.steps for h in s.hosts for c in h.changes)
    assert [n.id for n in told.notes] == ([] if declared is enabled else ["auth-differs"])
    if enabled and not declared:
        assert (told.steps, told.complete) == ([], False)
        assert "disable-auth" in told.notes[0].remedy
        return
    assert told.complete
    assert ("holds secrets" in diffs) is enabled  # the login
    assert ("10.0.0.9" in diffs) is not enabled
    if declared and not enabled:
        assert "enable-auth" in told.notes[0].remedy


def test_the_etcd_that_runs_is_asked_before_its_new_members_are_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = builders.etcd(builders.member(1))
    other = changed(world.alluxio, "w1", properties=WEB)
    inventory = builders.inventory(other, etcd=builders.etcd(builders.member(2)))

    def look(_: AlluxioCluster, asked: Etcd) -> RegistrationSnapshot:
        if asked.cluster != runs:
            raise Unhealthy("no etcd member serves reads", id="quorum-lost")
        return world.seen

    fake_etcd.install(monkeypatch)
    monkeypatch.setattr(forget_worker, "look", look)
    monkeypatch.setattr(start_workers, "fetch", lambda *_, **__: ARTIFACTS)
    with Fleet(1) as fleet:
        handle = Etcd(inventory.etcd, fleet)
        told = endpoints.steps(inventory, other, handle, runs)
        assert not told.complete
        assert "its address changes: web port 30000 becomes 30001" in told.notes[0].what
        assert [h.name for s in told.steps for h in s.hosts if "w1" in h.name] == []
        with pytest.raises(Unhealthy):
            endpoints.steps(inventory, other, handle, inventory.etcd)
