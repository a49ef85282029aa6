"""A change of a cluster's membership type: the notes before it, and the keys left in etcd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provision.alluxio.membership.registrations import RegistrationSnapshot as Registrations
from provision.alluxio.worker import membership_switch
from provision.errors import Problem
from provision.host.facts import HostFacts
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Machine, MembershipType

#: Ids that a note lists.
SHOWN = 8


def unused(alluxio: AlluxioCluster, seen: Registrations) -> Problem | None:
    """The permanent keys that ``alluxio``'s membership type does not use, named; or None."""
    if alluxio.membership.permanent_keys or not seen.authorized:
        return None
    ids = list(seen.authorized)
    keys = f"{len(ids)} permanent key{'' if len(ids) == 1 else 's'}"
    return Problem(
        "etcd",
        f"{keys} below /DHT/{alluxio.name}/AUTHORIZED/ "
        f"{'is' if len(ids) == 1 else 'are'} of no use with membership {alluxio.membership}: "
        f"{_listed(ids)}",
        "keep them for a way back to ETCD, or forget them one by one: invoke forget-worker ID",
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
        count = f"{len(names)} worker{'' if len(names) == 1 else 's'}"
        what = f"membership changes from {kind} to {alluxio.membership} on {count}"
        what += f"; until the last is restarted, {_meanwhile(kind, alluxio.membership)}"
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
        what = f"{_listed(others)} are left out of this run, and keep what they have"
        remedy = "run start-workers for them, too: a cluster wants one membership type"
        found.append(
            Problem("alluxio.membership", what, remedy, "warning", id="membership-changing")
        )
    if found and left is not None and (problem := unused(alluxio, left)):
        found.append(problem)
    return tuple(found)


def _meanwhile(before: MembershipType, after: MembershipType) -> str:
    if before.in_etcd and after.in_etcd:
        return "all of them keep their live keys in etcd, so both kinds see every worker"
    if after.in_file:
        return (
            "those restarted see all of conf/workers, the others see in etcd only who has not "
            "been restarted, and in the end nobody"
        )
    return (
        "those restarted see in etcd only one another, the others see all of conf/workers, and "
        "each kind looks for the same file on other workers, so caches fill anew"
    )


def _remedy(before: MembershipType, after: MembershipType) -> str:
    if before.in_etcd and after.in_etcd:
        return "give application hosts the new type when it is over: invoke render-client-config"
    if after.in_file:
        return (
            "give application hosts the new configuration first (invoke render-client-config): "
            "caches fill anew, for ids are made of addresses then"
        )
    return "give application hosts the new configuration when it is over: render-client-config"
