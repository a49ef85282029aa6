"""``remove-member``: a member leaves etcd, and its host is cleaned."""

from __future__ import annotations

from dataclasses import replace

from provision.engine.plan import Plan
from provision.errors import UsageError
from provision.etcd.cluster import hashes
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import membership_diff
from provision.inventory.resolved import Inventory
from provision.plans.etcd.members import member_plan
from provision.plans.etcd.members.member_plan import Options, has_leftovers
from provision.plans.etcd.members.member_steps import MemberChanges
from provision.plans.etcd.state.observe import EtcdState, Running, require_running


def plan(
    inventory: Inventory, etcd: Etcd, observed: EtcdState, name: str, options: Options
) -> Plan:
    """The plan of ``remove-member``: ``name`` leaves etcd, and its host is cleaned."""
    running = require_running(observed)
    member_plan.require_odd_is_kept(etcd.cluster, name, options.delete)
    odd, sparing = _remedy_of_an_alarm(running, etcd, name)
    declared = next((m for m in etcd.cluster.members if m.name == name), None)
    there = next((r for r in running.roster.registered if name in (r.name, f"{r.id:x}")), None)
    if there is None and declared is not None:
        there = running.roster.find(declared)
    if there is None and declared is None and name not in running.to_clean:
        raise UsageError(
            f"{name!r} is neither a member of the running cluster nor declared", id="name-unknown"
        )
    moves = membership_diff.removals(etcd.cluster, [there] if there is not None else [])
    if there is not None and declared is not None:
        # The inventory gives the member's address, and the way to reach its host.
        moves = [replace(moves[0], member=replace(moves[0].member, name=name))]
    after = tuple(m for m in etcd.cluster.members if m.name != name)
    if not after:
        raise UsageError(
            f"{name} is the only member; invoke destroy takes the cluster away",
            id="command-not-applicable",
        )
    left = declared is not None and there is None and has_leftovers(declared, observed)
    clean = [name] if left or name in running.to_clean else []
    change = MemberChanges(moves, clean=clean, odd=odd, sparing=sparing)
    return member_plan.plan_of("remove-member", inventory, etcd, observed, change, after, options)


def _remedy_of_an_alarm(
    running: Running, etcd: Etcd, name: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The members that differ from the majority, and the kinds of alarm that may stand while
    ``name`` is removed. Alarms may stand when ``name`` is down, because nothing else can be
    repaired before, or when its data differ."""
    sparing: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    if running.alarms and name not in running.healthy:
        sparing = tuple(running.alarms)
    if "CORRUPT" in running.alarms:
        odd = hashes.compare(running.health, etcd).differing
        sparing = sparing or (("CORRUPT",) if name in odd else ())
    return odd, sparing
