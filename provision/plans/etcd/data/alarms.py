"""etcd's alarms: which alarms stand, whether their cause is gone, and how they are disarmed.

An alarm stays in etcd's database until somebody disarms it (``AlarmStore`` of etcd's ``v3alarm``),
and a snapshot contains it. While an alarm stands, etcd refuses writes. With CORRUPT etcd also
refuses leases, compactions and deletions, but not reads and not changes of the members
(``applierV3Capped`` and ``applierV3Corrupt`` of etcd's ``apply`` package).
"""

from __future__ import annotations

from functools import partial

from provision.engine.plan import Action
from provision.errors import Problem, Unhealthy
from provision.etcd.api.values import Alarm, RegisteredMember
from provision.etcd.cluster import gates, hashes, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.hashes import Comparison
from provision.etcd.cluster.health import ClusterHealth
from provision.text import counted, size

#: The kinds of alarm in etcd (``AlarmType`` of its ``rpc.proto``).
KINDS = ("CORRUPT", "NOSPACE")
RAISE_QUOTA = "raise etcd.settings.quota-backend-bytes and invoke deploy-etcd"


def standing(etcd: Etcd) -> list[Alarm]:
    """The alarms, by consensus. Raises :class:`Unhealthy` when no member serves."""
    with etcd.any() as client:
        return client.alarms()


def disarm(etcd: Etcd, kind: str) -> Action:
    """Disarm every alarm of ``kind``, for all members, if its cause is gone when the call runs.

    When the cause is not gone, the call raises :class:`Unhealthy` with the remedy.
    """

    def do() -> None:
        # A member that stays down is no reason to wait: CORRUPT is not disarmed without it.
        look = partial(health.observe, etcd, quotas=True)
        seen = gates.until(look, lambda h: h.all_healthy, gates.BACK_WITHIN)
        _disarm(etcd, seen, kind)

    return Action(f"etcd: disarm {kind}, when its cause is gone", do)


def settle(etcd: Etcd) -> Action:
    """Disarm the alarms that were in the members' older data, such as a snapshot.

    An alarm stays while its cause is still there.
    """

    def do() -> None:
        look = partial(health.observe, etcd, quotas=True)
        seen = gates.until(look, lambda h: h.all_healthy)
        gates.require_healthy(seen)
        for kind in sorted(seen.alarms):
            if not unsolved(seen, etcd, kind):
                _disarm(etcd, seen, kind)

    return Action("etcd: disarm the alarms that came with the data, if their cause is gone", do)


def unsolved(seen: ClusterHealth, etcd: Etcd, kind: str) -> list[Problem]:
    """Why an alarm of ``kind`` must stay, with the remedies; empty when its cause is gone.

    NOSPACE: a member's database has reached its quota. CORRUPT: the voters' data are not the same,
    or not all of them could be compared.
    """
    if kind == "NOSPACE":
        return _full(seen)
    if kind == "CORRUPT":
        return _differing(seen, hashes.compare(seen, etcd))
    what = f"an alarm that this tool does not know: {kind}"
    return [Problem("etcd", what, "see etcdctl", id="alarm-raised")]


def whose(alarm: Alarm, seen: ClusterHealth) -> str:
    """The member that an alarm names, in words. An alarm may name no member, or one that has
    left."""
    names = {m.status.member_id: m.member.name for m in seen.members if m.status is not None}
    names |= {r.id: r.name for r in seen.registered if r.name}
    if not alarm.member_id:
        return "no member"
    return names.get(alarm.member_id, f"{alarm.member_id:x}, which is not a member")


def _disarm(etcd: Etcd, seen: ClusterHealth, kind: str) -> None:
    if problems := unsolved(seen, etcd, kind):
        raise Unhealthy(f"the alarm {kind} is not solved", problems, id=problems[0].id)
    with etcd.any() as client:
        for alarm in client.alarms():
            if alarm.kind == kind:
                client.disarm(alarm)


def _full(seen: ClusterHealth) -> list[Problem]:
    # There is no wait for a member that is down: it can only be replaced when etcd takes writes
    # again. If it comes back full, it raises the alarm again.
    problems = []
    for m in seen.members:
        where = f"etcd member {m.member.name}"
        if m.status is not None and not m.quota_known:
            what = "alarm NOSPACE, and the quota that it runs with cannot be read"
            remedy = "see whether its client port serves /metrics"
            problems.append(Problem(where, what, remedy, id="alarm-nospace"))
        elif m.status is not None and m.quota is not None and m.status.db_size >= m.quota:
            what = (
                f"alarm NOSPACE: its database has {size(m.status.db_size)} "
                f"({size(m.status.db_in_use)} in use), its quota is {size(m.quota)}"
            )
            remedy = "invoke defrag-etcd --compact; if that is not enough, delete keys, or "
            problems.append(Problem(where, what, remedy + RAISE_QUOTA, id="alarm-nospace"))
    return problems


def _differing(seen: ClusterHealth, found: Comparison) -> list[Problem]:
    voters = [r for r in seen.registered if not r.is_learner]
    if found.equal and found.compared == len(voters):
        return []
    if found.equal and len(voters) == 1:
        return []  # there is no other member
    if found.equal:
        away = ", ".join(_name(r) for r in voters if not seen.is_member_healthy(r.name))
        could = f"{found.compared} of {counted(len(voters), 'voter')} could be compared"
        what = f"alarm CORRUPT: {could}"
        remedy = f"start the other members first ({away}): invoke deploy-etcd"
        if not away:  # during an upgrade: see hashes
            remedy = "their releases differ, and so may their hashes: see etcdctl alarm disarm"
        return [Problem("etcd", what, remedy, id="alarm-corrupt")]
    said = "; ".join(", ".join(names) for names in found.by_hash.values())
    what = f"alarm CORRUPT: the members' data differ at revision {found.revision} ({said})"
    names = found.differing
    where = f"etcd member {', '.join(names)}" if names else "etcd"
    return [Problem(where, what, hashes.remedy(found), id="alarm-corrupt")]


def _name(member: RegisteredMember) -> str:
    return member.name or f"{member.id:x}"
