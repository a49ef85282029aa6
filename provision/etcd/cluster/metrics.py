"""Facts about a member that gRPC does not give: by HTTP, from its client listener.

Every client listener serves ``/metrics`` and ``/version`` (etcd's ``etcdhttp.HandleMetrics`` and
``HandleVersion``), without a login.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket

from provision import progress, wait
from provision.errors import ProvisionError
from provision.etcd.api.values import Endpoint
from provision.etcd.cluster import served_certs
from provision.inventory.resolved import EtcdCluster, EtcdMember

TIMEOUT = 5.0
#: Limit for an answer, in bytes; the metrics of a small cluster's member are about 100 KB.
MAX_ANSWER = 8 << 20
#: etcd sets it at its start from ``--quota-backend-bytes`` (``NewBackendQuota``).
_QUOTA = re.compile(rb"^etcd_server_quota_backend_bytes (\S+)$", re.MULTILINE)


def quota(cluster: EtcdCluster, member: EtcdMember, end: Endpoint) -> int:
    """The quota in force at ``end`` (bytes); negative without a quota.

    Raises :class:`ProvisionError` when it cannot be read.
    """
    try:
        status, said = get(cluster, member, end, "/metrics")
        found = _QUOTA.search(said)
        if status != http.HTTPStatus.OK or found is None:
            raise ProvisionError(f"/metrics shows no quota (HTTP {status})", id="read-failed")
        return int(float(found[1])) or -1
    except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
        raise ProvisionError(f"/metrics: {error}", id="read-failed") from error


def get(cluster: EtcdCluster, member: EtcdMember, end: Endpoint, path: str) -> tuple[int, bytes]:
    """The status and the body that the client listener of ``member`` at ``end`` gives for ``path``.

    Raises ``OSError``, :class:`http.client.HTTPException` and ``ValueError``.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(progress.calling(f"etcd at {end}", path, 2 * TIMEOUT))
        connection = http.client.HTTPConnection(end.address, end.port, timeout=TIMEOUT)
        stack.enter_context(contextlib.closing(connection))
        connection.sock = socket.create_connection((end.address, end.port), TIMEOUT)
        stack.enter_context(wait.ending(connection.sock, 2 * TIMEOUT))
        if member.served.tls:
            context = served_certs.tls_context(cluster)
            connection.sock = context.wrap_socket(connection.sock, server_hostname=member.address)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_ANSWER)
