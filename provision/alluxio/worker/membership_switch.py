"""A cluster that goes from one membership type to another: what is in force, and what to say.

The change itself is an ordinary one of ``alluxio-site.properties``, rolled out like any other.
What is special is the time between the first restarted worker and the last, and what the old
membership leaves in etcd.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import cast, get_args

from provision.host.facts import HostFacts
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Machine, MembershipType

KEY = "alluxio.worker.membership.manager.type"


def probe_commands(alluxio: AlluxioCluster) -> Mapping[str, str]:
    """The shell command that says which membership type a host's worker was last given.

    A command, because a site file with secrets is not read by the tool.
    """
    site = shlex.quote(f"{alluxio.install_dir}/current/conf/alluxio-site.properties")
    found = f'case $l in {KEY}=*) echo "${{l#*=}}";; esac'
    return {"membership": f"[ ! -r {site} ] || while read -r l; do {found}; done <{site}"}


def in_force(facts: HostFacts) -> MembershipType | None:
    """The type that the host's worker was last given, or None: it has none yet, or another."""
    said = facts.commands.get("membership", "").strip()
    return cast("MembershipType", said) if said in get_args(MembershipType) else None


def away(
    alluxio: AlluxioCluster, workers: Sequence[AlluxioWorker], facts: Mapping[Machine, HostFacts]
) -> dict[MembershipType, list[str]]:
    """The installed workers that were last given another type than the inventory says, by type."""
    found: dict[MembershipType, list[str]] = {}
    for w in workers:
        kind = in_force(facts[w.machine])
        if kind is not None and kind != alluxio.membership:
            found.setdefault(kind, []).append(w.name)
    return found
