"""Whether a port answers, on a host whose sshd does not forward: that says nothing about the port.

The host's scripts run on this machine; from "here", nothing reaches it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.membership import registrations
from provision.check_nodes import collect
from provision.inventory import ports
from provision.inventory.resolved import AlluxioCluster
from provision.plans.alluxio import masters
from provision.ssh import answers
from provision.ssh.answers import Unasked
from provision.ssh.session import Result, Unreachable
from tests.component.conftest import free_ports
from tests.component.test_scratch_member import LoopbackFleet
from tests.unit import builders

ANSWER = b"HTTP/1.1 200 OK\r\n\r\n{}"


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoopbackFleet:
    made = LoopbackFleet(tmp_path)
    made.loopback.forwards = False
    monkeypatch.setattr(answers, "_direct", lambda *_: (None, False))
    return made


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers each request."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client, contextlib.suppress(OSError):
                        if client.recv(1000):
                            client.sendall(ANSWER)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def without_bash(fleet: LoopbackFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fleet.loopback.run

    def other(script: str, *rest: Any, **more: Any) -> Result:
        return run(script.replace("bash", "no-bash-here"), *rest, **more)

    monkeypatch.setattr(fleet.loopback, "run", other)


def test_the_hosts_bash_finds_it_out(fleet: LoopbackFleet, port: int) -> None:
    machine = fleet.loopback.machine
    (other,) = free_ports(1)
    assert answers.answers(fleet, machine, "127.0.0.1", port, 2)
    assert not answers.answers(fleet, machine, "127.0.0.1", other, 2)
    # What etcd says may be anything, and bash takes other names for paths.
    for odd in ("../../x", "$(id)", "a b", "x';id;'"):
        assert not answers.answers(fleet, machine, odd, port, 2)
    with answers.stream(fleet, machine, "127.0.0.1", port, 2) as stream:
        stream.sendall(b"hello")
        assert stream.recv(100) == ANSWER


def test_without_bash_nobody_knows(
    fleet: LoopbackFleet, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bash(fleet, monkeypatch)
    with pytest.raises(Unasked) as unknown:
        answers.answers(fleet, fleet.loopback.machine, "127.0.0.1", port, 2)
    (problem,) = unknown.value.problems
    assert f"127.0.0.1:{port} cannot be asked: it is not reached from here" in problem.what
    assert "does not forward connections (AllowTcpForwarding), and it has no bash" in problem.what
    # A refusal here shows that the way is open: nothing listens.
    monkeypatch.setattr(answers, "_direct", lambda *_: (None, True))
    assert not answers.answers(fleet, fleet.loopback.machine, "127.0.0.1", port, 2)


@pytest.mark.parametrize("forwarding", ["refused", None])
def test_a_host_that_forwards_and_cannot_connect(
    fleet: LoopbackFleet, port: int, forwarding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise Unreachable("no", id="host-unreachable", forwarding=forwarding)

    monkeypatch.setattr(fleet.loopback, "open_tcp", refuse)
    assert not answers.answers(fleet, fleet.loopback.machine, "127.0.0.1", port, 2)


def static(port: int) -> AlluxioCluster:
    worker = builders.worker("w1", "127.0.0.1")._replace(rpc_port=port)
    master = builders.master("m1", "127.0.0.1", rpc_port=port)
    return builders.alluxio(worker, masters=(master,))


def test_everybody_who_asks_tells_them_apart(
    fleet: LoopbackFleet, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers without live keys, masters, check-nodes."""
    alluxio = static(port)
    (worker,), (master,) = alluxio.workers, alluxio.masters
    every = replace(ports.master_listeners(alluxio, master)[0], port=port)
    web = replace(every, http_path="/api/v1/master/info")
    monkeypatch.setattr(ports, "master_listeners", lambda *_: [web])
    inventory = builders.inventory(alluxio)
    assert registrations.port_answers(fleet, worker)
    assert masters.listens(fleet, alluxio, master)
    assert masters.is_primary(fleet, alluxio, master)
    assert collect.ports(inventory, fleet) == ({"w1": True}, [])
    without_bash(fleet, monkeypatch)
    for ask in (
        lambda: registrations.port_answers(fleet, worker),
        lambda: masters.listens(fleet, alluxio, master),
        lambda: masters.is_primary(fleet, alluxio, master),
        lambda: masters.find_primary(fleet, alluxio),
    ):
        with pytest.raises(Unasked):
            ask()
    known, problems = collect.ports(inventory, fleet)
    assert known == {}
    assert ["cannot be asked" in p.what for p in problems] == [True]
