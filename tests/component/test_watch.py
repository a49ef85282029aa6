"""The live view over a real etcd: events, leases that end, members and history that go."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from provision import check_nodes
from provision.alluxio.membership import registrations
from provision.alluxio.membership.watch_cache import WatchCache
from provision.check_nodes import CheckReport
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdCompacted, EtcdUnreachable, Reason
from provision.etcd.api.values import Endpoint
from provision.etcd.cluster.handle import Etcd
from provision.inventory.resolved import Inventory
from provision.ssh.session import Fleet
from tests.component.conftest import Boot, Running, free_ports
from tests.unit.builders import alluxio, inventory, worker

CLUSTER = "c"
LIVE, KNOWN = registrations.live_prefix(CLUSTER), registrations.authorized_prefix(CLUSTER)


@pytest.fixture(scope="module")
def running(boot: Boot) -> Iterator[Running]:
    with boot() as running:
        yield running


@pytest.fixture
def client(running: Running) -> Iterator[EtcdClient]:
    with connected(running) as client:
        for key in client.range("/")[1]:
            client.delete(key.key)
        yield client


def connected(running: Running, member: int = 0) -> EtcdClient:
    return EtcdClient(Endpoint("127.0.0.1", running.cluster.members[member].client_port))


def register(client: EtcdClient, name: str, lease: int, host: str | None = None) -> None:
    value = json.dumps({"WorkerNetAddress": {"Host": host or name, "RpcPort": 29999}})
    client.put(f"{KNOWN}worker-{name}", value)
    client.put(f"{LIVE}worker-{name}", value, lease=lease)


class Watched:
    """The reports of a watch, as they come."""

    def __init__(self, watched: Inventory) -> None:
        self.reports: queue.Queue[CheckReport | BaseException] = queue.Queue()
        self.seen: list[str] = []
        self._inventory = watched
        self._fleet = Fleet(2)
        self.etcd = Etcd(watched.etcd, self._fleet)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(20)
        self._fleet.close()
        assert not self._thread.is_alive()

    def _run(self) -> None:
        # The members' health every second, so that there is a report to end with.
        looks = check_nodes.watch(self._inventory, self.etcd, 1.0, etcd_timeout=2.0)
        with contextlib.closing(looks):
            for report in looks:
                self.reports.put(report)
                if self._ended.is_set():
                    return

    def until(self, states: str, seconds: float = 20) -> CheckReport:
        """The first report from now on in which the workers are so, `w1 LIVE, w2 FAILED`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                report = self.reports.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not {states!r}, but {self.seen[-5:]}") from None
            assert isinstance(report, CheckReport)
            said = ", ".join(f"{n.name or n.host} {n.state.value}" for n in report.nodes)
            self.seen.append(said)
            if said == states:
                return report


def of(running: Running) -> Inventory:
    cluster = alluxio(worker("w1", "127.0.0.1"), worker("w2", "w2.invalid"))
    return inventory(cluster, etcd=running.cluster)


def test_a_watch_tells_of_both_prefixes(client: EtcdClient) -> None:
    before = client.put("/a/1", "x")
    client.put("/other", "x")
    watch = client.watch({"/a/": before, "/b/": before})
    client.put("/b/1", "y")
    client.delete("/a/1")
    # Each prefix is confirmed before its changes; the two go side by side.
    confirmed: list[str] = []
    found: list[tuple[str, bool, bytes, bytes]] = []
    while len(confirmed) < 2 or len(found) < 3:
        changes = next(watch)
        if not changes.events:
            confirmed.append(changes.prefix)
        assert changes.prefix in confirmed
        found += [(changes.prefix, e.deleted, e.key.key, e.key.value) for e in changes.events]
    assert sorted(confirmed) == ["/a/", "/b/"]
    assert sorted(found) == [
        ("/a/", False, b"/a/1", b"x"),
        ("/a/", True, b"/a/1", b""),
        ("/b/", False, b"/b/1", b"y"),
    ]
    watch.close()


def test_a_closed_client_says_so(running: Running) -> None:
    client = connected(running)
    client.close()
    for call in (client.status, lambda: next(client.watch({"/a/": 1}))):
        with pytest.raises(EtcdUnreachable, match="the connection was closed"):
            call()


def test_closing_the_client_ends_its_watch(running: Running) -> None:
    before = threading.active_count()
    with connected(running) as client:
        watch = client.watch({"/a/": 1 << 40})
        assert next(watch).events == ()
        threading.Timer(0.1, client.close).start()
        with pytest.raises(EtcdUnreachable):
            next(watch)
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_history_that_is_gone_is_said(client: EtcdClient) -> None:
    first = client.put("/a/1", "x")
    client.compact(client.put("/a/1", "y"))
    with pytest.raises(EtcdCompacted, match="before revision"):
        for _ in client.watch({"/a/": first}):
            pass


def test_a_member_without_a_leader_ends_the_watch(boot: Boot) -> None:
    with boot(3) as three, connected(three) as client:
        watch = client.watch({"/a/": 1})
        next(watch)
        three.kill("infra1", "infra2")
        with pytest.raises(EtcdUnreachable) as caught:
            next(watch)
        assert caught.value.reason is Reason.NO_QUORUM


def test_the_mirror_is_what_is_read(client: EtcdClient) -> None:
    lease = client.lease_grant(60)
    register(client, "w1", lease)
    register(client, "w2", lease)
    mirror = WatchCache(client, CLUSTER)
    register(client, "w3", lease)
    client.put(f"{LIVE}worker-w1", "no JSON", lease=lease)
    client.delete(f"{KNOWN}worker-w2")
    client.delete(f"{LIVE}worker-w2")
    watch = client.watch(mirror.since)
    last = client.status().revision
    # The last two changes were one of each; in which order their events come is etcd's affair.
    while mirror.since[KNOWN] < last or mirror.since[LIVE] <= last:
        mirror.apply(next(watch))
    watch.close()
    for _ in range(2):  # the second time nothing is parsed again
        assert mirror.membership == registrations.read(client, CLUSTER)
    assert mirror.goes_on(client)


def test_another_etcd_does_not_go_on(client: EtcdClient, boot: Boot) -> None:
    mirror = WatchCache(client, CLUSTER)
    with boot(2) as other, connected(other) as elsewhere:
        for _ in range(mirror.membership.revision):
            elsewhere.put("/x", "")
        assert not mirror.goes_on(elsewhere)


def test_changes_are_seen_as_they_come(running: Running, client: EtcdClient) -> None:
    with Watched(of(running)) as watched:
        watched.until("w1 UNREGISTERED, w2 UNREGISTERED")
        lease = client.lease_grant(60)
        register(client, "w1", lease, "127.0.0.1")
        register(client, "w2", lease, "w2.invalid")
        report = watched.until("w1 LIVE, w2 LIVE")
        assert report.revision == client.status().revision
        register(client, "w3", lease)
        watched.until("w1 LIVE, w2 LIVE, w3 UNKNOWN")
        client.lease_revoke(lease)
        watched.until("w1 FAILED, w2 FAILED, w3 UNKNOWN")


def test_a_lease_that_ends_is_seen(running: Running, client: EtcdClient) -> None:
    register(client, "w1", client.lease_grant(1), "127.0.0.1")
    with Watched(of(running)) as watched:
        watched.until("w1 LIVE, w2 UNREGISTERED")
        watched.until("w1 FAILED, w2 UNREGISTERED")


def test_a_member_that_restarts_is_found_again(boot: Boot) -> None:
    with boot() as one, Watched(of(one)) as watched:
        with connected(one) as client:
            register(client, "w1", client.lease_grant(60), "127.0.0.1")
        watched.until("w1 LIVE, w2 UNREGISTERED")
        one.kill()
        lost = watched.until("w1 UNDETERMINED, w2 UNDETERMINED")
        said = [str(p) for p in lost.problems]
        assert any("the registrations could not be read: " in problem for problem in said)
        one.members["infra0"].start()
        watched.until("w1 LIVE, w2 UNREGISTERED")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hangs"])
def test_another_member_takes_over(boot: Boot, how: signal.Signals) -> None:
    with boot(3) as three, Watched(of(three)) as watched:
        watched.until("w1 UNREGISTERED, w2 UNREGISTERED")
        serving = watched.etcd.learned.serving(three.cluster)
        assert serving is not None
        member = serving[0]
        process = three.members[member.name].process
        assert process is not None
        process.send_signal(how)
        other = next(i for i, m in enumerate(three.cluster.members) if m.name != member.name)
        with connected(three, other) as client:
            while True:
                with contextlib.suppress(EtcdUnreachable):  # until there is a leader again
                    register(client, "w1", client.lease_grant(60), "127.0.0.1")
                    break
        watched.until("w1 LIVE, w2 UNREGISTERED")


@contextlib.contextmanager
def relay(port: int, target: int) -> Iterator[None]:
    """A port that leads to another one; at the end every connection through it is cut."""
    ends: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near = server.accept()[0]
                far = socket.create_connection(("127.0.0.1", target))
                ends.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", port)) as server:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield
        finally:
            for end in (server, *ends):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


def away(running: Running, client: EtcdClient, meanwhile: Callable[[int], None]) -> None:
    """Watch through a relay, and have it away for a while."""
    (port,) = free_ports(1)
    member = running.cluster.members[0]
    cluster = dataclasses.replace(
        running.cluster, members=(dataclasses.replace(member, client_port=port),)
    )
    lease = client.lease_grant(60)
    with Watched(of(Running(cluster, {}))) as watched:
        with relay(port, member.client_port):
            register(client, "w1", lease, "127.0.0.1")
            watched.until("w1 LIVE, w2 UNREGISTERED")
        watched.until("w1 UNDETERMINED, w2 UNDETERMINED")
        meanwhile(lease)
        with relay(port, member.client_port):
            watched.until("w1 FAILED, w2 LIVE")


def test_it_goes_on_from_the_last_revision(running: Running, client: EtcdClient) -> None:
    def meanwhile(lease: int) -> None:
        register(client, "w2", lease, "w2.invalid")
        client.delete(f"{LIVE}worker-w1")

    away(running, client, meanwhile)


def test_after_a_compaction_it_reads_anew(running: Running, client: EtcdClient) -> None:
    def meanwhile(lease: int) -> None:
        register(client, "w2", lease, "w2.invalid")
        client.delete(f"{LIVE}worker-w1")
        client.compact(client.put("/other", "x"))

    away(running, client, meanwhile)
