from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.text import printable, size


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
