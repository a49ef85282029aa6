"""Provision etcd v3 and Alluxio workers on bare metal. ``invoke --list`` shows every task.

The tasks are in :mod:`provision.cli.commands`, where the installed ``alluxio-provision`` has them
from, too.
"""

from __future__ import annotations

import sys

from provision.cli.interrupt import exit_when_interrupted

exit_when_interrupted()  # before the imports that take the first half second

from provision.cli.lightly import start_lightly  # noqa: E402

start_lightly()

from invoke.main import program  # noqa: E402

from provision.cli.chain import refuse_at_once  # noqa: E402
from provision.cli.commands import namespace as tasks  # noqa: E402
from provision.cli.usage import check, narrowed  # noqa: E402

refuse_at_once(sys.argv[1:], tasks.task_names)
check(program, tasks)
namespace = narrowed(program, tasks)

__all__ = ["namespace"]
