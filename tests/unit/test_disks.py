"""The marker of a data disk, and the mounts that a unit notes."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.host import disks, safely
from provision.host.facts import HostFacts, PathState
from provision.host.resources import DataDisk
from tests.unit import hosts


def run_check(folder: Path, tmp_path: Path, restarts: str = "0", wait: bool = True) -> int:
    """What the unit's command does, under a systemctl that says ``restarts``."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    for name, body in {"systemctl": f"echo NRestarts={restarts}", "sleep": "exit 0"}.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    command = disks.check(str(folder), "no folder", "mount it", wait=wait)
    # What systemd makes of the two characters.
    script = command.replace("$$", "$").replace("%%", "%").replace("%n", "etcd.service")
    env = {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(["/bin/sh", "-c", script], env=env, capture_output=True, text=True)
    assert (done.returncode == 0) is (not done.stderr)
    if done.returncode:
        assert f"({folder}/data-disk); mount it" in done.stderr
    return done.returncode


@pytest.mark.skipif(os.geteuid() != 0, reason="the marker is root's")
class TestMarker:
    @pytest.mark.process
    def test_it_is_made_once_and_found(self, tmp_path: Path) -> None:
        for _ in range(2):
            script = f"{safely.FUNCTIONS}\n{disks.mark(str(tmp_path))}"
            subprocess.run(["/bin/sh", "-ec", script], check=True)
        assert run_check(tmp_path, tmp_path) == 0

    @pytest.mark.process
    def test_without_it(self, tmp_path: Path) -> None:
        assert run_check(tmp_path / "away", tmp_path) == 1
        assert run_check(tmp_path, tmp_path, wait=False) == 1

    @pytest.mark.process
    def test_a_restart_looks_for_a_minute(self, tmp_path: Path) -> None:
        assert run_check(tmp_path, tmp_path, restarts="3") == 1

    @pytest.mark.process
    @pytest.mark.parametrize("kind", ["file", "link", "of a user"])
    def test_what_is_no_marker(self, kind: str, tmp_path: Path) -> None:
        place = tmp_path / "data-disk"
        if kind == "file":
            place.touch()
        elif kind == "link":
            place.symlink_to("/")
        else:
            place.mkdir()
            os.chown(place, 12345, 12345)
        assert run_check(tmp_path, tmp_path) == 1

    @pytest.mark.process
    def test_mkdir_follows_no_link(self, tmp_path: Path) -> None:
        (tmp_path / "data-disk").symlink_to("elsewhere")
        done = subprocess.run(["/bin/sh", "-ec", disks.mark(str(tmp_path))])
        assert done.returncode != 0
        assert not (tmp_path / "elsewhere").exists()


def test_is_marked() -> None:
    def seen(kind: str = "dir", owner: str = "root") -> bool:
        state = PathState(kind, owner, "root", 0o755, 4096)
        return disks.is_marked("/data", hosts.facts(paths={DataDisk("/data").marker: state}))

    assert seen()
    assert not seen(owner="etcd")
    assert not seen(kind="link")
    assert not disks.is_marked("/data", hosts.facts())


def at(mount: str) -> HostFacts:
    return hosts.facts(disks={"/d/x": replace(hosts.disk("/d/x", 1), mount=mount)})


@pytest.mark.parametrize(
    ("before", "now", "noted", "missing"),
    [
        ("", "/d", {"/d/x": "/d"}, {}),
        ("", "/", {}, {}),
        ("/d", "/d", {"/d/x": "/d"}, {}),
        ("/d", "/", {"/d/x": "/d"}, {"/d/x": "/d"}),
        ("/d/x", "/d", {"/d/x": "/d/x"}, {"/d/x": "/d/x"}),
        ("/d", "/d/x", {"/d/x": "/d/x"}, {}),  # a disk of its own, later
        ("/d", "", {"/d/x": "/d"}, {}),  # nobody has looked
    ],
)
def test_mounts_are_noted_and_missed(
    before: str, now: str, noted: dict[str, str], missing: dict[str, str]
) -> None:
    unit = f"[Unit]\n{disks.NOTE}={before} /d/x\n" if before else "[Unit]\n"
    facts = at(now)
    assert disks.notes(unit, facts, ["/d/x"]) == noted
    assert disks.missing(unit, facts, ["/d/x"]) == missing
    assert disks.away(unit, facts, "/d/x") == missing.get("/d/x", "")


@pytest.mark.parametrize(
    ("was", "now", "marked", "missing"),
    [
        (False, "/d", False, False),  # a new host
        (True, "/d", False, True),  # a new, empty file system is mounted there
        (False, "/", False, True),
        (True, "/", False, True),
        (True, "/d", True, False),
        (True, "/", True, False),  # it was moved, with its marker
    ],
)
def test_a_missing_disk_was_there_and_has_no_marker(
    was: bool, now: str, marked: bool, missing: bool
) -> None:
    unit, state = f"[Unit]\n{disks.NOTE}=/d /d/x\n", PathState("dir", "root", "root", 0o755, 4096)
    facts = replace(at(now), paths={disks.marker("/d/x"): state} if marked else {})
    assert disks.is_missing(unit, facts, "/d/x", was=was) is missing


def test_what_counts_for_the_next_start_alone() -> None:
    old = "[Unit]\n[Service]\nExecStartPre=-/bin/sh -c 'a; \\\n  b'\nExecStart=/x\n"
    new = "[Unit]\nRequiresMountsFor=/d\n[Service]\nExecStartPre=+/bin/y\nExecStart=/x\n"
    assert disks.is_for_next_start(old, new.encode())
    assert not disks.is_for_next_start(old, new.replace("/x", "/z").encode())
    assert not disks.is_for_next_start(None, new.encode())
