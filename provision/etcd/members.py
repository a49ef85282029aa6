"""Members come, go, move and are replaced: the steps, in the order of :mod:`roster`.

A new member's host is prepared before etcd hears of it; etcd has it as a learner, which counts
for no quorum, until it has caught up. A removed member's data is kept aside under a dated name
unless its deletion was asked for by name. Every step can be made again after a run was killed.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from provision import gather
from provision.alluxio import endpoints
from provision.errors import PreflightFailed, Problem, UsageError
from provision.etcd import desired, gates, membership, pending, roster, tls
from provision.etcd.observed import Observed, Running
from provision.etcd.pki import Authorities
from provision.etcd.roster import Kind, Move
from provision.host.change import Change, changes
from provision.host.observe import HostFacts, Probe, UnitState
from provision.host.ownership import owner
from provision.host.resources import File
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory, Machine
from provision.plan import Call, HostChanges, Plan, Step
from provision.remote import Fleet


@dataclass(slots=True)
class Steps:
    """Steps being put together, with what the operator should know beside them.

    From ``leaving`` on, members that work are removed: the workers are told before.
    """

    steps: list[Step] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    leaving: int | None = None


def add(
    inventory: Inventory, fleet: Fleet, observed: Observed, name: str, *, write: bool, workers: bool
) -> Plan:
    """The plan of ``add-member``: ``name``, or every declared member that etcd does not have."""
    running = _running(observed)
    cluster = inventory.etcd
    wanted = [_declared(inventory, name)] if name else list(cluster.members)
    moves = roster.additions(wanted, running.roster)
    after = _after(cluster, running, moves)
    return _plan("add-member", inventory, after, fleet, observed, moves, (), write, workers)


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
    running = _running(observed)
    declared = next((m for m in inventory.etcd.members if m.name == name), None)
    there = next((r for r in running.roster.registered if name in (r.name, f"{r.id:x}")), None)
    if there is None and declared is not None:
        there = running.roster.find(declared)
    if there is None and declared is None and name not in running.pending.clean:
        raise UsageError(f"{name!r} is neither a member of the running cluster nor declared")
    moves = roster.removals(inventory.etcd, [there] if there is not None else [])
    if there is not None and declared is not None:
        # Where it is, and how its host is reached, is what the inventory says.
        moves = [replace(moves[0], member=replace(moves[0].member, name=name))]
    after = tuple(m for m in inventory.etcd.members if m.name != name)
    if not after:
        raise UsageError(f"{name} is the only member; invoke destroy takes the cluster away")
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
        {name} & set(running.pending.clean),
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

    Empty when ``name`` is healthy: then it was replaced already, or need not be.
    """
    running = _running(observed)
    member = _declared(inventory, name)
    found = running.roster.find(member)
    moves: list[Move] = []
    if name not in running.healthy:
        dead = found is not None and bool(found.name) and not found.is_learner
        if found is not None and dead:
            moves = [*roster.removals(inventory.etcd, [found]), Move(Kind.ADD, member)]
        else:
            moves = roster.additions([member], running.roster)
    after = _after(inventory.etcd, running, moves)
    return _plan("replace-member", inventory, after, fleet, observed, moves, delete, write, workers)


def declared_moves(cluster: EtcdCluster, observed: Observed) -> tuple[Move, ...]:
    """What makes the running cluster's members those of the inventory, in a safe order.

    Raises :class:`PreflightFailed` for what cannot be told from a mistake.
    """
    running = _running(observed)
    _refuse_the_unclear(cluster, observed, running)
    there = running.roster
    moves: list[Move] = [*roster.additions(cluster.members, there)]
    for move in roster.updates(cluster.members, there):
        if desired.has_data(move.member, observed.facts[move.member.machine]):
            moves.append(move)
            continue
        # Another host under the old name, and no data to carry on with: a replacement.
        old = [r for r in there.registered if r.id == move.id]
        gone = [roster.elsewhere(m) for m in roster.removals(cluster, old)]
        moves += [*gone, Move(Kind.ADD, move.member)]
    moves += roster.removals(cluster, roster.strangers(cluster, there))
    return roster.ordered(moves, running.healthy)


def settled(cluster: EtcdCluster, moves: Iterable[Move]) -> tuple[EtcdMember, ...]:
    """The declared members that none of ``moves`` is about."""
    moving = {move.member.name for move in moves}
    return tuple(m for m in cluster.members if m.name not in moving)


def build(
    inventory: Inventory,
    fleet: Fleet,
    observed: Observed,
    moves: Sequence[Move],
    starting: Collection[str] = (),
    delete: Collection[str] = (),
    *,
    ca: Authorities | None,
    clean: Collection[str] = (),
) -> Steps:
    """The steps of ``moves``. Raises :class:`PreflightFailed` when they cannot be made safely.

    ``starting``: members that are down now, and that an earlier step of the plan starts.
    ``clean``: removed members whose hosts an earlier run did not come to clean.
    """
    running = _running(observed)
    voters = {m.name: m for m in running.cluster.members}
    healthy = set(running.healthy) | set(starting)
    if why := roster.obstacle(voters, healthy, moves):
        problems = [p for p in running.health.problems if p.severity == "error"]
        raise PreflightFailed(f"{why}; nothing was changed", problems)
    made = Steps()
    joining = frozenset(m.member.machine for m in moves if m.kind is Kind.ADD)
    builder = _Builder(inventory.etcd, fleet, observed, running, ca, delete, joining, made)
    builder.prepare(moves)
    for move in moves:
        now = replace(inventory.etcd, members=tuple(voters.values()))
        name = move.member.name
        if move.kind is Kind.ADD:
            builder.add(move, now)
            voters[name] = move.member
            healthy.add(name)
        elif move.kind is Kind.UPDATE:
            builder.update(move, now)
            voters[name] = move.member
        else:
            if name in healthy and name not in {m.member.name for m in moves if m is not move}:
                made.leaving = len(made.steps) if made.leaving is None else made.leaving
            voters.pop(name, None)
            healthy.discard(name)
            builder.remove(move, now, [m for n, m in voters.items() if n in healthy])
    builder.clean(clean, replace(inventory.etcd, members=tuple(voters.values())))
    return made


@dataclass(slots=True)
class _Builder:
    cluster: EtcdCluster
    fleet: Fleet
    observed: Observed
    running: Running
    ca: Authorities | None
    delete: Collection[str]
    joining: frozenset[Machine]
    made: Steps

    def prepare(self, moves: Iterable[Move]) -> None:
        """What no service notices, on all new members' hosts at once."""
        hosts = []
        for move in moves:
            if move.kind is Kind.ADD:
                todo = tuple(c for c in self._install(move, self.running.cluster) if c.quiet)
                hosts.append(_on(move.member, todo))
        if any(h.changes for h in hosts):
            title = "prepare the new members' hosts"
            self.made.steps.append(Step(title, tuple(h for h in hosts if h.changes)))

    def add(self, move: Move, now: EtcdCluster) -> None:
        member, fleet = move.member, self.fleet
        grown = replace(now, members=(*now.members, member))
        if move.id is None:
            old = _set_aside(member, self.observed.facts[member.machine], self.delete)
            self.made.steps.append(
                Step(
                    f"add {member.name} as a learner",
                    (_on(member, old),) if old else (),
                    (
                        Call(
                            f"etcd: add learner {member.name} at {member.peer_url}",
                            lambda: membership.add_learner(now, fleet, member),
                        ),
                    ),
                    before=gates.all_healthy(now, fleet),
                )
            )
        todo = tuple(c for c in self._install(move, now) if not c.quiet)
        calls = [
            Call(f"etcd: promote {member.name}", lambda: membership.promote(now, fleet, member))
        ]
        if member.name in self.running.pending.clean:
            calls.append(self._forget(member, grown))
        self.made.steps.append(
            Step(
                f"start {member.name}, and make it a voter when it has caught up",
                (_on(member, todo),) if todo else (),
                tuple(calls),
                after=gates.all_healthy(grown, fleet),
            )
        )

    def update(self, move: Move, now: EtcdCluster) -> None:
        member, fleet, number = move.member, self.fleet, move.id
        assert number is not None
        old = next(m for m in now.members if m.name == member.name)
        moved = replace(
            now, members=tuple(member if m.name == member.name else m for m in now.members)
        )
        facts = self.observed.facts[member.machine]
        todo = changes(
            desired.resources(
                moved,
                member,
                self.observed.artifact,
                tls.material(self.cluster, member, facts, self.ca),
                facts,
            ),
            facts,
        )
        others = tuple(m for m in now.members if m.name != member.name)
        # It may answer at either address, or (renumbered while it ran) at none.
        new = replace(member, name=f"{member.name} at its new address")
        asked = replace(now, members=(*now.members, new))
        self.made.steps.append(
            Step(
                f"tell etcd the new address of {member.name}",
                (),
                (
                    Call(
                        f"etcd: {member.name} moves from {old.peer_url} to {member.peer_url}, "
                        "after another member has taken the lead",
                        lambda: membership.update(asked, fleet, member, number, others),
                    ),
                ),
                before=gates.can_lose(now, fleet, old),
            )
        )
        self.made.steps.append(
            Step(
                f"restart {member.name} with its new address",
                (_on(member, todo),) if todo else (),
                after=gates.all_healthy(moved, fleet),
            )
        )

    def remove(self, move: Move, now: EtcdCluster, staying: Sequence[EtcdMember]) -> None:
        gone, fleet, number = move.member, self.fleet, move.id
        assert number is not None
        rest = replace(now, members=tuple(staying))
        # A new member on the same host puts the old data aside itself.
        todo = None if gone.machine in self.joining else self._cleaning(gone)
        calls = [
            Call(
                f"etcd: remove {gone.name} ({number:x}), after another member has taken the lead",
                lambda: membership.remove(now, fleet, number, staying),
            )
        ]
        if todo is not None:
            calls.insert(
                0,
                Call(
                    f"etcd: note that the host of {gone.name} is to be cleaned",
                    lambda: membership.through_leader(
                        now, fleet, lambda c: pending.note_clean(c, gone.name, gone.machine.host)
                    ),
                ),
            )
        self.made.steps.append(
            Step(
                f"remove {gone.name}",
                (),
                tuple(calls),
                before=gates.all_healthy(rest, fleet),
                after=gates.all_healthy(rest, fleet),
            )
        )
        if todo is not None:
            self._clean_step(gone, todo, rest)

    def clean(self, names: Iterable[str], now: EtcdCluster) -> None:
        """Hosts of members that an earlier run removed."""
        for name in names:
            address = self.running.pending.clean.get(name, "")
            declared = next((m for m in self.cluster.members if m.name == name), None)
            member = declared or _at(self.cluster.members[0], name, address)
            todo = self._cleaning(member)
            if todo is not None:
                self._clean_step(member, todo, now)

    def _clean_step(self, gone: EtcdMember, todo: tuple[Change, ...], rest: EtcdCluster) -> None:
        self.made.steps.append(
            Step(
                f"clean the host of {gone.name}",
                (_on(gone, todo),) if todo else (),
                (self._forget(gone, rest),),
            )
        )

    def _forget(self, gone: EtcdMember, now: EtcdCluster) -> Call:
        fleet = self.fleet
        return Call(
            f"etcd: note that the host of {gone.name} is clean",
            lambda: membership.through_leader(
                now, fleet, lambda c: pending.forget_clean(c, gone.name)
            ),
        )

    def _install(self, move: Move, now: EtcdCluster) -> tuple[Change, ...]:
        """Everything to be done on a new member's host. What a former life left is not seen."""
        member = move.member
        facts = self.observed.facts[member.machine]
        if move.id is None:
            facts = _without_former_life(member, facts)
        grown = replace(now, members=(*now.members, member))
        material = tls.material(self.cluster, member, facts, self.ca)
        return changes(
            desired.resources(grown, member, self.observed.artifact, material, facts, "existing"),
            facts,
        )

    def _cleaning(self, gone: EtcdMember) -> tuple[Change, ...] | None:
        """What cleans the host of a removed member; None, with a note, when that cannot be."""
        where = f"{gone.name} ({gone.machine.host})"
        if any(m.machine == gone.machine and m.name != gone.name for m in self.cluster.members):
            return None
        facts = self.observed.facts.get(gone.machine)
        found, absent = (
            ({gone.machine: facts}, [])
            if facts is not None
            else gather.look(self.fleet, {gone.machine: _probe(self.cluster, gone)})
        )
        if absent:
            remedy = "when it is back: systemctl disable --now etcd.service there"
            what = f"is not cleaned, its host cannot be reached: {absent[0].what}"
            self.made.notes.append(Problem(where, what, remedy, "warning"))
            return None
        seen = found[gone.machine]
        if owner(seen, desired.UNIT_PATH) != self.cluster.name:
            what = f"is not cleaned: {desired.UNIT} there is not of this cluster's"
            self.made.notes.append(Problem(where, what, "", "warning"))
            return None
        directory = seen.commands.get("data", "").strip() or gone.data_dir
        return _retire(replace(gone, data_dir=directory), seen, self.delete)


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
) -> Plan:
    """``after``: the members that the workers are to know. ``leftovers``: declared members that
    etcd does not have, whose hosts are cleaned."""
    running = _running(observed)
    owed = {*clean, *(m.name for m in leftovers if _has_leftovers(inventory.etcd, m, observed))}
    ca = tls.authority(inventory.etcd, write=write)
    made = build(inventory, fleet, observed, moves, (), delete, ca=ca, clean=sorted(owed))
    made.notes[:0] = observed.warnings
    become = with_members(inventory, after)
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
        made.notes.append(Problem("alluxio.workers", what, remedy, "warning"))
        if changed:
            made.steps.insert(0, _note_workers(running.cluster, fleet))
        return
    told = endpoints.steps(inventory, alluxio, fleet)
    made.notes += told.notes
    before = len(made.steps) if made.leaving is None else made.leaving
    made.steps[before:before] = told.steps
    if told.steps and changed:
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
                        lambda: membership.through_leader(cluster, fleet, pending.forget_workers),
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
                lambda: membership.through_leader(cluster, fleet, pending.note_workers),
            ),
        ),
    )


def _after(cluster: EtcdCluster, running: Running, moves: Sequence[Move]) -> tuple[EtcdMember, ...]:
    """The declared members that are voters, or will be after ``moves``."""
    names = {v.name for v in running.cluster.members} | {
        m.member.name for m in moves if m.kind is Kind.ADD
    }
    return tuple(m for m in cluster.members if m.name in names)


def _running(observed: Observed) -> Running:
    if observed.running is None:
        raise PreflightFailed(
            "no member of the cluster answers; nothing was changed",
            [*observed.health.problems, Problem("etcd", "is not running", "invoke deploy-etcd")],
        )
    return observed.running


def _declared(inventory: Inventory, name: str) -> EtcdMember:
    found = next((m for m in inventory.etcd.members if m.name == name), None)
    if found is None:
        names = ", ".join(m.name for m in inventory.etcd.members)
        raise UsageError(f"{name!r} is not in etcd.members of {inventory.path} (there: {names})")
    return found


def _refuse_the_unclear(cluster: EtcdCluster, observed: Observed, running: Running) -> None:
    problems: list[Problem] = []
    leaving = [roster.as_registered(cluster, r) for r in roster.strangers(cluster, running.roster)]
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
            problems.append(Problem(where, what, remedy))
        elif there is None:
            if any(old.machine == member.machine for old in leaving):
                what = "is on the host of a member that is not in the inventory any more"
                problems.append(Problem(where, what, "remove that one first: invoke remove-member"))
        elif there.name and _only_scheme_differs(member, there.peer_urls):
            what = (
                f"peer URL is {', '.join(there.peer_urls)} in the cluster, {member.peer_url} here"
            )
            problems.append(
                Problem(where, what, "deploy-etcd turns peer TLS on; nothing turns it off again")
            )
        elif (
            there.client_urls
            and not there.is_learner
            and member.peer_url in there.peer_urls
            and not desired.has_data(member, facts)
        ):
            what = f"has lost its data: {member.data_dir} is empty, but the cluster knows it"
            remedy = f"mount its disk, or use invoke replace-member {member.name}"
            problems.append(Problem(where, what, remedy))
    if problems:
        raise PreflightFailed(
            "the members differ from the inventory in a way that is not clear; nothing was changed",
            problems,
        )


def _only_scheme_differs(member: EtcdMember, urls: Sequence[str]) -> bool:
    rest = member.peer_url.partition("://")[2]
    return any(u != member.peer_url and u.partition("://")[2] == rest for u in urls)


def _has_leftovers(cluster: EtcdCluster, member: EtcdMember, observed: Observed) -> bool:
    facts = observed.facts.get(member.machine)
    return facts is not None and bool(_retire(member, facts, ()))


def _probe(cluster: EtcdCluster, gone: EtcdMember) -> Probe:
    config = shlex.quote(desired.config_file(cluster))
    find = f"sed -n 's/^data-dir: \"\\(.*\\)\"$/\\1/p' {config} 2>/dev/null | while read -r d; do "
    find += '[ ! -d "$d/member" ] || echo "$d"; done'
    return Probe(
        resources=(File(desired.UNIT_PATH, None),),
        paths=(f"{gone.data_dir}/member",),
        units=(desired.UNIT,),
        commands={"data": find},
    )


def _at(template: EtcdMember, name: str, address: str) -> EtcdMember:
    machine = replace(template.machine, host=address, where=roster.NOT_DECLARED)
    return replace(template, name=name, machine=machine, address=address)


def _retire(gone: EtcdMember, facts: HostFacts, delete: Collection[str]) -> tuple[Change, ...]:
    """Stop and disable the unit of a removed member, and put its data away."""
    unit = facts.unit(desired.UNIT)
    found: list[Change] = []
    if unit.active not in ("inactive", "failed") or unit.file_state == "enabled":
        found.append(
            Change(
                f"stop and disable {desired.UNIT}",
                f"systemctl disable -q --now {desired.UNIT}\n"
                f"systemctl reset-failed {desired.UNIT} 2>/dev/null || :",
                disrupts=True,
                seconds=90,
            )
        )
    known = f"{gone.data_dir}/member" in facts.paths or "data" in facts.commands
    has = f"{gone.data_dir}/member" in facts.paths or bool(facts.commands.get("data", "").strip())
    if known and has:
        found.append(_away(gone, delete))
    return tuple(found)


def _set_aside(member: EtcdMember, facts: HostFacts, delete: Collection[str]) -> tuple[Change, ...]:
    """Before a member joins: what a former member of this cluster left on its host."""
    if not desired.has_data(member, facts):
        return ()
    stop = Change(
        f"stop {desired.UNIT}, which ran a former member",
        f"systemctl stop {desired.UNIT} 2>/dev/null || :",
        disrupts=True,
        seconds=90,
    )
    return (stop, _away(member, delete))


def _away(member: EtcdMember, delete: Collection[str]) -> Change:
    data = shlex.quote(f"{member.data_dir}/member")
    if member.name in delete:
        return Change(
            f"DELETE the data in {member.data_dir}/member", f"rm -rf {data}", disrupts=True
        )
    # Within the data directory, which may be a mount point: a rename, whatever its size.
    return Change(
        f"keep the data aside: {member.data_dir}/member.removed-DATE",
        f"[ ! -d {data} ] || mv -T {data} {data}.removed-$(date -u +%Y%m%dT%H%M%SZ)",
        disrupts=True,
    )


def _without_former_life(member: EtcdMember, facts: HostFacts) -> HostFacts:
    paths = {p: s for p, s in facts.paths.items() if p != f"{member.data_dir}/member"}
    units: Mapping[str, UnitState] = facts.units
    if desired.has_data(member, facts):
        stopped = replace(facts.unit(desired.UNIT), active="inactive")
        units = {**facts.units, desired.UNIT: stopped}
    return replace(facts, paths=paths, units=units)


def _on(member: EtcdMember, todo: tuple[Change, ...]) -> HostChanges:
    return HostChanges(member.name, member.machine, todo)
