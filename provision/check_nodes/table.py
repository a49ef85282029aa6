"""``check-nodes`` on the screen: the members, the workers, the problems, and a summary line.

A state is always a word; colour only repeats it. Everything from etcd or a host is inserted as
text, never as markup.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from provision import terminal
from provision.check_nodes import CheckReport, NodeVerdict, State, changes
from provision.etcd.cluster.health import MemberHealth
from provision.etcd.cluster.served_certs import EXPIRY_WARNING_DAYS
from provision.text import size

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.text import Text

#: With more workers than this, healthy workers are only counted.
LISTED = 100

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
        shown = [n for n in report.nodes if not n.ok or len(report.nodes) <= LISTED]
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
    rows: list[list[str | Text]] = []
    for m in report.etcd.members:
        status = m.status
        rows.append(
            [
                m.member.name,
                m.member.client_url + (" (ssh)" if m.how == "tunnel" else ""),
                _styled("healthy", "green") if m.healthy else _styled("UNHEALTHY", "bold red"),
                report.etcd.role(m),
                status.version if status is not None else "-",
                str(status.revision) if status is not None else "-",
                size(status.db_size) if status is not None else "-",
                _styled(", ".join(status.alarms), "bold red") if status and status.alarms else "-",
                _certificate_days(m),
            ]
        )
    headings = (
        *("etcd member", "endpoint", "health", "role", "version"),
        *("revision", "db size", "alarms", "certificate"),
    )
    return _table(headings, rows)


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
    rows: list[list[str | Text]] = [
        [
            n.name or "(not in the inventory)",
            n.address or "-",
            _styled(n.state.value, _STYLES[n.state]),
            n.worker_id or "-",
            n.info_nodes or unlisted,
            "\n".join(_notes(n)),
        ]
        for n in shown
    ]
    headings = ["worker", "address", "state", "worker id", "info nodes", "notes"]
    if not any(n.notes for n in shown):
        headings.pop()
        for row in rows:
            row.pop()
    if any(n.ready is not None for n in report.nodes):
        headings.insert(3, "ready")
        for row, n in zip(rows, shown, strict=True):
            row.insert(3, _readiness(n))
    return _table(headings, rows)


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


def _table(headings: Iterable[str], rows: Iterable[Iterable[str | Text]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        number = heading in ("revision", "db size", "certificate")
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_styled(cell) if isinstance(cell, str) else cell for cell in row))
    return table
