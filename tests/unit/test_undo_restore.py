"""restore-etcd --undo: from every state that a restore or a killed undo leaves, to the old data."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from provision.engine.plan import Action, Plan
from provision.errors import PreflightFailed
from provision.etcd.api.values import MemberStatus
from provision.etcd.cluster import health, wal
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.member import layout, recovery_marker
from provision.etcd.member.backups import STAMP
from provision.etcd.member.recovery_marker import RecoveryMarker
from provision.host import gather, safely
from provision.host.effects import Effect
from provision.host.facts import HostFacts, UnitState
from provision.host.ownership import KEY
from provision.inventory.resolved import EtcdCluster
from provision.plans.etcd.data import alarms, restore_etcd, undo_restore
from provision.plans.etcd.data.restore_etcd import Origin
from provision.plans.etcd.data.undo_restore import UndoState
from provision.ssh.session import Fleet
from tests.unit import builders, hosts, plan_text
from tests.unit.test_guard import record, varint

NAMES = ("infra1", "infra2", "infra3")
CLUSTER = builders.etcd()
ID = "20260102T030405Z"
RESTORE = RecoveryMarker("restore", ID, "a" * 64)
OLD = f"member.before-restore-{ID}"
RUNS = UnitState("loaded", "active", "running", "enabled")
DOWN = UnitState("loaded", "inactive", "dead", "disabled")
ORIGIN = Origin(1000, CLUSTER.initial_cluster, ())


def head(member: int, cluster: int = 0xC1) -> str:
    """The head of a log, as the host prints it."""
    metadata = b"\x08" + varint(member) + b"\x10" + varint(cluster)
    return (record(4, b"", 4) + record(1, metadata, 7)).hex()


def facts(
    name: str,
    folders: str = f"member {OLD}",
    stamp: str = ID,
    *,
    holds: str = "",
    noted: str = "",
    old_stamp: str = "",
    unit: UnitState = RUNS,
    mark: RecoveryMarker | None = None,
    origin: Origin | None = ORIGIN,
) -> HostFacts:
    member = CLUSTER.member(name)
    paths = {layout.UNIT_PATH: hosts.text(f"{KEY}={CLUSTER.name}\n")}
    if stamp:
        paths[restore_etcd.stamp(member)] = hosts.text(f"{stamp}\n")
        if origin is not None:
            paths[restore_etcd.origin(member)] = hosts.text(origin.text)
    if mark is not None:
        paths[recovery_marker.path(member)] = hosts.text(str(mark))
    mine = head(int(name[-1]))
    lines = []
    for folder in folders.split():
        now = folder == "member" and stamp == ID  # the restored data is of another cluster
        log = head(int(name[-1]), 0xC2) if now else holds or mine
        mark_of = stamp if folder == "member" else old_stamp
        lines.append(f"{folder} {mark_of or '-'} {log} {(noted or mine) if now else '-'}")
    said = {"folders": hosts.sent(*lines)}
    return hosts.facts(int(name[-1]), paths=paths, units={layout.UNIT: unit}, commands=said)


class Restored:
    """Three hosts after a restore, and a cluster that is ``revision`` revisions on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.facts = {name: facts(name) for name in NAMES}
        self.revision: int | None = 1042
        monkeypatch.setattr(gather, "require_facts", lambda *_: self._by_machine())
        monkeypatch.setattr(health, "observe", self._health)
        monkeypatch.setattr(alarms, "settle", lambda _: Action("settle", lambda: None))

    def _by_machine(self) -> Mapping[object, HostFacts]:
        return {CLUSTER.member(n).machine: f for n, f in self.facts.items()}

    def _health(self, etcd: Etcd) -> ClusterHealth:
        status = None
        if self.revision is not None:
            status = MemberStatus(1, 1, "", 1, 1, 1, self.revision, 1, 1, False, ())
        return ClusterHealth(etcd.cluster, (MemberHealth(etcd.cluster.members[0], status=status),))

    def observe(self, cluster: EtcdCluster = CLUSTER) -> UndoState:
        with Fleet(1) as fleet:
            return undo_restore.observe(Etcd(cluster, fleet))

    def plan(self) -> Plan:
        with Fleet(1) as fleet:
            return undo_restore.plan(Etcd(CLUSTER, fleet), self.observe())


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Restored:
    plan_text.spell(monkeypatch)
    return Restored(monkeypatch)


def on(plan: Plan) -> list[tuple[str, list[str]]]:
    return [(s.title, [h.name for h in s.hosts]) for s in plan.steps]


STOP, BACK = "stop every member", "put the data from before the restore back"
START, ALARMS = "start all members together", "check the alarms"


def test_all_stop_before_any_goes_back_and_all_are_back_before_any_starts(
    restored: Restored,
) -> None:
    plan = restored.plan()
    assert on(plan) == [(STOP, [*NAMES]), (BACK, [*NAMES]), (START, [*NAMES]), (ALARMS, [])]
    assert plan.steps[2].after is not None
    assert Effect.ETCD_BACK in plan.effects
    assert set(plan.guards) == {m.machine for m in CLUSTER.members}


def test_it_says_what_is_lost(restored: Restored) -> None:
    (note,) = restored.plan().notes
    assert note.id == "data-loss-ahead"
    assert "42 revisions, from 1000 to 1042" in note.what
    restored.revision = None
    (note,) = restored.plan().notes
    assert "an unknown number of writes" in note.what
    # A restore by an older version of this tool has noted nothing.
    restored.revision = 1042
    for name in NAMES:
        restored.facts[name] = facts(name, origin=None)
    (note,) = restored.plan().notes
    assert "an unknown number of writes" in note.what


#: A host in each state that a kill can leave: what is there, the stamp of the data in use.
STATES = {
    "restored": (f"member {OLD}", ID),
    "between the renames": (OLD, ""),
    "not reached, or back": ("member", ""),
}


@pytest.mark.parametrize("command", ["restore", "undo"])
@pytest.mark.parametrize("states", [*itertools.product(STATES, repeat=3)])
def test_from_every_state_it_goes_back(
    restored: Restored, states: tuple[str, ...], command: str
) -> None:
    mark = RESTORE if command == "restore" else replace(RESTORE, command="undo")
    for name, state in zip(NAMES, states, strict=True):
        folders, stamp = STATES[state]
        restored.facts[name] = facts(name, folders, stamp, unit=DOWN, mark=mark)
    observed = restored.observe()
    assert observed.mark.id == ID
    assert observed.continues is (command == "undo")
    left = [n for n, s in zip(NAMES, states, strict=True) if s != "not reached, or back"]
    plan = restored.plan()
    steps = dict(on(plan))
    assert steps.get(BACK, []) == left
    assert steps[START] == [*NAMES]
    assert list(steps) == [s for s in (STOP, BACK, START, ALARMS) if s in steps]


def test_a_restore_before_this_one_can_be_undone_next(restored: Restored) -> None:
    """Back in the data from before, its own stamp names the restore before."""
    for name in NAMES:
        restored.facts[name] = facts(name, "member member.before-restore-20250101T000000Z")
    with pytest.raises(PreflightFailed):
        restored.observe()
    for name in NAMES:
        older = "20250101T000000Z"
        restored.facts[name] = facts(name, f"member member.before-restore-{older}", older)
    assert restored.observe().mark.id == "20250101T000000Z"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (facts("infra2", "member"), "it was deleted"),
        (facts("infra2", f"member {OLD}", ""), "not of a restore"),
        (facts("infra2", f"member {OLD}", "20260101T000000Z"), "restore of 20260101T000000Z"),
        (
            facts("infra2", origin=replace(ORIGIN, members="a=http://b")),
            "other members (a=http://b",
        ),
        (facts("infra2", origin=replace(ORIGIN, without=("infra9",))), "without infra9"),
        (facts("infra2", holds="-", noted="-"), f"log of {OLD} cannot be read"),
        (facts("infra2", old_stamp=ID), f"{OLD} holds the restored data"),
        (facts("infra2", holds=head(9)), "of member 9 of cluster c1, and the restore put aside"),
        (facts("infra2", noted=head(9)), "put aside the data of member 9"),
        # A restore by an earlier version of this tool noted nothing.
        (
            facts("infra2", holds=head(1), noted="-"),
            "member 1 of cluster c1, as the data on infra1",
        ),
        (facts("infra2", holds=head(2, 0xDD), noted="-"), "the data of member 2 of cluster dd"),
        (
            facts("infra2", "member", "", holds=head(3), mark=RESTORE),
            "member 3 of cluster c1, as the data on",
        ),
    ],
)
def test_where_there_is_no_way_back(restored: Restored, changed: HostFacts, why: str) -> None:
    restored.facts["infra2"] = changed
    with pytest.raises(PreflightFailed) as refused:
        restored.observe()
    assert {p.id for p in refused.value.problems} == {"undo-impossible"}
    assert any(why in p.what and p.where.startswith("infra2") for p in refused.value.problems)


def test_a_restore_that_noted_no_ids_can_be_undone(restored: Restored) -> None:
    restored.facts = {name: facts(name, noted="-") for name in NAMES}
    assert restored.observe().mark.id == ID


def by_shell(script: str) -> subprocess.CompletedProcess[str]:
    """What a batch, or the look at a host, makes of ``script``."""
    run = ["sh", "-ec", f"{safely.FUNCTIONS}\n{script}"]
    return subprocess.run(run, check=False, capture_output=True, text=True)


@pytest.mark.process
def test_each_host_says_what_its_folders_hold(open_path: Path) -> None:
    for n, name in enumerate(("member", OLD, "member.before-restore-x y")):
        logs = open_path / name / "wal"
        logs.mkdir(parents=True)
        for file in ("0.wal", "1.wal"):
            (logs / file).write_bytes(bytes.fromhex(head(n + 1)) + b"\0" * 4000)
    (open_path / "member/restored-by").write_text(f"{ID}\n")
    (open_path / "member/restored-over").write_text(f" {head(7)[:40]} \n {head(7)[40:]}\n")
    (open_path / "member.before-restore-empty").mkdir()
    (open_path / "member.before-restore-file").touch()
    member = replace(CLUSTER.members[0], data_dir=str(open_path))
    probe = undo_restore._probe(CLUSTER, member).commands
    hosts.given(open_path)
    said = by_shell(probe["folders"]).stdout
    found = undo_restore._folders(hosts.facts(commands={"folders": said}))
    assert set(found) == {"member", OLD, "member.before-restore-empty"}
    assert (found["member"].stamp, found["member"].ids) == (ID, (1, 0xC1))
    assert (found["member"].over, found[OLD].ids) == ((7, 0xC1), (2, 0xC1))
    assert (found[OLD].stamp, found[OLD].over) == ("", None)
    assert found["member.before-restore-empty"].ids is None


@pytest.mark.process
def test_a_restore_notes_which_data_it_puts_aside(open_path: Path) -> None:
    member = replace(CLUSTER.members[0], data_dir=str(open_path))
    new = open_path / f"restoring-{ID}"
    (new / "member").mkdir(parents=True)
    over = new / "member" / restore_etcd.OVER
    text = restore_etcd._note_aside(member, new.name)

    def note() -> None:
        hosts.given(open_path)
        assert by_shell(text).returncode == 0

    note()
    assert not over.exists()  # there was no data
    (open_path / "member/wal").mkdir(parents=True)
    note()
    assert over.read_text() == ""  # it has no log
    over.unlink()
    (open_path / "member/wal/0.wal").write_bytes(bytes.fromhex(head(4)) + b"\0" * 400)
    note()
    assert wal.parse(over.read_text()) == (4, 0xC1)
    (open_path / "member/wal/1.wal").write_bytes(bytes.fromhex(head(5)) + b"\0" * 400)
    note()
    assert wal.parse(over.read_text()) == (4, 0xC1)  # a second run changes nothing


def test_a_recovery_comes_first(restored: Restored) -> None:
    restored.facts["infra1"] = facts("infra1", mark=replace(RESTORE, command="recover"))
    with pytest.raises(PreflightFailed, match="a recovery of") as refused:
        restored.observe()
    assert refused.value.id == "recovery-unfinished"


def test_an_undo_is_newer_than_its_restore() -> None:
    undo = replace(RESTORE, command="undo", key="b" * 64)
    members = {n: CLUSTER.member(n) for n in NAMES}
    seen = {
        CLUSTER.member("infra1").machine: facts("infra1", mark=RESTORE),
        CLUSTER.member("infra2").machine: facts("infra2", mark=undo),
    }
    assert recovery_marker.newest(members, seen) == undo


def script(data: Path) -> str:
    member = replace(CLUSTER.members[0], data_dir=str(data))
    state = UndoState({}, replace(RESTORE, command="undo"), "20260103T000000Z", False)
    return undo_restore._back(member, state).script


def back(data: Path) -> int:
    return hosts.shell(f"set -e\n{safely.FUNCTIONS}\n{script(hosts.given(data))}", data).code


def make(data: Path, *folders: str) -> None:
    for name in folders:
        (data / name).mkdir(parents=True)
        (data / name / name).touch()


def contents(data: Path) -> dict[str, list[str]]:
    return {d.name: [f.name for f in d.iterdir()] for d in data.iterdir()}


@pytest.mark.process
def test_the_old_data_comes_back_and_the_restored_is_kept(open_path: Path) -> None:
    make(open_path, "member", OLD)
    assert back(open_path) == 0
    assert contents(open_path) == {
        "member": [OLD],
        "member.before-undo-20260103T000000Z": ["member"],
    }


@pytest.mark.process
def test_killed_between_the_renames_it_goes_on(open_path: Path) -> None:
    make(open_path, OLD)
    assert back(open_path) == 0
    assert contents(open_path) == {"member": [OLD]}


@pytest.mark.process
def test_other_data_under_the_name_does_not_come_back(open_path: Path) -> None:
    make(open_path, "member", OLD)
    member = replace(CLUSTER.members[0], data_dir=str(open_path))
    seen = {member.machine: facts("infra1")}
    state = UndoState(seen, replace(RESTORE, command="undo"), "20260103T000000Z", False)
    text = undo_restore._back(member, state).script
    (open_path / OLD / "wal").mkdir()
    log = open_path / OLD / "wal" / "0.wal"
    # What was printed of a log is its beginning, of a fixed length.
    whole = bytes.fromhex(head(1))
    log.write_bytes(bytes.fromhex(head(2)))
    hosts.given(open_path)
    refused = by_shell(text)
    assert refused.returncode != 0
    assert "is not the data that was looked at" in refused.stderr
    assert sorted(d.name for d in open_path.iterdir()) == ["member", OLD]
    log.write_bytes(whole)
    assert by_shell(text).returncode == 0


@pytest.mark.process
@pytest.mark.parametrize(
    "there", [("member",), ("member", OLD, "member.before-undo-20260103T000000Z")]
)
def test_nothing_is_moved_where_data_would_be_lost(open_path: Path, there: tuple[str, ...]) -> None:
    make(open_path, *there)
    before = contents(open_path)
    assert back(open_path) != 0
    assert contents(open_path) == before


class TestTheEnd:
    def test_a_run_that_has_started_all_only_verifies(self, restored: Restored) -> None:
        undo = replace(RESTORE, command="undo")
        for name in NAMES:
            restored.facts[name] = facts(name, "member", "", mark=undo)
        plan = restored.plan()
        assert on(plan) == [("verify the cluster", []), (ALARMS, [])]
        gate = plan.steps[0].after
        assert gate is not None
        assert gate.title.startswith("one cluster again: healthy infra1+infra2+infra3")
        assert [call.what for call in plan.steps[1].calls] == ["settle"]

    def test_the_alarms_are_settled_after_every_undo(self, restored: Restored) -> None:
        assert [call.what for call in restored.plan().steps[-1].calls] == ["settle"]

    def test_the_marks_go_when_the_members_are_one_cluster_again(self, restored: Restored) -> None:
        with Fleet(1) as fleet:
            plan = undo_restore.finish(Etcd(CLUSTER, fleet), restored.observe())
        assert on(plan) == [("finish", [*NAMES])]
        [step] = plan.steps
        assert step.before is not None
        assert step.before.title.startswith("one cluster again: ")
        gone = step.hosts[1].changes[0].script
        member = CLUSTER.member("infra2")
        mark = RecoveryMarker("undo", ID, restored.observe().mark.key)
        for path in (
            restore_etcd.side(member, mark),
            layout.last_seen(CLUSTER),
            recovery_marker.path(member),
        ):
            assert path in gone.split()[1:]


def test_whether_a_restore_has_ended(restored: Restored) -> None:
    assert not restored.observe().unfinished
    for command in ("restore", "undo"):
        restored.facts["infra3"] = facts("infra3", mark=replace(RESTORE, command=command))
        assert restored.observe().unfinished


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A control machine whose clock is nine hours ahead of UTC."""
    monkeypatch.setenv("TZ", "UTC-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("elsewhere")
def test_names_have_the_time_in_utc(restored: Restored) -> None:
    now = datetime.strptime(restored.observe().now, STAMP).replace(tzinfo=timezone.utc)
    assert abs(datetime.now(timezone.utc) - now) < timedelta(hours=1)


def test_what_an_earlier_restore_put_aside_says_nothing(restored: Restored) -> None:
    """A member is back, and its own data was made by an earlier restore."""
    undo = replace(RESTORE, command="undo")
    older = "20250101T000000Z"
    back = facts("infra1", "member", older, mark=undo)
    said = hosts.sent(f"member {older} {head(1)} {head(9)}")
    restored.facts["infra1"] = replace(back, commands={"folders": said})
    assert restored.observe().mark.id == ID
