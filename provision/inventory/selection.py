"""Selects the members or workers of a command: NAMES or ``--limit`` by name, ``--batch`` by share.

Both select in the inventory's order. The others are neither asked nor changed. The documents of a
run with ``--batch`` say which part of which whole they are, so that the parts can be joined again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Protocol, TypedDict, TypeVar

from provision.dataclass import dataclass
from provision.errors import UsageError
from provision.inventory.range_names import RangeError, expand

#: How many names an error lists.
SHOWN = 10
#: Parts at most.
MOST = 999_999
_BATCH = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
#: Commas that are not within the brackets of a range.
COMMA = re.compile(r",(?![^\[\]]*\])")


class Named(Protocol):
    @property
    def name(self) -> str: ...


Role = TypeVar("Role", bound=Named)


class BatchDocument(TypedDict):
    """Which part (`number` of `of`) of which whole: a whole is one command with one `limit` on one
    cluster. `count` and `names` are how many names all parts have together, and the SHA-256 of
    these; null, as `cluster`, when the run ended before it knew."""

    number: int
    of: int
    command: str
    cluster: str | None
    limit: str
    count: int | None
    names: str | None
    began: str


@dataclass(frozen=True, slots=True)
class Share:
    """The ``number``-th of ``of`` equal shares: the value of ``--batch``."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def choose(roles: Sequence[Role], limit: str = "", batch: str = "") -> tuple[Role, ...]:
    """The ``roles`` that ``limit`` names, and of these the share in ``batch``.

    ``limit``: names separated by commas, with ranges as in the inventory (``worker[001-020]``),
    ``*`` and ``?``; empty for all. Names after ``!`` are left out, wherever they stand; with
    nothing but these, of all. ``batch``: ``K/N``, the Kth of N equal shares; empty for all.
    The N shares are disjoint, together they are everything, and some are empty when N is larger.
    Raises :class:`UsageError`, also when a name or a pattern of ``limit`` matches no role.
    """
    chosen = limited(roles, limit)
    return part(chosen, share(batch)) if batch else chosen


def part(chosen: Sequence[Role], share: Share) -> tuple[Role, ...]:
    """The roles of this share."""
    number, of = share.number, share.of
    return tuple(chosen[len(chosen) * (number - 1) // of : len(chosen) * number // of])


def digest(chosen: Sequence[Named]) -> str:
    """What two inventories with other names, or another order, do not have in common."""
    return hashlib.sha256("\n".join(role.name for role in chosen).encode()).hexdigest()


def limited(roles: Sequence[Role], limit: str) -> tuple[Role, ...]:
    """As :func:`choose`, before there are shares."""
    return _limited(roles, limit) if limit else tuple(roles)


def _limited(roles: Sequence[Role], limit: str) -> tuple[Role, ...]:
    names = {role.name: None for role in roles}
    wanted: set[str] = set()
    unwanted: set[str] = set()
    nobody: list[str] = []
    patterns = list(_patterns(limit))
    if patterns and all(out for out, _ in patterns):
        wanted.update(names)
    for out, pattern in patterns:
        if "*" in pattern or "?" in pattern:
            matches = re.compile(_expression(pattern)).fullmatch
            found = [name for name in names if matches(name)]
        else:
            found = [pattern] if pattern in names else []
        (unwanted if out else wanted).update(found)
        if not found:
            nobody.append(pattern)
    if nobody:
        raise UsageError(
            f"there is no {_listed(nobody)}; the names are {_listed(names)}",
            id="name-unknown",
        )
    wanted -= unwanted
    if not wanted:
        raise UsageError(f"{limit!r} selects nothing", id="name-unknown")
    return tuple(role for role in roles if role.name in wanted)


def _patterns(limit: str) -> Iterator[tuple[bool, str]]:
    """Whether its names are left out, and each pattern."""
    for part in COMMA.split(limit):
        pattern = part.strip()
        out = pattern.startswith("!")
        pattern = pattern.removeprefix("!").strip() if out else pattern
        if not pattern:
            continue
        try:
            yield from ((out, one) for one in expand(pattern))
        except RangeError as error:
            raise UsageError(str(error), id="option-invalid") from error


def _expression(pattern: str) -> str:
    """``pattern`` as a regular expression. Brackets are ranges here, never sets of characters."""
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


def share(batch: str) -> Share:
    """The value of ``--batch``. Raises :class:`UsageError`."""
    match = _BATCH.fullmatch(batch)
    number, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= of:
        raise UsageError(
            f"--batch is K/N, such as 2/4, with K from 1 to N; not {batch!r}", id="option-invalid"
        )
    return Share(number, of)


def _listed(names: Sequence[str] | dict[str, None]) -> str:
    some = list(names)
    more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
    return ", ".join(some[:SHOWN]) + more
