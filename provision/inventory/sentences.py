"""The model's errors about a file, in an operator's words."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from provision.ids import Id
from provision.inventory import document, model


def sentence(error: Mapping[str, Any], root: document.Node, path: document.Path) -> tuple[str, str]:
    """One of pydantic's errors as ``(what is wrong, what to do)``.

    ``path`` leads to what the error is about. Values are not repeated where a secret may stand.
    """
    kind, context = error["type"], error.get("ctx", {})
    key = str(next((part for part in reversed(path) if isinstance(part, str)), "the file"))
    if kind == "missing":
        return _missing(str(error["loc"][-1]), root, path)
    if kind == "extra_forbidden":
        return _unknown(str(error["loc"][-1]), path[:-1])
    if "[key]" in error["loc"]:
        return f"{key!r} is not {model.EXPECTED[context['pattern']]}", ""
    if kind == "value_error":
        return f"{key!r}: {context['error']}", ""
    if kind in ("model_type", "dict_type"):
        wanted = model_at(path)
        if wanted in (model.Secret, model.SshSecret):
            asked = ", or {ask: true}" if wanted is model.SshSecret else ""
            remedy = f"{{env: NAME}} or {{file: PATH}}{asked}"
            return f"{key!r} is a secret: give it by reference", remedy
        known = ", ".join(_fields(path))
        return f"{key!r} must be a mapping", f"its keys: {known}" if known else "as in 'key: value'"
    if kind == "list_type":
        return f"{key!r} must be a list", f"as in {key}: [first, second]"
    entry = document.find(root, path)
    node = entry.value if entry is not None else None
    got = f", not {shorten(node.text)}" if isinstance(node, document.Scalar) else ""
    if context.get("pattern") == model.URL:
        got = ""  # the value may contain a login
    if isinstance(node, document.Scalar) and node.is_null:
        return f"{key!r} has no value", "give one, or remove the key"
    if kind == "literal_error":
        choices = context["expected"].replace("'", "")
        text = node.text if isinstance(node, document.Scalar) else ""
        return f"{key!r} must be {choices}{got}", did_you_mean(
            text, choices.replace(",", "").split()
        )
    return f"{key!r} must be {_wanted(kind, context)}{got}", ""


def trouble(error: Mapping[str, Any], path: document.Path) -> Id:
    """The id of the problem that :func:`sentence` describes."""
    kind = error["type"]
    if kind == "missing":
        return "inventory-key-missing"
    if kind == "extra_forbidden":
        return "inventory-unknown-key"
    if kind == "model_type" and model_at(path) in (model.Secret, model.SshSecret):
        return "inventory-secret-inline"
    return "inventory-value-invalid"


def shorten(text: str) -> str:
    """``text`` in quotes, cut to fit into a message."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A suggestion, or nothing when no known word is similar."""
    by_case = {word.lower(): word for word in known}
    near = get_close_matches(given.lower(), by_case)
    return f"did you mean {by_case[near[0]]!r}?" if near else ""


def model_at(path: document.Path) -> type[BaseModel] | None:
    """The model that describes the mapping at ``path``, if one does."""
    at: Any = model.InventoryFile
    for part in path:
        if _is_model(at):
            field = at.model_fields.get(str(part))
            at = _inner(field.annotation if field is not None else None)
        elif get_origin(at) is dict:
            at = _inner(get_args(at)[-1])
        else:
            return None
    return at if _is_model(at) else None


def _fields(path: document.Path) -> Mapping[str, FieldInfo]:
    """The known fields of the mapping at ``path``; nothing when no model describes it."""
    at = model_at(path)
    return at.model_fields if at is not None else {}


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    # Python 3.10 treats dict[str, int] as a type, too.
    return not get_args(kind) and isinstance(kind, type) and issubclass(kind, BaseModel)


def _inner(annotation: Any) -> Any:
    """The type within ``… | None``."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation


def _missing(name: str, root: document.Node, path: document.Path) -> tuple[str, str]:
    given = document.find(root, (*path, name))
    owner = f" of {path[-1]!r}" if path else ""
    what = f"{name!r}{owner} {'is missing' if given is None else 'has no value'}"
    field = _fields(path).get(name)
    return what, (field.description if field is not None else None) or ""


def _unknown(name: str, parent: document.Path) -> tuple[str, str]:
    what = f"unknown key {shorten(name)}" + (f" in {parent[-1]!r}" if parent else "")
    known = list(_fields(parent))
    if near := did_you_mean(name, known):
        return what, near
    return what, f"known here: {', '.join(known)}"


_NUMBERS = ("int_parsing", "int_type", "int_from_float", "int_parsing_size")
_BOUNDS = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}


def _wanted(kind: str, context: Mapping[str, Any]) -> str:
    if kind == "string_pattern_mismatch":
        return model.EXPECTED[context["pattern"]]
    if kind in _NUMBERS:
        return "a whole number"
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**context)
    if kind.startswith("float"):
        return "a number"
    if kind.startswith("bool"):
        return "true or false"
    if kind == "too_short":
        return "given at least one entry"
    return "one value: text, a number, true or false"
