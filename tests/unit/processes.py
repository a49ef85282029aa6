"""Tests that start processes or open sockets say so: the others are those of ``make unit``."""

from __future__ import annotations

import sys
from typing import Any

#: What Python's audit events call it (docs.python.org, "Audit events table").
_EVENTS = frozenset(
    {
        *("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"),
        *("socket.bind", "socket.connect"),
    }
)


class Watch:
    """Refuses what starts a process while :attr:`test` is the id of a test without the marker."""

    def __init__(self) -> None:
        self.test: str | None = None

    def start(self) -> None:
        """Watch from now on; an audit hook cannot be taken away again."""

        # There are a million events, most of them of copy.deepcopy(). Python calls a function five
        # times as fast as a method here.
        def saw(event: str, _: tuple[Any, ...]) -> None:
            if event in _EVENTS and self.test is not None:
                raise AssertionError(f"{event} in {self.test}: give it @pytest.mark.process")

        sys.addaudithook(saw)
