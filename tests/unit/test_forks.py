"""Runs that are forks of one process (tests/forks.py) are as those that are their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import forks

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "inventory" / "example.yml")


@pytest.fixture(autouse=True, scope="module")
def _buffered() -> Iterator[None]:
    """With this variable, all of them are processes of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONUNBUFFERED", raising=False)
        yield


@pytest.fixture(scope="module")
def server(_buffered: None) -> Iterator[forks.Server]:
    made = forks.Server()
    yield made
    made.close()


def by_itself(words: list[str], environment: Mapping[str, str]) -> forks.Ended:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--list"],
        ["--help", "deploy-etcd"],
        ["nonsense"],
        ["--explain"],
        ["show-inventory", "--inventory", EXAMPLE],
        ["show-inventory", "--inventory", EXAMPLE, "--format", "json"],
        ["show-inventory", "--inventory", "nowhere.yml"],
        ["deploy-etcd", "--inventory", EXAMPLE, "--dry-run", "--formt", "json"],
        ["inventory-schema"],
    ],
    ids=" ".join,
)
def test_they_print_and_end_alike(server: forks.Server, words: list[str]) -> None:
    environment = {**os.environ, "COLUMNS": "60"}
    assert server.run(["invoke", *words], environment, 60) == by_itself(
        ["invoke", *words], environment
    )


#: Says what a process finds. It is run as ``python -m``, as the program is.
FOUND = "tests.unit.found_at_start"


def test_a_fork_is_as_an_interpreter_that_has_just_started(
    server: forks.Server,
) -> None:
    environment = {"PATH": os.environ["PATH"], "ANOTHER": "value\n"}
    environment |= {n: v for n, v in os.environ.items() if n.startswith(forks.AT_START)}
    words = [FOUND, "a", "", "b c"]
    (code, out, err), alone = server.run(words, environment, 60), by_itself(words, environment)
    assert out.splitlines() == alone[1].splitlines()
    assert (code, err) == (7, "said\n") == (alone[0], alone[2])
    assert out.endswith("at the end\n")


def test_no_two_forks_draw_the_same_number(server: forks.Server) -> None:
    def drawn() -> str:
        return server.run([FOUND, "draw"], os.environ, 60)[1]

    assert drawn() != drawn()


def test_one_that_is_killed_ends_by_its_signal(server: forks.Server) -> None:
    assert server.run([FOUND, "kill"], os.environ, 60)[0] == -9


def test_one_that_takes_too_long_is_ended(server: forks.Server, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    with pytest.raises(subprocess.TimeoutExpired):
        server.run([FOUND, "wait", str(told)], os.environ, 2)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{told.read_text()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "change",
    [
        {"PYTHONHASHSEED": "1"},
        {"PYTHONPATH": "/nowhere"},
        {"PYTHONUNBUFFERED": "1"},
        {"LD_PRELOAD": "/nowhere.so"},
        {"LC_ALL": "C"},
        {"TZ": "Asia/Tokyo"},
        {"PYDANTIC_DISABLE_PLUGINS": "no"},
        {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
        {"GRPC_VERBOSITY": "DEBUG"},
        {"INVOKE_DEBUG": "1"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_read_at_the_start_or_by_an_import_may_not_differ(
    server: forks.Server, change: dict[str, str]
) -> None:
    assert not server.refuses(os.environ)
    assert server.refuses({**os.environ, **change}) == next(iter(change))


def test_what_a_run_itself_reads_may_differ(server: forks.Server) -> None:
    names = ["TERM", "COLUMNS", "NO_COLOR", "HOME", "PATH", "SHELL", "SSH_AUTH_SOCK", "SUDO_USER"]
    names += ["XDG_STATE_HOME", "XDG_CACHE_HOME", "PROVISION_INVENTORY", "TMPDIR"]
    assert not server.refuses({**os.environ, **dict.fromkeys(names, "/another")})


def test_the_first_run_of_a_task_in_a_file_is_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = ["show-inventory", "--inventory", "nowhere.yml"]
    monkeypatch.setattr(forks, "_FIRST", set())
    monkeypatch.delenv("ALXP_FORKS", raising=False)
    assert forks.run(line, os.environ, 60) is None
    again = forks.run(line, os.environ, 60)
    assert again is not None
    assert again[0] == 2
    assert forks.run(["audit"], os.environ, 60) is None
    assert forks.run(line, {**os.environ, "TZ": "Asia/Tokyo"}, 60) is None
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "tests/other.py::test")
    assert forks.run(line, os.environ, 60) is None
    monkeypatch.setenv("ALXP_FORKS", "0")
    assert forks.run(line, os.environ, 60) is None
