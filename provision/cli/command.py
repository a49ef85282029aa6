"""One run of a command: its options, inventory, SSH fleet, output, and exit code.

:func:`command` makes an Invoke task of a function that takes a :class:`Run`, so every task has
the same options, error lines and exit codes.
"""

from __future__ import annotations

import functools
import inspect
import io
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task

from provision.cli.confirm import until_settled
from provision.cli.interrupt import INTERRUPTED, between_imports
from provision.cli.inventory_path import DEFAULT_INVENTORY, INVENTORY_VARIABLE
from provision.cli.moving import Screen
from provision.cli.pipe import BROKEN_PIPE, discard_output, flush_output
from provision.cli.run import Run
from provision.errors import ChangeFailed, ProvisionError, UsageError
from provision.text import EXCERPT, printable

if TYPE_CHECKING:
    from provision.cli.documents import ErrorDocument

FORMATS = ("table", "json")
#: For a mistake in this tool; EX_SOFTWARE in sysexits.h.
INTERNAL_ERROR = 70
#: The short flags of options: the same in every task, and no others. -h is --help.
SHORT_FLAGS = {"inventory": "i", "format": "f", "verbose": "v", "dry_run": "n"}
#: The parameter that chooses members or workers. Its value may be several words.
SEVERAL = "limit"
#: The parameter of several files; "-" among them is stdin.
FILES = "files"

_CHANGING = (
    "hosts were being changed: each of them ends what it has begun, nothing more is begun; run the "
    "same command again to continue"
)

_HELP = {
    "inventory": f"The inventory file (${INVENTORY_VARIABLE}, or {DEFAULT_INVENTORY}).",
    "format": "table, or json: one document on stdout.",
    "verbose": "Show every remote command and its time on stderr.",
    "stats": "Show SSH round trips and times at the end.",
    "traceback": "Show the Python traceback of an error.",
    "debug": "Write a file (.tar.gz) to attach to a bug report; it holds no secret.",
    "dry_run": "Show the plan and its diffs; change nothing.",
    "exit_code": "With --dry-run: end with 1 when anything would change.",
    "diff_full": "Show every difference of every host, and all of new files.",
    "yes": "Do not ask before something that runs is restarted, stopped or removed.",
    "cluster_id": "Of two etcd clusters among the members, the one to work on, by its id.",
}


#: The keyword by which all tasks of a command line share the list of those that have changed hosts.
EARLIER = "_earlier"


class Command(Task[Any]):
    """A command as Invoke's task: its name is the function's, its help the function's docstring.

    ``act`` is the function itself. The others are as in :func:`command`; ``arguments`` are the
    parameters without a default.
    """

    act: Callable[..., int | None]
    guarded: bool
    formats: Sequence[str]
    instead: Mapping[str, str]
    word: str
    old: Mapping[str, str]
    arguments: Sequence[str]

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """As Invoke's own, which takes the help away from the task: here the task keeps it."""
        kept = dict(self.help)
        try:
            found = super().get_arguments(ignore_unknown_help)
        finally:
            self.help = kept
        named = {argument.name: argument for argument in found}
        for name, letter in SHORT_FLAGS.items():
            if name in named:
                named[name].names = (*named[name].names, letter)
        for name, flag in self.instead.items():
            argument = named[name]
            other = _LeftOut(named[flag], argument)
            found[found.index(argument)] = other
        return found


class _LeftOut(Argument):
    """A positional argument that Invoke does not miss when the flag ``instead`` is given."""

    def __init__(self, instead: Argument, like: Argument) -> None:
        super().__init__(
            names=like.names, help=like.help, positional=True, attr_name=like.attr_name
        )
        self._instead = instead

    @property
    def value(self) -> Any:
        if self._value is None and self._instead.value:
            return ""
        return self._value

    @value.setter
    def value(self, given: str) -> None:
        self.set_value(given, cast=True)


def command(
    *,
    changes: bool = False,
    guarded: bool = False,
    writes: bool | Sequence[str] = False,
    inventory: bool = True,
    help: Mapping[str, str] | None = None,
    formats: Sequence[str] = FORMATS,
    instead: Mapping[str, str] | None = None,
    word: str = "",
    old: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., int | None]], Command]:
    """Make an Invoke task of ``body(run, ...)``: its own options first, then the common ones.

    A parameter without a default is an argument: it is given without a flag, and never empty.

    ``changes`` adds --dry-run and --exit-code. ``guarded`` commands first find out which etcd
    cluster it is (:mod:`provision.etcd.cluster.guard`), and have --cluster-id. ``writes``: the
    command has no rehearsal and writes files, always or with one of these options; under Invoke's
    ``run.dry`` setting it is refused. Without ``inventory``, the option --inventory and the options
    about hosts are left out. ``formats`` are the values of --format. ``instead`` names the flag
    with which an argument is left out: the argument is "" then. ``word`` is the parameter that a
    word behind the task sets, too: an argument that may be left out. ``old`` names options of the
    release before, each with the parameter that it sets (:mod:`provision.cli.words`). The body
    returns the exit code (None: 0). An error of this tool is printed as one line per problem, and
    ends the command with its own code.
    """

    def decorate(body: Callable[..., int | None]) -> Command:
        task_name = body.__name__.replace("_", "-")
        own = list(inspect.signature(body).parameters.values())[1:]
        common: dict[str, Any] = {"inventory": ""} if inventory else {}
        if changes:
            common.update(dry_run=False, exit_code=False)
        common["format"] = "table"
        if inventory:
            common.update(verbose=False, stats=False)
        common.update(traceback=False, debug="")
        late: dict[str, Any] = {"cluster_id": ""} if guarded else {}
        if changes:
            late.update(diff_full=False, yes=False)

        arguments = [p.name for p in own if p.default is inspect.Parameter.empty]
        numbers = {p.name: type(p.default) for p in own if type(p.default) in (int, float)}
        several = [p.name for p in own if p.default == ()]

        @functools.wraps(body)
        def task_body(c: Context, **given: Any) -> None:
            taken = {**common, **late}
            options = {name: given.pop(name, default) for name, default in taken.items()}
            options["earlier"] = given.pop(EARLIER, [])
            options["guarded"], options["changes"] = guarded, changes
            rehearsed = bool(c.config.run.dry)  # --dry, INVOKE_RUN_DRY, or another task's --dry-run
            if rehearsed and changes:
                options["dry_run"] = True

            def called(run: Run) -> int | None:
                run.part_of(given.get(SEVERAL, ""), given.get("batch", ""))
                for name in arguments:
                    flag = (instead or {}).get(name, "")
                    if flag and given[flag]:
                        if given[name]:
                            what = f"{name.upper()} and --{flag}: give one of the two"
                            raise UsageError(what, id="option-invalid")
                        continue
                    if not given[name]:  # Invoke takes "" for a value
                        raise argument_missing(task_name, name, texts[name])
                if rehearsed:
                    _refuse_writing(run.command, writes, given)
                values = {k: _number(k, v, numbers[k]) for k, v in given.items() if k in numbers}
                return until_settled(run, lambda: task.act(run, **{**given, **values}))

            code = perform(task_name, options, called, formats)
            if code:
                raise Exit(code=code)

        # Numbers are text for Invoke: it would answer a wrong number with a traceback. Without a
        # default it reads several values.
        defaults = {p.name: str(p.default) if p.name in numbers else p.default for p in own}
        shown = [("c", inspect.Parameter.empty), *list(common.items())[:-1]]
        shown += [(name, None if name in several else value) for name, value in defaults.items()]
        shown += [*late.items(), ("debug", "")]
        keyword = inspect.Parameter.KEYWORD_ONLY
        task_body.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, keyword, default=default) for name, default in shown]
        )
        texts = {**{k: v for k, v in _HELP.items() if k in {**common, **late}}, **(help or {})}
        task = Command(task_body, help=texts, auto_shortflags=False, iterable=several)
        task.act, task.guarded, task.formats = body, guarded, formats
        task.instead, task.word, task.old = dict(instead or {}), word, dict(old or {})
        task.arguments = arguments
        return task

    return decorate


def placeholder(name: str) -> str:
    """How texts show a value for the parameter ``name``."""
    return "NAMES" if name == SEVERAL else name.strip("_").replace("_", "-").upper()


def argument_missing(task: str, name: str, help: str) -> UsageError:
    """The error of a task without its argument ``name``; ``help`` says what the argument is."""
    shown = placeholder(name)
    return UsageError(
        f"{task} needs {shown} ({help.rstrip('.')}): invoke {task} {shown}", id="argument-missing"
    )


def _refuse_writing(name: str, writes: bool | Sequence[str], given: Mapping[str, Any]) -> None:
    """Raises :class:`UsageError` for a command that would write files in a rehearsal."""
    if isinstance(writes, bool):
        said = name if writes else ""
    else:
        said = next((f"{name} --{w.replace('_', '-')}" for w in writes if given.get(w)), "")
    if said:
        raise UsageError(
            f"{said} writes files and has no rehearsal: leave it out of a dry run",
            id="option-invalid",
        )


def _number(name: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        value = kind(text)
    except ValueError:
        value = kind(-1)
    if not 0 < value < 1e9:
        raise UsageError(
            f"--{name.replace('_', '-')} is a number above 0, not {text!r}", id="option-invalid"
        )
    return value


def perform(
    name: str,
    options: Mapping[str, Any],
    body: Callable[[Run], int | None],
    formats: Sequence[str] = FORMATS,
) -> int | None:
    """Run ``body``; print its error on stderr. Returns the exit code (None: 0)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # no error for characters that a terminal lacks
    path = options.get("inventory") or os.environ.get(INVENTORY_VARIABLE) or DEFAULT_INVENTORY
    run = Run(
        command=name,
        inventory_path=Path(path),
        format=options["format"],
        dry_run=options.get("dry_run", False),
        verbose=options.get("verbose", False),
        stats=options.get("stats", False),
        guarded=options.get("guarded", False),
        cluster_id=options.get("cluster_id", ""),
        changes=options.get("changes", False),
        yes=options.get("yes", False),
        diff_full=options.get("diff_full", False),
        earlier=options.get("earlier", []),
    )
    try:
        with between_imports():
            try:
                if options.get("debug"):
                    code = _recorded(run, options, body, formats)
                else:
                    try:
                        with Screen():
                            code = _outcome(run, options, body, formats)
                    finally:
                        run.close()
                flush_output()
            except BrokenPipeError:
                discard_output()
                return BROKEN_PIPE
            return code
    except KeyboardInterrupt:  # a Ctrl-C while the run is being closed, or a second Ctrl-C
        if not isinstance(run.error, KeyboardInterrupt):
            print("error: interrupted [interrupted]", file=sys.stderr)
        return INTERRUPTED


def _recorded(
    run: Run,
    options: Mapping[str, Any],
    body: Callable[[Run], int | None],
    formats: Sequence[str],
) -> int | None:
    """As :func:`_outcome`. After any end of the run, it also writes the bundle of --debug."""
    from provision.cli.debug import Recording

    try:
        recording = Recording(Path(options["debug"]).expanduser())
    except UsageError as error:
        _say_error(run, error, error.exit_code)
        return error.exit_code
    run.debug = True
    code = ProvisionError.exit_code  # for an error that --traceback shows
    with Screen():
        try:
            with recording.shown():
                code = _outcome(run, options, body, formats) or 0
            return code
        finally:
            recording.write(run, code)
            run.close()


def _outcome(
    run: Run,
    options: Mapping[str, Any],
    body: Callable[[Run], int | None],
    formats: Sequence[str],
) -> int | None:
    try:
        if run.format not in formats:
            *most, last = formats
            raise UsageError(
                f"--format is {', '.join(most)} or {last}, not {run.format!r}", id="option-invalid"
            )
        verdict = options.get("exit_code", False)
        if verdict and not run.dry_run:
            raise UsageError(
                "--exit-code is the verdict of a --dry-run, and says nothing without",
                id="option-invalid",
            )
        code = body(run)
        _say_versions(run)
        if run.left_out:
            from provision.cli import console

            console.problems(run.left_out)
        flush_output()
        return code or int((verdict and run.drifted) or bool(run.left_out))
    except ProvisionError as error:
        run.error = error
        if options["traceback"]:
            raise
        _say_versions(run)
        shown = _with_outcome(error, run)
        _say_error(run, shown, error.exit_code)
        return error.exit_code
    except BrokenPipeError:  # the reader of the output has gone, as with `| head`
        discard_output()
        return BROKEN_PIPE
    except KeyboardInterrupt as error:
        run.error = error
        what = f"interrupted while {_CHANGING}" if run.applying else "interrupted"
        interrupted = ProvisionError(what, id="interrupted")
        _say_error(run, interrupted, INTERRUPTED)
        return INTERRUPTED
    except Exception as error:
        run.error = error
        if options["traceback"]:
            traceback.print_exc()
        _say_error(run, _mistake(error, run), INTERNAL_ERROR)
        return INTERNAL_ERROR


def _say_versions(run: Run) -> None:
    """The warnings about versions of this tool that were not printed yet."""
    if notes := run.version_notes():
        from provision.cli import console

        console.problems(notes)


def _with_outcome(error: ProvisionError, run: Run) -> ProvisionError:
    """``error``, with the note that nothing was changed, if the command changes something and has
    not begun to. A :class:`UsageError` comes before any host is contacted, and needs no note."""
    if not run.changes or run.changed or isinstance(error, ChangeFailed | UsageError):
        return error
    message = f"{error.message}; nothing was changed"
    if run.earlier:
        message += f" by {run.command} ({_and(run.earlier)} before it changed hosts)"
    return ProvisionError(message, error.problems, id=error.id)


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _mistake(error: Exception, run: Run) -> ProvisionError:
    """An unexpected error, as one line."""
    said = printable(str(error), EXCERPT)
    what = f"a mistake in this tool: {type(error).__name__}" + (f": {said}" if said else "")
    if run.applying:
        what += f"; {_CHANGING}"
    return ProvisionError(
        f"{what}; run again with --debug FILE for a report, or --traceback", id="internal-error"
    )


def _say_error(run: Run, error: ProvisionError, code: int) -> None:
    from provision import terminal
    from provision.cli import console

    console.error(error)
    if run.json:
        document: ErrorDocument = {
            "schema": "alluxio-provision/error/1",
            "id": error.id,
            "error": error.message,
            "exit_code": code,
            "problems": [problem.document() for problem in error.problems],
        }
        terminal.emit_json(run.document(document))
