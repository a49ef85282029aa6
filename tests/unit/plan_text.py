"""A plan as text: each step with its gates, its hosts, and what its calls would do.

:func:`spell` replaces gates and changes of the membership with ones that say what they would ask
and do. Nothing is asked, and nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest

from provision.engine.plan import Action, Gate, Plan, Step
from provision.etcd.cluster import gates, reconfigure
from provision.etcd.cluster.handle import Etcd
from provision.inventory.resolved import EtcdMember
from provision.plans.etcd import before_3_7, upgrade_etcd
from provision.plans.etcd.data import alarms, backup_etcd

Done = list[str]


class _Client:
    """Says which calls it gets."""

    def __init__(self, done: Done) -> None:
        self._done = done

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*given: object, **named: object) -> None:
            said = [*map(_shown, given), *(f"{k}={_shown(v)}" for k, v in named.items())]
            self._done.append(f"{name} {' '.join(said)}".strip())

        return call


def _shown(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def who(members: Iterable[EtcdMember]) -> str:
    return "+".join(m.name for m in members)


def _never() -> None:
    raise AssertionError("a gate was asked")


def spell(monkeypatch: pytest.MonkeyPatch) -> Done:
    """Replace gates and calls. Returns the list of what calls would have done."""
    done: Done = []

    def all_healthy(
        etcd: Etcd, member: EtcdMember | None = None, standing: Collection[str] = ()
    ) -> Gate:
        title = f"healthy {who(etcd.cluster.members)}"
        title += f" through {member.name}" if member else ""
        title += f" while {'+'.join(sorted(standing))}" if standing else ""
        return Gate(title, _never)

    def all_equal(healthy: Gate, etcd: Etcd) -> Gate:
        return Gate(f"{healthy.title}, equal {who(etcd.cluster.members)}", _never)

    def others(etcd: Etcd, member: EtcdMember) -> Gate:
        return Gate(f"{who(etcd.cluster.members)} without {member.name}", _never)

    def undisturbed(etcd: Etcd, member: EtcdMember | None, release: str = "") -> Gate:
        name = member.name if member else "nobody"
        said = f"{who(etcd.cluster.members)} without {name}"
        return Gate(said + (f", data for {release}" if release else ""), _never)

    def runs(etcd: Etcd, member: EtcdMember, version: str, *, whole: bool, back: str = "") -> Gate:
        said = f"{who(etcd.cluster.members)} healthy, {member.name} runs {version}"
        said += ", all work by it" if whole else ""
        return Gate(said + (f" (back: {back})" if back else ""), _never)

    def written(etcd: Etcd, member: EtcdMember) -> Gate:
        return Gate(f"{who(etcd.cluster.members)} healthy, {member.name} wrote", _never)

    def changed(name: str) -> Callable[..., None]:
        def do(etcd: Etcd, *given: Any) -> None:
            said = [f"{name} in {who(etcd.cluster.members)}:"]
            for g in given:
                if isinstance(g, EtcdMember):
                    said.append(f"{g.name} {g.peer_url}")
                else:
                    said.append(str(g) if isinstance(g, int) else f"others {who(g)}")
            done.append(" ".join(said))

        return do

    def with_leader(etcd: Etcd, do: Callable[[Any], object]) -> None:
        done.append(f"leader of {who(etcd.cluster.members)}:")
        do(_Client(done))

    monkeypatch.setattr(gates, "all_healthy", all_healthy)
    monkeypatch.setattr(gates, "all_equal", all_equal)
    monkeypatch.setattr(gates, "require_others_healthy", others)
    monkeypatch.setattr(upgrade_etcd, "_undisturbed", undisturbed)
    monkeypatch.setattr(upgrade_etcd, "_runs", runs)
    monkeypatch.setattr(before_3_7, "snapshot_written", written)
    for name in (
        *("add_learner", "promote", "update", "remove"),
        *("move_leadership_off", "move_leadership_to"),
    ):
        monkeypatch.setattr(reconfigure, name, changed(name))
    monkeypatch.setattr(reconfigure, "with_leader", with_leader)
    monkeypatch.setattr(
        backup_etcd,
        "take",
        lambda etcd, into, **_: done.append(
            f"back up {who(etcd.cluster.members)} of {etcd.cluster.version} into {into}"
        ),
    )

    def disarm(etcd: Etcd, kind: str) -> Action:
        said = f"disarm {kind} of {who(etcd.cluster.members)}"
        return Action(f"disarm {kind}", lambda: done.append(said))

    monkeypatch.setattr(alarms, "disarm", disarm)
    return done


def text(plan: Plan | Iterable[Step]) -> list[str]:
    """Each step's title, then by one space each: gate before, hosts, calls, gate after."""
    found: list[str] = []
    for step in plan.steps if isinstance(plan, Plan) else plan:
        found.append(step.title)
        if step.before is not None:
            found.append(f" before: {step.before.title}")
        found += [f" {h.name}: {', '.join(c.what for c in h.changes)}" for h in step.hosts]
        found += [f" call: {c.what}" for c in step.calls]
        if step.after is not None:
            found.append(f" after: {step.after.title}")
    return found


def called(plan: Plan | Iterable[Step], done: Done) -> list[str]:
    """What all calls of the plan do, in order."""
    for step in plan.steps if isinstance(plan, Plan) else plan:
        for call in step.calls:
            call.do()
    found = list(done)
    done.clear()
    return found
