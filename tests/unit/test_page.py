"""The HTML report as text; a browser looks at it in tests/component/test_browser.py."""

from __future__ import annotations

import dataclasses
import re
import stat
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from provision.check import CheckReport, NodeVerdict, State, page, picture
from provision.errors import UsageError
from provision.files import write_whole
from tests.unit.builders import alluxio
from tests.unit.test_check import LIVE, C, healthy, report

EVIL = """<script>alert(1)</script>"><img src=x onerror=alert(2)>'{{ 1234567*7 }}"""


def many(count: int, **changed: object) -> CheckReport:
    nodes = [dataclasses.replace(LIVE, name=f"w{i}", host=f"h{i}") for i in range(count)]
    nodes[0] = dataclasses.replace(nodes[0], state=State.FAILED)
    return report(*nodes, **changed)


def test_what_it_says() -> None:
    text = page.html(many(3))
    assert ">needs attention<" in text
    assert "3 workers: 2 LIVE, 1 FAILED" in text
    assert "leader, etcd 3.6.16" in text
    assert text.count("<tr>") == 1 + 3 + 1 + 3
    assert re.search(r"<table id=.workers.>.*?w0.*?w1", text, re.DOTALL)
    assert ">as declared<" in page.html(report(LIVE))


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


@pytest.mark.parametrize("count", [1, 5, 24, 25, 500, 2000])
def test_the_picture_has_every_worker_within_its_frame(count: int) -> None:
    shown = many(count)
    drawn = picture.draw(shown)
    assert drawn.workers is not None
    boxes = drawn.workers.boxes
    assert len(boxes) == count
    assert drawn.workers.dense == (count > 24)
    assert drawn.height < 700
    for box in boxes:
        assert 0 < box.x < box.x + box.width < picture.WIDTH
        assert drawn.workers.y < box.y < box.y + box.height < drawn.workers.bottom
    places = {(b.x, b.y) for b in boxes}
    assert len(places) == count
    assert [b.marks for b in boxes[:2]] == ["bad", "good"][:count]
    svg = re.search(r"<svg.*</svg>", page.html(shown), re.DOTALL)
    assert svg is not None
    ET.fromstring(svg[0])  # it is XML, too


def test_of_thousands_those_that_are_not_well_are_listed() -> None:
    text = page.html(many(2000))
    assert text.count('class="state bad">FAILED<') == 1
    assert "1999 workers that are well are not listed" in text


def test_long_names_are_cut_in_the_picture_and_whole_in_the_table() -> None:
    name = "a-very-long-name-of-a-worker.example.com"
    text = page.html(report(dataclasses.replace(LIVE, name=name)))
    assert "a-very-long-name-of-a-…" in text
    assert f"<strong>{name}</strong>" in text


def test_without_workers_and_with_static_membership() -> None:
    assert "<h2>Alluxio" not in page.html(report(alluxio=None))
    static = page.html(report(LIVE, alluxio=alluxio(membership="STATIC")))
    assert "membership STATIC" in static
    assert "lease" not in static


def test_a_stranger_and_a_differing_worker_are_odd() -> None:
    stranger = NodeVerdict(None, "x", 1, State.UNKNOWN, C, None, ("y",))
    assert picture.marks_of(stranger) == "odd"
    assert picture.marks_of(dataclasses.replace(LIVE, notes=("y",))) == "odd"
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
