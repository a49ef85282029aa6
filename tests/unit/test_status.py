"""``status`` says what systemd has, whatever becomes of etcd."""

from __future__ import annotations

from typing import Any

import pytest

from provision.check_nodes import status
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import layout
from provision.host.facts import UnitState
from provision.inventory.model import EtcdAuth, Secret
from provision.ssh.session import Fleet
from tests.unit import builders, hosts


def test_a_secret_that_cannot_be_read_hides_no_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROOT_PASSWORD", raising=False)
    monkeypatch.setattr(health, "preload", lambda: None)
    auth = EtcdAuth(root_password=Secret(env="ROOT_PASSWORD"))
    inventory = builders.inventory(etcd=builders.etcd(auth=auth))
    up = hosts.facts(units={layout.UNIT: UnitState("loaded", "active", "running")})
    ours: Any = "c"
    monkeypatch.setattr(status, "owner", lambda *_: ours)
    monkeypatch.setattr(Fleet, "map", lambda _, __, machines: dict.fromkeys(machines, up))
    seen = status.look(inventory, Etcd(inventory.etcd, Fleet(1)), inventory.etcd.members)
    assert [s.good for s in seen.services] == [True] * 3
    (problem,) = seen.problems
    assert (problem.id, problem.severity) == ("secret-unreadable", "warning")
    assert "ROOT_PASSWORD" in problem.what
    assert seen.exit_code == 0
