"""A worker's state in one word, and the differences between its views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from provision.alluxio.commands.nodes import NodeRow
from provision.alluxio.membership.registrations import Registration
from provision.inventory.resolved import AlluxioWorker
from provision.text import counted


class State(str, Enum):
    """A worker's state. Without live keys only the port's answer shows that it lives."""

    LIVE = "LIVE"
    FAILED = "FAILED"
    #: The live key exists, but its lease has expired, and etcd has not removed the lease.
    STALE = "STALE"
    UNREGISTERED = "UNREGISTERED"
    #: The host was asked, and has no Alluxio: start-workers has not run there.
    NOT_INSTALLED = "NOT_INSTALLED"
    UNKNOWN = "UNKNOWN"
    REACHABLE = "REACHABLE"
    UNREACHABLE = "UNREACHABLE"
    #: No view with this information has answered.
    UNDETERMINED = "UNDETERMINED"


_GOOD = (State.LIVE, State.REACHABLE)


class NodeVerdict(NamedTuple):
    """One worker. ``name`` is None for an undeclared worker.

    ``info_nodes`` is the status in ``info nodes``; None when the worker is not listed (or ``info
    nodes`` was not asked). ``notes`` are the disagreements between the views; with any note the
    verdict is not ``ok``.
    ``ready``: the worker is live and all its listeners answer; None when its host was not asked.
    """

    name: str | None
    host: str
    port: int
    state: State
    worker_id: str | None = None
    info_nodes: str | None = None
    notes: tuple[str, ...] = ()
    #: The whole value in etcd, if known: of the live key, or else of the permanent key.
    registration: Registration | None = None
    ready: bool | None = None

    @property
    def ok(self) -> bool:
        return self.state in _GOOD and not self.notes and self.ready is not False

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}" if self.host else ""


def counts(nodes: Sequence[NodeVerdict]) -> dict[str, int]:
    """How many workers are in each state, in the order of :class:`State`."""
    found = Counter(n.state for n in nodes)
    return {state.value: found[state] for state in State if found[state]}


def summary(nodes: Sequence[NodeVerdict]) -> str:
    """``2 workers: 2 LIVE``; undeclared workers are counted separately."""
    declared = Counter(n.state for n in nodes if n.name is not None)
    strangers = sum(n.name is None for n in nodes)
    total = sum(declared.values())
    states = ", ".join(f"{declared[state]} {state.value}" for state in State if declared[state])
    text = f"{counted(total, 'worker')}: {states or 'none'}"
    if any(n.ready is not None for n in nodes):
        text += f"; {sum(n.ready is True for n in nodes)} READY"
    if strangers:
        text += f"; {strangers} not in the inventory"
    noted = [n for n in nodes if n.name is not None and n.notes]
    differing = sum(n.state is not State.NOT_INSTALLED for n in noted)
    return f"{text}; {differing} with notes" if differing else text


def verdict(
    worker: AlluxioWorker,
    state: State,
    worker_id: str | None = None,
    status: str | None = None,
    notes: Sequence[str] = (),
    registration: Registration | None = None,
) -> NodeVerdict:
    name, host, port = worker.name, worker.hostname, worker.rpc_port
    return NodeVerdict(name, host, port, state, worker_id, status, tuple(notes), registration)


def undeclared(row: NodeRow, note: str) -> NodeVerdict:
    """A row of ``info nodes`` that belongs to no declared worker."""
    return NodeVerdict(None, row.host, row.port, State.UNKNOWN, row.worker_id, row.status, (note,))


def address(worker: AlluxioWorker) -> tuple[str, int]:
    return lower(worker.hostname), worker.rpc_port


def lower(host: str) -> str:
    """``host`` in lower case. Nearly all are, and then it is not copied."""
    return host if host.islower() else host.lower()
