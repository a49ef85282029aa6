"""Where a timer is, and its login. Its script runs in ``tests/component/test_timer.py``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.etcd.member import backup_timer
from provision.host.diff import changes
from provision.host.facts import HostFacts, PathState
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
    return not any(isinstance(r, Absent) for r in backup_timer.resources(cluster, member))


@pytest.mark.parametrize(("named", "expected"), [(None, "abc"), ("a", "a")])
def test_every_member_has_it_unless_one_is_named(named: str | None, expected: str) -> None:
    cluster = replace(CLUSTER, backup=EtcdBackup(member=named))
    assert "".join(m.name for m in MEMBERS if has_timer(cluster, m)) == expected


def test_one_that_is_declared_no_more_goes() -> None:
    resources = backup_timer.resources(replace(CLUSTER, backup=None), MEMBERS[2])
    assert changes(resources, facts()) == ()
    (change,) = changes(resources, facts(backup_timer.TIMER_PATH, backup_timer.SERVICE_PATH))
    assert change.what == "remove etcd-backup.timer"
    assert change.non_disruptive
    assert backup_timer.SERVICE_PATH in change.script


def test_it_logs_in_when_etcd_wants_it(tmp_path: Path) -> None:
    (tmp_path / "root").write_text('a "$1" `b` \\ c:d\n')
    password = Secret(file=tmp_path / "root")

    def login(enabled: bool) -> File:
        cluster = replace(CLUSTER, auth=EtcdAuth(enabled=enabled, root_password=password))
        (found,) = (
            r
            for r in backup_timer.resources(cluster, MEMBERS[2])
            if isinstance(r, File) and r.path == backup_timer.login_path(cluster)
        )
        return found

    assert login(False).content == b""
    found = login(True)
    assert (found.mode, found.secret, found.owner) == (0o600, True, "root")
    assert found.content == b'ETCDCTL_USER="root:a \\"\\$1\\" \\`b\\` \\\\ c:d"\n'
    (change,) = changes([found], facts())
    assert change.diff.endswith('\n+ETCDCTL_USER="root:***"\n')
