"""Finds out which cluster it is, before anything is changed or saved.

:func:`establish` looks at every declared member, decides with :mod:`provision.etcd.cluster.groups`,
and returns the inventory with the result. From then on :mod:`provision.etcd.cluster.health` counts
only the members of that cluster, so no gate and no call can reach another cluster.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field, replace

from provision import progress, wait
from provision.dataclass import dataclass
from provision.engine.guards import Guard
from provision.errors import PreflightFailed, Problem, UsageError
from provision.etcd.cluster import gates, groups, health, last_seen
from provision.etcd.cluster.groups import (
    Answer,
    Behind,
    Disk,
    Group,
    Note,
    Seen,
    Serving,
    Silent,
    Two,
    Unseen,
)
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth
from provision.etcd.member import desired, layout, listeners, membership_diff, recovery_marker
from provision.host import gather
from provision.host.facts import HostFacts, Kind, Probe, merged
from provision.host.ownership import owner
from provision.host.resources import File
from provision.inventory.resolved import Established, EtcdCluster, EtcdMember, Inventory, Machine
from provision.text import document

_IDS, _STATUS = "wal", "snapshot status"
_ADVERTISED = re.compile(r'^initial-advertise-peer-urls: "https?://([^"]+)"$', re.MULTILINE)
RECOVER = "find out which data is right; then invoke recover-etcd {}, or invoke restore-etcd FILE"
MOUNT = (
    "mount the data disks, or invoke restore-etcd FILE; if the data is lost and you want an "
    "empty etcd: delete {} and {} on every member's host"
)


@dataclass(frozen=True, slots=True)
class Look:
    """The observed state: every declared member, and the last run's note."""

    seen: tuple[Seen, ...]
    note: Note | None = None
    facts: Mapping[Machine, HostFacts] = field(default_factory=dict)
    asked: ClusterHealth | None = None


#: The probes of the members' hosts that a plan needs.
Probes = Callable[[Etcd], Mapping[Machine, Probe]]


def establish(
    inventory: Inventory,
    etcd: Etcd,
    wanted: str = "",
    *,
    starts: bool = False,
    plans: Probes | None = None,
) -> Inventory:
    """The inventory with the cluster that a command may work on. ``etcd`` is the handle on the
    inventory's cluster, with the login that the command has.

    ``wanted`` is the value of ``--cluster-id``. For an external etcd only the members' answers
    count. ``starts``: the command starts members that are down, and this must be safe. It also
    changes members that still serve another client URL than declared. What the plan needs of the
    hosts (``plans``) is asked in the same round trip. It is in ``etcd.learned.looked`` then, and
    what the members have answered in ``etcd.learned.asked``: the plan is made at once. Raises
    :class:`PreflightFailed` when it is not clear which cluster it is, and :class:`UsageError` for a
    group that does not exist; nothing is changed.
    """
    cluster = replace(inventory.etcd, established=Established())
    etcd = etcd.with_cluster(cluster)
    look = observe(etcd, plans)
    if starts and (elsewhere := _served_elsewhere(cluster, look)):
        cluster = replace(cluster, members=elsewhere)
        etcd = etcd.with_cluster(cluster)
        look = observe(etcd)
    if unended := recovery_marker.problems(cluster, look.facts):
        raise PreflightFailed(
            "a restore or a recovery is not finished",
            unended,
            id="recovery-unfinished",
        )
    etcd.learned.passed.add(Guard.UNFINISHED)
    _require_known(wanted, groups.form(look.seen))
    look, formed, verdict = _settled(etcd, look, wanted)
    established = Established()
    if isinstance(verdict, Two | Behind):
        raise refusal(cluster, verdict)
    if isinstance(verdict, Unseen):
        raise PreflightFailed(
            "the cluster that serves may not be the cluster of the last run",
            [
                *[replace(p, id="etcd-members-unseen") for p in groups.shown(formed)],
                groups.not_seen(cluster.name, verdict),
            ],
            id="etcd-members-unseen",
        )
    if isinstance(verdict, Silent) and wanted and any(g.serves is not False for g in formed):
        raise _does_not_serve(cluster, wanted, formed)
    if isinstance(verdict, Serving):
        established = replace(
            _of(verdict, wanted), endpoints=_undeclared(cluster, verdict.group, look)
        )
    elif not cluster.external and starts and _all_ours(cluster, look):
        established = Established(lost=_may_start(cluster, look, verdict))
    alluxio = inventory.alluxio
    if alluxio is not None and established.endpoints:
        every = (*cluster.endpoints, *established.endpoints)
        alluxio = replace(alluxio, etcd_endpoints=tuple(dict.fromkeys(every)))
    cluster = replace(cluster, established=established)
    if plans is not None and look.asked is not None and _are_well(look.asked, established):
        etcd.learned.asked = etcd.login, replace(look.asked, cluster=cluster)
    return replace(inventory, etcd=cluster, alluxio=alluxio)


def _are_well(asked: ClusterHealth, established: Established) -> bool:
    """Whether all members are healthy, and of the established cluster: then the plan can be made
    from this look. Without an established cluster the plan finds out what there is."""
    return all(
        m.healthy
        and m.status is not None
        and established.cluster_id == m.status.cluster_id
        and established.has(m.status.cluster_id, m.status.member_id)
        for m in asked.members
    )


def _served_elsewhere(cluster: EtcdCluster, look: Look) -> tuple[EtcdMember, ...]:
    """The members, those with another client URL in their configuration to be asked there; empty
    when there are none, or when all answer."""
    found = {
        m.name: port
        for m, seen in zip(cluster.members, look.seen, strict=True)
        if seen.answer is None
        and (facts := look.facts.get(m.machine)) is not None
        and (port := listeners.served_elsewhere(cluster, m, facts)) is not None
    }
    if not found:
        return ()
    return tuple(replace(m, serves_at=found.get(m.name)) for m in cluster.members)


def _undeclared(cluster: EtcdCluster, group: Group, look: Look) -> tuple[str, ...]:
    """The endpoints of the voters that the inventory does not declare, or declares at another
    address. Workers keep these endpoints while the members exist."""
    if look.asked is None:
        return ()
    of = tuple(m for m in look.asked.members if m.member.name in group.names)
    there = membership_diff.member_list(cluster, replace(look.asked, members=of).registered)
    found = replace(cluster, members=there.voters).endpoints
    return tuple(url for url in found if url not in cluster.endpoints)


def _settled(etcd: Etcd, look: Look, wanted: str) -> tuple[Look, tuple[Group, ...], groups.Verdict]:
    """The verdict, when it is stable.

    The members are not asked at the same instant, so a group that serves may have gone on since the
    look at another member. During an election a majority does not serve for a second or two; it
    must not count as a group that has lost its quorum.
    """
    with progress.waiting("the members agree on their cluster", within=gates.BACK_WITHIN):
        seen, deadline = look.seen, wait.Deadline(gates.BACK_WITHIN)
        looks = 0
        while True:
            formed = groups.form(seen)
            known = wanted if any(g.name == wanted for g in formed) else ""
            verdict = groups.decide(seen, formed, look.note, known)
            electing = groups.may_be_electing(formed)
            if not electing and (looks or not isinstance(verdict, Two | Behind | Unseen)):
                break
            if electing and looks and deadline.passed:
                break
            if looks:
                deadline.pause(gates.POLL_SECONDS)
            seen = _again(seen, answers(health.observe(etcd)))
            looks += 1
    _require_known(wanted, formed)
    return replace(look, seen=seen), formed, verdict


def choose(inventory: Inventory, etcd: Etcd, wanted: str) -> Inventory:
    """The inventory with the group ``wanted``, even when that group does not serve. Members of
    other groups are not asked. For ``recover-etcd``: its group does not serve.

    Raises :class:`UsageError` when no group has that name.
    """
    cluster = replace(inventory.etcd, established=Established())
    look = observe(etcd.with_cluster(cluster))
    if recovery_marker.problems(cluster, look.facts):
        return inventory  # a recovery that has begun goes on; the other members are stopped
    seen = look.seen
    group = named(wanted, groups.form(seen))
    outside = [m for m in seen if m.has_data and m not in group.members]
    established = Established(
        group.cluster_id,
        frozenset(m.member_id for m in outside if m.member_id is not None),
        frozenset(m.name for m in outside),
        name=wanted,
    )
    return replace(inventory, etcd=replace(cluster, established=established))


def observe(etcd: Etcd, plans: Probes | None = None) -> Look:
    """Ask every member, and read the last run's note on each host. For members that do not answer,
    read their data. An external etcd has only answers: this tool has no access to its hosts.

    ``plans`` as in :func:`establish`; a later look without it forgets what was seen for the plan.
    """
    cluster = etcd.cluster
    probes = {m.machine: _probe(cluster, m) for m in cluster.members if not cluster.external}
    more = plans(etcd) if plans is not None else {}
    probes |= {m: merged((probe, probes[m])) for m, probe in more.items()}
    with ThreadPoolExecutor(1, "guard") as pool:
        looking = pool.submit(gather.gather_facts, etcd.fleet, probes)
        asked = health.observe(etcd)
        facts, _ = looking.result()
    told, refused = answers(asked), {m.member.name for m in asked.members if m.refused}
    if cluster.external:
        return Look(tuple(Seen(m.name, told.get(m.name)) for m in cluster.members))
    silent = {
        m.machine: replace(_probe(cluster, m), commands=_disk_commands(cluster, m))
        for m in cluster.members
        if m.name not in told and m.machine in facts and desired.has_data(m, facts[m.machine])
    }
    etcd.learned.looked = {
        m: (probe, facts[m]) for m, probe in more.items() if m in facts and m not in silent
    }
    if silent:
        facts |= gather.gather_facts(etcd.fleet, silent)[0]
    seen = tuple(
        replace(
            _seen(m, told.get(m.name), facts.get(m.machine)),
            refuses=m.name in refused,
            peer_url=m.peer_url,
        )
        for m in cluster.members
    )
    return Look(seen, last_seen.read(cluster, facts.values()), facts, asked)


def answers(seen: ClusterHealth) -> dict[str, Answer]:
    """The members' answers about themselves, by name; only members that answer."""
    return {m.member.name: a for m in seen.members if (a := m.answer) is not None}


def refusal(cluster: EtcdCluster, verdict: Two | Behind) -> PreflightFailed:
    """The error that the command does not choose a group by itself, with every group."""
    listed = groups.shown(verdict.groups)
    if isinstance(verdict, Two):
        serving = " and ".join(g.name for g in verdict.groups if g.serves is not False)
        return PreflightFailed(
            "the members form more than one cluster",
            [
                *listed,
                Problem(
                    cluster.name,
                    f"it is not clear which cluster is the right one: {serving}",
                    "find out which cluster has the right data, and name it: --cluster-id ID; "
                    "when you replace the other members, their data is kept aside",
                    id="etcd-clusters-differ",
                ),
            ],
            id="etcd-clusters-differ",
        )
    others = [m for g in verdict.groups if g is not verdict.group for m in g.members]
    newest = max(others, key=lambda m: m.revision or 0, default=None)
    remedy = f"to keep the cluster that serves: --cluster-id {verdict.group.name}"
    if newest is not None and (newest.revision or 0) > (verdict.group.revision or 0):
        other = next(g for g in verdict.groups if newest in g.members)
        remedy += (
            f"; to keep the newer data: invoke recover-etcd {newest.name} --cluster-id {other.name}"
        )
    else:
        remedy += "; to use a backup: invoke restore-etcd FILE"
    return PreflightFailed(
        "the cluster that serves has older data than before",
        [
            *[replace(p, id="etcd-history-behind") for p in listed],
            Problem(cluster.name, verdict.why, remedy, id="etcd-history-behind"),
        ],
        id="etcd-history-behind",
    )


def named(wanted: str, formed: Sequence[Group]) -> Group:
    """The group that ``--cluster-id`` names. Raises :class:`UsageError` when no group has the
    name."""
    _require_known(wanted, formed)
    return next(g for g in formed if g.name == wanted)


def _require_known(wanted: str, formed: Sequence[Group]) -> None:
    names = [g.name for g in formed]
    if wanted and wanted not in names:
        there = f"there are {', '.join(names)}" if names else "no member has data"
        raise UsageError(f"--cluster-id: no cluster {wanted!r}: {there}", id="name-unknown")


def _does_not_serve(cluster: EtcdCluster, wanted: str, formed: Sequence[Group]) -> PreflightFailed:
    group = named(wanted, formed)
    newest = max(group.members, key=lambda m: m.revision or 0).name
    what = f"cluster {wanted} does not serve, and another one does"
    remedy = f"invoke recover-etcd {newest} --cluster-id {wanted}"
    return PreflightFailed(
        what,
        [*groups.shown(formed), Problem(cluster.name, what, remedy, id="quorum-lost")],
        id="quorum-lost",
    )


def _of(verdict: Serving, wanted: str) -> Established:
    group = verdict.group
    return Established(
        group.cluster_id,
        frozenset(m.answer.member_id for m in verdict.odd if m.answer is not None),
        frozenset(m.name for m in verdict.odd if m.cluster_id is not None),
        name=wanted,
    )


def _all_ours(cluster: EtcdCluster, look: Look) -> bool:
    """Whether every host answers, and no host has data of another installation (preflight refuses
    such data)."""
    for m, seen in zip(cluster.members, look.seen, strict=True):
        facts = look.facts.get(m.machine)
        if facts is None or (seen.disk and owner(facts, layout.UNIT_PATH) != cluster.name):
            return False
    return True


def _may_start(cluster: EtcdCluster, look: Look, verdict: Silent) -> frozenset[str]:
    """The members that must not be started with the others. Raises :class:`PreflightFailed` when a
    start of any member could lose acknowledged writes."""
    texts = {
        m.name: look.facts[m.machine].text(layout.config_file(cluster)) or ""
        for m in cluster.members
        if m.machine in look.facts
    }
    data = [m for m in look.seen if m.has_data]
    if elsewhere := _elsewhere(cluster, look):
        raise PreflightFailed(
            "etcd's data is in another folder",
            elsewhere,
            id="member-data-lost",
        )
    first: set[str] = set()
    for m in data:
        first |= desired.initial_members(texts.get(m.name, ""))
    exists = any(desired.says_existing(text) for text in texts.values())
    found = groups.start(look.seen, look.note, first, exists)
    if isinstance(found, groups.Start) and (why := _moved(cluster, found, texts)):
        found = groups.Unclear(why, found.names[0])
    if isinstance(found, groups.Unclear):
        remedy = RECOVER.format(found.best or "NAME")
        if not data:
            remedy = MOUNT.format(layout.last_seen(cluster), layout.config_file(cluster))
        away = [m.name for m in look.seen if m.looked and not m.has_data and m.name in first]
        if away:
            remedy = f"mount the data disk of {', '.join(away)}; if that is not possible: {remedy}"
        raise PreflightFailed(
            "no member serves, and starting them could lose data",
            [
                *[replace(p, id="etcd-history-behind") for p in groups.shown(verdict.groups)],
                Problem(cluster.name, found.why, remedy, id="etcd-history-behind"),
            ],
            id="etcd-history-behind",
        )
    return frozenset(found.lost) if isinstance(found, groups.Start) else frozenset()


def _elsewhere(cluster: EtcdCluster, look: Look) -> list[Problem]:
    """Problems of members without data that had their data in another ``data_dir`` before."""
    found = []
    for m, seen in zip(cluster.members, look.seen, strict=True):
        facts = look.facts.get(m.machine)
        if facts is None or seen.has_data:
            continue
        if former := desired.former_data_dir(cluster, m, facts):
            what, remedy = desired.what_moved(m, former)
            where = m.place
            found.append(Problem(where, what, remedy, id="member-data-lost"))
    return found


def _moved(cluster: EtcdCluster, start: groups.Start, texts: Mapping[str, str]) -> str:
    """Why the members could not find each other: too many have another address now."""
    advertised = {name: _ADVERTISED.search(text) for name, text in texts.items()}
    known = [m for m in cluster.members if m.name in start.names and advertised.get(m.name)]
    away = [
        m.name
        for m in known
        if (found := advertised[m.name]) and found[1] != m.peer_url.partition("://")[2]
    ]
    total = len(start.names) + len(start.lost)
    # The member of a cluster of one does not have to be found.
    if away and total > 1 and len(known) - len(away) < total // 2 + 1:
        return (
            f"the peer addresses of {', '.join(away)} have changed since etcd last ran: the "
            "members cannot find each other, and etcd cannot learn the new addresses without a "
            "quorum"
        )
    return ""


def _again(before: Sequence[Seen], now: Mapping[str, Answer]) -> tuple[Seen, ...]:
    """``before``, with the new answers of the members that serve now."""
    return tuple(
        replace(m, answer=now[m.name]) if m.name in now and now[m.name].serves else m
        for m in before
    )


def _seen(member: EtcdMember, answer: Answer | None, facts: HostFacts | None) -> Seen:
    if answer is not None or facts is None:
        return Seen(member.name, answer, looked=facts is not None)
    if not desired.has_data(member, facts):
        return Seen(member.name)
    from provision.etcd.cluster import wal

    found = wal.parse(facts.commands.get(_IDS, ""))
    return Seen(
        member.name,
        disk=Disk(
            found.cluster_id if found is not None else None,
            found.member_id if found is not None else None,
            revision(facts.commands.get(_STATUS, "")),
        ),
    )


def revision(said: str) -> int | None:
    """The revision in the output of ``snapshot status -w json``; None without one."""
    lines = said.strip().splitlines() or [""]
    try:
        return int(document(lines[-1])["revision"])
    except (ValueError, KeyError, TypeError):
        return None


def _probe(cluster: EtcdCluster, member: EtcdMember) -> Probe:
    return Probe(
        resources=tuple(
            File(path, None)
            for path in (
                layout.last_seen(cluster),
                layout.config_file(cluster),
                layout.UNIT_PATH,
            )
        ),
        paths=(f"{member.data_dir}/member", recovery_marker.path(member)),
        # Addresses: at which of them the member listens. Clock: this tool's own CA makes
        # certificates that are valid by every host's clock.
        kinds=Kind.ADDRESSES
        | (Kind.CLOCK if cluster.tls.peer or cluster.tls.client else Kind.NONE),
    )


def _disk_commands(cluster: EtcdCluster, member: EtcdMember) -> dict[str, str]:
    """The shell commands that read a silent member's data, as etcd's user, who owns the data."""
    from provision.etcd.cluster import scratch, wal

    q, data = shlex.quote, f"{member.data_dir}/member"
    head = wal.read_head(f'"{data}"/wal')
    # Copy the database, if there is room: the database of a running process is locked.
    status = (
        f'need=$(du -k "{data}/snap/db" | cut -f 1) && [ -n "$need" ] && '
        "free=$(df -Pk /var/tmp | awk 'END { print $4 }') && [ $((need * 2)) -lt \"$free\" ] && "
        f"t=$(mktemp -d {scratch.SCRATCH}.XXXXXX) && trap 'rm -rf \"$t\"' EXIT && "
        f'timeout 30 cp --reflink=auto "{data}/snap/db" "$t/db" && ETCDCTL_API=3 timeout 50 '
        f'{q(scratch.tool(cluster))} snapshot status "$t/db" -w json'
    )
    only = f"[ -d {q(data)} ] || exit 0; cd /; {layout.as_user(cluster)} sh -c "
    return {_IDS: only + q(head), _STATUS: only + q(status)}
