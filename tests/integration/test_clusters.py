"""Two Alluxio clusters on one etcd, a client's configuration, and a master's unit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .lab import CLUSTER, Lab

MASTER = "alluxio-master.service"
OTHER = "Other"

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module", autouse=True)
def _away(lab: Lab) -> Iterator[None]:
    """While the other cluster's worker lives, the etcd cannot be destroyed."""
    yield
    lab.wipe()


@pytest.fixture(scope="module")
def own(lab: Lab) -> Path:
    """The inventory that owns the etcd, with one worker."""
    return lab.inventory({"alluxio": {"workers": {"worker1": None}}})


@pytest.fixture(scope="module")
def other(lab: Lab) -> Path:
    """Another cluster, with the other worker, that only knows the endpoints."""
    return lab.inventory(_other(lab))


def _other(lab: Lab, **alluxio: Any) -> dict[str, Any]:
    endpoints = [f"http://{host.address}:2379" for host in lab.etcd]
    nothing = dict.fromkeys(("version", "source", "tls", "members"))
    return {
        "cluster": OTHER,
        "etcd": {**nothing, "external": {"endpoints": endpoints}},
        "alluxio": {"workers": {"worker0": None}, **alluxio},
    }


def test_each_has_its_own_worker(lab: Lab, own: Path, other: Path) -> None:
    lab.invoke("start-workers", own).expect(0, "1 of 1 live")
    lab.invoke("start-workers", other).expect(0, "1 of 1 live")
    for inventory in (own, other):
        lab.invoke("check-nodes", inventory).expect(0, "3 of 3 members healthy", "1 worker: 1 LIVE")
    seen = lab.invoke("list-clusters", other, "--format", "json").expect(0).json
    assert [(c["name"], c["authorized"], c["live"]) for c in seen["clusters"]] == [
        *((OTHER, 1, 1), (CLUSTER, 1, 1))
    ]
    lab.invoke("deploy-etcd", other).expect(2, "needs the inventory that declares its members")


def test_a_name_that_begins_alike_is_refused(lab: Lab) -> None:
    alike = lab.inventory({**_other(lab), "cluster": f"{CLUSTER}-b"})
    lab.invoke("start-workers", alike, "--dry-run").expect(3, "because the name")


def test_a_client_s_configuration_finds_the_workers(lab: Lab, own: Path, tmp_path: Path) -> None:
    lab.invoke("render-client-config", own, "--to", str(tmp_path)).expect(0, "1 changed")
    host = lab.workers[1]  # of the other cluster: it has the release, and another configuration
    text = (tmp_path / "alluxio-site.properties").read_bytes()
    host.put("/tmp/client/conf/alluxio-site.properties", text)
    host.run(
        "cd /tmp/client; cp /opt/alluxio/current/conf/log4j.properties conf\n"
        "grep -v ALLUXIO_LOGS_DIR /opt/alluxio/current/conf/alluxio-env.sh >conf/alluxio-env.sh"
    )
    alluxio = (
        "ALLUXIO_CONF_DIR=/tmp/client/conf ALLUXIO_LOGS_DIR=/tmp/client "
        "/opt/alluxio/current/bin/alluxio"
    )
    shown = host.run(f"{alluxio} info nodes")
    assert f"\t{lab.workers[0].address}:29999\tONLINE" in shown
    assert lab.workers[1].address not in shown
    # Alluxio's own command line has each line from there, with this value.
    lines = [line for line in text.decode().splitlines() if line and not line.startswith("#")]
    keys = " ".join(line.partition("=")[0] for line in lines)
    get = f'for k in {keys}; do echo "$k=$({alluxio} conf get $k)"; done'
    assert host.run(get, timeout=180).splitlines() == lines
    source = f"{alluxio} conf get --source alluxio.cluster.name; rm -r /tmp/client"
    assert "/tmp/client/conf/alluxio-site.properties" in host.run(source)


def test_an_etcd_that_others_live_on_is_not_destroyed(lab: Lab, own: Path) -> None:
    before = lab.snapshot()
    refused = lab.invoke("destroy", own, "--yes-delete", CLUSTER)
    refused.expect(3, f"cluster {OTHER}: has 1 live worker in this etcd")
    assert lab.snapshot() == before


@pytest.mark.double("it shows how a failure reads, and a real release has masters that start")
def test_a_master_is_started_by_its_unit(lab: Lab) -> None:
    """The lab's release has no master: what is seen here is the unit, and how a failure reads."""
    host = lab.workers[1]
    masters = {"master0": {"host": host.address}}
    declared = lab.inventory(_other(lab, masters=masters))
    impatient = lab.inventory(_other(lab, masters=masters, start_timeout=1))
    failed = lab.invoke("start-masters", impatient)
    failed.expect(4, "1 of 1 master is not healthy", "the lab's build has no master")
    assert host.run(f"systemd-analyze verify /etc/systemd/system/{MASTER} 2>&1") == ""
    assert host.show(MASTER, "UnitFileState") == {"UnitFileState": "enabled"}
    assert host.read("/opt/alluxio/313/conf/masters").splitlines()[1:] == [host.address]
    assert f"alluxio.master.hostname={host.address}" in host.read(
        "/opt/alluxio/313/conf/alluxio-site.properties"
    )
    lab.invoke("status", declared).expect(1, "master0", MASTER)
    # Its worker shares the files: the restart is pending, and made up for.
    lab.invoke("start-workers", declared).expect(0, "restart worker1", "1 of 1 live")
    lab.invoke("start-workers", declared).expect(0, "0 changed")
    lab.invoke("destroy", declared, "--yes-delete", OTHER).expect(0, "keeps 1 registration")
    assert host.run("ls /opt /var/lib/alluxio 2>/dev/null || :") == "/opt:"
