"""Turns on peer TLS in a running plain cluster, one member at a time, on the same ports.

etcd accepts TLS files beside a plain peer listener (it logs that they are ignored there). It speaks
to each peer by the scheme of the peer's registered URL. So every member is first restarted with the
files, and its listener stays plain: from then on each member can reach plain and TLS peers. Then
the members change one by one. The cluster learns the member's https URL ("Update a member", runtime
reconfiguration guide), and the member is restarted to listen with TLS. Between these two steps the
member still hears the others over the streams that it opened itself. etcd's list of members shows
which members are done, so a killed run goes on.
"""

from __future__ import annotations

from dataclasses import replace

from provision.engine.plan import Action, Plan, Step
from provision.errors import PreflightFailed, Problem
from provision.etcd.cluster import gates, reconfigure
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.rolling import rolling_step
from provision.etcd.member import desired
from provision.etcd.member.desired import Leaf, MemberTls
from provision.etcd.pki import tls
from provision.host.diff import changes
from provision.host.effects import Effect
from provision.host.predict import after
from provision.inventory.resolved import EtcdCluster, EtcdMember
from provision.plans.etcd.state.observe import EtcdState, Running


def wanted(cluster: EtcdCluster, observed: EtcdState) -> bool:
    """Whether the inventory declares peer TLS, and some member is registered with a plain URL."""
    running = observed.running
    return running is not None and any(_is_plain(m, running) for m in cluster.members)


def plan(etcd: Etcd, observed: EtcdState, *, write: bool) -> Plan:
    """First all members get the files; then each gets its https URL, the leader last.

    Raises :class:`PreflightFailed` unless every declared member is there and healthy.
    """
    cluster, running = etcd.cluster, observed.running
    assert running is not None  # wanted() has checked it
    _require_all(cluster, observed, running)
    ca = tls.authority(cluster, observed.facts, write=write)
    members = gates.order(list(cluster.members), observed.health)
    facts = {m.name: observed.facts[m.machine] for m in members}
    steps: list[Step] = []
    given: dict[str, MemberTls] = {}
    for m in members:
        if not _is_plain(m, running):
            continue
        plain = replace(m, peer_tls=False)
        material = tls.material(cluster, m, facts[m.name], ca)
        files = desired.resources(cluster, plain, observed.artifact, material, facts[m.name])
        if todo := changes(files, facts[m.name]):
            steps.append(rolling_step(etcd, m, f"{m.name} can speak TLS to its peers", todo))
            facts[m.name] = after(files, facts[m.name])
            if material is not None:
                # Certificates that this run has made are valid.
                server = Leaf() if m.client_tls else None
                given[m.name] = replace(material, peer=Leaf(), server=server)
    # A killed run may have changed a member's URL in etcd without restarting the member. It comes
    # first: no other may be cut off at the same time.
    for m in sorted(members, key=lambda m: _is_plain(m, running)):
        there = running.roster.find(m)
        assert there is not None  # _require_all() has checked it
        if _is_plain(m, running):
            steps.append(_told(etcd, m, there.id))
        material = given.get(m.name) or tls.material(cluster, m, facts[m.name], ca)
        files = desired.resources(cluster, m, observed.artifact, material, facts[m.name])
        if todo := changes(files, facts[m.name]):
            steps.append(rolling_step(etcd, m, f"{m.name} listens by TLS only", todo))
    steps += tls.own_steps(cluster, ca)
    guards = tuple(m.machine for m in cluster.members)
    return Plan("deploy-etcd", cluster.name, tuple(steps), observed.warnings, guards)


def _is_plain(member: EtcdMember, running: Running) -> bool:
    there = running.roster.find(member)
    plain = replace(member, peer_tls=False).peer_url
    return member.peer_tls and there is not None and plain in there.peer_urls


def _require_all(cluster: EtcdCluster, observed: EtcdState, running: Running) -> None:
    gates.require_healthy(observed.health)
    known = {r.id for m in cluster.members if (r := running.roster.find(m)) is not None}
    absent = [m for m in cluster.members if running.roster.find(m) is None]
    problems = [
        Problem(
            m.place,
            "is not a member of the running cluster",
            id="member-not-joined",
        )
        for m in absent
    ]
    problems += [
        Problem(
            r.name or f"{r.id:x}", "is a member, but not in the inventory", id="member-not-declared"
        )
        for r in running.roster.registered
        if r.id not in known
    ]
    if problems:
        raise PreflightFailed(
            "peer TLS is turned on for all present members: change the members before or after "
            "that",
            problems,
            id="members-unclear",
        )


def _told(etcd: Etcd, member: EtcdMember, member_id: int) -> Step:
    others = [m for m in etcd.cluster.members if m.name != member.name]
    return Step(
        f"tell the cluster that {member.name} is at {member.peer_url}",
        calls=(
            Action(
                f"update member {member.name}: {member.peer_url}",
                lambda: reconfigure.update(etcd, member, member_id, others),
                (Effect.MEMBERS,),
            ),
        ),
        before=gates.require_others_healthy(etcd, member),
    )
