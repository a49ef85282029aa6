"""Groups, hosts and variables of an Ansible inventory, and the final variables of each host."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field
from enum import Enum

from provision.dataclass import dataclass


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

    def variables(self, only: Collection[str] | None = None) -> dict[str, Vars]:
        """Every host's variables, by Ansible's precedence; with ``only``, those of these names.

        From the weakest: ``all`` and the groups in the inventory file, group_vars/all, the other
        group_vars, the host in the file, host_vars. Among groups, a group further down wins, then a
        higher ``ansible_group_priority``, then the later name.

        The work for each name is in proportion to the groups and their members: what a group
        inherits is found once, for all hosts in it.
        """
        above = self._above()
        order = _from_the_top(above)
        depths: dict[str, int] = {}
        for name in order:
            depths[name] = 1 + max((depths.get(a, 0) for a in above[name]), default=0)

        def strength(name: str) -> tuple[int, int, str]:
            group = self.groups[name]
            given = {**group.vars, **group.file_vars}.get("ansible_group_priority")
            priority = int(given.text) if given is not None and given.text.isdigit() else 1
            return depths[name], priority, name

        ranks = {name: n for n, name in enumerate(sorted(order, key=strength))}
        in_file: dict[str, _Ranked] = {}
        beside: dict[str, _Ranked] = {}
        for name in order:
            group, rank = self.groups[name], ranks[name]
            for kept, own in ((in_file, group.vars), (beside, group.file_vars)):
                given = {} if name == "all" else _chosen(own, only)
                kept[name] = _merged(
                    [kept[a] for a in above[name] if a in kept],
                    {key: (rank, var) for key, var in given.items()},
                )
        direct: dict[str, list[str]] = {name: [] for name in self.hosts}
        for name in order:
            for member in self.groups[name].hosts:
                direct[member].append(name)

        top = self.groups["all"]
        first, second = _chosen(top.vars, only), _chosen(top.file_vars, only)
        found: dict[str, Vars] = {}
        for name, host in self.hosts.items():
            layers = [_merged([kept[g] for g in direct[name]], {}) for kept in (in_file, beside)]
            low, high = ({key: var for key, (_, var) in layer.items()} for layer in layers)
            own = {**_chosen(host.vars, only), **_chosen(host.file_vars, only)}
            found[name] = {**first, **low, **second, **high, **own}
        return found

    def _above(self) -> dict[str, list[str]]:
        """The groups directly above each group. ``all`` counts where a group has it as a child."""
        found: dict[str, list[str]] = {name: [] for name in self.groups}
        for name, group in self.groups.items():
            if name != "all":
                for child in group.children:
                    if child in found:
                        found[child].append(name)
        if found["all"]:
            for child in self.groups["all"].children:
                if child in found:
                    found[child].append("all")
        return found


#: Variables, each with the rank of its group: the higher rank wins.
_Ranked = dict[str, tuple[int, Var]]


def _chosen(given: Vars, only: Collection[str] | None) -> Vars:
    return given if only is None else {key: var for key, var in given.items() if key in only}


def _merged(above: Sequence[_Ranked], own: _Ranked) -> _Ranked:
    """The strongest of each variable. What has nothing to add is not copied."""
    layers = [layer for layer in (*above, own) if layer]
    if len(layers) == 1:
        return layers[0]
    found: _Ranked = {}
    for layer in layers:
        for key, ranked in layer.items():
            if key not in found or found[key][0] < ranked[0]:
                found[key] = ranked
    return found


def _from_the_top(above: Mapping[str, Sequence[str]]) -> list[str]:
    """All groups, each after the groups above it; those of circles at the end."""
    below: dict[str, list[str]] = {name: [] for name in above}
    for name, over in above.items():
        for one in over:
            below[one].append(name)
    left = {name: len(over) for name, over in above.items()}
    ready = [name for name, count in left.items() if not count]
    for name in ready:  # it grows meanwhile
        for child in below[name]:
            left[child] -= 1
            if not left[child]:
                ready.append(child)
    return [*ready, *(name for name, count in left.items() if count)]
