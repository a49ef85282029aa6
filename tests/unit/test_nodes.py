from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from provision.alluxio.commands import alluxio_cli, nodes
from provision.alluxio.commands.nodes import NodeRow, NodesError, parse_info_nodes
from provision.inventory.resolved import Machine
from provision.ssh.session import Fleet, Result, Stats, Unreachable
from tests.unit.builders import alluxio, worker
from tests.unit.hosts import ME, shell

DATA = Path(__file__).parent / "data" / "alluxio-313"
TABLE = (DATA / "info-nodes-online.txt").read_text()


def test_the_recorded_tables() -> None:
    online = parse_info_nodes(TABLE)
    assert [(r.worker_id, r.host, r.port, r.status) for r in online] == [
        ("worker-11111111-2222-3333-4444-555555555555", "worker1.example.com", 31000, "ONLINE"),
        ("worker-99999999-2222-3333-4444-555555555555", "worker2.example.com", 31010, "ONLINE"),
    ]
    assert online[0].address == "worker1.example.com:31000"
    offline = parse_info_nodes((DATA / "info-nodes-offline.txt").read_text())
    assert [r.status for r in offline] == ["ONLINE", "OFFLINE"]
    static = parse_info_nodes((DATA / "info-nodes-static.txt").read_text())
    assert {r.status for r in static} == {"N/A"}
    assert static[0].worker_id == "164125e19a3620a558cf6b398737c1fc"


def test_an_exception_is_an_error_whatever_the_exit_code() -> None:
    with pytest.raises(NodesError, match="Exhausted retry for"):
        parse_info_nodes((DATA / "info-nodes-exception.txt").read_text())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "printed nothing"),
        ("\n \n", "printed nothing"),
        ("bash: no such\x1b[0m file\n", "printed no table: bash: no such\ufffd"),
    ],
)
def test_no_table_is_an_error(text: str, message: str) -> None:
    with pytest.raises(NodesError) as caught:
        parse_info_nodes(text)
    assert caught.value.message.startswith(message)


def test_log_lines_around_the_table_are_skipped() -> None:
    noise = "2026-01-01 WARN  deprecated key\nSLF4J: no binder\n"
    assert parse_info_nodes(noise + TABLE + "bye\n") == parse_info_nodes(TABLE)


def test_an_address_in_another_form_is_kept() -> None:
    text = "WorkerId\tAddress\tStatus\r\nw1\thost-only\tONLINE\r\nw2\t[fd00::1]:29999\tOFFLINE\r\n"
    assert parse_info_nodes(text) == [
        NodeRow("w1", "host-only", 0, "ONLINE"),
        NodeRow("w2", "[fd00::1]", 29999, "OFFLINE"),
    ]


def test_an_empty_table_is_an_answer() -> None:
    assert parse_info_nodes("WorkerId\tAddress\tStatus\n\n") == []


@pytest.mark.process
def test_the_command_is_bounded_and_reads_nothing() -> None:
    command = alluxio_cli.command(alluxio(), nodes.WORDS, 14.2)
    assert command == (
        "timeout -k 2 15 9>&- setpriv --reuid alluxio --regid alluxio --init-groups "
        "/opt/alluxio/current/bin/alluxio info nodes </dev/null"
    )
    subprocess.run(["sh", "-n"], input=command, text=True, check=True)


class Hosts(Fleet):
    """Hosts that answer with a canned result each, by name."""

    def __init__(self, **answers: Callable[[], Result]) -> None:
        super().__init__(2, Stats())
        self.answers = answers
        self.asked: list[str] = []
        self.given: list[float] = []

    def session(self, machine: Machine):  # type: ignore[no-untyped-def]
        return _Session(self, machine)


class _Session:
    def __init__(self, hosts: Hosts, machine: Machine) -> None:
        self._hosts, self.machine = hosts, machine

    def run(self, script: str, what: str, *, timeout: float) -> Result:
        self._hosts.asked.append(f"{self.machine.host}: {what}")
        self._hosts.given.append(timeout)
        return self._hosts.answers[self.machine.host]()


def printed(stdout: str, stderr: str = "", code: int = 0) -> Callable[[], Result]:
    return lambda: Result(code, stdout, stderr, 0.1)


def unreachable() -> Result:
    raise Unreachable("host1 (x:1): login refused", id="ssh-login-refused")


CLUSTER = alluxio(worker("a", "host1"), worker("b", "host1"), worker("c", "host2"))
LARGE = alluxio(*(worker(f"w{n}", f"host{n}") for n in range(1, 6)))
missing = printed(alluxio_cli.NOT_INSTALLED + "\n", code=1)
#: As a real Alluxio 313 prints it without a master address; the stack is the Go program's.
REFUSED = printed(
    "Cannot run Alluxio fsadmin shell; master hostname is not configured.\n",
    "Error: exit status 1\n --- at alluxio.org/cli/env/command.go:130 (RunWithIO) ---\n",
    1,
)


def test_the_first_host_answers() -> None:
    fleet = Hosts(host1=printed(TABLE))
    answer = nodes.ask(fleet, CLUSTER)
    assert (answer.host, len(answer.rows), answer.error) == ("host1", 2, "")
    assert fleet.asked == ["host1: info nodes"]


@pytest.mark.parametrize(
    "first",
    [unreachable, printed("Exception happened: x"), printed("", "no java here", 1), missing],
)
def test_the_second_host_is_asked_when_the_first_fails(first: Callable[[], Result]) -> None:
    fleet = Hosts(host1=first, host2=printed(TABLE))
    answer = nodes.ask(fleet, CLUSTER)
    assert (answer.host, len(answer.rows), answer.error) == ("host2", 2, "")
    assert answer.without == ({Machine("host1")} if first is missing else set())
    assert fleet.asked == ["host1: info nodes", "host2: info nodes"]


def test_all_that_was_said_is_reported() -> None:
    fleet = Hosts(host1=unreachable, host2=printed("", "no java here\nmore", 1))
    answer = nodes.ask(fleet, CLUSTER)
    assert answer.rows == ()
    assert answer.error == "host1 (x:1): login refused; host2: failed: no java here"
    assert answer.installed


def test_the_reason_is_shown_from_where_it_stands() -> None:
    answer = nodes.ask(Hosts(host1=REFUSED, host2=REFUSED), CLUSTER)
    said = "failed: Cannot run Alluxio fsadmin shell; master hostname is not configured."
    assert answer.error == f"host1: {said}; host2: {said}"


def test_a_shell_that_names_long_paths_first_is_heard_out() -> None:
    """As a real tarball without its own program answered."""
    script, program = (
        "current/bin/alluxio: line 29: /opt/alluxio/current",
        "alluxioCli-Linux-x86_64",
    )
    said = f"/opt/alluxio/{script}/cli/src/alluxio.org/cli/bin/{program}: No such file or directory"
    answer = nodes.ask(Hosts(host1=printed("", said, 127), host2=printed("", said, 127)), CLUSTER)
    assert answer.error == f"host1: failed: {said}; host2: failed: {said}"


def test_what_a_jvm_says_of_its_options_is_no_reason() -> None:
    said = "Picked up JAVA_TOOL_OPTIONS: -Dx=y\nno room for the heap\n"
    answer = nodes.ask(Hosts(host1=printed("", said, 1), host2=printed("", said, 1)), CLUSTER)
    assert answer.error.startswith("host1: failed: no room for the heap; ")


def test_a_slow_host_is_not_waited_for_when_a_second_answers() -> None:
    ended = threading.Event()

    def hang() -> Result:
        assert ended.wait(30)
        return Result(0, "", "", 30.0)

    fleet = Hosts(host1=hang, host2=printed(TABLE))
    try:
        before = set(threading.enumerate())
        answer = nodes.ask(fleet, CLUSTER, timeout=0.03)
        # Python's end waits for every other thread.
        assert [t.daemon for t in threading.enumerate() if t not in before] == [True]
    finally:
        ended.set()
    assert (answer.host, answer.error) == ("host2", "")


def test_each_host_has_a_limit_of_its_own() -> None:
    hung = printed("", code=124)
    fleet = Hosts(host1=hung, host2=hung)
    answer = nodes.ask(fleet, CLUSTER, timeout=15)
    assert answer.error == "host1: did not answer in 15 s; host2: did not answer in 15 s"
    assert fleet.given == [15 + alluxio_cli.KILL_AFTER + alluxio_cli.MARGIN] * 2


def test_before_the_first_start_it_is_not_installed_and_not_failed() -> None:
    fleet = Hosts(host1=missing, host2=missing)
    answer = nodes.ask(fleet, CLUSTER)
    assert (answer.error, answer.installed) == ("Alluxio is not installed yet", False)
    assert answer.without == {Machine("host1"), Machine("host2")}


def test_a_host_that_has_it_is_found_behind_those_that_have_not() -> None:
    fleet = Hosts(
        host1=missing, host2=missing, host3=missing, host4=printed(TABLE), host5=printed(TABLE)
    )
    answer = nodes.ask(fleet, LARGE)
    assert (answer.host, len(answer.rows)) == ("host4", 2)
    assert answer.without == {Machine(f"host{n}") for n in (1, 2, 3)}


def test_an_unreachable_host_beside_one_without_alluxio_is_a_failure() -> None:
    answer = nodes.ask(Hosts(host1=unreachable, host2=missing), CLUSTER)
    assert (answer.error, answer.installed) == ("host1 (x:1): login refused", True)


@pytest.mark.process
@pytest.mark.parametrize("there", [True, False])
def test_the_installation_is_looked_for_by_a_real_shell(tmp_path: Path, there: bool) -> None:
    here = alluxio(install_dir=str(tmp_path), user=ME)
    tool = Path(alluxio_cli.executable(here))
    if there:
        tool.parent.mkdir(parents=True)
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)
    script = f"{alluxio_cli.installed(here)} || echo {alluxio_cli.NOT_INSTALLED}"
    assert shell(script, tmp_path).stdout == ("" if there else f"{alluxio_cli.NOT_INSTALLED}\n")
    nobody = alluxio(install_dir=str(tmp_path), user="no-such-user")
    assert shell(f"{alluxio_cli.installed(nobody)} || echo no", tmp_path).stdout == "no\n"
