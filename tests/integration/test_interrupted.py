"""Runs that are killed, meet another run, or meet a disk that fills up while they work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .lab import DESTROY, Done, Lab, small_disk, wait_until

SETTINGS = {"etcd": {"settings": {"snapshot-count": 30000}}}

#: For find: what is there only while something is being written.
HALF = "-name '.incoming*' -o -name '*.new'"
#: Where the run is when it is killed: a line of its progress with -v, and which one.
MOMENTS = {
    "uploading": (r"\[1/2\] bootstrap the cluster", 1),
    "applying on one host, uploading to others": (r": upload ", 1),
    "starting every member": (r": upload ", 3),
    "one host done": (r"etcd\d: ok", 1),
    "in the gate": (r"waiting: every member healthy", 1),
}


def assert_unlocked(lab: Lab) -> None:
    """The lock of every host can be had at once, or as soon as its sshd has noticed."""
    lab.on(lab.etcd, "flock -w 5 /run/alluxio-provision/run.lock true")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_first_run_that_was_killed_is_finished_by_running_again(lab: Lab, moment: str) -> None:
    lab.destroy()
    run = lab.start("deploy-etcd", None, "--verbose")
    run.wait_for(*MOMENTS[moment])
    run.kill()
    assert_unlocked(lab)
    lab.invoke("deploy-etcd").expect(0, "endpoints: http://")
    lab.invoke("deploy-etcd").expect(0, "0 changed")
    assert lab.on(lab.etcd, f"find /opt/etcd /etc/etcd {HALF}") == ["", "", ""]


@pytest.mark.parametrize("moment", list(MOMENTS)[:3])
def test_what_a_killed_first_run_left_is_destroyed(lab: Lab, moment: str) -> None:
    lab.destroy()
    run = lab.start("deploy-etcd", None, "--verbose")
    run.wait_for(*MOMENTS[moment])
    run.kill()
    assert_unlocked(lab)
    lab.on(lab.etcd, "flock -w 50 /run/alluxio-provision/batch.lock true || :")
    lab.invoke("destroy", None, *DESTROY).expect(0, "changed")
    assert not lab.left_over()


@pytest.mark.parametrize("step", [1, 2])
def test_a_roll_out_that_was_killed_goes_on_with_the_others(lab: Lab, step: int) -> None:
    lab.invoke("deploy-etcd").expect(0)
    before = {host: host.main_pid("etcd") for host in lab.etcd}
    inventory = lab.inventory(SETTINGS)
    run = lab.start("deploy-etcd", inventory)
    run.wait_for(r"etcd\d: ok", step)
    run.kill()
    assert_unlocked(lab)
    between = {host: host.main_pid("etcd") for host in lab.etcd}
    done = [host for host in lab.etcd if between[host] != before[host]]
    assert len(done) == step
    lab.invoke("deploy-etcd", inventory).expect(0)
    assert all(host.main_pid("etcd") == between[host] for host in done), "restarted again"
    lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")


CALL = r"^\S+: .+: [0-9.]+ s$"
#: Where Ctrl-C meets a roll-out: a line of its progress with -v, which one, and seconds after it.
Moment = tuple[str, int, float]
ROLL_OUT: list[Moment] = [
    (CALL, 1, 0),
    (r"\[1/3\] change ", 1, 0),
    (r"waiting: every member healthy", 1, 0),
    (r"\[3/3\] change ", 1, 0),
]


def interrupted(lab: Lab, moment: Moment, *words: object) -> Done:
    """A run with -v that Ctrl-C meets."""
    task, inventory, *options = words
    assert isinstance(task, str)
    run = lab.start(task, inventory, *map(str, options), "--verbose")  # type: ignore[arg-type]
    line, times, after = moment
    run.wait_for(line, times)
    return run.interrupt(after)


def test_ctrl_c_at_any_time_leaves_no_lock_and_no_half_file(lab: Lab) -> None:
    """At some moments, or with ``CUTS=all`` in every twentieth of a second as well."""
    lab.invoke("deploy-etcd").expect(0)

    def roll(number: int) -> Path:
        return lab.inventory({"etcd": {"settings": {"snapshot-count": 40000 + number}}})

    whole = lab.start("deploy-etcd", roll(0)).finish().expect(0, "etcd2: ok").seconds
    by_time = int(whole / 0.05) if os.environ.get("CUTS") == "all" else 0
    moments = [*ROLL_OUT, *((CALL, 1, 0.05 * n) for n in range(by_time))]
    for number, moment in enumerate(moments, 1):
        done = interrupted(lab, moment, "deploy-etcd", roll(number))
        if done.code != 0 or moment in ROLL_OUT:  # or it was done by then
            done.expect(130, "error: interrupted")
        assert_unlocked(lab)
        lab.on(lab.etcd, "flock -w 30 /run/alluxio-provision/batch.lock true || :")
        assert lab.on(lab.etcd, f"find /opt/etcd /etc/etcd {HALF}") == ["", "", ""]
        lab.invoke("deploy-etcd", roll(number)).expect(0, "endpoints: http://")
    lab.invoke("deploy-etcd").expect(0)


def test_ctrl_c_leaves_no_half_backup(lab: Lab, tmp_path: Path) -> None:
    lab.invoke("deploy-etcd").expect(0)
    codes = []
    for number, after in enumerate((0, 0.1, 0.2, 0.3)):
        folder = tmp_path / str(number)
        done = interrupted(lab, (CALL, 1, after), "backup-etcd", None, "--to", folder)
        codes.append(done.code)
        assert "Traceback" not in done.text, done.text
        assert len(list(folder.glob("*"))) == {130: 0, 0: 1}[done.code], done.text
        wait_until(
            lambda: not any(lab.on(lab.etcd, "ls -d /var/tmp/alluxio-* 2>/dev/null || :")),
            "the hosts have nothing of the proof left",
        )
    assert 130 in codes


def test_of_two_runs_at_once_the_second_gives_way(lab: Lab) -> None:
    lab.invoke("deploy-etcd").expect(0)
    inventory = lab.inventory(SETTINGS)
    first = lab.start("deploy-etcd", inventory)
    first.wait_for(r"\[1/3\] change ")
    with first.stopped():
        # What it may have sent before it stopped is done then.
        lab.on(lab.etcd, "flock -w 30 /run/alluxio-provision/batch.lock true")
        before = lab.snapshot()
        second = lab.invoke("deploy-etcd", inventory)
        second.expect(5, f"(pid {first.process.pid}): deploy-etcd, since ", "another run holds")
        lab.invoke("destroy", None, "--yes-delete", lab.name).expect(5, "another run holds")
        assert lab.snapshot() == before
    first.finish().expect(0, "endpoints: http://")
    lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")


def test_a_disk_that_fills_during_the_upload_is_said_and_can_be_freed(lab: Lab) -> None:
    lab.destroy()
    full = lab.etcd[1]
    with small_disk(full, "/opt", 160):
        run = lab.start("deploy-etcd")
        run.wait_for(r"\[1/2\] bootstrap the cluster")
        with run.stopped():
            full.run("head -c 150M /dev/zero >/opt/filler", check=False)
        failed = run.finish()
        failed.expect(4, f"etcd1 at {full.address} (", "1 of 3 hosts failed")
        failed.expect(4, "): install /opt/etcd/3.6.16", "No space left on device")
        failed.expect(4, "free space there (df -h) or inodes (df -i), then run again")
        full.run("rm /opt/filler; ls -A /opt/etcd")
        lab.invoke("deploy-etcd").expect(0, "endpoints: http://")
        lab.invoke("deploy-etcd").expect(0, "0 changed")
        lab.destroy()


def test_a_disk_without_inodes_is_said(lab: Lab) -> None:
    lab.destroy()
    full = lab.etcd[1]
    with small_disk(full, "/opt", 400, inodes=3):
        failed = lab.invoke("deploy-etcd")
        failed.expect(4, f"etcd1 at {full.address} (", "No space left on device", "inodes (df -i)")
    lab.invoke("deploy-etcd").expect(0, "endpoints: http://")
    lab.destroy()
