"""Gathers the problems of an inventory file, so that all are reported together."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from provision.errors import Problem, Severity
from provision.ids import Id
from provision.text import counted, printable

#: Places that a problem lists at most.
USES = 4


class Mark(NamedTuple):
    """A place in the file; both count from 1.

    ``used``: line and column of the alias through which the text there is used; empty when the text
    stands where it is used.
    """

    line: int
    column: int
    used: tuple[int, ...] = ()

    def at(self, place: Mark) -> Mark:
        """The same text, as it is used at ``place``."""
        return self._replace(used=(place.line, place.column))

    @property
    def here(self) -> tuple[int, ...]:
        """Where the text is used."""
        return self.used or (self.line, self.column)


def unreadable(path: Path, error: OSError | ValueError) -> Problem:
    """Why a file of an inventory cannot be read."""
    if isinstance(error, IsADirectoryError):
        what, remedy = "this is a folder", "name the inventory file in the folder"
    else:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        what, remedy = f"cannot be read: {reason}", ""
    return Problem(str(path), what, remedy, id="inventory-unreadable")


class Findings:
    """The problems and warnings of one file, each reported once and in the file's order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._last: tuple[Mark, str] | None = None
        self._found: dict[tuple[Mark, str], Problem] = {}
        #: Where the text of a problem is used through an alias, by its own place and the problem.
        self._used: dict[tuple[int, int, str], dict[tuple[int, ...], None]] = {}

    def error(self, mark: Mark, what: str, remedy: str = "", *, id: Id) -> None:
        self._add(mark, what, remedy, "error", id)

    def warning(self, mark: Mark, what: str, remedy: str = "", *, id: Id) -> None:
        self._add(mark, what, remedy, "warning", id)

    def where(self, mark: Mark) -> str:
        """Where ``mark`` is used, as ``file:line:column``, which editors and terminals can
        follow."""
        # Thousands of hosts from one range have one mark.
        if self._last is None or self._last[0] is not mark:
            self._last = mark, ":".join(map(str, (self.name, *mark.here)))
        return self._last[1]

    @property
    def errors(self) -> tuple[Problem, ...]:
        return self._of("error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return self._of("warning")

    def _add(self, mark: Mark, what: str, remedy: str, severity: Severity, id: Id) -> None:
        # Both may quote the file, and the file may contain anything.
        shown = printable(what), printable(remedy)
        own = f"{self.name}:{mark.line}:{mark.column}"
        problem = Problem(own, *shown, severity, id=id)
        self._found.setdefault((mark._replace(used=()), what), problem)
        if mark.used:  # an alias, or a merge: there the text is right or wrong, and here it stands
            self._used.setdefault((mark.line, mark.column, what), {})[mark.used] = None

    def _of(self, severity: Severity) -> tuple[Problem, ...]:
        in_order = sorted(self._found.items(), key=lambda found: found[0][0])
        return tuple(
            self._with_uses(problem, self._used.get((mark.line, mark.column, what), {}))
            for (mark, what), problem in in_order
            if problem.severity == severity
        )

    def _with_uses(self, problem: Problem, uses: dict[tuple[int, ...], None]) -> Problem:
        if not uses:
            return problem
        places = [f"{self.name}:{line}:{column}" for line, column in islice(uses, USES)]
        more = f" and {counted(len(uses) - USES, 'more place')}" if len(uses) > USES else ""
        return replace(problem, what=f"{problem.what}; used at {', '.join(places)}{more}")
