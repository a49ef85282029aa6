"""A plan for a reader: each difference once, with the hosts that it is for.

Every line is a :class:`Line`; :mod:`provision.cli.console` draws them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from provision.dataclass import dataclass
from provision.host.diff import NEW
from provision.text import counted

if TYPE_CHECKING:
    from provision.engine.plan import HostChanges, Plan, Step

#: Lines of one difference that are shown, and of how many hosts with a difference of their own.
LINES, OWN = 200, 5
#: A difference that is as short is shown again instead of named.
SHORT = 3
_BLOCK = re.compile(r"(?m)^(\+-----BEGIN [A-Z ]+-----\n)((?:\+[^-\n].*\n)+)(\+-----END )")
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}
ALL = "--diff-full shows all"


@dataclass(frozen=True, slots=True)
class Line:
    """``quoted``: it is a line of a host's file, and stays as it stands there."""

    text: str
    style: str = ""
    quoted: bool = False


def lines(plan: Plan, *, new: bool = True, full: bool = False) -> Iterator[Line]:
    """The steps of ``plan``, and which services are affected.

    ``new``: with the content of new files. ``full``: nothing is left out, and hosts that differ in
    anything are shown apart.
    """
    shown = _Shown()
    yield Line(f"{plan.command}: {plan.changed} to change in {counted(len(plan.steps), 'step')}")
    for number, step in enumerate(plan.steps, 1):
        yield Line(f"{number}. {step.title}", "bold")
        for group in _groups(step, full=full):
            yield Line(f"   {_names(group, addresses=True)}")
            if full:
                yield from _whole(group[0], new=new)
            else:
                yield from shown.of(group, number, new=new)
        for call in step.calls:
            yield Line(f"   * {call.what}")
        if step.after is not None:
            yield Line(f"   then: {step.after.title}", "dim")
    for service in plan.affected:
        yield Line(f"affected: {service.line}", "bold")
    if plan.steps and not plan.affected:
        yield Line("affected: no service is stopped or restarted", "dim")


def _groups(step: Step, *, full: bool) -> list[list[HostChanges]]:
    """Hosts with the same changes: 200 workers must not fill the screen. The difference of one
    change may be another on each host of a group, unless ``full``."""
    groups: dict[tuple[str, ...], list[HostChanges]] = {}
    for host in step.hosts:
        titles = tuple(f"{c.what}\n{c.diff if full else ''}" for c in host.changes)
        groups.setdefault(titles, []).append(host)
    return list(groups.values())


def _whole(host: HostChanges, *, new: bool) -> Iterator[Line]:
    for change in host.changes:
        yield Line(f"     * {change.what}")
        if new or not change.diff.startswith(NEW):
            yield from _diff(change.diff.splitlines())


class _Shown:
    """The differences that were shown, each with its first place."""

    def __init__(self) -> None:
        self._at: dict[str, str] = {}

    def of(self, group: Sequence[HostChanges], step: int, *, new: bool) -> Iterator[Line]:
        """The changes of hosts that have the same ones."""
        for n, change in enumerate(group[0].changes):
            yield Line(f"     * {change.what}")
            if not new and change.diff.startswith(NEW):
                continue
            apart = _apart(group, n)
            first: tuple[str, str] | None = None
            for same, own in apart[:OWN]:
                diff = same[0].changes[n].diff
                if own or len(apart) > 1:
                    others = f"; with its own name on {_names(own)}" if own else ""
                    yield Line(f"       on {_names(same)}{others}:", "bold")
                if first is not None and diff.startswith(NEW) and first[1].startswith(NEW):
                    yield Line(f"       as on {first[0]}, but")
                    yield from _diff(_other(first[1], diff))
                else:
                    yield from self._difference(diff, f"step {step}, on {same[0].name}")
                first = first or (same[0].name, diff)
            if rest := [host for same, own in apart[OWN:] for host in (*same, *own)]:
                yield Line(f"       on {_names(rest)}: not shown ({ALL})", "bold")

    def _difference(self, diff: str, place: str) -> Iterator[Line]:
        lines = _short(diff)
        if diff in self._at and len(lines) > SHORT:
            yield Line(f"       the same as in {self._at[diff]}")
            return
        self._at.setdefault(diff, place)
        yield from _diff(lines[:LINES])
        if len(lines) > LINES:
            yield Line(f"       and {counted(len(lines) - LINES, 'more line')} ({ALL})", "dim")


def _apart(
    group: Sequence[HostChanges], n: int
) -> list[tuple[list[HostChanges], list[HostChanges]]]:
    """The hosts by the difference of their ``n``-th change: those with the same one, and those with
    the same one but for their own name and address."""
    found: list[tuple[list[HostChanges], list[HostChanges]]] = []
    same: dict[str, list[HostChanges]] = {}
    named: dict[str, list[HostChanges]] = {}
    for host in group:
        diff = host.changes[n].diff
        if diff not in same:
            nameless = _nameless(diff, host)
            if nameless in named:
                named[nameless].append(host)
                continue
            found.append(([], []))
            same[diff], named[nameless] = found[-1]
        same[diff].append(host)
    return found


def _nameless(diff: str, host: HostChanges) -> str:
    for name in sorted({host.name, host.machine.host}, key=len, reverse=True):
        diff = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", "\0", diff)
    return diff


def _short(diff: str) -> list[str]:
    """The lines of ``diff``; of what is encoded in a new file, only how many there are."""
    if diff.startswith(NEW):
        diff = _BLOCK.sub(
            lambda m: f"{m[1]}+({counted(m[2].count(chr(10)), 'line')})\n{m[3]}", diff
        )
    return diff.splitlines()


def _other(one: str, other: str) -> list[str]:
    """The lines in which two new files differ, without those around them."""
    before, after = ([line[1:] for line in d.splitlines()[3:]] for d in (one, other))
    compared = [*difflib.unified_diff(before, after, n=0, lineterm="")]
    return [line for line in compared[2:] if not line.startswith("@@")]


def _diff(found: Iterable[str]) -> Iterator[Line]:
    for line in found:
        yield Line(f"       {line}", _COLOURS.get(line[:1], ""), quoted=True)


def _names(hosts: Sequence[HostChanges], *, addresses: bool = False) -> str:
    return ", ".join(h.machine.addressed(h.name) if addresses else h.name for h in hosts)
