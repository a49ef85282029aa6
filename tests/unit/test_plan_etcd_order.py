"""upgrade-etcd, deploy-etcd and the changes of members: states that the other tests do not have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision import artifacts
from provision.alluxio.membership import clusters
from provision.engine.plan import Action, Plan
from provision.errors import PreflightFailed, Problem
from provision.etcd.api.values import RegisteredMember
from provision.etcd.cluster import hashes
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.hashes import Comparison
from provision.etcd.cluster.todo_keys import Pending
from provision.etcd.member import layout
from provision.etcd.member.membership_diff import NOT_DECLARED
from provision.etcd.pki import external_ca, own_ca, tls
from provision.host import gather
from provision.host.diff import Change
from provision.host.effects import Effect
from provision.host.facts import HostFacts, Probe
from provision.host.predict import after
from provision.host.resources import Tree
from provision.inventory.model import EtcdTls
from provision.inventory.resolved import ClientPort, Machine
from provision.plans.etcd import before_3_6, deploy_etcd, upgrade_etcd
from provision.plans.etcd.data import backup_etcd
from provision.plans.etcd.members import add_member, member_steps, remove_member
from provision.plans.etcd.state import member_preflight
from provision.ssh.session import Fleet
from tests.unit import builders, hosts, plan_text
from tests.unit.hosts import GIB, TARBALL, disk
from tests.unit.test_deploy_gates import installed, secured
from tests.unit.test_deploy_plan import World, full, with_settings
from tests.unit.test_member_plans import command, removed, short, with_new, world
from tests.unit.test_upgrade_plan import RELEASES, Running, made

pytestmark = pytest.mark.usefixtures("no_other_clusters")

#: Of a member that the inventory does not declare.
AWAY = f"({NOT_DECLARED})"
THREE = "infra1+infra2+infra3"


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> plan_text.Done:
    return plan_text.spell(monkeypatch)


@pytest.fixture(autouse=True)
def alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data of all members are equal."""
    monkeypatch.setattr(hashes, "compare", lambda *_: Comparison(9, {1: ("all",)}, 3))
    monkeypatch.setattr(hashes, "require_equal", lambda *_: None)
    monkeypatch.setattr(artifacts, "fetch", lambda *_, **__: TARBALL)


class TestUpgrade:
    @pytest.fixture(autouse=True)
    def ready(self, monkeypatch: pytest.MonkeyPatch, done: plan_text.Done) -> None:
        monkeypatch.setattr(before_3_6, "require_no_v2_data", lambda *_: None)

    def test_back_to_an_earlier_patch_release_every_member_gets_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """deploy-etcd would keep the newer one that is there."""
        plan = made(Running("3.5.35", "3.5.35", "3.5.35"), "3.5.10", monkeypatch)
        hops = [s for s in plan.steps if s.title.endswith("etcd 3.5.35 to 3.5.10")]
        assert len(hops) == 3
        for step in hops:
            whats = [c.what for c in step.hosts[0].changes]
            assert "point /opt/etcd/current to 3.5.10" in whats

    def test_a_release_that_only_the_second_look_shows_is_not_sent_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first look asks for the declared release alone."""
        running = Running("3.6.16", "3.6.16", "3.6.16")
        monkeypatch.setattr(upgrade_etcd, "cluster_version", lambda *_: (3, 6))
        by_machine = {m.machine: m.name for m in running.cluster.members}

        def look(_: Fleet, probes: Mapping[Machine, Probe]) -> dict[Machine, HostFacts]:
            found = {}
            for machine in probes:
                known = replace(running.facts[by_machine[machine]], commands={"v2": "none"})
                found[machine] = after([Tree("/opt/etcd/3.7.3", TARBALL)], known)
            return found

        monkeypatch.setattr(gather, "require_facts", look)
        plan = running.plan_to("3.7.3")
        assert [s.title for s in plan.steps][:2] == [
            "back up etcd",
            "infra2: etcd 3.6.16 to 3.7.3",
        ]
        assert not any(c.upload for s in plan.steps for h in s.hosts for c in h.changes)

    def test_the_way_back_is_to_the_lowest_release_by_its_numbers(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As texts, 3.5.10 is below 3.5.9. The lower one can read the data of all."""
        running = Running("3.5.9", "3.5.10", "3.5.10", works_by="3.5")
        backs = {
            s.after.title.rpartition("(back: ")[2]
            for s in made(running, "3.5.35", monkeypatch).steps
            if s.after and "(back: " in s.after.title
        }
        assert backs == {"3.5.9)"}

    def test_a_certificate_that_is_missing_comes_with_the_restart_of_its_member(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        releases = {v: builders.SOURCE for v in RELEASES}
        there = installed(
            replace(secured(tmp_path), releases=releases), own_ca.ensure_ca(tmp_path, "c")
        )
        running = Running("3.6.16", "3.6.16", "3.6.16")
        running.cluster, running.registered = there.cluster, there.registered
        running.facts = there.facts
        gone = f"{layout.pki_dir(there.cluster)}/peer.crt"
        running.facts["infra2"] = there.without("infra2", gone)
        written = {
            step.title.partition(":")[0]
            for step in made(running, "3.7.3", monkeypatch).steps
            for c in (step.hosts[0].changes if " to 3.7.3" in step.title else ())
            if gone in c.what
        }
        assert written == {"infra2"}

    def test_an_undeclared_member_is_named_with_the_refusal(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running = Running("3.5.35", "3.5.35", "3.5.35")
        fourth = builders.member(4)
        running.registered.append(
            RegisteredMember(4, "infra4", (fourth.peer_url,), (fourth.client_url,), False)
        )
        with pytest.raises(PreflightFailed) as refused:
            made(running, "3.6.16", monkeypatch)
        assert refused.value.id == "deploy-first"
        (problem,) = refused.value.problems
        assert (problem.where, problem.severity) == ("etcd member infra4", "error")


class TestDeploy:
    def test_certificates_under_an_alarm_are_shown_while_it_stands(
        self, monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
    ) -> None:
        """A gate that wants no alarm would stop the run before the alarm can be disarmed."""
        few = full("NOSPACE")
        external = object.__new__(external_ca.External)
        asked = Change("ask for a certificate", "", ask="true", disrupts=True)
        monkeypatch.setattr(tls, "authority", lambda *_, **__: external)
        for name in ("require_known", "require", "own_steps"):
            monkeypatch.setattr(tls, name, lambda *_: [])
        monkeypatch.setattr(deploy_etcd, "_changes", lambda *_: (asked,))
        plan = few.plan(with_settings(few.cluster, quota_backend_bytes=64 << 20))
        given = [s for s in plan.steps if s.title.startswith("give ")]
        assert [s.after and s.after.title for s in given] == [
            f"healthy {THREE} through {name} while NOSPACE"
            for name in ("infra2", "infra3", "infra1")
        ]
        assert plan.steps[-1].title == "disarm the alarm NOSPACE"

    def test_a_refused_change_names_the_undeclared_voter_that_counts(self) -> None:
        """Three of four vote; without infra3, only two are left that serve."""
        four = World(builders.etcd(*(builders.member(n) for n in (1, 2, 3, 4))))
        moved = builders.member(3, address="10.0.0.33", machine=Machine("10.0.0.3"))
        declared = replace(four.cluster, members=(*four.cluster.members[:2], moved))
        with pytest.raises(PreflightFailed) as refused:
            four.plan(declared)
        assert refused.value.id == "quorum-at-risk"
        assert {p.where for p in refused.value.problems} == {"etcd member infra4"}
        assert {p.severity for p in refused.value.problems} == {"error", "warning"}


class TestMembers:
    @pytest.mark.usefixtures("unplugged")
    def test_a_member_is_removed_by_its_number_in_hexadecimal(self, done: plan_text.Done) -> None:
        """check-nodes and etcdctl show it so; a member that never started has no name."""
        four = world(4)
        declared = replace(four.cluster, members=four.cluster.members[:3])
        four.registered[3] = replace(four.registered[3], id=0xABC)
        plan = command(remove_member.plan, four, "abc", cluster=declared)
        calls = [c.what for s in plan.steps for c in s.calls]
        assert any("(abc)" in call for call in calls)
        assert not any("infra1" in call or "infra2" in call for call in calls)

    def test_a_member_that_is_declared_under_another_name_is_found_by_its_address(
        self, done: plan_text.Done
    ) -> None:
        """etcd still has it without a name: it was added, and has not started yet."""
        four = world(4)
        four.registered[3] = replace(four.registered[3], name="", client_urls=())
        four.down.add("infra4")
        plan = command(remove_member.plan, four, "infra4")
        titles = [line for line in short(plan_text.text(plan)) if not line.startswith(" ")]
        assert titles[0] == "remove infra4"
        assert removed("infra4", THREE, note=True)[0] in short(plan_text.text(plan))

    def test_two_hosts_that_were_left_are_both_cleaned(self, done: plan_text.Done) -> None:
        three = World()
        three.pending = Pending(clean={"old1": "10.0.0.8", "old2": "10.0.0.9"})
        looked: list[str] = []

        def away(_: Fleet, probes: Mapping[Machine, Probe]) -> Any:
            looked.extend(m.host for m in probes)
            return {}, [Problem(m.host, "no route", id="host-unreachable") for m in probes]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gather, "gather_facts", away)
            plan = three.plan()
        assert looked == ["10.0.0.8", "10.0.0.9"]
        assert [(n.where, n.id) for n in plan.notes] == [
            (f"old1 at 10.0.0.8 {AWAY}", "host-not-cleaned"),
            (f"old2 at 10.0.0.9 {AWAY}", "host-not-cleaned"),
        ]


class TestHosts:
    """What keeps a host from being a member. A large disk has room although it is nearly full."""

    def problems(self, **seen: HostFacts) -> list[tuple[str, str]]:
        cluster = builders.etcd()
        facts = {m.machine: seen[m.name] for m in cluster.members if m.name in seen}
        found = member_preflight.members(cluster, facts)
        return [(p.where.split()[0], p.id) for p in found]

    def test_behind_a_host_that_is_away(self) -> None:
        elsewhere = hosts.facts(9)
        assert self.problems(infra2=elsewhere, infra3=elsewhere) == [
            ("infra2", "address-not-on-host"),
            ("infra3", "address-not-on-host"),
        ]

    @pytest.mark.parametrize(
        ("available", "total", "found"),
        [
            (20 * GIB, 100 * GIB, []),
            (10 * GIB, 100 * GIB, []),
            (9 * GIB, 100 * GIB, ["disk-full"]),
            (5 * GIB, 50 * GIB, ["disk-full"]),
            (6 * GIB, 50 * GIB, []),
        ],
    )
    def test_a_disk_that_is_nearly_full(self, available: int, total: int, found: list[str]) -> None:
        room = disk("/var/lib/etcd", available, total)
        seen = hosts.facts(1, disks={"/var/lib/etcd": room})
        assert [error for _, error in self.problems(infra1=seen)] == found


class TestMoreMembers:
    def test_one_of_two_odd_members_goes_and_the_alarm_stands(
        self, monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
    ) -> None:
        """Disarmed while infra2 has other data, etcd would raise it again, or spread the data."""
        found = Comparison(9, {1: ("infra1", "infra3", "infra5"), 2: ("infra2",), 3: ("infra4",)})
        monkeypatch.setattr(hashes, "compare", lambda *_: found)
        five = World(builders.etcd(*(builders.member(n) for n in range(1, 6))))
        five.alarms = ("CORRUPT",)
        lines = short(plan_text.text(command(remove_member.plan, five, "infra4")))
        assert not any("disarm" in line for line in lines)
        gates_ = [line for line in lines if "healthy" in line]
        assert gates_
        assert all("while CORRUPT" in line for line in gates_)

    def test_the_last_odd_member_goes_and_the_alarm_with_it(
        self, monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
    ) -> None:
        found = Comparison(9, {1: ("infra1", "infra3"), 2: ("infra2",)})
        monkeypatch.setattr(hashes, "compare", lambda *_: found)
        three = World()
        three.alarms = ("CORRUPT",)
        plan = command(remove_member.plan, three, "infra2")
        assert "disarm CORRUPT of infra1+infra3" in plan_text.called(plan, done)

    @pytest.mark.usefixtures("unplugged")
    def test_a_learner_that_was_left_over_goes(self, done: plan_text.Done) -> None:
        """It has no vote: the voters stay as they are."""
        four = world(4)
        four.registered[3] = replace(four.registered[3], is_learner=True)
        declared = replace(four.cluster, members=four.cluster.members[:3])
        plan = command(remove_member.plan, four, "infra4", cluster=declared)
        lines = short(plan_text.text(plan))
        assert lines[0] == "remove infra4"
        assert f" before: healthy {THREE}" in lines
        assert f" after: healthy {THREE}" in lines

    def test_of_a_single_member_a_former_host_is_cleaned(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = World(builders.etcd(builders.member(1)))
        one.pending = Pending(clean={"old": "10.0.0.9"})

        def away(_: Fleet, probes: Mapping[Machine, Probe]) -> Any:
            return {}, [Problem(m.host, "no route", id="host-unreachable") for m in probes]

        monkeypatch.setattr(gather, "gather_facts", away)
        assert [n.where for n in one.plan().notes] == [f"old at 10.0.0.9 {AWAY}"]

    def test_after_a_removal_the_note_is_given_to_the_members_that_stay(
        self, monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
    ) -> None:
        """The host of a removed member is cleaned by a second run; the member is gone by then."""
        four = world(4)
        four.registered.pop()
        four.pending = Pending(clean={"infra4": "10.0.0.4"})
        plan = command(remove_member.plan, four, "infra4")
        called = plan_text.called(plan, done)
        assert f"leader of {THREE}:" in called
        assert not any("infra4:" in line for line in called if line.startswith("leader of"))

    def test_a_member_that_moves_keeps_its_newer_patch_release(self, done: plan_text.Done) -> None:
        three = World(builders.etcd(version="3.6.16"))
        declared = replace(three.cluster, version="3.6.15")
        moved = replace(declared.members[2], peer_port=2480)
        plan = three.plan(replace(declared, members=(*declared.members[:2], moved)))
        (step,) = [s for s in plan.steps if s.title == "restart infra3 with its new address"]
        whats = [c.what for c in step.hosts[0].changes]
        assert "change /etc/etcd/etcd.conf.yml" in whats
        assert not any("3.6.15" in what for what in whats)


def calls(plan: Plan) -> list[Action]:
    return [call for step in plan.steps for call in step.calls]


class TestEffects:
    """A plan has the guards of what it does: a call that changes members says so."""

    def test_every_call_that_changes_the_members_says_so(
        self, monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
    ) -> None:
        monkeypatch.setattr(tls, "authority", lambda *_, **__: None)
        grown = world()
        added = command(add_member.plan, grown, "infra4", cluster=with_new(grown, 4))
        three = World()
        moved = replace(three.cluster.members[2], peer_port=2480)
        plans = [
            added,
            command(remove_member.plan, world(4), "infra4"),
            three.plan(replace(three.cluster, members=(*three.cluster.members[:2], moved))),
        ]
        verbs = ("add", "promote", "remove", "moves")
        seen = set()
        for call in (c for plan in plans for c in calls(plan)):
            if "record" in call.what:
                continue
            seen.add(
                next(word for word in ("add", "promote", "remove", "moves") if word in call.what)
            )
            # These leave their client URL; test_cut_off has what follows.
            ends = (Effect.CLIENTS, Effect.REMOVAL) if "etcd: remove" in call.what else ()
            assert call.effects == (Effect.MEMBERS, *ends), call.what
        assert seen == set(verbs)

    def test_peer_tls_changes_the_members(self, done: plan_text.Done, tmp_path: Path) -> None:
        three = World()
        secure = tuple(replace(m, peer_tls=True) for m in three.cluster.members)
        declared = replace(three.cluster, members=secure, tls=EtcdTls(pki_dir=tmp_path))
        found = [c for c in calls(three.plan(declared)) if c.what.startswith("update member")]
        assert [c.effects for c in found] == [(Effect.MEMBERS,)] * 3

    def test_a_plan_says_which_etcd_it_stops(self, done: plan_text.Done) -> None:
        plan = command(remove_member.plan, world(4), "infra4")
        stops = [c for s in plan.steps for h in s.hosts for c in h.changes if "stop" in c.what]
        assert [c.stops for c in stops] == [(layout.UNIT,)]
        facts = World().facts["infra3"]
        (first, *_) = member_steps._set_aside(builders.member(3), facts, ())
        assert first.stops == (layout.UNIT,)

    def test_a_backup_writes_on_this_machine(self, tmp_path: Path) -> None:
        inventory = builders.inventory()
        with Fleet(1) as fleet:
            step = backup_etcd.step(inventory, Etcd(inventory.etcd, fleet), tmp_path)
        assert [Effect.HERE in c.effects for c in step.calls] == [True]


class TestClientUrls:
    """Former client URLs go last, when nothing else is left to do."""

    @pytest.mark.parametrize(("down", "said"), [((), ""), (("infra3",), "infra3 is not healthy")])
    def test_a_member_that_is_not_healthy_comes_first(
        self, down: tuple[str, ...], said: str
    ) -> None:
        three = World()
        three.stop(*down)
        alarm = deploy_etcd._Alarm(frozenset(), solved=True)
        assert deploy_etcd._before_urls_go(three.observed(), (), alarm) == said

    @pytest.mark.usefixtures("done")
    def test_the_last_step_drops_the_former_url_and_keeps_tls_between_members(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A configuration without its certificates would part the member from the others."""
        monkeypatch.setattr(clusters, "look", lambda *_: clusters.Clusters((), True, 1))
        running = installed(secured(tmp_path), own_ca.ensure_ca(tmp_path, "c"))
        moved = tuple(
            replace(m, client_port=3379, serves_at=ClientPort(m.client_tls, 2379))
            for m in running.cluster.members
        )
        plan = running.plan(replace(running.cluster, members=moved))
        drops = [s for s in plan.steps if "no longer listens at" in s.title]
        assert [s.title.split()[0] for s in drops] == ["infra2", "infra3", "infra1"]
        for step in drops:
            config, restart = step.hosts[0].changes
            assert (config.what, restart.what) == (
                "change /etc/etcd/etcd.conf.yml",
                "restart etcd.service",
            )
            lines = [s for s in config.diff.splitlines() if s[0] in "+-"]
            changed = [s for s in lines if s[:3] not in ("+++", "---")]
            assert [s.split(":")[0] for s in changed] == [
                "-listen-client-urls",
                "+listen-client-urls",
            ]
            assert ":2379" not in changed[1]
