"""Every operation with every fault at every one of its steps, and what became of each case.

``python -m tests.faults.run`` needs the lab's hosts etcd0 to etcd3 to be up, and root for the
slow link. It writes the results after each case, so a run that is cut off has still measured;
``--merge`` goes on with the cases that the results do not have.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..integration.lab import Done, Host, connected
from .checker import Verdict, checking
from .faults import FAULTS, NONE, Fault, Scene, heal, small_data_disk
from .operations import LOGIN, NEW, OPERATIONS, PROGRESS, STEP, Bed, Command, Operation

RESULTS = Path(__file__).parent / "results.json"
SCHEMA = "alluxio-provision/faults/1"
#: Exit codes of a command that did not do all that it was to, and says what to do.
STOPPED = (1, 3, 4, 5)
SAYS = re.compile(
    r"run (the same command|it|the command) again|run again|then run|run invoke|invoke [a-z]+-"
    r"|nothing was changed|wait until|free space|start the members"
)
#: How often the same command is run again, and seconds in between: a killed member is back in 2 s.
AGAIN, PAUSE = 4, 3.0
#: Seconds that the checker has before and after the command.
AROUND = 0.5
#: Every step is tried with these; with the others, the steps that :func:`plan` chooses.
AT_EACH_STEP = ("kill-leader", "kill-follower")
CONTROL_AT_EACH = ("add-member", "replace-member", "upgrade-etcd", "restore-etcd")
RESTARTING = ("rolling-change", "upgrade-etcd", "rotate-ca", "peer-tls-on")


class Failed(AssertionError):
    """A case that shows a defect."""


class NoSuchMoment(Exception):
    """This time, the run had fewer steps and has done all it was to."""


@dataclass
class Case:
    """One operation with one fault at one moment (from 1; 0: the whole run)."""

    operation: Operation
    fault: Fault
    moment: int = 0
    step: str = ""
    codes: list[int] = field(default_factory=list)
    outcome: str = ""
    fell_on: str = ""
    seconds: float = 0.0
    said: str = ""
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def key(self) -> tuple[str, str, int]:
        return self.operation.name, self.fault.name, self.moment

    def document(self) -> dict[str, Any]:
        return {
            "operation": self.operation.name,
            "fault": self.fault.name,
            "moment": self.moment,
            "step": self.step,
            "fell_on": self.fell_on,
            "outcome": self.outcome,
            "exit_codes": self.codes,
            **self.verdict.document(),
            "seconds": round(self.seconds, 1),
            "said": self.said,
            "commit": commit(),
        }


def run_case(bed: Bed, case: Case) -> list[str]:
    """One case from beginning to end. Returns the operation's moments, as its lines say them.

    Raises :class:`Failed`, or what the lab raises, when something is not as it must be.
    """
    operation, fault = case.operation, case.fault
    prefix = f"/faults/{bed.number()}/"
    with contextlib.ExitStack() as stack:
        stack.callback(heal, bed.lab.etcd)
        hosts = operation.members(bed)
        if fault.name == "full-disk":
            bed.reset()
            stack.callback(bed.reset)
            stack.enter_context(small_data_disk(hosts[-1]))
        operation.prepare(bed)
        before, state = bed.state, operation.leaves
        bed.state = None  # until this case has ended well
        if operation.anew:
            with checking(bed.hosts, prefix, LOGIN) as case.verdict:
                time.sleep(2 * AROUND)
            command = operation.command(bed)
            done = _run(bed, case, command, hosts)
            heal(bed.lab.etcd)
        else:
            command = operation.command(bed)
            with checking(_all(bed), prefix, LOGIN) as case.verdict:
                time.sleep(AROUND)
                try:
                    done = _run(bed, case, command, hosts)
                finally:
                    heal(bed.lab.etcd)
                bed.require(hosts)
                time.sleep(AROUND)
        bed.require(hosts)
        if operation.anew:
            case.verdict.look()
        _require_declared(bed, operation, command)
        if case.verdict.lost or case.verdict.stale:
            raise Failed("; ".join(case.verdict.examples))
        if fault.name != "full-disk":
            bed.state = (state,) if state else before
    return moments(operation, done)


def _all(bed: Bed) -> Sequence[Host]:
    return [*bed.hosts, bed.extra] if bed.extra is not None else bed.hosts


def _run(bed: Bed, case: Case, command: Command, hosts: Sequence[Host]) -> Done:
    """The command with the fault, and then again until it has done all that it is to."""
    scene = Scene(hosts)
    if case.fault.whole:
        case.fell_on = case.fault.inject(scene)
    started = time.monotonic()
    scene.running = bed.lab.start(command.task, command.inventory, *command.options)
    if not case.fault.whole:
        try:
            line = scene.running.wait_for(case.operation.moments, case.moment)
        except AssertionError:
            if scene.running.finish().code == 0:
                raise NoSuchMoment from None
            raise
        case.step = scene.step = title(case.operation, line)
        case.fell_on = case.fault.inject(scene)
    first = done = scene.running.finish(timeout=400)
    case.seconds = time.monotonic() - started
    case.codes.append(done.code)
    if case.fault is NONE:
        done.expect(0)
    killed = case.fault.name == "kill-control"
    if done.code and not killed:
        _require_said(case, done)
    if case.fault.whole or case.fault.lasting:
        heal(bed.lab.etcd)
    while done.code:
        if len(case.codes) > AGAIN:
            raise Failed(f"run {len(case.codes)} times, and still:\n{done.text}")
        if len(case.codes) > 1:
            time.sleep(PAUSE)
        done = bed.lab.invoke(command.task, command.inventory, *command.options)
        case.codes.append(done.code)
        if done.code:
            _require_said(case, done)
    runs = len(case.codes)
    if killed:
        case.outcome = "killed, finished when run again"
    elif runs == 1:
        case.outcome = "went through"
    else:
        case.outcome = "stopped and said so, finished when run again"
    if runs > 2:
        case.outcome += f" ({runs - 1} times)"
    return first


def _require_said(case: Case, done: Done) -> None:
    """A command that has not done all of it must have said so, and what to do."""
    if "Traceback" in done.text:
        raise Failed(f"a traceback:\n{done.text}")
    if done.code not in STOPPED:
        raise Failed(f"exit code {done.code}:\n{done.text}")
    if not SAYS.search(done.stderr):
        raise Failed(f"exit code {done.code}, and it does not say what to do:\n{done.text}")
    lines = [line for line in done.stderr.splitlines() if not re.match(r" *[0-9.]+ s ", line)]
    case.said = case.said or "\n".join(lines[-8:])


def _require_declared(bed: Bed, operation: Operation, command: Command) -> None:
    inventory = operation.after(bed) if operation.after is not None else command.inventory
    seen = bed.lab.invoke("deploy-etcd", inventory, "--dry-run", "--format", "json").expect(0)
    if seen.json["would_change"]:
        raise Failed(f"not as declared afterwards:\n{seen.text}")


def moments(operation: Operation, done: Done) -> list[str]:
    """What the operation says at each of its moments."""
    lines = done.stderr.splitlines()
    return [title(operation, line) for line in lines if re.search(operation.moments, line)]


def title(operation: Operation, line: str) -> str:
    found = re.search(operation.moments, line)
    assert found is not None, line
    return found[3] if operation.moments == STEP else found[1]


def plan(operation: Operation, steps: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Which faults at which moments, the most telling first."""
    each = range(1, len(steps) + 1)
    last, middle = len(steps), (len(steps) + 1) // 2
    for number in each:
        if operation.name in CONTROL_AT_EACH:
            yield "kill-control", number
        yield AT_EACH_STEP[number % 2], number
    early = 1 if operation.moments == PROGRESS else middle
    yield "full-disk", early
    yield "slow-link", 0
    if operation.name == "add-member":
        yield "cut-off", last
    yield "partition", middle
    yield "ssh-short", last
    yield "ssh-long", early
    if operation.name not in CONTROL_AT_EACH:
        for number in each:
            yield "kill-control", number
    for number in each:
        yield AT_EACH_STEP[(number + 1) % 2], number
    for number in each:
        if number != middle and operation.name in RESTARTING:
            yield "partition", number


class Results:
    """The results' file."""

    def __init__(self, path: Path, merge: bool) -> None:
        self.path = path
        self.cases: list[dict[str, Any]] = []
        self.steps: dict[str, list[str]] = {}
        if merge and path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            self.cases, self.steps = found["cases"], found["steps"]

    def has(self, key: tuple[str, str, int]) -> bool:
        return any(self._key(c) == key for c in self.cases if c["outcome"] != "FAILED")

    def add(self, case: Case) -> None:
        self.cases = [c for c in self.cases if self._key(c) != case.key]
        self.cases.append(case.document())
        document = {
            "schema": SCHEMA,
            "when": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": machine(),
            "steps": self.steps,
            "cases": self.cases,
        }
        self.path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def _key(case: dict[str, Any]) -> tuple[str, str, int]:
        return case["operation"], case["fault"], case["moment"]


def machine() -> dict[str, str]:
    """What was measured on."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "cpu": f"{os.cpu_count()} cores" + (f" ({cpu[1]})" if cpu else ""),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "etcd": NEW,
    }


@functools.cache
def commit() -> str:
    """The source that runs, with a plus sign when it differs from what was committed."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    return done.stdout.strip()


def attempt(bed: Bed, case: Case, results: Results) -> list[str]:
    """A case whose failure is a result, too."""
    begun = time.monotonic()
    steps: list[str] = []
    try:
        steps = run_case(bed, case)
    except NoSuchMoment:
        bed.state = None
        return steps
    except (AssertionError, subprocess.SubprocessError, OSError) as error:
        case.outcome, case.said = "FAILED", f"{type(error).__name__}: {error}"[-6000:]
        bed.state = None
    if case.fault is NONE and steps:
        results.steps[case.operation.name] = steps
    results.add(case)
    v = case.verdict
    print(
        f"{case.operation.name} / {case.fault.name} {case.moment} ({case.step}): {case.outcome} "
        f"{case.codes} {case.seconds:.1f} s, {v.acknowledged} writes, {v.lost} lost, "
        f"{v.reads} reads, {v.stale} stale, pause {v.pause:.1f} s; "
        f"all {time.monotonic() - begun:.1f} s",
        flush=True,
    )
    if case.outcome == "FAILED":
        print(case.said, flush=True)
    return steps


@contextlib.contextmanager
def bed_of(count: int) -> Iterator[Bed]:
    """A cluster of so many members, with one host more."""
    with tempfile.TemporaryDirectory(prefix="alxp-faults-") as folder:
        names = [f"etcd{n}" for n in range(count + 1)]
        with connected(names, Path(folder)) as lab:
            yield Bed(lab, count, Path(folder))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.faults.run", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--merge", action="store_true", help="keep the results that are there")
    parser.add_argument("--operations", default="", help="names, separated by commas")
    parser.add_argument("--faults", default="", help="names, separated by commas")
    parser.add_argument("--moments", default="", help="numbers, separated by commas")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no case later")
    parser.add_argument("--at-most", type=int, default=10**6, help="faults for each operation")
    given = parser.parse_args(arguments)
    operations = [
        o for o in OPERATIONS if not given.operations or o.name in given.operations.split(",")
    ]
    deadline = time.monotonic() + given.minutes * 60
    results = Results(given.results, given.merge)
    with bed_of(3) as bed:
        for operation in operations:
            _operation(bed, operation, results, deadline, given)
    failed = [c for c in results.cases if c["outcome"] == "FAILED"]
    print(f"{len(results.cases)} cases, {len(failed)} failed")
    return 1 if failed else 0


def _operation(
    bed: Bed, operation: Operation, results: Results, deadline: float, given: argparse.Namespace
) -> None:
    if time.monotonic() > deadline:
        return
    if not results.has((operation.name, NONE.name, 0)):
        attempt(bed, Case(operation, NONE), results)
    steps = results.steps.get(operation.name, [])
    begun = 0
    for name, moment in plan(operation, steps):
        if given.faults and name not in given.faults.split(","):
            continue
        if given.moments and str(moment) not in given.moments.split(","):
            continue
        if results.has((operation.name, name, moment)):
            continue
        if time.monotonic() > deadline or begun >= given.at_most:
            return
        begun += 1
        attempt(bed, Case(operation, FAULTS[name], moment), results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
