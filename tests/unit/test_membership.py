from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import Registration, UnknownRegistration, parse
from provision.etcd.api.values import KeyValue
from provision.text import document

DATA = Path(__file__).parent / "data" / "alluxio-313"
OLDER = Path(__file__).parent / "data" / "alluxio-30x" / "worker.b64"
OLDER_ID = "1646d7b18f6fb9ce0f8ad976dc5de324"
WORKER1 = "worker-11111111-2222-3333-4444-555555555555"


class RecordedEtcd:
    """The keys that a real worker wrote, with as much of a client as reading them takes."""

    def __init__(self, keys: list[KeyValue]) -> None:
        self.keys = sorted(keys)
        self.requests = 0

    def interval(
        self, start: bytes, end: bytes, *, limit: int = 0, revision: int = 0, **_: Any
    ) -> tuple[int, list[KeyValue]]:
        self.requests += 1
        assert revision in (0, 5)
        found = [k for k in self.keys if start <= k.key < end]
        return 5, found[:limit] if limit else found


def recorded() -> list[KeyValue]:
    document = json.loads((DATA / "etcd-keys.json").read_text())
    return [
        KeyValue(
            base64.b64decode(kv["key"]),
            base64.b64decode(kv["value"]),
            kv.get("lease", 0),
            kv["mod_revision"],
        )
        for kv in document["kvs"]
    ]


def key(name: str, value: bytes = b"{}") -> KeyValue:
    return KeyValue(name.encode(), value, 0, 1)


def test_the_recorded_registrations() -> None:
    found = registrations.read(RecordedEtcd(recorded()), "DefaultAlluxioCluster")  # type: ignore[arg-type]
    assert found.revision == 5
    assert list(found.authorized) == list(found.live)
    assert len(found.live) == 2
    assert found.live[WORKER1].registration == Registration(
        worker_id=WORKER1,
        host="worker1.example.com",
        rpc_port=31000,
        data_port=31001,
        web_port=31002,
        state="AUTHORIZED",
        generation=-1,
        http_port=31003,
        identity=WORKER1,
    )
    assert found.authorized[WORKER1].key.lease == 0
    assert found.live[WORKER1].key.lease != 0
    assert [r.host for _, r in found.live_registrations()] == [
        "worker1.example.com",
        "worker2.example.com",
    ]


def test_the_uuid_is_as_in_the_identity_file() -> None:
    entity = parse(WORKER1, recorded()[0].value)
    assert isinstance(entity, Registration)
    assert entity.uuid == "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b"3",
        b"\xac\xed\x00\x05",
        b"[" * 100_000,
        b'{"WorkerNetAddress":[]}',
        b'{"WorkerNetAddress":{"Host":"h"}}',
        b'{"WorkerNetAddress":{"Host":"","RpcPort":1}}',
        b'{"WorkerNetAddress":{"Host":"h","RpcPort":"1"}}',
        b'{"WorkerNetAddress":{"Host":"h","RpcPort":true}}',
        b'{"WorkerNetAddress":{"Host":"h","RpcPort":65536}}',
        b'{"WorkerNetAddress":{"Host":7,"RpcPort":1}}',
    ],
)
def test_other_forms_are_unknown_not_dropped(value: bytes) -> None:
    assert isinstance(parse("id", value), UnknownRegistration)


def test_a_binary_value_is_shown_without_what_steers_a_terminal() -> None:
    shown = parse("id", b"\x00\x01worker\x1b[2Jhost" + b"x" * 10_000)
    assert isinstance(shown, UnknownRegistration)
    assert shown.excerpt.startswith("\ufffd\ufffdworker\ufffd[2Jhost")
    assert len(shown.excerpt) == 120


def test_a_registration_of_an_older_release_is_read() -> None:
    value = base64.b64decode(OLDER.read_text())
    assert parse(OLDER_ID, value) == Registration(
        worker_id=OLDER_ID,
        host="worker1.example.com",
        rpc_port=31000,
        data_port=31001,
        web_port=31002,
        state="AUTHORIZED",
        generation=-1,
        older=True,
    )


def test_what_only_looks_like_one_of_an_older_release_is_shown_raw() -> None:
    value = base64.b64decode(OLDER.read_text())
    for end in range(len(value)):
        assert isinstance(parse(OLDER_ID, value[:end]), UnknownRegistration)
    state, host = 2 + 32 + 8, 2 + 32 + 8 + 4 + 4
    for broken in (
        value + b"\0",
        value[:state] + b"\0\0\0\3" + value[state + 4 :],
        value[:state] + b"\xff\xff\xff\xff" + value[state + 4 :],
        value[:host] + b"\x0b" + value[host + 1 :],  # a protobuf group that never ends
    ):
        assert isinstance(parse(OLDER_ID, broken), UnknownRegistration)
    assert isinstance(parse("another id", value), UnknownRegistration)


@given(st.binary(max_size=80), st.integers(-1, 3))
def test_any_value_behind_an_older_begin_is_parsed(address: bytes, state: int) -> None:
    begin = b"\0\1w" + bytes(8) + struct.pack(">ii", state, len(address))
    found = parse("w", begin + address)
    assert isinstance(found, UnknownRegistration) or found.older


def test_missing_details_are_no_reason_to_drop_a_worker() -> None:
    found = parse("id", b'{"WorkerNetAddress":{"Host":"h\\u001b[0m","RpcPort":1,"WebPort":-3}}')
    assert found == Registration("id", "h\ufffd[0m", 1, 0, 0, "", -1)


@given(st.binary(max_size=200))
def test_any_value_is_parsed(value: bytes) -> None:
    parse("id", value)


@pytest.mark.long
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_any_json_in_the_entity_is_parsed(value: object) -> None:
    for entity in (
        {"WorkerNetAddress": value},
        {"WorkerNetAddress": {"Host": value, "RpcPort": value}},
        {
            "WorkerNetAddress": {"Host": "h", "RpcPort": 1, "DataPort": value},
            "State": value,
            "GenerationNumber": value,
        },
    ):
        parse("id", json.dumps(entity).encode())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    ),
    st.booleans(),
)
def test_the_quick_reader_reads_what_python_s_reads(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).replace("Infinity", "1e999")
    raw = text.encode("utf-8", "surrogatepass")
    try:
        expected = document(raw)
    except ValueError:  # only for a number that is not finite; nothing of a worker is one
        assert "1e999" in text
        return
    assert registrations._entity(raw) == expected


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_what_only_python_s_reader_reads(encoding: str) -> None:
    text = recorded()[0].value.decode()
    assert parse(WORKER1, text.encode(encoding)) == parse(WORKER1, text.encode())
    lone = parse(WORKER1, text.replace("worker1.example.com", "\\ud800").encode())
    assert isinstance(lone, Registration)
    assert lone.host == "\ufffd"


def test_ids_that_cannot_be_shown_are_all_kept() -> None:
    prefix = "/ServiceDiscovery/c/"
    etcd = RecordedEtcd([key(prefix + i) for i in ("", "a\x01", "a\x02", "a/b")])
    found = registrations.read(etcd, "c")  # type: ignore[arg-type]
    assert list(found.live) == ["(no id)", "a\ufffd", "a\ufffd'", "a/b"]


def test_a_cluster_whose_name_begins_alike_is_kept_apart() -> None:
    etcd = RecordedEtcd(
        [key("/ServiceDiscovery/a-b/w1"), key("/ServiceDiscovery/a/w2"), key("/DHT/a/OTHER/w3")]
    )
    found = registrations.read(etcd, "a")  # type: ignore[arg-type]
    assert list(found.live) == ["w2"]
    assert found.authorized == {}


def test_clusters_are_listed_by_a_request_each() -> None:
    etcd = RecordedEtcd(
        [
            *(key(f"/ServiceDiscovery/big/w{i}") for i in range(1000)),
            key("/ServiceDiscovery/big-too/w"),
            key("/ServiceDiscovery/stray"),
            key("/DHT/permanent/AUTHORIZED/w"),
            key("/other/x/y"),
        ]
    )
    assert registrations.clusters(etcd) == ["big", "big-too", "permanent"]  # type: ignore[arg-type]
    # A request for the permanent name, and for the large cluster; each page is larger than the one
    # before, so the rest, and the end of each root, come together.
    assert etcd.requests == 5


def test_names_that_alluxio_mixes_up() -> None:
    assert registrations.confusable("a", ["a", "a-b", "b", "ab"]) == ["a-b", "ab"]
    assert registrations.confusable("a-b", ["a", "a-b", "b", "a-bc"]) == ["a", "a-bc"]
