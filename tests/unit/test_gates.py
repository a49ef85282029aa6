"""The gates of steps on a running cluster, with looks that are made up. Nothing is asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

import pytest

from provision.engine.plan import Gate
from provision.errors import PreflightFailed, Unhealthy
from provision.etcd.api.values import RegisteredMember
from provision.etcd.cluster import gates, hashes, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.ssh.session import Fleet
from tests.unit import clock
from tests.unit.builders import etcd, member
from tests.unit.test_check import STATUS

ONE, TWO, THREE = (member(n) for n in (1, 2, 3))
CLUSTER = etcd(ONE, TWO, THREE)
ALARM = "etcdserver: mvcc: database space exceeded (NOSPACE)"


def looked(
    *, down: Collection[int] = (), waiting: Collection[int] = (), alarms: Iterable[str] = ()
) -> ClusterHealth:
    """Three voters: ``down`` do not answer, ``waiting`` answer and serve nothing. The third
    leads."""
    listed = tuple(
        RegisteredMember(n, m.name, (m.peer_url,), (), False)
        for n, m in enumerate(CLUSTER.members, 1)
    )
    found = []
    for n, m in enumerate(CLUSTER.members, 1):
        if n in down:
            found.append(MemberHealth(m, error="no answer"))
            continue
        status = replace(STATUS, member_id=n, leader=3, errors=tuple(alarms))
        error = "no leader" if n in waiting else ""
        found.append(MemberHealth(m, status=status, registered=listed, error=error))
    return ClusterHealth(CLUSTER, tuple(found))


class World:
    """The looks, one after the other (the last is repeated), and a clock that only waits move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = clock.install(monkeypatch)
        self.looks: list[ClusterHealth] = [looked()]
        self.seen: list[float] = []
        self.asked: list[Etcd] = []
        self.writes: list[tuple[float, object]] = []
        self.refused_writes = 0
        self.compared: list[tuple[ClusterHealth, Etcd]] = []
        monkeypatch.setattr(health, "observe", self._observe)
        monkeypatch.setattr(health, "verify_write", self._write)
        monkeypatch.setattr(hashes, "require_equal", lambda *args: self.compared.append(args))

    @property
    def now(self) -> float:
        return self.clock.time

    def _observe(self, etcd: Etcd) -> ClusterHealth:
        self.asked.append(etcd)
        self.seen.append(self.now)
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def _write(self, etcd: Etcd, member: object) -> None:
        self.asked.append(etcd)
        self.writes.append((self.now, member))
        if self.refused_writes:
            self.refused_writes -= 1
            raise Unhealthy("no quorum write", id="quorum-lost")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(monkeypatch)
    yield world
    assert all(0 < seconds <= 1 for seconds in world.clock.slept)


@pytest.fixture
def handle(world: World) -> Etcd:
    return Etcd(CLUSTER, Fleet(1))


class TestHealthy:
    def test_one_that_is_down_is_in_the_way(self) -> None:
        gates.require_healthy(looked())
        with pytest.raises(Unhealthy) as refused:
            gates.require_healthy(looked(down=[2]))
        assert refused.value.id == "quorum-at-risk"
        assert refused.value.message == (
            "2 of 3 members are healthy (quorum is 2): wait until the others are back, or see "
            "invoke check-nodes"
        )
        assert "etcd member infra2" in {p.where for p in refused.value.problems}

    def test_a_member_on_its_way_back_is_waited_for(self, world: World, handle: Etcd) -> None:
        sick = looked(down=[2])
        world.looks = [sick, sick, looked()]
        assert gates.wait_until_recovered(handle, sick).all_healthy
        assert (len(world.seen), set(world.asked)) == (3, {handle})

    def test_without_need_nothing_is_asked(self, world: World, handle: Etcd) -> None:
        seen = looked()
        assert gates.wait_until_recovered(handle, seen) is seen
        assert world.seen == []

    def test_it_is_not_waited_for_longer(self, world: World, handle: Etcd) -> None:
        world.looks = [looked(down=[2])]
        with pytest.raises(Unhealthy, match="2 of 3 members are healthy"):
            gates.wait_until_recovered(handle, looked(down=[2]))
        assert world.now - 1000.0 == pytest.approx(gates.BACK_WITHIN, abs=0.2)


class TestUntil:
    def test_the_look_that_is_good_is_returned(self, world: World) -> None:
        looks = iter([looked(down=[1]), looked(down=[2]), looked()])
        found = gates.until(lambda: next(looks), lambda seen: seen.is_member_healthy("infra1"))
        assert [m.healthy for m in found.members] == [True, False, True]
        assert world.now == pytest.approx(1000.0 + gates.POLL_SECONDS)

    def test_the_last_look_is_returned_when_none_is_good(self, world: World) -> None:
        looks: list[ClusterHealth] = []

        def look() -> ClusterHealth:
            looks.append(looked(down=[1]))
            return looks[-1]

        assert gates.until(look, lambda _: False) is looks[-1]
        assert world.now - 1000.0 == pytest.approx(gates.HEALTHY_WITHIN, abs=0.2)

    def test_the_last_look_is_at_the_limit(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gates, "POLL_SECONDS", 0.5)
        count = iter(range(100))

        def look() -> ClusterHealth:
            next(count)
            return looked()

        gates.until(look, lambda _: False, 1.0)
        assert next(count) == 3  # at 0, 0.5 and 1.0


class TestWritable:
    def test_an_alarm_is_in_the_way(self) -> None:
        gates.require_writable(looked())
        with pytest.raises(PreflightFailed) as refused:
            gates.require_writable(looked(alarms=[ALARM]))
        assert refused.value.id == "alarm-nospace"
        assert refused.value.message == "an alarm of etcd has to be solved first (NOSPACE)"
        with pytest.raises(PreflightFailed, match=r"^alarms of etcd have .*\(CORRUPT, NOSPACE\)$"):
            gates.require_writable(looked(alarms=[ALARM, "alarm:CORRUPT"]))
        (problem,) = refused.value.problems
        assert (problem.where, problem.id) == ("etcd", "alarm-nospace")
        assert problem.what == "alarm NOSPACE: etcd takes no writes"
        assert problem.remedy == health.ALARM_REMEDIES["NOSPACE"]

    def test_the_kind_that_is_to_be_solved_is_not(self) -> None:
        gates.require_writable(looked(alarms=[ALARM]), {"NOSPACE"})
        with pytest.raises(PreflightFailed, match=r"first \(NOSPACE\)"):
            gates.require_writable(looked(alarms=[ALARM]), {"CORRUPT"})
        both = looked(alarms=["CORRUPT", ALARM])
        with pytest.raises(PreflightFailed, match=r"first \(CORRUPT, NOSPACE\)") as refused:
            gates.require_writable(both)
        assert refused.value.id == "alarm-corrupt"
        with pytest.raises(PreflightFailed, match=r"first \(CORRUPT\)"):
            gates.require_writable(both, {"NOSPACE"})

    def test_a_kind_that_is_not_known_has_an_id(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(health.ALARM_IDS, "NOSPACE")
        monkeypatch.delitem(health.ALARM_REMEDIES, "NOSPACE")
        with pytest.raises(PreflightFailed) as refused:
            gates.require_writable(looked(alarms=[ALARM]))
        assert (refused.value.id, refused.value.problems[0].remedy) == ("alarm-raised", "")


class TestAfter:
    """The gate after a change of a member."""

    def test_every_member_takes_a_write(self, world: World, handle: Etcd) -> None:
        gate = gates.all_healthy(handle)
        assert gate.title == "every member healthy, by a quorum write and read through each"
        gate.check()
        assert world.writes == [(1000.0, None)]
        assert set(world.asked) == {handle}

    def test_or_the_member_that_was_changed(self, world: World, handle: Etcd) -> None:
        gates.all_healthy(handle, TWO).check()
        assert world.writes == [(1000.0, TWO)]

    def test_it_waits_until_all_are_healthy(self, world: World, handle: Etcd) -> None:
        world.looks = [looked(down=[2])] * 3 + [looked()]
        gates.all_healthy(handle).check()
        assert len(world.seen) == 4
        assert len(world.writes) == 1

    def test_one_that_stays_down_ends_it_without_a_write(self, world: World, handle: Etcd) -> None:
        world.looks = [looked(down=[2])]
        with pytest.raises(Unhealthy, match="2 of 3 members are healthy"):
            gates.all_healthy(handle).check()
        assert world.writes == []
        assert world.now - 1000.0 == pytest.approx(gates.HEALTHY_WITHIN, abs=0.2)

    def test_a_write_that_meets_an_election_is_repeated(self, world: World, handle: Etcd) -> None:
        world.refused_writes = 2
        gates.all_healthy(handle, TWO).check()
        times = [now for now, _ in world.writes]
        assert times == pytest.approx([1000.0 + n * gates.POLL_SECONDS for n in range(3)])
        assert len(world.seen) == 3  # each write has a look of its own

    def test_but_not_for_ever(self, world: World, handle: Etcd) -> None:
        world.refused_writes = 10**6
        with pytest.raises(Unhealthy, match="no quorum write"):
            gates.all_healthy(handle).check()
        assert world.now - 1000.0 == pytest.approx(gates.HEALTHY_WITHIN, abs=0.2)

    def test_the_last_write_is_at_the_limit(
        self, world: World, handle: Etcd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gates, "POLL_SECONDS", 0.5)
        monkeypatch.setattr(gates, "HEALTHY_WITHIN", 1.0)
        world.refused_writes = 10**6
        with pytest.raises(Unhealthy, match="no quorum write"):
            gates.all_healthy(handle).check()
        assert [now for now, _ in world.writes] == [1000.0, 1000.5, 1001.0]

    def test_all_of_it_has_one_time_limit(self, world: World, handle: Etcd) -> None:
        """A look after a refused write has what is left, not the whole time again."""
        world.refused_writes = 1
        half = int(gates.HEALTHY_WITHIN / gates.POLL_SECONDS / 2)
        world.looks = [*[looked(down=[2])] * half, looked(), looked(down=[2])]
        with pytest.raises(Unhealthy, match="2 of 3 members are healthy"):
            gates.all_healthy(handle).check()
        assert world.now - 1000.0 == pytest.approx(gates.HEALTHY_WITHIN, abs=0.2)

    def test_under_the_alarm_that_is_to_be_solved_reads_are_the_proof(
        self, world: World, handle: Etcd
    ) -> None:
        world.looks = [looked(alarms=[ALARM])]
        gate = gates.all_healthy(handle, standing={"NOSPACE", "CORRUPT"})
        assert gate.title == (
            "every member healthy, by a quorum write and read through each (only a read while the "
            "alarms CORRUPT or NOSPACE are raised)"
        )
        gate.check()
        assert world.writes == []
        gates.all_healthy(handle, standing={"NOSPACE"}).check()
        assert world.writes == []
        # Any other alarm asks for the write, and so does a cluster without an alarm.
        gates.all_healthy(handle, standing={"CORRUPT"}).check()
        world.looks = [looked()]
        gates.all_healthy(handle, standing={"NOSPACE"}).check()
        assert len(world.writes) == 2

    def test_without_etcds_own_check_the_data_are_compared(
        self, world: World, handle: Etcd
    ) -> None:
        order: list[str] = []
        gate = gates.all_equal(Gate("healthy", lambda: order.append("healthy")), handle)
        assert gate.title == "healthy, and all hold the same data"
        gate.check()
        assert order == ["healthy"]
        assert world.compared == [(world.looks[0], handle)]
        assert world.asked == [handle]

    def test_data_are_not_compared_before_all_are_healthy(self, world: World, handle: Etcd) -> None:
        world.looks = [looked(down=[2])]
        with pytest.raises(Unhealthy):
            gates.all_equal(gates.all_healthy(handle), handle).check()
        assert world.compared == []


class TestBefore:
    """The gate before a member is disturbed."""

    def test_with_all_healthy_the_data_are_compared(self, world: World, handle: Etcd) -> None:
        gate = gates.require_others_healthy(handle, TWO)
        assert gate.title == "every member except infra2 is healthy"
        gate.check()
        assert world.compared == [(world.looks[0], handle)]
        assert world.asked == [handle]

    def test_another_that_is_down_is_in_the_way(self, world: World, handle: Etcd) -> None:
        world.looks = [looked(down=[1])]
        with pytest.raises(Unhealthy) as refused:
            gates.require_others_healthy(handle, TWO).check()
        assert refused.value.message == "infra2 is not changed while infra1 is down"
        assert refused.value.id == "quorum-at-risk"
        assert "etcd member infra1" in {p.where for p in refused.value.problems}
        assert world.compared == []
        assert world.now - 1000.0 == pytest.approx(gates.BACK_WITHIN, abs=0.2)

    def test_two_others_are_both_named(self, world: World, handle: Etcd) -> None:
        world.looks = [looked(waiting=[1, 3])]
        with pytest.raises(Unhealthy, match="infra2 is not changed while infra1, infra3 are down"):
            gates.require_others_healthy(handle, TWO).check()

    def test_another_that_is_back_in_a_moment_is_waited_for(
        self, world: World, handle: Etcd
    ) -> None:
        world.looks = [looked(down=[1]), looked(waiting=[1]), looked()]
        gates.require_others_healthy(handle, TWO).check()
        assert len(world.seen) == 3
        assert len(world.compared) == 1

    def test_one_that_is_down_itself_is_repaired_though_another_is_down(
        self, world: World, handle: Etcd
    ) -> None:
        """Its start costs nothing, and nothing is waited for."""
        world.looks = [looked(down=[1, 2])]
        gates.require_others_healthy(handle, TWO).check()
        assert (len(world.seen), world.compared) == (1, [])

    def test_an_election_is_waited_for(self, world: World, handle: Etcd) -> None:
        """A member that answers without serving is not taken for one that is down: the moment it
        serves again, the others must be healthy."""
        world.looks = [looked(waiting=[1, 2, 3]), looked(down=[1])]
        with pytest.raises(Unhealthy, match="infra2 is not changed while infra1 is down"):
            gates.require_others_healthy(handle, TWO).check()
        world.looks = [looked(waiting=[1, 2, 3]), looked()]
        gates.require_others_healthy(handle, TWO).check()
        assert len(world.compared) == 1

    def test_one_that_serves_nothing_for_good_is_repaired(self, world: World, handle: Etcd) -> None:
        world.looks = [looked(waiting=[1, 2], down=[3])]
        gates.require_others_healthy(handle, TWO).check()
        assert world.compared == []
        assert world.now - 1000.0 == pytest.approx(gates.BACK_WITHIN, abs=0.2)

    def test_its_own_state_does_not_count_as_another_s(self, world: World, handle: Etcd) -> None:
        world.looks = [looked(waiting=[2])]
        gates.require_others_healthy(handle, TWO).check()
        assert world.compared == []

    def test_different_data_are_in_the_way(
        self, world: World, handle: Etcd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def differ(*_: object) -> None:
            raise PreflightFailed("the members' data differ", [], id="etcd-data-differ")

        monkeypatch.setattr(hashes, "require_equal", differ)
        with pytest.raises(PreflightFailed, match="data differ"):
            gates.require_others_healthy(handle, TWO).check()


@pytest.mark.parametrize(
    ("seen", "order"),
    [
        (looked(), ["infra1", "infra2", "infra3"]),
        (looked(down=[2]), ["infra2", "infra1", "infra3"]),
        (looked(waiting=[2, 3]), ["infra2", "infra3", "infra1"]),
    ],
)
def test_repairs_come_first_and_the_leader_last(seen: ClusterHealth, order: list[str]) -> None:
    assert [m.name for m in gates.order([THREE, ONE, TWO], seen)] == order


def test_a_member_that_is_not_in_the_look_counts_as_a_repair() -> None:
    assert [m.name for m in gates.order([ONE, member(4)], looked())] == ["infra4", "infra1"]
