"""Gates of steps on a running cluster: the conditions before and after a change of a member."""

from __future__ import annotations

from collections.abc import Callable, Collection

from provision import progress, wait
from provision.engine.plan import Gate
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd.cluster import hashes, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth
from provision.inventory.resolved import EtcdMember
from provision.text import share, verb

#: Seconds for a member to become healthy after a start or a restart.
HEALTHY_WITHIN = 60.0
#: Seconds for a member that is down for a moment to come back: systemd starts it again after two
#: seconds (``RestartSec``), and an election takes one or two.
BACK_WITHIN = 20.0
POLL_SECONDS = 0.05


def require_healthy(seen: ClusterHealth) -> None:
    """Raises :class:`Unhealthy` unless every member is healthy."""
    if not seen.all_healthy:
        raise Unhealthy(
            f"{share(seen.healthy_count, len(seen.members), 'member')} healthy "
            f"(quorum is {seen.quorum}): wait until the others are back, or see invoke check-nodes",
            seen.problems,
            id="quorum-at-risk",
        )


def wait_until_recovered(etcd: Etcd, seen: ClusterHealth) -> ClusterHealth:
    """``seen`` if every member is healthy in it, or a later look in which all are healthy. A killed
    run may have left a member while it was starting. Raises :class:`Unhealthy` after
    :data:`BACK_WITHIN` seconds."""
    if not seen.all_healthy:
        seen = until(lambda: health.observe(etcd), lambda h: h.all_healthy, BACK_WITHIN)
    require_healthy(seen)
    return seen


def require_writable(seen: ClusterHealth, sparing: Collection[str] = ()) -> None:
    """Raises :class:`PreflightFailed` when an alarm stands of another kind than ``sparing``.

    etcd then refuses writes, so a change could not be verified, and would stop half-way.
    """
    kinds = sorted(seen.alarms - set(sparing))
    if not kinds:
        return
    problems = [
        Problem(
            "etcd",
            f"alarm {kind}: etcd takes no writes",
            health.ALARM_REMEDIES.get(kind, ""),
            id=health.ALARM_IDS.get(kind, "alarm-raised"),
        )
        for kind in kinds
    ]
    first = verb(kinds, "an alarm of etcd has", "alarms of etcd have")
    raise PreflightFailed(
        f"{first} to be solved first ({', '.join(kinds)})",
        problems,
        id=problems[0].id,
    )


def all_healthy(
    etcd: Etcd, member: EtcdMember | None = None, standing: Collection[str] = ()
) -> Gate:
    """The gate after a change: every member is healthy, and ``member`` (or each member) takes a
    quorum write.

    ``standing`` are the kinds of alarm that the plan is to solve. While only such an alarm stands,
    etcd refuses writes, and the quorum reads are the proof.
    """

    def check() -> None:
        with progress.waiting("a quorum write through etcd's members", within=HEALTHY_WITHIN):
            deadline = wait.Deadline(HEALTHY_WITHIN)
            while True:
                look = until(lambda: health.observe(etcd), lambda h: h.all_healthy, deadline.left)
                require_healthy(look)
                if look.alarms and look.alarms <= set(standing):
                    return None
                try:
                    return health.verify_write(etcd, member)
                except Unhealthy:  # for example, an election has begun since the look
                    if deadline.passed:
                        raise
                deadline.pause(POLL_SECONDS)

    title = "every member healthy, by a quorum write and read through each"
    if standing:
        title += f" (only a read while {health.raised(standing, 'or')})"
    return Gate(title, check)


def all_equal(healthy: Gate, etcd: Etcd) -> Gate:
    """The gate after members were started without etcd's own check: ``healthy``, and all members
    have the same data."""

    def check() -> None:
        healthy.check()
        hashes.require_equal(health.observe(etcd), etcd)

    return Gate(f"{healthy.title}, and all hold the same data", check)


def require_others_healthy(etcd: Etcd, member: EtcdMember) -> Gate:
    """The gate before ``member`` is disturbed: every other member is healthy, or ``member`` is down
    already.

    A healthy ``member`` must also have the same data as the others. Otherwise etcd's own check
    would not let it start again (:mod:`provision.etcd.member.start_check`).
    """
    others = [m for m in etcd.cluster.members if m.name != member.name]

    def sick(seen: ClusterHealth) -> list[EtcdMember]:
        return [m for m in others if not seen.is_member_healthy(m.name)]

    def settled(seen: ClusterHealth) -> bool:
        # A member that answers without serving may be waiting for an election, like the others.
        answers = any(m.status is not None for m in seen.members if m.member.name == member.name)
        return not answers or not sick(seen)

    def check() -> None:
        look = until(lambda: health.observe(etcd), settled, BACK_WITHIN)
        if not look.is_member_healthy(member.name):
            return
        if away := sick(look):
            names = ", ".join(m.name for m in away)
            raise Unhealthy(
                f"{member.name} is not changed while {names} {verb(away)} down",
                look.problems,
                id="quorum-at-risk",
            )
        hashes.require_equal(look, etcd)

    return Gate(f"every member except {member.name} is healthy", check)


def until(
    look: Callable[[], ClusterHealth],
    good: Callable[[ClusterHealth], bool],
    within: float = HEALTHY_WITHIN,
) -> ClusterHealth:
    """As :func:`provision.wait.until`, for looks at the members."""
    return wait.until(
        *(look, good, within, POLL_SECONDS),
        what="etcd's members",
        names=lambda seen: [m.member.name for m in seen.members if not m.healthy],
    )


def order(members: list[EtcdMember], seen: ClusterHealth) -> list[EtcdMember]:
    """Unhealthy members first (their change is a repair), then followers, the leader last."""
    return sorted(members, key=lambda m: (seen.is_member_healthy(m.name), m.name == seen.leader))
