"""Ctrl-C amid an import comes when the import is done; anywhere else, at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from provision.cli.interrupt import between_imports

#: What is said between, and at the end.
SCRIPT = """
import os, signal, time
from provision.cli.interrupt import between_imports
try:
    with between_imports():
        {body}
        time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"


def run(body: str, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        env={**os.environ, "PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.process
def test_an_import_is_finished_first(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(f"import os, signal\n{INTERRUPT}\nprint('imported')\n")
    assert run("import slow", tmp_path) == ["imported", "interrupted"]


@pytest.mark.process
def test_a_validation_is_finished_first(tmp_path: Path) -> None:
    """pydantic's compiled part would make a validation error of the exception."""
    lines = "import pydantic\nfrom typing import Annotated\nimport os, signal\n"
    lines += "def say(value):\n    os.kill(os.getpid(), signal.SIGINT)\n"
    lines += "    print('validated')\n    return value\n"
    lines += "class M(pydantic.BaseModel):\n    a: Annotated[str, pydantic.BeforeValidator(say)]\n"
    (tmp_path / "validating.py").write_text(lines)
    body = "import validating; validating.M.model_validate(dict(a='b'))"
    assert run(body, tmp_path) == ["validated", "interrupted"]


@pytest.mark.process
def test_elsewhere_it_is_at_once(tmp_path: Path) -> None:
    assert run(f"{INTERRUPT}; print('went on')", tmp_path) == ["interrupted"]


def test_the_handler_before_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with between_imports():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_leaves_the_signal_alone() -> None:
    seen: list[object] = []

    def body() -> None:
        with between_imports():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


def test_an_ignored_signal_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with between_imports():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
