"""The YAML that nearly every inventory is, read in a few steps: for completion alone.

Importing ruamel.yaml and parsing with it take most of the time of a completion. This module reads
keys and lists in blocks, flow collections that end on their line, comments, text on one line, plain
or in quotes, and --- before all of these. Anything else (anchors, merges, tags, escapes, text over
lines, tabs, a mistake) is not answered, and :mod:`provision.inventory.document` reads it. So each
pattern here allows less than YAML does, and never more.
"""

from __future__ import annotations

import re

from provision.bounds import INVENTORY

#: Far less than :data:`provision.inventory.document.MAX_DEPTH`, which counts in another way.
_DEPTH = 10
#: Characters of a line. YAML's keys have at most 1,024.
_LINE = 1000

#: Text, and the lists and mappings of it. Nothing is resolved: 3.10 and no are text.
Tree = str | list["Tree"] | dict[str, "Tree"]

# What begins a plain text is no sign of YAML. What begins a key is not << or ... either.
_FIRST = r"[^\s\-?:,\[\]{}#&*!|>'\"%@`"
_QUOTED = r"\"[^\"\\]*\"|'[^']*'"
# Plain text ends at ": ", at " #", and in a flow collection at its signs.
_BLOCK = r"(?:[^\s:]|:(?=\S)| +(?=[^\s#:]))*"
_FLOW = r"(?:[^\s:?,\[\]{}]|:(?=[A-Za-z0-9/])| +(?=[^\s#:?,\[\]{}]))*"
_END = r" *(?: #.*)?"

_KEY = re.compile(rf"({_FIRST}.<]{_BLOCK}|{_QUOTED}):(?: +|$)")
_TEXT = re.compile(rf"({_FIRST}]{_BLOCK}|-(?=\S){_BLOCK}|{_QUOTED}){_END}")
_FLOW_KEY = re.compile(rf" *({_FIRST}.<]{_FLOW}|{_QUOTED}): +")
_FLOW_TEXT = re.compile(rf" *({_FIRST}]{_FLOW}|{_QUOTED}) *")
_FLOW_OPENS, _FLOW_GOES_ON = re.compile(r" *([\[{]) *([\]}]?)"), re.compile(r" *([,\]}])")
_ENDS = re.compile(_END)


class _Other(Exception):
    """The document is not of this kind."""


def parse(data: bytes) -> dict[str, Tree] | None:
    """The document's top mapping; None when another reader must say what the document is."""
    if len(data) > INVENTORY:
        return None
    try:
        return _document(data.decode())
    except (UnicodeDecodeError, _Other):
        return None


def _document(text: str) -> dict[str, Tree]:
    root: dict[str, Tree] = {}
    blocks: list[tuple[int, dict[str, Tree] | list[Tree]]] = [(0, root)]
    waiting: str | None = None  # the key whose value may be the block below it
    begun = False
    for line in text.split("\n"):
        if not line.isprintable():
            raise _Other
        bare = line.strip(" ")
        if not bare or bare[0] == "#":
            continue
        if line == "---" and not begun:
            begun = True
            continue
        begun = True
        indent = len(line) - len(line.lstrip(" "))
        listed = bare.startswith("- ")
        above, block = blocks[-1]
        if waiting is not None and isinstance(block, dict) and indent >= above + (not listed):
            below: dict[str, Tree] | list[Tree] = [] if listed else {}
            block[waiting] = below
            blocks.append((indent, below))
        while indent < blocks[-1][0] or (not listed and _ends_list(blocks, indent)):
            blocks.pop()
        above, block = blocks[-1]
        if indent != above or len(line) > _LINE or len(blocks) > _DEPTH:
            raise _Other
        waiting = None
        if isinstance(block, list):
            if not listed:
                raise _Other
            block.append(_value(bare[2:].lstrip(" "), len(blocks)))
            continue
        match = _KEY.match(bare)
        if listed or match is None:
            raise _Other
        key, rest = _unquoted(match[1]), bare[match.end() :]
        if key in block:
            raise _Other
        if rest and rest[0] != "#":
            block[key] = _value(rest, len(blocks))
        else:
            block[key], waiting = "", key
    if not root:
        raise _Other
    return root


def _ends_list(blocks: list[tuple[int, dict[str, Tree] | list[Tree]]], indent: int) -> bool:
    """Whether a key at ``indent`` is one of the mapping around the list that is open."""
    above, block = blocks[-1]
    return isinstance(block, list) and above == indent == blocks[-2][0]


def _value(text: str, depth: int) -> Tree:
    """The value that is the rest of a line."""
    if text[:1] in ("{", "["):
        value, at = _flow(text, 0, depth)
        if _ENDS.fullmatch(text, at) is None:
            raise _Other
        return value
    match = _TEXT.fullmatch(text)
    if match is None:
        raise _Other
    return _unquoted(match[1])


def _flow(text: str, at: int, depth: int) -> tuple[Tree, int]:
    """The value in a flow collection, and where it ends."""
    if (match := _FLOW_TEXT.match(text, at)) is not None:
        return _unquoted(match[1].rstrip(" ")), match.end()
    match = _FLOW_OPENS.match(text, at)
    if match is None or depth > _DEPTH:
        raise _Other
    mapping: dict[str, Tree] = {}
    items: list[Tree] = []
    keyed, at = match[1] == "{", match.end()
    end = "}" if keyed else "]"
    sign = match[2] or ","
    while sign == ",":
        if keyed:
            match = _FLOW_KEY.match(text, at)
            key = _unquoted(match[1]) if match is not None else ""
            if match is None or key in mapping:
                raise _Other
            mapping[key], at = _flow(text, match.end(), depth + 1)
        else:
            item, at = _flow(text, at, depth + 1)
            items.append(item)
        match = _FLOW_GOES_ON.match(text, at)
        if match is None:
            raise _Other
        sign, at = match[1], match.end()
    if sign != end:
        raise _Other
    return mapping if keyed else items, at


def _unquoted(text: str) -> str:
    return text[1:-1] if text[0] in "\"'" else text
