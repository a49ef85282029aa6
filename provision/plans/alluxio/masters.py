"""``start-masters``: masters from the same release, by the same launch script, one at a time.

Of several masters one is the primary, and only the primary serves (class ``AlluxioMasterProcess``).
So the masters are healthy when each of them listens and one of them is the primary.

A host may run a master and a worker. Both then share one release and one configuration. When one
of the two changes these files, the other has a restart pending (see docs/membership.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from provision import progress, wait
from provision.alluxio.worker import desired, java, journal
from provision.alluxio.worker.desired import MASTER_UNIT, MASTER_UNIT_PATH, Artifacts
from provision.alluxio.worker.journal import Journal
from provision.dataclass import dataclass
from provision.engine.plan import Gate, HostChanges, Plan, Step
from provision.errors import PreflightFailed, Problem, ProvisionError, Unhealthy
from provision.host import diff, disks, fitness, gather, preflight, safely, unit_changes
from provision.host.diff import Change, changes
from provision.host.facts import PREFLIGHT, HostFacts, Probe
from provision.host.ownership import owner
from provision.host.resources import DataDisk, Directory, File, Link, Resource, Unit, User
from provision.inventory import journal_folder, ports
from provision.inventory.resolved import (
    AlluxioCluster,
    AlluxioMaster,
    AlluxioWorker,
    Inventory,
    Machine,
    bracketed,
)
from provision.plans.alluxio import start_workers, worker_preflight
from provision.plans.alluxio.start_workers import POLL_SECONDS, WorkersState
from provision.ssh import answers
from provision.ssh.session import Fleet, Session
from provision.text import counted, share, verb

#: Seconds for a connection to a master, and for its web server to begin its answer.
CONNECT_SECONDS = 2.0
HTTP_SECONDS = 5.0
#: Limit for an answer, in bytes. It has the master's whole configuration (about 40 KB).
MAX_ANSWER = 1 << 20


@dataclass(frozen=True, slots=True)
class MastersObserved(WorkersState):
    """``primary``: the master that serves now, by name; None when none does."""

    primary: str | None = None


def resources(
    alluxio: AlluxioCluster, master: AlluxioMaster, artifacts: Artifacts, facts: HostFacts | None
) -> tuple[Resource, ...]:
    """Everything that makes the host a master, in the order it is put there."""
    user, worker, jdk = alluxio.user, worker_on(alluxio, master), artifacts.jdk
    units = desired.units_of(worker, master)
    launcher = desired.launcher(alluxio, artifacts, facts)
    old = None if facts is None else facts.text(MASTER_UNIT_PATH)
    unit = desired.service(
        *(alluxio, "master", master.name, launcher),
        listeners=ports.master_listeners(alluxio, master),
        mounts=disks.notes(old, facts, [journal_folder.journal_dir(alluxio)]),
    )
    quiet = disks.is_for_next_start(old, unit)
    proofs = desired.proofs(alluxio, master, artifacts, facts)
    return (
        User(user, home=alluxio.state_dir),
        File(MASTER_UNIT_PATH, unit, restarts=() if quiet else (MASTER_UNIT,)),
        Directory(alluxio.install_dir),
        Directory(alluxio.state_dir, owner=user, mode=0o750),
        Directory(alluxio.log_dir, owner=user, mode=0o750),
        Directory(journal_folder.journal_dir(alluxio), owner=user, mode=0o750),
        DataDisk(journal_folder.journal_dir(alluxio)),
        *java.trees(alluxio, jdk, units),
        desired.tree(alluxio, artifacts, units, proofs[0]),
        # On a worker's host the link names the worker's release: start-workers changes the link.
        *([] if worker else [Link(f"{alluxio.install_dir}/current", alluxio.version)]),
        *desired.conf_files(alluxio, worker, master, artifacts, facts),
        Unit(MASTER_UNIT, proofs=proofs),
    )


def worker_on(alluxio: AlluxioCluster, master: AlluxioMaster) -> AlluxioWorker | None:
    """The worker on a master's host, if there is one."""
    return next((w for w in alluxio.workers if w.machine == master.machine), None)


def observe(
    alluxio: AlluxioCluster, fleet: Fleet, chosen: Sequence[AlluxioMaster]
) -> MastersObserved:
    """Look at the hosts of the chosen masters, and at the journals of all masters.

    Raises :class:`PreflightFailed` with every problem found; nothing is changed.
    """
    problems: list[Problem] = []
    tarballs = None
    with preflight.noting(problems):
        tarballs = start_workers.fetch(alluxio, unread=True)
    probes = {
        m.machine: _probe(alluxio, m, tarballs) if tarballs else Probe(kinds=PREFLIGHT)
        for m in chosen
    }
    others = [m for m in alluxio.masters if m not in chosen]
    journals = {m.machine: Probe(commands=journal.probe_commands(alluxio, m)) for m in others}
    everyone, unreachable = gather.gather_facts(fleet, {**journals, **probes})
    facts = {machine: seen for machine, seen in everyone.items() if machine in probes}
    away = {machine.host for machine in probes if machine not in facts}
    problems += [p for p in unreachable if p.where.partition(" (")[0] in away]
    if tarballs:
        with preflight.noting(problems):
            tarballs = start_workers.certain(alluxio, tarballs, facts.values())
    problems += fitness.problems(
        fleet,
        alluxio.name,
        probes,
        facts,
        rooms=worker_preflight.release_rooms(alluxio, tarballs, facts) if tarballs else {},
        tarballs=[tarballs.alluxio, tarballs.jdk] if tarballs else [],
        take_over=alluxio.take_over,
        command="start-masters",
    )
    if tarballs:
        problems += worker_preflight.release(alluxio, tarballs, facts)
        for master in chosen:
            if (seen := facts.get(master.machine)) is not None:
                problems += _problems(alluxio, master, tarballs, seen)
    primary = find_primary(fleet, alluxio)
    held = {
        m.name: journal.read(everyone[m.machine].commands.get(journal.LABEL, ""))
        for m in alluxio.masters
        if m.machine in everyone and journal_folder.is_embedded(alluxio, m)
    }
    problems += journal.problems(alluxio, chosen, held, primary)
    warnings = preflight.require(problems)
    assert tarballs is not None  # or else there is a problem
    return MastersObserved(tarballs, facts, warnings, primary=primary)


def plan(
    inventory: Inventory,
    alluxio: AlluxioCluster,
    fleet: Fleet,
    observed: MastersObserved,
    chosen: Sequence[AlluxioMaster],
) -> Plan:
    """Start new masters together, because they elect one of them; restart running masters one
    after another.

    The primary restarts last, so that there is one election (upstream: "Update Master-side
    Configuration"). Before each restart, the other masters must be enough for an election.
    """
    facts = observed.facts
    told = {m.name: desired.left(alluxio, m, facts[m.machine], "start-masters") for m in chosen}
    chosen = [m for m in chosen if told[m.name] is None]
    todo = {
        m.name: changes(
            resources(alluxio, m, observed.artifacts, facts[m.machine]), facts[m.machine]
        )
        for m in chosen
    }
    changed = [m for m in chosen if todo[m.name]]
    running = [m for m in changed if facts[m.machine].unit(MASTER_UNIT).active == "active"]
    running.sort(key=lambda m: m.name == observed.primary)
    fresh = [m for m in changed if m not in running]
    made = [c for m in fresh for c in todo[m.name]]
    groups = [(f"{diff.to_others(made)} masters", fresh)] if fresh else []
    groups += [(f"{diff.to_running(todo[m.name], MASTER_UNIT)} {m.name}", [m]) for m in running]
    steps = [
        Step(
            title,
            tuple(HostChanges(m.name, m.machine, todo[m.name]) for m in some),
            before=_can_miss(alluxio, fleet, some) if some[0] in running else None,
            after=_healthy(alluxio, fleet, some),
            at_once=inventory.parallel,
        )
        for title, some in groups
    ]
    notes = (*observed.warnings, *_pending_workers(alluxio, changed, todo, facts))
    left = tuple(p for p in told.values() if p is not None)
    return Plan("start-masters", inventory.cluster, tuple(steps), notes, left=left)


def listens(fleet: Fleet, alluxio: AlluxioCluster, master: AlluxioMaster) -> bool:
    """Whether every port of the master takes a connection, from here or else from its own host.

    A standby has these ports open, too (classes ``RpcServerStandbyGrpcService``,
    ``RejectingServer``).
    """
    return all(
        answers.answers(fleet, master.machine, master.hostname, port, CONNECT_SECONDS)
        for port in ports.numbers(ports.master_listeners(alluxio, master))
    )


def is_primary(fleet: Fleet, alluxio: AlluxioCluster, master: AlluxioMaster) -> bool:
    """Whether the master serves as the primary: its web port answers ``/api/v1/master/info``.

    Only the primary answers (class ``PrimaryOnlyWebServerService``), and only after its safe mode
    of 5 s (``DefaultSafeModeManager``). With ``alluxio.standby.master.web.enabled`` a standby may
    answer as well; an answer then shows only that a web server runs. The request comes from here,
    or else from the master's own host.
    """
    web = next(one for one in ports.master_listeners(alluxio, master) if one.http_path)
    try:
        with (
            progress.calling(master.name, "its web port", HTTP_SECONDS),
            answers.stream(
                fleet, master.machine, master.hostname, web.port, CONNECT_SECONDS
            ) as stream,
        ):
            stream.settimeout(HTTP_SECONDS)
            host = bracketed(master.hostname)
            # 1.0: the answer ends with the connection, and is not cut into chunks.
            request = f"GET {web.http_path} HTTP/1.0\r\nHost: {host}:{web.port}\r\n\r\n"
            stream.sendall(request.encode())
            answer, deadline = b"", wait.Deadline(HTTP_SECONDS)
            # Read to the end: the master logs an error for a connection that is closed earlier.
            while len(answer) < MAX_ANSWER and not deadline.passed and (more := stream.recv(65536)):
                answer += more
    except answers.Unasked:
        raise
    except (OSError, ProvisionError):
        return False
    return re.match(rb"HTTP/1\.[01] 200\b", answer) is not None


def find_primary(fleet: Fleet, alluxio: AlluxioCluster) -> str | None:
    """The master that serves as the primary, by name; None when none does."""
    with ThreadPoolExecutor(len(alluxio.masters), "masters") as pool:
        found = list(pool.map(lambda m: is_primary(fleet, alluxio, m), alluxio.masters))
    return next((m.name for m, yes in zip(alluxio.masters, found, strict=True) if yes), None)


def require_healthy(
    fleet: Fleet, alluxio: AlluxioCluster, masters: Sequence[AlluxioMaster], seconds: float = 0
) -> None:
    """Raises :class:`Unhealthy` unless, within ``seconds``, each of these masters listens and is in
    its journal's group, and one of the cluster's masters is the primary."""
    with progress.waiting("the masters", within=seconds, names=[m.name for m in masters]) as shown:
        deadline = wait.Deadline(seconds)
        silent, outside = list(masters), list(masters)
        while True:
            silent = _silent(fleet, alluxio, silent)
            shown.left([m.name for m in silent])
            if not silent and find_primary(fleet, alluxio) is not None:
                outside = _outside(fleet, alluxio, outside)
                if not outside:
                    return
            if deadline.passed:
                break
            deadline.pause(POLL_SECONDS)
    if silent:
        raise _unanswering(fleet, masters, silent, "does not answer")
    if find_primary(fleet, alluxio) is None:
        raise _without_primary(fleet, alluxio)
    raise _unanswering(fleet, masters, outside, "has not joined the others' journal")


def _outside(
    fleet: Fleet, alluxio: AlluxioCluster, masters: Sequence[AlluxioMaster]
) -> list[AlluxioMaster]:
    """The masters that are not in the group of their journal. A master asks the primary once to
    join, at its start (``RaftJournalSystem.joinQuorum``). Before, it is no help in an election."""

    asked = [m for m in masters if journal_folder.is_embedded(alluxio, m)]
    by_machine = {m.machine: m for m in asked}

    def look(session: Session) -> Journal:
        command = journal.probe_commands(alluxio, by_machine[session.machine])[journal.LABEL]
        script = f"{safely.FUNCTIONS}\n{command}"
        return journal.read(session.run(script, "journal", timeout=20).stdout)

    found = fleet.map(look, list(by_machine))

    def inside(master: AlluxioMaster) -> bool:
        seen = found[master.machine]
        return isinstance(seen, Journal) and journal.address(master) in seen.peers

    return [m for m in asked if not inside(m)]


def _unanswering(
    fleet: Fleet, masters: Sequence[AlluxioMaster], missing: Sequence[AlluxioMaster], what: str
) -> Unhealthy:
    logs = start_workers.last_lines(fleet, [m.machine for m in missing], unit=MASTER_UNIT)
    return Unhealthy(
        f"{share(len(missing), len(masters), 'master')} not healthy",
        [
            Problem(
                m.place,
                f"{what}; its last log lines:\n    {logs[m.machine]}",
                f"invoke logs {m.name}",
                id="master-not-answering",
            )
            for m in missing
        ],
        id="master-not-answering",
    )


def _silent(
    fleet: Fleet, alluxio: AlluxioCluster, masters: Sequence[AlluxioMaster]
) -> list[AlluxioMaster]:
    if not masters:
        return []
    with ThreadPoolExecutor(len(masters), "masters") as pool:
        there = list(pool.map(lambda m: listens(fleet, alluxio, m), masters))
    return [m for m, good in zip(masters, there, strict=True) if not good]


def _without_primary(fleet: Fleet, alluxio: AlluxioCluster) -> Unhealthy:
    silent = _silent(fleet, alluxio, alluxio.masters)
    count, quorum = len(alluxio.masters), len(alluxio.masters) // 2 + 1
    what = (
        f"none of {counted(count, 'master')} answers as the primary; an election needs {quorum} "
        "of them"
    )
    if silent:
        what += f", and {', '.join(m.name for m in silent)} {verb(silent, 'does', 'do')} not listen"
    problem = Problem("alluxio.masters", what, "invoke logs NAME says why", id="master-no-primary")
    return Unhealthy("the masters have no primary", [problem], id="master-no-primary")


def _can_miss(alluxio: AlluxioCluster, fleet: Fleet, masters: Sequence[AlluxioMaster]) -> Gate:
    """Where a primary serves, the restart of a master must leave enough masters for an election."""

    def check() -> None:
        others = [m for m in alluxio.masters if m not in masters]
        quorum = len(alluxio.masters) // 2 + 1
        if len(others) < quorum or find_primary(fleet, alluxio) is None:
            return  # with so few masters each restart is an outage; or no primary serves anyway
        silent = _silent(fleet, alluxio, others)
        if len(others) - len(silent) < quorum:
            names = ", ".join(m.name for m in silent)
            problem = Problem(
                "alluxio.masters",
                f"without {masters[0].name} too few are left for an election: {names} "
                f"{verb(silent, 'does', 'do')} not listen",
                f"invoke start-masters {silent[0].name}",
                id="master-no-primary",
            )
            raise Unhealthy(
                f"{masters[0].name} is not restarted", [problem], id="master-no-primary"
            )

    return Gate("the others can elect a primary", check)


def _healthy(alluxio: AlluxioCluster, fleet: Fleet, masters: Sequence[AlluxioMaster]) -> Gate:
    seconds = alluxio.start_timeout
    return Gate(
        f"{counted(len(masters), 'master')} in the journal group, and one master is the primary",
        lambda: require_healthy(fleet, alluxio, masters, seconds),
        seconds,
    )


def _pending_workers(
    alluxio: AlluxioCluster,
    masters: Sequence[AlluxioMaster],
    todo: Mapping[str, Sequence[Change]],
    facts: Mapping[Machine, HostFacts],
) -> list[Problem]:
    """The workers on masters' hosts that the plan leaves with a restart pending."""
    return [
        Problem(
            worker.place,
            f"has the same files as {m.name}, and still needs a restart",
            "then run invoke start-workers",
            "warning",
            id="restart-pending",
        )
        for m in masters
        if (worker := worker_on(alluxio, m)) is not None
        and facts[m.machine].unit(desired.UNIT).active == "active"
        and any(desired.UNIT in change.restarts for change in todo[m.name])
    ]


def _probe(alluxio: AlluxioCluster, master: AlluxioMaster, artifacts: Artifacts) -> Probe:
    java_home = java.home(alluxio, master, artifacts.jdk)
    return Probe(
        resources=(*resources(alluxio, master, artifacts, None), *java.files(java_home)),
        ports=ports.numbers(ports.master_listeners(alluxio, master)),
        reach=[
            (m.hostname, m.journal_port)
            for m in alluxio.masters
            if m != master and journal_folder.is_embedded(alluxio, m)
        ],
        disks=(
            *(alluxio.install_dir, alluxio.java.install_dir),
            *(alluxio.state_dir, alluxio.log_dir, journal_folder.journal_dir(alluxio)),
        ),
        paths=(desired.current_link(alluxio),),
        commands={
            **java.probe_commands(java_home, alluxio.user),
            **journal.probe_commands(alluxio, master),
        },
        units=(desired.UNIT,),
        kinds=PREFLIGHT,
    )


def _problems(
    alluxio: AlluxioCluster, master: AlluxioMaster, artifacts: Artifacts, facts: HostFacts
) -> list[Problem]:
    where = master.place
    found = preflight.ours(facts, MASTER_UNIT, MASTER_UNIT_PATH, alluxio.name, "master", where)
    listeners = ports.master_listeners(alluxio, master)
    found += worker_preflight.taken(facts, listeners, MASTER_UNIT, MASTER_UNIT_PATH, where)
    found += [
        Problem(
            where,
            f"cannot reach {other.name}'s journal port at {bracketed(other.hostname)}:"
            f"{other.journal_port}: {facts.unreachable[other.hostname, other.journal_port]}",
            "open the journal port between the masters, both ways",
            id="listener-unreachable",
        )
        for other in alluxio.masters
        if (other.hostname, other.journal_port) in facts.unreachable
    ]
    if _is_disk_missing(alluxio, master, facts):
        folder = journal_folder.journal_dir(alluxio)
        found.append(
            Problem(
                where,
                disks.what_is_missing(folder, "lost its journal"),
                "mount it; or, with a new disk there and a primary that serves, make that folder "
                "as root and run invoke start-masters again",
                id="data-disk-missing",
            )
        )
    accepted = artifacts.release.java if artifacts.release is not None else ()
    return found + java.problems(alluxio, master, artifacts.jdk, facts, where, accepted)


def _is_disk_missing(alluxio: AlluxioCluster, master: AlluxioMaster, facts: HostFacts) -> bool:
    """Whether the host was a master of ``alluxio``, and both its journal and the marker of the
    journal's disk are missing. The master would make a new journal, or take part in an election
    without its journal."""
    was = facts.unit(MASTER_UNIT).file_state == "enabled"
    was = was and owner(facts, MASTER_UNIT_PATH) == alluxio.name
    was = was and journal_folder.is_embedded(alluxio, master)
    folder = journal_folder.journal_dir(alluxio)
    return (
        disks.is_missing(facts.text(MASTER_UNIT_PATH), facts, folder, was=was)
        and not journal.read(facts.commands.get(journal.LABEL, "")).written
    )


def stop(
    inventory: Inventory, alluxio: AlluxioCluster, fleet: Fleet, chosen: Sequence[AlluxioMaster]
) -> Plan:
    """Stop the chosen masters. They stay installed and enabled.

    Raises :class:`PreflightFailed` when one of them belongs to another cluster.
    """
    probe = Probe(resources=(File(MASTER_UNIT_PATH, None),), units=(MASTER_UNIT,))
    facts = gather.require_facts(fleet, {m.machine: probe for m in chosen})
    foreign: list[Problem] = []
    hosts: list[HostChanges] = []
    for m in chosen:
        seen: HostFacts = facts[m.machine]
        where = m.place
        if owner(seen, MASTER_UNIT_PATH) != alluxio.name:
            foreign += preflight.ours(
                seen, MASTER_UNIT, MASTER_UNIT_PATH, alluxio.name, "master", where
            )
        elif seen.unit(MASTER_UNIT).active not in ("inactive", "failed"):
            hosts.append(HostChanges(m.name, m.machine, (unit_changes.stop(MASTER_UNIT),)))
    if foreign:
        raise PreflightFailed(
            "some masters do not belong to this cluster",
            foreign,
            id="foreign-installation",
        )
    steps = (Step("stop masters", tuple(hosts), at_once=inventory.parallel),) if hosts else ()
    return Plan("stop-masters", inventory.cluster, steps)
