"""Files of this machine: read with an end, and written for others to read or for the owner only."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import time

from provision import bounds

TYPE_CHECKING = False
if TYPE_CHECKING:  # a completion reads a file, and needs neither this nor the modules named below
    from pathlib import Path

_CHUNK = 1 << 18


def read_bytes(
    path: str | os.PathLike[str],
    most: int,
    *,
    seconds: float = bounds.FILE_SECONDS,
    cut: bool = False,
) -> bytes:
    """The contents of ``path``: at most ``most`` bytes, in at most ``seconds``.

    More is an error; with ``cut``, one byte more is returned, for a caller with its own words.

    A name in an inventory may lead to a device or a pipe, which have no end or no beginning. A pipe
    with a writer is read: a shell's ``<(…)`` is one. Raises ``OSError`` with the reason.
    """
    deadline = time.monotonic() + seconds
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    found = bytearray()
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not waiting.poll(1000 * left):
                raise TimeoutError(errno.ETIMEDOUT, f"gives nothing in {seconds:g} s", str(path))
            data = file.read(_CHUNK)
            if not data:
                return bytes(found)
            found += data
            if len(found) > most and cut:
                return bytes(found[: most + 1])
            if len(found) > most:
                raise _too_large(path, most)


def read_text(path: Path, most: int, *, errors: str = "strict") -> str:
    """As :func:`read_bytes`, as UTF-8. Raises ``OSError`` and ``UnicodeDecodeError``."""
    return read_bytes(path, most).decode("utf-8", errors)


def require_regular(path: Path, most: int) -> None:
    """Raises ``OSError`` when ``path`` is not a file of at most ``most`` bytes: a device, say, or a
    folder."""
    there = path.stat()
    if stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(there.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    if there.st_size > most:
        raise _too_large(path, most)


def _too_large(path: str | os.PathLike[str], most: int) -> OSError:
    from provision.text import size

    return OSError(errno.EFBIG, f"has more than {size(most)}", str(path))


def make_folder(path: Path, *, private: bool = True) -> None:
    """Make the folder, and those above it that are missing; one that is there stays as it is.

    A new private folder has mode 0700 with any umask. Another one gets what the umask leaves, but
    nobody but owner and group can write into it. Raises ``OSError``.
    """
    missing: list[Path] = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    umask = _umask()
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            folder.chmod(0o700 if private else 0o775 & ~umask)
    if missing and not missing[0].is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(missing[0]))


def write_whole(path: Path, text: str | bytes, *, private: bool = False) -> None:
    """Write ``path`` so that a reader sees the old text or the new text, never a part.

    The umask decides who may read the file; nobody but owner and group may write it. A private file
    has mode 0600 from its first byte. Raises :class:`UsageError` when it cannot be written.
    """
    umask = _umask()
    try:
        import tempfile  # it imports random and shutil, which no reader of a file needs

        # The temporary name has another ending: a collector that looks for *.prom ignores it.
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(descriptor, "wb") as file:
                file.write(text.encode() if isinstance(text, str) else text)
                os.fchmod(descriptor, 0o600 if private else 0o664 & ~umask)
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
    except OSError as error:
        from provision.errors import UsageError

        raise UsageError(
            f"{path} cannot be written: {error.strerror or error}", id="file-unwritable"
        ) from error


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
