"""SSH, in one place: sessions over Fabric, scripts in one round trip, uploads, fan-out, tunnels.

A *round trip* is one remote command: one channel is opened, gets its input, and is read to its end.
Everything that the tool does on a host is a POSIX shell script, sent on standard input. So no
secret is on a command line, and a script that arrives cut short runs nothing (see :func:`whole`).
The login shell, root, the environment and the marks of an answer are :mod:`provision.ssh.remote`'s.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import field, replace
from typing import IO, TYPE_CHECKING, NoReturn, Protocol, TypeVar

from provision import bounds, progress
from provision.dataclass import dataclass
from provision.errors import PreflightFailed, Problem, ProvisionError
from provision.ids import Id
from provision.inventory.resolved import Machine
from provision.ssh.passwords import Passwords
from provision.ssh.remote import Answer, Marks, command_line, own_errors, refusal
from provision.text import LINE_LIMIT, printable, size

if TYPE_CHECKING:
    import paramiko
    from fabric import Connection

    from provision.ssh.connect import Connector, Forwarding

T = TypeVar("T")

#: The package that speaks SSH. It comes with Fabric: the requirements of this tool do not name it.
LIBRARY = "paramiko"

# paramiko logs the same errors that it raises; without a handler they go to the operator's screen.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

DEFAULT_TIMEOUT = 120.0
#: Connections to one host. With MaxSessions 1 each has one command: the run lock, a scratch member,
#: and what is done beside them.
MOST_CONNECTIONS = 4
#: With more machines than this, a connection is closed after the look at its machine: it takes
#: memory, a thread and a file descriptor, and most machines of a large fleet need no second round
#: trip.
MANY = 100
#: Upload chunk, bytes: large enough to fill SSH's window, small enough to bound memory.
CHUNK = 1 << 18
MAX_GREETING = 4096
#: Seconds until a command on a host has connected.
RELAY_TIMEOUT = 10.0
#: bash has no way to close one direction only: when one of the two ends, so does the other.
_RELAY = """\
exec bash -c '
exec 4<&0 3<>/dev/tcp/{address}/{port} || exit 1
echo connected
cat <&3 &
cat <&4 >&3 &
wait -n
kill %1 %2' 2>/dev/null"""
#: Seconds between two looks at how much a silent host has sent elsewhere.
LOOK = 1.0
#: A multiple of a machine's connect_timeout: after the login, a host may be silent for so long.
PATIENCE = 3


class Unreachable(PreflightFailed):
    """A host is unreachable over SSH: network, host key, login, or it stopped answering.

    ``forwarding``: why an SSH server opened no TCP stream; None after any other failure.
    """

    def __init__(
        self,
        message: str,
        problems: Sequence[Problem] = (),
        *,
        id: Id,
        forwarding: Forwarding | None = None,
    ) -> None:
        super().__init__(message, problems, id=id)
        self.forwarding = forwarding


class Stream(Protocol):
    """A TCP stream: a socket, or a stream that a host opens (:meth:`Session.open_tcp`).

    The methods do what a socket's do; ``settimeout`` takes seconds.
    """

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> None: ...
    def settimeout(self, seconds: float, /) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a remote script. ``seconds`` is wall time, measured here. ``raw``: the bytes of
    ``stdout``, if they are known."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    raw: bytes | None = field(default=None, repr=False)

    @property
    def body(self) -> bytes:
        """The bytes of the output."""
        return self.stdout.encode() if self.raw is None else self.raw

    @property
    def ok(self) -> bool:
        return self.code == 0


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """One round trip, for ``--stats`` and ``-v``."""

    host: str
    what: str
    seconds: float
    sent: int
    received: int
    #: The command's exit code; None while the command runs on.
    code: int | None = None
    #: What the login shell has printed beside the answer.
    noise: str = ""


@dataclass(slots=True)
class Stats:
    """Round trips of a run. Thread-safe: ``list.append`` is atomic."""

    calls: list[RoundTrip] = field(default_factory=list)
    on_call: Callable[[RoundTrip], None] | None = None
    #: The round trips that did not end: host, what, why.
    broken: list[tuple[str, str, str]] = field(default_factory=list)
    #: The last facts of each host (:class:`provision.host.facts.HostFacts`).
    facts: dict[Machine, object] = field(default_factory=dict)

    def add(self, call: RoundTrip) -> None:
        self.calls.append(call)
        if self.on_call is not None:
            self.on_call(call)

    def per_host(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for call in self.calls:
            counts[call.host] = counts.get(call.host, 0) + 1
        return counts


def whole(script: str) -> str:
    """``script`` in a form that the shell runs completely, or not at all if it arrives cut
    short."""
    return "main() {\n:\n" + script + "\n}\nmain\n"


class Session:
    """An SSH connection to one machine, opened on first use and reused.

    All errors of the connection are :class:`Unreachable` with the host, the inventory line and the
    remedy. A remote command that fails is a :class:`Result`, not an error.
    """

    def __init__(
        self,
        machine: Machine,
        stats: Stats,
        connect: Callable[[Machine], Connection],
        passwords: Passwords | None = None,
    ) -> None:
        self.machine = machine
        self._stats = stats
        self._connect = connect
        self._passwords = passwords or Passwords()
        self._refused: Unreachable | None = None
        self._patience = PATIENCE * machine.connect_timeout
        self._connection: Connection | None = None
        #: The connection that was begun before the first use.
        self._begun: Future[paramiko.Transport] | None = None
        #: For commands that the first connection has no session for.
        self._more: list[Connection] = []
        self._opening = threading.Lock()
        self._ended = False
        self._lasting = False

    def begin(self, pool: Executor) -> None:
        """Connect in a thread of ``pool``. The first use waits for the connection, and has its
        error: a second attempt would be a second refused login."""
        self._begun = pool.submit(self._opened)

    def open(self) -> None:
        """Connect now. Raises :class:`Unreachable`."""
        try:
            with progress.calling(self.machine.endpoint, "connect", self._patience):
                self._transport()
        except (OSError, EOFError, _ssh_error()) as error:
            raise self._unreachable(error) from error

    def run(
        self, script: str, what: str, *, timeout: float = DEFAULT_TIMEOUT, prompt: bool = False
    ) -> Result:
        """Run a shell script as root in one round trip; at most ``timeout`` seconds in all.

        A ``prompt`` script prints something at once: a host without this output hangs.
        """
        first = self._patience if prompt else timeout
        with progress.calling(self.machine.endpoint, what, timeout):
            return self._exec("sh -s", whole(script).encode(), what, timeout, first=first)

    def feed(
        self,
        command: str,
        body: IO[bytes],
        what: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Result:
        """Run ``command`` as root with ``body`` on its standard input, in one round trip.

        ``timeout`` limits the silence, not the whole time: a large upload may take long. The
        command is visible in the host's process list and must have no secret in it.
        """
        with progress.calling(self.machine.endpoint, what, None, of=_size(body)) as shown:

            def sent(count: int) -> None:
                shown.add(count)
                if on_bytes is not None:
                    on_bytes(count)

            return self._exec(f"sh -c {shlex.quote(command)}", body, what, timeout, sent)

    def fetch(
        self,
        command: str,
        into: IO[bytes],
        what: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        most: int = bounds.SNAPSHOT,
        length: int | None = None,
    ) -> Result:
        """Run ``command`` as root and write its output to ``into``, in one round trip.

        ``timeout`` (seconds) limits the silence, ``most`` (bytes) and :data:`bounds.STREAM_RATE`
        the whole output; ``length``: how many bytes are expected. The command is visible in the
        host's process list and must have no secret in it.
        """
        with progress.calling(self.machine.endpoint, what, None, of=length) as shown:
            return self._exec(
                *(f"sh -c {shlex.quote(command)}", b"", what, timeout, shown.add),
                sink=into,
                most=most,
            )

    def _exec(
        self,
        command: str,
        stdin: bytes | IO[bytes],
        what: str,
        timeout: float,
        on_bytes: Callable[[int], None] | None = None,
        first: float = math.inf,
        sink: IO[bytes] | None = None,
        most: int = 0,
    ) -> Result:
        started = time.monotonic()
        flow, marks = bounds.Flow(), Marks()
        answer = Answer(marks)
        try:
            channel = self._channel(timeout)
            with contextlib.closing(channel):
                password = self._begin(channel, command, marks)
                # When a command ends early (no sudo, full disk), writing to it fails. This is no
                # error here: its exit code and stderr give the reason.
                with contextlib.suppress(BrokenPipeError, _Closed):
                    _send(channel, password, bounds.Flow())
                    for chunk in _chunks(stdin):
                        _send(channel, chunk, flow)
                        if on_bytes is not None and sink is None:
                            on_bytes(len(chunk))
                    channel.shutdown_write()
                received = 0
                if sink is not None:
                    received = _pour(channel, sink, timeout, most, answer, on_bytes)
                deadline = time.monotonic() + timeout
                out = _drain(channel, channel.recv, deadline, time.monotonic() + first, answer)
                err = _drain(channel, channel.recv_stderr, deadline)
                if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                code = channel.exit_status
            if code == -1 or (answer.begun and not answer.ended):
                raise EOFError("the connection was closed before the command ended")
        except (OSError, EOFError, _ssh_error()) as error:
            self.close()
            raise self._unreachable(error, what) from error
        seconds = time.monotonic() - started
        received += len(out) + len(err)
        noise = printable(answer.before, 300)
        self._stats.add(
            RoundTrip(self.machine.endpoint, what, seconds, flow.count, received, code, noise)
        )
        if not answer.begun:
            self._refuse(answer, err, marks, what, password=bool(password))
        errors = own_errors(err, marks).decode(errors="replace")
        return Result(code, out.decode(errors="replace"), errors, seconds, out)

    def hold(self, script: str, what: str, *, timeout: float = DEFAULT_TIMEOUT) -> Held:
        """Start a command that runs until the returned handle, or this process, ends.

        At that end its standard input closes. The command is visible in the host's process list.
        Its first line must come within ``timeout`` seconds.
        """
        started = time.monotonic()
        marks = Marks()
        answer = Answer(marks, end=False)
        try:
            with progress.calling(self.machine.endpoint, what, timeout):
                self._last()
                channel = self._channel(timeout)
                if password := self._begin(channel, f"sh -c {shlex.quote(script)}", marks):
                    channel.sendall(password)
                greeting = bytearray()
                while len(greeting) < MAX_GREETING and b"\n" not in greeting:
                    if time.monotonic() > started + timeout:
                        raise TimeoutError
                    if not (data := channel.recv(MAX_GREETING)):
                        break
                    greeting += answer.feed(data)
                err = b""
                if not answer.begun:
                    err = _drain(channel, channel.recv_stderr, started + timeout)
        except (OSError, EOFError, _ssh_error()) as error:
            self.close()
            raise self._unreachable(error, what) from error
        seconds = time.monotonic() - started
        noise = printable(answer.before, 300)
        self._stats.add(
            RoundTrip(self.machine.endpoint, what, seconds, len(script), len(greeting), noise=noise)
        )
        if not answer.begun:
            self._refuse(answer, err, marks, what, password=bool(password))
        return Held(channel, greeting.partition(b"\n")[0].decode(errors="replace"))

    def open_tcp(self, address: str, port: int, timeout: float) -> Stream:
        """A TCP stream from this host to ``address:port``, through the SSH connection.

        ``timeout`` (seconds) limits the opening. Raises :class:`Unreachable`.
        """
        try:
            self._last()
            with progress.calling(self.machine.endpoint, "connect", self._patience):
                transport = self._transport()
        except (OSError, EOFError, _ssh_error()) as error:
            raise self._unreachable(error) from error
        try:
            with progress.calling(self.machine.endpoint, f"connect to port {port}", timeout):
                return transport.open_channel(
                    "direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=timeout
                )
        except (OSError, EOFError, _ssh_error()) as error:
            # The connection stays open: it may hold the run lock. A broken one is opened again.
            from provision.ssh.connect import forwarding

            # Only here it is this host that does not forward, and not a jump host before it.
            raise self._unreachable(error, forwarding=forwarding(error)) from error

    def end(self) -> None:
        """Close for good: a thread that still uses this session must not connect again."""
        self._ended = True
        self.close()

    def rest(self) -> None:
        """Close, unless a held script or a tunnel uses it; the next use connects again."""
        with self._opening:
            if not self._lasting:
                self.close()

    def close(self) -> None:
        first, self._connection = self._connection, None
        more, self._more = self._more, []
        for connection in more if first is None else [first, *more]:
            with contextlib.suppress(Exception):  # this wakes the thread that waits for the host
                connection.transport.sock.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(Exception):
                connection.close()

    def _last(self) -> None:
        with self._opening:
            self._lasting = True

    def _begin(self, channel: paramiko.Channel, command: str, marks: Marks) -> bytes:
        """Start ``command`` as root; returns the text that must come first on standard input.

        A password that sudo refused is not tried again: hosts lock a login after wrong passwords.
        """
        if self._refused is not None:
            raise self._refused
        password = self._passwords.sudo(self.machine)
        with self._answering():
            # Callers quote what they put into a command.
            line = command_line(command, marks, password=password is not None)
            channel.exec_command(line)  # nosec
        return b"" if password is None else f"{password}\n".encode()

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Within this context the host must answer in time: Paramiko would wait for it without
        end."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.close()

        timer = threading.Timer(self._patience, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, EOFError, _ssh_error()) as error:
            if late.is_set():
                raise TimeoutError from error
            raise
        finally:
            timer.cancel()

    def _refuse(
        self, answer: Answer, stderr: bytes, marks: Marks, what: str, *, password: bool
    ) -> NoReturn:
        """Raise :class:`Unreachable`: the login shell, or sudo, did not run the command."""
        where = self.machine.place
        problem = refusal(answer, stderr, marks, where, password=password)
        error = Unreachable(
            f"{where}: {problem.what}",
            [replace(problem, what=f"{what}: {problem.what}")],
            id=problem.id or "root-needed",
        )
        if password and error.id == "root-needed":
            self._refused = error
        raise error

    def _channel(self, timeout: float) -> paramiko.Channel:
        """A channel for one command, on a further connection when the first has no session left:
        sshd allows only MaxSessions of them, and the run lock holds one (sshd_config(5))."""
        from provision.ssh.connect import opened_session
        from provision.ssh.refused import Refused

        refused: Refused | None = None
        for transport in self._transports():
            try:
                channel = opened_session(transport, timeout)
            except Refused as error:
                refused = refused or error
                continue
            channel.settimeout(timeout)
            return channel
        raise refused or EOFError("the run has ended")

    def _transports(self) -> Iterator[paramiko.Transport]:
        """The connections that may have a session left; the last one is new, and has no other."""
        yield self._transport()
        for connection in list(self._more):
            if connection.is_connected:
                yield connection.transport
        if len(self._more) >= MOST_CONNECTIONS - 1:
            return
        connection = self._connect(self.machine)
        with self._opening:
            self._more = [c for c in self._more if c.is_connected]
            if self._ended or self._connection is None:
                connection.close()
                return
            self._more.append(connection)
        yield connection.transport

    def _transport(self) -> paramiko.Transport:
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.result()
        return self._opened()

    def _opened(self) -> paramiko.Transport:
        with self._opening:
            if self._connection is not None and not self._connection.is_connected:
                self.close()  # the connection is broken; the next use may succeed
            if self._connection is None and not self._ended:
                self._connection = self._connect(self.machine)
            if self._connection is None or self._ended:
                self.close()
                raise EOFError("the run has ended")
            transport: paramiko.Transport = self._connection.transport
            return transport

    def _unreachable(
        self,
        error: BaseException,
        what: str = "connect",
        forwarding: Forwarding | None = None,
    ) -> Unreachable:
        from provision.ssh.connect import reason as explained

        reason, remedy, id = explained(error)
        reason, remedy = printable(reason, LINE_LIMIT), printable(remedy, LINE_LIMIT)
        self._stats.broken.append((self.machine.endpoint, what, reason))
        where = self.machine.place
        return Unreachable(
            f"{where}: {reason}",
            [Problem(where, f"{what}: {reason}", remedy, id=id)],
            id=id,
            forwarding=forwarding,
        )


class Held:
    """A remote script that runs until :meth:`release`. ``greeting`` is its first line."""

    def __init__(self, channel: paramiko.Channel, greeting: str) -> None:
        self._channel = channel
        self.greeting = greeting

    @property
    def alive(self) -> bool:
        return not (self._channel.closed or self._channel.exit_status_ready())

    def beat(self) -> None:
        """Send one byte as a heartbeat. Raises ``OSError`` when the connection is gone, and when
        the host sends what nobody reads."""
        if _unread(self._channel) > bounds.HOST_UNREAD:
            self._channel.close()
            raise OSError("the host sends without being asked")
        self._channel.sendall(b"\n")

    def stream(self) -> Stream:
        """Its standard input and output, for a script that says nothing after its greeting before
        it is spoken to."""
        self._channel.settimeout(None)
        return self._channel

    def release(self) -> None:
        """Close its standard input: the script ends."""
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()

    def close(self, timeout: float = 5.0) -> None:
        """Wait until the script has ended, for ``timeout`` seconds at most."""
        self.release()
        self._channel.status_event.wait(timeout)
        self._channel.close()


class Fleet:
    """Sessions to many machines, and work on them in parallel, up to a limit.

    A slow or broken host never delays the others: each has its own thread and timeouts.
    """

    def __init__(
        self,
        parallel: int,
        stats: Stats | None = None,
        passwords: Passwords | None = None,
        *,
        changes: bool = False,
    ) -> None:
        self.parallel = parallel
        self.stats = stats or Stats()
        self._passwords = passwords or Passwords()
        self._connector: Connector | None = None
        #: Whether the run is to change something, also when it only shows the plan.
        self.changes = changes
        #: The machines that are known to have all programs that changes need.
        self.able: set[Machine] = set()
        #: The earliest time from which facts of the machines may come (monotonic seconds).
        self.since = time.monotonic()
        self._sessions: dict[Machine, Session] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def session(self, machine: Machine) -> Session:
        with self._lock:
            if machine not in self._sessions:
                self._sessions[machine] = Session(
                    machine, self.stats, self._connect, self._passwords
                )
            return self._sessions[machine]

    def begin(self, machines: Sequence[Machine]) -> None:
        """Connect to ``machines`` in the background: the caller has something else to do before it
        asks them."""
        self._connect_by()  # the import comes first: threads that import disturb one another
        pool = ThreadPoolExecutor(min(self.parallel, len(machines)), "begin")
        for machine in machines:
            self.session(machine).begin(pool)
        pool.shutdown(wait=False)

    def _connect(self, machine: Machine) -> Connection:
        return self._connect_by().connect(machine)

    def _connect_by(self) -> Connector:
        with self._lock:
            if self._connector is None:
                from provision.ssh.connect import Connector

                self._connector = Connector(self._passwords)
            return self._connector

    def map(
        self,
        work: Callable[[Session], T],
        machines: Sequence[Machine],
        *,
        at_once: int | None = None,
        on_done: Callable[[Machine, T | ProvisionError], None] | None = None,
    ) -> dict[Machine, T | ProvisionError]:
        """Call ``work`` for every machine, ``at_once`` (the fleet's ``parallel``) at a time.

        Returns each machine's value, or the :class:`ProvisionError` of its call; any other
        exception is a defect and is raised.
        """
        results: dict[Machine, T | ProvisionError] = {}
        if not machines:
            return results

        def part(session: Session) -> T:
            with progress.part_of(shown, session.machine.endpoint):
                return work(session)

        with (
            progress.waiting("", names=[m.endpoint for m in machines]) as shown,
            ThreadPoolExecutor(min(at_once or self.parallel, len(machines)), "ssh") as pool,
        ):
            pending = {pool.submit(part, self.session(m)): m for m in machines}
            try:
                for future in as_completed(pending):
                    machine = pending[future]
                    try:
                        value: T | ProvisionError = future.result()
                    except ProvisionError as error:
                        value = error
                    results[machine] = value
                    if on_done is not None:
                        on_done(machine, value)
            except BaseException:
                for future in pending:
                    future.cancel()
                self.close()  # this wakes the threads that wait for a host
                raise
        return {m: results[m] for m in machines}

    def close(self) -> None:
        with self._lock:
            sessions, connector = list(self._sessions.values()), self._connector
        for session in sessions:
            session.end()
        if connector is not None:
            connector.close()


def failures(results: Mapping[Machine, object]) -> list[Problem]:
    """The problems of every machine with an error as its result."""
    return [
        problem
        for machine, result in results.items()
        if isinstance(result, ProvisionError)
        for problem in (result.problems or (Problem(machine.place, result.message, id=result.id),))
    ]


@contextlib.contextmanager
def tunnel(session: Session, address: str, port: int) -> Iterator[int]:
    """Forward a local loopback port to ``address:port`` as seen from the session's host.

    Yields the local port. Every accepted connection is one more channel of the same SSH connection.
    All channels end with the context.
    """
    with _forward(lambda: session.open_tcp(address, port, timeout=10)) as local:
        yield local


@contextlib.contextmanager
def relay(session: Session, port: int, address: str = "127.0.0.1") -> Iterator[int]:
    """As :func:`tunnel`, where sshd does not forward. ``address`` is a name or an address.

    Every accepted connection is a command as root, which connects there with bash.
    """
    script = _RELAY.format(address=address, port=port)

    def start() -> Stream:
        held = session.hold(script, "connect on the host", timeout=RELAY_TIMEOUT)
        if held.greeting != "connected":
            held.close()
            raise Unreachable(f"{session.machine.host}: port {port}", id="host-unreachable")
        return held.stream()

    with _forward(start) as local:
        yield local


@contextlib.contextmanager
def _forward(connect: Callable[[], Stream]) -> Iterator[int]:
    """A local port; each connection to it is passed on to a new stream."""
    server = socket.create_server(("127.0.0.1", 0))
    stopping = threading.Event()

    def pump(source: Stream, sink: Stream) -> None:
        with contextlib.suppress(OSError, EOFError):
            while (data := source.recv(CHUNK)) and _unread(source) <= bounds.HOST_UNREAD:
                sink.sendall(data)
        for end in (sink, source):
            with contextlib.suppress(OSError, EOFError):
                if isinstance(end, socket.socket):
                    end.shutdown(socket.SHUT_RDWR)  # closing alone does not wake a recv()
                end.close()

    def accept() -> None:
        while not stopping.is_set():
            try:
                client, _ = server.accept()
            except OSError:
                return
            try:
                channel = connect()
            except ProvisionError:
                client.close()
                continue
            for ends in ((client, channel), (channel, client)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        stopping.set()
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)  # closing alone does not wake accept()
        server.close()


class LocalFailure(Exception):
    """A file of this machine could not be written; its one argument is the ``OSError``."""


class _Closed(Exception):
    """The far side of a channel stopped reading."""


def _size(body: IO[bytes]) -> int | None:
    """The bytes in a file; None for what is no file."""
    try:
        return os.fstat(body.fileno()).st_size
    except OSError:
        return None


def _chunks(stdin: bytes | IO[bytes]) -> Iterator[bytes]:
    if isinstance(stdin, bytes):
        yield stdin
        return
    while chunk := stdin.read(CHUNK):
        yield chunk


def _send(channel: paramiko.Channel, data: bytes, flow: bounds.Flow) -> None:
    """Send all of ``data``. Raises ``TimeoutError`` when the host does not take it, or hardly any,
    and :class:`_Closed` when it reads no more."""
    try:
        while data:
            count = channel.send(data)
            if not count:
                raise _Closed
            flow.add(count)
            data = data[count:]
            if flow.drips or _unread(channel) > bounds.HOST_UNREAD:
                raise TimeoutError
    except TimeoutError:
        raise
    except OSError as error:
        raise _Closed from error


def _pour(
    channel: paramiko.Channel,
    into: IO[bytes],
    timeout: float,
    most: int,
    answer: Answer,
    on_bytes: Callable[[int], None] | None = None,
) -> int:
    """Copy an answer up to its end into a file. Returns the number of bytes.

    Raises ``TimeoutError`` after a silence of ``timeout`` seconds, and when the stream drips;
    ``OSError`` after ``most`` bytes; and :class:`LocalFailure` when the file cannot be written.
    """
    flow, count = bounds.Flow(), 0
    channel.settimeout(timeout)
    while data := channel.recv(CHUNK):
        flow.add(len(data))
        if flow.drips:
            raise TimeoutError
        part = answer.feed(data)
        count += len(part)  # the marks around the answer are no part of it
        if count > most or _unread(channel) > bounds.HOST_UNREAD:
            raise OSError(f"the host sent more than {size(most)}")
        try:
            into.write(part)
        except OSError as error:
            raise LocalFailure(error) from error
        if on_bytes is not None:
            on_bytes(len(part))
    return flow.count


def _unread(stream: object) -> int:
    """Bytes that have come through an SSH channel and wait here; 0 for another stream."""
    buffers = (getattr(stream, name, None) for name in ("in_buffer", "in_stderr_buffer"))
    return sum(len(buffer) for buffer in buffers if buffer is not None)


def _drain(
    channel: paramiko.Channel,
    receive: Callable[[int], bytes],
    deadline: float,
    first: float = math.inf,
    answer: Answer | None = None,
) -> bytes:
    """The whole stream up to its end, or only the ``answer`` in it.

    Raises ``TimeoutError`` after ``deadline``, and after ``first`` when no byte has come (both in
    monotonic seconds); ``OSError`` when the host sends more than :data:`bounds.HOST_OUTPUT`, on
    this stream or on the other one.
    """
    into, count = bytearray(), 0
    while True:
        waits = not (into if answer is None else answer.any)
        left = (min(deadline, first) if waits else deadline) - time.monotonic()
        if left <= 0:
            raise TimeoutError
        # While this stream is silent, the other one may be flooded.
        channel.settimeout(min(left, LOOK))
        try:
            data = receive(CHUNK)
        except TimeoutError:
            data = None
        if data == b"":
            return bytes(into)
        if data is not None:
            count += len(data)
            into += data if answer is None else answer.feed(data)
        if count > bounds.HOST_OUTPUT or _unread(channel) > 2 * bounds.HOST_OUTPUT:
            raise OSError(f"the host sent more than {bounds.HOST_OUTPUT >> 20} MiB")


def _ssh_error() -> type[Exception]:
    """paramiko's base error. It is imported only when needed: after an error, or before a run."""
    import paramiko

    return paramiko.SSHException
