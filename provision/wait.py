"""Waiting for something on a host or in etcd: looks, with a pause between them and a time limit.

:func:`until` is the whole wait. A wait with more logic in it uses a :class:`Deadline`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from provision import progress

_T = TypeVar("_T")


class Clock:
    """The clock of every wait. A test puts other methods in the place of these two."""

    def now(self) -> float:
        """Seconds since some moment in the past; they never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Deadline:
    """A time limit of ``within`` seconds, from now on."""

    def __init__(self, within: float, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._within = within
        self._begin = self._clock.now()

    @property
    def waited(self) -> float:
        """Seconds since the limit was set."""
        return self._clock.now() - self._begin

    @property
    def left(self) -> float:
        """Seconds until the limit; 0 from then on."""
        return max(0.0, self._within - self.waited)

    @property
    def passed(self) -> bool:
        """Whether the time is over. A limit of 0 seconds has passed at once."""
        return not self.left

    def pause(self, seconds: float) -> None:
        """Sleep between two looks."""
        self._clock.sleep(seconds)


def until(
    look: Callable[[], _T],
    good: Callable[[_T], bool],
    within: float,
    every: float,
    clock: Clock | None = None,
    *,
    what: str,
    names: Callable[[_T], Collection[str]] | None = None,
) -> _T:
    """Look until ``good`` accepts the result, or ``within`` seconds have passed.

    The screen says that ``what`` is waited for, and with ``names`` for whom a look shows it.
    Returns the last look: the caller checks whether it is good. There is at least one look. The
    pause between two looks is ``every`` seconds. An error of ``look`` ends the wait.
    """
    deadline = Deadline(within, clock)
    with progress.waiting(what, within=within) as shown:
        while True:
            seen = look()
            if good(seen) or deadline.passed:
                return seen
            if names is not None:
                shown.left(names(seen))
            deadline.pause(every)


@contextlib.contextmanager
def ending(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Within this context ``connection`` ends after ``seconds``, also one that TLS has taken over.

    A socket's own timeout limits each wait only: a peer that sends a byte now and then has no end.
    """
    same = connection.dup()

    def end() -> None:
        with contextlib.suppress(OSError):
            same.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        same.close()
