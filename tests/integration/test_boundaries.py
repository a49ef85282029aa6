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


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("/home/alxp-big", "leads to /home/alxp-big/etcd there: its unit hides /home"),
        ("/dev/shm/alxp-big", "leads to /dev/shm/alxp-big/etcd there: alxp-data is a link"),
        ("/tmp/alxp-big", "leads to /tmp/alxp-big/etcd there: that is in /tmp"),
    ],
)
def test_a_link_to_a_folder_that_cannot_be_used(lab: Lab, to: str, says: str) -> None:
    """/data is a link to the large partition, as on hosts of people."""
    lab.on(lab.etcd, f"mkdir {to}; ln -s {to} /alxp-data")
    try:
        inventory = lab.inventory({"etcd": {"data_dir": "/alxp-data/etcd"}})
        done = lab.invoke("deploy-etcd", inventory)
        done.expect(3, says, "[path-in-the-way]", "nothing was changed")
        if "give the path that it leads to" in done.text:
            given = lab.inventory({"etcd": {"data_dir": f"{to}/etcd"}})
            lab.invoke("deploy-etcd", given).expect(0)
            lab.invoke("destroy", given, *DESTROY).expect(0)
    finally:
        lab.on(lab.etcd, f"rm -rf /alxp-data {to}")
    assert lab.left_over() == {}
