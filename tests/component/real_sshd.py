"""OpenSSH's sshd on loopback, with an account of its own: this machine needs neither sshd nor user.

It runs in a mount namespace that has another /etc/passwd and /run; so these tests run as root. The
programs come from this machine, or from Debian's packages, which are unpacked and not installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provision.inventory.resolved import Machine
from provision.ssh.session import Fleet, Session

CACHE = Path(__file__).parents[2] / ".lab" / "sshd"
USER = "alxp-op"
_SYSTEM = Path("/usr/sbin/sshd")
_NAMESPACE = """\
mount --make-rprivate /
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/shadow" /etc/shadow
mount -t tmpfs none /run
mkdir -p /run/sshd
shift
exec "$@"
"""


def keygen(path: Path, *options: str) -> Path:
    """A new private key, without a passphrase unless ``options`` say so."""
    given = options if "-N" in options else (*options, "-N", "")
    kind = () if "-t" in given else ("-t", "ed25519")
    subprocess.run(
        ["ssh-keygen", "-q", *kind, "-f", str(path), "-C", path.name, *given],
        check=True,
        capture_output=True,
    )
    return path


def public(path: Path) -> str:
    return path.with_name(path.name + ".pub").read_text()


@dataclass
class Sshd:
    """The server: what it takes, what it says, and how it is reached."""

    folder: Path
    home: Path
    port: int
    host_key: Path
    known_hosts: Path
    log: Path

    def accept(self, *keys: Path) -> None:
        """Take these keys, and no others."""
        path = self.home / ".ssh" / "authorized_keys"
        path.write_text("".join(map(public, keys)))

    def machine(self, **changed: Any) -> Machine:
        given: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": USER,
            "known_hosts": self.known_hosts,
            "connect_timeout": 20.0,
            "where": "i.yml:1",
        }
        return Machine(**{**given, **changed})


def programs() -> tuple[Path, dict[str, str]]:
    """sshd, and the environment that it needs. Skips the test when there is none to be had."""
    if os.geteuid() != 0:
        pytest.skip("sshd in a mount namespace needs root")
    if _SYSTEM.exists():
        return _SYSTEM, {}
    found = CACHE / "root" / "usr/sbin/sshd"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # other tests may want it at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            _unpack()
    libraries = ":".join(sorted({str(p.parent) for p in (CACHE / "root").glob("**/*.so*")}))
    return found, {"LD_LIBRARY_PATH": libraries}


def _unpack() -> None:
    if shutil.which("apt-get") is None:
        pytest.skip("there is no sshd here, and no apt-get")
    packages, root = CACHE / "packages", CACHE / "root"
    packages.mkdir(exist_ok=True)
    got = subprocess.run(
        ["apt-get", "download", "openssh-server", "libwrap0"],
        cwd=packages,
        capture_output=True,
        text=True,
    )
    if got.returncode != 0:
        pytest.skip(f"there is no sshd here, and none to be had: {got.stderr[-200:]}")
    for package in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)


@contextlib.contextmanager
def running(*settings: str, shell: str = "/bin/sh") -> Iterator[Sshd]:
    """sshd with these further lines in its configuration."""
    sshd, environment = programs()
    # Not in a folder of pytest's: the account could not read its authorized_keys there.
    folder = Path(tempfile.mkdtemp(prefix="alxp-sshd-"))
    folder.chmod(0o755)
    try:
        with _started(folder, sshd, environment, settings, shell) as found:
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _started(
    folder: Path, sshd: Path, environment: dict[str, str], settings: Sequence[str], shell: str
) -> Iterator[Sshd]:
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True)
    uid = 64321
    accounts = Path("/etc/passwd").read_text()
    if "sshd:" not in accounts:
        accounts += "sshd:x:64320:65534::/run/sshd:/usr/sbin/nologin\n"
    (folder / "passwd").write_text(f"{accounts}{USER}:x:{uid}:{uid}::{home}:{shell}\n")
    (folder / "shadow").write_text(f"root:*:1::::::\n{USER}:*:19000:0:99999:7:::\n")
    (folder / "shadow").chmod(0o600)
    host_key = keygen(folder / "host_key")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "log"
    config = folder / "sshd_config"
    lines = [
        *settings,
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {host_key}",
        "AuthorizedKeysFile .ssh/authorized_keys",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PidFile none",
        "LogLevel VERBOSE",
    ]
    config.write_text("\n".join(lines) + "\n")
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {public(host_key)}")
    found = Sshd(folder, home, port, host_key, known, log)
    found.accept()
    command = ["unshare", "-m", "sh", "-c", _NAMESPACE, "sshd", str(folder)]
    process = subprocess.Popen(
        [*command, str(sshd), "-D", "-f", str(config), "-E", str(log)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        _wait(process, port, log)
        yield found
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
            if sock.recv(4) == b"SSH-":
                return
        if process.poll() is not None or time.monotonic() > deadline:
            said = process.communicate()[0] if process.poll() is not None else b""
            logged = log.read_text() if log.exists() else ""
            if b"unshare" in said or b"mount" in said:
                pytest.skip(f"no mount namespace here: {said.decode()}")
            raise AssertionError(f"sshd does not start: {said.decode()}{logged}")
        time.sleep(0.05)


@contextlib.contextmanager
def session(machine: Machine) -> Iterator[Session]:
    with Fleet(1) as fleet:
        yield fleet.session(machine)


@contextlib.contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[Path]:
    """The socket of an ssh-agent that holds these keys."""
    path = folder / "agent.sock"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        for key in keys:
            add(path, str(key))
        yield path
    finally:
        process.terminate()
        process.wait()


def add(path: Path, *arguments: str) -> None:
    environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
    subprocess.run(["ssh-add", "-q", *arguments], env=environment, check=True, capture_output=True)
