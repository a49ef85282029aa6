"""Which releases lie between two of etcd, and what each of them no longer has. Pure.

From etcd's guides "Upgrading etcd clusters" and "Downgrading etcd clusters": one minor release at
a time; below 3.6 there is no way back once the whole cluster has been upgraded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from provision.errors import PreflightFailed, Problem
from provision.inventory.model import version_tuple

Version = tuple[int, int, int]
Minor = tuple[int, int]

#: "Avoiding Zombie Cluster Members When Upgrading to etcd v3.6" (etcd's blog, December 2025):
#: this release repairs the copy of the membership that 3.6 begins to trust.
BEFORE_3_6: Version = (3, 5, 26)
#: The first minor release that can be gone back from (``downgrade enable``).
FIRST_DOWNGRADE: Minor = (3, 6)
CORRUPTING = ((3, 5, 0), (3, 5, 2))

#: Settings by the minor release that has them no more: the difference of ``etcd --help`` of
#: 3.4.23, 3.5.35, 3.6.16 and 3.7.3. etcd ignores unknown keys of its file without a word.
REMOVED: Mapping[Minor, tuple[str, ...]] = {
    (3, 5): ("debug", "experimental-backend-bbolt-freelist-type", "log-package-levels"),
    (3, 6): ("enable-v2", "experimental-enable-v2v3", "proxy", "proxy-*"),
    (3, 7): ("experimental-*",),
}


def path(
    running: Collection[str], target: str, available: Collection[str], cluster: Minor
) -> tuple[str, ...]:
    """The releases to go through, ``target`` last; empty when all of ``running`` are it.

    ``cluster`` is the version that the cluster works by: the lowest of its members' until all
    have been upgraded. Raises :class:`PreflightFailed` when a release on the way is not in
    ``available``, or there is no way.
    """
    if set(running) == {target}:
        return ()
    lowest, highest = min(map(version_tuple, running)), max(map(version_tuple, running))
    goal = version_tuple(target)
    if goal[0] != lowest[0]:
        raise _no_way(f"there is no way from etcd {_text(lowest)} to {target}")
    if goal >= highest:
        return _needed(_up(lowest, goal, available), available)
    # Until the last member is upgraded, the cluster works as before and any can go back.
    if cluster <= goal[:2]:
        return _needed((target,), available)
    return _needed(_down(cluster, goal, available), available)


def is_downgrade(cluster: Minor, release: str) -> bool:
    """Whether a cluster that works by ``cluster`` has to be told before ``release`` may join."""
    return version_tuple(release)[:2] < cluster


def removed_settings(settings: Iterable[str], path: Iterable[str]) -> dict[str, str]:
    """The settings that a release on ``path`` no longer has, and which release that is."""
    found: dict[str, str] = {}
    for release in path:
        for minor, patterns in REMOVED.items():
            if version_tuple(release)[:2] < minor:
                continue
            for key in settings:
                if any(_matches(key, p) for p in patterns):
                    found.setdefault(key, release)
    return found


def is_corrupting(release: str) -> bool:
    return CORRUPTING[0] <= version_tuple(release) <= CORRUPTING[1]


def _up(lowest: Version, goal: Version, available: Collection[str]) -> tuple[str, ...]:
    found: list[str] = []
    if lowest[:2] == (3, 5) and lowest < BEFORE_3_6 and goal[:2] > (3, 5):
        found.append(_newest((3, 5), available, BEFORE_3_6))
    for number in range(lowest[1] + 1, goal[1]):
        least = BEFORE_3_6 if number == 5 else None
        found.append(_newest((goal[0], number), available, least))
    return (*found, _text(goal))


def _down(cluster: Minor, goal: Version, available: Collection[str]) -> tuple[str, ...]:
    found = []
    for number in range(cluster[1], goal[1], -1):
        if (cluster[0], number) < FIRST_DOWNGRADE:
            raise _no_way(
                f"etcd cannot be taken back from {cluster[0]}.{number} to {cluster[0]}.{number - 1}"
                ": that came with 3.6; restore a backup that was taken before the upgrade instead"
            )
        if number - 1 > goal[1]:
            found.append(_newest((goal[0], number - 1), available, None))
    return (*found, _text(goal))


def _newest(minor: Minor, available: Collection[str], least: Version | None) -> str:
    fit = [
        v for v in map(version_tuple, available) if v[:2] == minor and (least is None or v >= least)
    ]
    if fit:
        return _text(max(fit))
    wanted = f"{minor[0]}.{minor[1]}.x"
    if least is not None:
        wanted += f" from {_text(least)} on"
    raise _missing(wanted)


def _needed(path: tuple[str, ...], available: Collection[str]) -> tuple[str, ...]:
    for release in path:
        if release not in available:
            raise _missing(release)
    return path


def _missing(release: str) -> PreflightFailed:
    problem = Problem(
        "etcd.releases",
        f"has no tarball of etcd {release}, which is on the way",
        "add it: releases: {VERSION: {path: ..., sha256: ...}}",
        id="upgrade-path",
    )
    return PreflightFailed(
        f"etcd {release} is not at hand; nothing was changed", [problem], id="upgrade-path"
    )


def _no_way(what: str) -> PreflightFailed:
    return PreflightFailed(f"{what}; nothing was changed", id="upgrade-path")


def _matches(key: str, pattern: str) -> bool:
    return key.startswith(pattern[:-1]) if pattern.endswith("*") else key == pattern


def _text(version: Version) -> str:
    return ".".join(map(str, version))
