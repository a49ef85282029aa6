"""The properties that this tool last wrote for a host's worker, as far as plans need them.

They are read by a command on the host, because this tool does not read a site file with secrets.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from provision.alluxio.worker.membership_properties import TYPE
from provision.host.facts import Command, HostFacts
from provision.inventory.resolved import AlluxioCluster

DIRS, SIZES = "alluxio.worker.page.store.dirs", "alluxio.worker.page.store.sizes"
#: Label of the probe's command.
LABEL = "written"


def probe_commands(alluxio: AlluxioCluster) -> Mapping[str, str]:
    """The shell command that prints the properties: one process for all of them."""
    site = shlex.quote(f"{alluxio.install_dir}/current/conf/alluxio-site.properties")
    keys = "|".join(map(re.escape, (TYPE, DIRS, SIZES)))
    command = f"grep -sE {shlex.quote(f'^({keys})=')} {site}"
    return {LABEL: Command(command, roots=True, unless=f"[ ! -r {site} ]")}


def values(facts: HostFacts) -> dict[str, str]:
    """The properties by key; the last line of a key counts."""
    lines = facts.commands.get(LABEL, "").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
