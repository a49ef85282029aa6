"""Alluxio's own view of its workers: ``bin/alluxio info nodes``, run on one host.

It prints the result of ``MembershipManager.showAllMembers()``, and exits with code 0 even after a
failure. Without etcd it hangs for over a minute. So the command is ended on the host after a time
limit, and only a table counts as an answer. Without a master address in the host's configuration, a
real Alluxio refuses on stdout, with exit code 1 (class ``FileSystemAdminShell``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from provision import bounds
from provision.alluxio.commands import alluxio_cli
from provision.alluxio.commands.alluxio_cli import DEFAULT_TIMEOUT, NotInstalled
from provision.alluxio.membership.registrations import ID_LIMIT
from provision.dataclass import dataclass
from provision.errors import ProvisionError, Unhealthy
from provision.inventory.resolved import AlluxioCluster, Machine
from provision.ssh.session import MANY, Fleet, Session
from provision.text import EXCERPT, REASON, printable

HEADER = ("WorkerId", "Address", "Status")
WORDS = ("info", "nodes")
#: Hosts that are asked for the table, at most.
ASKED = 2
#: Seconds to look whether a host has an installation.
LOOK_TIMEOUT = 20.0


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
    """The answer of ``host``, or why there is none. ``seconds`` is the total time.

    ``without`` are the hosts on which no Alluxio was found; ``installed`` is False when this is the
    reason for no answer.
    """

    host: str
    rows: tuple[NodeRow, ...] = ()
    error: str = ""
    seconds: float = 0.0
    without: frozenset[Machine] = frozenset()
    installed: bool = True


def parse_info_nodes(text: str) -> list[NodeRow]:
    """The rows of the table in ``text``. Raises :class:`NodesError` when there is no table.

    Lines before the header, and lines without three columns, are log lines.
    """
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if tuple(line.strip().split("\t")) == HEADER:
            found = filter(None, map(_row, lines[number + 1 :]))
            return list(islice(found, bounds.ROWS))
    for number, line in enumerate(lines):
        if line.startswith("Exception happened:"):
            raise NodesError(f"failed: {printable(' '.join(lines[number:][:2]), REASON)}")
    said = next((line for line in lines if line.strip()), "")
    raise NodesError(f"printed no table: {printable(said, EXCERPT)}" if said else "printed nothing")


def ask(fleet: Fleet, alluxio: AlluxioCluster, timeout: float = DEFAULT_TIMEOUT) -> InfoNodes:
    """Ask one worker's host, and a second when the first fails or is slow: the first answer wins.

    Each host has ``timeout`` seconds of its own. When neither has an installation, all hosts are
    looked at (at most ``MANY``), and two hosts with an installation are asked. Never raises for a
    host.
    """
    started = time.monotonic()
    machines = list(dict.fromkeys(w.machine for w in alluxio.workers))
    asked = machines[:ASKED]
    answer, errors = _ask(fleet, alluxio, asked, timeout)
    without = {m for m, error in errors.items() if isinstance(error, NotInstalled)}
    if answer is None and without == set(asked):
        without |= _without(fleet, alluxio, machines[ASKED:MANY])
        asked = [m for m in machines[:MANY] if m not in without][:ASKED]
        answer, errors = _ask(fleet, alluxio, asked, timeout)
    seconds = time.monotonic() - started
    if answer is not None:
        machine, rows = answer
        return InfoNodes(machine.host, tuple(rows), seconds=seconds, without=frozenset(without))
    failed = {m: e for m, e in errors.items() if not isinstance(e, NotInstalled)}
    said = [f"{m.host}: {e.message}" if _own(e) else e.message for m, e in failed.items()]
    return InfoNodes(
        ", ".join(machine.host for machine in failed or machines[:ASKED]),
        error="; ".join(said) or alluxio_cli.NOT_YET,
        seconds=seconds,
        without=frozenset(without),
        installed=bool(failed),
    )


def _own(error: ProvisionError) -> bool:
    """Whether the message does not name the host itself."""
    return isinstance(error, (NodesError, alluxio_cli.CommandFailed))


def _ask(
    fleet: Fleet, alluxio: AlluxioCluster, machines: Sequence[Machine], timeout: float
) -> tuple[tuple[Machine, list[NodeRow]] | None, dict[Machine, ProvisionError]]:
    def ask(machine: Machine) -> list[NodeRow]:
        result = alluxio_cli.run(fleet.session(machine), alluxio, WORDS, timeout)
        try:
            return parse_info_nodes(result.stdout)
        except NodesError:
            said = alluxio_cli.reason(result.stdout, result.stderr)
            if result.ok or not said:
                raise
            raise NodesError(f"failed: {printable(said, REASON)}") from None

    return alluxio_cli.first_answer(ask, machines, timeout * alluxio_cli.SECOND_AFTER)


def _without(fleet: Fleet, alluxio: AlluxioCluster, machines: Sequence[Machine]) -> set[Machine]:
    """The hosts that answer and have no Alluxio."""

    def look(session: Session) -> bool:
        script = f"{alluxio_cli.installed(alluxio)} || echo {alluxio_cli.NOT_INSTALLED}"
        result = session.run(script, "installed", timeout=LOOK_TIMEOUT)
        return result.stdout.strip() == alluxio_cli.NOT_INSTALLED

    return {m for m, missing in fleet.map(look, list(machines)).items() if missing is True}


def _row(line: str) -> NodeRow | None:
    columns = line.split("\t")
    if len(columns) != 3:
        return None
    host, _, port = columns[1].strip().rpartition(":")
    if not (host and port.isdecimal() and len(port) <= 5):
        host, port = columns[1].strip(), "0"
    worker_id, status = printable(columns[0].strip(), ID_LIMIT), printable(columns[2].strip(), 40)
    return NodeRow(worker_id, printable(host, 255), int(port), status)
