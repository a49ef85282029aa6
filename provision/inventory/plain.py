"""The YAML that nearly every inventory is, read in a few steps.

Importing ruamel.yaml and parsing with it take most of the time of a completion, and a part of every
run. This module reads keys and lists in blocks, flow collections that end on their line, comments,
text on one line, plain or in quotes, and --- before all of these. Anything else (anchors, merges,
tags, escapes, text over lines, tabs, a mistake) is not answered, and
:mod:`provision.inventory.document` reads it. So each pattern here allows less than YAML does, and
never more.
"""

from __future__ import annotations

import re

from provision.bounds import INVENTORY

#: Far less than :data:`provision.inventory.document.MAX_DEPTH`, which counts in another way.
_DEPTH = 10
#: Characters of a line. YAML's keys have at most 1,024.
_LINE = 1000


class Text:
    """Text as written, and where it begins: line and column count from 1."""

    __slots__ = ("column", "line", "quoted", "text")

    def __init__(self, text: str, line: int, column: int, quoted: bool = False) -> None:
        self.text, self.line, self.column, self.quoted = text, line, column, quoted


class Items:
    """A list, and where it begins."""

    __slots__ = ("column", "items", "line")

    def __init__(self, line: int, column: int) -> None:
        self.line, self.column = line, column
        self.items: list[Node] = []


class Keys:
    """A mapping, and where it begins: each key as text, with the key's own place and its value."""

    __slots__ = ("column", "entries", "line")

    def __init__(self, line: int, column: int) -> None:
        self.line, self.column = line, column
        self.entries: dict[str, tuple[Text, Node]] = {}


Node = Text | Items | Keys
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
    """As :func:`read`, without places."""
    root = read(data)
    return _texts(root) if root is not None else None


def read(data: bytes) -> Keys | None:
    """The document's top mapping; None when another reader must say what the document is."""
    if len(data) > INVENTORY:
        return None
    try:
        return _document(data.decode())
    except (UnicodeDecodeError, _Other):
        return None


def _texts(node: Keys) -> dict[str, Tree]:
    return {key: _tree(value) for key, (_, value) in node.entries.items()}


def _tree(node: Node) -> Tree:
    if isinstance(node, Text):
        return node.text
    return _texts(node) if isinstance(node, Keys) else [_tree(item) for item in node.items]


def _document(text: str) -> Keys:
    root: Keys | None = None
    blocks: list[tuple[int, Keys | Items]] = []
    waiting: Text | None = None  # the key whose value may be the block below it
    begun = False
    for number, written in enumerate(text.split("\n"), 1):
        if not written.isprintable():
            raise _Other
        line = written.rstrip(" ")
        indent = len(line) - len(line.lstrip(" "))
        if not line or line[indent] == "#":
            continue
        if line == "---" and not begun:
            begun = True
            continue
        begun = True
        if root is None:
            root = Keys(number, 1)
            blocks.append((0, root))
        listed = line.startswith("- ", indent)
        above, block = blocks[-1]
        if waiting is not None and isinstance(block, Keys) and indent >= above + (not listed):
            below = Items(number, indent + 1) if listed else Keys(number, indent + 1)
            block.entries[waiting.text] = waiting, below
            blocks.append((indent, below))
        while indent < blocks[-1][0] or (not listed and _ends_list(blocks, indent)):
            blocks.pop()
        above, block = blocks[-1]
        if indent != above or len(written) > _LINE or len(blocks) > _DEPTH:
            raise _Other
        waiting = None
        if isinstance(block, Items):
            if not listed:
                raise _Other
            at = len(line) - len(line[indent + 2 :].lstrip(" "))
            block.items.append(_value(line, at, number, len(blocks)))
            continue
        match = _KEY.match(line, indent)
        if listed or match is None:
            raise _Other
        key = _text(match[1], number, indent)
        if key.text in block.entries:
            raise _Other
        value: Node = Text("", number, match.end(1) + 2)
        if line[match.end() : match.end() + 1] in ("", "#"):
            waiting = key
        else:
            value = _value(line, match.end(), number, len(blocks))
        block.entries[key.text] = key, value
    if root is None:
        raise _Other
    return root


def _ends_list(blocks: list[tuple[int, Keys | Items]], indent: int) -> bool:
    """Whether a key at ``indent`` is one of the mapping around the list that is open."""
    above, block = blocks[-1]
    return isinstance(block, Items) and above == indent == blocks[-2][0]


def _value(line: str, at: int, number: int, depth: int) -> Node:
    """The value that is the rest of the line from ``at`` on; ``number`` is the line's."""
    if line[at] in "{[":
        value, at = _flow(line, at, number, depth)
        if _ENDS.fullmatch(line, at) is None:
            raise _Other
        return value
    match = _TEXT.fullmatch(line, at)
    if match is None:
        raise _Other
    return _text(match[1], number, at)


def _flow(line: str, at: int, number: int, depth: int) -> tuple[Node, int]:
    """The value in a flow collection, and where it ends."""
    if (match := _FLOW_TEXT.match(line, at)) is not None:
        return _text(match[1].rstrip(" "), number, match.start(1)), match.end()
    match = _FLOW_OPENS.match(line, at)
    if match is None or depth > _DEPTH:
        raise _Other
    mapping = Keys(number, match.start(1) + 1)
    items = Items(number, match.start(1) + 1)
    keyed, at = match[1] == "{", match.end()
    end = "}" if keyed else "]"
    sign = match[2] or ","
    while sign == ",":
        if keyed:
            match = _FLOW_KEY.match(line, at)
            key = _text(match[1], number, match.start(1)) if match is not None else None
            if match is None or key is None or key.text in mapping.entries:
                raise _Other
            value, at = _flow(line, match.end(), number, depth + 1)
            mapping.entries[key.text] = key, value
        else:
            value, at = _flow(line, at, number, depth + 1)
            items.items.append(value)
        match = _FLOW_GOES_ON.match(line, at)
        if match is None:
            raise _Other
        sign, at = match[1], match.end()
    if sign != end:
        raise _Other
    return mapping if keyed else items, at


def _text(written: str, number: int, at: int) -> Text:
    quoted = written[0] in "\"'"
    return Text(written[1:-1] if quoted else written, number, at + 1, quoted)
