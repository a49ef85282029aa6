"""One cause on many hosts, as one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from provision.errors import Problem
from provision.text import counted

T = TypeVar("T")

#: So many hosts are named.
NAMED = 5
#: So many hosts with one cause have a line each: it names the host's place in the inventory.
APART = 3

#: What a person decides by: a line for each, however many there are.
APIECE = frozenset({"data-loss-ahead", "other-clusters-live"})
#: What has a command with the host's own values: one line only for hosts with the same values.
EXACT = frozenset({"port-not-reserved"})
#: A place in a file is no host: each of them has to be seen.
_PLACE = re.compile(r":\d+(:\d+)?$")
#: What differs between two texts with one cause: addresses, sizes, times, ids. But a fingerprint is
#: what a person compares.
_NUMBER = re.compile(r"SHA256:\S+|[^\s'\"()=,;/]*\d[^\s'\"()=,;/]*")


def folded(
    problems: Iterable[Problem], always: Callable[[Problem], bool] = lambda _: False
) -> list[Problem]:
    """The problems, and one in place of all that have the same cause on more than :data:`APART`
    hosts; it names the first hosts. ``always`` says of a problem that it is folded from two hosts
    on."""
    groups: dict[object, list[Problem]] = {}
    counts: dict[object, int] = {}
    for problem in problems:
        names = _names(problem.where)
        texts = _texts(problem)
        if problem.id not in EXACT:
            texts = (cause(texts[0], names), cause(texts[1], names))
        same = problem.id, problem.severity, *texts
        raw = same, problem.where, *_texts(problem)
        if raw in counts:  # the same host may be named for each of its roles
            continue
        number = counts[same, problem.where] = counts.get((same, problem.where), 0) + 1
        counts[raw] = number
        groups.setdefault((same, number), []).append(problem)  # a host's second disk is another row
    return [one for group in groups.values() for one in _folded(group, always)]


def cause(text: str, names: Collection[str] = ()) -> str:
    """``text`` without what differs between hosts: their ``names``, and every word with a digit."""
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "#", text)
    return _NUMBER.sub(lambda found: found[0] if found[0].startswith("SHA256:") else "#", text)


def named(names: Sequence[str], most: int = NAMED) -> str:
    """``w1, w2, w3, w4, w5 and 195 more``: ``most`` of the names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _texts(problem: Problem) -> tuple[str, str]:
    return problem.what, problem.remedy


def _names(where: str) -> tuple[str, ...]:
    """``w1 at host1 (inventory.yml:7:5)``: each of the three; ``host1 (inventory.yml:7:5)``:
    both."""
    name, _, line = where.partition(" (")
    return tuple(word for word in (*name.split(" at "), line.removesuffix(")")) if word)


def _place(where: str) -> str:
    """A role at a host is one place, on whichever line. Of hosts alone the line is a part: several
    machines may be behind one address."""
    head = where.partition(" (")[0]
    return head if " at " in head else where


def _short(places: Sequence[str]) -> list[str]:
    """The names of roles and hosts without more, if these tell the places apart."""
    names = [place.partition(" (")[0].partition(" at ")[0] for place in places]
    return names if len(set(names)) == len(names) else list(places)


def _folded(group: list[Problem], always: Callable[[Problem], bool]) -> list[Problem]:
    first = group[0]
    places = list(dict.fromkeys(_place(problem.where) for problem in group))
    differ = any(_texts(problem) != _texts(first) for problem in group)
    if len(places) == 1 and not differ:
        return [first]
    if first.id in APIECE:
        return group
    if any(map(_PLACE.search, places)) or (len(places) <= APART and not all(map(always, group))):
        return group
    names = _short(places)
    what = f"on {names[0]}: {first.what}" if differ else first.what
    return [replace(first, where=f"{counted(len(names), 'host')}: {named(names)}", what=what)]
