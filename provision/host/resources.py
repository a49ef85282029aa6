"""Resources: the things that can be declared for a host. Plain values, without a connection.

A resource's ``restarts`` names the systemd units that need a restart to notice its change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from provision.artifacts import Artifact
from provision.ids import Id

#: A file with the digest of the tarball from which a folder was unpacked. Only this tool makes such
#: folders.
MARKER = ".artifact.sha256"
#: The comment (GECOS) of a user that this tool made with its group. A user without it stays.
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
    """The marker in a folder of a service's data: an empty folder, owned by root. Without it the
    unit does not start the service (:mod:`provision.host.disks`)."""

    folder: str

    @property
    def marker(self) -> str:
        return f"{self.folder}/data-disk"


@dataclass(frozen=True, slots=True)
class File:
    """A file with this exact content. A ``secret`` one is compared by hash and never shown.

    Content None: any content is right, and only owner and mode are set.
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

    Services notice the change without a restart. With ``sign``, the host's openssl makes the key on
    the host, and the key never leaves it: ``sign`` makes the certificate (PEM) from the signing
    request (PEM). With ``pair``, certificate and key (PEM) were made on this machine. Without both,
    the host's own certificate and key are right. ``why`` is the shown reason for new ones.
    """

    path: str
    owner: str
    subject: str = ""
    why: str = ""
    sign: Callable[[bytes], bytes] | None = None
    pair: tuple[bytes, bytes] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """A file with a worker's UUID: written if missing, and never changed afterwards."""

    path: str
    owner: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Move:
    """A folder of ``unit`` that is moved from ``source`` to ``target`` while ``unit`` is stopped,
    and then belongs to ``owner``. It is declared only when ``source`` exists and ``target`` does
    not."""

    source: str
    target: str
    owner: str
    unit: str


@dataclass(frozen=True, slots=True)
class Tree:
    """A tarball unpacked at ``path`` without its top folder. Its digest is kept inside.

    ``before``: the folders that are moved out of this folder before it is replaced.
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
    """The text ``says`` that a service logs when it does not start for a known reason."""

    says: str
    remedy: str
    id: Id


@dataclass(frozen=True, slots=True)
class Unit:
    """A systemd service that is enabled and running. The wait for its start ends after
    ``start_seconds``; the service may go on starting."""

    name: str
    start_seconds: int = 90
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Absent:
    """A unit of this tool that is no longer wanted, with its files."""

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
