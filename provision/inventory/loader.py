"""From a YAML file to a checked inventory, or to the list of all its problems.

    text → tree with positions → ranges written out → typed model → checks across fields

The key decides how a value is read. A key for text gets the text as written, so ``version: 3.10``
stays 3.10, and ``host: no`` is a host called "no". Only etcd's ``settings`` follow YAML 1.2,
because etcd defines their types: ``true`` is a boolean, ``on`` is text.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from provision.errors import InventoryError, Problem
from provision.files import read_bytes
from provision.inventory import checks, document, model, range_names, ranges
from provision.inventory.findings import Findings, Mark, unreadable
from provision.inventory.resolved import Inventory, resolve
from provision.text import counted

#: Mappings whose keys are the operator's own: an empty value there is a mistake, not a default.
_FREE = frozenset(
    {
        *(
            "settings",
            "properties",
            "secret_properties",
            "env",
            "members",
            "masters",
            "workers",
            "releases",
        ),
        *("credentials", "secrets"),
    }
)
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False}
_MAX_REPAIRS = 8


@dataclass(frozen=True)
class LoadedInventory:
    """A checked inventory, with the file that it came from.

    The rest of the tool uses ``inventory``. ``file`` is the typed file, and ``root`` is its text
    with positions; both have ranges written out. ``warnings`` did not stop the load.
    """

    inventory: Inventory
    file: model.InventoryFile
    root: document.Mapping
    warnings: tuple[Problem, ...]

    @property
    def name(self) -> str:
        """The file's name, as in positions."""
        return str(self.inventory.path)


def load(path: Path) -> Inventory:
    """The inventory in ``path``. Raises InventoryError with every problem of the file."""
    return read(path).inventory


def read(path: Path) -> LoadedInventory:
    """Like :func:`load`, with warnings and the positions of values."""
    findings = Findings(str(path))
    root = document.parse(_contents(path), findings)
    loaded = _typed(root, path, findings) if root is not None else None
    if findings.errors or loaded is None:
        raise InventoryError(
            f"{counted(len(findings.errors), 'problem')} in {path}",
            problems=findings.errors + findings.warnings,
            id="inventory-invalid",
        )
    return loaded


def _contents(path: Path) -> bytes:
    try:
        return read_bytes(path, document.MAX_BYTES, cut=True)
    except FileNotFoundError:
        remedy = f"write one: invoke init-inventory {shlex.quote(str(path))}"
        problem = Problem(str(path), "no such file", remedy, id="inventory-missing")
    except (OSError, ValueError) as error:
        problem = unreadable(path, error)
    raise InventoryError("the inventory cannot be read", problems=[problem], id=problem.id)


def _typed(root: document.Mapping, path: Path, findings: Findings) -> LoadedInventory | None:
    root, unknown = ranges.expand_document(root, findings)
    file, broken = _validate(_plain(root), root, findings)
    if file is None:
        return None

    where = {
        hosts: {
            name: findings.where(document.place(entry))
            for name, entry in document.entries(root, (group, hosts)).items()
        }
        for group, hosts in range_names.EXPANDED
    }
    for name in file.etcd.members:  # an external etcd's are not in the file
        at = findings.where(document.locate(root, ("etcd", "members", name)))
        where["members"].setdefault(name, at)
    inventory = resolve(file, path, where)
    checks.check(checks.Context(file, inventory, root, findings, broken, unknown))
    return LoadedInventory(inventory, file, root, findings.warnings)


def _plain(node: document.Node, under: str = "") -> Any:
    """The values of ``node`` for the model. A key of the model without a value is left out."""
    if isinstance(node, document.Scalar):
        if node.is_null:
            return None
        return _setting(node) if under == "settings" else node.text
    if isinstance(node, document.Sequence):
        return [_plain(item) for item in node.items]
    free, deep = under in _FREE, under == "settings"
    values: dict[str, Any] = {}
    for name, entry in node.entries.items():
        value = _plain(entry.value, under if deep else name)
        if value is not None or free:
            values[name] = value
    return values


def _setting(scalar: document.Scalar) -> model.Scalar:
    text = scalar.text
    if not scalar.plain:
        return text
    if text in _BOOLEANS or text == "FALSE":
        return _BOOLEANS.get(text, False)
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


def _validate(
    data: dict[str, Any], root: document.Mapping, findings: Findings
) -> tuple[model.InventoryFile | None, set[document.Path]]:
    """The typed file, and the paths that were repaired for it.

    A value that the model refuses is reported, and then left out or replaced with a stand-in. So
    the checks across fields see the rest of the file, and one run reports everything.
    """
    broken: set[document.Path] = set()
    above: set[document.Path] = set()
    said: set[tuple[Mark, str]] = set()
    for _ in range(_MAX_REPAIRS):
        try:
            return model.InventoryFile.model_validate(data), broken
        except ValidationError as refused:
            from provision.inventory.sentences import sentence, trouble

            errors = refused.errors(include_url=False, include_input=False)
        repaired: set[document.Path] = set()
        for error in errors:
            path = _path(error, root)
            # For a value of several possible types, each type has its own error: one is enough.
            if path in repaired and len(path) < len(error["loc"]) and error["type"] != "missing":
                continue
            mark = _place(error, path, root)
            # The consequences of a repair are not reported, and a mistake in a range only once.
            if path not in above and (mark, error["type"]) not in said:
                what, remedy = sentence(error, root, path)
                findings.error(mark, what, remedy, id=trouble(error, path))
                if document.is_ranged(root, path):
                    said.add((mark, error["type"]))
            repaired.add(_repair(data, error, path))
        broken |= repaired
        above |= {path[:n] for path in repaired for n in range(len(path))}
        if () in repaired:
            break
    return None, broken


def _path(error: Any, root: document.Node) -> document.Path:
    """The part of the error's location that exists in the file."""
    path: document.Path = error["loc"]
    if error["type"] == "missing":
        return path[:-1]
    while path and document.find(root, path) is None:
        path = path[:-1]
    return path


def _place(error: Any, path: document.Path, root: document.Node) -> Mark:
    entry = document.find(root, path)
    if entry is not None and (error["type"] == "extra_forbidden" or "[key]" in error["loc"]):
        return entry.key.mark
    return document.locate(root, error["loc"])


_STAND_INS: dict[str, Callable[[document.Path], Any]] = {
    "version": lambda path: "3.6.0",
    "source": lambda path: {"package": True},
    "host": lambda path: f"unknown-{abs(hash(path))}.invalid",
}


def _repair(data: dict[str, Any], error: Any, path: document.Path) -> document.Path:
    """Removes the value of ``error`` from ``data``; returns the changed path."""
    if error["type"] == "missing" and error["loc"][-1] in _STAND_INS:
        name = error["loc"][-1]
        parent: Any = data
        for part in path:
            parent = parent[part]
        parent[name] = _STAND_INS[name](path)
        return (*path, name)
    # Skip the whole list: without one item, the positions of the items after it would change.
    while path and not isinstance(path[-1], str):
        path = path[:-1]
    holder: Any = data
    for part in path[:-1]:
        holder = holder.get(part, {}) if isinstance(holder, dict) else {}
    if path and isinstance(holder, dict):
        holder.pop(path[-1], None)
    return path
