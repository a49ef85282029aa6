"""Random faults of workers and of etcd's leader, and whether ``check-nodes`` sees each rightly.

``make faults-workers``, or ``python -m tests.faults.workers --workers 20 --events 40 [--seed N]``
with the lab up. The seed is printed: the same one does the same things to the same workers in
the same order, at about the same times. Results go to workers.json beside this file, and from
there to docs/reliability-workers.md (``--report`` writes that alone).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..integration.lab import Changes, Lab, connected, ssh_hosts
from . import worker_report
from .worker_bed import WorkerBed
from .worker_judge import DOWN, GRACE, LIVE, Event, Judgement, Look, detections, judge

RESULTS = Path(__file__).with_name("workers.json")
SCHEMA = "alluxio-provision/faults-workers/1"
#: alluxio.failure_detection_timeout in inventory/lab.yml, seconds.
TIMEOUT = 5.0
#: Seconds between two events. Shorter than the timeout: they overlap.
PAUSE = (0.5, 6.0)
#: Seconds in which all workers must have joined, at first and after the last event.
JOIN = 480.0
NODES_TIMEOUT = 10


@dataclass
class Result:
    """All that was done and seen. Times are seconds from the begin of the first look."""

    seed: int
    workers: int
    hosts: int
    events: list[Event] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    judgement: Judgement = field(default_factory=Judgement)
    found: list[tuple[Event, str, float | None, float | None]] = field(default_factory=list)
    seconds: float = 0.0
    #: The machine's load average (5 minutes) at the end.
    load: float = 0.0

    def document(self) -> dict[str, Any]:
        j = self.judgement
        return {
            "schema": SCHEMA,
            "seed": self.seed,
            "workers": self.workers,
            "controls": self.hosts,
            "hosts": self.hosts,
            "cores": os.cpu_count(),
            "load": round(self.load, 1),
            "seconds": round(self.seconds, 1),
            "failure_detection_timeout": TIMEOUT,
            "looks": len(self.looks),
            "look_seconds": [round(k.end - k.begin, 2) for k in self.looks],
            "verdicts": {"right": j.right, "wrong": [vars(w) for w in j.wrong]},
            "info_nodes": {"right": j.info_right, "not_answered": j.info_missing},
            "events": [
                {
                    "kind": e.kind,
                    "at": round(e.at, 1),
                    "workers": [
                        {"name": w, "etcd": _rounded(key), "check_nodes": _rounded(look)}
                        for event, w, key, look in self.found
                        if event is e
                    ],
                }
                for e in self.events
            ],
        }


class Chaos:
    """Which events come, one after another: a function of the seed and of those before."""

    def __init__(self, seed: int, names: Sequence[str]) -> None:
        self._random = random.Random(seed)
        self._state = dict.fromkeys(names, "up")

    def next(self, kind: str | None = None) -> tuple[str, list[str], float]:
        """An event, its workers, and the pause after it.

        With ``kind``, one of that kind if it is possible, and of one worker: others come after.
        """
        at = {
            s: [n for n, state in self._state.items() if state == s] for s in ("up", "kill", "cut")
        }
        # A quarter stays: a cluster without workers has nothing more to show.
        room = len(at["up"]) - max(1, len(self._state) // 4)
        kinds = {
            "kill": 4 if room > 0 else 0,
            "cut": 4 if room > 0 else 0,
            "start": 3 if at["kill"] else 0,
            "heal": 3 if at["cut"] else 0,
            "leader": 1,
        }
        chosen = (
            kind
            if kind and kinds[kind]
            else self._random.choices(*zip(*kinds.items(), strict=True))[0]
        )
        pool = {"kill": at["up"], "cut": at["up"], "start": at["kill"], "heal": at["cut"]}.get(
            chosen, []
        )
        most = min(len(pool), room, 1 if kind else 3) if chosen in DOWN else len(pool)
        workers = sorted(self._random.sample(pool, self._random.randint(1, most))) if pool else []
        for name in workers:
            self._state[name] = chosen if chosen in DOWN else "up"
        return chosen, workers, self._random.uniform(*PAUSE)

    def left(self) -> list[tuple[str, list[str]]]:
        """What brings back everyone who is still down."""
        down = {s: [n for n, state in self._state.items() if state == s] for s in DOWN}
        ways = (("start", down["kill"]), ("heal", down["cut"]))
        return [(kind, names) for kind, names in ways if names]


def run(
    lab: Lab,
    folder: Path,
    *,
    workers: int,
    events: int,
    seed: int,
    first: Sequence[str] = (),
    declared: Changes | None = None,
) -> Result:
    """Workers that have joined, then ``events`` of them (the ``first`` of given kinds), then all
    well again. etcd and the hosts' own workers run, ``declared`` where the lab's inventory does
    not have them."""
    bed = WorkerBed(lab, workers, folder, declared or {})
    result = Result(seed, workers, len(lab.workers))
    chaos = Chaos(seed, [w.name for w in bed.workers])
    kinds = iter(first)
    with bed.up():
        _joined(bed)
        zero = time.monotonic()
        with _looking(bed, result.looks):
            _wait_for_looks(result.looks, 1)
            for _ in range(events):
                kind, names, pause = chaos.next(next(kinds, None))
                result.events.append(_do(bed, kind, names))
                time.sleep(pause)
            time.sleep(TIMEOUT + GRACE + 1)
            _wait_for_looks(result.looks, len(result.looks) + 2)  # one has begun since
            for kind, names in chaos.left():
                result.events.append(_do(bed, kind, names))
            _joined(bed)
            _wait_for_looks(result.looks, len(result.looks) + 2)
        result.seconds, result.load = time.monotonic() - zero, os.getloadavg()[1]
        result.judgement = judge(result.looks, result.events, bed.keys, TIMEOUT)
        result.found = detections(result.looks, result.events, bed.keys)
        last = result.looks[-1].states
        assert set(last.values()) == {LIVE}, f"at the end: {last}"
    # For people: times from the begin.
    shifted = {id(e): Event(e.kind, e.workers, e.at - zero) for e in result.events}
    result.found = [(shifted[id(e)], w, k, s) for e, w, k, s in result.found]
    result.events = [shifted[id(e)] for e in result.events]
    return result


def _do(bed: WorkerBed, kind: str, names: Sequence[str]) -> Event:
    """The event, at the time when it was done: on a busy machine that takes a moment."""
    chosen = [bed.by_name[n] for n in names]
    what = ", ".join(names)
    if kind == "leader":
        before = time.monotonic()
        what = bed.kill_leader()
        event = Event(kind, (), before)
    else:
        # The first of several goes down, and the last comes up, when the others do not yet.
        before = time.monotonic()
        {"kill": bed.kill, "cut": bed.cut, "start": bed.start, "heal": bed.heal}[kind](chosen)
        event = Event(kind, tuple(names), time.monotonic() if kind in DOWN else before)
    print(f"{event.kind:6} {what}", file=sys.stderr, flush=True)
    return event


@contextlib.contextmanager
def _looking(bed: WorkerBed, looks: list[Look]) -> Iterator[None]:
    """While ``check-nodes`` runs, again and again."""
    over = threading.Event()
    failed: list[BaseException] = []

    def look() -> None:
        try:
            while not over.is_set():
                begin = time.monotonic()
                timeout = ("--nodes-timeout", str(NODES_TIMEOUT))
                done = bed.lab.invoke("check-nodes", bed.inventory, "--format", "json", *timeout)
                end = time.monotonic()
                alluxio = done.json["alluxio"]
                nodes = {n["name"]: n for n in alluxio["nodes"] if n["name"]}
                looks.append(
                    Look(
                        begin,
                        end,
                        {name: n["state"] for name, n in nodes.items()},
                        {name: n["info_nodes"] for name, n in nodes.items()},
                    )
                )
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=look, name="looks")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if failed:
            raise failed[0]


def _wait_for_looks(looks: list[Look], count: int) -> None:
    deadline = time.monotonic() + 120
    while len(looks) < count:
        assert time.monotonic() < deadline, "check-nodes does not answer"
        time.sleep(0.1)


def _joined(bed: WorkerBed) -> None:
    everyone = bed.everyone
    deadline = time.monotonic() + JOIN
    while bed.live() != everyone:
        missing = ", ".join(sorted(everyone - bed.live()))
        assert time.monotonic() < deadline, f"not joined in {JOIN:.0f} s: {missing}"
        time.sleep(0.1)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--events", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--report", action="store_true", help="only write the page")
    options = parser.parse_args()
    if not options.report:
        print(f"seed {options.seed}", file=sys.stderr, flush=True)
        names = [n for n in ssh_hosts() if n in ("etcd0", "etcd1", "etcd2") or n[:6] == "worker"]
        with tempfile.TemporaryDirectory() as temporary, connected(names, Path(temporary)) as lab:
            own = {host.name: {"host": host.address} for host in lab.workers}
            inventory = lab.inventory({"alluxio": {"workers": own}})
            for task in ("deploy-etcd", "start-workers"):
                lab.invoke(task, inventory).expect(0)
            made = run(
                lab,
                Path(temporary),
                workers=options.workers,
                events=options.events,
                seed=options.seed,
                declared=own,
            )
        RESULTS.write_text(json.dumps(made.document(), indent=1) + "\n", encoding="utf-8")
    document = json.loads(RESULTS.read_text(encoding="utf-8"))
    worker_report.write(document)
    wrong = document["verdicts"]["wrong"]
    print(f"{document['verdicts']['right']} right, {len(wrong)} wrong: {worker_report.PAGE}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
