"""Ansible's INI inventories: a dialect of their own, which configparser does not read.

Sections are ``[group]``, ``[group:children]`` and ``[group:vars]``; a host's line is a pattern and
``key=value`` pairs, quoted as in a shell; values are Python literals, or else text.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable

from provision.ansible import patterns
from provision.ansible.tree import Tree, Var, classified

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_CHILD = re.compile(r"([^:\]\s]+)\s*(?:#.*)?")
_MAX_LITERAL = 4096
#: Characters of a host's line: what splits it into words takes four times as long for twice as
#: many.
_MAX_LINE = 16_384

Report = Callable[[str, str, str], None]


def read(text: str, name: str, tree: Tree, report: Report) -> None:
    """Add the contents of ``text`` to ``tree``; ``report(where, what, remedy)`` gets mistakes."""
    group, kind = "ungrouped", "hosts"
    every = patterns.Patterns()
    referred: dict[str, str] = {}
    defined: set[str] = set()
    for number, raw in enumerate(text.splitlines(), 1):
        line, where = raw.strip(), f"{name}:{number}"
        if not line or line[0] in "#;":
            continue
        if line.startswith("[") and (section := _SECTION.fullmatch(line)):
            group, kind = section[1], section[2] or "hosts"
            if kind not in ("hosts", "children", "vars"):
                report(
                    where,
                    f"[{group}:{kind}] has an unknown kind",
                    "the kinds are children and vars",
                )
                kind = "unknown"
            elif kind == "vars":
                referred.setdefault(group, where)
            else:
                defined.add(group)
            tree.group(group, where)
        elif kind == "vars":
            key, equals, value = line.partition("=")
            if equals:
                tree.group(group, where).vars[key.strip()] = _literal(value.strip(), where)
            else:
                report(where, f"{line[:60]!r} is not a key=value pair", "")
        elif kind == "children":
            if child := _CHILD.fullmatch(line):
                tree.group(group, where).children[child[1]] = None
                referred.setdefault(child[1], where)
            else:
                report(where, f"{line[:60]!r} is not the name of a group", "")
        elif kind == "hosts":
            _host(line, where, group, tree, report, every)
    for missing, where in referred.items():
        if missing not in defined and missing not in ("all", "ungrouped"):
            report(where, f"there is no group {missing!r}", f"add a section [{missing}]")


def _host(
    line: str, where: str, group: str, tree: Tree, report: Report, every: patterns.Patterns
) -> None:
    if len(line) > _MAX_LINE:
        report(where, f"the line has more than {_MAX_LINE} characters", "")
        return
    try:
        words = shlex.split(line, comments=True)
        names, port = every.expand(words[0])
    except ValueError as error:
        report(where, str(error), "")
        return
    given = {"ansible_port": Var(str(port), where)} if port is not None else {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals:
            report(where, f"{word[:60]!r} is not a key=value pair of a host", "")
        given[key] = _literal(value, where)
    for name in names:
        tree.host(name, where).vars.update(given)
        tree.group(group, where).hosts[name] = None


def _literal(text: str, where: str) -> Var:
    """A value as in Ansible: the text of a Python literal, or the text as written."""
    try:
        value = ast.literal_eval(text) if len(text) < _MAX_LITERAL else text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    return classified(value if isinstance(value, str) else str(value), where)
