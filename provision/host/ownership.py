"""The owning cluster of this tool's files, written in the files themselves.

A unit has the cluster in a key that systemd ignores, because it begins with X-. Every role has a
unit. Other files have the cluster in their first line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provision.host.facts import HostFacts

KEY = "X-Alluxio-Provision-Cluster"
_MANAGED = "# Managed by alluxio-provision for cluster "


def owner(facts: HostFacts, unit_path: str) -> str | None:
    """The cluster that the unit file at ``unit_path`` names. None when the file is missing or is
    not from this tool."""
    for line in (facts.text(unit_path) or "").splitlines():
        if line.startswith(f"{KEY}="):
            return line.partition("=")[2]
    return None


def header(cluster: str) -> str:
    """The comment at the beginning of the files of ``cluster``; their templates have the same
    text."""
    return f"{_MANAGED}{cluster}: change the inventory, not this file."


def has_header(content: bytes, cluster: str | None = None) -> bool:
    """Whether a file's content comes from this tool, and belongs to ``cluster`` if given."""
    return content.startswith(f"{_MANAGED}{cluster}:".encode() if cluster else _MANAGED.encode())
