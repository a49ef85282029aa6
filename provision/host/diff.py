"""The smallest change from a host's facts to its desired state, and that change as a batch.

:func:`changes` is pure; :func:`batch` turns its result into one shell script. Every change is
complete or absent (a file is written beside the old one, then renamed). So after a kill at any
point, a new plan and run finish the batch.
"""

from __future__ import annotations

import abc
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field, replace
from typing import Protocol

from provision.artifacts import Artifact
from provision.dataclass import dataclass
from provision.host import safely, tool_version
from provision.host.effects import Effect
from provision.host.facts import (
    BATCH_LOCK,
    HostFacts,
    Observable,
    Place,
    restart_mark,
    state_file,
)
from provision.host.predict import in_order
from provision.ids import Id

DONE, ANSWERED = "@@done", "@@answered"
#: The first line of a diff of a new file.
NEW = "--- /dev/null\n"
#: What is in the lock while a batch works, and after its last change. An observer asks for a lock
#: without the second one: a process less for most looks. Earlier versions of this tool empty the
#: file when they take the lock, and leave it so.
WORKS, ENDED = "works", "ended"
#: Takes away the file that is being written, when the batch is cut off.
AWAY = '[ -z "$t" ] || [ ! -e "$t" ] || rm -f "$t"'
#: Seconds that a batch waits for the batch of a killed run to end.
BATCH_LOCK_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Refusal:
    """The text ``says`` that a service logs when it does not start for a known reason."""

    says: str
    remedy: str
    id: Id


class Upload(Protocol):
    """A tarball that is sent to the host, and the command there that unpacks it at ``path``."""

    @property
    def path(self) -> str: ...
    @property
    def artifact(self) -> Artifact: ...
    def receive(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Change:
    """One change on one host. ``script`` makes it; ``upload`` is sent before the batch.

    With ``ask`` and ``answer``, the script depends on the host: the script ``ask`` runs before the
    batch, and ``answer`` turns its output into the script. ``stops`` and ``starts`` are units of
    systemd; a restart has its unit in both.
    """

    what: str
    script: str = ""
    diff: str = ""
    upload: Upload | None = None
    restarts: tuple[str, ...] = ()
    disrupts: bool = False
    seconds: int = 60
    ask: str = ""
    answer: Callable[[str], str] | None = field(default=None, compare=False)
    refusals: tuple[Refusal, ...] = ()
    stops: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    #: What it does besides what :attr:`every_effect` can see.
    effects: tuple[Effect, ...] = ()

    @property
    def every_effect(self) -> frozenset[Effect]:
        """Every effect of the change. It changes a host in any case."""
        disturbs = () if self.non_disruptive else (Effect.SERVICE,)
        return frozenset((Effect.HOST, *disturbs, *self.effects))

    @property
    def non_disruptive(self) -> bool:
        """Whether no running service notices the change: it can be made on all hosts at the same
        time."""
        return not (self.restarts or self.disrupts)


def to_running(todo: Iterable[Change], unit: str) -> str:
    """The verb for ``todo`` on hosts where ``unit`` runs: ``restart``, or ``change`` when it goes
    on as it is."""
    return "restart" if any(unit in change.starts for change in todo) else "change"


def to_others(todo: Iterable[Change]) -> str:
    """The verb for ``todo`` on hosts where no unit runs: they may have the release already."""
    return "install and start" if any(change.upload for change in todo) else "start"


class Resource(Observable):
    """A thing that can be declared for a host: a plain value, without a connection.

    A kind of resource is one subclass: what to look at, what changes, and the facts after it.
    """

    __slots__ = ()

    @abc.abstractmethod
    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        """The changes, in order, that make it true. It is not true in ``facts``.

        ``before`` is the host before the changes of the other resources. A resource that is made
        true ``last`` is asked in any case: what was written since may concern it.
        """


def changes(resources: Iterable[Resource], facts: HostFacts) -> tuple[Change, ...]:
    """The changes, in order, that make ``resources`` true. Empty when they are true already.

    A unit is restarted at most once, after everything it depends on has been changed.
    """
    before = facts
    found: list[Change] = []
    for resource in in_order(resources):
        then = resource.after(facts)
        if then is not facts or resource.last:
            place = resource.place()
            found += [_with_tree(c, place, found) for c in resource.change(facts, before)]
        facts = then
    return tuple(found)


def _with_tree(change: Change, place: Place | None, earlier: Sequence[Change]) -> Change:
    """``change`` at ``place``, in the step that replaces the tree around it.

    If an earlier step wrote the file, it would be removed with the old tree.
    """
    restarts = [
        unit
        for other in earlier
        if other.upload and place and place.path.startswith(f"{other.upload.path}/")
        for unit in other.restarts
    ]
    return replace(change, restarts=tuple(dict.fromkeys((*change.restarts, *restarts))))


def batch(todo: Sequence[Change], audit: str = "") -> str:
    """One shell script that makes the changes ``todo`` in order and stops at the first failure.

    ``audit`` comes before the first change (:func:`provision.engine.audit.lines`). The script
    prints ``@@done N`` after the N-th change (from 0), so a failure names its change.
    """
    lines = [
        "set -e",
        "umask 022",  # mktemp makes files, with mode 0600 under any umask
        state_file(BATCH_LOCK),
        f"exec 9>>{BATCH_LOCK}",
        f"timeout {BATCH_LOCK_SECONDS} flock 9 || {{",  # busybox's flock has no -w
        '  echo "a batch of an earlier run is still running" >&2',
        "  exit 1",
        "}",
        f"echo {WORKS} >{BATCH_LOCK} || :",
        tool_version.note(),
        safely.FUNCTIONS,
    ]
    for unit in dict.fromkeys(u for change in todo for u in change.restarts):
        lines.append(f"touch {shlex.quote(restart_mark(unit))}")
    lines.append("t=  # the file that is being written: it goes when the batch is cut off")
    if audit:
        lines.append(audit)
    else:
        lines += [f"trap '{AWAY}' EXIT", "trap 'exit 129' HUP", "trap 'exit 141' PIPE"]
    for number, change in enumerate(todo):
        if change.script:
            lines.append(change.script)
        lines.append(f"audit_done={number + 1}; echo {DONE} {number}")
    # An earlier version that waits for the lock has emptied it, and its batch works from now on.
    lines.append(f"mark=; read -r mark <{BATCH_LOCK} || :")
    lines.append(f'[ "$mark" != {WORKS} ] || echo {ENDED} >{BATCH_LOCK} || :')
    return "\n".join(lines)


def questions(todo: Sequence[Change]) -> str:
    """One shell script with the questions of ``todo`` to the host; empty without questions.

    A question may make a key on the host, so the script changes the host.
    """
    asked = [(n, change) for n, change in enumerate(todo) if change.ask]
    lines = [f"( {change.ask}\n) || exit 1\necho {ANSWERED} {n}" for n, change in asked]
    return "\n".join([tool_version.note(), safely.FUNCTIONS, *lines]) if lines else ""


def answered(todo: Sequence[Change], output: str) -> list[Change]:
    """``todo`` with the scripts that the output of :func:`questions` gives."""
    done: list[Change] = []
    rest = output
    for n, change in enumerate(todo):
        if change.answer is not None:
            said, _, rest = rest.partition(f"{ANSWERED} {n}\n")
            change = replace(change, script=change.answer(said))
        done.append(change)
    return done
