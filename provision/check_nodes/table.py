"""``check-nodes`` on the screen: the members, the workers, the problems, and a summary line.

A state is always a word; colour only repeats it. Everything from etcd or a host is inserted as
text, never as markup.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from provision import progress, terminal
from provision.alike import folded
from provision.check_nodes import CheckReport, NodeVerdict, State, changes
from provision.check_nodes import screen as screens
from provision.check_nodes.brief import ROWS, brief
from provision.check_nodes.result import MemberDocument, MemberStatusDocument
from provision.check_nodes.screen import Screen
from provision.etcd.cluster.served_certs import EXPIRY_WARNING_DAYS
from provision.tables import Column, Sentence, Styled, Table
from provision.text import counted, size

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


def check(report: CheckReport | Screen, *, wide: bool = False, every: bool = False) -> None:
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


def drawn(report: CheckReport | Screen, *, wide: bool = False, every: bool = True) -> Group:
    """The report as `check-nodes` prints it, for any console of rich. Without ``every``, many
    workers are listed in brief."""
    from rich.console import Group

    screen = report if isinstance(report, Screen) else screens.of_report(report)
    parts: list[RenderableType] = [_members(screen, wide), ""]
    if screen.workers:
        parts += _listed(screen, screen.nodes, wide=wide, every=every)
    return Group(*parts, *_problems(screen), *_summary(screen))


def _screenful(report: CheckReport, *, wide: bool = False, every: bool = False) -> Group:
    """For a screen without scrolling: the summary and the problems come first."""
    from rich.console import Group

    screen = screens.of_report(report)
    head = [_heading(report), *_summary(screen), *_problems(screen), ""]
    worst = sorted(screen.nodes, key=lambda n: n.ok)
    listed = _listed(screen, worst, wide=wide, every=every)
    return Group(*head, _members(screen, wide), "", *listed)


def _listed(
    screen: Screen, nodes: Sequence[NodeVerdict], *, wide: bool, every: bool
) -> list[RenderableType]:
    """The workers' table, and what it leaves out."""
    if every or len(nodes) <= ROWS:
        return [_workers(screen, nodes, wide), ""] if nodes else []
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
        else kind.first._replace(name=kind.name, host="", worker_id=None)
        for kind in short.kinds
    ]
    parts: list[RenderableType] = [Sentence(f"{len(nodes)} workers: {short.totals}", "bold"), ""]
    parts += [_workers(screen, rows, wide), ""] if rows else []
    parts += [Sentence(short.rest), ""] if short.rest else []
    return parts


def _problems(screen: Screen) -> list[RenderableType]:
    styles = {"error": "red", "warning": "yellow"}
    return [
        Sentence(f"{problem.severity}: {problem.line}", style=styles.get(problem.severity, ""))
        for problem in sorted(folded(screen.problems), key=lambda p: p.severity != "error")
    ]


def _summary(screen: Screen) -> list[RenderableType]:
    lines: list[RenderableType] = [Sentence(_etcd_line(screen))]
    if screen.backup:
        lines.append(Sentence(screen.backup))
    if screen.workers:
        if screen.read is not None:
            said, failed = screen.read
            lines.append(Sentence(said, "bold red" if failed else "green"))
        lines.append(Sentence(screen.summary, style="bold"))
    return lines


def _members(screen: Screen, wide: bool) -> RenderableType:
    def role(m: MemberDocument) -> str:
        if m["status"] is None:
            return "-"
        if m["name"] == screen.etcd["leader"]:
            return "leader"
        return "learner" if m["status"]["learner"] else "follower"

    columns: list[Column[MemberDocument]] = [
        Column("etcd member", lambda m: m["name"]),
        Column("endpoint", _endpoint, gives=1, least=ENDPOINT),
        Column("health", _health),
        Column("role", role, gives=5),
        Column("version", _reported(lambda status: status["version"]), gives=4),
        Column("revision", _reported(lambda status: str(status["revision"])), right=True, gives=2),
        Column("db size", _reported(lambda status: size(status["db_size"])), right=True, gives=3),
        Column("alarms", _reported(_alarms), gives=7),
        Column("certificate", _certificate_days, right=True, gives=6),
    ]
    return Table(columns, screen.etcd["members"], wide=wide)


def _reported(
    cell: Callable[[MemberStatusDocument], str | Styled],
) -> Callable[[MemberDocument], str | Styled]:
    """A cell from the member's status; "-" when the member did not answer."""
    return lambda m: "-" if m["status"] is None else cell(m["status"])


def _endpoint(m: MemberDocument) -> str:
    return m["endpoint"] + (" (ssh)" if m["how"] == "tunnel" else "")


def _health(m: MemberDocument) -> Styled:
    return Styled("healthy", "green") if m["healthy"] else Styled("UNHEALTHY", "bold red")


def _alarms(status: MemberStatusDocument) -> str | Styled:
    alarms = status["alarms"]
    return Styled(", ".join(alarms), "bold red") if alarms else "-"


def _certificate_days(m: MemberDocument) -> str | Styled:
    """The days left of the member's certificate that expires first."""
    if not m["certificates"]:
        return "-"
    left = [c["days_left"] for c in m["certificates"]]
    days = [d for d in left if d is not None]
    if len(days) < len(left):
        expired = any("expired" in (c["error"] or "") for c in m["certificates"])
        return Styled("EXPIRED", "bold red") if expired else Styled("not verified", "yellow")
    text = counted(min(days), "day")
    return Styled(text, "yellow") if min(days) < EXPIRY_WARNING_DAYS else text


def _workers(screen: Screen, shown: Sequence[NodeVerdict], wide: bool) -> RenderableType:
    has_ready = any(n.ready is not None for n in screen.nodes)
    has_notes = any(n.notes for n in shown)
    columns: list[Column[NodeVerdict]] = [
        Column("worker", _name, words=True),
        Column("address", lambda n: n.address or "-", gives=2, least=ADDRESS, below=_is_odd),
        Column("state", lambda n: Styled(n.state.value, _STYLES[n.state])),
        Column("ready", _readiness, shown=has_ready, gives=5),
        Column("worker id", lambda n: n.worker_id or "-", gives=1, least=ID, below=_is_odd),
        Column("info nodes", lambda n: n.info_nodes or screen.unlisted, gives=4),
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


def _etcd_line(screen: Screen) -> str:
    etcd = screen.etcd
    text = f"etcd: {etcd['healthy']} of {counted(len(etcd['members']), 'member')} healthy"
    text += f" (quorum {etcd['quorum']}), leader {etcd['leader'] or 'none'}"
    if screen.lease is None:
        return text
    # Without it nobody can tell whether "LIVE" is current or two minutes old.
    return f"{text}; a worker that dies shows as FAILED within {screen.lease} s"
