"""Values of etcd's settings, in the types that etcd's file wants.

The types are from etcd's source (see ``etcd-settings.txt``). tests/component/test_settings.py gives
the results to a real etcd.
"""

from __future__ import annotations

import pytest

from provision.inventory import settings
from provision.inventory.model import Setting


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("snapshot-count", "10000", 10_000),
        ("snapshot-count", 1e4, 10_000),
        ("quota-backend-bytes", "-1", -1),
        ("pre-vote", "True", True),
        ("pre-vote", False, False),
        ("auto-compaction-retention", 1, "1"),
        ("log-outputs", "stderr", ["stderr"]),
        ("cipher-suites", "A, B", ["A", "B"]),
        ("cipher-suites", ["A"], ["A"]),
        ("corrupt-check-time", "1h30m", 5_400_000_000_000),
        ("corrupt-check-time", "1.5s", 1_500_000_000),
        ("corrupt-check-time", "250ms", 250_000_000),
        ("corrupt-check-time", 5, 5),
        ("v2-deprecation", "not-yet", "not-yet"),
        ("a-key-of-a-later-release", ["x"], ["x"]),
    ],
)
def test_a_value_of_the_right_type(key: str, given: Setting, expected: Setting) -> None:
    found = settings.typed(key, given)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("key", "given", "says"),
    [
        ("snapshot-count", "many", "a whole number from 0 below 18446744073709551616"),
        ("snapshot-count", -1, "from 0"),
        ("snapshot-count", 1.5, "a whole number"),
        ("snapshot-count", True, "a whole number"),
        ("snapshot-count", 1 << 64, "below"),
        ("max-concurrent-streams", 1 << 32, "below 4294967296"),
        ("quota-backend-bytes", -(1 << 63) - 1, "a whole number below"),
        ("pre-vote", "yes", "true or false"),
        ("pre-vote", 1, "true or false"),
        ("log-level", True, "a text"),
        ("log-level", ["debug"], "a text"),
        ("log-outputs", 5, "a list of texts"),
        ("corrupt-check-time", "soon", "500ms"),
        ("corrupt-check-time", "5s and more", "500ms"),
        ("corrupt-check-time", ["5s"], "a whole number"),
        ("socket-options", 5, "keys of its own"),
    ],
)
def test_a_value_that_etcd_would_not_start_with(key: str, given: Setting, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        settings.typed(key, given)


def test_every_key_has_a_type_that_is_known() -> None:
    for key in settings.minors():
        kind = settings._rows()[key][0]
        assert kind in {"string", "bool", "list", "duration", "struct", *settings._INTEGERS}, key
