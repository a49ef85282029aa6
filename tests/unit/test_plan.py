"""The runner: order, gates, what a failure says, and that nothing comes before the lock."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from provision import artifacts, tar_reader
from provision.artifacts import Artifact
from provision.engine import audit, lock
from provision.engine.plan import (
    NOT_BEGUN,
    Action,
    Gate,
    HostChanges,
    Plan,
    Step,
    apply,
    further,
)
from provision.errors import (
    ChangeFailed,
    Locked,
    PreflightFailed,
    Problem,
    ProvisionError,
    Unhealthy,
)
from provision.host.diff import BATCH_LOCK_SECONDS, Change
from provision.host.resources import Tree
from provision.inventory.resolved import Machine
from provision.ssh.session import Result
from tests.unit.hosts import LocalFleet, LocalSession, tarball

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
        self.events.append(f"{host.name} {error or 'ok'}")

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


@pytest.mark.process
def test_steps_in_order_each_between_its_gates(fleet: LocalFleet) -> None:
    seen = Seen()
    first = Step("first", (on(A, "echo 1 >>log"),), before=gate("may it"), after=gate("is it well"))
    apply(plan(first, Step("second", (on(A, "echo 2 >>log"),))), fleet, seen)
    assert seen.events == [
        *("1/2 first", "may it", "infra-a ok", "is it well"),
        *("2/2 second", "infra-a ok"),
    ]
    assert (fleet.session(A).root / "log").read_text() == "1\n2\n"


@pytest.mark.process
def test_every_lock_comes_before_the_first_change(fleet: LocalFleet) -> None:
    apply(plan(Step("s", (on(A, "true"),)), guards=(A, B)), fleet)
    assert fleet.session(A).asked == ["lock", "apply"]
    assert fleet.session(B).asked == ["lock"]


@pytest.mark.process
def test_without_the_lock_nothing_is_changed(fleet: LocalFleet, tmp_path: Path) -> None:
    with lock.held(LocalFleet(tmp_path), [B], "destroy"), pytest.raises(Locked):
        apply(plan(Step("s", (on(A, "touch x"), on(B, "touch x")))), fleet)
    assert not (fleet.session(A).root / "x").exists()


@pytest.mark.process
def test_a_lock_that_is_lost_stops_before_the_next_step(fleet: LocalFleet) -> None:
    def lose() -> None:
        fleet.session(A).held[0].release()

    steps = Step("one", (on(A, "true"),), after=Gate("g", lose)), Step("two", (on(A, "touch x"),))
    with pytest.raises(ChangeFailed, match="run lock of a was lost"):
        apply(plan(*steps), fleet)
    assert not (fleet.session(A).root / "x").exists()


@pytest.mark.process
def test_a_failure_says_what_was_not_begun(fleet: LocalFleet) -> None:
    later = Step("rest", (on(A, "true"), on(B, "true"))), Step("end", (on(B, "true"),))
    with pytest.raises(ChangeFailed) as caught:
        apply(
            plan(
                Step("one", (on(A, "true"),), after=gate("g", Unhealthy("x", id="member-down"))),
                *later,
            ),
            fleet,
        )
    assert str(caught.value.problems[-1]) == "not begun: rest (infra-a, infra-b); end"
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(Step("one", (on(A, "false"),)), *later[1:]), fleet)
    assert str(caught.value.problems[-1]) == "not begun: end"
    assert caught.value.problems[-1].severity == "warning"


@pytest.mark.process
@pytest.mark.parametrize("more", [0, 1, 2])
def test_of_much_that_was_not_begun_the_first_is_named(fleet: LocalFleet, more: int) -> None:
    named = ", ".join(f"infra-m{n}" for n in range(NOT_BEGUN))
    wide = Step("wide", tuple(on(Machine(f"m{n}"), "true") for n in range(NOT_BEGUN + more)))
    steps = [Step(f"s{n}") for n in range(NOT_BEGUN - 1 + more)]
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(Step("one", (on(A, "false"),)), wide, *steps), fleet)
    first, *others = caught.value.problems[-1].what.split("; ")
    assert first == f"wide ({named}{', ...' if more else ''})"
    shown = [f"s{n}" for n in range(NOT_BEGUN - 1)]
    assert others == shown + ([f"and {more} more step{'s' * (more > 1)}"] if more else [])


def test_a_plan_without_steps_asks_nothing(fleet: LocalFleet) -> None:
    apply(plan(guards=(A,)), fleet)
    assert fleet.local == {}


@pytest.mark.process
def test_the_lock_says_who_holds_it(fleet: LocalFleet) -> None:
    apply(plan(Step("s", (on(A, "cat /run/alluxio-provision/run.lock >seen"),))), fleet)
    assert "): deploy-etcd, since 2" in (fleet.session(A).root / "seen").read_text()


@pytest.mark.process
def test_every_host_and_every_call_is_in_the_audit_log(
    fleet: LocalFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def fail() -> None:
        raise Unhealthy("refused", id="member-down")

    calls = Action("add", lambda: None), Action("promote", fail)
    with pytest.raises(ChangeFailed):
        apply(plan(Step("s", (on(A, "true", "true"),), calls)), fleet)
    with pytest.raises(ChangeFailed):
        apply(plan(Step("s", (on(B, "true", "false"),))), fleet)
    here = [(e.command, e.cluster, e.name, e.changes, e.result) for e in audit.read_local(9)]
    assert here == [
        ("deploy-etcd", "c", "infra-a", ("do 0", "do 1"), "ok"),
        ("deploy-etcd", "c", "etcd", ("add",), "ok"),
        ("deploy-etcd", "c", "etcd", ("promote",), "failed"),
        ("deploy-etcd", "c", "infra-b", ("do 0", "do 1"), "failed"),
    ]
    for machine, done, result in (A, 2, "ok"), (B, 1, "failed"):
        log = (fleet.session(machine).root / ".log" / "audit.log").read_text().splitlines()
        (there,) = audit.parse(log)
        assert (there.command, there.cluster) == ("deploy-etcd", "c")
        assert (there.name, there.changes) == (f"infra-{machine.host}", ("do 0", "do 1"))
        assert (there.done, there.result) == (done, result)


@pytest.mark.process
@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("mkdir: cannot create directory 'a': No space left on device", "inodes (df -i)"),
        ("dd: error writing 'a': Disk quota exceeded", "raise the quota"),
    ],
)
def test_what_does_not_fit_is_a_full_disk(fleet: LocalFleet, said: str, remedy: str) -> None:
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(Step("one", (on(A, f'echo "{said}" >&2; exit 1'),))), fleet)
    (problem,) = [p for p in caught.value.problems if p.where]
    assert problem.id == "disk-full"
    assert remedy in problem.remedy


@pytest.mark.process
def test_a_failure_says_where_what_and_why(fleet: LocalFleet) -> None:
    bad = on(
        A, "true", "printf 'no \\033[31mroom\\nNo space left on device' >&2; exit 9", "touch c"
    )
    seen = Seen()
    steps = Step("one", (bad, on(B, "touch done"))), Step("two", (on(B, "touch two"),))
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(*steps), fleet, seen)
    error = caught.value
    assert error.exit_code == 4
    assert error.message.startswith("stopped in step 1 of 2 (one): 1 of 2 hosts failed")
    assert error.message.endswith("begun; solve the problem, then run the same command again")
    assert sorted(seen.events[1:]) == ["infra-a infra-a at a: do 1 failed", "infra-b ok"]
    problem, later = error.problems
    assert str(later) == "not begun: two"
    assert problem.where == "infra-a at a"
    assert problem.what == "do 1 failed: no \ufffd[31mroom\n    No space left on device"
    assert problem.remedy == "free space there (df -h) or inodes (df -i), then run again"
    assert not (fleet.session(A).root / "c").exists()
    # The other host of the same step is done; the next step has not begun.
    assert (fleet.session(B).root / "done").exists()
    assert not (fleet.session(B).root / "two").exists()


@pytest.mark.process
def test_of_what_a_host_says_the_end_is_shown(fleet: LocalFleet) -> None:
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(Step("s", (on(A, "seq 20 >&2; false"), on(B, "exit 7")))), fleet)
    of_a, of_b = caught.value.problems
    assert of_a.what == "do 0 failed: " + "\n    ".join(map(str, range(9, 21)))
    assert of_a.remedy == ""
    assert of_b.what == "do 0 failed: exit code 7"


@pytest.mark.process
@pytest.mark.parametrize("more", ["", "@@done 1\\n@@answered 1\\n"])
def test_a_host_that_says_that_more_is_done_than_was_asked(fleet: LocalFleet, more: str) -> None:
    lie = f"printf '@@done 0\\n@@answered 0\\n{more}'; exit 1"
    asks = Change("sign", ask=f"({lie})", answer=lambda said: said)
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(Step("s", (on(A, lie), HostChanges("w", B, (asks,))))), fleet)
    assert [p.what for p in caught.value.problems] == [
        "apply failed: exit code 1",
        "ask failed: exit code 1",
    ]


@pytest.mark.process
def test_a_gate_before_anything_was_changed_keeps_its_own_code(fleet: LocalFleet) -> None:
    step = Step(
        "s",
        (on(A, "touch x"),),
        before=gate("g", PreflightFailed("not now", id="preflight-failed")),
    )
    with pytest.raises(PreflightFailed, match="not now"):
        apply(plan(step), fleet)
    assert not (fleet.session(A).root / "x").exists()


@pytest.mark.process
@pytest.mark.parametrize("where", ["after", "before"])
def test_a_gate_later_on_is_a_change_that_failed(fleet: LocalFleet, where: str) -> None:
    why = Problem("infra1", "no space", id="disk-full")
    bad = gate("g", Unhealthy("2 of 3 members are healthy", [why], id="member-down"))
    steps = [
        Step("one", (on(A, "true"),), after=bad if where == "after" else None),
        Step("two", (on(A, "touch two"),), before=bad),
    ]
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(*steps), fleet)
    step = "step 1 of 2 (one)" if where == "after" else "step 2 of 2 (two)"
    assert caught.value.message.startswith(f"stopped {where} {step}: 2 of 3 members")
    assert caught.value.problems[0] == why
    assert not (fleet.session(A).root / "two").exists()


@pytest.mark.process
def test_calls_follow_the_hosts_and_stop_the_run_when_they_fail(fleet: LocalFleet) -> None:
    done: list[str] = []

    def fail() -> None:
        raise Unhealthy("refused", [why], id="member-down")

    why = Problem("infra1", "no leader", id="disk-full")
    calls = (Action("add", lambda: done.append("add")), Action("promote", fail))
    step = Step("s", (on(A, "touch x"),), calls)
    assert step.changed == 3
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(step, Step("t", (on(A, "touch y"),))), fleet)
    assert caught.value.message == (
        "stopped in step 1 of 2 (s): promote: refused; solve the problem, then run the same "
        "command again"
    )
    assert caught.value.problems[0] == why
    assert done == ["add"]
    assert (fleet.session(A).root / "x").exists()
    assert not (fleet.session(A).root / "y").exists()


@pytest.mark.process
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


@pytest.mark.process
def test_uploads_come_before_the_batch(
    fleet: LocalFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Sent as a tarball of 50 MB, for which a host gets ten seconds more.
    artifact = replace(tarball(tmp_path), size=50_000_000, seen=tar_reader.Seen(unpacked=7))
    cache = artifacts.default_cache()
    assert tar_reader.kept(cache, artifact.sha256) is None
    sent = artifact.path.stat().st_size
    todo = Change("note", "cat 1/bin/tool >note"), Change("install", upload=Tree("1", artifact))
    seen = Seen()
    apply(plan(Step("s", (HostChanges("w", A, todo),))), fleet, seen)
    assert (fleet.session(A).root / "note").read_text() == "hello"
    assert fleet.session(A).asked == ["lock", "upload r.tar.gz", "apply"]
    assert fleet.session(A).given == [120 + 10, 60 + BATCH_LOCK_SECONDS + 60]
    assert seen.events == ["1/1 s", f"w {sent} of 50000000", "w ok"]
    assert tar_reader.kept(cache, artifact.sha256) == tar_reader.Seen(unpacked=7)


@pytest.mark.process
def test_an_upload_that_fails(fleet: LocalFleet, tmp_path: Path) -> None:
    """That the batch has not begun is why nothing but the upload is named."""
    tree = Tree("1", replace(tarball(tmp_path), sha256="0" * 64))
    todo = Change("note", "touch note"), Change("install", upload=tree)
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(Step("s", (HostChanges("w", A, todo),))), fleet)
    assert (
        str(caught.value.problems[0]) == "w at a: install failed: sha256 differs after the upload"
    )
    assert not (fleet.session(A).root / "note").exists()


@pytest.mark.process
def test_an_upload_whose_file_has_gone(fleet: LocalFleet) -> None:
    tree = Tree("/opt/x", Artifact(Path("/nowhere.tar.gz"), "0" * 64, 1))
    step = Step("s", (HostChanges("w", A, (Change("install", upload=tree),)),))
    seen = Seen()
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(step), fleet, seen)
    said = "w at a: /nowhere.tar.gz cannot be read: No such file or directory"
    assert str(caught.value.problems[0]) == said
    assert seen.events[1:] == [f"w {said}"]


@pytest.mark.process
def test_what_a_change_asks_comes_before_the_batch(fleet: LocalFleet) -> None:
    def asks(what: str, question: str) -> Change:
        return Change(what, ask=question, answer=lambda said: f"echo {what} {said.strip()} >>log")

    todo = asks("one", "echo 1"), Change("plain", "echo plain >>log"), asks("two", "echo 2")
    apply(plan(Step("s", (HostChanges("w", A, todo),))), fleet)
    assert (fleet.session(A).root / "log").read_text() == "one 1\nplain\ntwo 2\n"
    assert fleet.session(A).asked == ["lock", "ask", "apply"]
    bad = todo[0], asks("sign", "echo no key >&2; false"), asks("three", "true")
    with pytest.raises(ChangeFailed) as caught:
        apply(plan(Step("s", (HostChanges("w", B, bad),))), fleet)
    assert str(caught.value.problems[0]) == "w at b: sign failed: no key"
    assert not (fleet.session(B).root / "log").exists()


def test_the_document() -> None:
    changes = Change("write /x", "secret script", "-a\n+b\n"), Change("start y")
    shown = Plan(
        "deploy-etcd",
        "c",
        (
            Step("one", (HostChanges("infra0", A, changes),), after=gate("well")),
            Step("two", (), (Action("add", lambda: None),)),
        ),
        notes=(Problem("infra1", "is old", "upgrade it", "warning", id="disk-full"),),
    ).document()
    assert shown == {
        "schema": "alluxio-provision/plan/1",
        "command": "deploy-etcd",
        "cluster": "c",
        "changed": 3,
        "notes": [Problem("infra1", "is old", "upgrade it", "warning", id="disk-full").document()],
        "affected": [],
        "steps": [
            {
                "title": "one",
                "gate": "well",
                "calls": [],
                "hosts": [
                    {
                        "name": "infra0",
                        "host": "a",
                        "changes": [
                            {"what": "write /x", "diff": "-a\n+b\n"},
                            {"what": "start y", "diff": ""},
                        ],
                    }
                ],
            },
            {"title": "two", "gate": None, "calls": ["add"], "hosts": []},
        ],
    }


def test_an_error_after_a_change_is_a_failed_change() -> None:
    problem = Problem("b", "its disk is full", "free space", id="disk-full")
    with pytest.raises(ChangeFailed) as caught, further("b joins again"):
        raise PreflightFailed("preflight failed", [problem], id="preflight-failed")
    assert caught.value.exit_code == 4
    assert caught.value.problems == (problem,)
    assert caught.value.message == (
        "stopped before b joins again: preflight failed; solve the problem, then run the same "
        "command again"
    )
