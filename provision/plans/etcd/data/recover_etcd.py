"""``recover-etcd``: go on from one member's data when a quorum of members is lost for good.

It uses ``--force-new-cluster`` of etcd's "Disaster recovery" guide: the chosen member forgets the
other members. This happens once, in a process of its own, so that no configuration keeps the flag.
Before, a copy of its data is kept aside. Then the other members join again as new members, one by
one (:mod:`provision.plans.etcd.members.declared_changes`); their old data is kept aside, too.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone

from provision.dataclass import dataclass
from provision.engine.plan import HostChanges, Plan, Step
from provision.errors import PreflightFailed, Problem, UsageError
from provision.etcd.cluster import gates, guard, hashes, health, scratch
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth
from provision.etcd.member import desired, layout, recovery_marker
from provision.etcd.member.backups import STAMP
from provision.etcd.member.recovery_marker import RecoveryMarker
from provision.host import disks, gather, safely
from provision.host.diff import Change
from provision.host.effects import Effect
from provision.host.facts import STATE_DIR, HostFacts, Probe
from provision.host.ownership import owner
from provision.host.resources import File
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine
from provision.plans.etcd.data import alarms, restore_etcd
from provision.text import number, size

#: Seconds for the chosen member to become a cluster of its own.
FORCED_WITHIN = 120
#: After a crash a member's database may have entries that its log does not call committed: etcd
#: writes the commit index to disk with the next entry (``raft.MustSync``), but the database after
#: 100 ms. force-new-cluster drops these entries from the log (etcd issue 14009; etcd 3.4 does).
#: Members that join would replay that log, and lack them. Worse, the member then ignores as many
#: new entries: those up to the index in its database (``consistent_index``). So entries are added
#: until they have an effect, and etcd saves a snapshot: those that join get the database. It saves
#: one whenever more than SNAPSHOT_COUNT entries were applied since the last.
SNAPSHOT_COUNT = 1
#: So many entries in a row have an effect, and the last snapshot comes after the first of them.
PAST = 4
#: While they have none, so many are added at a time: there may be hundreds after many writes.
AT_ONCE = 30
#: etcd's refusals (``rpctypes``) that are the effect of an entry, as options of grep.
_REFUSALS = (
    "-e 'user name is empty' -e 'permission denied' -e 'database space exceeded' "
    "-e 'corrupt cluster'"
)
#: The label of how many KiB the data has.
_SIZE = "kilobytes"


@dataclass(frozen=True, slots=True)
class Survivor:
    """A member on a host that answers. ``revision`` None: the revision could not be found out.

    ``exact`` is False when the revision was read from the database of a member that does not
    serve: the member's log may hold newer revisions.
    """

    member: EtcdMember
    revision: int | None
    exact: bool


@dataclass(frozen=True, slots=True)
class RecoveryState:
    """Everything the plan is made from. ``joined``: the members already in the new cluster."""

    chosen: EtcdMember
    facts: Mapping[Machine, HostFacts]
    survivors: tuple[Survivor, ...]
    lost: tuple[EtcdMember, ...]
    mark: RecoveryMarker
    continues: bool
    joined: frozenset[str]

    @property
    def forced(self) -> bool:
        return (self.facts[self.chosen.machine].text(_stamp(self.chosen)) or "").strip() == (
            self.mark.id
        )

    @property
    def rejoining(self) -> tuple[EtcdMember, ...]:
        """The survivors that join again, in the order of the inventory."""
        return tuple(s.member for s in self.survivors if s.member != self.chosen)


def observe(etcd: Etcd, name: str) -> RecoveryState:
    """Look at every member's host that answers, and ask the members for their state.

    Raises :class:`PreflightFailed` when a recovery from ``name`` is impossible or not needed.
    """
    cluster = etcd.cluster
    chosen = next((m for m in cluster.members if m.name == name), None)
    if chosen is None:
        known = ", ".join(m.name for m in cluster.members)
        raise UsageError(f"NAME is one of the members {known}, not {name!r}", id="name-unknown")
    seen = health.observe(etcd)
    facts, unreachable = gather.gather_facts(
        etcd.fleet, {m.machine: _probe(cluster, m) for m in cluster.members}
    )
    if chosen.machine not in facts:
        raise PreflightFailed(
            f"the data of {name} cannot be used for the recovery: no answer",
            unreachable,
            id="recovery-source-unfit",
        )
    away = [
        problem
        for m in cluster.members
        if m.machine in facts
        and (problem := restore_etcd.disk_away(m, facts[m.machine])) is not None
    ]
    if away:
        raise PreflightFailed("a data disk is not mounted", away, id="member-data-lost")
    _fit(cluster, chosen, facts[chosen.machine])
    _of_the_chosen(cluster, chosen)
    key = _key(cluster, name)
    begun = recovery_marker.newest({m.name: m for m in cluster.members}, facts)
    if begun is not None and begun.key != key and _gave_up(cluster, begun, facts):
        begun = None
    if begun is not None and (begun.command, begun.key) != ("recover", key):
        raise PreflightFailed(
            f"{begun.title} of {begun.id} is not finished",
            [
                Problem(
                    cluster.name,
                    f"{begun.title} is not done",
                    "finish that one first",
                    id="recovery-unfinished",
                )
            ],
            id="recovery-unfinished",
        )
    if begun is None and (refusing := [m.member.name for m in seen.members if m.refused]):
        what = "runs and refuses the login: it is not known whether it serves"
        remedy = "see etcd.auth.root_password in the inventory"
        raise PreflightFailed(
            "it is not known that the quorum is lost",
            [Problem(name, what, remedy, id="etcd-login-refused") for name in refusing],
            id="etcd-login-refused",
        )
    if begun is None and seen.healthy_count and not _diverged(seen, etcd):
        healthy = ", ".join(m.member.name for m in seen.members if m.healthy)
        raise PreflightFailed(
            "the quorum is not lost",
            [
                Problem(
                    cluster.name,
                    f"{healthy} serves reads",
                    "invoke deploy-etcd starts members that are stopped, invoke replace-member "
                    "NAME replaces a lost one; if the members that serve are not the right "
                    "cluster, invoke recover-etcd NAME --cluster-id ID names the right one",
                    id="quorum-not-lost",
                )
            ],
            id="quorum-not-lost",
        )
    now = datetime.now(timezone.utc).strftime(STAMP)
    mark = begun or RecoveryMarker("recover", now, key)
    survivors, lost = [], []
    for m in cluster.members:
        status = next(h.status for h in seen.members if h.member == m)
        f = facts.get(m.machine)
        if f is None or owner(f, layout.UNIT_PATH) != cluster.name:
            lost.append(m)
        elif status is not None:
            survivors.append(Survivor(m, status.revision, True))
        else:
            survivors.append(Survivor(m, guard.revision(f.commands.get("status", "")), False))
    found = RecoveryState(
        chosen, facts, tuple(survivors), tuple(lost), mark, begun is not None, frozenset()
    )
    if not found.forced:
        return found
    alone = health.observe(etcd.with_cluster(replace(cluster, members=(chosen,))))
    return replace(found, joined=frozenset(r.name for r in alone.registered if not r.is_learner))


def _key(cluster: EtcdCluster, name: str) -> str:
    return hashlib.sha256(f"{cluster.name} {name}".encode()).hexdigest()


def _gave_up(
    cluster: EtcdCluster, begun: RecoveryMarker, facts: Mapping[Machine, HostFacts]
) -> bool:
    """Whether an unfinished recovery has made no new cluster, so that another member can be chosen.
    Its data may be damaged: etcd shows it only when it is started with the data."""
    if begun.command != "recover":
        return False
    first = next((m for m in cluster.members if _key(cluster, m.name) == begun.key), None)
    if first is None or first.machine not in facts:
        return False
    return (facts[first.machine].text(_stamp(first)) or "").strip() != begun.id


def _diverged(seen: ClusterHealth, etcd: Etcd) -> bool:
    """Whether all voters serve, and no majority has the same data: the operator has to choose."""
    found = hashes.compare(seen, etcd)
    return not found.equal and not found.right and found.compared == found.voters


def plan(etcd: Etcd, observed: RecoveryState) -> Plan:
    """Stop the others, make the chosen member a cluster of its own, and start it."""
    cluster, chosen, mark = etcd.cluster, observed.chosen, observed.mark
    alone = etcd.with_cluster(replace(cluster, members=(chosen,)))
    steps: list[Step] = []

    def step(title: str, member: EtcdMember, *changes: Change) -> Step:
        return Step(title, (HostChanges(member.name, member.machine, changes),))

    others = [m for m in observed.rejoining if m.name not in observed.joined]
    stop = [m for m in others if not restore_etcd.stopped(m, observed.facts[m.machine], mark)]
    if not observed.forced:
        stop.append(chosen)
    if stop:
        hosts = tuple(
            HostChanges(m.name, m.machine, (recovery_marker.stop(m, mark, cluster.user),))
            for m in stop
        )
        steps.append(Step("stop the survivors", hosts))
    if not observed.forced:
        steps.append(
            step(
                f"make {chosen.name} a cluster of its own",
                chosen,
                _keep(chosen, mark),
                _force(cluster, chosen, mark),
            )
        )
    if not observed.forced or not restore_etcd.running(observed.facts[chosen.machine]):
        start = step(f"start {chosen.name}", chosen, recovery_marker.start(chosen))
        # The data may contain an alarm: CORRUPT is disarmed before the next member joins.
        after = gates.all_healthy(alone, standing=alarms.KINDS)
        steps.append(replace(start, after=after))
    guards = tuple(s.member.machine for s in observed.survivors)
    return Plan("recover-etcd", cluster.name, tuple(steps), _notes(observed), guards)


def see_to_alarms(etcd: Etcd, observed: RecoveryState) -> Step:
    """When all survivors are back: disarm the alarms that were in the data."""
    back = replace(etcd.cluster, members=tuple(s.member for s in observed.survivors))
    return Step("check the alarms", calls=(alarms.settle(etcd.with_cluster(back)),))


def finish(etcd: Etcd, observed: RecoveryState) -> Plan:
    """When all survivors and the workers are back: remove the marks."""
    cluster = etcd.cluster
    back = replace(cluster, members=tuple(s.member for s in observed.survivors))
    note = layout.last_seen(cluster)
    hosts = tuple(
        HostChanges(m.name, m.machine, (recovery_marker.clear(m, note),)) for m in back.members
    )
    returned = etcd.with_cluster(back)
    gate = gates.all_equal(gates.all_healthy(returned, standing=("NOSPACE",)), returned)
    step = Step("finish", hosts, before=gate)
    return Plan("recover-etcd", cluster.name, (step,))


def _stamp(member: EtcdMember) -> str:
    return f"{member.data_dir}/member/recovered-by"


def _probe(cluster: EtcdCluster, member: EtcdMember) -> Probe:
    tool = scratch.tool(cluster)
    # The command reads a copy: the database of a running process is locked. etcd's user reads it:
    # by its name, root could be led to another file, and the file may be made to mislead the tool.
    status = safely.as_owner(
        member.data_dir,
        f"t=$(mktemp -d {scratch.SCRATCH}.XXXXXX); cp --reflink=auto ./member/snap/db $t/db && "
        f"ETCDCTL_API=3 timeout 60 {shlex.quote(tool)} snapshot status $t/db -w json; rm -rf $t",
        seconds=90,
    )
    return Probe(
        resources=(
            File(layout.UNIT_PATH, None),
            File(recovery_marker.path(member), None),
            File(_stamp(member), None),
        ),
        paths=(f"{member.data_dir}/member", tool),
        units=(layout.UNIT,),
        disks=(member.data_dir,),
        commands={
            "status": status,
            _SIZE: f"du -sk {shlex.quote(member.data_dir)}/member 2>/dev/null | cut -f 1",
        },
    )


def _fit(cluster: EtcdCluster, chosen: EtcdMember, facts: HostFacts) -> None:
    where = chosen.place
    if owner(facts, layout.UNIT_PATH) != cluster.name:
        problem = Problem(
            where,
            "is not a member of this cluster",
            "choose another member",
            id="recovery-source-unfit",
        )
    elif not desired.has_data(chosen, facts):
        problem = Problem(
            where,
            "has no data",
            "choose another member, or invoke restore-etcd",
            id="recovery-source-unfit",
        )
    else:
        kilobytes = number(facts.commands.get(_SIZE, "").strip())
        disk = facts.disks.get(chosen.data_dir)
        if kilobytes is None:
            what = f"du does not say how large {chosen.data_dir}/member is, which is to be copied"
            remedy = f"try it there by hand: du -sk {chosen.data_dir}/member"
            problem = Problem(where, what, remedy, id="recovery-source-unfit")
        elif disk is None:
            problem = disks.unmeasured(where, [chosen.data_dir])
        elif disk.available > (kilobytes << 10) + (64 << 20):
            return
        else:
            what = f"{chosen.data_dir} has no room for a copy of its data ({size(kilobytes << 10)})"
            problem = Problem(where, what, "free space there", id="disk-full")
    raise PreflightFailed(
        f"the data of {chosen.name} cannot be used for the recovery",
        [problem],
        id="recovery-source-unfit",
    )


def _of_the_chosen(cluster: EtcdCluster, chosen: EtcdMember) -> None:
    if chosen.name not in cluster.established.odd:
        return
    where = chosen.place
    what = f"is not of cluster {cluster.established.name}, which --cluster-id names"
    raise PreflightFailed(
        f"the data of {chosen.name} cannot be used for the recovery",
        [Problem(where, what, "choose one of its members", id="recovery-source-unfit")],
        id="recovery-source-unfit",
    )


def _keep(chosen: EtcdMember, mark: RecoveryMarker) -> Change:
    old = f"./{restore_etcd.kept(chosen, mark).rpartition('/')[2]}"
    script = (
        f"set -e\n"
        f"if [ ! -e {old} ]; then\n"
        f"  rm -rf {old}.part; cp -a ./member {old}.part; sync -f {old}.part\n"
        f"  mv -T {old}.part {old}\n"
        f"fi"
    )
    return Change(
        f"keep a copy of {chosen.data_dir}/member as {restore_etcd.kept(chosen, mark)}",
        f"{safely.as_owner(chosen.data_dir, script, seconds=600)} >/dev/null",
        disrupts=True,
        seconds=600,
    )


def _force(cluster: EtcdCluster, chosen: EtcdMember, mark: RecoveryMarker) -> Change:
    q, user = shlex.quote, cluster.user
    ports = " ".join(map(str, scratch.candidates()))
    stamp = f"echo {mark.id} >./member/recovered-by && sync -f ."
    stamped = safely.in_folder(chosen.data_dir, safely.as_user(user, f"sh -c {q(stamp)}"))
    script = f"""\
cd /
{layout.refuse_running()}
{scratch.LISTENS}
{scratch.PORTS}
port=$(free {ports})
[ -n "$port" ] || {{ echo "none of these ports of 127.0.0.1 is free: {ports}" >&2; exit 1; }}
# etcd's user may read what is in this folder, and change nothing.
d=$(mktemp -d {STATE_DIR}-recover.XXXXXX)
chmod 0750 "$d"; chown root:{user} "$d"
c=$d/conf
grep -v -e '^listen-client-urls:' -e '^snapshot-count:' {q(layout.config_file(cluster))} >"$c"
echo 'listen-client-urls: "http://127.0.0.1:'$port'"' >>"$c"
echo 'force-new-cluster: true' >>"$c"
echo 'snapshot-count: {SNAPSHOT_COUNT}' >>"$c"
chmod 0644 "$c"
(
  cd /
  {layout.as_user(cluster)} {q(layout.tool(cluster, "etcd"))} \
--config-file "$c" </dev/null >"$c.log" 2>&1 &
  pid=$!
  left={FORCED_WITHIN}
  # Another user may have taken the port: only what this process says counts. A refusal for lack
  # of a login, or for an alarm in the data, has been through consensus, too.
  ask() {{
    seconds=$1; shift
    ETCDCTL_API=3 {q(layout.tool(cluster, "etcdctl"))} \
--command-timeout $seconds --endpoints http://127.0.0.1:$port "$@"
  }}
  told() {{
    listens $pid $port && {{ ask "$@" >"$c.out" 2>&1 ||
      grep -q {_REFUSALS} "$c.out"; }} && listens $pid $port
  }}
  again() {{
    left=$((left - 1))
    if ! kill -0 $pid 2>/dev/null || [ $left -le 0 ]; then
      kill -KILL $pid 2>/dev/null || :
      tail -n 12 "$c.log" >&2
      ! grep -q 'address already in use' "$c.log" || holders $port >&2
      exit 1
    fi
  }}
  until told 5s get health; do
    again
    sleep 1
  done
  # See SNAPSHOT_COUNT. A lease that is granted is an entry in the log, and changes no data.
  for entry in {_numbers(PAST)}; do
    until told 2s lease grant 60; do
      again
      waiting=
      for beside in {_numbers(AT_ONCE)}; do
        ask 1s lease grant 60 >/dev/null 2>&1 &
        waiting="$waiting $!"
      done
      wait $waiting
    done
  done
  kill -TERM $pid
  wait $pid || :
) || {{ rm -rf "$d"; exit 1; }}
rm -rf "$d"
{stamped}"""
    what = "run etcd once with force-new-cluster: it forgets the other members"
    effects = (Effect.ETCD_BACK,)
    return Change(what, script, disrupts=True, seconds=FORCED_WITHIN * 6, effects=effects)


def _numbers(count: int) -> str:
    return " ".join(map(str, range(count)))


def _notes(observed: RecoveryState) -> tuple[Problem, ...]:
    """Warnings about what may be lost, shown before anything is done."""
    chosen = next(s for s in observed.survivors if s.member == observed.chosen)
    name = chosen.member.name
    if observed.continues:
        what = f"continues the recovery begun at {observed.mark.id}"
        return (Problem(name, what, "", "warning", id="run-resumed"),)
    at = _revision(chosen)
    notes = [
        Problem(
            name,
            f"is at {at}: later writes that it does not have are lost, even writes that etcd "
            "acknowledged to clients",
            "a backup may be newer: compare the revision in its name",
            "warning",
            id="data-loss-ahead",
        )
    ]
    for other in observed.survivors:
        if other.member == chosen.member:
            continue
        newer = other.revision is not None and other.revision > (chosen.revision or 0)
        notes.append(
            Problem(
                other.member.name,
                f"is at {_revision(other)}"
                + (", NEWER than the chosen member" if newer else "")
                + "; its data is kept aside, and it joins again as a new member",
                f"choose {other.member.name} to keep more" if newer else "",
                "warning",
                id="data-loss-ahead",
            )
        )
    notes += [
        Problem(
            m.name,
            f"{m.machine.host} does not answer, or has no member of this cluster",
            "never start etcd there with its old data: together with another member that has old "
            "data, it would form the old cluster again. When the host is back, invoke add-member "
            f"{m.name}, which keeps the old data aside",
            "warning",
            id="data-loss-ahead",
        )
        for m in observed.lost
    ]
    return tuple(notes)


def _revision(survivor: Survivor) -> str:
    if survivor.revision is None:
        return "an unknown revision"
    return f"revision {survivor.revision}" + ("" if survivor.exact else " or later")
