"""Names of clusters that share an etcd."""

from __future__ import annotations

from collections.abc import Iterable

from provision.inventory import document
from provision.inventory.checks.context import Context


def prefix_conflicts(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of different cluster names, where the first name is a prefix of the second.

    Up to some 3xx release, workers list ``/ServiceDiscovery/<cluster>`` without the trailing slash.
    So they take the workers of ``prod2`` for workers of ``prod``.
    """
    ordered = sorted(set(names))
    return [
        (short, long)
        for place, short in enumerate(ordered)
        for long in ordered[place + 1 :]
        if long.startswith(short)
    ]


def _cluster_names(context: Context) -> None:
    own, others = context.inventory.cluster, context.inventory.other_clusters
    seen = {own}
    for place, name in enumerate(others):
        path: document.Path = ("other_clusters", place)
        if name in seen:
            context.error(
                f"the cluster {name!r} is listed twice",
                "list each other cluster once",
                path,
                id="inventory-conflict",
            )
        elif prefix_conflicts([own, name]):
            context.error(
                f"the cluster names {own!r} and {name!r} can be confused: one name begins with "
                "the other, and older Alluxio clients find workers in etcd by such a prefix",
                "rename one cluster, or give each cluster its own etcd",
                path,
                ("cluster",),
                id="cluster-names-alike",
            )
        seen.add(name)


RULES = (_cluster_names,)
