"""etcd's v3 protocol: its messages and calls, for any installed protobuf.

The package etcd3 has ``rpc.proto`` of etcd 3.3 as code that protoc generated in 2019. Every
protobuf from 4 on refuses that code ("Descriptors cannot be created directly"), and protobuf 3
gets no more fixes. Only the descriptors in that code are needed: one serialized constant per
module. This module reads them without running the code, adds what etcd has added since, and lets
the installed protobuf make the classes.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from provision.errors import UsageError

PACKAGE = "etcdserverpb"
#: In the order in which they import one another.
_MODULES = ("kv_pb2", "auth_pb2", "rpc_pb2")
_SERIALIZED = re.compile(r"\bserialized_pb=_b\(('(?:[^'\\]|\\.)*')\)")
#: What messages have had since etcd 3.4 (storageVersion, dbSizeQuota: 3.6): name, type, number.
_FIELDS = {
    "StatusResponse": (
        ("errors", "repeated bytes", 8),
        ("dbSizeInUse", "int64", 9),
        ("isLearner", "bool", 10),
        ("storageVersion", "bytes", 11),
        ("dbSizeQuota", "int64", 12),
    ),
    "Member": (("isLearner", "bool", 5),),
    "MemberAddRequest": (("isLearner", "bool", 2),),
    "MemberPromoteRequest": (("ID", "uint64", 1),),
    "DowngradeRequest": (("action", "int32", 1), ("version", "string", 2)),
    "Answer": (),  # an answer without any field that is read
}
#: Calls since etcd 3.4 and 3.5: service, name, request, answer.
_METHODS = (
    ("Cluster", "MemberPromote", "MemberPromoteRequest", "Answer"),
    ("Maintenance", "Downgrade", "DowngradeRequest", "Answer"),
)


class Protocol:
    """gRPC as ``grpc``; messages as attributes of ``pb`` and ``permissions``."""

    def __init__(self) -> None:
        import grpc
        from google.protobuf import descriptor_pool

        self.grpc: Any = grpc
        pool = descriptor_pool.DescriptorPool()
        for file in _files():
            pool.AddSerializedFile(file.SerializeToString())
        self._services = {service.name: service for service in file.service}
        self.pb: Any = _Messages(pool, PACKAGE)
        self.permissions: Any = _Messages(pool, "authpb")

    def service(self, channel: Any, name: str) -> _Service:
        """The calls of one service over ``channel``, as attributes."""
        return _Service(channel, self._services[name], self._message)

    def _message(self, full_name: str) -> Any:
        return getattr(self.pb, full_name.rpartition(".")[2])


class _Messages:
    def __init__(self, pool: Any, package: str) -> None:
        self._pool, self._package = pool, package

    def __getattr__(self, name: str) -> Any:
        from google.protobuf import message_factory

        descriptor = self._pool.FindMessageTypeByName(f"{self._package}.{name}")
        made = message_factory.GetMessageClass(descriptor)
        setattr(self, name, made)  # so the name is looked up only once
        return made


class _Service:
    def __init__(self, channel: Any, service: Any, message: Callable[[str], Any]) -> None:
        self._channel, self._service, self._message = channel, service, message

    def __getattr__(self, name: str) -> Any:
        method = next(m for m in self._service.method if m.name == name)
        kinds = ("unary", "stream")
        kind = f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}"
        made = getattr(self._channel, kind)(
            f"/{PACKAGE}.{self._service.name}/{name}",
            request_serializer=self._message(method.input_type).SerializeToString,
            response_deserializer=self._message(method.output_type).FromString,
        )
        setattr(self, name, made)
        return made


_loading = threading.Lock()


def load() -> Protocol:
    """gRPC and the protocol. Raises :class:`UsageError` when a package is missing or is another
    one."""
    # gRPC logs to stderr by itself; its errors have the important parts. A user's setting wins.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with _loading:  # a second thread waits here, and does not make a second protocol
            return _made()
    except ImportError as error:
        raise UsageError(
            f"etcd3, grpcio and protobuf are needed: {error}; pip install this project",
            id="installation-broken",
        ) from error


@lru_cache(maxsize=1)
def _made() -> Protocol:
    return Protocol()


def _files() -> Iterator[Any]:
    """The descriptors of the proto files; the last is ``rpc.proto`` with the later additions."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    spec = importlib.util.find_spec("etcd3")  # finds the package without importing it
    if spec is None or spec.origin is None:
        raise ImportError("no package etcd3")
    for module in _MODULES:
        file = FileDescriptorProto()
        file.ParseFromString(_serialized(Path(spec.origin).parent / "etcdrpc" / f"{module}.py"))
        if module == _MODULES[-1]:
            _add_later(file)
        yield file


def _serialized(path: Path) -> bytes:
    """The file's descriptor in a module that protoc has generated: a latin-1 text."""
    try:
        found = _SERIALIZED.search(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ImportError(f"etcd3 without {path.name}: {error.strerror}") from error
    if found is None:
        raise ImportError(f"etcd3 is not version 0.12.0: no descriptor in {path.name}")
    return str(ast.literal_eval(found[1])).encode("latin-1")


def _add_later(file: Any) -> None:
    messages = {message.name: message for message in file.message_type}
    for name, fields in _FIELDS.items():
        message = messages.get(name) or file.message_type.add(name=name)
        for field, kind, number in fields:
            repeated, _, base = kind.rpartition(" ")
            message.field.add(
                name=field,
                number=number,
                type=f"TYPE_{base.upper()}",
                label="LABEL_REPEATED" if repeated else "LABEL_OPTIONAL",
            )
    # Keys and range ends that were strings up to 3.4; the bytes on the wire are the same.
    for field in messages["AuthRoleRevokePermissionRequest"].field:
        if field.name != "role":
            field.type = field.TYPE_BYTES
    services = {service.name: service for service in file.service}
    for service, name, request, answer in _METHODS:
        services[service].method.add(
            name=name,
            input_type=f".{PACKAGE}.{request}",
            output_type=f".{PACKAGE}.{answer}",
        )


def unknown_fields(message: bytes) -> dict[int, list[int | bytes]]:
    """The fields of any protobuf message, by field number: numbers and texts, in their order.

    Raises :class:`ValueError` when ``message`` is not a protobuf message.
    """
    from google.protobuf.empty_pb2 import Empty
    from google.protobuf.message import DecodeError
    from google.protobuf.unknown_fields import UnknownFieldSet

    read = Empty()
    try:
        read.ParseFromString(message)
    except DecodeError as error:
        raise ValueError(str(error)) from None
    found: dict[int, list[int | bytes]] = {}
    fields: Any = UnknownFieldSet(read)
    for field in fields:
        if isinstance(field.data, (int, bytes)):
            found.setdefault(field.field_number, []).append(field.data)
    return found
