"""restore-etcd and recover-etcd: who has lost the registration, and how many restart at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.worker import desired
from provision.errors import PreflightFailed
from provision.etcd.api.values import LeaseTime
from provision.host.facts import HostFacts
from provision.inventory.resolved import AlluxioWorker, Machine
from provision.plans.alluxio import reregister_workers
from tests.unit import clock, fake_etcd, hosts
from tests.unit import test_forget_plan as forgetting
from tests.unit import test_moved as moving
from tests.unit.test_forget_plan import ALLUXIO, LOGIN, UUIDS, World, do
from tests.unit.test_reregister import Restored
from tests.unit.test_rolling import groups

OWN = {name: desired.worker_id(uuid) for name, uuid in UUIDS.items()}
W1, W2 = ALLUXIO.workers


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> clock.Clock:
    return clock.install(monkeypatch)


def facts(*workers: AlluxioWorker) -> dict[Machine, HostFacts]:
    """Of hosts with their worker's identity file."""
    path = desired.identity_file(ALLUXIO)
    return {
        w.machine: hosts.facts(n, paths={path: hosts.text(UUIDS[w.name])})
        for n, w in enumerate(workers, 1)
    }


def keep(world: World, now: clock.Clock, times: Callable[[float], Mapping[int, int]]) -> None:
    """Each lease's whole seconds that are left, by the seconds since now."""
    begun = now.time

    def before(_: str) -> None:
        left = times(now.time - begun)
        world.etcd.times = {lease: LeaseTime(seconds, 120) for lease, seconds in left.items()}

    world.etcd.before = before


def lost(world: World, known: Mapping[Machine, HostFacts], **changed: Any) -> list[str]:
    alluxio = replace(ALLUXIO, **changed)
    found = reregister_workers.lost(alluxio, world.handle, alluxio.workers, known)
    return [w.name for w in found]


class TestWhoseLease:
    """w1's own lease 7 ends; lease 8, which another process keeps alive, does not."""

    @pytest.fixture(autouse=True)
    def leases(self, world: World, now: clock.Clock) -> None:
        keep(world, now, lambda passed: {7: int(100 - passed), 8: int(100 - passed % 5)})
        world.live(OWN["w2"], "w2", 8)

    def test_a_worker_is_known_by_its_identity_wherever_it_has_registered(
        self, world: World
    ) -> None:
        """At its address another worker is alive, as on a host that was set up anew."""
        world.live(OWN["w1"], "elsewhere", 7)
        world.live("other", "w1", 8)
        assert lost(world, facts(W1, W2)) == ["w1"]

    def test_the_identity_decides_the_other_way_round_too(self, world: World) -> None:
        world.live(OWN["w1"], "elsewhere", 8)
        world.live("other", "w1", 7)
        assert lost(world, facts(W1, W2)) == []

    def test_a_host_that_did_not_answer_is_known_by_its_address(self, world: World) -> None:
        world.live("unknown", "w1", 7)
        assert lost(world, facts(W2)) == ["w1"]
        world.live("unknown", "w1", 8)
        assert lost(world, {}) == []

    def test_an_identity_without_a_live_key_is_looked_for_by_address(self, world: World) -> None:
        """Its identity file was replaced while it ran: the process has registered the old one."""
        world.live("before", "w1", 8)
        assert lost(world, facts(W1, W2)) == []


def test_a_leader_that_changes_late_does_not_end_the_look(world: World, now: clock.Clock) -> None:
    """Under the new leader it takes as long as under the first to see that no keepalive comes."""
    begun = now.time
    world.live(OWN["w1"], "w1", 7)

    def before(_: str) -> None:
        passed = now.time - begun
        elected = 30 * (passed // 30) if passed < 101 else 101
        world.etcd.statuses = [fake_etcd.changed(raft_term=int(2 + elected))]
        world.etcd.times = {7: LeaseTime(int(120 - (passed - elected)), 120)}

    world.etcd.before = before
    found = reregister_workers.lost(ALLUXIO, world.handle, [W1], facts(W1))
    assert [w.name for w in found] == ["w1"]
    assert now.time - begun == pytest.approx(101 + 41.5, abs=1.5)


def test_a_short_lease_is_looked_at_several_times_before_it_counts_as_lost(
    world: World, now: clock.Clock
) -> None:
    """With few seconds to live, one look a second could meet the same moment of each keepalive."""
    world.live(OWN["w1"], "w1", 7)
    world.live(OWN["w2"], "w2", 8)
    keep(world, now, lambda passed: dict.fromkeys((7, 8), max(0, int(6 - passed))))
    assert lost(world, facts(W1, W2), failure_detection_timeout=6) == ["w1", "w2"]
    window = 6 / 3 + 1.5
    assert sum(now.slept) == pytest.approx(window, abs=0.5)
    assert len(now.slept) >= 8


class TestUnlisted:
    """Whom the next start would meet at another address than the entry's."""

    def unlisted(self, monkeypatch: pytest.MonkeyPatch, *live: Any) -> list[str]:
        world = moving.World(monkeypatch)
        world.seen = moving.registered(moving.entry(1, "old"), moving.entry(2, "w2"), live=live)
        found = reregister_workers.unlisted(
            world.alluxio, world.alluxio.workers, world.facts, world.seen
        )
        return [w.name for w in found]

    def test_who_is_not_live(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.unlisted(monkeypatch) == ["w1"]

    def test_who_lives_at_another_address_than_the_entrys(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.unlisted(monkeypatch, moving.entry(1, "w1", 7)) == ["w1"]

    def test_not_who_lives_where_the_entry_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its files were changed since its start; start-workers tells of that."""
        assert self.unlisted(monkeypatch, moving.entry(1, "old", 7)) == []


@pytest.mark.parametrize(("count", "sizes"), [(5, [1] * 5), (20, [2] * 10), (39, [3] * 13)])
def test_no_more_than_a_tenth_restarts_at_a_time(
    monkeypatch: pytest.MonkeyPatch, count: int, sizes: list[int]
) -> None:
    assert [len(some) for some in groups(Restored(monkeypatch, count).plan())] == sizes


class TestStale:
    def test_behind_an_id_that_lives_and_one_that_cannot_be_read(self, world: World) -> None:
        """``a`` lives and ``aa`` is unreadable: ``b``, of a host that is gone, goes."""
        world.live("a", "w1")
        world.etcd.put("/DHT/c/AUTHORIZED/aa", "not JSON")
        do(world.stale(1))
        assert world.authorized == {"a", "aa", "c"}

    def test_leases_are_asked_for_with_the_login_of_the_workers(self, world: World) -> None:
        """With authentication on, etcd answers no other client."""
        world.live("b", "gone")
        world.etcd.times = {7: forgetting.KEPT}
        with pytest.raises(PreflightFailed):
            world.forget("b")
        assert set(world.etcd.clients) == {("any", LOGIN)}
        assert len(world.etcd.clients) >= 2


def test_a_worker_is_registered_under_its_identity_whatever_address_it_has_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process at its address has an id of its own: it is not this worker."""
    world = Restored(monkeypatch, 3)
    world.gone = []
    world.live_keys = {"w1", "w2", "w3"}
    world.authorized["w1"], world.live_at = "old.example.com", "old.example.com"
    assert world.unregistered() == {}
    world.live_at = ""
    del world.authorized["w1"]
    world.authorized["w2"] = "w1"
    assert world.unregistered() == {"w1": ("error", "has no permanent key in etcd")}
