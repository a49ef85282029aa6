"""The one look at the hosts of a role before they are changed, for any role.

What only one role needs (a member's data, a worker's release) its own preflight adds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from provision.artifacts import Artifact
from provision.errors import Problem
from provision.host import connection_ports, folders, links, preflight
from provision.host.facts import HostFacts, Probe
from provision.host.preflight import SpaceRequirement
from provision.inventory.resolved import Machine
from provision.ssh.session import Fleet


def problems(
    fleet: Fleet,
    cluster: str,
    probes: Mapping[Machine, Probe],
    facts: Mapping[Machine, HostFacts],
    *,
    rooms: Mapping[Machine, Sequence[SpaceRequirement]],
    tarballs: Iterable[Artifact | None],
    take_over: Collection[str],
    command: str,
) -> list[Problem]:
    """What keeps the hosts of ``facts`` from being changed: the hosts themselves with the ``rooms``
    that they need, what is in the place of a path, folders that root cannot write in, ports that a
    connection may get, folders that others use, tarballs for another CPU. ``command`` is the one
    that may take over the folders in ``take_over``."""
    return [
        *preflight.hosts(facts, rooms),
        *preflight.paths(facts, probes),
        *preflight.unwritable(facts, probes),
        *connection_ports.problems(facts, probes),
        *folders.of_others(fleet, cluster, probes, facts, take_over, command),
        *links.problems(fleet, cluster, probes, facts),
        *preflight.architectures(facts, tarballs),
    ]
