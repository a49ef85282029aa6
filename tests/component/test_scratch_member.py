"""A scratch member of a real etcd, and a local user who has taken its port before it.

The scripts run on this machine as on a host: so only root can run these tests.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from provision.errors import PreflightFailed, Unhealthy
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import Endpoint, Login
from provision.etcd.cluster import guard, scratch
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import recovery_marker
from provision.etcd.member.recovery_marker import RecoveryMarker
from provision.host.facts import HostFacts, parse, script
from provision.inventory.model import EtcdAuth, Secret, Source
from provision.inventory.resolved import Machine
from provision.plans.etcd.data import (
    backup_etcd,
    recover_etcd,
    restore_etcd,
    retained,
    snapshot_proof,
    undo_restore,
)
from provision.ssh.session import Fleet, Held, Result, Unreachable
from tests.component.conftest import Boot, Running, free_ports
from tests.unit import hosts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become etcd's user")

#: A user with a group of its own name, as etcd's user is.
USER = "daemon"
ROOT, WORKERS = Login("root", "r-secret-of-etcd"), Login("alluxio", "w-secret")
MARK = RecoveryMarker("recover", "20260101T000000Z", "a" * 64)


class Pipes:
    """A channel whose far end is a local process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self._in, self._out = process, process.stdin, process.stdout
        self.status_event = threading.Event()

    def settimeout(self, timeout: float | None) -> None:
        pass

    def recv(self, size: int) -> bytes:
        return os.read(self._out.fileno(), size)

    def sendall(self, data: bytes) -> None:
        self._in.write(data)
        self._in.flush()

    def shutdown_write(self) -> None:
        with contextlib.suppress(OSError):
            self._in.close()
        self.status_event.set()

    def close(self) -> None:
        self.shutdown_write()


class LoopbackSession(hosts.LocalSession):
    """``before`` is called with the port of a scratch member, before the member is started.
    ``forwards``: whether its sshd forwards connections."""

    before: Callable[[int], None] = staticmethod(lambda port: None)
    forwards = True

    def __init__(self, machine: Machine, root: Path) -> None:
        super().__init__(machine, root)
        self.relays: list[subprocess.Popen[bytes]] = []

    def hold(self, script: str, what: str, *, timeout: float = 120.0) -> Held:
        found = re.search(r"--listen-client-urls https?://127\.0\.0\.1:(\d+)", script)
        if found is None:
            return self._relay(script)
        self.before(int(found[1]))
        return super().hold(script, what, timeout=timeout)

    def _relay(self, script: str) -> Held:
        pipe = subprocess.PIPE
        command = ["/bin/sh", "-c", script]
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe)
        self.relays.append(process)
        channel = Pipes(process)
        greeting = b""
        while (byte := channel.recv(1)) not in (b"\n", b""):
            greeting += byte
        return Held(cast(Any, channel), greeting.decode())

    def open_tcp(self, address: str, port: int, timeout: float) -> Any:
        if not self.forwards:
            raise Unreachable("no", id="host-unreachable", forwarding="prohibited")
        try:
            stream = socket.create_connection((address, port), timeout)
        except OSError as error:
            raise Unreachable("no answer", id="host-unreachable") from error
        stream.settimeout(None)
        return stream


class LoopbackFleet(Fleet):
    def __init__(self, root: Path) -> None:
        super().__init__(1)
        self.loopback = LoopbackSession(Machine("127.0.0.1", port=1), root)

    def session(self, machine: Machine) -> LoopbackSession:
        return self.loopback


class Thief:
    """A process of another user on the scratch member's port. It passes what it gets to an etcd of
    its own, and notes it."""

    def __init__(self, to: int) -> None:
        self.to, self.got = to, bytearray()
        self._server: socket.socket | None = None

    def take(self, port: int) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._serve, args=(self._server,), daemon=True).start()

    def close(self) -> None:
        if self._server is not None:
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            own = socket.create_connection(("127.0.0.1", self.to))
            for ends in ((client, own, True), (own, client, False)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, note: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if note:
                    self.got += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def releases(etcd_binary: Path) -> Iterator[Path]:
    """The release's folder; pytest's own folders are closed to other users."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    (folder / "current").mkdir()
    for name in ("etcd", "etcdctl", "etcdutl"):
        shutil.copy(etcd_binary.with_name(name), folder / "current")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def source(boot: Boot, releases: Path, tmp_path: Path) -> Iterator[tuple[Running, Etcd, Path]]:
    """A member with a key of Alluxio's and with authentication, a handle, and a snapshot."""
    (tmp_path / "password").write_text(ROOT.password)
    with boot() as running:
        port = running.cluster.members[0].client_port
        with EtcdClient(Endpoint("127.0.0.1", port)) as client:
            client.put("/DHT/ours/AUTHORIZED/1", "{}")
            for login in (ROOT, WORKERS):
                client.user_add(login.user, login.password)
            client.user_grant_role("root", "root")
            client.auth_enable()
        cluster = replace(
            running.cluster,
            user=USER,
            install_dir=str(releases),
            source=Source(path=tmp_path / "etcd.tar.gz", sha256="0" * 64),
            auth=EtcdAuth(enabled=True, root_password=Secret(file=tmp_path / "password")),
        )
        etcd = Etcd(cluster, LoopbackFleet(tmp_path))
        file = tmp_path / "s.db"
        with etcd.member(cluster.members[0]) as client:
            backup_etcd._save(client, file, 1 << 20)
        yield running, etcd, file


def session(etcd: Etcd) -> LoopbackSession:
    assert isinstance(etcd.fleet, LoopbackFleet)
    return etcd.fleet.loopback


def test_a_scratch_member_serves_its_own_client(source: tuple[Running, Etcd, Path]) -> None:
    _, etcd, file = source
    proof = snapshot_proof.prove(etcd, file, backup_etcd.check(file), WORKERS)
    assert (proof.keys, proof.clusters, proof.auth, proof.accepted) == (1, ("ours",), True, True)
    other = Login(WORKERS.user, "another")
    assert not snapshot_proof.prove(etcd, file, backup_etcd.check(file), other).accepted
    revision, keys = backup_etcd._prove(
        etcd, etcd.cluster.members[0], file, backup_etcd.check(file)
    )
    assert (revision, keys) == (2, 1)


def test_a_scratch_member_is_asked_where_sshd_does_not_forward(
    source: tuple[Running, Etcd, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value is larger than what one pipe holds."""
    running, etcd, file = source
    file, big = file.with_name("big.db"), "x" * (1 << 20)
    with etcd.member(running.cluster.members[0]) as client:
        client.put("/DHT/ours/AUTHORIZED/2", big)
        backup_etcd._save(client, file, 1 << 24)
    session(etcd).forwards = False
    proof = snapshot_proof.prove(etcd, file, backup_etcd.check(file), WORKERS)
    assert (proof.keys, proof.clusters, proof.auth, proof.accepted) == (2, ("ours",), True, True)
    relays = session(etcd).relays
    assert relays
    for relay in relays:
        relay.wait(10)
    # Nothing of them is left: neither bash nor what it has started.
    left = subprocess.run(["pgrep", "-f", r"/dev/tcp/127\.0\.0\.1/"], check=False)
    assert left.returncode == 1
    # A host without bash cannot be asked in this way.
    run = session(etcd).run

    def without_bash(script: str, *rest: Any, **more: Any) -> Result:
        return run(script.replace("bash", "no-bash-here"), *rest, **more)

    monkeypatch.setattr(session(etcd), "run", without_bash)
    with pytest.raises(PreflightFailed) as refused:
        snapshot_proof.prove(etcd, file, backup_etcd.check(file), WORKERS)
    assert "does not forward connections" in str(refused.value.problems[0])
    assert "the file" not in str(refused.value)


def test_a_scratch_member_serves_nobody_else(source: tuple[Running, Etcd, Path]) -> None:
    """With authentication off in the snapshot, whoever reaches the port could read and write."""
    _, etcd, file = source
    ports: list[int] = []
    session(etcd).before = ports.append
    member = etcd.cluster.members[0]
    with scratch.member(etcd, member, file, backup_etcd.check(file), timeout=10) as (client, _):
        assert client.log_in()
        for port in (ports[0], ports[0] + 1):
            for scheme in ("http", "https"):
                command = ["curl", "-ksS", "-m", "5", f"{scheme}://127.0.0.1:{port}/version"]
                done = subprocess.run(command, capture_output=True, text=True)
                assert "etcdserver" not in done.stdout


def test_who_has_taken_the_port_gets_no_password_and_is_not_believed(
    source: tuple[Running, Etcd, Path], boot: Boot
) -> None:
    """It is said at once, and by whom."""
    _, etcd, file = source
    ports: list[int] = []
    with boot() as own:
        with EtcdClient(Endpoint("127.0.0.1", own.cluster.members[0].client_port)) as client:
            client.put("/DHT/forged/AUTHORIZED/1", "{}")
            for login in (ROOT, WORKERS):
                client.user_add(login.user, login.password)
        thief = Thief(own.cluster.members[0].client_port)

        def take(port: int) -> None:
            ports.append(port)
            thief.take(port)

        session(etcd).before = take
        begun = time.monotonic()
        with contextlib.closing(thief), pytest.raises(PreflightFailed) as found:
            snapshot_proof.prove(etcd, file, backup_etcd.check(file), WORKERS)
        assert time.monotonic() - begun < scratch.STARTS_WITHIN / 2
    assert found.value.id == "backup-unproven"  # the host is to blame, not the file
    what = found.value.problems[0].what
    assert "the scratch member does not start" in what
    comm = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    assert f"port {ports[0]} is taken by {comm} (pid {os.getpid()})" in what
    assert not thief.got


@pytest.mark.parametrize("beside", [0, 1], ids=["for clients", "for peers"])
def test_a_port_that_is_taken_is_not_chosen(
    source: tuple[Running, Etcd, Path], monkeypatch: pytest.MonkeyPatch, beside: int
) -> None:
    _, etcd, file = source
    ports: list[int] = []
    session(etcd).before = ports.append
    with socket.create_server(("127.0.0.1", 0)) as taken:
        there = taken.getsockname()[1] - beside
        monkeypatch.setattr(scratch, "candidates", lambda: [there])
        with pytest.raises(PreflightFailed) as none:
            snapshot_proof.prove(etcd, file, backup_etcd.check(file), WORKERS)
        assert f"none of these ports is free there: {there}" in none.value.problems[0].what
        assert not ports  # nothing was restored yet
        free = next(p for p in range(20000, 30000) if not {p, p + 1} & {there, there + 1})
        monkeypatch.setattr(scratch, "candidates", lambda: [there, free, free + 2])
        snapshot_proof.prove(etcd, file, backup_etcd.check(file), WORKERS)
    assert ports[0] in (free, free + 2)


def test_who_has_a_port(tmp_path: Path) -> None:
    assert hosts.shell(f"{scratch.PORTS}\nfree", tmp_path).stdout == ""
    (port,) = free_ports(1)
    with socket.create_server(("::1", port), family=socket.AF_INET6):
        done = hosts.shell(f"{scratch.PORTS}\nfree {port} {port - 1}; holders {port}", tmp_path)
    assert done.stdout.startswith(f"port {port} is taken by ")
    assert f"(pid {os.getpid()})" in done.stdout


def test_a_port_that_is_taken_later_gets_no_password(
    source: tuple[Running, Etcd, Path], boot: Boot
) -> None:
    """The scratch member ends for some reason, and its client connects again."""
    _, etcd, file = source
    ports: list[int] = []
    session(etcd).before = ports.append
    member = etcd.cluster.members[0]
    with boot() as own:
        thief = Thief(own.cluster.members[0].client_port)
        with (
            contextlib.closing(thief),
            scratch.member(etcd, member, file, backup_etcd.check(file), timeout=2) as (client, _),
        ):
            assert client.log_in()
            subprocess.run(["fuser", "-ks", f"{ports[0]}/tcp"], check=True)
            deadline = time.monotonic() + 10
            while True:
                with contextlib.suppress(OSError):
                    thief.take(ports[0])
                    break
                assert time.monotonic() < deadline
                time.sleep(0.01)
            for _ in range(3):
                with contextlib.suppress(Unhealthy):
                    client.log_in()
    assert thief.got
    assert ROOT.password.encode() not in thief.got


# A restore: its scripts, in a folder that root has just made.


def test_a_restore_and_its_undo(source: tuple[Running, Etcd, Path], releases: Path) -> None:
    running, etcd, file = source
    running.kill()
    data = releases / "data"
    data.mkdir(mode=0o755)
    (data / "member").mkdir()
    (data / "member/old").touch()
    one = replace(etcd.cluster.members[0], data_dir=str(data))
    etcd = etcd.with_cluster(replace(etcd.cluster, members=(one,)))
    mark, digest = RecoveryMarker("restore", MARK.id, MARK.key), backup_etcd.check(file)
    proof = snapshot_proof.Proof(one.name, 2, 1, ("ours",), True, True)
    observed = restore_etcd.RestoreState(file, digest, {}, mark, False, proof)
    restore_etcd._send(etcd, observed, [one])

    def look() -> HostFacts:
        text = script(restore_etcd._probe(etcd.cluster, one, digest))
        return parse(hosts.shell(text, releases), "here")

    assert restore_etcd._uploaded(one, look(), digest)
    assert not restore_etcd._prepared(one, look(), mark)
    done = hosts.do([restore_etcd._prepare(etcd.cluster, one, observed, bump=False)], releases)
    assert done.ok, done.stderr
    assert restore_etcd._prepared(one, look(), mark)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", data / "member"], check=True)
    done = hosts.do(
        [
            restore_etcd._swap(etcd.cluster, one, mark),
            recovery_marker.clear(one, restore_etcd._upload_path(one, digest)),
        ],
        releases,
    )
    assert done.ok, done.stderr
    old = f"member.before-restore-{MARK.id}"
    assert {p.name for p in data.iterdir()} == {"member", old}
    assert {p.owner() for p in data.rglob("*")} == {USER}
    assert restore_etcd._restored(one, look(), mark)
    command = list(running.members[one.name].command)
    command[command.index("--data-dir") + 1] = str(data)
    running.members[one.name].command = command
    running.members[one.name].start()
    port = Endpoint("127.0.0.1", one.client_port)
    with EtcdClient(port, login=ROOT) as client:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(Unhealthy):
                assert client.get("/DHT/ours/AUTHORIZED/1") is not None
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
    running.kill()
    subprocess.run(["chown", "-R", f"{USER}:{USER}", data], check=True)  # root has started it
    undo = undo_restore.UndoState({}, mark, "20260102T000000Z", False)
    done = hosts.do([undo_restore._back(one, undo)], releases)
    assert done.ok, done.stderr
    assert (data / "member/old").exists()
    kept = hosts.shell(script(retained._probe(one)), releases)
    (found,) = retained.read(one, parse(kept, "here"))
    assert (found.name, found.why) == ("member.before-undo-20260102T000000Z", "undone restore")
    assert found.bytes > 1 << 20


# A recovery: the host's own etcdctl asks.


@pytest.fixture
def survivor(boot: Boot, releases: Path) -> Iterator[tuple[Any, Any]]:
    """A cluster whose only survivor has its data, and its configuration, on this machine."""
    with boot(3) as running:
        port = running.cluster.members[0].client_port
        with EtcdClient(Endpoint("127.0.0.1", port)) as client:
            client.put("/DHT/ours/AUTHORIZED/1", "{}")
        running.kill()
        chosen = running.cluster.members[0]
        shutil.copytree(chosen.data_dir, releases / "data")
        subprocess.run(["chown", "-R", f"{USER}:{USER}", releases / "data"], check=True)
        chosen = replace(chosen, data_dir=str(releases / "data"))
        (releases / "etcd.conf.yml").write_text(
            f"name: {chosen.name}\ndata-dir: {chosen.data_dir}\n"
            f"listen-client-urls: {chosen.client_url}\nadvertise-client-urls: {chosen.client_url}\n"
            f"listen-peer-urls: {chosen.peer_url}\n"
            f"initial-advertise-peer-urls: {chosen.peer_url}\n"
            f"initial-cluster: {running.cluster.initial_cluster}\n"
        )
        source = Source(path=releases / "etcd.tar.gz", sha256="0" * 64)
        cluster = replace(
            running.cluster, user=USER, install_dir=str(releases), source=source,
            config_dir=str(releases), members=(chosen, *running.cluster.members[1:]),
        )  # fmt: skip
        yield cluster, chosen


def test_a_forced_member_is_asked(survivor: tuple[Any, Any], releases: Path) -> None:
    cluster, chosen = survivor
    text = script(recover_etcd._probe(cluster, chosen))
    said = parse(hosts.shell(text, releases), "here").commands["status"]
    assert guard.revision(said) is not None
    change = recover_etcd._force(cluster, chosen, MARK)
    done = hosts.do([recover_etcd._keep(chosen, MARK), change], releases)
    assert done.ok, done.stderr
    assert (Path(chosen.data_dir) / f"member.before-recover-{MARK.id}/snap/db").exists()
    stamp = Path(chosen.data_dir) / "member/recovered-by"
    assert stamp.read_text() == f"{MARK.id}\n"


def test_a_forced_member_takes_no_port_that_is_taken(
    survivor: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, releases: Path
) -> None:
    cluster, chosen = survivor
    with socket.create_server(("127.0.0.1", 0)) as taken:
        there = taken.getsockname()[1]
        monkeypatch.setattr(scratch, "candidates", lambda: [there])
        done = hosts.do([recover_etcd._force(cluster, chosen, MARK)], releases)
        assert not done.ok
        assert f"none of these ports of 127.0.0.1 is free: {there}" in done.stderr
        (free,) = free_ports(1)
        monkeypatch.setattr(scratch, "candidates", lambda: [there, free])
        done = hosts.do([recover_etcd._force(cluster, chosen, MARK)], releases)
    assert done.ok, done.stderr


def test_another_one_on_its_port_is_not_believed(
    survivor: tuple[Any, Any], boot: Boot, releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the port between the look and the start. It answers at once and for ever; the member
    has not started yet."""
    cluster, chosen = survivor
    (port,) = free_ports(1)
    monkeypatch.setattr(scratch, "candidates", lambda: [port])
    monkeypatch.setattr(scratch, "PORTS", f'{scratch.PORTS}\nfree() {{ echo "$1"; }}')
    change = recover_etcd._force(cluster, chosen, MARK)
    with boot() as own:
        thief = Thief(own.cluster.members[0].client_port)
        thief.take(port)
        with contextlib.closing(thief):
            done = hosts.do([change], releases)
    assert not done.ok
    assert "address already in use" in done.stderr
    assert f"port {port} is taken by " in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr
    assert not (Path(chosen.data_dir) / "member/recovered-by").exists()


def test_who_listens(tmp_path: Path) -> None:
    (port, other) = free_ports(2)
    with socket.create_server(("127.0.0.1", port)):
        for script, code in (
            (f"listens {os.getpid()} {port}", 0),
            (f"listens $$ {port}", 1),
            (f"listens {os.getpid()} {other}", 1),
        ):
            done = hosts.shell(f"{scratch.LISTENS}\n{script}", tmp_path)
            assert done.code == code, done.stderr
