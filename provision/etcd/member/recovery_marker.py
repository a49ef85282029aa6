"""The mark of an unfinished change to the data of all members.

The mark is a file on each host, in the data directory, and so on the disk with the data. While it
is there, etcd is disabled on that host: after a reboot in the middle, a member with the old data
must not meet a member with the new data.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from provision.dataclass import dataclass
from provision.errors import Problem
from provision.etcd.member import layout
from provision.host import disks, safely, unit_changes
from provision.host.diff import Change
from provision.host.facts import HostFacts
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine

#: Seconds for the start of a member, on each host.
START_SECONDS = 60
#: Seconds between the starts of two members. etcd reads a small database and looks at its peers
#: within a fraction of one; one that takes longer waits for its peers as without turns.
TURN_SECONDS = 1


@dataclass(frozen=True, slots=True)
class RecoveryMarker:
    """``command`` is restore, undo or recover, ``id`` the UTC time of its first run; an undo has
    the id of the restore that it undoes. ``key`` is a digest of everything that must be the same in
    a run that continues the change."""

    command: str
    id: str
    key: str

    @property
    def title(self) -> str:
        return {"recover": "a recovery", "undo": "an undo of a restore"}.get(
            self.command, f"a {self.command}"
        )

    def __str__(self) -> str:
        return f"{self.command} {self.id} {self.key}"


def path(member: EtcdMember) -> str:
    return layout.unfinished(member)


def problems(cluster: EtcdCluster, facts: Mapping[Machine, HostFacts]) -> list[Problem]:
    """The problems that forbid other commands to touch the members now."""
    return [
        Problem(
            m.place,
            f"a restore or a recovery is not finished ({path(m)} says which of the two)",
            "run the same restore-etcd or recover-etcd again; it continues; restore-etcd "
            "--undo goes back from a restore",
            id="recovery-unfinished",
        )
        for m in cluster.members
        if m.machine in facts and path(m) in facts[m.machine].paths
    ]


def read(member: EtcdMember, facts: HostFacts) -> RecoveryMarker | None:
    """The mark on a host. The facts come from a probe with ``File(path(member), None)``."""
    match = re.fullmatch(
        r"(restore|recover|undo) (\d{8}T\d{6}Z) ([0-9a-f]{64})\s*", facts.text(path(member)) or ""
    )
    return RecoveryMarker(*match.groups()) if match else None


def newest(
    members: Mapping[str, EtcdMember], facts: Mapping[Machine, HostFacts]
) -> RecoveryMarker | None:
    """Of all marks on the members' hosts, the mark of the command that began last."""
    found = [read(m, facts[m.machine]) for m in members.values() if m.machine in facts]
    # An undo begins after the restore that it undoes.
    return max(
        (m for m in found if m is not None), key=lambda m: (m.id, m.command == "undo"), default=None
    )


def stop(member: EtcdMember, mark: RecoveryMarker, user: str) -> Change:
    """Mark the host, then stop etcd and keep it stopped. The mark is on the disk before etcd
    stops."""
    where = f"./{path(member).rpartition('/')[2]}"
    write = f"echo {mark} >{where}.new && mv -fT {where}.new {where} && sync -f {where}"
    written = safely.as_user(user, f"sh -c {shlex.quote(write)}")
    return Change(
        f"stop and disable {layout.UNIT} until the {mark.command} of {mark.id} is done",
        # The folder is etcd's: root opens nothing in it by name.
        safely.in_folder(member.data_dir, written)
        + "\n"
        # A leader would wait to hand on its leadership, but the other members stop, too.
        + unit_changes.kill(layout.UNIT),
        disrupts=True,
        seconds=120,
        stops=(layout.UNIT,),
    )


def start(member: EtcdMember, turn: int = 0) -> Change:
    """Start etcd and enable it again; the mark stays until all is verified.

    ``turn`` counts from 0, and each start begins :data:`TURN_SECONDS` after the one before it. A
    member with data asks every peer for its hash before it answers peers itself, and waits 7 s for
    one that listens and does not answer yet (etcd's ``InitialCheck``). Members that start at the
    same moment wait for each other so, up to 7 s for each peer, and compare nothing. The first of
    several finds no peer; each of the others compares itself with those before it.

    The disk that now has the data counts as the data disk, even if it is a new disk. A member that
    waits for others goes on starting after :data:`START_SECONDS`; the gate waits for it. Without
    this limit, a run that was killed while it started the members would block the hosts until the
    unit's own limit (15 minutes).
    """
    unit = layout.UNIT
    waits = f'[ $? = 124 ] && [ "$(systemctl show -p ActiveState --value {unit})" = activating ]'
    return Change(
        f"start and enable {unit}",
        (f"sleep {turn * TURN_SECONDS}\n" if turn else "") + f"{disks.mark(member.data_dir)}\n"
        f"systemctl enable -q {unit}\n"
        f"timeout {START_SECONDS} systemctl start {unit} || {{ {waits}; }} || {{\n"
        f"  journalctl -u {unit} -n 12 --no-pager -o cat >&2; exit 1\n"
        f"}}",
        disrupts=True,
        seconds=120,
        starts=(unit,),
    )


def clear(member: EtcdMember, *more: str) -> Change:
    """Remove the mark, and ``more`` files and folders that were needed only together with it."""
    paths = " ".join(map(shlex.quote, (*more, path(member))))
    return Change("remove the mark of the unfinished restore or recovery", f"gone {paths}")
