"""The names of backups, and the one rule for which backups may be removed.

A name has the backup's cluster, etcd's cluster id, raft term and index, revision and UTC time. Only
these values identify a backup of another history: a member that was emptied and bootstrapped again
has the same cluster id (a hash of peer URLs and token), with lower numbers. Names of the older form
have only the revision.

``templates/etcd-backup.sh.j2`` has the same rule for hosts, in awk; ``tests/unit/test_backups.py``
checks both for the same properties.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timezone

from provision.dataclass import dataclass

STAMP = "%Y%m%dT%H%M%SZ"
#: The part after the cluster's name, as a pattern that Python and ``sed -E`` read alike.
NEW = r"-c([0-9a-f]{16})-t([0-9]{1,19})-i([0-9]{1,19})-r([0-9]{10,19})-([0-9]{8}T[0-9]{6}Z)\.db"
OLD = r"-r([0-9]{10,19})-([0-9]{8}T[0-9]{6}Z)\.db"


@dataclass(frozen=True, slots=True)
class Name:
    """The values in a backup's name. ``cluster_id`` None: a name of the old form, without ids."""

    text: str
    stamp: str
    revision: int
    cluster_id: int | None = None
    term: int = 0
    index: int = 0

    @property
    def when(self) -> datetime:
        """When the backup was taken (UTC). Raises ``ValueError`` when the digits are not a time."""
        return datetime.strptime(self.stamp, STAMP).replace(tzinfo=timezone.utc)

    def reached_by(self, later: Name) -> bool:
        """Whether no number of ``later`` is below the number here."""
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
    """The values in this file name of a backup of ``cluster``; None for another file."""
    start = re.escape(cluster)
    if m := re.fullmatch(start + NEW, text):
        return Name(text, m[5], int(m[4]), int(m[1], 16), int(m[2]), int(m[3]))
    if m := re.fullmatch(start + OLD, text):
        return Name(text, m[2], int(m[1]))
    return None


def histories(found: Iterable[Name]) -> list[list[Name]]:
    """The backups by time, split where a backup possibly does not continue the history before it.

    A backup surely continues the history when three conditions hold: it has the same cluster id,
    none of its numbers is lower, and no backup of an older history is between the two. An emptied
    cluster may have written as much as the lost cluster had, or the lost cluster may be back: then
    nobody can tell to which of the two a backup belongs.
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
    """The backups that may be removed: in each history, all but the ``keep`` newest (0: none).

    So a backup of another history never displaces a backup, and the newest of every history stays.
    """
    return [n for h in histories(found) for n in h[:-keep]] if keep > 0 else []


def _goes_on(last: Name, new: Name, ends: Iterable[Name]) -> bool:
    if not last.reached_by(new):
        return False
    return all(e.reached_by(last) for e in ends if e.reached_by(new))
