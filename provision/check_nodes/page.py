"""``--html``: the report as one page that needs no other file, for mail and archive."""

from __future__ import annotations

from provision.check_nodes.picture import NAMED, NARROW, WIDTH, draw, marks_of
from provision.check_nodes.result import CheckReport
from provision.dataclass import dataclass
from provision.etcd.cluster.health import MemberHealth
from provision.etcd.cluster.served_certs import EXPIRY_WARNING_DAYS
from provision.render import page
from provision.text import counted, size

#: With more workers than this, healthy workers are drawn and counted, but not listed.
LISTED = 1000


@dataclass(frozen=True, slots=True)
class _Tile:
    """One figure at the top: ``marks`` is its CSS class, good, odd or bad."""

    figure: str
    what: str
    marks: str


@dataclass(frozen=True, slots=True)
class _MemberRow:
    name: str
    endpoint: str
    healthy: bool
    role: str
    version: str
    revision: str
    db_size: str
    alarms: str
    certificate: str
    expiring: bool


def html(report: CheckReport) -> str:
    """The page. Texts from a host or etcd are plain text in it, and it loads and runs nothing."""
    listed = sorted(report.nodes, key=lambda n: n.ok)
    if len(listed) > LISTED:
        listed = [n for n in listed if not n.ok] or listed[:LISTED]
    return page(
        "check-nodes",
        report=report,
        problems=sorted(report.problems, key=lambda p: p.severity != "error"),
        tiles=_tiles(report),
        # A telephone gets a picture of its own, but not of cells: these would double the page.
        pictures=[draw(report, w) for w in _widths(report)],
        members=[_member(report, m) for m in report.etcd.members],
        workers=[(n, marks_of(n)) for n in listed],
        noted=any(n.notes for n in listed),
        asked=any(n.ready is not None for n in report.nodes),
        unlisted=len(report.nodes) - len(listed),
    )


def _widths(report: CheckReport) -> tuple[int, ...]:
    return (WIDTH, NARROW) if len(report.nodes) <= NAMED else (WIDTH,)


def _tiles(report: CheckReport) -> list[_Tile]:
    etcd = report.etcd
    tiles = []
    if report.alluxio is not None:
        declared = [n for n in report.nodes if n.name is not None]
        well = sum(n.ok for n in declared)
        word = "live" if report.alluxio.membership.in_etcd else "reachable"
        tiles.append(
            _Tile(
                f"{well} of {len(declared)}",
                f"workers {word} without problems",
                _good(well, len(declared)),
            )
        )
    well, count = etcd.healthy_count, len(etcd.members)
    what = "etcd member healthy" if count == 1 else "etcd members healthy"
    tiles.append(_Tile(f"{well} of {count}", what, _good(well, count)))
    tiles.append(_Tile(etcd.leader or "none", "leads", "good" if etcd.leader else "bad"))
    shown = [c for m in etcd.members for c in m.certificates]
    left = [d for c in shown if (d := c.days_left()) is not None]
    if len(left) < len(shown):
        tiles.append(_Tile("not valid", "certificate", "bad"))
    elif shown:
        marks = "odd" if min(left) < EXPIRY_WARNING_DAYS else "good"
        tiles.append(_Tile(counted(min(left), "day"), "until a certificate expires", marks))
    if report.info_nodes is not None:
        failed = bool(report.info_nodes.error) and report.info_nodes.installed
        differing = sum(bool(n.notes) for n in report.nodes)
        figure = "no answer" if failed else f"{differing} differ" if differing else "agrees"
        if not report.info_nodes.installed:
            figure = "not installed"
        tiles.append(_Tile(figure, "the workers' views", "odd" if failed or differing else "good"))
    return tiles


def _good(well: int, of: int) -> str:
    return "good" if well == of else "bad"


def _member(report: CheckReport, m: MemberHealth) -> _MemberRow:
    s = m.status
    days = [c.days_left() for c in m.certificates]
    known = [d for d in days if d is not None]
    certificate = "-"
    if days:
        certificate = counted(min(known), "day") if len(known) == len(days) else "not valid"
    return _MemberRow(
        name=m.member.name,
        endpoint=m.member.client_url + (" (through SSH)" if m.how == "tunnel" else ""),
        healthy=m.healthy,
        role=report.etcd.role(m),
        version=s.version if s is not None else "-",
        revision=str(s.revision) if s is not None else "-",
        db_size=size(s.db_size) if s is not None else "-",
        alarms=", ".join(s.alarms) if s is not None and s.alarms else "-",
        certificate=certificate,
        expiring=bool(days) and (len(known) < len(days) or min(known) < EXPIRY_WARNING_DAYS),
    )
