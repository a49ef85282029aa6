"""YAML text as a tree of text; every node knows its line and column.

Usual documents are read by :mod:`provision.inventory.plain`, which leaves all others alone. Those
are composed from ruamel.yaml's events, not with its round-trip loader. This is several times
faster, and keeps every scalar as it was written (``version: 3.10`` is not 3.1). Hostile documents
(endless aliases, deep nesting, tags, duplicate keys) are refused while they are read.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from provision import bounds
from provision.inventory import plain
from provision.inventory.findings import Findings, Mark

MAX_BYTES = bounds.INVENTORY
MAX_DEPTH = 20
MAX_ALIASED_NODES = 100_000

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
# Besides control characters, the Unicode line ends are refused, so that all programs count the same
# lines.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_NOT_ONE_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_UNQUOTED_RANGE = re.compile(r"[{,].*\w\.?\[[0-9]+[-,][0-9]+")


class Scalar(NamedTuple):
    """Text as written. ``plain`` text is unquoted; ``ranged`` text comes from a range."""

    text: str
    mark: Mark
    plain: bool = True
    ranged: bool = False

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in _NULLS


class Sequence(NamedTuple):
    items: tuple[Node, ...]
    mark: Mark


class Entry(NamedTuple):
    key: Scalar
    value: Node


class Mapping(NamedTuple):
    entries: dict[str, Entry]
    mark: Mark

    def get(self, key: str) -> Node | None:
        entry = self.entries.get(key)
        return entry.value if entry is not None else None

    def replaced(self, key: str, value: Node) -> Mapping:
        """A copy with ``value`` at ``key``; the original may be shared by aliases."""
        entries = dict(self.entries)
        entries[key] = Entry(entries[key].key, value)
        return Mapping(entries, self.mark)


Node = Scalar | Sequence | Mapping


#: Keys and list places that lead from the top of a document to a node.
Path = tuple[str | int, ...]


def find(root: Node, path: Path) -> Entry | None:
    """The entry at ``path``, or None."""
    node, entry = root, None
    for part in path:
        if isinstance(node, Mapping) and isinstance(part, str):
            entry = node.entries.get(part)
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            item = node.items[part]
            entry = Entry(Scalar("", item.mark), item)
        else:
            entry = None
        if entry is None:
            return None
        node = entry.value
    return entry


def locate(root: Node, path: Path) -> Mark:
    """The place for an editor to show ``path``: its value, else its key, else the nearest node
    above."""
    while path:
        if (entry := find(root, path)) is not None:
            return place(entry)
        path = path[:-1]
    return root.mark


def place(entry: Entry) -> Mark:
    """The place of an entry's value if it is text, else of its key."""
    scalar = isinstance(entry.value, Scalar) and not entry.value.is_null
    return entry.value.mark if scalar else entry.key.mark


def entries(root: Node, path: Path) -> dict[str, Entry]:
    """The entries of the mapping at ``path``, by key; nothing without such a mapping."""
    entry = find(root, path)
    if entry is None or not isinstance(entry.value, Mapping):
        return {}
    return entry.value.entries


def is_ranged(root: Node, path: Path) -> bool:
    """Whether ``path`` passes through an entry that comes from a range."""
    entries = (find(root, path[:depth]) for depth in range(1, len(path) + 1))
    return any(entry is not None and entry.key.ranged for entry in entries)


class _Unreadable(Exception):
    """The rest of the document cannot be read."""

    def __init__(self, mark: Mark, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.mark, self.what, self.remedy = mark, what, remedy


def parse(data: bytes, findings: Findings) -> Mapping | None:
    """The document's top mapping; None without a usable one (``findings`` then have the reason)."""
    read = plain.read(data) if len(data) <= MAX_BYTES else None
    return _mapping(read) if read is not None else composed(data, findings)


def _mapping(read: plain.Keys) -> Mapping:
    entries = {
        name: Entry(_scalar(key), _node(value)) for name, (key, value) in read.entries.items()
    }
    return Mapping(entries, Mark(read.line, read.column))


def _node(read: plain.Node) -> Node:
    if isinstance(read, plain.Text):
        return _scalar(read)
    if isinstance(read, plain.Keys):
        return _mapping(read)
    return Sequence(tuple(map(_node, read.items)), Mark(read.line, read.column))


def _scalar(read: plain.Text) -> Scalar:
    return Scalar(read.text, Mark(read.line, read.column), not read.quoted)


def composed(data: bytes, findings: Findings) -> Mapping | None:
    """As :func:`parse`, by ruamel.yaml alone: it can say what is wrong with any document."""
    text = _decode(data, findings)
    if text is None:
        return None
    try:
        node = _Composer(_events(text), findings).document()
    except _Unreadable as problem:
        findings.error(problem.mark, problem.what, problem.remedy, id="inventory-syntax")
        return None
    if isinstance(node, Mapping):
        return node
    if node is None or (isinstance(node, Scalar) and node.is_null):
        findings.error(
            Mark(1, 1),
            "the file is empty",
            "write one with: invoke init-inventory",
            id="inventory-syntax",
        )
    else:
        findings.error(
            node.mark, "an inventory is a mapping: 'etcd: …', 'alluxio: …'", id="inventory-syntax"
        )
    return None


def _decode(data: bytes, findings: Findings) -> str | None:
    if len(data) > MAX_BYTES:
        what = f"the file is larger than {MAX_BYTES // 1024**2} MB"
        findings.error(
            Mark(1, 1), what, "use ranges such as worker[001-200]", id="inventory-unreadable"
        )
        return None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        findings.error(
            Mark(1, 1), "the file is UTF-16", "save it as UTF-8", id="inventory-unreadable"
        )
        return None
    data = data.removeprefix(codecs.BOM_UTF8)  # with utf-8-sig, places would count from after it
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        findings.error(
            _mark_at(_one_line_end(before)),
            f"byte 0x{data[error.start]:02x} is not UTF-8 text",
            "save the file as UTF-8",
            id="inventory-unreadable",
        )
        return None
    text = _one_line_end(text)
    for match in islice(_UNPRINTABLE.finditer(text), 10):
        what = f"the file holds the control character U+{ord(match[0]):04X}"
        findings.error(_mark_at(text, match.start()), what, "delete it", id="inventory-syntax")
    return None if findings.errors else text


def _one_line_end(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _mark_at(text: str, index: int | None = None) -> Mark:
    """The place of the character at ``index``, or of the end."""
    before = text[:index]
    return Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _events(text: str) -> Iterator[Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    last = Mark(1, 1)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            last = _mark(event)
            yield event
    except MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = last if at is None else _inside(text, Mark(at.line + 1, at.column + 1))
        raise _Unreadable(mark, *_syntax(text, mark, str(error.problem or error.context))) from None
    except _Unreadable:
        raise
    except Exception as error:
        # For a few hostile documents ("\UFFFFFFFF"), ruamel.yaml raises Python's own errors.
        raise _Unreadable(last, f"not YAML: {error}", "the mistake is after this place") from None


def _inside(text: str, mark: Mark) -> Mark:
    """``mark``, or the end of the last line when ruamel.yaml points past the end of the text."""
    end = _mark_at(text.rstrip("\n"))
    return mark if mark.line <= end.line else end


def _syntax(text: str, mark: Mark, problem: str) -> tuple[str, str]:
    """ruamel.yaml's complaint in plain words, with a remedy."""
    line = text.split("\n")[mark.line - 1]
    if "\\t" in problem:
        return "a tab where YAML needs spaces", "indent with spaces"
    if _UNQUOTED_RANGE.search(line):
        return "a range within { } must be in quotes", 'as in {host: "worker[1-3].example.com"}'
    problem = problem.replace("'\\x00'", "the end of the file")
    if "mapping values are not allowed" in problem:
        return (
            "a ':' where no key can be",
            "check the indentation, or quote the text if it holds ': '",
        )
    if "could not find expected ':'" in problem:
        return "a line without the ':' that follows a key", ""
    return f"not YAML: {problem}", "check quotes, brackets and indentation here and just above"


def _mark(event: Any) -> Mark:
    at = event.start_mark
    return Mark(at.line + 1, at.column + 1)


def _used_at(node: Node, place: Mark) -> Node:
    """A copy of ``node`` whose marks say that it is used at ``place``."""
    if isinstance(node, Scalar):
        return node._replace(mark=node.mark.at(place))
    if isinstance(node, Sequence):
        return Sequence(tuple(_used_at(n, place) for n in node.items), node.mark.at(place))
    entries = {
        name: Entry(e.key._replace(mark=e.key.mark.at(place)), _used_at(e.value, place))
        for name, e in node.entries.items()
    }
    return Mapping(entries, node.mark.at(place))


@dataclass
class _Composer:
    """Builds the tree. ``size`` counts nodes as if every alias were written out."""

    events: Iterator[Any]
    findings: Findings
    anchors: dict[str, tuple[Node, int]] = field(default_factory=dict)
    open_anchors: set[str] = field(default_factory=set)
    size: int = 0
    aliased: int = 0

    def document(self) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in self.events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                documents += 1
                if documents == 2:
                    raise _Unreadable(
                        _mark(event), "a second document starts here", "keep one per file"
                    )
            elif kind not in ("StreamStartEvent", "StreamEndEvent", "DocumentEndEvent"):
                root = self.node(event, 0)
        return root

    def node(self, event: Any, depth: int) -> Node:
        mark = _mark(event)
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self.alias(event.anchor, mark)
        if depth > MAX_DEPTH:
            raise _Unreadable(mark, f"nested more than {MAX_DEPTH} levels deep")
        if event.tag is not None:
            what = f"the tag {str(event.tag)[:40]!r} is not used in inventories"
            self.findings.error(
                mark, what, "remove it; quote the value to make it text", id="inventory-syntax"
            )
        before = self.size
        if event.anchor is not None:
            self.open_anchors.add(event.anchor)
        node: Node
        if kind == "ScalarEvent":
            node = Scalar(self.one_line(event.value, mark), mark, not event.style)
        elif kind == "SequenceStartEvent":
            node = self.sequence(mark, depth)
        else:
            node = self.mapping(mark, depth)
        self.size += 1
        if event.anchor is not None:
            self.open_anchors.discard(event.anchor)
            self.anchors[event.anchor] = (node, self.size - before)
        return node

    def one_line(self, text: str, mark: Mark) -> str:
        if (bad := _NOT_ONE_LINE.search(text)) is None:
            return text
        if bad[0] == "\n":
            self.findings.error(
                mark, "the value spans lines", "write it on one line", id="inventory-syntax"
            )
        else:
            what = f"the value holds the control character U+{ord(bad[0]):04X}"
            self.findings.error(mark, what, "remove it", id="inventory-syntax")
        return _NOT_ONE_LINE.sub("?", text)

    def alias(self, name: str, mark: Mark) -> Node:
        if name in self.open_anchors:
            raise _Unreadable(mark, f"*{name} is inside its own anchor &{name}")
        if name not in self.anchors:
            self.findings.error(
                mark, f"*{name} has no anchor &{name} above it", id="inventory-syntax"
            )
            return Scalar("", mark)
        node, size = self.anchors[name]
        self.size += size
        self.aliased += size
        if self.aliased > MAX_ALIASED_NODES:
            raise _Unreadable(mark, "the aliases of this file expand without bounds")
        return _used_at(node, mark)

    def sequence(self, mark: Mark, depth: int) -> Sequence:
        items: list[Node] = []
        while type(event := next(self.events)).__name__ != "SequenceEndEvent":
            items.append(self.node(event, depth + 1))
        return Sequence(tuple(items), mark)

    def mapping(self, mark: Mark, depth: int) -> Mapping:
        entries: dict[str, Entry] = {}
        merged: list[Mapping] = []
        while type(event := next(self.events)).__name__ != "MappingEndEvent":
            key = self.node(event, depth + 1)
            at = _mark(event)
            value = self.node(next(self.events), depth + 1)
            if not isinstance(key, Scalar):
                self.findings.error(at, "a key must be text", id="inventory-syntax")
            elif key.text == "<<" and key.plain:
                merged += self.merge(value, at)
            elif key.text in entries:
                first = self.findings.where(entries[key.text].key.mark)
                what = f"the key {key.text!r} is already given at {first}"
                self.findings.error(at, what, "keep one of the two", id="inventory-conflict")
            else:
                entries[key.text] = Entry(key, value)
        for other in merged:
            for name, entry in other.entries.items():
                entries.setdefault(name, entry)
        return Mapping(entries, mark)

    def merge(self, value: Node, mark: Mark) -> list[Mapping]:
        given = value.items if isinstance(value, Sequence) else (value,)
        mappings = [node for node in given if isinstance(node, Mapping)]
        if len(mappings) != len(given):
            self.findings.error(
                mark, "'<<' merges mappings only", "as in '<<: *anchor'", id="inventory-syntax"
            )
        return mappings
