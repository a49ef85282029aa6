"""Every JSON document that the tests' runs print is as its schema says, with no other keys.

:func:`watch` looks at what is printed in this process; what another process has printed is given to
:func:`require`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import provision
from provision import terminal

FOLDER = Path(provision.__file__).parent / "cli" / "json-schemas"
PREFIX = "alluxio-provision/"
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list, tuple),
    "object": (dict,),
}
#: All that a schema may say: what is not here would not be tested.
_KNOWN = {
    *("$schema", "title", "description", "$defs", "$ref", "type", "const", "enum", "anyOf"),
    *("allOf", "if", "then", "properties", "required", "items", "additionalProperties"),
}

_found: list[str] = []


def faults(value: Any, schema: dict[str, Any], *, closed: bool = True) -> list[str]:
    """Where ``value`` is not as ``schema`` says. ``closed``: with a key that is not in it."""
    return [*_faults(value, schema, schema, "", closed)]


def of_document(document: Any) -> list[str]:
    """The faults of a document of this tool."""
    if not isinstance(document, dict):
        return ["it is no object"]
    path = FOLDER / f"{str(document.get('schema')).removeprefix(PREFIX).replace('/', '-')}.json"
    if not path.is_file():
        return [f"{document.get('schema')} has no schema"]
    return faults(document, json.loads(path.read_text(encoding="utf-8")))


def require(document: Any) -> None:
    """Raises AssertionError with every fault of a document of this tool."""
    assert of_document(document) == []


def watch() -> None:
    """From now on note the faults of what is printed in this process."""
    for name in ("json_text", "emit_json_line"):
        setattr(terminal, name, _watched(getattr(terminal, name)))


def taken() -> list[str]:
    """The faults since the last call."""
    found = _found[:]
    _found.clear()
    return found


def _watched(printing: Any) -> Any:
    def watched(document: Any) -> Any:
        if isinstance(document, dict) and str(document.get("schema")).startswith(PREFIX):
            _found.extend(f"{document['schema']}: {fault}" for fault in of_document(document))
        return printing(document)

    return watched


def _resolved(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    assert set(schema) <= _KNOWN, f"not tested: {set(schema) - _KNOWN}"
    if "$ref" in schema:
        return _resolved(whole["$defs"][schema["$ref"].removeprefix("#/$defs/")], whole)
    return schema


def _faults(
    value: Any, schema: dict[str, Any], whole: dict[str, Any], at: str, closed: bool
) -> Iterator[str]:
    schema, place = _resolved(schema, whole), at or "the document"
    if "anyOf" in schema:
        kinds = [[*_faults(value, one, whole, at, closed)] for one in schema["anyOf"]]
        if all(kinds):
            yield min(kinds, key=len)[0]
        return
    if "const" in schema and value != schema["const"]:
        yield f"{place} is {value!r}, not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place} is {value!r}, none of {schema['enum']}"
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        right = tuple(kind for name in names for kind in _TYPES[name])
        if not isinstance(value, right) or (isinstance(value, bool) and "boolean" not in names):
            yield f"{place} is a {type(value).__name__}, not {names}"
            return
    if isinstance(value, dict):
        yield from _of_object(value, schema, whole, at, closed)
    if isinstance(value, list | tuple) and "items" in schema:
        for n, one in enumerate(value):
            yield from _faults(one, schema["items"], whole, f"{at}[{n}]", closed)


def _of_object(
    value: dict[str, Any], schema: dict[str, Any], whole: dict[str, Any], at: str, closed: bool
) -> Iterator[str]:
    """Keys that the command adds to a plan are in ``allOf``."""
    mine = schema.get("properties", {})
    more: set[str] = set()
    for one in schema.get("allOf", ()):
        if not [*_faults(value, one["if"], whole, at, False)]:
            yield from _faults(value, one["then"], whole, at, False)
            more |= _named(one["then"], value, whole)
    for key in schema.get("required", ()):
        if key not in value:
            yield f"{at}.{key} is missing".lstrip(".")
    others = schema.get("additionalProperties")
    for key, one in value.items():
        name = f"{at}.{key}".lstrip(".")
        if key in mine:
            yield from _faults(one, mine[key], whole, name, closed)
        elif others is not None:
            yield from _faults(one, others, whole, name, closed)
        elif closed and key not in more and (mine or more):
            yield f"{name} is not in the schema"


def _named(schema: dict[str, Any], value: dict[str, Any], whole: dict[str, Any]) -> set[str]:
    """The keys of ``schema``; of several kinds, of the one that ``value`` is."""
    schema = _resolved(schema, whole)
    kinds = [_resolved(one, whole) for one in schema.get("anyOf", [schema])]
    fitting = [one for one in kinds if not [*_faults(value, one, whole, "", False)]]
    return {key for one in fitting for key in one["properties"]}
