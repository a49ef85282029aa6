"""``move-leader``: hand leadership to another member, before work on the leader's host."""

from __future__ import annotations

from dataclasses import replace

from provision.engine.plan import Action, Plan, Step
from provision.errors import PreflightFailed, Problem
from provision.etcd.cluster import gates, health, reconfigure
from provision.etcd.cluster.handle import Etcd
from provision.inventory.resolved import Inventory
from provision.plans.etcd.members import member_plan


def plan(inventory: Inventory, etcd: Etcd, to: str) -> Plan:
    """The plan. It is empty when ``to`` leads already. Raises :class:`PreflightFailed` when ``to``
    is not healthy."""
    cluster = etcd.cluster
    member = member_plan.declared_member(inventory, to)
    seen = health.observe(etcd)
    if not seen.is_member_healthy(to):
        problems = seen.problems or [
            Problem(to, "is not a voter of the running cluster", id="member-not-joined")
        ]
        raise PreflightFailed(f"{to} is not healthy, and cannot lead", problems, id="member-down")
    if seen.leader == to:
        return Plan("move-leader", cluster.name)
    call = Action(
        f"etcd: move leadership from {seen.leader or 'no member'} to {to}",
        lambda: reconfigure.move_leadership_to(etcd, member),
    )
    # An alarm, or a third member that is down, does not stop the leader from leaving that host.
    serving = tuple(m for m in cluster.members if seen.is_member_healthy(m.name))
    left = etcd.with_cluster(replace(cluster, members=serving))
    after = gates.all_healthy(left, member, standing=seen.alarms)
    step = Step(f"make {to} the leader", (), (call,), after=after)
    return Plan("move-leader", cluster.name, (step,), guards=(member.machine,))
