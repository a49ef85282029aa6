"""Text that came from elsewhere (a host, etcd, a server's error), made fit to be shown."""

from __future__ import annotations

import unicodedata

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


def _shown(c: str) -> bool:
    return c == " " or unicodedata.category(c)[0] not in "CZ"
