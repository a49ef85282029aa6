"""Other Alluxio clusters that a change of the members may cut off.

A member that is removed, or that moves to another address, no longer answers at its client URL. The
workers of this inventory get their new endpoints before. Workers of other clusters may have no
other endpoint, and their configuration cannot be read from here: the operator names these clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from provision.engine.plan import Gate, Step
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member.membership_diff import ChangeKind, MemberChange
from provision.host.effects import Effect
from provision.inventory.resolved import EtcdCluster, Inventory
from provision.plans.etcd.state.observe import Running

if TYPE_CHECKING:
    from provision.plans.etcd.state.other_clusters import Harm


def urls(cluster: EtcdCluster, running: Running, moves: Sequence[MemberChange]) -> dict[str, str]:
    """The client URLs of voters that answer now, and that nobody serves after ``moves``; by the
    member's name. A URL with TLS does not count: Alluxio cannot use it."""
    before = {m.name: m for m in running.cluster.members}
    then = dict(before)
    for move in moves:
        if move.kind is ChangeKind.REMOVE:
            then.pop(move.member.name, None)
        else:
            then[move.member.name] = move.member
    served = replace(cluster, members=tuple(then.values())).endpoints
    return {
        name: url
        for name, member in before.items()
        for url in replace(cluster, members=(member,)).endpoints
        if url.startswith("http:") and url not in served and _answers(name, running)
    }


def ask(
    inventory: Inventory,
    etcd: Etcd,
    steps: Sequence[Step],
    going: Mapping[str, str],
    lock_out: Sequence[str],
    *,
    agreed: bool = False,
) -> tuple[list[Step], tuple[Problem, ...]]:
    """``steps``, of which those that end one of the URLs ``going`` first ask again; and warnings
    about the clusters that ``lock_out`` names.

    Raises :class:`PreflightFailed` when another cluster has live workers, and when this cannot be
    found out, unless the operator has ``agreed``.
    """
    if not any(Effect.CLIENTS in step.effects for step in steps):
        return list(steps), ()
    from provision.plans.etcd.state import other_clusters

    harm = _harm(inventory, going)
    found = other_clusters.look(inventory, etcd)
    notes = other_clusters.require(etcd, found, harm, lock_out, agreed=agreed)

    def nobody_new() -> None:
        now = other_clusters.look(inventory, etcd)
        named = [name for name in lock_out if name in now.live]  # one may have gone meanwhile
        try:
            other_clusters.require(etcd, now, harm, named, agreed=agreed)
        except PreflightFailed as error:
            raise Unhealthy(error.message, error.problems, id=error.id) from error

    asking = Gate("etcd shows no other cluster that this cuts off", nobody_new)
    return [_after(asking, s) if Effect.CLIENTS in s.effects else s for s in steps], notes


def _after(gate: Gate, step: Step) -> Step:
    """``step``, which begins when ``gate`` holds, too: workers may start while the plan runs."""
    first = step.before
    if first is None:
        return replace(step, before=gate)

    def check() -> None:
        first.check()
        gate.check()

    return replace(step, before=Gate(f"{first.title}; {gate.title}", check))


def _answers(name: str, running: Running) -> bool:
    """Whether clients may reach the member. It may run, and nobody can ask it from here."""
    seen = next((m for m in running.health.members if m.member.name == name), None)
    return seen is not None and (seen.status is not None or seen.refused or seen.no_way)


def _harm(inventory: Inventory, going: Mapping[str, str]) -> Harm:
    from provision.plans.etcd.state.other_clusters import Harm, word_of

    known = " and ".join(dict.fromkeys(going.values()))
    return Harm(
        f"that lose etcd if they know only {known}",
        "give them the other endpoints, then add --lock-out {}",
        "--lock-out",
        word=word_of(inventory),
    )
