"""The tutorial's commands, as they stand there, on the lab."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests import docs

from .lab import Lab


def test_every_command_of_the_tutorial_works(lab: Lab, workers: None, clone: Path) -> None:
    """In one shell, as its variables go on. What brings the lab up and away is .ci/run's."""
    blocks = docs.blocks("docs/tutorial.md", docs.TUTORIAL)
    script = "".join(f"{command}\n" for block in blocks for command in block.commands)
    assert script.count("\n") > 20
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
