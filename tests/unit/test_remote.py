"""Sessions and fan-out, as far as they need no SSH: bounds, isolation, and how a run ends."""

from __future__ import annotations

import subprocess
import threading
import time
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import paramiko
import pytest

from provision.errors import PreflightFailed
from provision.inventory.resolved import Machine
from provision.ssh import session
from provision.ssh.session import Fleet, Session, Stats, Unreachable, failures, whole

A, B, C = (Machine(name, where=f"i.yml:{n}") for n, name in enumerate("abc", 1))


class Channel:
    """A paramiko channel's receiving side."""

    def __init__(self, *data: bytes, dribble: bool = False) -> None:
        self.data = list(data)
        self.dribble = dribble

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def receive(self, most: int) -> bytes:
        if self.dribble:
            return b"x"
        return self.data.pop(0) if self.data else b""


def drain(channel: Channel, seconds: float = 60.0) -> bytes:
    return session._drain(cast(Any, channel), channel.receive, time.monotonic() + seconds)


def test_output_is_read_to_its_end() -> None:
    assert drain(Channel(b"a", b"bc")) == b"abc"


def test_a_host_that_never_ends_its_output_runs_out_of_time() -> None:
    with pytest.raises(TimeoutError):
        drain(Channel(dribble=True), 0.02)


def test_a_host_that_sends_too_much_is_cut_off() -> None:
    with pytest.raises(OSError, match="more than 32 MiB"):
        drain(Channel(*[b"x" * (1 << 20)] * 40))


@pytest.mark.process
def test_the_whole_script_or_nothing() -> None:
    script = whole("echo a\necho b")
    for end in range(len(script) - len("main\n")):
        done = subprocess.run(["sh", "-s"], input=script[:end].encode(), capture_output=True)
        assert done.stdout == b""
    assert subprocess.run(["sh", "-s"], input=script.encode(), capture_output=True).stdout


def test_an_ended_session_does_not_connect_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C the locks are gone: a thread that is still at work must not go on."""
    connected: list[Machine] = []
    with Fleet(1) as fleet:
        monkeypatch.setattr(fleet, "_connect", connected.append)
        session = fleet.session(A)
    with pytest.raises(Unreachable, match="the run has ended"):
        session.run("touch x", "apply")
    assert connected == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TimeoutError(), "no answer over SSH in time"),
        (ConnectionRefusedError("refused"), "cannot connect"),
        (EOFError(), "the connection broke"),
        (OSError("\x1b]0;owned\x07"), "\ufffd]0;owned\ufffd"),
    ],
)
def test_why_a_host_is_unreachable(error: Exception, says: str) -> None:
    def fail(machine: Machine) -> NoReturn:
        raise error

    with pytest.raises(Unreachable) as caught:
        Session(A, Stats(), fail).open()
    (problem,) = caught.value.problems
    assert problem.where == "a (i.yml:1)"
    assert says in problem.what
    assert problem.remedy


@pytest.mark.parametrize(
    ("error", "forwarding"),
    [
        (paramiko.ChannelException(1, "Administratively prohibited"), "prohibited"),
        (paramiko.ChannelException(2, "Connect failed"), "refused"),
        (paramiko.ChannelException(4, "Resource shortage"), None),
        (paramiko.SSHException("Timeout opening channel."), None),
        (ConnectionRefusedError(), None),
    ],
)
def test_why_a_host_opens_no_stream(error: Exception, forwarding: str | None) -> None:
    """The numbers are SSH's (RFC 4254, 5.1)."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    connection = SimpleNamespace(transport=SimpleNamespace(open_channel=fail), is_connected=True)
    with pytest.raises(Unreachable) as caught:
        Session(A, Stats(), lambda _: connection).open_tcp("10.0.0.1", 2379, timeout=1)
    assert caught.value.forwarding == forwarding


class TestBegin:
    """A connection that is begun before its first use."""

    def test_the_first_use_waits_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connected: list[Machine] = []
        goes_on = threading.Event()
        connection = SimpleNamespace(transport=object(), is_connected=True)

        def connect(machine: Machine) -> Any:
            assert goes_on.wait(10)
            connected.append(machine)
            return connection

        fleet = Fleet(2)
        monkeypatch.setattr(fleet, "_connect", connect)
        fleet.begin([A, B, C])  # returns at once
        goes_on.set()
        for machine in (A, B, C):
            assert fleet.session(machine)._transport() is connection.transport
            assert fleet.session(machine)._transport() is connection.transport
        assert sorted(m.host for m in connected) == ["a", "b", "c"]

    def test_the_first_use_has_its_error_and_no_second_login(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[Machine] = []

        def refuse(machine: Machine) -> NoReturn:
            tried.append(machine)
            raise paramiko.AuthenticationException("no")

        fleet = Fleet(2)
        monkeypatch.setattr(fleet, "_connect", refuse)
        fleet.begin([A])
        for attempts in (1, 2):  # later uses try again, as ever
            with pytest.raises(Unreachable, match="login refused"):
                fleet.session(A).open()
            assert tried == [A] * attempts

    def test_one_that_was_lost_before_its_first_use_is_opened_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost = SimpleNamespace(transport=object(), is_connected=False, close=lambda: None)
        found = SimpleNamespace(transport=object(), is_connected=True)
        connections = iter([lost, found])
        fleet = Fleet(2)
        monkeypatch.setattr(fleet, "_connect", lambda _: next(connections))
        fleet.begin([A])
        assert fleet.session(A)._transport() is found.transport


class TestMap:
    def test_each_host_has_its_value_or_its_error_in_the_order_asked(self) -> None:
        def work(session: Session) -> str:
            if session.machine == B:
                raise PreflightFailed("no", id="preflight-failed")
            return session.machine.host

        found = Fleet(2).map(work, [A, B, C])
        assert list(found) == [A, B, C]
        assert (found[A], found[C]) == ("a", "c")
        assert [p.what for p in failures(found)] == ["no"]

    def test_a_host_that_hangs_holds_up_no_other(self) -> None:
        others = threading.Semaphore(0)

        def work(session: Session) -> None:
            if session.machine == A:
                assert others.acquire(timeout=10)
                assert others.acquire(timeout=10)
            else:
                others.release()

        Fleet(2).map(work, [A, B, C])

    def test_a_defect_is_raised(self) -> None:
        def work(session: Session) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            Fleet(2).map(work, [A])

    def test_an_interrupt_ends_every_session_and_begins_nothing_more(self) -> None:
        fleet = Fleet(1)
        begun: list[str] = []

        def work(session: Session) -> None:
            begun.append(session.machine.host)

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        machines = [Machine(f"m{n}") for n in range(50)]
        with pytest.raises(KeyboardInterrupt):
            fleet.map(work, machines, on_done=interrupt)
        with pytest.raises(Unreachable, match="has ended"):
            fleet.session(machines[0]).open()

    def test_nobody(self) -> None:
        assert Fleet(1).map(lambda s: 1, []) == {}
