"""``restore-etcd --undo``: goes back to the data from before the last restore.

The data is on every host beside the data in use, until ``kept-data`` deletes it. As in a restore,
all members stop before the first goes back, and all have gone back before the first starts. The
restored data is kept aside in its turn, with everything that was written since the restore.

A restore that was killed can be undone, too: members that it has not reached are left as they are.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone

from provision.dataclass import dataclass
from provision.engine.plan import Plan, Step
from provision.errors import PreflightFailed, Problem
from provision.etcd.cluster import health, wal
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.wal import Ids
from provision.etcd.member import layout, recovery_marker
from provision.etcd.member.backups import STAMP
from provision.etcd.member.recovery_marker import RecoveryMarker
from provision.host import gather, listing, safely
from provision.host.diff import Change
from provision.host.effects import Effect
from provision.host.facts import HostFacts, Probe
from provision.host.ownership import owner
from provision.host.resources import File
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine
from provision.plans.etcd.data import alarms, restore_etcd
from provision.text import counted

COMMAND = "undo"
_FOLDERS = "folders"
#: Takes the blanks and line ends out of a head.
_FLAT = "tr -cd 0-9a-f"


@dataclass(frozen=True, slots=True)
class UndoState:
    """Everything the plan is made from. ``mark`` has the id of the restore that is undone; ``now``
    is the time for names. ``unfinished``: the restore or its undo has begun, and not ended.
    ``revision``: the newest revision, ``since`` the first revision after the
    restore; None where it is not known."""

    facts: Mapping[Machine, HostFacts]
    mark: RecoveryMarker
    now: str
    continues: bool
    unfinished: bool = False
    revision: int | None = None
    since: int | None = None

    @property
    def restore(self) -> RecoveryMarker:
        """The mark of the restore that is undone."""
        return RecoveryMarker("restore", self.mark.id, self.mark.key)


def observe(etcd: Etcd) -> UndoState:
    """Find out which restore made the data in use, and whether the data from before it is there.

    Raises :class:`PreflightFailed` when there is no way back; nothing is changed.
    """
    cluster = etcd.cluster
    facts = gather.require_facts(
        etcd.fleet, {m.machine: _probe(cluster, m) for m in cluster.members}
    )
    named = {m.name: m for m in cluster.members}
    begun = recovery_marker.newest(named, facts)
    if begun is not None and begun.command == "recover":
        what = f"a recovery of {begun.id} is not finished"
        problem = Problem(cluster.name, what, "finish it first", id="recovery-unfinished")
        raise PreflightFailed(what, [problem], id="recovery-unfinished")
    id = begun.id if begun is not None else _last_restore(cluster, facts)
    key = hashlib.sha256(f"undo {cluster.name} {id}".encode()).hexdigest()
    state = UndoState(
        facts,
        RecoveryMarker(COMMAND, id, key),
        datetime.now(timezone.utc).strftime(STAMP),
        begun is not None and begun.command == COMMAND,
        begun is not None,
    )
    problems = [p for m in cluster.members for p in _problems(cluster, m, state)]
    if problems := problems or _of_each(cluster, state):
        raise PreflightFailed("there is no way back", problems, id="undo-impossible")
    origins = [restore_etcd.read_origin(m, facts[m.machine]) for m in cluster.members]
    since = next((o.revision for o in origins if o is not None), None)
    seen = health.observe(etcd)
    revision = max((m.status.revision for m in seen.members if m.status is not None), default=None)
    return replace(state, revision=revision, since=since)


def plan(etcd: Etcd, observed: UndoState) -> Plan:
    """Stop all, put the data from before the restore back, start all, and verify."""
    cluster, mark = etcd.cluster, observed.mark
    facts = {m.name: observed.facts[m.machine] for m in cluster.members}
    left = [m for m in cluster.members if not _is_back(m, facts[m.name], mark)]
    steps: list[Step] = []
    if left:
        stopping = [m for m in cluster.members if not restore_etcd.stopped(m, facts[m.name], mark)]
        steps += restore_etcd.step(
            "stop every member", stopping, lambda m: recovery_marker.stop(m, mark, cluster.user)
        )
        steps += restore_etcd.step(
            "put the data from before the restore back", left, lambda m: _back(m, observed)
        )
    starting = [m for m in cluster.members if left or not restore_etcd.running(facts[m.name])]
    verify = restore_etcd.verified(etcd)
    steps += restore_etcd.step(
        "start all members together", starting, recovery_marker.start, after=verify
    )
    if not steps:
        steps.append(Step("verify the cluster", after=verify))
    steps.append(Step("check the alarms", calls=(alarms.settle(etcd),)))
    guards = tuple(m.machine for m in cluster.members)
    return Plan("restore-etcd", cluster.name, tuple(steps), _notes(cluster, observed), guards)


def finish(etcd: Etcd, observed: UndoState) -> Plan:
    """When the members and the workers are back: remove the marks."""
    cluster = etcd.cluster

    def clear(m: EtcdMember) -> Change:
        side = restore_etcd.side(m, observed.mark)
        return recovery_marker.clear(m, side, layout.last_seen(cluster))

    before = restore_etcd.verified(etcd)
    steps = restore_etcd.step("finish", list(cluster.members), clear, before=before)
    return Plan("restore-etcd", cluster.name, tuple(steps))


def kept(member: EtcdMember, observed: UndoState) -> str:
    """Where the restored data is kept aside."""
    return f"{member.data_dir}/member.before-undo-{observed.now}"


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder with data holds.

    ``stamp``: the id of the restore that made the data, if one did. ``head``: the head of the
    data's log. ``noted``: the head of the log of the data that this restore has put aside."""

    stamp: str = ""
    head: str = ""
    noted: str = ""

    @property
    def ids(self) -> Ids | None:
        return wal.parse(self.head)

    @property
    def over(self) -> Ids | None:
        return wal.parse(self.noted)


def _probe(cluster: EtcdCluster, member: EtcdMember) -> Probe:
    # etcd's user names the folders, and owns what is in them.
    names = f"""\
for d in member member.before-restore-*; do
  [ -d "./$d" ] || continue
  s=$(head -c 40 "./$d/restored-by" 2>/dev/null | tr -cd 0-9TZ)
  i=$({{ {wal.read_head('"./$d"/wal')}; }} 2>/dev/null | {_FLAT})
  o=$(head -c {4 * wal.HEAD} "./$d/{restore_etcd.OVER}" 2>/dev/null | {_FLAT})
  printf '%s %s %s %s\\0' "$d" "${{s:--}}" "${{i:--}}" "${{o:--}}"
done"""
    return Probe(
        resources=(
            File(layout.UNIT_PATH, None),
            File(recovery_marker.path(member), None),
            File(restore_etcd.stamp(member), None),
            File(restore_etcd.origin(member), None),
        ),
        paths=(member.data_dir, f"{member.data_dir}/member"),
        units=(layout.UNIT,),
        commands={_FOLDERS: listing.sent(safely.as_owner(member.data_dir, names))},
    )


def _last_restore(cluster: EtcdCluster, facts: Mapping[Machine, HostFacts]) -> str:
    """The id of the restore that made every member's data. Raises :class:`PreflightFailed` when
    there is none."""
    ids = {m.name: _made_by(m, facts[m.machine]) for m in cluster.members}
    if len(set(ids.values())) == 1 and (id := next(iter(ids.values()))):
        return id
    problems = [
        _impossible(
            m,
            f"its data is of the restore of {ids[m.name]}"
            if ids[m.name]
            else "its data is not of a restore, or the member has joined since",
        )
        for m in cluster.members
    ]
    raise PreflightFailed("there is no restore to undo", problems, id="undo-impossible")


def _made_by(member: EtcdMember, facts: HostFacts) -> str:
    return (facts.text(restore_etcd.stamp(member)) or "").strip()


def _folders(facts: HostFacts) -> dict[str, Folder]:
    found = {}
    for record in listing.records(facts.commands.get(_FOLDERS, "")):
        fields = record.split(" ")
        if len(fields) == 4:
            found[fields[0]] = Folder(*(field.strip("-") for field in fields[1:]))
    return found


def _old(member: EtcdMember, state: UndoState) -> str:
    """The folder with the data from before the restore."""
    if _is_back(member, state.facts[member.machine], state.mark):
        return "member"
    return f"member.before-restore-{state.mark.id}"


def _of_each(cluster: EtcdCluster, state: UndoState) -> list[Problem]:
    """Problems of folders that hold other data than their names say: all must be of one etcd
    cluster, and each of another member. Two hosts with the data of one member would damage the
    cluster, and members of two clusters would not find each other."""
    ids: dict[str, Ids] = {}
    what: dict[str, str] = {}
    for m in cluster.members:
        name, folders = _old(m, state), _folders(state.facts[m.machine])
        found, now = folders.get(name, Folder()), folders.get("member", Folder())
        if found.ids is None:
            what[m.name] = f"the ids in the log of {name} cannot be read"
        elif found.stamp == state.mark.id:
            what[m.name] = f"{name} holds the restored data"
        elif name != "member" and now.over is not None and now.over != found.ids:
            what[m.name] = (
                f"{name} holds {_named(found.ids)}, and the restore put aside {_named(now.over)}"
            )
        else:
            ids[m.name] = found.ids
    apart = len({i.cluster_id for i in ids.values()}) > 1
    for name, i in ids.items():
        same = [n for n, other in ids.items() if other == i and n != name]
        if apart or same:
            what[name] = f"its data from before the restore is {_named(i)}"
            what[name] += f", as the data on {same[0]}" if same else ""
    return [_impossible(m, what[m.name]) for m in cluster.members if m.name in what]


def _named(ids: Ids) -> str:
    return f"the data of member {ids.member_id:x} of cluster {ids.cluster_id:x}"


def _impossible(member: EtcdMember, what: str) -> Problem:
    where = member.place
    remedy = "a backup is the way back: invoke restore-etcd FILE"
    return Problem(where, what, remedy, id="undo-impossible")


def _is_back(member: EtcdMember, facts: HostFacts, mark: RecoveryMarker) -> bool:
    """Whether the data in use is the data from before the restore: the restore has not reached the
    member, or an undo has."""
    return "member" in _folders(facts) and _made_by(member, facts) != mark.id


def _problems(cluster: EtcdCluster, member: EtcdMember, state: UndoState) -> list[Problem]:
    facts = state.facts[member.machine]
    folders = _folders(facts)
    old = f"member.before-restore-{state.mark.id}"
    made = restore_etcd.read_origin(member, facts)
    if owner(facts, layout.UNIT_PATH) != cluster.name:
        what = "has no etcd of this cluster"
    elif _is_back(member, facts, state.mark):
        if old not in folders:
            return []
        what = f"has {old}, and other data in use"
    elif old not in folders:
        what = f"has no {old}: it was deleted, or there was no data before the restore"
    elif made is not None and (made.members, made.without) != (cluster.initial_cluster, ()):
        what = f"was restored with other members ({made.members}"
        what += f", without {', '.join(made.without)})" if made.without else ")"
    else:
        return []
    return [_impossible(member, what)]


def _back(member: EtcdMember, observed: UndoState) -> Change:
    here, old = f"{member.data_dir}/member", restore_etcd.kept(member, observed.restore)
    new, q = kept(member, observed), shlex.quote
    was, then = (q(f"./{path.rpartition('/')[2]}") for path in (old, new))
    facts, name = observed.facts.get(member.machine), old.rpartition("/")[2]
    head = _folders(facts).get(name, Folder()).head if facts is not None else ""
    moves = f"""\
set -e
{_same(old, head)}
if [ -e ./member ]; then
  if [ ! -e {was} ] || [ -e {then} ]; then
    echo {q(old)} is not there, or {q(new)} is: nothing is moved >&2; exit 1
  fi
  mv -T ./member {then}
fi
mv -T {was} ./member
sync -f ./member"""
    # The folder is etcd's: its user does it.
    script = f"{layout.refuse_running()}\n{safely.as_owner(member.data_dir, moves)} >/dev/null"
    what = f"put {old} back as {here}; the restored data goes to {new}"
    return Change(what, script, disrupts=True, seconds=120, effects=(Effect.ETCD_BACK,))


def _same(folder: str, head: str) -> str:
    """Shell lines that end with 1 when ``folder`` does not hold the data with the log ``head``."""
    if not head:
        return ":"
    here = shlex.quote(f"./{folder.rpartition('/')[2]}")
    now = f"$({wal.read_head(f'{here}/wal')} | {_FLAT})"
    what = shlex.quote(f"{folder} is not the data that was looked at")
    return f'[ "{now}" = {shlex.quote(head)} ] || {{ echo {what} >&2; exit 1; }}'


def _notes(cluster: EtcdCluster, observed: UndoState) -> tuple[Problem, ...]:
    id = observed.mark.id
    if observed.continues:
        what = f"continues to undo the restore of {id}"
        return (Problem(cluster.name, what, "", "warning", id="run-resumed"),)
    writes = "an unknown number of writes"
    if observed.revision is not None and observed.since is not None:
        count = max(0, observed.revision - observed.since)
        writes = f"{counted(count, 'revision')}, from {observed.since} to {observed.revision}"
    return (
        Problem(
            cluster.name,
            f"everything written since the restore of {id} is gone from the cluster: {writes}",
            f"the restored data stays on each host as member.before-undo-{observed.now}",
            "warning",
            id="data-loss-ahead",
        ),
    )
