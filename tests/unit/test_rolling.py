"""restart-workers, upgrade-workers and rollback-workers: who, in which order, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from provision.alluxio.commands import readiness
from provision.alluxio.membership import registrations
from provision.alluxio.worker import desired
from provision.alluxio.worker.desired import Artifacts
from provision.alluxio.worker.tarball import LAUNCHERS
from provision.engine.plan import Plan
from provision.errors import PreflightFailed, UsageError
from provision.etcd.cluster.handle import Etcd
from provision.host import gather
from provision.host.facts import HostFacts, PathState, Probe, UnitState
from provision.host.predict import after
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Machine
from provision.plans.alluxio import forget_worker, restart_workers, start_workers, upgrade_workers
from provision.ssh.session import Fleet
from tests.unit import builders, hosts
from tests.unit.hosts import RELEASE, TARBALL, text

RESTART = "restart alluxio-worker.service"


@pytest.mark.parametrize(
    ("said", "total", "size"),
    [("", 9, None), ("2", 9, 2), ("10%", 200, 20), ("10%", 19, 1), ("1%", 3, 1), ("100%", 7, 7)],
)
def test_the_size_of_a_group(said: str, total: int, size: int | None) -> None:
    assert restart_workers.group_size(said, total) == size


@pytest.mark.parametrize("said", ["0", "0%", "101%", "-1", "1.5", "ten", "%", "٣"])
def test_what_is_no_size(said: str) -> None:
    with pytest.raises(UsageError, match="--at-once is a count"):
        restart_workers.group_size(said, 10)


READY = "rpc connected\ndata connected\nweb answered HTTP/1.1 200 OK\nhttp answered HTTP/1.1 200 OK"


class World:
    """Workers w1, w2, ... as declared, running release 313, and live."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int = 3) -> None:
        self.alluxio: AlluxioCluster = builders.alluxio(
            *(builders.worker(f"w{n}") for n in range(1, count + 1))
        )
        self.live = {w.name: n for n, w in enumerate(self.alluxio.workers, 1)}
        self.facts: dict[Machine, HostFacts] = {}
        for n, w in enumerate(self.alluxio.workers, 1):
            wanted = desired.resources(self.alluxio, w, Artifacts(TARBALL, None), None)
            good = hosts.facts(n)
            good = replace(good, commands={**good.commands, readiness.LABEL: READY})
            there = after(wanted, good)
            launcher = {
                f"{desired.home(self.alluxio)}/{LAUNCHERS[0]}": text("#!/bin/bash\n", 0o755)
            }
            self.facts[w.machine] = replace(there, paths={**there.paths, **launcher})
        monkeypatch.setattr(gather, "require_facts", self._facts)
        monkeypatch.setattr(gather, "gather_facts", lambda *given: (self._facts(*given), []))
        monkeypatch.setattr(start_workers, "live", lambda *_: self.live)
        monkeypatch.setattr(start_workers, "_registered", lambda *_: (None, []))
        nothing = registrations.RegistrationSnapshot("c", 1, {}, {})
        monkeypatch.setattr(forget_worker, "look", lambda *_: nothing)
        monkeypatch.setattr(
            start_workers, "fetch", lambda *_, **__: Artifacts(TARBALL, None, RELEASE)
        )

    def _facts(self, _: Fleet, probes: Mapping[Machine, Probe]) -> dict[Machine, HostFacts]:
        return {m: self.facts[m] for m in probes}

    def unit(self, name: str, active: str) -> None:
        units = {desired.UNIT: UnitState("loaded", active, "", "enabled", 1)}
        self.change(name, units=units)

    def change(self, name: str, **changed: object) -> None:
        machine = self.alluxio.worker(name).machine
        self.facts[machine] = replace(self.facts[machine], **changed)  # type: ignore[arg-type]

    def paths(self, name: str, **paths: PathState) -> None:
        before = self.facts[self.alluxio.worker(name).machine].paths
        known = {"mark": restart_workers.MARK, "previous": "/opt/alluxio/previous"}
        known["current"] = "/opt/alluxio/current"
        self.change(name, paths={**before, **{known[k]: v for k, v in paths.items()}})

    def runs(self, name: str, release: str, before: str | None, *also: str) -> None:
        """As after an upgrade: ``release`` runs, ``before`` did, and ``also`` are there."""
        self.paths(name, current=link(release))
        if before is not None:
            self.paths(name, previous=link(before))
        there = [release, *([before] if before else []), *also]
        lines = [f"{100 - n} {'a' * 64} {r}" for n, r in enumerate(dict.fromkeys(there))]
        machine = self.alluxio.worker(name).machine
        self.change(name, commands={**self.facts[machine].commands, "releases": "\n".join(lines)})
        paths = dict(self.facts[machine].paths)
        for r in there:
            paths[f"/opt/alluxio/{r}/.artifact.sha256"] = text("a" * 64 + "\n")
        self.change(name, paths=paths)

    def restart(self, at_once: int | None = None, *, afresh: bool = False) -> Plan:
        inventory = builders.inventory(self.alluxio)
        workers = self.alluxio.workers
        with Fleet(4) as fleet:
            handle = Etcd(inventory.etcd, fleet)
            return restart_workers.restart(
                inventory, self.alluxio, handle, workers, at_once=at_once, afresh=afresh
            )

    def declared(self, version: str) -> AlluxioCluster:
        return replace(self.alluxio, version=version)

    def upgrade(self, version: str, keep: int | None = None) -> Plan:
        alluxio = self.declared(version)
        with Fleet(4) as fleet:
            inventory = builders.inventory(alluxio)
            handle = Etcd(inventory.etcd, fleet)
            return upgrade_workers.upgrade(inventory, alluxio, handle, alluxio.workers, keep=keep)

    def rollback(self, version: str, to: str = "") -> upgrade_workers.Rollback:
        alluxio = self.declared(version)
        with Fleet(4) as fleet:
            inventory = builders.inventory(alluxio)
            handle = Etcd(inventory.etcd, fleet)
            return upgrade_workers.rollback(inventory, alluxio, handle, alluxio.workers, to=to)


def link(target: str) -> PathState:
    return PathState("link", "root", "root", 0o777, 3, target=target)


def groups(plan: Plan) -> list[list[str]]:
    """Who is restarted, group by group."""
    return [
        [h.name for h in step.hosts]
        for step in plan.steps
        if any(desired.UNIT in c.starts for h in step.hosts for c in h.changes)
    ]


def whats(plan: Plan, worker: AlluxioWorker | str) -> list[str]:
    return [c.what for s in plan.steps for h in s.hosts if h.name == str(worker) for c in h.changes]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


class TestRestart:
    def test_all_are_noted_then_restarted_group_by_group(self, world: World) -> None:
        found = world.restart(2)
        assert [h.name for h in found.steps[0].hosts] == ["w1", "w2", "w3"]
        assert restart_workers.MARK in found.steps[0].hosts[0].changes[0].script
        assert groups(found) == [["w1", "w2"], ["w3"]]
        assert all(s.before and s.after for s in found.steps[1:])
        assert whats(found, "w1") == ["record that the worker needs a restart", RESTART]

    def test_one_at_a_time_when_nothing_is_said(self, world: World) -> None:
        assert groups(world.restart()) == [["w1"], ["w2"], ["w3"]]

    @pytest.mark.parametrize("active", ["failed", "activating", "active"])
    def test_who_is_not_live_comes_first(self, world: World, active: str) -> None:
        world.unit("w3", active)
        del world.live["w3"]
        assert groups(world.restart()) == [["w3"], ["w1"], ["w2"]]

    def test_who_is_live_and_not_ready_comes_first(self, world: World) -> None:
        dead = READY.replace("http answered HTTP/1.1 200 OK", "http error nothing listens")
        world.change("w3", commands={readiness.LABEL: dead})
        assert groups(world.restart()) == [["w3"], ["w1"], ["w2"]]

    def test_who_was_stopped_stays_so(self, world: World) -> None:
        world.unit("w2", "inactive")
        found = world.restart()
        assert groups(found) == [["w1"], ["w3"]]
        assert [n.where for n in found.notes] == ["w2 at w2"]

    def test_a_run_that_ended_part_way_goes_on(self, world: World) -> None:
        """w1 is done, w2 did not come back, w3 was not reached."""
        del world.live["w2"]
        note = text("restart-workers 2026-11-17T09:00:00Z ann@desk\n")
        world.paths("w3", mark=note)
        found = world.restart()
        assert groups(found) == [["w2"], ["w3"]]
        (resumed,) = found.notes
        assert "2026-11-17T09:00:00Z ann@desk: 1 worker is left, 1 done" in resumed.what
        assert groups(world.restart(afresh=True)) == [["w2"], ["w1"], ["w3"]]

    def test_another_pending_restart_is_no_earlier_run(self, world: World) -> None:
        world.paths("w3", mark=text(""))
        assert groups(world.restart()) == [["w1"], ["w2"], ["w3"]]

    def test_nobody_elses(self, world: World) -> None:
        paths = dict(world.facts[Machine("w2")].paths)
        paths[desired.UNIT_PATH] = text("X-Alluxio-Provision-Cluster=other\n")
        world.change("w2", paths=paths)
        with pytest.raises(PreflightFailed, match="do not belong to this cluster"):
            world.restart()


class TestUpgrade:
    def test_prepared_everywhere_then_one_after_the_other(self, world: World) -> None:
        found = world.upgrade("314")
        assert found.command == "upgrade-workers"
        assert [s.title for s in found.steps] == [
            *("prepare running workers", "restart w1", "restart w2", "restart w3")
        ]
        assert "worker identity" not in " ".join(whats(found, "w1"))

    def test_it_goes_on_where_it_was(self, world: World) -> None:
        wanted = desired.resources(world.declared("314"), world.alluxio.workers[0], ARTIFACTS, None)
        world.facts[Machine("w1")] = after(wanted, world.facts[Machine("w1")])
        assert groups(world.upgrade("314")) == [["w2"], ["w3"]]

    def test_who_was_stopped_is_left_alone(self, world: World) -> None:
        world.unit("w2", "inactive")
        found = world.upgrade("314")
        assert whats(found, "w2") == []
        assert [n.where for n in found.notes] == ["w2 at w2"]

    def test_older_releases_go_only_when_it_is_said(self, world: World) -> None:
        for w in world.alluxio.workers:
            world.runs(w.name, "313", "312", "311", "310")
        assert "delete" not in str(world.upgrade("314").document())
        found = world.upgrade("314", keep=3)
        assert found.steps[-1].title == "delete older releases"
        # 314 to come, 313 to go back to, and the newest of the others.
        assert whats(found, "w1")[-2:] == [*("delete /opt/alluxio/311", "delete /opt/alluxio/310")]


class TestRollback:
    def after(self, world: World, *names: str) -> None:
        for name in names:
            world.runs(name, "314", "313")

    def test_back_to_the_one_before(self, world: World) -> None:
        self.after(world, "w1", "w2", "w3")
        found = world.rollback("314")
        assert (found.to, found.digest) == ("313", "a" * 64)
        assert groups(found.plan) == [["w1"], ["w2"], ["w3"]]
        moved = [w for w in whats(found.plan, "w1") if w.startswith("point")]
        assert moved == ["point /opt/alluxio/current to 313"]
        assert not any(c.upload for s in found.plan.steps for h in s.hosts for c in h.changes)

    def test_who_is_back_already_stays(self, world: World) -> None:
        self.after(world, "w2", "w3")
        world.runs("w1", "313", "313")
        assert groups(world.rollback("314").plan) == [["w2"], ["w3"]]

    def test_a_second_rollback_does_not_go_forward(self, world: World) -> None:
        for w in world.alluxio.workers:
            world.runs(w.name, "313", "313", "314")
        assert world.rollback("314").to is None

    def test_without_one_before(self, world: World) -> None:
        self.after(world, "w1", "w2")
        world.runs("w3", "314", None)
        with pytest.raises(PreflightFailed) as caught:
            world.rollback("314")
        assert [p.where for p in caught.value.problems] == ["w3 at w3"]

    def test_two_of_them(self, world: World) -> None:
        self.after(world, "w1", "w2")
        world.runs("w3", "314", "312", "313")
        with pytest.raises(PreflightFailed) as caught:
            world.rollback("314")
        assert "w1, w2 ran 313; w3 ran 312" in caught.value.problems[0].what
        assert world.rollback("314", to="313").to == "313"

    def test_one_that_was_deleted(self, world: World) -> None:
        self.after(world, "w1", "w2", "w3")
        with pytest.raises(PreflightFailed) as caught:
            world.rollback("314", to="312")
        assert [p.what for p in caught.value.problems] == [
            "release 312 is not in /opt/alluxio (there: 314, 313)"
        ] * 3

    def test_another_build_of_it(self, world: World) -> None:
        self.after(world, "w1", "w2", "w3")
        world.change("w3", commands={"releases": f"1 {'b' * 64} 313", readiness.LABEL: READY})
        with pytest.raises(PreflightFailed) as caught:
            world.rollback("314")
        assert "not the same build on w1 and w3" in caught.value.problems[0].what


def test_hostile_lists_of_releases() -> None:
    good = f"5 {'a' * 64} 313\n7 {'b' * 64} 314-rc.1\n"
    bad = [
        f"5 {'a' * 64} ../etc",
        f"x {'a' * 64} 313",
        "5 abc 313",
        f"5 {'a' * 64} a b",
        f"5 {'a' * 64} ",
    ]
    assert [r.name for r in upgrade_workers.parse(good + "\n".join(bad))] == ["314-rc.1", "313"]


@pytest.mark.parametrize(
    ("kept", "keep", "gone"),
    [
        (("5", "4"), 2, ["3", "2"]),
        (("5", "4"), 3, ["2"]),
        (("5", "2"), 2, ["4", "3"]),
        (("5", None), 2, ["3", "2"]),
        (("5", "4"), 9, []),
    ],
)
def test_what_is_surplus(kept: tuple[str | None, ...], keep: int, gone: list[str]) -> None:
    there = [upgrade_workers.Release(str(n), "", n) for n in (5, 4, 3, 2)]
    assert upgrade_workers.surplus(there, kept, keep) == gone


ARTIFACTS = Artifacts(TARBALL, None)
