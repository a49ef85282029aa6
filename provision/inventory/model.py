"""The inventory's typed model: what an operator may declare, with defaults and units.

The classes mirror the YAML file one to one; unknown keys are errors. Group-level values are
defaults for their hosts and a host's own value wins. Loading, line numbers and cross-field
checks are in :mod:`provision.inventory.loader`.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from provision import bounds
from provision.files import read_text
from provision.inventory import system_folders
from provision.inventory.membership_type import MembershipType
from provision.render import env_value
from provision.text import counted

NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$"
HOST_NAME = r"^[A-Za-z0-9:]([A-Za-z0-9.:_-]{0,251}[A-Za-z0-9])?$"
ABSOLUTE_PATH = r"^/[A-Za-z0-9._/@+-]*[A-Za-z0-9._@+-]$"
USER_NAME = r"^[a-z_][a-z0-9_-]{0,30}$"
LOGIN = r"^[A-Za-z_][A-Za-z0-9_.@\\-]{0,63}$"
SIZE = r"^[1-9][0-9]{0,17}([kKmMgGtT][bB]?|[bB])?$"
PROPERTY_KEY = r"^[A-Za-z0-9][A-Za-z0-9._${}-]*$"
SETTING_KEY = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
_JUMP = r"([A-Za-z0-9_][A-Za-z0-9_.@\\-]*@)?[A-Za-z0-9\[:][A-Za-z0-9\[\]:._-]*"
JUMP = rf"^{_JUMP}(,{_JUMP})*$"
URL = r"^https?://[!-~]+$"
SHA256 = r"^([0-9a-fA-F]{64}|file:.+)$"
ETCD_VERSION = r"^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}$"
ALLUXIO_VERSION = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
CALENDAR = r"^[A-Za-z0-9*.,:/~ -]{1,100}$"
ETCD_USER = r"^[A-Za-z0-9._-]{1,64}$"
DNS_LABEL = r"^[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?$"
IMAGE = r"^[a-z0-9][A-Za-z0-9._:/-]{0,254}$"
IMAGE_TAG = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
QUANTITY = r"^[1-9][0-9]{0,17}(m|[kMGTP]|[KMGTP]i)?$"
JVM_OPTION = r"^-[A-Za-z0-9_.,:;=+/@%*-]{1,1000}$"
KUBE_CONTEXT = r"^[!-~]{1,253}$"

#: What each pattern asks for, in an operator's words.
EXPECTED = {
    NAME: "a name: letters, digits and . _ - within, at most 64 characters",
    HOST_NAME: "a host name or an IP address",
    ABSOLUTE_PATH: "an absolute path of letters, digits and . _ / @ + -",
    USER_NAME: "a Linux user name: lower-case letters, digits, _ and -",
    LOGIN: "a login name",
    SIZE: "a size such as 512m, 4g or 100GB",
    PROPERTY_KEY: "a property key: letters, digits and . _ $ { } -",
    SETTING_KEY: "a key of etcd.conf.yml such as quota-backend-bytes",
    ENV_NAME: "an environment variable's name",
    JUMP: "a jump host as user@host:port, several with commas between, or none",
    URL: "an http:// or https:// URL without spaces",
    SHA256: "64 hex digits, or file:PATH of a SHA256SUMS file",
    ETCD_VERSION: "a full etcd release such as 3.6.16",
    ALLUXIO_VERSION: "a release such as 313: letters, digits and . _ -",
    CALENDAR: "a time as systemd's OnCalendar has it, such as daily or *-*-* 02:00:00",
    ETCD_USER: "an etcd user name: letters, digits and . _ -",
    DNS_LABEL: "a name as Kubernetes has them: lower-case letters, digits and - within, at most 53",
    IMAGE: "a container image without its tag, such as registry.example.com/alluxio",
    IMAGE_TAG: "a container image's tag",
    QUANTITY: "a quantity as Kubernetes has them, such as 500m, 4 or 8Gi",
    JVM_OPTION: "one JVM option, such as -XX:+UseG1GC, without spaces, quotes and $",
    KUBE_CONTEXT: "the name of a context in the kubeconfig",
}


def _known_host(host: str) -> str:
    if ":" in host:
        try:
            IPv6Address(host)
        except AddressValueError:
            raise ValueError(
                f"{host!r} is not an IPv6 address; ports have keys of their own"
            ) from None
    elif not host.strip("0123456789."):
        try:
            IPv4Address(host)
        except AddressValueError:
            raise ValueError(f"{host!r} is not an IPv4 address") from None
    elif ".." in host:
        raise ValueError(f"{host!r} is not a host name: it has two dots in a row")
    return host


def _own_dir(path: str) -> str:
    parts = path[1:].split("/")
    if "" in parts or "." in parts or ".." in parts:
        raise ValueError(f"{path!r} must be written without '//', '.' and '..'")
    if why := system_folders.refusal(path):
        raise ValueError(why)
    return path


def _not_root(user: str) -> str:
    if user == "root":
        raise ValueError("the service must not run as root; name a user of its own")
    return user


def _local_path(path: Path) -> Path:
    if path == Path():
        raise ValueError("the path is empty")
    if any(unicodedata.category(c) == "Cc" for c in str(path)):
        raise ValueError(f"{str(path)!r} holds control characters")
    try:
        path.expanduser()
    except RuntimeError:
        raise ValueError(f"{str(path)!r}: there is no such user's home folder") from None
    return path


def _good_digest(digest: str) -> str:
    if digest.startswith("file:"):
        _local_path(Path(digest[5:]))
    return digest


def _url_parts(url: str) -> SplitResult:
    """The parts of a URL without a login. Nothing is repeated that may be one."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - parsing it is the check
    except ValueError as error:
        why = "this is not a URL" if "@" in url else f"{url!r} is not a URL: {error}"
        raise ValueError(why) from None
    if "@" in parts.netloc:
        raise ValueError("the URL holds a login; secrets must not be in the inventory")
    return parts


def _good_url(url: str) -> str:
    parts = _url_parts(url)
    if not parts.hostname:
        raise ValueError(f"{url!r} is not a URL: it names no host")
    if not parts.path.strip("/"):
        raise ValueError(f"{url!r} names no file; give the tarball's own URL")
    return url


def jump_hosts(text: str) -> list[tuple[str | None, str, int | None]]:
    """User, host and port of each jump host of ``text``, which is as OpenSSH's ProxyJump.

    IPv6 addresses stand in brackets when a port follows. Raises ``ValueError``.
    """
    found: list[tuple[str | None, str, int | None]] = []
    for part in text.split(","):
        user, at, rest = part.rpartition("@")
        match = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]+))?|([^:\[\]]+)(?::([0-9]+))?", rest)
        host, port = (match[1] or match[3], match[2] or match[4]) if match else (rest, None)
        if port is not None and not 1 <= int(port) <= 65535:
            raise ValueError(f"{part!r}: {port} is not a port")
        if not re.fullmatch(HOST_NAME, host):
            raise ValueError(f"{part!r} is not {EXPECTED[HOST_NAME]}")
        found.append((user if at else None, _known_host(host), int(port) if port else None))
    return found


def _good_jump(text: str) -> str:
    jump_hosts(text)  # "none", which turns a jump host off, reads as a host's name
    return text


def _plain_endpoint(url: str) -> str:
    parts = _url_parts(url)
    if parts.scheme == "https":
        raise ValueError(
            f"{url!r} is a TLS listener, and Alluxio 313 has no property for TLS to etcd; "
            "give the one without TLS"
        )
    if not parts.hostname or parts.port is None or parts.path not in ("", "/"):
        raise ValueError(f"{url!r} is not an endpoint such as http://10.0.1.10:2379")
    _known_host(parts.hostname)
    return url


def _env_value(value: str) -> str:
    env_value(value)
    return value


Name = Annotated[str, Field(pattern=NAME)]
#: Its schema has the words in their place, as every other key's.
Membership = Annotated[
    MembershipType, WithJsonSchema({"enum": [*map(str, MembershipType)], "type": "string"})
]
HostName = Annotated[str, Field(pattern=HOST_NAME), AfterValidator(_known_host)]
Port = Annotated[int, Field(ge=1, le=65535)]
#: A folder on the hosts that belongs to the service.
OwnDir = Annotated[str, Field(pattern=ABSOLUTE_PATH), AfterValidator(_own_dir)]
#: A folder on the hosts that the tool only reads.
AbsolutePath = Annotated[str, Field(pattern=ABSOLUTE_PATH)]
ServiceUser = Annotated[str, Field(pattern=USER_NAME), AfterValidator(_not_root)]
#: A file on this machine; relative to the inventory's folder, ``~`` is expanded.
LocalPath = Annotated[Path, AfterValidator(_local_path)]
Url = Annotated[str, Field(pattern=URL), AfterValidator(_good_url)]
#: A client URL of an etcd member, without TLS.
Endpoint = Annotated[str, Field(pattern=URL), AfterValidator(_plain_endpoint)]
Digest = Annotated[str, Field(pattern=SHA256), AfterValidator(_good_digest)]
#: A Java or Alluxio size: ``512m``, ``4g``, ``100GB``.
Size = Annotated[str, Field(pattern=SIZE)]
Scalar = str | int | float | bool
#: A value in ``etcd.conf.yml``; some are lists of texts.
Setting = Scalar | list[str]
SettingKey = Annotated[str, Field(pattern=SETTING_KEY)]
PropertyKey = Annotated[str, Field(pattern=PROPERTY_KEY)]
EtcdVersion = Annotated[str, Field(pattern=ETCD_VERSION)]
EnvName = Annotated[str, Field(pattern=ENV_NAME)]
#: A variable's value in ``conf/alluxio-env.sh``, which two programs read.
EnvValue = Annotated[str, AfterValidator(_env_value)]
DnsLabel = Annotated[str, Field(pattern=DNS_LABEL)]
Quantity = Annotated[str, Field(pattern=QUANTITY)]
#: One option. The chart puts it between double quotes of a shell script, so nothing may expand.
JvmOption = Annotated[str, Field(pattern=JVM_OPTION)]

#: etcd.conf.yml keys this tool derives from the rest of the inventory, and from which key.
OWNED_ETCD_SETTINGS = {
    "name": "the member's name in etcd.members",
    "data-dir": "data_dir",
    "wal-dir": "data_dir",
    "listen-peer-urls": "address and peer_port",
    "listen-client-urls": "address and client_port",
    "initial-advertise-peer-urls": "address and peer_port",
    "advertise-client-urls": "address and client_port",
    "initial-cluster": "etcd.members",
    "initial-cluster-token": "etcd.cluster_token",
    "initial-cluster-state": "etcd.members",
    "client-transport-security": "etcd.tls",
    "peer-transport-security": "etcd.tls",
}

#: Where etcd's own defaults would let the history of every key grow for ever.
DEFAULT_ETCD_SETTINGS: dict[str, str | int | float | bool] = {
    "auto-compaction-mode": "periodic",
    "auto-compaction-retention": "1h",
}

#: Alluxio properties this tool derives from the rest of the inventory, and from which key.
OWNED_PROPERTIES = {
    "alluxio.cluster.name": "cluster",
    "alluxio.etcd.endpoints": "etcd.members, or etcd.external.endpoints",
    "alluxio.etcd.username": "alluxio.etcd.username",
    "alluxio.etcd.password": "alluxio.etcd.password",
    "alluxio.worker.membership.manager.type": "alluxio.membership",
    "alluxio.worker.static.membership.manager.config.file": "alluxio.workers",
    "alluxio.worker.failure.detection.timeout": "alluxio.failure_detection_timeout",
    "alluxio.worker.hostname": "the worker's hostname",
    "alluxio.worker.rpc.port": "rpc_port",
    "alluxio.worker.identity.uuid": "alluxio.state_dir, where each worker keeps its own",
    "alluxio.worker.identity.uuid.file.path": "alluxio.state_dir",
    "alluxio.worker.page.store.dirs": "page_store.dirs",
    "alluxio.worker.page.store.sizes": "page_store.sizes",
    "alluxio.logs.dir": "alluxio.log_dir",
}


#: Properties that come from ``alluxio.masters``, when there are any.
MASTER_PROPERTIES = frozenset(
    {
        "alluxio.master.hostname",
        "alluxio.master.rpc.addresses",
        "alluxio.master.embedded.journal.addresses",
    }
)


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


@functools.cache
def _no_values() -> dict[Any, Any]:
    """One empty mapping for thousands of workers; nobody writes in a model's mappings."""
    return {}


class Secret(Model):
    """A secret by reference: an environment variable or a file, never the value itself."""

    env: EnvName | None = Field(
        default=None, description="Environment variable that holds the secret."
    )
    file: LocalPath | None = Field(
        default=None, description="File that holds the secret (last newline cut)."
    )

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
        return read_text(self.file, bounds.SECRET).rstrip("\n")


class SshSecret(Secret):
    """A secret of SSH: by reference, or asked for on the terminal, once a run."""

    ask: bool = Field(default=False, description="Ask for it on the terminal, once a run.")

    @model_validator(mode="after")
    def _one_of(self) -> SshSecret:
        if (self.env is not None) + (self.file is not None) + self.ask != 1:
            raise ValueError("it needs exactly one of 'env', 'file' or 'ask: true'")
        return self


class Ssh(Model):
    """How hosts are reached. Anything unset is taken from ``~/.ssh/config``."""

    user: str | None = Field(default=None, pattern=LOGIN, description="Login name.")
    port: Port | None = Field(default=None, description="SSH port (22).")
    key: LocalPath | None = Field(
        default=None, description="Private key file; else the agent's keys."
    )
    known_hosts: LocalPath | None = Field(
        default=None, description="Known host keys (~/.ssh/known_hosts)."
    )
    jump: Annotated[str, Field(pattern=JUMP), AfterValidator(_good_jump)] | None = Field(
        default=None, description="Jump hosts as user@host:port, separated by commas; or none."
    )
    sudo_password: SshSecret | None = Field(
        default=None, description="The password that sudo asks for; unset: sudo asks for none."
    )
    key_passphrase: SshSecret | None = Field(
        default=None, description="Passphrase of the key, when ssh-agent does not have it."
    )
    connect_timeout: float | None = Field(default=None, gt=0, le=300, description="Seconds (10).")


@functools.cache
def _no_ssh() -> Ssh:
    """One for thousands of workers."""
    return Ssh()


class Source(Model):
    """Where an artifact comes from: a tarball by path or URL, or the host's own packages."""

    path: LocalPath | None = Field(default=None, description="Tarball on this machine.")
    url: Url | None = Field(default=None, description="Tarball, downloaded once by this machine.")
    package: bool = Field(
        default=False, description="Install the distribution's own package (etcd only)."
    )
    sha256: Digest | None = Field(
        default=None,
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
    """TLS on etcd's two listeners. Alluxio 313 has no TLS to etcd."""

    peer: bool = Field(default=True, description="TLS and mutual authentication between members.")
    client: bool = Field(default=False, description="TLS for clients on the client port.")
    client_auth: bool = Field(
        default=True, description="With client TLS: clients need a certificate."
    )
    plain_client_port: Port | None = Field(
        default=None,
        description="With client TLS: one more plain listener, for clients without TLS.",
    )
    plain_client_address: HostName | None = Field(
        default=None, description="Address of the plain listener (the member's own by default)."
    )
    ca: Literal["own", "external"] = Field(
        default="own",
        description="own: a CA that this tool makes. external: export-csrs, import-certs.",
    )
    ca_bundle: LocalPath | None = Field(
        default=None,
        description="With an external CA: PEM file of its root; of two while one follows another.",
    )
    pki_dir: LocalPath = Field(
        default=Path("pki"), description="The cluster's CA, beside the inventory."
    )
    leaf_days: int = Field(
        default=365, ge=1, le=3650, description="Validity of leaf certificates, days."
    )
    ca_days: int = Field(default=3650, ge=1, le=36500, description="Validity of the CA, days.")


class EtcdAuth(Model):
    """etcd's authentication. ``enable-auth`` and ``disable-auth`` turn it on and off."""

    enabled: bool | None = Field(
        default=None,
        description="Whether clients must log in; unset: this tool does not change it.",
    )
    root_password: Secret | None = Field(
        default=None, description="Password of etcd's user root, which this tool logs in as."
    )


class EtcdBackup(Model):
    """Snapshots that a timer saves on the members' hosts: the first healthy member saves."""

    dir: OwnDir = Field(
        default="/var/backups/etcd",
        description="Folder for the backups on the members' hosts, mode 0700.",
    )
    same_disk: bool = Field(
        default=False, description="Whether the folder may be on the data directory's disk."
    )
    keep: int = Field(
        default=7,
        ge=1,
        le=10000,
        description="How many backups of each history stay: the newest ones.",
    )
    on_calendar: str = Field(
        default="daily", pattern=CALENDAR, description="When, as systemd's OnCalendar has it."
    )
    member: Name | None = Field(
        default=None,
        description="The one member whose host has the timer. Default: every member's host.",
    )
    copy_command: AbsolutePath | None = Field(
        default=None,
        description="A program on the hosts that gets a new file's path and copies the file off "
        "the host. It runs as etcd's user.",
    )


class Member(Model):
    """One etcd member. Its name in the file is its etcd member name."""

    host: HostName = Field(description="Where SSH goes: name, address, or ~/.ssh/config alias.")
    address: HostName | None = Field(
        default=None, description="Address in peer and client URLs (host)."
    )
    sans: list[HostName] = Field(
        default_factory=list,
        description="More names and addresses in its certificates: those by which clients reach "
        "it, and those that its traffic comes from, behind NAT for example.",
    )
    ssh: Ssh = Field(default_factory=Ssh, description="Overrides of the top-level ssh.")
    client_port: Port | None = Field(default=None, description="Instead of etcd.client_port.")
    peer_port: Port | None = Field(default=None, description="Instead of etcd.peer_port.")
    data_dir: OwnDir | None = Field(default=None, description="Instead of etcd.data_dir.")
    settings: dict[SettingKey, Setting] = Field(
        default_factory=dict, description="Added to etcd.settings; the member's own win."
    )


class ExternalEtcd(Model):
    """An etcd that another inventory, or somebody else, takes care of."""

    endpoints: list[Endpoint] = Field(
        min_length=1, description="Every member's client URL, of the listener without TLS."
    )


def _either(schema: dict[str, Any]) -> None:
    required = schema.pop("required")
    schema["anyOf"] = [{"required": ["external"]}, {"required": required}]


class Etcd(Model):
    model_config = ConfigDict(json_schema_extra=_either)

    external: ExternalEtcd | None = Field(
        default=None,
        description="Use an etcd that is managed elsewhere; then no other key of etcd.",
    )
    version: str = Field(pattern=ETCD_VERSION, description="etcd release, e.g. 3.6.16.")
    allow_corrupting_version: bool = Field(
        default=False, description="Accept a release known to lose or corrupt data."
    )
    source: Source = Field(description="Where etcd's binaries come from.")
    releases: dict[EtcdVersion, Source] = Field(
        default_factory=dict, description="Tarballs of other releases, for upgrade-etcd."
    )
    install_dir: OwnDir = Field(
        default="/opt/etcd", description="Holds one folder for each version."
    )
    config_dir: OwnDir = Field(default="/etc/etcd", description="etcd.conf.yml and certificates.")
    data_dir: OwnDir = Field(default="/var/lib/etcd", description="Data folder, mode 0700.")
    user: ServiceUser = Field(default="etcd", description="System user that runs etcd.")
    client_port: Port = Field(default=2379, description="Port for clients.")
    peer_port: Port = Field(default=2380, description="Port for the other members.")
    cluster_token: Name | None = Field(
        default=None, description="initial-cluster-token (the cluster)."
    )
    tls: EtcdTls = Field(default_factory=EtcdTls, description="TLS on etcd's listeners.")
    auth: EtcdAuth = Field(default_factory=EtcdAuth, description="Users and their rights.")
    backup: EtcdBackup | None = Field(
        default=None, description="Snapshots by timers on the members' hosts; none by default."
    )
    settings: dict[SettingKey, Setting] = Field(
        default_factory=dict, description="Any other key of etcd.conf.yml, for every member."
    )
    members: dict[Name, Member] = Field(
        min_length=1, description="The members by name; ranges such as infra[0-2] expand."
    )

    @model_validator(mode="before")
    @classmethod
    def _elsewhere(cls, data: Any) -> Any:
        """With ``external`` nothing else is needed; a check says that it is not taken either."""
        if not isinstance(data, dict) or data.get("external") is None:
            return data
        member = {"host": "external.invalid"}
        return {
            "version": "0.0.0",
            "source": {"package": True},
            "members": {"external": member},
            **data,
        }


class Java(Model):
    """The Java that Alluxio runs on."""

    home: AbsolutePath | None = Field(
        default=None, description="An existing JAVA_HOME on the hosts."
    )
    source: Source | None = Field(default=None, description="A JDK tarball to install.")
    install_dir: OwnDir = Field(default="/opt/java", description="Where the JDK tarball goes.")
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

    dirs: list[OwnDir] = Field(min_length=1, description="Folders for cache pages.")
    sizes: list[Size] = Field(min_length=1, description="One per folder, e.g. 100GB.")

    @model_validator(mode="after")
    def _pairs(self) -> PageStore:
        if len(self.dirs) != len(self.sizes):
            raise ValueError(
                f"{counted(len(self.dirs), 'dir')} but {counted(len(self.sizes), 'size')}"
            )
        return self


class AlluxioEtcd(Model):
    """How Alluxio logs in to an etcd with authentication turned on."""

    username: str | None = Field(default=None, pattern=ETCD_USER, description="etcd user.")
    password: Secret | None = Field(default=None, description="Its password, by reference.")

    @model_validator(mode="after")
    def _pairs(self) -> AlluxioEtcd:
        if (self.username is None) != (self.password is None):
            raise ValueError("'username' and 'password' go together")
        return self


class Worker(Model):
    """One Alluxio worker. Unset values are those of ``alluxio``."""

    host: HostName = Field(description="Where SSH goes: name, address, or ~/.ssh/config alias.")
    hostname: HostName | None = Field(
        default=None, description="Name that clients connect to (host)."
    )
    ssh: Ssh = Field(default_factory=_no_ssh, description="Overrides of the top-level ssh.")
    rpc_port: Port | None = Field(default=None, description="Instead of alluxio.rpc_port.")
    heap: Size | None = Field(default=None, description="Instead of alluxio.heap.")
    direct_memory: Size | None = Field(
        default=None, description="Instead of alluxio.direct_memory."
    )
    page_store: PageStore | None = Field(default=None, description="Instead of alluxio.page_store.")
    java_home: AbsolutePath | None = Field(
        default=None, description="Instead of alluxio.java.home."
    )
    properties: dict[PropertyKey, Scalar] = Field(
        default_factory=_no_values,
        description="Added to alluxio.properties; the worker's own win.",
    )
    secret_properties: dict[PropertyKey, Secret] = Field(
        default_factory=_no_values, description="Added to alluxio.secret_properties."
    )
    env: dict[EnvName, EnvValue] = Field(
        default_factory=_no_values, description="Added to alluxio.env."
    )


class Master(Model):
    """One Alluxio master. It may share its host with a worker."""

    host: HostName = Field(description="Where SSH goes: name, address, or ~/.ssh/config alias.")
    hostname: HostName | None = Field(
        default=None, description="Name that workers, clients and other masters connect to (host)."
    )
    ssh: Ssh = Field(default_factory=Ssh, description="Overrides of the top-level ssh.")


class Alluxio(Model):
    version: str = Field(pattern=ALLUXIO_VERSION, description="Release, names the install folder.")
    source: Source = Field(description="Where Alluxio's tarball comes from.")
    java: Java = Field(default_factory=Java, description="The Java that workers run on.")
    install_dir: OwnDir = Field(
        default="/opt/alluxio", description="Holds one folder for each version."
    )
    state_dir: OwnDir = Field(
        default="/var/lib/alluxio",
        description="Holds identity, metastore and journal; survives reinstalls.",
    )
    log_dir: OwnDir = Field(default="/var/log/alluxio", description="Logs.")
    user: ServiceUser = Field(default="alluxio", description="System user that runs the worker.")
    membership: Membership = Field(
        default=MembershipType.ETCD, description="alluxio.worker.membership.manager.type."
    )
    etcd: AlluxioEtcd = Field(
        default_factory=AlluxioEtcd, description="Login to an etcd with authentication on."
    )
    failure_detection_timeout: int = Field(
        default=120, ge=1, le=3600, description="Seconds until the lease of a dead worker ends."
    )
    start_timeout: int = Field(
        default=120, ge=1, le=3600, description="Seconds to wait for LIVE, then again for READY."
    )
    rpc_port: Port = Field(default=29999, description="alluxio.worker.rpc.port.")
    heap: Size = Field(default="4g", description="Java heap (-Xmx).")
    direct_memory: Size = Field(default="4g", description="Java direct memory.")
    page_store: PageStore = Field(
        default_factory=lambda: PageStore(dirs=["/var/lib/alluxio/pages"], sizes=["1GB"]),
        description="Where cache pages are kept, and how much.",
    )
    properties: dict[PropertyKey, Scalar] = Field(
        default_factory=dict, description="Any other line of alluxio-site.properties."
    )
    secret_properties: dict[PropertyKey, Secret] = Field(
        default_factory=dict, description="Properties whose values are secrets, by reference."
    )
    env: dict[EnvName, EnvValue] = Field(
        default_factory=dict, description="More variables of alluxio-env.sh."
    )
    masters: dict[Name, Master] = Field(
        default_factory=dict, description="The masters by name, if there are any."
    )
    master_heap: Size = Field(default="4g", description="Java heap of a master (-Xmx).")
    workers: dict[Name, Worker] = Field(
        min_length=1, description="The workers by name; ranges such as worker[001-200] expand."
    )


class KubernetesResources(Model):
    """What a container asks for, or is held to. Unset: memory as heap and direct memory want it."""

    cpu: Quantity | None = Field(default=None, description="CPUs, such as 2 or 500m.")
    memory: Quantity | None = Field(default=None, description="Bytes, such as 10Gi.")


class KubernetesWorker(Model):
    """The worker pods, which are all alike."""

    count: int | None = Field(
        default=None, ge=1, le=10000, description="How many (as many as alluxio.workers)."
    )
    heap: Size | None = Field(default=None, description="Instead of alluxio.heap.")
    direct_memory: Size | None = Field(
        default=None, description="Instead of alluxio.direct_memory."
    )
    requests: KubernetesResources = Field(
        default_factory=KubernetesResources, description="Requested of the node."
    )
    limits: KubernetesResources = Field(
        default_factory=KubernetesResources, description="Never exceeded."
    )
    jvm_options: list[JvmOption] = Field(
        default_factory=list, description="More JVM options of the workers."
    )
    env: dict[EnvName, str] = Field(
        default_factory=dict, description="Environment of the worker containers."
    )


class KubernetesPageStore(Model):
    """Where worker pods keep cache pages."""

    type: Literal["emptyDir", "hostPath", "persistentVolumeClaim"] = Field(
        default="emptyDir", description="Kind of volume."
    )
    size: Quantity | None = Field(
        default=None, description="A worker's share (the sum of alluxio.page_store.sizes)."
    )
    host_path: AbsolutePath | None = Field(default=None, description="For hostPath: the folder.")
    storage_class: DnsLabel | None = Field(
        default=None, description="For persistentVolumeClaim: the storage class."
    )

    @model_validator(mode="after")
    def _of_its_type(self) -> KubernetesPageStore:
        if (self.host_path is not None) != (self.type == "hostPath"):
            raise ValueError("'host_path' goes with type hostPath")
        if self.storage_class is not None and self.type != "persistentVolumeClaim":
            raise ValueError("'storage_class' goes with type persistentVolumeClaim")
        return self


class KubernetesEtcd(Model):
    """The chart's own etcd. Without it the pods use the etcd of this inventory."""

    enabled: bool | None = Field(
        default=None,
        description="Whether the chart starts etcd (if it can, and there is no etcd.external).",
    )
    replicas: int | None = Field(
        default=None, ge=1, le=9, description="Members (as many as etcd.members)."
    )
    size: Quantity | None = Field(default=None, description="Each member's volume.")
    storage_class: DnsLabel | None = Field(default=None, description="Its storage class.")


class Kubernetes(Model):
    """The same cluster on Kubernetes, by Alluxio's Helm chart: render-helm writes its values."""

    chart: Literal["0.7.0", "1.1.0-SNAPSHOT"] = Field(
        default="1.1.0-SNAPSHOT", description="Version of Alluxio's chart whose keys are written."
    )
    release: DnsLabel = Field(default="alluxio", description="Helm's name of the installation.")
    namespace: DnsLabel = Field(default="default", description="Kubernetes namespace.")
    kubectl: list[Annotated[str, Field(min_length=1)]] = Field(
        default=["kubectl"], min_length=1, description="The command, as [k3s, kubectl] or [oc]."
    )
    kubeconfig: LocalPath | None = Field(
        default=None, description="kubeconfig file (as kubectl finds it)."
    )
    context: str | None = Field(
        default=None, pattern=KUBE_CONTEXT, description="Context in it (the current one)."
    )
    image: str = Field(default="alluxio/alluxio", pattern=IMAGE, description="Alluxio's image.")
    image_tag: str | None = Field(
        default=None, pattern=IMAGE_TAG, description="Its tag (alluxio.version)."
    )
    image_pull_secrets: list[DnsLabel] = Field(
        default_factory=list, description="Kubernetes Secrets that pull the image."
    )
    service_account: DnsLabel | None = Field(
        default=None, description="ServiceAccount of the pods, as for roles of a cloud."
    )
    dataset_path: str | None = Field(
        default=None,
        min_length=1,
        description="The data (the property alluxio.dora.client.ufs.root).",
    )
    credentials: dict[PropertyKey, Secret] = Field(
        default_factory=dict,
        description="dataset.credentials by reference; written only into a file of their own.",
    )
    secrets: dict[DnsLabel, AbsolutePath] = Field(
        default_factory=dict, description="Kubernetes Secrets, and where pods have their files."
    )
    properties: dict[PropertyKey, Scalar] = Field(
        default_factory=dict, description="Added to alluxio.properties; these win in pods."
    )
    jvm_options: list[JvmOption] = Field(
        default_factory=list, description="JVM options of every Alluxio component."
    )
    worker: KubernetesWorker = Field(
        default_factory=KubernetesWorker, description="The worker pods."
    )
    page_store: KubernetesPageStore = Field(
        default_factory=KubernetesPageStore, description="The workers' cache volume."
    )
    etcd: KubernetesEtcd = Field(default_factory=KubernetesEtcd, description="The chart's etcd.")


class InventoryFile(Model):
    """The whole inventory file."""

    cluster: Name = Field(default="DefaultAlluxioCluster", description="alluxio.cluster.name.")
    other_clusters: list[Name] = Field(
        default_factory=list, description="Other Alluxio clusters that use the same etcd."
    )
    parallel: int = Field(default=20, ge=1, le=500, description="Hosts worked on at once.")
    ssh: Ssh = Field(default_factory=Ssh, description="How every host is reached.")
    etcd: Etcd = Field(description="The etcd cluster.")
    alluxio: Alluxio | None = Field(default=None, description="The Alluxio workers.")
    kubernetes: Kubernetes | None = Field(
        default=None, description="The same cluster on Kubernetes, for render-helm."
    )


def version_tuple(version: str) -> tuple[int, int, int]:
    """``"3.6.16"`` as ``(3, 6, 16)``."""
    match = re.fullmatch(ETCD_VERSION, version)
    if match is None:
        raise ValueError(f"not a version: {version!r}")
    major, minor, patch = map(int, version.split("."))
    return major, minor, patch


def minor(version: str) -> tuple[int, int] | None:
    """``"3.6.16"`` as ``(3, 6)``; None for what is not a version."""
    match = re.match(r"([0-9]{1,4})\.([0-9]{1,4})\.", version)
    return (int(match[1]), int(match[2])) if match is not None else None
