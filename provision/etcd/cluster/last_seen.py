"""The last run's note about the cluster: a file on every member's host, owned by root.

With this file a run sees that the serving cluster is older than the cluster of an earlier run.
etcd's ids do not show this (:mod:`provision.etcd.cluster.groups`). The file is beside the
configuration, not in the data directory, so it stays when the data is gone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timezone

from provision.errors import ChangeFailed, Problem
from provision.etcd.cluster import health
from provision.etcd.cluster.groups import Note
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import layout
from provision.etcd.member.backups import STAMP
from provision.host import tool_version
from provision.host.facts import HostFacts
from provision.inventory.resolved import EtcdCluster
from provision.ssh.session import Session, failures
from provision.text import printable_lines

_LINE = re.compile(
    r"cluster=([0-9a-f]{1,16}) term=([0-9]{1,19}) index=([0-9]{1,19}) revision=([0-9]{1,19}) "
    r"when=([0-9]{8}T[0-9]{6}Z)"
)
#: It has a line of its own: an older release of this tool ignores it and reads the other line.
_MEMBERS = re.compile(r"members=(\S+)")
_COMMENT = "# The etcd cluster as alluxio-provision last saw it, to be compared with what serves."


def read(cluster: EtcdCluster, facts: Iterable[HostFacts]) -> Note | None:
    """The newest note on the hosts. The facts come from probes with ``File(path, None)``."""
    found = [
        note for f in facts if (note := parse(f.text(layout.last_seen(cluster)) or "")) is not None
    ]
    return max(found, key=lambda note: (note.when, note.revision), default=None)


def parse(said: str) -> Note | None:
    """The note in the file's text; None without a note, or when the note is incomplete."""
    note: Note | None = None
    members: frozenset[str] = frozenset()
    for line in (line.strip() for line in said.splitlines()):
        if m := _LINE.fullmatch(line):
            note = Note(int(m[1], 16), int(m[2]), int(m[3]), int(m[4]), m[5])
        elif m := _MEMBERS.fullmatch(line):
            members = frozenset(m[1].split(","))
    return replace(note, members=members) if note is not None else None


def text(note: Note) -> str:
    return (
        f"{_COMMENT}\ncluster={note.cluster_id:x} term={note.term} index={note.index} "
        f"revision={note.revision} when={note.when}\n"
        + (f"members={','.join(sorted(note.members))}\n" if note.members else "")
    )


def take(etcd: Etcd) -> list[Problem]:
    """Write a note about the serving cluster on every declared member's host.

    Unreachable hosts keep their older note, and the newest note counts. Nothing is noted when no
    member serves, or when the serving members report different clusters. Returns warnings about
    hosts that failed to write the note; about all hosts when no host has it.
    """
    cluster = etcd.cluster
    if cluster.external:
        return []
    seen = health.observe(etcd)
    serving = [m.status for m in seen.members if m.healthy and m.status is not None]
    if len({s.cluster_id for s in serving}) != 1:
        return []
    note = Note(
        serving[0].cluster_id,
        max(s.raft_term for s in serving),
        max(s.raft_index for s in serving),
        max(s.revision for s in serving),
        datetime.now(timezone.utc).strftime(STAMP),
        # A learner is left out: it does not count for a majority.
        frozenset(r.name for r in seen.registered if r.name and not r.is_learner),
    )
    where = shlex.quote(layout.last_seen(cluster))
    # The file is overwritten in place: an incomplete note does not count, and other hosts have
    # theirs.
    script = (
        f"[ -d {shlex.quote(cluster.config_dir)} ] || exit 0; umask 022\n"
        f"{tool_version.note()}\n"
        f"printf %s {shlex.quote(text(note))} >{where}"
    )

    def write(session: Session) -> None:
        result = session.run(script, "note the cluster")
        if not result.ok:
            said = printable_lines(result.stderr, last=1) or [f"exit code {result.code}"]
            raise ChangeFailed(said[0], id="change-failed")

    machines = [m.machine for m in cluster.members]
    problems = failures(etcd.fleet.map(write, machines))
    if len(problems) < len(machines):
        problems = [p for p in problems if p.id == "change-failed"]
    return [
        replace(p, what=f"the note about the cluster was not updated: {p.what}", severity="warning")
        for p in problems
    ]
