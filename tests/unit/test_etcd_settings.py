"""The list of etcd's settings knows what this tool itself writes and speaks of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provision.inventory import etcd_releases, model, settings

MINORS = ("3.4", "3.5", "3.6", "3.7")
ROOT = Path(__file__).parents[2]


def test_every_key_has_its_releases() -> None:
    assert len(settings.minors()) > 100
    assert {minor for known in settings.minors().values() for minor in known} == {*MINORS}
    assert settings.keys(None) == {*settings.minors()}
    assert settings.keys("3.8") == frozenset()


@pytest.mark.parametrize("minor", MINORS)
def test_what_we_write_is_known(minor: str) -> None:
    template = (ROOT / "templates" / "etcd.conf.yml.j2").read_text()
    ours = {*re.findall(r"^([a-z-]+):", template, re.MULTILINE), *model.DEFAULT_ETCD_SETTINGS}
    assert len(ours) > 8
    assert ours <= settings.keys(minor)
    assert {*model.OWNED_ETCD_SETTINGS} <= settings.keys(minor)


def test_what_an_upgrade_refuses_is_gone_by_then() -> None:
    for minor in MINORS[1:]:
        found = etcd_releases.removed_settings(settings.keys(None), [f"{minor}.99"])
        assert not {*found} & settings.keys(minor)
