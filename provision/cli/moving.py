"""The waits of a run on stderr: as lines that move on a terminal, else one line in a while.

rich is imported only when something has taken longer than a second on a terminal.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, TextIO

from provision import progress, terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Seconds until a wait is shown, and between two looks at the waits.
SHOWN_AFTER, LOOK = 1.0, 0.2
#: Seconds between two looks where lines cannot move.
STILL_LOOK = 1.0
#: Where lines cannot move, a line comes after so many seconds without one.
LINE_EVERY = 30.0
#: Waits that are shown at the same time.
MOST = 4
#: Columns of a terminal for the moving sign and the bar, and with fewer columns there is no bar.
SIGN, BAR, NARROW = 2, 8, 60


class Screen:
    """A context in which the waits are shown."""

    def __init__(self, every: float = LINE_EVERY) -> None:
        self._stream = sys.stderr  # what --debug records has no lines that move
        moves = self._stream is not None and self._stream.isatty()
        self._moves = moves and os.environ.get("TERM") not in ("dumb", "unknown")
        self._every = every
        self._said = time.monotonic()
        self._hidden = 0
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="moving", daemon=True)
        self._drawn: Progress | None = None
        self._tasks: dict[progress.Wait, TaskID] = {}

    def __enter__(self) -> Screen:
        progress.BOARD.screen = self
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        progress.BOARD.screen = None
        self._stop.set()
        self._thread.join(1.0)
        with self._lock:
            self._erase()

    def hide(self) -> None:
        with self._lock:
            self._hidden += 1
            self._erase()
            self._said = time.monotonic()  # whatever is printed now is a sign of life

    def unhide(self) -> None:
        with self._lock:
            self._hidden -= 1

    def ended(self, wait: progress.Wait) -> None:
        if wait.seconds < SHOWN_AFTER:
            return  # it was never shown
        with self._lock:
            if self._drawn is None or wait not in self._tasks:
                return
            if len(self._tasks) > 1:
                self._drawn.remove_task(self._tasks.pop(wait))
            else:
                self._erase()  # whatever is printed next has the line for itself

    def _look(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # stderr is closed, or nobody reads it
            while not self._stop.wait(LOOK if self._moves else STILL_LOOK):
                with self._lock:
                    if not self._hidden and not self._stop.is_set():
                        self._show()

    def _show(self) -> None:
        waits = [wait for wait in progress.BOARD.now() if wait.seconds >= SHOWN_AFTER][:MOST]
        if self._moves:
            self._draw(waits)
        elif waits and time.monotonic() - self._said >= self._every:
            for wait in waits:
                print(terminal.line(f"waiting: {wait.line()}"), file=self._stream, flush=True)
            self._said = time.monotonic()

    def _draw(self, waits: list[progress.Wait]) -> None:
        if not waits:
            self._erase()
            return
        if self._drawn is None:
            self._drawn = _progress(self._stream)
            self._drawn.start()
        shown = self._drawn
        for wait in [wait for wait in self._tasks if wait not in waits]:
            shown.remove_task(self._tasks.pop(wait))
        for wait in waits:
            if wait not in self._tasks:
                self._tasks[wait] = shown.add_task("", total=wait.of)
            width = shown.console.width
            room = width - SIGN - (BAR + 1 if width >= NARROW else 0) - 1
            shown.update(
                self._tasks[wait],
                total=wait.of,
                completed=min(wait.done, wait.of or 0),
                description=terminal.line(wait.line(room)),
            )
        shown.refresh()

    def _erase(self) -> None:
        drawn, self._drawn = self._drawn, None
        self._tasks.clear()
        if drawn is not None:
            with contextlib.suppress(OSError, ValueError):
                drawn.stop()


def _progress(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
    from rich.table import Column

    class Still(Console):
        def show_cursor(self, show: bool = True) -> bool:
            return False  # a run that is killed would leave the terminal without a cursor

    text = Column(no_wrap=True, overflow="ellipsis")
    console = Still(file=stream, highlight=False, markup=False)
    bar = [BarColumn(BAR)] if console.width >= NARROW else []
    return Progress(
        SpinnerColumn("line"),
        *bar,
        TextColumn("{task.description}", markup=False, table_column=text),
        console=console,
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
