"""``alluxio-provision``: the tasks as a command of their own, installed by pip.

The command line itself is in :mod:`provision.cli.program`. It is imported in :func:`main`, behind
the handler of Ctrl-C, because the imports take half a second.
"""

from __future__ import annotations

import sys

from provision.cli.lightly import start_lightly


def script() -> None:
    """The console script. Ends the process with the exit code of the task."""
    code: object = None
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    if code is None or isinstance(code, int):
        from provision.cli.ending import end

        end(code or 0)
    sys.exit(code)  # type: ignore[arg-type]


def main() -> None:
    """Run the command line. Raises :class:`SystemExit` with the exit code of the task."""
    start_lightly()
    if sys.argv[1:2] == ["--complete-names"]:  # a shell asks, and throws stderr away
        from provision.cli import complete

        complete.main(sys.argv[2:])
        return
    from provision.cli.interrupt import exit_when_interrupted

    exit_when_interrupted()
    from provision.cli.first_screen import answer
    from provision.cli.pipe import BROKEN_PIPE, discard_output, flush_output

    try:
        try:
            if (text := answer(sys.argv[1:])) is not None:
                print(text)
            else:
                _run()
        finally:
            flush_output()
    except BrokenPipeError:  # for example of --list | head; tasks handle their own
        discard_output()
        sys.exit(BROKEN_PIPE)


def _run() -> None:
    from provision.cli.lightly import import_invoke

    import_invoke()
    from provision import program_in_use
    from provision.cli.first_screen import NAME
    from provision.cli.program import TASKS, program

    program_in_use.start(NAME, TASKS)
    program.run()
