"""Who comes and goes, in which order, and what is refused. No host, no etcd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.etcd.api.values import RegisteredMember
from provision.etcd.member import membership_diff
from provision.etcd.member.membership_diff import ChangeKind, MemberChange
from provision.inventory.resolved import EtcdMember
from tests.unit.builders import etcd, member


def registered(m: EtcdMember, number: int, **changed: object) -> RegisteredMember:
    values = {
        "id": number,
        "name": m.name,
        "peer_urls": (m.peer_url,),
        "client_urls": (m.client_url,),
        "is_learner": False,
    }
    return RegisteredMember(**{**values, **changed})  # type: ignore[arg-type]


A, B, C, D = (member(n) for n in range(1, 5))
RUNNING = [registered(m, n) for n, m in enumerate((A, B, C), 1)]


def names(moves: object) -> list[tuple[str, str]]:
    assert isinstance(moves, list | tuple)
    return [(m.kind.value, m.member.name) for m in moves]


def test_a_cluster_as_declared_has_no_moves() -> None:
    cluster = etcd(A, B, C)
    seen = membership_diff.member_list(cluster, RUNNING)
    assert seen.voters == (A, B, C)
    assert membership_diff.additions(cluster.members, seen) == []
    assert membership_diff.updates(cluster.members, seen) == []
    assert membership_diff.undeclared_members(cluster, seen) == []


def test_members_come_before_members_that_work_go() -> None:
    cluster = etcd(A, B, D)
    seen = membership_diff.member_list(cluster, RUNNING)
    moves = membership_diff.removals(cluster, membership_diff.undeclared_members(cluster, seen))
    moves += membership_diff.additions(cluster.members, seen)
    well = {A.name, B.name, C.name}
    assert names(membership_diff.ordered(moves, well)) == [("add", D.name), ("remove", C.name)]
    # etcd adds nobody while a voter is away.
    assert names(membership_diff.ordered(moves, well - {C.name})) == [
        ("remove", C.name),
        ("add", D.name),
    ]


def test_a_member_that_was_added_and_never_started_is_known_by_its_peer_url() -> None:
    cluster = etcd(A, B, C, D)
    added = registered(D, 9, name="", client_urls=(), is_learner=True)
    seen = membership_diff.member_list(cluster, [*RUNNING, added])
    assert membership_diff.additions(cluster.members, seen) == [MemberChange(ChangeKind.ADD, D, 9)]
    assert membership_diff.undeclared_members(cluster, seen) == []
    assert seen.voters == (A, B, C)


def test_a_started_learner_is_still_to_be_promoted_and_goes_before_new_ones() -> None:
    e = member(0)
    cluster = etcd(A, B, C, e, D)
    seen = membership_diff.member_list(cluster, [*RUNNING, registered(D, 9, is_learner=True)])
    moves = membership_diff.ordered(
        membership_diff.additions(cluster.members, seen), {A.name, B.name, C.name}
    )
    assert moves == (MemberChange(ChangeKind.ADD, D, 9), MemberChange(ChangeKind.ADD, e))


def test_a_learner_that_nobody_declares_is_removed_first() -> None:
    cluster = etcd(A, B, C)
    stray = registered(D, 9, name="", client_urls=(), is_learner=True)
    seen = membership_diff.member_list(cluster, [*RUNNING, stray])
    moves = membership_diff.removals(cluster, membership_diff.undeclared_members(cluster, seen))
    assert [(m.kind, m.id, m.member.name) for m in moves] == [(ChangeKind.REMOVE, 9, "9")]


def test_an_undeclared_member_is_reached_at_its_peer_address() -> None:
    cluster = etcd(A, B)
    seen = membership_diff.member_list(cluster, RUNNING)
    gone = seen.voters[2]
    assert (gone.name, gone.address, gone.machine.host) == (C.name, C.address, C.address)
    assert "not in the inventory" in gone.machine.where


def test_another_address_is_an_update_at_the_registered_one_until_then() -> None:
    moved = member(3, address="10.0.0.33")
    cluster = etcd(A, B, moved)
    seen = membership_diff.member_list(cluster, RUNNING)
    assert membership_diff.updates(cluster.members, seen) == [
        MemberChange(ChangeKind.UPDATE, moved, 3)
    ]
    assert seen.voters[2].address == C.address
    assert seen.voters[2].machine == moved.machine


def test_the_holder_of_a_peer_url_is_found_under_its_other_name() -> None:
    renamed = member(3, name="other")
    seen = membership_diff.member_list(etcd(A, B, renamed), RUNNING)
    holder = seen.holder(renamed)
    assert holder is not None
    assert holder.name == C.name


@pytest.mark.parametrize(
    ("healthy", "moves", "why"),
    [
        ("123", [MemberChange(ChangeKind.ADD, D)], ""),
        (
            "12",
            [MemberChange(ChangeKind.ADD, D)],
            "infra4 cannot be added while infra3 is not healthy",
        ),
        ("12", [MemberChange(ChangeKind.REMOVE, C, 3), MemberChange(ChangeKind.ADD, D)], ""),
        (
            "12",
            [MemberChange(ChangeKind.REMOVE, B, 2)],
            "without infra2, 1 of 2 voters would be healthy",
        ),
        (
            "1",
            [MemberChange(ChangeKind.REMOVE, C, 3)],
            "only 1 of 3 voters is healthy: without a quorum",
        ),
        ("12", [MemberChange(ChangeKind.UPDATE, C, 3)], ""),
        ("12", [MemberChange(ChangeKind.UPDATE, B, 2)], "infra2 cannot be restarted while infra3"),
        (
            "123",
            [MemberChange(ChangeKind.REMOVE, m, 1) for m in (A, B, C)],
            "infra3 is the last voter",
        ),
    ],
)
def test_obstacle(healthy: str, moves: list[MemberChange], why: str) -> None:
    voters = {A.name, B.name, C.name}
    said = membership_diff.obstacle(voters, {f"infra{n}" for n in healthy}, moves)
    assert said.startswith(why)
    assert bool(said) == bool(why)


def test_working_members_are_replaced_one_by_one() -> None:
    """Of three, the data would be on one host alone if two went before the first came again."""
    gone = [MemberChange(ChangeKind.REMOVE, m, n) for n, m in ((2, B), (3, C))]
    come = [MemberChange(ChangeKind.ADD, m) for m in (B, C, D)]
    well = {A.name, B.name, C.name}
    assert names(membership_diff.ordered([*gone, *come], well)) == [
        ("add", D.name),
        ("remove", B.name),
        ("add", B.name),
        ("remove", C.name),
        ("add", C.name),
    ]
    # A dead one goes before anybody comes.
    assert names(membership_diff.ordered([*come, *gone], well - {C.name})) == [
        ("remove", C.name),
        ("add", C.name),
        ("add", D.name),
        ("remove", B.name),
        ("add", B.name),
    ]


NUMBERS = st.sets(st.integers(1, 7), min_size=1)


@given(NUMBERS, NUMBERS, st.sets(st.integers(1, 7)))
def test_no_order_that_is_let_through_ever_lacks_a_quorum(
    running: set[int], wanted: set[int], sick: set[int]
) -> None:
    cluster = etcd(*(member(n) for n in sorted(wanted)))
    seen = membership_diff.member_list(cluster, [registered(member(n), n) for n in sorted(running)])
    voters = {v.name for v in seen.voters}
    healthy = voters - {f"infra{n}" for n in sick}
    moves = membership_diff.ordered(
        [
            *membership_diff.removals(cluster, membership_diff.undeclared_members(cluster, seen)),
            *membership_diff.additions(cluster.members, seen),
        ],
        healthy,
    )
    if membership_diff.obstacle(voters, healthy, moves):
        return
    for move in moves:
        assert len(healthy) >= membership_diff.quorum(len(voters))
        change = set.add if move.kind is ChangeKind.ADD else set.discard
        change(voters, move.member.name)
        healthy = healthy | {move.member.name} if move.kind is ChangeKind.ADD else healthy & voters
        assert len(healthy) >= membership_diff.quorum(len(voters))
    assert voters == {m.name for m in cluster.members}
