"""Requests to etcd and its answers, as plain values."""

from __future__ import annotations

from typing import NamedTuple

from provision.dataclass import dataclass
from provision.inventory.resolved import bracketed
from provision.text import printable


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a client connects. For a tunnel's end, ``name`` is the member's own address: the
    certificate is checked against it, and errors name it."""

    address: str
    port: int
    name: str = ""

    def __str__(self) -> str:
        return self.name or f"{bracketed(self.address)}:{self.port}"


@dataclass(frozen=True, slots=True)
class ClientTls:
    """PEM material for a TLS listener. ``server_name`` is checked against the certificate
    instead of the endpoint's address."""

    ca: bytes
    certificate: bytes | None = None
    key: bytes | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class Login:
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login(user={self.user!r})"


@dataclass(frozen=True, slots=True)
class Permission:
    """What a role may do with the keys from ``key`` up to ``end``, without ``end``. With an empty
    ``end`` the permission is for the one key.

    ``access`` is ``read``, ``write`` or ``readwrite``, as in ``etcdctl``.
    """

    key: bytes
    end: bytes
    access: str

    @classmethod
    def below(cls, prefix: str, access: str = "readwrite") -> Permission:
        """For every key that begins with ``prefix``."""
        return cls(prefix.encode(), after(prefix.encode()), access)

    def __str__(self) -> str:
        if self.end and self.end == after(self.key):
            return f"{self.access} on {printable(self.key)}*"
        until = f" to {printable(self.end)}" if self.end else ""
        return f"{self.access} on {printable(self.key)}{until}"


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """``Maintenance.Status``: one member's answer about itself. Sizes in bytes; ids are etcd's.

    ``leader`` is 0 when the member knows no leader. ``alarms`` are taken from etcd's ``errors``
    (NOSPACE, CORRUPT), without a round of consensus.
    """

    cluster_id: int
    member_id: int
    version: str
    db_size: int
    db_in_use: int
    leader: int
    revision: int
    raft_term: int
    raft_index: int
    is_learner: bool
    errors: tuple[str, ...]
    #: The minor release that can read the member's data directory, such as 3.6.0; empty before 3.6.
    storage_version: str = ""
    #: The quota in force (bytes); negative without a quota, 0 when etcd does not tell (before 3.6).
    quota: int = 0

    @property
    def is_leader(self) -> bool:
        return self.leader == self.member_id

    @property
    def alarms(self) -> tuple[str, ...]:
        return tuple(
            kind for kind in ("NOSPACE", "CORRUPT") if any(kind in error for error in self.errors)
        )


@dataclass(frozen=True, slots=True)
class RegisteredMember:
    """``Cluster.MemberList``. ``name`` is empty until the member has started once."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


class Alarm(NamedTuple):
    member_id: int
    kind: str


class KvHash(NamedTuple):
    """``Maintenance.HashKV``: comparable between members when both revisions are the same."""

    hash: int
    revision: int
    compact_revision: int


class KeyValue(NamedTuple):
    """One key. ``lease`` is 0 without one."""

    key: bytes
    value: bytes
    lease: int
    mod_revision: int


class LeaseTime(NamedTuple):
    """etcd's answer about a lease, in seconds (``LeaseTimeToLive`` of its package ``etcdserver``).

    ``left`` is below 0 when the lease has expired and etcd has not removed it. ``granted`` is 0
    for a lease that is gone. ``keys`` are the keys attached to the lease, if the request asked for
    them.
    """

    left: int
    granted: int
    keys: tuple[bytes, ...] = ()

    @property
    def expired_since(self) -> int:
        """Seconds since an expired lease ended, while etcd still has the lease; else 0."""
        return max(0, -self.left) if self.granted else 0


class WatchEvent(NamedTuple):
    """One event of a watch. For a deleted key, only ``key`` and ``mod_revision`` are set."""

    deleted: bool
    key: KeyValue


class Changes(NamedTuple):
    """One message of a watch of ``prefix``: all events of each revision that it contains.

    ``revision`` is etcd's newest revision at that time.
    """

    prefix: str
    cluster_id: int
    revision: int
    events: tuple[WatchEvent, ...]


def after(prefix: bytes) -> bytes:
    """The first key after all keys that begin with ``prefix``; for etcd, ``\\0`` is the end of all
    keys."""
    stem = prefix.rstrip(b"\xff") if prefix != b"\0" else b""
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"
