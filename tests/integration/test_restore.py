"""restore-etcd on real hosts: what is proven before anything stops, the way back, and whose data
it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import CLUSTER, Host, Lab, wait_until

pytestmark = pytest.mark.slow

CONSENT = ("--yes-restore", CLUSTER)
UNDO = ("restore-etcd", None, "--undo", "--yes-undo", CLUSTER)
#: Each is a line of progress, and the undo is killed when it has been seen.
UNDO_STEPS = (
    "stop every member",
    "put the data from before the restore back",
    "start all members",
    "look for workers without a registration",
    "finish",
)


@pytest.fixture(scope="module", autouse=True)
def without_old_data(lab: Lab, workers: None) -> Iterator[None]:
    """Kept data is the operator's: no command deletes it."""
    yield
    lab.on(lab.etcd, "rm -rf /var/lib/etcd/member.* /var/lib/etcd/rest*")


@pytest.fixture
def saved(lab: Lab, tmp_path: Path) -> Path:
    """A backup; /later is written after it."""
    with lab.client(lab.etcd[0]) as client:
        client.delete("/later")
        client.delete("/since")
    done = lab.invoke("backup-etcd", None, "--to", str(tmp_path), "--format", "json").expect(0)
    with lab.client(lab.etcd[0]) as client:
        client.put("/later", "x")
    return Path(done.json["file"])


def pids(lab: Lab) -> list[int]:
    return [host.main_pid("etcd") for host in lab.etcd]


def rewritten(saved: Path, body: bytearray) -> Path:
    """A snapshot file with this content, and the right checksum at its end."""
    path = saved.with_name("damaged.db")
    path.write_bytes(bytes(body) + hashlib.sha256(body).digest())
    return path


def ids(lab: Lab) -> list[int]:
    found = []
    for host in lab.etcd:
        with lab.client(host) as client:
            found.append(client.status().cluster_id)
    return found


def has(lab: Lab, key: str) -> list[bool]:
    found = []
    for host in lab.etcd:
        with lab.client(host) as client:
            found.append(client.get(key) is not None)
    return found


def left_in_data(host: Host) -> set[str]:
    return set(host.run("ls -A /var/lib/etcd").split())


def test_zeros_inside_a_file_with_the_right_checksum_stop_nothing(lab: Lab, saved: Path) -> None:
    """All pages of the file but the first two, which say where the others are."""
    body = bytearray(saved.read_bytes()[:-32])
    body[2 * 4096 :] = bytes(len(body) - 2 * 4096)
    file = rewritten(saved, body)
    before, snapshot = pids(lab), lab.snapshot()
    refused = lab.invoke("restore-etcd", None, str(file), *CONSENT)
    refused.expect(3, "cannot be restored", "snapshot-invalid", "nothing was changed")
    assert pids(lab) == before
    assert lab.snapshot() == snapshot
    assert lab.on(lab.etcd, "ls /var/tmp | grep provision-scratch || :") == ["", "", ""]


def test_zeros_in_a_workers_value_stop_nothing(lab: Lab, saved: Path) -> None:
    """For etcd any bytes are a value."""
    body = bytearray(saved.read_bytes()[:-32])
    text = b'"WorkerNetAddress"'
    at = body.find(text)
    assert at > 0
    while at >= 0:
        body[at : at + len(text)] = bytes(len(text))
        at = body.find(text)
    before = pids(lab)
    refused = lab.invoke("restore-etcd", None, str(rewritten(saved, body)), *CONSENT)
    refused.expect(3, "is damaged: it has zero bytes", "snapshot-invalid", "nothing was changed")
    assert pids(lab) == before


def test_a_dry_run_proves_the_file_and_leaves_nothing(lab: Lab, saved: Path) -> None:
    snapshot = lab.snapshot()
    done = lab.invoke("restore-etcd", None, str(saved), "--dry-run")
    done.expect(0, f"Alluxio clusters in it: {CLUSTER}; authentication is off", "would change")
    assert lab.snapshot() == snapshot


def test_members_serve_until_every_host_has_its_side_folder(lab: Lab, saved: Path) -> None:
    before = pids(lab)
    running = lab.start("restore-etcd", None, str(saved), *CONSENT)
    running.wait_for("stop every member")
    with running.stopped():
        made = lab.on(lab.etcd, "cat /var/lib/etcd/restoring-*/member/restored-by")
    assert len(set(made)) == 1
    running.kill()
    lab.invoke("restore-etcd", None, str(saved), *CONSENT).expect(0)
    assert all(a != b for a, b in zip(pids(lab), before, strict=True))
    # Started at the same moment, each would wait 7 s for each other one, and none would be checked.
    mine = "journalctl -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -p InvocationID --value etcd)"
    said = lab.on(lab.etcd, mine)
    assert all("initial corruption checking passed" in text for text in said)
    assert not any("context deadline exceeded" in text for text in said)
    assert has(lab, "/later") == [False] * 3
    owners = "find /var/lib/etcd ! -user etcd ! -name data-disk"
    assert lab.on(lab.etcd, owners) == [""] * 3


def test_what_a_killed_restore_leaves_is_shown_and_deleted(
    lab: Lab, saved: Path, tmp_path: Path
) -> None:
    """Another file is restored after the kill: the upload of the first is left."""
    digest = hashlib.sha256(saved.read_bytes()).hexdigest()
    upload = f"restore-{digest[:16]}.db"
    other = backup(lab, tmp_path / "other")
    running = lab.start("restore-etcd", None, str(saved), *CONSENT)
    running.wait_for("stop every member")
    running.kill()
    lab.invoke("restore-etcd", None, str(other), *CONSENT).expect(0)
    assert {n for n in left_in_data(lab.etcd[0]) if n.startswith("resto")} == {upload}
    shown = lab.invoke("kept-data", None, "--format", "json").expect(0).json["kept"]
    assert [k["why"] for k in shown if k["path"].endswith(upload)] == ["killed restore"] * 3
    lab.invoke("kept-data", None, "--delete", upload).expect(0)
    assert not [n for n in left_in_data(lab.etcd[0]) if n.startswith("resto")]


def restored(lab: Lab, saved: Path) -> list[int]:
    """After a restore and a later write. Returns the etcd cluster's id from before the restore."""
    before = ids(lab)
    lab.invoke("restore-etcd", None, str(saved), *CONSENT).expect(0)
    assert ids(lab) != before
    with lab.client(lab.etcd[0]) as client:
        client.put("/since", "x")
    return before


def require_undone(lab: Lab, before: list[int]) -> None:
    assert ids(lab) == before
    assert has(lab, "/later") == [True] * 3
    assert has(lab, "/since") == [False] * 3
    assert not any(lab.on(lab.etcd, "ls -d /var/lib/etcd/unfinished || :", check=False))
    lab.invoke("deploy-etcd").expect(0, "0 changed")
    lab.invoke("check-nodes").expect(0, "2 workers: 2 LIVE")


def test_the_way_back_has_a_consent_of_its_own(lab: Lab, saved: Path) -> None:
    before = restored(lab, saved)
    lab.invoke("restore-etcd", None, "--undo").expect(2, "say --yes-undo and its name")
    plan = lab.invoke("restore-etcd", None, "--undo", "--dry-run")
    plan.expect(0, "everything written since the restore of", " revisions, from ")
    lab.invoke(*UNDO).expect(0, "the restored data: /var/lib/etcd/member.before-undo-")
    require_undone(lab, before)
    # There is no way back twice: this data is of no restore, or its own former data is gone.
    lab.on(lab.etcd, "rm -rf /var/lib/etcd/member.before-restore-*")
    lab.invoke(*UNDO).expect(3, "undo-impossible")
    assert ids(lab) == before
    # A backup is the other way back.
    lab.invoke("restore-etcd", None, str(saved), *CONSENT).expect(0)


def test_until_the_former_data_is_deleted(lab: Lab, saved: Path) -> None:
    restored(lab, saved)
    now = ids(lab)
    (id,) = set(lab.on(lab.etcd, "cat /var/lib/etcd/member/restored-by"))
    lab.invoke("kept-data", None, "--delete", f"member.before-restore-{id}").expect(0)
    lab.invoke(*UNDO).expect(3, "it was deleted", "undo-impossible", "nothing was changed")
    assert ids(lab) == now


@pytest.mark.parametrize("step", UNDO_STEPS)
def test_a_killed_undo_is_finished_by_running_it_again(lab: Lab, saved: Path, step: str) -> None:
    before = restored(lab, saved)
    running = lab.start(*UNDO)
    running.wait_for(step)
    running.kill()
    if step not in ("stop every member", "finish"):  # it surely has begun, and not ended
        lab.invoke("deploy-etcd").expect(3, "a restore or a recovery is not finished")
    if step == "finish":
        lab.invoke(*UNDO)  # nothing is left to undo where it has ended
    else:
        lab.invoke(*UNDO).expect(0)
    require_undone(lab, before)


def test_a_killed_restore_can_be_undone(lab: Lab, saved: Path) -> None:
    before = ids(lab)
    running = lab.start("restore-etcd", None, str(saved), *CONSENT)
    running.wait_for("start all members")
    running.kill()
    lab.invoke(*UNDO).expect(0)
    require_undone(lab, before)


def test_a_host_that_boots_amid_a_restore_starts_nothing(lab: Lab, saved: Path) -> None:
    """Neither the old data, which would be another cluster, nor the new one beside members that are
    not restored."""
    running = lab.start("restore-etcd", None, str(saved), *CONSENT)
    running.wait_for("restore every member")
    running.kill()
    host = lab.etcd[1]
    host.reboot()
    assert host.show("etcd", "ActiveState", "UnitFileState") == {
        "ActiveState": "inactive",
        "UnitFileState": "disabled",
    }
    lab.invoke("deploy-etcd").expect(3, "a restore or a recovery is not finished")
    lab.invoke("restore-etcd", None, str(saved), *CONSENT).expect(0)
    assert has(lab, "/later") == [False] * 3
    assert len({*ids(lab)}) == 1
    lab.invoke("check-nodes").expect(0, "2 workers: 2 LIVE")
    host.reboot()
    wait_until(lambda: lab.invoke("check-nodes").code == 0, "it serves again", seconds=120)


def test_a_snapshot_of_another_cluster_wants_its_name(lab: Lab, tmp_path: Path) -> None:
    """The names of the clusters in the file: another one only, and none at all."""
    prefixes = [f"/DHT/{CLUSTER}/", f"/ServiceDiscovery/{CLUSTER}/"]
    lab.on(lab.workers, "systemctl stop alluxio-worker")
    with lab.client(lab.etcd[0]) as client:
        wait_until(lambda: not client.range(prefixes[1])[1], "leases end", 60)
        now = client.range(prefixes[0])[1]
        for key in now:
            client.delete(key.key)
    none = backup(lab, tmp_path / "none")
    with lab.client(lab.etcd[0]) as client:
        client.put("/DHT/Other/AUTHORIZED/worker-1", "{}")
    other = backup(lab, tmp_path / "other")
    with lab.client(lab.etcd[0]) as client:
        client.delete("/DHT/Other/AUTHORIZED/worker-1")
        for key in now:
            client.put(key.key, key.value)
    lab.on(lab.workers, "systemctl start alluxio-worker")
    wait_until(lambda: lab.invoke("start-workers").code == 0, "the workers are ready", 180)
    before = pids(lab)
    refused = lab.invoke("restore-etcd", None, str(other), *CONSENT)
    refused.expect(3, "has keys of Other, and none of", "snapshot-other-cluster")
    named = ("--other-cluster", "Another")
    lab.invoke("restore-etcd", None, str(other), *CONSENT, *named).expect(2, "Another")
    warned = lab.invoke("restore-etcd", None, str(none), "--dry-run")
    warned.expect(0, "has no key of any Alluxio cluster", "snapshot-other-cluster")
    assert pids(lab) == before
    # Both keys of every worker are there afterwards: this file is from before their registration.
    lab.invoke("restore-etcd", None, str(other), *CONSENT, "--other-cluster", "Other").expect(0)
    with lab.client(lab.etcd[0]) as client:
        assert [len(client.range(p)[1]) for p in prefixes] == [2, 2]
        client.delete("/DHT/Other/AUTHORIZED/worker-1")
    lab.invoke("check-nodes").expect(0, "2 workers: 2 LIVE")


def test_a_worker_without_both_keys_is_named(lab: Lab, tmp_path: Path) -> None:
    """worker1 is stopped, and the file is from before its first registration. worker0 has failed,
    and comes back."""
    own = lab.workers[1].run("grep -v '^#' /var/lib/alluxio/worker_identity")
    key = f"/DHT/{CLUSTER}/AUTHORIZED/worker-{own}"
    lab.workers[1].run("systemctl stop alluxio-worker")
    with lab.client(lab.etcd[0]) as client:
        live = f"/ServiceDiscovery/{CLUSTER}/worker-{own}"
        wait_until(lambda: client.get(live) is None, "its lease ends", 60)
        now = client.get(key)
        assert now is not None
        client.delete(key)
    file = backup(lab, tmp_path)
    lab.workers[0].run(
        "d=/run/systemd/system/alluxio-worker.service.d; mkdir -p $d; "
        "printf '[Service]\\nRestart=no\\n' >$d/no.conf; systemctl daemon-reload; "
        "systemctl kill -s KILL alluxio-worker; "
        "until systemctl is-failed -q alluxio-worker; do sleep 0.1; done; "
        "rm -r $d; systemctl daemon-reload"
    )
    assert lab.workers[0].show("alluxio-worker", "ActiveState") == {"ActiveState": "failed"}
    ended = lab.invoke("restore-etcd", None, str(file), *CONSENT)
    ended.expect(4, "worker1", "has no permanent key and no live key in etcd; it is stopped")
    assert not any("worker0" in line for line in ended.text.splitlines() if "no live key" in line)
    assert not any(lab.on(lab.etcd, "ls -d /var/lib/etcd/unfinished || :", check=False))
    lab.invoke("start-workers", None, "--limit", "worker1").expect(0)
    lab.invoke("check-nodes").expect(0, "2 workers: 2 LIVE")


def test_an_inventory_with_one_of_three_members_is_refused(lab: Lab, saved: Path) -> None:
    one = lab.inventory({"etcd": {"members": {"etcd1": None, "etcd2": None}}})
    before = pids(lab)
    refused = lab.invoke("restore-etcd", one, str(saved), *CONSENT)
    refused.expect(3, "etcd1", "etcd2", "--without etcd1,etcd2", "member-not-declared")
    lab.invoke("restore-etcd", one, str(saved), *CONSENT, "--without", "etcd1").expect(3)
    lab.invoke("restore-etcd", one, str(saved), *CONSENT, "--without", "etcd9").expect(2, "etcd9")
    plan = ("restore-etcd", one, str(saved), "--dry-run", "--without", "etcd2,etcd1")
    lab.invoke(*plan).expect(0, "etcd1: is left out")
    assert pids(lab) == before
    lab.on(lab.etcd, "systemctl stop etcd")  # nobody can be asked for the list of members
    try:
        lab.invoke("restore-etcd", one, str(saved), *CONSENT).expect(3, "--without etcd1,etcd2")
    finally:
        lab.on(lab.etcd, "systemctl start etcd")


def test_destroy_takes_what_a_killed_restore_has_left(lab: Lab, saved: Path) -> None:
    running = lab.start("restore-etcd", None, str(saved), *CONSENT)
    running.wait_for("restore every member")
    running.kill()
    lab.on(lab.etcd, "touch /var/lib/etcd/restore-0123456789abcdef.db.Ab12cD")
    lab.destroy()
    lab.invoke("deploy-etcd").expect(0)
    lab.invoke("start-workers").expect(0)


def backup(lab: Lab, into: Path) -> Path:
    done = lab.invoke("backup-etcd", None, "--to", str(into), "--format", "json").expect(0)
    return Path(done.json["file"])


def test_the_snapshots_authentication_becomes_the_inventorys(
    lab: Lab, saved: Path, tmp_path: Path
) -> None:
    """The file is from before enable-auth."""
    secrets = {"root": tmp_path / "root", "worker": tmp_path / "worker"}
    for name, path in secrets.items():
        path.write_text(f"password-of-{name}")
    password = {"file": str(secrets["root"])}
    login = {"username": "alluxio", "password": {"file": str(secrets["worker"])}}
    with_auth = lab.inventory(
        {
            "etcd": {"auth": {"enabled": True, "root_password": password}},
            "alluxio": {"etcd": login},
        }
    )
    lab.invoke("enable-auth", with_auth).expect(0)
    done = lab.invoke("restore-etcd", with_auth, str(saved), *CONSENT)
    done.expect(0, "authentication is off in it", "turn authentication on")
    lab.invoke("check-nodes", with_auth).expect(0, "2 workers: 2 LIVE")
    lab.invoke("enable-auth", with_auth).expect(0, "0 changed")
    into = tmp_path / "auth"
    taken = lab.invoke("backup-etcd", with_auth, "--to", str(into), "--format", "json").expect(0)
    file = taken.json["file"]
    before = pids(lab)
    # Another password of root would lock this tool out of the restored etcd.
    secrets["root"].write_text("another")
    refused = lab.invoke("restore-etcd", with_auth, file, *CONSENT)
    refused.expect(3, "root's password in it is not etcd.auth.root_password")
    secrets["root"].write_text("password-of-root")
    refused = lab.invoke("restore-etcd", None, file, *CONSENT)
    refused.expect(3, "the inventory has no etcd.auth.root_password")
    assert pids(lab) == before
    off = lab.inventory({"etcd": {"auth": {"enabled": False, "root_password": password}}})
    lab.invoke("disable-auth", off).expect(0)
    done = lab.invoke("restore-etcd", off, file, *CONSENT)
    done.expect(0, "authentication is on in it", "turn authentication off")
    # Nobody has read the data from before: the way back has the step, too.
    lab.invoke("restore-etcd", off, "--undo", "--dry-run").expect(0, "turn authentication off")
    lab.invoke("check-nodes", off).expect(0, "2 workers: 2 LIVE")
