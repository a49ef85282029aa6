"""The plan of upgrade-etcd, as a value: backup, order of members, gates and hops, by the state that
a run finds. No host, no etcd."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from provision import artifacts
from provision.engine.plan import Gate, Plan, Step
from provision.errors import PreflightFailed, Problem, Unhealthy, UsageError
from provision.etcd.api.values import MemberStatus
from provision.etcd.cluster import gates, hashes, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.member import desired, layout
from provision.etcd.pki import imported, own_ca, tls
from provision.host import gather
from provision.host.facts import HostFacts, PathState, Probe
from provision.host.predict import after
from provision.host.resources import Tree
from provision.inventory.model import Source
from provision.inventory.resolved import EtcdCluster, EtcdMember, Machine
from provision.plans.etcd import before_3_6, before_3_7, upgrade_etcd
from provision.plans.etcd.state.observe import EtcdState
from provision.ssh.session import Fleet
from tests.unit import builders, clock, hosts, plan_text
from tests.unit.test_deploy_gates import installed, secured
from tests.unit.test_deploy_plan import World

RELEASES = ("3.4.23", "3.5.10", "3.5.35", "3.6.16", "3.7.3")
BACKUPS = Path("/backups")
ALL = "infra1+infra2+infra3"


class Running(World):
    """A cluster in which each member runs a release of its own."""

    def __init__(self, *versions: str, works_by: str = "", **changed: Any) -> None:
        members = [builders.member(n) for n in range(1, len(versions) + 1)]
        releases = {v: builders.SOURCE for v in RELEASES}
        super().__init__(builders.etcd(*members, releases=releases, **changed))
        self.versions = dict(zip((m.name for m in members), versions, strict=True))
        self.works_by = works_by or min(versions)
        #: What the look for v2 requests says of each member's log.
        self.v2 = {m.name: "v2" for m in members}
        for n, m in enumerate(members, 1):
            at = replace(self.cluster, version=self.versions[m.name])
            wanted = desired.resources(at, m, hosts.TARBALL, None, None, bootstrapped=True)
            there = after(wanted, hosts.facts(n))
            self.facts[m.name] = replace(there, paths={**there.paths, **self.data(m)})

    def observed(self, cluster: EtcdCluster | None = None) -> EtcdState:
        seen = super().observed(cluster)
        if seen.running is None:
            return replace(seen, health=self._as_they_run(seen.health))
        running = replace(
            seen.running,
            declared=self._as_they_run(seen.running.declared),
            health=self._as_they_run(seen.running.health),
        )
        return replace(seen, health=self._as_they_run(seen.health), running=running)

    def _as_they_run(self, seen: ClusterHealth) -> ClusterHealth:
        members = [
            replace(m, status=replace(m.status, version=self.versions[m.member.name]))
            if m.status is not None
            else m
            for m in seen.members
        ]
        return replace(seen, members=tuple(members))

    def note(self, name: str) -> None:
        """The member was restarted once more before 3.6."""
        number = int(name[-1])
        note = before_3_6.note(self.cluster, 1, number).content
        state = PathState("file", "root", "root", 0o644, 0, note)
        facts = self.facts[name]
        paths = {**facts.paths, before_3_6.path(self.cluster): state}
        self.facts[name] = replace(facts, paths=paths)

    def owe(self, name: str) -> None:
        """A killed upgrade has left this member between its files and its restart."""
        self.stop(name)
        owed = frozenset({layout.UNIT})
        self.facts[name] = replace(self.facts[name], pending_restarts=owed)

    def plan_to(self, to: str) -> Plan:
        inventory = builders.inventory(etcd=self.cluster)
        with Fleet(1) as fleet:
            etcd = Etcd(self.cluster, fleet)
            seen = self.observed()
            return upgrade_etcd.plan(inventory, etcd, seen, to, backup=BACKUPS, write=False)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> plan_text.Done:
    return plan_text.spell(monkeypatch)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The releases whose etcdutl looked for v2 data while the plan was made."""
    return []


@pytest.fixture(autouse=True)
def around(monkeypatch: pytest.MonkeyPatch, looked: list[Any]) -> None:
    """What an upgrade asks while it is planned."""
    monkeypatch.setattr(hashes, "require_equal", lambda *_: None)
    monkeypatch.setattr(artifacts, "fetch", lambda *_, **__: hosts.TARBALL)
    monkeypatch.setattr(
        before_3_6, "require_no_v2_data", lambda _, tools: looked.append(dict(tools))
    )


def made(world: Running, to: str, monkeypatch: pytest.MonkeyPatch) -> Plan:
    by_machine = {m.machine: m.name for m in world.cluster.members}

    def facts(_: Fleet, probes: Mapping[Machine, Probe]) -> dict[Machine, HostFacts]:
        found = {}
        for machine in probes:
            name = by_machine[machine]
            found[machine] = replace(world.facts[name], commands={"v2": world.v2[name]})
        return found

    monkeypatch.setattr(gather, "require_facts", facts)
    works_by = tuple(map(int, world.works_by.split(".")[:2]))
    monkeypatch.setattr(upgrade_etcd, "cluster_version", lambda *_: works_by)
    return world.plan_to(to)


def titles(plan: Plan) -> list[str]:
    return [s.title for s in plan.steps]


def gated(title: str, before: str, after: str = "") -> list[str]:
    return [title, f" before: {before}", *([f" after: {after}"] if after else [])]


def without_hosts(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if not line.startswith((" infra", " call"))]


def again(name: str, release: str) -> list[str]:
    return [
        *gated(
            f"{name}: restart etcd {release} once more, to repair its lists",
            f"{ALL} without {name}, data for {release}",
            f"{ALL} healthy, {name} runs {release}",
        ),
        f"record that {name} was restarted once more",
    ]


def to(name: str, old: str, new: str, back: str, *, whole: bool = False) -> list[str]:
    return gated(
        f"{name}: etcd {old} to {new}",
        f"{ALL} without {name}, data for {new}",
        f"{ALL} healthy, {name} runs {new}{', all work by it' if whole else ''} (back: {back})",
    )


def wrote(name: str, release: str) -> list[str]:
    return gated(
        f"{name}: etcd {release} writes a snapshot for 3.7 to start from",
        f"{ALL} without {name}, data for {release}",
        f"{ALL} healthy, {name} wrote",
    )


def lead(new: str, old: str) -> str:
    return f"{new} takes the lead from {old}"


def test_over_two_minors_each_hop_ends_before_the_next_begins(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done, looked: list[Any]
) -> None:
    """The leader is always last; who takes the lead was changed already."""
    plan = made(Running("3.5.35", "3.5.35", "3.5.35"), "3.7.3", monkeypatch)
    assert without_hosts(plan_text.text(plan)) == [
        "put the releases on the members' hosts",
        "back up etcd",
        *again("infra2", "3.5.35"),
        *again("infra3", "3.5.35"),
        lead("infra2", "infra1"),
        *again("infra1", "3.5.35"),
        *to("infra1", "3.5.35", "3.6.16", "3.5.35"),
        *to("infra3", "3.5.35", "3.6.16", "3.5.35"),
        lead("infra1", "infra2"),
        *to("infra2", "3.5.35", "3.6.16", "3.5.35", whole=True),
        *wrote("infra2", "3.6.16"),
        *wrote("infra3", "3.6.16"),
        lead("infra2", "infra1"),
        *wrote("infra1", "3.6.16"),
        *to("infra1", "3.6.16", "3.7.3", "3.6.16"),
        *to("infra3", "3.6.16", "3.7.3", "3.6.16"),
        lead("infra1", "infra2"),
        *to("infra2", "3.6.16", "3.7.3", "3.6.16", whole=True),
    ]
    # Before anything is done, the running release looks for v2 data.
    assert looked == [dict.fromkeys(("infra1", "infra2", "infra3"), "3.5.35")]
    # The backup is of what runs, not of what the inventory declares.
    assert plan_text.called(plan, done) == [
        f"back up {ALL} of 3.5.35 into /backups",
        *(
            f"move_leadership_to in {ALL}: {name} http://10.0.0.{name[-1]}:2380"
            for name in ("infra2", "infra1", "infra2", "infra1")
        ),
    ]
    assert (plan.command, plan.cluster) == ("upgrade-etcd", "c")
    assert set(plan.machines) == {builders.member(n).machine for n in (1, 2, 3)}


def test_from_3_4_the_uploaded_release_looks_for_v2_data_before_each_hop(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done, looked: list[Any]
) -> None:

    def no_v2_data(etcd: Etcd, release: str) -> Gate:
        who = plan_text.who(etcd.cluster.members)
        return Gate(f"no v2 data on {who} by {release}", lambda: None)

    monkeypatch.setattr(before_3_6, "no_v2_data", no_v2_data)
    plan = made(Running("3.4.23", "3.4.23", "3.4.23"), "3.6.16", monkeypatch)
    look = [
        "look for v2 data: etcd 3.6 does not start with it",
        f" before: no v2 data on {ALL} by 3.5.35",
    ]
    assert without_hosts(plan_text.text(plan)) == [
        "put the releases on the members' hosts",
        *look,
        "back up etcd",
        *to("infra2", "3.4.23", "3.5.35", "3.4.23"),
        *to("infra3", "3.4.23", "3.5.35", "3.4.23"),
        lead("infra2", "infra1"),
        *to("infra1", "3.4.23", "3.5.35", "3.4.23", whole=True),
        *look,
        *again("infra1", "3.5.35"),
        *again("infra3", "3.5.35"),
        lead("infra1", "infra2"),
        *again("infra2", "3.5.35"),
        *to("infra2", "3.5.35", "3.6.16", "3.5.35"),
        *to("infra3", "3.5.35", "3.6.16", "3.5.35"),
        lead("infra2", "infra1"),
        *to("infra1", "3.5.35", "3.6.16", "3.5.35", whole=True),
    ]
    assert looked == []


def test_a_downgrade_is_enabled_before_each_hop(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done, looked: list[Any]
) -> None:
    plan = made(Running("3.7.3", "3.7.3", "3.7.3"), "3.5.35", monkeypatch)

    def enabled(release: str) -> list[str]:
        return gated(f"enable the downgrade to {release}", f"{ALL} without nobody")

    assert without_hosts(plan_text.text(plan)) == [
        "put the releases on the members' hosts",
        "back up etcd",
        *enabled("3.6"),
        *to("infra2", "3.7.3", "3.6.16", "3.7.3"),
        *to("infra3", "3.7.3", "3.6.16", "3.7.3"),
        lead("infra2", "infra1"),
        *to("infra1", "3.7.3", "3.6.16", "3.7.3", whole=True),
        *enabled("3.5"),
        *to("infra1", "3.6.16", "3.5.35", "3.6.16"),
        *to("infra3", "3.6.16", "3.5.35", "3.6.16"),
        lead("infra1", "infra2"),
        *to("infra2", "3.6.16", "3.5.35", "3.6.16", whole=True),
    ]
    said = [c.what for s in plan.steps for c in s.calls if "downgrade" in c.what]
    assert said == ["etcd: enable the downgrade to 3.6", "etcd: enable the downgrade to 3.5"]
    calls = plan_text.called(plan, done)
    assert [c for c in calls if "downgrade" in c] == [
        "downgrade_enable 3.6.0",
        "downgrade_enable 3.5.0",
    ]
    assert looked == []


def test_every_host_has_every_release_before_anything_else(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    world = Running("3.6.16", "3.6.16", "3.6.16")
    first, *_ = made(world, "3.7.3", monkeypatch).steps
    assert [(h.name, h.machine.host) for h in first.hosts] == [
        (f"infra{n}", f"10.0.0.{n}") for n in (1, 2, 3)
    ]
    for host in first.hosts:
        assert [c.what.split(" from ")[0] for c in host.changes] == ["install /opt/etcd/3.7.3"]
        assert not any(c.disrupts for c in host.changes)
    # One that was uploaded by an earlier run is not uploaded again; nothing restarts with it.
    world.facts["infra2"] = after([Tree("/opt/etcd/3.7.3", hosts.TARBALL)], world.facts["infra2"])
    first, *_ = made(world, "3.7.3", monkeypatch).steps
    assert [h.name for h in first.hosts] == ["infra1", "infra3"]


def test_the_changes_of_a_hop_are_on_the_host_of_its_member(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    world = Running("3.5.35", "3.5.35", "3.5.35")
    plan = made(world, "3.6.16", monkeypatch)
    for step in plan.steps:
        if ": " not in step.title:
            continue
        name = step.title.partition(":")[0]
        (host,) = step.hosts
        assert (host.name, host.machine) == (name, world.cluster.member(name).machine)
        assert host.changes[-1].what == "restart etcd.service"
        assert step.calls == ()
    points = [[c.what for c in s.hosts[0].changes] for s in plan.steps if " to 3.6.16" in s.title]
    for changed in points:
        assert "point /opt/etcd/current to 3.6.16" in changed
    notes = [s for s in plan.steps if s.title.startswith("note")]
    for step in notes:
        name = step.title.split()[2]
        (host,) = step.hosts
        assert (host.name, host.machine) == (name, world.cluster.member(name).machine)
        assert [c.what for c in host.changes] == ["write /etc/etcd/restarted-before-3.6"]
        # The note has the ids of the cluster and of the member.
        note = before_3_6.note(world.cluster, 1, int(name[-1])).content
        assert note is not None
        assert b64encode(note).decode() in host.changes[0].script.replace("\n", "")


@pytest.mark.parametrize("leader", ["infra1", "infra2", "infra3"])
def test_the_leader_is_last_and_hands_over_to_one_that_is_done(
    leader: str, monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    world = Running("3.5.10", "3.5.10", "3.5.10")
    world.leader = leader
    others = [n for n in ("infra1", "infra2", "infra3") if n != leader]
    assert titles(made(world, "3.5.35", monkeypatch)) == [
        "put the releases on the members' hosts",
        "back up etcd",
        *(f"{n}: etcd 3.5.10 to 3.5.35" for n in others),
        lead(others[0], leader),
        f"{leader}: etcd 3.5.10 to 3.5.35",
    ]


def test_an_interrupted_hop_goes_on_with_who_is_behind(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    """The one that is done takes the lead, not the next one that is to be restarted."""
    world = Running("3.6.16", "3.6.16", "3.7.3")
    plan = made(world, "3.7.3", monkeypatch)
    assert without_hosts(plan_text.text(plan))[2:] == [
        *wrote("infra2", "3.6.16"),
        lead("infra2", "infra1"),
        *wrote("infra1", "3.6.16"),
        *to("infra1", "3.6.16", "3.7.3", "3.6.16"),
        lead("infra3", "infra2"),
        *to("infra2", "3.6.16", "3.7.3", "3.6.16", whole=True),
    ]


def test_an_interrupted_first_hop_is_ended_before_the_second(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    world = Running("3.6.16", "3.5.35", "3.5.35")
    for name in world.versions:
        world.note(name)
    plan = made(world, "3.7.3", monkeypatch)
    assert titles(plan)[:5] == [
        "put the releases on the members' hosts",
        "back up etcd",
        "infra2: etcd 3.5.35 to 3.6.16",
        "infra3: etcd 3.5.35 to 3.6.16",
        "infra2: etcd 3.6.16 writes a snapshot for 3.7 to start from",
    ]
    whole = [s.title for s in plan.steps if s.after and "all work by it" in s.after.title]
    assert whole == ["infra3: etcd 3.5.35 to 3.6.16", "infra2: etcd 3.6.16 to 3.7.3"]


def test_the_member_that_a_killed_run_left_down_comes_first(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    """Two run: while it is down, no other may be restarted."""
    world = Running("3.5.10", "3.5.10", "3.5.10")
    world.owe("infra3")
    world.leader = "infra2"
    plan = made(world, "3.5.35", monkeypatch)
    assert without_hosts(plan_text.text(plan))[2:] == [
        *to("infra3", "(down)", "3.5.35", "3.5.10"),
        *to("infra1", "3.5.10", "3.5.35", "3.5.10"),
        lead("infra3", "infra2"),
        *to("infra2", "3.5.10", "3.5.35", "3.5.10", whole=True),
    ]
    assert plan.steps[2].hosts[0].changes[-1].what.split()[0] in ("start", "restart")


def test_a_downgrade_that_was_interrupted_takes_back_all_that_differ(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    """etcd works by the lower release as soon as the downgrade is enabled."""
    world = Running("3.7.3", "3.6.16", "3.7.3", works_by="3.6")
    plan = made(world, "3.6.16", monkeypatch)
    assert without_hosts(plan_text.text(plan))[2:] == [
        *to("infra3", "3.7.3", "3.6.16", "3.6.16"),
        lead("infra2", "infra1"),
        *to("infra1", "3.7.3", "3.6.16", "3.6.16", whole=True),
    ]


def test_going_up_none_is_taken_back(monkeypatch: pytest.MonkeyPatch, done: plan_text.Done) -> None:
    """In the first hop, the member that was further already stays."""
    world = Running("3.4.23", "3.5.35", "3.4.23")
    plan = made(world, "3.5.35", monkeypatch)
    assert titles(plan)[2:] == [
        "infra3: etcd 3.4.23 to 3.5.35",
        lead("infra2", "infra1"),
        "infra1: etcd 3.4.23 to 3.5.35",
    ]


def test_a_single_member_hands_over_to_nobody(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    plan = made(Running("3.5.35"), "3.7.3", monkeypatch)
    assert titles(plan) == [
        "put the releases on the members' hosts",
        "back up etcd",
        "infra1: restart etcd 3.5.35 once more, to repair its lists",
        "record that infra1 was restarted once more",
        "infra1: etcd 3.5.35 to 3.6.16",
        "infra1: etcd 3.6.16 writes a snapshot for 3.7 to start from",
        "infra1: etcd 3.6.16 to 3.7.3",
    ]
    for step in plan.steps:
        if "to 3." in step.title and step.after is not None:
            assert "all work by it" in step.after.title


def test_two_members_hand_over(monkeypatch: pytest.MonkeyPatch, done: plan_text.Done) -> None:
    plan = made(Running("3.5.10", "3.5.10"), "3.5.35", monkeypatch)
    assert titles(plan)[2:] == [
        "infra2: etcd 3.5.10 to 3.5.35",
        lead("infra2", "infra1"),
        "infra1: etcd 3.5.10 to 3.5.35",
    ]


def test_who_was_restarted_by_an_earlier_run_is_not_restarted_again(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    world = Running("3.5.35", "3.5.35", "3.5.35")
    world.note("infra1")
    world.note("infra3")
    plan = made(world, "3.6.16", monkeypatch)
    assert titles(plan)[2:5] == [
        "infra2: restart etcd 3.5.35 once more, to repair its lists",
        "record that infra2 was restarted once more",
        "infra2: etcd 3.5.35 to 3.6.16",
    ]


def test_the_last_one_to_be_restarted_leads_and_hands_over_to_another(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    world = Running("3.5.35", "3.5.35", "3.5.35")
    world.note("infra2")
    world.note("infra3")
    plan = made(world, "3.6.16", monkeypatch)
    assert titles(plan)[2:4] == [
        lead("infra2", "infra1"),
        "infra1: restart etcd 3.5.35 once more, to repair its lists",
    ]


def test_whose_log_holds_no_v2_request_writes_no_snapshot(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    world = Running("3.6.16", "3.6.16", "3.6.16")
    world.v2 |= {"infra1": "none", "infra2": "none"}
    plan = made(world, "3.7.3", monkeypatch)
    assert [t for t in titles(plan) if "snapshot" in t] == [
        "infra3: etcd 3.6.16 writes a snapshot for 3.7 to start from"
    ]


def hop_of(step: Step) -> str:
    return step.title.rpartition(" ")[2]


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("start", "target"),
    [
        ("3.4.23", "3.7.3"),
        ("3.5.35", "3.7.3"),
        ("3.5.10", "3.6.16"),
        ("3.6.16", "3.7.3"),
        ("3.7.3", "3.5.35"),
        ("3.7.3", "3.6.16"),
    ],
)
def test_one_member_at_a_time_between_two_gates_after_a_backup(
    count: int,
    start: str,
    target: str,
    monkeypatch: pytest.MonkeyPatch,
    done: plan_text.Done,
) -> None:
    """Whatever the way: what keeps the quorum holds at every step."""
    for leader in range(1, count + 1):
        world = Running(*[start] * count, allow_corrupting_version=True)
        world.leader = f"infra{leader}"
        plan = made(world, target, monkeypatch)
        lead_now, backed_up, running = world.leader, False, dict(world.versions)
        hops: list[str] = []
        for step in plan.steps:
            if step.title == "back up etcd":
                backed_up = True
            if " takes the lead from " in step.title:
                lead_now = step.title.split()[0]
                assert step.hosts == ()
            disrupted = [h.name for h in step.hosts if any(c.disrupts for c in h.changes)]
            if not disrupted:
                continue
            assert backed_up
            (name,) = disrupted
            assert step.before is not None
            assert step.after is not None
            assert name != lead_now or count == 1
            if ": etcd " not in step.title or "snapshot" in step.title:
                continue
            hop = hop_of(step)
            if hop not in hops:
                assert len(set(running.values())) == 1  # all have the release before
                hops.append(hop)
            running[name] = hop
            last = set(running.values()) == {hop}
            assert ("all work by it" in step.after.title) is last
        assert set(running.values()) == {target}


# What is refused.


@pytest.mark.parametrize(
    ("state", "id", "words"),
    [
        ("nobody answers", "etcd-not-running", "not running"),
        ("one is down", "quorum-at-risk", "an upgrade needs a healthy cluster"),
        ("two were left by a killed run", "quorum-at-risk", "an upgrade needs a healthy cluster"),
        ("an alarm", "quorum-at-risk", "an upgrade needs a healthy cluster"),
        ("a member more", "deploy-first", "differ from the inventory"),
        ("a member less", "deploy-first", "differ from the inventory"),
        ("a package", "command-not-applicable", "own packages"),
        ("a lost setting", "setting-removed", "no effect after the upgrade"),
    ],
)
def test_a_cluster_that_is_not_fit_is_refused(
    state: str, id: str, words: str, monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    world = Running("3.6.16", "3.6.16", "3.6.16")
    if state == "nobody answers":
        world.established = False
    elif state == "one is down":
        world.stop("infra2")
    elif state == "two were left by a killed run":
        world.owe("infra2")
        world.owe("infra3")
    elif state == "an alarm":
        world.alarms = ("NOSPACE",)
    elif state == "a member more":
        world.facts["infra4"] = hosts.facts(4)
        world.down.add("infra4")
        world.versions["infra4"] = ""
        four = (*world.cluster.members, builders.member(4))
        world.cluster = replace(world.cluster, members=four)
        world.v2["infra4"] = ""
    elif state == "a member less":
        world.cluster = replace(world.cluster, members=world.cluster.members[:2])
    elif state == "a package":
        source = Source(package=True)
        world.cluster = replace(world.cluster, source=source)
    else:
        old = {"experimental-initial-corrupt-check": True}
        members = tuple(replace(m, settings=dict(old)) for m in world.cluster.members)
        world.cluster = replace(world.cluster, members=members)
    with pytest.raises(PreflightFailed, match=words) as refused:
        made(world, "3.7.3", monkeypatch)
    assert refused.value.id == id
    if state == "nobody answers":
        assert refused.value.problems[-1].remedy == "invoke deploy-etcd"
    if state == "a lost setting":
        assert [p.where.split()[0] for p in refused.value.problems] == [
            "infra1",
            "infra2",
            "infra3",
        ]
    if state == "one is down":
        assert ["infra2" in p.where for p in refused.value.problems] == [True]


def test_members_whose_data_differ_are_not_upgraded(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    def differ(seen: ClusterHealth, _: Etcd) -> None:
        assert len(seen.members) == 3
        raise PreflightFailed("the data differ", id="etcd-data-differ")

    monkeypatch.setattr(hashes, "require_equal", differ)
    with pytest.raises(PreflightFailed, match="the data differ"):
        made(Running("3.6.16", "3.6.16", "3.6.16"), "3.7.3", monkeypatch)


def test_when_all_run_the_release_there_is_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    plan = made(Running("3.7.3", "3.7.3", "3.7.3"), "3.7.3", monkeypatch)
    assert (plan.command, plan.cluster, plan.steps) == ("upgrade-etcd", "c", ())


def test_the_last_member_that_is_down_gets_the_release_of_the_others(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    """The run was killed in its very last restart. All others run the release already."""
    world = Running("3.7.3", "3.7.3", "3.7.3")
    world.owe("infra1")
    world.leader = "infra2"
    plan = made(world, "3.7.3", monkeypatch)
    assert without_hosts(plan_text.text(plan)) == [
        *(["put the releases on the members' hosts"] if len(plan.steps) == 3 else []),
        "back up etcd",
        *to("infra1", "(down)", "3.7.3", "3.7.3", whole=True),
    ]


def test_each_release_has_answered_before_a_member_is_restarted(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    plan = made(Running("3.6.16", "3.6.16", "3.6.16"), "3.7.3", monkeypatch)
    first, *_ = plan.steps
    assert first.title == "put the releases on the members' hosts"
    proofs = [c.upload.proof for h in first.hosts for c in h.changes if isinstance(c.upload, Tree)]
    assert {(p.folder, p.says) for p in proofs if p is not None} == {
        ("/opt/etcd/3.7.3", "etcd Version: 3.7.3")
    }
    assert len(proofs) == 3
    assert None not in proofs


@pytest.mark.parametrize("text", ["3.7", "newest", ""])
def test_the_target_is_a_full_release(
    text: str, monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    with pytest.raises(UsageError, match="VERSION is a full etcd release") as refused:
        made(Running("3.6.16"), text, monkeypatch)
    assert refused.value.id == "option-invalid"


def test_a_release_that_damages_data_is_refused_unless_it_is_allowed(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    world = Running("3.4.23", "3.4.23", "3.4.23")
    bad = {**world.cluster.releases, "3.5.1": builders.SOURCE}
    world.cluster = replace(world.cluster, releases=bad)
    with pytest.raises(PreflightFailed, match="known to damage data") as refused:
        made(world, "3.5.1", monkeypatch)
    assert refused.value.id == "etcd-version-unfit"
    world.cluster = replace(world.cluster, allow_corrupting_version=True)
    plan = made(world, "3.5.1", monkeypatch)
    assert [n.id for n in plan.notes] == ["etcd-version-unfit"]
    assert titles(plan)[2] == "infra2: etcd 3.4.23 to 3.5.1"


@pytest.mark.parametrize(
    ("unit", "pending", "versions", "left"),
    [
        ("", True, {"3.6.16"}, True),
        ("", False, {"3.6.16"}, False),
        ("", False, {"3.6.16", "3.7.3"}, True),
        ("/opt/etcd/3.7.3/etcd", False, {"3.6.16"}, True),
        ("/opt/etcd/3.6.16/etcd", False, {"3.6.16"}, False),
        ("/opt/etcd/3.9.9/etcd", False, {"3.6.16"}, False),
    ],
)
def test_who_was_left_down_by_an_upgrade(
    unit: str, pending: bool, versions: set[str], left: bool
) -> None:
    world = Running("3.6.16", "3.6.16", "3.6.16")
    path = {layout.UNIT_PATH: hosts.text(unit)}
    owed = frozenset({layout.UNIT} if pending else ())
    world.facts["infra2"] = hosts.facts(2, paths=path, pending_restarts=owed)
    sources = dict.fromkeys(RELEASES, builders.SOURCE)
    member = world.cluster.members[1]
    found = upgrade_etcd._left_by_an_upgrade(
        world.cluster, world.observed(), member, sources, versions
    )
    assert found is left


# The gates themselves.

MEMBERS = builders.etcd().members


def look(
    down: tuple[str, ...] = (),
    alarms: Mapping[str, tuple[str, ...]] | None = None,
    storage: Mapping[str, str] | None = None,
) -> ClusterHealth:
    members = []
    for n, m in enumerate(MEMBERS, 1):
        errors = (alarms or {}).get(m.name, ())
        data = (storage or {}).get(m.name, "")
        status = MemberStatus(1, n, "3.6.16", 1, 1, 1, 1, 1, 1, False, errors, data)
        sick = m.name in down
        members.append(MemberHealth(m, error="no answer" if sick else "", status=status))
    return ClusterHealth(builders.etcd(), tuple(members))


@pytest.mark.parametrize(
    ("seen", "member", "release", "trouble"),
    [
        (look(), "infra2", "3.6.16", ""),
        (look(("infra2",)), "infra2", "3.6.16", ""),
        (look(("infra3",)), "infra2", "3.6.16", "infra3 is not healthy"),
        (look(("infra1", "infra2", "infra3")), "infra2", "", "infra1, infra3 are not healthy"),
        (look(("infra2",)), None, "", "infra2 is not healthy"),
        (look(alarms={"infra1": ("alarm:NOSPACE",)}), "infra2", "", "the alarm NOSPACE is raised"),
        (
            look(alarms={"infra1": ("alarm:NOSPACE",), "infra2": ("alarm:CORRUPT",)}),
            None,
            "",
            "the alarms CORRUPT and NOSPACE are raised",
        ),
        # A downgrade waits for the data of the member that it is about to restart.
        (
            look(storage={"infra2": "3.7.0"}),
            "infra2",
            "3.6.16",
            "infra2 still has data of etcd 3.7",
        ),
        (look(storage={"infra2": "3.6.0"}), "infra2", "3.6.16", ""),
        (look(storage={"infra3": "3.7.0"}), "infra2", "3.6.16", ""),
        (look(storage={"infra2": "3.7.0"}), "infra2", "", ""),
    ],
)
def test_what_keeps_a_member_from_its_restart(
    seen: ClusterHealth, member: str | None, release: str, trouble: str
) -> None:
    which = next((m for m in MEMBERS if m.name == member), None)
    assert upgrade_etcd._trouble(seen, which, release) == trouble


class Ask:
    """The gates of an upgrade on looks that are given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *looks: ClusterHealth) -> None:
        self.looks, self.compared = list(looks), 0
        self.etcds: list[Etcd] = []
        monkeypatch.setattr(health, "observe", self._observe)
        monkeypatch.setattr(hashes, "require_equal", self._compare)
        self.clock = clock.install(monkeypatch)

    def _observe(self, etcd: Etcd) -> ClusterHealth:
        self.etcds.append(etcd)
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def _compare(self, seen: ClusterHealth, etcd: Etcd) -> None:
        assert len(seen.members) == 3
        assert etcd is self.etcds[0]
        self.compared += 1


def test_the_gate_before_waits_and_compares_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    late = look(storage={"infra2": "3.7.0"})
    ask = Ask(monkeypatch, late, late, look())
    with Fleet(1) as fleet:
        etcd = Etcd(builders.etcd(), fleet)
        gate = upgrade_etcd._undisturbed(etcd, MEMBERS[1], "3.6.16")
        gate.check()
        assert len(ask.etcds) == 3
        assert ask.clock.slept == [gates.POLL_SECONDS] * 2
        assert ask.compared == 1
        assert gate.title == "every member except infra2 healthy, no alarm"
        # A member that is down has no data to compare, and a downgrade disturbs no member.
        ask.looks = [look(("infra2",))]
        gate.check()
        ask.looks = [look()]
        upgrade_etcd._undisturbed(etcd, None).check()
        assert ask.compared == 1
        ask.looks, ask.clock.slept = [late], []
        with pytest.raises(Unhealthy, match=r"infra2 still has data of etcd 3\.7") as stopped:
            gate.check()
        assert stopped.value.id == "upgrade-stopped"
        assert sum(ask.clock.slept) == pytest.approx(
            upgrade_etcd.READY_WITHIN, abs=2 * gates.POLL_SECONDS
        )
        everyone = upgrade_etcd._undisturbed(etcd, None)
        ask.looks = [look(("infra2",))]
        with pytest.raises(Unhealthy, match="infra2 is not healthy"):
            everyone.check()
        assert everyone.title == "every member healthy, no alarm"


class Client:
    def __init__(self, version: str) -> None:
        self.version = version

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def status(self) -> MemberStatus:
        return MemberStatus(1, 1, self.version, 1, 1, 1, 1, 1, 1, False, ())


@pytest.mark.parametrize("whole", [False, True])
def test_the_gate_after_asks_the_member_what_it_runs(
    whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Ask(monkeypatch, look())
    said: list[object] = []
    runs = "3.7.3"

    def healthy(etcd: Etcd, member: EtcdMember) -> Gate:
        return Gate("", lambda: said.append(("healthy", member.name)))

    def client(etcd: Etcd, member: EtcdMember) -> Client:
        said.append(("status", member.name))
        return Client(runs)

    monkeypatch.setattr(gates, "all_healthy", healthy)
    monkeypatch.setattr(Etcd, "member", client)
    monkeypatch.setattr(
        upgrade_etcd, "_wait_for_version", lambda _, m, wanted: said.append((m.name, wanted))
    )
    with Fleet(1) as fleet:
        etcd = Etcd(builders.etcd(), fleet)
        gate = upgrade_etcd._runs(etcd, MEMBERS[1], "3.7.3", whole=whole, back="3.6.16")
        gate.check()
        assert said == [
            ("healthy", "infra2"),
            ("status", "infra2"),
            *([("infra2", (3, 7))] if whole else []),
        ]
        assert ask.etcds == [etcd]
        assert gate.title == (
            "every member healthy, infra2 runs 3.7.3"
            + (", and the cluster version matches" if whole else "")
        )
        runs = "3.6.16"
        with pytest.raises(Unhealthy, match=r"infra2 runs etcd 3\.6\.16 after its"):
            gate.check()


def test_the_next_hop_waits_until_the_cluster_works_by_the_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[Any] = [Unhealthy("no answer", id="member-down"), (3, 6), (3, 7)]
    asked: list[str] = []
    ticks = clock.install(monkeypatch)

    def version(_: Etcd, member: EtcdMember) -> Any:
        asked.append(member.name)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(upgrade_etcd, "cluster_version", version)
    with Fleet(1) as fleet:
        etcd = Etcd(builders.etcd(), fleet)
        upgrade_etcd._wait_for_version(etcd, MEMBERS[1], (3, 7))
        assert asked == ["infra2"] * 3
        assert ticks.slept == [0.25] * 2
        answers[:], ticks.slept = [(3, 6)], []
        with pytest.raises(Unhealthy) as stopped:
            upgrade_etcd._wait_for_version(etcd, MEMBERS[1], (3, 7))
        assert stopped.value.id == "upgrade-stopped"
        assert stopped.value.message == (
            "all members run etcd 3.7, but after 60 s the cluster version is 3.6"
        )
        assert sum(ticks.slept) == upgrade_etcd.VERSION_WITHIN
        answers[:] = [Unhealthy("no answer", id="member-down")]
        with pytest.raises(Unhealthy) as stopped:
            upgrade_etcd._wait_for_version(etcd, MEMBERS[1], (3, 7))
        assert stopped.value.message == (
            "all members run etcd 3.7, but after 60 s the cluster version is not known"
        )


@pytest.mark.parametrize(
    ("works_by", "release", "six", "seven"),
    [
        ((3, 4), "3.5.35", False, False),
        ((3, 5), "3.5.35", False, False),
        ((3, 5), "3.6.16", True, False),
        ((3, 6), "3.6.16", False, False),
        ((3, 6), "3.7.3", False, True),
        ((3, 7), "3.7.3", False, False),
        ((3, 7), "3.6.16", False, False),
        ((3, 6), "3.5.35", False, False),
    ],
)
def test_which_hops_need_preparation(
    works_by: tuple[int, int], release: str, six: bool, seven: bool
) -> None:
    assert upgrade_etcd.to_3_6(works_by, release) is six
    assert upgrade_etcd.to_3_7(works_by, release) is seven


class Version(BaseHTTPRequestHandler):
    """What etcd serves at ``/version``."""

    said = b""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/version" else 404)
        self.end_headers()
        self.wfile.write(self.said if self.path == "/version" else b"{}")

    def log_message(self, *_: object) -> None:
        """Nothing is written to stderr."""


@pytest.mark.process
def test_the_version_that_the_cluster_works_by_is_asked_of_the_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the cluster, and not the release that the member runs."""
    asked: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Version) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address, port = str(server.server_address[0]), server.server_port

        def client(_: Etcd, member: EtcdMember) -> Any:
            asked.append(member.name)
            end = SimpleNamespace(address=address, port=port)
            return nullcontext(SimpleNamespace(endpoint=end))

        monkeypatch.setattr(Etcd, "member", client)
        with Fleet(1) as fleet:
            etcd = Etcd(builders.etcd(), fleet)
            for said, version in (
                (b'{"etcdserver":"3.6.16","etcdcluster":"3.5.0","storage":"3.5.0"}', (3, 5)),
                (b'{"etcdserver":"3.6.16","etcdcluster":"3.6.0"}', (3, 6)),
            ):
                monkeypatch.setattr(Version, "said", said)
                assert upgrade_etcd.cluster_version(etcd, MEMBERS[1]) == version
            for said in (b'{"etcdserver":"3.6.16"}', b'{"etcdcluster":"not_decided"}', b"", b"[]"):
                monkeypatch.setattr(Version, "said", said)
                with pytest.raises(Unhealthy, match=r"infra2 at 10\.0\.0\.2") as stopped:
                    upgrade_etcd.cluster_version(etcd, MEMBERS[1])
                assert stopped.value.id == "member-down"
                (problem,) = stopped.value.problems
                assert (problem.where, problem.id) == ("infra2 at 10.0.0.2", "member-down")
                assert problem.what in stopped.value.message
            assert set(asked) == {"infra2"}
        server.shutdown()


def test_a_member_without_an_answer_has_no_data_to_wait_for() -> None:
    seen = look()
    silent = replace(seen.members[1], status=None, error="no answer")
    seen = replace(seen, members=(seen.members[0], silent, seen.members[2]))
    assert upgrade_etcd._trouble(seen, MEMBERS[1], "3.6.16") == ""


def test_each_member_is_asked_for_v2_requests_in_its_own_log(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    world = Running("3.6.16", "3.6.16", "3.6.16")
    members = [replace(m, data_dir=f"/data/{m.name}") for m in world.cluster.members]
    world.cluster = replace(world.cluster, members=tuple(members))
    asked: dict[str, Probe] = {}

    def facts(_: Fleet, probes: Mapping[Machine, Probe]) -> dict[Machine, HostFacts]:
        asked.update({machine.host: p for machine, p in probes.items()})
        return {machine: hosts.facts() for machine in probes}

    monkeypatch.setattr(gather, "require_facts", facts)
    with Fleet(1) as fleet:
        steps = upgrade_etcd.Steps(Etcd(world.cluster, fleet), world.observed(), None, {})
        # Without an answer, a log may hold such requests.
        assert steps.with_v2((3, 6), ["3.7.3"]) == set(world.versions)
    for m in members:
        assert asked[m.machine.host].commands == {
            "v2": before_3_7.v2_requests(world.cluster, m),
        }
        assert m.data_dir in asked[m.machine.host].commands["v2"]


def test_a_voter_that_is_taken_for_a_learner_stops_the_upgrade_with_the_way_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = look()
    Ask(monkeypatch, seen)
    given: list[object] = []
    monkeypatch.setattr(gates, "all_healthy", lambda etcd, m: Gate("", lambda: given.append(etcd)))
    monkeypatch.setattr(upgrade_etcd, "require_voters", lambda *told: given.extend(told))
    monkeypatch.setattr(Etcd, "member", lambda *_: Client("3.6.16"))
    monkeypatch.setattr(upgrade_etcd, "_wait_for_version", lambda etcd, *_: given.append(etcd))
    with Fleet(1) as fleet:
        etcd = Etcd(builders.etcd(), fleet)
        upgrade_etcd._runs(etcd, MEMBERS[1], "3.6.16", whole=True, back="3.5.35").check()
    assert given == [etcd, seen, "3.6.16", "3.5.35", etcd]


def test_with_tls_a_snapshot_and_a_hop_leave_the_certificates(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done, tmp_path: Path
) -> None:
    """The configuration of 3.6 gets one more setting, and nothing else."""
    ca = own_ca.ensure_ca(tmp_path, "c")
    releases = {v: builders.SOURCE for v in RELEASES}
    there = installed(replace(secured(tmp_path), releases=releases), ca)
    world = Running("3.6.16", "3.6.16", "3.6.16")
    # The inventory was changed to another patch release, which is not deployed yet.
    world.cluster = replace(there.cluster, version="3.6.17")
    world.facts, world.registered = there.facts, there.registered
    plan = made(world, "3.7.3", monkeypatch)
    for step in plan.steps:
        if "writes a snapshot" in step.title:
            config, *restart = step.hosts[0].changes
            lines = config.diff.splitlines()
            changed = [s for s in lines if s[0] in "+-" and s[:3] not in ("+++", "---")]
            assert changed == ["+snapshot-count: 1"]
            assert [c.what for c in restart] == ["restart etcd.service"]
        elif " to 3.7.3" in step.title:
            said = " ".join(c.what for c in step.hosts[0].changes)
            assert "pki" not in said
            assert "change /etc/etcd/etcd.conf.yml" in said


def test_the_way_back_is_the_newest_3_5_that_runs() -> None:
    cluster = builders.etcd()
    for versions, back in (
        ({"infra1": "3.5.9", "infra2": "3.5.35", "infra3": "3.6.16"}, "3.5.35"),
        ({"infra1": "3.6.16", "infra2": "3.6.16", "infra3": "3.6.16"}, "3.5"),
    ):
        with pytest.raises(PreflightFailed) as refused:
            upgrade_etcd._refuse_unprepared(cluster, versions, ())
        assert f"upgrade-etcd {back}, then" in refused.value.problems[-1].remedy


def test_only_the_tool_of_3_5_looks_for_v2_data(looked: list[Any]) -> None:
    with Fleet(1) as fleet:
        versions = {"infra1": "3.5.35", "infra2": None, "infra3": "3.6.16"}
        upgrade_etcd._refuse_v2_data(Etcd(builders.etcd(), fleet), versions)
    assert looked == [{"infra1": "3.5.35"}]


def test_the_lowest_release_is_found_by_its_numbers(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    """As texts, 3.5.35 is below 3.5.9."""
    plan = made(Running("3.5.9", "3.5.35", "3.5.35", works_by="3.5"), "3.5.35", monkeypatch)
    assert plan_text.called(plan, done)[0] == f"back up {ALL} of 3.5.9 into /backups"


def test_every_member_is_guarded_and_preflight_s_warnings_are_told(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    warned = Problem("infra2", "its clock differs", severity="warning", id="clock-skew")
    world = Running("3.5.35", "3.5.35", "3.5.35")
    observed = world.observed
    monkeypatch.setattr(world, "observed", lambda: replace(observed(), warnings=(warned,)))
    plan = made(world, "3.6.16", monkeypatch)
    assert plan.guards == tuple(m.machine for m in world.cluster.members)
    assert warned in plan.notes
    assert made(world, "3.5.35", monkeypatch).notes == (warned,)


def test_all_that_is_about_certificates_is_about_one_authority(
    monkeypatch: pytest.MonkeyPatch, done: plan_text.Done
) -> None:
    """The members keep the certificates that they have: imported ones wait for rotate-certs."""
    world = Running("3.5.35", "3.5.35", "3.5.35")
    given: list[tuple[str, object, object]] = []
    ca = object()
    kept = {
        m.machine: replace(world.facts[m.name], clock_offset=7.0) for m in world.cluster.members
    }

    def authority(cluster: EtcdCluster, facts: object, *, write: bool) -> object:
        assert (cluster, write) == (world.cluster, False)
        return ca

    def settled(cluster: EtcdCluster, facts: object, its: object) -> None:
        given.append(("settled", facts, its))

    def require(cluster: EtcdCluster, members: object, facts: object, its: object) -> list[Problem]:
        assert members == world.cluster.members
        given.append(("require", facts, its))
        return [Problem("infra1", "ends soon", severity="warning", id="certificate-expiring")]

    def material(cluster: EtcdCluster, m: EtcdMember, facts: HostFacts, its: object) -> None:
        given.append(("material", facts.clock_offset, its))

    monkeypatch.setattr(tls, "authority", authority)
    monkeypatch.setattr(tls, "require_settled", settled)
    monkeypatch.setattr(tls, "require", require)
    monkeypatch.setattr(tls, "material", material)
    monkeypatch.setattr(imported, "as_installed", lambda f: replace(f, clock_offset=7.0))
    plan = made(world, "3.6.16", monkeypatch)
    assert {its for _, _, its in given} == {ca}
    assert [facts for what, facts, _ in given if what != "material"] == [kept, kept]
    assert {offset for what, offset, _ in given if what == "material"} == {7.0}
    assert [n.id for n in plan.notes if n.where == "infra1"] == ["certificate-expiring"]
