"""``add-member``, ``remove-member``, ``replace-member``, and what an edited inventory asks for.

Each becomes an ordered list of moves (:mod:`membership_diff`) and those become steps
(:mod:`member_steps`); then the workers are told the endpoints, if these have changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from provision.engine.plan import Call, Plan, Step
from provision.errors import PreflightFailed, Problem, UsageError
from provision.etcd.cluster import hashes, reconfigure, todo_keys
from provision.etcd.member import desired, membership_diff
from provision.etcd.member.membership_diff import Kind, Move
from provision.etcd.pki import tls
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory
from provision.plans.alluxio import endpoints
from provision.plans.etcd.members.member_steps import Steps, build, retire
from provision.plans.etcd.state.observe import Observed, Running, require_running
from provision.ssh.session import Fleet


def add(
    inventory: Inventory,
    fleet: Fleet,
    observed: Observed,
    name: str,
    *,
    write: bool,
    workers: bool,
    recovering: bool = False,
    sparing: Collection[str] = (),
) -> Plan:
    """The plan of ``add-member``: ``name``, or every declared member that etcd does not have.

    ``sparing``: kinds of alarm that may stand, as they may in the data of a recovered cluster.
    """
    running = require_running(observed)
    cluster = inventory.etcd
    wanted = [_declared(inventory, name)] if name else list(cluster.members)
    moves = membership_diff.additions(wanted, running.roster)
    after = _after(cluster, running, moves)
    return _plan(
        "add-member",
        inventory,
        after,
        fleet,
        observed,
        moves,
        (),
        write,
        workers,
        recovering=recovering,
        sparing=sparing,
    )


def remove(
    inventory: Inventory,
    fleet: Fleet,
    observed: Observed,
    name: str,
    delete: Collection[str],
    *,
    write: bool,
    workers: bool,
) -> Plan:
    """The plan of ``remove-member``: ``name`` leaves etcd, and its host is cleaned."""
    running = require_running(observed)
    _keep_what_is_odd(inventory.etcd, name, delete)
    odd, sparing = _remedy_of_an_alarm(running, fleet, name)
    declared = next((m for m in inventory.etcd.members if m.name == name), None)
    there = next((r for r in running.roster.registered if name in (r.name, f"{r.id:x}")), None)
    if there is None and declared is not None:
        there = running.roster.find(declared)
    if there is None and declared is None and name not in running.to_clean:
        raise UsageError(
            f"{name!r} is neither a member of the running cluster nor declared", id="name-unknown"
        )
    moves = membership_diff.removals(inventory.etcd, [there] if there is not None else [])
    if there is not None and declared is not None:
        # Where it is, and how its host is reached, is what the inventory says.
        moves = [replace(moves[0], member=replace(moves[0].member, name=name))]
    after = tuple(m for m in inventory.etcd.members if m.name != name)
    if not after:
        raise UsageError(
            f"{name} is the only member; invoke destroy takes the cluster away",
            id="command-not-applicable",
        )
    leftovers = [declared] if declared is not None and there is None else []
    return _plan(
        "remove-member",
        inventory,
        after,
        fleet,
        observed,
        moves,
        delete,
        write,
        workers,
        leftovers,
        {name} & set(running.to_clean),
        odd=odd,
        sparing=sparing,
    )


def replace_dead(
    inventory: Inventory,
    fleet: Fleet,
    observed: Observed,
    name: str,
    delete: Collection[str],
    *,
    write: bool,
    workers: bool,
) -> Plan:
    """The plan of ``replace-member``: the dead ``name`` goes, a new one of that name comes.

    One that stands outside the cluster counts as dead, and so does one whose data differ from
    the majority's. Empty when ``name`` is healthy: it was replaced already, or need not be.
    Raises :class:`PreflightFailed` when the data of others differ.
    """
    running = require_running(observed)
    member = _declared(inventory, name)
    _keep_what_is_odd(inventory.etcd, name, delete)
    found = running.roster.find(member)
    moves: list[Move] = []
    odd = _odd_by_hash(running, fleet, name)
    if name not in running.healthy or name in odd:
        dead = found is not None and bool(found.name) and not found.is_learner
        if found is not None and dead:
            moves = [*membership_diff.removals(inventory.etcd, [found]), Move(Kind.ADD, member)]
        else:
            moves = membership_diff.additions([member], running.roster)
    after = _after(inventory.etcd, running, moves)
    return _plan(
        "replace-member",
        inventory,
        after,
        fleet,
        observed,
        moves,
        delete,
        write,
        workers,
        odd=odd,
        sparing=("CORRUPT", "NOSPACE"),
    )


@dataclass(frozen=True, slots=True)
class Declared:
    """What makes the running cluster's members those of the inventory, in a safe order.

    ``left`` are removals that nobody has asked for: an inventory that does not name a member may be
    an older one. ``unknown`` are names to remove that are no member's.
    """

    moves: tuple[Move, ...] = ()
    left: tuple[Move, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def names_left(self) -> frozenset[str]:
        return frozenset(m.member.name for m in self.left)

    @property
    def voters_left(self) -> tuple[EtcdMember, ...]:
        """The voters that stay though the inventory does not declare them, or not at that host."""
        return tuple(m.member for m in self.left if not m.learner)

    @property
    def notes(self) -> list[Problem]:
        found = []
        for move in self.left:
            m = move.member
            what = f"is a member at {m.peer_url} that the inventory does not have; it is left"
            remedy = f"declare it, or let it go: invoke deploy-etcd --remove {m.name}"
            found.append(
                Problem(f"etcd member {m.name}", what, remedy, "warning", id="member-not-declared")
            )
        return found


def declared_moves(
    cluster: EtcdCluster, observed: Observed, remove: Collection[str] | None = None
) -> Declared:
    """What is to be done about the members. ``remove`` are the names of those that may go; None:
    any that the inventory does not have.

    Raises :class:`PreflightFailed` for what cannot be told from a mistake, and
    :class:`UsageError` for a name in ``remove`` that the inventory declares where it runs.
    """
    running = require_running(observed)
    _refuse_the_unclear(cluster, observed, running)
    there = running.roster
    moves: list[Move] = [*membership_diff.additions(cluster.members, there)]
    left: list[Move] = []

    def agreed(move: Move) -> bool:
        return remove is None or bool({move.member.name, f"{move.id:x}"} & set(remove))

    for move in membership_diff.updates(cluster.members, there):
        if desired.has_data(move.member, observed.facts[move.member.machine]):
            moves.append(move)
            continue
        # Another host under the old name, and no data to carry on with: a replacement.
        old = [r for r in there.registered if r.id == move.id]
        gone = [membership_diff.elsewhere(m) for m in membership_diff.removals(cluster, old)]
        if all(map(agreed, gone)):
            moves += [*gone, Move(Kind.ADD, move.member)]
        else:
            left += gone
    for move in membership_diff.removals(cluster, membership_diff.strangers(cluster, there)):
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


def settled(cluster: EtcdCluster, moves: Iterable[Move]) -> tuple[EtcdMember, ...]:
    """The declared members that none of ``moves`` is about."""
    moving = {move.member.name for move in moves}
    return tuple(m for m in cluster.members if m.name not in moving)


def _plan(
    command: str,
    inventory: Inventory,
    after: Sequence[EtcdMember],
    fleet: Fleet,
    observed: Observed,
    moves: Sequence[Move],
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
    """``after``: the members that the workers are to know. ``leftovers``: declared members that
    etcd does not have, whose hosts are cleaned. ``odd``, ``sparing``: see :func:`build`."""
    running = require_running(observed)
    owed = {*clean, *(m.name for m in leftovers if _has_leftovers(inventory.etcd, m, observed))}
    ca = tls.authority(inventory.etcd, observed.facts, write=write)
    if moves:
        tls.require_settled(inventory.etcd, observed.facts, ca)
    coming = [m.member for m in moves if m.kind is not Kind.REMOVE]
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
    going = {m.id for m in moves if m.kind is Kind.REMOVE}
    staying = [
        m.member
        for m in membership_diff.removals(
            inventory.etcd, membership_diff.strangers(inventory.etcd, running.roster)
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
    """Put in the steps that tell the workers the endpoints of ``inventory``, when they changed:
    after new members have come, before members that work go.

    That they are owed stands in etcd from before the first change until the last worker has it.
    """
    alluxio = inventory.alluxio
    if (
        alluxio is None
        or alluxio.membership == "STATIC"
        or not (changed or running.pending.workers)
    ):
        return
    if not wanted:
        remedy = "run invoke deploy-etcd without --no-workers, or invoke start-workers"
        what = "the endpoint lists of the workers are stale (--no-workers)"
        made.notes.append(Problem("alluxio.workers", what, remedy, "warning", id="endpoints-stale"))
        if changed and not running.alarms:
            made.steps.insert(0, _note_workers(running.cluster, fleet))
        return
    told = endpoints.steps(inventory, alluxio, fleet, running.cluster)
    if told.steps and made.standing:
        # A worker that restarts gets no lease.
        remedy = "run invoke deploy-etcd when the alarm is solved"
        what = "the endpoint lists of the workers are stale, and stay so until the alarm is solved"
        made.notes.append(Problem("alluxio.workers", what, remedy, "warning", id="endpoints-stale"))
        return
    made.notes += told.notes
    # While an alarm stands, etcd takes no note, and gives a worker that restarts no lease.
    before = len(made.steps) if made.leaving is None or running.alarms else made.leaving
    made.steps[before:before] = told.steps
    if told.steps and changed:
        if running.alarms:
            made.steps.insert(before, _note_workers(inventory.etcd, fleet))
        else:
            made.steps.insert(0, _note_workers(running.cluster, fleet))
    if told.complete and (told.steps or running.pending.workers):
        cluster = inventory.etcd
        made.steps.append(
            Step(
                "note that every worker knows the endpoints",
                (),
                (
                    Call(
                        "etcd: the workers' endpoint lists are up to date",
                        lambda: reconfigure.through_leader(
                            cluster, fleet, todo_keys.forget_workers
                        ),
                    ),
                ),
            )
        )


def with_members(inventory: Inventory, members: Sequence[EtcdMember]) -> Inventory:
    """The inventory as it would be with these etcd members."""
    etcd = replace(inventory.etcd, members=tuple(members))
    alluxio = inventory.alluxio
    if alluxio is not None:
        alluxio = replace(alluxio, etcd_endpoints=etcd.endpoints)
    return replace(inventory, etcd=etcd, alluxio=alluxio)


def _note_workers(cluster: EtcdCluster, fleet: Fleet) -> Step:
    return Step(
        "note that the workers are to be told",
        (),
        (
            Call(
                "etcd: the workers' endpoint lists are about to be stale",
                lambda: reconfigure.through_leader(cluster, fleet, todo_keys.note_workers),
            ),
        ),
    )


def _after(cluster: EtcdCluster, running: Running, moves: Sequence[Move]) -> tuple[EtcdMember, ...]:
    """The declared members that are voters, or will be after ``moves``."""
    names = {v.name for v in running.cluster.members} | {
        m.member.name for m in moves if m.kind is Kind.ADD
    }
    return tuple(m for m in cluster.members if m.name in names)


def _declared(inventory: Inventory, name: str) -> EtcdMember:
    found = next((m for m in inventory.etcd.members if m.name == name), None)
    if found is None:
        names = ", ".join(m.name for m in inventory.etcd.members)
        raise UsageError(
            f"{name!r} is not in etcd.members of {inventory.path} (there: {names})",
            id="name-unknown",
        )
    return found


def _refuse_the_unclear(cluster: EtcdCluster, observed: Observed, running: Running) -> None:
    problems: list[Problem] = []
    leaving = [
        membership_diff.as_registered(cluster, r)
        for r in membership_diff.strangers(cluster, running.roster)
    ]
    for member in cluster.members:
        facts = observed.facts[member.machine]
        where = f"{member.name} ({member.machine.where})"
        there = running.roster.find(member)
        other = running.roster.holder(member)
        if other is not None:
            what = f"has the peer URL of {other.name}, a member of the running cluster"
            remedy = (
                f"a member keeps its name for life: call it {other.name}, or invoke remove-member "
                f"{other.name} first"
            )
            problems.append(Problem(where, what, remedy, id="members-unclear"))
        elif there is not None and there.name and member.name in cluster.established.odd:
            problems.append(_odd(cluster, member, where))
        elif there is None:
            if any(old.machine == member.machine for old in leaving):
                what = "is on the host of a member that is not in the inventory any more"
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
                f"peer URL is {', '.join(there.peer_urls)} in the cluster, {member.peer_url} here"
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
            "the members differ from the inventory in a way that is not clear; nothing was changed",
            problems,
            id="members-unclear",
        )


def _keep_what_is_odd(cluster: EtcdCluster, name: str, delete: Collection[str]) -> None:
    if delete and name in cluster.established.odd:
        raise UsageError(
            f"the data of {name} are not of the cluster that serves: they are kept aside, not "
            "deleted; invoke kept-data deletes them when they are known to be of no use",
            id="option-invalid",
        )


def _odd_by_hash(running: Running, fleet: Fleet, name: str) -> tuple[str, ...]:
    """The members that differ from the majority. Raises :class:`PreflightFailed` when some differ
    and ``name``, which serves, is none of them."""
    found = hashes.compare(running.health, fleet)
    if name in running.healthy and name not in found.differing and not found.equal:
        raise hashes.differ(found)
    return found.differing


def _remedy_of_an_alarm(
    running: Running, fleet: Fleet, name: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The members that differ from the majority, and the kinds of alarm that may stand while
    ``name`` is removed: it is down, so nothing else can be mended before, or its data differ."""
    sparing: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    if running.alarms and name not in running.healthy:
        sparing = tuple(running.alarms)
    if "CORRUPT" in running.alarms:
        odd = hashes.compare(running.health, fleet).differing
        sparing = sparing or (("CORRUPT",) if name in odd else ())
    return odd, sparing


def _odd(cluster: EtcdCluster, member: EtcdMember, where: str) -> Problem:
    option = f" --cluster-id {cluster.established.name}" if cluster.established.name else ""
    what = "has data that are not of the cluster that serves"
    remedy = f"invoke replace-member {member.name}{option}: its data is kept aside"
    return Problem(where, what, remedy, id="member-odd")


def _only_scheme_differs(member: EtcdMember, urls: Sequence[str]) -> bool:
    rest = member.peer_url.partition("://")[2]
    return any(u != member.peer_url and u.partition("://")[2] == rest for u in urls)


def _has_leftovers(cluster: EtcdCluster, member: EtcdMember, observed: Observed) -> bool:
    facts = observed.facts.get(member.machine)
    return facts is not None and bool(retire(member, facts, ()))
