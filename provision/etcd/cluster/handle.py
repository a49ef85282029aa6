"""The handle on an etcd cluster: clients of its members, and of those that serve and lead.

A command makes one handle. Everything that asks etcd takes it: health, gates, waits, membership
changes. During a plan the cluster changes (members come and go, and the guard finds out which
cluster it is): :meth:`Etcd.with_cluster` makes the handle on the changed cluster.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from provision.errors import Problem, Unhealthy
from provision.etcd.api.client import DEFAULT_TIMEOUT, EtcdClient
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import Login
from provision.etcd.cluster import health
from provision.etcd.cluster.reach import Reach, Route
from provision.inventory.resolved import EtcdCluster, EtcdMember

T = TypeVar("T")


class NoLeader(Unhealthy):
    """No member reports that it leads: there is an election, or no quorum."""


@dataclass(frozen=True, slots=True, eq=False)
class Etcd(Reach):
    """A handle on ``cluster``. Safe to use from several threads.

    Handles made from it share what was learned about the members: which addresses are blocked from
    here, the tokens of logins, and which member serves. A serving member counts only for handles
    whose cluster has this member, and is the same established cluster.
    """

    def with_cluster(self, cluster: EtcdCluster) -> Etcd:
        """The handle on the changed ``cluster``."""
        return replace(self, cluster=cluster)

    def as_worker(self, login: Login | None) -> Etcd:
        """The handle with a worker's ``login``; None: with this tool's own login."""
        return replace(self, login=login)

    @contextlib.contextmanager
    def any(self, *, timeout: float = DEFAULT_TIMEOUT) -> Iterator[EtcdClient]:
        """A client of the first member that serves linearizable reads; ``timeout`` (seconds) limits
        each call.

        All members are asked at the same time, so a member that hangs costs no time. The choice is
        kept until a call fails. Raises :class:`Unhealthy` with every member's problem when none
        serves.
        """
        with contextlib.ExitStack() as stack:
            client = None
            if (kept := self.learned.serving(self.cluster)) is not None:
                member, how = kept
                with contextlib.suppress(EtcdUnreachable):
                    client = stack.enter_context(self.member(member, timeout=timeout, how=how))
            if client is None:
                member, how = self._first_serving(timeout)
                self.learned.note_serving(self.cluster, member, how)
                client = stack.enter_context(self.member(member, timeout=timeout, how=how))
            try:
                yield client
            except EtcdUnreachable as error:
                self.learned.forget_serving(self.cluster)
                if error.reason is Reason.ODD:
                    self.learned.distrust(member)
                raise

    def read(self, work: Callable[[EtcdClient], T], *, timeout: float = DEFAULT_TIMEOUT) -> T:
        """What ``work`` reads with a client of a member that serves. When that member answers as
        etcd never does, another one is asked; with no other one, this is the error."""
        left = len(self.cluster.members)
        while True:
            left -= 1
            try:
                with self.any(timeout=timeout) as client:
                    return work(client)
            except EtcdUnreachable as error:
                if error.reason is not Reason.ODD or left < 1:
                    raise

    @contextlib.contextmanager
    def leader(
        self, *, timeout: float = DEFAULT_TIMEOUT
    ) -> Iterator[tuple[EtcdClient, EtcdMember]]:
        """A client of the leader, and the leader; ``timeout`` (seconds) limits each call. Raises
        :class:`NoLeader` without a leader."""
        seen = health.observe(self)
        for m in seen.members:
            if m.status is not None and m.status.is_leader:
                with self.member(m.member, timeout=timeout, how=m.how) as client:
                    yield client, m.member
                return
        raise NoLeader("the cluster has no leader", seen.problems, id="quorum-lost")

    def close(self) -> None:
        """Forget what was learned, also for the handles made from this one. Clients are closed by
        their own contexts, ``fleet`` by its owner."""
        self.learned.clear()

    def _first_serving(self, timeout: float) -> tuple[EtcdMember, Route]:
        sick: dict[str, Sequence[Problem]] = {}
        odd: list[tuple[EtcdMember, Route]] = []
        with contextlib.closing(health.observing(self, timeout=timeout)) as seen:
            for m in seen:
                if m.healthy and m.how is not None:
                    if not self.learned.is_odd(m.member):
                        return m.member, m.how
                    odd.append((m.member, m.how))
                sick[m.member.name] = health.member_problems(self.cluster, m)
        if odd:
            return odd[0]
        # The answers come in any order. The inventory's order is the same in every run.
        problems = [p for m in self.cluster.members for p in sick.get(m.name, ())]
        raise Unhealthy("no etcd member serves reads", problems, id="quorum-lost")
