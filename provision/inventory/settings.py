"""The keys of ``etcd.conf.yml`` in each minor release of etcd, as its source has them.

etcd reads the file with a parser that ignores every other key (``configFromFile`` in its
``server/embed/config.go``), so a misspelled one would restart all members and do nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

_FILE = Path(__file__).parent / "etcd-settings.txt"


@functools.cache
def minors() -> Mapping[str, tuple[str, ...]]:
    """By key, the minor releases that know it, such as ``("3.6", "3.7")``."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    words = (line.split(" ") for line in lines if not line.startswith("#"))
    return {key: tuple(known) for key, *known in words}


def keys(minor: str | None) -> frozenset[str]:
    """The keys of a minor release, of any for None. Empty when it is none of the list's."""
    return frozenset(key for key, known in minors().items() if minor is None or minor in known)
