"""The README's picture is what the documentation's build makes of the recorded run."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from docs import picture

REPO = Path(__file__).parents[2]
TEXT = picture.PICTURE.read_text(encoding="utf-8")


def test_the_recorded_report_says_what_was_recorded() -> None:
    def known(document: Any) -> Any:
        for member in document["etcd"]["members"]:
            for certificate in member["certificates"]:
                del certificate["not_after"]  # moves with the day
        return document

    recorded = json.loads(picture.RECORDING.read_text(encoding="utf-8"))
    said = {**picture.recorded().document(), "batch": None}  # which part it is, the run says
    assert known(said) == known(recorded)


def test_it_is_drawn_of_the_recording() -> None:
    lock = (REPO / "requirements.lock").read_text(encoding="utf-8")
    if f"\nrich=={version('rich')} " not in lock:
        pytest.skip("another rich draws other lines")
    assert picture.svg() == TEXT, "run make docs"


def test_it_asks_for_nothing() -> None:
    root = ElementTree.fromstring(TEXT)
    # Of its own elements only; what is shown as text is no reference.
    values = [value for element in root.iter() for value in element.attrib.values()]
    rules = [element.text or "" for element in root.iter() if element.tag.endswith("style")]
    referred = re.findall(r"url\(([^)]*)\)|@import|@font-face|\bsrc:", "\n".join(values + rules))
    assert referred
    assert all(reference.startswith("#") for reference in referred)
    assert not [value for value in values if "://" in value]


def test_it_shows_more_than_a_fine_day() -> None:
    recorded = json.loads(picture.RECORDING.read_text(encoding="utf-8"))
    said = {node["state"] for node in recorded["alluxio"]["nodes"]}
    assert said > {"LIVE", "FAILED"}
    shown = "".join(ElementTree.fromstring(TEXT).itertext()).replace("\xa0", " ")
    assert all(state in shown for state in said)
    assert recorded["alluxio"]["summary"] in shown
