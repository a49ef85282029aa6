"""``--limit`` and ``--batch``."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.errors import UsageError
from provision.inventory.selection import choose


@dataclass(frozen=True)
class Role:
    name: str


ROLES = [Role(f"rack{r}-w{n:02}") for r in (1, 2) for n in range(1, 13)]


def names(limit: str = "", batch: str = "") -> list[str]:
    return [role.name for role in choose(ROLES, limit, batch)]


def test_all_when_nothing_is_said() -> None:
    assert choose(ROLES) == tuple(ROLES)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (" rack2-w02 ,rack1-w01,", ["rack1-w01", "rack2-w02"]),
        ("rack1-w[01-03]", ["rack1-w01", "rack1-w02", "rack1-w03"]),
        ("rack[1-2]-w[01,12]", ["rack1-w01", "rack1-w12", "rack2-w01", "rack2-w12"]),
        ("*-w07", ["rack1-w07", "rack2-w07"]),
        (
            "rack?-w1?,rack1-w01",
            ["rack1-w01", *(f"rack{r}-w{n}" for r in (1, 2) for n in (10, 11, 12))],
        ),
        ("rack[2-2]-*1", ["rack2-w01", "rack2-w11"]),
        ("rack2-w0?,!rack2-w0[1-7]", ["rack2-w08", "rack2-w09"]),
        ("! rack2-w08 , rack2-w0[8-9]", ["rack2-w09"]),
        ("!rack1-*,!*-w0?", ["rack2-w10", "rack2-w11", "rack2-w12"]),
    ],
)
def test_a_limit(limit: str, expected: list[str]) -> None:
    assert names(limit) == sorted(expected)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (",", "selects nothing"),
        ("rack1-w01,!rack1-*", "selects nothing"),
        ("*,!nobody", "there is no nobody"),
        ("rack1-w01,nobody", "there is no nobody; the names are rack1-w01, .* and 14 more"),
        ("rack1-w[11-14]", "there is no rack1-w13, rack1-w14;"),
        ("rack3-*", r"there is no rack3-\*"),
        ("rack1.w01", "there is no"),
        ("rack.*", "there is no"),
        ("rack[a-z]-w01", r"\[a-z\] is not a range"),
        ("rack1-w[01", "without its pair"),
    ],
)
def test_a_limit_that_is_nobody(limit: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        names(limit)


def test_a_batch_is_of_what_the_limit_leaves() -> None:
    assert names("rack2-*", "2/4") == ["rack2-w04", "rack2-w05", "rack2-w06"]


@given(st.integers(0, 60), st.integers(1, 70))
def test_batches_are_disjoint_equal_and_everything(count: int, of: int) -> None:
    roles = [Role(str(n)) for n in range(count)]
    batches = [choose(roles, "", f"{k}/{of}") for k in range(1, of + 1)]
    assert [role for batch in batches for role in batch] == roles
    sizes = {len(batch) for batch in batches}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "batch", ["0/4", "5/4", "2", "2/0", "-1/2", "1/2/3", "a/b", " 1/2", "1.0/2"]
)
def test_a_batch_that_is_none(batch: str) -> None:
    with pytest.raises(UsageError, match="--batch is K/N"):
        names("", batch)
