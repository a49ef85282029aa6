"""Every kind of trouble has an id, every id a page, and every page says what an operator needs."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.cli.explain import page, pages
from provision.errors import Problem, ProvisionError, UsageError
from provision.ids import IDS
from provision.inventory.model import InventoryFile
from provision.inventory.sentences import model_at
from tests import docs

REPO = Path(__file__).parents[2]
PACKAGE = REPO / "provision"
SECTIONS = ["What it means", "Causes", "What to do", "What was changed"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", "from provision.cli.main import main; main()", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=REPO)


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "ids.py":
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_the_pages_are_those_of_the_ids() -> None:
    assert {path.stem for path in (PACKAGE / "cli" / "explanations").iterdir()} == set(IDS)
    assert list(IDS) == sorted(set(IDS))


@pytest.mark.long
def test_every_id_is_used() -> None:
    used = {
        node.value
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(IDS) - used == set()


@pytest.mark.long
def test_nothing_is_reported_without_an_id() -> None:
    """mypy sees to it where it knows the class; this finds a class that would bring a default."""
    takes_one = {Problem.__name__, *(c.__name__ for c in _below(ProvisionError))}
    own = {"NodesError", "EtcdUnreachable", "EtcdTooMuch"}  # each has one of its own
    bare = [
        f"{path.relative_to(REPO)}:{node.lineno}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in takes_one - own
        and not any(keyword.arg == "id" for keyword in node.keywords)
    ]
    assert bare == []


def _below(base: type[ProvisionError]) -> Iterator[type[ProvisionError]]:
    yield base
    for one in base.__subclasses__():
        yield from _below(one)


@pytest.mark.parametrize("id", IDS)
def test_a_page_has_a_title_and_every_section(id: str) -> None:
    found = page(id)
    lines = found.text.splitlines()
    assert lines[0] == f"# {found.title}"
    heads = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert heads == SECTIONS
    texts = "\n".join(lines[1:]).split("\n## ")[1:]
    assert all(text.partition("\n")[2].strip() for text in texts)
    changed = " ".join(texts[-1].lower().split())
    assert "exit code" in changed or "warning" in changed


def test_titles_are_short_and_differ() -> None:
    titles = [p.title for p in pages()]
    assert len(set(titles)) == len(titles)
    assert max(map(len, titles)) <= 70


class TestCommand:
    @pytest.mark.process
    def test_a_page(self) -> None:
        done = run("explain", "host-key-unknown")
        assert done.returncode == 0
        assert done.stdout.startswith("host-key-unknown: A host's key is not in known_hosts\n")
        assert run("--explain", "host-key-unknown").stdout == done.stdout

    @pytest.mark.process
    def test_an_unknown_id_names_near_ones(self) -> None:
        for line in ("explain", "host-unreachabel"), ("--explain", "Host_Unreachable"):
            done = run(*line)
            assert done.returncode == 2
            assert "host-unreachable" in done.stderr
            assert done.stdout == ""

    @pytest.mark.process
    def test_all_of_them(self) -> None:
        listed = run("--explain")
        assert listed.returncode == 0
        assert all(id in listed.stdout for id in IDS)
        assert run("explain", "all").stdout == listed.stdout

    @pytest.mark.process
    def test_as_json(self) -> None:
        (found,) = json.loads(run("explain", "locked", "--format", "json").stdout)["pages"]
        assert found["id"] == "locked"
        assert found["text"].startswith(f"# {found['title']}\n")


def test_an_id_from_elsewhere_steers_no_terminal() -> None:
    with pytest.raises(UsageError) as caught:
        page("\x1b[2Jlocked")
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize("id", IDS)
def test_what_a_page_names_exists(id: str) -> None:
    """Tasks and options, ids of other pages, and keys of an inventory."""
    text = page(id).text
    assert list(docs.unknown(text)) == []
    assert set(re.findall(r"invoke explain ([a-z-]+)", text)) <= set(IDS)
    sections = "|".join(InventoryFile.model_fields)
    for dotted in re.findall(rf"`((?:{sections})(?:\.[a-z_]+)+)", text):
        *parents, key = dotted.split(".")
        at = model_at(tuple(parents))
        while at is None and parents:  # below a mapping of the user's own names
            *parents, key = parents
            at = model_at(tuple(parents))
        assert at is not None, dotted
        assert key in at.model_fields, dotted
    for fence in re.findall(r"^```(.*)$", text, re.MULTILINE)[::2]:
        assert fence in ("console", "yaml")
