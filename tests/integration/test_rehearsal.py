"""No rehearsal moves a leader, or anything else, however it is spelled: on real hosts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .lab import REPO, Lab

pytestmark = pytest.mark.usefixtures("cluster")

#: T stands for a task that would change something, with its options.
SPELLINGS = (
    "T --dry-run",
    "T -d",
    "T -de",
    "--dry T",
    "-R T",
    "-d T",
    "T --dry",
    "T -R",
    "T status -i INVENTORY --dry",
    "T stop-workers -i INVENTORY -d",
    "stop-workers -i INVENTORY -d T",
)


@pytest.mark.parametrize("program", ["invoke", "alluxio-provision"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_it_changes_nothing(lab: Lab, program: str, spelling: str, tmp_path: Path) -> None:
    before, leader = lab.snapshot(), lab.leader()
    other = next(host for host in lab.etcd if host is not leader)
    inventory = str(lab.inventory({"etcd": {"settings": {"heartbeat-interval": 200}}}))
    # The first moves the leader, the second would restart every member.
    for task in (
        ["move-leader", "--inventory", inventory, other.name],
        ["deploy-etcd", "--inventory", inventory],
    ):
        words = [
            word
            for part in spelling.replace("INVENTORY", inventory).split()
            for word in (task if part == "T" else [part])
        ]
        done = subprocess.run(
            [REPO / ".venv" / "bin" / program, *words],
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1, 2), done.stderr
        assert "Traceback" not in done.stderr
    assert lab.leader() is leader
    assert lab.snapshot() == before
