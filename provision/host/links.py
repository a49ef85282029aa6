"""Declared folders that root's own links lead to another place of the host.

The inventory cannot see such a link. A unit is closed by the declared path, so behind the link its
service may have no access; and root goes through no link that others could have made.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from provision.errors import Problem
from provision.host import gather
from provision.host.facts import HostFacts, Probe
from provision.host.folders import named_by, units_of
from provision.host.resources import Directory, File
from provision.host.sandbox import sandbox
from provision.inventory.resolved import Machine
from provision.inventory.system_folders import refusal
from provision.text import printable, printable_lines

if TYPE_CHECKING:
    from provision.ssh.session import Fleet

_LABEL = "leads to "


def problems(
    fleet: Fleet, cluster: str, probes: Mapping[Machine, Probe], facts: Mapping[Machine, HostFacts]
) -> list[Problem]:
    """The folders that their service, or root, could not use behind a link.

    Hosts are asked again only when a link is on the way to a folder that no unit of ``cluster``
    there names yet.
    """
    asked = {
        machine: Probe(commands={f"{_LABEL}{path}": _look(path) for path in some})
        for machine, f in facts.items()
        if (some := _behind_a_link(cluster, probes[machine], f))
    }
    if not asked:
        return []
    seen, found = gather.gather_facts(fleet, asked)
    for machine, told in seen.items():
        where = machine.place
        for label, said in told.commands.items():
            path = label.removeprefix(_LABEL)
            found += judge(path, said, where, hides_home=_hides_home(probes[machine]))
    return found


def _behind_a_link(cluster: str, probe: Probe, facts: HostFacts) -> list[str]:
    links = [path for path, way in facts.ways.items() if way.kind == "link"]
    units = units_of(cluster, facts)
    return [
        r.path
        for r in probe.resources
        if isinstance(r, Directory)
        and any(r.path.startswith(f"{link}/") for link in links)
        and not any(named_by(text, r) for text in units)
    ]


def _hides_home(probe: Probe) -> bool:
    units = [r.content for r in probe.resources if isinstance(r, File) and r.content]
    return any(b"\nProtectHome=yes\n" in text for text in units)


def _look(path: str) -> str:
    """A shell command that prints where ``path`` leads, and why root does not go there by it."""
    q = shlex.quote(path)
    return f'readlink -m -- {q}\nd={q}; until [ -d "${{d:-/}}" ]; do d=${{d%/*}}; done; walk "$d"'


def judge(path: str, said: str, where: str, *, hides_home: bool) -> list[Problem]:
    """The problem of the folder ``path``, by the output of the look. ``hides_home``: a unit that
    has the folder is closed by ProtectHome."""
    real, _, refused = said.partition("\n")
    if not real.startswith("/") or real == path:
        return []
    is_refused = refusal(real)
    if is_refused:
        why = is_refused.partition("; ")[0].removeprefix(f"{real!r} is ")
        why = f"that is {why}"
    elif refused.strip():
        why = printable_lines(refused, last=1)[0].partition(": ")[2]
    elif hides_home and sandbox([real]).protect_home == "no":
        why = "its unit hides /home (ProtectHome) unless the inventory names it"
    else:
        return []
    what = f"{path} leads to {printable(real, 300)} there: {printable(why, 200)}"
    remedy = "give another folder" if is_refused else "give the path that it leads to"
    return [Problem(where, what, remedy, id="path-in-the-way")]
