"""Rules of the Alluxio workers: source, properties, secrets and folders."""

from __future__ import annotations

import re

from provision.inventory import document, model
from provision.inventory.checks.context import Context

_SECRET = re.compile(r"secret|password|passwd|token|credential|accesskey", re.IGNORECASE)
_PLACE = re.compile(r"(file|path|dir)$", re.IGNORECASE)


def _alluxio_source(context: Context) -> None:
    alluxio = context.file.alluxio
    if alluxio is not None and alluxio.source.package:
        what = "no distribution packages Alluxio"
        context.error(
            what,
            "give a tarball by path or url",
            ("alluxio", "source", "package"),
            id="inventory-value-invalid",
        )


def _unused_login(context: Context) -> None:
    alluxio = context.file.alluxio
    if alluxio is None or context.workers_use_etcd:
        return
    if alluxio.etcd.username is not None:
        word = alluxio.membership
        what = f"'etcd' has no effect: with membership {word} the workers do not use etcd"
        context.warning(
            what,
            "remove it",
            ("alluxio", "etcd"),
            id="inventory-no-effect",
        )


def _unused_workers(context: Context) -> None:
    """Clients do not use the workers of every type. ``StaticMembershipManager`` of Alluxio 313
    gives its members no state, so ``ConsistentHashPolicy`` marks none as active.
    ``DoraCacheClient.getWorkerNetAddress`` takes only active workers. Clients then read the under
    store themselves."""
    alluxio = context.inventory.alluxio
    if alluxio is not None and not alluxio.membership.used_by_clients:
        context.warning(
            f"with membership {alluxio.membership} no client of Alluxio 313 uses a worker: the "
            "workers never count as LIVE, and clients read the under store directly, without a "
            "warning",
            "use ETCD or SERVICE_REGISTRY; invoke check-nodes --read PATH shows the difference",
            ("alluxio", "membership"),
            id="static-workers-unused",
        )


def _endpoints_by_ipv6(context: Context) -> None:
    """Alluxio 313's jetcd 0.7.5 makes an invalid URI ``ip:///[…]`` from IPv6 endpoints; names
    work."""
    if not context.workers_use_etcd:
        return
    tls = context.inventory.etcd.tls
    plain = tls.plain_client_address if tls.client and tls.plain_client_port else None
    for member in context.members:
        if ":" in (plain or member.address):
            own = context.member_path(member.name, "address", "host")
            context.error(
                f"Alluxio's etcd client cannot use the IPv6 address {plain or member.address}",
                "give a name that resolves to it as the member's 'address'",
                ("etcd", "tls", "plain_client_address") if plain else own,
                id="inventory-value-invalid",
            )


def _owned_properties(context: Context) -> None:
    for owner in context.alluxio_maps:
        for field in ("properties", "secret_properties"):
            for key in context.entries(*owner, field):
                if key in model.OWNED_PROPERTIES:
                    source = model.OWNED_PROPERTIES[key]
                    path = (*owner, field, key)
                    context.key_error(
                        f"{key!r} is set by this tool",
                        f"use {source}",
                        path,
                        id="inventory-key-owned",
                    )


def _inline_secrets(context: Context) -> None:
    for owner in context.alluxio_maps:
        for key, entry in context.entries(*owner, "properties").items():
            if _looks_secret(key, entry.value):
                context.key_error(
                    f"{key!r} looks like a secret; secrets must not be in the inventory",
                    f"put it under secret_properties by reference: {key}: {{env: NAME}}",
                    (*owner, "properties", key),
                    id="inventory-secret-inline",
                )
        for key, entry in context.entries(*owner, "env").items():
            if _looks_secret(key, entry.value):
                context.key_error(
                    f"the variable {key!r} looks like a secret; secrets must not be in the "
                    "inventory",
                    "use the Alluxio property for it, under secret_properties by reference",
                    (*owner, "env", key),
                    id="inventory-secret-inline",
                )


def _looks_secret(key: str, value: document.Node) -> bool:
    if key in model.OWNED_PROPERTIES or not _SECRET.search(re.sub(r"[._-]", "", key)):
        return False
    if not isinstance(value, document.Scalar):
        return True
    # The path of a secret, as in fs.gcs.credential.path, is not a secret itself.
    place = _PLACE.search(key) and value.text.startswith("/")
    return not (place or value.text.lower() in ("true", "false"))


def _both_property_kinds(context: Context) -> None:
    for owner in context.alluxio_maps:
        secrets = set(context.entries(*owner, "secret_properties"))
        for key in context.entries(*owner, "properties"):
            if key in secrets:
                path = (*owner, "properties", key)
                context.key_error(
                    f"{key!r} is under secret_properties as well",
                    "keep one of them",
                    path,
                    id="inventory-conflict",
                )


def _directories(context: Context) -> None:
    etcd, alluxio = context.inventory.etcd, context.inventory.alluxio
    for member in context.members:
        path = context.member_path(member.name, "data_dir")
        _apart(context, member.data_dir, path, "etcd", etcd.install_dir)
    if alluxio is None:
        return
    state = ("alluxio", "state_dir")
    _apart(context, alluxio.state_dir, state, "alluxio", alluxio.install_dir)
    for owner in context.alluxio_maps:
        _page_folders(context, (*owner, "page_store", "dirs"), alluxio.install_dir)


def _page_folders(context: Context, page_store: document.Path, install: str) -> None:
    entry = document.find(context.root, page_store)
    if entry is None or not isinstance(entry.value, document.Sequence):
        return
    seen: list[str] = []
    for place, item in enumerate(entry.value.items):
        path = (*page_store, place)
        folder = item.text if isinstance(item, document.Scalar) else ""  # already reported
        _apart(context, folder, path, "alluxio", install)
        if folder in seen:
            context.error(
                f"{folder!r} is listed twice",
                "list each folder once",
                path,
                id="inventory-conflict",
            )
        elif any(_within(folder, other) or _within(other, folder) for other in seen):
            what = f"{folder!r} contains another folder of the list, or is inside one"
            context.warning(
                what, "use separate folders, one on each disk", path, id="inventory-unwise"
            )
        seen.append(folder)


def _apart(context: Context, folder: str, path: document.Path, section: str, install: str) -> None:
    if _within(folder, install) or _within(install, folder):
        what = f"one of {folder!r} and the install folder {install!r} is inside the other"
        context.warning(
            what,
            "use separate folders for data and programs",
            path,
            (section, "install_dir"),
            id="inventory-unwise",
        )


def _roots_folders(context: Context) -> None:
    """A folder in which root writes is not inside a folder of a service: there the service's user
    could lead root to any other file."""
    etcd, alluxio = context.inventory.etcd, context.inventory.alluxio
    roots: list[tuple[str, document.Path]] = []
    owned: list[tuple[str, document.Path]] = []
    if context.members:
        roots += [(getattr(etcd, key), ("etcd", key)) for key in ("config_dir", "install_dir")]
        owned += [(m.data_dir, context.member_path(m.name, "data_dir")) for m in context.members]
        if etcd.backup is not None:
            owned.append((etcd.backup.dir, ("etcd", "backup", "dir")))
    if alluxio is not None:
        roots.append((alluxio.install_dir, ("alluxio", "install_dir")))
        if alluxio.java.source is not None:
            roots.append((alluxio.java.install_dir, ("alluxio", "java", "install_dir")))
        keys = ("state_dir", "log_dir")
        owned += [(getattr(alluxio, key), ("alluxio", key)) for key in keys]
        stores: set[int] = set()  # thousands of workers share one
        for worker in context.workers:
            if id(worker.page_store) not in stores:
                stores.add(id(worker.page_store))
                place = context.worker_path(worker.name, "page_store")
                owned += [(folder, place) for folder in worker.page_store.dirs]
    reported: set[tuple[str, str]] = set()
    for folder, path in roots:
        for outer, place in owned:
            if _within(folder, outer) and (folder, outer) not in reported:
                reported.add((folder, outer))
                context.error(
                    f"{'.'.join(map(str, path))} {folder!r} is inside {outer!r}, which belongs to "
                    "a service: its user could lead root to other files",
                    "choose a folder outside it",
                    path if context.has(*path) else place,
                    place,
                    id="inventory-conflict",
                )


def _within(inner: str, outer: str) -> bool:
    return f"{inner}/".startswith(f"{outer}/")


_SOCKET_AS_UUID = "alluxio.worker.data.server.domain.socket.as.uuid"


def _socket_of_each_start(context: Context) -> None:
    """With EPOLL and a folder for the socket, a worker makes another path at each start
    (``DataServerFactory.createDomainSocketDataServer``). The path is a part of the worker's
    address, and ``EtcdMembershipManager.join`` refuses a known id with another address."""
    alluxio = context.inventory.alluxio
    if alluxio is None or not alluxio.membership.permanent_keys:
        return
    from provision.inventory import ports  # not needed for an inventory with only etcd

    seen: set[document.Path] = set()
    sets: dict[tuple[int, int], bool] = {}  # thousands of workers share their properties
    for worker in alluxio.workers:
        shared = id(worker.properties), id(worker.env)
        if shared not in sets:
            sets[shared] = _SOCKET_AS_UUID in ports.of_worker(worker)
        if not sets[shared]:
            continue
        from provision.inventory import worker_address  # this imports etcd's client

        if worker_address.overwritten(worker) or (
            worker_address.declared(worker).domain_socket != worker_address.NEW_PATH
        ):
            continue
        path = context.property_path(worker.name, _SOCKET_AS_UUID)
        if path not in seen:
            seen.add(path)
            context.error(
                "with membership ETCD, Alluxio refuses each restart of a worker whose domain "
                "socket has a new path at each start",
                f"set {_SOCKET_AS_UUID} to false, or alluxio.membership to SERVICE_REGISTRY",
                path,
                id="inventory-value-invalid",
            )


RULES = (
    _alluxio_source,
    _unused_login,
    _unused_workers,
    _endpoints_by_ipv6,
    _socket_of_each_start,
    _owned_properties,
    _inline_secrets,
    _both_property_kinds,
    _directories,
    _roots_folders,
)
