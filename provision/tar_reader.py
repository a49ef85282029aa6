"""The one reader of tarballs: what a tarball holds, and what forbids to unpack it as root.

It reads a tarball once, from beginning to end, and computes its sha256 in the same pass. What it
found is kept in the cache, under the sha256, when a host has got the tarball. The right sha256 says
that a tarball is the one that was meant, not that it is harmless: a tarball can name paths outside
its own folder, by links too.

Every count has a limit, so a hostile tarball costs bounded time and memory: entries, bytes when
unpacked, the length of names and of extended headers, and links.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import IO

from provision import bounds, progress, tar_headers
from provision.dataclass import dataclass
from provision.files import make_folder, read_text, require_regular
from provision.tar_headers import FILE, FOLDER, HARD, LINK, Entry
from provision.text import document, printable, size

#: The limits. A release has some hundreds of entries and up to 4 GB, a JDK some thousands of
#: entries.
MAX_ENTRIES, MAX_LINKS = 200_000, 10_000
#: Folders in the paths and targets of all links. Those of a JDK have some thousands.
MAX_STEPS = 300_000
MAX_BYTES = 64 << 30
#: From this many bytes on, a tarball may not unpack to more than so many times its size.
BOMB_BYTES, BOMB_RATIO = 1 << 30, 200
MAX_NAME, MAX_NAMES = 4096, 64 << 20
#: A path is followed through so many links, as the kernel does it.
MAX_HOPS = 40
#: Folders within folders. A JDK has eleven; the work for a path grows with them.
MAX_DEPTH = 64
#: The files whose presence is known afterwards, without the top folder.
MARKS = frozenset(
    {
        *("bin/launch-process-bash", "bin/launch-process", "bin/alluxio"),
        *("libexec/alluxio-config.sh", "libexec/version.sh"),
        *("bin/java", "etcd", "etcdctl", "etcdutl"),
    }
)
#: The files whose text is known afterwards, and how many bytes of each. Alluxio's own have 10 KB.
TEXTS = ("libexec/alluxio-config.sh", "libexec/version.sh", "release", "Contents/Home/release")
TEXT_BYTES = 1 << 16
#: A JDK's programs and libraries that it needs to start: of Java 8 (jre/lib/amd64/...) and later.
_NATIVE = re.compile(r"bin/java|(jre/)?lib/([a-z0-9_]+/)?((jli|server)/)?lib(java|jli|jvm)\.so")
#: An ELF file names each version of the C library of which it needs a symbol.
_LIBC = re.compile(rb"\x00GLIBC_([0-9]{1,3})\.([0-9]{1,3})(?:\.[0-9]{1,3})?(?=\x00)")
_LIBC_LENGTH = 32
#: How names begin that this tool gives to its own files in an unpacked folder.
OWN_NAMES = (".artifact.", ".alluxio-provision")
#: The version of the kept results. For a result of another version, the tarball is read again.
_FORMAT = 3
_READ = 1 << 20
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: How many flaws a line names.
_SHOWN = 3
_ODD_KINDS = {b"3": "a device node", b"4": "a device node", b"6": "a FIFO"}


#: A file's device, number and size, and the times of its last changes: git's index tells by these
#: whether a file has changed. No program can set the last one (ctime).
Stamp = tuple[int, ...]
#: Seconds that a file must have been unchanged for its stamp to count.
SETTLED = 2.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a tarball holds. Paths are without the top folder.

    ``found``: the files of :data:`MARKS` in it. ``conf``: whether it has a folder ``conf``.
    ``texts``: the beginnings of the files of :data:`TEXTS`. ``unpacked``: bytes of its files.
    ``flaws``: why it must not be unpacked, one sentence each. ``error``: why it cannot be read.
    ``glibc``: the version of glibc, such as (2, 34), that a JDK in it needs; () when it names none.
    """

    found: tuple[str, ...] = ()
    conf: bool = False
    texts: Mapping[str, str] = field(default_factory=dict)
    unpacked: int = 0
    flaws: tuple[str, ...] = ()
    error: str = ""
    glibc: tuple[int, ...] = ()

    @property
    def refusal(self) -> str:
        """Why no host may get it, as one line; empty for a good tarball."""
        if self.error:
            return self.error
        more = f"; and {len(self.flaws) - _SHOWN} more" if len(self.flaws) > _SHOWN else ""
        return "; ".join(self.flaws[:_SHOWN]) + more


def read(path: Path) -> tuple[str, Seen]:
    """The sha256 (lower-case hex) and the contents of the tarball at ``path``, in one pass.

    Raises :class:`OSError` when the file cannot be read, and for what is no regular file.
    """
    require_regular(path, bounds.TARBALL)
    with path.open("rb") as file, progress.hashing(path) as shown:
        hashed = _Hashed(file, shown)
        look = _Look(path.stat().st_size)
        error = ""
        try:
            with gzip.GzipFile(fileobj=hashed) as plain:
                look.read(_Bounded(plain, look.limit))
        except _TooMuch as much:
            look.flaw("size", str(much))
        except tar_headers.Refused as odd:
            look.flaw("headers", str(odd))
        except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as broken:
            error = printable(f"is not a complete .tar.gz: {broken}", 200)
        return hashed.digest(), look.result(error)


def kept(cache: Path, sha256: str) -> Seen | None:
    """What was kept about the tarball with this digest; None when nothing usable was."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        said = document(read_text(_place(cache, sha256), bounds.DOCUMENT))
        if said["format"] != _FORMAT:
            return None
        return Seen(
            found=tuple(str(name) for name in said["found"]),
            conf=bool(said["conf"]),
            texts={str(name): str(text) for name, text in said["texts"].items()},
            unpacked=int(said["unpacked"]),
            flaws=tuple(str(flaw) for flaw in said["flaws"]),
            error=str(said["error"]),
            glibc=tuple(int(part) for part in said["glibc"]),
        )
    return None


def keep(cache: Path, sha256: str, seen: Seen) -> None:
    """Keep what was read. The cache only saves time: it may be impossible to write."""
    _write(_place(cache, sha256), {"format": _FORMAT, **asdict(seen)})


def stamp(path: Path) -> Stamp | None:
    """The present state of a file, for a later run to see whether it is the same. None when a
    change just now could leave it as it is: file systems count time in steps."""
    there = path.stat()
    if time.time() - max(there.st_mtime, there.st_ctime) < SETTLED:
        return None
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns


def kept_stamp(cache: Path, sha256: str) -> Stamp | None:
    """The state in which a file was last read that has this digest; None when none was kept."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return tuple(map(int, document(read_text(_stamp_place(cache, sha256), bounds.DOCUMENT))))
    return None


def keep_stamp(cache: Path, sha256: str, stamp: Stamp) -> None:
    """Keep the state in which a file with this digest was read."""
    _write(_stamp_place(cache, sha256), stamp)


def _write(place: Path, kept: object) -> None:
    with contextlib.suppress(OSError):
        make_folder(place.parent)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=place.parent, prefix=".new-", delete=False
        ) as file:
            json.dump(kept, file)
        Path(file.name).replace(place)


def _place(cache: Path, sha256: str) -> Path:
    return cache / "contents" / f"{sha256}.json"


def _stamp_place(cache: Path, sha256: str) -> Path:
    return cache / "contents" / f"{sha256}.stamp"


class _TooMuch(Exception):
    """A limit is reached: nothing more is read."""


class _Hashed:
    """A file whose bytes go into a digest as they are read."""

    def __init__(self, file: IO[bytes], shown: progress.Wait) -> None:
        self._file, self._sha, self._shown = file, hashlib.sha256(), shown

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._file.read(size)
        self._sha.update(chunk)
        self._shown.add(len(chunk))
        return chunk

    def seek(self, offset: int, /) -> object:
        raise OSError("it is read once")

    def digest(self) -> str:
        while self.read(_READ):
            pass
        return self._sha.hexdigest()


class _Bounded:
    """The unpacked stream, up to a limit in bytes."""

    def __init__(self, file: gzip.GzipFile, limit: int) -> None:
        self._file, self._limit, self._count = file, limit, 0

    def read(self, count: int, /) -> bytes:
        chunk = self._file.read(count)
        self._count += len(chunk)
        if self._count > self._limit:
            raise _TooMuch(f"unpacks to more than {size(self._limit)}")
        return chunk


class _Look:
    """What the entries of one tarball say, from the first to the last."""

    def __init__(self, packed: int) -> None:
        self.limit = min(MAX_BYTES, max(BOMB_BYTES, packed * BOMB_RATIO))
        self._found: set[str] = set()
        self._conf = False
        self._texts: dict[str, str] = {}
        self._flaws: dict[str, str] = {}
        self._tops: dict[str, None] = {}
        self._links: dict[str, _Node] = {}
        self._root = _Node(None)
        self._unpacked = self._names = self._steps = 0
        self._glibc: tuple[int, ...] = ()

    def flaw(self, kind: str, what: str) -> None:
        """Note a flaw; the first of each kind is enough."""
        self._flaws.setdefault(kind, printable(what, 200))

    def read(self, plain: _Bounded) -> None:
        for count, entry in enumerate(tar_headers.entries(plain), 1):
            if count > MAX_ENTRIES:
                raise _TooMuch(f"has more than {MAX_ENTRIES:,} entries")
            self._entry(entry)

    def result(self, error: str) -> Seen:
        tops = list(self._tops)
        if len(tops) > 1 and "top" not in self._flaws:
            shown = ", ".join(tops[:_SHOWN]) + (", ..." if len(tops) > _SHOWN else "")
            self.flaw("tops", f"has {len(tops)} top folders, not one: {shown}")
        for path, link in self._links.items():
            if link.follow(MAX_HOPS) is None:
                self.flaw("link", f"has a link that leads outside: {path} -> {link.target}")
                break
        return Seen(
            found=tuple(sorted(self._found)),
            conf=self._conf,
            texts=self._texts,
            unpacked=self._unpacked,
            flaws=tuple(self._flaws.values()),
            error=error,
            glibc=self._glibc,
        )

    def _entry(self, entry: Entry) -> None:
        name, target = entry.name, entry.target
        parts = self._parts(name, "path")
        self._names += len(name) + len(target)
        if self._names > MAX_NAMES or len(target) > MAX_NAME:
            raise _TooMuch("has names that are too long")
        if _CONTROL.search(target):
            self.flaw("characters", f"has a link target with control characters: {target}")
        if parts is None or not parts:
            return  # a flaw already; or the folder in which the top folder lies
        path, within = "/".join(parts), "/".join(parts[1:])
        self._unpacked += entry.size
        if self._unpacked > self.limit:
            raise _TooMuch(f"unpacks to more than {size(self.limit)}")
        kind = _ODD_KINDS.get(entry.kind)
        if kind is None and not (entry.kind in (FILE, FOLDER) or target):
            links = entry.kind in (LINK, HARD)
            kind = "a link to nothing" if links else "an entry of an unknown kind"
        if kind is not None:
            self.flaw("kind", f"holds {kind}: {path}")
        if len(parts) == 1 and entry.kind != FOLDER:
            self.flaw("top", f"has no top folder: {path} is not in a folder")
        if len(self._tops) <= _SHOWN or parts[0] in self._tops:
            self._tops[parts[0]] = None
        if len(parts) > 1 and parts[1].startswith(OWN_NAMES):
            self.flaw("own", f"holds {path}, a name of this tool's own files")
        if self._root.has_link(parts[:-1]):
            self.flaw("below", f"holds {path}, which is below a link")
        if entry.kind == LINK:
            self._steps += len(parts) + target.count("/") + 1
            if len(self._links) >= MAX_LINKS and path not in self._links:
                raise _TooMuch(f"has more than {MAX_LINKS:,} links")
            if self._steps > MAX_STEPS:
                raise _TooMuch("has links whose paths have too many folders")
            self._links[path] = link = self._root.down(parts)
            link.target = target
        elif entry.kind == HARD:
            self._hard_link(path, parts[0], target)
        if within in MARKS and entry.kind != FOLDER:
            self._found.add(within)
        self._conf = self._conf or parts[1:2] == ("conf",)
        if within in TEXTS and entry.kind == FILE and not entry.sparse:
            self._texts[within] = entry.beginning(TEXT_BYTES).decode(errors="replace")
        if _NATIVE.fullmatch(within) and entry.kind == FILE and not entry.sparse:
            self._glibc = max(self._glibc, _needed_glibc(entry.beginning))

    def _hard_link(self, path: str, top: str, target: str) -> None:
        to = self._parts(target, "target")
        if to is None:
            return
        if not to or to[0] != top or self._root.has_link(to):
            self.flaw("hard", f"has a hard link that leads outside: {path} to {target}")

    def _parts(self, name: str, what: str) -> tuple[str, ...] | None:
        """The parts of a path, without ``.``; None for a path that is a flaw."""
        if len(name) > MAX_NAME:
            raise _TooMuch("has names that are too long")
        if _CONTROL.search(name):
            self.flaw("characters", f"has a {what} with control characters: {name}")
            return None
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if len(parts) > MAX_DEPTH:
            raise _TooMuch(f"has a {what} of more than {MAX_DEPTH} folders")
        if name.startswith("/") or ".." in parts:
            self.flaw(what, f"has a {what} that leads outside: {name}")
            return None
        return parts


def _needed_glibc(read: Callable[[int], bytes]) -> tuple[int, ...]:
    """The newest version of glibc that the ELF file names; () when it names none."""
    found: tuple[int, ...] = ()
    rest = b""
    while chunk := read(_READ):
        chunk = rest + chunk
        for match in _LIBC.finditer(chunk):
            found = max(found, (int(match[1]), int(match[2])))
        rest = chunk[-_LIBC_LENGTH:]
    return found


class _Node:
    """A path in the unpacked tarball that a link has, or leads through.

    Each link is followed once, so the work for all of them grows with the length of their targets,
    whatever leads to what.
    """

    __slots__ = ("_above", "_below", "_depth", "_end", "target")

    def __init__(self, above: _Node | None) -> None:
        self._above = above
        self._depth: int = 0 if above is None else above._depth + 1
        self._below: dict[str, _Node] = {}
        #: The target, of a link.
        self.target: str | None = None
        #: Where the link leads, through how many links; None while that is not known.
        self._end: tuple[_Node, int] | None = None

    def down(self, parts: Sequence[str]) -> _Node:
        """The place of ``parts`` below this one."""
        here = self
        for part in parts:
            here = here._below.get(part) or here._below.setdefault(part, _Node(here))
        return here

    def has_link(self, parts: Sequence[str]) -> bool:
        """Whether one of the places on the way down ``parts`` is a link."""
        here = self
        for part in parts:
            if (below := here._below.get(part)) is None:
                return False
            here = below
            if here.target is not None:
                return True
        return False

    def follow(self, most: int) -> tuple[_Node, int] | None:
        """Where this link leads in the end, and through how many links, itself included.

        None when it leads out of the top folder or through more than ``most`` links, a circle among
        them. Then the tarball is refused, so this answer need not be kept.
        """
        if self._end is not None:
            return self._end if self._end[1] <= most else None
        target, above = self.target, self._above
        if target is None or above is None or most < 1 or target.startswith("/"):
            return None
        parts = target.split("/")
        if len(parts) > MAX_DEPTH:
            return None
        here, hops = above, 1
        for part in parts:
            if part in ("", "."):
                continue
            if part == "..":
                if here._depth < 2 or here._above is None:
                    return None
                here = here._above
                continue
            here = here.down((part,))
            if here.target is not None:
                found = here.follow(most - hops)
                if found is None:
                    return None
                here, hops = found[0], hops + found[1]
        self._end = here, hops
        return self._end
