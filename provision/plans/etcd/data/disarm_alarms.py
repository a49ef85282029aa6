"""``disarm-alarms``: disarms an alarm when its cause is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from provision.engine.plan import Action, Plan, Step
from provision.errors import Problem, Unhealthy
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth
from provision.plans.etcd.data import alarms, defrag_etcd
from provision.text import share, size


def plan(etcd: Etcd) -> Plan:
    """Disarm every alarm whose cause is gone. Empty when there is no alarm.

    Raises :class:`Unhealthy` with the remedies for the other alarms: see :func:`alarms.unsolved`.
    """
    cluster = etcd.cluster
    seen = health.observe(etcd, quotas=True)
    raised = alarms.standing(etcd)
    kinds = sorted({alarm.kind for alarm in raised})
    problems: list[Problem] = []
    calls: list[Action] = []
    for kind in kinds:
        if unsolved := alarms.unsolved(seen, etcd, kind):
            problems += unsolved
            continue
        named = [alarms.whose(a, seen) for a in raised if a.kind == kind]
        call = alarms.disarm(etcd, kind)
        calls.append(replace(call, what=f"disarm {kind} ({_cause(seen, kind)}; {_named(named)})"))
    if problems:
        raise Unhealthy(
            f"{share(len(kinds) - len(calls), len(kinds), 'alarm')} not solved yet",
            problems,
            id="alarm-raised",
        )
    steps = (Step("disarm alarms", calls=tuple(calls)),) if calls else ()
    guards = tuple(m.machine for m in cluster.members)
    return Plan("disarm-alarms", cluster.name, steps, guards=guards)


def _cause(seen: ClusterHealth, kind: str) -> str:
    if kind == "CORRUPT":
        return "the data of all members are the same"
    fullest = max(defrag_etcd.usage(seen), key=lambda u: u.size / u.quota if u.quota else 0.0)
    quota = f" of {size(fullest.quota)}" if fullest.quota else ""
    return f"the fullest database has {size(fullest.size)}{quota}"


def _named(names: Sequence[str]) -> str:
    return f"the alarm names {' and '.join(names)}"
