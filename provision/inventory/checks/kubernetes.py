"""Rules of the Kubernetes section: the abilities of the chart, and the limits of pods."""

from __future__ import annotations

from provision.inventory import document
from provision.inventory.checks.context import Context
from provision.inventory.kubernetes import KubernetesCluster, quantity_bytes
from provision.inventory.membership_type import MembershipType
from provision.inventory.sizes import size_bytes

_SECTION: document.Path = ("kubernetes",)
_ETCD: document.Path = (*_SECTION, "etcd")
#: The chart writes these values between double quotes, as they are.
_UNQUOTABLE = '"\\\n\r\t'


def _needs_workers(context: Context) -> None:
    if context.file.alluxio is None:
        what = "'kubernetes' is about Alluxio, and there is no 'alluxio' section"
        context.error(what, "add one: version, source and workers", _SECTION, id="section-missing")


def _dataset(context: Context, k: KubernetesCluster) -> None:
    if not k.dataset_path:
        context.error(
            "the chart needs to know where the data is",
            "give dataset_path, or the property alluxio.dora.client.ufs.root",
            _SECTION,
            id="inventory-incomplete",
        )


def _etcd(context: Context, k: KubernetesCluster) -> None:
    if k.etcd_enabled and not k.chart.etcd:
        context.error(
            f"chart {k.chart.version} cannot start etcd",
            "use chart 1.1.0-SNAPSHOT, or leave it out: the pods then use this inventory's etcd",
            (*_ETCD, "enabled"),
            id="inventory-value-invalid",
        )
    given = [key for key in ("replicas", "size", "storage_class") if context.has(*_ETCD, key)]
    if given and not k.etcd_enabled:
        what = f"{given[0]!r} has no effect: the chart's etcd is off"
        context.warning(what, "remove it", (*_ETCD, given[0]), id="inventory-no-effect")
    if k.etcd_enabled and k.etcd_replicas % 2 == 0:
        what = f"{k.etcd_replicas} replicas of etcd survive no more losses than one less"
        remedy = "set etcd.replicas to an odd number"
        context.warning(what, remedy, (*_ETCD, "replicas"), id="member-count")
    if k.etcd_enabled and "etcd" in k.release:
        # The etcd chart then names everything RELEASE, but Alluxio's chart looks for RELEASE-etcd.
        what = (
            f"the release {k.release!r} has 'etcd' in its name; Alluxio's chart then does "
            "not find the etcd of the etcd chart"
        )
        context.error(
            what, "use another name", (*_SECTION, "release"), id="inventory-value-invalid"
        )


def _membership(context: Context, k: KubernetesCluster) -> None:
    alluxio = context.inventory.alluxio
    assert alluxio is not None
    at: document.Path = ("alluxio", "membership")
    if not alluxio.membership.in_etcd:
        what = f"pods cannot have membership {alluxio.membership}: their addresses change, so they "
        what += "find each other in etcd"
        context.error(
            what,
            "set membership to ETCD, or leave 'kubernetes' out",
            at,
            id="inventory-value-invalid",
        )
    elif alluxio.membership is not MembershipType.ETCD and k.etcd_enabled:
        what = f"chart {k.chart.version} sets membership ETCD when it starts etcd"
        context.error(
            what,
            "set membership to ETCD, or kubernetes.etcd.enabled to false",
            at,
            id="inventory-value-invalid",
        )


def _memory(context: Context, k: KubernetesCluster) -> None:
    wanted = size_bytes(k.heap) + size_bytes(k.direct_memory)
    for field, resources in (("limits", k.worker.limits), ("requests", k.worker.requests)):
        at = (*_SECTION, "worker", field, "memory")
        given = resources.memory
        if given is None or quantity_bytes(given) >= wanted:
            continue
        what = f"{given} is less than a worker's heap ({k.heap}) and direct memory"
        what += f" ({k.direct_memory})"
        if field == "limits":
            context.error(
                f"{what}: the kernel would kill the worker",
                "raise it",
                at,
                id="inventory-value-invalid",
            )
        else:
            context.warning(
                what, "raise it, or the node may be overcommitted", at, id="inventory-unwise"
            )
    request, limit = k.worker.requests.memory, k.worker.limits.memory
    if request and limit and quantity_bytes(request) > quantity_bytes(limit):
        what = f"{request} is more than the limit of {limit}"
        context.error(
            what,
            "lower it",
            (*_SECTION, "worker", "requests", "memory"),
            id="inventory-value-invalid",
        )


def _texts(context: Context, k: KubernetesCluster) -> None:
    for name, value in k.worker.env.items():
        if any(c in value for c in _UNQUOTABLE):
            what = f"the chart cannot write the value of {name!r}: it has a quote, \\ or new line"
            context.error(
                what,
                "write it without these characters",
                (*_SECTION, "worker", "env", name),
                id="inventory-value-invalid",
            )
    paths: dict[str, str] = {}
    for name, folder in k.secrets.items():
        at = (*_SECTION, "secrets", name)
        if folder in paths:
            what = f"{folder} is already the folder of {paths[folder]!r}"
            context.error(what, "give each Secret a folder of its own", at, id="inventory-conflict")
        if folder.startswith("/opt/alluxio"):
            what = f"{folder} would hide files of the image"
            context.error(
                what, "use a folder of its own, such as /etc/NAME", at, id="inventory-value-invalid"
            )
        paths[folder] = name


def _alike(context: Context, k: KubernetesCluster) -> None:
    """Worker pods are all alike: values of single workers cannot be used."""
    fields = ("heap", "direct_memory", "page_store", "rpc_port", "properties", "env")
    alluxio = context.file.alluxio
    assert alluxio is not None
    for name in alluxio.workers:
        own = next((f for f in fields if context.has("alluxio", "workers", name, f)), None)
        if own is not None:
            what = f"all worker pods are the same: they do not get the own {own!r} of {name}"
            context.warning(what, "see kubernetes.worker", _SECTION, id="inventory-no-effect")
            return


def _section(context: Context) -> None:
    declared = context.inventory.kubernetes
    if declared is None:
        return
    for rule in (_dataset, _etcd, _membership, _memory, _texts, _alike):
        rule(context, declared)


RULES = (_needs_workers, _section)
