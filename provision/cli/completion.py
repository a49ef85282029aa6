"""The scripts that complete words in bash, zsh and fish.

A script has all tasks and options. It asks the program only for names of the inventory
(:mod:`provision.cli.complete`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

from invoke.parser.argument import Argument

from provision import __version__
from provision.cli.command import FILES, SEVERAL, Command
from provision.cli.explain import ALL as ALL_IDS
from provision.cli.explain import schema_names
from provision.cli.help import ALL, group_words
from provision.cli.values import OF_INVENTORY, Kind, value_of
from provision.errors import UsageError
from provision.ids import IDS

SHELLS = ("bash", "fish", "zsh")
#: Options before the tasks, and what their values are.
_BEFORE = {
    "-h": "topic",
    "--help": "topic",
    "-l": "",
    "--list": "",
    "-V": "",
    "--version": "",
    "--explain": "error-id",
    "--print-completion-script": "format:" + ",".join(SHELLS),
}


def script(shell: str, tasks: Mapping[str, Command]) -> str:
    """The script for ``shell``. Raises :class:`UsageError` for another shell than these."""
    if shell not in SHELLS:
        what = f"--print-completion-script is {', '.join(SHELLS)}; not {shell!r}"
        raise UsageError(what, id="option-invalid")
    entry, described = (_fish, _fish_described) if shell == "fish" else (_posix, _zsh_described)
    topic = entry("help", (), {}, ["topic"])
    entries = [topic, *(entry(name, *_of(name, task)) for name, task in tasks.items())]
    values = [f"{flag}={kind}" for flag, kind in _BEFORE.items() if kind]
    parts = {
        "VERSION": __version__,
        "TASKS": "\n".join(entries),
        "DESCRIBED": described(tasks),
        "NAMES": " ".join(tasks),
        "IDS": " ".join((*IDS, ALL_IDS)),
        "SCHEMAS": " ".join(schema_names()),
        "TOPICS": " ".join((*tasks, *group_words(), ALL)),
        "BEFORE": " ".join(_BEFORE),
        "BEFORE_VALUES": " ".join(values),
    }
    template = files("provision.cli") / "shells" / f"completion.{shell}"
    text: str = template.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text


def _of(name: str, task: Command) -> tuple[Sequence[str], Mapping[str, str], Sequence[str]]:
    """The options of a task, the kinds of their values, and the kinds of its words."""
    arguments = {str(a.name): a for a in task.get_arguments()}
    words = [_kind(name, task, argument) for argument in task.arguments]
    if task.word:
        mark = "*" if task.word in (SEVERAL, FILES) else "?"
        words.append(_kind(name, task, task.word) + mark)
    options: list[str] = ["-h", "--help"]
    values: dict[str, str] = {}
    for argument in arguments.values():
        parameter = str(argument.name)
        if argument.positional or parameter == task.word != SEVERAL:
            continue
        flags = _flags(argument)
        options += flags
        if argument.takes_value:
            values.update((flag, _kind(name, task, parameter)) for flag in flags)
    return options, values, words


def _flags(argument: Argument) -> list[str]:
    flags = [f"-{name}" if len(name) == 1 else f"--{name.strip('_')}" for name in argument.names]
    if argument.default is True:
        flags.append(f"--no-{argument.names[0]}")
    return flags


def _kind(name: str, task: Command, parameter: str) -> str:
    value = value_of(name, parameter)
    if value.kind is Kind.FORMAT:
        return f"format:{','.join(task.formats)}"
    return f"{value.kind.value}{'+' if value.kind in OF_INVENTORY and value.several else ''}"


def _posix(
    name: str, options: Iterable[str], values: Mapping[str, str], words: Iterable[str]
) -> str:
    pairs = " ".join(f"{flag}={kind}" for flag, kind in values.items())
    return (
        f"    ({name})\n      options='{' '.join(options)}'\n      values='{pairs}'\n"
        f"      kinds='{' '.join(words)}'\n      ;;"
    )


def _fish(
    name: str, options: Iterable[str], values: Mapping[str, str], words: Iterable[str]
) -> str:
    pairs = " ".join(f"{flag}={kind}" for flag, kind in values.items())
    kinds = " ".join(f"'{word}'" for word in words)
    return (
        f"        case {name}\n"
        f"            set -g __alluxio_provision_options {' '.join(options)}\n"
        f"            set -g __alluxio_provision_values {pairs}\n"
        f"            set -g __alluxio_provision_kinds {kinds}"
    )


def _sentence(task: Command) -> str:
    text = (inspect.getdoc(task) or "").partition("\n")[0].rstrip(".:")
    return text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}").replace("\\", "")


def _zsh_described(tasks: Mapping[str, Command]) -> str:
    return "\n".join(f"    '{name}:{_sentence(task)}'" for name, task in tasks.items())


def _fish_described(tasks: Mapping[str, Command]) -> str:
    return " \\\n".join(f"        {name} '{_sentence(task)}'" for name, task in tasks.items())
