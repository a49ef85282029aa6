"""Whether a port takes a connection: from here, or else from a host.

A host whose sshd does not forward (``AllowTcpForwarding no``) says nothing about the port. There,
the host's bash connects. Without bash the answer is not known, and that is no "no".
"""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
from collections.abc import Iterator

from provision.errors import Problem
from provision.inventory.resolved import Machine, bracketed
from provision.ssh.session import Fleet, Session, Stream, Unreachable, relay
from provision.text import printable

#: What the host's script ends with when there is no bash.
_NO_BASH = 9
#: A name or an address; bash takes others for paths of files.
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:%-]*|:[A-Fa-f0-9:.]+")


class Unasked(Unreachable):
    """Nobody can ask the port: neither from here nor on its host."""


def answers(fleet: Fleet, machine: Machine, address: str, port: int, timeout: float) -> bool:
    """Whether ``address:port`` takes a connection from here, or else from ``machine``.

    ``timeout`` is the limit in seconds for each attempt. Raises :class:`Unasked` when it cannot be
    found out, because the host's sshd does not forward and the host has no bash.
    """
    try:
        with stream(fleet, machine, address, port, timeout):
            return True
    except Unasked:
        raise
    except (OSError, Unreachable):
        return False


@contextlib.contextmanager
def stream(
    fleet: Fleet, machine: Machine, address: str, port: int, timeout: float
) -> Iterator[Stream]:
    """A stream to ``address:port``, from here or else from ``machine``; see :func:`answers`.

    Raises ``OSError`` or :class:`Unreachable` when the port takes no connection.
    """
    direct, refused = _direct(address, port, timeout)
    if direct is not None:
        with direct:
            yield direct
        return
    session = fleet.session(machine)
    try:
        through = session.open_tcp(address, port, timeout=timeout)
    except Unreachable as error:
        if error.forwarding != "prohibited" or refused:
            raise
    else:
        with contextlib.closing(through):
            yield through
        return
    _require_listener(session, address, port, timeout)
    with (
        relay(session, port, address) as local,
        socket.create_connection(("127.0.0.1", local), timeout) as end,
    ):
        yield end


def _direct(address: str, port: int, timeout: float) -> tuple[socket.socket | None, bool]:
    """A connection from here, or whether it was refused: then nothing listens there."""
    try:
        return socket.create_connection((address, port), timeout), False
    except OSError as error:
        return None, isinstance(error, ConnectionRefusedError)


def _require_listener(session: Session, address: str, port: int, timeout: float) -> None:
    """Raises :class:`Unreachable` unless the host's bash can connect, :class:`Unasked` without
    bash. The relay itself could hang for minutes where a firewall drops packets."""
    at = f"{bracketed(address)}:{port}"
    where = session.machine.place
    if not _HOST.fullmatch(address):  # it may come from etcd
        raise Unreachable(f"{where}: {printable(at, 300)} is no address", id="host-unreachable")
    script = (
        f"command -v bash >/dev/null || exit {_NO_BASH}\n"
        f"timeout {timeout:g} bash -c 'exec 3<>\"/dev/tcp/$0/$1\"' {shlex.quote(address)} {port} "
        "2>/dev/null"
    )
    result = session.run(script, f"connect to port {port}")
    if result.ok:
        return
    if result.code != _NO_BASH:
        raise Unreachable(f"{where}: {at} takes no connection", id="host-unreachable")
    what = (
        f"{at} cannot be asked: it is not reached from here, its sshd does not forward connections "
        "(AllowTcpForwarding), and it has no bash"
    )
    remedy = "open the port for this machine, allow the forwarding, or install bash there"
    raise Unasked(
        f"{where}: {what}",
        [Problem(where, what, remedy, id="host-unreachable")],
        id="host-unreachable",
    )
