from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from provision.errors import Unhealthy, UsageError
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import ClientTls, Endpoint
from provision.etcd.cluster import health, reach
from provision.etcd.pki import own_ca
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine
from provision.ssh.session import Fleet, Stats
from tests.component.conftest import Boot, Running


class LoopbackSession:
    """Stands for SSH to a member's own host, which here is this one."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, int]] = []

    def open_tcp(self, address: str, port: int, timeout: float) -> socket.socket:
        self.opened.append((address, port))
        return socket.create_connection(("127.0.0.1", port), timeout)


class LoopbackFleet(Fleet):
    def __init__(self) -> None:
        super().__init__(4, Stats())
        self.loopback = LoopbackSession()

    def session(self, machine: Machine) -> LoopbackSession:  # type: ignore[override]
        return self.loopback


@pytest.fixture(scope="module")
def three(boot: Boot) -> Iterator[Running]:
    with boot(3) as running:
        yield running


def test_a_healthy_cluster(three: Running, fleet: Fleet) -> None:
    seen = health.observe(three.cluster, fleet, certificates=True)
    assert seen.problems == []
    assert seen.all_healthy
    assert seen.established
    assert (seen.healthy_count, seen.quorum) == (3, 2)
    assert seen.leader in ("infra0", "infra1", "infra2")
    assert {m.how for m in seen.members} == {"direct"}
    assert {r.name for r in seen.registered} == {"infra0", "infra1", "infra2"}
    assert seen.is_member_healthy("infra1")
    assert not seen.is_member_healthy("infra9")
    assert [m.certificates for m in seen.members] == [(), (), ()]
    health.verify_write(three.cluster, fleet)


def test_through_the_tunnel_when_the_port_is_not_reachable(
    three: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[str, int]] = []

    def unreachable(address: tuple[str, int], timeout: float) -> socket.socket:
        if address[1] in ports and timeout == reach.DIRECT_TIMEOUT:
            tried.append(address)
            raise TimeoutError
        return connect(address, timeout)

    connect = socket.create_connection
    ports = {m.client_port for m in three.cluster.members}
    monkeypatch.setattr(socket, "create_connection", unreachable)
    fleet = LoopbackFleet()
    seen = health.observe(three.cluster, fleet)
    assert seen.problems == []
    assert {m.how for m in seen.members} == {"tunnel"}
    assert {port for _, port in fleet.loopback.opened} == ports
    health.observe(three.cluster, fleet)
    assert len(tried) == 3  # what timed out once is not waited for again


def test_a_member_that_has_left_is_asked_no_more(three: Running, fleet: Fleet) -> None:
    """It may answer for a moment after its removal, and then closes the connection."""
    with health.any_client(three.cluster, fleet) as client:
        first = client.endpoint
    (gone,) = [m for m in three.cluster.members if m.client_port == first.port]
    rest = replace(three.cluster, members=tuple(m for m in three.cluster.members if m is not gone))
    with health.any_client(rest, fleet) as client:
        assert client.endpoint.port in {m.client_port for m in rest.members}


def test_neither_way_works(three: Running, fleet: Fleet) -> None:
    lost = dataclasses.replace(three.cluster.members[0], client_port=1)
    cluster = _with(three.cluster, lost)
    seen = health.observe(cluster, fleet)
    assert [m.healthy for m in seen.members] == [False, True, True]
    (problem,) = seen.problems
    assert problem.where == "etcd member infra0"
    assert problem.what.startswith("connection refused (through SSH: ")
    with pytest.raises(Unhealthy, match="no quorum write through 1 of 3") as caught:
        health.verify_write(cluster, fleet)
    assert [p.where for p in caught.value.problems] == ["etcd member infra0"]
    health.verify_write(cluster, fleet, cluster.members[1])


def test_members_and_inventory_differ(three: Running, fleet: Fleet) -> None:
    members = three.cluster.members[:2]
    renamed = dataclasses.replace(members[1], name="other", peer_port=1)
    cluster = dataclasses.replace(three.cluster, members=(members[0], renamed), version="3.1.4")
    said = [str(p) for p in health.observe(cluster, fleet).problems]
    assert [s for s in said if s.startswith("etcd member infra1: is in the cluster (")]
    assert [s for s in said if s.startswith("etcd member infra2: is in the cluster (")]
    assert "etcd member other: is not a member of the running cluster" in said
    assert sum("the inventory says 3.1.4" in s for s in said) == 2
    assert len(said) == 5


def test_members_of_two_clusters(boot: Boot, three: Running, fleet: Fleet) -> None:
    with boot() as alone:
        stranger = dataclasses.replace(alone.cluster.members[0], name="infra2")
        seen = health.observe(_with(three.cluster, stranger), fleet)
        assert seen.leader is None
        assert "belong to different clusters" in str(seen.problems[-1])
        shown = [p for p in seen.problems if p.id == "etcd-clusters-differ"]
        assert [p.where.startswith("cluster ") for p in shown] == [True, True, False]
        assert all(p.severity == "error" for p in shown)


@pytest.mark.parametrize(("given", "told"), [("104857600", 100 << 20), ("-1", None)])
def test_the_quota_in_force_is_the_members_own_word(
    boot: Boot, fleet: Fleet, given: str, told: int | None
) -> None:
    with boot(args=lambda _: ["--quota-backend-bytes", given]) as one:
        (seen,) = health.observe(one.cluster, fleet).members
    assert seen.member.quota == 2 << 30  # what the inventory says, by default
    assert seen.quota == told


@pytest.mark.parametrize(
    ("given", "told"), [("104857600", 100 << 20), ("-1", None), ("0", 2 << 30)]
)
@pytest.mark.parametrize("minor", ["3.4", "3.5"])
def test_before_3_6_the_quota_in_force_is_in_the_metrics(
    boot: Boot,
    older_binary: Callable[[str], Path],
    fleet: Fleet,
    minor: str,
    given: str,
    told: int | None,
) -> None:
    binary = older_binary(minor)
    with boot(args=lambda _: ["--quota-backend-bytes", given], binary=binary) as one:
        (seen,) = health.observe(one.cluster, fleet, quotas=True).members
        (unasked,) = health.observe(one.cluster, fleet).members
    assert (seen.quota, seen.quota_known) == (told, True)
    assert not unasked.quota_known


def test_tls_on_both_listeners(secured: Running, fleet: Fleet) -> None:
    seen = health.observe(secured.cluster, fleet, certificates=True)
    assert seen.all_healthy
    health.verify_write(secured.cluster, fleet)
    (member,) = seen.members
    assert [c.listener for c in member.certificates] == ["client", "peer"]
    expected = datetime.now(timezone.utc) + timedelta(days=20)
    for shown in member.certificates:
        assert shown.not_after is not None
        assert abs(shown.not_after - expected) < timedelta(minutes=5)
        assert shown.days_left() == 19
    assert [p.severity for p in seen.problems] == ["warning", "warning"]
    assert "client certificate expires in 19 days" in seen.problems[0].what
    time.sleep(0.1)
    assert b"rejected connection" not in secured.members["infra0"].log.read_bytes()


def test_tls_is_verified_through_a_tunnel(secured: Running) -> None:
    cluster, fleet = secured.cluster, LoopbackFleet()
    with reach.connect(cluster, fleet, cluster.members[0], how="tunnel") as client:
        assert client.endpoint.port != cluster.members[0].client_port
        assert client.status().leader
    other = dataclasses.replace(cluster.members[0], address="10.9.9.9")
    with (
        reach.connect(cluster, fleet, other, how="tunnel", timeout=2) as client,
        pytest.raises(EtcdUnreachable) as caught,
    ):
        client.status()
    assert caught.value.reason is Reason.TLS


def test_tls_refuses_another_ca_and_plain_text(secured: Running, tmp_path: Path) -> None:
    member = secured.cluster.members[0]
    endpoint = Endpoint("127.0.0.1", member.client_port)
    stranger = own_ca.ensure_ca(tmp_path, "stranger")
    with (
        EtcdClient(endpoint, tls=ClientTls(stranger.cert_pem), timeout=2) as client,
        pytest.raises(EtcdUnreachable, match="TLS failed") as caught,
    ):
        client.status()
    assert caught.value.reason is Reason.TLS
    with EtcdClient(endpoint, timeout=2) as client, pytest.raises(EtcdUnreachable):
        client.status()


def test_a_client_without_a_certificate_is_refused(secured: Running) -> None:
    member = secured.cluster.members[0]
    ca = own_ca.ca_file(secured.cluster.tls.pki_dir, "test").read_bytes()
    endpoint = Endpoint("127.0.0.1", member.client_port)
    with (
        EtcdClient(endpoint, tls=ClientTls(ca), timeout=2) as client,
        pytest.raises(EtcdUnreachable),
    ):
        client.status()


def test_without_the_ca_nothing_is_trusted(secured: Running, fleet: Fleet, tmp_path: Path) -> None:
    tls = secured.cluster.tls.model_copy(update={"pki_dir": tmp_path})
    cluster = dataclasses.replace(secured.cluster, tls=tls)
    (member,) = health.observe(cluster, fleet).members
    assert not member.healthy
    assert "ca.crt is missing: deploy-etcd makes it" in member.error
    with pytest.raises(UsageError), reach.connect(cluster, fleet, cluster.members[0]):
        pass


def _with(cluster: EtcdCluster, replaced: EtcdMember) -> EtcdCluster:
    return dataclasses.replace(
        cluster,
        members=tuple(replaced if m.name == replaced.name else m for m in cluster.members),
    )
