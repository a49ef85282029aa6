"""Rules across the fields of an inventory: they need more than one field.

Each rule is a function of the :class:`Context`; a module's ``RULES`` names its own.
"""

from __future__ import annotations

from provision.inventory.checks import alluxio, clusters, etcd, hosts, masters
from provision.inventory.checks.clusters import prefix_conflicts
from provision.inventory.checks.context import Context

__all__ = ["Context", "check", "prefix_conflicts"]


def check(context: Context) -> None:
    """Applies every rule."""
    own = etcd.EXTERNAL_RULES if context.inventory.etcd.external else etcd.RULES
    rules = (*clusters.RULES, *own, *alluxio.RULES, *masters.RULES, *hosts.RULES)
    if context.file.kubernetes is not None:
        from provision.inventory.checks import kubernetes

        rules += kubernetes.RULES
    for rule in rules:
        rule(context)
