"""The page of each problem id: the meaning, the causes, the remedy."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import files
from typing import NamedTuple

from provision.errors import UsageError
from provision.ids import IDS
from provision.text import printable

#: Stands for every id.
ALL = "all"


class Page(NamedTuple):
    """``text`` is Markdown; its first line is the title."""

    id: str
    title: str
    text: str


def page(id: str) -> Page:
    """The page of ``id``. Raises :class:`UsageError` with similar ids when there is none."""
    if id not in IDS:
        near = get_close_matches(id.lower().replace("_", "-"), IDS, n=3, cutoff=0.5)
        tail = f"did you mean {' or '.join(near)}? " if near else ""
        what = f"no error is called {printable(id, 60)!r}: {tail}explain {ALL} lists them"
        raise UsageError(what, id="name-unknown")
    text = (files("provision.cli") / "explanations" / f"{id}.md").read_text(encoding="utf-8")
    return Page(id, text.partition("\n")[0].removeprefix("# "), text)


def pages() -> list[Page]:
    """Every page, in the order of the ids."""
    return [page(id) for id in IDS]
