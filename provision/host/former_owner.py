"""The owner of a folder before this tool took it, noted on the host and given back by ``destroy``.

A folder can be there before the tool: a mount point, or one that the operator made. The first
change of its owner or mode notes what they were. An empty note says that the tool made the folder:
only such a folder is removed, when it is empty. A folder that was there and was right has no note.
(On a host that an earlier version changed first, a folder without a note may be the tool's: that
version noted nothing.) A folder that was given back has a third line in its note: a run that was
killed may come again. Notes are root's, on the disk: they must survive a boot.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence

from provision.host.diff import Change
from provision.host.facts import HostFacts
from provision.host.ownership import KEY
from provision.host.tool_version import ALL_NOTED, FOLDER

NOTES = f"{FOLDER}/former-owner"
_GIVEN = "given back"
#: What the first line of a note is: user and group by number, and the mode.
_NOTED = re.compile(r"([0-9]{1,10}) ([0-9]{1,10}) ([0-7]{1,4})\n(/[^\n]*)\n")


def note_path(path: str) -> str:
    """The file with the note about the folder ``path``. A path can be longer than a name."""
    return f"{NOTES}/{hashlib.sha256(path.encode()).hexdigest()[:32]}"


def made(path: str) -> str:
    """Shell lines that note that the tool makes the folder ``path``."""
    return f"(umask 077; [ -d {NOTES} ] || mkdir -p {NOTES}; : >{note_path(path)})"


def made_if_missing(path: str) -> str:
    """A shell line before a script that makes the folder ``path`` where there is none."""
    folder = shlex.quote(path)
    return f"[ -e {folder} ] || [ -L {folder} ] || {made(path)}"


def is_made(path: str) -> str:
    """A shell condition: a note says that the tool made the folder ``path``."""
    note = note_path(path)
    return f"[ -e {note} ] && [ ! -s {note} ]"


def note(path: str) -> str:
    """Shell lines, after :data:`safely.FUNCTIONS`, that note owner and mode of the folder ``path``,
    unless there is a note, of a folder that was not given back since."""
    file, folder = note_path(path), shlex.quote(path)
    return (
        f"[ -e {file} ] && ! grep -qsx '{_GIVEN}' {file} || "
        f"(umask 077; mkdir -p {NOTES}; walk {folder} || exit\n"
        f"{{ stat -c '%u %g %a' .; pwd -P; }} >{file}.new; mv -f {file}.new {file})"
    )


def removed(path: str) -> str:
    """A shell command, after :data:`safely.FUNCTIONS`, that removes the folder ``path`` if it is
    empty, and then its note. A folder that was there before this tool stays."""
    note = note_path(path)
    return (
        f"[ -s {note} ] || {{ [ ! -e {note} ] && [ -e {ALL_NOTED} ]; }} || "
        f"{{ empty {shlex.quote(path)} && rm -f {note}; }} || :"
    )


def give_back(
    paths: Iterable[str], facts: HostFacts, units: Sequence[str] = ()
) -> tuple[Change, ...]:
    """The changes that give each of ``paths`` back to the owner that was noted.

    The facts have the notes (:func:`note_path`) with their content. A folder that one of the unit
    files ``units`` names is still in use then, and stays as it is.
    """
    found = []
    for path in sorted(dict.fromkeys(paths)):  # a folder before the folders in it
        match = _NOTED.fullmatch(facts.text(note_path(path)) or "")
        if match is None:
            continue
        user, group, mode, real = match.groups()
        named = re.sub(r"([.+])", r"\\\1", path)
        pattern = shlex.quote(f"[ =-]{named}( |$)")
        used = f"grep -qsE {pattern} {' '.join(units)} || " if units else ""
        # No name is used twice: a user of the folder above could swap the folder meanwhile.
        script = (
            f"{used}[ ! -d {shlex.quote(path)} ] || (\n"
            f'walk {shlex.quote(path)} 2>/dev/null && [ "$(pwd -P)" = {shlex.quote(real)} ] || '
            "exit 0\n"
            f"chown {user}:{group} .; chmod ug-s .; chmod {mode} .\n"
            f"echo '{_GIVEN}' >>{note_path(path)})"
        )
        what = f"give {path} back to the owner before: {user}:{group} {mode}, if it is still there"
        found.append(Change(what, script))
    return tuple(found)


def give_back_rest(units: Iterable[str]) -> str:
    """Shell lines, after :data:`safely.FUNCTIONS`, for a host that this tool leaves: each folder
    with a note that is left gets its owner back. Unless one of the unit files ``units`` is there
    and is from this tool.

    An inventory may have named another folder before: only the note knows of it.
    """
    return f"""\
if ! grep -qs '^{KEY}=' {" ".join(units)}; then
for note in {NOTES}/*; do
( [ -s "$note" ] && ! grep -qsx '{_GIVEN}' "$note" || exit 0
{{ read -r user group mode; IFS= read -r real; }} <"$note" || exit 0
case $user$group$mode in *[!0-9]*) exit 0;; esac
walk "$real" 2>/dev/null && [ "$(pwd -P)" = "$real" ] || exit 0
chown "$user:$group" .; chmod ug-s .; chmod "$mode" . )
done
fi"""
