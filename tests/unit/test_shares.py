"""Several processes share the tests of ``make unit``: each file is of one, each failure is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import shares

HERE = Path(__file__).parent


def test_every_file_is_of_one_share(monkeypatch: pytest.MonkeyPatch) -> None:
    every = set(HERE.glob("test_*.py"))
    for count in (1, 2, 3):
        own = []
        for number in range(1, count + 1):
            monkeypatch.setenv(shares.SHARE, f"{number}/{count}")
            own.append(every - shares.left_out(HERE))
        assert set().union(*own) == every
        assert sum(map(len, own)) == len(every)
        sizes = [sum(f.stat().st_size for f in some) for some in own]
        assert max(sizes) < 1.1 * min(sizes)


def test_without_shares_no_file_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(shares.SHARE, raising=False)
    assert shares.left_out(HERE) == set()


@pytest.mark.process
@pytest.mark.parametrize(("failing", "code"), [("1", 1), ("2", 1), ("none", 0)])
def test_a_failure_in_any_share_is_the_result(failing: str, code: int, tmp_path: Path) -> None:
    """Each process runs the same file here, and fails by its number."""
    test = tmp_path / "test_it.py"
    test.write_text(
        "import os\n"
        "def test_it() -> None:\n"
        f"    assert not os.environ['{shares.SHARE}'].startswith({failing!r})\n"
    )
    command = [sys.executable, "-m", "tests.shares", "2", str(test), "-q", "-c", "/dev/null"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1], check=False)
    assert run.returncode == code, run.stdout + run.stderr
    assert run.stdout.count("1 failed") == code
    assert run.stdout.count("1 passed") == 2 - code
