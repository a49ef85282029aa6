"""Runs tests in several processes, each with files of its own:
``python -m tests.shares COUNT FOLDER PYTEST_OPTION...``

With pytest-xdist every process collects every test and sends every result to another process. That
takes longer than thousands of tests that take a millisecond each. Here a process knows its files by
:data:`SHARE`, and nobody waits for another. Each prints its own result, the first one as it runs.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

#: In the environment of each process: ``NUMBER/COUNT``.
SHARE = "ALXP_TEST_SHARE"
#: pytest's exit code when a share has no test at all.
NO_TESTS = 5


def left_out(folder: Path) -> frozenset[Path]:
    """The files of tests in ``folder`` that are other processes' shares; none without shares."""
    share = os.environ.get(SHARE)
    if share is None:
        return frozenset()
    number, count = map(int, share.split("/"))
    files = sorted(folder.glob("test_*.py"), key=lambda file: (-file.stat().st_size, file.name))
    # The largest files first, and to and fro, so that the shares are of the same size.
    turns = [*range(1, count + 1), *range(count, 0, -1)]
    return frozenset(f for n, f in enumerate(files) if turns[n % len(turns)] != number)


def main(count: int, *arguments: str) -> int:
    """The worst exit code of ``count`` processes of pytest."""
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", *arguments]
    with contextlib.ExitStack() as stack:
        later = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count - 1)]
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command, env={**os.environ, SHARE: f"{n}/{count}"}, stdout=out, stderr=out
                )
            )
            for n, out in enumerate([None, *later], 1)
        ]
        codes = [processes[0].wait()]
        for process, out in zip(processes[1:], later, strict=True):
            codes.append(process.wait())
            out.seek(0)
            sys.stdout.buffer.write(out.read())
            sys.stdout.flush()
    return max((code for code in codes if code != NO_TESTS), key=abs, default=NO_TESTS)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
