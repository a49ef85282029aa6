"""The mutants that mypy refuses: such a change never gets as far as a test."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

#: Errors that say nothing about the change: of mutmut's own lines, or that follow from another.
_NOT_MEANT = ("unused-ignore", "has-type", "var-annotated")


def refused(made: Path, modules: Collection[str]) -> Iterator[str]:
    """The names of the mutants in ``modules`` (paths below ``provision``) with an error of mypy
    that the original does not have. mypy runs once, over all of them."""
    paths = [f"provision/{m}" for m in modules]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--output=json", *paths],
        cwd=made,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    errors: dict[str, list[tuple[int, str]]] = {}
    for line in done.stdout.splitlines():
        told = json.loads(line)
        if told["severity"] == "error" and told["code"] not in _NOT_MEANT:
            errors.setdefault(told["file"], []).append((told["line"], told["message"]))
    for path in paths:
        dotted = path.removesuffix(".py").replace("/", ".")
        yield from _of_file(made / path, dotted, errors.get(path, []))


def _of_file(path: Path, dotted: str, errors: Collection[tuple[int, str]]) -> Iterator[str]:
    owners: dict[int, str] = {}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name:
            owners.update(dict.fromkeys(range(node.lineno, (node.end_lineno or 0) + 1), node.name))
    said: dict[str, set[str]] = {}
    for number, message in errors:
        if number in owners:
            said.setdefault(owners[number], set()).add(message)
    for name, messages in said.items():
        first, _, number_of = name.rpartition("__mutmut_")
        if number_of != "orig" and messages - said.get(f"{first}__mutmut_orig", set()):
            yield f"{dotted}.{name}"
