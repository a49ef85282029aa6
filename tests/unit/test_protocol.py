"""etcd's protocol as it is read from etcd3 and added to."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.etcd.api import protocol

LOADED = protocol.load()


def printed(code: str) -> str:
    """What a Python of its own prints that runs ``code``."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.process
def test_nothing_of_etcd3_is_run() -> None:
    code = (
        "import sys\n"
        "from provision.etcd.api import protocol\n"
        "protocol.load()\n"
        "print([m for m in sys.modules if m.startswith('etcd3')])"
    )
    assert printed(code) == "[]\n"


# The wire: field number * 8 + type (0 number, 2 length and bytes).
@pytest.mark.parametrize(
    ("message", "fields", "wire"),
    [
        ("RangeRequest", {"key": b"a", "range_end": b"b"}, b"\x0a\x01a\x12\x01b"),
        ("MemberAddRequest", {"peerURLs": ["u"], "isLearner": True}, b"\x0a\x01u\x10\x01"),
        ("MemberPromoteRequest", {"ID": 5}, b"\x08\x05"),
        ("DowngradeRequest", {"action": 1, "version": "3.5.0"}, b"\x08\x01\x12\x053.5.0"),
        ("Member", {"ID": 1, "isLearner": True}, b"\x08\x01\x28\x01"),
        (
            "StatusResponse",
            {"errors": [b"e"], "dbSizeInUse": 7, "isLearner": True, "storageVersion": b"3.6.0"},
            b"\x42\x01e\x48\x07\x50\x01\x5a\x053.6.0",
        ),
        (
            "AuthRoleRevokePermissionRequest",
            {"role": "r", "key": b"\xff"},
            b"\x0a\x01r\x12\x01\xff",
        ),
    ],
)
def test_messages_are_these_bytes(message: str, fields: dict[str, object], wire: bytes) -> None:
    kind = getattr(LOADED.pb, message)
    assert kind(**fields).SerializeToString() == wire
    assert kind.FromString(wire) == kind(**fields)


@pytest.mark.parametrize(
    ("service", "method", "kind"),
    [
        ("KV", "Txn", "unary_unary"),
        ("Cluster", "MemberPromote", "unary_unary"),
        ("Maintenance", "Downgrade", "unary_unary"),
        ("Maintenance", "Snapshot", "unary_stream"),
        ("Watch", "Watch", "stream_stream"),
    ],
)
def test_calls_go_to_etcds_path(service: str, method: str, kind: str) -> None:
    asked: list[tuple[str, str]] = []

    class Channel:
        def __getattr__(self, name: str) -> object:
            return lambda path, **_: asked.append((name, path))

    getattr(LOADED.service(Channel(), service), method)
    assert asked == [(kind, f"/etcdserverpb.{service}/{method}")]


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_a_value_error(message: bytes) -> None:
    try:
        found = protocol.unknown_fields(message)
    except ValueError:
        return
    assert all(isinstance(v, (int, bytes)) for values in found.values() for v in values)


def test_fields_by_number_in_their_order() -> None:
    assert protocol.unknown_fields(b"\x08\x05\x12\x01a\x08\x07") == {1: [5, 7], 2: [b"a"]}


@pytest.mark.process
def test_threads_share_what_one_of_them_makes() -> None:
    code = (
        "import threading\n"
        "from provision.etcd.api import protocol\n"
        "made = []\n"
        "class Counted(protocol.Protocol):\n"
        "    def __init__(self):\n"
        "        made.append(self)\n"
        "        super().__init__()\n"
        "protocol.Protocol = Counted\n"
        "threads = [threading.Thread(target=protocol.load) for _ in range(4)]\n"
        "[t.start() for t in threads]\n"
        "[t.join() for t in threads]\n"
        "print(len(made))"
    )
    assert printed(code) == "1\n"
