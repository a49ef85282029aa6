"""``alluxio-provision``'s command line: Invoke's program with this tool's tasks.

``help``, ``--list``, ``--version``, ``--explain``, and shell completion with
``--print-completion-script``. A command line that Invoke cannot parse ends with code 2, like every
other usage error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NoReturn

from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.program import Program

from provision import __version__
from provision.cli.chain import Executor
from provision.cli.command import perform
from provision.cli.commands import namespace
from provision.cli.first_screen import NAME, first_screen
from provision.cli.lightly import keep_compiled
from provision.cli.tasks import files
from provision.cli.usage import answered, check_core, no_task, of_line, prepare
from provision.errors import UsageError
from provision.program_in_use import rendered

TASKS = tuple(namespace.task_names)
#: Invoke's core options that work here as their help says. The other core options configure local
#: shell commands, which no task runs, or lists of nested tasks, which are not there.
CORE_OPTIONS = frozenset({"help", "list", "print-completion-script", "version"})
#: The word for help. No task is called so.
HELP = "help"


class _Program(Program):
    def core_args(self) -> list[Argument]:
        text = "Say what an error's id means, and what to do; without one, list them all."
        kept = [a for a in super().core_args() if a.name in CORE_OPTIONS]
        return [*kept, Argument(names=("explain",), optional=True, help=text)]

    def parse_core_args(self) -> None:
        super().parse_core_args()
        for argument in super().core_args():  # Invoke reads the values of all of its own
            self.core[0].args.setdefault(argument.name, argument)

    def parse_core(self, argv: list[str] | None) -> None:
        self.normalize_argv(argv)
        with self._answered():
            self.parse_core_args()
            if shell := self.args["print-completion-script"].value:
                from provision.cli import completion

                sys.stdout.write(completion.script(shell, namespace.tasks))
                raise Exit
            super().parse_core(argv)
        keep_compiled()
        if wanted := self.args.explain.value:
            from provision.cli.explain import ALL

            id = ALL if wanted is True else wanted
            options = {"format": "table", "traceback": False}
            code = perform("explain", options, lambda run: files.explain.act(run, id))
            raise Exit(code=code or 0)
        if self.core.unparsed[:1] == [HELP]:
            with self._answered():
                self._help(self.core.unparsed[1:])

    def parse_collection(self) -> None:
        super().parse_collection()
        self.collection = of_line(self.collection, self.core.unparsed)
        for task in self.collection.tasks.values():
            task.__doc__ = rendered(task.__doc__)
            task.help = {name: rendered(text) for name, text in task.help.items()}

    def parse_tasks(self) -> None:
        with self._answered():
            prepare(self, namespace)
            super().parse_tasks()

    def parse_cleanup(self) -> None:
        with self._answered():
            if isinstance(topic := self.args.help.value, str):
                self._help([topic])
            check_core(self, TASKS)
            super().parse_cleanup()

    def _help(self, topics: Sequence[str]) -> NoReturn:
        """Show the screen of a group or a task. Raises :class:`UsageError` when there is none."""
        from provision.cli import help as screens

        topic = " ".join(topics)
        if len(topics) > 1 and screens.find_group(topic) is None:
            what = f"help takes one TASK or GROUP, and was given {len(topics)}"
            raise UsageError(what, id="argument-unexpected")
        if not topic or topic in (HELP, f"--{HELP}", "-h"):
            self.print_help()
        elif topic in TASKS:
            self.print_task_help(topic)
        elif topic == screens.ALL:
            self.list_tasks()
        elif group := screens.find_group(topic):
            screens.show(screens.group_screen(group, namespace))
        else:
            raise no_task(topic, (*TASKS, *screens.group_words(), screens.ALL))
        raise Exit

    def print_help(self) -> None:
        from provision.cli import help as screens

        screens.show(first_screen(NAME))

    def list_tasks(self) -> None:
        from provision.cli import help as screens

        screens.show(screens.all_tasks(NAME, namespace))

    def print_task_help(self, name: str) -> None:
        from provision.cli import help as screens

        screens.show(screens.task_screen(NAME, name, namespace[name]))

    def _answered(self) -> AbstractContextManager[None]:
        return answered(self.argv[1:], TASKS)

    def execute(self) -> None:
        # Invoke's setting for the executor is not used: another executor would ignore the rehearsal
        # of a chain.
        Executor(self.collection, self.config, self.core).execute(*self.tasks)


program = _Program(name=NAME, binary=NAME, namespace=namespace, version=__version__)
