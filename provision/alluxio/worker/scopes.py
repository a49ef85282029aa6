"""Which processes read a property, by the scope that Alluxio gives it (class ``PropertyKey``).

The list is made from a release's own jar by ``tests/lab/property-scopes``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

#: The release of this list.
RELEASE = "313"
_FILE = Path(__file__).parent / "property-scopes.txt"
#: Properties of one process. Many other properties with scope SERVER or NONE belong to the under
#: stores. A client reads these as well, because it reads a file there itself when no worker
#: answers.
_PROCESSES = ("alluxio.worker.", "alluxio.master.", "alluxio.job.", "alluxio.proxy.")
#: Only the process itself uses its own name and bind address, although upstream gives no scope.
_OWN_ADDRESS = ("hostname", "bind.host")


@functools.cache
def scopes() -> Mapping[str, str]:
    """The scope by property, and by its older names: ALL, CLIENT, WORKER, MASTER, SERVER or
    NONE."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    pairs = (line.split(" ") for line in lines if not line.startswith("#"))
    return {key: scope for scope, key in pairs}


def is_known(key: str) -> bool:
    """Whether the release has this property. Templates (of mount options, for example) do not
    count."""
    return key in scopes()


def is_for_clients(key: str) -> bool:
    """Whether a client may read ``key``. A client may also read an unknown property."""
    if key.startswith("alluxio.worker.") and key.endswith(_OWN_ADDRESS):
        return False
    scope = scopes().get(key, "ALL")
    # Clients read alluxio.user.netty.data.transmission.enabled, whose scope is WORKER
    # (class DoraCacheClient).
    if scope in ("ALL", "CLIENT") or key.startswith("alluxio.user."):
        return True
    return scope in ("SERVER", "NONE") and not key.startswith(_PROCESSES)
