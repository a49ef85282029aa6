"""A command line in the words that Invoke's parser takes.

For Invoke a word behind a task is an argument that must be there, or the next task. Here it may
also be an argument that can be left out (``restart-workers worker1``). Options of the release
before are still taken, with a note.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext

from provision.cli.command import FILES, SEVERAL, Command, placeholder
from provision.errors import UsageError
from provision.text import EXCERPT, printable

#: How much a word is like a task's name when it is taken for a mistyped one. The names of hosts are
#: less like any task: worker1 is like start-workers by 0.6.
_MISTYPED = 0.8
_HELP = ("-h", "--help")


class Line(NamedTuple):
    """``words`` for Invoke's parser, and ``notes`` for the user. ``help``: the task before --help,
    if it stands on the line. Then nothing else of the line counts."""

    words: list[str]
    notes: list[str]
    help: str = ""


def understood(
    words: Sequence[str],
    tasks: Mapping[str, Command],
    named: Callable[[Sequence[str]], frozenset[str]],
) -> Line:
    """The words from the first task on, as Invoke's parser takes them.

    ``named`` returns the names of members and workers in the inventory of a command line. Raises
    :class:`UsageError` for what cannot be meant: an empty word, a word that is almost a task's
    name, and a word that may be a task or a name.
    """
    reader = _Reader(tasks, words, named)
    for word in words:
        if word in _HELP and reader.task is not None and not reader.waiting:
            return Line([], [], reader.name)
        reader.read(word)
    return Line(reader.words, reader.notes)


@dataclass(slots=True)
class _Reader:
    tasks: Mapping[str, Command]
    line: Sequence[str]
    named: Callable[[Sequence[str]], frozenset[str]]
    words: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: The task that options and words belong to, its name, and its options.
    task: Command | None = None
    name: str = ""
    flags: Mapping[str, Argument] = field(default_factory=dict)
    #: The parameters that were given so far.
    given: set[str] = field(default_factory=set)
    #: Whether the next word is an option's value.
    waiting: bool = False
    #: The place of the task's word in ``words``.
    place: int | None = None

    def read(self, word: str) -> None:
        stdin = word == "-" and self.task is not None and self.task.word == FILES
        value = self.waiting and word.partition("=")[0] not in self.flags
        if word.startswith("-") and not value and not stdin:
            self.words.append(self._option(word))
        elif self.waiting:
            self.waiting = False
            self.words.append(word)
        elif missing := self._missing():
            self.given.add(missing)
            self.words.append(word)
        elif word in self.tasks:
            self._require_meant(word)
            self._begin(word)
        elif self.task is not None and self.task.word:
            self._subject(word)
        else:
            self.words.append(word)

    def _begin(self, name: str) -> None:
        self.task, self.name = self.tasks[name], name
        flags = ParserContext(args=self.task.get_arguments()).flags
        self.flags = {flag: flags[flag] for flag in (*flags, *flags.aliases)}
        self.given, self.place = set(), None
        self.words.append(name)

    def _missing(self) -> str | None:
        """The first argument that must still be given."""
        if self.task is None:
            return None
        instead = self.task.instead
        left = (n for n in self.task.arguments if n not in self.given)
        return next((n for n in left if instead.get(n) not in self.given), None)

    def _option(self, word: str) -> str:
        flag, equals, value = word.partition("=")
        if self.task is not None and (now := self.task.old.get(flag.removeprefix("--"))):
            self.notes.append(
                f"{self.name} {flag} is an old option, and a later release refuses it: say invoke "
                f"{self.name} {placeholder(now)}"
            )
            flag = f"--{now.replace('_', '-')}"
        argument = self.flags.get(flag)
        self.waiting = False
        if argument is not None:
            self.waiting = argument.takes_value and not equals
            self._give(str(argument.name))
        elif not flag.startswith("--") and not equals:
            self._letters(flag)
        return f"{flag}{equals}{value}"

    def _letters(self, flag: str) -> None:
        """Several short flags in one word; the last one may take the next word as its value."""
        for number, letter in enumerate(flag[1:], 2):
            argument = self.flags.get(f"-{letter}")
            if argument is None:
                return
            self._give(str(argument.name))
            if argument.takes_value:
                self.waiting = number == len(flag)
                return

    def _give(self, name: str) -> None:
        if self.task is not None and self.place is not None and name == self.task.word:
            raise self._twice()
        self.given.add(name)

    def _subject(self, word: str) -> None:
        assert self.task is not None
        name = self.task.word
        shown = placeholder(name)
        if not word:
            what = f"{self.name} was given an empty {shown}: leave it out, or give it a value"
            raise UsageError(what, id="argument-missing")
        if name == FILES:
            self.words.append(f"--{name}={word}")
            return
        if near := get_close_matches(word, self.tasks, n=1, cutoff=_MISTYPED):
            raise UsageError(
                f"no task is called {_quoted(word)}; did you mean {near[0]}? If it is {shown}, say "
                f"--{name} {printable(word, EXCERPT)}; see invoke --list",
                id="task-unknown",
            )
        if self.place is None:
            if name in self.given:
                raise self._twice()
            self.place = len(self.words)
            self.words.append(f"--{name}={word}")
        elif name == SEVERAL:
            self.words[self.place] += f",{word}"
        else:
            self.words.append(word)  # Invoke's parser refuses it

    def _twice(self) -> UsageError:
        assert self.task is not None
        name = self.task.word
        what = f"{placeholder(name)} and --{name}: give one of the two"
        return UsageError(what, id="option-invalid")

    def _require_meant(self, word: str) -> None:
        """Raises :class:`UsageError` when ``word`` is a task, and a host or a file that may be
        meant."""
        task = self.task
        if task is not None and task.word == FILES and Path(word).exists():
            raise UsageError(
                f"{word} is a task, and a file: for the file say ./{word}; the task goes into a "
                "command of its own",
                id="option-invalid",
            )
        if (
            task is None
            or task.word != SEVERAL
            or task.word in self.given
            or self.place is not None
        ):
            return
        if word in self.named(self.line):
            raise UsageError(
                f"{word} is a task, and a name in the inventory: for the name say --{task.word} "
                f"{word}; the task goes into a command of its own",
                id="option-invalid",
            )


def _quoted(word: str) -> str:
    return repr(printable(word, EXCERPT))
