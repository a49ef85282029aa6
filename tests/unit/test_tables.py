"""Tables at the widths of terminals: what gives way, and that no word is broken."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from provision import tables
from provision.alike import folded
from provision.check_nodes import NodeVerdict, State
from provision.check_nodes import table as screen_report
from provision.check_nodes.status import Service, Status
from provision.cli.command import perform
from provision.cli.run import Run
from provision.cli.tasks import cluster
from provision.errors import PreflightFailed, Problem
from provision.inventory.resolved import Machine
from tests.unit.test_check import LIVE, report

REPO = Path(__file__).parents[2]
WIDTHS = (40, 80, 120, 200)
ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def name(number: int) -> str:
    """A host of 35 characters."""
    return f"worker-{number:03}.rack-04.data.example.com"


def workers(count: int) -> list[NodeVerdict]:
    return [
        LIVE._replace(
            name=name(n), host=name(n), worker_id=ID[:-3] + f"{n:03}", info_nodes="ONLINE"
        )
        for n in range(count)
    ]


def drawn(what: RenderableType, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, soft_wrap=True, markup=False, highlight=False).print(what)
    return out.getvalue().splitlines()


def broken(lines: Sequence[str], whole: str) -> list[str]:
    """The words of ``lines`` that ``whole`` does not have, also not with a middle."""
    known = set(whole.split())
    found = []
    for word in (word for line in lines for word in line.split()):
        begin, dots, end = word.partition("…")
        good = (
            any(w.startswith(begin) and w.endswith(end) for w in known) if dots else word in known
        )
        if not (good or set(word) <= {"─"} or word.removesuffix(":") in known):
            found.append(word)
    return found


CHECKS: dict[str, Callable[[], list[NodeVerdict]]] = {
    "few": lambda: workers(5),
    "with notes": lambda: [
        *workers(3),
        *(
            w._replace(
                state=State.FAILED, notes=("its lease has ended", f"see invoke logs {w.name}")
            )
            for w in workers(6)[4:]
        ),
    ],
    "not in the inventory": lambda: [
        w._replace(name=None, state=State.UNKNOWN) for w in workers(2)
    ],
    "200": lambda: workers(200),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("nodes", CHECKS.values(), ids=CHECKS)
def test_no_word_is_broken_and_no_line_too_long(
    width: int, nodes: Callable[[], list[NodeVerdict]]
) -> None:
    shown = report(*nodes())
    whole = "\n".join(drawn(screen_report.drawn(shown, wide=True), width))
    lines = drawn(screen_report.drawn(shown), width)
    assert broken(lines, whole) == []
    assert [line for line in lines if len(line) > width and len(line.split()) > 1] == []


def test_the_middle_of_a_worker_id_goes_first() -> None:
    """Then it goes away: of a worker that is well, nobody needs it."""
    nodes = [w._replace(name=f"w{n}", host=f"w{n}") for n, w in enumerate(workers(2))]
    row = {w: drawn(screen_report.drawn(report(*nodes)), w) for w in (80, 60, 45)}
    assert any("  LIVE   0f8fad5b-d9cb-469f-a165-70867728900" in line for line in row[80])
    assert any(re.search(r"  LIVE   0f8f\S*…\S*9000  ONLINE$", line) for line in row[60])
    assert not any("0f8f" in line for line in row[45])
    assert any(line.startswith("w0      w0:29999  LIVE   ONLINE") for line in row[45])


def test_a_worker_that_is_not_well_keeps_its_id_and_address() -> None:
    bad = workers(1)[0]._replace(state=State.FAILED)
    bad = bad._replace(notes=("its lease has ended 3 s ago",))
    lines = drawn(screen_report.drawn(report(bad)), 80)
    at = lines.index("worker-000.rack-04.data.example.com  FAILED  ONLINE")
    assert lines[at + 1 : at + 4] == [
        "  address: worker-000.rack-04.data.example.com:29999",
        "  worker id: 0f8fad5b-d9cb-469f-a165-708677289000",
        "  notes: its lease has ended 3 s ago",
    ]


def test_wide_has_every_column_on_one_line() -> None:
    lines = drawn(screen_report.drawn(report(*workers(1)), wide=True), 40)
    (row,) = [line for line in lines if line.startswith("worker-000")]
    assert row.split() == [name(0), f"{name(0)}:29999", "LIVE", ID[:-3] + "000", "ONLINE"]


def test_of_many_on_a_terminal_those_that_are_not_well_with_one_line_for_a_cause() -> None:
    nodes = workers(200)
    for n in range(20, 90):
        note = f"not registered: invoke start-workers --limit {name(n)}"
        nodes[n] = nodes[n]._replace(state=State.UNREGISTERED, notes=(note,))
    nodes[150] = nodes[150]._replace(state=State.FAILED)
    shown = report(*nodes)
    lines = drawn(screen_report.drawn(shown, every=False), 80)
    assert "200 workers: 129 LIVE, 70 UNREGISTERED, 1 FAILED" in lines
    assert "70 workers: worker-020.rack-04.data.example.com,  UNREGISTERED" in " ".join(lines)
    assert "129 without problems are not listed (--all lists them)" in lines
    assert len([line for line in lines if "worker-150" in line]) == 2  # its row and its address
    assert len(lines) < 30
    every = drawn(screen_report.drawn(shown), 80)
    assert {line.split()[0] for line in every if line.startswith("worker-")} == {
        name(n) for n in range(200)
    }


def test_thirty_are_listed() -> None:
    lines = drawn(screen_report.drawn(report(*workers(30)), every=False), 80)
    assert sum(line.startswith("worker-") for line in lines) == 30


def test_a_pipe_gets_every_worker(capsys: pytest.CaptureFixture[str]) -> None:
    screen_report.check(report(*workers(200)))
    out = capsys.readouterr().out
    assert sum(line.startswith("worker-") for line in out.splitlines()) == 200
    cluster._show_check(Run("check-nodes", format="json"), report(*workers(200)), "", "")
    assert len(json.loads(capsys.readouterr().out)["alluxio"]["nodes"]) == 200


def services(count: int) -> Status:
    return Status(
        "c",
        tuple(
            Service(
                name(n),
                Machine(name(n)),
                "alluxio-worker.service",
                "c",
                error=f"{name(n)} (i.yml:{n}:1): connect: timed out" if n % 2 else "",
                active="active",
            )
            for n in range(count)
        ),
    )


PTY = """
import sys
sys.path.insert(0, ".")
from tests.unit import test_tables
test_tables.{what}
"""


def on_terminal(what: str, width: int, **environment: str) -> str:
    """What ``what`` writes on a terminal of ``width`` columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    given = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    given |= {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment}
    code = PTY.format(what=what)
    with subprocess.Popen([sys.executable, "-c", code], stdout=slave, cwd=REPO, env=given) as child:
        os.close(slave)
        said = b""
        while True:
            try:
                piece = os.read(master, 1 << 16)
            except OSError:  # the terminal's other end is closed
                break
            said += piece
        assert child.wait() == 0
    os.close(master)
    return said.decode().replace("\r\n", "\n")


def show_status() -> None:
    cluster.show_status(services(200), wide=False, every=False)


@pytest.mark.process
def test_the_status_of_many_on_a_terminal() -> None:
    said = on_terminal("show_status()", 80)
    assert "\x1b[1m" in said
    text = re.sub(r"\x1b\[[\d;]*m", "", said)
    assert "200 services: 100 active, 100 not asked" in text
    assert "100 services:" in text
    assert "\nworker-003.rack-04.data.example.com,\n" in text
    assert max(map(len, text.splitlines())) <= 80
    plain = on_terminal("show_status()", 80, NO_COLOR="1")
    assert not re.search(r"\x1b\[3\d", plain)


def test_the_status_of_many_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    show_status()
    assert len(capsys.readouterr().out.splitlines()) == 202


TEXTS = tables.Texts


@pytest.mark.parametrize("width", WIDTHS)
def test_a_fingerprint_is_never_shortened(width: int) -> None:
    """As trust-hosts shows them."""
    key = "SHA256:" + 43 * "x"
    columns = (
        TEXTS("name", words=True),
        TEXTS("address", gives=1),
        TEXTS("key", gives=2),
        TEXTS("fingerprint", gives=3),
        TEXTS("state"),
    )
    row = (name(1), f"{name(1)}:2222", "ecdsa-sha2-nistp256", key, "new")
    text = "\n".join(drawn(tables.Table(columns, [row]), width))
    for word in row:
        assert f" {word} " in f" {text} ".replace("\n", " ")


def test_a_wide_character_takes_two_columns() -> None:
    rows = [("日本", "x"), ("abcd", "y")]
    lines = drawn(tables.Table((TEXTS("a"), TEXTS("b")), rows), 80)
    assert lines[2:] == ["日本  x", "abcd  y"]


def test_numbers_end_at_the_same_place() -> None:
    lines = drawn(tables.Table((TEXTS("n", right=True), TEXTS("b")), [("7", "x"), ("123", "")]), 80)
    assert lines == ["  n  b", "─" * 6, "  7  x", "123"]


def test_no_other_module_draws_a_table() -> None:
    """One style for all commands."""
    package = REPO / "provision"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(
            r"rich\.table import Table|from rich import box|\.ljust\(", path.read_text("utf-8")
        )
    }
    assert found == set()


# -- one cause on many hosts ----------------------------------------------------------------------


def unreachable(n: int) -> Problem:
    return Problem(
        f"{name(n)} (i.yml:{n}:7)",
        f"connect: 10.0.0.{n} port 22: timed out after {n}.0 s",
        f"check it: ssh {name(n)}",
        id="host-unreachable",
    )


def test_texts_that_differ_in_hosts_and_numbers_are_one_line() -> None:
    (one,) = folded(map(unreachable, range(200)))
    assert one.where == f"200 hosts: {', '.join(map(name, range(5)))} and 195 more"
    assert one.what == f"on {name(0)}: {unreachable(0).what}"


def test_other_causes_stay_apart() -> None:
    others = [dataclasses.replace(unreachable(1), what="connect: no route to the host")]
    assert len(folded([*map(unreachable, range(200)), *others])) == 2


def test_two_disks_of_each_host_are_two_lines() -> None:
    found = [
        Problem(f"w{n} (h)", f"/data{disk} has {n} GB free", id="disk-full")
        for n in range(50)
        for disk in (1, 2)
    ]
    assert [one.what for one in folded(found)] == [
        "on w0: /data1 has 0 GB free",
        "on w0: /data2 has 0 GB free",
    ]


def test_each_place_in_the_inventory_is_shown() -> None:
    found = [Problem(f"i.yml:{n}:1", "is not known", id="inventory-invalid") for n in range(50)]
    assert folded(found) == found


def test_one_cause_on_200_workers_is_two_lines_and_in_json_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def body(_: Run) -> None:
        problems = [unreachable(n) for n in range(200)]
        raise PreflightFailed("preflight failed", problems, id="preflight-failed")

    assert perform("status", {"format": "json", "traceback": False}, body) == 3
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 2
    assert [p["where"] for p in json.loads(out)["problems"]] == [
        unreachable(n).where for n in range(200)
    ]


def test_what_a_person_decides_by_is_a_line_for_each() -> None:
    """Which member has the most data, and how many workers another cluster has."""
    for id, what in (
        ("data-loss-ahead", "is at revision {0}00, newer than the one chosen"),
        ("other-clusters-live", "has {0} live workers"),
        ("host-key-unknown", "has no fingerprint for it; it shows SHA256:a/{0}+9b"),
    ):
        each = [Problem(f"infra{n}", what.format(n), id=id) for n in range(1, 8)]  # type: ignore[arg-type]
        assert folded(each) == each
