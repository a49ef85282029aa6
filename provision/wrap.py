"""Lines for a narrow screen, broken between words only.

A command is one word, with its options: who copies it from the screen gets all of it.
"""

from __future__ import annotations

import os
import re
from typing import IO

#: Spaces before the lines after the first.
INDENT = 2
_ITEM = re.compile(r" *[-*] ")
#: A program, its task or first word, options with their values, and what looks like a path, a
#: number or a placeholder.
_COMMAND = re.compile(
    r"\b(?:invoke|alluxio-provision|ssh-keygen|ssh-add|chmod|systemctl|sysctl|helm|kubectl)"
    r"(?: [a-z][a-z-]*)?(?: -[^\s,;)]+(?: (?!-)[^\s,;)]+)?| [\d/~'\"\[A-Z][^\s,;)]*)*"
)
#: Stands for a space that no line breaks; texts for a screen have no such character.
_KEPT = "\0"


def span(words: str) -> int:
    """The columns of a screen that ``words`` take."""
    if words.isascii():
        return len(words)
    from rich.cells import cell_len

    return cell_len(words)


def unbroken(words: str) -> list[str]:
    """What no line breaks."""
    kept = _COMMAND.sub(lambda found: found[0].replace(" ", _KEPT), words)
    return [word.replace(_KEPT, " ") for word in kept.split(" ")]


def wrapped(words: str, width: int) -> list[str]:
    """The lines of ``words``. A word that is longer than ``width`` stays whole."""
    if span(words) <= width:
        return [words]
    lines = [""]
    for word in unbroken(words):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and span(joined) > width:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


def hanging(words: str, width: int) -> list[str]:
    """As :func:`wrapped`; the lines after the first are indented, below the begin of the first."""
    if span(words) <= width:
        return [words]
    bare = words.lstrip(" ")
    begin = " " * (len(words) - len(bare))
    first, *rest = wrapped(bare, width - len(begin))
    more = begin + " " * INDENT
    rest = wrapped(" ".join(rest), width - len(more)) if rest else []
    return [begin + first, *(more + part for part in rest)]


def flowed(text: str, width: int) -> str:
    """A text of Markdown in lines of at most ``width``: paragraphs and the items of lists. Code and
    headings keep their lines."""
    made: list[str] = []
    paragraph: list[str] = []
    code = False

    def end() -> None:
        if paragraph:
            first, *rest = paragraph
            words = " ".join([first, *(line.strip() for line in rest)])
            made.extend(hanging(words, width) if _ITEM.match(first) else wrapped(words, width))
            paragraph.clear()

    for line in text.split("\n"):
        if line.startswith("```"):
            code = not code
        if code or line.startswith(("```", "#", "    ")) or not line.strip():
            end()
            made.append(line)
        elif line.startswith("|"):  # a row of a table
            end()
            made.extend(hanging(line, width))
        else:
            if _ITEM.match(line):
                end()
            paragraph.append(line)
    end()
    return "\n".join(made)


def width_of(stream: IO[str]) -> int | None:
    """The columns of the terminal that ``stream`` writes to; None for a file or a pipe."""
    if not stream.isatty():
        return None
    asked = os.environ.get("COLUMNS", "")
    try:
        found = int(asked) if asked.isdecimal() else os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        found = 0
    return found or 80
