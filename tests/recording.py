"""Which errors a test has met and which commands it has run, in their order.

For tests/remedies.py, whose rows say so of tests. In a test's own process an error is seen when it
is made; of a command that runs as a process, the ids are in what it prints.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from provision.errors import Problem, ProvisionError
from provision.ids import IDS

#: At the end of a line on the screen, and in JSON.
_PRINTED = re.compile(r'\[([a-z-]+)\]$|"id": "([a-z-]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Met:
    """An error, by its id."""

    id: str


@dataclass(frozen=True)
class Ran:
    """A command of the program that has ended: the task with its arguments."""

    words: tuple[str, ...]
    code: int


Event = Met | Ran
_lists: list[list[Event]] = []


def note(event: Event) -> None:
    for one in _lists:
        one.append(event)


@contextlib.contextmanager
def recording() -> Iterator[list[Event]]:
    """The events from here on, in a list that grows."""
    events: list[Event] = []
    _lists.append(events)
    try:
        yield events
    finally:
        _lists.remove(events)


def ran(words: Sequence[str], code: int, text: str) -> None:
    """Note a command that has ended: first the errors that it has printed."""
    for ids in _PRINTED.findall(text):
        id = next(filter(None, ids))
        if id in IDS:
            note(Met(id))
    note(Ran(tuple(words), code))


def watch() -> None:
    """Note every error that is made in this process."""
    for made in (Problem, ProvisionError):
        made.__init__ = _noting(made.__init__)  # type: ignore[method-assign]


def _noting(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def noted(self: Any, *given: Any, **named: Any) -> None:
        init(self, *given, **named)
        note(Met(self.id))

    return noted
