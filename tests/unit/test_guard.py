"""That no command forgets to find out which cluster it is, and what is read on the hosts."""

from __future__ import annotations

import inspect
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision import __version__
from provision.cli import commands
from provision.cli.run import Run
from provision.cli.tasks import common
from provision.engine.guards import EXEMPT, Guard
from provision.errors import PreflightFailed, UsageError
from provision.etcd.api.values import MemberStatus
from provision.etcd.cluster import gates, guard, health, last_seen, wal
from provision.etcd.cluster.groups import Answer, Disk, Note, Seen, Start
from provision.etcd.cluster.guard import Look
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.member import layout
from provision.host import gather
from provision.host.facts import HostFacts, Kind, Probe
from provision.host.ownership import KEY
from provision.host.resources import File
from provision.inventory.resolved import Established, EtcdCluster, Machine
from provision.plans.etcd.members import member_plan
from provision.ssh.session import Fleet
from tests.unit import builders, hosts
from tests.unit.hosts import LocalFleet

TASKS = {name: commands.namespace[name] for name in commands.namespace.task_names}


def _options(name: str) -> set[str]:
    return set(inspect.signature(TASKS[name].body).parameters)


def test_every_command_that_changes_or_saves_is_guarded_or_says_why_not() -> None:
    changing = {name for name in TASKS if "dry_run" in _options(name)} | {"backup-etcd"}
    guarded = {name for name, task in TASKS.items() if task.guarded}
    unguarded = {name for name, why in EXEMPT.items() if Guard.WHICH_CLUSTER in why}
    assert guarded & unguarded == set()
    assert guarded | unguarded == changing
    assert all("cluster_id" in _options(name) for name in guarded)
    assert guarded > common.WORKERS


def test_a_guarded_command_cannot_carry_out_a_plan_without_it() -> None:
    from provision.engine.plan import Plan

    run = Run("deploy-etcd", guarded=True)
    with pytest.raises(AssertionError, match="without knowing which cluster"):
        common.carry_out(run, Plan("deploy-etcd", "c"))


def record(kind: int, data: bytes, padding: int = 0) -> bytes:
    body = bytes([0x08, kind, 0x10, 0x00]) + (bytes([0x1A, len(data)]) + data if data else b"")
    frame = len(body) | ((0x80 | padding) << 56 if padding else 0)
    return frame.to_bytes(8, "little") + body + bytes(padding)


def varint(number: int) -> bytes:
    out = b""
    while True:
        number, low = number >> 7, number & 0x7F
        out += bytes([low | (0x80 if number else 0)])
        if not number:
            return out


@given(st.integers(1, 2**64 - 1), st.integers(1, 2**64 - 1))
def test_the_ids_of_a_wal(member: int, cluster: int) -> None:
    metadata = b"\x08" + varint(member) + b"\x10" + varint(cluster)
    head = record(4, b"", 4) + record(1, metadata, 7) + record(3, b"\x08\x02") + b"\0" * 100
    assert wal.ids(head) == (member, cluster)
    assert wal.parse(head.hex(" ")) == (member, cluster)


@given(st.binary(max_size=wal.HEAD))
def test_anything_else_is_no_wal(head: bytes) -> None:
    found = wal.ids(head)
    assert found is None or found.cluster_id


@pytest.mark.parametrize("text", ["", "ls: cannot access", "zz", "00"])
def test_what_a_host_says_instead_is_no_wal(text: str) -> None:
    assert wal.parse(text) is None


NOTE = Note(0xC1, 4, 900, 800, "20260101T000000Z")


def _noted(*texts: str) -> list[HostFacts]:
    path = layout.last_seen(builders.etcd())
    return [hosts.facts(n, paths={path: hosts.text(t)}) for n, t in enumerate(texts, 1)]


def test_the_newest_note_counts() -> None:
    cluster = builders.etcd()
    newer = replace(NOTE, cluster_id=0xC2, revision=7, when="20260102T000000Z")
    found = _noted(last_seen.text(NOTE), last_seen.text(newer), "")
    assert last_seen.read(cluster, found) == newer
    assert last_seen.read(cluster, [hosts.facts()]) is None


@pytest.mark.parametrize(
    "text",
    ["", "cluster=c1", "cluster=c1 term=x index=1 revision=1 when=20260101T000000Z", "$(id)"],
)
def test_anything_else_is_no_note(text: str) -> None:
    assert last_seen.read(builders.etcd(), _noted(text)) is None


@pytest.mark.process
def test_a_host_that_takes_no_note_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    cluster = replace(builders.etcd(), config_dir=str(folder))
    status = MemberStatus(0xC1, 1, "3.6.16", 1, 800, 1, 4, 900, 900, False, ())
    seen = ClusterHealth(cluster, tuple(MemberHealth(m, status=status) for m in cluster.members))
    monkeypatch.setattr(health, "observe", lambda *_, **__: seen)
    with LocalFleet(tmp_path) as fleet:
        assert last_seen.take(Etcd(cluster, fleet)) == []
        note = Path(layout.last_seen(cluster))
        assert last_seen.parse(note.read_text()) is not None
        versions = [f"{tmp_path}/{m.machine.host}/.version/tool-version" for m in cluster.members]
        assert {Path(path).read_text() for path in versions} == {f"{__version__}\n"}
        note.unlink()
        note.mkdir()
        found = last_seen.take(Etcd(cluster, fleet))
    assert [p.where for p in found] == [m.machine.host for m in cluster.members]
    assert {(p.id, p.severity) for p in found} == {("change-failed", "warning")}
    assert "the note about the cluster was not updated" in found[0].what
    assert "irectory" in found[0].what


class Known:
    """What :func:`guard.observe` would have found; nothing is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, look: Look) -> None:
        monkeypatch.setattr(guard, "observe", lambda *_, **__: look)
        monkeypatch.setattr(health, "observe", lambda *_, **__: None)
        monkeypatch.setattr(guard, "answers", lambda _: {})
        monkeypatch.setattr(gates, "BACK_WITHIN", 0.0)

    def establish(self, wanted: str = "", *, starts: bool = True) -> Established:
        with Fleet(1) as fleet:
            inventory = builders.inventory(None)
            return guard.establish(
                inventory, Etcd(inventory.etcd, fleet), wanted, starts=starts
            ).etcd.established


def serving(number: int, **changed: object) -> Seen:
    values: dict[str, object] = {
        "cluster_id": 0xC1,
        "member_id": number,
        "term": 5,
        "index": 1200,
        "revision": 1000,
        "leader": 1,
        "members": frozenset({1, 2, 3}),
        "serves": True,
    }
    return Seen(f"infra{number}", Answer(**{**values, **changed}))  # type: ignore[arg-type]


def stopped(number: int, revision: int = 1000) -> Seen:
    return Seen(f"infra{number}", disk=Disk(0xC1, number, revision))


def configured(*numbers: int, port: int = 2380) -> dict[object, HostFacts]:
    """Hosts with the configuration that the tool writes."""
    cluster = builders.etcd()
    first = ",".join(f"{m.name}={m.peer_url}" for m in cluster.members)
    found: dict[object, HostFacts] = {}
    for m in cluster.members:
        number = int(m.name.removeprefix("infra"))
        if number in numbers:
            text = (
                f'initial-advertise-peer-urls: "http://{m.address}:{port}"\n'
                f'initial-cluster: "{first}"\n'
            )
            paths = {
                "/etc/etcd/etcd.conf.yml": hosts.text(text),
                layout.UNIT_PATH: hosts.text(f"{KEY}={cluster.name}\n"),
            }
            found[m.machine] = hosts.facts(number, paths=paths)
    return found


def test_one_group_that_serves_is_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = serving(3, cluster_id=0xDD, serves=False, revision=1, members=frozenset({3}))
    known = Known(monkeypatch, Look((serving(1), serving(2), odd), NOTE))
    found = known.establish()
    assert found == Established(0xC1, frozenset({3}), frozenset({"infra3"}))
    assert found.has(0xC1, 1)
    assert not found.has(0xDD, 1)
    assert not found.has(0xC1, 3)


def test_two_groups_are_both_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    own = serving(3, cluster_id=0xDD, leader=3, revision=7, members=frozenset({3}))
    known = Known(monkeypatch, Look((serving(1), serving(2), own), NOTE))
    with pytest.raises(PreflightFailed) as refused:
        known.establish()
    lines = [p.line for p in refused.value.problems]
    assert "cluster c1: serves at revision 1000, raft term 5, index 1200" in lines[0]
    assert "infra1 (1), infra2 (2)" in lines[0]
    assert "cluster dd: serves at revision 7" in lines[1]
    assert "--cluster-id" in lines[2]
    assert known.establish("dd").odd == {"infra1", "infra2"}


def test_an_election_is_over_before_it_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """An odd one with a higher revision serves while the others elect a leader."""
    own = serving(3, cluster_id=0xDD, leader=3, revision=9000, members=frozenset({3}))
    electing = [serving(n, serves=False, leader=0) for n in (1, 2)]
    known = Known(monkeypatch, Look((*electing, own), None))
    looks = [{}, {m.name: m.answer for m in (serving(1), serving(2), own)}]
    monkeypatch.setattr(guard, "answers", lambda _: looks.pop(0) if len(looks) > 1 else looks[0])
    monkeypatch.setattr(gates, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(gates, "BACK_WITHIN", 20.0)
    with pytest.raises(PreflightFailed, match="more than one cluster"):
        known.establish()
    # One that stays without a leader has lost its quorum.
    monkeypatch.setattr(guard, "answers", lambda _: {})
    monkeypatch.setattr(gates, "BACK_WITHIN", 0.0)
    assert known.establish().cluster_id == 0xDD


def test_a_group_that_does_not_serve_is_not_worked_on_in_the_place_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wiped = [serving(n, term=2, index=9, revision=3, leader=2) for n in (2, 3)]
    known = Known(monkeypatch, Look((stopped(1), *wiped), NOTE))
    for starts in (True, False):
        with pytest.raises(PreflightFailed, match="c1-infra1 does not serve") as refused:
            known.establish("c1-infra1", starts=starts)
        assert "recover-etcd infra1 --cluster-id c1-infra1" in refused.value.problems[-1].remedy
    assert known.establish("c1-infra2").odd == {"infra1"}


def test_all_stopped_are_started_but_not_without_their_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = configured(1, 2, 3)
    look = Look((stopped(1), stopped(2), Seen("infra3")), NOTE, facts)  # type: ignore[arg-type]
    assert Known(monkeypatch, look).establish() == Established(lost=frozenset({"infra3"}))


def test_data_of_another_cluster_are_never_deleted() -> None:
    odd = builders.etcd(established=Established(0xC1, odd=frozenset({"infra3"})))
    member_plan.require_odd_is_kept(odd, "infra3", ())
    member_plan.require_odd_is_kept(odd, "infra2", ("infra2",))
    with pytest.raises(UsageError, match="only keeps it aside"):
        member_plan.require_odd_is_kept(odd, "infra3", ("infra3",))


def test_data_of_somebody_else_are_refused_by_preflight(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = builders.etcd()
    facts = {m.machine: hosts.facts(n) for n, m in enumerate(cluster.members, 1)}
    look = Look((Seen("infra1", disk=Disk()), Seen("infra2"), Seen("infra3")), None, facts)
    assert Known(monkeypatch, look).establish() == Established()


def test_a_host_that_does_not_answer_is_no_reason_to_recover(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = [Seen(f"infra{n}", looked=False) for n in (2, 3)]
    known = Known(monkeypatch, Look((stopped(1), *gone), NOTE))
    assert known.establish() == Established()


@pytest.mark.parametrize(
    ("seen", "port", "said"),
    [
        ((stopped(1), Seen("infra2"), Seen("infra3")), 2380, "recover-etcd infra1"),
        ((stopped(1), stopped(2, 1), stopped(3, 1)), 2380, "recover-etcd infra1"),
        ((Seen("infra1"), Seen("infra2"), Seen("infra3")), 2380, "restore-etcd FILE"),
        ((stopped(1), stopped(2), stopped(3)), 9999, "have changed since etcd last ran"),
    ],
)
def test_what_could_lose_data_names_what_helps(
    monkeypatch: pytest.MonkeyPatch, seen: tuple[Seen, ...], port: int, said: str
) -> None:
    look = Look(seen, NOTE, configured(1, 2, 3, port=port))  # type: ignore[arg-type]
    known = Known(monkeypatch, look)
    with pytest.raises(PreflightFailed, match="could lose data") as refused:
        known.establish()
    assert said in refused.value.problems[-1].line
    # A command that starts nobody says itself that etcd does not run.
    assert known.establish(starts=False) == Established()


def test_an_unfinished_recovery_admits_its_own_command(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = builders.etcd()
    mark = {"/var/lib/etcd/unfinished": hosts.text("recover")}
    facts = {m.machine: hosts.facts(n, paths=mark) for n, m in enumerate(cluster.members, 1)}
    look = Look((stopped(1), Seen("infra2"), Seen("infra3")), NOTE, facts)
    known = Known(monkeypatch, look)
    for starts in (True, False):
        with pytest.raises(PreflightFailed, match="is not finished"):
            known.establish(starts=starts)
    with Fleet(1) as fleet:
        inventory = builders.inventory(None)
        assert guard.choose(inventory, Etcd(inventory.etcd, fleet), "anything") == inventory


@pytest.mark.parametrize(("of", "stays", "starts"), [(1, 0, True), (2, 1, False), (3, 1, False),
    (3, 2, True), (4, 2, False), (4, 3, True), (5, 2, False), (5, 3, True)])  # fmt: skip
def test_a_quorum_must_find_one_another(of: int, stays: int, starts: bool) -> None:
    """A cluster of one has nobody to find."""
    cluster = builders.etcd(*(builders.member(n) for n in range(1, of + 1)))
    texts = {
        m.name: f'initial-advertise-peer-urls: "http://{m.address}:{2380 if n < stays else 9999}"'
        for n, m in enumerate(cluster.members)
    }
    names = tuple(texts)
    said = guard._moved(cluster, Start(names), texts)
    assert (said == "") is starts
    if said:
        assert f"the peer addresses of {', '.join(names[stays:])} have changed" in said
    # A member that has lost its data does not help the others, and still counts.
    if of > stays + 1:
        assert guard._moved(cluster, Start(names[:-1], names[-1:]), texts) or starts


def test_members_that_are_not_started_do_not_find_the_others() -> None:
    cluster = builders.etcd()
    texts = {
        m.name: f'initial-advertise-peer-urls: "http://{m.address}:{port}"'
        for m, port in zip(cluster.members, (9999, 2380, 2380), strict=True)
    }
    names = tuple(texts)
    assert guard._moved(cluster, Start(names), texts) == ""
    assert guard._moved(cluster, Start(names[:2], names[2:]), texts)


def test_data_in_another_folder_are_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = configured(1, 2, 3)
    cluster = builders.etcd()
    for m in cluster.members[1:]:
        moved = hosts.text('data-dir: "/old"\n')
        paths = {**facts[m.machine].paths, "/etc/etcd/etcd.conf.yml": moved}
        facts[m.machine] = replace(facts[m.machine], paths=paths)
    seen = (stopped(1), stopped(2), Seen("infra3"))
    known = Known(monkeypatch, Look(seen, NOTE, facts))  # type: ignore[arg-type]
    with pytest.raises(PreflightFailed) as refused:
        known.establish()
    assert refused.value.message == "etcd's data is in another folder"
    assert refused.value.id == "member-data-lost"
    # A member that has its data where it is declared is no problem.
    (problem,) = refused.value.problems
    assert problem.where == cluster.members[2].place
    assert problem.id == "member-data-lost"
    assert "the data_dir /old" in problem.what
    assert "set data_dir back to /old" in problem.remedy


def test_what_nobody_could_look_at_may_be_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    own = serving(1, members=frozenset({1}))
    hidden = [Seen(f"infra{n}", looked=False) for n in (2, 3)]
    known = Known(monkeypatch, Look((own, *hidden), NOTE))
    with pytest.raises(PreflightFailed) as refused:
        known.establish()
    assert refused.value.message == (
        "the cluster that serves may not be the cluster of the last run"
    )
    assert refused.value.id == "etcd-members-unseen"
    assert {p.id for p in refused.value.problems} == {"etcd-members-unseen"}
    assert [p.where for p in refused.value.problems] == ["cluster c1", "c"]
    assert known.establish("c1").cluster_id == 0xC1


def test_older_than_what_there_was_names_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    up = [serving(n) for n in (1, 2)]
    newer = Seen("infra3", disk=Disk(0xDD, 9, 2000))
    with pytest.raises(PreflightFailed) as refused:
        Known(monkeypatch, Look((*up, newer), None)).establish()
    assert refused.value.message == "the cluster that serves has older data than before"
    assert refused.value.id == "etcd-history-behind"
    assert {p.id for p in refused.value.problems} == {"etcd-history-behind"}
    assert [p.where for p in refused.value.problems] == ["cluster c1", "cluster dd", "c"]
    assert refused.value.problems[-1].remedy == (
        "to keep the cluster that serves: --cluster-id c1; to keep the newer data: invoke "
        "recover-etcd infra3 --cluster-id dd"
    )
    ahead = replace(NOTE, revision=5000)
    older = Seen("infra3", disk=Disk(0xDD, 9, 10))
    with pytest.raises(PreflightFailed) as refused:
        Known(monkeypatch, Look((*up, older), ahead)).establish()
    assert refused.value.problems[-1].remedy == (
        "to keep the cluster that serves: --cluster-id c1; to use a backup: invoke restore-etcd "
        "FILE"
    )


def test_a_name_that_no_group_has(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known(monkeypatch, Look((serving(1), serving(2), stopped(3)), NOTE))
    with pytest.raises(UsageError, match=r"no cluster 'dd': there are c1$") as refused:
        known.establish("dd")
    assert refused.value.id == "name-unknown"
    nothing = Known(monkeypatch, Look((Seen("infra1"), Seen("infra2"), Seen("infra3")), None))
    with pytest.raises(UsageError, match=r"no cluster 'dd': no member has data$"):
        nothing.establish("dd")


def test_a_recovery_works_on_the_named_group_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when this group does not serve and another one does."""
    up = [serving(n, members=frozenset({2, 3}), leader=2) for n in (2, 3)]
    look = Look((Seen("infra1", disk=Disk(0xDD, 7, 2000)), *up), NOTE)
    Known(monkeypatch, look)
    asked: list[Etcd] = []

    def observe(etcd: Etcd) -> Look:
        asked.append(etcd)
        return look

    monkeypatch.setattr(guard, "observe", observe)
    before = Established(5, name="5")
    inventory = builders.inventory(None, etcd=builders.etcd(established=before))
    with Fleet(1) as fleet:
        handle = Etcd(inventory.etcd, fleet)
        found = guard.choose(inventory, handle, "dd")
        assert found.etcd.established == Established(
            0xDD, frozenset({2, 3}), frozenset({"infra2", "infra3"}), name="dd"
        )
        assert replace(found, etcd=inventory.etcd) == inventory
        # What an earlier command found out does not count.
        assert [e.cluster.established for e in asked] == [Established()]
        with pytest.raises(UsageError, match="no cluster 'abc'"):
            guard.choose(inventory, handle, "abc")
        other = guard.choose(inventory, handle, "c1").etcd.established
        assert other == Established(0xC1, frozenset({7}), frozenset({"infra1"}), name="c1")


class TestObserve:
    """What is seen of a member, by its answer, its host and its disk."""

    @pytest.fixture
    def cluster(self) -> EtcdCluster:
        return builders.etcd()

    def observed(
        self,
        monkeypatch: pytest.MonkeyPatch,
        cluster: EtcdCluster,
        members: dict[int, MemberHealth],
        facts: dict[int, HostFacts],
        disks: dict[int, dict[str, str]] | None = None,
    ) -> tuple[Look, list[dict[Machine, Probe]]]:
        """A look at ``members`` and the ``facts`` of hosts that answer; ``disks`` is what commands
        say of silent members' data."""
        by_machine = {m.machine: n for n, m in enumerate(cluster.members, 1)}
        asked: list[dict[Machine, Probe]] = []

        def gathered(_: Fleet, probes: dict[Machine, Probe]) -> tuple[object, list[object]]:
            asked.append(dict(probes))
            said = {
                m: replace(facts[by_machine[m]], commands=(disks or {}).get(by_machine[m], {}))
                for m in probes
                if by_machine[m] in facts
            }
            return said, []

        found = tuple(
            members.get(n, MemberHealth(m, error="no answer"))
            for n, m in enumerate(cluster.members, 1)
        )
        seen = ClusterHealth(cluster, found)
        monkeypatch.setattr(gather, "gather_facts", gathered)
        monkeypatch.setattr(health, "observe", lambda etcd: seen)
        with Fleet(1) as fleet:
            look = guard.observe(Etcd(cluster, fleet))
        if not cluster.external:
            assert look.asked is seen
        return look, asked

    @staticmethod
    def up(cluster: EtcdCluster, n: int, **changed: object) -> MemberHealth:
        m = cluster.members[n - 1]
        status = MemberStatus(0xC1, n, "3.6.16", 1, 1, 1, 1000, 5, 1200, False, ())
        return MemberHealth(m, status=status, **changed)  # type: ignore[arg-type]

    @staticmethod
    def host(cluster: EtcdCluster, n: int, note: Note | None = None) -> HostFacts:
        paths = {f"{cluster.members[n - 1].data_dir}/member": hosts.text("")}
        if note is not None:
            paths[layout.last_seen(cluster)] = hosts.text(last_seen.text(note))
        return hosts.facts(n, paths=paths)

    def test_a_member_that_answers_is_not_read_from_its_disk(
        self, monkeypatch: pytest.MonkeyPatch, cluster: EtcdCluster
    ) -> None:
        up = {n: self.up(cluster, n) for n in (1, 2, 3)}
        facts = {n: self.host(cluster, n, NOTE if n == 2 else None) for n in (1, 2, 3)}
        look, asked = self.observed(monkeypatch, cluster, up, facts)
        assert len(asked) == 1
        assert set(asked[0]) == {m.machine for m in cluster.members}
        assert look.note == NOTE
        assert set(look.facts) == {m.machine for m in cluster.members}
        for n, seen in enumerate(look.seen, 1):
            m = cluster.members[n - 1]
            assert (seen.name, seen.peer_url, seen.disk) == (m.name, m.peer_url, None)
            assert (seen.looked, seen.refuses) == (True, False)
            assert seen.answer is not None
            assert (seen.answer.member_id, seen.answer.revision) == (n, 1000)

    def test_a_silent_member_is_read_from_its_disk(
        self, monkeypatch: pytest.MonkeyPatch, cluster: EtcdCluster
    ) -> None:
        metadata = b"\x08" + varint(7) + b"\x10" + varint(0xC1)
        head = record(4, b"", 4) + record(1, metadata, 7)
        said = {"wal": head.hex(" "), "snapshot status": '{"revision": 42}'}
        look, asked = self.observed(
            monkeypatch,
            cluster,
            {1: self.up(cluster, 1)},
            {1: self.host(cluster, 1), 2: self.host(cluster, 2), 3: self.host(cluster, 3)},
            {2: said},
        )
        _, two, three = look.seen
        assert two == Seen("infra2", disk=Disk(0xC1, 7, 42), peer_url=cluster.members[1].peer_url)
        # What could not be read is not taken for a member without data.
        assert three.disk == Disk(None, None, None)
        assert three.has_data
        silent = asked[1]
        assert set(silent) == {m.machine for m in cluster.members[1:]}
        assert set(silent[cluster.members[1].machine].commands) == {"wal", "snapshot status"}
        assert all(not p.commands for p in asked[0].values())

    def test_a_host_without_data_and_one_that_does_not_answer(
        self, monkeypatch: pytest.MonkeyPatch, cluster: EtcdCluster
    ) -> None:
        look, asked = self.observed(
            monkeypatch, cluster, {1: self.up(cluster, 1)}, {2: hosts.facts(2)}
        )
        one, two, three = look.seen
        assert (one.looked, one.has_data) == (False, True)  # it answers, its host does not
        assert (two.looked, two.has_data) == (True, False)
        assert (three.looked, three.has_data) == (False, False)
        assert len(asked) == 1
        assert look.note is None

    def test_a_member_that_refuses_the_login_is_no_silent_one(
        self, monkeypatch: pytest.MonkeyPatch, cluster: EtcdCluster
    ) -> None:
        refuses = MemberHealth(cluster.members[1], error="login refused", refused=True)
        facts = {n: self.host(cluster, n) for n in (1, 2, 3)}
        look, _ = self.observed(monkeypatch, cluster, {2: refuses}, facts)
        assert [m.refuses for m in look.seen] == [False, True, False]

    def test_hosts_of_an_external_etcd_are_not_asked(
        self, monkeypatch: pytest.MonkeyPatch, cluster: EtcdCluster
    ) -> None:
        external = replace(cluster, external=True)
        look, asked = self.observed(monkeypatch, external, {1: self.up(cluster, 1)}, {})
        assert asked == [{}]
        assert [m.answer is not None for m in look.seen] == [True, False, False]
        assert all(m.looked and not m.refuses for m in look.seen)

    def test_what_a_host_is_asked_for(self, cluster: EtcdCluster) -> None:
        m = cluster.members[0]
        probe = guard._probe(cluster, m)
        assert {r.path for r in probe.resources if isinstance(r, File)} == {
            "/etc/etcd/last-seen",
            "/etc/etcd/etcd.conf.yml",
            layout.UNIT_PATH,
        }
        assert probe.paths == ("/var/lib/etcd/member", "/var/lib/etcd/unfinished")
        assert probe.kinds == Kind.ADDRESSES  # at which of them it listens


def test_what_is_read_of_a_silent_members_data_is_read_as_its_owner() -> None:
    told = guard._disk_commands(builders.etcd(), builders.member(1))
    assert all("setpriv --reuid etcd" in command for command in told.values())


@pytest.mark.process
def test_a_database_whose_size_is_not_known_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "member/snap").mkdir(parents=True)
    (tmp_path / "member/snap/db").write_text("x")
    tools = {"setpriv": 'shift 5; exec "$@"', "mktemp": "echo copied >&2; exit 1"}
    for name, text in {**tools, "du": "exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    member = replace(builders.member(1), data_dir=str(tmp_path))
    told = guard._disk_commands(builders.etcd(member), member)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    def ask() -> str:
        command = told["snapshot status"]
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=env).stderr

    assert "copied" not in ask()
    (tmp_path / "du").unlink()
    assert "copied" in ask()


def test_what_a_silent_member_says() -> None:
    assert guard.revision('noise\n{"hash":1,"revision":42,"totalKey":3}\n') == 42
    assert guard.revision("sh: 1: etcdutl: not found") is None
