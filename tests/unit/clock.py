"""A clock that stands still but for the sleeps of a wait."""

from __future__ import annotations

import pytest

from provision import wait


class Clock(wait.Clock):
    """``slept``: every pause so far, in seconds."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


def install(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock for every wait of the modules under test."""
    clock = Clock()
    monkeypatch.setattr(wait.Clock, "now", lambda _: clock.now())
    monkeypatch.setattr(wait.Clock, "sleep", lambda _, seconds: clock.sleep(seconds))
    return clock
