"""How the members are asked whether they serve, with clients that are made up."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from provision.errors import ProvisionError, Unhealthy
from provision.etcd.api.client import DEFAULT_TIMEOUT
from provision.etcd.api.errors import EtcdRefused, EtcdUnreachable, Reason
from provision.etcd.api.values import ClientTls, Endpoint, KvHash, Login, RegisteredMember
from provision.etcd.cluster import hashes, health, metrics, served_certs
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.cluster.reach import Reach, Route
from provision.etcd.cluster.served_certs import CertificateState
from provision.inventory.resolved import Established, EtcdCluster, EtcdMember
from provision.ssh.session import Fleet
from tests.unit.builders import etcd, member
from tests.unit.test_check import STATUS

ONE, TWO, THREE = (member(n) for n in (1, 2, 3))
CLUSTER = etcd(ONE, TWO, THREE)
LISTED = tuple(
    RegisteredMember(n, m.name, (m.peer_url,), (), False)
    for n, m in enumerate((ONE, TWO, THREE), 1)
)
ROOT = Login("root", "r")
SHOWN = (CertificateState("client", None, "shown"),)
TLS = ClientTls(b"ca")


def failed(reason: Reason) -> Callable[[], None]:
    def fail() -> None:
        raise EtcdUnreachable(Endpoint("10.0.0.1", 2379), reason)

    return fail


class Client:
    def __init__(self, world: World, m: EtcdMember, end: Endpoint, options: dict[str, Any]) -> None:
        self.world, self.member, self.end, self.options = world, m, end, options
        self.logged_in = bool(world.asks_for_login and options["login"])

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.world.open_clients -= 1

    def _do(self, call: str) -> None:
        self.world.calls.append((self.member.name, call))
        fail = self.world.fail.get((self.member.name, call))
        if fail is not None:
            fail()

    def status(self) -> Any:
        self._do("status")
        return replace(
            STATUS, member_id=self.world.ids[self.member.name], quota=self.world.quota,
            cluster_id=self.world.clusters.get(self.member.name, 1),
        )  # fmt: skip

    def member_list(self) -> list[RegisteredMember]:
        self._do("member_list")
        return list(LISTED)

    def get(self, key: str) -> None:
        assert key == "health"
        self.world.clock += 0.25
        self._do("get")

    def quorum_write(self, name: str) -> None:
        assert name == self.member.name
        self._do("write")


class World:
    """Three members that serve; ``fail`` has what a member's call does instead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids = {"infra1": 1, "infra2": 2, "infra3": 3}
        self.clusters: dict[str, int] = {}
        self.quota = 0
        self.clock = 100.0
        self.asks_for_login = False
        self.fail: dict[tuple[str, str], Callable[[], None]] = {}
        self.calls: list[tuple[str, str]] = []
        self.clients: list[Client] = []
        self.open_clients = 0
        self.shown: list[tuple[EtcdMember, Route | None]] = []
        self.measured: Callable[[], int] = lambda: 77
        monkeypatch.setattr(health, "preload", lambda: self.calls.append(("", "preload")))
        monkeypatch.setattr(health, "client_tls", lambda cluster, m: (TLS, cluster, m))
        monkeypatch.setattr(health, "open_route", self._open_route)
        monkeypatch.setattr(health, "EtcdClient", self._client)
        monkeypatch.setattr(served_certs, "shown_certificates", self._shown)
        monkeypatch.setattr(metrics, "quota", lambda *args: self._quota(*args))
        monkeypatch.setattr(time, "monotonic", lambda: self.clock)
        monkeypatch.setattr(Reach, "member", self._member)

    @property
    def _open_route(self) -> Any:
        @contextlib.contextmanager
        def enter(_: Reach, m: EtcdMember, port: int) -> Iterator[tuple[Endpoint, Route]]:
            assert port == m.client_port
            fail = self.fail.get((m.name, "route"))
            if fail is not None:
                fail()
            yield Endpoint(m.address, port, m.name), "tunnel"

        return enter

    def _client(self, end: Endpoint, **options: Any) -> Client:
        of = next(m for m in CLUSTER.members if m.name == end.name)
        assert options["tls"] == (TLS, options["tls"][1], of)
        self.clients.append(Client(self, of, end, options))
        self.open_clients += 1
        return self.clients[-1]

    def _shown(self, _: Reach, m: EtcdMember, how: Route) -> tuple[CertificateState, ...]:
        self.shown.append((m, how))
        return SHOWN

    def _quota(self, cluster: EtcdCluster, m: EtcdMember, end: Endpoint) -> int:
        assert (cluster, end.name) == (CLUSTER, m.name)
        return self.measured()

    @property
    def _member(self) -> Any:
        @contextlib.contextmanager
        def enter(_: Reach, m: EtcdMember, *, timeout: float) -> Iterator[Client]:
            options = {"timeout": timeout, "login": None}
            self.clients.append(Client(self, m, Endpoint(m.address, m.client_port), options))
            yield self.clients[-1]

        return enter


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


@pytest.fixture
def handle() -> Etcd:
    return Etcd(CLUSTER, Fleet(1))


class TestLook:
    def test_each_member_is_healthy_by_a_read_through_itself(
        self, world: World, handle: Etcd
    ) -> None:
        world.ids = {"infra1": 1, "infra2": 2, "infra3": 3}
        found = health.observe(handle)
        assert found.cluster is CLUSTER
        assert [m.member for m in found.members] == [ONE, TWO, THREE]
        for n, m in enumerate(found.members, 1):
            assert (m.healthy, m.error, m.remedy, m.how) == (True, "", "", "tunnel")
            assert m.status is not None
            assert (m.status.member_id, m.registered, m.refused) == (n, LISTED, False)
            assert (m.authenticated, m.certificates, m.measured_quota) == (None, (), None)
            assert m.seconds is not None
            assert m.seconds >= 0.25
        assert sorted(call for _, call in world.calls if call == "get") == ["get"] * 3
        assert ("", "preload") in world.calls
        assert world.open_clients == 0
        assert {c.options["timeout"] for c in world.clients} == {DEFAULT_TIMEOUT}
        assert {id(c.options["tokens"]) for c in world.clients} == {id(handle.learned.tokens)}
        assert world.shown == []

    def test_the_time_is_that_of_the_read(self, world: World) -> None:
        cluster = etcd(ONE)
        (found,) = health.observe(Etcd(cluster, Fleet(1))).members
        assert found.seconds == 0.25

    def test_the_first_that_serves_is_noted_and_one_that_fails_is_not(
        self, world: World, handle: Etcd
    ) -> None:
        world.fail = {(m.name, "get"): failed(Reason.NO_QUORUM) for m in (ONE, THREE)}
        health.observe(handle)
        assert handle.learned.serving(CLUSTER) == (TWO, "tunnel")
        world.fail = {("infra2", "get"): failed(Reason.NO_QUORUM)}
        health.observe(handle)
        assert handle.learned.serving(CLUSTER) == (TWO, "tunnel")  # the choice is kept

    def test_a_member_that_answers_and_serves_nothing(self, world: World, handle: Etcd) -> None:
        world.fail = {("infra2", "get"): failed(Reason.NO_QUORUM)}
        found = health.observe(handle)
        assert [m.healthy for m in found.members] == [True, False, True]
        sick = found.members[1]
        assert sick.status is not None
        assert sick.registered == LISTED
        assert (sick.how, sick.seconds, sick.refused) == ("tunnel", None, False)
        assert (sick.error_id, sick.error) == ("quorum-lost", Reason.NO_QUORUM.value)
        assert sick.remedy == "start the members that are down"

    def test_a_member_that_cannot_be_reached(self, world: World, handle: Etcd) -> None:
        world.fail = {("infra2", "route"): failed(Reason.REFUSED)}
        sick = health.observe(handle, certificates=True).members[1]
        assert (sick.status, sick.how, sick.registered, sick.certificates) == (None, None, (), ())
        assert (sick.error_id, sick.error) == ("member-down", "connection refused")
        # Its certificates are not asked for without a way to it.
        assert sorted(m.name for m, _ in world.shown) == ["infra1", "infra3"]

    def test_certificates_are_shown_also_by_a_member_that_refuses(
        self, world: World, handle: Etcd
    ) -> None:
        world.fail = {("infra2", "status"): failed(Reason.TLS)}
        sick = health.observe(handle, certificates=True).members[1]
        assert (sick.certificates, sick.status, sick.error_id) == (SHOWN, None, "etcd-tls-failed")
        assert (TWO, "tunnel") in world.shown

    @pytest.mark.parametrize(
        ("reason", "serves"), [(Reason.DENIED, True), (Reason.LOGIN, False), (Reason.CLOSED, False)]
    )
    def test_a_read_that_is_not_permitted_went_through_a_quorum(
        self, world: World, handle: Etcd, reason: Reason, serves: bool
    ) -> None:
        world.fail = {("infra2", "get"): failed(reason)}
        found = health.observe(handle).members[1]
        assert found.healthy is serves
        assert found.refused is (reason is Reason.LOGIN)

    def test_a_refused_login(self, world: World, handle: Etcd) -> None:
        """From etcd 3.6 on ``Status`` is refused, too."""
        world.fail = {("infra2", "status"): failed(Reason.LOGIN)}
        found = health.observe(handle).members[1]
        assert (found.status, found.refused, found.error_id) == (None, True, "etcd-login-refused")

    @pytest.mark.parametrize("asks", [True, False])
    def test_whether_the_login_was_asked_for(self, world: World, asks: bool) -> None:
        world.asks_for_login = asks
        found = health.observe(Etcd(CLUSTER, Fleet(1), ROOT))
        assert {m.authenticated for m in found.members} == {asks}
        assert {c.options["login"] for c in world.clients} == {ROOT}

    def test_the_time_limit_is_that_of_each_call(self, world: World, handle: Etcd) -> None:
        health.observe(handle, timeout=7.5)
        assert {c.options["timeout"] for c in world.clients} == {7.5}

    @pytest.mark.parametrize(
        "established",
        [Established(0xC1), Established(1, frozenset({2})), Established(0xC1, name="c1")],
    )
    def test_a_member_of_another_cluster_is_not_healthy(
        self, world: World, established: Established
    ) -> None:
        """It serves, and its answers must not count: neither its status nor its list."""
        if established.cluster_id == 0xC1:
            world.clusters = {"infra1": 0xC1, "infra2": 0xDD, "infra3": 0xC1}
        cluster = replace(CLUSTER, established=established)
        handle = Etcd(cluster, Fleet(1))
        one, two, three = health.observe(handle).members
        assert (one.healthy, three.healthy) == (True, True)
        assert (two.healthy, two.status, two.registered) == (False, None, ())
        assert two.error_id == "member-odd"
        of = "dd" if established.cluster_id == 0xC1 else "1"
        assert two.error == (
            f"is not a member of the cluster that this command works on, but of cluster {of}"
        )
        option = " --cluster-id c1" if established.name else ""
        assert two.remedy == f"invoke replace-member infra2{option}"
        assert ("infra2", "get") not in world.calls
        noted = handle.learned.serving(cluster)
        assert noted is not None
        assert noted[0] != TWO

    def test_the_error_of_a_member_of_another_cluster_names_it(self) -> None:
        error = health._outside(CLUSTER, TWO, 0xDD)
        assert (error.id, error.problems[0].id) == ("member-odd", "member-odd")
        assert error.problems[0].where == "etcd member infra2"
        assert error.message == f"etcd member infra2 {error.problems[0].what}"

    def test_the_quota_is_measured_where_etcd_does_not_tell_it(
        self, world: World, handle: Etcd
    ) -> None:
        assert {m.measured_quota for m in health.observe(handle, quotas=True).members} == {77}
        assert {m.measured_quota for m in health.observe(handle).members} == {None}
        world.quota = 5
        assert {m.measured_quota for m in health.observe(handle, quotas=True).members} == {None}

    def test_a_quota_that_cannot_be_read_makes_no_member_unhealthy(
        self, world: World, handle: Etcd
    ) -> None:
        def fail() -> int:
            raise ProvisionError("/metrics: timed out", id="read-failed")

        world.measured = fail
        found = health.observe(handle, quotas=True)
        assert {(m.healthy, m.measured_quota) for m in found.members} == {
            (True, "/metrics: timed out")
        }

    def test_members_are_asked_at_the_same_time(self, world: World, handle: Etcd) -> None:
        together = threading.Barrier(3, timeout=5)

        def meet() -> None:
            together.wait()

        world.fail = {(m.name, "status"): meet for m in CLUSTER.members}
        assert health.observe(handle).all_healthy

    def test_who_stops_looking_does_not_wait_for_the_others(
        self, world: World, handle: Etcd
    ) -> None:
        ready = threading.Event()

        def hang() -> None:
            ready.wait(5)

        world.fail = {(m.name, "status"): hang for m in (ONE, THREE)}
        with contextlib.closing(health.observing(handle)) as looks:
            first = next(looks)
        assert not ready.is_set()
        ready.set()
        assert first.member == TWO


class TestWrite:
    def test_through_each_member(self, world: World, handle: Etcd) -> None:
        health.verify_write(handle)
        # Looks of a test before may still be on their way: a closed look does not wait for them.
        written = sorted(c for c in world.calls if c[1] == "write")
        assert written == [(m.name, "write") for m in CLUSTER.members]
        assert {c.options["timeout"] for c in world.clients} == {DEFAULT_TIMEOUT}

    def test_through_one(self, world: World, handle: Etcd) -> None:
        world.fail = {("infra1", "write"): failed(Reason.TIMEOUT)}
        health.verify_write(handle, TWO, timeout=3.5)
        assert [c for c in world.calls if c[1] == "write"] == [("infra2", "write")]
        assert {c.options["timeout"] for c in world.clients} == {3.5}

    def test_every_failure_is_named(self, world: World, handle: Etcd) -> None:
        def no_space() -> None:
            raise EtcdRefused(Endpoint("10.0.0.3", 2379), "no space", "defrag", id="alarm-nospace")

        world.fail = {("infra2", "write"): failed(Reason.REFUSED), ("infra3", "write"): no_space}
        with pytest.raises(Unhealthy) as caught:
            health.verify_write(handle)
        assert caught.value.message == "no quorum write through 2 of 3 etcd members"
        assert caught.value.id == "member-down"
        two, three = caught.value.problems
        assert (two.where, two.what, two.id) == (
            "etcd member infra2", "takes no writes: connection refused", "member-down",
        )  # fmt: skip
        assert (three.where, three.what, three.remedy, three.id) == (
            "etcd member infra3", "takes no writes: no space", "defrag", "alarm-nospace",
        )  # fmt: skip


class TestHash:
    """The hashes that :mod:`hashes` compares, each from the member itself."""

    @staticmethod
    def voters(*sizes: int) -> list[MemberHealth]:
        return [
            MemberHealth(m, "tunnel", replace(STATUS, db_size=size))
            for m, size in zip(CLUSTER.members, sizes, strict=False)
        ]

    def test_each_is_asked_for_the_revision_and_in_its_order(
        self, handle: Etcd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[str, float, Route | None, int]] = []

        @contextlib.contextmanager
        def enter(_: Reach, m: EtcdMember, *, timeout: float, how: Route | None) -> Iterator[Any]:
            class Asked:
                def hash_kv(self, revision: int) -> KvHash:
                    asked.append((m.name, timeout, how, revision))
                    if m == TWO:
                        raise EtcdRefused(
                            Endpoint(m.address, m.client_port),
                            "mvcc: required revision has been compacted",
                            id="etcd-refused",
                        )
                    return KvHash(int(m.name[-1]), revision, 3)

            yield Asked()

        monkeypatch.setattr(Reach, "member", enter)
        largest = hashes.HASHED_PER_SECOND * 10
        told = hashes._ask(handle, self.voters(1, largest, 2), 9)
        assert told == [KvHash(1, 9, 3), None, KvHash(3, 9, 3)]
        # The largest database limits the time of each.
        assert sorted(asked) == [(f"infra{n}", 40.0, "tunnel", 9) for n in (1, 2, 3)]

    def test_any_other_refusal_ends_the_comparison(
        self, handle: Etcd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @contextlib.contextmanager
        def enter(*_: object, **__: object) -> Iterator[Any]:
            raise EtcdRefused(Endpoint("10.0.0.1", 2379), "permission denied", id="etcd-refused")
            yield

        monkeypatch.setattr(Reach, "member", enter)
        with pytest.raises(EtcdRefused, match="permission denied"):
            hashes._ask(handle, self.voters(1, 1, 1), 9)


class TestRole:
    @staticmethod
    def seen(*found: MemberHealth) -> ClusterHealth:
        return ClusterHealth(CLUSTER, found)

    def test_the_role_of_each(self) -> None:
        leads = MemberHealth(ONE, status=STATUS)
        follows = MemberHealth(TWO, status=replace(STATUS, member_id=2))
        learns = MemberHealth(THREE, status=replace(STATUS, member_id=3, is_learner=True))
        down = MemberHealth(THREE, error="no answer")
        found = self.seen(leads, follows, learns)
        assert [found.role(m) for m in found.members] == ["leader", "follower", "learner"]
        assert found.role(down) == "-"
        # Without a leader that all agree on, none is shown.
        split = self.seen(replace(leads, status=replace(STATUS, leader=2)), leads)
        assert [split.role(m) for m in split.members] == ["follower", "follower"]


class TestQuorum:
    """How many voters a quorum has: etcd's count, not the inventory's."""

    @staticmethod
    def seen(voters: int, learners: int = 0, **changed: Any) -> ClusterHealth:
        listed = tuple(
            RegisteredMember(n, f"infra{n}", (), (), n > voters)
            for n in range(1, voters + learners + 1)
        )
        found = MemberHealth(ONE, status=STATUS, registered=listed)
        return ClusterHealth(replace(CLUSTER, **changed), (found,))

    @pytest.mark.parametrize(
        ("voters", "quorum"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)]
    )
    def test_of_the_voters_in_etcd(self, voters: int, quorum: int) -> None:
        assert self.seen(voters).quorum == quorum
        assert self.seen(voters, learners=2).quorum == quorum

    def test_of_the_inventory_when_no_member_answers(self) -> None:
        assert self.seen(0).quorum == 2
        assert ClusterHealth(CLUSTER, ()).quorum == 2

    def test_of_the_endpoints_of_an_external_etcd(self) -> None:
        external = self.seen(7, members=(ONE, TWO, THREE, member(4), member(5)), external=True)
        assert external.quorum == 3
