"""Common parts of the plans for members: their steps, and the workers' new endpoints."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from provision.dataclass import dataclass
from provision.engine.plan import Action, Plan, Step
from provision.errors import Problem, UsageError
from provision.etcd.cluster import reconfigure, todo_keys
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import membership_diff
from provision.etcd.member.membership_diff import ChangeKind, MemberChange
from provision.etcd.pki import tls
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory
from provision.plans.etcd.members import cut_off
from provision.plans.etcd.members.member_steps import MemberChanges, Steps, build, retire
from provision.plans.etcd.state.observe import EtcdState, Running, require_running


@dataclass(frozen=True, slots=True)
class Options:
    """How the operator wants a change of the members."""

    #: False for a plan that is only shown: the cluster's CA is not made.
    write: bool
    #: False leaves the workers' endpoint lists as they are.
    workers: bool
    #: The members whose data is deleted, not kept aside.
    delete: Collection[str] = ()
    #: Other clusters in this etcd, whose live workers may lose a client URL that ends.
    lock_out: Sequence[str] = ()
    #: The operator's word that no other cluster needs a client URL that ends, when nobody can say.
    agreed: bool = False


def plan_of(
    command: str,
    inventory: Inventory,
    etcd: Etcd,
    observed: EtcdState,
    change: MemberChanges,
    after: Sequence[EtcdMember],
    options: Options,
) -> Plan:
    """The plan of ``change``. ``after``: the members for the workers' endpoint lists."""
    running, moves = require_running(observed), change.moves
    ca = tls.authority(etcd.cluster, observed.facts, write=options.write)
    if moves:
        tls.require_settled(etcd.cluster, observed.facts, ca)
    coming = [m.member for m in moves if m.kind is not ChangeKind.REMOVE]
    told = tls.require(etcd.cluster, coming, observed.facts, ca)
    made = build(etcd, observed, replace(change, delete=options.delete), ca)
    made.steps, cut = cut_off.ask(
        inventory, etcd, made.steps, made.going, options.lock_out, agreed=options.agreed
    )
    made.notes[:0] = (*observed.warnings, *told, *cut)
    going = {m.id for m in moves if m.kind is ChangeKind.REMOVE}
    staying = [
        m.member
        for m in membership_diff.removals(
            etcd.cluster, membership_diff.undeclared_members(etcd.cluster, running.roster)
        )
        if m.id not in going and not m.learner
    ]
    become = with_members(inventory, (*after, *staying))
    with_workers(made, become, etcd, running, bool(moves), options.workers)
    guards = [m.machine for m in (*etcd.cluster.members, *after) if m.machine in observed.facts]
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
    etcd: Etcd,
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
    alluxio, etcd = inventory.alluxio, etcd.with_cluster(inventory.etcd)
    if (
        alluxio is None
        or not alluxio.membership.in_etcd
        or not (changed or running.pending.workers)
    ):
        return
    from provision.plans.alluxio import endpoints

    there = etcd.with_cluster(running.cluster)
    early = [_note_workers(there)] if changed and not running.alarms else []
    late = [_note_workers(etcd)] if changed and running.alarms else []
    if not wanted:
        remedy = "run invoke deploy-etcd without --no-workers, or invoke start-workers"
        what = "the endpoint lists of the workers are stale (--no-workers)"
        made.notes.append(Problem("alluxio.workers", what, remedy, "warning", id="endpoints-stale"))
        made.steps[:0] = early
        return
    told = endpoints.steps(inventory, alluxio, etcd, running.cluster)
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
        made.steps.append(
            Step(
                "record that every worker knows the endpoints",
                (),
                (
                    Action(
                        "etcd: the workers' endpoint lists are up to date",
                        lambda: reconfigure.with_leader(etcd, todo_keys.forget_workers),
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


def _note_workers(etcd: Etcd) -> Step:
    return Step(
        "record that the workers need the new endpoints",
        (),
        (
            Action(
                "etcd: the workers' endpoint lists are about to be stale",
                lambda: reconfigure.with_leader(etcd, todo_keys.note_workers),
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
            f"the data of {name} is not from the cluster that serves: this command "
            "only keeps it aside. Leave --delete-data out; later, invoke kept-data --delete "
            "deletes it",
            id="option-invalid",
        )


def has_leftovers(member: EtcdMember, observed: EtcdState) -> bool:
    """Whether the host of a declared member that etcd does not have is to be cleaned."""
    facts = observed.facts.get(member.machine)
    return facts is not None and bool(retire(member, facts, ()))
