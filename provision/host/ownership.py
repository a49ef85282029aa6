"""Which cluster a unit of ours belongs to, written in the unit file itself.

systemd ignores keys that begin with X-, and a unit is the one thing that every role has.
"""

from __future__ import annotations

from provision.host.observe import HostFacts

KEY = "X-Alluxio-Provision-Cluster"


def owner(facts: HostFacts, unit_path: str) -> str | None:
    """The cluster that the unit file at ``unit_path`` names, or None: not ours, or not there."""
    for line in (facts.text(unit_path) or "").splitlines():
        if line.startswith(f"{KEY}="):
            return line.partition("=")[2]
    return None
