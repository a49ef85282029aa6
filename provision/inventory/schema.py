"""The inventory's JSON schema, for editors that complete and check YAML.

The schema is in ``inventory/schema.json``; ``python -m provision.inventory.schema`` prints it.
"""

from __future__ import annotations

import json
from typing import Any

from provision.inventory import model

#: A range such as ``[001-200]`` or ``[1-3,7]``. It may stand in a name wherever a letter may.
_RANGE = r"\[[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*\]"
_RANGED = rf"^([A-Za-z0-9.:_-]|{_RANGE})+$"


def json_schema() -> dict[str, Any]:
    """The schema of an inventory file, in which names and addresses of hosts may be ranges."""
    schema = model.InventoryFile.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_as_written(schema),
        "title": "Inventory of etcd and Alluxio hosts",
    }


def _as_written(node: Any, key: str = "") -> Any:
    """``node`` for the file as it is written, not for the model's values."""
    if isinstance(node, list):
        return [_as_written(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "patternProperties" in node:
        node = {**node, "additionalProperties": False}
    # Titles made of field names only repeat them.
    schema = {k: _as_written(v, k) for k, v in node.items() if not _is_made_title(k, v)}
    if key in ("members", "masters", "workers"):
        (hosts,) = schema["patternProperties"].values()
        schema["patternProperties"] = {_RANGED: hosts}
    if schema.get("pattern") == model.HOST_NAME:
        schema["pattern"] = _RANGED
    if key == "version":
        # A number is taken as written: `version: 313`.
        schema["type"] = ["string", "number"]
    return schema


def _is_made_title(key: str, value: Any) -> bool:
    return key == "title" and isinstance(value, str)


def as_text() -> str:
    """The schema as text, as in ``inventory/schema.json``."""
    return json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(as_text(), end="")
