"""The headers of a tarball, read strictly: an archive in which two readers could see two things is
refused.

A tarball is read here before it is sent, and unpacked on a host by the host's own tar. There are
several formats (POSIX ustar and pax, GNU, v7), and headers of several may stand before one entry.
Which of them counts differs between programs: of a GNU header ``K`` and a pax ``linkpath``, for
example, GNU tar takes the latter and Python's ``tarfile`` the outer one. No program that packs
releases writes such archives. So one entry has the extended headers of one format only, each
attribute once, and each number and record in its regular form.

GNU tar's ``src/create.c``, ``src/list.c`` and ``src/xheader.c`` have the formats; POSIX has them in
the pages of ``pax``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from provision.text import printable, size

BLOCK = 512
#: Bytes of an extended header: a name has at most some thousand.
MAX_HEADER = 1 << 20
#: Attributes that hold for all entries. ``git archive`` writes one.
MAX_GLOBAL = 100
#: The kinds of entries.
FILE, HARD, LINK, FOLDER, SPARSE = b"0", b"1", b"2", b"5", b"S"
LONG_NAME, LONG_TARGET = b"L", b"K"
PAX, SOLARIS_PAX, GLOBAL_PAX = b"x", b"X", b"g"
EXTENDED = (PAX, GLOBAL_PAX, SOLARIS_PAX, LONG_NAME, LONG_TARGET)
_FILES = (FILE, b"\0", b"7")
_READ = 1 << 20
_NUMBER = re.compile(rb" *([0-7]+)[ \0]*")
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=\n\0]+)=")
#: What pax may say of an entry's name and length; all else does not change what is unpacked where.
_NAME, _TARGET, _SIZE = b"path", b"linkpath", b"size"
_SPARSE = b"GNU.sparse."
_SPARSE_NAME = _SPARSE + b"name"
#: Those of the oldest sparse format, which stand there several times.
_REPEATED = frozenset({_SPARSE + b"offset", _SPARSE + b"numbytes"})
_SPARSE_SIZES = (_SPARSE + b"realsize", _SPARSE + b"size")


class Stream(Protocol):
    """An unpacked stream; its end is an empty answer."""

    def read(self, count: int, /) -> bytes: ...


class Broken(ValueError):
    """This is not a whole tarball."""


class Refused(Exception):
    """What other readers may see differently, or what has no reasonable end; a sentence."""


@dataclass(slots=True)
class Entry:
    """An entry. ``kind``: :data:`FILE`, :data:`FOLDER`, :data:`LINK`, :data:`HARD`, or what the
    header has. ``target``: of a link. ``size``: bytes when unpacked. ``sparse``: whether the
    contents stand there in pieces."""

    name: str
    kind: bytes
    target: str
    size: int
    sparse: bool
    _body: _Body

    def beginning(self, most: int) -> bytes:
        """The first bytes of the contents, before the next entry is read."""
        return self._body.read(most)


def entries(stream: Stream) -> Iterator[Entry]:
    """The entries of the archive in ``stream``, up to its end.

    Raises :class:`Broken`, :class:`Refused`, and what the stream raises.
    """
    given, every, first = _Given(), set[bytes](), True
    while (block := _whole(stream, BLOCK, may_end=True)).strip(b"\0"):
        if not _is_header(block):
            if first:
                raise Broken("invalid header")
            raise Refused("has a damaged header, or data after its end")
        first = False
        kind = block[156:157]
        length = _number(block[124:136], needed=kind in (*_FILES, SPARSE, *EXTENDED))
        if kind in EXTENDED:
            if length > MAX_HEADER:
                raise Refused(f"has an extended header of {size(length)}")
            body = _whole(stream, _padded(length))[:length]
            if kind == GLOBAL_PAX:
                every |= _global(body, given)
                if len(every) > MAX_GLOBAL:
                    raise Refused(f"has more than {MAX_GLOBAL} attributes for all entries")
            else:
                given.add(kind, body)
            continue
        entry = _entry(stream, block, kind, length, given)
        given = _Given()
        yield entry
        entry._body.skip()
    if first and not block:
        raise Broken("empty file")
    if given.kinds:
        raise Refused("ends after an extended header")
    while chunk := stream.read(_READ):
        if chunk.strip(b"\0"):
            raise Refused("has a damaged header, or data after its end")


class _Body:
    """The contents of an entry in the stream, up to the next header."""

    def __init__(self, stream: Stream, length: int) -> None:
        self._stream, self._left, self._pad = stream, length, _padded(length) - length

    def read(self, most: int) -> bytes:
        count = min(most, self._left)
        self._left -= count
        return _whole(self._stream, count)

    def skip(self) -> None:
        while self._left:
            self.read(_READ)
        _whole(self._stream, self._pad)
        self._pad = 0


@dataclass(slots=True)
class _Given:
    """What the extended headers before an entry say of it."""

    kinds: list[bytes] = field(default_factory=list)
    values: dict[bytes, bytes] = field(default_factory=dict)

    def add(self, kind: bytes, body: bytes) -> None:
        gnu = (LONG_NAME, LONG_TARGET)
        if kind in self.kinds or any((kind in gnu) != (other in gnu) for other in self.kinds):
            raise Refused("has an entry with headers that contradict each other")
        if kind in gnu:
            value = body.rstrip(b"\0")
            if not value or b"\0" in value:
                raise Refused("has an extended header that is odd")
            self.values[_NAME if kind == LONG_NAME else _TARGET] = value
        elif self.kinds:  # x and X
            raise Refused("has an entry with headers that contradict each other")
        else:
            self.values |= _records(body)
        self.kinds.append(kind)


def _records(body: bytes) -> dict[bytes, bytes]:
    """The attributes in a pax header: all of it is records, and no attribute is there twice."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(body):
        match = _RECORD.match(body, at)
        end = at + int(match[1]) if match else 0
        if match is None or end > len(body) or end <= match.end() or body[end - 1 : end] != b"\n":
            raise Refused("has an extended header that is odd")
        key, value = match[2], body[match.end() : end - 1]
        if key in found and key not in _REPEATED:
            shown = printable(key, 40)
            raise Refused(f"has an entry with headers that contradict each other: two of {shown}")
        if key in (_NAME, _TARGET, _SPARSE_NAME) and (not value or b"\0" in value):
            raise Refused("has an extended header that is odd")
        if key in (_SIZE, *_SPARSE_SIZES) and not re.fullmatch(rb"[0-9]{1,18}", value):
            raise Refused("has a length that is no plain number")
        if key.startswith(b"GNU.") and not key.startswith(_SPARSE):
            raise Refused(f"has an attribute that this tool does not know: {printable(key, 40)}")
        found[key] = value
        at = end
    return found


def _global(body: bytes, given: _Given) -> set[bytes]:
    """The names of the attributes for all entries. None may say what an entry is."""
    if given.kinds:
        raise Refused("has an entry with headers that contradict each other")
    found = _records(body)
    for key in found:
        if key in (_NAME, _TARGET, _SIZE) or key.startswith(b"GNU."):
            raise Refused(f"has {printable(key, 40)} for all entries")
    return set(found)


def _entry(stream: Stream, block: bytes, kind: bytes, length: int, given: _Given) -> Entry:
    said = given.values
    magic, prefix = block[257:265], _text(block[345:500])
    if magic[:5] == b"ustar" and magic[:6] != b"ustar\0" and magic != b"ustar  \0":
        raise Refused("has a header of an unknown format")
    own = _text(block[:100])
    if prefix and magic[:6] == b"ustar\0":
        own = prefix + b"/" + own
    name = said.get(_SPARSE_NAME, said.get(_NAME, own))
    target = said.get(_TARGET, _text(block[157:257]))
    if _SIZE in said:
        length = int(said[_SIZE])
    real, sparse = length, any(key.startswith(_SPARSE) for key in said)
    for key in _SPARSE_SIZES:
        if key in said:
            real = max(real, int(said[key]))
    if kind == SPARSE:
        if sparse:
            raise Refused("has an entry with headers that contradict each other")
        real, sparse = max(length, _number(block[483:495], needed=True)), True
        more = block[482]
        while more:  # further lists of pieces
            more = _whole(stream, BLOCK)[504]
    if kind in (*_FILES, SPARSE):
        # tar takes a file whose name ends like a folder's for a folder.
        kind = FOLDER if name.endswith(b"/") else FILE
    if kind in (FOLDER, LINK, HARD) and (length or sparse):
        raise Refused("has a folder or a link with contents")
    return Entry(
        _decoded(name),
        kind,
        _decoded(target) if kind in (LINK, HARD) else "",
        real,
        sparse,
        _Body(stream, length),
    )


def _is_header(block: bytes) -> bool:
    """Whether the checksum is right; some old programs summed up signed bytes."""
    plain = block[:148] + b" " * 8 + block[156:]
    match = _NUMBER.fullmatch(block[148:156])
    if match is None:
        return False
    total, said = sum(plain), int(match[1], 8)
    return said == total or said == total - 256 * sum(byte > 127 for byte in plain)


def _number(text: bytes, *, needed: bool) -> int:
    """A number of a header: octal digits, or binary after a byte 128."""
    if text[0] == 0x80:
        found = int.from_bytes(text[1:], "big")
    elif (match := _NUMBER.fullmatch(text)) is not None:
        found = int(match[1], 8)
    elif not text.strip(b" \0") and not needed:
        found = 0
    else:
        raise Refused("has a length that is no plain number")
    if found >= 1 << 60:
        raise Refused("has a length that is no plain number")
    return found


def _whole(stream: Stream, count: int, *, may_end: bool = False) -> bytes:
    """So many bytes. With ``may_end``, none at the end of the stream."""
    parts, left = [], count
    while left and (chunk := stream.read(left)):
        parts.append(chunk)
        left -= len(chunk)
    if left and not (may_end and left == count):
        raise Broken("unexpected end of data")
    return b"".join(parts)


def _padded(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def _text(part: bytes) -> bytes:
    return part.partition(b"\0")[0]


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
