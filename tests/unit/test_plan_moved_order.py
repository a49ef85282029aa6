"""Workers at another address, and workers that are told of new endpoints: all of them, one by one.

Each test has a worker that needs nothing beside one that does, in the inventory's order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from provision.alluxio.membership import leases, registrations
from provision.alluxio.membership.registrations import Entry, UnknownRegistration
from provision.alluxio.worker.desired import Artifacts
from provision.alluxio.worker.tarball import Contents
from provision.engine.plan import Plan
from provision.errors import Problem, Unhealthy
from provision.etcd.api.values import LeaseTime
from provision.etcd.cluster.handle import Etcd
from provision.host import gather
from provision.inventory import worker_address
from provision.inventory.resolved import AlluxioWorker
from provision.plans.alluxio import endpoints, forget_worker, moved, start_workers
from provision.ssh.session import Fleet
from tests.unit import builders, clock, fake_etcd
from tests.unit.hosts import RELEASE, TARBALL, text
from tests.unit.test_moved import FILE, UUIDS, WEB, World, changed, entry, registered


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def both_move(world: World) -> Any:
    return changed(changed(world.alluxio, "w1", properties=WEB), "w2", properties=WEB)


class TestFound:
    def test_behind_a_worker_without_an_identity(self, world: World) -> None:
        machine = world.machine("w1")
        paths = {p: s for p, s in world.facts[machine].paths.items() if p != FILE}
        world.facts[machine] = replace(world.facts[machine], paths=paths)
        assert [m.worker.name for m in world.found(both_move(world))] == ["w2"]

    def test_behind_a_worker_that_no_entry_names(self, world: World) -> None:
        world.seen = registered(entry(2, "w2"))
        assert [m.worker.name for m in world.found(both_move(world))] == ["w2"]

    def test_behind_a_worker_whose_entry_cannot_be_read(self, world: World) -> None:
        first, second = entry(1, "w1"), entry(2, "w2")
        unread = Entry(first.key, UnknownRegistration(first.registration.worker_id, "?"))
        world.seen = registered(unread, second)
        assert [m.worker.name for m in world.found(both_move(world))] == ["w2"]


@pytest.mark.parametrize(
    ("live", "refused"),
    [
        ((), False),
        ((entry(1, "old", 7),), False),
        # It has made a lease of its own since the restored data were written.
        ((entry(1, "w1", 7),), True),
    ],
)
def test_an_entry_is_outdated_when_the_worker_lives_at_another_address(
    world: World, live: tuple[Entry, ...], refused: bool
) -> None:
    world.seen = registered(entry(1, "old"), live=live)
    (one,) = world.found()
    assert moved.outdated(one, world.seen) is refused


def test_a_live_key_that_cannot_be_read_is_another_address(world: World) -> None:
    """Nobody knows what Alluxio would make of it: the old entry goes, and the worker is
    restarted."""
    key = entry(1, "w1", 7).key
    unread = UnknownRegistration(f"worker-{UUIDS[1]}", "?")
    world.seen = registered(entry(1, "old"), live=(Entry(key, unread),))
    (one,) = world.found()
    assert moved.outdated(one, world.seen)
    assert all(getattr(unread, field, None) is None for field in worker_address.TITLES)


class TestClones:
    def test_the_live_address_is_asked_not_the_older_entrys(self, world: World) -> None:
        """The worker with this identity lives at `new` by now; at `old` another answers."""
        world.seen = registered(entry(1, "old"), live=(entry(1, "new", 7),))
        world.answering = {"old"}
        assert world.clones(world.alluxio) == []
        world.answering = {"new"}
        (problem,) = world.clones(world.alluxio)
        assert "new:29999" in problem.what

    def test_the_port_of_the_registration_is_asked(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Here it is declared with another port."""
        asked: list[tuple[str, int]] = []

        def answers(_: Fleet, worker: AlluxioWorker, timeout: float = 2.0) -> bool:
            asked.append((worker.hostname, worker.rpc_port))
            return True

        monkeypatch.setattr(registrations, "port_answers", answers)
        other = changed(world.alluxio, "w1", rpc_port=31000)
        world.seen = registered(entry(1, "old"), live=(entry(1, "old", 7),))
        assert len(world.clones(other)) == 1
        assert asked == [("old", 29999)]

    def test_behind_a_worker_that_only_has_a_new_name(self, world: World) -> None:
        """w1 is live at an old name of its own host; w2 has the identity of a living worker."""
        alluxio = changed(world.alluxio, "w1", hostname="new")
        live = (entry(1, "old", 7), entry(2, "elsewhere", 8))
        world.seen = registered(entry(1, "old"), entry(2, "elsewhere"), live=live)
        world.answering = {"old", "elsewhere"}
        world.addresses = {"old": "10.0.0.1", "elsewhere": "10.0.0.9"}
        (problem,) = world.clones(alluxio)
        assert problem.where.startswith("w2 at ")

    def test_each_clone_is_named(self, world: World) -> None:
        live = (entry(1, "one", 7), entry(2, "two", 8))
        world.seen = registered(entry(1, "one"), entry(2, "two"), live=live)
        world.answering = {"one", "two"}
        world.addresses = {"one": "10.0.0.8", "two": "10.0.0.9"}
        assert [p.where.split()[0] for p in world.clones(world.alluxio)] == ["w1", "w2"]


class TestSteps:
    def plan(self, world: World) -> Plan:
        live = (entry(1, "w1", 7), entry(2, "w2", 8))
        world.seen = registered(entry(1, "w1"), entry(2, "w2"), live=live)
        return world.plan(both_move(world))

    def test_the_bound_of_the_inventory_holds_for_the_stops(self, world: World) -> None:
        stops = [s for s in self.plan(world).steps if s.title.startswith("stop ")]
        assert [s.at_once for s in stops] == [4, 4]

    def test_each_is_stopped_then_forgotten_then_started_before_the_next(
        self, world: World
    ) -> None:
        assert [s.title for s in self.plan(world).steps] == [
            "stop w1 for the new address",
            "remove the old address of w1",
            "restart w1",
            "stop w2 for the new address",
            "remove the old address of w2",
            "restart w2",
        ]

    def test_the_stop_ends_when_the_lease_of_this_worker_does(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Until then Alluxio takes the old worker for alive. Other workers live on."""
        now = clock.install(monkeypatch)
        etcd = fake_etcd.install(monkeypatch)
        etcd.times = {7: LeaseTime(100, 120), 8: LeaseTime(100, 120)}
        both = (entry(1, "w1", 7), entry(2, "w2", 8))
        stop = self.plan(world).steps[0]
        assert stop.after is not None
        began = now.time

        def read(*_: object) -> registrations.RegistrationSnapshot:
            return registered(live=both if now.time < began + 100 else both[1:])

        monkeypatch.setattr(registrations, "read", read)
        stop.after.check()
        assert now.time - began == pytest.approx(100, abs=2 * leases.POLL_SECONDS)


class TestEndpoints:
    """The workers are told while etcd's members change: whoever can be told, is."""

    @pytest.fixture
    def told(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
        fake_etcd.install(monkeypatch)
        monkeypatch.setattr(forget_worker, "look", lambda *_: world.seen)
        monkeypatch.setattr(
            start_workers, "fetch", lambda *_, **__: Artifacts(TARBALL, None, RELEASE)
        )
        inventory = builders.inventory(world.alluxio)

        def steps(alluxio: Any = None) -> endpoints.Told:
            cluster = replace(alluxio or world.alluxio, etcd_endpoints=("http://10.0.0.9:2379",))
            with Fleet(2) as fleet:
                handle = Etcd(inventory.etcd, fleet)
                return endpoints.steps(
                    replace(inventory, alluxio=cluster), cluster, handle, inventory.etcd
                )

        return steps

    def test_every_running_worker_is_restarted_with_them(self, told: Any) -> None:
        found = told()
        assert [s.title for s in found.steps] == ["restart w1", "restart w2"]
        assert (list(found.notes), found.complete) == ([], True)

    def test_a_worker_of_another_cluster_is_not_touched(self, world: World, told: Any) -> None:
        machine = world.machine("w1")
        other = text("[Unit]\nX-Alluxio-Provision-Cluster=other\n")
        paths = {**world.facts[machine].paths, "/etc/systemd/system/alluxio-worker.service": other}
        world.facts[machine] = replace(world.facts[machine], paths=paths)
        found = told()
        assert [h.name for s in found.steps for h in s.hosts] == ["w2"]
        assert (list(found.notes), found.complete) == ([], True)

    def test_each_that_is_left_out_is_noted_and_the_note_in_etcd_stays(
        self, world: World, told: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """w1's host is away, w2's address changes: no note pushes out another."""
        away = Problem("w1", "no route to host", "", id="host-unreachable")
        looked = gather.gather_facts

        def without_w1(fleet: Fleet, probes: Any) -> Any:
            facts, _ = looked(fleet, probes)
            return {m: f for m, f in facts.items() if m.host != "w1"}, [away]

        monkeypatch.setattr(gather, "gather_facts", without_w1)
        found = told(changed(world.alluxio, "w2", properties=WEB))
        assert found.steps == ()
        assert not found.complete
        assert [(n.where, n.severity, n.what) for n in found.notes] == [
            ("w1", "warning", "its worker still has the old etcd endpoints: no route to host"),
            (
                "w2 at w2",
                "warning",
                "still has the old etcd endpoints; its address changes: "
                "web port 30000 becomes 30001",
            ),
        ]

    def test_where_no_worker_runs_etcd_is_not_asked_about_them(
        self, world: World, told: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may not serve yet, and the change of its members must not wait for that."""

        def no_quorum(*_: object) -> None:
            raise Unhealthy("no etcd member serves reads", id="quorum-lost")

        monkeypatch.setattr(forget_worker, "look", no_quorum)
        for name in ("w1", "w2"):
            world.unit(name, "inactive")
        found = told()
        assert found.steps == ()
        assert [n.where for n in found.notes] == ["w1 at w1", "w2 at w2"]
        world.unit("w2", "active")
        with pytest.raises(Unhealthy):
            told()

    @pytest.mark.parametrize(
        ("changed_", "contents", "said"),
        [
            ({"values": {"uid": "7"}}, RELEASE, "no root"),
            ({}, Contents((), conf=False), "has no"),
        ],
    )
    def test_hosts_that_cannot_be_changed_are_noted_and_nobody_is_restarted(
        self,
        world: World,
        told: Any,
        monkeypatch: pytest.MonkeyPatch,
        changed_: dict[str, dict[str, str]],
        contents: Contents,
        said: str,
    ) -> None:
        """The members do not wait for it: the workers keep the former endpoints meanwhile."""
        monkeypatch.setattr(
            start_workers, "fetch", lambda *_, **__: Artifacts(TARBALL, None, contents)
        )
        machine = world.machine("w1")
        values = {**world.facts[machine].values, **changed_.get("values", {})}
        world.facts[machine] = replace(world.facts[machine], values=values)
        found = told()
        assert list(found.steps) == []
        assert not found.complete
        assert {n.severity for n in found.notes} == {"warning"}
        whats = [n.what for n in found.notes]
        assert all(w.startswith("its workers still have the old etcd endpoints: ") for w in whats)
        assert any(said in what for what in whats)

    def test_what_is_only_odd_on_the_hosts_keeps_nobody_from_it(
        self, world: World, told: Any
    ) -> None:
        for machine, facts in world.facts.items():
            world.facts[machine] = replace(facts, clock_offset=99.0)
        assert [s.title for s in told().steps] == ["restart w1", "restart w2"]
