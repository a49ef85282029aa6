"""``check-nodes --watch``: the workers' states as they change, from etcd's own watch.

Three threads write to one shared board. The first follows the registrations with a watch. When its
member is gone, the watch goes on from the last revision at another member; when that history is
compacted, the registrations are read again. The second looks at the members' health, now and then
and whenever the watch breaks. The third asks ``info nodes`` at the beginning, after a change, and
otherwise seldom: each question starts a JVM on a worker's host.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import datetime, timezone
from typing import NamedTuple

from provision.alluxio.commands import alluxio_cli, nodes
from provision.alluxio.commands.nodes import InfoNodes
from provision.alluxio.membership import clusters, leases
from provision.alluxio.membership.leases import Expired
from provision.alluxio.membership.registrations import RegistrationSnapshot
from provision.alluxio.membership.watch_cache import WatchCache
from provision.alluxio.worker import desired
from provision.check_nodes import collect
from provision.check_nodes.result import CheckReport
from provision.check_nodes.verdicts import verdicts
from provision.errors import Problem, ProvisionError
from provision.etcd.api.client import DEFAULT_TIMEOUT, EtcdClient
from provision.etcd.api.errors import EtcdCompacted
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth
from provision.inventory.resolved import Inventory, bracketed

DEFAULT_INTERVAL = 10.0
#: Seconds for which successive changes are gathered into one report.
GATHERED = 0.1
#: Seconds between two attempts to watch.
RETRY = 1.0
#: Seconds without a change in etcd before `info nodes` is asked, and between two such questions.
SETTLED, ASKED_EVERY = 1.0, 120.0
#: Seconds between two looks at the leases of the live keys.
LEASES_EVERY = 30.0


def watch(
    inventory: Inventory,
    etcd: Etcd,
    interval: float = DEFAULT_INTERVAL,
    *,
    nodes_timeout: float = alluxio_cli.DEFAULT_TIMEOUT,
    etcd_timeout: float = DEFAULT_TIMEOUT,
) -> Generator[CheckReport, None, None]:
    """A report now, one after every change, and one after every look at the members' health. The
    looks are ``interval`` seconds apart. A failure is in the report; only a :class:`UsageError` is
    raised.

    Closing the iterator ends the watch. A report's ``seconds`` count from the change to the report.
    """
    health.preload()
    live = _Live(inventory, etcd, interval, nodes_timeout, etcd_timeout)
    live.start()
    try:
        while True:
            yield live.next()
    finally:
        live.stop()


def changes(reports: Iterable[CheckReport]) -> Iterator[CheckReport]:
    """The ``reports`` that differ from the report before."""
    last: object = None
    for report in reports:
        said = _said(report)
        if said != last:
            yield report
        last = said


def _said(report: CheckReport) -> object:
    """A report's contents without times, sizes and revisions, which always change."""
    members = [
        (m.member.name, m.healthy, m.how, m.status and (m.status.version, m.status.is_learner))
        for m in report.etcd.members
    ]
    return report.nodes, report.etcd.leader, members, report.problems, report.info_nodes is None


class _WatchState(NamedTuple):
    """The known state at one moment; ``registered`` and ``info`` belong to the same revision."""

    etcd: ClusterHealth
    registered: RegistrationSnapshot | None
    lost: ProvisionError | None
    clusters: list[str]
    info: InfoNodes | None
    reachable: dict[str, bool] | None
    leases: Expired


class _Live:
    """The board, and the threads that write on it."""

    def __init__(
        self,
        inventory: Inventory,
        etcd: Etcd,
        interval: float,
        nodes_timeout: float,
        etcd_timeout: float,
    ) -> None:
        self._inventory, self._fleet, self._interval = inventory, etcd.fleet, interval
        self._nodes_timeout, self._etcd_timeout = nodes_timeout, etcd_timeout
        self._alluxio = inventory.alluxio
        self._etcd = etcd.as_worker(desired.login(self._alluxio)) if self._alluxio else etcd
        self._by_ports = collect.by_ports(self._alluxio)
        self._news = threading.Condition()
        self._stopping = threading.Event()
        self._look_now, self._ask_now = threading.Event(), threading.Event()
        # The board. A thread must hold the condition to read or write it.
        self._unseen: float | None = None
        self._failure: BaseException | None = None
        self._health: ClusterHealth | None = None
        self._mirror: WatchCache | None = None
        self._clusters: list[str] = []
        self._lost: ProvisionError | None = None
        self._info: InfoNodes | None = None
        self._reachable: dict[str, bool] | None = None
        self._leases, self._leases_at = leases.NONE, 0.0
        self._client: EtcdClient | None = None
        self._changes = 0

    def start(self) -> None:
        work = [self._look]
        if self._alluxio is not None:
            work += [self._follow, self._ask]
        for target in work:
            name = f"watch{target.__name__}"
            threading.Thread(target=self._guard, args=(target,), name=name, daemon=True).start()

    def stop(self) -> None:
        """End the threads. A thread that waits for an answer ends after the answer."""
        self._stopping.set()
        for event in (self._look_now, self._ask_now):
            event.set()
        with self._news:
            if self._client is not None:
                self._client.close()

    def next(self) -> CheckReport:
        """Wait for a change, and for changes that follow closely."""
        with self._news:
            self._news.wait_for(lambda: self._failure or (self._unseen and self._complete))
        time.sleep(GATHERED)
        with self._news:
            if self._failure is not None:
                raise self._failure
            since, self._unseen = self._unseen or time.monotonic(), None
            assert self._health is not None
            board = _WatchState(
                self._health,
                self._mirror.membership if self._mirror and not self._lost else None,
                self._lost,
                self._clusters,
                self._info,
                self._reachable,
                self._leases,
            )
        return self._report(board, since)

    @property
    def _complete(self) -> bool:
        """Whether each view has been looked at once; `info nodes` may come later."""
        known = self._by_ports or self._alluxio is None
        known = known or self._mirror is not None or self._lost is not None
        return known and self._health is not None

    def _report(self, board: _WatchState, since: float) -> CheckReport:
        alluxio, cluster = self._alluxio, self._inventory.cluster
        if alluxio is None:
            return CheckReport(cluster, None, board.etcd, seconds=time.monotonic() - since)
        problems: list[Problem] = []
        registered, info = board.registered, board.info
        # Without live keys, etcd only shows what another membership left in it.
        if board.lost is not None and not self._by_ports:
            problems.append(collect.unread(board.lost))
        if registered is not None:
            problems += collect.of_clusters(cluster, alluxio, registered, board.clusters)
        if info is not None and info.error and info.installed:
            problems.append(Problem("info nodes", info.error, id="info-nodes-failed"))
        rows = info.rows if info is not None and not info.error else None
        if few := leases.unasked(board.leases):
            problems.append(few)
        found = verdicts(
            *(alluxio, registered, rows),
            reachable=board.reachable,
            expired=board.leases.since,
            without=info.without if info is not None else (),
        )
        return CheckReport(
            cluster,
            alluxio,
            board.etcd,
            tuple(found),
            info,
            registered.revision if registered is not None and not self._by_ports else None,
            tuple(problems),
            datetime.now(timezone.utc),
            time.monotonic() - since,
            board.leases if registered is not None and not self._by_ports else None,
        )

    def _tell(self) -> None:
        """Signal a change on the board. The caller holds the condition."""
        self._unseen = self._unseen or time.monotonic()
        self._news.notify_all()

    def _guard(self, work: Callable[[], None]) -> None:
        """Run a thread's work. An unexpected error is raised where the reports are read."""
        try:
            work()
        except BaseException as error:
            with self._news:
                self._failure = error
                self._news.notify_all()

    def _follow(self) -> None:
        """Put the registrations on the board as they change, while some member serves."""
        mirror: WatchCache | None = None
        failed = 0
        while not self._stopping.is_set():
            try:
                with self._etcd.any(timeout=self._etcd_timeout) as client:
                    if not self._use(client):
                        return
                    if mirror is None or not mirror.goes_on(client):
                        mirror = WatchCache(client, self._inventory.cluster)
                    self._publish(mirror, clusters.names_and_cut(client)[0])
                    failed = 0
                    for seen in client.watch(mirror.since):
                        with self._news:  # keep the answer of `info nodes` from before
                            if mirror.apply(seen):
                                self._changed()
            except EtcdCompacted:
                mirror = None
                continue
            except ProvisionError as error:
                if self._stopping.is_set():
                    return
                self._look_now.set()
                failed += 1
                if failed > 1:  # another member is tried at once; without one the watch is lost
                    self._lose(error)
                    self._stopping.wait(RETRY)

    def _use(self, client: EtcdClient) -> bool:
        """Note the client that :meth:`stop` must close. Returns whether the work goes on."""
        with self._news:
            self._client = client
            return not self._stopping.is_set()

    def _publish(self, mirror: WatchCache, clusters: list[str]) -> None:
        with self._news:
            self._mirror, self._clusters, self._lost = mirror, clusters, None
        self._changed()

    def _changed(self) -> None:
        with self._news:
            self._changes += 1
            if self._info is not None and not self._info.error:
                self._info = None  # this answer is from before the change
            self._tell()
        self._ask_now.set()

    def _lose(self, error: ProvisionError) -> None:
        with self._news:
            if self._lost is not None and str(self._lost) == str(error):
                return
            if self._lost is None:
                self._info = None  # this answer is from before the loss
                self._ask_now.set()
            self._lost = error
            self._tell()

    def _look(self) -> None:
        """The members' health, and without live keys the workers' ports."""
        while not self._stopping.is_set():
            self._look_now.clear()
            seen = health.observe(
                self._etcd, timeout=self._etcd_timeout, certificates=True, quotas=True
            )
            # A worker that nobody can ask is UNDETERMINED; check-nodes without --watch says why.
            reachable = collect.ports(self._inventory, self._fleet)[0] if self._by_ports else None
            ended = self._expired()
            with self._news:
                self._health, self._reachable, self._leases = seen, reachable, ended
                if self._client is not None and _hangs(self._client, seen):
                    self._client.close()  # the watch goes on at another member
                self._tell()
            self._look_now.wait(self._interval)

    def _expired(self) -> Expired:
        """The leases of the live keys; etcd is asked now and then."""
        with self._news:
            mirror = self._mirror
        if mirror is None or self._by_ports or time.monotonic() < self._leases_at:
            return self._leases
        self._leases_at = time.monotonic() + LEASES_EVERY
        with (
            contextlib.suppress(ProvisionError),
            self._etcd.any(timeout=self._etcd_timeout) as c,
        ):
            return leases.expired(self._etcd, c, mirror.membership)
        return self._leases

    def _ask(self) -> None:
        """Ask `info nodes`. If etcd has changed meanwhile, the answer is not compared with etcd."""
        assert self._alluxio is not None
        self._ask_now.wait()  # wait until etcd has been read, or is lost
        while not self._stopping.is_set():
            self._ask_now.clear()
            before = self._changes
            info = nodes.ask(self._fleet, self._alluxio, self._nodes_timeout)
            with self._news:
                if info.error or before == self._changes:
                    self._info = info
                    self._tell()
            self._ask_now.wait(ASKED_EVERY)
            while not self._stopping.is_set() and self._ask_now.is_set():
                self._ask_now.clear()
                self._stopping.wait(SETTLED)


def _hangs(client: EtcdClient, seen: ClusterHealth) -> bool:
    """Whether the client's member does not serve, and another member does."""
    asked = str(client.endpoint)
    sick = [m.member for m in seen.members if not m.healthy]
    return seen.healthy_count > 0 and any(
        asked == f"{bracketed(m.address)}:{m.client_port}" for m in sick
    )
