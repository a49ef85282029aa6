"""Ansible's YAML: inventories, and the files of group_vars/ and host_vars/.

The YAML is composed, not constructed: tags stay tags, and nothing becomes an object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from provision.ansible import patterns
from provision.ansible.tree import Kind, Tree, Var, Vars, classified

Report = Callable[[str, str, str], None]
MAX_DEPTH = 20
#: How many entries aliases may make from one file.
MAX_ENTRIES = 200_000
MAX_BYTES = 8 << 20
_NULLS = ("", "~", "null", "Null", "NULL")
_VAULT = "$ANSIBLE_VAULT"
#: Extensions of variable files, in the order in which Ansible looks for them.
_EXTENSIONS = ("", ".yml", ".yaml", ".json")


class _Reader:
    """One file."""

    def __init__(self, name: str, report: Report) -> None:
        self.name, self.report = name, report
        self._entries = 0
        self.patterns = patterns.Patterns()

    def root(self, text: str) -> Any:
        """The top node; None without one, or when the text is not YAML."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError

        try:
            return YAML(typ="safe", pure=True).compose(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark is not None else 1
            self.report(f"{self.name}:{line}", f"not YAML: {error.problem or error.context}", "")
        except Exception as error:  # a few hostile documents raise Python's own errors
            self.report(self.name, f"not YAML: {error}", "")
        return None

    def where(self, node: Any) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"

    def entries(self, node: Any, what: str, depth: int = 0) -> Iterator[tuple[str, Any, str]]:
        """Keys, values and places of a mapping; a null gives none."""
        if node is None or _is_null(node):
            return
        if node.id != "mapping" or depth > MAX_DEPTH:
            self.report(self.where(node), f"{what} must be a mapping", "")
            return
        for key, value in node.value:
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                self.report(self.where(node), "the aliases of this file expand without bounds", "")
                return
            if key.id != "scalar":
                self.report(self.where(key), "a key must be text", "")
            elif key.value == "<<" and not key.style:
                merged = value.value if value.id == "sequence" else [value]
                for other in merged:
                    yield from self.entries(other, what, depth + 1)
            else:
                yield str(key.value), value, self.where(key)

    def vars(self, node: Any, what: str) -> Vars:
        # Entries of a merge come first here, so the mapping's own entries win.
        own = list(self.entries(node, what))
        return {key: _value(value, where) for key, value, where in own}


def _is_null(node: Any) -> bool:
    return node.id == "scalar" and not node.style and node.value in _NULLS


def _value(node: Any, where: str) -> Var:
    if "vault" in str(node.tag):
        return Var("", where, Kind.VAULT)
    if node.id != "scalar":
        return Var("", where, Kind.OTHER)
    if _is_null(node):
        return Var("", where, Kind.NONE)
    unsafe = "unsafe" in str(node.tag)
    return Var(node.value, where) if unsafe else classified(node.value, where)


def read(text: str, name: str, tree: Tree, report: Report) -> None:
    """Add the contents of the inventory ``text`` to ``tree``; ``report`` gets mistakes."""
    reader = _Reader(name, report)
    for group, node, where in reader.entries(reader.root(text), "an inventory"):
        _group(reader, tree, group, node, where, 0)


def _group(reader: _Reader, tree: Tree, name: str, node: Any, where: str, depth: int) -> None:
    group = tree.group(name, where)
    if depth > MAX_DEPTH:
        reader.report(where, f"groups are nested more than {MAX_DEPTH} levels deep", "")
        return
    for key, value, at in reader.entries(node, f"the group {name!r}"):
        if key == "hosts":
            for pattern, own, place in reader.entries(value, f"the hosts of {name!r}"):
                _hosts(reader, tree, name, pattern, own, place)
        elif key == "children":
            for child, below, place in reader.entries(value, f"the children of {name!r}"):
                group.children[child] = None
                _group(reader, tree, child, below, place, depth + 1)
        elif key == "vars":
            group.vars.update(reader.vars(value, f"the vars of {name!r}"))
        else:
            reader.report(
                at, f"{key!r} is not a part of a group", "the parts are hosts, children and vars"
            )


def _hosts(reader: _Reader, tree: Tree, group: str, pattern: str, node: Any, where: str) -> None:
    try:
        names, port = reader.patterns.expand(pattern)
    except patterns.PatternError as error:
        reader.report(where, str(error), "")
        return
    given = reader.vars(node, f"the variables of {pattern!r}")
    if port is not None:
        given = {"ansible_port": Var(str(port), where), **given}
    for name in names:
        tree.host(name, where).vars.update(given)
        if group != "all":
            tree.group(group, where).hosts[name] = None


def files(folder: Path, name: str) -> list[Path]:
    """The files with the variables of the group or host ``name``, found as in Ansible."""
    for extension in _EXTENSIONS:
        path = folder / f"{name}{extension}"
        if path.is_dir():
            return list(_in_folder(path, 0))
        if path.is_file():
            return [path]
    return []


def _in_folder(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if depth < MAX_DEPTH else ():
        if path.name.startswith(".") or path.name.endswith("~"):
            continue
        if path.is_dir():
            yield from _in_folder(path, depth + 1)
        elif path.suffix in _EXTENSIONS:
            yield path


def read_vars(text: str, name: str, report: Report, warn: Report) -> Vars:
    """The variables of a file of group_vars/ or host_vars/; an encrypted file gives a warning."""
    if text.startswith(_VAULT):
        warn(f"{name}:1", "encrypted with ansible-vault: its variables are not known", "")
        return {}
    reader = _Reader(name, report)
    return reader.vars(reader.root(text), "a file of variables")
