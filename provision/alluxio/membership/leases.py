"""Leases that have expired, but are still in etcd; and the wait for a lease to end.

etcd's leader removes an expired lease, and the keys under it, within a second. When the removal
fails (etcd issues 9935 and 13975: under load, or at a change of leader), lease and keys stay for
hours. Alluxio looks only for the key, so for Alluxio the worker is live.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from provision import progress, wait
from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import RegistrationSnapshot
from provision.alluxio.worker import desired
from provision.dataclass import dataclass
from provision.errors import Problem, Unhealthy
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdError
from provision.etcd.api.values import LeaseTime
from provision.etcd.cluster.handle import Etcd
from provision.inventory.resolved import AlluxioCluster
from provision.text import counted, verb

#: How many leases one look asks for, and how many seconds it may take: each lease needs a request.
#: 10,000 requests took 2 s with etcd 3.6 on two cores.
LIMIT, SECONDS = 10_000, 3.0
#: From more leases on, etcd's leader is asked first which leases have expired, and then for those
#: leases, so many at a time.
FEW = 64
#: Seconds that etcd normally takes to remove a lease after its end.
REMOVAL_SECONDS = 3
#: So many seconds after its end, a lease counts as one that etcd does not remove. etcd removes at
#: most 1,000 leases in a second.
STUCK_SECONDS = 15
POLL_SECONDS = 0.25


class Expired(NamedTuple):
    """The expired leases of live keys.

    ``since``: the seconds since the end, by lease. ``asked`` of ``live`` keys were checked.
    """

    since: Mapping[int, int]
    asked: int
    live: int


NONE = Expired({}, 0, 0)
#: The value for a lease that could not be asked for, and for a key without a lease.
UNKNOWN = LeaseTime(0, 0)


def expired(
    etcd: Etcd,
    client: EtcdClient,
    seen: RegistrationSnapshot,
    *,
    limit: int = LIMIT,
    seconds: float = SECONDS,
) -> Expired:
    """Ask for the leases of the live keys, with ``client`` or with one of the leader. Never raises
    for etcd: after a failed call, no lease counts as asked for.

    Where the leader does not tell which leases have expired, each is asked for. The oldest keys
    come first, because a worker that registers again writes a new key.
    """
    by_age = sorted(seen.live.values(), key=lambda entry: entry.key.mod_revision)
    leases = [*dict.fromkeys(entry.key.lease for entry in by_age if entry.key.lease)]
    deadline = wait.Deadline(seconds)
    try:
        if len(leases) > FEW and (ended := _told(etcd, client, leases, deadline)) is not None:
            return ended
        times = client.lease_times(leases[:limit], deadline.left)
    except EtcdError:
        times = {}
    return Expired(_late(times), len(times), len(leases))


def _told(
    etcd: Etcd, client: EtcdClient, leases: Sequence[int], deadline: wait.Deadline
) -> Expired | None:
    """As :func:`expired`, when the leader tells which leases have expired; else None.

    Behind the first :data:`FEW` leases of which none is late, no lease is late: etcd does not renew
    a lease that has expired (``lessor.Renew``).
    """
    late: dict[int, int] = {}
    try:
        with _leader(etcd, client, deadline) as leader:
            order = leader.leases_by_end() if leader is not None else None
            if leader is None or order is None:
                return None
            wanted = set(leases)
            left = [lease for lease in order if lease in wanted]
            while left and not deadline.passed:
                times = leader.lease_times(left[:FEW], deadline.left)
                if len(times) < len(left[:FEW]):
                    break
                del left[:FEW]
                if not (found := _late(times)):
                    left.clear()
                late |= found
    except (EtcdError, Unhealthy):
        return None
    return Expired(late, len(leases) - len(left), len(leases))


@contextlib.contextmanager
def _leader(etcd: Etcd, client: EtcdClient, deadline: wait.Deadline) -> Iterator[EtcdClient | None]:
    """A client of the leader; None when no member of the inventory leads.

    ``client``'s own member names it. :meth:`Etcd.leader` would look at every member's health first.
    """
    status = client.status()
    if status.is_leader:
        yield client
        return
    names = {m.id: m.name for m in client.member_list()}
    name = names.get(status.leader)
    member = next((m for m in etcd.cluster.members if m.name == name), None)
    if member is None:
        yield None
        return
    with etcd.member(member, timeout=deadline.left) as leader:
        yield leader


def _late(times: Mapping[int, LeaseTime]) -> dict[int, int]:
    """The seconds since the end of the leases that etcd should have removed by now."""
    since = {lease: time.expired_since for lease, time in times.items()}
    return {lease: s for lease, s in since.items() if s > REMOVAL_SECONDS}


def unasked(found: Expired) -> Problem | None:
    """The warning that not every lease was asked for; None when all were."""
    if found.asked >= found.live:
        return None
    return Problem(
        "etcd",
        f"etcd answered for {found.asked} of {counted(found.live, 'lease')} (the leases of the "
        "oldest keys); it is not known whether the other leases have expired",
        "etcd was slow, or did not answer: see the members' read times",
        "warning",
        id="leases-not-asked",
    )


def stuck(worker_id: str, since: int, remedy: str) -> Unhealthy:
    """The error for a lease that etcd does not remove."""
    return Unhealthy(
        f"{worker_id}: its lease expired {since} s ago, and etcd has not removed it; no "
        f"registration was removed; {remedy}",
        id="lease-not-removed",
    )


@dataclass(frozen=True, slots=True)
class Wait:
    """The wait until the live keys of stopped workers are gone.

    ``which`` picks, from the live ids, the ids to wait for. ``remedy`` is the remedy for a lease
    that etcd does not remove.
    """

    alluxio: AlluxioCluster
    etcd: Etcd
    which: Callable[[RegistrationSnapshot], Iterable[str]]
    remedy: str

    @property
    def seconds(self) -> int:
        """How long it waits at most: a new etcd leader gives every lease its whole time again."""
        return 2 * self.alluxio.failure_detection_timeout + 15

    def __call__(self) -> None:
        """Wait until none of the ids is live. Raises :class:`Unhealthy` with the reason."""
        limit = self.seconds
        with progress.waiting("the leases of stopped workers", within=limit) as shown:
            deadline = wait.Deadline(limit)
            while True:
                late = deadline.passed
                found: dict[str, LeaseTime] = {}
                try:
                    if not (found := self._live()):
                        return
                except Unhealthy:  # etcd may change its leader meanwhile
                    if late:
                        raise
                shown.left(found)
                for worker_id, lease in found.items():
                    if lease.expired_since > STUCK_SECONDS:
                        raise stuck(worker_id, lease.expired_since, self.remedy)
                if late:
                    raise Unhealthy(
                        f"{', '.join(found)} {verb(found)} live after {limit} s: another process "
                        f"keeps {verb(found, 'its lease', 'their leases')} alive; nothing was "
                        "removed from etcd",
                        id="worker-not-stopped",
                    )
                deadline.pause(POLL_SECONDS)

    def _live(self) -> dict[str, LeaseTime]:
        """The ids that are still live, each with etcd's answer about its lease."""
        login = desired.login(self.alluxio)
        with self.etcd.as_worker(login).any() as client:
            seen = registrations.read(client, self.alluxio.name)
            leases = {i: seen.live[i].key.lease for i in self.which(seen)}
            times = client.lease_times([n for n in leases.values() if n], SECONDS)
        return {i: times.get(n, UNKNOWN) for i, n in leases.items()}
