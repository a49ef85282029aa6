"""A cluster's change from one membership type to another: the type in force on each host.

The change itself is an ordinary change of ``alluxio-site.properties``, rolled out like any other.
Two things are special: the time between the first restarted worker and the last, and the keys that
the old membership leaves in etcd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provision.alluxio.worker import written
from provision.alluxio.worker.membership_properties import TYPE
from provision.host.facts import HostFacts
from provision.inventory.membership_type import MembershipType
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Machine


def in_force(facts: HostFacts) -> MembershipType | None:
    """The type last written for the host's worker; None without a type, or with an unknown one."""
    said = written.values(facts).get(TYPE, "").strip()
    return MembershipType(said) if said in list(MembershipType) else None


def away(
    alluxio: AlluxioCluster, workers: Sequence[AlluxioWorker], facts: Mapping[Machine, HostFacts]
) -> dict[MembershipType, list[str]]:
    """The installed workers with another last written type than the inventory's, by type."""
    found: dict[MembershipType, list[str]] = {}
    for w in workers:
        kind = in_force(facts[w.machine])
        if kind is not None and kind != alluxio.membership:
            found.setdefault(kind, []).append(w.name)
    return found
