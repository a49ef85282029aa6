"""Waits for etcd and for workers, on a clock that only sleeps move: when they end, and what they
say."""

from __future__ import annotations

from typing import cast

import pytest

from provision.alluxio.membership import registrations
from provision.errors import Unhealthy
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdUnreachable
from provision.etcd.api.values import Endpoint, MemberStatus
from provision.etcd.cluster import gates, health, scratch
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.plans.alluxio import decommission_worker
from provision.plans.etcd.data import defrag_etcd
from provision.ssh.session import Fleet
from tests.unit import builders
from tests.unit.clock import Clock, install

CLUSTER = builders.etcd()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return install(monkeypatch)


def status(number: int = 1, *, leader: int = 1, in_use: int = 0) -> MemberStatus:
    return MemberStatus(
        0xC, number, "3.6.16", in_use, in_use, leader, 7, 2, 9, is_learner=False, errors=()
    )


def health_of(*in_use: int) -> ClusterHealth:
    return ClusterHealth(
        CLUSTER,
        tuple(
            MemberHealth(m, status=status(n, in_use=used))
            for n, (m, used) in enumerate(zip(CLUSTER.members, in_use, strict=True), 1)
        ),
    )


def test_a_scratch_member_that_does_not_serve_says_why(clock: Clock) -> None:
    class Silent:
        endpoint = Endpoint("127.0.0.1", 1)

        def status(self) -> MemberStatus:
            return status(leader=0)

    with pytest.raises(EtcdUnreachable, match="it has no leader"):
        scratch._wait(cast(EtcdClient, Silent()))
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
    with Fleet(1) as fleet:
        defrag_etcd._wait_compacted(Etcd(CLUSTER, fleet), 20.0)
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
