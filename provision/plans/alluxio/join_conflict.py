"""The refusal of a worker whose id is registered under another address, and the way out.

Alluxio 313 (``EtcdMembershipManager.join``) ends a worker's start with
"Some other member with same id registered on the ring, bail.Conflicting worker addr:…".
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Sequence

from provision.alluxio.membership.registrations import RegistrationSnapshot
from provision.alluxio.worker import desired
from provision.errors import Problem, ProvisionError
from provision.etcd.cluster.handle import Etcd
from provision.host import safely
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker
from provision.plans.alluxio import forget_worker
from provision.ssh.session import Session
from provision.text import printable

TEXT = "Some other member with same id registered on the ring"
#: Lines of a journal that are searched: systemd starts a refused worker again and again, and each
#: attempt logs some hundred lines.
LINES = 3000
#: Seconds before the wait for a worker begins, in which Alluxio may have refused it already.
MARGIN = 60
_ADDRESS = re.compile(
    r"Conflicting worker addr:\s*WorkerNetAddress\{host=([^,}]{1,255}),.*?rpcPort=(\d{1,5})"
)
_IDENTITY = re.compile(r"worker identity:\s*(worker-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def found(
    lines: Iterable[str], alluxio: AlluxioCluster, worker: AlluxioWorker, live: bool | None = None
) -> Problem | None:
    """What the last refusal in a worker's log means, and the command that solves it; or None.

    ``live``: whether the id is live in etcd; None when etcd was not asked.
    """
    last = next((line for line in reversed(list(lines)) if TEXT in line), None)
    if last is None:
        return None
    address, identity = _ADDRESS.search(last), _IDENTITY.search(last)
    known = identity[1] if identity else "ID"
    at = f" as {printable(address[1])}:{address[2]}" if address else " at another address"
    what = f"Alluxio refused it: its id {known if identity else ''} is registered{at}"
    file = shlex.quote(desired.identity_file(alluxio))
    clone = f"on {worker.machine.host} rm {file}, then invoke start-workers {worker.name}"
    stale = f"invoke forget-worker {known}, then invoke start-workers {worker.name}"
    if live is True:
        remedy = f"that worker is LIVE, so this host is a clone of its host: {clone}"
    elif live is False:
        remedy = f"that registration is stale: {stale}; or, on a clone: {clone}"
    else:
        remedy = (
            f"if no worker runs there any more: {stale}; if this host is a clone of that host: "
            f"{clone}"
        )
    return Problem(worker.place, what, remedy, id="worker-registered-elsewhere")


def in_log(
    lines: Sequence[str], alluxio: AlluxioCluster, etcd: Etcd, worker: AlluxioWorker
) -> Problem | None:
    """As :func:`found`; etcd is asked whether the id of the refusal is live. Never raises for
    etcd."""
    last = next((line for line in reversed(lines) if TEXT in line), None)
    if last is None:
        return None
    return found([last], alluxio, worker, _is_live(last, _registered(alluxio, etcd)))


def _registered(alluxio: AlluxioCluster, etcd: Etcd) -> RegistrationSnapshot | None:
    with contextlib.suppress(ProvisionError):
        return forget_worker.look(alluxio, etcd)
    return None


def _is_live(line: str, seen: RegistrationSnapshot | None) -> bool | None:
    """Whether the id in the line of a refusal is live; None when this is not known."""
    identity = _IDENTITY.search(line)
    return identity[1] in seen.live if seen is not None and identity else None


def explained(
    alluxio: AlluxioCluster, etcd: Etcd, workers: Sequence[AlluxioWorker]
) -> dict[str, Problem]:
    """The workers with the refusal in their journal, by name. Never raises for a host or etcd."""
    unit, text = shlex.quote(desired.UNIT), shlex.quote(TEXT)
    file = shlex.quote(f"./{desired.identity_file(alluxio).rpartition('/')[2]}")
    # Old lines do not count, and neither do lines about an identity that the host no longer has.
    since = alluxio.start_timeout + alluxio.failure_detection_timeout + MARGIN
    known = safely.as_owner(alluxio.state_dir, f"grep -v '^#' {file} | head -n 1", seconds=5)
    script = (
        f"{safely.FUNCTIONS}\nid=$({known})\n"
        f"journalctl -u {unit} -n {LINES} --since=-{since}s --no-pager -o cat | "
        f'grep -F {text} | grep -F "${{id:-no identity}}" | tail -n 1'
    )

    def ask(session: Session) -> str:
        return session.run(script, "why it is not live", timeout=20).stdout

    said = etcd.fleet.map(ask, [w.machine for w in workers])
    lines = [(w, said[w.machine]) for w in workers]
    refused = [(w, line) for w, line in lines if isinstance(line, str) and TEXT in line]
    if not refused:
        return {}
    seen = _registered(alluxio, etcd)
    problems = {}
    for worker, line in refused:
        problem = found([line], alluxio, worker, _is_live(line, seen))
        if problem is not None:
            problems[worker.name] = problem
    return problems
