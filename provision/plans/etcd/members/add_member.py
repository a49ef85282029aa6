"""``add-member``: a declared member joins as a learner, and becomes a voter."""

from __future__ import annotations

from collections.abc import Collection

from provision.engine.plan import Plan
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import membership_diff
from provision.inventory.resolved import Inventory
from provision.plans.etcd.members import member_plan
from provision.plans.etcd.members.member_plan import Options
from provision.plans.etcd.members.member_steps import MemberChanges
from provision.plans.etcd.state.observe import EtcdState, require_running


def plan(
    inventory: Inventory,
    etcd: Etcd,
    observed: EtcdState,
    name: str,
    options: Options,
    *,
    recovering: bool = False,
    sparing: Collection[str] = (),
) -> Plan:
    """The plan of ``add-member``: add ``name``, or every declared member that etcd does not have.

    ``recovering``: the member comes back after a recovery, with any release. ``sparing``: kinds of
    alarm that may stand, because a recovered cluster's data may contain them.
    """
    running = require_running(observed)
    cluster = etcd.cluster
    wanted = [member_plan.declared_member(inventory, name)] if name else list(cluster.members)
    moves = membership_diff.additions(wanted, running.roster)
    after = member_plan.voters_after(cluster, running, moves)
    change = MemberChanges(moves, recovering=recovering, sparing=sparing)
    return member_plan.plan_of("add-member", inventory, etcd, observed, change, after, options)
