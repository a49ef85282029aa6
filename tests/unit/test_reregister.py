"""What restore-etcd and recover-etcd do about workers that have lost their registration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import Entry, Registration, RegistrationSnapshot
from provision.alluxio.worker import desired
from provision.engine.plan import Plan
from provision.errors import PreflightFailed
from provision.etcd.api.values import KeyValue
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.host import gather
from provision.inventory.membership_type import MembershipType
from provision.inventory.resolved import AlluxioWorker
from provision.plans.alluxio import forget_worker, reregister_workers, restart_workers
from provision.ssh.session import Fleet
from tests.unit import builders
from tests.unit.hosts import text
from tests.unit.test_rolling import World, groups, whats

START = "start alluxio-worker.service"


class Restored(World):
    """Workers that run after etcd's data went back; ``lost`` says which of them etcd lacks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        super().__init__(monkeypatch, count)
        self.asked: list[str] = []
        self.gone: list[str] = [w.name for w in self.alluxio.workers]
        self.alarms: frozenset[str] = frozenset()
        #: Under which host the restored data has a worker's permanent key; no name: it has none.
        self.authorized = {w.name: w.hostname for w in self.alluxio.workers}
        self.live_keys: set[str] = set()
        self.live_at = ""  # each at its own name
        monkeypatch.setattr(reregister_workers, "lost", self._lost)
        monkeypatch.setattr(forget_worker, "look", lambda *_: self.registered())
        monkeypatch.setattr(health, "observe", lambda *_: self)

    def _lost(
        self, _a: object, _e: object, running: Sequence[AlluxioWorker], _: object
    ) -> list[AlluxioWorker]:
        self.asked = [w.name for w in running]
        return [w for w in running if w.name in self.gone]

    def registered(self) -> RegistrationSnapshot:
        """What etcd has after the restore."""
        entries = {}
        known = {w.name: w.hostname for w in self.alluxio.workers}
        for name, host in {**known, **self.authorized}.items():
            identity = desired.identity(self.alluxio, self.facts[self.alluxio.worker(name).machine])
            assert identity is not None
            worker_id = desired.worker_id(identity)
            registration = Registration(worker_id, host, 29999, 29997, 30000, "AUTHORIZED", -1)
            key = KeyValue(registrations.authorized_prefix("c").encode(), b"", 7, 1)
            entries[name] = worker_id, Entry(key, registration)
        live = {}
        for name in self.live_keys:
            worker_id, entry = entries[name]
            assert isinstance(entry.registration, Registration)
            at = entry.registration._replace(host=self.live_at or name)
            live[worker_id] = Entry(entry.key, at)
        authorized = dict(entries[name] for name in self.authorized)
        return RegistrationSnapshot("c", 1, authorized, live)

    def unregistered(self) -> dict[str, tuple[str, str]]:
        """After the look: severity and text of each worker that is named."""
        with Fleet(4) as fleet:
            watch = reregister_workers.watch(
                builders.inventory(self.alluxio), Etcd(builders.etcd(), fleet)
            )
            assert watch is not None
            assert watch.step.after is not None
            watch.step.after.check()
            found = watch.unregistered()
        assert {p.id for p in found} <= {"worker-keys-missing"}
        return {p.where.split()[0]: (p.severity, p.what) for p in found}

    def plan(self, command: str = "restore-etcd") -> Plan:
        with Fleet(4) as fleet:
            watch = reregister_workers.watch(
                builders.inventory(self.alluxio), Etcd(builders.etcd(), fleet)
            )
            assert watch is not None
            assert watch.step.changed == 0
            assert watch.step.after is not None
            watch.step.after.check()
            return watch.plan(command)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Restored:
    return Restored(monkeypatch, 20)


def test_the_lost_are_restarted_in_groups_each_ready_before_the_next(world: Restored) -> None:
    world.gone = ["w1", "w2", "w3", "w20"]
    found = world.plan()
    assert found.command == "restore-etcd"
    assert groups(found) == [["w1", "w2"], ["w3", "w20"]]
    note, *restarts = found.steps
    assert [h.name for h in note.hosts] == world.gone
    assert all(s.before and s.after and "ready" in s.after.title for s in restarts)
    assert whats(found, "w4") == []


def test_nothing_to_do(world: Restored) -> None:
    world.gone = []
    assert world.plan().steps == ()


def test_a_run_that_ended_part_way_goes_on(world: Restored) -> None:
    """w1 was stopped for its new address, w2 is marked, and an operator has stopped w3."""
    noted = text("restore-etcd 2026-11-17T09:00:00Z ann@desk\n")
    world.unit("w1", "inactive")
    world.paths("w1", mark=noted)
    world.paths("w2", mark=noted)
    world.unit("w3", "inactive")
    world.gone = ["w1", "w2", "w3"]
    found = world.plan()
    assert "w3" not in world.asked
    assert groups(found) == [["w1", "w2"]]
    assert whats(found, "w1") == [START]
    assert restart_workers.MARK in found.steps[0].hosts[0].changes[0].script  # it is removed


def test_restart_workers_takes_up_what_a_restore_has_left(world: Restored) -> None:
    world.unit("w1", "inactive")
    world.paths("w1", mark=text("restore-etcd 2026-11-17T09:00:00Z ann@desk\n"))
    assert groups(world.restart(20))[0][0] == "w1"
    world.paths("w1", mark=text("another-tool 2026\n"))
    assert "w1" not in groups(world.restart(20))[0]


def test_a_worker_of_another_cluster_is_not_touched(world: Restored) -> None:
    machine = world.alluxio.worker("w1").machine
    paths = dict(world.facts[machine].paths)
    paths[desired.UNIT_PATH] = text("X-Alluxio-Provision-Cluster=other\n")
    world.change("w1", paths=paths)
    world.gone = ["w1", "w2"]
    assert groups(world.plan()) == [["w2"]]


def test_membership_static_has_no_registration(world: Restored) -> None:
    static = replace(world.alluxio, membership=MembershipType.STATIC)
    with Fleet(1) as fleet:
        handle = Etcd(builders.etcd(), fleet)
        assert reregister_workers.watch(builders.inventory(static), handle) is None
        assert reregister_workers.watch(builders.inventory(None, alluxio=None), handle) is None


@pytest.mark.parametrize("live", [False, True])
def test_an_older_address_in_the_restored_data_goes_first(
    world: Restored, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    """Alluxio refuses a worker whose id is registered at another address."""
    world.gone = [] if live else ["w1"]  # a live worker has made a new lease by itself
    world.authorized["w1"] = "old.example.com"
    world.live_keys = {"w1"} if live else set()
    monkeypatch.setattr(registrations, "port_answers", lambda *_: False)
    monkeypatch.setattr("provision.plans.alluxio.moved._own", lambda *_: set())
    found = world.plan()
    assert [s.title for s in found.steps] == [
        "record which workers need a restart",
        "stop w1 for the new address",
        "remove the old address of w1",
        "restart w1",
    ]
    assert "host old.example.com becomes w1" in found.steps[2].calls[0].what


def test_a_live_worker_without_a_permanent_key_is_restarted(world: Restored) -> None:
    """It joined after the backup. Only its start writes the key that Alluxio lists."""
    world.gone = []
    del world.authorized["w3"]
    assert groups(world.plan()) == [["w3"]]
    assert whats(world.plan(), "w3") == ["restart alluxio-worker.service"]


@pytest.mark.parametrize("written", [False, True])
def test_restart_workers_moves_a_live_worker_only_from_an_entry_that_it_did_not_write(
    world: Restored, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """A worker that has registered the entry itself keeps that address until start-workers writes
    other files."""
    world.authorized["w1"] = "old.example.com"
    world.live_keys = {"w1"}
    if written:
        monkeypatch.setattr(world, "live_at", "old.example.com")
    monkeypatch.setattr(registrations, "port_answers", lambda *_: False)
    monkeypatch.setattr("provision.plans.alluxio.moved._own", lambda *_: set())
    titles = [s.title for s in world.restart(20).steps]
    assert ("remove the old address of w1" in titles) is not written


def test_without_permanent_keys_a_live_key_is_enough(world: Restored) -> None:
    world.alluxio = replace(world.alluxio, membership=MembershipType.SERVICE_REGISTRY)
    world.gone, world.authorized = ["w2"], {}
    assert groups(world.plan()) == [["w2"]]


def test_the_identity_of_another_worker_stops_it(world: Restored) -> None:
    world.gone = ["w1"]
    world.authorized["w1"] = "w2"
    with pytest.raises(PreflightFailed) as refused:
        world.plan()
    assert [p.id for p in refused.value.problems] == ["worker-registered-elsewhere"]


def test_the_commands_that_mark(world: Restored) -> None:
    for command in ("restore-etcd", "recover-etcd"):
        assert f'echo "{command} $(date' in world.plan(command).steps[0].hosts[0].changes[0].script
        assert command in restart_workers.COMMANDS


def test_no_worker_is_restarted_while_an_alarm_stands(world: Restored) -> None:
    """etcd grants no lease then. What is left to do is said."""
    world.alarms = frozenset({"NOSPACE"})
    found = world.plan()
    assert found.steps == ()
    assert world.asked == []
    (note,) = found.notes
    assert note.id == "worker-left-out"
    assert note.what == "were not checked, because the alarm NOSPACE is raised"
    world.alarms = frozenset({"NOSPACE", "CORRUPT"})
    (note,) = world.plan().notes
    assert note.what.endswith("because the alarms CORRUPT and NOSPACE are raised")
    assert "restart-workers" in note.remedy


@pytest.mark.parametrize("state", ["failed", "activating"])
def test_a_failed_worker_is_restarted_after_the_others(world: Restored, state: str) -> None:
    """It may fail again, for a reason of its own."""
    world.unit("w1", state)
    world.gone = ["w1", "w2", "w3"]
    assert groups(world.plan()) == [["w2", "w3"], ["w1"]]


def test_every_declared_worker_has_both_keys_or_is_named(world: Restored) -> None:
    world.gone = []
    world.live_keys = {w.name for w in world.alluxio.workers}
    assert world.unregistered() == {}
    # The backup is from before the first registration of w1; its lease is a new one.
    # w2 has its permanent key only. w3 is stopped: the live key is of before.
    world.unit("w3", "inactive")
    world.live_keys -= {"w2"}
    permanent = world.authorized.pop("w1")
    assert world.unregistered() == {
        "w1": ("error", "has no permanent key in etcd"),
        "w2": ("error", "has no live key in etcd"),
        "w3": ("error", "has no live key in etcd; it is stopped"),
    }
    world.authorized["w1"] = permanent
    assert set(world.unregistered()) == {"w2", "w3"}


def test_a_worker_that_was_never_installed_is_a_warning(world: Restored) -> None:
    world.gone = []
    world.live_keys = {w.name for w in world.alluxio.workers} - {"w4"}
    world.unit("w4", "inactive")
    machine = world.alluxio.worker("w4").machine
    paths = {p: s for p, s in world.facts[machine].paths.items() if p != desired.UNIT_PATH}
    world.change("w4", paths=paths)
    severity, what = world.unregistered()["w4"]
    assert (severity, "it is not installed" in what) == ("warning", True)


def test_a_host_that_does_not_answer_is_looked_up_by_its_address(
    world: Restored, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.gone = []
    world.live_keys = {w.name for w in world.alluxio.workers}
    gathered = gather.gather_facts

    def without_w5(*given: object) -> object:
        facts, absent = gathered(*given)  # type: ignore[arg-type]
        return {m: f for m, f in facts.items() if m.host != "w5"}, absent

    monkeypatch.setattr(gather, "gather_facts", without_w5)
    assert world.unregistered() == {}
    world.live_keys -= {"w5"}
    severity, what = world.unregistered()["w5"]
    assert severity == "error"
    assert what.endswith("; its host did not answer")
