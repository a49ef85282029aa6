"""Registrations are removed and written back only where no worker lives: by plan and by call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.membership import registrations
from provision.alluxio.worker import desired
from provision.engine import audit
from provision.errors import PreflightFailed, Unhealthy, UsageError
from provision.etcd.api.values import KeyValue, LeaseTime, Login
from provision.etcd.cluster.handle import Etcd
from provision.host.resources import Identity
from provision.inventory.membership_type import MembershipType
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker
from provision.plans.alluxio import (
    decommission_worker,
    forget_worker,
    readmit_worker,
    reregister_workers,
)
from provision.plans.alluxio.forget_worker import Removal
from provision.ssh.session import Fleet
from tests.unit import builders, clock, fake_etcd, hosts

ALLUXIO = builders.alluxio()
INVENTORY = builders.inventory(ALLUXIO)
UUIDS = {w.name: "-".join(w.name[1] * n for n in (8, 4, 4, 4, 12)) for w in ALLUXIO.workers}
LOGIN = Login("alluxio", "secret")
EXPIRED = LeaseTime(-20, 60)
KEPT = LeaseTime(40, 60)


def value(host: str, port: int = 29999) -> str:
    address = {"Host": host, "RpcPort": port, "DataPort": 29997, "WebPort": 30000}
    return json.dumps({"WorkerNetAddress": address, "State": "AUTHORIZED"})


class World:
    """``a`` is w1's id, ``b`` of a host that is gone, ``c`` w2's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.etcd = fake_etcd.install(monkeypatch)
        self.handle = Etcd(INVENTORY.etcd, Fleet(1))
        monkeypatch.setattr(audit, "local_log", lambda: folder / "audit.log")
        monkeypatch.setattr(desired, "login", lambda alluxio: LOGIN)
        for worker_id, host in (("a", "w1"), ("b", "gone"), ("c", "w2")):
            self.authorize(worker_id, host)

    def authorize(self, worker_id: str, host: str, mod: int = 5) -> None:
        self.etcd.put(registrations.authorized_prefix("c") + worker_id, value(host), mod=mod)

    def live(self, worker_id: str, host: str, lease: int = 7, port: int = 29999) -> None:
        self.etcd.put(registrations.live_prefix("c") + worker_id, value(host, port), lease)

    def forget(self, *ids: str) -> Removal:
        return forget_worker.forget(INVENTORY, ALLUXIO, self.handle, ids)

    def stale(self, count: int, alluxio: AlluxioCluster = ALLUXIO) -> Removal:
        return forget_worker.forget_stale(INVENTORY, alluxio, self.handle, count)

    @property
    def authorized(self) -> set[str]:
        prefix = registrations.authorized_prefix("c").encode()
        return {k[len(prefix) :].decode() for k in self.etcd.keys if k.startswith(prefix)}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path)


def do(removal: Removal) -> None:
    for step in removal.plan.steps:
        for call in step.calls:
            call.do()


class TestForget:
    def test_the_named_ids_are_kept_here_and_removed(self, world: World, tmp_path: Path) -> None:
        found = world.forget("b", "c", "b")
        assert [s.title for s in found.plan.steps] == ["remove 2 registrations"]
        assert found.plan.command == "forget-worker"
        assert found.plan.cluster == "c"
        assert len(found.files) == 2
        assert all(f.parent == tmp_path / "registrations" for f in found.files)
        assert not any(f.exists() for f in found.files)
        do(found)
        assert world.authorized == {"a"}
        kept = [json.loads(f.read_text()) for f in found.files]
        assert [(k["worker_id"], k["command"], k["cluster"], k["mod_revision"]) for k in kept] == [
            ("b", "forget-worker", "c", 5),
            ("c", "forget-worker", "c", 5),
        ]
        assert set(world.etcd.clients) == {("any", LOGIN)}

    def test_an_id_that_etcd_does_not_have_needs_nothing(self, world: World) -> None:
        found = world.forget("x")
        assert (found.plan.steps, found.files) == ((), ())

    def test_the_plain_uuid_of_an_identity_file_is_an_id_too(self, world: World) -> None:
        uuid = "a35c88ee-3346-4068-bd59-a3169f10f788"
        world.authorize(f"worker-{uuid}", "gone")
        do(world.forget(f" {uuid}\n"))
        assert world.authorized == {"a", "b", "c"}

    def test_a_declared_worker_comes_back(self, world: World) -> None:
        (note,) = world.forget("a", "b").plan.notes
        assert (note.where, note.severity, note.id) == ("w1", "warning", "worker-left-out")
        world.live("d", "w1")  # it is back already, under another id
        assert world.forget("a").plan.notes == ()

    def test_a_live_one_is_refused_with_every_other(self, world: World) -> None:
        world.live("b", "gone")
        world.live("c", "w2", lease=8)
        world.etcd.times = {7: KEPT, 8: KEPT}
        with pytest.raises(PreflightFailed, match="2 ids are live") as refused:
            world.forget("a", "b", "c")
        assert [(p.where, p.id) for p in refused.value.problems] == [
            ("b", "registration-live"),
            ("c", "registration-live"),
        ]

    def test_a_live_one_without_a_permanent_key_is_refused_too(self, world: World) -> None:
        world.live("d", "w1")
        with pytest.raises(PreflightFailed, match="1 id is live"):
            world.forget("d")

    @pytest.mark.parametrize(("left", "stuck"), [(-16, True), (-15, False), (5, False)])
    def test_a_lease_that_etcd_does_not_remove_is_named(
        self, world: World, left: int, stuck: bool
    ) -> None:
        world.live("b", "gone")
        world.etcd.times = {7: LeaseTime(left, 60)}
        with pytest.raises(PreflightFailed) as refused:
            world.forget("b")
        (problem,) = refused.value.problems
        assert problem.id == ("lease-not-removed" if stuck else "registration-live")

    def test_a_live_key_without_a_lease_counts_as_live(self, world: World) -> None:
        world.live("b", "gone", lease=0)
        world.live("c", "w2")
        world.etcd.times = {0: EXPIRED, 7: EXPIRED}
        with pytest.raises(PreflightFailed) as refused:
            world.forget("b")
        assert [p.id for p in refused.value.problems] == ["registration-live"]


class TestRemoval:
    """The call, when etcd has changed since the look."""

    @pytest.fixture
    def found(self, world: World) -> Removal:
        return world.forget("b")

    def refused(self, found: Removal, world: World) -> str:
        with pytest.raises(Unhealthy) as refused:
            do(found)
        assert refused.value.id == "changed-meanwhile"
        assert not found.files[0].exists()
        return refused.value.message

    def test_one_that_came_up_stays(self, found: Removal, world: World) -> None:
        world.live("b", "gone")
        assert "has become LIVE meanwhile" in self.refused(found, world)
        assert "b" in world.authorized

    def test_one_that_has_registered_again_stays(self, found: Removal, world: World) -> None:
        world.authorize("b", "gone", mod=6)
        assert "has registered again" in self.refused(found, world)
        assert "b" in world.authorized

    def test_one_that_was_live_for_a_moment_stays(self, found: Removal, world: World) -> None:
        """The transaction has failed, but the live key is gone again when it is asked why."""
        key = next(k for k in world.etcd.keys if k.endswith(b"/b"))
        live = registrations.live_prefix("c").encode() + b"b"

        def before(call: str) -> None:
            if call == "delete":
                world.live("b", "gone")
            else:
                world.etcd.keys.pop(live, None)

        world.etcd.before = before
        assert "was LIVE a moment ago" in self.refused(found, world)
        assert key in world.etcd.keys

    def test_one_that_is_gone_already_is_removed(self, found: Removal, world: World) -> None:
        del world.etcd.keys[registrations.authorized_prefix("c").encode() + b"b"]
        do(found)


class TestStale:
    def test_all_that_nobody_comes_back_under(self, world: World) -> None:
        world.live("d", "w2")
        found = world.stale(2)
        assert [s.title for s in found.plan.steps] == ["remove 2 registrations"]
        assert found.plan.notes == ()
        do(found)
        assert world.authorized == {"a"}

    @pytest.mark.parametrize("count", [0, 2])
    def test_another_number_than_the_operator_knows_is_refused(
        self, world: World, count: int
    ) -> None:
        with pytest.raises(UsageError, match=f"1 id is stale, not {count}") as refused:
            world.stale(count)
        assert refused.value.message.endswith(": b")

    def test_without_leases_nobody_knows(self, world: World) -> None:
        static = replace(ALLUXIO, membership=MembershipType.STATIC)
        with pytest.raises(UsageError, match="does not show which ids are stale"):
            world.stale(1, static)


class TestReadmit:
    @pytest.fixture
    def file(self, world: World) -> Path:
        found = world.forget("b")
        do(found)
        world.etcd.changes()
        return found.files[0]

    def plan(self, world: World, file: Path, **changed: str) -> list[tuple[object, ...]]:
        alluxio = replace(ALLUXIO, **changed)  # type: ignore[arg-type]
        plan = readmit_worker.plan(INVENTORY, alluxio, world.handle, file)
        assert (plan.command, plan.cluster) == ("readmit-worker", "c")
        assert [s.title for s in plan.steps] in ([], ["readmit b"])
        for step in plan.steps:
            for call in step.calls:
                call.do()
        return world.etcd.changes()

    def test_the_key_is_as_it_was(self, world: World, file: Path) -> None:
        key = registrations.authorized_prefix("c").encode() + b"b"
        assert self.plan(world, file) == [("create", key, value("gone").encode())]
        assert "b" in world.authorized
        assert self.plan(world, file) == []
        assert set(world.etcd.clients) == {("any", LOGIN)}

    def test_another_registration_stays(self, world: World, file: Path) -> None:
        world.authorize("b", "elsewhere")
        with pytest.raises(PreflightFailed, match="now has another registration"):
            self.plan(world, file)

    def test_one_that_registers_meanwhile_stays(self, world: World, file: Path) -> None:
        plan = readmit_worker.plan(INVENTORY, ALLUXIO, world.handle, file)
        world.authorize("b", "elsewhere")
        with pytest.raises(Unhealthy, match="has registered itself meanwhile"):
            plan.steps[0].calls[0].do()

    def test_a_file_of_another_cluster(self, world: World, file: Path) -> None:
        with pytest.raises(UsageError, match="is of cluster c, not other"):
            self.plan(world, file, name="other")


class TestRevoke:
    """The call of decommission-worker that ends an expired lease."""

    KEY = KeyValue(b"/live/a", b"", 7, 5)

    def revoke(self, world: World, now: LeaseTime) -> list[tuple[object, ...]]:
        world.etcd.times = {7: now}
        call = decommission_worker._revoke(ALLUXIO, world.handle, "a", self.KEY, 20)
        assert call.what == "etcd: revoke lease 7 of a, expired for 20 s"
        call.do()
        assert world.etcd.clients == [("any", LOGIN)]
        return world.etcd.changes()

    def test_it_is_still_expired(self, world: World) -> None:
        assert self.revoke(world, LeaseTime(-16, 60, (b"/live/a",))) == [("lease_revoke", 7)]

    def test_etcd_has_removed_it_meanwhile(self, world: World) -> None:
        assert self.revoke(world, LeaseTime(-1, 0)) == []

    @pytest.mark.parametrize(
        ("now", "why"),
        [
            (LeaseTime(40, 60, (b"/live/a",)), "is kept alive again"),
            (LeaseTime(0, 60, (b"/live/a",)), "is kept alive again"),
            (LeaseTime(-20, 60, (b"/live/a", b"/live/b")), "has other keys, too"),
            (LeaseTime(-20, 60, ()), "has other keys, too"),
            (LeaseTime(-15, 60, (b"/live/a",)), "has other keys, too"),
        ],
    )
    def test_otherwise_it_is_not_revoked(self, world: World, now: LeaseTime, why: str) -> None:
        with pytest.raises(Unhealthy, match=why) as refused:
            self.revoke(world, now)
        assert refused.value.id == "changed-meanwhile"
        assert world.etcd.calls == []

    def test_who_is_at_the_worker_s_address(self, world: World) -> None:
        world.live("a", "W1")
        world.live("b", "w1", port=1)
        world.live("c", "w2")
        seen = forget_worker.look(ALLUXIO, world.handle)
        assert decommission_worker._at(ALLUXIO.workers[0], seen.live) == ["a"]


class TestLost:
    """Which workers nobody keeps alive, by how much time their leases have left."""

    @pytest.fixture
    def now(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[clock.Clock]:
        found = clock.install(monkeypatch)
        yield found
        assert all(0 < s <= reregister_workers.POLL_SECONDS for s in found.slept)

    def lost(self, world: World, *names: str) -> list[str]:
        facts = {}
        workers: list[AlluxioWorker] = [w for w in ALLUXIO.workers if w.name in (names or UUIDS)]
        for w in workers:
            identity = Identity(desired.identity_file(ALLUXIO), "alluxio", UUIDS[w.name])
            facts[w.machine] = hosts.facts(1, paths={identity.path: hosts.text(UUIDS[w.name])})
        found = reregister_workers.lost(ALLUXIO, world.handle, workers, facts)
        return [w.name for w in found]

    def keep(self, world: World, ids: dict[int, tuple[int, int]], now: clock.Clock) -> None:
        """Lease: since when (seconds of the clock) it runs, and how often it is kept alive (0:
        never)."""
        begun = now.time

        def before(_: str) -> None:
            passed = now.time - begun
            world.etcd.times = {
                lease: LeaseTime(int(120 - (passed % often if often else passed) - since), 120)
                for lease, (since, often) in ids.items()
            }

        world.etcd.before = before

    def test_a_lease_that_goes_up_is_kept_alive(self, world: World, now: clock.Clock) -> None:
        world.live(desired.worker_id(UUIDS["w1"]), "w1", 7)
        world.live(desired.worker_id(UUIDS["w2"]), "w2", 8)
        self.keep(world, {7: (0, 40), 8: (0, 0)}, now)
        assert self.lost(world) == ["w2"]
        # A third of the time to live, and what rounding takes.
        assert sum(now.slept) == pytest.approx(120 / 3 + 1.5, abs=1.0)
        assert set(world.etcd.clients) == {("any", None)}

    def test_all_are_kept_alive_and_the_look_is_over_early(
        self, world: World, now: clock.Clock
    ) -> None:
        world.live(desired.worker_id(UUIDS["w1"]), "w1", 7)
        self.keep(world, {7: (0, 5)}, now)
        assert self.lost(world, "w1") == []
        assert sum(now.slept) < 10

    def test_without_a_live_key_it_is_lost(self, world: World, now: clock.Clock) -> None:
        assert self.lost(world) == ["w1", "w2"]

    def test_without_workers_nobody_is_asked(self, world: World, now: clock.Clock) -> None:
        assert reregister_workers.lost(ALLUXIO, world.handle, [], {}) == []
        assert world.etcd.clients == []

    def test_a_key_of_its_address_is_its_own(self, world: World, now: clock.Clock) -> None:
        world.live("other", "w1", 7)
        self.keep(world, {7: (0, 5)}, now)
        assert self.lost(world, "w1") == []

    def test_a_new_leader_gives_each_lease_its_whole_time_again(
        self, world: World, now: clock.Clock
    ) -> None:
        """The time goes up, but nobody has kept the lease alive."""
        world.live(desired.worker_id(UUIDS["w1"]), "w1", 7)
        begun = now.time

        def before(_: str) -> None:
            passed = now.time - begun
            world.etcd.statuses = [fake_etcd.changed(raft_term=2 if passed < 10 else 3)]
            world.etcd.times = {
                7: LeaseTime(int(120 - (passed if passed < 10 else passed - 10)), 120)
            }

        world.etcd.before = before
        assert self.lost(world, "w1") == ["w1"]
        assert sum(now.slept) == pytest.approx(10 + 120 / 3 + 1.5, abs=1.1)

    def test_ever_new_leaders_end_the_look(self, world: World, now: clock.Clock) -> None:
        world.live(desired.worker_id(UUIDS["w1"]), "w1", 7)
        world.etcd.statuses = [fake_etcd.changed(raft_term=n) for n in range(1, 2000)]
        world.etcd.times = {7: LeaseTime(50, 120)}
        with pytest.raises(Unhealthy, match="changes its leader") as refused:
            self.lost(world, "w1")
        assert refused.value.id == "leases-not-asked"
        assert sum(now.slept) == pytest.approx(41.5 + 60, abs=1.1)

    def test_slow_answers_end_the_look(self, world: World, now: clock.Clock) -> None:
        world.live(desired.worker_id(UUIDS["w1"]), "w1", 7)
        world.live(desired.worker_id(UUIDS["w2"]), "w2", 8)
        world.etcd.times = {7: LeaseTime(50, 120)}
        with pytest.raises(Unhealthy, match="answers too slowly"):
            self.lost(world)

    def test_no_answer_for_long_ends_the_look(self, world: World, now: clock.Clock) -> None:
        world.etcd.fail = {"status": Unhealthy("no etcd member serves reads", id="quorum-lost")}
        with pytest.raises(Unhealthy, match="serves reads"):
            self.lost(world)
        assert sum(now.slept) == pytest.approx(41.5 + 60, abs=1.1)

    def test_no_answer_for_a_moment_does_not(self, world: World, now: clock.Clock) -> None:
        world.live(desired.worker_id(UUIDS["w1"]), "w1", 7)
        begun = now.time

        def before(_: str) -> None:
            passed = now.time - begun
            lost = Unhealthy("an election", id="quorum-lost")
            world.etcd.fail = {"status": lost} if passed < 30 else {}
            world.etcd.times = {7: LeaseTime(int(120 - passed % 5), 120)}

        world.etcd.before = before
        assert self.lost(world, "w1") == []
