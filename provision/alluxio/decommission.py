"""``decommission-worker``: stop, disable, wait until its lease has ended, take its id out of etcd.

Alluxio 313 has no decommission of its own: a stopped worker keeps its place on the ring of the
AUTHORIZED keys for good. Its lease is waited for and not revoked: that it ends by itself is the
proof that no other process, such as a clone's, lives under the same id.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from provision import gather, stop
from provision.alluxio import desired, membership, registrations
from provision.alluxio.membership import Entry, Membership, Registration
from provision.alluxio.registrations import Removal
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.host.change import Change
from provision.host.observe import PENDING_DIR, HostFacts, Probe
from provision.host.resources import File, Identity
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory
from provision.plan import Gate, HostChanges, Plan, Step
from provision.remote import Fleet

COMMAND = "decommission-worker"
POLL_SECONDS = 0.25


def plan(
    inventory: Inventory, alluxio: AlluxioCluster, fleet: Fleet, worker: AlluxioWorker
) -> Removal:
    """Empty when the worker neither runs, nor would at the next boot, nor is registered.

    Raises :class:`PreflightFailed` when its host cannot be asked or its unit is another's.
    """
    static = alluxio.membership == "STATIC"
    seen = None if static else registrations.look(inventory, alluxio, fleet)
    probe = Probe(
        resources=(
            File(desired.UNIT_PATH, None),
            Identity(desired.identity_file(alluxio), alluxio.user, ""),
        ),
        units=(desired.UNIT,),
    )
    facts, problems = gather.look(fleet, {worker.machine: probe})
    if problems:
        remedy = _without_host(worker, seen)
        raise PreflightFailed(
            f"{worker.name} cannot be stopped; nothing was changed",
            [Problem(p.where, p.what, f"{p.remedy}; {remedy}", id=p.id) for p in problems],
            id="preflight-failed",
        )
    f = facts[worker.machine]
    stop.require_ours(inventory, [worker], facts)
    changes = _stopping(f)
    mine = {} if seen is None else _its(alluxio, worker, seen.authorized, f)
    steps: list[Step] = []
    waits = _Ended(inventory, alluxio, fleet, worker)
    if changes or (seen is not None and _its(alluxio, worker, seen.live, f)):
        gate = Gate(f"the port of {worker.name} is closed", waits.port)
        if not static:
            gate = Gate(f"the lease of {worker.name} has ended", waits.lease)
        hosts = (HostChanges(worker.name, worker.machine, changes),) if changes else ()
        steps.append(Step(f"stop {worker.name} for good", hosts, after=gate))
    calls, files = registrations.removals(inventory, alluxio, fleet, mine, COMMAND)
    if calls:
        steps.append(Step(f"take {worker.name} out of etcd", calls=calls))
    notes = _elsewhere(alluxio, worker, seen, f)
    return Removal(Plan(COMMAND, inventory.cluster, tuple(steps), notes), files)


def _stopping(f: HostFacts) -> tuple[Change, ...]:
    unit = f.unit(desired.UNIT)
    if unit.load == "not-found":
        return ()
    if unit.active in stop.STOPPED and unit.file_state == "disabled":
        return ()
    pending = f"{PENDING_DIR}/restart.{desired.UNIT}"
    return (
        Change(
            f"stop and disable {desired.UNIT}",
            f"systemctl disable -q --now {desired.UNIT}; rm -f {pending}",
            disrupts=True,
            seconds=90,
        ),
    )


def _its(
    alluxio: AlluxioCluster, worker: AlluxioWorker, entries: Mapping[str, Entry], f: HostFacts
) -> dict[str, Entry]:
    """The entries that are the worker's: at its address, or of its identity and unreadable."""
    identity = desired.identity(alluxio, f)
    own = desired.worker_id(identity) if identity else None
    return {
        worker_id: entry
        for worker_id, entry in entries.items()
        if registrations.is_at(worker, entry)
        or (worker_id == own and not isinstance(entry.registration, Registration))
    }


def _elsewhere(
    alluxio: AlluxioCluster, worker: AlluxioWorker, seen: Membership | None, f: HostFacts
) -> tuple[Problem, ...]:
    identity = desired.identity(alluxio, f)
    entry = seen.authorized.get(desired.worker_id(identity)) if seen and identity else None
    if entry is None or registrations.is_at(worker, entry):
        return ()
    r = entry.registration
    if not isinstance(r, Registration):
        return ()
    what = f"its identity {r.worker_id} is registered as {r.host}:{r.rpc_port}: left as it is"
    remedy = f"if no such worker exists, invoke forget-worker {r.worker_id}"
    return (Problem(worker.name, what, remedy, "warning", id="worker-registered-elsewhere"),)


def _without_host(worker: AlluxioWorker, seen: Membership | None) -> str:
    """What to do when the host is gone for good."""
    ids = [
        i for i, e in (seen.authorized if seen else {}).items() if registrations.is_at(worker, e)
    ]
    if not ids:
        return f"if the host is gone for good, take {worker.name} out of the inventory"
    return f"if the host is gone for good, invoke forget-worker {','.join(ids)}"


class _Ended:
    """The waits for a worker that was stopped."""

    def __init__(
        self,
        inventory: Inventory,
        alluxio: AlluxioCluster,
        fleet: Fleet,
        worker: AlluxioWorker,
    ) -> None:
        self._inventory, self._alluxio, self._fleet = inventory, alluxio, fleet
        self._worker = worker

    def lease(self) -> None:
        # A new leader of etcd's gives every lease its whole time again.
        limit = 2 * self._alluxio.failure_detection_timeout + 15
        deadline = time.monotonic() + limit
        while True:
            late = time.monotonic() > deadline
            there = self._live(late)
            if not there:
                return
            if late:
                raise Unhealthy(
                    f"{', '.join(there)} is live after {limit} s: another process holds its lease; "
                    "nothing was removed from etcd",
                    id="worker-not-stopped",
                )
            time.sleep(POLL_SECONDS)

    def _live(self, late: bool) -> list[str]:
        """The live ids at the worker's address. etcd may change its leader meanwhile."""
        try:
            seen = registrations.look(self._inventory, self._alluxio, self._fleet)
        except Unhealthy:
            if late:
                raise
            return ["(not known)"]
        return [i for i, e in seen.live.items() if registrations.is_at(self._worker, e)]

    def port(self) -> None:
        deadline = time.monotonic() + self._alluxio.start_timeout
        while membership.port_answers(self._fleet, self._worker):
            if time.monotonic() > deadline:
                port = self._worker.rpc_port
                raise Unhealthy(
                    f"{self._worker.name}: port {port} still takes connections",
                    id="worker-not-stopped",
                )
            time.sleep(POLL_SECONDS)
