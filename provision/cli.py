"""``alluxio-provision``: the tasks as a command of their own, installed by pip.

It is Invoke's program with our tasks in it: ``--list``, ``--help TASK``, ``--version``, and shell
completion by ``--print-completion-script``. What Invoke cannot parse ends with code 2, as every
other usage error does.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from invoke.exceptions import Exit, ParseError
from invoke.program import Program

from provision import __version__
from provision.commands import namespace
from provision.errors import UsageError
from provision.run import BROKEN_PIPE

NAME = "alluxio-provision"


class _Program(Program):
    def parse_core(self, argv: list[str] | None) -> None:
        with _usage():
            super().parse_core(argv)

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
        program.run()
    except BrokenPipeError:  # of --list | head, for one; tasks take care of theirs
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
