"""Common parts of the commands: load the inventory, ask for consent, carry out the plan."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from provision.cli import confirm
from provision.cli.run import Run
from provision.dataclass import dataclass
from provision.errors import UsageError
from provision.ids import Id
from provision.text import counted

if TYPE_CHECKING:
    from provision.cli.documents import Extra, Finished
    from provision.engine.plan import Plan
    from provision.etcd.cluster.guard import Probes
    from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory

#: Help of options that several commands have.
LIMIT = "Names with commas, ranges, * and ?: 'worker[001-020],edge*'; '!edge7' is left out."
UNREACHABLE = "Do without so many workers' hosts that cannot be reached: they are named, exit 1."
BATCH = "K/N: the Kth of N equal shares of them, so that N runs can share the work."
ALL = "Show a row for each, also of more than 30 on a terminal."
WIDE = "Show every column on one line, also where the terminal is narrower."
READ = "A file in Alluxio: read at most 1 MiB of it through a worker, and say which one served it."
TAKE_OVER = "Folders of the inventory to take although others use them. With commas."
LOCK_OUT = "Other clusters in this etcd, whose live workers may lose it. With commas."
UNKNOWN = "The cluster's name: no other cluster needs what goes, when etcd cannot say."
NO_WORKERS = "Leave the workers' etcd endpoints as they are, and say that they are stale."

#: What an unreachable host's error must be for --allow-unreachable.
SILENT: tuple[Id, ...] = ("host-unreachable", "name-unresolved")

#: Commands on workers: they change no member.
WORKERS = frozenset(
    {
        "start-workers",
        "restart-workers",
        "upgrade-workers",
        "rollback-workers",
        "decommission-worker",
        "forget-worker",
        "readmit-worker",
    }
)


def load(run: Run, *then: str, plans: Probes | None = None) -> Inventory:
    """Load the inventory, and find out which cluster it is, if the command must know.

    While the hosts answer, a thread imports what the command needs ``then``: etcd's client
    libraries, and these modules. ``plans``: what the plan needs of the members' hosts
    (:mod:`provision.etcd.cluster.guard`).
    """
    inventory = run.inventory
    warn(run)
    if run.guarded:
        return _establish(run, inventory, then, plans)
    _import(*then)
    return inventory


def _import(*modules: str) -> None:
    """Import etcd's client libraries and ``modules`` in a thread."""
    threading.Thread(target=_preload, args=modules, name="preload", daemon=True).start()


def _preload(*modules: str) -> None:
    from provision.etcd.api import client

    with contextlib.suppress(Exception):  # it comes again, where the module is used
        client.preload()
        for module in modules:
            import_module(module)


def load_own_etcd(run: Run, *then: str, plans: Probes | None = None) -> Inventory:
    """As :func:`load`. Raises :class:`UsageError` with an external etcd."""
    require_own_etcd(run)
    return load(run, *then, plans=plans)


def require_own_etcd(run: Run) -> Inventory:
    """The inventory, before any host is contacted. Raises as :func:`load_own_etcd`."""
    if run.inventory.etcd.external:
        raise UsageError(
            f"{run.inventory.path}: etcd.external says that another inventory or tool manages this "
            f"etcd: {run.command} needs the inventory that declares its members",
            id="command-not-applicable",
        )
    return run.inventory


def agrees(inventory: Inventory, word: str) -> bool:
    """Whether the operator has agreed that other clusters are unknown. ``word`` is the option's
    value; what the question needs is imported only for an answer. Raises :class:`UsageError`."""
    if not word:
        return False
    from provision.plans.etcd.state import other_clusters

    return other_clusters.agrees(inventory, word)


def _establish(
    run: Run, inventory: Inventory, then: Sequence[str], plans: Probes | None
) -> Inventory:
    """The inventory with the etcd cluster that this command works on: see :mod:`guard`.

    Commands on workers also look at the members' hosts, for the last run's note. The workers'
    operator may have no access to these hosts. Then only the members' answers count, and a serving
    group without a majority of the declared members is refused. Workers that do not register in
    etcd need none, except for keys that are left in etcd.
    """
    run.established = True
    alluxio = inventory.alluxio
    for_workers = run.command in WORKERS
    asks_etcd = alluxio is not None and (
        alluxio.membership.in_etcd or run.command == "forget-worker"
    )
    if for_workers and not asks_etcd:
        from provision.engine.guards import Guard

        run.etcd(inventory.etcd).learned.passed.add(Guard.UNFINISHED)  # they do not use etcd
        return inventory
    if not inventory.etcd.external:
        run.fleet.begin([m.machine for m in inventory.etcd.members])
    from provision.etcd.cluster import guard

    _import(*then)
    login = None
    if for_workers and alluxio is not None:
        from provision.alluxio.worker import desired
        from provision.etcd.api.login import root_login

        if root_login(inventory.etcd) is None:
            login = desired.login(alluxio)
    established = guard.establish(
        inventory,
        run.etcd(inventory.etcd).as_worker(login),
        run.cluster_id,
        starts=run.command == "deploy-etcd",
        plans=plans,
    )
    run.found = established.etcd
    return established


def load_alluxio(run: Run) -> tuple[Inventory, AlluxioCluster]:
    inventory = load(run)
    if inventory.alluxio is None:
        raise UsageError(f"{inventory.path}: has no 'alluxio' section", id="section-missing")
    return inventory, inventory.alluxio


def reachable(run: Run, workers: Sequence[AlluxioWorker], text: str) -> tuple[AlluxioWorker, ...]:
    """The workers without those whose hosts cannot be reached, when these are not more than
    ``text`` allows. The others are noted in ``run.left_out``: the command ends with 1.

    Only a host that does not answer is left out, never one with another host key or without a
    login, and never the host of a member. Raises :class:`UsageError` when ``text`` is no count, and
    :class:`PreflightFailed` with all hosts when too many cannot be reached.
    """
    from provision.errors import PreflightFailed
    from provision.ssh.session import MANY, Session, Unreachable

    if not text:
        return tuple(workers)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1_000_000):
        what = f"--allow-unreachable is how many hosts, not {text!r}"
        raise UsageError(what, id="option-invalid")
    machines = list(dict.fromkeys(w.machine for w in workers))

    def reach(session: Session) -> None:
        session.open()
        if len(machines) > MANY:
            session.rest()

    answers = run.fleet.map(reach, machines)
    failed = {m: e for m, e in answers.items() if isinstance(e, Unreachable)}
    members = {m.machine for m in run.inventory.etcd.members}
    never = [e for m, e in failed.items() if e.id not in SILENT or m in members]
    if never or len(failed) > int(text):
        raise PreflightFailed(
            f"{len(failed)} of {counted(len(machines), 'host')} cannot be worked on",
            [problem for e in (never or failed.values()) for problem in e.problems],
            id="preflight-failed",
        )
    left = tuple(w for w in workers if w.machine not in failed)
    if not left:
        raise PreflightFailed(
            "no host can be reached",
            [problem for e in failed.values() for problem in e.problems],
            id="preflight-failed",
        )
    run.left_out = [problem for e in failed.values() for problem in e.problems]
    return left


def names(text: str) -> list[str]:
    """The names in the value of an option, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def taken_over(text: str, folders: Collection[str]) -> frozenset[str]:
    """The folders that ``--take-over`` names.

    Raises :class:`UsageError` when one of them is not among the inventory's ``folders``.
    """
    named = frozenset(names(text))
    if unknown := sorted(named.difference(folders)):
        raise UsageError(
            f"--take-over names {', '.join(unknown)}, but the inventory has "
            f"{', '.join(sorted(folders))}",
            id="option-invalid",
        )
    return named


def require_workers_not_newer(run: Run, inventory: Inventory) -> None:
    """For a command that looks at the workers' hosts only after it has changed etcd.

    Raises :class:`PreflightFailed` when a newer version of this tool last changed one of these
    hosts. Hosts that cannot be asked are left out.
    """
    from provision.host import gather
    from provision.host.facts import Probe

    if inventory.alluxio is not None:
        probes = {w.machine: Probe() for w in inventory.alluxio.workers}
        gather.gather_facts(run.fleet, probes)


def warn(run: Run) -> None:
    confirm.tell(run, run.loaded.warnings)


@dataclass(frozen=True, slots=True)
class Consent:
    """The cluster's name (or a host's name) as the operator's consent to a change that cannot be
    undone.

    ``given`` comes from ``option``; without it the operator is asked, with the text ``what``.
    ``done`` is the participle of the command's verb.
    """

    name: str
    given: str
    done: str
    what: str
    option: str
    noun: str = "cluster"

    def require_possible(self, run: Run) -> None:
        """Raises :class:`UsageError` when nobody can be asked, or the given name is wrong."""
        if not run.dry_run and (self.given or not sys.stdin.isatty()):
            self._require(self.given)

    def require(self, run: Run, plan: Plan) -> None:
        """Ask for the name, below the plan. Raises :class:`UsageError` when it is not given, and
        :class:`confirm.Again` after the right answer."""
        if run.dry_run:
            return
        if self.given:
            self._require(self.given)
            run.consented = True  # also of what follows a plan without steps
        if not plan.steps:
            return
        given = self.given
        if not given and sys.stdin.isatty():
            if not confirm.is_agreed(run, plan):
                prompt = f"{self.what}. Type {self.name} to continue: "
                self._require(confirm.ask(run, plan, prompt))
                confirm.again(run, plan)
            given = self.name
        self._require(given)
        run.consented = True

    def _require(self, given: str) -> None:
        if given != self.name:
            raise UsageError(
                f"not {self.done}: the {self.noun} is called {self.name}"
                + ("" if given else f"; say {self.option} and its name"),
                id="consent-missing",
            )


def carry_out(run: Run, plan: Plan) -> bool:
    """Show the plan and, unless this is a dry run, apply it. Returns whether it was applied."""
    from provision.cli import console
    from provision.engine import plan as plans

    if run.guarded and not run.established:
        raise AssertionError(f"{run.command} changes hosts without knowing which cluster it is")
    if plan.steps:
        plan = _guarded(run, plan)
    run.plans.append(plan)
    confirm.tell(run, (*run.version_notes(), *plan.notes, *plan.left))
    if run.dry_run and plan.left:
        run.drifted = True
    if not plan.steps:
        return False
    confirm.settle(run, plan)
    if run.dry_run:
        run.drifted = True
        return False
    run.agreed = None  # it is no answer to what else the command may do
    run.applying = True
    with console.Progress() as progress:
        plans.apply(plan, run.fleet, progress)
    if not run.changed:
        run.earlier.append(run.command)
    run.applying, run.changed = False, True
    if run.guarded and run.command not in WORKERS:
        note(run)
    return True


def _guarded(run: Run, plan: Plan) -> Plan:
    """``plan``, with every guard of its steps asked, and with every machine that it must lock."""
    from provision.plans import proofs

    alluxio = run.inventory.alluxio
    subject = proofs.Subject(
        run.command,
        run.etcd(run.found or run.inventory.etcd),
        run.established,
        leases=alluxio is not None and alluxio.membership.in_etcd,
    )
    return proofs.require(plan, subject)


def note(run: Run) -> None:
    """Note the cluster's present state on the members' hosts; the next run compares it."""
    from provision.cli import console
    from provision.etcd.cluster import last_seen

    console.problems(last_seen.take(run.etcd(run.found or run.inventory.etcd)))


def finish(run: Run, plan: Plan, carried: bool, extra: Extra | None = None, line: str = "") -> None:
    from provision import terminal

    done = plan.changed if carried else 0
    if run.json:
        finished: Finished = {"applied": carried}
        if run.dry_run:
            finished["would_change"] = plan.changed
        if run.left_out:
            finished["left_out"] = [problem.document() for problem in run.left_out]
        whole = {**plan.document(), "changed": done, **finished, **(extra or {})}
        terminal.emit_json(run.document(whole))
        return
    if run.dry_run and plan.steps:
        terminal.say(f"{plan.changed} would change; nothing was changed (--dry-run)")
        return
    terminal.say(f"{done} changed" + (f"; {line}" if line else ""))
