"""The gates of masters, who is started or stopped in which order, and what is looked at before."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from provision.alluxio.worker import desired, journal
from provision.alluxio.worker.desired import MASTER_UNIT, MASTER_UNIT_PATH, Artifacts
from provision.alluxio.worker.journal import Journal
from provision.engine.plan import Gate
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.host import fitness, gather, safely
from provision.host.facts import HostFacts, Probe, UnitState
from provision.host.ownership import KEY
from provision.host.resources import MARKER
from provision.inventory.resolved import AlluxioCluster, AlluxioMaster, Machine
from provision.plans.alluxio import masters, start_workers
from provision.ssh.session import Fleet
from tests.unit import builders, clock, hosts
from tests.unit.hosts import TARBALL
from tests.unit.test_masters import plan, running

MASTERS = tuple(builders.master(f"m{n}") for n in range(5))
ARTIFACTS = Artifacts(TARBALL, None, hosts.RELEASE)


def cluster(count: int) -> AlluxioCluster:
    return builders.alluxio(masters=MASTERS[:count])


class World:
    """Masters by what can be seen of them from outside."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int = 3) -> None:
        self.alluxio = cluster(count)
        self.silent: set[str] = set()
        self.primary: str | None = "m0"
        self.outside: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.clock = clock.install(monkeypatch)
        self.fleet = Fleet(1)
        self.later: dict[float, Mapping[str, Any]] = {}
        monkeypatch.setattr(masters, "listens", self._listens)
        monkeypatch.setattr(masters, "is_primary", self._is_primary)
        monkeypatch.setattr(start_workers, "last_lines", self._last_lines)
        monkeypatch.setattr(self.fleet, "map", self._map)

    def _now(self) -> None:
        for at, changed in self.later.items():
            if self.clock.time >= 1000.0 + at:
                for name, value in changed.items():
                    setattr(self, name, value)

    def _listens(self, fleet: Fleet, alluxio: AlluxioCluster, m: AlluxioMaster) -> bool:
        assert (fleet, alluxio) == (self.fleet, self.alluxio)
        self._now()
        self.asked.append(("listens", m.name))
        return m.name not in self.silent

    def _is_primary(self, fleet: Fleet, alluxio: AlluxioCluster, m: AlluxioMaster) -> bool:
        assert (fleet, alluxio) == (self.fleet, self.alluxio)
        self._now()
        return m.name == self.primary

    def _last_lines(
        self, fleet: Fleet, machines: Sequence[Machine], *, unit: str
    ) -> dict[Machine, str]:
        assert (fleet, unit) == (self.fleet, MASTER_UNIT)
        return {m: f"log of {m.host}" for m in machines}

    def _map(self, work: Any, machines: Sequence[Machine]) -> dict[Machine, Any]:
        world = self

        class Session:
            def __init__(self, machine: Machine) -> None:
                self.machine = machine

            def run(self, command: str, what: str, *, timeout: float) -> Any:
                assert timeout > 0
                master = next(m for m in MASTERS if m.machine == self.machine)
                commands = journal.probe_commands(world.alluxio, master)
                assert command == f"{safely.FUNCTIONS}\n{commands[journal.LABEL]}"
                world.asked.append(("journal", master.name))
                inside = master.name not in world.outside
                return type("R", (), {"stdout": "in" if inside else "out"})

        return {m: work(Session(m)) for m in machines}

    def require(self, names: Collection[str] = ("m0", "m1", "m2"), seconds: float = 0) -> None:
        chosen = [m for m in self.alluxio.masters if m.name in names]
        given = (seconds,) if seconds else ()
        masters.require_healthy(self.fleet, self.alluxio, chosen, *given)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    def read(text: str) -> Journal:
        peers = frozenset(f"m{n}:19200" for n in range(3)) if text == "in" else frozenset()
        return Journal(bool(peers), peers)

    monkeypatch.setattr(journal, "read", read)
    return World(monkeypatch)


class TestHealthy:
    def test_all_listen_one_is_the_primary_and_all_are_in_the_group(self, world: World) -> None:
        world.require()
        assert sorted(world.asked) == sorted(
            (what, m.name) for what in ("listens", "journal") for m in MASTERS[:3]
        )
        assert world.clock.slept == []

    def test_only_the_chosen_are_asked(self, world: World) -> None:
        world.silent, world.outside = {"m1"}, {"m1"}
        world.require(["m0", "m2"])

    def test_who_does_not_listen_is_named_with_its_log(self, world: World) -> None:
        world.silent = {"m1", "m2"}
        with pytest.raises(Unhealthy, match="2 of 3 masters are not healthy") as refused:
            world.require()
        assert refused.value.id == "master-not-answering"
        assert [(p.where, p.what) for p in refused.value.problems] == [
            (f"{n} at {n}", f"does not answer; its last log lines:\n    log of {n}")
            for n in ("m1", "m2")
        ]
        assert ("journal", "m0") not in world.asked

    def test_without_a_primary_nobody_is_healthy(self, world: World) -> None:
        world.primary = None
        with pytest.raises(Unhealthy, match="no primary") as refused:
            world.require()
        (problem,) = refused.value.problems
        assert "none of 3 masters" in problem.what
        assert "an election needs 2" in problem.what

    def test_who_is_not_in_the_group_is_no_help_in_an_election(self, world: World) -> None:
        world.outside = {"m2"}
        with pytest.raises(Unhealthy, match="1 of 3") as refused:
            world.require()
        (problem,) = refused.value.problems
        assert problem.where == "m2 at m2"
        assert problem.what.startswith("has not joined the others' journal")

    def test_without_a_journal_there_is_no_group(self, world: World) -> None:
        world.alluxio = replace(world.alluxio, properties={"alluxio.master.journal.type": "NOOP"})
        world.outside = {"m0", "m1", "m2"}
        world.require()

    def test_it_is_awaited_for_so_long(self, world: World) -> None:
        world.silent, world.primary, world.outside = {"m1"}, None, {"m2"}
        world.later = {2: {"silent": set()}, 4: {"primary": "m2"}, 6: {"outside": set()}}
        world.require(seconds=60)
        assert 6 <= sum(world.clock.slept) < 8
        assert set(world.clock.slept) == {start_workers.POLL_SECONDS}
        # Who has listened once, or was in the group, is not asked again.
        assert world.asked.count(("listens", "m0")) == 1
        assert world.asked.count(("journal", "m0")) == 1

    def test_and_no_longer(self, world: World) -> None:
        world.outside = {"m2"}
        with pytest.raises(Unhealthy, match="1 of 3"):
            world.require(seconds=5)
        assert sum(world.clock.slept) == pytest.approx(5, abs=1)

    def test_the_gate_after_a_start_waits_as_long_as_a_start_may_take(self, world: World) -> None:
        gate = masters._healthy(world.alluxio, world.fleet, world.alluxio.masters)
        world.silent = {"m1"}
        world.later = {world.alluxio.start_timeout - 5: {"silent": set()}}
        gate.check()
        assert sum(world.clock.slept) >= world.alluxio.start_timeout - 5


class TestCanMiss:
    """The gate before the restart of a master."""

    def check(self, world: World, *names: str) -> None:
        chosen = [m for m in world.alluxio.masters if m.name in names]
        gate = masters._can_miss(world.alluxio, world.fleet, chosen)
        assert isinstance(gate, Gate)
        gate.check()

    @pytest.mark.parametrize(
        ("count", "away", "refused"),
        [
            (3, [], False),
            (3, ["m2"], True),
            (5, ["m2"], False),
            (5, ["m2", "m3"], True),
            (4, [], False),
            (4, ["m3"], True),
            (1, [], False),
            (2, ["m1"], False),  # of two, each restart is an outage
        ],
    )
    def test_a_majority_must_be_left(
        self, world: World, count: int, away: list[str], refused: bool
    ) -> None:
        world.alluxio = cluster(count)
        world.silent = set(away)
        if not refused:
            self.check(world, "m0")
            return
        with pytest.raises(Unhealthy, match="m0 is not restarted") as error:
            self.check(world, "m0")
        assert error.value.id == "master-no-primary"
        assert ", ".join(away) in error.value.problems[0].what

    def test_the_restarted_one_itself_may_be_silent(self, world: World) -> None:
        world.silent = {"m0"}
        self.check(world, "m0")
        assert ("listens", "m0") not in world.asked

    def test_without_a_primary_there_is_nothing_to_lose(self, world: World) -> None:
        world.primary, world.silent = None, {"m1", "m2"}
        self.check(world, "m0")


class TestPlan:
    def test_gates_and_hosts_of_each_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            masters, "_can_miss", lambda a, f, some: Gate(f"miss {names(some)}", lambda: None)
        )
        monkeypatch.setattr(
            masters, "_healthy", lambda a, f, some: Gate(f"healthy {names(some)}", lambda: None)
        )
        alluxio = cluster(3)
        seen = running(alluxio)
        seen["m1"] = hosts.facts(9)
        found = plan(replace(alluxio, master_heap="8g"), seen, primary="m0")
        assert [
            (s.title, s.before and s.before.title, s.after and s.after.title) for s in found.steps
        ] == [
            ("install and start masters", None, "healthy m1"),
            ("restart m2", "miss m2", "healthy m2"),
            ("restart m0", "miss m0", "healthy m0"),
        ]
        assert [[h.name for h in s.hosts] for s in found.steps] == [["m1"], ["m2"], ["m0"]]
        assert [[h.machine.host for h in s.hosts] for s in found.steps] == [["m1"], ["m2"], ["m0"]]
        assert all(h.changes for s in found.steps for h in s.hosts)
        assert {s.at_once for s in found.steps} == {builders.inventory().parallel}
        assert (found.command, found.cluster) == ("start-masters", "c")

    def test_a_newer_release_is_left(self) -> None:
        alluxio = cluster(3)
        seen = running(replace(alluxio, version="314"))
        found = plan(alluxio, seen)
        assert found.steps == ()
        assert len(found.left) == 3


def names(some: Sequence[AlluxioMaster]) -> str:
    return "+".join(m.name for m in some)


class TestStop:
    def stop(
        self,
        monkeypatch: pytest.MonkeyPatch,
        units: Mapping[str, UnitState],
        owners: Mapping[str, str],
    ) -> Any:
        alluxio = cluster(3)
        asked: list[dict[Machine, Probe]] = []

        def gathered(_: Fleet, probes: dict[Machine, Probe]) -> dict[Machine, HostFacts]:
            asked.append(probes)
            return {
                m: hosts.facts(
                    1,
                    units={MASTER_UNIT: units[m.host]},
                    paths={
                        MASTER_UNIT_PATH: hosts.text(f"[Unit]\n{KEY}={owners.get(m.host, 'c')}\n")
                    },
                )
                for m in probes
            }

        monkeypatch.setattr(gather, "require_facts", gathered)
        with Fleet(1) as fleet:
            inventory = builders.inventory(alluxio)
            found = masters.stop(inventory, alluxio, fleet, alluxio.masters)
        (probes,) = asked
        assert all(p.units == (MASTER_UNIT,) and len(p.resources) == 1 for p in probes.values())
        return found

    UP = UnitState("loaded", "active", "running", "enabled")

    def test_those_that_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        units = {
            "m0": self.UP,
            "m1": replace(self.UP, active="inactive"),
            "m2": replace(self.UP, active="activating"),
        }
        found = self.stop(monkeypatch, units, {})
        (step,) = found.steps
        assert [(h.name, h.machine.host) for h in step.hosts] == [("m0", "m0"), ("m2", "m2")]
        assert all(f"stop {MASTER_UNIT}" in h.changes[0].script for h in step.hosts)
        assert step.at_once == builders.inventory().parallel
        assert (found.command, found.cluster) == ("stop-masters", "c")
        down = {n: replace(self.UP, active="failed") for n in units}
        assert self.stop(monkeypatch, down, {}).steps == ()

    def test_one_of_another_cluster_ends_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        units = dict.fromkeys(("m0", "m1", "m2"), self.UP)
        with pytest.raises(PreflightFailed) as refused:
            self.stop(monkeypatch, units, {"m1": "other", "m2": "third"})
        assert [p.where.split()[0] for p in refused.value.problems] == ["m1", "m2"]


class TestObserve:
    @pytest.fixture
    def look(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Look:
        return Look(world, monkeypatch)

    def test_the_chosen_are_looked_at_and_of_the_others_the_journal(self, look: Look) -> None:
        found = look.observe("m0")
        (asked,) = look.asked
        assert {m.host for m in asked} == {"m0", "m1", "m2"}
        assert [m.host for m, p in asked.items() if p.resources] == ["m0"]
        assert all(journal.LABEL in p.commands for p in asked.values())
        assert {m.host for m in found.facts} == {"m0"}
        assert (found.primary, found.artifacts) == ("m0", ARTIFACTS)

    def test_the_tarballs_are_held_against_the_hosts_processors(
        self, look: Look, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held: list[object] = []

        def problems(*_: object, tarballs: list[object], **__: object) -> list[Problem]:
            held.append(tarballs)
            return []

        monkeypatch.setattr(fitness, "problems", problems)
        look.observe("m0")
        gone = Problem("the tarball", "is not there", id="preflight-failed")
        look.tarballs = PreflightFailed("no tarball", [gone], id="preflight-failed")
        with pytest.raises(PreflightFailed):
            look.observe("m0")
        assert held == [[ARTIFACTS.alluxio, ARTIFACTS.jdk], []]

    def test_a_chosen_host_that_is_away_ends_it_another_does_not(self, look: Look) -> None:
        look.away = {"m2"}
        look.observe("m0", "m1")
        assert look.refused("m0", "m2") == [("m2", "host-unreachable")]

    def test_every_problem_is_named_at_once(self, look: Look, monkeypatch: Any) -> None:
        missing = Problem("alluxio.source", "no file", id="tarball-unavailable")
        look.tarballs = PreflightFailed("no tarball", [missing], id="tarball-unavailable")
        look.change("m0", values={**hosts.facts(1).values, "uid": "7"})
        assert look.refused("m0") == [
            ("alluxio.source", "tarball-unavailable"),
            ("m0", "root-needed"),
        ]

    def test_a_journal_that_could_be_outvoted_is_refused(self, look: Look) -> None:
        look.journals = {"m2": "in"}
        found = look.refused("m0", "m1")
        assert [id for _, id in found] == ["journal-outvoted"]
        look.observe("m0")  # one alone, beside a primary
        look.world.primary = None
        assert [id for _, id in look.refused("m0")] == ["journal-outvoted"]

    def test_a_journal_that_nobody_could_look_at_is_no_missing_one(self, look: Look) -> None:
        look.journals, look.away = {"m1": "in"}, {"m2"}
        assert [id for _, id in look.refused("m0")] == ["journal-outvoted"]

    def test_a_disk_without_room_for_the_release_ends_it(self, look: Look) -> None:
        full = {p: hosts.disk(p, 1 << 20) for p in hosts.FOLDERS}
        look.change("m1", disks=full)
        assert look.refused("m0", "m1") == [("m1", "disk-full")]
        look.observe("m0", "m2")
        # A release that is there needs none.
        marker = f"{desired.home(look.world.alluxio)}/{MARKER}"
        look.change("m1", paths={marker: hosts.text(f"{TARBALL.sha256}\n")})
        look.observe("m0", "m1")

    def test_the_host_of_a_chosen_master_is_as_it_must_be(self, look: Look) -> None:
        look.change("m1", unreachable={("m2", 19200): "refused"})
        assert [id for _, id in look.refused("m0", "m1")] == ["listener-unreachable"]
        look.observe("m0")


class Look:
    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.away: set[str] = set()
        self.journals: Mapping[str, str] = dict.fromkeys(("m0", "m1", "m2"), "in")
        self.tarballs: Artifacts | Exception = ARTIFACTS
        self.asked: list[dict[Machine, Probe]] = []
        self.facts = {
            m.name: hosts.facts(n, commands={"java": 'openjdk version "11.0.20" 2023-07-18'})
            for n, m in enumerate(MASTERS[:3], 1)
        }
        monkeypatch.setattr(gather, "gather_facts", self._gather)
        monkeypatch.setattr(start_workers, "fetch", self._fetch)

    def change(self, name: str, **changed: Any) -> None:
        self.facts[name] = replace(self.facts[name], **changed)

    def _fetch(self, alluxio: AlluxioCluster, *, unread: bool = False) -> Artifacts:
        if isinstance(self.tarballs, Exception):
            raise self.tarballs
        return self.tarballs

    def _gather(
        self, fleet: Fleet, probes: dict[Machine, Probe]
    ) -> tuple[dict[Machine, HostFacts], list[Problem]]:
        assert fleet is self.world.fleet
        self.asked.append(probes)
        found = {
            m: replace(
                self.facts[m.host],
                commands={
                    **self.facts[m.host].commands,
                    journal.LABEL: self.journals.get(m.host, ""),
                },
            )
            for m in probes
            if m.host not in self.away
        }
        away = [
            Problem(m.place, "no route", id="host-unreachable")
            for m in probes
            if m.host in self.away
        ]
        return found, away

    def observe(self, *chosen: str) -> masters.MastersObserved:
        some = [m for m in self.world.alluxio.masters if m.name in chosen]
        return masters.observe(self.world.alluxio, self.world.fleet, some)

    def refused(self, *chosen: str) -> list[tuple[str, str]]:
        with pytest.raises(PreflightFailed) as refused:
            self.observe(*chosen)
        return [(p.where, p.id) for p in refused.value.problems]
