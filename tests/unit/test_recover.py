"""What may be lost is said before, and a recovery knows how far it came."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provision.errors import PreflightFailed
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.member import layout
from provision.etcd.member.recovery_marker import RecoveryMarker
from provision.host import disks, gather
from provision.host.effects import Effect
from provision.host.facts import HostFacts, PathState
from provision.host.ownership import KEY
from provision.inventory.resolved import EtcdMember, Machine
from provision.plans.etcd.data import recover_etcd
from provision.plans.etcd.data.recover_etcd import RecoveryState, Survivor
from provision.ssh.session import Fleet
from tests.unit import builders, hosts

MARK = RecoveryMarker("recover", "20260102T030405Z", "a" * 64)
A, B, C = (EtcdMember(n, Machine(n), n, 2379, 2380, "/data", {}, False, False) for n in "abc")


def facts(stamp: str = "") -> HostFacts:
    path = "/data/member/recovered-by"
    seen = {path: PathState("file", "root", "root", 0o644, 1, stamp.encode())} if stamp else {}
    return HostFacts({}, 0.0, seen, {}, {}, {}, {}, frozenset(), {}, {}, frozenset(), {})


def observed(
    *survivors: Survivor,
    lost: tuple[EtcdMember, ...] = (),
    stamp: str = "",
    continues: bool = False,
) -> RecoveryState:
    return RecoveryState(
        A, {A.machine: facts(stamp)}, survivors, lost, MARK, continues, frozenset()
    )


def notes(seen: RecoveryState) -> list[str]:
    return [str(p) for p in recover_etcd._notes(seen)]


def test_a_newer_survivor_is_named() -> None:
    said = notes(observed(Survivor(A, 5, True), Survivor(B, 9, False), Survivor(C, 4, True)))
    assert "is at revision 5: later writes that it does not have" in said[0]
    assert "is at revision 9 or later, NEWER" in said[1]
    assert "choose b to keep more" in said[1]
    assert "NEWER" not in said[2]


def test_the_lost_must_not_come_back_by_themselves() -> None:
    said = notes(observed(Survivor(A, None, False), lost=(B, C)))
    assert "an unknown revision" in said[0]
    assert all("never start etcd there" in line for line in said[1:])
    assert "add-member b" in said[1]


def test_it_takes_the_data_back() -> None:
    assert Effect.ETCD_BACK in recover_etcd._force(builders.etcd(), A, MARK).effects


def test_a_run_that_continues_says_only_that() -> None:
    assert notes(observed(Survivor(A, 5, True), continues=True)) == [
        f"a: continues the recovery begun at {MARK.id}"
    ]


def test_forced_by_this_recovery_only() -> None:
    assert observed(Survivor(A, 5, True), stamp=f"{MARK.id}\n").forced
    assert not observed(Survivor(A, 5, True), stamp="20250102T030405Z\n").forced
    assert not observed(Survivor(A, 5, True)).forced


def test_who_refuses_the_login_may_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost password is no lost quorum."""
    cluster = builders.etcd()
    data = PathState("dir", "etcd", "etcd", 0o700, 1)
    here = {
        layout.UNIT_PATH: hosts.text(f"{KEY}={cluster.name}\n"),
        "/var/lib/etcd/member": data,
    }
    disks = {"/var/lib/etcd": hosts.disk("/var/lib/etcd", hosts.GIB)}
    facts = {
        m.machine: hosts.facts(n, paths=here, disks=disks, commands={"kilobytes": "1"})
        for n, m in enumerate(cluster.members, 1)
    }
    refusing = tuple(MemberHealth(m, error="login refused", refused=True) for m in cluster.members)
    monkeypatch.setattr(health, "observe", lambda *_: ClusterHealth(cluster, refusing))
    monkeypatch.setattr(gather, "gather_facts", lambda *_: (facts, []))
    with Fleet(1) as fleet, pytest.raises(PreflightFailed, match="not known") as refused:
        recover_etcd.observe(Etcd(cluster, fleet), "infra1")
    assert [p.id for p in refused.value.problems] == ["etcd-login-refused"] * 3


def test_a_disk_that_cannot_be_measured_takes_no_copy() -> None:
    cluster = builders.etcd()
    data = PathState("dir", "etcd", "etcd", 0o700, 1)
    here = {
        layout.UNIT_PATH: hosts.text(f"{KEY}={cluster.name}\n"),
        "/var/lib/etcd/member": data,
    }
    facts = hosts.facts(1, paths=here, disks={}, commands={"kilobytes": "1"})
    with pytest.raises(PreflightFailed, match="cannot be used") as refused:
        recover_etcd._fit(cluster, cluster.members[0], facts)
    assert [p.id for p in refused.value.problems] == ["disk-unmeasured"]


def test_a_disk_that_is_not_mounted_would_bring_the_old_cluster_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two data disks did not come at boot: that is no loss of the data on them."""
    cluster = builders.etcd()
    data = PathState("dir", "etcd", "etcd", 0o700, 1)
    unit = f"{KEY}={cluster.name}\n{disks.NOTE}=/var/lib/etcd /var/lib/etcd\n"
    found = {}
    for n, m in enumerate(cluster.members, 1):
        here = {layout.UNIT_PATH: hosts.text(unit)}
        mount = "/"
        if n == 1:
            here["/var/lib/etcd/member"], mount = data, "/var/lib/etcd"
        disk = {"/var/lib/etcd": replace(hosts.disk("/var/lib/etcd", hosts.GIB), mount=mount)}
        found[m.machine] = hosts.facts(n, paths=here, disks=disk)
    down = tuple(MemberHealth(m, error="no answer") for m in cluster.members)
    monkeypatch.setattr(health, "observe", lambda *_: ClusterHealth(cluster, down))
    monkeypatch.setattr(gather, "gather_facts", lambda *_: (found, []))
    with Fleet(1) as fleet, pytest.raises(PreflightFailed, match="not mounted") as refused:
        recover_etcd.observe(Etcd(cluster, fleet), "infra1")
    assert [p.where.split()[0] for p in refused.value.problems] == ["infra2", "infra3"]
    assert {p.id for p in refused.value.problems} == {"member-data-lost"}


def test_who_rejoins() -> None:
    seen = observed(Survivor(A, 5, True), Survivor(C, 4, True), lost=(B,))
    assert seen.rejoining == (C,)
