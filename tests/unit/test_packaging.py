"""What pip installs is all there is."""

from __future__ import annotations

import re
from pathlib import Path

import provision

REPO = Path(__file__).parents[2]


def _listed(section: str) -> list[str]:
    text = (REPO / "pyproject.toml").read_text(encoding="utf-8")
    inside = text.partition(f"\n{section} = [\n")[2].partition("\n]")[0]
    return re.findall(r'^ +"(.+)",$', inside, re.MULTILINE)


def test_every_package_is_packed() -> None:
    folders = {path.parent for path in (REPO / "provision").rglob("*.py")}
    found = {".".join(folder.relative_to(REPO).parts) for folder in folders}
    assert set(_listed("packages")) == {*found, "provision.templates"}


def test_every_page_of_an_error_is_packed() -> None:
    text = (REPO / "pyproject.toml").read_text(encoding="utf-8")
    assert '"provision.cli" = ["explanations/*.md"]' in text


def test_every_dependency_has_a_lower_bound() -> None:
    wanted = _listed("dependencies")
    assert wanted
    assert all(re.match(r"[A-Za-z0-9.-]+[>=]=[0-9]", one) for one in wanted), wanted


def test_the_version_is_a_release() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", provision.__version__)
