"""Whether the members hold the same data: ``HashKV`` of each at one revision.

Ids, terms and revisions can all be right while the data differ: for example on a member that was
restored by hand under its own ids and then followed the leader. etcd's own corruption check
compares the same hashes (its ``corrupt.go``, ``PeriodicCheck``). Two hashes are comparable at the
same revision and the same compacted revision.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd import health, reach
from provision.etcd.failures import EtcdRefused
from provision.etcd.health import ClusterHealth, MemberHealth
from provision.etcd.values import KvHash
from provision.inventory.resolved import EtcdCluster
from provision.remote import Fleet

#: Bytes a second at which a member surely hashes its database: bounds the call.
HASHED_PER_SECOND = 5 << 20
#: Looks until the members are asked between two compactions.
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Comparison:
    """The voters that serve, by the hash of their data at ``revision``."""

    revision: int
    by_hash: Mapping[int, tuple[str, ...]]

    @property
    def equal(self) -> bool:
        return len(self.by_hash) < 2

    @property
    def right(self) -> tuple[str, ...]:
        """Those that more than half of the compared agree with; empty without such a majority."""
        count = sum(map(len, self.by_hash.values()))
        return next((names for names in self.by_hash.values() if 2 * len(names) > count), ())

    @property
    def differing(self) -> tuple[str, ...]:
        """Those whose data differ from the majority's; empty when there is none."""
        if not self.right:
            return ()
        return tuple(n for names in self.by_hash.values() if names != self.right for n in names)


def compare(seen: ClusterHealth, fleet: Fleet) -> Comparison:
    """Ask every healthy voter of ``seen`` at once.

    Raises :class:`Unhealthy` when the cluster was compacted again and again meanwhile, or when a
    member does not answer.
    """
    for _ in range(ATTEMPTS):
        voters = [
            m
            for m in seen.members
            if m.healthy and m.status is not None and not m.status.is_learner
        ]
        if len(voters) < 2:
            return Comparison(0, {})
        revision = min(m.status.revision for m in voters if m.status is not None)
        hashes = _ask(seen.cluster, fleet, voters, revision)
        if hashes is not None and len({h.compact_revision for h in hashes}) == 1:
            return _worst(revision, voters, hashes)
        seen = health.observe(seen.cluster, fleet)
    raise Unhealthy(
        "the cluster was compacted whenever its members' data were compared; run again",
        id="changed-meanwhile",
    )


def require_equal(seen: ClusterHealth, fleet: Fleet, sparing: Collection[str] = ()) -> None:
    """Raises :class:`PreflightFailed` when the data of the healthy voters differ.

    ``sparing`` are members that are about to be removed: theirs may differ.
    """
    found = compare(seen, fleet)
    left = {
        number: rest
        for number, names in found.by_hash.items()
        if (rest := tuple(n for n in names if n not in sparing))
    }
    if len(left) > 1:
        raise differ(Comparison(found.revision, left))


def differ(found: Comparison) -> PreflightFailed:
    """The error: the members' data differ, which members agree, and what to do."""
    said = "; ".join(f"{', '.join(names)}: {number:08x}" for number, names in found.by_hash.items())
    what = f"the members' data differ at revision {found.revision} (hashes: {said})"
    remedy = "no majority agrees: compare their data by hand, then invoke restore-etcd FILE"
    if found.differing:
        remedy = " and ".join(f"invoke replace-member {name}" for name in found.differing)
    return PreflightFailed(
        "the members' data differ; nothing was changed",
        [Problem("etcd", what, remedy, id="etcd-data-differ")],
        id="etcd-data-differ",
    )


def _worst(revision: int, voters: Sequence[MemberHealth], hashes: Sequence[KvHash]) -> Comparison:
    """Members of one release are compared with one another: releases differ in which tombstones
    a compaction leaves (etcd pull request 18274), so amid an upgrade hashes may differ."""
    by_release: dict[str, dict[int, tuple[str, ...]]] = {}
    for m, h in zip(voters, hashes, strict=True):
        release = m.status.version if m.status is not None else ""
        found = by_release.setdefault(release, {})
        found[h.hash] = (*found.get(h.hash, ()), m.member.name)
    return Comparison(revision, max(by_release.values(), key=len))


def _ask(
    cluster: EtcdCluster, fleet: Fleet, voters: Sequence[MemberHealth], revision: int
) -> list[KvHash] | None:
    """The hash of each; None when the revision was compacted on one of them meanwhile."""
    largest = max(m.status.db_size for m in voters if m.status is not None)

    def ask(m: MemberHealth) -> KvHash:
        timeout = 30.0 + largest / HASHED_PER_SECOND
        with reach.connect(cluster, fleet, m.member, timeout=timeout, how=m.how) as client:
            return client.hash_kv(revision)

    try:
        with ThreadPoolExecutor(len(voters), "hash") as pool:
            return list(pool.map(ask, voters))
    except EtcdRefused as error:
        if "compacted" in error.message:
            return None
        raise
