"""``kept-data``: the data that removals, restores and recoveries have kept aside, and its deletion.

The data is in each member's data directory, beside the data in use. Its name shows the reason and
the time. Only ``--delete`` with that name, and ``destroy``, remove it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from datetime import datetime, timezone
from typing import TypedDict

from provision.dataclass import dataclass
from provision.engine.plan import HostChanges, Plan, Step
from provision.errors import PreflightFailed, Problem, UsageError
from provision.etcd.member import layout, recovery_marker
from provision.etcd.member.backups import STAMP
from provision.host import gather, listing
from provision.host.diff import Change
from provision.host.facts import HostFacts, Probe
from provision.host.ownership import owner
from provision.host.resources import File
from provision.inventory.resolved import EtcdMember, Inventory, Machine
from provision.ssh.session import Fleet
from provision.text import number, size

_NAME = re.compile(
    r"(?:member\.(removed|before-restore|before-recover|before-undo)|(restoring))"
    r"-([0-9]{8}T[0-9]{6}Z)"
)
#: An uploaded snapshot; a killed upload has a suffix.
_UPLOAD = re.compile(r"restore-[0-9a-f]{16}\.db(\.[0-9A-Za-z]{6})?")
_SHOWN = {
    "removed": "removal",
    "before-restore": "restore",
    "before-recover": "recovery",
    "before-undo": "undone restore",
    "restoring": "killed restore",
}
_LABEL = "kept"
#: The last second that a time can have (the year 9999).
_LAST = 253402300799


class RetainedDocument(TypedDict):
    """A folder of former data on a member's host."""

    member: str
    host: str
    path: str
    why: str
    when: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Retained:
    """One folder of a member's former data, kept since ``when`` (UTC); ``bytes`` on the disk. Or a
    folder or file that a killed restore has left."""

    member: EtcdMember
    name: str
    when: datetime
    bytes: int

    @property
    def path(self) -> str:
        return f"{self.member.data_dir}/{self.name}"

    @property
    def why(self) -> str:
        """Why it was kept aside, or which command has left it there."""
        found = _NAME.fullmatch(self.name)
        return _SHOWN[found[1] or found[2]] if found else _SHOWN["restoring"]

    def document(self) -> RetainedDocument:
        return {
            "member": self.member.name,
            "host": self.member.machine.host,
            "path": self.path,
            "why": self.why,
            "when": self.when.isoformat(),
            "bytes": self.bytes,
        }


@dataclass(frozen=True, slots=True)
class RetainedState:
    """The kept folders, oldest first, and the members with an unfinished restore or recovery."""

    kept: tuple[Retained, ...]
    unfinished: tuple[EtcdMember, ...]


def observe(inventory: Inventory, fleet: Fleet, members: Sequence[EtcdMember]) -> RetainedState:
    """Look on the hosts of ``members``. Raises :class:`PreflightFailed` unless all answer."""
    facts = gather.require_facts(fleet, {m.machine: _probe(m) for m in members})
    found: list[Retained] = []
    for m in members:
        if owner(facts[m.machine], layout.UNIT_PATH) in (None, inventory.cluster):
            found += read(m, facts[m.machine])
    marked = (m for m in members if recovery_marker.path(m) in facts[m.machine].paths)
    return RetainedState(tuple(sorted(found, key=lambda k: (k.when, k.member.name))), tuple(marked))


def plan(inventory: Inventory, observed: RetainedState, delete: Collection[str]) -> Plan:
    """Delete the folders with these names, on every host that has one.

    Raises :class:`UsageError` for an unknown name. Raises :class:`PreflightFailed` while a restore
    or a recovery is unfinished, because it may need its folders.
    """
    known = {k.name for k in observed.kept}
    if unknown := sorted(set(delete) - known):
        there = f"there are {', '.join(sorted(known))}" if known else "nothing is kept"
        raise UsageError(f"no data is kept as {', '.join(unknown)}: {there}", id="name-unknown")
    if delete and observed.unfinished:
        problems = [
            Problem(
                m.place,
                "has an unfinished restore or recovery",
                id="recovery-unfinished",
            )
            for m in observed.unfinished
        ]
        raise PreflightFailed(
            "finish it first with its own command",
            problems,
            id="recovery-unfinished",
        )
    todo: dict[tuple[str, Machine], list[Change]] = {}
    for k in observed.kept:
        if k.name in delete:
            change = Change(
                f"DELETE {k.path} ({size(k.bytes)})",
                f"gone {shlex.quote(k.path)}",
                seconds=600,
            )
            todo.setdefault((k.member.name, k.member.machine), []).append(change)
    hosts = tuple(HostChanges(*where, tuple(changes)) for where, changes in todo.items())
    steps = (Step("delete data that was kept aside", hosts),) if hosts else ()
    return Plan("kept-data", inventory.cluster, steps)


def sizes(member: EtcdMember) -> str:
    """The command that lists the kept folders and the uploads that a restore has left; its label is
    ``kept NAME``. The two lists are one line each."""
    folders = listing.sizes(member.data_dir, "member.*", "restoring-*")
    return f"{folders}; echo; {listing.files(member.data_dir, 'restore-*.db*')}"


def _probe(member: EtcdMember) -> Probe:
    return Probe(
        resources=(File(layout.UNIT_PATH, None),),
        paths=(recovery_marker.path(member),),
        commands={f"{_LABEL} {member.name}": sizes(member)},
    )


def read(member: EtcdMember, facts: HostFacts) -> list[Retained]:
    """The folders in a host's answer to :func:`sizes`."""
    folders, _, uploads = facts.commands.get(f"{_LABEL} {member.name}", "").partition("\n")
    found = []
    for record in listing.records(folders):
        count, _, path = record.partition("\t")
        name = path.rpartition("/")[2]
        found.append((name, number(count), _since(name)))
    for record in listing.records(uploads):
        count, seconds, name = record.split("\t", 2)
        found.append((name, number(count), _uploaded(name, seconds.partition(".")[0])))
    return [
        Retained(member, name, when, blocks << 10)
        for name, blocks, when in found
        if blocks is not None and when is not None
    ]


def _since(name: str) -> datetime | None:
    """When a folder of this name was kept aside; None when this tool did not make the folder."""
    if (match := _NAME.fullmatch(name)) is None:
        return None
    try:
        return datetime.strptime(match.group(3), STAMP).replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def _uploaded(name: str, seconds: str) -> datetime | None:
    """When a snapshot of this name was sent to the host; None for another file."""
    time = number(seconds)
    if _UPLOAD.fullmatch(name) is None or time is None or time > _LAST:
        return None
    return datetime.fromtimestamp(time, timezone.utc)
