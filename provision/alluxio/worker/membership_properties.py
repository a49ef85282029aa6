"""Alluxio's properties for a membership type: those of the workers and those of the clients."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from provision.dataclass import dataclass
from provision.inventory.membership_type import MembershipType
from provision.inventory.model import Scalar
from provision.inventory.resolved import AlluxioCluster

TYPE = "alluxio.worker.membership.manager.type"
ENDPOINTS = "alluxio.etcd.endpoints"
#: Where a reader of conf/workers takes every worker's ports from its own properties.
_PORTS = re.compile(r"alluxio\.worker\.([a-z.]+\.)?port")


@dataclass(frozen=True, slots=True)
class MembershipProperties:
    """The properties by reader. There is no secret among them."""

    worker: Mapping[str, Scalar]
    client: Mapping[str, Scalar]


def of(alluxio: AlluxioCluster, home: str, endpoints: Sequence[str]) -> MembershipProperties:
    """The properties with which workers and clients of ``alluxio`` find the workers.

    ``home``: the release's folder on the workers' hosts. ``endpoints``: etcd's, in their order.
    """
    kind: dict[str, Scalar] = {TYPE: alluxio.membership.value}
    match alluxio.membership:
        case MembershipType.STATIC:
            file = "alluxio.worker.static.membership.manager.config.file"
            ports = {k: v for k, v in alluxio.properties.items() if _PORTS.fullmatch(k)}
            rpc_port = alluxio.workers[0].rpc_port
            return MembershipProperties(
                worker={**kind, file: f"{home}/conf/workers"},
                client={**kind, "alluxio.worker.rpc.port": rpc_port, **ports},
            )
        case MembershipType.ETCD | MembershipType.SERVICE_REGISTRY:
            found = {**kind, ENDPOINTS: ",".join(endpoints)}
            timeout = f"{alluxio.failure_detection_timeout}s"
            user = alluxio.etcd_login.username
            return MembershipProperties(
                worker={**found, "alluxio.worker.failure.detection.timeout": timeout},
                client=found if user is None else {**found, "alluxio.etcd.username": user},
            )
