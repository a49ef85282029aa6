"""The handle on a cluster: what it keeps, for how long, and who shares it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from provision.errors import Unhealthy
from provision.etcd.api.client import EtcdClient, Tokens
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import Endpoint, Login
from provision.etcd.cluster import health, reach
from provision.etcd.cluster.handle import Etcd, NoLeader
from provision.etcd.cluster.health import MemberHealth
from provision.etcd.cluster.reach import Learned, Reach, Route
from provision.inventory.resolved import Established, EtcdCluster, EtcdMember, Machine
from provision.ssh.session import Fleet
from tests.unit.builders import etcd, member
from tests.unit.test_check import STATUS

ONE, TWO, THREE = (member(n) for n in (1, 2, 3))
CLUSTER = etcd(ONE, TWO, THREE)
WORKER = Login("alluxio", "w")


def without(gone: EtcdMember, cluster: EtcdCluster = CLUSTER) -> EtcdCluster:
    return replace(cluster, members=tuple(m for m in cluster.members if m != gone))


class World:
    """Members that serve in the order of ``serve``; ``looks`` are the looks at all of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.serve = ["infra1", "infra2", "infra3"]
        self.leader = ""
        self.closed: set[str] = set()
        self.looks = 0
        self.asked: list[tuple[str, Route | None, Login | None]] = []
        monkeypatch.setattr(health, "observing", self._observing)
        monkeypatch.setattr(Reach, "member", self._member)

    def _observing(self, asked: Reach, **_: object) -> Iterator[MemberHealth]:
        self.looks += 1
        by_name = {m.name: m for m in asked.cluster.members}
        for name in [n for n in self.serve if n in by_name]:
            leads = STATUS.member_id if name == self.leader else 0
            yield MemberHealth(by_name[name], "direct", replace(STATUS, leader=leads))
        for name in [n for n in reversed(by_name) if n not in self.serve]:
            yield MemberHealth(by_name[name], error="no answer")

    @property
    def _member(self) -> Any:
        @contextlib.contextmanager
        def enter(
            etcd: Reach, m: EtcdMember, *, timeout: float = 0, how: Route | None = None
        ) -> Iterator[str]:
            if m.name in self.closed:
                raise EtcdUnreachable(Endpoint(m.address, m.client_port), Reason.REFUSED)
            self.asked.append((m.name, how, etcd.login))
            yield m.name

        return enter

    def any(self, handle: Etcd) -> str:
        with handle.any() as client:
            return str(client)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


@pytest.fixture
def handle() -> Etcd:
    return Etcd(CLUSTER, Fleet(1))


class TestServing:
    def test_the_choice_is_kept(self, world: World, handle: Etcd) -> None:
        assert [world.any(handle) for _ in range(3)] == ["infra1"] * 3
        assert world.looks == 1
        assert {how for _, how, _ in world.asked} == {"direct"}

    def test_it_does_not_outlive_its_member(self, world: World, handle: Etcd) -> None:
        world.any(handle)
        assert world.any(handle.with_cluster(without(ONE))) == "infra2"
        assert world.looks == 2

    def test_nor_the_member_s_address(self, world: World, handle: Etcd) -> None:
        world.any(handle)
        moved = replace(ONE, address="10.0.0.9")
        world.serve = ["infra2"]
        changed = replace(CLUSTER, members=(moved, TWO, THREE))
        assert world.any(handle.with_cluster(changed)) == "infra2"

    def test_nor_its_established_cluster(self, world: World, handle: Etcd) -> None:
        world.any(handle)
        world.serve = ["infra2"]
        known = replace(CLUSTER, established=Established(7, frozenset({9}), name="7"))
        assert world.any(handle.with_cluster(known)) == "infra2"
        assert world.any(handle) == "infra1"  # it has its own choice, as before

    def test_nor_a_cluster_of_another_name(self, world: World, handle: Etcd) -> None:
        world.any(handle)
        world.any(handle.with_cluster(replace(CLUSTER, name="d")))
        assert world.looks == 2

    def test_it_outlives_other_members(self, world: World, handle: Etcd) -> None:
        world.any(handle)
        assert world.any(handle.with_cluster(without(TWO))) == "infra1"
        assert world.looks == 1

    def test_a_call_that_fails_ends_it(self, world: World, handle: Etcd) -> None:
        lost = EtcdUnreachable(Endpoint("10.0.0.1", 2379), Reason.CLOSED)
        with pytest.raises(EtcdUnreachable), handle.any():
            raise lost
        world.serve = ["infra3"]
        assert world.any(handle) == "infra3"

    def test_so_does_a_connection_that_fails(self, world: World, handle: Etcd) -> None:
        world.any(handle)
        world.closed, world.serve = {"infra1"}, ["infra3"]
        assert world.any(handle) == "infra3"
        world.closed = set()
        assert world.any(handle) == "infra3"

    def test_another_error_does_not(self, world: World, handle: Etcd) -> None:
        with pytest.raises(ValueError, match="mine"), handle.any():
            raise ValueError("mine")
        world.any(handle)
        assert world.looks == 1

    def test_without_one_every_problem_is_shown(self, world: World, handle: Etcd) -> None:
        """In the inventory's order, not in that of the answers."""
        world.serve = []
        with pytest.raises(Unhealthy, match="no etcd member serves reads") as caught, handle.any():
            pass
        assert [p.where for p in caught.value.problems] == [
            f"etcd member {m.name}" for m in CLUSTER.members
        ]

    def test_a_look_notes_the_first_and_keeps_the_choice(self) -> None:
        learned = Learned()
        learned.note_serving(CLUSTER, TWO, "tunnel", first=True)
        learned.note_serving(CLUSTER, ONE, "direct", first=True)
        assert learned.serving(CLUSTER) == (TWO, "tunnel")
        learned.note_serving(without(TWO), THREE, "direct", first=True)  # infra2 has left
        assert learned.serving(CLUSTER) == (THREE, "direct")
        learned.note_serving(CLUSTER, ONE, "direct")
        assert learned.serving(CLUSTER) == (ONE, "direct")


class TestAnOddMember:
    """One that has answered as etcd never does, and serves all the same."""

    def test_another_one_is_asked(self, world: World, handle: Etcd) -> None:
        handle.learned.distrust(ONE)
        assert world.any(handle) == "infra2"

    def test_it_is_better_than_none(self, world: World, handle: Etcd) -> None:
        world.serve = ["infra2", "infra1"]
        for each in (ONE, TWO):
            handle.learned.distrust(each)
        assert world.any(handle) == "infra2"


class TestLeader:
    def test_it_is_the_member_that_says_so(self, world: World, handle: Etcd) -> None:
        world.leader = "infra3"
        with handle.leader() as (client, leads):
            assert (str(client), leads) == ("infra3", THREE)
        assert world.asked == [("infra3", "direct", None)]

    def test_during_an_election_there_is_none(self, world: World, handle: Etcd) -> None:
        with pytest.raises(NoLeader) as caught, handle.leader():
            pass
        assert caught.value.id == "quorum-lost"


class Tunnels(Fleet):
    """Hosts to which SSH works."""

    def session(self, machine: Machine) -> Any:
        return SimpleNamespace(open_tcp=lambda *_, **__: SimpleNamespace(close=lambda: None))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The direct attempts; each runs into its time limit."""
    found: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], _: float) -> socket.socket:
        found.append(address)
        raise TimeoutError

    @contextlib.contextmanager
    def tunnel(*_: object) -> Iterator[int]:
        yield 1

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(reach, "tunnel", tunnel)
    return found


def route(handle: Etcd, to: EtcdMember, port: int = 2379) -> Route:
    with reach.open_route(handle, to, port) as (_, how):
        return how


class TestBlocked:
    def test_an_address_is_tried_once_by_all_handles_of_a_run(
        self, tried: list[tuple[str, int]]
    ) -> None:
        handle = Etcd(CLUSTER, Tunnels(1))
        later = handle.with_cluster(without(TWO)), handle.as_worker(WORKER)
        assert {route(h, ONE) for h in (handle, handle, *later)} == {"tunnel"}
        assert tried == [("10.0.0.1", 2379)]
        route(handle, ONE, 2380)
        route(handle, TWO)
        assert tried == [("10.0.0.1", 2379), ("10.0.0.1", 2380), ("10.0.0.2", 2379)]

    def test_another_run_tries_it_again(self, tried: list[tuple[str, int]]) -> None:
        for _ in range(2):
            route(Etcd(CLUSTER, Tunnels(1)), ONE)
        assert len(tried) == 2

    def test_an_address_that_refuses_is_tried_again(
        self, tried: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(address: tuple[str, int], _: float) -> socket.socket:
            tried.append(address)
            raise ConnectionRefusedError

        monkeypatch.setattr(socket, "create_connection", refuse)
        handle = Etcd(CLUSTER, Tunnels(1))
        assert [route(handle, ONE) for _ in range(2)] == ["tunnel"] * 2
        assert len(tried) == 2


class Members:
    """The answers to a client: a token for each login, and an error for each call in ``fail``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.logins: list[str] = []
        self.sent: list[tuple[str, str]] = []
        self.fail: list[Reason] = []
        monkeypatch.setattr(EtcdClient, "_send", self._send)

    @property
    def _send(self) -> Any:
        def send(client: EtcdClient, _: object, request: Any) -> Any:
            name = request.DESCRIPTOR.name
            if name == "AuthenticateRequest":
                self.logins.append(f"{request.name} at {client.endpoint}")
                return SimpleNamespace(token=f"token {len(self.logins)}")
            self.sent.append((name, client._token[0][1] if client._token else ""))
            if self.fail:
                raise EtcdUnreachable(client.endpoint, self.fail.pop())
            return SimpleNamespace(kvs=[])

        return send


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> Members:
    return Members(monkeypatch)


ROOT = Login("root", "r")
AT = Endpoint("10.0.0.1", 2379)


def client(tokens: Tokens, login: Login = ROOT, at: Endpoint = AT) -> EtcdClient:
    return EtcdClient(at, login=login, tokens=tokens)


class TestTokens:
    def test_a_login_serves_all_clients_of_the_run(self, members: Members) -> None:
        tokens = Tokens()
        for _ in range(2):
            with client(tokens) as c:
                c.get("a")
        assert members.logins == [f"root at {AT}"]
        assert members.sent == [("RangeRequest", "token 1")] * 2

    def test_it_is_for_one_member_and_one_login(self, members: Members) -> None:
        tokens, other = Tokens(), Endpoint("10.0.0.2", 2379)
        given = ((ROOT, AT), (WORKER, AT), (ROOT, other), (replace(ROOT, password="x"), AT))
        for login, at in given:
            with client(tokens, login, at) as c:
                c.get("a")
        assert members.logins == [
            f"root at {AT}",
            f"alluxio at {AT}",
            f"root at {other}",
            f"root at {AT}",
        ]

    def test_another_run_logs_in_again(self, members: Members) -> None:
        for _ in range(2):
            with client(Tokens()) as c:
                c.get("a")
        assert len(members.logins) == 2

    def test_to_prove_a_login_every_token_is_forgotten(self, members: Members) -> None:
        """Users and passwords have changed: an old token proves nothing of the new ones."""
        tokens = Tokens()
        with client(tokens, WORKER) as worker, client(tokens) as root:
            worker.get("a")
            assert root.log_in()
        assert tokens.get(AT, WORKER) is None
        assert tokens.get(AT, ROOT) == "token 2"
        with client(tokens) as again:
            assert again.log_in()
        assert len(members.logins) == 3

    def test_with_authentication_off_none_is_left(self, members: Members) -> None:
        tokens = Tokens()
        with client(tokens, WORKER) as worker, client(tokens) as root:
            worker.get("a")
            root.auth_disable()
        assert tokens.get(AT, WORKER) is tokens.get(AT, ROOT) is None

    def test_a_token_that_is_refused_is_replaced(self, members: Members) -> None:
        tokens = Tokens()
        tokens.keep(AT, ROOT, "old")
        tokens.keep(AT, WORKER, "good")
        members.fail = [Reason.LOGIN]
        with client(tokens) as c:
            c.get("a")
        assert members.sent == [("RangeRequest", "old"), ("RangeRequest", "token 1")]
        assert (tokens.get(AT, ROOT), tokens.get(AT, WORKER)) == ("token 1", "good")

    def test_a_call_without_an_answer_ends_its_token(self, members: Members) -> None:
        """After a restore its index may be ahead of the log."""
        tokens = Tokens()
        tokens.keep(AT, ROOT, "old")
        members.fail = [Reason.TIMEOUT]
        with client(tokens) as c, pytest.raises(EtcdUnreachable):
            c.get("a")
        assert tokens.get(AT, ROOT) is None

    def test_clients_of_a_handle_use_its_tokens(
        self, members: Members, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @contextlib.contextmanager
        def direct(_: object, m: EtcdMember, port: int, *__: object) -> Iterator[Any]:
            yield Endpoint(m.address, port), "direct"

        monkeypatch.setattr(reach, "open_route", direct)
        handle = Etcd(CLUSTER, Fleet(1), ROOT)
        for each in (handle, handle.with_cluster(without(TWO)), handle.as_worker(WORKER)):
            with each.member(ONE) as c:
                c.get("a")
        assert members.logins == [f"root at {AT}", f"alluxio at {AT}"]


class TestDerived:
    def test_handles_of_a_run_share_all_but_cluster_and_login(self, handle: Etcd) -> None:
        changed = handle.with_cluster(without(ONE))
        worker = changed.as_worker(WORKER)
        assert (worker.cluster, worker.login) == (changed.cluster, WORKER)
        assert changed.login is None
        assert (handle.cluster, handle.login) == (CLUSTER, None)
        assert worker.fleet is changed.fleet is handle.fleet
        assert worker.learned is changed.learned is handle.learned
        assert Etcd(CLUSTER, handle.fleet).learned is not handle.learned

    def test_without_a_login_of_its_own_a_worker_is_asked_for_as_root(self, handle: Etcd) -> None:
        assert handle.as_worker(WORKER).as_worker(None).login is None

    def test_closed_it_knows_nothing_any_more(self, handle: Etcd) -> None:
        learned = handle.learned
        learned.block("10.0.0.1", 2379)
        learned.note_serving(CLUSTER, ONE, "direct")
        learned.tokens.keep(AT, ROOT, "token")
        handle.as_worker(WORKER).close()
        assert not learned.is_blocked("10.0.0.1", 2379)
        assert learned.serving(CLUSTER) is None
        assert learned.tokens.get(AT, ROOT) is None

    def test_the_password_is_not_shown(self, handle: Etcd) -> None:
        shown = repr(handle.as_worker(Login("alluxio", "hunter2")))
        assert "hunter2" not in shown

    def test_the_first_of_several_threads_is_noted(self) -> None:
        learned, ready = Learned(), threading.Barrier(3)

        def note(m: EtcdMember) -> tuple[EtcdMember, Route] | None:
            ready.wait()
            learned.note_serving(CLUSTER, m, "direct", first=True)
            return learned.serving(CLUSTER)

        with ThreadPoolExecutor(3) as pool:
            assert len(set(map(str, pool.map(note, CLUSTER.members)))) == 1


def test_each_member_is_given_the_time_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[object, float]] = []

    def observing(of: Etcd, *, timeout: float = 0) -> Iterator[MemberHealth]:
        given.append((of, timeout))
        yield MemberHealth(of.cluster.members[0], error="no answer")

    monkeypatch.setattr(health, "observing", observing)
    handle = Etcd(etcd(), Fleet(1))
    with pytest.raises(Unhealthy, match="no etcd member serves reads"), handle.any(timeout=7.5):
        pass
    assert given == [(handle, 7.5)]
