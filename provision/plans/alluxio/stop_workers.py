"""``stop-workers``: the chosen workers are stopped, and stay installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provision.alluxio.worker import desired as worker
from provision.engine.plan import HostChanges, Plan, Step
from provision.errors import PreflightFailed, Problem
from provision.host import gather, unit_changes
from provision.host.facts import HostFacts, Probe
from provision.host.ownership import owner
from provision.host.resources import File
from provision.inventory.resolved import (
    AlluxioWorker,
    Inventory,
    Machine,
)
from provision.ssh.session import Fleet

#: systemd's states of a unit that has no process.
STOPPED = ("inactive", "failed")


def plan(inventory: Inventory, chosen: Sequence[AlluxioWorker], fleet: Fleet) -> Plan:
    """Stop the chosen workers. They stay installed and enabled; ``start-workers`` starts them.

    Raises :class:`PreflightFailed` when one of them belongs to another cluster.
    """
    probe = Probe(resources=(File(worker.UNIT_PATH, None),), units=(worker.UNIT,))
    facts = gather.require_facts(fleet, {w.machine: probe for w in chosen})
    require_ours(inventory, chosen, facts)
    hosts = tuple(
        HostChanges(w.name, w.machine, (unit_changes.stop(worker.UNIT),))
        for w in chosen
        if facts[w.machine].unit(worker.UNIT).active not in STOPPED
    )
    steps = (Step("stop workers", hosts, at_once=inventory.parallel),) if hosts else ()
    return Plan("stop-workers", inventory.cluster, steps)


def require_ours(
    inventory: Inventory, chosen: Sequence[AlluxioWorker], facts: Mapping[Machine, HostFacts]
) -> None:
    """Raises :class:`PreflightFailed` with every worker unit that belongs to another cluster."""
    foreign = [
        Problem(
            w.place,
            f"{worker.UNIT} on this host is " + (f"of cluster {of}" if of else "not of this tool"),
            f"if this host does not need it: invoke clean-host {w.name}"
            if of
            else "stop it by hand, if that is what you want",
            id="another-clusters-host" if of else "foreign-installation",
        )
        for w in chosen
        if (of := owner(facts[w.machine], worker.UNIT_PATH)) != inventory.cluster
        and facts[w.machine].unit(worker.UNIT).load != "not-found"
    ]
    if foreign:
        raise PreflightFailed(
            "some workers do not belong to this cluster",
            foreign,
            id="foreign-installation",
        )
