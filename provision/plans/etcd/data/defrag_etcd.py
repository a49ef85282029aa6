"""``defrag-etcd``: removes history and free pages from the databases.

According to etcd's "Maintenance" guide, compaction drops history and leaves free pages in each
member's database, and defragmentation gives these pages back to the disk. A member serves nothing
during its defragmentation, so the members take turns. No member is defragmented while it leads: the
leader alone renews leases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypedDict

from provision import progress, wait
from provision.dataclass import dataclass
from provision.engine.plan import Action, Gate, Plan, Step
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd.api.errors import EtcdRefused
from provision.etcd.cluster import gates, health, reconfigure
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth
from provision.host import disks, gather
from provision.host.facts import Probe
from provision.inventory import etcd_releases
from provision.inventory.etcd_releases import State
from provision.inventory.resolved import EtcdCluster, EtcdMember
from provision.text import size

#: A member surely compacts, hashes or rewrites at least this many bytes of its database a second.
WORKED_PER_SECOND = 5 << 20
#: Bytes a second at which a member of etcd 3.6 rewrote 2 GB on a busy machine: see
#: docs/operations.md. An idle machine is several times as fast.
REWRITTEN_PER_SECOND = 30 << 20
#: When the size in use has not fallen on any member for so many seconds, all have compacted. A
#: member works in batches of 1000 keys and shows each with its commit, after some 0.1 s.
STILL_FOR = 5.0
#: When about the same size is in use on all members for so many seconds, all have compacted, too.
ALIKE_FOR = 0.5
#: A database is rewritten when this gives back at least this share of it. A rewritten database has
#: next to nothing to give back: etcd fills its pages to nine tenths, and counts pages with keys.
GAIN_SHARE = 0.1
#: Bytes below which rewriting a database is not worth its pause.
GAIN_FLOOR = 1 << 20
#: The new file is at most this many times the size in use: pages are filled to nine tenths.
ROOM_FACTOR = 1.2
#: Bytes by which bbolt grows a file at a time (its ``AllocSize``).
GROWTH = 16 << 20


class UsageDocument(TypedDict):
    """A member's database; sizes in bytes."""

    member: str
    leader: bool
    size: int
    in_use: int
    quota: int | None
    quota_known: bool
    alarms: list[str]


@dataclass(frozen=True, slots=True)
class Usage:
    """One member's database. Sizes in bytes; ``quota`` None: unlimited, or not ``known``."""

    member: str
    leader: bool
    size: int
    in_use: int
    quota: int | None
    alarms: tuple[str, ...]
    known: bool = True

    @property
    def full(self) -> bool:
        """Whether etcd would raise NOSPACE at once: etcd compares the file's size, not the size in
        use."""
        return self.quota is not None and self.size >= self.quota

    @property
    def gain(self) -> int:
        """Bytes that rewriting the database gives back."""
        return max(0, self.size - self.in_use)

    @property
    def worthwhile(self) -> bool:
        """Whether rewriting it gives back enough.

        etcd updates ``in_use`` with each write (``begin`` of its ``backend``). So while NOSPACE
        stands, ``in_use`` may still contain pages that a compaction has freed.
        """
        if self.full or "NOSPACE" in self.alarms:
            return True
        return self.gain >= GAIN_FLOOR and self.gain >= GAIN_SHARE * self.size

    @property
    def room(self) -> int:
        """Bytes that the new file needs beside the old file (``defragdb`` of etcd's ``backend``
        writes it in the same folder)."""
        return int(self.in_use * ROOM_FACTOR) + GROWTH

    def document(self) -> UsageDocument:
        return {
            "member": self.member,
            "leader": self.leader,
            "size": self.size,
            "in_use": self.in_use,
            "quota": self.quota,
            "quota_known": self.known,
            "alarms": list(self.alarms),
        }


def usage(seen: ClusterHealth) -> list[Usage]:
    """The databases of the members that answered."""
    return [
        Usage(
            m.member.name,
            m.member.name == seen.leader,
            m.status.db_size,
            m.status.db_in_use,
            m.quota,
            m.status.alarms,
            m.quota_known,
        )
        for m in seen.members
        if m.status is not None
    ]


def plan(
    etcd: Etcd,
    seen: ClusterHealth,
    *,
    compact: bool,
    every: bool = False,
    free: Mapping[str, int | None] | None = None,
) -> Plan:
    """With ``compact``, compact to the newest revision. Then defragment: followers first, then the
    leader.

    Before its defragmentation, the leader hands leadership to a follower. Members with nothing to
    gain are left out, except with ``every`` and after a compaction: the gain then shows only with
    the next write. ``free`` are the free bytes on the members' disks, by name, as far as known.

    Raises :class:`Unhealthy` when a member is not healthy or reports that data differ. Raises
    :class:`PreflightFailed` when a disk has no room for a second file, or when a crash of the
    running release during the defragmentation can damage data.
    """
    cluster = etcd.cluster
    _require(seen)
    etcd_releases.require_fit(seen.releases, {State.DEFRAG}, "defrag-etcd")
    steps: list[Step] = []
    sizes = {u.member: u for u in usage(seen)}
    largest = max(u.size for u in sizes.values())
    if compact:
        steps.append(
            Step(
                "compact",
                calls=(
                    Action(
                        "drop the history of every key up to the newest revision",
                        lambda: _compact(etcd, largest),
                    ),
                ),
            )
        )
    chosen = [
        m
        for m in gates.order(list(cluster.members), seen)
        if every or compact or sizes[m.name].worthwhile
    ]
    if free is not None and not compact:
        _require_room(cluster, [sizes[m.name] for m in chosen], free)
    for member in chosen:
        others = [m for m in cluster.members if m.name != member.name]
        steps.append(_defrag_step(etcd, member, others, sizes[member.name], every=every or compact))
    guards = tuple(m.machine for m in cluster.members)
    notes = [_stalls(cluster, sizes)] if len(cluster.members) == 1 and chosen else []
    notes += [
        disks.unmeasured(m.place, [m.data_dir], "warning")
        for m in chosen
        if free is not None and free.get(m.name, 0) is None
    ]
    return Plan("defrag-etcd", cluster.name, tuple(steps), tuple(notes), guards)


def free_space(etcd: Etcd) -> dict[str, int | None]:
    """Free bytes on the disk of each member's data, by name; None where the host's df does not say.
    Hosts that do not answer are left out."""
    cluster = etcd.cluster
    probes = {m.machine: Probe(disks=(m.data_dir,)) for m in cluster.members}
    facts, _ = gather.gather_facts(etcd.fleet, probes)
    return {
        m.name: disk.available if (disk := facts[m.machine].disks.get(m.data_dir)) else None
        for m in cluster.members
        if m.machine in facts
    }


def _defrag_step(
    etcd: Etcd,
    member: EtcdMember,
    others: Sequence[EtcdMember],
    now: Usage,
    *,
    every: bool,
) -> Step:
    calls = [
        Action(
            f"rewrite its database of {size(now.size)}, {size(now.in_use)} in use",
            partial(_defragment, etcd, member, others, every=every),
        )
    ]
    if now.leader and others:
        calls.insert(
            0,
            Action(
                f"etcd: another member takes the lead, because {member.name} does not answer "
                "during the defragmentation",
                partial(reconfigure.move_leadership_off, etcd, member, others),
            ),
        )
    title = f"defragment {member.name}" + (" (leader)" if now.leader else "")
    before, after = _reads(etcd), _reads(etcd)
    return Step(title, calls=tuple(calls), before=before, after=after)


def _stalls(cluster: EtcdCluster, sizes: Mapping[str, Usage]) -> Problem:
    now = sizes[cluster.members[0].name]
    seconds = max(1, round(now.in_use / REWRITTEN_PER_SECOND))
    return Problem(
        f"etcd member {now.member}",
        f"is the only member: while its database is rewritten ({size(now.in_use)}, some "
        f"{seconds} s), etcd answers no read, write or renewal of a lease, so workers may lose "
        "their leases",
        "run it at a time when this does no harm",
        "warning",
        id="defrag-stalls",
    )


def _require_room(
    cluster: EtcdCluster, chosen: Sequence[Usage], free: Mapping[str, int | None]
) -> None:
    """Raises :class:`PreflightFailed` when a disk has no room for the rewritten database."""
    where = {m.name: m.place for m in cluster.members}
    data = {m.name: m.data_dir for m in cluster.members}
    problems = [
        Problem(
            where[u.member],
            f"{data[u.member]} has {size(there)} free; the rewritten database needs "
            f"{size(u.room)} beside the old one",
            "free space there, then run again",
            id="disk-full",
        )
        for u in chosen
        if (there := free.get(u.member)) is not None and there < u.room
    ]
    if problems:
        raise PreflightFailed("there is no room to defragment", problems, id="disk-full")


def _compact(etcd: Etcd, largest: int) -> None:
    with etcd.any(timeout=_timeout(largest)) as client:
        revision = client.status().revision
        try:
            client.compact(revision)
        except EtcdRefused as error:
            if "compacted" not in error.message:  # an earlier run, or etcd itself, has done it
                raise
    _wait_compacted(etcd, _timeout(largest))


def _wait_compacted(etcd: Etcd, within: float) -> None:
    """Wait until every member has freed the pages of compacted history, at most ``within`` seconds.

    The compacting call waits only for the member that serves it. The other members have the same
    data, so in the end about the same size of their databases is in use.
    """
    last: dict[str, int] = {}
    with progress.waiting("the members free the compacted pages", within=within):
        limit = wait.Deadline(within)
        still, alike = wait.Deadline(STILL_FOR), wait.Deadline(ALIKE_FOR)
        while True:
            now = {u.member: u.in_use for u in usage(health.observe(etcd))}
            if any(n < last.get(name, n) for name, n in now.items()):
                still = wait.Deadline(STILL_FOR)
            least = min(now.values(), default=0)
            if any(n > least * (1 + GAIN_SHARE) + GAIN_FLOOR for n in now.values()):
                alike = wait.Deadline(ALIKE_FOR)
            if alike.passed or still.passed or limit.passed:
                return
            last = now
            limit.pause(gates.POLL_SECONDS)


def _defragment(
    etcd: Etcd,
    member: EtcdMember,
    others: Sequence[EtcdMember],
    *,
    every: bool,
) -> None:
    """Rewrite the database of ``member``. If another member can lead, ``member`` must not lead
    meanwhile."""
    seen = health.observe(etcd)
    now = next((u for u in usage(seen) if u.member == member.name), None)
    if now is not None and not (every or now.worthwhile):
        return  # nothing to gain: the compaction freed nothing, or an earlier run did this
    if now is not None:
        _require_room(etcd.cluster, [now], free_space(etcd))
    if others:
        reconfigure.move_leadership_off(etcd, member, others)
    length = now.size if now is not None else 0
    timeout = _timeout(length)
    with (
        progress.waiting(f"{member.name} rewrites its database", within=timeout),
        etcd.member(member, timeout=timeout) as client,
    ):
        client.defragment()


def _timeout(length: int) -> float:
    return 30.0 + length / WORKED_PER_SECOND


def _require(seen: ClusterHealth) -> None:
    gates.require_healthy(seen)
    if any("CORRUPT" in u.alarms for u in usage(seen)):
        raise Unhealthy(
            "an alarm says that the members' data differ", seen.problems, id="alarm-corrupt"
        )


def _reads(etcd: Etcd) -> Gate:
    """A gate: every member serves reads. It tries no write: NOSPACE may be the reason for the
    run."""

    def check() -> None:
        _require(gates.until(lambda: health.observe(etcd), lambda h: h.all_healthy))

    return Gate("every member serves reads by quorum", check)


def _quota(u: Usage) -> str:
    if u.quota is None:
        return "none" if u.known else "not known"
    return f"{size(u.quota)} ({100 * u.size // u.quota} % full)"


def rows(now: Sequence[Usage], before: Sequence[Usage] = ()) -> list[tuple[str, ...]]:
    """A table's rows: member, role, size before, size, in use, quota, alarms."""
    old = {u.member: u for u in before}
    return [
        (
            u.member,
            "leader" if u.leader else "follower",
            size(old[u.member].size) if u.member in old else "",
            size(u.size),
            size(u.in_use),
            _quota(u),
            ", ".join(u.alarms),
        )
        for u in now
    ]
