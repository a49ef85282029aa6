"""SSH, in one place: sessions over Fabric, scripts in one round trip, uploads, fan-out, tunnels.

A *round trip* is one remote command: one channel opened, fed, read to its end. Everything the
tool does on a host is a POSIX shell script sent on standard input, so nothing secret is ever
on a command line and a script that arrives cut short runs nothing (see :func:`whole`).
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, TypeVar

from provision.errors import PreflightFailed, Problem, ProvisionError
from provision.inventory.resolved import Machine
from provision.text import printable

if TYPE_CHECKING:
    import paramiko
    from fabric import Connection

T = TypeVar("T")

# paramiko logs what it also raises; without a handler that goes to the operator's screen.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

DEFAULT_TIMEOUT = 120.0
#: Upload chunk, bytes: large enough to fill SSH's window, small enough to bound memory.
CHUNK = 1 << 18
#: What is offered to a host, in this order. GCM first: it needs no MAC beside it, so an upload
#: takes 30 % less processor time. Nothing with CBC, which Paramiko would still offer.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
#: A host that sends more than this much output is cut off (bytes).
MAX_OUTPUT = 32 << 20
MAX_GREETING = 4096


class Unreachable(PreflightFailed):
    """A host cannot be talked to over SSH: network, host key, login, or it stopped answering."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a remote script did. ``seconds`` is wall time seen from here."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def ok(self) -> bool:
        return self.code == 0


@dataclass(frozen=True, slots=True)
class Call:
    """One round trip, for ``--stats`` and ``-v``."""

    host: str
    what: str
    seconds: float
    sent: int
    received: int


@dataclass(slots=True)
class Stats:
    """Round trips of a run. Thread-safe: ``list.append`` is atomic."""

    calls: list[Call] = field(default_factory=list)
    on_call: Callable[[Call], None] | None = None

    def add(self, call: Call) -> None:
        self.calls.append(call)
        if self.on_call is not None:
            self.on_call(call)

    def per_host(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for call in self.calls:
            counts[call.host] = counts.get(call.host, 0) + 1
        return counts


def as_root(command: str) -> str:
    """A command line that runs ``command`` as root, by sudo for any other login."""
    return f'if [ "$(id -u)" = 0 ]; then exec {command}; else exec sudo -n {command}; fi'


def whole(script: str) -> str:
    """``script`` so that the shell runs all of it or, when it arrives cut short, nothing."""
    return "main() {\n:\n" + script + "\n}\nmain\n"


class Session:
    """An SSH connection to one machine, opened on first use and reused.

    All errors of the connection are :class:`Unreachable` with the host, the inventory line and
    what to do; a remote command that fails is a :class:`Result`, not an error.
    """

    def __init__(self, machine: Machine, stats: Stats) -> None:
        self.machine = machine
        self._stats = stats
        self._connection: Connection | None = None
        self._opening = threading.Lock()
        self._ended = False

    def open(self) -> None:
        """Connect now. Raises :class:`Unreachable`."""
        try:
            self._transport()
        except (OSError, EOFError, _ssh_error()) as error:
            raise self._unreachable(error) from error

    def run(self, script: str, what: str, *, timeout: float = DEFAULT_TIMEOUT) -> Result:
        """Run a shell script as root in one round trip; at most ``timeout`` seconds in all."""
        return self._exec(as_root("sh -s"), whole(script).encode(), what, timeout)

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

        ``timeout`` bounds the silence, not the whole: a large upload takes what it takes. The
        command is visible in the host's process list and must hold nothing secret.
        """
        return self._exec(as_root(f"sh -c {shlex.quote(command)}"), body, what, timeout, on_bytes)

    def _exec(
        self,
        command: str,
        stdin: bytes | IO[bytes],
        what: str,
        timeout: float,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Result:
        started = time.monotonic()
        sent = 0
        try:
            channel = self._channel(timeout)
            with contextlib.closing(channel):
                channel.exec_command(command)
                # A host that ends early (no sudo, full disk) closes its input: not an error here,
                # its exit code and stderr say why.
                with contextlib.suppress(BrokenPipeError, _Closed):
                    for chunk in _chunks(stdin):
                        _send(channel, chunk)
                        sent += len(chunk)
                        if on_bytes is not None:
                            on_bytes(len(chunk))
                    channel.shutdown_write()
                deadline = time.monotonic() + timeout
                out = _drain(channel, channel.recv, deadline)
                err = _drain(channel, channel.recv_stderr, deadline)
                if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                code = channel.exit_status
            if code == -1:
                raise EOFError("the connection was closed before the command ended")
        except (OSError, EOFError, _ssh_error()) as error:
            self.close()
            raise self._unreachable(error, what) from error
        seconds = time.monotonic() - started
        self._stats.add(Call(self.machine.host, what, seconds, sent, len(out) + len(err)))
        return Result(code, out.decode(errors="replace"), err.decode(errors="replace"), seconds)

    def hold(self, script: str, what: str) -> Held:
        """Start a command that runs until the returned handle, or this process, ends.

        Its standard input closes then. The command is visible in the host's process list.
        """
        started = time.monotonic()
        try:
            channel = self._channel(DEFAULT_TIMEOUT)
            channel.exec_command(as_root(f"sh -c {shlex.quote(script)}"))
            greeting = bytearray()
            while len(greeting) < MAX_GREETING and not greeting.endswith(b"\n"):
                if time.monotonic() > started + DEFAULT_TIMEOUT:
                    raise TimeoutError
                if not (data := channel.recv(1)):
                    break
                greeting += data
        except (OSError, EOFError, _ssh_error()) as error:
            self.close()
            raise self._unreachable(error, what) from error
        seconds = time.monotonic() - started
        self._stats.add(Call(self.machine.host, what, seconds, len(script), len(greeting)))
        return Held(channel, greeting.decode(errors="replace").rstrip("\n"))

    def open_tcp(self, address: str, port: int, timeout: float) -> paramiko.Channel:
        """A TCP stream from this host to ``address:port``, through the SSH connection."""
        try:
            return self._transport().open_channel(
                "direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=timeout
            )
        except (OSError, EOFError, _ssh_error()) as error:
            raise self._unreachable(error) from error

    def end(self) -> None:
        """Close for good: a thread that is still at work here must not connect again."""
        self._ended = True
        self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def _channel(self, timeout: float) -> paramiko.Channel:
        channel = self._transport().open_session(timeout=timeout)
        channel.settimeout(timeout)
        return channel

    def _transport(self) -> paramiko.Transport:
        with self._opening:
            if self._connection is None and not self._ended:
                self._connection = _connect(self.machine)
            if self._connection is None or self._ended:
                self.close()
                raise EOFError("the run has ended")
            transport: paramiko.Transport = self._connection.transport
            return transport

    def _unreachable(self, error: BaseException, what: str = "connect") -> Unreachable:
        reason, remedy = _reason(error)
        reason = printable(reason, 300)
        where = f"{self.machine.host} ({self.machine.where})"
        return Unreachable(f"{where}: {reason}", [Problem(where, f"{what}: {reason}", remedy)])


class Held:
    """A remote script that runs until :meth:`release`. ``greeting`` is its first line."""

    def __init__(self, channel: paramiko.Channel, greeting: str) -> None:
        self._channel = channel
        self.greeting = greeting

    @property
    def alive(self) -> bool:
        return not (self._channel.closed or self._channel.exit_status_ready())

    def beat(self) -> None:
        """Send one byte, a sign of life. Raises ``OSError`` when the connection is gone."""
        self._channel.sendall(b"\n")

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
    """Sessions to many machines, and work on them in parallel with a bound.

    One slow or broken host never holds the others up: each has its own thread and timeouts.
    """

    def __init__(self, parallel: int, stats: Stats | None = None) -> None:
        self.parallel = parallel
        self.stats = stats or Stats()
        self._sessions: dict[Machine, Session] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def session(self, machine: Machine) -> Session:
        with self._lock:
            if machine not in self._sessions:
                self._sessions[machine] = Session(machine, self.stats)
            return self._sessions[machine]

    def map(
        self,
        work: Callable[[Session], T],
        machines: Sequence[Machine],
        *,
        at_once: int | None = None,
        on_done: Callable[[Machine, T | ProvisionError], None] | None = None,
    ) -> dict[Machine, T | ProvisionError]:
        """``work`` on every machine, ``at_once`` (the fleet's ``parallel``) at a time.

        Returns each machine's value, or the :class:`ProvisionError` it ended with; any other
        exception is a defect and is raised.
        """
        results: dict[Machine, T | ProvisionError] = {}
        if not machines:
            return results
        with ThreadPoolExecutor(min(at_once or self.parallel, len(machines)), "ssh") as pool:
            pending: dict[Future[T], Machine] = {
                pool.submit(work, self.session(m)): m for m in machines
            }
            try:
                while pending:
                    done, _ = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        machine = pending.pop(future)
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
                self.close()  # wakes the threads that wait for a host
                raise
        return {m: results[m] for m in machines}

    def close(self) -> None:
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.end()


def failures(results: Mapping[Machine, object]) -> list[Problem]:
    """The problems of every machine whose result is an error."""
    return [
        problem
        for machine, result in results.items()
        if isinstance(result, ProvisionError)
        for problem in (result.problems or (Problem(machine.host, result.message),))
    ]


@contextlib.contextmanager
def tunnel(session: Session, address: str, port: int) -> Iterator[int]:
    """Forward a local loopback port to ``address:port`` as seen from the session's host.

    Yields the local port. Every accepted connection is one more channel of the same SSH
    connection; all end with the context.
    """
    server = socket.create_server(("127.0.0.1", 0))
    stopping = threading.Event()

    def pump(source: Any, sink: Any) -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := source.recv(CHUNK):
                sink.sendall(data)
        for end in (sink, source):
            with contextlib.suppress(OSError, EOFError):
                end.close()

    def accept() -> None:
        while not stopping.is_set():
            try:
                client, _ = server.accept()
            except OSError:
                return
            try:
                channel = session.open_tcp(address, port, timeout=10)
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


class _Closed(Exception):
    """The far side of a channel stopped reading."""


def _chunks(stdin: bytes | IO[bytes]) -> Iterator[bytes]:
    if isinstance(stdin, bytes):
        yield stdin
        return
    while chunk := stdin.read(CHUNK):
        yield chunk


def _send(channel: paramiko.Channel, data: bytes) -> None:
    try:
        channel.sendall(data)
    except TimeoutError:
        raise
    except OSError as error:
        raise _Closed from error


def _drain(channel: paramiko.Channel, receive: Callable[[int], bytes], deadline: float) -> bytes:
    """All of a stream up to its end. Raises ``TimeoutError`` past ``deadline`` (monotonic)."""
    into = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        channel.settimeout(left)
        data = receive(CHUNK)
        if not data:
            return bytes(into)
        into += data
        if len(into) > MAX_OUTPUT:
            raise OSError(f"the host sent more than {MAX_OUTPUT >> 20} MiB")


def _connect(machine: Machine) -> Connection:
    """An open Fabric connection: host keys checked against known_hosts, no fallback."""
    import paramiko
    from fabric import Config, Connection

    config = Config(overrides={"load_ssh_configs": True})
    gateway = None
    if machine.jump is not None:
        gateway = Connection(machine.jump, config=config, connect_timeout=machine.connect_timeout)
        _check_host_keys(gateway, machine)
    connect_kwargs: dict[str, Any] = {
        "banner_timeout": machine.connect_timeout,
        "auth_timeout": machine.connect_timeout,
        "transport_factory": _new_transport,
    }
    if machine.key is not None:
        connect_kwargs["key_filename"] = str(machine.key)
        connect_kwargs["look_for_keys"] = False
    connection = Connection(
        machine.host,
        user=machine.user,
        port=machine.port,
        gateway=gateway,
        config=config,
        connect_timeout=machine.connect_timeout,
        connect_kwargs=connect_kwargs,
    )
    _check_host_keys(connection, machine)
    connection.open()
    transport = connection.transport
    assert isinstance(transport, paramiko.Transport)
    transport.set_keepalive(15)
    return connection


def _new_transport(sock: Any, **settings: Any) -> paramiko.Transport:
    import paramiko

    transport = paramiko.Transport(sock, **settings)
    options = transport.get_security_options()
    options.ciphers = tuple(c for c in CIPHERS if c in options.ciphers)
    return transport


def _check_host_keys(connection: Connection, machine: Machine) -> None:
    """Fabric accepts unknown host keys by default; this tool never does."""
    import paramiko

    client = connection.client
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    if machine.known_hosts is None:
        client.load_system_host_keys()
    elif machine.known_hosts.exists():
        client.load_system_host_keys(str(machine.known_hosts))


def _ssh_error() -> type[Exception]:
    """paramiko's base error, imported only when something went wrong or is about to run."""
    import paramiko

    return paramiko.SSHException


def _reason(error: BaseException) -> tuple[str, str]:
    """What an SSH failure means, and the remedy."""
    import paramiko

    # paramiko joins several refusals under an error without a number.
    text = str(error).removeprefix("[Errno None] ") or type(error).__name__
    if isinstance(error, paramiko.BadHostKeyException):
        return (
            "the host key differs from the one in known_hosts: another machine, or an attack",
            "if the host was reinstalled, replace its line in known_hosts",
        )
    if "not found in known_hosts" in text:
        return (
            "the host key is not in known_hosts",
            "verify it and add it: ssh-keyscan HOST >> known_hosts",
        )
    if isinstance(error, paramiko.AuthenticationException):
        return "login refused", "check ssh.user and ssh.key, or load the key into ssh-agent"
    if isinstance(error, socket.gaierror):
        return "the name does not resolve", "check the spelling, or give an address"
    if isinstance(error, TimeoutError) or "timed out" in text.lower():
        return "no answer over SSH in time", "is the host up, and port 22 open to this machine?"
    if isinstance(error, ConnectionRefusedError) or "Unable to connect" in text:
        return f"cannot connect: {text}", "is sshd running there, on that port?"
    return f"SSH failed: {text}", "run again with -v; try ssh to that host by hand"
