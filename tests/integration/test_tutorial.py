"""The tutorial's commands, as they stand there, on the lab."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .lab import REPO, SSH, Lab

#: What brings the lab up and away again; the lab of the tests is up.
NOT_HERE = ("make demo", "make clean")


@pytest.fixture
def clone(lab: Lab, tmp_path: Path) -> Path:
    """A folder with what the tutorial's reader has."""
    for name in ("tasks.py", "provision", "templates", ".venv"):
        (tmp_path / name).symlink_to(REPO / name)
    (tmp_path / ".lab").mkdir()
    (tmp_path / ".lab" / "ssh").symlink_to(SSH)
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "lab.yml").write_bytes(lab.inventory().read_bytes())
    return tmp_path


def test_every_command_of_the_tutorial_works(lab: Lab, workers: None, clone: Path) -> None:
    text = (REPO / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    commands = [line[2:] for block in blocks for line in block.splitlines()]
    assert len(commands) > 20
    assert all(f"$ {command}\n" in text for command in commands)
    script = "".join(f"{command}\n" for command in commands if command not in NOT_HERE)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=clone,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    for pattern in (
        r"0 changed; endpoints: ",
        r"\+snapshot-count: 20000",
        r"2 workers: 1 LIVE, 1 FAILED",
        r"etcd: 2 of 3 members healthy",
        r"2 workers: 2 LIVE",
        r".* \S+\.db$",
        r"\d+ changed",
    ):
        assert any(re.search(pattern, line) for line in said), f"{pattern}?\n{done.stdout}"
    assert said.count("exit code 1") == 2
    assert lab.left_over() == {}
