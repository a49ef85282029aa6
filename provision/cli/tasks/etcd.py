"""The parts of each command on etcd, from top to bottom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from provision.cli.run import Run
from provision.cli.tasks import common
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.engine.plan import Plan, Step
    from provision.inventory.resolved import Inventory, Machine
    from provision.plans.alluxio.reregister_workers import Watch


def deploy_etcd(run: Run, workers: bool, remove: str = "", downgrade: bool = False) -> int:
    """Bring the etcd cluster to the state in the inventory, and print its endpoints."""
    from provision.cli import console
    from provision.etcd.cluster import gates
    from provision.plans.etcd import deploy_etcd
    from provision.plans.etcd.state import observe

    inventory = common.load_own_etcd(run)
    inventory = replace(inventory, etcd=replace(inventory.etcd, downgrade=downgrade))
    etcd = run.etcd(inventory.etcd)
    observed = observe.observe(etcd)
    plan = deploy_etcd.plan(
        inventory,
        etcd,
        observed,
        write=not run.dry_run,
        workers=workers,
        remove=[name.strip() for name in remove.split(",") if name.strip()],
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


def add_member(run: Run, name: str, workers: bool) -> int:
    """Add one declared member, or all that etcd does not have."""
    from provision.plans.etcd.members import add_member
    from provision.plans.etcd.members.member_plan import Options
    from provision.plans.etcd.state import observe

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    seen = observe.observe(etcd)
    options = Options(write=not run.dry_run, workers=workers)
    plan = add_member.plan(inventory, etcd, seen, name, options)
    common.finish(run, plan, common.carry_out(run, plan))
    return 0


def remove_member(run: Run, name: str, delete: str, workers: bool) -> int:
    """Remove one member from the cluster, and clean its host."""
    from provision.plans.etcd.members import remove_member
    from provision.plans.etcd.members.member_plan import Options
    from provision.plans.etcd.state import observe

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    seen = observe.observe(etcd, dispensable=(name,))
    options = Options(write=not run.dry_run, workers=workers, delete=_deletions(delete, name))
    plan = remove_member.plan(inventory, etcd, seen, name, options)
    carried = common.carry_out(run, plan)
    declared = any(m.name == name for m in inventory.etcd.members)
    line = f"take {name} out of {inventory.path}, or deploy-etcd adds it again" if declared else ""
    common.finish(run, plan, carried, {}, line)
    return 0


def replace_member(run: Run, name: str, delete: str, workers: bool) -> int:
    """Replace a dead member with a new one of the same name."""
    from provision.plans.etcd.members import replace_member
    from provision.plans.etcd.members.member_plan import Options
    from provision.plans.etcd.state import observe

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    seen = observe.observe(etcd)
    options = Options(write=not run.dry_run, workers=workers, delete=_deletions(delete, name))
    plan = replace_member.plan(inventory, etcd, seen, name, options)
    line = "" if plan.steps else f"{name} is healthy: there is nothing to replace"
    common.finish(run, plan, common.carry_out(run, plan), {}, line)
    return 0


def upgrade_etcd(run: Run, to: str, backup_dir: str) -> int:
    """Bring every member to one release, by way of the minor releases between."""
    from provision.plans.etcd import upgrade_etcd
    from provision.plans.etcd.state import observe

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    seen = observe.observe(etcd)
    backup = Path(backup_dir).expanduser().absolute() if backup_dir else None
    plan = upgrade_etcd.plan(inventory, etcd, seen, to, backup=backup, write=not run.dry_run)
    carried = common.carry_out(run, plan)
    line = f"every member runs etcd {to}" if carried or not plan.steps else ""
    if line and inventory.etcd.version != to:
        line += f"; set etcd.version to {to}, and etcd.source, in {inventory.path}"
    common.finish(run, plan, carried, {"version": to}, line)
    return 0


def move_leader(run: Run, to: str) -> int:
    """Make one member the leader."""
    from provision.plans.etcd import move_leader

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    plan = move_leader.plan(inventory, etcd, to)
    line = f"{to} leads" if not run.dry_run else ""
    common.finish(run, plan, common.carry_out(run, plan), {"leader": to}, line)
    return 0


def rotate_certs(run: Run, ca: bool, limit: str, confirmed: str = "") -> int:
    """New leaf certificates, or a new CA, one member at a time and without an outage.

    A CA that has expired, or is lost, is replaced in one outage. The name is the consent.
    """
    from provision.cli import console
    from provision.etcd.cluster import gates
    from provision.etcd.pki import tls
    from provision.inventory.selection import choose
    from provision.plans.etcd.certificates import rotate_certs
    from provision.plans.etcd.state import observe

    if ca and limit:
        raise UsageError("--ca is for all members: leave --limit out", id="option-invalid")
    inventory = common.load_own_etcd(run)
    members = choose(inventory.etcd.members, limit)
    cluster, etcd = inventory.etcd, run.etcd(inventory.etcd)
    observed = observe.observe(etcd)

    def planned(write: bool) -> Plan:
        if ca:
            return rotate_certs.authority(etcd, observed, write=write)
        return rotate_certs.leaves(etcd, observed, members, write=write)

    if (ca or cluster.tls.ca == "external") and rotate_certs.needs_outage(cluster, observed):
        if not confirmed and not run.dry_run:
            rotate_certs.require_at_hand(cluster, observed)
        what = "All members restart together: etcd does not answer for some seconds"
        consent = common.Consent(cluster.name, confirmed, "rotated", what, tls.YES_OUTAGE)
        preview = planned(False)
        console.problems(preview.notes)
        consent.require(run, preview)
        # The CA is made only now. The steps are the same steps that were shown.
        plan = replace(planned(not run.dry_run), notes=())
        run.shown = plan.steps if run.shown is preview.steps else run.shown
    else:
        rotate_certs.require_at_hand(cluster, observed)
        if not rotate_certs.cut_off(cluster, observed):
            # A killed run may have left a member while it was starting: this run waits for it.
            health = gates.wait_until_recovered(etcd, observed.health)
            observed = replace(observed, health=health)
            gates.require_writable(health)
        plan = planned(not run.dry_run)
    common.finish(run, plan, common.carry_out(run, plan))
    return 0


def export_csrs(run: Run, to: str, every: bool, limit: str) -> int:
    """Keys on the members' hosts, and a folder of signing requests for the external CA."""
    from provision.inventory.selection import choose
    from provision.plans.etcd.certificates import csr_exchange

    if not to:
        raise UsageError("where to? --to DIR, the folder for the requests", id="argument-missing")
    inventory = common.load_own_etcd(run)
    members = choose(inventory.etcd.members, limit)
    folder = Path(to).expanduser().absolute()
    plan = csr_exchange.export(inventory, run.fleet, members, folder, every=every)
    carried = common.carry_out(run, plan)
    line = f"have them signed, then invoke import-certs {to}" if carried else ""
    if not plan.steps:
        line = f"nothing to ask for that is not in {to} (--all: certificates that are good, too)"
    common.finish(run, plan, carried, {"folder": str(folder)}, line)
    return 0


def import_certs(run: Run, folder: str | None) -> int:
    """Verify all certificates that the external CA has signed, and import them."""
    from provision.plans.etcd.certificates import csr_exchange

    if not folder:
        raise UsageError(
            "from where? invoke import-certs DIR, the folder of export-csrs", id="argument-missing"
        )
    inventory = common.load_own_etcd(run)
    plan = csr_exchange.import_(inventory, Path(folder).expanduser().absolute())
    carried = common.carry_out(run, plan)
    line = "invoke deploy-etcd, or rotate-certs on a running cluster, puts them to use"
    common.finish(run, plan, carried, {}, line if carried else "")
    return 0


def enable_auth(run: Run, lock_out: str) -> int:
    """Users and roles, the workers' login, and etcd's authentication on."""
    from provision.plans.etcd import auth

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    agreed = [name.strip() for name in lock_out.split(",") if name.strip()]
    plan = auth.enable(inventory, etcd, auth.observe(inventory, etcd), agreed)
    common.finish(run, plan, common.carry_out(run, plan))
    return 0


def disable_auth(run: Run) -> int:
    """etcd's authentication off, and the workers without a login."""
    from provision.plans.etcd import auth

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    plan = auth.disable(inventory, etcd, auth.observe(inventory, etcd))
    common.finish(run, plan, common.carry_out(run, plan))
    return 0


def backup_etcd(run: Run, to: str, keep: str, fetch: bool = False) -> int:
    """Take a snapshot of etcd on this machine and prove it; or fetch the timer's snapshots."""
    from provision import terminal
    from provision.engine import audit as log
    from provision.plans.etcd.data import backup_etcd

    if keep != "all" and not (keep.isascii() and keep.isdigit() and int(keep)):
        raise UsageError(f"--keep is a number above 0, or all; not {keep!r}", id="option-invalid")
    count = 0 if keep == "all" else int(keep)
    if fetch:
        run.guarded = False  # files are fetched, also when no member serves
    inventory = common.load_own_etcd(run)
    into = Path(to).expanduser() if to else backup_etcd.default_directory(inventory)
    if fetch:
        return _fetch(run, inventory, into, count)
    backup = backup_etcd.take(run.etcd(inventory.etcd), into, keep=count)
    by = log.author(run.command, inventory.cluster)
    log.note(
        by,
        backup.member,
        [f"save {backup.path}", *(f"remove {p}" for p in backup.removed)],
        ok=True,
    )
    common.note(run)
    if run.json:
        terminal.emit_json(backup.document())
        return 0
    print(backup_etcd.describe(backup))
    for path in backup.removed:
        print(f"removed {path}: --keep {keep}")
    return 0


def _fetch(run: Run, inventory: Inventory, into: Path, keep: int) -> int:
    from provision import terminal
    from provision.cli import console
    from provision.engine import audit as log
    from provision.plans.etcd.data import fetch_backups

    fetched = fetch_backups.take(inventory, run.fleet, into, keep=keep)
    by = log.author(run.command, inventory.cluster)
    for path, saved in fetched.came:
        log.note(by, saved.member, [f"fetch {path}"], ok=True)
    for path in fetched.removed:
        log.note(by, "", [f"remove {path}"], ok=True)
    if run.json:
        terminal.emit_json(fetched.document())
    else:
        print("\n".join(fetch_backups.describe(fetched)))
        for path in fetched.removed:
            print(f"removed {path}: --keep {keep}")
        console.problems(fetched.problems)
    return 1 if any(p.severity == "error" for p in fetched.problems) else 0


def restore_etcd(run: Run, file: str | None, confirmed: str, bump: bool) -> int:
    """Restore every member from one snapshot. The cluster's name is the consent."""
    from provision.cli import console
    from provision.engine.plan import further
    from provision.plans.alluxio import reregister_workers
    from provision.plans.etcd.data import restore_etcd

    if not file:
        raise UsageError(
            "which file? invoke restore-etcd FILE, one of backup-etcd", id="argument-missing"
        )
    inventory = common.load_own_etcd(run)
    common.require_workers_not_newer(run, inventory)
    etcd = run.etcd(inventory.etcd)
    observed = restore_etcd.observe(etcd, Path(file).expanduser(), bump=bump)
    plan = restore_etcd.plan(etcd, observed, bump=bump)
    watch = reregister_workers.watch(inventory, etcd)
    if watch is not None:
        plan = replace(plan, steps=(*plan.steps, watch.step))
    console.problems(plan.notes)
    common.Consent(
        inventory.cluster, confirmed, "restored", "This replaces etcd's data", "--yes-restore"
    ).require(run, plan)
    carried = common.carry_out(run, replace(plan, notes=()))  # they were shown before consent
    if carried:
        steps = _restart_lost_workers(run, watch, plan.guards)
        with further("the restore is finished"):
            last = restore_etcd.finish(etcd, observed)
            common.carry_out(run, last)
        common.note(run)
        plan = replace(plan, steps=(*plan.steps, *steps, *last.steps))
        _say_alarms(run, inventory)
    kept = {m.name: restore_etcd.kept(m, observed.mark) for m in inventory.etcd.members}
    common.finish(
        run, plan, carried, {"kept": kept}, f"old data: {', '.join(sorted({*kept.values()}))}"
    )
    return 0


def recover_etcd(run: Run, name: str, confirmed: str, cluster_id: str = "") -> int:
    """Make a cluster of one survivor; then the others join it again. The name is the consent."""
    from provision.cli import console
    from provision.engine.plan import Plan, further
    from provision.etcd.cluster import guard
    from provision.plans.alluxio import reregister_workers
    from provision.plans.etcd.data import alarms, recover_etcd, restore_etcd
    from provision.plans.etcd.members import add_member
    from provision.plans.etcd.members.member_plan import Options
    from provision.plans.etcd.state import observe

    if not name:
        raise UsageError(
            "from which member? --from NAME, best the one with the newest revision",
            id="argument-missing",
        )
    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    if cluster_id:
        inventory = guard.choose(inventory, etcd, cluster_id)
        etcd = etcd.with_cluster(inventory.etcd)
    common.require_workers_not_newer(run, inventory)
    seen = recover_etcd.observe(etcd, name)
    plan = recover_etcd.plan(etcd, seen)
    console.problems(plan.notes)
    common.Consent(
        inventory.cluster, confirmed, "recovered", "Later writes may be lost", "--yes-recover"
    ).require(run, plan)
    common.carry_out(run, replace(plan, notes=()))  # they were shown before consent
    if not run.dry_run:
        lost = [m.name for m in seen.lost]
        for member in seen.rejoining:
            workers = member == seen.rejoining[-1]  # the workers get all endpoints once, at the end
            with further(f"{member.name} joins again"):
                there = observe.observe(etcd, lost, recovering=True)
                join = add_member.plan(
                    inventory,
                    etcd,
                    there,
                    member.name,
                    Options(write=True, workers=workers),
                    recovering=True,
                    sparing=alarms.KINDS,
                )
                common.carry_out(run, join)
            plan = replace(plan, steps=(*plan.steps, *join.steps))
        watch = reregister_workers.watch(inventory, etcd)
        seeing = [recover_etcd.see_to_alarms(etcd, seen)]
        seeing += [] if watch is None else [watch.step]
        with further("the workers are registered again"):
            looking = Plan(run.command, inventory.cluster, tuple(seeing), guards=plan.guards)
            common.carry_out(run, looking)
        steps = _restart_lost_workers(run, watch, plan.guards)
        plan = replace(plan, steps=(*plan.steps, *looking.steps, *steps))
        with further("the recovery is finished"):
            last = recover_etcd.finish(etcd, seen)
            common.carry_out(run, last)
        common.note(run)
        plan = replace(plan, steps=(*plan.steps, *last.steps))
        _say_alarms(run, inventory)
    kept = restore_etcd.kept(seen.chosen, seen.mark)
    common.finish(run, plan, not run.dry_run, {"kept": kept}, f"a copy of the old data: {kept}")
    return 0


def kept_data(run: Run, delete: str, limit: str) -> int:
    """Show the members' former data, and delete the named folders."""
    from provision import terminal
    from provision.inventory.selection import choose
    from provision.plans.etcd.data import retained
    from provision.text import size

    run.changes = bool(delete)
    inventory = common.load(run)
    seen = retained.observe(inventory, run.fleet, choose(inventory.etcd.members, limit))
    plan = retained.plan(inventory, seen, [n.strip() for n in delete.split(",") if n.strip()])
    if not run.json and not delete:
        rows = [
            (k.member.name, k.path, k.why, f"{k.when:%Y-%m-%d %H:%M}", size(k.bytes))
            for k in seen.kept
        ]
        terminal.table(("member", "folder", "kept by a", "since (UTC)", "size"), rows)
    carried = common.carry_out(run, plan)
    total = size(sum(k.bytes for k in seen.kept))
    line = f"{total} in {len(seen.kept)} folders; --delete NAME,... deletes what it names"
    extra = {"kept": [k.document() for k in seen.kept]}
    common.finish(run, plan, carried, extra, "" if delete else line)
    return 0


def defrag_etcd(run: Run, compact: bool, every: bool = False) -> int:
    """Compact and defragment, and show each database's size before and after."""
    from provision import terminal
    from provision.etcd.cluster import gates, health
    from provision.plans.etcd.data import defrag_etcd
    from provision.text import size

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    gates.wait_until_recovered(etcd, health.observe(etcd))
    seen = health.observe(etcd, quotas=True)
    before = defrag_etcd.usage(seen)
    free = defrag_etcd.free_space(etcd)
    plan = defrag_etcd.plan(etcd, seen, compact=compact, every=every, free=free)
    carried = common.carry_out(run, plan)
    now = before
    if carried:
        now = defrag_etcd.usage(health.observe(etcd, quotas=True))
    if not run.json:
        headings = ("member", "role", "before", "size", "in use", "quota", "alarms")
        terminal.table(headings, defrag_etcd.rows(now, before))
    freed = sum(u.size for u in before) - sum(u.size for u in now)
    line = f"{size(max(0, freed))} freed"
    if not plan.steps:
        line = "no member has space to give back (--all rewrites every database)"
    if any(u.alarms for u in now):
        line += "; alarms are still on: invoke disarm-alarms"
    documents = {
        "before": [u.document() for u in before],
        "after": [u.document() for u in now],
    }
    common.finish(run, plan, carried, documents, line)
    return 0


def disarm_alarms(run: Run) -> int:
    """Disarm the alarms whose cause is gone."""
    from provision.plans.etcd.data import disarm_alarms

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    plan = disarm_alarms.plan(etcd)
    common.finish(
        run, plan, common.carry_out(run, plan), line="" if plan.steps else "there is no alarm"
    )
    return 0


def _restart_lost_workers(
    run: Run, watch: Watch | None, guards: tuple[Machine, ...]
) -> tuple[Step, ...]:
    """Restart the workers that ``watch`` has found, group by group. Returns the steps."""
    from provision.engine.plan import further

    if watch is None:
        return ()
    with further("the workers are registered again"):
        plan = replace(watch.plan(run.command), guards=guards)
        common.carry_out(run, plan)
    return plan.steps


def _deletions(delete: str, name: str) -> tuple[str, ...]:
    if delete not in ("", name):
        raise UsageError(f"--delete-data is {name} or nothing, not {delete!r}", id="option-invalid")
    return (delete,) if delete else ()


def _say_alarms(run: Run, inventory: Inventory) -> None:
    """Warn about alarms from the restored data that stand because their cause is still there."""
    from provision.cli import console
    from provision.etcd.cluster import health
    from provision.plans.etcd.data import alarms

    etcd = run.etcd(inventory.etcd)
    seen = health.observe(etcd, quotas=True)
    for kind in sorted(seen.alarms):
        found = alarms.unsolved(seen, etcd, kind)
        then = "; then invoke disarm-alarms and restart-workers"
        console.problems([replace(p, severity="warning", remedy=p.remedy + then) for p in found])
