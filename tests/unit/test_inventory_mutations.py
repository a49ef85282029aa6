"""A valid inventory, every line of it changed in every way of a list: 444 inventories in all.

Each ends in problems with places, or in a model that is shown and installed like any other. What
chance finds beyond that is in ``test_inventory_hostile.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.inventory import provenance, read
from tests.unit.test_inventory_hostile import accept_or_explain

VALID = """\
cluster: production
parallel: 20
ssh:
  user: deploy
  port: 22
  connect_timeout: 10
etcd:
  version: 3.6.16
  source:
    path: etcd-v3.6.16-linux-amd64.tar.gz
    sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  client_port: 2379
  tls:
    peer: true
    client: false
  backup:
    on_calendar: daily
    keep: 5
  members:
    infra0:
      host: infra0.example.com
      address: 10.0.1.10
      data_dir: /data/etcd
    infra1: {host: infra1.example.com, address: 10.0.1.11}
    infra2: {host: infra2.example.com, address: 10.0.1.12}
alluxio:
  version: "313"
  source:
    path: alluxio-313-bin.tar.gz
    sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  properties:
    alluxio.dora.client.ufs.root: s3://bucket/path
  page_store:
    dirs: [/data/pages]
    sizes: [100g]
  workers:
    worker[001-003]: {host: "worker[001-003].example.com"}
"""
VALUES = (
    *("", "[a, {b: c}]", "{a: {b: c}}", "-99999999999999999999", '"\\e[2J\\u202e\\n"'),
    *("*nowhere", "'w[3-1]'", '"never closed'),
)


def mutations() -> Iterator[tuple[str, str]]:
    """What was done, and the inventory's text then."""
    lines = VALID.splitlines()
    for at, line in enumerate(lines):
        before, after = lines[:at], lines[at + 1 :]
        key = line.split(":")[0]
        own = key.lstrip()
        changed = {
            "deleted": [],
            "twice": [line, line],
            "deeper": [f"   {line}"],
            "misspelt": [line.replace(own, f"{own}s", 1)],
            **{f"value {value}": [f"{key}: {value}"] for value in VALUES},
        }
        for how, instead in changed.items():
            yield f"line {at + 1} {how}", "\n".join([*before, *instead, *after]) + "\n"


@pytest.mark.long
def test_444_mutated_inventories(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    assert accept_or_explain(path, VALID.encode())
    every = list(mutations())
    assert len(every) == 444
    ends: Counter[bool] = Counter()
    for how, text in every:
        try:
            good = accept_or_explain(path, text.encode())
            ends[good] += 1
            if good:
                assert provenance(read(path))
        except Exception as error:
            raise AssertionError(f"{how}:\n{text}") from error
    assert min(ends.values()) > 20, ends
