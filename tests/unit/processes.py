"""Tests that start processes or open sockets say so: the others are those of ``make unit``. None
asks a name server, or connects to another machine."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

#: What Python's audit events call it (docs.python.org, "Audit events table").
_EVENTS = frozenset(
    {
        *("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"),
        *("socket.bind", "socket.connect"),
    }
)


_TO_ADDRESSES = frozenset({"socket.connect", "socket.sendto"})
_TO_HOSTS = _TO_ADDRESSES | {"socket.getaddrinfo", "socket.gethostbyname"}


def is_outside(event: str, args: tuple[Any, ...]) -> bool:
    """Whether the audited call leaves this machine, as the lookup of a name does."""
    if event in _TO_ADDRESSES:
        _, address = args
        if not isinstance(address, tuple):
            return False  # a path, for example
        host = address[0]
    else:
        host = args[0]
    if host in (None, "", "localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


class Watch:
    """Refuses what starts a process while :attr:`test` is the id of a test without the marker, and
    what leaves the machine at any time; :attr:`outside` has each."""

    def __init__(self) -> None:
        self.test: str | None = None
        self.outside: list[str] = []

    def start(self) -> None:
        """Watch from now on; an audit hook cannot be taken away again."""

        # There are a million events, most of them of copy.deepcopy(). Python calls a function five
        # times as fast as a method here.
        def saw(event: str, args: tuple[Any, ...]) -> None:
            if event in _EVENTS and self.test is not None:
                raise AssertionError(f"{event} in {self.test}: give it @pytest.mark.process")
            if event in _TO_HOSTS and is_outside(event, args):
                self.outside.append(f"{event} {args}")
                raise AssertionError(f"{event} leaves this machine: {args}")

        sys.addaudithook(saw)
