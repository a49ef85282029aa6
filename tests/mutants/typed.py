"""The mutants that mypy refuses: such a change never gets as far as a test."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

#: Errors that say nothing about the change: of mutmut's own lines, or that follow from another.
_NOT_MEANT = ("unused-ignore", "has-type", "var-annotated")
#: A line of mutmut that names a mutant.
_LISTS = re.compile(r"\s*mutants_\w+\[.*# mutmut generated$")


def refused(made: Path, wanted: Mapping[str, str]) -> Iterator[str]:
    """The names of the mutants in ``wanted`` with an error of mypy that the original does not have.

    ``wanted`` has the module of each, a path below ``provision``. mypy runs once, over a copy of
    the code that has no other mutants: it takes a quarter of the time.
    """
    copy = made / "typed"
    source = Path(__file__).resolve().parents[2]
    shutil.rmtree(copy / "provision", ignore_errors=True)
    shutil.copytree(source / "provision", copy / "provision")
    shutil.copy(source / "pyproject.toml", copy)
    modules = list(dict.fromkeys(wanted.values()))
    paths = [f"provision/{m}" for m in modules]
    for path in paths:
        text = (made / path).read_text("utf-8")
        (copy / path).write_text(_lean(text, _dotted(path), wanted), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--output=json", *paths],
        cwd=copy,
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
        yield from _of_file(copy / path, _dotted(path), errors.get(path, []))


def _dotted(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def _lean(text: str, dotted: str, wanted: Collection[str]) -> str:
    """A file that mutmut has written, with empty lines in the place of the mutants that are not
    ``wanted``, and of mutmut's lists of them."""
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef) or "__mutmut_" not in node.name:
            continue
        if not node.name.endswith("_orig") and f"{dotted}.{node.name}" not in wanted:
            for number in range(node.lineno - 1, node.end_lineno or 0):
                lines[number] = ""
    return "\n".join("" if _LISTS.match(line) else line for line in lines)


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
