"""Where the inventory is when no option names it."""

from __future__ import annotations

DEFAULT_INVENTORY = "inventory/inventory.yml"
INVENTORY_VARIABLE = "PROVISION_INVENTORY"
