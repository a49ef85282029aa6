"""provision/dataclass.py, beside the standard library's own."""

from __future__ import annotations

import ast
import copy
import dataclasses
import itertools
import pickle
from dataclasses import field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

import provision.dataclass

REPO = Path(__file__).parents[2]
T = TypeVar("T")


def made(by: Any) -> dict[str, Any]:
    """The same classes, by one decorator or the other."""
    value = by(frozen=True, slots=True)

    @value
    class Empty:
        pass

    @value
    class One:
        a: int

    @value
    class Two:
        """With a text of its own."""

        a: int
        b: tuple[str, ...] = ()

    @value
    class Below(Two):
        c: list[int] = field(default_factory=list, compare=False)
        d: bytes = field(default=b"", repr=False)
        e: int = field(default=0, hash=False)

    @value
    class Named:
        a: int
        id: str = field(kw_only=True)

    @value
    class Own:
        a: int
        b: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own) and other.a == self.a

        def __repr__(self) -> str:
            return f"<{self.a}>"

    @value
    class OwnHash:
        a: int

        def __hash__(self) -> int:
            return 5

    @value
    class Of(Generic[T]):
        a: T

    return {c.__name__: c for c in (Empty, One, Two, Below, Named, Own, OwnHash, Of)}


OURS, THEIRS = made(provision.dataclass.dataclass), made(dataclasses.dataclass)

CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Empty", (), {}),
    ("One", (1,), {}),
    ("One", (2,), {}),
    ("One", ((1,),), {}),
    ("Two", (1,), {}),
    ("Two", (1, ("x",)), {}),
    ("Two", (1,), {"b": ("x",)}),
    ("Below", (1, ("x",)), {}),
    ("Below", (1, ("x",), [1]), {}),
    ("Below", (1, ("x",), [1], b"d"), {}),
    ("Below", (1, ("x",)), {"e": 4}),
    ("Named", (1,), {"id": "i"}),
    ("Own", (1, 2), {}),
    ("Own", (1, 3), {}),
    ("OwnHash", (1,), {}),
    ("OwnHash", (2,), {}),
    ("Of", ("a",), {}),
]


def of(classes: dict[str, Any], case: tuple[str, tuple[Any, ...], dict[str, Any]]) -> Any:
    name, arguments, named = case
    return classes[name](*arguments, **named)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_one_looks_and_is_copied_as_the_standard_library_s(case: Any) -> None:
    ours, theirs = of(OURS, case), of(THEIRS, case)
    assert repr(ours) == repr(theirs)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert type(ours).__match_args__ == type(theirs).__match_args__
    assert type(ours).__doc__ == type(theirs).__doc__
    assert copy.copy(ours) == ours == copy.deepcopy(ours) == dataclasses.replace(ours)
    with pytest.raises(AttributeError):
        ours.another = 1
    with pytest.raises(AttributeError):
        ours.__dict__  # noqa: B018


def test_two_are_equal_when_those_of_the_standard_library_are() -> None:
    for a, b in itertools.product(CASES, CASES):
        ours, theirs = (of(OURS, a), of(OURS, b)), (of(THEIRS, a), of(THEIRS, b))
        assert (ours[0] == ours[1]) == (theirs[0] == theirs[1]), (a, b)
        assert (ours[0] != ours[1]) == (theirs[0] != theirs[1]), (a, b)
        if ours[0] == ours[1] and a[0] != "Own":
            assert hash(ours[0]) == hash(ours[1]), (a, b)
            assert hash(theirs[0]) == hash(theirs[1]), (a, b)
    assert OURS["One"](1) != 1
    assert len({of(OURS, case) for case in CASES}) == len({of(THEIRS, case) for case in CASES})


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [("One", (), {}), ("One", (1, 2), {}), ("Named", (1, "i"), {}), ("Two", (1,), {"z": 2})],
)
def test_wrong_arguments_are_refused_alike(name: str, arguments: Any, named: Any) -> None:
    texts = []
    for classes in (OURS, THEIRS):
        with pytest.raises(TypeError) as refused:
            classes[name](*arguments, **named)
        texts.append(str(refused.value))
    assert texts[0] == texts[1]


@provision.dataclass.dataclass(frozen=True, slots=True)
class Sent:
    a: int


def test_one_is_pickled() -> None:
    assert pickle.loads(pickle.dumps(Sent(3))) == Sent(3)


def test_other_ways_are_the_standard_library_s() -> None:
    @provision.dataclass.dataclass(slots=True)
    class Changing:
        a: int

    changing = Changing(1)
    changing.a = 2
    assert changing == Changing(2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(changing)


def test_all_classes_of_values_are_made_so() -> None:
    """One with the standard library's costs a third of a millisecond at every start."""
    for path in (REPO / "provision").rglob("*.py"):
        if path.name == "dataclass.py":
            continue
        tree = ast.parse(path.read_text())
        theirs = any(
            isinstance(node, ast.ImportFrom)
            and node.module == "dataclasses"
            and any(alias.name == "dataclass" for alias in node.names)
            for node in ast.walk(tree)
        )
        if theirs:
            assert "frozen=True, slots=True)\nclass" not in path.read_text(), path
