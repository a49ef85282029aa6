"""Waits for etcd and for workers, on a clock that only sleeps move: when they end, and what they
say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from provision.alluxio.membership import registrations
from provision.errors import Unhealthy
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdRefused, EtcdUnreachable, Reason
from provision.etcd.api.values import Endpoint, MemberStatus, RegisteredMember
from provision.etcd.cluster import gates, health, reconfigure, scratch
from provision.etcd.cluster.handle import Etcd, NoLeader
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.inventory.resolved import EtcdMember
from provision.plans.alluxio import decommission_worker
from provision.plans.etcd import upgrade_etcd
from provision.plans.etcd.data import defrag_etcd
from provision.ssh.session import Fleet
from tests.unit import builders
from tests.unit.clock import Clock, install

CLUSTER = builders.etcd()
FIRST, SECOND = CLUSTER.members[:2]
HERE = Endpoint("10.0.0.1", 2379, "infra1")
AWAY = EtcdUnreachable(HERE, Reason.TIMEOUT, "no answer")
NOT_YET = EtcdRefused(
    HERE, "can only promote a learner member which is in sync with leader", id="etcd-refused"
)
PASSING = EtcdRefused(HERE, "etcdserver: unhealthy cluster", id="etcd-refused")
FOR_GOOD = EtcdRefused(HERE, "etcdserver: permission denied", id="etcd-refused")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return install(monkeypatch)


def status(number: int = 1, *, leader: int = 1, in_use: int = 0, revision: int = 7) -> MemberStatus:
    return MemberStatus(
        0xC, number, "3.6.16", in_use, in_use, leader, revision, 2, 9, is_learner=False, errors=()
    )


def health_of(*in_use: int, sick: bool = False, leader: int = 1) -> ClusterHealth:
    return ClusterHealth(
        CLUSTER,
        tuple(
            MemberHealth(m, status=status(n, leader=leader, in_use=used), error="away" * sick)
            for n, (m, used) in enumerate(zip(CLUSTER.members, in_use, strict=True), 1)
        ),
    )


@dataclass
class Client:
    """What the leader answers: a learner, and an error for each promotion."""

    refusal: Exception
    promoted: int = 0

    def member_list(self) -> list[RegisteredMember]:
        return [RegisteredMember(2, SECOND.name, (SECOND.peer_url,), (), is_learner=True)]

    def member_promote(self, _: int) -> None:
        self.promoted += 1
        raise self.refusal


@dataclass
class Cluster:
    """A handle on etcd. ``silent``: the learner does not answer from this time on."""

    client: Any
    clock: Clock
    silent: float = float("inf")
    cluster: Any = CLUSTER
    fleet: Any = field(default_factory=lambda: Fleet(1))

    @contextlib.contextmanager
    def leader(self, **_: object) -> Iterator[tuple[Any, EtcdMember]]:
        yield self.client, FIRST

    @contextlib.contextmanager
    def member(self, _: EtcdMember) -> Iterator[Any]:
        if self.clock.time >= self.silent:
            raise AWAY
        yield self

    def status(self) -> MemberStatus:
        return status()


def handle(client: object, clock: Clock, silent: float = float("inf")) -> Etcd:
    return cast(Etcd, Cluster(client, clock, silent))


def test_a_learner_that_answers_has_ten_minutes_to_catch_up(clock: Clock) -> None:
    client = Client(NOT_YET)
    with pytest.raises(Unhealthy, match="infra2 has not caught up: it stays a learner") as late:
        reconfigure.promote(handle(client, clock), SECOND)
    assert [p.what for p in late.value.problems] == ["is at revision 7 after 600 s"]
    assert sum(clock.slept) == reconfigure.CAUGHT_UP_WITHIN
    assert client.promoted == 600 / reconfigure.POLL_SECONDS + 1


def test_a_learner_that_is_silent_has_less(clock: Clock) -> None:
    silent = clock.time + 100
    with pytest.raises(Unhealthy) as late:
        reconfigure.promote(handle(Client(NOT_YET), clock, silent), SECOND)
    assert [p.what for p in late.value.problems] == [
        f"does not answer on {SECOND.client_url} for 45 s"
    ]
    heard = 100 - reconfigure.POLL_SECONDS
    assert sum(clock.slept) == heard + reconfigure.SILENT_FOR


def test_a_promotion_that_is_refused_for_good_is_not_repeated(clock: Clock) -> None:
    with pytest.raises(EtcdRefused):
        reconfigure.promote(handle(Client(FOR_GOOD), clock), SECOND)
    assert clock.slept == []


@pytest.mark.parametrize("error", [PASSING, AWAY, NoLeader("none", id="quorum-lost")])
def test_a_change_is_repeated_as_long_as_its_error_may_pass(clock: Clock, error: Exception) -> None:
    calls = []

    def change(client: EtcdClient) -> None:
        calls.append(client)
        raise error

    with pytest.raises(type(error)):
        reconfigure.retry_on_leader(handle("client", clock), change)
    assert sum(clock.slept) == reconfigure.ACCEPTED_WITHIN
    assert len(calls) == len(clock.slept) + 1


def test_a_change_that_is_refused_for_good_is_not_repeated(clock: Clock) -> None:
    def change(_: EtcdClient) -> None:
        raise FOR_GOOD

    with pytest.raises(EtcdRefused):
        reconfigure.retry_on_leader(handle("client", clock), change)
    assert clock.slept == []


@pytest.mark.parametrize(
    ("looks", "leader"), [((1, 1, 2), ""), ((1,), "infra1"), ((0,), "no member")]
)
def test_a_member_leads_when_it_says_so_itself(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, looks: Sequence[int], leader: str
) -> None:
    left = list(looks)

    def observe(_: Etcd) -> ClusterHealth:
        return health_of(0, 0, 0, leader=left.pop(0) if len(left) > 1 else left[0])

    monkeypatch.setattr(reconfigure, "retry_on_leader", lambda *_: None)
    monkeypatch.setattr(health, "observe", observe)
    etcd = handle("client", clock)
    if not leader:
        reconfigure.move_leadership_to(etcd, SECOND)
        assert clock.slept == [reconfigure.POLL_SECONDS] * 2
        return
    with pytest.raises(Unhealthy, match=f"infra2 was asked to lead, but {leader} leads"):
        reconfigure.move_leadership_to(etcd, SECOND)
    assert sum(clock.slept) == reconfigure.ACCEPTED_WITHIN


def test_members_that_stay_down_fail_the_gate_after_its_time(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "observe", lambda _: health_of(0, 0, 0, sick=True))
    with pytest.raises(Unhealthy, match="0 of 3 members are healthy"):
        gates.all_healthy(handle("client", clock), FIRST).check()
    assert sum(clock.slept) == pytest.approx(gates.HEALTHY_WITHIN, abs=gates.POLL_SECONDS)


def test_healthy_members_without_a_write_have_one_time_for_both(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(*_: object) -> None:
        raise Unhealthy("no write", id="quorum-lost")

    monkeypatch.setattr(health, "observe", lambda _: health_of(0, 0, 0))
    monkeypatch.setattr(health, "verify_write", verify)
    with pytest.raises(Unhealthy, match="no write"):
        gates.all_healthy(handle("client", clock), FIRST).check()
    assert sum(clock.slept) == pytest.approx(gates.HEALTHY_WITHIN, abs=gates.POLL_SECONDS)


@pytest.mark.parametrize(
    ("versions", "said"),
    [([None, (3, 5), (3, 6)], ""), ([(3, 5)], "3.5"), ([None], "not known")],
)
def test_the_cluster_version_follows_the_members(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    versions: list[tuple[int, int] | None],
    said: str,
) -> None:
    def version(*_: object) -> tuple[int, int]:
        now = versions.pop(0) if len(versions) > 1 else versions[0]
        if now is None:
            raise Unhealthy("does not say", id="member-down")
        return now

    monkeypatch.setattr(upgrade_etcd, "cluster_version", version)
    etcd = handle("client", clock)
    if not said:
        upgrade_etcd._wait_for_version(etcd, FIRST, (3, 6))
        assert len(clock.slept) == 2
        return
    with pytest.raises(Unhealthy, match=f"after 60 s the cluster version is {said}"):
        upgrade_etcd._wait_for_version(etcd, FIRST, (3, 6))
    assert sum(clock.slept) == upgrade_etcd.VERSION_WITHIN


def test_a_scratch_member_that_does_not_serve_says_why(clock: Clock) -> None:
    class Silent:
        def status(self) -> MemberStatus:
            return status(leader=0)

    with pytest.raises(Unhealthy, match="the scratch member does not serve: it has no leader"):
        scratch._wait(FIRST, cast(EtcdClient, Silent()))
    assert sum(clock.slept) == pytest.approx(scratch.STARTS_WITHIN, abs=0.2)


@pytest.mark.parametrize(
    ("name", "looks", "seconds"),
    [
        ("all have freed it", [(9, 9, 9), (1, 1, 1)], defrag_etcd.ALIKE_FOR),
        ("one stays large", [(9, 1, 1)], defrag_etcd.STILL_FOR),
        ("one goes on", [(100 - n, 1, 1) for n in range(99)], 20.0),
    ],
)
def test_compacted_pages_are_freed_by_every_member(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    looks: list[tuple[int, ...]],
    seconds: float,
) -> None:
    """Each look stands for a second; in use are so many times ten MB."""
    left = list(looks)
    begun = clock.time

    def observe(_: Etcd) -> ClusterHealth:
        now = left[min(int(clock.time - begun), len(left) - 1)]
        return health_of(*(10 * n << 20 for n in now))

    monkeypatch.setattr(health, "observe", observe)
    defrag_etcd._wait_compacted(handle("client", clock), 20.0)
    assert sum(clock.slept) == pytest.approx(seconds, abs=2 * gates.POLL_SECONDS), name


@pytest.mark.parametrize("closes", [True, False])
def test_a_workers_port_closes_in_time(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    alluxio = builders.alluxio(builders.worker("w1"))
    looks = []

    def answers(*_: object) -> bool:
        looks.append(clock.time)
        return not (closes and len(looks) == 3)

    monkeypatch.setattr(registrations, "port_answers", answers)
    with Fleet(1) as fleet:
        if closes:
            decommission_worker._closed(alluxio, fleet, alluxio.workers[0])
            assert clock.slept == [decommission_worker.POLL_SECONDS] * 2
            return
        with pytest.raises(Unhealthy, match=r"w1: port \d+ still takes connections"):
            decommission_worker._closed(alluxio, fleet, alluxio.workers[0])
    assert sum(clock.slept) == alluxio.start_timeout
