"""When an alarm is disarmed: which cause must be gone, for which members, and at which time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from provision.errors import Unhealthy
from provision.etcd.api.values import Alarm, MemberStatus, RegisteredMember
from provision.etcd.cluster import gates, hashes, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.hashes import Comparison
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.plans.etcd.data import alarms, disarm_alarms
from provision.ssh.session import Fleet
from tests.unit import builders, fake_etcd

CLUSTER = builders.etcd()
EVERY = ("infra1", "infra2", "infra3")
NOSPACE, CORRUPT = Alarm(2, "NOSPACE"), Alarm(0, "CORRUPT")


class World:
    """Three members. ``looks`` says of each look who does not answer; the last one stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.etcd = fake_etcd.install(monkeypatch)
        self.handle = Etcd(CLUSTER, Fleet(1))
        self.sizes = dict.fromkeys(EVERY, 10)
        self.quotas: dict[str, int | str] = dict.fromkeys(EVERY, 100)
        self.learners: set[str] = set()
        self.looks: list[set[str]] = [set()]
        self.asked: list[dict[str, Any]] = []
        self.found = Comparison(9, {7: EVERY}, 3)
        monkeypatch.setattr(health, "observe", self._observe)
        monkeypatch.setattr(hashes, "compare", self._compare)
        monkeypatch.setattr(gates, "until", self._until)
        self.waited: list[float] = []

    def seen(self) -> ClusterHealth:
        away = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        listed = tuple(
            RegisteredMember(n, m.name, (m.peer_url,), (), m.name in self.learners)
            for n, m in enumerate(CLUSTER.members, 1)
        )
        errors = tuple(f"memberID:{a.member_id} alarm:{a.kind}" for a in self.etcd.alarms)
        return ClusterHealth(
            CLUSTER,
            tuple(
                MemberHealth(m, error="no answer")
                if m.name in away
                else MemberHealth(
                    m,
                    status=MemberStatus(
                        *(1, n, "3.5.35", self.sizes[m.name], 5, 1, 9, 2, 3, False), errors=errors
                    ),
                    registered=listed,
                    measured_quota=self.quotas[m.name],
                )
                for n, m in enumerate(CLUSTER.members, 1)
            ),
        )

    def _observe(self, etcd: Etcd, **options: Any) -> ClusterHealth:
        assert etcd is self.handle
        self.asked.append(options)
        return self.seen()

    def _compare(self, seen: ClusterHealth, etcd: Etcd) -> Comparison:
        assert etcd is self.handle
        assert seen.cluster is CLUSTER
        return self.found

    def _until(
        self,
        look: Callable[[], ClusterHealth],
        good: Callable[[ClusterHealth], bool],
        within: float = gates.HEALTHY_WITHIN,
    ) -> ClusterHealth:
        self.waited.append(within)
        found = look()
        for _ in range(5):
            if good(found):
                break
            found = look()
        return found

    def unsolved(self, kind: str) -> list[tuple[str, str]]:
        problems = alarms.unsolved(self.seen(), self.handle, kind)
        assert all(p.severity == "error" for p in problems)
        return [(p.where, p.id) for p in problems]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


class TestNospace:
    @pytest.mark.parametrize(("size", "full"), [(99, False), (100, True), (101, True)])
    def test_is_solved_when_every_database_is_below_its_quota(
        self, world: World, size: int, full: bool
    ) -> None:
        world.sizes["infra2"] = size
        assert world.unsolved("NOSPACE") == (
            [("etcd member infra2", "alarm-nospace")] if full else []
        )

    def test_every_full_member_is_named(self, world: World) -> None:
        world.sizes |= {"infra1": 100, "infra3": 200}
        assert [where for where, _ in world.unsolved("NOSPACE")] == [
            "etcd member infra1",
            "etcd member infra3",
        ]

    def test_a_quota_that_cannot_be_read_may_be_reached(self, world: World) -> None:
        world.quotas["infra1"] = "/metrics: refused"
        assert world.unsolved("NOSPACE") == [("etcd member infra1", "alarm-nospace")]

    def test_without_a_quota_nothing_is_full(self, world: World) -> None:
        world.quotas["infra1"] = -1
        world.sizes["infra1"] = 10_000
        assert world.unsolved("NOSPACE") == []

    def test_a_member_that_is_down_is_not_waited_for(self, world: World) -> None:
        world.looks = [{"infra2"}]
        world.sizes["infra2"] = 100
        assert world.unsolved("NOSPACE") == []


class TestCorrupt:
    def test_is_solved_when_all_voters_have_the_same_data(self, world: World) -> None:
        assert world.unsolved("CORRUPT") == []

    def test_the_odd_member_is_to_be_replaced(self, world: World) -> None:
        world.found = Comparison(9, {7: ("infra1", "infra2"), 8: ("infra3",)}, 3)
        (problem,) = alarms.unsolved(world.seen(), world.handle, "CORRUPT")
        assert (problem.where, problem.id) == ("etcd member infra3", "alarm-corrupt")
        assert problem.remedy == "invoke replace-member infra3"

    def test_without_a_majority_nobody_is_named(self, world: World) -> None:
        world.found = Comparison(9, {7: ("infra1",), 8: ("infra3",)}, 3)
        assert world.unsolved("CORRUPT") == [("etcd", "alarm-corrupt")]

    def test_a_voter_that_could_not_be_compared_may_be_the_odd_one(self, world: World) -> None:
        world.looks = [{"infra2"}]
        world.found = Comparison(9, {7: ("infra1", "infra3")}, 3)
        (problem,) = alarms.unsolved(world.seen(), world.handle, "CORRUPT")
        assert "2 of 3 voters could be compared" in problem.what
        assert "(infra2)" in problem.remedy

    def test_members_of_two_releases_are_not_compared(self, world: World) -> None:
        world.found = Comparison(9, {7: ("infra1", "infra3")}, 3)
        (problem,) = alarms.unsolved(world.seen(), world.handle, "CORRUPT")
        assert "releases differ" in problem.remedy

    def test_a_learner_is_no_voter(self, world: World) -> None:
        world.learners = {"infra3"}
        world.found = Comparison(9, {7: ("infra1", "infra2")}, 2)
        assert world.unsolved("CORRUPT") == []

    def test_the_only_voter_has_nobody_to_differ_from(self, world: World) -> None:
        world.learners = {"infra2", "infra3"}
        world.found = Comparison(0, {}, 1)
        assert world.unsolved("CORRUPT") == []


def test_an_alarm_that_this_tool_does_not_know_stays(world: World) -> None:
    assert world.unsolved("FIRE") == [("etcd", "alarm-raised")]


class TestDisarm:
    def test_only_alarms_of_that_kind_of_all_members(self, world: World) -> None:
        world.etcd.alarms = [NOSPACE, CORRUPT, Alarm(3, "NOSPACE")]
        alarms.disarm(world.handle, "NOSPACE").do()
        assert world.etcd.changes() == [("disarm", NOSPACE), ("disarm", Alarm(3, "NOSPACE"))]
        assert world.etcd.alarms == [CORRUPT]

    def test_the_cause_is_looked_at_when_the_call_runs(self, world: World) -> None:
        world.etcd.alarms = [NOSPACE]
        call = alarms.disarm(world.handle, "NOSPACE")
        world.sizes["infra2"] = 100
        with pytest.raises(Unhealthy, match="not solved") as refused:
            call.do()
        assert [p.where for p in refused.value.problems] == ["etcd member infra2"]
        assert refused.value.id == "alarm-nospace"
        assert world.etcd.calls == []

    def test_a_member_is_awaited_for_a_moment_only(self, world: World) -> None:
        world.etcd.alarms = [NOSPACE]
        world.looks = [{"infra1"}, {"infra1"}, set()]
        world.sizes["infra1"] = 100
        with pytest.raises(Unhealthy, match="not solved"):
            alarms.disarm(world.handle, "NOSPACE").do()
        assert world.waited == [gates.BACK_WITHIN]
        assert world.asked == [{"quotas": True}] * 3
        world.looks = [{"infra1"}]  # it stays away: no reason to wait on
        alarms.disarm(world.handle, "NOSPACE").do()
        assert world.etcd.alarms == []


class TestSettle:
    def test_what_is_solved_is_disarmed_and_the_rest_stays(self, world: World) -> None:
        world.etcd.alarms = [NOSPACE, CORRUPT]
        world.sizes["infra2"] = 100
        alarms.settle(world.handle).do()
        assert world.etcd.alarms == [NOSPACE]
        assert world.waited == [gates.HEALTHY_WITHIN]
        assert world.asked[0] == {"quotas": True}

    def test_not_before_every_member_is_back(self, world: World) -> None:
        world.etcd.alarms = [CORRUPT]
        world.looks = [{"infra3"}, set()]
        alarms.settle(world.handle).do()
        assert world.etcd.alarms == []
        world.etcd.alarms = [CORRUPT]
        world.looks = [{"infra3"}]
        with pytest.raises(Unhealthy, match="2 of 3 members are healthy"):
            alarms.settle(world.handle).do()
        assert world.etcd.alarms == [CORRUPT]


class TestPlan:
    def test_nothing_stands(self, world: World) -> None:
        plan = disarm_alarms.plan(world.handle)
        assert plan.steps == ()
        assert (plan.command, plan.cluster) == ("disarm-alarms", "c")
        assert world.asked == [{"quotas": True}]

    def test_one_call_for_each_kind(self, world: World) -> None:
        world.etcd.alarms = [NOSPACE, CORRUPT, Alarm(3, "NOSPACE")]
        plan = disarm_alarms.plan(world.handle)
        (step,) = plan.steps
        assert [call.what for call in step.calls] == [
            "disarm CORRUPT (the data of all members are the same; the alarm names no member)",
            "disarm NOSPACE (the fullest database has 10 B of 100 B; the alarm names infra2 and "
            "infra3)",
        ]
        assert set(plan.guards) == {m.machine for m in CLUSTER.members}
        assert world.etcd.calls == []
        step.calls[0].do()
        assert world.etcd.changes() == [("disarm", CORRUPT)]
        step.calls[1].do()
        assert world.etcd.alarms == []

    def test_all_that_is_unsolved_is_named_and_nothing_is_disarmed(self, world: World) -> None:
        world.etcd.alarms = [NOSPACE, CORRUPT]
        world.sizes["infra2"] = 100
        world.found = Comparison(9, {7: ("infra1", "infra2"), 8: ("infra3",)}, 3)
        with pytest.raises(Unhealthy, match="2 of 2 alarms are") as refused:
            disarm_alarms.plan(world.handle)
        assert [p.id for p in refused.value.problems] == ["alarm-corrupt", "alarm-nospace"]
        world.sizes["infra2"] = 1
        with pytest.raises(Unhealthy, match="1 of 2 alarms is"):
            disarm_alarms.plan(world.handle)


def test_alarms_are_asked_of_whoever_serves(world: World) -> None:
    world.etcd.alarms = [NOSPACE]
    assert alarms.standing(world.handle) == [NOSPACE]
    assert world.etcd.clients == [("any", None)]
