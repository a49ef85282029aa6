"""``deploy-etcd``: makes a plan from the inventory and the observed state.

The order of steps follows etcd's "Clustering guide" (static bootstrap: all members start together)
and "Runtime reconfiguration" (one member at a time, the next only when the cluster is healthy).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from provision.dataclass import dataclass
from provision.engine.plan import HostChanges, Plan, Step
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd.cluster import gates, hashes, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.rolling import rolling_step
from provision.etcd.member import desired, layout
from provision.etcd.member.membership_diff import MemberChange
from provision.etcd.pki import tls
from provision.host.diff import Change, changes
from provision.host.facts import HostFacts
from provision.host.predict import after
from provision.host.resources import File, Resource
from provision.inventory.model import minor, version_tuple
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory
from provision.plans.etcd import client_urls
from provision.plans.etcd.certificates import enable_peer_tls
from provision.plans.etcd.members import cut_off, declared_changes, member_plan, member_steps
from provision.plans.etcd.members.member_steps import MemberChanges
from provision.plans.etcd.state.observe import EtcdState
from provision.text import verb


def plan(
    inventory: Inventory,
    etcd: Etcd,
    observed: EtcdState,
    *,
    write: bool = True,
    workers: bool = True,
    remove: Collection[str] = (),
    lock_out: Sequence[str] = (),
    agreed: bool = False,
) -> Plan:
    """The smallest safe change after which the cluster and its members are as declared.

    ``write`` False is for a plan that is only shown: the cluster's CA is not made. ``workers``
    False leaves the workers' endpoint lists as they are when members change. ``remove`` are the
    names of the members that may be removed. Any other undeclared member is left as it is. A newer
    patch release is left, too, unless ``cluster.downgrade`` is set. ``lock_out`` are other clusters
    whose workers may lose a client URL; ``agreed``: no other one needs it, when that cannot be
    found out. Raises :class:`PreflightFailed` when there is no plan that this command may carry
    out.
    """
    cluster = etcd.cluster
    _refuse_another_minor(cluster, observed)
    alarm = _alarm(cluster, observed)
    if enable_peer_tls.wanted(cluster, observed):
        gates.require_writable(observed.health)
        return enable_peer_tls.plan(etcd, observed, write=write)
    differs = (
        declared_changes.declared_moves(cluster, observed, remove)
        if observed.running
        else declared_changes.Declared()
    )
    moves = differs.moves
    late = _late(cluster, observed)
    lost = tuple(m for m in cluster.members if m.name in cluster.established.lost)
    # A member has no place yet while its former host is still a member.
    waiting = tuple(m for m in cluster.members if m.name in differs.names_left)
    later = (*late, *lost, *waiting)
    # Undeclared voters count for the quorum while they are members.
    whole = replace(
        cluster,
        members=(*(m for m in cluster.members if m not in waiting), *differs.voters_left),
    )
    staying = tuple(m for m in declared_changes.settled(cluster, moves) if m not in later)
    known = etcd.with_cluster(replace(cluster, members=staying))
    ca = tls.authority(cluster, observed.facts, write=write)
    if moves:
        tls.require_settled(cluster, observed.facts, ca)
    declared = [m for m in cluster.members if m not in later]
    told = tls.require(cluster, declared, observed.facts, ca)
    # Members that are down go first and together: two of three could not start one by one.
    down = [m for m in staying if _down(m, observed)]
    checks = _checks(etcd, observed, down)
    todo = {m.name: _changes(cluster, m, observed, ca, checks or m not in down) for m in staying}
    steps: list[Step] = []
    starting = [_on(m, todo[m.name]) for m in down if todo[m.name]]
    if starting:
        started = gates.all_healthy(known, standing=alarm.kinds)
        if not checks:
            started = gates.all_equal(started, known)
        steps.append(Step(_starting(down, observed), tuple(starting), after=started))
    if settled := [
        h for m in down if (h := _on(m, _exists(cluster, m, observed, ca, checks))).changes
    ]:
        steps.append(Step("record that the cluster exists", tuple(settled)))
    if not alarm.solved and (others := _beside_a_start(observed, moves, staying, down, todo)):
        if not starting:
            gates.require_writable(observed.health)
        stays = _left_until_solved(alarm.kinds, others)
        guards = tuple(m.machine for m in cluster.members)
        told_now = (*observed.warnings, *told, stays)
        also_left = (*differs.notes, *_newer(cluster, observed))
        return Plan("deploy-etcd", cluster.name, tuple(steps), told_now, guards, also_left)
    notes = [*observed.warnings, *told, *(_comes_later(m) for m in late)]
    notes += [_is_lost(cluster, m, observed) for m in lost]
    if alarm.kinds and not alarm.solved:
        notes.append(_left_until_solved(alarm.kinds, ["etcd"]))
    if alarm.kinds and moves:
        # New members are added when etcd takes writes.
        notes.append(_comes_after_the_alarm(moves))
        moves = ()
    urls = client_urls.former(etcd, staying, observed)
    waits_for = _before_urls_go(observed, later, alarm)
    if urls and moves:
        # Workers are told of members only when every member serves the declared URLs.
        notes.append(_comes_after_the_urls(moves))
        moves = ()
    if observed.running is not None:
        names = {m.name for m in cluster.members}
        clean = () if alarm.kinds else sorted(set(observed.running.to_clean) - names)
        change = MemberChanges(
            moves, starting=[m.name for m in down], clean=clean, beside=differs.notes
        )
        made = member_steps.build(etcd, observed, change, ca)
        made.steps, cut = cut_off.ask(
            inventory, etcd, made.steps, made.going, lock_out, agreed=agreed
        )
        notes += cut
        told_of = member_plan.with_members(inventory, whole.members)
        if not urls:
            member_plan.with_workers(made, told_of, etcd, observed.running, bool(moves), workers)
        steps += made.steps
        notes += made.notes
    rolling = [m for m in staying if m not in down and todo[m.name]]
    _refuse_several_cut_off(cluster, observed, rolling)
    quiet = [_on(m, tuple(c for c in todo[m.name] if c.non_disruptive)) for m in rolling]
    if any(h.changes for h in quiet):
        steps.append(
            Step(
                "prepare the hosts without changing a service", tuple(h for h in quiet if h.changes)
            )
        )
    late_leaves: list[Step] = []
    standing = alarm.kinds
    asked = known if standing else etcd.with_cluster(whole)
    for member in gates.order(rolling, observed.health):
        verified = gates.all_healthy(asked, member, standing)
        disruptive = tuple(c for c in todo[member.name] if not c.non_disruptive)
        if tls.is_external(ca):
            # Certificates of a new CA are installed when every member trusts the CA.
            leaves = tuple(c for c in disruptive if c.ask)
            disruptive = tuple(c for c in disruptive if not c.ask)
            if leaves:
                title = f"give {member.name} its new certificates"
                late_leaves.append(rolling_step(asked, member, title, leaves, after=verified))
        if disruptive:
            title = f"change {member.name}"
            steps.append(rolling_step(asked, member, title, disruptive, after=verified))
    steps += late_leaves
    if alarm.kinds and alarm.solved:
        from provision.plans.etcd.data import alarms

        call = alarms.disarm(known, "NOSPACE")
        after = gates.all_healthy(known)
        steps.append(Step("disarm the alarm NOSPACE", calls=(call,), after=after))
    steps += tls.own_steps(cluster, ca)
    drops = {m.name: _drops(cluster, m, observed, ca, checks) for m in staying if m.name in urls}
    options = client_urls.Options(workers, lock_out, agreed)
    ending = client_urls.end(inventory, asked, observed, urls, drops, waits_for, options)
    steps += ending.steps
    notes += ending.notes
    guards = tuple(m.machine for m in cluster.members)
    notes += [_no_member(name) for name in differs.unknown]
    left = (*differs.notes, *_newer(cluster, observed), *ending.left)
    return Plan("deploy-etcd", cluster.name, tuple(steps), tuple(notes), guards, left)


def _before_urls_go(observed: EtcdState, later: Sequence[EtcdMember], alarm: _Alarm) -> str:
    """What comes before former client URLs go; empty when nothing does."""
    if later:
        return f"{', '.join(m.name for m in later)} {verb(later, 'comes', 'come')} first"
    if alarm.kinds:
        return f"{health.named(alarm.kinds)} {verb(alarm.kinds, 'comes', 'come')} first"
    away = [m.member.name for m in observed.health.members if not m.healthy]
    return f"{', '.join(away)} {verb(away)} not healthy" if away else ""


def _comes_after_the_urls(moves: Sequence[MemberChange]) -> Problem:
    names = list(dict.fromkeys(m.member.name for m in moves))
    what = "added, moved or removed when the change of the client URLs is at its end"
    what = f"{verb(names)} {what}"
    return Problem(", ".join(names), what, client_urls.REPEAT, "warning", id="deploy-first")


def _no_member(name: str) -> Problem:
    what = "is not a member of the cluster: there is nothing to remove"
    return Problem(f"--remove {name}", what, "", "warning", id="name-unknown")


def _newer(cluster: EtcdCluster, observed: EtcdState) -> list[Problem]:
    """Notes about members with a newer patch release than the inventory's: they keep it."""
    found = []
    for m in cluster.members:
        if newer := desired.newer_release(cluster, observed.facts[m.machine]):
            where = m.place
            what = (
                f"has etcd {newer}, newer than {cluster.version} in the inventory; the newer "
                "release is kept"
            )
            remedy = f"set etcd.version to {newer}, or go back: invoke deploy-etcd --downgrade"
            found.append(Problem(where, what, remedy, "warning", id="release-newer"))
    return found


@dataclass(frozen=True, slots=True)
class _Alarm:
    """The kinds of alarm that stand. ``solved``: with the declared quotas their cause is gone."""

    kinds: frozenset[str]
    solved: bool


def _alarm(cluster: EtcdCluster, observed: EtcdState) -> _Alarm:
    if observed.running is None:
        return _Alarm(frozenset(), True)
    kinds = observed.running.alarms
    sizes = [m.status.db_size for m in observed.health.members if m.status is not None]
    largest = max(sizes, default=0)
    roomy = all(m.quota is None or largest < m.quota for m in cluster.members)
    return _Alarm(kinds, kinds <= {"NOSPACE"} and (roomy or not kinds))


def _beside_a_start(
    observed: EtcdState,
    moves: Sequence[MemberChange],
    staying: Sequence[EtcdMember],
    down: Sequence[EtcdMember],
    todo: Mapping[str, tuple[Change, ...]],
) -> list[str]:
    """The names of the members with other changes than the start of the members in ``down``."""
    names = [m.member.name for m in moves]
    names += [m.name for m in staying if m not in down and todo[m.name]]
    if observed.running is not None:
        names += sorted(observed.running.to_clean)
    return list(dict.fromkeys(names))


def _comes_after_the_alarm(moves: Sequence[MemberChange]) -> Problem:
    names = list(dict.fromkeys(m.member.name for m in moves))
    what = f"{verb(names)} added, moved or removed once no alarm is raised"
    remedy = "run invoke deploy-etcd again"
    return Problem(", ".join(names), what, remedy, "warning", id="deploy-first")


def _left_until_solved(kinds: Collection[str], names: Sequence[str]) -> Problem:
    """The warning that these members are left as they are. While etcd takes no writes, a change
    could not be verified; a start is a repair."""
    kind = min(kinds)
    what = f"{verb(names)} not changed while {health.raised(kinds)}"
    remedy = health.ALARM_REMEDIES.get(kind, "")
    error_id = health.ALARM_IDS.get(kind, "alarm-raised")
    return Problem(", ".join(names), what, remedy, "warning", id=error_id)


def _starting(down: Sequence[EtcdMember], observed: EtcdState) -> str:
    """The title of the step that changes all of ``down`` together."""
    facts = [observed.facts[m.machine] for m in down]
    if not any(desired.has_data(m, f) for m, f in zip(down, facts, strict=True)):
        return "bootstrap the cluster"
    if any(f.unit(layout.UNIT).active == "active" for f in facts):
        # For example after a change of client_port: one by one, no gate could ever pass.
        return "change the members together: none answers at its declared client URL"
    return "start the members that are down"


def _down(member: EtcdMember, observed: EtcdState) -> bool:
    facts = observed.facts[member.machine]
    running = facts.unit(layout.UNIT).active == "active"
    return not (running and observed.health.established and desired.has_data(member, facts))


def _changes(
    cluster: EtcdCluster,
    member: EtcdMember,
    observed: EtcdState,
    ca: tls.Ca | None,
    checks: bool,
) -> tuple[Change, ...]:
    facts = observed.facts[member.machine]
    wanted = _wanted(cluster, member, observed, ca, _serves(member, observed), checks)
    return changes(wanted, facts)


def _drops(
    cluster: EtcdCluster,
    member: EtcdMember,
    observed: EtcdState,
    ca: tls.Ca | None,
    checks: bool,
) -> tuple[Change, ...]:
    """The changes that drop former client URLs, after the other changes of this plan."""
    then = _wanted(cluster, member, observed, ca, _serves(member, observed), checks, former=False)
    config, kept = _config_later(cluster, member, observed, ca, checks, then)
    return changes([replace(config, restarts=(layout.UNIT,)), desired.unit(member)], kept)


def _config_later(
    cluster: EtcdCluster,
    member: EtcdMember,
    observed: EtcdState,
    ca: tls.Ca | None,
    checks: bool,
    then: Sequence[Resource],
) -> tuple[File, HostFacts]:
    """The configuration among ``then``, and the host after the other changes of this plan."""
    first = _wanted(cluster, member, observed, ca, _serves(member, observed), checks)
    path = layout.config_file(cluster)
    config = next(r for r in then if isinstance(r, File) and r.path == path)
    return config, after(first, observed.facts[member.machine])


def _wanted(
    cluster: EtcdCluster,
    member: EtcdMember,
    observed: EtcdState,
    ca: tls.Ca | None,
    bootstrapped: bool,
    checks: bool,
    *,
    former: bool = True,
) -> tuple[Resource, ...]:
    facts = observed.facts[member.machine]
    material = tls.material(cluster, member, facts, ca)
    return desired.resources(
        cluster,
        member,
        observed.artifact,
        material,
        facts,
        bootstrapped=bootstrapped,
        checks=checks,
        former=former,
    )


def _checks(etcd: Etcd, observed: EtcdState, down: Sequence[EtcdMember]) -> bool:
    """Whether the members in ``down`` may compare their data with the other members at their start.

    A healthy member with this check would not start beside a running member with odd data. Without
    the healthy member, nobody could tell the majority from the odd member. So the members start
    without the check while the running members' data are not known to be equal.
    """
    if not any(desired.has_data(m, observed.facts[m.machine]) for m in down):
        return True
    if not observed.health.established:
        return True  # no other member runs to compare with
    if not observed.health.healthy_count:
        return False  # without a quorum no member's data are known to be the cluster's data
    try:
        return hashes.compare(observed.health, etcd).equal
    except Unhealthy:  # the compared revision was compacted again and again
        return False


def _serves(member: EtcdMember, observed: EtcdState) -> bool:
    """Whether the member is known to belong to a cluster that serves."""
    return any(m.member.name == member.name and m.healthy for m in observed.health.members)


def _exists(
    cluster: EtcdCluster,
    member: EtcdMember,
    observed: EtcdState,
    ca: tls.Ca | None,
    checks: bool,
) -> tuple[Change, ...]:
    """The changes after the gate of a start: from then on the configuration says that the cluster
    exists and that etcd checks its data. A running member does not read these two settings, so
    nothing is restarted."""
    then = _wanted(cluster, member, observed, ca, True, True)
    config, kept = _config_later(cluster, member, observed, ca, checks, then)
    return changes([replace(config, restarts=())], kept)


def _late(cluster: EtcdCluster, observed: EtcdState) -> tuple[EtcdMember, ...]:
    """The declared members that were never added to a cluster which is down. They cannot be added
    before the cluster is up, and must not be started like its first members."""
    if observed.running is not None:
        return ()
    old = [m for m in cluster.members if desired.has_data(m, observed.facts[m.machine])]
    if not old:
        return ()
    path = layout.config_file(cluster)
    first: set[str] = set()
    for m in old:
        first |= desired.initial_members(observed.facts[m.machine].text(path) or "")
    return tuple(m for m in cluster.members if m not in old and m.name not in first)


def _comes_later(member: EtcdMember) -> Problem:
    where = member.place
    what = "is new, and is added once the cluster is up"
    return Problem(where, what, "run invoke deploy-etcd again", "warning", id="deploy-first")


def _is_lost(cluster: EtcdCluster, member: EtcdMember, observed: EtcdState) -> Problem:
    """The warning that the member has lost its data and is not started. Without its data, the
    member could vote for something that it has voted against before."""
    where = member.place
    what, remedy = desired.what_is_lost(cluster, member, observed.facts[member.machine])
    what += "; it is not started"
    return Problem(
        where, what, f"once the cluster is up: {remedy}", "warning", id="member-data-lost"
    )


def _refuse_several_cut_off(
    cluster: EtcdCluster, observed: EtcdState, rolling: Sequence[EtcdMember]
) -> None:
    """Raises :class:`PreflightFailed` when two or more members are cut off. In a change one by one,
    each would wait in vain for the others to be healthy."""
    over = [m for m in tls.cut_off(cluster, observed.facts) if m in rolling]
    if len(over) < 2 or observed.health.all_healthy:
        return
    raise PreflightFailed(
        "certificates have expired, and members are cut off",
        [
            Problem(
                m.place,
                "has a certificate that has expired",
                "invoke rotate-certs, which begins with those",
                id="certificate-unverified",
            )
            for m in over
        ],
        id="certificate-unverified",
    )


def _refuse_another_minor(cluster: EtcdCluster, observed: EtcdState) -> None:
    if cluster.source.package:
        return
    wanted = version_tuple(cluster.version)[:2]
    runs = [(m.member, m.status.version) for m in observed.health.members if m.status is not None]
    for m in (m.member for m in observed.health.members if m.status is None):
        facts = observed.facts[m.machine]
        there = desired.installed_release(cluster, facts) if desired.has_data(m, facts) else ""
        # A member that is down would be started with the older release, on its data.
        if there and version_tuple(there) > version_tuple(cluster.version):
            runs.append((m, there))
    problems = [
        Problem(
            m.place,
            f"runs etcd {release}, the inventory says {cluster.version}",
            f"invoke upgrade-etcd {cluster.version}, or set etcd.version to what runs",
            id="etcd-version-differs",
        )
        for m, release in runs
        if minor(release) not in (None, wanted)
    ]
    if problems:
        raise PreflightFailed(
            "another minor release of etcd is an upgrade of its own",
            problems,
            id="etcd-version-differs",
        )


def _on(member: EtcdMember, todo: tuple[Change, ...]) -> HostChanges:
    return HostChanges(member.name, member.machine, todo)
