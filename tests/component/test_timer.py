"""The timer's script on real etcd members: who saves, from what it saves nothing, what stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from provision.etcd.api.values import Login
from provision.etcd.cluster import health, last_seen
from provision.etcd.cluster.groups import Note
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import backup_timer, backups, layout
from provision.host.resources import File
from provision.inventory.model import EtcdAuth, EtcdBackup, Secret, Source
from provision.inventory.resolved import EtcdCluster
from provision.plans.etcd.data import backup_etcd
from provision.ssh.session import Fleet
from tests.alarms import activate
from tests.component.conftest import Boot, Running

ROOT = Login("root", "r-secret")


@dataclass
class Bed:
    """Members on loopback, and a folder in the place of each one's host."""

    running: Running
    base: Path
    tools: Path
    auth: EtcdAuth = field(default_factory=EtcdAuth)

    def folder(self, name: str) -> Path:
        return self.base / name / "backups"

    def cluster(self, name: str, **backup: object) -> EtcdCluster:
        release = self.base / "opt" / self.running.cluster.version
        if not release.exists():
            release.parent.mkdir()
            release.symlink_to(self.tools)
            (release.parent / "current").symlink_to(self.tools)
        config = self.base / name / "etc"
        config.mkdir(parents=True, exist_ok=True)
        self.folder(name).mkdir(exist_ok=True)
        given = {"dir": str(self.folder(name)), "keep": 2, **backup}
        return replace(
            self.running.cluster,
            source=Source(path=Path("etcd.tar.gz"), sha256="0" * 64),
            install_dir=str(self.base / "opt"),
            config_dir=str(config),
            backup=EtcdBackup.model_validate({**given, "dir": "/data"}).model_copy(
                update={"dir": given["dir"]}
            ),
            auth=self.auth,
        )

    def start(self, name: str, **backup: object) -> subprocess.Popen[str]:
        """The script of this member's host, as its service runs it."""
        cluster = self.cluster(name, **backup)
        member = cluster.member(name)
        files = [r for r in backup_timer.resources(cluster, member) if isinstance(r, File)]
        content = {f.path: f.content or b"" for f in files}
        script = Path(backup_timer.script_path(cluster))
        script.write_bytes(content[backup_timer.script_path(cluster)])
        login = content[backup_timer.login_path(cluster)].decode()
        told = dict([login.rstrip().replace('"', "").split("=", 1)]) if login else {}
        return subprocess.Popen(
            ["sh", str(script)],
            env={**os.environ, **told},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, **backup: object) -> tuple[int, str]:
        return ended(self.start(name, **backup))

    def saved(self, name: str) -> list[backups.Name]:
        folder = self.folder(name)
        found = backup_etcd.existing(folder, "test") if folder.exists() else []
        for one in found:
            backup_etcd.check(folder / one.text)
        return found

    def put(self, name: str, count: int = 1) -> None:
        member = self.running.cluster.member(name)
        with Fleet(1) as fleet, Etcd(self.running.cluster, fleet).member(member) as client:
            for number in range(count):
                client.put("/key", str(number))

    def note(self, name: str) -> None:
        """What a run of the tool notes on this member's host."""
        with Fleet(1) as fleet:
            seen = health.observe(Etcd(self.running.cluster, fleet))
        (status,) = [m.status for m in seen.members if m.member.name == name]
        assert status is not None
        when = time.strftime(backups.STAMP, time.gmtime())
        note = Note(status.cluster_id, status.raft_term, status.raft_index, status.revision, when)
        Path(layout.last_seen(self.cluster(name))).write_text(last_seen.text(note))


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


@pytest.fixture
def three(boot: Boot, etcd_binary: Path, tmp_path: Path) -> Iterator[Bed]:
    with boot(3) as running:
        yield Bed(running, tmp_path, etcd_binary.parent)


@pytest.fixture
def one(boot: Boot, etcd_binary: Path, tmp_path: Path) -> Iterator[Bed]:
    with boot(1) as running:
        yield Bed(running, tmp_path, etcd_binary.parent)


NAMES = ("infra0", "infra1", "infra2")


def test_one_of_all_saves_and_the_others_see_it(three: Bed) -> None:
    three.put("infra0", 5)
    done = [ended(p) for p in [three.start(name) for name in NAMES]]
    assert [code for code, _ in done] == [0, 0, 0], done
    assert sorted(said.split()[0] for _, said in done) == ["nothing", "nothing", "saved"]
    (saved,) = [(name, n) for name in NAMES for n in three.saved(name)]
    assert saved[1].revision >= 6
    told = next(said for _, said in done if said.startswith("nothing"))
    assert f"member={saved[0]} file={three.folder(saved[0])}/{saved[1].text}" in told


def test_the_environment_of_the_host_counts_for_nothing(
    one: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DefaultEnvironment of systemd, say: etcdctl ends where a variable and an option say two
    things, and etcdutl restores by ETCD_NAME."""
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", "http://127.0.0.1:1")
    monkeypatch.setenv("ETCDCTL_WRITE_OUT", "json")
    monkeypatch.setenv("ETCD_NAME", "other")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    code, said = one.run("infra0")
    assert (code, said.split()[0]) == (0, "saved"), said
    assert len(one.saved("infra0")) == 1


def test_a_proxy_of_the_host_is_for_the_command_that_copies(
    one: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcdctl would ask it for a member that has a name as its address. To Go, a name of this
    machine in capitals is any name."""
    (member,) = one.running.cluster.members
    members = (replace(member, address="LOCALHOST"),)
    one.running.cluster = replace(one.running.cluster, members=members)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "intern.example")
    copy, seen = one.base / "copy", one.base / "seen"
    copy.write_text(f'#!/bin/sh\necho "$HTTPS_PROXY $NO_PROXY" >{seen}\n')
    copy.chmod(0o755)
    for only in (None, "infra0"):
        code, said = one.run("infra0", member=only, copy_command=str(copy))
        assert (code, said.split()[0]) == (0, "saved"), said
        assert seen.read_text() == "http://127.0.0.1:1 intern.example\n"
        seen.unlink()


def test_the_first_that_is_well_saves(three: Bed) -> None:
    """One is down, and one cannot save: its disk, here its folder, takes no files."""
    three.running.kill("infra0")
    code, said = three.run("infra0")
    assert code == 1
    assert "infra0 serves no linearizable read" in said
    three.cluster("infra1")
    (three.folder("infra1") / ".test.partial" / "in-the-way").mkdir(parents=True)
    assert three.run("infra1")[0] != 0
    assert three.run("infra2")[0] == 0
    assert [len(three.saved(name)) for name in NAMES] == [0, 0, 1]


def test_a_member_without_a_quorum_saves_nothing(three: Bed) -> None:
    three.running.kill("infra0", "infra1")
    code, said = three.run("infra2")
    assert code == 1
    assert "[quorum-lost]" in said
    assert not three.saved("infra2")


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "by the newest backup"])
def test_of_an_emptied_member_nothing_is_saved_and_nothing_goes(one: Bed, noted: bool) -> None:
    """Begun again under its old name and address it has its old ids. The newest backup tells what
    no note does."""
    one.put("infra0", 20)
    for _ in range(2):
        assert one.run("infra0", member="infra0")[0] == 0
        time.sleep(1.1)  # names tell seconds
    if noted:
        one.note("infra0")
    before = one.saved("infra0")
    assert len(before) == 2
    member = one.running.members["infra0"]
    member.kill()
    shutil.rmtree(member.declared.data_dir)
    member.start()
    for _ in range(2):
        code, said = one.run("infra0", member="infra0", keep=1)
        assert code == 1
        assert "infra0 is behind " in said or "serves no linearizable read" in said
    assert "[etcd-history-behind]" in said
    assert one.saved("infra0") == before
    one.note("infra0")  # the operator has agreed to it, by a run of the tool with --cluster-id
    code, said = one.run("infra0", member="infra0", keep=1)
    assert code == 0, said
    # The lost history's newest stays, whatever --keep says of this one.
    names = [n.text for n in one.saved("infra0")]
    assert names[0] == before[-1].text
    assert len(names) == 2


def test_it_keeps_the_newest_and_hands_each_to_the_command(one: Bed) -> None:
    copy = one.base / "copy"
    copy.write_text(f'#!/bin/sh\ncp "$1" {one.base}/copied.db\n')
    copy.chmod(0o755)
    for _ in range(3):
        one.put("infra0")
        code, said = one.run("infra0", member="infra0", copy_command=str(copy))
        assert code == 0, said
        time.sleep(1.1)
    found = one.saved("infra0")
    assert len(found) == 2
    newest = one.folder("infra0") / found[-1].text
    assert (one.base / "copied.db").read_bytes() == newest.read_bytes()
    copy.write_text("#!/bin/sh\nexit 3\n")
    code, said = one.run("infra0", member="infra0", copy_command=str(copy))
    assert code == 1
    assert f"{copy} ended with 3: the backup is on this host only" in said
    assert len(one.saved("infra0")) == 2


def test_with_authentication_it_takes_turns_by_its_login(one: Bed, tmp_path: Path) -> None:
    (tmp_path / "root").write_text(f"{ROOT.password}\n")
    member = one.running.cluster.members[0]
    with Fleet(1) as fleet, Etcd(one.running.cluster, fleet).member(member) as client:
        client.user_add(ROOT.user, ROOT.password)
        client.role_add("root")
        client.user_grant_role("root", "root")
        client.auth_enable()
    code, said = one.run("infra0")
    assert code == 1
    assert not one.saved("infra0")
    one.auth = EtcdAuth(enabled=True, root_password=Secret(file=tmp_path / "root"))
    code, said = one.run("infra0")
    assert (code, said[:5]) == (0, "saved"), said
    code, said = one.run("infra0")
    assert (code, said[:7]) == (0, "nothing"), said


def test_a_full_etcd_is_saved_too(three: Bed) -> None:
    """With NOSPACE etcd grants no lease, so there is no lock, and takes no record."""
    three.put("infra0", 5)
    member = three.running.cluster.member("infra0")
    with Fleet(1) as fleet, Etcd(three.running.cluster, fleet).member(member) as client:
        activate(client, "NOSPACE", 0)
    for name in ("infra1", "infra2"):
        code, said = three.run(name)
        assert code == 0, said
        assert "etcd did not take the record of this backup" in said
        assert len(three.saved(name)) == 1
