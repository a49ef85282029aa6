"""Who notices a plan: each service that is stopped, how many at a time, for how long."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from provision.engine.affected import SHOWN, Affected, affected
from provision.engine.plan import Gate, HostChanges, Plan, Step
from provision.host import unit_changes
from provision.host.diff import Change, changes
from provision.host.facts import UnitState
from provision.host.kinds.trees import Move
from provision.host.kinds.units import Unit
from provision.inventory.resolved import EtcdMember, Machine
from tests.unit import builders, hosts

ETCD, WORKER = "etcd.service", "alluxio-worker.service"
STOP = Change("stop", stops=(ETCD,), seconds=90)
START = Change("start", starts=(ETCD,), seconds=30)
RESTART = Change("restart", stops=(ETCD,), starts=(ETCD,), seconds=80)
SWAP = Change("swap", seconds=7)


def on(*names: str, changes: Sequence[Change], at_once: int | None = None) -> Step:
    member: EtcdMember = builders.member(1)
    found = tuple(HostChanges(name, member.machine, tuple(changes)) for name in names)
    return Step("step", found, at_once=at_once)


def lines(*steps: Step) -> list[str]:
    return [a.line for a in affected(steps)]


def test_one_by_one() -> None:
    assert lines(*(on(n, changes=[SWAP, RESTART]) for n in ("a", "b", "c"))) == [
        "restarts etcd on a, b, c, one at a time, each for at most 80 s"
    ]
    assert lines(on("a", changes=[RESTART])) == ["restarts etcd on a, for at most 80 s"]


def test_all_together_means_that_nobody_serves() -> None:
    assert lines(on("a", "b", changes=[RESTART])) == [
        "restarts etcd on a, b, all together, for at most 80 s; "
        "no member serves workers and clients meanwhile"
    ]
    assert lines(on("a", "b", changes=[RESTART], at_once=1)) == [
        "restarts etcd on a, b, one at a time, each for at most 80 s"
    ]
    worker = Change("restart", stops=(WORKER,), starts=(WORKER,), seconds=5)
    assert lines(on("a", "b", "c", changes=[worker], at_once=2)) == [
        "restarts alluxio-worker on a, b, c, at most 2 at a time, each for at most 5 s"
    ]


NOBODY = "; no member serves workers and clients meanwhile"


def test_an_only_member_is_missed_by_everybody() -> None:
    """So is one of two: the other one has no majority."""
    alone, each = on("a", changes=[RESTART]), [on(n, changes=[RESTART]) for n in "ab"]

    def said(members: int, *steps: Step) -> str:
        (found,) = affected(steps, members)
        assert found.document()["outage"] is found.line.endswith(NOBODY)
        return found.line

    assert said(1, alone) == f"restarts etcd on a, for at most 80 s{NOBODY}"
    assert said(2, alone) == f"restarts etcd on a, for at most 80 s{NOBODY}"
    assert said(3, alone) == "restarts etcd on a, for at most 80 s"
    one_by_one = "restarts etcd on a, b, one at a time, each for at most 80 s"
    assert said(2, *each) == f"{one_by_one}{NOBODY}"
    assert said(3, *each) == one_by_one
    both = on("a", "b", changes=[RESTART])
    assert said(3, both).endswith(NOBODY)
    assert not said(5, both).endswith(NOBODY)
    # What is only stopped serves nobody anyway; workers need no majority.
    (stopped,) = affected([on("a", changes=[STOP])], 1)
    assert not stopped.outage
    worker = Change("restart", stops=(WORKER,), starts=(WORKER,), seconds=5)
    assert not affected([on("a", "b", changes=[worker])], 2)[0].outage


def test_a_plan_knows_its_members_by_its_locks() -> None:
    machines = [Machine(n) for n in "abc"]
    step = on("a", changes=[RESTART])
    for count, outage in ((1, True), (3, False)):
        plan = Plan("x", "c", (step,), guards=tuple(machines[:count]))
        assert [a.outage for a in plan.affected] == [outage]


def test_what_is_stopped_in_one_step_and_started_in_a_later_one() -> None:
    steps = [
        on("a", "b", changes=[STOP]),
        on("a", "b", changes=[SWAP]),
        on("a", changes=[START]),
        on("c", changes=[SWAP, START]),
    ]
    assert affected(steps) == (
        Affected(ETCD, ("a",), True, 1, 90 + 7 + 30),
        Affected(ETCD, ("b",), False, 1, 0),
    )
    assert lines(*steps)[1] == "stops etcd on b"
    # Away since an earlier step counts as away at the same time.
    one_by_one = [on("a", changes=[STOP]), on("b", changes=[STOP]), on("a", "b", changes=[START])]
    assert [a.at_once for a in affected(one_by_one)] == [2]


def test_until_it_serves_again_it_is_away() -> None:
    """systemd has started a worker of Alluxio 313 some 40 s before its ports answer: it joins, and
    only then its web server starts (class ``AlluxioWorkerProcess``)."""
    serves = Gate("ready", lambda: None, seconds=300)
    ready = replace(on("a", "b", changes=[RESTART], at_once=1), after=serves)
    assert lines(ready) == ["restarts etcd on a, b, one at a time, each for at most 380 s"]
    # So is one that waits for another step, as for the end of a lease.
    ended = replace(on("a", changes=[STOP]), after=Gate("ended", lambda: None, seconds=20))
    (found,) = affected([ended, replace(on("a", changes=[START]), after=serves)])
    assert found.seconds == 90 + 20 + 30 + 300


def test_twice_counts_the_longest() -> None:
    (found,) = affected([on("a", changes=[RESTART]), on("a", changes=[STOP, SWAP, START])])
    assert (found.seconds, found.back) == (90 + 7 + 30, True)


def test_a_start_alone_affects_nobody() -> None:
    assert lines(on("a", changes=[START, SWAP])) == []


def test_many_names_are_counted() -> None:
    (line,) = lines(on(*(f"w{n}" for n in range(SHOWN + 2)), changes=[RESTART], at_once=1))
    assert f"w{SHOWN - 1} and 2 more, one at a time" in line


def test_units_say_what_they_stop_and_start() -> None:
    facts = hosts.facts(1)
    (*_, start) = changes([Unit(ETCD)], facts)
    assert (start.stops, start.starts) == ((), (ETCD,))
    stop = unit_changes.stop(ETCD)
    assert (stop.stops, stop.starts) == ((ETCD,), ())


def test_a_worker_is_away_while_its_metastore_is_moved() -> None:
    move = Move("/opt/alluxio/312/metastore", "/var/lib/alluxio/m", "alluxio", WORKER)
    runs = UnitState("loaded", "active", "running", "enabled", 7)
    for facts in (hosts.facts(units={WORKER: runs}), hosts.facts()):
        found = changes([move, Unit(WORKER)], facts)
        said = lines(on("a", changes=found))
        away = sum(c.seconds for c in found)
        assert said == (
            [f"restarts alluxio-worker on a, for at most {away} s"]
            if facts.unit(WORKER).active == "active"
            else []
        )


#: Changes that stop only the backup timer, which no client notices.
QUIET = {"provision/host/kinds/units.py: Absent", "provision/plans/destroy.py: _etcd"}
#: What only names such a command, for an operator, or returns it for a change that says so.
NO_CHANGE = {
    "provision/check_nodes/monitor.py: instructions",
    "provision/host/unit_changes.py: kill",
    "provision/plans/clean_host.py: _refuse_voters",
    "provision/plans/etcd/members/member_steps.py: _Builder",
}


@pytest.mark.long
def test_every_change_that_stops_a_service_says_so() -> None:
    root = Path(__file__).parents[2]
    stops = re.compile(r"systemctl (stop|restart|kill)|--now|unit_changes\.kill")
    told, silent, elsewhere = 0, set(), set()
    for path in sorted((root / "provision").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for outer in ast.parse(source).body:
            place = f"{path.relative_to(root)}: {getattr(outer, 'name', '')}"
            says = any(isinstance(n, ast.keyword) and n.arg == "stops" for n in ast.walk(outer))
            if not says and stops.search(ast.get_source_segment(source, outer) or ""):
                elsewhere.add(place)  # the script may be another function's
            for node in ast.walk(outer):
                if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Change"):
                    continue
                if stops.search(ast.get_source_segment(source, node) or ""):
                    if any(k.arg == "stops" for k in node.keywords):
                        told += 1
                    else:
                        silent.add(place)
    assert silent == QUIET
    assert elsewhere == QUIET | NO_CHANGE
    assert told >= 6
