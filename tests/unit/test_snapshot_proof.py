"""A snapshot is not proven: whether the file is at fault, or the host on which it was tried."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision import bounds
from provision.errors import PreflightFailed, Problem, Unhealthy, UsageError
from provision.etcd.api import paging
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import Endpoint, KeyValue, Login, MemberStatus
from provision.etcd.cluster import scratch
from provision.etcd.cluster.handle import Etcd
from provision.inventory.membership_type import MembershipType
from provision.inventory.resolved import EtcdMember
from provision.plans.etcd.data import backup_etcd, snapshot_proof
from provision.plans.etcd.data.snapshot_proof import Proof
from provision.ssh.session import Fleet
from tests.unit import builders, hosts

CLUSTER = builders.etcd()
GOOD = Proof("infra3", 7, 3, ("c",), auth=False, accepted=True)
FULL = PreflightFailed("full", [Problem("infra1", "is full", id="disk-full")], id="disk-full")
BAD = Unhealthy("bad", [Problem("infra1", "panic", id="backup-unproven")], id="backup-unproven")
CRASHED = EtcdUnreachable(Endpoint("127.0.0.1", 1), Reason.CLOSED)


def fault(what: str) -> Unhealthy:
    return scratch._unusable(CLUSTER.members[0], what, by_host=True)


@pytest.mark.parametrize(
    ("outcomes", "tried", "id"),
    [
        ([GOOD], 1, ""),
        ([fault("killed"), FULL, GOOD], 3, ""),
        ([fault("killed"), fault("noexec"), fault("hangs")], 3, "backup-unproven"),
        ([FULL, FULL, fault("hangs")], 3, "backup-unproven"),
        ([FULL, FULL, FULL], 3, "disk-full"),
        ([fault("killed"), BAD], 2, "snapshot-invalid"),
        ([CRASHED], 1, "snapshot-invalid"),
    ],
)
def test_a_hosts_fault_is_not_the_files(
    outcomes: list[Any], tried: int, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def prove(_: object, member: EtcdMember, *__: object) -> Proof:
        asked.append(member.name)
        outcome = outcomes[len(asked) - 1]
        if isinstance(outcome, Proof):
            return outcome
        raise outcome

    monkeypatch.setattr(snapshot_proof, "_prove", prove)
    with Fleet(1) as fleet:
        etcd = Etcd(CLUSTER, fleet)
        if not id:
            assert snapshot_proof.prove(etcd, Path("x.db"), "", None) is GOOD
        else:
            with pytest.raises(PreflightFailed) as refused:
                snapshot_proof.prove(etcd, Path("x.db"), "", None)
            assert refused.value.id == id
            blames_file = any("use another backup" in p.remedy for p in refused.value.problems)
            assert blames_file is (id == "snapshot-invalid")
    assert len(asked) == tried


@pytest.mark.parametrize(
    ("said", "by_host"),
    [
        ("Error: write /var/tmp/x/db: no space left on device", True),
        ("setpriv: failed to execute /opt/etcd/etcdutl: Permission denied", True),
        ("sh: 7: /opt/etcd/3.6.16/etcdutl: not found", True),
        ("fork/exec: resource temporarily unavailable", True),
        ("listen tcp 127.0.0.1:20001: bind: address already in use", True),
        ("Error: snapshot file integrity check failed: expected [1 2], got [3 4]", False),
        ("panic: invalid page type: 0: 4", False),
        ("unexpected fault address 0x7f: fatal error: fault", False),
        ("", False),
    ],
)
def test_what_a_host_says_of_itself(said: str, by_host: bool) -> None:
    assert scratch._is_hosts(said) is by_host


class Here:
    """A session whose commands run on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, script: str, *_: object) -> Any:
        return hosts.shell(script, self.folder)


@pytest.fixture
def process() -> Iterator[Any]:
    started: list[subprocess.Popen[bytes]] = []

    def start(command: str) -> int:
        started.append(subprocess.Popen(["sh", "-c", command]))
        return started[-1].pid

    yield start
    for one in started:
        one.kill()
        one.wait()


@pytest.mark.process
@pytest.mark.parametrize(
    ("command", "log", "by_host", "shown"),
    [
        ("exec sleep 60", "starting", True, "starting"),  # it hangs
        ("exit 2", "panic: invalid page", False, "panic: invalid page"),
        ("kill -9 $$", "starting", True, "it was killed, perhaps for lack of memory; starting"),
        ("exit 1", "cannot create: No space left on device", True, "No space left"),
        ("", "panic", False, "panic"),  # the process is gone
        ("exit 2", None, False, "its log says nothing"),
    ],
)
def test_why_a_scratch_member_does_not_serve(
    command: str, log: str | None, by_host: bool, shown: str, process: Any, tmp_path: Path
) -> None:
    if log is not None:
        (tmp_path / "log").write_text(f"{log}\n")
    if command:
        pid = process(command)
        (tmp_path / "pid").write_text(f"{pid}\n")
        stat = Path(f"/proc/{pid}/stat")
        until = time.monotonic() + 10
        wanted = " S " if "sleep" in command else " Z "
        while wanted not in stat.read_text() and time.monotonic() < until:
            pass
    session: Any = Here(tmp_path)
    said, found = scratch._why(session, str(tmp_path))
    assert found is by_host
    assert shown in said


INVENTORY = builders.inventory(etcd=CLUSTER)
STATUS = MemberStatus(1, 1, "3.6.16", 100, 50, 1, 9, 2, 30, False, ())
OURS = "/DHT/c/AUTHORIZED/w1"


class Scratch:
    """A scratch member with these keys. ``pages``: how many keys it gives at a time; ``hides``: how
    many keys it counts and does not give; ``auth``: authentication is on."""

    def __init__(self, *keys: str, pages: int = 2, hides: int = 0, auth: bool = False) -> None:
        self.keys = {key.encode(): b"{}" for key in keys}
        self.pages, self.hides, self.auth = pages, hides, auth
        self.calls: list[str] = []
        self.timeout = 0.0
        self.values: list[bytes] = []

    def interval(
        self, start: bytes, end: bytes, *, keys_only: bool = False, limit: int | None = None
    ) -> tuple[int, list[KeyValue]]:
        assert limit == paging.PAGE, "a read without a limit takes any amount of memory"
        there = sorted(k for k in self.keys if k >= start and (end == b"\0" or k < end))
        found = there[: self.pages]
        if not keys_only:
            self.values += found
        return 9, [KeyValue(k, b"" if keys_only else self.keys[k], 0, 1) for k in found]

    def count(self) -> int:
        return len(self.keys) + self.hides

    def log_in(self) -> bool:
        self.calls.append("log in")
        return self.auth

    def auth_enabled(self) -> bool:
        self.calls.append("is authentication on")
        return self.auth

    def hash_kv(self) -> None:
        self.calls.append("hash")


Prove = Callable[..., Proof]


@pytest.fixture
def prove(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Prove:
    """The proof of a file of 10 MiB that a scratch member serves."""
    file = tmp_path / "x.db"
    with file.open("wb") as stream:
        stream.truncate(2 * backup_etcd.HASHED_PER_SECOND)

    def of(
        served: Scratch, workers: Login | None = None, credentials: Login | None = None
    ) -> Proof:
        @contextlib.contextmanager
        def member(*_: object, timeout: float) -> Iterator[tuple[Scratch, MemberStatus]]:
            served.timeout = timeout
            yield served, STATUS

        def takes(_: object, login: Login) -> bool:
            return login.password == "right"

        monkeypatch.setattr(scratch, "member", member)
        monkeypatch.setattr(snapshot_proof, "_takes", takes)
        with Fleet(1) as fleet:
            etcd = Etcd(CLUSTER, fleet, login=credentials)
            return snapshot_proof.prove(etcd, file, "", workers)

    return of


class TestWhatIsRead:
    def test_every_key_page_by_page(self, prove: Prove) -> None:
        served = Scratch(
            OURS,
            "/DHT/other/AUTHORIZED/w1/x",
            "/DHT/no-slash",
            "/ServiceDiscovery/live/w2",
            "/elsewhere/DHT/x/",
            "a",
            pages=2,
        )
        proof = prove(served)
        assert (proof.keys, proof.revision, proof.member) == (6, 9, "infra1")
        # The next page begins directly after the last key.
        assert prove(Scratch("a", "a\0", "aA", "b", pages=1)).keys == 4
        assert proof.clusters == ("c", "live", "other")
        # Values are read of Alluxio's keys only.
        assert sorted(served.values) == sorted(
            k for k in served.keys if k.startswith((b"/DHT/", b"/ServiceDiscovery/"))
        )

    def test_an_empty_snapshot(self, prove: Prove) -> None:
        proof = prove(Scratch())
        assert (proof.keys, proof.clusters) == (0, ())

    def test_a_key_that_is_counted_and_not_given(self, prove: Prove) -> None:
        with pytest.raises(PreflightFailed) as refused:
            prove(Scratch(OURS, "a", hides=1))
        assert refused.value.id == "snapshot-invalid"
        assert "counts 3 keys and gives 2" in refused.value.problems[0].what

    @pytest.mark.parametrize("root", ["/DHT/", "/ServiceDiscovery/"])
    @pytest.mark.parametrize("last", [True, False])
    def test_a_value_with_zero_bytes(self, prove: Prove, root: str, last: bool) -> None:
        served = Scratch(*(f"{root}c/{n}" for n in range(5)))
        served.keys[f"{root}c/{4 if last else 0}".encode()] = b"{\0}"
        with pytest.raises(PreflightFailed) as refused:
            prove(served)
        assert "is damaged: it has zero bytes" in refused.value.problems[0].what
        # In keys of others it is their own value.
        others = Scratch("/DHT0", "/DHS/", OURS)
        others.keys |= {b"/DHT0": b"\0", b"/DHS/": b"\0"}
        assert prove(others).keys == 3

    def test_the_history_is_read_too(self, prove: Prove) -> None:
        served = Scratch(OURS)
        prove(served)
        assert "hash" in served.calls
        assert served.timeout == 32.0  # 10 MiB take two seconds


class Endless(Scratch):
    """A host that was taken over answers in the scratch member's place: its keys have no end. Each
    page comes after ``seconds`` of ``clock``."""

    def __init__(self, size: int, seconds: float = 0.0) -> None:
        super().__init__()
        self.size, self.seconds, self.now, self.given = size, seconds, 0.0, 0

    def interval(
        self, start: bytes, end: bytes, *, keys_only: bool = False, limit: int | None = None
    ) -> tuple[int, list[KeyValue]]:
        self.now += self.seconds
        assert self.given < 100_000, "no end"
        first = self.given
        self.given += 1000
        keys = (b"/DHT/%09d/" % n for n in range(first, self.given))
        return 9, [KeyValue(k.ljust(self.size, b"x"), b"", 0, 1) for k in keys]


class TestTheEnd:
    """The file's own size is the limit of what a scratch member may give of it."""

    def test_in_bytes(self, prove: Prove) -> None:
        endless = Endless(500)
        with pytest.raises(PreflightFailed) as refused:
            prove(endless)
        # The file has 10 MiB, and three hosts are tried.
        assert endless.given * 500 < 3 * (11 << 20)
        assert refused.value.id == "backup-unproven"
        what = refused.value.problems[0].what
        assert what == "the scratch member gives more than the file has: somebody answers for it"

    def test_in_seconds(self, prove: Prove, monkeypatch: pytest.MonkeyPatch) -> None:
        endless = Endless(20, seconds=200.0)
        monkeypatch.setattr(time, "monotonic", lambda: endless.now)
        with pytest.raises(PreflightFailed) as refused:
            prove(endless)
        assert endless.given == 3 * 4000
        assert refused.value.problems[0].what == "the scratch member gave no more keys in 640 s"

    def test_in_names(self, prove: Prove, monkeypatch: pytest.MonkeyPatch) -> None:
        """The inventory's own is never cut: without it the snapshot would be another cluster's."""
        monkeypatch.setattr(bounds, "CLUSTERS", 3)
        proof = prove(Scratch(OURS, *(f"/DHT/a{n}/AUTHORIZED/w" for n in range(5))))
        assert proof.clusters == ("a0", "a1", "a2", "c")
        assert proof.keys == 6


class TestTheLogin:
    ROOT, RIGHT, WRONG = Login("root", "x"), Login("w", "right"), Login("w", "wrong")

    def test_without_a_login_the_member_is_asked(self, prove: Prove) -> None:
        served = Scratch(OURS)
        proof = prove(served, self.WRONG)
        assert served.calls[0] == "is authentication on"
        assert (proof.auth, proof.accepted) == (False, True)

    def test_roots_login_is_tried(self, prove: Prove) -> None:
        served = Scratch(OURS, auth=True)
        proof = prove(served, None, self.ROOT)
        assert served.calls[0] == "log in"
        assert (proof.auth, proof.accepted) == (True, True)

    @pytest.mark.parametrize("accepted", [True, False])
    def test_the_workers_login_is_tried_where_authentication_is_on(
        self, prove: Prove, accepted: bool
    ) -> None:
        workers = self.RIGHT if accepted else self.WRONG
        assert prove(Scratch(auth=True), workers, self.ROOT).accepted is accepted


class TestWhoseSnapshotItIs:
    def warned(self, proof: Proof, *other: str, running: tuple[str, ...] = ()) -> list[str]:
        found = snapshot_proof.require_ours(INVENTORY, proof, other, running)
        return [p.id for p in found]

    def test_ours(self) -> None:
        assert self.warned(replace(GOOD, clusters=("b", "c"))) == []

    def test_of_another_only_when_it_is_named(self) -> None:
        theirs = replace(GOOD, clusters=("a", "b"))
        with pytest.raises(PreflightFailed, match="another Alluxio cluster") as refused:
            self.warned(theirs)
        assert "--other-cluster a" in refused.value.problems[0].remedy
        assert self.warned(theirs, "b") == []

    def test_a_cluster_of_the_running_etcd_may_be_named_too(self) -> None:
        assert self.warned(GOOD, "team", running=("team",)) == []
        with pytest.raises(PreflightFailed):
            self.warned(replace(GOOD, clusters=("a",)), "team", running=("team",))
        with pytest.raises(UsageError, match=r"team is in the snapshot: it has c$"):
            self.warned(GOOD, "team")
        with pytest.raises(UsageError, match=r"it has none$"):
            self.warned(replace(GOOD, clusters=()), "team")

    def test_of_nobody(self) -> None:
        nobody = replace(GOOD, clusters=())
        assert self.warned(nobody) == ["snapshot-other-cluster"]
        static = replace(INVENTORY, alluxio=builders.alluxio(membership=MembershipType.STATIC))
        assert snapshot_proof.require_ours(static, nobody, ()) == []
        alone = replace(INVENTORY, alluxio=None)
        assert len(snapshot_proof.require_ours(alone, nobody, ())) == 1


def test_a_host_that_cannot_say_why_is_at_fault_itself() -> None:
    class Gone:
        def run(self, *_: object) -> Any:
            raise Unhealthy("the host is gone", id="quorum-lost")

    session: Any = Gone()
    assert scratch._why(session, "/x") == ("the host is gone", True)
