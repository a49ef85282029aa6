"""Command lines that Invoke's parser does not take: an error of this tool, with its id, exit code
2, and the JSON document where the line has ``--format json``.

Invoke itself prints one sentence and ends with 1, which here means "unhealthy".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise

from invoke.collection import Collection
from invoke.exceptions import Exit, ParseError
from invoke.parser.context import ParserContext
from invoke.parser.parser import Parser
from invoke.program import Program

from provision import terminal
from provision.cli.command import argument_missing, perform, placeholder
from provision.cli.commands import namespace
from provision.cli.complete import inventory_in_force
from provision.cli.run import Run
from provision.cli.words import understood
from provision.errors import UsageError
from provision.text import EXCERPT, printable

#: The probable meaning of an option that is not there.
_MEANT = dict.fromkeys(("--dry", "-R", "-d"), "a rehearsal is TASK --dry-run, or TASK -n")
#: Options of the program that may stand behind a task, too, besides --help. What else there may be
#: is a mistake: Invoke would take it, and some would have no effect.
_BEHIND = ("dry",)
_LISTS = ("flat", "nested", "json")

# What Invoke's errors say is known by their texts only.
_UNKNOWN = re.compile(r"No idea what (['\"])(.*)\1 is!", re.DOTALL)
_NO_VALUE = re.compile(r"Flag <Argument: ([\w-]+).* needed value")
_AMBIGUOUS = re.compile(r"(['\"])(.*)\1 is ambiguous", re.DOTALL)
_NO_NUMBER = "invalid literal for int()"


@contextlib.contextmanager
def answered(words: Sequence[str], tasks: Iterable[str]) -> Iterator[None]:
    """Within this context an error of Invoke's parser, and a :class:`UsageError`, is printed and
    ends the program. ``words`` is the command line after the program's name."""
    try:
        yield
    except ParseError as error:
        raise refused(_translated(error, tuple(tasks)), words) from error
    except UsageError as error:
        raise refused(error, words) from error
    except ValueError as error:
        if _NO_NUMBER not in str(error):
            raise
        # Of all options that Invoke reads itself, this alone is a number.
        number = UsageError("--list-depth is a number", id="option-invalid")
        raise refused(number, words) from error


def refused(error: UsageError, words: Sequence[str]) -> Exit:
    """Print ``error`` as a task's error. Returns what ends Invoke's program with its exit code."""

    def fail(run: Run) -> None:
        raise error

    options = {"format": "json" if asks_for_json(words) else "table", "traceback": False}
    return Exit(code=perform("", options, fail))


def asks_for_json(words: Sequence[str]) -> bool:
    """Whether a command line has ``--format json``. In front of the tasks -f is Invoke's own."""
    line = [*words[: words.index("--") if "--" in words else None], ""]
    tasks_from = next((n for n, word in enumerate(line) if not word.startswith("-")), 0)
    for number, (word, following) in enumerate(pairwise(line)):
        if word == "--format=json" or (word == "--format" and following == "json"):
            return True
        if number > tasks_from and (
            re.fullmatch(r"-[A-Za-z]*f=?json", word)
            or (re.fullmatch(r"-[A-Za-z]*f", word) and following == "json")
        ):
            return True
    return False


def check(program: Program, tasks: Collection) -> None:
    """For ``tasks.py``, while ``program`` loads it: :func:`prepare` the line, and check it.

    Raises Invoke's :class:`Exit` for what cannot be parsed. Does nothing when ``program`` does not
    run, because another program loads the file.
    """
    if getattr(program, "core", None) is None:
        return
    names = tuple(tasks.task_names)
    with answered(program.argv[1:], names):
        prepare(program, tasks)
        check_core(program, names)


def of_line(tasks: Collection, words: Sequence[str]) -> Collection:
    """The tasks that a command line names. Invoke copies all options of all tasks that it is given,
    several times: with 45 tasks this takes longer than its own import does."""
    return Collection(*(tasks[name] for name in tasks.task_names if name in words))


def narrowed(program: Program, tasks: Collection) -> Collection:
    """For ``tasks.py``: the tasks that ``program`` needs. These are all of them when it shows them,
    and when it is another program that loads the file."""
    if getattr(program, "core", None) is None:
        return tasks
    shows = any(program.args[name].value for name in ("complete", "help", "list"))
    named = of_line(tasks, program.core.unparsed)
    return named if named.tasks and not shows else tasks


def prepare(program: Program, tasks: Collection) -> None:
    """Give ``program`` its command line as its parser takes it, and parse it once before.

    Prints notes about old options. Raises :class:`UsageError` and Invoke's :class:`ParseError`.
    """
    names = tasks.task_names
    core = program.core
    on_line = [name for name in dict.fromkeys(core.unparsed) if name in names]
    if core.remainder:  # Invoke cuts the line there, and the task would have all names
        raise UsageError(
            f"nothing behind -- is read: {printable(core.remainder, 200)}; write it without --",
            id="argument-unexpected",
        )
    line = understood(core.unparsed, {name: tasks[name] for name in names}, names_of)
    if line.help:  # Invoke's parser would first ask for the task's arguments
        core[0].args["help"].value = line.help
        core.unparsed.clear()
        return
    contexts = [ParserContext(name=name, args=tasks[name].get_arguments()) for name in on_line]
    behind = ParserContext(args=[a for a in program.core_args() if a.name in _BEHIND])
    Parser(contexts, behind).parse_argv(list(line.words))
    core.unparsed[:] = line.words
    for note in dict.fromkeys(line.notes):
        terminal.say(f"note: {note}", stderr=True)


def names_of(words: Sequence[str]) -> frozenset[str]:
    """The names of members and workers in the inventory in force for a command line."""
    from provision.inventory import names

    found = names.read(inventory_in_force(words))
    return frozenset((*found.members, *found.masters, *found.workers))


def check_core(program: Program, tasks: Sequence[str]) -> None:
    """Raises :class:`UsageError` for a value of ``program``'s own options that ``program`` would
    answer with a traceback, or with exit code 1."""
    task, listed, form = (program.args[name].value for name in ("help", "list", "list-format"))
    if isinstance(task, str) and task not in tasks:
        raise no_task(task, tasks)
    if isinstance(listed, str):
        raise UsageError("--list takes no name: it shows every task", id="option-invalid")
    if form not in _LISTS:
        *most, last = _LISTS
        raise UsageError(
            f"--list-format is {', '.join(most)} or {last}, not {_quoted(form)}",
            id="option-invalid",
        )


def _translated(error: ParseError, tasks: Sequence[str]) -> UsageError:
    context: ParserContext | None = error.context
    if found := _UNKNOWN.fullmatch(str(error)):
        return _unknown(found[2], context, tasks)
    if context is not None and context.name and "required positional arguments" in str(error):
        argument = context.missing_positional_args[0]
        return argument_missing(context.name, str(argument.name), argument.help or "")
    if found := _NO_VALUE.match(str(error)):
        return UsageError(
            f"--{found[1].replace('_', '-')} needs a value; {_see(context)}", id="argument-missing"
        )
    if found := _AMBIGUOUS.match(str(error)):
        return UsageError(
            f"{_quoted(found[2])} may be a task, or a value of the option before it: options such "
            "as --help stand before the first task",
            id="option-invalid",
        )
    return UsageError(str(error), id="option-invalid")


def _unknown(word: str, context: ParserContext | None, tasks: Sequence[str]) -> UsageError:
    task = context.name if context is not None else None
    if word.startswith("-"):
        flags = () if context is None else (*context.flags, *context.inverse_flags)
        what = f"{task} has no option {_quoted(word)}"
        if task is None:
            what = f"there is no option {_quoted(word)} before the tasks; a task's stand behind it"
        meant = _MEANT.get(word, "") or _did_you_mean(word, flags)
        said = "; ".join(filter(None, (what, meant, _see(context))))
        return UsageError(said, id="option-unknown")
    if context is None or task is None or get_close_matches(word, tasks):
        return no_task(word, tasks)
    subject = [name for name in [namespace[task].word] if name]
    arguments = [str(argument.name) for argument in context.positional_args]
    takes = ", ".join(map(placeholder, (*arguments, *subject)))
    what = f"{task} takes {f'{takes} only' if takes else 'no argument'}, and was given "
    return UsageError(f"{what}{_quoted(word)}; {_see(context)}", id="argument-unexpected")


def no_task(word: str, tasks: Sequence[str]) -> UsageError:
    """The error for a word that stands where a task's name should."""
    if word == "help":  # of alluxio-provision alone, whose first word it is
        return UsageError("for help say invoke --help TASK", id="task-unknown")
    parts = (f"no task is called {_quoted(word)}", _did_you_mean(word, tasks))
    return UsageError("; ".join((*filter(None, parts), "see invoke --list")), id="task-unknown")


def _see(context: ParserContext | None) -> str:
    task = context.name if context is not None else None
    return f"see invoke --help {task}" if task else "see invoke --help"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    long = [k for k in known if len(k) > 2]
    near = get_close_matches(word, long, n=3)
    parts = {*re.split("[-_]+", word.strip("-").lower())} - {""}
    near += [k for k in long if k not in near and parts <= {*k.strip("-").split("-")}]
    near = near[:3]
    return f"did you mean {' or '.join(near)}?" if near else ""


def _quoted(word: str) -> str:
    return repr(printable(word, EXCERPT))
