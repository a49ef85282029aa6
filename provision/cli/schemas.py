"""JSON Schemas of the documents, made of the documents' types.

``python -m provision.cli.schemas`` writes them into ``json-schemas/``, from where they are shipped.
A document's number is a promise to its readers: what breaks them is not written under the same
number (:func:`breaks`).
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from provision.alluxio.membership.clusters import ClustersDocument
from provision.alluxio.membership.removed import RemovedDocument
from provision.check_nodes.result import CheckDocument
from provision.check_nodes.status import StatusDocument
from provision.cli import debug, documents
from provision.engine.plan import PlanDocument
from provision.plans.etcd.certificates import csr_exchange
from provision.plans.etcd.data.backup_etcd import BackupDocument
from provision.plans.etcd.data.fetch_backups import FetchedDocument

Schema = dict[str, Any]

FOLDER = Path(__file__).parent / "json-schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Every document. Those with several types have the keys of all.
DOCUMENTS: tuple[tuple[Any, ...], ...] = (
    (PlanDocument, documents.Finished, documents.Part),
    (CheckDocument, documents.Part),
    (StatusDocument, documents.Part),
    (documents.TrustHostsDocument,),
    (documents.LogsDocument,),
    (documents.AuditDocument,),
    (BackupDocument,),
    (FetchedDocument,),
    (documents.InventoryDocument,),
    (documents.ExplainDocument,),
    (documents.InitInventoryDocument,),
    (documents.ImportAnsibleDocument,),
    (documents.SshConfigDocument,),
    (csr_exchange.ManifestDocument,),
    (ClustersDocument,),
    (RemovedDocument,),
    (documents.ClientConfigDocument,),
    (documents.RenderMonitorDocument,),
    (documents.RenderHelmDocument,),
    (debug.ManifestDocument,),
    (documents.ErrorDocument, documents.Part),
)
_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def generated() -> dict[str, Schema]:
    """The schema of every document, by what the document says in ``schema``."""
    found = [_document(*parts) for parts in DOCUMENTS]
    return {schema["title"]: schema for schema in found}


def file_name(title: str) -> str:
    """The file of the schema ``title``: ``plan-1.json`` of ``alluxio-provision/plan/1``."""
    _, name, number = title.split("/")
    return f"{name}-{number}.json"


def as_text(schema: Schema) -> str:
    return json.dumps(schema, indent=2) + "\n"


def _document(*parts: Any) -> Schema:
    defs: dict[str, Schema] = {}
    made: Schema = {"description": _words(parts[0]), "type": "object"}
    for part in parts:
        shape = _shape(part, defs)
        made["properties"] = {**made.get("properties", {}), **shape["properties"]}
        made["required"] = [*made.get("required", []), *shape.get("required", [])]
    title = made["properties"]["schema"]["const"]
    if parts[0] is PlanDocument:
        made["allOf"] = [_of_command(c, extras, defs) for c, extras in documents.EXTRAS.items()]
    ordered = dict(sorted(defs.items()))
    return {"$schema": DIALECT, "title": title, **made, **({"$defs": ordered} if defs else {})}


def _of_command(command: str, extras: tuple[Any, ...], defs: dict[str, Schema]) -> Schema:
    """What the plan of one command has besides."""
    of = {"properties": {"command": {"const": command}}, "required": ["command"]}
    then = [_of(extra, defs) for extra in extras]
    return {"if": of, "then": then[0] if len(then) == 1 else {"anyOf": then}}


def _shape(part: Any, defs: dict[str, Schema]) -> Schema:
    """A TypedDict. Further keys are allowed: a later release may have them."""
    made: Schema = {
        "description": _words(part),
        "type": "object",
        "properties": {key: _of(hint, defs) for key, hint in get_type_hints(part).items()},
    }
    if required := [key for key in made["properties"] if key in part.__required_keys__]:
        made["required"] = required
    return made


def _of(hint: Any, defs: dict[str, Schema]) -> Schema:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return {}
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    if is_typeddict(hint):
        name = hint.__name__.removesuffix("Document")
        if name not in defs:
            defs[name] = {}
            defs[name] = _shape(hint, defs)
        return {"$ref": f"#/$defs/{name}"}
    if origin is Literal:
        return {"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        found = [_of(argument, defs) for argument in arguments]
        if all(one.keys() == {"type"} for one in found):
            return {"type": [one["type"] for one in found]}
        return {"anyOf": found}
    if origin is list:
        return {"type": "array", "items": _of(arguments[0], defs)}
    if origin is not None and issubclass(origin, Mapping) and arguments[0] is str:
        return {"type": "object", "additionalProperties": _of(arguments[1], defs)}
    raise TypeError(f"a document cannot hold {hint}")


def _words(part: Any) -> str:
    return " ".join((inspect.getdoc(part) or "").replace("``", "`").split())


def breaks(old: Schema, new: Schema) -> list[str]:
    """What a reader of ``old`` documents may miss in ``new`` ones: a key that is gone or not always
    there, or another kind of value. Further keys, and plans of further commands, are no reason."""
    return [*_breaks(old, new, (old, new), "")]


def _breaks(old: Schema, new: Schema, whole: tuple[Schema, Schema], at: str) -> Iterator[str]:
    old, new = _resolved(old, whole[0]), _resolved(new, whole[1])
    if "anyOf" in old or "anyOf" in new:
        before, after = old.get("anyOf", [old]), new.get("anyOf", [new])
        for one in after:
            if all([*_breaks(known, one, whole, at)] for known in before):
                yield f"{at or 'the document'}: a kind of value that was not there"
        return
    allowed, given = _kinds(old), _kinds(new)
    if allowed is not None and "string" in allowed and ("const" in new or "enum" in new):
        return  # fewer texts than there were
    if allowed is not None and (given is None or not given <= allowed):
        yield f"{at or 'the document'}: another kind of value"
        return
    for key, known in old.get("properties", {}).items():
        place = f"{at}.{key}" if at else key
        if key not in new.get("properties", {}):
            yield f"{place}: is gone"
            continue
        if key in old.get("required", ()) and key not in new.get("required", ()):
            yield f"{place}: is not always there"
        yield from _breaks(known, new["properties"][key], whole, place)
    for key in ("items", "additionalProperties"):
        if key in old:
            yield from _breaks(old[key], new.get(key, {}), whole, f"{at}[]")
    conditions = {json.dumps(one["if"]): one["then"] for one in new.get("allOf", ())}
    for one in old.get("allOf", ()):
        command = one["if"]["properties"]["command"]["const"]
        if (then := conditions.get(json.dumps(one["if"]))) is None:
            yield f"{command}: what it adds is gone"
        else:
            yield from _breaks(one["then"], then, whole, command)


def _resolved(schema: Schema, whole: Schema) -> Schema:
    if "$ref" in schema:
        found: Schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
        return found
    return schema


def _kinds(schema: Schema) -> frozenset[Any] | None:
    """The values or types that are possible; None for any. A whole number is a number."""
    if "const" in schema:
        return frozenset([schema["const"]])
    if "enum" in schema:
        return frozenset(schema["enum"])
    if "type" not in schema:
        return None
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return frozenset(kinds) | (frozenset(["integer"]) if "number" in kinds else frozenset())


def write(folder: Path = FOLDER) -> list[str]:
    """Write every schema whose number allows it into ``folder``. Returns what does not."""
    refused = []
    folder.mkdir(exist_ok=True)
    for title, schema in generated().items():
        path = folder / file_name(title)
        if path.exists():
            old = json.loads(path.read_text(encoding="utf-8"))
            if found := breaks(old, schema):
                number = int(re.sub(r".*/", "", title)) + 1
                refused += [f"{title}: {what}: its number must be {number}" for what in found]
                continue
        path.write_text(as_text(schema), encoding="utf-8")
    return refused


if __name__ == "__main__":
    if problems := write():
        sys.exit("\n".join(problems))
