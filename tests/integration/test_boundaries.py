"""Folders, ports and settings at the limits: systemd, etcd and workers take them."""

from __future__ import annotations

import pytest

from .lab import DESTROY, Lab

pytestmark = pytest.mark.usefixtures("clean")

#: A folder that a unit hides, ports that need a capability, and settings in every type.
LIMITS = {
    "etcd": {
        "data_dir": "/home/alxp/etcd",
        "client_port": 379,
        "peer_port": 1023,
        "settings": {
            "log-outputs": ["stderr"],
            "cipher-suites": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "snapshot-count": "20000",
            "grpc-keepalive-min-time": "10s",
            "pre-vote": True,
            "auto-compaction-retention": 2,
        },
    },
    "alluxio": {
        "rpc_port": 999,
        "page_store": {
            "dirs": ["/dev/shm/alxp/pages", "/home/alxp/pages"],
            "sizes": ["8MB", "8MB"],
        },
    },
}
PAGE = "/dev/shm/alxp/pages/LOCAL/page"


def test_a_cluster_at_the_limits(lab: Lab) -> None:
    inventory = lab.inventory(LIMITS)
    try:
        lab.invoke("deploy-etcd", inventory).expect(0)
        lab.invoke("start-workers", inventory).expect(0, "2 of 2 live")
        lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")
        host = lab.workers[0]
        host.run(f"setpriv --reuid alluxio --regid alluxio --clear-groups sh -c 'mkdir -p {PAGE}'")
        lab.invoke("restart-workers", inventory).expect(0)
        assert host.run(f"ls -d {PAGE}") == PAGE
        lab.invoke("check-nodes", inventory).expect(0)
        lab.invoke("destroy", inventory, *DESTROY).expect(0)
    finally:
        hosts = list(lab.hosts.values())
        left = lab.on(hosts, "ls -d /home/alxp/* /dev/shm/alxp/* 2>/dev/null || :")
        lab.on(hosts, "rm -rf /home/alxp /dev/shm/alxp")
    assert set(left) == {""}
    assert lab.left_over() == {}


@pytest.mark.parametrize("folder", ["/tmp/alxp", "/var/tmp/alxp"])
def test_a_folder_that_the_system_empties(lab: Lab, folder: str) -> None:
    for part in ({"etcd": {"data_dir": folder}}, {"alluxio": {"page_store": {"dirs": [folder]}}}):
        lab.invoke("deploy-etcd", lab.inventory(part)).expect(2, "which the system empties")
