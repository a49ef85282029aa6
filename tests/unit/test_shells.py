"""The shell of the lab's hosts (tests/integration/shells.py), with one of this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.shells import LOST, Shell

pytestmark = pytest.mark.process


@pytest.fixture
def shell() -> Iterator[Shell]:
    made = Shell(["sh"])
    yield made
    made.close()


@pytest.mark.parametrize(
    ("script", "ended"),
    [
        ("echo a; echo b >&2", (0, "a\n", "b\n")),
        ("printf a; printf b >&2", (0, "a", "b")),
        (":", (0, "", "")),
        ("printf '\\n\\n'", (0, "\n\n", "")),
        ("exit 3", (3, "", "")),
        ("set -e\necho a\nfalse\necho b", (1, "a\n", "")),
        ("cat\necho a", (0, "a\n", "")),  # which the shell has read already
        ("echo 'a$b' \"c`echo d`\" \\\\", (0, "a$b cd \\\n", "")),
        ("cd /; exec >/dev/null; echo a", (0, "", "")),
        ("kill -9 $$", (137, "", "Killed\n")),
    ],
)
def test_a_script_ends_as_in_a_shell_of_its_own(
    shell: Shell, script: str, ended: tuple[int, str, str]
) -> None:
    for _ in range(2):
        assert shell.run(script, 20) == ended
    own = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, check=False)
    if own.returncode >= 0:
        assert (own.returncode, own.stdout, own.stderr) == ended


def test_what_a_script_changes_in_its_shell_is_gone_with_it(shell: Shell) -> None:
    shell.run("cd /; a=b; set -e; umask 0; exec <&-; trap 'echo c' EXIT", 20)
    assert shell.run("pwd; echo $a; false; umask", 20)[1] != shell.run("cd /; pwd", 20)[1]
    assert "b" not in shell.run("echo $a", 20)[1]


def test_one_that_is_no_shell_s_text_is_an_error_of_its_own(shell: Shell) -> None:
    code, _, said = shell.run("if", 20)
    assert code == 2
    assert "yntax error" in said
    assert shell.run("echo a", 20) == (0, "a\n", "")


def test_both_files_may_be_long(shell: Shell) -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' a; head -c 3000000 /dev/zero | tr '\\0' b >&2"
    assert shell.run(script, 60) == (0, "a" * 3000000, "b" * 3000000)
    text = "c" * 300000
    assert shell.run(f"cat <<E\n{text}\nE", 60) == (0, f"{text}\n", "")


def test_after_one_that_takes_too_long_there_is_another_shell(shell: Shell) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        shell.run("echo a; sleep 5", 0.2)
    assert shell.run("echo b", 20) == (0, "b\n", "")


def test_a_shell_that_ends_is_a_connection_that_is_lost(shell: Shell) -> None:
    code, said, _ = shell.run("echo a; kill -9 $PPID", 20)
    assert (code, said) == (LOST, "a\n")
    assert shell.run("echo b", 20) == (0, "b\n", "")


def test_of_a_shell_that_ends_the_files_may_be_closed_before_its_process_is_gone() -> None:
    shell = Shell(["sh", "-c", "sh; exec <&- >&- 2>&-; exec sleep 60"])
    assert shell.run("kill -9 $PPID", 20)[0] == LOST
    assert shell.run("echo b", 20) == (0, "b\n", "")
    shell.close()


def test_several_may_ask(shell: Shell) -> None:
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda n: shell.run(f"echo {n}; echo {n} >&2", 20), range(40)))
    assert said == [(0, f"{n}\n", f"{n}\n") for n in range(40)]
