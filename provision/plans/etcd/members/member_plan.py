"""Common parts of the plans for members: their steps, and the workers' new endpoints."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from provision.engine.plan import Action, Plan, Step
from provision.errors import Problem, UsageError
from provision.etcd.cluster import reconfigure, todo_keys
from provision.etcd.member import membership_diff
from provision.etcd.member.membership_diff import ChangeKind, MemberChange
from provision.etcd.pki import tls
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory
from provision.plans.alluxio import endpoints
from provision.plans.etcd.members.member_steps import Steps, build, retire
from provision.plans.etcd.state.observe import EtcdState, Running, require_running
from provision.ssh.session import Fleet


def plan_of(
    command: str,
    inventory: Inventory,
    after: Sequence[EtcdMember],
    fleet: Fleet,
    observed: EtcdState,
    moves: Sequence[MemberChange],
    delete: Collection[str],
    write: bool,
    workers: bool,
    leftovers: Sequence[EtcdMember] = (),
    clean: Collection[str] = (),
    *,
    recovering: bool = False,
    odd: Collection[str] = (),
    sparing: Collection[str] = (),
) -> Plan:
    """``after``: the members for the workers' endpoint lists. ``leftovers``: declared members that
    etcd does not have; their hosts are cleaned. ``odd``, ``sparing``: see :func:`build`."""
    running = require_running(observed)
    owed = {*clean, *(m.name for m in leftovers if _has_leftovers(inventory.etcd, m, observed))}
    ca = tls.authority(inventory.etcd, observed.facts, write=write)
    if moves:
        tls.require_settled(inventory.etcd, observed.facts, ca)
    coming = [m.member for m in moves if m.kind is not ChangeKind.REMOVE]
    told = tls.require(inventory.etcd, coming, observed.facts, ca)
    made = build(
        inventory,
        fleet,
        observed,
        moves,
        (),
        delete,
        ca=ca,
        clean=sorted(owed),
        recovering=recovering,
        sparing=sparing,
        odd=odd,
    )
    made.notes[:0] = (*observed.warnings, *told)
    going = {m.id for m in moves if m.kind is ChangeKind.REMOVE}
    staying = [
        m.member
        for m in membership_diff.removals(
            inventory.etcd, membership_diff.undeclared_members(inventory.etcd, running.roster)
        )
        if m.id not in going and not m.learner
    ]
    become = with_members(inventory, (*after, *staying))
    with_workers(made, become, fleet, running, bool(moves), workers)
    guards = [m.machine for m in (*inventory.etcd.members, *after) if m.machine in observed.facts]
    return Plan(
        command,
        inventory.cluster,
        tuple(made.steps),
        notes=tuple(made.notes),
        guards=tuple(dict.fromkeys(guards)),
    )


def with_workers(
    made: Steps,
    inventory: Inventory,
    fleet: Fleet,
    running: Running,
    changed: bool,
    wanted: bool,
) -> None:
    """Add the steps that give the workers the endpoints of ``inventory``, when these have changed.
    The steps come after new members have joined, and before working members are removed.

    A note in etcd says that the workers need the endpoints. It is there from before the first
    change until the last worker has them. While an alarm stands, etcd does not store the note, and
    a restarted worker gets no lease: then both come after all other steps.
    """
    alluxio = inventory.alluxio
    if (
        alluxio is None
        or not alluxio.membership.in_etcd
        or not (changed or running.pending.workers)
    ):
        return
    early = [_note_workers(running.cluster, fleet)] if changed and not running.alarms else []
    late = [_note_workers(inventory.etcd, fleet)] if changed and running.alarms else []
    if not wanted:
        remedy = "run invoke deploy-etcd without --no-workers, or invoke start-workers"
        what = "the endpoint lists of the workers are stale (--no-workers)"
        made.notes.append(Problem("alluxio.workers", what, remedy, "warning", id="endpoints-stale"))
        made.steps[:0] = early
        return
    told = endpoints.steps(inventory, alluxio, fleet, running.cluster)
    if told.steps and made.standing:
        # While the alarm stands, a restarted worker gets no lease.
        remedy = "run invoke deploy-etcd when the alarm is solved"
        what = "the endpoint lists of the workers are stale until the alarm is solved"
        made.notes.append(Problem("alluxio.workers", what, remedy, "warning", id="endpoints-stale"))
        return
    made.notes += told.notes
    if told.steps:
        at = len(made.steps) if made.leaving is None or running.alarms else made.leaving
        made.steps[at:at] = [*late, *told.steps]
        made.steps[:0] = early
    if told.complete and (told.steps or running.pending.workers):
        cluster = inventory.etcd
        made.steps.append(
            Step(
                "note that every worker knows the endpoints",
                (),
                (
                    Action(
                        "etcd: the workers' endpoint lists are up to date",
                        lambda: reconfigure.with_leader(cluster, fleet, todo_keys.forget_workers),
                    ),
                ),
            )
        )


def with_members(inventory: Inventory, members: Sequence[EtcdMember]) -> Inventory:
    """A copy of the inventory with these etcd members."""
    etcd = replace(inventory.etcd, members=tuple(members))
    alluxio = inventory.alluxio
    if alluxio is not None:
        alluxio = replace(alluxio, etcd_endpoints=etcd.endpoints)
    return replace(inventory, etcd=etcd, alluxio=alluxio)


def _note_workers(cluster: EtcdCluster, fleet: Fleet) -> Step:
    return Step(
        "note that the workers need the new endpoints",
        (),
        (
            Action(
                "etcd: the workers' endpoint lists are about to be stale",
                lambda: reconfigure.with_leader(cluster, fleet, todo_keys.note_workers),
            ),
        ),
    )


def voters_after(
    cluster: EtcdCluster, running: Running, moves: Sequence[MemberChange]
) -> tuple[EtcdMember, ...]:
    """The declared members that are voters, or will be after ``moves``."""
    names = {v.name for v in running.cluster.members} | {
        m.member.name for m in moves if m.kind is ChangeKind.ADD
    }
    return tuple(m for m in cluster.members if m.name in names)


def declared_member(inventory: Inventory, name: str) -> EtcdMember:
    found = next((m for m in inventory.etcd.members if m.name == name), None)
    if found is None:
        names = ", ".join(m.name for m in inventory.etcd.members)
        raise UsageError(
            f"{name!r} is not in etcd.members of {inventory.path} (there: {names})",
            id="name-unknown",
        )
    return found


def require_odd_is_kept(cluster: EtcdCluster, name: str, delete: Collection[str]) -> None:
    if delete and name in cluster.established.odd:
        raise UsageError(
            f"the data of {name} is not from the cluster that serves: it is kept aside, not "
            "deleted; when you know that you do not need it, delete it with invoke kept-data",
            id="option-invalid",
        )


def _has_leftovers(cluster: EtcdCluster, member: EtcdMember, observed: EtcdState) -> bool:
    facts = observed.facts.get(member.machine)
    return facts is not None and bool(retire(member, facts, ()))
