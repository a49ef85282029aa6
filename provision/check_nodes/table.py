"""``check-nodes`` on the screen: the members, the workers, the problems, and a summary line.

A state is always a word; colour only repeats it. Everything from etcd or a host is inserted as
text, never as markup.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from provision import progress, terminal
from provision.alike import folded
from provision.check_nodes import CheckReport, NodeVerdict, State, changes
from provision.check_nodes.brief import ROWS, brief
from provision.etcd.api.values import MemberStatus
from provision.etcd.cluster.health import MemberHealth
from provision.etcd.cluster.served_certs import EXPIRY_WARNING_DAYS
from provision.tables import Column, Sentence, Styled, Table
from provision.text import size

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.text import Text

#: Characters of an endpoint, an address and a worker id that is shortened in the middle.
ENDPOINT, ADDRESS, ID = 21, 18, 13

_STYLES = {
    State.LIVE: "green",
    State.REACHABLE: "green",
    State.FAILED: "bold red",
    State.STALE: "bold red",
    State.UNREACHABLE: "bold red",
    State.UNREGISTERED: "yellow",
    State.NOT_INSTALLED: "yellow",
    State.UNKNOWN: "magenta",
    State.UNDETERMINED: "yellow",
}

_styled = terminal.text


def check(report: CheckReport, *, wide: bool = False, every: bool = False) -> None:
    """The report on stdout. ``wide``: every column, on one line. ``every``: a row for each worker,
    also of many on a terminal."""
    _plain_errors()
    out = terminal.console()
    out.print(drawn(report, wide=wide, every=every or not out.is_terminal))


def watch(reports: Iterable[CheckReport], *, wide: bool = False, every: bool = False) -> None:
    """On a terminal, each report replaces the one before; elsewhere, each change is printed below.

    On a terminal the report fills the screen, the worst first; after an interrupt the last report
    stays.
    """
    from rich.live import Live

    _plain_errors()
    out = terminal.console()
    if not out.is_terminal:
        for report in changes(reports):
            out.print(_heading(report))
            out.print(drawn(report, wide=wide))
        return
    reports = iter(reports)
    last = next(reports, None)  # until it is there, the waits are shown
    if last is None:
        return
    reports = itertools.chain([last], reports)
    try:
        with progress.hidden(), Live(console=out, screen=True, auto_refresh=False) as live:
            for last in reports:
                live.update(_screenful(last, wide=wide, every=every), refresh=True)
    finally:
        check(last, wide=wide, every=every)


def _plain_errors() -> None:
    """Replace characters that the terminal's encoding lacks, instead of an error."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")


def _heading(report: CheckReport) -> Text:
    return _styled(f"{report.taken.astimezone():%Y-%m-%d %H:%M:%S} (Ctrl-C ends)")


def drawn(report: CheckReport, *, wide: bool = False, every: bool = True) -> Group:
    """The report as `check-nodes` prints it, for any console of rich. Without ``every``, many
    workers are listed in brief."""
    from rich.console import Group

    parts: list[RenderableType] = [_members(report, wide), ""]
    if report.alluxio is not None:
        parts += _listed(report, report.nodes, wide=wide, every=every)
    return Group(*parts, *_problems(report), *_summary(report))


def _screenful(report: CheckReport, *, wide: bool = False, every: bool = False) -> Group:
    """For a screen without scrolling: the summary and the problems come first."""
    from rich.console import Group

    head = [_heading(report), *_summary(report), *_problems(report), ""]
    worst = sorted(report.nodes, key=lambda n: n.ok)
    listed = _listed(report, worst, wide=wide, every=every)
    return Group(*head, _members(report, wide), "", *listed)


def _listed(
    report: CheckReport, nodes: Sequence[NodeVerdict], *, wide: bool, every: bool
) -> list[RenderableType]:
    """The workers' table, and what it leaves out."""
    if every or len(nodes) <= ROWS:
        return [_workers(report, nodes, wide), ""] if nodes else []
    short = brief(
        nodes,
        good=lambda n: n.ok,
        state=lambda n: n.state.value,
        name=_name,
        why=lambda n: f"{n.ready} {n.info_nodes} {'; '.join(n.notes)}",
        noun="workers",
    )
    rows = [
        kind.first
        if kind.count == 1
        else replace(kind.first, name=kind.name, host="", worker_id=None)
        for kind in short.kinds
    ]
    parts: list[RenderableType] = [Sentence(f"{len(nodes)} workers: {short.totals}", "bold"), ""]
    parts += [_workers(report, rows, wide), ""] if rows else []
    parts += [Sentence(short.rest), ""] if short.rest else []
    return parts


def _problems(report: CheckReport) -> list[RenderableType]:
    styles = {"error": "red", "warning": "yellow"}
    return [
        Sentence(f"{problem.severity}: {problem.line}", style=styles.get(problem.severity, ""))
        for problem in sorted(folded(report.problems), key=lambda p: p.severity != "error")
    ]


def _summary(report: CheckReport) -> list[RenderableType]:
    lines: list[RenderableType] = [Sentence(_etcd_line(report))]
    if report.stored is not None:
        lines.append(Sentence(report.stored.line))
    if report.alluxio is not None:
        if report.read is not None:
            style = "bold red" if report.read.error else "green"
            lines.append(Sentence(report.read.line(report.alluxio), style))
        lines.append(Sentence(report.summary, style="bold"))
    return lines


def _members(report: CheckReport, wide: bool) -> RenderableType:
    columns: list[Column[MemberHealth]] = [
        Column("etcd member", lambda m: m.member.name),
        Column("endpoint", _endpoint, gives=1, least=ENDPOINT),
        Column("health", _health),
        Column("role", report.etcd.role, gives=5),
        Column("version", _reported(lambda status: status.version), gives=4),
        Column("revision", _reported(lambda status: str(status.revision)), right=True, gives=2),
        Column("db size", _reported(lambda status: size(status.db_size)), right=True, gives=3),
        Column("alarms", _reported(_alarms), gives=7),
        Column("certificate", _certificate_days, right=True, gives=6),
    ]
    return Table(columns, report.etcd.members, wide=wide)


def _reported(
    cell: Callable[[MemberStatus], str | Styled],
) -> Callable[[MemberHealth], str | Styled]:
    """A cell from the member's status; "-" when the member did not answer."""
    return lambda m: "-" if m.status is None else cell(m.status)


def _endpoint(m: MemberHealth) -> str:
    return m.member.client_url + (" (ssh)" if m.how == "tunnel" else "")


def _health(m: MemberHealth) -> Styled:
    return Styled("healthy", "green") if m.healthy else Styled("UNHEALTHY", "bold red")


def _alarms(status: MemberStatus) -> str | Styled:
    return Styled(", ".join(status.alarms), "bold red") if status.alarms else "-"


def _certificate_days(m: MemberHealth) -> str | Styled:
    """The days left of the member's certificate that expires first."""
    if not m.certificates:
        return "-"
    left = [c.days_left() for c in m.certificates]
    days = [d for d in left if d is not None]
    if len(days) < len(left):
        expired = any("expired" in c.error for c in m.certificates)
        return Styled("EXPIRED", "bold red") if expired else Styled("not verified", "yellow")
    text = f"{min(days)} days"
    return Styled(text, "yellow") if min(days) < EXPIRY_WARNING_DAYS else text


def _workers(report: CheckReport, shown: Sequence[NodeVerdict], wide: bool) -> RenderableType:
    # A live view asks `info nodes` again after each change, which takes its time.
    unlisted = "..." if report.info_nodes is None else "not listed"
    if report.info_nodes is not None and report.info_nodes.error:
        unlisted = "no answer" if report.info_nodes.installed else "-"
    has_ready = any(n.ready is not None for n in report.nodes)
    has_notes = any(n.notes for n in shown)
    columns: list[Column[NodeVerdict]] = [
        Column("worker", _name, words=True),
        Column("address", lambda n: n.address or "-", gives=2, least=ADDRESS, below=_is_odd),
        Column("state", lambda n: Styled(n.state.value, _STYLES[n.state])),
        Column("ready", _readiness, shown=has_ready, gives=5),
        Column("worker id", lambda n: n.worker_id or "-", gives=1, least=ID, below=_is_odd),
        Column("info nodes", lambda n: n.info_nodes or unlisted, gives=4),
        Column("notes", lambda n: "\n".join(_notes(n)), shown=has_notes, words=True, gives=3),
    ]
    return Table(columns, shown, wide=wide)


def _name(n: NodeVerdict) -> str:
    return n.name or "(not in the inventory)"


def _is_odd(n: NodeVerdict) -> bool:
    """Whether its address and its id may be wanted on the screen."""
    return not n.ok


def _readiness(n: NodeVerdict) -> str | Styled:
    if n.ready is None:
        return "-"
    return Styled("READY", "green") if n.ready else Styled("NOT READY", "bold red")


def _notes(n: NodeVerdict) -> Iterable[str]:
    return n.notes if len(n.notes) < 2 else (f"- {note}" for note in n.notes)


def _etcd_line(report: CheckReport) -> str:
    etcd = report.etcd
    text = f"etcd: {etcd.healthy_count} of {len(etcd.members)} members healthy"
    text += f" (quorum {etcd.quorum}), leader {etcd.leader or 'none'}"
    if report.alluxio is None or not report.alluxio.membership.in_etcd:
        return text
    # Without it nobody can tell whether "LIVE" is current or two minutes old.
    seconds = report.alluxio.failure_detection_timeout
    return f"{text}; a worker that dies shows as FAILED within {seconds} s"
