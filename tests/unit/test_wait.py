"""The one wait: how often it looks, when it ends, and what it returns."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision import wait
from tests.unit.clock import Clock, install

PACKAGE = Path(wait.__file__).parent
#: The live view gathers events for a moment; it waits for nothing.
SLEEPS = {"wait.py", "check_nodes/live.py"}


def counted(clock: Clock, good: int, within: float, every: float, takes: float = 0) -> int:
    """The number of looks when look number ``good`` is good, and each takes ``takes`` seconds."""
    looks = 0

    def look() -> int:
        nonlocal looks
        looks += 1
        clock.time += takes
        return looks

    last = wait.until(look, lambda n: n >= good, within, every, clock, what="it")
    assert last == looks
    return looks


def test_a_good_look_ends_the_wait_at_once() -> None:
    clock = Clock()
    assert counted(clock, 1, 10, 2) == 1
    assert clock.slept == []


def test_between_two_looks_there_is_one_pause() -> None:
    clock = Clock()
    assert counted(clock, 3, 10, 2) == 3
    assert clock.slept == [2, 2]


def test_at_the_limit_the_last_look_is_returned() -> None:
    clock = Clock()
    assert counted(clock, 99, 10, 2) == 6
    assert clock.slept == [2] * 5


def test_a_look_that_takes_longer_than_the_limit_is_the_last() -> None:
    clock = Clock()
    assert counted(clock, 99, 10, 2, takes=11) == 1


@pytest.mark.parametrize("within", [0, -1])
def test_without_time_there_is_one_look(within: float) -> None:
    clock = Clock()
    assert counted(clock, 99, within, 2) == 1
    assert clock.slept == []


def test_an_error_of_a_look_ends_the_wait() -> None:
    def look() -> int:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        wait.until(look, bool, 10, 2, Clock(), what="it")


def test_a_deadline_counts_from_its_beginning() -> None:
    clock = Clock()
    deadline = wait.Deadline(10, clock)
    seen = []
    for _ in range(4):
        seen.append((deadline.waited, deadline.left, deadline.passed))
        deadline.pause(5)
    assert seen == [(0, 10, False), (5, 5, False), (10, 0, True), (15, 0, True)]


def test_a_test_can_replace_the_clock_of_all_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = install(monkeypatch)
    assert wait.until(lambda: "no", lambda _: False, 3600, 60, what="it") == "no"
    assert clock.slept == [60] * 60


def test_the_real_clock_goes_on() -> None:
    clock = wait.Clock()
    before = clock.now()
    clock.sleep(0)
    assert clock.now() >= before
    assert wait.Deadline(3600).left > 3000


def test_no_other_module_sleeps() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "time.sleep(" in path.read_text(encoding="utf-8")
    }
    assert found == SLEEPS
