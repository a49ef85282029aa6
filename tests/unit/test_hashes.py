"""Whose data differ, as a function of the members' hashes. Real ones are in tests/component."""

from __future__ import annotations

import pytest

from provision.etcd import hashes
from provision.etcd.hashes import Comparison
from provision.etcd.health import MemberHealth
from provision.etcd.values import KvHash, MemberStatus
from tests.unit import builders


@pytest.mark.parametrize(
    ("by_hash", "differing"),
    [
        ({}, ()),
        ({1: ("a", "b", "c")}, ()),
        ({1: ("a", "b"), 2: ("c",)}, ("c",)),
        ({1: ("a",), 2: ("b",)}, ()),  # no majority: nobody knows which is right
        ({1: ("a", "b"), 2: ("c", "d")}, ()),
        ({1: ("a", "b", "c"), 2: ("d",), 3: ("e",)}, ("d", "e")),
    ],
)
def test_the_majority_is_right(
    by_hash: dict[int, tuple[str, ...]], differing: tuple[str, ...]
) -> None:
    found = Comparison(7, by_hash)
    assert found.differing == differing
    assert found.equal is (len(by_hash) < 2)
    if not found.equal:
        (problem,) = hashes.differ(found).problems
        assert problem.id == "etcd-data-differ"
        assert all(f"replace-member {name}" in problem.remedy for name in differing)
        assert ("no majority" in problem.remedy) is not bool(differing)


def voter(number: int, release: str) -> MemberHealth:
    status = MemberStatus(1, number, release, 1, 1, 1, 9, 1, 1, False, ())
    return MemberHealth(builders.member(number), status=status)


def test_members_of_two_releases_are_not_compared_with_each_other() -> None:
    voters = [voter(1, "3.5.35"), voter(2, "3.6.16"), voter(3, "3.6.16")]
    told = [KvHash(number, 9, 3) for number in (1, 2, 2)]
    assert hashes._worst(9, voters, told).equal
    told = [KvHash(number, 9, 3) for number in (1, 2, 3)]
    assert hashes._worst(9, voters, told).by_hash == {2: ("infra2",), 3: ("infra3",)}
