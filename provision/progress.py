"""What the run waits for now: whom, for how long, how much of how much is done.

Every wait is noted here where it happens, in whatever thread and however deep: one process has one
screen, as it has one stderr. :mod:`provision.cli.moving` shows what takes longer than a second.
Without it, a note costs a few microseconds.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from provision.alike import named
from provision.text import printable, size

#: So many of those who are waited for are named.
NAMED = 3
#: An estimate needs so many seconds and so many parts that are done.
ESTIMATE_AFTER = 2.0


@dataclass(eq=False, slots=True)
class Call:
    """One call of a host, as a part of a wait for many."""

    what: str
    begun: float
    within: float | None


@dataclass(eq=False, slots=True)
class Wait:
    """One wait. ``within``: seconds at most. ``of``: how many things, or bytes (``sizes``), it is
    for; ``done``: how many of these. ``names``: whom it still waits for."""

    what: str
    within: float | None = None
    of: int | None = None
    sizes: bool = False
    names: dict[str, None] = field(default_factory=dict)
    done: int = 0
    begun: float = field(default_factory=time.monotonic)
    #: The calls of hosts that are under way, by their hosts.
    calls: dict[str, Call] = field(default_factory=dict)

    def add(self, count: int = 1) -> None:
        self.done += count

    def finish(self, name: str) -> None:
        """``name`` is no longer waited for."""
        self.names.pop(name, None)
        self.done += 1

    def left(self, names: Collection[str]) -> None:
        """Only ``names`` are still waited for."""
        self.names = dict.fromkeys(names)
        if self.of is not None:
            self.done = max(0, self.of - len(names))

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    @property
    def title(self) -> str:
        if self.what:
            return self.what
        with contextlib.suppress(RuntimeError):  # another thread changes the calls
            for call in self.calls.values():
                return f"{call.what} on hosts"
        return "hosts"

    @property
    def numbers(self) -> str:
        """``12 of 200`` or ``1.2 GB of 3.0 GB``; empty when it is for one thing."""
        if self.of is None:
            return size(self.done) if self.sizes and self.done else ""
        if self.sizes:
            return f"{size(self.done)} of {size(self.of)}"
        return f"{self.done} of {self.of}" if self.of > 1 else ""

    @property
    def time(self) -> str:
        """``8 s of 100 s``. A wait without a limit shows those of its oldest call."""
        seconds, within = self.seconds, self.within
        if within is None and self.calls:
            with contextlib.suppress(RuntimeError, StopIteration):
                oldest = next(iter(self.calls.values()))
                seconds, within = time.monotonic() - oldest.begun, oldest.within
        said = duration(seconds)
        return f"{said} of {duration(within)}" if within is not None and within > 0 else said

    @property
    def estimate(self) -> str:
        """``about 40 s left``; empty when nobody can know."""
        seconds = self.seconds
        if not self.of or not 0 < self.done < self.of or seconds < ESTIMATE_AFTER:
            return ""
        return f"about {duration(seconds / self.done * (self.of - self.done))} left"

    def whom(self, count: int = NAMED, *, short: bool = False) -> str:
        """``waiting for w1, w2, w3 and 186 more``; empty when nobody is named. ``short``: hosts
        without their domains."""
        with contextlib.suppress(RuntimeError):
            if names := list(self.names):
                if short:
                    first = names[0].partition(".")[0]
                    names[0] = names[0] if first.isdigit() else first
                return f"{'for' if short else 'waiting for'} {named(names, count)}"
        return ""

    def line(self, width: int | None = None) -> str:
        """The wait in ``width`` columns of a screen, without what there is no room for."""
        head = ", ".join(filter(None, (self.numbers, self.time)))
        title = self.title
        more = [
            [self.estimate, self.whom()],
            [self.estimate, self.whom(1)],
            [self.estimate, self.whom(1, short=True)],
            [self.whom(1, short=True)],
            [self.estimate],
            [],
        ]
        for parts in more:
            text = "; ".join(filter(None, (f"{title}: {head}", *parts)))
            if width is None or len(text) <= width:
                return text
        room = max(1, width - len(head) - 3) if width else len(title)
        return f"{title[:room]}…: {head}"


def duration(seconds: float) -> str:
    """``45 s`` or ``3 min 20 s``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"


class Screen(Protocol):
    """Shows the waits. ``hide`` takes them off the screen until as many calls of ``unhide``;
    ``ended`` takes one off for good."""

    def ended(self, wait: Wait) -> None: ...
    def hide(self) -> None: ...
    def unhide(self) -> None: ...


class Board:
    """The waits of this process, and who shows them. Thread-safe."""

    def __init__(self) -> None:
        self._waits: dict[int, Wait] = {}
        self._numbers = itertools.count()
        self._here = threading.local()
        self.screen: Screen | None = None

    def now(self) -> list[Wait]:
        """The waits that are under way, the outermost first."""
        while True:
            with contextlib.suppress(RuntimeError):  # another thread has just begun one
                return [wait for _, wait in sorted(self._waits.items())]

    @contextlib.contextmanager
    def waiting(self, wait: Wait) -> Iterator[Wait]:
        number = next(self._numbers)
        self._waits[number] = wait
        try:
            yield wait
        finally:
            del self._waits[number]
            if self.screen is not None:
                self.screen.ended(wait)

    @contextlib.contextmanager
    def part_of(self, wait: Wait, name: str) -> Iterator[None]:
        """Within this context, calls of this thread are parts of ``wait``, for ``name``."""
        before = getattr(self._here, "group", None)
        self._here.group = wait
        try:
            yield
        finally:
            self._here.group = before
            wait.finish(name)

    @contextlib.contextmanager
    def calling(self, host: str, what: str, within: float | None, of: int | None) -> Iterator[Wait]:
        group: Wait | None = getattr(self._here, "group", None)
        if group is None:
            with self.waiting(Wait(f"{host}: {what}", within, of, sizes=True)) as wait:
                yield wait
            return
        group.calls[host] = Call(what, time.monotonic(), within)
        try:
            yield Wait(what, within, of, sizes=True)
        finally:
            group.calls.pop(host, None)


BOARD = Board()


@contextlib.contextmanager
def waiting(
    what: str,
    *,
    within: float | None = None,
    of: int | None = None,
    names: Collection[str] = (),
    sizes: bool = False,
) -> Iterator[Wait]:
    """Within this context the run waits for ``what``: see :class:`Wait`. It may be a function's
    decorator. With ``names`` and without ``of``, it is for so many things as there are names."""
    wait = Wait(what, within, of if of is not None or not names else len(names), sizes)
    wait.names = dict.fromkeys(names)
    with BOARD.waiting(wait):
        yield wait


def hashing(path: Path) -> contextlib.AbstractContextManager[Wait]:
    """The wait for the sha256 of a file. Raises :class:`OSError` without the file."""
    what = f"sha256 of {printable(path.name)}"
    return waiting(what, of=path.stat().st_size, sizes=True)


def part_of(wait: Wait, name: str) -> contextlib.AbstractContextManager[None]:
    """Within this context, calls of this thread are parts of ``wait``; then ``name`` is done."""
    return BOARD.part_of(wait, name)


def calling(
    host: str, what: str, within: float | None, of: int | None = None
) -> contextlib.AbstractContextManager[Wait]:
    """Within this context a call of a host is under way; ``of``: how many bytes it sends."""
    return BOARD.calling(host, what, within, of)


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Within this context no wait is on the screen: for what is printed or asked there."""
    screen = BOARD.screen
    if screen is None:
        yield
        return
    screen.hide()
    try:
        yield
    finally:
        screen.unhide()
