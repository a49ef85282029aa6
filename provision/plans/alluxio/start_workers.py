"""``start-workers``: makes a plan from the inventory and the facts, and waits for READY."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import MappingProxyType

from provision import artifacts, progress, wait
from provision.alluxio.commands import readiness
from provision.alluxio.commands.alluxio_cli import NOT_YET
from provision.alluxio.membership import clusters, registrations, type_change
from provision.alluxio.worker import (
    attempt,
    desired,
    java,
    membership_switch,
    state,
    stores,
    tarball,
)
from provision.alluxio.worker.desired import Artifacts
from provision.dataclass import dataclass
from provision.engine.plan import Gate, HostChanges, Plan, Step
from provision.errors import Problem, ProvisionError, Unhealthy
from provision.etcd.cluster.handle import Etcd
from provision.host import diff, fitness, gather, preflight
from provision.host.diff import Change, changes
from provision.host.facts import PREFLIGHT, HostFacts, Probe, merged_each
from provision.host.resources import holds
from provision.inventory import sizes
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory, Machine
from provision.plans.alluxio import join_conflict, moved, worker_preflight
from provision.ssh.session import Fleet, Session
from provision.text import counted, number, printable_lines, share

#: Running workers are restarted in groups of one such part of the chosen workers. The rest keeps
#: serving, also while other runs restart workers of other batches.
RESTART_SHARE = 10
POLL_SECONDS = 0.25
#: When the service began, in microseconds, and the host's uptime, in seconds.
_BEGAN = f"""read -r up _ </proc/uptime
echo "Uptime=$up"
systemctl show -p ActiveState -p ActiveEnterTimestampMonotonic {desired.UNIT}"""
#: Seconds between two looks at the listeners of workers that are registered.
READY_LOOK_SECONDS = 1.0
#: A worker that has ended by itself this often, over at least this many seconds, does not come up
#: after a longer wait either. An attempt of a real worker takes 20 to 40 s.
CRASHES, CRASHES_SECONDS = 3, 20.0
CRASH_LOOK_SECONDS = 5.0
#: How many workers are looked at: a cause that stops all workers shows with the first few.
CRASH_LOOK_WORKERS = 3


@dataclass(frozen=True, slots=True)
class WorkersState:
    """Everything the plan is made from."""

    artifacts: Artifacts
    facts: Mapping[Machine, HostFacts]
    warnings: tuple[Problem, ...] = ()
    #: The cluster's registrations in etcd, when its membership type is about to change.
    registered: registrations.RegistrationSnapshot | None = None
    #: The workers that will register another address than the one under their identity in etcd.
    moved: tuple[moved.Moved, ...] = ()
    #: The names of the workers whose listeners answered, when this was asked.
    ready: frozenset[str] = frozenset()


def fetch(alluxio: AlluxioCluster, *, unread: bool = False) -> Artifacts:
    """The tarballs of ``alluxio``, checked. Raises :class:`PreflightFailed`.

    ``unread``: as of :func:`artifacts.fetch`. Then :func:`certain` comes with the hosts' facts.
    """
    cache = artifacts.default_cache()
    jdk = alluxio.java.source
    sources = (alluxio.source, *([jdk] if jdk is not None else []))
    release, *more = artifacts.fetch_all(sources, cache, unread=unread)
    return Artifacts(
        alluxio=release,
        jdk=more[0] if more else None,
        release=tarball.contents(release, cache),
    )


def certain(alluxio: AlluxioCluster, tarballs: Artifacts, facts: Iterable[HostFacts]) -> Artifacts:
    """``tarballs``; read again, if a host of ``facts`` is to get one that was not read. Raises
    :class:`PreflightFailed`."""
    trees = [(desired.home(alluxio), tarballs.alluxio)]
    if tarballs.jdk is not None:
        trees.append((java.tree(alluxio, tarballs.jdk.path.name), tarballs.jdk))
    unread = [(path, artifact) for path, artifact in trees if artifact.unread]
    if all(holds(f, path, artifact) for f in facts for path, artifact in unread):
        return tarballs
    return fetch(alluxio)


def observe(
    alluxio: AlluxioCluster,
    etcd: Etcd,
    chosen: Sequence[AlluxioWorker],
    tarballs: Artifacts | None = None,
    *,
    ready: bool = False,
) -> WorkersState:
    """Look at the hosts of the chosen workers, and check at the same time whether etcd answers.

    Without ``tarballs``, the tarballs that the inventory declares are used. With ``ready``, the
    same look asks whether the workers' listeners answer.
    Raises :class:`PreflightFailed` with every problem found; nothing is changed.
    """
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(_registered, alluxio, etcd)
        problems: list[Problem] = []
        with preflight.noting(problems):
            tarballs = tarballs or fetch(alluxio, unread=True)
        probes: Mapping[Machine, Probe] = (
            desired.probes(alluxio, chosen, tarballs)
            if tarballs
            else dict.fromkeys((w.machine for w in chosen), Probe(kinds=PREFLIGHT))
        )
        if ready:
            probes = merged_each(probes, readiness.probes(alluxio, chosen))
        facts, unreachable = gather.gather_facts(etcd.fleet, probes)
        problems += unreachable
        if tarballs:
            with preflight.noting(problems):
                tarballs = certain(alluxio, tarballs, facts.values())
        problems += host_problems(alluxio, chosen, tarballs, etcd.fleet, probes, facts)
        if tarballs:
            problems += worker_preflight.workers(alluxio, chosen, tarballs, facts)
        registered, missing = asking.result()
        others = moved.found(alluxio, chosen, facts, registered) if registered else []
        if registered:
            problems += moved.twins(alluxio, etcd.fleet, chosen, others, facts, registered)
        problems += missing
    warnings = preflight.require(problems)
    assert tarballs is not None  # or else there is a problem
    seen = None
    if membership_switch.away(alluxio, chosen, facts):
        # For a note only: the new type may need no etcd.
        with (
            contextlib.suppress(ProvisionError),
            etcd.as_worker(desired.login(alluxio)).any() as client,
        ):
            seen = registrations.read(client, alluxio.name)
    answer = frozenset(
        w.name for w in chosen if ready and readiness.of(alluxio, w, facts[w.machine]).ready
    )
    return WorkersState(tarballs, facts, warnings, seen, tuple(others), answer)


def host_problems(
    alluxio: AlluxioCluster,
    chosen: Sequence[AlluxioWorker],
    tarballs: Artifacts | None,
    fleet: Fleet,
    probes: Mapping[Machine, Probe],
    facts: Mapping[Machine, HostFacts],
) -> list[Problem]:
    """What keeps the chosen workers' hosts from being changed, by their ``facts``. Whether a worker
    can reach etcd is not among it: etcd's members may be about to change, too."""
    # Whether something is to be changed there, only a worker's own files say (desired.probes).
    own = {
        w.machine: desired.probe(alluxio, w, tarballs)
        for w in chosen
        if tarballs and (f := facts.get(w.machine)) is not None and f.unwritable
    }
    problems = fitness.problems(
        fleet,
        alluxio.name,
        {**probes, **own},
        facts,
        rooms=_rooms(alluxio, chosen, tarballs, facts) if tarballs else {},
        tarballs=[tarballs.alluxio, tarballs.jdk] if tarballs else [],
        take_over=alluxio.take_over,
        command="start-workers",
    )
    return problems + (worker_preflight.release(alluxio, tarballs, facts) if tarballs else [])


def plan(
    inventory: Inventory,
    alluxio: AlluxioCluster,
    etcd: Etcd,
    observed: WorkersState,
    chosen: Sequence[AlluxioWorker],
    *,
    command: str = "start-workers",
    at_once: int | None = None,
    remember: bool = True,
) -> Plan:
    """The smallest change after which the chosen workers are as declared, running and registered.

    ``at_once`` running workers are restarted at a time; without it, a tenth of the chosen workers.
    ``remember`` is passed to :func:`desired.resources`.
    """

    told = {w.name: desired.left(alluxio, w, observed.facts[w.machine], command) for w in chosen}
    left = tuple(p for p in told.values() if p is not None)
    chosen = [w for w in chosen if told[w.name] is None]
    refused = {m.worker.name for m in observed.moved if not m.live}

    def wanted(w: AlluxioWorker) -> tuple[Change, ...]:
        facts = observed.facts[w.machine]
        if w.name in refused:  # it runs, and Alluxio does not let it join
            facts = replace(facts, pending_restarts=facts.pending_restarts | {desired.UNIT})
        resources = desired.resources(alluxio, w, observed.artifacts, facts, remember=remember)
        return changes(resources, facts)

    todo = {w.name: wanted(w) for w in chosen}
    changed = [w for w in chosen if todo[w.name]]
    running = [w for w in changed if _running(observed.facts[w.machine])]
    fresh = [w for w in changed if w not in running]
    steps: list[Step] = []
    done: list[AlluxioWorker] = []

    def step(title: str, workers: Sequence[AlluxioWorker], only: Callable[[Change], bool]) -> None:
        hosts = [
            HostChanges(w.name, w.machine, tuple(c for c in todo[w.name] if only(c)))
            for w in workers
        ]
        hosts = [h for h in hosts if h.changes]
        if not hosts:
            return
        # A worker that is only enabled, for example, and not started gets no newer key to wait for.
        restarted = {h.name for h in hosts if any(desired.UNIT in c.starts for c in h.changes)}
        touched = [w for w in workers if w.name in restarted]
        waiting = RegistrationGate(alluxio, etcd, touched, done) if touched else None
        done.extend(touched)
        steps.append(
            Step(
                title,
                tuple(hosts),
                before=waiting.before if waiting else None,
                after=waiting.after if waiting else None,
                at_once=inventory.parallel,
            )
        )

    def remove_old_addresses(workers: Sequence[AlluxioWorker]) -> None:
        names = [w.name for w in workers]
        some = [m for m in observed.moved if m.worker.name in names]
        steps.extend(moved.steps(inventory, alluxio, etcd, some, observed.facts, command))

    remove_old_addresses(fresh)
    made = [c for w in fresh for c in todo[w.name]]
    step(f"{diff.to_others(made)} workers", fresh, lambda change: True)
    step("prepare running workers", running, lambda change: change.non_disruptive)
    for some in groups(running, at_once or max(1, len(chosen) // RESTART_SHARE)):
        other = membership_switch.away(alluxio, some, observed.facts)
        to = f" with membership {alluxio.membership}" if other else ""
        remove_old_addresses([w for w in some if not all(c.non_disruptive for c in todo[w.name])])
        made = [c for w in some for c in todo[w.name] if not c.non_disruptive]
        verb = diff.to_running(made, desired.UNIT)
        step(f"{verb} {named(some)}{to}", some, lambda change: not change.non_disruptive)
    switched = type_change.notes(alluxio, chosen, observed.facts, observed.registered)
    beside = _pending_masters(alluxio, changed, todo, observed.facts)
    stores = [p for w in changed for p in state.notes(alluxio, w, observed.facts[w.machine])]
    notes = (*observed.warnings, *switched, *stores, *beside)
    return Plan(command, inventory.cluster, tuple(steps), notes, left=left)


def _pending_masters(
    alluxio: AlluxioCluster,
    workers: Sequence[AlluxioWorker],
    todo: Mapping[str, Sequence[Change]],
    facts: Mapping[Machine, HostFacts],
) -> list[Problem]:
    """The masters on workers' hosts that the plan leaves with a restart pending."""
    return [
        Problem(
            master.place,
            f"has the same files as {w.name}, and still needs a restart",
            "then run invoke start-masters",
            "warning",
            id="restart-pending",
        )
        for w in workers
        if (master := desired.master_on(alluxio, w.machine)) is not None
        and facts[w.machine].unit(desired.MASTER_UNIT).active == "active"
        and any(desired.MASTER_UNIT in change.restarts for change in todo[w.name])
    ]


def live(alluxio: AlluxioCluster, etcd: Etcd, workers: Iterable[AlluxioWorker]) -> dict[str, int]:
    """The live workers, by name, with the etcd revision of their live key.

    Where etcd does not have the workers, there is no live key: a worker is live when its port takes
    a connection, and the revision is 0.
    """
    if not alluxio.membership.in_etcd:
        return {w.name: 0 for w in workers if registrations.port_answers(etcd.fleet, w)}
    login = desired.login(alluxio)
    with etcd.as_worker(login).any() as client:
        seen = registrations.read(client, alluxio.name)
    by_address = {
        (r.host, r.rpc_port): key.mod_revision for key, r in seen.live_registrations() if key.lease
    }
    return {
        w.name: by_address[w.hostname, w.rpc_port]
        for w in workers
        if (w.hostname, w.rpc_port) in by_address
    }


def require_live(
    alluxio: AlluxioCluster,
    etcd: Etcd,
    chosen: Sequence[AlluxioWorker],
    *,
    patience: float = 0,
    stale: Mapping[str, int] = MappingProxyType({}),
    ready: bool = False,
    known: Collection[str] = (),
    booting: bool = False,
) -> dict[str, int]:
    """As :func:`live`. Raises :class:`Unhealthy` unless each of the chosen workers is live within
    ``patience`` seconds. A worker that has lost its lease (its member of etcd went away, for
    example) registers again by itself (Alluxio 313, ``ServiceDiscoveryRecipe``).

    With ``ready`` all listeners of the workers must answer, too. If there is ``patience`` at all,
    they have ``start_timeout`` after all are registered: a worker joins before it serves
    (:mod:`provision.alluxio.commands.readiness`), and may just have been started by systemd. The
    workers in ``known`` have just answered, and
    nothing was changed since: they are asked again only after a wait for one that is not live.

    With ``booting``, a worker whose service systemd has just begun, after the host's boot for
    example, has the rest of its ``start_timeout``.

    The revisions in ``stale`` belong to keys that do not count. The wait ends early for a worker
    that systemd starts again and again without success.
    """
    with progress.waiting("workers that register", within=patience, of=len(chosen)) as shown:
        deadline = wait.Deadline(patience)
        crashes = _Crashes(etcd.fleet)
        listeners = None
        if ready:
            serving = alluxio.start_timeout if patience else 0
            listeners = _Listeners(etcd.fleet, alluxio, chosen, serving, crashes, known)
        while True:
            seen: dict[str, int] = {}
            try:
                seen = live(alluxio, etcd, chosen)
            except Unhealthy:  # etcd may change its leader meanwhile, and the workers end for it
                if deadline.passed:
                    raise
                crashes.forget()
            missing = [w for w in chosen if seen.get(w.name, -1) in (-1, stale.get(w.name))]
            shown.left([w.name for w in missing])
            if not missing:
                if listeners is None or listeners.answer():
                    return seen
                shown.what = "registered workers whose ports answer"
                shown.left(listeners.waiting)
                deadline.pause(POLL_SECONDS)
                continue
            late = deadline.passed
            if late and booting:
                booting = False
                if rest := _rest_of_start(etcd.fleet, alluxio, missing):
                    patience += rest
                    shown.within = patience
                    deadline = wait.Deadline(rest)
                    continue
            # A worker with a stale live key is left out: its old lease can keep it from starting.
            why = crashes.told([w for w in missing if w.name not in seen], late=late)
            if late:
                why = (f" after {patience} s" if patience else "") + why
            if late or why:
                raise Unhealthy(
                    f"{share(len(missing), len(chosen), 'worker')} not live{why}",
                    _why(alluxio, etcd, missing),
                    id="worker-not-live",
                )
            if listeners is not None:
                listeners.all_again()
            deadline.pause(POLL_SECONDS)


class _Listeners:
    """The wait for the listeners of registered workers."""

    def __init__(
        self,
        fleet: Fleet,
        alluxio: AlluxioCluster,
        workers: Sequence[AlluxioWorker],
        patience: float,
        crashes: _Crashes,
        known: Collection[str] = (),
    ) -> None:
        self._fleet, self._alluxio, self._all = fleet, alluxio, tuple(workers)
        self._waiting = [w for w in workers if w.name not in known]
        self._patience, self._crashes = patience, crashes
        self._deadline: wait.Deadline | None = None
        self._next = 0.0

    @property
    def waiting(self) -> list[str]:
        """The names of the workers whose listeners have not answered."""
        return [w.name for w in self._waiting]

    def all_again(self) -> None:
        """Earlier answers are old: ask every worker."""
        self._waiting = list(self._all)

    def answer(self) -> bool:
        """Whether all listeners have answered. Raises :class:`Unhealthy` after the deadline."""
        if not self._waiting:
            return True
        if self._deadline is None:
            self._deadline = wait.Deadline(self._patience)
        if time.monotonic() < self._next:
            return False
        seen, problems = readiness.look(self._fleet, self._alluxio, self._waiting)
        self._next = time.monotonic() + READY_LOOK_SECONDS
        self._waiting = [w for w in self._waiting if w.name not in seen or not seen[w.name].ready]
        if not self._waiting:
            return True
        late = self._deadline.passed
        why = f" after {self._patience} s" if late and self._patience else ""
        if not late:
            why = self._crashes.told(self._waiting)
        if late or why:
            logs = last_lines(self._fleet, [w.machine for w in self._waiting if w.name in seen])
            registered = share(len(self._waiting), len(self._all), "worker")
            raise Unhealthy(
                f"{registered} registered, but not ready{why}",
                [
                    *problems,
                    *(
                        Problem(
                            w.place,
                            f"{'; '.join(seen[w.name].notes) or NOT_YET}; its last log lines:\n"
                            f"    {logs[w.machine]}",
                            f"invoke logs {w.name}",
                            id="worker-not-ready",
                        )
                        for w in self._waiting
                        if w.name in seen
                    ),
                ],
                id="worker-not-ready",
            )
        return False


class _Crashes:
    """Finds the workers that systemd starts again and again without success."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._begin = time.monotonic()
        self._next = self._begin + CRASH_LOOK_SECONDS
        self._first: dict[str, int] = {}

    def forget(self) -> None:
        """Count from zero again: the attempts counted so far failed for another reason."""
        self._first = {}
        self._begin = time.monotonic()

    def told(self, workers: Sequence[AlluxioWorker], *, late: bool = False) -> str:
        """The message about the first worker that does not come up; empty when none is known.

        ``late``: the deadline has passed, so even one failed attempt is reported.
        """
        now = time.monotonic()
        if now < self._next and not (late and self._first):
            return ""
        self._next = now + CRASH_LOOK_SECONDS
        for worker, count in _failed_attempts(self._fleet, workers[:CRASH_LOOK_WORKERS]).items():
            # systemd's count restarts at 0 after a run that lasted, and after a start by hand.
            self._first[worker] = min(count, self._first.get(worker, count))
            ended = count - self._first[worker]
            if late and ended:
                return f": {worker} ended by itself {_times(ended)} meanwhile"
            if ended >= CRASHES and now - self._begin >= CRASHES_SECONDS:
                return (
                    f": {worker} ended by itself {_times(ended)}, and systemd's restarts "
                    "do not help"
                )
        return ""


def _failed_attempts(fleet: Fleet, workers: Sequence[AlluxioWorker]) -> dict[str, int]:
    """How many attempts to start each worker have ended by themselves. Only hosts that answer.

    systemd counts an attempt (``NRestarts``) when it begins the next one; until then the unit is
    in ``auto-restart`` (systemd.service(5), ``service_enter_restart`` in its source).
    """

    def count(session: Session) -> str:
        script = f"systemctl show -p NRestarts -p SubState {desired.UNIT}"
        return session.run(script, "restarts", timeout=20).stdout

    said = fleet.map(count, [w.machine for w in workers])
    counts = {w.name: _attempts(str(said[w.machine])) for w in workers}
    return {name: found for name, found in counts.items() if found is not None}


def _attempts(shown: str) -> int | None:
    """The number in the output of ``systemctl show``; None without one."""
    values = dict(line.partition("=")[::2] for line in shown.splitlines())
    restarts = number(values.get("NRestarts", "").strip())
    if restarts is None:
        return None
    return restarts + (values.get("SubState", "").strip() in ("auto-restart", "failed"))


def _rest_of_start(fleet: Fleet, alluxio: AlluxioCluster, workers: Sequence[AlluxioWorker]) -> int:
    """The seconds of ``start_timeout`` that are left to whichever of the workers' services began
    last; 0 when each has had its time, or does not run. Only hosts that answer."""

    def ask(session: Session) -> str:
        return session.run(_BEGAN, "start", timeout=20).stdout

    said = fleet.map(ask, list(dict.fromkeys(w.machine for w in workers)))
    ages = [age for age in map(_age, map(str, said.values())) if age is not None]
    return max(0, alluxio.start_timeout - int(min(ages))) if ages else 0


def _age(shown: str) -> float | None:
    """The seconds for which a service has been active, by the output of :data:`_BEGAN`.

    None when it is not, or when the two clocks are not of one boot: systemd's monotonic time is the
    kernel's, and in some containers the uptime is the container's.
    """
    values = dict(line.partition("=")[::2] for line in shown.splitlines())
    began = number(values.get("ActiveEnterTimestampMonotonic", ""))
    up = number(values.get("Uptime", "").partition(".")[0])
    if values.get("ActiveState") != "active" or not began or up is None:
        return None
    age = up - began / 1e6
    return max(0.0, age) if age > -1 else None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


class RegistrationGate:
    """The gate of workers that are (re)started: each has a live key newer than the start, and its
    listeners answer.

    A killed worker's key stays until its lease ends, so an old live key is not enough. Before a
    start, the workers that the same run restarted earlier (``done``) must still be live.
    """

    def __init__(
        self,
        alluxio: AlluxioCluster,
        etcd: Etcd,
        workers: Sequence[AlluxioWorker],
        done: Sequence[AlluxioWorker] = (),
    ) -> None:
        self._alluxio, self._etcd = alluxio, etcd
        self._workers, self._done = workers, tuple(done)
        self._stale: dict[str, int] = {}
        asked = "etcd says which workers are registered now" if alluxio.membership.in_etcd else ""
        still = f"{named(self._done)} still live" if done else ""
        title = "; ".join(filter(None, (still, asked)))
        self.before = Gate(title, self._note) if title else None
        there = "registered and ready" if alluxio.membership.in_etcd else "answering"
        seconds = self._patience(old=alluxio.membership.in_etcd) + alluxio.start_timeout
        self.after = Gate(f"{counted(len(workers), 'worker')} {there}", self._wait, seconds)

    def _note(self) -> None:
        given = self._alluxio, self._etcd
        if self._done:
            require_live(*given, self._done, patience=self._alluxio.failure_detection_timeout)
        if self._alluxio.membership.in_etcd:
            self._stale = live(*given, self._workers)

    def _wait(self) -> None:
        given = self._alluxio, self._etcd, self._workers
        patience = self._patience(old=bool(self._stale))
        require_live(*given, patience=patience, stale=self._stale, ready=True)

    def _patience(self, *, old: bool) -> int:
        """Seconds until a worker is registered. ``old``: it may have to wait for the end of the
        lease that it had before."""
        alluxio = self._alluxio
        return alluxio.start_timeout + (alluxio.failure_detection_timeout if old else 0)


def _why(alluxio: AlluxioCluster, etcd: Etcd, missing: Sequence[AlluxioWorker]) -> list[Problem]:
    known = join_conflict.explained(alluxio, etcd, missing)
    others = [w for w in missing if w.name not in known]
    logs = last_lines(etcd.fleet, [w.machine for w in others])
    return [
        known.get(w.name)
        or Problem(
            w.place,
            f"is not registered; its log says:\n    {logs[w.machine]}",
            f"invoke logs {w.name}",
            id="worker-not-live",
        )
        for w in missing
    ]


def last_lines(
    fleet: Fleet, machines: Sequence[Machine], unit: str = desired.UNIT
) -> dict[Machine, str]:
    """Why each worker (or another unit) does not come up, according to its journal: see
    :mod:`provision.alluxio.worker.attempt`. Indented for a message."""

    def tail(session: Session) -> str:
        return session.run(attempt.script(unit), "logs", timeout=20).stdout

    return {
        machine: "\n    ".join(attempt.excerpt(printable_lines(str(text)))) or "(no log lines)"
        for machine, text in fleet.map(tail, list(machines)).items()
    }


def _running(facts: HostFacts) -> bool:
    return facts.unit(desired.UNIT).active == "active"


def _registered(
    alluxio: AlluxioCluster, etcd: Etcd
) -> tuple[registrations.RegistrationSnapshot | None, list[Problem]]:
    """The registrations, and the problems that keep workers from joining."""
    if not alluxio.membership.in_etcd:
        return None, []
    login, external = desired.login(alluxio), etcd.cluster.external
    try:
        with etcd.as_worker(login).any() as client:
            seen = registrations.read(client, alluxio.name)
            if login is not None and not client.logged_in:
                what = (
                    "authentication is off, but the workers have a login: then Alluxio "
                    "313 cannot join"
                )
                remedy = "run invoke enable-auth, or set etcd.auth.enabled: false"
                if external:
                    remedy = "remove alluxio.etcd, or have authentication turned on"
                return None, [Problem("etcd", what, remedy, id="auth-differs")]
            mixed = clusters.mixed_up(alluxio.name, clusters.names_as_root(etcd, client), seen)
    except ProvisionError as error:
        found = list(error.problems) or [Problem("etcd", error.message, id=error.id)]
        remedy = "run invoke deploy-etcd, or invoke check-nodes to see what is wrong"
        if external:
            remedy = "check that etcd.external is right, and that this etcd runs"
        return None, [
            *found,
            Problem("etcd", "workers could not register", remedy, id="etcd-not-running"),
        ]
    return seen, mixed


def _rooms(
    alluxio: AlluxioCluster,
    chosen: Sequence[AlluxioWorker],
    tarballs: Artifacts,
    facts: Mapping[Machine, HostFacts],
) -> dict[Machine, list[preflight.SpaceRequirement]]:
    rooms = worker_preflight.release_rooms(alluxio, tarballs, facts)
    for worker in (w for w in chosen if w.machine in facts):
        if state.metastore(alluxio) not in facts[worker.machine].paths:
            rooms.setdefault(worker.machine, []).append(
                preflight.SpaceRequirement(
                    alluxio.state_dir, state.METASTORE_ROOM, "the worker's metastore"
                )
            )
        store = worker.page_store
        away = stores.lost(worker, facts[worker.machine], desired.UNIT_PATH)
        for path, size in zip(store.dirs, store.sizes, strict=True):
            if path in away:
                continue
            known = facts[worker.machine].paths.get(path)
            if known is None:  # an existing page store already takes its own room
                rooms.setdefault(worker.machine, []).append(
                    preflight.SpaceRequirement(
                        path, sizes.size_bytes(size), f"a page store of {size}"
                    )
                )
    return rooms


def named(workers: Sequence[AlluxioWorker]) -> str:
    """The name of the first worker, and how many more there are."""
    more = f" and {len(workers) - 1} more" if len(workers) > 1 else ""
    return f"{workers[0].name}{more}"


def groups(workers: Sequence[AlluxioWorker], size: int) -> list[Sequence[AlluxioWorker]]:
    """``workers`` in groups of ``size``; the last group has the rest."""
    return [workers[i : i + size] for i in range(0, len(workers), size)]
