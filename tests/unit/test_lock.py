"""The run lock, by its real script in folders that stand for hosts."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import cast

import pytest

from provision.engine import lock
from provision.errors import ChangeFailed, Locked, PreflightFailed
from provision.inventory.resolved import Machine
from provision.ssh.session import Held, Session
from tests.unit.hosts import LocalFleet

A, B = Machine("a", where="inventory.yml:3"), Machine("b", where="inventory.yml:4")


@pytest.fixture
def fleet(tmp_path: Path) -> LocalFleet:
    return LocalFleet(tmp_path)


@pytest.mark.process
def test_held_and_free_again(fleet: LocalFleet) -> None:
    for _ in range(2):
        with lock.held(fleet, [A, B], "deploy-etcd") as still:
            still()
            text = (fleet.session(A).root / ".state/run.lock").read_text()
            assert f"(pid {os.getpid()}): deploy-etcd, since" in text
        assert (fleet.session(A).root / ".state/run.lock").read_text() == ""


@pytest.mark.process
def test_another_run_is_named_and_nothing_is_left_locked(fleet: LocalFleet, tmp_path: Path) -> None:
    other = LocalFleet(tmp_path)
    with (
        lock.held(other, [B], "destroy"),
        pytest.raises(Locked) as caught,
        lock.held(fleet, [A, B], "deploy-etcd"),
    ):
        raise AssertionError("got the lock of the other run")
    (problem,) = caught.value.problems
    assert problem.where == "b (inventory.yml:4)"
    assert "destroy, since" in problem.what
    with lock.held(LocalFleet(tmp_path), [A, B], "deploy-etcd"):
        pass


@pytest.mark.process
def test_a_run_that_ended_since_the_plan_was_made_is_noticed(
    fleet: LocalFleet, tmp_path: Path
) -> None:
    with lock.held(LocalFleet(tmp_path), [B], "destroy"):
        pass
    fleet.since -= 60  # when it began to look
    with pytest.raises(Locked) as caught, lock.held(fleet, [A, B], "deploy-etcd"):
        raise AssertionError("went on with a plan from before")
    (problem,) = caught.value.problems
    assert problem.where == "b (inventory.yml:4)"
    assert "another run ended on this host" in problem.what
    # Who looks anew may go on, and a run's own lock is no other's.
    later = LocalFleet(tmp_path)
    for _ in range(2):
        with lock.held(later, [A, B], "deploy-etcd"):
            pass


@pytest.mark.process
def test_the_last_use_does_not_depend_on_the_hosts_date(
    fleet: LocalFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for two dates at once. That of uutils' coreutils 0.0.30 takes -r FILE and answers
    with now (github.com/uutils/coreutils, issue 8621; mended by pull request 8630). busybox's has
    no %N."""
    shims = tmp_path / "shims"
    shims.mkdir()
    date = shims / "date"
    date.write_text("#!/bin/sh\necho 1700000000.%N\n")
    date.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shims}:{os.environ['PATH']}")
    for name in ("destroy", "deploy-etcd"):
        with lock.held(LocalFleet(tmp_path), [A], name):
            pass
    fleet.since -= 60
    with pytest.raises(Locked), lock.held(fleet, [A], "deploy-etcd"):
        raise AssertionError("went on with a plan from before")


@pytest.mark.process
def test_a_lock_that_an_earlier_version_used(fleet: LocalFleet) -> None:
    """It left no note: whole seconds of the file's last change count."""
    with lock.held(fleet, [A], "destroy"):
        pass
    state = fleet.session(A).root / ".state"
    (state / "run.last").unlink()
    long_ago = time.time() - 300
    os.utime(state / "run.lock", (long_ago, long_ago))
    with lock.held(fleet, [A], "deploy-etcd"):
        pass
    (state / "run.lock").write_text("")
    os.utime(state / "run.last", (long_ago, long_ago))
    with pytest.raises(Locked), lock.held(fleet, [A], "deploy-etcd"):
        raise AssertionError("went on beside an earlier version")


@pytest.mark.process
def test_a_note_that_is_no_time_is_not_taken_for_none(fleet: LocalFleet) -> None:
    with lock.held(fleet, [A], "destroy"):
        pass
    (fleet.session(A).root / ".state/run.last").write_text("never\n")
    with pytest.raises(PreflightFailed) as caught, lock.held(fleet, [A], "deploy-etcd"):
        raise AssertionError("went on")
    assert "last use of the run lock is unknown" in caught.value.problems[0].what


def test_seconds_since_the_last_use() -> None:
    assert lock._ago("") is None
    assert lock._ago("11.25 11.00") == 0.25 + lock.TICK
    assert lock._ago("11.00 11.00") == lock.TICK
    assert lock._ago("s 1700000010 1700000004") == 5
    assert lock._ago("s 1700000010 1700000010") == 0


@pytest.mark.process
def test_a_lock_lives_while_the_others_are_being_taken(
    fleet: LocalFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds take longer than one lasts without a sign of life."""
    take, beats = lock._take, threading.Semaphore(0)

    class Beaten:
        def __init__(self, handle: Held) -> None:
            self.alive, self.beat = True, beats.release
            self.release, self.close = handle.release, handle.close

    def slow(session: Session, me: str, since: float) -> Held:
        if session.machine == B:
            assert beats.acquire(timeout=10)
            assert beats.acquire(timeout=10)
        return cast(Held, Beaten(take(session, me, since)))

    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    monkeypatch.setattr(lock, "Held", Beaten)
    monkeypatch.setattr(lock, "_take", slow)
    with lock.held(fleet, [A, B], "deploy-etcd") as still:
        still()


@pytest.mark.process
def test_it_is_let_go_after_an_error(fleet: LocalFleet) -> None:
    with pytest.raises(KeyboardInterrupt), lock.held(fleet, [A], "deploy-etcd"):
        raise KeyboardInterrupt
    with lock.held(fleet, [A], "deploy-etcd"):
        pass


@pytest.mark.process
def test_a_lock_that_is_lost_is_noticed(fleet: LocalFleet) -> None:
    with lock.held(fleet, [A, B], "deploy-etcd") as still:
        still()
        fleet.session(B).held[0].release()
        with pytest.raises(ChangeFailed, match="run lock of b was lost"):
            still()


@pytest.mark.process
def test_a_holder_cannot_steer_the_terminal(fleet: LocalFleet) -> None:
    state = fleet.session(A).root / ".state"
    with lock.held(fleet, [A], "deploy-etcd"):
        (state / "run.lock").write_text("\x1b]0;owned\x07 mallory\n")
        with pytest.raises(Locked) as caught, lock.held(fleet, [A], "deploy-etcd"):
            pass
    assert caught.value.message.isprintable()
    assert "mallory" in caught.value.message


@pytest.mark.process
def test_a_host_that_cannot_lock(fleet: LocalFleet) -> None:
    (fleet.session(A).root / ".state").write_text("in the way")
    with pytest.raises(PreflightFailed) as caught, lock.held(fleet, [A], "deploy-etcd"):
        pass
    assert "cannot be taken" in caught.value.problems[0].what
