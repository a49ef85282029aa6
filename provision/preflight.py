"""Everything that can be known to fail before anything changes, for all hosts at once.

Hosts without facts, since they could not be asked, are passed over: that is a problem already.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from provision.alluxio import desired as workers_desired
from provision.alluxio import java, ports, sizes, stores, tarball
from provision.alluxio.desired import Artifacts
from provision.artifacts import Artifact
from provision.errors import PreflightFailed, Problem
from provision.etcd import desired as etcd
from provision.host import dropins
from provision.host.observe import HostFacts, Probe, UnitState
from provision.host.ownership import owner
from provision.host.resources import Directory, File, Link, Tree
from provision.inventory.resolved import (
    AlluxioCluster,
    AlluxioWorker,
    EtcdCluster,
    EtcdMember,
    Machine,
    bracketed,
)
from provision.text import number, size

#: etcd's release names by ``uname -m``: the machines a tarball can be for.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
#: Clocks further apart than this (seconds) break leases' and certificates' times.
MAX_CLOCK_SKEW = 1.0
#: A unit needs the sandboxing of this systemd release.
MIN_SYSTEMD = 240
#: etcd and its operations guide: a nearly full disk stops the member.
MAX_DISK_PERCENT = 90
MIN_DATA_BYTES = 1 << 30
#: Network file systems that etcd's hardware guide warns of.
NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse.sshfs"})


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that must be free at ``path``, and what for."""

    path: str
    needed: int
    why: str


@contextlib.contextmanager
def noting(problems: list[Problem]) -> Iterator[None]:
    """Add the problems of a :class:`PreflightFailed` to ``problems``, and go on."""
    try:
        yield
    except PreflightFailed as error:
        problems += error.problems


def require(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """The warnings. Raises :class:`PreflightFailed` when there is an error among ``problems``."""
    if any(p.severity == "error" for p in problems):
        raise PreflightFailed(
            "preflight failed; nothing was changed", problems, id="preflight-failed"
        )
    return tuple(problems)


def hosts(
    facts: Mapping[Machine, HostFacts], rooms: Mapping[Machine, Sequence[Room]]
) -> list[Problem]:
    """What is wrong with the hosts themselves, whatever runs on them."""
    problems: list[Problem] = []
    for machine, f in facts.items():
        where = f"{machine.host} ({machine.where})"
        if f.values.get("uid") != "0":
            problems.append(
                Problem(where, "no root", "log in as root, or as a user of sudo", id="root-needed")
            )
        if f.values.get("arch") not in ARCHITECTURES:
            problems.append(
                Problem(
                    where,
                    f"CPU is {f.values.get('arch')}",
                    "x86_64 or aarch64 is needed",
                    id="host-unsupported",
                )
            )
        systemd = number(f.values.get("systemd", ""))
        if systemd is None:
            problems.append(
                Problem(
                    where, "systemd is not running", "hosts need systemd", id="host-unsupported"
                )
            )
        elif systemd < MIN_SYSTEMD:
            problems.append(
                Problem(
                    where,
                    f"systemd {systemd} is too old",
                    f"{MIN_SYSTEMD} or newer is needed",
                    id="host-unsupported",
                )
            )
        problems += _room(f, rooms.get(machine, ()), where)
        problems += [
            Problem(
                where,
                f"{path} makes {unit} run another command than this tool's",
                "take ExecStart out of it, or remove it; then systemctl daemon-reload",
                id="unit-overridden",
            )
            for unit, path in dropins.overrides(f)
        ]
    problems += _unique(facts, "machine_id", "machine-id", "clones: make a new one on each host")
    problems += _unique(facts, "hostname", "hostname", "give each host a name of its own")
    problems += _clocks(facts)
    return problems


def paths(facts: Mapping[Machine, HostFacts], probes: Mapping[Machine, Probe]) -> list[Problem]:
    """What is in the place of a directory, a file or a link that is to be made."""
    problems: list[Problem] = []
    for machine, f in facts.items():
        where = f"{machine.host} ({machine.where})"
        for resource in probes[machine].resources:
            match resource:
                case Directory(path=path) | Tree(path=path):
                    what, good = "a directory", ["dir"]
                case File(path=path) | Link(path=path):
                    what, good = "a file", ["file", "link"]
                case _:
                    continue
            found = f.paths.get(path)
            if found is not None and found.kind not in good:
                remedy = "give the path it points to" if found.kind == "link" else "move it away"
                problems.append(
                    Problem(
                        where, f"{path} is a {found.kind}, not {what}", remedy, id="path-in-the-way"
                    )
                )
    return problems


def release(
    alluxio: AlluxioCluster, artifacts: Artifacts, facts: Mapping[Machine, HostFacts]
) -> list[Problem]:
    """What is wrong with Alluxio's release: with its tarball, or where only hosts have it."""
    if artifacts.release is not None:
        return tarball.problems(artifacts.alluxio, artifacts.release, alluxio.version)
    home = workers_desired.home(alluxio)
    return [
        Problem(
            f"{machine.host} ({machine.where})",
            f"release {alluxio.version} has no {' or '.join(tarball.launchers(home))}",
            f"set alluxio.version to {alluxio.version} and alluxio.source, then upgrade-workers",
            id="release-missing",
        )
        for machine, f in facts.items()
        if tarball.launcher_on(f, home) is None
    ]


def architectures(
    facts: Mapping[Machine, HostFacts], tarballs: Iterable[Artifact | None]
) -> list[Problem]:
    """Tarballs that are, by their names, for another CPU than a host's."""
    built_for = {t.path.name: a for t in tarballs if t and (a := _architecture(t.path.name))}
    return [
        Problem(
            f"{machine.host} ({machine.where})",
            f"{name} is for {arch}, this CPU is {f.values.get('arch')}",
            "give the release for this CPU; hosts of two kinds need an inventory each",
            id="tarball-unfit",
        )
        for machine, f in facts.items()
        for name, arch in built_for.items()
        if f.values.get("arch") in ARCHITECTURES and f.values["arch"] != arch
    ]


def _architecture(name: str) -> str | None:
    found = re.search(
        r"(?<![a-z0-9])((?P<x86_64>amd64|x86[_-]64|x64)|(?P<aarch64>arm64|aarch64))(?![a-z0-9])",
        name.lower(),
    )
    if found is None:
        return None
    return "x86_64" if found["x86_64"] else "aarch64"


def _room(f: HostFacts, rooms: Sequence[Room], where: str) -> list[Problem]:
    """Whether what is to come fits, all that goes to the same file system together."""
    by_disk: dict[tuple[str, int, int], list[Room]] = {}
    for room in rooms:
        if disk := f.disks.get(room.path):
            by_disk.setdefault((disk.device, disk.total, disk.available), []).append(room)
    return [
        Problem(
            where,
            f"{', '.join(dict.fromkeys(r.path for r in some))} has {size(available)} free on "
            f"{device}, " + " and ".join(f"{r.why} needs {size(r.needed)}" for r in some),
            "free space, or choose another directory",
            id="disk-full",
        )
        for (device, _, available), some in by_disk.items()
        if available < sum(r.needed for r in some)
    ]


def members(cluster: EtcdCluster, facts: Mapping[Machine, HostFacts]) -> list[Problem]:
    """What is wrong with the hosts as members of ``cluster``. Warnings are among them."""
    problems: list[Problem] = []
    for member in cluster.members:
        f = facts.get(member.machine)
        if f is None:
            continue
        where = f"{member.name} at {member.machine.host} ({member.machine.where})"
        problems += _foreign(cluster, member, f, where)
        if f.addresses and not etcd.is_among(member.address, f.addresses):
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
        problems += _disk(member, f, where)
        problems += _backups(cluster, member, f, where)
    return problems


def workers(
    alluxio: AlluxioCluster,
    chosen: Sequence[AlluxioWorker],
    artifacts: Artifacts,
    facts: Mapping[Machine, HostFacts],
) -> list[Problem]:
    """What is wrong with the hosts of the chosen workers. Warnings are among them."""
    problems: list[Problem] = []
    identities: dict[str, str] = {}
    for worker in chosen:
        f = facts.get(worker.machine)
        if f is None:
            continue
        where = f"{worker.name} at {worker.machine.host} ({worker.machine.where})"
        unit = f.unit(workers_desired.UNIT)
        listeners = ports.worker_listeners(alluxio, worker)
        problems += taken(f, listeners, unit, where)
        problems += _etcd_out_of_reach(alluxio, f, where)
        path = workers_desired.UNIT_PATH
        problems += ours(f, workers_desired.UNIT, path, alluxio.name, "worker", where)
        accepted = artifacts.release.java if artifacts.release is not None else ()
        problems += java.problems(alluxio, worker, artifacts.jdk, f, where, accepted)
        identity = workers_desired.identity(alluxio, f)
        file = workers_desired.identity_file(alluxio)
        if identity is None and f.text(file):
            problems.append(
                Problem(
                    where,
                    f"{file} holds no UUID",
                    "restore it, or remove it for a new one",
                    id="worker-identity-invalid",
                )
            )
        if identity is not None and identity in identities:
            problems.append(
                Problem(
                    where,
                    f"its worker identity {identity} is also that of {identities[identity]} "
                    "(a cloned image or a copied folder): etcd would keep only one of the two",
                    f"stop the worker on the clone and remove {file} there",
                    id="worker-identity-cloned",
                )
            )
        if identity is not None:
            identities.setdefault(identity, worker.name)
        problems += _memory(worker, f, where)
        problems += stores.problems(worker, f, workers_desired.UNIT_PATH, alluxio.user, where)
        problems += workers_desired.disk_problems(alluxio, f, where)
    return problems


def ours(f: HostFacts, name: str, path: str, cluster: str, role: str, where: str) -> list[Problem]:
    """What keeps the unit ``name`` at ``path`` from being ``cluster``'s."""
    unit, owned_by = f.unit(name), owner(f, path)
    problems = [_masked(name, where)] if unit.load == "masked" else []
    if owned_by not in (None, cluster):
        what = f"already a {role} of cluster {owned_by}"
        remedy = clean_host(where)
        problems.append(Problem(where, what, remedy, id="another-clusters-host"))
    elif owned_by is None and unit.load == "loaded":
        what = f"{name} is there, but not of this tool ({unit.fragment})"
        problems.append(
            Problem(where, what, "remove it, or choose another host", id="foreign-installation")
        )
    return problems


def clean_host(where: str) -> str:
    """The remedy for another cluster's unit on the host of ``where``, which begins with a name."""
    return f"if it is not needed there: invoke clean-host {where.partition(' ')[0]}"


def _memory(worker: AlluxioWorker, f: HostFacts, where: str) -> list[Problem]:
    memory = number(f.values.get("memory", ""))
    wanted = sizes.size_bytes(worker.heap)
    wanted += sizes.size_bytes(worker.direct_memory)
    if memory is None or wanted <= memory:
        return []
    return [
        Problem(
            where,
            f"heap {worker.heap} and direct memory {worker.direct_memory} are more than the "
            f"host's {size(memory)}",
            "the kernel may kill the worker: give it less, or the host more",
            severity="warning",
            id="memory-short",
        )
    ]


def _foreign(cluster: EtcdCluster, member: EtcdMember, f: HostFacts, where: str) -> list[Problem]:
    """An etcd of someone else's, or of another cluster of ours, in the way."""
    problems: list[Problem] = []
    unit = f.unit(etcd.UNIT)
    owned_by = owner(f, etcd.UNIT_PATH)
    if unit.load == "masked":
        problems.append(_masked(etcd.UNIT, where))
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
                clean_host(where),
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
        problems += port(f, its, unit.pid, owned_by is not None, where)
    return problems


def port(f: HostFacts, number: int, our_pid: int, running: bool, where: str) -> list[Problem]:
    """Who else listens on a port: not the process ``our_pid``, if it is ``running``."""
    listener = f.listeners.get(number)
    if listener is None or (running and listener.pid == our_pid):
        return []
    return [
        Problem(
            where,
            f"port {number} is taken by {listener.command} (pid {listener.pid})",
            "stop it, or choose another port",
            id="port-taken",
        )
    ]


def taken(
    f: HostFacts, listeners: Iterable[ports.Listener], unit: UnitState, where: str
) -> list[Problem]:
    """Who else listens on the ports of a worker or a master whose unit is ``unit``."""
    problems: list[Problem] = []
    for one in listeners:
        remedy = f"stop it, or set {one.property} to another port"
        if one.turned_on_by:
            remedy += f", or {one.turned_on_by} to false"
        found = port(f, one.port, unit.pid, unit.active == "active", where)
        problems += [replace(problem, remedy=remedy) for problem in found]
    return problems


def _etcd_out_of_reach(alluxio: AlluxioCluster, f: HostFacts, where: str) -> list[Problem]:
    """A worker needs one of etcd's endpoints; of those that it lacks a member may just be down."""
    wanted = workers_desired.etcd_addresses(alluxio)
    missing = {at: f.unreachable[at] for at in wanted if at in f.unreachable}
    if not missing:
        return []
    shown = ", ".join(
        f"{bracketed(host)}:{number}: {why}" for (host, number), why in missing.items()
    )
    every = len(missing) == len(set(wanted))
    return [
        Problem(
            where,
            f"cannot reach {'any endpoint' if every else 'some endpoints'} of etcd: {shown}",
            "open etcd's client port to the workers' hosts",
            "error" if every else "warning",
            id="listener-unreachable",
        )
    ]


def _masked(unit: str, where: str) -> Problem:
    return Problem(
        where,
        f"{unit} is masked",
        f"systemctl unmask {unit}, if that was not meant",
        id="unit-masked",
    )


def _disk(member: EtcdMember, f: HostFacts, where: str) -> list[Problem]:
    disk = f.disks.get(member.data_dir)
    if disk is None:
        return []
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
    """Where the timer's backups lie, and whether as many as declared fit. Warnings."""
    backup = cluster.backup
    if backup is None or not etcd.backup_dir(cluster, member):
        return []
    disk, data = f.disks.get(backup.dir), f.disks.get(member.data_dir)
    if disk is None or data is None:
        return []
    problems: list[Problem] = []
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
    found = f.paths.get(etcd.database(member))
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


def _unique(facts: Mapping[Machine, HostFacts], key: str, what: str, remedy: str) -> list[Problem]:
    seen: dict[str, Machine] = {}
    problems: list[Problem] = []
    for machine, f in facts.items():
        value = f.values.get(key, "")
        if value and value in seen:
            problems.append(
                Problem(
                    f"{machine.host} ({machine.where})",
                    f"{what} {value} is also that of {seen[value].host}",
                    remedy,
                    id="host-not-unique",
                )
            )
        seen.setdefault(value, machine)
    return problems


def _clocks(facts: Mapping[Machine, HostFacts]) -> list[Problem]:
    if not facts:
        return []
    offsets = {machine: f.clock_offset for machine, f in facts.items()}
    middle = sorted(offsets.values())[len(offsets) // 2]
    problems = [
        Problem(
            f"{machine.host} ({machine.where})",
            f"clock is {offset - middle:+.1f} s off the other hosts'",
            "set up time synchronisation (chrony, systemd-timesyncd)",
            id="clock-skew",
        )
        for machine, offset in offsets.items()
        if abs(offset - middle) > MAX_CLOCK_SKEW
    ]
    if abs(middle) > MAX_CLOCK_SKEW:
        problems.append(
            Problem(
                "this machine",
                f"clock is {-middle:+.1f} s off the hosts'",
                "set up time synchronisation here: certificates and logs get their times from it",
                severity="warning",
                id="clock-skew",
            )
        )
    return problems
