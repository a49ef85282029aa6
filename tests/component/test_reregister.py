"""Which workers have lost their registration, by the leases of a real etcd."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from provision.alluxio.membership import registrations
from provision.alluxio.worker import desired
from provision.errors import Unhealthy
from provision.etcd.api.client import EtcdClient
from provision.etcd.cluster.handle import Etcd
from provision.host.facts import HostFacts, PathState
from provision.inventory.resolved import Machine
from provision.plans.alluxio import reregister_workers
from provision.ssh.session import Fleet
from tests.component.conftest import Boot, Running
from tests.component.test_registrations_removed import ONE, OTHER, value
from tests.unit import builders, hosts

#: A look takes a third of it.
TTL = 6
ALLUXIO = builders.alluxio(
    *(builders.worker(f"w{n}") for n in range(1, 6)), failure_detection_timeout=TTL
)


@pytest.fixture
def running(boot: Boot) -> Iterator[Running]:
    with boot() as running:
        yield running


def keep_alive(client: EtcdClient, leases: list[int], ended: threading.Event) -> None:
    """As etcd's own client does it: three times within a lease's time."""
    request = client._lib.pb.LeaseKeepAliveRequest
    while not ended.wait(TTL / reregister_workers.KEEP_ALIVES):
        for lease in leases:
            next(client._lease.LeaseKeepAlive(iter([request(ID=lease)])))


def facts() -> dict[Machine, HostFacts]:
    """w5 has the identity OTHER; the others' identities were not read."""
    path = desired.identity_file(ALLUXIO)
    body = OTHER.removeprefix("worker-").encode()
    there = {path: PathState("file", "alluxio", "alluxio", 0o644, len(body), body)}
    return {
        w.machine: hosts.facts(n, paths=there if w.name == "w5" else {})
        for n, w in enumerate(ALLUXIO.workers, 1)
    }


def test_who_has_lost_its_registration(running: Running, fleet: Fleet) -> None:
    with Etcd(running.cluster, fleet).any() as client:

        def live(worker_id: str, host: str, ttl: int = TTL) -> int:
            lease = client.lease_grant(ttl)
            client.put(
                registrations.live_prefix("c") + worker_id, value(worker_id, host), lease=lease
            )
            return lease

        kept = live(ONE, "w1")
        live("worker-11111111-2222-3333-4444-555555555502", "w2", 60)  # nobody keeps it alive
        client.put(registrations.authorized_prefix("c") + ONE, value(ONE, "w3"))  # w3: no live key
        # w4's key has no lease: Alluxio writes none such.
        client.put(registrations.live_prefix("c") + "worker-4", value("worker-4", "w4"))
        kept_elsewhere = live(OTHER, "old.example.com")
        ended = threading.Event()
        keeper = threading.Thread(target=keep_alive, args=(client, [kept, kept_elsewhere], ended))
        keeper.start()
        try:
            etcd = Etcd(running.cluster, fleet)
            found = reregister_workers.lost(ALLUXIO, etcd, ALLUXIO.workers, facts())
        finally:
            ended.set()
            keeper.join()
    assert [w.name for w in found] == ["w2", "w3", "w4"]


def test_nobody_is_lost_while_etcd_does_not_answer(
    running: Running, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reregister_workers, "PATIENCE", 0.0)
    running.kill()
    etcd = Etcd(running.cluster, fleet)
    with pytest.raises(Unhealthy):
        reregister_workers.lost(ALLUXIO, etcd, ALLUXIO.workers, facts())


def test_a_new_leaders_gift_is_no_sign_of_life(boot: Boot, fleet: Fleet) -> None:
    """It gives every lease its whole time again, once."""
    with boot(3) as running, Etcd(running.cluster, fleet).any() as client:
        lease = client.lease_grant(TTL)
        client.put(registrations.live_prefix("c") + ONE, value(ONE, "w1"), lease=lease)
        worker = ALLUXIO.workers[0]
        etcd = Etcd(running.cluster, fleet)

        def move() -> None:
            with etcd.any() as other:
                status = other.status()
                for m in running.cluster.members:
                    with etcd.member(m) as one:
                        at = one.status()
                        if at.member_id != status.leader:
                            target = at.member_id
                for m in running.cluster.members:
                    with etcd.member(m) as one:
                        if one.status().member_id == status.leader:
                            one.move_leader(target)

        moving = threading.Timer(2.0, move)
        moving.start()
        found = reregister_workers.lost(ALLUXIO, etcd, [worker], facts())
        moving.join()
        assert client.lease_time(lease).granted in (0, TTL)
    assert found == [worker]
