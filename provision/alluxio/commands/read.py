"""Read a file through a worker, without the fallback to the under store.

By default, when no worker serves, an Alluxio client reads the under store itself, without any
message. So a cluster with a dead data path looks healthy. Here ``bin/alluxio fs head`` runs on a
worker's host with that fallback off (classes ``HeadCommand`` and ``DoraCacheFileSystem`` of Alluxio
313). It reads only the first bytes of the file, or it fails. Then ``fs location`` prints the worker
that the client asks for this file (class ``LocationCommand``), and whether that worker has data of
the file now.

Only a count and a SHA-256 of the content leave the host. So the output of a failed ``fs head`` is
not shown either; ``fs stat``, which prints no content, gives the reason.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypedDict

from provision.alluxio.commands import alluxio_cli
from provision.alluxio.commands.alluxio_cli import DEFAULT_TIMEOUT, KILL_AFTER, MARGIN, NotInstalled
from provision.dataclass import dataclass
from provision.errors import Problem, ProvisionError, UsageError
from provision.host import safely
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker
from provision.ssh.session import Fleet, Session, Unreachable
from provision.text import REASON, counted, document, number, printable

#: Bytes of the file that are read, at most.
LIMIT = 1 << 20
#: Characters that a path may have.
PATH_LIMIT = 4096
#: How many hosts are tried, one after the other, until one can run the command.
ASKED = 2
#: Options that forbid the client to use the under store or a cache of its own.
OPTIONS = (
    *("-D", "alluxio.dora.client.ufs.fallback.enabled=false"),
    *("-D", "alluxio.user.client.cache.enabled=false"),
)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ReadDocument(TypedDict):
    """A read through a worker."""

    path: str
    host: str
    bytes: int
    sha256: str | None
    worker: str | None
    cached: bool | None
    error: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class ReadProof:
    """The result of the read of ``path``: a client on ``host`` read ``size`` bytes, or ``error`` is
    the reason why not.

    ``worker`` is the hostname of the worker that clients ask for this file; None without an answer
    of ``fs location``. ``cached``: this worker has data of the file now. ``seconds`` is the total
    time.
    """

    path: str
    host: str
    size: int = 0
    sha256: str = ""
    worker: str | None = None
    cached: bool | None = None
    error: str = ""
    seconds: float = 0.0

    def problem(self, alluxio: AlluxioCluster) -> Problem | None:
        """The problem that the read has shown; None without a problem."""
        if not self.error:
            return None
        remedy = "invoke check-nodes --hosts says which workers do not serve"
        if not alluxio.membership.used_by_clients:
            remedy = (
                f"no client of Alluxio 313 uses a worker of membership {alluxio.membership}: set "
                "alluxio.membership to ETCD or SERVICE_REGISTRY; invoke explain "
                "static-workers-unused"
            )
        return Problem(f"read of {printable(self.path)}", self.error, remedy, id="read-failed")

    def line(self, alluxio: AlluxioCluster) -> str:
        """The proof in one line, for a person."""
        return line(self.document(), [(w.name, w.hostname) for w in alluxio.workers])

    def document(self) -> ReadDocument:
        """The proof for ``--format json``."""
        return {
            "path": self.path,
            "host": self.host,
            "bytes": self.size,
            "sha256": self.sha256 or None,
            "worker": self.worker,
            "cached": self.cached,
            "error": self.error or None,
            "seconds": round(self.seconds, 3),
        }


def line(document: ReadDocument, named: Iterable[tuple[str, str]]) -> str:
    """The proof in one line, for a person. ``named``: workers by name and hostname."""
    text = f"read of {printable(document['path'])}: "
    if document["error"]:
        return f"{text}failed"
    by, worker = "a worker that `fs location` did not name", document["worker"]
    if worker is not None:
        names = [name for name, hostname in named if hostname == worker]
        by = f"{names[0]} ({worker})" if len(names) == 1 else worker
        by += ", which caches it" if document["cached"] else ", which has not cached it"
    read = counted(document["bytes"] or 0, "byte")
    return f"{text}{read} served by {by}; sha256 {document['sha256'] or ''}"


def checked(path: str) -> str:
    """``path``, if ``bin/alluxio fs`` can take it as an argument. Raises :class:`UsageError`."""
    why = ""
    if not (path.startswith("/") or _URI.match(path)):
        why = "a path begins with / or with a scheme such as s3://"
    elif printable(path) != path:
        why = "it has characters that cannot be printed"
    elif "*" in path:
        why = "it has a *: Alluxio reads that as a pattern for several files"
    elif len(path) > PATH_LIMIT:
        why = f"it has more than {PATH_LIMIT} characters"
    if why:
        raise UsageError(
            f"--read is the path of one file in Alluxio, not {printable(path, 200)!r}: {why}",
            id="option-invalid",
        )
    return path


def prove(
    fleet: Fleet,
    alluxio: AlluxioCluster,
    path: str,
    workers: Sequence[AlluxioWorker] = (),
    timeout: float = DEFAULT_TIMEOUT,
) -> ReadProof:
    """Read at most :data:`LIMIT` bytes of ``path`` on the host of one of ``workers`` (of all
    workers when none is given). When a host cannot be reached or has no Alluxio, another host is
    asked.

    ``timeout`` is seconds for each command. Never raises for a host.
    """
    started = time.monotonic()
    machines = list(dict.fromkeys(w.machine for w in workers or alluxio.workers))[:ASKED]
    errors: list[str] = []
    for machine in machines:
        proof = ReadProof(path, machine.host)
        try:
            proof = _prove(fleet.session(machine), alluxio, proof, timeout)
        except NotInstalled as error:
            errors.append(f"{machine.host}: {error.message}")
            continue
        except Unreachable as error:
            errors.append(error.message)
            continue
        except ProvisionError as error:
            proof = replace(proof, error=f"on {machine.host}: {error.message}")
        return replace(proof, seconds=time.monotonic() - started)
    host = ", ".join(machine.host for machine in machines)
    return ReadProof(path, host, error="; ".join(errors), seconds=time.monotonic() - started)


def script(alluxio: AlluxioCluster, path: str, timeout: float) -> str:
    """Print the exit code of ``fs head``, the bytes' count and SHA-256, and the start of its
    standard error. The bytes are on no disk and in no output."""
    words = ("fs", "head", "-c", str(LIMIT), path, *OPTIONS)
    return f"""
      {alluxio_cli.installed(alluxio)} || {{ echo {alluxio_cli.NOT_INSTALLED}; exit 1; }}
      d=$(mktemp -d) || exit 1
      trap 'rm -rf "$d"' EXIT
      mkfifo "$d/bytes" || exit 1
      wc -c <"$d/bytes" >"$d/count" &
      {{ {alluxio_cli.command(alluxio, words, timeout)} 2>"$d/error"; echo $? >"$d/code"; }} |
        tee "$d/bytes" | sha256sum >"$d/sum"
      wait
      read -r code <"$d/code"
      read -r count <"$d/count"
      read -r sum rest <"$d/sum"
      echo "read $code $count $sum"
      head -c 2000 "$d/error"
    """


def _prove(
    session: Session, alluxio: AlluxioCluster, proof: ReadProof, timeout: float
) -> ReadProof:
    result = session.run(
        script(alluxio, proof.path, timeout), "fs head", timeout=timeout + KILL_AFTER + MARGIN
    )
    alluxio_cli.require_answer(result, timeout)
    first, _, stderr = result.stdout.partition("\n")
    code, size, digest = _parsed(first)
    if code is None or size is None:
        said = alluxio_cli.reason(result.stderr, result.stdout) or "nothing was printed"
        return replace(proof, error=f"on {session.machine.host}: {printable(said, REASON)}")
    if code:
        reason = _reason(session, alluxio, proof.path, timeout, code, stderr)
        return replace(proof, error=f"on {session.machine.host}: {printable(reason, REASON)}")
    if size == 0:
        return replace(
            proof, error="the file is empty, so the read proves nothing: name another file"
        )
    worker, cached = _location(session, alluxio, proof.path, timeout)
    return replace(proof, size=size, sha256=digest, worker=worker, cached=cached)


def _parsed(line: str) -> tuple[int | None, int | None, str]:
    words = line.split()
    if len(words) != 4 or words[0] != "read" or not _SHA256.fullmatch(words[3]):
        return None, None, ""
    return number(words[1]), number(words[2]), words[3]


def _reason(
    session: Session, alluxio: AlluxioCluster, path: str, timeout: float, code: int, stderr: str
) -> str:
    """Why ``fs head`` failed, without what it printed on stdout."""
    if code in safely.TIMED_OUT:
        return f"the file was not read in {alluxio_cli.whole_seconds(timeout)} s"
    try:
        stat = alluxio_cli.run(session, alluxio, ("fs", "stat", "--path", path, *OPTIONS), timeout)
    except ProvisionError as error:
        return f"exit code {code}; fs stat {error.message}"
    if not stat.ok:
        said = alluxio_cli.reason(stat.stdout, stat.stderr)
    elif " is a directory path." in stat.stdout:
        said = "it is a directory: name a file"
    else:
        said = alluxio_cli.reason("", stderr)
        said = f"its status can be read, but its data cannot be read: {said or f'exit code {code}'}"
    return said or f"exit code {code}"


def _location(
    session: Session, alluxio: AlluxioCluster, path: str, timeout: float
) -> tuple[str | None, bool | None]:
    """The worker's hostname, and whether the worker has data of the file; None for unknown
    values."""
    try:
        result = alluxio_cli.run(session, alluxio, ("fs", "location", path, *OPTIONS), timeout)
    except ProvisionError:
        return None, None
    for line in result.stdout.splitlines():
        try:
            found = document(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("mPreferredWorker"), str):
            cached = found.get("mDataOnPreferredWorker")
            host = printable(found["mPreferredWorker"], 255)
            return host, cached if isinstance(cached, bool) else None
    return None, None
