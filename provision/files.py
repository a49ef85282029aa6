"""Files that this machine writes for others to read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from provision.errors import UsageError


def write_whole(path: Path, text: str | bytes, *, private: bool = False) -> None:
    """Write ``path`` so that a reader sees the old text or the new text, never a part.

    The umask decides who may read the file; a private file has mode 0600 from its first byte.
    Raises :class:`UsageError` when it cannot be written.
    """
    umask = os.umask(0)
    os.umask(umask)
    try:
        # The temporary name has another ending: a collector that looks for *.prom ignores it.
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(descriptor, "wb") as file:
                file.write(text.encode() if isinstance(text, str) else text)
                os.fchmod(descriptor, 0o600 if private else 0o666 & ~umask)
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror or error}", id="file-unwritable"
        ) from error
