"""``backup-etcd``: a snapshot of a running cluster. It counts only after a trial restore.

The file has the format of ``etcdctl snapshot save``: the database, followed by its sha256 (etcd's
"Disaster recovery" guide, "Snapshotting the keyspace").
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, TypedDict

from provision import bounds, progress
from provision.dataclass import dataclass
from provision.engine.plan import Action, Step
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import KvHash
from provision.etcd.cluster import hashes, health, scratch
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.member import backups
from provision.etcd.member.backups import STAMP
from provision.files import make_folder, read_text, require_regular
from provision.host.effects import Effect
from provision.inventory.resolved import EtcdMember, Inventory
from provision.text import counted, size

#: bbolt writes whole pages, and etcd appends a sha256. So the remainder of the size shows whether
#: the file is whole.
PAGE, DIGEST = 512, 32
#: A member surely hashes at least this many bytes of its database a second: limits the call's time.
HASHED_PER_SECOND = 5 << 20
#: A snapshot may have so many bytes, however small the databases are.
SLACK = 1 << 30
#: So many bytes stay free on this machine: others need some of its disk.
RESERVE = 256 << 20


class BackupDocument(TypedDict):
    """A backup that was taken and proven; ``size`` in bytes."""

    schema: Literal["alluxio-provision/backup/1"]
    file: str
    sha256: str
    size: int
    revision: int
    keys: int
    member: str
    seconds: float
    removed: list[str]


@dataclass(frozen=True, slots=True)
class Backup:
    """A verified snapshot. ``size`` in bytes; ``removed``: older backups that were deleted."""

    path: Path
    sha256: str
    size: int
    revision: int
    keys: int
    member: str
    seconds: float
    removed: tuple[Path, ...] = ()

    def document(self) -> BackupDocument:
        """The backup for ``--format json``."""
        return {
            "schema": "alluxio-provision/backup/1",
            "file": str(self.path),
            "sha256": self.sha256,
            "size": self.size,
            "revision": self.revision,
            "keys": self.keys,
            "member": self.member,
            "seconds": round(self.seconds, 3),
            "removed": [str(p) for p in self.removed],
        }


def default_directory(inventory: Inventory) -> Path:
    """The default folder of backups: ``backups`` beside the inventory."""
    return inventory.path.absolute().parent / "backups"


def step(inventory: Inventory, etcd: Etcd, directory: Path | None = None) -> Step:
    """A step that takes a verified backup, for plans that should not begin without a backup."""
    into = directory or default_directory(inventory)

    def do() -> None:
        take(etcd, into)

    here = (Effect.HERE,)
    return Step("back up etcd", calls=(Action(f"save a verified snapshot in {into}", do, here),))


def take(
    etcd: Etcd,
    directory: Path,
    *,
    keep: int = 0,
) -> Backup:
    """Save a snapshot of the cluster in ``directory`` and prove it. The proof: a scratch member
    with the restored snapshot has the revision, the number of keys and the hash of the source
    member.

    A file without proof is deleted. The newest ``keep`` backups of each history stay (0: all).
    Raises :class:`Unhealthy` when no member can be read or the proof fails, and
    :class:`PreflightFailed` when there is no space to write or verify the file.
    """
    cluster = etcd.cluster
    started = time.monotonic()
    seen = _look(etcd)
    source = _source(seen)
    when = datetime.now(timezone.utc)
    try:
        make_folder(directory)
        _remove_partial(directory, cluster.name)
        partial = directory / f".{cluster.name}-{when.strftime(STAMP)}-{os.getpid()}.partial"
        try:
            with etcd.member(source) as client:
                at = client.status()
                digest = _save(client, partial, _most(seen, source), length=at.db_size)
            revision, keys = _prove(etcd, source, partial, digest)
            final = directory / backups.name(
                cluster.name, at.cluster_id, at.raft_term, at.raft_index, revision, when
            )
            write_digest(final, digest)
            os.replace(partial, final)
        finally:
            partial.unlink(missing_ok=True)
        sync(directory)
        removed = prune(directory, cluster.name, keep)
        length = final.stat().st_size
    except OSError as error:
        raise PreflightFailed(
            f"the backup cannot be written to {directory}",
            [
                Problem(
                    str(error.filename or directory),
                    error.strerror or str(error),
                    id="file-unwritable",
                )
            ],
            id="file-unwritable",
        ) from error
    seconds = time.monotonic() - started
    return Backup(final, digest, length, revision, keys, source.name, seconds, removed)


def choose(etcd: Etcd) -> EtcdMember:
    """The healthy member to read from: a follower if there is one, because it has less to do.

    Raises :class:`Unhealthy` when no member is healthy, or when etcd itself reports that data
    differs between members. Raises :class:`PreflightFailed` when the members' hashes differ.
    """
    return _source(_look(etcd))


def _look(etcd: Etcd) -> ClusterHealth:
    """The members, after the checks of :func:`choose`; at least one is healthy."""
    seen = health.observe(etcd)
    if any(m.status is not None and "CORRUPT" in m.status.alarms for m in seen.members):
        raise Unhealthy(
            "no backup: etcd's alarm CORRUPT says that the members' data differ",
            seen.problems,
            id="alarm-corrupt",
        )
    if not _healthy(seen):
        raise Unhealthy("no backup: no etcd member is healthy", seen.problems, id="quorum-lost")
    hashes.require_equal(seen, etcd)
    return seen


def _healthy(seen: ClusterHealth) -> list[MemberHealth]:
    return [m for m in seen.members if m.healthy and m.status and not m.status.is_learner]


def _source(seen: ClusterHealth) -> EtcdMember:
    return min(_healthy(seen), key=lambda m: m.member.name == seen.leader).member


def _most(seen: ClusterHealth, source: EtcdMember) -> int:
    """How many bytes the snapshot of ``source`` may have, whatever ``source`` itself says.

    A database is not much larger than its quota. One that had a larger quota before is as large on
    the other members.
    """
    if source.quota is None:
        return bounds.SNAPSHOT
    sizes = sorted(m.status.db_size for m in seen.members if m.status is not None)
    usual = sizes[(len(sizes) - 1) // 2]
    return min(bounds.SNAPSHOT, max(SLACK, 2 * source.quota, 2 * usual))


def room(directory: Path) -> int:
    """The bytes that may be written into the folder: its free space but for :data:`RESERVE`.

    Raises ``OSError``.
    """
    return max(0, shutil.disk_usage(directory).free - RESERVE)


def existing(directory: Path, cluster: str) -> list[backups.Name]:
    """The proven backups of ``cluster`` in ``directory``, oldest first. Other files are ignored.

    A backup without its sha256 file is not proven: it does not count, and it is not deleted.
    """
    named = (backups.parse(cluster, p.name) for p in directory.iterdir())
    found = [n for n in named if n is not None and digest_file(directory / n.text).exists()]
    return sorted(found, key=lambda n: (n.stamp, n.text))


def prune(directory: Path, cluster: str, keep: int) -> tuple[Path, ...]:
    """Remove the backups of ``cluster`` that :func:`backups.removable` names, and return them.
    ``keep`` 0 removes none."""
    old = [directory / n.text for n in backups.removable(existing(directory, cluster), keep)]
    for path in old:
        path.unlink(missing_ok=True)
        digest_file(path).unlink(missing_ok=True)
    return tuple(old)


def _remove_partial(directory: Path, cluster: str) -> None:
    """Remove the files of killed runs: files that nobody has written to for a day."""
    for path in directory.glob(f".{cluster}-*.partial"):
        if time.time() - path.stat().st_mtime > 86400:
            path.unlink(missing_ok=True)


def digest_file(path: Path) -> Path:
    """The file with a backup's sha256, in the format of ``sha256sum -c``."""
    return path.with_name(path.name + ".sha256")


def check(path: Path) -> str:
    """The sha256 of the snapshot file ``path``. It is checked against the sha256 that etcd put at
    the end of the file, and against the sha256 file beside it, if there is one.

    Raises :class:`PreflightFailed` when the file is not a whole snapshot.
    """
    whole, body = hashlib.sha256(), hashlib.sha256()
    try:
        require_regular(path, bounds.SNAPSHOT)
        with path.open("rb") as file, progress.hashing(path) as shown:
            tail = b""
            while chunk := file.read(1 << 20):
                shown.add(len(chunk))
                whole.update(chunk)
                joined = tail + chunk
                body.update(joined[:-DIGEST])
                tail = joined[-DIGEST:]
            length = file.tell()
        beside = digest_file(path)
        said = read_text(beside, bounds.CHECKSUMS) if beside.exists() else ""
        recorded = said.split()[:1]
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(path, f"cannot be read: {error}", "check the path") from error
    if length <= DIGEST or length % PAGE != DIGEST:
        raise _bad(
            path,
            f"is not a complete etcd snapshot: {counted(length, 'byte')}",
            "use a file of backup-etcd or etcdctl snapshot save, not a copy of member/snap/db",
        )
    if tail != body.digest():
        raise _bad(path, "differs from the sha256 that etcd put at its end", "use another backup")
    if recorded and recorded[0] != whole.hexdigest():
        raise _bad(path, f"differs from the sha256 in {beside.name}", "use another backup")
    return whole.hexdigest()


def _save(client: EtcdClient, path: Path, most: int, *, length: int | None = None) -> str:
    """Write the snapshot, of some ``length`` and at most ``most`` bytes, to ``path`` and return its
    sha256.

    Raises ``OSError`` before it fills the disk.
    """
    left = room(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with (
        os.fdopen(descriptor, "wb") as file,
        progress.waiting("the snapshot from etcd", of=length, sizes=True) as shown,
    ):
        for piece in client.snapshot(most=most):
            shown.add(len(piece))
            left -= len(piece)
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path.parent))
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    try:
        return check(path)
    except PreflightFailed as error:
        what = f"the snapshot of {client.endpoint} arrived broken"
        raise Unhealthy(
            f"{what}: {error.problems[0].what}", error.problems, id="backup-unproven"
        ) from error


def _prove(
    etcd: Etcd,
    source: EtcdMember,
    path: Path,
    digest: str,
) -> tuple[int, int]:
    """The snapshot's revision and number of keys, compared with the values of the source."""
    timeout = 30.0 + path.stat().st_size / HASHED_PER_SECOND
    with (
        scratch.member(etcd, source, path, digest, timeout=timeout) as (
            restored,
            status,
        ),
        etcd.member(source, timeout=timeout) as live,
    ):
        restored_data, live_data = (_once(client, status.revision) for client in (restored, live))
    if restored_data[1].compact_revision != live_data[1].compact_revision:
        raise Unhealthy(
            "the cluster was compacted while the backup was verified; run again",
            id="changed-meanwhile",
        )
    if restored_data != live_data:
        what = f"{counted(restored_data[0], 'key')} with hash {restored_data[1].hash:08x}"
        other = f"{counted(live_data[0], 'key')} with hash {live_data[1].hash:08x}"
        raise Unhealthy(
            f"the backup is not good: at revision {status.revision} it restores to {what}, but "
            f"{source.name} has {other}",
            [
                Problem(
                    source.name,
                    "its data and its snapshot differ",
                    "invoke check-nodes",
                    id="backup-unproven",
                )
            ],
            id="backup-unproven",
        )
    return status.revision, restored_data[0]


def _once(client: EtcdClient, revision: int) -> tuple[int, KvHash]:
    return client.count(revision), client.hash_kv(revision)


def write_digest(final: Path, digest: str) -> None:
    """Write the sha256 of ``final`` into a file beside it."""
    path = digest_file(final)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{digest}  {final.name}\n")


def sync(directory: Path) -> None:
    """Write the folder's entries to the disk (fsync)."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bad(path: Path, what: str, remedy: str) -> PreflightFailed:
    return PreflightFailed(
        f"{path}: {what}",
        [Problem(str(path), what, remedy, id="snapshot-invalid")],
        id="snapshot-invalid",
    )


def describe(backup: Backup) -> str:
    """The backup in one line."""
    return (
        f"{backup.path}: revision {backup.revision}, {counted(backup.keys, 'key')}, "
        f"{size(backup.size)}, sha256 {backup.sha256}; verified: restored into a scratch member "
        f"beside {backup.member} with the same keys and hash ({backup.seconds:.1f} s)"
    )
