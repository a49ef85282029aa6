"""What health says of members without asking any; the rest is in tests/component."""

from __future__ import annotations

import dataclasses
import socket

import pytest

from provision.errors import Problem
from provision.etcd.api.errors import EtcdUnreachable
from provision.etcd.api.values import RegisteredMember
from provision.etcd.cluster import health, reach
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.inventory.resolved import Machine
from provision.ssh.connect import Forwarding
from provision.ssh.session import Fleet, Stats, Unreachable
from tests.unit.builders import etcd, member
from tests.unit.test_check import STATUS, healthy


class Refusing(Fleet):
    """Hosts whose SSH works but forwards nothing, or does not work."""

    def __init__(self, forwarding: Forwarding | None) -> None:
        super().__init__(1, Stats())
        self.forwarding = forwarding

    def session(self, machine: Machine) -> Refusing:  # type: ignore[override]
        return self

    def open_tcp(self, *_: object, **__: object) -> None:
        problem = Problem("h", "connect: login refused", "load the key", id="disk-full")
        raise Unreachable(
            "h: login refused", [problem], id="ssh-login-refused", forwarding=self.forwarding
        )


REFUSED, TIMEOUT = ConnectionRefusedError(), TimeoutError()


@pytest.mark.parametrize(
    ("direct", "forwarding", "said"),
    [
        (REFUSED, "refused", "connection refused (by its own host, too)"),
        (
            TIMEOUT,
            "refused",
            "connection refused (by its own host; from here: no answer in 1 s)",
        ),
        (
            TIMEOUT,
            "prohibited",
            "no answer (in 1 s; its sshd does not forward connections (AllowTcpForwarding))",
        ),
        (
            REFUSED,
            "prohibited",
            "connection refused (its sshd does not forward connections (AllowTcpForwarding))",
        ),
        (REFUSED, None, "connection refused (through SSH: connect: login refused)"),
        (
            socket.gaierror(),
            None,
            "not available (the name 10.0.0.1 does not resolve here; "
            "through SSH: connect: login refused)",
        ),
    ],
)
def test_both_ways_failed(
    direct: Exception,
    forwarding: Forwarding | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def connect(*_: object) -> socket.socket:
        raise direct

    monkeypatch.setattr(socket, "create_connection", connect)
    with (
        pytest.raises(EtcdUnreachable) as caught,
        reach.open_route(Etcd(etcd(), Refusing(forwarding)), member(1), 2379),
    ):
        pass
    assert caught.value.problems[0].what == said
    # A refusal shows that the way is open.
    closed = not isinstance(direct, ConnectionRefusedError) and forwarding == "prohibited"
    assert isinstance(caught.value, reach.NoWay) is closed
    seen = health.observe(Etcd(etcd(member(1)), Refusing(forwarding)))
    assert [m.no_way for m in seen.members] == [closed]


def registered(number: int, name: str | None = None) -> RegisteredMember:
    url = member(number).peer_url
    name = f"infra{number}" if name is None else name
    return RegisteredMember(number, name, (url,), (), False)


def with_members(*found: RegisteredMember) -> ClusterHealth:
    seen = healthy()
    members = tuple(dataclasses.replace(m, registered=found) for m in seen.members)
    return ClusterHealth(seen.cluster, members)


def test_a_member_that_has_not_begun_is_known_by_its_peer_url() -> None:
    seen = with_members(registered(1), registered(2), registered(3, ""))
    assert seen.problems == []


def test_members_that_the_inventory_does_not_have() -> None:
    seen = with_members(registered(1), registered(2), registered(3), registered(9, ""))
    assert [str(p) for p in seen.problems] == [
        "etcd member 9: is in the cluster (http://10.0.0.9:2380), but not in the inventory "
        "(declare it, or remove it: invoke deploy-etcd --remove 9)"
    ]


def test_two_leaders_are_a_problem_and_none_is_named() -> None:
    seen = healthy()
    assert seen.leader == "infra1"
    status = dataclasses.replace(STATUS, member_id=3, leader=3)
    split = ClusterHealth(
        seen.cluster, (*seen.members[:2], dataclasses.replace(seen.members[2], status=status))
    )
    assert split.leader is None
    assert [p.what for p in split.problems] == [
        "the members do not agree on a leader (infra1, infra2: 1; infra3: 3)"
    ]


def test_a_member_that_answers_but_serves_nothing() -> None:
    cluster = etcd(member(1))
    alone = MemberHealth(
        member(1), "direct", dataclasses.replace(STATUS, leader=0), error="no leader", remedy="x"
    )
    seen = ClusterHealth(cluster, (alone,))
    assert (seen.leader, seen.established, seen.all_healthy) == (None, True, False)
    assert [str(p) for p in seen.problems] == [
        "etcd member infra1: answers, but serves no reads: no leader (x)"
    ]


def test_the_leaders_list_of_members_is_preferred() -> None:
    seen = healthy()
    old, new = (registered(1),), (registered(1), registered(2))
    members = (
        dataclasses.replace(seen.members[1], registered=old),
        dataclasses.replace(seen.members[0], registered=new),
    )
    assert ClusterHealth(seen.cluster, members).registered == new
    assert ClusterHealth(seen.cluster, members[:1]).registered == old


@pytest.mark.parametrize(("share", "warned"), [(0.79, False), (0.81, True)])
def test_a_database_that_is_nearly_full(share: float, warned: bool) -> None:
    """By the quota in force, which the inventory's may not have reached."""
    nearly = dataclasses.replace(STATUS, db_size=int(share * 1000))
    small = member(1, settings={"quota-backend-bytes": 10})
    before_3_6 = MemberHealth(small, status=nearly, measured_quota=1000)
    told = MemberHealth(small, status=dataclasses.replace(nearly, quota=1000))
    assert (before_3_6.quota, told.quota) == (1000, 1000)
    seen = ClusterHealth(etcd(small), (before_3_6,))
    found = [p for p in seen.problems if "of its quota" in p.what]
    assert len(found) == warned
    assert all(p.severity == "warning" for p in found)


def test_a_learner_is_a_warning() -> None:
    learner = MemberHealth(member(1), status=dataclasses.replace(STATUS, is_learner=True))
    (found,) = [
        p for p in ClusterHealth(etcd(member(1)), (learner,)).problems if "learner" in p.what
    ]
    assert (found.id, found.severity) == ("member-is-learner", "warning")


def test_a_quota_that_is_not_known_is_not_guessed() -> None:
    full = dataclasses.replace(STATUS, db_size=1 << 40)
    unknown = MemberHealth(member(1), status=full, measured_quota="/metrics: timed out")
    assert (unknown.quota, unknown.quota_known) == (None, False)
    (found,) = [p for p in ClusterHealth(etcd(member(1)), (unknown,)).problems if "quota" in p.what]
    assert (found.id, found.severity) == ("etcd-space-low", "warning")
    assert "not known: /metrics: timed out" in found.what
    none = MemberHealth(member(1), status=full, measured_quota=-1)
    assert (none.quota, none.quota_known) == (None, True)


@pytest.mark.parametrize(
    ("release", "said"), [("3.5.5", ["defragmentation"]), ("3.5.6", []), ("x", [])]
)
def test_a_release_that_damages_data_is_a_warning(release: str, said: list[str]) -> None:
    status = dataclasses.replace(STATUS, version=release)
    seen = ClusterHealth(etcd(), tuple(MemberHealth(m, status=status) for m in etcd().members))
    found = [p for p in seen.problems if p.id == "etcd-version-unfit"]
    assert len(found) == len(said)
    assert all(word in p.what for word, p in zip(said, found, strict=True))
    assert {p.severity for p in found} <= {"warning"}
