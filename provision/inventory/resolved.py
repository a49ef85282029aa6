"""The inventory for the rest of the tool: every default applied, every host complete.

The dataclasses are frozen, so that planning and rendering are functions of plain values.
:func:`resolve` makes them from the file's model; outside tests, nothing else constructs them.
"""

from __future__ import annotations

import functools
import ipaddress
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlsplit

from provision.dataclass import dataclass
from provision.errors import UsageError
from provision.inventory import model
from provision.inventory.membership_type import MembershipType
from provision.text import number

if TYPE_CHECKING:
    from provision.inventory.kubernetes import KubernetesCluster

Secret = TypeVar("Secret", bound=model.Secret)
T = TypeVar("T")
DEFAULT_CONNECT_TIMEOUT = 10.0
SSH_PORT = 22
#: etcd's own default (bytes) when quota-backend-bytes is 0 or not set.
DEFAULT_QUOTA = 2 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """One SSH target. Several roles on the same target share one machine (equal values, equal
    machine).

    ``where`` is the inventory's ``file:line`` for error messages; it does not count for equality.
    """

    host: str
    user: str | None = None
    port: int | None = None
    key: Path | None = None
    known_hosts: Path | None = None
    jump: str | None = None
    sudo_password: model.SshSecret | None = None
    key_passphrase: model.SshSecret | None = None
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    where: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.host

    @property
    def endpoint(self) -> str:
        """The host, with its port when that is not SSH's own: several machines may be behind one
        address."""
        if self.port in (None, SSH_PORT):
            return self.host
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def place(self) -> str:
        """``HOST (LINE)``: where a problem of the machine is."""
        return f"{self.host} ({self.where})" if self.where else self.host

    def may_be(self, other: Machine) -> bool:
        """Whether both may be one machine. Without a port, ~/.ssh/config may say any."""
        ports = self.port, other.port
        return self.host.lower() == other.host.lower() and (len({*ports}) == 1 or None in ports)

    def place_of(self, name: str) -> str:
        """``NAME at HOST (LINE)``: where a problem of the role ``name`` is."""
        return f"{name} at {self.place}"

    def addressed(self, name: str) -> str:
        """``NAME (HOST)``: the role ``name`` in a list that shows hosts, too."""
        return f"{name} ({self.host})"


@dataclass(frozen=True, slots=True)
class ClientPort:
    """A port of a member for clients."""

    tls: bool
    port: int


@dataclass(frozen=True, slots=True)
class EtcdMember:
    name: str
    machine: Machine
    address: str
    client_port: int
    peer_port: int
    data_dir: str
    settings: Mapping[str, model.Setting]
    peer_tls: bool
    client_tls: bool
    #: More names and addresses for its certificates.
    sans: tuple[str, ...] = ()
    #: Whether the address is the local end of a forward: then there is no host for a tunnel.
    forwarded: bool = False
    #: Where the running member serves clients, when it does not serve the declared URL yet; it is
    #: not in the inventory.
    serves_at: ClientPort | None = None

    @property
    def place(self) -> str:
        """``NAME at HOST (LINE)``: where a problem of the member is."""
        return self.machine.place_of(self.name)

    @property
    def served(self) -> ClientPort:
        """Where this tool reaches the member."""
        return self.serves_at or ClientPort(self.client_tls, self.client_port)

    @property
    def peer_url(self) -> str:
        return (
            f"{'https' if self.peer_tls else 'http'}://{bracketed(self.address)}:{self.peer_port}"
        )

    @property
    def client_url(self) -> str:
        scheme = "https" if self.client_tls else "http"
        return f"{scheme}://{bracketed(self.address)}:{self.client_port}"

    @property
    def quota(self) -> int | None:
        """``quota-backend-bytes`` in bytes; None when the inventory turns the quota off."""
        given = self.settings.get("quota-backend-bytes", 0)
        try:
            count = int(given) if isinstance(given, str | int | float) else 0
        except ValueError:
            return DEFAULT_QUOTA  # etcd itself refuses to start with such a value
        return None if count < 0 else count or DEFAULT_QUOTA


@dataclass(frozen=True, slots=True)
class Established:
    """The running cluster of a command. The command finds it out before anything else.

    A member with another ``cluster_id``, or with its own id in ``outside``, does not belong to the
    cluster. ``cluster_id`` None: no cluster serves. ``odd`` are the names of declared members
    outside the cluster with data of their own. ``lost`` are the names of members that must not be
    started like new members. ``name`` is the value of ``--cluster-id``, or empty. ``endpoints`` are
    the endpoints of the voters that the inventory does not declare.
    """

    cluster_id: int | None = None
    outside: frozenset[int] = frozenset()
    odd: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    name: str = ""
    endpoints: tuple[str, ...] = ()

    def has(self, cluster_id: int, member_id: int) -> bool:
        return self.cluster_id in (None, cluster_id) and member_id not in self.outside


@dataclass(frozen=True, slots=True)
class EtcdCluster:
    """The etcd cluster as declared."""

    name: str
    token: str
    version: str
    source: model.Source
    install_dir: str
    config_dir: str
    user: str
    tls: model.EtcdTls
    members: tuple[EtcdMember, ...]
    #: Tarballs of other releases by version, for upgrades.
    releases: Mapping[str, model.Source] = field(default_factory=dict)
    auth: model.EtcdAuth = field(default_factory=model.EtcdAuth)
    backup: model.EtcdBackup | None = None
    #: A release that is known to damage data is accepted.
    allow_corrupting_version: bool = False
    #: An external etcd: the members are endpoints, and this tool does not manage their hosts.
    external: bool = False
    #: The result of :mod:`provision.etcd.cluster.guard`; it is not in the inventory.
    established: Established = Established()
    #: Whether a command may replace a newer patch release with an older one.
    downgrade: bool = False
    #: Folders that a command may take although another owner uses them.
    take_over: frozenset[str] = frozenset()

    @property
    def folders(self) -> frozenset[str]:
        """The folders on the members' hosts that the inventory names."""
        backup = [self.backup.dir] if self.backup is not None else []
        data = [m.data_dir for m in self.members]
        return frozenset((self.install_dir, self.config_dir, *data, *backup))

    @property
    def quorum(self) -> int:
        return len(self.members) // 2 + 1

    @property
    def initial_cluster(self) -> str:
        return ",".join(f"{m.name}={m.peer_url}" for m in self.members)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints for Alluxio: every member, at the listener that Alluxio can use."""
        if self.tls.client and self.tls.plain_client_port is not None:
            address = self.tls.plain_client_address
            port = self.tls.plain_client_port
            plain = (f"http://{bracketed(address or m.address)}:{port}" for m in self.members)
            return tuple(dict.fromkeys(plain))
        return tuple(m.client_url for m in self.members)

    def member(self, name: str) -> EtcdMember:
        """The member ``name``. Raises :class:`UsageError` when no member has that name."""
        for m in self.members:
            if m.name == name:
                return m
        names = ", ".join(m.name for m in self.members)
        raise UsageError(f"{name!r} is no etcd member (there: {names})", id="name-unknown")


class AlluxioWorker(NamedTuple):
    name: str
    machine: Machine
    hostname: str
    rpc_port: int
    heap: str
    direct_memory: str
    page_store: model.PageStore
    java_home: str | None
    properties: Mapping[str, model.Scalar]
    secret_properties: Mapping[str, model.Secret]
    env: Mapping[str, str]

    @property
    def place(self) -> str:
        """``NAME at HOST (LINE)``: where a problem of the worker is."""
        return self.machine.place_of(self.name)


@dataclass(frozen=True, slots=True)
class AlluxioMaster:
    """A master. ``rpc_port`` and ``journal_port`` come from ``alluxio.properties``."""

    name: str
    machine: Machine
    hostname: str
    rpc_port: int
    journal_port: int
    java_home: str | None

    @property
    def place(self) -> str:
        """``NAME at HOST (LINE)``: where a problem of the master is."""
        return self.machine.place_of(self.name)


@dataclass(frozen=True, slots=True)
class AlluxioCluster:
    """The Alluxio side of the cluster as declared. Timeouts are in seconds."""

    name: str
    version: str
    source: model.Source
    java: model.Java
    install_dir: str
    state_dir: str
    log_dir: str
    user: str
    membership: MembershipType
    etcd_login: model.AlluxioEtcd
    etcd_endpoints: tuple[str, ...]
    failure_detection_timeout: int
    start_timeout: int
    workers: tuple[AlluxioWorker, ...]
    masters: tuple[AlluxioMaster, ...] = ()
    master_heap: str = "4g"
    #: The values of every process of the cluster; workers also have values of their own.
    properties: Mapping[str, model.Scalar] = field(default_factory=dict)
    secret_properties: Mapping[str, model.Secret] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    #: Whether a command may replace a newer release with an older one.
    downgrade: bool = False
    #: Folders that a command may take although another owner uses them.
    take_over: frozenset[str] = frozenset()

    @property
    def folders(self) -> frozenset[str]:
        """The folders on the hosts that the inventory names."""
        pages = [path for w in self.workers for path in w.page_store.dirs]
        return frozenset((self.install_dir, self.state_dir, self.log_dir, *pages))

    def worker(self, name: str) -> AlluxioWorker:
        """The worker ``name``. Raises :class:`UsageError` when no worker has that name."""
        for w in self.workers:
            if w.name == name:
                return w
        names = ", ".join(w.name for w in self.workers)
        raise UsageError(f"{name!r} is no worker (there: {names})", id="name-unknown")


@dataclass(frozen=True, slots=True)
class Inventory:
    """A checked inventory. ``path`` is the file it came from; relative paths are resolved."""

    path: Path
    cluster: str
    parallel: int
    etcd: EtcdCluster
    alluxio: AlluxioCluster | None
    other_clusters: tuple[str, ...] = ()
    kubernetes: KubernetesCluster | None = None

    @property
    def machines(self) -> tuple[Machine, ...]:
        """Every machine once, in the order of the file."""
        seen = {m.machine: None for m in self.etcd.members if not self.etcd.external}
        if self.alluxio is not None:
            seen.update({m.machine: None for m in self.alluxio.masters})
            seen.update({w.machine: None for w in self.alluxio.workers})
        return tuple(seen)


def bracketed(address: str) -> str:
    """``address`` in the form for a URL: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def local_path(given: Path, inventory: Path) -> Path:
    """``given`` as an absolute path: ``~`` expanded, relative to the inventory's folder."""
    # os.path, because Path.resolve() asks the file system and raises on a loop of links.
    return Path(os.path.abspath(inventory.parent / given.expanduser()))


def resolve(
    file: model.InventoryFile, path: Path, where: Mapping[str, Mapping[str, str]]
) -> Inventory:
    """The resolved inventory. ``where``: each host's file:line by its name, for ``members``,
    ``masters`` and ``workers``."""

    @functools.cache
    def absolute(p: Path) -> Path:
        return local_path(p, path)

    def reached(ssh: model.Ssh) -> functools.partial[Machine]:
        """A machine without its host and its place: thousands of workers are reached alike."""
        return functools.partial(
            Machine,
            user=ssh.user,
            port=ssh.port,
            key=absolute(Path(ssh.key)) if ssh.key else None,
            known_hosts=absolute(Path(ssh.known_hosts)) if ssh.known_hosts else None,
            jump=ssh.jump,
            sudo_password=secret(ssh.sudo_password) if ssh.sudo_password else None,
            key_passphrase=secret(ssh.key_passphrase) if ssh.key_passphrase else None,
            connect_timeout=ssh.connect_timeout or DEFAULT_CONNECT_TIMEOUT,
        )

    def machine(host: str, own: model.Ssh, place: str) -> Machine:
        at = shared
        if own.model_fields_set:
            fields = {f: getattr(own, f) for f in own.model_fields_set}
            at = reached(file.ssh.model_copy(update=fields))
        return at(host=host, where=place)

    def source(s: model.Source) -> model.Source:
        update: dict[str, object] = {}
        if s.path is not None:
            update["path"] = absolute(s.path)
        if s.sha256 is not None and s.sha256.startswith("file:"):
            update["sha256"] = f"file:{absolute(Path(s.sha256[5:]))}"
        return s.model_copy(update=update)

    def secret(s: Secret) -> Secret:
        return s if s.file is None else s.model_copy(update={"file": absolute(s.file)})

    def secrets(given: Mapping[str, Secret]) -> Mapping[str, Secret]:
        return {name: secret(s) for name, s in given.items()} if given else given

    shared = reached(file.ssh)
    e = file.etcd
    members = tuple(
        EtcdMember(
            name=name,
            machine=machine(m.host, m.ssh, where["members"][name]),
            address=m.address or m.host,
            client_port=m.client_port or e.client_port,
            peer_port=m.peer_port or e.peer_port,
            data_dir=m.data_dir or e.data_dir,
            settings={**model.DEFAULT_ETCD_SETTINGS, **e.settings, **m.settings},
            peer_tls=e.tls.peer,
            client_tls=e.tls.client,
            sans=tuple(m.sans),
        )
        for name, m in e.members.items()
    )
    etcd = EtcdCluster(
        name=file.cluster,
        token=e.cluster_token or file.cluster,
        version=e.version,
        source=source(e.source),
        install_dir=e.install_dir,
        config_dir=e.config_dir,
        user=e.user,
        tls=e.tls.model_copy(
            update={
                "pki_dir": absolute(e.tls.pki_dir),
                "ca_bundle": absolute(e.tls.ca_bundle) if e.tls.ca_bundle else None,
            }
        ),
        members=members,
        releases={version: source(s) for version, s in e.releases.items()},
        auth=e.auth.model_copy(
            update={"root_password": secret(e.auth.root_password) if e.auth.root_password else None}
        ),
        allow_corrupting_version=e.allow_corrupting_version,
        backup=e.backup,
    )
    alluxio = None
    if file.alluxio is not None:
        a = file.alluxio
        java = a.java.model_copy(
            update={"source": source(a.java.source) if a.java.source else None}
        )
        login = a.etcd.model_copy(
            update={"password": secret(a.etcd.password) if a.etcd.password else None}
        )
        if e.auth.enabled is False:
            login = model.AlluxioEtcd()  # 313 cannot join with a login while etcd asks for none
        a_secrets = secrets(a.secret_properties)
        workers = tuple(
            AlluxioWorker(
                name=name,
                machine=machine(w.host, w.ssh, where["workers"][name]),
                hostname=w.hostname or w.host,
                rpc_port=w.rpc_port or a.rpc_port,
                heap=w.heap or a.heap,
                direct_memory=w.direct_memory or a.direct_memory,
                page_store=w.page_store or a.page_store,
                java_home=w.java_home or a.java.home,
                properties=_merged(a.properties, w.properties),
                secret_properties=_merged(a_secrets, secrets(w.secret_properties)),
                env=_merged(a.env, w.env),
            )
            for name, w in a.workers.items()
        )
        alluxio = AlluxioCluster(
            name=file.cluster,
            version=a.version,
            source=source(a.source),
            java=java,
            install_dir=a.install_dir,
            state_dir=a.state_dir,
            log_dir=a.log_dir,
            user=a.user,
            membership=a.membership,
            etcd_login=login,
            etcd_endpoints=etcd.endpoints,
            failure_detection_timeout=a.failure_detection_timeout,
            start_timeout=a.start_timeout,
            workers=workers,
            masters=tuple(
                AlluxioMaster(
                    name=name,
                    machine=(own := machine(m.host, m.ssh, where["masters"][name])),
                    hostname=m.hostname or m.host,
                    rpc_port=_port(a.properties, "alluxio.master.rpc.port", 19998),
                    journal_port=_port(a.properties, "alluxio.master.embedded.journal.port", 19200),
                    # One host has one Java for its worker and its master.
                    java_home=next(
                        (
                            w.java_home
                            for w in workers
                            if w.machine.host == own.host and w.machine == own
                        ),
                        a.java.home,
                    ),
                )
                for name, m in a.masters.items()
            ),
            master_heap=a.master_heap,
            properties=a.properties,
            secret_properties=a_secrets,
            env=a.env,
        )
    if e.external is not None:
        hosts = alluxio.workers if alluxio is not None else ()
        members = _elsewhere(e.external, [w.machine for w in hosts], str(path))
        etcd = replace(etcd, members=members, external=True)
        alluxio = alluxio and replace(alluxio, etcd_endpoints=etcd.endpoints)
    kubernetes = None
    if file.kubernetes is not None:
        from provision.inventory.kubernetes import resolve_kubernetes

        kubernetes = resolve_kubernetes(file, absolute, secret)
    return Inventory(
        path=path,
        cluster=file.cluster,
        parallel=file.parallel,
        etcd=etcd,
        alluxio=alluxio,
        other_clusters=tuple(file.other_clusters),
        kubernetes=kubernetes,
    )


def _merged(shared: Mapping[str, T], own: Mapping[str, T]) -> Mapping[str, T]:
    """``shared`` with ``own``. Thousands of workers without values of their own share one
    mapping."""
    return {**shared, **own} if own else shared


def _port(properties: Mapping[str, model.Scalar], key: str, default: int) -> int:
    given = number(str(properties.get(key)))
    return given if given is not None else default


def _elsewhere(
    external: model.ExternalEtcd, hosts: Sequence[Machine], path: str
) -> tuple[EtcdMember, ...]:
    """Members of an external etcd, to be asked at their endpoints. Members out of reach from here
    are asked through workers' hosts."""
    found: list[EtcdMember] = []
    for place, url in enumerate(external.endpoints):
        address, port = urlsplit(url).hostname or "", urlsplit(url).port or 0
        found.append(
            EtcdMember(
                name=f"{bracketed(address)}:{port}",
                machine=hosts[place % len(hosts)] if hosts else Machine(address, where=path),
                address=address,
                client_port=port,
                peer_port=0,
                data_dir="",
                settings={},
                peer_tls=False,
                client_tls=False,
            )
        )
    return tuple(found)


def is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def is_among(address: str, addresses: Iterable[str]) -> bool:
    """Whether a host of ``addresses`` has ``address``, in any spelling. A name may belong to any
    host."""
    return not is_ip(address) or str(ipaddress.ip_address(address)) in addresses
