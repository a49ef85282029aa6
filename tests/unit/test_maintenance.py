"""Quotas, what counts as full, and the order in which databases are rewritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.errors import Unhealthy
from provision.etcd import maintenance
from provision.etcd.health import ClusterHealth, MemberHealth
from provision.etcd.maintenance import Usage
from provision.etcd.values import MemberStatus
from provision.inventory.model import EtcdTls, Scalar, Source
from provision.inventory.resolved import (
    DEFAULT_QUOTA,
    EtcdCluster,
    EtcdMember,
    Inventory,
    Machine,
)
from provision.remote import Fleet

NAMES = ("a", "b", "c")


def member(name: str, **settings: Scalar) -> EtcdMember:
    keys = {k.replace("_", "-"): v for k, v in settings.items()}
    return EtcdMember(name, Machine(name), name, 2379, 2380, "/data", keys, False, False)


CLUSTER = EtcdCluster(
    name="test",
    token="test",
    version="3.6.16",
    source=Source(package=True),
    install_dir="/opt/etcd",
    config_dir="/etc/etcd",
    user="etcd",
    tls=EtcdTls(peer=False),
    members=tuple(member(n) for n in NAMES),
)
INVENTORY = Inventory(Path("inventory.yml"), "test", 20, CLUSTER, None)


def seen(leader: str, *, down: str = "", errors: tuple[str, ...] = ()) -> ClusterHealth:
    def one(number: int, m: EtcdMember) -> MemberHealth:
        status = MemberStatus(
            9, number, "3.6.16", 20_000, 5_000, NAMES.index(leader), 7, 1, 1, False, errors
        )
        return MemberHealth(m, "direct", status, error="down" if m.name == down else "")

    return ClusterHealth(CLUSTER, tuple(one(i, m) for i, m in enumerate(CLUSTER.members)))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, DEFAULT_QUOTA),
        ({"quota_backend_bytes": 0}, DEFAULT_QUOTA),
        ({"quota_backend_bytes": 1 << 24}, 1 << 24),
        ({"quota_backend_bytes": "16777216"}, 1 << 24),
        ({"quota_backend_bytes": -1}, None),
        ({"quota_backend_bytes": "much"}, DEFAULT_QUOTA),
    ],
)
def test_quota(settings: dict[str, Scalar], expected: int | None) -> None:
    assert member("a", **settings).quota == expected


def test_full_is_the_file_not_what_is_used() -> None:
    assert Usage("a", False, 100, 10, 100, ()).full
    assert not Usage("a", False, 99, 99, 100, ()).full
    assert not Usage("a", False, 100, 100, None, ()).full


@pytest.mark.parametrize("leader", NAMES[1:])
def test_the_leader_is_last(leader: str) -> None:
    with Fleet(1) as fleet:
        plan = maintenance.defrag_plan(INVENTORY, fleet, seen(leader), compact=False)
    titles = [s.title for s in plan.steps]
    assert titles[-1] == f"defragment {leader} (leader)"
    assert len(titles) == 3
    assert all(s.before and s.after for s in plan.steps)
    assert set(plan.machines) == {m.machine for m in CLUSTER.members}


def test_compaction_is_first() -> None:
    with Fleet(1) as fleet:
        plan = maintenance.defrag_plan(INVENTORY, fleet, seen("b"), compact=True)
    assert plan.steps[0].title == "compact"


def test_refused_while_a_member_is_down_or_data_differ() -> None:
    with Fleet(1) as fleet:
        with pytest.raises(Unhealthy, match="2 of 3"):
            maintenance.defrag_plan(INVENTORY, fleet, seen("b", down="c"), compact=False)
        with pytest.raises(Unhealthy, match="differ"):
            maintenance.defrag_plan(
                INVENTORY, fleet, seen("b", errors=("memberID:1 alarm:CORRUPT",)), compact=False
            )


def test_rows_show_before_and_after() -> None:
    before = [Usage("a", True, 20_000, 5_000, 40_000, ())]
    after = [Usage("a", True, 6_000, 5_000, 40_000, ("NOSPACE",))]
    assert maintenance.rows(after, before) == [
        ("a", "leader", "20 kB", "6.0 kB", "5.0 kB", "40 kB (15 % full)", "NOSPACE")
    ]
