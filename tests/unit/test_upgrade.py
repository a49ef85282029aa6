"""The way from release to release, and what is refused on it. No host, no etcd."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provision.errors import PreflightFailed
from provision.inventory import etcd_releases
from provision.inventory.etcd_releases import State

REPO = Path(__file__).parents[2]
TEXTS = {".py", ".md", ".yml", ".json", ".j2", ".sh", ".txt", ".service", ".html"}
ALL = ("3.4.23", "3.5.10", "3.5.35", "3.6.16", "3.7.3")


@pytest.mark.parametrize(
    ("running", "target", "cluster", "way"),
    [
        (["3.6.16"], "3.6.16", (3, 6), ()),
        (["3.4.23"], "3.7.3", (3, 4), ("3.5.35", "3.6.16", "3.7.3")),
        (["3.5.35"], "3.6.16", (3, 5), ("3.6.16",)),
        # Interrupted: the cluster works by the lowest, and the same way goes on.
        (["3.4.23", "3.5.35"], "3.7.3", (3, 4), ("3.5.35", "3.6.16", "3.7.3")),
        (["3.6.16", "3.7.3"], "3.7.3", (3, 6), ("3.7.3",)),
        # To 3.6 only from a 3.5 that repairs the membership.
        (["3.5.10"], "3.6.16", (3, 5), ("3.5.35", "3.6.16")),
        # etcd's guide to 3.7: from 3.6.11 on.
        (["3.6.10"], "3.7.3", (3, 6), ("3.6.16", "3.7.3")),
        (["3.6.11"], "3.7.3", (3, 6), ("3.7.3",)),
        (["3.5.31"], "3.6.16", (3, 5), ("3.5.35", "3.6.16")),
        (["3.5.32"], "3.6.16", (3, 5), ("3.6.16",)),
        # Not all are upgraded yet: back is a matter of the binaries.
        (["3.4.23", "3.5.35"], "3.4.23", (3, 4), ("3.4.23",)),
        (["3.5.35"], "3.5.10", (3, 5), ("3.5.10",)),
        (["3.7.3"], "3.6.16", (3, 7), ("3.6.16",)),
        (["3.7.3"], "3.5.35", (3, 7), ("3.6.16", "3.5.35")),
        # Interrupted: etcd lowers the cluster's version as soon as the downgrade is enabled.
        (["3.6.16", "3.7.3"], "3.6.16", (3, 6), ("3.6.16",)),
    ],
)
def test_the_way(
    running: list[str], target: str, cluster: tuple[int, int], way: tuple[str, ...]
) -> None:
    assert etcd_releases.path(running, target, ALL, cluster) == way


@pytest.mark.parametrize(
    ("running", "target", "cluster", "at_hand", "why"),
    [
        (["3.4.23"], "3.6.16", (3, 4), ["3.4.23", "3.6.16"], "etcd 3.5.x from 3.5.32 on is not"),
        (["3.4.23"], "3.6.16", (3, 4), ["3.5.10", "3.6.16"], "etcd 3.5.x from 3.5.32 on is not"),
        (["3.6.16"], "3.7.3", (3, 6), ["3.6.16"], "etcd 3.7.3 is not available"),
        (["3.5.35"], "3.4.23", (3, 5), ALL, "cannot be downgraded from 3.5 to 3.4"),
        (["3.7.3"], "3.4.23", (3, 7), ALL, "cannot be downgraded from 3.5 to 3.4"),
        (["3.7.3"], "4.0.0", (3, 7), [*ALL, "4.0.0"], "no upgrade path from etcd 3.7.3 to 4.0.0"),
    ],
)
def test_no_way(
    running: list[str], target: str, cluster: tuple[int, int], at_hand: list[str], why: str
) -> None:
    with pytest.raises(PreflightFailed) as caught:
        etcd_releases.path(running, target, at_hand, cluster)
    assert why in caught.value.message


def test_only_going_below_what_the_cluster_works_by_is_a_downgrade() -> None:
    assert etcd_releases.is_downgrade((3, 7), "3.6.16")
    assert not etcd_releases.is_downgrade((3, 6), "3.6.16")
    assert not etcd_releases.is_downgrade((3, 4), "3.5.35")


@pytest.mark.parametrize(
    ("setting", "way", "gone"),
    [
        ("debug", ["3.5.35"], "3.5.35"),
        ("proxy-read-timeout", ["3.5.35", "3.6.16"], "3.6.16"),
        ("experimental-initial-corrupt-check", ["3.6.16", "3.7.3"], "3.7.3"),
        ("experimental-initial-corrupt-check", ["3.6.16"], None),
        ("quota-backend-bytes", ["3.5.35", "3.6.16", "3.7.3"], None),
    ],
)
def test_settings_that_a_release_no_longer_has(
    setting: str, way: list[str], gone: str | None
) -> None:
    assert etcd_releases.removed_settings([setting], way) == ({setting: gone} if gone else {})


ONE, AUTH, DEFRAG = State.ONE_MEMBER, State.AUTH, State.DEFRAG


@pytest.mark.parametrize(
    ("release", "holding", "bad"),
    [
        ("3.5.0", set(), True),
        ("3.5.2", set(), True),
        ("3.5.3", set(), False),
        # etcd issue 14370: a single member answers before its log is on disk.
        ("3.4.20", {ONE}, True),
        ("3.4.21", {ONE}, False),
        ("3.5.4", {ONE}, True),
        ("3.5.5", {ONE}, False),
        # etcd pull request 14685.
        ("3.5.5", {DEFRAG}, True),
        ("3.5.6", {DEFRAG}, False),
        ("3.4.19", {DEFRAG}, False),
        # etcd issue 14571.
        ("3.4.19", {AUTH}, False),
        ("3.4.20", {AUTH}, True),
        ("3.4.21", {AUTH}, True),
        ("3.4.22", {AUTH}, False),
        ("3.5.4", {AUTH}, False),
        ("3.5.5", {AUTH}, True),
        ("3.5.6", {ONE, AUTH, DEFRAG}, False),
    ],
)
def test_releases_that_damage_data(release: str, holding: set[State], bad: bool) -> None:
    assert bool(etcd_releases.unfit(release, holding)) == bad


@pytest.mark.parametrize(
    ("release", "members", "auth", "severity"),
    [
        ("3.5.1", 3, False, "error"),
        ("3.5.4", 1, False, "error"),
        ("3.5.4", 3, False, "warning"),
        ("3.5.5", 3, True, "error"),
        ("3.5.5", 3, False, "warning"),
        ("3.5.6", 1, True, None),
        ("3.4.20", 1, False, "error"),
        ("3.4.20", 3, False, "warning"),
        ("3.4.21", 3, True, "error"),
        ("3.4.19", 1, False, "error"),
        ("3.4.19", 3, True, None),
        ("3.4.22", 1, True, None),
    ],
)
def test_a_release_is_an_error_or_a_warning_by_the_state_of_the_cluster(
    release: str, members: int, auth: bool, severity: str | None
) -> None:
    holding = etcd_releases.states(members, auth=auth)
    found = etcd_releases.unfit_problem(release, "etcd", holding)
    assert (found and found.severity) == severity
    if found is not None:
        allowed = etcd_releases.unfit_problem(release, "etcd", holding, allowed=True)
        assert allowed is not None
        assert allowed.severity == "warning"


def test_a_command_is_refused_where_it_brings_the_harm_about() -> None:
    running = [("infra0", "3.5.35"), ("infra1", "3.5.5")]
    with pytest.raises(PreflightFailed, match="defrag-etcd could damage data") as refused:
        etcd_releases.require_fit(running, {DEFRAG}, "defrag-etcd")
    assert [p.where for p in refused.value.problems] == ["infra1"]
    assert "invoke upgrade-etcd VERSION, then defrag-etcd" in refused.value.problems[0].remedy
    # An upgrade waits for a dead member, and its replacement for an upgrade.
    with pytest.raises(PreflightFailed) as refused:
        etcd_releases.require_fit(running, {AUTH}, "adding infra2", ["infra2"])
    (problem,) = refused.value.problems
    out, up, back = problem.remedy.split("; ")[0], "upgrade-etcd", "then adding infra2"
    assert out == "invoke remove-member infra2 and take it out of etcd.members"
    assert problem.remedy.index(up) < problem.remedy.index(back)
    # What is wrong with the release whatever is done to it is no reason against one command.
    etcd_releases.require_fit([("infra0", "3.5.1")], {AUTH}, "enable-auth")
    etcd_releases.require_fit([("infra0", "3.4.22"), ("infra1", "3.5.6")], set(State), "add-member")


def text(version: etcd_releases.Version) -> str:
    return ".".join(map(str, version))


EVERY_ROW = sorted({text(v) for u in etcd_releases.UNFIT for v in (u.first, u.last)})


@pytest.mark.parametrize("release", [*EVERY_ROW, "3.3.0", "3.4.9"])
def test_no_remedy_names_a_release_of_the_table(release: str) -> None:
    named = re.findall(r"\d+\.\d+\.\d+", etcd_releases.remedy(release))
    assert named
    assert not [n for n in named if etcd_releases.unfit(n, set(State))]


@pytest.mark.parametrize("row", etcd_releases.UNFIT)
def test_every_row_says_where_it_is_from_and_what_is_fixed(row: etcd_releases.Unfit) -> None:
    assert row.first <= row.last < row.fixed
    assert row.first[:2] == row.fixed[:2]
    assert not etcd_releases.unfit(text(row.fixed), set(State))
    assert re.search(r"issue \d{5}|PR \d{5}", row.source)


#: Where the table itself stands, and what is not the tool's word.
THE_TABLE = {
    "provision/inventory/etcd_releases.py",
    "provision/cli/explanations/etcd-version-unfit.md",
}


def test_no_text_recommends_a_release_of_the_table() -> None:
    """Sources, templates, pages, documentation and the example: only the table names them."""
    texts = [
        *(
            path
            for folder in ("provision", "docs", "inventory", "templates")
            for path in walk(folder)
        ),
        REPO / "README.md",
        REPO / "tasks.py",
    ]
    found = [
        f"{path.relative_to(REPO)}: {release}"
        for path in texts
        if str(path.relative_to(REPO)) not in THE_TABLE and path.name != "etcd-settings.txt"
        for release in re.findall(r"(?<![\d.])3\.[45]\.\d+(?![\d.])", path.read_text())
        if etcd_releases.unfit(release, set(State))
    ]
    # The version that a downgrade is told to etcd by has 0 in its last place.
    assert [f for f in found if f != "provision/etcd/api/client.py: 3.5.0"] == []


def test_the_page_shows_the_table_and_advises_none_of_it() -> None:
    page = (REPO / "provision/cli/explanations/etcd-version-unfit.md").read_text()
    meaning, _, rest = page.partition("\n## Causes")
    for row in etcd_releases.UNFIT:
        assert f"| {text(row.first)} to {text(row.last)} | " in meaning or (
            row.first == row.last and f"| {text(row.first)} | " in meaning
        )
    assert not [r for r in re.findall(r"3\.\d+\.\d+", rest) if etcd_releases.unfit(r, set(State))]


def walk(folder: str) -> list[Path]:
    return [p for p in sorted((REPO / folder).rglob("*")) if p.suffix in TEXTS]
