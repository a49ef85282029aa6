"""Registrations as Alluxio 313 wrote them, in a real etcd."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.alluxio.membership import registrations
from provision.errors import Unhealthy
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import Login
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.ssh.session import Fleet
from tests.component.conftest import Boot, Running

RECORDED = Path(__file__).parents[1] / "unit" / "data" / "alluxio-313" / "etcd-keys.json"


@pytest.fixture(scope="module")
def running(boot: Boot) -> Iterator[Running]:
    with boot() as running:
        yield running


def replay(client: EtcdClient) -> int:
    """Write the recorded keys, the live ones under a lease. Returns the lease."""
    lease = client.lease_grant(30)
    for kv in json.loads(RECORDED.read_text())["kvs"]:
        client.put(
            base64.b64decode(kv["key"]),
            base64.b64decode(kv["value"]),
            lease=lease if kv.get("lease") else 0,
        )
    return lease


def test_a_worker_whose_lease_ends_is_registered_only(client: EtcdClient) -> None:
    lease = replay(client)
    seen = registrations.read(client, "DefaultAlluxioCluster")
    assert len(seen.authorized) == len(seen.live) == 2
    assert {entry.key.lease for entry in seen.live.values()} == {lease}
    client.lease_revoke(lease)
    later = registrations.read(client, "DefaultAlluxioCluster")
    assert (len(later.authorized), later.live) == (2, {})
    assert later.revision > seen.revision


def test_clusters_in_one_etcd(client: EtcdClient) -> None:
    replay(client)
    client.put("/ServiceDiscovery/DefaultAlluxioCluster-b/w", "{}")
    assert registrations.clusters(client) == ["DefaultAlluxioCluster", "DefaultAlluxioCluster-b"]
    assert len(registrations.read(client, "DefaultAlluxioCluster").live) == 2


def test_thousands_of_workers_in_pages(client: EtcdClient) -> None:
    value = b'{"WorkerNetAddress":{"Host":"h","RpcPort":1}}'
    for i in range(2100):
        client.put(f"{registrations.live_prefix('big')}worker-{i:05}", value)
    seen = registrations.read(client, "big")
    assert list(seen.live) == [f"worker-{i:05}" for i in range(2100)]


def test_another_member_is_asked_after_a_failure(boot: Boot, fleet: Fleet) -> None:
    with boot(3) as three:
        etcd = Etcd(three.cluster, fleet)
        with etcd.any() as client:
            first = client.endpoint.port
            assert client.status().leader
        chosen = next(m.name for m in three.cluster.members if m.client_port == first)
        three.kill(chosen)
        deadline = time.monotonic() + 10
        while not health.observe(etcd).healthy_count:  # it may have been the leader
            assert time.monotonic() < deadline
        with etcd.any(timeout=10) as client:
            assert client.endpoint.port != first
            client.get("x")
            three.kill()
            with pytest.raises(EtcdUnreachable):
                client.get("x")
        with (
            pytest.raises(Unhealthy, match="no etcd member serves reads") as caught,
            etcd.any(),
        ):
            pass
        assert len(caught.value.problems) == 3


def test_alluxios_own_user_is_enough(boot: Boot, fleet: Fleet, etcd_binary: Path) -> None:
    with boot() as secured:
        url = secured.cluster.members[0].client_url

        def etcdctl(*args: str) -> None:
            command = [str(etcd_binary.with_name("etcdctl")), "--endpoints", url, *args]
            subprocess.run(command, check=True, capture_output=True, timeout=20)

        etcdctl("user", "add", "root:root")
        etcdctl("user", "grant-role", "root", "root")
        etcdctl("user", "add", "alluxio:secret")
        etcdctl("role", "add", "alluxio")
        for prefix in ("/DHT/", "/ServiceDiscovery/"):
            etcdctl("role", "grant-permission", "alluxio", "--prefix=true", "readwrite", prefix)
        etcdctl("user", "grant-role", "alluxio", "alluxio")
        etcdctl("auth", "enable")
        login = Login("alluxio", "secret")
        assert health.observe(Etcd(secured.cluster, fleet, login)).problems == []
        with Etcd(secured.cluster, fleet, login).any() as client:
            replay(client)
            assert len(registrations.read(client, "DefaultAlluxioCluster").live) == 2
            assert registrations.clusters(client) == ["DefaultAlluxioCluster"]
            with pytest.raises(EtcdUnreachable) as caught:
                client.put("/other", "x")
            assert caught.value.reason is Reason.DENIED
        for wrong in (None, Login("alluxio", "wrong")):
            (member,) = health.observe(Etcd(secured.cluster, fleet, wrong)).members
            assert not member.healthy
            assert member.error.startswith("login refused")
