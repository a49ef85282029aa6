"""The one reader of tarballs: what a tarball holds, and what forbids to unpack it as root.

It reads a tarball once, from beginning to end, and computes its sha256 in the same pass. What it
found is kept in the cache under the sha256. The right sha256 says that a tarball is the one that
was meant, not that it is harmless: a tarball can name paths outside its own folder, by links too.

Every count has a limit, so a hostile tarball costs bounded time and memory: entries, bytes when
unpacked, the length of names and of extended headers, and links.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import tarfile
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from provision import bounds
from provision.files import make_folder, read_text, require_regular
from provision.text import document, printable, size

#: The limits. A release has some hundreds of entries and up to 4 GB, a JDK some thousands of
#: entries.
MAX_ENTRIES, MAX_LINKS = 200_000, 10_000
MAX_BYTES = 64 << 30
#: From this many bytes on, a tarball may not unpack to more than so many times its size.
BOMB_BYTES, BOMB_RATIO = 1 << 30, 200
MAX_NAME, MAX_NAMES = 4096, 64 << 20
MAX_HEADER = 1 << 20
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
_EXTENDED = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_ODD_KINDS = {
    tarfile.CHRTYPE: "a device node",
    tarfile.BLKTYPE: "a device node",
    tarfile.FIFOTYPE: "a FIFO",
}


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
    with path.open("rb") as file:
        hashed = _Hashed(file)
        look = _Look(path.stat().st_size)
        error = ""
        try:
            with gzip.GzipFile(fileobj=hashed) as plain:
                look.read(_Bounded(plain, look.limit))
        except _TooMuch as much:
            look.flaw("size", str(much))
        except RecursionError:
            look.flaw("headers", "has too many extended headers in a row")
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as broken:
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
    place = _place(cache, sha256)
    with contextlib.suppress(OSError):
        make_folder(place.parent)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=place.parent, prefix=".new-", delete=False
        ) as file:
            json.dump({"format": _FORMAT, **asdict(seen)}, file)
        Path(file.name).replace(place)


def _place(cache: Path, sha256: str) -> Path:
    return cache / "contents" / f"{sha256}.json"


class _TooMuch(tarfile.ReadError):
    """A limit is reached: nothing more is read."""


class _Hashed:
    """A file whose bytes go into a digest as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sha = file, hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._file.read(size)
        self._sha.update(chunk)
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

    def read(self, count: int = -1, /) -> bytes:
        chunk = self._file.read(count)
        self._count += len(chunk)
        if self._count > self._limit:
            raise _TooMuch(f"unpacks to more than {size(self._limit)}")
        return chunk


class _Entry(tarfile.TarInfo):
    """An entry. The library reads an extended header whole into memory, so it has a limit."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Entry:
        made = super().frombuf(buf, encoding, errors)
        if made.type in _EXTENDED and made.size > MAX_HEADER:
            raise _TooMuch(f"has an extended header of {size(made.size)}")
        return made


class _Look:
    """What the entries of one tarball say, from the first to the last."""

    def __init__(self, packed: int) -> None:
        self.limit = min(MAX_BYTES, max(BOMB_BYTES, packed * BOMB_RATIO))
        self._found: set[str] = set()
        self._conf = False
        self._texts: dict[str, str] = {}
        self._flaws: dict[str, str] = {}
        self._tops: dict[str, None] = {}
        self._links: dict[str, str] = {}
        self._unpacked = self._names = 0
        self._glibc: tuple[int, ...] = ()

    def flaw(self, kind: str, what: str) -> None:
        """Note a flaw; the first of each kind is enough."""
        self._flaws.setdefault(kind, printable(what, 200))

    def read(self, plain: _Bounded) -> None:
        with tarfile.open(
            fileobj=plain,  # type: ignore[call-overload]
            mode="r|",
            bufsize=_READ,
            tarinfo=_Entry,
        ) as archive:
            count = 0
            while (entry := _next(archive, first=not count)) is not None:
                archive.members.clear()  # or every entry would stay in memory
                count += 1
                if count > MAX_ENTRIES:
                    raise _TooMuch(f"has more than {MAX_ENTRIES:,} entries")
                self._entry(archive, entry)
            # The library ends at a header that it cannot read, and GNU tar goes on after it.
            while chunk := archive.fileobj.read(_READ):
                if chunk.strip(b"\0"):
                    self.flaw("end", "has a damaged header, or data after its end")
                    break

    def result(self, error: str) -> Seen:
        tops = list(self._tops)
        if len(tops) > 1 and "top" not in self._flaws:
            shown = ", ".join(tops[:_SHOWN]) + (", ..." if len(tops) > _SHOWN else "")
            self.flaw("tops", f"has {len(tops)} top folders, not one: {shown}")
        for path, target in self._links.items():
            start = tuple(path.split("/")[:-1])
            if _leads_outside(start, target, self._links):
                self.flaw("link", f"has a link that leads outside: {path} -> {target}")
        return Seen(
            found=tuple(sorted(self._found)),
            conf=self._conf,
            texts=self._texts,
            unpacked=self._unpacked,
            flaws=tuple(self._flaws.values()),
            error=error,
            glibc=self._glibc,
        )

    def _entry(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        name = entry.name
        parts = self._parts(name, "path")
        target = entry.linkname if entry.issym() or entry.islnk() else ""
        self._names += len(name) + len(target)
        if self._names > MAX_NAMES or len(target) > MAX_NAME:
            raise _TooMuch("has names that are too long")
        if _CONTROL.search(target):
            self.flaw("characters", f"has a link target with control characters: {target}")
        if parts is None or not parts:
            return  # a flaw already; or the folder in which the top folder lies
        path, within = "/".join(parts), "/".join(parts[1:])
        self._unpacked += max(0, entry.size) if entry.isreg() else 0
        if self._unpacked > self.limit:
            raise _TooMuch(f"unpacks to more than {size(self.limit)}")
        kind = _ODD_KINDS.get(entry.type)
        if kind is None and not (entry.isreg() or entry.isdir() or target):
            kind = "an entry of an unknown kind" if entry.type not in b"12" else "a link to nothing"
        if kind is not None:
            self.flaw("kind", f"holds {kind}: {path}")
        if len(parts) == 1 and not entry.isdir():
            self.flaw("top", f"has no top folder: {path} is not in a folder")
        if len(self._tops) <= _SHOWN or parts[0] in self._tops:
            self._tops[parts[0]] = None
        if len(parts) > 1 and parts[1].startswith(OWN_NAMES):
            self.flaw("own", f"holds {path}, a name of this tool's own files")
        if any("/".join(parts[:n]) in self._links for n in range(1, len(parts))):
            self.flaw("below", f"holds {path}, which is below a link")
        if entry.issym():
            self._links[path] = target
            if len(self._links) > MAX_LINKS:
                raise _TooMuch(f"has more than {MAX_LINKS:,} links")
        elif entry.islnk():
            self._hard_link(path, parts[0], target)
        if within in MARKS and not entry.isdir():
            self._found.add(within)
        self._conf = self._conf or parts[1:2] == ("conf",)
        if within in TEXTS and entry.isreg():
            file = archive.extractfile(entry)
            self._texts[within] = file.read(TEXT_BYTES).decode(errors="replace") if file else ""
        if _NATIVE.fullmatch(within) and entry.isreg() and (file := archive.extractfile(entry)):
            self._glibc = max(self._glibc, _needed_glibc(file))

    def _hard_link(self, path: str, top: str, target: str) -> None:
        to = self._parts(target, "target")
        if to is None:
            return
        through = any("/".join(to[:n]) in self._links for n in range(1, len(to) + 1))
        if not to or to[0] != top or through:
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


def _needed_glibc(file: IO[bytes]) -> tuple[int, ...]:
    """The newest version of glibc that the ELF file names; () when it names none."""
    found: tuple[int, ...] = ()
    rest = b""
    while chunk := file.read(_READ):
        chunk = rest + chunk
        for match in _LIBC.finditer(chunk):
            found = max(found, (int(match[1]), int(match[2])))
        rest = chunk[-_LIBC_LENGTH:]
    return found


def _next(archive: tarfile.TarFile, *, first: bool) -> tarfile.TarInfo | None:
    """The next entry. Python 3.10 seeks backwards when it is asked for the first one of none."""
    try:
        return archive.next()
    except tarfile.StreamError:
        if not first:
            raise
        return None


def _leads_outside(start: Sequence[str], target: str, links: Mapping[str, str]) -> bool:
    """Whether a link with this ``target``, in the folder ``start``, leads out of the top folder,
    through the other ``links`` too. A link that leads in a circle counts as one that does."""
    here, hops = list(start), 0
    if target.startswith("/"):
        return True
    todo = target.split("/")[::-1]
    if len(todo) > MAX_DEPTH:
        return True
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if len(here) < 2:
                return True
            here.pop()
            continue
        here.append(part)
        to = links.get("/".join(here))
        if to is not None:
            hops += 1
            if to.startswith("/") or hops > MAX_HOPS:
                return True
            here.pop()
            todo += to.split("/")[::-1]
    return False
