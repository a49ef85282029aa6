"""The runner: order, gates, what a failure says, and that nothing comes before the lock."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from provision import lock
from provision.artifacts import Artifact
from provision.errors import (
    ChangeFailed,
    Locked,
    PreflightFailed,
    Problem,
    ProvisionError,
    Unhealthy,
)
from provision.host.change import Change
from provision.host.resources import Tree
from provision.inventory.resolved import Machine
from provision.plan import Call, Gate, HostChanges, Plan, Step, apply, further
from provision.remote import Result
from tests.unit.hosts import LocalFleet, LocalSession

A, B = Machine("a"), Machine("b")


class Seen:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def step(self, number: int, of: int, step: Step) -> None:
        self.events.append(f"{number}/{of} {step.title}")

    def upload(self, host: HostChanges, size: int, sent: int) -> None:
        self.events.append(f"{host.name} {sent} of {size}")

    def host(self, host: HostChanges, error: ProvisionError | None) -> None:
        self.events.append(f"{host.name} {'failed' if error else 'ok'}")

    def gate(self, gate: Gate) -> None:
        self.events.append(gate.title)


@pytest.fixture
def fleet(tmp_path: Path) -> LocalFleet:
    return LocalFleet(tmp_path)


def on(machine: Machine, *scripts: str) -> HostChanges:
    todo = tuple(Change(f"do {n}", script) for n, script in enumerate(scripts))
    return HostChanges(f"infra-{machine.host}", machine, todo)


def gate(title: str, error: ProvisionError | None = None) -> Gate:
    def check() -> None:
        if error is not None:
            raise error

    return Gate(title, check)


def plan(*steps: Step, guards: tuple[Machine, ...] = ()) -> Plan:
    return Plan("deploy-etcd", "c", steps, guards=guards)


def test_steps_in_order_each_between_its_gates(fleet: LocalFleet) -> None:
    seen = Seen()
    first = Step("first", (on(A, "echo 1 >>log"),), before=gate("may it"), after=gate("is it well"))
    apply(plan(first, Step("second", (on(A, "echo 2 >>log"),))), fleet, seen)
    assert seen.events == [
        *("1/2 first", "may it", "infra-a ok", "is it well"),
        *("2/2 second", "infra-a ok"),
    ]
    assert (fleet.session(A).root / "log").read_text() == "1\n2\n"


def test_every_lock_comes_before_the_first_change(fleet: LocalFleet) -> None:
    apply(plan(Step("s", (on(A, "true"),)), guards=(A, B)), fleet)
    assert fleet.session(A).asked == ["lock", "apply"]
    assert fleet.session(B).asked == ["lock"]


def test_without_the_lock_nothing_is_changed(fleet: LocalFleet, tmp_path: Path) -> None:
    with lock.held(LocalFleet(tmp_path), [B], "destroy"), pytest.raises(Locked):
        apply(plan(Step("s", (on(A, "touch x"), on(B, "touch x")))), fleet)
    assert not (fleet.session(A).root / "x").exists()


def test_a_lock_that_is_lost_stops_before_the_next_step(fleet: LocalFleet) -> None:
    def lose() -> None:
        fleet.session(A).held[0].release()

    steps = Step("one", (on(A, "true"),), after=Gate("g", lose)), Step("two", (on(A, "touch x"),))
    with pytest.raises(ChangeFailed, match="run lock of a was lost"):
        apply(plan(*steps), fleet)
    assert not (fleet.session(A).root / "x").exists()


def test_a_failure_says_what_was_not_begun(fleet: LocalFleet) -> None:
    later = Step("rest", (on(A, "true"), on(B, "true"))), Step("end", (on(B, "true"),))
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(Step("one", (on(A, "true"),), after=gate("g", Unhealthy("x"))), *later), fleet)
    assert str(caught.value.problems[-1]) == "not begun: rest (infra-a, infra-b); end"
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(Step("one", (on(A, "false"),)), *later[1:]), fleet)
    assert str(caught.value.problems[-1]) == "not begun: end"


def test_a_plan_without_steps_asks_nothing(fleet: LocalFleet) -> None:
    apply(plan(guards=(A,)), fleet)
    assert fleet.local == {}


def test_a_failure_says_where_what_and_why(fleet: LocalFleet) -> None:
    bad = on(
        A, "true", "printf 'no \\033[31mroom\\nNo space left on device' >&2; exit 9", "touch c"
    )
    with pytest.raises(ChangeFailed) as caught:
        apply(
            plan(Step("one", (bad, on(B, "touch done"))), Step("two", (on(B, "touch two"),))), fleet
        )
    error = caught.value
    assert error.exit_code == 4
    assert error.message.startswith("stopped in step 1 of 2 (one): 1 of 2 hosts failed")
    assert "run the same command again" in error.message
    problem, later = error.problems
    assert str(later) == "not begun: two"
    assert problem.where == "infra-a (a)"
    assert problem.what.startswith("do 1 failed: no \ufffd[31mroom")
    assert "free space" in problem.remedy
    assert not (fleet.session(A).root / "c").exists()
    # The other host of the same step is done; the next step has not begun.
    assert (fleet.session(B).root / "done").exists()
    assert not (fleet.session(B).root / "two").exists()


def test_a_gate_before_anything_was_changed_keeps_its_own_code(fleet: LocalFleet) -> None:
    step = Step("s", (on(A, "touch x"),), before=gate("g", PreflightFailed("not now")))
    with pytest.raises(PreflightFailed, match="not now"):
        apply(plan(step), fleet)
    assert not (fleet.session(A).root / "x").exists()


@pytest.mark.parametrize("where", ["after", "before"])
def test_a_gate_later_on_is_a_change_that_failed(fleet: LocalFleet, where: str) -> None:
    bad = gate("g", Unhealthy("2 of 3 members are healthy"))
    steps = [
        Step("one", (on(A, "true"),), after=bad if where == "after" else None),
        Step("two", (on(A, "touch two"),), before=bad),
    ]
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(*steps), fleet)
    step = "step 1 of 2 (one)" if where == "after" else "step 2 of 2 (two)"
    assert caught.value.message.startswith(f"stopped {where} {step}: 2 of 3 members")
    assert not (fleet.session(A).root / "two").exists()


def test_calls_follow_the_hosts_and_stop_the_run_when_they_fail(fleet: LocalFleet) -> None:
    done: list[str] = []

    def fail() -> None:
        raise Unhealthy("refused")

    calls = (Call("add", lambda: done.append("add")), Call("promote", fail))
    step = Step("s", (on(A, "touch x"),), calls)
    assert step.changed == 3
    with pytest.raises(ChangeFailed, match=r"promote: refused"):
        apply(plan(step, Step("t", (on(A, "touch y"),))), fleet)
    assert done == ["add"]
    assert (fleet.session(A).root / "x").exists()
    assert not (fleet.session(A).root / "y").exists()


def test_at_once_bounds_the_hosts(fleet: LocalFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    busy, most, guard = 0, 0, threading.Lock()
    run = LocalSession.run

    def counting(self: LocalSession, script: str, what: str, *, timeout: float) -> Result:
        nonlocal busy, most
        with guard:
            busy += 1
            most = max(most, busy)
        try:
            return run(self, script, what, timeout=timeout)
        finally:
            with guard:
                busy -= 1

    monkeypatch.setattr(LocalSession, "run", counting)
    machines = [Machine(f"m{n}") for n in range(6)]
    apply(plan(Step("s", tuple(on(m, "true") for m in machines), at_once=2)), fleet)
    assert 1 <= most <= 2


def test_an_upload_whose_file_has_gone(fleet: LocalFleet) -> None:
    tree = Tree("/opt/x", Artifact(Path("/nowhere.tar.gz"), "0" * 64, 1))
    step = Step("s", (HostChanges("w", A, (Change("install", upload=tree),)),))
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(step), fleet)
    assert "/nowhere.tar.gz cannot be read: No such file" in caught.value.problems[0].what


def test_the_document() -> None:
    shown = plan(Step("one", (on(A, "x", "y"),), after=gate("well"))).document()
    assert shown["changed"] == 2
    assert shown["schema"] == "alluxio-provision/plan/1"
    assert "script" not in str(shown)


def test_what_comes_after_a_change_does_not_say_that_nothing_was_changed() -> None:
    problem = Problem("b", "its disk is full", "free space")
    with pytest.raises(ChangeFailed) as caught, further("b joins again"):
        raise PreflightFailed("preflight failed; nothing was changed", [problem])
    assert caught.value.exit_code == 4
    assert caught.value.problems == (problem,)
    assert caught.value.message == (
        "stopped before b joins again: preflight failed; put it right and run the same command "
        "again"
    )
