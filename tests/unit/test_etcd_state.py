"""What a plan of etcd starts from: who is asked, which problems end it, which members count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision import artifacts
from provision.artifacts import Artifact
from provision.errors import PreflightFailed, Problem
from provision.etcd.api.values import Login, MemberStatus, RegisteredMember
from provision.etcd.cluster import health, todo_keys
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.cluster.todo_keys import Pending
from provision.etcd.member import layout
from provision.etcd.pki import tls
from provision.host import gather
from provision.host.facts import HostFacts, PathState, Probe, UnitState
from provision.host.resources import MARKER, Tree
from provision.inventory.model import Source
from provision.inventory.resolved import (
    ClientPort,
    Established,
    EtcdCluster,
    EtcdMember,
    Machine,
)
from provision.plans.etcd.state import observe as state
from provision.plans.etcd.state.observe import EtcdState
from provision.ssh.session import Fleet
from tests.unit import builders, hosts

CLUSTER = builders.etcd()
ONE, TWO, THREE = CLUSTER.members
PENDING = Pending(workers=True)
UNPACKED = f"/opt/etcd/{CLUSTER.version}/{MARKER}"


def registered(*members: EtcdMember, learners: Sequence[EtcdMember] = ()) -> tuple[Any, ...]:
    return tuple(
        RegisteredMember(int(m.name[-1]), m.name, (m.peer_url,), (m.client_url,), m in learners)
        for m in (*members, *learners)
    )


class World:
    """Three empty hosts, and a cluster that ``listed`` describes; empty: nothing answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.facts = {
            m.machine: hosts.facts(
                n,
                disks={
                    p: hosts.disk(p, 50 * hosts.GIB)
                    for p in ("/var/lib/etcd", "/opt/etcd", "/opt/other")
                },
            )
            for n, m in enumerate(CLUSTER.members, 1)
        }
        self.listed: tuple[Any, ...] = ()
        self.refused: set[str] = set()
        self.closed: set[str] = set()
        self.away: set[str] = set()
        self.asked: list[dict[Machine, Probe]] = []
        self.looks: list[tuple[EtcdMember, ...]] = []
        self.fetched: list[Source] = []
        self.unread: list[bool] = []
        self.artifact: Artifact | Exception = Artifact(Path("etcd-linux-amd64.tar.gz"), "0" * 64, 1)
        monkeypatch.setattr(gather, "gather_facts", self._gather)
        monkeypatch.setattr(health, "observe", self._observe)
        monkeypatch.setattr(
            todo_keys, "read", lambda seen, etcd: replace(PENDING, clean=self.about(seen, etcd))
        )
        monkeypatch.setattr(artifacts, "fetch", self._fetch)

    @staticmethod
    def about(seen: ClusterHealth, etcd: Etcd) -> dict[str, str]:
        return {m.name: etcd.cluster.name for m in seen.cluster.members}

    def _fetch(self, source: Source, cache: Path, *, unread: bool = False) -> Artifact:
        assert cache == artifacts.default_cache()
        self.fetched.append(source)
        self.unread.append(unread)
        if isinstance(self.artifact, Exception):
            raise self.artifact
        return self.artifact

    def _gather(
        self, _: Fleet, probes: Mapping[Machine, Probe]
    ) -> tuple[dict[Machine, HostFacts], list[Problem]]:
        self.asked.append(dict(probes))
        names = {m.machine: m.name for m in CLUSTER.members}
        away = [m for m in probes if names[m] in self.away]
        return {m: self.facts[m] for m in probes if m not in away}, [
            Problem(names[m], "cannot be reached", "start it", id="host-unreachable") for m in away
        ]

    def _observe(self, etcd: Etcd) -> ClusterHealth:
        members = etcd.cluster.members
        self.looks.append(members)

        def one(m: EtcdMember) -> MemberHealth:
            if m.name in self.refused:
                return MemberHealth(m, error="login refused", refused=True)
            if m.name in self.closed:
                return MemberHealth(m, error="no answer", no_way=True)
            if not any(m.peer_url in r.peer_urls for r in self.listed):
                return MemberHealth(m, error="no answer")
            status = MemberStatus(1, int(m.name[-1]), "3.6.16", 1, 1, 1, 1, 1, 1, False, ())
            return MemberHealth(m, status=status, registered=self.listed)

        return ClusterHealth(etcd.cluster, tuple(map(one, members)))

    def observe(
        self,
        dispensable: Sequence[str] = (),
        *,
        cluster: EtcdCluster = CLUSTER,
        recovering: bool = False,
    ) -> EtcdState:
        with Fleet(1) as fleet:
            if recovering:
                return state.observe(Etcd(cluster, fleet), dispensable, recovering=True)
            return state.observe(Etcd(cluster, fleet), dispensable)

    def refused_with(self, *dispensable: str) -> list[tuple[str, str]]:
        with pytest.raises(PreflightFailed) as refused:
            self.observe(dispensable)
        return [(p.where, p.id) for p in refused.value.problems]

    def change(self, member: EtcdMember, **changed: Any) -> None:
        self.facts[member.machine] = replace(self.facts[member.machine], **changed)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


class TestHosts:
    def test_all_are_asked_for_what_a_member_needs(self, world: World) -> None:
        found = world.observe()
        (asked,) = world.asked
        assert set(asked) == {m.machine for m in CLUSTER.members}
        for m in CLUSTER.members:
            probe = asked[m.machine]
            assert set(probe.reach or ()) == {(o.address, 2380) for o in CLUSTER.members if o != m}
            (tree,) = [r for r in probe.resources if isinstance(r, Tree)]
            assert tree.path == f"/opt/etcd/{CLUSTER.version}"
        assert found.facts == world.facts
        assert found.artifact == world.artifact
        assert world.fetched == [CLUSTER.source]
        assert (found.warnings, found.running) == ((), None)

    def test_a_package_of_the_distribution_is_not_fetched(self, world: World) -> None:
        package = replace(CLUSTER, source=Source(package=True))
        assert world.observe(cluster=package).artifact is None
        assert world.fetched == []

    def test_every_problem_is_named_at_once(self, world: World) -> None:
        missing = Problem("etcd.source", "no file", id="tarball-unavailable")
        world.artifact = PreflightFailed("no tarball", [missing], id="tarball-unavailable")
        world.away = {"infra3"}
        world.change(ONE, values={**world.facts[ONE.machine].values, "uid": "7"})
        path = PathState("file", "root", "root", 0o644, 0)
        world.change(TWO, paths={CLUSTER.config_dir: path}, addresses=frozenset({"10.9.9.9"}))
        assert set(world.refused_with()) == {
            ("etcd.source", "tarball-unavailable"),
            ("infra3", "host-unreachable"),
            (ONE.machine.place, "root-needed"),
            (TWO.machine.place, "path-in-the-way"),
            (TWO.place, "address-not-on-host"),
        }

    def test_a_member_without_a_way_to_it_is_said_first(self, world: World) -> None:
        world.closed = {"infra2", "infra3"}
        assert world.refused_with() == [
            (TWO.place, "host-unreachable"),
            (THREE.place, "host-unreachable"),
        ]
        assert world.refused_with("infra3")[0] == (TWO.place, "host-unreachable")
        world.closed = {"infra3"}
        [warning] = world.observe(["infra3"]).warnings
        assert warning.severity == "warning"
        assert "AllowTcpForwarding" in warning.what

    def test_a_host_that_can_be_missed_is_a_warning_only(self, world: World) -> None:
        world.away = {"infra3"}
        assert world.refused_with() == [("infra3", "host-unreachable")]
        found = world.observe(["infra3"])
        assert [(p.where, p.severity) for p in found.warnings] == [("infra3", "warning")]
        assert set(found.facts) == {ONE.machine, TWO.machine}
        assert [set(a) for a in world.asked[1:]] == [{ONE.machine, TWO.machine}, {THREE.machine}]

    def test_one_that_can_be_missed_and_answers_is_looked_at_like_the_others(
        self, world: World
    ) -> None:
        assert set(world.observe(["infra3"]).facts) == {m.machine for m in CLUSTER.members}
        world.change(THREE, addresses=frozenset({"10.9.9.9"}))
        assert world.refused_with("infra3") == [(THREE.place, "address-not-on-host")]

    def test_of_a_host_that_does_not_answer_nothing_is_compared(self, world: World) -> None:
        world.away = {"infra3"}
        world.change(ONE, unreachable={("10.0.0.3", 2380): "refused"})
        # The others cannot reach it, and it is not among those that are looked at.
        assert world.observe(["infra3"]).warnings[0].where == "infra3"

    @pytest.mark.parametrize("recovering", [False, True])
    def test_a_recovery_that_is_not_finished_admits_its_own_steps(
        self, world: World, recovering: bool
    ) -> None:
        mark = PathState("file", "root", "root", 0o644, 0, b"recover 20260102T030405Z k")
        data = PathState("dir", "etcd", "etcd", 0o700, 0)
        world.change(ONE, paths={layout.unfinished(ONE): mark, "/var/lib/etcd": data})
        if recovering:
            assert world.observe(recovering=True).running is None
        else:
            assert {id for _, id in world.refused_with()} == {"recovery-unfinished"}

    def test_a_release_that_is_not_unpacked_needs_room(self, world: World) -> None:
        world.artifact = Artifact(Path("etcd-linux-amd64.tar.gz"), "0" * 64, hosts.GIB)
        small = {
            "/var/lib/etcd": hosts.disk("/var/lib/etcd", 50 * hosts.GIB),
            "/opt/etcd": hosts.disk("/opt/etcd", 4 * hosts.GIB, device="/dev/sdb1"),
        }
        for m in CLUSTER.members:
            world.change(m, disks=small)
        world.change(TWO, paths={UNPACKED: hosts.text("0" * 64)})
        assert [w for w, id in world.refused_with() if id == "disk-full"] == [
            m.machine.place for m in (ONE, THREE)
        ]

    @pytest.mark.parametrize(
        ("found", "unread"),
        [("0" * 64, [True]), ("1" * 64, [True, False]), (None, [True, False])],
        ids=["every host has it", "one has another one", "one has none"],
    )
    def test_a_tarball_that_no_host_is_to_get_is_not_read_again(
        self, world: World, found: str | None, unread: list[bool]
    ) -> None:
        world.artifact = Artifact(Path("etcd-linux-amd64.tar.gz"), "0" * 64, 1, unread=True)
        for m in (TWO, THREE):
            world.change(m, paths={UNPACKED: hosts.text("0" * 64)})
        world.change(ONE, paths={} if found is None else {UNPACKED: hosts.text(found)})
        world.observe()
        assert world.unread == unread

    def test_a_tarball_for_another_cpu(self, world: World) -> None:
        world.artifact = Artifact(Path("etcd-linux-arm64.tar.gz"), "0" * 64, 1)
        assert {id for _, id in world.refused_with()} == {"tarball-unfit"}


class TestLookedBefore:
    """The guard's look has asked for the same, in its own round trip."""

    @staticmethod
    def known(world: World, etcd: Etcd) -> dict[Machine, tuple[Probe, HostFacts]]:
        return {m: (p, world.facts[m]) for m, p in state.probes(etcd).items()}

    @pytest.fixture
    def etcd(self, tmp_path: Path, world: World) -> Etcd:
        tarball = tmp_path / "etcd-linux-amd64.tar.gz"
        tarball.touch()
        world.artifact = Artifact(tarball, "0" * 64, 0)
        source = Source(path=tarball, sha256="0" * 64)
        return Etcd(replace(CLUSTER, source=source), Fleet(1))

    def test_nobody_is_asked_again_in_the_same_look(self, world: World, etcd: Etcd) -> None:
        etcd.learned.looked = self.known(world, etcd)
        found = state.observe(etcd)
        assert world.asked == [{}]
        assert list(found.facts.items()) == list(world.facts.items())
        state.observe(etcd)  # a later look, for example after a change
        assert set(world.asked[1]) == set(world.facts)

    def test_who_did_not_answer_is_asked(self, world: World, etcd: Etcd) -> None:
        etcd.learned.looked = self.known(world, etcd)
        etcd.learned.looked = {m: f for m, f in etcd.learned.looked.items() if m != TWO.machine}
        found = state.observe(etcd)
        assert [set(a) for a in world.asked] == [{TWO.machine}]
        assert list(found.facts) == [m.machine for m in CLUSTER.members]

    def test_a_probe_for_something_else_does_not_count(self, world: World, etcd: Etcd) -> None:
        etcd.learned.looked = self.known(world, etcd)
        other = etcd.with_cluster(replace(etcd.cluster, install_dir="/opt/other"))
        state.observe(other)
        assert set(world.asked[0]) == set(world.facts)

    def test_members_that_were_well_are_not_asked_again_in_the_same_look(
        self, world: World, etcd: Etcd
    ) -> None:
        world.listed = registered(ONE, TWO, THREE)
        seen = health.observe(etcd)
        world.looks.clear()
        etcd.learned.asked = None, seen
        changed = replace(etcd.cluster, downgrade=True)  # by an option of the command
        found = state.observe(etcd.with_cluster(changed))
        assert world.looks == []
        assert found.health == replace(seen, cluster=changed)
        assert found.running is not None
        state.observe(etcd)  # a later look, for example after a change
        assert world.looks == [CLUSTER.members]

    @pytest.mark.parametrize(
        "other",
        [
            {"members": (ONE, TWO)},
            {"members": (ONE, TWO, replace(THREE, serves_at=ClientPort(False, 4001)))},
            {"established": Established(7)},
        ],
        ids=["members", "URLs", "cluster"],
    )
    def test_a_look_at_something_else_does_not_count(
        self, world: World, etcd: Etcd, other: dict[str, Any]
    ) -> None:
        world.listed = registered(ONE, TWO, THREE)
        seen = health.observe(etcd)
        etcd.learned.asked = None, replace(seen, cluster=replace(etcd.cluster, **other))
        world.looks.clear()
        state.observe(etcd)
        assert world.looks == [CLUSTER.members]

    def test_a_look_with_another_login_does_not_count(self, world: World, etcd: Etcd) -> None:
        world.listed = registered(ONE, TWO, THREE)
        etcd.learned.asked = Login("worker", "secret"), health.observe(etcd)
        world.looks.clear()
        state.observe(etcd)
        assert world.looks == [CLUSTER.members]

    def test_a_tarball_that_is_not_here_yet(self, world: World, etcd: Etcd) -> None:
        source = Source(path=Path("/nowhere/etcd.tar.gz"), sha256="0" * 64)
        assert state.probes(etcd.with_cluster(replace(CLUSTER, source=source))) == {}
        package = etcd.with_cluster(replace(CLUSTER, source=Source(package=True)))
        assert set(state.probes(package)) == set(world.facts)


class TestCluster:
    def test_the_declared_members_are_asked_once(self, world: World) -> None:
        world.listed = registered(ONE, TWO, THREE)
        found = world.observe()
        assert world.looks == [CLUSTER.members]
        running = found.running
        assert running is not None
        assert running.health is running.declared is found.health
        assert running.roster.voters == CLUSTER.members
        assert running.pending.clean == dict.fromkeys(("infra1", "infra2", "infra3"), "c")
        assert running.pending.workers
        assert state.require_running(found) is running

    def test_etcd_may_list_them_in_another_order(self, world: World) -> None:
        world.listed = registered(TWO, THREE, ONE)
        running = world.observe().running
        assert world.looks == [CLUSTER.members]
        assert running is not None
        assert running.health is running.declared

    def test_a_member_that_is_not_declared_counts_and_is_asked(self, world: World) -> None:
        four = builders.member(4)
        world.listed = registered(ONE, TWO, THREE, four)
        running = world.observe().running
        assert running is not None
        assert [[m.name for m in look] for look in world.looks] == [
            ["infra1", "infra2", "infra3"],
            ["infra1", "infra2", "infra3", "infra4"],
        ]
        assert running.healthy == {"infra1", "infra2", "infra3", "infra4"}
        assert running.health.cluster.members == running.roster.voters
        assert running.declared.cluster.members == CLUSTER.members
        assert "infra4" in running.pending.clean

    def test_a_learner_does_not_count(self, world: World) -> None:
        world.listed = registered(ONE, TWO, learners=[THREE])
        running = world.observe().running
        assert running is not None
        assert running.healthy == {"infra1", "infra2"}
        assert world.looks[1] == (ONE, TWO)

    def test_the_second_look_counts_when_the_members_changed_meanwhile(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        four, five = builders.member(4), builders.member(5)
        world.listed = registered(ONE, TWO, THREE, four)
        look = world._observe

        def observe(etcd: Etcd) -> ClusterHealth:
            if world.looks:
                world.listed = registered(ONE, TWO, THREE, four, five)
            return look(etcd)

        monkeypatch.setattr(health, "observe", observe)
        running = world.observe().running
        assert running is not None
        assert [m.name for m in running.roster.voters][-1] == "infra5"

    def test_a_second_look_without_an_answer_does_not(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.listed = registered(ONE, TWO, THREE, builders.member(4))
        look = world._observe

        def observe(etcd: Etcd) -> ClusterHealth:
            if world.looks:
                world.listed = ()
            return look(etcd)

        monkeypatch.setattr(health, "observe", observe)
        running = world.observe().running
        assert running is not None
        assert [m.name for m in running.roster.voters][-1] == "infra4"
        assert running.healthy == {"infra1", "infra2", "infra3"}

    def test_nobody_answers(self, world: World) -> None:
        found = world.observe()
        assert found.running is None
        with pytest.raises(PreflightFailed) as refused:
            state.require_running(found)
        assert [p.where for p in refused.value.problems] == [
            *(f"etcd member infra{n}" for n in (1, 2, 3)),
            "etcd",
        ]
        assert refused.value.id == "etcd-not-running"

    def test_who_refuses_the_login_is_not_down(self, world: World) -> None:
        world.refused = {"infra2"}
        assert ("etcd member infra2", "member-down") in world.refused_with()
        with pytest.raises(PreflightFailed, match="refuses the login") as refused:
            world.observe()
        assert refused.value.id == "etcd-login-refused"
        world.listed = registered(ONE, TWO, THREE)
        assert world.observe().running is not None  # others serve


class TestUnits:
    @pytest.mark.parametrize("active", ["active", "activating"])
    def test_an_etcd_of_somebody_else_is_in_the_way(self, world: World, active: str) -> None:
        world.change(TWO, units={layout.UNIT: UnitState("loaded", active, "running", "enabled")})
        assert world.refused_with() == [(TWO.place, "foreign-installation")]


def test_no_certificate_is_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "authority", lambda *_, **__: pytest.fail("a CA was looked for"))
    world.observe()
