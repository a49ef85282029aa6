"""The console script ends before Python frees its objects, and loses nothing by it."""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from provision.cli import ending

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
START = "from provision.cli.main import script\n"


def ran(code: str, *words: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *words]
    if shell:
        command = ["bash", "-o", "pipefail", "-c", shell, "bash", *command]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(("word", "code"), [("--version", 0), ("--list", 0), ("no-such-task", 2)])
def test_output_and_exit_code_are_those_of_main(word: str, code: int) -> None:
    usual = ran("from provision.cli.main import main\nmain()", word)
    found = ran(f"{START}script()", word)
    assert found.returncode == usual.returncode == code
    assert (found.stdout, found.stderr) == (usual.stdout, usual.stderr)
    assert found.stdout or found.stderr


def test_the_process_ends_when_all_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for module, name in ((threading, "_shutdown"), (atexit, "_run_exitfuncs")):
        monkeypatch.setattr(module, name, functools.partial(done.append, name))
    monkeypatch.setattr(os, "_exit", lambda code: done.append(f"exit {code}"))
    ending.end(3)
    assert done == ["_shutdown", "_run_exitfuncs", "exit 3"]


def test_threads_end_and_exit_handlers_are_called_and_what_they_print_comes() -> None:
    code = (
        "import atexit, threading, time, weakref\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "class Thing: pass\n"
        "thing = Thing()\n"
        "weakref.finalize(thing, print, 'finalized')\n"
        "atexit.register(print, 'handler')\n"
        "def late(): time.sleep(0.3); print('thread')\n"
        "threading.Thread(target=late).start()\n"
        "ThreadPoolExecutor(1).submit(lambda: (time.sleep(0.2), print('pool')))\n"
    )
    found = ran(f"{code}{START}script()", "-V")
    said = set(found.stdout.split())
    assert said >= {"finalized", "handler", "pool", "thread"}
    assert found.returncode == 0


def test_a_reader_that_has_gone() -> None:
    found = ran(f"{START}script()", "--list", shell='"$@" | head -c 1; echo " ${PIPESTATUS[0]}"')
    assert found.stdout.split()[-1] in ("0", "141")
    assert "Traceback" not in found.stderr
    found = ran(f"{START}script()", "--list", shell='"$@" >/dev/full')
    assert found.returncode != 0


def test_a_closed_stdout() -> None:
    assert ran(f"{START}script()", "no-such-task", shell='"$@" >&-').returncode == 2


@pytest.mark.parametrize("watch", ["setprofile", "settrace"])
def test_a_profiler_writes_what_it_has_seen(watch: str) -> None:
    code = f"import sys\nsys.{watch}(lambda *_: None)\n{START}try: script()\n"
    found = ran(f"{code}except SystemExit: print('seen')", "-V")
    assert found.stdout.endswith("seen\n")


def test_whoever_wants_to_look_at_the_objects_can() -> None:
    command = [sys.executable, "-i", "-c", f"{START}script()", "-V"]
    done = subprocess.run(command, input="print(6 * 7)\n", capture_output=True, text=True, cwd=ROOT)
    assert "42" in done.stdout
