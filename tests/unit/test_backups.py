"""Which backups may go: the same rule in Python and in the timer's script, run by a real shell."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provision.etcd.member import backup_timer, backups
from provision.etcd.member.backups import Name
from provision.host.resources import File
from provision.plans.etcd.data import backup_etcd

from .test_timer import CLUSTER, MEMBERS

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
ID, OTHER = 0x9D2C5F0C8A7E4B11, 0x11
LAB = CLUSTER.name


def made(number: int, revision: int, cluster_id: int | None = ID, term: int = 2) -> Name:
    """The backup of the day with this number. Its index goes with its revision."""
    when = START + timedelta(days=number)
    if cluster_id is None:
        text = f"{LAB}-r{revision:010d}-{when.strftime(backups.STAMP)}.db"
    else:
        text = backups.name(LAB, cluster_id, term, revision + 5, revision, when)
    found = backups.parse(LAB, text)
    assert found is not None
    return found


def by_shell(folder: Path, found: list[Name], keep: int) -> list[str]:
    """What the rendered script would remove."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for one in found:
        (folder / one.text).touch()
        backup_etcd.digest_file(folder / one.text).touch()
    assert CLUSTER.backup is not None
    backup = CLUSTER.backup.model_copy(update={"keep": keep, "dir": str(folder)})
    (text,) = (
        r.content
        for r in backup_timer.resources(replace(CLUSTER, backup=backup), MEMBERS[2])
        if isinstance(r, File) and r.path == backup_timer.script_path(CLUSTER)
    )
    assert text is not None
    functions, mark, _ = text.decode().partition('if [ "${1-}" != locked ]')
    assert mark
    done = subprocess.run(
        ["sh", "-s"], input=functions + "removable", capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return sorted(done.stdout.splitlines())


def gone(found: list[Name], keep: int) -> list[str]:
    return sorted(n.text for n in backups.removable(found, keep))


def test_a_name_says_what_the_backup_is_of() -> None:
    text = backups.name("Lab", 0x1F, 3, 57, 42, datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc))
    assert text == "Lab-c000000000000001f-t3-i57-r0000000042-20260102T030405Z.db"
    found = backups.parse("Lab", text)
    assert found is not None
    assert (found.cluster_id, found.term, found.index, found.revision) == (0x1F, 3, 57, 42)
    assert found.when == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    old = backups.parse("Lab", "Lab-r0000000042-20260102T030405Z.db")
    assert old is not None
    assert (old.cluster_id, old.revision, old.when) == (None, 42, found.when)


@pytest.mark.parametrize(
    "text",
    [
        "Lab2-r0000000042-20260102T030405Z.db",
        "Lab-r42-20260102T030405Z.db",
        "Lab-r0000000042-20260102T030405Z.db.sha256",
        "Lab-c1f-t3-i57-r0000000042-20260102T030405Z.db",
        ".Lab-r0000000042-20260102T030405Z.db",
    ],
)
def test_other_names_are_none(text: str) -> None:
    assert backups.parse("Lab", text) is None


#: What was saved day by day, and the days whose backups may go with --keep 1.
CASES = {
    "one history": ([made(0, 10), made(1, 20), made(2, 20), made(3, 30)], [0, 1, 2]),
    # The same id: etcd makes it of peer URLs and token.
    "emptied": ([made(0, 100), made(1, 110), made(2, 1), made(3, 2)], [0, 2]),
    "emptied, then ahead": ([made(0, 100), made(1, 5), made(2, 150), made(3, 160)], [2]),
    "emptied, and back": ([made(0, 100), made(1, 5), made(2, 101)], []),
    "restored and bumped": ([made(0, 100), made(1, 10**9, OTHER), made(2, 10**9, OTHER)], [1]),
    "the term alone": ([made(0, 100, term=7), made(1, 101, term=2)], []),
    "the other is back": ([made(0, 9), made(1, 5, OTHER), made(2, 10), made(3, 6, OTHER)], [0, 1]),
    "old names": ([made(0, 10, None), made(1, 20, None), made(2, 30), made(3, 40)], [0, 2]),
    "old names, emptied": ([made(0, 10, None), made(1, 1, None), made(2, 2, None)], [1]),
}


@pytest.mark.process
@pytest.mark.parametrize("case", CASES)
def test_only_what_newer_ones_go_on_from_may_go(tmp_path: Path, case: str) -> None:
    found, days = CASES[case]
    expected = sorted(found[day].text for day in days)
    assert gone(found, 1) == expected
    assert by_shell(tmp_path / "b", found, 1) == expected
    assert backups.removable(found, 0) == []


#: Histories of one or two ids. Each begins below all of the same id before it and stays there:
#: one that has overtaken another unseen cannot be told from it by anyone.
VISITS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, 9), min_size=1, max_size=4)),
    min_size=1,
    max_size=7,
)


@pytest.mark.process
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VISITS, st.integers(1, 4), st.booleans())
def test_the_newest_of_every_history_stays(
    tmp_path_factory: pytest.TempPathFactory,
    visits: list[tuple[int, list[int]]],
    keep: int,
    one_id: bool,
) -> None:
    found: list[Name] = []
    of: dict[int, list[Name]] = {}
    at: dict[int, int] = {}
    order: dict[int, int] = {}
    for history, steps in visits:
        order.setdefault(history, len(order))
        revision = at.setdefault(history, 10**19 // 2 - order[history] * 10**6)
        for step in steps:
            revision += step
            cluster_id = ID if one_id else (ID, OTHER)[history % 2]
            found.append(made(len(found), revision, cluster_id))
            of.setdefault(history, []).append(found[-1])
        at[history] = revision
    removed = gone(found, keep)
    for its in of.values():
        assert its[-1].text not in removed
    current = of[visits[-1][0]]
    assert not {n.text for n in current[-keep:]} & set(removed)
    if len(of) == 1:
        assert removed == sorted(n.text for n in found[:-keep])
    assert by_shell(tmp_path_factory.mktemp("b"), found, keep) == removed


NUMBERS = st.lists(
    st.tuples(st.sampled_from([None, ID, OTHER]), st.integers(0, 4), st.integers(1, 3)), max_size=12
)


@pytest.mark.process
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(NUMBERS, st.integers(1, 3))
def test_the_shell_has_the_same_rule(
    tmp_path_factory: pytest.TempPathFactory,
    numbers: list[tuple[int | None, int, int]],
    keep: int,
) -> None:
    found = [
        made(day, rev, cluster_id, term) for day, (cluster_id, rev, term) in enumerate(numbers)
    ]
    assert by_shell(tmp_path_factory.mktemp("b"), found, keep) == gone(found, keep)


def test_one_without_its_sha256_counts_for_nothing(tmp_path: Path) -> None:
    found = [made(day, day) for day in range(3)]
    for one in found:
        (tmp_path / one.text).touch()
    for one in found[:2]:
        backup_etcd.digest_file(tmp_path / one.text).touch()
    assert [p.name for p in backup_etcd.prune(tmp_path, LAB, 1)] == [found[0].text]
    assert {p.name for p in tmp_path.glob("*.db")} == {n.text for n in found[1:]}
