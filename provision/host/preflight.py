"""Preflight: all failures that can be found before anything changes, for all hosts together.

Hosts without facts are skipped: they could not be asked, and this is reported as a problem already.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from provision.artifacts import Artifact
from provision.dataclass import dataclass
from provision.errors import PreflightFailed, Problem, Severity
from provision.host import disks, dropins
from provision.host.facts import HostFacts, Probe
from provision.host.ownership import owner
from provision.host.resources import Directory, File, User
from provision.inventory.resolved import (
    Machine,
)
from provision.text import number, size, verb

#: The architecture in etcd's release names, by ``uname -m``: a tarball can be for these machines.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
#: When clocks differ by more seconds than this, the times of leases and certificates are wrong.
MAX_CLOCK_SKEW = 1.0
#: The units need the group @system-service of system calls: systemd has it from this release on
#: (its pull request 8766). What is newer in them (ProtectClock= and others), an older systemd
#: ignores with a warning (systemd.unit(5)): ``tests/unit/test_systemd_releases.py``.
MIN_SYSTEMD = 239


@dataclass(frozen=True, slots=True)
class SpaceRequirement:
    """Bytes that must be free at ``path``, and their purpose."""

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
        raise PreflightFailed("preflight failed", problems, id="preflight-failed")
    return tuple(problems)


def hosts(
    facts: Mapping[Machine, HostFacts], rooms: Mapping[Machine, Sequence[SpaceRequirement]]
) -> list[Problem]:
    """The problems of the hosts themselves, for any role."""
    problems: list[Problem] = []
    for machine, f in facts.items():
        where = machine.place
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
            for unit, path in dropins.overrides(f.commands)
        ]
    problems += _unique(facts, "machine_id", "machine-id", "clones: make a new one on each host")
    problems += _unique(facts, "hostname", "hostname", "give each host a name of its own")
    problems += _clocks(facts)
    return problems


def paths(facts: Mapping[Machine, HostFacts], probes: Mapping[Machine, Probe]) -> list[Problem]:
    """Paths of other kinds in the place of a directory, a file or a link that must be made."""
    problems: list[Problem] = []
    for machine, f in facts.items():
        where = machine.place
        for resource in probes[machine].resources:
            place = resource.place()
            found = f.paths.get(place.path) if place else None
            if place and found and found.kind not in place.kinds:
                what = f"{place.path} is a {found.kind}, not {place.noun}"
                given = found.kind == "link" and "dir" in place.kinds
                remedy = "give the path it points to" if given else "move it away"
                problems.append(Problem(where, what, remedy, id="path-in-the-way"))
        problems += _ways(f, probes[machine], where)
    return problems


def unwritable(
    facts: Mapping[Machine, HostFacts], probes: Mapping[Machine, Probe]
) -> list[Problem]:
    """Folders in which root cannot write, and where something must be made or changed."""
    problems = []
    for machine, f in facts.items():
        for folder in sorted(f.unwritable):
            if not any(
                (place := resource.place()) is not None
                and disks.is_above(folder, place.path)
                and resource.after(f) is not f
                for resource in probes[machine].resources
            ):
                continue
            what = f"root cannot write in {folder}, and it is to be made or changed"
            remedy = (
                "mount it to be written; on a network file system, make the folder on its server, "
                "with the owner and the mode that the plan shows; or choose another path"
            )
            problems.append(Problem(machine.place, what, remedy, id="folder-unwritable"))
    return problems


def _ways(f: HostFacts, probe: Probe, where: str) -> list[Problem]:
    """Folders on the way to what root writes, in which others can change names: root would be led
    elsewhere. It is an error when a service's user can."""
    services = {
        int(fields[2]): fields[0]
        for resource in probe.resources
        if isinstance(resource, User)
        and (fields := f.users.get(resource.name, "").split(":"))[2:]
        and fields[2].isdigit()
    }
    # What an earlier version gave to a service, and the same run gives back to root.
    given = {r.path for r in probe.resources if isinstance(r, Directory) and r.owner == "root"}
    found: dict[str, str] = {}
    for resource in probe.resources:
        place = resource.place()
        if place is None or isinstance(resource, Directory):
            continue
        if isinstance(resource, File) and resource.content is None:
            continue
        for folder, way in f.ways.items():
            inside = place.path.startswith(f"{folder.rstrip('/')}/")
            if inside and not way.is_roots and folder not in given:
                found.setdefault(folder, place.path)
    problems = []
    for folder, path in found.items():
        way = f.ways[folder]
        who = f"user {services.get(way.uid, way.uid)}" if way.uid else "everybody"
        severity: Severity = "error" if not way.uid or way.uid in services else "warning"
        what = f"{who} can change names in {folder}, and root writes below it: {path}"
        remedy = f"give it to root (chown root: {folder}), or choose another path"
        problems.append(Problem(where, what, remedy, severity, id="folder-not-roots"))
    return problems


def architectures(
    facts: Mapping[Machine, HostFacts], tarballs: Iterable[Artifact | None]
) -> list[Problem]:
    """Tarballs with a name for another CPU than a host's."""
    built_for = {t.path.name: a for t in tarballs if t and (a := _architecture(t.path.name))}
    return [
        Problem(
            machine.place,
            f"{name} is for {arch}, this CPU is {f.values.get('arch')}",
            "give the release for this CPU; hosts with different CPUs need one inventory for "
            "each CPU",
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


def _room(f: HostFacts, rooms: Sequence[SpaceRequirement], where: str) -> list[Problem]:
    """The problems of disk space. Requirements on the same file system are added up."""
    by_disk: dict[tuple[str, int, int], list[SpaceRequirement]] = {}
    for room in rooms:
        if disk := f.disks.get(room.path):
            by_disk.setdefault((disk.device, disk.total, disk.available), []).append(room)
    unknown = list(dict.fromkeys(room.path for room in rooms if room.path not in f.disks))
    problems = [disks.unmeasured(where, unknown)] if unknown else []
    for (device, _, available), some in by_disk.items():
        if available >= sum(r.needed for r in some):
            continue
        paths = list(dict.fromkeys(r.path for r in some))
        what = f"{', '.join(paths)} {verb(paths, 'has', 'have')} {size(available)} free on {device}"
        needs = " and ".join(f"{r.why} needs {size(r.needed)}" for r in some)
        remedy = "free space, or choose another directory"
        problems.append(Problem(where, f"{what}, {needs}", remedy, id="disk-full"))
    return problems


def ours(f: HostFacts, name: str, path: str, cluster: str, role: str, where: str) -> list[Problem]:
    """The problems that keep ``cluster`` from using the unit ``name`` at ``path``."""
    unit, owned_by = f.unit(name), owner(f, path)
    problems = [masked(name, where)] if unit.load == "masked" else []
    if owned_by not in (None, cluster):
        what = f"already a {role} of cluster {owned_by}"
        remedy = clean_host(where)
        problems.append(Problem(where, what, remedy, id="another-clusters-host"))
    elif owned_by is None and unit.load == "loaded":
        what = f"{name} exists, but this tool did not install it ({unit.fragment})"
        problems.append(
            Problem(where, what, "remove it, or choose another host", id="foreign-installation")
        )
    return problems


def clean_host(where: str) -> str:
    """The remedy for another cluster's unit on the host of ``where``. ``where`` begins with a
    name."""
    return f"if this host does not need it: invoke clean-host {where.partition(' ')[0]}"


def port(f: HostFacts, number: int, unit: str, ours: bool, where: str) -> list[Problem]:
    """Other processes that listen on a port. A process of the service ``unit`` does not count when
    the service is ``ours``.

    The main process that systemd named may have ended since: a service that crashes again and again
    has another one by the time of the look at the ports.
    """
    listener = f.listeners.get(number)
    if listener is None:
        return []
    state = f.unit(unit)
    if ours and (listener.unit == unit or (listener.pid and listener.pid == state.pid)):
        return []
    by, remedy = f"{listener.command} (pid {listener.pid})", "stop it, or choose another port"
    if not listener.pid:
        # Its processes are not seen here (another container's, say), or it ended in a moment.
        by = "a process that cannot be seen there"
        if ours and state.load == "loaded" and state.active != "inactive":
            by += f": it may be {unit} itself, which is {state.active} ({state.sub})"
            remedy = f"run again; if it stays so, its log says why it ends: journalctl -u {unit}"
    return [Problem(where, f"port {number} is taken by {by}", remedy, id="port-taken")]


def masked(unit: str, where: str) -> Problem:
    """The error for a unit that is masked."""
    return Problem(
        where,
        f"{unit} is masked",
        f"systemctl unmask {unit}, if nobody masked it on purpose",
        id="unit-masked",
    )


def _unique(facts: Mapping[Machine, HostFacts], key: str, what: str, remedy: str) -> list[Problem]:
    seen: dict[str, Machine] = {}
    problems: list[Problem] = []
    for machine, f in facts.items():
        value = f.values.get(key, "")
        if value and value in seen:
            first = seen[value]
            name = first.place if first.host == machine.host else first.host
            problems.append(
                Problem(
                    machine.place,
                    f"{name} has the same {what}: {value}",
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
            machine.place,
            f"clock differs from the other hosts' clocks by {offset - middle:+.1f} s",
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
                f"clock differs from the hosts' clocks by {-middle:+.1f} s",
                "set up time synchronisation here: certificates and logs get their times from it",
                severity="warning",
                id="clock-skew",
            )
        )
    return problems
