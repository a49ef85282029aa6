"""Rules of the Alluxio masters, where an inventory has any."""

from __future__ import annotations

from provision.inventory import document, journal_folder, model
from provision.inventory.checks.context import Context
from provision.inventory.checks.hosts import ssh_server
from provision.inventory.resolved import AlluxioMaster


def _hosts_of_their_own(context: Context) -> None:
    by_host: dict[tuple[str, int], str] = {}
    by_name: dict[tuple[str, int], str] = {}
    for master in context.masters:
        path = ("alluxio", "masters", master.name)
        first = by_host.setdefault(ssh_server(master.machine), master.name)
        if first != master.name:
            context.error(
                f"masters {first!r} and {master.name!r} are on the same host"
                f" {master.machine.host!r}",
                "the loss of that host would stop both; give each its own host",
                (*path, "host"),
                id="inventory-conflict",
            )
            continue
        first = by_name.setdefault((master.hostname, master.rpc_port), master.name)
        if first != master.name:
            context.error(
                f"workers would reach both masters {first!r} and {master.name!r} at "
                f"{master.hostname}:{master.rpc_port}",
                "give each its own hostname",
                (*path, "hostname") if context.has(*path, "hostname") else (*path, "host"),
                id="inventory-conflict",
            )


def _count(context: Context) -> None:
    count = len(context.masters)
    if count and count % 2 == 0 and ("alluxio", "masters") not in context.unknown:
        what = f"{count} masters survive no more losses than {count - 1}: their journal uses Raft"
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


def _journal_folder(context: Context) -> None:
    """The folder of the journal must be known from the inventory, because the tool looks on the
    hosts which masters have a journal.

    Alluxio replaces ``${KEY}`` with any of its own properties and defaults
    (``InstancedConfiguration.lookup``).
    """
    alluxio = context.inventory.alluxio
    if alluxio is None or not alluxio.masters:
        return

    seen: set[document.Path] = set()
    for master in context.masters:
        folder = journal_folder.folder(alluxio, master)
        if not journal_folder.is_embedded(alluxio, master):
            continue
        if folder.startswith("/") and "${" not in folder:
            continue
        path = _said_at(context, master, journal_folder.FOLDER)
        if path not in seen:
            seen.add(path)
            context.error(
                f"the journal folder {folder!r} is not an absolute path: this tool would take a "
                "master with a journal there for an empty master",
                "write the path out, without ${...}",
                path,
                id="inventory-value-invalid",
            )


def _said_at(context: Context, master: AlluxioMaster, key: str) -> document.Path:
    """The path of the value of ``key`` that is in force for a master: an option wins."""
    beside = next((w.name for w in context.workers if w.machine == master.machine), None)
    owners: list[document.Path] = [("alluxio", "workers", beside)] if beside else []
    owners.append(("alluxio",))
    for variable in ("ALLUXIO_MASTER_JAVA_OPTS", "ALLUXIO_JAVA_OPTS"):
        for owner in owners:
            entry = context.entries(*owner, "env").get(variable)
            if entry is None or not isinstance(entry.value, document.Scalar):
                continue
            if f"-D{key}=" in entry.value.text:
                return (*owner, "env", variable)
    for owner in owners:
        if context.has(*owner, "properties", key):
            return (*owner, "properties", key)
    return ("alluxio", "masters", master.name)


RULES = (_hosts_of_their_own, _count, _properties, _journal_folder)
