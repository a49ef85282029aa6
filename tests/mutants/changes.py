"""What a mutant changes: the diff against the original, and whether it is only words.

A change is only words when it is inside what a person reads: the text of a message, a title, an id,
a note. Everything else counts. Texts that are compared, or that name the kinds of alarm that may
stand, decide something, so they count, too.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Calls whose arguments are only read by persons: problems, errors, and what makes them.
_MESSAGES = {
    *("Problem", "ProvisionError", "Unhealthy", "UsageError", "PreflightFailed", "ChangeFailed"),
    *("NoLeader", "_unusable", "_bad", "printable", "size"),
}
#: Calls whose first argument is a title.
_TITLED = {"Step", "Gate", "Action", "Change"}
#: Calls whose argument at this place is a title.
_TITLE_AT = {"rolling_step": 2, "_new_trust": 4, "call": 0, "step": 0, "_step": 0, "_switch": 1}
_KEYWORDS = {"id", "title", "remedy", "severity", "what", "where"}
#: Names of variables that hold texts.
_NAMES = {
    *("what", "remedy", "title", "where", "said", "text", "names", "who", "rights", "more"),
}
_DECIDING_KEYWORDS = {"standing", "sparing"}


@dataclass(frozen=True, slots=True)
class Change:
    """``old`` and ``new`` are the smallest differing parts of the code, ``line`` the line of
    ``old`` within the function."""

    name: str
    old: str
    new: str
    line: int
    words: bool


def read(path: Path, module: str, functions: Collection[str]) -> Iterator[Change]:
    """The change of every mutant of ``functions`` in a file that mutmut has written. ``module`` is
    the dotted name of the file's module."""
    tree = ast.parse(path.read_text("utf-8"))
    found: dict[str, ast.FunctionDef] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            first, _, number = node.name.rpartition("__mutmut_")
            if f"{module}.{first}" in functions:
                found[node.name] = node
    for name, mutant in found.items():
        first, _, number = name.rpartition("__mutmut_")
        if number != "orig":
            original = found[f"{first}__mutmut_orig"]
            yield change(f"{module}.{name}", original, mutant)


def change(name: str, original: ast.FunctionDef, mutant: ast.FunctionDef) -> Change:
    """The change from ``original`` to ``mutant``, but for their names."""
    path: list[tuple[ast.AST, str]] = []
    old: ast.AST | list[ast.AST] = original
    new: ast.AST | list[ast.AST] = mutant
    while (step := _deeper(old, new)) is not None:
        parent, field, old, new = step
        path.append((parent, field))
    at = old if isinstance(old, ast.AST) else path[-1][0]
    line = getattr(at, "lineno", 0) or next(
        (getattr(p, "lineno", 0) for p, _ in reversed(path) if hasattr(p, "lineno")), 0
    )
    shown_old, shown_new = _source(old), _source(new)
    if shown_old == shown_new or not isinstance(old, ast.expr | ast.stmt):
        shown_old = _source(path[-1][0] if path else original)
        shown_new = _source(_follow(mutant, path[:-1]))
    return Change(name, shown_old, shown_new, line - original.lineno, _is_words(old, path))


def _deeper(
    old: object, new: object
) -> tuple[ast.AST, str, ast.AST | list[ast.AST], ast.AST | list[ast.AST]] | None:
    """The only differing child of two nodes of one kind; None when several differ, or none."""
    if not isinstance(old, ast.AST) or type(old) is not type(new):
        return None
    differing: list[tuple[str, object, object]] = []
    for field in old._fields:
        if isinstance(old, ast.FunctionDef) and field in ("name", "decorator_list"):
            continue
        a, b = getattr(old, field), getattr(new, field)
        if isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return None
            for n, (x, y) in enumerate(zip(a, b, strict=True)):
                if _dump(x) != _dump(y):
                    differing.append((f"{field}.{n}", x, y))
        elif _dump(a) != _dump(b):
            differing.append((field, a, b))
    if len(differing) != 1:
        return None
    field, a, b = differing[0]
    if not isinstance(a, ast.AST) or not isinstance(b, ast.AST):
        return None
    return old, field, a, b


def _dump(node: object) -> str:
    return ast.dump(node) if isinstance(node, ast.AST) else repr(node)


def _follow(root: ast.AST, path: Sequence[tuple[ast.AST, str]]) -> ast.AST:
    """The node at the same place below ``root``."""
    node = root
    for _, field in path:
        name, _, index = field.partition(".")
        value = getattr(node, name)
        node = value[int(index)] if index else value
    return node


def _source(node: ast.AST | list[ast.AST]) -> str:
    return " ".join(ast.unparse(node).split()) if isinstance(node, ast.AST) else str(node)


def _is_words(old: ast.AST | list[ast.AST], path: list[tuple[ast.AST, str]]) -> bool:
    literal = isinstance(old, ast.JoinedStr) or (
        isinstance(old, ast.Constant) and isinstance(old.value, str)
    )
    steps = [*path, (old, "")] if isinstance(old, ast.AST) else path
    for node, field in reversed(steps):
        if isinstance(node, ast.JoinedStr) and node is not old:
            return True
        if literal and _is_compared(node, field):
            return False
        if isinstance(node, ast.keyword):
            if node.arg in _DECIDING_KEYWORDS:
                return False
            if node.arg in _KEYWORDS:
                return True
        if isinstance(node, ast.Call) and _called(node) in _MESSAGES and field != "func":
            return True
        if isinstance(node, ast.Call) and _is_title(node, field, old):
            return True
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and field != "target":
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            if names and names <= _NAMES and _makes_text(node.value):
                return True
    return literal


def _is_compared(node: ast.AST, field: str) -> bool:
    """Whether a text that is ``field`` of ``node`` is compared, or looked up."""
    if isinstance(node, ast.Call):
        return _called(node) == "get" and field == "args.0"
    return isinstance(node, ast.Compare | ast.Set) or (
        isinstance(node, ast.Subscript) and field == "slice"
    )


def _makes_text(value: ast.expr | None) -> bool:
    """Whether an expression is a text: a literal, an f-string, or a choice or sum of those."""
    if isinstance(value, ast.IfExp):
        return _makes_text(value.body) or _makes_text(value.orelse)
    if isinstance(value, ast.BinOp):
        return _makes_text(value.left) or _makes_text(value.right)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        return value.func.attr in ("join", "format") or _makes_text(value.func.value)
    if isinstance(value, ast.Tuple):
        return all(map(_makes_text, value.elts))
    return isinstance(value, ast.JoinedStr) or (
        isinstance(value, ast.Constant) and isinstance(value.value, str)
    )


def _called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _is_title(node: ast.Call, field: str, old: object) -> bool:
    called = _called(node)
    place = 0 if called in _TITLED else _TITLE_AT.get(called)
    return place is not None and field == f"args.{place}" and old is not node
