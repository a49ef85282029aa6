"""How a worker starts: over a deployment of an earlier version, from which tarball, and again.

Tests build on each other.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .lab import RELEASE, REPO, Done, Host, Lab, another_release, wait_until
from .release import JDK

UNIT = "alluxio-worker.service"
HOME = "/opt/alluxio/313"
STATE = "/var/lib/alluxio"
KEPT = f"{STATE}/worker_metastore/DoraMeta/kept"
JAVA = f"/opt/java/{RELEASE.jdk.name.removesuffix('.tar.gz')}/bin/java"
#: A version of this tool whose worker had its state in the release's folder.
BEFORE = "972909c"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tool as it was."""
    folder = tmp_path_factory.mktemp("before") / "tool"
    git = ["git", "-C", str(REPO)]
    known = subprocess.run([*git, "cat-file", "-e", BEFORE], capture_output=True, check=False)
    if known.returncode:
        pytest.skip(f"this copy of the project does not have its commit {BEFORE}")
    git.append("worktree")
    subprocess.run([*git, "add", "-q", "--detach", folder, BEFORE], check=True)
    (folder / ".lab").symlink_to(REPO / ".lab")
    yield folder
    subprocess.run([*git, "remove", "--force", folder], check=True)


@pytest.fixture(scope="module")
def old_release(lab: Lab, before: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inventory with a tarball that the tool could start then: the launcher's older name, and
    a place for the metastore in the release's folder, which the worker may write to."""
    tarball = tmp_path_factory.mktemp("before") / RELEASE.tarball.name
    with (
        tarfile.open(RELEASE.tarball, "r:*") as now,
        tarfile.open(tarball, "w:gz", compresslevel=1) as then,
    ):
        for entry in now:
            top, _, path = entry.name.partition("/")
            content = now.extractfile(entry) if entry.isreg() else None
            if path == "bin/launch-process-bash":
                assert content is not None
                script = content.read()
                older = copy(entry)
                older.name = f"{top}/bin/launch-process"
                then.addfile(older, io.BytesIO(script))
                content = io.BytesIO(script)
            then.addfile(entry, content)
        place = tarfile.TarInfo(f"{top}/metastore")
        place.type, place.mode = tarfile.DIRTYPE, 0o777
        then.addfile(place)
    return sourced(lab, tarball)


def sourced(lab: Lab, tarball: Path, **more: Any) -> Path:
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    return lab.inventory({"alluxio": {"source": {"path": str(tarball), "sha256": digest}, **more}})


def by(tool: Path, task: str, inventory: Path) -> None:
    command = [sys.executable, "-m", "invoke", task, "--inventory", str(inventory)]
    done = subprocess.run(command, cwd=tool, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def left_state_at_home(host: Host) -> None:
    host.run(
        f"install -d -o alluxio {HOME}/metastore/DoraMeta; "
        f"echo {host.name} >{HOME}/metastore/DoraMeta/kept; "
        f"chown alluxio: {HOME}/metastore; chmod go-w {HOME}/metastore {HOME}/logs/user"
    )


class TestAnEarlierDeployment:
    def test_what_it_needs_is_planned_and_shown(
        self, lab: Lab, clean: None, before: Path, old_release: Path
    ) -> None:
        by(before, "deploy-etcd", old_release)
        by(before, "start-workers", old_release)
        for host in lab.workers:
            left_state_at_home(host)
        seen = lab.snapshot()
        shown = lab.invoke("start-workers", old_release, "--dry-run").expect(
            0,
            f"move {HOME}/metastore to {STATE}/worker_metastore, with {UNIT} stopped",
            "restart worker0",
        )
        assert "install" not in shown.stdout
        assert lab.snapshot() == seen

    def test_a_run_that_is_killed_loses_no_state(self, lab: Lab, old_release: Path) -> None:
        one = lab.workers[0]
        run = lab.start("start-workers", old_release, "--limit", "worker0")
        run.wait_for(r"\[2/2\] restart worker0")
        wait_until(lambda: one.show(UNIT, "ActiveState")["ActiveState"] != "active", "stopped")
        run.kill()
        limited = ("--limit", "worker0")
        lab.invoke("start-workers", old_release, *limited).expect(0, "1 of 1 live")
        assert one.read(KEPT) == "worker0"
        assert one.run(f"stat -c %U {STATE}/worker_metastore") == "alluxio"
        assert one.run(f"ls -d {HOME}/metastore || :") == ""
        lab.invoke("start-workers", old_release, *limited).expect(0, "0 changed")

    def test_it_is_taken_out_of_a_tree_that_is_replaced(self, lab: Lab) -> None:
        lab.invoke("start-workers").expect(0, f"replace {HOME}", "2 of 2 live")
        assert [host.read(KEPT) for host in lab.workers] == ["worker0", "worker1"]
        lab.invoke("start-workers").expect(0, "0 changed")

    @pytest.mark.skipif(
        RELEASE.jdk.name != JDK, reason="a JDK without the lab's archive of classes"
    )
    def test_java_begins_with_the_archive_of_its_classes(self, lab: Lab) -> None:
        """Made for the modules with their time: unpacked with another, Java leaves it alone."""
        for host in lab.workers:
            assert "sharing" in host.run(f"{JAVA} -Xshare:on -version 2>&1")

    def test_java_unpacks_what_it_needs_in_the_state_folder(self, lab: Lab) -> None:
        one = lab.workers[0]
        command = one.run(f"tr '\\0' ' ' </proc/{one.main_pid(UNIT)}/cmdline")
        assert f"-Djava.io.tmpdir={STATE}/tmp/worker " in command
        assert "-XX:+ExitOnOutOfMemoryError" in command
        assert one.run(f"stat -c '%U %a' {STATE}/tmp/worker") == "alluxio 750"


def test_after_another_tarball_of_the_same_version_a_second_run_is_empty(
    lab: Lab, tmp_path: Path
) -> None:
    tarball = tmp_path / "alluxio-313-bin.tar.gz"
    with (
        tarfile.open(RELEASE.tarball, "r:*") as same,
        tarfile.open(tarball, "w:gz", compresslevel=1) as other,
    ):
        for entry in same:
            other.addfile(entry, same.extractfile(entry) if entry.isfile() else None)
        entry = tarfile.TarInfo("alluxio-313/conf/rebuilt")
        other.addfile(entry, io.BytesIO())
    rebuilt = sourced(lab, tarball)
    lab.invoke("start-workers", rebuilt).expect(0, f"replace {HOME}", "2 of 2 live")
    listed = lab.workers[0].read(f"{HOME}/conf/workers").splitlines()
    assert listed[1:] == [host.address for host in lab.workers]
    lab.invoke("start-workers", rebuilt).expect(0, "0 changed")


class TestTheTarball:
    def _refused(self, lab: Lab, inventory: Path, what: str) -> None:
        before = lab.snapshot()
        done: Done = lab.invoke("start-workers", inventory)
        done.expect(3, "preflight failed; nothing was changed", what)
        assert done.text.count("[tarball-unfit]") == 1
        assert lab.snapshot() == before

    def test_of_another_release(self, lab: Lab, tmp_path: Path) -> None:
        newer = another_release(tmp_path)
        what = "holds Alluxio 314, but alluxio.version is 313"
        self._refused(lab, sourced(lab, newer), what)

    @pytest.mark.parametrize(
        ("pattern", "what"),
        [
            ("etcd-v3.6.16-*.tar.gz", "holds etcd, not Alluxio"),
            ("jdk-11-lab.tar.gz", "holds a JDK, not Alluxio"),
        ],
    )
    def test_of_something_else(self, pattern: str, what: str, lab: Lab) -> None:
        (tarball,) = (REPO / ".lab/artifacts").glob(pattern)
        self._refused(lab, sourced(lab, tarball), what)


@pytest.fixture(scope="module")
def one(lab: Lab, workers: None) -> Iterator[Host]:
    """The host of a worker whose Java ends at once."""
    host = lab.workers[0]
    host.run(f"mv {JAVA} {JAVA}.aside; echo 'exit 1' >{JAVA}; chmod 755 {JAVA}")
    host.run(f"systemctl kill -s KILL {UNIT}")
    yield host
    host.run(f"[ ! -e {JAVA}.aside ] || mv {JAVA}.aside {JAVA}")


def state(host: Host) -> tuple[str, int]:
    """What systemd does with the worker, and how often it has started it again."""
    seen = host.show(UNIT, "SubState", "NRestarts")
    return seen["SubState"], int(seen["NRestarts"])


def waits(host: Host, least: int) -> bool:
    doing, restarts = state(host)
    return doing == "start-pre" and restarts >= least


class TestStartsBySystemd:
    def test_they_wait_longer_and_longer(self, one: Host) -> None:
        wait_until(lambda: waits(one, 8), "the 8th waits", seconds=180)
        lines = f"journalctl -u {UNIT} -b -o cat | grep 'by systemd: waiting'"
        wait_until(lambda: "start 8 " in one.run(lines).splitlines()[-1], "its line is there")
        said = one.run(lines).splitlines()
        first = max(n for n, line in enumerate(said) if line.startswith("start 6 "))
        assert said[first : first + 3] == [
            f"start {n} by systemd: waiting {3 * n - 15} s" for n in (6, 7, 8)
        ]

    def test_one_that_waits_can_be_stopped(self, lab: Lab, one: Host) -> None:
        lab.invoke("stop-workers", None, "--limit", "worker0").expect(0, "1 changed")
        assert one.show(UNIT, "ActiveState") == {"ActiveState": "inactive"}
        one.run(f"systemctl start {UNIT}")
        assert state(one)[1] <= 1  # by hand, the count begins again
        wait_until(lambda: waits(one, 7), "the 7th waits", seconds=180)

    def test_a_start_by_the_tool_does_not_wait(self, lab: Lab, one: Host) -> None:
        # It has to wait still when the tool looks.
        wait_until(lambda: waits(one, 12), "the 12th waits 21 s", seconds=300)
        one.run(f"mv {JAVA}.aside {JAVA}")
        lab.invoke("start-workers").expect(0, f"restart {UNIT}", "2 of 2 live")
        assert state(one) == ("running", 0)

    def test_who_has_just_been_started_is_waited_for(self, lab: Lab) -> None:
        """A real worker takes longer than its lease lasts here; this one sleeps for as long."""
        other = lab.workers[1]
        timer = "systemd-run -q --on-active=15 --timer-property=AccuracySec=1"
        later = f"{timer} systemctl kill -s CONT {UNIT}"
        other.run(f"systemctl restart {UNIT}; systemctl kill -s STOP {UNIT}; {later}")
        lab.invoke("start-workers").expect(0, "0 changed; 2 of 2 live")

    def test_a_long_run_sets_the_count_back(self, lab: Lab) -> None:
        """Here two seconds are long."""
        other, path = lab.workers[1], f"/etc/systemd/system/{UNIT}"
        other.run(f"sed -i 's/ -ge 600000000 / -ge 2000000 /' {path}; systemctl daemon-reload")
        for _ in range(2):
            before = other.main_pid(UNIT)
            wait_until(lambda: _seconds(other) > 2.5, "a run of two seconds")
            other.run(f"systemctl kill -s KILL {UNIT}")
            wait_until(partial(_another, other, before), "started again")
            assert state(other) == ("running", 0)
        lab.invoke("start-workers").expect(0, "2 of 2 live")


def test_a_host_that_boots_before_etcd_needs_no_command(lab: Lab) -> None:
    one = lab.workers[0]
    lab.on(lab.etcd, "systemctl stop etcd")
    one.reboot()
    wait_until(lambda: one.show(UNIT, "SubState")["SubState"] == "running", "it waits")
    lab.on(lab.etcd, "systemctl start etcd")
    wait_until(lambda: lab.invoke("check-nodes").code == 0, "all live", seconds=180)


def _another(host: Host, pid: int) -> bool:
    return host.main_pid(UNIT) not in (0, pid)


def _seconds(host: Host) -> float:
    """How long the worker has been running."""
    script = f"s=$(systemctl show -p ActiveEnterTimestampMonotonic --value {UNIT}); echo $s"
    uptime = float(host.read("/proc/uptime").split()[0])
    return uptime - int(host.run(script)) / 1e6
