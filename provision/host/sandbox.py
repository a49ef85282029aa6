"""How far a service's unit can be closed, given its folders and ports. Pure.

From systemd.exec(5): ``ProtectHome`` hides /home, /root and /run/user; ``RemoveIPC`` removes what
the service's user has in /dev/shm when the service stops. From capabilities(7): a port below 1024
needs CAP_NET_BIND_SERVICE.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from provision.dataclass import dataclass

#: The lowest port that every program may bind (net.ipv4.ip_unprivileged_port_start).
FIRST_FREE_PORT = 1024
_LOW_PORTS = "CAP_NET_BIND_SERVICE"
Word = Literal["yes", "no"]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The values of a unit's settings: ``ProtectHome``, ``RemoveIPC``, and its capabilities.

    ``opened``: a sentence for each that is more open than in other units, with the reason. It is a
    comment in the unit, so a plan shows it.
    """

    protect_home: Word
    remove_ipc: Word
    capabilities: str
    opened: tuple[str, ...] = ()


def sandbox(folders: Iterable[str], ports: Iterable[int] = ()) -> Sandbox:
    """The closest sandbox in which a service still has its ``folders`` and its ``ports``."""
    every = list(folders)
    home = _below(every, "/home")
    memory = _below(every, "/dev/shm")
    low = next((port for port in ports if 0 < port < FIRST_FREE_PORT), None)
    opened = []
    if home is not None:
        opened.append(f"ProtectHome is off: {home} is below /home.")
    if memory is not None:
        opened.append(f"RemoveIPC is off: {memory} is below /dev/shm.")
    if low is not None:
        opened.append(f"{_LOW_PORTS} is allowed: port {low} is below {FIRST_FREE_PORT}.")
    return Sandbox(
        protect_home="yes" if home is None else "no",
        remove_ipc="yes" if memory is None else "no",
        capabilities="" if low is None else _LOW_PORTS,
        opened=tuple(opened),
    )


def _below(folders: Iterable[str], top: str) -> str | None:
    """The first of ``folders`` that is at or below ``top``."""
    return next((f for f in folders if f == top or f.startswith(f"{top}/")), None)
