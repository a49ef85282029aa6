"""The question on a terminal, before something that runs is restarted: `no`, `yes`, and a host that
changes while the question is open.

Tests build on each other.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .lab import REPO, Lab

pytestmark = pytest.mark.usefixtures("workers")
UNIT = "alluxio-worker.service"
SITE = "/opt/alluxio/current/conf/alluxio-site.properties"
PROPERTY = "alluxio.user.file.metadata.sync.interval"
QUESTION, REFUSED = "Type yes to continue: ", "not applied: the answer was not yes"
ANOTHER = "the facts have changed: this plan differs from the plan that was shown"


class Typed:
    """A program on a terminal of its own, and what was seen on it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            command, cwd=REPO, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def waits_for(self, text: str, seconds: float = 120) -> str:
        """What came from now on until ``text``."""
        begin, deadline = len(self.seen), time.monotonic() + seconds
        while text not in self.seen[begin:]:
            assert time.monotonic() < deadline, f"{text!r}?\n{self.seen}"
            if not self._read():
                raise AssertionError(f"ended before {text!r}:\n{self.seen}")
        return self.seen[begin:]

    def types(self, line: str) -> None:
        os.write(self._master, f"{line}\n".encode())

    def ends(self, seconds: float = 300) -> int:
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, self.seen
        return self._process.wait(10)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        """Whether the program still has the terminal."""
        if not select.select([self._master], [], [], 0.2)[0]:
            return self._process.poll() is None
        data = b""
        with contextlib.suppress(OSError):  # nobody is at the other end any more
            data = os.read(self._master, 1 << 16)
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        self.seen += text.replace("\r", "")
        return bool(data)


@contextlib.contextmanager
def typed(lab: Lab, task: str, inventory: Path, *options: str) -> Iterator[Typed]:
    terminal = Typed(lab.command(task, inventory, *options))
    try:
        yield terminal
    finally:
        terminal.close()


def with_property(lab: Lab, value: str) -> Path:
    return lab.inventory(
        {"alluxio": {"properties": {"alluxio.dora.client.ufs.root": "/srv", PROPERTY: value}}}
    )


def processes(lab: Lab) -> list[int]:
    return [host.main_pid(UNIT) for host in lab.workers]


def test_no(lab: Lab) -> None:
    before = lab.snapshot()
    with typed(lab, "start-workers", with_property(lab, "1min")) as terminal:
        shown = terminal.waits_for(QUESTION)
        assert f"+{PROPERTY}=1min" in shown
        assert "affected: restarts alluxio-worker on worker0, worker1" in shown
        terminal.types("no")
        assert terminal.ends() == 2
    said = re.sub(r"\n +", " ", terminal.seen)  # lines of 80 columns
    assert f"{REFUSED}; no host was changed [consent-missing]" in said
    assert lab.snapshot() == before


def test_yes(lab: Lab) -> None:
    before = processes(lab)
    with typed(lab, "start-workers", with_property(lab, "1min")) as terminal:
        terminal.waits_for(QUESTION)
        terminal.types("yes")
        assert terminal.ends() == 0, terminal.seen
    assert terminal.seen.count(QUESTION) == 1
    assert "2 of 2 live" in terminal.seen
    assert not {*before} & {*processes(lab)}
    for host in lab.workers:
        assert f"{PROPERTY}=1min" in host.read(SITE).splitlines()


def test_a_host_changes_before_the_answer(lab: Lab) -> None:
    """A second `yes` is to what is there then; without it nothing is changed."""
    declared, changed = with_property(lab, "2min"), lab.workers[0]
    with typed(lab, "start-workers", declared) as terminal:
        terminal.waits_for(QUESTION)
        changed.run(f"echo alluxio.of.somebody=1 >>{SITE}")
        before = lab.snapshot()
        terminal.types("yes")
        shown = terminal.waits_for(QUESTION)
        assert ANOTHER in shown
        assert "-alluxio.of.somebody=1" in shown
        terminal.types("no")
        assert terminal.ends() == 2
    assert lab.snapshot() == before
    assert "alluxio.of.somebody=1" in changed.read(SITE)


def test_a_worker_stops_before_the_answer(lab: Lab) -> None:
    """Its restart has become a start; the second answer is to that."""
    declared, stopped = with_property(lab, "2min"), lab.workers[1]
    with typed(lab, "start-workers", declared) as terminal:
        terminal.waits_for(QUESTION)
        stopped.run(f"systemctl stop {UNIT}")
        terminal.types("yes")
        assert ANOTHER in terminal.waits_for(QUESTION)
        terminal.types("yes")
        assert terminal.ends() == 0, terminal.seen
    for host in lab.workers:
        assert f"{PROPERTY}=2min" in host.read(SITE).splitlines()
        assert "of.somebody" not in host.read(SITE)
        assert host.main_pid(UNIT)


def test_etcd_is_asked_about_and_yes_is_an_option(lab: Lab) -> None:
    before = lab.snapshot()
    declared = lab.inventory({"etcd": {"settings": {"snapshot-count": 20000}}})
    with typed(lab, "deploy-etcd", declared) as terminal:
        assert "affected: restarts etcd on" in terminal.waits_for(QUESTION)
        terminal.types("")
        assert terminal.ends() == 2
    assert lab.snapshot() == before
    with typed(lab, "start-workers", with_property(lab, "3min"), "--yes") as terminal:
        assert terminal.ends() == 0, terminal.seen
    assert QUESTION not in terminal.seen
