"""``status`` and ``logs``: systemd's state on the hosts; and whether etcd is one cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypedDict

from provision.alluxio.worker import desired as worker
from provision.dataclass import dataclass
from provision.errors import Problem, ProblemDocument, ProvisionError, Unhealthy, UsageError
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import layout
from provision.host.facts import HostFacts, Probe, merged, parse, script
from provision.host.ownership import owner
from provision.host.resources import File
from provision.inventory.resolved import (
    AlluxioMaster,
    AlluxioWorker,
    EtcdMember,
    Inventory,
    Machine,
)
from provision.ssh.session import MANY, Fleet, Session
from provision.text import printable_lines

MAX_LINES = 10_000
Role = EtcdMember | AlluxioMaster | AlluxioWorker


@dataclass(frozen=True, slots=True)
class Service:
    """One unit on one host, with its declared cluster (``declared``) and its present cluster.

    ``error``: why its host could not be asked.
    """

    name: str
    machine: Machine
    unit: str
    declared: str
    active: str = ""
    restarts: int = 0
    cluster: str | None = None
    disks: tuple[str, ...] = ()
    pending_restart: bool = False
    error: str = ""

    @property
    def good(self) -> bool:
        return self.state == "active"

    @property
    def kind(self) -> str:
        """The state without what is said about this host only."""
        return "not asked" if self.error else self.state

    @property
    def state(self) -> str:
        """The unit's state, or its problem."""
        if self.error:
            return self.error
        if self.cluster is not None and self.cluster != self.declared:
            return f"{self.active}, of cluster {self.cluster}"
        if self.pending_restart:
            return f"{self.active}, a restart is pending"
        return self.active


class ServiceDocument(TypedDict):
    """A unit on a host, as systemd has it."""

    name: str
    host: str
    unit: str
    active: str
    restarts: int
    cluster: str | None
    disks: list[str]
    pending_restart: bool
    error: str


class StatusDocument(TypedDict):
    """Every service of the inventory."""

    schema: Literal["alluxio-provision/status/1"]
    cluster: str
    services: list[ServiceDocument]
    problems: list[ProblemDocument]


@dataclass(frozen=True, slots=True)
class Status:
    cluster: str
    services: tuple[Service, ...]
    #: Set when the etcd members form more than one cluster, or could not be asked; and for hosts
    #: whose SSH key is not accepted.
    problems: tuple[Problem, ...] = ()

    @property
    def exit_code(self) -> int:
        wrong = any(p.severity == "error" for p in self.problems)
        return 0 if all(s.good for s in self.services) and not wrong else 1

    def document(self) -> StatusDocument:
        """The status for ``--format json``."""
        return {
            "schema": "alluxio-provision/status/1",
            "cluster": self.cluster,
            "services": [
                {
                    "name": s.name,
                    "host": s.machine.host,
                    "unit": s.unit,
                    "active": s.active,
                    "restarts": s.restarts,
                    "cluster": s.cluster,
                    "disks": list(s.disks),
                    "pending_restart": s.pending_restart,
                    "error": s.error,
                }
                for s in self.services
            ],
            "problems": [p.document() for p in self.problems],
        }


def roles(inventory: Inventory) -> tuple[Role, ...]:
    """Everything of the inventory that has a unit on a host."""
    alluxio = inventory.alluxio
    members = () if inventory.etcd.external else inventory.etcd.members
    if alluxio is None:
        return tuple(members)
    return (*members, *alluxio.masters, *alluxio.workers)


def look(inventory: Inventory, etcd: Etcd, chosen: Sequence[Role]) -> Status:
    """Ask every host of the chosen roles once. An unreachable host is a row with its error."""

    def unit_of(role: Role) -> tuple[str, str, str]:
        """The unit's name, the unit's file, and a directory on the disk to watch."""
        if isinstance(role, EtcdMember):
            return layout.UNIT, layout.UNIT_PATH, role.data_dir
        if isinstance(role, AlluxioWorker):
            return worker.UNIT, worker.UNIT_PATH, role.page_store.dirs[0]
        assert inventory.alluxio is not None
        return worker.MASTER_UNIT, worker.MASTER_UNIT_PATH, inventory.alluxio.state_dir

    wanted = [(role.name, role.machine, *unit_of(role)) for role in chosen]
    probes: dict[Machine, list[Probe]] = {}
    for _, machine, unit, path, disk in wanted:
        probe = Probe(resources=(File(path, None),), units=(unit,), disks=(disk,))
        probes.setdefault(machine, []).append(probe)

    def ask(session: Session) -> HostFacts:
        text = script(merged(probes[session.machine]))
        result = session.run(text, "status", timeout=30, prompt=True)
        if len(probes) > MANY:
            session.rest()
        found = parse(result, session.machine.place)
        etcd.fleet.stats.facts[session.machine] = found
        return found

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(_parted, etcd, chosen)
        seen = etcd.fleet.map(ask, list(probes))
        problems = asking.result()
    return Status(
        inventory.cluster,
        tuple(
            _service(inventory.cluster, name, machine, unit, path, disk, seen[machine])
            for name, machine, unit, path, disk in wanted
        ),
        (*problems, *_of_keys(seen.values())),
    )


def _of_keys(answers: Iterable[HostFacts | ProvisionError]) -> list[Problem]:
    """The problems with host keys: a row of the table has no room for what to do about them."""
    errors = [answer for answer in answers if isinstance(answer, ProvisionError)]
    ids = ("host-key-unknown", "host-key-changed")
    return [problem for error in errors for problem in error.problems if problem.id in ids]


def _parted(etcd: Etcd, chosen: Sequence[Role]) -> tuple[Problem, ...]:
    """The clusters of the members, when there are more than one and a member is chosen."""
    if not any(isinstance(role, EtcdMember) for role in chosen):
        return ()
    try:
        found = health.observe(etcd).problems
    except UsageError as error:  # the login's secret cannot be read; systemd is asked all the same
        what = f"it is not known whether its members form one cluster: {error.message}"
        return (Problem("etcd", what, severity="warning", id=error.id),)
    return tuple(p for p in found if p.id == "etcd-clusters-differ")


def journal(fleet: Fleet, machine: Machine, lines: int) -> list[str]:
    """The last ``lines`` log lines of this tool's units on a host, oldest first, safe to print."""
    if not 1 <= lines <= MAX_LINES:
        raise UsageError(f"--lines is from 1 to {MAX_LINES}", id="option-invalid")
    units = f"-u {layout.UNIT} -u {worker.UNIT} -u {worker.MASTER_UNIT}"
    command = f"journalctl {units} -n {lines} --no-pager -o short-iso"
    result = fleet.session(machine).run(command, "logs", timeout=60)
    if not result.ok:
        why = printable_lines(result.stderr, last=1) or [f"exit code {result.code}"]
        raise Unhealthy(
            f"{machine.place}: the journal cannot be read: {why[0]}", id="host-output-unreadable"
        )
    return printable_lines(result.stdout)


def meaning(inventory: Inventory, etcd: Etcd, machine: Machine, lines: list[str]) -> list[Problem]:
    """Notes about log lines that seem to be a problem of Alluxio alone, but are not. Only for such
    a line etcd is asked."""
    from provision.plans.alluxio import join_conflict

    alluxio = inventory.alluxio
    its = [w for w in alluxio.workers if w.machine == machine] if alluxio is not None else []
    if alluxio is None or not its:
        return []
    problem = join_conflict.in_log(lines, alluxio, etcd, its[0])
    return [] if problem is None else [problem]


def _service(
    declared: str,
    name: str,
    machine: Machine,
    unit: str,
    path: str,
    disk: str,
    seen: HostFacts | ProvisionError,
) -> Service:
    if isinstance(seen, ProvisionError):
        return Service(name, machine, unit, declared, error=seen.message)
    state = seen.unit(unit)
    found = seen.disks.get(disk)
    return Service(
        name,
        machine,
        unit,
        declared,
        active=state.active if state.load != "not-found" else "not installed",
        restarts=state.restarts,
        cluster=owner(seen, path),
        disks=(f"{disk} {found.used_percent} % full",) if found else (),
        pending_restart=unit in seen.pending_restarts,
    )
