"""The plan of decommission-worker: what is stopped, waited for, and taken out of etcd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import (
    Entry,
    Registration,
    RegistrationSnapshot,
    UnknownRegistration,
)
from provision.alluxio.worker import desired
from provision.alluxio.worker.desired import Artifacts
from provision.engine.plan import Plan
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd.api.values import KeyValue, LeaseTime, Login
from provision.etcd.cluster.handle import Etcd
from provision.host import gather
from provision.host.facts import HostFacts, Probe, UnitState
from provision.host.predict import after
from provision.host.resources import Identity
from provision.inventory.membership_type import MembershipType
from provision.inventory.resolved import Machine
from provision.plans.alluxio import decommission_worker, forget_worker
from provision.ssh.session import Fleet
from tests.unit import builders, clock, fake_etcd, hosts
from tests.unit.hosts import TARBALL

ALLUXIO = builders.alluxio(builders.worker("w1"), builders.worker("w2"))
W1 = ALLUXIO.workers[0]
INVENTORY = builders.inventory(ALLUXIO)
#: The plan for these facts and registrations, and how many files keep what is removed.
Run = Callable[..., tuple[Plan, int]]
UUID = "11111111-1111-1111-1111-111111111111"


def entry(worker_id: str, host: str, lease: int = 0) -> Entry:
    key = KeyValue(f"/DHT/c/AUTHORIZED/{worker_id}".encode(), b"{}", lease, 1)
    return Entry(key, Registration(worker_id, host, 29999, 29997, 30000, "AUTHORIZED", -1))


def snapshot(authorized: Sequence[str] = (), live: Sequence[str] = ()) -> RegistrationSnapshot:
    """``authorized`` and ``live`` are hosts; the worker on host w is worker-w."""
    return RegistrationSnapshot(
        "c",
        1,
        {f"worker-{h}": entry(f"worker-{h}", h) for h in authorized},
        {f"worker-{h}": entry(f"worker-{h}", h) for h in live},
    )


def installed(**unit: str) -> HostFacts:
    bare = hosts.facts(1)
    wanted = desired.resources(ALLUXIO, W1, Artifacts(TARBALL, None), None)
    found = after([*wanted, Identity(desired.identity_file(ALLUXIO), "alluxio", UUID)], bare)
    state = replace(found.unit(desired.UNIT), **unit)  # type: ignore[arg-type]
    return replace(found, units={**found.units, desired.UNIT: state})


@pytest.fixture
def decommission(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(
        facts: HostFacts,
        seen: RegistrationSnapshot,
        membership: MembershipType = MembershipType.ETCD,
    ) -> tuple[Plan, int]:
        alluxio = replace(ALLUXIO, membership=membership)
        monkeypatch.setattr(forget_worker, "look", lambda *_: seen)
        monkeypatch.setattr(gather, "gather_facts", lambda *_: ({W1.machine: facts}, []))
        with Fleet(1) as fleet:
            found = decommission_worker.plan(INVENTORY, alluxio, Etcd(INVENTORY.etcd, fleet), W1)
        return found.plan, len(found.files)

    return run


def titles(plan: Plan) -> list[str]:
    return [step.title for step in plan.steps]


def test_a_live_worker_is_stopped_then_waited_for_then_forgotten(decommission: Run) -> None:
    plan, files = decommission(installed(), snapshot(["w1", "w2"], ["w1", "w2"]))
    assert titles(plan) == ["stop w1 permanently", "take w1 out of etcd"]
    stop, forget = plan.steps
    assert [(h.name, [c.what for c in h.changes]) for h in stop.hosts] == [
        ("w1", ["stop and disable alluxio-worker.service"])
    ]
    assert stop.after is not None
    assert stop.after.title == "the lease of w1 has ended"
    assert [c.what.split(";")[0] for c in forget.calls] == [
        "etcd: remove /DHT/c/AUTHORIZED/worker-w1"
    ]
    assert files == 1


def test_a_second_run_changes_nothing(decommission: Run) -> None:
    stopped = installed(active="inactive", file_state="disabled")
    assert decommission(stopped, snapshot(["w2"], ["w2"])) == (
        Plan("decommission-worker", "c"),
        0,
    )


def test_one_that_was_stopped_by_hand_would_start_at_the_next_boot(decommission: Run) -> None:
    plan, _ = decommission(installed(active="inactive"), snapshot(["w1"]))
    assert titles(plan) == ["stop w1 permanently", "take w1 out of etcd"]


def test_with_static_the_port_is_waited_for_and_etcd_left_alone(decommission: Run) -> None:
    plan, files = decommission(installed(), snapshot(["w1"], ["w1"]), MembershipType.STATIC)
    assert titles(plan) == ["stop w1 permanently"]
    assert plan.steps[0].after is not None
    assert plan.steps[0].after.title == "the port of w1 is closed"
    assert files == 0


def test_a_registration_of_its_identity_elsewhere_is_left(decommission: Run) -> None:
    facts = installed()
    identity = desired.identity(ALLUXIO, facts)
    assert identity is not None
    own = desired.worker_id(identity)
    seen = RegistrationSnapshot("c", 1, {own: entry(own, "w9")}, {})
    plan, files = decommission(facts, seen)
    assert titles(plan) == ["stop w1 permanently"]
    assert [n.id for n in plan.notes] == ["worker-registered-elsewhere"]
    assert files == 0


def test_another_clusters_worker_is_not_stopped(decommission: Run) -> None:
    facts = installed()
    unit = hosts.text("[Unit]\nX-Alluxio-Provision-Cluster=other\n")
    other = replace(facts, paths={**facts.paths, desired.UNIT_PATH: unit})
    with pytest.raises(PreflightFailed) as refused:
        decommission(other, snapshot(["w1"], ["w1"]))
    assert [p.id for p in refused.value.problems] == ["another-clusters-host"]


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (snapshot(["w1"]), "invoke forget-worker worker-w1"),
        (snapshot(), "take w1 out of the inventory"),
    ],
)
def test_a_host_that_is_away_is_refused_with_what_to_do_if_it_is_gone(
    seen: RegistrationSnapshot, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Problem("w1", "cannot be reached", "start it", id="host-unreachable")
    monkeypatch.setattr(forget_worker, "look", lambda *_: seen)
    monkeypatch.setattr(gather, "gather_facts", lambda *_: ({}, [away]))
    with Fleet(1) as fleet, pytest.raises(PreflightFailed) as refused:
        decommission_worker.plan(INVENTORY, ALLUXIO, Etcd(INVENTORY.etcd, fleet), W1)
    assert said in refused.value.problems[0].remedy


def test_a_host_without_alluxio_has_nothing_to_stop(decommission: Run) -> None:
    bare = replace(hosts.facts(1), units={desired.UNIT: UnitState()})
    plan, _ = decommission(bare, snapshot(["w1"]))
    assert titles(plan) == ["take w1 out of etcd"]


class Lease:
    """w1 is stopped and disabled, and its live key is on lease 7."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.etcd = fake_etcd.install(monkeypatch)
        self.asked: list[Probe] = []
        self.facts = installed(active="inactive", file_state="disabled")
        self.seen = RegistrationSnapshot(
            "c",
            1,
            {"worker-w1": entry("worker-w1", "w1")},
            {"worker-w1": entry("worker-w1", "w1", 7)},
        )
        monkeypatch.setattr(forget_worker, "look", lambda *_: self.seen)
        monkeypatch.setattr(gather, "gather_facts", self._gather)
        monkeypatch.setattr(desired, "login", lambda alluxio: Login("alluxio", "secret"))

    def _gather(self, _: Fleet, probes: dict[Machine, Probe]) -> tuple[object, list[Problem]]:
        self.asked += probes.values()
        return {W1.machine: self.facts}, []

    def plan(self, *, revoke_lease: bool = False) -> Plan:
        with Fleet(1) as fleet:
            handle = Etcd(INVENTORY.etcd, fleet)
            found = decommission_worker.plan(
                INVENTORY, ALLUXIO, handle, W1, revoke_lease=revoke_lease
            )
        return found.plan


@pytest.fixture
def lease(monkeypatch: pytest.MonkeyPatch) -> Lease:
    return Lease(monkeypatch)


class TestLease:
    def test_an_expired_lease_is_revoked_when_told(self, lease: Lease) -> None:
        lease.etcd.times = {7: LeaseTime(-16, 60, (b"/DHT/c/AUTHORIZED/worker-w1",))}
        with pytest.raises(Unhealthy, match="expired 16 s ago") as refused:
            lease.plan()
        assert refused.value.id == "lease-not-removed"
        plan = lease.plan(revoke_lease=True)
        assert titles(plan) == ["revoke the expired lease of w1", "take w1 out of etcd"]
        assert (plan.notes, plan.guards) == ((), (W1.machine,))
        plan.steps[0].calls[0].do()
        assert lease.etcd.changes() == [("lease_revoke", 7)]
        assert {login for _, login in lease.etcd.clients} == {Login("alluxio", "secret")}

    @pytest.mark.parametrize("left", [-15, 30])
    def test_another_is_waited_for(self, lease: Lease, left: int) -> None:
        lease.etcd.times = {7: LeaseTime(left, 60)}
        plan = lease.plan(revoke_lease=True)
        assert titles(plan) == ["stop w1 permanently", "take w1 out of etcd"]
        assert plan.steps[0].hosts == ()
        assert [n.id for n in plan.notes] == ["command-not-applicable"]
        assert plan.guards == (W1.machine,)
        assert lease.plan().notes == ()

    def test_a_lease_that_etcd_did_not_answer_for_is_waited_for(self, lease: Lease) -> None:
        assert titles(lease.plan())[0] == "stop w1 permanently"

    def test_while_the_worker_runs_its_lease_is_not_asked_for(self, lease: Lease) -> None:
        lease.facts = installed()
        lease.etcd.times = {7: LeaseTime(-16, 60)}
        assert titles(lease.plan())[0] == "stop w1 permanently"
        assert lease.etcd.clients == []

    def test_what_is_read_on_the_host(self, lease: Lease) -> None:
        lease.etcd.times = {7: LeaseTime(30, 60)}
        lease.plan()
        (probe,) = lease.asked
        assert probe.units == (desired.UNIT,)
        assert {getattr(r, "path", "") for r in probe.resources} == {
            desired.UNIT_PATH,
            desired.identity_file(ALLUXIO),
        }

    def test_an_entry_of_its_identity_that_cannot_be_read_is_its_own(self, lease: Lease) -> None:
        identity = desired.identity(ALLUXIO, lease.facts)
        assert identity is not None
        own = desired.worker_id(identity)
        unread = {
            i: Entry(entry(i, "w1").key, UnknownRegistration(i, "?")) for i in (own, "worker-other")
        }
        lease.seen = RegistrationSnapshot("c", 1, unread, {})
        (step,) = lease.plan().steps
        assert [c.what.split(";")[0] for c in step.calls] == [
            f"etcd: remove /DHT/c/AUTHORIZED/{own}"
        ]


def test_the_unit_is_stopped_for_good(decommission: Run) -> None:
    plan, _ = decommission(installed(), snapshot(["w1"]))
    (change,) = plan.steps[0].hosts[0].changes
    assert change.script.splitlines()[0].startswith("systemctl disable -q --now alluxio-worker")
    assert "rm -f " in change.script
    assert change.disrupts
    assert change.seconds >= 90


def test_the_port_is_awaited_for_as_long_as_a_start_may_take(
    decommission: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.install(monkeypatch)
    plan, _ = decommission(installed(), snapshot(), MembershipType.STATIC)
    begun, gate = now.time, plan.steps[0].after
    assert gate is not None
    monkeypatch.setattr(registrations, "port_answers", lambda fleet, worker: now.time < begun + 20)
    gate.check()
    assert now.time - begun == pytest.approx(20, abs=0.5)
    monkeypatch.setattr(registrations, "port_answers", lambda fleet, worker: True)
    with pytest.raises(Unhealthy, match="still takes connections"):
        gate.check()
