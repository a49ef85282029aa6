"""Plans: an ordered list of small, named, health-gated steps, and the runner that applies them.

Every task works the same way: it makes a plan from the desired state and the observed state, shows
the plan, and applies it. A step changes all its hosts at the same time. The next step begins only
when the step's gate holds. After a kill at any point, a new plan finishes the work.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict

from provision import artifacts, progress
from provision.dataclass import dataclass
from provision.engine.affected import Affected, AffectedDocument, affected
from provision.engine.guards import Guard
from provision.errors import ChangeFailed, Problem, ProblemDocument, ProvisionError
from provision.host.diff import (
    ANSWERED,
    BATCH_LOCK_SECONDS,
    DONE,
    Change,
    answered,
    batch,
    questions,
)
from provision.host.effects import Effect
from provision.host.resources import Refusal
from provision.ids import Id
from provision.inventory.resolved import Machine
from provision.ssh.session import DEFAULT_TIMEOUT, Fleet, Result, Session, failures
from provision.text import counted, printable_lines

if TYPE_CHECKING:
    from provision.engine import audit

#: Tarball bytes per second that even the slowest host hashes and unpacks.
UNPACK_BYTES_PER_SECOND = 5e6
#: How many steps that have not begun, and how many hosts of each, a failure names.
NOT_BEGUN = 30
#: What ends something that runs, beside the services that are stopped.
ENDING = frozenset({Effect.REMOVAL, Effect.ETCD_GONE, Effect.ETCD_BACK})


class ChangeDocument(TypedDict):
    """A change on a host; ``diff`` is empty when there is none to show."""

    what: str
    diff: str


class HostDocument(TypedDict):
    """The changes of a step on one host; ``name`` is the member's or the worker's."""

    name: str
    host: str
    changes: list[ChangeDocument]


class StepDocument(TypedDict):
    """A step: its changes on hosts, what it changes in etcd (``calls``), and what it waits for."""

    title: str
    gate: str | None
    calls: list[str]
    hosts: list[HostDocument]


class PlanDocument(TypedDict):
    """A plan. ``changed`` counts its changes."""

    schema: Literal["alluxio-provision/plan/1"]
    command: str
    cluster: str
    changed: int
    notes: list[ProblemDocument]
    affected: list[AffectedDocument]
    steps: list[StepDocument]


@dataclass(frozen=True, slots=True)
class HostChanges:
    """The changes of one step on one host. ``name`` is the name of the member or worker."""

    name: str
    machine: Machine
    changes: tuple[Change, ...]

    @property
    def place(self) -> str:
        """``NAME at HOST (LINE)``: where a problem of the role is."""
        return self.machine.place_of(self.name)


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition a step waits for. ``check`` returns, or raises a :class:`ProvisionError`.

    ``seconds``: how long a service that the step stops or starts may serve nobody meanwhile; 0
    where the service's start itself waits until it serves.
    """

    title: str
    check: Callable[[], None]
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Action:
    """A change in etcd itself, not on a host, such as adding a member.

    ``do`` must be safe to repeat: after a kill, the command is run again.
    """

    what: str
    do: Callable[[], None]
    effects: tuple[Effect, ...] = (Effect.ETCD,)


@dataclass(frozen=True, slots=True)
class Step:
    """A step changes its hosts, all at once, and then makes its calls, one by one."""

    title: str
    hosts: tuple[HostChanges, ...] = ()
    calls: tuple[Action, ...] = ()
    before: Gate | None = None
    after: Gate | None = None
    #: How many hosts are changed at the same time. None means all: members that start together wait
    #: for each other.
    at_once: int | None = None

    @property
    def changed(self) -> int:
        return sum(len(h.changes) for h in self.hosts) + len(self.calls)

    @property
    def effects(self) -> frozenset[Effect]:
        """What the step does, by its changes and calls."""
        changes = [change.every_effect for host in self.hosts for change in host.changes]
        return frozenset().union(*changes, *(call.effects for call in self.calls))


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes that a command would make. Empty ``steps``: everything is as declared."""

    command: str
    cluster: str
    steps: tuple[Step, ...] = ()
    notes: tuple[Problem, ...] = field(default=())
    #: Machines without changes that another run must still leave alone: if two runs each restart
    #: one member of the same cluster, the cluster could lose its quorum.
    guards: tuple[Machine, ...] = ()
    #: Differences from the inventory that stay until an option asks for their change.
    left: tuple[Problem, ...] = ()
    #: Guards that the plan itself is the remedy for: a new CA needs no old one.
    waives: tuple[Guard, ...] = ()

    @property
    def changed(self) -> int:
        return sum(step.changed for step in self.steps)

    @property
    def effects(self) -> frozenset[Effect]:
        """What the plan does. Its guards follow from it: :mod:`provision.engine.guards`."""
        return frozenset().union(*(step.effects for step in self.steps))

    @property
    def machines(self) -> tuple[Machine, ...]:
        """Every machine whose run lock the plan takes."""
        changed = (h.machine for step in self.steps for h in step.hosts)
        return tuple(dict.fromkeys((*changed, *self.guards)))

    @property
    def affected(self) -> tuple[Affected, ...]:
        """The services that the plan stops or restarts. A plan that disturbs a member of etcd locks
        every member."""
        return affected(self.steps, len({*self.guards}))

    @property
    def ends_something(self) -> bool:
        """Whether a step restarts, stops or removes something that runs."""
        return bool(self.affected) or not ENDING.isdisjoint(self.effects)

    def document(self) -> PlanDocument:
        """The plan for ``--format json``."""
        return {
            "schema": "alluxio-provision/plan/1",
            "command": self.command,
            "cluster": self.cluster,
            "changed": self.changed,
            "notes": [note.document() for note in (*self.notes, *self.left)],
            "affected": [service.document() for service in self.affected],
            "steps": [
                {
                    "title": step.title,
                    "gate": step.after.title if step.after else None,
                    "calls": [call.what for call in step.calls],
                    "hosts": [
                        {
                            "name": host.name,
                            "host": host.machine.host,
                            "changes": [{"what": c.what, "diff": c.diff} for c in host.changes],
                        }
                        for host in step.hosts
                    ],
                }
                for step in self.steps
            ],
        }


class Watcher(Protocol):
    """Observes the application of a plan. The screen is a watcher; a test uses a list."""

    def step(self, number: int, of: int, step: Step) -> None: ...
    def upload(self, host: HostChanges, size: int, sent: int) -> None: ...
    def host(self, host: HostChanges, error: ProvisionError | None) -> None: ...
    def gate(self, gate: Gate) -> None: ...


class Quiet:
    """A :class:`Watcher` that shows nothing."""

    def step(self, number: int, of: int, step: Step) -> None: ...
    def upload(self, host: HostChanges, size: int, sent: int) -> None: ...
    def host(self, host: HostChanges, error: ProvisionError | None) -> None: ...
    def gate(self, gate: Gate) -> None: ...


def apply(plan: Plan, fleet: Fleet, watcher: Watcher | None = None) -> None:
    """Apply ``plan`` under the run lock of every machine it changes.

    Raises :class:`provision.errors.Locked` when another run holds a lock (nothing is changed).
    Raises :class:`ChangeFailed` when a step or its gate fails: the message names the step, and
    later steps have not begun.
    """
    if not plan.steps:
        return
    # A run without changes, the most frequent one, needs neither.
    from provision.engine import audit, lock

    watcher = watcher or Quiet()
    by = audit.author(plan.command, plan.cluster)
    with lock.held(fleet, plan.machines, plan.command) as still_locked:
        for number, step in enumerate(plan.steps, 1):
            still_locked()
            watcher.step(number, len(plan.steps), step)
            where = f"step {number} of {len(plan.steps)} ({step.title})"
            try:
                _gate(step.before, watcher, f"before {where}", begun=number > 1)
                _run(step, fleet, watcher, where, by)
                _call(step, where, by)
                _gate(step.after, watcher, f"after {where}", begun=True)
            except ChangeFailed as error:
                later = _not_begun(plan.steps[number:])
                raise ChangeFailed(error.message, (*error.problems, *later), id=error.id) from error


def _not_begun(steps: Sequence[Step]) -> tuple[Problem, ...]:
    """The steps that have not begun because of a failure, with their hosts."""
    if not steps:
        return ()
    said = []
    for step in steps[:NOT_BEGUN]:
        names = [host.name for host in step.hosts]
        shown = ", ".join(names[:NOT_BEGUN]) + (", ..." if len(names) > NOT_BEGUN else "")
        said.append(step.title if len(names) < 2 else f"{step.title} ({shown})")
    if len(steps) > NOT_BEGUN:
        said.append(f"and {counted(len(steps) - NOT_BEGUN, 'more step')}")
    return (Problem("not begun", "; ".join(said), severity="warning", id="not-begun"),)


@contextlib.contextmanager
def further(what: str) -> Iterator[None]:
    """For planning and applying ``what``, the next part of a command that has changed hosts
    already.

    Every error of this part is raised as :class:`ChangeFailed`.
    """
    try:
        yield
    except ChangeFailed:
        raise
    except ProvisionError as error:
        raise ChangeFailed(
            f"stopped before {what}: {error.message}; solve the problem, then run the same "
            "command again",
            error.problems,
            id=error.id,
        ) from error


def _gate(gate: Gate | None, watcher: Watcher, where: str, *, begun: bool) -> None:
    if gate is None:
        return
    watcher.gate(gate)
    try:
        with progress.waiting(gate.title):
            gate.check()
    except ProvisionError as error:
        if not begun:
            raise
        raise ChangeFailed(
            f"stopped {where}: {error.message}; run the same command again to continue",
            error.problems,
            id=error.id,
        ) from error


def _call(step: Step, where: str, by: audit.Author) -> None:
    from provision.engine import audit

    for call in step.calls:
        try:
            with progress.waiting(call.what):
                call.do()
        except ProvisionError as error:
            audit.note(by, "etcd", [call.what], ok=False)
            raise ChangeFailed(
                f"stopped in {where}: {call.what}: {error.message}; solve the problem, then run "
                "the same command again",
                error.problems,
                id=error.id,
            ) from error
        audit.note(by, "etcd", [call.what], ok=True)


def _run(step: Step, fleet: Fleet, watcher: Watcher, where: str, by: audit.Author) -> None:
    from provision.engine import audit

    by_machine = {host.machine: host for host in step.hosts}

    def work(session: Session) -> None:
        host = by_machine[session.machine]
        titles = [change.what for change in host.changes]
        try:
            _apply_host(session, host, watcher, audit.lines(by, host.name, titles))
        except ProvisionError as error:
            audit.note(by, host.name, titles, ok=False)
            watcher.host(host, error)
            raise
        audit.note(by, host.name, titles, ok=True)
        watcher.host(host, None)

    results = fleet.map(work, list(by_machine), at_once=step.at_once or len(by_machine))
    problems = failures(results)
    if problems:
        raise ChangeFailed(
            f"stopped in {where}: {len(problems)} of {counted(len(step.hosts), 'host')} failed, "
            "later steps have not begun; solve the problem, then run the same command again",
            problems,
            id="change-failed",
        )


def _apply_host(session: Session, host: HostChanges, watcher: Watcher, audited: str) -> None:
    where = host.place
    for change in host.changes:
        tree = change.upload
        if tree is None:
            continue
        name, size = tree.artifact.path.name, tree.artifact.size

        def progress(count: int, size: int = size) -> None:
            watcher.upload(host, size, count)

        try:
            body = tree.artifact.path.open("rb")
        except OSError as error:
            what = f"{tree.artifact.path} cannot be read: {error.strerror}"
            raise ChangeFailed(
                f"{where}: {what}",
                [Problem(where, what, id="tarball-unavailable")],
                id="tarball-unavailable",
            ) from error
        with body:
            timeout = DEFAULT_TIMEOUT + size / UNPACK_BYTES_PER_SECOND
            result = session.feed(
                tree.receive(), body, f"upload {name}", timeout=timeout, on_bytes=progress
            )
        if not result.ok:
            raise _failed(where, change.what, result)
        artifacts.remember(tree.artifact, artifacts.default_cache())
    todo = [change for change in host.changes if change.script or change.ask]
    if not todo:
        return
    if asked := questions(todo):
        result = session.run(asked, "ask")
        if not result.ok:
            asking = [change.what for change in todo if change.ask]
            done = len(re.findall(rf"^{ANSWERED} \d+$", result.stdout, re.MULTILINE))
            raise _failed(where, asking[done] if done < len(asking) else "ask", result)
        todo = answered(todo, result.stdout)
    result = session.run(
        batch(todo, audited),
        "apply",
        timeout=sum(change.seconds for change in todo) + BATCH_LOCK_SECONDS + 60.0,
    )
    if not result.ok:
        done = len(re.findall(rf"^{DONE} \d+$", result.stdout, re.MULTILINE))
        if done < len(todo):
            raise _failed(where, todo[done].what, result, todo[done].refusals)
        raise _failed(where, "apply", result)


#: What strerror(3) says of ENOSPC, which stands for a file system without free inodes, too
#: (open(2), mkdir(2)), and of EDQUOT; and the remedies.
_FULL = {
    "No space left on device": "free space there (df -h) or inodes (df -i), then run again",
    "Disk quota exceeded": "raise the quota there, or remove files, then run again",
}


def _failed(
    where: str, what: str, result: Result, refusals: Sequence[Refusal] = ()
) -> ChangeFailed:
    lines = printable_lines(result.stderr, last=12) or [f"exit code {result.code}"]
    remedy = ""
    id: Id = "change-failed"
    for says, cure in _FULL.items():
        if says in result.stderr:
            remedy, id = cure, "disk-full"
    for refusal in refusals:
        if refusal.says in result.stderr:
            remedy, id = refusal.remedy, refusal.id
    tail = "\n    ".join(lines)
    return ChangeFailed(
        f"{where}: {what} failed", [Problem(where, f"{what} failed: {tail}", remedy, id=id)], id=id
    )
