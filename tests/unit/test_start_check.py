"""etcd's check at start: on where it is sound and the operator has not spoken of it."""

from __future__ import annotations

import pytest

from provision.etcd.member.start_check import GATES, SETTING, other_gates, switched
from provision.inventory.model import Scalar

GATE = "InitialCorruptCheck"
ON: dict[str, Scalar] = {GATES: f"{GATE}=true"}


@pytest.mark.parametrize(
    ("release", "given", "on"),
    [
        ((3, 4, 27), {}, {}),
        ((3, 4, 28), {}, {SETTING: True}),
        ((3, 5, 9), {}, {}),
        ((3, 5, 10), {}, {SETTING: True}),
        ((3, 6, 0), {}, ON),
        ((3, 7, 3), {}, ON),
        ((3, 10, 0), {}, ON),
        # A packaged release that is known by its minor alone.
        ((3, 5), {}, {}),
        # The operator's word stands, and 3.6 ends when it is given both.
        ((3, 5, 35), {SETTING: False}, {SETTING: False}),
        ((3, 6, 16), {SETTING: True}, {SETTING: True}),
        ((3, 6, 16), {GATES: f"{GATE}=false"}, {GATES: f"{GATE}=false"}),
        ((3, 6, 16), {GATES: "Other=true"}, {GATES: f"Other=true,{GATE}=true"}),
    ],
)
def test_on(release: tuple[int, ...], given: dict[str, Scalar], on: dict[str, Scalar]) -> None:
    assert switched({"max-txn-ops": 9, **given}, release, on=True) == {"max-txn-ops": 9, **on}


@pytest.mark.parametrize(
    ("given", "off"),
    [
        ({}, {}),
        ({SETTING: True}, {}),
        (ON, {}),
        ({GATES: f"A=true, {GATE}=true,B=false"}, {GATES: "A=true,B=false"}),
        ({GATES: "A=true"}, {GATES: "A=true"}),
    ],
)
def test_off(given: dict[str, Scalar], off: dict[str, Scalar]) -> None:
    assert switched(given, (3, 6, 16), on=False) == off


def test_other_gates() -> None:
    assert other_gates(f"A=true,{GATE}=true") == "A=true"
    assert other_gates(f"{GATE}2=true") == f"{GATE}2=true"
    assert other_gates("") == ""
