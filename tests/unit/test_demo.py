"""`make demo`, with other programs in place of what it calls: what it needs, what it says, and when
it is red."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
#: Notes how it was called, and fails where a file says so.
STUB = """\
#!/bin/sh
echo "$(basename "$0") $*" >>calls
[ "$(basename "$0")" != invoke ] || echo "the table of $1"
! grep -qsxF -- "$(basename "$0") $1" fails
"""

pytestmark = pytest.mark.process


class Demo:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("tests/lab/lab", ".venv/bin/invoke", "bin/make"):
            stub = folder / name
            stub.parent.mkdir(parents=True)
            stub.write_text(STUB)
            stub.chmod(0o755)
        shutil.copy(REPO / "tests" / "lab" / "demo", folder / "tests" / "lab" / "demo")

    def run(self) -> tuple[int, list[str]]:
        done = subprocess.run(
            ["tests/lab/demo", "--inventory", "inventory/lab.yml"],
            cwd=self.folder,
            env={"PATH": f"{self.folder}/bin:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout.splitlines()

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    return Demo(tmp_path)


def test_only_what_it_needs_is_made(demo: Demo) -> None:
    """Helm, a browser and other releases of etcd belong to the tests."""
    assert demo.run()[0] == 0
    lab = [call.removeprefix("lab ") for call in demo.calls if call.startswith("lab ")]
    assert lab[0] == "deps first"
    assert {*lab} == {"deps first", "deps", "box", "artifacts etcd 3.6.16", "artifacts", "up"}
    assert [call for call in demo.calls if call.startswith("make")] == [
        "make --no-print-directory .venv/bin/.operators"
    ]
    tasks = [call for call in demo.calls if call.startswith("invoke")]
    assert [call.split()[1] for call in tasks] == ["deploy-etcd", "start-workers", "check-nodes"]


def test_it_ends_with_the_table_its_time_and_what_next(demo: Demo) -> None:
    _, lines = demo.run()
    at = lines.index("the table of check-nodes")
    _, time, _, title, *commands = lines[at + 1 :]
    assert re.match(r"\d+ s: ", time)
    assert title == "What next:"
    assert len(commands) == 3
    for line, word in zip(commands, ("status", "help", "make clean"), strict=True):
        assert word in line


@pytest.mark.parametrize(
    "fails",
    ["lab box", "lab up", "lab artifacts", "make --no-print-directory", "invoke check-nodes"],
)
def test_a_part_that_fails_makes_it_red(demo: Demo, fails: str) -> None:
    (demo.folder / "fails").write_text(f"{fails}\n")
    code, lines = demo.run()
    assert code != 0
    assert "What next:" not in lines
