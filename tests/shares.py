"""Runs tests in several processes, each with files of its own:
``python -m tests.shares COUNT FOLDER PYTEST_OPTION...``

With pytest-xdist every process collects every test and sends every result to another process. That
takes longer than thousands of tests that take a millisecond each. Here a process knows its files by
:data:`SHARE`, and nobody waits for another. Each prints its own result, the first one as it runs.

What the tests write is in memory, where there is one for it, and is not kept: to look at it, run
the test alone.

All shares should take equally long: a file counts by the processor time of its last run, which
stands in pytest's cache, and by its size until it has run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

#: In the environment of each process: ``NUMBER/COUNT``.
SHARE = "ALXP_TEST_SHARE"
#: There, too: the seconds of the last run by file, the same for all, and where to write the new.
SECONDS = "ALXP_TEST_SECONDS"
TOLD = "ALXP_TEST_TOLD"
#: pytest's exit code when a share has no test at all.
NO_TESTS = 5
#: The seconds that it takes to import and collect a file of tests.
COLLECTED = 0.01
#: Files in memory, and the bytes that must be free there: those of the tests many times over.
IN_MEMORY, FREE = Path("/dev/shm"), 1 << 28
REMEMBERED = Path(__file__).parents[1] / ".pytest_cache" / "seconds.json"


def left_out(folder: Path) -> frozenset[Path]:
    """The files of tests in ``folder`` that are other processes' shares; none without shares."""
    share = os.environ.get(SHARE)
    if share is None:
        return frozenset()
    number, count = map(int, share.split("/"))
    weights = _weights(folder, json.loads(os.environ.get(SECONDS, "{}")))
    shares: list[list[Path]] = [[] for _ in range(count)]
    sums = [0.0] * count
    for file in sorted(weights, key=lambda file: (-weights[file], file.name)):
        least = sums.index(min(sums))
        shares[least].append(file)
        sums[least] += weights[file]
    return frozenset(weights) - frozenset(shares[number - 1])


def _weights(folder: Path, seconds: Mapping[str, float]) -> dict[Path, float]:
    """A file that has not run takes as long as others of its size."""
    sizes = {file: file.stat().st_size for file in folder.glob("test_*.py")}
    known = [file for file in sizes if file.name in seconds]
    taken = sum(seconds[file.name] for file in known)
    a_byte = taken / sum(sizes[file] for file in known) if taken else 1.0
    return {file: COLLECTED + seconds.get(file.name, size * a_byte) for file, size in sizes.items()}


def tell(seconds: Mapping[str, float]) -> None:
    """For the process of a share, at its end: what each of its files took."""
    if told := os.environ.get(TOLD):
        name = os.environ[SHARE].replace("/", "-")
        (Path(told) / name).write_text(json.dumps(seconds), encoding="utf-8")


def _remembered() -> dict[str, float]:
    try:
        return dict(json.loads(REMEMBERED.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # the first run, or one that was killed as it wrote
        return {}


def _remember(before: Mapping[str, float], told: Path) -> None:
    found = [json.loads(file.read_text(encoding="utf-8")) for file in told.iterdir()]
    if found:
        REMEMBERED.parent.mkdir(exist_ok=True)
        now = dict(before)
        for seconds in found:
            now.update(seconds)
        REMEMBERED.write_text(json.dumps(now, indent=1, sort_keys=True), encoding="utf-8")


def _fast() -> Path | None:
    """Where the tests' files go; None: where temporary files are by default."""
    try:
        enough = shutil.disk_usage(IN_MEMORY).free >= FREE
    except OSError:
        return None
    return IN_MEMORY if enough and os.access(IN_MEMORY, os.W_OK) else None


def main(count: int, *arguments: str) -> int:
    """The worst exit code of ``count`` processes of pytest."""
    # So that no file stays in memory.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # Without the log records of each test, for which no test here asks: they take 0.1 ms each.
    without = ("-p", "no:xdist", "-p", "no:logging")
    command = [sys.executable, "-m", "pytest", *without, *arguments]
    seconds = _remembered()
    with contextlib.ExitStack() as stack:
        told = stack.enter_context(tempfile.TemporaryDirectory())
        files = stack.enter_context(tempfile.TemporaryDirectory(prefix="alxp-", dir=_fast()))
        environment = {**os.environ, SECONDS: json.dumps(seconds), TOLD: told, "TMPDIR": files}
        later = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count - 1)]
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command, env={**environment, SHARE: f"{n}/{count}"}, stdout=out, stderr=out
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
        _remember(seconds, Path(told))
    return max((code for code in codes if code != NO_TESTS), key=abs, default=NO_TESTS)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
