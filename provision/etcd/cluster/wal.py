"""The ids in a member's write-ahead log, read without etcd.

Every file of the log begins with two records: its checksum and its metadata (etcd's ``wal.go``,
``Create`` and ``cut``). A record has a little-endian length of eight bytes and a protobuf message.
The highest byte of the length gives the padding (``decoder.go``, ``decodeFrameSize``). The message
is ``walpb.Record`` with the type (field 1) and the data (field 3). The metadata is
``etcdserverpb.Metadata``: the member's id (field 1) and the cluster's id (field 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from provision.etcd.api.protocol import unknown_fields

#: So many bytes hold a file's first two records with room to spare.
HEAD = 256
_METADATA = 1


class Ids(NamedTuple):
    member_id: int
    cluster_id: int


def read_head(folder: str) -> str:
    """A shell command that prints the head of the newest file in ``folder``, a word of the shell,
    for :func:`parse`. It fails without such a file."""
    return f'f=$(ls {folder}/*.wal | tail -n 1) && od -An -v -tx1 -N {HEAD} "$f"'


def ids(head: bytes) -> Ids | None:
    """The ids in the first :data:`HEAD` bytes of a WAL file; None when they cannot be read."""
    try:
        for kind, data in _records(head):
            if kind == _METADATA:
                fields = unknown_fields(data)
                member, cluster = fields.get(1, [0])[-1], fields.get(2, [0])[-1]
                if isinstance(member, int) and isinstance(cluster, int) and cluster:
                    return Ids(member, cluster)
                return None
    except ValueError:
        return None
    return None


def parse(hexadecimal: str) -> Ids | None:
    """As :func:`ids`, from the output of ``od -An -v -tx1``."""
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
        fields = unknown_fields(head[at + 8 : at + 8 + length])
        kind, data = fields.get(1, [0])[-1], fields.get(3, [b""])[-1]
        if not isinstance(kind, int) or not isinstance(data, bytes):
            raise ValueError("no WAL record")
        yield kind, data
        at += 8 + length + padding
