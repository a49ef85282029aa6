"""Problems with one cause on many hosts, as one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from provision.errors import Problem

#: So many hosts are named.
_NAMED = 5


def folded(
    problems: Iterable[Problem], which: Callable[[Problem], bool] = lambda _: True
) -> list[Problem]:
    """The problems, and one in place of all that differ in their host only.

    ``which`` says of a problem whether it may be folded.
    """
    groups: dict[object, list[Problem]] = {}
    for problem in problems:
        same = (problem.what, problem.remedy, problem.severity, problem.id)
        groups.setdefault(same if which(problem) else problem, []).append(problem)
    return [_one(group) for group in groups.values()]


def _one(group: list[Problem]) -> Problem:
    first = group[0]
    # The same host may be named for each of its roles.
    names = list(dict.fromkeys(problem.where.partition(" (")[0] for problem in group))
    if len(names) == 1:
        return first
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return replace(first, where=f"{len(names)} hosts: {', '.join(names[:_NAMED])}{more}")
