"""Registrations removed from a real etcd and put back, and the races that must not remove one."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provision.alluxio.membership import registrations, removed, type_change
from provision.engine import plan as plans
from provision.engine.plan import Plan
from provision.errors import ChangeFailed, PreflightFailed, UsageError
from provision.etcd.api.client import EtcdClient
from provision.etcd.cluster.handle import Etcd
from provision.inventory.membership_type import MembershipType
from provision.inventory.resolved import AlluxioCluster, Inventory
from provision.plans.alluxio import forget_worker, readmit_worker
from provision.plans.alluxio.forget_worker import Removal
from provision.ssh.session import Fleet
from tests.component.conftest import Boot, Running
from tests.unit import builders

CLUSTER = "c"
ONE, OTHER = (f"worker-{d * 8}-1111-2222-3333-444444444444" for d in "ab")


@pytest.fixture(scope="module")
def running(boot: Boot) -> Iterator[Running]:
    with boot() as running:
        yield running


class World:
    """The workers w1, whose id is ONE, and w2, whose id is OTHER: registered, and not live."""

    def __init__(self, running: Running, fleet: Fleet, client: EtcdClient) -> None:
        self.alluxio: AlluxioCluster = builders.alluxio()
        self.inventory: Inventory = builders.inventory(self.alluxio, etcd=running.cluster)
        self.fleet, self.client = fleet, client
        self.etcd = Etcd(running.cluster, fleet)
        for prefix in (registrations.AUTHORIZED_ROOT, registrations.LIVE_ROOT):
            for kv in client.range(prefix)[1]:
                client.delete(kv.key)
        for worker_id, host in ((ONE, "w1"), (OTHER, "w2")):
            client.put(self.authorized(worker_id), value(worker_id, host))

    def authorized(self, worker_id: str) -> str:
        return registrations.authorized_prefix(CLUSTER) + worker_id

    def live(self, worker_id: str, host: str, lease: int | None = None) -> None:
        key = registrations.live_prefix(CLUSTER) + worker_id
        granted = self.client.lease_grant(60) if lease is None else lease
        self.client.put(key, value(worker_id, host), lease=granted)

    def forget(self, *ids: str) -> Removal:
        return forget_worker.forget(self.inventory, self.alluxio, self.etcd, ids)

    def apply(self, what: Plan | Removal) -> None:
        plans.apply(what.plan if isinstance(what, Removal) else what, self.fleet)

    def left(self) -> list[str]:
        prefix = registrations.authorized_prefix(CLUSTER)
        return [kv.key.decode().removeprefix(prefix) for kv in self.client.range(prefix)[1]]


def value(worker_id: str, host: str) -> str:
    entity = {"WorkerNetAddress": {"Host": host, "RpcPort": 29999}, "State": "AUTHORIZED"}
    return json.dumps({**entity, "ServiceEntityName": worker_id})


@pytest.fixture
def world(running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with Fleet(2) as fleet, Etcd(running.cluster, fleet).any() as client:
        yield World(running, fleet, client)


@pytest.mark.parametrize("given", [ONE, ONE.removeprefix("worker-")])
def test_one_id_goes_and_is_kept_in_a_private_file(world: World, given: str) -> None:
    before = world.client.get(world.authorized(ONE))
    removal = world.forget(given)
    assert removal.plan.changed == 1
    assert [n.where for n in removal.plan.notes] == ["w1"]  # it is declared
    world.apply(removal)
    assert world.left() == [OTHER]
    (path,) = removal.files
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    saved = removed.read(path)
    assert before is not None
    assert (saved.key, saved.value, saved.worker_id) == (before.key, before.value, ONE)
    assert world.forget(given).plan.steps == ()


def test_what_was_removed_can_be_put_back(world: World) -> None:
    before = world.client.get(world.authorized(ONE))
    removal = world.forget(ONE)
    world.apply(removal)
    (file,) = removal.files

    def readmit() -> Plan:
        return readmit_worker.plan(world.inventory, world.alluxio, world.etcd, file)

    world.apply(readmit())
    after = world.client.get(world.authorized(ONE))
    assert before is not None
    assert after is not None
    assert after.value == before.value
    assert readmit().steps == ()
    world.client.put(world.authorized(ONE), value(ONE, "elsewhere"))
    with pytest.raises(PreflightFailed, match="now has another registration"):
        readmit()
    world.client.delete(world.authorized(ONE))
    late = readmit()
    world.client.put(world.authorized(ONE), value(ONE, "elsewhere"))
    with pytest.raises(ChangeFailed, match="has registered itself meanwhile"):
        world.apply(late)


def test_a_file_of_another_cluster(world: World) -> None:
    removal = world.forget(ONE)
    world.apply(removal)
    (file,) = removal.files
    other = builders.alluxio(name="d")
    with pytest.raises(UsageError, match="is of cluster c, not d"):
        readmit_worker.plan(world.inventory, other, world.etcd, file)


def test_a_live_one_is_refused_and_nothing_goes(world: World) -> None:
    world.live(ONE, "w1")
    with pytest.raises(PreflightFailed) as caught:
        world.forget(ONE, OTHER)
    assert "LIVE at w1:29999" in caught.value.problems[0].what
    assert world.left() == [ONE, OTHER]


def test_a_live_key_without_a_lease_is_refused_too(world: World) -> None:
    world.live(ONE, "w1", lease=0)
    with pytest.raises(PreflightFailed) as caught:
        world.forget(ONE)
    assert "without a lease" in caught.value.problems[0].what
    assert world.left() == [ONE, OTHER]


@pytest.mark.parametrize(
    ("between", "says"),
    [
        (lambda w: w.live(ONE, "w1"), "has become LIVE meanwhile"),
        (
            lambda w: w.client.put(w.authorized(ONE), value(ONE, "w1")),
            "has registered again meanwhile",
        ),
    ],
)
def test_a_worker_that_comes_up_between_look_and_removal(
    world: World, between: Callable[[World], None], says: str, tmp_path: Path
) -> None:
    plan = world.forget(ONE)
    between(world)
    with pytest.raises(ChangeFailed, match=f"{says}: nothing was removed"):
        world.apply(plan)
    assert world.left() == [ONE, OTHER]
    # Nothing is kept of what was not removed.
    assert list(tmp_path.glob("**/registrations/*")) == []


def test_one_that_another_run_has_removed_meanwhile(world: World) -> None:
    plan = world.forget(ONE)
    world.client.delete(world.authorized(ONE))
    world.apply(plan)
    assert world.left() == [OTHER]


def test_the_first_that_fails_stops_the_rest(world: World) -> None:
    plan = world.forget(ONE, OTHER)
    world.live(ONE, "w1")
    with pytest.raises(ChangeFailed):
        world.apply(plan)
    assert world.left() == [ONE, OTHER]


def test_stale_ids_go_when_their_number_is_known(world: World) -> None:
    stale = ["worker-old", "worker-older"]
    for worker_id in stale:
        world.client.put(world.authorized(worker_id), value(worker_id, "gone"))
    given = world.inventory, world.alluxio, world.etcd
    with pytest.raises(UsageError, match="2 ids are stale, not 3") as caught:
        forget_worker.forget_stale(*given, 3)
    assert "worker-old, worker-older" in caught.value.message
    world.apply(forget_worker.forget_stale(*given, 2))
    assert world.left() == [ONE, OTHER]


def test_nothing_goes_when_it_cannot_be_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc")
    with pytest.raises(ChangeFailed, match="nothing was removed"):
        world.apply(world.forget(ONE))
    assert world.left() == [ONE, OTHER]


def test_what_etcd_membership_has_left_is_forgotten_with_static(world: World) -> None:
    """The remedy of the warning registrations-unused."""
    static = builders.alluxio(membership=MembershipType.STATIC)
    given = world.inventory, static, world.etcd
    left = type_change.unused(static, forget_worker.look(static, world.etcd))
    assert left is not None
    assert ONE in left.what
    plans.apply(forget_worker.forget(*given, [ONE, OTHER]).plan, world.fleet)
    assert type_change.unused(static, forget_worker.look(static, world.etcd)) is None
    with pytest.raises(UsageError, match="give every id"):
        forget_worker.forget_stale(*given, 1)
