"""The names in an inventory, read lightly: for completion, and for words that may be names.

Nothing is checked here, and nothing is resolved. A file that cannot be read has no names. This
module imports little: a shell waits for the answer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from provision import bounds
from provision.files import read_bytes
from provision.inventory import plain
from provision.inventory.range_names import EXPANDED, MAX_ENTRIES, RangeError, expand

#: Seconds that a file may take: nobody waits longer for a completion.
_SECONDS = 0.2
#: Names that a shell takes as they are. Others, which the inventory's checks refuse, are left out.
_SAFE = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_-]*")
#: Of a group: each role's name, and its host if one is written.
_Roles = Iterable[tuple[str, str | None]]


class Names:
    """Names of roles and hosts, in the inventory's order. (A NamedTuple would import typing.)"""

    __slots__ = ("hosts", "masters", "members", "workers")

    def __init__(
        self,
        members: tuple[str, ...] = (),
        masters: tuple[str, ...] = (),
        workers: tuple[str, ...] = (),
        hosts: tuple[str, ...] = (),
    ) -> None:
        self.members, self.masters, self.workers, self.hosts = members, masters, workers, hosts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and self._groups == other._groups

    def __repr__(self) -> str:
        return f"Names{self._groups}"

    @property
    def _groups(self) -> tuple[tuple[str, ...], ...]:
        return self.members, self.masters, self.workers, self.hosts

    @property
    def all(self) -> tuple[str, ...]:
        """Each name once."""
        return tuple(dict.fromkeys(name for group in self._groups for name in group))


def read(path: str | os.PathLike[str]) -> Names:
    """The names in the inventory ``path``."""
    try:
        data = read_bytes(path, bounds.INVENTORY, seconds=_SECONDS, cut=True)
    except (OSError, ValueError):
        return Names()
    found = in_plain(data)
    return found if found is not None else in_any(data)


def in_plain(data: bytes) -> Names | None:
    """The names in a document that :mod:`provision.inventory.plain` reads; None in another one, and
    where a range is wrong."""
    root = plain.parse(data)
    if root is None:
        return None
    try:
        return _names(_plain_roles(root, *group) for group in EXPANDED)
    except RangeError:
        return None


def in_any(data: bytes) -> Names:
    """The names in any document."""
    from provision.inventory import document, ranges
    from provision.inventory.findings import Findings

    findings = Findings("")
    root = document.composed(data, findings)
    if root is None:
        return Names()
    expanded, _ = ranges.expand_document(root, findings)

    def roles(section: str, group: str) -> Iterator[tuple[str, str | None]]:
        for name, entry in document.entries(expanded, (section, group)).items():
            role = entry.value
            host = role.get("host") if isinstance(role, document.Mapping) else None
            yield name, host.text if isinstance(host, document.Scalar) else None

    return _names(roles(*group) for group in EXPANDED)


def _plain_roles(
    root: dict[str, plain.Tree], section: str, group: str
) -> Iterator[tuple[str, str | None]]:
    """The roles of one group. Raises :class:`RangeError` for what has no place in a valid file."""
    above = root.get(section)
    roles = above.get(group) if isinstance(above, dict) else None
    seen: set[str] = set()
    for key, role in roles.items() if isinstance(roles, dict) else ():
        names = expand(key)
        host = role.get("host") if isinstance(role, dict) else None
        hosts = expand(host) if isinstance(host, str) else [None] * len(names)
        before = len(seen)
        seen.update(names)
        if len(hosts) != len(names) or len(seen) != before + len(names) or len(seen) > MAX_ENTRIES:
            raise RangeError(f"{key!r} is as long as its host, and names nothing again")
        yield from zip(names, hosts, strict=True)


def _names(groups: Iterable[_Roles]) -> Names:
    hosts: dict[str, None] = {}
    found: dict[str, tuple[str, ...]] = {}
    for (_, group), roles in zip(EXPANDED, groups, strict=True):
        names: list[str] = []
        for name, host in roles:
            if host is not None and _SAFE.fullmatch(host):
                hosts[host] = None
            if _SAFE.fullmatch(name):
                names.append(name)
        found[group] = tuple(names)
    return Names(**found, hosts=tuple(hosts))
