"""The timer's script, run by a real shell with stand-ins for etcd's tools; where a timer is."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.etcd import timer
from provision.host.change import changes
from provision.host.observe import HostFacts, PathState
from provision.host.resources import Absent, File
from provision.inventory.model import EtcdAuth, EtcdBackup, EtcdTls, Secret, Source
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine

MEMBERS = tuple(
    EtcdMember(n, Machine(n), n, 2379, 2380, "/data", {}, False, False) for n in ("a", "b", "c")
)
CLUSTER = EtcdCluster(
    name="My.Lab-1",
    token="test",
    version="3.6.16",
    source=Source(package=True),
    install_dir="/opt/etcd",
    config_dir="/etc/etcd",
    user="etcd",
    tls=EtcdTls(peer=False),
    members=MEMBERS,
    backup=EtcdBackup(keep=2),
)


def facts(*paths: str) -> HostFacts:
    seen = {path: PathState("file", "root", "root", 0o644, 1) for path in paths}
    return HostFacts({}, 0.0, seen, {}, {}, {}, {}, frozenset(), {}, {}, frozenset(), {})


def has_timer(cluster: EtcdCluster, member: EtcdMember) -> bool:
    return not any(isinstance(r, Absent) for r in timer.resources(cluster, member))


@pytest.mark.parametrize(("named", "expected"), [(None, "c"), ("a", "a")])
def test_one_member_has_it(named: str | None, expected: str) -> None:
    cluster = replace(CLUSTER, backup=EtcdBackup(member=named))
    assert [m.name for m in MEMBERS if has_timer(cluster, m)] == [expected]


def test_one_that_is_declared_no_more_goes() -> None:
    resources = timer.resources(replace(CLUSTER, backup=None), MEMBERS[2])
    assert changes(resources, facts()) == ()
    (change,) = changes(resources, facts(timer.TIMER_PATH, timer.SERVICE_PATH))
    assert change.what == "remove etcd-backup.timer"
    assert change.quiet
    assert timer.SERVICE_PATH in change.script


def script(tmp_path: Path, *, broken: bool = False) -> str:
    body = b"x" * 1024
    digest = hashlib.sha256(b"" if broken else body).digest()
    (tmp_path / "snapshot").write_bytes(body + digest)
    tools = {
        "etcdctl": f'for last; do :; done\ncp {tmp_path}/snapshot "$last"',
        "etcdutl": 'echo \'{"hash":1,"revision":7,"totalKey":3}\'',
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (found,) = (
        r.content
        for r in timer.resources(CLUSTER, MEMBERS[2])
        if isinstance(r, File) and r.path == timer.script_path(CLUSTER)
    )
    assert found is not None
    text = found.decode().replace("/usr/bin/", f"{tmp_path}/")
    return text.replace("/var/backups/etcd", str(tmp_path / "backups"))


def run(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-s"], input=text, capture_output=True, text=True, check=False)


def test_a_snapshot_is_saved_and_the_oldest_go(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    old = [f"My.Lab-1-r000000000{9 - i}-2026010{i}T000000Z.db" for i in (1, 2, 3)]
    kept = ["notes", "MyxLab-1-r0000000001-20260101T000000Z.db"]
    for name in (*old, *kept):
        (folder / name).touch()
    done = run(script(tmp_path))
    assert done.returncode == 0, done.stderr
    names = {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    (new,) = (n for n in names if "-r0000000007-" in n and n.endswith(".db"))
    assert names == {new, f"{new}.sha256", old[2], *kept}
    check = subprocess.run(["sha256sum", "-c", f"{new}.sha256"], cwd=folder, check=False)
    assert check.returncode == 0


def test_a_broken_snapshot_removes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    old = {f"My.Lab-1-r0000000001-2026010{i}T000000Z.db" for i in (1, 2, 3)}
    for name in old:
        (folder / name).touch()
    done = run(script(tmp_path, broken=True))
    assert done.returncode == 1
    assert "the snapshot is broken" in done.stderr
    assert {p.name for p in folder.iterdir() if not p.name.startswith(".")} == old


def test_it_logs_in_when_etcd_wants_it(tmp_path: Path) -> None:
    (tmp_path / "root").write_text('a "$1" `b` \\ c:d\n')
    password = Secret(file=tmp_path / "root")

    def login(enabled: bool) -> File:
        cluster = replace(CLUSTER, auth=EtcdAuth(enabled=enabled, root_password=password))
        (found,) = (
            r
            for r in timer.resources(cluster, MEMBERS[2])
            if isinstance(r, File) and r.path == timer.login_path(cluster)
        )
        return found

    assert login(False).content == b""
    found = login(True)
    assert (found.mode, found.secret, found.owner) == (0o600, True, "root")
    assert found.content == b'ETCDCTL_USER="root:a \\"\\$1\\" \\`b\\` \\\\ c:d"\n'
    (change,) = changes([found], facts())
    assert "root:" not in change.diff
