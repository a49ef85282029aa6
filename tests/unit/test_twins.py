"""A clone of a worker: each command that starts workers refuses it, and changes nothing.

Another worker is live under its identity. Alluxio would refuse the clone, or the two would evict
each other in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import Entry, RegistrationSnapshot
from provision.alluxio.worker.tarball import LAUNCHERS
from provision.errors import PreflightFailed, Problem
from provision.etcd.cluster.handle import Etcd
from provision.host.facts import PathState
from provision.inventory.membership_type import MembershipType
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, Inventory
from provision.plans.alluxio import (
    forget_worker,
    restart_workers,
    start_workers,
    upgrade_workers,
)
from provision.ssh.session import Fleet
from tests.unit import builders
from tests.unit.hosts import text
from tests.unit.test_moved import FILE, UUIDS, entry, registered
from tests.unit.test_rolling import World

Given = tuple[Inventory, AlluxioCluster, Etcd, Sequence[AlluxioWorker]]


def start(inventory: Inventory, alluxio: AlluxioCluster, etcd: Etcd, chosen: Any) -> None:
    observed = start_workers.observe(alluxio, etcd, chosen)
    start_workers.plan(inventory, alluxio, etcd, observed, chosen)


COMMANDS: dict[str, Callable[..., object]] = {
    "start-workers": start,
    "restart-workers": restart_workers.restart,
    "upgrade-workers": upgrade_workers.upgrade,
    "rollback-workers": upgrade_workers.rollback,
}
#: What etcd has of w1 and w2: both have joined, and live.
JOINED = (entry(1, "w1"), entry(2, "w2"))
LIVE = (entry(1, "w1", 7), entry(2, "w2", 8))


class Twins(World):
    """Of three workers, w3's host is a clone of w1's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.seen = registered(*JOINED, live=LIVE)
        monkeypatch.setattr(start_workers, "_registered", lambda *_: (self._read(), []))
        monkeypatch.setattr(forget_worker, "look", lambda *_: self._read())
        for name, n in (("w1", 1), ("w2", 2), ("w3", 1)):
            self.runs(name, "313", "312")
            self.file(name, f"/opt/alluxio/312/{LAUNCHERS[0]}", text("#!/bin/bash\n", 0o755))
            self.identity(name, UUIDS[n])

    def _read(self) -> RegistrationSnapshot | None:
        return self.seen if self.alluxio.membership.in_etcd else None

    def identity(self, name: str, uuid: str) -> None:
        self.file(name, FILE, replace(text(uuid + "\n"), owner=self.alluxio.user))

    def file(self, name: str, path: str, file: PathState) -> None:
        before = self.facts[self.alluxio.worker(name).machine].paths
        self.change(name, paths={**before, path: file})

    def run(self, command: str, names: Sequence[str]) -> None:
        chosen = [w for w in self.alluxio.workers if w.name in names]
        with Fleet(4) as fleet:
            inventory = builders.inventory(self.alluxio)
            etcd = Etcd(inventory.etcd, fleet)
            COMMANDS[command](inventory, self.alluxio, etcd, chosen)

    def refused(self, command: str, *names: str) -> list[Problem]:
        with pytest.raises(PreflightFailed) as refused:
            self.run(command, names)
        assert refused.value.exit_code == 3
        return [p for p in refused.value.problems if p.severity == "error"]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Twins:
    return Twins(monkeypatch)


every = pytest.mark.parametrize("command", COMMANDS)
#: Of a refused clone that starts again and again, and of one whose process is up.
stands = pytest.mark.parametrize("active", ["active", "activating"])


@every
@stands
def test_among_the_chosen(world: Twins, command: str, active: str) -> None:
    world.unit("w3", active)
    world.live.pop("w3")
    found = world.refused(command, "w1", "w2", "w3")
    assert {p.where for p in found} == {"w3 at w3"}
    assert {p.id for p in found} == {"worker-identity-cloned", "worker-registered-elsewhere"}


@every
@stands
def test_with_its_twin_not_chosen(world: Twins, command: str, active: str) -> None:
    world.unit("w3", active)
    world.live.pop("w3")
    (problem,) = world.refused(command, "w2", "w3")
    assert (problem.where, problem.id) == ("w3 at w3", "worker-registered-elsewhere")
    assert "registered in etcd as w1:29999, the address of w1" in problem.what


@every
def test_one_that_still_lives_under_its_former_identity(world: Twins, command: str) -> None:
    """w1's file was copied to w3 while w3 ran: its next start has w1's identity."""
    own = entry(2, "w3", 9)
    world.seen = registered(JOINED[0], entry(2, "w3"), live=(LIVE[0], own))
    (problem,) = world.refused(command, "w3")
    assert (problem.where, problem.id) == ("w3 at w3", "worker-registered-elsewhere")


@every
@pytest.mark.parametrize(
    "authorized",
    [(), (entry(2, "w2"),), (entry(1, "w3"), entry(2, "w2"))],
    ids=["nothing", "the others", "the clone"],
)
def test_whatever_the_permanent_key_says(
    world: Twins, command: str, authorized: tuple[Entry, ...]
) -> None:
    """It may be away, or older than the live key, as after a restore."""
    world.seen = registered(*authorized, live=LIVE)
    world.live.pop("w3")
    (problem,) = world.refused(command, "w3")
    assert (problem.where, problem.id) == ("w3 at w3", "worker-registered-elsewhere")


@every
def test_without_permanent_keys(world: Twins, command: str) -> None:
    world.alluxio = replace(world.alluxio, membership=MembershipType.SERVICE_REGISTRY)
    world.seen = registered(live=LIVE)
    world.live.pop("w3")
    (problem,) = world.refused(command, "w3")
    assert (problem.where, problem.id) == ("w3 at w3", "worker-registered-elsewhere")


@every
def test_without_etcd_those_that_are_chosen(world: Twins, command: str) -> None:
    world.alluxio = replace(world.alluxio, membership=MembershipType.STATIC)
    (problem,) = world.refused(command, "w1", "w3")
    assert (problem.where, problem.id) == ("w3 at w3", "worker-identity-cloned")


@every
@pytest.mark.parametrize("names", [("w1", "w2"), ("w1",), ("w2",)])
def test_the_others_are_not_refused(world: Twins, command: str, names: Sequence[str]) -> None:
    world.run(command, names)


@every
@pytest.mark.parametrize("kind", MembershipType)
def test_with_an_identity_of_its_own_it_is_none(
    world: Twins, command: str, kind: MembershipType
) -> None:
    world.alluxio = replace(world.alluxio, membership=kind)
    world.identity("w3", "00000003-1111-2222-3333-444444444444")
    world.run(command, ("w1", "w2", "w3"))


@every
def test_a_stopped_worker_under_whose_identity_another_lives(world: Twins, command: str) -> None:
    """w3 was w1's host before: w1 is not chosen, and w3 is not started by a restart."""
    world.unit("w3", "inactive")
    world.live.pop("w3")
    if command == "start-workers":
        assert len(world.refused(command, "w3")) == 1
    else:
        world.run(command, ("w2", "w3"))


@pytest.mark.parametrize("kind", [MembershipType.ETCD, MembershipType.SERVICE_REGISTRY])
def test_names_that_change_hands_make_no_clone(world: Twins, kind: MembershipType) -> None:
    """The inventory swaps w1's and w2's hostnames. Each runs on under its own identity, registered
    with its own host's name."""
    world.seen = registered(*(JOINED if kind.permanent_keys else ()), live=LIVE)
    names = {"w1": "w2", "w2": "w1"}
    workers = [w._replace(hostname=names.get(w.name, w.hostname)) for w in world.alluxio.workers]
    world.alluxio = replace(world.alluxio, workers=tuple(workers), membership=kind)
    for name in names:
        world.change(name, resolved={name: "10.0.0.1"}, addresses=frozenset({"10.0.0.1"}))
    world.run("restart-workers", tuple(names))


def test_a_worker_behind_nat_whose_name_will_change(
    world: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is live under its former name, which is no address of its host."""
    monkeypatch.setattr(registrations, "port_answers", lambda *_: True)
    world.seen = registered(entry(1, "public"), live=(entry(1, "public", 7),))
    workers = [w._replace(hostname=f"{w.hostname}-new") for w in world.alluxio.workers]
    world.alluxio = replace(world.alluxio, workers=tuple(workers))
    world.run("restart-workers", ("w1",))
