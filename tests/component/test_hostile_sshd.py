"""An SSH server that refuses, hangs or floods: each is called by its name, and has an end."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from provision import bounds
from provision.errors import Problem
from provision.ssh.session import Session, Unreachable
from tests.component.hostile_sshd import Behaviour, Sshd, drip, flood, sent, serving, session


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def sshd(tmp_path: Path, behaviour: Behaviour) -> Iterator[Sshd]:
    with serving(tmp_path / "sshd", behaviour) as sshd:
        yield sshd


def refused(work: Callable[[], object]) -> tuple[Problem, Unreachable]:
    with pytest.raises(Unreachable) as caught:
        work()
    (problem,) = caught.value.problems
    return problem, caught.value


def test_an_honest_one(sshd: Sshd, behaviour: Behaviour) -> None:
    def command(channel: paramiko.Channel) -> None:
        while channel.recv(1024):  # the script, which comes when the command has been accepted
            pass
        channel.sendall(b"hello\n" + behaviour.marks.end)
        channel.sendall_stderr(b"and\n")
        channel.send_exit_status(0)
        channel.close()

    behaviour.command = command
    with session(sshd) as client:
        result = client.run("echo", "echo")
    assert (result.stdout, result.stderr, result.code) == ("hello\n", "and\n", 0)


def test_an_answer_without_its_end(sshd: Sshd, behaviour: Behaviour) -> None:
    def command(channel: paramiko.Channel) -> None:
        while channel.recv(1024):
            pass
        channel.sendall(b"hel")
        channel.send_exit_status(0)
        channel.close()

    behaviour.command = command
    with session(sshd) as client:
        problem, _ = refused(lambda: client.run("echo hello", "look"))
    assert problem.what == "look: the connection was closed before the command ended"


@pytest.mark.parametrize("held", [False, True])
def test_a_login_shell_that_prints_without_end(
    sshd: Sshd, behaviour: Behaviour, held: bool
) -> None:
    behaviour.marked = False
    behaviour.command = lambda channel: flood(channel, stderr=False)
    with session(sshd) as client:
        problem, _ = refused(lambda: client.hold("cat", "look") if held else look(client))
    said = "look: SSH failed: the login shell prints much, and does not run the command"
    assert problem.what == said


def test_one_that_hangs_in_the_login_has_not_refused_it(sshd: Sshd, behaviour: Behaviour) -> None:
    hanging = threading.Event()
    behaviour.at_login = lambda: hanging.wait(60)
    started = time.monotonic()
    with session(sshd) as client:
        problem, error = refused(client.open)
    hanging.set()
    assert problem.what == "connect: does not answer the login for root in 2 s"
    assert (problem.id, error.id) == ("host-unreachable", "host-unreachable")
    assert time.monotonic() - started < 20


def test_one_that_refuses_the_key(sshd: Sshd, behaviour: Behaviour) -> None:
    behaviour.takes_keys = False
    with session(sshd) as client:
        problem, _ = refused(client.open)
    assert problem.what == f"connect: login refused for root with {sshd.key}"
    assert problem.id == "ssh-login-refused"


def test_one_that_ends_the_login(sshd: Sshd, behaviour: Behaviour) -> None:
    behaviour.at_login = sshd.hang_up
    with session(sshd) as client:
        problem, _ = refused(client.open)
    assert problem.what == f"connect: closed the connection at the login for root with {sshd.key}"


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_one_that_opens_no_session(sshd: Sshd, behaviour: Behaviour, code: int) -> None:
    behaviour.sessions = code
    with session(sshd) as client:
        problem, error = refused(lambda: client.run("true", "look"))
    assert problem.what.startswith("look: takes the login, but opens no session: ")
    assert error.forwarding is None


@pytest.mark.parametrize(("code", "forwarding"), [(1, "prohibited"), (2, "refused"), (4, None)])
def test_one_that_opens_no_stream(
    sshd: Sshd, behaviour: Behaviour, code: int, forwarding: str | None
) -> None:
    behaviour.forwards = code
    with session(sshd) as client:
        _, error = refused(lambda: client.open_tcp("127.0.0.1", 1, timeout=5))
    assert error.forwarding == forwarding


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "does not forward connections to 127.0.0.1:2"),
        (2, "cannot connect to 127.0.0.1:2"),
        (4, "opens no connection to 127.0.0.1:2: Resource shortage"),
    ],
)
def test_a_jump_host_that_opens_no_stream_is_not_the_member(
    sshd: Sshd, behaviour: Behaviour, code: int, said: str
) -> None:
    """What is behind it has not even been asked."""
    behaviour.forwards = code
    jump = f"root@127.0.0.1:{sshd.port}"
    with session(sshd, port=2, jump=jump) as client:
        problem, error = refused(lambda: client.open_tcp("127.0.0.1", 2379, timeout=5))
    assert problem.what == f"connect: jump host 127.0.0.1: {said}"
    assert error.forwarding is None


def test_a_jump_host_that_hangs_in_the_login(sshd: Sshd, behaviour: Behaviour) -> None:
    hanging = threading.Event()
    behaviour.at_login = lambda: hanging.wait(60)
    with session(sshd, port=2, jump=f"root@127.0.0.1:{sshd.port}") as client:
        problem, _ = refused(client.open)
    hanging.set()
    assert problem.what == (
        "connect: jump host 127.0.0.1: does not answer the login for root in 2 s"
    )


def look(client: Session) -> object:
    return client.run("true", "look", timeout=30)


@pytest.mark.parametrize("stderr", [False, True])
def test_one_that_floods_is_cut_off(
    sshd: Sshd, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch, stderr: bool
) -> None:
    monkeypatch.setattr(bounds, "HOST_OUTPUT", 1 << 20)
    behaviour.command = lambda channel: flood(channel, stderr=stderr)
    started = time.monotonic()
    with session(sshd) as client:
        problem, _ = refused(lambda: look(client))
    assert "the host sent more than 1 MiB" in problem.what
    assert time.monotonic() - started < 20


def test_a_file_that_is_larger_than_it_may_be(sshd: Sshd, behaviour: Behaviour) -> None:
    behaviour.command = lambda channel: flood(channel, stderr=False)
    into = io.BytesIO()
    with session(sshd) as client:
        problem, _ = refused(lambda: client.fetch("cat x", into, "fetch", most=1 << 20))
    assert problem.what == "fetch: SSH failed: the host sent more than 1.0 MB"
    assert into.tell() <= 1 << 20


def test_a_file_that_drips(
    sshd: Sshd, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "STREAM_GRACE", 1.0)
    behaviour.command = drip
    with session(sshd) as client:
        problem, _ = refused(lambda: client.fetch("cat x", io.BytesIO(), "fetch"))
    assert problem.what == "fetch: no answer over SSH in time"


def test_one_that_hardly_reads(
    sshd: Sshd, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its window opens by one byte at a time: no single wait is long."""
    monkeypatch.setattr(bounds, "STREAM_GRACE", 1.0)
    monkeypatch.setattr(bounds, "STREAM_RATE", 4 << 20)  # the first window has 2 MiB

    def command(channel: paramiko.Channel) -> None:
        while not channel.closed:
            channel.recv(1)
            message = paramiko.Message()
            message.add_byte(b"\x5d")  # SSH_MSG_CHANNEL_WINDOW_ADJUST
            message.add_int(channel.remote_chanid)
            message.add_int(1)
            sent(channel, message)
            time.sleep(0.05)

    behaviour.command = command
    body = io.BytesIO(b"x" * (16 << 20))
    with session(sshd) as client:
        problem, _ = refused(lambda: client.feed("cat >x", body, "upload"))
    assert problem.what == "upload: no answer over SSH in time"


def test_a_held_command_that_floods_is_let_go(
    sshd: Sshd, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "HOST_UNREAD", 1 << 20)

    def command(channel: paramiko.Channel) -> None:
        channel.sendall(b"locked\n")
        flood(channel, stderr=False)

    behaviour.command = command
    with session(sshd) as client:
        held = client.hold("cat", "lock")
        assert held.greeting == "locked"

        def beats() -> None:
            for _ in range(200):
                held.beat()
                time.sleep(0.1)

        with pytest.raises(OSError, match="without being asked"):
            beats()
