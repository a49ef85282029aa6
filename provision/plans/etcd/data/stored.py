"""Backups and data kept aside: what is on the members' hosts beside the data in use.

One round trip per host, as in ``check-nodes``. It reads only names, sizes, and systemd's state of
the timer.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypedDict

from provision.dataclass import dataclass
from provision.errors import Problem, ProvisionError
from provision.etcd.member import backup_timer, backups
from provision.etcd.member.backups import Name
from provision.host.facts import HostFacts, Probe, parse, script
from provision.ids import Id
from provision.inventory.resolved import EtcdCluster, EtcdMember, Inventory
from provision.plans.etcd.data import backup_etcd, retained
from provision.ssh.session import Fleet, Session
from provision.text import number, size

#: Share of a disk that former data and backups of other histories may take without a warning.
LARGE = 0.2
#: How many of the newest files a host lists.
LISTED = 400
#: Seconds for a host to answer.
TIMEOUT = 30.0
_LABEL = "stored"
HERE = "this machine"


class SavedDocument(TypedDict):
    """A proven backup; ``size`` in bytes."""

    host: str
    member: str | None
    path: str
    revision: int
    cluster_id: str | None
    taken: str
    age_seconds: int
    size: int


class BackupHostDocument(TypedDict):
    """The backups on a member's host, and the bytes that are kept aside there."""

    member: str
    host: str
    error: str | None
    count: int
    bytes: int
    last_run: str | None
    kept_bytes: int


class StoredDocument(TypedDict):
    """The backups on the members' hosts."""

    declared: bool
    newest: SavedDocument | None
    longest_gap_seconds: float | None
    count: int
    hosts: list[BackupHostDocument]


@dataclass(frozen=True, slots=True)
class Saved:
    """A proven backup: ``size`` in bytes. ``member`` is empty for a backup on this machine."""

    name: Name
    host: str
    path: str
    size: int
    member: str = ""

    def age(self, now: datetime) -> timedelta:
        return now - self.name.when

    def document(self, now: datetime) -> SavedDocument:
        number = self.name.cluster_id
        return {
            "host": self.host,
            "member": self.member or None,
            "path": self.path,
            "revision": self.name.revision,
            "cluster_id": None if number is None else f"{number:x}",
            "taken": self.name.when.isoformat(),
            "age_seconds": round(self.age(now).total_seconds()),
            "size": self.size,
        }


@dataclass(frozen=True, slots=True)
class Host:
    """One member's host. ``error``: why it could not be asked.

    ``result`` is systemd's word for the timer's last run, ``success`` before the first.
    ``aside`` are the folders kept aside and the backups of other histories, with their bytes and
    the bytes of their disk.
    """

    member: EtcdMember
    error: str = ""
    saved: tuple[Saved, ...] = ()
    result: str = ""
    longest: float | None = None
    aside: tuple[tuple[str, int, int], ...] = ()

    @property
    def share(self) -> float:
        """The share of the disk that is kept aside, from 0 to 1."""
        disk = max((whole for _, _, whole in self.aside), default=0)
        return sum(count for _, count, _ in self.aside) / disk if disk else 0.0


@dataclass(frozen=True, slots=True)
class Stored:
    """All hosts together, and the backups in ``backups`` beside the inventory."""

    cluster: EtcdCluster
    hosts: tuple[Host, ...]
    here: tuple[Saved, ...] = ()
    now: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    @property
    def count(self) -> int:
        return len(self.here) + sum(len(h.saved) for h in self.hosts)

    @property
    def newest(self) -> Saved | None:
        every = [*self.here, *(s for h in self.hosts for s in h.saved)]
        return max(every, key=lambda s: s.name.stamp, default=None)

    @property
    def longest(self) -> float | None:
        """The longest time between two of the schedule's next runs, in seconds."""
        return max((h.longest for h in self.hosts if h.longest is not None), default=None)

    @property
    def line(self) -> str:
        """The newest backup's age and place, for the screen."""
        return line(self.document())

    @property
    def problems(self) -> list[Problem]:
        """Warnings: no backup, a backup that is too old, a failed run, too much data kept aside, a
        host that does not answer."""
        problems: list[Problem] = []
        found, backup = self.newest, self.cluster.backup
        if backup is not None:
            for h in self.hosts:
                if h.error:
                    what = f"could not be asked for its backups: {h.error}"
                    problems.append(_warning(h.member.place, what, "", id="host-unreachable"))
                elif h.result not in ("", "success"):
                    problems.append(
                        _warning(
                            h.member.place,
                            f"the last run of {backup_timer.SERVICE} failed ({h.result})",
                            f"journalctl -u {backup_timer.SERVICE} there says why",
                            id="backup-run-failed",
                        )
                    )
            if found is None:
                problems.append(
                    _warning(
                        "etcd",
                        f"there is no backup in {backup.dir} of any host that answered",
                        f"systemctl start {backup_timer.SERVICE} on a member's host, or invoke "
                        "backup-etcd",
                        id="backup-missing",
                    )
                )
            elif self.longest and found.age(self.now).total_seconds() > 2 * self.longest:
                problems.append(
                    _warning(
                        "etcd",
                        f"the newest backup is {_ago(found.age(self.now))} old "
                        f"({found.host}:{found.path}), more than twice its schedule "
                        f"({backup.on_calendar})",
                        f"systemctl status {backup_timer.UNIT} {backup_timer.SERVICE} on the "
                        "members' hosts",
                        id="backup-old",
                    )
                )
        elif found is None and not self.cluster.external:
            what = (
                "no backup is known: none is beside the inventory, and etcd.backup is not declared"
            )
            remedy = "declare etcd.backup and invoke deploy-etcd, or invoke backup-etcd"
            problems.append(_warning("etcd", what, remedy, id="backup-missing"))
        for h in self.hosts:
            if h.share > LARGE:
                total = sum(count for _, count, _ in h.aside)
                path, most, _ = max(h.aside, key=lambda one: one[1])
                problems.append(
                    _warning(
                        h.member.place,
                        f"former data and backups of former histories take {size(total)}, "
                        f"{100 * h.share:.0f} % of the disk; the largest part is {size(most)} "
                        f"in {path}",
                        "invoke kept-data, and delete what you do not need; remove old "
                        "backups by hand",
                        id="kept-data-large",
                    )
                )
        return problems

    def document(self) -> StoredDocument:
        """For ``--format json``: times in seconds, sizes in bytes."""
        found = self.newest
        return {
            "declared": self.cluster.backup is not None,
            "newest": None if found is None else found.document(self.now),
            "longest_gap_seconds": self.longest,
            "count": self.count,
            "hosts": [
                {
                    "member": h.member.name,
                    "host": h.member.machine.host,
                    "error": h.error or None,
                    "count": len(h.saved),
                    "bytes": sum(s.size for s in h.saved),
                    "last_run": h.result or None,
                    "kept_bytes": sum(count for _, count, _ in h.aside),
                }
                for h in self.hosts
            ],
        }


def line(document: StoredDocument) -> str:
    """The newest backup's age and place, for the screen."""
    found = document["newest"]
    if found is None:
        some = " on the hosts that answered" if any(h["error"] for h in document["hosts"]) else ""
        return f"backup: none is known{some}"
    at = f"{found['host']}:{found['path']}" if found["member"] else found["path"]
    age = _ago(timedelta(seconds=found["age_seconds"]))
    return f"backup: revision {found['revision']}, {age} old, at {at}"


def look(inventory: Inventory, fleet: Fleet) -> Stored:
    """Ask every member's host. A host that does not answer is in the result with an error."""
    cluster = inventory.etcd
    probes = {m.machine: probe(cluster, m) for m in cluster.members}

    def ask(session: Session) -> HostFacts:
        text = script(probes[session.machine])
        result = session.run(text, "stored data", timeout=TIMEOUT, prompt=True)
        return parse(result, session.machine.host)

    seen = fleet.map(ask, list(probes))
    hosts = []
    for m in cluster.members:
        answer = seen[m.machine]
        if isinstance(answer, ProvisionError):
            why = answer.problems[0].what if answer.problems else answer.message
            hosts.append(Host(m, error=why))
        else:
            hosts.append(read(cluster, m, answer))
    return Stored(cluster, tuple(hosts), _here(inventory))


def probe(cluster: EtcdCluster, member: EtcdMember) -> Probe:
    """What to ask a member's host."""
    commands = {f"kept {member.name}": retained.sizes(member)}
    disks = [member.data_dir]
    if (backup := cluster.backup) is not None:
        folder = shlex.quote(backup.dir)
        commands[_LABEL] = (
            f"{{ find {folder} -maxdepth 1 -type f \\( -name '*.db' -o -name '*.db.sha256' \\) "
            # etcd's user names them: a name with a line end would be two.
            "! -name '*[!A-Za-z0-9._-]*' "
            f"-printf '%T@ %s %f\\n' 2>/dev/null || {_each(folder)}; }} | "
            f"sort -rn | head -n {LISTED}"
        )
        if backup_timer.has(cluster, member):
            commands["run"] = f"systemctl show -p Result {backup_timer.SERVICE}"
            commands["schedule"] = schedule(backup.on_calendar)
        disks.append(backup.dir)
    return Probe(commands=commands, disks=disks)


def _each(folder: str) -> str:
    """The same list of backups where find has no -printf: a process for each file."""
    return (
        f"for f in {folder}/*.db {folder}/*.db.sha256; do n=${{f##*/}}; "
        'case $n in *[!A-Za-z0-9._-]*) continue;; esac; [ ! -f "$f" ] || [ -L "$f" ] || '
        'stat -c "%Y %s $n" "$f"; done'
    )


def schedule(calendar: str) -> str:
    """A command that prints the next times of a schedule, in seconds since 1970."""
    return (
        f"LC_ALL=C systemd-analyze calendar --iterations=8 {shlex.quote(calendar)} 2>/dev/null | "
        "sed -n 's/^ *\\(Next elapse\\|Iter[a-z.]* #[0-9]*\\): *//p' | "
        # uutils and busybox do not read weekday and zone. What counts is the time between two.
        'while read -r day next; do date -d "$day $next" +%s 2>/dev/null || '
        'date -u -d "${next% *}" +%s; done'
    )


def read(cluster: EtcdCluster, member: EtcdMember, facts: HostFacts) -> Host:
    """The state of one host, from its answer."""
    host = member.machine.host
    aside: list[tuple[str, int, int]] = []
    data, other = facts.disks.get(member.data_dir), None
    saved: tuple[Saved, ...] = ()
    if cluster.backup is not None:
        folder = cluster.backup.dir
        saved = _saved(cluster.name, host, member.name, folder, facts.commands.get(_LABEL, ""))
        other = facts.disks.get(folder)
        former = _former(saved)
        if other is not None and former:
            aside.append((folder, sum(s.size for s in former), other.total))
    if data is not None:
        aside += [(k.path, k.bytes, data.total) for k in retained.read(member, facts)]
    result = re.search(r"^Result=([a-z-]+)$", facts.commands.get("run", ""), re.MULTILINE)
    times = [number(line) for line in facts.commands.get("schedule", "").split()]
    return Host(
        member,
        saved=saved,
        result=result[1] if result else "",
        longest=_longest(times),
        aside=tuple(aside),
    )


def _longest(times: Sequence[int | None]) -> float | None:
    known = [t for t in times if t is not None]
    gaps = [b - a for a, b in itertools.pairwise(known) if b > a]
    return float(max(gaps)) if gaps else None


def _saved(cluster: str, host: str, member: str, folder: str, text: str) -> tuple[Saved, ...]:
    """The proven backups (with a sha256 file beside them), newest first."""
    files: dict[str, int] = {}
    for line in text.splitlines():
        fields = line.split()
        count = number(fields[1]) if len(fields) == 3 else None
        if count is not None:
            files[fields[2]] = count
    return _proven(cluster, files, host, member, folder)


def _proven(
    cluster: str, files: Mapping[str, int], host: str, member: str, folder: str
) -> tuple[Saved, ...]:
    found = []
    for file, count in files.items():
        name = backups.parse(cluster, file)
        if name is None or f"{file}.sha256" not in files:
            continue
        try:
            _ = name.when
        except ValueError:
            continue
        found.append(Saved(name, host, f"{folder}/{file}", count, member))
    return tuple(sorted(found, key=lambda s: s.name.stamp, reverse=True))


def _former(saved: Iterable[Saved]) -> list[Saved]:
    """The backups that are not of the newest backup's history."""
    found = list(saved)
    made = backups.histories(s.name for s in found)
    newest = max((s.name for s in found), key=lambda n: (n.stamp, n.text), default=None)
    now = {n.text for h in made if newest in h for n in h}
    return [s for s in found if s.name.text not in now]


def _here(inventory: Inventory) -> tuple[Saved, ...]:
    """The backups in the default folder of ``backup-etcd``."""
    folder: Path = backup_etcd.default_directory(inventory)
    try:
        files = {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}
    except OSError:
        return ()
    return _proven(inventory.etcd.name, files, HERE, "", str(folder))


def _ago(age: timedelta) -> str:
    """``3 days``, ``5 hours`` or ``2 minutes``. A time in the future counts as now."""
    seconds = max(0.0, age.total_seconds())
    for unit, one in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * one:
            return f"{int(seconds // one)} {unit}"
    return f"{int(seconds // 60)} minutes"


def _warning(where: str, what: str, remedy: str, id: Id) -> Problem:
    return Problem(where, what, remedy, "warning", id=id)
