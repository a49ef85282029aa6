"""Alluxio clusters that share one etcd: their names, and the clusters that Alluxio mixes up.

A cluster is a name below ``/DHT/`` or ``/ServiceDiscovery/``; etcd knows nothing else about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import ID_LIMIT, RegistrationSnapshot
from provision.alluxio.worker import desired
from provision.errors import Problem, ProvisionError
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.login import root_login
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.reach import describe
from provision.inventory.resolved import Inventory
from provision.text import printable

SCHEMA = "alluxio-provision/clusters/1"
#: Seconds for each call of a read from one member alone.
LOCAL_SECONDS = 3.0
OURS, DECLARED = "this one", "in other_clusters"


class Cluster(NamedTuple):
    """One cluster: how many workers are AUTHORIZED, and how many have a key under a lease."""

    name: str
    authorized: int
    live: int
    inventory: str
    confusable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Clusters:
    """``complete``: the login may read every cluster's keys, so none is missing here."""

    clusters: tuple[Cluster, ...]
    complete: bool
    revision: int

    def document(self) -> dict[str, object]:
        """The clusters for ``--format json``."""
        return {
            "schema": SCHEMA,
            "revision": self.revision,
            "complete": self.complete,
            "clusters": [
                {
                    "name": c.name,
                    "authorized": c.authorized,
                    "live": c.live,
                    "this_inventory": c.inventory == OURS,
                    "declared": bool(c.inventory),
                    "mixed_up_with": list(c.confusable),
                }
                for c in self.clusters
            ],
        }


def look(inventory: Inventory, etcd: Etcd) -> Clusters:
    """Every cluster in ``inventory``'s etcd, all at one revision; the inventory's own cluster is
    first.

    It asks as root if the inventory has root's password, else as the workers' own user. Raises
    :class:`provision.errors.Unhealthy` when etcd does not serve.
    """
    alluxio = inventory.alluxio
    if alluxio is not None and root_login(etcd.cluster) is None:
        etcd = etcd.as_worker(desired.login(alluxio))
    own = inventory.cluster.encode()
    with etcd.any() as client:
        try:
            found, complete = registrations.children(client), True
        except EtcdUnreachable as error:
            if error.reason is not Reason.DENIED:
                raise
            found, complete = set(), False
        revision, counts = 0, {}
        for name in sorted(found | {own}, key=lambda n: (n != own, n)):
            revision, authorized, live = registrations.counts(client, name, revision)
            counts[printable(name, ID_LIMIT)] = authorized, live
    others = list(counts)
    return Clusters(
        tuple(
            Cluster(
                name,
                *counts[name],
                OURS
                if name == inventory.cluster
                else DECLARED
                if name in inventory.other_clusters
                else "",
                tuple(registrations.confusable(name, others)),
            )
            for name in counts
        ),
        complete,
        revision,
    )


@dataclass(frozen=True, slots=True)
class LocalLook:
    """The live workers of other clusters, by cluster, in the members' own data, which may be old.

    ``asked``: the members that answered. ``problems``: why the others did not.
    """

    live: dict[str, int]
    asked: tuple[str, ...]
    problems: tuple[Problem, ...]


def look_locally(inventory: Inventory, etcd: Etcd) -> LocalLook:
    """What each member knows without a quorum. Never raises for etcd.

    A cluster counts when any member knows it, with the largest number of live workers. Without a
    quorum no lease ends, so a worker that is gone still counts.
    """
    alluxio = inventory.alluxio
    if alluxio is not None and root_login(etcd.cluster) is None:
        etcd = etcd.as_worker(desired.login(alluxio))
    live: dict[str, int] = {}
    asked: list[str] = []
    problems: list[Problem] = []
    for member in etcd.cluster.members:
        try:
            with etcd.member(member, timeout=LOCAL_SECONDS) as client:
                client.serializable = True
                for name in registrations.children(client) - {inventory.cluster.encode()}:
                    shown = printable(name, ID_LIMIT)
                    _, _, count = registrations.counts(client, name)
                    live[shown] = max(count, live.get(shown, 0))
            asked.append(member.name)
        except ProvisionError as error:
            what, remedy, error_id = describe(error)
            problems.append(Problem(f"etcd member {member.name}", what, remedy, id=error_id))
    return LocalLook({n: c for n, c in live.items() if c}, tuple(asked), tuple(problems))


def names(client: EtcdClient) -> list[str]:
    """As :func:`registrations.clusters`; empty when the user may not read other clusters' keys."""
    try:
        return registrations.clusters(client)
    except EtcdUnreachable as error:
        if error.reason is not Reason.DENIED:
            raise
        return []


def names_as_root(etcd: Etcd, client: EtcdClient) -> list[str]:
    """As :func:`names`, by ``client`` or, when its user may not read other clusters' keys, by root
    if the inventory has root's password."""
    try:
        return registrations.clusters(client)
    except EtcdUnreachable as error:
        if error.reason is not Reason.DENIED:
            raise
    if root_login(etcd.cluster) is None:
        return []
    with etcd.as_worker(None).any() as root:
        return names(root)


def mixed_up(cluster: str, others: list[str], seen: RegistrationSnapshot) -> list[Problem]:
    """Clusters in the same etcd that Alluxio takes for a part of this cluster, or the other way
    round.

    An error while this cluster has no worker in etcd yet, because its name can still be changed.
    """
    found: list[Problem] = []
    new = not seen.authorized and not seen.live
    for other in registrations.confusable(cluster, others):
        short, long = sorted((cluster, other), key=len)
        what = f"serves the clusters {short!r} and {long!r}: Alluxio also lists the live workers of"
        what += (
            f" {long!r} as workers of {short!r}, because the name {long!r} begins with {short!r}"
        )
        remedy = "give this cluster another name" if new else "rename one of them"
        found.append(
            Problem("etcd", what, remedy, "error" if new else "warning", id="cluster-names-alike")
        )
    return found
