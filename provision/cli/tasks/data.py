"""The commands on etcd's data: backups, restores, recovery, space and alarms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from provision.cli import confirm
from provision.cli.command import command
from provision.cli.run import Run
from provision.cli.tasks import common
from provision.errors import UsageError
from provision.text import counted

if TYPE_CHECKING:
    from provision.cli.documents import DefragEtcd, KeptData, Restore
    from provision.engine.plan import Plan, Step
    from provision.errors import Problem
    from provision.inventory.resolved import Inventory, Machine
    from provision.plans.alluxio.reregister_workers import Watch


#: Help of options for plans that take etcd's data back.
OTHER_CLUSTER = "Other clusters in this etcd, whose workers lose registrations. With commas."
UNKNOWN = "The cluster's name: no other cluster needs an etcd that cannot be asked."


@command(
    guarded=True,
    help={
        "to": "Folder for the file; `backups` beside the inventory when not given.",
        "keep": "How many of the newest backups of each history stay there; or all.",
        "fetch": "Take no backup: copy the timer's newest backups from the members' hosts.",
    },
    writes=True,
)
def backup_etcd(run: Run, to: str = "", keep: str = "all", fetch: bool = False) -> int:
    """Save a snapshot of etcd on this machine, and prove it by restoring it beside a member."""
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
    terminal.say(backup_etcd.describe(backup))
    for path in backup.removed:
        terminal.say(f"removed {path}: --keep {keep}")
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
        terminal.say("\n".join(fetch_backups.describe(fetched)))
        for path in fetched.removed:
            terminal.say(f"removed {path}: --keep {keep}")
        console.problems(fetched.problems)
    return 1 if any(p.severity == "error" for p in fetched.problems) else 0


@command(
    changes=True,
    help={
        "file": "A file of backup-etcd, or of etcdctl snapshot save.",
        "yes_restore": "The cluster's name: do not ask. For scripts.",
        "bump_revision": "Begin far above every revision that clients have seen (etcd 3.6 on).",
        "undo": "Go back to the data from before the last restore, while it is kept.",
        "yes_undo": "With --undo, the cluster's name: do not ask. For scripts.",
        "other_cluster": OTHER_CLUSTER + " Also those of a snapshot that is not of this one.",
        "other_clusters_unknown": UNKNOWN,
        "without": "Members of this etcd that the inventory lacks: they are lost. With commas.",
    },
    instead={"file": "undo"},
)
def restore_etcd(
    run: Run,
    file: str,
    yes_restore: str = "",
    bump_revision: bool = True,
    undo: bool = False,
    yes_undo: str = "",
    other_cluster: str = "",
    without: str = "",
    other_clusters_unknown: str = "",
) -> int:
    """Restore every member from one snapshot; their old data is kept aside on the hosts.

    The file is proven in a scratch member before anything is stopped. Asks for the cluster's name.
    Killed anywhere, it is finished by running it again; --undo is the way back.
    """
    from provision import terminal
    from provision.plans.etcd import auth
    from provision.plans.etcd.data import restore_etcd, snapshot_proof
    from provision.plans.etcd.state import other_clusters

    others = common.names(other_cluster)
    if undo:
        if yes_restore or without or not bump_revision:
            raise UsageError("--undo takes no option of a restore", id="option-invalid")
        return _undo_restore(run, yes_undo, others, other_clusters_unknown)
    if yes_undo:
        raise UsageError("--yes-undo is the consent to --undo", id="option-invalid")
    inventory = common.load_own_etcd(run)
    common.require_workers_not_newer(run, inventory)
    etcd = run.etcd(inventory.etcd)
    observed = restore_etcd.observe(
        etcd,
        Path(file).expanduser(),
        bump=bump_revision,
        without=common.names(without),
        workers=snapshot_proof.workers_login(inventory),
    )
    proof = observed.proof
    notes = [
        *other_clusters.of_data(
            inventory,
            etcd,
            observed.facts,
            others,
            other_clusters_unknown,
            begun=observed.continues,
            more=() if proof is None else proof.clusters,
        )
    ]
    if proof is not None:
        notes += snapshot_proof.require_ours(inventory, proof, others, others)
        terminal.say(proof.line, stderr=run.json)
    plan = restore_etcd.plan(etcd, observed, bump=bump_revision)
    steps = plan.steps
    if snapshot_proof.may_differ(inventory, proof):
        steps = (*steps, auth.as_declared(inventory, etcd))
    plan = replace(plan, steps=steps, notes=(*notes, *plan.notes))
    watch = _watching(run, plan)
    plan = watch.plan
    confirm.tell(run, plan.notes)
    common.Consent(
        inventory.cluster, yes_restore, "restored", "This replaces etcd's data", "--yes-restore"
    ).require(run, plan)
    carried, plan = watch.carry_out(lambda: restore_etcd.finish(etcd, observed))
    kept = {m.name: restore_etcd.kept(m, observed.mark) for m in inventory.etcd.members}
    documents: Restore = {
        "kept": kept,
        "snapshot": None if proof is None else proof.document(),
    }
    line = f"old data: {', '.join(sorted({*kept.values()}))}; restore-etcd --undo goes back to it"
    watch.require_registered(f"the restore is finished: do not run it again; {line}")
    common.finish(run, plan, carried, documents, line)
    return 0


def _undo_restore(run: Run, yes_undo: str, others: Sequence[str], unknown: str) -> int:
    from provision.plans.etcd import auth
    from provision.plans.etcd.data import snapshot_proof, undo_restore
    from provision.plans.etcd.state import other_clusters

    inventory = common.load_own_etcd(run)
    common.require_workers_not_newer(run, inventory)
    etcd = run.etcd(inventory.etcd)
    observed = undo_restore.observe(etcd)
    notes = other_clusters.of_data(
        inventory, etcd, observed.facts, others, unknown, begun=observed.unfinished
    )
    plan = undo_restore.plan(etcd, observed)
    if snapshot_proof.may_differ(inventory, None):  # nobody has read the data from before
        plan = replace(plan, steps=(*plan.steps, auth.as_declared(inventory, etcd)))
    watch = _watching(run, replace(plan, notes=(*notes, *plan.notes)))
    confirm.tell(run, watch.plan.notes)
    common.Consent(
        inventory.cluster,
        yes_undo,
        "undone",
        "This gives up everything that was written since the restore",
        "--yes-undo",
    ).require(run, watch.plan)
    carried, plan = watch.carry_out(lambda: undo_restore.finish(etcd, observed))
    kept = {m.name: undo_restore.kept(m, observed) for m in inventory.etcd.members}
    line = f"the restored data: {', '.join(sorted({*kept.values()}))}"
    watch.require_registered(f"the restore is undone: do not run the command again; {line}")
    common.finish(run, plan, carried, {"kept": kept, "undone": observed.mark.id}, line)
    return 0


@command(
    changes=True,
    help={
        "name": "The member whose data the cluster continues from: best the one with the newest "
        "revision.",
        "cluster_id": "Of two etcd clusters among the members, the id of the one to continue from.",
        "yes_recover": "The cluster's name: do not ask. For scripts.",
        "other_cluster": OTHER_CLUSTER,
        "other_clusters_unknown": UNKNOWN,
    },
    old={"from": "name"},
)
def recover_etcd(
    run: Run,
    name: str,
    cluster_id: str = "",
    yes_recover: str = "",
    other_cluster: str = "",
    other_clusters_unknown: str = "",
) -> int:
    """When a quorum is lost for good: continue from one member's data; say what may be lost.

    Asks for the cluster's name. Killed anywhere, it is finished by running it again.
    """
    from provision.engine.plan import Plan, further
    from provision.etcd.cluster import guard
    from provision.plans.alluxio import reregister_workers
    from provision.plans.etcd.data import alarms, recover_etcd, restore_etcd
    from provision.plans.etcd.members import add_member
    from provision.plans.etcd.members.member_plan import Options
    from provision.plans.etcd.state import observe, other_clusters

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    if cluster_id:
        inventory = guard.choose(inventory, etcd, cluster_id)
        etcd = etcd.with_cluster(inventory.etcd)
    common.require_workers_not_newer(run, inventory)
    seen = recover_etcd.observe(etcd, name)
    notes = other_clusters.of_data(
        inventory,
        etcd,
        seen.facts,
        common.names(other_cluster),
        other_clusters_unknown,
        begun=seen.continues,
    )
    plan = recover_etcd.plan(etcd, seen)
    plan = replace(plan, notes=(*notes, *plan.notes))
    missing: list[Problem] = []
    confirm.tell(run, plan.notes)
    common.Consent(
        inventory.cluster, yes_recover, "recovered", "Later writes may be lost", "--yes-recover"
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
            missing = [] if watch is None else watch.unregistered()
            last = recover_etcd.finish(etcd, seen)
            common.carry_out(run, last)
        common.note(run)
        plan = replace(plan, steps=(*plan.steps, *last.steps))
        _say_alarms(run, inventory)
    kept = restore_etcd.kept(seen.chosen, seen.mark)
    line = f"a copy of the old data: {kept}"
    _require_registered(missing, f"the recovery is finished: do not run it again; {line}")
    common.finish(run, plan, not run.dry_run, {"kept": kept}, line)
    return 0


@command(
    changes=True,
    help={
        "delete": "Names of folders to delete, such as member.removed-..., on every host with one.",
        "limit": common.LIMIT,
        "wide": common.WIDE,
    },
    word="limit",
)
def kept_data(run: Run, delete: str = "", limit: str = "", wide: bool = False) -> int:
    """Show the data that removals, restores and recoveries have kept aside, and its size.

    It is deleted only when --delete names it.
    """
    from provision import tables
    from provision.inventory.selection import choose
    from provision.plans.etcd.data import retained
    from provision.text import size

    run.changes = bool(delete)
    inventory = common.load(run)
    seen = retained.observe(inventory, run.fleet, choose(inventory.etcd.members, limit))
    plan = retained.plan(inventory, seen, common.names(delete))
    if not run.json and not delete:
        rows = [
            (k.member.name, k.path, k.why, f"{k.when:%Y-%m-%d %H:%M}", size(k.bytes))
            for k in seen.kept
        ]
        columns = (
            tables.Texts("member"),
            tables.Texts("folder", gives=4),
            tables.Texts("kept by a", gives=1),
            tables.Texts("since (UTC)", gives=2),
            tables.Texts("size", gives=3, right=True),
        )
        tables.show(columns, rows, wide=wide)
    carried = common.carry_out(run, plan)
    total = size(sum(k.bytes for k in seen.kept))
    line = (
        f"{total} in {counted(len(seen.kept), 'folder')}; --delete NAME,... deletes what it names"
    )
    extra: KeptData = {"kept": [k.document() for k in seen.kept]}
    common.finish(run, plan, carried, extra, "" if delete else line)
    return 0


@command(
    changes=True,
    guarded=True,
    help={
        "compact": "First drop the history of every key, up to the newest revision.",
        "all": "Rewrite every database, also when that frees little space.",
    },
)
def defrag_etcd(run: Run, compact: bool = False, all: bool = False) -> int:
    """Return free space of etcd's databases to the disk, a member at a time, the leader last.

    A leader first hands leadership over. Members with little to give back are left out.
    """
    from provision import tables
    from provision.etcd.cluster import gates, health
    from provision.plans.etcd.data import defrag_etcd
    from provision.text import size

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    gates.wait_until_recovered(etcd, health.observe(etcd))
    seen = health.observe(etcd, quotas=True)
    before = defrag_etcd.usage(seen)
    free = defrag_etcd.free_space(etcd)
    plan = defrag_etcd.plan(etcd, seen, compact=compact, every=all, free=free)
    carried = common.carry_out(run, plan)
    now = before
    if carried:
        now = defrag_etcd.usage(health.observe(etcd, quotas=True))
    if not run.json:
        columns = (
            tables.Texts("member"),
            tables.Texts("role", gives=1),
            tables.Texts("before", gives=3, right=True),
            tables.Texts("size", gives=4, right=True),
            tables.Texts("in use", gives=5, right=True),
            tables.Texts("quota", gives=2, right=True),
            tables.Texts("alarms", gives=6),
        )
        tables.show(columns, defrag_etcd.rows(now, before))
    freed = sum(u.size for u in before) - sum(u.size for u in now)
    line = f"{size(max(0, freed))} freed"
    if not plan.steps:
        line = "no member has space to give back (--all rewrites every database)"
    if any(u.alarms for u in now):
        line += "; alarms are still on: invoke disarm-alarms"
    documents: DefragEtcd = {
        "before": [u.document() for u in before],
        "after": [u.document() for u in now],
    }
    common.finish(run, plan, carried, documents, line)
    return 0


@command(changes=True, guarded=True)
def disarm_alarms(run: Run) -> int:
    """Disarm etcd's alarms whose cause is gone; for the others, say what to do."""
    from provision.plans.etcd.data import disarm_alarms

    inventory = common.load_own_etcd(run)
    etcd = run.etcd(inventory.etcd)
    plan = disarm_alarms.plan(etcd)
    common.finish(
        run, plan, common.carry_out(run, plan), line="" if plan.steps else "there is no alarm"
    )
    return 0


@dataclass(slots=True)
class _Watched:
    """A plan that takes etcd's data back, and the workers that lose their registration by it."""

    run: Run
    plan: Plan
    watch: Watch | None
    missing: Sequence[Problem] = ()

    def carry_out(self, finish: Callable[[], Plan]) -> tuple[bool, Plan]:
        """Apply the plan, restart the workers, and finish. Returns whether it was applied, and the
        plan with all steps."""
        from provision.engine.plan import further

        run, plan = self.run, self.plan
        # The notes were shown before consent.
        if not common.carry_out(run, replace(plan, notes=())):
            return False, plan
        steps = _restart_lost_workers(run, self.watch, plan.guards)
        with further("the command is finished"):
            self.missing = [] if self.watch is None else self.watch.unregistered()
            last = finish()
            common.carry_out(run, last)
        common.note(run)
        _say_alarms(run, run.inventory)
        return True, replace(plan, steps=(*plan.steps, *steps, *last.steps))

    def require_registered(self, done: str) -> None:
        """Raises :class:`ChangeFailed` when a declared worker is not registered."""
        _require_registered(self.missing, done)


def _watching(run: Run, plan: Plan) -> _Watched:
    """``plan`` with a last step that looks for workers without a registration."""
    from provision.plans.alluxio import reregister_workers

    watch = reregister_workers.watch(run.inventory, run.etcd(run.inventory.etcd))
    if watch is not None:
        plan = replace(plan, steps=(*plan.steps, watch.step))
    return _Watched(run, plan, watch)


def _require_registered(missing: Sequence[Problem], done: str) -> None:
    from provision.cli import console
    from provision.errors import ChangeFailed

    errors = [p for p in missing if p.severity == "error"]
    console.problems([p for p in missing if p.severity != "error"])
    if errors:
        workers = counted(len(errors), "worker is", "workers are")
        what = f"{done}; {workers} not registered"
        raise ChangeFailed(what, errors, id="worker-keys-missing")


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
