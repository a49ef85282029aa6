"""What an edited inventory means for the members: who joins, who moves, and who may leave.

:mod:`membership_diff` makes an ordered list of changes from it, and :mod:`member_steps` makes steps
from these changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from provision.dataclass import dataclass
from provision.errors import PreflightFailed, Problem, UsageError
from provision.etcd.member import desired, membership_diff
from provision.etcd.member.membership_diff import ChangeKind, MemberChange
from provision.inventory.resolved import EtcdCluster, EtcdMember
from provision.plans.etcd.state.observe import EtcdState, Running, require_running


@dataclass(frozen=True, slots=True)
class Declared:
    """The changes that bring the running cluster's members to the inventory, in a safe order.

    ``left`` are removals that nobody has asked for: an inventory without a member may be an older
    version of the file. ``unknown`` are names to remove that belong to no member.
    """

    moves: tuple[MemberChange, ...] = ()
    left: tuple[MemberChange, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def names_left(self) -> frozenset[str]:
        return frozenset(m.member.name for m in self.left)

    @property
    def voters_left(self) -> tuple[EtcdMember, ...]:
        """The voters that stay although the inventory does not declare them, or declares them at
        another host."""
        return tuple(m.member for m in self.left if not m.learner)

    @property
    def notes(self) -> list[Problem]:
        found = []
        for move in self.left:
            m = move.member
            what = (
                f"is a member at {m.peer_url} that the inventory does not have; it is not removed"
            )
            remedy = f"declare it, or remove it: invoke deploy-etcd --remove {m.name}"
            found.append(
                Problem(f"etcd member {m.name}", what, remedy, "warning", id="member-not-declared")
            )
        return found


def declared_moves(
    cluster: EtcdCluster, observed: EtcdState, remove: Collection[str] | None = None
) -> Declared:
    """The changes of the members. ``remove`` are the names of the members that may be removed;
    None: every member that the inventory does not have.

    Raises :class:`PreflightFailed` for a change that may also be a mistake. Raises
    :class:`UsageError` for a name in ``remove`` that the inventory declares at the host where the
    member runs.
    """
    running = require_running(observed)
    _refuse_the_unclear(cluster, observed, running)
    there = running.roster
    moves: list[MemberChange] = [*membership_diff.additions(cluster.members, there)]
    left: list[MemberChange] = []

    def agreed(move: MemberChange) -> bool:
        return remove is None or bool({move.member.name, f"{move.id:x}"} & set(remove))

    for move in membership_diff.updates(cluster.members, there):
        if desired.has_data(move.member, observed.facts[move.member.machine]):
            moves.append(move)
            continue
        # Another host under the old name, without data to go on from: this is a replacement.
        old = [r for r in there.registered if r.id == move.id]
        gone = [membership_diff.elsewhere(m) for m in membership_diff.removals(cluster, old)]
        if all(map(agreed, gone)):
            moves += [*gone, MemberChange(ChangeKind.ADD, move.member)]
        else:
            left += gone
    for move in membership_diff.removals(
        cluster, membership_diff.undeclared_members(cluster, there)
    ):
        (moves if agreed(move) else left).append(move)
    known = {text for m in (*moves, *left) if m.id for text in (m.member.name, f"{m.id:x}")}
    unknown = [name for name in remove or () if name not in known]
    if kept := [name for name in unknown if any(m.name == name for m in cluster.members)]:
        raise UsageError(
            f"--remove {kept[0]}: the inventory declares it; take it out of etcd.members first, or "
            f"use invoke remove-member {kept[0]}",
            id="option-invalid",
        )
    return Declared(membership_diff.ordered(moves, running.healthy), tuple(left), tuple(unknown))


def settled(cluster: EtcdCluster, moves: Iterable[MemberChange]) -> tuple[EtcdMember, ...]:
    """The declared members that no change in ``moves`` concerns."""
    moving = {move.member.name for move in moves}
    return tuple(m for m in cluster.members if m.name not in moving)


def _refuse_the_unclear(cluster: EtcdCluster, observed: EtcdState, running: Running) -> None:
    problems: list[Problem] = []
    leaving = [
        membership_diff.as_registered(cluster, r)
        for r in membership_diff.undeclared_members(cluster, running.roster)
    ]
    for member in cluster.members:
        facts = observed.facts[member.machine]
        where = member.place
        there = running.roster.find(member)
        other = running.roster.holder(member)
        if other is not None:
            what = f"has the peer URL of {other.name}, a member of the running cluster"
            remedy = (
                f"a member cannot change its name: call it {other.name}, or invoke "
                f"remove-member {other.name} first"
            )
            problems.append(Problem(where, what, remedy, id="members-unclear"))
        elif there is not None and there.name and member.name in cluster.established.odd:
            problems.append(_odd(cluster, member, where))
        elif there is None:
            if any(old.machine == member.machine for old in leaving):
                what = "is on the host of a member that is no longer in the inventory"
                problems.append(
                    Problem(
                        where,
                        what,
                        "remove that one first: invoke remove-member",
                        id="members-unclear",
                    )
                )
        elif there.name and _only_scheme_differs(member, there.peer_urls):
            what = (
                f"peer URL is {', '.join(there.peer_urls)} in the cluster, but "
                f"{member.peer_url} in the inventory"
            )
            problems.append(
                Problem(
                    where,
                    what,
                    "deploy-etcd turns peer TLS on; nothing turns it off again",
                    id="members-unclear",
                )
            )
        elif (
            there.client_urls
            and not there.is_learner
            and member.peer_url in there.peer_urls
            and not desired.has_data(member, facts)
        ):
            what, remedy = desired.what_is_lost(cluster, member, facts)
            problems.append(Problem(where, what, remedy, id="member-data-lost"))
    if problems:
        raise PreflightFailed(
            "the members differ from the inventory in a way that is not clear",
            problems,
            id="members-unclear",
        )


def _odd(cluster: EtcdCluster, member: EtcdMember, where: str) -> Problem:
    option = f" --cluster-id {cluster.established.name}" if cluster.established.name else ""
    what = "its data is not from the cluster that serves"
    remedy = f"invoke replace-member {member.name}{option}: its data is kept aside"
    return Problem(where, what, remedy, id="member-odd")


def _only_scheme_differs(member: EtcdMember, urls: Sequence[str]) -> bool:
    rest = member.peer_url.partition("://")[2]
    return any(u != member.peer_url and u.partition("://")[2] == rest for u in urls)
