"""``start-masters``: masters from the same release, by the same launch script, one at a time.

A host may be a worker's as well: it then has one release and one configuration for both, and
whatever one of the two changes, the other has a restart pending for (see docs/membership.md).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from provision import gather, preflight
from provision.alluxio import desired, java, ports, start
from provision.alluxio.desired import MASTER_UNIT, MASTER_UNIT_PATH, Artifacts
from provision.alluxio.start import POLL_SECONDS, Observed
from provision.errors import PreflightFailed, Problem, ProvisionError, Unhealthy
from provision.host.change import Change, changes
from provision.host.observe import HostFacts, Probe
from provision.host.ownership import owner
from provision.host.resources import Directory, File, Link, Resource, Tree, Unit, User
from provision.inventory.resolved import (
    AlluxioCluster,
    AlluxioMaster,
    AlluxioWorker,
    Inventory,
    Machine,
    bracketed,
)
from provision.plan import Gate, HostChanges, Plan, Step
from provision.remote import Fleet


def resources(
    alluxio: AlluxioCluster, master: AlluxioMaster, artifacts: Artifacts, facts: HostFacts | None
) -> tuple[Resource, ...]:
    """Everything that makes the host a master, in the order it is put there."""
    user, worker, jdk = alluxio.user, worker_on(alluxio, master), artifacts.jdk
    units = desired.units_of(worker, master)
    launcher = desired.launcher(alluxio, artifacts, facts)
    unit = desired.service(alluxio, "master", master.name, launcher)
    return (
        User(user, home=alluxio.state_dir),
        File(MASTER_UNIT_PATH, unit, restarts=(MASTER_UNIT,)),
        Directory(alluxio.install_dir),
        Directory(alluxio.state_dir, owner=user, mode=0o750),
        Directory(alluxio.log_dir, owner=user, mode=0o750),
        Directory(desired.journal_dir(alluxio), owner=user, mode=0o750),
        *([] if jdk is None else [Tree(java.tree(alluxio, jdk.path.name), jdk, units)]),
        Tree(desired.home(alluxio), artifacts.alluxio, restarts=units),
        # On a worker's host the link says which release the worker runs: start-workers moves it.
        *([] if worker else [Link(f"{alluxio.install_dir}/current", alluxio.version)]),
        *desired.conf_files(alluxio, worker, master, artifacts, facts),
        Unit(MASTER_UNIT),
    )


def worker_on(alluxio: AlluxioCluster, master: AlluxioMaster) -> AlluxioWorker | None:
    """The worker that runs on a master's host, if one does."""
    return next((w for w in alluxio.workers if w.machine == master.machine), None)


def observe(alluxio: AlluxioCluster, fleet: Fleet, chosen: Sequence[AlluxioMaster]) -> Observed:
    """Look at the hosts of the chosen masters.

    Raises :class:`PreflightFailed` with everything that stands in the way; nothing is changed.
    """
    problems: list[Problem] = []
    tarballs = None
    with preflight.noting(problems):
        tarballs = start.fetch(alluxio)
    probes = {m.machine: _probe(alluxio, m, tarballs) if tarballs else Probe() for m in chosen}
    facts, unreachable = gather.look(fleet, probes)
    problems += unreachable
    problems += preflight.hosts(facts, {})
    problems += preflight.paths(facts, probes)
    if tarballs:
        problems += preflight.release(alluxio, tarballs, facts)
        problems += preflight.architectures(facts, [tarballs.alluxio, tarballs.jdk])
        for master in chosen:
            if (seen := facts.get(master.machine)) is not None:
                problems += _problems(alluxio, master, tarballs, seen)
    warnings = preflight.require(problems)
    assert tarballs is not None  # or else there is a problem
    return Observed(tarballs, facts, warnings)


def plan(
    inventory: Inventory,
    alluxio: AlluxioCluster,
    fleet: Fleet,
    observed: Observed,
    chosen: Sequence[AlluxioMaster],
) -> Plan:
    """New masters together, for they elect one of them; those that run one after another."""
    facts = observed.facts
    todo = {
        m.name: changes(
            resources(alluxio, m, observed.artifacts, facts[m.machine]), facts[m.machine]
        )
        for m in chosen
    }
    changed = [m for m in chosen if todo[m.name]]
    running = [m for m in changed if facts[m.machine].unit(MASTER_UNIT).active == "active"]
    fresh = [m for m in changed if m not in running]
    groups = [("install and start masters", fresh)] if fresh else []
    groups += [(f"restart {m.name}", [m]) for m in running]
    steps = [
        Step(
            title,
            tuple(HostChanges(m.name, m.machine, todo[m.name]) for m in some),
            after=_answering(alluxio, fleet, some),
            at_once=inventory.parallel,
        )
        for title, some in groups
    ]
    notes = (*observed.warnings, *_pending_workers(alluxio, changed, todo, facts))
    return Plan("start-masters", inventory.cluster, tuple(steps), notes)


def answers(fleet: Fleet, alluxio: AlluxioCluster, master: AlluxioMaster) -> bool:
    """Whether the master takes connections: of several each has its journal's port open, while
    only the one that leads has to serve on its RPC port."""
    port = master.rpc_port if len(alluxio.masters) == 1 else master.journal_port
    try:
        socket.create_connection((master.hostname, port), 2).close()
        return True
    except OSError:
        pass
    try:
        fleet.session(master.machine).open_tcp(master.hostname, port, timeout=2).close()
        return True
    except ProvisionError:
        return False


def require_answering(
    fleet: Fleet, alluxio: AlluxioCluster, masters: Sequence[AlluxioMaster], seconds: float = 0
) -> None:
    """Raises :class:`Unhealthy` unless every one of them answers, within ``seconds``."""
    deadline, missing = time.monotonic() + seconds, list(masters)
    while True:
        with ThreadPoolExecutor(len(missing), "masters") as pool:
            there = list(pool.map(lambda m: answers(fleet, alluxio, m), missing))
        missing = [m for m, good in zip(missing, there, strict=True) if not good]
        if not missing:
            return
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)
    logs = start.last_lines(fleet, [m.machine for m in missing], unit=MASTER_UNIT)
    raise Unhealthy(
        f"{len(missing)} of {len(masters)} masters do not answer",
        [
            Problem(
                f"{m.name} ({m.machine.host})",
                f"does not answer; its last log lines:\n    {logs[m.machine]}",
                f"invoke logs --host {m.name}",
                id="master-not-answering",
            )
            for m in missing
        ],
        id="master-not-answering",
    )


def _answering(alluxio: AlluxioCluster, fleet: Fleet, masters: Sequence[AlluxioMaster]) -> Gate:
    seconds = alluxio.start_timeout
    return Gate(
        f"{len(masters)} answering",
        lambda: require_answering(fleet, alluxio, masters, seconds),
    )


def _pending_workers(
    alluxio: AlluxioCluster,
    masters: Sequence[AlluxioMaster],
    todo: Mapping[str, Sequence[Change]],
    facts: Mapping[Machine, HostFacts],
) -> list[Problem]:
    """The workers beside masters that a plan leaves with a restart to be made up for."""
    return [
        Problem(
            f"{worker.name} ({worker.machine.host})",
            f"has the same files as {m.name}, and is left with a restart pending",
            "run invoke start-workers after it",
            "warning",
            id="restart-pending",
        )
        for m in masters
        if (worker := worker_on(alluxio, m)) is not None
        and facts[m.machine].unit(desired.UNIT).active == "active"
        and any(desired.UNIT in change.restarts for change in todo[m.name])
    ]


def _probe(alluxio: AlluxioCluster, master: AlluxioMaster, artifacts: Artifacts) -> Probe:
    java_home = java.home(alluxio, master, artifacts.jdk)
    return Probe(
        resources=(*resources(alluxio, master, artifacts, None), *java.files(java_home)),
        ports=ports.numbers(ports.master_listeners(alluxio, master)),
        reach=[(m.hostname, m.journal_port) for m in alluxio.masters if m != master],
        disks=(alluxio.install_dir, alluxio.state_dir, alluxio.log_dir),
        commands=java.probe_commands(java_home),
        units=(desired.UNIT,),
    )


def _problems(
    alluxio: AlluxioCluster, master: AlluxioMaster, artifacts: Artifacts, facts: HostFacts
) -> list[Problem]:
    where = f"{master.name} at {master.machine.host} ({master.machine.where})"
    unit = facts.unit(MASTER_UNIT)
    found = preflight.ours(facts, MASTER_UNIT, MASTER_UNIT_PATH, alluxio.name, "master", where)
    found += preflight.taken(facts, ports.master_listeners(alluxio, master), unit, where)
    found += [
        Problem(
            where,
            f"cannot reach {other.name}'s journal port at {bracketed(other.hostname)}:"
            f"{other.journal_port}: {facts.unreachable[other.hostname, other.journal_port]}",
            "open the journal port between the masters, both ways",
            id="listener-unreachable",
        )
        for other in alluxio.masters
        if (other.hostname, other.journal_port) in facts.unreachable
    ]
    accepted = artifacts.release.java if artifacts.release is not None else ()
    return found + java.problems(alluxio, master, artifacts.jdk, facts, where, accepted)


def stop(
    inventory: Inventory, alluxio: AlluxioCluster, fleet: Fleet, chosen: Sequence[AlluxioMaster]
) -> Plan:
    """Stop the chosen masters. They stay installed and enabled.

    Raises :class:`PreflightFailed` when one of them is not this cluster's.
    """
    probe = Probe(resources=(File(MASTER_UNIT_PATH, None),), units=(MASTER_UNIT,))
    facts = gather.facts(fleet, {m.machine: probe for m in chosen})
    foreign: list[Problem] = []
    hosts: list[HostChanges] = []
    for m in chosen:
        seen: HostFacts = facts[m.machine]
        where = f"{m.name} at {m.machine.host} ({m.machine.where})"
        if owner(seen, MASTER_UNIT_PATH) != alluxio.name:
            foreign += preflight.ours(
                seen, MASTER_UNIT, MASTER_UNIT_PATH, alluxio.name, "master", where
            )
        elif seen.unit(MASTER_UNIT).active not in ("inactive", "failed"):
            done = Change(
                f"stop {MASTER_UNIT}", f"systemctl stop {MASTER_UNIT}", disrupts=True, seconds=90
            )
            hosts.append(HostChanges(m.name, m.machine, (done,)))
    if foreign:
        raise PreflightFailed(
            "not this cluster's to stop; nothing was changed", foreign, id="foreign-installation"
        )
    steps = (Step("stop masters", tuple(hosts), at_once=inventory.parallel),) if hosts else ()
    return Plan("stop-masters", inventory.cluster, steps)
