"""The documentation names what there is, and nothing else."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from provision.cli.commands import namespace
from provision.inventory import load
from tests import docs

REPO = Path(__file__).parents[2]


def test_every_schema_of_a_document_is_listed() -> None:
    code = "\n".join(p.read_text(encoding="utf-8") for p in (REPO / "provision").rglob("*.py"))
    made = set(re.findall(r'"(alluxio-provision/[a-z-]+/[0-9]+)"', code))
    listed = re.findall(r"`(alluxio-provision/[a-z-]+/[0-9]+)`", _text(REPO / "docs" / "json.md"))
    assert made == set(listed)
    assert len(listed) == len(set(listed))


def test_every_test_that_the_threat_model_names_is_there() -> None:
    text, files = _text(REPO / "docs" / "security.md"), [*(REPO / "tests").rglob("test_*.py")]
    there = "\n".join(map(_text, files))
    functions, classes = re.findall(r"`(test_\w+)`", text), re.findall(r"`(Test\w+)`", text)
    assert functions
    assert [n for n in functions if f"def {n}(" not in there] == []
    assert [n for n in classes if not re.search(rf"^class {n}\b", there, re.MULTILINE)] == []
    places = re.findall(r"`(?:tests/\w+/)?(test_\w+\.py)`", text)
    assert {*places} <= {f.name for f in files}
    assert [p for p in re.findall(r"`(tests/[^`]+)`", text) if not (REPO / p).exists()] == []


def test_every_claim_of_the_threat_model_names_a_test() -> None:
    text = _text(REPO / "docs" / "security.md")
    claims = [p for p in text.split("\n\n") if p.startswith("**")]
    assert len(claims) > 9
    rows = re.findall(r"^\| [^-].* \|$", text.partition("| claim | test |")[2], re.MULTILINE)
    assert len(rows) > 12
    assert [c for c in (*claims, *rows) if not re.search(r"`(tests/\w+/)?[tT]est_?\w+", c)] == []
    on_hosts = _text(REPO / "tests" / "integration" / "test_service_users.py")
    starred = re.findall(r"`(test_\w+)`\*", text)
    assert starred
    assert [n for n in starred if f"def {n}(" not in on_hosts] == []


def test_every_task_is_in_the_readme() -> None:
    shown = set(re.findall(r"`([a-z-]+)[^`]*`", _text(REPO / "README.md")))
    assert set(namespace.task_names) <= shown


def test_no_page_names_a_task_or_an_option_that_is_not_there() -> None:
    found = [f"{page}: {what}" for page in docs.PAGES for what in docs.unknown(docs.text(page))]
    assert found == []


def test_every_command_block_has_one_place() -> None:
    for page in docs.PAGES:
        first = [block.commands[0] for block in docs.blocks(page)]
        assert len(first) == len(set(first)), f"{page}: blocks that begin alike"
        assert first == list(docs.PLACES.get(page, {})), page
    assert set(docs.PLACES) <= set(docs.PAGES)


#: What somebody types from nothing to LIVE workers, by the README alone: at most so many commands.
ROLES = {
    "in a clone": (7, ["python3 -m venv .venv", docs.SERVERS]),
    "by pip": (6, ["python3 -m venv ~/alluxio-provision", docs.SERVERS]),
    "with an etcd that is there": (4, [docs.AN_ETCD]),
    "from Ansible": (5, [docs.ANSIBLE]),
}
#: With these go those who have an inventory of hosts on which etcd is to be.
THEN = ["alluxio-provision trust-hosts", "alluxio-provision deploy-etcd --dry-run"]


@pytest.mark.parametrize("role", ROLES)
def test_no_role_types_more_commands(role: str) -> None:
    most, own = ROLES[role]
    of = {block.commands[0]: block.commands for block in docs.blocks("README.md")}
    wanted = own if docs.AN_ETCD in own else [*own, *THEN]
    typed = [command for first in wanted for command in of[first]]
    assert len(typed) <= most, typed
    assert " check-nodes" in typed[-1]


def test_on_kubernetes_three_commands() -> None:
    of = {block.commands[0]: block.commands for block in docs.blocks("README.md")}
    (helm,) = (first for first in of if first.startswith("helm upgrade"))
    typed = [*of[docs.PODS], *of[helm]]
    assert len(typed) == 3
    assert "EDIT" not in docs.text("README.md")


def test_commands_are_in_blocks_that_say_so() -> None:
    for page in docs.PAGES:
        for block in docs.fenced(page):
            assert block.language in docs.LANGUAGES, f"{block}: {block.language!r}"
            commands = re.search(r"^\$ ", block.text, re.MULTILINE) is not None
            assert commands == (block.language == "console"), block
        # No fence that is not closed, or of another form.
        assert docs.text(page).count("```") == 2 * len(docs.fenced(page)), page


def test_every_place_is_true() -> None:
    for page, placed in docs.PLACES.items():
        for block in docs.blocks(page):
            place = placed[block.commands[0]]
            if isinstance(place, docs.Module):
                assert page in _text(REPO / place.path), f"{block} is not in {place.path}"
            elif isinstance(place, docs.Elsewhere):
                _is_in_that_test(block, place)
            elif isinstance(place, docs.NotHere):
                assert place.why


def _is_in_that_test(block: docs.Block, place: docs.Elsewhere) -> None:
    """The test is there, and its module has the tasks and the options of the block."""
    path, _, name = place.test.partition("::")
    code = _text(REPO / path)
    assert f"\ndef {name}(" in code, place.test
    for command in block.commands:
        words = command.split()
        wanted = [f'"{words[1]}"', *(w.partition("=")[0] for w in words if w.startswith("--"))]
        for word in wanted:
            assert word in code, f"{block}: {path} has no {word}"


def test_what_ci_executes_it_executes() -> None:
    recipes = _recipes()
    called = _called(recipes)
    lines = {line.replace("--quiet ", "") for name in called for line in recipes[name][1]}
    for page in docs.PAGES:
        for block in docs.blocks(page, docs.CI):
            for command in block.commands:
                made = re.fullmatch(r"make ([a-z-]+)", command)
                assert made[1] in called if made else command in lines, f"{block}: {command}"


def _recipes() -> dict[str, tuple[list[str], list[str]]]:
    """Of each target of the Makefile: what it needs, and the commands of its recipe."""
    text = _text(REPO / "Makefile").replace("$(BIN)", ".venv/bin")
    found: dict[str, tuple[list[str], list[str]]] = {}
    rule = r"^([a-z./-]+):(?!=)([^#\n]*).*\n((?:\t.*\n)*)"
    for name, needs, recipe in re.findall(rule, text, re.MULTILINE):
        commands = [line.strip().lstrip("@") for line in recipe.splitlines()]
        before = found.get(name, ([], []))
        found[name] = (before[0] + needs.split(), before[1] + commands)
    return found


def _called(recipes: dict[str, tuple[list[str], list[str]]]) -> set[str]:
    """The targets that .ci/run makes, with those that these need."""
    waiting = re.findall(r"^ *make ([a-z-]+)", _text(REPO / ".ci" / "run"), re.MULTILINE)
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in recipes and name not in found:
            found.add(name)
            waiting += recipes[name][0]
    return found


@pytest.mark.parametrize(
    "block", [b for page in docs.PAGES for b in docs.fenced(page, "yaml")], ids=str
)
def test_every_inventory_of_the_pages_can_be_loaded(
    block: docs.Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by itself, or as a change of the README's."""
    (tmp_path / ".ssh").mkdir()
    for name in (".ssh/id_ed25519", "known_hosts"):
        (tmp_path / name).touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    yaml = YAML(typ="safe", pure=True)
    whole = yaml.load(next(b.text for b in docs.fenced("README.md", "yaml")))
    part = yaml.load(block.text)
    path = tmp_path / "inventory.yml"
    with path.open("w", encoding="utf-8") as file:
        yaml.dump({**whole, **part} if "cluster" in part else merged(whole, part), file)
    assert load(path).path == path


def test_the_readme_s_map_is_of_what_is_there() -> None:
    """Every room has its line, with every module that is in it."""
    map_ = docs.fenced("README.md", "text")[-1].text
    rooms = dict(re.findall(r"^(provision/[a-z_/]*) +(.*\n(?: +.*\n)*)", map_, re.MULTILINE))
    modules = [p for p in (REPO / "provision").rglob("*.py") if p.name != "__init__.py"]
    there = {path.parent for path in modules}
    assert set(rooms) == {f"{folder.relative_to(REPO).as_posix()}/" for folder in there}
    for folder, line in rooms.items():
        listed = re.sub(r"\([^)]*\)|[a-z_/]+/: [^;]*$", "", line)
        named = set(re.findall(r"[a-z0-9_]+", listed))
        assert named == {path.stem for path in modules if path.parent == REPO / folder}, folder


def test_the_inventory_s_reference_has_sections_whose_keys_no_browser_breaks() -> None:
    """On a phone the table scrolls; its keys and its defaults stay whole."""
    page = importlib.import_module("docs.hooks").inventory().partition("## A commented")[0]
    sections = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert {"ssh", "etcd", "etcd.tls", "alluxio", "alluxio.workers.NAME"} <= {*sections}
    rows = [r.split(" | ") for r in page.splitlines() if re.match(r"\| (?!key|---)", r)]
    assert len(rows) > 100
    for key, _, default, *_ in rows:
        for cell in (key.removeprefix("| "), default):
            assert re.fullmatch(r'(<code style="white-space: nowrap">[^<>]+</code>)?', cell), cell


def test_the_site_searches_without_a_server_and_packs_no_code() -> None:
    """Opened as files; of docs/, only pages and pictures."""
    text = _text(REPO / "mkdocs.yml")
    assert "\n  - offline" in text
    assert "\n  - search" in text
    hidden = text.partition("exclude_docs: |\n")[2].partition("\nnot_in_nav")[0].split()
    code = {f.name for f in (REPO / "docs").glob("*.py")} | {"__pycache__/", "data/"}
    assert code <= {*hidden}


def merged(base: Any, changes: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return {
        key: merged(base[key], changes[key]) if key in base and key in changes else value
        for key, value in {**base, **changes}.items()
    }


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")
