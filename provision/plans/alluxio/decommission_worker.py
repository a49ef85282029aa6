"""``decommission-worker``: stop and disable it, wait for its lease to end, remove its id from etcd.

Alluxio 313's own ``bin/alluxio process remove-worker -n ID`` removes only the AUTHORIZED key of a
worker that is not live (``EtcdMembershipManager.decommission``); it stops no process. Until the key
is removed, ``info nodes`` lists the stopped worker. The plan waits for the worker's lease and does
not revoke it. A lease that ends by itself proves that no other process (a clone, for example) lives
under the same id. When etcd keeps an expired lease, the operator may order its revocation.
"""

from __future__ import annotations

from collections.abc import Mapping

from provision import wait
from provision.alluxio.membership import leases, registrations
from provision.alluxio.membership.registrations import Entry, Registration, RegistrationSnapshot
from provision.alluxio.worker import desired
from provision.engine.plan import Action, Gate, HostChanges, Plan, Step
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd.api.values import KeyValue
from provision.etcd.cluster.handle import Etcd
from provision.host import gather
from provision.host.diff import Change
from provision.host.facts import HostFacts, Probe, restart_mark
from provision.host.resources import File, Identity
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory
from provision.plans.alluxio import forget_worker, stop_workers
from provision.plans.alluxio.forget_worker import Removal
from provision.ssh.session import Fleet

COMMAND = "decommission-worker"
POLL_SECONDS = 0.25


def plan(
    inventory: Inventory,
    alluxio: AlluxioCluster,
    etcd: Etcd,
    worker: AlluxioWorker,
    *,
    revoke_lease: bool = False,
) -> Removal:
    """The plan. It is empty when the worker is stopped, disabled and not registered.

    The lease of the stopped worker may have expired without etcd removing it. With
    ``revoke_lease`` the plan revokes that lease; without, it raises :class:`Unhealthy`. Raises
    :class:`PreflightFailed` when the host cannot be asked or the unit belongs to another cluster.
    """
    in_etcd = alluxio.membership.in_etcd
    seen = forget_worker.look(alluxio, etcd) if in_etcd else None
    probe = Probe(
        resources=(
            File(desired.UNIT_PATH, None),
            Identity(desired.identity_file(alluxio), alluxio.user, ""),
        ),
        units=(desired.UNIT,),
    )
    facts, problems = gather.gather_facts(etcd.fleet, {worker.machine: probe})
    if problems:
        remedy = _without_host(worker, seen)
        raise PreflightFailed(
            f"{worker.name} cannot be stopped",
            [Problem(p.where, p.what, f"{p.remedy}; {remedy}", id=p.id) for p in problems],
            id="preflight-failed",
        )
    f = facts[worker.machine]
    stop_workers.require_ours(inventory, [worker], facts)
    changes = _stopping(f)
    mine = {} if seen is None else _its(alluxio, worker, seen.authorized, f)
    steps: list[Step] = []
    live = {} if seen is None else _its(alluxio, worker, seen.live, f)
    stuck = {} if changes else _stuck(alluxio, etcd, live)
    remedy = f"invoke decommission-worker {worker.name} --revoke-lease ends it"
    if stuck and not revoke_lease:
        worker_id, (_, since) = next(iter(stuck.items()))
        raise leases.stuck(worker_id, since, remedy)
    if stuck:
        revoking = tuple(_revoke(alluxio, etcd, i, key, since) for i, (key, since) in stuck.items())
        steps.append(Step(f"revoke the expired lease of {worker.name}", calls=revoking))
    if changes or set(live) - set(stuck):
        gate = Gate(
            f"the port of {worker.name} is closed", lambda: _closed(alluxio, etcd.fleet, worker)
        )
        if in_etcd:
            wait = leases.Wait(*(alluxio, etcd, lambda seen: _at(worker, seen.live)), remedy)
            gate = Gate(f"the lease of {worker.name} has ended", wait)
        hosts = (HostChanges(worker.name, worker.machine, changes),) if changes else ()
        steps.append(Step(f"stop {worker.name} permanently", hosts, after=gate))
    calls, files = forget_worker.removals(alluxio, etcd, mine, COMMAND)
    if calls:
        steps.append(Step(f"take {worker.name} out of etcd", calls=calls))
    notes = _elsewhere(alluxio, worker, seen, f)
    if revoke_lease and not stuck:
        notes = (*notes, _nothing_to_revoke(worker))
    # Also when it is stopped already, by a run that was killed: another run could start it.
    guards = (worker.machine,) if steps else ()
    return Removal(Plan(COMMAND, inventory.cluster, tuple(steps), notes, guards), files)


def _stuck(
    alluxio: AlluxioCluster, etcd: Etcd, live: Mapping[str, Entry]
) -> dict[str, tuple[KeyValue, int]]:
    """The keys in ``live`` with an expired lease that etcd does not remove, and the seconds since
    the lease expired."""
    if not live:
        return {}
    held = {i: entry.key for i, entry in live.items() if entry.key.lease}
    with etcd.as_worker(desired.login(alluxio)).any() as client:
        times = client.lease_times([key.lease for key in held.values()], leases.SECONDS)
    since = {i: times[key.lease].expired_since for i, key in held.items() if key.lease in times}
    return {i: (held[i], s) for i, s in since.items() if s > leases.STUCK_SECONDS}


def _revoke(
    alluxio: AlluxioCluster,
    etcd: Etcd,
    worker_id: str,
    key: KeyValue,
    since: int,
) -> Action:
    """Revoke the lease of ``key``, if the lease has expired and still holds no other key."""

    def do() -> None:
        with etcd.as_worker(desired.login(alluxio)).any() as client:
            now = client.lease_time(key.lease)
            if not now.granted:  # etcd has removed it meanwhile, and the key with it
                return
            if now.expired_since <= leases.STUCK_SECONDS or now.keys != (key.key,):
                what = "is kept alive again" if now.left >= 0 else "has other keys, too"
                raise Unhealthy(
                    f"the lease of {worker_id} {what}: it was not revoked",
                    id="changed-meanwhile",
                )
            client.lease_revoke(key.lease)

    return Action(f"etcd: revoke lease {key.lease:x} of {worker_id}, expired for {since} s", do)


def _nothing_to_revoke(worker: AlluxioWorker) -> Problem:
    what = "--revoke-lease has nothing to do: no lease of this stopped worker has expired"
    return Problem(worker.name, what, "", "warning", id="command-not-applicable")


def _stopping(f: HostFacts) -> tuple[Change, ...]:
    unit = f.unit(desired.UNIT)
    if unit.load == "not-found":
        return ()
    if unit.active in stop_workers.STOPPED and unit.file_state == "disabled":
        return ()
    return (
        Change(
            f"stop and disable {desired.UNIT}",
            f"systemctl disable -q --now {desired.UNIT}; rm -f {restart_mark(desired.UNIT)}",
            disrupts=True,
            seconds=90,
            stops=(desired.UNIT,),
        ),
    )


def _its(
    alluxio: AlluxioCluster, worker: AlluxioWorker, entries: Mapping[str, Entry], f: HostFacts
) -> dict[str, Entry]:
    """The worker's entries: at its address, or under its identity and unreadable."""
    identity = desired.identity(alluxio, f)
    own = desired.worker_id(identity) if identity else None
    return {
        worker_id: entry
        for worker_id, entry in entries.items()
        if forget_worker.is_at(worker, entry)
        or (worker_id == own and not isinstance(entry.registration, Registration))
    }


def _elsewhere(
    alluxio: AlluxioCluster, worker: AlluxioWorker, seen: RegistrationSnapshot | None, f: HostFacts
) -> tuple[Problem, ...]:
    identity = desired.identity(alluxio, f)
    entry = seen.authorized.get(desired.worker_id(identity)) if seen and identity else None
    if entry is None or forget_worker.is_at(worker, entry):
        return ()
    r = entry.registration
    if not isinstance(r, Registration):
        return ()
    what = (
        f"its identity {r.worker_id} is registered as {r.host}:{r.rpc_port}: that "
        "registration is not changed"
    )
    remedy = f"if no such worker exists, invoke forget-worker {r.worker_id}"
    return (Problem(worker.name, what, remedy, "warning", id="worker-registered-elsewhere"),)


def _without_host(worker: AlluxioWorker, seen: RegistrationSnapshot | None) -> str:
    """What to do when the host is gone for good."""
    ids = [
        i for i, e in (seen.authorized if seen else {}).items() if forget_worker.is_at(worker, e)
    ]
    if not ids:
        return f"if the host will not come back, take {worker.name} out of the inventory"
    return f"if the host will not come back, invoke forget-worker {','.join(ids)}"


def _at(worker: AlluxioWorker, live: Mapping[str, Entry]) -> list[str]:
    """The live ids at the worker's address."""
    return [i for i, entry in live.items() if forget_worker.is_at(worker, entry)]


def _closed(alluxio: AlluxioCluster, fleet: Fleet, worker: AlluxioWorker) -> None:
    """Wait until the worker's port takes no connection. Raises :class:`Unhealthy`."""

    def answers() -> bool:
        return registrations.port_answers(fleet, worker)

    what = f"{worker.name} closes its port"
    if wait.until(answers, lambda does: not does, alluxio.start_timeout, POLL_SECONDS, what=what):
        raise Unhealthy(
            f"{worker.name}: port {worker.rpc_port} still takes connections",
            id="worker-not-stopped",
        )
