"""Groups, hosts and variables of an Ansible inventory, and the final variables of each host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    TEXT = "text"
    #: ``{{ … }}`` or ``{% … %}``: Ansible would evaluate it.
    TEMPLATE = "a Jinja template"
    VAULT = "encrypted with ansible-vault"
    #: A list or a mapping.
    OTHER = "not a single value"
    NONE = "nothing"


@dataclass(frozen=True, slots=True)
class Var:
    """A variable's value as written, and its place as ``file:line``."""

    text: str
    where: str
    kind: Kind = Kind.TEXT


def classified(text: str, where: str) -> Var:
    """``text`` as a value: a template or not."""
    template = "{{" in text or "{%" in text
    return Var(text, where, Kind.TEMPLATE if template else Kind.TEXT)


Vars = dict[str, Var]


@dataclass
class Group:
    name: str
    where: str = ""
    #: Insertion-ordered sets.
    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    vars: Vars = field(default_factory=dict)
    #: From group_vars/ beside the inventory: they win over the inventory file.
    file_vars: Vars = field(default_factory=dict)


@dataclass
class Host:
    name: str
    where: str
    vars: Vars = field(default_factory=dict)
    #: From host_vars/ beside the inventory.
    file_vars: Vars = field(default_factory=dict)


class Tree:
    """An inventory. The group ``all`` is there from the beginning."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {"all": Group("all")}
        self.hosts: dict[str, Host] = {}

    def group(self, name: str, where: str) -> Group:
        return self.groups.setdefault(name, Group(name, where))

    def host(self, name: str, where: str) -> Host:
        return self.hosts.setdefault(name, Host(name, where))

    def members(self, group: str) -> list[str]:
        """The hosts of a group and of the groups below it, each once."""
        if group == "all":
            return list(self.hosts)
        found: dict[str, None] = {}
        for below in self._below(group):
            found.update(below.hosts)
        return list(found)

    def _below(self, name: str) -> Iterator[Group]:
        """A group and the groups below it, each once. Without recursion: groups may be nested
        deeper than calls may."""
        seen: set[str] = set()
        left = [name]
        while left:
            found = left.pop()
            if found in seen or found not in self.groups:
                continue
            seen.add(found)
            yield self.groups[found]
            left.extend(reversed(self.groups[found].children))

    def circle(self) -> list[str] | None:
        """The groups of a circle, one after the other; None without a circle."""
        done: set[str] = set()
        for start in self.groups:
            path: dict[str, Iterator[str]] = {}
            into: str | None = start
            while into is not None or path:
                if into is not None and into in path:
                    names = list(path)
                    return [*names[names.index(into) :], into]
                if into is not None and into not in done and into in self.groups:
                    path[into] = iter(self.groups[into].children)
                if not path:
                    break
                last = next(reversed(path))
                into = next(path[last], None)
                if into is None:
                    done.add(last)
                    del path[last]
        return None

    def variables(self) -> dict[str, Vars]:
        """Every host's variables, by Ansible's precedence.

        From the weakest: ``all`` and the groups in the inventory file, group_vars/all, the other
        group_vars, the host in the file, host_vars. Among groups, a group further down wins, then a
        higher ``ansible_group_priority``, then the later name.
        """
        depths = self._depths()

        def order(name: str) -> tuple[int, int, str]:
            group = self.groups[name]
            given = {**group.vars, **group.file_vars}.get("ansible_group_priority")
            priority = int(given.text) if given is not None and given.text.isdigit() else 1
            return depths.get(name, 1), priority, name

        above: dict[str, list[Group]] = {name: [] for name in self.hosts}
        for name in sorted(self.groups, key=order):
            group = self.groups[name]
            if name != "all" and (group.vars or group.file_vars):
                for member in self.members(name):
                    above[member].append(group)

        found: dict[str, Vars] = {}
        top = self.groups["all"]
        for name, host in self.hosts.items():
            groups = above[name]
            layers = [top.vars, *(g.vars for g in groups)]
            layers += [top.file_vars, *(g.file_vars for g in groups), host.vars, host.file_vars]
            found[name] = {k: v for layer in layers for k, v in layer.items()}
        return found

    def _depths(self) -> dict[str, int]:
        """The greatest distance of each group below ``all``."""
        known = set(self.groups)
        below = {child for g in self.groups.values() if g.name != "all" for child in g.children}
        depths: dict[str, int] = {}
        level = {name for name in self.groups if name != "all" and name not in below}
        depth = 1
        while level and depth <= len(self.groups):
            depths.update(dict.fromkeys(level, depth))
            level = {child for name in level for child in self.groups[name].children} & known
            depth += 1
        return depths
