"""A gRPC server that speaks etcd's protocol, and answers what a test wants: a hostile member."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from provision.etcd.api import protocol
from provision.etcd.api.values import Endpoint

#: For a request, the answer; for a call that streams, the answers. They may call `context.abort`.
Answering = Callable[[Any, Any], Any]


class Hostile:
    """The server: ``answers`` by the name of the call, ``requests`` that came, each with its
    call."""

    def __init__(self, **answers: Answering) -> None:
        self.answers: dict[str, Answering] = {
            "Status": lambda request, context: self.pb.StatusResponse(
                header=self.header(), version="3.6.16", leader=1, dbSize=4096
            ),
            "MemberList": lambda request, context: self.pb.MemberListResponse(
                header=self.header(), members=[self.pb.Member(ID=1, name="infra0")]
            ),
            **answers,
        }
        self.requests: list[tuple[str, Any]] = []
        self.lib = protocol.load()
        self.pb = self.lib.pb
        self.port = 0

    def header(self, revision: int = 7) -> Any:
        return self.pb.ResponseHeader(cluster_id=1, member_id=1, revision=revision)

    def page(self, keys: list[Any], *, more: bool = False) -> Any:
        return self.pb.RangeResponse(header=self.header(), kvs=keys, more=more, count=len(keys))

    def key(self, name: bytes, value: bytes = b"", lease: int = 0, revision: int = 5) -> Any:
        kv = self.pb.RangeResponse().kvs.add()
        kv.key, kv.value, kv.lease, kv.mod_revision = name, value, lease, revision
        return kv

    def counted(self, call: str) -> int:
        return sum(name == call for name, _ in self.requests)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.port)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Hostile]:
        grpc = self.lib.grpc
        server = grpc.server(
            ThreadPoolExecutor(8), options=[("grpc.max_send_message_length", 1 << 30)]
        )
        services: dict[str, tuple[str, ...]] = {
            "KV": ("Range",),
            "Cluster": ("MemberList",),
            "Watch": ("Watch",),
        }
        services |= {"Maintenance": ("Status", "Snapshot", "Alarm", "HashKV")}
        services |= {"Auth": ("UserList", "UserGet", "RoleList"), "Lease": ("LeaseTimeToLive",)}
        for service, calls in services.items():
            handlers = {call: self._handler(service, call) for call in calls}
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"etcdserverpb.{service}", handlers),)
            )
        self.port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield self
        finally:
            server.stop(None)

    def _handler(self, service: str, call: str) -> Any:
        method = next(m for m in self.lib._services[service].method if m.name == call)
        read = self.lib._message(method.input_type).FromString

        def serialized(answer: Any) -> bytes:
            return answer if isinstance(answer, bytes) else bytes(answer.SerializeToString())

        def one(request: Any, context: Any) -> Any:
            self.requests.append((call, request))
            if call not in self.answers:
                context.abort(self.lib.grpc.StatusCode.UNIMPLEMENTED, f"unknown method {call}")
            return self.answers[call](request, context)

        kinds = {
            (False, False): "unary_unary",
            (False, True): "unary_stream",
            (True, True): "stream_stream",
        }
        kind = kinds[method.client_streaming, method.server_streaming]
        make = getattr(self.lib.grpc, f"{kind}_rpc_method_handler")
        return make(one, request_deserializer=read, response_serializer=serialized)
