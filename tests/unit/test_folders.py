"""Folders that somebody else uses: seen by a real shell as root, noted, and given back."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import Problem, UsageError
from provision.etcd.member import layout
from provision.host import folders, former_owner, gather, predict, safely
from provision.host.diff import Change, changes
from provision.host.facts import HostFacts, Probe, UnitState
from provision.host.resources import DataDisk, Directory, File, Resource, User
from provision.inventory import model
from provision.inventory.model import EtcdBackup, PageStore
from provision.inventory.resolved import Machine
from provision.plans import destroy
from tests.unit import builders, hosts

HERE = Machine("here", where="inventory.yml:3")
#: Users of every Debian.
ME, OTHER, THIRD = "games", "daemon", "bin"
NOBODY = 54321

root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away")


def own(path: Path, user: str | int) -> None:
    subprocess.run(["chown", "-h", f"{user}:{user}", str(path)], check=True)


def folder(path: Path, user: str | int = "root", mode: int = 0o755) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    own(path, user)
    path.chmod(mode)
    return path


def file(path: Path, user: str | int = "root") -> Path:
    path.touch()
    own(path, user)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "data"


def look(
    data: Path, *resources: Resource, take_over: Collection[str] = (), asked: int = 2
) -> list[Problem]:
    """What preflight says of a service of :data:`ME` with ``resources`` on this machine."""
    probes = {HERE: Probe(resources=(User(ME, "/"), *resources))}
    fleet = hosts.LocalFleet(data.parent)
    with fleet:
        facts, problems = gather.gather_facts(fleet, probes)
        assert problems == []
        found = folders.of_others(fleet, "c", probes, facts, take_over, "deploy-etcd")
        assert len(fleet.local[HERE].asked) == asked
    return found


def taken(data: Path, *more: Resource, owner: str = ME) -> list[str]:
    return [p.what for p in look(data, Directory(str(data), owner, 0o700), *more)]


@root_only
class TestInUse:
    @pytest.mark.process
    def test_by_another_service(self, data: Path) -> None:
        """/data of root's, with the files of a database in it."""
        folder(folder(data) / "postgres", OTHER)
        assert taken(data) == [f"{data} belongs to root and is used by {OTHER}"]

    @pytest.mark.process
    def test_by_root_itself(self, data: Path) -> None:
        """/etc/ssh."""
        file(folder(data) / "sshd_config")
        assert taken(data) == [f"{data} belongs to root and is used by root"]

    @pytest.mark.process
    @pytest.mark.parametrize("owner", [ME, "root"])
    def test_a_home(self, owner: str, data: Path) -> None:
        """/home/user, for a service's data or for releases."""
        file(folder(data, OTHER) / ".profile", OTHER)
        assert taken(data, owner=owner) == [f"{data} belongs to {OTHER} and is used by {OTHER}"]

    @pytest.mark.process
    def test_whose_files_are_of_several(self, data: Path) -> None:
        for number, user in enumerate((OTHER, THIRD, "root", "mail", "man")):
            file(folder(data, OTHER) / f"f{number}", user)
        (what,) = taken(data)
        assert re.search(rf"is used by {OTHER}, [a-z]+, [a-z]+ and 2 more$", what)

    @pytest.mark.process
    def test_the_remedy_names_the_option_and_it_helps(self, data: Path) -> None:
        file(folder(data, OTHER) / "x", OTHER)
        mine = Directory(str(data), ME, 0o700)
        (problem,) = look(data, mine)
        assert problem.severity == "error"
        assert problem.remedy.endswith(f"invoke deploy-etcd --take-over {data}")
        assert problem.id == "folder-in-use"
        (problem,) = look(data, mine, take_over=[str(data)])
        assert problem.severity == "warning"
        assert problem.what.endswith(f": it is taken over for {ME}")
        (problem,) = look(data, mine, take_over=["/elsewhere"])
        assert problem.severity == "error"

    @pytest.mark.process
    def test_by_a_group_that_may_write(self, data: Path) -> None:
        """root:dev 2775 with files of root's: the group would lose it."""
        file(folder(data))
        subprocess.run(["chgrp", THIRD, data], check=True)
        for mode in (0o775, 0o2775):
            data.chmod(mode)
            assert taken(data, owner="root") == []  # nothing is in it
            file(data / "x")
            assert taken(data, owner="root") == [
                f"{data} belongs to root and is used by group {THIRD}"
            ]
            assert taken(data)[0].endswith(f"is used by root, group {THIRD}")
            (data / "x").unlink()

    @pytest.mark.process
    def test_by_everybody(self, data: Path) -> None:
        """/scratch of root's, 1777."""
        file(folder(data, mode=0o1777) / "x", OTHER)
        assert taken(data, owner="root") == [f"{data} belongs to root and is used by {OTHER}"]

    @pytest.mark.process
    def test_by_the_owner_of_a_folder_on_the_way(self, data: Path) -> None:
        """/data/other/pages is declared, but /data/other is somebody else's."""
        way = folder(folder(data) / "other", OTHER)
        pages = Directory(f"{way}/pages", ME)
        assert taken(data, pages) == [f"{data} belongs to root and is used by {OTHER}"]

    @pytest.mark.process
    def test_by_somebody_in_a_folder_on_the_way(self, data: Path) -> None:
        """/data/disk1/pages is declared; /data/disk1/postgres is there, too."""
        way = folder(folder(data) / "disk1")
        pages = Directory(f"{way}/pages", ME)
        folder(way / "postgres", OTHER)
        assert taken(data, pages) == [f"{data} belongs to root and is used by {OTHER}"]

    @pytest.mark.process
    def test_a_hostile_name_of_a_file(self, data: Path) -> None:
        """No name is printed, so none can pretend to be something else."""
        file(folder(data) / f"x\nin|here|0|0|f|{THIRD}", OTHER)
        assert taken(data) == [f"{data} belongs to root and is used by {OTHER}"]


@root_only
class TestNotInUse:
    @pytest.mark.process
    def test_there_is_none(self, data: Path) -> None:
        assert look(data, Directory(str(data), ME), asked=1) == []

    @pytest.mark.process
    def test_it_is_the_services_own(self, data: Path) -> None:
        """Whatever is in it. A host of today has no second question."""
        file(folder(data, ME) / "x", OTHER)
        assert look(data, Directory(str(data), ME), asked=1) == []

    @pytest.mark.process
    def test_a_look_that_does_not_end_is_no_answer(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder(data, OTHER)
        assert taken(data) == []
        monkeypatch.setattr(folders, "_LOOK_SECONDS", "9 false")  # in the place of find
        (problem,) = look(data, Directory(str(data), ME))
        assert "could not be found out who uses it" in problem.what
        assert problem.id == "folder-in-use"

    @pytest.mark.process
    def test_it_is_empty(self, data: Path) -> None:
        for user in ("root", OTHER, NOBODY):
            folder(data, user)
            assert taken(data) == []

    @pytest.mark.process
    def test_the_root_of_a_file_system(self, data: Path) -> None:
        folder(folder(data) / "lost+found", mode=0o700)
        assert taken(data) == []

    @pytest.mark.process
    def test_data_of_the_service_from_before(self, data: Path) -> None:
        folder(folder(data) / "member", ME)
        folder(data / "data-disk")
        assert taken(data, DataDisk(str(data))) == []

    @pytest.mark.process
    def test_numbers_without_a_user(self, data: Path) -> None:
        file(folder(data, NOBODY) / "pages", NOBODY)
        assert taken(data) == []

    @pytest.mark.process
    def test_folders_that_the_inventory_names(self, data: Path) -> None:
        """Root made /data/alluxio and /data/alluxio/ssd1/pages for it."""
        pages = folder(folder(folder(data) / "ssd1") / "pages")
        assert taken(data, Directory(str(pages), ME)) == []
        file(pages / "x", OTHER)
        assert taken(data, Directory(str(pages), ME)) == [
            f"{pages} belongs to root and is used by {OTHER}"
        ]

    @pytest.mark.process
    def test_folders_on_the_way_of_root_and_of_the_service(self, data: Path) -> None:
        way = folder(folder(folder(data) / "disk1") / "own", ME)
        folder(data / "disk1" / "lost+found")
        file(data / "disk1" / "README")
        pages = Directory(f"{way}/pages", ME)
        absent = Directory(f"{data}/disk2/pages", ME)
        assert taken(data, pages, absent) == []

    @pytest.mark.process
    def test_a_group_of_the_service(self, data: Path) -> None:
        file(folder(data, mode=0o775) / "x")
        for group in (ME, "root"):
            subprocess.run(["chgrp", group, data], check=True)
            assert taken(data, owner="root") == []

    @pytest.mark.process
    def test_releases_that_the_service_owned(self, data: Path) -> None:
        """/opt/alluxio of an installation by hand."""
        file(folder(data, ME) / "x", ME)
        assert taken(data, owner="root") == []

    @pytest.mark.process
    def test_what_only_this_tool_makes(self, data: Path) -> None:
        """The keys that export-csrs made in config_dir/pki belong to root at first."""
        file(folder(folder(data) / "pki", mode=0o700) / "peer.key.new")
        config = Directory(str(data))
        assert look(data, config, Directory(f"{data}/pki", ME, 0o700), asked=1) == []

    @pytest.fixture
    def mounted(self, data: Path) -> Iterator[Path]:
        disk = folder(folder(data) / "disk")
        if subprocess.run(["mount", "-t", "tmpfs", "none", disk]).returncode:
            pytest.skip("this machine lets nobody mount")
        yield disk
        subprocess.run(["umount", str(disk)], check=True)

    @pytest.mark.process
    def test_a_mount_point_of_roots_in_it(self, data: Path, mounted: Path) -> None:
        assert taken(data) == []
        own(mounted, OTHER)
        assert taken(data) == [f"{data} belongs to root and is used by {OTHER}"]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("ReadWritePaths=/data", True),
        ("ReadWritePaths=/log -/data", True),
        ("WorkingDirectory=-/data", True),
        ("RequiresMountsFor=/data", True),
        ("RequiresMountsFor=/data/etcd", False),
        ("ReadWritePaths=/srv/data", False),
        ("X-Alluxio-Provision-Mount=/data /data/etcd", False),
        ("ExecStart=/data/3.6.16/etcd --config-file /etc/etcd/etcd.conf.yml", False),
    ],
)
def test_a_folder_that_the_clusters_unit_names(line: str, names: bool) -> None:
    """Its owner was changed by hand, or it is a disk that was made anew: it stays the service's."""
    assert folders.named_by(f"[Unit]\n{line}\n", Directory("/data", "etcd")) is names


def test_releases_that_the_clusters_unit_runs() -> None:
    line = "ExecStart=/data/3.6.16/etcd --config-file /etc/etcd/etcd.conf.yml\n"
    for path, names in (("/data", True), ("/etc/etcd", True), ("/etc", True), ("/dat", False)):
        assert folders.named_by(line, Directory(path)) is names


def test_the_unit_of_another_cluster_does_not_count() -> None:
    unit = "X-Alluxio-Provision-Cluster={}\nReadWritePaths=/data\n"
    mine = Directory("/data", "etcd")
    for cluster, found in (("c", []), ("other", [mine])):
        facts = hosts.facts(
            paths={
                "/data": predict.folder(),
                layout.UNIT_PATH: hosts.text(unit.format(cluster)),
            }
        )
        assert folders._in_question("c", Probe(resources=[mine]), facts) == found


def test_an_empty_home_is_in_use() -> None:
    said = "root|/home/bob|5\nhome|/home/bob\n"
    assert folders.users(said, "/home/bob", "bob", ["etcd"]) == ["bob"]
    assert folders.users(said, "/home/bob", "bob", ["bob"]) == []
    assert folders.users("root|/home/bob|5\n", "/home/bob", "bob", ["etcd"]) == []


@pytest.mark.process
@root_only
def test_a_home_is_known_by_its_user(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(data, OTHER)
    shims = data.parent / "shims"
    shims.mkdir()
    (shims / "getent").write_text(f"#!/bin/sh\necho $2:x:1:1:Some One:{data}:/bin/bash\n")
    (shims / "getent").chmod(0o755)
    monkeypatch.setenv("PATH", f"{shims}:{os.environ['PATH']}")
    assert taken(data) == [f"{data} belongs to {OTHER} and is used by {OTHER}"]


def test_only_folders_of_the_inventory_are_taken_over() -> None:
    from provision.cli.tasks import common

    cluster = builders.etcd(backup=EtcdBackup(dir="/backups"))
    assert common.taken_over("", cluster.folders) == frozenset()
    every = "/backups, /etc/etcd,/opt/etcd,/var/lib/etcd"
    assert common.taken_over(every, cluster.folders) == cluster.folders
    with pytest.raises(UsageError, match="--take-over names /etc, but the inventory has /backups"):
        common.taken_over("/backups,/etc", cluster.folders)
    worker = builders.worker("w1")._replace(page_store=PageStore(dirs=["/p"], sizes=["1g"]))
    assert builders.alluxio(worker).folders == {
        "/opt/alluxio",
        "/var/lib/alluxio",
        "/var/log/alluxio",
        "/p",
    }


@pytest.mark.parametrize(
    "path",
    [
        *("/etc", "/etc/ssh", "/etc/ssh/etcd", "/etc/pam.d", "/etc/systemd/system", "/usr"),
        *("/usr/bin", "/usr/bin/x", "/usr/lib", "/var", "/var/lib", "/var/lib/dpkg", "/var/run"),
        *("/home", "/root", "/root/etcd", "/root/.ssh", "/home/user/.ssh", "/srv/.ssh/x", "/boot"),
        *("/boot/efi", "/proc", "/proc/1", "/sys/fs", "/dev", "/dev/sda", "/dev/shm", "/sbin/x"),
        *("/run", "/run/systemd/x", "/run/alluxio-provision", "/var/lib/alluxio-provision/x"),
        *("/lost+found", "/lib/x", "/home/user/.gnupg"),
    ],
)
def test_a_folder_of_the_system(path: str) -> None:
    with pytest.raises(ValueError, match=r"belongs to the system|keys of a login"):
        model._own_dir(path)


@pytest.mark.parametrize(
    "path",
    [
        *("/etc/etcd", "/etc/alluxio", "/etc/sshd-etcd", "/var/lib/etcd", "/var/lib/alluxio/pages"),
        *("/var/log/alluxio", "/opt/alluxio", "/opt/java", "/data", "/data/etcd", "/mnt/disk1"),
        *("/srv/etcd", "/home/alluxio/pages", "/usr/lib/jvm", "/usr/local/alluxio", "/rooty"),
        *("/usr/share/alluxio", "/dev/shm/alluxio", "/var/backups/etcd", "/srv/x.ssh"),
        *("/media/disk1", "/run/etcd", "/var/cache/alluxio", "/var/spool/etcd"),
    ],
)
def test_a_folder_that_a_service_may_have(path: str) -> None:
    assert model._own_dir(path) == path


# The owner before.


def noted(data: Path, path: Path) -> HostFacts:
    """The facts of a host with the note that the real script has made about ``path``."""
    note = former_owner.note_path(str(path))
    there = Path(hosts.below(data.parent, note))
    paths = {note: hosts.text(there.read_text(), 0o600)} if there.exists() else {}
    if there.exists():
        assert there.stat().st_mode & 0o777 == 0o600
        assert there.parent.stat().st_mode & 0o777 == 0o700
    return hosts.facts(paths=paths)


def take(data: Path, *wanted: Directory) -> None:
    facts = hosts.look(wanted, data.parent)
    done = hosts.do(changes(wanted, facts), data.parent)
    assert done.ok, done.stderr


def give_back(data: Path, *paths: Path, units: list[str] | None = None) -> list[str]:
    facts = hosts.facts()
    for path in paths:
        facts = replace(facts, paths={**facts.paths, **noted(data, path).paths})
    todo = former_owner.give_back(map(str, paths), facts, units or [])
    done = hosts.do(todo, data.parent)
    assert done.ok, done.stderr
    return [change.what for change in todo]


def state(path: Path) -> tuple[str, str, int]:
    return path.owner(), path.group(), path.stat().st_mode & 0o7777


@root_only
class TestFormerOwner:
    @pytest.mark.process
    def test_it_gets_the_folder_back(self, data: Path) -> None:
        folder(data, OTHER, 0o1777)
        subprocess.run(["chgrp", THIRD, data], check=True)
        take(data, Directory(str(data), ME, 0o700))
        assert state(data) == (ME, ME, 0o700)
        (what,) = give_back(data, data)
        assert what.startswith(f"give {data} back to the owner before: 1:2 1777")
        assert state(data) == (OTHER, THIRD, 0o1777)
        assert give_back(data, data) == []

    @pytest.mark.process
    def test_the_first_owner_is_remembered(self, data: Path) -> None:
        folder(data, OTHER, 0o770)
        take(data, Directory(str(data), ME, 0o700))
        folder(data, THIRD, 0o711)  # by hand, meanwhile
        take(data, Directory(str(data), ME, 0o700))
        give_back(data, data)
        assert state(data) == (OTHER, OTHER, 0o770)

    @pytest.mark.process
    def test_a_folder_that_the_tool_made_stays_as_it_is(self, data: Path) -> None:
        take(data, Directory(str(data), ME, 0o700))
        folder(data, OTHER, 0o755)
        take(data, Directory(str(data), ME, 0o700))
        assert give_back(data, data) == []
        assert state(data) == (ME, ME, 0o700)

    @pytest.mark.process
    def test_one_made_after_another_was_removed(self, data: Path) -> None:
        folder(data, OTHER)
        take(data, Directory(str(data), ME))
        data.rmdir()
        take(data, Directory(str(data), ME))
        assert give_back(data, data) == []

    @pytest.mark.process
    def test_a_right_folder_is_not_noted(self, data: Path) -> None:
        folder(data, ME, 0o700)
        take(data, Directory(str(data), ME, 0o700))
        assert noted(data, data).paths == {}

    @pytest.mark.process
    def test_a_link_in_its_place_is_not_followed(self, data: Path) -> None:
        """The service's user owns the folder above it."""
        state_dir, pages = folder(data, ME), folder(data / "pages", OTHER, 0o711)
        take(data, Directory(str(pages), ME, 0o700))
        victim = folder(data.parent / "victim", "root", 0o700)
        pages.rmdir()
        pages.symlink_to(victim)
        give_back(data, state_dir, pages)
        assert state(victim) == ("root", "root", 0o700)

    @pytest.mark.process
    def test_a_link_above_it_is_the_operators(self, data: Path) -> None:
        """/data leads to another disk: the folder in it is the same one. Root made the link, where
        only root could."""
        with tempfile.TemporaryDirectory(dir="/run") as made:
            disk, link = folder(Path(made) / "disk"), Path(made) / "link"
            Path(made).chmod(0o755)
            link.symlink_to(disk)
            path = folder(link / "etcd", OTHER, 0o711)
            take(data, Directory(str(path), ME, 0o700))
            assert state(path)[0] == ME
            give_back(data, path)
            assert state(path) == (OTHER, OTHER, 0o711)

    @pytest.mark.process
    def test_it_stays_while_another_unit_names_it(self, data: Path) -> None:
        folder(data, OTHER, 0o711)
        take(data, Directory(str(data), ME, 0o700))
        unit = data.parent / "alluxio-master.service"
        for line, back in ((f"ReadWritePaths={data}", False), (f"ReadWritePaths={data}2", True)):
            unit.write_text(f"[Service]\n{line}\n")
            give_back(data, data, units=[str(unit), "/nowhere"])
            assert state(data)[0] == (OTHER if back else ME)

    @pytest.mark.process
    def test_an_empty_one_that_the_tool_made_goes_with_its_note(self, data: Path) -> None:
        take(data, Directory(str(data), ME))
        script = f"{safely.FUNCTIONS}\n{former_owner.removed(str(data))}"
        assert hosts.shell(script, data.parent).ok
        assert not data.exists()
        assert noted(data, data).paths == {}

    @pytest.mark.process
    def test_an_empty_one_that_was_there_stays(self, data: Path) -> None:
        """Also when the run that gave it back was killed after that, and comes again."""
        folder(data, OTHER)
        take(data, Directory(str(data), ME))
        for _ in range(2):
            assert hosts.shell(former_owner.removed(str(data)), data.parent).ok
            give_back(data, data)
            assert state(data) == (OTHER, OTHER, 0o755)

    @pytest.mark.process
    def test_releases_folder_that_was_there_stays(self, data: Path) -> None:
        folder(data, OTHER)
        take(data, Directory(str(data)))
        assert hosts.do([destroy.delete_releases(str(data))], data.parent).ok
        assert data.is_dir()

    @pytest.mark.process
    def test_one_that_is_taken_again(self, data: Path) -> None:
        """With another owner meanwhile."""
        folder(data, OTHER)
        take(data, Directory(str(data), ME))
        give_back(data, data)
        folder(data, THIRD, 0o711)
        take(data, Directory(str(data), ME))
        give_back(data, data)
        assert state(data) == (THIRD, THIRD, 0o711)

    def forget(self, data: Path, unit: str = "") -> None:
        other = data.parent / "other.service"
        other.write_text(unit)
        script = former_owner.give_back_rest([str(other), "/nowhere"])
        assert hosts.do([Change("forget", script)], data.parent).ok

    @pytest.mark.process
    def test_a_folder_that_the_inventory_named_before(self, data: Path) -> None:
        """data_dir was changed: no inventory knows of the old folder."""
        folder(data, OTHER, 0o2750)
        file(data / "old data", ME)
        take(data, Directory(str(data), ME, 0o700))
        ours = data.parent / "made by the tool"
        take(data, Directory(str(ours), ME, 0o700))
        self.forget(data, "X-Alluxio-Provision-Cluster=c\n")
        assert state(data) == (ME, ME, 0o700)
        self.forget(data, "[Unit]\n")
        assert state(data) == (OTHER, OTHER, 0o2750)
        assert state(ours) == (ME, ME, 0o700)
        folder(data, THIRD)
        folder_note = Path(hosts.below(data.parent, former_owner.note_path(str(data))))
        folder_note.write_text(folder_note.read_text() + "given back\n")
        self.forget(data)
        assert state(data) == (THIRD, THIRD, 0o755)

    @pytest.mark.process
    def test_a_link_in_the_place_of_the_folder_before(self, data: Path) -> None:
        folder(data, OTHER)
        take(data, Directory(str(data), ME, 0o700))
        victim = folder(data.parent / "victim", "root", 0o700)
        data.rmdir()
        data.symlink_to(victim)
        self.forget(data)
        assert state(victim) == ("root", "root", 0o700)


def test_an_odd_note_is_not_obeyed() -> None:
    for content in ("", "0 0 755\n", "0 0 999\n/x\n", "$(id) 0 755\n/x\n", "0 0 755\n/x\n/y\n"):
        note = former_owner.note_path("/x")
        facts = hosts.facts(paths={note: hosts.text(content)})
        assert former_owner.give_back(["/x"], facts) == ()


def test_destroy_gives_back_what_it_does_not_remove() -> None:
    """Before the unit goes, so that a run that was killed can be run again."""
    cluster = builders.etcd(backup=EtcdBackup(dir="/backups"))
    member = cluster.members[0]
    unit = f"X-Alluxio-Provision-Cluster={cluster.name}\n"
    paths = {layout.UNIT_PATH: hosts.text(unit)}
    for path in ("/var/lib/etcd", "/backups", "/opt/etcd"):
        paths[former_owner.note_path(path)] = hosts.text(f"0 0 755\n{path}\n")
    facts = hosts.facts(paths=paths, units={layout.UNIT: UnitState(load="loaded")})
    probe = destroy._etcd_probe(cluster, member)
    asked = {r.path for r in probe.resources if isinstance(r, File)}
    assert set(paths) <= asked
    whats = [c.what for c in destroy._etcd(cluster, member, {member.machine: facts})]
    back = [what for what in whats if what.startswith("give ")]
    assert [what.split()[1] for what in back] == ["/backups", "/opt/etcd", "/var/lib/etcd"]
    assert whats[-1] == f"delete {layout.UNIT_PATH}"
    assert whats.index("remove /var/lib/etcd if empty") < whats.index(back[0])
