"""A member that is hostile: no read of it is without an end, and what is true is still shown.

Each attack is a gRPC server's. A read that does not end is a failure after :data:`PATIENCE`.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from provision import bounds
from provision.alluxio.commands.nodes import InfoNodes
from provision.alluxio.membership import clusters, registrations
from provision.alluxio.membership.watch_cache import WatchCache
from provision.check_nodes import State, collect
from provision.errors import PreflightFailed, ProvisionError
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdError, EtcdRefused, EtcdTooMuch, EtcdUnreachable, Reason
from provision.etcd.api.values import Changes, Endpoint
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.inventory.resolved import Inventory
from provision.plans.etcd.state import other_clusters
from provision.plans.etcd.state.other_clusters import Harm
from provision.ssh.session import Fleet
from tests.component.conftest import Boot
from tests.component.hostile_etcd import Hostile
from tests.unit import builders

T = TypeVar("T")
#: Seconds in which a read has to end: a whole one of the largest takes some seconds here.
PATIENCE = 60.0
#: What nobody but a programmer may have to read.
RAW = ("grpc", "rpc error", "<_", "statuscode", "ipv4:", "deserializ", "received message")


def within(work: Callable[[], T], seconds: float = PATIENCE) -> T:
    """The result of ``work``, in a thread that the test does not wait for any longer."""
    done: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            done.append((True, work()))
        except BaseException as error:
            done.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert done, f"no end in {seconds:g} s"
    ended, value = done[0]
    if not ended:
        raise value
    result: T = value
    return result


def refused(client: EtcdClient, work: Callable[[], object]) -> EtcdError:
    with pytest.raises(EtcdError) as caught:
        within(work)
    error = caught.value
    assert not [raw for raw in RAW if raw in str(error).lower()], str(error)
    assert str(client.endpoint) in error.message
    return error


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    with Hostile().serving() as server:
        yield server


@pytest.fixture
def client(hostile: Hostile) -> Iterator[EtcdClient]:
    with EtcdClient(hostile.endpoint, timeout=5) as client:
        yield client


def serve(hostile: Hostile, keys: list[Any]) -> None:
    """Answer ranges as etcd does, from ``keys``, sorted."""

    def answer(request: Any, context: Any) -> Any:
        end = request.range_end
        found = [
            k for k in keys if k.key >= request.key and (end == b"\0" or not end or k.key < end)
        ]
        page = found[: request.limit] if request.limit else found
        if request.keys_only:
            page = [hostile.key(k.key, b"", k.lease, k.mod_revision) for k in page]
        return hostile.page(page, more=len(page) < len(found))

    hostile.answers["Range"] = answer


def numbered(hostile: Hostile, request: Any, first: int) -> list[Any]:
    return [
        hostile.key(b"/a/%012d" % (first + n), b"v" * 100) for n in range(max(1, request.limit))
    ]


def odd(hostile: Hostile, name: str) -> Callable[[Any, Any], Any]:
    """Answers that etcd never gives."""

    def answer(request: Any, context: Any) -> Any:
        if name == "the same key again":
            return hostile.page([hostile.key(b"/a/1")] * request.limit, more=True)
        if name == "the same page again":
            return hostile.page(numbered(hostile, request, 0), more=True)
        if name == "an empty page, and more":
            return hostile.page([], more=True)
        if name == "one key, and more":
            return hostile.page([hostile.key(request.key + b"x")], more=True)
        if name == "more than asked for":
            return hostile.page(numbered(hostile, request, 0) * 2)
        assert name == "keys of elsewhere"
        return hostile.page([hostile.key(b"/elsewhere")])

    return answer


@pytest.mark.parametrize(
    "name",
    [
        "the same key again",
        "the same page again",
        "an empty page, and more",
        "one key, and more",
        "more than asked for",
        "keys of elsewhere",
    ],
)
def test_a_range_without_progress_is_an_error(
    hostile: Hostile, client: EtcdClient, name: str
) -> None:
    hostile.answers["Range"] = odd(hostile, name)
    for read in (
        lambda: client.range("/a/"),
        lambda: registrations.read(client, "a", partial=True),
        lambda: registrations.children(client),
        lambda: registrations.count_all(client),
    ):
        error = refused(client, read)
        assert isinstance(error, EtcdUnreachable)
        assert (error.reason, error.id) == (Reason.ODD, "etcd-answer-odd")
    assert hostile.counted("Range") < 20


@pytest.mark.parametrize("size", [1, 100])
def test_an_endless_range_is_cut(
    hostile: Hostile, client: EtcdClient, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(bounds, "KEYS", 10_000)
    monkeypatch.setattr(bounds, "KEY_BYTES", 400_000 if size == 100 else bounds.KEY_BYTES)
    count = itertools.count()

    def answer(request: Any, context: Any) -> Any:
        prefix = request.key if request.key.endswith(b"/") else request.key.rpartition(b"/")[0]
        prefix = prefix.rstrip(b"/") + b"/"
        keys = [
            hostile.key(b"%s%012d" % (prefix, next(count)), b"v" * size)
            for _ in range(request.limit)
        ]
        return hostile.page(keys, more=True)

    hostile.answers["Range"] = answer
    error = refused(client, lambda: client.range("/a/"))
    assert isinstance(error, EtcdTooMuch)
    assert error.id == "etcd-answer-cut"
    seen = within(lambda: registrations.read(client, "a", partial=True))
    assert 3000 < len(seen.live) <= 10_000
    assert "below /DHT/a/AUTHORIZED/: more than" in seen.cut
    assert "below /ServiceDiscovery/a/: more than" in seen.cut


def test_a_member_that_drips_pages_is_cut(
    hostile: Hostile, client: EtcdClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "READ_SECONDS", 1.0)
    count = itertools.count()

    def answer(request: Any, context: Any) -> Any:
        time.sleep(0.3)
        return hostile.page(numbered(hostile, request, next(count) * 10_000), more=True)

    hostile.answers["Range"] = answer
    found = within(lambda: client.scan(b"/a/", b"/a0"), 20)
    assert found.cut == "the member gave no more in 1 s"
    assert len(found.keys) > 2000


def test_values_of_one_megabyte_are_read_in_smaller_pages(
    hostile: Hostile, client: EtcdClient
) -> None:
    large = [hostile.key(b"/a/large%03d" % n, b"v" * (1 << 20)) for n in range(75)]
    small = [hostile.key(b"/a/%05d" % n, b"v") for n in range(5000)]
    serve(hostile, [*small, *large])
    _, found = within(lambda: client.range("/a/"))
    assert len(found) == 5075
    assert {len(kv.value) for kv in found} == {1, 1 << 20}
    assert hostile.counted("Range") < 40


def test_a_value_that_no_answer_can_hold_is_left_out_and_named(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "ANSWER", 1 << 20)
    serve(
        hostile,
        [
            hostile.key(b"/a/1", b"one"),
            hostile.key(b"/a/2", b"v" * (2 << 20)),
            hostile.key(b"/a/3", b"three"),
        ],
    )
    with EtcdClient(hostile.endpoint) as client:
        found = within(lambda: client.scan(b"/a/", b"/a0"))
        assert [kv.value for kv in found.keys] == [b"one", b"", b"three"]
        assert found.cut == "the value of /a/2 has more than 1 MiB"
        error = refused(client, lambda: client.range("/a/"))
        assert error.id == "etcd-answer-cut"
        error = refused(client, lambda: client.get("/a/2"))
        assert error.problems[0].what == "the answer has more than 1 MiB"


def test_five_thousand_clusters_need_few_requests(hostile: Hostile, client: EtcdClient) -> None:
    serve(
        hostile,
        [
            *(hostile.key(b"/DHT/c%04d/AUTHORIZED/w" % n) for n in range(5000)),
            *(hostile.key(b"/ServiceDiscovery/c%04d/w" % n, b"{}", 1) for n in range(5000)),
        ],
    )
    started = time.monotonic()
    names = within(lambda: clusters.names(client))
    assert len(names) == 5000
    assert hostile.counted("Range") < 30
    counts = within(lambda: registrations.count_all(client))
    assert set(counts.by_name.values()) == {(1, 1)}
    assert hostile.counted("Range") < 40
    assert time.monotonic() - started < 30


def test_more_names_than_anyone_has_are_cut(
    hostile: Hostile, client: EtcdClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "CLUSTERS", 100)
    serve(hostile, [hostile.key(b"/DHT/c%04d/AUTHORIZED/w" % n) for n in range(500)])
    found, cut = within(lambda: clusters.names_and_cut(client))
    assert (len(found), cut) == (100, "more than 100 names of clusters below /DHT/")
    assert refused(client, lambda: clusters.names(client)).id == "etcd-answer-cut"
    counts = within(lambda: registrations.count_all(client))
    assert (len(counts.by_name), counts.cut) == (100, "more than 100 names of clusters")


@pytest.mark.parametrize("piece", [b"x" * 65536, b""])
def test_an_endless_snapshot_ends(hostile: Hostile, client: EtcdClient, piece: bytes) -> None:
    def pieces(request: Any, context: Any) -> Iterator[Any]:
        while context.is_active():
            yield hostile.pb.SnapshotResponse(blob=piece, remaining_bytes=1)

    hostile.answers["Snapshot"] = pieces
    error = refused(client, lambda: sum(map(len, client.snapshot(silence=2, most=1 << 24))))
    if piece:
        assert error.problems[0].what == "the snapshot has more than 17 MB"
    else:
        assert isinstance(error, EtcdUnreachable)
        assert error.reason is Reason.TIMEOUT


def test_a_snapshot_that_drips_ends(
    hostile: Hostile, client: EtcdClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "STREAM_GRACE", 1.0)

    def pieces(request: Any, context: Any) -> Iterator[Any]:
        while context.is_active():
            time.sleep(0.1)
            yield hostile.pb.SnapshotResponse(blob=b"x", remaining_bytes=1)

    hostile.answers["Snapshot"] = pieces
    error = refused(client, lambda: sum(map(len, client.snapshot())))
    assert "less than 32 KiB a second" in error.message


def test_lists_of_members_users_and_alarms_are_bounded(
    hostile: Hostile, client: EtcdClient
) -> None:
    pb = hostile.pb
    hostile.answers["MemberList"] = lambda request, context: pb.MemberListResponse(
        header=hostile.header(), members=[pb.Member(ID=n, name="m") for n in range(20_000)]
    )
    assert refused(client, client.member_list).id == "etcd-answer-odd"
    hostile.answers["UserList"] = lambda request, context: pb.AuthUserListResponse(
        header=hostile.header(), users=[f"u{n}" for n in range(20_000)]
    )
    assert refused(client, client.users).id == "etcd-answer-cut"
    assert hostile.counted("UserGet") == 0
    hostile.answers["RoleList"] = lambda request, context: pb.AuthRoleListResponse(
        header=hostile.header(), roles=[f"r{n}" for n in range(20_000)]
    )
    assert refused(client, client.roles).id == "etcd-answer-cut"
    hostile.answers["Status"] = lambda request, context: pb.StatusResponse(
        header=hostile.header(), errors=[b"x"] * 20_000
    )
    assert len(within(client.status).errors) <= 1000
    hostile.answers["Alarm"] = lambda request, context: pb.AlarmResponse(
        header=hostile.header(), alarms=[pb.AlarmMember(memberID=n) for n in range(20_000)]
    )
    assert len(within(client.alarms)) <= 1000


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("UNKNOWN", "Traceback <_InactiveRpcError of RPC> grpc_status:2"),
        ("INTERNAL", "Exception deserializing response!"),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (1 vs. 2)"),
        ("UNAVAILABLE", "failed to connect; last error: UNKNOWN: ipv4:10.0.0.1:1: grpc odd"),
        ("CANCELLED", "Locally cancelled by grpc"),
        ("UNIMPLEMENTED", "unknown method grpc"),
        ("DATA_LOSS", "grpc lost"),
        ("ABORTED", "grpc \x1b]0;title\x07"),
    ],
)
def test_what_grpc_says_is_not_shown(
    hostile: Hostile, client: EtcdClient, code: str, said: str
) -> None:
    def answer(request: Any, context: Any) -> Any:
        context.abort(getattr(hostile.lib.grpc.StatusCode, code), said)

    hostile.answers |= dict.fromkeys(("Range", "Status"), answer)
    refused(client, client.status)
    refused(client, lambda: client.range("/a/"))


def test_what_is_no_message_is_odd(hostile: Hostile, client: EtcdClient) -> None:
    hostile.answers["Range"] = lambda request, context: b"\xff\xff\xff\xff no message"
    assert refused(client, lambda: client.range("/a/")).id == "etcd-answer-odd"


def test_etcds_own_words_are_shown(hostile: Hostile, client: EtcdClient) -> None:
    def answer(request: Any, context: Any) -> Any:
        context.abort(hostile.lib.grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: no space")

    hostile.answers["Range"] = answer
    error = refused(client, lambda: client.range("/a/"))
    assert isinstance(error, EtcdRefused)
    assert error.problems[0].what == "etcdserver: no space"


class TestWatch:
    def first(self, client: EtcdClient) -> list[Changes]:
        return within(lambda: list(client.watch({"/a/": 1})))

    @pytest.mark.parametrize("name", ["created twice", "another id", "a key of elsewhere"])
    def test_of_what_nobody_watches(self, hostile: Hostile, client: EtcdClient, name: str) -> None:
        pb = hostile.pb

        def answers(requests: Any, context: Any) -> Iterator[Any]:
            next(requests)
            yield pb.WatchResponse(header=hostile.header(), watch_id=0, created=True)
            if name == "created twice":
                yield pb.WatchResponse(header=hostile.header(), watch_id=1, created=True)
            answer = pb.WatchResponse(header=hostile.header(), watch_id=7 * (name == "another id"))
            event = answer.events.add()
            event.kv.key = b"/elsewhere"
            yield answer
            while context.is_active():
                time.sleep(0.1)

        hostile.answers["Watch"] = answers
        error = refused(client, lambda: self.first(client))
        assert error.id == "etcd-answer-odd"

    def test_endless_events_do_not_grow_without_end(
        self, hostile: Hostile, client: EtcdClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bounds, "KEYS", 1000)
        pb = hostile.pb
        serve(hostile, [hostile.key(b"/ServiceDiscovery/a/w1", b"{}", 1)])

        def answers(requests: Any, context: Any) -> Iterator[Any]:
            for number in range(2):
                next(requests)
                yield pb.WatchResponse(header=hostile.header(), watch_id=number, created=True)
            for start in itertools.count(0, 100):
                answer = pb.WatchResponse(header=hostile.header(), watch_id=1)
                for n in range(100):
                    event = answer.events.add()
                    event.kv.key = b"/ServiceDiscovery/a/%09d" % (start + n)
                    event.kv.mod_revision = 8 + start
                if not context.is_active():
                    return
                yield answer

        hostile.answers["Watch"] = answers
        cache = within(lambda: WatchCache(client, "a"))
        for seen in itertools.islice(client.watch(cache.since), 60):
            cache.apply(seen)
        assert len(cache.membership.live) == 1000
        assert cache.membership.cut == "the watch has told of more keys than are kept"


def test_a_registration_is_never_cut_below_what_a_cluster_may_have() -> None:
    assert bounds.KEYS >= 250_000
    assert bounds.KEY_BYTES >= 256 << 20
    assert issubclass(EtcdTooMuch, ProvisionError)


def test_a_hostile_member_does_not_hide_what_another_one_says(
    hostile: Hostile, boot: Boot, fleet: Fleet
) -> None:
    hostile.answers["Range"] = odd(hostile, "an empty page, and more")
    with boot() as running:
        (good,) = running.cluster.members
        bad = replace(good, name="infra1", client_port=hostile.port)
        etcd = Etcd(replace(running.cluster, members=(bad, good)), fleet)
        with etcd.member(good) as client:
            client.put("/ServiceDiscovery/a/w1", "{}")
        # A read of one key is answered: the member looks healthy.
        answer = hostile.answers["Range"]
        hostile.answers["Range"] = lambda request, context: (
            answer(request, context) if request.range_end else hostile.page([])
        )
        etcd.learned.note_serving(etcd.cluster, bad, "direct")
        seen = within(lambda: etcd.read(lambda c: registrations.read(c, "a")))
        assert list(seen.live) == ["w1"]
        assert hostile.counted("Range") > 0
        asked = len(hostile.requests)
        health.observe(etcd)
        assert list(within(lambda: etcd.read(lambda c: registrations.read(c, "a"))).live) == ["w1"]
        assert not [r for _, r in hostile.requests[asked:] if getattr(r, "range_end", b"")]
        alone = Etcd(replace(running.cluster, members=(bad,)), fleet)
        with pytest.raises(EtcdUnreachable) as caught:
            within(lambda: alone.read(lambda c: registrations.read(c, "a")))
        assert caught.value.reason is Reason.ODD


class TestViews:
    """``check-nodes`` and ``list-clusters`` on a real etcd that someone has filled."""

    LIMIT = 3000

    @pytest.fixture
    def filled(
        self, boot: Boot, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[tuple[Inventory, EtcdClient]]:
        monkeypatch.setattr(bounds, "KEYS", self.LIMIT)
        value = '{"WorkerNetAddress":{"Host":"w1","RpcPort":29999},"State":"AUTHORIZED"}'
        with boot() as running:
            (member,) = running.cluster.members
            with EtcdClient(Endpoint("127.0.0.1", member.client_port)) as client:
                lease = client.lease_grant(600)
                for prefix in ("/DHT/c/AUTHORIZED/", "/ServiceDiscovery/c/"):
                    client.put(f"{prefix}a-w1", value, lease=lease)
                for n in range(self.LIMIT):
                    client.put(f"/DHT/c/AUTHORIZED/x{n:05}", "{}")
                inventory = builders.inventory(
                    builders.alluxio(builders.worker("w1"), builders.worker("w2"))
                )
                yield replace(inventory, etcd=running.cluster), client

    def test_they_show_what_they_have(
        self, filled: tuple[Inventory, EtcdClient], fleet: Fleet
    ) -> None:
        inventory, _ = filled
        etcd = Etcd(inventory.etcd, fleet)
        seen = collect.run(
            inventory, etcd, ask=lambda *_: InfoNodes("w1", error="no answer", installed=False)
        )
        found = {n.name: n for n in seen.nodes if n.name}
        assert found["w1"].state is State.LIVE
        assert found["w2"].state is State.UNDETERMINED
        (cut,) = [p for p in seen.problems if p.id == "etcd-answer-cut"]
        assert cut.what == (
            "not everything was read, and what is not there may exist: "
            "below /DHT/c/AUTHORIZED/: more than 3000 keys"
        )
        assert seen.exit_code == 1
        listed = clusters.look(inventory, etcd)
        assert [(c.name, c.live) for c in listed.clusters] == [("c", 1)]
        assert listed.document()["cut"] == "below /DHT/: more than 3000 keys"

    def test_a_plan_needs_everything(
        self, filled: tuple[Inventory, EtcdClient], fleet: Fleet
    ) -> None:
        inventory, client = filled
        etcd = Etcd(inventory.etcd, fleet)
        others = other_clusters.look(inventory, etcd)
        assert others.why == "not everything was read: below /DHT/: more than 3000 keys"
        with pytest.raises(PreflightFailed, match="not known whether other clusters"):
            other_clusters.require(etcd, others, Harm("", ""))
        # The live workers that were read are confirmed: no word covers them.
        client.put("/DHT/team/AUTHORIZED/w1", "{}")
        client.put("/ServiceDiscovery/team/w1", "{}", lease=client.lease_grant(60))
        others = other_clusters.look(inventory, etcd)
        with pytest.raises(PreflightFailed) as live:
            other_clusters.require(etcd, others, Harm("", ""), agreed=True)
        assert live.value.id == "other-clusters-live"
        error = refused(client, lambda: registrations.read(client, "c"))
        assert error.id == "etcd-answer-cut"
        client.delete("/DHT/c/AUTHORIZED/x00000")
        assert len(registrations.read(client, "c").authorized) == self.LIMIT


def test_a_value_that_is_no_workers_is_not_parsed() -> None:
    value = b"[" + b"[]," * (1 << 20) + b"[]]"
    assert isinstance(registrations.parse("w", value), registrations.UnknownRegistration)
