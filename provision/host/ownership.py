"""Which cluster something of ours belongs to, written in its own file.

A unit has it as a key, which systemd ignores as it begins with X-, and a unit is the one thing that
every role has. Other files have it in their first line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provision.host.facts import HostFacts

KEY = "X-Alluxio-Provision-Cluster"
_MANAGED = "# Managed by alluxio-provision for cluster "


def owner(facts: HostFacts, unit_path: str) -> str | None:
    """The cluster that the unit file at ``unit_path`` names, or None: not ours, or not there."""
    for line in (facts.text(unit_path) or "").splitlines():
        if line.startswith(f"{KEY}="):
            return line.partition("=")[2]
    return None


def header(cluster: str) -> str:
    """The comment that the files of ``cluster`` begin with; their templates have it literally."""
    return f"{_MANAGED}{cluster}: change the inventory, not this file."


def has_header(content: bytes, cluster: str | None = None) -> bool:
    """Whether a file's content is of this tool, and of ``cluster`` if one is given."""
    return content.startswith(f"{_MANAGED}{cluster}:".encode() if cluster else _MANAGED.encode())
