"""The plans of restore-etcd and recover-etcd as values: all stop, then all are made new, then all
start; and how a killed run goes on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from provision.engine.plan import Action, Gate, Plan
from provision.errors import PreflightFailed, Unhealthy, UsageError
from provision.etcd.api.values import Login, MemberStatus, RegisteredMember
from provision.etcd.cluster import gates, hashes, health, last_seen, scratch
from provision.etcd.cluster.groups import Note
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.member import layout, recovery_marker
from provision.etcd.member.backups import STAMP
from provision.etcd.member.recovery_marker import RecoveryMarker
from provision.host import gather
from provision.host.effects import Effect
from provision.host.facts import HostFacts, PathState, UnitState
from provision.host.ownership import KEY
from provision.inventory.model import EtcdAuth
from provision.inventory.resolved import Established, EtcdCluster
from provision.plans.etcd.data import (
    alarms,
    backup_etcd,
    recover_etcd,
    restore_etcd,
    snapshot_proof,
)
from provision.plans.etcd.data.recover_etcd import RecoveryState, Survivor
from provision.plans.etcd.data.restore_etcd import RestoreState
from provision.plans.etcd.data.snapshot_proof import Proof
from provision.ssh.session import Fleet
from tests.unit import builders, hosts, plan_text
from tests.unit.test_undo_restore import head

THREE = "infra1+infra2+infra3"
NAMES = ("infra1", "infra2", "infra3")
SHA = "b" * 64
CLUSTER = builders.etcd()
MARK = RecoveryMarker("restore", "20260102T030405Z", "a" * 64)
RECOVERY = RecoveryMarker("recover", "20260102T030405Z", "a" * 64)
PROOF = Proof("infra1", 7, 3, ("c",), auth=False, accepted=True)
RUNS = UnitState("loaded", "active", "running", "enabled")
DOWN = UnitState("loaded", "inactive", "dead", "disabled")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> plan_text.Done:
    said = plan_text.spell(monkeypatch)
    monkeypatch.setattr(
        alarms,
        "settle",
        lambda etcd: Action(
            "settle", lambda: said.append(f"settle {plan_text.who(etcd.cluster.members)}")
        ),
    )
    return said


def facts(
    name: str,
    *,
    unit: UnitState = RUNS,
    mark: RecoveryMarker | None = None,
    stamp: str = "",
    uploaded: bool = False,
    prepared: str = "",
    command: str = "restored",
) -> HostFacts:
    paths = {
        "/var/lib/etcd": PathState("dir", "etcd", "etcd", 0o700, 0),
        "/var/lib/etcd/member": PathState("dir", "etcd", "etcd", 0o700, 0),
        layout.UNIT_PATH: hosts.text(f"{KEY}={CLUSTER.name}\n"),
        scratch.tool(CLUSTER): hosts.text(""),
    }
    member = CLUSTER.member(name)
    if mark is not None:
        paths[recovery_marker.path(member)] = hosts.text(str(mark))
    if stamp:
        paths[f"/var/lib/etcd/member/{command}-by"] = hosts.text(stamp)
    if uploaded:
        paths[f"/var/lib/etcd/restore-{SHA[:16]}.db"] = replace(hosts.text(""), sha256=SHA)
    disks = {"/var/lib/etcd": hosts.disk("/var/lib/etcd", 10 * hosts.GIB)}
    said = {"prepared": hosts.sent(f"restoring-{prepared} {prepared}") if prepared else ""}
    said["kilobytes"] = "1000\n"
    return hosts.facts(
        int(name[-1]), paths=paths, units={layout.UNIT: unit}, disks=disks, commands=said
    )


class Restore:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "snapshot.db"
        self.file.write_bytes(b"x" * 100)
        self.facts = {name: facts(name) for name in NAMES}

    def observed(self) -> RestoreState:
        seen = {CLUSTER.member(n).machine: f for n, f in self.facts.items()}
        return RestoreState(self.file, SHA, seen, MARK, False, PROOF)

    def plan(self, cluster: EtcdCluster = CLUSTER, **options: bool) -> Plan:
        with Fleet(1) as fleet:
            return restore_etcd.plan(Etcd(cluster, fleet), self.observed(), **options)


@pytest.fixture
def restore(tmp_path: Path) -> Restore:
    return Restore(tmp_path)


def on(plan: Plan) -> list[tuple[str, list[str]]]:
    return [(s.title, [h.name for h in s.hosts]) for s in plan.steps]


SEND, STOP, RESTORE = "upload the snapshot", "stop every member", "restore every member"
PREPARE = "restore into a side folder on every host"
START, ALARMS = "start all members together", "check the alarms"
VERIFIED = f"one cluster again: healthy {THREE} while CORRUPT+NOSPACE"


def test_all_stop_before_any_is_restored_and_all_are_before_any_starts(
    restore: Restore, done: plan_text.Done
) -> None:
    plan = restore.plan()
    assert on(plan) == [
        (SEND, []),
        (PREPARE, [*NAMES]),
        (STOP, [*NAMES]),
        (RESTORE, [*NAMES]),
        (START, [*NAMES]),
        (ALARMS, []),
    ]
    assert Effect.ETCD_BACK in plan.steps[3].effects
    assert all(s.at_once is None for s in plan.steps)
    gated = [(s.title, s.before, s.after.title) for s in plan.steps if s.after is not None]
    assert gated == [(START, None, VERIFIED)]
    assert all(s.before is None for s in plan.steps)
    assert (plan.command, plan.cluster) == ("restore-etcd", "c")
    assert set(plan.guards) == {m.machine for m in CLUSTER.members}
    plan.steps[-1].calls[0].do()
    assert done == [f"settle {THREE}"]
    assert plan.steps[0].calls[0].what == "send snapshot.db (100 B) to infra1, infra2, infra3"


def test_each_starts_a_moment_after_the_one_before(restore: Restore, done: plan_text.Done) -> None:
    """Else each waits for the answer of others that wait for its own."""
    (start,) = [s for s in restore.plan().steps if s.title == START]
    scripts = [change.script for host in start.hosts for change in host.changes]
    waits = [re.findall(r"^sleep (\d+)$", script, re.MULTILINE) for script in scripts]
    assert waits == [[], ["1"], ["2"]]
    assert all(s.index("sleep") < s.index("systemctl start") for s in scripts[1:])


def test_each_is_restored_from_the_same_file_as_itself(
    restore: Restore, done: plan_text.Done
) -> None:
    (prepare,) = [s for s in restore.plan().steps if s.title == PREPARE]
    (swap,) = [s for s in restore.plan().steps if s.title == RESTORE]
    for host in prepare.hosts:
        (change,) = host.changes
        member = CLUSTER.member(host.name)
        assert host.machine == member.machine
        assert not change.disrupts
        (command,) = [line for line in change.script.splitlines() if "snapshot restore" in line]
        for part in (
            f"./restore-{SHA[:16]}.db",
            f"--data-dir ./restoring-{MARK.id}",
            f"--name {host.name} ",
            f"--initial-cluster {CLUSTER.initial_cluster} ",
            f"--initial-advertise-peer-urls {member.peer_url} ",
            f"--initial-cluster-token c-restored-{MARK.id}",
            "--bump-revision 1000000000 --mark-compacted",
        ):
            assert part in command
        # The stamp is the last that is written: without it, the side folder is not complete.
        script = change.script
        assert script.index("snapshot restore") < script.index("restored-from")
        assert script.index("restored-from") < script.index("restored-by")
        assert f"1000000007 {CLUSTER.initial_cluster} -" in script
        assert "mv -T" not in script
        assert "systemctl" not in script
    for host in swap.hosts:
        (change,) = host.changes
        assert change.disrupts
        script = change.script
        assert script.index("is-active") < script.index("restored-by") < script.index("mv -T")
        assert script.index(restore_etcd.OVER) < script.index("member.before-restore-")
        assert f"member.before-restore-{MARK.id}" in script


def test_nothing_is_stopped_before_every_host_has_its_side_folder(
    restore: Restore, done: plan_text.Done
) -> None:
    """Whatever a killed run has left: each step that disrupts comes after the last prepare."""
    for restored in range(4):
        for prepared in range(4):
            for n, name in enumerate(NAMES):
                restore.facts[name] = facts(
                    name,
                    mark=MARK,
                    stamp=MARK.id if n < restored else "",
                    prepared=MARK.id if n < prepared else "",
                )
            titles = [s.title for s in restore.plan().steps]
            waiting = [n for i, n in enumerate(NAMES) if i >= max(restored, prepared)]
            assert (PREPARE in titles) is bool(waiting)
            if waiting:
                assert titles.index(PREPARE) < titles.index(STOP)
                assert dict(on(restore.plan()))[PREPARE] == waiting


@pytest.mark.parametrize(("version", "bump"), [("3.5.35", True), ("3.6.16", False)])
def test_revisions_are_not_moved_on_by_older_releases_or_against_the_wish(
    version: str, bump: bool, restore: Restore, done: plan_text.Done
) -> None:
    cluster = replace(CLUSTER, version=version)
    plan = restore.plan(cluster, bump=bump)
    (step,) = [s for s in plan.steps if s.title == PREPARE]
    assert "--bump-revision" not in step.hosts[0].changes[0].script
    assert any("revisions begin again" in n.what for n in plan.notes)
    assert not any("revisions begin again" in n.what for n in restore.plan().notes)


def test_an_upload_that_is_there_is_not_sent_again(restore: Restore, done: plan_text.Done) -> None:
    restore.facts["infra2"] = facts("infra2", uploaded=True)
    (call,) = restore.plan().steps[0].calls
    assert call.what.endswith("to infra1, infra3")
    for name in NAMES:
        restore.facts[name] = facts(name, uploaded=True)
    assert restore.plan().steps[0].title == PREPARE
    # A side folder of another restore does not count: members of two restores do not fit.
    for name in NAMES:
        restore.facts[name] = facts(name, prepared="20250102T030405Z")
    assert dict(on(restore.plan()))[PREPARE] == [*NAMES]
    assert restore.plan().steps[0].title == SEND


@pytest.mark.parametrize(
    ("unit", "mark", "again"),
    [
        (DOWN, MARK, False),
        (replace(DOWN, active="failed"), MARK, False),
        # Down by itself: without the mark, it may be started again by systemd or an operator.
        (DOWN, None, True),
        (DOWN, replace(MARK, id="20250102T030405Z"), True),
        (replace(DOWN, active="deactivating"), MARK, True),
        # It would come back after a reboot, with the old data.
        (replace(DOWN, file_state="enabled"), MARK, True),
        (RUNS, MARK, True),
    ],
)
def test_who_is_stopped_for_this_restore_stays_so(
    unit: UnitState,
    mark: RecoveryMarker | None,
    again: bool,
    restore: Restore,
    done: plan_text.Done,
) -> None:
    restore.facts["infra2"] = facts("infra2", unit=unit, mark=mark)
    stops = dict(on(restore.plan()))[STOP]
    assert ("infra2" in stops) is again
    assert {"infra1", "infra3"} < {*stops, "infra2"}


def test_a_run_that_was_killed_amid_the_restores_goes_on(
    restore: Restore, done: plan_text.Done
) -> None:
    """Who is restored is not restored again, but stops, too, and starts with the others."""
    restore.facts["infra1"] = facts("infra1", unit=RUNS, mark=MARK, stamp=MARK.id)
    restore.facts["infra2"] = facts("infra2", unit=DOWN, mark=MARK, stamp=f"{MARK.id}\n")
    restore.facts["infra3"] = facts("infra3", unit=DOWN, mark=MARK, prepared=MARK.id)
    assert on(restore.plan()) == [
        (STOP, ["infra1"]),
        (RESTORE, ["infra3"]),
        (START, [*NAMES]),
        (ALARMS, []),
    ]


def test_a_stamp_of_another_restore_is_none(restore: Restore, done: plan_text.Done) -> None:
    for name in NAMES:
        restore.facts[name] = facts(name, mark=MARK, stamp="20250102T030405Z")
    assert dict(on(restore.plan()))[RESTORE] == [*NAMES]


@pytest.mark.parametrize("unit", [DOWN, replace(RUNS, file_state="disabled")])
def test_after_the_last_restore_only_who_does_not_run_starts(
    unit: UnitState, restore: Restore, done: plan_text.Done
) -> None:
    for name in NAMES:
        restore.facts[name] = facts(name, mark=MARK, stamp=MARK.id)
    restore.facts["infra3"] = facts("infra3", unit=unit, mark=MARK, stamp=MARK.id)
    plan = restore.plan()
    assert on(plan) == [(START, ["infra3"]), (ALARMS, [])]
    assert plan.steps[0].after is not None


def test_when_all_run_they_are_verified(restore: Restore, done: plan_text.Done) -> None:
    for name in NAMES:
        restore.facts[name] = facts(name, mark=MARK, stamp=MARK.id)
    plan = restore.plan()
    assert on(plan) == [("verify the restored cluster", []), (ALARMS, [])]
    assert plan.steps[0].after is not None
    assert plan.steps[0].after.title == VERIFIED


def test_marks_go_when_the_cluster_is_verified(restore: Restore, done: plan_text.Done) -> None:
    with Fleet(1) as fleet:
        plan = restore_etcd.finish(Etcd(CLUSTER, fleet), restore.observed())
    (step,) = plan.steps
    assert (step.title, [h.name for h in step.hosts]) == ("finish", [*NAMES])
    assert step.before is not None
    assert step.before.title == VERIFIED
    assert step.after is None
    for host in step.hosts:
        script = host.changes[0].script
        assert f"restore-{SHA[:16]}.db" in script
        assert layout.last_seen(CLUSTER) in script
        assert recovery_marker.path(CLUSTER.member(host.name)) in script


def test_members_of_two_clusters_are_not_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def healthy(etcd: Etcd, *, standing: Collection[str]) -> Gate:
        return Gate("healthy", lambda: asked.append(sorted(standing)))

    def seen(*ids: int | None) -> ClusterHealth:
        members = [
            MemberHealth(
                m, status=None if i is None else MemberStatus(i, 1, "", 1, 1, 1, 1, 1, 1, False, ())
            )
            for i, m in zip(ids, CLUSTER.members, strict=True)
        ]
        return ClusterHealth(CLUSTER, tuple(members))

    now = seen(7, 7, 7)
    monkeypatch.setattr(gates, "all_healthy", healthy)
    monkeypatch.setattr(health, "observe", lambda _: now)
    with Fleet(1) as fleet:
        gate = restore_etcd.verified(Etcd(CLUSTER, fleet))
        gate.check()
        assert asked == [["CORRUPT", "NOSPACE"]]
        now = seen(7, 8, 7)
        with pytest.raises(Unhealthy, match="do not form one cluster") as refused:
            gate.check()
        assert refused.value.id == "etcd-clusters-differ"
        now = seen(7, None, 7)
        gate.check()


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, restore: Restore) -> Callable[..., RestoreState]:
    """``look(cluster)``: what restore-etcd observes. No member answers."""
    monkeypatch.setattr(backup_etcd, "check", lambda _: SHA)
    monkeypatch.setattr(snapshot_proof, "prove", lambda *_: PROOF)
    monkeypatch.setattr(health, "observe", lambda etcd: ClusterHealth(etcd.cluster, ()))

    def looked(cluster: EtcdCluster = CLUSTER, **options: Any) -> RestoreState:
        by_machine = {CLUSTER.member(n).machine: f for n, f in restore.facts.items()}
        monkeypatch.setattr(gather, "require_facts", lambda *_: by_machine)
        with Fleet(1) as fleet:
            return restore_etcd.observe(Etcd(cluster, fleet), restore.file, **options)

    return looked


def test_a_restore_goes_on_with_the_same_file_cluster_and_revisions(
    look: Callable[..., RestoreState], restore: Restore
) -> None:
    first = look()
    assert not first.continues
    assert (first.mark.command, first.sha256, first.file) == ("restore", SHA, restore.file)
    restore.facts["infra2"] = facts("infra2", mark=first.mark)
    again = look()
    assert (again.continues, again.mark) == (True, first.mark)
    # Members of another cluster, or of other revisions, would not fit together.
    assert not look(bump=False).continues
    assert not look(replace(CLUSTER, token="d")).continues
    assert not look(replace(CLUSTER, version="3.5.35")).continues
    restore.facts["infra2"] = facts("infra2", mark=replace(first.mark, command="recover"))
    assert not look().continues


def test_a_host_that_cannot_be_restored_is_refused(
    look: Callable[..., RestoreState], restore: Restore
) -> None:
    good = restore.facts["infra2"]
    full = {"/var/lib/etcd": hosts.disk("/var/lib/etcd", 140 << 20)}
    foreign = {**good.paths, layout.UNIT_PATH: hosts.text(f"{KEY}=other\n")}
    bare = {p: s for p, s in good.paths.items() if p != scratch.tool(CLUSTER)}
    for bad, id in (
        (replace(good, disks=full), "disk-full"),
        (replace(good, disks={}), "disk-unmeasured"),
        (replace(good, paths=foreign), "deploy-first"),
        (replace(good, paths=bare), "deploy-first"),
        (replace(good, paths={}), "deploy-first"),
    ):
        restore.facts["infra2"] = bad
        with pytest.raises(PreflightFailed, match="preflight failed") as refused:
            look()
        assert [(p.where.split()[0], p.id) for p in refused.value.problems] == [("infra2", id)]
    enough = {"/var/lib/etcd": hosts.disk("/var/lib/etcd", (140 << 20) + 200)}
    restore.facts["infra2"] = replace(good, disks=enough)
    look()


def test_a_host_that_has_the_data_already_needs_no_room(
    look: Callable[..., RestoreState], restore: Restore
) -> None:
    first = replace(MARK, key=restore_etcd._key(CLUSTER, SHA, True))
    full = {"/var/lib/etcd": hosts.disk("/var/lib/etcd", 1 << 20)}
    prepared = facts("infra2", mark=first, prepared=first.id)
    for done in (prepared, facts("infra2", mark=first, stamp=first.id)):
        for disks in (full, {}):
            restore.facts["infra2"] = replace(done, disks=disks)
            assert look().continues
    restore.facts["infra2"] = replace(facts("infra2", mark=first), disks=full)
    with pytest.raises(PreflightFailed, match="preflight failed"):
        look()


def test_the_proof_tries_the_workers_login(
    look: Callable[..., RestoreState], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def prove(_: object, __: object, ___: object, workers: object) -> Proof:
        tried.append(workers)
        return PROOF

    monkeypatch.setattr(snapshot_proof, "prove", prove)
    login = Login("alluxio", "w")
    look(workers=login)
    look()
    assert tried == [login, None]


def test_the_upload_is_work_on_hosts_and_changes_no_etcd(restore: Restore) -> None:
    [send] = restore.plan().steps[0].calls
    assert send.what.startswith("send snapshot.db")
    assert send.effects == (Effect.HOST,)


@pytest.mark.parametrize(("there", "said"), [(["a", "b"], "a, b"), ([], "none")])
def test_a_name_that_no_member_has(there: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=rf"no member that the inventory lacks \(there: {said}\)"):
        restore_etcd._require_all(there, ["c"], continues=False)


def test_a_file_that_is_not_proven_stops_nothing(
    look: Callable[..., RestoreState], restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Proof:
        raise PreflightFailed("cannot be restored", id="snapshot-invalid")

    monkeypatch.setattr(snapshot_proof, "prove", refuse)
    with pytest.raises(PreflightFailed, match="cannot be restored"):
        look()
    first = replace(MARK, key=restore_etcd._key(CLUSTER, SHA, True))
    for name in NAMES[:2]:
        restore.facts[name] = facts(name, mark=first, stamp=first.id)
    with pytest.raises(PreflightFailed, match="cannot be restored"):
        look()  # infra3 still needs it
    restore.facts["infra3"] = facts("infra3", mark=first, stamp=first.id)
    assert look().proof is None


@pytest.mark.parametrize("known", ["members", "note", "configuration"])
def test_members_that_the_inventory_lacks_are_named(
    known: str,
    look: Callable[..., RestoreState],
    restore: Restore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 1 of 3 in the inventory, the other two would go on as the old cluster."""
    one = replace(CLUSTER, members=CLUSTER.members[2:])
    paths = {**restore.facts["infra3"].paths}
    if known == "members":
        registered = tuple(
            RegisteredMember(n, m.name, (m.peer_url,), (), False)
            for n, m in enumerate(CLUSTER.members)
        )
        seen = ClusterHealth(one, (MemberHealth(one.members[0], registered=registered),))
        monkeypatch.setattr(health, "observe", lambda _: seen)
    elif known == "note":
        note = Note(1, 1, 1, 1, "20260102T030405Z", frozenset(NAMES))
        paths[layout.last_seen(CLUSTER)] = hosts.text(last_seen.text(note))
    config = f'initial-cluster: "{CLUSTER.initial_cluster if known == "configuration" else ""}"\n'
    paths[layout.config_file(CLUSTER)] = hosts.text(config)
    restore.facts["infra3"] = replace(restore.facts["infra3"], paths=paths)
    for given in ((), ("infra1",)):
        with pytest.raises(PreflightFailed, match="does not have every member") as refused:
            look(one, without=given)
        assert refused.value.id == "member-not-declared"
        assert "--without infra1,infra2" in refused.value.problems[0].remedy
    observed = look(one, without=("infra2", "infra1"))
    assert observed.without == ("infra1", "infra2")
    with pytest.raises(UsageError, match="infra9 is no member that the inventory lacks"):
        look(one, without=("infra1", "infra2", "infra9"))
    with Fleet(1) as fleet:
        plan = restore_etcd.plan(Etcd(one, fleet), observed)
    assert [n.where for n in plan.notes if "is left out" in n.what] == ["infra1", "infra2"]
    (step,) = [s for s in plan.steps if s.title == PREPARE]
    assert "infra1,infra2" in step.hosts[0].changes[0].script


ELSEWHERE = "http://10.9.9.9:2380"


@pytest.mark.parametrize("ours", ["an answer", "its data", ""])
def test_another_member_of_a_declared_name_is_left_out(
    ours: str,
    look: Callable[..., RestoreState],
    restore: Restore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """infra2 is a member at another address than the inventory's. It is the same member only if
    its id is on the declared host."""
    registered = tuple(
        RegisteredMember(n, m.name, (ELSEWHERE if m.name == "infra2" else m.peer_url,), (), False)
        for n, m in enumerate(CLUSTER.members, 1)
    )
    status = MemberStatus(1, 2, "3.6.16", 1, 1, 1, 1, 1, 1, False, ())
    second = MemberHealth(CLUSTER.members[1], status=status if ours == "an answer" else None)
    first = MemberHealth(CLUSTER.members[0], registered=registered)
    monkeypatch.setattr(health, "observe", lambda _: ClusterHealth(CLUSTER, (first, second)))
    if ours == "its data":
        seen = restore.facts["infra2"]
        restore.facts["infra2"] = replace(seen, commands={**seen.commands, "ids": head(2)})
    if ours:
        assert look().without == ()
        return
    with pytest.raises(PreflightFailed, match="does not have every member") as refused:
        look()
    assert [p.where for p in refused.value.problems] == [ELSEWHERE]
    assert f"--without {ELSEWHERE}" in refused.value.problems[0].remedy
    assert look(without=(ELSEWHERE,)).without == (ELSEWHERE,)


@pytest.mark.parametrize("data", [True, False])
@pytest.mark.parametrize("noted", [True, False])
def test_with_etcd_down_the_configurations_know_the_addresses(
    data: bool, noted: bool, look: Callable[..., RestoreState], restore: Restore
) -> None:
    moved = CLUSTER.initial_cluster.replace(CLUSTER.members[1].peer_url, ELSEWHERE)
    paths = {**restore.facts["infra1"].paths}
    paths[layout.config_file(CLUSTER)] = hosts.text(f'initial-cluster: "{moved}"\n')
    if noted:
        note = Note(1, 1, 1, 1, "20260102T030405Z", frozenset(NAMES))
        paths[layout.last_seen(CLUSTER)] = hosts.text(last_seen.text(note))
    restore.facts["infra1"] = replace(restore.facts["infra1"], paths=paths)
    if not data:  # of the host that the inventory calls infra2
        there = {**restore.facts["infra2"].paths}
        del there["/var/lib/etcd/member"]
        restore.facts["infra2"] = replace(restore.facts["infra2"], paths=there)
        with pytest.raises(PreflightFailed) as refused:
            look()
        assert [p.where for p in refused.value.problems] == [ELSEWHERE]
    else:
        assert look().without == ()


def test_with_all_members_nobody_is_left_out(look: Callable[..., RestoreState]) -> None:
    assert look().without == ()
    with pytest.raises(UsageError, match="infra1 is no member that the inventory lacks"):
        look(without=("infra1",))


@pytest.mark.parametrize(
    ("found", "other", "others", "outcome"),
    [
        (("c",), (), (), []),
        (("c", "d"), (), (), []),
        (("d",), ("d",), (), []),
        (("d", "e"), ("e",), (), []),
        (("d",), (), (), PreflightFailed),
        # Another cluster that shares this etcd is still not this one.
        (("d",), (), ("d",), PreflightFailed),
        (("c",), ("d",), (), UsageError),
        ((), ("d",), (), UsageError),
        ((), (), (), ["snapshot-other-cluster"]),
    ],
)
def test_whose_snapshot_it_is(
    found: tuple[str, ...],
    other: tuple[str, ...],
    others: tuple[str, ...],
    outcome: list[str] | type[Exception],
) -> None:
    inventory = replace(builders.inventory(builders.alluxio()), other_clusters=others)
    proof = replace(PROOF, clusters=found)
    if isinstance(outcome, list):
        notes = snapshot_proof.require_ours(inventory, proof, other)
        assert [n.id for n in notes] == outcome
        assert all(n.severity == "warning" for n in notes)
        return
    with pytest.raises(outcome) as refused:
        snapshot_proof.require_ours(inventory, proof, other)
    if outcome is PreflightFailed:
        (problem,) = refused.value.problems  # type: ignore[attr-defined]
        assert "--other-cluster d" in problem.remedy


def test_authentication_of_the_snapshot_is_part_of_the_plan() -> None:
    for declared, on, accepted, expected in (
        (None, True, False, False),
        (True, True, True, False),
        (True, True, False, True),
        (True, False, True, True),
        (False, True, True, True),
        (False, False, True, False),
    ):
        auth = EtcdAuth.model_construct(enabled=declared, root_password=object())
        etcd = replace(CLUSTER, auth=auth)
        inventory = builders.inventory(builders.alluxio(), etcd=etcd)
        proof = replace(PROOF, auth=on, accepted=accepted)
        assert snapshot_proof.may_differ(inventory, proof) is expected
        # After a killed run the snapshot is not looked into again: etcd itself is asked.
        assert snapshot_proof.may_differ(inventory, None) is (declared is not None)


# recover-etcd


def recovery(
    *survivors: str,
    units: dict[str, UnitState] | None = None,
    marked: Collection[str] = (),
    forced: bool = False,
    joined: Collection[str] = (),
) -> RecoveryState:
    chosen = CLUSTER.members[0]
    seen = {}
    for name in survivors:
        stamp = RECOVERY.id if forced and name == chosen.name else ""
        mark = RECOVERY if name in marked else None
        unit = (units or {}).get(name, RUNS)
        seen[CLUSTER.member(name).machine] = facts(
            name, unit=unit, mark=mark, stamp=stamp, command="recovered"
        )
    found = tuple(Survivor(CLUSTER.member(n), 5, True) for n in survivors)
    lost = tuple(m for m in CLUSTER.members if m.name not in survivors)
    return RecoveryState(chosen, seen, found, lost, RECOVERY, False, frozenset(joined))


def recovered(seen: RecoveryState) -> Plan:
    with Fleet(1) as fleet:
        return recover_etcd.plan(Etcd(CLUSTER, fleet), seen)


STOPS, ALONE, STARTS = (
    "stop the survivors",
    "make infra1 a cluster of its own",
    "start infra1",
)


def test_all_survivors_stop_before_one_is_a_cluster_of_its_own(done: plan_text.Done) -> None:
    """With another that serves, there would be two clusters."""
    plan = recovered(recovery(*NAMES))
    assert on(plan) == [
        (STOPS, ["infra2", "infra3", "infra1"]),
        (ALONE, ["infra1"]),
        (STARTS, ["infra1"]),
    ]
    assert all(s.before is None for s in plan.steps)
    assert [s.after.title if s.after else "" for s in plan.steps] == [
        "",
        "",
        "healthy infra1 while CORRUPT+NOSPACE",
    ]
    keep, force = plan.steps[1].hosts[0].changes
    assert keep.what.startswith("keep a copy of /var/lib/etcd/member")
    assert "force-new-cluster" in force.what
    assert (keep.disrupts, force.disrupts) == (True, True)
    assert keep.seconds >= 600
    assert f"echo {RECOVERY.id} >./member/recovered-by" in force.script
    assert force.script.index("is-active") < force.script.index("--config-file")
    assert (plan.command, plan.cluster) == ("recover-etcd", "c")
    assert set(plan.guards) == {m.machine for m in CLUSTER.members}


def test_who_is_lost_is_not_touched(done: plan_text.Done) -> None:
    plan = recovered(recovery("infra1", "infra3"))
    assert on(plan)[0] == (STOPS, ["infra3", "infra1"])
    assert {m.host for m in plan.machines} == {"10.0.0.1", "10.0.0.3"}
    assert {m.host for m in plan.guards} == {"10.0.0.1", "10.0.0.3"}


def test_who_was_stopped_by_this_recovery_is_not_stopped_again(done: plan_text.Done) -> None:
    units = {"infra2": DOWN, "infra1": DOWN}
    plan = recovered(recovery(*NAMES, units=units, marked=("infra1", "infra2")))
    # The chosen one is stopped in any case until it is alone.
    assert on(plan)[0] == (STOPS, ["infra3", "infra1"])


def test_a_recovery_that_was_killed_after_the_forcing_goes_on(done: plan_text.Done) -> None:
    """The chosen one is never forced twice: it would lose whoever has joined."""
    units = {"infra1": DOWN, "infra2": DOWN}
    seen = recovery(*NAMES, units=units, marked=NAMES, forced=True)
    plan = recovered(seen)
    assert on(plan) == [(STOPS, ["infra3"]), (STARTS, ["infra1"])]
    up = recovery(*NAMES, units={"infra2": DOWN, "infra3": DOWN}, marked=NAMES, forced=True)
    assert recovered(up).steps == ()


def test_who_has_joined_again_is_not_stopped(done: plan_text.Done) -> None:
    seen = recovery(*NAMES, units={"infra3": DOWN}, marked=NAMES, forced=True, joined=["infra2"])
    assert recovered(seen).steps == ()
    assert [m.name for m in seen.rejoining] == ["infra2", "infra3"]


def test_alarms_and_marks_are_of_those_that_came_back(done: plan_text.Done) -> None:
    seen = recovery("infra1", "infra3")
    with Fleet(1) as fleet:
        etcd = Etcd(CLUSTER, fleet)
        step = recover_etcd.see_to_alarms(etcd, seen)
        plan = recover_etcd.finish(etcd, seen)
    assert step.title == "check the alarms"
    step.calls[0].do()
    assert done == ["settle infra1+infra3"]
    assert on(plan) == [("finish", ["infra1", "infra3"])]
    (finish,) = plan.steps
    assert finish.before is not None
    whom = "infra1+infra3"
    assert finish.before.title == f"healthy {whom} while NOSPACE, equal {whom}"
    assert layout.last_seen(CLUSTER) in finish.hosts[0].changes[0].script
    assert (plan.command, plan.cluster) == ("recover-etcd", "c")


class Asked:
    """What recover-etcd observes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.facts = {n: facts(n) for n in NAMES}
        self.up: set[str] = set()
        self.compared = hashes.Comparison(9, {1: NAMES}, 3)
        self.registered: tuple[RegisteredMember, ...] = ()
        monkeypatch.setattr(health, "observe", self._health)
        monkeypatch.setattr(hashes, "compare", lambda *_: self.compared)
        monkeypatch.setattr(gather, "gather_facts", self._gather)

    def _health(self, etcd: Etcd) -> ClusterHealth:
        members = [
            MemberHealth(
                m,
                status=MemberStatus(1, n, "3.6.16", 1, 1, 1, 50 + n, 1, 1, False, ()),
                registered=self.registered,
            )
            if m.name in self.up
            else MemberHealth(m, error="no answer")
            for n, m in enumerate(etcd.cluster.members, 1)
        ]
        return ClusterHealth(etcd.cluster, tuple(members))

    def _gather(self, *_: object) -> tuple[Any, list[Any]]:
        return {CLUSTER.member(n).machine: f for n, f in self.facts.items()}, []

    def observe(self, name: str = "infra1", cluster: EtcdCluster = CLUSTER) -> RecoveryState:
        with Fleet(1) as fleet:
            return recover_etcd.observe(Etcd(cluster, fleet), name)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def test_who_survives_and_who_is_lost(asked: Asked) -> None:
    del asked.facts["infra2"]
    found = asked.observe()
    assert (found.chosen.name, found.continues, found.forced) == ("infra1", False, False)
    assert [s.member.name for s in found.survivors] == ["infra1", "infra3"]
    assert [m.name for m in found.lost] == ["infra2"]
    assert found.mark.command == "recover"
    asked.facts["infra3"] = replace(
        asked.facts["infra3"],
        paths={**asked.facts["infra3"].paths, layout.UNIT_PATH: hosts.text(f"{KEY}=other\n")},
    )
    assert [m.name for m in asked.observe().lost] == ["infra2", "infra3"]


def test_a_cluster_that_serves_is_not_recovered(asked: Asked) -> None:
    asked.up = {"infra1", "infra2"}
    with pytest.raises(PreflightFailed, match="quorum is not lost") as refused:
        asked.observe()
    assert refused.value.id == "quorum-not-lost"
    assert refused.value.problems[0].what == "infra1, infra2 serves reads"


def test_without_a_majority_of_equal_data_the_operator_chooses(asked: Asked) -> None:
    asked.up = set(NAMES)
    asked.compared = hashes.Comparison(9, {1: NAMES[:1], 2: NAMES[1:2], 3: NAMES[2:]}, 3)
    assert [s.revision for s in asked.observe().survivors] == [51, 52, 53]
    # Where a majority agrees, or some could not be compared, replace-member is the remedy.
    for groups in ({1: NAMES[:2], 2: NAMES[2:]}, {1: NAMES[:1], 2: NAMES[1:2]}):
        asked.compared = hashes.Comparison(9, groups, 3)
        with pytest.raises(PreflightFailed, match="quorum is not lost"):
            asked.observe()


def test_a_recovery_goes_on_from_the_same_member(asked: Asked) -> None:
    first = asked.observe()
    asked.facts["infra1"] = facts("infra1", mark=first.mark)
    again = asked.observe()
    assert (again.continues, again.mark) == (True, first.mark)
    # Another one can be chosen until there is a new cluster: the data may turn out to be damaged.
    changed = asked.observe("infra2")
    assert (changed.continues, changed.chosen.name) == (False, "infra2")
    assert changed.mark.key != first.mark.key
    forced = facts("infra1", mark=first.mark, stamp=first.mark.id, command="recovered")
    away = {n: f for n, f in asked.facts.items() if n != "infra1"}
    away["infra3"] = facts("infra3", mark=first.mark)
    for now in ({**asked.facts, "infra1": forced}, away):
        asked.facts = now
        for other in ("infra2", "infra3"):
            with pytest.raises(PreflightFailed, match="is not finished") as refused:
                asked.observe(other)
            assert refused.value.id == "recovery-unfinished"
    asked.facts["infra1"] = facts("infra1", mark=first.mark)
    asked.facts["infra1"] = facts("infra1", mark=replace(first.mark, command="restore"))
    with pytest.raises(PreflightFailed, match="a restore of"):
        asked.observe()


@pytest.mark.parametrize("command", ["restore", "undo", "recover"])
def test_no_recovery_begins_beside_work_of_another_kind(asked: Asked, command: str) -> None:
    """Neither beside an unfinished restore, nor beside a recovery from a member that the inventory
    does not have: it may have made a new cluster."""
    asked.facts["infra3"] = facts("infra3", mark=replace(MARK, command=command))
    for name in NAMES:
        with pytest.raises(PreflightFailed, match="is not finished") as refused:
            asked.observe(name)
        assert refused.value.id == "recovery-unfinished"


def test_after_the_forcing_who_has_joined_is_asked_of_the_chosen(asked: Asked) -> None:
    first = asked.observe()
    asked.facts["infra1"] = facts(
        "infra1", mark=first.mark, stamp=first.mark.id, command="recovered"
    )
    asked.up = {"infra1"}
    asked.registered = (
        RegisteredMember(1, "infra1", (), (), False),
        RegisteredMember(2, "infra2", (), (), False),
        RegisteredMember(3, "infra3", (), (), True),
    )
    found = asked.observe()
    assert (found.forced, found.joined) == (True, frozenset({"infra1", "infra2"}))


def test_from_whom_nothing_can_be_recovered(asked: Asked) -> None:
    with pytest.raises(UsageError, match="NAME is one of the members"):
        asked.observe("infra9")
    odd = replace(CLUSTER, established=Established(1, odd=frozenset({"infra1"}), name="1"))
    with pytest.raises(PreflightFailed, match="the data of infra1 cannot be used") as refused:
        asked.observe(cluster=odd)
    assert refused.value.id == "recovery-source-unfit"
    good = asked.facts["infra1"]
    empty = {p: s for p, s in good.paths.items() if not p.endswith("/member")}
    foreign = {**good.paths, layout.UNIT_PATH: hosts.text(f"{KEY}=other\n")}
    full = {"/var/lib/etcd": hosts.disk("/var/lib/etcd", (64 << 20) + 1024)}
    sized = replace(good, commands={"kilobytes": "1\n"})
    # A size that is not known is not none.
    odd_size = replace(good, commands={"kilobytes": "du: cannot access 'x'\n1\n"})
    for bad, id in (
        (replace(good, paths=empty), "recovery-source-unfit"),
        (replace(good, paths=foreign), "recovery-source-unfit"),
        (replace(sized, disks=full), "disk-full"),
        (odd_size, "recovery-source-unfit"),
    ):
        asked.facts["infra1"] = bad
        with pytest.raises(PreflightFailed, match="the data of infra1 cannot be used") as refused:
            asked.observe()
        assert refused.value.problems[0].id == id
    more = {"/var/lib/etcd": hosts.disk("/var/lib/etcd", (64 << 20) + 1025)}
    asked.facts["infra1"] = replace(sized, disks=more)
    asked.observe()
    del asked.facts["infra1"]
    with pytest.raises(PreflightFailed, match="no answer"):
        asked.observe()


def test_what_a_member_that_does_not_serve_has_is_read_from_its_database(asked: Asked) -> None:
    asked.facts["infra2"] = replace(
        asked.facts["infra2"],
        commands={"status": '{"revision": 42, "totalKey": 1}', "kilobytes": "1"},
    )
    asked.up = {"infra3"}
    asked.compared = hashes.Comparison(9, {1: NAMES[:1], 2: NAMES[1:2], 3: NAMES[2:]}, 3)
    found = asked.observe()
    assert [(s.revision, s.exact) for s in found.survivors] == [
        (None, False),
        (42, False),
        (53, True),
    ]


def test_who_has_joined_the_chosen_is_asked_of_nobody_else(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asked.observe()
    asked.facts["infra1"] = facts(
        "infra1", mark=first.mark, stamp=first.mark.id, command="recovered"
    )
    looks: list[list[str]] = []

    def look(etcd: Etcd) -> ClusterHealth:
        looks.append([m.name for m in etcd.cluster.members])
        return asked._health(etcd)

    monkeypatch.setattr(health, "observe", look)
    asked.observe()
    assert looks == [[*NAMES], ["infra1"]]


def test_an_earlier_run_s_mark_stays_and_times_are_utc(
    look: Callable[..., RestoreState],
    restore: Restore,
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        marks = [look().mark, asked.observe().mark]
    time.tzset()
    for mark in marks:
        at = datetime.strptime(mark.id, STAMP).replace(tzinfo=timezone.utc)
        assert abs((datetime.now(timezone.utc) - at).total_seconds()) < 3600
    old = replace(marks[0], id="20200102T030405Z")
    restore.facts["infra2"] = facts("infra2", mark=old)
    assert look().mark == old


def test_each_is_stopped_started_and_sent_the_file_as_itself(
    restore: Restore, done: plan_text.Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[str]] = []
    monkeypatch.setattr(
        restore_etcd, "_send", lambda etcd, seen, some: sent.append([m.name for m in some])
    )
    restore.facts["infra2"] = facts("infra2", uploaded=True)
    plan = restore.plan()
    plan.steps[0].calls[0].do()
    assert sent == [["infra1", "infra3"]]
    (stop,) = [s for s in plan.steps if s.title == STOP]
    for host in stop.hosts:
        member = CLUSTER.member(host.name)
        assert host.changes == (recovery_marker.stop(member, MARK, "etcd"),)
    started = recovered(recovery(*NAMES)).steps[-1]
    assert started.title == STARTS
    assert started.hosts[0].changes == (recovery_marker.start(CLUSTER.members[0]),)


@pytest.mark.parametrize(("version", "yes"), [("3.5.99", False), ("3.6.0", True), ("3.10.0", True)])
def test_which_releases_move_revisions_on(version: str, yes: bool) -> None:
    assert restore_etcd.bumps(replace(CLUSTER, version=version)) is yes


def test_why_a_host_is_not_ready_for_a_restore(
    restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing there is not said of a host that is another cluster's."""
    monkeypatch.setattr(backup_etcd, "check", lambda _: SHA)
    monkeypatch.setattr(gather, "require_facts", lambda *_: restore.observed().facts)
    tool = scratch.tool(CLUSTER)
    restore.facts["infra1"] = hosts.facts(1)
    for name, owner, gone in (("infra2", "team", ""), ("infra3", CLUSTER.name, tool)):
        seen = restore.facts[name]
        paths = {p: s for p, s in seen.paths.items() if p != gone}
        paths[layout.UNIT_PATH] = hosts.text(f"{KEY}={owner}\n")
        restore.facts[name] = replace(seen, paths=paths)
    with Fleet(1) as fleet, pytest.raises(PreflightFailed) as refused:
        restore_etcd.observe(Etcd(CLUSTER, fleet), restore.file)
    assert {p.id for p in refused.value.problems} == {"deploy-first"}
    assert [p.what for p in refused.value.problems] == [
        "has no etcd of this tool",
        "is a member of cluster team",
        f"has no {tool}, or no /var/lib/etcd",
    ]
