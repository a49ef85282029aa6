"""Ranges of names: what they stand for, and what is refused."""

from __future__ import annotations

import pytest

from provision.inventory.ranges import MAX_ENTRIES, RangeError, expand


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("worker", ["worker"]),
        ("worker[1-3]", ["worker1", "worker2", "worker3"]),
        ("worker[001-003]", ["worker001", "worker002", "worker003"]),
        ("worker[08-11]", ["worker08", "worker09", "worker10", "worker11"]),
        ("worker[8-11]", ["worker8", "worker9", "worker10", "worker11"]),
        ("worker[0-10]", [f"worker{n}" for n in range(11)]),
        ("w[1-2,7,9-10].example.com", [f"w{n}.example.com" for n in (1, 2, 7, 9, 10)]),
        ("10.0.1.[11-13]", ["10.0.1.11", "10.0.1.12", "10.0.1.13"]),
        ("r[1-2]n[3-4]", ["r1n3", "r1n4", "r2n3", "r2n4"]),
        ("worker[5]", ["worker5"]),
    ],
)
def test_expand(text: str, names: list[str]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w[3-1]", "runs backwards"),
        ("w[1-3", "bracket without its pair"),
        ("w1-3]", "bracket without its pair"),
        ("w[[1-3]]", "bracket without its pair"),
        ("w[]", "not a range"),
        ("w[a-c]", "not a range"),
        ("w[1-]", "not a range"),
        ("w[1 - 3]", "not a range"),
        ("w[-1-3]", "not a range"),
        ("w[\u0661-\u0663]", "not a range"),
        ("w[01-100]", "as many digits"),
        ("w[1-010]", "as many digits"),
        ("w[0-999999999]", "too long"),
        ("w[9999999999]", "not a range"),
        ("w[1-60000,1-60000]", "too long"),
        ("w[1-1000][1-1000]", f"{MAX_ENTRIES} are the most"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(RangeError, match=message):
        expand(text)
