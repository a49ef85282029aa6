"""The commands on etcd as a whole: each one's options, help, and parts from top to bottom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from provision.cli.command import command
from provision.cli.run import Run
from provision.cli.tasks import common

if TYPE_CHECKING:
    from provision.etcd.cluster.handle import Etcd
    from provision.host.facts import Probe
    from provision.inventory.resolved import Machine

#: What deploy-etcd needs when the hosts have answered for the first time.
_DEPLOY = ("provision.plans.etcd.deploy_etcd",)


def _probes(etcd: Etcd) -> Mapping[Machine, Probe]:
    from provision.plans.etcd.state import observe

    return observe.probes(etcd)


@command(
    changes=True,
    guarded=True,
    help={
        "no_workers": common.NO_WORKERS,
        "remove": "Members to remove that the inventory does not declare, comma-separated.",
        "downgrade": "Go back to the inventory's patch release on members that run a newer one.",
        "lock_out": common.LOCK_OUT,
        "other_clusters_unknown": common.UNKNOWN,
        "take_over": common.TAKE_OVER,
    },
)
def deploy_etcd(
    run: Run,
    no_workers: bool = False,
    remove: str = "",
    downgrade: bool = False,
    lock_out: str = "",
    take_over: str = "",
    other_clusters_unknown: str = "",
) -> int:
    """Install etcd on the inventory's members, or roll a change out, one member at a time.

    Adds members that the inventory has and etcd does not. Shows and keeps a member that the
    inventory does not declare, and a newer patch release: the inventory may be an old one. The plan
    is shown before it is applied; a second run changes nothing.
    """
    agreed = common.agrees(common.require_own_etcd(run), other_clusters_unknown)
    inventory = common.load_own_etcd(run, *_DEPLOY, plans=_probes)
    from provision.cli import console
    from provision.etcd.cluster import gates
    from provision.plans.etcd import deploy_etcd
    from provision.plans.etcd.state import observe

    taken = common.taken_over(take_over, inventory.etcd.folders)
    cluster = replace(inventory.etcd, downgrade=downgrade, take_over=taken)
    inventory = replace(inventory, etcd=cluster)
    etcd = run.etcd(inventory.etcd)
    observed = observe.observe(etcd)
    plan = deploy_etcd.plan(
        inventory,
        etcd,
        observed,
        write=not run.dry_run,
        workers=not no_workers,
        remove=common.names(remove),
        lock_out=common.names(lock_out),
        agreed=agreed,
    )
    carried = common.carry_out(run, plan)
    seen = observed.health
    if not plan.steps:
        seen = gates.wait_until_recovered(etcd, seen)
    # This command does not change authentication: the workers' logins must change with it.
    console.problems(seen.auth_problems)
    endpoints = [member.client_url for member in inventory.etcd.members]
    plain = [url for url in inventory.etcd.endpoints if url not in endpoints]
    line = "endpoints: " + ",".join(endpoints)
    if plain:
        line += "; without TLS: " + ",".join(plain)
    common.finish(run, plan, carried, {"endpoints": endpoints, "plain_endpoints": plain}, line)
    return 0


@command(
    changes=True,
    guarded=True,
    help={
        "version": "The release, such as 3.6.16; the releases between are of etcd.releases.",
        "backup_dir": "The folder for the snapshot that is taken first.",
    },
    old={"to": "version"},
)
def upgrade_etcd(run: Run, version: str, backup_dir: str = "") -> int:
    """Upgrade etcd: one minor release at a time, one member at a time, the leader last.

    A verified snapshot is taken first. Run an interrupted upgrade again: it continues.
    """
    from provision.plans.etcd import upgrade_etcd
    from provision.plans.etcd.state import observe

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    seen = observe.observe(etcd)
    backup = Path(backup_dir).expanduser().absolute() if backup_dir else None
    plan = upgrade_etcd.plan(inventory, etcd, seen, version, backup=backup, write=not run.dry_run)
    carried = common.carry_out(run, plan)
    line = f"every member runs etcd {version}" if carried or not plan.steps else ""
    if line and inventory.etcd.version != version:
        line += f"; set etcd.version to {version}, and etcd.source, in {inventory.path}"
    common.finish(run, plan, carried, {"version": version}, line)
    return 0


@command(
    changes=True,
    guarded=True,
    help={"name": "The member that becomes the leader."},
    old={"to": "name"},
)
def move_leader(run: Run, name: str) -> int:
    """Make a member the leader, for example before work on the present leader's host."""
    from provision.plans.etcd import move_leader

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    plan = move_leader.plan(inventory, etcd, name)
    line = f"{name} leads" if not run.dry_run else ""
    common.finish(run, plan, common.carry_out(run, plan), {"leader": name}, line)
    return 0


@command(
    changes=True,
    guarded=True,
    help={"lock_out": common.LOCK_OUT, "other_clusters_unknown": common.UNKNOWN},
)
def enable_auth(run: Run, lock_out: str = "", other_clusters_unknown: str = "") -> int:
    """Turn etcd's authentication on: etcd.auth and alluxio.etcd say who may log in.

    The workers' user may only read and write their own cluster's keys. Workers that run get
    their login and are restarted; every other client without one is refused from then on.
    """
    from provision.plans.etcd import auth

    common.require_own_etcd(run)
    agreed = common.agrees(run.inventory, other_clusters_unknown)
    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    seen, named = auth.observe(inventory, etcd), common.names(lock_out)
    plan = auth.enable(inventory, etcd, seen, named, agreed=agreed)
    common.finish(run, plan, common.carry_out(run, plan))
    return 0


@command(
    changes=True,
    guarded=True,
    help={"lock_out": common.LOCK_OUT, "other_clusters_unknown": common.UNKNOWN},
)
def disable_auth(run: Run, lock_out: str = "", other_clusters_unknown: str = "") -> int:
    """Turn etcd's authentication off (etcd.auth.enabled: false); users and roles stay."""
    from provision.plans.etcd import auth

    common.require_own_etcd(run)
    agreed = common.agrees(run.inventory, other_clusters_unknown)
    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    seen, named = auth.observe(inventory, etcd), common.names(lock_out)
    plan = auth.disable(inventory, etcd, seen, named, agreed=agreed)
    common.finish(run, plan, common.carry_out(run, plan))
    return 0
