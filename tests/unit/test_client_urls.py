"""A change of the members' client URLs: both are served while the workers are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from provision.alluxio.membership import clusters
from provision.alluxio.membership.clusters import Cluster, Clusters
from provision.engine.plan import Gate, Plan, Step
from provision.errors import Problem, Unhealthy, UsageError
from provision.etcd.cluster import gates, hashes
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import layout, listeners
from provision.host.diff import Change
from provision.host.effects import Effect
from provision.host.facts import HostFacts
from provision.inventory.model import EtcdTls
from provision.inventory.resolved import ClientPort, EtcdCluster, EtcdMember
from provision.plans.alluxio import endpoints
from provision.plans.etcd import client_urls, deploy_etcd
from provision.ssh.session import Fleet
from tests.unit import builders, hosts, plan_text
from tests.unit.test_deploy_plan import World

NAMES = ["infra1", "infra2", "infra3"]


def moved(cluster: EtcdCluster, port: int) -> EtcdCluster:
    return replace(cluster, members=tuple(replace(m, client_port=port) for m in cluster.members))


def listening(world: World, name: str, *urls: str) -> HostFacts:
    """The host of ``name`` with another ``listen-client-urls``."""
    facts, path = world.facts[name], layout.config_file(world.cluster)
    lines = [
        f'listen-client-urls: "{",".join(urls)}"' if line.startswith("listen-client") else line
        for line in (facts.text(path) or "").splitlines()
    ]
    return replace(facts, paths={**facts.paths, path: hosts.text("\n".join(lines))})


class TestListeners:
    @pytest.fixture
    def world(self) -> World:
        return World()

    def urls(self, world: World, cluster: EtcdCluster, facts: HostFacts | None) -> list[str]:
        return listeners.urls(cluster, cluster.members[0], facts)

    def test_declared_ones_alone_on_a_new_host(self, world: World) -> None:
        declared = ["http://10.0.0.1:2379", "http://127.0.0.1:2379"]
        assert self.urls(world, world.cluster, None) == declared
        assert self.urls(world, world.cluster, hosts.facts(1)) == declared
        assert self.urls(world, world.cluster, world.facts["infra1"]) == declared

    def test_former_ones_stay_on_another_port(self, world: World) -> None:
        now = moved(world.cluster, 3379)
        facts = world.facts["infra1"]
        assert self.urls(world, now, facts) == [
            *("http://10.0.0.1:3379", "http://127.0.0.1:3379"),
            *("http://10.0.0.1:2379", "http://127.0.0.1:2379"),
        ]
        assert listeners.former_urls(now, now.members[0], facts) == ["http://10.0.0.1:2379"]
        alone = listeners.urls(now, now.members[0], facts, former=False)
        assert alone == ["http://10.0.0.1:3379", "http://127.0.0.1:3379"]

    def test_one_port_serves_both_schemes(self, world: World) -> None:
        tls = EtcdTls(client=True, plain_client_port=2378)
        secure = tuple(replace(m, client_tls=True) for m in world.cluster.members)
        now = replace(world.cluster, tls=tls, members=secure)
        urls = self.urls(world, now, world.facts["infra1"])
        assert urls == [
            *("https://10.0.0.1:2379", "https://127.0.0.1:2379", "http://10.0.0.1:2378"),
            *("http://10.0.0.1:2379", "http://127.0.0.1:2379"),
        ]
        both = listening(world, "infra1", *urls)
        assert self.urls(world, now, both) == urls
        assert listeners.served_elsewhere(now, now.members[0], both) is None
        # And back.
        back = listeners.former_urls(world.cluster, world.cluster.members[0], both)
        assert sorted(back) == ["http://10.0.0.1:2378", "https://10.0.0.1:2379"]

    def test_a_port_on_all_addresses_and_the_same_on_one(self, world: World) -> None:
        wide = listening(world, "infra1", "http://0.0.0.0:2379")
        alone = ["http://10.0.0.1:2379", "http://127.0.0.1:2379"]
        assert self.urls(world, world.cluster, wide) == alone
        named = replace(world.cluster.members[0], address="etcd1.example.com")
        narrow = world.facts["infra1"]
        assert listeners.urls(world.cluster, named, narrow) == ["http://0.0.0.0:2379"]
        # With another scheme, both are on all addresses: one bind would fail otherwise.
        secure = replace(world.cluster.members[0], client_tls=True)
        assert listeners.urls(world.cluster, secure, wide) == [
            "https://0.0.0.0:2379",
            "http://0.0.0.0:2379",
        ]

    def test_one_address_alone_does_not_cover_all_of_them(self, world: World) -> None:
        """Workers use the member's name; plain_client_address is another network."""
        tls = EtcdTls(client=True, plain_client_port=2378, plain_client_address="10.1.0.1")
        named = replace(world.cluster.members[0], address="etcd1.example.com", client_tls=True)
        now = replace(world.cluster, tls=tls, members=(named, *world.cluster.members[1:]))
        wide = listening(world, "infra1", "https://0.0.0.0:2379", "http://0.0.0.0:2378")
        assert listeners.former_urls(now, named, wide) == ["http://0.0.0.0:2378"]
        assert "http://0.0.0.0:2378" in listeners.urls(now, named, wide)

    def test_an_address_that_the_host_no_longer_has_does_not_stay(self, world: World) -> None:
        now = replace(world.cluster.members[0], address="10.0.0.9", client_port=3379)
        facts = replace(world.facts["infra1"], addresses=frozenset({"10.0.0.9"}))
        assert listeners.former_urls(world.cluster, now, facts) == []
        # A member that moves leaves its address, also when the host still has it.
        facts = replace(facts, addresses=frozenset({"10.0.0.9", "10.0.0.1"}))
        assert listeners.former_urls(world.cluster, now, facts) == []

    def test_another_address_for_the_workers_keeps_the_former_one(self, world: World) -> None:
        tls = EtcdTls(client=True, plain_client_port=2378, plain_client_address="10.1.0.2")
        secure = replace(world.cluster.members[0], client_tls=True)
        now = replace(world.cluster, tls=tls)
        facts = listening(
            world,
            "infra1",
            "https://10.0.0.1:2379",
            "https://127.0.0.1:2379",
            "http://10.1.0.1:2378",
        )
        assert listeners.former_urls(now, secure, facts) == []  # the host has lost it
        facts = replace(facts, addresses=frozenset({"10.0.0.1", "10.1.0.1", "10.1.0.2"}))
        assert listeners.former_urls(now, secure, facts) == ["http://10.1.0.1:2378"]

    @pytest.mark.parametrize(
        "text",
        [
            "nonsense",
            "http://10.0.0.1:no",
            "http://10.0.0.1",
            "http://:2379",
            "http://10.0.0.1:99999",
        ],
    )
    def test_urls_that_cannot_be_read_are_none(self, world: World, text: str) -> None:
        now = moved(world.cluster, 3379)
        facts = listening(world, "infra1", text)
        assert listeners.former_urls(now, now.members[0], facts) == []
        assert listeners.served_elsewhere(now, now.members[0], facts) is None

    def test_another_clusters_configuration_and_one_without_data_do_not_count(
        self, world: World
    ) -> None:
        now = moved(world.cluster, 3379)
        other = replace(now, name="another")
        assert listeners.former_urls(other, now.members[0], world.facts["infra1"]) == []
        empty = world.without("infra1", f"{now.members[0].data_dir}/member")
        assert listeners.former_urls(now, now.members[0], empty) == []

    def test_where_it_serves_now(self, world: World) -> None:
        now = moved(world.cluster, 3379)
        facts = world.facts["infra1"]
        assert listeners.served_elsewhere(now, now.members[0], facts) == ClientPort(False, 2379)
        assert listeners.served_elsewhere(world.cluster, world.cluster.members[0], facts) is None


class Others:
    """The other clusters in etcd."""

    def __init__(self) -> None:
        self.live: dict[str, int] = {}
        self.complete = True
        self.error: Unhealthy | None = None

    def look(self, *_: object) -> Clusters:
        if self.error is not None:
            raise self.error
        found = [Cluster("alluxio", 2, 2, clusters.OURS, ())]
        found += [Cluster(name, n, n, "", ()) for name, n in self.live.items()]
        return Clusters(tuple(found), self.complete, 1)


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Others:
    made = Others()
    monkeypatch.setattr(clusters, "look", made.look)
    return made


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[endpoints.Told]:
    """What the plan for the workers is; the last one counts."""
    made = [endpoints.Told([Step("restart worker1")], [], True)]
    monkeypatch.setattr(endpoints, "steps", lambda *_: made[-1])
    return made


@pytest.fixture(autouse=True)
def spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "compare", lambda *_: hashes.Comparison(9, {1: tuple(NAMES)}, 3))
    plan_text.spell(monkeypatch)


@pytest.fixture
def plan(others: Others, told: list[endpoints.Told]) -> Callable[..., Plan]:
    """The plan of deploy-etcd for the client port 3379, on members that listen at 2379."""

    def of(world: World, cluster: EtcdCluster | None = None, **options: Any) -> Plan:
        now = moved(world.cluster, 3379)
        at = tuple(replace(m, serves_at=ClientPort(False, 2379)) for m in now.members)
        cluster = cluster or replace(now, members=at)
        inventory = builders.inventory(builders.alluxio(), etcd=cluster)
        with Fleet(4) as fleet:
            etcd = Etcd(cluster, fleet)
            return deploy_etcd.plan(
                inventory, etcd, world.observed(cluster), write=False, **options
            )

    return of


def titles(plan: Plan) -> list[str]:
    return [s.title for s in plan.steps]


def drops(name: str) -> str:
    return f"{name} no longer listens at http://10.0.0.{name[-1]}:2379"


@pytest.mark.parametrize("leader", NAMES)
def test_both_are_served_until_the_workers_are_told(leader: str, plan: Callable[..., Plan]) -> None:
    world = World()
    world.leader = leader
    made = plan(world)
    order = [*(n for n in NAMES if n != leader), leader]
    assert titles(made) == [
        *(f"change {n}" for n in order),
        "restart worker1",
        *(drops(n) for n in order),
    ]
    first, last = made.steps[0], made.steps[-1]
    (config,) = (c for c in first.hosts[0].changes if c.what.startswith("change "))
    assert ":3379,http://127.0.0.1:3379,http://10.0.0." in config.diff
    assert [c.what.split()[0] for c in last.hosts[0].changes] == ["change", "restart"]
    assert '+listen-client-urls: "http://10.0.0.' in last.hosts[0].changes[0].diff
    assert ":2379" not in last.hosts[0].changes[0].diff.split("+listen")[1]
    assert Effect.CLIENTS in last.effects
    assert Effect.CLIENTS not in first.effects
    # One at a time, each between its gates.
    assert all(s.before is not None and s.after is not None for s in made.steps if s.hosts)
    assert [n.id for n in made.notes] == ["client-url-former"]
    assert made.left == ()


def left(made: Plan) -> str:
    (problem,) = made.left
    assert problem.id == "client-url-former"
    assert not [t for t in titles(made) if "no longer" in t]
    return problem.what


def test_without_the_workers_the_former_url_stays(plan: Callable[..., Plan]) -> None:
    made = plan(World(), workers=False)
    assert titles(made) == ["change infra2", "change infra3", "change infra1"]
    assert "--no-workers" in left(made)
    assert left(made).startswith("listen at former client URLs, too (http://10.0.0.1:2379, ")
    (one,) = (client_urls._stays({"infra1": ["http://a:1"]}, "why", ""),)
    assert one.what == "listens at former client URLs, too (http://a:1): why"


def test_a_worker_that_could_not_be_told_keeps_it(
    plan: Callable[..., Plan], told: list[endpoints.Told]
) -> None:
    note = Problem("worker2", "is away", severity="warning", id="endpoints-stale")
    told.append(endpoints.Told([Step("restart worker1")], [note], False))
    made = plan(World())
    assert titles(made)[-1] == "restart worker1"
    assert note in made.notes
    assert "not every worker" in left(made)


def test_live_workers_of_other_clusters_keep_it(
    plan: Callable[..., Plan], others: Others, told: list[endpoints.Told]
) -> None:
    others.live = {"team": 3, "idle": 0}
    assert "team (3 live)" in left(plan(World()))
    made = plan(World(), lock_out=["team"])
    assert titles(made)[-1] == drops("infra1")
    assert [n.id for n in made.notes] == ["other-clusters-live", "client-url-former"]
    note = Problem("worker2", "is told later", severity="warning", id="endpoints-stale")
    told.append(endpoints.Told([], [note], True))
    made = plan(World(), lock_out=["team"])
    ids = ["endpoints-stale", "other-clusters-live", "client-url-former"]
    assert [n.id for n in made.notes] == ids
    with pytest.raises(UsageError, match="nobody"):
        plan(World(), lock_out=["nobody"])


def test_a_cluster_that_comes_meanwhile_keeps_it(
    plan: Callable[..., Plan], others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    free = Gate("others", lambda: asked.append("health"))
    monkeypatch.setattr(gates, "require_others_healthy", lambda *_: free)
    made = plan(World())
    before = made.steps[-1].before
    assert before is not None
    before.check()
    others.live = {"team": 1}
    with pytest.raises(Unhealthy, match="former client URLs stay") as refused:
        before.check()
    assert "team (1 live)" in refused.value.problems[0].what
    assert asked == ["health"] * 2


def test_what_cannot_be_found_out_keeps_it(plan: Callable[..., Plan], others: Others) -> None:
    others.complete = False
    assert "this cluster only" in left(plan(World()))
    others.error = Unhealthy("no etcd member serves reads", id="quorum-lost")
    assert "no etcd member serves reads" in left(plan(World()))
    remedy = "if no other cluster uses it: --other-clusters-unknown c"
    assert plan(World()).left[0].remedy == remedy


@pytest.mark.usefixtures("unplugged")
def test_the_word_is_for_what_cannot_be_found_out(
    plan: Callable[..., Plan], others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for live workers that etcd names, neither now nor when the URL goes."""
    free = Gate("others", lambda: None)
    monkeypatch.setattr(gates, "require_others_healthy", lambda *_: free)
    others.error = Unhealthy("no etcd member serves reads", id="quorum-lost")
    assert titles(plan(World(), agreed=True))[-1] == drops("infra1")
    others.error, others.complete = None, False
    made = plan(World(), agreed=True)
    ids = ["other-clusters-unknown", "client-url-former"]
    assert [n.id for n in made.notes] == ids
    before = made.steps[-1].before
    assert before is not None
    before.check()
    others.live = {"team": 1}
    with pytest.raises(Unhealthy, match="former client URLs stay"):
        before.check()
    assert "team (1 live)" in left(plan(World(), agreed=True))


def test_a_sick_member_keeps_it(plan: Callable[..., Plan]) -> None:
    world = World()
    world.down.add("infra2")
    assert "infra2 is not healthy" in left(plan(world))


def test_an_alarm_keeps_it(plan: Callable[..., Plan]) -> None:
    world = World()
    world.alarms = ("NOSPACE",)
    assert "NOSPACE" in left(plan(world))


def test_members_come_and_go_afterwards(plan: Callable[..., Plan]) -> None:
    world = World()
    now = moved(world.cluster, 3379)
    at = [replace(m, serves_at=ClientPort(False, 2379)) for m in now.members]
    fourth: EtcdMember = builders.member(4, client_port=3379)
    world.facts["infra4"] = hosts.facts(4)
    world.down.add("infra4")
    made = plan(world, replace(now, members=(*at, fourth)))
    assert titles(made)[:3] == ["change infra2", "change infra3", "change infra1"]
    assert "deploy-first" in [n.id for n in made.notes]


def test_a_killed_run_goes_on_where_it_was(plan: Callable[..., Plan]) -> None:
    world = World()
    now = moved(world.cluster, 3379)
    for m in now.members:
        world.facts[m.name] = listening(world, m.name, *listeners.urls(now, m, world.facts[m.name]))
    world.facts["infra2"] = listening(
        world, "infra2", "http://10.0.0.2:3379", "http://127.0.0.1:3379"
    )
    texts = {m.name: (world.facts[m.name].text(layout.config_file(now)) or "") for m in now.members}
    for m in now.members:  # the rest of the configuration is of the new port, too
        text = texts[m.name].replace(
            f'advertise-client-urls: "http://10.0.0.{m.name[-1]}:2379"',
            f'advertise-client-urls: "{m.client_url}"',
        )
        path = layout.config_file(now)
        facts = world.facts[m.name]
        world.facts[m.name] = replace(facts, paths={**facts.paths, path: hosts.text(text + "\n")})
    world.registered = [
        replace(r, client_urls=(m.client_url,))
        for r, m in zip(world.registered, now.members, strict=True)
    ]
    made = plan(world, now)
    assert titles(made) == ["restart worker1", drops("infra3"), drops("infra1")]


def test_gates_of_the_last_part_ask_at_the_declared_url(
    plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[ClientPort]] = []

    def healthy(etcd: Etcd, *_: object, **__: object) -> Gate:
        asked.append([m.served for m in etcd.cluster.members])
        return Gate("healthy", lambda: None)

    monkeypatch.setattr(gates, "all_healthy", healthy)
    made = plan(World())
    old, new = ClientPort(False, 2379), ClientPort(False, 3379)
    assert len(made.steps) == 7
    assert asked == [[old] * 3] * 3 + [[new] * 3] * 3


@pytest.mark.usefixtures("others", "told")
def test_only_members_with_a_former_url_and_a_change_get_a_step() -> None:
    world = World()
    cluster = moved(world.cluster, 3379)
    inventory = builders.inventory(builders.alluxio(), etcd=cluster)
    urls = {name: (f"http://10.0.0.{name[-1]}:2379",) for name in ("infra1", "infra2")}
    todo = {"infra1": (Change("x", "true"),), "infra2": (), "infra3": (Change("x", "true"),)}
    with Fleet(1) as fleet:
        observed = world.observed(cluster)
        options = client_urls.Options()
        ending = client_urls.end(inventory, Etcd(cluster, fleet), observed, urls, todo, "", options)
    assert [s.title for s in ending.steps if s.hosts] == [drops("infra1")]
