"""What it costs etcd when many workers log in, and how many may do so together.

A member proves a password with bcrypt, on purpose a slow hash; etcd's ``bcrypt-cost`` says how
slow. Thousands of logins at once would keep all members' processors from their own work for longer
than a worker's lease lasts. ``bench/fleet/logins`` measures it.
"""

from __future__ import annotations

from provision.errors import Problem
from provision.inventory.resolved import AlluxioCluster, EtcdCluster

#: Seconds of one core for a login at etcd's default cost; each step more doubles them. Measured:
#: 0.04 s; an older processor, or one that others use, takes longer.
SECONDS, COST = 0.1, 10
#: The logins of one group may take so much of a lease's time.
SHARE = 4


def seconds(cluster: EtcdCluster, count: int) -> float:
    """Seconds for ``count`` logins, evenly at all members; each has one core for them."""
    return count * SECONDS * 2.0 ** (_cost(cluster) - COST) / max(1, len(cluster.members))


def together(cluster: EtcdCluster, alluxio: AlluxioCluster) -> int:
    """How many workers may log in at the same time."""
    fitting = alluxio.failure_detection_timeout / SHARE / seconds(cluster, 1)
    return max(1, int(fitting))


def note(cluster: EtcdCluster, alluxio: AlluxioCluster, count: int) -> Problem | None:
    """For the plan: that ``count`` workers log in again in several groups, and why; else None."""
    size = together(cluster, alluxio)
    if count <= size:
        return None
    lease = alluxio.failure_detection_timeout
    return Problem(
        "etcd.auth",
        f"{count} workers log in again; with bcrypt-cost {_cost(cluster)} this takes every member "
        f"some {seconds(cluster, count):.0f} s of a core, and a lease lasts {lease} s: they are "
        f"restarted in groups of {size}, and those that wait are offline when their lease ends",
        "set a smaller bcrypt-cost in etcd.settings and run invoke deploy-etcd before",
        "warning",
        id="logins-slow",
    )


def _cost(cluster: EtcdCluster) -> int:
    """The highest of the members; etcd takes its default for a cost that bcrypt does not have."""
    given = [member.settings.get("bcrypt-cost") for member in cluster.members]
    known = [n for n in given if isinstance(n, int) and 4 <= n <= 31]
    return max([*known, *([COST] if len(known) < len(given) or not given else [])])
