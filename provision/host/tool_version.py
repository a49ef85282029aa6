"""The version of this tool that last changed a host: a file on the host, owned by root.

A newer version may leave files that an older version misreads. So an older version changes nothing
on such a host, nor on the others of its run. The file says nothing about what is installed, so it
is no change of its own: only scripts that change the host anyway write it. It is on the disk, not
below /run, because it must survive a boot.

Versions are compared by their release numbers: 0.2.0rc1 counts as 0.2.0. The facts script
(``facts.sh``) reads the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from provision import __version__
from provision.errors import PreflightFailed, Problem, Severity
from provision.host.ownership import KEY
from provision.text import printable

if TYPE_CHECKING:
    from provision.host.facts import HostFacts
    from provision.inventory.resolved import Machine

FOLDER = "/var/lib/alluxio-provision"
FILE = f"{FOLDER}/tool-version"
#: Where units of this tool may be.
UNITS = "/etc/systemd/system/*.service"
#: The file's content among the values of a host's facts. It is absent without content.
FACT = "tool"
#: Is there when this tool has noted every folder that it made on the host. Earlier versions noted
#: none, so where one of them was first, the file is missing.
ALL_NOTED = f"{FOLDER}/former-owner/all"
#: A line names so many hosts.
NAMED = 30
#: Release numbers and, after them, a suffix as in Python's versions: 0.2.0, 1.0.0rc1, 1.0.0.dev3.
_VERSION = re.compile(
    r"([0-9]{1,6}(?:\.[0-9]{1,6}){0,3})(?:[.-]?[a-z][a-z0-9.]{0,20})?(?:\+[a-z0-9.]{1,20})?"
)

Release = tuple[int, ...]


def release(version: str) -> Release | None:
    """The release numbers of ``version``, without zeros at the end; None when it is no version."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return None
    numbers = [int(part) for part in match[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def note() -> str:
    """Shell lines that write this tool's version into the file, when it is not there already. The
    first change of a host makes :data:`ALL_NOTED`, too.

    When the file cannot be written, the script goes on: on a full disk, ``destroy`` and
    ``kept-data --delete`` must still be able to delete.
    """
    return (
        f"[ -e {FILE} ] || grep -qs '^{KEY}=' {UNITS} || "
        f"(umask 022; mkdir -p {FOLDER}; umask 077; mkdir -p {FOLDER}/former-owner && "
        f": >{ALL_NOTED}) 2>/dev/null || :\n"
        f"tool_version=; [ ! -f {FILE} ] || {{ read -r tool_version <{FILE}; }} 2>/dev/null || :\n"
        f'[ "$tool_version" = {__version__} ] || (umask 022; mkdir -p {FOLDER} && '
        f"echo {__version__} >{FILE}.new && mv -fT {FILE}.new {FILE}) 2>/dev/null || :"
    )


def forget(units: Iterable[str]) -> str:
    """Shell lines that remove the file and its folder, with the notes about folders
    (:mod:`provision.host.former_owner`), unless one of the unit files ``units`` is
    there and is from this tool."""
    return (
        f"if ! grep -qs '^{KEY}=' {' '.join(units)}; then\n"
        f"rm -f {FILE} {FILE}.new\nrm -rf {FOLDER}/former-owner\n"
        f"rmdir {FOLDER} 2>/dev/null || :\nfi"
    )


def require_not_newer(facts: Mapping[Machine, HostFacts], beside: Sequence[Problem] = ()) -> None:
    """Raises :class:`PreflightFailed` when a newer version of this tool last changed a host of
    ``facts``. ``beside``: other problems that keep the command from its work."""
    problems = newer({machine.endpoint: f for machine, f in facts.items()})
    if problems:
        raise PreflightFailed(
            f"this version of the tool, {__version__}, is older than the version that last changed "
            "the hosts",
            (*problems, *beside),
            id="preflight-failed" if beside else "tool-too-old",
        )


def newer(facts: Mapping[str, HostFacts], severity: Severity = "error") -> list[Problem]:
    """For each newer version of this tool, the hosts (by name) that it last changed."""
    own = release(__version__) or ()
    return [
        Problem(
            _named(hosts),
            f"last changed by version {version} of this tool; this is version {__version__}",
            f"install version {version} or later on this machine, then run again",
            severity,
            id="tool-too-old",
        )
        for version, hosts in _by_content(facts, lambda found: found is not None and found > own)
    ]


def unknown(facts: Mapping[str, HostFacts]) -> list[Problem]:
    """Warnings about hosts (by name) with a file that names no version."""
    return [
        Problem(
            _named(hosts),
            f"{FILE} says {content!r}, which is not a version of this tool",
            "the next command that changes the host writes the file again",
            "warning",
            id="tool-version-unknown",
        )
        for content, hosts in _by_content(facts, lambda found: found is None)
    ]


def _by_content(
    facts: Mapping[str, HostFacts], wanted: Callable[[Release | None], bool]
) -> list[tuple[str, list[str]]]:
    """The contents of the hosts' files whose release is ``wanted``, each with its hosts."""
    found: dict[str, list[str]] = {}
    for host, f in facts.items():
        content = f.values.get(FACT, "")
        if content and wanted(release(content)):
            found.setdefault(printable(content, 64), []).append(host)
    return list(found.items())


def _named(hosts: Collection[str]) -> str:
    more = f" and {len(hosts) - NAMED} more" if len(hosts) > NAMED else ""
    return ", ".join(list(hosts)[:NAMED]) + more
