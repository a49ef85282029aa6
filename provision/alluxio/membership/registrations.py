"""The keys that Alluxio's workers write in etcd. A value in an unknown form is reported as such.

The keys and values have the form of Alluxio 313 (classes ``EtcdMembershipManager`` and
``ServiceDiscoveryRecipe``). A worker writes a permanent key when it first joins, and a key under a
lease while it lives. Both keys have the worker's entity as JSON. With membership SERVICE_REGISTRY
there is only the second key. Values of the first 30x releases are read, too
(:mod:`legacy_format`); any other value is kept as unknown.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from provision.alluxio.membership import legacy_format
from provision.errors import ProvisionError
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import KeyValue
from provision.inventory import worker_address
from provision.inventory.resolved import AlluxioWorker
from provision.ssh.session import Fleet
from provision.text import EXCERPT, document, printable

AUTHORIZED_ROOT = "/DHT/"
LIVE_ROOT = "/ServiceDiscovery/"
#: Characters of a worker id that are shown; Alluxio's own have 43.
ID_LIMIT = 200


class Registration(NamedTuple):
    """A worker's entity. Port 0 means that the worker has no such port; ``generation`` is -1 until
    Alluxio counts it.

    ``older``: the value has the form of the first 30x releases, which Alluxio 313 cannot read. The
    fields after it are fields of ``WorkerNetAddress`` that few workers have.
    """

    worker_id: str
    host: str
    rpc_port: int
    data_port: int
    web_port: int
    state: str
    generation: int
    older: bool = False
    container_host: str = ""
    secure_rpc_port: int = 0
    netty_data_port: int = 0
    domain_socket: str = ""
    http_port: int = 0

    @property
    def uuid(self) -> str:
        """The identity, in the form of the worker's identity file."""
        return self.worker_id.removeprefix("worker-")


class UnknownRegistration(NamedTuple):
    """A registration with a value in an unknown form; ``excerpt`` is the beginning of the value."""

    worker_id: str
    excerpt: str


class Entry(NamedTuple):
    key: KeyValue
    registration: Registration | UnknownRegistration


@dataclass(frozen=True, slots=True)
class RegistrationSnapshot:
    """Both prefixes of one cluster at one revision, by worker id."""

    cluster: str
    revision: int
    authorized: Mapping[str, Entry]
    live: Mapping[str, Entry]

    def live_registrations(self) -> Iterator[tuple[KeyValue, Registration]]:
        """The live workers with a readable value, each with its key."""
        for key, registration in self.live.values():
            if isinstance(registration, Registration):
                yield key, registration


def authorized_prefix(cluster: str) -> str:
    """The prefix of the permanent keys of workers that have joined."""
    return f"{AUTHORIZED_ROOT}{cluster}/AUTHORIZED/"


def live_prefix(cluster: str) -> str:
    """The prefix of the keys that workers have while their lease lasts.

    It ends with a slash, unlike Alluxio's prefix: see :func:`confusable`.
    """
    return f"{LIVE_ROOT}{cluster}/"


def parse(worker_id: str, value: bytes) -> Registration | UnknownRegistration:
    """A registration's value. Never raises; all texts are safe to print."""
    try:
        entity = document(value)
        address = entity["WorkerNetAddress"]
        host, rpc_port = address["Host"], address["RpcPort"]
        if isinstance(host, str) and host and _is_port(rpc_port):
            generation = entity.get("GenerationNumber")
            return Registration(
                worker_id=worker_id,
                host=printable(host, 255),
                rpc_port=rpc_port,
                data_port=_port(address.get("DataPort")),
                web_port=_port(address.get("WebPort")),
                state=printable(str(entity.get("State", "")), 40),
                generation=generation if isinstance(generation, int) else -1,
                container_host=_text(address.get("ContainerHost"), 255),
                secure_rpc_port=_port(address.get("SecureRpcPort")),
                netty_data_port=_port(address.get("NettyDataPort")),
                domain_socket=_text(address.get("DomainSocketPath"), 1000),
                http_port=_port(address.get("HttpServerPort")),
            )
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    entity = legacy_format.parse(worker_id, value)
    if entity is not None and _is_port(entity.rpc_port):
        return Registration(
            worker_id=worker_id,
            host=printable(entity.host, 255),
            rpc_port=entity.rpc_port,
            data_port=_port(entity.data_port),
            web_port=_port(entity.web_port),
            state=entity.state,
            generation=-1,
            older=True,
        )
    return UnknownRegistration(worker_id, printable(value, EXCERPT))


def read(client: EtcdClient, cluster: str) -> RegistrationSnapshot:
    """The registrations of ``cluster``, both prefixes at one revision (linearizable).

    Raises :class:`provision.etcd.api.errors.EtcdError`.
    """
    revision, authorized = client.range(authorized_prefix(cluster))
    _, live = client.range(live_prefix(cluster), revision=revision)
    known = entries(authorized_prefix(cluster), authorized, {})
    return RegistrationSnapshot(
        cluster, revision, known, entries(live_prefix(cluster), live, known)
    )


def clusters(client: EtcdClient) -> list[str]:
    """The names of all Alluxio clusters that have a key in this etcd, sorted.

    It needs one request per cluster, for any number of workers.
    """
    return sorted(printable(name, ID_LIMIT) for name in children(client))


def children(client: EtcdClient) -> set[bytes]:
    """As :func:`clusters`, with the names as bytes, as in the keys."""
    return set(_children(client, AUTHORIZED_ROOT)) | set(_children(client, LIVE_ROOT))


def counts(client: EtcdClient, cluster: bytes, revision: int = 0) -> tuple[int, int, int]:
    """The revision of the answer, and how many workers are authorized and live at that revision.
    ``revision`` 0 means now.

    A worker is live when its key has a lease; etcd gives the lease only together with the value.
    """
    authorized = AUTHORIZED_ROOT.encode() + cluster + b"/AUTHORIZED/"
    live = LIVE_ROOT.encode() + cluster + b"/"
    revision, known = client.range(authorized, keys_only=True, revision=revision)
    _, there = client.range(live, revision=revision)
    return revision, len(known), sum(key.lease != 0 for key in there)


def confusable(cluster: str, others: list[str]) -> list[str]:
    """The clusters of ``others`` whose workers Alluxio mixes up with the workers of ``cluster``.

    Alluxio lists the live prefix without a slash at its end (313, too). So it also lists every
    cluster with a name that begins with the same text: clients of the cluster with the shorter name
    see the workers of the other cluster.
    """
    return [
        other
        for other in others
        if other != cluster and (other.startswith(cluster) or cluster.startswith(other))
    ]


def port_answers(fleet: Fleet, worker: AlluxioWorker, timeout: float = 2.0) -> bool:
    """Whether the worker's RPC port takes a connection, from here or else from its own host.

    ``timeout`` is the limit in seconds for each of the two attempts.
    """
    try:
        socket.create_connection((worker.hostname, worker.rpc_port), timeout).close()
        return True
    except OSError:
        pass
    session = fleet.session(worker.machine)
    try:
        session.open_tcp(worker.hostname, worker.rpc_port, timeout=timeout).close()
        return True
    except ProvisionError:
        return False


def entries(prefix: str, keys: list[KeyValue], known: Mapping[str, Entry]) -> dict[str, Entry]:
    """``keys``, all below ``prefix``, by worker id. A value that ``known`` has for the same id is
    not parsed again."""
    found: dict[str, Entry] = {}
    skip = len(prefix.encode())
    for key in keys:
        worker_id = printable(key.key[skip:], ID_LIMIT) or "(no id)"
        while worker_id in found:  # ids that differ only in characters that cannot be shown
            worker_id += "'"
        same = known.get(worker_id)
        if same is not None and same.key.value == key.value:
            found[worker_id] = Entry(key, same.registration)
        else:
            found[worker_id] = Entry(key, parse(worker_id, key.value))
    return found


def _children(client: EtcdClient, root: str) -> Iterator[bytes]:
    """The names directly below ``root``. Each request skips from a name's first key to the key
    after its last."""
    prefix = root.encode()
    start, end = prefix, prefix[:-1] + b"0"  # "0" follows "/"
    while keys := client.interval(start, end, limit=1, keys_only=True)[1]:
        name, slash, _ = keys[0].key[len(prefix) :].partition(b"/")
        if slash:
            yield name
        start = prefix + name + (b"0" if slash else b"\0")


def _text(value: object, limit: int) -> str:
    return printable(value, limit) if isinstance(value, str) else ""


def _is_port(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536


def _port(value: object) -> int:
    return value if isinstance(value, int) and _is_port(value) else 0


def differing(address: worker_address.Address, registration: Registration) -> list[str]:
    """The differences that Alluxio would see between ``address`` and ``registration``; empty
    without differences."""
    found = []
    for field, title in worker_address.TITLES.items():
        new, old = getattr(address, field), getattr(registration, field)
        if new is not None and new != old:
            found.append(f"{title} {old or '(none)'} becomes {new or '(none)'}")
    return found
