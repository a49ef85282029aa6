"""The parts of each command on workers and masters, from top to bottom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.cli.run import Run
from provision.cli.tasks import common
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory


def _chosen(
    run: Run, limit: str, batch: str = ""
) -> tuple[Inventory, AlluxioCluster, tuple[AlluxioWorker, ...]]:
    """The inventory, its Alluxio part, and the workers that --limit and --batch leave."""
    from provision.inventory.selection import choose

    inventory, alluxio = common.load_alluxio(run)
    return inventory, alluxio, choose(alluxio.workers, limit, batch)


def start_workers(run: Run, limit: str, batch: str, path: str = "", downgrade: bool = False) -> int:
    """Bring the workers to the state in the inventory, and wait until each is ready.

    With ``path``, the file at that path is read through a worker at the end.
    """
    from provision.alluxio.commands import read
    from provision.plans.alluxio import start_workers

    if path:
        read.checked(path)
    inventory, alluxio, chosen = _chosen(run, limit, batch)
    etcd = run.etcd(inventory.etcd)
    alluxio = replace(alluxio, downgrade=downgrade)
    observed = start_workers.observe(alluxio, etcd, chosen)
    plan = start_workers.plan(inventory, alluxio, etcd, observed, chosen)
    carried = common.carry_out(run, plan)
    live = {}
    if carried or not plan.steps:
        # A running worker that is not live gets the failure detection time to come back.
        patience = alluxio.failure_detection_timeout
        live = start_workers.require_live(alluxio, etcd, chosen, patience=patience, ready=True)
    extra: dict[str, Any] = {"live": sorted(live)}
    line = f"{len(live)} of {len(chosen)} live"
    problem = None
    if path and live:
        proof = read.prove(run.fleet, alluxio, path, chosen)
        problem = proof.problem(alluxio)
        extra |= {"read": proof.document(), "problems": [problem.document()] if problem else []}
        line += f"\n{proof.line(alluxio)}"
    common.finish(run, plan, carried, extra, line)
    if problem is not None:
        from provision.cli import console

        console.problems([problem])
    return 0 if problem is None else 1


def restart_workers(run: Run, limit: str, batch: str, at_once: str, afresh: bool) -> int:
    """Restart workers group by group, each group live before the next is touched."""
    from provision.plans.alluxio import restart_workers

    inventory, alluxio, chosen = _chosen(run, limit, batch)
    size = restart_workers.group_size(at_once, len(chosen))
    etcd = run.etcd(inventory.etcd)
    plan = restart_workers.restart(inventory, alluxio, etcd, chosen, at_once=size, afresh=afresh)
    common.finish(
        run, plan, common.carry_out(run, plan), line="" if plan.steps else "no worker runs"
    )
    return 0


def upgrade_workers(
    run: Run, limit: str, batch: str, at_once: str, keep: str, downgrade: bool = False
) -> int:
    """Bring the running workers to the inventory's release, group by group."""
    from provision.plans.alluxio import restart_workers, upgrade_workers

    number = int(keep) if keep.isascii() and keep.isdigit() else 0
    if keep != "all" and number < upgrade_workers.KEPT:
        least = f"at least {upgrade_workers.KEPT} (the running one and the one before)"
        raise UsageError(f"--keep is a number, {least}, or all; not {keep!r}", id="option-invalid")
    inventory, alluxio, chosen = _chosen(run, limit, batch)
    alluxio = replace(alluxio, downgrade=downgrade)
    size = restart_workers.group_size(at_once, len(chosen))
    etcd = run.etcd(inventory.etcd)
    plan = upgrade_workers.upgrade(
        inventory, alluxio, etcd, chosen, at_once=size, keep=number or None
    )
    carried = common.carry_out(run, plan)
    runs = upgrade_workers.running(alluxio, run.fleet, chosen)
    common.finish(
        run, plan, carried, {"running": runs}, upgrade_workers.said(runs, alluxio.version)
    )
    return 0


def rollback_workers(run: Run, to: str, limit: str, batch: str, at_once: str) -> int:
    """Bring the running workers back to the release before, which is still on their hosts."""
    from provision.plans.alluxio import restart_workers, upgrade_workers

    inventory, alluxio, chosen = _chosen(run, limit, batch)
    size = restart_workers.group_size(at_once, len(chosen))
    etcd = run.etcd(inventory.etcd)
    back = upgrade_workers.rollback(inventory, alluxio, etcd, chosen, to=to, at_once=size)
    carried = common.carry_out(run, back.plan)
    runs = upgrade_workers.running(alluxio, run.fleet, chosen)
    line = upgrade_workers.said(runs, alluxio.version)
    if back.to is not None and back.to != alluxio.version:
        line += f"; in {inventory.path} set alluxio.version to {back.to}, and alluxio.source to its"
        line += f" tarball (sha256 {back.digest}), or start-workers and upgrade-workers go to"
        line += f" {alluxio.version} again"
    common.finish(run, back.plan, carried, {"running": runs, "to": back.to}, line)
    return 0


def stop_workers(run: Run, limit: str, batch: str) -> int:
    from provision.plans.alluxio import stop_workers

    inventory, alluxio, chosen = _chosen(run, limit, batch)
    plan = stop_workers.plan(inventory, chosen, run.fleet)
    line = ""
    if plan.steps and alluxio.membership.in_etcd:
        line = f"they count as live for up to {alluxio.failure_detection_timeout} s more"
    common.finish(run, plan, common.carry_out(run, plan), line=line)
    return 0


def decommission_worker(run: Run, name: str, revoke_lease: bool = False) -> int:
    """Stop a worker for good, and remove its registration from etcd."""
    from provision.plans.alluxio import decommission_worker

    if not name:
        raise UsageError("which worker? invoke decommission-worker NAME", id="argument-missing")
    inventory, alluxio, chosen = _chosen(run, name)
    if len(chosen) != 1:
        raise UsageError(
            "one worker at a time: the data that it held is read anew elsewhere",
            id="option-invalid",
        )
    etcd = run.etcd(inventory.etcd)
    removal = decommission_worker.plan(
        inventory, alluxio, etcd, chosen[0], revoke_lease=revoke_lease
    )
    carried = common.carry_out(run, removal.plan)
    line = f"take {name} out of {inventory.path}, or start-workers starts it again"
    common.finish(run, removal.plan, carried, {"kept": list(map(str, removal.files))}, line)
    return 0


def forget_worker(run: Run, ids: str, count: str) -> int:
    """Remove registrations of workers that are not live from etcd."""
    from provision.plans.alluxio import forget_worker

    wanted = [i.strip() for i in ids.split(",") if i.strip()]
    if not wanted:
        raise UsageError(
            "which id? invoke forget-worker ID, as check-nodes shows it", id="argument-missing"
        )
    if (wanted == ["stale"]) != bool(count):
        raise UsageError(
            "--count N goes with stale, and stale with it: how many ids are stale?",
            id="option-invalid",
        )
    if count and not (count.isascii() and count.isdigit() and int(count)):
        raise UsageError(f"--count is a number above 0, not {count!r}", id="option-invalid")
    inventory, alluxio = common.load_alluxio(run)
    etcd = run.etcd(inventory.etcd)
    removal = (
        forget_worker.forget_stale(inventory, alluxio, etcd, int(count))
        if count
        else forget_worker.forget(inventory, alluxio, etcd, wanted)
    )
    carried = common.carry_out(run, removal.plan)
    line = "" if removal.plan.steps else f"{', '.join(wanted)}: no such id is registered"
    common.finish(run, removal.plan, carried, {"kept": list(map(str, removal.files))}, line)
    return 0


def readmit_worker(run: Run, file: str) -> int:
    """Write back a registration that decommission-worker or forget-worker has removed."""
    from provision.plans.alluxio import readmit_worker

    if not file:
        raise UsageError(
            "which file? invoke readmit-worker FILE, as it was said at the removal",
            id="argument-missing",
        )
    inventory, alluxio = common.load_alluxio(run)
    etcd = run.etcd(inventory.etcd)
    plan = readmit_worker.plan(inventory, alluxio, etcd, Path(file).expanduser())
    common.finish(run, plan, common.carry_out(run, plan))
    return 0


def start_masters(run: Run, limit: str, downgrade: bool = False) -> int:
    """Bring the masters to the state in the inventory, and wait until they have a primary."""
    from provision.inventory.selection import choose
    from provision.plans.alluxio import masters

    inventory, alluxio = _masters(run)
    alluxio = replace(alluxio, downgrade=downgrade)
    chosen = choose(alluxio.masters, limit)
    observed = masters.observe(alluxio, run.fleet, chosen)
    plan = masters.plan(inventory, alluxio, run.fleet, observed, chosen)
    carried = common.carry_out(run, plan)
    if not plan.steps:
        masters.require_healthy(run.fleet, alluxio, chosen)
    common.finish(run, plan, carried, {}, f"{len(chosen)} masters listen, one is the primary")
    return 0


def stop_masters(run: Run, limit: str) -> int:
    from provision.inventory.selection import choose
    from provision.plans.alluxio import masters

    inventory, alluxio = _masters(run)
    plan = masters.stop(inventory, alluxio, run.fleet, choose(alluxio.masters, limit))
    common.finish(run, plan, common.carry_out(run, plan))
    return 0


def _masters(run: Run) -> tuple[Inventory, AlluxioCluster]:
    inventory, alluxio = common.load_alluxio(run)
    if not alluxio.masters:
        raise UsageError(f"{inventory.path}: has no alluxio.masters", id="section-missing")
    return inventory, alluxio
