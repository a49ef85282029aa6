"""TLS is turned on and off for clients of a running cluster: nobody is cut off."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from provision.errors import ProvisionError
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdError
from provision.etcd.api.values import Endpoint

from .lab import Host, Lab

OLD, PLAIN = 2379, 2381
LIVE = f"/ServiceDiscovery/{Lab.name}/"
OTHER = "/ServiceDiscovery/OtherTeam/worker-1"


@dataclass
class Seen:
    """What a client without TLS saw: how often no member listened, and how many workers were
    live."""

    deaf: int = 0
    looks: int = 0
    live: list[int] = field(default_factory=list)


def listens(host: Host, port: int) -> bool:
    """Whether it accepts connections, and answers one without TLS."""
    try:
        with socket.create_connection((host.address, port), 2) as plain:
            plain.sendall(b"GET /version HTTP/1.0\r\n\r\n")
            return b"200 OK" in plain.recv(4096)
    except OSError:
        return False


@contextlib.contextmanager
def watching(lab: Lab) -> Iterator[Seen]:
    """Meanwhile, look as a worker does that knows the plain listeners of all members."""
    seen, done = Seen(), threading.Event()

    def look() -> None:
        while not done.wait(0.2):
            seen.looks += 1
            up = [(h, p) for h in lab.etcd for p in (OLD, PLAIN) if listens(h, p)]
            seen.deaf += not up
            for host, port in up:
                with (
                    contextlib.suppress(EtcdError, ProvisionError),
                    EtcdClient(Endpoint(host.address, port), timeout=3) as client,
                ):
                    seen.live.append(len(client.range(LIVE)[1]))
                    break

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def plain(lab: Lab) -> Iterator[Path]:
    lab.clear()
    lab.invoke("deploy-etcd").expect(0)
    lab.invoke("start-workers").expect(0, "2 of 2 live")
    yield lab.declared
    lab.clear()


@pytest.fixture(scope="module")
def secured(lab: Lab) -> Path:
    return lab.inventory({"etcd": {"tls": {"client": True, "plain_client_port": PLAIN}}})


def require_nobody_cut_off(seen: Seen) -> None:
    assert seen.looks > 20
    assert seen.deaf == 0
    assert min(seen.live) >= 1
    assert seen.live[-1] == 2


def served(lab: Lab, port: int) -> list[bool]:
    return [listens(host, port) for host in lab.etcd]


def test_tls_is_turned_on_and_nobody_is_cut_off(lab: Lab, plain: Path, secured: Path) -> None:
    lab.invoke("deploy-etcd", secured, "--dry-run").expect(0, "no longer listens at http://")
    with watching(lab) as seen:
        lab.invoke("deploy-etcd", secured).expect(0)
    require_nobody_cut_off(seen)
    assert served(lab, OLD) == [False] * 3
    assert served(lab, PLAIN) == [True] * 3
    lab.invoke("deploy-etcd", secured).expect(0, "0 changed")
    lab.invoke("start-workers", secured).expect(0, "0 changed")
    lab.invoke("check-nodes", secured).expect(0, "2 LIVE")


def test_it_is_turned_off_again_by_runs_that_are_killed(
    lab: Lab, plain: Path, secured: Path
) -> None:
    with watching(lab) as seen:
        for line in (r"etcd\d: ok", "restart worker", "no longer listens"):
            run = lab.start("deploy-etcd", plain)
            run.wait_for(line)
            run.kill()
        lab.invoke("deploy-etcd", plain).expect(0)
    require_nobody_cut_off(seen)
    assert served(lab, OLD) == [True] * 3
    assert served(lab, PLAIN) == [False] * 3
    lab.invoke("deploy-etcd", plain).expect(0, "0 changed")
    lab.invoke("check-nodes", plain).expect(0, "2 LIVE")


def test_another_clusters_workers_keep_the_former_url(lab: Lab, plain: Path, secured: Path) -> None:
    lab.invoke("deploy-etcd", plain).expect(0)
    with lab.client(lab.etcd[0]) as client:
        lease = client.lease_grant(3600)
        client.put(OTHER, "{}", lease=lease)
    lab.invoke("deploy-etcd", secured).expect(0, "OtherTeam (1 live)", "[client-url-former]")
    assert served(lab, OLD) == [True] * 3
    lab.invoke("deploy-etcd", secured).expect(0, "0 changed", "[client-url-former]")
    # Other commands keep it, too.
    lab.invoke("rotate-certs", secured, "--ca").expect(0)
    assert served(lab, OLD) == [True] * 3
    lab.invoke("deploy-etcd", secured, "--lock-out", "Nobody").expect(2, "[name-unknown]")
    lab.invoke("deploy-etcd", secured, "--lock-out", "OtherTeam").expect(0)
    assert served(lab, OLD) == [False] * 3
