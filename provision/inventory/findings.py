"""Gathers the problems of an inventory file, so that all are reported together."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from provision.errors import Problem
from provision.ids import Id
from provision.text import printable


class Mark(NamedTuple):
    """A place in the file; both count from 1."""

    line: int
    column: int


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
        self._found: dict[tuple[Mark, str], Problem] = {}

    def error(self, mark: Mark, what: str, remedy: str = "", *, id: Id) -> None:
        self._add(mark, what, remedy, "error", id)

    def warning(self, mark: Mark, what: str, remedy: str = "", *, id: Id) -> None:
        self._add(mark, what, remedy, "warning", id)

    def where(self, mark: Mark) -> str:
        """``file:line:column``, which editors and terminals can follow."""
        return f"{self.name}:{mark.line}:{mark.column}"

    @property
    def errors(self) -> tuple[Problem, ...]:
        return self._of("error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return self._of("warning")

    def _add(self, mark: Mark, what: str, remedy: str, severity: str, id: Id) -> None:
        # Both may quote the file, and the file may contain anything.
        shown = printable(what), printable(remedy)
        problem = Problem(self.where(mark), *shown, severity, id=id)
        self._found.setdefault((mark, what), problem)

    def _of(self, severity: str) -> tuple[Problem, ...]:
        in_order = sorted(self._found.items(), key=lambda found: found[0][0])
        return tuple(problem for _, problem in in_order if problem.severity == severity)
