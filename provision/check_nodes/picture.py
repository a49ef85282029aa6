"""The places of members and workers in the picture of a report: boxes, or cells for many workers.

Coordinates are for an SVG of :data:`WIDTH`; each place has a text and a CSS class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from provision.check_nodes.result import CheckReport
from provision.check_nodes.verdict import NodeVerdict, State
from provision.etcd.cluster.health import MemberHealth

WIDTH = 1000
#: With more workers than this, each is a cell without its name.
NAMED = 24
_MARGIN, _GAP, _HEAD = 20, 12, 34
_BOX, _BOX_HEIGHT = 183, 58
_A_ROW = (WIDTH - 2 * _MARGIN + _GAP) // (_BOX + _GAP)
_LINK = 46
#: A cell's pitch, and the approximate maximum height of all cells together.
_PITCHES, _CELLS_HEIGHT = (26, 8), 420
#: Characters of a line that fit a box.
_FITTING = 23

_LETTERS = {
    State.FAILED: "F",
    State.STALE: "S",
    State.UNREACHABLE: "F",
    State.UNREGISTERED: "U",
    State.NOT_INSTALLED: "N",
    State.UNKNOWN: "?",
    State.UNDETERMINED: "-",
}


_UP = (State.LIVE, State.REACHABLE)


@dataclass(frozen=True, slots=True)
class Box:
    """A member or worker. ``marks`` are CSS classes, ``hint`` is shown under a pointer."""

    x: float
    y: float
    width: float
    height: float
    marks: str
    lines: tuple[str, ...]
    hint: str


@dataclass(frozen=True, slots=True)
class Group:
    """A frame with a heading around ``boxes``."""

    y: float
    height: float
    heading: str
    boxes: tuple[Box, ...]
    dense: bool = False

    @property
    def bottom(self) -> float:
        return self.y + self.height


@dataclass(frozen=True, slots=True)
class Picture:
    """etcd above, the workers below. ``workers`` is None without an alluxio section."""

    etcd: Group
    workers: Group | None
    link: str

    @property
    def height(self) -> float:
        return (self.workers or self.etcd).bottom + 2


def draw(report: CheckReport) -> Picture:
    """The picture of a report."""
    etcd = report.etcd
    heading = f"etcd: {etcd.healthy_count} of {len(etcd.members)} healthy, quorum {etcd.quorum}"
    top = _boxes(2, heading, [_member(report, m) for m in etcd.members])
    if report.alluxio is None:
        return Picture(top, None, "")
    alluxio = report.alluxio
    link = f"membership {alluxio.membership}"
    if alluxio.membership.in_etcd:
        link += f", leases of {alluxio.failure_detection_timeout} s"
    below, heading = top.bottom + _LINK, f"Alluxio: {report.summary}"
    if len(report.nodes) > NAMED:
        return Picture(top, _cells(below, heading, report.nodes), link)
    return Picture(top, _boxes(below, heading, [_worker(n) for n in report.nodes]), link)


def _member(report: CheckReport, m: MemberHealth) -> tuple[str, tuple[str, ...], str]:
    role = report.etcd.role(m)
    says = f"{role}, etcd {m.status.version}" if m.status is not None else "does not answer"
    marks = ("good" if m.healthy else "bad") + (" leader" if role == "leader" else "")
    lines = (m.member.name, says, m.member.address)
    return marks, lines, f"{m.member.name}, {m.member.client_url}: {m.error or 'healthy'}"


def _worker(n: NodeVerdict) -> tuple[str, tuple[str, ...], str]:
    name = n.name or "(not in the inventory)"
    state = n.state.value + (", not ready" if n.ready is False and n.state in _UP else "")
    lines = (name, state + (", with notes" if n.notes and n.name else ""), n.address)
    return marks_of(n), lines, _hint(n)


def marks_of(n: NodeVerdict) -> str:
    """The CSS class of a worker: good, odd (somebody should look) or bad."""
    if n.ok:
        return "good"
    return "bad" if n.state in (State.FAILED, State.STALE, State.UNREACHABLE) else "odd"


def _hint(n: NodeVerdict) -> str:
    said = [n.name or "not in the inventory", n.state.value, n.address or "no address", *n.notes]
    return " - ".join(said)


def _boxes(y: float, heading: str, contents: Sequence[tuple[str, tuple[str, ...], str]]) -> Group:
    boxes = []
    for i, (marks, lines, hint) in enumerate(contents):
        row, column = divmod(i, _A_ROW)
        in_row = min(_A_ROW, len(contents) - row * _A_ROW)
        left = (WIDTH - in_row * (_BOX + _GAP) + _GAP) / 2
        boxes.append(
            Box(
                left + column * (_BOX + _GAP),
                y + _HEAD + row * (_BOX_HEIGHT + _GAP),
                _BOX,
                _BOX_HEIGHT,
                marks,
                tuple(map(_cut, lines)),
                hint,
            )
        )
    rows = -(-len(contents) // _A_ROW)
    return Group(y, _HEAD + rows * (_BOX_HEIGHT + _GAP) + 4, heading, tuple(boxes))


def _cells(y: float, heading: str, nodes: Sequence[NodeVerdict]) -> Group:
    largest, smallest = _PITCHES
    room = WIDTH - 2 * _MARGIN
    pitch = next(
        (
            p
            for p in range(largest, smallest, -1)
            if -(-len(nodes) // (room // p)) * p <= _CELLS_HEIGHT
        ),
        smallest,
    )
    a_row = room // pitch
    left, size = (WIDTH - a_row * pitch) / 2, pitch - max(2, pitch // 6)
    boxes = []
    for i, n in enumerate(nodes):
        row, column = divmod(i, a_row)
        letter = "" if n.ok or pitch < 12 else _LETTERS.get(n.state, "!")
        boxes.append(
            Box(
                left + column * pitch,
                y + _HEAD + row * pitch,
                size,
                size,
                marks_of(n),
                (letter,) if letter else (),
                _hint(n),
            )
        )
    rows = -(-len(nodes) // a_row)
    return Group(y, _HEAD + rows * pitch + 12, heading, tuple(boxes), dense=True)


def _cut(line: str) -> str:
    return line if len(line) <= _FITTING else line[: _FITTING - 1] + "…"
