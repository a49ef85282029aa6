"""The keys that Alluxio's workers write in etcd. A value in an unknown form is reported as such.

The keys and values have the form of Alluxio 313 (classes ``EtcdMembershipManager`` and
``ServiceDiscoveryRecipe``). A worker writes a permanent key when it first joins, and a key under a
lease while it lives. Both keys have the worker's entity as JSON. With membership SERVICE_REGISTRY
there is only the second key. Values of the first 30x releases are read, too
(:mod:`legacy_format`); any other value is kept as unknown.
"""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypedDict, TypeGuard, cast

from provision import bounds, progress
from provision.alluxio.membership import legacy_format
from provision.dataclass import dataclass
from provision.errors import Problem
from provision.etcd.api import paging
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import TOO_MUCH, EtcdTooMuch
from provision.etcd.api.values import KeyValue, after
from provision.inventory import worker_address
from provision.inventory.resolved import AlluxioWorker
from provision.ssh import answers
from provision.ssh.session import Fleet
from provision.text import EXCERPT, document, printable

AUTHORIZED_ROOT = "/DHT/"
LIVE_ROOT = "/ServiceDiscovery/"
#: Characters of a worker id that are shown; Alluxio's own have 43.
ID_LIMIT = 200
_UUID = re.compile(r"[0-9a-fA-F]{32}")


class RegistrationValue(TypedDict):
    """A worker's value in etcd. Port 0 means that the worker has no such port."""

    worker_id: str
    host: str
    rpc_port: int
    data_port: int
    web_port: int
    state: str
    generation: int
    older: bool
    container_host: str
    secure_rpc_port: int
    netty_data_port: int
    domain_socket: str
    http_port: int
    identity: str


class Registration(NamedTuple):
    """A worker's entity. Port 0 means that the worker has no such port; ``generation`` is -1 until
    Alluxio counts it.

    ``worker_id`` is the id in the key, ``identity`` the id that the value itself has, in the same
    form; empty when the value has none. ``older``: the value has the form of the first 30x
    releases, which Alluxio 313 cannot read. The fields after it are fields of ``WorkerNetAddress``
    that few workers have.
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
    identity: str = ""

    def document(self) -> RegistrationValue:
        """The value as JSON."""
        return cast(RegistrationValue, self._asdict())

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
    """Both prefixes of one cluster at one revision, by worker id.

    ``cut``: which keys or values are missing because there are too many; empty when none is.
    """

    cluster: str
    revision: int
    authorized: Mapping[str, Entry]
    live: Mapping[str, Entry]
    cut: str = ""

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
    if len(value) > bounds.VALUE:
        return UnknownRegistration(worker_id, printable(value, EXCERPT))
    try:
        entity = _entity(value)
        address = entity["WorkerNetAddress"]
        host, rpc_port = address["Host"], address["RpcPort"]
        if isinstance(host, str) and host and _is_port(rpc_port):
            generation = entity.get("GenerationNumber")
            # By place: by name, it takes four times as long.
            return Registration(
                worker_id,
                printable(host, 255),
                _port(rpc_port),
                _port(address.get("DataPort")),
                _port(address.get("WebPort")),
                sys.intern(printable(str(entity.get("State", "")), 40)),
                generation if isinstance(generation, int) else -1,
                False,
                _text(address.get("ContainerHost"), 255),
                _port(address.get("SecureRpcPort")),
                _port(address.get("NettyDataPort")),
                _text(address.get("DomainSocketPath"), 1000),
                _port(address.get("HttpServerPort")),
                worker_id if (own := _identity(entity)) == worker_id else own,
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


def _entity(value: bytes) -> Any:
    """The JSON document in a value. pydantic's reader takes a third of the time of Python's, which
    also reads lone surrogates and other encodings than UTF-8, and refuses numbers like 1e999."""
    from pydantic_core import from_json

    try:
        return from_json(value, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return document(value)


def read(client: EtcdClient, cluster: str, *, partial: bool = False) -> RegistrationSnapshot:
    """The registrations of ``cluster``, both prefixes at one revision (linearizable).

    Raises :class:`provision.etcd.api.errors.EtcdError`. When there are more than
    :mod:`provision.bounds` permits, this is an error, too: a plan needs all of them. With
    ``partial``, for a view, the result has what was read, and says what is missing.
    """
    authorized, live = authorized_prefix(cluster), live_prefix(cluster)
    # A worker has the same value in both keys: it is kept once.
    values: dict[bytes, bytes] = {}
    first = _scan(client, authorized, 0, partial, values)
    second = _scan(client, live, first.revision, partial, values)
    del values
    known = entries(authorized, first.keys, {})
    cut = [
        f"below {printable(prefix, ID_LIMIT)}: {scan.cut}"
        for prefix, scan in ((authorized, first), (live, second))
        if scan.cut
    ]
    return RegistrationSnapshot(
        cluster, first.revision, known, entries(live, second.keys, known), "; ".join(cut)
    )


def _scan(
    client: EtcdClient, prefix: str, revision: int, partial: bool, values: dict[bytes, bytes]
) -> paging.Scan:
    start = prefix.encode()
    if not partial:
        return paging.Scan(*client.interval(start, after(start), revision=revision, values=values))
    return client.scan(start, after(start), revision=revision, values=values)


def missing(cut: str) -> Problem | None:
    """The warning that keys or values are missing in a view; None when ``cut`` is empty."""
    if not cut:
        return None
    what = f"not everything was read, and what is not there may exist: {cut}"
    return Problem("etcd", what, TOO_MUCH, "warning", id="etcd-answer-cut")


def clusters(client: EtcdClient) -> list[str]:
    """The names of all Alluxio clusters that have a key in this etcd, sorted and printable.

    Raises :class:`EtcdTooMuch` when there are more than :mod:`provision.bounds` permits.
    """
    return sorted(printable(name, ID_LIMIT) for name in children(client))


def children(client: EtcdClient) -> set[bytes]:
    """As :func:`clusters`, with the names as bytes, as in the keys."""
    found, cut = children_and_cut(client)
    if cut:
        raise EtcdTooMuch(client.endpoint, cut)
    return found


def children_and_cut(client: EtcdClient) -> tuple[set[bytes], str]:
    """As :func:`children`, for a view: the names that were read, and why others are missing; empty
    when none is.

    It needs a request for each cluster with many workers, and far fewer for many small clusters.
    """
    found: set[bytes] = set()
    try:
        for root in (AUTHORIZED_ROOT, LIVE_ROOT):
            for name in _children(client, root):
                if len(found) >= bounds.CLUSTERS and name not in found:
                    return found, f"more than {bounds.CLUSTERS} names of clusters below {root}"
                found.add(name)
    except EtcdTooMuch as error:
        return found, error.problems[0].what
    return found, ""


class Count(NamedTuple):
    """How many workers of a cluster are authorized, and how many are live."""

    authorized: int
    live: int


class Counts(NamedTuple):
    """Every cluster's workers, by the cluster's name, at one revision. ``cut``: why clusters or
    workers are missing; empty when none is."""

    revision: int
    by_name: dict[bytes, Count]
    cut: str


def count_all(client: EtcdClient) -> Counts:
    """How many workers each cluster has, all clusters in one read.

    A worker is live when its key has a lease; etcd gives the lease only together with the value.
    """
    authorized, live = AUTHORIZED_ROOT.encode(), LIVE_ROOT.encode()
    first = client.scan(authorized, after(authorized), keys_only=True)
    second = client.scan(live, after(live), revision=first.revision)
    joined: dict[bytes, int] = {}
    there: dict[bytes, int] = {}
    for key in first.keys:
        name, slash, rest = key.key[len(authorized) :].partition(b"/")
        if slash:
            joined[name] = joined.get(name, 0) + rest.startswith(b"AUTHORIZED/")
    for key in second.keys:
        name, slash, _ = key.key[len(live) :].partition(b"/")
        if slash:
            there[name] = there.get(name, 0) + (key.lease != 0)
    names = sorted(joined.keys() | there.keys())
    cut = [
        f"below {root}: {scan.cut}"
        for root, scan in ((AUTHORIZED_ROOT, first), (LIVE_ROOT, second))
        if scan.cut
    ]
    if len(names) > bounds.CLUSTERS:
        cut.append(f"more than {bounds.CLUSTERS} names of clusters")
    by_name = {n: Count(joined.get(n, 0), there.get(n, 0)) for n in names[: bounds.CLUSTERS]}
    return Counts(first.revision, by_name, "; ".join(cut))


def count(client: EtcdClient, cluster: bytes) -> Counts:
    """As :func:`count_all`, for one cluster: a login may have no right to read others' keys."""
    authorized = AUTHORIZED_ROOT.encode() + cluster + b"/AUTHORIZED/"
    live = LIVE_ROOT.encode() + cluster + b"/"
    first = client.scan(authorized, after(authorized), keys_only=True)
    second = client.scan(live, after(live), revision=first.revision)
    found = Count(len(first.keys), sum(key.lease != 0 for key in second.keys))
    return Counts(
        first.revision, {cluster: found}, "; ".join(filter(None, (first.cut, second.cut)))
    )


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


def all_confusable(names: Iterable[str], most: int) -> dict[str, list[str]]:
    """:func:`confusable` for each of ``names``, with at most ``most`` others each.

    Sorted, the names that begin with a name follow it at once, so each name is looked at once.
    """
    found: dict[str, list[str]] = {}
    above: list[str] = []
    for name in sorted(set(names)):
        found[name] = []
        while above and not name.startswith(above[-1]):
            above.pop()
        found[name] += above[:most]
        for shorter in above[-most:]:
            if len(found[shorter]) < most:
                found[shorter].append(name)
        above.append(name)
    return found


def port_answers(fleet: Fleet, worker: AlluxioWorker, timeout: float = 2.0) -> bool:
    """Whether the worker's RPC port takes a connection, from here or else from its own host.

    ``timeout`` is the limit in seconds for each attempt. Raises :class:`answers.Unasked` when it
    cannot be found out.
    """
    with progress.calling(worker.name, f"port {worker.rpc_port}", timeout):
        return answers.answers(fleet, worker.machine, worker.hostname, worker.rpc_port, timeout)


def entries(prefix: str, keys: list[KeyValue], known: Mapping[str, Entry]) -> dict[str, Entry]:
    """``keys``, all below ``prefix``, by worker id. A value that ``known`` has for the same id is
    not parsed again."""
    found: dict[str, Entry] = {}
    odd = _OddIds(known, found)
    skip = len(prefix.encode())
    for key in keys:
        own = key.key[skip:]
        worker_id = printable(own, ID_LIMIT)
        same = known.get(worker_id)
        plain = worker_id.isascii() and worker_id not in found
        if not plain or not own or (same is not None and not same.key.key.endswith(own)):
            worker_id = odd.name(own, worker_id or "(no id)")
            same = known.get(worker_id)
        if same is not None and same.key.value == key.value:
            registration = same.registration
        else:
            registration = parse(worker_id, key.value)
        found[registration.worker_id] = Entry(key, registration)
    return found


class _OddIds:
    """Names of ids that cannot be shown as they are. Ids may differ only in characters that cannot
    be shown: they are not one worker."""

    def __init__(self, known: Mapping[str, Entry], found: Mapping[str, Entry]) -> None:
        self._known, self._found = known, found
        self._alike: dict[str, int] = {}

    @functools.cached_property
    def _named(self) -> dict[bytes, str]:
        return {_id_in(entry.key.key): worker_id for worker_id, entry in self._known.items()}

    def name(self, own: bytes, shown: str) -> str:
        """The known name of ``own``, or else a name that no other id has."""
        worker_id = self._named.get(own, shown)
        while worker_id in self._found or (worker_id in self._known and own not in self._named):
            self._alike[shown] = number = self._alike.get(shown, 1) + 1
            worker_id = f"{shown}'" if number == 2 else f"{shown}'{number}"
        return worker_id


def _id_in(key: bytes) -> bytes:
    """The id in a key below either prefix, as it is there."""
    rest = key.split(b"/", 3)[-1]
    return rest.removeprefix(b"AUTHORIZED/") if key.startswith(b"/DHT/") else rest


def _children(client: EtcdClient, root: str) -> Iterator[bytes]:
    """The names directly below ``root``. Each request skips from a name's first key to the key
    after its last, and asks for more keys than the one before: clusters may be large, or many."""
    prefix = root.encode()
    start, end = prefix, prefix[:-1] + b"0"  # "0" follows "/"
    count, seen, deadline = 1, 0, time.monotonic() + bounds.READ_SECONDS
    while True:
        keys = client.interval(start, end, limit=count, keys_only=True)[1]
        last = b""
        for key in keys:
            name, slash, _ = key.key[len(prefix) :].partition(b"/")
            if slash and name != last:
                yield name
            last = name if slash else b""
            start = prefix + name + (b"0" if slash else b"\0")
        seen += len(keys)
        if len(keys) < count:
            return
        if seen > bounds.KEYS or time.monotonic() > deadline:
            raise EtcdTooMuch(client.endpoint, f"too many keys below {root}")
        count = min(4 * count, paging.PAGE)


def _identity(entity: Mapping[str, object]) -> str:
    """The worker's id in its value, as Alluxio writes it in the key (``WorkerIdentity.toString``);
    empty without one. Version 0 is a number of 8 bytes, version 1 a UUID."""
    identity = entity.get("Identity")
    if not isinstance(identity, dict):
        return ""
    version, digits = identity.get("version"), identity.get("identifier")
    if not isinstance(digits, str) or isinstance(version, bool):
        return ""
    if version == 1 and _UUID.fullmatch(digits):
        d = digits.lower()
        return f"worker-{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:]}"
    if version == 0 and re.fullmatch(r"[0-9a-fA-F]{16}", digits):
        return f"worker-{int.from_bytes(bytes.fromhex(digits), 'big', signed=True)}"
    return f"of version {printable(str(version), 20)}: {printable(digits, 80)}"


def _text(value: object, limit: int) -> str:
    return printable(value, limit) if value and isinstance(value, str) else ""


def _is_port(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value < 65536


def _port(value: object) -> int:
    return _shared(value) if _is_port(value) else 0


#: Thousands of workers have the same few ports: each number is kept once.
_shared = functools.lru_cache(1024)(int)


def differing(address: worker_address.Address, registration: Registration) -> list[str]:
    """The differences that Alluxio would see between ``address`` and ``registration``; empty
    without differences."""
    found = []
    for field, title in worker_address.TITLES.items():
        new, old = getattr(address, field), getattr(registration, field)
        if new is not None and new != old:
            found.append(f"{title} {old or '(none)'} becomes {new or '(none)'}")
    return found
