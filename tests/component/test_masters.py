"""When masters are healthy, asked over sockets of doubles.

A double behaves as upstream's source says. A standby accepts connections on its RPC and journal
ports (``RpcServerStandbyGrpcService``, Ratis), and closes them on its web port
(``PrimaryOnlyWebServerService`` with ``RejectingServer``). The primary answers there with Jetty.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from provision.alluxio.worker import journal
from provision.engine.plan import Gate
from provision.errors import Unhealthy
from provision.inventory import journal_folder
from provision.inventory.resolved import AlluxioCluster, AlluxioMaster, Machine
from provision.plans.alluxio import masters
from provision.ssh.session import Fleet, Unreachable
from tests.unit import builders, hosts
from tests.unit.hosts import LocalFleet, LocalSession
from tests.unit.test_journal import GROUP, conf
from tests.unit.test_masters import plan, running

JETTY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{}"
SAFE_MODE = b"HTTP/1.1 500 Server Error\r\nConnection: close\r\n\r\n"


class Double:
    """The listeners of one master, on an address of its own."""

    def __init__(self, address: str, web: int) -> None:
        self.answer = b""  # a standby
        self.web = socket.create_server((address, web))
        self.open = [self.web, *(socket.create_server((address, n)) for n in (web + 1, web + 2))]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self.web.accept()
                with stream, contextlib.suppress(OSError):
                    if self.answer:
                        begin = stream.recv(4096).split(b"\r\n")[0]
                        known = begin.startswith(b"GET /api/v1/master/info HTTP/1.")
                        stream.sendall(self.answer if known else b"HTTP/1.1 404 No\r\n\r\n")

    def stop(self) -> None:
        for listener in self.open:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
            listener.close()


class NoForwarding(LocalSession):
    """A host whose sshd forwards no port: what does not listen here does not there either."""

    def open_tcp(self, address: str, port: int, timeout: float) -> NoReturn:
        raise Unreachable(f"{address}:{port}: refused", id="host-unreachable")


class Hosts(LocalFleet):
    def session(self, machine: Machine) -> LocalSession:
        if machine not in self.local:
            super().session(machine)
            self.local[machine] = NoForwarding(machine, self.local[machine].root)
        return self.local[machine]


@pytest.fixture
def found(tmp_path: Path) -> Iterator[tuple[AlluxioCluster, list[Double], Fleet]]:
    """Three standbys. Their hosts are one folder, with the journal of a group of all."""
    with socket.create_server(("127.0.77.10", 0)) as free:
        web = free.getsockname()[1]
    several = tuple(
        builders.master(f"m{n}", f"127.0.77.{n + 10}", rpc_port=web + 1, journal_port=web + 2)
        for n in range(3)
    )
    properties = {"alluxio.master.web.port": web}
    alluxio = builders.alluxio(
        masters=several, properties=properties, start_timeout=1, state_dir=str(tmp_path)
    )
    _group(alluxio, [journal.address(m) for m in several])
    doubles = [Double(m.hostname, web) for m in several]
    with Hosts(tmp_path) as fleet:
        yield alluxio, doubles, fleet
    for double in doubles:
        double.stop()


def _group(alluxio: AlluxioCluster, addresses: list[str]) -> None:
    folder = Path(journal_folder.folder(alluxio, alluxio.masters[0]), "raft", GROUP, "current")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "raft-meta.conf").write_bytes(conf(*addresses))
    hosts.given(Path(alluxio.state_dir))  # as on a host, the folder is not root's


def test_only_the_primary_answers(found: tuple[AlluxioCluster, list[Double], Fleet]) -> None:
    alluxio, doubles, fleet = found
    assert masters.find_primary(fleet, alluxio) is None
    doubles[1].answer = SAFE_MODE
    assert masters.find_primary(fleet, alluxio) is None
    doubles[1].answer = JETTY
    assert masters.find_primary(fleet, alluxio) == "m1"
    masters.require_healthy(fleet, alluxio, alluxio.masters)


def test_all_listen_and_none_is_the_primary(
    found: tuple[AlluxioCluster, list[Double], Fleet],
) -> None:
    """What a look at the journal's port alone called healthy."""
    alluxio, doubles, fleet = found
    with pytest.raises(Unhealthy) as caught:
        masters.require_healthy(fleet, alluxio, alluxio.masters[:1])
    (problem,) = caught.value.problems
    assert problem.id == "master-no-primary"
    assert problem.what == "none of 3 masters answers as the primary; an election needs 2 of them"
    doubles[2].stop()
    with pytest.raises(Unhealthy) as caught:
        masters.require_healthy(fleet, alluxio, alluxio.masters[:1])
    assert caught.value.problems[0].what.endswith("2 of them, and m2 does not listen")


def test_a_master_that_has_not_joined(found: tuple[AlluxioCluster, list[Double], Fleet]) -> None:
    """It listens, and the primary serves; but an election would not have it."""
    alluxio, doubles, fleet = found
    doubles[0].answer = JETTY
    _group(alluxio, [journal.address(m) for m in alluxio.masters[:2]])
    masters.require_healthy(fleet, alluxio, alluxio.masters[:2])
    with pytest.raises(Unhealthy) as caught:
        masters.require_healthy(fleet, alluxio, alluxio.masters)
    (problem,) = caught.value.problems
    assert problem.where.startswith("m2 ")
    assert problem.what.startswith("has not joined the others' journal")


def gate(alluxio: AlluxioCluster, fleet: Fleet, first: AlluxioMaster) -> Gate:
    found = masters._can_miss(alluxio, fleet, [first])
    assert found is not None
    return found


def test_a_restart_leaves_enough_for_an_election(
    found: tuple[AlluxioCluster, list[Double], Fleet],
) -> None:
    alluxio, doubles, fleet = found
    doubles[0].answer = JETTY
    gate(alluxio, fleet, alluxio.masters[1]).check()
    doubles[2].stop()
    with pytest.raises(Unhealthy) as caught:
        gate(alluxio, fleet, alluxio.masters[1]).check()
    assert "m2 does not listen" in caught.value.problems[0].what
    doubles[0].answer = b""  # nothing serves: a restart may be what helps
    gate(alluxio, fleet, alluxio.masters[1]).check()


def test_one_master_is_healthy_by_itself(
    found: tuple[AlluxioCluster, list[Double], Fleet],
) -> None:
    alluxio, doubles, fleet = found
    (first, *_) = alluxio.masters
    one = replace(alluxio, masters=(first,))
    with pytest.raises(Unhealthy):
        masters.require_healthy(fleet, one, one.masters)
    doubles[0].answer = JETTY
    masters.require_healthy(fleet, one, one.masters)
    gate(one, fleet, first).check()
    assert plan(one, running(one)).steps == ()
