"""The cause of a failed start, out of what Alluxio and systemd log of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provision.alluxio.worker import attempt

#: What 313 logged with its web port taken, without most of its 60 frames.
REAL = """\
Started alluxio-worker.service - Alluxio worker w1 of c.
2026-11-28 22:58:33,101 INFO  [main](AlluxioWorker.java:39) - Starting
2026-11-28 22:58:38,390 ERROR [main](ProcessUtils.java:119) - Fatal error: Failed to create worker
com.google.inject.ProvisionException: Unable to provision, see the following errors:

1) [Guice/ErrorInjectingConstructor]: RuntimeException: RuntimeException: Failed to listen
  https://github.com/google/guice/wiki/ERROR_INJECTING_CONSTRUCTOR
======================
End of classname legend:
========================
    at com.google.inject.internal.InternalProvisionException.toProvisionException(I.java:251)
Caused by: java.lang.RuntimeException: Failed to listen on address /0.0.0.0:30000 for web server
    at alluxio.web.WebServer.<init>(WebServer.java:118)
    ... 15 more
Caused by: java.io.IOException: Failed to bind to /0.0.0.0:30000
    at org.eclipse.jetty.server.ServerConnector.openAcceptChannel(ServerConnector.java:349)
    ... 18 more
Caused by: java.net.BindException: Address already in use
    at java.base/sun.nio.ch.Net.bind0(Native Method)
    ... 20 more

2026-11-28 22:58:38,390 INFO  [main](ProcessUtils.java:161) - Logging metrics and jstack on exit
2026-11-28 22:58:39,641 INFO  [main](ProcessUtils.java:247) - Caused by: nothing
alluxio-worker.service: Main process exited, code=exited, status=255/EXCEPTION
alluxio-worker.service: Failed with result 'exit-code'.
""".splitlines()


def test_the_fatal_error_and_its_last_cause() -> None:
    assert attempt.excerpt(REAL) == [
        "2026-11-28 22:58:38,390 ERROR [main](ProcessUtils.java:119) - Fatal error: Failed to "
        "create worker",
        "Caused by: java.io.IOException: Failed to bind to /0.0.0.0:30000",
        "Caused by: java.net.BindException: Address already in use",
    ]


def test_the_last_of_several() -> None:
    again = [line.replace("Failed to create", "Cannot create") for line in REAL]
    assert "Cannot create" in attempt.excerpt([*REAL, *again])[0]


def test_an_uncaught_exception() -> None:
    """``ProcessUtils.run`` says the root cause in the line itself."""
    line = (
        "2024-06-07 12:41:05,202 ERROR [main](ProcessUtils.java:68) - Uncaught exception while "
        'running Alluxio worker @w1:29999, stopping it and exiting. Exception "x", Root Cause "y"'
    )
    assert attempt.excerpt(["INFO x", line, "java.io.IOException: x", "INFO bye"]) == [
        line,
        "java.io.IOException: x",
    ]


def test_a_fatal_error_without_a_trace() -> None:
    assert attempt.excerpt([REAL[2], REAL[-4]]) == [REAL[2]]


def test_a_launcher_that_fails_before_java() -> None:
    lines = ["Started.", "Error: JAVA_HOME is not set", "Main process exited, status=1/FAILURE"]
    assert attempt.excerpt(lines) == lines


def test_else_the_last_lines_without_stack_frames() -> None:
    frames = [f"    at a.b.C.d{n}(C.java:{n})" for n in range(20)]
    assert attempt.excerpt(["the message", *frames, "    ... 3 more"]) == ["the message"]
    assert attempt.excerpt([str(n) for n in range(20)]) == [str(n) for n in range(12, 20)]
    assert attempt.excerpt([]) == []


def test_a_line_is_cut() -> None:
    assert [len(line) for line in attempt.excerpt(["x" * 5000])] == [attempt.WIDTH]


OLD, NEW = "a" * 32, "b" * 32


def printed(folder: Path, systemctl: str, journalctl: str) -> str:
    """What the script prints where these two shell scripts answer as systemd does."""
    for name, script in (("systemctl", systemctl), ("journalctl", journalctl)):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", attempt.script("alluxio-worker.service")],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": f"{folder}:/usr/bin:/bin"},
    )
    return done.stdout


@pytest.mark.process
@pytest.mark.parametrize(
    ("state", "restarts", "ids", "asked"),
    [
        # The next attempt is under way: the one before has failed.
        ("running", 1, [OLD, NEW], OLD),
        ("start-pre", 6, [OLD, NEW], OLD),
        # The first attempt, whose service was stopped before by hand.
        ("running", 0, [OLD, NEW], NEW),
        # It waits for the next one.
        ("auto-restart", 1, [OLD, NEW], NEW),
        ("failed", 3, [OLD, NEW], NEW),
        ("running", 2, [NEW], None),
        ("dead", 0, [], None),
    ],
)
def test_which_attempt_is_looked_at(
    tmp_path: Path, state: str, restarts: int, ids: list[str], asked: str | None
) -> None:
    """The script itself, with a journalctl and a systemctl that answer what systemd does."""
    values = {"InvocationID": NEW, "SubState": state, "NRestarts": str(restarts)}
    cases = "".join(f"*{name}*) echo {value};; " for name, value in values.items())
    lines = "".join(
        f'echo \'{{"_SYSTEMD_INVOCATION_ID":"{i}"}}\'; echo \'{{"INVOCATION_ID":"{i}"}}\'; '
        for i in ids
    )
    journal = f'case "$*" in *json*) {lines or ":"};; *) echo "$@";; esac'
    said = printed(tmp_path, f'case "$*" in {cases}esac', journal)
    if asked is None:
        assert said.startswith("-u alluxio-worker.service ")
    else:
        assert said.startswith(f"_SYSTEMD_INVOCATION_ID={asked} + INVOCATION_ID={asked} ")


@pytest.mark.process
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("lines", [["50.123456"], ["50.123456", "51.5", "53.000001"]])
def test_lines_of_a_process_that_was_gone_before_journald_asked(
    tmp_path: Path, known: bool, lines: list[str]
) -> None:
    """They have the unit's name, and the id of another attempt or none. Lines from before the
    attempt, or after it, are not asked for: they have reasons of their own."""
    own = "echo mine" if known else ":"
    until = int(lines[-1].partition(".")[0]) + 1
    times = "; ".join(f"echo '{time} h systemd[1]: v1.0 of it'" for time in lines)
    journal = f"""\
case "$*" in
  *json*) echo '{{"INVOCATION_ID":"{OLD}"}}' ;;
  "-q _SYSTEMD_INVOCATION_ID={OLD} "*) {own} ;;
  "-q INVOCATION_ID={OLD} "*"-o short-unix") {times} ;;
  "-q --since=@50 --until=@{until} _SYSTEMD_UNIT=alluxio-worker.service "*)
    echo 'this release is broken' ;;
  *) {own}; echo 'Main process exited' ;;
esac
"""
    lines = printed(tmp_path, "echo failed", journal).splitlines()
    said = "mine" if known else "this release is broken"
    assert attempt.excerpt(lines) == [said, "Main process exited"]
