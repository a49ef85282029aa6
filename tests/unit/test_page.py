"""The HTML report as text; a browser looks at it in tests/component/test_browser.py."""

from __future__ import annotations

import dataclasses
import html
import itertools
import re
import stat
import xml.etree.ElementTree as ET
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.commands.nodes import InfoNodes
from provision.alluxio.commands.read import ReadProof
from provision.check_nodes import CheckReport, NodeVerdict, State, page, picture
from provision.errors import Problem, UsageError
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.cluster.served_certs import CertificateState
from provision.files import write_whole
from provision.inventory.membership_type import MembershipType
from tests.unit.builders import alluxio
from tests.unit.test_check import LIVE, A, C, healthy, report

EVIL = """<script>alert(1)</script>"><img src=x onerror=alert(2)>'{{ 1234567*7 }}"""


def many(count: int, **changed: object) -> CheckReport:
    nodes = [LIVE._replace(name=f"w{i}", host=f"h{i}") for i in range(count)]
    nodes[0] = nodes[0]._replace(state=State.FAILED)
    return report(*nodes, **changed)


def test_what_it_says() -> None:
    text = page.html(many(3))
    assert ">needs attention<" in text
    assert "3 workers: 2 LIVE, 1 FAILED" in text
    assert "leader, etcd 3.6.16" in text
    assert text.count("<tr>") == 1 + 3 + 1 + 3
    assert re.search(r"<table id=.workers.>.*?w0.*?w1", text, re.DOTALL)
    assert ">as declared<" in page.html(report(LIVE))


def tiles(shown: CheckReport) -> list[tuple[str, str, str]]:
    pattern = r'<div class="tile (\w+)"><b>(.*?)</b><span>(.*?)</span>'
    return [
        (marks, html.unescape(figure), html.unescape(what))
        for marks, figure, what in re.findall(pattern, page.html(shown))
    ]


def rows(text: str, table: str) -> list[list[str]]:
    """The cells of a table's rows, each as ``class: text`` when it has one of good, odd and bad."""
    body = re.search(rf'<table id="{table}">.*?<tbody>(.*?)</tbody>', text, re.DOTALL)
    assert body is not None
    return [
        [
            f"{marks[0]}: {said}" if (marks := re.findall("good|odd|bad", attributes)) else said
            for attributes, cell in re.findall(r"<td(.*?)>(.*?)</td>", row)
            for said in [html.unescape(re.sub("<.*?>", "", cell))]
        ]
        for row in re.findall(r"<tr>(.*?)</tr>", body[1])
    ]


def with_certificates(*states: CertificateState, **changed: Any) -> ClusterHealth:
    seen = healthy()
    first = dataclasses.replace(seen.members[0], certificates=states, **changed)
    return dataclasses.replace(seen, members=(first, *seen.members[1:]))


def until(days: float) -> CertificateState:
    return CertificateState("peer", datetime.now(timezone.utc) + timedelta(days=days, hours=1))


def test_the_figures_at_the_top() -> None:
    assert tiles(report(LIVE)) == [
        ("good", "1 of 1", "workers live without problems"),
        ("good", "3 of 3", "etcd members healthy"),
        ("good", "infra1", "leads"),
        ("good", "agrees", "the workers' views"),
    ]
    stranger = NodeVerdict(None, "x", 1, State.UNKNOWN, C, None, ("y",))
    seen = healthy(leader=9)
    away = MemberHealth(seen.members[0].member, error="refused")
    etcd = dataclasses.replace(seen, members=(away, *seen.members[1:]))
    failed = LIVE._replace(state=State.FAILED)
    assert tiles(report(LIVE, failed, stranger, etcd=etcd)) == [
        ("bad", "1 of 2", "workers live without problems"),
        ("bad", "2 of 3", "etcd members healthy"),
        ("bad", "none", "leads"),
        ("odd", "1 differ", "the workers' views"),
    ]
    static = report(LIVE, alluxio=alluxio(membership=MembershipType.STATIC), info_nodes=None)
    assert tiles(static)[0] == ("good", "1 of 1", "workers reachable without problems")
    assert len(tiles(static)) == 3
    silent = report(LIVE, info_nodes=InfoNodes("w1", error="did not answer"))
    assert tiles(silent)[-1] == ("odd", "no answer", "the workers' views")


@pytest.mark.parametrize(
    ("states", "tile"),
    [
        ([until(90), until(40)], ("good", "40 days", "until a certificate expires")),
        ([until(30)], ("good", "30 days", "until a certificate expires")),
        ([until(90), until(29)], ("odd", "29 days", "until a certificate expires")),
        (
            [until(90), CertificateState("client", None, "x")],
            ("bad", "not valid", "certificate"),
        ),
    ],
)
def test_the_figure_of_certificates(
    states: list[CertificateState], tile: tuple[str, str, str]
) -> None:
    shown = report(LIVE, etcd=with_certificates(*states))
    assert tiles(shown)[3] == tile
    marks, figure, _ = tile
    cell = rows(page.html(shown), "members")[0][-1]
    assert cell == (figure if marks == "good" else f"odd: {figure}")


def test_the_members_table() -> None:
    etcd = with_certificates(until(90), until(29), how="tunnel")
    away = MemberHealth(etcd.members[1].member, error="refused")
    full = healthy(errors=("memberID:1 alarm:NOSPACE ", "memberID:1 alarm:CORRUPT ")).members[2]
    last = dataclasses.replace(
        full, certificates=(until(90), CertificateState("client", None, "y"))
    )
    etcd = dataclasses.replace(etcd, members=(etcd.members[0], away, last))
    url = "http://10.0.0."
    assert rows(page.html(report(LIVE, etcd=etcd)), "members") == [
        [
            *("infra1", f"{url}1:2379 (through SSH)", "good: healthy", "leader", "3.6.16"),
            *("9", "20 kB", "-", "odd: 29 days"),
        ],
        ["infra2", f"{url}2:2379", "bad: UNHEALTHY", "-", "-", "-", "-", "-", "-"],
        [
            *("infra3", f"{url}3:2379", "good: healthy", "follower", "3.6.16"),
            *("9", "20 kB", "bad: NOSPACE, CORRUPT", "odd: not valid"),
        ],
    ]


def test_those_that_are_not_well_come_first() -> None:
    noted = LIVE._replace(name="w2", notes=("one", "two"))
    bare = NodeVerdict(None, "", 0, State.UNKNOWN)
    shown = rows(page.html(report(LIVE, noted, bare)), "workers")
    assert shown == [
        ["w2", "odd: LIVE", "one; two", "ONLINE", "w1:29999", A],
        ["(not in the inventory)", "odd: UNKNOWN", "", "-", "-", "-"],
        ["w1", "good: LIVE", "", "ONLINE", "w1:29999", A],
    ]
    problems = (
        Problem("a", "x", "", "warning", id="disk-full"),
        Problem("b", "y", "z", id="disk-full"),
    )
    text = page.html(report(LIVE, view_problems=problems))
    assert re.findall(r'<strong class="(odd|bad)">(\w+)</strong>', text) == [
        ("bad", "error"),
        ("odd", "warning"),
    ]


def test_what_the_hosts_say_and_the_read() -> None:
    dead = LIVE._replace(name="w2", ready=False)
    proof = ReadProof("/<f>", "w1", 7, "a" * 64, "w1", True)
    text = page.html(report(LIVE._replace(ready=True), dead, LIVE, read=proof))
    assert [row[1:3] for row in rows(text, "workers")] == [
        ["odd: LIVE", "bad: NOT READY"],
        ["good: LIVE", "good: READY"],
        ["good: LIVE", "-"],
    ]
    assert "read of /&lt;f&gt;: 7 bytes served by w1 (w1), which caches it" in text


@pytest.mark.parametrize(("count", "listed"), [(1000, 1000), (1001, 1)])
def test_how_many_are_listed(count: int, listed: int) -> None:
    text = page.html(many(count))
    assert len(rows(text, "workers")) == listed
    assert ("workers without problems are not listed" in text) == (listed < count)
    well = report(*[LIVE._replace(name=f"w{i}") for i in range(1001)])
    assert len(rows(page.html(well), "workers")) == 1000


def test_it_needs_nothing_beside_itself() -> None:
    text = page.html(many(3))
    assert "<script" not in text
    assert set(re.findall(r"(?:href|src)=.([^\"']*)", text)) == {"data:,"}
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_whatever_was_said_is_text() -> None:
    node = NodeVerdict(EVIL, EVIL, 1, State.UNKNOWN, EVIL, EVIL, (EVIL,))
    seen = healthy()
    sick = dataclasses.replace(seen.members[0], error=EVIL)
    etcd = dataclasses.replace(seen, members=(sick, *seen.members[1:]))
    for nodes in ([node], [node] * 30):
        text = page.html(report(*nodes, etcd=etcd, cluster=EVIL))
        assert "<script" not in text
        assert "<img" not in text
        assert "8641969" not in text
        assert "&lt;script&gt;alert(1)" in text


@pytest.mark.long
@pytest.mark.parametrize("width", [picture.WIDTH, picture.NARROW])
@pytest.mark.parametrize("count", [1, 5, 24, 25, 500, 2000])
def test_the_picture_has_every_worker_within_its_frame(count: int, width: int) -> None:
    shown = many(count)
    drawn = picture.draw(shown, width)
    assert drawn.workers is not None
    boxes = drawn.workers.boxes
    assert len(boxes) == count
    assert drawn.workers.dense == (count > 24)
    assert drawn.height < (700 if width == picture.WIDTH else 1400)
    for box in boxes:
        assert 0 < box.x < box.x + box.width < width
        assert drawn.workers.y < box.y < box.y + box.height < drawn.workers.bottom
    places = {(b.x, b.y) for b in boxes}
    assert len(places) == count
    assert [b.marks for b in boxes[:2]] == ["bad", "good"][:count]
    pictures = re.findall(r"<svg.*?</svg>", page.html(shown), re.DOTALL)
    assert len(pictures) == (1 if drawn.workers.dense else 2)
    for svg in pictures:
        ET.fromstring(svg)  # it is XML, too


def test_a_heading_that_is_too_long_has_lines() -> None:
    drawn = picture.draw(many(5), picture.NARROW)
    assert drawn.workers is not None
    assert " ".join(drawn.workers.heading) == "Alluxio: 5 workers: 4 LIVE, 1 FAILED"
    longer = dataclasses.replace(many(5), cluster="c")
    nodes = tuple(n._replace(name=None, state=State.UNKNOWN) for n in longer.nodes)
    drawn = picture.draw(dataclasses.replace(longer, nodes=nodes), picture.NARROW)
    assert drawn.workers is not None
    lines = drawn.workers.heading
    assert len(lines) > 1
    assert all(8 * len(line) <= picture.NARROW for line in lines)
    assert drawn.workers.boxes[0].y >= drawn.workers.y + 34 + 18 * (len(lines) - 1)


def test_where_boxes_stand() -> None:
    drawn = picture.draw(many(5))
    etcd, workers = drawn.etcd, drawn.workers
    assert workers is not None
    assert (etcd.y, etcd.height, etcd.heading) == (
        *(2, 108),
        ("etcd: 3 of 3 healthy, quorum 2",),
    )
    assert etcd.boxes[0] == picture.Box(
        *(213.5, 36, 183, 58, "good leader"),
        ("infra1", "leader, etcd 3.6.16", "10.0.0.1"),
        "infra1, http://10.0.0.1:2379: healthy",
    )
    assert [(b.x, b.y) for b in etcd.boxes[1:]] == [(408.5, 36), (603.5, 36)]
    assert (workers.y, workers.height, workers.dense) == (156, 178, False)
    assert workers.heading == ("Alluxio: 5 workers: 4 LIVE, 1 FAILED",)
    assert drawn.link == "membership ETCD, leases of 120 s"
    assert workers.boxes[0] == picture.Box(
        *(116.0, 190, 183, 58, "bad"), ("w0", "FAILED", "h0:29999"), "w0 - FAILED - h0:29999"
    )
    assert [(b.x, b.y) for b in workers.boxes[3:]] == [(701.0, 190), (408.5, 260)]
    assert drawn.height == 336


@pytest.mark.parametrize(
    ("count", "left", "size", "height", "letters"),
    [
        (25, 32.0, 22, 72, ("F",)),
        (576, 32.0, 22, 462, ("F",)),
        (577, 25.0, 21, 446, ("F",)),
        (2000, 24.0, 12, 466, ("F",)),
        (3240, 21.5, 9, 464, ()),
        (6000, 20.0, 6, 446, ()),
        (20000, 20.0, 6, 1382, ()),
    ],
)
def test_where_cells_stand(
    count: int, left: float, size: int, height: int, letters: tuple[str, ...]
) -> None:
    drawn = picture.draw(many(count))
    assert drawn.link == "membership ETCD, leases of 120 s"
    group = drawn.workers
    assert group is not None
    assert (group.y, group.height, group.dense) == (156, height, True)
    assert group.heading == (f"Alluxio: {count} workers: {count - 1} LIVE, 1 FAILED",)
    assert group.boxes[0] == picture.Box(
        left, 190, size, size, "bad", letters, "w0 - FAILED - h0:29999"
    )
    assert group.boxes[1].lines == ()
    rows: dict[float, list[float]] = {}
    for box in group.boxes:
        rows.setdefault(box.y, []).append(box.x)
    assert all(b - a >= size + 2 for xs in rows.values() for a, b in itertools.pairwise(xs))
    assert all(b - a >= size + 2 for a, b in itertools.pairwise(rows))
    assert group.bottom - group.boxes[-1].y >= size + 12


@pytest.mark.parametrize(
    ("state", "letter"),
    [
        (State.FAILED, "F"),
        (State.UNREACHABLE, "F"),
        (State.UNREGISTERED, "U"),
        (State.UNKNOWN, "?"),
        (State.UNDETERMINED, "-"),
        (State.LIVE, "!"),
    ],
)
def test_a_cell_that_is_not_well_has_a_letter(state: State, letter: str) -> None:
    odd = LIVE._replace(state=state, notes=("x",))
    group = picture.draw(report(odd, *[LIVE] * 30)).workers
    assert group is not None
    assert [box.lines for box in group.boxes[:2]] == [(letter,), ()]


def test_what_a_box_says() -> None:
    stranger = NodeVerdict(None, "", 0, State.UNKNOWN, C, None, ("y",))
    seen = healthy()
    away = dataclasses.replace(seen.members[0], status=None, error="refused")
    etcd = dataclasses.replace(seen, members=(away, *seen.members[1:]))
    noted = LIVE._replace(notes=("y", "z"))
    drawn = picture.draw(report(LIVE, noted, stranger, etcd=etcd))
    assert drawn.workers is not None
    assert [(b.marks, b.lines, b.hint) for b in drawn.workers.boxes] == [
        ("good", ("w1", "LIVE", "w1:29999"), "w1 - LIVE - w1:29999"),
        ("odd", ("w1", "LIVE, with notes", "w1:29999"), "w1 - LIVE - w1:29999 - y - z"),
        (
            "odd",
            ("(not in the inventory)", "UNKNOWN", ""),
            "not in the inventory - UNKNOWN - no address - y",
        ),
    ]
    first = drawn.etcd.boxes[0]
    assert (first.marks, first.lines[1]) == ("bad", "does not answer")
    assert first.hint == "infra1, http://10.0.0.1:2379: refused"
    exact = LIVE._replace(name="n" * 23)
    longer = LIVE._replace(name="n" * 24)
    cut = picture.draw(report(exact, longer)).workers
    assert cut is not None
    assert [box.lines[0] for box in cut.boxes] == ["n" * 23, "n" * 22 + "…"]


def test_of_thousands_those_that_are_not_well_are_listed() -> None:
    text = page.html(many(2000))
    assert text.count('class="state bad">FAILED<') == 1
    assert "1999 workers without problems are not listed" in text


def test_long_names_are_cut_in_the_picture_and_whole_in_the_table() -> None:
    name = "a-very-long-name-of-a-worker.example.com"
    text = page.html(report(LIVE._replace(name=name)))
    assert "a-very-long-name-of-a-…" in text
    assert f"<strong>{name}</strong>" in text


def test_without_workers_and_with_static_membership() -> None:
    assert "<h2>Alluxio" not in page.html(report(alluxio=None))
    static = page.html(report(LIVE, alluxio=alluxio(membership=MembershipType.STATIC)))
    assert "membership STATIC" in static
    assert "lease" not in static


def test_a_stranger_and_a_differing_worker_are_odd() -> None:
    stranger = NodeVerdict(None, "x", 1, State.UNKNOWN, C, None, ("y",))
    assert picture.marks_of(stranger) == "odd"
    assert picture.marks_of(LIVE._replace(notes=("y",))) == "odd"
    assert picture.marks_of(LIVE) == "good"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.prom"
    path.write_text("old")
    before = path.stat().st_ino
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \udcff")
    assert path.read_text() == "old"
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_ino != before  # put in its place, not written over
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UsageError, match=r"no/x.prom cannot be written: No such file"):
        write_whole(tmp_path / "no" / "x.prom", "x")
