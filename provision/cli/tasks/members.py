"""The commands that add, remove and replace members of etcd."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from provision.cli.command import command
from provision.cli.run import Run
from provision.cli.tasks import common
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.inventory.resolved import Inventory
    from provision.plans.etcd.members.member_plan import Options

_DELETE_DATA = "The member's name again: delete its old data instead of keeping it aside."


@command(
    changes=True,
    guarded=True,
    help={
        "name": "The member; without it, all that etcd lacks.",
        "no_workers": common.NO_WORKERS,
        "take_over": common.TAKE_OVER,
    },
    word="name",
    old={"name": "name"},
)
def add_member(run: Run, name: str = "", no_workers: bool = False, take_over: str = "") -> int:
    """Add members of the inventory to the running cluster: as learners, then as voters."""
    from provision.plans.etcd.members import add_member
    from provision.plans.etcd.members.member_plan import Options
    from provision.plans.etcd.state import observe

    inventory = _taking_over(common.load_own_etcd(run), take_over)
    etcd = run.etcd(inventory.etcd)
    seen = observe.observe(etcd)
    options = Options(write=not run.dry_run, workers=not no_workers)
    plan = add_member.plan(inventory, etcd, seen, name, options)
    common.finish(run, plan, common.carry_out(run, plan))
    return 0


@command(
    changes=True,
    guarded=True,
    help={
        "name": "The member.",
        "delete_data": _DELETE_DATA,
        "no_workers": common.NO_WORKERS,
        "lock_out": common.LOCK_OUT,
        "other_clusters_unknown": common.UNKNOWN,
    },
)
def remove_member(
    run: Run,
    name: str,
    delete_data: str = "",
    no_workers: bool = False,
    lock_out: str = "",
    other_clusters_unknown: str = "",
) -> int:
    """Remove a member, the leader too. Its unit is stopped and disabled, its data kept aside."""
    from provision.plans.etcd.members import remove_member
    from provision.plans.etcd.state import observe

    common.require_own_etcd(run)
    agreed = common.agrees(run.inventory, other_clusters_unknown)
    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    seen = observe.observe(etcd, dispensable=(name,))
    options = _options(run, name, delete_data, no_workers, lock_out, agreed=agreed)
    plan = remove_member.plan(inventory, etcd, seen, name, options)
    carried = common.carry_out(run, plan)
    declared = any(m.name == name for m in inventory.etcd.members)
    line = f"take {name} out of {inventory.path}, or deploy-etcd adds it again" if declared else ""
    common.finish(run, plan, carried, line=line)
    return 0


@command(
    changes=True,
    guarded=True,
    help={
        "name": "The member.",
        "delete_data": _DELETE_DATA,
        "no_workers": common.NO_WORKERS,
        "take_over": common.TAKE_OVER,
        "lock_out": common.LOCK_OUT,
        "other_clusters_unknown": common.UNKNOWN,
    },
)
def replace_member(
    run: Run,
    name: str,
    delete_data: str = "",
    no_workers: bool = False,
    take_over: str = "",
    lock_out: str = "",
    other_clusters_unknown: str = "",
) -> int:
    """Replace a dead member: the old one is removed, a new one of its name joins as a learner."""
    from provision.plans.etcd.members import replace_member
    from provision.plans.etcd.state import observe

    common.require_own_etcd(run)
    agreed = common.agrees(run.inventory, other_clusters_unknown)
    inventory = _taking_over(common.load_own_etcd(run), take_over)
    etcd = run.etcd(inventory.etcd)
    seen = observe.observe(etcd)
    options = _options(run, name, delete_data, no_workers, lock_out, agreed=agreed)
    plan = replace_member.plan(inventory, etcd, seen, name, options)
    line = "" if plan.steps else f"{name} is healthy: there is nothing to replace"
    common.finish(run, plan, common.carry_out(run, plan), line=line)
    return 0


def _taking_over(inventory: Inventory, take_over: str) -> Inventory:
    taken = common.taken_over(take_over, inventory.etcd.folders)
    return replace(inventory, etcd=replace(inventory.etcd, take_over=taken))


def _options(
    run: Run, name: str, delete_data: str, no_workers: bool, lock_out: str, *, agreed: bool
) -> Options:
    from provision.plans.etcd.members.member_plan import Options

    if delete_data not in ("", name):
        raise UsageError(
            f"--delete-data is {name} or nothing, not {delete_data!r}", id="option-invalid"
        )
    delete = (delete_data,) if delete_data else ()
    return Options(
        write=not run.dry_run,
        workers=not no_workers,
        delete=delete,
        lock_out=common.names(lock_out),
        agreed=agreed,
    )
