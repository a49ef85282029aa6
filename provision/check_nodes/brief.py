"""Many workers or services on a terminal: how many are in each state, and those that are not well.

Rows with one state and one cause are one row, with their count and the first names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from provision.alike import APART, cause
from provision.dataclass import dataclass

T = TypeVar("T")

#: With more rows than this, a terminal gets the brief form unless the operator asks for all.
ROWS = 30
#: So many rows with one cause are named.
NAMED = 3
#: Causes at most: nobody reads more on a terminal.
MOST = 2000


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """Rows with one cause. ``name``: the name of the only one, or their count and first names."""

    first: T
    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Brief(Generic[T]):
    """``totals`` names each state, the most frequent first."""

    totals: str
    kinds: tuple[Kind[T], ...]
    #: Rows that are well, and others for which there was no room.
    well: int
    left: int

    @property
    def rest(self) -> str:
        """What is not listed, and how to see it; empty when all is."""
        parts = [f"{self.left} more with problems"] if self.left else []
        parts += [f"{self.well} without problems"] if self.well else []
        verb = "is" if self.left + self.well == 1 else "are"
        return f"{' and '.join(parts)} {verb} not listed (--all lists them)" if parts else ""


def brief(
    rows: Sequence[T],
    *,
    good: Callable[[T], bool],
    state: Callable[[T], str],
    name: Callable[[T], str],
    why: Callable[[T], str],
    noun: str,
) -> Brief[T]:
    """The brief form of ``rows``: those that are ``good`` are only counted. ``noun`` is what they
    are, with the plural s."""
    bad = [row for row in rows if not good(row)]
    groups: dict[object, list[T]] = {}
    for row in bad:
        groups.setdefault((state(row), cause(why(row), [name(row)])), []).append(row)
    kinds: list[Kind[T]] = []
    for group in groups.values():
        if len(group) <= APART:
            kinds += [Kind(row, name(row), 1) for row in group]
        else:
            first = [name(row) for row in group[:NAMED]]
            text = ",\n".join([f"{len(group)} {noun}: {first[0]}", *first[1:]])
            text += f"\nand {len(group) - NAMED} more" if len(group) > NAMED else ""
            kinds.append(Kind(group[0], text, len(group)))
    shown = tuple(kinds[:MOST])
    count = Counter(map(state, rows))
    totals = ", ".join(f"{n} {which}" for which, n in count.most_common())
    left = len(bad) - sum(kind.count for kind in shown)
    return Brief(totals, shown, len(rows) - len(bad), left)
