"""The inventory's ``kubernetes`` section, resolved: the chart's values, with every default applied.

Values that the section leaves out come from the inventory's ``etcd`` and ``alluxio`` sections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from provision.dataclass import dataclass
from provision.inventory import model
from provision.inventory.chart import CHARTS, Chart
from provision.inventory.sizes import size_bytes

UFS_ROOT = "alluxio.dora.client.ufs.root"
#: Bytes that a worker's JVM takes besides heap and direct memory: metaspace, threads, code.
OVERHEAD = 1 << 30


@dataclass(frozen=True, slots=True)
class KubernetesCluster:
    """The cluster on Kubernetes as declared. Sizes are in bytes; ``memory`` is a worker's heap and
    direct memory, and some more for the JVM itself."""

    chart: Chart
    release: str
    namespace: str
    kubectl: tuple[str, ...]
    kubeconfig: Path | None
    context: str | None
    image: str
    image_tag: str
    image_pull_secrets: tuple[str, ...]
    service_account: str | None
    dataset_path: str
    credentials: Mapping[str, model.Secret]
    secrets: Mapping[str, str]
    properties: Mapping[str, model.Scalar]
    secret_properties: Mapping[str, model.Secret]
    jvm_options: tuple[str, ...]
    workers: int
    worker: model.KubernetesWorker
    heap: str
    direct_memory: str
    rpc_port: int
    page_store: model.KubernetesPageStore
    page_store_bytes: int
    etcd_enabled: bool
    etcd_replicas: int
    etcd: model.KubernetesEtcd

    @property
    def memory(self) -> int:
        return size_bytes(self.heap) + size_bytes(self.direct_memory) + OVERHEAD


def resolve_kubernetes(
    file: model.InventoryFile,
    absolute: Callable[[Path], Path],
    secret: Callable[[model.Secret], model.Secret],
) -> KubernetesCluster | None:
    """The section of ``file``; None without the section, or without workers.

    ``absolute`` and ``secret`` resolve paths relative to the file.
    """
    k, a = file.kubernetes, file.alluxio
    if k is None or a is None:
        return None
    chart, external = CHARTS[k.chart], file.etcd.external is not None
    properties = {**a.properties, **k.properties}
    # The chart itself writes this property, from dataset.path.
    root = properties.pop(UFS_ROOT, "")
    return KubernetesCluster(
        chart=chart,
        release=k.release,
        namespace=k.namespace,
        kubectl=tuple(k.kubectl),
        kubeconfig=absolute(k.kubeconfig) if k.kubeconfig else None,
        context=k.context,
        image=k.image,
        image_tag=k.image_tag or a.version,
        image_pull_secrets=tuple(k.image_pull_secrets),
        service_account=k.service_account,
        dataset_path=k.dataset_path or str(root),
        credentials={key: secret(s) for key, s in k.credentials.items()},
        secrets=k.secrets,
        properties=properties,
        secret_properties={key: secret(s) for key, s in a.secret_properties.items()},
        jvm_options=tuple(k.jvm_options),
        workers=k.worker.count or len(a.workers),
        worker=k.worker,
        heap=k.worker.heap or a.heap,
        direct_memory=k.worker.direct_memory or a.direct_memory,
        rpc_port=a.rpc_port,
        page_store=k.page_store,
        page_store_bytes=sum(map(size_bytes, a.page_store.sizes)),
        etcd_enabled=(chart.etcd and not external) if k.etcd.enabled is None else k.etcd.enabled,
        etcd_replicas=k.etcd.replicas or (3 if external else len(file.etcd.members)),
        etcd=k.etcd,
    )


def quantity_bytes(quantity: str) -> int:
    """A Kubernetes quantity in bytes: ``8Gi`` is 8 x 2^30, ``8G`` 8 x 10^9, and ``1500m`` 2."""
    number = int("".join(c for c in quantity if c.isdigit()))
    unit = quantity.lstrip("0123456789")
    if unit == "m":
        return -(-number // 1000)
    power = " kMGTP".index(unit[:1].replace("K", "k") or " ")
    return int(number * (1024 if unit.endswith("i") else 1000) ** power)
