"""The keys of ``etcd.conf.yml`` in each minor release of etcd, and their types, from its source.

etcd reads the file with a parser that ignores every other key (``configFromFile`` in its
``server/embed/config.go``). So a misspelled key would restart all members and have no effect. A
value of another type stops it at its start.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from provision.inventory.model import Setting

_FILE = Path(__file__).parent / "etcd-settings.txt"
#: The first number that is too large for a type of Go, and whether it has negative numbers.
_INTEGERS = {
    "int": (1 << 63, True),
    "int64": (1 << 63, True),
    "uint": (1 << 64, False),
    "uint32": (1 << 32, False),
    "uint64": (1 << 64, False),
}
#: Nanoseconds of the units of Go's ``time.ParseDuration``.
_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h)")


@functools.cache
def _rows() -> Mapping[str, tuple[str, tuple[str, ...]]]:
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    words = (line.split(" ") for line in lines if not line.startswith("#"))
    return {key: (kind, tuple(known)) for key, kind, *known in words}


def minors() -> Mapping[str, tuple[str, ...]]:
    """The minor releases that know each key, by key, such as ``("3.6", "3.7")``."""
    return {key: known for key, (_, known) in _rows().items()}


def keys(minor: str | None) -> frozenset[str]:
    """The keys of a minor release; for None, of all. Empty when the list does not have the
    release."""
    rows = _rows().items()
    return frozenset(key for key, (_, known) in rows if minor is None or minor in known)


def typed(key: str, value: Setting) -> Setting:
    """``value`` in the type that etcd's file wants for ``key``: a number in quotes becomes a
    number, ``5s`` nanoseconds, one name a list. A key that is not in the list keeps its value.

    Raises ``ValueError``, with what the value must be, when it cannot be of that type.
    """
    kind, _ = _rows().get(key, ("", ()))
    if kind == "string":
        return _text(value)
    if kind == "bool":
        return _boolean(value)
    if kind == "list":
        return _list(value)
    if kind == "duration":
        return _duration(value)
    if kind in _INTEGERS:
        return _integer(value, *_INTEGERS[kind])
    if kind == "struct":
        raise ValueError("a part with keys of its own, which this tool does not write")
    return value


def _text(value: Setting) -> str:
    if isinstance(value, bool | list):
        raise ValueError("a text")
    return str(value)


def _boolean(value: Setting) -> bool:
    found = {"true": True, "false": False}.get(str(value).lower())
    if found is None:
        raise ValueError("true or false")
    return found


def _list(value: Setting) -> list[str]:
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        raise ValueError("a list of texts")
    return [part.strip() for part in value.split(",")]


def _integer(value: Setting, end: int, negative: bool) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not (-end if negative else 0) <= value < end:
        least = "" if negative else " from 0"
        raise ValueError(f"a whole number{least} below {end}")
    return value


def _duration(value: Setting) -> int:
    if isinstance(value, str) and not value.isdigit():
        parts = _DURATION.findall(value)
        if not parts or "".join(number + unit for number, unit in parts) != value:
            raise ValueError("a duration such as 500ms or 1h30m")
        value = round(sum(float(number) * _UNITS[unit] for number, unit in parts))
    return _integer(value, 1 << 63, True)
