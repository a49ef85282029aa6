"""``docs/reliability.md`` from the results of :mod:`tests.faults.run` and of ``growth``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import growth, run
from .faults import FAULTS
from .operations import OPERATIONS

#: Written by tests/integration/test_which_cluster.py with ALXP_RECORD_STATES=1.
STATES = Path(__file__).parent / "states.json"
DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"

_HEAD = """\
# What faults do to each operation

This page is made by `make faults` and `make growth` from their results, `results.json` and
`growth.json` in `tests/faults`; no figure in it was put there by hand.

Each case takes a running cluster of three members (and a spare host) on the lab, starts a checker
client, runs one command, and injects one fault at one of the command's steps. It passes when

- the command did all it was to, **or** ended with its exit code (1, 3, 4 or 5) and said what to do,
  and the same command run again (at most {again} times) then did it;
- afterwards every member that is to be there is a healthy voter, no other is, and `deploy-etcd
  --dry-run` finds nothing to change;
- every write that was acknowledged to the checker is there, read through every member;
- no read was stale: the checker's registers have one writer each and increasing values, and no
  linearizable read returned less than was acknowledged or read before it began, or more than had
  been sent when it ended.

`restore-etcd` and `recover-etcd` replace the data: there, what was acknowledged before the backup,
and before the quorum was lost (with every member up to date), must be there. A pause is the longest
time in which the checker got no acknowledgement, not given where the cluster is down by design.
"""


def page(
    results: Mapping[str, Any],
    grown: Mapping[str, Any] | None,
    states: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The whole document."""
    cases = results["cases"]
    parts = [_HEAD.format(again=run.AGAIN), _totals(results), _faults(cases)]
    for operation in OPERATIONS:
        there = [c for c in cases if c["operation"] == operation.name]
        if there:
            steps = len(results["steps"].get(operation.name, ()))
            parts.append(_operation(operation.title, operation.name, there, steps))
    parts.append(_failed(cases))
    parts.append(_states(states))
    if grown is not None:
        parts.append(_growth(grown))
    return "\n".join(part for part in parts if part)


def _totals(results: Mapping[str, Any]) -> str:
    cases = [c for c in results["cases"] if c["fault"] != "none"]
    passed = [c for c in cases if c["outcome"] != "FAILED"]
    m = results["machine"]
    return f"""\
**{len(cases)} cases with a fault, {len(passed)} passed**: {_sum(cases, "acknowledged_writes")}
acknowledged writes, {_sum(cases, "lost_writes")} lost; {_sum(cases, "reads")} linearizable reads,
{_sum(cases, "stale_reads")} stale. Measured until {results["when"]} on {m["cpu"]}, {m["memory"]},
Linux {m["kernel"]}, Python {m["python"]}, etcd {m["etcd"]}. Other work shared the machine,
so times are upper bounds, not speeds. Defects that cases showed were repaired on the way; which
source a case ran is in the results.
"""


def _faults(cases: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for fault in FAULTS.values():
        some = [c for c in cases if c["fault"] == fault.name]
        if some and fault.name != "none":
            rows.append((fault.name, _what(fault.what, some), len(some), *_outcomes(some)))
    return _table(("fault", "what is done", "cases", *_OUTCOMES), rows)


def _what(what: str, cases: Sequence[Mapping[str, Any]]) -> str:
    """How the link was made slow depends on the machine's kernel."""
    how = sorted({c["fell_on"].partition(": ")[2] for c in cases} - {""})
    return f"{what} (`tc`: {', '.join(how)})" if how else what


_OUTCOMES = ("went through", "stopped or killed, finished by a second run", "more runs", "failed")


def _outcomes(cases: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    good = [c for c in cases if c["outcome"] != "FAILED"]
    runs = [len(c["exit_codes"]) for c in good]
    return (
        runs.count(1),
        runs.count(2),
        sum(n > 2 for n in runs),
        len(cases) - len(good),
    )


def _operation(title: str, name: str, cases: Sequence[Mapping[str, Any]], steps: int) -> str:
    rows = []
    for fault in FAULTS.values():
        some = [c for c in cases if c["fault"] == fault.name]
        if not some:
            continue
        codes = sorted({c["exit_codes"][0] for c in some if c["exit_codes"]})
        moments = len({c["moment"] for c in some})
        where = "whole run" if fault.whole else f"{moments} of {steps}"
        rows.append(
            (
                fault.name,
                where,
                *_outcomes(some),
                ", ".join("killed" if c == -9 else str(c) for c in codes),
                _sum(some, "acknowledged_writes"),
                _sum(some, "lost_writes"),
                _sum(some, "stale_reads"),
                _pause(name, some),
                f"{max(c['seconds'] for c in some):.0f} s",
            )
        )
    heading = (
        *("fault", "at steps", *_OUTCOMES, "first exit codes"),
        *("writes", "lost", "stale reads", "longest pause", "longest run"),
    )
    return f"## {title}\n\n{_table(heading, rows)}"


def _pause(name: str, cases: Iterable[Mapping[str, Any]]) -> str:
    if name in ("first-deploy", "restore-etcd", "recover-etcd"):
        return "-"
    return f"{max(c['longest_pause'] for c in cases):.1f} s"


def _failed(cases: Iterable[Mapping[str, Any]]) -> str:
    failed = [c for c in cases if c["outcome"] == "FAILED"]
    if not failed:
        return ""
    lines = [f"- {c['operation']}, {c['fault']} at {c['step'] or 'all of it'}" for c in failed]
    return "## Cases that failed\n\n" + "\n".join(lines) + "\n"


def _states(states: Sequence[Mapping[str, Any]]) -> str:
    if not states:
        return ""
    heading = ("state", "healed by", "writes acknowledged", "lost")
    rows = [(s["state"], f"`{s['healed_by']}`", s["writes"], s["lost"]) for s in states]
    return f"""\
## When it is not clear which cluster it is

`tests/integration/test_which_cluster.py` makes these states on three hosts. Where it is not clear
which cluster it is, `deploy-etcd`, `backup-etcd` and the member commands that were tried refuse
first. Then the command in the second column heals the cluster. Meanwhile a client writes to the
right members, where they serve. Afterwards every acknowledged write is read through every member.
While the alarm CORRUPT stands, etcd takes no writes: the rows with this alarm count the writes
before it, and the writes after the wrong member is removed.

{_table(heading, rows)}"""


def _growth(grown: Mapping[str, Any]) -> str:
    sizes = sorted({row["members"] for row in grown["rows"]})
    seconds = {(row["operation"], row["members"]): row["seconds"] for row in grown["rows"]}
    rows = [
        (o.title, *(f"{seconds[o.name, n]:.1f}" if (o.name, n) in seconds else "-" for n in sizes))
        for o in OPERATIONS
        if any((o.name, n) in seconds for n in sizes)
    ]
    m = grown["machine"]
    heading = ("operation", *(f"{n} member{'s' * (n > 1)}" for n in sizes))
    return f"""\
## How the time grows with members

Seconds of wall time of the command, one run each, no fault and no other client, with clusters of so
many members; `add-member` brings one more, `remove-member` takes that one away again. Measured
{grown["when"]} on {m["cpu"]} that all members, the tool and
other work of the lowest priority share, source {grown["commit"]}. One run each: only what differs
by a factor of two says something. Member by member, with the whole cluster's health as the gate
between, go the changes of a setting, upgrades and new CAs. A dash: not possible with so few
members, or hosts.

{_table(heading, rows)}"""


def _sum(cases: Iterable[Mapping[str, Any]], key: str) -> int:
    return sum(c[key] for c in cases)


def _table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heading, ["---", *["--:"] * (len(heading) - 1)], *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def current() -> str:
    """The document of the results that are there."""
    results = json.loads(run.RESULTS.read_text(encoding="utf-8"))
    grown = None
    if growth.RESULTS.exists():
        grown = json.loads(growth.RESULTS.read_text(encoding="utf-8"))
    states = []
    if STATES.exists():
        states = json.loads(STATES.read_text(encoding="utf-8"))
    return page(results, grown, states)


if __name__ == "__main__":
    DOCUMENT.write_text(current(), encoding="utf-8")
