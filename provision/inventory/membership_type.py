"""How the workers of a cluster find each other: Alluxio's membership types."""

from __future__ import annotations

from enum import Enum
from typing import Literal


class MembershipType(str, Enum):
    """How workers and clients find each other: ``alluxio.worker.membership.manager.type``.

    Each type is a class of ``alluxio.membership`` in Alluxio: ``EtcdMembershipManager``,
    ``StaticMembershipManager``, ``ServiceRegistryMembershipManager``. The inventory's file has the
    same words. The rest of the tool asks a type's properties, and does not compare types.
    """

    ETCD = "ETCD"
    STATIC = "STATIC"
    SERVICE_REGISTRY = "SERVICE_REGISTRY"

    def __str__(self) -> str:
        return self.value

    @property
    def place(self) -> Literal["etcd", "conf/workers"]:
        """Where the list of the workers is. ``join`` of ``EtcdMembershipManager`` and of
        ``ServiceRegistryMembershipManager`` calls ``registerAndStartSync`` of
        ``ServiceDiscoveryRecipe``, which makes a key in etcd. ``StaticMembershipManager`` has no
        client of etcd: it reads a file at its start."""
        match self:
            case MembershipType.ETCD | MembershipType.SERVICE_REGISTRY:
                return "etcd"
            case MembershipType.STATIC:
                return "conf/workers"

    @property
    def in_etcd(self) -> bool:
        """Whether each worker has a live key in etcd, under a lease."""
        return self.place == "etcd"

    @property
    def permanent_keys(self) -> bool:
        """Whether each worker also has a permanent AUTHORIZED key in etcd, with its address.
        ``EtcdMembershipManager.join`` makes the key, and refuses a worker whose key has another
        address. ``ServiceRegistryMembershipManager`` writes only the live key."""
        return self is MembershipType.ETCD

    @property
    def in_file(self) -> bool:
        """Whether the workers are the lines of ``conf/workers``. A reader of this file takes the
        ports from its own properties."""
        return self.place == "conf/workers"

    @property
    def used_by_clients(self) -> bool:
        """Whether clients of Alluxio 313 read through the workers. ``ConsistentHashPolicy`` takes
        only members with the state LIVE, and ``StaticMembershipManager`` sets no state."""
        return self is not MembershipType.STATIC
