"""Data disks: what must be mounted before a service starts, and how a host can tell.

systemd.unit(5), ``RequiresMountsFor=``: "Automatically adds dependencies of type Requires= and
After= for all mount units required to access the specified path. Mount points marked with noauto
are not mounted automatically through local-fs.target, but are still honored". So it covers every
mount that systemd has a unit for at boot: lines of ``/etc/fstab``, with ``noauto`` and ``nofail``,
too, and mount units. It does not cover a disk that is mounted by hand or by a script, a line that
was taken out of ``/etc/fstab``, and a new, empty file system in the place of the old one.

Those are seen by the marker: a folder of root's on the data disk (:class:`DataDisk`). The unit does
not start without it. A service user does not make it by accident, as it would a plain file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from provision.host.resources import DataDisk

if TYPE_CHECKING:
    from provision.host.facts import HostFacts

#: A key that systemd ignores, as it begins with X-: MOUNTPOINT PATH, as it was at the installation.
NOTE = "X-Alluxio-Provision-Mount"
#: Each begins a line of ours in a unit that counts for the next start alone: no restart is due.
_FOR_NEXT_START = (
    *("#", "RequiresMountsFor=", "ReadWritePaths=", "WorkingDirectory=", "ExecStartPre="),
    f"{NOTE}=",
)
#: Seconds that a start which systemd makes by itself waits for the disk, looking every so many.
WAIT_SECONDS, LOOK_SECONDS = 60, 2


def is_marked(folder: str, facts: HostFacts) -> bool:
    """Whether the marker is in ``folder``. The facts were asked for with :class:`DataDisk`."""
    found = facts.paths.get(DataDisk(folder).marker)
    return found is not None and found.kind == "dir" and found.owner == "root"


def needs_marker(unit: str, folder: str) -> bool:
    """Whether the unit's text (of any version of this tool) wants the marker of ``folder``."""
    return f"d={shlex.quote(DataDisk(folder).marker)};" in unit


def mark(folder: str) -> str:
    """Shell lines that make the marker. ``mkdir`` follows no link that a service user may have
    put there."""
    path = shlex.quote(DataDisk(folder).marker)
    return f"[ -d {path} ] && [ ! -L {path} ] || mkdir -m 755 {path}"


def check(folder: str, what: str, remedy: str, *, wait: bool = False) -> str:
    """The command of an ``ExecStartPre=+`` that ends with 1, and says why, without the marker.

    ``what`` is missing then. With ``wait``, a start that systemd makes by itself (it has
    NRestarts) looks for a minute before it ends, so the log has a line a minute and a disk that
    comes late is found at once.
    """
    marker = shlex.quote(DataDisk(folder).marker)
    there = '[ -d "$d" ] && [ ! -L "$d" ] && [ "$(stat -c %u "$d")" = 0 ]'
    said = f"the data disk is not mounted, or lost its data: {what} ($d); {remedy}"
    script = f'd={marker}; ok() {{ {there}; }}; ok && exit; echo "{said}" >&2; '
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
    """Whether a unit's new text differs from the ``old`` one only in what a running service need
    not be restarted for."""
    if old is None:
        return False

    def rest(text: str) -> list[str]:
        # A command of several lines is one.
        lines = text.replace("\\\n", "").splitlines()
        return [line for line in lines if line and not line.startswith(_FOR_NEXT_START)]

    return rest(old) == rest(new.decode())


def noted(unit: str | None) -> dict[str, str]:
    """By path, the mount points that a unit's text notes."""
    found = re.findall(rf"^{NOTE}=(/\S*) (/\S*)$", unit or "", re.MULTILINE)
    return {path: mount for mount, path in found}


def notes(unit: str | None, facts: HostFacts | None, paths: Iterable[str]) -> Mapping[str, str]:
    """By path, the mount points to note in the unit whose text is ``unit`` now.

    One that was noted stays while its file system is not mounted; only ``/`` is not noted, for it
    cannot be missing.
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
    """By path, the mount points that the unit's text notes and that are not mounted now."""
    before = noted(unit)
    return {
        path: before[path]
        for path in paths
        if path in before
        and (now := mount(path, facts)) not in ("", before[path])
        and not is_above(before[path], now)
    }


def mount(path: str, facts: HostFacts | None) -> str:
    """The mount point of the file system that ``path`` is on, or will be; empty if not known."""
    disk = facts.disks.get(path) if facts is not None else None
    return disk.mount if disk is not None else ""


def is_above(one: str, other: str) -> bool:
    """Whether the folder ``one`` is ``other`` or lies above it."""
    return other == one or other.startswith(f"{one.rstrip('/')}/")
