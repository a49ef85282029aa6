"""Workers: every check before a start counts, and each group waits for those that came before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.alluxio.membership import registrations
from provision.alluxio.membership.registrations import RegistrationSnapshot
from provision.alluxio.worker import desired, membership_switch
from provision.alluxio.worker.desired import Artifacts
from provision.artifacts import Artifact
from provision.engine.plan import Gate
from provision.errors import PreflightFailed, Problem
from provision.etcd.api.values import Login
from provision.etcd.cluster.handle import Etcd
from provision.host import gather, preflight
from provision.host.predict import after
from provision.host.resources import MARKER
from provision.ids import Id
from provision.inventory.resolved import AlluxioWorker, Machine
from provision.plans.alluxio import moved, restart_workers, start_workers, worker_preflight
from provision.plans.alluxio.start_workers import WorkersState
from provision.ssh.session import Fleet
from tests.unit import builders, fake_etcd, hosts
from tests.unit.hosts import TARBALL
from tests.unit.test_rolling import World

ALLUXIO = builders.alluxio()
ARTIFACTS = Artifacts(TARBALL, None)
SNAPSHOT = RegistrationSnapshot("c", 1, {}, {})
LOGIN = Login("alluxio", "secret")
CHECKS: tuple[tuple[object, str, Id], ...] = (
    (preflight, "hosts", "root-needed"),
    (preflight, "paths", "path-in-the-way"),
    (preflight, "architectures", "tarball-unfit"),
    (worker_preflight, "release", "release-missing"),
    (worker_preflight, "workers", "java-unfit"),
    (moved, "twins", "worker-identity-cloned"),
)


class Look:
    """``found``: the checks that find a problem."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.found: set[str] = set()
        self.away: list[Problem] = []
        self.missing: list[Problem] = []
        self.tarballs: Artifacts | PreflightFailed = ARTIFACTS
        self.facts = hosts.facts(1)
        #: Whether a tarball need not be read, at each look at the tarballs.
        self.unread: list[bool] = []
        self.registered: RegistrationSnapshot | None = SNAPSHOT
        self.others: list[Any] = ["moved"]
        self.switched = False
        self.etcd = fake_etcd.install(monkeypatch)
        for module, name, error_id in CHECKS:
            monkeypatch.setattr(module, name, self._check(name, error_id))
        monkeypatch.setattr(start_workers, "fetch", self._fetch)
        monkeypatch.setattr(
            start_workers, "_registered", lambda *_: (self.registered, self.missing)
        )
        monkeypatch.setattr(moved, "found", lambda *_: self.others)
        monkeypatch.setattr(membership_switch, "away", lambda *_: self.switched)
        monkeypatch.setattr(desired, "login", lambda alluxio: LOGIN)
        monkeypatch.setattr(
            gather,
            "gather_facts",
            lambda _, probes: ({m: self.facts for m in probes}, self.away),
        )

    def _check(self, name: str, error_id: Id) -> Any:
        def check(*_: object) -> list[Problem]:
            return [Problem(name, "is wrong", id=error_id)] if name in self.found else []

        return check

    def _fetch(self, alluxio: object, *, unread: bool = False) -> Artifacts:
        self.unread.append(unread)
        if isinstance(self.tarballs, PreflightFailed):
            raise self.tarballs
        return self.tarballs

    def observe(self, tarballs: Artifacts | None = None, *, ready: bool = False) -> WorkersState:
        with Fleet(1) as fleet:
            etcd = Etcd(builders.etcd(), fleet)
            return start_workers.observe(ALLUXIO, etcd, ALLUXIO.workers, tarballs, ready=ready)

    def refused(self) -> list[str]:
        with pytest.raises(PreflightFailed) as refused:
            self.observe()
        return [p.where for p in refused.value.problems]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    return Look(monkeypatch)


class TestObserve:
    def test_every_problem_is_named_at_once(self, look: Look) -> None:
        look.found = {name for _, name, _ in CHECKS}
        look.away = [Problem("w2", "no route", id="host-unreachable")]
        look.missing = [Problem("etcd", "no answer", id="etcd-not-running")]
        assert look.refused() == [
            "w2",
            "hosts",
            "paths",
            "architectures",
            "release",
            "workers",
            "twins",
            "etcd",
        ]

    @pytest.mark.parametrize("name", [name for _, name, _ in CHECKS])
    def test_each_is_reason_enough(self, look: Look, name: str) -> None:
        look.found = {name}
        assert look.refused() == [name]

    def test_without_a_tarball_the_hosts_are_looked_at_all_the_same(self, look: Look) -> None:
        missing = Problem("alluxio.source", "no file", id="tarball-unavailable")
        look.tarballs = PreflightFailed("no tarball", [missing], id="tarball-unavailable")
        look.found = {"hosts", "workers"}
        assert look.refused() == ["alluxio.source", "hosts"]
        look.found = set()
        assert look.observe(ARTIFACTS).artifacts == ARTIFACTS

    @pytest.mark.parametrize(
        ("alluxio", "jdk", "unread"),
        [
            ("a" * 64, "b" * 64, [True]),
            ("1" * 64, "b" * 64, [True, False]),
            (None, "b" * 64, [True, False]),
            ("a" * 64, "1" * 64, [True, False]),
            ("a" * 64, None, [True, False]),
        ],
        ids=["has both", "another release", "no release", "another JDK", "no JDK"],
    )
    def test_a_tarball_that_no_host_is_to_get_is_not_read(
        self, look: Look, alluxio: str | None, jdk: str | None, unread: list[bool]
    ) -> None:
        its = Artifact(Path("jdk-11.tar.gz"), "b" * 64, 1, unread=True)
        look.tarballs = Artifacts(replace(TARBALL, unread=True), its)
        there = {"/opt/alluxio/313": alluxio, "/opt/java/jdk-11": jdk}
        marked = {f"{path}/{MARKER}": hosts.text(said) for path, said in there.items() if said}
        look.facts = hosts.facts(1, paths=marked)
        assert look.observe().artifacts is look.tarballs
        assert look.unread == unread

    def test_a_tarball_that_has_been_read_is_not_read_again(self, look: Look) -> None:
        look.observe()
        assert look.unread == [True]

    def test_a_tarball_that_a_host_is_to_get_and_that_was_changed(self, look: Look) -> None:
        wrong = Problem("alluxio.tar.gz", "sha256 is 1", id="checksum-mismatch")

        def fetch(_: object, *, unread: bool = False) -> Artifacts:
            if unread:
                return Artifacts(replace(TARBALL, unread=True), None)
            raise PreflightFailed("sha256 is 1", [wrong], id="checksum-mismatch")

        look.monkeypatch.setattr(start_workers, "fetch", fetch)
        look.found = {"hosts"}
        assert look.refused() == ["alluxio.tar.gz", "hosts"]

    def test_a_folder_that_root_cannot_write_in_is_judged_by_the_workers_own_files(self) -> None:
        """The hosts share a probe, and its files are those of one of them."""
        usual = builders.worker("w1")
        workers = (usual, usual._replace(name="w2", machine=Machine("w2"), hostname="w2"))
        alluxio = builders.alluxio(*workers)
        facts = {}
        for number, w in enumerate(workers, 1):
            before = hosts.facts(number)
            there = after(desired.resources(alluxio, w, ARTIFACTS, before), before)
            facts[w.machine] = replace(there, unwritable=frozenset({"/opt/alluxio"}))
        probes = desired.probes(alluxio, workers, ARTIFACTS)
        assert len({id(probe) for probe in probes.values()}) == 1

        def found() -> list[str]:
            given = alluxio, workers, ARTIFACTS, Fleet(1), probes, facts
            return [
                p.where for p in start_workers.host_problems(*given) if p.id == "folder-unwritable"
            ]

        assert found() == []
        site = "/opt/alluxio/313/conf/alluxio-site.properties"
        second = facts[workers[1].machine]
        paths = {**second.paths, site: hosts.text("changed")}
        facts[workers[1].machine] = replace(second, paths=paths)
        assert found() == [workers[1].machine.place]

    def test_what_was_seen(self, look: Look) -> None:
        found = look.observe()
        assert found.artifacts == ARTIFACTS
        assert list(found.moved) == look.others
        assert found.registered is None
        assert set(found.facts) == {w.machine for w in ALLUXIO.workers}
        assert look.etcd.clients == []
        look.registered = None
        assert look.observe().moved == ()

    def test_before_another_membership_type_the_old_registrations_are_read(
        self, look: Look, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        look.switched = True
        asked: list[str] = []

        def read(client: object, name: str) -> RegistrationSnapshot:
            asked.append(name)
            return SNAPSHOT

        monkeypatch.setattr(registrations, "read", read)
        assert look.observe().registered is SNAPSHOT
        assert asked == ["c"]
        assert look.etcd.clients == [("any", LOGIN)]
        look.etcd.fail = {}
        monkeypatch.setattr(registrations, "read", self._down)
        assert look.observe().registered is None

    @staticmethod
    def _down(*_: object) -> None:
        raise fake_etcd.refused()


class TestGroups:
    """The steps of restart-workers."""

    def test_each_group_waits_for_all_before_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(monkeypatch, 5)
        given: list[tuple[list[str], list[str]]] = []

        class Waiting:
            def __init__(
                self, _a: object, _e: object, some: Sequence[AlluxioWorker], done: Any = ()
            ) -> None:
                given.append(([w.name for w in some], [w.name for w in done]))
                self.before = self.after = Gate("gate", lambda: None)

        monkeypatch.setattr(start_workers, "RegistrationGate", Waiting)
        plan = world.restart(2)
        assert given == [
            (["w1", "w2"], []),
            (["w3", "w4"], ["w1", "w2"]),
            (["w5"], ["w1", "w2", "w3", "w4"]),
        ]
        assert {s.at_once for s in plan.steps} == {builders.inventory().parallel}

    @pytest.mark.parametrize(
        ("load", "active", "where"),
        [
            ("not-found", "inactive", "stopped"),
            ("not-found", "active", "stopped"),
            ("loaded", "inactive", "stopped"),
            ("loaded", "failed", "broken"),
            ("loaded", "active", "live"),
        ],
    )
    def test_where_a_worker_stands(
        self, monkeypatch: pytest.MonkeyPatch, load: str, active: str, where: str
    ) -> None:
        world = World(monkeypatch, 1)
        world.unit("w1", active)
        (machine,) = world.facts
        f = world.facts[machine]
        unit = replace(f.unit(desired.UNIT), load=load)
        world.facts[machine] = replace(f, units={**f.units, desired.UNIT: unit})
        found = restart_workers.standing(
            world.alluxio, world.alluxio.workers, world.facts, {"w1": 1}
        )
        assert len(getattr(found, where)) == 1
