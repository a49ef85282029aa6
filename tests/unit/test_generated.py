"""The boundary inventories that systemd and etcd are tried with (tests/generated.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import generated
from tests.component.test_settings import tried

#: The keys of the inventory at which each kind of boundary value stands.
KEYS = {
    **{
        "folder": ("data_dir",),
        "backup_dir": ("dir",),
        "pages": ("dirs",),
        "plain": ("plain_client_port",),
    },
    **{
        "port": ("client_port", "peer_port"),
        "alluxio_user": ("user",),
        "token": ("cluster_token",),
    },
}


def leaves(part: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(part, dict):
        for name, value in part.items():
            yield from leaves(value, name)
    elif isinstance(part, list):
        for value in part:
            yield from leaves(value, key)
    else:
        yield key, part


def test_every_boundary_value_is_tried_and_accepted(tmp_path: Path) -> None:
    every = list(generated.boundaries())
    for number, given in enumerate(every):
        assert generated.accepted(given, tmp_path / str(number)) is not None, given
    found = {leaf for given in every for leaf in leaves(given)}
    for name, values in generated.BOUNDARIES.items():
        if name != "beat":
            for value in values:
                assert any((key, value) in found for key in KEYS.get(name, (name,))), (name, value)
    beats = [given["etcd"]["settings"] for given in every]
    pairs = {(s["heartbeat-interval"], s["election-timeout"]) for s in beats}
    assert pairs == {(beat, times * beat) for beat, times in generated.BEATS}


@pytest.mark.parametrize("former", [False, True])
def test_every_setting_is_tried_with_each_of_its_values(former: bool) -> None:
    every = [given["etcd"]["settings"] for given in generated.boundaries()]
    for key, values in tried("3.6", former).items():
        found = [settings[key] for settings in every if key in settings]
        if key == "quota-backend-bytes":
            assert found
        else:
            assert [value for value in values if value not in found] == [], key


def test_no_two_numbers_are_the_same_inventory() -> None:
    drawn = [json.dumps(generated.drawn(number)) for number in range(50)]
    assert len(set(drawn)) == 50
    assert json.dumps(generated.drawn(7)) == drawn[7]
