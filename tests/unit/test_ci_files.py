"""The workflows: those for users (run on the lab by the integration tests), and our own."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests import docs

REPO = Path(__file__).parents[2]
OWN = REPO / ".github" / "workflows" / "ci.yml"
FOR_USERS = sorted((REPO / "docs" / "ci").glob("*.yml"))


def jobs(path: Path) -> dict[str, Any]:
    """A workflow's jobs. A key that is there twice is an error of the reader's."""
    workflow = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    assert {"name", "on", "jobs", "permissions"} <= set(workflow)
    assert workflow["permissions"] == {"contents": "read"}
    found: dict[str, Any] = workflow["jobs"]
    return found


def scripts(path: Path) -> list[str]:
    return [step["run"] for job in jobs(path).values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("path", [OWN, *FOR_USERS], ids=lambda path: path.name)
def test_a_workflow_is_one(path: Path) -> None:
    for name, job in jobs(path).items():
        assert job["runs-on"], name
        assert job["timeout-minutes"] <= 60, name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step
            assert "uses" not in step or re.search(r"@v\d+$", step["uses"]), step
            # A secret is never in a script's text, where a shell would see its quotes.
            assert "secrets." not in step.get("run", ""), step
    assert list(docs.unknown("\n".join(scripts(path)))) == []


def test_a_user_s_nightly_look() -> None:
    (path,) = FOR_USERS
    (job,) = jobs(path).values()
    page = docs.text("docs/ci.md")
    looks = [script for script in scripts(path) if script.startswith("invoke ")]
    assert looks == re.findall(r"^\| `(invoke [^`]+)`", page, re.MULTILINE)
    for script in looks[:-1]:
        assert script.endswith(" --dry-run --exit-code"), f"{script} changes hosts"
    wanted = re.findall(r"\$\{\{ secrets\.(\w+) \}\}", path.read_text(encoding="utf-8"))
    assert wanted == re.findall(r"^- `(\w+)`:", page, re.MULTILINE)
    # Installed as the README says.
    lines = [line.replace("--quiet ", "") for line in scripts(path)[0].splitlines()]
    assert lines[:3] == docs.blocks("README.md")[1].commands
    # A red look keeps none of the later ones from being taken.
    assert all("cancelled()" in step["if"] for step in job["steps"][-3:-1])
    assert job["steps"][-1]["if"] == "${{ always() }}"


def test_our_own_runs_ci_and_every_python() -> None:
    for script in scripts(OWN):
        assert os.access(REPO / script.split()[0], os.X_OK), script
    assert ".ci/run" in scripts(OWN)
    matrix = jobs(OWN)["versions"]["strategy"]["matrix"]["python"]
    text = (REPO / "tests" / "versions").read_text(encoding="utf-8")
    (known,) = re.findall(r"^VERSIONS = \((.*)\)$", text, re.MULTILINE)
    assert matrix == re.findall(r'"([\d.]+)"', known)
