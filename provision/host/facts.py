"""The facts of a host, read in one round trip by one POSIX shell script.

The host needs only a shell, systemd, procfs and the programs of :data:`provision.host.tools.LOOK`.
Its answer is data from outside: every field is parsed strictly, and a field that cannot be parsed
raises :class:`PreflightFailed`. So does a fact that could not be asked: it is unknown, never empty.
"""

from __future__ import annotations

import abc
import base64
import functools
import math
import pathlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from provision.errors import Problem
from provision.host import safely, tools
from provision.ssh.session import Result, Unreachable
from provision.text import printable, printable_lines

#: A mark, set when something is written that needs a restart of a unit, until that restart. It is
#: below /run, because a reboot restarts the unit anyway.
STATE_DIR = "/run/alluxio-provision"
#: A batch holds this lock while it works. Observers wait for it, so they see a killed run's last
#: batch complete.
BATCH_LOCK = f"{STATE_DIR}/batch.lock"
#: Shell lines that make the folder. Nobody but root may open a lock in it: whoever can open a file,
#: for reading only, can lock it.
STATE_FOLDER = f"(umask 077; mkdir -p {STATE_DIR}); chmod 0700 {STATE_DIR}"
#: The script sends the content of files up to this size (bytes).
CONTENT_LIMIT = 256 << 10
BEGIN, END = "@@begin", "@@end"


def restart_mark(unit: str) -> str:
    """The file that marks a restart of ``unit`` as pending (``pending_restarts``)."""
    return f"{STATE_DIR}/restart.{unit}"


#: A file's type by find's letter for it.
KINDS = {
    "f": "file",
    "d": "dir",
    "l": "link",
    "p": "fifo",
    "s": "socket",
    "b": "block device",
    "c": "character device",
}


@dataclass(frozen=True, slots=True)
class Look:
    """The part of the facts that a resource needs. The script has a command for each field.

    ``contents`` are the paths in ``paths`` whose content is needed, ``hashes`` those of which the
    SHA-256 is enough. ``commands``: shell commands by label (:class:`Probe`).
    """

    paths: Sequence[str] = ()
    contents: Sequence[str] = ()
    hashes: Sequence[str] = ()
    users: Sequence[str] = ()
    units: Sequence[str] = ()
    commands: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """A path, and the types of file that can be there before a change. ``noun`` names them."""

    path: str
    noun: str
    kinds: Sequence[str]


class Observable(abc.ABC):
    """A part of a host's state: how to observe it, and what the facts are when it is true."""

    __slots__ = ()

    #: Whether it is made true after everything else on the host.
    last: ClassVar[bool] = False

    @abc.abstractmethod
    def look(self) -> Look:
        """The facts that it needs."""

    @abc.abstractmethod
    def after(self, facts: HostFacts) -> HostFacts:
        """The facts when it is true; ``facts`` itself when it is true now."""

    def place(self) -> Place | None:
        """The path at which a file of another type is in the way. None when there is no such
        path."""
        return None


@dataclass(frozen=True, slots=True)
class Probe:
    """What to look at, in addition to the host itself.

    ``reach``: (address, port) pairs to connect to. ``resolve``: names to look up. ``disks``: paths;
    their file systems are measured. ``commands``: shell commands by label; their output (at most
    64 KiB, with standard error) is returned. ``addresses``: whether to list the addresses of the
    host's interfaces.
    """

    resources: Sequence[Observable] = ()
    ports: Sequence[int] = ()
    disks: Sequence[str] = ()
    paths: Sequence[str] = ()
    units: Sequence[str] = ()
    reach: Sequence[tuple[str, int]] = ()
    resolve: Sequence[str] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    addresses: bool = True


@dataclass(frozen=True, slots=True)
class PathState:
    """The state of a path. ``content`` is set for small files that the probe asked for."""

    kind: str  # "file", "dir", "link", or another file type's name
    owner: str
    group: str
    mode: int
    size: int
    content: bytes | None = None
    sha256: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """A folder on the way to an observed path. ``kind`` is as in :class:`PathState`, ``uid`` its
    owner's number."""

    kind: str
    uid: int
    mode: int

    @property
    def is_roots(self) -> bool:
        """Whether only root can change names in it. In a folder with the sticky bit, nobody else
        can change the names of root's own files and folders."""
        return self.uid == 0 and (not self.mode & 0o002 or bool(self.mode & 0o1000))


@dataclass(frozen=True, slots=True)
class Listener:
    port: int
    pid: int
    command: str
    #: The service of systemd to which the process belongs, if any.
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system: sizes in bytes. ``mount`` is its mount point."""

    path: str
    device: str
    kind: str
    total: int
    available: int
    mount: str = ""

    @property
    def used_percent(self) -> int:
        return round(100 * (self.total - self.available) / self.total) if self.total else 0


@dataclass(frozen=True, slots=True)
class UnitState:
    """A systemd unit, with the values of ``systemctl show``."""

    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    file_state: str = ""
    pid: int = 0
    restarts: int = 0
    fragment: str = ""
    needs_reload: bool = False


@dataclass(frozen=True, slots=True)
class HostFacts:
    """A host as observed.

    ``clock_offset`` is the host's clock minus this machine's clock in seconds, as far as the round
    trip proves it: a host time between sending and receiving gives 0.
    """

    values: Mapping[str, str]
    clock_offset: float
    paths: Mapping[str, PathState]
    users: Mapping[str, str]
    units: Mapping[str, UnitState]
    listeners: Mapping[int, Listener]
    disks: Mapping[str, Disk]
    addresses: frozenset[str]
    unreachable: Mapping[tuple[str, int], str]
    resolved: Mapping[str, str]
    pending_restarts: frozenset[str]
    commands: Mapping[str, str]
    ways: Mapping[str, Way] = field(default_factory=dict)
    #: What its programs lack that changes need (:mod:`provision.host.tools`).
    lacks: tuple[str, ...] = ()

    def text(self, path: str) -> str | None:
        """The content of an observed file, or None when the file is missing or is not text."""
        found = self.paths.get(path)
        if found is None or found.content is None:
            return None
        try:
            return found.content.decode()
        except UnicodeDecodeError:
            return None

    def unit(self, name: str) -> UnitState:
        return self.units.get(name, UnitState())


def script(probe: Probe, *, changes: bool = False) -> str:
    """The shell script that observes ``probe``. It changes nothing. With ``changes``, it also asks
    for what the scripts need that change a host."""
    q = shlex.quote
    look = _look(probe)
    lines = [_facts_script()]
    if changes:
        lines.append(tools.asked())
    if probe.addresses:
        lines.append("addresses")
    if look.users:
        names = " ".join(map(q, look.users))
        lines += [f"users {names}", f"services {names}"]
    if look.paths:
        wanted = "".join(f"\n{path}" for path in (*look.contents, ""))
        lines.append(f"wanted={q(wanted)}")
        lines.append(f"paths {' '.join(map(q, look.paths))}")
    if look.hashes:
        lines.append(f"hashes {' '.join(map(q, look.hashes))}")
    if look.units:
        lines.append(f"units {' '.join(map(q, look.units))}")
    if probe.ports:
        lines.append(f"listeners {' '.join(str(p) for p in probe.ports)}")
    if probe.disks:
        lines.append(f"disks {' '.join(map(q, probe.disks))}")
    for name in probe.resolve:
        lines.append(f"lookup {q(name)} &")
    for address, port in probe.reach:
        lines.append(f"reach {q(address)} {port:d} &")
    if probe.resolve or probe.reach:
        lines.append("wait")
    if look.commands:
        lines.append(safely.FUNCTIONS)
    for label, command in look.commands.items():
        # Without the script's own arguments: a command may use "$@".
        asked = f"( set --; {command} ) 2>&1 </dev/null"
        lines.append(f"echo command {q(label)}; {asked} | said {q(label)}")
    lines.append(f"echo {END}")
    return "\n".join(lines)


def parse(
    result: Result, host: str, sent_at: float = -math.inf, received_at: float = math.inf
) -> HostFacts:
    """The facts in the script's output. Raises :class:`Unreachable` when it is incomplete."""
    # A line ends with a line feed alone: other characters may be in a name, a log or a target.
    lines = result.stdout.split("\n")
    if BEGIN not in lines or END not in lines:
        why = _why(result, host)
        raise Unreachable(f"{host}: no facts", [why], id=why.id)
    parser = _Parser(host)
    body = lines[lines.index(BEGIN) + 1 : lines.index(END)]
    unknown = tools.unasked(body, host, result.stderr)
    if unknown:
        raise Unreachable(f"{host}: {unknown[0].what}", unknown, id=unknown[0].id)
    try:
        for line in body:
            parser.line(line)
        return parser.facts(sent_at, received_at)
    except (ValueError, LookupError) as error:
        what = f"its answer cannot be read: {printable(str(error), 200)}"
        problem = Problem(host, what, "run again with -v", id="host-output-unreadable")
        raise Unreachable(
            f"{host}: unreadable facts", [problem], id="host-output-unreadable"
        ) from error


def _look(probe: Probe) -> Look:
    """Everything that ``probe`` and its resources need, each path and name once."""
    own = Look(paths=probe.paths, units=probe.units, commands=probe.commands)
    every = [own, *(resource.look() for resource in probe.resources)]
    return Look(
        paths=_once(x for look in every for x in look.paths),
        contents=_once(x for look in every for x in look.contents),
        hashes=_once(x for look in every for x in look.hashes),
        users=_once(x for look in every for x in look.users),
        units=_once(x for look in every for x in look.units),
        commands={k: v for look in every for k, v in look.commands.items()},
    )


def _why(result: Result, host: str) -> Problem:
    last = printable((printable_lines(result.stderr, last=1) or ["no output"])[0], 200)
    return Problem(
        host, f"the facts script failed: {last}", "run again with -v", id="host-output-unreadable"
    )


class _Parser:
    def __init__(self, host: str) -> None:
        self.values: dict[str, str] = {}
        self.stats: dict[str, PathState] = {}
        self.links: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.data: dict[str, bytes] = {}
        self.hashes: dict[str, str] = {}
        self.users: dict[str, str] = {}
        self.units: dict[str, dict[str, str]] = {}
        self.unit: dict[str, str] = {}
        self.listeners: dict[int, Listener] = {}
        self.disks: dict[str, Disk] = {}
        self.addresses: set[str] = set()
        self.unreachable: dict[tuple[str, int], str] = {}
        self.resolved: dict[str, str] = {}
        self.pending: set[str] = set()
        self.commands: dict[str, list[str]] = {}
        self.ways: dict[str, Way] = {}
        self.serving: dict[int, str] = {}
        self.lacks: list[str] = []

    def line(self, line: str) -> None:
        kind, _, rest = printable(line).partition(" ")
        match kind:
            case "fact":
                key, _, value = rest.partition("=")
                self.values[key] = value
            case "stat":
                path, shape, owner, group, mode, size = rest.rsplit("|", 5)
                self.stats[path] = PathState(KINDS[shape], owner, group, int(mode, 8), int(size))
            case "way":
                path, shape, owner, mode = rest.rsplit("|", 3)
                self.ways[path] = Way(KINDS[shape], int(owner.split()[0]), int(mode, 8))
            case "link":
                path, _, self.links[path] = _split(rest)
            case "size":
                path, _, text = _split(rest)
                self.sizes[path] = int(text)
                if self.sizes[path] < 0:
                    raise ValueError(f"{path} has {text} bytes")
            case "file":
                path, _, text = _split(rest)
                content = base64.b64decode(text, validate=True)
                # Nothing at all of a file that has something: its user could not read it.
                if len(content) <= CONTENT_LIMIT and (content or not self.stats[path].size):
                    self.data[path] = content
            case "data":
                self._contents(base64.b64decode(rest, validate=True))
            case "hash":
                path, _, text = _split(rest)
                self.hashes[path] = text.split()[0]
            case "user":
                self.users[rest.split(":", 1)[0]] = rest
            case "unit":
                self._unit(rest)
            case "listen":
                port, pid, command = rest.split(" ", 2)
                unit = self.serving.get(int(port), "")
                found = Listener(int(port), int(pid), command, unit)
                self.listeners.setdefault(int(port), found)
            case "serves":
                port, _, self.serving[int(port)] = rest.partition(" ")
            case "lacks":
                self.lacks.append(rest)
            case "disk":
                path, device, shape, total, available, mount = rest.rsplit("|", 5)
                self.disks[path] = Disk(path, device, shape, int(total), int(available), mount)
            case "address":
                self.addresses.add(rest)
            case "unreachable":
                address, port, why = rest.split(" ", 2)
                self.unreachable[address, int(port)] = why
            case "resolved":
                name, _, address = rest.partition(" ")
                self.resolved[name] = address
            case "pending":
                self.pending.add(rest)
            case "command":
                self.commands[rest] = []
            case "said":
                label = rest.partition("|")[0]
                # The text stays as it is: the reader of a command's output knows its form, such as
                # tabs.
                self.commands[label].append(line.partition("|")[2] + "\n")
            case _:
                raise ValueError(f"unexpected line {line[:80]!r}")

    def _contents(self, data: bytes) -> None:
        """The files' contents in one stream, in the order of their sizes."""
        if sum(self.sizes.values()) != len(data):
            raise ValueError(f"{len(data)} bytes of files, not {sum(self.sizes.values())}")
        start = 0
        for path, size in self.sizes.items():
            self.data[path] = data[start : start + size]
            start += size
        self.sizes = {}

    def _unit(self, rest: str) -> None:
        if not rest:  # a blank line separates two units
            self.unit = {}
            return
        key, _, value = rest.partition("=")
        self.unit[key] = value
        if key == "Id":
            self.units[value] = self.unit

    def facts(self, sent_at: float, received_at: float) -> HostFacts:
        if self.sizes:
            raise ValueError("the contents of its files are missing")
        paths = {
            path: PathState(
                found.kind,
                found.owner,
                found.group,
                found.mode,
                found.size,
                self.data.get(path),
                self.hashes.get(path),
                self.links.get(path),
            )
            for path, found in self.stats.items()
        }
        units = {
            name: UnitState(
                load=u.get("LoadState", ""),
                active=u.get("ActiveState", ""),
                sub=u.get("SubState", ""),
                file_state=u.get("UnitFileState", ""),
                pid=int(u.get("MainPID") or 0),
                restarts=int(u.get("NRestarts") or 0),
                fragment=u.get("FragmentPath", ""),
                needs_reload=u.get("NeedDaemonReload") == "yes",
            )
            for name, u in self.units.items()
        }
        return HostFacts(
            values=self.values,
            clock_offset=_offset(self.values["clock"], sent_at, received_at),
            paths=paths,
            users=self.users,
            units=units,
            listeners=self.listeners,
            disks=self.disks,
            addresses=frozenset(self.addresses),
            unreachable=self.unreachable,
            resolved=self.resolved,
            pending_restarts=frozenset(self.pending),
            commands={label: "".join(said) for label, said in self.commands.items()},
            ways=self.ways,
            lacks=tuple(self.lacks),
        )


def _offset(text: str, sent_at: float, received_at: float) -> float:
    clock = float(text)
    if not math.isfinite(clock):
        raise ValueError(f"clock reads {clock}")
    # busybox's date has whole seconds only: its clock may be up to a second further.
    last = clock if "." in text else clock + 1
    if last < sent_at:
        return last - sent_at
    return max(0.0, clock - received_at)


def _split(rest: str) -> tuple[str, str, str]:
    left, bar, right = rest.rpartition("|")
    if not bar:
        raise ValueError(f"no separator in {rest[:80]!r}")
    return left, bar, right


def merged(probes: Iterable[Probe]) -> Probe:
    """One probe that looks at all of ``probes``: a host with several roles is asked once."""
    every = list(probes)
    return Probe(
        resources=[r for p in every for r in p.resources],
        ports=_once(x for p in every for x in p.ports),
        disks=_once(x for p in every for x in p.disks),
        paths=_once(x for p in every for x in p.paths),
        units=_once(x for p in every for x in p.units),
        reach=_once(x for p in every for x in p.reach),
        resolve=_once(x for p in every for x in p.resolve),
        commands={k: v for p in every for k, v in p.commands.items()},
        addresses=any(p.addresses for p in every),
    )


def _once(items: Iterable[object]) -> list:  # type: ignore[type-arg]
    return list(dict.fromkeys(items))


@functools.cache
def _facts_script() -> str:
    return (pathlib.Path(__file__).parent / "facts.sh").read_text(encoding="utf-8")
