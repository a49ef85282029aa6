"""Whether the members hold the same data: ``HashKV`` of each at one revision.

Ids, terms and revisions can all be right while the data differ: for example on a member that was
restored by hand under its own ids and then followed the leader. etcd's own corruption check
compares the same hashes (its ``corrupt.go``, ``PeriodicCheck``), but its alarm may name a wrong
member, or none: ``PeriodicCheck`` names every member that differs from the leader, and
``checkPeerHashes`` names member 0 when no majority agrees (etcd issue 14849). So the member in the
alarm is never used.

Two hashes are comparable at the same revision and the same compacted revision.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from provision import progress
from provision.dataclass import dataclass
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd.api.errors import EtcdRefused
from provision.etcd.api.values import KvHash
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.text import counted

#: A member surely hashes at least this many bytes of its database a second: limits the call's time.
HASHED_PER_SECOND = 5 << 20
#: How many looks are made until one falls between two compactions.
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Comparison:
    """The voters that serve, by the hash of their data at ``revision``.

    ``voters`` counts all voters of the cluster, also voters that do not serve. In ``by_hash``,
    members with different compacted revisions have different keys.
    """

    revision: int
    by_hash: Mapping[int, tuple[str, ...]]
    voters: int = 0

    @property
    def equal(self) -> bool:
        return len(self.by_hash) < 2

    @property
    def compared(self) -> int:
        return sum(map(len, self.by_hash.values()))

    @property
    def right(self) -> tuple[str, ...]:
        """The members whose data more than half of all voters have; empty without such a
        majority."""
        count = max(self.voters, self.compared)
        return next((names for names in self.by_hash.values() if 2 * len(names) > count), ())

    @property
    def differing(self) -> tuple[str, ...]:
        """The members with other data than the majority; empty without a majority."""
        if not self.right:
            return ()
        return tuple(n for names in self.by_hash.values() if names != self.right for n in names)


def compare(seen: ClusterHealth, etcd: Etcd) -> Comparison:
    """Ask all healthy voters of ``seen`` at the same time. Its cluster counts, not the handle's.

    Raises :class:`Unhealthy` when the cluster was compacted again and again meanwhile, or when a
    member does not answer.
    """
    etcd = etcd.with_cluster(seen.cluster)
    count = sum(not r.is_learner for r in seen.registered)
    late: dict[str, int] = {}
    before: dict[str, int] = {}
    written = False  # whether a client wrote between a look and the hashes
    for _ in range(ATTEMPTS):
        late |= _late(seen, etcd)
        voters = [m for m in _voters(seen) if m.member.name not in late]
        if len(voters) + len(late) < 2:
            return Comparison(0, {}, count)
        if not voters:
            raise Unhealthy(
                "the members' revisions went back while their data were compared; run again",
                id="changed-meanwhile",
            )
        revisions = [m.status.revision for m in voters if m.status is not None]
        revision = min(revisions, default=0)
        # Asked for the revision of its last compaction, a member repeats the hash of that time,
        # with another compacted revision (``HashByRev`` of etcd's ``hashStorage``), unless it was
        # restarted since; etcd 3.4 refuses. Asked for the newest revision, each member hashes its
        # present data. While clients write, this does not work, and is not needed: the newest
        # revision is then past the last compaction anyway.
        still = len(set(revisions)) == 1 and not written
        told = _ask(etcd, voters, 0 if still else revision)
        hashes = [h for h in told if h is not None and (not still or h.revision == revision)]
        if len(hashes) == len(voters):
            names = [m.member.name for m in voters]
            compacted = dict(zip(names, (h.compact_revision for h in hashes), strict=True))
            if len(set(compacted.values())) < 2:
                found = _worst(revision, voters, hashes)
                return replace(found, by_hash=_with_late(found.by_hash, late), voters=count)
            if still and compacted == before:
                # Between two looks each member has served a linearizable read, so it has applied
                # every compaction of the look before. A member that has not changed does not follow
                # the others.
                by_hash = _with_late(_apart(voters, hashes), late)
                return Comparison(revision, by_hash, count)
            before = compacted if still else {}
        else:
            written = still and None not in told
        seen = health.observe(etcd)
    raise Unhealthy(
        "a compaction interrupted each comparison of the members' data; run again",
        id="changed-meanwhile",
    )


def require_equal(seen: ClusterHealth, etcd: Etcd, sparing: Collection[str] = ()) -> None:
    """Raises :class:`PreflightFailed` when the data of the healthy voters differ.

    ``sparing`` are members that are about to be removed: their data may differ.
    """
    found = compare(seen, etcd)
    left = {
        number: rest
        for number, names in found.by_hash.items()
        if (rest := tuple(n for n in names if n not in sparing))
    }
    if len(left) > 1:
        raise differ(replace(found, by_hash=left))


def differ(found: Comparison) -> PreflightFailed:
    """The error: the members' data differ, which members agree, and what to do."""
    said = "; ".join(f"{', '.join(names)}: {number:08x}" for number, names in found.by_hash.items())
    what = f"the members' data differ at revision {found.revision} (hashes: {said})"
    return PreflightFailed(
        "the members' data differ",
        [Problem("etcd", what, remedy(found), id="etcd-data-differ")],
        id="etcd-data-differ",
    )


def remedy(found: Comparison) -> str:
    """The commands that help when the data differ, as one line."""
    if found.differing:
        return " and then ".join(f"invoke replace-member {name}" for name in found.differing)
    if found.compared < found.voters:
        return (
            f"{found.compared} of {counted(found.voters, 'voter')} could be compared, and no "
            "majority agrees: start the others (invoke deploy-etcd), then run again"
        )
    return (
        "no majority agrees: compare their data by hand, then invoke restore-etcd FILE, or invoke "
        "recover-etcd NAME, with the member that is right"
    )


def _voters(seen: ClusterHealth) -> list[MemberHealth]:
    return [
        m for m in seen.members if m.healthy and m.status is not None and not m.status.is_learner
    ]


def _late(seen: ClusterHealth, etcd: Etcd) -> dict[str, int]:
    """The voters that have lost the newest revisions, each with its own revision.

    At an older revision these voters may have the same data as the others.
    """
    revisions = {m.status.revision for m in _voters(seen) if m.status is not None}
    if len(revisions) < 2:
        return {}
    # The next look ends with a linearizable read through each member: with it, the member has
    # applied every revision of this look. The look after that shows its new revision.
    served = {m.member.name for m in _voters(health.observe(etcd))}
    return {
        m.member.name: m.status.revision
        for m in _voters(health.observe(etcd))
        if m.member.name in served and m.status is not None and m.status.revision < max(revisions)
    }


def _with_late(
    by_hash: Mapping[int, tuple[str, ...]], late: Mapping[str, int]
) -> dict[int, tuple[str, ...]]:
    found = dict(by_hash)
    for name, revision in late.items():
        key = revision << 32
        found[key] = (*found.get(key, ()), name)
    return found


def _apart(voters: Sequence[MemberHealth], hashes: Sequence[KvHash]) -> dict[int, tuple[str, ...]]:
    """The members by compacted revision and hash: at different compacted revisions, their data
    differ."""
    found: dict[int, tuple[str, ...]] = {}
    for m, h in zip(voters, hashes, strict=True):
        key = (h.compact_revision & 0xFFFFFFFF) << 32 | h.hash
        found[key] = (*found.get(key, ()), m.member.name)
    return found


def _worst(revision: int, voters: Sequence[MemberHealth], hashes: Sequence[KvHash]) -> Comparison:
    """The comparison within the release with most differences. Only members of one release are
    compared: releases differ in the tombstones that a compaction leaves (etcd pull request 18274),
    so during an upgrade hashes may differ."""
    if len({h.hash for h in hashes}) == 1:
        return Comparison(revision, {hashes[0].hash: tuple(m.member.name for m in voters)})
    by_release: dict[str, dict[int, tuple[str, ...]]] = {}
    for m, h in zip(voters, hashes, strict=True):
        release = m.status.version if m.status is not None else ""
        found = by_release.setdefault(release, {})
        found[h.hash] = (*found.get(h.hash, ()), m.member.name)
    return Comparison(revision, max(by_release.values(), key=len, default={}))


def _ask(etcd: Etcd, voters: Sequence[MemberHealth], revision: int) -> list[KvHash | None]:
    """The hash of each voter; None for a voter that has compacted the revision away."""
    largest = max(m.status.db_size for m in voters if m.status is not None)

    timeout = 30.0 + largest / HASHED_PER_SECOND
    names = [m.member.name for m in voters]

    def ask(m: MemberHealth) -> KvHash | None:
        with (
            progress.part_of(shown, m.member.name),
            etcd.member(m.member, timeout=timeout, how=m.how) as client,
        ):
            try:
                return client.hash_kv(revision)
            except EtcdRefused as error:
                if "compacted" in error.message:
                    return None
                raise

    with (
        progress.waiting("the members' hashes of their data", within=timeout, names=names) as shown,
        ThreadPoolExecutor(len(voters), "hash") as pool,
    ):
        return list(pool.map(ask, voters))
