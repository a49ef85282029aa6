"""The conditions that steps on a running cluster wait for, before and after a member is touched."""

from __future__ import annotations

import time
from collections.abc import Callable

from provision.errors import Unhealthy
from provision.etcd import health
from provision.etcd.health import ClusterHealth
from provision.inventory.resolved import EtcdCluster, EtcdMember
from provision.plan import Gate
from provision.remote import Fleet

#: Seconds a member has to become healthy after it was started or restarted.
HEALTHY_WITHIN = 60.0


def require_healthy(seen: ClusterHealth) -> None:
    """Raises :class:`Unhealthy` unless every member is."""
    if not seen.all_healthy:
        raise Unhealthy(
            f"{seen.healthy_count} of {len(seen.members)} members are healthy "
            f"(quorum is {seen.quorum})",
            seen.problems,
        )


def all_healthy(cluster: EtcdCluster, fleet: Fleet, member: EtcdMember | None = None) -> Gate:
    """After a change: every member is healthy, and ``member`` (or each) takes a quorum write."""

    def check() -> None:
        require_healthy(until(lambda: health.observe(cluster, fleet), lambda h: h.all_healthy))
        health.verify_write(cluster, fleet, member)

    return Gate("every member healthy, by a quorum write and read through each", check)


def can_lose(cluster: EtcdCluster, fleet: Fleet, member: EtcdMember) -> Gate:
    """Before ``member`` is disturbed: every other member is healthy, or it is down already."""

    def check() -> None:
        seen = health.observe(cluster, fleet)
        others = [m for m in cluster.members if m.name != member.name]
        sick = [m for m in others if not seen.healthy(m.name)]
        if sick and seen.healthy(member.name):
            names = ", ".join(m.name for m in sick)
            raise Unhealthy(f"{member.name} is not touched while {names} is down", seen.problems)

    return Gate(f"the cluster can do without {member.name} for a moment", check)


def until(
    look: Callable[[], ClusterHealth],
    good: Callable[[ClusterHealth], bool],
    within: float = HEALTHY_WITHIN,
) -> ClusterHealth:
    """Look until it is good, or ``within`` seconds have passed. Returns the last look."""
    deadline = time.monotonic() + within
    while True:
        seen = look()
        if good(seen) or time.monotonic() > deadline:
            return seen
        time.sleep(0.05)


def order(members: list[EtcdMember], seen: ClusterHealth) -> list[EtcdMember]:
    """Unhealthy members first (that is a repair), then followers, the leader last."""
    return sorted(members, key=lambda m: (seen.healthy(m.name), m.name == seen.leader))
