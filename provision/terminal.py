"""The screen: lines, rich consoles and JSON. The caller decides what is shown.

Every text leaves with the program in use in its commands (:mod:`provision.program_in_use`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from provision import progress
from provision.program_in_use import WRITTEN, rendered, rendered_document
from provision.text import shown
from provision.wrap import hanging, width_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


#: Width of output to a file or a pipe: no text is cut there.
PIPE_WIDTH = 10_000
#: Rows of a long list that become text together.
ROWS = 200


def line(words: str) -> str:
    """``words`` as they leave: the program in use, and no terminal control characters."""
    return shown(rendered(words))


def say(words: str, *, stderr: bool = False, end: str = "\n") -> None:
    """Print ``words``, as :func:`line` makes them, on stdout or stderr. On stderr no word is broken
    at the end of a terminal's line."""
    stream = sys.stderr if stderr else sys.stdout
    made = line(words)
    if stderr and (width := width_of(stream)):
        made = "\n".join(part for one in made.split("\n") for part in hanging(one, width))
    with progress.hidden():
        print(made, end=end, file=stream, flush=stderr)


def console(*, stderr: bool = False) -> Console:
    """A rich console that honours NO_COLOR, and does not cut lines for a file or a pipe."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich's own handler would exit with 1, which means "unhealthy"

        def print(self, *objects: Any, **options: Any) -> None:
            with progress.hidden():
                super().print(*objects, **options)

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Plain(file=stream, width=width, highlight=False, soft_wrap=True, markup=False)


def emit_json(document: Any) -> None:
    """One document on stdout."""
    with progress.hidden():
        sys.stdout.write(json_text(document))


def json_text(document: Any) -> str:
    """A document in ASCII: correct in every locale, and without terminal control characters."""
    from pydantic_core import to_json  # ten times as fast as json, which indents in Python

    text = to_json(document, indent=2).decode()
    if WRITTEN in text:
        document = rendered_document(document)
        text = to_json(document, indent=2).decode()
    if not text.isascii() or "\x7f" in text:
        text = json.dumps(document, indent=2)
    return text + "\n"


def json_pieces(document: Any, name: str, rows: Iterable[Any]) -> Iterator[str]:
    """The text of :func:`json_text` in pieces, for a document with one long list: the key ``name``
    has an empty list in ``document``, and gets ``rows``. Neither rows nor text are ever whole in
    memory."""
    before, place, after = json_text(document).partition(f'"{name}": []')
    indent = " " * (len(before) - before.rfind("\n") - 1)
    rows = iter(rows)
    begin = before + place[:-1]
    # Rows become text as deep inside lists as they are in the document: then they stand as there.
    head, _, tail = json_text(_inside([], len(indent) // 2)).partition("[]")
    first, last = len(head) + 1, -len(f"\n{indent}]{tail}")
    while some := list(itertools.islice(rows, ROWS)):
        yield begin + json_text(_inside(some, len(indent) // 2))[first:last]
        begin = ","
    yield (begin if begin != "," else f"\n{indent}") + place[-1:] + after


def _inside(rows: list[Any], depth: int) -> list[Any]:
    for _ in range(depth):
        rows = [rows]
    return rows


def emit_json_line(document: Any) -> None:
    """One document on one line of stdout, at once: for output that goes on until it is ended."""
    with progress.hidden():
        print(json.dumps(rendered_document(document), separators=(",", ":")), flush=True)


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C or SIGTERM ends the body without an error: this is the normal end of a live view."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def text(words: str, style: str = "") -> Text:
    """``words`` for rich, as :func:`line` makes them, without markup."""
    from rich.text import Text

    return Text(line(words), style=style)


def quoted(words: str, style: str = "") -> Text:
    """``words`` of a file for rich: as :func:`text`, but commands in them stay as they are."""
    from rich.text import Text

    return Text(shown(words), style=style)
