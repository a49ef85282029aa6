"""Readiness: the real script against real listeners of this machine, and what its lines mean."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from provision.alluxio.commands import readiness
from provision.host.facts import Probe, merged_each
from provision.inventory.resolved import AlluxioWorker
from tests.unit import builders, hosts
from tests.unit.hosts import LocalFleet


class _Answers(http.server.BaseHTTPRequestHandler):
    """As a worker's web and HTTP server: two paths are known."""

    def do_GET(self) -> None:
        known = self.path in ("/metrics/", "/v1/health")
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(b"x" * 100_000)  # more than a pipe holds

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Broken(_Answers):
    def do_GET(self) -> None:
        self.send_error(503)


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler] = _Answers) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def hanging_up() -> Iterator[int]:
    """Takes a connection, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def of_ports(rpc: int, data: int, web: int, http: int) -> AlluxioWorker:
    properties = {
        "alluxio.worker.data.port": data,
        "alluxio.worker.web.port": web,
        "alluxio.worker.http.server.port": http,
    }
    return builders.worker("w1", "localhost", rpc)._replace(properties=properties)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process of this machine is in the worker's unit."""
    monkeypatch.setattr(readiness, "IN_UNIT", "/")


@pytest.fixture
def ports() -> Iterator[list[int]]:
    with ExitStack() as stack:
        makers = (listening, listening, serving, serving)
        yield [stack.enter_context(make()) for make in makers]


def look(worker: AlluxioWorker, folder: Path) -> readiness.Readiness:
    alluxio = builders.alluxio(worker, user=hosts.ME, install_dir=str(folder))
    seen, problems = readiness.look(LocalFleet(folder), alluxio, [worker])
    assert problems == []
    return seen["w1"]


def installed(folder: Path) -> None:
    tool = folder / "current/bin/alluxio"
    tool.parent.mkdir(parents=True)
    tool.touch(0o755)


@pytest.mark.process
@pytest.mark.usefixtures("ours")
def test_all_listeners_answer(ports: list[int], tmp_path: Path) -> None:
    installed(tmp_path)
    found = look(of_ports(*ports), tmp_path)
    assert (found.ready, found.notes) == (True, ())
    assert [x.name for x in found.listeners] == ["rpc", "data", "web", "http"]


@pytest.mark.process
@pytest.mark.usefixtures("ours")
def test_a_host_without_alluxio_is_not_ready(ports: list[int], tmp_path: Path) -> None:
    found = look(of_ports(*ports), tmp_path)
    assert (found.installed, found.ready) == (False, False)


@pytest.mark.process
@pytest.mark.usefixtures("ours")
def test_a_worker_that_binds_one_address_is_asked_there(tmp_path: Path) -> None:
    installed(tmp_path)
    with ExitStack() as stack:
        four = [
            stack.enter_context(socket.create_server(("127.0.0.2", 0))).getsockname()[1]
            for _ in range(2)
        ]
        four += [stack.enter_context(serving()) for _ in range(2)]
        worker = of_ports(*four)._replace(hostname="127.0.0.2")
        assert look(worker, tmp_path).ready
        assert look(worker._replace(hostname="127.0.0.3"), tmp_path).silent == {
            "rpc": "the connection is refused",
            "data": "the connection is refused",
        }


@pytest.mark.process
@pytest.mark.usefixtures("ours")
def test_why_each_does_not_answer(ports: list[int], tmp_path: Path) -> None:
    installed(tmp_path)
    data = ports[1]
    with hanging_up() as closes, serving(_Broken) as sick:
        found = look(of_ports(free_port(), data, closes, sick), tmp_path)
    assert found.silent == {
        "rpc": "nothing listens",
        "web": "the connection is closed without an answer",
        "http": "GET /v1/health returned 'HTTP/1.0 503 Service Unavailable'",
    }
    assert not found.ready
    assert found.notes[2] == (
        f"its http port {sick} does not answer: GET /v1/health returned 'HTTP/1.0 503 Service "
        "Unavailable'"
    )


@pytest.mark.process
@pytest.mark.usefixtures("ours")
def test_a_listener_that_takes_connections_and_says_nothing(
    ports: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 1.0)
    installed(tmp_path)
    rpc, data, web, _ = ports
    with listening() as silent:
        found = look(of_ports(rpc, data, web, silent), tmp_path)
    assert found.silent == {"http": "no answer in 1.0 s"}


@pytest.mark.process
def test_a_port_that_another_process_has_is_not_the_workers(
    ports: list[int], tmp_path: Path
) -> None:
    installed(tmp_path)
    found = look(of_ports(*ports), tmp_path)
    assert set(found.silent) == {"rpc", "data", "web", "http"}
    assert "another process listens on it: pid " in found.silent["http"]


@pytest.mark.parametrize("text", ["", "http\nhttp \n", "\x1b[2J\nhttp answered \x1b[2J"])
def test_lines_of_any_form_are_no_answer(text: str) -> None:
    facts = hosts.facts(commands={readiness.LABEL: text})
    found = readiness.of(builders.alluxio(), builders.worker("w1"), facts)
    assert set(found.silent) == {"rpc", "data", "web", "http"}
    assert "\x1b" not in "".join(found.notes)


def test_a_port_that_the_worker_chooses_itself_is_not_asked() -> None:
    worker = of_ports(1, 0, 0, 0)._replace(properties={"alluxio.worker.web.port": 0})
    asked = readiness.of(builders.alluxio(), worker, hosts.facts()).listeners
    assert "web" not in [x.name for x in asked]


@pytest.mark.process
@pytest.mark.usefixtures("ours")
def test_workers_share_a_script_and_each_is_asked_at_its_own_address(tmp_path: Path) -> None:
    """The first binds one address, and the second another."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.2", 0)))
        port = server.getsockname()[1]
        stack.enter_context(socket.create_server(("127.0.0.3", port)))
        off = {f"alluxio.worker.{x}.port": 0 for x in ("data", "web", "http.server")}
        workers = [
            builders.worker(f"w{n}", f"127.0.0.{n}", port)._replace(properties=off)
            for n in (2, 3, 4)
        ]
        alluxio = builders.alluxio(*workers, user=hosts.ME, install_dir=str(tmp_path))
        installed(tmp_path)
        probes = readiness.probes(alluxio, workers)
        assert len({id(probe) for probe in probes.values()}) == 1
        assert len({id(p) for p in merged_each(probes, probes).values()}) == 1
        other = merged_each(probes, {m: Probe() for m in probes})
        assert len({id(p) for p in other.values()}) == 3
        seen, _ = readiness.look(LocalFleet(tmp_path), alluxio, workers)
    assert {name: found.ready for name, found in seen.items()} == {
        "w2": True,
        "w3": True,
        "w4": False,
    }
