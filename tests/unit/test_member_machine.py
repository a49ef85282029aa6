"""From any state of a cluster: ``deploy-etcd`` keeps a quorum of healthy voters at every step, and
the members end as declared.

The plan is applied to a model: what each action and each change means for etcd's members is here,
in a few lines, and not read from the code that made the plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from provision.engine.plan import Plan, Step
from provision.errors import PreflightFailed, Problem, UsageError
from provision.etcd.api.values import MemberStatus, RegisteredMember
from provision.etcd.cluster import hashes
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.member import membership_diff
from provision.etcd.pki import tls
from provision.host import gather
from provision.inventory.resolved import EtcdCluster, EtcdMember
from provision.plans.etcd import deploy_etcd
from provision.plans.etcd.members import remove_member, replace_member
from provision.plans.etcd.members.member_plan import Options
from provision.plans.etcd.state.observe import EtcdState, Running
from provision.ssh.session import Fleet
from tests.unit import builders, hosts
from tests.unit.hosts import TARBALL
from tests.unit.test_deploy_plan import World

pytestmark = pytest.mark.usefixtures("no_other_clusters")

MOST = 7


@dataclass(frozen=True)
class Drawn:
    """``there`` voters, of which some are ``stopped``; ``learner``: one more was added and not
    promoted. The inventory lacks ``gone``, has ``new`` more, and ``moved`` at another address.
    ``changed``: a setting differs on every member."""

    there: int
    stopped: frozenset[int]
    learner: bool
    gone: frozenset[int]
    new: int
    moved: int | None
    changed: bool


@st.composite
def states(draw: st.DrawFn) -> Drawn:
    there = draw(st.integers(1, MOST))
    any_of = st.frozensets(st.integers(1, there), max_size=there)
    return Drawn(
        there,
        draw(any_of),
        draw(st.booleans()),
        draw(any_of),
        draw(st.integers(0, 2)),
        draw(st.none() | st.integers(1, there)),
        draw(st.booleans()),
    )


class Cluster(World):
    """As :class:`World`, and members that the inventory does not have are looked at, too."""

    def observed(self, cluster: EtcdCluster | None = None) -> EtcdState:
        cluster = cluster or self.cluster
        there = membership_diff.member_list(cluster, self.registered)
        seen = self._health(cluster, cluster.members)
        voters = self._health(replace(cluster, members=there.voters), there.voters)
        running = Running(there, voters, seen, self.pending) if voters.registered else None
        facts = {m.machine: self.facts[m.name] for m in cluster.members}
        return EtcdState(TARBALL, facts, seen, (), running)

    def _health(self, cluster: EtcdCluster, members: tuple[EtcdMember, ...]) -> ClusterHealth:
        ids = {r.name: r.id for r in self.registered}
        urls = {u for r in self.registered for u in r.peer_urls}
        found = []
        for m in members:
            if m.name in self.down or m.peer_url not in urls:
                found.append(MemberHealth(m, error="no answer"))
                continue
            status = MemberStatus(1, ids[m.name], "3.6.16", 1, 1, self.lead, 1, 1, 1, False, ())
            found.append(MemberHealth(m, status=status, registered=tuple(self.registered)))
        return ClusterHealth(cluster, tuple(found))

    @property
    def lead(self) -> int:
        return next(r.id for r in self.registered if r.name not in self.down)


@dataclass
class Model:
    """etcd's members: voters and learners by name, and which of them serve."""

    voters: set[str]
    learners: set[str]
    serving: set[str]
    log: list[str] = field(default_factory=list)

    def require_quorum(self, without: str = "") -> None:
        if without and len(self.voters) < 3:
            return  # one or two cannot do without any
        left = (self.voters & self.serving) - {without}
        assert len(left) > len(self.voters) // 2, (without, self, self.log)

    def apply(self, step: Step) -> None:
        starting = len(step.hosts) > 1 or step.title.startswith("start the members")
        for host in step.hosts:
            for change in host.changes:
                self.log.append(f"{host.name}: {change.what}")
                verb = change.what.split(" ", 1)[0]
                if "etcd.service" not in change.what or verb not in ("start", "restart", "stop"):
                    continue
                if verb != "start" and not starting and host.name in self.voters & self.serving:
                    self.require_quorum(without=host.name)
                if verb != "stop":
                    self.serving.add(host.name)
        for call in step.calls:
            self.log.append(call.what)
            self._call(call.what)
        if self.log:
            self.require_quorum()

    def _call(self, what: str) -> None:
        if found := re.match(r"etcd: add learner (\w+) at", what):
            self.require_quorum()
            self.learners.add(found[1])
        elif found := re.match(r"etcd: promote (\w+)", what):
            assert found[1] in self.learners & self.serving, (what, self)
            self.learners.remove(found[1])
            self.voters.add(found[1])
        elif found := re.match(r"etcd: remove (\w+) \(", what):
            self.require_quorum()
            self.voters.discard(found[1])
            self.learners.discard(found[1])
            self.serving.discard(found[1])
        elif found := re.match(r"etcd: (\w+) moves from", what):
            # It is cut off until it is restarted.
            self.require_quorum(without=found[1])


@pytest.fixture(autouse=True, scope="module")
def same_data() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashes, "compare", lambda *_: hashes.Comparison(9, {1: ("all",)}, 1))
        patch.setattr(hashes, "require_equal", lambda *_: None)
        # Hosts of members that go are away: cleaning them is another matter.
        away = Problem("a host", "is away", id="host-unreachable")
        patch.setattr(gather, "gather_facts", lambda *_: ({}, [away]))
        patch.setattr(tls, "authority", lambda *_, **__: None)
        yield


def _world(drawn: Drawn) -> tuple[Cluster, EtcdCluster, frozenset[str]]:
    """What is there, the declared cluster, and the names that may go."""
    members = [builders.member(n) for n in range(1, drawn.there + 1)]
    world = Cluster(builders.etcd(*members))
    for n in drawn.stopped:
        world.stop(f"infra{n}")
    if drawn.learner:
        extra = builders.member(drawn.there + 1)
        left = RegisteredMember(99, "", (extra.peer_url,), (), True)
        world.registered.append(left)
    declared = []
    for n, m in enumerate(members, 1):
        if n in drawn.gone:
            continue
        declared.append(replace(m, address=f"10.0.9.{n}") if n == drawn.moved else m)
    first = drawn.there + 1
    for n in range(first, first + drawn.new):
        m = builders.member(n)
        world.facts[m.name] = hosts.facts(n)
        world.down.add(m.name)
        declared.append(m)
    if drawn.changed:
        declared = [replace(m, settings={"max-txn-ops": 9}) for m in declared]
    cluster = replace(world.cluster, members=tuple(declared))
    return world, cluster, frozenset(f"infra{n}" for n in drawn.gone) | {"63"}


def _quorum(world: Cluster) -> bool:
    names = {r.name for r in world.registered if r.name}
    return len(names - world.down) > len(names) // 2


@pytest.mark.long
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(states())
def test_every_step_keeps_a_quorum_and_the_end_is_as_declared(drawn: Drawn) -> None:
    world, cluster, going = _world(drawn)
    if not cluster.members or not _quorum(world):
        return
    try:
        plan = _plan(world, cluster, going)
    except PreflightFailed as refused:
        event(f"refused: {refused.id}")
        return
    voters = {r.name for r in world.registered if r.name}
    learner = f"infra{drawn.there + 1}" if drawn.new else "63"
    model = Model(set(voters), {learner} if drawn.learner else set(), voters - world.down)
    for step in plan.steps:
        model.apply(step)
    event("planned" if plan.steps else "nothing to do")
    if any(note.id == "deploy-first" for note in plan.notes):
        return
    assert model.voters == {m.name for m in cluster.members}, model.log
    assert model.learners == set()
    assert model.serving >= model.voters


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(st.integers(1, MOST), st.data(), st.sampled_from(["replace", "remove"]))
def test_a_member_is_replaced_or_removed_with_a_quorum(
    there: int, data: st.DataObject, command: str
) -> None:
    drawn = Drawn(there, frozenset(), False, frozenset(), 0, None, False)
    world, cluster, _ = _world(drawn)
    stopped = data.draw(st.frozensets(st.integers(1, there)))
    for n in stopped:
        world.stop(f"infra{n}")
    name = f"infra{data.draw(st.integers(1, there))}"
    if not _quorum(world):
        return
    inventory = builders.inventory(None, etcd=cluster, alluxio=None)
    make = replace_member.plan if command == "replace" else remove_member.plan
    try:
        with Fleet(4) as fleet:
            handle, shown = Etcd(inventory.etcd, fleet), Options(write=False, workers=False)
            plan = make(inventory, handle, world.observed(), name, shown)
    except (PreflightFailed, UsageError) as refused:
        event(f"refused: {refused.id}")
        return
    voters = {m.name for m in cluster.members}
    model = Model(set(voters), set(), voters - world.down)
    for step in plan.steps:
        model.apply(step)
    event(f"{command}: {len(plan.steps)} steps")
    assert model.voters == (voters if command == "replace" else voters - {name})
    assert command == "remove" or name in model.serving


def _plan(world: Cluster, cluster: EtcdCluster, going: frozenset[str]) -> Plan:
    inventory = builders.inventory(None, etcd=cluster, alluxio=None)
    with Fleet(4) as fleet:
        seen = world.observed(cluster)
        return deploy_etcd.plan(
            inventory, Etcd(inventory.etcd, fleet), seen, write=False, remove=going
        )
