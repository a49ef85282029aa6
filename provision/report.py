"""``check-nodes`` on the screen: the members, the workers, what is wrong, and one line at the end.

A state is always a word; colour only repeats it. Everything that comes from etcd or a host goes
in as text, never as markup.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from provision import screen
from provision.check import CheckReport, NodeVerdict, State
from provision.etcd.health import EXPIRY_WARNING_DAYS, MemberHealth
from provision.text import size

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.text import Text

#: With more workers than this, those that are well are only counted.
LISTED = 100

_STYLES = {
    State.LIVE: "green",
    State.REACHABLE: "green",
    State.FAILED: "bold red",
    State.UNREACHABLE: "bold red",
    State.UNREGISTERED: "yellow",
    State.UNKNOWN: "magenta",
    State.UNDETERMINED: "yellow",
}


def check(report: CheckReport) -> None:
    """The report on stdout."""
    _plain_errors()
    screen.console().print(_drawn(report))


def watch(reports: Iterable[CheckReport]) -> int:
    """Each report in the place of the last on a terminal, else one below the other.

    Ends with Ctrl-C; returns the exit code of the last report.
    """
    _plain_errors()
    code = 0
    out = screen.console()
    try:
        for report in reports:
            code = report.exit_code
            if out.is_terminal:
                out.clear()
            out.print(f"{report.taken.astimezone():%Y-%m-%d %H:%M:%S} (Ctrl-C ends)")
            out.print(_drawn(report))
    except KeyboardInterrupt:
        out.print()
    return code


def _plain_errors() -> None:
    """What the terminal's encoding does not have is replaced, not an error."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")


def _drawn(report: CheckReport) -> Group:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [_members(report), ""]
    if report.alluxio is not None:
        shown = [n for n in report.nodes if not n.ok or len(report.nodes) <= LISTED]
        if shown:
            parts += [_workers(report, shown), ""]
        if len(shown) < len(report.nodes):
            rest = len(report.nodes) - len(shown)
            parts.append(Text(f"{rest} workers that are well are not listed"))
    for problem in sorted(report.problems, key=lambda p: p.severity != "error"):
        style = "red" if problem.severity == "error" else "yellow"
        parts.append(Text(f"{problem.severity}: {problem}", style=style))
    parts.append(Text(_etcd_line(report)))
    if report.alluxio is not None:
        parts.append(Text(report.summary, style="bold"))
    return Group(*parts)


def _members(report: CheckReport) -> RenderableType:
    leader = report.etcd.leader
    rows: list[list[str | Text]] = []
    for m in report.etcd.members:
        status = m.status
        role = "-"
        if status is not None:
            role = "learner" if status.is_learner else "follower"
            role = "leader" if m.member.name == leader else role
        rows.append(
            [
                m.member.name,
                m.member.client_url + (" (ssh)" if m.how == "tunnel" else ""),
                _styled("healthy", "green") if m.healthy else _styled("UNHEALTHY", "bold red"),
                role,
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
    """The certificate of the member that ends first."""
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
    asked = report.info_nodes is not None and not report.info_nodes.error
    rows: list[list[str | Text]] = [
        [
            n.name or "(not in the inventory)",
            n.address or "-",
            _styled(n.state.value, _STYLES[n.state]),
            n.worker_id or "-",
            n.info_nodes or ("not listed" if asked else "no answer"),
            "\n".join(_notes(n)),
        ]
        for n in shown
    ]
    headings = ["worker", "address", "state", "worker id", "info nodes", "notes"]
    if not any(n.notes for n in shown):
        headings.pop()
        for row in rows:
            row.pop()
    return _table(headings, rows)


def _notes(n: NodeVerdict) -> Iterable[str]:
    return n.notes if len(n.notes) < 2 else (f"- {note}" for note in n.notes)


def _etcd_line(report: CheckReport) -> str:
    etcd = report.etcd
    text = f"etcd: {etcd.healthy_count} of {len(etcd.members)} members healthy"
    text += f" (quorum {etcd.quorum}), leader {etcd.leader or 'none'}"
    if report.alluxio is None or report.alluxio.membership == "STATIC":
        return text
    # Without it nobody can tell whether "LIVE" is of now or of two minutes ago.
    seconds = report.alluxio.failure_detection_timeout
    return f"{text}; a worker that dies shows as FAILED within {seconds} s"


def _table(headings: Iterable[str], rows: Iterable[Iterable[str | Text]]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        number = heading in ("revision", "db size", "certificate")
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def _styled(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(text, style=style)
