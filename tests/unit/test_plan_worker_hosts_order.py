"""Every chosen host is looked at whole: one that is away ends no look at the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.worker import desired, java
from provision.alluxio.worker.desired import MASTER_UNIT_PATH, Artifacts
from provision.artifacts import Artifact
from provision.errors import Problem, Unhealthy
from provision.host import disks, fitness
from provision.host.facts import HostFacts, Listener
from provision.host.predict import after
from provision.inventory.model import Java, Source
from provision.plans.alluxio import masters, start_workers, worker_preflight
from provision.ssh.session import Fleet
from provision.tar_reader import Seen
from tests.unit import builders, hosts
from tests.unit.hosts import TARBALL
from tests.unit.test_decommission import Run, decommission, installed, snapshot
from tests.unit.test_master_gates import ARTIFACTS, Look, World, cluster, world
from tests.unit.test_stop import World as Everything

__all__ = ["decommission", "world"]


class TestWorkers:
    def problems(self, *seen: HostFacts | None, jdk: Artifact | None = None) -> list[Problem]:
        workers = [builders.worker(f"w{n}") for n in range(1, len(seen) + 1)]
        source = Source(path=Path("jdk.tar.gz"), sha256="0" * 64)
        alluxio = builders.alluxio(*workers, java=Java(source=source) if jdk else Java())
        known = {w.machine: f for w, f in zip(workers, seen, strict=True) if f is not None}
        return worker_preflight.workers(alluxio, workers, Artifacts(TARBALL, jdk), known)

    def test_behind_a_host_that_is_away(self) -> None:
        taken = hosts.facts(2, listeners={29999: Listener(29999, 5, "nginx")})
        assert [p.where.split()[0] for p in self.problems(None, taken)] == ["w2"]

    def test_the_problems_of_all_hosts_are_named_at_once(self) -> None:
        def bad(number: int) -> HostFacts:
            return hosts.facts(
                number,
                listeners={29999: Listener(29999, 5, "nginx")},
                commands={"java": 'openjdk version "17.0.9"'},
            )

        found = self.problems(bad(1), hosts.facts(2), bad(3))
        assert [(p.where.split()[0], p.id) for p in found] == [
            ("w1", "port-taken"),
            ("w1", "java-unfit"),
            ("w3", "port-taken"),
            ("w3", "java-unfit"),
        ]

    def test_the_jdk_that_will_be_unpacked_counts_not_that_of_the_host(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The host has Java 11 on its PATH; the declared tarball holds 17."""
        monkeypatch.setattr(java, "tarball_major", lambda _: 17)
        jdk = Artifact(Path("jdk.tar.gz"), "b" * 64, 1 << 20)
        without = hosts.facts(1, commands={})
        assert [p.id for p in self.problems(without, jdk=jdk)] == ["java-unfit"]
        assert "Java is 17" in self.problems(without, jdk=jdk)[0].what
        monkeypatch.setattr(java, "tarball_major", lambda _: 11)
        assert self.problems(without, jdk=jdk) == []

    def test_a_disk_without_room_for_the_release_is_named_before_anything_is_sent(self) -> None:
        alluxio = builders.alluxio(builders.worker("w1"))
        (worker,) = alluxio.workers
        tarballs = Artifacts(TARBALL, None, hosts.RELEASE)
        probes = {worker.machine: desired.probe(alluxio, worker, tarballs)}

        def problems(available: int) -> list[str]:
            disks_ = {p: hosts.disk(p, available) for p in probes[worker.machine].disks or ()}
            facts = {worker.machine: hosts.facts(1, disks=disks_)}
            with Fleet(1) as fleet:
                found = start_workers.host_problems(
                    alluxio, [worker], tarballs, fleet, probes, facts
                )
            return [p.id for p in found]

        assert problems(1 << 20) == ["disk-full"]
        assert problems(10 << 30) == []

    def test_the_tarballs_are_held_against_the_hosts_processors(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held: list[object] = []

        def problems(*_: object, tarballs: list[object], **__: object) -> list[Problem]:
            held.append(tarballs)
            return []

        monkeypatch.setattr(fitness, "problems", problems)
        jdk = Artifact(Path("jdk.tar.gz"), "b" * 64, 1 << 20)
        some = Artifacts(TARBALL, jdk, hosts.RELEASE)
        monkeypatch.setattr(java, "tarball_major", lambda _: 11)
        alluxio = builders.alluxio(builders.worker("w1"))
        with Fleet(1) as fleet:
            for tarballs in (some, None):
                start_workers.host_problems(alluxio, alluxio.workers, tarballs, fleet, {}, {})
        assert held == [[TARBALL, jdk], []]


def test_the_plan_of_a_decommission_says_which_service_ends(decommission: Run) -> None:
    plan, _ = decommission(installed(), snapshot(["w1"], ["w1"]))
    (change,) = plan.steps[0].hosts[0].changes
    assert change.stops == (desired.UNIT,)


class TestStop:
    @pytest.fixture
    def everything(self, monkeypatch: pytest.MonkeyPatch) -> Everything:
        return Everything(monkeypatch)

    def test_whose_unit_it_is_and_whether_it_runs_is_asked_of_each_host(
        self, everything: Everything
    ) -> None:
        everything.stop()
        assert {m.host for m in everything.looked} == {"w1", "w2"}
        for probe in everything.looked.values():
            assert [getattr(r, "path", "") for r in probe.resources] == [desired.UNIT_PATH]
            assert list(probe.units) == [desired.UNIT]

    def test_no_more_hosts_at_once_than_the_inventory_allows(self, everything: Everything) -> None:
        (step,) = everything.stop().steps
        assert (step.at_once, len(step.hosts)) == (everything.inventory.parallel, 2)


class TestMasters:
    def test_what_is_odd_on_the_hosts_is_said_with_the_plan(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is no reason to refuse, so the plan is the only place where the operator reads it."""
        look = Look(world, monkeypatch)
        for name in look.facts:
            look.change(name, clock_offset=99.0)
        seen = look.observe("m0", "m1", "m2")
        inventory = builders.inventory(world.alluxio)
        chosen = world.alluxio.masters
        found = masters.plan(inventory, world.alluxio, world.fleet, seen, chosen)
        assert [(n.where, n.id) for n in found.notes] == [("this machine", "clock-skew")]

    def test_a_look_without_a_time_does_not_wait(self, world: World) -> None:
        world.silent = {"m1"}
        with pytest.raises(Unhealthy):
            world.require()
        assert world.clock.slept == []

    def test_a_second_run_changes_nothing_where_the_journal_has_a_disk_of_its_own(self) -> None:
        """The unit names that disk, so that no second journal begins without it."""
        alluxio = cluster(1)
        (master,) = alluxio.masters
        journal = "/var/lib/alluxio/journal"
        disk = replace(hosts.disk(journal, 1 << 30), mount="/var/lib/alluxio")
        bare = hosts.facts(1, disks={journal: disk})
        seen = after(masters.resources(alluxio, master, ARTIFACTS, bare), bare)
        assert disks.noted(seen.text(MASTER_UNIT_PATH)) == {journal: "/var/lib/alluxio"}
        inventory = builders.inventory(alluxio)
        with Fleet(1) as fleet:
            for known, count in ((bare, 1), (seen, 0)):
                observed = masters.MastersObserved(ARTIFACTS, {master.machine: known})
                found = masters.plan(inventory, alluxio, fleet, observed, [master])
                assert len(found.steps) == count


def test_a_tarball_that_is_no_jdk_is_refused_whoever_has_the_release() -> None:
    """rollback-workers has the release on the hosts, and the JDK from a tarball."""
    seen = Seen()
    jdk = Artifact(Path("jdk.tar.gz"), "b" * 64, 1 << 20, seen)
    alluxio = builders.alluxio(builders.worker("w1"))
    for release in (hosts.RELEASE, None):
        found = worker_preflight.release(alluxio, Artifacts(TARBALL, jdk, release), {})
        assert "is not a JDK" in " ".join(p.what for p in found)
