"""``dataclasses.dataclass``, quicker where a class is made.

The standard library compiles six methods for every frozen class, each with an ``exec`` of its own
(CPython, ``dataclasses._create_fn``), whenever its module is imported. A run has some 120 such
classes, and every seventh millisecond of a run that changes nothing went there. Here ``__init__``
alone is compiled. Equality, hash and text come from functions that all of them share.

One thing is left to mypy: at run time nothing stops an assignment to a field.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # mypy and editors know this name, and what it makes of a class
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: type | None = None, /, **how: bool) -> Any:
        """As ``dataclasses.dataclass``; quicker with ``frozen=True, slots=True`` and no more."""
        decorate = (
            _value if how == {"frozen": True, "slots": True} else dataclasses.dataclass(**how)
        )
        return decorate if cls is None else decorate(cls)


def _value(cls: type) -> type:
    """A class of values: equal when its fields are, and hashed by them."""
    own = vars(cls)
    # Beside an __eq__ Python writes None, which is no hash of the class's own.
    own_hash = own.get("__hash__") is not None
    made: type = dataclasses.dataclass(slots=True, eq=False, repr=False)(cls)
    fields = dataclasses.fields(made)
    compared = _getter([f.name for f in fields if f.compare])
    hashed = _getter([f.name for f in fields if (f.compare if f.hash is None else f.hash)])
    shown = tuple(f.name for f in fields if f.repr)

    def equal(self: object, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return compared(self) == compared(other)

    def digest(self: object) -> int:
        return hash(hashed(self))

    def text(self: object) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{self.__class__.__qualname__}({values})"

    for name, method in (("__eq__", equal), ("__repr__", text)):
        if name not in own:
            setattr(made, name, method)
    if not own_hash:
        made.__hash__ = digest  # type: ignore[assignment]
    return made


def _getter(names: list[str]) -> Any:
    """Takes the fields ``names`` of an object: one alone as it is, several as a tuple."""
    return attrgetter(*names) if names else (lambda _: ())
