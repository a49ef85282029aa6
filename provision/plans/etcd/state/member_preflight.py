"""Preflight: problems that keep hosts from being members, found before anything changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from provision.errors import Problem
from provision.etcd.cluster.health import ClusterHealth
from provision.etcd.member import backup_timer, layout, routes
from provision.etcd.member import desired as etcd
from provision.host import disks, preflight
from provision.host.facts import HostFacts
from provision.host.ownership import owner
from provision.inventory.model import version_tuple
from provision.inventory.resolved import (
    EtcdCluster,
    EtcdMember,
    Machine,
    bracketed,
    is_among,
)
from provision.text import number, size

#: etcd and its operations guide: a nearly full disk stops the member.
MAX_DISK_PERCENT = 90


MIN_DATA_BYTES = 1 << 30


#: Network file systems that etcd's hardware guide warns of.
NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse.sshfs"})


def members(cluster: EtcdCluster, facts: Mapping[Machine, HostFacts]) -> list[Problem]:
    """The problems of the hosts as members of ``cluster``, warnings among them."""
    problems: list[Problem] = []
    for member in cluster.members:
        f = facts.get(member.machine)
        if f is None:
            continue
        where = member.place
        problems += _unsupported(cluster, f, where)
        problems += _foreign(cluster, member, f, where)
        if f.addresses and not is_among(member.address, f.addresses):
            problems.append(
                Problem(
                    where,
                    f"address {member.address} is on no interface of the host",
                    f"it has {', '.join(sorted(f.addresses))}",
                    id="address-not-on-host",
                )
            )
        for (address, port), why in f.unreachable.items():
            peer = next((m for m in cluster.members if m.address == address), None)
            if peer is not None and port == peer.peer_port:
                problems.append(
                    Problem(
                        where,
                        f"cannot reach {peer.name} at {address}:{port}: {why}",
                        "open the peer port between the members",
                        id="peer-unreachable",
                    )
                )
        problems += [
            Problem(
                where, f"cannot resolve {name}", "fix DNS or /etc/hosts there", id="name-unresolved"
            )
            for name, address in f.resolved.items()
            if not address and any(m.address == name for m in cluster.members)
        ]
        problems += _addresses(cluster, member, f, where)
        problems += _disk(member, f, where)
        problems += _backups(cluster, member, f, where)
    return problems


def _unsupported(cluster: EtcdCluster, f: HostFacts, where: str) -> list[Problem]:
    """A processor on which etcd's release does not start: its ``checkSupportArch`` ends the process
    unless ETCD_UNSUPPORTED_ARCH names it. Every 3.4 has amd64 and ppc64le only; from 3.5 on there
    are arm64 and s390x (etcdmain/etcd.go in 3.4, server/etcdmain/etcd.go from 3.5 on).

    A member that runs has been given the variable by somebody.
    """
    arch = f.values.get("arch")
    if arch != "aarch64" or version_tuple(cluster.version) >= (3, 5, 0):
        return []
    if f.unit(layout.UNIT).active == "active" and owner(f, layout.UNIT_PATH) == cluster.name:
        return []
    what = f"etcd {cluster.version} does not support its processor ({arch}), and would not start"
    return [Problem(where, what, "set etcd.version to 3.5 or newer", id="host-unsupported")]


def ways(seen: ClusterHealth, dispensable: Collection[str]) -> list[Problem]:
    """The members that this tool has no way to: it could not tell whether a change of them is well.
    Warnings about ``dispensable`` ones."""
    return [
        Problem(
            m.member.place,
            f"its client port {bracketed(m.member.address)}:{m.member.served.port} cannot be "
            "reached from here, and its sshd does not forward connections there "
            "(AllowTcpForwarding, PermitOpen)",
            "open the port for this machine, or allow the forwarding in its sshd_config",
            severity="warning" if m.member.name in dispensable else "error",
            id="host-unreachable",
        )
        for m in seen.members
        if m.no_way
    ]


def _addresses(cluster: EtcdCluster, member: EtcdMember, f: HostFacts, where: str) -> list[Problem]:
    """Warnings about routes to peers that leave by an address which the present peer certificate
    does not name: the peers refuse these connections."""
    here = etcd.installed(cluster, "peer", f) if member.peer_tls else None
    if here is None:
        return []
    from provision.etcd.pki import certificates

    names = {m.address: m.name for m in cluster.members}
    named = routes.sources(cluster, member, f)
    by_source: dict[str, list[str]] = {}
    for route in routes.unnamed(member, f, certificates.names(here)):
        peers = by_source.setdefault(route.source, [])
        peers.append(names.get(route.peer, route.peer))
    problems = []
    for source, peers in by_source.items():
        its, leaves = ("route", "leaves") if len(peers) == 1 else ("routes", "leave")
        what = (
            f"its {its} to {', '.join(dict.fromkeys(peers))} {leaves} by {source}, which its peer "
            "certificate does not name"
        )
        remedy = "invoke deploy-etcd gives it a certificate that does"
        if source not in named:
            remedy = f"change the route, or add {source} to etcd.members.{member.name}.sans"
        elif cluster.tls.ca == "external":
            remedy = "invoke export-csrs DIR, have the requests signed, invoke import-certs DIR"
        problems.append(
            Problem(where, what, remedy, severity="warning", id="address-not-in-certificate")
        )
    return problems


def _foreign(cluster: EtcdCluster, member: EtcdMember, f: HostFacts, where: str) -> list[Problem]:
    """An etcd in the way: of somebody else, or of another cluster of this tool."""
    problems: list[Problem] = []
    unit = f.unit(layout.UNIT)
    owned_by = owner(f, layout.UNIT_PATH)
    if unit.load == "masked":
        problems.append(preflight.masked(layout.UNIT, where))
    elif owned_by is None and unit.active in ("active", "activating"):
        problems.append(
            Problem(
                where,
                f"an etcd that this tool did not install runs there ({unit.fragment})",
                "stop and disable it, or choose another host",
                id="foreign-installation",
            )
        )
    elif owned_by is not None and owned_by != cluster.name:
        problems.append(
            Problem(
                where,
                f"already a member of cluster {owned_by}",
                preflight.clean_host(where),
                id="another-clusters-host",
            )
        )
    elif owned_by is None and etcd.has_data(member, f):
        problems.append(
            Problem(
                where,
                f"{member.data_dir} holds data of an etcd that this tool did not install",
                "move it away, or set data_dir to another place; it is never deleted",
                id="foreign-installation",
            )
        )
    for its in dict.fromkeys((member.client_port, member.peer_port)):
        problems += preflight.port(f, its, layout.UNIT, owned_by is not None, where)
    return problems


def _disk(member: EtcdMember, f: HostFacts, where: str) -> list[Problem]:
    disk = f.disks.get(member.data_dir)
    if disk is None:
        return [disks.unmeasured(where, [member.data_dir], "warning")]
    problems: list[Problem] = []
    if disk.used_percent >= MAX_DISK_PERCENT and disk.available < 10 * MIN_DATA_BYTES:
        problems.append(
            Problem(
                where,
                f"the disk of {member.data_dir} ({disk.device}) is {disk.used_percent} % full, "
                f"{size(disk.available)} left",
                "free space, or set data_dir to another disk",
                id="disk-full",
            )
        )
    if disk.kind in NETWORK_FILESYSTEMS:
        problems.append(
            Problem(
                where,
                f"{member.data_dir} is on {disk.kind}: etcd waits for every write to reach disk",
                "use a local disk, best an SSD",
                severity="warning",
                id="disk-unsuitable",
            )
        )
    return problems


def _backups(cluster: EtcdCluster, member: EtcdMember, f: HostFacts, where: str) -> list[Problem]:
    """Warnings about the place of the timer's backups, and about room for the declared number."""
    backup = cluster.backup
    if backup is None or not etcd.backup_dir(cluster, member):
        return []
    problems: list[Problem] = []
    if f.commands.get(backup_timer.CALENDAR, "").strip():
        what = f"its systemd knows no time such as {backup.on_calendar!r}"
        remedy = "correct etcd.backup.on_calendar: systemd-analyze calendar says what is wrong"
        problems.append(Problem(where, what, remedy, id="inventory-value-invalid"))
    disk, data = f.disks.get(backup.dir), f.disks.get(member.data_dir)
    if disk is None:
        problems.append(disks.unmeasured(where, [backup.dir], "warning"))
    if disk is None or data is None:
        return problems
    if (disk.device, disk.total) == (data.device, data.total) and not backup.same_disk:
        problems.append(
            Problem(
                where,
                f"{backup.dir} is on the disk of {member.data_dir} ({disk.device}): if it is lost, "
                "both are lost",
                "set etcd.backup.dir to another disk, or etcd.backup.same_disk: true",
                severity="warning",
                id="backup-disk-shared",
            )
        )
    found = f.paths.get(layout.database(member))
    there = number(f.commands.get(etcd.BACKUPS, "").strip()) or 0
    one = found.size if found is not None else 0
    if backup.keep * one > disk.available + (there << 10):
        problems.append(
            Problem(
                where,
                f"{backup.dir} has {size(disk.available)} free and {size(there << 10)} of backups; "
                f"{backup.keep} of {size(one)} each need {size(backup.keep * one)}",
                "free space, keep fewer (etcd.backup.keep), or set etcd.backup.dir to another disk",
                severity="warning",
                id="disk-full",
            )
        )
    return problems
