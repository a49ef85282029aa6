"""The commands on workers and masters: each one's options, help, and parts in their order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from provision.cli.command import command
from provision.cli.run import Run
from provision.cli.tasks import common
from provision.errors import UsageError
from provision.text import counted

if TYPE_CHECKING:
    from provision.cli.documents import StartWorkers
    from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory

_DOWNGRADE = "Go back to the inventory's release on hosts with a newer one."
_AT_ONCE = "How many at a time: a count or a percent of the chosen; 10% when not given."
_KEEP = "How many releases stay on a host (2 or more, or all); older ones are deleted."


@command(
    changes=True,
    guarded=True,
    help={
        "limit": common.LIMIT,
        "batch": common.BATCH,
        "allow_unreachable": common.UNREACHABLE,
        "read": common.READ,
        "downgrade": _DOWNGRADE,
        "take_over": common.TAKE_OVER,
    },
    word="limit",
)
def start_workers(
    run: Run,
    limit: str = "",
    batch: str = "",
    read: str = "",
    downgrade: bool = False,
    take_over: str = "",
    allow_unreachable: str = "",
) -> int:
    """Install, configure and start the Alluxio workers, and wait until each is READY.

    READY: registered, and every listener that its properties turn on answers on its own host.
    """
    from provision.alluxio.commands.read import checked, prove
    from provision.plans.alluxio import start_workers

    if read:
        checked(read)
    inventory, alluxio, chosen = _chosen(run, limit, batch, allow_unreachable)
    taken = common.taken_over(take_over, alluxio.folders)
    etcd = run.etcd(inventory.etcd)
    alluxio = replace(alluxio, downgrade=downgrade, take_over=taken)
    observed = start_workers.observe(alluxio, etcd, chosen, ready=True)
    plan = start_workers.plan(inventory, alluxio, etcd, observed, chosen)
    carried = common.carry_out(run, plan)
    live = {}
    if carried or not plan.steps:
        # A running worker that is not live gets the failure detection time to come back.
        patience = alluxio.failure_detection_timeout
        known = observed.ready if not plan.steps else ()
        live = start_workers.require_live(
            alluxio, etcd, chosen, patience=patience, ready=True, known=known, booting=True
        )
    extra: StartWorkers = {"live": sorted(live)}
    line = f"{len(live)} of {len(chosen)} live"
    problem = None
    if read and live:
        proof = prove(run.fleet, alluxio, read, chosen)
        problem = proof.problem(alluxio)
        extra["read"] = proof.document()
        extra["problems"] = [problem.document()] if problem else []
        line += f"\n{proof.line(alluxio)}"
    common.finish(run, plan, carried, extra, line)
    if problem is not None:
        from provision.cli import console

        console.problems([problem])
    return 0 if problem is None else 1


@command(
    changes=True,
    guarded=True,
    help={
        "limit": common.LIMIT,
        "batch": common.BATCH,
        "allow_unreachable": common.UNREACHABLE,
        "at_once": _AT_ONCE,
        "afresh": "Restart all, also after a run that ended part-way.",
    },
    word="limit",
)
def restart_workers(
    run: Run,
    limit: str = "",
    batch: str = "",
    at_once: str = "",
    afresh: bool = False,
    allow_unreachable: str = "",
) -> int:
    """Restart the running workers, a group at a time: each is READY before the next.

    Stops at the first that does not come back. Run again, it continues with those left.
    """
    from provision.plans.alluxio import restart_workers

    inventory, alluxio, chosen = _chosen(run, limit, batch, allow_unreachable)
    size = restart_workers.group_size(at_once, len(chosen))
    etcd = run.etcd(inventory.etcd)
    plan = restart_workers.restart(inventory, alluxio, etcd, chosen, at_once=size, afresh=afresh)
    common.finish(
        run, plan, common.carry_out(run, plan), line="" if plan.steps else "no worker runs"
    )
    return 0


@command(
    changes=True,
    guarded=True,
    help={
        "limit": common.LIMIT,
        "batch": common.BATCH,
        "allow_unreachable": common.UNREACHABLE,
        "at_once": _AT_ONCE,
        "keep": _KEEP,
        "downgrade": _DOWNGRADE,
    },
    word="limit",
)
def upgrade_workers(
    run: Run,
    limit: str = "",
    batch: str = "",
    at_once: str = "",
    keep: str = "all",
    downgrade: bool = False,
    allow_unreachable: str = "",
) -> int:
    """Bring the running workers to alluxio.version of the inventory, a group at a time.

    The new release is unpacked beside the old one, which stays for rollback-workers.
    """
    from provision.plans.alluxio import restart_workers, upgrade_workers

    number = int(keep) if keep.isascii() and keep.isdigit() else 0
    if keep != "all" and number < upgrade_workers.KEPT:
        least = f"at least {upgrade_workers.KEPT} (the running one and the one before)"
        raise UsageError(f"--keep is a number, {least}, or all; not {keep!r}", id="option-invalid")
    inventory, alluxio, chosen = _chosen(run, limit, batch, allow_unreachable)
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


@command(
    changes=True,
    guarded=True,
    help={
        "to": "Another release that is on the hosts, by its version.",
        "limit": common.LIMIT,
        "batch": common.BATCH,
        "allow_unreachable": common.UNREACHABLE,
        "at_once": _AT_ONCE,
    },
    word="limit",
)
def rollback_workers(
    run: Run,
    to: str = "",
    limit: str = "",
    batch: str = "",
    at_once: str = "",
    allow_unreachable: str = "",
) -> int:
    """Bring the workers back to the release before the inventory's, still on their hosts."""
    from provision.plans.alluxio import restart_workers, upgrade_workers

    inventory, alluxio, chosen = _chosen(run, limit, batch, allow_unreachable)
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


@command(
    changes=True,
    help={
        "limit": common.LIMIT,
        "batch": common.BATCH,
        "allow_unreachable": common.UNREACHABLE,
    },
    word="limit",
)
def stop_workers(run: Run, limit: str = "", batch: str = "", allow_unreachable: str = "") -> int:
    """Stop Alluxio workers. They stay installed; start-workers starts them again."""
    from provision.plans.alluxio import stop_workers

    inventory, alluxio, chosen = _chosen(run, limit, batch, allow_unreachable)
    plan = stop_workers.plan(inventory, chosen, run.fleet)
    line = ""
    if plan.steps and alluxio.membership.in_etcd:
        line = f"they count as live for up to {alluxio.failure_detection_timeout} s more"
    common.finish(run, plan, common.carry_out(run, plan), line=line)
    return 0


@command(
    changes=True,
    guarded=True,
    help={
        "name": "The worker.",
        "revoke_lease": "Revoke its lease, if that has expired and etcd does not remove it.",
    },
)
def decommission_worker(run: Run, name: str, revoke_lease: bool = False) -> int:
    """Stop and disable a worker, wait for its lease to end, remove its id from etcd."""
    from provision.plans.alluxio import decommission_worker

    inventory, alluxio, chosen = _chosen(run, name)
    if len(chosen) != 1:
        raise UsageError(
            "one worker at a time: other workers have to read its data again",
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


@command(
    changes=True,
    guarded=True,
    help={
        "ids": "Worker ids as check-nodes shows them, separated by commas; or stale, for all such.",
        "count": "With stale: how many ids there must be.",
    },
)
def forget_worker(run: Run, ids: str, count: str = "") -> int:
    """Remove from etcd the ids of workers that will not come back. A live worker's id stays."""
    from provision.plans.alluxio import forget_worker

    wanted = common.names(ids)
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


@command(
    changes=True,
    guarded=True,
    help={"file": "The file that the removal has named."},
)
def readmit_worker(run: Run, file: str) -> int:
    """Put a registration back that decommission-worker or forget-worker has removed."""
    from provision.plans.alluxio import readmit_worker

    inventory, alluxio = common.load_alluxio(run)
    etcd = run.etcd(inventory.etcd)
    plan = readmit_worker.plan(inventory, alluxio, etcd, Path(file).expanduser())
    common.finish(run, plan, common.carry_out(run, plan))
    return 0


@command(
    changes=True,
    help={"limit": common.LIMIT, "downgrade": _DOWNGRADE, "take_over": common.TAKE_OVER},
    word="limit",
)
def start_masters(run: Run, limit: str = "", downgrade: bool = False, take_over: str = "") -> int:
    """Install, configure and start the Alluxio masters of alluxio.masters, if there are any."""
    from provision.inventory.selection import choose
    from provision.plans.alluxio import masters

    inventory, alluxio = _masters(run)
    taken = common.taken_over(take_over, alluxio.folders)
    alluxio = replace(alluxio, downgrade=downgrade, take_over=taken)
    chosen = choose(alluxio.masters, limit)
    observed = masters.observe(alluxio, run.fleet, chosen)
    plan = masters.plan(inventory, alluxio, run.fleet, observed, chosen)
    carried = common.carry_out(run, plan)
    if not plan.steps:
        masters.require_healthy(run.fleet, alluxio, chosen)
    listening = counted(len(chosen), "master listens", "masters listen")
    common.finish(run, plan, carried, line=f"{listening}, one is the primary")
    return 0


@command(changes=True, help={"limit": common.LIMIT}, word="limit")
def stop_masters(run: Run, limit: str = "") -> int:
    """Stop Alluxio masters. They stay installed; start-masters starts them again."""
    from provision.inventory.selection import choose
    from provision.plans.alluxio import masters

    inventory, alluxio = _masters(run)
    plan = masters.stop(inventory, alluxio, run.fleet, choose(alluxio.masters, limit))
    common.finish(run, plan, common.carry_out(run, plan))
    return 0


def _chosen(
    run: Run, limit: str, batch: str = "", allow_unreachable: str = ""
) -> tuple[Inventory, AlluxioCluster, tuple[AlluxioWorker, ...]]:
    """The inventory, its Alluxio part, and the workers that --limit, --batch and
    --allow-unreachable leave."""
    inventory, alluxio = common.load_alluxio(run)
    chosen = run.choose(alluxio.workers, limit, batch)
    return inventory, alluxio, common.reachable(run, chosen, allow_unreachable)


def _masters(run: Run) -> tuple[Inventory, AlluxioCluster]:
    inventory, alluxio = common.load_alluxio(run)
    if not alluxio.masters:
        raise UsageError(f"{inventory.path}: has no alluxio.masters", id="section-missing")
    return inventory, alluxio
