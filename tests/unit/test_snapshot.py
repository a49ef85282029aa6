"""Backup files: names, what is a whole snapshot, and what retention may remove."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from provision.errors import PreflightFailed
from provision.etcd.cluster import scratch
from provision.plans.etcd.data import backup_etcd


def write(path: Path, pages: int = 8) -> str:
    """A file of the shape that etcd writes: pages, then their sha256. Returns its own sha256."""
    body = bytes(range(256)) * 2 * pages
    whole = body + hashlib.sha256(body).digest()
    path.write_bytes(whole)
    return hashlib.sha256(whole).hexdigest()


def test_a_whole_snapshot_gives_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    digest = write(path)
    assert backup_etcd.check(path) == digest
    backup_etcd.digest_file(path).write_text(f"{digest}  a.db\n")
    assert backup_etcd.check(path) == digest


def test_a_large_snapshot_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    assert backup_etcd.check(path) if write(path, pages=5000) else False


@pytest.mark.parametrize("keep", [0, 16, 32, 512, 512 * 8, 512 * 8 + 31])
def test_a_cut_file_is_no_snapshot(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.db"
    write(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PreflightFailed, match="not a complete etcd snapshot"):
        backup_etcd.check(path)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    write(path)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(PreflightFailed, match="sha256 that etcd put at its end"):
        backup_etcd.check(path)


def test_another_snapshot_under_the_same_name_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    write(path)
    backup_etcd.digest_file(path).write_text("0" * 64 + "  a.db\n")
    with pytest.raises(PreflightFailed, match=r"a\.db\.sha256"):
        backup_etcd.check(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PreflightFailed, match="cannot be read"):
        backup_etcd.check(tmp_path / "none.db")


def test_retention_removes_the_oldest_of_each_history_of_this_cluster_only(tmp_path: Path) -> None:
    # The second is of another history: an emptied or restored cluster.
    ours = [
        "Lab-r0000000900-20260101T000000Z.db",
        "Lab-r0000000001-20260102T000000Z.db",
        "Lab-r0000000002-20260103T000000Z.db",
        "Lab-r0000000003-20260104T000000Z.db",
    ]
    others = [
        "Lab2-r0000000001-20250101T000000Z.db",
        "Lab-r0000000001-20250101T000000Z.db.copy",
        "Lab-r1-20250101T000000Z.db",
        "notes.txt",
    ]
    for name in (*ours, *others):
        (tmp_path / name).touch()
    for name in ours:
        backup_etcd.digest_file(tmp_path / name).touch()
    assert [n.text for n in backup_etcd.existing(tmp_path, "Lab")] == ours
    assert backup_etcd.prune(tmp_path, "Lab", 0) == ()
    assert backup_etcd.prune(tmp_path, "Lab", 3) == ()
    assert [p.name for p in backup_etcd.prune(tmp_path, "Lab", 2)] == [ours[1]]
    left = [ours[0], *ours[2:]]
    digests = [f"{name}.sha256" for name in left]
    assert {p.name for p in tmp_path.iterdir()} == {*left, *digests, *others}


def test_a_cluster_s_name_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "LabX-r0000000001-20260101T000000Z.db").touch()
    assert backup_etcd.existing(tmp_path, "Lab.") == []


@pytest.mark.process
def test_a_scratch_folder_goes_when_nothing_works_in_it_any_more(tmp_path: Path) -> None:
    """What came before Ctrl-C is still carried out on the host."""
    folder = tmp_path / "scratch"
    upload = subprocess.Popen(["sh", "-c", f"read go; mkdir {folder}"], stdin=subprocess.PIPE)
    removal = subprocess.Popen(["sh", "-s"], stdin=subprocess.PIPE)
    assert removal.stdin is not None
    removal.stdin.write(scratch._removal(str(folder)).encode())
    removal.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        removal.wait(0.2)
    upload.communicate(b"go\n", timeout=10)
    assert removal.wait(10) == 0
    assert not folder.exists()
