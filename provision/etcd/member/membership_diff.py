"""The changes from the present members to the declared members, in order. Pure functions.

The order follows etcd's "Runtime reconfiguration" guide. A failed member is removed before a new
member is added (etcd refuses to add a member while a voter is away). A new member joins as a
learner. A working member is removed only after the new members have joined.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from enum import Enum
from urllib.parse import urlsplit

from provision.dataclass import dataclass
from provision.etcd.api.values import RegisteredMember
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine
from provision.text import counted, share, verb

NOT_DECLARED = "not in the inventory; address from etcd's list of members"


class ChangeKind(Enum):
    REMOVE = "remove"
    UPDATE = "update"
    ADD = "add"


@dataclass(frozen=True, slots=True)
class MemberChange:
    """One change of the membership.

    ``member`` is the member after the change, or for a removal the member before it. ``id`` is its
    id in etcd; an addition has an id when an earlier run has already added the member.
    ``learner``: the removed member has no vote.
    """

    kind: ChangeKind
    member: EtcdMember
    id: int | None = None
    learner: bool = False


@dataclass(frozen=True, slots=True)
class MemberList:
    """The members in etcd; ``voters`` are at their registered addresses."""

    registered: tuple[RegisteredMember, ...]
    voters: tuple[EtcdMember, ...]

    def find(self, member: EtcdMember) -> RegisteredMember | None:
        """``member`` as registered: by its name, or by its peer URL while it has no name yet."""
        for r in self.registered:
            if r.name == member.name or (not r.name and member.peer_url in r.peer_urls):
                return r
        return None

    def holder(self, member: EtcdMember) -> RegisteredMember | None:
        """The member that is registered with the peer URL of ``member`` under another name."""
        for r in self.registered:
            if r.name not in ("", member.name) and member.peer_url in r.peer_urls:
                return r
        return None


def member_list(cluster: EtcdCluster, registered: Sequence[RegisteredMember]) -> MemberList:
    """The members of a running cluster. An undeclared member gets the SSH settings of the first
    declared member, at the address of its own peer URL."""
    voters = (as_registered(cluster, r) for r in registered if r.name and not r.is_learner)
    return MemberList(tuple(registered), tuple(voters))


def as_registered(cluster: EtcdCluster, r: RegisteredMember) -> EtcdMember:
    """A registered member as a resolved member, at its address in etcd."""
    declared = next((m for m in cluster.members if m.name == r.name), None)
    if declared is not None and declared.peer_url in r.peer_urls:
        return declared
    template = declared or cluster.members[0]
    peer = urlsplit(r.peer_urls[0])
    client = urlsplit(r.client_urls[0]) if r.client_urls else None
    address = peer.hostname or template.address
    machine = declared.machine if declared else _machine(template.machine, address)
    return replace(
        template,
        name=r.name or f"{r.id:x}",
        machine=machine,
        address=address,
        peer_port=peer.port or template.peer_port,
        client_port=(client.port if client else None) or template.client_port,
        peer_tls=peer.scheme == "https",
        client_tls=client.scheme == "https" if client else template.client_tls,
        serves_at=None,
    )


def _machine(template: Machine, address: str) -> Machine:
    return replace(template, host=address, where=NOT_DECLARED)


def undeclared_members(cluster: EtcdCluster, seen: MemberList) -> list[RegisteredMember]:
    """The registered members that are not declared."""
    known = {r.id for m in cluster.members if (r := seen.find(m)) is not None}
    return [r for r in seen.registered if r.id not in known]


def additions(members: Iterable[EtcdMember], seen: MemberList) -> list[MemberChange]:
    """The changes for ``members`` that are not voters yet, with the progress of earlier runs."""
    voters = {v.name for v in seen.voters}
    found = []
    for m in members:
        if m.name not in voters:
            r = seen.find(m)
            found.append(MemberChange(ChangeKind.ADD, m, r.id if r is not None else None))
    return found


def updates(members: Iterable[EtcdMember], seen: MemberList) -> list[MemberChange]:
    """The changes for ``members`` that are voters under another peer URL than declared."""
    found = []
    for m in members:
        r = seen.find(m)
        if r is not None and r.name and m.peer_url not in r.peer_urls:
            found.append(MemberChange(ChangeKind.UPDATE, m, r.id))
    return found


def removals(cluster: EtcdCluster, members: Iterable[RegisteredMember]) -> list[MemberChange]:
    return [
        MemberChange(ChangeKind.REMOVE, as_registered(cluster, r), r.id, r.is_learner)
        for r in members
    ]


def elsewhere(move: MemberChange) -> MemberChange:
    """A removal at the member's registered host: the inventory now has another host under this
    name."""
    member = move.member
    machine = _machine(member.machine, member.address)
    return replace(move, member=replace(member, machine=machine))


def ordered(moves: Sequence[MemberChange], healthy: Collection[str]) -> tuple[MemberChange, ...]:
    """The order: remove dead members, change addresses, add new members, replace working members
    one by one, remove working members.

    A member that joins again under its own name is removed first: names are unique. Of working
    members, the next goes only when the one before has joined again. Otherwise the data would be on
    fewer and fewer hosts.
    """
    joining = {m.member.name for m in moves if m.kind is ChangeKind.ADD}
    leaving = [m.member.name for m in moves if m.kind is ChangeKind.REMOVE]
    replaced = [name for name in leaving if name in healthy and name in joining]

    def rank(move: MemberChange) -> tuple[int, ...]:
        name = move.member.name
        if name in replaced:
            return 4, replaced.index(name), move.kind is ChangeKind.ADD
        if move.kind is ChangeKind.REMOVE:
            return (5 if name in healthy else 0,)
        if move.kind is ChangeKind.UPDATE:
            return (1,)
        return (2 if move.id is not None else 3,)  # only one learner at a time

    return tuple(sorted(moves, key=rank))


def obstacle(
    voters: Collection[str], healthy: Collection[str], moves: Iterable[MemberChange]
) -> str:
    """Why ``moves`` in this order cannot keep a quorum of healthy voters all the time; empty when
    they can. ``voters`` and ``healthy`` are names."""
    all_of, well = set(voters), set(healthy) & set(voters)
    for move in moves:
        name = move.member.name
        if len(well) < quorum(len(all_of)):
            return (
                f"only {share(len(well), len(all_of), 'voter')} healthy: without a quorum "
                "nothing can be changed"
            )
        if move.kind is ChangeKind.ADD:
            if away := sorted(all_of - well):
                return (
                    f"{name} cannot be added while {', '.join(away)} {verb(away)} not healthy: "
                    f"start {verb(away, 'it', 'them')}, or invoke remove-member {away[0]} first"
                )
            all_of.add(name)
            well.add(name)
        elif move.kind is ChangeKind.UPDATE:
            if name in well and all_of - well:
                away = sorted(all_of - well)
                return (
                    f"{name} cannot be restarted while {', '.join(away)} {verb(away)} not healthy"
                )
            well.add(name)
        else:
            all_of.discard(name)
            well.discard(name)
            if not all_of:
                return f"{name} is the last voter: without it there is no cluster"
            if len(well) < quorum(len(all_of)):
                return (
                    f"without {name}, {len(well)} of {counted(len(all_of), 'voter')} would be "
                    f"healthy: no quorum ({quorum(len(all_of))})"
                )
    return ""


def quorum(voters: int) -> int:
    return voters // 2 + 1
