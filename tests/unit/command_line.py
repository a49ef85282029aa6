"""Command lines of the programs, run in the test's own process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from invoke.program import Program

ROOT = Path(__file__).parents[2]
#: Exit code, stdout, stderr.
Ended = tuple[int, str, str]
Line = Callable[[Program, str], Ended]


def lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Line]:
    """For a fixture: runs a command line of one of the programs."""
    monkeypatch.chdir(ROOT)

    def run(program: Program, words: str) -> Ended:
        with pytest.raises(SystemExit) as done:
            program.run(["program", *words.split()])
        seen = capsys.readouterr()
        return int(done.value.code or 0), seen.out, seen.err

    handler = signal.getsignal(signal.SIGINT)  # tasks.py has one of its own
    yield run
    signal.signal(signal.SIGINT, handler)
