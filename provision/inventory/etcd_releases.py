"""The way between two etcd releases, the settings that are removed, and the unfit releases. Pure.

From etcd's guides "Upgrading etcd clusters" and "Downgrading etcd clusters": a cluster changes one
minor release at a time. Below 3.6 there is no way back after the whole cluster has been upgraded.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence

from provision.dataclass import dataclass
from provision.errors import PreflightFailed, Problem, Severity
from provision.inventory.model import version_tuple

Version = tuple[int, int, int]
Minor = tuple[int, int]

#: The lowest allowed release before an upgrade, by the target's minor release. From etcd's guides
#: "Upgrade etcd from v3.5 to v3.6" (its log of the membership is repaired from 3.5.26 on, and
#: ``etcdutl check v2store`` reads the write-ahead log from 3.5.32 on) and "… v3.6 to v3.7".
LEAST_BEFORE: Mapping[Minor, Version] = {(3, 6): (3, 5, 32), (3, 7): (3, 6, 11)}
#: The first minor release that reads its members from the v3 store. Up to here they come from the
#: v2 store (``RaftCluster.Recover`` of etcd's ``membership/cluster.go``).
TRUSTS_V3_STORE: Minor = (3, 6)
#: The first minor release that cannot read v2 requests in its log.
WITHOUT_V2: Minor = (3, 7)
#: The first minor release from which a downgrade is possible (``downgrade enable``).
FIRST_DOWNGRADE: Minor = (3, 6)


class State(enum.Enum):
    """The states of a cluster, or the work on it, in which a release's defect does damage."""

    ANY = "always"
    ONE_MEMBER = "one member"
    AUTH = "authentication is on"
    DEFRAG = "a defragmentation"


@dataclass(frozen=True, slots=True)
class Unfit:
    """Releases ``first`` to ``last`` damage data in ``state``. ``fixed`` is the lowest release of
    the same minor without any defect of the table. ``source`` is where etcd's authors name the
    defect."""

    first: Version
    last: Version
    state: State
    what: str
    fixed: Version
    source: str

    def has(self, release: str) -> bool:
        """Whether ``release`` is in this row. A member may report a text that is no release: it is
        in no row."""
        try:
            return self.first <= version_tuple(release) <= self.last
        except ValueError:
            return False


_SINGLE = "a cluster of one member can lose acknowledged writes in a crash"
_AUTH = "with authentication on, a member that joins or falls behind can end up with other data"
#: Releases that etcd's authors advised against because they damage data. From etcd's CHANGELOG-3.4
#: and CHANGELOG-3.5, and the named issues. Later releases repair other defects, but these need a
#: state that this tool does not cause: the gates of a defragmentation wait until no member is
#: behind, so no snapshot is applied meanwhile (pull request 20553).
UNFIT = (
    Unfit(
        (3, 5, 0),
        (3, 5, 2),
        State.ANY,
        "the data of members can differ after a crash",
        (3, 5, 6),
        "issue 13766; Documentation/postmortems/v3.5-data-inconsistency.md",
    ),
    Unfit((3, 4, 0), (3, 4, 20), State.ONE_MEMBER, _SINGLE, (3, 4, 22), "issue 14370; PR 14423"),
    Unfit((3, 5, 0), (3, 5, 4), State.ONE_MEMBER, _SINGLE, (3, 5, 6), "issue 14370; PR 14424"),
    Unfit(
        (3, 5, 0),
        (3, 5, 5),
        State.DEFRAG,
        "the data of members can differ after a crash in a defragmentation",
        (3, 5, 6),
        "PR 14685, 14733",
    ),
    Unfit((3, 4, 20), (3, 4, 21), State.AUTH, _AUTH, (3, 4, 22), "issue 14571; PR 14410, 14649"),
    Unfit((3, 5, 5), (3, 5, 5), State.AUTH, _AUTH, (3, 5, 6), "issue 14571; PR 14648"),
)

#: Removed settings, by the minor release that no longer has them: the difference of ``etcd --help``
#: of 3.4.23, 3.5.35, 3.6.16 and 3.7.3. etcd ignores unknown keys in its file without a message.
REMOVED: Mapping[Minor, tuple[str, ...]] = {
    (3, 5): ("debug", "experimental-backend-bbolt-freelist-type", "log-package-levels"),
    (3, 6): ("enable-v2", "experimental-enable-v2v3", "proxy", "proxy-*"),
    (3, 7): ("experimental-*",),
}


def path(
    running: Collection[str], target: str, available: Collection[str], cluster: Minor
) -> tuple[str, ...]:
    """The releases on the way, ``target`` last; empty when all of ``running`` are ``target``.

    ``cluster`` is the version that the cluster works by: the lowest version of its members, until
    all have been upgraded. Raises :class:`PreflightFailed` when a release on the way is not in
    ``available``, or there is no way.
    """
    if set(running) == {target}:
        return ()
    lowest, highest = min(map(version_tuple, running)), max(map(version_tuple, running))
    goal = version_tuple(target)
    if goal[0] != lowest[0]:
        raise _no_way(f"there is no upgrade path from etcd {_text(lowest)} to {target}")
    if goal >= highest:
        return _needed(_up(lowest, goal, available), available)
    # Until the last member is upgraded, the cluster works as before, and any member can go back.
    if cluster <= goal[:2]:
        return _needed((target,), available)
    return _needed(_down(cluster, goal, available), available)


def is_downgrade(cluster: Minor, release: str) -> bool:
    """Whether a cluster that works by ``cluster`` needs ``downgrade enable`` before ``release`` may
    join."""
    return version_tuple(release)[:2] < cluster


def removed_settings(settings: Iterable[str], path: Iterable[str]) -> dict[str, str]:
    """The settings that a release on ``path`` no longer has, each with that release."""
    found: dict[str, str] = {}
    for release in path:
        for minor, patterns in REMOVED.items():
            if version_tuple(release)[:2] < minor:
                continue
            for key in settings:
                if any(_matches(key, p) for p in patterns):
                    found.setdefault(key, release)
    return found


def unfit(release: str, states: Collection[State]) -> tuple[Unfit, ...]:
    """The known defects of ``release`` that damage data in ``states``; :attr:`State.ANY` always
    holds."""
    return tuple(u for u in UNFIT if u.has(release) and (u.state in states or u.state is State.ANY))


def states(members: int, *, auth: bool) -> frozenset[State]:
    """The states of a cluster that hold without any command."""
    return frozenset(
        state for state, holds in ((State.ONE_MEMBER, members == 1), (State.AUTH, auth)) if holds
    )


def remedy(release: str) -> str:
    """The releases to use instead of ``release``; never a release of :data:`UNFIT`."""
    later = f"{_text(LEAST_BEFORE[TRUSTS_V3_STORE])} or later"
    fixed = max((u.fixed for u in UNFIT if u.has(release)), default=None)
    if fixed is None or fixed[:2] == LEAST_BEFORE[TRUSTS_V3_STORE][:2]:
        return f"use {later}"
    return f"use {_text(fixed)} or a later {fixed[0]}.{fixed[1]}, or {later}"


def unfit_problem(
    release: str, where: str, holding: Collection[State], *, allowed: bool = False
) -> Problem | None:
    """The problem of ``release`` in a cluster with the states ``holding``; None without a problem.

    An error when one of its defects does damage in these states, unless it is ``allowed``. A
    warning when a defect may do damage later: to turn on authentication or to defragment a cluster
    is more likely than to lose all members but one.
    """
    hurting = unfit(release, holding)
    later = unfit(release, {State.AUTH, State.DEFRAG})
    rows = [u for u in UNFIT if u in hurting or u in later]
    if not rows:
        return None
    what = "; ".join(dict.fromkeys(u.what for u in rows))
    severity: Severity = "error" if hurting and not allowed else "warning"
    return Problem(
        where, f"etcd {release}: {what}", remedy(release), severity, id="etcd-version-unfit"
    )


def require_fit(
    running: Iterable[tuple[str, str]],
    holding: Collection[State],
    command: str,
    dead: Sequence[str] = (),
) -> None:
    """Raises :class:`PreflightFailed` when a member runs a release that ``command`` could damage.

    ``running``: members' names and releases. ``holding``: the states that the command causes.
    ``dead``: members that the command would replace; without them an upgrade does not go on.
    """
    problems = []
    for name, release in running:
        for found in unfit(release, holding):
            if found.state in holding:
                remedy_ = f"{remedy(release)}: invoke upgrade-etcd VERSION, then {command}"
                if dead:
                    remedy_ = (
                        f"invoke remove-member {dead[0]} and take it out of etcd.members; {remedy_}"
                    )
                what = f"runs etcd {release}: {found.what}"
                problems.append(Problem(name, what, remedy_, id="etcd-version-unfit"))
    if problems:
        raise PreflightFailed(
            f"{command} could damage data with this release of etcd",
            problems,
            id="etcd-version-unfit",
        )


def _up(lowest: Version, goal: Version, available: Collection[str]) -> tuple[str, ...]:
    found: list[str] = []
    for number in range(lowest[1], goal[1]):
        minor, least = (goal[0], number), LEAST_BEFORE.get((goal[0], number + 1))
        if number > lowest[1] or (least is not None and lowest < least):
            found.append(_newest(minor, available, least))
    return (*found, _text(goal))


def _down(cluster: Minor, goal: Version, available: Collection[str]) -> tuple[str, ...]:
    found = []
    for number in range(cluster[1], goal[1], -1):
        if (cluster[0], number) < FIRST_DOWNGRADE:
            raise _no_way(
                f"etcd cannot be downgraded from {cluster[0]}.{number} to "
                f"{cluster[0]}.{number - 1}: only 3.6 and later can be downgraded; restore a "
                "backup that was taken before the upgrade instead"
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
        f"has no tarball of etcd {release}, which the upgrade path needs",
        "add it: releases: {VERSION: {path: ..., sha256: ...}}",
        id="upgrade-path",
    )
    return PreflightFailed(f"etcd {release} is not available", [problem], id="upgrade-path")


def _no_way(what: str) -> PreflightFailed:
    return PreflightFailed(what, id="upgrade-path")


def _matches(key: str, pattern: str) -> bool:
    return key.startswith(pattern[:-1]) if pattern.endswith("*") else key == pattern


def _text(version: Version) -> str:
    return ".".join(map(str, version))
