"""docs/reliability-workers.md, made from the results of :mod:`tests.faults.workers`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "reliability-workers.md"
WHAT = {
    "kill": "SIGKILL of the worker",
    "cut": "worker cut off from etcd (packets dropped)",
    "start": "worker started again",
    "heal": "worker reaches etcd again",
    "leader": "SIGKILL of etcd's leader",
}


def write(document: dict[str, Any]) -> None:
    PAGE.write_text(text(document), encoding="utf-8")


def text(document: dict[str, Any]) -> str:
    """The page, in Markdown."""
    rows = []
    for kind, what in WHAT.items():
        events = [e for e in document["events"] if e["kind"] == kind]
        workers = [w for e in events for w in e["workers"]]
        etcd = _spread([w["etcd"] for w in workers])
        seen = _spread([w["check_nodes"] for w in workers])
        rows.append(f"| {what} | {len(events)} | {len(workers) or '-'} | {etcd} | {seen} |")
    verdicts, info = document["verdicts"], document["info_nodes"]
    wrong = verdicts["wrong"]
    listed = "".join(
        f"- {w['at']:.1f} s: {w['worker']} {w['said']}: {w['why']}\n" for w in wrong[:50]
    )
    total = verdicts["right"] + sum("info nodes" not in w["why"] for w in wrong)
    looks = _spread(document["look_seconds"])
    return f"""\
# What check-nodes says while workers fail

Made by `make faults-workers`; not to be edited. {document["workers"]} workers (processes with
Alluxio 313's real membership code, each with an address, a Unix user and an identity of its own, on
{document["hosts"]} hosts) and {document["controls"]} more to which nothing is done, three etcd
members, a failure detection timeout of {document["failure_detection_timeout"]:.0f} s.
`check-nodes` ran again and again while at random times random workers were killed, cut off from
etcd and brought back, and etcd's leader was killed. One machine of {document["cores"]} cores with
a load of {document["load"]:.0f} ran everything. Seed {document["seed"]}:
`make faults-workers FAULTS="--workers {document["workers"]} --events N --seed {document["seed"]}"`
does the same things again.

A verdict is right when it is what the worker's live key in etcd was, as a second client saw it
during that look (1 s to either side), and when a look that begins 3 s after the failure detection
timeout has whoever was killed or cut off as FAILED. After a leader's death that time begins anew,
when etcd serves reads again: the new leader gives every lease its whole time once more, so no tool
can tell earlier. What `info nodes` printed in the same look is held to the same.

| | |
| --- | --: |
| looks, in {document["seconds"]:.0f} s | {document["looks"]} |
| seconds a look took, with `info nodes` (median, most) | {looks} |
| verdicts | {total} |
| of these wrong | {total - verdicts["right"]} |
| rows of `info nodes` that were right | {info["right"]} |
| rows that it did not give in time, which `check-nodes` said | {info["not_answered"]} |

Seconds from an event (median, most): until etcd had it, and until a look that began after it had
ended and said so. The second holds the time of up to two looks. A cut that was healed before the
lease ended does not show, and should not; who is started or healed before that is LIVE at once, by
the old lease.

| event | times | workers | in etcd | in `check-nodes` |
| --- | --: | --: | --: | --: |
{chr(10).join(rows)}
{chr(10) + "Wrong:" + chr(10) + chr(10) + listed if wrong else ""}"""


def _spread(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{statistics.median(known):.1f}, {max(known):.1f}" if known else "-"
