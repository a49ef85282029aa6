"""No secret leaves a run: whole runs as processes of their own, and all that others can see.

Two hosts on loopback answer by Paramiko's server. They really look (the facts script only reads)
and really hold the run lock; uploads are taken, and every change fails with words of the host.
Everything that a run prints or writes is searched for secrets, and everything that other users can
see of its processes, here and on the hosts.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from provision.ssh.remote import Marks
from tests.unit.hosts import below

#: What is searched for; each secret has more characters around it that shells and JSON would quote.
MARKS = tuple(f"Zk7quiet{name}Secret" for name in ("root", "worker", "sudo", "phrase", "s3", "no"))
ROOT, WORKERS, SUDO, PHRASE, STORE, UNUSED = (f"{mark}$'\"&é" for mark in MARKS)
#: The hosts' folders. Nothing is ever made there: every change fails.
NOWHERE = "/srv/alxp-quiet"
ADDRESSES = ("127.0.4.1", "127.0.4.2")
VARIABLES = {"T_WORKERS": WORKERS, "T_SUDO": SUDO, "T_PHRASE": PHRASE, "T_UNUSED": UNUSED}
INVENTORY = """\
cluster: quiet
ssh:
  user: deploy
  port: {port}
  key: key
  key_passphrase: {{env: T_PHRASE}}
  sudo_password: {{env: T_SUDO}}
  known_hosts: known_hosts
etcd:
  version: 3.6.16
  source: {{path: etcd-v3.6.16-linux-amd64.tar.gz, sha256: file:SHA256SUMS}}
  auth: {{enabled: true, root_password: {{file: root}}}}
  data_dir: {root}/etcd
  config_dir: {root}/etc-etcd
  install_dir: {root}/opt-etcd
  members:
    infra0: {{host: 127.0.4.1}}
alluxio:
  version: "313"
  source: {{path: alluxio-313-bin.tar.gz, sha256: file:SHA256SUMS}}
  java: {{source: {{path: jdk.tar.gz, sha256: file:SHA256SUMS}}}}
  etcd: {{username: alluxio, password: {{env: T_WORKERS}}}}
  properties: {{alluxio.dora.client.ufs.root: s3://bucket/path}}
  secret_properties: {{s3a.secretKey: {{file: store}}}}
  state_dir: {root}/alluxio
  log_dir: {root}/alluxio-log
  install_dir: {root}/opt-alluxio
  workers:
    worker1: {{host: 127.0.4.2}}
"""
#: Tasks, each in every form of :data:`FORMS`.
TASKS = (
    ("show-inventory",),
    ("deploy-etcd", "--dry-run"),
    ("deploy-etcd",),
    ("start-workers",),
    ("check-nodes", "--hosts"),
    ("enable-auth", "--dry-run"),
    ("rotate-certs", "--dry-run"),
    ("status",),
    ("destroy", "--yes-delete", "quiet"),
)
FORMS = (("--verbose", "--stats"), ("--format", "json", "--debug", "debug.tar.gz"))
#: Those that contact nothing, and mistakes.
ONCE = (
    ("render-client-config",),
    ("export-ssh-config",),
    ("audit",),
    ("logs", "worker1"),
    ("list-clusters",),
    ("backup-etcd",),
    ("render-helm", "--format", "json"),
    ("deploy-etcd", "--no-such-option"),
)


@dataclass
class Host(paramiko.ServerInterface):
    """A host that keeps what it is asked: ``commands`` are in its process list."""

    folder: Path
    commands: list[str] = field(default_factory=list)
    given: list[bytes] = field(default_factory=list)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.commands.append(command.decode())
        threading.Thread(target=self._run, args=(channel, command.decode()), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        with contextlib.suppress(OSError, EOFError), contextlib.closing(channel):
            if "run.lock" in command:
                self._lock(channel, command)
                return
            given = bytearray()
            while data := channel.recv(65536):
                given += data
            self.given.append(bytes(given))
            if b"fact systemd=" in given:
                done = subprocess.run(["sh", "-c", command], input=given, capture_output=True)
                out = re.sub(rb"(?m)^fact systemd=.*\n", b"", done.stdout)
                more = f"fact systemd=252\naddress {self.folder.name}\n".encode()
                channel.sendall(re.sub(rb"(?m)^(?=fact uid=)", more, out))
                channel.sendall_stderr(done.stderr)
                channel.send_exit_status(done.returncode)
                return
            token = re.search(r"--([0-9a-f]{16})-login--", command)
            marks = Marks(token[1] if token else "")
            channel.sendall(marks.login + marks.begin + marks.end)
            channel.sendall_stderr(marks.login + marks.begin)
            if "tarball" not in command:
                channel.sendall_stderr(b"sh: this host has no space left\n")
            channel.send_exit_status("tarball" not in command)

    def _lock(self, channel: paramiko.Channel, command: str) -> None:
        process = subprocess.Popen(
            ["sh", "-c", below(self.folder, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def say() -> None:
            with contextlib.suppress(OSError):
                while data := os.read(stdout.fileno(), 4096):
                    channel.sendall(data)
            channel.send_exit_status(process.wait())
            channel.close()

        threading.Thread(target=say, daemon=True).start()
        with contextlib.suppress(OSError):
            while data := channel.recv(65536):
                stdin.write(data)
                stdin.flush()
            stdin.close()
        process.wait(timeout=30)


class World:
    """The control machine's files, and the hosts."""

    def __init__(self, folder: Path, port: int, hosts: dict[str, Host]) -> None:
        self.folder, self.hosts = folder, hosts
        (folder / "home").mkdir()
        for name in ("root", "store"):
            (folder / name).write_text(f"{ROOT if name == 'root' else STORE}\n")
            (folder / name).chmod(0o600)
        self._tarballs()
        self.inventory = folder / "inventory.yml"
        self.inventory.write_text(INVENTORY.format(port=port, root=NOWHERE))
        self.seen: set[str] = set()

    def _tarballs(self) -> None:
        check = '[[ $JAVA_MAJORMINOR != "001008" && $JAVA_MAJOR != 011 ]]\n'
        alluxio = {
            **dict.fromkeys(("bin/alluxio", "bin/launch-process-bash", "conf/x"), "#!/bin/sh\n"),
            "libexec/alluxio-config.sh": check,
            "libexec/version.sh": "VERSION=313\n",
        }
        every = {
            "etcd-v3.6.16-linux-amd64.tar.gz": {"etcd": "x", "etcdctl": "x", "etcdutl": "x"},
            "alluxio-313-bin.tar.gz": alluxio,
            "jdk.tar.gz": {"bin/java": "x", "release": 'JAVA_VERSION="11.0.20"\n'},
        }
        for name, files in every.items():
            with tarfile.open(self.folder / name, "w:gz") as tar:
                for path, text in files.items():
                    entry = tarfile.TarInfo(f"top/{path}")
                    entry.size = len(text)
                    tar.addfile(entry, io.BytesIO(text.encode()))
        sums = subprocess.run(
            ["sha256sum", *every], cwd=self.folder, check=True, capture_output=True
        )
        (self.folder / "SHA256SUMS").write_bytes(sums.stdout)

    def run(self, *words: str) -> tuple[int, str]:
        """Run the tool; its exit code and all it printed. What others see of it is in ``seen``."""
        home = str(self.folder / "home")
        env = {**os.environ, **VARIABLES, "HOME": home, "PYTHONPATH": str(Path.cwd())}
        env |= {f"XDG_{name}_HOME": f"{home}/{name}" for name in ("STATE", "CACHE", "CONFIG")}
        where = () if "--no-such-option" in words else ("--inventory", str(self.inventory))
        start = "from provision.cli.main import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", start, words[0], *where, *words[1:]],
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        end = threading.Event()
        watching = threading.Thread(target=self._watch, args=(process.pid, end), daemon=True)
        watching.start()
        out, _ = process.communicate(timeout=120)
        end.set()
        watching.join()
        return process.returncode, out.decode()

    def _watch(self, pid: int, end: threading.Event) -> None:
        """Note the command lines of the run and its children, and the children's environment."""
        mine = ""
        while not end.wait(0.01):
            for one in _family(pid):
                with contextlib.suppress(OSError):
                    line = Path(f"/proc/{one}/cmdline").read_bytes().decode()
                    self.seen.add(line)
                    if one == pid:
                        mine = line
                    elif line and line != mine:  # not yet another program
                        own = Path(f"/proc/{one}/environ").read_bytes().decode()
                        self.seen.add(f"{line}: {own}")

    def written(self) -> Iterator[tuple[str, str]]:
        """What the runs have left here, but for the secrets' own files."""
        own = {self.folder / name for name in ("root", "store", "key")}
        for path in self.folder.rglob("*"):
            if not path.is_file() or path in own:
                continue
            if path.name.startswith("debug"):
                with tarfile.open(path) as tar:
                    for entry in tar:
                        file = tar.extractfile(entry)
                        yield f"{path}:{entry.name}", file.read().decode() if file else ""
            elif path.suffix != ".gz" and not path.name.endswith(".key"):
                yield str(path), path.read_bytes().decode(errors="replace")

    def keys(self) -> list[str]:
        """Lines of the private keys that the runs have made."""
        found = []
        for path in self.folder.rglob("*.key"):
            found += [line for line in path.read_text().splitlines() if not line.startswith("-")]
        return found


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:  # it grows meanwhile
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "host").mkdir()
    public = paramiko.ECDSAKey.generate()
    private = ed25519.Ed25519PrivateKey.generate()
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    locked = serialization.BestAvailableEncryption(PHRASE.encode())
    (folder / "key").write_bytes(private.private_bytes(*formats, locked))
    (folder / "key").chmod(0o600)
    servers = [socket.create_server((ADDRESSES[0], 0))]
    port = servers[0].getsockname()[1]
    servers.append(socket.create_server((ADDRESSES[1], port)))
    hosts = {}
    for address, server in zip(ADDRESSES, servers, strict=True):
        (folder / "host" / address).mkdir()
        hosts[address] = Host(folder / "host" / address)
        with (folder / "known_hosts").open("a") as known:
            known.write(f"[{address}]:{port} {public.get_name()} {public.get_base64()}\n")
        threading.Thread(target=_accept, args=(server, public, hosts[address]), daemon=True).start()
    yield World(folder, port, hosts)
    for server in servers:
        server.close()


def _accept(server: socket.socket, public: paramiko.PKey, host: Host) -> None:
    with contextlib.suppress(OSError):
        while True:
            transport = paramiko.Transport(server.accept()[0])
            transport.add_server_key(public)
            with contextlib.suppress(Exception):
                transport.start_server(server=host, event=threading.Event())


def forms(secrets: Iterable[str]) -> re.Pattern[str]:
    """The secrets as they are, and in base64 at each of its three offsets."""
    found = set(secrets)
    for secret in list(found):
        for offset in range(3):
            coded = base64.b64encode(b"x" * offset + secret.encode()).decode()
            found.add(coded[offset + 1 if offset else 0 :].rstrip("=")[:-1])
    return re.compile("|".join(map(re.escape, found)))


def test_no_secret_in_anything_that_a_run_shows(world: World) -> None:
    said: dict[str, tuple[int, str]] = {}
    every = [(*task, *form) for task in TASKS for form in FORMS]
    for number, words in enumerate([*every, *ONCE]):
        own = [f"debug-{number}.tar.gz" if w == "debug.tar.gz" else w for w in words]
        said[" ".join(own)] = world.run(*own)
    print({line: code for line, (code, _) in said.items()})
    code, text = said["deploy-etcd --verbose --stats"]
    assert "this host has no space left" in text, text  # it came as far as changing the host
    assert code == 4
    secrets = forms((*MARKS, *world.keys()))
    for line, (_, text) in said.items():
        assert not secrets.search(text), f"{line}:\n{text}"
    for name, text in world.written():
        assert not secrets.search(name + text), name
    for line in world.seen:
        assert not secrets.search(line), line
    for address, host in world.hosts.items():
        for command in host.commands:
            assert not secrets.search(command), f"{address}: {command}"
