"""What is waited for: what the waits say, and how the screen shows them."""

from __future__ import annotations

import ast
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision import artifacts, progress, tar_reader, wait
from provision.check_nodes import CheckReport
from provision.cli import console, moving
from provision.cli.moving import Screen
from provision.cli.tasks import cluster
from provision.engine import plan as plans
from provision.engine.plan import Gate, HostChanges, Step
from provision.errors import Unhealthy
from provision.host.diff import Change
from provision.inventory.resolved import Machine
from provision.ssh.session import Fleet, Session
from tests.unit.clock import Clock
from tests.unit.test_check import LIVE, report

REPO = Path(__file__).parents[2]
PACKAGE = REPO / "provision"
HOSTS = [f"worker-{n:03}.rack-04.data.example.com" for n in range(200)]


def begun(wait: progress.Wait, seconds: float) -> progress.Wait:
    wait.begun = time.monotonic() - seconds
    return wait


def many(done: int, seconds: float) -> progress.Wait:
    made = progress.Wait("facts", 100.0, of=200, names=dict.fromkeys(HOSTS[done:]), done=done)
    return begun(made, seconds)


def test_a_line_says_whom_how_long_how_many_and_what_is_left() -> None:
    assert many(50, 10).line() == (
        f"facts: 50 of 200, 10 s of 100 s; about 30 s left; "
        f"waiting for {HOSTS[50]}, {HOSTS[51]}, {HOSTS[52]} and 147 more"
    )


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (
            120,
            "facts: 50 of 200, 10 s of 100 s; about 30 s left; "
            f"waiting for {HOSTS[50]} and 149 more",
        ),
        (80, "facts: 50 of 200, 10 s of 100 s; about 30 s left; for worker-050 and 149 more"),
        (65, "facts: 50 of 200, 10 s of 100 s; for worker-050 and 149 more"),
        (55, "facts: 50 of 200, 10 s of 100 s; about 30 s left"),
        (40, "facts: 50 of 200, 10 s of 100 s"),
        (28, "f…: 50 of 200, 10 s of 100 s"),
    ],
)
def test_a_narrow_screen_gets_what_there_is_room_for(width: int, line: str) -> None:
    shown = many(50, 10).line(width)
    assert shown == line
    assert len(shown) <= width


def test_bytes_and_minutes() -> None:
    wait = begun(progress.Wait("download", of=3_000_000_000, sizes=True, done=1_500_000_000), 300)
    assert wait.line() == "download: 1.5 GB of 3.0 GB, 5 min; about 5 min left"
    assert begun(progress.Wait("x", 3600.0), 150).line() == "x: 2 min 30 s of 60 min"


def test_nobody_knows_the_end_of_what_has_not_begun() -> None:
    assert many(0, 30).estimate == ""
    assert many(200, 30).estimate == ""
    assert progress.Wait("x").estimate == ""


def test_hosts_that_are_asked_at_the_same_time_are_one_wait() -> None:
    machines = [Machine(name) for name in ("a", "b", "c")]
    seen: list[str] = []

    def work(session: Session) -> str:
        with progress.calling(session.machine.host, "facts", 100.0):
            (only,) = progress.BOARD.now()
            seen.append(only.line())
        return session.machine.host

    with Fleet(1) as fleet:
        fleet.map(work, machines, at_once=1)
    assert seen == [
        "facts on hosts: 0 of 3, 0 s of 100 s; waiting for a, b, c",
        "facts on hosts: 1 of 3, 0 s of 100 s; waiting for b, c",
        "facts on hosts: 2 of 3, 0 s of 100 s; waiting for c",
    ]
    assert progress.BOARD.now() == []


def test_a_call_alone_names_its_host() -> None:
    with progress.calling("w1", "info nodes", 45.0):
        assert [w.line() for w in progress.BOARD.now()] == ["w1: info nodes: 0 s of 45 s"]


def test_the_one_wait_says_what_it_is_for() -> None:
    seen: list[str] = []

    def look() -> list[str]:
        seen.extend(w.line() for w in progress.BOARD.now())
        return ["w1", "w2"][len(seen) - 1 :]

    wait.until(look, lambda left: not left, 60, 1, Clock(), what="workers", names=lambda left: left)
    assert seen[0] == "workers: 0 s of 60 s"
    assert seen[1] == "workers: 0 s of 60 s; waiting for w1, w2"
    assert progress.BOARD.now() == []


def test_a_gate_and_a_call_say_themselves() -> None:
    seen: list[str] = []

    def note() -> None:
        seen.extend(w.what for w in progress.BOARD.now())

    plans._gate(Gate("every member healthy", note), plans.Quiet(), "after", begun=True)
    assert seen == ["every member healthy"]


def test_a_tarball_is_hashed_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.tar.gz"
    file.write_bytes(b"x" * 3000)
    ends: list[str] = []
    add = progress.Wait.add

    def noted(self: progress.Wait, count: int = 1) -> None:
        add(self, count)
        ends.append(self.line())

    monkeypatch.setattr(progress.Wait, "add", noted)
    artifacts.digest(file)
    tar_reader.read(file)
    assert "sha256 of a.tar.gz: 3.0 kB of 3.0 kB, 0 s" in ends
    assert len(ends) >= 2


def uploading(progress_: console.Progress, host: HostChanges) -> list[str]:
    progress_.upload(host, 2000, 500)
    return [w.line() for w in progress.BOARD.now()]


CHANGE = Change("write a file", "")


def test_uploads_are_one_wait(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (HostChanges(n, Machine(n), (CHANGE,)) for n in ("w1", "w2"))
    with console.Progress() as shown:
        shown.step(1, 1, Step("start", (one, two)))
        assert uploading(shown, one) == ["uploads: 500 B of 2.0 kB, 0 s; waiting for w1"]
        assert uploading(shown, two) == ["uploads: 1.0 kB of 4.0 kB, 0 s; waiting for w1, w2"]
        shown.upload(one, 2000, 1500)
        shown.upload(two, 2000, 1500)
        assert progress.BOARD.now() == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("count", "failing", "lines"), [(30, 9, 30), (200, 1, 2), (200, 9, 6)])
def test_the_hosts_of_a_large_step_are_counted_on_a_terminal(
    count: int, failing: int, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    said = Terminal()
    monkeypatch.setattr(sys, "stderr", said)
    hosts = tuple(HostChanges(n, Machine(n), (CHANGE,)) for n in HOSTS[:count])
    with console.Progress() as shown:
        shown.step(1, 1, Step("start", hosts))
        for host in hosts:
            failed = Unhealthy("no", id="worker-not-live") if host in hosts[:failing] else None
            shown.host(host, failed)
    found = said.getvalue().splitlines()[1:]
    assert len(found) == lines
    assert found[0].endswith(f"{HOSTS[0]}: FAILED (1 change)")
    if count > 30:
        assert found[-1].endswith(f"{200 - failing} of 200 hosts: ok")


# -- the screen -----------------------------------------------------------------------------------


@pytest.fixture
def waiting() -> Iterator[progress.Wait]:
    with progress.waiting("workers", within=240, names=["w1", "w2"]) as wait:
        yield begun(wait, 45)


def test_in_a_pipe_there_is_a_line_every_30_seconds(
    waiting: progress.Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    screen = Screen()
    screen._show()
    assert said.getvalue() == ""
    for line in (1, 2):
        screen._said -= moving.LINE_EVERY
        for _ in range(3):
            screen._show()
        assert said.getvalue().count("\n") == line
    assert said.getvalue().splitlines()[0] == (
        "waiting: workers: 0 of 2, 45 s of 4 min; waiting for w1, w2"
    )
    screen.hide()
    assert time.monotonic() - screen._said < 5  # what is printed is a sign of life, too


def test_a_short_wait_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    screen = Screen(every=0)
    with progress.waiting("x"):
        screen._show()
    assert said.getvalue() == ""


def test_without_stderr_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with Screen():
        pass


def test_a_stderr_that_nobody_reads_ends_the_screen_only(
    waiting: progress.Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            ended.set()
            raise BrokenPipeError

    ended = threading.Event()
    monkeypatch.setattr(sys, "stderr", Gone())
    monkeypatch.setattr(moving, "LOOK", 0.001)
    with Screen(every=0) as screen:
        assert ended.wait(30)
        screen._thread.join(30)
        assert not screen._thread.is_alive()


def test_after_its_first_report_a_watch_shows_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads wait without an end."""
    hidden: list[int] = []
    screen = Screen()
    monkeypatch.setattr(progress.BOARD, "screen", screen)

    def looks() -> Iterator[CheckReport]:
        for _ in range(3):
            hidden.append(screen._hidden)
            yield report(LIVE)

    assert len([*cluster._then_quiet(looks())]) == 3
    assert hidden == [0, 1, 1]
    assert screen._hidden == 0


@pytest.mark.process
def test_a_run_without_a_wait_does_not_import_rich() -> None:
    code = (
        "import sys; from provision.cli import commands, moving\n"
        "from provision import progress, terminal\n"
        "with moving.Screen(), progress.waiting('x'):\n"
        "    terminal.say('x')\n"
        "print([m for m in sys.modules if m.partition('.')[0] == 'rich'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "x\n[]\n"


PTY = f"""
import sys
from provision import progress, terminal
from provision.cli import moving
moving.SHOWN_AFTER = 0.0
moving.LOOK = 0.005
terminal.say("before")
with moving.Screen():
    with progress.waiting("facts", within=100.0, names={HOSTS!r}) as shown:
        for host in {HOSTS[:50]!r}:
            shown.finish(host)
        sys.stdin.readline()
        terminal.say("between", stderr=True)
        sys.stdin.readline()
    print("after")
"""


class Emulated:
    """As much of a terminal as the tool and rich use."""

    def __init__(self) -> None:
        self.lines, self.row = [""], 0
        self.column = 0

    def feed(self, text: str) -> None:
        for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            if part == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif part == "\r":
                self.column = 0
            elif part.startswith("\x1b"):
                self._control(part)
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + part + line[self.column + len(part) :]
                self.column += len(part)

    def _control(self, part: str) -> None:
        if part == "\x1b[2K":
            self.lines[self.row] = ""
        elif part.endswith("A"):
            self.row -= int(part[2:-1] or 1)
        else:
            assert part.endswith("m"), part  # also no sign of a hidden cursor


def on_terminal(width: int, **environment: str) -> tuple[str, list[str]]:
    """All that :data:`PTY` writes on a terminal of ``width`` columns, and what is there at its
    end."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    given = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    given |= {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment}
    said = ""
    with subprocess.Popen(
        [sys.executable, "-c", PTY],
        stdin=subprocess.PIPE,
        stdout=slave,
        stderr=slave,
        cwd=REPO,
        env=given,
    ) as child:
        os.close(slave)
        assert child.stdin is not None
        told = 0
        while True:
            try:
                piece = os.read(master, 1 << 16)
            except OSError:  # the terminal's other end is closed
                break
            said += piece.decode()
            shown = said.count("50 of 200") if environment.get("TERM") != "dumb" else 1
            if told == 0 and shown:
                told = 1
                child.stdin.write(b"\n")
                child.stdin.flush()
            elif told == 1 and "between" in said:
                told = 2
                child.stdin.write(b"\n")
                child.stdin.flush()
        assert child.wait() == 0
    os.close(master)
    screen = Emulated()
    screen.feed(said)
    return said, screen.lines


@pytest.mark.process
@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_on_a_terminal_it_moves_and_leaves_nothing_behind(width: int) -> None:
    said, left = on_terminal(width)
    assert [line for line in left if line] == ["before", "between", "after"]
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", said))
    (*_, shown) = [line for line in lines if "50 of 200" in line]
    assert ("━" in shown) == (width > 60)  # rich's bar
    assert max(len(line.rstrip()) for line in lines) <= width
    assert "\x1b[?25l" not in said  # a cursor that a killed run would leave hidden
    assert re.search(r"\x1b\[38;|\x1b\[3\d", said)


@pytest.mark.process
def test_without_colour_on_request() -> None:
    said, _ = on_terminal(80, NO_COLOR="1")
    assert "50 of 200" in said
    assert not re.search(r"\x1b\[38;|\x1b\[3\d", said)


@pytest.mark.process
def test_a_terminal_that_cannot_move_gets_lines() -> None:
    said, left = on_terminal(80, TERM="dumb")
    assert "\x1b" not in said
    assert [line for line in left if line] == ["before", "between", "after"]


# -- every place that may take longer than a second -----------------------------------------------

#: What may take its time: threads, a limit, another process, the network, a file's digest.
SLOW = re.compile(
    r"ThreadPoolExecutor\(|\bDeadline\(|subprocess\.(?:run|Popen)\(|\.update\(chunk|\bselect\("
    r"|time\.sleep\(|\.wait\((?!\))|\.join\(\d|create_connection\(|\.recv\(|\.open\(url"
    r"|SimpleQueue|\.snapshot\("
)
#: Functions with such a place that say nothing themselves, and why.
EXEMPT = {
    ("alluxio/commands/alluxio_cli.py", "first_answer"): "each place is a call of its host",
    ("alluxio/membership/leases.py", "expired"): "3 s, beside the other views",
    ("check_nodes/collect.py", "run"): "each view says itself",
    ("check_nodes/live.py", "_Live.next"): "0.1 s",
    ("check_nodes/live.py", "_Live._follow"): "a live view's thread",
    ("check_nodes/live.py", "_Live._look"): "a live view's thread",
    ("check_nodes/live.py", "_Live._ask"): "a live view's thread",
    ("check_nodes/status.py", "look"): "each of the two says itself",
    ("cli/debug.py", "_versions"): "ssh -V, which asks nobody",
    ("cli/moving.py", "Screen._look"): "the screen itself",
    ("download.py", "opened"): "its caller says it",
    ("engine/lock.py", "_heartbeat"): "in the background",
    ("etcd/api/client.py", "EtcdClient.snapshot"): "its caller says it",
    ("etcd/cluster/guard.py", "observe"): "each of the two says itself",
    ("kubernetes/check.py", "run"): "each is a call of kubectl",
    ("kubernetes/check.py", "_forwarded"): "each is a call of kubectl",
    ("kubernetes/kubectl.py", "Kubectl.forward"): "_Forward.wait says it",
    ("kubernetes/kubectl.py", "_outputs"): "its caller says it",
    ("kubernetes/kubectl.py", "_Forward.__init__"): "it does not wait",
    ("kubernetes/kubectl.py", "_Forward.end"): "kubectl ends at once, or is killed",
    ("plans/alluxio/masters.py", "find_primary"): "each master's port is a call",
    ("plans/alluxio/masters.py", "_silent"): "each master's port is a call",
    ("plans/alluxio/start_workers.py", "observe"): "each of the two says itself",
    ("plans/alluxio/start_workers.py", "_Listeners.answer"): "a part of require_live",
    ("plans/etcd/state/observe.py", "observe"): "each of the two says itself",
    ("ssh/answers.py", "_direct"): "its callers say it",
    ("ssh/answers.py", "stream"): "its callers say it",
    ("ssh/asked.py", "is_openssh"): "ssh -V, which asks nobody",
    ("ssh/connect.py", "Connector._socket"): "a part of a session's call",
    ("ssh/proxy.py", "Proxied.__init__"): "it does not wait",
    ("ssh/proxy.py", "Proxied.close"): "the proxy is killed",
    ("ssh/session.py", "Session._exec"): "its callers say it",
    ("ssh/session.py", "Fleet.begin"): "it does not wait",
    ("ssh/session.py", "Held.close"): "the end of a run's locks says it",
    ("ssh/session.py", "_forward"): "in the background",
    ("ssh/session.py", "_pour"): "a part of a session's call",
    ("tar_reader.py", "_Hashed.read"): "it counts for its caller",
    ("wait.py", "Clock.sleep"): "a part of a wait",
}


def _functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield prefix + child.name, ast.unparse(child)
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{child.name}.")


@pytest.mark.long
def test_whatever_takes_its_time_says_so_or_why_not() -> None:
    silent = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in PACKAGE.rglob("*.py")
        for name, text in _functions(ast.parse(path.read_text(encoding="utf-8")))
        if SLOW.search(text) and "progress." not in text
    }
    assert silent == set(EXEMPT)


def test_no_other_module_draws_progress() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"rich\.progress|x1b\[2K", path.read_text(encoding="utf-8"))
    }
    assert found == {"cli/moving.py"}
