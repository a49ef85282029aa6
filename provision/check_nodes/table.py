"""``check-nodes`` on the screen: the members, the workers, the problems, and a summary line.

A state is always a word; colour only repeats it. Everything from etcd or a host is inserted as
text, never as markup.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from provision import terminal
from provision.check_nodes import CheckReport, NodeVerdict, State, changes
from provision.etcd.api.values import MemberStatus
from provision.etcd.cluster.health import MemberHealth
from provision.etcd.cluster.served_certs import EXPIRY_WARNING_DAYS
from provision.text import size

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.text import Text

#: With more workers than this, healthy workers are only counted.
LISTED = 100
#: Rows of the table at most, also of workers with problems: a terminal takes 1 ms for each.
MOST_ROWS = 2000

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

T = TypeVar("T")

_styled = terminal.text


@dataclass(frozen=True, slots=True)
class _Column(Generic[T]):
    """A column of a table with a row for each ``T``. ``right``: it is aligned to the right."""

    title: str
    cell: Callable[[T], str | Text]
    right: bool = False
    shown: bool = True


def check(report: CheckReport) -> None:
    """The report on stdout."""
    _plain_errors()
    terminal.console().print(drawn(report))


def watch(reports: Iterable[CheckReport]) -> None:
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
            out.print(drawn(report))
        return
    last: CheckReport | None = None
    try:
        with Live(console=out, screen=True, auto_refresh=False) as live:
            for last in reports:
                live.update(_screenful(last), refresh=True)
    finally:
        if last is not None:
            check(last)


def _plain_errors() -> None:
    """Replace characters that the terminal's encoding lacks, instead of an error."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")


def _heading(report: CheckReport) -> Text:
    return _styled(f"{report.taken.astimezone():%Y-%m-%d %H:%M:%S} (Ctrl-C ends)")


def drawn(report: CheckReport) -> Group:
    """The report as `check-nodes` prints it, for any console of rich."""
    from rich.console import Group

    parts: list[RenderableType] = [_members(report), ""]
    if report.alluxio is not None:
        shown = [n for n in report.nodes if not n.ok or len(report.nodes) <= LISTED][:MOST_ROWS]
        parts += _listed(report, shown)
    return Group(*parts, *_problems(report), *_summary(report))


def _screenful(report: CheckReport) -> Group:
    """For a screen without scrolling: the summary and the problems come first."""
    from rich.console import Group

    head = [_heading(report), *_summary(report), *_problems(report), ""]
    shown = sorted(report.nodes, key=lambda n: n.ok)[:LISTED]
    return Group(*head, _members(report), "", *_listed(report, shown))


def _listed(report: CheckReport, shown: list[NodeVerdict]) -> list[RenderableType]:
    parts: list[RenderableType] = [_workers(report, shown), ""] if shown else []
    bad = sum(not n.ok for n in report.nodes) - sum(not n.ok for n in shown)
    if rest := len(report.nodes) - len(shown):
        parts.append(
            _styled(
                f"{rest} {'more workers' if bad else 'workers without problems'} are not listed"
            )
        )
    return parts


def _problems(report: CheckReport) -> list[RenderableType]:
    styles = {"error": "red", "warning": "yellow"}
    return [
        _styled(f"{problem.severity}: {problem.line}", style=styles.get(problem.severity, ""))
        for problem in sorted(report.problems, key=lambda p: p.severity != "error")
    ]


def _summary(report: CheckReport) -> list[RenderableType]:
    lines: list[RenderableType] = [_styled(_etcd_line(report))]
    if report.stored is not None:
        lines.append(_styled(report.stored.line))
    if report.alluxio is not None:
        if report.read is not None:
            style = "bold red" if report.read.error else "green"
            lines.append(_styled(report.read.line(report.alluxio), style))
        lines.append(_styled(report.summary, style="bold"))
    return lines


def _members(report: CheckReport) -> RenderableType:
    columns: list[_Column[MemberHealth]] = [
        _Column("etcd member", lambda m: m.member.name),
        _Column("endpoint", _endpoint),
        _Column("health", _health),
        _Column("role", report.etcd.role),
        _Column("version", _reported(lambda status: status.version)),
        _Column("revision", _reported(lambda status: str(status.revision)), right=True),
        _Column("db size", _reported(lambda status: size(status.db_size)), right=True),
        _Column("alarms", _reported(_alarms)),
        _Column("certificate", _certificate_days, right=True),
    ]
    return _table(columns, report.etcd.members)


def _reported(cell: Callable[[MemberStatus], str | Text]) -> Callable[[MemberHealth], str | Text]:
    """A cell from the member's status; "-" when the member did not answer."""
    return lambda m: "-" if m.status is None else cell(m.status)


def _endpoint(m: MemberHealth) -> str:
    return m.member.client_url + (" (ssh)" if m.how == "tunnel" else "")


def _health(m: MemberHealth) -> Text:
    return _styled("healthy", "green") if m.healthy else _styled("UNHEALTHY", "bold red")


def _alarms(status: MemberStatus) -> str | Text:
    return _styled(", ".join(status.alarms), "bold red") if status.alarms else "-"


def _certificate_days(m: MemberHealth) -> str | Text:
    """The days left of the member's certificate that expires first."""
    if not m.certificates:
        return "-"
    left = [c.days_left() for c in m.certificates]
    days = [d for d in left if d is not None]
    if len(days) < len(left):
        expired = any("expired" in c.error for c in m.certificates)
        return _styled("EXPIRED", "bold red") if expired else _styled("not verified", "yellow")
    text = f"{min(days)} days"
    return _styled(text, "yellow") if min(days) < EXPIRY_WARNING_DAYS else text


def _workers(report: CheckReport, shown: list[NodeVerdict]) -> RenderableType:
    # A live view asks `info nodes` again after each change, which takes its time.
    unlisted = "..." if report.info_nodes is None else "not listed"
    if report.info_nodes is not None and report.info_nodes.error:
        unlisted = "no answer" if report.info_nodes.installed else "-"
    has_ready = any(n.ready is not None for n in report.nodes)
    has_notes = any(n.notes for n in shown)
    columns: list[_Column[NodeVerdict]] = [
        _Column("worker", lambda n: n.name or "(not in the inventory)"),
        _Column("address", lambda n: n.address or "-"),
        _Column("state", lambda n: _styled(n.state.value, _STYLES[n.state])),
        _Column("ready", _readiness, shown=has_ready),
        _Column("worker id", lambda n: n.worker_id or "-"),
        _Column("info nodes", lambda n: n.info_nodes or unlisted),
        _Column("notes", lambda n: "\n".join(_notes(n)), shown=has_notes),
    ]
    return _table(columns, shown)


def _readiness(n: NodeVerdict) -> str | Text:
    if n.ready is None:
        return "-"
    return _styled("READY", "green") if n.ready else _styled("NOT READY", "bold red")


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


def _table(columns: Iterable[_Column[T]], rows: Iterable[T]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    columns = [column for column in columns if column.shown]
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(column.title, justify=justify, overflow="fold")
    for row in rows:
        cells = (column.cell(row) for column in columns)
        table.add_row(*(_styled(cell) if isinstance(cell, str) else cell for cell in cells))
    return table
