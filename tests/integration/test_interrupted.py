"""Runs that are killed, meet another run, or meet a disk that fills up while they work."""

from __future__ import annotations

import pytest

from .lab import Lab, small_disk

SETTINGS = {"etcd": {"settings": {"snapshot-count": 30000}}}

#: Where the run is when it is killed: a line of its progress with -v, and which one.
MOMENTS = {
    "uploading": (r"\[1/1\] bootstrap the cluster", 1),
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
    assert lab.on(lab.etcd, "find /opt/etcd /etc/etcd -name '.incoming*' -o -name '*.new'") == [
        *("", "", "")
    ]


@pytest.mark.parametrize("moment", list(MOMENTS)[:3])
def test_what_a_killed_first_run_left_is_destroyed(lab: Lab, moment: str) -> None:
    lab.destroy()
    run = lab.start("deploy-etcd", None, "--verbose")
    run.wait_for(*MOMENTS[moment])
    run.kill()
    assert_unlocked(lab)
    lab.on(lab.etcd, "flock -w 60 /run/alluxio-provision/batch.lock true || :")
    lab.invoke("destroy", None, "--yes-delete", lab.name).expect(0, "changed")
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
        run.wait_for(r"\[1/1\] bootstrap the cluster")
        with run.stopped():
            full.run("head -c 150M /dev/zero >/opt/filler", check=False)
        failed = run.finish()
        failed.expect(4, f"etcd1 ({full.address}): install /opt/etcd/3.6.16", "1 of 3 hosts failed")
        failed.expect(4, "No space left on device", "free space there, then run again")
        full.run("rm /opt/filler; ls -A /opt/etcd")
        lab.invoke("deploy-etcd").expect(0, "endpoints: http://")
        lab.invoke("deploy-etcd").expect(0, "0 changed")
        lab.destroy()
