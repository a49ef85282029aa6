"""Opens SSH connections: through jump hosts, with checked host keys and logins by key.

This module is imported with the first connection, because Fabric and Paramiko are slow to import.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

import paramiko
from fabric import Config, Connection
from paramiko.common import (
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_FAILED_CONNECT_FAILED,
    OPEN_FAILED_RESOURCE_SHORTAGE,
)

from provision.ids import Id
from provision.inventory.resolved import Machine
from provision.ssh.attempts import Attempts, Passing, turned_away
from provision.ssh.host_key import require_known
from provision.ssh.keys import Unusable, private_key
from provision.ssh.known_hosts import HostKey, Known, KnownHosts
from provision.ssh.login import Login, timed_out
from provision.ssh.passwords import Passwords
from provision.ssh.proxy import Proxied
from provision.ssh.refused import Refused
from provision.ssh.route import Hop, route
from provision.ssh.tokens import ConfigError
from provision.ssh.user_config import UserConfig

#: The ciphers offered to a host, in this order. GCM is first: it needs no separate MAC, so an
#: upload takes 30 % less processor time. CBC is left out; Paramiko would still offer it.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
#: Seconds between keepalives on an idle connection, and the time limit for a host's answer.
KEEPALIVE = 15
SILENT_FOR = 30
#: Seconds between two looks of an idle connection's thread. Paramiko looks ten times a second;
#: with hundreds of hosts this keeps a processor busy.
IDLE_LOOK = 3.0
#: Seconds for which a refused login is not tried again. sshd from 9.8 on counts 5 s against this
#: machine's address for each, and drops its connections from 15 s on (PerSourcePenalties,
#: sshd_config(5)); fail2ban bans after five in ten minutes (jail.conf).
REFUSED_FOR = 600.0
#: Why an SSH server opened no TCP stream (RFC 4254, 5.1): its connection to the address failed, or
#: it does not forward connections.
Forwarding = Literal["refused", "prohibited"]


class JumpFailed(OSError):
    """The connection through a jump host failed. ``error`` is the error at the jump host."""

    def __init__(self, hop: Hop, error: BaseException) -> None:
        super().__init__(str(error))
        self.hop, self.error = hop, error


class Connector:
    """Opens a run's connections. All hosts behind a jump host share one connection to it.

    Thread-safe. The operator's files (ssh_config, known_hosts, keys) are read once.
    """

    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._closing = threading.Event()
        self._user_config: UserConfig | None = None
        self._known: dict[tuple[Path, ...], KnownHosts] = {}
        self._keys: dict[tuple[Path, str], paramiko.PKey | Unusable] = {}
        self._jumps: dict[tuple[Hop, ...], Future[Connection]] = {}
        #: The refused logins, and until when each stands (monotonic seconds).
        self._refused: dict[tuple[Hop, ...], tuple[Refused, float]] = {}
        #: The key exchanges under way, of connections that end before a login.
        self._exchanges: set[paramiko.Transport] = set()
        # Fabric gets all settings explicitly: it does not know Include, uses jump hosts in the
        # wrong order, and accepts every host key of a jump host.
        self._fabric = Config(overrides={"load_ssh_configs": False})

    def connect(self, machine: Machine) -> Connection:
        """An open connection to ``machine``. Raises Paramiko's errors, OSError and EOFError."""
        return self._open(self.route(machine))

    def route(self, machine: Machine) -> tuple[Hop, ...]:
        with self._reading:
            if self._user_config is None:
                self._user_config = UserConfig()
        try:
            return route(machine, self._user_config)
        except ConfigError as error:
            remedy = f"correct it; ssh -G {shlex.quote(machine.host)} reads it, too"
            raise Refused(str(error), remedy, id="ssh-config-invalid") from None
        except ValueError as error:
            raise Refused(
                str(error),
                "check ssh.jump, and ProxyJump in ~/.ssh/config",
                id="ssh-config-invalid",
            ) from None

    def close(self) -> None:
        """Close the connections to jump hosts, and begin no further attempt."""
        self._closing.set()
        with self._lock:
            jumps, self._jumps = list(self._jumps.values()), {}
            exchanges = list(self._exchanges)
        for exchange in exchanges:
            exchange.close()
        for jump in jumps:
            with contextlib.suppress(Exception):
                jump.result(0).close()

    def host_key(self, hops: tuple[Hop, ...]) -> HostKey:
        """The key of the last hop, by a connection that ends before the login.

        The type is the one that ssh would choose: a known one, else the first that both sides have.
        Raises :class:`KeyRefused` for a key that is not known, and what :meth:`connect` raises.
        """
        attempts = Attempts(hops[-1].timeout, self._closing.wait)
        while True:
            try:
                return self._exchange(hops)
            except Exception as error:
                if not attempts.again(error):
                    raise

    def jump_host_key(self, hops: tuple[Hop, ...]) -> HostKey:
        """As :meth:`host_key` of a jump host, with a login: the hosts behind it share the
        connection."""
        try:
            key = self._jump(hops).transport.get_remote_server_key()
        except JumpFailed as failed:
            raise failed if failed.hop != hops[-1] else failed.error from None
        return HostKey(key.get_name(), key.asbytes())

    def forget_known_hosts(self) -> None:
        """Read known_hosts again for the next connection."""
        with self._reading:
            self._known.clear()

    def _exchange(self, hops: tuple[Hop, ...]) -> HostKey:
        *before, hop = hops
        jump = self._jump(tuple(before)) if before else None
        known = self.known_hosts(hop.known_hosts).of(hop.address, hop.port, hop.host_key_alias)
        sock = self._socket(hop, jump, before[-1] if before else None)
        heard: list[str] = []
        transport = _transports(known, heard)(sock)
        transport.banner_timeout = hop.timeout
        with self._lock:
            self._exchanges.add(transport)
        try:
            transport.start_client(timeout=2 * hop.timeout)
            return require_known(hop, known, transport.get_remote_server_key())
        except Exception as error:
            if not any(line.startswith("SSH-") for line in heard):
                raise _no_version(error, heard, sock) from None
            raise
        finally:
            with self._lock:
                self._exchanges.discard(transport)
            transport.close()
            sock.close()

    def _open(self, hops: tuple[Hop, ...]) -> Connection:
        with self._lock:
            refused, until = self._refused.get(hops, (None, 0.0))
        if refused is not None and time.monotonic() < until:
            raise Refused(str(refused), refused.remedy, id=refused.id)
        attempts = Attempts(hops[-1].timeout, self._closing.wait)
        while True:
            login = Login(hops[-1], lambda path: self.key(path, hops[-1]))
            try:
                return self._attempt(hops, login)
            except Exception as error:
                # Never after the login has begun: a host counts what it refuses.
                if login.begun and isinstance(error, Refused) and not isinstance(error, Passing):
                    with self._lock:
                        self._refused[hops] = error, time.monotonic() + REFUSED_FOR
                if login.begun or not attempts.again(error):
                    raise

    def _attempt(self, hops: tuple[Hop, ...], login: Login) -> Connection:
        *before, hop = hops
        jump = self._jump(tuple(before)) if before else None
        sock = self._socket(hop, jump, before[-1] if before else None)
        known = self.known_hosts(hop.known_hosts).of(hop.address, hop.port, hop.host_key_alias)
        heard: list[str] = []
        connection = Connection(
            hop.address,
            user=hop.user,
            port=hop.port,
            gateway=False,
            # Each connection has its own config: Fabric writes into it, and other threads would see
            # it half done.
            config=self._fabric.clone(),
            connect_kwargs={
                "sock": sock,
                # The limit of the key exchange: longer than the banner's limit, because the
                # banner's error says more.
                "timeout": 2 * hop.timeout,
                "banner_timeout": hop.timeout,
                "auth_timeout": hop.timeout,
                "transport_factory": _transports(known, heard),
                "auth_strategy": login,
            },
        )
        connection.client.set_missing_host_key_policy(_Check(hop, known))
        # Paramiko gets no known keys. A look into its own lists makes a class each time.
        for keys in ("_system_host_keys", "_host_keys"):
            setattr(connection.client, keys, {})
        try:
            connection.open()
        except BaseException as error:
            connection.client.close()
            sock.close()
            if isinstance(error, Exception) and not any(x.startswith("SSH-") for x in heard):
                raise _no_version(error, heard, sock) from None
            raise
        connection.transport.set_keepalive(KEEPALIVE)
        connection.transport.sock.settimeout(IDLE_LOOK)
        return connection

    def _socket(self, hop: Hop, jump: Connection | None, before: Hop | None) -> Any:
        if jump is not None:
            try:
                return jump.transport.open_channel(
                    "direct-tcpip", (hop.address, hop.port), ("127.0.0.1", 0), timeout=hop.timeout
                )
            except paramiko.ChannelException as error:
                raise _not_forwarded(before, hop, error) from error
        if hop.proxy_command is not None:
            return Proxied(hop.proxy_command)
        # Not Paramiko's own socket: after an address without a route, it does not try the next.
        try:
            sock = socket.create_connection((hop.address, hop.port), hop.timeout)
        except ConnectionResetError as error:  # already while it connects
            raise _no_version(error, [], None) from None
        # Paramiko does not check the answers to its keepalives, and TCP would repeat them for a
        # quarter of an hour before it reports that the other end is gone.
        if (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, SILENT_FOR * 1000)
        return sock

    def _jump(self, hops: tuple[Hop, ...]) -> Connection:
        """The shared connection to a jump host. While one thread opens it, other threads wait."""
        with self._lock:
            future = self._jumps.get(hops)
            mine = future is None or (future.done() and not _alive(future))
            if future is None or mine:
                future = self._jumps[hops] = Future()
        if mine:
            try:
                future.set_result(self._open(hops))
            except JumpFailed as error:
                future.set_exception(error)
            except Exception as error:
                future.set_exception(JumpFailed(hops[-1], error))
        return future.result()

    def known_hosts(self, paths: tuple[Path, ...]) -> KnownHosts:
        with self._reading:
            if paths not in self._known:
                self._known[paths] = KnownHosts(paths)
            return self._known[paths]

    def key(self, path: Path, hop: Hop) -> paramiko.PKey:
        """The private key in a file. Raises :class:`Unusable`."""
        secret = hop.passphrase
        passphrase = self._passwords.passphrase(secret, str(path)) if secret is not None else ""
        with self._reading:  # a passphrase is slow to try, by design
            if (path, passphrase) not in self._keys:
                try:
                    self._keys[path, passphrase] = private_key(path, passphrase)
                except Unusable as why:
                    self._keys[path, passphrase] = why
            found = self._keys[path, passphrase]
        if isinstance(found, Unusable):
            raise found
        return found


def _alive(future: Future[Connection]) -> bool:
    return future.exception() is None and bool(future.result().is_connected)


class _Check(paramiko.MissingHostKeyPolicy):
    """Checks the host key of one hop. Paramiko gets no known keys, so it always asks this check."""

    def __init__(self, hop: Hop, known: Known) -> None:
        self._hop, self._known = hop, known

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        require_known(self._hop, self._known, key)


_NO_SSH = "takes connections, but does not answer as SSH"
_NO_SSH_REMEDY = (
    "check that this is sshd's port; an overloaded host, MaxStartups of its sshd, or a firewall "
    "has the same effect"
)


def _no_version(error: Exception, heard: list[str], sock: Any) -> Exception:
    """The error that no SSH server has said its version: in the words of sshd or ProxyCommand."""
    if (away := turned_away(heard)) is not None:
        return away
    if isinstance(sock, Proxied) and (said := sock.said()):
        remedy = "try the command by hand"
        return Passing(f"ProxyCommand: {said}", remedy, id="host-unreachable")
    # A server that closes before our version has come resets the connection, and one that has read
    # it ends it. When Paramiko meets a reset while it sends, it says EOF. The cause is the same.
    if isinstance(error, EOFError | ConnectionResetError | BrokenPipeError):
        return Passing(_NO_SSH, _NO_SSH_REMEDY, id="host-unreachable")
    return error


def _transports(known: Known, heard: list[str]) -> Any:
    """Makes transports that ask for a host key of a known type, if the host has several keys.

    ``heard`` gets the lines up to the server's version: sshd may say there why it closes.
    """

    def make(sock: Any, **settings: Any) -> Any:
        transport: Any = paramiko.Transport(sock, **settings)
        readline = transport.packetizer.readline

        def hear(timeout: float) -> str:
            line: str = readline(timeout)
            heard.append(line)
            return line

        transport.packetizer.readline = hear
        options = transport.get_security_options()
        offered = options.ciphers  # each read of this property makes a new tuple
        options.ciphers = tuple(c for c in CIPHERS if c in offered)
        kinds = {k for kind in known.kinds for k in _ALGORITHMS.get(kind, (kind,))}
        plain = sorted(options.key_types, key=lambda kind: kind not in kinds)
        certified = [f"{kind}-cert-v01@openssh.com" for kind in plain if known.authorities]
        options.key_types = (*(k for k in certified if k in transport._key_info), *plain)
        return transport

    return make


#: For an RSA key, SSH names one of three signature algorithms (RFC 8332).
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")}


def _not_forwarded(jump: Hop | None, hop: Hop, error: paramiko.ChannelException) -> Refused:
    """The error that a jump host does not connect to the next one."""
    to = f"{hop.address}:{hop.port}"
    name = f"jump host {jump.name if jump is not None else '?'}"
    why = forwarding(error)
    if why == "refused":
        what, remedy = f"{name}: cannot connect to {to}", "is sshd running there, on that port?"
    elif why == "prohibited":
        what = f"{name}: does not forward connections to {to}"
        remedy = "see AllowTcpForwarding and PermitOpen of the jump host's sshd"
    else:
        what, remedy = f"{name}: opens no connection to {to}: {error.text}", "try ssh by hand"
    if error.code == OPEN_FAILED_RESOURCE_SHORTAGE:
        return Passing(what, "the jump host is overloaded: run again later", id="host-unreachable")
    return Refused(what, remedy, id="host-unreachable")


def opened_session(transport: paramiko.Transport, timeout: float) -> paramiko.Channel:
    """A channel for one command. Raises Paramiko's errors, and :class:`Refused` when the host takes
    the login and opens no session."""
    try:
        return transport.open_session(timeout=timeout)
    except paramiko.ChannelException as error:
        remedy = (
            "this login may be for forwarding only, or MaxSessions of the host's sshd is too low: "
            "try ssh to that host by hand"
        )
        raise Refused(
            f"takes the login, but opens no session: {error.text}", remedy, id="host-unreachable"
        ) from error


def forwarding(error: BaseException) -> Forwarding | None:
    """Why an SSH server opened no TCP stream; None when ``error`` is another failure."""
    if not isinstance(error, paramiko.ChannelException):
        return None
    if error.code == OPEN_FAILED_CONNECT_FAILED:
        return "refused"
    return "prohibited" if error.code == OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED else None


def _no_channel(error: paramiko.ChannelException) -> tuple[str, str]:
    """Why a host opened no channel, by its code (RFC 4254, 5.1), and the remedy."""
    why = forwarding(error)
    if why == "refused":
        what = f"its SSH server cannot connect there: {error.text}"
        return what, "is the service running there, on that port?"
    if why == "prohibited":
        what = f"its SSH server does not forward connections: {error.text}"
        return what, "see AllowTcpForwarding and PermitOpen of its sshd"
    if error.code == OPEN_FAILED_RESOURCE_SHORTAGE:
        return f"its SSH server has no resources: {error.text}", "the host is overloaded: run again"
    return f"its SSH server opens no such channel: {error.text}", "is it OpenSSH's sshd?"


def reason(error: BaseException) -> tuple[str, str, Id]:
    """The meaning of an SSH failure, the remedy, and the id."""
    if isinstance(error, JumpFailed):
        what, remedy, id = reason(error.error)
        return f"jump host {error.hop.name}: {what}", remedy, id
    # Paramiko joins several refusals into one error without an errno.
    text = str(error).removeprefix("[Errno None] ") or type(error).__name__
    if isinstance(error, Refused):
        return text, error.remedy or "try ssh to that host by hand", error.id
    if isinstance(error, paramiko.ChannelException):
        return (*_no_channel(error), "host-unreachable")
    if timed_out(error):
        return "does not answer the login in time", "try ssh to that host", "host-unreachable"
    if isinstance(error, paramiko.AuthenticationException):
        remedy = "check ssh.user and ssh.key, or load the key into ssh-agent"
        return "login refused", remedy, "ssh-login-refused"
    # Both errors are possible: two timers of Paramiko race.
    if "protocol banner" in text or text == "No existing session":
        return _NO_SSH, _NO_SSH_REMEDY, "host-unreachable"
    if isinstance(error, socket.gaierror):
        return (
            "the name does not resolve",
            "check the spelling, or give an address",
            "name-unresolved",
        )
    if isinstance(error, TimeoutError) or re.search("timed out|timeout", text.lower()):
        return (
            "no answer over SSH in time",
            "check that the host is up, and that its SSH port is open to this machine",
            "host-unreachable",
        )
    if isinstance(error, EOFError):
        what = str(error) or f"the connection broke, or was silent for {SILENT_FOR} s"
        return (
            what,
            "check that the host and the network to it are up, then run again",
            "host-unreachable",
        )
    if isinstance(error, ConnectionResetError):
        remedy = "an overloaded host, MaxStartups of its sshd, or a firewall does this: run again"
        return "the connection was reset", remedy, "host-unreachable"
    if isinstance(error, ConnectionRefusedError):
        remedy = (
            "is sshd running there, on that port? A firewall that limits connections (ufw limit: "
            "6 in 30 s) refuses them for a while"
        )
        return f"cannot connect: {text}", remedy, "host-unreachable"
    remedy = "run again with -v; try ssh to that host by hand"
    return f"SSH failed: {text}", remedy, "host-unreachable"
