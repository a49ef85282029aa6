"""Which ports a worker and a master listen on, by what their properties say."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import InventoryError
from provision.inventory import load, ports
from provision.inventory.model import Scalar
from tests.unit import builders


def of_worker(properties: dict[str, Scalar], env: dict[str, str] | None = None) -> dict[str, int]:
    worker = builders.worker("w1")._replace(properties=properties, env=env or {})
    alluxio = builders.alluxio(worker)
    return {found.name: found.port for found in ports.worker_listeners(alluxio, worker)}


def test_a_workers_defaults() -> None:
    assert of_worker({}) == {"rpc": 29999, "data": 29997, "web": 30000, "http": 28080}


@pytest.mark.parametrize(
    ("properties", "differs"),
    [
        ({"alluxio.worker.web.port": 31000}, {"web": 31000}),
        ({"alluxio.worker.web.port": " 31000 "}, {"web": 31000}),
        ({"alluxio.worker.data.port": 0}, {"data": 0}),
        ({"alluxio.worker.web.port": "x"}, {}),
        ({"alluxio.worker.web.port": "${alluxio.worker.rpc.port}"}, {"web": 0}),
        ({"alluxio.worker.web.port": 65536}, {}),
        ({"alluxio.worker.web.port": True}, {}),
        ({"alluxio.worker.s3.api.enabled": True}, {"s3": 29998}),
        ({"alluxio.worker.s3.api.enabled": "TRUE", "alluxio.worker.rest.port": 1}, {"s3": 1}),
        ({"alluxio.worker.rest.port": 1}, {}),
        ({"alluxio.worker.http.server.enabled": "false"}, {"http": None}),
        ({"alluxio.user.netty.data.transmission.enabled": False}, {"data": None}),
        (
            {
                "alluxio.user.netty.data.transmission.enabled": False,
                "alluxio.worker.s3.api.enabled": True,
            },
            {"data": None},
        ),
    ],
)
def test_a_workers_properties(properties: dict[str, Scalar], differs: dict[str, int]) -> None:
    expected = {"rpc": 29999, "data": 29997, "web": 30000, "http": 28080, **differs}
    assert of_worker(properties) == {n: p for n, p in expected.items() if p is not None}


def test_options_of_the_jvm_win_the_roles_own_last() -> None:
    env = {
        "ALLUXIO_JAVA_OPTS": "-Dalluxio.worker.web.port=1 -Dalluxio.worker.data.port=2",
        "ALLUXIO_WORKER_JAVA_OPTS": "-Xmx1g '-Dalluxio.worker.web.port=3'",
        "ALLUXIO_MASTER_JAVA_OPTS": "-Dalluxio.worker.data.port=9",
    }
    found = of_worker({"alluxio.worker.web.port": 4}, env)
    assert found == {"rpc": 29999, "data": 2, "web": 3, "http": 28080}


def test_a_master_alone_and_beside_a_worker() -> None:
    alone, beside = builders.master("m0"), builders.master("m1", "w1", journal_port=19201)
    worker = builders.worker("w1")._replace(properties={"alluxio.master.web.port": 2})
    shared: dict[str, Scalar] = {"alluxio.master.web.port": 1}
    alluxio = builders.alluxio(worker, masters=(alone, beside), properties=shared)
    found = [{x.name: x.port for x in ports.master_listeners(alluxio, m)} for m in alluxio.masters]
    assert found == [
        {"rpc": 19998, "web": 1, "journal": 19200},
        {"rpc": 19998, "web": 2, "journal": 19201},
    ]


def test_a_journal_elsewhere_has_no_port() -> None:
    properties: dict[str, Scalar] = {"alluxio.master.journal.type": "UFS"}
    master = builders.master("m0")
    alluxio = builders.alluxio(masters=(master,), properties=properties)
    assert [x.name for x in ports.master_listeners(alluxio, master)] == ["rpc", "web"]


def test_numbers_are_those_known_before_the_start() -> None:
    web = ports.Listener("web", 30000, "p")
    assert ports.numbers([web, replace(web, port=0), replace(web, port=1), web]) == (30000, 1)


INVENTORY = """\
etcd:
  version: 3.6.16
  source: {package: true}
  members:
    infra0: {host: h0, address: 10.0.0.10}
alluxio:
  version: 313
  source: {path: a.tar.gz, sha256: file:SUMS}
  properties: {}
  masters:
    m0: {host: h0}
    m1: {host: h1}
    m2: {host: h2}
  workers:
    w1: {host: h1}
"""


@pytest.mark.parametrize(
    ("property", "what"),
    [
        (
            "alluxio.worker.http.server.port: 19998",
            "worker 'w1' (alluxio.worker.http.server.port) and master 'm1' "
            "(alluxio.master.rpc.port) both use port 19998 of 'h1'",
        ),
        (
            "alluxio.master.web.port: 2379",
            "master 'm0' (alluxio.master.web.port) and member 'infra0' (client_port) both use "
            "port 2379 of 'h0'",
        ),
        (
            "alluxio.master.web.port: 19200",
            "the master's alluxio.master.web.port and alluxio.master.embedded.journal.port"
            " are both 19200",
        ),
        (
            "alluxio.worker.data.port: 28080",
            "the worker's alluxio.worker.data.port and alluxio.worker.http.server.port"
            " are both 28080",
        ),
    ],
)
def test_two_listeners_of_a_host_with_one_port(tmp_path: Path, property: str, what: str) -> None:
    path = tmp_path / "i.yml"
    path.write_text(INVENTORY)
    load(path)
    path.write_text(INVENTORY.replace("properties: {}", f"properties: {{{property}}}"))
    with pytest.raises(InventoryError) as caught:
        load(path)
    (place,) = [p.where for p in caught.value.problems if p.what == what]
    assert ":9:" in place  # the property's line


def test_the_reference_has_every_listener_in_its_table() -> None:
    """The page is made from the same list; a listener that has no row of its own is an error."""
    hooks = importlib.import_module("docs.hooks")
    rows = [line for line in hooks.ports().splitlines() if line.startswith("| ")][2:]
    for role, kinds in (("worker", ports.WORKER), ("master", ports.MASTER)):
        for kind in kinds:
            begin = f"| {role} | {kind.name} | {kind.default} | `{kind.property}`"
            (row,) = [row for row in rows if row.startswith(begin)]
            assert row.endswith(f" | {kind.from_whom} |")
            assert kind.turned_on_by in row
    assert len(rows) == 3 + len(ports.WORKER) + len(ports.MASTER)
