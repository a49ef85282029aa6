"""Removes registrations from etcd, and writes them back: only of workers that are not live.

A removal is one transaction with two conditions: the AUTHORIZED key has the mod revision that was
seen, and no live key exists under the same id. When a worker comes up between the look and the
removal, the transaction fails. Each registration is saved in a file on this machine before its
removal.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from provision.alluxio.membership import leases, registrations, removed
from provision.alluxio.membership.registrations import Entry, Registration, RegistrationSnapshot
from provision.alluxio.worker import desired
from provision.dataclass import dataclass
from provision.engine.plan import Action, Plan, Step
from provision.errors import PreflightFailed, Problem, Unhealthy, UsageError
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import KeyValue, LeaseTime
from provision.etcd.cluster.handle import Etcd
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory
from provision.text import counted, printable


@dataclass(frozen=True, slots=True)
class Removal:
    """A plan, and the files that keep the registrations which the plan removes."""

    plan: Plan
    files: tuple[Path, ...] = ()


def look(alluxio: AlluxioCluster, etcd: Etcd) -> RegistrationSnapshot:
    """The registrations as they are now. Raises :class:`Unhealthy` when etcd does not serve."""
    login = desired.login(alluxio)
    return etcd.as_worker(login).read(lambda client: registrations.read(client, alluxio.name))


def forget(
    inventory: Inventory, alluxio: AlluxioCluster, etcd: Etcd, ids: Sequence[str]
) -> Removal:
    """The plan of ``forget-worker``: remove the AUTHORIZED keys of ``ids``. Ids that are not
    registered need nothing. These keys can be left over from another membership type.

    Raises :class:`PreflightFailed` when one of the ids is live.
    """
    seen = look(alluxio, etcd)
    chosen = [w for w in map(_full_id, ids) if w in seen.authorized or w in seen.live]
    return _forgetting(inventory, alluxio, etcd, seen, list(dict.fromkeys(chosen)))


def forget_stale(inventory: Inventory, alluxio: AlluxioCluster, etcd: Etcd, count: int) -> Removal:
    """As :func:`forget`, for every stale id. ``count`` is the number of stale ids that the
    operator knows of.

    Raises :class:`UsageError` with all stale ids when their number is another one.
    """
    if not alluxio.membership.in_etcd:
        raise UsageError(
            f"etcd does not show which ids are stale when the membership is "
            f"{alluxio.membership}: give every id, as check-nodes shows it",
            id="command-not-applicable",
        )
    seen = look(alluxio, etcd)
    found = stale(alluxio, seen)
    if len(found) != count:
        which = ", ".join(found[:20]) + (", ..." if len(found) > 20 else "")
        raise UsageError(
            f"{counted(len(found), 'id is', 'ids are')} stale, not {count}; nothing was removed"
            + (f": {which}" if found else ""),
            id="changed-meanwhile",
        )
    return _forgetting(inventory, alluxio, etcd, seen, found)


def stale(alluxio: AlluxioCluster, seen: RegistrationSnapshot) -> list[str]:
    """The ids that are not live, and under which no declared worker comes back: no worker in the
    inventory has their address, or another id is live there."""
    declared = {(w.hostname.lower(), w.rpc_port) for w in alluxio.workers}
    live = {(r.host.lower(), r.rpc_port) for _, r in seen.live_registrations()}
    found = []
    for worker_id, entry in seen.authorized.items():
        r = entry.registration
        if worker_id in seen.live or not isinstance(r, Registration):
            continue  # an unreadable registration is removed only when its id is given
        at = (r.host.lower(), r.rpc_port)
        if at not in declared or at in live:
            found.append(worker_id)
    return found


def require_not_live(
    alluxio: AlluxioCluster,
    seen: RegistrationSnapshot,
    ids: Iterable[str],
    times: Mapping[int, LeaseTime] = MappingProxyType({}),
) -> None:
    """Raises :class:`PreflightFailed` with every one of ``ids`` that has a live key. ``times``:
    etcd's answers about the leases of these keys."""
    problems = []
    for worker_id, entry in ((i, seen.live[i]) for i in ids if i in seen.live):
        lease = times.get(entry.key.lease, leases.UNKNOWN)
        if lease.expired_since > leases.STUCK_SECONDS:
            problems.append(_stuck(alluxio, worker_id, entry, lease.expired_since))
        else:
            problems.append(_live(alluxio, worker_id, entry))
    if not problems:
        return
    raise PreflightFailed(
        f"{counted(len(problems), 'id is', 'ids are')} live: a live worker's registration is "
        "never removed",
        problems,
        id="registration-live",
    )


def removals(
    alluxio: AlluxioCluster,
    etcd: Etcd,
    entries: Mapping[str, Entry],
    command: str,
) -> tuple[tuple[Action, ...], tuple[Path, ...]]:
    """Calls that each remove one AUTHORIZED key in the revision that was seen, and the file that
    keeps its value."""
    files = {i: removed.new_file(alluxio.name, i, entry.key.key) for i, entry in entries.items()}

    def remove(worker_id: str, key: KeyValue) -> None:
        live = registrations.live_prefix(alluxio.name).encode() + _raw_id(alluxio.name, key)
        file = files[worker_id]
        with etcd.as_worker(desired.login(alluxio)).any() as client:
            removed.keep(file, alluxio.name, worker_id, key, command)
            if client.delete(key.key, if_mod_revision=key.mod_revision, if_absent=live):
                return
            file.unlink(missing_ok=True)
            _explain(client, worker_id, key, live)

    calls = tuple(
        Action(
            f"etcd: remove {printable(entry.key.key, 300)}; kept in {files[i]}",
            functools.partial(remove, i, entry.key),
        )
        for i, entry in entries.items()
    )
    return calls, tuple(files.values())


def is_at(worker: AlluxioWorker, entry: Entry) -> bool:
    """Whether ``entry`` has the address that the inventory gives ``worker``."""
    r = entry.registration
    return isinstance(r, Registration) and (r.host.lower(), r.rpc_port) == (
        worker.hostname.lower(),
        worker.rpc_port,
    )


def _forgetting(
    inventory: Inventory,
    alluxio: AlluxioCluster,
    etcd: Etcd,
    seen: RegistrationSnapshot,
    ids: Sequence[str],
) -> Removal:
    held = [seen.live[i].key.lease for i in ids if i in seen.live and seen.live[i].key.lease]
    times: Mapping[int, LeaseTime] = {}
    if held:
        with etcd.as_worker(desired.login(alluxio)).any() as client:
            times = client.lease_times(held, leases.SECONDS)
    require_not_live(alluxio, seen, ids, times)
    command, gone = "forget-worker", set(stale(alluxio, seen))
    entries = {i: seen.authorized[i] for i in ids}
    calls, files = removals(alluxio, etcd, entries, command)
    notes = [
        Problem(
            worker.name,
            f"is in the inventory, and {worker_id} was its registration",
            "start-workers registers it again",
            "warning",
            id="worker-left-out",
        )
        for worker_id in ids
        for worker in alluxio.workers
        if is_at(worker, seen.authorized[worker_id]) and worker_id not in gone
    ]
    title = f"remove {counted(len(calls), 'registration')}"
    steps = (Step(title, calls=calls),) if calls else ()
    return Removal(Plan(command, inventory.cluster, steps, tuple(notes)), files)


def _live(alluxio: AlluxioCluster, worker_id: str, entry: Entry) -> Problem:
    if not entry.key.lease:
        return Problem(
            worker_id,
            "has a live key without a lease; no Alluxio worker writes such a key",
            f"look at {printable(entry.key.key, 300)} and delete it with etcdctl",
            id="registration-live",
        )
    r = entry.registration
    at = f" at {r.host}:{r.rpc_port}" if isinstance(r, Registration) else ""
    worker = next((w for w in alluxio.workers if is_at(w, entry)), None)
    remedy = (
        f"invoke decommission-worker {worker.name} stops it first"
        if worker is not None
        else "stop the worker there, and wait until its lease has ended"
    )
    return Problem(worker_id, f"is LIVE{at}: nothing is removed", remedy, id="registration-live")


def _stuck(alluxio: AlluxioCluster, worker_id: str, entry: Entry, since: int) -> Problem:
    revoke = f"etcdctl lease revoke {entry.key.lease:x}, if no worker runs under this id"
    worker = next((w for w in alluxio.workers if is_at(w, entry)), None)
    if worker is not None:
        revoke = (
            f"invoke decommission-worker {worker.name} --revoke-lease; or, if its host is gone, "
            f"{revoke}"
        )
    return Problem(
        worker_id,
        f"its lease expired {since} s ago, and etcd has not removed it",
        revoke,
        id="lease-not-removed",
    )


def _explain(client: EtcdClient, worker_id: str, seen: KeyValue, live: bytes) -> None:
    """Raise the reason why the transaction did not remove ``seen``. A key that is gone already
    counts as removed."""
    if client.get(live) is not None:
        raise Unhealthy(
            f"{worker_id} has become LIVE meanwhile: nothing was removed", id="changed-meanwhile"
        )
    if (now := client.get(seen.key)) is not None and now.mod_revision != seen.mod_revision:
        raise Unhealthy(
            f"{worker_id} has registered again meanwhile: nothing was removed",
            id="changed-meanwhile",
        )
    if now is not None:
        raise Unhealthy(
            f"{worker_id} was LIVE a moment ago: nothing was removed", id="changed-meanwhile"
        )


def _raw_id(cluster: str, key: KeyValue) -> bytes:
    return key.key[len(registrations.authorized_prefix(cluster).encode()) :]


def _full_id(given: str) -> str:
    """The id as etcd has it. ``given`` may also be the plain UUID from an identity file."""
    bare = given.strip()
    return (
        f"worker-{bare}"
        if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bare)
        else bare
    )
