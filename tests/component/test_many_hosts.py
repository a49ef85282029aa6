"""Many hosts on loopback, some of them broken: the others are looked at, and the broken named.

The SSH server is Paramiko's; what it is asked to run is run, on this machine.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from provision.host import gather
from provision.host.facts import Kind, Probe
from provision.inventory.resolved import Machine
from provision.ssh.session import Fleet, Unreachable
from tests.component.hostile_sshd import LetsIn

GOOD = [f"127.0.1.{n}" for n in range(1, 21)]


class Host(LetsIn):
    """Lets everybody in. ``consents``: whether it ever answers the wish to run a command."""

    def __init__(self, consents: bool, runs: bool, end: threading.Event) -> None:
        self._consents, self._runs, self._end = consents, runs, end

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if not self._consents:
            self._end.wait()
        elif self._runs:
            threading.Thread(target=self._run, args=(channel, command), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel, command: bytes) -> None:
        given = bytearray()
        while data := channel.recv(65536):
            given += data
        done = subprocess.run(["sh", "-c", command], input=given, capture_output=True)
        with contextlib.suppress(OSError):  # the other end has read enough
            channel.sendall(done.stdout)
            channel.sendall_stderr(done.stderr)
            channel.send_exit_status(done.returncode)
            channel.close()


Serve = Callable[[socket.socket], None]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str, Serve | None], Machine]]:
    """``serve(address, how)`` is a machine there; ``how`` treats each of its connections."""
    public = paramiko.ECDSAKey.generate()
    key, known = tmp_path / "key", tmp_path / "known_hosts"
    private = ed25519.Ed25519PrivateKey.generate()
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    key.write_bytes(private.private_bytes(*formats, serialization.NoEncryption()))
    key.chmod(0o600)
    end = threading.Event()

    def ssh(consents: bool = True, runs: bool = True) -> Serve:
        def treat(sock: socket.socket) -> None:
            transport = paramiko.Transport(sock)
            transport.add_server_key(public)
            with contextlib.suppress(Exception):
                transport.start_server(server=Host(consents, runs, end), event=threading.Event())

        return treat

    with contextlib.ExitStack() as stack:
        stack.callback(end.set)

        def start(address: str, how: Serve | None) -> Machine:
            server = stack.enter_context(socket.create_server((address, 0)))
            stack.callback(server.shutdown, socket.SHUT_RDWR)
            port = server.getsockname()[1]
            with known.open("a") as file:
                file.write(f"[{address}]:{port} {public.get_name()} {public.get_base64()}\n")

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        (how or ssh())(server.accept()[0])

            threading.Thread(target=accept, daemon=True).start()
            return Machine(address, "x", port, key, known, connect_timeout=1.0)

        start.ssh = ssh  # type: ignore[attr-defined]
        yield start


def test_broken_hosts_are_named_and_the_others_answer(
    serve: Callable[[str, Serve | None], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[socket.socket] = []
    ssh = serve.ssh  # type: ignore[attr-defined]
    broken = {
        serve("127.0.2.1", kept.append): "does not answer as SSH",
        serve("127.0.2.2", lambda sock: sock.close()): "does not answer as SSH",
        serve("127.0.2.3", ssh(consents=False)): "no answer over SSH in time",
        serve("127.0.2.4", ssh(runs=False)): "no answer over SSH in time",
    }
    good = [serve(address, None) for address in GOOD]
    asked = Probe(kinds=Kind.HOST)
    # First in line, and as many as half of what is worked on at once.
    monkeypatch.setattr(gather, "MANY", 10)
    with Fleet(8) as fleet:
        facts, problems = gather.gather_facts(fleet, dict.fromkeys([*broken, *good], asked))
        assert fleet.session(good[0])._connection is None  # they are too many to be kept
        assert fleet.session(good[0]).run("echo again", "again").stdout == "again\n"
    assert list(facts) == good
    assert {f.values["hostname"] for f in facts.values()} == {socket.gethostname()}
    assert [p.where.split()[0] for p in problems] == [m.host for m in broken]
    for problem, why in zip(problems, broken.values(), strict=True):
        assert re.search(why, problem.what), problem
    for sock in kept:
        sock.close()


def test_a_file_of_exactly_as_much_as_it_may_have(
    serve: Callable[[str, Serve | None], Machine], tmp_path: Path
) -> None:
    """What stands around an answer does not count."""
    (tmp_path / "file").write_bytes(b"x" * 5000)
    into = io.BytesIO()
    with Fleet(1) as fleet:
        session = fleet.session(serve("127.0.1.1", None))
        assert session.fetch(f"cat {tmp_path}/file", into, "fetch", most=5000).ok
        assert into.getvalue() == b"x" * 5000
        with pytest.raises(Unreachable, match=r"sent more than 5\.0 kB"):
            session.fetch(f"cat {tmp_path}/file", io.BytesIO(), "fetch", most=4999)
