"""The steps that add, remove and move members, and the changes of these steps on the hosts.

A new member's host is prepared before the member is added to etcd. The member is a learner, which
counts for no quorum, until it has caught up. A removed member's data is kept aside under a dated
name, unless the operator asked for its deletion by name. Every step can be repeated after a killed
run.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field, replace
from functools import partial

from provision.dataclass import dataclass
from provision.engine.plan import Action, Gate, HostChanges, Step
from provision.errors import PreflightFailed, Problem
from provision.etcd.cluster import gates, hashes, health, reconfigure, todo_keys
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import desired, layout, membership_diff
from provision.etcd.member.membership_diff import ChangeKind, MemberChange
from provision.etcd.pki import tls
from provision.host import gather, safely
from provision.host.diff import Change, changes
from provision.host.effects import Effect
from provision.host.facts import HostFacts, Probe, UnitState
from provision.host.ownership import owner
from provision.host.resources import File, Unit
from provision.inventory import etcd_releases
from provision.inventory.etcd_releases import State
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine
from provision.plans.etcd.data import alarms
from provision.plans.etcd.members import cut_off
from provision.plans.etcd.state.observe import EtcdState, Running, require_running


@dataclass(frozen=True, slots=True)
class MemberChanges:
    """What changes about the members, and what is known about the change. Members are given by
    name."""

    moves: Sequence[MemberChange] = ()
    #: Members that are down now, and that an earlier step of the plan starts.
    starting: Collection[str] = ()
    #: Removed members whose data is deleted, not kept aside.
    delete: Collection[str] = ()
    #: Removed members with hosts that an earlier run has not cleaned.
    clean: Collection[str] = ()
    #: Kinds of alarm that may stand, because ``moves`` are part of the remedy.
    sparing: Collection[str] = ()
    #: Members that are known to have other data than the majority.
    odd: Collection[str] = ()
    #: Whether members come back after a recovery, with any release.
    recovering: bool = False
    #: What the operator should know when the moves cannot be made.
    beside: Sequence[Problem] = ()


@dataclass(slots=True)
class Steps:
    """The steps so far, with notes for the operator.

    From step ``leaving`` on, working members are removed: the workers get the endpoints before.
    ``standing``: the kinds of alarm that stand after all steps.
    """

    steps: list[Step] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    leaving: int | None = None
    standing: frozenset[str] = frozenset()
    #: Client URLs that nobody serves afterwards, by the member's name.
    going: Mapping[str, str] = field(default_factory=dict)


def build(etcd: Etcd, observed: EtcdState, change: MemberChanges, ca: tls.Ca | None) -> Steps:
    """The steps of ``change`` in the declared cluster, which is the cluster of ``etcd``. Raises
    :class:`PreflightFailed` when they cannot be made safely."""
    moves, odd = change.moves, change.odd
    running = require_running(observed)
    if moves or change.clean:
        gates.require_writable(running.health, change.sparing)
    voters = {m.name: m for m in running.cluster.members}
    healthy = set(running.healthy) | set(change.starting)
    if why := membership_diff.obstacle(voters, healthy, moves):
        problems = [p for p in running.health.problems if p.severity == "error"]
        raise PreflightFailed(why, [*problems, *change.beside], id="quorum-at-risk")
    adding = [m.member.name for m in moves if m.kind is ChangeKind.ADD]
    if adding and running.health.asks_for_login and not change.recovering:
        out = [
            m.member.name for m in moves if m.kind is ChangeKind.REMOVE and m.member.name in adding
        ]
        etcd_releases.require_fit(
            running.health.releases, {State.AUTH}, f"adding {', '.join(adding)}", out
        )
    leaving = [m.member.name for m in moves if m.kind is ChangeKind.REMOVE]
    if leaving:
        hashes.require_equal(running.health, etcd, (*leaving, *odd))
    made = Steps()
    joining = frozenset(m.member.machine for m in moves if m.kind is ChangeKind.ADD)
    builder = _Builder(etcd, observed, running, ca, change.delete, joining, made)
    builder.odd, builder.standing = frozenset(odd), running.alarms
    made.going = cut_off.urls(etcd.cluster, running, moves)
    builder.prepare(moves)
    for move in moves:
        now = replace(etcd.cluster, members=tuple(voters.values()))
        name = move.member.name
        if move.kind is ChangeKind.ADD:
            builder.disarm(now)
            builder.lead(now)
            builder.add(move, now)
            voters[name] = move.member
            healthy.add(name)
        elif move.kind is ChangeKind.UPDATE:
            builder.update(move, now)
            voters[name] = move.member
        else:
            if name in healthy and name not in {m.member.name for m in moves if m is not move}:
                made.leaving = len(made.steps) if made.leaving is None else made.leaving
            voters.pop(name, None)
            healthy.discard(name)
            builder.remove(move, now, [m for n, m in voters.items() if n in healthy])
    if moves:
        builder.disarm(replace(etcd.cluster, members=tuple(voters.values())))
    builder.clean(change.clean, replace(etcd.cluster, members=tuple(voters.values())))
    made.standing = builder.standing
    return made


@dataclass(slots=True)
class _Builder:
    #: The handle on the declared cluster.
    etcd: Etcd
    observed: EtcdState
    running: Running
    ca: tls.Ca | None
    delete: Collection[str]
    joining: frozenset[Machine]
    made: Steps
    #: Members with other data than the majority.
    odd: frozenset[str] = frozenset()
    #: Kinds of alarm that stand when the next step begins: etcd takes no writes then.
    standing: frozenset[str] = frozenset()

    @property
    def cluster(self) -> EtcdCluster:
        return self.etcd.cluster

    def disarm(self, now: EtcdCluster) -> None:
        """Disarm CORRUPT once no voter of ``now`` has other data: the next steps need writes."""
        if "CORRUPT" not in self.standing or self.odd & {m.name for m in now.members}:
            return
        etcd = self.etcd.with_cluster(now)
        call = alarms.disarm(etcd, "CORRUPT")
        left = self.standing - {"CORRUPT"}
        after = gates.all_healthy(etcd, standing=left)
        self.made.steps.append(Step("disarm the alarm CORRUPT", calls=(call,), after=after))
        self.standing = left

    def lead(self, now: EtcdCluster) -> None:
        """Move the lead away from a member with odd data: a joining member gets its data from the
        leader."""
        etcd = self.etcd.with_cluster(now)
        odd = [m for m in now.members if m.name in self.odd]
        right = [m for m in now.members if m.name not in self.odd]
        calls = tuple(
            Action(
                f"etcd: another member takes the lead, if {m.name} leads",
                partial(reconfigure.move_leadership_off, etcd, m, right),
            )
            for m in odd
        )
        if calls:
            self.made.steps.append(
                Step("give the lead to a member with the majority's data", calls=calls)
            )

    def prepare(self, moves: Iterable[MemberChange]) -> None:
        """The changes that no service notices, on all new members' hosts at once."""
        hosts = []
        for move in moves:
            if move.kind is ChangeKind.ADD:
                todo = tuple(
                    c for c in self._install(move, self.running.cluster) if c.non_disruptive
                )
                hosts.append(_on(move.member, todo))
        if any(h.changes for h in hosts):
            title = "prepare the new members' hosts"
            self.made.steps.append(Step(title, tuple(h for h in hosts if h.changes)))

    def add(self, move: MemberChange, now: EtcdCluster) -> None:
        member, etcd = move.member, self.etcd.with_cluster(now)
        grown = replace(now, members=(*now.members, member))
        facts = self.observed.facts[member.machine]
        former = self.running.pending.clean.get(member.name, member.machine.host)
        if former != member.machine.host:
            where = f"{member.name} ({former})"
            what = "is not cleaned: the member with this name moves to another host"
            remedy = "when it is back: systemctl disable --now etcd.service there"
            self.made.notes.append(Problem(where, what, remedy, "warning", id="host-not-cleaned"))
        if mount := desired.disk_away(member, facts):
            where = member.place
            what = f"no disk is mounted at {mount} any more: the data goes to another disk"
            remedy = f"to have the data on its own disk, mount a disk at {mount} first"
            self.made.notes.append(Problem(where, what, remedy, "warning", id="member-data-lost"))
        if move.id is None:
            old = _set_aside(member, self.observed.facts[member.machine], self.delete)
            self.made.steps.append(
                Step(
                    f"add {member.name} as a learner",
                    (_on(member, old),) if old else (),
                    (
                        Action(
                            f"etcd: add learner {member.name} at {member.peer_url}",
                            lambda: reconfigure.add_learner(etcd, member),
                            (Effect.MEMBERS,),
                        ),
                    ),
                    before=gates.all_healthy(etcd, standing=self.standing),
                )
            )
        todo = tuple(c for c in self._install(move, now) if not c.non_disruptive)
        promote = partial(reconfigure.promote, etcd, member)
        calls = [Action(f"etcd: promote {member.name}", promote, (Effect.MEMBERS,))]
        if member.name in self.running.pending.clean and not self.standing:
            calls.append(self._forget(member, grown))
        self.made.steps.append(
            Step(
                f"start {member.name}, and make it a voter when it has caught up",
                (_on(member, todo),) if todo else (),
                tuple(calls),
                after=self._joined(member, grown),
            )
        )

    def _joined(self, member: EtcdMember, grown: EtcdCluster) -> Gate:
        """The gate after ``member`` has joined: it has the others' data, or the majority's, if its
        former data differed. The log of a member that was once started with force-new-cluster may
        lack what its database has (``recover_etcd.SNAPSHOT_COUNT``)."""
        etcd = self.etcd.with_cluster(grown)
        healthy = gates.all_healthy(etcd, standing=self.standing)
        replaces = member.name in self.odd

        def check() -> None:
            healthy.check()
            seen = health.observe(etcd)
            if not replaces:
                hashes.require_equal(seen, etcd, self.odd)
            elif member.name not in (found := hashes.compare(seen, etcd)).right:
                raise hashes.differ(found)

        whose = "the majority's" if replaces else "the others'"
        return Gate(f"{healthy.title}, and {member.name} has {whose} data", check)

    def update(self, move: MemberChange, now: EtcdCluster) -> None:
        member, etcd, number = move.member, self.etcd, move.id
        assert number is not None
        old = now.member(member.name)
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
        # The member may answer at either address, or at none (if renumbered while it ran).
        new = replace(member, name=f"{member.name} at its new address")
        asked = etcd.with_cluster(replace(now, members=(*now.members, new)))
        self.made.steps.append(
            Step(
                f"tell etcd the new address of {member.name}",
                (),
                (
                    Action(
                        f"etcd: {member.name} moves from {old.peer_url} to {member.peer_url}, "
                        "after another member has taken the lead",
                        lambda: reconfigure.update(asked, member, number, others),
                        self._effects(member),
                    ),
                ),
                before=gates.require_others_healthy(etcd.with_cluster(now), old),
            )
        )
        self.made.steps.append(
            Step(
                f"restart {member.name} with its new address",
                (_on(member, todo),) if todo else (),
                after=gates.all_healthy(etcd.with_cluster(moved), standing=self.standing),
            )
        )

    def remove(self, move: MemberChange, now: EtcdCluster, staying: Sequence[EtcdMember]) -> None:
        gone, etcd, number = move.member, self.etcd.with_cluster(now), move.id
        assert number is not None
        rest = replace(now, members=tuple(staying))
        # When a new member joins on the same host, that step keeps the old data aside.
        todo = None if gone.machine in self.joining else self._cleaning(gone)
        right = [m for m in staying if m.name not in self.odd]
        calls = [
            Action(
                f"etcd: remove {gone.name} ({number:x}), after another member has taken the lead",
                lambda: reconfigure.remove(etcd, number, right),
                (*self._effects(gone), Effect.REMOVAL),
            )
        ]
        if todo is not None and not self.standing:  # while an alarm stands, etcd takes no note
            calls.insert(
                0,
                Action(
                    f"etcd: record that the host of {gone.name} is to be cleaned",
                    lambda: reconfigure.with_leader(
                        etcd, lambda c: todo_keys.note_clean(c, gone.name, gone.machine.host)
                    ),
                ),
            )
        left = etcd.with_cluster(rest)
        self.made.steps.append(
            Step(
                f"remove {gone.name}",
                (),
                tuple(calls),
                before=gates.all_healthy(left, standing=self.standing),
                after=gates.all_healthy(left, standing=self.standing),
            )
        )
        if todo is not None:
            self._clean_step(gone, todo, rest)

    def _effects(self, member: EtcdMember) -> tuple[Effect, ...]:
        """What it does that ``member`` leaves its place."""
        cuts = (Effect.CLIENTS,) if member.name in self.made.going else ()
        return (Effect.MEMBERS, *cuts)

    def clean(self, names: Iterable[str], now: EtcdCluster) -> None:
        """Clean the hosts of members that an earlier run removed."""
        for name in names:
            address = self.running.to_clean.get(name, "")
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
                () if self.standing else (self._forget(gone, rest),),
            )
        )

    def _forget(self, gone: EtcdMember, now: EtcdCluster) -> Action:
        etcd = self.etcd.with_cluster(now)
        return Action(
            f"etcd: record that the host of {gone.name} is clean",
            lambda: reconfigure.with_leader(etcd, lambda c: todo_keys.forget_clean(c, gone.name)),
        )

    def _install(self, move: MemberChange, now: EtcdCluster) -> tuple[Change, ...]:
        """All changes on a new member's host. Data of a former member there is ignored."""
        member = move.member
        facts = self.observed.facts[member.machine]
        if move.id is None:
            facts = _without_former_life(member, facts)
        grown = replace(now, members=(*now.members, member))
        material = tls.material(self.cluster, member, facts, self.ca)
        wanted = desired.resources(
            grown, member, self.observed.artifact, material, facts, "existing"
        )
        # A new member is ready only when it has caught up.
        patient = int(reconfigure.CAUGHT_UP_WITHIN)
        return changes(
            [replace(r, start_seconds=patient) if isinstance(r, Unit) else r for r in wanted],
            facts,
        )

    def _cleaning(self, gone: EtcdMember) -> tuple[Change, ...] | None:
        """The changes that clean the host of a removed member. None when the host cannot be
        cleaned; a note then gives the reason."""
        where = gone.place
        if any(m.machine == gone.machine and m.name != gone.name for m in self.cluster.members):
            return None
        facts = self.observed.facts.get(gone.machine)
        found, absent = (
            ({gone.machine: facts}, [])
            if facts is not None
            else gather.gather_facts(self.etcd.fleet, {gone.machine: _probe(self.cluster, gone)})
        )
        if absent:
            remedy = "when it is back: systemctl disable --now etcd.service there"
            what = f"is not cleaned, its host cannot be reached: {absent[0].what}"
            self.made.notes.append(Problem(where, what, remedy, "warning", id="host-not-cleaned"))
            return None
        seen = found[gone.machine]
        if owner(seen, layout.UNIT_PATH) != self.cluster.name:
            what = f"is not cleaned: {layout.UNIT} there is not of this cluster's"
            self.made.notes.append(Problem(where, what, "", "warning", id="host-not-cleaned"))
            return None
        directory = seen.commands.get("data", "").strip() or gone.data_dir
        return retire(replace(gone, data_dir=directory), seen, self.delete)


def _probe(cluster: EtcdCluster, gone: EtcdMember) -> Probe:
    config = shlex.quote(layout.config_file(cluster))
    find = f"sed -n 's/^data-dir: \"\\(.*\\)\"$/\\1/p' {config} 2>/dev/null | while read -r d; do "
    find += '[ ! -d "$d/member" ] || echo "$d"; done'
    return Probe(
        resources=(File(layout.UNIT_PATH, None),),
        paths=(f"{gone.data_dir}/member",),
        units=(layout.UNIT,),
        commands={"data": find},
    )


def _at(template: EtcdMember, name: str, address: str) -> EtcdMember:
    machine = replace(template.machine, host=address, where=membership_diff.NOT_DECLARED)
    return replace(template, name=name, machine=machine, address=address)


def retire(gone: EtcdMember, facts: HostFacts, delete: Collection[str]) -> tuple[Change, ...]:
    """Stop and disable the unit of a removed member, and keep its data aside or delete it."""
    unit = facts.unit(layout.UNIT)
    found: list[Change] = []
    if unit.active not in ("inactive", "failed") or unit.file_state == "enabled":
        found.append(
            Change(
                f"stop and disable {layout.UNIT}",
                f"systemctl disable -q --now {layout.UNIT}\n"
                f"systemctl reset-failed {layout.UNIT} 2>/dev/null || :",
                disrupts=True,
                seconds=90,
                stops=(layout.UNIT,),
            )
        )
    known = f"{gone.data_dir}/member" in facts.paths or "data" in facts.commands
    has = f"{gone.data_dir}/member" in facts.paths or bool(facts.commands.get("data", "").strip())
    if known and has:
        found.append(_away(gone, delete))
    return tuple(found)


def _set_aside(member: EtcdMember, facts: HostFacts, delete: Collection[str]) -> tuple[Change, ...]:
    """Before a member joins: keep aside or delete the data of this cluster's former member on its
    host."""
    if not desired.has_data(member, facts):
        return ()
    stop = Change(
        f"stop {layout.UNIT}, which ran a former member",
        f"systemctl stop {layout.UNIT} 2>/dev/null || :",
        disrupts=True,
        seconds=90,
        stops=(layout.UNIT,),
    )
    return (stop, _away(member, delete))


def _away(member: EtcdMember, delete: Collection[str]) -> Change:
    data = shlex.quote(f"{member.data_dir}/member")
    if member.name in delete:
        return Change(f"DELETE the data in {member.data_dir}/member", f"gone {data}", disrupts=True)
    # The data stays within the data directory, which may be a mount point: a rename is enough.
    rename = safely.in_folder(
        member.data_dir, "mv -T ./member ./member.removed-$(date -u +%Y%m%dT%H%M%SZ)"
    )
    return Change(
        f"keep the data aside: {member.data_dir}/member.removed-DATE",
        f"[ ! -d {data} ] || {rename}",
        disrupts=True,
    )


def _without_former_life(member: EtcdMember, facts: HostFacts) -> HostFacts:
    paths = {p: s for p, s in facts.paths.items() if p != f"{member.data_dir}/member"}
    units: Mapping[str, UnitState] = facts.units
    if desired.has_data(member, facts):
        stopped = replace(facts.unit(layout.UNIT), active="inactive")
        units = {**facts.units, layout.UNIT: stopped}
    return replace(facts, paths=paths, units=units)


def _on(member: EtcdMember, todo: tuple[Change, ...]) -> HostChanges:
    return HostChanges(member.name, member.machine, todo)
