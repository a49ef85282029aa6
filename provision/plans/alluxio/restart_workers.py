"""``restart-workers``: group by group, each ready again before the next group is touched.

First a file on every host marks the worker's restart as pending, like any other pending restart.
The restart removes the file. So after a run that ended part-way, the same command goes on, and
``status`` shows which workers are left.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from provision.alluxio.commands import readiness
from provision.alluxio.worker import desired
from provision.dataclass import dataclass
from provision.engine import audit
from provision.engine.plan import HostChanges, Plan, Step
from provision.errors import Problem, UsageError
from provision.etcd.cluster.handle import Etcd
from provision.host import gather, preflight
from provision.host.diff import Change, changes
from provision.host.facts import HostFacts, Probe, merged_each, restart_mark
from provision.host.resources import File, Identity
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory, Machine
from provision.plans.alluxio import (
    forget_worker,
    moved,
    start_workers,
    stop_workers,
    worker_preflight,
)
from provision.ssh.session import Fleet
from provision.text import counted, printable

COMMAND = "restart-workers"
#: The commands that note on the hosts which workers they restart.
COMMANDS = (COMMAND, "restore-etcd", "recover-etcd")
MARK = restart_mark(desired.UNIT)


@dataclass(frozen=True, slots=True)
class Standing:
    """How the chosen workers stand, each in the inventory's order.

    ``broken``: the unit does not stay up; or it is up, but the worker is not live or a listener
    does not answer. ``live``: up, live and ready. ``stopped``: somebody stopped the worker, or it
    is not installed; it is left as it is, with a note.
    """

    broken: tuple[AlluxioWorker, ...]
    live: tuple[AlluxioWorker, ...]
    stopped: tuple[AlluxioWorker, ...]

    @property
    def notes(self) -> tuple[Problem, ...]:
        return tuple(
            Problem(
                w.place,
                "is stopped; this command does not start it",
                f"invoke start-workers {w.name} starts it",
                "warning",
                id="worker-left-out",
            )
            for w in self.stopped
        )


def group_size(at_once: str, total: int) -> int | None:
    """How many of ``total`` workers are one group: a count, or a percentage, rounded down.

    The result is at least 1, and None when ``at_once`` is empty. Raises :class:`UsageError`.
    """
    if not at_once:
        return None
    found = re.fullmatch(r"([0-9]{1,6})(%?)", at_once)
    number = int(found[1]) if found else 0
    if found is None or number == 0 or (found[2] and number > 100):
        raise UsageError(
            f"--at-once is a count such as 2, or 1% to 100%; not {at_once!r}", id="option-invalid"
        )
    return max(1, total * number // 100) if found[2] else number


def restart(
    inventory: Inventory,
    alluxio: AlluxioCluster,
    etcd: Etcd,
    chosen: Sequence[AlluxioWorker],
    *,
    at_once: int | None = None,
    afresh: bool = False,
) -> Plan:
    """The plan of ``restart-workers``. Workers that are not live come first: if they do not become
    live, no live worker is touched.

    When an earlier run ended part-way, this restarts only the workers that it left and the workers
    that are not live. With ``afresh`` it restarts every worker.
    """
    facts = _look(inventory, alluxio, chosen, etcd.fleet)
    seen = start_workers.live(alluxio, etcd, chosen)
    stands = standing(alluxio, chosen, facts, seen)
    left = [] if afresh else [w for w in stands.live if noted(facts[w.machine])]
    todo = [*stands.broken, *(left or stands.live)]
    others = _moved(alluxio, etcd, todo, facts)
    share = max(1, len(chosen) // start_workers.RESTART_SHARE)
    steps = in_groups(inventory, alluxio, etcd, todo, others, facts, at_once or share, COMMAND)
    notes = stands.notes
    if left:
        notes = (*notes, _resumed(left, facts, len(stands.live) - len(left)))
    return Plan(COMMAND, inventory.cluster, tuple(steps), notes)


def in_groups(
    inventory: Inventory,
    alluxio: AlluxioCluster,
    etcd: Etcd,
    todo: Sequence[AlluxioWorker],
    others: Sequence[moved.Moved],
    facts: Mapping[Machine, HostFacts],
    size: int,
    command: str,
) -> list[Step]:
    """The steps that restart ``todo`` in groups of ``size``; each group is ready before the next.

    ``others`` are the workers that get another address: their old registrations are removed first.
    The facts come from a probe with :data:`MARK` in it. A run that ends part-way leaves the marks,
    so ``command`` goes on when it is run again, and so does restart-workers.
    """
    steps: list[Step] = []
    unmarked = [w for w in todo if not noted(facts[w.machine])]
    who = audit.author(command, inventory.cluster).who
    note = f'echo "{command} $(date -u +%Y-%m-%dT%H:%M:%SZ)" {shlex.quote(who)} >{MARK}'
    if unmarked and (len(todo) > 1 or others):
        mark = Change("record that the worker needs a restart", note)
        hosts = tuple(HostChanges(w.name, w.machine, (mark,)) for w in unmarked)
        steps.append(Step("record which workers need a restart", hosts, at_once=inventory.parallel))
    done: list[AlluxioWorker] = []
    for some in start_workers.groups(todo, size):
        steps += moved.steps(
            *(inventory, alluxio, etcd, [m for m in others if m.worker in some], facts, command)
        )
        waiting = start_workers.RegistrationGate(alluxio, etcd, some, done)
        done += some
        steps.append(
            Step(
                f"restart {start_workers.named(some)}",
                tuple(HostChanges(w.name, w.machine, _restart(facts[w.machine])) for w in some),
                before=waiting.before,
                after=waiting.after,
                at_once=inventory.parallel,
            )
        )
    return steps


def standing(
    alluxio: AlluxioCluster,
    chosen: Sequence[AlluxioWorker],
    facts: Mapping[Machine, HostFacts],
    live: Mapping[str, int],
) -> Standing:
    """Sort the chosen workers by the answers of systemd, etcd and the workers' own listeners.

    The facts come from a probe with :func:`provision.alluxio.commands.readiness.probes` in it.
    """
    broken, good, stopped = [], [], []
    for w in chosen:
        unit = facts[w.machine].unit(desired.UNIT)
        began = bool(noted(facts[w.machine]))  # a run that ended part-way may have stopped it
        if unit.load == "not-found" or (unit.active == "inactive" and not began):
            stopped.append(w)
        elif (
            unit.active == "active"
            and w.name in live
            and readiness.of(alluxio, w, facts[w.machine]).ready
        ):
            good.append(w)
        else:
            broken.append(w)
    return Standing(tuple(broken), tuple(good), tuple(stopped))


def _look(
    inventory: Inventory, alluxio: AlluxioCluster, chosen: Sequence[AlluxioWorker], fleet: Fleet
) -> dict[Machine, HostFacts]:
    identity = Identity(desired.identity_file(alluxio), alluxio.user, "")
    files = (File(desired.UNIT_PATH, None), File(MARK, None), identity)
    probe = Probe(resources=files, units=(desired.UNIT,))
    asked = readiness.probes(alluxio, chosen)
    probes = merged_each(dict.fromkeys(asked, probe), asked)
    facts = gather.require_facts(fleet, probes)
    stop_workers.require_ours(inventory, chosen, facts)
    return facts


def _moved(
    alluxio: AlluxioCluster,
    etcd: Etcd,
    workers: Sequence[AlluxioWorker],
    facts: Mapping[Machine, HostFacts],
) -> list[moved.Moved]:
    """The workers that register another address than the entry's at their next start: they are
    not live, the entry is older than their live key, or new files were written since their start.

    Raises :class:`PreflightFailed` when one of ``workers`` has the identity of another worker.
    """
    problems = worker_preflight.cloned(alluxio, workers, facts)
    known = [desired.identity(alluxio, facts[w.machine]) for w in workers]
    if not alluxio.membership.in_etcd or not any(known):
        preflight.require(problems)
        return []
    seen = forget_worker.look(alluxio, etcd)
    found = moved.found(alluxio, workers, facts, seen)

    def written(worker: AlluxioWorker) -> bool:
        its = facts[worker.machine]
        return desired.UNIT in its.pending_restarts and not noted(its)

    others = [m for m in found if not m.live or written(m.worker) or moved.outdated(m, seen)]
    problems += moved.twins(alluxio, etcd.fleet, workers, others, facts, seen)
    preflight.require(problems)
    return others


def noted(facts: HostFacts) -> str:
    """The note of an earlier run. Empty without a note, and when the restart is pending for another
    reason."""
    text = (facts.text(MARK) or "").strip()
    return text if text.partition(" ")[0] in COMMANDS else ""


def _restart(facts: HostFacts) -> tuple[Change, ...]:
    pending = facts.pending_restarts | {desired.UNIT}
    return changes((desired.running(),), replace(facts, pending_restarts=pending))


def _resumed(
    left: Sequence[AlluxioWorker], facts: Mapping[Machine, HostFacts], others: int
) -> Problem:
    since = printable(noted(facts[left[0].machine]).partition(" ")[2], 100)
    rest = counted(len(left), "worker is", "workers are")
    what = f"continues the run of {since}: {rest} left, {others} done"
    return Problem(COMMAND, what, "--afresh restarts all of them", "warning", id="run-resumed")
