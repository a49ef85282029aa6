"""Rules of the Alluxio masters, where an inventory has any."""

from __future__ import annotations

from provision.inventory import document, model
from provision.inventory.checks.context import Context


def _hosts_of_their_own(context: Context) -> None:
    by_host: dict[str, str] = {}
    for master in context.masters:
        first = by_host.setdefault(master.machine.host.lower(), master.name)
        if first != master.name:
            context.error(
                f"masters {first!r} and {master.name!r} are on the same host"
                f" {master.machine.host!r}",
                "a lost host would take both; give each a host of its own",
                ("alluxio", "masters", master.name, "host"),
                id="inventory-conflict",
            )


def _count(context: Context) -> None:
    count = len(context.masters)
    if count and count % 2 == 0:
        what = f"{count} masters survive no more losses than {count - 1}: their journal is by Raft"
        context.warning(
            what, "use an odd number of masters", ("alluxio", "masters"), id="member-count"
        )


def _properties(context: Context) -> None:
    alluxio = context.file.alluxio
    if alluxio is None or not alluxio.masters:
        return
    places: list[document.Path] = [("alluxio",)]
    places += [("alluxio", "workers", name) for name in alluxio.workers]
    for place in places:
        for key in context.entries(*place, "properties"):
            if key in model.MASTER_PROPERTIES:
                path = (*place, "properties", key)
                context.key_error(
                    f"{key!r} is set by this tool",
                    "use alluxio.masters",
                    path,
                    id="inventory-key-owned",
                )


RULES = (_hosts_of_their_own, _count, _properties)
