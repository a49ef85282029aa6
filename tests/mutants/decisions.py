"""Which functions decide on ordering, gates and quorums: ``functions.txt`` beside this module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("functions.txt")
#: The folders below ``provision`` with all their modules in the list.
FOLDERS = ("etcd/cluster", "plans")
DECIDING = ("order", "gate", "quorum")
OUTSIDE = ("texts", "hosts", "etcd", "options", "files", "keys")


@dataclass(frozen=True, slots=True)
class Function:
    """A function or method (``Class.name``) of ``module``, a path below ``provision``."""

    module: str
    name: str

    @property
    def mangled(self) -> str:
        """The part of a mutant's name before ``__mutmut_``."""
        dotted = "provision." + self.module.removesuffix(".py").replace("/", ".")
        owner, _, name = self.name.rpartition(".")
        return f"{dotted}.xǁ{owner}ǁ{name}" if owner else f"{dotted}.x_{name}"


def listed(text: str | None = None) -> list[tuple[Function, str]]:
    """Every function of the list with the word after which it stands, in the list's order.

    Raises :class:`ValueError` for a line that is none of a module, a group and a comment.
    """
    found: list[tuple[Function, str]] = []
    module = ""
    for line in (LIST.read_text("utf-8") if text is None else text).splitlines():
        if not line or line.startswith("#"):
            continue
        if not line.startswith(" "):
            module = line
            continue
        word, colon, names = line.strip().partition(": ")
        if not colon or not module or word not in (*DECIDING, *OUTSIDE):
            raise ValueError(f"not a line of {LIST.name}: {line!r}")
        found += [(Function(module, name), word) for name in names.split()]
    return found


def deciding() -> dict[str, str]:
    """The functions that decide, by the first part of their mutants' names, with the word."""
    return {f.mangled: word for f, word in listed() if word in DECIDING}


def present(root: Path = ROOT) -> list[Function]:
    """The functions and methods that mutmut can change: those without a decorator."""
    found = []
    for folder in FOLDERS:
        for path in sorted((root / "provision" / folder).rglob("*.py")):
            module = path.relative_to(root / "provision").as_posix()
            tree = ast.parse(path.read_text("utf-8"))
            found += [Function(module, name) for name in _names(tree.body)]
    return found


def _names(body: list[ast.stmt], owner: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            yield f"{owner}{node.name}"
        elif isinstance(node, ast.ClassDef) and not owner:
            yield from _names(node.body, f"{node.name}.")
