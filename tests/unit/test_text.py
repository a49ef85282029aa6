from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import provision
from provision.text import counted, printable, share, size, verb

#: Where a number is never one: it stands behind a condition.
NEVER_ONE = {
    "len(nodes) workers: ",
    "len(seen.services) services: ",
    "len(answer.members) members",
    "len(verdict.known) members ",
    "hosts hosts: ok",
    "count members survive no more losses than ",
    "count members: every write waits for more members, and etcd recommends 7 at most",
    "count members: without it they lose a vote",
    "count masters survive no more losses than ",
    "len(tops) top folders, not one: ",
    "count times",
    "count keys",
    "total names; the maximum is ",
}


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("worker1.example.com", "worker1.example.com"),
        ("Wörker", "Wörker"),
        ("a\x1b[31mb\nc", "a\ufffd[31mb\ufffdc"),
        ("\u202egnp.exe", "\ufffdgnp.exe"),
        (b"\xac\xed\x00\x05sr", "\ufffd\ufffd\ufffd\x05sr".replace("\x05", "\ufffd")),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
    ],
)
def test_printable(given_text: str | bytes, shown: str) -> None:
    assert printable(given_text) == shown


def test_long_text_is_cut_at_its_limit() -> None:
    assert printable("x" * 500, 10) == "x" * 9 + "…"
    assert printable(b"x" * 10, 10) == "x" * 10


@given(st.one_of(st.text(), st.binary()), st.one_of(st.none(), st.integers(1, 50)))
def test_nothing_that_steers_a_terminal_is_left(text: str | bytes, limit: int | None) -> None:
    shown = printable(text, limit)
    assert all(c.isprintable() for c in shown)
    assert limit is None or len(shown) <= limit


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (20480, "20 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1_500_000_000, "1.5 GB"),
        (3 * 10**18, "3000 PB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text


def test_one_thing_is_not_called_things() -> None:
    assert [counted(n, "step") for n in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
    assert counted(1, "id is", "ids are") == "1 id is"
    assert counted(3, "id is", "ids are") == "3 ids are"
    assert share(1, 3, "member") == "1 of 3 members is"
    assert share(2, 3, "member") == "2 of 3 members are"
    assert share(0, 3, "member") == "0 of 3 members are"
    assert share(0, 1, "member") == "0 of 1 member is"
    assert (verb(["w1"]), verb(["w1", "w2"])) == ("is", "are")
    assert (verb(["w1"], "has", "have"), verb([1, 2], "has", "have")) == ("has", "have")


_PLURAL = re.compile(r" (?:[a-z]+ )?[a-z]+s\b(?<! is)(?<! has)(?<!ss)")


def _counts(tree: ast.AST) -> Iterator[str]:
    """The parts of texts in which a count stands before a noun of many."""
    for text in ast.walk(tree):
        if not isinstance(text, ast.JoinedStr):
            continue
        for value, after in zip(text.values, text.values[1:], strict=False):
            if not isinstance(value, ast.FormattedValue) or not isinstance(after, ast.Constant):
                continue
            words = str(after.value)
            number = ast.unparse(value.value)
            if not re.match(r"len\(|count$|total$|hosts$|of$", number) and "count" not in number:
                continue
            if _PLURAL.match(words) and not number.startswith("counted("):
                yield number + words


@pytest.mark.long
def test_whatever_is_counted_is_counted_by_one_function() -> None:
    """``1 steps`` is not English: see ``counted``."""
    root = Path(provision.__file__).parent
    found = {
        f"{path.relative_to(root)}: {text}"
        for path in root.rglob("*.py")
        for text in _counts(ast.parse(path.read_text("utf-8")))
        if text not in NEVER_ONE
    }
    assert not found
