"""The names of backups, and the one rule of which may go.

A name tells what the backup is of: cluster, etcd's cluster id, raft term and index, revision and
UTC time. Only by these can a backup of another history be told: a member that was emptied and
began again has the same cluster id (a hash of peer URLs and token), with lower numbers. Names of
the older form tell the revision alone.

``templates/etcd-backup.sh.j2`` has the same rule for hosts, in awk; ``tests/unit/test_backups.py``
holds both to the same properties.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

STAMP = "%Y%m%dT%H%M%SZ"
#: What stands behind the cluster's name, in a form that Python and ``sed -E`` read alike.
NEW = r"-c([0-9a-f]{16})-t([0-9]{1,19})-i([0-9]{1,19})-r([0-9]{10,19})-([0-9]{8}T[0-9]{6}Z)\.db"
OLD = r"-r([0-9]{10,19})-([0-9]{8}T[0-9]{6}Z)\.db"


@dataclass(frozen=True, slots=True)
class Name:
    """What a backup's name says. ``cluster_id`` None: a name of the old form, without ids."""

    text: str
    stamp: str
    revision: int
    cluster_id: int | None = None
    term: int = 0
    index: int = 0

    @property
    def when(self) -> datetime:
        """When it was taken (UTC). Raises ``ValueError`` for digits that are no time."""
        return datetime.strptime(self.stamp, STAMP).replace(tzinfo=timezone.utc)

    def reached_by(self, later: Name) -> bool:
        """Whether ``later`` has no number below this one's."""
        return (
            self.term <= later.term
            and self.index <= later.index
            and self.revision <= later.revision
        )


def name(
    cluster: str, cluster_id: int, term: int, index: int, revision: int, when: datetime
) -> str:
    """A backup's file name."""
    return (
        f"{cluster}-c{cluster_id:016x}-t{term}-i{index}-r{revision:010d}-{when.strftime(STAMP)}.db"
    )


def parse(cluster: str, text: str) -> Name | None:
    """The backup of ``cluster`` that has this file name; None: it is none."""
    start = re.escape(cluster)
    if m := re.fullmatch(start + NEW, text):
        return Name(text, m[5], int(m[4]), int(m[1], 16), int(m[2]), int(m[3]))
    if m := re.fullmatch(start + OLD, text):
        return Name(text, m[2], int(m[1]))
    return None


def histories(found: Iterable[Name]) -> list[list[Name]]:
    """The backups by time, split wherever one may not continue the history of the one before.

    It surely goes on when it has the same cluster id, when none of its numbers is below, and when
    no backup of an older history lies between the two: where an emptied cluster has written as
    much as the lost one had, or the lost one is back, nobody can tell which of them it is.
    """
    made: list[list[Name]] = []
    of: dict[int | None, list[list[Name]]] = {}
    for one in sorted(found, key=lambda n: (n.stamp, n.text)):
        mine = of.setdefault(one.cluster_id, [])
        if mine and _goes_on(mine[-1][-1], one, [h[-1] for h in mine[:-1]]):
            mine[-1].append(one)
            continue
        mine.append([one])
        made.append(mine[-1])
    return made


def removable(found: Iterable[Name], keep: int) -> list[Name]:
    """The backups that may go: of each history those beyond its ``keep`` newest (0: none go).

    So a backup never goes for one of another history, and the newest of every history stays.
    """
    return [n for h in histories(found) for n in h[:-keep]] if keep > 0 else []


def _goes_on(last: Name, new: Name, ends: Iterable[Name]) -> bool:
    if not last.reached_by(new):
        return False
    return all(e.reached_by(last) for e in ends if e.reached_by(new))
