"""Leases that have expired and are there all the same, in a real etcd.

etcd's leader removes at most 1,000 expired leases in a second, in the order of their ends: behind
so many others a lease is there for seconds after its end, as for hours where the removal fails.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest

from provision.alluxio.membership import leases, registrations
from provision.alluxio.membership.leases import Expired
from provision.check_nodes import collect, verdicts
from provision.engine import plan as plans
from provision.engine.plan import Plan
from provision.errors import ChangeFailed, PreflightFailed, Problem, Unhealthy
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdUnreachable
from provision.etcd.api.values import LeaseTime
from provision.etcd.cluster.handle import Etcd
from provision.host import gather
from provision.host.facts import UnitState
from provision.inventory.resolved import AlluxioCluster, Inventory
from provision.plans.alluxio import decommission_worker, forget_worker, stop_workers
from provision.ssh.session import Fleet
from tests.component.conftest import Boot, Running
from tests.component.test_registrations_removed import ONE, OTHER, value
from tests.unit import builders, hosts

OTHERS, AT_ONCE = 12_000, 100
THIRD = "worker-33333333-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def running(boot: Boot) -> Iterator[Running]:
    with boot() as running:
        yield running


class World:
    """w1 is stopped, and its lease stands behind many that expire before it."""

    def __init__(self, running: Running, fleet: Fleet, client: EtcdClient) -> None:
        self.alluxio: AlluxioCluster = builders.alluxio(failure_detection_timeout=5)
        self.inventory: Inventory = builders.inventory(self.alluxio, etcd=running.cluster)
        self.fleet, self.client = fleet, client
        self.etcd = Etcd(running.cluster, fleet)
        for prefix in (registrations.AUTHORIZED_ROOT, registrations.LIVE_ROOT):
            for kv in client.range(prefix)[1]:
                client.delete(kv.key)
        for worker_id, host in ((ONE, "w1"), (OTHER, "w2")):
            client.put(registrations.authorized_prefix("c") + worker_id, value(worker_id, host))

    def live(self, worker_id: str, host: str, ttl: int) -> int:
        lease = self.client.lease_grant(ttl)
        key = registrations.live_prefix("c") + worker_id
        self.client.put(key, value(worker_id, host), lease=lease)
        return lease

    def plan(self, *, revoke_lease: bool = False) -> Plan:
        worker = self.alluxio.worker("w1")
        given = self.inventory, self.alluxio, self.etcd, worker
        return decommission_worker.plan(*given, revoke_lease=revoke_lease).plan

    def seen(self) -> Expired:
        return leases.expired(self.etcd, self.client, registrations.read(self.client, "c"))

    def many(self) -> int:
        """Leases that expire together. Returns in how many seconds, from then on, that is."""
        grant = self.client._lib.pb.LeaseGrantRequest
        ask = self.client._lease.LeaseGrant.future
        began = time.monotonic()
        end = began + 120
        for batch in range(OTHERS // AT_ONCE):
            ttl = max(3, math.ceil(end - time.monotonic()))
            waiting = [ask(grant(TTL=ttl), timeout=30) for _ in range(AT_ONCE)]
            for one in waiting:
                one.result()
            if batch == 2:  # how long it takes on this machine, and half as long again
                took = (time.monotonic() - began) / 3
                end = time.monotonic() + 1.5 * took * OTHERS / AT_ONCE + 3
        return max(3, math.ceil(end - time.monotonic()))

    def until_expired(self, lease: int, seconds: int) -> None:
        deadline = time.monotonic() + 60
        while self.client.lease_time(lease).expired_since <= seconds:
            assert self.client.lease_time(lease).granted, "etcd was too fast"
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture
def world(running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[World]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    units = {"alluxio-worker.service": UnitState("loaded", "inactive", "", "disabled")}

    def facts(_: Fleet, probes: dict[Any, Any]) -> tuple[dict[Any, Any], list[Problem]]:
        return {m: replace(hosts.facts(1), units=units) for m in probes}, []

    monkeypatch.setattr(gather, "gather_facts", facts)
    monkeypatch.setattr(stop_workers, "require_ours", lambda *_: None)
    monkeypatch.setattr("provision.engine.lock.held", _unlocked)
    monkeypatch.setattr(leases, "STUCK_SECONDS", 1)
    monkeypatch.setattr(leases, "REMOVAL_SECONDS", 0)
    with Fleet(2) as fleet, Etcd(running.cluster, fleet).any() as client:
        yield World(running, fleet, client)


class _unlocked:
    """The run lock of hosts that are not there."""

    def __init__(self, *given: object) -> None:
        pass

    def __enter__(self) -> Any:
        return lambda: None

    def __exit__(self, *error: object) -> None:
        pass


def test_what_etcd_says_of_leases(world: World) -> None:
    kept, gone = world.live(ONE, "w1", 60), world.client.lease_grant(60)
    world.client.lease_revoke(gone)
    times = world.client.lease_times([kept, gone], 5)
    assert times[gone] == LeaseTime(-1, 0)
    assert times[gone].expired_since == 0
    assert times[kept].granted == 60
    assert 55 <= times[kept].left <= 60
    assert world.client.lease_time(kept).keys == (
        f"{registrations.live_prefix('c')}{ONE}".encode(),
    )
    assert world.client.lease_times([kept, gone], 0) == {}
    assert world.seen() == Expired({}, 1, 1)


def test_those_of_the_oldest_keys_are_asked_for_first(world: World) -> None:
    world.live(OTHER, "w2", 60)
    newer = world.live(ONE, "w1", 60)
    seen = registrations.read(world.client, "c")
    asked: list[int] = []

    class Asked:
        def lease_times(self, wanted: list[int], seconds: float) -> dict[int, LeaseTime]:
            asked.extend(wanted)
            return {lease: LeaseTime(-60, 5) for lease in wanted}

    found = leases.expired(world.etcd, Asked(), seen, limit=1)  # type: ignore[arg-type]
    assert newer not in asked
    assert found == Expired({asked[0]: 60}, 1, 2)
    few = leases.unasked(found)
    assert few is not None
    assert few.what.startswith("etcd answered for 1 of 2 leases")
    assert leases.unasked(Expired({}, 2, 2)) is None


def test_a_lease_that_etcd_does_not_remove(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, longer = world.live(OTHER, "w2", 60), world.live(THIRD, "w3", 600)
    lease = world.live(ONE, "w1", world.many() + 1)
    world.until_expired(lease, 1)
    assert lease in world.seen().since
    with monkeypatch.context() as few:  # so it is with thousands: the leader says which it is
        few.setattr(leases, "FEW", 1)
        asked = Mock(wraps=world.client.lease_times)
        few.setattr(world.client, "lease_times", asked)
        told = world.seen()
    assert (set(told.since), told.asked, told.live) == ({lease}, 3, 3)
    assert [call.args[0] for call in asked.call_args_list] == [[lease], [kept]]
    for one in (kept, longer):
        world.client.lease_revoke(one)
    # check-nodes: STALE, though the key is there.
    read = collect._read(world.inventory, world.etcd, 5.0)
    assert ONE in read.registered.live
    found = verdicts(world.alluxio, read.registered, None, expired=read.leases.since)
    assert [(n.name, n.state.value) for n in found] == [("w1", "STALE"), ("w2", "FAILED")]
    # decommission-worker: not another process, and the lease goes only where that is said.
    with pytest.raises(Unhealthy, match=r"its lease expired .* --revoke-lease ends it") as caught:
        world.plan()
    assert caught.value.id == "lease-not-removed"
    with pytest.raises(PreflightFailed) as refused:
        forget_worker.forget(world.inventory, world.alluxio, world.etcd, [ONE])
    (problem,) = refused.value.problems
    assert problem.id == "lease-not-removed"
    assert f"etcdctl lease revoke {lease:x}" in problem.remedy
    wait = leases.Wait(world.alluxio, world.etcd, lambda seen: list(seen.live), "do so")
    with pytest.raises(Unhealthy, match=r"etcd has not removed it.*; do so"):
        wait()
    world.client.put("/another", "x", lease=lease)
    with pytest.raises(ChangeFailed, match="has other keys, too: it was not revoked"):
        plans.apply(world.plan(revoke_lease=True), world.fleet)
    world.client.delete("/another")
    plan = world.plan(revoke_lease=True)
    assert [s.title for s in plan.steps] == [
        "revoke the expired lease of w1",
        "take w1 out of etcd",
    ]
    assert plan.steps[0].calls[0].what.startswith(f"etcd: revoke lease {lease:x} of {ONE}")
    plans.apply(plan, world.fleet)
    assert world.client.lease_time(lease).granted == 0
    assert ONE not in registrations.read(world.client, "c").authorized
    assert world.plan(revoke_lease=True).steps == ()


def test_a_lease_that_is_kept_alive_is_not_revoked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = world.live(ONE, "w1", 60)
    plan = world.plan(revoke_lease=True)
    assert [s.title for s in plan.steps] == ["stop w1 permanently", "take w1 out of etcd"]
    assert "has nothing to do" in plan.notes[-1].what
    # Not even when the plan was made of an older look.
    times = {lease: LeaseTime(-60, 5)}
    with monkeypatch.context() as patched:
        patched.setattr(EtcdClient, "lease_times", lambda *_: times)
        plan = world.plan(revoke_lease=True)
    assert plan.steps[0].title == "revoke the expired lease of w1"
    with pytest.raises(ChangeFailed, match="is kept alive again: it was not revoked"):
        plans.apply(plan, world.fleet)
    assert world.client.lease_time(lease).granted == 60


def test_the_leader_lists_leases_by_their_ends(world: World) -> None:
    ends = [world.client.lease_grant(ttl) for ttl in (900, 300, 600)]
    listed = [n for n in world.client.leases_by_end() or () if n in ends]
    assert listed == [ends[1], ends[2], ends[0]]


@pytest.mark.parametrize(
    "then",
    [{"leader": 1}, {"raft_term": 99}, {"version": "3.4.23"}, {"version": "3.8.0"}],
    ids=str,
)
def test_without_a_leader_that_sorts_them_each_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch, then: dict[str, Any]
) -> None:
    """Or with another leader in the meantime."""
    both = [world.live(ONE, "w1", 60), world.live(OTHER, "w2", 60)]
    status = world.client.status()
    before = 2 if "raft_term" in then else 1
    said = iter([*[status] * before, *[replace(status, **then)] * 9])
    monkeypatch.setattr(world.client, "status", lambda: next(said))
    monkeypatch.setattr(leases, "FEW", 1)
    asked = Mock(wraps=world.client.lease_times)
    monkeypatch.setattr(world.client, "lease_times", asked)
    assert world.seen() == Expired({}, 2, 2)
    assert [call.args[0] for call in asked.call_args_list] == [both]


def test_thousands_of_leases(boot: Boot, fleet: Fleet) -> None:
    with boot() as running, Etcd(running.cluster, fleet).any() as client:
        kept = [client.lease_grant(60) for _ in range(1500)]
        gone = [client.lease_grant(60) for _ in range(500)]
        for lease in gone:
            client.lease_revoke(lease)
        times = client.lease_times([*kept, *gone], 30)
        assert all(times[lease].granted == 60 and times[lease].left > 20 for lease in kept)
        assert all(times[lease] == LeaseTime(-1, 0) for lease in gone)
        assert len(client.lease_times(kept, 0.0)) == 0


def test_a_member_that_goes_away_meanwhile(boot: Boot, fleet: Fleet) -> None:
    with boot() as running, Etcd(running.cluster, fleet).any() as client:
        some = [client.lease_grant(60) for _ in range(200)]
        assert len(client.lease_times(some, 10)) == 200
        running.kill()
        with pytest.raises(EtcdUnreachable):
            client.lease_times(some, 10)


def test_whichever_member_is_asked_the_leader_tells(
    boot: Boot, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    times = EtcdClient.lease_times

    def noted(client: EtcdClient, *given: Any) -> dict[int, LeaseTime]:
        asked.append(str(client.endpoint))
        return times(client, *given)

    with boot(3) as running:
        etcd = Etcd(running.cluster, fleet)
        with etcd.leader() as (client, leader):
            for number in range(3):
                key = f"{registrations.live_prefix('c')}worker-{number}"
                client.put(key, "{}", lease=client.lease_grant(600 - number))
            told = client.leases_by_end()
            assert told is not None
            assert len(told) == 3
        monkeypatch.setattr(leases, "FEW", 1)
        monkeypatch.setattr(EtcdClient, "lease_times", noted)
        for member in running.cluster.members:
            with etcd.member(member) as client:
                assert (client.leases_by_end() is None) is (member != leader)
                seen = registrations.read(client, "c")
                assert leases.expired(etcd, client, seen) == Expired({}, 3, 3)
    assert asked == [f"127.0.0.1:{leader.client_port}"] * 3
