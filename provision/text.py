"""Text that came from elsewhere (a host, etcd, a server's error), made fit to be shown and read."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any, NoReturn

#: Characters kept of a value whose form is not known.
EXCERPT = 120
#: Characters kept of one line of a log or a file.
LINE_LIMIT = 2000


def printable(text: str | bytes, limit: int | None = None) -> str:
    """``text`` on one line, without anything that steers a terminal.

    Control and format characters (escape sequences, new lines, right-to-left marks) and bytes
    that are not UTF-8 become ``\\ufffd``. With ``limit``, longer text is cut and ends with ``…``.
    """
    if isinstance(text, bytes):
        # A character is at most four bytes; the rest of a large value is not even looked at.
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
    """``text`` as it goes to a terminal: its lines, each :func:`printable`, whole."""
    if text.isascii() and text.isprintable():
        return text
    return "\n".join(map(printable, text.expandtabs(4).split("\n")))


def document(text: str | bytes) -> Any:
    """The JSON document in ``text``. Raises ``ValueError`` when there is none, also for what is
    nested too deeply and for numbers that are not finite, of which JSON has none."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    try:
        return _JSON.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def number(text: str) -> int | None:
    """The whole number in ``text``: ASCII digits, as many as a count or a size can have."""
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None


def size(count: int) -> str:
    """``count`` bytes as an operator reads it: ``20 kB``, ``1.5 GB`` (powers of 1000)."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        value /= 1000
        if value < 999.5 or unit == "PB":
            break
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


_JSON = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def _shown(c: str) -> bool:
    return c == " " or unicodedata.category(c)[0] not in "CZ"
