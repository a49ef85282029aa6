"""The names in an inventory, read lightly: for completion, and for words that may be names.

Nothing is checked here, and nothing is resolved. A file that cannot be read has no names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

#: Seconds that a file may take: nobody waits longer for a completion.
_SECONDS = 0.2
#: Names that a shell takes as they are. Others, which the inventory's checks refuse, are left out.
_SAFE = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_-]*")


class Names(NamedTuple):
    """Names of roles and hosts, in the inventory's order."""

    members: tuple[str, ...] = ()
    masters: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Each name once."""
        return tuple(dict.fromkeys((*self.members, *self.masters, *self.workers, *self.hosts)))


def read(path: Path) -> Names:
    """The names in the inventory ``path``."""
    from provision.files import read_bytes
    from provision.inventory import document, ranges
    from provision.inventory.findings import Findings

    findings = Findings(str(path))
    try:
        data = read_bytes(path, document.MAX_BYTES, seconds=_SECONDS, cut=True)
        root = document.parse(data, findings)
    except (OSError, ValueError):
        return Names()
    if root is None:
        return Names()
    root, _ = ranges.expand_document(root, findings)
    hosts: dict[str, None] = {}

    def of(section: str, group: str) -> tuple[str, ...]:
        entry = document.find(root, (section, group))
        if entry is None or not isinstance(entry.value, document.Mapping):
            return ()
        found = []
        for name, role in entry.value.entries.items():
            host = role.value.get("host") if isinstance(role.value, document.Mapping) else None
            if isinstance(host, document.Scalar) and _SAFE.fullmatch(host.text):
                hosts[host.text] = None
            if _SAFE.fullmatch(name):
                found.append(name)
        return tuple(found)

    members, masters = of("etcd", "members"), of("alluxio", "masters")
    return Names(members, masters, of("alluxio", "workers"), tuple(hosts))
