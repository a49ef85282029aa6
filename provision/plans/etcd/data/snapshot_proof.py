"""The proof of a snapshot file, before a member is stopped for it.

The checksum at the end of a file only says that nobody has changed the file since the checksum was
written. The proof is a scratch member on one host: it is restored from the file, starts, and gives
every key. etcd itself finds pages that are damaged: etcdutl when it restores the file, and etcd
when it builds its index of all keys. Text in the place of a value is the value for etcd, so the
values of Alluxio's keys are looked at here: they are text, and never contain a zero byte.

The host on which it runs may be in other hands, and give keys without an end. The file's own size
is the limit: what is in it can be given once.

The scratch member also shows which Alluxio clusters are in the snapshot, and whether
authentication is on in it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from provision import bounds
from provision.alluxio.membership import registrations
from provision.alluxio.worker import desired
from provision.dataclass import dataclass
from provision.errors import PreflightFailed, Problem, ProvisionError, Unhealthy, UsageError
from provision.etcd.api import paging
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import KeyValue, Login
from provision.etcd.cluster import scratch
from provision.etcd.cluster.handle import Etcd
from provision.inventory.resolved import EtcdMember, Inventory
from provision.plans.etcd.data import backup_etcd
from provision.text import counted, printable

#: How many clusters of a snapshot a line names.
NAMED = 20
#: A scratch member surely gives the keys of so many bytes of its file a second, with low priority.
GIVEN_PER_SECOND = 256 << 10
ROOTS = (registrations.AUTHORIZED_ROOT, registrations.LIVE_ROOT)


class ProofDocument(TypedDict):
    """What a scratch member has served from a snapshot."""

    member: str
    revision: int
    keys: int
    clusters: list[str]
    auth: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """What the scratch member showed. ``member``: the member on whose host it ran; ``clusters``:
    the names of the Alluxio clusters with keys in the snapshot; ``auth``: whether authentication is
    on in it, and ``accepted`` whether it then takes the workers' login."""

    member: str
    revision: int
    keys: int
    clusters: tuple[str, ...]
    auth: bool
    accepted: bool

    def document(self) -> ProofDocument:
        """The proof for ``--format json``."""
        return {
            "member": self.member,
            "revision": self.revision,
            "keys": self.keys,
            "clusters": list(self.clusters),
            "auth": self.auth,
        }

    @property
    def line(self) -> str:
        found = ", ".join(self.clusters[:NAMED]) or "none"
        if len(self.clusters) > NAMED:
            found += f" and {len(self.clusters) - NAMED} more"
        return (
            f"the snapshot is proven: a scratch member beside {self.member} has served its "
            f"{counted(self.keys, 'key')} at revision {self.revision}; Alluxio clusters in it: "
            f"{found}; authentication is {'on' if self.auth else 'off'} in it"
        )


def prove(etcd: Etcd, file: Path, sha256: str, workers: Login | None) -> Proof:
    """Start a scratch member with ``file`` on one host, and read every key of it.

    ``workers`` is the workers' login. Raises :class:`PreflightFailed` when the file cannot be
    restored or served, when it needs another login, and when no host can prove it: it has no room,
    or a fault of its own.
    """
    full: list[Problem] = []
    faults: list[Problem] = []
    for member in etcd.cluster.members:
        try:
            return _prove(etcd, member, file, sha256, workers)
        except PreflightFailed as error:
            if error.id != "disk-full":
                raise
            full += error.problems
        except scratch.HostFault as error:
            faults += error.problems
        except EtcdUnreachable as error:
            if error.reason not in (Reason.LOGIN, Reason.DENIED):
                raise _bad(file, error.problems) from error
            raise _login_refused(etcd, file, error) from error
        except Unhealthy as error:
            raise _bad(file, error.problems) from error
    if faults:
        what = "no member's host could prove the snapshot"
        raise PreflightFailed(what, [*faults, *full], id="backup-unproven")
    raise PreflightFailed("no member's host has room to prove the snapshot", full, id="disk-full")


def require_ours(
    inventory: Inventory, proof: Proof, other: Collection[str], running: Collection[str] = ()
) -> list[Problem]:
    """The warning about a snapshot without any Alluxio cluster.

    ``other`` are the names that the operator has given; ``running`` are clusters in the etcd that
    is to be restored, which may be named, too. Raises :class:`PreflightFailed` when the
    snapshot has Alluxio clusters, and neither the inventory's own nor one of ``other``; and
    :class:`UsageError` for a name that is not in the snapshot.
    """
    found = proof.clusters
    if unknown := sorted(set(other).difference(found, running)):
        there = f"it has {', '.join(found[:NAMED])}" if found else "it has none"
        raise UsageError(
            f"--other-cluster: no Alluxio cluster called {unknown[0]} is in the snapshot: {there}",
            id="name-unknown",
        )
    alluxio = inventory.alluxio
    if not found:
        if alluxio is not None and not alluxio.membership.in_etcd:
            return []
        what = "has no key of any Alluxio cluster"
        remedy = "is it the right file? list-clusters shows the clusters of the running etcd"
        return [Problem("the snapshot", what, remedy, "warning", id="snapshot-other-cluster")]
    if inventory.cluster in found or set(found) & set(other):
        return []
    names = ", ".join(found[:NAMED])
    raise PreflightFailed(
        "the snapshot is of another Alluxio cluster",
        [
            Problem(
                "the snapshot",
                f"has keys of {names}, and none of {inventory.cluster}, which the inventory names",
                f"use a snapshot of this cluster; if it is meant, add --other-cluster {found[0]}",
                id="snapshot-other-cluster",
            )
        ],
        id="snapshot-other-cluster",
    )


def workers_login(inventory: Inventory) -> Login | None:
    """The workers' own login to etcd; None without one."""
    alluxio = inventory.alluxio
    if alluxio is None or not alluxio.membership.in_etcd:
        return None
    return desired.login(alluxio)


def may_differ(inventory: Inventory, proof: Proof | None) -> bool:
    """Whether authentication in the snapshot is not as the inventory declares it. True when it is
    not known, because an earlier run has restored every member."""
    auth = inventory.etcd.auth
    if auth.enabled is None or auth.root_password is None:
        return False
    if proof is None:
        return True
    declared = auth.enabled
    return proof.auth is not declared or (proof.auth and not proof.accepted)


def _prove(etcd: Etcd, member: EtcdMember, file: Path, sha256: str, workers: Login | None) -> Proof:
    timeout = 30.0 + file.stat().st_size / backup_etcd.HASHED_PER_SECOND
    with scratch.member(etcd, member, file, sha256, timeout=timeout) as (client, status):
        auth = client.log_in() if etcd.credentials is not None else client.auth_enabled()
        accepted = not auth or workers is None or _takes(client, workers)
        client.hash_kv()  # reads the history, too
        given = _Given(member, file.stat().st_size)
        keys, names = _read_all(client, given, etcd.cluster.name.encode())
        if keys != (total := client.count()):
            raise _unproven(
                file, f"the scratch member counts {counted(total, 'key')} and gives {keys}"
            )
        _require_text(client, file, _Given(member, given.size))
    shown = tuple(sorted(printable(n, registrations.ID_LIMIT) for n in names))
    return Proof(member.name, status.revision, keys, shown, auth, accepted)


def _takes(client: EtcdClient, login: Login) -> bool:
    with EtcdClient(client.endpoint, timeout=client.timeout, tls=client.tls, login=login) as other:
        try:
            return other.log_in()
        except EtcdUnreachable as error:
            if error.reason is not Reason.LOGIN:
                raise
            return False


class _Given:
    """What a scratch member beside ``member`` has given of a file of ``size`` bytes: no more than
    the file has, and not for ever."""

    def __init__(self, member: EtcdMember, size: int) -> None:
        self.member, self.size, self._bytes = member, size, 0
        self._seconds = bounds.READ_SECONDS + size / GIVEN_PER_SECOND
        self._until = time.monotonic() + self._seconds

    def add(self, keys: Sequence[KeyValue]) -> None:
        """Raises :class:`scratch.HostFault` at the limit: another host may prove the file."""
        self._bytes += sum(len(kv.key) + len(kv.value) for kv in keys)
        if self._bytes > self.size:
            what = "the scratch member gives more than the file has: somebody answers for it"
            raise scratch.HostFault(what, [self._problem(what)], id="backup-unproven")
        if time.monotonic() > self._until:
            what = f"the scratch member gave no more keys in {self._seconds:.0f} s"
            raise scratch.HostFault(what, [self._problem(what)], id="backup-unproven")

    def _problem(self, what: str) -> Problem:
        where = self.member.place
        return Problem(where, what, "see to this host", id="backup-unproven")


def _read_all(client: EtcdClient, given: _Given, own: bytes) -> tuple[int, set[bytes]]:
    """How many keys the member gives, and the names of the Alluxio clusters in them, at most
    :data:`bounds.CLUSTERS` beside ``own``. It reads each value, and sends the key only."""
    roots = tuple(r.encode() for r in ROOTS)
    count, names = 0, set[bytes]()
    for key in _pages(client, b"\0", b"\0", given, keys_only=True):
        count += 1
        if key.key.startswith(roots):
            _, _, rest = key.key[1:].partition(b"/")
            name, slash, _ = rest.partition(b"/")
            if slash and (name == own or len(names) < bounds.CLUSTERS):
                names.add(name)
    return count, names


def _require_text(client: EtcdClient, file: Path, given: _Given) -> None:
    """Raises :class:`Unhealthy` when a value of Alluxio's keys has a zero byte."""
    for root in ROOTS:
        start, end = root.encode(), root.encode()[:-1] + b"0"  # "0" follows "/"
        for key in _pages(client, start, end, given, keys_only=False):
            if b"\0" in key.value:
                name = printable(key.key, 200)
                raise _unproven(file, f"the value of {name} is damaged: it has zero bytes")


def _pages(
    client: EtcdClient, start: bytes, end: bytes, given: _Given, *, keys_only: bool
) -> Iterator[KeyValue]:
    """The keys from ``start`` up to ``end``, page by page: a snapshot may have more than one read
    may collect."""
    while True:
        _, keys = client.interval(start, end, keys_only=keys_only, limit=paging.PAGE)
        if not keys:
            return
        given.add(keys)
        yield from keys
        start = keys[-1].key + b"\0"


def _unproven(file: Path, what: str) -> Unhealthy:
    return Unhealthy(what, [Problem(str(file), what, id="snapshot-invalid")], id="snapshot-invalid")


def _bad(file: Path, problems: Sequence[Problem]) -> PreflightFailed:
    use = "use another backup: this file cannot be restored"
    return PreflightFailed(
        f"{file}: the snapshot cannot be restored",
        [replace(p, remedy=use, id="snapshot-invalid") for p in problems],
        id="snapshot-invalid",
    )


def _login_refused(etcd: Etcd, file: Path, error: ProvisionError) -> PreflightFailed:
    has = etcd.credentials is not None
    what = "authentication is on in this snapshot, and "
    what += "root's password in it is not etcd.auth.root_password" if has else "the inventory has "
    what += "" if has else "no etcd.auth.root_password"
    return PreflightFailed(
        f"{file}: the restored etcd would refuse this tool",
        [
            Problem(
                str(file),
                what,
                "set etcd.auth.root_password to the password of the time of the snapshot",
                id="etcd-login-refused",
            )
        ],
        id="etcd-login-refused",
    )
