"""Workers after their first start: restarted, upgraded, rolled back, refused, taken away.

Tests build on each other.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.worker.tarball import CLI, CONFIG, LAUNCHERS

from .lab import CLUSTER, Host, Lab, another_release, wait_until

UNIT = "alluxio-worker.service"
IDENTITY = "/var/lib/alluxio/worker_identity"

pytestmark = pytest.mark.usefixtures("workers")


@pytest.fixture(scope="module", autouse=True)
def kept_here(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """This machine's audit log and kept registrations, apart from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def identities(lab: Lab) -> list[str]:
    """The workers' identity files before anything was done to them."""
    return lab.on(lab.workers, f"stat -c '%i %Y' {IDENTITY}; cat {IDENTITY}")


def released(lab: Lab, version: str, tarball: Path, **more: Any) -> Path:
    """The inventory with another release of Alluxio."""
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    source = {"path": str(tarball), "sha256": digest}
    return lab.inventory({"alluxio": {"version": version, "source": source, **more}})


@pytest.fixture(scope="module")
def newer(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release 314: the same code in another tarball."""
    tarball = another_release(tmp_path_factory.mktemp("releases"))
    return released(lab, "314", tarball)


@pytest.fixture(scope="module")
def broken(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tarball of release 315, whose worker does not start."""
    tarball = tmp_path_factory.mktemp("releases") / "alluxio-315-bin.tar.gz"
    script = b"#!/bin/sh\necho this release is broken >&2\nexit 1\n"
    with tarfile.open(tarball, "w:gz") as tar:
        for name in (*LAUNCHERS, CLI, CONFIG, "conf/masters"):
            entry = tarfile.TarInfo(f"alluxio-315/{name}")
            entry.size, entry.mode = len(script), 0o755
            tar.addfile(entry, io.BytesIO(script))
    return tarball


def release(host: Host) -> str:
    return host.run("readlink /opt/alluxio/current")


def kept(lab: Lab, identities: list[str]) -> bool:
    now = lab.on(lab.workers, f"stat -c '%i %Y' {IDENTITY}; cat {IDENTITY}")
    return now == identities


def worker_id(host: Host) -> str:
    return f"worker-{host.read(IDENTITY)}"


def states(lab: Lab) -> dict[str, str]:
    seen = lab.invoke("check-nodes", None, "--format", "json").json
    return {n["name"] or n["worker_id"]: n["state"] for n in seen["alluxio"]["nodes"]}


def test_a_rolling_restart_stops_at_the_first_failure_and_goes_on(
    lab: Lab, identities: list[str]
) -> None:
    one, other = lab.workers
    pids = [host.main_pid(UNIT) for host in lab.workers]
    impatient = lab.inventory({"alluxio": {"start_timeout": 2}})
    # It starts, and cannot reach etcd.
    drop = "-p tcp --dport 2379 -m owner --uid-owner alluxio -j DROP"
    one.run(f"iptables -I OUTPUT {drop}")
    stopped = lab.invoke("restart-workers", impatient, "--at-once", "1")
    stopped.expect(4, "1 of 1 worker is not live", "not begun: restart worker1")
    assert one.main_pid(UNIT) != pids[0]
    assert other.main_pid(UNIT) == pids[1]
    lab.invoke("status").expect(1, "active, a restart is pending")
    one.run(f"iptables -D OUTPUT {drop}")
    # It may be between two attempts to start.
    wait_until(
        lambda: lab.invoke("start-workers", None, "--limit", "worker0").code == 0,
        "worker0 is live",
        60,
    )
    again = lab.invoke("restart-workers").expect(0, "continues the run of")
    assert f"{one.address}), worker1 (" not in again.text
    assert other.main_pid(UNIT) != pids[1]
    assert kept(lab, identities)


def test_an_upgrade_and_the_way_back(lab: Lab, newer: Path, identities: list[str]) -> None:
    one = lab.workers[0]
    lab.invoke("stop-workers", None, "--limit", "worker1").expect(0, "live for up to 5 s more")
    # Whoever was stopped stays so, with the release that it has.
    lab.invoke("upgrade-workers", newer).expect(0, "1 on 313 (not the inventory's), 1 on 314")
    assert [release(host) for host in lab.workers] == ["314", "313"]
    lab.invoke("start-workers", newer, "--limit", "worker1").expect(0, "1 of 1 live")
    lab.invoke("start-workers", newer).expect(0, "0 changed; 2 of 2 live")
    lab.invoke("upgrade-workers", newer).expect(0, "0 changed; 2 on 314")
    assert "/opt/alluxio/314/" in one.run(f"tr '\\0' ' ' </proc/{one.main_pid(UNIT)}/cmdline")
    assert one.run("readlink /opt/alluxio/previous; ls /opt/alluxio").split() == [
        *("313", "313", "314", "current", "previous")
    ]
    back = lab.invoke("rollback-workers", newer, "--at-once", "100%")
    back.expect(0, "2 on 313", "set alluxio.version to 313")
    assert [release(host) for host in lab.workers] == ["313", "313"]
    lab.invoke("rollback-workers", newer).expect(0, "0 changed")
    lab.invoke("start-workers").expect(0, "0 changed; 2 of 2 live")
    assert kept(lab, identities)


def test_a_release_that_does_not_start_stops_the_upgrade(
    lab: Lab, broken: Path, identities: list[str]
) -> None:
    one, other = lab.workers
    pid = other.main_pid(UNIT)
    failed = lab.invoke("upgrade-workers", released(lab, "315", broken))
    # Long before alluxio.start_timeout.
    failed.expect(
        4, "worker0 ended by itself", "systemd's restarts do not help", "not begun: restart worker1"
    )
    failed.expect(4, "its log says:", "this release is broken")
    assert [release(host) for host in lab.workers] == ["315", "313"]
    assert other.main_pid(UNIT) == pid
    lab.invoke("rollback-workers", released(lab, "315", broken)).expect(0, "2 on 313")
    assert other.main_pid(UNIT) == pid
    # Only what is neither running nor the one before, and only now that it is said.
    kept_there = lab.invoke("upgrade-workers", None, "--keep", "2")
    kept_there.expect(0, "delete /opt/alluxio/314")
    assert one.run("ls /opt/alluxio").split() == ["313", "315", "current", "previous"]
    assert kept(lab, identities)


def test_a_clone_is_refused_and_the_refusal_explained(lab: Lab, identities: list[str]) -> None:
    one, other = lab.workers
    mine = worker_id(one)
    lab.invoke("stop-workers", None, "--limit", "worker1").expect(0)
    other.run(f"mv {IDENTITY} {IDENTITY}.kept; echo {one.read(IDENTITY)} >{IDENTITY}")
    try:
        other.run("systemctl start alluxio-worker")
        journal = f"journalctl -u {UNIT} -n 100 -o cat"
        wait_until(lambda: f"worker identity:{mine}" in other.run(journal), "refused", 60)
        for task in ("start-workers", "restart-workers", "upgrade-workers"):
            refused = lab.invoke(task, None, "--limit", "worker1")
            said = f"its worker identity is registered in etcd as {one.address}:29999"
            refused.expect(3, f"worker1 at {other.address}", f"{said}, the address of worker0")
            assert "worker-registered-elsewhere" in refused.stderr
        said = f"its id {mine} is registered as {one.address}:29999"
        lab.invoke("logs", None, "worker1").expect(0, said, "that worker is LIVE", f"rm {IDENTITY}")
        lab.invoke("forget-worker", None, mine).expect(3, f"is LIVE at {one.address}:29999")
        # As the log's remedy says. The refused worker still runs, and knows the former id alone.
        other.run(f"rm {IDENTITY}")
        started = lab.invoke("start-workers", None, "--limit", "worker1")
        started.expect(0, "make the worker identity", "1 of 1 live")
        former = worker_id(other)
    finally:
        other.run(f"mv {IDENTITY}.kept {IDENTITY}")
    lab.invoke("restart-workers", None, "--limit", "worker1").expect(0)
    forgotten = partial(lab.invoke, "forget-worker", None, former)
    wait_until(lambda: forgotten().code == 0, "the lease of the former id has ended", 30)
    assert states(lab) == {"worker0": "LIVE", "worker1": "LIVE"}
    assert kept(lab, identities)


def test_decommissioned(lab: Lab) -> None:
    other = lab.workers[1]
    mine = worker_id(other)
    with lab.client(lab.etcd[0]) as client:
        before = client.get(f"/DHT/{CLUSTER}/AUTHORIZED/{mine}")
    lab.invoke("forget-worker", None, mine).expect(3, "registration-live", "decommission-worker")
    done = lab.invoke("decommission-worker", None, "worker1", "--format", "json").expect(0)
    assert other.show(UNIT, "ActiveState", "UnitFileState") == {
        "ActiveState": "inactive",
        "UnitFileState": "disabled",
    }
    assert states(lab) == {"worker0": "LIVE", "worker1": "UNREGISTERED"}
    again = lab.invoke("decommission-worker", None, "worker1", "--revoke-lease")
    again.expect(0, "--revoke-lease has nothing to do", "0 changed; take worker1 out")
    without = lab.inventory({"alluxio": {"workers": {"worker1": None}}})
    lab.invoke("check-nodes", without).expect(0, "1 worker: 1 LIVE")

    (file,) = done.json["kept"]
    lab.invoke("readmit-worker", None, file).expect(0, "1 changed")
    with lab.client(lab.etcd[0]) as client:
        after = client.get(f"/DHT/{CLUSTER}/AUTHORIZED/{mine}")
    assert before is not None
    assert after is not None
    assert after.value == before.value
    assert states(lab)["worker1"] == "FAILED"
    lab.invoke("forget-worker", without, "stale", "--count", "2").expect(2, "1 id is stale")
    lab.invoke("forget-worker", without, "stale", "--count", "1").expect(0, "1 changed")
    lab.invoke("forget-worker", None, mine).expect(0, "0 changed", "no such id is registered")
    lab.invoke("start-workers").expect(0, "2 of 2 live")
    assert worker_id(other) == mine


@pytest.mark.parametrize("moment", ["stop worker1 permanently", "worker1: ok", "out of etcd"])
def test_a_decommission_that_was_killed_is_gone_on_with(lab: Lab, moment: str) -> None:
    other = lab.workers[1]
    mine = worker_id(other)
    run = lab.start("decommission-worker", None, "worker1", "--verbose")
    run.wait_for(moment)
    run.kill()
    lab.on(lab.workers, "flock -w 5 /run/alluxio-provision/run.lock true")
    lab.invoke("decommission-worker", None, "worker1").expect(0)
    assert other.show(UNIT, "ActiveState", "UnitFileState") == {
        "ActiveState": "inactive",
        "UnitFileState": "disabled",
    }
    assert states(lab) == {"worker0": "LIVE", "worker1": "UNREGISTERED"}
    lab.invoke("decommission-worker", None, "worker1").expect(0, "0 changed")
    lab.invoke("start-workers").expect(0, "2 of 2 live")
    assert worker_id(other) == mine


def test_a_worker_whose_address_changes(lab: Lab, identities: list[str]) -> None:
    """Alluxio would refuse it for 140 s and longer; its old registration goes first."""
    one, other = lab.workers
    pid, mine = one.main_pid(UNIT), worker_id(other)
    web = {"properties": {"alluxio.worker.web.port": 30001}}
    for change, what in (
        (web, "web port 30000 becomes 30001"),
        ({"hostname": "worker1"}, "becomes worker1"),
    ):
        moved = lab.inventory({"alluxio": {"workers": {"worker1": change}}})
        before = lab.snapshot()
        planned = lab.invoke("start-workers", moved, "--dry-run")
        planned.expect(0, "stop worker1 for the new address", f"AUTHORIZED/{mine}", what)
        planned.expect(0, "the lease of worker1 has ended", "restart worker1")
        assert lab.snapshot() == before
        lab.invoke("start-workers", moved).expect(0, what, "2 of 2 live")
        lab.invoke("start-workers", moved).expect(0, "0 changed; 2 of 2 live")
        lab.invoke("check-nodes", moved).expect(0, "2 workers: 2 LIVE")
        assert worker_id(other) == mine
    assert one.main_pid(UNIT) == pid
    lab.invoke("start-workers").expect(0, "2 of 2 live")
    assert kept(lab, identities)


def test_a_change_of_address_that_was_killed_is_gone_on_with(lab: Lab) -> None:
    moved = lab.inventory(
        {"alluxio": {"workers": {"worker1": {"properties": {"alluxio.worker.web.port": 30001}}}}}
    )
    other = lab.workers[1]
    # As after the step that stops it.
    other.run("systemctl stop alluxio-worker")
    lab.invoke("start-workers", moved).expect(0, "remove the old address of worker1", "2 of 2 live")
    # The files are written, and the host has started it before the next run.
    site = "/opt/alluxio/current/conf/alluxio-site.properties"
    other.run(f"sed -i s/30001/30002/ {site}; systemctl restart alluxio-worker")
    journal = f"journalctl -u {UNIT} -n 100 -o cat"
    wait_until(lambda: "Some other member with same id" in other.run(journal), "refused", 60)
    lab.invoke("start-workers").expect(0, "2 of 2 live")
    lab.invoke("start-workers").expect(0, "0 changed; 2 of 2 live")


def test_a_clone_of_a_live_worker_is_refused_beforehand(lab: Lab) -> None:
    """With --limit, so that nobody looks at the other host."""
    one, other = lab.workers
    lab.invoke("stop-workers", None, "--limit", "worker1").expect(0)
    other.run(f"mv {IDENTITY} {IDENTITY}.kept; cp -p {IDENTITY}.kept {IDENTITY}")
    other.run(f"echo {one.read(IDENTITY)} >{IDENTITY}")
    before = lab.snapshot()
    for inventory in (None, lab.inventory({"alluxio": {"workers": {"worker0": None}}})):
        refused = lab.invoke("start-workers", inventory, "--limit", "worker1")
        refused.expect(3, f"registered in etcd as {one.address}:29999", "nothing was changed")
    assert lab.snapshot() == before
    other.run(f"mv {IDENTITY}.kept {IDENTITY}")
    lab.invoke("start-workers").expect(0, "2 of 2 live")


def test_static_membership_waits_for_the_port(lab: Lab, identities: list[str]) -> None:
    static = lab.inventory({"alluxio": {"membership": "STATIC"}})
    lab.invoke("start-workers", static).expect(0)
    before = [host.main_pid(UNIT) for host in lab.workers]
    lab.invoke("restart-workers", static).expect(0, "4 changed")
    after = [host.main_pid(UNIT) for host in lab.workers]
    assert not set(before) & set(after)
    # No client uses a worker of this membership: the way around them is shut for this read.
    lab.on(lab.workers, "echo x >/srv/f; chmod 0644 /srv/f")
    read = lab.invoke("check-nodes", static, "--read", "/f")
    read.expect(1, "read of /f: failed", "static-workers-unused", "no client of Alluxio 313 uses")
    lab.invoke("decommission-worker", static, "worker1").expect(0, "1 changed; take worker1 out")
    left = f"worker-{lab.workers[1].read(IDENTITY)}"
    lab.invoke("check-nodes", static).expect(1, left, "registrations-unused")
    lab.invoke("forget-worker", static, left).expect(0, "1 changed")
    lab.invoke("forget-worker", static, left).expect(0, "0 changed", "no such id is registered")
    assert kept(lab, identities)
