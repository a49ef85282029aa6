"""``backup-etcd --fetch``: the newest backups of the timer, from the hosts to this machine.

It fetches the newest backup of every history, unless the backup is here already. A file counts when
it matches, on this machine, etcd's own sha256 at its end and the sha256 file from the host. This
works while etcd is down.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypedDict

from provision import bounds
from provision.dataclass import dataclass
from provision.errors import (
    PreflightFailed,
    Problem,
    ProblemDocument,
    ProvisionError,
    Unhealthy,
    UsageError,
)
from provision.etcd.member import backups, layout
from provision.files import make_folder
from provision.inventory.resolved import EtcdCluster, Inventory
from provision.plans.etcd.data import backup_etcd, stored
from provision.plans.etcd.data.stored import Saved, Stored
from provision.ssh.session import Fleet, LocalFailure
from provision.text import printable


class FetchedFileDocument(TypedDict):
    """A backup that was copied from a host; ``size`` in bytes."""

    file: str
    host: str
    path: str
    revision: int
    size: int


class FetchedDocument(TypedDict):
    """The backups that were copied from the hosts, and those that were here before."""

    schema: Literal["alluxio-provision/backups-fetched/1"]
    fetched: list[FetchedFileDocument]
    here: list[str]
    removed: list[str]
    problems: list[ProblemDocument]


@dataclass(frozen=True, slots=True)
class Fetched:
    """The fetched files, with their hosts; the files that are here already; and the problems."""

    came: tuple[tuple[Path, Saved], ...]
    here: tuple[Saved, ...]
    problems: tuple[Problem, ...]
    removed: tuple[Path, ...] = ()

    def document(self) -> FetchedDocument:
        """For ``--format json``; sizes in bytes."""
        return {
            "schema": "alluxio-provision/backups-fetched/1",
            "fetched": [
                {
                    "file": str(path),
                    "host": s.host,
                    "path": s.path,
                    "revision": s.name.revision,
                    "size": s.size,
                }
                for path, s in self.came
            ],
            "here": [s.name.text for s in self.here],
            "removed": [str(p) for p in self.removed],
            "problems": [p.document() for p in self.problems],
        }


def take(inventory: Inventory, fleet: Fleet, directory: Path, *, keep: int = 0) -> Fetched:
    """Fetch the backups that ``directory`` lacks; then keep the ``keep`` newest of each history
    there (0: all).

    Raises :class:`UsageError` without ``etcd.backup``, :class:`Unhealthy` when no host has a backup
    or none arrives whole, and :class:`PreflightFailed` when a file cannot be written here.
    """
    cluster = inventory.etcd
    if cluster.backup is None:
        raise UsageError(
            f"{inventory.path}: etcd.backup is not declared, so no timer saves backups",
            id="command-not-applicable",
        )
    seen = stored.look(inventory, fleet)
    silent = [p for p in seen.problems if p.id == "host-unreachable"]
    found = [s for h in seen.hosts for s in h.saved]
    if not found:
        raise Unhealthy("there is no backup on any host that answered", silent, id="backup-missing")
    try:
        make_folder(directory)
        there = {n.text for n in backup_etcd.existing(directory, cluster.name)}
        came, here, problems = [], [], list(silent)
        for history in _histories(found):
            for one in reversed(history):  # an older backup when the newest is broken
                if one.name.text in there:
                    here.append(one)
                    break
                try:
                    came.append((_bring(cluster, fleet, seen, one, directory), one))
                    break
                except (PreflightFailed, Unhealthy) as error:
                    if error.id == "file-unwritable":
                        raise
                    problems.append(_failed(one, error))
        removed = backup_etcd.prune(directory, cluster.name, keep)
    except OSError as error:
        raise _unwritable(directory, error) from error
    if not came and not here:
        raise Unhealthy("no backup arrived complete", problems, id="backup-unproven")
    return Fetched(tuple(came), tuple(here), tuple(problems), removed)


def describe(fetched: Fetched) -> list[str]:
    """The results, one line for each file and problem."""
    lines = [
        f"{path}: revision {s.name.revision}, from {s.host}:{s.path}; the copy has the right sha256"
        for path, s in fetched.came
    ]
    return lines or ["the newest backup of every history is here already"]


def _histories(found: Iterable[Saved]) -> list[list[Saved]]:
    by_name = {s.name.text: s for s in found}
    return [
        [by_name[n.text] for n in h] for h in backups.histories(s.name for s in by_name.values())
    ]


def _bring(cluster: EtcdCluster, fleet: Fleet, seen: Stored, one: Saved, directory: Path) -> Path:
    (host,) = [h for h in seen.hosts if h.member.name == one.member]
    session = fleet.session(host.member.machine)
    # Read as the folder's owner: root could be led to read some other file.
    cat = f"{layout.as_user(cluster)} cat --"
    final = directory / one.name.text
    partial = directory / f".{one.name.text}-{os.getpid()}.partial"
    told = session.run(f"{cat} {shlex.quote(one.path + '.sha256')}", "the backup's sha256")
    digest = (told.stdout.split() or [""])[0]
    try:
        left = backup_etcd.room(directory)
        if one.size > left:  # the host says how large it is
            raise _unwritable(directory, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            try:
                done = session.fetch(
                    f"{cat} {shlex.quote(one.path)}",
                    file,
                    "fetch the backup",
                    most=min(one.size, bounds.SNAPSHOT, left),
                    length=one.size,
                )
            except LocalFailure as error:
                raise _unwritable(directory, error.args[0]) from error
            file.flush()
            os.fsync(file.fileno())
        if not told.ok or not done.ok:
            why = printable((told.stderr or done.stderr).strip(), 200)
            raise Unhealthy(f"it cannot be read: {why}", id="backup-unproven")
        if backup_etcd.check(partial) != digest:
            raise Unhealthy("it differs from the sha256 beside it", id="backup-unproven")
        backup_etcd.write_digest(final, digest)
        os.replace(partial, final)
        backup_etcd.sync(directory)
    finally:
        partial.unlink(missing_ok=True)
    return final


def _failed(one: Saved, error: ProvisionError) -> Problem:
    what = error.problems[0].what if error.problems else error.message
    return Problem(f"{one.host}:{one.path}", what, "invoke backup-etcd", id="backup-unproven")


def _unwritable(directory: Path, error: OSError) -> PreflightFailed:
    problem = Problem(str(directory), error.strerror or str(error), id="file-unwritable")
    return PreflightFailed(
        f"the backup cannot be written to {directory}", [problem], id="file-unwritable"
    )
