"""What must be true before etcd 3.6 and 3.7, by notes, scripts and answers. No host, no etcd."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import PreflightFailed, Unhealthy
from provision.etcd.api.values import MemberStatus, RegisteredMember
from provision.etcd.cluster import hashes, health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.cluster.todo_keys import Pending
from provision.etcd.member import desired, layout
from provision.etcd.member.membership_diff import ChangeKind, MemberChange, member_list
from provision.host import gather
from provision.host.facts import HostFacts, PathState, UnitState
from provision.host.predict import after
from provision.inventory.etcd_releases import State, require_fit
from provision.inventory.model import EtcdAuth, Secret
from provision.plans.etcd import auth, before_3_6, before_3_7, upgrade_etcd
from provision.plans.etcd.members import member_steps
from provision.plans.etcd.members.member_steps import MemberChanges
from provision.plans.etcd.state.observe import EtcdState, Running
from provision.ssh.session import Fleet
from tests.unit import builders, hosts

CLUSTER = builders.etcd()


def seen(release: str = "3.5.35", learners: dict[str, str] | None = None) -> ClusterHealth:
    """A healthy cluster. ``learners``: by member, the one that it takes for a learner."""

    def one(number: int) -> MemberHealth:
        member = CLUSTER.members[number]
        status = MemberStatus(0xC, number + 1, release, 9, 9, 1, 7, 1, 1, False, ())
        told = tuple(
            RegisteredMember(
                i + 1,
                m.name,
                (m.peer_url,),
                (m.client_url,),
                (learners or {}).get(member.name) == m.name,
            )
            for i, m in enumerate(CLUSTER.members)
        )
        return MemberHealth(member, "direct", status, told)

    return ClusterHealth(CLUSTER, tuple(one(i) for i in range(3)))


def noted(cluster_id: int, member_id: int) -> PathState:
    content = before_3_6.note(CLUSTER, cluster_id, member_id).content
    return PathState("file", "root", "root", 0o644, 0, content)


def test_a_note_counts_for_the_member_whose_ids_it_has() -> None:
    path = before_3_6.path(CLUSTER)
    facts = {
        "infra1": hosts.facts(paths={path: noted(0xC, 1)}),
        "infra2": hosts.facts(paths={path: noted(0xC, 99)}),  # replaced since
        "infra3": hosts.facts(paths={path: noted(0xD, 3)}),  # restored since
    }
    assert before_3_6.restarted(CLUSTER, seen(), facts) == {"infra1"}
    facts["infra1"] = hosts.facts(paths={path: hosts.text("cluster=c member=")})
    assert before_3_6.restarted(CLUSTER, seen(), facts) == set()


def test_ids_in_a_note_are_hexadecimal() -> None:
    seen_with = seen()
    two = seen_with.members[1]
    assert two.status is not None
    status = replace(two.status, cluster_id=0xCAFE, member_id=0xBEE)
    one, _, three = seen_with.members
    there = ClusterHealth(CLUSTER, (one, replace(two, status=status), three))
    path = before_3_6.path(CLUSTER)
    facts = {m.name: hosts.facts(n) for n, m in enumerate(CLUSTER.members, 1)}
    facts["infra2"] = hosts.facts(2, paths={path: noted(0xCAFE, 0xBEE)})
    assert before_3_6.restarted(CLUSTER, there, facts) == {"infra2"}
    facts["infra2"] = hosts.facts(2, paths={path: noted(0xCAFE, 0xBEF)})
    assert before_3_6.restarted(CLUSTER, there, facts) == frozenset()


def test_a_learner_in_any_view_stops_the_upgrade() -> None:
    upgrade_etcd.require_voters(seen("3.6.16"), "3.6.16", "3.5.35")
    wrong = seen("3.6.16", {"infra2": "infra3"})
    with pytest.raises(Unhealthy, match="lists voters as learners") as stopped:
        upgrade_etcd.require_voters(wrong, "3.6.16", "3.5.35")
    (problem,) = stopped.value.problems
    assert (problem.where, problem.id) == ("etcd member infra2", "voter-taken-for-learner")
    assert problem.what == "lists the voter infra3 as a learner"
    assert problem.remedy == "invoke upgrade-etcd 3.5.35, then invoke upgrade-etcd 3.6.16 again"
    with pytest.raises(Unhealthy) as stopped:
        upgrade_etcd.require_voters(wrong, "3.7.3", "3.6.16")
    assert (
        "remove-member infra3, and then invoke add-member infra3"
        in stopped.value.problems[0].remedy
    )


def test_an_alarm_stops_the_upgrade_before_the_next_member(monkeypatch: pytest.MonkeyPatch) -> None:
    well = seen()
    first = well.members[0]
    assert first.status is not None
    full = replace(first, status=replace(first.status, errors=("memberID:1 alarm:NOSPACE ",)))
    now = well
    compared: list[object] = []
    monkeypatch.setattr(health, "observe", lambda *_: now)
    monkeypatch.setattr(hashes, "require_equal", lambda seen, _: compared.append(seen))
    monkeypatch.setattr(upgrade_etcd, "READY_WITHIN", 0.0)
    with Fleet(1) as fleet:
        gate = upgrade_etcd._undisturbed(Etcd(CLUSTER, fleet), CLUSTER.members[1])
        gate.check()
        assert compared == [well]
        now = replace(well, members=(full, *well.members[1:]))
        with pytest.raises(Unhealthy, match="alarm NOSPACE is raised") as stopped:
            gate.check()
    assert stopped.value.id == "upgrade-stopped"


class Put(upgrade_etcd.Steps):
    """What is done on hosts is not looked at here."""

    def _ask_of_v2(self) -> dict[str, str]:
        return {"infra1": "none", "infra2": "v2", "infra3": ""}


def steps(release: str = "3.5.35", **paths: PathState) -> Put:
    where = before_3_6.path(CLUSTER)
    facts = {
        m.machine: hosts.facts(paths={where: paths[m.name]} if m.name in paths else {})
        for m in CLUSTER.members
    }
    observed = EtcdState(None, facts, seen(release))
    with Fleet(1) as fleet:
        return Put(Etcd(CLUSTER, fleet), observed, None, dict(seen(release).releases))


def test_every_member_is_restarted_and_noted_the_leader_last() -> None:
    made = steps()
    made.restart_again(())
    titles = [s.title for s in made.steps]
    assert titles == [
        "infra2: restart etcd 3.5.35 once more, to repair its lists",
        "record that infra2 was restarted once more",
        "infra3: restart etcd 3.5.35 once more, to repair its lists",
        "record that infra3 was restarted once more",
        "infra2 takes the lead from infra1",
        "infra1: restart etcd 3.5.35 once more, to repair its lists",
        "record that infra1 was restarted once more",
    ]
    assert made.steps[0].hosts[0].changes[-1].disrupts
    (note,) = made.steps[1].hosts[0].changes
    assert note.what.endswith("/restarted-before-3.6")
    assert made.steps[0].before is not None
    assert made.steps[0].after is not None


def test_a_release_of_3_5_makes_the_note_void() -> None:
    made = steps(infra1=noted(0xC, 1))
    hop = upgrade_etcd.Release("3.5.35", builders.SOURCE, hosts.TARBALL)
    changes = made._changes(hop, CLUSTER.members[0])
    assert changes[0].script == "rm -f /etc/etcd/restarted-before-3.6"
    assert before_3_6.path(CLUSTER) not in made.facts["infra1"].paths
    assert not any("forget" in c.what for c in made._changes(hop, CLUSTER.members[1]))
    made = steps(infra1=noted(0xC, 1))
    hop = upgrade_etcd.Release("3.6.16", builders.SOURCE, hosts.TARBALL)
    assert not any("forget" in c.what for c in made._changes(hop, CLUSTER.members[0]))


def test_a_snapshot_is_written_by_who_may_have_v2_requests_in_its_log() -> None:
    made = steps("3.6.16")
    assert made.with_v2((3, 6), ["3.7.3"]) == {"infra2", "infra3"}
    assert made.with_v2((3, 5), ["3.6.16", "3.7.3"]) == set()
    running = upgrade_etcd.Release("3.6.16", builders.SOURCE, hosts.TARBALL)
    made._changes(running, CLUSTER.members[1])  # the host as deploy-etcd leaves it
    made.write_snapshots({"infra2", "infra3"})
    assert [s.title for s in made.steps] == [
        "infra2: etcd 3.6.16 writes a snapshot for 3.7 to start from",
        "infra3: etcd 3.6.16 writes a snapshot for 3.7 to start from",
    ]
    (config, restart) = made.steps[0].hosts[0].changes[:2]
    assert "+snapshot-count: 1" in config.diff
    assert restart.disrupts
    # 3.7 takes the setting out again.
    hop = upgrade_etcd.Release("3.7.3", builders.SOURCE, hosts.TARBALL)
    assert any("-snapshot-count: 1" in c.diff for c in made._changes(hop, CLUSTER.members[1]))


def test_a_member_of_3_6_that_was_not_prepared_is_refused() -> None:
    versions = {"infra1": "3.5.35", "infra2": "3.6.16", "infra3": None}
    with pytest.raises(PreflightFailed, match="infra2, infra3 may have") as refused:
        upgrade_etcd._refuse_unprepared(CLUSTER, versions, {"infra1"})
    assert "invoke upgrade-etcd 3.5.35, then" in refused.value.problems[0].remedy
    upgrade_etcd._refuse_unprepared(CLUSTER, versions, {"infra2", "infra3"})


@pytest.mark.parametrize(
    ("said", "id", "words"),
    [
        ("No custom content found in both v2store and WAL records.", None, ""),
        # Of etcdutl up to 3.5.31, which does not read the log.
        ("No custom content found in v2store.", "etcd-v2-data", "it is not known"),
        ("Error: detected custom content in v2store", "etcd-v2-data", "has v2 data"),
        ("", "etcd-v2-data", "it is not known"),
        ("room free=1000 need=2048", "disk-full", "needs 2.1 MB"),
    ],
)
def test_what_etcdutl_says(said: str, id: str | None, words: str) -> None:
    found = before_3_6.verdict(CLUSTER.members[0], said)
    assert (found and found.id) == id
    assert words in (found.what if found else "")


@pytest.mark.process
def test_the_look_for_v2_data_is_a_script_that_leaves_nothing(tmp_path: Path) -> None:
    """On a log that is none, by a stand-in for etcdutl that says what it was given."""
    data, tool = tmp_path / "data", tmp_path / "opt" / "3.5.35" / "etcdutl"
    (data / "member" / "wal").mkdir(parents=True)
    (data / "member" / "snap").mkdir()
    (data / "member" / "wal" / "0.wal").write_text("log")
    (data / "member" / "snap" / "1.snap").write_text("snapshot")
    (data / "member" / "snap" / "db").write_text("the database is not copied")
    tool.parent.mkdir(parents=True)
    tool.write_text('#!/bin/sh\ncd "$4" && find . -type f | sort; stat -c %a .; pwd\n')
    tool.chmod(0o755)
    shim = tmp_path / "bin"
    shim.mkdir()
    (shim / "setpriv").write_text('#!/bin/sh\nshift 5; exec "$@"\n')
    (shim / "setpriv").chmod(0o755)
    cluster = builders.etcd(install_dir=str(tmp_path / "opt"), user=hosts.ME)
    member = replace(cluster.members[0], data_dir=str(data))
    script = before_3_6.script(cluster, member, "3.5.35").replace("tail -n 3", "cat")

    def said() -> str:
        path = {"PATH": f"{shim}:/usr/sbin:/usr/bin:/sbin:/bin"}
        shell = ["sh", "-s"]
        return subprocess.run(
            shell, input=script, capture_output=True, text=True, env=path, check=True
        ).stdout

    *copied, mode, where = said().split()
    assert copied == ["./member/snap/1.snap", "./member/wal/0.wal"]
    assert mode == "700"
    assert not Path(where).exists()
    # A log whose size is not known is not copied: it could fill the disk.
    (shim / "du").write_text("#!/bin/sh\nexit 1\n")
    (shim / "du").chmod(0o755)
    assert said() == "the size of the log is not known\n"


@pytest.mark.process
def test_v2_requests_in_a_log_are_found(tmp_path: Path) -> None:
    wal = tmp_path / "member" / "wal"
    wal.mkdir(parents=True)
    cluster = builders.etcd(user=hosts.ME)
    member = replace(cluster.members[0], data_dir=str(tmp_path))

    def ask() -> str:
        command = before_3_7.v2_requests(cluster, member).replace(
            f"setpriv --reuid {hosts.ME} --regid {hosts.ME} --init-groups ", ""
        )
        return subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, check=False
        ).stdout.strip()

    assert ask() == ""  # no log: nothing is known
    (wal / "0.wal").write_bytes(b"\0\1put /0/members of a user\xff")
    assert ask() == "none"
    (wal / "1.wal").write_bytes(b"\0\x12\x03PUT\x1a\x24/0/members/8e9e05c52164694d/attributes\xff")
    assert ask() == "v2"
    (wal / "1.wal").write_bytes(b"\0\x12\x03PUT\x1a\x0a/0/version\xff")
    assert ask() == "v2"


def running(cluster_health: ClusterHealth) -> Running:
    there = member_list(CLUSTER, cluster_health.registered)
    return Running(there, cluster_health, cluster_health, Pending())


@pytest.mark.parametrize("release", ["3.5.5", "3.4.21"])
def test_no_member_joins_a_release_that_would_give_it_other_data(release: str) -> None:
    login = EtcdAuth(enabled=True, root_password=Secret(env="NOT_THERE"))
    inventory = builders.inventory(etcd=builders.etcd(auth=login))
    health = replace(seen(release), cluster=inventory.etcd)
    observed = EtcdState(None, {}, health, (), running(health))
    moves = [MemberChange(ChangeKind.ADD, builders.member(4))]
    with Fleet(1) as fleet, pytest.raises(PreflightFailed, match="adding infra4 could damage"):
        member_steps.build(Etcd(inventory.etcd, fleet), observed, MemberChanges(moves), None)


def test_authentication_is_not_turned_on_where_it_would_do_harm(tmp_path: Path) -> None:
    secret = EtcdAuth(enabled=True, root_password=Secret(file=tmp_path / "password"))
    inventory = builders.inventory(etcd=builders.etcd(auth=secret))
    found = auth.AuthState(False, {}, {}, running=seen("3.5.5").releases)
    with Fleet(1) as fleet, pytest.raises(PreflightFailed, match="enable-auth could damage data"):
        auth.enable(inventory, Etcd(inventory.etcd, fleet), found)
    require_fit(seen("3.5.4").releases, {State.AUTH}, "enable-auth")


def installed(release: str) -> dict[str, HostFacts]:
    """The members' hosts, each with etcd ``release`` running."""
    at = replace(CLUSTER, version=release)
    found = {}
    for n, m in enumerate(at.members, 1):
        wanted = desired.resources(at, m, hosts.TARBALL, None, None, bootstrapped=True)
        there = after(wanted, hosts.facts(n))
        found[m.name] = replace(
            there, paths={**there.paths, f"{m.data_dir}/member": hosts.text("")}
        )
    return found


def resumed(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, HostFacts], versions: dict[str, str | None]
) -> dict[str, list[str]]:
    """What an upgrade to 3.6.16 and on to 3.7.3 changes on hosts, by the title of the step."""
    observed = EtcdState(None, {m.machine: facts[m.name] for m in CLUSTER.members}, seen())
    monkeypatch.setattr(gather, "require_facts", lambda *_: observed.facts)
    monkeypatch.setattr(before_3_6, "no_v2_data", lambda *_: None)
    hops = [upgrade_etcd.Release(v, builders.SOURCE, hosts.TARBALL) for v in ("3.6.16", "3.7.3")]
    with Fleet(1) as fleet:
        made = Put(Etcd(CLUSTER, fleet), observed, None, versions)
        made.upload(hops)
        for hop in hops:
            made.roll(hop)
    return {s.title: [c.what for h in s.hosts for c in h.changes] for s in made.steps}


def test_a_stopped_member_is_restarted_in_the_second_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs by then: a start would leave it with the release of the first hop."""
    facts = installed("3.5.35")
    stopped = UnitState("loaded", "inactive", "dead", "enabled")
    facts["infra2"] = replace(facts["infra2"], units={layout.UNIT: stopped})
    versions: dict[str, str | None] = {"infra1": "3.5.35", "infra2": None, "infra3": "3.6.16"}
    found = resumed(monkeypatch, facts, versions)
    assert found["infra2: etcd (down) to 3.6.16"][-1] == "start etcd.service"
    for name in ("infra1", "infra2", "infra3"):
        assert found[f"{name}: etcd 3.6.16 to 3.7.3"][-1] == "restart etcd.service"


def test_a_restart_that_a_killed_upgrade_owes_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was killed between the files of a release and the restart that takes them."""
    facts = installed("3.6.16")
    owed = frozenset({layout.UNIT})
    facts["infra2"] = replace(facts["infra2"], pending_restarts=owed)
    versions: dict[str, str | None] = {"infra1": "3.6.16", "infra2": "3.5.35", "infra3": "3.6.16"}
    found = resumed(monkeypatch, facts, versions)
    assert found["infra2: etcd 3.5.35 to 3.6.16"] == ["restart etcd.service"]
    assert found["infra2: etcd 3.6.16 to 3.7.3"][-1] == "restart etcd.service"
