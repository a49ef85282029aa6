"""Peer TLS in a running plain cluster, as a value: what all must trust before anybody shows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.engine.plan import Plan, Step
from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd.api.values import RegisteredMember
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import desired
from provision.etcd.member.desired import MemberTls
from provision.etcd.pki import certificates, own_ca, tls
from provision.host.facts import HostFacts
from provision.host.predict import after
from provision.inventory.model import EtcdTls
from provision.inventory.resolved import EtcdCluster, EtcdMember
from provision.plans.etcd.certificates import enable_peer_tls
from provision.ssh.session import Fleet
from tests.unit import builders, hosts, plan_text
from tests.unit.test_deploy_plan import World

ALL = "infra1+infra2+infra3"
NAMES = ("infra1", "infra2", "infra3")


@pytest.fixture
def world() -> World:
    """A plain cluster; its hosts have openssl, so the keys are made there."""
    made = World()
    for name in NAMES:
        made.facts[name] = replace(made.facts[name], commands={desired.OPENSSL: "/usr/bin/openssl"})
    return made


@pytest.fixture
def declared(world: World, tmp_path: Path) -> EtcdCluster:
    secure = tuple(replace(m, peer_tls=True) for m in world.cluster.members)
    return replace(world.cluster, members=secure, tls=EtcdTls(pki_dir=tmp_path))


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> plan_text.Done:
    return plan_text.spell(monkeypatch)


def registered(world: World, declared: EtcdCluster, *names: str) -> None:
    """etcd has the https URLs of these members already."""
    urls = {m.name: m.peer_url for m in declared.members if m.name in names}
    world.registered = [
        replace(r, peer_urls=(urls.get(r.name, r.peer_urls[0]),)) for r in world.registered
    ]


def titles(plan: Plan) -> list[str]:
    return [s.title for s in plan.steps]


def can(name: str) -> str:
    return f"{name} can speak TLS to its peers"


def told(name: str) -> str:
    return f"tell the cluster that {name} is at https://10.0.0.{name[-1]}:2380"


def only(name: str) -> str:
    return f"{name} listens by TLS only"


def order(leader: str) -> list[str]:
    return [*(n for n in NAMES if n != leader), leader]


@pytest.mark.parametrize("leader", NAMES)
def test_all_can_speak_tls_before_the_first_is_told_and_the_leader_is_last(
    leader: str, world: World, declared: EtcdCluster, done: plan_text.Done
) -> None:
    world.leader = leader
    plan = world.plan(declared)
    assert titles(plan) == [
        *map(can, order(leader)),
        *(title for n in order(leader) for title in (told(n), only(n))),
    ]
    assert (plan.command, plan.cluster) == ("deploy-etcd", "c")
    assert set(plan.machines) == {m.machine for m in declared.members}


def test_each_step_has_its_gates_and_one_host(
    world: World, declared: EtcdCluster, done: plan_text.Done
) -> None:
    """A URL that was told has no gate after it: the member is cut off until it listens there."""
    plan = world.plan(declared)
    for step in plan.steps:
        name = next(n for n in NAMES if n in step.title)
        assert step.before is not None
        assert step.before.title == f"{ALL} without {name}"
        if step.title == told(name):
            assert step.hosts == ()
            assert step.after is None
            continue
        assert step.after is not None
        assert step.after.title == f"healthy {ALL} through {name}"
        (host,) = step.hosts
        assert (host.name, host.machine) == (name, declared.member(name).machine)
        assert [c.disrupts for c in host.changes][-1]
        assert host.changes[-1].what == "restart etcd.service"
        assert step.calls == ()


def test_etcd_is_told_by_the_members_id_and_another_may_lead(
    world: World, declared: EtcdCluster, done: plan_text.Done
) -> None:
    plan = world.plan(declared)
    assert plan_text.called(plan, done) == [
        f"update in {ALL}: {name} https://10.0.0.{name[-1]}:2380 {name[-1]} others {others}"
        for name, others in (
            ("infra2", "infra1+infra3"),
            ("infra3", "infra1+infra2"),
            ("infra1", "infra2+infra3"),
        )
    ]


def configured(step: Step) -> str:
    return "".join(c.diff for h in step.hosts for c in h.changes)


class Model:
    """What each member's process trusts and how it listens, as it was started last."""

    def __init__(self) -> None:
        self.trusting: set[str] = set()
        self.listening: set[str] = set()
        self.at_https: set[str] = set()

    def apply(self, step: Step) -> None:
        for host in step.hosts:
            said = [c.what for c in host.changes]
            if any("ca.crt" in what for what in said):
                assert any("peer.crt" in what for what in said)
                self.trusting.add(host.name)
            if '+listen-peer-urls: "https://' in configured(step):
                # Nobody reaches it by the URL that etcd has, if this is still the plain one.
                assert host.name in self.at_https
                self.listening.add(host.name)
            assert host.name in self.trusting
        for call in step.calls:
            name = call.what.split()[2].rstrip(":")
            assert self.trusting == set(NAMES), "one would not trust what the others show"
            assert self.at_https == self.listening, "two members would be cut off"
            self.at_https.add(name)


def test_nobody_shows_what_another_does_not_trust_yet(
    world: World, declared: EtcdCluster, done: plan_text.Done
) -> None:
    model = Model()
    for step in world.plan(declared).steps:
        model.apply(step)
    assert model.listening == model.at_https == set(NAMES)


def rolled(world: World, declared: EtcdCluster, *names: str, tls: bool = False) -> None:
    """These members were restarted with the files; ``tls``: and listen by TLS."""
    ca = own_ca.ensure_ca(declared.tls.pki_dir, declared.name)
    for name in names:
        member = declared.member(name)
        pair = certificates.leaf(ca, name, desired.sans(member))
        leaf = desired.Leaf(pair=(pair.cert_pem, pair.key_pem))
        material = desired.MemberTls(name, ca.cert_pem, leaf, None)
        at = member if tls else replace(member, peer_tls=False)
        wanted = desired.resources(declared, at, hosts.TARBALL, material, None, bootstrapped=True)
        world.facts[name] = after(wanted, world.facts[name])


def test_a_killed_run_goes_on_with_who_has_no_files(
    world: World, declared: EtcdCluster, done: plan_text.Done
) -> None:
    rolled(world, declared, "infra2")
    assert titles(world.plan(declared)) == [
        can("infra3"),
        can("infra1"),
        *(title for n in order("infra1") for title in (told(n), only(n))),
    ]


def test_a_killed_run_goes_on_with_who_is_not_told(
    world: World, declared: EtcdCluster, done: plan_text.Done
) -> None:
    rolled(world, declared, *NAMES)
    rolled(world, declared, "infra2", tls=True)
    registered(world, declared, "infra2")
    assert titles(world.plan(declared)) == [
        told("infra3"),
        only("infra3"),
        told("infra1"),
        only("infra1"),
    ]


def test_who_was_told_and_not_restarted_is_restarted_before_another_is_told(
    world: World, declared: EtcdCluster, done: plan_text.Done
) -> None:
    """Two members that are told and do not listen there would be cut off from each other."""
    rolled(world, declared, *NAMES)
    registered(world, declared, "infra3")
    assert titles(world.plan(declared)) == [
        only("infra3"),
        told("infra2"),
        only("infra2"),
        told("infra1"),
        only("infra1"),
    ]


def test_when_all_are_told_the_rest_is_a_change_like_any(
    world: World, declared: EtcdCluster, done: plan_text.Done
) -> None:
    rolled(world, declared, *NAMES, tls=True)
    registered(world, declared, *NAMES)
    assert not enable_peer_tls.wanted(declared, world.observed(declared))
    assert world.plan(declared).steps == ()


def test_a_plain_cluster_that_is_declared_plain_is_left(world: World) -> None:
    assert not enable_peer_tls.wanted(world.cluster, world.observed())


def test_a_cluster_that_does_not_run_is_begun_with_tls(
    world: World, declared: EtcdCluster, done: plan_text.Done
) -> None:
    world.established = False
    assert not enable_peer_tls.wanted(declared, world.observed(declared))


@pytest.mark.parametrize("name", NAMES)
def test_no_member_may_be_down(
    name: str, world: World, declared: EtcdCluster, done: plan_text.Done
) -> None:
    """Without one of three, the restart of another would stop the cluster."""
    world.stop(name)
    if name == world.leader:
        world.leader = "infra2"
    with pytest.raises(Unhealthy, match="2 of 3 members are healthy") as refused:
        world.plan(declared)
    assert refused.value.id == "quorum-at-risk"
    assert not own_ca.ca_exists(declared.tls.pki_dir, declared.name)


@pytest.mark.parametrize("kind", ["NOSPACE", "CORRUPT"])
def test_no_alarm_may_stand(
    kind: str, world: World, declared: EtcdCluster, done: plan_text.Done
) -> None:
    world.alarms = (kind,)
    with pytest.raises(PreflightFailed, match=kind):
        world.plan(declared)


def test_members_change_before_or_after_and_not_meanwhile(
    world: World, declared: EtcdCluster, done: plan_text.Done
) -> None:
    gone = RegisteredMember(9, "other", ("http://10.0.0.9:2380",), (), False)
    unnamed = RegisteredMember(0xAB, "", ("http://10.0.0.8:2380",), (), True)
    world.registered += [gone, unnamed]
    with pytest.raises(PreflightFailed, match="change the members before or after that") as refused:
        world.plan(declared)
    assert refused.value.id == "members-unclear"
    assert [(p.where, p.id) for p in refused.value.problems] == [
        ("other", "member-not-declared"),
        ("ab", "member-not-declared"),
    ]
    world.registered = world.registered[:2]
    with pytest.raises(PreflightFailed, match="change the members before") as refused:
        world.plan(declared)
    assert [(p.where.split()[0], p.id) for p in refused.value.problems] == [
        ("infra3", "member-not-joined")
    ]


def test_what_is_only_shown_makes_no_authority(
    world: World, declared: EtcdCluster, done: plan_text.Done, tmp_path: Path
) -> None:
    assert len(world.plan(declared).steps) == 9
    assert list(tmp_path.iterdir()) == []


def test_warnings_of_preflight_are_in_the_plan(
    world: World, declared: EtcdCluster, done: plan_text.Done
) -> None:
    odd = Problem("a", "odd", severity="warning", id="disk-full")
    seen = replace(world.observed(declared), warnings=(odd,))
    with Fleet(1) as fleet:
        plan = enable_peer_tls.plan(Etcd(declared, fleet), seen, write=True)
    assert plan.notes == (odd,)
    assert own_ca.ca_exists(declared.tls.pki_dir, declared.name)


def test_one_member_gets_tls_alone(tmp_path: Path, done: plan_text.Done) -> None:
    alone = World(builders.etcd(builders.member(1)))
    secure = tuple(replace(m, peer_tls=True) for m in alone.cluster.members)
    declared = replace(alone.cluster, members=secure, tls=EtcdTls(pki_dir=tmp_path))
    plan = alone.plan(declared)
    assert titles(plan) == [can("infra1"), told("infra1"), only("infra1")]


def test_the_files_of_a_run_are_all_of_one_authority(
    world: World, declared: EtcdCluster, done: plan_text.Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that has its files already does not end the look at the others."""
    ca = object()
    given: list[tuple[str, object]] = []
    own: list[object] = []

    def own_steps(cluster: EtcdCluster, its: object) -> list[Step]:
        own.append(its)
        return []

    def material(cluster: EtcdCluster, m: EtcdMember, facts: HostFacts, its: object) -> MemberTls:
        given.append((m.name, its))
        leaf = desired.Leaf("new", pair=(b"certificate", b"key"))
        return MemberTls(m.name, b"authority", peer=leaf, server=leaf if m.client_tls else None)

    monkeypatch.setattr(tls, "authority", lambda *_, **__: ca)
    monkeypatch.setattr(tls, "material", material)
    monkeypatch.setattr(tls, "own_steps", own_steps)
    registered(world, declared, "infra2")
    both = replace(
        declared, members=tuple(replace(m, client_tls=m.name == "infra3") for m in declared.members)
    )
    plan = world.plan(both)
    assert {its for _, its in given} == {ca}
    assert own == [ca]
    assert titles(plan)[:2] == [can("infra3"), can("infra1")]
    assert plan.guards == tuple(m.machine for m in both.members)
    # What a member got in this run is not made a second time.
    assert sorted(name for name, _ in given) == ["infra1", "infra2", "infra3"]
    for name in ("infra1", "infra3"):
        (step,) = [s for s in plan.steps if s.title == only(name)]
        assert not any("pki" in c.what for c in step.hosts[0].changes)
    (step,) = [s for s in plan.steps if s.title == only("infra2")]
    assert any("peer.crt" in c.what for c in step.hosts[0].changes)
