"""What makes a restore safe to kill: marks, stamps, and data that is only ever moved aside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.etcd.member import recovery_marker
from provision.etcd.member.recovery_marker import RecoveryMarker
from provision.host import safely
from provision.host.facts import HostFacts, PathState
from provision.inventory.resolved import EtcdMember, Machine
from provision.plans.etcd.data import restore_etcd
from tests.unit import hosts

MARK = RecoveryMarker("restore", "20260102T030405Z", "a" * 64)
MEMBER = EtcdMember("infra0", Machine("h"), "h", 2379, 2380, "/data", {}, False, False)


def facts(**texts: str) -> HostFacts:
    """Facts of a host with small files below /data."""
    paths = {
        f"/data/{name}": PathState("file", "root", "root", 0o600, len(text), text.encode())
        for name, text in texts.items()
    }
    return HostFacts({}, 0.0, paths, {}, {}, {}, {}, frozenset(), {}, {}, frozenset(), {})


def test_a_mark_is_read_as_it_was_written() -> None:
    assert recovery_marker.read(MEMBER, facts(unfinished=f"{MARK}\n")) == MARK
    assert str(MARK) in recovery_marker.stop(MEMBER, MARK, "etcd").script


@pytest.mark.parametrize("text", ["", "restore", f"destroy {MARK.id} {MARK.key}", f"{MARK} $(id)"])
def test_anything_else_is_no_mark(text: str) -> None:
    assert recovery_marker.read(MEMBER, facts(unfinished=text)) is None


def test_the_last_begun_wins() -> None:
    later = replace(MARK, id="20260103T000000Z")
    members = {n: replace(MEMBER, name=n, machine=Machine(n)) for n in ("a", "b", "c")}
    seen = {
        Machine("a"): facts(unfinished=str(MARK)),
        Machine("b"): facts(unfinished=str(later)),
        Machine("c"): facts(),
    }
    assert recovery_marker.newest(members, seen) == later


def run_aside(data: Path, new: Path, *, lines: int | None = None) -> int:
    """The script, or only what of it is done until its ``lines``-th command."""
    script = restore_etcd.aside(replace(MEMBER, data_dir=str(data)), MARK, new.name)
    if lines is not None:
        script = script.replace("\nmv -T", "\nexit 0\nmv -T")
    return hosts.shell(f"set -e\n{safely.FUNCTIONS}\n{script}", hosts.given(data)).code


@pytest.mark.process
def test_old_data_is_kept_beside_the_new(open_path: Path) -> None:
    (open_path / "member").mkdir()
    (open_path / "member" / "old").touch()
    (open_path / "new").mkdir()
    (open_path / "new" / "restored").touch()
    assert run_aside(open_path, open_path / "new") == 0
    kept = open_path / f"member.before-restore-{MARK.id}"
    assert [p.name for p in (open_path / "member").iterdir()] == ["restored"]
    assert [p.name for p in kept.iterdir()] == ["old"]


@pytest.mark.process
def test_killed_between_the_two_moves_it_goes_on(open_path: Path) -> None:
    (open_path / "member").mkdir()
    (open_path / "new").mkdir()
    assert run_aside(open_path, open_path / "new", lines=1) == 0
    assert not (open_path / "member").exists()
    assert run_aside(open_path, open_path / "new") == 0
    assert (open_path / "member").exists()


@pytest.mark.process
def test_kept_data_is_never_replaced(open_path: Path) -> None:
    kept = open_path / f"member.before-restore-{MARK.id}"
    for path in (open_path / "member", open_path / "new", kept):
        path.mkdir()
        (path / path.name).touch()
    assert run_aside(open_path, open_path / "new") != 0
    assert (kept / kept.name).exists()
    assert (open_path / "member" / "member").exists()
