"""The plans that change members, as values: each step with its gates and calls."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.engine.plan import Gate, Plan
from provision.errors import PreflightFailed, Problem, UsageError
from provision.etcd.api.values import RegisteredMember
from provision.etcd.cluster import gates, hashes, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.hashes import Comparison
from provision.etcd.cluster.health import ClusterHealth
from provision.etcd.cluster.todo_keys import Pending
from provision.etcd.member import desired, layout
from provision.etcd.pki import own_ca, tls
from provision.host import gather
from provision.host.facts import HostFacts, Probe
from provision.inventory.resolved import Established, EtcdCluster, EtcdMember, Machine
from provision.plans.etcd.members import add_member, remove_member, replace_member
from provision.plans.etcd.members.member_plan import Options
from provision.ssh.session import Fleet
from tests.unit import builders, hosts, plan_text
from tests.unit.test_deploy_gates import installed, secured
from tests.unit.test_deploy_plan import World
from tests.unit.test_member_machine import Cluster

pytestmark = pytest.mark.usefixtures("no_other_clusters")

PREPARE = "prepare the new members' hosts"
Compared = list[tuple[str, ...]]
MOVE = (("remove", ""), ("add", " as a learner"))


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> plan_text.Done:
    monkeypatch.setattr(tls, "authority", lambda *_, **__: None)
    return plan_text.spell(monkeypatch)


@pytest.fixture(autouse=True)
def compared(monkeypatch: pytest.MonkeyPatch) -> Compared:
    """The members that may differ, at each comparison of the data."""
    said: Compared = []
    monkeypatch.setattr(hashes, "compare", lambda *_: Comparison(9, {1: ("all",)}, 1))
    monkeypatch.setattr(hashes, "require_equal", lambda seen, etcd, but=(): said.append(tuple(but)))
    return said


class Reached:
    """The hosts of members that the inventory does not have; without facts, they are away."""

    def __init__(self) -> None:
        self.facts: dict[str, HostFacts] = {}
        self.probes: dict[str, Probe] = {}

    def gather(self, _: Fleet, probes: Mapping[Machine, Probe]) -> tuple[Any, list[Problem]]:
        found, absent = {}, []
        for machine, probe in probes.items():
            self.probes[machine.host] = probe
            if machine.host in self.facts:
                found[machine] = self.facts[machine.host]
            else:
                absent.append(Problem(machine.host, "no route", id="host-unreachable"))
        return found, absent


@pytest.fixture(autouse=True)
def reached(monkeypatch: pytest.MonkeyPatch) -> Reached:
    made = Reached()
    monkeypatch.setattr(gather, "gather_facts", made.gather)
    return made


def world(count: int = 3) -> Cluster:
    return Cluster(builders.etcd(*(builders.member(n) for n in range(1, count + 1))))


def alarmed(count: int) -> World:
    """All serve, and the alarm CORRUPT stands."""
    made = World(builders.etcd(*(builders.member(n) for n in range(1, count + 1))))
    made.alarms = ("CORRUPT",)
    return made


def with_new(of: Cluster, *numbers: int) -> EtcdCluster:
    """The cluster as it is declared with more members."""
    for n in numbers:
        of.facts[f"infra{n}"] = hosts.facts(n)
        of.down.add(f"infra{n}")
    more = (builders.member(n) for n in numbers)
    return replace(of.cluster, members=(*of.cluster.members, *more))


def command(
    make: Any, of: World, name: str, *, cluster: EtcdCluster | None = None, **options: Any
) -> Plan:
    cluster = cluster or of.cluster
    inventory = builders.inventory(None, etcd=cluster, alluxio=None)
    chosen = Options(**{"write": False, "workers": False, **options})
    with Fleet(1) as fleet:
        plan = make(inventory, Etcd(cluster, fleet), of.observed(cluster), name, chosen)
    assert isinstance(plan, Plan)
    return plan


def short(lines: Iterable[str]) -> list[str]:
    """Without what is done on hosts."""
    kept = (" before:", " call:", " after:")
    return [line for line in lines if not line.startswith(" ") or line.startswith(kept)]


def on_host(plan: Plan, title: str) -> list[str]:
    (step,) = [s for s in plan.steps if s.title == title]
    return [f"{h.name}: {c.what}" for h in step.hosts for c in h.changes]


def added(name: str, voters: str) -> list[str]:
    return [
        f"add {name} as a learner",
        f" before: healthy {voters}",
        f" call: etcd: add learner {name} at http://10.0.0.{name[-1]}:2380",
        *started(name, voters),
    ]


def started(name: str, voters: str) -> list[str]:
    return [
        f"start {name}, and make it a voter when it has caught up",
        f" call: etcd: promote {name}",
        f" after: healthy {voters}+{name}, and {name} has the others' data",
    ]


#: Before a member that answers leaves its client URL.
CUTS = "; etcd shows no other cluster that this cuts off"


def removed(name: str, rest: str, *, note: bool, cuts: str = "") -> list[str]:
    noted = [f" call: etcd: record that the host of {name} is to be cleaned"] if note else []
    number = name[-1]
    return [
        f"remove {name}",
        f" before: healthy {rest}{cuts}",
        *noted,
        f" call: etcd: remove {name} ({number}), after another member has taken the lead",
        f" after: healthy {rest}",
    ]


def cleaned(name: str) -> list[str]:
    return [f"clean the host of {name}", f" call: etcd: record that the host of {name} is clean"]


THREE = "infra1+infra2+infra3"
START = [
    "write /etc/systemd/system/etcd.service",
    "write /etc/etcd/etcd.conf.yml",
    "enable etcd.service",
    "reload systemd for etcd.service",
    "start etcd.service",
]


def test_new_members_join_one_after_the_other(done: plan_text.Done, compared: Compared) -> None:
    """Each as a learner, and the next when all voters are healthy."""
    of = world()
    plan = of.plan(with_new(of, 4, 5))
    assert short(plan_text.text(plan)) == [
        PREPARE,
        *added("infra4", THREE),
        *added("infra5", f"{THREE}+infra4"),
    ]
    assert {line.partition(":")[0] for line in on_host(plan, PREPARE)} == {"infra4", "infra5"}
    assert not any(c.disrupts for h in plan.steps[0].hosts for c in h.changes)
    for name in ("infra4", "infra5"):
        title = f"start {name}, and make it a voter when it has caught up"
        assert on_host(plan, title) == [f"{name}: {what}" for what in START]
        assert on_host(plan, f"add {name} as a learner") == []
    assert plan_text.called(plan, done) == [
        f"add_learner in {THREE}: infra4 http://10.0.0.4:2380",
        f"promote in {THREE}: infra4 http://10.0.0.4:2380",
        f"add_learner in {THREE}+infra4: infra5 http://10.0.0.5:2380",
        f"promote in {THREE}+infra4: infra5 http://10.0.0.5:2380",
    ]
    assert compared == []  # nobody leaves


def test_a_new_member_knows_the_voters_of_its_moment(done: plan_text.Done) -> None:
    """etcd refuses to start with another list of members than the cluster's."""
    of = world()
    plan = of.plan(with_new(of, 4, 5))
    for number, name in ((4, "infra4"), (5, "infra5")):
        step = next(s for s in plan.steps if s.title.startswith(f"start {name}"))
        (config,) = [c for c in step.hosts[0].changes if c.what.endswith("etcd.conf.yml")]
        known = ",".join(f"infra{n}=http://10.0.0.{n}:2380" for n in range(1, number + 1))
        written = b64decode(config.script.split("@@end'\n")[1].partition("\n@@end")[0])
        assert f'initial-cluster: "{known}"' in written.decode()
        assert 'initial-cluster-state: "existing"' in written.decode()
        # It is ready only when it has caught up: that takes longer than a start.
        assert step.hosts[0].changes[-1].seconds >= 600


def test_add_member_adds_one_or_all_that_are_declared(done: plan_text.Done) -> None:
    of = world()
    declared = with_new(of, 4, 5)
    one = command(add_member.plan, of, "infra5", cluster=declared)
    assert short(plan_text.text(one)) == [PREPARE, *added("infra5", THREE)]
    assert (one.command, one.cluster) == ("add-member", "c")
    assert {m.host for m in one.guards} == {f"10.0.0.{n}" for n in (1, 2, 3, 4, 5)}
    both = command(add_member.plan, of, "", cluster=declared)
    assert [s.title for s in both.steps if s.title.startswith("add")] == [
        "add infra4 as a learner",
        "add infra5 as a learner",
    ]
    with pytest.raises(UsageError, match=r"not in etcd\.members"):
        command(add_member.plan, of, "infra9", cluster=declared)


def test_nobody_is_added_while_a_voter_is_down(done: plan_text.Done) -> None:
    """The quorum of four is three: with one of them down, none could be lost."""
    of = world()
    of.stop("infra2")
    with pytest.raises(PreflightFailed, match="infra4 cannot be added while infra2") as refused:
        command(add_member.plan, of, "infra4", cluster=with_new(of, 4))
    assert refused.value.id == "quorum-at-risk"
    assert ["infra2" in p.where for p in refused.value.problems] == [True]


@pytest.mark.parametrize("named", [True, False])
def test_a_learner_of_a_killed_run_is_started_and_not_added_again(
    named: bool, done: plan_text.Done
) -> None:
    of = world()
    declared = with_new(of, 4)
    new = declared.members[3]
    left = RegisteredMember(9, new.name if named else "", (new.peer_url,), (), True)
    of.registered.append(left)
    assert short(plan_text.text(of.plan(declared))) == [PREPARE, *started("infra4", THREE)]


def test_a_dead_member_is_removed_before_its_successor_is_added(
    done: plan_text.Done, compared: Compared
) -> None:
    """Its data is moved aside, after etcd has forgotten it and before the new one starts."""
    of = world()
    of.stop("infra2")
    plan = command(replace_member.plan, of, "infra2")
    assert short(plan_text.text(plan)) == [
        *removed("infra2", "infra1+infra3", note=False),
        *added("infra2", "infra1+infra3"),
    ]
    assert on_host(plan, "add infra2 as a learner") == [
        "infra2: stop etcd.service, which ran a former member",
        "infra2: keep the data aside: /var/lib/etcd/member.removed-DATE",
    ]
    stop, aside = plan.steps[1].hosts[0].changes
    assert stop.script == "systemctl stop etcd.service 2>/dev/null || :"
    assert (stop.disrupts, aside.disrupts, stop.seconds) == (True, True, 90)
    assert aside.script == (
        "[ ! -d /var/lib/etcd/member ] || ( walk /var/lib/etcd || exit 1\n"
        "mv -T ./member ./member.removed-$(date -u +%Y%m%dT%H%M%SZ) )"
    )
    assert plan.steps[2].hosts[0].changes[-1].what == "start etcd.service"
    assert plan_text.called(plan, done) == [
        f"remove in {THREE}: 2 others infra1+infra3",
        "add_learner in infra1+infra3: infra2 http://10.0.0.2:2380",
        "promote in infra1+infra3: infra2 http://10.0.0.2:2380",
    ]
    assert compared == [("infra2",)]
    assert plan.command == "replace-member"


def test_data_is_deleted_of_who_is_named_alone(done: plan_text.Done) -> None:
    of = world()
    of.stop("infra2")
    for named, verb in (("infra2", "DELETE"), ("infra1", "keep")):
        plan = command(replace_member.plan, of, "infra2", delete=(named,))
        last = plan.steps[1].hosts[0].changes[-1]
        assert last.what.startswith(verb)
        assert (last.script == "gone /var/lib/etcd/member") is (verb == "DELETE")
        assert last.disrupts
    odd = replace(of.cluster, established=Established(1, odd=frozenset({"infra2"}), name="1"))
    for make in (replace_member.plan, remove_member.plan):
        with pytest.raises(UsageError) as refused:
            command(make, of, "infra2", cluster=odd, delete=("infra2",))
        assert refused.value.message == (
            "the data of infra2 is not from the cluster that serves: this command only keeps it "
            "aside. Leave --delete-data out; later, invoke kept-data --delete deletes it"
        )
        assert refused.value.id == "option-invalid"


def test_a_healthy_member_is_not_replaced(done: plan_text.Done) -> None:
    assert command(replace_member.plan, world(), "infra2").steps == ()


def test_a_member_that_etcd_does_not_have_is_only_added(done: plan_text.Done) -> None:
    """The run that replaced it was killed after the removal."""
    of = world()
    of.stop("infra2")
    of.registered = [r for r in of.registered if r.name != "infra2"]
    plan = command(replace_member.plan, of, "infra2")
    assert short(plan_text.text(plan)) == added("infra2", "infra1+infra3")


def test_a_learner_that_is_down_is_not_removed_but_started(done: plan_text.Done) -> None:
    of = world()
    of.stop("infra2")
    of.registered = [
        replace(r, is_learner=True) if r.name == "infra2" else r for r in of.registered
    ]
    plan = command(replace_member.plan, of, "infra2")
    assert short(plan_text.text(plan)) == started("infra2", "infra1+infra3")


def test_a_member_leaves_and_its_host_is_cleaned(done: plan_text.Done, compared: Compared) -> None:
    plan = command(remove_member.plan, world(), "infra3")
    assert short(plan_text.text(plan)) == [
        *removed("infra3", "infra1+infra2", note=True, cuts=CUTS),
        *cleaned("infra3"),
    ]
    assert on_host(plan, "clean the host of infra3") == [
        "infra3: stop and disable etcd.service",
        "infra3: keep the data aside: /var/lib/etcd/member.removed-DATE",
    ]
    stop, _ = plan.steps[1].hosts[0].changes
    assert stop.script.splitlines() == [
        "systemctl disable -q --now etcd.service",
        "systemctl reset-failed etcd.service 2>/dev/null || :",
    ]
    assert (stop.disrupts, stop.seconds) == (True, 90)
    # The note is written before the removal: a killed run knows that the host is to be cleaned.
    assert plan_text.called(plan, done) == [
        f"leader of {THREE}:",
        'put /alluxio-provision/pending/clean/infra3 {"address": "10.0.0.3"}',
        f"remove in {THREE}: 3 others infra1+infra2",
        "leader of infra1+infra2:",
        "delete /alluxio-provision/pending/clean/infra3",
    ]
    assert compared == [("infra3",)]
    assert (plan.command, plan.cluster) == ("remove-member", "c")
    assert {m.host for m in plan.guards} == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}


@pytest.mark.parametrize("name", ["infra3", "3"])
def test_a_member_may_be_named_by_its_id(name: str, done: plan_text.Done) -> None:
    plan = command(remove_member.plan, world(), name)
    assert plan.steps[0].title == "remove infra3"


def test_no_member_leaves_when_too_few_stay(done: plan_text.Done) -> None:
    of = world()
    of.stop("infra2")
    with pytest.raises(PreflightFailed, match="without infra3, 1 of 2 voters") as refused:
        command(remove_member.plan, of, "infra3")
    assert refused.value.id == "quorum-at-risk"
    # The dead one may leave: the quorum of two is two, and both are healthy.
    plan = command(remove_member.plan, of, "infra2")
    assert short(plan_text.text(plan))[:5] == removed("infra2", "infra1+infra3", note=True)
    alone = world(1)
    with pytest.raises(UsageError, match="infra1 is the only member") as only:
        command(remove_member.plan, alone, "infra1")
    assert only.value.id == "command-not-applicable"


def test_of_five_the_gate_asks_who_serves(done: plan_text.Done) -> None:
    """One more is down already, and stays so."""
    of = world(5)
    of.stop("infra2", "infra4")
    plan = command(remove_member.plan, of, "infra2")
    rest = "infra1+infra3+infra5"
    assert short(plan_text.text(plan))[:5] == removed("infra2", rest, note=True)
    assert f"remove in {THREE}+infra4+infra5: 2 others {rest}" in plan_text.called(plan, done)


def test_who_is_neither_there_nor_declared_has_no_plan(done: plan_text.Done) -> None:
    with pytest.raises(UsageError, match="'infra9' is neither a member") as refused:
        command(remove_member.plan, world(), "infra9")
    assert refused.value.id == "name-unknown"


def test_a_removal_that_was_killed_goes_on_with_the_host(done: plan_text.Done) -> None:
    of = world()
    of.registered = of.registered[:2]
    of.pending = Pending(clean={"infra3": "10.0.0.3"})
    plan = command(remove_member.plan, of, "infra3")
    assert short(plan_text.text(plan)) == cleaned("infra3")
    # Without the note, what is on its host tells the same.
    of.pending = Pending()
    assert short(plan_text.text(command(remove_member.plan, of, "infra3"))) == cleaned("infra3")
    # On a clean host there is nothing left to do.
    of.facts["infra3"] = hosts.facts(3)
    assert command(remove_member.plan, of, "infra3").steps == ()


def test_a_host_that_was_left_is_cleaned_by_deploy_etcd(
    done: plan_text.Done, reached: Reached
) -> None:
    of = world()
    of.pending = Pending(clean={"gone": "10.0.0.9"})
    # It has another data folder than the members that there are now.
    commands = {"data": "/mnt/old\n"}
    reached.facts["10.0.0.9"] = replace(of.facts["infra1"], paths=dict(of.facts["infra1"].paths))
    reached.facts["10.0.0.9"] = replace(reached.facts["10.0.0.9"], commands=commands)
    plan = of.plan()
    assert short(plan_text.text(plan)) == cleaned("gone")
    (host,) = plan.steps[0].hosts
    assert (host.name, host.machine.host) == ("gone", "10.0.0.9")
    assert host.changes[1].script.startswith("[ ! -d /mnt/old/member ] || ( walk /mnt/old ")
    assert plan_text.called(plan, done) == [
        f"leader of {THREE}:",
        "delete /alluxio-provision/pending/clean/gone",
    ]
    probe = reached.probes["10.0.0.9"]
    assert probe.units == (layout.UNIT,)
    assert probe.paths == ("/var/lib/etcd/member",)
    assert [r.path for r in probe.resources if hasattr(r, "path")] == [layout.UNIT_PATH]
    assert "/etc/etcd/etcd.conf.yml" in probe.commands["data"]


def test_a_host_that_is_away_is_not_cleaned_and_it_is_said(done: plan_text.Done) -> None:
    of = world()
    of.pending = Pending(clean={"gone": "10.0.0.9"})
    plan = of.plan()
    assert plan.steps == ()
    (note,) = plan.notes
    assert (note.id, note.severity, note.where) == (
        "host-not-cleaned",
        "warning",
        "gone at 10.0.0.9 (not in the inventory; address from etcd's list of members)",
    )
    assert "no route" in note.what
    assert "systemctl disable --now etcd.service" in note.remedy


def test_the_host_of_another_member_is_not_cleaned(done: plan_text.Done) -> None:
    of = world()
    of.pending = Pending(clean={"gone": "10.0.0.3"})
    plan = of.plan()
    assert (plan.steps, plan.notes) == ((), ())


def swapped(of: Cluster, reached: Reached) -> EtcdCluster:
    """The inventory has infra4 in the place of infra3."""
    reached.facts["10.0.0.3"] = of.facts["infra3"]
    declared = with_new(of, 4)
    return replace(declared, members=tuple(m for m in declared.members if m.name != "infra3"))


def test_the_new_one_joins_before_a_working_one_leaves(
    done: plan_text.Done, reached: Reached, compared: Compared
) -> None:
    of = world()
    plan = of.plan(swapped(of, reached), "infra3")
    assert short(plan_text.text(plan)) == [
        PREPARE,
        *added("infra4", THREE),
        *removed("infra3", "infra1+infra2+infra4", note=True, cuts=CUTS),
        *cleaned("infra3"),
    ]
    calls = plan_text.called(plan, done)
    assert f"remove in {THREE}+infra4: 3 others infra1+infra2+infra4" in calls
    assert compared == [("infra3",)]


def test_a_dead_one_leaves_before_the_new_one_joins(done: plan_text.Done, reached: Reached) -> None:
    of = world()
    of.stop("infra3")
    plan = of.plan(swapped(of, reached), "infra3")
    assert short(plan_text.text(plan)) == [
        PREPARE,
        *removed("infra3", "infra1+infra2", note=True),
        *cleaned("infra3"),
        *added("infra4", "infra1+infra2"),
    ]


def test_who_is_not_named_stays_and_counts(done: plan_text.Done, reached: Reached) -> None:
    of = world()
    plan = of.plan(swapped(of, reached))
    assert short(plan_text.text(plan)) == [PREPARE, *added("infra4", THREE)]
    assert [p.where for p in plan.left] == ["etcd member infra3"]


def test_a_member_that_moves_is_told_restarted_and_awaited_at_its_new_address(
    done: plan_text.Done,
) -> None:
    of = world()
    third = replace(of.cluster.members[2], address="10.0.9.3")
    plan = of.plan(replace(of.cluster, members=(*of.cluster.members[:2], third)))
    assert plan_text.text(plan) == [
        "tell etcd the new address of infra3",
        f" before: {THREE} without infra3{CUTS}",
        " call: etcd: infra3 moves from http://10.0.0.3:2380 to http://10.0.9.3:2380, after "
        "another member has taken the lead",
        "restart infra3 with its new address",
        " infra3: change /etc/etcd/etcd.conf.yml, restart etcd.service",
        f" after: healthy {THREE}",
    ]
    diff = plan.steps[1].hosts[0].changes[0].diff
    assert '+initial-advertise-peer-urls: "http://10.0.9.3:2380"' in diff
    assert plan_text.called(plan, done) == [
        f"update in {THREE}+infra3 at its new address: infra3 http://10.0.9.3:2380 3 "
        "others infra1+infra2",
    ]


def test_only_one_member_moves_at_a_time(done: plan_text.Done) -> None:
    of = world()
    first, *rest = of.cluster.members
    moved = [replace(m, address=f"10.0.9.{m.name[-1]}") for m in rest]
    plan = of.plan(replace(of.cluster, members=(first, *moved)))
    assert [s.title for s in plan.steps] == [
        "tell etcd the new address of infra2",
        "restart infra2 with its new address",
        "tell etcd the new address of infra3",
        "restart infra3 with its new address",
    ]


def test_a_move_to_an_empty_host_is_a_replacement(done: plan_text.Done, reached: Reached) -> None:
    """Nothing is there to go on from. The former host is cleaned, too."""
    of = world()
    reached.facts["10.0.0.3"] = of.facts["infra3"]
    third = of.cluster.members[2]
    elsewhere = replace(third, machine=replace(third.machine, host="10.0.0.9"), address="10.0.0.9")
    of.facts["infra3"] = hosts.facts(9)
    plan = of.plan(replace(of.cluster, members=(*of.cluster.members[:2], elsewhere)), "infra3")
    text = short(plan_text.text(plan))
    assert [s.title for s in plan.steps] == [
        PREPARE,
        "remove infra3",
        "clean the host of infra3",
        "add infra3 as a learner",
        "start infra3, and make it a voter when it has caught up",
    ]
    assert text.index("remove infra3") < text.index("add infra3 as a learner")
    hosts_of = {s.title: [h.machine.host for h in s.hosts] for s in plan.steps}
    assert hosts_of["clean the host of infra3"] == ["10.0.0.3"]
    assert hosts_of[PREPARE] == ["10.0.0.9"]


def test_on_the_host_of_its_predecessor_the_new_one_moves_the_data_aside(
    done: plan_text.Done,
) -> None:
    """The host is not cleaned: it is in use again."""
    of = world()
    of.stop("infra2")
    plan = command(replace_member.plan, of, "infra2")
    assert not any(s.title.startswith("clean") for s in plan.steps)


def test_a_member_that_comes_again_is_no_longer_to_be_cleaned(done: plan_text.Done) -> None:
    of = world()
    of.registered = of.registered[:2]
    of.stop("infra3")
    of.pending = Pending(clean={"infra3": "10.0.0.3"})
    plan = command(add_member.plan, of, "infra3")
    assert plan_text.called(plan, done)[-2:] == [
        f"leader of {THREE}:",
        "delete /alluxio-provision/pending/clean/infra3",
    ]
    assert plan.notes == ()
    # It comes to another host: the former one is said.
    of.pending = Pending(clean={"infra3": "10.0.0.9"})
    (note,) = command(add_member.plan, of, "infra3").notes
    assert (note.id, note.severity, note.where) == (
        "host-not-cleaned",
        "warning",
        "infra3 (10.0.0.9)",
    )


def test_with_an_odd_member_the_others_lead_and_take_over(
    done: plan_text.Done, monkeypatch: pytest.MonkeyPatch, compared: Compared
) -> None:
    of = alarmed(5)
    well, odd = ("infra1", "infra3", "infra5"), ("infra2", "infra4")
    found = Comparison(9, {1: well, 2: odd[:1], 3: odd[1:]}, 5)
    monkeypatch.setattr(hashes, "compare", lambda *_: found)

    plan = command(replace_member.plan, of, "infra2")
    rest = "infra1+infra3+infra4+infra5"
    assert short(plan_text.text(plan)) == [
        "remove infra2",
        f" before: healthy {rest} while CORRUPT",
        " call: etcd: remove infra2 (2), after another member has taken the lead",
        f" after: healthy {rest} while CORRUPT",
        "give the lead to a member with the majority's data",
        " call: etcd: another member takes the lead, if infra4 leads",
        "add infra2 as a learner",
        f" before: healthy {rest} while CORRUPT",
        " call: etcd: add learner infra2 at http://10.0.0.2:2380",
        "start infra2, and make it a voter when it has caught up",
        " call: etcd: promote infra2",
        f" after: healthy {rest}+infra2 while CORRUPT, and infra2 has the majority's data",
    ]
    assert plan_text.called(plan, done) == [
        f"remove in {THREE}+infra4+infra5: 2 others infra1+infra3+infra5",
        f"move_leadership_off in {rest}: infra4 http://10.0.0.4:2380 others infra1+infra3+infra5",
        f"add_learner in {rest}: infra2 http://10.0.0.2:2380",
        f"promote in {rest}: infra2 http://10.0.0.2:2380",
    ]
    assert compared == [("infra2", "infra2", "infra4")]


def test_the_last_odd_one_gone_the_alarm_is_disarmed_before_anything_is_written(
    done: plan_text.Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = alarmed(3)
    found = Comparison(9, {1: ("infra1", "infra3"), 2: ("infra2",)}, 3)
    monkeypatch.setattr(hashes, "compare", lambda *_: found)
    plan = command(replace_member.plan, of, "infra2")
    rest = "infra1+infra3"
    assert short(plan_text.text(plan)) == [
        "remove infra2",
        f" before: healthy {rest} while CORRUPT",
        " call: etcd: remove infra2 (2), after another member has taken the lead",
        f" after: healthy {rest} while CORRUPT",
        "disarm the alarm CORRUPT",
        " call: disarm CORRUPT",
        f" after: healthy {rest}",
        *added("infra2", rest)[:-1],
        f" after: healthy {rest}+infra2, and infra2 has the majority's data",
    ]
    assert f"disarm CORRUPT of {rest}" in plan_text.called(plan, done)


def test_who_has_joined_has_the_others_data_or_nothing_more_is_changed(
    monkeypatch: pytest.MonkeyPatch, compared: Compared
) -> None:
    """As after a force-new-cluster by hand: who joins replays a log that was cut."""
    of = world()
    of.facts["infra4"] = hosts.facts(4)
    of.down.add("infra4")
    monkeypatch.setattr(gates, "all_healthy", lambda *_, **__: Gate("", lambda: None))
    monkeypatch.setattr(health, "observe", lambda _: None)
    plan = of.plan(replace(of.cluster, members=(*of.cluster.members, builders.member(4))))
    gate = next(s.after for s in plan.steps if s.title.startswith("start infra4"))
    assert gate is not None
    del compared[:]
    gate.check()
    assert compared == [()]


def test_the_gate_after_a_move_asks_at_the_new_address(
    done: plan_text.Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def all_healthy(etcd: Etcd, *_: object, **__: object) -> Gate:
        asked.append([m.address for m in etcd.cluster.members])
        return Gate("", lambda: None)

    def others(etcd: Etcd, member: EtcdMember) -> Gate:
        asked.append([member.address, *(m.address for m in etcd.cluster.members)])
        return Gate("", lambda: None)

    monkeypatch.setattr(gates, "all_healthy", all_healthy)
    monkeypatch.setattr(gates, "require_others_healthy", others)
    of = world()
    third = replace(of.cluster.members[2], address="10.0.9.3")
    of.plan(replace(of.cluster, members=(*of.cluster.members[:2], third)))
    assert asked[-2:] == [
        ["10.0.0.3", "10.0.0.1", "10.0.0.2", "10.0.0.3"],
        ["10.0.0.1", "10.0.0.2", "10.0.9.3"],
    ]


def test_with_tls_who_moves_or_joins_gets_a_certificate_for_its_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan_text.spell(monkeypatch)
    of = installed(secured(tmp_path), own_ca.ensure_ca(tmp_path, "c"))
    first, second, third = of.cluster.members
    moved = replace(of.cluster, members=(first, second, replace(third, address="10.0.9.3")))
    step = next(s for s in of.plan(moved).steps if s.title.startswith("restart infra3"))
    said = [c.what.split(" and ")[0] for c in step.hosts[0].changes]
    assert said[:2] == ["change /etc/etcd/pki/server.crt", "change /etc/etcd/pki/peer.crt"]
    assert said[-1] == "restart etcd.service"
    new = builders.member(4, peer_tls=True, client_tls=True)
    of.facts["infra4"] = hosts.facts(4, commands={desired.OPENSSL: "/usr/bin/openssl"})
    of.down.add("infra4")
    plan = of.plan(replace(of.cluster, members=(*of.cluster.members, new)))
    step = next(s for s in plan.steps if s.title.startswith("start infra4"))
    said = [c.what.split(" and ")[0] for c in step.hosts[0].changes]
    start = said.index("start etcd.service")
    for file in ("ca.crt", "server.crt", "peer.crt"):
        assert said.index(f"write /etc/etcd/pki/{file}") < start


def test_after_a_recovery_a_member_joins_whatever_the_release(
    done: plan_text.Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.5.5 gives a new member other data when authentication is on; the cluster must have members
    all the same before it can be upgraded."""
    monkeypatch.setattr(ClusterHealth, "releases", {"infra1": "3.5.5"}.items())
    monkeypatch.setattr(ClusterHealth, "asks_for_login", True)
    of = world()
    declared = with_new(of, 4)
    with pytest.raises(PreflightFailed, match="adding infra4 could damage") as refused:
        command(add_member.plan, of, "infra4", cluster=declared)
    assert refused.value.id == "etcd-version-unfit"
    inventory = builders.inventory(None, etcd=declared, alluxio=None)
    chosen = Options(write=False, workers=False)
    with Fleet(1) as fleet:
        etcd, seen = Etcd(declared, fleet), of.observed(declared)
        plan = add_member.plan(inventory, etcd, seen, "infra4", chosen, recovering=True)
    assert plan.steps[-1].title.startswith("start infra4")


def test_an_odd_member_is_replaced_by_the_cluster_that_serves(done: plan_text.Done) -> None:
    of = world()
    for name, option in (("1", " --cluster-id 1"), ("", "")):
        established = Established(1, odd=frozenset({"infra3"}), name=name)
        with pytest.raises(PreflightFailed) as refused:
            of.plan(replace(of.cluster, established=established))
        (problem,) = refused.value.problems
        assert problem.remedy.startswith(f"invoke replace-member infra3{option}: ")
        assert problem.where == "infra3 at 10.0.0.3"


def test_changes_of_the_inventory_that_may_be_mistakes_are_refused(done: plan_text.Done) -> None:
    of = world()
    first, second, third = of.cluster.members
    renamed = replace(third, name="other")
    of.facts["other"] = of.facts["infra3"]
    of.down.add("other")
    with pytest.raises(PreflightFailed) as refused:
        of.plan(replace(of.cluster, members=(first, second, renamed)))
    (problem,) = refused.value.problems
    assert (problem.where.split()[0], problem.id) == ("other", "members-unclear")
    assert "has the peer URL of infra3" in problem.what
    assert "invoke remove-member infra3" in problem.remedy
    # Another port on the same host: both would have one data directory.
    beside = replace(renamed, peer_port=12380)
    with pytest.raises(PreflightFailed) as refused:
        of.plan(replace(of.cluster, members=(first, second, beside)))
    (problem,) = refused.value.problems
    assert (problem.where.split()[0], problem.id) == ("other", "members-unclear")
    assert "is on the host of a member" in problem.what
    assert "invoke remove-member" in problem.remedy
    # Peer TLS is not turned off.
    of.registered = [
        replace(r, peer_urls=(r.peer_urls[0].replace("http:", "https:"),)) for r in of.registered
    ]
    with pytest.raises(PreflightFailed) as refused:
        of.plan()
    assert [p.id for p in refused.value.problems] == ["members-unclear"] * 3
    assert "https://10.0.0.1:2380" in refused.value.problems[0].what
    assert "nothing turns it off" in refused.value.problems[0].remedy


def test_several_members_move_to_empty_hosts_when_they_are_named(
    done: plan_text.Done, reached: Reached
) -> None:
    """One by one: the data are never on fewer than four hosts."""
    of = world(5)
    moved = []
    for m in of.cluster.members:
        number = int(m.name[-1])
        if number in (4, 5):
            of.facts[m.name] = hosts.facts(number + 10)
            host = f"10.0.0.1{number}"
            m = replace(m, machine=replace(m.machine, host=host), address=host)
        moved.append(m)
    declared = replace(of.cluster, members=tuple(moved))
    plan = of.plan(declared, "infra4", "infra5")
    said = [s.title for s in plan.steps if s.title.startswith(("add", "remove"))]
    assert said == [f"{verb} infra{n}{end}" for n in (4, 5) for verb, end in MOVE]
    left = of.plan(declared)
    assert [p.where for p in left.left] == ["etcd member infra4", "etcd member infra5"]
    assert left.steps == ()


@pytest.mark.parametrize("make", [remove_member.plan, replace_member.plan])
def test_only_the_odd_member_may_go_while_corrupt_is_raised(
    make: Any, done: plan_text.Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = alarmed(3)

    def compare(seen: ClusterHealth, etcd: Etcd) -> Comparison:
        assert [m.healthy for m in seen.members] == [True] * 3
        assert etcd.cluster == of.cluster
        return Comparison(9, {1: ("infra1", "infra3"), 2: ("infra2",)}, 3)

    monkeypatch.setattr(hashes, "compare", compare)
    plan = command(make, of, "infra2")
    cuts = CUTS if make is remove_member.plan else ""
    assert short(plan_text.text(plan))[:2] == [
        "remove infra2",
        f" before: healthy infra1+infra3 while CORRUPT{cuts}",
    ]
    assert f"remove in {THREE}: 2 others infra1+infra3" in plan_text.called(plan, done)
    with pytest.raises(PreflightFailed):
        command(make, of, "infra3")


def test_add_member_gives_a_certificate_before_the_first_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan_text.spell(monkeypatch)
    of = installed(secured(tmp_path), own_ca.ensure_ca(tmp_path, "c"))
    new = builders.member(4, peer_tls=True, client_tls=True)
    of.facts["infra4"] = hosts.facts(4, commands={desired.OPENSSL: "/usr/bin/openssl"})
    of.down.add("infra4")
    declared = replace(of.cluster, members=(*of.cluster.members, new))
    plan = command(add_member.plan, of, "infra4", cluster=declared)
    said = [c.what.split(" and ")[0] for c in plan.steps[-1].hosts[0].changes]
    assert "write /etc/etcd/pki/peer.crt" in said
    assert said[-1] == "start etcd.service"
