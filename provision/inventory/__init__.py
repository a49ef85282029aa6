"""The inventory: what an operator declares, checked before anything is contacted.

>>> from pathlib import Path
>>> from provision.inventory import load
>>> load(Path("inventory/example.yml")).cluster
'DefaultAlluxioCluster'
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # as all modules below: a completion needs none of them
    from typing import Any

    from provision.inventory.checks import prefix_conflicts
    from provision.inventory.example import EXAMPLE, write_example
    from provision.inventory.loader import LoadedInventory, load, read
    from provision.inventory.model import InventoryFile, Secret, Source
    from provision.inventory.resolved import (
        AlluxioCluster,
        AlluxioWorker,
        EtcdCluster,
        EtcdMember,
        Inventory,
        Machine,
    )
    from provision.inventory.schema import json_schema
    from provision.inventory.show import Row, provenance

__all__ = [
    "EXAMPLE",
    "AlluxioCluster",
    "AlluxioWorker",
    "EtcdCluster",
    "EtcdMember",
    "Inventory",
    "InventoryFile",
    "LoadedInventory",
    "Machine",
    "Row",
    "Secret",
    "Source",
    "json_schema",
    "load",
    "prefix_conflicts",
    "provenance",
    "read",
    "write_example",
]

# pydantic and ruamel.yaml take a tenth of a second to import, which `invoke --list` need not pay.
_MODULES = {
    "checks": ("prefix_conflicts",),
    "example": ("EXAMPLE", "write_example"),
    "loader": ("LoadedInventory", "load", "read"),
    "model": ("InventoryFile", "Secret", "Source"),
    "resolved": (
        "AlluxioCluster",
        "AlluxioWorker",
        "EtcdCluster",
        "EtcdMember",
        "Inventory",
        "Machine",
    ),
    "schema": ("json_schema",),
    "show": ("Row", "provenance"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
