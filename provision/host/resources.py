"""What can be declared about a host. Plain values; nothing here talks to a host.

A resource's ``restarts`` names the systemd units that only notice its change by a restart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from provision.artifacts import Artifact
from provision.ids import Id

#: Holds the digest of the tarball that a folder was unpacked from; only we make such folders.
MARKER = ".artifact.sha256"
#: The comment (GECOS) of a user whom this tool made, with the group: without it the user stays.
MADE_BY = "made by alluxio-provision"


@dataclass(frozen=True, slots=True)
class User:
    """A system user without login, and its group of the same name."""

    name: str
    home: str


@dataclass(frozen=True, slots=True)
class Directory:
    path: str
    owner: str = "root"
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class DataDisk:
    """The marker in a folder of a service's data: an empty folder of root's, without which the
    service's unit does not start it (:mod:`provision.host.disks`)."""

    folder: str

    @property
    def marker(self) -> str:
        return f"{self.folder}/data-disk"


@dataclass(frozen=True, slots=True)
class File:
    """A file with this exact content. A ``secret`` one is compared by hash and never shown.

    Content None: whatever is there is right, only owner and mode are seen to.
    """

    path: str
    content: bytes | None
    owner: str = "root"
    mode: int = 0o644
    secret: bool = False
    restarts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate ``<path>.crt`` and its private key ``<path>.key`` (0600), changed together.

    Services notice the change without a restart. With ``sign`` the key is made on the host by
    its openssl and never leaves it: ``sign`` makes the certificate (PEM) from the signing request
    (PEM). With ``pair`` both were made here: certificate and key, PEM. With neither, those that
    are there are right. ``why`` they have to be new is shown.
    """

    path: str
    owner: str
    subject: str = ""
    why: str = ""
    sign: Callable[[bytes], bytes] | None = None
    pair: tuple[bytes, bytes] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """A file holding a worker's UUID: written where there is none, never changed after."""

    path: str
    owner: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Move:
    """A folder of ``unit``'s that is taken from ``source`` to ``target`` while ``unit`` is stopped,
    and is ``owner``'s there. It is declared only where ``source`` is there and ``target`` not."""

    source: str
    target: str
    owner: str
    unit: str


@dataclass(frozen=True, slots=True)
class Tree:
    """A tarball unpacked at ``path`` without its top folder. Its digest is kept inside.

    ``before``: what is taken out of the folder before it is replaced.
    """

    path: str
    artifact: Artifact
    restarts: tuple[str, ...] = ()
    before: tuple[Move, ...] = ()

    @property
    def marker(self) -> str:
        return f"{self.path}/{MARKER}"


@dataclass(frozen=True, slots=True)
class Link:
    path: str
    target: str
    restarts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Package:
    """The distribution's package that provides ``binary``."""

    names: tuple[str, ...]
    binary: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a service writes when it does not start for a reason that is known: ``says``."""

    says: str
    remedy: str
    id: Id


@dataclass(frozen=True, slots=True)
class Unit:
    """A systemd service that is enabled and running. It may take ``start_seconds`` to be ready;
    then it goes on starting, but is not waited for."""

    name: str
    start_seconds: int = 90
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Absent:
    """A unit of ours that is wanted no more, with the files that it consists of."""

    unit: str
    paths: tuple[str, ...]


Resource = (
    User
    | Directory
    | DataDisk
    | File
    | Certificate
    | Identity
    | Move
    | Tree
    | Link
    | Package
    | Unit
    | Absent
)
