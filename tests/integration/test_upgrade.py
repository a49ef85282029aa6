"""etcd 3.4 to 3.7 and back to 3.6, a client writing and workers registered all the time."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.alarms import activate

from .lab import CLUSTER, LAB, REPO, Lab
from .writes import writing

ARTIFACTS = REPO / ".lab" / "artifacts"
REPORT = REPO / ".lab" / "reports" / "upgrade.json"
RELEASES = ("3.4.23", "3.5.35", "3.6.16", "3.7.3")
HOPS = RELEASES[1:]
#: How long (seconds) a client may have to wait for a member that is restarted.
LONGEST_PAUSE = 5.0


@pytest.fixture(scope="module")
def old(lab: Lab) -> Iterator[Path]:
    """An inventory of etcd 3.4, deployed, with every later release at hand."""
    lab.destroy()
    subprocess.run([LAB, "artifacts", "upgrade"], check=True)
    inventory = declare(lab, RELEASES[0])
    lab.invoke("deploy-etcd", inventory).expect(0)
    yield inventory
    lab.wipe()


def declare(lab: Lab, version: str, settings: dict[str, object] | None = None) -> Path:
    def source(release: str) -> dict[str, str]:
        tarball = next(ARTIFACTS.glob(f"etcd-v{release}-linux-*.tar.gz"))
        return {"path": str(tarball), "sha256": f"file:{ARTIFACTS / 'SHA256SUMS'}"}

    return lab.inventory(
        {
            "etcd": {
                "version": version,
                "source": source(version),
                "releases": {r: source(r) for r in RELEASES if r != version},
                "settings": settings or {},
            }
        }
    )


def versions(lab: Lab) -> list[str]:
    found = []
    for host in lab.etcd:
        with lab.client(host) as client:
            found.append(client.status().version)
    return found


def require_restorable(lab: Lab, inventory: Path, folder: Path) -> None:
    """A backup of this release comes back, and what was written after it is gone."""
    with lab.client(lab.etcd[0]) as client:
        client.put("/saved", "x")
    done = lab.invoke("backup-etcd", inventory, "--to", str(folder), "--format", "json").expect(0)
    with lab.client(lab.etcd[0]) as client:
        client.put("/later", "x")
    lab.invoke("restore-etcd", inventory, done.json["file"], "--yes-restore", CLUSTER).expect(0)
    for host in lab.etcd:
        with lab.client(host) as client:
            assert client.get("/saved") is not None
            assert client.get("/later") is None
    lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")


def test_a_backup_of_3_4_is_restored(lab: Lab, old: Path, tmp_path: Path) -> None:
    require_restorable(lab, old, tmp_path)


def test_after_a_crash_amid_writes_all_have_what_one_member_has(lab: Lab, old: Path) -> None:
    """What etcd's database has, its log may not call committed yet. 3.4 then drops it."""
    keys = [f"/at-once/{n}" for n in range(300)]
    with lab.client(lab.etcd[0]) as client, ThreadPoolExecutor(100) as pool:
        list(pool.map(lambda key: client.put(key, "x"), keys))
        # With it, etcd refuses what is in the entries, and they are in the log all the same.
        activate(client, "NOSPACE", client.status().member_id)
    time.sleep(1)  # etcd's batch interval is 100 ms
    lab.on(lab.etcd, "systemctl kill -s KILL etcd; systemctl stop etcd")
    options = ("etcd0", "--yes-recover", CLUSTER)
    lab.invoke("recover-etcd", old, *options).expect(0, "etcd2 has the others' data")
    for host in lab.etcd:
        with lab.client(host) as client:
            assert [key for key in keys if client.get(key) is None] == [], host.name
    lab.invoke("deploy-etcd", old).expect(0, "0 changed")


def test_what_is_refused_changes_nothing(lab: Lab, old: Path) -> None:
    before = lab.snapshot()
    lab.invoke("upgrade-etcd", old, "3.6.15").expect(3, "3.6.15 is not available")
    lab.invoke("upgrade-etcd", old, "newest").expect(2, "a full etcd release")
    gone = declare(lab, RELEASES[0], {"experimental-initial-corrupt-check": True})
    lab.invoke("upgrade-etcd", gone, "3.7.3").expect(3, "etcd 3.7.3 has no setting")
    later = declare(lab, "3.5.35")
    lab.invoke("deploy-etcd", later).expect(3, "upgrade-etcd 3.5.35")
    lab.invoke("upgrade-etcd", old, "3.5.35", "--dry-run").expect(0, "takes the lead from")
    assert lab.snapshot() == before


def test_a_member_that_is_down_is_in_the_way(lab: Lab, old: Path) -> None:
    lab.etcd[1].run("systemctl stop etcd")
    try:
        lab.invoke("upgrade-etcd", old, "3.5.35").expect(3, "an upgrade needs a healthy cluster")
    finally:
        lab.etcd[1].run("systemctl start etcd")


def test_the_first_minor_is_finished_after_a_kill(lab: Lab, old: Path, tmp_path: Path) -> None:
    backups = ("--backup-dir", str(tmp_path))
    with writing(lab.etcd, "/test/killed/"):
        running = lab.start("upgrade-etcd", old, "3.5.35", *backups)
        running.wait_for(r"waiting: every member healthy, \S+ runs 3.5.35")
        running.kill()
        assert sorted(set(versions(lab))) == ["3.4.23", "3.5.35"]
        again = lab.invoke("upgrade-etcd", old, "3.5.35", *backups)
        again.expect(0, "every member runs etcd 3.5.35; set etcd.version to 3.5.35")
    assert versions(lab) == ["3.5.35"] * 3
    lab.invoke("upgrade-etcd", old, "3.4.23").expect(3, "cannot be downgraded from 3.5")
    assert list(tmp_path.iterdir())


def test_a_member_that_was_stopped_goes_on_over_two_minors(lab: Lab, tmp_path: Path) -> None:
    """It is started by the first hop, so the second one restarts it."""
    inventory = declare(lab, "3.5.35")
    way = ("3.7.3", "--backup-dir", str(tmp_path))
    with writing(lab.etcd, "/test/stopped/"):
        running = lab.start("upgrade-etcd", inventory, *way)
        running.wait_for(r"waiting: every member healthy, \S+ runs 3.6.16")
        running.kill()
        leader = lab.leader()
        old = [h for h, v in zip(lab.etcd, versions(lab), strict=True) if v == "3.5.35"]
        stopped = next(host for host in old if host is not leader)
        stopped.run("systemctl stop etcd")
        done = lab.invoke("upgrade-etcd", inventory, *way)
        done.expect(0, f"{stopped.name}: etcd (down) to 3.6.16", "every member runs etcd 3.7.3")
    assert versions(lab) == ["3.7.3"] * 3


def test_3_4_to_3_7_loses_no_write_and_no_worker(lab: Lab, tmp_path: Path) -> None:
    lab.destroy()
    inventory = declare(lab, RELEASES[0])
    lab.invoke("deploy-etcd", inventory).expect(0)
    lab.invoke("start-workers", inventory).expect(0, "2 of 2 live")
    pids = [host.main_pid("alluxio-worker.service") for host in lab.workers]
    report: dict[str, object] = {}
    with writing(lab.etcd, "/test/upgrade/") as writes:
        for before, release in zip(RELEASES, HOPS, strict=False):
            writes.pause()
            first, started = len(writes.acknowledged), time.monotonic()
            done = lab.invoke("upgrade-etcd", inventory, release, "--backup-dir", str(tmp_path))
            done.expect(0, f"every member runs etcd {release}")
            report[f"{before} to {release}"] = {
                "seconds": round(time.monotonic() - started, 1),
                "longest_pause_of_writes": round(writes.pause(), 3),
                "acknowledged_writes": len(writes.acknowledged) - first,
            }
            if release == "3.6.16":
                done.expect(0, "was restarted once more")
                for host in lab.etcd:
                    note = host.run("stat -c '%U %a' /etc/etcd/restarted-before-3.6")
                    assert note.split() == ["root", "644"]
                    assert not host.run("ls /var/tmp | grep provision-scratch || :")
            inventory = declare(lab, release)
            lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")
            lab.invoke("check-nodes", inventory).expect(0, "2 workers: 2 LIVE")
    assert versions(lab) == ["3.7.3"] * 3
    assert [host.main_pid("alluxio-worker.service") for host in lab.workers] == pids
    report = {"members": 3, "lost_writes": 0, "hops": report}
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    hops = report["hops"]
    assert isinstance(hops, dict)
    assert all(hop["longest_pause_of_writes"] < LONGEST_PAUSE for hop in hops.values())


def test_3_7_goes_back_to_3_6(lab: Lab, tmp_path: Path) -> None:
    inventory = declare(lab, "3.7.3")
    require_restorable(lab, inventory, tmp_path)
    with writing(lab.etcd, "/test/back/"):
        done = lab.invoke("upgrade-etcd", inventory, "3.6.16", "--backup-dir", str(tmp_path))
        done.expect(0, "etcd: enable the downgrade to 3.6", "every member runs etcd 3.6.16")
    assert versions(lab) == ["3.6.16"] * 3
    lab.invoke("deploy-etcd", declare(lab, "3.6.16")).expect(0, "0 changed")
