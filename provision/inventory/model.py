"""The inventory's typed model: what an operator may declare, with defaults and units.

The classes mirror the YAML file one to one; unknown keys are errors. Group-level values are
defaults for their hosts and a host's own value wins. Loading, line numbers and cross-field
checks are in :mod:`provision.inventory.loader`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$")]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9:]([A-Za-z0-9.:_-]{0,251}[A-Za-z0-9])?$")]
Port = Annotated[int, Field(ge=1, le=65535)]
AbsolutePath = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/@%+-]*[A-Za-z0-9._@%+-]$")]
UserName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,30}$")]
#: A Java or Alluxio size: ``512m``, ``4g``, ``100GB``.
Size = Annotated[str, Field(pattern=r"^[1-9][0-9]*(?i:[kmgt]b?|b)?$")]
T = TypeVar("T")
Scalar = str | int | float | bool
PropertyKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._${}-]*$")]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

#: etcd.conf.yml keys this tool derives from the rest of the inventory.
OWNED_ETCD_SETTINGS = frozenset(
    {
        "name",
        "data-dir",
        "wal-dir",
        "listen-peer-urls",
        "listen-client-urls",
        "initial-advertise-peer-urls",
        "advertise-client-urls",
        "initial-cluster",
        "initial-cluster-token",
        "initial-cluster-state",
        "client-transport-security",
        "peer-transport-security",
    }
)

#: Alluxio properties this tool derives from the rest of the inventory.
OWNED_PROPERTIES = frozenset(
    {
        "alluxio.cluster.name",
        "alluxio.etcd.endpoints",
        "alluxio.etcd.username",
        "alluxio.etcd.password",
        "alluxio.worker.membership.manager.type",
        "alluxio.worker.static.membership.manager.config.file",
        "alluxio.worker.failure.detection.timeout",
        "alluxio.worker.hostname",
        "alluxio.worker.rpc.port",
        "alluxio.worker.identity.uuid",
        "alluxio.worker.identity.uuid.file.path",
        "alluxio.worker.page.store.dirs",
        "alluxio.worker.page.store.sizes",
        "alluxio.logs.dir",
    }
)


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Secret(Model):
    """A secret by reference: an environment variable or a file, never the value itself."""

    env: str | None = Field(None, description="Environment variable that holds the secret.")
    file: Path | None = Field(None, description="File that holds the secret (last newline cut).")

    @model_validator(mode="after")
    def _one_of(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("a secret needs exactly one of 'env' or 'file'")
        return self

    def reveal(self) -> str:
        """The secret's value. Raises ``LookupError`` or ``OSError`` when it cannot be read."""
        if self.env is not None:
            if self.env not in os.environ:
                raise LookupError(f"environment variable {self.env} is not set")
            return os.environ[self.env]
        assert self.file is not None
        return self.file.read_text(encoding="utf-8").rstrip("\n")


class Ssh(Model):
    """How hosts are reached. Anything unset is taken from ``~/.ssh/config``."""

    user: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_.@\\-]*$", description="Login.")
    port: Port | None = Field(None, description="SSH port (22).")
    key: Path | None = Field(None, description="Private key file; else the agent's keys.")
    known_hosts: Path | None = Field(None, description="Known host keys (~/.ssh/known_hosts).")
    jump: str | None = Field(
        None,
        pattern=r"^([A-Za-z0-9_.-]+@)?[A-Za-z0-9\[\]:._-]+$",
        description="Jump host, as user@host:port.",
    )
    connect_timeout: float | None = Field(None, gt=0, le=300, description="Seconds (10).")


class Source(Model):
    """Where an artifact comes from: a tarball by path or URL, or the host's own packages."""

    path: Path | None = Field(None, description="Tarball on this machine.")
    url: str | None = Field(
        None, pattern=r"^https?://[^\s]+$", description="Downloaded once by this machine."
    )
    package: bool = Field(False, description="Install the distribution's own package (etcd only).")
    sha256: str | None = Field(
        None,
        pattern=r"^([0-9a-fA-F]{64}|file:.+)$",
        description="Hex digest, or file:PATH of a SHA256SUMS file that lists the tarball.",
    )

    @model_validator(mode="after")
    def _one_of(self) -> Source:
        if (self.path is not None) + (self.url is not None) + self.package != 1:
            raise ValueError("a source needs exactly one of 'path', 'url' or 'package: true'")
        if not self.package and self.sha256 is None:
            raise ValueError("a tarball needs its 'sha256' (hex, or file:SHA256SUMS)")
        return self


class EtcdTls(Model):
    """TLS on etcd's two listeners. Alluxio 313 has no TLS to etcd: see docs/explanation."""

    peer: bool = Field(True, description="TLS and mutual authentication between members.")
    client: bool = Field(False, description="TLS for clients on the client port.")
    client_auth: bool = Field(True, description="With client TLS: clients need a certificate.")
    plain_client_port: Port | None = Field(
        None, description="With client TLS: one more plain listener, for clients without TLS."
    )
    plain_client_address: str | None = Field(
        None, description="Address of the plain listener (the member's own by default)."
    )
    pki_dir: Path = Field(Path("pki"), description="The cluster's CA, beside the inventory.")
    leaf_days: int = Field(365, ge=1, le=3650, description="Validity of leaf certificates, days.")
    ca_days: int = Field(3650, ge=1, le=36500, description="Validity of the CA, days.")


class Member(Model):
    """One etcd member. Its name in the file is its etcd member name."""

    host: HostName = Field(description="Where SSH goes: name, address, or ~/.ssh/config alias.")
    address: HostName | None = Field(None, description="Address in peer and client URLs (host).")
    ssh: Ssh = Field(default_factory=Ssh, description="Overrides of the top-level ssh.")
    client_port: Port | None = None
    peer_port: Port | None = None
    data_dir: AbsolutePath | None = None
    settings: dict[str, Scalar] = Field(default_factory=dict)


class Etcd(Model):
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$", description="etcd release, e.g. 3.6.16.")
    allow_corrupting_version: bool = Field(
        False, description="Accept a release known to corrupt data (3.5.0 to 3.5.2)."
    )
    source: Source
    install_dir: AbsolutePath = "/opt/etcd"
    config_dir: AbsolutePath = "/etc/etcd"
    data_dir: AbsolutePath = "/var/lib/etcd"
    user: UserName = "etcd"
    client_port: Port = 2379
    peer_port: Port = 2380
    cluster_token: Name | None = Field(None, description="initial-cluster-token (the cluster).")
    tls: EtcdTls = Field(default_factory=EtcdTls)
    settings: dict[str, Scalar] = Field(
        default_factory=dict, description="Any other key of etcd.conf.yml, for every member."
    )
    members: dict[Name, Member] = Field(min_length=1)

    @field_validator("settings")
    @classmethod
    def _not_owned(cls, settings: dict[str, Scalar]) -> dict[str, Scalar]:
        return _refuse(settings, OWNED_ETCD_SETTINGS)


class Java(Model):
    """The Java that Alluxio runs on."""

    home: AbsolutePath | None = Field(None, description="An existing JAVA_HOME on the hosts.")
    source: Source | None = Field(None, description="A JDK tarball to install.")
    install_dir: AbsolutePath = "/opt/java"
    versions: list[int] = Field(
        default_factory=lambda: [8, 11], description="Major versions that the release accepts."
    )

    @model_validator(mode="after")
    def _not_both(self) -> Java:
        if self.home is not None and self.source is not None:
            raise ValueError("java takes 'home' or 'source', not both")
        if self.source is not None and self.source.package:
            raise ValueError("java cannot come from a package: give a tarball, 'home', or neither")
        return self


class PageStore(Model):
    """Where the worker's cache pages are, and how much of each directory it may use."""

    dirs: list[AbsolutePath] = Field(min_length=1)
    sizes: list[Size] = Field(min_length=1, description="One per directory, e.g. 100GB.")

    @model_validator(mode="after")
    def _pairs(self) -> PageStore:
        if len(self.dirs) != len(self.sizes):
            raise ValueError(f"{len(self.dirs)} dirs but {len(self.sizes)} sizes")
        return self


class AlluxioEtcd(Model):
    """How Alluxio logs in to an etcd with authentication turned on."""

    username: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]+$")
    password: Secret | None = None

    @model_validator(mode="after")
    def _pairs(self) -> AlluxioEtcd:
        if (self.username is None) != (self.password is None):
            raise ValueError("'username' and 'password' go together")
        return self


class Worker(Model):
    """One Alluxio worker. Unset values are those of ``alluxio``."""

    host: HostName = Field(description="Where SSH goes: name, address, or ~/.ssh/config alias.")
    hostname: HostName | None = Field(None, description="Name that clients connect to (host).")
    ssh: Ssh = Field(default_factory=Ssh)
    rpc_port: Port | None = None
    heap: Size | None = None
    direct_memory: Size | None = None
    page_store: PageStore | None = None
    java_home: AbsolutePath | None = None
    properties: dict[PropertyKey, Scalar] = Field(default_factory=dict)
    secret_properties: dict[PropertyKey, Secret] = Field(default_factory=dict)
    env: dict[EnvName, str] = Field(default_factory=dict)

    @field_validator("properties", "secret_properties")
    @classmethod
    def _not_owned(cls, properties: dict[str, object]) -> dict[str, object]:
        return _refuse(properties, OWNED_PROPERTIES)


class Alluxio(Model):
    version: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Release, names the install folder."
    )
    source: Source
    java: Java = Field(default_factory=Java)
    install_dir: AbsolutePath = "/opt/alluxio"
    state_dir: AbsolutePath = Field(
        "/var/lib/alluxio", description="Holds the worker's identity; survives reinstalls."
    )
    log_dir: AbsolutePath = "/var/log/alluxio"
    user: UserName = "alluxio"
    membership: Literal["ETCD", "STATIC", "SERVICE_REGISTRY"] = "ETCD"
    etcd: AlluxioEtcd = Field(default_factory=AlluxioEtcd)
    failure_detection_timeout: int = Field(
        120, ge=1, le=3600, description="Seconds a dead worker's lease lives on."
    )
    start_timeout: int = Field(120, ge=1, le=3600, description="Seconds to wait for LIVE.")
    rpc_port: Port = 29999
    heap: Size = "4g"
    direct_memory: Size = "4g"
    page_store: PageStore = Field(
        default_factory=lambda: PageStore(dirs=["/var/lib/alluxio/pages"], sizes=["1GB"])
    )
    properties: dict[PropertyKey, Scalar] = Field(default_factory=dict)
    secret_properties: dict[PropertyKey, Secret] = Field(default_factory=dict)
    env: dict[EnvName, str] = Field(default_factory=dict)
    workers: dict[Name, Worker] = Field(min_length=1)

    @field_validator("properties", "secret_properties")
    @classmethod
    def _not_owned(cls, properties: dict[str, object]) -> dict[str, object]:
        return _refuse(properties, OWNED_PROPERTIES)


class InventoryFile(Model):
    """The whole inventory file."""

    cluster: Name = Field("DefaultAlluxioCluster", description="alluxio.cluster.name.")
    parallel: int = Field(20, ge=1, le=500, description="Hosts worked on at once.")
    ssh: Ssh = Field(default_factory=Ssh)
    etcd: Etcd
    alluxio: Alluxio | None = None


def _refuse(given: dict[str, T], owned: frozenset[str]) -> dict[str, T]:
    bad = sorted(owned & given.keys())
    if bad:
        raise ValueError(f"{', '.join(bad)}: set by this tool from the rest of the inventory")
    return given


def version_tuple(version: str) -> tuple[int, int, int]:
    """``"3.6.16"`` as ``(3, 6, 16)``."""
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        raise ValueError(f"not a version: {version!r}")
    return int(match[1]), int(match[2]), int(match[3])
