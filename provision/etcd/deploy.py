"""``deploy-etcd``: from the inventory and what is there to a plan.

Order of steps as in etcd's "Clustering guide" (static bootstrap: all members start together)
and "Runtime reconfiguration" (one member at a time, the next only when the cluster is healthy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from provision import artifacts, gather, preflight
from provision.artifacts import Artifact
from provision.errors import PreflightFailed, Problem
from provision.etcd import desired, gates, health, tls
from provision.etcd.health import ClusterHealth
from provision.etcd.pki import Authorities
from provision.host.change import Change, changes
from provision.host.observe import HostFacts
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory, Machine
from provision.plan import HostChanges, Plan, Step
from provision.remote import Fleet

#: Unpacked, an etcd release takes about four times its tarball.
UNPACKED = 5


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything the plan is made from."""

    artifact: Artifact | None
    facts: Mapping[Machine, HostFacts]
    health: ClusterHealth
    warnings: tuple[Problem, ...] = ()


def observe(inventory: Inventory, fleet: Fleet) -> Observed:
    """Look at every member's host and at the running cluster, at the same time.

    Raises :class:`PreflightFailed` with everything that stands in the way; nothing is changed.
    """
    cluster = inventory.etcd
    with ThreadPoolExecutor(2) as pool:
        looking = pool.submit(health.observe, cluster, fleet)
        problems: list[Problem] = []
        artifact = None
        if not cluster.source.package:
            with preflight.noting(problems):
                artifact = artifacts.fetch(cluster.source, artifacts.default_cache())
        probes = {m.machine: desired.probe(cluster, m, artifact) for m in cluster.members}
        facts, unreachable = gather.look(fleet, probes)
        problems += unreachable
        problems += preflight.hosts(facts, _rooms(cluster, artifact, facts))
        problems += preflight.architectures(facts, [artifact])
        problems += preflight.paths(facts, probes)
        problems += preflight.members(cluster, facts)
        warnings = preflight.require(problems)
        return Observed(artifact, facts, looking.result(), warnings)


def plan(inventory: Inventory, fleet: Fleet, observed: Observed, *, write: bool = True) -> Plan:
    """The smallest safe change that makes the cluster as declared.

    ``write`` False is for showing it: the cluster's CA is not made. Raises
    :class:`PreflightFailed` when there is no plan that this command may carry out.
    """
    cluster = inventory.etcd
    _refuse_what_needs_more(cluster, observed)
    ca = tls.authority(cluster, write=write)
    todo = {m.name: _changes(cluster, m, observed, ca) for m in cluster.members}
    # Members that are down go first and together: two of three could not start one by one.
    down = [m for m in cluster.members if _down(m, observed)]
    steps: list[Step] = []
    starting = [_on(m, todo[m.name]) for m in down if todo[m.name]]
    if starting:
        steps.append(
            Step(
                _starting(down, observed),
                tuple(starting),
                after=gates.all_healthy(cluster, fleet),
            )
        )
    rolling = [m for m in cluster.members if m not in down and todo[m.name]]
    quiet = [_on(m, tuple(c for c in todo[m.name] if c.quiet)) for m in rolling]
    if any(h.changes for h in quiet):
        steps.append(
            Step("prepare without touching a service", tuple(h for h in quiet if h.changes))
        )
    for member in gates.order(rolling, observed.health):
        disruptive = tuple(c for c in todo[member.name] if not c.quiet)
        if disruptive:
            steps.append(
                Step(
                    f"change {member.name}",
                    (_on(member, disruptive),),
                    before=gates.can_lose(cluster, fleet, member),
                    after=gates.all_healthy(cluster, fleet, member),
                )
            )
    guards = tuple(m.machine for m in cluster.members)
    return Plan("deploy-etcd", cluster.name, tuple(steps), observed.warnings, guards)


def _starting(down: Sequence[EtcdMember], observed: Observed) -> str:
    """What it is called to change all of ``down`` together."""
    facts = [observed.facts[m.machine] for m in down]
    if not any(desired.has_data(m, f) for m, f in zip(down, facts, strict=True)):
        return "bootstrap the cluster" if not observed.health.established else "start new members"
    if any(f.unit(desired.UNIT).active == "active" for f in facts):
        # Such as after a change of client_port: one by one, no gate could ever hold.
        return "change the members together: none answers at its declared client URL"
    return "start the members that are down"


def _down(member: EtcdMember, observed: Observed) -> bool:
    facts = observed.facts[member.machine]
    running = facts.unit(desired.UNIT).active == "active"
    return not (running and observed.health.established and desired.has_data(member, facts))


def _changes(
    cluster: EtcdCluster, member: EtcdMember, observed: Observed, ca: Authorities | None
) -> tuple[Change, ...]:
    facts = observed.facts[member.machine]
    material = tls.material(cluster, member, facts, ca)
    return changes(desired.resources(cluster, member, observed.artifact, material, facts), facts)


def _refuse_what_needs_more(cluster: EtcdCluster, observed: Observed) -> None:
    seen = observed.health
    problems: list[Problem] = []
    if not seen.established:
        return
    registered = {r.name: r for r in seen.registered}
    for member in cluster.members:
        facts = observed.facts[member.machine]
        there = registered.get(member.name)
        where = f"{member.name} ({member.machine.where})"
        if there is None:
            problems.append(
                Problem(where, "is not a member of the running cluster", "use invoke add-member")
            )
        elif there.client_urls and not desired.has_data(member, facts):
            problems.append(
                Problem(
                    where,
                    f"has lost its data: {member.data_dir} is empty, but the cluster knows it",
                    f"use invoke replace-member {member.name}",
                )
            )
        elif member.peer_url not in there.peer_urls:
            problems.append(
                Problem(
                    where,
                    f"peer URL is {', '.join(there.peer_urls)} in the cluster, {member.peer_url} "
                    "in the inventory",
                    "a member's address or peer TLS is not changed by this command",
                )
            )
    problems += [
        Problem(
            name or "an unnamed member",
            "is a member of the running cluster, but not in the inventory",
            "use invoke remove-member, or put it into the inventory",
        )
        for name in registered
        if name not in {m.name for m in cluster.members}
    ]
    if problems:
        raise PreflightFailed(
            "the members differ from the inventory; nothing was changed", problems
        )


def _on(member: EtcdMember, todo: tuple[Change, ...]) -> HostChanges:
    return HostChanges(member.name, member.machine, todo)


def _rooms(
    cluster: EtcdCluster, artifact: Artifact | None, facts: Mapping[Machine, HostFacts]
) -> dict[Machine, list[preflight.Room]]:
    if artifact is None:
        return {}
    tree = f"{cluster.install_dir}/{cluster.version}"
    room = preflight.Room(cluster.install_dir, artifact.size * UNPACKED, "the etcd release")
    return {m: [room] for m, f in facts.items() if (f.text(f"{tree}/.artifact.sha256") is None)}
