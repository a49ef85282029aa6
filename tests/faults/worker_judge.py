"""Whether what ``check-nodes`` said of workers was right, given what was done to them and when.

All times are seconds on one clock. A look is right about a worker when both hold:

- It agrees with etcd: the state is one that the worker's live key had, by a client that does
  nothing but read, at some moment of the look or :data:`SLACK` beside it.
- It is in time: a look that begins :data:`GRACE` after the failure detection timeout from a kill
  or a cut has the worker as FAILED. A loss of etcd's leader begins that time anew, from when
  reads are served again: the new leader gives every lease its whole time once more.

A worker that is started, or reaches etcd again, is due when its key is there: how long that takes
is Alluxio's own matter, and is measured apart. Alluxio's ``info nodes`` is held to the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LIVE, FAILED = "LIVE", "FAILED"
GRACE = 3.0
SLACK = 1.0
#: What takes a worker's lease away, and what gives it one.
DOWN, UP = ("kill", "cut"), ("start", "heal")


@dataclass(frozen=True)
class Event:
    """Something done to ``workers`` (none: to etcd's leader), done at ``at``."""

    kind: str
    workers: tuple[str, ...]
    at: float


@dataclass(frozen=True)
class Look:
    """One ``check-nodes``: the state of each worker, and what ``info nodes`` said of it."""

    begin: float
    end: float
    states: Mapping[str, str]
    info_nodes: Mapping[str, str | None]


@dataclass
class Keys:
    """The live keys as a client saw them, look by look; ``gaps`` are when it saw nothing."""

    times: list[float] = field(default_factory=list)
    alive: list[frozenset[str]] = field(default_factory=list)

    def add(self, at: float, alive: Iterable[str]) -> None:
        self.times.append(at)
        self.alive.append(frozenset(alive))

    def states(self, worker: str, begin: float, end: float) -> set[str]:
        """The states that a worker was seen in from ``begin`` to ``end``, and just before."""
        first = max(0, bisect_right(self.times, begin) - 1)
        last = bisect_right(self.times, end)
        seen = {LIVE if worker in a else FAILED for a in self.alive[first : max(last, first + 1)]}
        # The next sight, when there was none for a while: nobody knows when it changed.
        if last < len(self.times) and self.times[last] - end < SLACK:
            seen.add(LIVE if worker in self.alive[last] else FAILED)
        return seen

    def first(self, worker: str, state: str, after: float) -> float | None:
        """When a worker was first seen in ``state`` from ``after`` on."""
        for n in range(bisect_right(self.times, after), len(self.times)):
            if (worker in self.alive[n]) == (state == LIVE):
                return self.times[n]
        return None

    def served_again(self, after: float, pause: float = 0.6) -> float:
        """When reads were served again after what happened at ``after``, or at once."""
        last = after
        for at in self.times[bisect_right(self.times, after) :]:
            if at - last > pause:
                return at
            if at > after + 5:
                break
            last = at
        return after


@dataclass(frozen=True)
class Wrong:
    """A look that was wrong about a worker. ``at`` is when it began."""

    at: float
    worker: str
    said: str
    why: str


@dataclass
class Judgement:
    """``right`` and ``wrong`` count verdicts, one worker in one look."""

    right: int = 0
    wrong: list[Wrong] = field(default_factory=list)
    info_right: int = 0
    info_missing: int = 0


def judge(looks: Sequence[Look], events: Sequence[Event], keys: Keys, timeout: float) -> Judgement:
    """``timeout`` is Alluxio's failure detection timeout."""
    result = Judgement()
    losses = [(e.at, keys.served_again(e.at)) for e in events if e.kind == "leader"]
    for look in looks:
        for worker, said in look.states.items():
            seen = keys.states(worker, look.begin - SLACK, look.end + SLACK)
            due = deadline(worker, events, losses, look, timeout)
            if said not in seen:
                why = f"etcd had it {' and '.join(sorted(seen))}"
                result.wrong.append(Wrong(look.begin, worker, said, why))
            elif due is not None and look.begin > due and said != FAILED:
                why = f"FAILED was due {look.begin - due:.1f} s before"
                result.wrong.append(Wrong(look.begin, worker, said, why))
            else:
                result.right += 1
            status = look.info_nodes.get(worker)
            if status is None:
                result.info_missing += 1
            elif {"ONLINE": LIVE, "OFFLINE": FAILED}.get(status) in seen:
                result.info_right += 1
            else:
                why = f"info nodes had it {status}, etcd {' and '.join(sorted(seen))}"
                result.wrong.append(Wrong(look.begin, worker, said, why))
    return result


def deadline(
    worker: str,
    events: Sequence[Event],
    losses: Sequence[tuple[float, float]],
    look: Look,
    timeout: float,
) -> float | None:
    """When the look had to see the worker FAILED at the latest, None if it need not: neither when
    the worker was up, nor when it was brought back while the look went on."""
    last = None
    for event in events:
        if event.at <= look.end and worker in event.workers:
            last = event
    if last is None or last.kind not in DOWN:
        return None
    due = last.at + timeout + GRACE
    for lost, served in losses:
        if last.at - GRACE <= lost <= due:
            due = max(due, served + timeout + GRACE)
    return due


def detections(
    looks: Sequence[Look], events: Sequence[Event], keys: Keys
) -> list[tuple[Event, str, float | None, float | None]]:
    """For each event and worker: seconds until etcd's keys showed it, and until a look did.

    None: not before the next event of that worker's, as for a cut that was healed in time.
    """
    found = []
    for number, event in enumerate(events):
        for worker in event.workers:
            wanted = FAILED if event.kind in DOWN else LIVE
            until = next((e.at for e in events[number + 1 :] if worker in e.workers), float("inf"))
            key = keys.first(worker, wanted, event.at)
            look = next(
                (
                    k.end
                    for k in looks
                    if k.begin >= event.at and k.end <= until and k.states.get(worker) == wanted
                ),
                None,
            )
            found.append(
                (
                    event,
                    worker,
                    key - event.at if key is not None and key <= until else None,
                    look - event.at if look is not None else None,
                )
            )
    return found
