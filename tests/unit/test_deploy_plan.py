"""deploy-etcd: the plan for a cluster in each state that a run can find or leave it in."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NoReturn

import pytest

from provision.engine.plan import Plan
from provision.errors import PreflightFailed, Problem, Unhealthy, UsageError
from provision.etcd.api.values import MemberStatus, RegisteredMember
from provision.etcd.cluster import gates, hashes
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.cluster.todo_keys import Pending
from provision.etcd.member import desired, layout, membership_diff
from provision.etcd.pki import certificates, own_ca, tls
from provision.host.facts import HostFacts, PathState, UnitState
from provision.host.predict import after
from provision.host.resources import DataDisk
from provision.inventory.model import EtcdTls
from provision.inventory.resolved import Established, EtcdCluster, EtcdMember
from provision.plans.etcd import deploy_etcd
from provision.plans.etcd.members import declared_changes
from provision.plans.etcd.state.observe import EtcdState, Running
from provision.ssh.session import Fleet
from tests.unit import builders, hosts
from tests.unit.hosts import TARBALL

DATA = PathState("dir", "etcd", "etcd", 0o700, 4096)


@pytest.fixture(autouse=True)
def by_hash(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[str, ...]]:
    """The voters that serve, by the hash of their data: what a comparison finds."""
    found: dict[int, tuple[str, ...]] = {1: ("infra1", "infra2", "infra3")}
    monkeypatch.setattr(hashes, "compare", lambda *_: hashes.Comparison(9, found, 3))
    return found


class World:
    """Three members, each as its host and etcd have it."""

    def __init__(self, cluster: EtcdCluster | None = None) -> None:
        self.cluster = cluster or builders.etcd()
        self.facts: dict[str, HostFacts] = {}
        self.down: set[str] = set()
        self.leader = self.cluster.members[0].name
        self.established = True
        #: The kinds of alarm that stand, and the size of each database.
        self.alarms: tuple[str, ...] = ()
        self.pending = Pending()
        self.db_size = 1
        self.registered = [
            RegisteredMember(n, m.name, (m.peer_url,), (m.client_url,), False)
            for n, m in enumerate(self.cluster.members, 1)
        ]
        for n, m in enumerate(self.cluster.members, 1):
            installed = after(self.wanted(m), hosts.facts(n))
            self.facts[m.name] = replace(installed, paths=dict(installed.paths) | self.data(m))

    def data(self, m: EtcdMember) -> dict[str, PathState]:
        return {f"{m.data_dir}/member": DATA}

    def wanted(self, m: EtcdMember) -> tuple[Any, ...]:
        return desired.resources(self.cluster, m, TARBALL, None, None, bootstrapped=True)

    def says(self, name: str, state: str) -> HostFacts:
        """The host of ``name``, whose configuration has this ``initial-cluster-state``."""
        path, facts = layout.config_file(self.cluster), self.facts[name]
        text = (facts.text(path) or "").replace('-state: "existing"', f'-state: "{state}"')
        return replace(facts, paths={**facts.paths, path: hosts.text(text)})

    def without(self, name: str, *paths: str) -> HostFacts:
        facts = self.facts[name]
        left = {p: s for p, s in facts.paths.items() if p not in paths}
        return replace(facts, paths=left)

    def clean(self, *names: str) -> None:
        for name in names:
            self.facts[name] = hosts.facts(int(name[-1]))
            self.down.add(name)

    def stop(self, *names: str) -> None:
        for name in names:
            stopped = {layout.UNIT: UnitState("loaded", "failed", "failed", "enabled")}
            self.facts[name] = replace(self.facts[name], units=stopped)
            self.down.add(name)

    def observed(self, cluster: EtcdCluster | None = None) -> EtcdState:
        cluster = cluster or self.cluster
        leader = next(n for n, m in enumerate(self.cluster.members, 1) if m.name == self.leader)
        members = tuple(
            MemberHealth(m, error="no answer")
            if m.name in self.down or not self.established
            else MemberHealth(
                m,
                status=MemberStatus(
                    *(1, n, "3.6.16", self.db_size, 1, leader, 1, 1, 1, False),
                    errors=tuple(f"memberID:1 alarm:{kind}" for kind in self.alarms),
                ),
                registered=tuple(self.registered),
            )
            for n, m in enumerate(cluster.members, 1)
        )
        seen = ClusterHealth(cluster, members)
        running = None
        if seen.registered:
            there = membership_diff.member_list(cluster, seen.registered)
            known = {v.name for v in there.voters}
            voters = ClusterHealth(
                replace(cluster, members=there.voters),
                tuple(m for m in members if m.member.name in known),
            )
            running = Running(there, voters, seen, self.pending)
        by_machine = {m.machine: self.facts[m.name] for m in cluster.members}
        return EtcdState(TARBALL, by_machine, seen, (), running)

    def plan(self, cluster: EtcdCluster | None = None, *remove: str) -> Plan:
        inventory = builders.inventory(None, etcd=cluster or self.cluster, alluxio=None)
        with Fleet(4) as fleet:
            seen = self.observed(cluster)
            return deploy_etcd.plan(
                inventory, Etcd(inventory.etcd, fleet), seen, write=False, remove=remove
            )


def names(plan: Plan) -> list[tuple[str, list[str]]]:
    return [(s.title, [h.name for h in s.hosts]) for s in plan.steps]


def with_settings(cluster: EtcdCluster, **settings: int) -> EtcdCluster:
    dashed = {k.replace("_", "-"): v for k, v in settings.items()}
    return replace(cluster, members=tuple(replace(m, settings=dashed) for m in cluster.members))


ALL = ["infra1", "infra2", "infra3"]


def test_nothing_to_do() -> None:
    assert World().plan().steps == ()


def test_bootstrap_is_one_step_for_all() -> None:
    world = World()
    world.established = False
    world.clean(*ALL)
    plan = world.plan()
    assert names(plan) == [
        ("bootstrap the cluster", ALL),
        ("record that the cluster exists", ALL),
    ]
    step, noting = plan.steps
    (noted,) = noting.hosts[0].changes
    assert noted.non_disruptive
    assert '+initial-cluster-state: "existing"' in noted.diff
    assert noted.diff.count("\n+") == 2  # the head, and the line
    assert step.at_once is None
    assert step.after is not None
    verbs = [c.what.split()[0] for c in step.hosts[0].changes]
    # The unit, which says whose the host is, before anything but its user.
    assert step.hosts[0].changes[1].what == f"write {layout.UNIT_PATH}"
    assert verbs == [
        *("create", "write", "create", "create", "mark", "install", "point", "write"),
        *("enable", "reload", "start"),
    ]


def test_a_member_with_data_of_another_cluster_is_not_started() -> None:
    world = World()
    world.stop("infra3")
    odd = replace(world.cluster, established=Established(1, odd=frozenset({"infra3"}), name="1"))
    with pytest.raises(PreflightFailed, match="not clear") as refused:
        world.plan(odd)
    (problem,) = refused.value.problems
    assert (problem.id, "replace-member infra3 --cluster-id 1" in problem.remedy) == (
        "member-odd",
        True,
    )


def test_a_member_that_has_lost_its_data_is_not_started_with_the_others() -> None:
    world = World()
    world.established = False
    world.stop("infra1", "infra2")
    world.clean("infra3")
    plan = world.plan(replace(world.cluster, established=Established(lost=frozenset({"infra3"}))))
    assert [names for _, names in names(plan)] == [["infra1", "infra2"]]
    assert [n.id for n in plan.notes] == ["member-data-lost"]


@pytest.mark.parametrize("done", [1, 2])
def test_a_bootstrap_that_was_killed_half_way(done: int) -> None:
    """Who was started waits for the others (Type=notify: not active yet)."""
    world = World()
    world.established = False
    world.clean(*ALL[done:])
    for name in ALL[:done]:
        waiting = {layout.UNIT: UnitState("loaded", "activating", "start", "enabled", 5)}
        world.facts[name] = replace(world.says(name, "new"), units=waiting)
    plan = world.plan()
    assert names(plan) == [
        ("start the members that are down", ALL),
        ("record that the cluster exists", ALL),
    ]
    step, _ = plan.steps
    assert [c.what for c in step.hosts[0].changes] == ["start etcd.service"]
    assert len(step.hosts[-1].changes) > 5


def test_a_member_that_the_inventory_does_not_have_is_left_until_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An inventory that lacks a member may be an older checkout."""
    world = World()
    monkeypatch.setattr("provision.etcd.cluster.hashes.require_equal", lambda *_: None)
    seen = world.observed()
    assert seen.running is not None
    two = replace(world.cluster, members=world.cluster.members[:2])
    plan = world.plan(two)
    assert plan.steps == ()
    (left,) = plan.left
    assert (left.id, left.severity, "--remove infra3" in left.remedy) == (
        "member-not-declared",
        "warning",
        True,
    )
    found = declared_changes.declared_moves(two, seen, ["infra3"])
    assert [(m.kind.value, m.member.name) for m in found.moves] == [("remove", "infra3")]
    assert found.left == ()
    by_id = declared_changes.declared_moves(two, seen, ["3"])
    assert by_id.moves == found.moves
    # It was removed by a run that ended part-way: running it again is no error.
    assert declared_changes.declared_moves(world.cluster, seen, ["infra9"]).unknown == ("infra9",)
    with pytest.raises(UsageError, match="the inventory declares it"):
        declared_changes.declared_moves(world.cluster, seen, ["infra3"])


def test_an_undeclared_member_counts_for_the_quorum(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    asked: list[EtcdCluster] = []

    def looked(etcd: Etcd) -> ClusterHealth:
        cluster = etcd.cluster
        asked.append(cluster)
        away = [MemberHealth(m, error="no answer") for m in cluster.members if m.name == "infra3"]
        seen = world.observed(replace(cluster, members=cluster.members[:2]))
        return ClusterHealth(cluster, (*seen.health.members, *away))

    two = with_settings(
        replace(world.cluster, members=world.cluster.members[:2]), quota_backend_bytes=8 << 30
    )
    plan = world.plan(two)
    assert names(plan) == [("change infra2", ["infra2"]), ("change infra1", ["infra1"])]
    monkeypatch.setattr("provision.etcd.cluster.health.observe", looked)
    monkeypatch.setattr(gates, "BACK_WITHIN", 0.0)
    before = plan.steps[0].before
    assert before is not None
    with pytest.raises(Unhealthy, match="infra2 is not changed while infra3 is down"):
        before.check()
    assert [m.name for m in asked[-1].members] == ALL


def test_another_host_under_a_members_name_waits_until_the_former_is_named() -> None:
    world = World()
    first, second, third = world.cluster.members
    elsewhere = replace(third, machine=replace(third.machine, host="10.0.0.9"), address="10.0.0.9")
    moved = replace(world.cluster, members=(first, second, elsewhere))
    world.facts["infra3"] = hosts.facts(9)
    plan = world.plan(moved)
    assert plan.steps == ()
    assert [(p.id, "10.0.0.3" in p.what) for p in plan.left] == [("member-not-declared", True)]


@pytest.mark.parametrize("downgrade", [False, True])
def test_an_older_patch_release_is_no_order(downgrade: bool) -> None:
    world = World()
    older = replace(
        with_settings(world.cluster, max_txn_ops=9), version="3.6.15", downgrade=downgrade
    )
    plan = world.plan(older)
    assert [s.title for s in plan.steps if "change" in s.title] == [
        *("change infra2", "change infra3", "change infra1")
    ]
    done = "".join(c.what + c.diff for s in plan.steps for h in s.hosts for c in h.changes)
    assert ("3.6.15" in done) is downgrade
    assert "max-txn-ops" in done
    left = [(p.id, "etcd 3.6.16, newer than 3.6.15" in p.what) for p in plan.left]
    assert left == ([] if downgrade else [("release-newer", True)] * 3)


def test_a_member_that_is_down_is_not_started_with_an_older_minor_release() -> None:
    world = World()
    world.established = False
    world.stop(*ALL)
    with pytest.raises(PreflightFailed, match="another minor release"):
        world.plan(replace(world.cluster, version="3.5.35"))


def test_two_of_three_down_start_together() -> None:
    world = World()
    world.stop("infra1", "infra3")
    assert names(world.plan()) == [("start the members that are down", ["infra1", "infra3"])]


@pytest.mark.parametrize("leader", ALL)
def test_a_setting_rolls_the_leader_last(leader: str) -> None:
    world = World()
    world.leader = leader
    changed = with_settings(world.cluster, quota_backend_bytes=8 << 30)
    plan = world.plan(changed)
    order = [n for n in ALL if n != leader] + [leader]
    assert names(plan) == [(f"change {n}", [n]) for n in order]
    for step in plan.steps:
        assert step.before is not None
        assert step.after is not None
        assert [c.what.split()[0] for c in step.hosts[0].changes] == ["change", "restart"]
    assert "+quota-backend-bytes: 8589934592" in plan.steps[0].hosts[0].changes[0].diff
    assert plan.machines == tuple(m.machine for m in (changed.member(n) for n in order))


def test_one_members_change_locks_the_others_too() -> None:
    world = World()
    first, *others = world.cluster.members
    changed = replace(world.cluster, members=(replace(first, settings={"max-txn-ops": 9}), *others))
    plan = world.plan(changed)
    assert names(plan) == [("change infra1", ["infra1"])]
    assert set(plan.machines) == {m.machine for m in changed.members}


def test_who_is_down_comes_before_who_works() -> None:
    world = World()
    world.leader = "infra1"
    world.stop("infra3")
    plan = world.plan(with_settings(world.cluster, max_txn_ops=9))
    assert [s.title for s in plan.steps] == [
        *("start the members that are down", "change infra2", "change infra1")
    ]


def test_an_unhealthy_member_that_runs_is_repaired_first() -> None:
    world = World()
    world.down.add("infra3")
    plan = world.plan(with_settings(world.cluster, max_txn_ops=9))
    assert [h for _, h in names(plan)] == [["infra3"], ["infra2"], ["infra1"]]


def test_what_no_service_notices_is_done_everywhere_at_once() -> None:
    world = World()
    changed = replace(world.cluster, version="3.6.17")
    plan = world.plan(changed)
    title, first = names(plan)[0]
    assert (title, first) == ("prepare the hosts without changing a service", ALL)
    assert [c.what.split()[0] for c in plan.steps[0].hosts[0].changes] == ["install", "point"]
    assert [s.title for s in plan.steps[1:]] == [
        f"change {n}" for n in ("infra2", "infra3", "infra1")
    ]


def test_another_minor_release_is_refused() -> None:
    world = World()
    with pytest.raises(PreflightFailed, match="upgrade"):
        world.plan(replace(world.cluster, version="3.7.3"))


def test_all_at_once_says_so() -> None:
    """Active, but silent at the declared port: the only way on, and not done quietly."""
    world = World()
    world.established = False
    members = tuple(replace(m, client_port=12379) for m in world.cluster.members)
    plan = world.plan(replace(world.cluster, members=members))
    assert [s.title for s in plan.steps] == [
        "change the members together: none answers at its declared client URL"
    ]


def test_a_member_that_lost_its_data_is_refused() -> None:
    world = World()
    world.clean("infra2")
    with pytest.raises(PreflightFailed) as caught:
        world.plan()
    text = str([str(p) for p in caught.value.problems])
    assert "infra2" in text
    assert "replace-member" in text


def test_preflight_warnings_are_in_the_plan() -> None:
    world = World()
    seen = replace(
        world.observed(), warnings=(Problem("a", "odd", severity="warning", id="disk-full"),)
    )
    with Fleet(4) as fleet:
        plan = deploy_etcd.plan(
            builders.inventory(None, etcd=world.cluster),
            Etcd(builders.inventory(None, etcd=world.cluster).etcd, fleet),
            seen,
            write=False,
        )
    assert [n.what for n in plan.notes] == ["odd"]
    assert plan.document()["notes"] == [
        {"id": "disk-full", "where": "a", "what": "odd", "remedy": "", "severity": "warning"}
    ]


def test_require_healthy_names_who_is_not() -> None:
    world = World()
    world.stop("infra2")
    with pytest.raises(Unhealthy, match=r"2 of 3 members are healthy \(quorum is 2\)") as caught:
        gates.require_healthy(world.observed().health)
    assert "infra2" in str(caught.value.problems[0])


class TestTls:
    @pytest.fixture
    def cluster(self, tmp_path: Path) -> EtcdCluster:
        members = tuple(builders.member(n, peer_tls=True) for n in (1, 2, 3))
        return builders.etcd(*members, tls=EtcdTls(pki_dir=tmp_path))

    def seen(
        self, cluster: EtcdCluster, pair: certificates.KeyPair, **paths: PathState
    ) -> HostFacts:
        def file(content: bytes, mode: int) -> PathState:
            return PathState("file", "root", "etcd", mode, len(content), content)

        folder = layout.pki_dir(cluster)
        files = {"peer.crt": file(pair.cert_pem, 0o644), "peer.key": file(b"key", 0o640)} | paths
        return hosts.facts(paths={f"{folder}/{name}": state for name, state in files.items()})

    def test_a_good_one_is_kept(self, cluster: EtcdCluster) -> None:
        ca = tls.authority(cluster, {}, write=True)
        assert isinstance(ca, own_ca.CaSet)
        member = cluster.members[0]
        pair = certificates.leaf(ca.signing, member.name, desired.sans(member), days=365)
        assert tls.due(cluster, member, "peer", self.seen(cluster, pair), ca) is None

    def test_one_that_ends_soon_or_has_no_key_is_renewed(self, cluster: EtcdCluster) -> None:
        ca = tls.authority(cluster, {}, write=True)
        assert isinstance(ca, own_ca.CaSet)
        member = cluster.members[0]
        then = datetime.now(timezone.utc) - timedelta(days=360)
        old = certificates.leaf(ca.signing, member.name, desired.sans(member), days=365, now=then)
        assert tls.due(cluster, member, "peer", self.seen(cluster, old), ca)
        other = certificates.leaf(ca.signing, member.name, ("elsewhere",), days=365)
        assert tls.due(cluster, member, "peer", self.seen(cluster, other), ca)
        good = certificates.leaf(ca.signing, member.name, desired.sans(member), days=365)
        empty = {"peer.key": PathState("file", "root", "etcd", 0o640, 0)}
        assert tls.due(cluster, member, "peer", self.seen(cluster, good, **empty), ca) is not None

    def test_all_begin_an_hour_before_the_earliest_of_the_clocks(
        self, cluster: EtcdCluster, tmp_path: Path
    ) -> None:
        """This machine's clock, which dates them, may be ahead of every host's."""
        machines = [m.machine for m in cluster.members]
        offsets = dict(zip(machines, (-86400.0, -90000.0, 60.0), strict=True))
        facts = {m: hosts.facts(clock_offset=offset) for m, offset in offsets.items()}
        cluster = replace(cluster, tls=cluster.tls.model_copy(update={"client": True}))
        now = certificates.now_utc()
        ca = tls.authority(cluster, facts, write=True)
        assert isinstance(ca, own_ca.CaSet)
        leaf = tls.leaf(cluster, cluster.members[2], facts[machines[2]], ca.signing, "")
        assert leaf.pair is not None
        [own] = tls.own_steps(cluster, ca)
        own.calls[0].do()
        home = own_ca.home(tmp_path, cluster.name)
        for pem in (ca.bundle, leaf.pair[0], (home / own_ca.CLIENT).read_bytes()):
            begin = certificates.inspect(pem).not_before
            assert abs(begin - now + timedelta(seconds=90000 + 3600)) < timedelta(seconds=60)

    def test_a_dry_run_makes_no_authority(self, cluster: EtcdCluster, tmp_path: Path) -> None:
        assert tls.authority(cluster, {}, write=False) is not None
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("openssl", ["/usr/bin/openssl\n", ""])
def test_a_patch_release_with_peer_tls_is_uploaded_once(openssl: str, tmp_path: Path) -> None:
    """The second upload would replace the folder that etcd runs from by then."""
    world = World()
    for name in ALL:
        world.facts[name] = replace(world.facts[name], commands={desired.OPENSSL: openssl})
    secure = tuple(replace(m, peer_tls=True) for m in world.cluster.members)
    tls = EtcdTls(pki_dir=tmp_path)
    declared = replace(world.cluster, version="3.6.17", members=secure, tls=tls)
    plan = world.plan(declared)
    for name in ALL:
        by_step = [
            [c.what.partition(" from ")[0] for c in h.changes]
            for s in plan.steps
            for h in s.hosts
            if h.name == name
        ]
        assert by_step == [
            [
                "change /etc/systemd/system/etcd.service",
                "install /opt/etcd/3.6.17",
                "point /opt/etcd/current to 3.6.17",
                "create directory /etc/etcd/pki (root:etcd 0750)",
                "write /etc/etcd/pki/ca.crt",
                by_step[0][5],
                "change /etc/etcd/etcd.conf.yml",
                "reload systemd for etcd.service",
                "restart etcd.service",
            ],
            ["change /etc/etcd/etcd.conf.yml", "restart etcd.service"],
        ]
        assert by_step[0][5].startswith("write /etc/etcd/pki/peer.crt and .key")


SMALL = {"quota_backend_bytes": 16 << 20}


def full(*alarms: str) -> World:
    """A cluster with a small quota, whose databases have reached it."""
    world = World(with_settings(builders.etcd(), **SMALL))
    world.alarms, world.db_size = alarms, 17 << 20
    return world


def test_a_higher_quota_rolls_through_while_nospace_stands_and_is_disarmed_then() -> None:
    world = full("NOSPACE")
    plan = world.plan(with_settings(world.cluster, quota_backend_bytes=64 << 20))
    assert [s.title for s in plan.steps][-4:] == [
        *(f"change {name}" for name in ("infra2", "infra3", "infra1")),
        "disarm the alarm NOSPACE",
    ]
    for step in plan.steps[:-1]:
        assert step.after is None or "while the alarm NOSPACE is raised" in step.after.title
    assert plan.steps[-1].after is not None
    assert "stands" not in plan.steps[-1].after.title


def test_a_run_that_was_killed_before_it_disarmed_does_that_alone() -> None:
    world = full("NOSPACE")
    world.db_size = 1 << 20
    assert [s.title for s in world.plan().steps] == ["disarm the alarm NOSPACE"]


@pytest.mark.parametrize("kind", ["NOSPACE", "CORRUPT"])
def test_another_change_is_refused_while_an_alarm_stands(kind: str) -> None:
    world = full(kind)
    changed = with_settings(world.cluster, **SMALL, max_request_bytes=2 << 20)
    with pytest.raises(PreflightFailed, match=kind) as refused:
        world.plan(changed)
    assert refused.value.problems[0].id == f"alarm-{kind.lower()}"
    # As declared, there is only something to say.
    plan = world.plan()
    assert plan.steps == ()
    assert [n.id for n in plan.notes] == [f"alarm-{kind.lower()}"]


def test_corrupt_is_not_solved_by_a_quota() -> None:
    world = full("CORRUPT", "NOSPACE")
    with pytest.raises(PreflightFailed, match="CORRUPT"):
        world.plan(with_settings(world.cluster, quota_backend_bytes=64 << 20))


def test_a_member_that_is_down_is_started_while_an_alarm_stands() -> None:
    """A majority is needed to tell whose data differ. What else is to do waits."""
    world = full("CORRUPT")
    world.stop("infra2")
    plan = world.plan(with_settings(world.cluster, **SMALL, max_request_bytes=2 << 20))
    assert names(plan) == [("start the members that are down", ["infra2"])]
    assert plan.steps[0].after is not None
    assert "while the alarm CORRUPT is raised" in plan.steps[0].after.title
    (note,) = plan.notes
    assert "infra1, infra3" in note.where


def test_new_members_come_after_the_alarm() -> None:
    world = full("NOSPACE")
    four = builders.etcd(*(builders.member(n) for n in (1, 2, 3, 4)))
    declared = with_settings(four, quota_backend_bytes=64 << 20)
    world.facts["infra4"] = hosts.facts(4)
    world.down.add("infra4")
    plan = world.plan(declared)
    assert plan.steps[-1].title == "disarm the alarm NOSPACE"
    assert not any("infra4" in s.title for s in plan.steps)
    assert [n.where for n in plan.notes if n.id == "deploy-first"] == ["infra4"]


MARKER = "/var/lib/etcd/data-disk"


def test_an_older_deployment_gets_existing_and_the_marker_without_a_restart() -> None:
    world = World()
    for name in ALL:
        world.facts[name] = world.says(name, "new")
        world.facts[name] = world.without(name, MARKER)
        paths = dict(world.facts[name].paths)
        unit = world.facts[name].text(layout.UNIT_PATH) or ""
        old = [line for line in unit.splitlines() if "data-disk" not in line]
        old = [line for line in old if not line.startswith("RequiresMountsFor")]
        paths[layout.UNIT_PATH] = hosts.text("\n".join(old) + "\n")
        world.facts[name] = replace(world.facts[name], paths=paths)
    plan = world.plan()
    quiet, *reloads = plan.steps
    assert quiet.title == "prepare the hosts without changing a service"
    assert [c.what for c in quiet.hosts[0].changes] == [
        f"change {layout.UNIT_PATH}",
        f"mark /var/lib/etcd as the data disk: {MARKER}",
        "change /etc/etcd/etcd.conf.yml",
    ]
    assert [[c.what for c in s.hosts[0].changes] for s in reloads] == [
        ["reload systemd for etcd.service"]
    ] * 3


def test_a_member_that_does_not_serve_keeps_its_line() -> None:
    world = World()
    world.facts["infra1"] = world.says("infra1", "new")
    world.stop("infra1")
    plan = world.plan()
    assert [s.title for s in plan.steps] == [
        "start the members that are down",
        "record that the cluster exists",
    ]
    assert [c.what for c in plan.steps[0].hosts[0].changes] == ["start etcd.service"]


CHECKED = 'feature-gates: "InitialCorruptCheck=true"\n'


def unchecked(world: World, name: str) -> HostFacts:
    """The host of ``name`` with the configuration of a tool that left etcd's check off."""
    path, facts = layout.config_file(world.cluster), world.facts[name]
    text = facts.text(path) or ""
    assert CHECKED in text
    return replace(facts, paths={**facts.paths, path: hosts.text(text.replace(CHECKED, ""))})


def test_etcds_own_check_is_turned_on_without_a_restart() -> None:
    world = World()
    world.facts["infra2"] = unchecked(world, "infra2")
    (step,) = world.plan().steps
    assert step.title == "prepare the hosts without changing a service"
    assert [c.what for c in step.hosts[0].changes] == ["change /etc/etcd/etcd.conf.yml"]


@pytest.mark.parametrize("known", ["nobody serves", "data differ", "compacted", "equal"])
def test_beside_an_odd_member_one_that_is_down_starts_unchecked(
    known: str, by_hash: dict[int, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    world.stop("infra3")
    if known == "nobody serves":
        monkeypatch.setattr(ClusterHealth, "healthy_count", 0)
    elif known == "data differ":
        by_hash |= {1: ("infra1",), 2: ("infra2",)}
    elif known == "compacted":

        def churned(*_: object) -> NoReturn:
            raise Unhealthy("compacted", id="changed-meanwhile")

        monkeypatch.setattr(hashes, "compare", churned)
    plan = world.plan()
    start = next(h for h in plan.steps[0].hosts if h.name == "infra3")
    after = plan.steps[0].after
    assert after is not None
    if known == "equal":
        assert [c.what for c in start.changes] == ["start etcd.service"]
        assert "the same data" not in after.title
        return
    assert [c.what.split()[0] for c in start.changes] == ["change", "start"]
    assert f"-{CHECKED.strip()}" in start.changes[0].diff
    assert after.title.endswith("and all hold the same data")
    assert plan.steps[1].title == "record that the cluster exists"
    last = next(h for h in plan.steps[1].hosts if h.name == "infra3")
    assert f"+{CHECKED.strip()}" in last.changes[0].diff
    assert last.changes[0].non_disruptive


def test_another_setting_beside_the_line_is_a_restart() -> None:
    world = World()
    for name in ALL:
        world.facts[name] = world.says(name, "new")
    plan = world.plan(with_settings(world.cluster, max_txn_ops=9))
    assert [s.title for s in plan.steps] == [f"change {n}" for n in ("infra2", "infra3", "infra1")]
    assert [c.what.split()[0] for c in plan.steps[0].hosts[0].changes] == ["change", "restart"]


@pytest.mark.parametrize("marked", [True, False])
def test_nothing_is_made_on_the_host_of_a_member_without_its_disk(marked: bool) -> None:
    """Not by a run that takes it for a member that is down."""
    world = World()
    world.stop("infra3")
    gone = ["/var/lib/etcd/member"] if marked else ["/var/lib/etcd/member", MARKER]
    facts = world.without("infra3", *gone, "/var/lib/etcd")
    (third,) = [m for m in world.cluster.members if m.name == "infra3"]
    assert desired.is_disk_missing(world.cluster, third, facts) is not marked
    wanted = desired.resources(world.cluster, third, TARBALL, None, facts)
    assert (DataDisk("/var/lib/etcd") in wanted) is marked
    world.facts["infra3"] = facts
    with pytest.raises(PreflightFailed) as refused:
        world.plan()
    (problem,) = refused.value.problems
    assert problem.id == "member-data-lost"
    assert ("is not mounted" in problem.what) is not marked
    assert ("mount its disk" in problem.remedy) is not marked
    assert "replace-member infra3" in problem.remedy


def test_a_member_that_has_come_back_is_not_cleaned() -> None:
    """The note that its host is to be cleaned has outlived it, and the inventory is an old one."""
    world = World()
    world.pending = Pending(clean={"infra3": "10.0.0.3", "gone": "10.0.0.9"})
    running = world.observed().running
    assert running is not None
    assert dict(running.to_clean) == {"gone": "10.0.0.9"}
    world.pending = Pending(clean={"infra3": "10.0.0.3"})
    older = replace(world.cluster, members=world.cluster.members[:2])
    plan = world.plan(older)
    assert plan.steps == ()
    assert [p.id for p in plan.left] == ["member-not-declared"]


def test_a_data_dir_that_was_changed_in_the_inventory_is_no_lost_disk() -> None:
    world = World()
    elsewhere = tuple(replace(m, data_dir="/mnt/etcd") for m in world.cluster.members)
    with pytest.raises(PreflightFailed) as refused:
        world.plan(replace(world.cluster, members=elsewhere))
    assert {p.id for p in refused.value.problems} == {"member-data-lost"}
    for problem in refused.value.problems:
        assert "has the data_dir /var/lib/etcd, and the inventory has /mnt/etcd" in problem.what
        assert "set data_dir back" in problem.remedy
        assert "replace-member" not in problem.remedy
