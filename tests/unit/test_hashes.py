"""Whose data differ, as a function of the members' hashes. Real ones are in tests/component."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from provision.etcd.api.values import KvHash, MemberStatus
from provision.etcd.cluster import hashes, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.hashes import Comparison
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.ssh.session import Fleet
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


def looked(*revisions: int) -> ClusterHealth:
    """Three voters that serve, at these revisions."""
    members = []
    for number, revision in enumerate(revisions, 1):
        status = MemberStatus(1, number, "3.6.16", 1, 1, 1, revision, 1, 1, False, ())
        members.append(MemberHealth(builders.member(number), status=status))
    cluster = builders.etcd(*(m.member for m in members))
    return ClusterHealth(cluster, tuple(members))


def compare(
    monkeypatch: pytest.MonkeyPatch,
    looks: Sequence[ClusterHealth],
    told: Callable[[int, int], KvHash | None],
) -> Comparison:
    """The comparison when members say ``told(number, revision)``; the last look is repeated."""
    later = iter(looks[1:])

    def observe(*_: object) -> ClusterHealth:
        return next(later, looks[-1])

    def ask(_: object, voters: Sequence[MemberHealth], revision: int) -> object:
        return [told(int(m.member.name.removeprefix("infra")), revision) for m in voters]

    monkeypatch.setattr(health, "observe", observe)
    monkeypatch.setattr(hashes, "_ask", ask)
    with Fleet(1) as fleet:
        return hashes.compare(looks[0], Etcd(looks[0].cluster, fleet))


def test_a_member_that_has_lost_the_newest_revisions_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the revision that all have, the hashes are equal."""
    found = compare(monkeypatch, [looked(9, 7, 9)], lambda _, at: KvHash(5, at or 9, 2))
    assert found.differing == ("infra2",)


def test_a_member_that_is_about_to_follow_does_not_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [looked(9, 7, 9), looked(10, 8, 9), looked(11, 10, 9)]
    found = compare(monkeypatch, looks, lambda _, at: KvHash(5, at, 2))
    assert (found.equal, found.revision, found.compared) == (True, 7, 3)


def test_a_member_at_another_compacted_revision_differs_if_it_stays_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that was restored by hand before a compaction, for example."""
    found = compare(monkeypatch, [looked(9, 9, 9)], lambda n, _: KvHash(5, 9, 2 + (n == 3)))
    assert found.differing == ("infra3",)


def test_a_member_behind_what_the_others_have_compacted_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(number: int, revision: int) -> KvHash | None:
        return KvHash(5, 9, 6) if number > 1 and not revision else None

    assert compare(monkeypatch, [looked(4, 9, 9)], told).differing == ("infra1",)


def test_compacted_meanwhile_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compacted = iter([2, 3, 3, 3, 3, 3])
    found = compare(monkeypatch, [looked(9, 9, 9)], lambda _, at: KvHash(5, 9, next(compacted)))
    assert found.equal


def test_a_write_meanwhile_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest revision of each is hashed: it must be the same one."""
    looks = [looked(9, 9, 9), looked(10, 10, 10)]
    found = compare(monkeypatch, looks, lambda n, _: KvHash(n if n == 2 else 5, 10, 2))
    assert (found.revision, found.differing) == (10, ("infra2",))


def test_clients_that_write_all_the_time_are_no_reason_to_give_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each look finds the members equal, and each hash of the newest is past it."""
    count = iter(range(100, 200))
    found = compare(monkeypatch, [looked(9, 9, 9)], lambda _, at: KvHash(5, at or next(count), 2))
    assert (found.revision, found.equal, found.compared) == (9, True, 3)


def test_a_revision_that_was_compacted_is_not_asked_for_by_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """etcd 3.4 refuses it; a later one repeats an older hash, unless it was restarted since."""

    def told(number: int, revision: int) -> KvHash | None:
        return KvHash(number, 9, number) if revision else KvHash(5, 9, 9)

    assert compare(monkeypatch, [looked(9, 9, 9)], told).equal


def test_members_that_do_not_serve_count_against_a_majority() -> None:
    assert Comparison(7, {1: ("a", "b"), 2: ("c",)}, voters=5).differing == ()
    (problem,) = hashes.differ(Comparison(7, {1: ("a", "b"), 2: ("c",)}, voters=5)).problems
    assert "3 of 5 voters could be compared" in problem.remedy
