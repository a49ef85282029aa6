"""What each command consists of, top to bottom: observe, plan, show, apply, say.

A newcomer reads here what a command does; how, is in the modules that it calls.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.errors import UsageError
from provision.run import Run

if TYPE_CHECKING:
    from provision.check import CheckReport
    from provision.inventory.resolved import AlluxioCluster, Inventory, Machine
    from provision.plan import Plan


def deploy_etcd(run: Run, workers: bool) -> int:
    """Bring the etcd cluster to what the inventory says, and print its endpoints."""
    from provision import screen
    from provision.etcd import deploy, gates

    inventory = _own_etcd(run)
    observed = deploy.observe(inventory, run.fleet)
    plan = deploy.plan(inventory, run.fleet, observed, write=not run.dry_run, workers=workers)
    carried = _carry_out(run, plan)
    if not plan.steps:
        gates.require_healthy(observed.health)
    # Not this command's to change: the workers' logins go with it.
    screen.problems(observed.health.auth_problems)
    endpoints = [member.client_url for member in inventory.etcd.members]
    plain = [url for url in inventory.etcd.endpoints if url not in endpoints]
    line = "endpoints: " + ",".join(endpoints)
    if plain:
        line += "; without TLS: " + ",".join(plain)
    _finish(run, plan, carried, {"endpoints": endpoints, "plain_endpoints": plain}, line)
    return 0


def add_member(run: Run, name: str, workers: bool) -> int:
    """Add one declared member, or all that etcd does not have."""
    from provision.etcd import members, observed

    inventory = _own_etcd(run)
    seen = observed.observe(inventory, run.fleet)
    plan = members.add(inventory, run.fleet, seen, name, write=not run.dry_run, workers=workers)
    _finish(run, plan, _carry_out(run, plan))
    return 0


def rotate_certs(run: Run, ca: bool, limit: str) -> int:
    """New leaf certificates, or a new CA, one member at a time and without an outage."""
    from provision.etcd import deploy, rotate
    from provision.selection import choose

    if ca and limit:
        raise UsageError("--ca is for all members: leave --limit out")
    inventory = _own_etcd(run)
    members = choose(inventory.etcd.members, limit)
    observed = deploy.observe(inventory, run.fleet)
    write = not run.dry_run
    plan = (
        rotate.authority(inventory, run.fleet, observed, write=write)
        if ca
        else rotate.leaves(inventory, run.fleet, observed, members, write=write)
    )
    _finish(run, plan, _carry_out(run, plan))
    return 0


def export_csrs(run: Run, to: str, every: bool, limit: str) -> int:
    """Keys on the members' hosts, and a folder of signing requests for the external CA."""
    from provision.etcd import signing
    from provision.selection import choose

    if not to:
        raise UsageError("where to? --to DIR, the folder for the requests")
    inventory = _own_etcd(run)
    members = choose(inventory.etcd.members, limit)
    folder = Path(to).expanduser().absolute()
    plan = signing.export(inventory, run.fleet, members, folder, every=every)
    carried = _carry_out(run, plan)
    line = f"have them signed, then invoke import-certs {to}" if carried else ""
    if not plan.steps:
        line = f"nothing to ask for that is not in {to} (--all: certificates that are good, too)"
    _finish(run, plan, carried, {"folder": str(folder)}, line)
    return 0


def import_certs(run: Run, folder: str | None) -> int:
    """Verify the certificates that the external CA has signed, all of them, and take them in."""
    from provision.etcd import signing

    if not folder:
        raise UsageError("from where? invoke import-certs DIR, the folder of export-csrs")
    inventory = _own_etcd(run)
    plan = signing.import_(inventory, Path(folder).expanduser().absolute())
    carried = _carry_out(run, plan)
    line = "invoke deploy-etcd, or rotate-certs on a running cluster, puts them to use"
    _finish(run, plan, carried, {}, line if carried else "")
    return 0


def remove_member(run: Run, name: str, delete: str, workers: bool) -> int:
    """Take one member out of the cluster, and its host out of service."""
    from provision.etcd import members, observed

    inventory = _own_etcd(run)
    seen = observed.observe(inventory, run.fleet, dispensable=(name,))
    plan = members.remove(
        inventory,
        run.fleet,
        seen,
        name,
        _deletions(delete, name),
        write=not run.dry_run,
        workers=workers,
    )
    carried = _carry_out(run, plan)
    declared = any(m.name == name for m in inventory.etcd.members)
    line = f"take {name} out of {inventory.path}, or deploy-etcd adds it again" if declared else ""
    _finish(run, plan, carried, {}, line)
    return 0


def replace_member(run: Run, name: str, delete: str, workers: bool) -> int:
    """Put a new member in the place of a dead one of the same name."""
    from provision.etcd import members, observed

    inventory = _own_etcd(run)
    seen = observed.observe(inventory, run.fleet)
    plan = members.replace_dead(
        inventory,
        run.fleet,
        seen,
        name,
        _deletions(delete, name),
        write=not run.dry_run,
        workers=workers,
    )
    line = "" if plan.steps else f"{name} is healthy: there is nothing to replace"
    _finish(run, plan, _carry_out(run, plan), {}, line)
    return 0


def upgrade_etcd(run: Run, to: str, backup_dir: str) -> int:
    """Bring every member to one release, by way of the minor releases between."""
    from provision.etcd import observed, upgrade

    inventory = _own_etcd(run)
    seen = observed.observe(inventory, run.fleet)
    backup = Path(backup_dir).expanduser().absolute() if backup_dir else None
    plan = upgrade.plan(inventory, run.fleet, seen, to, backup=backup, write=not run.dry_run)
    carried = _carry_out(run, plan)
    line = f"every member runs etcd {to}" if carried or not plan.steps else ""
    if line and inventory.etcd.version != to:
        line += f"; set etcd.version to {to}, and etcd.source, in {inventory.path}"
    _finish(run, plan, carried, {"version": to}, line)
    return 0


def move_leader(run: Run, to: str) -> int:
    """Make one member the leader."""
    from provision.etcd import leader

    inventory = _own_etcd(run)
    plan = leader.plan(inventory, run.fleet, to)
    line = f"{to} leads" if not run.dry_run else ""
    _finish(run, plan, _carry_out(run, plan), {"leader": to}, line)
    return 0


def enable_auth(run: Run, lock_out: str) -> int:
    """Users and roles, the workers' login, and etcd's authentication on."""
    from provision.etcd import auth

    inventory = _own_etcd(run)
    agreed = [name.strip() for name in lock_out.split(",") if name.strip()]
    plan = auth.enable(inventory, run.fleet, auth.observe(inventory, run.fleet), agreed)
    _finish(run, plan, _carry_out(run, plan))
    return 0


def disable_auth(run: Run) -> int:
    """etcd's authentication off, and the workers without a login."""
    from provision.etcd import auth

    inventory = _own_etcd(run)
    plan = auth.disable(inventory, run.fleet, auth.observe(inventory, run.fleet))
    _finish(run, plan, _carry_out(run, plan))
    return 0


def start_workers(run: Run, limit: str, batch: str) -> int:
    """Bring the workers to what the inventory says, and wait until each is live."""
    from provision.alluxio import start
    from provision.selection import choose

    inventory, alluxio = _alluxio(run)
    chosen = choose(alluxio.workers, limit, batch)
    observed = start.observe(inventory, alluxio, run.fleet, chosen)
    plan = start.plan(inventory, alluxio, run.fleet, observed, chosen)
    carried = _carry_out(run, plan)
    live = {}
    if carried or not plan.steps:
        live = start.require_live(inventory, alluxio, run.fleet, chosen)
    names = [w.name for w in chosen]
    _finish(run, plan, carried, {"live": sorted(live)}, f"{len(live)} of {len(names)} live")
    return 0


def restart_workers(run: Run, limit: str, batch: str, at_once: str, afresh: bool) -> int:
    """Restart workers group by group, each group live before the next is touched."""
    from provision.alluxio import rolling
    from provision.selection import choose

    inventory, alluxio = _alluxio(run)
    chosen = choose(alluxio.workers, limit, batch)
    size = rolling.group_size(at_once, len(chosen))
    plan = rolling.restart(inventory, alluxio, run.fleet, chosen, at_once=size, afresh=afresh)
    _finish(run, plan, _carry_out(run, plan), line="" if plan.steps else "no worker runs")
    return 0


def upgrade_workers(run: Run, limit: str, batch: str, at_once: str, keep: str) -> int:
    """Bring the running workers to the inventory's release, group by group."""
    from provision.alluxio import releases, rolling
    from provision.selection import choose

    number = int(keep) if keep.isascii() and keep.isdigit() else 0
    if keep != "all" and number < releases.KEPT:
        least = f"at least {releases.KEPT} (the running one and the one before)"
        raise UsageError(f"--keep is a number, {least}, or all; not {keep!r}")
    inventory, alluxio = _alluxio(run)
    chosen = choose(alluxio.workers, limit, batch)
    size = rolling.group_size(at_once, len(chosen))
    plan = releases.upgrade(
        inventory, alluxio, run.fleet, chosen, at_once=size, keep=number or None
    )
    carried = _carry_out(run, plan)
    runs = releases.running(alluxio, run.fleet, chosen)
    _finish(run, plan, carried, {"running": runs}, releases.said(runs, alluxio.version))
    return 0


def rollback_workers(run: Run, to: str, limit: str, batch: str, at_once: str) -> int:
    """Bring the running workers back to the release before, which is still on their hosts."""
    from provision.alluxio import releases, rolling
    from provision.selection import choose

    inventory, alluxio = _alluxio(run)
    chosen = choose(alluxio.workers, limit, batch)
    size = rolling.group_size(at_once, len(chosen))
    back = releases.rollback(inventory, alluxio, run.fleet, chosen, to=to, at_once=size)
    carried = _carry_out(run, back.plan)
    runs = releases.running(alluxio, run.fleet, chosen)
    line = releases.said(runs, alluxio.version)
    if back.to is not None and back.to != alluxio.version:
        line += f"; in {inventory.path} set alluxio.version to {back.to}, and alluxio.source to its"
        line += f" tarball (sha256 {back.digest}), or start-workers and upgrade-workers go to"
        line += f" {alluxio.version} again"
    _finish(run, back.plan, carried, {"running": runs, "to": back.to}, line)
    return 0


def decommission_worker(run: Run, name: str) -> int:
    """Stop a worker for good, and take its registration out of etcd."""
    from provision.alluxio import decommission
    from provision.selection import choose

    if not name:
        raise UsageError("which worker? invoke decommission-worker NAME")
    inventory, alluxio = _alluxio(run)
    if len(chosen := choose(alluxio.workers, name)) != 1:
        raise UsageError("one worker at a time: the data that it held is read anew elsewhere")
    removal = decommission.plan(inventory, alluxio, run.fleet, chosen[0])
    carried = _carry_out(run, removal.plan)
    line = f"take {name} out of {inventory.path}, or start-workers starts it again"
    _finish(run, removal.plan, carried, {"kept": list(map(str, removal.files))}, line)
    return 0


def forget_worker(run: Run, ids: str, count: str) -> int:
    """Take registrations out of etcd whose workers are not live."""
    from provision.alluxio import registrations

    wanted = [i.strip() for i in ids.split(",") if i.strip()]
    if not wanted:
        raise UsageError("which id? invoke forget-worker ID, as check-nodes shows it")
    if (wanted == ["stale"]) != bool(count):
        raise UsageError("--count N goes with stale, and stale with it: how many ids are stale?")
    if count and not (count.isascii() and count.isdigit() and int(count)):
        raise UsageError(f"--count is a number above 0, not {count!r}")
    inventory, alluxio = _alluxio(run)
    removal = (
        registrations.forget_stale(inventory, alluxio, run.fleet, int(count))
        if count
        else registrations.forget(inventory, alluxio, run.fleet, wanted)
    )
    carried = _carry_out(run, removal.plan)
    line = "" if removal.plan.steps else f"{', '.join(wanted)}: no such id is registered"
    _finish(run, removal.plan, carried, {"kept": list(map(str, removal.files))}, line)
    return 0


def readmit_worker(run: Run, file: str) -> int:
    """Write a registration again that decommission-worker or forget-worker has removed."""
    from provision.alluxio import registrations

    if not file:
        raise UsageError("which file? invoke readmit-worker FILE, as it was said at the removal")
    inventory, alluxio = _alluxio(run)
    plan = registrations.readmit(inventory, alluxio, run.fleet, Path(file).expanduser())
    _finish(run, plan, _carry_out(run, plan))
    return 0


def start_masters(run: Run, limit: str) -> int:
    """Bring the masters to what the inventory says, and wait until each answers."""
    from provision.alluxio import masters
    from provision.selection import choose

    inventory, alluxio = _masters(run)
    chosen = choose(alluxio.masters, limit)
    observed = masters.observe(alluxio, run.fleet, chosen)
    plan = masters.plan(inventory, alluxio, run.fleet, observed, chosen)
    carried = _carry_out(run, plan)
    if not plan.steps:
        masters.require_answering(run.fleet, alluxio, chosen)
    _finish(run, plan, carried, {}, f"{len(chosen)} masters answer")
    return 0


def stop_masters(run: Run, limit: str) -> int:
    from provision.alluxio import masters
    from provision.selection import choose

    inventory, alluxio = _masters(run)
    plan = masters.stop(inventory, alluxio, run.fleet, choose(alluxio.masters, limit))
    _finish(run, plan, _carry_out(run, plan))
    return 0


def stop_workers(run: Run, limit: str, batch: str) -> int:
    from provision import stop
    from provision.selection import choose

    inventory, alluxio = _alluxio(run)
    plan = stop.workers(inventory, choose(alluxio.workers, limit, batch), run.fleet)
    line = ""
    if plan.steps and alluxio.membership != "STATIC":
        line = f"they count as live for up to {alluxio.failure_detection_timeout} s more"
    _finish(run, plan, _carry_out(run, plan), line=line)
    return 0


def destroy(run: Run, confirmed: str) -> int:
    """Take the cluster off its hosts. The cluster's name is the consent; nothing else is."""
    from provision import stop

    inventory = _inventory(run)
    _consent(
        run,
        inventory.cluster,
        confirmed,
        "destroyed",
        "This deletes etcd, the workers and ALL their data",
        "--yes-delete",
    )
    notes = stop.others(inventory, run.fleet)
    plan = replace(stop.destroy(inventory, run.fleet), notes=notes)
    _finish(run, plan, _carry_out(run, plan))
    return 0


def check_nodes(
    run: Run, interval: float | None, nodes_timeout: float, output: str, html: str
) -> int:
    """The verdict on every worker, and every member's health: once, or as they change."""
    from provision import check, report, screen

    if output and run.format == "table":
        raise UsageError("--output is for --format json or prometheus")
    if interval is not None and (output or html or run.format == "prometheus"):
        raise UsageError("--watch shows a table, or --format json: leave the rest out")
    inventory, _ = _alluxio(run)
    if interval is not None:
        looks = check.watch(inventory, run.fleet, interval, nodes_timeout=nodes_timeout)
        with screen.until_interrupted(), contextlib.closing(looks):
            if not run.json:
                report.watch(looks)
            for look in check.changes(looks):
                screen.emit_json_line(look.document())
        return 0
    seen = check.run(inventory, run.fleet, nodes_timeout=nodes_timeout)
    return _show_check(run, seen, output, html)


def _show_check(run: Run, seen: CheckReport, output: str, html: str) -> int:
    from provision import report, screen

    if html:
        from provision.check import page
        from provision.files import write_whole

        write_whole(Path(html).expanduser(), page.html(seen))
    if run.format == "table":
        report.check(seen)
    elif run.json:
        _put(output, screen.json_text(seen.document()))
    else:
        from provision.check import prometheus

        _put(output, prometheus.exposition(seen))
    return seen.exit_code


def _put(output: str, text: str) -> None:
    """``text`` into the file ``output``, or on stdout without one."""
    if output:
        from provision.files import write_whole

        write_whole(Path(output).expanduser(), text)
    else:
        sys.stdout.write(text)


def render_monitor(run: Run, into: str, every: float, textfiles: str) -> int:
    """A timer for this machine, and alert rules; how they are installed is said."""
    from provision import screen
    from provision.check import monitor
    from provision.files import write_whole

    made = monitor.render_files(run.inventory, every, textfiles)
    folder = Path(into).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror or error}") from error
    paths = [folder / name for name in made.files]
    for path in paths:
        write_whole(path, made.files[path.name].decode())
    if run.json:
        document = {"files": [str(path) for path in paths], "output": str(made.output)}
        screen.emit_json({"schema": "alluxio-provision/render-monitor/1", **document})
        return 0
    print("\n".join(f"wrote {path}" for path in paths))
    for line in monitor.instructions(made, folder):
        print(line)
    return 0


def render_client_config(run: Run, to: str) -> int:
    """The configuration of an application host, printed or written. No host is contacted."""
    from provision import screen
    from provision.alluxio import client_config

    alluxio = run.inventory.alluxio
    if alluxio is None:
        raise UsageError(f"{run.inventory.path}: has no 'alluxio' section")
    _warn(run)
    config = client_config.of(alluxio)
    screen.problems(config.warnings)
    changed = client_config.write(config, Path(to).expanduser()) if to else []
    if run.json:
        written = [str(path) for path in changed]
        screen.emit_json({"schema": client_config.SCHEMA, "files": config.files, "wrote": written})
    elif to:
        print(f"{len(changed)} changed in {to}: {', '.join(config.files)}")
    else:
        print(config.files[client_config.SITE], end="")
    return 0


def list_clusters(run: Run) -> int:
    """Every Alluxio cluster that has a key in this etcd."""
    from provision import screen
    from provision.alluxio import clusters

    seen = clusters.look(_inventory(run), run.fleet)
    if run.json:
        screen.emit_json(seen.document())
        return 0
    headings = ("cluster", "authorized", "live", "inventory", "mixed up with")
    screen.table(
        headings,
        [
            (c.name, str(c.authorized), str(c.live), c.inventory or "-", ", ".join(c.confusable))
            for c in seen.clusters
        ],
    )
    if not seen.complete:
        print("the login may read this cluster's keys only: there may be others")
    return 0


def check_pods(
    run: Run, where: tuple[str, str, str], nodes_timeout: float, output: str, html: str
) -> int:
    """As :func:`check_nodes`, over the pods of the inventory's Helm release.

    ``where`` is namespace, context and kubeconfig, each instead of the inventory's unless empty.
    """
    from provision.kubernetes import check, values

    if output and run.format == "table":
        raise UsageError("--output is for --format json or prometheus")
    inventory, _ = _alluxio(run)
    _, declared = values.declared(inventory)
    namespace, context, kubeconfig = where
    declared = replace(
        declared,
        namespace=namespace or declared.namespace,
        context=context or declared.context,
        kubeconfig=Path(kubeconfig).expanduser().absolute() if kubeconfig else declared.kubeconfig,
    )
    inventory = replace(inventory, kubernetes=declared)
    seen = check.run(inventory, run.fleet, nodes_timeout=nodes_timeout)
    return _show_check(run, seen, output, html)


def render_helm(run: Run, to: str, credentials: str) -> int:
    """The values of Alluxio's Helm chart; the secret ones only into a file that was asked for."""
    from provision import screen
    from provision.kubernetes import values

    inventory = run.inventory
    _warn(run)
    _, k = values.declared(inventory)
    found = values.values(inventory)
    target, secret = (Path(p).expanduser() if p else None for p in (to, credentials))
    hidden = values.secret_values(inventory) if secret is not None else {}
    if secret is not None and not hidden:
        raise UsageError("the inventory has no secrets for --credentials to write")
    install = values.install_line(k, target, secret)
    text = values.as_yaml(found, inventory, f"Alluxio's Helm chart {k.chart.version}: {install}")
    changed = 0
    if secret is not None:
        note = "SECRETS. The chart writes them into a ConfigMap, and Helm keeps them in its record."
        changed += values.write(secret, values.as_yaml(hidden, inventory, note), secret=True)
    else:
        screen.problems(values.left_out(inventory))
    if target is not None:
        changed += values.write(target, text)
    if run.json:
        files = [str(p) for p in (target, secret) if p is not None]
        screen.emit_json(
            {
                "schema": "alluxio-provision/render-helm/1",
                "chart": k.chart.version,
                "release": k.release,
                "namespace": k.namespace,
                "values": found,
                "files": files,
                "changed": changed,
            }
        )
    elif target is None:
        print(text, end="")
    else:
        print(f"{changed} changed; {install}")
    return 0


def status(run: Run, limit: str, batch: str) -> int:
    from provision import screen, status
    from provision.selection import choose

    inventory = _inventory(run)
    chosen = choose(status.roles(inventory), limit, batch)
    seen = status.look(inventory, run.fleet, chosen)
    if run.json:
        screen.emit_json(seen.document())
    else:
        rows = [
            (s.name, s.machine.host, s.unit, s.state, str(s.restarts), *s.disks)
            for s in seen.services
        ]
        screen.table(("name", "host", "unit", "state", "restarts", "disk"), rows)
    return seen.exit_code


def logs(run: Run, host: str, lines: int) -> int:
    from provision import screen, status

    machine = _machine(run.inventory, host)
    text = status.journal(run.fleet, machine, lines)
    means = status.meaning(run.inventory, machine, text)
    if run.json:
        document = {"schema": "alluxio-provision/logs/1", "host": machine.host, "lines": text}
        screen.emit_json(document | {"problems": [p.document() for p in means]})
    else:
        print("\n".join(text))
        screen.problems(means)
    return 0


def backup_etcd(run: Run, to: str, keep: str) -> int:
    """A snapshot of etcd on this machine, proven to restore."""
    from provision import audit as log
    from provision import screen
    from provision.etcd import snapshot

    if keep != "all" and not (keep.isascii() and keep.isdigit() and int(keep)):
        raise UsageError(f"--keep is a number above 0, or all; not {keep!r}")
    count = 0 if keep == "all" else int(keep)
    inventory = _own_etcd(run)
    into = Path(to).expanduser() if to else snapshot.default_directory(inventory)
    backup = snapshot.take(inventory.etcd, run.fleet, into, keep=count)
    by = log.author(run.command, inventory.cluster)
    log.note(
        by,
        backup.member,
        [f"save {backup.path}", *(f"remove {p}" for p in backup.removed)],
        ok=True,
    )
    if run.json:
        screen.emit_json(backup.document())
        return 0
    print(snapshot.describe(backup))
    for path in backup.removed:
        print(f"removed {path}: --keep {keep}")
    return 0


def restore_etcd(run: Run, file: str | None, confirmed: str, bump: bool) -> int:
    """Every member anew from one snapshot. The cluster's name is the consent."""
    from provision import screen
    from provision.etcd import restore

    if not file:
        raise UsageError("which file? invoke restore-etcd FILE, one of backup-etcd")
    inventory = _own_etcd(run)
    observed = restore.observe(inventory, run.fleet, Path(file).expanduser(), bump=bump)
    plan = restore.plan(inventory, run.fleet, observed, bump=bump)
    screen.problems(plan.notes)
    _consent(
        run, inventory.cluster, confirmed, "restored", "This replaces etcd's data", "--yes-restore"
    )
    carried = _carry_out(run, replace(plan, notes=()))  # they were shown before consent
    kept = {m.name: restore.kept(m, observed.mark) for m in inventory.etcd.members}
    _finish(run, plan, carried, {"kept": kept}, f"old data: {', '.join(sorted({*kept.values()}))}")
    return 0


def recover_etcd(run: Run, name: str, confirmed: str) -> int:
    """A cluster of one survivor, then the others join it again. The name is the consent."""
    from provision import screen
    from provision.etcd import members, observed, recover, restore
    from provision.plan import further

    if not name:
        raise UsageError("from which member? --from NAME, best the one with the newest revision")
    inventory = _own_etcd(run)
    seen = recover.observe(inventory, run.fleet, name)
    plan = recover.plan(inventory, run.fleet, seen)
    screen.problems(plan.notes)
    _consent(
        run, inventory.cluster, confirmed, "recovered", "Later writes may be lost", "--yes-recover"
    )
    _carry_out(run, replace(plan, notes=()))  # they were shown before consent
    if not run.dry_run:
        lost = [m.name for m in seen.lost]
        for member in seen.rejoining:
            workers = member == seen.rejoining[-1]  # they are told once, of all
            with further(f"{member.name} joins again"):
                there = observed.observe(inventory, run.fleet, lost, recovering=True)
                join = members.add(
                    inventory, run.fleet, there, member.name, write=True, workers=workers
                )
                _carry_out(run, join)
            plan = replace(plan, steps=(*plan.steps, *join.steps))
        with further("the recovery is finished"):
            last = recover.finish(inventory, run.fleet, seen)
            _carry_out(run, last)
        plan = replace(plan, steps=(*plan.steps, *last.steps))
    kept = restore.kept(seen.chosen, seen.mark)
    _finish(run, plan, not run.dry_run, {"kept": kept}, f"a copy of the old data: {kept}")
    return 0


def kept_data(run: Run, delete: str, limit: str) -> int:
    """What members' former data there is, and the deletion of what is named."""
    from provision import screen
    from provision.etcd import kept
    from provision.selection import choose
    from provision.text import size

    inventory = _inventory(run)
    seen = kept.observe(inventory, run.fleet, choose(inventory.etcd.members, limit))
    plan = kept.plan(inventory, seen, [n.strip() for n in delete.split(",") if n.strip()])
    if not run.json and not delete:
        rows = [
            (k.member.name, k.path, k.why, f"{k.when:%Y-%m-%d %H:%M}", size(k.bytes))
            for k in seen.kept
        ]
        screen.table(("member", "folder", "kept by a", "since (UTC)", "size"), rows)
    carried = _carry_out(run, plan)
    total = size(sum(k.bytes for k in seen.kept))
    line = f"{total} in {len(seen.kept)} folders; --delete NAME,... deletes what it names"
    extra = {"kept": [k.document() for k in seen.kept]}
    _finish(run, plan, carried, extra, "" if delete else line)
    return 0


def defrag_etcd(run: Run, compact: bool) -> int:
    """Compact and defragment, and show each database's size before and after."""
    from provision import screen
    from provision.etcd import health, maintenance
    from provision.text import size

    inventory = _own_etcd(run)
    seen = health.observe(inventory.etcd, run.fleet)
    before = maintenance.usage(seen)
    plan = maintenance.defrag_plan(inventory, run.fleet, seen, compact=compact)
    carried = _carry_out(run, plan)
    now = before
    if carried:
        now = maintenance.usage(health.observe(inventory.etcd, run.fleet))
    if not run.json:
        headings = ("member", "role", "before", "size", "in use", "quota", "alarms")
        screen.table(headings, maintenance.rows(now, before))
    freed = sum(u.size for u in before) - sum(u.size for u in now)
    line = f"{size(max(0, freed))} freed"
    if any(u.alarms for u in now):
        line += "; alarms are still on: invoke disarm-alarms"
    documents = {
        "before": [u.document() for u in before],
        "after": [u.document() for u in now],
    }
    _finish(run, plan, carried, documents, line)
    return 0


def disarm_alarms(run: Run) -> int:
    """Disarm the alarms whose cause is gone."""
    from provision.etcd import maintenance

    inventory = _own_etcd(run)
    plan = maintenance.disarm_plan(inventory, run.fleet)
    _finish(run, plan, _carry_out(run, plan), line="" if plan.steps else "there is no alarm")
    return 0


def audit(run: Run, host: str, lines: int) -> int:
    """The audit log of this machine, or of one host."""
    from provision import audit as log
    from provision import screen

    if host:
        machine = _machine(run.inventory, host)
        entries = log.read_host(run.fleet.session(machine), lines)
        place = f"{machine.host}:{log.HOST_LOG}"
    else:
        entries, place = log.read_local(lines), str(log.local_log())
    if run.json:
        documents = [e.document() for e in entries]
        screen.emit_json(
            {"schema": "alluxio-provision/audit/1", "log": place, "entries": documents}
        )
        return 0
    headings = ("when", "who", "command", "cluster", "name", "result", "changes")
    screen.table(headings, log.rows(entries), title=place)
    return 0


def show_inventory(run: Run) -> int:
    from provision import screen
    from provision.inventory import provenance

    rows = provenance(run.loaded)
    if run.json:
        values = [{"path": r.path, "value": r.value, "origin": r.origin} for r in rows]
        screen.emit_json({"schema": "alluxio-provision/inventory/1", "values": values})
    else:
        screen.table(
            ("value of", "is", "from"), [(r.path, _plain(r.value), r.origin) for r in rows]
        )
    _warn(run)
    return 0


def init_inventory(run: Run, path: str) -> int:
    from provision.inventory import write_example

    write_example(Path(path))
    if run.json:
        from provision import screen

        screen.emit_json({"schema": "alluxio-provision/init-inventory/1", "path": path})
    else:
        print(f"wrote {path}: edit it, then invoke show-inventory --inventory {path}")
    return 0


def import_ansible(run: Run, file: str, to: str, etcd_group: str, worker_group: str) -> int:
    """Make an inventory of an Ansible one; what cannot be carried over is listed."""
    from provision import screen
    from provision.ansible.convert import convert
    from provision.inventory.example import write_new

    if not file:
        raise UsageError("name the Ansible inventory: invoke import-ansible FILE --to FILE")
    made = convert(Path(file), Path(to), etcd_group, worker_group)
    write_new(Path(to), made.text)
    screen.problems(made.warnings)
    if run.json:
        screen.emit_json(
            {
                "schema": "alluxio-provision/import-ansible/1",
                "path": to,
                "etcd_group": made.groups[0],
                "worker_group": made.groups[1],
                "members": made.members,
                "workers": made.workers,
                "problems": [problem.document() for problem in made.warnings],
            }
        )
    else:
        workers = f", {made.workers} workers of {made.groups[1]}" if made.groups[1] else ""
        print(
            f"wrote {to}: {made.members} members of {made.groups[0]}{workers}; edit what says "
            f"EDIT, then invoke show-inventory --inventory {to}"
        )
    return 0


def export_ssh_config(run: Run) -> int:
    """Print the inventory's hosts as an OpenSSH configuration."""
    from provision import screen
    from provision.ssh.export import ssh_config
    from provision.ssh.route import UserConfig

    try:
        text = ssh_config(_inventory(run), UserConfig())
    except ValueError as error:
        raise UsageError(str(error)) from None
    if run.json:
        screen.emit_json({"schema": "alluxio-provision/ssh-config/1", "config": text})
    else:
        print(text, end="")
    return 0


def inventory_schema(run: Run) -> int:
    from provision import screen
    from provision.inventory import json_schema

    screen.emit_json(json_schema())
    return 0


def _consent(run: Run, name: str, given: str, done: str, what: str, option: str) -> None:
    """Ask for the cluster's name unless ``given``. Raises :class:`UsageError` without it."""
    if run.dry_run:
        return
    if not given and sys.stdin.isatty():
        prompt = f"{what}. Type {name} to go on: "
        print(prompt, end="", file=sys.stderr, flush=True)  # stdout is for the result
        given = sys.stdin.readline().strip()
    if given != name:
        raise UsageError(
            f"not {done}: the cluster is called {name}"
            + ("" if given else f"; say {option} and its name")
        )


def _inventory(run: Run) -> Inventory:
    """The inventory, while SSH and etcd's client libraries are imported beside it."""
    import threading

    from provision.etcd import client

    threading.Thread(target=client.preload, name="preload", daemon=True).start()
    inventory = run.inventory
    _warn(run)
    return inventory


def _own_etcd(run: Run) -> Inventory:
    """As :func:`_inventory`. Raises :class:`UsageError` when etcd is taken care of elsewhere."""
    if run.inventory.etcd.external:
        raise UsageError(
            f"{run.inventory.path}: etcd.external says that this etcd is taken care of elsewhere: "
            f"{run.command} is for the inventory that declares its members"
        )
    return _inventory(run)


def _alluxio(run: Run) -> tuple[Inventory, AlluxioCluster]:
    inventory = _inventory(run)
    if inventory.alluxio is None:
        raise UsageError(f"{inventory.path}: has no 'alluxio' section")
    return inventory, inventory.alluxio


def _masters(run: Run) -> tuple[Inventory, AlluxioCluster]:
    inventory, alluxio = _alluxio(run)
    if not alluxio.masters:
        raise UsageError(f"{inventory.path}: has no alluxio.masters")
    return inventory, alluxio


def _warn(run: Run) -> None:
    from provision import screen

    screen.problems(run.loaded.warnings)


def _deletions(delete: str, name: str) -> tuple[str, ...]:
    if delete not in ("", name):
        raise UsageError(f"--delete-data is {name} or nothing, not {delete!r}")
    return (delete,) if delete else ()


def _machine(inventory: Inventory, name: str) -> Machine:
    roles: list[Any] = [] if inventory.etcd.external else [*inventory.etcd.members]
    if inventory.alluxio is not None:
        roles += [*inventory.alluxio.masters, *inventory.alluxio.workers]
    for role in roles:
        if name in (role.name, role.machine.host):
            machine: Machine = role.machine
            return machine
    known = ", ".join(role.name for role in roles[:10]) + (", ..." if len(roles) > 10 else "")
    said = f"{name!r} is no member, worker or host of the inventory" if name else "say --host"
    raise UsageError(f"{said}: there are {known}")


def _carry_out(run: Run, plan: Plan) -> bool:
    """Show the plan and, unless this is a dry run, apply it. Returns whether it was applied."""
    from provision import plan as plans
    from provision import screen

    screen.problems(plan.notes)
    if not plan.steps:
        return False
    if not run.json:
        screen.plan(plan)
    if run.dry_run:
        return False
    run.applying = True
    with screen.Progress() as progress:
        plans.apply(plan, run.fleet, progress)
    run.applying = False
    return True


def _finish(
    run: Run, plan: Plan, carried: bool, extra: dict[str, Any] | None = None, line: str = ""
) -> None:
    from provision import screen

    done = plan.changed if carried else 0
    if run.json:
        document = plan.document() | {"applied": carried, "changed": done, **(extra or {})}
        if run.dry_run:
            document["would_change"] = plan.changed
        screen.emit_json(document)
        return
    if run.dry_run and plan.steps:
        print(f"{plan.changed} would change; nothing was changed (--dry-run)")
        return
    print(f"{done} changed" + (f"; {line}" if line else ""))


def _plain(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
