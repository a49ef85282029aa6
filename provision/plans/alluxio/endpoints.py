"""Updates the workers' list of etcd endpoints after etcd's members have changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from provision.alluxio.worker import desired
from provision.dataclass import dataclass
from provision.engine.plan import Step
from provision.errors import Problem
from provision.etcd.cluster.handle import Etcd
from provision.host import gather
from provision.host.ownership import owner
from provision.inventory.model import AlluxioEtcd
from provision.inventory.resolved import AlluxioCluster, EtcdCluster, Inventory
from provision.plans.alluxio import moved, start_workers
from provision.plans.alluxio.start_workers import WorkersState


@dataclass(frozen=True, slots=True)
class Told:
    """``complete``: every installed worker was looked at, and will know the endpoints."""

    steps: Sequence[Step]
    notes: Sequence[Problem]
    complete: bool


def steps(
    inventory: Inventory, alluxio: AlluxioCluster, etcd: Etcd, running_etcd: EtcdCluster
) -> Told:
    """The rolling change that brings the running workers to the state in ``inventory``.

    The registrations are read from ``running_etcd``, because possibly none of the inventory's
    members is up yet. Raises :class:`Unhealthy` when it does not serve.

    Stopped workers are left alone, with a note: start-workers gives them the endpoints. Workers on
    unreachable hosts are left alone, too; the change of etcd's members does not wait for them.
    Authentication counts as it is in etcd, not as it is declared: see :func:`_as_it_is`.
    """
    tarballs = start_workers.fetch(alluxio, unread=True)
    probes = desired.probes(alluxio, alluxio.workers, tarballs)
    facts, absent = gather.gather_facts(etcd.fleet, probes)
    remedy = "run invoke start-workers when it is back"
    notes = [
        Problem(
            p.where,
            f"its worker still has the old etcd endpoints: {p.what}",
            remedy,
            "warning",
            id="endpoints-stale",
        )
        for p in absent
    ]
    installed = [
        w
        for w in alluxio.workers
        if w.machine in facts and owner(facts[w.machine], desired.UNIT_PATH) == alluxio.name
    ]
    running = [w for w in installed if facts[w.machine].unit(desired.UNIT).active == "active"]
    for w in installed:
        if w not in running:
            what = "does not run, and still has the old etcd endpoints"
            notes.append(
                Problem(
                    w.place,
                    what,
                    "start-workers",
                    "warning",
                    id="endpoints-stale",
                )
            )
    there = etcd.with_cluster(running_etcd)
    moving = moved.left_to_start_workers(alluxio, there, running, facts)
    notes += [
        replace(p, what=f"still has the old etcd endpoints; {p.what}", severity="warning")
        for p in moving.values()
    ]
    running = [w for w in running if w.name not in moving]
    differing: Sequence[Problem] = ()
    if running:
        fits, differing = _as_it_is(alluxio, there)
        if fits is None:
            return Told([], [*notes, *differing], False)
        alluxio, inventory = fits, replace(inventory, alluxio=fits)
    here = {w.machine: facts[w.machine] for w in running}
    tarballs = start_workers.certain(alluxio, tarballs, here.values())
    found = start_workers.host_problems(
        alluxio, running, tarballs, etcd.fleet, {m: probes[m] for m in here}, here
    )
    if unfit := [p for p in found if p.severity == "error"]:
        # The members do not wait for it. start-workers says the same.
        notes += [
            replace(
                p,
                what=f"its workers still have the old etcd endpoints: {p.what}",
                severity="warning",
            )
            for p in unfit
        ]
        return Told([], [*notes, *differing], False)
    plan = start_workers.plan(inventory, alluxio, etcd, WorkersState(tarballs, facts), running)
    # A worker with a newer release keeps its configuration, with the old endpoints in it.
    told = [*notes, *differing, *plan.notes, *plan.left]
    return Told(plan.steps, told, not (notes or plan.left))


def _as_it_is(
    alluxio: AlluxioCluster, etcd: Etcd
) -> tuple[AlluxioCluster | None, Sequence[Problem]]:
    """``alluxio`` with the login that etcd wants now; None when the inventory does not have it.

    While authentication is off, Alluxio 313 cannot join with a login, and while it is on, it cannot
    without one: a worker that is restarted as declared would not come back. Raises
    :class:`Unhealthy` when etcd does not serve.
    """
    login = desired.login(alluxio)
    handle = etcd.as_worker(login)
    with handle.any() as client:
        enabled = client.log_in() if handle.credentials is not None else client.auth_enabled()
    if enabled is (login is not None):
        return alluxio, ()
    state, command = ("on", "disable-auth") if enabled else ("off", "enable-auth")
    what = f"authentication is {state}, and the inventory declares it otherwise: "
    if not enabled:
        what += "the workers get the new endpoints without their login"
        note = Problem("etcd", what, f"run invoke {command}", "warning", id="auth-differs")
        return replace(alluxio, etcd_login=AlluxioEtcd()), (note,)
    what += "the workers still have the old endpoints"
    note = Problem("etcd", what, f"run invoke {command}", "warning", id="auth-differs")
    return None, (note,)
