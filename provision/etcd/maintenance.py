"""``defrag-etcd`` and ``disarm-alarms``: history, free pages, quota and alarms.

As etcd's "Maintenance" guide has it: compaction drops history and leaves free pages in each
member's database, defragmentation gives those back to the disk, one member at a time since a
member serves nothing meanwhile, and a NOSPACE alarm is disarmed when the database is small again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from provision.errors import Problem, Unhealthy
from provision.etcd import alarms, gates, health, reach, releases
from provision.etcd.failures import EtcdRefused
from provision.etcd.health import ClusterHealth
from provision.etcd.releases import State
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory
from provision.plan import Call, Gate, Plan, Step
from provision.remote import Fleet
from provision.text import size

#: Bytes a second at which a member surely compacts, hashes or rewrites its database.
WORKED_PER_SECOND = 5 << 20


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
        """Whether etcd would raise NOSPACE at once: it compares the file, not what is used."""
        return self.quota is not None and self.size >= self.quota

    def document(self) -> dict[str, object]:
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


def defrag_plan(inventory: Inventory, fleet: Fleet, seen: ClusterHealth, *, compact: bool) -> Plan:
    """Compact to the newest revision if asked to, then defragment: followers, then the leader.

    Raises :class:`Unhealthy` unless every member is healthy and none says that data differ, and
    :class:`PreflightFailed` where a crash of the release amid it can damage data.
    """
    cluster = inventory.etcd
    _require(seen)
    releases.require_fit(seen.releases, {State.DEFRAG}, "defrag-etcd")
    steps: list[Step] = []
    sizes = {u.member: u for u in usage(seen)}
    largest = max(u.size for u in sizes.values())
    if compact:
        steps.append(
            Step(
                "compact",
                calls=(
                    Call(
                        "drop the history of every key up to the newest revision",
                        lambda: _compact(cluster, fleet, largest),
                    ),
                ),
            )
        )
    for member in gates.order(list(cluster.members), seen):
        now = sizes[member.name]
        steps.append(
            Step(
                f"defragment {member.name}" + (" (leader)" if now.leader else ""),
                calls=(
                    Call(
                        f"rewrite its database of {size(now.size)}, {size(now.in_use)} in use",
                        partial(_defragment, cluster, fleet, member, now.size),
                    ),
                ),
                before=_reads(cluster, fleet),
                after=_reads(cluster, fleet),
            )
        )
    guards = tuple(m.machine for m in cluster.members)
    return Plan("defrag-etcd", cluster.name, tuple(steps), guards=guards)


def disarm_plan(inventory: Inventory, fleet: Fleet) -> Plan:
    """Disarm every alarm whose cause is gone. Empty when there is no alarm.

    Raises :class:`Unhealthy` with what to do about the others: see :func:`alarms.unsolved`.
    """
    cluster = inventory.etcd
    seen = health.observe(cluster, fleet, quotas=True)
    raised = alarms.standing(cluster, fleet)
    kinds = sorted({alarm.kind for alarm in raised})
    problems: list[Problem] = []
    calls: list[Call] = []
    for kind in kinds:
        if unsolved := alarms.unsolved(seen, fleet, kind):
            problems += unsolved
            continue
        named = [alarms.whose(a, seen) for a in raised if a.kind == kind]
        call = alarms.disarm(cluster, fleet, kind)
        calls.append(replace(call, what=f"disarm {kind} ({_cause(seen, kind)}; {_named(named)})"))
    if problems:
        raise Unhealthy(
            f"{len(kinds) - len(calls)} of {len(kinds)} kinds of alarm are not solved yet",
            problems,
            id="alarm-raised",
        )
    steps = (Step("disarm alarms", calls=tuple(calls)),) if calls else ()
    guards = tuple(m.machine for m in cluster.members)
    return Plan("disarm-alarms", cluster.name, steps, guards=guards)


def _cause(seen: ClusterHealth, kind: str) -> str:
    if kind == "CORRUPT":
        return "the data of all members are the same"
    fullest = max(usage(seen), key=lambda u: u.size / u.quota if u.quota else 0.0)
    quota = f" of {size(fullest.quota)}" if fullest.quota else ""
    return f"the fullest database has {size(fullest.size)}{quota}"


def _named(names: Sequence[str]) -> str:
    return f"the alarm names {' and '.join(names)}"


def _compact(cluster: EtcdCluster, fleet: Fleet, largest: int) -> None:
    with health.any_client(cluster, fleet, timeout=_timeout(largest)) as client:
        revision = client.status().revision
        try:
            client.compact(revision)
        except EtcdRefused as error:
            if "compacted" not in error.message:  # an earlier run, or etcd itself, was faster
                raise


def _defragment(cluster: EtcdCluster, fleet: Fleet, member: EtcdMember, length: int) -> None:
    with reach.connect(cluster, fleet, member, timeout=_timeout(length)) as client:
        client.defragment()


def _timeout(length: int) -> float:
    return 30.0 + length / WORKED_PER_SECOND


def _require(seen: ClusterHealth) -> None:
    gates.require_healthy(seen)
    if any("CORRUPT" in u.alarms for u in usage(seen)):
        raise Unhealthy(
            "an alarm says that the members' data differ", seen.problems, id="alarm-corrupt"
        )


def _reads(cluster: EtcdCluster, fleet: Fleet) -> Gate:
    """Every member serves reads. Writes are not asked for: NOSPACE may be why this runs."""

    def check() -> None:
        _require(gates.until(lambda: health.observe(cluster, fleet), lambda h: h.all_healthy))

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
