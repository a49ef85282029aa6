"""``check-nodes``: inventory, etcd and ``info nodes`` joined into one verdict per worker.

:func:`verdicts` is the join, a function of plain values. :func:`run` looks at all three views
at the same time and says which of them did not answer.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import NamedTuple

from provision.alluxio import desired, membership, nodes
from provision.alluxio.membership import Membership, Registration, UnknownRegistration
from provision.alluxio.nodes import InfoNodes, NodeRow
from provision.errors import Problem, ProvisionError
from provision.etcd import health
from provision.etcd.client import DEFAULT_TIMEOUT, EtcdError, Login
from provision.etcd.health import CertificateState, ClusterHealth, MemberHealth
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory
from provision.remote import Fleet

SCHEMA = "alluxio-provision/check-nodes/1"


class State(str, Enum):
    """What a worker is. With membership STATIC there is no liveness but the port's answer."""

    LIVE = "LIVE"
    FAILED = "FAILED"
    UNREGISTERED = "UNREGISTERED"
    UNKNOWN = "UNKNOWN"
    REACHABLE = "REACHABLE"
    UNREACHABLE = "UNREACHABLE"
    #: No view that could tell has answered.
    UNDETERMINED = "UNDETERMINED"


_GOOD = (State.LIVE, State.REACHABLE)


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """One worker. ``name`` is None for one that the inventory does not have.

    ``info_nodes`` is the status there, None when it is not listed (or was not asked).
    ``notes`` are the disagreements between the views; any makes the verdict not ``ok``.
    """

    name: str | None
    host: str
    port: int
    state: State
    worker_id: str | None = None
    info_nodes: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.state in _GOOD and not self.notes

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}" if self.host else ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What ``check-nodes`` found. ``revision`` is etcd's that the registrations are of."""

    cluster: str
    alluxio: AlluxioCluster | None
    etcd: ClusterHealth
    nodes: tuple[NodeVerdict, ...] = ()
    info_nodes: InfoNodes | None = None
    revision: int | None = None
    view_problems: tuple[Problem, ...] = ()
    taken: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    seconds: float = 0.0

    @property
    def problems(self) -> list[Problem]:
        """What is wrong beside the workers' own states: views that failed, etcd's members."""
        return [*self.view_problems, *self.etcd.problems]

    @property
    def exit_code(self) -> int:
        """0 when all is as declared, else 1. Warnings alone leave it 0."""
        wrong = any(p.severity == "error" for p in self.problems)
        return 1 if wrong or not all(n.ok for n in self.nodes) else 0

    @property
    def counts(self) -> dict[str, int]:
        """How many workers are in each state, in the order of :class:`State`."""
        found = Counter(n.state for n in self.nodes)
        return {state.value: found[state] for state in State if found[state]}

    @property
    def summary(self) -> str:
        """``2 workers: 2 LIVE``; what the inventory does not have is counted apart."""
        declared = Counter(n.state for n in self.nodes if n.name is not None)
        strangers = sum(n.name is None for n in self.nodes)
        total = sum(declared.values())
        states = ", ".join(f"{declared[state]} {state.value}" for state in State if declared[state])
        text = f"{total} worker{'' if total == 1 else 's'}: {states or 'none'}"
        if strangers:
            text += f"; {strangers} not in the inventory"
        differing = sum(bool(n.notes) for n in self.nodes if n.name is not None)
        return f"{text}; {differing} with notes" if differing else text

    def document(self) -> dict[str, object]:
        """The report for ``--format json``: times in seconds, sizes in bytes, UTC."""
        return {
            "schema": SCHEMA,
            "cluster": self.cluster,
            "exit_code": self.exit_code,
            "taken": self.taken.isoformat(timespec="milliseconds"),
            "seconds": round(self.seconds, 3),
            "etcd": {
                "healthy": self.etcd.healthy_count,
                "quorum": self.etcd.quorum,
                "leader": self.etcd.leader,
                "revision": self.etcd.revision,
                "members": [_member(m) for m in self.etcd.members],
            },
            "alluxio": self._alluxio(),
            "problems": [
                {"where": p.where, "what": p.what, "remedy": p.remedy, "severity": p.severity}
                for p in self.problems
            ],
        }

    def _alluxio(self) -> dict[str, object] | None:
        if self.alluxio is None:
            return None
        info = self.info_nodes
        return {
            "membership": self.alluxio.membership,
            "failure_detection_timeout": self.alluxio.failure_detection_timeout,
            "summary": self.summary,
            "counts": self.counts,
            "revision": self.revision,
            "info_nodes": None
            if info is None
            else {"host": info.host, "error": info.error, "seconds": round(info.seconds, 3)},
            "nodes": [
                {
                    "name": n.name,
                    "host": n.host,
                    "port": n.port,
                    "state": n.state.value,
                    "ok": n.ok,
                    "worker_id": n.worker_id,
                    "info_nodes": n.info_nodes,
                    "notes": list(n.notes),
                }
                for n in self.nodes
            ],
        }


def verdicts(
    alluxio: AlluxioCluster,
    registered: Membership | None,
    info: Sequence[NodeRow] | None,
    *,
    identities: Mapping[str, str] | None = None,
    reachable: Mapping[str, bool] | None = None,
) -> list[NodeVerdict]:
    """One verdict per declared worker, in the inventory's order, then per unknown one.

    A view that did not answer is None; what the others say is used. ``identities`` are the
    workers' UUIDs by name where they are known, so that a worker that registers another
    address is found. ``reachable`` (by worker name) is what STATIC membership goes by.
    """
    if alluxio.membership == "STATIC":
        return _static(alluxio, info, reachable or {})
    if registered is not None:
        return _registered(alluxio, registered, info, identities or {})
    if info is not None:
        return _by_info_nodes(alluxio, info)
    return [_verdict(w, State.UNDETERMINED) for w in alluxio.workers]


def run(
    inventory: Inventory,
    fleet: Fleet,
    *,
    nodes_timeout: float = nodes.DEFAULT_TIMEOUT,
    etcd_timeout: float = DEFAULT_TIMEOUT,
    identities: Mapping[str, str] | None = None,
) -> CheckReport:
    """Look at everything at once. Timeouts are in seconds: for ``info nodes``, and for each
    call to etcd. A view that fails is in the report; only a :class:`UsageError` is raised.
    """
    started = time.monotonic()
    taken = datetime.now(timezone.utc)
    health.preload()
    alluxio = inventory.alluxio
    login = desired.login(alluxio) if alluxio is not None else None
    pool = ThreadPoolExecutor(3, "check")
    try:
        asked = pool.submit(nodes.ask, fleet, alluxio, nodes_timeout) if alluxio else None
        ports = pool.submit(_ports, inventory, fleet) if _is_static(alluxio) else None
        seen, reading = _look_at_etcd(inventory, fleet, pool, etcd_timeout, login)
        if alluxio is None:
            return CheckReport(
                inventory.cluster, None, seen, taken=taken, seconds=time.monotonic() - started
            )
        problems: list[Problem] = []
        read = _result(reading, problems) if reading is not None else None
        info = asked.result() if asked is not None else None
        rows = info.rows if info is not None and not info.error else None
        if info is not None and info.error:
            problems.append(Problem("info nodes", info.error))
        reachable = ports.result() if ports is not None else None

        def join(known: _Read | None) -> list[NodeVerdict]:
            registered = known.registered if known is not None else None
            return verdicts(alluxio, registered, rows, identities=identities, reachable=reachable)

        found = join(read)
        if read is not None and rows is not None and any(n.notes for n in found):
            # The views are not of one moment: what changed between them is no disagreement.
            with contextlib.suppress(ProvisionError):
                read = _read(inventory, fleet, etcd_timeout, login)
                found = join(read)
        if read is not None:
            problems += _mixed_up(inventory.cluster, read.clusters)
        return CheckReport(
            inventory.cluster,
            alluxio,
            seen,
            tuple(found),
            info,
            read.registered.revision if read is not None else None,
            tuple(problems),
            taken,
            time.monotonic() - started,
        )
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def watch(
    inventory: Inventory,
    fleet: Fleet,
    interval: float = 2.0,
    *,
    nodes_timeout: float = nodes.DEFAULT_TIMEOUT,
    etcd_timeout: float = DEFAULT_TIMEOUT,
) -> Iterator[CheckReport]:
    """:func:`run` again and again, ``interval`` seconds from one begin to the next."""
    while True:
        begun = time.monotonic()
        yield run(inventory, fleet, nodes_timeout=nodes_timeout, etcd_timeout=etcd_timeout)
        time.sleep(max(0.0, interval - (time.monotonic() - begun)))


@dataclass(slots=True)
class _Seen:
    """One worker id in etcd."""

    worker_id: str
    registration: Registration | UnknownRegistration
    live: bool
    host: str
    port: int
    revision: int
    notes: list[str]

    @property
    def address(self) -> tuple[str, int]:
        return self.host.lower(), self.port


def _registered(
    alluxio: AlluxioCluster,
    registered: Membership,
    info: Sequence[NodeRow] | None,
    identities: Mapping[str, str],
) -> list[NodeVerdict]:
    rows = {row.worker_id: row for row in info or ()}
    seen = _ids(registered, rows, with_authorized=alluxio.membership == "ETCD")
    claimed = _claims(alluxio.workers, seen, identities)
    found: list[NodeVerdict] = []
    for worker in alluxio.workers:
        one = claimed.get(worker.name)
        if one is None:
            found.append(_verdict(worker, State.UNREGISTERED))
            continue
        notes = list(one.notes)
        if one.host and one.address != _address(worker):
            notes.append(
                f"registered as {one.host}:{one.port}, "
                f"the inventory says {worker.hostname}:{worker.rpc_port}"
            )
        known = identities.get(worker.name)
        if known is not None and _bare(one.worker_id) != _bare(known):
            notes.append(f"its identity file says {known}")
        status, differing = _compare(one, rows, asked=info is not None)
        found.append(
            _verdict(
                worker,
                State.LIVE if one.live else State.FAILED,
                one.worker_id,
                status,
                (*notes, *differing),
            )
        )
    owners = {one.worker_id: name for name, one in claimed.items()}
    by_address = {_address(w): w for w in alluxio.workers}
    by_host = {w.hostname.lower(): w for w in alluxio.workers}
    for one in seen:
        if one.worker_id in owners:
            continue
        status, differing = _compare(one, rows, asked=info is not None)
        at = by_address.get(one.address)
        notes = [_stranger(one, at, by_host.get(one.host.lower()), claimed), *one.notes]
        found.append(
            NodeVerdict(
                None,
                one.host,
                one.port,
                State.UNKNOWN,
                one.worker_id,
                status,
                (*notes, *differing),
            )
        )
    return _with_rows_of_no_id(found, info, {one.worker_id for one in seen})


def _ids(
    registered: Membership, rows: Mapping[str, NodeRow], *, with_authorized: bool
) -> list[_Seen]:
    """Every id in etcd. The live key's value is the newer one."""
    authorized = registered.authorized if with_authorized else {}
    found: list[_Seen] = []
    for worker_id in dict.fromkeys([*authorized, *registered.live]):
        permanent, live = authorized.get(worker_id), registered.live.get(worker_id)
        entry = live or permanent
        assert entry is not None
        registration = entry.registration
        notes: list[str] = []
        if isinstance(registration, Registration):
            host, port = registration.host, registration.rpc_port
            if registration.state == "DECOMMISSIONED":
                notes.append("decommissioned in etcd")
        else:
            notes.append(f"its value in etcd is of an unknown form: {registration.excerpt}")
            # Alluxio itself may be able to read it.
            row = rows.get(worker_id)
            host, port = (row.host, row.port) if row is not None else ("", 0)
        if live is not None and not live.key.lease:
            notes.append("its live key has no lease, so it says nothing")
        if live is not None and permanent is None and with_authorized:
            notes.append("live without an AUTHORIZED key")
        if live is not None and permanent is not None and _differ(live, permanent):
            notes.append("its live and its AUTHORIZED key have different addresses")
        found.append(
            _Seen(
                worker_id,
                registration,
                live is not None and live.key.lease != 0,
                host,
                port,
                entry.key.mod_revision,
                notes,
            )
        )
    return found


def _differ(one: membership.Entry, other: membership.Entry) -> bool:
    a, b = one.registration, other.registration
    return (
        a is not b
        and isinstance(a, Registration)
        and isinstance(b, Registration)
        and (a.host, a.rpc_port) != (b.host, b.rpc_port)
    )


def _claims(
    workers: Sequence[AlluxioWorker], seen: Sequence[_Seen], identities: Mapping[str, str]
) -> dict[str, _Seen]:
    """Which id is which declared worker's: a live one before a dead one, the newest of several.

    Among the live the address decides, since that is where clients go; among the dead the
    identity, since that is who comes back.
    """
    by_address: dict[tuple[str, int], list[_Seen]] = {}
    by_identity: dict[str, list[_Seen]] = {}
    for one in sorted(seen, key=lambda s: -s.revision):
        by_address.setdefault(one.address, []).append(one)
        by_identity.setdefault(_bare(one.worker_id), []).append(one)

    def at_address(worker: AlluxioWorker) -> list[_Seen]:
        return by_address.get(_address(worker), [])

    def of_identity(worker: AlluxioWorker) -> list[_Seen]:
        known = identities.get(worker.name)
        return by_identity.get(_bare(known), []) if known else []

    claimed: dict[str, _Seen] = {}
    taken: set[str] = set()
    for live, candidates in (
        (True, at_address),
        (True, of_identity),
        (False, of_identity),
        (False, at_address),
    ):
        for worker in workers:
            if worker.name in claimed:
                continue
            for one in candidates(worker):
                if one.live == live and one.worker_id not in taken:
                    claimed[worker.name] = one
                    taken.add(one.worker_id)
                    break
    return claimed


def _compare(
    one: _Seen, rows: Mapping[str, NodeRow], *, asked: bool
) -> tuple[str | None, tuple[str, ...]]:
    """The status in ``info nodes``, and how it differs from what etcd says."""
    if not asked:
        return None, ()
    row = rows.get(one.worker_id)
    if row is None:
        return None, ("info nodes does not list it",)
    notes: list[str] = []
    if row.status != ("ONLINE" if one.live else "OFFLINE"):
        notes.append(f"{'live' if one.live else 'no lease'} in etcd, {row.status} in info nodes")
    if one.host and (row.host.lower(), row.port) != one.address:
        notes.append(f"info nodes has it at {row.address}")
    return row.status, tuple(notes)


def _stranger(
    one: _Seen,
    worker: AlluxioWorker | None,
    same_host: AlluxioWorker | None,
    claimed: Mapping[str, _Seen],
) -> str:
    """Why an id is nobody's."""
    life = "live" if one.live else "no lease"
    if worker is not None and worker.name in claimed:
        other = claimed[worker.name]
        if one.live:
            return f"live at the address of {worker.name}, which is {other.worker_id}"
        if other.live:
            return f"stale: {worker.name} is live as {other.worker_id}"
        return f"stale: {worker.name} has the newer registration {other.worker_id}"
    if same_host is not None:
        return (
            f"{life}, on the host of {same_host.name}, whose port is {same_host.rpc_port} "
            "in the inventory"
        )
    return f"{life}, not in the inventory"


def _with_rows_of_no_id(
    found: list[NodeVerdict], info: Sequence[NodeRow] | None, ids: set[str]
) -> list[NodeVerdict]:
    """``found``, with what ``info nodes`` lists and etcd does not have."""
    missing = {
        (n.host.lower(), n.port): i for i, n in enumerate(found) if n.state is State.UNREGISTERED
    }
    result = list(found)
    for row in info or ():
        if row.worker_id in ids:
            continue
        at = missing.get((row.host.lower(), row.port))
        note = f"info nodes lists {row.worker_id}, etcd does not"
        if at is None:
            result.append(
                NodeVerdict(
                    None, row.host, row.port, State.UNKNOWN, row.worker_id, row.status, (note,)
                )
            )
        else:
            old = result[at]
            result[at] = NodeVerdict(
                old.name, old.host, old.port, old.state, None, row.status, (*old.notes, note)
            )
    return result


def _by_info_nodes(alluxio: AlluxioCluster, info: Sequence[NodeRow]) -> list[NodeVerdict]:
    """Without etcd's view: Alluxio's own word for it."""
    rows: dict[tuple[str, int], NodeRow] = {}
    for row in info:
        at = (row.host.lower(), row.port)
        if at not in rows or row.status == "ONLINE":
            rows[at] = row
    found: list[NodeVerdict] = []
    for worker in alluxio.workers:
        its = rows.get(_address(worker))
        if its is None:
            found.append(_verdict(worker, State.UNREGISTERED))
        else:
            state = State.LIVE if its.status == "ONLINE" else State.FAILED
            found.append(_verdict(worker, state, its.worker_id, its.status))
    used = {n.worker_id for n in found}
    return found + [
        NodeVerdict(
            None,
            row.host,
            row.port,
            State.UNKNOWN,
            row.worker_id,
            row.status,
            ("not in the inventory",),
        )
        for row in info
        if row.worker_id not in used
    ]


def _static(
    alluxio: AlluxioCluster, info: Sequence[NodeRow] | None, reachable: Mapping[str, bool]
) -> list[NodeVerdict]:
    """STATIC: ``info nodes`` prints ``conf/workers``, each host with the asked host's own port
    and an id hashed from both."""
    rows: dict[str, list[NodeRow]] = {}
    for row in info or ():
        rows.setdefault(row.host.lower(), []).append(row)
    found: list[NodeVerdict] = []
    for worker in alluxio.workers:
        its = rows.get(worker.hostname.lower(), [])
        exact = [row for row in its if row.port == worker.rpc_port]
        own = next(iter(exact or its), None)
        if own is not None:
            its.remove(own)
        answers = reachable.get(worker.name)
        state = State.UNDETERMINED
        if answers is not None:
            state = State.REACHABLE if answers else State.UNREACHABLE
        notes = ("info nodes does not list it",) if info is not None and own is None else ()
        status = own.status if own is not None else None
        found.append(_verdict(worker, state, own.worker_id if own else None, status, notes))
    return found + [
        NodeVerdict(
            None,
            row.host,
            row.port,
            State.UNKNOWN,
            row.worker_id,
            row.status,
            ("in conf/workers, not in the inventory",),
        )
        for left in rows.values()
        for row in left
    ]


class _Read(NamedTuple):
    """What Alluxio's clusters have in etcd: this one's workers, and every cluster's name."""

    registered: Membership
    clusters: list[str]


def _look_at_etcd(
    inventory: Inventory,
    fleet: Fleet,
    pool: ThreadPoolExecutor,
    timeout: float,
    login: Login | None,
) -> tuple[ClusterHealth, Future[_Read] | None]:
    """Every member's health; the registrations are read as soon as one member serves."""
    alluxio, cluster = inventory.alluxio, inventory.etcd
    wanted = alluxio is not None and not _is_static(alluxio)
    reading: Future[_Read] | None = None
    seen: dict[str, MemberHealth] = {}
    for m in health.observing(cluster, fleet, timeout=timeout, login=login, certificates=True):
        seen[m.member.name] = m
        if wanted and reading is None and m.healthy:
            reading = pool.submit(_read, inventory, fleet, timeout, login)
    if wanted and reading is None:
        reading = Future()
        reading.set_exception(ProvisionError("no member serves reads"))
    return ClusterHealth(cluster, tuple(seen[m.name] for m in cluster.members)), reading


def _read(inventory: Inventory, fleet: Fleet, timeout: float, login: Login | None) -> _Read:
    with health.any_client(inventory.etcd, fleet, timeout=timeout, login=login) as client:
        registered = membership.read(client, inventory.cluster)
        try:
            return _Read(registered, membership.clusters(client))
        except EtcdError:  # Alluxio's own user may be allowed its cluster's prefixes only
            return _Read(registered, [])


def _result(reading: Future[_Read], problems: list[Problem]) -> _Read | None:
    try:
        return reading.result()
    except ProvisionError as error:
        what = error.problems[0].what if error.problems else error.message
        problems.append(Problem("etcd", f"the registrations could not be read: {what}"))
        return None


def _mixed_up(cluster: str, others: list[str]) -> list[Problem]:
    """Other clusters in the same etcd that Alluxio takes for a part of this one, or this of it."""
    found: list[Problem] = []
    for other in membership.confusable(cluster, others):
        short, long = sorted((cluster, other), key=len)
        what = f"serves the clusters {short!r} and {long!r}: Alluxio lists the live workers of"
        what += f" {long!r} as those of {short!r}, too, since the names begin alike"
        found.append(Problem("etcd", what, "rename one of them", "warning"))
    return found


def _ports(inventory: Inventory, fleet: Fleet) -> dict[str, bool]:
    assert inventory.alluxio is not None
    workers = inventory.alluxio.workers
    with ThreadPoolExecutor(min(inventory.parallel, len(workers)), "ports") as pool:
        answers = pool.map(lambda w: membership.port_answers(fleet, w), workers)
        return {w.name: answer for w, answer in zip(workers, answers, strict=True)}


def _is_static(alluxio: AlluxioCluster | None) -> bool:
    return alluxio is not None and alluxio.membership == "STATIC"


def _verdict(
    worker: AlluxioWorker,
    state: State,
    worker_id: str | None = None,
    status: str | None = None,
    notes: Sequence[str] = (),
) -> NodeVerdict:
    return NodeVerdict(
        worker.name, worker.hostname, worker.rpc_port, state, worker_id, status, tuple(notes)
    )


def _address(worker: AlluxioWorker) -> tuple[str, int]:
    return worker.hostname.lower(), worker.rpc_port


def _bare(identity: str) -> str:
    """An identity in one spelling: without ``worker-`` and dashes."""
    return identity.removeprefix("worker-").replace("-", "").lower()


def _member(m: MemberHealth) -> dict[str, object]:
    status = m.status
    return {
        "name": m.member.name,
        "endpoint": m.member.client_url,
        "healthy": m.healthy,
        "error": m.error or None,
        "how": m.how,
        "read_seconds": None if m.seconds is None else round(m.seconds, 4),
        "status": None
        if status is None
        else {
            "member_id": f"{status.member_id:x}",
            "leader": status.is_leader,
            "learner": status.is_learner,
            "version": status.version,
            "revision": status.revision,
            "raft_term": status.raft_term,
            "raft_index": status.raft_index,
            "db_size": status.db_size,
            "db_in_use": status.db_in_use,
            "alarms": list(status.alarms),
        },
        "certificates": [_certificate(c) for c in m.certificates],
    }


def _certificate(c: CertificateState) -> dict[str, object]:
    return {
        "listener": c.listener,
        "not_after": c.not_after.isoformat() if c.not_after is not None else None,
        "days_left": c.days_left(),
        "error": c.error or None,
    }
