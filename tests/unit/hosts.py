"""Hosts for tests: as values, and as folders of this machine on which the real scripts run."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import pwd
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from provision.alluxio.worker.tarball import CLI, CONFIG, LAUNCHERS, VERSION, Contents
from provision.artifacts import Artifact
from provision.engine.audit import HOST_DIR
from provision.host import former_owner
from provision.host.diff import Change, batch
from provision.host.facts import STATE_DIR, Disk, HostFacts, PathState, Probe, parse
from provision.host.facts import script as facts_script
from provision.host.resources import Resource
from provision.host.tool_version import FOLDER
from provision.inventory.resolved import Machine
from provision.ssh.session import Fleet, Held, Result, Session, Stats, whole

ME = pwd.getpwuid(os.getuid()).pw_name
GIB = 1 << 30
TARBALL = Artifact(Path("release.tar.gz"), "a" * 64, 10 << 20)
#: What an Alluxio release holds that does not say its version.
RELEASE = Contents(tuple(sorted((CLI, CONFIG, LAUNCHERS[0], VERSION))), conf=True)


def facts(number: int = 1, **changed: Any) -> HostFacts:
    """A good, empty host, unlike the host of any other ``number``."""
    values: dict[str, Any] = {
        "values": {
            "uid": "0",
            "arch": "x86_64",
            "systemd": "252",
            "hostname": f"host{number}",
            "machine_id": f"{number:032x}",
            "memory": str(64 * GIB),
        },
        "clock_offset": 0.0,
        "paths": {},
        "users": {},
        "units": {},
        "listeners": {},
        "disks": {path: disk(path, 90 * GIB) for path in FOLDERS},
        "addresses": frozenset({f"10.0.0.{number}"}),
        "unreachable": {},
        "resolved": {},
        "pending_restarts": frozenset(),
        "commands": {"java": 'openjdk version "11.0.20" 2023-07-18'},
    }
    changed["values"] = values["values"] | changed.get("values", {})
    return HostFacts(**{**values, **changed})


#: Where members and workers have their files when an inventory says nothing else.
FOLDERS = ("/opt/etcd", "/var/lib/etcd", "/opt/alluxio", "/var/lib/alluxio", "/opt/java")


def disk(path: str, available: int, total: int = 100 * GIB, device: str = "/dev/sda1") -> Disk:
    return Disk(path, device, "ext4", total, available)


def text(content: str, mode: int = 0o644) -> PathState:
    return PathState("file", "root", "root", mode, len(content), content.encode())


def with_unit(facts: HostFacts, name: str, **changed: Any) -> HostFacts:
    """``facts``, with the unit of that name otherwise."""
    return replace(facts, units={**facts.units, name: replace(facts.unit(name), **changed)})


def shell(script: str, root: Path, **options: Any) -> Result:
    """Run ``script`` as a host would get it, but with its state and its log below ``root``."""
    return run(whole(below(root, script)).encode(), root, **options)


def below(root: Path, script: str) -> str:
    """``script`` with its state, its audit log and its version below ``root``."""
    script = script.replace(STATE_DIR, f"{root}/.state").replace(HOST_DIR, f"{root}/.log")
    return script.replace(FOLDER, f"{root}/.version")


def run(script: bytes, root: Path, sh: tuple[str, ...] = ("sh",)) -> Result:
    done = subprocess.run([*sh, "-s"], input=script, capture_output=True, cwd=root, timeout=30)
    out, err = (said.decode(errors="replace") for said in (done.stdout, done.stderr))
    return Result(done.returncode, out, err, 0.0, done.stdout)


def look(resources: Iterable[Resource], root: Path) -> HostFacts:
    """This machine's facts, by the real script."""
    return parse(shell(facts_script(Probe(resources=tuple(resources))), root), "here")


def tarball(folder: Path) -> Artifact:
    """A real one, of a release with one tool."""
    path = folder / "r.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("release-1/bin/tool")
        entry.size, entry.mode = 5, 0o755
        archive.addfile(entry, io.BytesIO(b"hello"))
    body = path.read_bytes()
    return Artifact(path, hashlib.sha256(body).hexdigest(), len(body))


def given(folder: Path) -> Path:
    """``folder`` with all in it, given to another user than root: a service's folder is never
    root's."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, "daemon", "daemon")
    return folder


def sent(*records: str) -> str:
    """``records`` as :mod:`provision.host.listing` sends them."""
    return base64.b64encode("".join(f"{r}\0" for r in records).encode()).decode()


def made(root: Path, *folders: Path) -> None:
    """Note on the host of ``root`` that the tool has made these folders."""
    assert shell("\n".join(former_owner.made(str(f)) for f in folders), root).ok


def do(todo: Iterable[Change], root: Path) -> Result:
    return shell(batch(tuple(todo)), root)


class _Pipe:
    """Of a paramiko channel what :class:`provision.ssh.session.Held` uses, to a local process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.status_event = threading.Event()

    @property
    def closed(self) -> bool:
        return self._process.poll() is not None

    def exit_status_ready(self) -> bool:
        return self._process.poll() is not None

    def sendall(self, data: bytes) -> None:
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), data)

    def shutdown_write(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        self.status_event.set()

    def close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()


def _no_ssh(machine: Machine) -> NoReturn:
    raise AssertionError(f"a connection to {machine} was opened")


class LocalSession(Session):
    """A session to a folder of this machine, which has a state folder of its own."""

    def __init__(self, machine: Machine, root: Path) -> None:
        super().__init__(machine, Stats(), _no_ssh)
        self.root = root
        self.asked: list[str] = []
        #: The seconds that each of them was given, locks aside.
        self.given: list[float] = []
        self.held: list[Held] = []

    def open(self) -> None:
        """There is no connection to be made."""

    def run(self, script: str, what: str, *, timeout: float = 120, prompt: bool = False) -> Result:
        self.asked.append(what)
        self.given.append(timeout)
        return shell(script, self.root)

    def feed(
        self,
        command: str,
        body: IO[bytes],
        what: str,
        *,
        timeout: float = 120,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Result:
        self.asked.append(what)
        self.given.append(timeout)
        content = body.read()
        local = below(self.root, command)
        done = subprocess.run(
            ["sh", "-c", local], input=content, capture_output=True, cwd=self.root, timeout=30
        )
        if on_bytes is not None:
            on_bytes(len(content))
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode(), 0.0)

    def hold(self, script: str, what: str, *, timeout: float = 120.0) -> Held:
        self.asked.append(what)
        process = subprocess.Popen(
            ["sh", "-c", below(self.root, script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        greeting = process.stdout.readline().decode().rstrip("\n")
        self.held.append(Held(cast(Any, _Pipe(process)), greeting))
        return self.held[-1]


class LocalFleet(Fleet):
    """The real fan-out over :class:`LocalSession`, one folder a machine."""

    def __init__(self, root: Path, parallel: int = 4) -> None:
        super().__init__(parallel)
        self._root = root
        self.local: dict[Machine, LocalSession] = {}

    def session(self, machine: Machine) -> LocalSession:
        if machine not in self.local:
            folder = self._root / machine.host
            folder.mkdir(exist_ok=True)
            self.local[machine] = LocalSession(machine, folder)
        return self.local[machine]
