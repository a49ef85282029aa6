"""Asks the guards of a plan (:mod:`provision.engine.guards`).

:func:`require` is called where plans are shown and applied, so no command can forget a guard. Most
questions are answered here. Two were answered before, because the plan depends on the answer: which
cluster it is, and whether others use it. Then the answer is only looked up; without one, the
command has a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from provision.dataclass import dataclass
from provision.engine.guards import Guard, required
from provision.engine.plan import Plan
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd.cluster import gates, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import recovery_marker
from provision.etcd.pki import tls
from provision.host import gather
from provision.host.effects import Effect
from provision.host.facts import Probe


@dataclass(frozen=True, slots=True)
class Subject:
    """What the guards of a plan look at. ``established``: the command knows which cluster it is.
    ``leases``: the workers register in etcd."""

    command: str
    etcd: Etcd
    established: bool
    leases: bool


def require(plan: Plan, subject: Subject) -> Plan:
    """``plan``, when each of its guards holds; it locks every machine that it must.

    Raises :class:`PreflightFailed` or :class:`provision.errors.Unhealthy` for a guard that does not
    hold, and for a guard that cannot find out; nothing is changed then.
    """
    for guard in required(subject.command, plan.effects):
        if guard not in plan.waives:
            plan = CHECKS[guard](plan, subject)
    return plan


def _run_lock(plan: Plan, subject: Subject) -> Plan:
    """Whoever disturbs a member locks all members that were looked at: two runs that each stop
    another member could cost the quorum."""
    learned = subject.etcd.learned.facts
    members = [m.machine for m in subject.etcd.cluster.members if m.machine in learned]
    disturbs = plan.effects & {Effect.SERVICE, Effect.TRUST, Effect.MEMBERS}
    if disturbs and any(m not in plan.machines for m in members):
        plan = replace(plan, guards=tuple(dict.fromkeys((*plan.guards, *members))))
    if not plan.machines:
        raise AssertionError(f"{subject.command} changes etcd, and locks no host")
    return plan


def _tool_version(plan: Plan, subject: Subject) -> Plan:
    """A host that this run has not looked at yet is looked at now: the look refuses a newer
    version."""
    fleet = subject.etcd.fleet
    unseen = [m for m in plan.machines if m not in fleet.stats.facts]
    if unseen:
        gather.require_facts(fleet, {m: Probe() for m in unseen})
    return plan


def _which_cluster(plan: Plan, subject: Subject) -> Plan:
    if not subject.established:
        raise AssertionError(f"{subject.command} changes hosts without knowing which cluster it is")
    return plan


def _unfinished(plan: Plan, subject: Subject) -> Plan:
    """:mod:`provision.etcd.cluster.guard` has looked for the marks; so does every look at the
    members' hosts, which may be newer."""
    learned = subject.etcd.learned
    if Guard.UNFINISHED not in learned.passed:
        raise AssertionError(f"{subject.command} did not look for an unfinished restore")
    if unended := recovery_marker.problems(subject.etcd.cluster, learned.facts):
        raise PreflightFailed(
            "a restore or a recovery is not finished", unended, id="recovery-unfinished"
        )
    return plan


def _known_ca(plan: Plan, subject: Subject) -> Plan:
    cluster, facts = subject.etcd.cluster, subject.etcd.learned.facts
    if not any(m.machine in facts for m in cluster.members):
        raise AssertionError(f"{subject.command} sends certificates, and has looked at no member")
    tls.authority(cluster, facts, write=False)
    return plan


def _other_clusters(plan: Plan, subject: Subject) -> Plan:
    if Guard.OTHER_CLUSTERS not in subject.etcd.learned.passed:
        what = f"{subject.command} did not ask whether other clusters use this etcd"
        raise PreflightFailed(
            what,
            [Problem("etcd", what, id="other-clusters-unknown")],
            id="other-clusters-unknown",
        )
    return plan


def _leases(plan: Plan, subject: Subject) -> Plan:
    """A worker that is restarted while etcd grants no lease loses its registration."""
    if subject.leases:
        seen = health.observe(subject.etcd)
        if not any(m.status is not None for m in seen.members):
            what = "no member says whether etcd grants leases"
            raise Unhealthy(what, seen.problems, id="quorum-lost")
        gates.require_writable(seen)
    return plan


CHECKS: Mapping[Guard, Callable[[Plan, Subject], Plan]] = {
    Guard.RUN_LOCK: _run_lock,
    Guard.TOOL_VERSION: _tool_version,
    Guard.WHICH_CLUSTER: _which_cluster,
    Guard.UNFINISHED: _unfinished,
    Guard.KNOWN_CA: _known_ca,
    Guard.OTHER_CLUSTERS: _other_clusters,
    Guard.LEASES: _leases,
}
