"""Compiled templates are kept, and never used for another one (provision/template_cache.py)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jinja2
import pytest

from provision.template_cache import TemplateCache

NAME = "a.j2"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / NAME).write_text("one {{ x }}")
    return tmp_path


def rendered(folder: Path, *programs: str) -> tuple[str, int]:
    """The text, by a process' first use of the template; and how many were compiled for it."""
    compiled = []

    class Counted(jinja2.Environment):
        def _generate(self, *args: object, **named: object) -> str:
            compiled.append(args)
            return super()._generate(*args, **named)  # type: ignore[arg-type]

    cache = TemplateCache(folder, programs)
    environment = Counted(loader=jinja2.FileSystemLoader(folder), bytecode_cache=cache)
    return environment.get_template(NAME).render(x=1), len(compiled)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("__pycache__/*"))


def test_it_is_compiled_once(folder: Path) -> None:
    assert rendered(folder) == ("one 1", 1)
    (file,) = kept(folder)
    assert file.stat().st_mode & 0o022 == 0
    assert rendered(folder) == ("one 1", 0)
    assert kept(folder) == [file]


def test_a_template_that_has_changed_is_compiled_again(folder: Path) -> None:
    rendered(folder)
    before = (folder / NAME).stat()
    (folder / NAME).write_text("two {{ x }}")
    os.utime(folder / NAME, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert rendered(folder) == ("two 1", 1)
    assert rendered(folder) == ("two 1", 0)
    assert len(kept(folder)) == 1


def test_so_it_is_when_a_program_that_says_how_has_changed(folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "render.py"
    program.write_text("1")
    assert rendered(folder, str(program))[1] == 1
    assert rendered(folder, str(program))[1] == 0
    program.write_text("22")
    assert rendered(folder, str(program))[1] == 1
    assert rendered(folder)[1] == 1


@pytest.mark.parametrize("part", [0.0, 0.1, 0.2, 0.5, 0.9])
def test_a_file_that_was_cut_short_is_made_again(folder: Path, part: float) -> None:
    rendered(folder)
    (file,) = kept(folder)
    data = file.read_bytes()
    for damaged in (data[: int(len(data) * part)], data[: int(len(data) * part)] + b"\0" * 40):
        file.write_bytes(damaged)
        assert rendered(folder) == ("one 1", 1)
        assert rendered(folder) == ("one 1", 0)


def test_nothing_is_kept_where_python_may_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert [rendered(folder) for _ in range(2)] == [("one 1", 1)] * 2
    assert kept(folder) == []
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (folder / "__pycache__").write_text("")  # as a folder that is not writable, for root, too
    assert [rendered(folder) for _ in range(2)] == [("one 1", 1)] * 2
