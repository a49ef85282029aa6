"""A real etcd on loopback, of the lab's build or the distribution's, without a lab."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from provision.etcd.api.client import EtcdClient
from provision.etcd.cluster.handle import Etcd
from provision.etcd.pki import certificates, own_ca
from provision.inventory.model import EtcdTls, Source, version_tuple
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine
from provision.ssh.session import Fleet
from tests import longest

#: The files that take longest, the longest first.
LONGEST = ("lives", "secrets", "host_tools", "bundle", "double", "clusters", "alarms")
LAB = Path(__file__).parents[1] / "lab" / "lab"
ARTIFACTS = Path(__file__).parents[2] / ".lab" / "artifacts"
#: Seconds in which a member must serve, on a machine that has other work. The members of a new
#: cluster listen before they answer, and first ask one another whether they were there before, one
#: after the other, for 1 s each (etcd's isMemberBootstrapped): three take 2 s on a quiet machine.
SERVES_WITHIN = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest.first(items, LONGEST)


@dataclass
class Member:
    """One etcd process: its declaration, and how it is ended and started again."""

    declared: EtcdMember
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def require_running(self, deadline: float) -> None:
        """Fails with the end of the log when the process has ended, or too much time has passed."""
        assert self.process is not None
        if self.process.poll() is not None or time.monotonic() > deadline:
            said = self.log.read_text()[-2000:]
            pytest.fail(f"{self.declared.name} does not serve:\n{said}", pytrace=False)


@dataclass
class Running:
    cluster: EtcdCluster
    members: dict[str, Member]

    def kill(self, *names: str) -> None:
        for name in names or self.members:
            self.members[name].kill()


@pytest.fixture(scope="session")
def etcd_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's newest etcd, else the one on PATH. These tests are worth nothing without."""
    tarballs = [p for p in ARTIFACTS.glob("etcd-v*.tar.gz") if _version(p) >= (3, 6, 0)]
    if tarballs:
        into = tmp_path_factory.mktemp("etcd")
        with tarfile.open(max(tarballs, key=_version)) as tar:
            for member in tar.getmembers():
                if member.name.endswith(("/etcd", "/etcdctl", "/etcdutl")):
                    member.name = Path(member.name).name
                    tar.extract(member, into)
        return into / "etcd"
    found = shutil.which("etcd")
    if found is None:
        pytest.fail(f"no etcd: neither a tarball in {ARTIFACTS} nor 'etcd' on PATH", pytrace=False)
    return Path(found)


@pytest.fixture(scope="session")
def older_binary(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The lab's etcd of a minor release, such as 3.5."""

    @functools.cache
    def unpacked(minor: str) -> Path:
        subprocess.run([LAB, "artifacts", "upgrade"], check=True)  # others may be at it: one builds
        tarball = max(ARTIFACTS.glob(f"etcd-v{minor}.*.tar.gz"), key=_version)
        into = tmp_path_factory.mktemp("etcd-older")
        with tarfile.open(tarball) as tar:
            for member in tar.getmembers():
                if member.name.endswith("/etcd"):
                    member.name = "etcd"
                    tar.extract(member, into)
        return into / "etcd"

    return unpacked


def _version(tarball: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", tarball.name)[:3]))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [s.getsockname()[1] for s in sockets]


Boot = Callable[..., contextlib.AbstractContextManager[Running]]


@pytest.fixture(scope="session")
def boot(etcd_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Boot:
    """``with boot(count, tls=EtcdTls(...), args=[...]) as running:`` is a cluster that serves."""

    @contextlib.contextmanager
    def run(
        count: int = 1,
        tls: EtcdTls | None = None,
        args: Callable[[EtcdMember], list[str]] = lambda _: [],
        names: Sequence[str] = (),
        binary: Path = etcd_binary,
    ) -> Iterator[Running]:
        tls = tls or EtcdTls(peer=False)
        ports = free_ports(2 * count)
        base = tmp_path_factory.mktemp("cluster")
        members = tuple(
            EtcdMember(
                name=names[i] if names else f"infra{i}",
                machine=Machine("127.0.0.1", port=1),  # nothing is asked over SSH here
                address="127.0.0.1",
                client_port=ports[2 * i],
                peer_port=ports[2 * i + 1],
                data_dir=str(base / f"infra{i}"),
                settings={},
                peer_tls=tls.peer,
                client_tls=tls.client,
            )
            for i in range(count)
        )
        cluster = EtcdCluster(
            name="test",
            token="test",
            version=_release(binary),
            source=Source(package=True),
            install_dir="/opt/etcd",
            config_dir="/etc/etcd",
            user="etcd",
            tls=tls,
            members=members,
        )
        running = Running(cluster, {})
        try:
            for m in members:
                command = [str(binary), *_flags(cluster, m), *args(m)]
                running.members[m.name] = Member(m, command, base / f"{m.name}.log")
                running.members[m.name].start()
            _wait(running)
            yield running
        finally:
            running.kill()

    return run


def _flags(cluster: EtcdCluster, m: EtcdMember) -> list[str]:
    return [
        *("--name", m.name, "--data-dir", m.data_dir),
        *("--listen-client-urls", m.client_url, "--advertise-client-urls", m.client_url),
        *("--listen-peer-urls", m.peer_url, "--initial-advertise-peer-urls", m.peer_url),
        *("--initial-cluster", cluster.initial_cluster, "--logger", "zap"),
        *("--heartbeat-interval", "20", "--election-timeout", "200"),
        *(["--unsafe-no-fsync"] if version_tuple(cluster.version) >= (3, 5) else []),
    ]


def _release(binary: Path) -> str:
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"etcd Version: (\S+)", text)
    assert found is not None
    return found[1]


def _wait(running: Running) -> None:
    deadline = time.monotonic() + SERVES_WITHIN
    for member in running.members.values():
        # 3.4 says only the second.
        said = (b"ready to serve client requests", b"serving client traffic")
        while not any(text in member.log.read_bytes() for text in said):
            member.require_running(deadline)
            time.sleep(0.01)


@pytest.fixture(scope="module")
def secured(boot: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One member with TLS on both listeners, which asks clients for a certificate of its CA."""
    pki_dir = tmp_path_factory.mktemp("pki")
    authority = own_ca.ensure_ca(pki_dir, "test")
    pair = certificates.leaf(authority, "infra0", ["127.0.0.1"], days=20)
    (pki_dir / "leaf.crt").write_bytes(pair.cert_pem)
    (pki_dir / "leaf.key").write_bytes(pair.key_pem)

    def args(_: EtcdMember) -> list[str]:
        files = {
            "cert-file": pki_dir / "leaf.crt",
            "key-file": pki_dir / "leaf.key",
            "trusted-ca-file": own_ca.ca_file(pki_dir, "test"),
        }
        found = ["--client-cert-auth", "--peer-client-cert-auth"]
        for name, path in files.items():
            found += [f"--{name}", str(path), f"--peer-{name}", str(path)]
        return found

    with boot(1, EtcdTls(peer=True, client=True, pki_dir=pki_dir), args) as running:
        yield running


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(4) as fleet:
        yield fleet


@pytest.fixture
def client(running: Running, fleet: Fleet) -> Iterator[EtcdClient]:
    """To any member of the module's own fixture ``running``."""
    with Etcd(running.cluster, fleet).any() as client:
        yield client
