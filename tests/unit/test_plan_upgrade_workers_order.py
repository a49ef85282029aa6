"""upgrade-workers and rollback-workers: how many at a time, with which files, and what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision import artifacts
from provision.alluxio.worker import java
from provision.artifacts import Artifact
from provision.engine.plan import HostChanges, Plan
from provision.etcd.cluster.handle import Etcd
from provision.host.diff import batch
from provision.inventory.model import Java, Source
from provision.plans.alluxio import start_workers, upgrade_workers
from provision.ssh.session import Fleet
from tests.unit import builders, hosts
from tests.unit.test_rolling import World, groups, link, whats

JDK = Artifact(Path("jdk-11.tar.gz"), "b" * 64, 200 << 20)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def run(world: World, what: Any, version: str, **given: Any) -> Any:
    alluxio = world.declared(version)
    inventory = builders.inventory(alluxio)
    with Fleet(4) as fleet:
        handle = Etcd(inventory.etcd, fleet)
        return what(inventory, alluxio, handle, alluxio.workers, **given)


def upgrade(world: World, **given: Any) -> Plan:
    found = run(world, upgrade_workers.upgrade, "314", **given)
    assert isinstance(found, Plan)
    return found


def rollback(world: World, **given: Any) -> Plan:
    """From 314 to 313, which is on every host."""
    for w in world.alluxio.workers:
        world.runs(w.name, "314", "313")
    found = run(world, upgrade_workers.rollback, "314", **given)
    assert isinstance(found, upgrade_workers.Rollback)
    assert found.plan.command == "rollback-workers"
    return found.plan


class TestHowMany:
    """Of 20 workers, 15 run. A tenth of the 20 may be away at once: a stopped worker was away
    before."""

    @pytest.fixture
    def many(self, monkeypatch: pytest.MonkeyPatch) -> World:
        world = World(monkeypatch, 20)
        for n in range(1, 6):
            world.unit(f"w{n}", "inactive")
        return world

    @pytest.mark.parametrize("plan", [upgrade, rollback])
    def test_a_tenth_of_the_chosen_workers(self, many: World, plan: Any) -> None:
        sizes = [len(some) for some in groups(plan(many))]
        assert sizes == [2] * 7 + [1]

    @pytest.mark.parametrize("plan", [upgrade, rollback])
    def test_as_many_as_the_operator_says(self, many: World, plan: Any) -> None:
        sizes = [len(some) for some in groups(plan(many, at_once=6))]
        assert sizes == [6, 6, 3]

    @pytest.mark.parametrize("plan", [upgrade, rollback])
    def test_who_is_stopped_is_named_and_left_alone(self, many: World, plan: Any) -> None:
        found = plan(many)
        stopped = [f"w{n}" for n in range(1, 6)]
        assert [n.where.split()[0] for n in found.notes] == stopped
        assert {h.name for s in found.steps for h in s.hosts}.isdisjoint(stopped)


@pytest.mark.parametrize("plan", [upgrade, rollback])
def test_where_all_are_stopped_each_is_named(world: World, plan: Any) -> None:
    for w in world.alluxio.workers:
        world.unit(w.name, "inactive")
    found = plan(world)
    assert found.steps == ()
    assert [(n.where, n.id) for n in found.notes] == [
        (w.place, "worker-left-out") for w in world.alluxio.workers
    ]
    # restart-workers says it, too: the note names no command but the one that helps.
    assert {n.what for n in found.notes} == {"is stopped; this command does not start it"}


class TestFiles:
    def test_the_way_back_needs_no_tarball_of_alluxio(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody may have the older tarball any more; the declared one is of the newer release."""
        monkeypatch.setattr(
            start_workers,
            "fetch",
            lambda *_, **__: pytest.fail("a tarball of Alluxio was asked"),
        )
        assert groups(rollback(world)) == [["w1"], ["w2"], ["w3"]]

    def test_after_the_way_back_workers_run_with_the_declared_jdk(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = Source(path=Path("jdk-11.tar.gz"), sha256="0" * 64)
        world.alluxio = replace(world.alluxio, java=Java(source=source))
        asked: list[Source] = []

        def fetch(wanted: Source, cache: Path, *, unread: bool = False) -> Artifact:
            asked.append(wanted)
            assert cache == artifacts.default_cache()
            return JDK

        monkeypatch.setattr(artifacts, "fetch", fetch)
        monkeypatch.setattr(java, "tarball_major", lambda _: 11)
        found = rollback(world)
        assert asked == [source]
        uploads = {
            c.upload.artifact
            for s in found.steps
            for h in s.hosts
            for c in h.changes
            if c.upload is not None
        }
        assert uploads == {JDK}


class TestOlderReleases:
    """--keep deletes the oldest. What runs, and what ran before it, is never among these."""

    def there(self, world: World, current: str, previous: str | None, *newest_first: str) -> None:
        for w in world.alluxio.workers:
            world.runs(w.name, current, previous)
            lines = [f"{100 - n} {'a' * 64} {r}" for n, r in enumerate(newest_first)]
            commands = {**world.facts[w.machine].commands, "releases": "\n".join(lines)}
            world.change(w.name, commands=commands)

    def deleted(self, world: World, keep: int) -> list[str]:
        plan = upgrade(world, keep=keep)
        every = [
            [w.removeprefix("delete /opt/alluxio/") for w in whats(plan, name) if "delete " in w]
            for name in ("w1", "w2", "w3")
        ]
        assert every[0] == every[1] == every[2]
        return every[0]

    def test_the_running_release_stays_though_newer_ones_lie_beside_it(self, world: World) -> None:
        """As after a rollback: 313 runs again, and 315 and 312 are left over."""
        self.there(world, "313", "312", "315", "312", "313")
        assert self.deleted(world, 2) == ["315", "312"]

    def test_after_the_upgrade_the_release_to_go_back_to_stays(self, world: World) -> None:
        self.there(world, "314", "313", "315", "314", "312", "313")
        assert self.deleted(world, 2) == ["315", "312"]
        assert self.deleted(world, 3) == ["312"]

    def test_hosts_are_cleaned_as_many_at_once_as_the_inventory_allows(self, world: World) -> None:
        self.there(world, "314", "313", "314", "313", "312")
        last = upgrade(world, keep=2).steps[-1]
        assert (last.title, last.at_once) == ("delete older releases", 4)

    @pytest.mark.process
    def test_what_somebody_switched_to_meanwhile_is_not_deleted(
        self, world: World, tmp_path: Path
    ) -> None:
        """By a real shell: `current` is read again at the moment of the deletion."""
        found = self._pruned(world, tmp_path, "312")
        for name in ("314", "313", "312"):
            (tmp_path / name).mkdir()
        (tmp_path / "current").symlink_to("312")
        assert not hosts.shell(batch(found.changes), tmp_path).ok
        assert (tmp_path / "312").is_dir()
        (tmp_path / "current").unlink()
        (tmp_path / "current").symlink_to("314")
        assert hosts.shell(batch(found.changes), tmp_path).ok
        left = sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("31"))
        assert left == ["313", "314"]

    def _pruned(self, world: World, folder: Path, *gone: str) -> HostChanges:
        alluxio = replace(world.declared("314"), install_dir=str(folder))
        worker = alluxio.workers[0]
        known = world.facts[worker.machine]
        names: Sequence[str] = ("314", "313", *gone)
        listed = "\n".join(f"{100 - n} {'a' * 64} {r}" for n, r in enumerate(names))
        facts = replace(
            known,
            paths={f"{folder}/current": link("314"), f"{folder}/previous": link("313")},
            commands={**known.commands, "releases": listed},
        )
        found = upgrade_workers._pruned(alluxio, worker, facts, 2)
        assert [c.what for c in found.changes] == [f"delete {folder}/{name}" for name in gone]
        return found
