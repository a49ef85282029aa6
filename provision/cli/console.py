"""The output for a person: plans with their diffs, progress, problems, tables, one JSON document.

Results go to stdout, everything else to stderr. rich is imported only when something is drawn: a
run that changes nothing should not wait for it.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from provision import progress, terminal
from provision.alike import folded
from provision.errors import Problem, ProvisionError
from provision.text import counted

if TYPE_CHECKING:
    from provision.engine.plan import Gate, HostChanges, Plan, Step


def error(failure: ProvisionError) -> None:
    """An error as one line, and a line for each problem behind it, with their ids.

    The first line leaves out an id that is on a line below it, together with the remedy.
    """
    said = any(problem.id == failure.id for problem in failure.problems)
    line = f"error: {failure.message}" + ("" if said else f" [{failure.id}]")
    terminal.say(line, stderr=True)
    problems(failure.problems, bullet="  - ")


def problems(found: Iterable[Problem], bullet: str = "") -> None:
    """One line for each cause, errors before warnings, on stderr.

    Host keys that are not known are always one line: one command adds them all.
    """
    lines = folded(found, lambda p: p.id == "host-key-unknown")
    ordered = sorted(lines, key=lambda p: p.severity != "error")
    for problem in ordered:
        label = "" if problem.severity == "error" else f"{problem.severity}: "
        terminal.say(f"{bullet}{label}{problem.line}", stderr=True)


def plan(todo: Plan, *, stderr: bool = False, new: bool = False, full: bool = False) -> None:
    """Every step with its hosts, changes and diffs, on stdout. ``new`` and ``full`` are as in
    :func:`provision.cli.review.lines`."""
    from provision.cli import review

    out = terminal.console(stderr=stderr)
    for line in review.lines(todo, new=new, full=full):
        made = terminal.quoted if line.quoted else terminal.text
        out.print(made(line.text, style=line.style))


#: With more hosts than this, a step on a terminal names only the first that failed.
MANY, FAILED = 30, 5


class Progress:
    """A :class:`~provision.engine.plan.Watcher`: a line for each step, gate and host. On a terminal
    the hosts of a large step are counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = sys.stderr is not None and sys.stderr.isatty()
        self._started = time.monotonic()
        self._open = contextlib.ExitStack()
        self._uploads: progress.Wait | None = None
        self._sent: dict[tuple[str, int], int] = {}
        self._hosts = self._good = self._failed = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_step()

    def step(self, number: int, of: int, step: Step) -> None:
        self._end_step()
        self._hosts = len(step.hosts)
        self._line(f"[{number}/{of}] {step.title}")

    def upload(self, host: HostChanges, total: int, sent: int) -> None:
        with self._lock:
            if self._uploads is None:
                self._uploads = self._open.enter_context(progress.waiting("uploads", sizes=True))
            key = (host.name, total)
            self._sent[key] = self._sent.get(key, 0) + sent
            self._uploads.of = sum(total for _, total in self._sent)
            self._uploads.done = sum(self._sent.values())
            begun = [name for (name, total), sent in self._sent.items() if sent < total]
            self._uploads.names = dict.fromkeys(begun)
            if not begun:
                self._end_uploads()

    def host(self, host: HostChanges, error: ProvisionError | None) -> None:
        with self._lock:
            self._good += error is None
            self._failed += error is not None
            named = error is not None and self._failed <= FAILED
        if self._counts and self._hosts > MANY and not named:
            return
        mark = "ok" if error is None else "FAILED"
        self._line(f"      {host.name}: {mark} ({counted(len(host.changes), 'change')})")

    def gate(self, gate: Gate) -> None:
        self._line(f"      waiting: {gate.title}")

    def _end_step(self) -> None:
        with self._lock:
            self._end_uploads()
            self._sent.clear()
            hosts, good = self._hosts, self._good
            self._hosts = self._good = self._failed = 0
        if self._counts and hosts > MANY:
            self._line(f"      {good} of {hosts} hosts: ok")  # the errors at the end name the rest

    def _end_uploads(self) -> None:
        self._open.close()
        self._uploads = None

    def _line(self, text: str) -> None:
        with self._lock:
            seconds = time.monotonic() - self._started
            terminal.say(f"{seconds:6.1f} s {text}", stderr=True)
