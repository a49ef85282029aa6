"""start-workers and stop-workers, with the three kinds of membership. Tests build on each other."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .lab import CLUSTER, NET, TEST_UNIT, Done, Host, Lab, small_disk, wait_until

UNIT = "alluxio-worker.service"
IDENTITY = "/var/lib/alluxio/worker_identity"
CONF = "/opt/alluxio/current/conf"

pytestmark = pytest.mark.usefixtures("cluster")


def live(lab: Lab) -> dict[str, dict[str, Any]]:
    """The workers with a key under a lease, by id, as they stand in etcd."""
    prefix = f"/ServiceDiscovery/{CLUSTER}/"
    with lab.client(lab.etcd[0]) as client:
        _, found = client.range(prefix)
    return {kv.key.decode().removeprefix(prefix): json.loads(kv.value) for kv in found if kv.lease}


def authorized(lab: Lab) -> set[str]:
    """The ids that have ever joined."""
    prefix = f"/DHT/{CLUSTER}/AUTHORIZED/"
    with lab.client(lab.etcd[0]) as client:
        return {kv.key.decode().removeprefix(prefix) for kv in client.range(prefix)[1]}


def identity(host: Host) -> str:
    return f"worker-{host.read(IDENTITY)}"


def ids(lab: Lab) -> dict[str, str]:
    return {identity(host): host.address for host in lab.workers}


def hosts_of(registrations: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    return {i: entity["WorkerNetAddress"]["Host"] for i, entity in registrations.items()}


def test_the_first_run_registers_every_worker(lab: Lab) -> None:
    for host in lab.workers:
        assert host.run("ls /opt") == "", "not a first run"
    lab.invoke("start-workers").expect(0, "changed; 2 of 2 live")
    assert len(ids(lab)) == 2
    assert hosts_of(live(lab)) == ids(lab)
    assert authorized(lab) == set(ids(lab))
    endpoints = ",".join(f"http://{host.address}:2379" for host in lab.etcd)
    for host in lab.workers:
        assert f"alluxio.etcd.endpoints={endpoints}" in host.read(
            f"{CONF}/alluxio-site.properties"
        ).replace("\\", "")
        assert host.run(f"ps -o user= -p {host.main_pid(UNIT)}") == "alluxio"


def test_a_second_run_changes_nothing(lab: Lab) -> None:
    before = lab.snapshot()
    again = lab.invoke("start-workers", None, "--format", "json").expect(0)
    assert (again.json["changed"], again.json["live"]) == (0, ["worker0", "worker1"])
    assert lab.snapshot() == before


def test_a_changed_property_restarts_only_whom_it_concerns(lab: Lab) -> None:
    before = lab.snapshot()
    own = {"properties": {"alluxio.worker.page.store.page.size": "2MB"}}
    changed = lab.inventory({"alluxio": {"workers": {"worker0": own}}})
    lab.invoke("start-workers", changed).expect(
        0, "+alluxio.worker.page.store.page.size=2MB", "restart worker0", "2 of 2 live"
    )
    after = lab.snapshot()
    assert [name for name in after if after[name] != before[name]] == ["worker0"]
    assert hosts_of(live(lab)) == ids(lab)
    lab.invoke("start-workers").expect(0, "-alluxio.worker.page.store.page.size=2MB")


def test_batches_go_side_by_side_unless_a_host_is_locked(lab: Lab) -> None:
    changed = lab.inventory(
        {"alluxio": {"properties": {"alluxio.worker.page.store.page.size": "4MB"}}}
    )

    def both(inventory: Path | None) -> list[Done]:
        runs = [lab.start("start-workers", inventory, "--batch", f"{k}/2") for k in (1, 2)]
        return [run.finish() for run in runs]

    for name, done in zip(("worker0", "worker1"), both(changed), strict=True):
        done.expect(0, f"restart {name}", "1 of 1 live")
    lock = "flock -n /run/alluxio-provision/run.lock sleep 600"
    lab.workers[1].run(f"systemd-run -q --unit {TEST_UNIT} {lock}")
    one, other = both(None)
    one.expect(0, "restart worker0", "1 of 1 live")
    other.expect(5, f"another run holds the lock of {lab.workers[1].address}")
    lab.workers[1].run(f"systemctl stop {TEST_UNIT}")
    lab.invoke("start-workers", None, "--limit", "worker[1-1]").expect(0, "restart worker1")


def test_a_host_that_is_away_is_left_out_when_that_is_allowed(lab: Lab) -> None:
    """As one dead host of five hundred: the others are done, and it is named."""
    away = f"{NET}.250"
    more = {"alluxio": {"workers": {"gone": {"host": away}}}}
    changed = lab.inventory({**more, "ssh": {"connect_timeout": 2}})
    lab.invoke("start-workers", changed).expect(3, away, "nothing was changed")
    done = lab.invoke("start-workers", changed, "--allow-unreachable", "1", "--format", "json")
    done.expect(1, away)
    assert done.json["live"] == ["worker0", "worker1"]
    assert [p["id"] for p in done.json["left_out"]] == ["host-unreachable"]
    lab.invoke("start-workers", changed, "--limit", "*,!gone").expect(0, "0 changed; 2 of 2 live")
    lab.invoke("start-workers").expect(0)


def test_a_worker_is_itself_again_after_a_stop_and_after_a_reinstall(lab: Lab) -> None:
    before, (one, other) = ids(lab), lab.workers
    pid = one.main_pid(UNIT)
    lab.invoke("stop-workers", None, "--limit", "worker1").expect(0, "1 changed")
    assert other.show(UNIT, "ActiveState") == {"ActiveState": "inactive"}
    lab.invoke("stop-workers", None, "--limit", "worker1").expect(0, "0 changed")
    other.run("rm -r /opt/alluxio")
    lab.invoke("start-workers").expect(0, "install /opt/alluxio/313", "2 of 2 live")
    assert one.main_pid(UNIT) == pid
    assert ids(lab) == before
    assert hosts_of(live(lab)) == before


def is_another(host: Host, old: set[int]) -> bool:
    return host.main_pid(UNIT) not in old


def test_a_log_folder_that_was_removed_keeps_no_worker_from_its_start(lab: Lab) -> None:
    """Somebody needed room, or /var/log is in memory: it is empty after a boot."""
    before, host = ids(lab), lab.workers[0]
    for start in (f"systemctl restart {UNIT}", f"systemctl kill -s KILL {UNIT}"):
        old = {0, host.main_pid(UNIT)}
        host.run(f"rm -r /var/log/alluxio; {start}")
        wait_until(functools.partial(is_another, host, old), "it starts by itself")
        assert host.run("stat -c '%U:%G %a' /var/log/alluxio") == "alluxio:alluxio 750"
    host.run("rm -r /var/log/alluxio")
    lab.invoke("restart-workers", None, "--limit", "worker0").expect(0)
    lab.invoke("start-workers").expect(0, "0 changed; 2 of 2 live")
    assert ids(lab) == before


def test_a_cache_disk_that_is_away_and_a_state_disk_that_is_away(lab: Lab) -> None:
    host = lab.workers[0]
    two = {"dirs": ["/var/lib/alluxio/pages", "/srv/c1/pages"], "sizes": ["64MB", "64MB"]}
    changed = lab.inventory({"alluxio": {"workers": {"worker0": {"page_store": two}}}})
    with small_disk(host, "/srv/c1", 100):
        lab.invoke("start-workers", changed).expect(0, "create directory /srv/c1/pages", "2 of 2")
        me = identity(host)
        host.run(f"systemctl stop {UNIT}; umount /srv/c1")
        wait_until(lambda: me not in live(lab), "its lease has ended")
        host.run(f"systemctl start {UNIT}")
        wait_until(lambda: me in live(lab), "the worker goes on with its other store")
        warned = "page store /srv/c1/pages is not used: no disk is mounted at /srv/c1"
        assert warned in host.run(f"journalctl -u {UNIT} -n 200 -o cat")
        assert host.run("find /srv/c1 ! -user root; find /srv/c1 -type f") == ""
        lab.invoke("start-workers", changed).expect(
            0, "0 changed; 2 of 2", warned, "page-store-away"
        )
        lab.invoke("check-nodes", changed, "--hosts").expect(0, warned, "2 READY")
        assert host.run("find /srv/c1 ! -user root; find /srv/c1 -type f") == ""
        host.run("mount -t tmpfs tmpfs /srv/c1; install -d -o alluxio /srv/c1/pages")
        lab.invoke("restart-workers", changed, "--limit", "worker0").expect(0)
        assert host.run("stat -c %U /srv/c1/pages/LOCAL") == "alluxio"
        lab.invoke("start-workers").expect(0, "restart worker0")
    host.run("rm -rf /srv/c1")

    # As an empty mount point is found, without the disk.
    away = "mv /var/lib/alluxio /root/state.aside; mkdir /var/lib/alluxio"
    host.run(f"systemctl stop {UNIT}; {away}; systemctl start {UNIT} || :")
    try:
        says = "the data disk is not mounted, or lost its data: no root-owned folder"
        assert says in host.run(f"systemctl status {UNIT} || :")
        lab.invoke("start-workers").expect(3, "data-disk-missing", "/var/lib/alluxio/data-disk")
        lab.invoke("check-nodes", None, "--hosts").expect(1, "data-disk-missing")
        assert host.run("ls -A /var/lib/alluxio") == ""
    finally:
        host.run("rmdir /var/lib/alluxio; mv /root/state.aside /var/lib/alluxio")
    # The lease of the process before may still live.
    wait_until(
        lambda: host.main_pid(UNIT) > 0 and me in live(lab), "it starts by itself, as itself", 90
    )
    assert len(authorized(lab)) == 2
    lab.invoke("start-workers").expect(0, "0 changed; 2 of 2 live")


def test_a_cloned_identity_is_refused(lab: Lab) -> None:
    one, other = lab.workers
    lost = identity(other)
    lab.invoke("stop-workers", None, "--limit", "worker1").expect(0)
    with lab.client(lab.etcd[0]) as client:
        client.delete(f"/DHT/{CLUSTER}/AUTHORIZED/{lost}")
    other.run(f"echo '{one.read(IDENTITY)}' >{IDENTITY}")
    before = lab.snapshot()
    refused = lab.invoke("start-workers")
    refused.expect(3, "preflight failed; nothing was changed")
    refused.expect(3, f"worker1 at {other.address}", "as worker0", "cloned image")
    seen = lab.invoke("check-nodes", None, "--hosts")
    seen.expect(1, f"{identity(one).removeprefix('worker-')}, the identity of worker0: one is a")
    seen.expect(1, "its service is inactive (dead)")
    assert lab.snapshot() == before
    # The remedy that it names.
    other.run(f"rm {IDENTITY}")
    lab.invoke("start-workers", None, "--limit", "worker1").expect(0, "1 of 1 live")
    lab.invoke("start-workers").expect(0, "0 changed; 2 of 2 live")
    assert len(ids(lab)) == 2
    assert lost not in ids(lab)
    assert hosts_of(live(lab)).items() >= ids(lab).items()


def test_an_identity_file_without_an_identity(lab: Lab) -> None:
    other = lab.workers[1]
    lost = identity(other)
    lab.invoke("stop-workers", None, "--limit", "worker1").expect(0)
    other.run(f"echo '# worker identity' >{IDENTITY}")
    refused = lab.invoke("start-workers", None, "--limit", "worker1")
    refused.expect(3, "worker-identity-invalid", "nothing was changed")
    other.run(f"rm {IDENTITY}")
    lab.invoke("start-workers", None, "--limit", "worker1").expect(0, "1 of 1 live")
    lab.invoke("forget-worker", None, lost).expect(0, "1 changed")
    assert hosts_of(live(lab)) == ids(lab)
    assert lost not in authorized(lab)


def test_without_etcd_and_with_it_again(lab: Lab) -> None:
    lab.on(lab.etcd, "systemctl stop etcd")
    before = lab.snapshot()
    lab.invoke("start-workers").expect(3, "etcd-not-running", "run invoke deploy-etcd")
    assert lab.snapshot() == before
    lab.invoke("deploy-etcd").expect(0, "start the members that are down")
    lab.invoke("start-workers").expect(0, "2 of 2 live")


def test_a_masked_unit_is_refused(lab: Lab) -> None:
    with lab.workers[1].masked(UNIT):
        before = lab.snapshot()
        lab.invoke("start-workers").expect(3, f"worker1 at {lab.workers[1].address}", "is masked")
        assert lab.snapshot() == before


def test_a_switch_to_static_names_what_it_leaves_in_etcd(lab: Lab) -> None:
    static = lab.inventory({"alluxio": {"membership": "STATIC"}})
    known = authorized(lab)
    switched = lab.invoke("start-workers", static)
    switched.expect(0, "from ETCD to STATIC on 2 workers", "restart worker0 with membership STATIC")
    switched.expect(0, "invoke forget-worker", *known, "2 of 2 live")
    for host in lab.workers:
        listed = [line for line in host.read(f"{CONF}/workers").splitlines() if line[0] != "#"]
        assert listed == [worker.address for worker in lab.workers]
        site = host.read(f"{CONF}/alluxio-site.properties")
        assert "alluxio.worker.membership.manager.type=STATIC" in site
        assert "alluxio.etcd" not in site
    lab.invoke("start-workers", static).expect(0, "0 changed")
    reached = lab.invoke("check-nodes", static, "--format", "json").expect(0).json
    assert reached["alluxio"]["counts"] == {"REACHABLE": 2}
    (left,) = [p for p in reached["problems"] if p["id"] == "registrations-unused"]
    assert all(worker in left["what"] for worker in known)

    lab.invoke("stop-workers", static, "--limit", "worker1").expect(0)
    seen = lab.invoke("check-nodes", static, "--format", "json").expect(1).json
    assert {n["name"]: n["state"] for n in seen["alluxio"]["nodes"]} == {
        "worker0": "REACHABLE",
        "worker1": "UNREACHABLE",
    }


def test_and_back_to_etcd_every_worker_is_who_it_was(lab: Lab) -> None:
    known = ids(lab)
    lab.invoke("start-workers").expect(
        0, "from STATIC to ETCD on 2 workers", "restart worker0 with membership ETCD"
    )
    assert ids(lab) == known
    assert hosts_of(live(lab)) == known
    lab.invoke("start-workers").expect(0, "0 changed; 2 of 2 live")


def test_service_registry_membership_has_the_live_keys_only(lab: Lab) -> None:
    with lab.client(lab.etcd[0]) as client:
        for worker in authorized(lab):
            client.delete(f"/DHT/{CLUSTER}/AUTHORIZED/{worker}")
    registry = lab.inventory({"alluxio": {"membership": "SERVICE_REGISTRY"}})
    lab.invoke("start-workers", registry).expect(0, "from ETCD to SERVICE_REGISTRY", "2 of 2 live")
    assert hosts_of(live(lab)) == ids(lab)
    assert authorized(lab) == set()
    lab.invoke("check-nodes", registry).expect(0, "2 workers: 2 LIVE")
