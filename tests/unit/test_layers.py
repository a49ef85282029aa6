"""A module imports from its own layer and from the layers below it."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from provision.cli.commands import namespace

REPO = Path(__file__).parents[2]
PACKAGE = REPO / "provision"
#: Parts of another layer, and a module that is a layer of its own.
PART_OF = {
    "cli/tasks": "cli",
    "host/kinds": "host",
    "inventory/checks": "inventory",
    "": "base",
}
ALONE = ("artifacts",)
#: What only ``ssh/`` imports or names, in a comment as well.
SSH_LIBRARY = re.compile(r"\b(fabric|paramiko)\b", re.IGNORECASE)


def _name(path: Path) -> str:
    parts = path.relative_to(REPO).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# A folder of folders alone is no layer.
MODULES = {
    _name(path): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py" or len([*path.parent.glob("*.py")]) > 1
}


def layer(module: str) -> str:
    if (last := module.rpartition(".")[2]) in ALONE:
        return last
    folder = MODULES[module].parent.relative_to(PACKAGE).as_posix()
    return PART_OF.get("" if folder == "." else folder, folder)


def imports(source: str, name: str = "") -> Iterator[str]:
    """The modules of ours that ``source`` imports, wherever the line stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found = full if full in MODULES else node.module or ""
                if found in MODULES:
                    yield found


@functools.cache
def all_imports() -> dict[str, set[str]]:
    """By module, the modules of ours that it imports."""
    return {
        name: {other for other in imports(path.read_text(encoding="utf-8"), name) if other != name}
        for name, path in MODULES.items()
    }


def layers() -> list[str]:
    """The list in CONTRIBUTING, from the top down."""
    text = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"\*\*Layers\.\*\*.*?```text\n(.*?)```", text, re.DOTALL)
    return str(block).split()


def test_every_layer_is_in_the_list() -> None:
    assert sorted(layers()) == sorted({layer(name) for name in MODULES})


@pytest.mark.long
def test_no_import_runs_upward() -> None:
    rank = {name: number for number, name in enumerate(layers())}
    upward = [
        f"{name} imports {other}"
        for name, others in all_imports().items()
        for other in others
        if rank[layer(other)] < rank[layer(name)]
    ]
    assert sorted(upward) == []


@pytest.mark.long
def test_no_modules_import_each_other() -> None:
    try:
        TopologicalSorter(all_imports()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("from paramiko.common import x", True),
        ("    import fabric", True),
        ("metadata.version('paramiko')", True),
        ("# as Paramiko's error", True),
        ("connection = 'paramiko_ssh'  # Ansible's name", False),
    ],
)
def test_the_ssh_library_is_known_by_its_name(line: str, named: bool) -> None:
    assert bool(SSH_LIBRARY.search(line)) == named


def test_only_the_ssh_folder_knows_the_ssh_library() -> None:
    """Another library is then a change of that folder, and of pyproject.toml."""
    knowing = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if SSH_LIBRARY.search(path.read_text(encoding="utf-8"))
    }
    assert knowing >= {"ssh/connect.py", "ssh/session.py"}
    assert [path for path in sorted(knowing) if not path.startswith("ssh/")] == []


#: Tasks that share a module, since each is the other's way back or other half.
SHARED = {
    "enable-auth": "auth",
    "disable-auth": "auth",
    "export-csrs": "csr_exchange",
    "import-certs": "csr_exchange",
    "kept-data": "retained",
    "rollback-workers": "upgrade_workers",
    "start-masters": "masters",
    "stop-masters": "masters",
}


def test_a_task_that_changes_something_has_its_module() -> None:
    changing = [
        task
        for task in namespace.task_names
        if "dry_run" in inspect.signature(namespace[task].body).parameters
    ]
    plans = {path.stem for path in (PACKAGE / "plans").rglob("*.py")}
    assert len(changing) > 20
    assert [t for t in changing if SHARED.get(t, t.replace("-", "_")) not in plans] == []
    assert set(SHARED) <= set(changing)


def test_imports_in_functions_and_for_types_count() -> None:
    source = """
if TYPE_CHECKING:
    from provision.cli import console
def later():
    import provision.engine.plan
    from provision.errors import Problem
"""
    found = {"provision.cli.console", "provision.engine.plan", "provision.errors"}
    assert set(imports(source)) == found
