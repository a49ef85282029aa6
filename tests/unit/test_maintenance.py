"""Quotas, what counts as full, and the order in which databases are rewritten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from provision.engine.plan import Plan
from provision.errors import PreflightFailed, Unhealthy
from provision.etcd.api.values import MemberStatus
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.inventory.model import EtcdTls, Scalar, Source
from provision.inventory.resolved import (
    DEFAULT_QUOTA,
    EtcdCluster,
    EtcdMember,
    Inventory,
    Machine,
)
from provision.plans.etcd.data import defrag_etcd
from provision.plans.etcd.data.defrag_etcd import Usage
from provision.ssh.session import Fleet

NAMES = ("a", "b", "c")
MB = 1_000_000


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


def on(inventory: Inventory, fleet: Fleet) -> Etcd:
    return Etcd(inventory.etcd, fleet)


def seen(
    leader: str,
    *,
    down: str = "",
    errors: tuple[str, ...] = (),
    sizes: Mapping[str, tuple[int, int]] | None = None,
    cluster: EtcdCluster = CLUSTER,
    release: str = "3.6.16",
) -> ClusterHealth:
    """``sizes``: of each member its database and what is in use, in MB; 200 and 50 unless given."""

    def one(number: int, m: EtcdMember) -> MemberHealth:
        size, in_use = (n * MB for n in (sizes or {}).get(m.name, (200, 50)))
        at = NAMES.index(leader)
        status = MemberStatus(9, number, release, size, in_use, at, 7, 1, 1, False, errors)
        return MemberHealth(m, "direct", status, error="down" if m.name == down else "")

    return ClusterHealth(cluster, tuple(one(i, m) for i, m in enumerate(cluster.members)))


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
        plan = defrag_etcd.plan(on(INVENTORY, fleet), seen(leader), compact=False)
    titles = [s.title for s in plan.steps]
    assert titles[-1] == f"defragment {leader} (leader)"
    assert len(titles) == 3
    # It hands leadership over before, since a member answers nothing meanwhile.
    assert [len(s.calls) for s in plan.steps] == [1, 1, 2]
    assert "another member takes the lead" in plan.steps[-1].calls[0].what
    assert all(s.before and s.after for s in plan.steps)
    assert set(plan.machines) == {m.machine for m in CLUSTER.members}


@pytest.mark.parametrize(
    ("size", "in_use", "quota", "worthwhile"),
    [
        (200 * MB, 50 * MB, None, True),
        (200 * MB, 181 * MB, None, False),  # less than a tenth
        (200 * MB, 200 * MB, 200 * MB, True),  # full: what is free shows with the next write only
        (100_000, 20_000, None, False),  # most of it, but nothing that anybody would miss
    ],
)
def test_a_rewrite_has_to_give_something_back(
    size: int, in_use: int, quota: int | None, worthwhile: bool
) -> None:
    assert Usage("a", False, size, in_use, quota, ()).worthwhile is worthwhile


def test_members_with_nothing_to_gain_are_left_out_unless_asked_for() -> None:
    look = seen("b", sizes={"a": (60, 58), "c": (200, 20)})
    with Fleet(1) as fleet:
        plan = defrag_etcd.plan(on(INVENTORY, fleet), look, compact=False)
        assert [s.title for s in plan.steps] == ["defragment c", "defragment b (leader)"]
        plan = defrag_etcd.plan(on(INVENTORY, fleet), look, compact=False, every=True)
        assert len(plan.steps) == 3
        look = seen("b", sizes=dict.fromkeys(NAMES, (60, 58)))
        assert defrag_etcd.plan(on(INVENTORY, fleet), look, compact=False).steps == ()
        # What a compaction frees shows with the next write only.
        assert len(defrag_etcd.plan(on(INVENTORY, fleet), look, compact=True).steps) == 4


def test_the_only_member_says_what_it_stalls() -> None:
    alone = replace(CLUSTER, members=CLUSTER.members[:1])
    inventory = replace(INVENTORY, etcd=alone)
    with Fleet(1) as fleet:
        plan = defrag_etcd.plan(on(inventory, fleet), seen("a", cluster=alone), compact=False)
    (note,) = plan.notes
    assert (note.id, note.severity) == ("defrag-stalls", "warning")
    (step,) = plan.steps
    assert len(step.calls) == 1  # nobody to hand leadership to


def test_a_disk_without_room_for_a_second_file_is_refused() -> None:
    room = Usage("a", False, 200 * MB, 50 * MB, None, ()).room
    with Fleet(1) as fleet:

        def plan(free: dict[str, int | None], *, compact: bool = False) -> Plan:
            return defrag_etcd.plan(on(INVENTORY, fleet), seen("a"), compact=compact, free=free)

        assert plan({"a": room, "b": room, "c": room}).notes == ()
        assert plan({"a": room, "b": room}).notes == ()  # c's host does not answer
        (note,) = plan({"a": room, "b": room, "c": None}).notes
        assert (note.id, note.severity) == ("disk-unmeasured", "warning")
        assert note.where.startswith("c at ")
        assert sorted(n.where[:5] for n in plan(dict.fromkeys("abc"), compact=True).notes) == [
            "a at ",
            "b at ",
            "c at ",
        ]
        with pytest.raises(PreflightFailed, match="no room") as refused:
            plan({"a": room, "b": room - 1, "c": 0})
        assert [p.id for p in refused.value.problems] == ["disk-full", "disk-full"]
        plan({"a": 0}, compact=True)  # less is in use by then: looked at before each member


def test_compaction_is_first() -> None:
    with Fleet(1) as fleet:
        plan = defrag_etcd.plan(on(INVENTORY, fleet), seen("b"), compact=True)
    assert plan.steps[0].title == "compact"


def test_refused_while_a_member_is_down_or_data_differ() -> None:
    with Fleet(1) as fleet:
        with pytest.raises(Unhealthy, match="2 of 3"):
            defrag_etcd.plan(on(INVENTORY, fleet), seen("b", down="c"), compact=False)
        with pytest.raises(Unhealthy, match="differ"):
            defrag_etcd.plan(
                on(INVENTORY, fleet),
                seen("b", errors=("memberID:1 alarm:CORRUPT",)),
                compact=False,
            )


def test_rows_show_before_and_after() -> None:
    before = [Usage("a", True, 20_000, 5_000, 40_000, ())]
    after = [Usage("a", True, 6_000, 5_000, 40_000, ("NOSPACE",))]
    assert defrag_etcd.rows(after, before) == [
        ("a", "leader", "20 kB", "6.0 kB", "5.0 kB", "40 kB (15 % full)", "NOSPACE")
    ]


@pytest.mark.parametrize("release", ["3.5.0", "3.5.5"])
def test_nothing_is_defragmented_where_a_crash_amid_it_makes_data_differ(release: str) -> None:
    with Fleet(1) as fleet, pytest.raises(PreflightFailed, match="defrag-etcd could damage data"):
        defrag_etcd.plan(on(INVENTORY, fleet), seen("a", release=release), compact=False)
    with Fleet(1) as fleet:
        defrag_etcd.plan(on(INVENTORY, fleet), seen("a", release="3.5.6"), compact=False)
