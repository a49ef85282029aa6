"""etcd's tarball: what it must hold before a host sees it."""

from __future__ import annotations

from collections.abc import Iterable

from provision.artifacts import Artifact
from provision.errors import Problem

#: The programs that this tool runs. ``etcdutl`` is there from 3.5 on.
PROGRAMS = ("etcd", "etcdctl")


def problems(tarballs: Iterable[Artifact | None]) -> list[Problem]:
    """The problem of each tarball that is not etcd's, or that no host may unpack."""
    found = []
    for tarball in tarballs:
        if tarball is None or tarball.seen is None:
            continue
        what = tarball.seen.refusal
        missing = [name for name in PROGRAMS if name not in tarball.seen.found]
        if not what and missing:
            what = f"is not an etcd release: it has no {' and no '.join(missing)}"
        remedy = "give etcd.source the release's own tarball, etcd-vVERSION-linux-ARCH.tar.gz"
        if what:
            found.append(Problem(str(tarball.path), what, remedy, id="tarball-unfit"))
    return found
