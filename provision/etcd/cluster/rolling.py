"""The step that changes one member of a running cluster, between two gates."""

from __future__ import annotations

from provision.engine.plan import Gate, HostChanges, Step
from provision.etcd.cluster import gates
from provision.etcd.cluster.handle import Etcd
from provision.host.diff import Change
from provision.inventory.resolved import EtcdMember


def rolling_step(
    etcd: Etcd,
    member: EtcdMember,
    title: str,
    todo: tuple[Change, ...],
    *,
    before: Gate | None = None,
    after: Gate | None = None,
) -> Step:
    """Change ``member`` while the others serve.

    Without ``before``, the others must be healthy before the change. Without ``after``, every
    member must be healthy after it, and ``member`` must take a quorum write. ``etcd`` is the handle
    on all members that count for the quorum.
    """
    return Step(
        title,
        (HostChanges(member.name, member.machine, todo),),
        before=before or gates.require_others_healthy(etcd, member),
        after=after or gates.all_healthy(etcd, member),
    )
