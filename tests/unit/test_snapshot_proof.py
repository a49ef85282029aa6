"""A snapshot is not proven: whether the file is at fault, or the host on which it was tried."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.errors import PreflightFailed, Problem, Unhealthy
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import Endpoint
from provision.etcd.cluster import scratch
from provision.etcd.cluster.handle import Etcd
from provision.inventory.resolved import EtcdMember
from provision.plans.etcd.data import snapshot_proof
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
