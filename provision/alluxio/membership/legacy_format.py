"""Registrations of the first Alluxio 30x releases: a hash for the id, and a binary value.

``WorkerServiceEntity.serialize`` wrote this layout before it wrote JSON, with Java's
``DataOutputStream``: the id (``writeUTF``), an etcd revision (8 bytes), the state's ordinal
(4 bytes), and the worker's address as protobuf (4 bytes of length; ``WorkerNetAddress`` in
``grpc/common.proto``: host = 1, rpcPort = 2, dataPort = 3, webPort = 4). The id is the MD5 of the
address, in hex. Alluxio 313 leaves such workers out of ``info nodes`` without any message (tried).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

#: ``WorkerServiceEntity.State``, by ordinal.
STATES = ("JOINED", "AUTHORIZED", "DECOMMISSIONED")
_AFTER_ID = struct.Struct(">qii")


class OlderEntity(NamedTuple):
    """The contents of such a value. A missing port is 0."""

    host: bytes
    rpc_port: int
    data_port: int
    web_port: int
    state: str


def parse(worker_id: str, value: bytes) -> OlderEntity | None:
    """The entity in ``value``, or None unless every byte of ``value`` has this form."""
    name = worker_id.encode()
    begin = struct.pack(">H", len(name)) + name if len(name) < 1 << 16 else None
    if begin is None or not value.startswith(begin) or len(value) < len(begin) + _AFTER_ID.size:
        return None
    _, state, length = _AFTER_ID.unpack_from(value, len(begin))
    address = value[len(begin) + _AFTER_ID.size :]
    if not 0 <= state < len(STATES) or length != len(address):
        return None
    from provision.etcd.api.protocol import unknown_fields

    try:
        fields = unknown_fields(address)
    except ValueError:
        return None

    def port(number: int) -> int:
        value = fields.get(number, [0])[-1]
        return value if isinstance(value, int) else 0

    host = fields.get(1, [b""])[-1]
    if not isinstance(host, bytes) or not host:
        return None
    return OlderEntity(host, port(2), port(3), port(4), STATES[state])
