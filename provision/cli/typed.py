"""Values from outside against the types of documents: what does not fit, and where."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from provision.text import printable

#: Whole numbers beyond these are no size, count or time of anything.
LARGEST = 2**63
#: Characters of a value that an error shows.
SHOWN = 60


def fault(value: Any, hint: Any) -> str | None:
    """The first place where ``value`` is not as the type says; None when it is. Further keys are
    allowed: a later release may have them."""
    return next(_faults(value, hint, ""), None)


def _faults(value: Any, hint: Any, at: str) -> Iterator[str]:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return
    if is_typeddict(hint):
        yield from _of_keys(value, hint, at)
    elif origin is Literal:
        if value not in arguments:
            yield _said(value, at, f"not {' or '.join(map(str, arguments))}")
    elif origin in (Union, types.UnionType):
        kinds = [fault for one in arguments for fault in [*_faults(value, one, at)][:1]]
        if len(kinds) == len(arguments):  # what is within it says more than what it is not
            yield next((k for k in kinds if not k.startswith(f"{at or 'it'} is")), kinds[0])
    elif origin is list:
        if not isinstance(value, list):
            yield _said(value, at, "not a list")
            return
        for n, one in enumerate(value):
            yield from _faults(one, arguments[0], f"{at}[{n}]")
    elif origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            yield _said(value, at, "not an object")
            return
        for key, one in value.items():
            yield from _faults(one, arguments[1], f"{at}.{printable(key, SHOWN)}".lstrip("."))
    elif not _is(value, hint):
        yield _said(value, at, f"not {_NAMES[hint]}")


def _of_keys(value: Any, hint: Any, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _said(value, at, "not an object")
        return
    for key in hint.__required_keys__:
        if key not in value:
            yield f"{at}.{key} is missing".lstrip(".")
    for key, one in _hints(hint).items():
        if key in value:
            yield from _faults(value[key], one, f"{at}.{key}".lstrip("."))


@functools.cache
def _hints(hint: Any) -> dict[str, Any]:
    return get_type_hints(hint)


_NAMES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _is(value: Any, hint: Any) -> bool:
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    if isinstance(value, int):
        return hint in (int, float) and abs(value) < LARGEST
    return isinstance(value, hint)


def _said(value: Any, at: str, but: str) -> str:
    return f"{at or 'it'} is {printable(repr(value), SHOWN)}, {but}"
