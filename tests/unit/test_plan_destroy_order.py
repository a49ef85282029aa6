"""destroy: masters, then workers, then etcd; what two units of a host share goes with the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.worker import desired as worker
from provision.engine.plan import Plan
from provision.etcd.member import backup_timer, layout
from provision.host import former_owner
from provision.host.diff import Change
from provision.host.facts import HostFacts, PathState, UnitState
from provision.host.predict import after
from provision.inventory.model import EtcdBackup, Java, Source
from provision.inventory.resolved import Machine
from provision.plans import destroy
from provision.plans.alluxio import masters
from tests.unit import builders, hosts
from tests.unit.hosts import text
from tests.unit.test_destroy_releases import Host
from tests.unit.test_stop import ARTIFACTS, World

FOLDER = PathState("dir", "root", "root", 0o755, 0)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def with_masters(world: World) -> None:
    """m0 on a host of its own, m1 beside w1; both installed."""
    assert world.alluxio is not None
    pair = (builders.master("m0"), builders.master("m1", "w1"))
    world.alluxio = replace(world.alluxio, masters=pair)
    world.inventory = replace(world.inventory, alluxio=world.alluxio)
    for n, m in enumerate(pair, 20):
        known = world.facts.get(m.machine, hosts.facts(n))
        if known.unit(worker.UNIT).load != "loaded":
            known = replace(known, units={**known.units, worker.UNIT: UnitState("not-found")})
        made = masters.resources(world.alluxio, m, ARTIFACTS, None)
        seen = after(made, known)
        paths = {**seen.paths, "/opt/alluxio": FOLDER, "/var/lib/alluxio/journal": FOLDER}
        world.facts[m.machine] = replace(seen, paths=paths)


def steps(plan: Plan) -> list[tuple[str, list[str]]]:
    return [(s.title.partition(":")[0], [h.name for h in s.hosts]) for s in plan.steps]


def changes(plan: Plan, name: str) -> list[Change]:
    (found,) = [h.changes for s in plan.steps for h in s.hosts if h.name == name]
    return list(found)


def whats(plan: Plan, name: str) -> list[str]:
    return [c.what for c in changes(plan, name)]


def test_who_needs_another_goes_before_it(world: World) -> None:
    with_masters(world)
    assert steps(world.destroy()) == [
        ("remove masters", ["m0", "m1"]),
        ("remove workers", ["w1", "w2"]),
        ("remove etcd, with its data", ["infra1", "infra2", "infra3"]),
    ]


class TestExternal:
    def test_an_etcd_of_others_is_not_touched(self, world: World) -> None:
        assert destroy.deletes_etcd(world.destroy())
        external = replace(world.inventory.etcd, external=True)
        world.inventory = replace(world.inventory, etcd=external)
        plan = world.destroy()
        assert steps(plan) == [("remove workers", ["w1", "w2"])]
        assert not destroy.deletes_etcd(plan)

    def test_its_hosts_are_not_even_looked_at(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        external = replace(world.inventory.etcd, external=True)
        world.inventory = replace(world.inventory, etcd=external)
        world.destroy()
        assert {m.host for m in world.looked} == {"w1", "w2"}


class TestShared:
    def test_a_master_beside_a_worker_leaves_it_the_releases_and_the_logs(
        self, world: World
    ) -> None:
        """The worker still runs while the masters go, and needs both."""
        with_masters(world)
        plan = world.destroy()
        beside = whats(plan, "m1")
        assert not any("releases" in w or "logs" in w or "/current" in w for w in beside)
        worker_goes = whats(plan, "w1")
        for what in ("delete the releases in /opt/alluxio", "delete the logs in /var/log/alluxio"):
            assert what in worker_goes
        assert "delete /var/lib/alluxio/journal" in beside

    def test_a_master_alone_takes_them_along(self, world: World) -> None:
        with_masters(world)
        alone = whats(world.destroy(), "m0")
        assert "delete the releases in /opt/alluxio" in alone
        assert "delete the logs in /var/log/alluxio" in alone
        assert "delete /opt/alluxio/current" in alone


class TestTimer:
    """The timer would start snapshots of a member that is being deleted."""

    def plan(self, world: World, *, there: bool) -> list[Change]:
        machine = world.inventory.etcd.members[0].machine
        known = world.facts[machine]
        paths = {p: s for p, s in known.paths.items() if p != backup_timer.TIMER_PATH}
        if there:
            paths[backup_timer.TIMER_PATH] = text("[Timer]\n")
        world.facts[machine] = replace(known, paths=paths)
        return changes(world.destroy(), "infra1")

    def test_it_ends_before_any_data_goes(self, world: World) -> None:
        found = self.plan(world, there=True)
        names = [c.what for c in found]
        at = names.index(f"disable {backup_timer.UNIT}")
        assert found[at].script == f"systemctl disable -q --now {backup_timer.UNIT}"
        assert names[0].startswith("stop and disable etcd")
        assert at < min(i for i, name in enumerate(names) if name.startswith("delete "))

    def test_without_one_there_is_nothing_to_disable(self, world: World) -> None:
        names = [c.what for c in self.plan(world, there=False)]
        assert not any(w.startswith("disable ") for w in names)


class TestStop:
    def first(self, world: World, paths: Mapping[str, PathState]) -> Change:
        machine = world.inventory.etcd.members[0].machine
        known = world.facts[machine]
        gone, _ = destroy._etcd_paths(world.inventory.etcd, world.inventory.etcd.members[0])
        every = {p: s for p, s in known.paths.items() if p not in gone}
        every[layout.UNIT_PATH] = known.paths[layout.UNIT_PATH]
        world.facts[machine] = replace(known, paths={**every, **paths})
        return changes(world.destroy(), "infra1")[0]

    def test_what_a_start_meanwhile_would_make_goes_with_the_stop(self, world: World) -> None:
        """What was there when the host was looked at has a change of its own."""
        found = self.first(world, {"/var/lib/etcd/member": FOLDER})
        *_, last = found.script.splitlines()
        assert last.startswith("gone ")
        assert "/etc/etcd/etcd.conf.yml" in last.split()
        assert "/var/lib/etcd/member" not in last.split()
        assert layout.UNIT_PATH not in last.split()

    def test_where_all_is_there_already_nothing_more_goes_with_it(self, world: World) -> None:
        member = world.inventory.etcd.members[0]
        gone, _ = destroy._etcd_paths(world.inventory.etcd, member)
        found = self.first(world, {p: FOLDER for p in gone if p != layout.UNIT_PATH})
        assert not any(line.startswith("gone") for line in found.script.splitlines())

    def test_it_disrupts(self, world: World) -> None:
        """So that the plan ends with the services that it stops."""
        plan = world.destroy()
        for name in ("infra1", "w1"):
            assert changes(plan, name)[0].disrupts


@pytest.mark.process
@pytest.mark.parametrize("other", [False, True])
def test_keys_that_wait_for_a_signature_go_and_nothing_beside_them(
    tmp_path: Path, other: bool
) -> None:
    """By a real shell. A host with keys from export-csrs was never a member."""
    cluster = builders.etcd(config_dir=str(tmp_path / "etc"))
    member = cluster.members[0]
    pki = Path(layout.pki_dir(cluster))
    pki.mkdir(parents=True)
    (pki / "peer.key.new").write_text("a key\n")
    if other:
        (pki / "mine.pem").write_text("not ours\n")
    seen: dict[Machine, HostFacts] = {
        member.machine: hosts.facts(
            paths={str(pki): FOLDER}, units={layout.UNIT: UnitState("not-found")}
        )
    }
    found = destroy._etcd(cluster, member, seen)
    (keys,) = [c for c in found if c.what.startswith("delete the keys that wait in ")]
    assert hosts.do([keys], tmp_path).ok
    assert not (pki / "peer.key.new").exists()
    assert pki.exists() is other
    assert Path(cluster.config_dir).exists() is other


def foreign_master(world: World) -> None:
    """Another cluster's master runs on w1's host, from the same folder of releases."""
    machine = Machine("w1")
    known = world.facts[machine]
    unit = "X-Alluxio-Provision-Cluster=other\nExecStart=/opt/alluxio/313/bin/x master\n"
    paths = {
        **known.paths,
        worker.MASTER_UNIT_PATH: text(unit),
        **dict.fromkeys(("/opt/alluxio", "/opt/alluxio/current", "/pages/LOCAL"), FOLDER),
    }
    world.facts[machine] = replace(known, paths=paths)


class TestOtherClusters:
    def test_what_a_master_of_another_cluster_may_use_stays(self, world: World) -> None:
        """Its release, its JDK, which no unit names, the link and the logs."""
        foreign_master(world)
        assert world.alluxio is not None
        java = Java(source=Source(path=Path("jdk.tar.gz"), sha256="0" * 64))
        world.alluxio = replace(world.alluxio, java=java)
        world.inventory = replace(world.inventory, alluxio=world.alluxio)
        for machine in (Machine("w1"), Machine("w2")):
            known = world.facts[machine]
            paths = {**known.paths, "/opt/java": FOLDER, "/opt/alluxio": FOLDER}
            world.facts[machine] = replace(known, paths=paths)
        plan = world.destroy()
        beside = whats(plan, "w1")
        kept = ("delete the releases", "delete the logs", "delete /opt/alluxio/current")
        assert not any(what.startswith(kept) for what in beside)
        assert "delete /pages/LOCAL" in beside
        alone = whats(plan, "w2")
        assert "delete the releases in /opt/java" in alone
        assert "delete the releases in /opt/alluxio" in alone

    def test_a_master_beside_another_clusters_worker_leaves_it_the_same(self, world: World) -> None:
        with_masters(world)
        machine = Machine("m0")
        known = world.facts[machine]
        unit = text("X-Alluxio-Provision-Cluster=other\nExecStart=/opt/other/313/bin/x worker\n")
        world.facts[machine] = replace(known, paths={**known.paths, worker.UNIT_PATH: unit})
        beside = whats(world.destroy(), "m0")
        assert not any("releases" in w or "logs" in w or "/current" in w for w in beside)

    def test_releases_in_a_folder_that_another_cluster_does_not_name_go(self, world: World) -> None:
        machine = world.inventory.etcd.members[0].machine
        known = world.facts[machine]
        for folder, goes in (("/opt/elsewhere", True), ("/opt/etcd", False)):
            unit = f"X-Alluxio-Provision-Cluster=other\nExecStart={folder}/313/bin/x worker\n"
            paths = {**known.paths, worker.UNIT_PATH: text(unit), "/opt/etcd": FOLDER}
            world.facts[machine] = replace(known, paths=paths)
            found = whats(world.destroy(), "infra1")
            assert ("delete the releases in /opt/etcd" in found) is goes


class TestEffects:
    """What the plan says about itself: the guards that it has, and the services that it ends."""

    @pytest.mark.parametrize(
        ("active", "data", "gone"),
        [
            *((active, False, True) for active in ("active", "activating")),
            *((active, False, True) for active in ("reloading", "deactivating")),
            ("failed", False, False),
            ("inactive", True, True),
        ],
    )
    def test_data_go_with_a_running_etcd_wherever_they_are_and_with_their_folder(
        self, world: World, active: str, data: bool, gone: bool
    ) -> None:
        for m in world.inventory.etcd.members:
            known = world.facts[m.machine]
            paths = {p: s for p, s in known.paths.items() if not p.endswith("/member")}
            paths |= {f"{m.data_dir}/member": FOLDER} if data else {}
            units = {**known.units, layout.UNIT: UnitState("loaded", active)}
            world.facts[m.machine] = replace(known, paths=paths, units=units)
        assert destroy.deletes_etcd(world.destroy()) is gone

    def test_each_stop_names_its_unit_and_has_its_time(self, world: World) -> None:
        with_masters(world)
        plan = world.destroy()
        for name, unit in (
            ("infra1", layout.UNIT),
            ("w1", worker.UNIT),
            ("m0", worker.MASTER_UNIT),
        ):
            first = changes(plan, name)[0]
            assert first.stops == (unit,)
            assert first.seconds >= 120


def test_a_folder_that_was_there_before_is_given_back_unless_another_unit_names_it(
    world: World,
) -> None:
    """Of the unit that goes itself, the file is there until the end: it does not count."""
    machine = world.inventory.etcd.members[0].machine
    cluster = replace(world.inventory.etcd, backup=EtcdBackup(dir="/backups"))
    world.inventory = replace(world.inventory, etcd=cluster)
    note = {former_owner.note_path("/backups"): text("0 0 755\n/backups\n")}
    known = world.facts[machine]
    world.facts[machine] = replace(known, paths={**known.paths, **note})
    (back,) = [c for c in changes(world.destroy(), "infra1") if c.what.startswith("give ")]
    used, *_ = back.script.splitlines()
    assert worker.UNIT_PATH in used
    assert worker.MASTER_UNIT_PATH in used
    assert layout.UNIT_PATH not in used


@pytest.mark.process
def test_a_release_without_a_name_stays_where_another_cluster_has_a_unit(tmp_path: Path) -> None:
    """An earlier version of this tool unpacked it, for one of the two. This cluster never ran
    there."""
    host = Host(tmp_path)
    host.unpack("alluxio/312", None)
    host.unpack("alluxio/313", "c")
    assert host.destroy() == []
    host.unpack("alluxio/312", None)
    host.unpack("alluxio/313", "c")
    host.unit(worker.MASTER_UNIT_PATH, "other", "elsewhere/313")
    assert host.destroy() == ["alluxio/312"]
