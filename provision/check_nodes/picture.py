"""The places of members and workers in the picture of a report: boxes, or cells for many workers.

Coordinates are for an SVG of :data:`WIDTH`, or of :data:`NARROW` for a telephone; each place has a
text and a CSS class.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from provision.check_nodes.result import CheckReport
from provision.check_nodes.verdict import NodeVerdict, State
from provision.dataclass import dataclass
from provision.etcd.cluster.health import MemberHealth

WIDTH, NARROW = 1000, 420
#: With more workers than this, each is a cell without its name.
NAMED = 24
_MARGIN, _GAP, _HEAD = 20, 12, 34
_BOX, _BOX_HEIGHT = 183, 58
_LINK = 46
#: Approximate width of a heading's character, and the height of its further lines.
_LETTER, _LINE = 8, 18
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
    heading: tuple[str, ...]
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
    width: int

    @property
    def link_x(self) -> float:
        """Where the line between the frames is: its text stands to the right of it."""
        return self.width / 2 if self.width == WIDTH else 2 * _MARGIN

    @property
    def height(self) -> float:
        return (self.workers or self.etcd).bottom + 2


def draw(report: CheckReport, width: int = WIDTH) -> Picture:
    """The picture of a report, for an SVG of ``width``."""
    etcd = report.etcd
    heading = f"etcd: {etcd.healthy_count} of {len(etcd.members)} healthy, quorum {etcd.quorum}"
    top = _boxes(width, 2, heading, [_member(report, m) for m in etcd.members])
    if report.alluxio is None:
        return Picture(top, None, "", width)
    alluxio = report.alluxio
    link = f"membership {alluxio.membership}"
    if alluxio.membership.in_etcd:
        link += f", leases of {alluxio.failure_detection_timeout} s"
    below, heading = top.bottom + _LINK, f"Alluxio: {report.summary}"
    if len(report.nodes) > NAMED:
        return Picture(top, _cells(width, below, heading, report.nodes), link, width)
    boxes = _boxes(width, below, heading, [_worker(n) for n in report.nodes])
    return Picture(top, boxes, link, width)


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


def _heading(width: int, text: str) -> tuple[tuple[str, ...], float]:
    """The heading's lines, and the height of all."""
    lines = tuple(textwrap.wrap(text, (width - 2 * _MARGIN) // _LETTER)) or ("",)
    return lines, _HEAD + (len(lines) - 1) * _LINE


def _boxes(
    width: int, y: float, text: str, contents: Sequence[tuple[str, tuple[str, ...], str]]
) -> Group:
    boxes = []
    heading, head = _heading(width, text)
    a_row = (width - 2 * _MARGIN + _GAP) // (_BOX + _GAP)
    for i, (marks, lines, hint) in enumerate(contents):
        row, column = divmod(i, a_row)
        in_row = min(a_row, len(contents) - row * a_row)
        left = (width - in_row * (_BOX + _GAP) + _GAP) / 2
        boxes.append(
            Box(
                left + column * (_BOX + _GAP),
                y + head + row * (_BOX_HEIGHT + _GAP),
                _BOX,
                _BOX_HEIGHT,
                marks,
                tuple(map(_cut, lines)),
                hint,
            )
        )
    rows = -(-len(contents) // a_row)
    return Group(y, head + rows * (_BOX_HEIGHT + _GAP) + 4, heading, tuple(boxes))


def _cells(width: int, y: float, text: str, nodes: Sequence[NodeVerdict]) -> Group:
    largest, smallest = _PITCHES
    heading, head = _heading(width, text)
    room = width - 2 * _MARGIN
    pitch = next(
        (
            p
            for p in range(largest, smallest, -1)
            if -(-len(nodes) // (room // p)) * p <= _CELLS_HEIGHT
        ),
        smallest,
    )
    a_row = room // pitch
    left, size = (width - a_row * pitch) / 2, pitch - max(2, pitch // 6)
    boxes = []
    for i, n in enumerate(nodes):
        row, column = divmod(i, a_row)
        letter = "" if n.ok or pitch < 12 else _LETTERS.get(n.state, "!")
        boxes.append(
            Box(
                left + column * pitch,
                y + head + row * pitch,
                size,
                size,
                marks_of(n),
                (letter,) if letter else (),
                _hint(n),
            )
        )
    rows = -(-len(nodes) // a_row)
    return Group(y, head + rows * pitch + 12, heading, tuple(boxes), dense=True)


def _cut(line: str) -> str:
    return line if len(line) <= _FITTING else line[: _FITTING - 1] + "…"
