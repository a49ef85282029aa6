"""Provision etcd v3 and Alluxio workers on bare metal. ``invoke --list`` shows every task.

Exit codes: 0 as declared; 1 unhealthy or drifted; 2 bad usage or inventory (nothing contacted);
3 unreachable or preflight failed (nothing changed); 4 a change failed part-way (run again to
continue); 5 another run holds the lock; 70 a mistake in this tool; 130 interrupted.
"""

from __future__ import annotations

from invoke.collection import Collection

from provision.cli.command import Command
from provision.cli.tasks import (
    certificates,
    cluster,
    data,
    etcd,
    files,
    hosts,
    members,
    reports,
    workers,
)

namespace = Collection(
    *(
        task
        for module in (hosts, etcd, members, certificates, data, workers, cluster, reports, files)
        for task in vars(module).values()
        if isinstance(task, Command)
    )
)
