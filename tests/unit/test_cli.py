"""The installed command: Invoke's program with our tasks, and our exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import provision
from provision.cli.pipe import BROKEN_PIPE

REPO = Path(__file__).parents[2]
#: How each program is started, in its own process.
PROGRAMS = {
    "alluxio-provision": "from provision.cli.main import main; main()",
    "invoke": "from invoke.main import program; program.run()",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAMS["alluxio-provision"], *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.process
def test_it_says_what_it_is_and_can_do() -> None:
    assert run("--version").stdout == f"alluxio-provision {provision.__version__}\n"
    listed = run("--list").stdout
    assert "deploy-etcd" in listed
    assert "check-nodes" in listed
    assert "--complete" in run("--print-completion-script", "bash").stdout


@pytest.mark.process
def test_what_only_lists_imports_nothing_large() -> None:
    """A command's body imports what it needs when it runs."""
    large = ("cryptography", "etcd3", "fabric", "grpc", "jinja2", "paramiko", "pydantic", "rich")
    show = f"import sys; import provision.cli.program; print({{*{large}}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.process
@pytest.mark.parametrize(
    "arguments", [("deploy-etcd", "--nope"), ("--help", "nope"), ("nope",), ("--nope",)]
)
def test_what_cannot_be_parsed_ends_with_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "nope" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.process
@pytest.mark.parametrize("unbuffered", [None, "1"])
@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        # By Invoke's program, by rich, by one print, by a task, by the document of an error.
        ("alluxio-provision", ("--list",)),
        ("alluxio-provision", ("--explain",)),
        ("alluxio-provision", ("--explain", "disk-full")),
        ("alluxio-provision", ("inventory-schema",)),
        ("alluxio-provision", ("show-inventory", "--inventory", "nope.yml", "--format", "json")),
        ("invoke", ("inventory-schema",)),
        ("invoke", ("show-inventory", "--inventory", "nope.yml", "--format", "json")),
    ],
)
def test_a_reader_that_goes_away_is_no_error(
    program: str, arguments: tuple[str, ...], unbuffered: str | None
) -> None:
    done = into_a_closed_pipe(program, arguments, unbuffered)
    assert done.returncode == BROKEN_PIPE
    unexpected = "BrokenPipe" in done.stderr or "Traceback" in done.stderr
    assert not unexpected, done.stderr


@pytest.mark.process
@pytest.mark.parametrize("unbuffered", [None, "1"])
def test_a_reader_of_both_streams_that_goes_away_is_no_error(unbuffered: str | None) -> None:
    arguments = ("show-inventory", "--inventory", "nope.yml", "--format", "json")
    done = into_a_closed_pipe("alluxio-provision", arguments, unbuffered, stderr=subprocess.STDOUT)
    assert done.returncode == BROKEN_PIPE


def into_a_closed_pipe(
    program: str,
    arguments: Sequence[str],
    unbuffered: str | None,
    stderr: int = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    """What a command does whose stdout nobody reads. Python buffers it, unless told not to."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    if unbuffered is not None:
        env["PYTHONUNBUFFERED"] = unbuffered
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-c", PROGRAMS[program], *arguments],
            stdout=writer,
            stderr=stderr,
            text=True,
            env=env,
            cwd=REPO,
            check=False,
        )
    finally:
        os.close(writer)
