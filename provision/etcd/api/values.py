"""What is asked of etcd and what it answers, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from provision.inventory.resolved import bracketed
from provision.text import printable


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a client connects. ``name`` is the member's own address when this is a tunnel's end:
    it is what the certificate is checked against, and what errors name."""

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
    """What a role may do with the keys from ``key`` up to and without ``end`` (empty: that one).

    ``access`` is ``read``, ``write`` or ``readwrite``, as ``etcdctl`` has it.
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
    """``Maintenance.Status``: what one member says of itself. Sizes in bytes; ids are etcd's.

    ``leader`` is 0 when the member knows of none. ``alarms`` come as etcd writes them in
    ``errors`` (NOSPACE, CORRUPT), without a round of consensus.
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
    #: The minor release that can read its data directory, such as 3.6.0; empty before 3.6.
    storage_version: str = ""
    #: The quota in force (bytes); negative when there is none, 0 when it is not told (before 3.6).
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
    """``Maintenance.HashKV``: comparable between members at the same two revisions."""

    hash: int
    revision: int
    compact_revision: int


class KeyValue(NamedTuple):
    """One key. ``lease`` is 0 without one; ``version`` counts the key's own changes from 1."""

    key: bytes
    value: bytes
    lease: int
    mod_revision: int
    create_revision: int
    version: int


class LeaseTime(NamedTuple):
    """What etcd says of a lease, in seconds (``LeaseTimeToLive`` of its Go package ``etcdserver``).

    ``left`` is below 0 when the lease has expired and etcd has not removed it. ``granted`` is 0 of
    a lease that is gone. ``keys`` are those attached to it, where they were asked for.
    """

    left: int
    granted: int
    keys: tuple[bytes, ...] = ()

    @property
    def expired_since(self) -> int:
        """Seconds since it expired, of a lease that is there all the same; else 0."""
        return max(0, -self.left) if self.granted else 0


class WatchEvent(NamedTuple):
    """One event of a watch. Of a deleted key there are ``key`` and ``mod_revision`` only."""

    deleted: bool
    key: KeyValue


class Changes(NamedTuple):
    """What a watch of ``prefix`` saw at once: all events of every revision that it has one of.

    ``revision`` is the newest in etcd then.
    """

    prefix: str
    cluster_id: int
    revision: int
    events: tuple[WatchEvent, ...]


def after(prefix: bytes) -> bytes:
    """The first key past all that begin with ``prefix``; for etcd, ``\\0`` is the end of all."""
    stem = prefix.rstrip(b"\xff") if prefix != b"\0" else b""
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"
