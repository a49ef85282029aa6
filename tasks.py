"""Provision etcd v3 and Alluxio workers on bare metal. ``invoke --list`` shows every task.

The tasks are in :mod:`provision.commands`, where the installed ``alluxio-provision`` has them
from, too.
"""

from __future__ import annotations

from provision.commands import namespace

__all__ = ["namespace"]
