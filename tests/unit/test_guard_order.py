"""What the guard asks, how often, what it keeps of it, and what it tells the workers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from provision.errors import PreflightFailed, Problem, UsageError
from provision.etcd.api.values import MemberStatus, RegisteredMember
from provision.etcd.cluster import gates, groups, guard, health, last_seen
from provision.etcd.cluster.groups import Answer, Disk, Note, Seen
from provision.etcd.cluster.guard import Look
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.member import layout
from provision.etcd.member.backups import STAMP
from provision.host import gather
from provision.host.facts import HostFacts, Kind, Probe
from provision.inventory.resolved import Established, EtcdMember, Inventory, Machine
from provision.ssh.session import Fleet, Result, Unreachable
from tests.unit import builders, clock, hosts
from tests.unit.hosts import LocalFleet, LocalSession
from tests.unit.test_guard import NOTE, configured, serving, stopped

CLUSTER = builders.etcd()


class Looks:
    """The first look, and what the members that serve answer at each later one."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, look: Look, *later: Mapping[str, Answer]
    ) -> None:
        self.clock = clock.install(monkeypatch)
        self.asked: list[Etcd] = []
        self.later = list(later)
        monkeypatch.setattr(guard, "observe", self._observe)
        monkeypatch.setattr(health, "observe", self._again)
        monkeypatch.setattr(guard, "answers", lambda found: found)
        self.look = look

    def _observe(self, etcd: Etcd, plans: object = None) -> Look:
        self.asked.append(etcd)
        return self.look

    def _again(self, etcd: Etcd) -> Mapping[str, Answer]:
        self.asked.append(etcd)
        return self.later.pop(0) if self.later else {}

    def establish(self, wanted: str = "", **changed: object) -> Inventory:
        before = Established(5, frozenset({9}), name="5")
        inventory = builders.inventory(None, etcd=builders.etcd(established=before), **changed)
        with Fleet(1) as fleet:
            found = guard.establish(inventory, Etcd(inventory.etcd, fleet), wanted)
        # What an earlier command found out does not count while members are asked.
        assert {e.cluster.established for e in self.asked} == {Established()}
        assert replace(found, etcd=inventory.etcd, alluxio=inventory.alluxio) == inventory
        return found


def answers(*seen: Seen) -> dict[str, Answer]:
    return {m.name: m.answer for m in seen if m.answer is not None}


class TestLooks:
    def test_a_clear_answer_needs_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looks = Looks(monkeypatch, Look((serving(1), serving(2), serving(3))))
        assert looks.establish().etcd.established == Established(0xC1)
        assert len(looks.asked) == 1

    def test_a_refusal_needs_a_second_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The group that serves has gone on since the look at the third member."""
        behind = Look((serving(1, revision=900), serving(2, revision=900), stopped(3, 950)))
        found = answers(serving(1), serving(2))
        looks = Looks(monkeypatch, behind, found)
        assert looks.establish().etcd.established.cluster_id == 0xC1
        assert (len(looks.asked), looks.clock.slept) == (2, [])
        looks = Looks(monkeypatch, behind, {}, found)
        with pytest.raises(PreflightFailed, match="older data"):
            looks.establish()
        assert len(looks.asked) == 2

    def test_an_election_is_awaited_for_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        own = serving(3, cluster_id=0xDD, leader=3, revision=9000, members=frozenset({3}))
        electing = [serving(n, serves=False, leader=0) for n in (1, 2)]
        look = Look((*electing, own))
        still = answers(*electing, own)
        looks = Looks(monkeypatch, look, still, still, answers(serving(1), serving(2), own))
        with pytest.raises(PreflightFailed, match="more than one cluster"):
            looks.establish()
        assert len(looks.asked) == 4
        assert looks.clock.slept == [gates.POLL_SECONDS] * 2
        looks = Looks(monkeypatch, look)
        assert looks.establish().etcd.established.cluster_id == 0xDD
        assert sum(looks.clock.slept) == pytest.approx(gates.BACK_WITHIN, abs=1)

    def test_the_wish_is_kept_when_groups_part_meanwhile(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At the first look the wished group was not alone with its id."""
        own = serving(3, leader=3, revision=1, members=frozenset({3}))
        look = Look((serving(1), serving(2), own))
        looks = Looks(monkeypatch, look)
        assert looks.establish("c1-infra3").etcd.established.odd == {"infra1", "infra2"}

    def test_a_wish_for_a_group_that_is_gone_at_the_second_look(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        electing = [serving(n, serves=False, leader=0) for n in (1, 2)]
        own = serving(3, leader=3, members=frozenset({3}))
        look = Look((*electing, own))
        now = answers(serving(1), serving(2), serving(3))
        looks = Looks(monkeypatch, look, now)
        with pytest.raises(UsageError, match="no cluster 'c1-infra1'"):
            looks.establish("c1-infra1")

    def test_nobody_serves_and_a_wish_is_fulfilled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looks = Looks(monkeypatch, Look((stopped(1), stopped(2), stopped(3)), NOTE))
        assert looks.establish("c1").etcd.established == Established()

    def test_members_are_not_started_unless_a_command_says_so(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        look = Look((stopped(1), Seen("infra2"), Seen("infra3")), NOTE, configured(1, 2, 3))  # type: ignore[arg-type]
        assert Looks(monkeypatch, look).establish().etcd.established == Established()


class TestEndpoints:
    """Of voters that the inventory does not have, or has at another address."""

    FOUR = builders.member(4)

    def asked(self, *undeclared: EtcdMember, odd: bool = False) -> ClusterHealth:
        listed = tuple(
            RegisteredMember(int(m.name[-1]), m.name, (m.peer_url,), (m.client_url,), False)
            for m in (*CLUSTER.members, *undeclared)
        )
        status = MemberStatus(0xC1, 1, "3.6.16", 1, 1, 1, 1000, 5, 1200, False, ())
        alone = (RegisteredMember(3, "infra3", ("http://x:1",), ("http://x:2",), False),)
        members = [
            MemberHealth(
                m,
                status=replace(status, member_id=n, leader=3 if odd and n == 3 else 1),
                registered=alone if odd and n == 3 else listed,
            )
            for n, m in enumerate(CLUSTER.members, 1)
        ]
        return ClusterHealth(CLUSTER, tuple(reversed(members)))

    def test_the_workers_keep_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = (serving(1), serving(2), serving(3))
        looks = Looks(monkeypatch, Look(seen, asked=self.asked(self.FOUR)))
        found = looks.establish(alluxio=builders.alluxio(etcd_endpoints=("http://old:2379",)))
        assert found.etcd.established.endpoints == (self.FOUR.client_url,)
        assert found.alluxio is not None
        assert found.alluxio.etcd_endpoints == (*CLUSTER.endpoints, self.FOUR.client_url)
        assert found.alluxio.workers == builders.alluxio().workers

    def test_declared_ones_are_no_news(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = (serving(1), serving(2), serving(3))
        given = builders.alluxio(etcd_endpoints=("http://given:2379",))
        for asked in (self.asked(), None):
            found = Looks(monkeypatch, Look(seen, asked=asked)).establish(alluxio=given)
            assert found.etcd.established.endpoints == ()
            assert found.alluxio == given

    def test_without_workers_they_are_known_all_the_same(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = (serving(1), serving(2), serving(3))
        looks = Looks(monkeypatch, Look(seen, asked=self.asked(self.FOUR)))
        found = looks.establish(alluxio=None)
        assert found.alluxio is None
        assert found.etcd.established.endpoints == (self.FOUR.client_url,)

    def test_what_another_group_lists_does_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        odd = serving(3, cluster_id=0xDD, serves=False, revision=1, members=frozenset({3}))
        looks = Looks(monkeypatch, Look((serving(1), serving(2), odd), asked=self.asked(odd=True)))
        found = looks.establish(alluxio=None).etcd.established
        assert found.endpoints == ()
        assert found.odd == {"infra3"}


class TestKept:
    """The members' answers, for a plan that is made at once."""

    def kept(
        self, monkeypatch: pytest.MonkeyPatch, asked: ClusterHealth, *, plans: bool = True
    ) -> tuple[object, Inventory]:
        Looks(monkeypatch, Look((serving(1), serving(2), serving(3)), asked=asked))
        with Fleet(1) as fleet:
            etcd = Etcd(CLUSTER, fleet)
            given = builders.inventory(None, etcd=CLUSTER)
            found = guard.establish(given, etcd, plans=(lambda _: {}) if plans else None)
        return etcd.learned.asked, found

    def test_of_members_that_are_all_well(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = TestEndpoints().asked()
        kept, found = self.kept(monkeypatch, asked)
        assert kept == (None, replace(asked, cluster=found.etcd))
        assert found.etcd.established == Established(0xC1)

    def test_not_for_a_command_that_may_change_something_first(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.kept(monkeypatch, TestEndpoints().asked(), plans=False)[0] is None

    @pytest.mark.parametrize(
        "odd",
        [
            {"error": "no answer", "status": None},
            {"error": "it serves no reads"},
            {"status": MemberStatus(0xDD, 1, "3.6.16", 1, 1, 1, 1000, 5, 1200, False, ())},
        ],
        ids=["away", "without a quorum", "of another cluster"],
    )
    def test_not_when_one_is_not(
        self, monkeypatch: pytest.MonkeyPatch, odd: dict[str, object]
    ) -> None:
        asked = TestEndpoints().asked()
        first, *others = asked.members
        members = (replace(first, **odd), *others)  # type: ignore[arg-type]
        assert self.kept(monkeypatch, replace(asked, members=members))[0] is None


class TestStart:
    """Whether members may be started, by the configurations on their hosts."""

    @staticmethod
    def hosts(
        state: str = "new", first: Mapping[str, str] | None = None
    ) -> dict[Machine, HostFacts]:
        found: dict[Machine, HostFacts] = {}
        for m in CLUSTER.members:
            said = (first or {}).get(
                m.name, ",".join(f"{o.name}={o.peer_url}" for o in CLUSTER.members)
            )
            text = f'initial-cluster: "{said}"\ninitial-cluster-state: "{state}"\n'
            number = int(m.name[-1])
            base = configured(number)[m.machine]
            paths = {**base.paths, "/etc/etcd/etcd.conf.yml": hosts.text(text)}
            found[m.machine] = replace(base, paths=paths)
        return found

    @staticmethod
    def may(look: Look) -> frozenset[str]:
        verdict = groups.Silent(groups.form(look.seen))
        return guard._may_start(CLUSTER, look, verdict)

    NOBODY = (Seen("infra1"), Seen("infra2"), Seen("infra3"))

    def test_no_data_and_a_configuration_of_a_first_start_is_a_first_start(self) -> None:
        assert self.may(Look(self.NOBODY, None, self.hosts())) == frozenset()

    def test_no_data_of_a_cluster_that_exists_is_a_loss(self) -> None:
        with pytest.raises(PreflightFailed) as refused:
            self.may(Look(self.NOBODY, None, self.hosts("existing")))
        assert "says that the cluster exists" in refused.value.problems[-1].what
        assert "mount the data disks" in refused.value.problems[-1].remedy

    def test_the_first_members_of_all_configurations_count(self) -> None:
        """infra3 joined later: its own configuration and infra2's name it, infra1's does not."""
        one, two, three = CLUSTER.members
        short = f"{one.name}={one.peer_url},{two.name}={two.peer_url}"
        whole = f"{short},{three.name}={three.peer_url}"
        facts = self.hosts("existing", {"infra1": whole, "infra2": short, "infra3": whole})
        look = Look((stopped(1), stopped(2), Seen("infra3")), NOTE, facts)
        assert self.may(look) == {"infra3"}
        facts = self.hosts("existing", {"infra1": short, "infra2": short, "infra3": whole})
        assert self.may(Look(look.seen, NOTE, facts)) == frozenset()

    def test_only_the_data_of_first_members_is_missed(self) -> None:
        one, two, _ = CLUSTER.members
        first = dict.fromkeys(("infra1", "infra2", "infra3"), f"{one.name}=x,{two.name}=y")
        facts = self.hosts("existing", first)
        with pytest.raises(PreflightFailed) as refused:
            self.may(Look((stopped(1), Seen("infra2"), Seen("infra3")), NOTE, facts))
        assert refused.value.problems[-1].remedy.startswith("mount the data disk of infra2; if")
        with pytest.raises(PreflightFailed) as refused:
            self.may(Look((stopped(1), Seen("infra2", looked=False), Seen("infra3")), NOTE, facts))
        assert refused.value.problems[-1].remedy.startswith("find out which data is right")

    def test_who_moved_is_told_apart_by_its_address(self) -> None:
        look = Look((stopped(1), stopped(2), stopped(3)), NOTE, configured(1, 2, 3, port=9))  # type: ignore[arg-type]
        with pytest.raises(PreflightFailed) as refused:
            self.may(look)
        assert "recover-etcd infra1" in refused.value.problems[-1].remedy

    def test_a_host_that_is_away_says_nothing(self) -> None:
        facts = self.hosts("existing")
        del facts[CLUSTER.members[0].machine]
        look = Look((stopped(1), stopped(2), Seen("infra3")), NOTE, facts)
        assert self.may(look) == {"infra3"}


class TestObserve:
    def test_a_silent_member_s_host_is_asked_again_and_keeps_what_it_said(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[Fleet, set[str]]] = []
        data = {"/var/lib/etcd/member": hosts.text("")}

        def gathered(
            fleet: Fleet, probes: Mapping[Machine, Probe]
        ) -> tuple[dict[Machine, HostFacts], list[object]]:
            asked.append((fleet, {m.host for m in probes}))
            return {m: hosts.facts(1, paths=data) for m in probes}, []

        handles: list[Etcd] = []

        def look(etcd: Etcd) -> ClusterHealth:
            handles.append(etcd)
            return ClusterHealth(
                CLUSTER, tuple(MemberHealth(m, error="no") for m in CLUSTER.members)
            )

        monkeypatch.setattr(gather, "gather_facts", gathered)
        monkeypatch.setattr(health, "observe", look)
        with Fleet(1) as fleet:
            handle = Etcd(CLUSTER, fleet)
            found = guard.observe(handle)
        assert handles == [handle]
        assert asked == [(fleet, {"10.0.0.1", "10.0.0.2", "10.0.0.3"})] * 2
        assert set(found.facts) == {m.machine for m in CLUSTER.members}

    def test_what_a_plan_needs_is_asked_in_the_same_round_trip(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Mapping[Machine, Probe]] = []
        silent = {"/var/lib/etcd/member": hosts.text("")}

        def gathered(
            _: Fleet, probes: Mapping[Machine, Probe]
        ) -> tuple[dict[Machine, HostFacts], list[object]]:
            asked.append(probes)
            of = {1: {}, 2: silent}  # the third cannot be reached
            return {
                m: hosts.facts(1, paths=of[n]) for m in probes if (n := int(m.host[-1])) in of
            }, []

        monkeypatch.setattr(gather, "gather_facts", gathered)
        monkeypatch.setattr(
            health,
            "observe",
            lambda _: ClusterHealth(
                CLUSTER, tuple(MemberHealth(m, error="no") for m in CLUSTER.members)
            ),
        )
        first, second, third = (m.machine for m in CLUSTER.members)
        paths = ("/x", "/var/lib/etcd/member")
        wanted = Probe(ports=(2379,), paths=paths, commands={"a": "b"}, kinds=Kind.ADDRESSES)
        etcd = Etcd(CLUSTER, Fleet(1))
        guard.observe(etcd, lambda _: dict.fromkeys((first, second, third), wanted))
        probe = asked[0][first]
        assert (probe.ports, probe.commands) == ([2379], {"a": "b"})
        assert Kind.ADDRESSES in probe.kinds
        assert tuple(probe.paths[:2]) == wanted.paths  # each once
        assert len(probe.paths) == len({*probe.paths})
        assert "/etc/systemd/system/etcd.service" in {r.place().path for r in probe.resources}  # type: ignore[union-attr]
        # The second one was asked for its data only when it was silent.
        assert set(asked[1]) == {second}
        assert set(etcd.learned.looked) == {first}
        assert etcd.learned.looked[first][0] is wanted
        guard.observe(etcd)
        assert etcd.learned.looked == {}

    def test_the_first_answer_of_a_host_stays_where_only_others_are_asked_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = {"/var/lib/etcd/member": hosts.text("")}
        paths = {1: data, 2: data, 3: {}}

        def gathered(
            _: Fleet, probes: Mapping[Machine, Probe]
        ) -> tuple[dict[Machine, HostFacts], list[object]]:
            return {m: hosts.facts(1, paths=paths[int(m.host[-1])]) for m in probes}, []

        def look(etcd: Etcd) -> ClusterHealth:
            return ClusterHealth(
                CLUSTER, tuple(MemberHealth(m, error="no") for m in CLUSTER.members)
            )

        monkeypatch.setattr(gather, "gather_facts", gathered)
        monkeypatch.setattr(health, "observe", look)
        with Fleet(1) as fleet:
            found = guard.observe(Etcd(CLUSTER, fleet))
        assert set(found.facts) == {m.machine for m in CLUSTER.members}
        assert [m.has_data for m in found.seen] == [True, True, False]

    def test_the_names_of_an_external_etcd_are_its_endpoints(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        external = replace(CLUSTER, external=True)
        monkeypatch.setattr(gather, "gather_facts", lambda *_: ({}, []))
        monkeypatch.setattr(
            health,
            "observe",
            lambda _: ClusterHealth(
                external, tuple(MemberHealth(m, error="no") for m in external.members)
            ),
        )
        with Fleet(1) as fleet:
            found = guard.observe(Etcd(external, fleet))
        assert [m.name for m in found.seen] == ["infra1", "infra2", "infra3"]


class TestNote:
    """What the last run notes about the cluster that serves."""

    def take(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *members: MemberHealth
    ) -> tuple[Note | None, list[str]]:
        folder = tmp_path / "etc"
        folder.mkdir(exist_ok=True)
        cluster = replace(CLUSTER, config_dir=str(folder))
        path = Path(layout.last_seen(cluster))
        path.unlink(missing_ok=True)
        asked: list[Etcd] = []

        def look(etcd: Etcd) -> ClusterHealth:
            asked.append(etcd)
            return ClusterHealth(cluster, members)

        monkeypatch.setattr(health, "observe", look)
        with LocalFleet(tmp_path) as fleet:
            handle = Etcd(cluster, fleet)
            said = last_seen.take(handle)
        assert asked == [handle]
        return (last_seen.parse(path.read_text()) if path.exists() else None), [
            p.what for p in said
        ]

    @staticmethod
    def member(n: int, *, error: str = "", **changed: int) -> MemberHealth:
        status = MemberStatus(0xC1, n, "3.6.16", 1, 1, 1, 800, 4, 900, False, ())
        listed = (
            *(RegisteredMember(i, f"infra{i}", (), (), False) for i in (1, 2)),
            RegisteredMember(3, "", (), (), False),
            RegisteredMember(4, "infra4", (), (), True),
        )
        status = replace(status, **changed)  # type: ignore[arg-type]
        return MemberHealth(CLUSTER.members[n - 1], status=status, registered=listed, error=error)

    @pytest.mark.process
    def test_the_newest_of_those_that_serve(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = self.member(1, revision=801, raft_index=905, raft_term=4)
        two = self.member(2, revision=802, raft_index=903, raft_term=5)
        sick = self.member(3, error="no quorum", cluster_id=0xDD, revision=9000)
        note, _ = self.take(tmp_path, monkeypatch, one, two, sick)
        assert note is not None
        assert (note.cluster_id, note.term, note.index, note.revision) == (0xC1, 5, 905, 802)
        # A learner does not count for a majority, and one without a name has never started.
        assert note.members == {"infra1", "infra2"}

    @pytest.mark.process
    def test_the_time_is_utc_wherever_the_control_machine_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "Asia/Tokyo")
            time.tzset()
            note, _ = self.take(tmp_path, patch, self.member(1))
        time.tzset()
        assert note is not None
        at = datetime.strptime(note.when, STAMP).replace(tzinfo=timezone.utc)
        assert abs((datetime.now(timezone.utc) - at).total_seconds()) < 3600

    def test_nothing_is_noted_of_two_clusters_or_of_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = self.member(2, cluster_id=0xDD)
        assert self.take(tmp_path, monkeypatch, self.member(1), other) == (None, [])
        assert self.take(tmp_path, monkeypatch, self.member(1, error="no quorum")) == (None, [])
        external = replace(CLUSTER, external=True)
        with Fleet(1) as fleet:
            assert last_seen.take(Etcd(external, fleet)) == []

    @pytest.mark.process
    def test_who_has_no_note_is_said_when_nobody_has_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A host that is away keeps its older note, and the newest note counts."""
        away: set[str] = set()
        run = LocalSession.run

        def some(session: LocalSession, script: str, what: str) -> Result:
            if session.machine.host in away:
                problem = Problem(session.machine.host, "no route", id="host-unreachable")
                raise Unreachable("no route", [problem], id="host-unreachable")
            return run(session, script, what)

        monkeypatch.setattr(LocalSession, "run", some)
        away = {"10.0.0.1", "10.0.0.2"}
        note, said = self.take(tmp_path, monkeypatch, self.member(1))
        assert note is not None
        assert said == []
        away = {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
        note, said = self.take(tmp_path, monkeypatch, self.member(1))
        assert note is None
        assert len(said) == 3


def test_data_that_cannot_be_read_is_no_data_of_another_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    odd = serving(3, cluster_id=0xDD, serves=False, revision=1, members=frozenset({3}))
    unread = Seen("infra2", disk=Disk())
    one = serving(1, members=frozenset({1}))
    looks = Looks(monkeypatch, Look((one, unread, odd)))
    found = looks.establish("c1").etcd.established
    assert found == Established(0xC1, frozenset({3}), frozenset({"infra3"}), name="c1")


class TestMembersThatListenElsewhere:
    """The inventory has another client port than the configuration on the hosts."""

    def asked(
        self, monkeypatch: pytest.MonkeyPatch, *silent: int, starts: bool = True
    ) -> list[list[int | None]]:
        """At which ports the members were asked, look by look; None: at the declared one."""
        facts: dict[object, HostFacts] = {}
        for m, seen in zip(CLUSTER.members, configured(1, 2, 3).values(), strict=True):
            path = layout.config_file(CLUSTER)
            listen = f'listen-client-urls: "http://{m.address}:3379"\n'
            text = hosts.text((seen.text(path) or "") + listen)
            data = {f"{m.data_dir}/member": hosts.text("")}
            facts[m.machine] = replace(seen, paths={**seen.paths, **data, path: text})
        asked: list[list[int | None]] = []

        def observe(etcd: Etcd, plans: object = None) -> Look:
            members = etcd.cluster.members
            at = [m.serves_at for m in members]
            asked.append([None if p is None else p.port for p in at])
            found = [
                Seen(m.name) if n in silent and m.serves_at is None else serving(n)
                for n, m in enumerate(members, 1)
            ]
            return Look(tuple(found), NOTE, facts=facts)  # type: ignore[arg-type]

        monkeypatch.setattr(guard, "observe", observe)
        inventory = builders.inventory(None)
        with Fleet(1) as fleet:
            found = guard.establish(inventory, Etcd(inventory.etcd, fleet), "", starts=starts)
        assert found.etcd.established is not None
        assert [m.serves_at and m.serves_at.port for m in found.etcd.members] == asked[-1]
        return asked

    def test_those_that_do_not_answer_are_asked_there(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.asked(monkeypatch, 2) == [[None] * 3, [None, 3379, None]]
        assert self.asked(monkeypatch, 1, 2, 3) == [[None] * 3, [3379] * 3]

    def test_one_look_is_enough_when_all_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.asked(monkeypatch) == [[None] * 3]

    def test_a_command_that_starts_nobody_asks_where_it_is_declared(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.asked(monkeypatch, 2, starts=False) == [[None] * 3]
