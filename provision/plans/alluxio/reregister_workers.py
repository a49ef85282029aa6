"""The workers that lose their registration when etcd's data goes back in time.

A worker keeps its lease alive by the lease's id (Alluxio 313, ``ServiceDiscoveryRecipe``). The
restored data may lack that lease. The worker then goes on serving, but it is not registered until
it is restarted. The data may also hold an older lease of the worker. The worker's key then stays
until that lease ends.

A worker that has noticed the outage makes a new lease as soon as etcd serves again
(``checkAllForReconnect``). It writes its live key then, but not its permanent key: only a start
writes that one (``EtcdMembershipManager.join``). The restored data may lack the permanent key, so
that ``getAllMembers`` does not list the worker. Or it has an older address there, and Alluxio would
refuse the worker's next start.

restore-etcd and recover-etcd look for such workers when etcd is back. They restart these workers in
groups, as restart-workers does: with the same guard for changed addresses, and each group is ready
before the next group is restarted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provision import progress, wait
from provision.alluxio.commands import readiness
from provision.alluxio.membership import leases, registrations
from provision.alluxio.worker import desired
from provision.engine.plan import Gate, Plan, Step
from provision.errors import Problem, Severity, Unhealthy
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.host import gather, preflight
from provision.host.facts import HostFacts, Probe, merged_each
from provision.host.ownership import owner
from provision.host.resources import File, Identity
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory, Machine
from provision.plans.alluxio import forget_worker, moved, restart_workers, start_workers

#: etcd's client sends a keepalive three times within a lease's time to live.
KEEP_ALIVES = 3
#: Seconds on top: LeaseTimeToLive answers in whole seconds.
MARGIN = 1.5
#: Seconds between two looks at the leases, at most.
POLL_SECONDS = 1.0
#: Seconds without an answer from etcd, or with ever new leaders, until the look fails.
PATIENCE = 60.0


class Watch:
    """Finds the running workers that have lost their registration.

    ``step`` looks and changes nothing. After it, ``plan`` restarts the workers that it has found.
    """

    def __init__(self, inventory: Inventory, alluxio: AlluxioCluster, etcd: Etcd) -> None:
        self._inventory, self._alluxio, self._etcd = inventory, alluxio, etcd
        self._facts: Mapping[Machine, HostFacts] = {}
        self._absent: set[Machine] = set()
        self._notes: tuple[Problem, ...] = ()
        self._lost: Sequence[AlluxioWorker] = ()
        title = "etcd says which workers have lost their registration; they are restarted next"
        self.step = Step("look for workers without a registration", after=Gate(title, self._look))

    def plan(self, command: str) -> Plan:
        """Restart the workers that were found, group by group.

        Raises :class:`PreflightFailed` when another host's worker has the identity of one.
        """
        given = self._inventory, self._alluxio, self._etcd
        others: list[moved.Moved] = []
        if self._lost and self._alluxio.membership.permanent_keys:
            seen = forget_worker.look(self._alluxio, self._etcd)
            # No process keeps these keys alive, so every entry at another address is in the way.
            others = moved.found(self._alluxio, self._lost, self._facts, seen)
            fleet = self._etcd.fleet
            preflight.require(moved.clones(self._alluxio, fleet, others, self._facts, seen))
        size = max(1, len(self._alluxio.workers) // start_workers.RESTART_SHARE)
        steps = restart_workers.in_groups(*given, self._lost, others, self._facts, size, command)
        return Plan(command, self._inventory.cluster, tuple(steps), self._notes)

    def _look(self) -> None:
        if kinds := health.observe(self._etcd).alarms:
            # etcd grants no lease then: a restarted worker would lose its registration.
            what = f"were not checked, because {health.raised(kinds)}"
            remedy = "solve the alarm, then invoke disarm-alarms and invoke restart-workers"
            self._notes = (Problem("the workers", what, remedy, "warning", id="worker-left-out"),)
            return
        self._facts, absent = gather.gather_facts(self._etcd.fleet, _probes(self._alluxio))
        self._absent = {w.machine for w in self._alluxio.workers} - self._facts.keys()
        self._notes = tuple(
            Problem(
                p.where,
                f"its worker was not checked: {p.what}",
                "if check-nodes shows it as FAILED later, run invoke restart-workers",
                "warning",
                id="worker-left-out",
            )
            for p in absent
        )
        running = [w for w in self._alluxio.workers if self._is_ours(w)]
        gone = lost(self._alluxio, self._etcd, running, self._facts)
        if self._alluxio.membership.permanent_keys:
            registered = forget_worker.look(self._alluxio, self._etcd)
            gone += unlisted(self._alluxio, running, self._facts, registered)
        # Last those that may fail again, for a reason of their own.
        self._lost = sorted((w for w in running if w in gone), key=self._has_failed)

    def _is_ours(self, worker: AlluxioWorker) -> bool:
        """Whether this cluster's worker is to run on the host: it runs, it has failed, or an
        earlier run has stopped it. This excludes a worker that somebody else has stopped: it stays
        stopped."""
        facts = self._facts.get(worker.machine)
        if facts is None or owner(facts, desired.UNIT_PATH) != self._alluxio.name:
            return False
        return facts.unit(desired.UNIT).active != "inactive" or bool(restart_workers.noted(facts))

    def _has_failed(self, worker: AlluxioWorker) -> bool:
        return self._facts[worker.machine].unit(desired.UNIT).active in ("failed", "activating")

    def unregistered(self) -> list[Problem]:
        """The declared workers without a permanent key, or without a key under a lease.

        For the end, when the workers of :meth:`plan` are back. A worker that is not installed was
        never registered: for it there is a warning.
        """
        seen = forget_worker.look(self._alluxio, self._etcd)
        found = [self._keys_of(worker, seen) for worker in self._alluxio.workers]
        return [problem for problem in found if problem is not None]

    def _keys_of(
        self, worker: AlluxioWorker, seen: registrations.RegistrationSnapshot
    ) -> Problem | None:
        facts = self._facts.get(worker.machine)
        identity = desired.identity(self._alluxio, facts) if facts is not None else None
        ids = [desired.worker_id(identity)] if identity is not None else _ids_at(worker, seen)
        permanent = not self._alluxio.membership.permanent_keys or any(
            i in seen.authorized for i in ids
        )
        # Data from before may have the key of a worker that is stopped; its lease ends.
        stopped = facts is not None and not self._is_ours(worker)
        live = not stopped and any(i in seen.live and seen.live[i].key.lease for i in ids)
        if permanent and live:
            return None
        lacks = " and no ".join(
            name for name, has in (("permanent key", permanent), ("live key", live)) if not has
        )
        severity: Severity
        severity, remedy = "error", f"invoke restart-workers {worker.name}"
        state = ""
        if worker.machine in self._absent:
            state = "; its host did not answer"
        elif facts is not None and stopped:
            state, remedy = "; it is stopped", f"invoke start-workers {worker.name}"
            if owner(facts, desired.UNIT_PATH) != self._alluxio.name:
                state, severity = "; it is not installed", "warning"
        where = worker.place
        what = f"has no {lacks} in etcd{state}"
        return Problem(where, what, remedy, severity, id="worker-keys-missing")


def watch(inventory: Inventory, etcd: Etcd) -> Watch | None:
    """None where no worker has a lease: without Alluxio, and without live keys."""
    alluxio = inventory.alluxio
    if alluxio is None or not alluxio.membership.in_etcd:
        return None
    return Watch(inventory, alluxio, etcd)


def lost(
    alluxio: AlluxioCluster,
    etcd: Etcd,
    workers: Sequence[AlluxioWorker],
    facts: Mapping[Machine, HostFacts],
) -> list[AlluxioWorker]:
    """The workers without a live key, or with a live key on a lease that nobody keeps alive.

    The time left of a lease that is kept alive goes up once within every third of its time to
    live. A new leader gives each lease its whole time again (etcd, ``lessor.Promote``), so the
    comparison begins again when the term changes.

    Raises :class:`Unhealthy` when etcd does not answer for so long: then no worker counts as lost.
    """
    with progress.waiting("who keeps its lease alive", of=len(workers)) as shown:
        waiting = list(workers)
        window = alluxio.failure_detection_timeout / KEEP_ALIVES + MARGIN
        least: dict[int, int] = {}
        term, compared = 0, wait.Deadline(window)
        limit = wait.Deadline(window + PATIENCE)
        while waiting:
            try:
                with etcd.any() as client:
                    now, seen = client.status().raft_term, registrations.read(client, alluxio.name)
                    keys = {w.name: _lease(alluxio, w, facts, seen) for w in waiting}
                    some = sorted({lease for lease in keys.values() if lease})
                    times = client.lease_times(some, leases.SECONDS)
            except Unhealthy:  # etcd may change its leader meanwhile
                if limit.passed:
                    raise
                limit.pause(POLL_SECONDS)
                continue
            if now != term or len(times) < len(some):
                if limit.passed:
                    raise Unhealthy(
                        "it is not known which workers have lost their registration: etcd changes "
                        "its leader, or answers too slowly",
                        id="leases-not-asked",
                    )
                if now != term:
                    least, term, compared = {}, now, wait.Deadline(window)
            grown = {lease for lease, t in times.items() if t.left > least.get(lease, t.left)}
            for lease, t in times.items():
                least[lease] = min(t.left, least.get(lease, t.left))
            waiting = [w for w in waiting if keys[w.name] not in grown]
            shown.left([w.name for w in waiting])
            if len(times) == len(some) and compared.passed:
                break
            if waiting:
                limit.pause(min(POLL_SECONDS, window / 8))
        return waiting


def unlisted(
    alluxio: AlluxioCluster,
    workers: Sequence[AlluxioWorker],
    facts: Mapping[Machine, HostFacts],
    seen: registrations.RegistrationSnapshot,
) -> list[AlluxioWorker]:
    """The workers that have no permanent key, or one that their next start would meet at another
    address. A worker without a known identity is not among them."""
    found = [
        m.worker
        for m in moved.found(alluxio, workers, facts, seen)
        if not m.live or moved.outdated(m, seen)
    ]
    for worker in workers:
        identity = desired.identity(alluxio, facts[worker.machine])
        if identity is not None and desired.worker_id(identity) not in seen.authorized:
            found.append(worker)
    return found


def _lease(
    alluxio: AlluxioCluster,
    worker: AlluxioWorker,
    facts: Mapping[Machine, HostFacts],
    seen: registrations.RegistrationSnapshot,
) -> int:
    """The lease of the worker's live key; 0 without one. The key is found by the worker's identity,
    or else by its address."""
    identity = desired.identity(alluxio, facts[worker.machine]) if worker.machine in facts else None
    entry = seen.live.get(desired.worker_id(identity)) if identity else None
    if entry is not None:
        return entry.key.lease
    at = worker.hostname, worker.rpc_port
    for key, r in seen.live_registrations():
        if (r.host, r.rpc_port) == at:
            return key.lease
    return 0


def _ids_at(worker: AlluxioWorker, seen: registrations.RegistrationSnapshot) -> list[str]:
    """The ids that are registered at the address of ``worker``, live or not."""
    entries = {**seen.authorized, **seen.live}
    return [id for id, entry in entries.items() if forget_worker.is_at(worker, entry)]


def _probes(alluxio: AlluxioCluster) -> dict[Machine, Probe]:
    identity = Identity(desired.identity_file(alluxio), alluxio.user, "")
    files = (File(desired.UNIT_PATH, None), File(restart_workers.MARK, None), identity)
    own = Probe(resources=files, units=(desired.UNIT,))
    asked = readiness.probes(alluxio, alluxio.workers)
    return merged_each(dict.fromkeys(asked, own), asked)
