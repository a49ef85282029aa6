"""Runs mutants that mutmut has made: collects the tests once, then forks a process for each mutant.

mutmut starts pytest anew for every mutant, which takes most of the time: so a run of all mutants
takes hours. This module runs the same tests of the same mutants, the fastest tests first, until one
fails. It is started by :func:`tests.mutants.runs.run`, in mutmut's folder. Its input is one line of
JSON for each mutant: name, tests, and the seconds of CPU time that they may take; its output is one
line for each result, with the exit code of mutmut for it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from _pytest.runner import runtestprotocol

KILLED, SURVIVED, TIMED_OUT = 1, 0, 36
#: On a busy machine a mutant gets its CPU time late: it is given so much more time by the clock.
WAITS = 10


@dataclass(frozen=True, slots=True)
class Job:
    name: str
    tests: Sequence[str]
    seconds: float


class Forks:
    """A plugin that runs every job in the place of pytest's own loop."""

    def __init__(self, jobs: Sequence[Job], children: int, out: int) -> None:
        self._jobs, self._children, self._out = list(jobs), children, out
        #: The tests that have killed mutants of a function, the last one first.
        self._killers: dict[str, list[str]] = {}
        self._told, self._tells = os.pipe()
        os.set_blocking(self._told, False)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        # Without a mutant all must pass. This also imports what they need, once for all children.
        needed = [items[t] for t in dict.fromkeys(t for j in self._jobs for t in j.tests)]
        if failed := _first_failed(needed):
            raise pytest.UsageError(f"fails without a mutant: {failed}")
        # The children share what is there: a collection in a child would copy all of it.
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        gc.collect()
        gc.freeze()
        running: dict[int, tuple[Job, float]] = {}
        todo = iter(self._jobs)
        ended = False
        while running or not ended:
            while not ended and len(running) < self._children:
                job = next(todo, None)
                if job is None:
                    ended = True
                    break
                first = [t for t in self._killers.get(_function(job), ()) if t in job.tests]
                order = dict.fromkeys((*first, *job.tests))
                pid = os.fork()
                if pid == 0:
                    _run(job, [items[t] for t in order], self._tells)
                running[pid] = (job, time.monotonic())
            self._reap(running)
        return True

    def _reap(self, running: dict[int, tuple[Job, float]]) -> None:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            job, _ = running.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            self._tell(job, code if code in (KILLED, SURVIVED) else TIMED_OUT)
            return
        now = time.monotonic()
        for pid, (job, since) in running.items():
            if now - since > WAITS * job.seconds:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        time.sleep(0.005)

    def _tell(self, job: Job, code: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for line in os.read(self._told, 1 << 20).decode().splitlines():
                function, _, test = line.partition("\t")
                known = self._killers.setdefault(function, [])
                self._killers[function] = [test, *(t for t in known if t != test)]
        os.write(self._out, json.dumps([job.name, code]).encode() + b"\n")


def _function(job: Job) -> str:
    return job.name.rpartition("__mutmut_")[0]


def _run(job: Job, items: Sequence[pytest.Item], tells: int) -> None:
    """In the child: the tests until one fails, which is told. Never returns."""
    code = KILLED
    try:
        os.setpgrp()
        most = int(job.seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))
        importlib.import_module("mutmut.mutation.trampoline").set_mutant_under_test(job.name)
        if failed := _first_failed(items):
            os.write(tells, f"{_function(job)}\t{failed}\n".encode())
        else:
            code = SURVIVED
    finally:
        os._exit(code)


def _first_failed(items: Sequence[pytest.Item]) -> str:
    """Run ``items`` until one fails, and return its name; empty when all pass."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        reports = runtestprotocol(item, nextitem=following, log=False)
        if any(report.failed for report in reports):
            return item.nodeid
    return ""


def main() -> int:
    children = int(sys.argv[1])
    settings = importlib.import_module("mutmut.configuration").config()
    selection = settings.pytest_add_cli_args + settings.pytest_add_cli_args_test_selection
    jobs = [Job(*json.loads(line)) for line in sys.stdin]
    out = os.dup(1)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    options = ["--rootdir=.", "--tb=no", "--assert=plain", "-q"]
    return int(pytest.main([*options, *selection], plugins=[Forks(jobs, children, out)]))


if __name__ == "__main__":
    sys.exit(main())
