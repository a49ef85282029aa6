"""The way from release to release, and what is refused on it. No host, no etcd."""

from __future__ import annotations

import pytest

from provision.errors import PreflightFailed
from provision.etcd import releases

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
    assert releases.path(running, target, ALL, cluster) == way


@pytest.mark.parametrize(
    ("running", "target", "cluster", "at_hand", "why"),
    [
        (["3.4.23"], "3.6.16", (3, 4), ["3.4.23", "3.6.16"], "etcd 3.5.x from 3.5.26 on is not"),
        (["3.4.23"], "3.6.16", (3, 4), ["3.5.10", "3.6.16"], "etcd 3.5.x from 3.5.26 on is not"),
        (["3.6.16"], "3.7.3", (3, 6), ["3.6.16"], "etcd 3.7.3 is not at hand"),
        (["3.5.35"], "3.4.23", (3, 5), ALL, "cannot be taken back from 3.5 to 3.4"),
        (["3.7.3"], "3.4.23", (3, 7), ALL, "cannot be taken back from 3.5 to 3.4"),
        (["3.7.3"], "4.0.0", (3, 7), [*ALL, "4.0.0"], "no way from etcd 3.7.3 to 4.0.0"),
    ],
)
def test_no_way(
    running: list[str], target: str, cluster: tuple[int, int], at_hand: list[str], why: str
) -> None:
    with pytest.raises(PreflightFailed, match="nothing was changed") as caught:
        releases.path(running, target, at_hand, cluster)
    assert why in caught.value.message


def test_only_going_below_what_the_cluster_works_by_is_a_downgrade() -> None:
    assert releases.is_downgrade((3, 7), "3.6.16")
    assert not releases.is_downgrade((3, 6), "3.6.16")
    assert not releases.is_downgrade((3, 4), "3.5.35")


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
    assert releases.removed_settings([setting], way) == ({setting: gone} if gone else {})


@pytest.mark.parametrize(
    ("release", "bad"), [("3.4.23", False), ("3.5.0", True), ("3.5.2", True), ("3.5.3", False)]
)
def test_releases_that_corrupt_data(release: str, bad: bool) -> None:
    assert releases.is_corrupting(release) == bad
