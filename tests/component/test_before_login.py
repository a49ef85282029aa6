"""Failures before a login: what may pass is tried again, what a host has decided is not."""

from __future__ import annotations

import shlex
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.ssh import attempts
from provision.ssh.session import Session, Unreachable
from tests.component import real_sshd
from tests.component.hostile_sshd import Behaviour, Sshd, serving, session


@pytest.fixture
def behaviour(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Behaviour:
    monkeypatch.setattr(attempts, "PAUSES", (0.01, 0.02, 0.03))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Behaviour()


@pytest.fixture
def sshd(tmp_path: Path, behaviour: Behaviour) -> Iterator[Sshd]:
    with serving(tmp_path / "sshd", behaviour) as sshd:
        yield sshd


def refused(client: Session) -> str:
    with pytest.raises(Unreachable) as caught:
        client.open()
    (problem,) = caught.value.problems
    return problem.what


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_later(sock: socket.socket) -> None:
    """The client has said its version and waits for ours."""
    sock.recv(256)
    reset(sock)


def full(sock: socket.socket) -> None:
    sock.sendall(b"Exceeded MaxStartups\r\n")


def not_now(sock: socket.socket) -> None:
    sock.sendall(b"Not allowed at this time\r\n")


def hang_up(sock: socket.socket) -> None:
    pass


def half_a_version(sock: socket.socket) -> None:
    sock.sendall(b"SSH-2.0-Open")


WAYS = [reset, reset_later, full, not_now, hang_up, half_a_version]


@pytest.mark.parametrize("way", WAYS)
def test_what_may_pass_is_tried_again(sshd: Sshd, behaviour: Behaviour, way: object) -> None:
    def door(sock: socket.socket) -> bool:
        if behaviour.connections > 2:
            return False
        way(sock)  # type: ignore[operator]
        return True

    behaviour.at_door = door
    with session(sshd, connect_timeout=20.0) as client:
        client.open()
    assert behaviour.connections == 3


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (reset, "takes connections, but does not answer as SSH"),
        (reset_later, "takes connections, but does not answer as SSH"),
        (full, "takes no more connections at the moment (MaxStartups of its sshd)"),
        (not_now, "refuses connections from this machine for now"),
        (hang_up, "takes connections, but does not answer as SSH"),
    ],
)
def test_what_does_not_pass_is_called_by_its_name(
    sshd: Sshd, behaviour: Behaviour, way: object, said: str
) -> None:
    def door(sock: socket.socket) -> bool:
        way(sock)  # type: ignore[operator]
        return True

    behaviour.at_door = door
    with session(sshd, connect_timeout=20.0) as client:
        assert said in refused(client)
    assert behaviour.connections == 4


def test_a_limit_ends_the_attempts(
    sshd: Sshd, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "PAUSES", (60.0,))
    behaviour.at_door = lambda sock: True
    started = time.monotonic()
    with session(sshd) as client:
        refused(client)
    assert behaviour.connections == 1
    assert time.monotonic() - started < 20


def test_a_login_that_is_refused_is_not_tried_again(sshd: Sshd, behaviour: Behaviour) -> None:
    behaviour.takes_keys = False
    with session(sshd, connect_timeout=20.0) as client:
        assert "login refused" in refused(client)
    assert behaviour.connections == 1


def test_a_host_that_hangs_up_at_the_login_is_not_asked_again(
    sshd: Sshd, behaviour: Behaviour
) -> None:
    behaviour.at_login = sshd.hang_up
    with session(sshd, connect_timeout=20.0) as client:
        assert "closed the connection at the login" in refused(client)
    assert behaviour.connections == 1


def test_a_reset_at_the_login_is_no_reason_to_come_back(sshd: Sshd, behaviour: Behaviour) -> None:
    def cut() -> None:
        sock: Any = sshd._transports[-1].sock
        reset(sock)
        sock.close()

    behaviour.at_login = cut
    with session(sshd, connect_timeout=20.0) as client:
        said = refused(client)
    assert said == f"connect: closed the connection at the login for root with {sshd.key}"
    assert behaviour.connections == 1


def test_another_host_key_is_not_asked_for_again(sshd: Sshd, behaviour: Behaviour) -> None:
    sshd.known_hosts.write_text("")
    with session(sshd, connect_timeout=20.0) as client:
        assert "not in known_hosts" in refused(client)
    assert behaviour.connections == 1


@pytest.mark.parametrize(
    ("code", "asked", "said"),
    [
        (1, 1, "does not forward connections"),
        (2, 1, "cannot connect to"),
        (3, 1, "opens no connection"),
        (4, 4, "opens no connection to 127.0.0.1:2: Resource shortage"),
    ],
)
def test_codes_of_a_jump_host_are_told_apart(
    sshd: Sshd, behaviour: Behaviour, code: int, asked: int, said: str
) -> None:
    behaviour.forwards = code
    jump = f"root@127.0.0.1:{sshd.port}"
    with session(sshd, port=2, jump=jump, connect_timeout=20.0) as client:
        assert said in refused(client)
    assert behaviour.forwards_asked == asked
    assert behaviour.connections == 1


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "does not forward connections"),
        (2, "cannot connect there"),
        (3, "opens no such channel"),
        (4, "has no resources"),
    ],
)
def test_codes_of_a_host_are_told_apart(
    sshd: Sshd, behaviour: Behaviour, code: int, said: str
) -> None:
    behaviour.forwards = code
    with session(sshd) as client, pytest.raises(Unreachable, match=said):
        client.open_tcp("127.0.0.1", 1, timeout=5)


def _only_place(port: int) -> socket.socket:
    """A connection that sshd has taken, as soon as it has forgotten the one before."""
    for _ in range(200):
        other = socket.create_connection(("127.0.0.1", port))
        if other.recv(4) == b"SSH-":
            return other
        other.close()
        time.sleep(0.05)
    raise AssertionError("sshd takes no connection")


def test_a_real_sshd_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another login that hangs takes the only place, until it gives up."""
    monkeypatch.setattr(attempts, "PAUSES", (0.01, 0.02, 0.03))
    again = attempts.Attempts.again
    with real_sshd.running("MaxStartups 1:100:1") as sshd:
        key = real_sshd.keygen(tmp_path / "key")
        sshd.accept(key)
        machine = sshd.machine(key=key)
        errors: list[BaseException] = []
        with _only_place(sshd.port) as other:

            def noted(self: attempts.Attempts, error: BaseException) -> bool:
                errors.append(error)
                if len(errors) == 2:
                    other.shutdown(socket.SHUT_RDWR)
                    while "Connection closed by" not in sshd.log.read_text().split("drop")[-1]:
                        time.sleep(0.01)
                return again(self, error)

            monkeypatch.setattr(attempts.Attempts, "again", noted)
            with real_sshd.session(machine) as client:
                client.open()
    assert {type(error) for error in errors} == {attempts.Passing}
    assert "MaxStartups" in str(errors[0])


SPLICE = """\
import os, socket, sys, threading
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def up():
    while d := os.read(0, 65536): s.sendall(d)
    s.shutdown(1)
threading.Thread(target=up, daemon=True).start()
while d := s.recv(65536): os.write(1, d)
"""


class TestProxyCommand:
    def configured(self, folder: Path, sshd: Sshd, command: str) -> dict[str, object]:
        config = folder / ".ssh" / "config"
        config.parent.mkdir()
        config.write_text(f"Host there\n  HostKeyAlias x\n  ProxyCommand {command}\n")
        sshd.known_hosts.write_text(f"x {sshd.known_hosts.read_text().partition(' ')[2]}")
        return {"host": "there", "connect_timeout": 20.0}

    def test_the_shell_reads_it(self, tmp_path: Path, sshd: Sshd, behaviour: Behaviour) -> None:
        script = tmp_path / "splice.py"
        script.write_text(SPLICE)
        program = shlex.quote(sys.executable)
        command = f"{program} ~/splice.py %p 2>/dev/null # at home"
        with session(sshd, **self.configured(tmp_path, sshd, command)) as client:
            client.open()
        assert behaviour.connections == 1

    def test_what_it_says_is_no_reason_for_another_failure(
        self, tmp_path: Path, sshd: Sshd, behaviour: Behaviour
    ) -> None:
        """It has done its part."""
        (tmp_path / "splice.py").write_text(SPLICE)
        command = f"sh -c 'echo a note >&2; exec {sys.executable} {tmp_path}/splice.py %p'"
        changed = self.configured(tmp_path, sshd, command)
        sshd.known_hosts.write_text("")
        with session(sshd, **changed) as client:
            assert "not in known_hosts" in refused(client)
        assert behaviour.connections == 1

    def test_what_it_says_is_the_reason(self, tmp_path: Path, sshd: Sshd) -> None:
        command = "sh -c 'echo no such bastion >&2; exit 1'"
        started = time.monotonic()
        with session(sshd, **self.configured(tmp_path, sshd, command)) as client:
            assert refused(client) == "connect: ProxyCommand: no such bastion"
        assert time.monotonic() - started < 10
