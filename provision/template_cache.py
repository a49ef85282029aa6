"""Templates that are compiled once, as Python's own modules are: beside them, in __pycache__.

Jinja takes 15 ms of processor time to compile the two templates of a member.
"""

from __future__ import annotations

import contextlib
import pickle  # nosec B403
import sys
from collections.abc import Iterable
from pathlib import Path

from jinja2 import compiler
from jinja2.bccache import Bucket, FileSystemBytecodeCache


class TemplateCache(FileSystemBytecodeCache):
    """What this Python and this Jinja have compiled of the templates in ``folder``.

    ``programs`` are files that say how they are compiled. Jinja itself sees when a template has
    changed, by its digest (``BytecodeCache.get_source_checksum``).
    """

    def __init__(self, folder: Path, programs: Iterable[str]) -> None:
        self._folder = folder / "__pycache__"
        stats = [Path(name).stat() for name in (compiler.__file__, *programs)]
        self._made_by = " ".join(f"{s.st_size} {s.st_mtime_ns}" for s in stats)
        super().__init__(str(self._folder), f"%s.{sys.implementation.cache_tag}.jinja")

    def get_source_checksum(self, source: str) -> str:
        return super().get_source_checksum(f"{self._made_by}\n{source}")

    def load_bytecode(self, bucket: Bucket) -> None:
        try:
            super().load_bytecode(bucket)
        except (EOFError, ValueError, TypeError, OSError, pickle.UnpicklingError):  # cut short
            bucket.reset()

    def dump_bytecode(self, bucket: Bucket) -> None:
        if sys.dont_write_bytecode:
            return
        with contextlib.suppress(OSError):  # another's folder: as with modules, not kept
            self._folder.mkdir(exist_ok=True)
            super().dump_bytecode(bucket)
