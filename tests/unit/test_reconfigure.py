"""Changes of etcd's members, as calls to a leader that is made up. Nothing is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from provision.errors import Unhealthy, UsageError
from provision.etcd.api.errors import EtcdRefused, EtcdUnreachable, Reason
from provision.etcd.api.values import Endpoint, MemberStatus, RegisteredMember
from provision.etcd.cluster import health, reconfigure
from provision.etcd.cluster.handle import Etcd, NoLeader
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.cluster.reach import Reach
from provision.inventory.resolved import EtcdMember
from provision.ssh.session import Fleet
from tests.unit import clock
from tests.unit.builders import etcd, member
from tests.unit.test_check import STATUS

ONE, TWO, THREE, NEW = (member(n) for n in (1, 2, 3, 4))
CLUSTER = etcd(ONE, TWO, THREE)
AT = Endpoint("10.0.0.1", 2379)
START = 1000.0


def refused(message: str) -> EtcdRefused:
    return EtcdRefused(AT, f"etcdserver: {message}", id="change-failed")


NOT_CONNECTED = refused("unhealthy cluster")
NOT_IN_SYNC = refused("can only promote a learner member which is in sync with leader")
NO_ANSWER = EtcdUnreachable(AT, Reason.TIMEOUT)
NO_LEADER = NoLeader("no member of the cluster is its leader", id="quorum-lost")


class World:
    """A running cluster. ``calls`` are the changes that the leader was asked for, ``fail`` the
    errors of the next of them; ``lost``: the change is made, and its answer is lost. Waiting moves
    the clock, and nothing else does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = clock.install(monkeypatch)
        self.clock.time = START
        self.leader = 1
        self.listed = [_registered(m, n) for n, m in enumerate(CLUSTER.members, 1)]
        self.index = {1: 30, 2: 20, 3: 25}
        self.down: set[int] = set()
        self.fail: list[Exception] = []
        self.no_leader = 0
        self.lost = False
        self.calls: list[tuple[object, ...]] = []
        self.timeouts: set[float] = set()
        self.entered = 0
        #: The revision of a member that is asked by itself; without one it does not answer.
        self.revisions: dict[str, Callable[[], int]] = {}
        monkeypatch.setattr(health, "observe", self._observe)
        monkeypatch.setattr(Etcd, "leader", self._leader)
        monkeypatch.setattr(Reach, "member", self._member)

    @property
    def waited(self) -> float:
        return self.clock.time - START

    def status(self, number: int) -> MemberStatus:
        learner = any(r.id == number and r.is_learner for r in self.listed)
        return replace(
            STATUS,
            member_id=number,
            leader=self.leader,
            raft_index=self.index.get(number, 1),
            is_learner=learner,
        )

    def _observe(self, etcd: Etcd) -> ClusterHealth:
        assert etcd.cluster is CLUSTER
        found = []
        for m in CLUSTER.members:
            number = int(m.name.removeprefix("infra"))
            if number in self.down:
                found.append(MemberHealth(m, error="no answer"))
            else:
                listed = tuple(self.listed)
                found.append(MemberHealth(m, status=self.status(number), registered=listed))
        return ClusterHealth(CLUSTER, tuple(found))

    @property
    def _leader(self) -> Any:
        @contextlib.contextmanager
        def enter(_: Etcd, *, timeout: float = 0) -> Iterator[tuple[Any, EtcdMember]]:
            self.entered += 1
            self.timeouts.add(timeout)
            if self.no_leader:
                self.no_leader -= 1
                raise NO_LEADER
            yield Client(self), ONE

        return enter

    @property
    def _member(self) -> Any:
        @contextlib.contextmanager
        def enter(_: Reach, m: EtcdMember, **__: object) -> Iterator[Any]:
            if m.name not in self.revisions:
                raise NO_ANSWER
            yield Asked(self.revisions[m.name]())

        return enter


class Asked:
    def __init__(self, revision: int) -> None:
        self.revision = revision

    def status(self) -> MemberStatus:
        return replace(STATUS, revision=self.revision)


class Client:
    """The leader. A change is counted also when it fails."""

    def __init__(self, world: World) -> None:
        self.world = world

    def member_list(self) -> list[RegisteredMember]:
        return list(self.world.listed)

    def status(self) -> MemberStatus:
        return self.world.status(self.world.leader)

    def member_add(self, urls: list[str], *, learner: bool) -> None:
        def add() -> None:
            self.world.listed.append(RegisteredMember(4, "", tuple(urls), (), learner))

        self._change(add, "add", *urls, learner)

    def member_promote(self, number: int) -> None:
        self._change(lambda: self._replace(number, is_learner=False), "promote", number)

    def member_update(self, number: int, urls: list[str]) -> None:
        self._change(lambda: self._replace(number, peer_urls=tuple(urls)), "update", number, *urls)

    def member_remove(self, number: int) -> None:
        def remove() -> None:
            self.world.listed = [r for r in self.world.listed if r.id != number]

        self._change(remove, "remove", number)

    def move_leader(self, number: int) -> None:
        def move() -> None:
            self.world.leader = number

        self._change(move, "lead", number)

    def _replace(self, number: int, **changed: Any) -> None:
        self.world.listed = [
            replace(r, **changed) if r.id == number else r for r in self.world.listed
        ]

    def _change(self, change: Callable[[], None], *call: object) -> None:
        self.world.calls.append(call)
        if self.world.fail:
            if self.world.lost:
                change()
            raise self.world.fail.pop(0)
        change()


def _registered(m: EtcdMember, number: int, **changed: Any) -> RegisteredMember:
    return replace(RegisteredMember(number, m.name, (m.peer_url,), (), False), **changed)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(monkeypatch)
    yield world
    assert set(world.clock.slept) <= {reconfigure.POLL_SECONDS}


@pytest.fixture
def handle() -> Etcd:
    return Etcd(CLUSTER, Fleet(1))


class TestRetry:
    """Every change goes through it."""

    @pytest.mark.parametrize(
        "error",
        [
            NOT_CONNECTED,
            refused("re-configuration failed due to not enough started members"),
            refused("too many learner members in cluster"),
            refused("leader changed"),
            refused("stopped: bad leader transferee"),
            NO_ANSWER,
        ],
    )
    def test_what_ends_by_itself_is_repeated(
        self, world: World, handle: Etcd, error: Exception
    ) -> None:
        world.fail = [error, error]
        reconfigure.remove(handle, 3, [ONE, TWO])
        assert world.calls == [("remove", 3)] * 3
        assert world.waited == 2 * reconfigure.POLL_SECONDS
        assert world.timeouts == {reconfigure.CALL_TIMEOUT}

    def test_a_refusal_that_stays_is_not(self, world: World, handle: Etcd) -> None:
        world.fail = [refused("member not found")]
        with pytest.raises(EtcdRefused, match="member not found"):
            reconfigure.remove(handle, 3, [ONE, TWO])
        assert world.calls == [("remove", 3)]
        assert world.waited == 0

    @pytest.mark.parametrize("error", [NOT_CONNECTED, NO_ANSWER])
    def test_there_is_a_time_limit(self, world: World, handle: Etcd, error: Exception) -> None:
        world.fail = [error] * 1000
        with pytest.raises(type(error)):
            reconfigure.remove(handle, 3, [ONE, TWO])
        assert world.waited == reconfigure.ACCEPTED_WITHIN
        looks = reconfigure.ACCEPTED_WITHIN / reconfigure.POLL_SECONDS + 1
        assert len(world.calls) == looks

    def test_also_for_an_election(self, world: World, handle: Etcd) -> None:
        world.no_leader = 3
        asked: list[object] = []
        reconfigure.with_leader(handle, asked.append)
        assert (world.entered, len(asked)) == (4, 1)
        world.clock.time, world.no_leader = START, 10**6
        with pytest.raises(NoLeader):
            reconfigure.with_leader(handle, asked.append)
        assert world.waited == reconfigure.ACCEPTED_WITHIN
        looks = reconfigure.ACCEPTED_WITHIN / reconfigure.POLL_SECONDS + 1
        assert world.entered == 4 + looks

    def test_another_error_is_not_taken_for_etcds(self, world: World, handle: Etcd) -> None:
        def do(_: object) -> None:
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            reconfigure.with_leader(handle, do)
        assert world.entered == 1


class TestAdd:
    def test_a_new_member_is_a_learner(self, world: World, handle: Etcd) -> None:
        """A voter that has not started yet would raise the quorum."""
        reconfigure.add_learner(handle, NEW)
        assert world.calls == [("add", NEW.peer_url, True)]

    def test_one_that_is_there_is_not_added_again(self, world: World, handle: Etcd) -> None:
        reconfigure.add_learner(handle, TWO)
        assert world.calls == []

    def test_nor_after_an_answer_that_was_lost(self, world: World, handle: Etcd) -> None:
        world.fail, world.lost = [NO_ANSWER], True
        reconfigure.add_learner(handle, NEW)
        assert world.calls == [("add", NEW.peer_url, True)]
        assert [r.id for r in world.listed] == [1, 2, 3, 4]


class TestPromote:
    @pytest.fixture(autouse=True)
    def _learner(self, world: World) -> None:
        world.listed.append(_registered(NEW, 4, is_learner=True))
        world.revisions["infra4"] = lambda: 7

    def test_one_that_has_caught_up(self, world: World, handle: Etcd) -> None:
        reconfigure.promote(handle, NEW)
        assert world.calls == [("promote", 4)]
        assert (world.entered, world.waited) == (1, 0)
        assert world.timeouts == {reconfigure.CALL_TIMEOUT}

    def test_a_voter_is_not_promoted_again(self, world: World, handle: Etcd) -> None:
        reconfigure.promote(handle, TWO)
        assert world.calls == []

    def test_one_that_is_no_member(self, world: World, handle: Etcd) -> None:
        with pytest.raises(Unhealthy) as failed:
            reconfigure.promote(handle, member(5))
        assert failed.value.id == "member-not-joined"
        assert failed.value.message == (
            "infra5 (http://10.0.0.5:2380) is not a member of the cluster"
        )
        assert world.calls == []

    @pytest.mark.parametrize("error", [NOT_IN_SYNC, NOT_CONNECTED, NO_ANSWER])
    def test_it_is_waited_for(self, world: World, handle: Etcd, error: Exception) -> None:
        world.fail = [error] * 3
        reconfigure.promote(handle, NEW)
        assert world.calls == [("promote", 4)] * 4
        assert world.waited == 3 * reconfigure.POLL_SECONDS

    def test_an_election_is_waited_for(self, world: World, handle: Etcd) -> None:
        world.no_leader = 2
        reconfigure.promote(handle, NEW)
        assert world.calls == [("promote", 4)]
        assert world.waited == 2 * reconfigure.POLL_SECONDS

    def test_an_answer_that_was_lost_is_found_in_the_list(self, world: World, handle: Etcd) -> None:
        world.fail, world.lost = [NO_ANSWER], True
        reconfigure.promote(handle, NEW)
        assert world.calls == [("promote", 4)]

    def test_a_refusal_that_stays_ends_it(self, world: World, handle: Etcd) -> None:
        world.fail = [refused("member not found")]
        with pytest.raises(EtcdRefused, match="member not found"):
            reconfigure.promote(handle, NEW)
        assert world.waited == 0

    def test_one_that_never_catches_up_stays_a_learner(self, world: World, handle: Etcd) -> None:
        world.fail = [NOT_IN_SYNC] * 10**4
        with pytest.raises(Unhealthy) as failed:
            reconfigure.promote(handle, NEW)
        assert world.waited == reconfigure.CAUGHT_UP_WITHIN
        looks = reconfigure.CAUGHT_UP_WITHIN / reconfigure.POLL_SECONDS + 1
        assert world.calls == [("promote", 4)] * int(looks)
        assert failed.value.message == "infra4 has not caught up: it stays a learner"
        assert failed.value.id == "member-is-learner"
        (problem,) = failed.value.problems
        assert (problem.where, problem.id) == ("infra4 at 10.0.0.4", "member-is-learner")
        assert problem.what == "is at revision 7 after 600 s"
        assert problem.remedy == "to see why: invoke logs infra4"

    def test_one_that_does_not_answer_is_given_up_earlier(self, world: World, handle: Etcd) -> None:
        world.fail = [NOT_CONNECTED] * 10**4
        del world.revisions["infra4"]
        with pytest.raises(Unhealthy) as failed:
            reconfigure.promote(handle, NEW)
        assert world.waited == reconfigure.SILENT_FOR
        (problem,) = failed.value.problems
        assert problem.what == "does not answer on http://10.0.0.4:2379 for 45 s"

    def test_the_silence_counts_from_its_last_answer(self, world: World, handle: Etcd) -> None:
        world.fail = [NOT_IN_SYNC] * 10**4

        def revision() -> int:
            if world.waited > 100:
                raise NO_ANSWER
            return 7

        world.revisions["infra4"] = revision
        with pytest.raises(Unhealthy) as failed:
            reconfigure.promote(handle, NEW)
        assert world.waited == 100 + reconfigure.SILENT_FOR
        assert [p.what for p in failed.value.problems] == [
            "does not answer on http://10.0.0.4:2379 for 45 s"
        ]

    def test_one_that_answers_again_goes_on(self, world: World, handle: Etcd) -> None:
        world.fail = [NOT_IN_SYNC] * 400  # 100 s

        def revision() -> int:
            if int(world.waited) % 40:
                raise NO_ANSWER
            return 7

        world.revisions["infra4"] = revision
        reconfigure.promote(handle, NEW)
        assert world.listed[-1].is_learner is False


class TestUpdate:
    MOVED = replace(TWO, address="10.0.0.9")

    def test_the_new_url_is_registered(self, world: World, handle: Etcd) -> None:
        reconfigure.update(handle, self.MOVED, 2, [ONE, THREE])
        assert world.calls == [("update", 2, "http://10.0.0.9:2380")]

    def test_only_once(self, world: World, handle: Etcd) -> None:
        reconfigure.update(handle, TWO, 2, [ONE, THREE])
        assert world.calls == []

    def test_one_that_has_left_is_not_updated(self, world: World, handle: Etcd) -> None:
        world.listed = [r for r in world.listed if r.id != 2]
        reconfigure.update(handle, self.MOVED, 2, [ONE, THREE])
        assert world.calls == []

    def test_a_leader_hands_over_first(self, world: World, handle: Etcd) -> None:
        world.leader = 2
        reconfigure.update(handle, self.MOVED, 2, [ONE, THREE])
        assert world.calls == [("lead", 1), ("update", 2, "http://10.0.0.9:2380")]

    def test_an_answer_that_was_lost_is_found_in_the_list(self, world: World, handle: Etcd) -> None:
        world.fail, world.lost = [NO_ANSWER], True
        reconfigure.update(handle, self.MOVED, 2, [ONE, THREE])
        assert world.calls == [("update", 2, "http://10.0.0.9:2380")]


class TestRemove:
    def test_a_follower_is_removed(self, world: World, handle: Etcd) -> None:
        reconfigure.remove(handle, 3, [ONE, TWO])
        assert world.calls == [("remove", 3)]

    def test_one_that_has_left_is_not_removed_again(self, world: World, handle: Etcd) -> None:
        reconfigure.remove(handle, 9, [ONE, TWO])
        assert world.calls == []

    def test_a_leader_hands_over_first(self, world: World, handle: Etcd) -> None:
        reconfigure.remove(handle, 1, [TWO, THREE])
        assert world.calls == [("lead", 3), ("remove", 1)]

    def test_an_answer_that_was_lost_removes_no_second_one(
        self, world: World, handle: Etcd
    ) -> None:
        world.fail, world.lost = [NO_ANSWER], True
        reconfigure.remove(handle, 3, [ONE, TWO])
        assert world.calls == [("remove", 3)]
        assert [r.id for r in world.listed] == [1, 2]


class TestLeadership:
    def test_the_one_with_most_of_the_log_takes_over(self, world: World, handle: Etcd) -> None:
        reconfigure.move_leadership_from(handle, 1, [ONE, TWO, THREE][1:])
        assert world.calls == [("lead", 3)]

    def test_one_that_does_not_lead_keeps_what_it_has(self, world: World, handle: Etcd) -> None:
        reconfigure.move_leadership_from(handle, 2, [ONE, THREE])
        assert world.calls == []

    def test_of_those_that_stay(self, world: World, handle: Etcd) -> None:
        reconfigure.move_leadership_from(handle, 1, [TWO])
        assert world.calls == [("lead", 2)]

    def test_of_those_that_are_healthy(self, world: World, handle: Etcd) -> None:
        world.down = {3}
        reconfigure.move_leadership_from(handle, 1, [TWO, THREE])
        assert world.calls == [("lead", 2)]

    def test_not_one_that_answers_and_serves_nothing(
        self, world: World, handle: Etcd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        observe = health.observe

        def looked(etcd: Etcd) -> ClusterHealth:
            one, two, three = observe(etcd).members
            return ClusterHealth(CLUSTER, (one, two, replace(three, error="no leader")))

        monkeypatch.setattr(health, "observe", looked)
        reconfigure.move_leadership_from(handle, 1, [TWO, THREE])
        assert world.calls == [("lead", 2)]

    def test_not_a_learner(self, world: World, handle: Etcd) -> None:
        world.listed[2] = _registered(THREE, 3, is_learner=True)
        reconfigure.move_leadership_from(handle, 1, [TWO, THREE])
        assert world.calls == [("lead", 2)]

    def test_without_one_that_can_take_over_it_stays(self, world: World, handle: Etcd) -> None:
        world.down = {2, 3}
        reconfigure.move_leadership_from(handle, 1, [TWO, THREE])
        assert world.calls == []

    def test_off_a_member_by_its_name(self, world: World, handle: Etcd) -> None:
        reconfigure.move_leadership_off(handle, TWO, [ONE, THREE])
        assert world.calls == []
        world.leader = 2
        reconfigure.move_leadership_off(handle, TWO, [THREE])
        assert world.calls == [("lead", 3)]

    def test_off_a_member_that_does_not_answer_nothing_moves(
        self, world: World, handle: Etcd
    ) -> None:
        world.leader, world.down = 2, {2}
        reconfigure.move_leadership_off(handle, TWO, [ONE, THREE])
        assert (world.calls, world.entered) == ([], 0)

    def test_to_a_member(self, world: World, handle: Etcd) -> None:
        reconfigure.move_leadership_to(handle, THREE)
        assert (world.calls, world.waited) == ([("lead", 3)], 0)
        reconfigure.move_leadership_to(handle, THREE)
        assert world.calls == [("lead", 3)]

    def test_to_one_that_is_no_member(self, world: World, handle: Etcd) -> None:
        with pytest.raises(UsageError) as failed:
            reconfigure.move_leadership_to(handle, NEW)
        assert failed.value.id == "member-not-joined"
        assert failed.value.message == "infra4 is not a member of the running cluster"
        assert world.calls == []

    @pytest.mark.parametrize(("leader", "said"), [(1, "infra1"), (0, "no member")])
    def test_it_is_waited_until_the_member_says_so(
        self,
        world: World,
        handle: Etcd,
        monkeypatch: pytest.MonkeyPatch,
        leader: int,
        said: str,
    ) -> None:
        observe, looks = health.observe, [3]

        def looked(etcd: Etcd) -> ClusterHealth:
            looks[0] -= 1
            seen = observe(etcd)
            if looks[0] < 0:
                return seen
            late = (
                replace(m, status=m.status and replace(m.status, leader=leader))
                for m in seen.members
            )
            return ClusterHealth(CLUSTER, tuple(late))

        monkeypatch.setattr(health, "observe", looked)
        reconfigure.move_leadership_to(handle, THREE)
        assert world.waited == 3 * reconfigure.POLL_SECONDS
        looks[0], world.clock.time = 10**6, START
        with pytest.raises(Unhealthy) as failed:
            reconfigure.move_leadership_to(handle, THREE)
        assert failed.value.id == "change-failed"
        assert failed.value.message == f"infra3 was asked to lead, but {said} leads"
        assert world.waited == reconfigure.ACCEPTED_WITHIN
