"""What only the workers' own hosts know, by one look at each."""

from __future__ import annotations

from collections.abc import Mapping

from provision.alluxio.commands import readiness
from provision.alluxio.commands.readiness import Readiness
from provision.alluxio.worker import desired
from provision.check_nodes import disks
from provision.dataclass import dataclass
from provision.errors import Problem
from provision.host import gather
from provision.host.facts import UnitState, merged_each
from provision.inventory.resolved import AlluxioCluster
from provision.ssh.session import Fleet


@dataclass(frozen=True, slots=True)
class WorkerHosts:
    """By a worker's name, of the hosts that answered: its readiness, the UUID in its identity file
    if there is one, and its service. ``problems``: why others could not be asked, and what is wrong
    with disks."""

    readiness: Mapping[str, Readiness]
    identities: Mapping[str, str]
    services: Mapping[str, UnitState]
    problems: tuple[Problem, ...]


def look(fleet: Fleet, alluxio: AlluxioCluster) -> WorkerHosts:
    """Look at the hosts of all workers of ``alluxio``."""
    workers = alluxio.workers
    probes = merged_each(readiness.probes(alluxio, workers), disks.probes(alluxio))
    facts, away = gather.gather_facts(fleet, probes)
    seen = {w.name: facts[w.machine] for w in workers if w.machine in facts}
    known = {name: desired.identity(alluxio, one) for name, one in seen.items()}
    return WorkerHosts(
        {w.name: readiness.of(alluxio, w, seen[w.name]) for w in workers if w.name in seen},
        {name: uuid for name, uuid in known.items() if uuid is not None},
        {name: one.unit(desired.UNIT) for name, one in seen.items()},
        (*away, *disks.of_workers(alluxio, facts)),
    )
