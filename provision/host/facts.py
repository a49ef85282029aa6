"""The facts of a host, read in one round trip by one POSIX shell script.

The host needs only a shell, systemd, procfs and the programs of :data:`provision.host.tools.LOOK`.
The script asks only what its probe names. What programs print there is sent as it is, in frames
whose end nobody but root can write, and is parsed here.

Its answer is data from outside: every field is parsed strictly, and a field that cannot be parsed
raises :class:`PreflightFailed`. So does a fact that could not be asked: it is unknown, never empty.
A fact that the probe did not name is unknown, too: who uses it gets :class:`NotAsked`.
"""

from __future__ import annotations

import abc
import base64
import enum
import functools
import math
import pathlib
import re
import secrets
import shlex
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar, cast

from provision.dataclass import dataclass
from provision.errors import Problem
from provision.host import safely, tools
from provision.ssh.session import Result, Unreachable
from provision.text import counted, printable, printable_lines

if TYPE_CHECKING:
    from provision.inventory.resolved import Machine

T = TypeVar("T")

#: A mark, set when something is written that needs a restart of a unit, until that restart. It is
#: below /run, because a reboot restarts the unit anyway.
STATE_DIR = "/run/alluxio-provision"
#: A batch holds this lock while it works. Observers wait for it, so they see a killed run's last
#: batch complete.
BATCH_LOCK = f"{STATE_DIR}/batch.lock"
#: Shell lines that make the folder. Nobody but root may open a lock in it: whoever can open a file,
#: for reading only, can lock it.
STATE_FOLDER = f"[ -d {STATE_DIR} ] || (umask 077; mkdir -p {STATE_DIR}); chmod go= {STATE_DIR}"
#: The script sends the content of files up to this size (bytes).
CONTENT_LIMIT = 256 << 10
BEGIN, END = "@@begin", "@@end"
#: Characters of a command's output that are kept.
OUTPUT_LIMIT = 65536


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


class NotAsked(AssertionError):
    """A defect: something uses a fact that the probe of its command does not name."""


class Kind(enum.Flag):
    """Facts about the host as a whole, which a probe names.

    ``HOST``: ``os``, ``arch``, ``hostname``, ``machine_id``, ``systemd`` and ``memory`` of
    :attr:`HostFacts.values`. ``CLOCK``: ``clock_offset``. ``ADDRESSES``: of its interfaces.
    """

    NONE = 0
    HOST = enum.auto()
    CLOCK = enum.auto()
    ADDRESSES = enum.auto()


#: What :mod:`provision.host.preflight` judges of every host.
PREFLIGHT = Kind.HOST | Kind.CLOCK


class Command(str):
    """A shell command of a probe. Where the shell command ``unless`` succeeds, it prints nothing,
    and is not run.

    ``roots``: all of its processes are root's. Only then its output may be the answer's own
    stream: a service's user could take a process over, and write what it likes.
    """

    __slots__ = ("roots", "unless")
    roots: bool
    unless: str

    def __new__(cls, text: str, *, roots: bool = False, unless: str = "") -> Command:
        made = super().__new__(cls, text)
        made.roots, made.unless = roots, unless
        return made


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

    None for a field: nobody uses these facts, and they stay unknown; an empty field: there are
    none. ``reach``: (address, port) pairs to connect to. ``resolve``: names to look up. ``disks``:
    paths; their file systems are measured. ``commands``: shell commands by label; their output (at
    most 64 KiB, with standard error) is returned. ``kinds``: facts about the host as a whole.
    ``own``: what ``$own`` is in the commands, by machine, so that hosts that differ in it share the
    probe and its script.
    """

    resources: Sequence[Observable] = ()
    ports: Sequence[int] | None = None
    disks: Sequence[str] | None = None
    paths: Sequence[str] = ()
    units: Sequence[str] = ()
    reach: Sequence[tuple[str, int]] | None = None
    resolve: Sequence[str] | None = None
    commands: Mapping[str, str] = field(default_factory=dict)
    kinds: Kind = Kind.NONE
    own: Mapping[Machine, str] = field(default_factory=dict)


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
    """A file system: sizes in bytes. ``mount`` is its mount point.

    What is neither ``used`` nor ``available`` is reserved for root. ``used`` None: nothing is.
    """

    path: str
    device: str
    kind: str
    total: int
    available: int
    mount: str = ""
    used: int | None = None

    @property
    def used_percent(self) -> int:
        """As df counts it (POSIX): a reserve is neither full nor room, and parts are rounded up."""
        used = self.total - self.available if self.used is None else self.used
        room = used + self.available
        return -(-100 * used // room) if room else 0


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
    addresses: AbstractSet[str]
    unreachable: Mapping[tuple[str, int], str]
    resolved: Mapping[str, str]
    pending_restarts: frozenset[str]
    commands: Mapping[str, str]
    ways: Mapping[str, Way] = field(default_factory=dict)
    #: The users that others have made, and for which there is no group of the same name.
    groupless: frozenset[str] = frozenset()
    #: Those of the probe's folders of disks in which root cannot write (or above which, if they are
    #: not there).
    unwritable: frozenset[str] = frozenset()
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


#: Puts small pieces of output together: "obs" is what dd(1) collects before it writes (POSIX). Each
#: line of a shell would be a packet of its own, for sshd and for us.
TOGETHER = "{ ! command -v dd >/dev/null || exec dd ibs=65536 obs=65536 2>/dev/null; exec cat; }"


def state_file(path: str) -> str:
    """Shell lines that make ``path`` in the state's folder, for root alone, if it is missing."""
    return (
        f"(umask 077; [ -d {STATE_DIR} ] || mkdir -p {STATE_DIR}; : >>{path})\n"
        f"chmod go= {STATE_DIR} {path}"
    )


def new_mark() -> str:
    """What ends the frames of one host's answer (:func:`calls`)."""
    return secrets.token_hex(8)


def script(probe: Probe, *, changes: bool = False, mark: str = "") -> str:
    """The shell script that observes ``probe``. It changes nothing. With ``changes``, it also asks
    for what the scripts need that change a host. Without ``mark`` it gets a new one."""
    mark = mark or new_mark()
    asked = calls(probe, mark, changes=changes)
    # It says at once that it is here: a host that hangs is known by its silence.
    return f"echo @@here\n{{\n{_library(asked.replace(mark, ''))}\n{asked}\n}} | {TOGETHER}"


def calls(probe: Probe, mark: str, *, changes: bool = False) -> str:
    """The part of :func:`script` that is of this probe: calls of the functions of ``facts.sh``.

    ``mark`` ends its frames. A service's user does not know it: nothing that it writes is an end.
    """
    q = shlex.quote
    look = _look(probe)
    lines = []
    lines.append(f"echo asked {mark} {' '.join(_asked(probe))}\nmark={mark}")
    if Kind.CLOCK in probe.kinds:
        lines.append("clock")
    if Kind.HOST in probe.kinds:
        lines.append("host")
    if Kind.ADDRESSES in probe.kinds:
        lines.append("addresses")
    if look.users:
        lines.append(f"users {' '.join(map(q, look.users))}")
    if look.paths:
        _require_lines(look.paths)
        wanted = "\n".join(look.contents)
        lines.append(f"wanted={q(wanted)}")
        every = (*look.paths, "/", *_folders(look.paths))
        lines.append(f"paths {' '.join(map(q, every))}")
    if look.hashes:
        lines.append(f"hashes {' '.join(map(q, look.hashes))}")
    if look.units:
        lines.append(f"units {' '.join(map(q, look.units))}")
    if probe.ports:
        lines += [f"listeners {' '.join(map(str, probe.ports))}", "connection_ports"]
    if probe.disks:
        _require_lines(probe.disks)
        lines.append(f"disks {' '.join(map(q, probe.disks))}")
    if changes:
        lines.append(tools.asked())
    if probe.resolve:
        lines += [*(f"lookup {q(name)} &" for name in probe.resolve), "wait"]
    if probe.reach:
        lines.append(f"reach {' '.join(f'{q(address)} {port:d}' for address, port in probe.reach)}")
    if any(map(safely.is_called, look.commands.values())):
        lines.append(safely.FUNCTIONS)
    for label, command in look.commands.items():
        lines.append(_framed(label, command, mark))
    lines.append(f"echo {END}")
    return "\n".join(lines)


def _asked(probe: Probe) -> list[str]:
    """The names of the kinds of facts that ``probe`` names, as the answer repeats them."""
    parts = {
        "host": Kind.HOST in probe.kinds,
        "clock": Kind.CLOCK in probe.kinds,
        "addresses": Kind.ADDRESSES in probe.kinds,
        "listeners": probe.ports is not None,
        "disks": probe.disks is not None,
        "unreachable": probe.reach is not None,
        "resolved": probe.resolve is not None,
    }
    return [name for name, is_asked in parts.items() if is_asked]


def _framed(label: str, command: str, mark: str) -> str:
    """Shell lines that print the output of ``command`` in a frame of its own."""
    q = shlex.quote
    unless, roots = (command.unless, command.roots) if isinstance(command, Command) else ("", False)
    # Without the script's own arguments: a command may use "$@".
    asked = f"( unset IFS; set +f; set --; {command} ) 2>&1 </dev/null"
    if not roots:
        asked = f"{safely.proven(command)}{asked} | head -c {OUTPUT_LIMIT}"
    if unless:
        asked = f"{{ {unless}; }} || {{ {asked}; }}"
    return f"echo command {q(label)}; {asked}\nprintf '\\n%s\\n' @@{mark}"


def _require_lines(paths: Iterable[str]) -> None:
    if any("\n" in path for path in paths):
        raise ValueError("a path has a line end")


def _folders(paths: Iterable[str]) -> list[str]:
    """All folders on the way to ``paths``, but for the root."""
    found: dict[str, None] = {}
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in found:
            found[path] = None
    return list(found)


def parse(
    result: Result,
    host: str,
    sent_at: float = -math.inf,
    received_at: float = math.inf,
    shared: Shared | None = None,
) -> HostFacts:
    """The facts in the script's output. Raises :class:`Unreachable` when it is incomplete.

    ``shared``: what other hosts have said. What they have in common is kept once.
    """
    # A line ends with a line feed alone: other characters may be in a name, a log or a target.
    _, begun, answer = b"\n".join([b"", result.body]).partition(f"\n{BEGIN}\n".encode())
    parser = _Parser(host, answer, shared or Shared())
    failed: Exception | None = None
    try:
        is_whole = bool(begun) and parser.read()
    except (ValueError, LookupError) as error:
        is_whole, failed = True, error
    if not is_whole:
        why = _why(result, host)
        raise Unreachable(f"{host}: no facts", [why], id=why.id)
    unknown = tools.unasked(parser.lacks, host, parser.is_systemd_silent, result.stderr)
    if unknown:
        raise Unreachable(f"{host}: {unknown[0].what}", unknown, id=unknown[0].id)
    try:
        if failed is not None:
            raise failed
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


_UNIT_KEYS = frozenset(
    {
        *("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts"),
        *("FragmentPath", "NeedDaemonReload"),
    }
)
#: A line of ``df -PTk``: a device's name and a mount point may have blanks.
_DF = re.compile(
    r"(?P<device>\S.*?) +(?P<kind>\S+) +(?P<total>\d+) +(?P<used>\d+) +(?P<available>\d+) +\S+ "
    r"+(?P<mount>/.*)"
)


class Shared:
    """Values that many hosts have in common, such as files with the same content. Thread-safe."""

    def __init__(self, values: Iterable[Hashable] = ()) -> None:
        self._seen: dict[Hashable, Hashable] = {value: value for value in values}

    def one(self, value: T) -> T:
        """``value``, or an equal one that was given before."""
        return cast(T, self._seen.setdefault(value, value))


class _Parser:
    """Reads an answer from :data:`BEGIN` on, line by line and frame by frame."""

    def __init__(self, host: str, answer: bytes, shared: Shared) -> None:
        self._answer, self._at, self._one = answer, 0, shared.one
        self.asked: frozenset[str] = frozenset()
        self.mark = ""
        self.values: dict[str, str] = {}
        #: What stat says, in the order of the question: the folders on the way come after "/".
        self.stats: list[tuple[str, PathState, int]] = []
        self.links: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.data: dict[str, bytes] = {}
        self.hashes: dict[str, str] = {}
        self.users: dict[str, str] = {}
        self.groupless: set[str] = set()
        self.unwritable: set[str] = set()
        self.units: dict[str, UnitState] = {}
        self.listeners: dict[int, Listener] = {}
        self.disks: dict[str, Disk] = {}
        self.measured: list[str] = []
        self.addresses: set[str] = set()
        self.unreachable: dict[tuple[str, int], str] = {}
        self.resolved: dict[str, str] = {}
        self.pending: set[str] = set()
        self.commands: dict[str, str] = {}
        self.ways: dict[str, Way] = {}
        self.serving: dict[int, str] = {}
        self.lacks: list[str] = []
        self.is_systemd_silent = False

    def read(self) -> bool:
        """Whether the answer is there up to its end."""
        while (line := self._line()) is not None:
            if line == END:
                return True
            self._take(line)
        return False

    def _line(self) -> str | None:
        """The next line, if it is there up to its end."""
        end = self._answer.find(b"\n", self._at)
        if end < 0:
            return None
        line = self._answer[self._at : end].decode(errors="replace")
        self._at = end + 1
        return line

    def _until(self, end: str) -> list[str]:
        """The lines of a frame, up to the line ``end``."""
        lines: list[str] = []
        while (line := self._line()) != end:
            if line is None:
                raise ValueError("a frame without an end")
            lines.append(line)
        return lines

    def _take(self, line: str) -> None:
        kind, _, rest = printable(line).partition(" ")
        match kind:
            case "asked":
                mark, *kinds = rest.split(" ")
                if self.mark or not mark:
                    raise ValueError("the names of its facts are not told once")
                self.mark, self.asked = mark, frozenset(kinds)
            case "fact":
                key, _, value = rest.partition("=")
                self.values[key] = self._one(value)
            case "stat":
                path, state, uid = _stat(rest)
                self.stats.append((self._one(path), state, uid))
            case "way":
                path, state, uid = _stat(rest)
                self.ways[path] = self._one(Way(state.kind, uid, state.mode))
            case "link":
                if (target := self._line()) is None:
                    raise ValueError("a link without a target")
                self.links[rest] = printable(target)
            case "size":
                path, _, text = _split(rest)
                self.sizes[path] = int(text)
                if self.sizes[path] < 0:
                    raise ValueError(f"{path} has {text} bytes")
            case "file":
                content = base64.b64decode("".join(self._until("")), validate=True)
                if len(content) <= CONTENT_LIMIT:
                    self.data[rest] = content
            case "data":
                self._contents(int(rest))
            case "hash":
                path, _, text = _split(rest)
                self.hashes[path] = text.split()[0]
            case "user":
                self.users[rest.split(":", 1)[0]] = self._one(rest)
            case "groupless":
                self.groupless.add(rest)
            case "units":
                self._units(self._until("@@"))
            case "listen":
                port, pid, command = rest.split(" ", 2)
                unit = self.serving.get(int(port), "")
                found = Listener(int(port), int(pid), command, unit)
                self.listeners.setdefault(int(port), found)
            case "serves":
                port, _, self.serving[int(port)] = rest.partition(" ")
            case "lacks":
                self.lacks.append(rest)
            case "unasked":
                self.is_systemd_silent = True
            case "unwritable":
                self.unwritable.add(rest)
            case "disk":
                self.measured.append(rest)
            case "df":
                self._df(self._until("@@"))
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
                self.commands[rest] = self._said()
            case _:
                raise ValueError(f"unexpected line {line[:80]!r}")

    def _contents(self, size: int) -> None:
        """The files' contents in one stream, in the order of their sizes."""
        end, frame = self._at + size, f"\n@@{self.mark}\n".encode()
        is_whole = size >= 0 and self._answer.startswith(frame, end)
        if not is_whole or sum(self.sizes.values()) != size:
            raise ValueError(f"there are not {sum(self.sizes.values())} bytes of files")
        for path, length in self.sizes.items():
            content = self._answer[self._at : self._at + length]
            self.data[path] = self._one(content)
            self._at += length
        self._at = end + len(frame)
        self.sizes = {}

    def _said(self) -> str:
        """The output of a command. The text stays as it is: its reader knows its form, such as
        tabs."""
        frame = f"\n@@{self.mark}\n".encode()
        end = self._answer.find(frame, self._at)
        if end < 0 or not self.mark:
            raise ValueError("a command's output without an end")
        kept = self._answer[self._at : min(end, self._at + OUTPUT_LIMIT)]
        self._at = end + len(frame)
        text = kept.decode(errors="replace")
        return text if not text or text.endswith("\n") else f"{text}\n"

    def _units(self, lines: Sequence[str]) -> None:
        every: list[dict[str, str]] = [{}]
        for line in lines:
            key, _, value = printable(line).partition("=")
            if not line:  # a blank line separates two units
                every.append({})
            elif key not in _UNIT_KEYS:
                raise ValueError(f"unexpected property {line[:80]!r}")
            else:
                every[-1][key] = value
        for u in every:
            if name := u.get("Id", ""):
                self.units[name] = UnitState(
                    load=u.get("LoadState", ""),
                    active=u.get("ActiveState", ""),
                    sub=u.get("SubState", ""),
                    file_state=u.get("UnitFileState", ""),
                    pid=int(u.get("MainPID") or 0),
                    restarts=int(u.get("NRestarts") or 0),
                    fragment=u.get("FragmentPath", ""),
                    needs_reload=u.get("NeedDaemonReload") == "yes",
                )

    def _df(self, lines: Sequence[str]) -> None:
        """One line for each of the paths, in their order, after a line of titles."""
        if len(lines) != len(self.measured) + 1:
            said = counted(len(lines), "line")
            raise ValueError(f"{said} of df for {counted(len(self.measured), 'disk')}")
        for path, line in zip(self.measured, lines[1:], strict=True):
            found = _DF.fullmatch(printable(line))
            if found is None:
                raise ValueError(f"df says {line[:80]!r}")
            total, used, available = (
                int(found[size]) << 10 for size in ("total", "used", "available")
            )
            self.disks[path] = Disk(
                path, found["device"], found["kind"], total, available, found["mount"], used
            )
        self.measured = []

    def _paths(self) -> dict[str, PathState]:
        """The state of the paths. What comes after the root is on their ways."""
        paths = [path for path, *_ in self.stats]
        last = len(paths) - 1 - paths[::-1].index("/") if "/" in paths else len(paths)
        for path, state, uid in self.stats[last:]:
            self.ways.setdefault(path, self._one(Way(state.kind, uid, state.mode)))
        found: dict[str, PathState] = {}
        for path, state, _ in self.stats[:last]:
            content = self.data.get(path)
            # Nothing at all of a file that has something: its user could not read it.
            if content == b"" and state.size:
                content = None
            sha256, target = self.hashes.get(path), self.links.get(path)
            if (content, sha256, target) != (None, None, None):
                plain = (state.kind, state.owner, state.group, state.mode, state.size)
                state = PathState(*plain, content, sha256, target)
            found[path] = self._one(state)
        return found

    def facts(self, sent_at: float, received_at: float) -> HostFacts:
        if self.sizes:
            raise ValueError("the contents of its files are missing")
        if self.measured:
            raise ValueError("the sizes of its disks are missing")
        offset = _offset(self.values["clock"], sent_at, received_at) if "clock" in self.asked else 0
        found = HostFacts(
            values=self.values,
            clock_offset=offset,
            paths=self._paths(),
            users=self.users,
            units=self.units,
            listeners=self.listeners,
            disks=self.disks,
            addresses=frozenset(self.addresses),
            unreachable=self.unreachable,
            resolved=self.resolved,
            pending_restarts=frozenset(self.pending),
            commands=self.commands,
            ways=self.ways,
            groupless=frozenset(self.groupless),
            unwritable=frozenset(self.unwritable),
            lacks=tuple(self.lacks),
        )
        return _only(found, self.asked)


def _stat(text: str) -> tuple[str, PathState, int]:
    """A path, its state, and its owner's number, from what stat says."""
    path, shape, uid, gid, mode, size, owner, group = text.rsplit("|", 7)
    owner = uid if owner == "UNKNOWN" else owner
    group = gid if group == "UNKNOWN" else group
    kind = KINDS["f" if shape[0] == "-" else shape[0]]
    return path, PathState(kind, owner, group, int(mode, 8), int(size)), int(uid)


def _offset(text: str, sent_at: float, received_at: float) -> float:
    whole, _, part = text.partition(".")
    # busybox's date has whole seconds only: its clock may be up to a second further.
    is_exact = part.isdecimal()
    clock = float(text if is_exact else whole)
    if not math.isfinite(clock):
        raise ValueError(f"clock reads {clock}")
    last = clock if is_exact else clock + 1
    if last < sent_at:
        return last - sent_at
    return max(0.0, clock - received_at)


def _split(rest: str) -> tuple[str, str, str]:
    left, bar, right = rest.rpartition("|")
    if not bar:
        raise ValueError(f"no separator in {rest[:80]!r}")
    return left, bar, right


def seen_by(probe: Probe, facts: HostFacts) -> HostFacts:
    """Of ``facts`` only those that ``probe`` names. All others are unknown."""
    return _only(facts, frozenset(_asked(probe)))


def is_known(fact: object) -> bool:
    """Whether ``fact`` was asked."""
    return not isinstance(fact, _Unknown | _UnknownNumber)


def _only(facts: HostFacts, asked: AbstractSet[str]) -> HostFacts:
    unknown: dict[str, Any] = {n: _Unknown(n) for n in _MAPPINGS if n not in asked}
    values: Mapping[str, str] = facts.values
    if "host" not in asked:
        values = _Values({k: v for k, v in values.items() if k not in HOST_VALUES})
    offset = facts.clock_offset if "clock" in asked else _UnknownNumber()
    changed: dict[str, Any] = {"values": values, "clock_offset": offset, **unknown}
    return replace(facts, **changed)


#: What :attr:`Kind.HOST` gives.
HOST_VALUES = frozenset({"os", "arch", "hostname", "machine_id", "systemd", "memory"})
_MAPPINGS = ("listeners", "disks", "addresses", "unreachable", "resolved")


def _not_asked(name: str) -> NoReturn:
    raise NotAsked(f"no probe of this command names {name}")


class _Unknown(Mapping[Any, Any]):
    """Stands for facts that were not asked."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getitem__(self, key: object) -> NoReturn:
        _not_asked(self._name)

    def __iter__(self) -> Iterator[Any]:
        _not_asked(self._name)

    def __len__(self) -> int:
        _not_asked(self._name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Unknown) and self._name == other._name

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f"<{self._name}: not asked>"


class _Values(dict[str, str]):
    """Values of a host that was not asked for all."""

    def get(self, key: str, default: Any = None) -> Any:
        known = key in self
        return self[key] if known else default

    def __contains__(self, key: object) -> bool:
        if key in HOST_VALUES:
            _not_asked(str(key))
        return super().__contains__(key)

    def __missing__(self, key: str) -> NoReturn:
        if key in HOST_VALUES:
            _not_asked(key)
        raise KeyError(key)


class _UnknownNumber(float):
    """Stands for a number that was not asked."""

    def _use(self, *_: object) -> NoReturn:
        _not_asked("the clock")

    __neg__ = __abs__ = __add__ = __radd__ = __sub__ = __rsub__ = _use
    __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __format__ = _use

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _UnknownNumber)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "<clock: not asked>"


def merged(probes: Iterable[Probe]) -> Probe:
    """One probe that looks at all of ``probes``: a host with several roles is asked once."""
    every = list(probes)
    return Probe(
        resources=[r for p in every for r in p.resources],
        ports=_joined(p.ports for p in every),
        disks=_joined(p.disks for p in every),
        paths=_once(x for p in every for x in p.paths),
        units=_once(x for p in every for x in p.units),
        reach=_joined(p.reach for p in every),
        resolve=_joined(p.resolve for p in every),
        commands={k: v for p in every for k, v in p.commands.items()},
        kinds=functools.reduce(Kind.__or__, (p.kinds for p in every), Kind.NONE),
        own={k: v for p in every for k, v in p.own.items()},
    )


def merged_each(
    first: Mapping[Machine, Probe], second: Mapping[Machine, Probe]
) -> dict[Machine, Probe]:
    """For each machine of ``first`` its two probes in one. Machines that share both share that."""
    made: dict[tuple[int, int], Probe] = {}
    found = {}
    for machine, probe in first.items():
        pair = (id(probe), id(second[machine]))
        if pair not in made:
            made[pair] = merged([probe, second[machine]])
        found[machine] = made[pair]
    return found


def _joined(parts: Iterable[Sequence[T] | None]) -> list[T] | None:
    """All of ``parts``, each item once; None when nobody asks."""
    asked = [part for part in parts if part is not None]
    return _once(x for part in asked for x in part) if asked else None


def _once(items: Iterable[object]) -> list:  # type: ignore[type-arg]
    return list(dict.fromkeys(items))


#: Functions of ``facts.sh``, and what is between them.
_PARTS = re.compile(r"^(?:(\w+)\(\) \{(?: .*\}\n|\n(?:.*\n)*?\}\n)|.*\n)", re.MULTILINE)


@functools.cache
def _parts() -> tuple[tuple[str, str], ...]:
    """The parts of ``facts.sh`` without its comments: a function with its name, or a line."""
    text = re.sub(r"^ *#.*\n| +# .*$", "", _facts_script(), flags=re.MULTILINE)
    return tuple((found[1] or "", found[0]) for found in _PARTS.finditer(text))


@functools.lru_cache(maxsize=64)
def _needed(words: frozenset[str]) -> str:
    """``facts.sh`` with those of its functions that ``words`` call, and that these call."""
    parts = _parts()
    texts = {name: text for name, text in parts if name}
    used: set[str] = set()
    coming = [words, *(set(_WORD.findall(text)) for name, text in parts if not name)]
    while coming:
        for name in (coming.pop() & texts.keys()) - used:
            used.add(name)
            coming.append(set(_WORD.findall(texts[name])))
    return "".join(text for name, text in parts if not name or name in used)


_WORD = re.compile(r"\w+")


@functools.lru_cache(maxsize=64)  # hosts with the same role are asked the same
def _library(asked: str) -> str:
    """What ``asked`` needs of ``facts.sh``: a host gets no more."""
    names = {name for name, _ in _parts() if name}
    return _needed(frozenset(names.intersection(_WORD.findall(asked))))


@functools.cache
def _facts_script() -> str:
    return (pathlib.Path(__file__).parent / "facts.sh").read_text(encoding="utf-8")
