"""Alluxio's own view of its workers: ``bin/alluxio info nodes``, run on one host.

It prints what ``MembershipManager.showAllMembers()`` returns, and ends with code 0 whatever
happened; with etcd away it hangs for over a minute. So its time is bounded on the host, and
only a table is taken for an answer.
"""

from __future__ import annotations

import math
import shlex
import time
from dataclasses import dataclass
from typing import NamedTuple

from provision.alluxio import desired
from provision.errors import ProvisionError, Unhealthy
from provision.inventory.resolved import AlluxioCluster, Machine
from provision.remote import Fleet
from provision.text import EXCERPT, printable

DEFAULT_TIMEOUT = 15.0
HEADER = ("WorkerId", "Address", "Status")
#: Seconds that another host must still have for its answer: a JVM's start and some.
WORTH_TRYING = 3.0
_KILL_AFTER = 2
_TIMED_OUT = (124, 137)  # timeout(1): ended by TERM, by KILL


class NodesError(Unhealthy):
    """``info nodes`` gave no table."""

    def __init__(self, message: str) -> None:
        super().__init__(message, id="info-nodes-failed")


class NodeRow(NamedTuple):
    """One line. ``status`` is ONLINE or OFFLINE, and N/A with membership STATIC."""

    worker_id: str
    host: str
    port: int
    status: str

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class InfoNodes:
    """The answer of ``host``, or why there is none. ``seconds`` is the time it all took."""

    host: str
    rows: tuple[NodeRow, ...] = ()
    error: str = ""
    seconds: float = 0.0


def parse_info_nodes(text: str) -> list[NodeRow]:
    """The rows of the table in ``text``. Raises :class:`NodesError` when there is no table.

    Lines before the header, and others that are not of three columns, are a log's.
    """
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if tuple(line.strip().split("\t")) == HEADER:
            return [row for row in map(_row, lines[number + 1 :]) if row is not None]
    for number, line in enumerate(lines):
        if line.startswith("Exception happened:"):
            raise NodesError(f"failed: {printable(' '.join(lines[number:][:2]), 300)}")
    said = next((line for line in lines if line.strip()), "")
    raise NodesError(f"printed no table: {printable(said, EXCERPT)}" if said else "printed nothing")


def command(alluxio: AlluxioCluster, timeout: float) -> str:
    """The shell command, as user ``alluxio`` and for at most ``timeout`` seconds."""
    script = shlex.quote(f"{desired.current_link(alluxio)}/bin/alluxio")
    seconds = max(1, math.ceil(timeout))
    return (
        f"runuser -u {alluxio.user} -- timeout -k {_KILL_AFTER} {seconds} "
        # Its standard input would be the rest of the script that this is a line of.
        f"{script} info nodes </dev/null"
    )


def ask(fleet: Fleet, alluxio: AlluxioCluster, timeout: float = DEFAULT_TIMEOUT) -> InfoNodes:
    """Ask one worker's host, and a second when the first fails at once.

    ``timeout`` (seconds) is for both: a host that took its time to no answer is the cluster's
    fault, and another would take as long. Never raises for a host.
    """
    started = time.monotonic()
    machines = list(dict.fromkeys(w.machine for w in alluxio.workers))[:2]
    errors: list[str] = []
    for machine in machines:
        left = timeout - (time.monotonic() - started)
        if errors and left < WORTH_TRYING:
            break
        try:
            rows = _ask_host(fleet, alluxio, machine, left)
        except NodesError as error:
            errors.append(f"{machine.host}: {error.message}")
        except ProvisionError as error:
            errors.append(error.message)
        else:
            return InfoNodes(machine.host, tuple(rows), seconds=time.monotonic() - started)
    host = ", ".join(machine.host for machine in machines)
    return InfoNodes(host, error="; ".join(errors), seconds=time.monotonic() - started)


def _ask_host(
    fleet: Fleet, alluxio: AlluxioCluster, machine: Machine, seconds: float
) -> list[NodeRow]:
    result = fleet.session(machine).run(
        command(alluxio, seconds), "info nodes", timeout=seconds + _KILL_AFTER + 3
    )
    if result.code in _TIMED_OUT:
        raise NodesError(f"did not answer in {max(1, math.ceil(seconds))} s")
    try:
        return parse_info_nodes(result.stdout)
    except NodesError:
        said = next((line for line in result.stderr.splitlines() if line.strip()), "")
        if result.ok or not said:
            raise
        raise NodesError(f"failed: {printable(said, EXCERPT)}") from None


def _row(line: str) -> NodeRow | None:
    columns = line.split("\t")
    if len(columns) != 3:
        return None
    host, _, port = columns[1].strip().rpartition(":")
    if not (host and port.isdecimal() and len(port) <= 5):
        host, port = columns[1].strip(), "0"
    return NodeRow(
        printable(columns[0].strip()), printable(host), int(port), printable(columns[2].strip())
    )
