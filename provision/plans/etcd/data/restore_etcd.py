"""``restore-etcd``: restores every member from one snapshot, and keeps the old data aside.

It follows etcd's "Disaster recovery" guide: all members come from the same file, with a new cluster
token, so that a member with the old data can never join them.

Nothing is stopped before the file is proven (:mod:`provision.plans.etcd.data.snapshot_proof`) and
restored into a side folder on every host. The side folder is never started there: it has the real
peer URLs. Then all members stop, the side folders take the place of the data, and all members
start. :mod:`provision.plans.etcd.data.undo_restore` is the way back.

Two kinds of files on the hosts make a killed run safe. A mark is on each host from before the first
stop until after the last check (:mod:`provision.etcd.member.recovery_marker`). A file in each
restored ``member`` directory names the restore that made it: it is the last that is written there,
so a side folder without it is not complete.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Collection, Mapping
from datetime import datetime, timezone
from pathlib import Path

from provision.dataclass import dataclass
from provision.engine.plan import Action, Gate, HostChanges, Plan, Step
from provision.errors import ChangeFailed, PreflightFailed, Problem, Unhealthy, UsageError
from provision.etcd.api.values import Login
from provision.etcd.cluster import gates, health, last_seen, scratch, wal
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import desired, layout, recovery_marker
from provision.etcd.member.backups import STAMP
from provision.etcd.member.recovery_marker import RecoveryMarker
from provision.host import disks, gather, listing, safely
from provision.host.diff import Change
from provision.host.digest import is_digest
from provision.host.effects import Effect
from provision.host.facts import HostFacts, Probe
from provision.host.ownership import owner
from provision.host.resources import File
from provision.inventory.model import version_tuple
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine
from provision.plans.etcd.data import alarms, backup_etcd, snapshot_proof
from provision.plans.etcd.data.snapshot_proof import Proof
from provision.ssh.session import Session, failures
from provision.text import counted, number, printable, size

#: Room in sizes of the file: the uploaded file, the restored database, and its write-ahead log.
ROOM, WAL_BYTES = 2, 140 << 20
#: etcd's guide: more revisions than a week of 1500 writes a second, so that no client has seen a
#: newer revision than the first one of the restored cluster.
BUMP = 1_000_000_000
BUMPS_SINCE = (3, 6)


#: The first field of the lines that a side folder has from the prepare step.
_PREPARED = "prepared"
#: The label of the ids in a member's data.
_IDS = "ids"


@dataclass(frozen=True, slots=True)
class RestoreState:
    """Everything the plan is made from. ``proof`` None: no member needs the file any more.
    ``without``: the members of this etcd that the inventory does not have."""

    file: Path
    sha256: str
    facts: Mapping[Machine, HostFacts]
    mark: RecoveryMarker
    continues: bool
    proof: Proof | None = None
    without: tuple[str, ...] = ()


def observe(
    etcd: Etcd,
    file: Path,
    *,
    bump: bool = True,
    without: Collection[str] = (),
    workers: Login | None = None,
) -> RestoreState:
    """Check ``file``, look at every member's host, and prove the file in a scratch member.

    ``without`` names the members that are to be left out, ``workers`` is the workers' login to
    etcd. Raises :class:`PreflightFailed` with every problem found; nothing is changed.
    """
    cluster = etcd.cluster
    digest = backup_etcd.check(file)
    key = _key(cluster, digest, bump and bumps(cluster))
    facts = gather.require_facts(
        etcd.fleet, {m.machine: _probe(cluster, m, digest) for m in cluster.members}
    )
    begun = recovery_marker.newest({m.name: m for m in cluster.members}, facts)
    continues = begun is not None and (begun.command, begun.key) == ("restore", key)
    now = datetime.now(timezone.utc).strftime(STAMP)
    mark = begun if begun is not None and continues else RecoveryMarker("restore", now, key)
    problems = [
        p
        for m in cluster.members
        for p in _problems(cluster, m, facts[m.machine], file.stat().st_size, mark)
    ]
    if problems:
        raise PreflightFailed("preflight failed", problems, id="preflight-failed")
    left_out = _left_out(etcd, facts)
    _require_all(left_out, without, continues=continues)
    proof = None
    if not all(_restored(m, facts[m.machine], mark) for m in cluster.members):
        proof = snapshot_proof.prove(etcd, file, digest, workers)
    return RestoreState(file, digest, facts, mark, continues, proof, left_out)


def plan(etcd: Etcd, observed: RestoreState, *, bump: bool = True) -> Plan:
    """Upload, restore into a side folder, stop all, swap all, start all, and verify."""
    cluster, mark = etcd.cluster, observed.mark
    facts = {m.name: observed.facts[m.machine] for m in cluster.members}
    left = [m for m in cluster.members if not _restored(m, facts[m.name], mark)]
    unprepared = [m for m in left if not _prepared(m, facts[m.name], mark)]
    steps: list[Step] = []
    without = [m for m in unprepared if not _uploaded(m, facts[m.name], observed.sha256)]
    if without:
        names = ", ".join(m.name for m in without)
        send = Action(
            f"send {observed.file.name} ({size(observed.file.stat().st_size)}) to {names}",
            lambda: _send(etcd, observed, without),
            (Effect.HOST,),
        )
        steps.append(Step("upload the snapshot", calls=(send,)))
    steps += step(
        "restore into a side folder on every host",
        unprepared,
        lambda m: _prepare(cluster, m, observed, bump=bump),
    )
    if left:
        stopping = [m for m in cluster.members if not stopped(m, facts[m.name], mark)]
        steps += step(
            "stop every member", stopping, lambda m: recovery_marker.stop(m, mark, cluster.user)
        )
        steps += step("restore every member", left, lambda m: _swap(cluster, m, mark))
    starting = [m for m in cluster.members if left or not running(facts[m.name])]
    verify = verified(etcd)
    # The members have the same data, so the check at their start ends none of them.
    turn = {m.name: n for n, m in enumerate(starting)}
    steps += step(
        "start all members together",
        starting,
        lambda m: recovery_marker.start(m, turn[m.name]),
        after=verify,
    )
    if not steps:  # an earlier run has done all of this
        steps.append(Step("verify the restored cluster", after=verify))
    steps.append(Step("check the alarms", calls=(alarms.settle(etcd),)))
    guards = tuple(m.machine for m in cluster.members)
    return Plan("restore-etcd", cluster.name, tuple(steps), _notes(cluster, observed, bump), guards)


def finish(etcd: Etcd, observed: RestoreState) -> Plan:
    """When the members and the workers are back: remove the marks, the uploads and what is left of
    the side folders."""
    cluster = etcd.cluster

    def clear(m: EtcdMember) -> Change:
        # The noted state of the cluster belongs to another history now.
        more = _upload_path(m, observed.sha256), side(m, observed.mark), layout.last_seen(cluster)
        return recovery_marker.clear(m, *more)

    steps = step("finish", list(cluster.members), clear, before=verified(etcd))
    return Plan("restore-etcd", cluster.name, tuple(steps))


def bumps(cluster: EtcdCluster) -> bool:
    """Whether this release's restore can move revisions on (``--bump-revision``)."""
    return version_tuple(cluster.version) >= BUMPS_SINCE


def kept(member: EtcdMember, mark: RecoveryMarker) -> str:
    """Where a member's old data is kept: in the data directory, beside the new data. The data
    directory may be a mount point, and a rename within it is instant."""
    return f"{member.data_dir}/member.before-{mark.command}-{mark.id}"


def aside(member: EtcdMember, mark: RecoveryMarker, new: str) -> str:
    """Shell lines, after :data:`safely.FUNCTIONS`, that first keep the data of ``member`` aside,
    and then put ``new``, which is in the data directory, in its place. If they are killed between
    any two lines, a second run does the rest."""
    old = kept(member, mark)
    both = shlex.quote(f"{member.data_dir}/member and {old} are both there: move one away, none is")
    script = (
        f"set -e\nif [ -e ./member ]; then\n"
        f"  if [ -e {_here(old)} ]; then\n"
        f"    echo {both} deleted >&2; exit 1\n"
        f"  fi\n"
        f"  mv -T ./member {_here(old)}\n"
        f"fi\n"
        f"mv -T {shlex.quote(f'./{new}')} ./member\n"
        f"sync -f ./member"
    )
    # The folder is etcd's: its user does it.
    return f"{safely.as_owner(member.data_dir, script)} >/dev/null"


def _here(path: str) -> str:
    """The name of a path in the data directory, for a shell that is in it."""
    return shlex.quote(f"./{path.rpartition('/')[2]}")


def _key(cluster: EtcdCluster, digest: str, bump: bool) -> str:
    """A digest of everything that must be the same for members of different runs to fit
    together."""
    text = f"{digest} {cluster.initial_cluster} {cluster.token} {bump}"
    return hashlib.sha256(text.encode()).hexdigest()


def stamp(member: EtcdMember) -> str:
    """The file in the data in use that names the restore that made it."""
    return f"{member.data_dir}/member/restored-by"


def origin(member: EtcdMember) -> str:
    """The file in the data in use that says what the restore made it from: see :class:`Origin`."""
    return f"{member.data_dir}/member/restored-from"


#: The file in the data in use with the head of the log of the data that was put aside for it.
OVER = "restored-over"


@dataclass(frozen=True, slots=True)
class Origin:
    """The first revision of the restored cluster, its members with their peer URLs, and the members
    that were left out."""

    revision: int
    members: str
    without: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.revision} {self.members} {','.join(self.without) or '-'}"


def read_origin(member: EtcdMember, facts: HostFacts) -> Origin | None:
    """What the data in use was restored from; None when it does not say. The facts come from a
    probe with ``File(origin(member), None)``."""
    fields = (facts.text(origin(member)) or "").split()
    revision = number(fields[0]) if len(fields) == 3 else None
    if revision is None:
        return None
    return Origin(revision, fields[1], () if fields[2] == "-" else tuple(fields[2].split(",")))


def side(member: EtcdMember, mark: RecoveryMarker) -> str:
    """The side folder. It is on the disk of the data, so that a rename puts it in place."""
    return f"{member.data_dir}/restoring-{mark.id}"


def _upload_path(member: EtcdMember, sha256: str) -> str:
    return f"{member.data_dir}/restore-{sha256[:16]}.db"


def _probe(cluster: EtcdCluster, member: EtcdMember, sha256: str) -> Probe:
    return Probe(
        resources=(
            File(layout.UNIT_PATH, None),
            File(layout.config_file(cluster), None),
            File(recovery_marker.path(member), None),
            File(stamp(member), None),
            File(layout.last_seen(cluster), None),
            File(_upload_path(member, sha256), None, secret=True),
        ),
        paths=(f"{member.data_dir}/member", member.data_dir, scratch.tool(cluster)),
        units=(layout.UNIT,),
        disks=(member.data_dir,),
        commands={
            _PREPARED: _complete_folders(cluster, member),
            _IDS: safely.as_owner(
                member.data_dir, wal.read_head(shlex.quote(f"{member.data_dir}/member/wal"))
            ),
        },
    )


def _complete_folders(cluster: EtcdCluster, member: EtcdMember) -> str:
    """The command that lists the complete side folders, as etcd's user: name, and stamp in it."""
    script = (
        f"cd {shlex.quote(member.data_dir)} || exit 0; for d in restoring-*; do "
        '[ ! -f "$d/member/restored-by" ] || '
        'printf "%s %s\\0" "$d" "$(head -c 40 "$d/member/restored-by")"; done'
    )
    return listing.sent(f"{layout.as_user(cluster)} sh -c {shlex.quote(script)}")


def _left_out(etcd: Etcd, facts: Mapping[Machine, HostFacts]) -> tuple[str, ...]:
    """The members of this etcd that the inventory does not have: by name, or by peer URL when the
    inventory has another member of that name.

    A member that answers knows them. With etcd down, the last run's note does, and the
    configurations of the hosts: they name the members of the first start.
    """
    cluster, found = etcd.cluster, set[str]()
    urls, names = {m.peer_url for m in cluster.members}, {m.name for m in cluster.members}
    seen = health.observe(etcd)
    if registered := seen.registered:
        ids = {m.status.member_id for m in seen.members if m.status is not None}
        ids |= {i.member_id for f in facts.values() if (i := wal.parse(f.commands.get(_IDS, "")))}
        for r in registered:
            # A member at another address now is the member whose data is on a declared host.
            if not urls & {*r.peer_urls} and r.id not in ids:
                found.add(r.name if r.name and r.name not in names else r.peer_urls[0])
        return tuple(sorted(found))
    note = last_seen.read(cluster, facts.values())
    noted = note.members if note is not None else frozenset[str]()
    config = layout.config_file(cluster)
    with_data = {m.name for m in cluster.members if _has_data(m, facts)}
    for f in facts.values():
        for name, url in desired.initial_urls(f.text(config) or "").items():
            if name in names:
                # Without data on the declared host, the member of the old address is another one.
                found |= {url} if url not in urls and name not in with_data else set()
            elif not noted:
                found.add(name)
    return tuple(sorted(found | (noted - names)))


def _has_data(member: EtcdMember, facts: Mapping[Machine, HostFacts]) -> bool:
    return member.machine in facts and desired.has_data(member, facts[member.machine])


def _require_all(left_out: Collection[str], without: Collection[str], *, continues: bool) -> None:
    """Raises :class:`PreflightFailed` unless ``without`` names every member that is left out, and
    :class:`UsageError` for another name."""
    if unknown := sorted(set(without) - set(left_out)):
        if continues:  # the restored cluster does not know them any more
            return
        there = ", ".join(left_out) or "none"
        raise UsageError(
            f"--without: {unknown[0]} is no member that the inventory lacks (there: {there})",
            id="name-unknown",
        )
    missing = sorted(set(left_out) - set(without))
    if not missing:
        return
    remedy = "add it to etcd.members; if it is gone for good, add --without " + ",".join(left_out)
    raise PreflightFailed(
        "the inventory does not have every member of this etcd",
        [
            Problem(
                name,
                "is a member of this etcd and not in the inventory: it would go on with the old "
                "data, beside the restored cluster",
                remedy,
                id="member-not-declared",
            )
            for name in missing
        ],
        id="member-not-declared",
    )


def disk_away(member: EtcdMember, facts: HostFacts) -> Problem | None:
    """The problem of a data disk that is not mounted: the member's data must not be made new then.
    None: the disk is mounted."""
    mount = desired.disk_away(member, facts)
    if not mount:
        return None
    return Problem(
        member.place,
        f"{disks.what_is_away(mount)}. The old cluster could come back with the old disks, beside "
        "the new one",
        f"mount the disk, or a new one, at {mount}",
        id="member-data-lost",
    )


def _problems(
    cluster: EtcdCluster, member: EtcdMember, facts: HostFacts, length: int, mark: RecoveryMarker
) -> list[Problem]:
    where = member.place
    tool = scratch.tool(cluster)
    owned_by = owner(facts, layout.UNIT_PATH)
    if owned_by != cluster.name or tool not in facts.paths or member.data_dir not in facts.paths:
        what = f"is a member of cluster {owned_by}" if owned_by else "has no etcd of this tool"
        if owned_by == cluster.name:
            what = f"has no {tool}, or no {member.data_dir}"
        return [
            Problem(
                where,
                what,
                "run invoke deploy-etcd first: restore needs it installed",
                id="deploy-first",
            )
        ]
    if former := desired.former_data_dir(cluster, member, facts):
        what, remedy = desired.what_moved(member, former)
        return [Problem(where, what, remedy, id="member-data-lost")]
    if away := disk_away(member, facts):
        return [away]
    disk = facts.disks.get(member.data_dir)
    needed = length * ROOM + WAL_BYTES
    done = _restored(member, facts, mark) or _prepared(member, facts, mark)
    if done or (disk is not None and disk.available >= needed):
        return []
    if disk is None:
        return [disks.unmeasured(where, [member.data_dir])]
    return [
        Problem(
            where,
            f"{member.data_dir} has {size(disk.available)} free on {disk.device}, the restore "
            f"needs {size(needed)}: the old data stays beside it",
            f"make space: for instance, delete {member.data_dir}/member.before-* of earlier "
            "restores",
            id="disk-full",
        )
    ]


def _restored(member: EtcdMember, facts: HostFacts, mark: RecoveryMarker) -> bool:
    return (facts.text(stamp(member)) or "").strip() == mark.id


def _prepared(member: EtcdMember, facts: HostFacts, mark: RecoveryMarker) -> bool:
    """Whether the side folder of this restore is complete."""
    complete = listing.records(facts.commands.get(_PREPARED, ""))
    return f"restoring-{mark.id} {mark.id}" in complete


def _uploaded(member: EtcdMember, facts: HostFacts, sha256: str) -> bool:
    found = facts.paths.get(_upload_path(member, sha256))
    return found is not None and found.sha256 == sha256


def running(facts: HostFacts) -> bool:
    """Whether etcd is up and comes back after a reboot."""
    unit = facts.unit(layout.UNIT)
    return unit.active == "active" and unit.file_state == "enabled"


def stopped(member: EtcdMember, facts: HostFacts, mark: RecoveryMarker) -> bool:
    """Whether etcd is down and stays down, and the host has ``mark`` as the reason."""
    unit = facts.unit(layout.UNIT)
    return (
        recovery_marker.read(member, facts) == mark
        and unit.active in ("inactive", "failed")
        and unit.file_state != "enabled"
    )


def _send(etcd: Etcd, observed: RestoreState, members: list[EtcdMember]) -> None:
    cluster = etcd.cluster
    by_machine = {m.machine: m for m in members}

    def work(session: Session) -> None:
        member = by_machine[session.machine]
        path = _here(_upload_path(member, observed.sha256))
        script = (
            f"umask 077; t=$(mktemp {path}.XXXXXX); trap 'rm -f \"$t\"' EXIT\n"
            f'cat >"$t"\n'
            f"{is_digest('$t', observed.sha256)} || "
            "{ echo sha256 differs after the upload >&2; exit 1; }\n"
            f'sync -f "$t"; mv -f "$t" {path}'
        )
        # A new disk's top folder is root's. The file is written by etcd's user.
        work = (
            f"chown {cluster.user}:{cluster.user} . || exit 1\n"
            f"exec {layout.as_user(cluster)} sh -ec {shlex.quote(script)}"
        )
        command = f"{safely.FUNCTIONS}\n{safely.in_folder(member.data_dir, work)}"
        with observed.file.open("rb") as body:
            result = session.feed(command, body, "upload the snapshot")
        if not result.ok:
            where = member.place
            text = printable(result.stderr.strip(), 300)
            raise ChangeFailed(
                f"{where}: upload failed",
                [Problem(where, f"upload failed: {text}", id="change-failed")],
                id="change-failed",
            )

    if problems := failures(etcd.fleet.map(work, list(by_machine))):
        raise ChangeFailed(
            f"{len(problems)} of {counted(len(members), 'upload')} failed",
            problems,
            id="change-failed",
        )


def _prepare(
    cluster: EtcdCluster, member: EtcdMember, observed: RestoreState, *, bump: bool
) -> Change:
    """Restore into the side folder, beside the data in use. Earlier side folders go: they are never
    started, and an earlier run that needs one has left its mark."""
    mark, new, q = observed.mark, side(member, observed.mark), shlex.quote
    name, folder = (p.rpartition("/")[2] for p in (_upload_path(member, observed.sha256), new))
    assert observed.proof is not None
    revision = observed.proof.revision
    command = [
        *(scratch.tool(cluster), "snapshot", "restore", f"./{name}"),
        *("--data-dir", f"./{folder}", "--name", member.name),
        *("--initial-cluster", cluster.initial_cluster),
        *("--initial-advertise-peer-urls", member.peer_url),
        *("--initial-cluster-token", f"{cluster.token}-restored-{mark.id}"),
    ]
    if bump and bumps(cluster):
        command += ["--bump-revision", str(BUMP), "--mark-compacted"]
        revision += BUMP
    user = cluster.user
    made = Origin(revision, cluster.initial_cluster, observed.without)
    last = (
        f"echo {q(made.text)} >./{folder}/member/restored-from\n"
        f"sync -f ./{folder}\n"
        f"echo {mark.id} >./{folder}/member/restored-by\n"
        f"sync -f ./{folder}"
    )
    work = f"""\
# A new disk's top folder is root's.
chmod 0700 .
chown {user}:{user} .
rm -rf ./restoring-*
{layout.low_priority()}
export ETCDCTL_API=3
{safely.as_user(user, f"$low {shlex.join(command)}")} || exit 1
{safely.as_user(user, f"sh -ec {q(last)}")}"""
    script = safely.in_folder(member.data_dir, work)
    what = f"restore into {new}, beside the data in use"
    seconds = 120 + observed.file.stat().st_size / scratch.RESTORED_PER_SECOND
    return Change(what, script, seconds=int(seconds))


def _swap(cluster: EtcdCluster, member: EtcdMember, mark: RecoveryMarker) -> Change:
    new, old = side(member, mark), kept(member, mark)
    folder = new.rpartition("/")[2]
    complete = f'[ "$(cat ./{folder}/member/restored-by)" = {mark.id} ]'
    work = f"""\
{safely.as_user(cluster.user, f"sh -c {shlex.quote(complete)}")} || {{
  echo {shlex.quote(new)} is not complete >&2; exit 1
}}"""
    script = f"""\
{layout.refuse_running()}
{safely.in_folder(member.data_dir, work)}
{_note_aside(member, folder)}
{aside(member, mark, f"{folder}/member")}
gone {shlex.quote(new)}"""
    what = f"restore {member.data_dir}/member from {new}; its old data goes to {old}"
    return Change(what, script, disrupts=True, seconds=120, effects=(Effect.ETCD_BACK,))


def _note_aside(member: EtcdMember, folder: str) -> str:
    """A shell command that notes in the side folder ``folder`` which data goes aside for it: the
    way back must find this data, and no other, under the name that it gets."""
    over = shlex.quote(f"./{folder}/member/{OVER}")
    script = f"""\
set -e
if [ -e ./member ] && [ ! -e {over} ]; then
  {{ {wal.read_head("./member/wal")} || :; }} >{over}.part 2>/dev/null
  mv -T {over}.part {over}; sync -f {over}
fi"""
    return safely.as_owner(member.data_dir, script)


def verified(etcd: Etcd) -> Gate:
    """All members are healthy, and form one cluster."""
    # The snapshot may have been taken while an alarm stood. The alarm is disarmed after this gate.
    healthy = gates.all_healthy(etcd, standing=alarms.KINDS)

    def check() -> None:
        healthy.check()
        seen = health.observe(etcd)
        ids = {m.status.cluster_id for m in seen.members if m.status is not None}
        if len(ids) != 1:
            raise Unhealthy(
                "the members do not form one cluster", seen.problems, id="etcd-clusters-differ"
            )

    return Gate(f"one cluster again: {healthy.title}", check)


def step(
    title: str,
    members: list[EtcdMember],
    change: object,
    before: Gate | None = None,
    after: Gate | None = None,
) -> list[Step]:
    """The step that makes ``change`` on the hosts of ``members``; none without members."""
    assert callable(change)
    hosts = tuple(HostChanges(m.name, m.machine, (change(m),)) for m in members)
    return [Step(title, hosts, before=before, after=after)] if hosts else []


def _notes(cluster: EtcdCluster, observed: RestoreState, bump: bool) -> tuple[Problem, ...]:
    notes = [
        Problem(
            cluster.name,
            f"continues the restore begun at {observed.mark.id}"
            if observed.continues
            else "everything written after the snapshot is gone from the restored cluster",
            f"the old data stays on each host as member.before-restore-{observed.mark.id}; invoke "
            "restore-etcd --undo goes back to it, until kept-data deletes it",
            "warning",
            id="data-loss-ahead",
        ),
        Problem(
            cluster.name,
            "a restored snapshot is a new cluster, with another cluster id and token "
            f"({cluster.token}-restored-{observed.mark.id})",
            "a member that still has the old data cannot join it",
            "warning",
            id="data-loss-ahead",
        ),
    ]
    notes += [
        Problem(
            name,
            "is left out: it is not a member of the restored cluster",
            f"never start it again with its old data; invoke add-member {name} takes it in",
            "warning",
            id="data-loss-ahead",
        )
        for name in observed.without
    ]
    if not (bump and bumps(cluster)):
        notes.append(
            Problem(
                cluster.name,
                "revisions begin again at the revision of the snapshot: clients that have seen "
                "newer revisions miss changes in their watches",
                "restart such clients; etcd 3.6 and later can raise the revisions",
                "warning",
                id="data-loss-ahead",
            )
        )
    return tuple(notes)
