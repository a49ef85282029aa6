from __future__ import annotations

import dataclasses
import io
import re
import sys
from collections.abc import Iterator

import pytest
from rich.console import Console

from provision.alluxio.commands.nodes import InfoNodes
from provision.alluxio.commands.read import ReadProof
from provision.check_nodes import CheckReport, NodeVerdict, State
from provision.check_nodes import table as screen_report
from provision.errors import Problem
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from tests.unit.test_check import LIVE, STATUS, A, healthy, report


def drawn(shown: CheckReport, capsys: pytest.CaptureFixture[str]) -> list[str]:
    screen_report.check(shown)
    out, err = capsys.readouterr()
    assert err == ""
    return [line.rstrip() for line in out.splitlines()]


def test_a_healthy_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    lines = drawn(report(LIVE), capsys)
    assert lines[0].split() == [
        *("etcd", "member", "endpoint", "health", "role", "version"),
        *("revision", "db", "size", "alarms", "certificate"),
    ]
    assert lines[2].split() == [
        *("infra1", "http://10.0.0.1:2379", "healthy", "leader", "3.6.16"),
        *("9", "20", "kB", "-", "-"),
    ]
    assert " follower " in lines[3]
    row = next(line for line in lines if line.startswith("w1 "))
    assert row.split() == ["w1", "w1:29999", "LIVE", A, "ONLINE"]
    assert lines[-2] == (
        "etcd: 3 of 3 members healthy (quorum 2), leader infra1; "
        "a worker that dies shows as FAILED within 120 s"
    )
    assert lines[-1] == "1 worker: 1 LIVE"


def test_numbers_end_below_the_end_of_their_heading(capsys: pytest.CaptureFixture[str]) -> None:
    heading, _, row, *_ = drawn(report(LIVE), capsys)
    for title, number in (("revision", "9"), ("db size", "20 kB"), ("certificate", "-")):
        end = heading.index(title) + len(title)
        assert row[:end].endswith(f"  {number}"), title
    assert row.index("-") == heading.index("alarms")


def test_what_the_hosts_say_has_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    assert not any("ready" in line.lower() for line in drawn(report(LIVE), capsys))
    nodes = (
        LIVE._replace(ready=True),
        LIVE._replace(name="w2", ready=False),
        LIVE._replace(name="w3"),
    )
    lines = drawn(report(*nodes), capsys)
    assert [line.split()[2:5] for line in lines if line.startswith("w")] == [
        ["state", "ready", "worker"],
        ["LIVE", "READY", A],
        ["LIVE", "NOT", "READY"],
        ["LIVE", "-", A],
    ]


def test_before_the_first_start(capsys: pytest.CaptureFixture[str]) -> None:
    found = NodeVerdict("w1", "w1", 29999, State.NOT_INSTALLED, notes=("not installed yet",))
    nobody = InfoNodes("w1", error="Alluxio is not installed yet", installed=False)
    lines = drawn(report(found, info_nodes=nobody), capsys)
    row = next(line for line in lines if line.startswith("w1 "))
    assert row.split() == ["w1", "w1:29999", "NOT_INSTALLED", "-", "-", "not", "installed", "yet"]


def test_the_read_is_told_above_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    proof = ReadProof("/f", "w1", 7, "a" * 64, "w2", False)
    lines = drawn(report(LIVE, read=proof), capsys)
    assert lines[-2] == (
        f"read of /f: 7 bytes served by w2 (w2), which has not cached it; sha256 {'a' * 64}"
    )
    failed = dataclasses.replace(proof, error="on w1: no")
    assert drawn(report(LIVE, read=failed), capsys)[-2] == "read of /f: failed"


def test_nothing_is_cut_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    note = "a note that is long " * 30
    lines = drawn(report(LIVE._replace(host="h" * 200, notes=(note,))), capsys)
    row = next(line for line in lines if line.startswith("w1 "))
    assert note.strip() in row
    assert "h" * 200 + ":29999" in row


def test_everything_wrong_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    seen = healthy()
    status = dataclasses.replace(STATUS, errors=("memberID:1 alarm:NOSPACE ",), leader=1)
    sick = MemberHealth(seen.members[1].member, error="connection refused")
    etcd = ClusterHealth(
        seen.cluster, (MemberHealth(seen.members[0].member, "tunnel", status), sick)
    )
    stranger = NodeVerdict(None, "", 0, State.UNKNOWN, "x", None, ("one", "two"))
    lines = drawn(
        report(
            LIVE._replace(state=State.FAILED, info_nodes=None),
            stranger,
            etcd=etcd,
            info_nodes=InfoNodes("w1", error="w1: did not answer in 15 s"),
            view_problems=(
                Problem("etcd", "later", "", "warning", id="disk-full"),
                Problem("info nodes", "w1: did not answer in 15 s", id="info-nodes-failed"),
            ),
        ),
        capsys,
    )
    text = "\n".join(lines)
    assert "UNHEALTHY" in text
    assert "NOSPACE" in text
    assert "http://10.0.0.1:2379 (ssh)" in text
    assert "FAILED" in text
    assert "no answer" in text
    row = lines.index(next(line for line in lines if line.startswith("(not in the inventory)")))
    assert lines[row].endswith("- one")
    assert lines[row + 1].strip() == "- two"
    said = [line for line in lines if line.startswith(("error: ", "warning: "))]
    assert said == [
        "error: info nodes: w1: did not answer in 15 s [info-nodes-failed]",
        "error: etcd member infra1: alarm NOSPACE "
        "(invoke defrag-etcd --compact and invoke disarm-alarms; or raise "
        "etcd.settings.quota-backend-bytes and invoke deploy-etcd) [alarm-nospace]",
        "error: etcd member infra2: connection refused [member-down]",
        "warning: etcd: later [disk-full]",
    ]
    assert lines[-1] == "1 worker: 1 FAILED; 1 not in the inventory"


def test_of_many_workers_those_that_are_not_well_are_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    nodes = [LIVE._replace(name=f"w{i}", host=f"w{i}") for i in range(500)]
    nodes[17] = nodes[17]._replace(state=State.FAILED)
    short = Console(width=200, soft_wrap=True)
    short.print(screen_report.drawn(report(*nodes), every=False))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [line.split()[0] for line in lines if ":29999" in line] == ["w17"]
    assert "499 without problems are not listed (--all lists them)" in lines
    assert lines[-1] == "500 workers: 499 LIVE, 1 FAILED"


def test_markup_from_elsewhere_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    lines = drawn(report(LIVE._replace(worker_id="[red]x[/red] :boom:")), capsys)
    assert any("[red]x[/red] :boom:" in line for line in lines)


def test_colour_on_a_terminal_and_not_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown() -> str:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        screen_report.check(report(LIVE))
        return terminal.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32mLIVE" in shown()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in shown()


def test_an_encoding_without_line_drawing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    screen_report.check(report(LIVE._replace(worker_id="Wörker…")))
    sys.stdout.flush()
    assert b"W?rker?" in raw.getvalue()


def looks() -> Iterator[CheckReport]:
    yield report(LIVE)
    yield report(LIVE, seconds=1.0)
    yield report(LIVE._replace(state=State.FAILED))
    raise KeyboardInterrupt


def test_watch_in_a_pipe_shows_every_change(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        screen_report.watch(looks())
    out = capsys.readouterr().out
    assert out.count("Ctrl-C ends") == 2
    assert "1 worker: 1 FAILED" in out


def test_watch_on_a_terminal_gives_the_screen_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    for name, value in (("TERM", "xterm"), ("COLUMNS", "200"), ("LINES", "50")):
        monkeypatch.setenv(name, value)
    with pytest.raises(KeyboardInterrupt):
        screen_report.watch(looks())
    _, during, after = re.split(r"\x1b\[\?1049[hl]", terminal.getvalue())
    assert during.index("1 worker: 1 FAILED") < during.rindex("infra1")
    assert "1 worker: 1 FAILED" in after
    assert "Ctrl-C" not in after


def test_a_column_that_is_still_to_come(capsys: pytest.CaptureFixture[str]) -> None:
    lines = drawn(report(LIVE._replace(info_nodes=None), info_nodes=None), capsys)
    assert next(line for line in lines if line.startswith("w1 ")).endswith(" ...")
