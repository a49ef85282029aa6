"""How far a service's unit can be closed, given its folders and ports. Pure.

From systemd.exec(5): ``ProtectHome`` hides /home, /root and /run/user; ``RemoveIPC`` removes what
the service's user has in /dev/shm when the service stops. From capabilities(7): a port below 1024
needs CAP_NET_BIND_SERVICE.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

#: The lowest port that every program may bind (net.ipv4.ip_unprivileged_port_start).
FIRST_FREE_PORT = 1024
Word = Literal["yes", "no"]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The values of a unit's settings: ``ProtectHome``, ``RemoveIPC``, and its capabilities."""

    protect_home: Word
    remove_ipc: Word
    capabilities: str


def sandbox(folders: Iterable[str], ports: Iterable[int] = ()) -> Sandbox:
    """The closest sandbox in which a service still has its ``folders`` and its ``ports``."""
    every = list(folders)
    low = any(0 < port < FIRST_FREE_PORT for port in ports)
    return Sandbox(
        protect_home="no" if any(_is_below(f, "/home") for f in every) else "yes",
        remove_ipc="no" if any(_is_below(f, "/dev/shm") for f in every) else "yes",
        capabilities="CAP_NET_BIND_SERVICE" if low else "",
    )


def _is_below(folder: str, top: str) -> bool:
    return folder == top or folder.startswith(f"{top}/")
