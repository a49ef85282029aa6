from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from provision.etcd.api.client import DEFAULT_TIMEOUT, EtcdClient
from provision.etcd.api.errors import EtcdRefused, EtcdUnreachable, Reason
from provision.etcd.api.values import Endpoint, Login
from tests.component.conftest import Boot, Running, free_ports


@pytest.fixture(scope="module")
def running(boot: Boot) -> Iterator[Running]:
    with boot() as running:
        yield running


@pytest.fixture
def client(running: Running) -> Iterator[EtcdClient]:
    member = running.cluster.members[0]
    with EtcdClient(Endpoint("127.0.0.1", member.client_port)) as client:
        yield client


def test_status_is_the_servers_own(client: EtcdClient, running: Running) -> None:
    status = client.status()
    assert status.version == running.cluster.version
    assert status.is_leader
    assert status.leader == status.member_id != 0
    assert status.db_size >= status.db_in_use > 0  # dbSizeInUse is not in etcd3's rpc.proto
    assert (status.is_learner, status.errors, status.alarms) == (False, (), ())


def test_member_list_has_urls_and_names(client: EtcdClient, running: Running) -> None:
    member = running.cluster.members[0]
    (found,) = client.member_list()
    assert (found.name, found.peer_urls, found.client_urls, found.is_learner) == (
        "infra0",
        (member.peer_url,),
        (member.client_url,),
        False,
    )
    assert found.id == client.status().member_id
    assert client.alarms() == []


def test_range_pages_at_one_revision(client: EtcdClient) -> None:
    for i in range(25):
        client.put(f"/range/{i:02}", str(i))
    client.put("/range0", "outside")
    revision, keys = client.range("/range/", page=10)
    assert [k.key for k in keys] == [f"/range/{i:02}".encode() for i in range(25)]
    assert [k.value for k in keys[:2]] == [b"0", b"1"]
    assert keys[0].mod_revision < keys[1].mod_revision
    client.put("/range/99", "later")
    assert client.range("/range/", revision=revision, page=7) == (revision, keys)
    _, first = client.range("/range/", limit=12, page=5, keys_only=True)
    assert [(k.key, k.value) for k in first] == [(k.key, b"") for k in keys[:12]]


def test_range_of_nothing_and_of_everything(client: EtcdClient) -> None:
    revision, keys = client.range("/no/such/")
    assert keys == []
    assert revision > 0
    client.put("\xff", "last")
    assert client.range("")[1][-1].value == b"last"


def test_keys_that_were_compacted_away_are_an_error_with_the_endpoint(client: EtcdClient) -> None:
    with pytest.raises(EtcdRefused, match=r"127.0.0.1:\d+: .*future revision"):
        client.range("/range/", revision=10**12)


def test_delete_compares_what_was_seen(client: EtcdClient) -> None:
    seen = client.put("/delete", "1")
    client.put("/delete", "2")
    assert not client.delete("/delete", if_mod_revision=seen)
    found = client.get("/delete")
    assert found is not None
    assert found.value == b"2"
    assert client.delete("/delete", if_mod_revision=found.mod_revision)
    assert not client.delete("/delete")
    assert client.get("/delete") is None


def test_leases(client: EtcdClient) -> None:
    lease = client.lease_grant(30)
    client.put("/leased", "x", lease=lease)
    found = client.get("/leased")
    assert found is not None
    assert found.lease == lease
    assert 0 < client.lease_ttl(lease) <= 30
    client.lease_revoke(lease)
    assert client.lease_ttl(lease) == -1
    assert client.get("/leased") is None


def test_quorum_write_leaves_nothing(client: EtcdClient) -> None:
    client.quorum_write("infra0")
    assert client.range("/alluxio-provision/")[1] == []


def test_nothing_listens() -> None:
    (port,) = free_ports(1)
    started = time.monotonic()
    with (
        EtcdClient(Endpoint("127.0.0.1", port)) as client,
        pytest.raises(EtcdUnreachable, match=f"127.0.0.1:{port}: connection refused") as caught,
    ):
        client.status()
    assert caught.value.reason is Reason.REFUSED
    assert time.monotonic() - started < DEFAULT_TIMEOUT  # it did not wait for that


def test_a_server_that_hangs_is_given_up_in_time(running: Running) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with (
            EtcdClient(Endpoint("127.0.0.1", silent.getsockname()[1]), timeout=0.3) as client,
            pytest.raises(EtcdUnreachable) as caught,
        ):
            client.status()
        assert caught.value.reason is Reason.TIMEOUT
        assert 0.2 < time.monotonic() - started < DEFAULT_TIMEOUT


def test_a_proxy_of_the_environment_is_not_used(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with EtcdClient(Endpoint("127.0.0.1", running.cluster.members[0].client_port)) as client:
        assert client.status().leader


def test_close_leaves_no_thread(running: Running) -> None:
    before = threading.active_count()
    with EtcdClient(Endpoint("127.0.0.1", running.cluster.members[0].client_port)) as client:
        client.status()
        client.range("/")
    assert threading.active_count() == before


def test_a_lost_quorum_is_said_in_words(boot: Boot) -> None:
    with boot(3) as running:
        running.kill("infra1", "infra2")
        member = running.cluster.members[0]
        with EtcdClient(Endpoint("127.0.0.1", member.client_port), timeout=3) as client:
            time.sleep(0.5)  # an election timeout and a half, so that the leader steps down
            assert client.status().version
            with pytest.raises(EtcdUnreachable) as caught:
                client.get("health")
            assert caught.value.reason in (Reason.NO_QUORUM, Reason.TIMEOUT)


def test_a_login_where_there_is_no_authentication_is_not_asked_for(running: Running) -> None:
    endpoint = Endpoint("127.0.0.1", running.cluster.members[0].client_port)
    with EtcdClient(endpoint, login=Login("alluxio", "secret")) as client:
        client.get("health")
        assert not client.logged_in
