"""What pip installs is all there is."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import provision
from provision.inventory import json_schema
from release import bundle

REPO = Path(__file__).parents[2]
#: Folders without modules. To setuptools each is a package, too: it warns of one that is not named.
_OF_FILES_ALONE = (
    "provision.cli.explanations",
    "provision.cli.shells",
    "provision.templates",
)


def _listed(section: str) -> list[str]:
    text = (REPO / "pyproject.toml").read_text(encoding="utf-8")
    inside = text.partition(f"\n{section} = [\n")[2].partition("\n]")[0]
    return re.findall(r'^ +"(.+)",$', inside, re.MULTILINE)


def test_every_package_is_packed() -> None:
    folders = {path.parent for path in (REPO / "provision").rglob("*.py")}
    found = {".".join(folder.relative_to(REPO).parts) for folder in folders}
    assert set(_listed("packages")) == {*found, *_OF_FILES_ALONE}


def test_an_editable_installation_is_one_line_with_a_path() -> None:
    """setuptools then writes no finder of its own, which costs every run its import, and about
    which it warns in ten lines, also under ``pip --quiet``."""
    text = (REPO / "pyproject.toml").read_text(encoding="utf-8")
    assert 'package-dir = { "" = "." }' in text
    for package in _listed("packages"):
        assert REPO.joinpath(*package.split(".")).is_dir(), package
    assert (REPO / "provision/templates").resolve() == REPO / "templates"


def test_every_file_that_is_no_module_is_packed() -> None:
    """Templates, pages of errors, schemas, scripts of shells and of hosts, lists of properties."""
    text = (REPO / "pyproject.toml").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\[tool\.setuptools\.package-data\]\n((?:.+\n)+)", text, re.MULTILINE)
    packed = set()
    for package, patterns in re.findall(r'^"?([a-z._]+)"? = \[(.*)\]$', table, re.MULTILINE):
        for pattern in re.findall(r'"([^"]+)"', patterns):
            found = {*REPO.joinpath(*package.split(".")).glob(pattern)}
            assert found, f"{package}: {pattern}"
            packed |= found
    there = {
        path
        for package in _listed("packages")
        for path in REPO.joinpath(*package.split(".")).glob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert len(there) > 100
    assert there <= packed
    assert {*(REPO / "provision/cli/json-schemas").iterdir()} <= packed


def test_every_dependency_has_a_lower_bound() -> None:
    wanted = _listed("dependencies")
    assert wanted
    assert all(re.match(r"[A-Za-z0-9.-]+[>=]=[0-9]", one) for one in wanted), wanted


def test_the_version_is_a_release() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", provision.__version__)


def _lock(name: str) -> dict[tuple[str, str], bundle.Locked]:
    text = (REPO / name).read_text(encoding="utf-8")
    return {(one.name, one.version): one for one in bundle.locked(text)}


def test_operators_get_a_part_of_what_is_tested() -> None:
    every, run = _lock("requirements.lock"), _lock("operators.lock")
    assert {key: every.get(key) for key in run} == run
    needed = {canonicalize_name(re.split("[<>=]", one)[0]) for one in _listed("dependencies")}
    tools = {canonicalize_name(re.split("[<>=]", one)[0]) for one in _listed("dev")}
    assert needed <= {name for name, _ in run}
    assert not (tools - needed) & {name for name, _ in run}
    assert len(run) < len(every) / 2


@pytest.mark.parametrize("name", ["requirements.lock", "operators.lock"])
def test_a_lock_file_is_for_every_python(name: str) -> None:
    text = (REPO / name).read_text(encoding="utf-8")
    # uv takes the Python that it runs on for the oldest: on 3.11 it left 3.10 out.
    assert " --python-version 3.10 " in text.splitlines()[1]
    assert not re.search(r"://| @ |^-|--(?!hash=)", "\n".join(text.splitlines()[2:]), re.MULTILINE)
    lock = _lock(name).values()
    for python in bundle.PYTHONS:
        chosen = [one.name for one in lock if one.fits(python, "x86_64")]
        assert len(chosen) == len(set(chosen)), python
        assert {one.name for one in lock} - {"exceptiongroup", "tomli", "colorama"} <= set(chosen)


def test_a_release_in_a_lock_file() -> None:
    digest = "0" * 64
    text = f"# x\na.b==1.0 ; python_full_version < '3.12' \\\n    --hash=sha256:{digest}\n"
    (one,) = bundle.locked(text)
    assert (one.name, one.version, one.hashes) == ("a.b", "1.0", (digest,))
    assert [one.fits(python, "aarch64") for python in ("3.10", "3.12")] == [True, False]
    assert one.lines(one.hashes) == text.removeprefix("# x\n")
    for wrong in ("a==1\n", "a\n", "a>=1 --hash=sha256:" + digest, "a==1 --hash=sha256:0", "-e ."):
        with pytest.raises(ValueError, match="not a release"):
            bundle.locked(wrong)


def test_a_bundle_has_the_wheels_of_the_lock_file_and_no_others(tmp_path: Path) -> None:
    wheels = [f"{bundle.NAME.replace('-', '_')}-{provision.__version__}-py3-none-any.whl"]
    wheels += ["a_b-1.0-py3-none-any.whl", "a_b-1.0-cp310-abi3-manylinux_2_28_x86_64.whl"]
    for name in wheels:
        (tmp_path / name).write_text(name)
    entry = bundle.Locked("a-b", "1.0", "", ("0" * 64,))
    lines = bundle._lock([entry], tmp_path)
    assert lines.count("--hash=sha256:") == 3
    assert "0" * 64 not in lines
    with pytest.raises(SystemExit, match="no wheel of d 1"):
        bundle._lock([entry, bundle.Locked("d", "1", "", ())], tmp_path)
    (tmp_path / "c-1-py3-none-any.whl").touch()
    with pytest.raises(SystemExit, match="wheels of no release"):
        bundle._lock([entry], tmp_path)
    assert not bundle._is_for("a-1-cp311-cp311-linux_x86_64.whl")


def test_the_documents_name_this_version() -> None:
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"alluxio[-_]provision-(\d+\.\d+\.\d+)-(linux|py3)", readme)
    assert set(named) == {(provision.__version__, kind) for kind in ("linux", "py3")}
    changes = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(provision.__version__)} - \d{{4}}-\d\d-\d\d$", changes, re.M)


def _texts() -> Iterator[tuple[str, str]]:
    """What the installed tool can show: pages of errors, and literals that are no docstrings."""
    for page in (REPO / "provision").rglob("*.md"):
        yield str(page.relative_to(REPO)), page.read_text(encoding="utf-8")
    for path in (REPO / "provision").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        comments = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or id(node) in comments:
                continue
            if isinstance(node.value, str):
                yield str(path.relative_to(REPO)), node.value
    yield "inventory's schema", json.dumps(json_schema())


@pytest.mark.long
def test_no_text_names_a_file_that_pip_does_not_install() -> None:
    """The documentation is named by the titles of its pages."""
    found = [
        (where, match[0])
        for where, text in _texts()
        if (match := re.search(r"(?<![\w/])docs/[a-z-]+", text))
    ]
    assert found == []


@pytest.mark.long
def test_the_pages_that_texts_name_are_there() -> None:
    titles = {
        page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        for page in (REPO / "docs").glob("*.md")
    }
    one, other = (
        r'page\s+(?:# )?"([^"]+)"\s+of\s+the\s+doc',
        r'documentation\'s\s+(?:# )?page\s+"([^"]+)"',
    )
    named = {
        re.sub(r"\s+(# )?", " ", title)
        for _, text in _texts()
        for title in (*re.findall(one, text), *re.findall(other, text))
    }
    assert len(named) >= 3
    assert named <= titles
