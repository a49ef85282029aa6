"""Membership changes, sent to etcd's leader: each is safe to repeat and has a time limit.

Every function first checks whether etcd already has the change. So a killed run, or a call with a
lost answer, is simply repeated. When etcd refuses only for the moment (it has not been connected to
a member for five seconds, or a learner has not caught up), the request is repeated for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from provision import progress, wait
from provision.errors import Problem, ProvisionError, Unhealthy, UsageError
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdError, EtcdRefused
from provision.etcd.api.values import RegisteredMember
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd, NoLeader
from provision.inventory.resolved import EtcdMember

CALL_TIMEOUT = 10.0
#: Seconds in which etcd must accept a change. etcd counts a member as connected after five seconds.
ACCEPTED_WITHIN = 40.0
#: Seconds in which a learner must have caught up. A snapshot of some GB takes minutes.
CAUGHT_UP_WITHIN = 600.0
#: A learner that does not answer for so many seconds will not catch up.
SILENT_FOR = 45.0
POLL_SECONDS = 0.25

# Texts of etcd's ``rpctypes`` for refusals that end by themselves.
_PASSING = (
    "unhealthy cluster",
    "not enough started members",
    "re-configuration failed due to not enough started members",
    "too many learner members",
    "leader changed",
    "leader transferee",
)
_NOT_CAUGHT_UP = "in sync with leader"


def add_learner(etcd: Etcd, member: EtcdMember) -> None:
    """Add ``member`` to the running cluster as a learner."""

    def add(client: EtcdClient) -> None:
        if _by_url(client, member) is None:
            client.member_add([member.peer_url], learner=True)

    retry_on_leader(etcd, add)


def promote(etcd: Etcd, member: EtcdMember) -> None:
    """Wait until ``member`` has caught up, and make it a voter.

    ``etcd`` is the handle on the cluster of the voters, without ``member``. Raises
    :class:`Unhealthy` when ``member`` has not caught up within :data:`CAUGHT_UP_WITHIN`, or does
    not answer for :data:`SILENT_FOR` seconds.
    """
    with progress.waiting(f"{member.name} catches up", within=CAUGHT_UP_WITHIN):
        limit, silent = wait.Deadline(CAUGHT_UP_WITHIN), wait.Deadline(SILENT_FOR)
        while True:
            try:
                with etcd.leader(timeout=CALL_TIMEOUT) as (client, _):
                    found = _by_url(client, member)
                    if found is None:
                        raise Unhealthy(
                            f"{member.name} ({member.peer_url}) is not a member of the cluster",
                            id="member-not-joined",
                        )
                    if not found.is_learner:
                        return
                    client.member_promote(found.id)
                    return
            except EtcdRefused as error:
                if not (_passing(error) or _NOT_CAUGHT_UP in error.message):
                    raise
            except (EtcdError, NoLeader):
                pass  # no answer, or an election: the next list of members shows if it was done
            asked = wait.Deadline(SILENT_FOR)
            revision = _revision(etcd, member)
            if revision is not None:
                silent = asked
            if silent.passed or limit.passed:
                what = (
                    f"does not answer on {member.client_url} for {silent.waited:.0f} s"
                    if revision is None
                    else f"is at revision {revision} after {limit.waited:.0f} s"
                )
                where = member.place
                remedy = f"to see why: invoke logs {member.name}"
                raise Unhealthy(
                    f"{member.name} has not caught up: it stays a learner",
                    [Problem(where, what, remedy, id="member-is-learner")],
                    id="member-is-learner",
                )
            limit.pause(POLL_SECONDS)


def update(etcd: Etcd, member: EtcdMember, member_id: int, others: Collection[EtcdMember]) -> None:
    """Register the new peer URL of ``member`` in etcd. If ``member`` leads, leadership first moves
    to one of ``others``: ``member`` is cut off until it listens at the new URL."""
    move_leadership_from(etcd, member_id, others)

    def change(client: EtcdClient) -> None:
        found = next((r for r in client.member_list() if r.id == member_id), None)
        if found is not None and found.peer_urls != (member.peer_url,):
            client.member_update(member_id, [member.peer_url])

    retry_on_leader(etcd, change)


def remove(etcd: Etcd, member_id: int, staying: Collection[EtcdMember]) -> None:
    """Remove a member. If it leads, leadership first moves to one of ``staying``."""
    move_leadership_from(etcd, member_id, staying)

    def change(client: EtcdClient) -> None:
        if any(r.id == member_id for r in client.member_list()):
            client.member_remove(member_id)

    retry_on_leader(etcd, change)


def move_leadership_from(etcd: Etcd, member_id: int, staying: Collection[EtcdMember]) -> None:
    """If ``member_id`` leads, make another member lead: of the healthy members in ``staying``, the
    one with most of the log."""

    def move(client: EtcdClient) -> None:
        if client.status().member_id != member_id:
            return
        seen = health.observe(etcd)
        names = {m.name for m in staying}
        fit = [
            m.status
            for m in seen.members
            if m.healthy
            and m.status is not None
            and m.member.name in names
            and not m.status.is_learner
        ]
        if fit:
            client.move_leader(max(fit, key=lambda status: status.raft_index).member_id)

    retry_on_leader(etcd, move)


def move_leadership_off(etcd: Etcd, member: EtcdMember, others: Collection[EtcdMember]) -> None:
    """If ``member`` leads, make another member lead: of the healthy members in ``others``, the one
    with most of the log."""
    for m in health.observe(etcd).members:
        if m.member.name == member.name and m.status is not None:
            move_leadership_from(etcd, m.status.member_id, others)


def move_leadership_to(etcd: Etcd, member: EtcdMember) -> None:
    """Make ``member`` the leader, and wait until it reports this itself."""

    def move(client: EtcdClient) -> None:
        found = next((r for r in client.member_list() if r.name == member.name), None)
        if found is None:
            raise UsageError(
                f"{member.name} is not a member of the running cluster", id="member-not-joined"
            )
        if client.status().member_id != found.id:
            client.move_leader(found.id)

    retry_on_leader(etcd, move)

    def leader() -> str | None:
        return health.observe(etcd).leader

    now = wait.until(
        leader,
        lambda name: name == member.name,
        ACCEPTED_WITHIN,
        POLL_SECONDS,
        what=f"{member.name} leads",
    )
    if now != member.name:
        raise Unhealthy(
            f"{member.name} was asked to lead, but {now or 'no member'} leads",
            id="change-failed",
        )


def with_leader(etcd: Etcd, do: Callable[[EtcdClient], object]) -> None:
    """Call ``do`` with a client of the leader; repeat the call while etcd changes its leader."""
    retry_on_leader(etcd, do)


def retry_on_leader(etcd: Etcd, do: Callable[[EtcdClient], object]) -> None:
    with progress.waiting("etcd's leader", within=ACCEPTED_WITHIN):
        deadline = wait.Deadline(ACCEPTED_WITHIN)
        while True:
            try:
                with etcd.leader(timeout=CALL_TIMEOUT) as (client, _):
                    do(client)
                return
            except EtcdRefused as error:
                if not _passing(error) or deadline.passed:
                    raise
            except (EtcdError, NoLeader):
                if deadline.passed:
                    raise
            deadline.pause(POLL_SECONDS)


def _passing(error: ProvisionError) -> bool:
    return any(text in error.message for text in _PASSING)


def _by_url(client: EtcdClient, member: EtcdMember) -> RegisteredMember | None:
    return next((r for r in client.member_list() if member.peer_url in r.peer_urls), None)


def _revision(etcd: Etcd, member: EtcdMember) -> int | None:
    try:
        with etcd.member(member) as client:
            return client.status().revision
    except ProvisionError:
        return None
