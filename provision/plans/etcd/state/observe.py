"""The observed state: the members' hosts, the running cluster's health and its membership."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from provision import artifacts
from provision.artifacts import Artifact
from provision.dataclass import dataclass
from provision.errors import PreflightFailed, Problem
from provision.etcd.api.values import Login
from provision.etcd.cluster import health, todo_keys
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth
from provision.etcd.cluster.todo_keys import Pending
from provision.etcd.member import desired, membership_diff, recovery_marker, routes, tarball
from provision.etcd.member.membership_diff import MemberList
from provision.host import fitness, gather, preflight
from provision.host.facts import HostFacts, Probe
from provision.host.resources import MARKER, holds
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine
from provision.plans.etcd.state import member_preflight

#: Unpacked, an etcd release takes about four times its tarball.
UNPACKED = 5


@dataclass(frozen=True, slots=True)
class Running:
    """A running cluster: its members as registered in etcd, and the health of its voters.

    ``health`` is the health at the registered addresses, ``declared`` at the inventory's addresses.
    """

    roster: MemberList
    health: ClusterHealth
    declared: ClusterHealth
    pending: Pending

    @property
    def cluster(self) -> EtcdCluster:
        """The cluster of the voters, each at its registered address."""
        return self.health.cluster

    @property
    def healthy(self) -> frozenset[str]:
        """The names of the voters that serve. Their data may still be wrong: the alarm CORRUPT may
        name the wrong member, so only :mod:`provision.etcd.cluster.hashes` can tell."""
        voters = {m.member.name for m in self.health.members}
        return frozenset(
            m.member.name
            for m in (*self.health.members, *self.declared.members)
            if m.healthy and m.member.name in voters
        )

    @property
    def to_clean(self) -> Mapping[str, str]:
        """The addresses of removed members' hosts that an earlier run has not cleaned, by name.

        A member with that name may have joined again while the note is still there: the host of a
        present member is never cleaned.
        """
        there = {r.name for r in self.roster.registered} | {m.name for m in self.cluster.members}
        return {n: address for n, address in self.pending.clean.items() if n not in there}

    @property
    def alarms(self) -> frozenset[str]:
        """The kinds of alarm that stand."""
        return self.health.alarms | self.declared.alarms


@dataclass(frozen=True, slots=True)
class EtcdState:
    """Everything a plan is made from.

    ``health`` is the health of the declared members; ``running`` is None when no member answers.
    ``facts`` has no machines of dispensable members that do not answer.
    """

    artifact: Artifact | None
    facts: Mapping[Machine, HostFacts]
    health: ClusterHealth
    warnings: tuple[Problem, ...] = ()
    running: Running | None = None


def observe(
    etcd: Etcd,
    dispensable: Collection[str] = (),
    *,
    recovering: bool = False,
) -> EtcdState:
    """Look at every member's host and at the running cluster, at the same time.

    The hosts of ``dispensable`` members need not answer. ``recovering``: the call is part of an
    unfinished recovery. Raises :class:`PreflightFailed` with every problem found; nothing is
    changed.
    """
    cluster = etcd.cluster
    spared = {m.machine for m in cluster.members if m.name in dispensable}
    # What the guard's look has seen; a later call looks again.
    looked, etcd.learned.looked = etcd.learned.looked, {}
    asked, etcd.learned.asked = etcd.learned.asked, None
    with ThreadPoolExecutor(2) as pool:
        looking = pool.submit(_cluster, etcd, asked)
        problems: list[Problem] = []
        artifact = None
        if not cluster.source.package:
            with preflight.noting(problems):
                artifact = artifacts.fetch(cluster.source, artifacts.default_cache(), unread=True)
        probes = _probes(cluster, artifact)
        seen_before = {m: f for m, (probe, f) in looked.items() if probes.get(m) == probe}
        facts, unreachable = gather.gather_facts(
            etcd.fleet,
            {m: p for m, p in probes.items() if m not in spared and m not in seen_before},
        )
        facts = {m: f for m in probes if (f := seen_before.get(m) or facts.get(m)) is not None}
        problems += unreachable
        if spared:
            found, absent = gather.gather_facts(etcd.fleet, {m: probes[m] for m in spared})
            facts |= found
            problems += [replace(p, severity="warning") for p in absent]
        facts = routes.as_peers_see(cluster.members, facts)
        if (
            artifact is not None
            and artifact.unread
            and not _is_everywhere(cluster, artifact, facts)
        ):
            with preflight.noting(problems):  # a host is to get it: its content counts
                artifact = artifacts.fetch(cluster.source, artifacts.default_cache())
        reached = tuple(m for m in cluster.members if m.machine in facts)
        if not recovering:
            problems += recovery_marker.problems(cluster, facts)
        problems += fitness.problems(
            etcd.fleet,
            cluster.name,
            probes,
            facts,
            rooms=_rooms(cluster, artifact, facts),
            tarballs=[artifact],
            take_over=cluster.take_over,
            command="deploy-etcd",
        )
        problems += tarball.problems([artifact])
        problems += member_preflight.members(replace(cluster, members=reached), facts)
        warnings = preflight.require(problems)
        etcd.learned.facts = facts
        seen, running = looking.result()
        warnings += preflight.require(member_preflight.ways(seen, dispensable))
        return EtcdState(artifact, facts, seen, warnings, running)


def probes(etcd: Etcd) -> Mapping[Machine, Probe]:
    """What :func:`observe` will ask the members' hosts, for a look before it; nothing when that is
    not known yet."""
    cluster = etcd.cluster
    if cluster.source.package:
        return _probes(cluster, None)
    artifact = artifacts.declared(cluster.source, artifacts.default_cache())
    return _probes(cluster, artifact) if artifact is not None else {}


def _probes(cluster: EtcdCluster, artifact: Artifact | None) -> dict[Machine, Probe]:
    return {m.machine: desired.probe(cluster, m, artifact) for m in cluster.members}


def require_running(observed: EtcdState) -> Running:
    """The running cluster. Raises :class:`PreflightFailed` when no member answers."""
    if observed.running is None:
        raise PreflightFailed(
            "no member of the cluster answers",
            [
                *observed.health.problems,
                Problem("etcd", "is not running", "invoke deploy-etcd", id="etcd-not-running"),
            ],
            id="etcd-not-running",
        )
    return observed.running


def _cluster(
    etcd: Etcd, asked: tuple[Login | None, object] | None = None
) -> tuple[ClusterHealth, Running | None]:
    """``asked``: what a look before this one has seen, with its login; it counts for the same
    members, cluster and login."""
    cluster = etcd.cluster
    login, before = asked or (None, None)
    if (
        isinstance(before, ClusterHealth)
        and login == etcd.login
        and before.cluster.members == cluster.members
        and before.cluster.established == cluster.established
    ):
        seen = replace(before, cluster=cluster)
    else:
        seen = health.observe(etcd)
    if not seen.healthy_count and any(m.refused for m in seen.members):
        # A cluster that refuses the login must not count as a cluster that is down.
        raise PreflightFailed(
            "etcd refuses the login of this tool",
            [
                Problem(p.where, p.what, "see etcd.auth.root_password in the inventory", id=p.id)
                for p in seen.problems
            ],
            id="etcd-login-refused",
        )
    if not seen.registered:
        return seen, None
    there = membership_diff.member_list(cluster, seen.registered)
    voters = seen
    if _by_name(there.voters) != _by_name(cluster.members):  # etcd lists them in another order
        # Members that are not declared, or declared with another address, are looked at, too.
        voters = health.observe(etcd.with_cluster(replace(cluster, members=there.voters)))
        if voters.registered:
            there = membership_diff.member_list(cluster, voters.registered)
    return seen, Running(there, voters, seen, todo_keys.read(voters, etcd))


def _by_name(members: Sequence[EtcdMember]) -> dict[str, EtcdMember]:
    return {m.name: m for m in members}


def _is_everywhere(
    cluster: EtcdCluster, artifact: Artifact, facts: Mapping[Machine, HostFacts]
) -> bool:
    """Whether every host has what the tarball holds."""
    tree = f"{cluster.install_dir}/{cluster.version}"
    return all(holds(f, tree, artifact) for f in facts.values())


def _rooms(
    cluster: EtcdCluster, artifact: Artifact | None, facts: Mapping[Machine, HostFacts]
) -> dict[Machine, list[preflight.SpaceRequirement]]:
    if artifact is None:
        return {}
    tree = f"{cluster.install_dir}/{cluster.version}"
    room = preflight.SpaceRequirement(
        cluster.install_dir, artifact.room(UNPACKED), "the etcd release"
    )
    return {m: [room] for m, f in facts.items() if (f.text(f"{tree}/{MARKER}") is None)}
