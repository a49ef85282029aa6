"""The installed command: Invoke's program with our tasks, and our exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

import provision


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from provision.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_says_what_it_is_and_can_do() -> None:
    assert run("--version").stdout == f"alluxio-provision {provision.__version__}\n"
    listed = run("--list").stdout
    assert "deploy-etcd" in listed
    assert "check-nodes" in listed
    assert "--complete" in run("--print-completion-script", "bash").stdout


@pytest.mark.parametrize(
    "arguments", [("deploy-etcd", "--nope"), ("--help", "nope"), ("nope",), ("--nope",)]
)
def test_what_cannot_be_parsed_ends_with_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "nope" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -c 'from provision.cli import main; main()' --list | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
