"""Many calls over one connection, byte by byte; with a real etcd in component/test_leases.py."""

from __future__ import annotations

import struct

import pytest

from provision.etcd.api import many_calls
from provision.etcd.api.many_calls import Failed, _Calls, _headers
from provision.etcd.api.values import Endpoint

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END, ACK, END_HEADERS, PADDED = 1, 1, 4, 8


def frame(kind: int, flags: int = 0, stream: int = 0, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + body


def settings(at_once: int | None = None) -> bytes:
    return frame(SETTINGS, body=b"" if at_once is None else struct.pack(">HI", 3, at_once))


def message(text: bytes) -> bytes:
    return b"\0" + len(text).to_bytes(4, "big") + text


def answer(stream: int, text: bytes) -> bytes:
    return (
        frame(HEADERS, END_HEADERS, stream, b"\x88")
        + frame(DATA, 0, stream, message(text))
        + frame(HEADERS, END_HEADERS | END, stream, b"\x88")
    )


def sent(calls: _Calls) -> list[tuple[int, int, int, bytes]]:
    """The frames that are to be sent, and no longer are."""
    data = bytes(calls.out).removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    calls.out.clear()
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def begun(calls: _Calls) -> list[int]:
    return [stream for kind, _, stream, _ in sent(calls) if kind == HEADERS]


def calls_of(count: int) -> _Calls:
    return _Calls(b"h", [b"%d" % n for n in range(count)])


def test_each_request_has_its_answer_in_whatever_order_and_pieces() -> None:
    calls = calls_of(3)
    assert [kind for kind, *_ in sent(calls)] == [SETTINGS, WINDOW_UPDATE]
    for byte in settings() + answer(5, b"third")[:0]:
        calls.read(bytes([byte]))
    frames = sent(calls)
    assert frames[0] == (SETTINGS, ACK, 0, b"")
    assert frames[1:] == [
        made
        for stream, text in ((1, b"0"), (3, b"1"), (5, b"2"))
        for made in ((HEADERS, END_HEADERS, stream, b"h"), (DATA, END, stream, message(text)))
    ]
    for byte in answer(5, b"third") + answer(1, b"") + answer(3, b"second"):
        assert not calls.ended
        calls.read(bytes([byte]))
    assert calls.ended
    assert calls.answers == {2: b"third", 0: b"", 1: b"second"}


def test_a_message_in_two_frames() -> None:
    calls = calls_of(1)
    calls.read(settings())
    whole = message(b"answer")
    calls.read(frame(DATA, 0, 1, whole[:3]) + frame(DATA, END, 1, whole[3:]))
    assert calls.answers == {0: b"answer"}


def test_no_more_calls_than_the_member_takes() -> None:
    calls = calls_of(5)
    calls.read(settings(2))
    assert begun(calls) == [1, 3]
    calls.read(answer(3, b"x"))
    assert begun(calls) == [5]
    calls = calls_of(500)
    calls.read(settings(4_000_000_000))
    assert len(begun(calls)) == many_calls.AT_ONCE
    with pytest.raises(Failed, match="no call may begin"):
        calls_of(1).read(settings(0))


def test_nothing_is_sent_beyond_the_members_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_calls, "_WINDOW", 13)
    calls = calls_of(3)
    calls.read(settings())
    assert begun(calls) == [1, 3]
    calls.read(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 99)))
    assert begun(calls) == []
    calls.read(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 6)))
    assert begun(calls) == [5]


def test_a_ping_is_answered() -> None:
    calls = calls_of(1)
    calls.read(settings() + frame(SETTINGS, ACK) + frame(PING, 0, 0, b"12345678"))
    assert (PING, ACK, 0, b"12345678") in sent(calls)
    calls.read(frame(PING, ACK, 0, b"12345678"))
    assert sent(calls) == []


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(frame(HEADERS, END_HEADERS | END, 1, b"\x88"), id="an error: no message"),
        pytest.param(frame(RST_STREAM, 0, 1, b"\0\0\0\x07"), id="refused"),
        pytest.param(frame(GOAWAY, 0, 0, b"\0" * 8), id="going away"),
        pytest.param(frame(HEADERS, 0, 1, b"\x88"), id="headers that go on"),
        pytest.param(frame(DATA, END | PADDED, 1, b"\x01\0\0\0\0\0\0"), id="padded"),
        pytest.param(frame(DATA, END, 1, b"\x01\0\0\0\x01x"), id="compressed"),
        pytest.param(frame(DATA, END, 1, b"\0\0\0\0\x02x"), id="a part of a message"),
        pytest.param(answer(1, b"x") * 2, id="twice"),
        pytest.param(answer(2, b"x"), id="a stream of the member"),
        pytest.param(answer(99, b"x"), id="a call that was not made"),
        pytest.param(frame(DATA, 0, 1, b"x" * 9000) * 2, id="a large answer"),
        pytest.param(b"\xff\xff\xff\0\0\0\0\0\x01", id="a large frame"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="not HTTP/2"),
    ],
)
def test_what_etcd_does_not_do(odd: bytes) -> None:
    calls = calls_of(2)
    calls.read(settings())
    with pytest.raises(Failed):
        calls.read(odd)


def test_the_header_fields() -> None:
    made = _headers(Endpoint("::1", 2379), "/p.S/M", [("token", "t" * 300)])
    assert made == (
        b"\x83\x86\x04\x06/p.S/M\x01\x0a[::1]:2379\x0f\x10\x10application/grpc"
        b"\0\x02te\x08trailers\0\x05token\x7f\xad\x01" + b"t" * 300
    )
