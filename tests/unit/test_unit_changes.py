"""The scripts that end a unit, run by a real shell with a systemctl that only notes its calls."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from provision.etcd.member import layout
from provision.host import unit_changes
from provision.host.facts import restart_mark

UNIT = "etcd.service"


def sh(script: str, folder: Path, systemctl: str) -> subprocess.CompletedProcess[str]:
    """Run ``script`` as a batch does; ``systemctl`` is the body of the command of that name."""
    tool = folder / "systemctl"
    tool.write_text(f'#!/bin/sh\necho "$*" >>{folder}/calls\n{systemctl}\n')
    tool.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-ec", script], env={"PATH": path}, capture_output=True, text=True, check=False
    )


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


@pytest.mark.process
def test_a_unit_is_killed_whether_or_not_it_runs(tmp_path: Path) -> None:
    nothing_to_kill = 'case "$1" in kill | reset-failed) exit 1 ;; esac'
    assert sh(unit_changes.kill(UNIT), tmp_path, nothing_to_kill).returncode == 0
    assert calls(tmp_path) == [
        f"disable -q {UNIT}",
        f"stop --no-block {UNIT}",
        f"kill -s KILL {UNIT}",
        f"stop {UNIT}",
        f"reset-failed {UNIT}",
    ]


@pytest.mark.process
@pytest.mark.parametrize("verb", ["disable", "stop"])
def test_a_unit_that_cannot_be_stopped_ends_the_script(tmp_path: Path, verb: str) -> None:
    fails = f'[ "$1" != {verb} ]'
    assert sh(unit_changes.kill(UNIT), tmp_path, fails).returncode != 0


@pytest.mark.process
def test_a_stopped_unit_goes_with_the_mark_of_its_restart(tmp_path: Path) -> None:
    path, mark = tmp_path / UNIT, restart_mark(UNIT)
    path.touch()
    change = unit_changes.delete(UNIT, str(path))
    assert mark == "/run/alluxio-provision/restart.etcd.service"
    assert mark in change.script
    (tmp_path / "mark").touch()
    script = change.script.replace(mark, str(tmp_path / "mark"))
    assert sh(script, tmp_path, "").returncode == 0
    assert not path.exists()
    assert not (tmp_path / "mark").exists()
    assert calls(tmp_path) == ["daemon-reload"]


@pytest.mark.process
@pytest.mark.parametrize(("code", "runs"), [(0, True), (3, False)])
def test_data_are_not_changed_while_etcd_runs(tmp_path: Path, code: int, runs: bool) -> None:
    done = sh(f"{layout.refuse_running()}\necho on", tmp_path, f"exit {code}")
    assert (done.returncode, done.stdout) == ((1, "") if runs else (0, "on\n"))
    assert done.stderr == (f"{UNIT} runs again\n" if runs else "")
    assert calls(tmp_path) == [f"is-active -q {UNIT}"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("there", "low"), [(True, "nice -n 19 ionice -c 3"), (False, "nice -n 19")]
)
def test_the_disk_is_left_to_others_where_that_is_possible(
    tmp_path: Path, there: bool, low: str
) -> None:
    if there:
        (tmp_path / "ionice").write_text("#!/bin/sh\n")
        (tmp_path / "ionice").chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-ec", f'{layout.low_priority()}\necho "$low"'],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{low}\n"
