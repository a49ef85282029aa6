from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from provision.alluxio import nodes
from provision.alluxio.nodes import NodeRow, NodesError, parse_info_nodes
from provision.inventory.resolved import Machine
from provision.remote import Fleet, Result, Stats, Unreachable
from tests.unit.builders import alluxio, worker

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


def test_the_command_is_bounded_and_reads_nothing(tmp_path: Path) -> None:
    command = nodes.command(alluxio(), 14.2)
    assert command == (
        "runuser -u alluxio -- timeout -k 2 15 "
        "/opt/alluxio/current/bin/alluxio info nodes </dev/null"
    )
    subprocess.run(["sh", "-n"], input=command, text=True, check=True)


class Hosts(Fleet):
    """Hosts that answer with a canned result each."""

    def __init__(self, *answers: Callable[[], Result]) -> None:
        super().__init__(2, Stats())
        self.answers = list(answers)
        self.asked: list[str] = []

    def session(self, machine: Machine):  # type: ignore[no-untyped-def]
        self.asked.append(machine.host)
        return self

    def run(self, script: str, what: str, *, timeout: float) -> Result:
        return self.answers.pop(0)()


def printed(stdout: str, stderr: str = "", code: int = 0) -> Callable[[], Result]:
    return lambda: Result(code, stdout, stderr, 0.1)


def unreachable() -> Result:
    raise Unreachable("host1 (x:1): login refused", id="ssh-login-refused")


CLUSTER = alluxio(worker("a", "host1"), worker("b", "host1"), worker("c", "host2"))


def test_the_first_host_answers() -> None:
    fleet = Hosts(printed(TABLE))
    answer = nodes.ask(fleet, CLUSTER)
    assert (answer.host, len(answer.rows), answer.error) == ("host1", 2, "")
    assert fleet.asked == ["host1"]


@pytest.mark.parametrize(
    "first", [unreachable, printed("Exception happened: x"), printed("", "no java here", 1)]
)
def test_the_second_host_is_asked_when_the_first_fails(first: Callable[[], Result]) -> None:
    fleet = Hosts(first, printed(TABLE))
    answer = nodes.ask(fleet, CLUSTER)
    assert (answer.host, len(answer.rows), answer.error) == ("host2", 2, "")
    assert fleet.asked == ["host1", "host2"]


def test_all_that_was_said_is_reported() -> None:
    answer = nodes.ask(Hosts(unreachable, printed("", "no java here\nmore", 1)), CLUSTER)
    assert answer.rows == ()
    assert answer.error == "host1 (x:1): login refused; host2: failed: no java here"


def test_a_host_that_hung_is_not_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("provision.alluxio.nodes.time.monotonic", lambda: now[0])

    def hang() -> Result:
        now[0] += 15.0
        return Result(124, "", "", 15.0)

    fleet = Hosts(hang)
    answer = nodes.ask(fleet, CLUSTER, timeout=15)
    assert answer.error == "host1: did not answer in 15 s"
    assert fleet.asked == ["host1"]
