"""``alluxio-provision``: the tasks as a command of their own, installed by pip.

It is Invoke's program with our tasks in it: ``--list``, ``--help TASK``, ``--version``, and shell
completion by ``--print-completion-script``. What Invoke cannot parse ends with code 2, as every
other usage error does.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from invoke.exceptions import Exit, ParseError
from invoke.parser.argument import Argument
from invoke.program import Program

from provision import __version__, actions
from provision.commands import namespace
from provision.errors import UsageError
from provision.run import BROKEN_PIPE, discard_output, flush_output, perform

NAME = "alluxio-provision"


class _Program(Program):
    def core_args(self) -> list[Argument]:
        text = "Say what an error's id means, and what to do; without one, list them all."
        return [*super().core_args(), Argument(names=("explain",), optional=True, help=text)]

    def parse_core(self, argv: list[str] | None) -> None:
        with _usage():
            super().parse_core(argv)
        if wanted := self.args.explain.value:
            from provision.explain import ALL

            id = ALL if wanted is True else wanted
            options = {"format": "table", "traceback": False}
            raise Exit(code=perform("explain", options, lambda run: actions.explain(run, id)) or 0)

    def parse_tasks(self) -> None:
        with _usage():
            super().parse_tasks()

    def parse_cleanup(self) -> None:
        with _usage():
            super().parse_cleanup()


@contextlib.contextmanager
def _usage() -> Iterator[None]:
    try:
        yield
    except ParseError as error:
        raise Exit(f"error: {error}; see {NAME} --list", UsageError.exit_code) from error


program = _Program(name=NAME, binary=NAME, namespace=namespace, version=__version__)


def main() -> None:
    """The console script. Ends the process with the exit code of the task."""
    try:
        try:
            program.run()
        finally:
            flush_output()
    except BrokenPipeError:  # of --list | head, for one; tasks take care of theirs
        discard_output()
        sys.exit(BROKEN_PIPE)
