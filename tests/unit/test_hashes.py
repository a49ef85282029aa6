"""Whose data differ, as a function of the members' hashes. Real ones are in tests/component."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from provision.errors import PreflightFailed, Unhealthy
from provision.etcd.api.values import KvHash, MemberStatus, RegisteredMember
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

    def observe(etcd: Etcd) -> ClusterHealth:
        assert etcd.cluster is looks[0].cluster
        return next(later, looks[-1])

    def ask(etcd: Etcd, voters: Sequence[MemberHealth], revision: int) -> object:
        assert etcd.cluster is looks[0].cluster
        return [told(int(m.member.name.removeprefix("infra")), revision) for m in voters]

    monkeypatch.setattr(health, "observe", observe)
    monkeypatch.setattr(hashes, "_ask", ask)
    with Fleet(1) as fleet:
        return hashes.compare(looks[0], Etcd(builders.etcd(builders.member(9)), fleet))


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


def listing(seen: ClusterHealth, voters: int, learners: int = 0) -> ClusterHealth:
    """``seen``, where etcd has so many voters and learners."""
    found = tuple(
        RegisteredMember(n, f"infra{n}", (), (), n > voters)
        for n in range(1, voters + learners + 1)
    )
    return replace(seen, members=tuple(replace(m, registered=found) for m in seen.members))


def test_a_majority_is_one_of_all_voters_in_etcd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three agree. Of five voters that is no majority; learners do not count."""

    def told(number: int, at: int) -> KvHash:
        return KvHash(5 + (number == 3), at or 9, 2)

    three = listing(looked(9, 9, 9), 3, learners=2)
    found = compare(monkeypatch, [three], told)
    assert (found.voters, found.differing) == (3, ("infra3",))
    five = listing(looked(9, 9, 9), 5)
    found = compare(monkeypatch, [five], told)
    assert (found.voters, found.differing, found.equal) == (5, (), False)
    apart = compare(monkeypatch, [five], lambda n, _: KvHash(5, 9, 2 + (n == 3)))
    assert (apart.voters, apart.differing, apart.equal) == (5, (), False)
    assert apart.revision == 9


def test_of_two_voters_each_may_be_right(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare(monkeypatch, [looked(9, 9)], lambda n, at: KvHash(n, at or 9, 2))
    assert (found.equal, found.differing, found.compared) == (False, (), 2)
    late = compare(monkeypatch, [looked(9, 7)], lambda _, at: KvHash(5, at or 9, 2))
    assert (late.equal, late.differing, late.compared) == (False, (), 2)
    assert late.by_hash == {5: ("infra1",), 7 << 32: ("infra2",)}


def test_one_voter_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare(monkeypatch, [listing(looked(9), 1)], lambda *_: None)
    assert found == Comparison(0, {}, 1)


def test_only_healthy_voters_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = looked(9, 9, 9, 9, 9)
    one, two, down, waiting, learner = seen.members
    assert learner.status is not None
    members = (
        one,
        two,
        replace(down, status=None, error="no answer"),
        replace(waiting, error="no leader"),
        replace(learner, status=replace(learner.status, is_learner=True)),
    )
    asked: set[int] = set()

    def told(number: int, at: int) -> KvHash:
        asked.add(number)
        return KvHash(5, at or 9, 2)

    found = compare(monkeypatch, [replace(seen, members=members)], told)
    assert (asked, found.compared) == ({1, 2}, 2)


def test_members_that_have_lost_the_same_revisions_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare(monkeypatch, [looked(9, 7, 7)], lambda _, at: KvHash(5, at or 9, 2))
    assert found.by_hash == {5: ("infra1",), 7 << 32: ("infra2", "infra3")}
    assert found.differing == ("infra1",)


def test_a_member_that_was_late_once_stays_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may follow the others from there on, with the revisions that it has lost missing."""
    late = looked(9, 7, 9)
    answers = iter([None, *[KvHash(5, 20, 2)] * 5])
    looks = [late, late, late, looked(20, 20, 20)]
    found = compare(monkeypatch, looks, lambda *_: next(answers))
    assert found.differing == ("infra2",)


def test_members_that_all_go_back_while_they_are_looked_at_are_not_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each member was seen behind another one: none is left to hash."""
    monkeypatch.setattr(hashes, "_late", lambda *_: {"infra1": 8, "infra2": 8, "infra3": 9})
    with pytest.raises(Unhealthy, match="revisions went back") as refused:
        compare(monkeypatch, [looked(8, 8, 9)], lambda *_: KvHash(1, 9, 3))
    assert refused.value.id == "changed-meanwhile"


def test_members_at_different_revisions_are_hashed_at_the_lowest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = [looked(9, 8, 9), looked(10, 10, 10)]
    asked: list[int] = []

    def told(_: int, at: int) -> KvHash:
        asked.append(at)
        return KvHash(5, at, 2)

    assert compare(monkeypatch, looks, told).revision == 8
    assert asked == [8, 8, 8]


def test_compacted_revisions_of_another_revision_prove_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At an older revision a member may repeat the hash of an earlier compaction."""
    apart = [KvHash(5, 8, 2), KvHash(5, 8, 2), KvHash(5, 8, 3)]
    answers = iter([*apart, *(replace_revision(h, 10) for h in apart), *[KvHash(5, 10, 3)] * 3])
    looks = [looked(9, 8, 9), *[looked(10, 10, 10)] * 3]
    found = compare(monkeypatch, looks, lambda *_: next(answers))
    assert found.equal


def replace_revision(told: KvHash, revision: int) -> KvHash:
    return told._replace(revision=revision)


def test_a_compaction_is_not_taken_for_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a write the revision is asked for by its number; after a compaction it must not be."""
    asked: list[int] = []

    def told(number: int, at: int) -> KvHash | None:
        asked.append(at)
        return None if len(asked) == 3 else KvHash(5, 9, 2)

    assert compare(monkeypatch, [looked(9, 9, 9)], told).equal
    assert asked == [0] * 6


def test_a_cluster_that_is_compacted_all_the_time_is_not_called_equal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = iter(range(100))
    with pytest.raises(Unhealthy) as failed:
        compare(monkeypatch, [looked(9, 9, 9)], lambda *_: KvHash(5, 9, next(count)))
    assert failed.value.id == "changed-meanwhile"
    assert failed.value.message == (
        "a compaction interrupted each comparison of the members' data; run again"
    )
    assert next(count) == 3 * hashes.ATTEMPTS


def test_different_data_are_refused_unless_the_member_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = looked(9, 9, 9)
    with Fleet(1) as fleet:
        handle = Etcd(seen.cluster, fleet)
        found = Comparison(9, {1: ("infra1", "infra2"), 2: ("infra3",)}, 3)
        asked: list[object] = []

        def compared(*args: object) -> Comparison:
            asked.extend(args)
            return found

        monkeypatch.setattr(hashes, "compare", compared)
        with pytest.raises(PreflightFailed) as refused:
            hashes.require_equal(seen, handle)
        assert asked == [seen, handle]
        assert refused.value.id == "etcd-data-differ"
        assert refused.value.message == "the members' data differ"
        (problem,) = refused.value.problems
        assert (problem.where, problem.id) == ("etcd", "etcd-data-differ")
        assert problem.what == (
            "the members' data differ at revision 9 (hashes: infra1, infra2: 00000001; infra3: "
            "00000002)"
        )
        assert problem.remedy == "invoke replace-member infra3"
        hashes.require_equal(seen, handle, ["infra3"])
        with pytest.raises(PreflightFailed) as refused:
            hashes.require_equal(seen, handle, ["infra1"])
        assert "(hashes: infra2: 00000001; infra3: 00000002)" in refused.value.problems[0].what


def test_what_helps_depends_on_who_agrees() -> None:
    apart = {1: ("a", "b", "c"), 2: ("d",), 3: ("e",)}
    assert hashes.remedy(Comparison(9, apart, 5)) == (
        "invoke replace-member d and then invoke replace-member e"
    )
    assert hashes.remedy(Comparison(9, {1: ("a",), 2: ("b",)}, 3)) == (
        "2 of 3 voters could be compared, and no majority agrees: start the others (invoke "
        "deploy-etcd), then run again"
    )
    assert hashes.remedy(Comparison(9, {1: ("a",), 2: ("b",)}, 2)) == (
        "no majority agrees: compare their data by hand, then invoke restore-etcd FILE, or invoke "
        "recover-etcd NAME, with the member that is right"
    )
