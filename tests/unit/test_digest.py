"""A digest is compared as text: the exit code of ``sha256sum -c`` says nothing everywhere."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from provision.host.digest import is_digest


@pytest.mark.process
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("checks", [True, False])
def test_the_file_has_the_digest(
    same: bool, checks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a $b").write_bytes(b"x")
    digest = hashlib.sha256(b"x" if same else b"y").hexdigest()
    if not checks:  # as uutils 0.0.17
        shim = tmp_path / "bin/sha256sum"
        shim.parent.mkdir()
        shim.write_text('#!/bin/sh\nPATH=/usr/bin:/bin sha256sum "$@" || :\n')
        shim.chmod(0o755)
        monkeypatch.setenv("PATH", f"{shim.parent}:/usr/bin:/bin")
    script = f"set -e\nd='{tmp_path}'\n{is_digest('$d/a $1', digest)} || {{ exit 3; }}\necho on"
    done = subprocess.run(["sh", "-c", script, "sh", "$b"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == ((0, "on\n") if same else (3, ""))


@pytest.mark.process
def test_a_file_that_is_not_there_has_none(tmp_path: Path) -> None:
    script = f"{is_digest(f'{tmp_path}/none', 'a' * 64)} || exit 3"
    assert subprocess.run(["sh", "-c", script], capture_output=True).returncode == 3
