"""The documentation names what there is, and nothing else."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from provision.commands import namespace

REPO = Path(__file__).parents[2]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]


def test_every_schema_of_a_document_is_listed() -> None:
    code = "\n".join(p.read_text(encoding="utf-8") for p in (REPO / "provision").rglob("*.py"))
    made = set(re.findall(r'"(alluxio-provision/[a-z-]+/[0-9]+)"', code))
    listed = re.findall(r"`(alluxio-provision/[a-z-]+/[0-9]+)`", _text(REPO / "docs" / "json.md"))
    assert made == set(listed)
    assert len(listed) == len(set(listed))


def test_every_task_is_in_the_readme() -> None:
    shown = set(re.findall(r"`([a-z-]+)[^`]*`", _text(REPO / "README.md")))
    assert set(namespace.task_names) <= shown


def test_no_page_names_a_task_that_is_not_there() -> None:
    for page in PAGES:
        named = set(re.findall(r"\binvoke ([a-z]+(?:-[a-z]+)+)", _text(page)))
        assert named <= set(namespace.task_names), page


def test_every_option_in_a_command_of_the_pages_exists() -> None:
    for page in PAGES:
        for name, rest in re.findall(r"\binvoke ([a-z][a-z-]+)([^`|\n#]*)", _text(page)):
            if name not in namespace.task_names:
                continue
            parameters = inspect.signature(namespace[name].body).parameters
            known = {parameter.strip("_").replace("_", "-") for parameter in parameters}
            for flag in re.findall(r"--([a-z][a-z-]*)", rest):
                assert flag in known or flag.removeprefix("no-") in known, (
                    f"{page}: {name} --{flag}"
                )


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")
