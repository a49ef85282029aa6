"""The read through a worker: its script by a real shell, and what its answers mean."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from provision.alluxio.commands import alluxio_cli, read
from provision.errors import UsageError
from provision.host import safely
from provision.inventory.membership_type import MembershipType
from provision.inventory.resolved import AlluxioCluster, Machine
from provision.ssh.session import Fleet, Result, Stats, Unreachable
from tests.unit import builders
from tests.unit.hosts import ME, LocalFleet

SECRET = b"what the file holds\n"
#: As Alluxio 313 prints it (class ``LocationCommand``).
LOCATION = (
    '{"mFileName":"file:///srv/f","mPreferredWorker":"w2","mDataOnPreferredWorker":true,'
    '"mWorkersThatHaveData":["w2"]}'
)


@pytest.fixture
def cluster(tmp_path: Path) -> AlluxioCluster:
    """Workers w1 and w2, whose ``bin/alluxio`` is the script that :func:`tool` writes."""
    return builders.alluxio(install_dir=str(tmp_path), user=ME)


def tool(cluster: AlluxioCluster, **commands: str) -> Path:
    """``bin/alluxio``: what ``fs head``, ``stat`` and ``location`` do. Returns the log of calls."""
    path = Path(alluxio_cli.executable(cluster))
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.parent / "log"
    cases = "".join(f"{name}) {body};;\n" for name, body in commands.items())
    path.write_text(f'#!/bin/sh\necho "$*" >>{log}\ncase $2 in\n{cases}esac\n')
    path.chmod(0o755)
    return log


@pytest.fixture(autouse=True)
def no_other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the user of this test, who may not become another."""
    command = alluxio_cli.command

    def own(*given: object) -> str:
        return command(*given).replace(safely.become(ME), "")  # type: ignore[arg-type]

    monkeypatch.setattr(alluxio_cli, "command", own)


def prove(cluster: AlluxioCluster, folder: Path, path: str = "/f") -> read.ReadProof:
    (folder / "hosts").mkdir(exist_ok=True)
    return read.prove(LocalFleet(folder / "hosts"), cluster, path, timeout=5)


@pytest.mark.process
def test_a_read_that_succeeds(cluster: AlluxioCluster, tmp_path: Path) -> None:
    content = shlex.quote(SECRET.decode())
    log = tool(cluster, head=f"printf %s {content}", location=f"echo noise; echo '{LOCATION}'")
    found = prove(cluster, tmp_path, "/a b'$(id)/f")
    assert (found.size, found.sha256) == (len(SECRET), hashlib.sha256(SECRET).hexdigest())
    assert (found.worker, found.cached, found.error) == ("w2", True, "")
    assert found.problem(cluster) is None
    assert found.line(cluster).startswith(
        "read of /a b'$(id)/f: 20 bytes served by w2 (w2), which caches it; sha256 "
    )
    options = "-D alluxio.dora.client.ufs.fallback.enabled=false"
    options += " -D alluxio.user.client.cache.enabled=false"
    assert log.read_text().splitlines() == [
        f"fs head -c 1048576 /a b'$(id)/f {options}",
        f"fs location /a b'$(id)/f {options}",
    ]
    assert SECRET.decode().strip() not in json.dumps(found.document())


@pytest.mark.process
def test_no_more_than_the_limit_counts(cluster: AlluxioCluster, tmp_path: Path) -> None:
    tool(cluster, head='head -c "$4" /dev/zero', location="exit 1")
    found = prove(cluster, tmp_path)
    assert found.size == read.LIMIT
    assert found.sha256 == hashlib.sha256(bytes(read.LIMIT)).hexdigest()
    assert (found.worker, found.cached) == (None, None)
    assert "a worker that `fs location` did not name" in found.line(cluster)


@pytest.mark.process
def test_what_a_failed_read_printed_is_not_shown(cluster: AlluxioCluster, tmp_path: Path) -> None:
    head = "echo 'what the file holds'; echo exit status 255 >&2; exit 1"
    log = tool(cluster, head=head, stat="echo 'Path \"/f\" does not exist.'; exit 1")
    found = prove(cluster, tmp_path)
    assert found.error == 'on w1: Path "/f" does not exist.'
    assert "stat --path /f" in log.read_text()
    tool(cluster, head=head, stat="echo '/f is a file path.'")
    found = prove(cluster, tmp_path)
    assert (
        found.error == "on w1: its status can be read, but its data cannot be read: exit status 255"
    )
    tool(cluster, head=head, stat="echo '/f is a directory path.'")
    assert prove(cluster, tmp_path).error == "on w1: it is a directory: name a file"


@pytest.mark.process
def test_an_empty_file_proves_nothing(cluster: AlluxioCluster, tmp_path: Path) -> None:
    tool(cluster, head=":")
    problem = prove(cluster, tmp_path).problem(cluster)
    assert problem is not None
    assert "the file is empty, so the read proves nothing" in problem.what


@pytest.mark.process
def test_a_read_that_hangs_is_bounded(cluster: AlluxioCluster, tmp_path: Path) -> None:
    tool(cluster, head="exec sleep 30")
    (tmp_path / "hosts").mkdir()
    found = read.prove(LocalFleet(tmp_path / "hosts"), cluster, "/f", timeout=0.1)
    assert found.error == "on w1: the file was not read in 1 s"


@pytest.mark.process
def test_nothing_is_left_on_the_host(
    cluster: AlluxioCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    tool(cluster, head="echo x", location="exit 1")
    assert prove(cluster, tmp_path).size == 2
    assert list(scratch.iterdir()) == []


@pytest.mark.process
def test_before_the_first_start(cluster: AlluxioCluster, tmp_path: Path) -> None:
    found = prove(cluster, tmp_path)
    assert found.error == "w1: Alluxio is not installed yet; w2: Alluxio is not installed yet"


@pytest.mark.process
def test_with_membership_static_the_problem_says_why(tmp_path: Path) -> None:
    static = builders.alluxio(install_dir=str(tmp_path), user=ME, membership=MembershipType.STATIC)
    tool(static, head="exit 1", stat="echo The preferred worker is not active.; exit 1")
    problem = prove(static, tmp_path).problem(static)
    assert problem is not None
    assert (problem.id, problem.where) == ("read-failed", "read of /f")
    assert problem.what == "on w1: The preferred worker is not active."
    assert "no client of Alluxio 313 uses a worker of membership STATIC" in problem.remedy


class _Hosts(Fleet):
    def __init__(self, **answers: Callable[[], Result]) -> None:
        super().__init__(2, Stats())
        self.answers = answers

    def session(self, machine: Machine):  # type: ignore[no-untyped-def]
        answers = self.answers

        class Session:
            def __init__(self) -> None:
                self.machine = machine

            def run(self, script: str, what: str, *, timeout: float) -> Result:
                if what == "fs head":
                    return answers[machine.host]()
                return Result(0, LOCATION + "\n", "", 0.1)

        return Session()


def away() -> Result:
    raise Unreachable("w1 (x:1): login refused", id="ssh-login-refused")


def test_another_host_is_asked_when_one_cannot_be_reached() -> None:
    done = Result(0, f"read 0 7 {'a' * 64}\n", "", 0.1)
    found = read.prove(_Hosts(w1=away, w2=lambda: done), builders.alluxio(), "/f")
    assert (found.host, found.size, found.worker) == ("w2", 7, "w2")


@pytest.mark.parametrize("text", ["", "read 0 7 x", "read x 7 " + "a" * 64, "\x1b[2J\n", "read 0"])
def test_an_answer_of_another_form_is_an_error(text: str) -> None:
    found = read.prove(_Hosts(w1=lambda: Result(0, text, "", 0.1)), builders.alluxio(), "/f")
    assert found.error.startswith("on w1: ")
    assert "\x1b" not in found.error


@pytest.mark.parametrize("path", ["/f", "/a b/ü", "s3://bucket/f", "alluxio://h:1/f", "/-D"])
def test_paths_that_can_be_named(path: str) -> None:
    assert read.checked(path) == path


@pytest.mark.parametrize(
    "path", ["f", "-D", "--help", "/a*", "/a\nb", "/\x1b[2J", "/" + "x" * 4096]
)
def test_paths_that_cannot(path: str) -> None:
    with pytest.raises(UsageError, match="--read is the path of one file"):
        read.checked(path)
