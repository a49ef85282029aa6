"""The data for the rules, and the way in which rules report."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Set
from dataclasses import dataclass

from provision.ids import Id
from provision.inventory import document, model
from provision.inventory.findings import Findings
from provision.inventory.resolved import AlluxioMaster, AlluxioWorker, EtcdMember, Inventory

_PLACES = frozenset({"properties", "secret_properties", "env", "page_store"})


@dataclass(frozen=True)
class Context:
    """A file in all its forms. ``broken`` paths were reported already and contain stand-ins;
    ``unknown`` are the paths of mappings of which not all names could be read."""

    file: model.InventoryFile
    inventory: Inventory
    root: document.Mapping
    findings: Findings
    broken: set[document.Path]
    unknown: Set[document.Path] = frozenset()

    @property
    def workers_use_etcd(self) -> bool:
        """Whether there are workers, and they register in etcd."""
        alluxio = self.inventory.alluxio
        return alluxio is not None and alluxio.membership.in_etcd

    def error(self, what: str, remedy: str, *paths: document.Path, id: Id) -> None:
        """Reports at the first path, unless the value at any of the paths is broken."""
        if not self._any_broken(paths):
            self.findings.error(document.locate(self.root, paths[0]), what, remedy, id=id)

    def warning(self, what: str, remedy: str, *paths: document.Path, id: Id) -> None:
        if not self._any_broken(paths):
            self.findings.warning(document.locate(self.root, paths[0]), what, remedy, id=id)

    def key_error(self, what: str, remedy: str, path: document.Path, *, id: Id) -> None:
        """Reports at the key itself rather than at its value."""
        entry = document.find(self.root, path)
        if entry is not None:
            self.findings.error(entry.key.mark, what, remedy, id=id)

    def where(self, path: document.Path) -> str:
        return self.findings.where(document.locate(self.root, path))

    def has(self, *path: str | int) -> bool:
        return document.find(self.root, path) is not None

    def entries(self, *path: str | int) -> dict[str, document.Entry]:
        """The entries of the mapping at ``path``, by key; nothing without such a mapping."""
        return document.entries(self.root, path)

    def host_path(self, group: str, hosts: str, name: str, *fields: str) -> document.Path:
        """The path of a host's value: the first of ``fields`` in the host, else in its group.

        A default has no place in the file: then the path of the host itself.
        """
        own: document.Path = (group, hosts, name)
        for field in fields:
            if self.has(group, hosts, name, field):
                return (*own, field)
        for field in fields:
            if self.has(group, field):
                return (group, field)
        return own

    def member_path(self, name: str, *fields: str) -> document.Path:
        return self.host_path("etcd", "members", name, *fields)

    def worker_path(self, name: str, *fields: str) -> document.Path:
        return self.host_path("alluxio", "workers", name, *fields)

    @functools.cached_property
    def alluxio_maps(self) -> tuple[document.Path, ...]:
        """The places of properties, variables and folders: the section, and workers that have
        any."""
        found: list[document.Path] = []
        if self.file.alluxio is not None:
            found.append(("alluxio",))
            for name, entry in self.entries("alluxio", "workers").items():
                given = entry.value.entries if isinstance(entry.value, document.Mapping) else {}
                if not _PLACES.isdisjoint(given):
                    found.append(("alluxio", "workers", name))
        if self.file.kubernetes is not None:
            found += [("kubernetes",), ("kubernetes", "worker")]
        return tuple(found)

    @property
    def members(self) -> tuple[EtcdMember, ...]:
        """The declared members; empty for an external etcd."""
        etcd = self.inventory.etcd
        return () if etcd.external else etcd.members

    @property
    def workers(self) -> tuple[AlluxioWorker, ...]:
        alluxio = self.inventory.alluxio
        return alluxio.workers if alluxio is not None else ()

    @property
    def masters(self) -> tuple[AlluxioMaster, ...]:
        alluxio = self.inventory.alluxio
        return alluxio.masters if alluxio is not None else ()

    def setting_path(self, member: str, key: str) -> document.Path:
        return self._first(("etcd", "members", member), ("etcd",), "settings", key)

    def property_path(self, worker: str, key: str) -> document.Path:
        return self._first(("alluxio", "workers", worker), ("alluxio",), "properties", key)

    def _first(self, host: document.Path, group: document.Path, *rest: str) -> document.Path:
        return next((at for at in ((*host, *rest), (*group, *rest)) if self.has(*at)), host)

    def _any_broken(self, paths: Iterable[document.Path]) -> bool:
        # Only a broken value at the path or above it counts; a broken sibling does not matter.
        return any(path[: len(at)] == at for path in paths for at in self.broken)
