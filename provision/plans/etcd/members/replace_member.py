"""``replace-member``: a dead member is removed, and a new one with its name joins."""

from __future__ import annotations

from provision.engine.plan import Plan
from provision.etcd.cluster import hashes
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import membership_diff
from provision.etcd.member.membership_diff import ChangeKind, MemberChange
from provision.inventory.resolved import Inventory
from provision.plans.etcd.members import member_plan
from provision.plans.etcd.members.member_plan import Options
from provision.plans.etcd.members.member_steps import MemberChanges
from provision.plans.etcd.state.observe import EtcdState, Running, require_running


def plan(
    inventory: Inventory, etcd: Etcd, observed: EtcdState, name: str, options: Options
) -> Plan:
    """The plan of ``replace-member``: remove the dead ``name``, and add a new one with that name.

    A member outside the cluster counts as dead, and so does a member with other data than the
    majority. The plan is empty when ``name`` is healthy: it was replaced already, or does not need
    it. Raises :class:`PreflightFailed` when the data of other members differ.
    """
    running = require_running(observed)
    member = member_plan.declared_member(inventory, name)
    member_plan.require_odd_is_kept(etcd.cluster, name, options.delete)
    found = running.roster.find(member)
    moves: list[MemberChange] = []
    odd = _odd_by_hash(running, etcd, name)
    if name not in running.healthy or name in odd:
        dead = found is not None and bool(found.name) and not found.is_learner
        if found is not None and dead:
            moves = [
                *membership_diff.removals(etcd.cluster, [found]),
                MemberChange(ChangeKind.ADD, member),
            ]
        else:
            moves = membership_diff.additions([member], running.roster)
    after = member_plan.voters_after(etcd.cluster, running, moves)
    change = MemberChanges(moves, odd=odd, sparing=("CORRUPT", "NOSPACE"))
    return member_plan.plan_of("replace-member", inventory, etcd, observed, change, after, options)


def _odd_by_hash(running: Running, etcd: Etcd, name: str) -> tuple[str, ...]:
    """The members that differ from the majority. Raises :class:`PreflightFailed` when members
    differ, and ``name`` serves and is not one of them."""
    found = hashes.compare(running.health, etcd)
    if name in running.healthy and name not in found.differing and not found.equal:
        raise hashes.differ(found)
    return found.differing
