"""The output for a person: plans with their diffs, progress, problems, tables, one JSON document.

Results go to stdout, everything else to stderr. rich is imported only when something is drawn: a
run that changes nothing should not wait for it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from provision import terminal
from provision.cli.alike import folded
from provision.errors import Problem, ProvisionError
from provision.text import size

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
    """One line for each problem, errors before warnings, on stderr.

    Host keys that are not known are one line: one command adds them all.
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


class Progress:
    """A :class:`~provision.engine.plan.Watcher`: a live line on a terminal, else plain lines."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live = sys.stderr.isatty()
        self._started = time.monotonic()
        self._sent: dict[tuple[str, int], int] = {}
        self._waiting = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def step(self, number: int, of: int, step: Step) -> None:
        self._sent.clear()
        self._waiting = len(step.hosts)
        self._line(f"[{number}/{of}] {step.title}")

    def upload(self, host: HostChanges, total: int, sent: int) -> None:
        with self._lock:
            key = (host.name, total)
            self._sent[key] = self._sent.get(key, 0) + sent
            whole = sum(total for _, total in self._sent)
            self._status(f"      uploading {size(sum(self._sent.values()))} of {size(whole)}")

    def host(self, host: HostChanges, error: ProvisionError | None) -> None:
        with self._lock:
            self._waiting -= 1
        mark = "ok" if error is None else "FAILED"
        self._line(f"      {host.name}: {mark} ({len(host.changes)} changes)")

    def gate(self, gate: Gate) -> None:
        self._line(f"      waiting: {gate.title}")

    def _line(self, text: str) -> None:
        with self._lock:
            self._clear()
            seconds = time.monotonic() - self._started
            terminal.say(f"{seconds:6.1f} s {text}", stderr=True)

    def _status(self, text: str) -> None:
        if self._live:
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._live:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
