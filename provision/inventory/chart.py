"""Alluxio's Helm chart: the one place in this tool for its keys, labels and names.

They come from the public copies of ``deploy/charts/alluxio`` of Alluxio's operator for Kubernetes:
0.7.0, and 1.1.0-SNAPSHOT, which adds the etcd component that Alluxio's documentation of the
membership module describes (a dependency on the etcd chart 9.0.5 of Bitnami). Charts of the later
enterprise releases have other keys.
"""

from __future__ import annotations

from typing import Literal

from provision.dataclass import dataclass

Version = Literal["0.7.0", "1.1.0-SNAPSHOT"]
NEWEST: Version = "1.1.0-SNAPSHOT"

#: The place of Alluxio in the chart's images, and the name of the worker's container.
ALLUXIO_HOME = "/opt/alluxio"
WORKER_CONTAINER = "alluxio-worker"
MASTER_CONTAINER = "alluxio-master"
ETCD_PORT = 2379
CLUSTER_DOMAIN = "svc.cluster.local"


@dataclass(frozen=True, slots=True)
class Chart:
    """One version of the chart. ``etcd``: the chart can start etcd; then its own lines for ETCD
    membership come after ``properties``, and name etcd's Service."""

    version: Version
    etcd: bool


CHARTS: dict[Version, Chart] = {
    "0.7.0": Chart("0.7.0", etcd=False),
    "1.1.0-SNAPSHOT": Chart("1.1.0-SNAPSHOT", etcd=True),
}


def worker_selector(release: str) -> str:
    """The labels of a release's worker pods, in the form of kubectl's ``--selector``."""
    return f"release={release},role=alluxio-worker"


def master_selector(release: str) -> str:
    return f"release={release},role=alluxio-master"


def etcd_name(release: str) -> str:
    """etcd's StatefulSet and Service (the etcd chart: RELEASE-etcd)."""
    return f"{release}-etcd"


def etcd_pods(release: str, replicas: int) -> list[str]:
    """The pods of etcd's StatefulSet, which are also the members' names."""
    return [f"{etcd_name(release)}-{number}" for number in range(replicas)]


def etcd_endpoints(release: str, namespace: str, replicas: int) -> list[str]:
    """Every member by the stable name that the headless Service gives its pod."""
    headless = f"{etcd_name(release)}-headless.{namespace}.{CLUSTER_DOMAIN}"
    return [f"http://{pod}.{headless}:{ETCD_PORT}" for pod in etcd_pods(release, replicas)]
