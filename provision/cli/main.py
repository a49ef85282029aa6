"""``alluxio-provision``: the tasks as a command of their own, installed by pip.

The command line itself is in :mod:`provision.cli.program`. It is imported in :func:`main`, behind
the handler of Ctrl-C, because the imports take half a second.
"""

from __future__ import annotations

import sys

from provision.cli.interrupt import exit_when_interrupted


def main() -> None:
    """The console script. Ends the process with the exit code of the task."""
    exit_when_interrupted()
    if sys.argv[1:2] == ["--complete-names"]:
        from provision.cli import complete

        complete.main(sys.argv[2:])
        return
    from provision import program_in_use
    from provision.cli.command import BROKEN_PIPE, discard_output, flush_output
    from provision.cli.program import NAME, TASKS, program

    program_in_use.start(NAME, TASKS)
    try:
        try:
            program.run()
        finally:
            flush_output()
    except BrokenPipeError:  # for example of --list | head; tasks handle their own
        discard_output()
        sys.exit(BROKEN_PIPE)
