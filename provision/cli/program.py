"""``alluxio-provision``'s command line: Invoke's program with this tool's tasks.

``--list``, ``--help TASK``, ``--version``, ``--explain``, and shell completion with
``--print-completion-script``. A command line that Invoke cannot parse ends with code 2, like every
other usage error.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.program import Program

from provision import __version__
from provision.cli.chain import Executor
from provision.cli.command import perform
from provision.cli.commands import namespace
from provision.cli.tasks import files
from provision.cli.usage import answered, check_core, prepare
from provision.program_in_use import rendered

NAME = "alluxio-provision"
TASKS = tuple(namespace.task_names)
#: Invoke's core options that work here as their help says. The other core options configure local
#: shell commands, and no task runs these.
CORE_OPTIONS = frozenset(
    {"complete", "help", "list", "list-depth", "list-format", "print-completion-script", "version"}
)


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
            super().parse_core(argv)
        if wanted := self.args.explain.value:
            from provision.cli.explain import ALL

            id = ALL if wanted is True else wanted
            options = {"format": "table", "traceback": False}
            code = perform("explain", options, lambda run: files.explain.act(run, id))
            raise Exit(code=code or 0)

    def parse_collection(self) -> None:
        super().parse_collection()
        for task in self.collection.tasks.values():
            task.__doc__ = rendered(task.__doc__)
            task.help = {name: rendered(text) for name, text in task.help.items()}

    def parse_tasks(self) -> None:
        with self._answered():
            prepare(self, namespace)
            super().parse_tasks()

    def parse_cleanup(self) -> None:
        with self._answered():
            check_core(self, TASKS)
            super().parse_cleanup()

    def _answered(self) -> AbstractContextManager[None]:
        return answered(self.argv[1:], TASKS)

    def execute(self) -> None:
        # Invoke's setting for the executor is not used: another executor would ignore the rehearsal
        # of a chain.
        Executor(self.collection, self.config, self.core).execute(*self.tasks)


program = _Program(name=NAME, binary=NAME, namespace=namespace, version=__version__)
