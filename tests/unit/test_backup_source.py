"""Which member a backup is read from, and what must hold before the file counts."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from provision import bounds
from provision.errors import PreflightFailed, Unhealthy
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdRefused
from provision.etcd.api.values import Endpoint, KvHash, MemberStatus
from provision.etcd.cluster import hashes, health, reconfigure, scratch
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.cluster.scratch import SnapshotStatus
from provision.etcd.member import backups
from provision.inventory.resolved import EtcdMember
from provision.plans.etcd.data import backup_etcd, defrag_etcd
from provision.ssh.session import Fleet
from tests.unit import builders, clock, fake_etcd
from tests.unit.fake_etcd import STATUS

CLUSTER = builders.etcd()
ONE, TWO, THREE = CLUSTER.members


class World:
    """Three members; infra1 leads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.etcd = fake_etcd.install(monkeypatch)
        self.handle = Etcd(CLUSTER, Fleet(1))
        self.leader = 1
        self.down: set[str] = set()
        self.learners: set[str] = set()
        self.alarms: dict[str, tuple[str, ...]] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.compared: list[ClusterHealth] = []
        self.later: Callable[[], None] = lambda: None
        monkeypatch.setattr(health, "observe", self._observe)
        monkeypatch.setattr(hashes, "require_equal", self._equal)

    def _observe(self, etcd: Etcd) -> ClusterHealth:
        assert etcd is self.handle
        self.later()
        return ClusterHealth(
            CLUSTER, tuple(self.one(n, m) for n, m in enumerate(CLUSTER.members, 1))
        )

    def one(self, n: int, m: EtcdMember) -> MemberHealth:
        if m.name in self.down:
            return MemberHealth(m, error="no answer")
        size, in_use = self.sizes.get(m.name, (200_000_000, 50_000_000))
        errors = tuple(f"memberID:1 alarm:{a}" for a in self.alarms.get(m.name, ()))
        status = MemberStatus(
            *(1, n, "3.6.16", size, in_use, self.leader, 9, 2, 3, m.name in self.learners, errors)
        )
        return MemberHealth(m, "direct", status)

    def _equal(self, seen: ClusterHealth, etcd: Etcd) -> None:
        assert etcd is self.handle
        self.compared.append(seen)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


class TestChoice:
    @pytest.mark.parametrize(
        ("leader", "down", "source"),
        [(1, "", TWO), (2, "", ONE), (1, "infra2", THREE), (3, "infra1", TWO)],
    )
    def test_a_follower_that_serves(
        self, world: World, leader: int, down: str, source: EtcdMember
    ) -> None:
        world.leader, world.down = leader, {down}
        assert backup_etcd.choose(world.handle) == source
        assert len(world.compared) == 1

    def test_the_leader_when_no_other_serves(self, world: World) -> None:
        world.down = {"infra2", "infra3"}
        assert backup_etcd.choose(world.handle) == ONE

    def test_no_learner(self, world: World) -> None:
        world.learners = {"infra2", "infra3"}
        assert backup_etcd.choose(world.handle) == ONE

    def test_nobody_serves(self, world: World) -> None:
        world.down, world.learners = {"infra1", "infra3"}, {"infra2"}
        with pytest.raises(Unhealthy, match="no etcd member is healthy") as refused:
            backup_etcd.choose(world.handle)
        assert refused.value.id == "quorum-lost"

    def test_no_backup_while_an_alarm_says_that_data_differ(self, world: World) -> None:
        world.alarms = {"infra3": ("CORRUPT",)}
        with pytest.raises(Unhealthy, match="CORRUPT") as refused:
            backup_etcd.choose(world.handle)
        assert refused.value.id == "alarm-corrupt"
        world.alarms = {"infra3": ("NOSPACE",)}
        backup_etcd.choose(world.handle)


class Proof:
    """The scratch member, and the member that was read, each with its keys and hash."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.restored = (7, KvHash(1, 9, 3))
        self.live = (7, KvHash(1, 9, 3))
        self.given: list[tuple[Any, ...]] = []
        self.asked: list[int] = []
        self.saved: bytes | Exception = b"snapshot"
        monkeypatch.setattr(scratch, "member", self._scratch)
        monkeypatch.setattr(backup_etcd, "_once", self._once)
        monkeypatch.setattr(backup_etcd, "_save", self._save)
        self.clients: list[Any] = []

    @contextlib.contextmanager
    def _scratch(
        self, etcd: Etcd, source: EtcdMember, path: Path, digest: str, *, timeout: float
    ) -> Iterator[tuple[str, SnapshotStatus]]:
        assert etcd is self.world.handle
        assert timeout >= 30.0 + path.stat().st_size / backup_etcd.HASHED_PER_SECOND
        self.given.append((source, path.read_bytes(), digest))
        yield "scratch", SnapshotStatus(9, 7, 8)

    def _once(self, client: Any, revision: int) -> tuple[int, KvHash]:
        self.asked.append(revision)
        return self.restored if client == "scratch" else self.live

    def _save(self, client: Any, path: Path, most: int, *, length: int) -> str:
        self.most = most
        if isinstance(self.saved, Exception):
            path.write_bytes(b"half")
            raise self.saved
        path.write_bytes(self.saved)
        return "digest"


class Endless:
    """A member whose snapshot has no end."""

    endpoint = Endpoint("10.0.0.2", 2379)

    def __init__(self) -> None:
        self.sent = self.most = 0

    def snapshot(self, *, most: int) -> Iterator[bytes]:
        self.most = most
        while True:
            self.sent += 1 << 20
            yield b"x" * (1 << 20)


@pytest.fixture
def proof(world: World, monkeypatch: pytest.MonkeyPatch) -> Proof:
    return Proof(world, monkeypatch)


GIB = 1 << 30


class TestHowMuch:
    """A hostile member says what it likes of its own database."""

    def most(self, world: World, quota: int, *sizes: int) -> int:
        world.sizes = {m.name: (size, 1) for m, size in zip(CLUSTER.members, sizes, strict=True)}
        source = replace(TWO, settings={"quota-backend-bytes": quota})
        return backup_etcd._most(world._observe(world.handle), source)

    def test_the_member_s_own_word_does_not_count(self, world: World) -> None:
        assert self.most(world, 0, GIB, 100 << 40, GIB) == 4 * GIB
        assert self.most(world, 8 * GIB, 1, 100 << 40, 1) == 16 * GIB
        assert self.most(world, 1, 1, 100 << 40, 1) == GIB

    def test_a_database_that_had_a_larger_quota_before(self, world: World) -> None:
        assert self.most(world, 2 * GIB, 9 * GIB, 9 * GIB, 7 * GIB) == 18 * GIB

    def test_no_quota(self, world: World) -> None:
        assert self.most(world, -1, 1, 1, 1) == bounds.SNAPSHOT

    def test_take_asks_for_no_more(self, world: World, proof: Proof, tmp_path: Path) -> None:
        world.sizes = {"infra2": (100 << 40, 1)}
        backup_etcd.take(world.handle, tmp_path)
        assert proof.most == 4 * GIB

    def test_it_never_fills_the_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def usage(path: Path) -> Any:
            return SimpleNamespace(free=backup_etcd.RESERVE + (5 << 20))

        monkeypatch.setattr(shutil, "disk_usage", usage)
        client, path = Endless(), tmp_path / "x.partial"
        with pytest.raises(OSError, match="No space left on device"):
            backup_etcd._save(cast(EtcdClient, client), path, 7 * GIB)
        assert path.stat().st_size <= 5 << 20
        assert (client.most, client.sent) == (7 * GIB, 6 << 20)


class TestTake:
    def test_a_proven_snapshot_of_a_follower(
        self, world: World, proof: Proof, tmp_path: Path
    ) -> None:
        into = tmp_path / "a" / "b"
        found = backup_etcd.take(world.handle, into)
        assert (into.stat().st_mode & 0o777) == 0o700
        assert proof.given == [(TWO, b"snapshot", "digest")]
        assert proof.asked == [9, 9]
        assert world.etcd.clients == [("infra2", None), ("infra2", None)]
        name = backups.parse("c", found.path.name)
        assert name is not None
        assert (name.cluster_id, name.term, name.index, name.revision) == (
            STATUS.cluster_id,
            STATUS.raft_term,
            STATUS.raft_index,
            9,
        )
        now = datetime.now(timezone.utc).strftime("%Y%m%d")
        assert name.stamp.startswith(now)
        assert found.path.read_bytes() == b"snapshot"
        assert sorted(p.name for p in into.iterdir()) == [
            found.path.name,
            f"{found.path.name}.sha256",
        ]
        assert backup_etcd.digest_file(found.path).read_text().split()[0] == "digest"
        assert (found.sha256, found.revision, found.keys) == ("digest", 9, 7)
        assert found.member == "infra2"
        assert found.seconds >= 0
        assert found.removed == ()

    def test_the_newest_stay(self, world: World, proof: Proof, tmp_path: Path) -> None:
        when = datetime(2026, 1, 1, tzinfo=timezone.utc)
        for n in (1, 2):
            old = tmp_path / backups.name("c", 1, 2, n, n, when.replace(day=n))
            old.write_bytes(b"old")
            backup_etcd.write_digest(old, "d")
        found = backup_etcd.take(world.handle, tmp_path, keep=2)
        assert [p.name for p in found.removed] == [backups.name("c", 1, 2, 1, 1, when)]
        assert len(list(tmp_path.glob("*.sha256"))) == 2
        assert backup_etcd.take(world.handle, tmp_path).removed == ()

    def test_without_proof_no_file_stays(self, world: World, proof: Proof, tmp_path: Path) -> None:
        proof.live = (8, proof.live[1])
        with pytest.raises(Unhealthy, match="the backup is not good") as refused:
            backup_etcd.take(world.handle, tmp_path)
        assert refused.value.id == "backup-unproven"
        assert list(tmp_path.iterdir()) == []

    def test_a_broken_download_leaves_no_file(
        self, world: World, proof: Proof, tmp_path: Path
    ) -> None:
        proof.saved = Unhealthy("it arrived broken", id="backup-unproven")
        with pytest.raises(Unhealthy, match="broken"):
            backup_etcd.take(world.handle, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_written(
        self, world: World, proof: Proof, tmp_path: Path
    ) -> None:
        file = tmp_path / "file"
        file.write_text("")
        with pytest.raises(PreflightFailed, match="cannot be written") as refused:
            backup_etcd.take(world.handle, file / "below")
        assert refused.value.id == "file-unwritable"

    def test_what_a_killed_run_left_goes(self, world: World, proof: Proof, tmp_path: Path) -> None:
        left = tmp_path / ".c-20260101T000000Z-1.partial"
        left.write_bytes(b"")
        os.utime(left, (0, 0))
        backup_etcd.take(world.handle, tmp_path)
        assert not left.exists()


class TestProof:
    def prove(self, world: World, proof: Proof, tmp_path: Path) -> tuple[int, int]:
        path = tmp_path / "snapshot"
        path.write_bytes(b"x" * 10)
        return backup_etcd._prove(world.handle, TWO, path, "digest")

    def test_both_have_the_same(self, world: World, proof: Proof, tmp_path: Path) -> None:
        assert self.prove(world, proof, tmp_path) == (9, 7)

    @pytest.mark.parametrize(
        "live", [(7, KvHash(2, 9, 3)), (6, KvHash(1, 9, 3)), (7, KvHash(1, 8, 3))]
    )
    def test_the_source_has_other_data(
        self, world: World, proof: Proof, tmp_path: Path, live: tuple[int, KvHash]
    ) -> None:
        proof.live = live
        with pytest.raises(Unhealthy, match="is not good") as refused:
            self.prove(world, proof, tmp_path)
        assert [p.where for p in refused.value.problems] == ["infra2"]

    def test_a_compaction_meanwhile_proves_nothing(
        self, world: World, proof: Proof, tmp_path: Path
    ) -> None:
        proof.live = (7, KvHash(2, 9, 4))
        with pytest.raises(Unhealthy, match="was compacted") as refused:
            self.prove(world, proof, tmp_path)
        assert refused.value.id == "changed-meanwhile"


def test_the_step_of_a_plan_saves_where_it_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken: list[tuple[Etcd, Path]] = []
    monkeypatch.setattr(backup_etcd, "take", lambda etcd, into: taken.append((etcd, into)))
    inventory = builders.inventory()
    for folder in (tmp_path, None):
        (call,) = backup_etcd.step(inventory, world.handle, folder).calls
        call.do()
    assert taken == [
        (world.handle, tmp_path),
        (world.handle, backup_etcd.default_directory(inventory)),
    ]


class TestDefragment:
    """The calls of defrag-etcd, when they run."""

    @pytest.fixture
    def moved(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []
        monkeypatch.setattr(
            reconfigure, "move_leadership_off", lambda etcd, m, others: calls.append((m, others))
        )
        return calls

    @pytest.fixture
    def free(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
        found = {"infra1": 10**9, "infra2": 10**9}
        monkeypatch.setattr(defrag_etcd, "free_space", lambda etcd: found)
        return found

    def defragment(
        self, world: World, member: EtcdMember = ONE, *, every: bool = False, alone: bool = False
    ) -> list[tuple[object, ...]]:
        others = [] if alone else [m for m in CLUSTER.members if m != member]
        defrag_etcd._defragment(world.handle, member, others, every=every)
        return world.etcd.changes()

    def test_it_does_not_lead_meanwhile(
        self, world: World, moved: list[Any], free: dict[str, int]
    ) -> None:
        assert self.defragment(world) == [("defragment",)]
        assert moved == [(ONE, [TWO, THREE])]
        assert world.etcd.clients == [("infra1", None)]
        moved.clear()
        assert self.defragment(world, alone=True) == [("defragment",)]
        assert moved == []

    def test_nothing_to_gain_is_left_unless_asked_for(
        self, world: World, moved: list[Any], free: dict[str, int]
    ) -> None:
        world.sizes = {"infra1": (60_000_000, 58_000_000)}
        assert self.defragment(world) == []
        assert self.defragment(world, every=True) == [("defragment",)]

    def test_without_room_it_does_not_begin(
        self, world: World, moved: list[Any], free: dict[str, int]
    ) -> None:
        free["infra1"] = 10
        with pytest.raises(PreflightFailed, match="no room") as refused:
            self.defragment(world)
        assert [p.id for p in refused.value.problems] == ["disk-full"]
        assert world.etcd.calls == []
        assert self.defragment(world, TWO) == [("defragment",)]

    def test_of_a_member_that_does_not_answer_nothing_is_known(
        self, world: World, moved: list[Any], free: dict[str, int]
    ) -> None:
        world.down = {"infra1"}
        assert self.defragment(world) == [("defragment",)]


class TestCompact:
    @pytest.fixture
    def waited(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        found: list[float] = []
        monkeypatch.setattr(
            defrag_etcd, "_wait_compacted", lambda etcd, within: found.append(within)
        )
        return found

    def test_to_the_newest_revision(self, world: World, waited: list[float]) -> None:
        defrag_etcd._compact(world.handle, 10**9)
        assert world.etcd.changes() == [("compact", STATUS.revision)]
        assert waited == [defrag_etcd._timeout(10**9)]

    def test_that_was_done_already(self, world: World, waited: list[float]) -> None:
        gone = "mvcc: required revision has been compacted"
        world.etcd.fail = {
            "compact": EtcdRefused(Endpoint("10.0.0.1", 2379), gone, id="etcd-refused")
        }
        defrag_etcd._compact(world.handle, 1)
        assert len(waited) == 1
        world.etcd.fail = {
            "compact": EtcdRefused(Endpoint("10.0.0.1", 2379), "corrupt cluster", id="etcd-refused")
        }
        with pytest.raises(EtcdRefused, match="corrupt"):
            defrag_etcd._compact(world.handle, 1)

    def test_the_members_have_freed_their_pages(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = clock.install(monkeypatch)
        begun = now.time

        def later() -> None:
            passed = now.time - begun
            size = int(max(50, 200 - 10 * passed)) * 1_000_000
            world.sizes = {"infra1": (300_000_000, 50_000_000), "infra2": (300_000_000, size)}

        world.later = later
        defrag_etcd._wait_compacted(world.handle, 60.0)
        # infra2 needs 15 s, and both must have been alike for a while.
        assert 14 < now.time - begun < 15 + defrag_etcd.ALIKE_FOR + 1

    def test_who_frees_nothing_more_is_not_awaited(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = clock.install(monkeypatch)
        begun = now.time
        world.sizes = {"infra1": (300_000_000, 50_000_000), "infra2": (300_000_000, 200_000_000)}
        defrag_etcd._wait_compacted(world.handle, 600.0)
        assert now.time - begun == pytest.approx(defrag_etcd.STILL_FOR, abs=0.2)

    def test_the_wait_has_an_end(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        now = clock.install(monkeypatch)
        begun = now.time

        def later() -> None:
            size = int(400_000_000 - 1_000_000 * (now.time - begun))
            world.sizes = {"infra1": (500_000_000, 50_000_000), "infra2": (500_000_000, size)}

        world.later = later
        defrag_etcd._wait_compacted(world.handle, 30.0)
        assert now.time - begun == pytest.approx(30, abs=0.2)


class TestDefragPlan:
    """The calls of the plan: each on its member, with who may lead meanwhile."""

    def plan(
        self,
        world: World,
        monkeypatch: pytest.MonkeyPatch,
        *,
        compact: bool = False,
        every: bool = False,
    ) -> list[tuple[Any, ...]]:
        done: list[tuple[Any, ...]] = []

        def defragment(etcd: Etcd, m: EtcdMember, others: Any, *, every: bool) -> None:
            assert etcd is world.handle
            done.append((m.name, [o.name for o in others], every))

        def off(etcd: Etcd, m: EtcdMember, others: Any) -> None:
            done.append(("off", m.name, [o.name for o in others]))

        monkeypatch.setattr(defrag_etcd, "_defragment", defragment)
        monkeypatch.setattr(defrag_etcd, "_compact", lambda etcd, n: done.append(("compact", n)))
        monkeypatch.setattr(reconfigure, "move_leadership_off", off)
        seen = world._observe(world.handle)
        plan = defrag_etcd.plan(world.handle, seen, compact=compact, every=every)
        assert plan.notes == ()
        for step in plan.steps:
            for call in step.calls:
                call.do()
        return done

    def test_followers_first(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.plan(world, monkeypatch) == [
            ("infra2", ["infra1", "infra3"], False),
            ("infra3", ["infra1", "infra2"], False),
            ("off", "infra1", ["infra2", "infra3"]),
            ("infra1", ["infra2", "infra3"], False),
        ]

    def test_a_compaction_is_of_the_largest(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.sizes = {"infra2": (300_000_000, 290_000_000)}
        done = self.plan(world, monkeypatch, compact=True)
        assert done[0] == ("compact", 300_000_000)
        assert [d[2] for d in done[1:] if d[0] != "off"] == [True, True, True]

    def test_every_member_is_rewritten_when_asked_for(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.sizes = dict.fromkeys(("infra1", "infra2", "infra3"), (60_000_000, 58_000_000))
        done = self.plan(world, monkeypatch, every=True)
        assert [d[2] for d in done if d[0] != "off"] == [True, True, True]
