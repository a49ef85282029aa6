"""Every value of an inventory with its origin, for ``invoke show-inventory``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from provision.dataclass import dataclass
from provision.inventory import document, model
from provision.inventory.loader import LoadedInventory
from provision.inventory.resolved import Machine, local_path

Value = str | int | float | bool | None | list[Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One value. ``path`` is dotted, as in ``etcd.members.infra0.client_port``.

    ``origin`` is ``file:line:column``, ``range at file:line`` or ``default``. For a host's value
    from its group or from another key, it is that key and its place: ``etcd.client_port at
    file:line``.
    """

    path: str
    value: Value
    origin: str


def provenance(loaded: LoadedInventory) -> list[Row]:
    """A row for every value in force. Secrets are shown as their reference, never revealed."""
    return [*_Rows(loaded).all()]


@dataclass(frozen=True)
class _Rows:
    loaded: LoadedInventory

    def all(self) -> Iterator[Row]:
        yield from self.model(self.loaded.file, ())
        etcd = self.loaded.inventory.etcd
        for member in () if etcd.external else etcd.members:
            own: document.Path = ("etcd", "members", member.name)
            yield from self.machine(member.machine, own)
            yield self.row(own, "address", member.address, (*own, "host"))
            if member.sans:
                yield self.row(own, "sans", list(member.sans))
            yield self.row(own, "client_port", member.client_port, ("etcd", "client_port"))
            yield self.row(own, "peer_port", member.peer_port, ("etcd", "peer_port"))
            yield self.row(own, "data_dir", member.data_dir, ("etcd", "data_dir"))
            yield from self.merged(own, "settings", member.settings, ("etcd",))
        alluxio = self.loaded.inventory.alluxio
        for master in alluxio.masters if alluxio is not None else ():
            own = ("alluxio", "masters", master.name)
            yield from self.machine(master.machine, own)
            yield self.row(own, "hostname", master.hostname, (*own, "host"))
        for worker in alluxio.workers if alluxio is not None else ():
            own = ("alluxio", "workers", worker.name)
            yield from self.machine(worker.machine, own)
            yield self.row(own, "hostname", worker.hostname, (*own, "host"))
            yield self.row(own, "rpc_port", worker.rpc_port, ("alluxio", "rpc_port"))
            yield self.row(own, "heap", worker.heap, ("alluxio", "heap"))
            memory = worker.direct_memory
            yield self.row(own, "direct_memory", memory, ("alluxio", "direct_memory"))
            store, group = (*own, "page_store"), ("alluxio", "page_store")
            yield self.row(store, "dirs", worker.page_store.dirs, (*group, "dirs"))
            yield self.row(store, "sizes", worker.page_store.sizes, (*group, "sizes"))
            yield self.row(own, "java_home", worker.java_home, ("alluxio", "java", "home"))
            yield from self.merged(own, "properties", worker.properties, ("alluxio",))
            secrets = worker.secret_properties
            yield from self.merged(own, "secret_properties", secrets, ("alluxio",))
            yield from self.merged(own, "env", worker.env, ("alluxio",))

    def model(self, part: model.Model, path: document.Path) -> Iterator[Row]:
        """The values of ``part`` without its members and workers."""
        elsewhere = isinstance(part, model.Etcd) and part.external is not None
        shown = ("external",) if elsewhere else tuple(type(part).model_fields)
        for field in type(part).model_fields:
            value = getattr(part, field)
            if field in ("members", "masters", "workers") or field not in shown:
                continue
            if isinstance(value, model.Model) and not isinstance(value, model.Secret):
                yield from self.model(value, (*path, field))
            elif isinstance(value, Mapping):
                for key, entry in value.items():
                    if isinstance(entry, model.Source):
                        yield from self.model(entry, (*path, field, key))
                    else:
                        yield self.row((*path, field), key, entry)
            else:
                yield self.row(path, field, value)

    def machine(self, machine: Machine, own: document.Path) -> Iterator[Row]:
        yield self.row(own, "host", machine.host)
        for field in model.Ssh.model_fields:
            value = getattr(machine, field)
            if value is not None:
                yield self.row((*own, "ssh"), field, value, ("ssh", field))

    def merged(
        self, own: document.Path, field: str, values: Mapping[str, Any], group: document.Path
    ) -> Iterator[Row]:
        for key, value in values.items():
            yield self.row((*own, field), key, value, (*group, field, key))

    def row(
        self, parent: document.Path, key: str, value: object, inherited: document.Path = ()
    ) -> Row:
        path = (*parent, key)
        return Row(_dotted(path), self.shown(value), self.origin(path, inherited))

    def origin(self, own: document.Path, inherited: document.Path) -> str:
        if (place := self.place(own)) is not None:
            return place
        if inherited and (place := self.place(inherited)) is not None:
            return f"{_dotted(inherited)} at {place.removeprefix('range at ')}"
        return "default"

    def place(self, path: document.Path) -> str | None:
        root = self.loaded.root
        entry = document.find(root, path)
        if entry is None or (isinstance(entry.value, document.Scalar) and entry.value.is_null):
            return None
        mark = document.locate(root, path)
        if isinstance(entry.value, document.Scalar) and entry.value.ranged:
            return f"range at {self.loaded.name}:{mark.line}"
        return f"{self.loaded.name}:{mark.line}:{mark.column}"

    def shown(self, value: object) -> Value:
        if isinstance(value, model.SshSecret) and value.ask:
            return "asked for on the terminal"
        if isinstance(value, model.Secret):
            return f"env:{value.env}" if value.env is not None else f"file:{value.file}"
        if isinstance(value, Path):
            return str(local_path(value, self.loaded.inventory.path))
        if isinstance(value, list):
            return list(value)
        if value is None or isinstance(value, str | int | float | bool):
            return value
        raise TypeError(f"cannot show a {type(value).__name__}")


def _dotted(path: document.Path) -> str:
    return ".".join(map(str, path))
