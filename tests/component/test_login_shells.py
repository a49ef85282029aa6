"""Login shells that people have: each runs what it is given, whatever its start files print."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from provision.ssh.remote import Answer, Marks, command_line, own_errors

MARKS = Marks("0123456789abcdef")
#: Each shell, the file that it reads before ``-c``, and a line for that file.
SHELLS = {
    "dash": None,
    "bash": (".bashrc", "echo Welcome"),
    "fish": (".config/fish/config.fish", "echo Welcome"),
    "tcsh": (".tcshrc", "echo Welcome"),
}
SCRIPT = b"""printf '%s\\n' 'a b' "$LC_ALL" "c'd" 'e\\f' '!!' '\\0047'
echo to >&2; exit 3
"""


@pytest.mark.parametrize("password", [False, True])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_login_shell(tmp_path: Path, shell: str, password: bool) -> None:
    if shutil.which(shell) is None:
        pytest.fail(f"{shell} is not here: `tests/lab/lab deps` installs it")
    if (start := SHELLS[shell]) is not None:
        path = tmp_path / start[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(start[1] + "\n")
    line = command_line("sh -s", MARKS, password=password)
    given = (b"secret\n" if password else b"") + SCRIPT
    # bash reads .bashrc where sshd has started it: SHLVL is 0 and SSH_CLIENT is there.
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "SSH_CLIENT": "x", "SHLVL": "0"}
    done = subprocess.run([shell, "-c", line], input=given, capture_output=True, env=env)
    answer = Answer(MARKS)
    out = answer.feed(done.stdout).decode()

    assert out.splitlines() == ["a b", "C", "c'd", "e\\f", "!!", "\\0047"]
    assert (done.returncode, own_errors(done.stderr, MARKS)) == (3, b"to\n")
    assert answer.before == ("Welcome" if start else "")


def test_one_that_lets_nobody_in() -> None:
    nologin = shutil.which("nologin", path="/usr/sbin:/sbin")
    assert nologin is not None
    done = subprocess.run([nologin, "-c", command_line("sh -s", MARKS)], capture_output=True)
    answer = Answer(MARKS)
    assert (answer.feed(done.stdout), answer.begun) == (b"", False)
    assert "not available" in answer.before
