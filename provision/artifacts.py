"""Artifacts: a tarball by path or URL, always checked by sha256 before a host sees it."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import field
from pathlib import Path
from urllib.parse import urlsplit

from provision import bounds, progress, tar_reader
from provision.dataclass import dataclass
from provision.errors import PreflightFailed, Problem
from provision.files import make_folder, read_text, require_regular
from provision.ids import Id
from provision.inventory.model import Source
from provision.tar_reader import Seen, Stamp
from provision.text import number, printable

#: A download that sends nothing for this long (seconds) has failed.
DOWNLOAD_TIMEOUT = 30.0
READ = 1 << 20


@dataclass(frozen=True, slots=True)
class Artifact:
    """A tarball on this machine whose content has the digest ``sha256`` (lower-case hex).

    ``seen``: what it holds; None when it was not looked into. ``stamp``: the state in which it
    was read; None when a change since may leave no sign. ``unread``: an earlier run has read it
    in the same state (:func:`fetch`).
    """

    path: Path
    sha256: str
    size: int
    seen: Seen | None = field(default=None, compare=False, repr=False)
    stamp: Stamp | None = field(default=None, compare=False, repr=False)
    unread: bool = field(default=False, compare=False, repr=False)

    def room(self, times: int) -> int:
        """The bytes that a host needs to unpack it, at least ``times`` its size. The tarball lies
        beside the unpacked files for a moment."""
        return max(self.size * times, self.size + (self.seen.unpacked if self.seen else 0))


def fetch(source: Source, cache: Path, *, unread: bool = False) -> Artifact:
    """The artifact of ``source``. A URL is downloaded into ``cache`` unless the file is there.

    ``unread``: a file that :func:`remember` has kept, and that has the same stamp, is not read
    again. This is for a tarball that no host is to get; before an upload its content counts.

    A tarball is looked into in the same pass that computes its digest, unless :func:`remember` has
    kept what was found. Nothing but a download is written: the run may be a dry run.
    Raises :class:`PreflightFailed` when the tarball is not available, or its sha256 is not the
    declared one.
    """
    where = str(source.path or source.url)
    expected = _expected(source)
    try:
        seen = tar_reader.kept(cache, expected)
        path = _place(source, cache, expected)
        if source.path is None and not path.exists():
            _download(source, expected, path)
        stamp, look = tar_reader.stamp(path), seen
        is_known = stamp is not None and stamp == tar_reader.kept_stamp(cache, expected)
        if unread := unread and seen is not None and is_known:
            actual = expected
        elif seen is not None:
            actual = digest(path)
        else:
            actual, look = tar_reader.read(path)
        if source.path is None and actual != expected:  # the file in the cache is damaged
            _download(source, expected, path)
            stamp = None
            actual, look = tar_reader.read(path)
        size = path.stat().st_size
    except OSError as error:
        what = error.strerror or str(error) or type(error).__name__
        if source.path is not None:
            raise _bad(
                where, f"cannot be read: {what}", "check the path", id="tarball-unavailable"
            ) from error
        remedy = (
            f"check the URL, or put the file on this machine and give its path; {cache} "
            "must be writable"
        )
        raise _bad(
            where, f"cannot be downloaded: {printable(what, 200)}", remedy, id="tarball-unavailable"
        ) from error
    if actual != expected:
        raise _bad(
            where,
            f"sha256 is {actual}, but the inventory says {expected}",
            "the file is damaged or was changed, or the digest is of another release; nothing "
            "was uploaded",
            id="checksum-mismatch",
        )
    return Artifact(path, actual, size, look, stamp, unread)


def declared(source: Source, cache: Path) -> Artifact | None:
    """What :func:`fetch` returns when the tarball is right; nobody has looked into it. None when it
    is not on this machine yet."""
    try:
        expected = _expected(source)
        path = _place(source, cache, expected)
        return Artifact(path=path, sha256=expected, size=path.stat().st_size)
    except (OSError, PreflightFailed):
        return None


def remember(artifact: Artifact, cache: Path) -> None:
    """Keep what ``artifact`` holds, after a host has got it. Later runs need not look into it, and
    while no host is to get it, they need not read the file."""
    if artifact.seen is None:
        return
    if tar_reader.kept(cache, artifact.sha256) is None:
        tar_reader.keep(cache, artifact.sha256, artifact.seen)
    if artifact.stamp is not None:
        tar_reader.keep_stamp(cache, artifact.sha256, artifact.stamp)


def fetch_all(sources: Iterable[Source], cache: Path, *, unread: bool = False) -> list[Artifact]:
    """As :func:`fetch`, for several. Raises :class:`PreflightFailed` with the problems of all."""
    found: list[Artifact] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            found.append(fetch(source, cache, unread=unread))
        except PreflightFailed as error:
            problems += error.problems
            failed = error
    if problems:
        if len(problems) == 1:
            raise failed
        raise PreflightFailed("some tarballs are not usable", problems, id="preflight-failed")
    return found


def file_name(source: Source) -> str:
    """The tarball's own name, without its folder or host."""
    if source.path is not None:
        return source.path.name
    return urlsplit(source.url or "").path.rsplit("/", 1)[-1] or "download"


def digest(path: Path) -> str:
    """The sha256 of a file, lower-case hex. Raises ``OSError``, also for what is no regular
    file."""
    require_regular(path, bounds.TARBALL)
    sha = hashlib.sha256()
    with path.open("rb") as file, progress.hashing(path) as shown:
        while chunk := file.read(READ):
            sha.update(chunk)
            shown.add(len(chunk))
    return sha.hexdigest()


def default_cache() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/alluxio-provision`` or below ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "alluxio-provision"


def _place(source: Source, cache: Path, expected: str) -> Path:
    return source.path or cache / expected[:16] / file_name(source)


def _expected(source: Source) -> str:
    declared = source.sha256 or ""
    if not declared.startswith("file:"):
        return declared.lower()
    name = file_name(source)
    sums = Path(declared[5:])
    if digest := listed(sums, name):
        return digest
    raise _bad(
        str(sums),
        f"does not list {name}",
        "give the digest itself, or the right file",
        id="checksum-mismatch",
    )


def listed(sums: Path, name: str) -> str:
    """The sha256 that the SHA256SUMS file ``sums`` has for the file ``name``; "" when it does not
    list it. Raises :class:`PreflightFailed` for a file that cannot be read, or has no sha256."""
    try:
        lines = read_text(sums, bounds.CHECKSUMS, errors="replace").splitlines()
    except OSError as error:
        raise _bad(
            str(sums),
            f"cannot be read: {error.strerror}",
            f"put the publisher's SHA256SUMS there, or give the sha256 of {name} itself",
            id="tarball-unavailable",
        ) from error
    for line in lines:
        fields = line.split(maxsplit=1)
        if len(fields) == 2 and fields[1].lstrip("*").rsplit("/", 1)[-1] == name:
            if not re.fullmatch(r"[0-9a-fA-F]{64}", fields[0]):
                raise _bad(
                    str(sums),
                    f"has no sha256 for {name}",
                    "is it a SHA256SUMS file?",
                    id="checksum-mismatch",
                )
            return fields[0].lower()
    return ""


def _download(source: Source, expected: str, target: Path) -> None:
    """Download the file. Raises ``OSError``, and :class:`PreflightFailed` for another digest."""
    from http.client import HTTPException

    from provision import download

    assert source.url is not None
    sha = hashlib.sha256()
    make_folder(target.parent)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".download-")
    temporary = Path(name)
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            progress.waiting(f"download of {target.name}", sizes=True) as shown,
            download.opened(source.url, DOWNLOAD_TIMEOUT) as response,
        ):
            shown.of = number(response.headers.get("Content-Length") or "")
            # read1: a server that drips would keep read() waiting for a whole piece.
            while chunk := response.read1(READ):
                file.write(chunk)
                sha.update(chunk)
                shown.add(len(chunk))
        if (actual := sha.hexdigest()) != expected:
            raise _bad(
                source.url,
                f"sha256 is {actual}, but the inventory says {expected}",
                "the download was deleted; nothing was uploaded",
                id="checksum-mismatch",
            )
        temporary.replace(target)
    except HTTPException as error:
        raise OSError(str(error) or type(error).__name__) from error
    finally:
        temporary.unlink(missing_ok=True)


def _bad(where: str, what: str, remedy: str, *, id: Id) -> PreflightFailed:
    return PreflightFailed(f"{where}: {what}", [Problem(where, what, remedy, id=id)], id=id)
