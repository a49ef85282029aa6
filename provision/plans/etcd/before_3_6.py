"""What must be true before the first member runs etcd 3.6.

**Every member was restarted once more.** Up to 3.5.19, etcd does not save a promotion in the v3
store (etcd issue 19557). 3.6 reads its members from the v3 store: it takes such voters for
learners, and does not start with two of them. A member that starts publishes its attributes. From
3.5.20 on, every member that applies the attributes saves the whole member (``UpdateAttributes`` and
``unsafeSaveMemberToBackend`` of etcd's ``membership``). During the roll-out of that release, the
members that were not upgraded yet miss this (issue 20793). So each member is restarted again when
all run the release. While 3.5 runs, its answers come from the v2 store and do not show the fault.

**There is no v2 data.** 3.6 exits when the newest v2 snapshot, or the log after it, has v2 content
other than members (etcd's guide "Upgrade etcd from v3.5 to v3.6").
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from provision.engine.plan import Gate
from provision.errors import PreflightFailed, Problem
from provision.etcd.cluster import scratch
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth
from provision.etcd.member import layout
from provision.host.facts import HostFacts
from provision.host.resources import File
from provision.inventory.resolved import EtcdCluster, EtcdMember
from provision.ssh.session import Session, failures
from provision.text import number, printable, size

_NOTE = re.compile(r"^cluster=([0-9a-f]{1,16}) member=([0-9a-f]{1,16})$", re.MULTILINE)
_COMMENT = "# alluxio-provision has restarted this member when all were ready for etcd 3.6."
#: The file name of the note.
FILE = "restarted-before-3.6"
#: What ``etcdutl check v2store`` prints when there is no v2 data, from 3.5.32 on
#: (``check_command.go``).
CLEAN = "No custom content found in both v2store and WAL records"
FOUND = "detected custom"
#: Seconds to copy a log and a snapshot, and to read them.
CHECKED_WITHIN = 900.0
#: Bytes that stay free beside the copy.
_SPARE = 64 << 20


def path(cluster: EtcdCluster) -> str:
    """The path of the file which says that the member on this host was restarted; root owns it."""
    return f"{cluster.config_dir}/{FILE}"


def note(cluster: EtcdCluster, cluster_id: int, member_id: int) -> File:
    """The note of one member. After a replacement or a restore, the member has other ids."""
    text = f"{_COMMENT}\ncluster={cluster_id:x} member={member_id:x}\n"
    return File(path(cluster), text.encode())


def restarted(
    cluster: EtcdCluster, seen: ClusterHealth, facts: Mapping[str, HostFacts]
) -> frozenset[str]:
    """The members with a note on their host that has the member's own ids.

    ``facts`` are by member, from a probe with ``File(path(cluster), None)``. When a member does not
    answer, its note counts without this check.
    """
    found = set()
    for m in seen.members:
        noted = _NOTE.search(facts[m.member.name].text(path(cluster)) or "")
        if noted is None:
            continue
        ids = (int(noted[1], 16), int(noted[2], 16))
        if m.status is None or ids == (m.status.cluster_id, m.status.member_id):
            found.add(m.member.name)
    return frozenset(found)


def false_learners(seen: ClusterHealth) -> list[tuple[str, str]]:
    """Pairs of two members: the first shows the second as a learner in its own list of members.

    The call is not linearizable, so a member answers from its own store (``Cluster.MemberList``).
    An upgrade begins without learners, so every member is a voter.
    """
    return [
        (m.member.name, r.name or f"{r.id:x}")
        for m in seen.members
        for r in m.registered
        if r.is_learner
    ]


def no_v2_data(etcd: Etcd, release: str) -> Gate:
    """A gate: no member's data keeps 3.6 from starting. The etcdutl of ``release`` checks it."""
    tools = dict.fromkeys((m.name for m in etcd.cluster.members), release)
    return Gate(
        "no member has v2 data (checked with etcdutl on a copy)",
        lambda: require_no_v2_data(etcd, tools),
    )


def require_no_v2_data(etcd: Etcd, tools: Mapping[str, str]) -> None:
    """Raises :class:`PreflightFailed` when a member has v2 data, or when this is not known.

    ``tools``: the members to ask, each with a release on its host; the etcdutl of that release
    reads the data.
    """
    cluster = etcd.cluster
    by_machine = {m.machine: m for m in cluster.members if m.name in tools}

    def ask(session: Session) -> str:
        member = by_machine[session.machine]
        command = script(cluster, member, tools[member.name])
        done = session.run(command, "check v2store", timeout=CHECKED_WITHIN)
        return done.stdout if done.ok else f"{done.stdout}\n{done.stderr}"

    results = etcd.fleet.map(ask, list(by_machine))
    problems = list(failures(results))
    for machine, member in by_machine.items():
        said = results[machine]
        if isinstance(said, str) and (problem := verdict(member, said)) is not None:
            problems.append(problem)
    if problems:
        names = ", ".join(p.where for p in problems)
        raise PreflightFailed(
            f"etcd 3.6 may not start with the data of these members: {names}",
            problems,
            id=problems[0].id,
        )


def verdict(member: EtcdMember, said: str) -> Problem | None:
    """The problem that the output of :func:`script` shows; None when there is no v2 data."""
    where = member.place
    if CLEAN in said:
        return None
    if room := re.search(r"^room free=(\d+) need=(\d+)$", said, re.MULTILINE):
        free, need = (size((number(text) or 0) << 10) for text in room.groups())
        what = (
            f"/var/tmp has {free} free; the check for v2 data copies the log there and needs {need}"
        )
        return Problem(where, what, "free space there", id="disk-full")
    if FOUND in said:
        line = next(line for line in said.splitlines() if FOUND in line)
        what = f"has v2 data, with which 3.6 does not start: {printable(line.strip(), 200)}"
        remedy = "delete it and have a snapshot written: invoke explain etcd-v2-data says how"
        return Problem(where, what, remedy, id="etcd-v2-data")
    what = f"it is not known whether it has v2 data: {printable(said.strip()[-400:], 400)}"
    remedy = "run again; if it happens again, see invoke explain etcd-v2-data"
    return Problem(where, what, remedy, id="etcd-v2-data")


def script(cluster: EtcdCluster, member: EtcdMember, release: str) -> str:
    """Copies the log and the v2 snapshots, and runs etcdutl on the copy, as etcd's user.

    The log is copied first: etcdutl reads only the snapshots that the log names. When etcd deletes
    a log file or a snapshot meanwhile, the copy fails, and it is made again.
    """
    q = shlex.quote
    tool = f"{cluster.install_dir}/{release}/etcdutl"
    as_user = f"""\
from=$1 to=$2
need=$(du -ck "$from/wal" "$from"/snap/*.snap 2>/dev/null | tail -n 1 | cut -f 1)
[ -n "$need" ] || {{ echo "the size of the log is not known"; exit 0; }}
need=$((need + {_SPARE >> 10}))
free=$(df -Pk "$to" | awk 'END {{ print $4 }}')
[ "$free" -ge "$need" ] || {{ echo "room free=$free need=$need"; exit 0; }}
copy() {{
  rm -rf "$to/member"
  mkdir -p "$to/member/snap" && cp -R "$from/wal" "$to/member/wal" || return 1
  for f in "$from"/snap/*.snap; do
    [ ! -e "$f" ] || cp "$f" "$to/member/snap/" || return 1
  done
}}
copy || copy || copy || {{ echo "the log cannot be copied"; exit 0; }}
timeout {int(CHECKED_WITHIN) // 2} {q(tool)} check v2store --data-dir "$to" 2>&1 | tail -n 3
"""
    return f"""\
umask 077
d=$(mktemp -d {scratch.SCRATCH}.XXXXXX) || exit 1
trap 'rm -rf "$d"' EXIT
trap 'exit 1' HUP INT TERM PIPE
chown {q(cluster.user)}: "$d"
cd /
{layout.low_priority()}
{layout.as_user(cluster)} $low \\
sh -c {q(as_user)} sh {q(member.data_dir + "/member")} "$d" </dev/null
"""
