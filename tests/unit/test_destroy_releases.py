"""destroy takes away the releases that its cluster has unpacked, and no other cluster's."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.worker import desired as worker
from provision.engine.plan import HostChanges, Plan, Step
from provision.etcd.member import layout
from provision.host.facts import HostFacts, PathState, UnitState
from provision.host.resources import MARKER, OWNER, Tree
from provision.plans import destroy
from tests.unit import builders, hosts
from tests.unit.hosts import text

W = builders.worker("w1")
FOLDER = PathState("dir", "root", "root", 0o755, 0)


class Host:
    """A host's /opt in a folder of its own, with releases of several clusters."""

    def __init__(self, root: Path) -> None:
        self.root = root
        made = builders.alluxio(W, name="c")
        self.alluxio = replace(
            made,
            install_dir=f"{root}/alluxio",
            java=made.java.model_copy(
                update={"install_dir": f"{root}/java", "source": builders.SOURCE}
            ),
        )
        self.units: dict[str, PathState] = {}

    def unpack(self, name: str, cluster: str | None) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True)
        (folder / MARKER).write_text("digest\n")
        if cluster is not None:
            (folder / OWNER).write_text(f"{cluster}\n")
        return folder

    def unit(self, path: str, cluster: str, release: str = "alluxio/313") -> None:
        said = f"X-Alluxio-Provision-Cluster={cluster}\nExecStart={self.root}/{release}/bin/x\n"
        self.units[path] = text(said)

    def facts(self) -> HostFacts:
        folders = {f"{self.root}/{name}": FOLDER for name in ("alluxio", "java")}
        commands = {
            label: hosts.shell(script, self.root).stdout
            for label, script in destroy._worker_probe(self.alluxio, W).commands.items()
            if label.startswith("releases in ")
        }
        return replace(hosts.facts(), paths={**self.units, **folders}, commands=commands)

    def destroy(self) -> list[str]:
        """What is left below /opt when the cluster "c" is destroyed."""
        changes = destroy._worker(self.alluxio, W, {W.machine: self.facts()})
        todo = [c for c in changes if c.what.startswith("delete the releases")]
        assert hosts.do(todo, self.root).ok
        folders = [self.root / "alluxio", self.root / "java"]
        left = [path for folder in folders for path in folder.glob("*")]
        return sorted(str(path.relative_to(self.root)) for path in left)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.process
def test_a_cluster_that_never_ran_there_takes_nothing_of_another(host: Host) -> None:
    """No unit shows whose they are: the other's first run was killed, or its unit is away."""
    host.unpack("alluxio/313", "other")
    host.unpack("java/jdk", "other")
    assert destroy._worker(host.alluxio, W, {W.machine: host.facts()}) == ()
    assert host.destroy() == ["alluxio/313", "java/jdk"]


@pytest.mark.process
@pytest.mark.parametrize("noted", ["other", "c", None])
def test_what_another_clusters_master_may_use_stays(host: Host, noted: str | None) -> None:
    """Whoever has unpacked it, also an earlier version of this tool."""
    host.unit(worker.MASTER_UNIT_PATH, "other")
    host.unpack("alluxio/313", noted)
    host.unpack("java/jdk", noted)
    assert host.destroy() == ["alluxio/313", "java/jdk"]
    host.unit(worker.UNIT_PATH, "c")  # a worker of this cluster beside it
    assert host.destroy() == ["alluxio/313", "java/jdk"]
    host.unit(worker.MASTER_UNIT_PATH, "other", "elsewhere/313")
    assert host.destroy() == ["java/jdk"]


@pytest.mark.process
@pytest.mark.parametrize("noted", ["c", None])
def test_what_a_first_run_of_its_own_has_unpacked_goes(host: Host, noted: str | None) -> None:
    host.unpack("alluxio/313", noted)
    host.unpack("alluxio/312", "other")
    (host.root / "alluxio" / ".incoming.x").mkdir()
    host.unpack("java/jdk", noted)
    assert host.destroy() == ["alluxio/312"]


@pytest.mark.process
def test_an_upload_that_was_cut_goes(host: Host) -> None:
    (host.root / "alluxio" / ".incoming.x").mkdir(parents=True)
    (host.root / "java").mkdir()
    hosts.made(host.root, host.root / "java")
    assert host.destroy() == []
    assert not (host.root / "java").exists()


@pytest.mark.process
def test_an_empty_folder_that_was_there_stays(host: Host) -> None:
    """The operator made it, and nothing was ever installed there: there is nothing to do."""
    for name in ("alluxio", "java"):
        (host.root / name).mkdir()
    assert destroy._worker(host.alluxio, W, {W.machine: host.facts()}) == ()
    host.unit(worker.UNIT_PATH, "c")
    assert host.destroy() == []
    assert (host.root / "alluxio").exists()
    assert (host.root / "java").exists()


@pytest.mark.process
def test_where_it_has_run_everything_goes(host: Host) -> None:
    host.unit(worker.UNIT_PATH, "c")
    host.unpack("alluxio/313", "c")
    host.unpack("alluxio/312", None)
    host.unpack("java/jdk", "gone")  # a cluster that shared it, and was destroyed before
    assert host.destroy() == []


@pytest.mark.process
@pytest.mark.parametrize("begun", [True, False])
def test_a_jdk_that_left_the_inventory_goes(host: Host, begun: bool) -> None:
    """Its mark says whose it is. Somebody else's JDK beside it has none."""
    host.alluxio = replace(host.alluxio, java=host.alluxio.java.model_copy(update={"source": None}))
    if begun:
        host.unit(worker.UNIT_PATH, "c")
    host.unpack("java/jdk", "c")
    (host.root / "java/theirs").mkdir()
    assert host.destroy() == ["java/theirs"]


@pytest.mark.process
@pytest.mark.parametrize("begun", [True, False])
def test_a_folder_of_jdks_that_are_not_ours_stays(host: Host, begun: bool) -> None:
    host.alluxio = replace(host.alluxio, java=host.alluxio.java.model_copy(update={"source": None}))
    if begun:
        host.unit(worker.UNIT_PATH, "c")
    (host.root / "java").mkdir()
    assert host.destroy() == []
    assert (host.root / "java").is_dir()


@pytest.mark.process
@pytest.mark.parametrize("name", ["c", "it's; rm -rf $HOME", ""])
def test_an_unpacked_release_names_its_cluster(tmp_path: Path, name: str) -> None:
    artifact = hosts.tarball(tmp_path)
    tree = Tree(f"{tmp_path}/opt/1.0", artifact, cluster=name)
    script = hosts.below(tmp_path, tree.receive())
    subprocess.run(["sh", "-c", script], input=artifact.path.read_bytes(), check=True)
    noted = tmp_path / "opt/1.0" / OWNER
    assert (noted.read_text() if noted.exists() else "") == (f"{name}\n" if name else "")


def test_etcds_data_is_what_other_clusters_may_need() -> None:
    """Only a plan that deletes it asks for them: a second destroy finds nothing to ask."""
    cluster = builders.etcd(builders.member(1))
    member = cluster.members[0]
    paths = {
        "/etc/systemd/system/etcd.service": text("X-Alluxio-Provision-Cluster=c\n"),
        f"{member.data_dir}/member": FOLDER,
    }
    seen = replace(hosts.facts(), paths=paths)

    def plan(facts: HostFacts) -> Plan:
        changes = destroy._etcd(cluster, member, {member.machine: facts})
        return Plan(
            "destroy",
            "c",
            (Step("x", (HostChanges(member.name, member.machine, changes),)),),
        )

    assert destroy.deletes_etcd(plan(seen))
    paths.pop(f"{member.data_dir}/member")
    gone = replace(seen, paths=paths)
    assert not destroy.deletes_etcd(plan(gone))
    # An etcd that runs has its data, wherever the inventory says it is.
    runs = {layout.UNIT: UnitState("loaded", "active", "running", "enabled", pid=1)}
    assert destroy.deletes_etcd(plan(replace(gone, units=runs)))
