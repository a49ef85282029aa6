"""Page stores with a missing disk. They are caches: a worker runs on with its other stores.

When a store's folder ``DIR/LOCAL`` is missing, Alluxio makes it on any disk that is there. When it
cannot make the folder, it turns the whole page cache off, and the worker goes on without a cache
and without a message (classes ``LocalCacheManager.restoreOrInit``, ``PageStoreDir.clear``; states
``NOT_IN_USE``). But Alluxio works with a folder that it can read and not write: the store is
restored as empty, pages for this store are not cached, and the other stores serve. So the unit puts
an empty folder, owned by root, in the place of a store with a missing disk. Nothing can fill the
root disk there, the mounted disk hides the folder, and the journal names it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from provision.alluxio.worker import state
from provision.errors import Problem
from provision.host import disks
from provision.host.facts import HostFacts
from provision.inventory.resolved import AlluxioWorker


def check(dirs: Sequence[str], mounts: Mapping[str, str]) -> str:
    """The command of an ``ExecStartPre=-+`` that makes this folder for each store with a missing
    disk.

    ``mounts``: the mount points by store, as noted in the unit.
    """
    asked = []
    for path in dirs:
        q, mount = shlex.quote(path), mounts.get(path)
        if mount is None:
            asked.append(f'{{ [ -d {q} ] && [ ! -O {q} ]; }} || away {q} "it is not there"')
        else:
            why = f'"no disk is mounted at {mount}"'
            asked.append(f"on {shlex.quote(mount)} || away {q} {why}")
    script = (
        # A mount point is on another file system than the folder above it.
        'on() { [ -d "$1" ] && [ "$(stat -c %d "$1")" != "$(stat -c %d "$1/..")" ]; }; '
        # Step by step: in a folder that others can write, no link is followed (see safely.walk).
        "walk() { cd -P / || return; way=${1#/} alone=1; while :; do "
        'here=$(stat -c "%u %a %d:%i" .); case $here in '
        '[1-9]*|"0 "*[2367]" "*|"0 "*[2367]?" "*) alone=;; esac; '
        '[ "$way" ] || return 0; n=${way%%/*}; '
        "case $way in */*) way=${way#*/};; *) way=;; esac; "
        '[ -e "./$n" ] || [ -L "./$n" ] || mkdir -m 755 "./$n" || return; cd -P "./$n" || return; '
        '[ "$alone" ] || { set -- "$1" $(stat -c %d:%i .. . "../$n" 2>/dev/null); '
        '[ "$2" = "${here##* }" ] && [ "$3" = "$4" ]; } || return; done; }; '
        'away() { echo "page store $1 is not used: $2; the other stores serve" >&2; '
        # The folder belongs to root before any path in it is used.
        '( walk "$1" && chown root:root . && chmod 755 . || exit; '
        "[ -O ./LOCAL ] && [ ! -L ./LOCAL ] && exit; "
        "[ ! -e ./LOCAL ] && [ ! -L ./LOCAL ] || "
        'mv -T ./LOCAL "./LOCAL.before-$(date +%s)"; mkdir -m 755 ./LOCAL ); }; ' + "; ".join(asked)
    )
    if "'" in script:
        raise ValueError(f"an apostrophe would end the command: {script}")
    return f"/bin/sh -c '{script.replace('$', '$$').replace('%', '%%')}'"


def lost(worker: AlluxioWorker, facts: HostFacts, unit_path: str) -> dict[str, str]:
    """The stores that must not be made on the root disk, by path, and why their disk is missing.

    ``unit_path``: the worker's unit; the probe of the facts has this file in it.
    """
    dirs = worker.page_store.dirs
    unit = facts.text(unit_path)
    found = {
        path: f"no disk is mounted at {mount}"
        for path, mount in disks.missing(unit, facts, dirs).items()
    }
    if unit is None:
        return found
    # A store that was written for the worker by a version of this tool that noted no mounts.
    before = state.given_stores(facts)
    noted = disks.noted(unit)
    for path in dirs:
        here = facts.paths.get(path)
        if path not in noted and path in before and (here is None or here.owner == "root"):
            found[path] = (
                "it is not there" if here is None else "root owns it, not the worker's user"
            )
    return found


def problems(
    worker: AlluxioWorker, facts: HostFacts, unit_path: str, user: str, where: str
) -> list[Problem]:
    """A warning for each store with a missing disk."""
    return [
        Problem(
            where,
            f"page store {path} is not used: {why}; the other stores serve",
            "mount its disk and restart the worker, or take it out of page_store.dirs; if it "
            f"should be on the disk that is mounted now: mkdir -p {path}; chown -R {user}: "
            f"{path}",
            "warning",
            id="page-store-away",
        )
        for path, why in lost(worker, facts, unit_path).items()
    ]
