"""The screens of ``alluxio-provision``: the first one, a group's, a task's.

Plain Invoke's screens are its own.
"""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from invoke.collection import Collection
from invoke.parser.argument import Argument

from provision import __version__, terminal
from provision.cli.command import Command
from provision.cli.values import value_of

#: Columns of a screen: not wider than is read well, not narrower than the first column needs.
_WIDEST, _NARROWEST = 100, 60
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


class Group(NamedTuple):
    """Tasks of one theme. ``key`` is what is typed after ``help``."""

    key: str
    title: str
    about: str
    tasks: tuple[str, ...]


#: Every task is in one of these, and may be in the first one, too.
GROUPS = (
    Group(
        "start",
        "Start here",
        "from hosts to a cluster, and back to nothing",
        (
            *("init-inventory", "import-ansible", "show-inventory", "trust-hosts"),
            *("deploy-etcd", "start-workers", "check-nodes", "explain", "clean-host", "destroy"),
        ),
    ),
    Group(
        "workers",
        "Workers",
        "start, restart, upgrade, take away; masters",
        (
            *("start-workers", "restart-workers", "stop-workers", "upgrade-workers"),
            *("rollback-workers", "decommission-worker", "forget-worker", "readmit-worker"),
            *("start-masters", "stop-masters"),
        ),
    ),
    Group(
        "etcd",
        "etcd",
        "deploy, upgrade, members, upkeep",
        (
            *("deploy-etcd", "upgrade-etcd", "add-member", "remove-member", "replace-member"),
            *("move-leader", "defrag-etcd", "disarm-alarms"),
        ),
    ),
    Group(
        "access",
        "Certificates and access",
        "host keys, certificates, users",
        (
            *("trust-hosts", "rotate-certs", "export-csrs", "import-certs"),
            *("enable-auth", "disable-auth"),
        ),
    ),
    Group(
        "backup",
        "Backup and recovery",
        "snapshots, restores, a lost quorum",
        ("backup-etcd", "restore-etcd", "recover-etcd", "kept-data"),
    ),
    Group(
        "look",
        "Look",
        "what is there, and who changed it",
        ("check-nodes", "status", "logs", "audit", "list-clusters", "explain"),
    ),
    Group(
        "kubernetes",
        "Kubernetes",
        "the same cluster by Alluxio's Helm chart",
        ("render-helm", "check-nodes"),
    ),
    Group(
        "files",
        "Files",
        "inventories, and files for other programs",
        (
            *("init-inventory", "import-ansible", "show-inventory", "inventory-schema"),
            *("show-schema", "export-ssh-config", "render-client-config", "render-monitor"),
        ),
    ),
)
#: Tasks of every day, each with its first argument or option, and one line.
DAILY = (
    ("init-inventory --etcd HOSTS", "write an inventory of your hosts"),
    ("trust-hosts", "show the hosts' SSH keys, ask once, add them"),
    ("deploy-etcd", "install etcd, or roll a change out"),
    ("start-workers", "install, configure and start the workers"),
    ("check-nodes", "is every member healthy, every worker LIVE?"),
    ("logs NAME", "the last log lines of a member, worker or host"),
    ("restart-workers [NAMES]", "restart workers, a group at a time"),
    ("upgrade-workers [NAMES]", "bring workers to the inventory's release"),
    ("backup-etcd", "save a snapshot, proven by restoring it"),
    ("explain ID", "what an error means, and what to do"),
)


def first_screen(program: str) -> str:
    """At most 25 lines of 80 columns."""
    return "\n".join(
        (
            f"{program} {__version__}: etcd v3 and Alluxio workers on your own hosts.",
            "",
            *_columns(DAILY, 30),
            "",
            f"{program} help GROUP, help TASK, or help all:",
            *_columns([(g.key, f"{g.title}: {g.about}") for g in GROUPS], 12),
            "",
            "TASK --dry-run (-n) shows what would change, and changes nothing.",
        )
    )


def all_tasks(program: str, tasks: Collection) -> str:
    """Every group with its tasks, and the options before a task."""
    parts = [group_screen(group, tasks) for group in GROUPS]
    before = (f"Options of {program} itself, before a task:", *_columns(_BEFORE, _BESIDE))
    return "\n\n".join((*parts, "\n".join(before)))


def group_screen(group: Group, tasks: Collection) -> str:
    """The group's tasks, with the first sentence of each."""
    lines = [(name, _sentence(tasks[name])) for name in group.tasks]
    return "\n".join((f"{group.title}:", *_columns(lines, 23)))


def find_group(word: str) -> Group | None:
    """The group with this key, or with this word in its title."""
    given = word.lower()
    for group in GROUPS:
        if given in (group.key, *re.findall(r"\w{3,}", group.title.lower())):
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
        parts.append("\n".join(("Arguments:", *_columns(lines, _BESIDE))))
    for title, some in (("Options:", own), ("Options of every task:", common)):
        lines = [(_flags(name, a), _explained(task, a)) for a in some]
        if lines:
            parts.append("\n".join((title, *_columns(lines, _BESIDE))))
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


def _columns(lines: Iterable[Sequence[str]], beside: int) -> list[str]:
    """Pairs in two columns; a first column that is too wide has a line of its own."""
    found = []
    width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns)) - 1
    indent = " " * (beside + 2)
    for left, right in lines:
        text = textwrap.wrap(right, width - len(indent), break_on_hyphens=False) or [""]
        head = f"  {left:<{beside}}"
        if len(left) >= beside:
            found += [head.rstrip(), *(indent + line for line in text)]
        else:
            found += [(head + text[0]).rstrip(), *(indent + line for line in text[1:])]
    return found


def show(text: str) -> None:
    """A screen on stdout, as texts leave."""
    terminal.say(text)
