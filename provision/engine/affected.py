"""Who notices a plan: the services that it stops or restarts, how many at a time, and how long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypedDict

from provision.dataclass import dataclass
from provision.host.diff import Change

#: How many names a line shows.
SHOWN = 30
#: The service that serves only while a majority of its hosts has it, and what it means when they
#: have not.
QUORUM, NOBODY = "etcd.service", "no member serves workers and clients meanwhile"


class _Host(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def changes(self) -> Sequence[Change]: ...


class _Gate(Protocol):
    @property
    def seconds(self) -> int: ...


class _Step(Protocol):
    @property
    def hosts(self) -> Sequence[_Host]: ...
    @property
    def at_once(self) -> int | None: ...
    @property
    def after(self) -> _Gate | None: ...


class AffectedDocument(TypedDict):
    """A service that the plan stops, on how many hosts at the same time, and for how many seconds
    at most."""

    unit: str
    names: list[str]
    started_again: bool
    at_once: int
    seconds: int
    outage: bool


@dataclass(frozen=True, slots=True)
class Affected:
    """A service that the plan stops on the hosts of ``names``.

    ``back``: the plan starts it again. ``at_once``: on how many of them it is away at the same
    time. ``seconds``: how long it serves nobody on a host at most; after that, the run stops.
    ``outage``: meanwhile it serves nobody, because the others are no majority.
    """

    unit: str
    names: tuple[str, ...]
    back: bool
    at_once: int
    seconds: int
    outage: bool = False

    @property
    def line(self) -> str:
        more = f" and {len(self.names) - SHOWN} more" if len(self.names) > SHOWN else ""
        where = f"{self.unit.removesuffix('.service')} on {', '.join(self.names[:SHOWN])}{more}"
        if not self.back:
            return f"stops {where}"
        many, each = len(self.names), f"for at most {self.seconds} s"
        means = f"; {NOBODY}" if self.outage else ""
        if many == 1:
            return f"restarts {where}, {each}{means}"
        if self.at_once < many:
            how = "one at a time" if self.at_once == 1 else f"at most {self.at_once} at a time"
            return f"restarts {where}, {how}, each {each}{means}"
        return f"restarts {where}, all together, {each}{means}"

    def document(self) -> AffectedDocument:
        """As JSON."""
        return {
            "unit": self.unit,
            "names": list(self.names),
            "started_again": self.back,
            "at_once": self.at_once,
            "seconds": self.seconds,
            "outage": self.outage,
        }


def affected(steps: Iterable[_Step], members: int = 0) -> tuple[Affected, ...]:
    """Every service that the ``steps`` stop, in the order in which they are stopped first.

    ``members``: how many members etcd has; 0: not known. An only member, or one of two, has no
    majority beside it.
    """
    since: dict[tuple[str, str], int] = {}
    longest: dict[tuple[str, str], int] = {}
    back: set[tuple[str, str]] = set()
    most: dict[str, int] = {}
    for step in steps:
        before = {unit: sum(u == unit for u, _ in since) for unit, _ in since}
        stopping: dict[str, int] = {}
        waits = step.after.seconds if step.after is not None else 0
        for host in step.hosts:
            for change in host.changes:
                for unit in change.stops:
                    key = unit, host.name
                    if key not in since:
                        stopping[unit] = stopping.get(unit, 0) + 1
                        since[key] = 0
                        longest.setdefault(key, 0)
                        back.discard(key)
                for key in [k for k in since if k[1] == host.name]:
                    since[key] += change.seconds
                for unit in change.starts:
                    if (passed := since.pop((unit, host.name), None)) is not None:
                        longest[unit, host.name] = max(longest[unit, host.name], passed + waits)
                        back.add((unit, host.name))
        since = {key: passed + waits for key, passed in since.items()}
        for unit, count in stopping.items():
            together = before.get(unit, 0) + min(count, step.at_once or count)
            most[unit] = max(most.get(unit, 0), together)
    found = []
    for unit, again in dict.fromkeys((unit, (unit, name) in back) for unit, name in longest):
        keys = [k for k in longest if k[0] == unit and (k in back) is again]
        names = tuple(name for _, name in keys)
        seconds = max(longest[k] for k in keys) if again else 0
        away = min(most[unit], len(names))
        found.append(
            Affected(
                unit, names, again, away, seconds, again and _outage(unit, names, away, members)
            )
        )
    return tuple(found)


def _outage(unit: str, names: Sequence[str], away: int, members: int) -> bool:
    if unit != QUORUM:
        return False
    if not members:
        return away == len(names) > 1
    return max(members, len(names)) - away <= max(members, len(names)) // 2
