"""The address that a worker will register, and which differences Alluxio refuses."""

from __future__ import annotations

from typing import Any

import pytest

from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import Registration
from provision.inventory import worker_address
from provision.inventory.model import Secret
from provision.inventory.worker_address import Address
from tests.unit import builders

WORKER = builders.worker("w1", "w1.example.com")
REGISTERED = Registration(
    worker_id="worker-1",
    host="w1.example.com",
    rpc_port=29999,
    data_port=29997,
    web_port=30000,
    state="AUTHORIZED",
    generation=-1,
    netty_data_port=29997,
    http_port=28080,
)
SOCKET = "alluxio.worker.data.server.domain.socket.address"
AS_UUID = "alluxio.worker.data.server.domain.socket.as.uuid"
EPOLL = {"alluxio.worker.network.netty.channel": "EPOLL"}


def of(**changed: Any) -> Address:
    return worker_address.declared(WORKER._replace(**changed))


def test_the_defaults_are_what_313_registers() -> None:
    assert of() == Address("w1.example.com", "", 29999, 29997, 30000, 0, "")
    assert registrations.differing(of(), REGISTERED) == []


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"alluxio.worker.web.port": 30001}, ["web port 30000 becomes 30001"]),
        ({"alluxio.worker.data.port": "29000"}, ["data port 29997 becomes 29000"]),
        ({"alluxio.worker.container.hostname": "c1"}, ["container host (none) becomes c1"]),
        (
            {"alluxio.user.netty.data.transmission.enabled": False},
            ["data port 29997 becomes 29999"],
        ),
        ({SOCKET: "/run/a", **EPOLL}, ["domain socket (none) becomes /run/a"]),
        ({SOCKET: "/run/a"}, []),  # NIO has none
        (
            {SOCKET: "/run/a", AS_UUID: True, **EPOLL},
            ["domain socket (none) becomes (a new path at each start)"],
        ),
        # Alluxio's comparison leaves these out.
        ({"alluxio.worker.http.server.port": 1}, []),
        ({"alluxio.worker.rest.port": 1}, []),
        # What is not known from here is no difference.
        ({"alluxio.worker.web.port": 0}, []),
        ({"alluxio.worker.web.port": "${a.b}"}, []),
        ({"alluxio.worker.container.hostname": "${a.b}"}, []),
    ],
)
def test_a_property(properties: dict[str, Any], said: list[str]) -> None:
    assert registrations.differing(of(properties=properties), REGISTERED) == said


def test_each_field_that_alluxio_compares_counts() -> None:
    for field in Address._fields:
        other: dict[str, Any] = {field: 1 if field.endswith("port") else "other"}
        (said,) = registrations.differing(of(), REGISTERED._replace(**other))
        assert said.startswith(worker_address.TITLES[field])
    for field in ("netty_data_port", "http_port", "generation"):
        ignored: dict[str, Any] = {field: 1}
        assert registrations.differing(of(), REGISTERED._replace(**ignored)) == []


def test_host_and_port_of_the_inventory() -> None:
    found = registrations.differing(of(hostname="w9", rpc_port=31000), REGISTERED)
    assert found == ["host w1.example.com becomes w9", "rpc port 29999 becomes 31000"]


def test_an_option_of_java_counts_more_than_a_property() -> None:
    env = {"ALLUXIO_WORKER_JAVA_OPTS": "-Xmx1g -Dalluxio.worker.web.port=30007 -XX:+UseG1GC"}
    found = of(env=env, properties={"alluxio.worker.web.port": 30001})
    assert found.web_port == 30007
    quoted = {"ALLUXIO_JAVA_OPTS": '"-Dalluxio.worker.web.port=30008"'}
    assert of(env=quoted).web_port == 30008


def test_a_secret_is_not_looked_at() -> None:
    found = of(secret_properties={"alluxio.worker.container.hostname": Secret(env="X")})
    assert found.container_host is None


def test_in_kubernetes_a_worker_writes_over_its_registration() -> None:
    inside = WORKER._replace(properties={"alluxio.k8s.env.deployment": True})
    assert worker_address.overwritten(inside)
    assert not worker_address.overwritten(WORKER)
