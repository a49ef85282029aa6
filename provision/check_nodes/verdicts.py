"""One verdict per worker from the three views: a function of plain values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from provision.alluxio.commands.nodes import NodeRow
from provision.alluxio.commands.readiness import Readiness
from provision.alluxio.membership.registrations import RegistrationSnapshot
from provision.check_nodes import match as etcd_view
from provision.check_nodes.verdict import NodeVerdict, State, address, undeclared, verdict
from provision.host.facts import UnitState
from provision.inventory.resolved import AlluxioCluster, Machine
from provision.text import counted

NOT_INSTALLED = "not installed yet: run invoke start-workers"


def verdicts(
    alluxio: AlluxioCluster,
    registered: RegistrationSnapshot | None,
    info: Sequence[NodeRow] | None,
    *,
    identities: Mapping[str, str] | None = None,
    reachable: Mapping[str, bool] | None = None,
    expired: Mapping[int, int] = MappingProxyType({}),
    without: Collection[Machine] = (),
    listeners: Mapping[str, Readiness] | None = None,
    services: Mapping[str, UnitState] | None = None,
) -> list[NodeVerdict]:
    """One verdict per declared worker, in the inventory's order, then one per undeclared worker.

    A view that did not answer is None; the other views are used. ``identities`` are the known UUIDs
    of workers, by name, to find a worker that registers another address. ``reachable``:
    without live keys, by worker name, whether its port answers. ``expired``: see
    :func:`provision.check_nodes.match.join`. ``without``: hosts that have no Alluxio.
    ``listeners`` and ``services``: each worker's readiness and service by name, if its host was
    asked.
    """
    if not alluxio.membership.in_etcd:
        found = _by_ports(alluxio, info, reachable or {})
    elif registered is not None:
        found = etcd_view.join(alluxio, registered, info, identities or {}, expired)
        if registered.cut:  # a key that was not found may be among those that were not read
            found = [n._replace(state=State.UNDETERMINED) if _absent(n) else n for n in found]
    elif info is not None:
        found = _by_info_nodes(alluxio, info)
    else:
        found = [verdict(w, State.UNDETERMINED) for w in alluxio.workers]
    seen = listeners or {}
    names = {w.name for w in alluxio.workers if w.machine in without}
    names |= {name for name, one in seen.items() if not one.installed}
    found = [_not_installed(n) if n.name in names else n for n in found]
    if listeners is None:
        return found
    run = services or {}
    return [_with_host(n, seen.get(n.name or ""), run.get(n.name or "")) for n in found]


def _absent(n: NodeVerdict) -> bool:
    return n.state in (State.UNREGISTERED, State.FAILED)


def _with_host(n: NodeVerdict, seen: Readiness | None, service: UnitState | None) -> NodeVerdict:
    if n.name is None:
        return n
    if seen is None:
        return n._replace(notes=(*n.notes, "its host could not be asked"))
    there = n.state in (State.LIVE, State.REACHABLE)
    # When the worker is down, the state of its listeners says nothing new; its service's does.
    notes = seen.notes if there else _of_service(service)
    return n._replace(ready=there and seen.ready, notes=(*n.notes, *notes))


def _of_service(service: UnitState | None) -> tuple[str, ...]:
    if service is None or service.load == "not-found":
        return ()
    again = f", restarted {counted(service.restarts, 'time')}" if service.restarts else ""
    return (f"its service is {service.active} ({service.sub}){again}",)


def _not_installed(n: NodeVerdict) -> NodeVerdict:
    if n.state in (State.UNREGISTERED, State.UNREACHABLE, State.UNDETERMINED):
        return n._replace(state=State.NOT_INSTALLED, notes=(NOT_INSTALLED, *n.notes))
    return n._replace(notes=(*n.notes, "its host has no Alluxio"))


def _by_info_nodes(alluxio: AlluxioCluster, info: Sequence[NodeRow]) -> list[NodeVerdict]:
    """The verdicts without etcd's view: only from ``info nodes``."""
    rows: dict[tuple[str, int], NodeRow] = {}
    for row in info:
        at = (row.host.lower(), row.port)
        if at not in rows or row.status == "ONLINE":
            rows[at] = row
    found: list[NodeVerdict] = []
    for worker in alluxio.workers:
        its = rows.get(address(worker))
        if its is None:
            found.append(verdict(worker, State.UNREGISTERED))
        else:
            state = State.LIVE if its.status == "ONLINE" else State.FAILED
            found.append(verdict(worker, state, its.worker_id, its.status))
    used = {n.worker_id for n in found}
    return found + [
        undeclared(row, "not in the inventory") for row in info if row.worker_id not in used
    ]


def _by_ports(
    alluxio: AlluxioCluster, info: Sequence[NodeRow] | None, reachable: Mapping[str, bool]
) -> list[NodeVerdict]:
    """The verdicts without live keys in etcd: by the workers' ports. With membership STATIC,
    ``info nodes`` prints ``conf/workers``: each host with the asked host's own port, and with an
    id that is a hash of both."""
    rows: dict[str, list[NodeRow]] = {}
    for row in info or ():
        rows.setdefault(row.host.lower(), []).append(row)
    found: list[NodeVerdict] = []
    for worker in alluxio.workers:
        its = rows.get(worker.hostname.lower(), [])
        exact = [row for row in its if row.port == worker.rpc_port]
        own = next(iter(exact or its), None)
        if own is not None:
            its.remove(own)
        answers = reachable.get(worker.name)
        state = State.UNDETERMINED
        if answers is not None:
            state = State.REACHABLE if answers else State.UNREACHABLE
        notes = ("info nodes does not list it",) if info is not None and own is None else ()
        status = own.status if own is not None else None
        found.append(verdict(worker, state, own.worker_id if own else None, status, notes))
    return found + [
        undeclared(row, f"in {alluxio.membership.place}, not in the inventory")
        for left in rows.values()
        for row in left
    ]
