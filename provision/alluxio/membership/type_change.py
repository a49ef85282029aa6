"""A change of a cluster's membership type: the notes before it, and the keys left in etcd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provision.alluxio.membership.registrations import RegistrationSnapshot as Registrations
from provision.alluxio.worker import membership_switch
from provision.errors import Problem
from provision.host.facts import HostFacts
from provision.inventory.membership_type import MembershipType
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Machine
from provision.text import counted

#: Ids that a note lists.
SHOWN = 8


def unused(alluxio: AlluxioCluster, seen: Registrations) -> Problem | None:
    """The permanent keys that ``alluxio``'s membership type does not use, named; or None."""
    if alluxio.membership.permanent_keys or not seen.authorized:
        return None
    ids = list(seen.authorized)
    keys = counted(len(ids), "permanent key")
    return Problem(
        "etcd",
        f"{keys} below /DHT/{alluxio.name}/AUTHORIZED/ {'is' if len(ids) == 1 else 'are'} not "
        f"used with membership {alluxio.membership}: {_listed(ids)}",
        "keep them if you may go back to ETCD, or remove each with invoke forget-worker ID",
        "warning",
        id="registrations-unused",
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def notes(
    alluxio: AlluxioCluster,
    workers: Sequence[AlluxioWorker],
    facts: Mapping[Machine, HostFacts],
    left: Registrations | None,
) -> tuple[Problem, ...]:
    """Notes for the operator before the plan changes the type of ``workers``.

    ``left``: the cluster's registrations in etcd, if they could be read.
    """
    found: list[Problem] = []
    for kind, names in membership_switch.away(alluxio, workers, facts).items():
        count = counted(len(names), "worker")
        what = f"membership changes from {kind} to {alluxio.membership} on {count}"
        what += f"; until the last worker is restarted, {_meanwhile(kind, alluxio.membership)}"
        found.append(
            Problem(
                "alluxio.membership",
                what,
                _remedy(kind, alluxio.membership),
                "warning",
                id="membership-changing",
            )
        )
    others = [w.name for w in alluxio.workers if w not in workers]
    if found and others:
        what = f"{_listed(others)} are not in this run, and keep their membership type"
        remedy = (
            "run start-workers for them, too: all workers of a cluster need the same "
            "membership type"
        )
        found.append(
            Problem("alluxio.membership", what, remedy, "warning", id="membership-changing")
        )
    if found and left is not None and (problem := unused(alluxio, left)):
        found.append(problem)
    return tuple(found)


def _meanwhile(before: MembershipType, after: MembershipType) -> str:
    if before.in_etcd and after.in_etcd:
        return "all workers keep their live keys in etcd, so workers of both types see every worker"
    # A file has all workers from the start; elsewhere each worker adds itself when it starts.
    new = "all of" if after.in_file else "only the restarted workers in"
    old = f"only the workers in {before.place} that are not restarted yet"
    if before.in_file:
        old = f"all of {before.place}"
    seen = f"restarted workers see {new} {after.place}; the others see {old}"
    if after.in_file:
        return seen
    return (
        f"{seen}; the two types look for the same file on different workers, so caches fill again"
    )


def _remedy(before: MembershipType, after: MembershipType) -> str:
    if before.in_etcd and after.in_etcd:
        return (
            "when all workers are restarted, give application hosts the new type: invoke "
            "render-client-config"
        )
    if after.in_file:
        return (
            "give application hosts the new configuration first (invoke render-client-config): "
            f"caches fill again, because with {after} Alluxio makes worker ids from addresses"
        )
    return (
        "when all workers are restarted, give application hosts the new configuration: "
        "invoke render-client-config"
    )
