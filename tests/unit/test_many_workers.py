"""What thousands of workers take in check-nodes: counted, not timed. bench/ has the times."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import Entry, Registration, RegistrationSnapshot
from provision.alluxio.worker import desired
from provision.alluxio.worker.desired import Artifacts
from provision.check_nodes.verdict import NodeVerdict, State
from provision.check_nodes.verdicts import verdicts
from provision.etcd.api.values import KeyValue
from provision.host import facts
from provision.inventory import load
from provision.inventory.model import PageStore, Secret
from provision.inventory.resolved import AlluxioWorker, Inventory, Machine
from tests.unit import builders
from tests.unit.hosts import TARBALL

WORKERS = 2000
INVENTORY = """\
cluster: c
etcd:
  version: 3.6.16
  source: {package: true}
  members:
    etcd0: {host: 127.0.0.1}
alluxio:
  version: "313"
  source: {url: "https://example.com/alluxio.tar.gz", sha256: "%s"}
  properties: {alluxio.dora.client.ufs.root: /tmp}
  workers:
    worker[0001-2000]: {host: "worker[0001-2000].example"}
"""


def worker_id(number: int) -> str:
    return f"worker-{number:08x}-2222-3333-4444-555555555555"


def value(number: int) -> bytes:
    """As Alluxio 313 writes it."""
    address = {
        **{"Host": f"worker{number:04}.example", "ContainerHost": "", "RpcPort": 29999},
        **{"DataPort": 29997, "SecureRpcPort": 0, "NettyDataPort": 0, "WebPort": 30000},
        **{"DomainSocketPath": "", "HttpServerPort": 0},
    }
    own = worker_id(number)
    identity = {"version": 1, "identifier": own.removeprefix("worker-").replace("-", "")}
    entity = {
        **{"Identity": identity, "WorkerNetAddress": address, "State": "AUTHORIZED"},
        **{"GenerationNumber": -1, "ServiceEntityName": own},
    }
    return json.dumps(entity, separators=(",", ":")).encode()


def snapshot() -> RegistrationSnapshot:
    known: dict[str, Entry] = {}
    for prefix in (registrations.authorized_prefix("c"), registrations.live_prefix("c")):
        lease = 1 << 60 if known else 0
        keys = [
            KeyValue(f"{prefix}{worker_id(n)}".encode(), value(n), lease and lease + n, 1000 + n)
            for n in range(1, WORKERS + 1)
        ]
        before, known = known, registrations.entries(prefix, keys, known)
    return RegistrationSnapshot("c", 9, before, known)


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    return load(written(tmp_path_factory.mktemp("many")))


def written(folder: Path) -> Path:
    path = folder / "many.yml"
    path.write_text(INVENTORY % ("0" * 64), encoding="utf-8")
    return path


def joined(inventory: Inventory, seen: RegistrationSnapshot) -> list[NodeVerdict]:
    assert inventory.alluxio is not None
    found = verdicts(inventory.alluxio, seen, None)
    assert [n.state for n in found] == [State.LIVE] * WORKERS
    return found


def kib(make: Any, *given: Any) -> tuple[float, float]:
    """KiB a worker that are kept of what ``make`` returns, and at the most meanwhile."""
    make(*given)  # what is made only once is there already
    gc.collect()
    tracemalloc.start()
    try:
        made = make(*given)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del made
    return kept / WORKERS / 1024, peak / WORKERS / 1024


def test_the_memory_of_the_inventory(tmp_path: Path) -> None:
    path = written(tmp_path)
    kept, peak = kib(load, path)
    assert kept < 0.56
    assert peak < 2.4  # Python 3.10 takes 2.26, 3.11 2.01


def test_the_memory_of_the_registrations_and_the_verdicts(inventory: Inventory) -> None:
    kept, _ = kib(snapshot)
    assert kept < 1.8  # both keys, with values of their own; a read keeps an equal value once
    kept, peak = kib(joined, inventory, snapshot())
    assert kept < 0.2
    assert peak < 0.5


def test_the_objects_of_a_worker(inventory: Inventory) -> None:
    """The garbage collector begins when there are 200,000 more than before: see lightly."""
    gc.collect()
    before = len(gc.get_objects())
    seen = snapshot()
    found = joined(inventory, seen)
    assert (len(gc.get_objects()) - before) / WORKERS < 6.5
    assert len(found) == WORKERS


def test_what_workers_share_is_kept_once() -> None:
    seen = snapshot()
    first, second = (seen.authorized[worker_id(n)].registration for n in (1, 2))
    assert isinstance(first, Registration)
    assert isinstance(second, Registration)
    assert first.web_port is second.web_port
    assert first.rpc_port is second.rpc_port
    live = next(iter(seen.live))
    assert live is next(iter(seen.authorized))
    assert seen.live[live].registration is seen.authorized[live].registration


class Looked(tuple[AlluxioWorker, ...]):
    """Counts how often somebody goes through all of it."""

    __slots__ = ()
    times = 0

    def __iter__(self) -> Iterator[AlluxioWorker]:
        Looked.times += 1
        return super().__iter__()


def test_what_a_worker_shall_have_is_known_without_a_look_at_the_others(
    inventory: Inventory,
) -> None:
    """Or else the work for all of them grows with their square."""
    assert inventory.alluxio is not None
    workers = Looked(inventory.alluxio.workers)
    alluxio = replace(inventory.alluxio, workers=workers)
    some = workers[:20]
    Looked.times = 0
    for w in some:
        desired.probe(alluxio, w, Artifacts(TARBALL, None))
    assert Looked.times <= 1
    # Others are not taken for these.
    fewer = replace(alluxio, workers=some)
    texts = [desired.hosts_file("c", a.workers).count(b"\nworker") for a in (alluxio, fewer)]
    assert texts == [WORKERS, 20]


def test_hosts_of_which_the_same_is_asked_have_one_probe(inventory: Inventory) -> None:
    assert inventory.alluxio is not None
    artifacts = Artifacts(TARBALL, None)
    usual = inventory.alluxio.workers[:4]
    odd: dict[str, Any] = {
        "rpc_port": 29998,
        "page_store": PageStore(dirs=["/mnt/pages"], sizes=["1GB"]),
        "java_home": "/opt/jdk",
        "properties": {"alluxio.worker.web.port": 30001},
        "secret_properties": {"s3a.secretKey": Secret(env="PATH")},
        "env": {"ALLUXIO_WORKER_JAVA_OPTS": "-Dalluxio.worker.web.port=30002"},
    }
    others = [
        usual[0]._replace(machine=Machine(f"odd{n}"), **{field: value})
        for n, (field, value) in enumerate(odd.items())
    ]
    beside = builders.master("m1", usual[1].hostname)
    alluxio = replace(inventory.alluxio, workers=(*usual, *others), masters=(beside,))
    found = desired.probes(alluxio, alluxio.workers, artifacts)
    assert len({id(found[w.machine]) for w in usual}) == 2  # one has a master beside it
    assert len({id(probe) for probe in found.values()}) == 2 + len(odd)
    for w in alluxio.workers:
        own = desired.probe(alluxio, w, artifacts)
        assert facts.calls(found[w.machine], "mark") == facts.calls(own, "mark"), w
