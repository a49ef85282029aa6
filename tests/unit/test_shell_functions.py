"""Whoever sends a script to a host sends the shell functions that it calls, too.

``test_roots_paths`` reads the scripts of an example. This test reads the code: it finds every
function that hands a script to a session, and what the script is made of. A function whose text
calls shell functions of :mod:`provision.host.safely` makes each function that uses the text one of
the same kind, until :data:`provision.host.safely.FUNCTIONS` is put before it. Probes and changes
are no texts: the facts script and a batch have the functions (``test_roots_paths`` holds that).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from provision.host import safely

ROOT = Path(safely.__file__).parents[1]
SAFELY = "provision.host.safely"
#: Its functions whose text comes after the shell functions.
CALLING = ("in_folder", "as_user", "as_owner")
#: The methods of a session that take a script.
SENDS = ("run", "feed", "hold", "fetch")


@dataclass(frozen=True)
class Function:
    """``uses``: the full names that its body has. ``text``: it returns text."""

    uses: frozenset[str]
    text: bool
    sends: bool


def functions(sources: Mapping[str, str]) -> dict[str, Function]:
    """The functions and methods of modules, by full name. Functions inside belong to the outer."""
    return {name: f for module, source in sources.items() for name, f in _of(module, source)}


@cache
def _of(module: str, source: str) -> tuple[tuple[str, Function], ...]:
    tree = ast.parse(source)
    names = {n.name: f"{module}.{n.name}" for n in tree.body if isinstance(n, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    found = []
    for owner, function in _each(tree):
        returns = "" if function.returns is None else ast.unparse(function.returns)
        sends = any(map(_is_sent, ast.walk(function)))
        uses = frozenset(_uses(function, names))
        name = f"{module}.{owner}{function.name}"
        found.append((name, Function(uses, "str" in returns, sends)))
    return tuple(found)


def _each(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield "", node
        if isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.", m) for m in node.body if isinstance(m, ast.FunctionDef))


def _uses(function: ast.FunctionDef, names: Mapping[str, str]) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id in names:
            yield names[node.id]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in names:
            yield f"{names[ast.unparse(node.value)]}.{node.attr}"


def _is_sent(node: ast.AST) -> bool:
    """Whether ``node`` is the call of a session's method: of a session, or of what returns one."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    return node.func.attr in SENDS and "session" in ast.unparse(node.func.value)


def forgetting(sources: Mapping[str, str]) -> list[str]:
    """The functions that send such a text without the shell functions."""
    known = functions(sources)
    calling = {f"{SAFELY}.{name}" for name in CALLING}
    bare = {n for n, f in known.items() if f"{SAFELY}.FUNCTIONS" not in f.uses}
    while more := {n for n in bare - calling if known[n].text and known[n].uses & calling}:
        calling |= more
    return sorted(n for n in bare if known[n].sends and known[n].uses & calling)


def sources() -> dict[str, str]:
    return {
        ".".join(("provision", *path.relative_to(ROOT).with_suffix("").parts)): path.read_text(
            encoding="utf-8"
        )
        for path in ROOT.rglob("*.py")
    }


@pytest.mark.long
def test_whoever_sends_a_script_sends_the_functions_that_it_calls() -> None:
    assert forgetting(sources()) == []


@pytest.mark.long
def test_the_senders_are_found() -> None:
    senders = {name: f for name, f in functions(sources()).items() if f.sends}
    with_functions = {n for n, f in senders.items() if f"{SAFELY}.FUNCTIONS" in f.uses}

    assert with_functions == {
        "provision.plans.alluxio.join_conflict.explained",
        "provision.plans.alluxio.masters._outside",
        "provision.plans.etcd.data.restore_etcd._send",
    }
    assert len(senders) > 25


@pytest.mark.long
@pytest.mark.parametrize(
    "module",
    ["plans.alluxio.masters", "plans.alluxio.join_conflict", "plans.etcd.data.restore_etcd"],
)
def test_each_of_them_is_missed(module: str) -> None:
    """The code as it is, but for the functions: the test above finds it."""
    every = sources()
    name = f"provision.{module}"
    assert "{safely.FUNCTIONS}" in every[name]
    every[name] = every[name].replace("{safely.FUNCTIONS}", "")

    assert {found.rpartition(".")[0] for found in forgetting(every)} == {name}
