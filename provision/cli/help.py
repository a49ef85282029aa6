"""The screens of ``alluxio-provision``: a group's, a task's. The first one is in ``first_screen``.

Plain Invoke's screens are its own.
"""

from __future__ import annotations

import inspect
import re

from invoke.collection import Collection
from invoke.parser.argument import Argument

from provision import terminal
from provision.cli.command import Command
from provision.cli.first_screen import GROUPS, Group, columns
from provision.cli.values import value_of

#: Columns of the options, up to which their texts stand beside them.
_BESIDE = 30
#: Options that all tasks have, or all with an inventory, or all that change something.
_COMMON = ("inventory", "format", "verbose", "stats", "traceback", "debug")


#: Stands for every group.
ALL = "all"
#: What may stand before the tasks.
_BEFORE = (
    ("-h, --help [TASK]", "The same as help TASK."),
    ("-l, --list", "The same as help all."),
    ("-V, --version", "The version of this program."),
    ("    --explain [ID]", "The same as explain ID; without one, explain all."),
    ("    --print-completion-script SHELL", "A script that completes words: bash, zsh or fish."),
)


def all_tasks(program: str, tasks: Collection) -> str:
    """Every group with its tasks, and the options before a task."""
    parts = [group_screen(group, tasks) for group in GROUPS]
    before = (f"Options of {program} itself, before a task:", *columns(_BEFORE, _BESIDE))
    return "\n\n".join((*parts, "\n".join(before)))


def group_screen(group: Group, tasks: Collection) -> str:
    """The group's tasks, with the first sentence of each."""
    lines = [(name, _sentence(tasks[name])) for name in group.tasks]
    return "\n".join((f"{group.title}:", *columns(lines, 23)))


def find_group(word: str) -> Group | None:
    """The group with this key or this title, or with this word in its title."""
    given = word.lower()
    for group in GROUPS:
        title = group.title.lower()
        if given in (group.key, title, *re.findall(r"\w{3,}", title)):
            return group
    return None


def group_words() -> list[str]:
    """Every word by which :func:`find_group` finds a group; the keys come first."""
    words = [g.key for g in GROUPS]
    words += [w for g in GROUPS for w in re.findall(r"\w{3,}", g.title.lower())]
    return [w for w in dict.fromkeys(words) if w not in ("and", "here")]


def task_screen(program: str, name: str, task: Command) -> str:
    """Usage, what the task does, its arguments and its options."""
    arguments = task.get_arguments()
    positional = [a for a in arguments if a.positional or a.name == task.word]
    own = [a for a in arguments if a not in positional and a.name not in _COMMON]
    if task.word == "limit":
        own = [next(a for a in arguments if a.name == "limit"), *own]
    common = [a for a in arguments if a.name in _COMMON]
    parts = [f"Usage: {program} {usage(name, task)}"]
    parts.append(inspect.getdoc(task) or "")
    if positional:
        lines = [(_shown(name, a), a.help or "") for a in positional]
        parts.append("\n".join(("Arguments:", *columns(lines, _BESIDE))))
    for title, some in (("Options:", own), ("Options of every task:", common)):
        lines = [(_flags(name, a), _explained(task, a)) for a in some]
        if lines:
            parts.append("\n".join((title, *columns(lines, _BESIDE))))
    return "\n\n".join(parts)


def usage(name: str, task: Command) -> str:
    """The task with its arguments; those in brackets may be left out."""
    words = [value_of(name, argument).shown for argument in task.arguments]
    if task.word:
        words.append(f"[{value_of(name, task.word).shown}]")
    return " ".join((name, *words, "[OPTIONS]"))


def _shown(task: str, argument: Argument) -> str:
    return value_of(task, str(argument.name)).shown


def _flags(task: str, argument: Argument) -> str:
    long, *short = (n.strip("_").replace("_", "-") for n in argument.names)
    letter = f"-{short[0]}, " if short else "    "
    flag = f"--[no-]{long}" if argument.default is True else f"--{long}"
    return letter + flag + (f" {_shown(task, argument)}" if argument.takes_value else "")


def _explained(task: Command, argument: Argument) -> str:
    if argument.name == task.word:
        return "The same as NAMES."
    return argument.help or ""


def _sentence(task: Command) -> str:
    return (inspect.getdoc(task) or "").partition("\n")[0]


def show(text: str) -> None:
    """A screen on stdout, as texts leave."""
    terminal.say(text)
