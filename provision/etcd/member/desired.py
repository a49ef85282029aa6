"""The desired state of one etcd member's host, as resources."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import field, replace

from provision.artifacts import Artifact
from provision.dataclass import dataclass
from provision.etcd.member import backup_timer, layout, listeners, routes, start_check
from provision.host import disks
from provision.host.effects import Effect
from provision.host.facts import PREFLIGHT, HostFacts, Kind, Probe
from provision.host.ownership import owner
from provision.host.proof import Proof
from provision.host.resources import (
    Certificate,
    DataDisk,
    Directory,
    File,
    Link,
    Package,
    Refusal,
    Resource,
    Tree,
    Unit,
    User,
)
from provision.host.sandbox import sandbox
from provision.inventory import settings
from provision.inventory.model import Setting, version_tuple
from provision.inventory.resolved import EtcdCluster, EtcdMember, bracketed, is_ip
from provision.render import render
from provision.text import document

#: Label of the probe for the host's openssl, which makes the keys on the host.
OPENSSL = "openssl"
#: Label of the probe for the size of the backups on a host.
BACKUPS = "backups"

#: The setting for etcd without data: make a new cluster, or join the existing one.
STATE = "initial-cluster-state"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A listener's certificate and key. Without ``sign`` and ``pair``, the host's own are kept.

    ``sign`` makes the certificate from the host's own signing request; ``pair`` is a certificate
    and a key made on this machine. See :class:`provision.host.resources.Certificate`.
    """

    why: str = ""
    sign: Callable[[bytes], bytes] | None = None
    pair: tuple[bytes, bytes] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class MemberTls:
    """The TLS material of one member. None where a listener is plain."""

    name: str
    authority: bytes
    peer: Leaf | None = None
    server: Leaf | None = None


def kinds(member: EtcdMember) -> tuple[str, ...]:
    """The kinds of certificates of a member: ``peer`` (port 2380), ``server`` (its client port)."""
    return ("peer",) * member.peer_tls + ("server",) * member.client_tls


def installed(cluster: EtcdCluster, kind: str, facts: HostFacts) -> bytes | None:
    """The certificate of a listener (``peer`` or ``server``) on a host that also has its key."""
    path = layout.certificate(cluster, kind)
    found, key = facts.paths.get(f"{path}.crt"), facts.paths.get(f"{path}.key")
    return found.content if found is not None and key is not None and key.size else None


def trusted(cluster: EtcdCluster, facts: HostFacts) -> bytes:
    """The CA certificates (PEM) in the host's file; empty without one."""
    here = facts.paths.get(layout.ca_file(cluster))
    return (here.content or b"") if here is not None else b""


def waiting_key(kind: str) -> str:
    """Label of the probe for the public part of the key that waits for its certificate."""
    return f"{kind}.key.new"


def key_probes(cluster: EtcdCluster, member: EtcdMember) -> dict[str, str]:
    """The probe commands for the host's openssl and, with an external CA, for the keys that
    wait."""
    found = {OPENSSL: "command -v openssl"} if kinds(member) else {}
    if cluster.tls.ca == "external":
        for kind in kinds(member):
            path = shlex.quote(f"{layout.certificate(cluster, kind)}.key.new")
            found[waiting_key(kind)] = f"openssl pkey -pubout -in {path} 2>/dev/null"
    return found


def binary(cluster: EtcdCluster) -> str:
    return (
        layout.PACKAGED_BINARY
        if cluster.source.package
        else f"{cluster.install_dir}/{cluster.version}/etcd"
    )


def installed_release(cluster: EtcdCluster, facts: HostFacts) -> str:
    """The release in this tool's unit on the host; empty without such a unit."""
    folder = re.escape(cluster.install_dir)
    found = re.search(
        rf"^ExecStart={folder}/([0-9]+\.[0-9]+\.[0-9]+)/etcd ",
        facts.text(layout.UNIT_PATH) or "",
        re.MULTILINE,
    )
    return found[1] if found is not None else ""


def newer_release(cluster: EtcdCluster, facts: HostFacts) -> str:
    """The patch release on the host, when it is newer than the declared one and therefore stays;
    otherwise empty.

    A unit of another cluster does not count, and neither does another minor release.
    """
    there = installed_release(cluster, facts)
    if cluster.source.package or cluster.downgrade or not there:
        return ""
    if owner(facts, layout.UNIT_PATH) != cluster.name:
        return ""
    now, wanted = version_tuple(there), version_tuple(cluster.version)
    return there if now[:2] == wanted[:2] and now > wanted else ""


def resources(
    cluster: EtcdCluster,
    member: EtcdMember,
    artifact: Artifact | None,
    tls: MemberTls | None,
    facts: HostFacts | None,
    initial_state: str = "new",
    *,
    bootstrapped: bool = False,
    checks: bool = True,
    former: bool = True,
) -> tuple[Resource, ...]:
    """All resources that make ``member``'s host a member, in the order of their installation.

    With ``facts`` None, the resources are for a probe, before anything is known about the host. A
    newer patch release on the host stays, unless ``cluster.downgrade`` is set: an inventory with an
    older release may be an old checkout. ``bootstrapped``: the member is known to belong to a
    cluster, so its configuration gets ``existing``. ``checks``: etcd compares its data with the
    peers' data at its start (see :mod:`provision.etcd.member.start_check`). ``former``: the member
    keeps the client URLs that it has now (see :mod:`provision.etcd.member.listeners`).
    """
    newer = newer_release(cluster, facts) if facts is not None else ""
    if newer:
        cluster = replace(cluster, version=newer)
    old = facts.text(layout.UNIT_PATH) if facts is not None else None
    service = render(
        "etcd.service",
        cluster=cluster.name,
        member=member,
        user=cluster.user,
        binary=binary(cluster),
        config_file=layout.config_file(cluster),
        # A joining member may get another disk than the unit on the host names.
        mounts=disks.notes(old if initial_state == "new" else None, facts, [member.data_dir]),
        disk_check=disks.check(
            member.data_dir,
            "no root-owned folder",
            f"mount it and etcd starts within a minute; if it is lost: invoke replace-member "
            f"{member.name}",
            wait=True,
        ),
        sandbox=sandbox(
            (member.data_dir, cluster.install_dir, cluster.config_dir), _ports(cluster, member)
        ),
    )
    result: list[Resource] = [
        User(cluster.user, home="/var/lib/etcd"),
        # Write the unit first: it names the owning cluster, so destroy finds a killed run's files.
        File(
            layout.UNIT_PATH,
            service,
            restarts=() if disks.is_for_next_start(old, service) else (layout.UNIT,),
        ),
        Directory(cluster.config_dir),
    ]
    if facts is None or initial_state != "new" or not is_disk_missing(cluster, member, facts):
        result.append(Directory(member.data_dir, owner=cluster.user, mode=0o700))
        result.append(DataDisk(member.data_dir))
    if newer:
        pass  # the newer release is already on the host
    elif artifact is not None:
        tree = f"{cluster.install_dir}/{cluster.version}"
        result.append(
            Tree(
                tree,
                artifact,
                restarts=(layout.UNIT,),
                proof=proof(cluster),
                cluster=cluster.name,
            )
        )
        result.append(Link(f"{cluster.install_dir}/current", cluster.version))
    else:
        result.append(Package(("etcd-server", "etcd-client"), layout.PACKAGED_BINARY))
    if tls is not None:
        result.extend(tls_files(cluster, tls))
    peer_files = tls is not None and tls.peer is not None
    listen = listeners.urls(cluster, member, facts, former=former)
    config = _config(
        cluster, member, facts, listen, initial_state, peer_files, bootstrapped, checks
    )
    before = facts.text(layout.config_file(cluster)) if facts is not None else None
    quiet = before is not None and _noticed(before) == _noticed(config.decode())
    result.append(
        File(layout.config_file(cluster), config, restarts=() if quiet else (layout.UNIT,))
    )
    result.append(replace(unit(member), proofs=(proof(cluster),)))
    result.extend(backup_timer.resources(cluster, member))
    return tuple(result)


def proof(cluster: EtcdCluster) -> Proof:
    """etcd of the declared release says its version. A package may have another version."""
    folder = binary(cluster).rpartition("/")[0]
    says = "" if cluster.source.package else f"etcd Version: {cluster.version}"
    return Proof(folder, "etcd", ("--version",), cluster.user, says)


def unit(member: EtcdMember) -> Unit:
    """etcd's unit, with the remedy for the case that etcd's own check ends etcd."""
    refusal = Refusal(
        start_check.DIFFERS,
        f"run invoke deploy-etcd; if it fails here again, invoke replace-member {member.name}",
        id="etcd-data-differ",
    )
    return Unit(layout.UNIT, refusals=(refusal,))


def probe(cluster: EtcdCluster, member: EtcdMember, artifact: Artifact | None) -> Probe:
    """The probe of a member's host, for preflight and for the plan."""
    leaf = Leaf()
    tls = MemberTls(
        member.name,
        b"",
        peer=leaf if member.peer_tls else None,
        server=leaf if member.client_tls else None,
    )
    others = [m for m in cluster.members if m.name != member.name]
    return Probe(
        resources=resources(cluster, member, artifact, tls, None),
        ports=_ports(cluster, member),
        disks=(member.data_dir, cluster.install_dir, *backup_dir(cluster, member)),
        paths=(f"{member.data_dir}/member", layout.database(member), layout.unfinished(member)),
        reach=[(m.address, m.peer_port) for m in others],
        resolve=[m.address for m in others if not is_ip(m.address)],
        kinds=PREFLIGHT | Kind.ADDRESSES,
        commands={
            **key_probes(cluster, member),
            **_backups_size(cluster, member),
            **backup_timer.probe(cluster, member),
            **routes.probe(cluster, member),
        },
    )


def backup_dir(cluster: EtcdCluster, member: EtcdMember) -> tuple[str, ...]:
    """The folder of the timer's backups, if the member's host has the timer."""
    backup = cluster.backup
    return (backup.dir,) if backup is not None and backup_timer.has(cluster, member) else ()


def _backups_size(cluster: EtcdCluster, member: EtcdMember) -> dict[str, str]:
    """The probe command for the size of the backups on the host, in KiB."""
    folders = " ".join(map(shlex.quote, backup_dir(cluster, member)))
    # etcd's user can fill the folder with names: the look at the host does not wait for them.
    count = f"timeout 20 du -sk {folders} 2>/dev/null | cut -f 1"
    return {BACKUPS: count} if folders else {}


def has_data(member: EtcdMember, facts: HostFacts) -> bool:
    """Whether the member has ever been started here: its data directory contains ``member/``."""
    return f"{member.data_dir}/member" in facts.paths


def is_disk_missing(cluster: EtcdCluster, member: EtcdMember, facts: HostFacts) -> bool:
    """Whether the host was a member, and both its data and the marker of its disk are missing.

    The facts come from :func:`probe`, or from another probe with the same files and folders.
    """
    was = says_existing(facts.text(layout.config_file(cluster)) or "")
    unit = facts.text(layout.UNIT_PATH)
    return not has_data(member, facts) and disks.is_missing(unit, facts, member.data_dir, was=was)


def former_data_dir(cluster: EtcdCluster, member: EtcdMember, facts: HostFacts) -> str:
    """The data directory in the host's ``etcd.conf.yml``, when it differs from the declared one."""
    found = re.search(
        r'^data-dir: ("[^"]*")$', facts.text(layout.config_file(cluster)) or "", re.MULTILINE
    )
    try:
        folder = str(document(found[1])) if found is not None else ""
    except ValueError:
        return ""
    return "" if folder == member.data_dir else folder


def what_moved(member: EtcdMember, former: str) -> tuple[str, str]:
    """The problem and the remedy for a member with a changed ``data_dir`` in the inventory."""
    what = f"its configuration has the data_dir {former}, and the inventory has {member.data_dir}"
    return what, f"set data_dir back to {former}: the tool does not move etcd's data"


def disk_away(member: EtcdMember, facts: HostFacts) -> str:
    """The mount point of the member's data disk, when nothing is mounted there; else empty.

    When the old disk comes back, the old member comes back with it, and may then belong to another
    cluster.
    """
    return disks.away(facts.text(layout.UNIT_PATH), facts, member.data_dir)


def what_is_lost(cluster: EtcdCluster, member: EtcdMember, facts: HostFacts) -> tuple[str, str]:
    """The problem and the remedy for a member of the cluster that has lost its data."""
    if former := former_data_dir(cluster, member, facts):
        return what_moved(member, former)
    where = disk_away(member, facts)
    remedy = f"mount its disk and run invoke deploy-etcd; or invoke replace-member {member.name}"
    if where:
        return disks.what_is_away(where), remedy
    if not disks.is_marked(member.data_dir, facts):
        return disks.what_is_missing(member.data_dir, "has lost its data"), remedy
    what = f"has lost its data: its disk is mounted, but {member.data_dir} has no folder 'member'"
    return what, f"invoke replace-member {member.name}"


def says_existing(config: str) -> bool:
    """Whether this tool's ``etcd.conf.yml`` says that the member's cluster exists already.

    Without data, etcd then asks the other members for the cluster, and exits when none answers. It
    never makes a new cluster (``bootstrapExistingClusterNoWAL`` in
    ``server/etcdserver/bootstrap.go``). With data it does not read the line
    (``bootstrapClusterWithWAL``). A member that has lost its data would still come back under its
    id and vote, so the line alone is no protection.
    """
    return _initial(config).get(STATE) == "existing"


def initial_members(config: str) -> set[str]:
    """The names in ``initial-cluster`` of this tool's ``etcd.conf.yml``."""
    return {*initial_urls(config)}


def initial_urls(config: str) -> dict[str, str]:
    """The peer URLs in ``initial-cluster`` of this tool's ``etcd.conf.yml``, by name."""
    pairs = _initial(config).get("initial-cluster", "").split(",")
    return {name: url for pair in pairs if pair for name, _, url in [pair.partition("=")]}


def sans(member: EtcdMember) -> tuple[str, ...]:
    """The names that a member's certificate must have: etcd checks them on both sides."""
    own = (member.address, member.machine.host, "localhost", "127.0.0.1", *member.sans)
    return tuple(dict.fromkeys(own))


def new_sans(cluster: EtcdCluster, member: EtcdMember, facts: HostFacts) -> tuple[str, ...]:
    """The names of a new certificate: also the addresses of the routes to the peers."""
    return tuple(dict.fromkeys((*sans(member), *routes.sources(cluster, member, facts))))


def _ports(cluster: EtcdCluster, member: EtcdMember) -> tuple[int, ...]:
    plain = cluster.tls.plain_client_port if member.client_tls else None
    ports = (member.client_port, member.peer_port)
    return ports if plain is None else (*ports, plain)


def tls_files(cluster: EtcdCluster, tls: MemberTls) -> list[Resource]:
    """The folder, the trusted CAs, and the certificates. etcd reads a leaf and its key again for
    each connection, but the trusted CA only at its start (its ``client/pkg/transport``:
    ``GetCertificate``, ``GetClientCertificate``, ``ClientCAs``).

    All of it is root's: etcd's user reads it by its group, and writes nothing there."""
    return [
        Directory(layout.pki_dir(cluster), mode=0o750, group=cluster.user),
        File(
            layout.ca_file(cluster),
            tls.authority,
            group=cluster.user,
            restarts=(layout.UNIT,),
            effects=(Effect.TRUST,),
        ),
        *certificates(cluster, tls),
    ]


def certificates(cluster: EtcdCluster, tls: MemberTls) -> list[Resource]:
    """The member's certificates with their keys; the certificate of its client port first.

    While its peers do not accept a member, the member waits in its start, and goes on when they do.
    Then it reads the pair of its client port, and exits when key and certificate do not match
    (etcd's ``embed/serve.go``). They do not match for a moment while they are replaced.
    """
    return [
        Certificate(
            layout.certificate(cluster, kind),
            "root",
            tls.name,
            leaf.why,
            leaf.sign,
            leaf.pair,
            cluster.user,
        )
        for kind, leaf in (("server", tls.server), ("peer", tls.peer))
        if leaf is not None
    ]


def _config(
    cluster: EtcdCluster,
    member: EtcdMember,
    facts: HostFacts | None,
    listen: Sequence[str],
    initial_state: str,
    peer_files: bool,
    bootstrapped: bool,
    checks: bool,
) -> bytes:
    initial = {
        "initial-cluster": cluster.initial_cluster,
        "initial-cluster-token": cluster.token,
        STATE: initial_state,
    }
    if facts is not None and has_data(member, facts):
        # etcd reads these settings only once. To rewrite them when the membership changes would
        # restart every member for nothing.
        initial.update(_initial(facts.text(layout.config_file(cluster)) or ""))
    if bootstrapped:
        initial[STATE] = "existing"
    return render(
        "etcd.conf.yml",
        cluster=cluster.name,
        member=member,
        listen_peer_urls=[
            f"{'https' if member.peer_tls else 'http'}://"
            f"{bracketed(a) or listeners.wildcard(facts)}:{member.peer_port}"
            for a in listeners.at(member.address, loopback=False)
        ],
        listen_client_urls=listen,
        advertise_client_urls=[member.client_url],
        initial_cluster=initial["initial-cluster"],
        token=initial["initial-cluster-token"],
        initial_state=initial[STATE],
        pki=layout.pki_dir(cluster),
        # Also with a plain listener, while TLS is being turned on (see enable_peer_tls).
        peer_security=member.peer_tls or peer_files,
        client_security=any(url.startswith("https:") for url in listen),
        client_auth=cluster.tls.client_auth,
        settings=_settings(cluster, member, checks),
    )


def _settings(cluster: EtcdCluster, member: EtcdMember, checks: bool) -> dict[str, Setting]:
    release = version_tuple(cluster.version)
    # Before 3.5 the default logger is capnslog; --config-file cannot set its levels.
    logger: dict[str, Setting] = {"logger": "zap"} if release < (3, 5) else {}
    every = start_check.switched({**logger, **member.settings}, release, on=checks)
    return {key: settings.typed(key, value) for key, value in every.items()}


def _noticed(config: str) -> list[str]:
    """The lines of the configuration that need a restart of a running member. A member with data
    does not read ``initial-cluster-state``, and a member that has started does not compare its data
    again."""
    lines: list[str] = []
    for line in config.splitlines():
        key, _, value = line.partition(": ")
        if key in (STATE, start_check.SETTING):
            continue
        if key == start_check.GATES:
            line = start_check.other_gates(value.strip('"'))
        if line:
            lines.append(line)
    return lines


def _initial(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        if key.startswith("initial-cluster") and value.startswith('"'):
            try:
                found[key] = str(document(value))
            except ValueError:
                continue
    return found
