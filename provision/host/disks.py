"""Data disks: the mounts that a service needs before its start, and how a host checks them.

systemd.unit(5), ``RequiresMountsFor=``: "Automatically adds dependencies of type Requires= and
After= for all mount units required to access the specified path. Mount points marked with noauto
are not mounted automatically through local-fs.target, but are still honored". So it covers every
mount for which systemd has a unit at boot: lines of ``/etc/fstab``, also with ``noauto`` and
``nofail``, and mount units. It does not cover a disk that is mounted by hand or by a script, a line
that was removed from ``/etc/fstab``, and a new, empty file system in the place of the old one.

The marker covers these cases: a folder on the data disk, owned by root
(:class:`provision.host.kinds.files.DataDisk`). The unit does not start without it. A service user
could make a plain file by accident, but not this folder.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from provision.errors import Problem, Severity
from provision.host import safely

if TYPE_CHECKING:
    from provision.host.facts import HostFacts

#: A key that systemd ignores, because it begins with X-. Its value is MOUNTPOINT PATH, as it was at
#: the installation.
NOTE = "X-Alluxio-Provision-Mount"
#: Each begins a line of this tool in a unit that matters only at the next start: no restart is due.
_FOR_NEXT_START = (
    *("#", "RequiresMountsFor=", "ReadWritePaths=", "WorkingDirectory=", "ExecStartPre="),
    *("UnsetEnvironment=", "LogsDirectory=", "LogsDirectoryMode=", f"{NOTE}="),
)
#: When systemd starts a unit by itself: the seconds that the start waits for the disk, and the
#: seconds between two looks.
WAIT_SECONDS, LOOK_SECONDS = 60, 2
#: The name of the marker.
MARKER = "data-disk"


def marker(folder: str) -> str:
    """The path of the marker in a folder of a service's data."""
    return f"{folder}/{MARKER}"


def is_marked(folder: str, facts: HostFacts) -> bool:
    """Whether the marker is in ``folder``. The facts come from a probe with :class:`DataDisk`."""
    found = facts.paths.get(marker(folder))
    return found is not None and found.kind == "dir" and found.owner == "root"


def mark(folder: str) -> str:
    """Shell lines that make the marker, after :data:`safely.FUNCTIONS`. ``mkdir`` does not follow a
    link that a service user may have put there."""
    path = f"./{MARKER}"
    return safely.in_folder(folder, f"[ -d {path} ] && [ ! -L {path} ] || mkdir -m 755 {path}")


def check(folder: str, what: str, remedy: str, *, wait: bool = False) -> str:
    """The command of an ``ExecStartPre=+``. Without the marker it prints the reason and exits with
    1.

    The reason says that ``what`` is missing. With ``wait``, a start that systemd makes by itself
    (it has NRestarts) looks for a minute before it exits. So the log gets one line a minute, and a
    disk that comes late is found at once.
    """
    there = '[ -d "$d" ] && [ ! -L "$d" ] && [ "$(stat -c %u "$d")" = 0 ]'
    said = f"the data disk is not mounted, or lost its data: {what} ($d); {remedy}"
    path = shlex.quote(marker(folder))
    script = f'd={path}; ok() {{ {there}; }}; ok && exit; echo "{said}" >&2; '
    if wait:
        script += (
            'n="$(systemctl show -p NRestarts %n)"; [ "${n#*=}" != 0 ] || exit 1; '
            f"i=0; while [ $i -lt {WAIT_SECONDS // LOOK_SECONDS} ]; do "
            f"i=$((i + 1)); sleep {LOOK_SECONDS}; ok && exit; done; "
        )
    script += "exit 1"
    if "'" in script:
        raise ValueError(f"an apostrophe would end the command: {script}")
    # %n is systemd's own.
    escaped = script.replace("$", "$$").replace("%u", "%%u")
    return f"/bin/sh -c '{escaped}'"


def is_for_next_start(old: str | None, new: bytes) -> bool:
    """Whether a unit's new text differs from the ``old`` text only in lines that need no restart of
    a running service."""
    text = new.decode()
    if old is None or old == text:
        return old is not None

    def rest(text: str) -> list[str]:
        # A command that spans several lines counts as one line.
        lines = text.replace("\\\n", "").splitlines()
        return [line for line in lines if line and not line.startswith(_FOR_NEXT_START)]

    return rest(old) == rest(text)


def noted(unit: str | None) -> dict[str, str]:
    """The mount points noted in a unit's text, by path."""
    if not unit or NOTE not in unit:  # most have none, and hundreds of units are looked at
        return {}
    found = re.findall(rf"^{NOTE}=(/\S*) (/\S*)$", unit, re.MULTILINE)
    return {path: mount for mount, path in found}


def notes(unit: str | None, facts: HostFacts | None, paths: Iterable[str]) -> Mapping[str, str]:
    """The mount points to note in a unit with the present text ``unit``, by path.

    A noted mount point stays while its file system is not mounted. Only ``/`` is not noted, because
    it cannot be missing.
    """
    before = noted(unit)
    result: dict[str, str] = {}
    for path in paths:
        now = mount(path, facts)
        old = before.get(path, "")
        if old and not is_above(old, now):
            now = old
        if now not in ("", "/"):
            result[path] = now
    return result


def missing(unit: str | None, facts: HostFacts, paths: Iterable[str]) -> dict[str, str]:
    """The mount points noted in the unit's text that are not mounted now, by path."""
    before = noted(unit)
    return {
        path: before[path]
        for path in paths
        if path in before
        and (now := mount(path, facts)) not in ("", before[path])
        and not is_above(before[path], now)
    }


def away(unit: str | None, facts: HostFacts, folder: str) -> str:
    """The mount point of ``folder``'s disk, when nothing is mounted there now; else empty.

    The unit's text ``unit`` has the note of the mount point. Files that are written meanwhile are
    below the mount point: the old files come back with the old disk.
    """
    return missing(unit, facts, [folder]).get(folder, "")


def is_missing(unit: str | None, facts: HostFacts, folder: str, *, was: bool) -> bool:
    """Whether the folder's disk is away or lost its data: the marker is missing, and was there.

    ``was``: other facts show that the service had its data here. Without them, the note of a mount
    point that is away shows it. The caller knows the service's own data, which count, too.
    """
    return (was or bool(away(unit, facts, folder))) and not is_marked(folder, facts)


def what_is_away(mount: str) -> str:
    """The problem of a disk that :func:`away` misses at ``mount``."""
    return f"its data disk is not mounted: nothing is at {mount}"


def what_is_missing(folder: str, lost: str) -> str:
    """The problem of a disk for which :func:`is_missing` holds, or which ``lost`` something."""
    return f"its data disk is not mounted, or {lost}: there is no {marker(folder)}"


def mount(path: str, facts: HostFacts | None) -> str:
    """The mount point of the file system that ``path`` is on, or will be; empty if not known."""
    disk = facts.disks.get(path) if facts is not None else None
    return disk.mount if disk is not None else ""


def unmeasured(where: str, paths: Sequence[str], severity: Severity = "error") -> Problem:
    """The problem of folders whose free space the host's df does not say: a file system whose
    server is away, say. Whoever is to write something there that might not fit refuses."""
    what = f"{', '.join(paths)}: df does not say how much is free there"
    remedy = f"see what it says on that host: df -P {shlex.join(paths)}"
    return Problem(where, what, remedy, severity, id="disk-unmeasured")


def is_above(one: str, other: str) -> bool:
    """Whether the folder ``one`` is ``other`` or contains it."""
    return other == one or other.startswith(f"{one.rstrip('/')}/")
