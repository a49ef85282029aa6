"""What it costs etcd when many workers log in, and how many may be restarted at a time.

A member proves a password with bcrypt, on purpose a slow hash; etcd's ``bcrypt-cost`` says how
slow. Hundreds of logins at once keep a member's processors from its own work: etcd gives up each
request after some 7 s, and the leader loses its leadership (both seen: ``bench/fleet/logins``).
"""

from __future__ import annotations

from provision.errors import Problem
from provision.inventory.resolved import AlluxioCluster, EtcdCluster
from provision.text import counted

#: Seconds of one core for a login at etcd's default cost; each step more doubles them. Measured:
#: 0.05 s; an older processor, or one that others use, takes longer.
SECONDS, COST = 0.1, 10
#: The logins of workers that restart together may take so many seconds, and so much of the time of
#: a lease.
WITHIN, SHARE = 3.0, 4


def seconds(cluster: EtcdCluster, count: int) -> float:
    """Seconds for ``count`` logins, evenly at all members; each has one core for them."""
    return count * SECONDS * 2.0 ** (_cost(cluster) - COST) / max(1, len(cluster.members))


def together(cluster: EtcdCluster, alluxio: AlluxioCluster) -> int:
    """How many workers may be restarting at the same time."""
    within = min(WITHIN, alluxio.failure_detection_timeout / SHARE)
    return max(1, int(within / seconds(cluster, 1)))


def note(
    cluster: EtcdCluster, alluxio: AlluxioCluster, count: int, parallel: int
) -> Problem | None:
    """For the plan: that the logins of ``count`` workers take long, or make fewer than ``parallel``
    of them restart at a time; None when they do neither."""
    at_once, lease = min(count, parallel), alluxio.failure_detection_timeout
    fitting = min(at_once, together(cluster, alluxio))
    if fitting == at_once and seconds(cluster, count) <= lease / SHARE:
        return None
    return Problem(
        "etcd.auth",
        f"{counted(count, 'worker logs', 'workers log')} in again, at most {fitting} at a time; "
        f"with bcrypt-cost {_cost(cluster)} this takes every member some "
        f"{seconds(cluster, count):.0f} s of a core, and a lease lasts {lease} s",
        "set a smaller bcrypt-cost in etcd.settings and run invoke deploy-etcd before",
        "warning",
        id="logins-slow",
    )


def _cost(cluster: EtcdCluster) -> int:
    """The highest of the members; etcd takes its default for a cost that bcrypt does not have."""
    given = [member.settings.get("bcrypt-cost") for member in cluster.members]
    known = [n for n in given if isinstance(n, int) and 4 <= n <= 31]
    return max([*known, *([COST] if len(known) < len(given) or not given else [])])
