"""Times, limits and places of what is done with etcd's data, and of what is asked before it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from provision.errors import PreflightFailed
from provision.etcd.api.values import KvHash
from provision.etcd.cluster import reconfigure, scratch
from provision.etcd.cluster.reach import Reach
from provision.etcd.cluster.scratch import SnapshotStatus
from provision.etcd.member import desired
from provision.inventory.model import EtcdTls
from provision.inventory.resolved import EtcdMember, Machine
from provision.plans.etcd import before_3_6
from provision.plans.etcd.data import backup_etcd, defrag_etcd, retained
from provision.ssh.session import Result
from tests.unit import builders, clock, hosts, plan_text
from tests.unit.fake_etcd import FakeClient
from tests.unit.test_backup_source import ONE, TWO, World
from tests.unit.test_deploy_plan import World as Cluster
from tests.unit.test_etcd_state import World as Look
from tests.unit.test_kept import REMOVED, RESTORED

MB = 1_000_000


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


class Timeouts:
    """How long each client of a member may wait for an answer."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[tuple[str, float]] = []
        self._etcd = world.etcd

        @contextlib.contextmanager
        def one(handle: Reach, member: EtcdMember, **options: Any) -> Iterator[FakeClient]:
            self.given.append((member.name, options.get("timeout", 5.0)))
            yield FakeClient(self._etcd, handle.login)

        monkeypatch.setattr(Reach, "member", one)


@pytest.fixture
def timeouts(world: World, monkeypatch: pytest.MonkeyPatch) -> Timeouts:
    return Timeouts(world, monkeypatch)


class TestDefrag:
    def test_a_large_database_gets_the_time_that_it_takes(
        self, world: World, timeouts: Timeouts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call that ends too early leaves the member rewriting, while the next one begins."""
        monkeypatch.setattr(reconfigure, "move_leadership_off", lambda *_: None)
        monkeypatch.setattr(defrag_etcd, "free_space", lambda _: {"infra1": 10**11})
        world.sizes = {"infra1": (8000 * MB, 50 * MB)}
        defrag_etcd._defragment(world.handle, ONE, [TWO], every=False)
        assert timeouts.given == [("infra1", 30.0 + 8000 * MB / defrag_etcd.WORKED_PER_SECOND)]

    @pytest.mark.parametrize(
        ("size", "alike"),
        [
            (50 * MB, True),
            # Of a small database, a few megabytes more are no history that is still there.
            (int(50 * MB * (1 + defrag_etcd.GAIN_SHARE)) + defrag_etcd.GAIN_FLOOR // 2, True),
            (int(50 * MB * (1 + defrag_etcd.GAIN_SHARE)) + 2 * defrag_etcd.GAIN_FLOOR, False),
        ],
    )
    def test_members_with_about_the_same_in_use_are_not_awaited_for_long(
        self, world: World, monkeypatch: pytest.MonkeyPatch, size: int, alike: bool
    ) -> None:
        now = clock.install(monkeypatch)
        begun = now.time
        world.sizes = {
            "infra1": (300 * MB, 50 * MB),
            "infra2": (300 * MB, size),
            "infra3": (300 * MB, 50 * MB),
        }
        defrag_etcd._wait_compacted(world.handle, 600.0)
        took = defrag_etcd.ALIKE_FOR if alike else defrag_etcd.STILL_FOR
        assert now.time - begun == pytest.approx(took, abs=0.3)


class TestBackup:
    @pytest.fixture
    def proven(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every snapshot is good."""
        monkeypatch.setattr(backup_etcd, "_prove", lambda *_: (9, 7))

        def save(client: object, path: Path, size: int, *, length: int) -> str:
            path.write_bytes(b"snapshot")
            return "a" * 64

        monkeypatch.setattr(backup_etcd, "_save", save)

    @pytest.mark.usefixtures("proven")
    def test_its_name_has_the_time_in_utc(
        self, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Backups from machines in other time zones stand in one order."""
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        try:
            assert datetime.now().astimezone().utcoffset() == timedelta(hours=9)
            path = backup_etcd.take(world.handle, tmp_path).path
        finally:
            monkeypatch.undo()
            time.tzset()
        now = datetime.now(timezone.utc)
        stamps = {(now - timedelta(hours=h)).strftime("%Y%m%dT%H") for h in (0, 1)}
        assert any(stamp in path.name for stamp in stamps), path.name

    @pytest.mark.usefixtures("proven")
    def test_it_says_how_long_it_took(self, world: World, tmp_path: Path) -> None:
        assert 0 <= backup_etcd.take(world.handle, tmp_path).seconds < 60

    def test_the_proof_of_a_large_snapshot_gets_its_time_from_both_members(
        self, world: World, timeouts: Timeouts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        path = tmp_path / "snapshot.db"
        path.touch()
        size = int(100 * backup_etcd.HASHED_PER_SECOND)
        os.truncate(path, size)  # a sparse file
        asked: list[float] = []

        @contextlib.contextmanager
        def member(*_: Any, timeout: float) -> Iterator[tuple[str, SnapshotStatus]]:
            asked.append(timeout)
            yield "restored", SnapshotStatus(9, 7, size)

        monkeypatch.setattr(scratch, "member", member)
        monkeypatch.setattr(backup_etcd, "_once", lambda *_: (7, KvHash(1, 9, 3)))
        assert backup_etcd._prove(world.handle, TWO, path, "a" * 64)[1] == 7
        assert asked == [pytest.approx(130.0, abs=1)]
        ((name, live),) = timeouts.given
        assert (name, live) == ("infra2", asked[0])


class TestKept:
    @pytest.mark.process
    def test_of_every_member_and_it_may_take_long(self, tmp_path: Path) -> None:
        """A removal of some gigabytes takes minutes on a slow disk."""
        members = []
        for n, name in ((1, REMOVED), (2, RESTORED)):
            folder = tmp_path / f"data{n}"
            (folder / name).mkdir(parents=True)
            members.append(builders.member(n, data_dir=str(folder)))
        inventory = builders.inventory(etcd=builders.etcd(*members))
        seen = retained.observe(inventory, hosts.LocalFleet(tmp_path), members)
        assert [(k.member.name, k.name) for k in seen.kept] == [
            ("infra2", RESTORED),
            ("infra1", REMOVED),
        ]
        (step,) = retained.plan(inventory, seen, [REMOVED, RESTORED]).steps
        assert {h.name for h in step.hosts} == {"infra1", "infra2"}
        assert all(c.seconds >= 600 for h in step.hosts for c in h.changes)


def test_why_the_look_for_v2_data_failed_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool says it on stderr, as on a host without memory."""

    class Session:
        def __init__(self, machine: Machine) -> None:
            self.machine = machine

        def run(self, command: str, what: str, *, timeout: float) -> Result:
            return Result(137, "", "etcdutl: cannot allocate memory", 0.0)

    def each(ask: Any, machines: Sequence[Machine]) -> dict[Machine, str]:
        return {m: ask(Session(m)) for m in machines}

    monkeypatch.setattr(world.handle.fleet, "map", each)
    with pytest.raises(PreflightFailed) as refused:
        before_3_6.require_no_v2_data(world.handle, {"infra1": "3.5.35"})
    (problem,) = refused.value.problems
    assert problem.where.startswith("infra1 ")
    assert "cannot allocate memory" in problem.what


class TestTls:
    def test_with_tls_for_clients_too_the_certificates_are_made_once(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The second step of a member makes no other key than the first: workers trust that."""
        plan_text.spell(monkeypatch)
        plain = Cluster()
        for name, facts in plain.facts.items():
            plain.facts[name] = replace(facts, commands={desired.OPENSSL: "/usr/bin/openssl"})
        both = tuple(replace(m, peer_tls=True, client_tls=True) for m in plain.cluster.members)
        declared = replace(plain.cluster, members=both, tls=EtcdTls(pki_dir=tmp_path, client=True))
        plan = plain.plan(declared)
        steps = {s.title: [c.what for c in s.hosts[0].changes] for s in plan.steps if s.hosts}
        for name in ("infra1", "infra2", "infra3"):
            first = steps[f"{name} can speak TLS to its peers"]
            then = steps[f"{name} listens by TLS only"]
            assert any("server.crt" in what for what in first)
            assert not any("/pki/" in what for what in then)
            assert "change /etc/etcd/etcd.conf.yml" in then


def test_a_host_that_can_be_missed_hides_no_other_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = Look(monkeypatch)
    looked.away = {"infra1", "infra3"}
    with pytest.raises(PreflightFailed) as refused:
        looked.observe(("infra3",))
    assert [(p.where, p.severity) for p in refused.value.problems] == [
        ("infra1", "error"),
        ("infra3", "warning"),
    ]
