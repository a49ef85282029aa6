"""deploy-etcd: whom each gate asks, who is told, and what certificates come when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.engine.plan import Plan, Step
from provision.errors import PreflightFailed, Problem
from provision.etcd.cluster import hashes
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.hashes import Comparison
from provision.etcd.cluster.health import ClusterHealth
from provision.etcd.cluster.todo_keys import Pending
from provision.etcd.member import desired, layout
from provision.etcd.member.membership_diff import ChangeKind, MemberChange
from provision.etcd.pki import certificates, external_ca, own_ca, tls
from provision.host.diff import Change
from provision.host.facts import HostFacts, PathState, UnitState
from provision.host.predict import after
from provision.inventory.model import EtcdTls
from provision.inventory.resolved import Established, EtcdCluster, EtcdMember
from provision.plans.alluxio import endpoints
from provision.plans.etcd import deploy_etcd
from provision.ssh.session import Fleet
from tests.authority import Ca
from tests.unit import builders, hosts, plan_text
from tests.unit.test_deploy_plan import CHECKED, SMALL, World, full, unchecked, with_settings
from tests.unit.test_external_ca import Key

THREE = "infra1+infra2+infra3"
NAMES = ("infra1", "infra2", "infra3")
Compared = list[tuple[ClusterHealth, EtcdCluster]]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> plan_text.Done:
    return plan_text.spell(monkeypatch)


@pytest.fixture(autouse=True)
def compared(monkeypatch: pytest.MonkeyPatch) -> Compared:
    said: Compared = []

    def compare(seen: ClusterHealth, etcd: Etcd) -> Comparison:
        said.append((seen, etcd.cluster))
        return Comparison(9, {1: ("all",)}, 3)

    monkeypatch.setattr(hashes, "compare", compare)
    return said


def gates_of(plan: Plan | Iterable[Step]) -> list[str]:
    kept = (" before:", " after:")
    return [
        line for line in plan_text.text(plan) if not line.startswith(" ") or line.startswith(kept)
    ]


def changed(name: str, whom: str = THREE, standing: str = "") -> list[str]:
    return [
        f"change {name}",
        f" before: {whom} without {name}",
        f" after: healthy {whom} through {name}{standing}",
    ]


def of_three(plan: Plan) -> None:
    """What each plan has, whatever its steps."""
    assert (plan.command, plan.cluster) == ("deploy-etcd", "c")
    assert [m.host for m in plan.guards] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_a_change_rolls_between_gates_that_ask_all(done: plan_text.Done) -> None:
    world = World()
    plan = world.plan(with_settings(world.cluster, max_txn_ops=9))
    assert gates_of(plan) == [*changed("infra2"), *changed("infra3"), *changed("infra1")]
    of_three(plan)


def test_a_start_is_awaited_by_all_and_then_the_others_change(done: plan_text.Done) -> None:
    world = World()
    world.stop("infra3")
    plan = world.plan(with_settings(world.cluster, max_txn_ops=9))
    assert gates_of(plan) == [
        "start the members that are down",
        f" after: healthy {THREE}",
        *changed("infra2"),
        *changed("infra1"),
    ]
    of_three(plan)


def test_the_data_are_compared_of_the_members_that_run(
    done: plan_text.Done, compared: Compared
) -> None:
    world = World()
    world.stop("infra3")
    world.plan()
    ((seen, cluster),) = compared
    assert [m.healthy for m in seen.members] == [True, True, False]
    assert cluster == world.cluster


def test_a_start_without_etcds_check_ends_with_a_comparison(
    done: plan_text.Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    world.stop("infra3")
    odd = Comparison(9, {1: ("infra1",), 2: ("infra2",)}, 2)
    monkeypatch.setattr(hashes, "compare", lambda *_: odd)
    assert gates_of(world.plan()) == [
        "start the members that are down",
        f" after: healthy {THREE}, equal {THREE}",
        "record that the cluster exists",
    ]


def test_the_gate_of_a_bootstrap_does_not_wait_for_who_is_not_started(
    done: plan_text.Done,
) -> None:
    world = World()
    world.established = False
    world.stop("infra1", "infra2")
    world.clean("infra3")
    lost = replace(world.cluster, established=Established(lost=frozenset({"infra3"})))
    plan = world.plan(lost)
    assert gates_of(plan)[:2] == [
        "start the members that are down",
        " after: healthy infra1+infra2",
    ]
    (note,) = plan.notes
    assert note.where == "infra3 at 10.0.0.3"
    assert note.what.endswith("; it is not started")
    assert len(note.what) > len("; it is not started")
    assert note.remedy.startswith("once the cluster is up: ")
    assert "replace-member infra3" in note.remedy
    assert (note.severity, note.id) == ("warning", "member-data-lost")


def test_who_was_never_added_waits_until_the_cluster_is_up(done: plan_text.Done) -> None:
    """Its configuration knows of nobody: started like the first members, it would be another
    cluster's."""
    world = World()
    world.established = False
    world.stop(*NAMES)
    four = (*world.cluster.members, builders.member(4))
    world.facts["infra4"] = hosts.facts(4)
    world.down.add("infra4")
    plan = world.plan(replace(world.cluster, members=four))
    assert gates_of(plan) == ["start the members that are down", f" after: healthy {THREE}"]
    assert [h.name for h in plan.steps[0].hosts] == list(NAMES)
    (note,) = plan.notes
    assert note.where == "infra4 at 10.0.0.4"
    assert (note.id, note.severity) == ("deploy-first", "warning")


def test_a_first_member_that_was_not_started_yet_is_no_new_one(done: plan_text.Done) -> None:
    """Each configuration tells of the first members; the last one read tells of itself alone."""
    world = World()
    world.established = False
    world.stop("infra1", "infra2")
    world.clean("infra3")
    path = layout.config_file(world.cluster)
    facts = world.facts["infra2"]
    text = (facts.text(path) or "").replace(",infra3=http://10.0.0.3:2380", "")
    assert text != facts.text(path)
    paths = {**facts.paths, path: hosts.text(text)}
    world.facts["infra2"] = replace(facts, paths=paths)
    plan = world.plan()
    assert [h.name for h in plan.steps[0].hosts] == list(NAMES)
    assert gates_of(plan)[1] == f" after: healthy {THREE}"


def test_while_an_alarm_stands_the_gates_spare_it_and_the_disarm_ends_it(
    done: plan_text.Done,
) -> None:
    world = full("NOSPACE")
    plan = world.plan(with_settings(world.cluster, quota_backend_bytes=64 << 20))
    spared = " while NOSPACE"
    assert gates_of(plan) == [
        *changed("infra2", standing=spared),
        *changed("infra3", standing=spared),
        *changed("infra1", standing=spared),
        "disarm the alarm NOSPACE",
        f" after: healthy {THREE}",
    ]
    assert plan_text.called(plan, done) == [f"disarm NOSPACE of {THREE}"]
    of_three(plan)


def test_a_quota_as_large_as_the_database_solves_nothing(done: plan_text.Done) -> None:
    world = full("NOSPACE")
    same = with_settings(world.cluster, quota_backend_bytes=17 << 20)
    with pytest.raises(PreflightFailed, match="NOSPACE"):
        world.plan(same)
    more = with_settings(world.cluster, quota_backend_bytes=(17 << 20) + 1)
    assert world.plan(more).steps[-1].title == "disarm the alarm NOSPACE"


def test_beside_a_start_the_rest_waits_for_the_alarm(done: plan_text.Done) -> None:
    world = full("CORRUPT")
    world.stop("infra2")
    odd = Problem("a", "odd", severity="warning", id="disk-full")
    newer = replace(
        with_settings(world.cluster, **SMALL, max_request_bytes=2 << 20), version="3.6.15"
    )
    with Fleet(1) as fleet:
        seen = replace(world.observed(newer), warnings=(odd,))
        inventory = builders.inventory(None, etcd=newer)
        plan = deploy_etcd.plan(inventory, Etcd(newer, fleet), seen, write=False)
    assert gates_of(plan) == [
        "start the members that are down",
        f" after: healthy {THREE} while CORRUPT",
    ]
    of_three(plan)
    first, note = plan.notes
    assert first == odd
    assert (note.where, note.severity, note.id) == (
        "infra1, infra3",
        "warning",
        "alarm-corrupt",
    )
    assert note.what == "are not changed while the alarm CORRUPT is raised"
    assert note.remedy
    assert [(p.id, p.severity) for p in plan.left] == [("release-newer", "warning")] * 3
    assert plan.left[0].where == "infra1 at 10.0.0.1"
    assert "deploy-etcd --downgrade" in plan.left[0].remedy


def test_one_and_several_are_said_as_such() -> None:
    left = deploy_etcd._left_until_solved
    assert left({"NOSPACE"}, ["a"]).what == "is not changed while the alarm NOSPACE is raised"
    both = left({"NOSPACE", "CORRUPT"}, ["a"]).what
    assert both == "is not changed while the alarms CORRUPT and NOSPACE are raised"
    one = builders.member(1)
    moves = [MemberChange(ChangeKind.ADD, one)]
    for said in (deploy_etcd._comes_after_the_urls, deploy_etcd._comes_after_the_alarm):
        assert said(moves).what.startswith("is added, moved or removed ")
        assert said([*moves, MemberChange(ChangeKind.ADD, builders.member(2))]).what.startswith(
            "are added, moved or removed "
        )


def test_with_an_alarm_and_nothing_to_change_it_is_said(done: plan_text.Done) -> None:
    (note,) = full("NOSPACE").plan().notes
    assert (note.where, note.id) == ("etcd", "alarm-nospace")
    solved = full("NOSPACE")
    solved.db_size = 1 << 20
    assert solved.plan().notes == ()


def test_what_is_left_to_clean_waits_for_the_alarm(done: plan_text.Done) -> None:
    """Its end is a note in etcd, which takes none."""
    world = full("NOSPACE")
    world.db_size = 1 << 20
    world.pending = Pending(clean={"gone": "10.0.0.9"})
    assert [s.title for s in world.plan().steps] == ["disarm the alarm NOSPACE"]
    unsolved = full("NOSPACE")
    unsolved.pending = Pending(clean={"gone": "10.0.0.9"})
    with pytest.raises(PreflightFailed, match="NOSPACE"):
        unsolved.plan()


def test_what_comes_after_the_alarm_is_said_of_each(done: plan_text.Done) -> None:
    world = full("NOSPACE")
    five = builders.etcd(*(builders.member(n) for n in (1, 2, 3, 4, 5)))
    for n in (4, 5):
        world.facts[f"infra{n}"] = hosts.facts(n)
        world.down.add(f"infra{n}")
    plan = world.plan(with_settings(five, quota_backend_bytes=64 << 20))
    (note,) = [n for n in plan.notes if n.id == "deploy-first"]
    assert (note.where, note.severity) == ("infra4, infra5", "warning")
    assert note.what == "are added, moved or removed once no alarm is raised"
    assert note.remedy == "run invoke deploy-etcd again"
    # The gates ask only those that are there.
    asked = [line for line in gates_of(plan) if line.startswith(" ")]
    assert not any("infra4" in line for line in asked)


def test_a_member_that_a_plan_starts_counts_as_healthy_for_who_joins(
    done: plan_text.Done,
) -> None:
    world = World()
    world.stop("infra2")
    four = (*world.cluster.members, builders.member(4))
    world.facts["infra4"] = hosts.facts(4)
    world.down.add("infra4")
    plan = world.plan(replace(world.cluster, members=four))
    assert [s.title for s in plan.steps] == [
        "start the members that are down",
        "prepare the new members' hosts",
        "add infra4 as a learner",
        "start infra4, and make it a voter when it has caught up",
    ]


def test_members_that_are_left_are_named_when_a_change_is_refused(done: plan_text.Done) -> None:
    """The undeclared one is down, and that is why."""
    world = World()
    three = (*world.cluster.members[:2], builders.member(4))
    world.facts["infra4"] = hosts.facts(4)
    world.down |= {"infra3", "infra4"}
    with pytest.raises(PreflightFailed, match="infra4 cannot be added while infra3") as refused:
        world.plan(replace(world.cluster, members=three))
    assert "member-not-declared" in [p.id for p in refused.value.problems]


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("joins", [True, False])
def test_the_workers_are_told_when_members_change_and_it_is_wanted(
    wanted: bool, joins: bool, done: plan_text.Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, ...]] = []

    def steps(inventory: Any, alluxio: Any, etcd: Etcd, running: EtcdCluster) -> endpoints.Told:
        assert alluxio is inventory.alluxio
        told.append(alluxio.etcd_endpoints)
        return endpoints.Told([Step("tell the workers")], [], complete=True)

    monkeypatch.setattr(endpoints, "steps", steps)
    world = World()
    cluster = world.cluster
    if joins:
        cluster = replace(cluster, members=(*cluster.members, builders.member(4)))
        world.facts["infra4"] = hosts.facts(4)
        world.down.add("infra4")
    inventory = builders.inventory(etcd=cluster)
    without: dict[str, Any] = {} if wanted else {"workers": False}
    with Fleet(1) as fleet:
        plan = deploy_etcd.plan(
            inventory,
            Etcd(cluster, fleet),
            world.observed(cluster),
            write=False,
            **without,
        )
    titles = [s.title for s in plan.steps]
    assert ("tell the workers" in titles) is (wanted and joins)
    assert ("record that the workers need the new endpoints" in titles) is joins
    assert [n.id for n in plan.notes] == (["endpoints-stale"] if joins and not wanted else [])
    if wanted and joins:
        assert told == [tuple(f"http://10.0.0.{n}:2379" for n in (1, 2, 3, 4))]
        assert titles[0] == "record that the workers need the new endpoints"
        assert titles[-2:] == ["tell the workers", "record that every worker knows the endpoints"]


def test_a_name_to_remove_that_nobody_has_is_said(done: plan_text.Done) -> None:
    (note,) = World().plan(None, "infra9").notes
    assert (note.where, note.id) == ("--remove infra9", "name-unknown")


def test_another_minor_release_names_who_runs_it(done: plan_text.Done) -> None:
    world = World()
    with pytest.raises(PreflightFailed) as refused:
        world.plan(replace(world.cluster, version="3.7.3"))
    assert refused.value.id == "etcd-version-differs"
    assert [(p.where.split()[0], p.id) for p in refused.value.problems] == [
        (n, "etcd-version-differs") for n in NAMES
    ]
    assert refused.value.problems[0].what == "runs etcd 3.6.16, the inventory says 3.7.3"
    assert "invoke upgrade-etcd 3.7.3" in refused.value.problems[0].remedy


def test_the_check_of_a_start_is_kept_on_who_runs(done: plan_text.Done) -> None:
    """Only members that are down start unchecked."""
    world = World()
    world.stop("infra3")
    world.facts["infra2"] = unchecked(world, "infra2")
    plan = world.plan()
    quiet = next(s for s in plan.steps if s.title == "prepare the hosts without changing a service")
    assert [h.name for h in quiet.hosts] == ["infra2"]
    assert f"+{CHECKED.strip()}" in quiet.hosts[0].changes[0].diff


# Certificates.


def secured(folder: Path) -> EtcdCluster:
    members = [builders.member(n, peer_tls=True, client_tls=True) for n in (1, 2, 3)]
    return builders.etcd(*members, tls=EtcdTls(pki_dir=folder, client=True))


def test_a_bootstrap_makes_the_authority_and_gives_all_their_certificates(
    done: plan_text.Done, tmp_path: Path
) -> None:
    world = World(secured(tmp_path))
    world.established = False
    world.clean(*NAMES)
    with Fleet(1) as fleet:
        seen = world.observed()
        inventory = builders.inventory(None, etcd=world.cluster)
        plan = deploy_etcd.plan(inventory, Etcd(world.cluster, fleet), seen)
    assert own_ca.ca_exists(tmp_path, "c")  # without a word, the plan is to be applied
    step = plan.steps[0]
    for host in step.hosts:
        said = " ".join(c.what for c in host.changes)
        assert "/etc/etcd/pki/ca.crt" in said
        assert "/etc/etcd/pki/peer.crt and .key" in said
        assert "/etc/etcd/pki/server.crt and .key" in said
    noted = plan.steps[1]
    assert noted.title == "record that the cluster exists"
    for host in noted.hosts:
        assert [c.what for c in host.changes] == ["change /etc/etcd/etcd.conf.yml"]
    # This tool's own certificate, with which the gates ask.
    (own,) = plan.steps[2:]
    assert str(tmp_path) in own.calls[0].what


def test_members_of_a_lost_authority_are_refused_before_another_is_made(
    done: plan_text.Done, tmp_path: Path
) -> None:
    world = installed(secured(tmp_path / "first"), own_ca.ensure_ca(tmp_path / "first", "c"))
    elsewhere = replace(world.cluster, tls=EtcdTls(pki_dir=tmp_path / "second", client=True))
    with pytest.raises(PreflightFailed) as refused:
        with_write(world, elsewhere)
    assert refused.value.id == "ca-unknown"
    assert not (tmp_path / "second").exists()
    own_ca.renew_client(tmp_path / "first", "c", own_ca.load_ca(tmp_path / "first", "c"), 365)
    assert with_write(world, world.cluster).steps == ()


def with_write(world: World, cluster: EtcdCluster) -> Plan:
    with Fleet(1) as fleet:
        seen = world.observed(cluster)
        inventory = builders.inventory(None, etcd=cluster, alluxio=None)
        return deploy_etcd.plan(inventory, Etcd(cluster, fleet), seen, write=True)


def installed(cluster: EtcdCluster, ca: Any) -> World:
    """All members run with certificates of ``ca``."""
    world = World(replace(cluster, members=cluster.members))
    for n, m in enumerate(cluster.members, 1):
        pair = certificates.leaf(ca, m.name, desired.sans(m))
        leaf = desired.Leaf(pair=(pair.cert_pem, pair.key_pem))
        material = desired.MemberTls(m.name, ca.cert_pem, leaf, leaf if m.client_tls else None)
        wanted = desired.resources(cluster, m, hosts.TARBALL, material, None, bootstrapped=True)
        there = after(wanted, hosts.facts(n, commands={desired.OPENSSL: "/usr/bin/openssl"}))
        files = {"peer": pair, "server": pair} if m.client_tls else {"peer": pair}
        paths = dict(there.paths) | world.data(m)
        for kind, made in files.items():
            for end, content, mode in (("crt", made.cert_pem, 0o644), ("key", b"key", 0o640)):
                path = f"{layout.pki_dir(cluster)}/{kind}.{end}"
                paths[path] = PathState("file", "root", "etcd", mode, len(content), content)
        world.facts[m.name] = replace(there, paths=paths)
    return world


def external(folder: Path, *bundle: Ca) -> EtcdCluster:
    path = folder / "bundle.pem"
    path.write_bytes(b"".join(ca.pem for ca in bundle))
    made = EtcdTls(ca="external", ca_bundle=path, pki_dir=folder / "pki")
    members = [builders.member(n, peer_tls=True) for n in (1, 2, 3)]
    return builders.etcd(*members, tls=made)


def signed(folder: Path, old: Ca, new: Ca) -> tuple[World, EtcdCluster]:
    """All run by certificates of ``old``; those of ``new`` were imported and are not installed."""
    both = external(folder, old, new)
    world = World(both)
    imported = external_ca.load(both).folder
    imported.mkdir(parents=True)
    for n, m in enumerate(both.members, 1):
        key = Key(m.address)
        pem = old.sign(key.csr)
        material = desired.MemberTls(m.name, old.pem, desired.Leaf(), None)
        wanted = desired.resources(both, m, hosts.TARBALL, material, None, bootstrapped=True)
        waiting = Key(m.address)
        commands = {
            desired.OPENSSL: "/usr/bin/openssl",
            "peer.key.new": waiting.public.decode(),
        }
        there = after(wanted, hosts.facts(n, commands=commands))
        pki = layout.pki_dir(both)
        files = {
            f"{pki}/peer.crt": PathState("file", "root", "etcd", 0o644, len(pem), pem),
            f"{pki}/peer.key": PathState("file", "root", "etcd", 0o640, 3, b"key"),
        }
        world.facts[m.name] = replace(there, paths=dict(there.paths) | files | world.data(m))
        (imported / f"{m.name}-peer.crt").write_bytes(new.sign(waiting.csr))
    return world, both


def test_certificates_of_a_new_authority_come_when_every_member_trusts_it(
    done: plan_text.Done, tmp_path: Path
) -> None:
    """A certificate that another does not trust yet would cut its member off."""
    world, both = signed(tmp_path, Ca("Old"), Ca("New"))
    plan = world.plan(both)
    order = ("infra2", "infra3", "infra1")

    def given(name: str) -> list[str]:
        return [f"give {name} its new certificates", *changed(name)[1:]]

    assert gates_of(plan) == [
        *(line for n in order for line in changed(n)),
        *(line for n in order for line in given(n)),
    ]
    for step in plan.steps:
        (host,) = step.hosts
        assert (host.name, host.machine) == (
            step.title.split()[1],
            both.member(host.name).machine,
        )
        said = [c.what for c in host.changes]
        if step.title.startswith("change"):
            assert said == ["change /etc/etcd/pki/ca.crt", "restart etcd.service"]
            assert not any(c.ask for c in host.changes)
        else:
            assert all(c.ask for c in host.changes)


def test_no_member_comes_while_an_authority_is_replaced(
    done: plan_text.Done, tmp_path: Path
) -> None:
    world, both = signed(tmp_path, Ca("Old"), Ca("New"))
    world.facts["infra4"] = hosts.facts(4)
    world.down.add("infra4")
    active = {layout.UNIT: UnitState("loaded", "active", "running", "enabled")}
    for name in NAMES:
        world.facts[name] = replace(world.facts[name], units=active)
    four = (*both.members, builders.member(4, peer_tls=True))
    with pytest.raises(PreflightFailed, match="rotate-certs"):
        world.plan(replace(both, members=four))


def test_a_certificate_that_is_still_to_be_signed_is_asked_for_first(
    done: plan_text.Done, tmp_path: Path
) -> None:
    ca = Ca("Root")
    world = World(external(tmp_path, ca))
    world.established = False
    world.clean(*NAMES)
    with pytest.raises(PreflightFailed, match="external CA are missing") as refused:
        world.plan()
    assert len(refused.value.problems) == 3


def test_a_member_without_data_may_have_another_release_installed(done: plan_text.Done) -> None:
    """Only the data of a newer release are not read by an older one."""
    world = World()
    world.clean("infra3")
    unit = hosts.text("ExecStart=/opt/etcd/3.7.3/etcd --config-file /etc/etcd/etcd.conf.yml\n")
    world.facts["infra3"] = hosts.facts(3, paths={layout.UNIT_PATH: unit})
    deploy_etcd._refuse_another_minor(world.cluster, world.observed())
    data = {**world.facts["infra3"].paths, **world.data(world.cluster.members[2])}
    world.facts["infra3"] = replace(world.facts["infra3"], paths=data)
    with pytest.raises(PreflightFailed, match="another minor release"):
        deploy_etcd._refuse_another_minor(world.cluster, world.observed())


def test_all_that_a_start_is_not_for_waits_while_an_alarm_stands() -> None:
    world = World()
    world.pending = Pending(clean={"gone": "10.0.0.9"})
    observed = world.observed()
    four = builders.member(4)
    moves = [MemberChange(ChangeKind.ADD, four)]
    one, two, three = world.cluster.members
    todo = {"infra1": (), "infra2": (Change("a", ""),), "infra3": (Change("b", ""),)}
    found = deploy_etcd._beside_a_start(observed, moves, (one, two, three), (three,), todo)
    assert found == ["infra4", "infra2", "gone"]


def test_every_file_is_of_the_authority_that_the_plan_has_asked_for(
    done: plan_text.Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    world.stop("infra2")
    ca = object()
    given: list[tuple[str, object]] = []

    def material(cluster: EtcdCluster, m: EtcdMember, facts: HostFacts, its: object) -> None:
        given.append((m.name, its))

    monkeypatch.setattr(tls, "authority", lambda *_, **__: ca)
    monkeypatch.setattr(tls, "require_known", lambda *_: None)
    monkeypatch.setattr(tls, "require", lambda *_: [])
    monkeypatch.setattr(tls, "own_steps", lambda *_: [])
    monkeypatch.setattr(tls, "material", material)
    world.plan(with_settings(world.cluster, max_txn_ops=9))
    assert {its for _, its in given} == {ca}
    # Of who is started, what is written after the start, too.
    assert [name for name, _ in given].count("infra2") == 3


def test_new_certificates_are_shown_by_a_quorum_write_through_their_member(
    done: plan_text.Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    external = object.__new__(external_ca.External)
    asked = Change("ask for a certificate", "", ask="true", disrupts=True)
    monkeypatch.setattr(tls, "authority", lambda *_, **__: external)
    monkeypatch.setattr(tls, "require_known", lambda *_: None)
    monkeypatch.setattr(tls, "require", lambda *_: [])
    monkeypatch.setattr(tls, "own_steps", lambda *_: [])
    monkeypatch.setattr(deploy_etcd, "_changes", lambda *_: (asked,))
    assert gates_of(world.plan()) == [
        line
        for name in ("infra2", "infra3", "infra1")
        for line in (
            f"give {name} its new certificates",
            f" before: {THREE} without {name}",
            f" after: healthy {THREE} through {name}",
        )
    ]
