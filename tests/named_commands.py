"""The program's commands that error texts and the pages of ``explain`` name, by the error's id.

Error texts are read from the source: every call with ``id="..."``, with the strings that make its
other arguments. What a function is given as an argument, and passes on, is in :data:`GIVEN`.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from provision.cli.commands import namespace
from provision.cli.explain import page
from provision.ids import IDS

PACKAGE = Path(__file__).parents[1] / "provision"
TASKS = sorted(namespace.task_names, key=len, reverse=True)
#: Texts that reach an error as arguments of a function: how each begins, and the error's id.
GIVEN: dict[str, str] = {
    "invoke decommission-worker NAME --revoke-lease ends it; then start the worker": (
        "lease-not-removed"
    ),
    "not installed yet: run invoke start-workers": "worker-not-installed",
    "; then invoke disarm-alarms and restart-workers": "alarm-corrupt",
    "mount it and the worker starts within a minute; on a new disk make that folder "
    "and invoke start-workers: it gets a new identity": "data-disk-missing",
    "mount it and the master starts within a minute; on a new disk make that folder "
    "and invoke start-masters: it gets the journal from the others": "data-disk-missing",
    "mount its disk and run invoke deploy-etcd; or invoke replace-member X": "member-data-lost",
}
#: Texts that belong to no error, by a part of each.
NO_ERROR = (
    "edit it, then invoke show-inventory",
    "edit what says EDIT, then invoke show-inventory",
    "; alarms are still on: invoke disarm-alarms",
    "let your CA sign them, then invoke import-certs",
    "invoke deploy-etcd, or rotate-certs on a running cluster, puts them to use",
    "nothing is left to edit; next: invoke",
    "# `invoke list-clusters` shows the names",
    "# Made from lists of hosts.",
    "#   invoke deploy-etcd --inventory X --dry-run",
    "# `invoke init-inventory FILE` writes an example",
    "invoke show-inventory --inventory X",
    "# alluxio.cluster.name, and the name",
    "# Inventory of one etcd cluster",
    "echo not installed yet",
)
_NAMED = re.compile(
    r"(?:\binvoke ("
    + "|".join(TASKS)
    + r")|(?<![\w./-])("
    + "|".join(t for t in TASKS if "-" in t)
    # Up to the end of the clause, or the next command.
    + r"))(?![\w-])((?:(?!\binvoke )[^.,;:`|\n#)]|\.(?=\w))*)"
)
_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")


def commands(text: str) -> set[str]:
    """What ``text`` names: each task with its options, without their values."""
    found = set()
    for full, bare, rest in _NAMED.findall(text):
        name = full or bare
        known = options(name)
        flags = [f for f in _FLAG.findall(rest) if full or f in known]
        found.add(" ".join([name, *sorted({f"--{f}" for f in flags})]))
    return found


def options(name: str) -> set[str]:
    """The long options of a task, without the dashes."""
    parameters = inspect.signature(namespace[name].body).parameters
    return {p.strip("_").replace("_", "-") for p in parameters if p != "c"}


def page_commands(id: str) -> set[str]:
    """Those of the section "What to do" of an id's page."""
    text = page(id).text.partition("\n## What to do\n")[2].partition("\n## ")[0]
    return commands(re.sub(r"(?<!\n)\n(?!\n)(?!\$)", " ", text))


@dataclass
class _Module:
    """One source file: its constants, functions, and the strings of each error."""

    tree: ast.Module
    constants: dict[str, list[ast.expr]] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)


@functools.cache
def _modules() -> dict[str, _Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = _Module(ast.parse(path.read_text(encoding="utf-8")))
        module.constants = dict(_assigned(module.tree.body))
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef):
                module.functions.setdefault(node.name, node)
        found[str(path.relative_to(PACKAGE))] = module
    return found


def _assigned(body: list[ast.stmt]) -> Iterator[tuple[str, list[ast.expr]]]:
    """Every name that is assigned to in ``body``, also deeper, with all its values."""
    values: dict[str, list[ast.expr]] = {}
    for statement in body:
        for node in ast.walk(statement):
            pairs: list[tuple[ast.expr, ast.expr]] = []
            if isinstance(node, ast.Assign):
                pairs = [(target, node.value) for target in node.targets]
            elif isinstance(node, ast.AugAssign | ast.AnnAssign) and node.value is not None:
                pairs = [(node.target, node.value)]
            for target, value in pairs:
                if isinstance(target, ast.Name):
                    values.setdefault(target.id, []).append(value)
                elif isinstance(target, ast.Tuple):
                    for n, one in enumerate(target.elts):
                        if isinstance(one, ast.Name):
                            whole = value.elts[n] if isinstance(value, ast.Tuple) else value
                            values.setdefault(one.id, []).append(whole)
    yield from values.items()


@dataclass(frozen=True)
class _Reader:
    """Reads the strings of expressions in one function of one module."""

    module: _Module
    local: dict[str, list[ast.expr]]

    def texts(self, node: ast.expr, seen: frozenset[str] = frozenset()) -> list[str]:
        """What ``node`` may be as a string; X stands for what is known at run time only."""
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=parts):
                return self._joined([p for p in parts], seen)
            case ast.FormattedValue(value=inner):
                return self.texts(inner, seen) or ["X"]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._joined([left, right], seen)
            case ast.IfExp(body=one, orelse=other):
                return [*self.texts(one, seen), *self.texts(other, seen)]
            case ast.BoolOp(values=values) | ast.List(elts=values) | ast.Tuple(elts=values):
                return [t for v in values for t in self.texts(v, seen)]
            case ast.Dict(values=values):
                return [t for v in values for t in self.texts(v, seen)]
            case ast.Name(id=name):
                return self._name(name, seen)
            case ast.Attribute(value=ast.Name(), attr=name) if name.isupper():
                return [
                    t
                    for m in _modules().values()
                    for v in m.constants.get(name, [])
                    for t in _Reader(m, {}).texts(v, seen | {name})
                ]
            case ast.Call(func=ast.Attribute(value=inner, attr="format" | "get" | "removesuffix")):
                return self.texts(inner, seen)
            case ast.Call(func=ast.Name(id=name)) if name in self.module.functions:
                return self._returned(name, seen)
            case ast.Subscript(value=inner):
                return self.texts(inner, seen)
        return []

    def _joined(self, parts: list[ast.expr], seen: frozenset[str]) -> list[str]:
        texts = [""]
        for part in parts:
            some = self.texts(part, seen) or ["X"]
            texts = [a + b for a in texts for b in some[:6]][:200]
        return texts

    def _name(self, name: str, seen: frozenset[str]) -> list[str]:
        if name in seen:
            return []
        values = self.local.get(name) or self.module.constants.get(name, [])
        texts = [t for v in values for t in self.texts(v, seen | {name})]
        return texts

    def _returned(self, name: str, seen: frozenset[str]) -> list[str]:
        if name in seen:
            return []
        function = self.module.functions[name]
        reader = _Reader(self.module, dict(_assigned(function.body)))
        return [
            t
            for n in ast.walk(function)
            if isinstance(n, ast.Return) and n.value is not None
            for t in reader.texts(n.value, seen | {name})
        ]


@functools.cache
def error_texts() -> dict[str, list[str]]:
    """By id, the strings of every error of the source."""
    found: dict[str, list[str]] = {id: [] for id in IDS}
    for module in _modules().values():
        inside: dict[int, ast.FunctionDef] = {}
        for function in ast.walk(module.tree):  # the innermost comes last
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    inside[id(node)] = function
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            ids = [
                c.value
                for k in node.keywords
                if k.arg == "id"
                for c in ast.walk(k.value)
                if isinstance(c, ast.Constant) and c.value in found
            ]
            if not ids:
                continue
            at = inside.get(id(node))
            reader = _Reader(module, dict(_assigned(at.body)) if at is not None else {})
            given = [*node.args, *(k.value for k in node.keywords if k.arg != "id")]
            texts = [t for g in given for t in reader.texts(g)]
            for one in ids:
                found[one] += texts
    for text, one in GIVEN.items():
        found[one].append(text)
    return found


@functools.cache
def named() -> dict[str, frozenset[str]]:
    """By id, the commands that its page and its error texts name."""
    return {id: frozenset(page_commands(id).union(*map(commands, error_texts()[id]))) for id in IDS}


def unattributed() -> list[str]:
    """Strings of the source with ``invoke TASK`` in them that belong to no error that is known."""
    known = {t for texts in error_texts().values() for t in texts}
    joined = "\n".join(known)
    left = []
    for name, module in _modules().items():
        prose = {
            id(n.body[0].value)
            for n in ast.walk(module.tree)
            if isinstance(n, ast.Module | ast.FunctionDef | ast.ClassDef)
            and n.body
            and isinstance(n.body[0], ast.Expr)
        }
        parts = {
            id(v) for n in ast.walk(module.tree) if isinstance(n, ast.JoinedStr) for v in n.values
        }
        reader = _Reader(module, {})
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Constant | ast.JoinedStr) or id(node) in prose | parts:
                continue
            for text in reader.texts(node):
                first = re.search(r"invoke (?:" + "|".join(TASKS) + r")\b[^X{]*", text)
                if first and first[0] not in joined and not any(t in text for t in NO_ERROR):
                    left.append(f"{name}:{node.lineno}: {text[:120]}")
    return left
