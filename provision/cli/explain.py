"""The page of each problem id (meaning, causes, remedy), and the schema of each JSON document."""

from __future__ import annotations

import json
from difflib import get_close_matches
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from provision.errors import UsageError
from provision.ids import IDS
from provision.text import printable

if TYPE_CHECKING:
    from importlib.abc import Traversable

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


def schema(name: str) -> Any:
    """The JSON schema of the documents ``name``; ``name`` may have the number, and all
    that a document says in ``schema``. Raises :class:`UsageError` with all names when there is
    none."""
    wanted = name.removeprefix("alluxio-provision/").replace("/", "-")
    there = _schemas()
    found = [path for stem, path in there.items() if wanted in (stem, stem.rpartition("-")[0])]
    if not found:
        known = ", ".join(schema_names())
        what = f"no document is called {printable(name, 60)!r}: there are {known}"
        raise UsageError(what, id="name-unknown")
    newest = max(found, key=lambda path: int(path.name[:-5].rpartition("-")[2]))
    return json.loads(newest.read_text(encoding="utf-8"))


def schema_names() -> list[str]:
    """The names for :func:`schema`, without numbers."""
    return sorted({stem.rpartition("-")[0] for stem in _schemas()})


def _schemas() -> dict[str, Traversable]:
    return {
        path.name.removesuffix(".json"): path
        for path in (files("provision.cli") / "json-schemas").iterdir()
        if path.name.endswith(".json")
    }
