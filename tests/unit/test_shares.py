"""Several processes share the tests of ``make unit``: each file is of one, each failure is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import shares

HERE = Path(__file__).parent


def own_files(monkeypatch: pytest.MonkeyPatch, count: int) -> list[set[Path]]:
    """The files of each of ``count`` shares: together all, each in one."""
    every = set(HERE.glob("test_*.py"))
    own = []
    for number in range(1, count + 1):
        monkeypatch.setenv(shares.SHARE, f"{number}/{count}")
        own.append(every - shares.left_out(HERE))
    assert set().union(*own) == every
    assert sum(map(len, own)) == len(every)
    return own


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_file_is_of_one_share(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.delenv(shares.SECONDS, raising=False)
    sizes = [sum(f.stat().st_size for f in some) for some in own_files(monkeypatch, count)]
    assert max(sizes) < 1.1 * min(sizes)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shares_take_as_long(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """By what the files took the last time; one is new, and one is no longer there."""
    seconds = {f.name: f.stat().st_size % 7 / 10 for f in HERE.glob("test_*.py")}
    del seconds["test_shares.py"]
    monkeypatch.setenv(shares.SECONDS, json.dumps({**seconds, "test_gone.py": 90.0}))
    sums = [sum(seconds.get(f.name, 0) for f in some) for some in own_files(monkeypatch, count)]
    assert max(sums) - min(sums) < 1


def test_what_is_told_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.mkdir()
    monkeypatch.setattr(shares, "REMEMBERED", tmp_path / "cache" / "seconds.json")
    assert shares._remembered() == {}
    shares._remember({}, told)
    assert not shares.REMEMBERED.exists()
    monkeypatch.setenv(shares.TOLD, str(told))
    for number, seconds in (("1/2", {"a": 1.5}), ("2/2", {"b": 2.5})):
        monkeypatch.setenv(shares.SHARE, number)
        shares.tell(seconds)
    shares._remember({"a": 9.0, "c": 3.5}, told)
    assert shares._remembered() == {"a": 1.5, "b": 2.5, "c": 3.5}
    shares.REMEMBERED.write_text('{"a": 1.')
    assert shares._remembered() == {}


def test_without_shares_no_file_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(shares.SHARE, raising=False)
    assert shares.left_out(HERE) == set()


def test_files_are_in_memory_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shares, "IN_MEMORY", tmp_path)
    monkeypatch.setattr(shares, "FREE", 1)
    assert shares._fast() == tmp_path
    monkeypatch.setattr(shares, "FREE", 1 << 62)
    assert shares._fast() is None
    monkeypatch.setattr(shares, "IN_MEMORY", tmp_path / "none")
    assert shares._fast() is None


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
