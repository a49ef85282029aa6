"""The program in use. Texts name a command as ``invoke TASK``; they leave with the name of the
program that the user has started.

It is a property of the process, like ``sys.argv[0]``, so it is kept here once for the process. Only
what is shown or written on this machine is rendered. What goes to a host is not: the same inventory
must give the same files, whoever applies it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: What the texts in the code and in the pages say.
WRITTEN = "invoke"
#: Options of the program itself that the texts name.
_OPTIONS = ("--help", "--list")
#: Keys of documents whose values are shown as they are: parts of files, logs, and etcd's values.
_VERBATIM = frozenset({"config", "diff", "files", "lines", "registration", "value", "values"})


@dataclass(frozen=True)
class _Program:
    name: str
    command: re.Pattern[str]


_in_use: _Program | None = None


def start(name: str, tasks: Iterable[str]) -> None:
    """From now on texts say ``name`` before each of ``tasks``. For the program's entry point."""
    global _in_use
    words = "|".join(map(re.escape, (*tasks, *_OPTIONS)))
    _in_use = _Program(
        name, re.compile(rf"(?<![\w./-])(?<!-m ){WRITTEN}(?=\s+(?:{words})(?![\w-]))")
    )


def rendered(text: str) -> str:
    """``text`` with the program in use in its commands."""
    if _in_use is None or WRITTEN not in text:
        return text
    return _in_use.command.sub(_in_use.name, text)


def rendered_document(document: Any) -> Any:
    """``document`` with the program in use in its texts. Its keys, and what it quotes, stay."""
    if _in_use is None:
        return document
    if isinstance(document, str):
        return rendered(document)
    if isinstance(document, Mapping):
        return {k: v if k in _VERBATIM else rendered_document(v) for k, v in document.items()}
    if isinstance(document, list | tuple):
        return [rendered_document(v) for v in document]
    return document
