"""The commands that look at the whole cluster, and the commands that remove it."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.cli.run import Run
from provision.cli.tasks import common
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.check_nodes import CheckReport
    from provision.inventory.resolved import Inventory, Machine


def check_nodes(
    run: Run,
    interval: float | None,
    nodes_timeout: float,
    output: str,
    html: str,
    hosts: bool = False,
    read: str = "",
) -> int:
    """The verdict on every worker, and every member's health: once, or as they change."""
    from provision import check_nodes, terminal
    from provision.check_nodes import table

    if output and run.format == "table":
        raise UsageError("--output is for --format json or prometheus", id="option-invalid")
    if interval is not None and (output or html or run.format == "prometheus"):
        raise UsageError(
            "--watch shows a table, or --format json: leave the rest out", id="option-invalid"
        )
    if read:
        from provision.alluxio.commands.read import checked

        checked(read)
        inventory, _ = common.load_alluxio(run)
    else:
        inventory = common.load(run)
    if interval is not None:
        etcd = run.etcd(inventory.etcd)
        looks = check_nodes.watch(inventory, etcd, interval, nodes_timeout=nodes_timeout)
        with terminal.until_interrupted(), contextlib.closing(looks):
            if not run.json:
                table.watch(looks)
            for look in check_nodes.changes(looks):
                terminal.emit_json_line(look.document())
        return 0
    seen = check_nodes.run(
        inventory,
        run.etcd(inventory.etcd),
        nodes_timeout=nodes_timeout,
        hosts=hosts,
        backups=not inventory.etcd.external,
    )
    if read:
        seen = check_nodes.with_read(seen, run.fleet, read, nodes_timeout)
    return _show_check(run, seen, output, html)


def check_pods(
    run: Run, where: tuple[str, str, str], nodes_timeout: float, output: str, html: str
) -> int:
    """As :func:`check_nodes`, over the pods of the inventory's Helm release.

    ``where`` is namespace, context and kubeconfig. Each replaces the inventory's value unless it is
    empty.
    """
    from provision.kubernetes import check, values

    if output and run.format == "table":
        raise UsageError("--output is for --format json or prometheus", id="option-invalid")
    inventory, _ = common.load_alluxio(run)
    _, declared = values.declared(inventory)
    namespace, context, kubeconfig = where
    declared = replace(
        declared,
        namespace=namespace or declared.namespace,
        context=context or declared.context,
        kubeconfig=Path(kubeconfig).expanduser().absolute() if kubeconfig else declared.kubeconfig,
    )
    inventory = replace(inventory, kubernetes=declared)
    seen = check.run(inventory, run.etcd(inventory.etcd), nodes_timeout=nodes_timeout)
    return _show_check(run, seen, output, html)


def _show_check(run: Run, seen: CheckReport, output: str, html: str) -> int:
    from provision import terminal
    from provision.check_nodes import table

    if html:
        from provision.check_nodes import page
        from provision.files import write_whole

        write_whole(Path(html).expanduser(), page.html(seen))
    if run.format == "table":
        table.check(seen)
    elif run.json:
        _put(output, terminal.json_text(seen.document()))
    else:
        from provision.check_nodes import prometheus

        _put(output, prometheus.exposition(seen))
    return seen.exit_code


def _put(output: str, text: str) -> None:
    """``text`` into the file ``output``, or on stdout without one."""
    if output:
        from provision.files import write_whole

        write_whole(Path(output).expanduser(), text)
    else:
        sys.stdout.write(text)


def list_clusters(run: Run) -> int:
    """Every Alluxio cluster that has a key in this etcd."""
    from provision import terminal
    from provision.alluxio.membership import clusters

    inventory = common.load(run)
    seen = clusters.look(inventory, run.etcd(inventory.etcd))
    if run.json:
        terminal.emit_json(seen.document())
        return 0
    headings = ("cluster", "authorized", "live", "inventory", "mixed up with")
    terminal.table(
        headings,
        [
            (c.name, str(c.authorized), str(c.live), c.inventory or "-", ", ".join(c.confusable))
            for c in seen.clusters
        ],
    )
    if not seen.complete:
        print("the login may read this cluster's keys only: there may be others")
    return 0


def status(run: Run, limit: str, batch: str) -> int:
    from provision import terminal
    from provision.check_nodes import status
    from provision.cli import console
    from provision.inventory.selection import choose

    inventory = common.load(run)
    chosen = choose(status.roles(inventory), limit, batch)
    seen = status.look(inventory, run.etcd(inventory.etcd), chosen)
    if run.json:
        terminal.emit_json(seen.document())
    else:
        rows = [
            (s.name, s.machine.host, s.unit, s.state, str(s.restarts), *s.disks)
            for s in seen.services
        ]
        terminal.table(("name", "host", "unit", "state", "restarts", "disk"), rows)
    console.problems(seen.problems)
    return seen.exit_code


def logs(run: Run, host: str, lines: int) -> int:
    from provision import terminal
    from provision.check_nodes import status
    from provision.cli import console

    machine = _machine(run.inventory, host)
    text = status.journal(run.fleet, machine, lines)
    means = status.meaning(run.inventory, machine, text)
    if run.json:
        document = {"schema": "alluxio-provision/logs/1", "host": machine.host, "lines": text}
        terminal.emit_json(document | {"problems": [p.document() for p in means]})
    else:
        print("\n".join(text))
        console.problems(means)
    return 0


def audit(run: Run, host: str, lines: int) -> int:
    """The audit log of this machine, or of one host."""
    from provision import terminal
    from provision.engine import audit as log

    if host:
        machine = _machine(run.inventory, host)
        entries = log.read_host(run.fleet.session(machine), lines)
        place = f"{machine.host}:{log.HOST_LOG}"
    else:
        entries, place = log.read_local(lines), str(log.local_log())
    if run.json:
        documents = [e.document() for e in entries]
        terminal.emit_json(
            {"schema": "alluxio-provision/audit/1", "log": place, "entries": documents}
        )
        return 0
    headings = ("when", "who", "command", "cluster", "name", "result", "changes")
    terminal.table(headings, log.rows(entries), title=place)
    return 0


def destroy(run: Run, confirmed: str) -> int:
    """Remove the cluster from its hosts. Only the cluster's name counts as consent."""
    from provision.cli import console
    from provision.plans import destroy

    inventory = common.load(run)
    what = "This deletes etcd, the workers and ALL their data"
    consent = common.Consent(inventory.cluster, confirmed, "destroyed", what, "--yes-delete")
    consent.require_possible(run)
    notes = destroy.others(inventory, run.etcd(inventory.etcd))
    plan = replace(destroy.destroy(inventory, run.fleet), notes=notes)
    console.problems(notes)
    consent.require(run, plan)
    common.finish(run, plan, common.carry_out(run, replace(plan, notes=())))
    return 0


def clean_host(run: Run, name: str, delete: str, confirmed: str) -> int:
    """Remove another cluster's installation from one host. The host's name is the consent."""
    from provision.cli import console
    from provision.plans import clean_host

    if not name:
        raise UsageError("which host? invoke clean-host NAME", id="argument-missing")
    if delete not in ("", name):
        raise UsageError(f"--delete-data is {name} or nothing, not {delete!r}", id="option-invalid")
    inventory = common.load(run)
    machine = _machine(inventory, name)
    data = "and deletes their data" if delete else "and keeps their data aside"
    what = f"This removes the services of another cluster from {name} {data}"
    consent = common.Consent(name, confirmed, "cleaned", what, "--yes-clean", "host")
    consent.require_possible(run)
    plan = clean_host.plan(inventory, run.fleet, name, machine, delete_data=bool(delete))
    console.problems(plan.notes)
    consent.require(run, plan)
    line = "" if plan.steps else f"nothing of another cluster is on {name}"
    common.finish(run, plan, common.carry_out(run, replace(plan, notes=())), {}, line)
    return 0


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
    raise UsageError(f"{said}: there are {known}", id="name-unknown")
