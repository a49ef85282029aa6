"""etcd's own check at start: a member with data first compares its hash with every peer's hash.

``InitialCheck`` in etcd's ``server/etcdserver/corrupt.go`` (``CheckInitialHashKV`` in 3.4) compares
at the member's own revision. The member exits when a peer with the same compacted revision has
another hash. The check ignores the majority: while an odd peer answers, a healthy member exits,
too. A peer that does not answer is skipped. A member without data is not checked
(``memberInitialized`` in ``server/embed/etcd.go``).

etcd reads the setting only at its start, so a change of the setting restarts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from provision.inventory.model import Setting

#: The setting up to 3.5. 3.6 accepts it, too, but exits when ``feature-gates`` is set beside it.
SETTING = "experimental-initial-corrupt-check"
#: The key of 3.6 and later, and the gate in it (``server/features/etcd_features.go``).
GATES, GATE = "feature-gates", "InitialCorruptCheck"
_BY_GATE = (3, 6)
#: The text that etcd logs when this check ends it.
DIFFERS = "found data inconsistency with peers"
#: By minor release, the first release with a sound check: it tells members of a former cluster from
#: peers (etcd issue 15548), and works during a compaction (etcd pull requests 16047 and 16048).
#: From the changelogs.
_SOUND = {(3, 4): 28, (3, 5): 10}


def is_sound(release: tuple[int, ...]) -> bool:
    """Whether ``release``, such as ``(3, 5, 35)``, checks without known false alarms."""
    major, minor, patch = (*release, 0, 0, 0)[:3]
    return (major, minor) >= _BY_GATE or patch >= _SOUND.get((major, minor), patch + 1)


def switched(
    settings: Mapping[str, Setting], release: tuple[int, ...], *, on: bool
) -> dict[str, Setting]:
    """``settings`` with the check ``on`` or off.

    The check is turned on only if it is sound in this release and the settings do not set it.
    """
    found = dict(settings)
    gates = str(found.get(GATES, ""))
    others = other_gates(gates)
    if not on:
        found.pop(SETTING, None)
        gates = others
    elif SETTING in found or GATE in gates or not is_sound(release):
        return found
    elif release[:2] < _BY_GATE:
        return {**found, SETTING: True}
    else:
        gates = f"{others},{GATE}=true".lstrip(",")
    found.pop(GATES, None)
    return {**found, GATES: gates} if gates else found


def other_gates(gates: str) -> str:
    """A value of ``feature-gates``, such as ``One=true,Two=false``, without the check's gate."""
    return ",".join(g for g in gates.split(",") if g and g.partition("=")[0].strip() != GATE)
