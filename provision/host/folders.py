"""Folders that another owner uses, found before this tool takes them.

An inventory may name a folder that exists: the root of a data disk, or one that the operator made
for the service. It may also name, by mistake, a folder that another service or a user works in.
That one would lose its access when the tool sets the owner.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from provision.errors import Problem
from provision.host import gather
from provision.host.facts import HostFacts, PathState, Probe
from provision.host.ownership import owner
from provision.host.predict import UNIT_DIR
from provision.host.resources import DataDisk, Directory, Resource, User
from provision.inventory.resolved import Machine
from provision.text import printable

if TYPE_CHECKING:
    from provision.ssh.session import Fleet

_LABEL = "folders"
#: The line after a look that has come to its end; without it nothing is known.
_END = "end"
#: Seconds for the look at all folders of a host: a folder of somebody else can be huge.
_LOOK_SECONDS = 20
#: How many owners a line names.
_NAMED = 3


def of_others(
    fleet: Fleet,
    cluster: str,
    probes: Mapping[Machine, Probe],
    facts: Mapping[Machine, HostFacts],
    take_over: Collection[str],
    command: str,
) -> list[Problem]:
    """The problems of declared folders that another owner uses; warnings for ``take_over``.

    Hosts are asked again only when a folder is there that does not belong to its service, and that
    no unit of ``cluster`` on the host names. ``command`` is the one that may take a folder over.
    """
    found = {m: _in_question(cluster, probes[m], f) for m, f in facts.items()}
    asked = {
        machine: Probe(commands={_LABEL: _look(some, probes[machine], f)})
        for machine, f in facts.items()
        if (some := found[machine])
    }
    if not asked:
        return []
    seen, problems = gather.gather_facts(fleet, asked)
    for machine, told in seen.items():
        where = machine.place
        for folder in found[machine]:
            there = facts[machine].paths[folder.path]
            here = there.owner
            own = {folder.owner, *_service_users(probes[machine])}
            said = told.commands.get(_LABEL, "")
            used_by = users(said, folder.path, here, own, _foreign_group(folder, there, own))
            whole = _END in said.splitlines()
            if used_by or not whole:
                problems.append(_problem(where, folder, here, used_by, take_over, command))
    return problems


def users(said: str, path: str, owner_now: str, own: Collection[str], group: str = "") -> list[str]:
    """Who uses the folder ``path``, by the output of the look; empty when nobody else does.

    ``own`` are the owners that are right. ``group`` may write into it, and would not any more.
    ``lost+found``, mount points of root's and numbers without a user do not count. Of the folders
    on the way to another declared folder, and of what is in them, root's do not count either: root
    comes in anyway.
    """
    device = ""
    within: dict[str, None] = {}
    full = home = False
    asked = {line.split("|")[1] for line in said.splitlines() if line.startswith("root|")}
    for line in said.splitlines():
        kind, _, rest = line.partition("|")
        fields = rest.split("|", 4)
        between = fields[0].startswith(f"{path}/") and fields[0] not in asked
        if fields[0] != path and not between:
            continue
        if kind == "root" and len(fields) == 2:
            device = fields[1]
        elif kind == "home":
            home = True
        elif (kind == "way" or between) and len(fields) == 5:
            _, number, _, _, name = fields
            if name not in (number, "root", *own):
                full = True
                within[name] = None
        elif kind == "in" and len(fields) == 5:
            _, number, dev, shape, name = fields
            if shape == "d" and dev != device and name == "root":
                continue  # a mount point in it
            full = True
            if name != number and name not in own:
                within[name] = None
    known = not owner_now.isdecimal() and owner_now != "root" and owner_now not in own
    if known and (full or home):
        within = {owner_now: None, **within}
    if full and group:
        within[f"group {group}"] = None
    return list(within)


def _service_users(probe: Probe) -> list[str]:
    return [r.name for r in probe.resources if isinstance(r, User)]


def _in_question(cluster: str, probe: Probe, facts: HostFacts) -> list[Directory]:
    """The declared folders that are there, belong to another user than they should, or let others
    write who should not, and are not known to be this cluster's."""
    units = units_of(cluster, facts)
    own = [r.path for r in probe.resources if isinstance(r, Directory) and r.owner == "root"]
    return [
        r
        for r in probe.resources
        if isinstance(r, Directory)
        and (there := facts.paths.get(r.path)) is not None
        and there.kind == "dir"
        and (there.owner != r.owner or there.mode & ~r.mode & 0o022)
        # What is in a folder of root's, such as the certificates, only this tool makes.
        and not any(r.path.startswith(f"{path}/") for path in own)
        and not any(named_by(text, r) for text in units)
    ]


def _foreign_group(folder: Directory, there: PathState, own: Collection[str]) -> str:
    """The group that may write into a folder, and would not any more; empty without one."""
    mine = (folder.group or folder.owner, "root", "UNKNOWN", *own)
    writes = there.mode & ~folder.mode & 0o020
    return there.group if writes and there.group not in mine else ""


def units_of(cluster: str, facts: HostFacts) -> list[str]:
    """The texts of the units of ``cluster`` on the host."""
    return [
        facts.text(path) or ""
        for path in facts.paths
        if path.startswith(f"{UNIT_DIR}/") and owner(facts, path) == cluster
    ]


def named_by(unit: str, folder: Directory) -> bool:
    """Whether a unit's text names the folder: as it is, or as the place of its program."""
    path = re.escape(folder.path)
    keys = "ReadWritePaths|WorkingDirectory|RequiresMountsFor"
    if re.search(rf"^({keys})=(.* )?-?{path}( |$)", unit, re.M):
        return True
    return folder.owner == "root" and bool(re.search(rf"^ExecStart=(.* )?{path}/", unit, re.M))


def _look(folders: Collection[Directory], probe: Probe, facts: HostFacts) -> str:
    """A shell command that prints the owners of what is in the folders, each once for a kind of
    file and a file system. No name of a file is printed: it may be anything."""
    ours = _ours(probe.resources)
    ways = [path for path in _above(ours) if any(path.startswith(f"{f.path}/") for f in folders)]
    skipped = " ".join(f"! -path {shlex.quote(path)}" for path in ours)
    on_the_way = " -o ".join(f"-path {shlex.quote(path)}" for path in ways) or "-false"
    every = shlex.join(folder.path for folder in folders)
    printed = "%H|%U|%D|%y|%u\\n"
    lines = [
        f"stat -c 'root|%n|%d' {every}",
        f"set -- {every}",
        *(f'[ ! -d {shlex.quote(path)} ] || set -- "$@" {shlex.quote(path)}' for path in ways),
        f'{{ timeout {_LOOK_SECONDS} find "$@" -mindepth 1 -maxdepth 1 ! -name lost+found '
        f"{skipped} \\( \\( {on_the_way} \\) -printf 'way|{printed}' -o -printf 'in|{printed}' "
        f"\\) && echo {_END}; }} | sort -u",
    ]
    for folder in folders:
        user = facts.paths[folder.path].owner
        if user != "root" and not user.isdecimal():
            lines.append(
                f"h=$(getent passwd {shlex.quote(user)}) && h=${{h%:*}} && "
                f'[ "${{h##*:}}" != {shlex.quote(folder.path)} ] || '
                f"echo {shlex.quote(f'home|{folder.path}')}"
            )
    return "\n".join(lines)


def _ours(resources: Collection[object]) -> list[str]:
    """Everything that the inventory declares, and the data's mark."""
    paths: dict[str, None] = {}
    for resource in resources:
        if isinstance(resource, DataDisk):
            paths[resource.marker] = None
        if isinstance(resource, Resource) and (place := resource.place()) is not None:
            paths[place.path] = None
    return list(paths)


def _above(paths: Collection[str]) -> list[str]:
    """The folders above ``paths`` that are none of them."""
    found: dict[str, None] = {}
    for path in paths:
        while path := path.rpartition("/")[0]:
            if path not in paths:
                found[path] = None
    return list(found)


def _problem(
    where: str,
    folder: Directory,
    owner_now: str,
    used_by: Collection[str],
    take_over: Collection[str],
    command: str,
) -> Problem:
    names = [printable(name, 64) for name in used_by]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    belongs = f"{folder.path} belongs to {printable(owner_now, 64)}"
    used = f"is used by {', '.join(names[:_NAMED])}{more}"
    if not names:  # the look at it failed, or did not end in time
        used = "it could not be found out who uses it"
    if folder.path in take_over:
        what = f"{belongs} and {used}: it is taken over for {folder.owner}"
        return Problem(where, what, "", "warning", id="folder-in-use")
    remedy = (
        f"give a folder that only {folder.owner} uses; or, if nobody needs it, "
        f"invoke {command} --take-over {folder.path}"
    )
    return Problem(where, f"{belongs} and {used}", remedy, id="folder-in-use")
