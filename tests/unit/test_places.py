"""Where a problem is: what, which host, which line of the inventory; in one form everywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.engine.plan import HostChanges
from provision.inventory.resolved import Machine
from tests.unit import builders

PACKAGE = Path(__file__).parents[2] / "provision"
#: The one place, which the properties are in.
ONE = PACKAGE / "inventory" / "resolved.py"

MACHINE = Machine("10.0.0.1", where="inventory.yml:7:5")


@pytest.mark.parametrize(
    "role",
    [
        builders.member(1, machine=MACHINE),
        builders.master("infra1", machine=MACHINE),
        builders.worker("infra1")._replace(machine=MACHINE),
        HostChanges("infra1", MACHINE, ()),
    ],
    ids=lambda role: type(role).__name__,
)
def test_of_a_role(role: HostChanges) -> None:
    assert role.place == "infra1 at 10.0.0.1 (inventory.yml:7:5)"


def test_of_a_machine() -> None:
    assert MACHINE.place == "10.0.0.1 (inventory.yml:7:5)"
    assert Machine("10.0.0.1").place == "10.0.0.1"
    assert MACHINE.addressed("infra1") == "infra1 (10.0.0.1)"


def _written(tree: ast.AST) -> Iterator[ast.JoinedStr]:
    """The texts that put a machine together with a name or a line: each has a host or a line of a
    machine in brackets, or a host behind "at"."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr):
            continue
        for before, value in zip(node.values, node.values[1:], strict=False):
            text = before.value if isinstance(before, ast.Constant) else ""
            end = str(text).endswith((" (", " at "))
            if end and isinstance(value, ast.FormattedValue) and _is_place(value.value):
                yield node
                break


def _is_place(node: ast.expr) -> bool:
    """``machine.host``, ``w.machine.where``, ``m.host``: not the address of a registration."""
    if not isinstance(node, ast.Attribute) or node.attr not in ("host", "where"):
        return False
    of = node.value
    name = of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""
    return name in ("m", "machine")


@pytest.mark.long
def test_nobody_else_writes_it() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != ONE
        for node in _written(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []
    assert list(_written(ast.parse(ONE.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "text",
    [
        'f"{w.name} ({w.machine.host})"',
        'f"{w.name} ({w.machine.where})"',
        'f"{w.name} at {w.machine.host}: x"',
        'f"{machine.host} ({machine.where}): x"',
        'f"{m.host} ({m.where})"',
    ],
)
def test_it_would_be_seen(text: str) -> None:
    assert len(list(_written(ast.parse(text)))) == 1


@pytest.mark.long
def test_a_machine_s_line_is_read_nowhere_else() -> None:
    """Whoever reads it would write a form of its own."""
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != ONE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "where" and _is_place(node)
    ]
    assert found == []
