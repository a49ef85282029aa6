"""backup-etcd and restore-etcd on real hosts: what is saved comes back, killed or not."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import CLUSTER, Lab, wait_until

pytestmark = pytest.mark.slow

#: Each is a line of progress, and the run is killed when it has been seen.
STEPS = (
    "upload the snapshot",
    "restore into a side folder",
    "stop every member",
    "restore every member",
    "start all members",
    "waiting: one cluster",
    "look for workers without a registration",
    "finish",
)

#: The lease is lost, and the worker tries to make a new one (Alluxio's ServiceDiscoveryRecipe).
AWAIT_RECONNECT = """
    main=$(systemctl show -p InvocationID --value alluxio-worker)
    for _ in $(seq 60); do
        journalctl _SYSTEMD_INVOCATION_ID="$main" -o cat | grep -q 'Start reconnect for' && exit 0
        sleep 0.5
    done
    exit 1"""


@pytest.fixture(scope="module", autouse=True)
def without_old_data(lab: Lab, workers: None) -> Iterator[None]:
    """Kept data is the operator's: no command deletes it."""
    yield
    lab.on(lab.etcd, "rm -rf /var/lib/etcd/member.* /var/backups/etcd")


@pytest.fixture
def saved(lab: Lab, tmp_path: Path) -> Path:
    """A backup that has /reg/0 to /reg/99; /later is written after it."""
    with lab.client(lab.etcd[0]) as client:
        for number in range(100):
            client.put(f"/reg/{number}", str(number))
        client.delete("/later")
    done = lab.invoke("backup-etcd", None, "--to", str(tmp_path), "--format", "json").expect(0)
    with lab.client(lab.etcd[0]) as client:
        client.put("/later", "x")
    return Path(done.json["file"])


def require_restored(lab: Lab) -> None:
    ids = set()
    for host in lab.etcd:
        with lab.client(host) as client:
            assert client.get("/later") is None
            assert len(client.range("/reg/")[1]) == 100
            ids.add(client.status().cluster_id)
            client.quorum_write(host.name)
    assert len(ids) == 1
    assert not any(lab.on(lab.etcd, "ls -d /var/lib/etcd/unfinished || :", check=False))
    lab.invoke("check-nodes").expect(0)


def test_a_backup_is_private_and_proven(lab: Lab, saved: Path) -> None:
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    digest = hashlib.sha256(saved.read_bytes()).hexdigest()
    assert saved.with_name(f"{saved.name}.sha256").read_text() == f"{digest}  {saved.name}\n"
    left = "ls -d /var/tmp/alluxio-provision-scratch.* 2>/dev/null || :; pgrep -c etcd"
    assert lab.on(lab.etcd, left) == ["1", "1", "1"]


def test_retention(lab: Lab, saved: Path) -> None:
    lab.invoke("backup-etcd", None, "--to", str(saved.parent), "--keep", "1").expect(0)
    assert not saved.exists()
    assert len(list(saved.parent.glob("*.db"))) == 1


def test_nothing_happens_without_the_name_or_with_a_broken_file(lab: Lab, saved: Path) -> None:
    before = lab.snapshot()
    lab.invoke("restore-etcd", None, str(saved)).expect(2, f"called {CLUSTER}")
    broken = saved.with_name("broken.db")
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    options = (str(broken), "--yes-restore", CLUSTER)
    lab.invoke("restore-etcd", None, *options).expect(3, "sha256 that etcd put at its end")
    assert lab.snapshot() == before


@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere_it_is_finished_by_running_it_again(
    lab: Lab, saved: Path, step: str
) -> None:
    options = (str(saved), "--yes-restore", CLUSTER)
    running = lab.start("restore-etcd", None, *options)
    running.wait_for(step)
    running.kill()
    lab.invoke("restore-etcd", None, *options).expect(0)
    require_restored(lab)
    kept = lab.on(lab.etcd, "ls -d /var/lib/etcd/member.before-restore-*/snap/db | wc -l")
    assert all(int(count) >= 1 for count in kept)


def test_no_other_command_meets_a_half_restored_cluster(lab: Lab, saved: Path) -> None:
    options = (str(saved), "--yes-restore", CLUSTER)
    running = lab.start("restore-etcd", None, *options)
    running.wait_for("restore every member")
    running.kill()
    lab.invoke("deploy-etcd").expect(3, "a restore or a recovery is not finished")
    lab.invoke("restore-etcd", None, *options).expect(0)
    require_restored(lab)
    lab.invoke("deploy-etcd").expect(0, "0 changed")


@pytest.mark.parametrize("outage", ["short", "long"])
def test_workers_come_back_one_after_the_other_at_their_addresses(
    lab: Lab, tmp_path: Path, outage: str
) -> None:
    """The restored data has neither's lease, and worker1 at an address that it had before.

    After an outage longer than their lease the workers make themselves a new one, as soon as etcd
    is back; the old address in the data stays.
    """
    # The backup is of a time without leases: both workers are stopped.
    lab.on(lab.workers, "systemctl stop alluxio-worker")
    own = lab.workers[1].run("grep -v '^#' /var/lib/alluxio/worker_identity")
    key = f"/DHT/{CLUSTER}/AUTHORIZED/worker-{own}"
    with lab.client(lab.etcd[0]) as client:
        now = client.get(key)
        assert now is not None
        older = re.sub(rb'"Host":"[^"]+"', b'"Host":"old.example.com"', now.value)
        client.put(key, older)
        wait_until(lambda: not client.range(f"/ServiceDiscovery/{CLUSTER}/")[1], "leases end", 60)
        done = lab.invoke("backup-etcd", None, "--to", str(tmp_path), "--format", "json").expect(0)
        client.put(key, now.value)
    lab.on(lab.workers, "systemctl start alluxio-worker")
    wait_until(lambda: lab.invoke("start-workers").code == 0, "the workers are ready", 180)
    options = (json.loads(done.stdout)["file"], "--yes-restore", CLUSTER)
    running = lab.start("restore-etcd", None, *options)
    if outage == "long":
        running.wait_for("restore every member")
        running.kill()
        lab.on(lab.workers, AWAIT_RECONNECT)
        running = lab.start("restore-etcd", None, *options)
    running.wait_for("remove the old address of worker1")
    running.kill()
    left = lab.workers[1].run("cat /run/alluxio-provision/restart.alluxio-worker.service")
    assert left.startswith("restore-etcd ")
    first = lab.workers[0].main_pid("alluxio-worker")
    lab.invoke("restore-etcd", None, *options).expect(0, "restart worker1")
    assert lab.workers[0].main_pid("alluxio-worker") == first
    with lab.client(lab.etcd[0]) as client:
        registered = client.get(key)
        assert registered is not None
        assert b"old.example.com" not in registered.value
    assert lab.on(lab.workers, "ls /run/alluxio-provision/restart.* 2>/dev/null || :") == ["", ""]
    lab.invoke("check-nodes").expect(0, "2 workers: 2 LIVE")


def test_a_timer_saves_and_prunes(lab: Lab) -> None:
    inventory = lab.inventory({"etcd": {"backup": {"keep": 2, "member": "etcd1"}}})
    lab.invoke("deploy-etcd", inventory).expect(0)
    host = lab.hosts["etcd1"]
    for _ in range(3):
        host.run("systemctl start etcd-backup.service; sleep 1.1")
    assert host.run("cd /var/backups/etcd; sha256sum -c *.sha256 | grep -c OK") == "2"
    lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")
    lab.invoke("deploy-etcd").expect(0, "remove etcd-backup.timer")
    assert host.show("etcd-backup.timer", "LoadState") == {"LoadState": "not-found"}
    assert host.run("ls /var/backups/etcd/*.db | wc -l") == "2"


def test_the_members_take_turns_and_check_nodes_shows_the_newest(lab: Lab, tmp_path: Path) -> None:
    """By systemd itself, in the units' sandbox, with TLS as the lab has it."""
    lab.on(lab.etcd, "rm -rf /var/backups/etcd")
    inventory = lab.inventory({"etcd": {"backup": {"keep": 2, "same_disk": True}}})
    lab.invoke("deploy-etcd", inventory).expect(0)
    lab.invoke("check-nodes", inventory).expect(0, "backup-missing", "backup: none is known")
    start = """systemctl start etcd-backup.service || :
        run=$(systemctl show -p InvocationID --value etcd-backup.service)
        journalctl _SYSTEMD_INVOCATION_ID="$run" -o cat"""
    said = lab.on(lab.etcd, start)
    assert sum("saved AlxpLab-c" in one for one in said) == 1, said
    assert sum("nothing to do: time=" in one for one in said) == 2, said
    (place,) = filter(None, lab.on(lab.etcd, "ls /var/backups/etcd/*.db 2>/dev/null || :"))
    seen = lab.invoke("check-nodes", inventory, "--format", "json").expect(0).json
    newest = seen["backups"]["newest"]
    assert (newest["path"], newest["age_seconds"] < 300) == (place, True)
    assert seen["backups"]["longest_gap_seconds"] == 86400
    assert [h["last_run"] for h in seen["backups"]["hosts"]] == ["success"] * 3
    assert [p["id"] for p in seen["problems"]] == []
    fetch = ("backup-etcd", inventory, "--fetch", "--to", str(tmp_path))
    lab.on(lab.etcd, "systemctl stop etcd")  # then it is needed most
    try:
        lab.invoke(*fetch).expect(0, f":{place}; the copy has the right sha256")
        lab.invoke(*fetch).expect(0, "the newest backup of every history is here already")
    finally:
        lab.on(lab.etcd, "systemctl start etcd")
    saver = next(h for h in lab.etcd if h.name == newest["member"])
    fetched = tmp_path / Path(place).name
    digest = hashlib.sha256(fetched.read_bytes()).hexdigest()
    assert saver.run(f"sha256sum {place}").split()[0] == digest
    fetched.unlink()
    saver.run(f"printf x | dd of={place} bs=1 seek=5000 conv=notrunc")
    lab.invoke(*fetch).expect(1, "differs from the sha256 that etcd put at its end")
    assert not list(tmp_path.glob("*.db")) + list(tmp_path.glob(".*.partial"))
    # A host that has seen more than its member now has: a failed run, and nothing goes.
    host, note = lab.etcd[0], "/etc/etcd/last-seen"
    host.run(
        f"cp -p {note} {note}.kept; sed -i 's/ revision=[0-9]*/ revision=9223372036854/' {note}"
    )
    lab.on(lab.etcd, "rm -f /var/backups/etcd/*")
    with lab.client(host) as client:
        client.delete(f"/alluxio-provision/{CLUSTER}/backup")
    assert "[etcd-history-behind]" in host.run(start)
    found = lab.invoke("check-nodes", inventory, "--format", "json").expect(0).json
    assert [p["id"] for p in found["problems"]] == ["backup-run-failed", "backup-missing"]
    host.run(f"mv {note}.kept {note}")
    lab.invoke("deploy-etcd").expect(0, "remove etcd-backup.timer")


def test_the_audit_log_has_it(lab: Lab) -> None:
    host = lab.etcd[0]
    done = lab.invoke("audit", None, host.name, "--format", "json").expect(0)
    titles = [c for e in done.json["entries"] for c in e["changes"]]
    assert any("restore /var/lib/etcd/member" in title for title in titles)
    assert host.run("stat -c %a:%U /var/log/alluxio-provision/audit.log") == "640:root"
