"""Alluxio clusters that share one etcd: their names, and the clusters that Alluxio mixes up.

A cluster is a name below ``/DHT/`` or ``/ServiceDiscovery/``; etcd knows nothing else about it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypedDict

from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import (
    ID_LIMIT,
    Count,
    Counts,
    RegistrationSnapshot,
)
from provision.alluxio.worker import desired
from provision.dataclass import dataclass
from provision.errors import Problem, ProvisionError
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdTooMuch, EtcdUnreachable, Reason
from provision.etcd.api.login import root_login
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.reach import describe
from provision.inventory.resolved import Inventory
from provision.text import counted, printable

SCHEMA: Literal["alluxio-provision/clusters/1"] = "alluxio-provision/clusters/1"
#: Seconds for each call of a read from one member alone.
LOCAL_SECONDS = 3.0
#: Names of clusters that a note, or a row, lists.
MIXED_SHOWN = 8
OURS, DECLARED = "this one", "in other_clusters"


class Cluster(NamedTuple):
    """One cluster: how many workers are AUTHORIZED, and how many have a key under a lease."""

    name: str
    authorized: int
    live: int
    inventory: str
    confusable: tuple[str, ...]


class ClusterDocument(TypedDict):
    """An Alluxio cluster with keys in etcd."""

    name: str
    authorized: int
    live: int
    this_inventory: bool
    declared: bool
    mixed_up_with: list[str]


class ClustersDocument(TypedDict):
    """The Alluxio clusters; ``cut`` says why some are missing."""

    schema: Literal["alluxio-provision/clusters/1"]
    revision: int
    complete: bool
    cut: str | None
    clusters: list[ClusterDocument]


@dataclass(frozen=True, slots=True)
class Clusters:
    """``complete``: the login may read every cluster's keys, so none is missing here.

    ``cut``: why clusters or workers are missing, when there are too many; else empty.
    """

    clusters: tuple[Cluster, ...]
    complete: bool
    revision: int
    cut: str = ""

    def document(self) -> ClustersDocument:
        """The clusters for ``--format json``."""
        return {
            "schema": SCHEMA,
            "revision": self.revision,
            "complete": self.complete,
            "cut": self.cut or None,
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
    :class:`provision.errors.Unhealthy` when etcd does not serve. When there are more keys than
    :mod:`provision.bounds` permits, :attr:`Clusters.cut` says so.
    """
    alluxio = inventory.alluxio
    if alluxio is not None and root_login(etcd.cluster) is None:
        etcd = etcd.as_worker(desired.login(alluxio))
    own = inventory.cluster.encode()

    def read(client: EtcdClient) -> tuple[Counts, bool]:
        try:
            return registrations.count_all(client), True
        except EtcdUnreachable as error:
            if error.reason is not Reason.DENIED:
                raise
            return registrations.count(client, own), False

    seen, complete = etcd.read(read)
    by_name: dict[str, Count] = {}
    for name in sorted({*seen.by_name, own}, key=lambda n: (n != own, n)):
        shown, more = printable(name, ID_LIMIT), seen.by_name.get(name, Count(0, 0))
        # Names that print alike are counted together.
        before = by_name.get(shown, Count(0, 0))
        by_name[shown] = Count(before.authorized + more.authorized, before.live + more.live)
    mixed = registrations.all_confusable(by_name, MIXED_SHOWN)
    return Clusters(
        tuple(
            Cluster(
                name,
                *by_name[name],
                OURS
                if name == inventory.cluster
                else DECLARED
                if name in inventory.other_clusters
                else "",
                tuple(mixed[name]),
            )
            for name in by_name
        ),
        complete,
        seen.revision,
        seen.cut,
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
                found = registrations.count_all(client)
                if found.cut:
                    raise EtcdTooMuch(client.endpoint, found.cut)
                here: dict[str, int] = {}
                for name, count in found.by_name.items():
                    shown = printable(name, ID_LIMIT)
                    if name != inventory.cluster.encode():
                        here[shown] = here.get(shown, 0) + count.live
                for shown, number in here.items():
                    live[shown] = max(number, live.get(shown, 0))
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


def names_and_cut(client: EtcdClient) -> tuple[list[str], str]:
    """As :func:`names`, for a view: the names that were read, and why others are missing; empty
    when none is."""
    try:
        found, cut = registrations.children_and_cut(client)
    except EtcdUnreachable as error:
        if error.reason is not Reason.DENIED:
            raise
        return [], ""
    return sorted(printable(name, ID_LIMIT) for name in found), cut


def mixed_up(cluster: str, others: list[str], seen: RegistrationSnapshot) -> list[Problem]:
    """Clusters in the same etcd that Alluxio takes for a part of this cluster, or the other way
    round.

    An error while this cluster has no worker in etcd yet, because its name can still be changed.
    """
    found: list[Problem] = []
    new = not seen.authorized and not seen.live
    alike = registrations.confusable(cluster, others)
    for other in alike[:MIXED_SHOWN]:
        short, long = sorted((cluster, other), key=len)
        what = f"serves the clusters {short!r} and {long!r}: Alluxio also lists the live workers of"
        what += (
            f" {long!r} as workers of {short!r}, because the name {long!r} begins with {short!r}"
        )
        remedy = "give this cluster another name" if new else "rename one of them"
        found.append(
            Problem("etcd", what, remedy, "error" if new else "warning", id="cluster-names-alike")
        )
    if len(alike) > MIXED_SHOWN:
        more = counted(len(alike) - MIXED_SHOWN, "more cluster")
        what = f"serves {more} that Alluxio mixes up with this one"
        found.append(
            Problem("etcd", what, "see invoke list-clusters", "warning", id="cluster-names-alike")
        )
    return found
