"""start-workers: a group waits for the groups before it, and each wait ends at its time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from provision.alluxio.commands import readiness
from provision.alluxio.membership import registrations
from provision.alluxio.worker import desired
from provision.alluxio.worker.desired import Artifacts
from provision.engine.plan import Plan
from provision.errors import Unhealthy
from provision.etcd.api.values import Login
from provision.etcd.cluster.handle import Etcd
from provision.host import gather
from provision.host.facts import HostFacts, Probe
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Machine
from provision.plans.alluxio import start_workers
from provision.ssh.session import Fleet
from tests.unit import builders, clock, fake_etcd, hosts
from tests.unit.hosts import TARBALL
from tests.unit.test_rolling import READY
from tests.unit.test_start_plan import Registry, cluster, plan, running
from tests.unit.test_worker_steps import Look

POLL = start_workers.POLL_SECONDS


class Time:
    """Waits on a clock of their own; ``later`` is done when the clock gets there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, alluxio: AlluxioCluster) -> None:
        looks = start_workers.READY_LOOK_SECONDS
        self.registry = Registry(monkeypatch, alluxio)
        monkeypatch.setattr(start_workers, "POLL_SECONDS", POLL)
        monkeypatch.setattr(start_workers, "READY_LOOK_SECONDS", looks)
        self._alluxio, self._clock = alluxio, clock.install(monkeypatch)
        self._began = self._clock.time
        monkeypatch.setattr("provision.plans.alluxio.start_workers.time.monotonic", self._clock.now)
        self.later: dict[float, Callable[[], object]] = {}
        #: systemd's count of the ends of each worker's process, by the seconds since the begin.
        self.ended: Callable[[float], Mapping[str, int]] = lambda now: {}
        #: When systemd was asked, and about whom.
        self.looked: list[tuple[float, list[str]]] = []
        #: When the listeners were asked.
        self.answered: list[float] = []
        ready, read = self.registry._ready, self.registry._read

        def attempts(_: Fleet, workers: Sequence[AlluxioWorker]) -> dict[str, int]:
            self.looked.append((self.now, [w.name for w in workers]))
            counts = self.ended(self.now)
            return {w.name: counts.get(w.name, 0) for w in workers}

        def look(*given: Any) -> Any:
            self.answered.append(self.now)
            return ready(*given)

        def seen(*given: Any) -> Any:
            for at in sorted(t for t in self.later if t <= self.now):
                self.later.pop(at)()
            return read(*given)

        monkeypatch.setattr(start_workers, "_failed_attempts", attempts)
        monkeypatch.setattr(readiness, "look", look)
        monkeypatch.setattr(registrations, "read", seen)

    @property
    def now(self) -> float:
        return self._clock.time - self._began

    def gone(self, name: str) -> None:
        del self.registry.revisions[name]

    def registers(self, name: str, revision: int) -> Callable[[], object]:
        return lambda: self.registry.revisions.update({name: revision})

    def require(self, patience: float = 0, **options: Any) -> None:
        handle = Etcd(builders.etcd(), Fleet(1))
        chosen = self._alluxio.workers
        start_workers.require_live(self._alluxio, handle, chosen, patience=patience, **options)

    def refused(self, patience: float = 0, **options: Any) -> str:
        with pytest.raises(Unhealthy) as caught:
            self.require(patience, **options)
        return caught.value.message


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch, cluster(2))


def restarting(count: int) -> Plan:
    """Each of ``count`` running workers gets another property, so each is restarted."""
    alluxio = cluster(count)
    changed = replace(
        alluxio, workers=tuple(w._replace(properties={"a.b": 1}) for w in alluxio.workers)
    )
    return plan(changed, running(alluxio))


class TestGroups:
    def test_the_next_group_begins_only_when_those_before_it_are_live(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        time = Time(monkeypatch, cluster(3))
        first, second, third = restarting(3).steps
        assert first.before
        assert second.before
        assert third.before
        time.gone("w01")
        first.before.check()  # nobody came before
        with pytest.raises(Unhealthy, match="1 of 1 worker is not live"):
            second.before.check()
        with pytest.raises(Unhealthy, match="1 of 2 workers is not live"):
            third.before.check()
        time.registers("w01", 11)()
        second.before.check()

    def test_who_lost_the_lease_after_its_restart_gets_the_time_of_a_lease(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its member of etcd was restarted, for example: it registers again by itself."""
        time = Time(monkeypatch, cluster(2))
        _, second = restarting(2).steps
        assert second.before
        time.gone("w01")
        time.later = {100.0: time.registers("w01", 11)}
        second.before.check()
        assert time.now == pytest.approx(100, abs=1)

    def test_a_worker_whose_old_lease_has_not_ended_gets_that_time_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Alluxio refuses to join while the old lease of a killed worker lives: 120 s by default,
        more than the 60 s of a start."""
        time = Time(monkeypatch, cluster(1))
        (step,) = restarting(1).steps
        assert step.before
        assert step.after
        step.before.check()
        time.later = {170.0: time.registers("w01", 11)}
        step.after.check()
        assert time.now == pytest.approx(170, abs=1)

    def test_without_an_old_lease_a_start_has_its_own_time_only(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        time = Time(monkeypatch, cluster(1))
        (step,) = restarting(1).steps
        assert step.before
        assert step.after
        time.gone("w01")
        step.before.check()
        with pytest.raises(Unhealthy, match="1 of 1 worker is not live after 60 s"):
            step.after.check()
        assert time.now == pytest.approx(60, abs=1)


class TestWait:
    def test_a_look_without_patience_says_no_time(self, time: Time) -> None:
        time.gone("w02")
        assert time.refused() == "1 of 2 workers is not live"
        assert time.now == 0

    def test_the_time_that_was_waited_is_said(self, time: Time) -> None:
        time.gone("w02")
        assert time.refused(30) == "1 of 2 workers is not live after 30 s"
        assert time.now == pytest.approx(30, abs=1)

    def test_systemd_is_asked_every_five_seconds_about_who_is_missing(self, time: Time) -> None:
        time.gone("w02")
        time.refused(18)
        assert time.looked == [(t, ["w02"]) for t in (5.0, 10.0, 15.0)] + [(18.0, ["w02"])]

    def test_a_crash_loop_ends_the_wait_as_soon_as_it_is_one(self, time: Time) -> None:
        """Three ends in the first ten seconds are not enough: systemd may still succeed."""
        time.gone("w02")
        time.ended = lambda now: {"w02": 5 + int(now // 2)}
        said = time.refused(3600)
        assert said == (
            "1 of 2 workers is not live: w02 ended by itself 8 times, and systemd's restarts do "
            "not help"
        )
        assert time.now == start_workers.CRASHES_SECONDS

    def test_at_the_end_of_the_wait_one_failed_attempt_is_said(self, time: Time) -> None:
        time.gone("w02")
        time.ended = lambda now: {"w02": int(now >= 12)}
        assert time.refused(13) == (
            "1 of 2 workers is not live after 13 s: w02 ended by itself once meanwhile"
        )


class TestReady:
    def test_who_has_just_begun_has_the_rest_of_its_time(
        self, time: Time, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[float, list[str]]] = []

        def rest(_: Fleet, alluxio: AlluxioCluster, workers: Sequence[AlluxioWorker]) -> int:
            asked.append((time.now, [w.name for w in workers]))
            return 20

        monkeypatch.setattr(start_workers, "_rest_of_start", rest)
        time.gone("w02")
        time.later[15] = time.registers("w02", 12)
        time.require(5, booting=True)
        assert asked == [(5, ["w02"])]
        assert 15 <= time.now < 16
        time.gone("w01")
        assert time.refused(5, booting=True).startswith("1 of 2 workers is not live after 25 s")
        # A gate of a step knows when its workers began.
        assert time.refused(5).startswith("1 of 2 workers is not live after 5 s")
        assert len(asked) == 2

    def test_listeners_are_asked_once_a_second_and_awaited(self, time: Time) -> None:
        time.registry.silent = {"w02": "nothing listens"}
        time.later = {3.5: time.registry.silent.clear}
        time.require(60, ready=True)
        assert time.answered == [0.0, 1.0, 2.0, 3.0, 4.0]

    def test_who_is_not_ready_in_time_is_named_with_the_time(self, time: Time) -> None:
        time.registry.silent = {"w02": "nothing listens"}
        assert time.refused(10, ready=True) == (
            "1 of 2 workers is registered, but not ready after 60 s"
        )
        assert time.now == pytest.approx(60, abs=1)

    def test_who_was_started_just_now_has_the_time_of_a_start_for_its_ports(
        self, time: Time
    ) -> None:
        """systemd may have started it. A real 313 needs 23 s and more between its join and its
        ports (class ``AlluxioWorkerProcess``), and failure_detection_timeout may be 5 s."""
        time.registry.silent = {"w02": "no answer in 5 s"}
        time.later = {50: time.registry.silent.clear}
        time.require(5, ready=True)
        assert time.now == pytest.approx(50, abs=2)

    def test_a_look_without_patience_says_no_time(self, time: Time) -> None:
        time.registry.silent = {"w02": "nothing listens"}
        assert time.refused(ready=True) == "1 of 2 workers is registered, but not ready"

    def test_whose_listeners_have_just_answered_is_not_asked_again(self, time: Time) -> None:
        time.require(60, ready=True, known={"w01", "w02"})
        assert time.answered == []
        time.require(60, ready=True, known={"w01"})
        assert time.registry.asked == [["w02"]]

    def test_an_answer_from_before_a_wait_for_the_lease_does_not_count(self, time: Time) -> None:
        time.gone("w02")
        time.later = {5: time.registers("w02", 11)}
        time.registry.silent = {"w01": "nothing listens"}
        assert time.refused(10, ready=True, known={"w01", "w02"}).startswith("1 of 2 workers is")
        assert time.registry.asked[0] == ["w01", "w02"]


def test_the_live_keys_are_read_with_the_login_of_the_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With authentication on, only that login may read them."""
    login = Login("alluxio", "secret")
    monkeypatch.setattr(desired, "login", lambda alluxio: login)
    etcd = fake_etcd.install(monkeypatch)
    alluxio = cluster(1)
    assert start_workers.live(alluxio, Etcd(builders.etcd(), Fleet(1)), alluxio.workers) == {}
    assert etcd.clients == [("any", login)]


@pytest.mark.parametrize("given", [None, Artifacts(TARBALL, None)])
def test_each_host_is_asked_for_all_that_a_worker_needs(
    monkeypatch: pytest.MonkeyPatch, given: Artifacts | None
) -> None:
    """A plan from fewer facts would install a second time what is there."""
    look = Look(monkeypatch)
    asked: dict[Machine, Probe] = {}

    def gathered(_: Fleet, probes: Mapping[Machine, Probe]) -> tuple[dict[Machine, HostFacts], Any]:
        asked.update(probes)
        return {m: hosts.facts(1) for m in probes}, []

    monkeypatch.setattr(gather, "gather_facts", gathered)
    look.observe(given)
    alluxio = builders.alluxio()
    for w in alluxio.workers:
        wanted = desired.probe(alluxio, w, Artifacts(TARBALL, None))
        assert asked[w.machine].units == wanted.units
        assert len(asked[w.machine].resources) == len(wanted.resources) > 0


def test_the_first_look_asks_the_listeners_where_this_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look = Look(monkeypatch)
    alluxio, asked = builders.alluxio(), []
    one = alluxio.workers[0]

    def gathered(_: Fleet, probes: Mapping[Machine, Probe]) -> tuple[dict[Machine, HostFacts], Any]:
        asked.append({m: set(probe.commands) for m, probe in probes.items()})
        says = {one.machine: {readiness.LABEL: READY}}
        return {m: hosts.facts(1, commands=says.get(m, {})) for m in probes}, []

    monkeypatch.setattr(gather, "gather_facts", gathered)
    assert look.observe().ready == frozenset()
    assert look.observe(ready=True).ready == {one.name}
    without, wanted = asked
    for w in alluxio.workers:
        own = readiness.probes(alluxio, [w])[w.machine]
        assert wanted[w.machine] == without[w.machine] | set(own.commands)
        assert readiness.LABEL not in without[w.machine]
