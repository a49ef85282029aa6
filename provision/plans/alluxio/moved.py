"""Workers with an id that is registered under another address than their next one.

Alluxio refuses to start such a worker (:mod:`provision.inventory.worker_address`), so its
registration is removed first. The removal waits until the worker is stopped and its lease has
ended, so that only the worker's next start writes the id again. When a worker with the same id
lives elsewhere, this host is a clone, and the command is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from provision.alluxio.membership import leases, registrations
from provision.alluxio.membership.registrations import Entry, Registration, RegistrationSnapshot
from provision.alluxio.worker import desired
from provision.dataclass import dataclass
from provision.engine.plan import Gate, HostChanges, Step
from provision.errors import Problem
from provision.etcd.cluster.handle import Etcd
from provision.host import gather, unit_changes
from provision.host.facts import HostFacts, Kind, Probe
from provision.inventory import worker_address
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory, Machine
from provision.plans.alluxio import forget_worker
from provision.plans.alluxio.stop_workers import STOPPED
from provision.ssh.session import Fleet
from provision.text import verb

_STOP = unit_changes.stop(desired.UNIT)


@dataclass(frozen=True, slots=True)
class Moved:
    """``entry`` is the registration that is in the way, ``what`` says how it differs, and ``live``
    tells whether the id has a live key."""

    worker: AlluxioWorker
    worker_id: str
    entry: Entry
    what: str
    live: bool


def found(
    alluxio: AlluxioCluster,
    chosen: Sequence[AlluxioWorker],
    facts: Mapping[Machine, HostFacts],
    seen: RegistrationSnapshot,
) -> list[Moved]:
    """The chosen workers that Alluxio would refuse, by the entries in etcd under their ids."""
    if not alluxio.membership.permanent_keys:
        return []  # the worker's next start replaces its live key
    moved = []
    for worker, worker_id in _identified(alluxio, chosen, facts):
        if worker_address.overwritten(worker):
            continue
        entry = seen.authorized.get(worker_id)
        if entry is None or not isinstance(entry.registration, Registration):
            continue
        if differing := registrations.differing(
            worker_address.declared(worker), entry.registration
        ):
            what = ", ".join(differing)
            moved.append(Moved(worker, worker_id, entry, what, worker_id in seen.live))
    return moved


def outdated(one: Moved, seen: RegistrationSnapshot) -> bool:
    """Whether the worker is live at another address than the entry's, as after a restore of older
    data: its live key is newer than the entry, and Alluxio would refuse its next start."""
    entry, now = one.entry.registration, seen.live.get(one.worker_id)
    return now is not None and any(
        getattr(now.registration, field, None) != getattr(entry, field, None)
        for field in worker_address.TITLES
    )


def twins(
    alluxio: AlluxioCluster,
    fleet: Fleet,
    chosen: Sequence[AlluxioWorker],
    moved: Sequence[Moved],
    facts: Mapping[Machine, HostFacts],
    seen: RegistrationSnapshot,
) -> list[Problem]:
    """The chosen workers with an identity that another worker has: it is live at that worker's
    address, or :func:`clones` finds it among the ``moved``, which are of ``chosen``."""
    live = _live_elsewhere(alluxio, chosen, facts, seen)
    own = _own(fleet, [(m, r) for m in live if isinstance(r := m.entry.registration, Registration)])
    # Its name has changed hands in the inventory, and it runs on under the old one.
    live = [m for m in live if m.worker.name not in own or not _runs(m.worker, facts)]
    known = [m.worker for m in live]
    others = [m for m in moved if m.worker not in known]
    return clones(alluxio, fleet, [*live, *others], facts, seen)


def _identified(
    alluxio: AlluxioCluster, chosen: Sequence[AlluxioWorker], facts: Mapping[Machine, HostFacts]
) -> Iterator[tuple[AlluxioWorker, str]]:
    """The chosen workers whose hosts have an identity, each with its worker id."""
    for worker in chosen:
        f = facts.get(worker.machine)
        identity = desired.identity(alluxio, f) if f is not None else None
        if identity is not None:
            yield worker, desired.worker_id(identity)


def _live_elsewhere(
    alluxio: AlluxioCluster,
    chosen: Sequence[AlluxioWorker],
    facts: Mapping[Machine, HostFacts],
    seen: RegistrationSnapshot,
) -> list[Moved]:
    """The chosen workers with an id that is live at the address of another declared worker, with
    any permanent key or none."""
    declared = {(w.hostname.lower(), w.rpc_port): w for w in alluxio.workers}
    found = []
    for worker, worker_id in _identified(alluxio, chosen, facts):
        entry = seen.live.get(worker_id)
        if entry is None or not isinstance(r := entry.registration, Registration):
            continue
        if declared.get((r.host.lower(), r.rpc_port), worker) != worker:
            found.append(Moved(worker, worker_id, entry, "", True))
    return found


def clones(
    alluxio: AlluxioCluster,
    fleet: Fleet,
    moved: Sequence[Moved],
    facts: Mapping[Machine, HostFacts],
    seen: RegistrationSnapshot,
) -> list[Problem]:
    """The workers with an identity that another host's worker has, as far as this can be known
    before a start.

    That other worker is in the inventory and has no other live id, or it is live and takes
    connections.
    """
    problems = []
    asked: list[tuple[Moved, Registration]] = []
    live = {(r.host, r.rpc_port): r.worker_id for _, r in seen.live_registrations()}
    for one in moved:
        r = one.entry.registration
        assert isinstance(r, Registration)
        owner = next(
            (w for w in alluxio.workers if w != one.worker and forget_worker.is_at(w, one.entry)),
            None,
        )
        if owner is not None and live.get((r.host, r.rpc_port), one.worker_id) == one.worker_id:
            problems.append(_clone(alluxio, one, r, f"the address of {owner.name}"))
        elif one.live and not forget_worker.is_at(one.worker, one.entry):
            now = seen.live[one.worker_id].registration
            asked.append((one, now if isinstance(now, Registration) else r))
    own = _own(fleet, asked)
    for one, r in asked:
        if one.worker.name in own and _runs(one.worker, facts):
            continue
        there = one.worker._replace(hostname=r.host, rpc_port=r.rpc_port)
        if registrations.port_answers(fleet, there):
            problems.append(_clone(alluxio, one, r, "where that worker is LIVE"))
    return problems


def _runs(worker: AlluxioWorker, facts: Mapping[Machine, HostFacts]) -> bool:
    return facts[worker.machine].unit(desired.UNIT).active == "active"


def steps(
    inventory: Inventory,
    alluxio: AlluxioCluster,
    etcd: Etcd,
    moved: Sequence[Moved],
    facts: Mapping[Machine, HostFacts],
    command: str,
) -> tuple[Step, ...]:
    """The steps before the start of ``moved``: stop the running workers, wait until all leases
    have ended, and remove the registrations."""
    if not moved:
        return ()
    machines = [m.worker.machine for m in moved]
    up = [
        (m.worker.name, machine)
        for m, machine in zip(moved, machines, strict=True)
        if facts[machine].unit(desired.UNIT).active not in STOPPED
    ]
    names = _named(moved)
    ended = Step(
        f"stop {names} for the new address" if up else f"wait until {_leases(moved)}",
        tuple(HostChanges(name, machine, (_STOP,)) for name, machine in up),
        after=_ended(alluxio, etcd, moved),
        at_once=inventory.parallel,
    )
    calls, _ = forget_worker.removals(alluxio, etcd, {m.worker_id: m.entry for m in moved}, command)
    said = tuple(
        replace(call, what=f"{call.what}: {m.what}") for call, m in zip(calls, moved, strict=True)
    )
    removing = Step(f"remove the old address of {names}", calls=said)
    return (ended, removing) if up or any(m.live for m in moved) else (removing,)


def left_to_start_workers(
    alluxio: AlluxioCluster,
    etcd: Etcd,
    workers: Sequence[AlluxioWorker],
    facts: Mapping[Machine, HostFacts],
) -> dict[str, Problem]:
    """The workers that get a new address, by name. Only start-workers may restart them: it removes
    their old registration first, because Alluxio would refuse the new address beside it.

    Raises :class:`Unhealthy` when etcd does not serve.
    """
    if not alluxio.membership.permanent_keys or not workers:
        return {}
    seen = forget_worker.look(alluxio, etcd)
    return {
        m.worker.name: Problem(
            m.worker.place,
            f"its address changes: {m.what}",
            "run invoke start-workers first: it registers the worker at the new address",
            id="worker-address-changing",
        )
        for m in found(alluxio, workers, facts, seen)
    }


def _ended(alluxio: AlluxioCluster, etcd: Etcd, moved: Sequence[Moved]) -> Gate:
    ids = [m.worker_id for m in moved]
    remedy = "invoke decommission-worker NAME --revoke-lease ends it; then start the worker"
    wait = leases.Wait(alluxio, etcd, lambda seen: [i for i in ids if i in seen.live], remedy)
    return Gate(_leases(moved), wait, wait.seconds)


def _own(fleet: Fleet, asked: Collection[tuple[Moved, Registration]]) -> set[str]:
    """The workers that are registered with their own host, by its name or its address."""
    probes = {
        one.worker.machine: Probe(resolve=(r.host,), kinds=Kind.ADDRESSES) for one, r in asked
    }
    facts, _ = gather.gather_facts(fleet, probes) if probes else ({}, [])
    found = set()
    for one, r in asked:
        f = facts.get(one.worker.machine)
        at = f.resolved.get(r.host, "") if f is not None else ""
        local = at.startswith("127.") or at == "::1" or (f is not None and at in f.addresses)
        if local or r.host == one.worker.machine.host:
            found.add(one.worker.name)
    return found


def _clone(alluxio: AlluxioCluster, one: Moved, r: Registration, why: str) -> Problem:
    worker, file = one.worker, desired.identity_file(alluxio)
    return Problem(
        worker.place,
        f"its worker identity is registered in etcd as {r.host}:{r.rpc_port}, {why}: Alluxio would "
        "refuse it",
        f"on a clone of that worker, remove {file}; if no worker should run there any more, stop "
        f"it, wait until its lease has ended, and invoke forget-worker {one.worker_id}",
        id="worker-registered-elsewhere",
    )


def _leases(moved: Sequence[Moved]) -> str:
    """What is waited for."""
    leases, have = verb(moved, "lease", "leases"), verb(moved, "has", "have")
    return f"the {leases} of {_named(moved)} {have} ended"


def _named(moved: Sequence[Moved]) -> str:
    more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
    return f"{moved[0].worker.name}{more}"
