"""Folders that were there before the tool stay after ``destroy``; those that it made go.

Every folder that a role declares is tried with the real scripts: the operator made it as the tool
would, or otherwise, or the tool made it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from provision.alluxio.worker import desired as worker
from provision.alluxio.worker.desired import Artifacts
from provision.engine.plan import HostChanges
from provision.etcd.member import desired, layout
from provision.host import former_owner, predict, tool_version
from provision.host.diff import Change, changes, questions
from provision.host.facts import HostFacts, Probe, UnitState
from provision.host.kinds.certificates import signing_request
from provision.host.resources import Directory, File, Resource, Tree
from provision.inventory.model import EtcdBackup, PageStore
from provision.inventory.resolved import Machine
from provision.plans import clean_host, destroy
from provision.plans.alluxio import masters
from tests.unit import builders, hosts

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away")

#: A user of every Debian, as the service's.
ME = "games"
HERE = Machine("here")


@dataclass(frozen=True, slots=True)
class Role:
    """What the tool makes for a role below ``root``, and what destroy does there."""

    unit: str
    resources: tuple[Resource, ...]
    probe: Probe
    removal: Callable[[Mapping[Machine, HostFacts]], tuple[Change, ...]]
    #: The folders that destroy keeps with all that is in them.
    kept: tuple[str, ...] = ()


def etcd(root: Path) -> Role:
    member = builders.member(1, machine=HERE, data_dir=f"{root}/data")
    cluster = builders.etcd(
        member,
        install_dir=f"{root}/opt",
        config_dir=f"{root}/conf",
        user=ME,
        backup=EtcdBackup().model_copy(update={"dir": f"{root}/backups"}),
    )
    wanted = desired.resources(cluster, member, hosts.tarball(root), None, None)
    probe = destroy._etcd_probe(cluster, member)
    removal = lambda facts: destroy._etcd(cluster, member, facts)  # noqa: E731
    return Role(layout.UNIT_PATH, wanted, probe, removal, (f"{root}/backups",))


def _alluxio(root: Path) -> dict[str, object]:
    java = builders.alluxio().java
    return {
        "user": ME,
        "install_dir": f"{root}/opt",
        "state_dir": f"{root}/state",
        "log_dir": f"{root}/log",
        "java": java.model_copy(
            update={"install_dir": f"{root}/java", "source": builders.SOURCE},
        ),
    }


def a_worker(root: Path) -> Role:
    pages = PageStore(dirs=["/a", "/b"], sizes=["1GB", "1GB"])
    pages = pages.model_copy(update={"dirs": [f"{root}/pages", f"{root}/state/ssd"]})
    one = builders.worker("w1")._replace(machine=HERE, page_store=pages)
    alluxio = builders.alluxio(one, **_alluxio(root))
    artifacts = Artifacts(hosts.tarball(root), hosts.tarball(root), hosts.RELEASE)
    wanted = worker.resources(alluxio, one, artifacts, None)
    probe = destroy._worker_probe(alluxio, one)
    return Role(worker.UNIT_PATH, wanted, probe, lambda f: destroy._worker(alluxio, one, f))


def a_master(root: Path) -> Role:
    one = builders.master("m1", machine=HERE)
    other = builders.worker("w1", "elsewhere")
    alluxio = builders.alluxio(other, masters=(one,), **_alluxio(root))
    artifacts = Artifacts(hosts.tarball(root), hosts.tarball(root), hosts.RELEASE)
    wanted = masters.resources(alluxio, one, artifacts, None)
    probe = destroy._master_probe(alluxio)
    return Role(worker.MASTER_UNIT_PATH, wanted, probe, lambda f: destroy._master(alluxio, one, f))


ROLES = {"etcd": etcd, "worker": a_worker, "master": a_master}


def bases(role: Role) -> set[str]:
    """The folders of the releases: an upload makes them before anything else."""
    return {r.path.rpartition("/")[0] for r in role.resources if isinstance(r, Tree)}


def folders(role: Role) -> list[Directory]:
    declared = [r for r in role.resources if isinstance(r, Directory)]
    there = {r.path for r in declared}
    return [*declared, *(Directory(path) for path in bases(role) if path not in there)]


def install(role: Role, root: Path) -> None:
    """What a first run does: the uploads, and the changes of folders."""
    wanted = [r for r in role.resources if isinstance(r, Directory)]
    todo = changes(wanted, hosts.look(wanted, root))
    for tree in (r for r in role.resources if isinstance(r, Tree)):
        plain = replace(tree, proof=None)
        script = hosts.below(root, plain.receive())
        sent = tree.artifact.path.read_bytes()
        subprocess.run(["sh", "-c", script], input=sent, check=True, capture_output=True)
    done = hosts.do(todo, root)
    assert done.ok, done.stderr


def facts(role: Role, root: Path) -> HostFacts:
    """The host as destroy sees it, with the role's unit."""
    seen = hosts.look([File(hosts.below(root, r.path), None) for r in _files(role.probe)], root)
    back = {hosts.below(root, r.path): r.path for r in _files(role.probe)}
    paths = {back.get(path, path): state for path, state in seen.paths.items()}
    paths |= {p: predict.folder() for p in role.probe.paths if Path(p).is_dir()}
    paths[role.unit] = hosts.text("X-Alluxio-Provision-Cluster=c\n")
    told = {
        label: hosts.shell(script, root).stdout
        for label, script in role.probe.commands.items()
        if label.startswith("releases in ")
    }
    units = {role.unit.rpartition("/")[2]: UnitState(load="loaded")}
    return hosts.facts(paths=paths, units=units, commands=told)


def _files(probe: Probe) -> list[File]:
    return [r for r in probe.resources if isinstance(r, File)]


def destroyed(role: Role, root: Path) -> None:
    """destroy, but for what it does with systemd."""
    todo = [
        change
        for change in role.removal({HERE: facts(role, root)})
        if change.what.startswith(("remove ", "delete ", "give "))
        and "/etc/systemd/system/" not in change.what
    ]
    done = hosts.do(todo, root)
    assert done.ok, done.stderr


def state(path: str) -> tuple[str, int]:
    return Path(path).owner(), Path(path).stat().st_mode & 0o7777


def prepare(folder: Directory, *, right: bool) -> None:
    Path(folder.path).mkdir(parents=True)
    user = folder.owner if right else "daemon"
    subprocess.run(["chown", f"{user}:{folder.group or user}", folder.path], check=True)
    Path(folder.path).chmod(folder.mode if right else 0o711)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that leads to the others, and is root's."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.mark.process
@pytest.mark.parametrize("role_of", ROLES.values(), ids=ROLES)
@pytest.mark.parametrize("right", [True, False], ids=["as the tool would", "otherwise"])
def test_every_folder_that_was_there_stays(
    role_of: Callable[[Path], Role], right: bool, root: Path
) -> None:
    role = role_of(root)
    before = {}
    for folder in sorted(folders(role), key=lambda f: f.path):
        if folder.path == f"{root}/state/journal":
            continue  # its name is the tool's own: see journal_folder
        prepare(folder, right=right)
        before[folder.path] = state(folder.path)
    install(role, root)
    destroyed(role, root)
    base = bases(role)
    # Nobody sets the owner of a folder that only holds releases of etcd, or the JDK.
    assert {p: state(p) for p in before if p not in base} == {
        p: s for p, s in before.items() if p not in base
    }
    assert all(Path(path).is_dir() for path in base)


@pytest.mark.process
@pytest.mark.parametrize("role_of", ROLES.values(), ids=ROLES)
def test_every_folder_that_the_tool_made_goes(role_of: Callable[[Path], Role], root: Path) -> None:
    role = role_of(root)
    install(role, root)
    assert all(Path(folder.path).is_dir() for folder in folders(role))
    (root / "state" / "tmp").mkdir(parents=role.unit == layout.UNIT_PATH)  # by the service itself
    for _ in range(2):  # a run that was killed comes again
        destroyed(role, root)
    left = {f.path for f in folders(role) if Path(f.path).exists()}
    assert left == set(role.kept)


@pytest.mark.process
def test_keys_that_wait_leave_no_folder_behind_but_the_operators(root: Path) -> None:
    """export-csrs makes the folder before any deploy-etcd."""
    for name, there in (("mine", False), ("theirs", True)):
        config = root / name
        if there:
            config.mkdir()
        asked = Change("x", ask=signing_request(f"{config}/pki/peer", "infra1"), answer=str)
        assert hosts.shell(questions([asked]), root).ok
        (config / "pki" / "peer.key.new").unlink()
        remove = "\n".join(map(former_owner.removed, (f"{config}/pki", str(config))))
        assert hosts.do([Change("x", remove)], root).ok
        assert config.exists() is there
        assert not (config / "pki").exists()


@pytest.mark.process
def test_what_an_earlier_version_made_still_goes(root: Path) -> None:
    """It noted nothing, and its unit is there: no other folder of the inventory is known."""
    role = etcd(root)
    unit = root / "etcd.service"
    unit.write_text("X-Alluxio-Provision-Cluster=c\n")
    note = tool_version.note().replace(tool_version.UNITS, f"{root}/*.service")
    assert hosts.shell(note, root).ok
    for folder in folders(role):
        prepare(folder, right=True)
    destroyed(role, root)
    assert {f.path for f in folders(role) if Path(f.path).exists()} == set(role.kept)


@pytest.mark.process
def test_clean_host_leaves_them_too(root: Path) -> None:
    there = root / "pages"
    there.mkdir()
    assert hosts.shell(tool_version.note(), root).ok
    text = "X-Alluxio-Provision-Cluster=o\nUser=games\nExecStart=/opt/alluxio/current/bin/x\n"
    text += f"WorkingDirectory={root}/state\nReadWritePaths={root}/state {root}/log {there}\n"
    seen = hosts.facts(paths={worker.UNIT_PATH: hosts.text(text)})
    found = clean_host.installed("worker", seen, "here")
    assert found is not None
    looked = hosts.facts(paths={str(there): predict.folder()})
    todo = clean_host._removal(found, looked, delete_data=True, user=False)
    (empty,) = [c for c in todo if c.what.endswith(" if empty")]
    assert hosts.do([empty], root).ok
    assert there.is_dir()
    assert HostChanges("x", HERE, todo).changes
