"""The README's moving picture is what the documentation's build makes of the recorded run."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs import cast

REPO = Path(__file__).parents[2]
TEXT = cast.PICTURE.read_text(encoding="utf-8")


def test_it_is_drawn_of_the_recording() -> None:
    lock = (REPO / "requirements.lock").read_text(encoding="utf-8")
    if f"\nrich=={version('rich')} " not in lock:
        pytest.skip("another rich draws other lines")
    assert cast.svg() == TEXT, "run make docs"


def test_it_shows_every_recorded_word() -> None:
    shown = "".join(ElementTree.fromstring(TEXT).itertext()).replace("\xa0", " ")
    for line in cast.RECORDING.read_text(encoding="utf-8").splitlines()[1:]:
        _, _, text = json.loads(line)
        for word in re.sub("\x1b\\[[0-9;]*m", "", text).split():
            assert word in shown or len(word) > cast.COLUMNS, word


def test_it_ends_with_live_workers_within_thirty_seconds() -> None:
    rows = cast.rows()
    assert rows[-1].at <= 30
    assert rows == sorted(rows, key=lambda row: row.at)
    shown = [re.sub("<[^>]*>", "", row.text).replace("\xa0", " ") for row in rows]
    assert [line for line in shown if line.startswith("$ invoke ")] == [
        f"$ invoke {command}" for command in cast.COMMANDS
    ]
    assert sum(" LIVE " in line for line in shown) >= 2


def test_without_animation_it_shows_the_end() -> None:
    root = ElementTree.fromstring(TEXT)
    assert not [e for e in root.iter() if e.get("visibility") == "hidden"]
    assert not [v for e in root.iter() for v in e.attrib.values() if "://" in v]
