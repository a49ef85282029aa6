"""What may be lost is said before, and a recovery knows how far it came."""

from __future__ import annotations

from provision.etcd import recover
from provision.etcd.recover import Observed, Survivor
from provision.etcd.unfinished import Mark
from provision.host.observe import HostFacts, PathState
from provision.inventory.resolved import EtcdMember, Machine

MARK = Mark("recover", "20260102T030405Z", "a" * 64)
A, B, C = (EtcdMember(n, Machine(n), n, 2379, 2380, "/data", {}, False, False) for n in "abc")


def facts(stamp: str = "") -> HostFacts:
    path = "/data/member/recovered-by"
    seen = {path: PathState("file", "root", "root", 0o644, 1, stamp.encode())} if stamp else {}
    return HostFacts({}, 0.0, seen, {}, {}, {}, {}, frozenset(), {}, {}, frozenset(), {})


def observed(
    *survivors: Survivor,
    lost: tuple[EtcdMember, ...] = (),
    stamp: str = "",
    continues: bool = False,
) -> Observed:
    return Observed(A, {A.machine: facts(stamp)}, survivors, lost, MARK, continues, frozenset())


def notes(seen: Observed) -> list[str]:
    return [str(p) for p in recover._notes(seen)]


def test_a_newer_survivor_is_named() -> None:
    said = notes(observed(Survivor(A, 5, True), Survivor(B, 9, False), Survivor(C, 4, True)))
    assert "is at revision 5: what it has not got" in said[0]
    assert "is at revision 9 or later, NEWER" in said[1]
    assert "--from b" in said[1]
    assert "NEWER" not in said[2]


def test_the_lost_must_not_come_back_by_themselves() -> None:
    said = notes(observed(Survivor(A, None, False), lost=(B, C)))
    assert "an unknown revision" in said[0]
    assert all("never start its etcd" in line for line in said[1:])
    assert "add-member --name b" in said[1]


def test_a_run_that_continues_says_only_that() -> None:
    assert notes(observed(Survivor(A, 5, True), continues=True)) == [
        f"a: continues the recovery begun at {MARK.id}"
    ]


def test_forced_by_this_recovery_only() -> None:
    assert observed(Survivor(A, 5, True), stamp=f"{MARK.id}\n").forced
    assert not observed(Survivor(A, 5, True), stamp="20250102T030405Z\n").forced
    assert not observed(Survivor(A, 5, True)).forced


def test_who_rejoins() -> None:
    seen = observed(Survivor(A, 5, True), Survivor(C, 4, True), lost=(B,))
    assert seen.rejoining == (C,)
