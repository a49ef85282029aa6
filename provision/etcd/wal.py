"""The ids in a member's write-ahead log, read without etcd.

Every file of it begins with a record of its checksum and one of its metadata (etcd's ``wal.go``,
``Create`` and ``cut``). A record is a little-endian length of eight bytes, whose highest byte says
how it is padded (``decoder.go``, ``decodeFrameSize``), and a protobuf message: ``walpb.Record``
with the type (field 1) and the data (field 3). The metadata is ``etcdserverpb.Metadata``: the
member's id (field 1) and the cluster's (field 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

#: Bytes of a file that hold its first two records with room to spare.
HEAD = 256
_METADATA = 1
_VARINT, _BYTES = 0, 2


class Ids(NamedTuple):
    member_id: int
    cluster_id: int


def ids(head: bytes) -> Ids | None:
    """The ids in the first :data:`HEAD` bytes of a WAL file; None when they cannot be read."""
    try:
        for kind, data in _records(head):
            if kind == _METADATA:
                fields = dict(_fields(data))
                member, cluster = fields.get(1, 0), fields.get(2, 0)
                if isinstance(member, int) and isinstance(cluster, int) and cluster:
                    return Ids(member, cluster)
                return None
    except (ValueError, IndexError):
        return None
    return None


def parse(hexadecimal: str) -> Ids | None:
    """As :func:`ids`, of the bytes as ``od -An -v -tx1`` prints them."""
    try:
        return ids(bytes.fromhex("".join(hexadecimal.split())))
    except ValueError:
        return None


def _records(head: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 8 <= len(head):
        frame = int.from_bytes(head[at : at + 8], "little")
        length = frame & ((1 << 56) - 1)
        padding = (frame >> 56) & 0x7 if frame >> 63 else 0
        if not 0 < length <= len(head) - at - 8:
            return
        fields = dict(_fields(head[at + 8 : at + 8 + length]))
        kind, data = fields.get(1, 0), fields.get(3, b"")
        if not isinstance(kind, int) or not isinstance(data, bytes):
            raise ValueError("no WAL record")
        yield kind, data
        at += 8 + length + padding


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
        elif key & 7 == _BYTES:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("cut off")
            yield key >> 3, message[at : at + length]
            at += length
        else:
            raise ValueError("no field of a WAL record")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & ((1 << 64) - 1), at
        if shift > 63:
            raise ValueError("no number")
