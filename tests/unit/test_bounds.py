"""Readers of what others print: each has a limit, and takes a time in proportion to its input.

Files are in test_files.py, etcd's pages in test_paging.py, SSH in tests/component.
"""

from __future__ import annotations

import ast
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from provision import bounds, wait
from provision.alluxio.commands.nodes import parse_info_nodes
from provision.alluxio.membership import registrations
from provision.bounds import Flow
from provision.check_nodes import State, brief, match
from provision.check_nodes import table as screen_report
from provision.host import facts
from provision.kubernetes.kubectl import Kubectl, KubectlError
from provision.ssh.session import Result, Unreachable
from tests.unit.test_check import LIVE, report


def test_no_limit_cuts_what_a_cluster_may_have() -> None:
    assert bounds.KEYS >= 250_000
    assert bounds.KEY_BYTES >= 256 << 20
    assert bounds.ROWS >= bounds.KEYS


class TestFlow:
    @pytest.mark.parametrize(
        ("seconds", "count", "drips"),
        [
            (100, 0, False),
            (121, 0, True),
            (121, 40_000, False),
            (1120, 1000 * bounds.STREAM_RATE - 1, True),
            (1120, 1000 * bounds.STREAM_RATE, False),
            (86_401, 1 << 60, True),
        ],
    )
    def test_it_may_be_slow_but_must_go_on(self, seconds: float, count: int, drips: bool) -> None:
        times = iter([0.0, seconds, seconds])
        flow = Flow(lambda: next(times))
        flow.add(count)
        assert flow.drips is drips
        if drips:
            assert flow.slow in ("less than 32 KiB a second", "no end in 24 hours")


def test_a_connection_ends_though_it_gives_a_byte_now_and_then() -> None:
    here, there = socket.socketpair()
    stopping = threading.Event()

    def drip() -> None:
        while not stopping.wait(0.02):
            try:
                there.send(b"x")
            except OSError:
                return

    threading.Thread(target=drip, daemon=True).start()
    here.settimeout(30)
    started = time.monotonic()
    with here, there, wait.ending(here, 0.3):
        while here.recv(1):
            pass
        assert 0.2 < time.monotonic() - started < 20
        stopping.set()


@pytest.mark.process
def test_kubectl_prints_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "KUBECTL_OUTPUT", 1 << 20)
    code = "import sys\nwhile True: sys.{}.write('x' * 65536)"
    for stream in ("stdout", "stderr"):
        way = Kubectl((sys.executable, "-c", code.format(stream)), "data")
        with pytest.raises(KubectlError) as caught:
            way.run("get", timeout=30)
        assert caught.value.problems[0].what == "printed more than 1.0 MB"


def test_info_nodes_has_as_many_rows_as_etcd_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "ROWS", 5)
    row = f"{'i' * 1000}\t{'h' * 1000}:1\t{'s' * 1000}\n"
    found = parse_info_nodes("WorkerId\tAddress\tStatus\n" + row * 10)
    assert len(found) == 5
    assert [len(text) for text in (found[0].worker_id, found[0].host, found[0].status)] == [
        *(200, 255, 40)
    ]


@pytest.mark.long
def test_a_table_has_some_rows_and_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal, also when each has a cause of its own."""
    failed = LIVE._replace(state=State.FAILED)
    letters = "abcdefghij"
    notes = [(f"cause {''.join(letters[int(d)] for d in str(i))}",) for i in range(2500)]
    nodes = [failed._replace(name=f"w{i}", host=f"w{i}", notes=notes[i]) for i in range(2500)]
    Console(width=200, soft_wrap=True).print(screen_report.drawn(report(*nodes), every=False))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert sum(":29999" in line for line in lines) == brief.MOST
    assert "500 more with problems are not listed (--all lists them)" in lines
    assert lines[-1] == "2500 workers: 2500 FAILED; 2500 with notes"


@pytest.mark.long
@pytest.mark.parametrize(
    "body",
    [
        lambda count: "command x\n" + "said\n" * count + "\n@@M\n",
        lambda count: "command x\nsaid\n@@M\n" * (count // 3),
        lambda count: "data 0\n\n@@M\n" * (count // 3),
        lambda count: "units\n" + "".join(f"Id=u{n}\n\n" for n in range(count // 2)) + "@@\n",
        lambda count: "".join(f"size f{n}|1\n" for n in range(count)),
    ],
)
def test_facts_take_time_in_proportion(body: Callable[[int], str]) -> None:
    """A host may send 32 MiB: 4,000,000 lines like these. The last one shows that all were read."""
    text = f"@@begin\nasked M\n{body(1_000_000)}bad\n@@end\n"
    started = time.process_time()
    with pytest.raises(Unreachable) as refused:
        facts.parse(Result(0, text, "", 1.0), "h")
    assert "unexpected line 'bad'" in refused.value.problems[0].what
    assert time.process_time() - started < 10


@pytest.mark.long
def test_ids_at_one_address_take_time_in_proportion() -> None:
    value = registrations.UnknownRegistration("w", "")
    seen = [match._Seen(f"w{n}", value, True, "h", 29999, n, (), 1) for n in range(100_000)]
    started = time.process_time()
    assert match._claims((), seen, {}) == {}
    assert time.process_time() - started < 10


#: Modules that read files of this package, or of another installed one.
OWN_FILES = {
    "alluxio/worker/scopes.py",
    "cli/completion.py",
    "cli/explain.py",
    "cli/schemas.py",
    "etcd/api/protocol.py",
    "host/facts.py",
    "inventory/settings.py",
    # It reads what this tool has written to its cache.
    "alluxio/worker/tarball.py",
}


@pytest.mark.long
def test_no_file_is_read_without_a_limit() -> None:
    """Whatever names a file, :mod:`provision.files` reads it."""
    package = Path(bounds.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("read_text", "read_bytes")
        and not (isinstance(node.func.value, ast.Name) and node.func.value.id == "files")
    }
    assert found <= OWN_FILES
