"""Looks at all three views at the same time, and reports the views that did not answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import NamedTuple

from provision import progress
from provision.alluxio.commands import alluxio_cli, nodes
from provision.alluxio.commands import read as read_proof
from provision.alluxio.commands.nodes import InfoNodes
from provision.alluxio.membership import clusters, leases, registrations, type_change
from provision.alluxio.membership.leases import Expired
from provision.alluxio.membership.registrations import RegistrationSnapshot
from provision.alluxio.worker import desired
from provision.check_nodes import disks, worker_hosts
from provision.check_nodes.result import CheckReport
from provision.check_nodes.verdict import NodeVerdict
from provision.check_nodes.verdicts import verdicts
from provision.errors import Problem, ProvisionError
from provision.etcd.api.client import DEFAULT_TIMEOUT, EtcdClient
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory
from provision.plans.etcd.data import stored
from provision.ssh.answers import Unasked
from provision.ssh.session import Fleet

#: The function that asks ``info nodes``: :func:`provision.alluxio.commands.nodes.ask`, or a
#: function with the same signature.
Ask = Callable[[Fleet, AlluxioCluster, float], InfoNodes]


def run(
    inventory: Inventory,
    etcd: Etcd,
    *,
    nodes_timeout: float = alluxio_cli.DEFAULT_TIMEOUT,
    etcd_timeout: float = DEFAULT_TIMEOUT,
    identities: Mapping[str, str] | None = None,
    ask: Ask | None = None,
    hosts: bool = False,
    backups: bool = False,
    chosen: Sequence[AlluxioWorker] | None = None,
) -> CheckReport:
    """Look at everything at the same time. Timeouts are in seconds: for ``info nodes``, and for
    each call to etcd. A failed view is in the report; only a :class:`UsageError` is raised.

    ``chosen``: the declared workers that the report has; all when not given. Only their hosts are
    asked. Who else is in etcd is in every report.
    ``hosts``: also log in to every worker's host, and ask whether its listeners answer, who it is
    by its identity file, and what its service does.
    ``backups``: also log in to every member's host, and ask for its backups and former data.
    etcd is asked with the workers' login, if they have one.
    """
    started = time.monotonic()
    taken = datetime.now(timezone.utc)
    health.preload()
    alluxio = inventory.alluxio
    fleet = etcd.fleet
    mine = alluxio  # with the workers of this report alone
    if alluxio is not None:
        mine = alluxio if chosen is None else replace(alluxio, workers=tuple(chosen))
        etcd = etcd.as_worker(desired.login(alluxio))
    pool = ThreadPoolExecutor(5, "check")
    try:
        asked = (
            alluxio_cli.in_background(partial(ask or nodes.ask, fleet, alluxio, nodes_timeout))
            if alluxio is not None
            else None
        )
        answering = (
            pool.submit(ports, replace(inventory, alluxio=mine), fleet)
            if by_ports(alluxio)
            else None
        )
        looking = (
            pool.submit(worker_hosts.look, fleet, mine) if hosts and mine is not None else None
        )
        keeping = pool.submit(stored.look, inventory, fleet) if backups else None
        seen, reading = _look_at_etcd(inventory, etcd, pool, etcd_timeout)
        problems: list[Problem] = disks.of_members(fleet, seen)
        if etcd.cluster.tls.ca == "external":
            from provision.etcd.pki import imported

            problems += imported.own_problems(etcd.cluster)
        if alluxio is None:
            return CheckReport(
                inventory.cluster,
                None,
                seen,
                view_problems=tuple(problems),
                taken=taken,
                seconds=time.monotonic() - started,
                stored=keeping.result() if keeping is not None else None,
            )
        # Then the only question to etcd is what another membership left in it.
        missing: list[Problem] = []
        read = _result(reading, missing) if reading is not None else None
        problems += [] if by_ports(alluxio) else missing
        info = None
        if asked is not None:
            served = any(m.healthy or m.refused for m in seen.members)
            hangs = alluxio.membership.in_etcd and not served
            info = _table(asked, alluxio, started, nodes_timeout) if hangs else asked.result()
        rows = info.rows if info is not None and not info.error else None
        if info is not None and info.error and info.installed:
            problems.append(Problem("info nodes", info.error, id="info-nodes-failed"))
        reachable, silent = answering.result() if answering is not None else (None, [])
        problems += silent
        there = looking.result() if looking is not None else None
        problems += there.problems if there is not None else ()
        names = {None, *(w.name for w in chosen or ())}

        def join(known: _Read | None) -> list[NodeVerdict]:
            registered = known.registered if known is not None else None
            ended = known.leases.since if known is not None else {}
            every = verdicts(
                *(alluxio, registered, rows),
                identities=identities or (there.identities if there is not None else None),
                reachable=reachable,
                expired=ended,
                without=info.without if info is not None else (),
                listeners=there.readiness if there is not None else None,
                services=there.services if there is not None else None,
            )
            return every if chosen is None else [n for n in every if n.name in names]

        found = join(read)
        if read and rows is not None and answering is None and any(n.notes for n in found):
            # The views are not from the same moment: a change between them is no disagreement.
            with contextlib.suppress(ProvisionError):
                read = _read(inventory, etcd, etcd_timeout, read.leases)
                found = join(read)
        if read is not None:
            problems += of_clusters(inventory.cluster, alluxio, read.registered, read.clusters)
        if read is not None and (few := leases.unasked(read.leases)):
            problems.append(few)
        kept = keeping.result() if keeping is not None else None
        return CheckReport(
            inventory.cluster,
            alluxio,
            seen,
            tuple(found),
            info,
            read.registered.revision if read is not None and answering is None else None,
            tuple(problems),
            taken,
            time.monotonic() - started,
            read.leases if read is not None and answering is None else None,
            stored=kept,
        )
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _table(
    asked: Future[InfoNodes], alluxio: AlluxioCluster, started: float, timeout: float
) -> InfoNodes:
    """The answer of ``info nodes`` while no member of etcd serves: the command then hangs, on every
    host, for longer than its limit. So only a host that sees more of etcd than this one answers; it
    has the time of a first host."""
    limit = timeout * alluxio_cli.SECOND_AFTER
    try:
        return asked.result(max(0.0, started + limit - time.monotonic()))
    except FutureTimeout:
        hosts = dict.fromkeys(w.machine.host for w in alluxio.workers)
        return InfoNodes(
            ", ".join(list(hosts)[:1]),
            error=f"did not answer in {limit:.0f} s, and no member of etcd serves reads",
            seconds=time.monotonic() - started,
        )


def with_read(
    report: CheckReport, fleet: Fleet, path: str, timeout: float = alluxio_cli.DEFAULT_TIMEOUT
) -> CheckReport:
    """``report`` with a read of ``path`` through a worker. The client runs on the host of a healthy
    worker, if there is one. ``timeout``: seconds for each command."""
    alluxio = report.alluxio
    assert alluxio is not None
    well = {n.name for n in report.nodes if n.name is not None and n.ok}
    workers = [w for w in alluxio.workers if w.name in well]
    proof = read_proof.prove(fleet, alluxio, path, workers, timeout)
    problem = proof.problem(alluxio)
    problems = report.view_problems if problem is None else (*report.view_problems, problem)
    seconds = report.seconds + proof.seconds
    return replace(report, read=proof, view_problems=problems, seconds=seconds)


class _Read(NamedTuple):
    """Alluxio's data in etcd: this cluster's workers, and every cluster's name."""

    registered: RegistrationSnapshot
    clusters: list[str]
    leases: Expired = leases.NONE


def _look_at_etcd(
    inventory: Inventory, etcd: Etcd, pool: ThreadPoolExecutor, timeout: float
) -> tuple[ClusterHealth, Future[_Read] | None]:
    """Every member's health; the registrations are read as soon as one member serves."""
    wanted = inventory.alluxio is not None
    reading: Future[_Read] | None = None
    seen: dict[str, MemberHealth] = {}
    for m in health.observing(etcd, timeout=timeout, certificates=True, quotas=True):
        seen[m.member.name] = m
        if wanted and reading is None and m.healthy:
            reading = pool.submit(_read, inventory, etcd, timeout)
    if wanted and reading is None:
        reading = Future()
        reading.set_exception(_nobody_serves(external=etcd.cluster.external))
    members = tuple(seen[m.name] for m in etcd.cluster.members)
    return ClusterHealth(etcd.cluster, members), reading


def _nobody_serves(*, external: bool) -> ProvisionError:
    remedy = "invoke deploy-etcd installs etcd, or starts it"
    if external:
        remedy = "check that etcd.external is right, and that this etcd runs"
    what = "no member serves reads"
    return ProvisionError(what, [Problem("etcd", what, remedy, id="quorum-lost")], id="quorum-lost")


def _read(inventory: Inventory, etcd: Etcd, timeout: float, ended: Expired | None = None) -> _Read:
    """``ended``: the known state of the leases; if given, they are not asked for again."""

    def read(client: EtcdClient) -> _Read:
        registered = registrations.read(client, inventory.cluster, partial=True)
        names, cut = clusters.names_and_cut(client)
        registered = replace(registered, cut="; ".join(filter(None, (registered.cut, cut))))
        return _Read(registered, names, ended or leases.expired(etcd, client, registered))

    return etcd.read(read, timeout=timeout)


def _result(reading: Future[_Read], problems: list[Problem]) -> _Read | None:
    try:
        return reading.result()
    except ProvisionError as error:
        problems.append(unread(error))
        return None


def unread(error: ProvisionError) -> Problem:
    """The problem that etcd's view is missing, with the reason."""
    what, remedy = error.message, ""
    if error.problems:
        what, remedy = error.problems[0].what, error.problems[0].remedy
    what = f"the registrations could not be read: {what}"
    return Problem("etcd", what, remedy, id="registrations-unread")


def of_clusters(
    cluster: str, alluxio: AlluxioCluster, registered: RegistrationSnapshot, others: list[str]
) -> list[Problem]:
    """Problems with data in etcd: of other clusters, or of another membership of this cluster."""
    found = clusters.mixed_up(cluster, others, registered)
    more = (registrations.missing(registered.cut), type_change.unused(alluxio, registered))
    return [*found, *(problem for problem in more if problem is not None)]


def ports(inventory: Inventory, fleet: Fleet) -> tuple[dict[str, bool], list[Problem]]:
    """Whether each worker's RPC port answers, by the worker's name; and why some are not known."""
    assert inventory.alluxio is not None
    workers = inventory.alluxio.workers
    if not workers:
        return {}, []

    def ask(worker: AlluxioWorker) -> bool | Unasked:
        with progress.part_of(shown, worker.name):
            try:
                return registrations.port_answers(fleet, worker)
            except Unasked as error:
                return error

    with (
        progress.waiting("the workers' ports", names=[w.name for w in workers]) as shown,
        ThreadPoolExecutor(min(inventory.parallel, len(workers)), "ports") as pool,
    ):
        asked = dict(zip((w.name for w in workers), pool.map(ask, workers), strict=True))
    known = {name: answer for name, answer in asked.items() if isinstance(answer, bool)}
    unknown = [answer for answer in asked.values() if isinstance(answer, Unasked)]
    return known, [problem for error in unknown for problem in error.problems]


def by_ports(alluxio: AlluxioCluster | None) -> bool:
    """Whether only their ports show which workers live: etcd has no live keys."""
    return alluxio is not None and not alluxio.membership.in_etcd
