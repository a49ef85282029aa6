"""What a login shell is given: by real shells, with a sudo of the test's own where one is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.errors import Problem
from provision.ssh.remote import MAX_NOISE, Answer, Marks, command_line, own_errors, refusal

MARKS = Marks("0123456789abcdef")
#: tcsh and fish are tried by tests/component/test_login_shells.py: they are not on every machine.
SHELLS = [name for name in ("sh", "bash") if shutil.which(name)]


def ran(
    command: str,
    given: bytes = b"",
    *,
    password: bool = False,
    shell: str = "sh",
    env: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Answer, bytes, subprocess.CompletedProcess[bytes]]:
    line = command_line(command, MARKS, password=password)
    done = subprocess.run(
        [shell, "-c", line], input=given, capture_output=True, env={**os.environ, **env}
    )
    answer = Answer(MARKS)
    return answer, answer.feed(done.stdout), done


@pytest.mark.process
@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_gets_a_fixed_environment(shell: str) -> None:
    host = {"LANG": "de_DE.UTF-8", "ETCDCTL_ENDPOINTS": "x", "JAVA_TOOL_OPTIONS": "-x"}
    answer, out, done = ran("sh -s", b"env; umask; echo to >&2; exit 3\n", shell=shell, env=host)

    assert sorted(line for line in out.decode().splitlines() if line[:4] != "PWD=") == [
        "0022",
        "HOME=/root",
        "LC_ALL=C",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SHELL=/bin/sh",
    ]
    assert (done.returncode, answer.ended, answer.before) == (3, True, "")
    assert own_errors(done.stderr, MARKS) == b"to\n"


def test_what_stands_outside_the_marks_is_noise() -> None:
    """A .bashrc that prints, before the answer and on standard error."""
    answer = Answer(MARKS)
    out = b"Welcome!\n" + MARKS.login + MARKS.begin + b"held\n" + MARKS.end + b"bye\n"
    assert answer.feed(out) == b"held\n"
    assert (answer.before, answer.begun, answer.ended) == ("Welcome!\nbye", True, True)
    assert own_errors(b"stty: no\n" + MARKS.login + MARKS.begin + b"mine", MARKS) == b"mine"


@given(
    st.binary(max_size=200),
    st.binary(max_size=200),
    st.lists(st.integers(0, 300), max_size=8),
)
def test_the_answer_is_the_same_however_it_comes(
    noise: bytes, said: bytes, cuts: list[int]
) -> None:
    said += MARKS.end[:-3]  # what begins like the end mark belongs to the answer
    whole = noise + MARKS.begin + said + MARKS.end + noise
    answer, out, start = Answer(MARKS), b"", 0
    for end in [*sorted(cuts), len(whole)]:
        out += answer.feed(whole[start:end])
        start = max(start, end)

    assert (out, answer.ended) == (said, True)


def test_a_held_command_s_first_line_comes_at_once() -> None:
    answer = Answer(MARKS, end=False)
    assert answer.feed(MARKS.login + MARKS.begin) == b""
    assert answer.feed(b"held\n") == b"held\n"


def test_a_login_shell_that_prints_without_end() -> None:
    with pytest.raises(OSError, match="prints much"):
        Answer(MARKS).feed(b"x" * (MAX_NOISE + 1))


@pytest.fixture
def sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose login is not root; its sudo is a script that a test writes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"id": "echo 1000", "sudo": "exit 1"}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr("provision.ssh.remote.PATH", f"{folder}:/usr/bin:/bin")
    return folder / "sudo"


#: Reads one line, as sudo does.
ONE_LINE = 'IFS= read -r p; [ "$p" = secret ] || { echo "Sorry, try again." >&2; exit 1; }'
#: sudo-rs 0.2.5 reads as much as its buffer holds (issue 16 of this tool's; 0.2.15 does not).
ALL_THAT_IS_THERE = '[ "$(head -n 1)" = secret ] || exit 1; cat >/dev/null'
NOTHING = ":"


@pytest.mark.process
@pytest.mark.parametrize("reads", [ONE_LINE, ALL_THAT_IS_THERE, NOTHING])
def test_the_command_never_shares_its_input_with_sudo(sudo: Path, reads: str) -> None:
    sudo.write_text(f'#!/bin/sh\n{reads}\nshift 3\nexec "$@"\n')
    answer, out, done = ran("cat", b"secret\nline\n\0" + b"x" * 200_000, password=True)

    assert (out, done.returncode) == (b"line\n\0" + b"x" * 200_000, 0)
    assert answer.ended
    assert b"secret" not in done.stderr


@pytest.mark.process
def test_root_needs_no_password() -> None:
    if os.geteuid():
        pytest.skip("only root is root")
    answer, out, _ = ran("cat", b"secret\nline\n", password=True)
    assert (out, answer.ended) == (b"line\n", True)


def why(said: str, *, password: bool = False, started: bool = True, out: bytes = b"") -> Problem:
    answer = Answer(MARKS)
    answer.feed(out)
    stderr = b"motd: sudo\n" + (MARKS.login if started else b"") + said.encode()
    return refusal(answer, stderr, MARKS, "h", password=password)


@pytest.mark.parametrize(
    ("said", "what", "remedy"),
    [
        ("sudo: a password is required", "sudo asks for a password", "ssh.sudo_password"),
        ("sudo: interactive authentication is required", "asks for a password", "sudo_password"),
        ("sudo: sorry, you must have a tty to run sudo", "(requiretty)", "!requiretty"),
        ("op is not in the sudoers file.", "does not let it become root", "sudoers"),
        ("Sorry, user op may not run sudo on h.", "does not let it become root", "sudoers"),
        ("I'm sorry op. I'm afraid I can't do that", "does not let it", "sudoers"),
        ("sh: 1: exec: sudo: not found", "there is no sudo", "install sudo"),
        ("something else", "sudo does not run the command (something else)", "by hand"),
    ],
)
def test_why_there_is_no_root(said: str, what: str, remedy: str) -> None:
    problem = why(said)
    assert problem.what.startswith("no root: ")
    assert what in problem.what
    assert remedy in problem.remedy
    assert problem.id == "root-needed"


def test_a_wrong_password_is_one() -> None:
    said = "Sorry, try again.\nsudo: no password was provided\nsudo: 1 incorrect password attempt"
    problem = why(said, password=True)
    assert "sudo did not accept the password" in problem.what


@pytest.mark.parametrize(
    "out", [b"This account is currently not available.\n", b"", b"\x1b[31mNo.\n"]
)
def test_a_login_shell_that_runs_nothing(out: bytes) -> None:
    problem = why("", started=False, out=out)
    assert problem.what.startswith("takes the login, but its login shell runs no command")
    assert problem.id == "ssh-login-refused"
    assert "\x1b" not in problem.what


@pytest.mark.parametrize("command", ["sh -s", "sh -c 'echo \"$HOME\" !x \\n'"])
def test_no_shell_takes_a_character_in_its_own_way(command: str) -> None:
    for password in (False, True):
        line = command_line(command, MARKS, password=password)
        start, _, encoded = line.partition("' '")
        assert start == """exec sh -c 'eval "$(printf %b "$0")\""""
        assert not set("'!\n") & set(encoded[:-1])
        assert all(part[:1] == "0" for part in encoded.split("\\")[1:])
