"""Which cluster it is, for every state that hosts can be in. No host, no etcd."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provision.errors import PreflightFailed
from provision.etcd.api.values import MemberStatus, RegisteredMember
from provision.etcd.cluster import groups
from provision.etcd.cluster.groups import (
    Answer,
    Behind,
    Bootstrap,
    Disk,
    Note,
    Seen,
    Serving,
    Silent,
    Start,
    Two,
    Unclear,
    Unseen,
)
from provision.etcd.cluster.guard import _of
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.cluster.todo_keys import Pending
from provision.etcd.member import membership_diff
from provision.etcd.member.membership_diff import ChangeKind
from provision.host.facts import PathState
from provision.plans.etcd.members import declared_changes
from provision.plans.etcd.state.observe import EtcdState, Running
from provision.text import share
from tests.unit import builders, hosts

CLUSTER, OTHER = 0xC1, 0x0DD
NOTE = Note(CLUSTER, term=4, index=900, revision=800, when="20260101T000000Z")
ALL = frozenset({1, 2, 3})


def up(number: int, **changed: object) -> Seen:
    """A member of the cluster of three that serves."""
    values: dict[str, object] = {
        "cluster_id": CLUSTER,
        "member_id": number,
        "term": 5,
        "index": 1200,
        "revision": 1000,
        "leader": 2,
        "members": ALL,
        "serves": True,
    }
    values |= changed
    names = {f"m{i}" for i in values["members"]}  # type: ignore[attr-defined]
    return Seen(f"m{number}", Answer(**{"listed": frozenset(names), **values}))  # type: ignore[arg-type]


def alone(number: int, **changed: object) -> Seen:
    """A cluster of one of its own, as etcd's documented restore makes it."""
    own: dict[str, object] = {
        "cluster_id": OTHER,
        "term": 2,
        "index": 4,
        "revision": 700,
        "leader": number,
        "members": frozenset({number}),
    }
    return up(number, **{**own, **changed})


def silent(number: int, **changed: object) -> Seen:
    """A member that is stopped: its data is on its host."""
    values: dict[str, object] = {"cluster_id": CLUSTER, "member_id": number, "revision": 1000}
    return Seen(f"m{number}", disk=Disk(**{**values, **changed}))  # type: ignore[arg-type]


def empty(number: int) -> Seen:
    return Seen(f"m{number}")


def away(number: int) -> Seen:
    return Seen(f"m{number}", looked=False)


def decide(*seen: Seen, note: Note | None = NOTE, wanted: str = "") -> groups.Verdict:
    return groups.decide(seen, groups.form(seen), note, wanted)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_odd_cluster_of_one_is_a_second_cluster_wherever_it_stands(place: int) -> None:
    seen = [up(n, leader=2 if place != 1 else 3) for n in (1, 2, 3)]
    seen[place] = alone(place + 1)
    verdict = decide(*seen)
    assert isinstance(verdict, Two)
    assert {g.name for g in verdict.groups} == {"c1", "dd"}
    chosen = decide(*seen, wanted="c1")
    assert isinstance(chosen, Serving)
    assert [m.name for m in chosen.odd] == [f"m{place + 1}"]
    other = decide(*seen, wanted="dd")
    assert isinstance(other, Serving)
    assert len(other.odd) == 2


def test_a_forced_new_cluster_has_the_same_ids_and_is_told_by_a_members_id() -> None:
    seen = (up(1, leader=1, members=frozenset({1})), up(2), up(3))
    verdict = decide(*seen)
    assert isinstance(verdict, Two)
    assert sorted(g.name for g in verdict.groups) == ["c1-m1", "c1-m2"]
    chosen = decide(*seen, wanted="c1-m2")
    assert isinstance(chosen, Serving)
    assert _of(chosen, "c1-m2").outside == {1}


def test_an_election_or_a_change_of_members_makes_no_second_cluster() -> None:
    assert isinstance(decide(up(1, leader=1, term=6), up(2), up(3)), Serving)
    longer = frozenset({*ALL, 4})
    assert isinstance(decide(up(1, members=longer), up(2), up(3)), Serving)


def test_a_majority_amid_an_election_is_waited_for() -> None:
    waiting = [up(n, serves=False, leader=0) for n in (1, 2)]
    assert groups.may_be_electing(groups.form([*waiting, alone(3)]))
    assert not groups.may_be_electing(groups.form([*waiting, silent(3)]))
    assert not groups.may_be_electing(groups.form([waiting[0], alone(2), away(3)]))
    # Another revision than the majority's says nothing: it may have been moved on by the restore.
    assert isinstance(decide(*waiting, alone(3, revision=2000), note=None), Serving)


def test_none_of_several_serves() -> None:
    apart = [up(n, serves=False, leader=0) for n in (1, 2)]
    assert isinstance(decide(*apart, alone(3, serves=False, leader=0)), Two)


def test_one_that_is_down_or_empty_or_unreachable_is_no_obstacle() -> None:
    for third in (silent(3), silent(3, revision=None), empty(3), away(3)):
        verdict = decide(up(1), up(2), third)
        assert isinstance(verdict, Serving)
        assert verdict.group.names[:2] == ("m1", "m2")
        assert verdict.odd == ()
        assert [m.name for m in verdict.empty] == (["m3"] if third == empty(3) else [])


@pytest.mark.parametrize(
    "third",
    [
        silent(3, cluster_id=OTHER, revision=10),
        # A former member, whose successor has an id of its own.
        silent(3, member_id=9, revision=10),
        # Forced to be a cluster of its own, and serving nothing.
        up(3, members=frozenset({3}), leader=0, serves=False, revision=10),
    ],
)
def test_data_of_another_cluster_is_odd(third: Seen) -> None:
    verdict = decide(up(1), up(2), third)
    assert isinstance(verdict, Serving)
    assert [m.name for m in verdict.odd] == ["m3"]


@pytest.mark.parametrize(
    "third", [silent(3, revision=1001), silent(3, cluster_id=OTHER, revision=1001)]
)
def test_newer_data_on_a_host_that_is_silent_is_not_passed_over(third: Seen) -> None:
    verdict = decide(up(1), up(2), third)
    assert isinstance(verdict, Behind)
    assert "m3 has data of revision 1001" in verdict.why
    assert isinstance(decide(up(1), up(2), third, wanted=verdict.group.name), Serving)


def test_two_wiped_of_three_have_the_right_ids_and_are_not_the_cluster() -> None:
    wiped = {"term": 2, "index": 9, "revision": 3}
    seen = (up(1, serves=False, leader=0), up(2, **wiped), up(3, **wiped))
    verdict = decide(*seen, note=None)
    assert isinstance(verdict, Behind)
    assert verdict.group.names == ("m2", "m3")
    # The third's host away: only the note tells.
    assert isinstance(decide(away(1), *seen[1:]), Behind)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"revision": 799}, "revision 800"),
        ({"index": 899}, "raft index 900"),
        ({"term": 3}, "raft term 4"),
        ({"cluster_id": OTHER}, "cluster dd serves"),
    ],
)
def test_what_is_below_the_note_is_another_history(changed: dict[str, object], why: str) -> None:
    verdict = decide(*(up(n, **changed) for n in (1, 2, 3)))
    assert isinstance(verdict, Behind)
    assert why in verdict.why
    assert isinstance(decide(up(1), up(2), up(3)), Serving)


def test_a_member_that_refuses_the_login_may_serve_another_cluster() -> None:
    assert isinstance(decide(up(1), up(2), alone(3, serves=None)), Two)
    # With the ids and the list of those that serve it is one of them.
    assert isinstance(decide(up(1), up(2), up(3, serves=None)), Serving)
    # From etcd 3.6 on such a member does not even say what it is.
    mute = replace(silent(3, cluster_id=OTHER, revision=5), refuses=True)
    assert isinstance(decide(up(1), up(2), mute), Two)
    assert isinstance(decide(up(1), up(2), replace(silent(3), refuses=True)), Serving)
    everyone = decide(*(replace(silent(n), refuses=True) for n in (1, 2, 3)))
    assert isinstance(everyone, Serving)
    assert everyone.group.serves is None
    everyone = decide(*(up(n, serves=None) for n in (1, 2, 3)))
    assert isinstance(everyone, Serving)
    assert everyone.group.serves is None


@pytest.mark.parametrize("hidden", [away(2), replace(away(2), refuses=True)])
@pytest.mark.parametrize(
    "one",
    [
        alone(1),
        # Forced: it keeps both ids, and goes on with the revision, the term and the index.
        up(1, leader=1, members=frozenset({1})),
    ],
)
@pytest.mark.parametrize("third", [away(3), empty(3)])
def test_a_cluster_of_one_is_not_taken_for_one_that_nobody_can_look_at(
    one: Seen, hidden: Seen, third: Seen
) -> None:
    noted = replace(NOTE, members=frozenset({"m1", "m2", "m3"}))
    assert one.answer is not None
    same = one.answer.cluster_id == CLUSTER
    for note in (None, NOTE, noted) if same else (None,):
        verdict = decide(one, hidden, third, note=note)
        assert isinstance(verdict, Unseen)
        assert {m.name for m in verdict.members} == {"m2"} | ({"m3"} - {third.name * third.looked})
        assert isinstance(decide(one, hidden, third, wanted=verdict.group.name), Serving)
        shown = groups.not_seen("etcd", verdict)
        assert "; m2" in shown.what
        assert f"--cluster-id {verdict.group.name}" in shown.remedy


def test_members_that_cannot_be_looked_at_are_no_obstacle_when_the_cluster_has_them() -> None:
    one = up(1, leader=1, members=frozenset({1}))
    # One declared member.
    assert isinstance(decide(one, note=None), Serving)
    # A host of an intact cluster is down.
    assert isinstance(decide(up(1), up(2), away(3), note=None), Serving)
    # Two new ones that are declared and not added: their hosts answer, and have nothing.
    assert isinstance(decide(one, empty(2), empty(3), note=None), Serving)
    # Their hosts do not answer yet, and the last run noted a cluster of one.
    noted = replace(NOTE, members=frozenset({"m1"}))
    assert isinstance(decide(one, away(2), away(3), note=noted), Serving)
    assert isinstance(decide(one, away(2), away(3), note=None), Unseen)
    # One new one beside two.
    assert isinstance(decide(*(up(n, members=frozenset({1, 2})) for n in (1, 2)), away(3)), Serving)
    # A new member that has not started has a peer URL and no name.
    grown = up(1, leader=1, listed=frozenset({"m1", "http://m2"}))
    assert isinstance(decide(grown, replace(away(2), peer_url="http://m2"), note=None), Serving)


def test_clusters_of_one() -> None:
    one = frozenset({1})
    assert isinstance(decide(up(1, leader=1, members=one)), Serving)
    assert isinstance(decide(alone(1)), Behind)
    assert isinstance(decide(alone(1), note=None), Serving)
    assert groups.start((silent(1),), NOTE, {"m1"}) == Start(("m1",))
    assert isinstance(groups.start((silent(1, revision=1),), NOTE, {"m1"}), Unclear)


NAMES = {"m1", "m2", "m3"}


def start(*seen: Seen, note: Note | None = NOTE) -> Bootstrap | Start | Unclear:
    assert isinstance(decide(*seen, note=note), Silent)
    return groups.start(seen, note, NAMES)


def test_no_data_anywhere_means_bootstrap_unless_there_was_a_cluster() -> None:
    assert start(empty(1), empty(2), empty(3), note=None) == Bootstrap()
    assert isinstance(start(empty(1), empty(2), empty(3)), Unclear)


def test_a_configuration_that_says_existing_is_no_bootstrap() -> None:
    """All disks away, or all but one that has nothing written: nobody has noted anything yet."""
    found = groups.start((empty(1), empty(2), empty(3)), None, NAMES, exists=True)
    assert isinstance(found, Unclear)
    assert "says that the cluster exists" in found.why
    two = groups.start((silent(1, revision=1), empty(2), empty(3)), None, NAMES, exists=True)
    assert isinstance(two, Unclear)
    assert "not a quorum" in two.why
    assert isinstance(groups.start((silent(1, revision=1), empty(2), empty(3)), None, NAMES), Start)


def test_half_a_bootstrap_goes_on() -> None:
    seen = (silent(1, revision=1), empty(2), empty(3))
    assert start(*seen, note=None) == Start(("m1", "m2", "m3"))


def test_all_that_were_stopped_are_started_and_who_lost_its_data_is_not() -> None:
    assert start(silent(1), silent(2), silent(3, revision=900)) == Start(("m1", "m2", "m3"))
    assert start(silent(1), silent(2), empty(3)) == Start(("m1", "m2"), ("m3",))
    answering = [up(n, serves=False, leader=0) for n in (1, 2, 3)]
    assert start(*answering) == Start(("m1", "m2", "m3"))


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ((silent(1), empty(2), empty(3)), "1 of 3 members is known to have data"),
        ((silent(1), away(2), away(3)), "1 of 3 members is known to have data"),
        ((silent(1), silent(2, cluster_id=OTHER), silent(3)), "different clusters"),
        ((silent(1), silent(2, member_id=1), silent(3)), "data of the same member"),
        ([silent(n, cluster_id=OTHER) for n in (1, 2, 3)], "noted cluster c1"),
        ((silent(1), silent(2, revision=1), silent(3, revision=1)), "below revision 800"),
        ((silent(1), silent(2, revision=None), silent(3, revision=None)), "cannot be read"),
    ],
)
def test_what_could_lose_data_is_not_started(seen: tuple[Seen, ...], why: str) -> None:
    found = start(*seen)
    assert isinstance(found, Unclear)
    assert why in found.why
    assert found.best == ("m1" if why != "noted cluster c1" else found.best)


@pytest.mark.parametrize("wiped", [1, 5])
def test_without_a_note_an_empty_majority_does_not_outvote_data(wiped: int) -> None:
    newest = 1000 if wiped == 1 else groups.FILE_LAG + wiped + 1
    seen = (silent(1, revision=newest), *(silent(n, revision=wiped) for n in (2, 3)))
    assert isinstance(start(*seen, note=None), Unclear)


def test_without_a_note_an_empty_majority_does_not_outvote_what_cannot_be_read() -> None:
    """A database that is too large to be copied, say."""
    seen = (silent(1, revision=1), silent(2, revision=1), silent(3, revision=None))
    found = start(*seen, note=None)
    assert isinstance(found, Unclear)
    assert "the data of m3 cannot be read" in found.why
    full = (silent(1), silent(2), silent(3, revision=None))
    assert start(*full, note=None) == Start(("m1", "m2", "m3"))


def listing(number: int, *ids: int, **changed: object) -> Seen:
    """A member that serves, with these ids and names in its list."""
    return up(number, members=frozenset(ids), **changed)


def test_the_group_needs_a_majority_of_the_known_members() -> None:
    """Of five, two that serve are not enough, three are."""
    hidden = [away(n) for n in (3, 4, 5)]
    two = decide(*(listing(n, 1, 2) for n in (1, 2)), *hidden, note=None)
    assert isinstance(two, Unseen)
    assert (len(two.known), two.noted) == (5, False)
    assert groups.not_seen("etcd", two).what == (
        "cluster c1 serves through m1, m2; m3, m4, m5 cannot be checked and may form the right "
        "cluster, because the members that serve are not a majority of the 5 members in the "
        "inventory"
    )
    three = decide(*(listing(n, 1, 2, 3) for n in (1, 2, 3)), *hidden[1:], note=None)
    assert isinstance(three, Serving)
    # The last run noted five members, two of which the inventory no longer has.
    noted = replace(NOTE, members=frozenset({"m1", "m2", "m3", "m8", "m9"}))
    two = decide(*(listing(n, 1, 2) for n in (1, 2)), away(3), note=noted)
    assert isinstance(two, Unseen)
    assert (two.known, two.noted) == (noted.members, True)
    problem = groups.not_seen("etcd", two)
    assert problem.where == "etcd"
    assert problem.id == "etcd-members-unseen"
    assert problem.what == (
        "cluster c1 serves through m1, m2; m3 cannot be checked and may form the right cluster, "
        "because the members that serve are not a majority of the 5 members that the last run noted"
    )


def test_a_listed_member_without_a_name_counts_for_the_majority() -> None:
    grown = up(1, leader=1, listed=frozenset({"m1", "http://m2"}))
    hidden = replace(away(2), peer_url="http://m2"), replace(away(3), peer_url="http://m3")
    assert isinstance(decide(grown, *hidden, note=None), Serving)
    single = up(1, leader=1, listed=frozenset({"m1"}))
    found = decide(single, *hidden, note=None)
    assert isinstance(found, Unseen)
    assert "; m2, m3 cannot be checked" in groups.not_seen("etcd", found).what


def test_what_is_as_new_as_the_group_is_no_newer_history() -> None:
    odd = silent(3, cluster_id=OTHER, revision=1000)
    assert isinstance(decide(up(1), up(2), odd), Serving)
    # Nothing has happened since the last run.
    same = {"revision": NOTE.revision, "index": NOTE.index, "term": NOTE.term}
    assert isinstance(decide(*(up(n, **same) for n in (1, 2, 3))), Serving)


def test_a_verdict_names_every_group() -> None:
    seen = (up(1), up(2), silent(3, cluster_id=OTHER, revision=1001))
    behind = decide(*seen)
    assert isinstance(behind, Behind)
    assert [g.name for g in behind.groups] == ["c1", "dd"]
    assert behind.why == (
        "m3 has data of revision 1001, newer than revision 1000 of the members that serve (m1, m2)"
    )
    silent_one = decide(*seen, wanted="dd")
    assert isinstance(silent_one, Silent)
    assert [g.name for g in silent_one.groups] == ["c1", "dd"]
    older = decide(*(up(n, revision=799) for n in (1, 2, 3)))
    assert isinstance(older, Behind)
    assert older.why == (
        "the last run noted cluster c1 at revision 800 (20260101T000000Z); now it is at 799"
    )


def test_two_of_five_that_answer_are_no_quorum_amid_an_election() -> None:
    five = frozenset({1, 2, 3, 4, 5})
    waiting = [up(n, serves=False, leader=0, members=five) for n in (1, 2, 3)]
    assert groups.may_be_electing(groups.form([*waiting, alone(4)]))
    assert not groups.may_be_electing(groups.form([*waiting[:2], alone(4)]))


def test_members_with_different_lists_are_one_cluster_when_they_follow_one_leader() -> None:
    """A change of members reaches them one after the other."""
    two, four = frozenset({1, 2}), frozenset({1, 2, 3, 4})
    first, second = up(1, leader=1, members=two), up(2, leader=1, members=four)
    assert [g.names for g in groups.form([first, second])] == [("m1", "m2")]
    # Without a leader nothing says that they are one.
    apart = groups.form([up(1, leader=0, members=two), up(2, leader=0, members=four)])
    assert [g.names for g in apart] == [("m1",), ("m2",)]


def test_a_member_that_lists_none_of_those_that_serve_is_odd() -> None:
    five = frozenset({1, 2, 3, 4, 5})
    serving = [up(n, members=five) for n in (1, 2, 5)]
    stuck = up(4, members=frozenset({3, 4}), serves=False, leader=0, revision=10)
    verdict = decide(*serving, silent(3, revision=10), stuck)
    assert isinstance(verdict, Serving)
    assert [m.name for m in verdict.odd] == ["m4"]
    # A member of the group that does not serve is none of those that serve.
    waiting = up(3, members=five, serves=False, leader=0, revision=10)
    verdict = decide(*serving, waiting, stuck)
    assert isinstance(verdict, Serving)
    assert [m.name for m in verdict.odd] == ["m4"]


def test_groups_are_shown_with_what_is_known_of_them() -> None:
    def shown(*seen: Seen) -> list[str]:
        found = groups.shown(groups.form(seen))
        assert {p.id for p in found} == {"etcd-clusters-differ"}
        return [f"{p.where}: {p.what}" for p in found]

    assert shown(up(1, revision=900), up(2), silent(3, cluster_id=None, member_id=None)) == [
        "cluster c1: serves at revision 1000, raft term 5, index 1200; members here: m1 (1), m2 "
        "(2); newest data: m2",
        "cluster 0: does not serve at revision 1000; members here: m3 (0)",
    ]
    assert shown(silent(1, revision=None), silent(2, revision=None)) == [
        "cluster c1: does not serve at an unknown revision; members here: m1 (1), m2 (2)"
    ]
    assert shown(up(1, serves=None)) == [
        "cluster c1: refuses the login at revision 1000, raft term 5, index 1200; members here: "
        "m1 (1)"
    ]


def test_all_databases_are_empty_though_the_cluster_exists() -> None:
    """A bootstrap that ended before the first write: nothing can be outvoted."""
    seen = [silent(n, revision=1) for n in (1, 2, 3)]
    assert groups.start(seen, None, NAMES, exists=True) == Start(("m1", "m2", "m3"))
    one_write = [silent(1, revision=2), *seen[1:]]
    found = groups.start(one_write, None, NAMES, exists=True)
    assert isinstance(found, Unclear)
    assert found.best == "m1"
    assert found.why == (
        "m1 has data of revision 2, and a majority of revision 1 or less would outvote it"
    )


def test_a_majority_may_lack_as_many_writes_as_a_file_may_lack() -> None:
    low = 8_000
    behind = [silent(n, revision=low) for n in (2, 3)]
    at_most = low + groups.FILE_LAG
    assert start(silent(1, revision=at_most), *behind, note=None) == Start(("m1", "m2", "m3"))
    found = start(silent(1, revision=at_most + 1), *behind, note=None)
    assert isinstance(found, Unclear)
    assert found.best == "m1"


def test_a_majority_at_the_noted_revision_is_started() -> None:
    noted, below = NOTE.revision, NOTE.revision - 1
    seen = [silent(1, revision=noted), silent(2, revision=noted), silent(3, revision=below)]
    assert start(*seen) == Start(("m1", "m2", "m3"))
    found = start(silent(1, revision=noted), *(silent(n, revision=below) for n in (2, 3)))
    assert isinstance(found, Unclear)
    assert found.best == "m1"


@pytest.mark.parametrize(
    ("seen", "why", "best"),
    [
        (
            [silent(n, revision=None) for n in (1, 2, 3)],
            "the revision of 3 of 3 members cannot be read from the data",
            "",
        ),
        (
            [silent(1), *(silent(n, revision=None) for n in (2, 3))],
            "the revision of 2 of 3 members cannot be read from the data",
            "m1",
        ),
        (
            [silent(1, revision=900), silent(2, cluster_id=OTHER), silent(3, cluster_id=None)],
            "the hosts have data of different clusters (m1: c1; m2: dd; m3: 0)",
            "m2",
        ),
        (
            [silent(n, revision=n, cluster_id=OTHER) for n in (1, 2, 3)],
            "the hosts have data of cluster dd, but the last run (20260101T000000Z) noted "
            "cluster c1",
            "m3",
        ),
        (
            [silent(n, cluster_id=None) for n in (1, 2, 3)],
            "the hosts have data of cluster 0, but the last run (20260101T000000Z) noted "
            "cluster c1",
            "m1",
        ),
        (
            [silent(1), silent(2, member_id=1, revision=1001), silent(3)],
            "two hosts have data of the same member",
            "m2",
        ),
        (
            [empty(n) for n in (1, 2, 3)],
            "no host has data, but the last run (20260101T000000Z) noted a cluster at revision 800",
            "",
        ),
    ],
)
def test_why_a_start_is_not_clear(seen: list[Seen], why: str, best: str) -> None:
    assert groups.start(seen, NOTE, NAMES) == Unclear(why, best)


@pytest.mark.parametrize(("of", "quorum"), [(2, 2), (4, 3), (5, 3)])
def test_a_quorum_of_the_members_must_have_its_data(of: int, quorum: int) -> None:
    """Of an even number it is one more than half."""
    names = {f"m{n}" for n in range(1, of + 1)}

    def started(count: int) -> Start | Unclear | Bootstrap:
        seen = [silent(n) if n <= count else empty(n) for n in range(1, of + 1)]
        return groups.start(seen, NOTE, names)

    enough = started(quorum)
    assert isinstance(enough, Start)
    assert (len(enough.names), len(enough.lost)) == (quorum, of - quorum)
    less = quorum - 1
    assert started(less) == Unclear(
        f"{share(less, of, 'member')} known to have data: that is not a quorum", "m1"
    )


@pytest.mark.parametrize(("of", "quorum"), [(2, 2), (4, 3), (5, 3)])
def test_a_quorum_of_the_members_must_have_what_was_noted(of: int, quorum: int) -> None:
    names = {f"m{n}" for n in range(1, of + 1)}

    def started(count: int) -> Start | Unclear | Bootstrap:
        new, old = NOTE.revision + 5, NOTE.revision - 5
        seen = [silent(n, revision=new if n <= count else old) for n in range(1, of + 1)]
        return groups.start(seen, NOTE, names)

    assert isinstance(started(quorum), Start)
    assert isinstance(started(quorum - 1), Unclear)


def test_who_could_have_newer_data_than_an_empty_majority_is_named() -> None:
    """The best is the newest of those that can be read."""
    empty_two = [silent(n, revision=1) for n in (1, 2)]
    unread = [silent(n, revision=None) for n in (3, 4)]
    found = groups.start([*empty_two, silent(5, revision=1), *unread], None, NAMES)
    assert found == Unclear(
        "a majority has an empty database, and the data of m3, m4 cannot be read", "m1"
    )


# A world of hosts, with what is true of each, and what the tool sees of it.


@dataclass(frozen=True)
class Host:
    """``life``: good (of the cluster of all hosts), own (a cluster of one that was restored by
    hand or forced), wiped (bootstrapped again with all the others that were), or empty."""

    life: str
    power: str  # up, stopped (its data can be read), hidden (it runs, nobody can look), or away
    lag: int  # revisions that it lacks
    forced: bool


HOSTS = st.lists(
    st.builds(
        Host,
        st.sampled_from(["good", "good", "good", "own", "wiped", "empty"]),
        st.sampled_from(["up", "up", "stopped", "hidden", "hidden", "away"]),
        st.integers(0, 400),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)
NEWEST = 1000


@dataclass(frozen=True)
class World:
    hosts: tuple[Host, ...]

    @property
    def everybody(self) -> frozenset[int]:
        return frozenset(range(1, len(self.hosts) + 1))

    @property
    def quorum(self) -> int:
        return len(self.hosts) // 2 + 1

    def having(self, life: str, *powers: str) -> list[int]:
        return [n for n, h in enumerate(self.hosts, 1) if h.life == life and h.power in powers]

    def serves(self, life: str) -> bool:
        """Whether a quorum of them runs, whether that can be seen or not."""
        return len(self.having(life, "up", "hidden")) >= self.quorum

    def seen(self) -> tuple[Seen, ...]:
        return tuple(self._seen(n, h) for n, h in enumerate(self.hosts, 1))

    def _seen(self, n: int, host: Host) -> Seen:
        if host.power in ("away", "hidden"):
            return away(n)
        if host.life == "empty":
            return empty(n)
        if host.life == "own":
            number = CLUSTER if host.forced else OTHER + n
            revision = NEWEST - 300 - host.lag
            if host.power == "stopped":
                return silent(n, cluster_id=number, revision=revision)
            if host.forced:  # it goes on from what it had
                return alone(n, cluster_id=number, revision=NEWEST - host.lag, term=5, index=1200)
            return alone(n, cluster_id=number, revision=revision)
        if host.life == "wiped":
            low = {"term": 2, "index": 20, "revision": 5}
            if host.power == "stopped":
                return silent(n, revision=5)
            leader = min(self.having("wiped", "up", "hidden")) if self.serves("wiped") else 0
            serves = self.serves("wiped")
            return up(n, **low, leader=leader, members=self.everybody, serves=serves)
        # A quorum of the good has every acknowledged write.
        revision = NEWEST if self.has_all(n) else NEWEST - host.lag
        if host.power == "stopped":
            return silent(n, revision=revision)
        serves = self.serves("good")
        leader = min(self.having("good", "up", "hidden")) if serves else 0
        newest = NEWEST if serves else revision
        return up(n, leader=leader, members=self.everybody, serves=serves, revision=newest)

    def has_all(self, n: int) -> bool:
        good = self.having("good", "up", "stopped", "hidden", "away")
        return n in good[: self.quorum]


def _health(world: World, verdict: Serving) -> ClusterHealth:
    """What :mod:`health` sees of the members once the verdict is known."""
    cluster = builders.etcd(
        *(builders.member(n) for n in world.everybody), established=_of(verdict, "")
    )
    answers = {m.name: m.answer for m in world.seen()}
    found = []
    for n, m in enumerate(cluster.members, 1):
        a = answers[f"m{n}"]
        if a is None or not cluster.established.has(a.cluster_id, a.member_id):
            found.append(MemberHealth(m, error="no answer, or not of the cluster"))
            continue
        listed = tuple(
            RegisteredMember(i, f"infra{i}", (builders.member(i).peer_url,), ("http://c",), False)
            for i in sorted(a.members)
        )
        status = MemberStatus(
            a.cluster_id, a.member_id, "3.6.16", 1, 1, a.leader, a.revision, a.term, a.index,
            False, (),
        )  # fmt: skip
        error = "" if a.serves else "no leader"
        found.append(MemberHealth(m, status=status, registered=listed, error=error))
    return ClusterHealth(cluster, tuple(found))


HIDDEN = Host("good", "hidden", 0, False)


@example([Host("own", "up", 0, True), HIDDEN, HIDDEN], True)
@example([Host("own", "up", 0, False), HIDDEN, HIDDEN], False)
@given(HOSTS, st.booleans())
def test_nothing_that_a_quorum_has_acknowledged_is_lost(drawn: list[Host], noted: bool) -> None:
    """A plan touches no member of a group that has a quorum but was not chosen, and no data that
    may be newer; nobody is started who could outvote what was acknowledged."""
    world = World(tuple(drawn))
    everybody = frozenset(f"m{n}" for n in world.everybody)
    note = replace(NOTE, members=everybody) if noted else None
    seen = world.seen()
    verdict = groups.decide(seen, groups.form(seen), note)
    good = {f"m{n}" for n in world.having("good", "up", "stopped")}
    if isinstance(verdict, Serving):
        chosen = set(verdict.group.names)
        if world.serves("good"):
            assert chosen & good, "another group was chosen although this one has a quorum"
        others = [m for m in seen if m.name not in chosen]
        assert all(not (m.answer and m.answer.serves) for m in others)
        assert all((m.revision or 0) <= (verdict.group.revision or 0) for m in others)
        if note is not None:
            assert (verdict.group.revision or 0) >= note.revision
        _require_harmless(world, verdict)
    elif isinstance(verdict, Silent):
        found = groups.start(seen, note, {f"m{n}" for n in world.everybody})
        if isinstance(found, Bootstrap):
            assert note is None
            assert not any(m.has_data for m in seen)
        if isinstance(found, Start) and noted:
            started = {f"m{n}" for n in world.having("good", "up", "stopped")} & set(found.names)
            assert len(started) >= len(found.names + found.lost) // 2 + 1
            assert not set(found.lost) & set(found.names)


def _require_harmless(world: World, verdict: Serving) -> None:
    """What deploy-etcd would do to the members is done to the chosen group alone."""
    seen = _health(world, verdict)
    odd = {name.replace("m", "infra") for name in _of(verdict, "").odd}
    established = replace(seen.cluster.established, odd=frozenset(odd))
    cluster = replace(seen.cluster, established=established)
    running = Running(membership_diff.member_list(cluster, seen.registered), seen, seen, Pending())
    data = PathState("dir", "etcd", "etcd", 0o700, 1)
    facts = {
        m.machine: hosts.facts(n, paths={f"{m.data_dir}/member": data} if s.has_data else {})
        for n, (m, s) in enumerate(zip(cluster.members, world.seen(), strict=True), 1)
    }
    try:
        moves = declared_changes.declared_moves(
            cluster, EtcdState(None, facts, seen, (), running)
        ).moves
    except PreflightFailed:
        return
    registered = groups._registered(verdict.group.members)
    for move in moves:
        if move.kind is ChangeKind.REMOVE:
            assert move.id in registered
        elif move.kind is ChangeKind.ADD and move.id is None:
            # Its data is set aside: it must not be of the group, nor serve.
            number = int(move.member.name.removeprefix("infra"))
            assert number not in registered
