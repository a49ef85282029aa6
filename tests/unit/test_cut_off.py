"""A member that leaves its client URL: workers of other clusters may have no other endpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from provision.alluxio.membership import clusters
from provision.alluxio.membership.clusters import Cluster, Clusters
from provision.engine.guards import Guard, required
from provision.engine.plan import Gate, Plan
from provision.errors import PreflightFailed, Problem, ProvisionError, Unhealthy, UsageError
from provision.etcd.cluster import gates, hashes, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.hashes import Comparison
from provision.etcd.member import membership_diff
from provision.etcd.pki import tls
from provision.host import gather
from provision.host.effects import Effect
from provision.inventory.model import EtcdTls
from provision.inventory.resolved import EtcdCluster
from provision.plans import proofs
from provision.plans.etcd.members import add_member, cut_off, remove_member, replace_member
from provision.plans.etcd.members.member_plan import Options
from provision.plans.proofs import Subject
from provision.ssh.session import Fleet
from tests.unit import builders, hosts, plan_text
from tests.unit.test_member_machine import Cluster as Running

Make = Callable[..., Plan]


class InEtcd:
    """The other clusters in etcd, with their live workers; how often they were looked for."""

    def __init__(self) -> None:
        self.live: dict[str, int] = {}
        self.complete = True
        self.cut = ""
        self.error: ProvisionError | None = None
        self.asked = 0

    def look(self, *_: object) -> Clusters:
        self.asked += 1
        if self.error is not None:
            raise self.error
        found = [Cluster("c", 2, 2, clusters.OURS, ())]
        found += [Cluster(name, n, n, "", ()) for name, n in self.live.items()]
        return Clusters(tuple(found), self.complete, 1, self.cut)


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> InEtcd:
    made = InEtcd()
    monkeypatch.setattr(clusters, "look", made.look)
    return made


@pytest.fixture(autouse=True)
def alike(monkeypatch: pytest.MonkeyPatch) -> None:
    plan_text.spell(monkeypatch)
    monkeypatch.setattr(tls, "authority", lambda *_, **__: None)
    monkeypatch.setattr(hashes, "compare", lambda *_: Comparison(9, {1: ("all",)}, 1))
    monkeypatch.setattr(hashes, "require_equal", lambda *_: None)
    away = Problem("10.0.0.4", "no route", id="host-unreachable")
    monkeypatch.setattr(gather, "gather_facts", lambda *_: ({}, [away]))
    whole = health.ClusterHealth(builders.etcd(), ())
    monkeypatch.setattr(health, "observe", lambda *_: whole)


def four() -> Running:
    return Running(builders.etcd(*(builders.member(n) for n in range(1, 5))))


def of(
    make: Callable[..., Plan],
    there: Running,
    name: str,
    *lock_out: str,
    cluster: EtcdCluster | None = None,
    agreed: bool = False,
) -> tuple[Plan, Etcd]:
    cluster = cluster or there.cluster
    inventory = builders.inventory(None, etcd=cluster, alluxio=None)
    chosen = Options(write=False, workers=False, lock_out=lock_out, agreed=agreed)
    with Fleet(1) as fleet:
        etcd = Etcd(cluster, fleet)
        return make(inventory, etcd, there.observed(cluster), name, chosen), etcd


def undeclared(there: Running) -> EtcdCluster:
    return replace(there.cluster, members=there.cluster.members[:3])


def moved(there: Running) -> EtcdCluster:
    """infra4 at another address, with its data."""
    *rest, last = there.cluster.members
    return replace(there.cluster, members=(*rest, replace(last, address="10.0.9.4")))


def removed(there: Running, *lock_out: str, agreed: bool = False) -> tuple[Plan, Etcd]:
    return of(remove_member.plan, there, "infra4", *lock_out, agreed=agreed)


def deployed(
    there: Running,
    cluster: EtcdCluster,
    *lock_out: str,
    remove: str = "infra4",
    agreed: bool = False,
) -> tuple[Plan, Etcd]:
    from provision.plans.etcd import deploy_etcd

    inventory = builders.inventory(None, etcd=cluster, alluxio=None)
    with Fleet(1) as fleet:
        etcd = Etcd(cluster, fleet)
        seen = there.observed(cluster)
        plan = deploy_etcd.plan(
            inventory,
            etcd,
            seen,
            write=False,
            remove=[remove],
            lock_out=lock_out,
            agreed=agreed,
        )
        return plan, etcd


#: Every way in which a member leaves the client URL at which it answers.
WAYS: dict[str, Callable[..., tuple[Plan, Etcd]]] = {
    "remove-member": removed,
    "deploy-etcd --remove": lambda there, *lock_out, **word: deployed(
        there, undeclared(there), *lock_out, **word
    ),
    "deploy-etcd, another address": lambda there, *lock_out, **word: deployed(
        there, moved(there), *lock_out, **word
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
class TestEveryWay:
    def test_live_workers_of_another_cluster(
        self, way: Callable[..., tuple[Plan, Etcd]], others: InEtcd
    ) -> None:
        others.live = {"team": 3, "idle": 0}
        with pytest.raises(PreflightFailed) as refused:
            way(four())
        (problem,) = refused.value.problems
        assert problem.id == "other-clusters-live"
        assert problem.where == "cluster team"
        known = "they know only http://10.0.0.4:2379"
        assert problem.what == f"has 3 live workers that lose etcd if {known}"
        assert problem.remedy.endswith("then add --lock-out team")
        plan, etcd = way(four(), "team")
        assert [n.id for n in plan.notes if n.where == "cluster team"] == ["other-clusters-live"]
        assert Effect.CLIENTS in plan.effects
        assert Guard.OTHER_CLUSTERS in etcd.learned.passed
        with pytest.raises(UsageError, match="nobody"):
            way(four(), "nobody")

    def test_what_cannot_be_found_out(
        self, way: Callable[..., tuple[Plan, Etcd]], others: InEtcd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        others.complete = False  # the workers' login sees its own keys alone
        with pytest.raises(PreflightFailed) as refused:
            way(four())
        assert refused.value.id == "other-clusters-unknown"
        # Without a quorum, what the members know decides.
        others.error = Unhealthy("no quorum", id="quorum-lost")
        local = clusters.LocalLook({"team": 2}, ("infra1", "infra2", "infra3"), ())
        monkeypatch.setattr(clusters, "look_locally", lambda *_: local)
        with pytest.raises(PreflightFailed) as refused:
            way(four())
        assert "team (2 live workers)" in refused.value.problems[-1].what
        way(four(), "team")

    def test_the_word_is_for_what_cannot_be_found_out(
        self, way: Callable[..., tuple[Plan, Etcd]], others: InEtcd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With more keys than are read, a member could never leave: the operator's word is enough.
        It covers no live workers that etcd itself names."""
        free = Gate("free", lambda: None)
        monkeypatch.setattr(gates, "all_healthy", lambda *_, **__: free)
        monkeypatch.setattr(gates, "require_others_healthy", lambda *_: free)
        others.cut = "below /DHT/: more than 300000 keys"
        with pytest.raises(PreflightFailed) as refused:
            way(four())
        last = refused.value.problems[-1]
        cut = f"not everything was read: {others.cut}"
        assert (refused.value.id, last.what) == ("other-clusters-unknown", cut)
        assert last.remedy.endswith(
            "if no other cluster needs this etcd: --other-clusters-unknown c"
        )
        plan, etcd = way(four(), agreed=True)
        assert [n.what for n in plan.notes if n.id == "other-clusters-unknown"] == [
            f"other clusters are not looked for (--other-clusters-unknown): {cut}"
        ]
        assert Guard.OTHER_CLUSTERS in etcd.learned.passed
        (step,) = [s for s in plan.steps if Effect.CLIENTS in s.effects]
        assert step.before is not None
        step.before.check()
        others.live = {"team": 1}
        with pytest.raises(Unhealthy) as late:
            step.before.check()
        assert late.value.id == "other-clusters-live"
        with pytest.raises(PreflightFailed) as refused:
            way(four(), agreed=True)
        assert refused.value.id == "other-clusters-live"
        way(four(), "team", agreed=True)

    def test_a_plan_that_does_not_ask_is_refused(
        self,
        way: Callable[..., tuple[Plan, Etcd]],
        others: InEtcd,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """However it is made: the guard follows from the effect."""
        monkeypatch.setattr(cut_off, "ask", lambda _i, _e, steps, *_, **__: (steps, ()))
        plan, etcd = way(four())
        assert Guard.OTHER_CLUSTERS in required(plan.command, plan.effects)
        etcd.learned.passed.add(Guard.UNFINISHED)
        checks = {**proofs.CHECKS, Guard.TOOL_VERSION: lambda plan, _: plan}
        monkeypatch.setattr(proofs, "CHECKS", checks)
        with pytest.raises(PreflightFailed) as refused:
            proofs.require(plan, Subject(plan.command, etcd, established=True, leases=False))
        assert refused.value.id == "other-clusters-unknown"
        etcd.learned.passed.add(Guard.OTHER_CLUSTERS)
        proofs.require(plan, Subject(plan.command, etcd, established=True, leases=False))

    def test_a_cluster_that_comes_meanwhile(
        self, way: Callable[..., tuple[Plan, Etcd]], others: InEtcd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Workers of others may start while the plan runs: the member stays."""
        done: list[str] = []
        free = Gate("free", lambda: done.append("healthy"))
        monkeypatch.setattr(gates, "all_healthy", lambda *_, **__: free)
        monkeypatch.setattr(gates, "require_others_healthy", lambda *_: free)
        others.live = {"team": 1}
        plan, _ = way(four(), "team")
        (step,) = [s for s in plan.steps if Effect.CLIENTS in s.effects]
        assert step.before is not None
        assert step.before.title == "free; etcd shows no other cluster that this cuts off"
        asking = step.before
        asking.check()
        others.live = {}  # and one that is gone meanwhile is no mistake
        asking.check()
        others.live = {"team": 1, "late": 2}
        with pytest.raises(Unhealthy) as late:
            asking.check()
        assert late.value.id == "other-clusters-live"
        assert [p.where for p in late.value.problems if p.severity == "error"] == ["cluster late"]
        assert done == ["healthy"] * 3


def test_a_replacement_at_another_address(others: InEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The member has other data, and answers at the URL that ends."""
    odd = Comparison(9, {1: ("infra1", "infra2", "infra3"), 2: ("infra4",)}, 4)
    monkeypatch.setattr(hashes, "compare", lambda *_: odd)
    there = four()

    def way(*lock_out: str, agreed: bool = False) -> Plan:
        new = moved(there)
        return of(replace_member.plan, there, "infra4", *lock_out, cluster=new, agreed=agreed)[0]

    others.live = {"team": 3}
    with pytest.raises(PreflightFailed, match="other clusters use this etcd"):
        way(agreed=True)
    assert Effect.CLIENTS in way("team").effects
    others.live, others.complete = {}, False
    with pytest.raises(PreflightFailed, match="not known"):
        way()
    assert Effect.CLIENTS in way(agreed=True).effects


class TestNobodyIsCutOff:
    """Nobody is asked for, and no consent is needed."""

    def quiet(self, plan: Plan, others: InEtcd) -> None:
        assert plan.steps
        assert Effect.CLIENTS not in plan.effects
        assert others.asked == 0

    def test_by_a_member_that_does_not_answer(self, others: InEtcd) -> None:
        there = four()
        there.down.add("infra4")
        others.live = {"team": 3}
        self.quiet(removed(there)[0], others)

    def test_by_a_replacement_in_the_same_place(
        self, others: InEtcd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The member has other data, and answers; the new one has its client URL."""
        others.live = {"team": 3}
        odd = Comparison(9, {1: ("infra1", "infra2", "infra3"), 2: ("infra4",)}, 4)
        monkeypatch.setattr(hashes, "compare", lambda *_: odd)
        self.quiet(of(replace_member.plan, four(), "infra4")[0], others)

    def test_by_a_new_member(self, others: InEtcd) -> None:
        there = four()
        there.facts["infra5"] = hosts.facts(5)
        there.down.add("infra5")
        more = (*there.cluster.members, builders.member(5))
        plan, _ = of(add_member.plan, there, "infra5", cluster=replace(there.cluster, members=more))
        self.quiet(plan, others)

    def test_by_an_address_that_all_members_have(self, others: InEtcd) -> None:
        """plain_client_address: the workers know that address alone."""
        there = four()
        shared = EtcdTls(
            peer=False, client=True, plain_client_port=2378, plain_client_address="10.9.9.9"
        )
        one = replace(there.cluster, tls=shared)
        voters = there.observed(one).running
        assert voters is not None
        move = _removal(there)
        assert cut_off.urls(one, voters, [move]) == {}
        alone = replace(one, tls=replace_address(shared))
        assert cut_off.urls(alone, voters, [move]) == {"infra4": "http://10.0.0.4:2378"}

    def test_by_urls_with_tls(self, others: InEtcd) -> None:
        """Alluxio has no TLS towards etcd."""
        there = four()
        secure = tuple(replace(m, client_tls=True) for m in there.cluster.members)
        cluster = replace(there.cluster, members=secure, tls=EtcdTls(peer=False, client=True))
        seen = there.observed(cluster).running
        assert seen is not None
        assert cut_off.urls(cluster, seen, [_removal(there)]) == {}


def _removal(there: Running) -> membership_diff.MemberChange:
    last = there.cluster.members[-1]
    return membership_diff.MemberChange(membership_diff.ChangeKind.REMOVE, last, 4)


def replace_address(tls_: EtcdTls) -> EtcdTls:
    return tls_.model_copy(update={"plain_client_address": None})


@pytest.mark.parametrize("state", ["answers", "refuses the login", "no way from here", "dead"])
def test_who_may_be_reached_by_others(state: str) -> None:
    there = four()
    running = there.observed().running
    assert running is not None
    *rest, last = running.health.members
    dead = replace(last, status=None, error="no answer")
    seen = {
        "answers": replace(last, error="no leader"),
        "refuses the login": replace(dead, refused=True),
        "no way from here": replace(dead, no_way=True),
        "dead": dead,
    }[state]
    running = replace(running, health=replace(running.health, members=(*rest, seen)))
    found = cut_off.urls(there.cluster, running, [_removal(there)])
    assert bool(found) is (state != "dead")
