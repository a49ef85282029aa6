"""The commands that look at the whole cluster, and the commands that remove it."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.cli import confirm
from provision.cli.command import command
from provision.cli.run import Run
from provision.cli.tasks import common
from provision.errors import UsageError
from provision.program_in_use import rendered

if TYPE_CHECKING:
    from provision.check_nodes import CheckReport
    from provision.check_nodes.status import Service, Status
    from provision.cli.documents import AuditDocument, LogsDocument
    from provision.errors import Problem
    from provision.inventory.resolved import Inventory, Machine


@command(
    help={
        "watch": "Show every change that etcd reports, until Ctrl-C (exit code 0).",
        "interval": "With --watch: seconds between two looks at the members' health.",
        "nodes_timeout": "Seconds that a command of bin/alluxio may take on a worker's host.",
        "limit": common.LIMIT,
        "batch": common.BATCH,
        "hosts": "Also log in to every worker's host: do all its listeners answer (READY)?",
        "read": common.READ,
        "kubernetes": "Look at the pods of the inventory's kubernetes section, by kubectl.",
        "namespace": "With --kubernetes: instead of kubernetes.namespace.",
        "kube_context": "With --kubernetes: instead of kubernetes.context.",
        "kubeconfig": "With --kubernetes: instead of kubernetes.kubeconfig.",
        "format": "table, json (with --watch: one line a change), or prometheus: metrics.",
        "output": "With json or prometheus: the file to write, whole or not at all.",
        "html": "Also write the report as one HTML page, to this file.",
        "wide": common.WIDE,
        "all": common.ALL,
    },
    writes=("output", "html"),
    formats=("table", "json", "prometheus"),
    word="limit",
)
def check_nodes(
    run: Run,
    limit: str = "",
    batch: str = "",
    watch: bool = False,
    interval: float = 10.0,
    nodes_timeout: float = 45.0,
    output: str = "",
    html: str = "",
    hosts: bool = False,
    read: str = "",
    kubernetes: bool = False,
    namespace: str = "",
    kube_context: str = "",
    kubeconfig: str = "",
    wide: bool = False,
    all: bool = False,
) -> int:
    """Join inventory, etcd and `info nodes` into a verdict for each worker; exit 1 if one is bad.

    LIVE, FAILED (registered, no lease), STALE (expired lease, not removed), UNREGISTERED (inventory
    only), NOT_INSTALLED, UNKNOWN (etcd only). With --hosts READY: live, and every listener answers.
    NAMES and --batch choose declared workers; etcd is always looked at as a whole.
    """
    if (limit or batch) and (watch or kubernetes):
        raise UsageError(
            "NAMES and --batch are not for --watch or --kubernetes: leave one out",
            id="option-invalid",
        )
    if (hosts or read) and (watch or kubernetes):
        raise UsageError(
            "--hosts and --read are not for --watch or --kubernetes: leave one out",
            id="option-invalid",
        )
    if kubernetes and watch:
        raise UsageError(
            "--watch is not for pods: leave it or --kubernetes out", id="option-invalid"
        )
    if not kubernetes and (namespace or kube_context or kubeconfig):
        raise UsageError(
            "--namespace, --kube-context and --kubeconfig go with --kubernetes", id="option-invalid"
        )
    if output and run.format == "table":
        raise UsageError("--output is for --format json or prometheus", id="option-invalid")
    if kubernetes:
        where = (namespace, kube_context, kubeconfig)
        pods = _check_pods(run, where, nodes_timeout)
        return _show_check(run, pods, output, html, wide=wide, every=all)

    from provision import check_nodes, terminal

    if watch and (output or html or run.format == "prometheus"):
        raise UsageError(
            "--watch shows a table, or --format json: leave the rest out", id="option-invalid"
        )
    if read:
        from provision.alluxio.commands.read import checked

        checked(read)
    chosen = None
    if read or limit or batch:
        inventory, alluxio = common.load_alluxio(run)
        chosen = run.choose(alluxio.workers, limit, batch)
    else:
        inventory = common.load(run)
    run.drop_file()
    if watch:
        etcd = run.etcd(inventory.etcd)
        looks = check_nodes.watch(inventory, etcd, interval, nodes_timeout=nodes_timeout)
        with terminal.until_interrupted(), contextlib.closing(looks):
            if not run.json:
                from provision.check_nodes import table

                table.watch(_then_quiet(looks), wide=wide, every=all)
            for look in check_nodes.changes(_then_quiet(looks)):
                terminal.emit_json_line(run.document(look.document()))
        return 0
    seen = check_nodes.run(
        inventory,
        run.etcd(inventory.etcd),
        nodes_timeout=nodes_timeout,
        hosts=hosts,
        chosen=chosen,
        backups=not inventory.etcd.external,
    )
    if read:
        seen = check_nodes.with_read(seen, run.fleet, read, nodes_timeout)
    return _show_check(run, seen, output, html, wide=wide, every=all)


def _then_quiet(looks: Iterable[CheckReport]) -> Iterator[CheckReport]:
    """The reports of a watch. After the first one, its waits go on without an end: they are not
    shown."""
    from provision import progress

    looks = iter(looks)
    yield from itertools.islice(looks, 1)
    with progress.hidden():
        yield from looks


def _check_pods(run: Run, where: tuple[str, str, str], nodes_timeout: float) -> CheckReport:
    """The report on the pods of the inventory's Helm release.

    ``where`` is namespace, context and kubeconfig. Each replaces the inventory's value unless it is
    empty.
    """
    from provision.kubernetes import check, values

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
    return check.run(inventory, run.etcd(inventory.etcd), nodes_timeout=nodes_timeout)


def _show_check(
    run: Run,
    seen: CheckReport,
    output: str,
    html: str,
    *,
    wide: bool = False,
    every: bool = False,
) -> int:
    from provision import terminal

    if html:
        from provision.check_nodes import page
        from provision.files import write_whole

        write_whole(Path(html).expanduser(), rendered(page.html(seen)))
    if run.format == "table":
        from provision.check_nodes import table

        table.check(seen, wide=wide, every=every)
    elif run.json:
        document = run.document(seen.document(()))
        _put(output, terminal.json_pieces(document, "nodes", seen.node_documents()))
    else:
        from provision.check_nodes import prometheus

        _put(output, [prometheus.exposition(seen)])
    return seen.exit_code


def show_status(seen: Status, *, wide: bool, every: bool) -> None:
    from provision import tables, terminal
    from provision.check_nodes.brief import ROWS, brief

    rows = [(s.name, s, s.machine.host) for s in seen.services]
    out, short = terminal.console(), None
    if not every and len(rows) > ROWS and out.is_terminal:
        short = brief(
            seen.services,
            good=lambda s: s.good,
            state=lambda s: s.kind,
            name=lambda s: s.name,
            why=lambda s: f"{s.unit} {s.state}".replace(s.machine.host, s.name),
            noun="services",
        )
        rows = [(k.name, k.first, k.first.machine.host * (k.count == 1)) for k in short.kinds]
        out.print(tables.Sentence(f"{len(seen.services)} services: {short.totals}"), "", sep="\n")
    Column = tables.Column[tuple[str, "Service", str]]
    columns = (
        Column("name", lambda r: r[0], words=True),
        Column("host", lambda r: r[2], gives=1, least=15),
        Column("unit", lambda r: r[1].unit, gives=2),
        Column("state", lambda r: r[1].state, words=True, gives=5),
        Column("restarts", lambda r: str(r[1].restarts), gives=3, right=True),
        Column("disk", lambda r: ", ".join(r[1].disks), gives=4),
    )
    if rows:
        tables.show(columns, rows, wide=wide)
    if short is not None and short.rest:
        out.print("", tables.Sentence(short.rest), sep="\n")


def _put(output: str, pieces: Iterable[str]) -> None:
    """A text into the file ``output``, or on stdout without one."""
    if output:
        from provision.files import write_whole

        write_whole(Path(output).expanduser(), "".join(pieces))
    else:
        sys.stdout.writelines(pieces)


@command(help={"wide": common.WIDE})
def list_clusters(run: Run, wide: bool = False) -> int:
    """List every Alluxio cluster that has workers in this etcd, and how many are live."""
    from provision import tables, terminal
    from provision.alluxio.membership import clusters, registrations
    from provision.cli import console

    inventory = common.load(run)
    seen = clusters.look(inventory, run.etcd(inventory.etcd))
    missing = registrations.missing(seen.cut)
    if run.json:
        terminal.emit_json(seen.document())
        return int(missing is not None)
    tables.show(
        (
            tables.Texts("cluster"),
            tables.Texts("authorized", right=True),
            tables.Texts("live", right=True),
            tables.Texts("inventory", gives=2),
            tables.Texts("mixed up with", words=True, gives=1),
        ),
        [
            (c.name, str(c.authorized), str(c.live), c.inventory or "-", ", ".join(c.confusable))
            for c in seen.clusters
        ],
        wide=wide,
    )
    if not seen.complete:
        terminal.say("the login may read this cluster's keys only: there may be others")
    if missing is not None:
        console.problems([missing])
    return int(missing is not None)


@command(
    help={
        "limit": common.LIMIT,
        "batch": common.BATCH,
        "wide": common.WIDE,
        "all": common.ALL,
    },
    word="limit",
)
def status(
    run: Run, limit: str = "", batch: str = "", wide: bool = False, all: bool = False
) -> int:
    """Show what systemd reports about each member and worker, and its disk.

    From etcd it shows only whether the members form more than one cluster: see check-nodes.
    """
    from provision import terminal
    from provision.check_nodes import status
    from provision.cli import console

    inventory = common.load(run)
    chosen = run.choose(status.roles(inventory), limit, batch)
    seen = status.look(inventory, run.etcd(inventory.etcd), chosen)
    if run.json:
        terminal.emit_json(run.document(seen.document()))
    else:
        show_status(seen, wide=wide, every=all)
    console.problems(seen.problems)
    return seen.exit_code


@command(
    help={
        "name": "A member, a worker or a host of the inventory.",
        "lines": "How many of the last lines.",
    },
    old={"host": "name"},
)
def logs(run: Run, name: str, lines: int = 50) -> int:
    """Show the last log lines of a host's etcd member and Alluxio worker."""
    from provision import terminal
    from provision.check_nodes import status
    from provision.cli import console

    machine = _machine(run.inventory, name)
    text = status.journal(run.fleet, machine, lines)
    means = status.meaning(run.inventory, run.etcd(run.inventory.etcd), machine, text)
    if run.json:
        document: LogsDocument = {
            "schema": "alluxio-provision/logs/1",
            "host": machine.host,
            "lines": text,
            "problems": [p.document() for p in means],
        }
        terminal.emit_json(document)
    else:
        print("\n".join(text))  # a log, as it stands on the host
        console.problems(means)
    return 0


@command(
    help={
        "name": "A member, a worker or a host: its own log instead of this machine's.",
        "lines": "How many of the last entries.",
        "wide": common.WIDE,
    },
    word="name",
    old={"host": "name"},
)
def audit(run: Run, name: str = "", lines: int = 50, wide: bool = False) -> int:
    """Show who changed what, when, and how it ended: from this machine's log, or one host's."""
    from provision import tables, terminal
    from provision.engine import audit as log

    if name:
        machine = _machine(run.inventory, name)
        entries = log.read_host(run.fleet.session(machine), lines)
        place = f"{machine.host}:{log.HOST_LOG}"
    else:
        entries, place = log.read_local(lines), str(log.local_log())
    if run.json:
        document: AuditDocument = {
            "schema": "alluxio-provision/audit/1",
            "log": place,
            "entries": [e.document() for e in entries],
        }
        terminal.emit_json(document)
        return 0
    columns = (
        tables.Texts("when"),
        tables.Texts("who", gives=2),
        tables.Texts("command"),
        tables.Texts("cluster", gives=1),
        tables.Texts("name", gives=4),
        tables.Texts("result"),
        tables.Texts("changes", words=True, gives=3),
    )
    tables.show(columns, log.rows(entries), place, wide=wide)
    return 0


@command(
    changes=True,
    help={
        "yes_delete": "The cluster's name: do not ask. For scripts.",
        "other_clusters_unknown": "The cluster's name: no other cluster needs this etcd.",
    },
)
def destroy(run: Run, yes_delete: str = "", other_clusters_unknown: str = "") -> int:
    """Remove workers and etcd with all their data. Asks for the cluster's name."""
    from provision.plans import destroy

    inventory = common.load(run)
    what = "This deletes etcd, the workers and ALL their data"
    consent = common.Consent(inventory.cluster, yes_delete, "destroyed", what, "--yes-delete")
    consent.require_possible(run)
    agreed = common.agrees(inventory, other_clusters_unknown)
    plan = destroy.destroy(inventory, run.fleet)
    notes: tuple[Problem, ...] = ()
    if inventory.etcd.external or destroy.deletes_etcd(plan):
        notes = destroy.others(inventory, run.etcd(inventory.etcd), agreed)
    plan = replace(plan, notes=notes)
    confirm.tell(run, notes)
    consent.require(run, plan)
    common.finish(run, plan, common.carry_out(run, replace(plan, notes=())))
    return 0


@command(
    changes=True,
    help={
        "name": "A member, a worker or a host of the inventory.",
        "delete_data": "The name again: delete the services' data instead of keeping it aside.",
        "yes_clean": "The name again: do not ask. For scripts.",
        "other_clusters_unknown": "The name again: nobody else needs an etcd that ends with it.",
    },
)
def clean_host(
    run: Run,
    name: str,
    delete_data: str = "",
    yes_clean: str = "",
    other_clusters_unknown: str = "",
) -> int:
    """Remove from one host what this tool put there for another cluster. Asks for its name.

    What this inventory declares on the host stays.
    """
    from provision.plans import clean_host
    from provision.plans.etcd.state import other_clusters

    if delete_data not in ("", name):
        raise UsageError(
            f"--delete-data is {name} or nothing, not {delete_data!r}", id="option-invalid"
        )
    if other_clusters_unknown not in ("", name):
        raise UsageError(
            f"not cleaned: {other_clusters.UNKNOWN} names the host, {name}", id="consent-missing"
        )
    inventory = common.load(run)
    machine = _machine(inventory, name)
    data = "and deletes their data" if delete_data else "and keeps their data aside"
    what = f"This removes the services of another cluster from {name} {data}"
    consent = common.Consent(name, yes_clean, "cleaned", what, "--yes-clean", "host")
    consent.require_possible(run)
    plan = clean_host.plan(
        inventory,
        run.etcd(inventory.etcd),
        name,
        machine,
        delete_data=bool(delete_data),
        agreed=bool(other_clusters_unknown),
    )
    confirm.tell(run, plan.notes)
    consent.require(run, plan)
    line = "" if plan.steps else f"nothing of another cluster is on {name}"
    common.finish(run, plan, common.carry_out(run, replace(plan, notes=())), line=line)
    return 0


def _machine(inventory: Inventory, name: str) -> Machine:
    roles: list[Any] = [] if inventory.etcd.external else [*inventory.etcd.members]
    if inventory.alluxio is not None:
        roles += [*inventory.alluxio.masters, *inventory.alluxio.workers]
    named: list[Machine] = [r.machine for r in roles if r.name == name]
    hosts: dict[Machine, str] = {r.machine: r.name for r in roles if r.machine.host == name}
    if not named and len(hosts) > 1:
        said = f"{name!r} is the address of several hosts"
        raise UsageError(f"{said}: give a name, {' or '.join(hosts.values())}", id="name-unknown")
    for machine in (*named, *hosts):
        return machine
    known = ", ".join(role.name for role in roles[:10]) + (", ..." if len(roles) > 10 else "")
    said = f"{name!r} is no member, worker or host of the inventory"
    raise UsageError(f"{said}: there are {known}", id="name-unknown")
