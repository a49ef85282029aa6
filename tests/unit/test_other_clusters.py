"""Who else uses an etcd whose data is taken back: what is known, and what the operator must say."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.membership import clusters
from provision.alluxio.membership.clusters import Cluster, Clusters, LocalLook
from provision.engine.guards import Guard
from provision.errors import PreflightFailed, Problem, Unhealthy, UsageError
from provision.etcd.api.values import MemberStatus
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.member import layout
from provision.host import gather, safely
from provision.host.effects import Effect
from provision.host.facts import HostFacts, PathState, Probe, UnitState
from provision.inventory.resolved import Machine
from provision.plans.etcd.state import other_clusters
from provision.plans.etcd.state.other_clusters import Harm, Others
from provision.ssh.session import Fleet
from tests.unit import builders, hosts

DATA = PathState("dir", "etcd", "etcd", 0o700, 1)
NAMES = ("infra1", "infra2", "infra3")


class World:
    """Three members. ``live``: what a read with a quorum says; None: there is none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inventory = builders.inventory()
        self.live: dict[str, int] | None = {}
        self.local = LocalLook({}, (), (Problem("etcd", "no answer", id="member-down"),))
        self.active: set[str] = set()
        self.stored: dict[str, str] = {}
        self.data = {*NAMES}
        self.asked: list[Machine] = []
        monkeypatch.setattr(clusters, "look", self._look)
        monkeypatch.setattr(clusters, "look_locally", lambda *_: self.local)
        monkeypatch.setattr(gather, "gather_facts", self._gather)
        self.health: tuple[MemberHealth, ...] = ()
        monkeypatch.setattr(
            health, "observe", lambda etcd: ClusterHealth(etcd.cluster, self.health)
        )

    def _look(self, *_: object) -> Clusters:
        if self.live is None:
            raise Unhealthy("no quorum", id="quorum-lost")
        own = Cluster(self.inventory.cluster, 1, 1, clusters.OURS, ())
        return Clusters((own, *(Cluster(n, c, c, "", ()) for n, c in self.live.items())), True, 1)

    def _gather(
        self, _: object, probes: Mapping[Machine, Probe]
    ) -> tuple[dict[Machine, HostFacts], list[Problem]]:
        assert probes, "nobody is to be asked"
        assert all(set(p.commands) == {"clusters"} and not p.kinds for p in probes.values())
        self.asked += probes
        members = self.inventory.etcd.members
        said = {m.machine: self.stored.get(m.name, "") for m in members if m.machine in probes}
        return {m: hosts.facts(commands={"clusters": text}) for m, text in said.items()}, []

    def facts(self) -> dict[Machine, HostFacts]:
        found = {}
        for n, m in enumerate(self.inventory.etcd.members, 1):
            paths = {f"{m.data_dir}/member": DATA} if m.name in self.data else {}
            state = "active" if m.name in self.active else "inactive"
            unit = UnitState("loaded", state, "running", "enabled")
            found[m.machine] = hosts.facts(n, paths=paths, units={layout.UNIT: unit})
        return found

    def ask(
        self, *named: str, word: str = "", begun: bool = False, more: tuple[str, ...] = ()
    ) -> list[str]:
        """The warnings. Raises as the command does."""
        with Fleet(1) as fleet:
            etcd = Etcd(self.inventory.etcd, fleet)
            notes = other_clusters.of_data(
                self.inventory, etcd, self.facts(), named, word, begun=begun, more=more
            )
            assert Guard.OTHER_CLUSTERS in etcd.learned.passed
        assert all(n.severity == "warning" for n in notes)
        return [f"{n.where} {n.what}" for n in notes]

    def refused(self, *named: str, more: tuple[str, ...] = ()) -> tuple[str, str, str]:
        with pytest.raises(PreflightFailed) as caught:
            self.ask(*named, more=more)
        last = caught.value.problems[-1]
        return caught.value.id, last.what, last.remedy


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


class TestAnEtcdThatServes:
    def test_nobody_else_is_there(self, world: World) -> None:
        assert world.ask() == []
        world.live = {"idle": 0}
        assert world.ask() == []
        assert world.asked == []

    def test_live_workers_of_others_want_their_names(self, world: World) -> None:
        world.live = {"team": 3, "more": 1}
        assert world.refused("team")[0] == "other-clusters-live"
        assert "add --other-cluster more" in world.refused("team")[2]
        said = world.ask("team", "more")
        assert said[0].startswith("cluster team has 3 live workers in this etcd, which lose")

    def test_the_word_about_the_unknown_covers_no_live_workers(self, world: World) -> None:
        world.live = {"team": 3}
        with pytest.raises(PreflightFailed):
            world.ask(word="c")

    def test_names_that_are_nowhere(self, world: World) -> None:
        with pytest.raises(UsageError, match=r"--other-cluster: .* x"):
            world.ask("x")
        assert world.ask("x", more=("x",)) == []
        with pytest.raises(UsageError, match="names the cluster, c,"):
            world.ask(word="team")


class TestAnEtcdThatIsDown:
    @pytest.fixture(autouse=True)
    def _down(self, world: World) -> None:
        world.live = None
        world.stored = dict.fromkeys(NAMES, "c\nend of clusters")

    def test_data_that_names_nobody_else(self, world: World) -> None:
        """As after the loss of two of three hosts: a recovery must stay possible."""
        (said,) = world.ask()
        assert said.endswith(
            "by the data of infra1, infra2, infra3 no other cluster has live workers"
        )
        world.data = set()
        (said,) = world.ask()
        assert "no data here names another cluster" in said
        world.stored = {}
        world.data = {"infra1"}
        id, what, remedy = world.refused()
        assert id == "other-clusters-unknown"
        assert what == "the data of infra1 could not be read"
        assert "--other-cluster NAME" not in remedy  # there is no name to give up

    def test_names_in_the_data_are_asked_for(self, world: World) -> None:
        world.stored["infra2"] = "c\nte\x1bam\nend of clusters"
        id, what, remedy = world.refused()
        assert id == "other-clusters-unknown"
        assert (
            "by the data of infra1, infra2, infra3 there are other clusters: te\ufffdam (" in what
        )
        assert "te\ufffdam (perhaps with live workers)" in what
        assert "--other-cluster NAME" in remedy
        assert "--other-clusters-unknown c" in remedy
        assert len(world.ask("te\ufffdam")) == 2
        assert "are not looked for" in world.ask(word="c")[0]

    def test_more_names_than_a_host_lists_are_not_known(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Somebody has written names that come before the real ones."""
        monkeypatch.setattr(other_clusters, "LISTED", 3)
        world.stored["infra2"] = "a\nb\nc\nend of clusters"
        assert world.ask("a", "b")
        world.stored["infra2"] = "a\nb\nc\nd\nend of clusters"
        id, what, _ = world.refused("a", "b")
        assert id == "other-clusters-unknown"
        assert what == "the data of infra2 names more than 3 clusters"
        assert world.ask(word="c")

    def test_names_in_the_snapshot_are_asked_for(self, world: World) -> None:
        assert "team (perhaps" in world.refused(more=("c", "team"))[1]
        assert world.ask("team", more=("c", "team"))

    def test_a_member_that_answers_is_not_read(self, world: World) -> None:
        world.local = LocalLook({"team": 2}, ("infra1",), ())
        assert "team (2 live workers)" in world.refused()[1]
        hosts_of = {m.name: m.machine for m in world.inventory.etcd.members}
        assert {*world.asked} == {hosts_of["infra2"], hosts_of["infra3"]}

    def test_a_majority_that_runs_may_serve_others(self, world: World) -> None:
        """A lost password, or a firewall: their workers may be live, and no data is read."""
        world.active = {"infra1", "infra2"}
        assert world.refused()[1] == "no member could be asked for them"
        assert world.asked == []
        assert world.ask(word="c")
        world.active = {"infra1"}
        assert world.ask()

    def test_what_etcd_has_said_with_a_quorum_stays(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its answer was cut; no data that is read says more than that."""
        cut = Others({"seen": 0}, why="not everything was read")
        monkeypatch.setattr(other_clusters, "look", lambda *_: cut)
        assert world.refused()[1] == cut.why
        assert world.asked == []

    def test_a_run_that_goes_on_asks_nobody(self, world: World) -> None:
        """It has stopped the members itself."""
        world.stored = {}
        assert world.ask("whoever", begun=True) == []
        assert world.asked == []


def by_shell(data: Path, script: str) -> str:
    assert data.is_dir()
    run = ["sh", "-ec", f"{safely.FUNCTIONS}\n{script}"]
    return subprocess.run(run, capture_output=True, check=True).stdout.decode()


@pytest.mark.process
@pytest.mark.parametrize(
    ("unreadable", "gone"), [("", ""), ("snap/db", ""), ("wal/1.wal", ""), ("", "snap/db")]
)
def test_the_names_in_the_data_of_a_host(tmp_path: Path, unreadable: str, gone: str) -> None:
    member = builders.member(1, data_dir=str(tmp_path))
    for folder in ("snap", "wal"):
        (tmp_path / "member" / folder).mkdir(parents=True)
    long = b"/DHT/" + b"x" * 300 + b"/"
    body = b"\0" * 5000 + b"\x0a\x20/DHT/a b/AUTHORIZED/w1\x10\0/ServiceDiscovery/c/w\0" + long
    (tmp_path / "member/snap/db").write_bytes(body)
    (tmp_path / "member/wal/1.wal").write_bytes(b"\xff/DHT/a b/\0\0/DHT/\xc3\xa4/x/other/d/")
    for name in filter(None, (unreadable, gone)):
        (tmp_path / "member" / name).unlink()
    if unreadable:
        (tmp_path / "member" / unreadable).mkdir()
    lines = by_shell(hosts.given(tmp_path), other_clusters.names_in(member)).splitlines()
    names = ["a b", "ä"] if gone else ["a b", "c", "ä"]
    assert lines == ([] if unreadable else [*names, "end of clusters"])


@pytest.mark.process
def test_a_host_lists_no_more_names_than_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more shows that there are more."""
    monkeypatch.setattr(other_clusters, "LISTED", 2)
    member = builders.member(1, data_dir=str(tmp_path))
    (tmp_path / "member/snap").mkdir(parents=True)
    (tmp_path / "member/snap/db").write_bytes(b"".join(b"/DHT/%d/" % n for n in range(9)))
    lines = by_shell(hosts.given(tmp_path), other_clusters.names_in(member)).splitlines()
    assert lines == ["0", "1", "2", "end of clusters"]


@pytest.mark.process
def test_a_disk_that_fails_in_the_middle_hides_no_name(tmp_path: Path) -> None:
    member = builders.member(1, data_dir=str(tmp_path))
    (tmp_path / "member/snap").mkdir(parents=True)
    (tmp_path / "member/snap/db").write_bytes(b"/DHT/c/x")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "tr").write_text("#!/bin/sh\nhead -c 3; exit 1\n")
    (tools / "tr").chmod(0o755)
    script = f"PATH=./bin:$PATH\n{other_clusters.names_in(member)}"
    said = by_shell(hosts.given(tmp_path), script)
    assert said.splitlines() == ["(part of the data cannot be read)", "end of clusters"]


def test_only_these_effects_need_the_question() -> None:
    from provision.engine.guards import APPLIES

    assert APPLIES[Guard.OTHER_CLUSTERS] == {Effect.ETCD_GONE, Effect.ETCD_BACK, Effect.CLIENTS}


HARM = Harm("in this etcd", "stop them", "--other-cluster")


class TestTheLook:
    """What is known when etcd serves no reads with a quorum, or two clusters serve."""

    def look(self, world: World) -> Others:
        with Fleet(1) as fleet:
            return other_clusters.look(world.inventory, Etcd(world.inventory.etcd, fleet))

    def part(self, world: World) -> None:
        def status(n: int) -> MemberStatus:
            return MemberStatus(n, n, "3.6.16", 1, 1, n, 1, 1, 1, False, ())

        members = world.inventory.etcd.members
        world.health = tuple(MemberHealth(m, status=status(n)) for n, m in enumerate(members, 1))

    def test_two_clusters_are_asked_member_by_member(self, world: World) -> None:
        """One of them answers the read, and knows nothing of the other one's workers."""
        world.local = LocalLook({"team": 2}, NAMES, ())
        assert self.look(world) == Others(own=1)
        self.part(world)
        found = self.look(world)
        assert found.live == {"team": 2}
        assert found.state == "the members form more than one cluster"
        assert (found.asked, found.by, found.why) == (NAMES, NAMES, "")

    def test_live_workers_that_a_quorum_has_named_are_enough(self, world: World) -> None:
        world.live = {"team": 3}
        self.part(world)
        assert self.look(world) == Others({"team": 3}, 1)

    def test_less_than_a_majority_may_not_know_all(self, world: World) -> None:
        world.live = None
        cut = Problem("infra2", "is cut off", id="member-down")
        world.local = LocalLook({"team": 0}, ("infra1",), (cut,))
        found = self.look(world)
        assert "only infra1 could be asked: less than a majority" in found.why
        assert (found.own, found.problems) == (0, (cut,))
        world.local = LocalLook({"team": 0}, ("infra1", "infra3"), (cut,))
        assert self.look(world).why == ""

    def test_why_nobody_could_be_asked(self, world: World) -> None:
        world.live = None
        own = world.local.problems
        assert own
        assert self.look(world).problems == own
        assert self.look(world).own == 0
        world.local = LocalLook({}, (), ())
        found = self.look(world)
        assert found.why == "no member could be asked for them"
        assert found.problems == Unhealthy("no quorum", id="quorum-lost").problems


@pytest.mark.parametrize(("members", "majority"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_a_majority_runs(members: int, majority: int) -> None:
    cluster = builders.etcd(*(builders.member(n) for n in range(1, members + 1)))
    unit = UnitState("loaded", "active", "running", "enabled")
    facts = {
        m.machine: hosts.facts(n, units={layout.UNIT: unit})
        for n, m in enumerate(cluster.members, 1)
    }
    for running in range(members + 1):
        up = dict([*facts.items()][:running])
        assert other_clusters.runs(up, cluster.members) is (running >= majority)


class TestWhatMustBeSaid:
    def require(self, others: Others, **options: Any) -> list[str]:
        with Fleet(1) as fleet:
            etcd = Etcd(builders.etcd(), fleet)
            return [n.what for n in other_clusters.require(etcd, others, HARM, **options)]

    def test_an_etcd_that_cannot_be_asked_is_no_leave_to_go_on(self) -> None:
        with pytest.raises(PreflightFailed) as caught:
            self.require(Others(why="no member could be asked"))
        assert caught.value.id == "other-clusters-unknown"
        assert self.require(Others(why="no member could be asked"), agreed=True)

    @pytest.mark.parametrize(("count", "end"), [(1, ")"), (20, ")"), (22, ") and 2 more")])
    def test_a_line_names_twenty(self, count: int, end: str) -> None:
        live = {f"c{n:02}": 1 for n in range(count)}
        [said, *_] = self.require(Others(live, state="no quorum"), agreed=True)
        assert "no quorum, and there are other clusters: c00 (1 live worker)" in said
        assert said.endswith(end)
        assert said.count("live worker)") == min(count, 20)
