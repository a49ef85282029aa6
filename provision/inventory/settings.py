"""The keys of ``etcd.conf.yml`` in each minor release of etcd, from its source.

etcd reads the file with a parser that ignores every other key (``configFromFile`` in its
``server/embed/config.go``). So a misspelled key would restart all members and have no effect.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

_FILE = Path(__file__).parent / "etcd-settings.txt"


@functools.cache
def minors() -> Mapping[str, tuple[str, ...]]:
    """The minor releases that know each key, by key, such as ``("3.6", "3.7")``."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    words = (line.split(" ") for line in lines if not line.startswith("#"))
    return {key: tuple(known) for key, *known in words}


def keys(minor: str | None) -> frozenset[str]:
    """The keys of a minor release; for None, of all. Empty when the list does not have the
    release."""
    return frozenset(key for key, known in minors().items() if minor is None or minor in known)
