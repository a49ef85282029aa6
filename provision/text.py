"""Text from outside (a host, etcd, a server's error), made safe to print and to parse."""

from __future__ import annotations

import functools
import json
import math
import unicodedata
from collections.abc import Iterator, Sized
from typing import Any, NoReturn

#: How many characters of a value in an unknown form are kept.
EXCERPT = 120
#: How many characters of one line of a log or a file are kept.
LINE_LIMIT = 2000


def printable(text: str | bytes, limit: int | None = None) -> str:
    """``text`` on one line, without terminal control characters.

    Control and format characters (escape sequences, new lines, right-to-left marks) and bytes
    that are not UTF-8 become ``\\ufffd``. With ``limit``, longer text is cut and ends with ``…``.
    """
    if isinstance(text, bytes):
        # A character has at most four bytes; the rest of a large value is not read.
        text = (text if limit is None else text[: 4 * limit + 4]).decode(errors="replace")
    if limit is not None and len(text) > limit:
        text = text[: max(0, limit - 1)] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c == "…" or _shown(c) else "\ufffd" for c in text)


def printable_lines(text: str, last: int | None = None) -> list[str]:
    """The lines of ``text``, each :func:`printable` with its tabs as spaces; the ``last`` ones."""
    lines = text.strip("\n").split("\n") if text.strip() else []
    chosen = lines if last is None else lines[-last:]
    return [printable(line.rstrip("\r").expandtabs(4), LINE_LIMIT) for line in chosen]


def shown(text: str) -> str:
    """``text`` for a terminal: all its lines, each :func:`printable` and uncut."""
    if text.isascii() and text.isprintable():
        return text
    return "\n".join(map(printable, text.expandtabs(4).split("\n")))


def document(text: str | bytes) -> Any:
    """The JSON document in ``text``. Raises ``ValueError`` without one, also for too deep nesting
    and for numbers that are not finite: JSON has no such numbers."""
    if isinstance(text, bytes):
        usual = text.startswith(b'{"')  # this is JSON in UTF-8: in others, a byte is 0
        text = text.decode("utf-8" if usual else json.detect_encoding(text), "surrogatepass")
    try:
        return _JSON.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def documents(text: str | bytes) -> Iterator[Any]:
    """The JSON documents in ``text``, one behind the other. Raises ``ValueError`` as
    :func:`document` does, and for what is between them."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    at, end = 0, len(text)
    while True:
        while at < end and text[at] in " \t\r\n":
            at += 1
        if at == end:
            return
        try:
            value, at = _JSON.raw_decode(text, at)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        yield value


def number(text: str) -> int | None:
    """The whole number in ``text``: only ASCII digits, at most as many as a size can have."""
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None


def size(count: int) -> str:
    """``count`` bytes for an operator: ``20 kB``, ``1.5 GB`` (powers of 1000)."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        value /= 1000
        if value < 999.5 or unit == "PB":
            break
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def counted(number: int, one: str, many: str = "") -> str:
    """``number`` of something: ``1 step``, ``2 steps``; ``many`` is its other form, if that is not
    ``one`` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def verb(names: Sized, one: str = "is", many: str = "are") -> str:
    """What so many do: ``w1 is``, ``w1, w2 are``."""
    return one if len(names) == 1 else many


def share(number: int, of: int, one: str) -> str:
    """``number`` of so many: ``1 of 3 hosts is``, ``2 of 3 hosts are``."""
    return f"{number} of {counted(of, one)} {'is' if 1 in (number, of) else 'are'}"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


#: Thousands of workers' values have the same few numbers: each is kept once.
_whole = functools.lru_cache(1024)(int)

_JSON = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, parse_int=_whole)


def _shown(c: str) -> bool:
    return c == " " or unicodedata.category(c)[0] not in "CZ"
