"""start-workers: who is installed, who is restarted, in which groups, and the wait for LIVE."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision import wait
from provision.alluxio.commands import readiness
from provision.alluxio.membership import registrations
from provision.alluxio.worker import desired, java, membership_switch, state, written
from provision.alluxio.worker.desired import Artifacts
from provision.alluxio.worker.membership_properties import TYPE
from provision.artifacts import Artifact
from provision.engine.plan import Plan
from provision.errors import Problem, ProvisionError, Unhealthy, UsageError
from provision.etcd.api.values import KeyValue
from provision.etcd.cluster.handle import Etcd
from provision.host.facts import HostFacts, PathState, UnitState
from provision.host.predict import after
from provision.host.resources import File
from provision.inventory import ports
from provision.inventory.membership_type import MembershipType
from provision.inventory.model import AlluxioEtcd, Java, Secret, Source
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker
from provision.plans.alluxio import join_conflict, start_workers
from provision.ssh.session import Fleet
from tests.unit import builders, hosts
from tests.unit.hosts import TARBALL

ARTIFACTS = Artifacts(TARBALL, None)
FOLDER = PathState("dir", "alluxio", "alluxio", 0o750, 4096)


def cluster(count: int, **changed: Any) -> AlluxioCluster:
    return builders.alluxio(*(builders.worker(f"w{n:02}") for n in range(1, count + 1)), **changed)


def running(alluxio: AlluxioCluster) -> dict[str, HostFacts]:
    """Every worker as declared and running."""
    found = {}
    for n, w in enumerate(alluxio.workers, 1):
        bare = hosts.facts(n)
        found[w.name] = after(desired.resources(alluxio, w, ARTIFACTS, bare), bare)
    return found


def plan(
    alluxio: AlluxioCluster,
    seen: dict[str, HostFacts],
    only: tuple[str, ...] = (),
    registered: registrations.RegistrationSnapshot | None = None,
) -> Plan:
    chosen = [w for w in alluxio.workers if not only or w.name in only]
    facts = {w.machine: seen[w.name] for w in chosen}
    observed = start_workers.WorkersState(ARTIFACTS, facts, registered=registered)
    with Fleet(4) as fleet:
        inventory = builders.inventory(alluxio)
        handle = Etcd(inventory.etcd, fleet)
        return start_workers.plan(inventory, alluxio, handle, observed, chosen)


def names(found: Plan) -> list[tuple[str, list[str]]]:
    return [(s.title, [h.name for h in s.hosts]) for s in found.steps]


def site(alluxio: AlluxioCluster, worker: AlluxioWorker) -> File:
    return next(
        r
        for r in desired.resources(alluxio, worker, ARTIFACTS, None)
        if isinstance(r, File) and r.path.endswith("site.properties")
    )


def test_nothing_to_do() -> None:
    alluxio = cluster(3)
    assert plan(alluxio, running(alluxio)).steps == ()


@pytest.mark.parametrize("downgrade", [False, True])
def test_an_older_release_is_no_order(downgrade: bool) -> None:
    """An inventory with an older one may be an older checkout. Nothing of such a worker changes:
    its configuration lies in the release's folder."""
    newer = cluster(3, version="313")
    seen = running(newer)
    older = replace(
        newer,
        version="312",
        downgrade=downgrade,
        workers=tuple(w._replace(properties={"a.b": 1}) for w in newer.workers),
    )
    seen["w03"] = running(replace(older, downgrade=True))["w03"]
    found = plan(older, seen)
    changed = {n for _, some in names(found) for n in some}
    assert changed == ({"w01", "w02"} if downgrade else set())
    left = [(p.id, p.where.split()[0], "Alluxio 313, newer than 312" in p.what) for p in found.left]
    assert left == ([] if downgrade else [("release-newer", n, True) for n in ("w01", "w02")])


def test_fresh_hosts_are_done_at_once_with_a_bound() -> None:
    alluxio = cluster(3)
    found = plan(alluxio, {w.name: hosts.facts(n) for n, w in enumerate(alluxio.workers)})
    assert names(found) == [("install and start workers", ["w01", "w02", "w03"])]
    (step,) = found.steps
    assert step.at_once == 4
    assert step.before is not None
    assert step.after is not None
    assert step.after.title == "3 workers registered and ready"


def test_the_plans_steps_say_what_becomes_of_each_worker() -> None:
    alluxio = cluster(2)
    seen = running(alluxio)
    one, other = (w.name for w in alluxio.workers)
    unread = {**seen, one: hosts.with_unit(seen[one], desired.UNIT, needs_reload=True)}
    assert names(plan(alluxio, unread)) == [(f"change {one}", [one])]
    stopped = {**seen, other: hosts.with_unit(seen[other], desired.UNIT, active="inactive")}
    assert names(plan(alluxio, stopped)) == [("start workers", [other])]


def test_a_property_of_one_worker_restarts_that_one() -> None:
    alluxio = cluster(3)
    seen = running(alluxio)
    first, *others = alluxio.workers
    changed = replace(alluxio, workers=(first._replace(properties={"a.b": 1}), *others))
    found = plan(changed, seen)
    assert names(found) == [("restart w01", ["w01"])]
    assert [c.what.split()[0] for c in found.steps[0].hosts[0].changes] == ["change", "restart"]
    assert "+a.b=1" in found.steps[0].hosts[0].changes[0].diff


def test_a_property_of_all_restarts_a_tenth_at_a_time() -> None:
    alluxio = cluster(25)
    seen = running(alluxio)
    changed = replace(
        alluxio, workers=tuple(w._replace(properties={"a.b": 1}) for w in alluxio.workers)
    )
    found = plan(changed, seen)
    assert max(len(s.hosts) for s in found.steps) == 2
    assert [h for _, some in names(found) for h in some] == [w.name for w in alluxio.workers]
    assert found.steps[0].title == "restart w01 and 1 more"
    assert all(s.before and s.after for s in found.steps)


def test_another_worker_restarts_nobody_unless_membership_is_static() -> None:
    for kind, restarts in ((MembershipType.ETCD, False), (MembershipType.STATIC, True)):
        alluxio = cluster(2, membership=kind)
        seen = running(alluxio)
        more = replace(alluxio, workers=(*alluxio.workers, builders.worker("w09")))
        titles = [t for t, _ in names(plan(more, seen, only=("w01", "w02")))]
        assert any(t.startswith("restart") for t in titles) is restarts
        assert titles


#: What is true until the last worker is restarted.
INTO_ETCD = (
    "restarted workers see only the restarted workers in etcd; the others see all of "
    "conf/workers; the two types look for the same file on different workers, so caches fill again"
)
OUT_OF_ETCD = (
    "restarted workers see all of conf/workers; the others see only the workers in etcd that are "
    "not restarted yet"
)
WITHIN_ETCD = "all workers keep their live keys in etcd, so workers of both types see every worker"


class TestSwitch:
    """From one membership type to another, as the hosts' facts have it."""

    def running(self, kind: MembershipType) -> tuple[AlluxioCluster, dict[str, HostFacts]]:
        alluxio = cluster(2, membership=kind)
        commands = {written.LABEL: f"{TYPE}={kind}\n"}
        return alluxio, {
            name: replace(facts, commands={**facts.commands, **commands})
            for name, facts in running(alluxio).items()
        }

    def test_nothing_is_said_where_nothing_changes(self) -> None:
        for kind in MembershipType:
            alluxio, seen = self.running(kind)
            found = plan(alluxio, seen)
            assert (found.steps, found.notes) == ((), ())

    @pytest.mark.parametrize(
        ("before", "after", "meanwhile", "first"),
        [
            (MembershipType.STATIC, MembershipType.ETCD, INTO_ETCD, False),
            (MembershipType.STATIC, MembershipType.SERVICE_REGISTRY, INTO_ETCD, False),
            (MembershipType.ETCD, MembershipType.STATIC, OUT_OF_ETCD, True),
            (
                MembershipType.ETCD,
                MembershipType.SERVICE_REGISTRY,
                WITHIN_ETCD,
                False,
            ),
            (
                MembershipType.SERVICE_REGISTRY,
                MembershipType.ETCD,
                WITHIN_ETCD,
                False,
            ),
        ],
    )
    def test_each_is_restarted_and_waited_for(
        self, before: MembershipType, after: MembershipType, meanwhile: str, first: bool
    ) -> None:
        alluxio, seen = self.running(before)
        found = plan(replace(alluxio, membership=after), seen)
        assert [s.title for s in found.steps] == [
            f"restart {name} with membership {after}" for name in ("w01", "w02")
        ]
        there = "1 worker answering" if after.in_file else "1 worker registered and ready"
        assert (found.steps[0].before is None) is after.in_file  # nobody is asked
        assert [s.after and s.after.title for s in found.steps] == [there, there]
        (note,) = found.notes
        assert f"from {before} to {after} on 2 workers" in note.what
        assert note.what.endswith(f"until the last worker is restarted, {meanwhile}")
        assert ("configuration first" in note.remedy) is first
        document = str(found.document())
        assert f"+alluxio.worker.membership.manager.type={after}" in document
        file = "+alluxio.worker.static.membership.manager.config.file=/opt/alluxio/313/conf/workers"
        assert (file in document) is after.in_file

    def test_the_rest_of_the_cluster_is_named(self) -> None:
        alluxio, seen = self.running(MembershipType.STATIC)
        notes = plan(replace(alluxio, membership=MembershipType.ETCD), seen, only=("w01",)).notes
        assert "w02 are not in this run" in notes[1].what

    def test_what_is_left_in_etcd_is_named(self) -> None:
        alluxio, seen = self.running(MembershipType.ETCD)
        key = KeyValue(b"", b"", 0, 1)
        known = registrations.Registration("worker-1", "w01", 1, 0, 0, "", -1)
        there = registrations.RegistrationSnapshot(
            "c", 1, {"worker-1": registrations.Entry(key, known)}, {}
        )
        notes = plan(
            replace(alluxio, membership=MembershipType.STATIC), seen, registered=there
        ).notes
        assert "worker-1" in notes[1].what
        assert "invoke forget-worker ID" in notes[1].remedy
        back = plan(
            replace(alluxio, membership=MembershipType.ETCD),
            self.running(MembershipType.STATIC)[1],
            (),
            there,
        )
        assert len(back.notes) == 1

    def test_a_word_of_the_host_that_is_no_type_is_nothing(self) -> None:
        alluxio, seen = self.running(MembershipType.ETCD)
        for word in ("", "MASTER", f"ETCD\n{TYPE}=", "$(id)"):
            odd = {
                n: replace(f, commands={written.LABEL: f"{TYPE}={word}"}) for n, f in seen.items()
            }
            assert plan(replace(alluxio, membership=MembershipType.STATIC), odd).notes == ()

    @pytest.mark.process
    def test_the_word_is_the_site_files(self, tmp_path: Path) -> None:
        alluxio = cluster(
            1, install_dir=str(tmp_path / "it's"), membership=MembershipType.SERVICE_REGISTRY
        )
        (command,) = written.probe_commands(alluxio).values()

        def said() -> str:
            return subprocess.run(["sh", "-c", command], capture_output=True, text=True).stdout

        assert said() == ""
        site_file = tmp_path / "it's" / "current" / "conf" / "alluxio-site.properties"
        site_file.parent.mkdir(parents=True)
        site_file.write_bytes(site(alluxio, alluxio.workers[0]).content or b"")
        facts = hosts.facts(commands={written.LABEL: said()})
        assert membership_switch.in_force(facts) is MembershipType.SERVICE_REGISTRY
        assert len(said().splitlines()) == 3, "nothing else leaves the host: it may be a secret"


def test_only_the_chosen() -> None:
    alluxio = cluster(3)
    seen = {w.name: hosts.facts(n) for n, w in enumerate(alluxio.workers)}
    assert names(plan(alluxio, seen, only=("w02",)))[0][1] == ["w02"]


def test_one_that_is_stopped_is_started_with_what_it_has() -> None:
    alluxio = cluster(2)
    seen = running(alluxio)
    seen["w01"] = replace(
        seen["w01"], units={desired.UNIT: UnitState("loaded", "inactive", "dead", "enabled")}
    )
    found = plan(alluxio, seen)
    assert [c.what for c in found.steps[0].hosts[0].changes] == ["start alluxio-worker.service"]


def test_one_that_runs_without_its_identity_file_is_restarted() -> None:
    """On a clone the file is removed by hand. The refused worker of a real 313 still runs: it tries
    to join under the former id for an hour (class ``PagedDoraWorker``)."""
    alluxio = cluster(1)
    seen = running(alluxio)
    f = seen["w01"]
    paths = {p: s for p, s in f.paths.items() if p != desired.identity_file(alluxio)}
    (step,) = plan(alluxio, {"w01": replace(f, paths=paths)}).steps
    (host,) = step.hosts
    assert [c.what for c in host.changes] == [
        "make the worker identity /var/lib/alluxio/worker_identity",
        "restart alluxio-worker.service",
    ]
    # One that does not run is only started.
    fresh = plan(alluxio, {"w01": hosts.facts(1)}).steps[0].hosts[0].changes
    assert "restart alluxio-worker.service" not in [c.what for c in fresh]


def test_the_identity_on_a_host_is_kept() -> None:
    alluxio = cluster(1)
    (worker,) = alluxio.workers
    seen = running(alluxio)["w01"]

    def identity(before: HostFacts) -> str | None:
        wanted = desired.resources(alluxio, worker, ARTIFACTS, before)
        return desired.identity(alluxio, after(wanted, before))

    assert identity(seen) == desired.identity(alluxio, seen) is not None
    assert len({identity(hosts.facts()) for _ in range(3)}) == 3


def test_a_new_release_is_unpacked_before_anyone_is_restarted() -> None:
    alluxio = cluster(2)
    found = plan(replace(alluxio, version="314"), running(alluxio))
    assert [t for t, _ in names(found)] == [
        *("prepare running workers", "restart w01", "restart w02")
    ]
    assert found.steps[0].after is None
    assert "install /opt/alluxio/314" in found.steps[0].hosts[0].changes[0].what
    links = [c.what for c in found.steps[1].hosts[0].changes if c.what.startswith("point")]
    assert links == [
        "point /opt/alluxio/previous to 313",
        "point /opt/alluxio/current to 314",
    ]


@pytest.mark.parametrize(("active", "noted"), [("inactive", True), ("failed", False)])
def test_a_release_that_does_not_start_is_none_to_go_back_to(active: str, noted: bool) -> None:
    alluxio = cluster(1)
    seen = running(alluxio)["w01"]
    seen = replace(seen, units={desired.UNIT: UnitState("loaded", active, "dead", "enabled")})
    found = plan(replace(alluxio, version="314"), {"w01": seen})
    whats = [c.what for step in found.steps for c in step.hosts[0].changes]
    assert ("point /opt/alluxio/previous to 313" in whats) is noted
    assert "point /opt/alluxio/current to 314" in whats


def test_who_is_only_enabled_has_no_new_registration_to_wait_for() -> None:
    alluxio = cluster(1)
    units = {desired.UNIT: UnitState("loaded", "active", "running", "disabled", 1)}
    found = plan(alluxio, {"w01": replace(running(alluxio)["w01"], units=units)})
    (step,) = found.steps
    assert [c.what for c in step.hosts[0].changes] == ["enable alluxio-worker.service"]
    assert (step.before, step.after) == (None, None)


class TestSecrets:
    @pytest.fixture
    def alluxio(self, monkeypatch: pytest.MonkeyPatch) -> AlluxioCluster:
        monkeypatch.setenv("ETCD_PASSWORD", "hunter2")
        login = AlluxioEtcd(username="alluxio", password=Secret(env="ETCD_PASSWORD"))
        return cluster(1, etcd_login=login)

    def test_they_are_in_a_file_that_only_the_worker_may_read(
        self, alluxio: AlluxioCluster
    ) -> None:
        file = site(alluxio, alluxio.workers[0])
        owners = file.owner, file.group, file.mode
        assert (*owners, file.secret) == ("root", "alluxio", 0o640, True)
        assert b"alluxio.etcd.password=hunter2\n" in (file.content or b"")

    def test_they_are_not_in_the_plan(self, alluxio: AlluxioCluster) -> None:
        seen = running(alluxio)
        path = site(alluxio, alluxio.workers[0]).path
        seen["w01"] = replace(
            seen["w01"],
            paths=dict(seen["w01"].paths)
            | {path: PathState("file", "alluxio", "alluxio", 0o600, 1, sha256="0" * 64)},
        )
        found = plan(alluxio, seen)
        assert found.changed == 2
        assert "hunter2" not in str(found.document())

    def test_one_that_is_not_there(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("ETCD_PASSWORD")
        with pytest.raises(UsageError, match=r"alluxio\.etcd\.password .*ETCD_PASSWORD is not set"):
            site(alluxio, alluxio.workers[0])


def test_room_for_the_jdk_and_new_page_stores() -> None:
    source = Source(path=Path("jdk-11.tar.gz"), sha256="0" * 64)
    alluxio = cluster(1, java=Java(source=source))
    jdk = Artifact(Path("jdk-11.tar.gz"), "b" * 64, 200 << 20)
    tarballs = Artifacts(TARBALL, jdk)
    (worker,) = alluxio.workers
    bare = {worker.machine: hosts.facts()}
    rooms = start_workers._rooms(alluxio, [worker], tarballs, bare)[worker.machine]
    assert {r.path for r in rooms} == {*("/opt/alluxio", "/opt/java", "/pages", "/var/lib/alluxio")}
    assert set(desired.probe(alluxio, worker, tarballs).disks or ()) >= {r.path for r in rooms}
    there = after(desired.resources(alluxio, worker, tarballs, hosts.facts()), hosts.facts())
    there = replace(there, paths={**there.paths, state.metastore(alluxio): FOLDER})
    assert not start_workers._rooms(alluxio, [worker], tarballs, {worker.machine: there})


def test_a_jdk_tarball_that_is_none_has_no_version(tmp_path: Path) -> None:
    bad = tmp_path / "jdk.tar.gz"
    for n, content in enumerate((b"", b"not a tarball", b"\x1f\x8b\x08\x00broken")):
        bad.write_bytes(content)
        assert java.tarball_major(Artifact(bad, f"{n:064}", len(content))) is None


def test_odd_names_of_jdk_tarballs_make_plain_folders() -> None:
    assert java.tree(cluster(1), "jdk 11$(id).tar.gz") == "/opt/java/jdk_11__id_"


class Registry:
    """etcd's answer, as long as it is not told otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, alluxio: AlluxioCluster) -> None:
        self.revisions = {w.name: 10 for w in alluxio.workers}
        self.error: ProvisionError | None = None
        self.looks = 0
        self._alluxio = alluxio
        monkeypatch.setattr(Etcd, "any", self._client)
        monkeypatch.setattr(registrations, "read", self._read)
        monkeypatch.setattr(start_workers, "POLL_SECONDS", 0)
        monkeypatch.setattr(join_conflict, "explained", lambda *_: {})
        #: Why workers are not ready, by name; those who are not there are.
        self.silent: dict[str, str] = {}
        #: Who was asked for readiness, look by look.
        self.asked: list[list[str]] = []
        monkeypatch.setattr(start_workers, "READY_LOOK_SECONDS", 0)
        monkeypatch.setattr(readiness, "look", self._ready)
        monkeypatch.setattr(
            start_workers, "last_lines", lambda _, machines: dict.fromkeys(machines, "-")
        )

    def _ready(
        self, fleet: Fleet, alluxio: AlluxioCluster, workers: Sequence[AlluxioWorker]
    ) -> tuple[dict[str, readiness.Readiness], list[Problem]]:
        self.asked.append([w.name for w in workers])
        found = {}
        for w in workers:
            silent = {"http": self.silent[w.name]} if w.name in self.silent else {}
            listeners = ports.worker_listeners(alluxio, w)
            found[w.name] = readiness.Readiness(listeners, silent)
        return found, []

    @contextlib.contextmanager
    def _client(self, *_: Any, **__: Any) -> Iterator[None]:
        yield None

    def _read(self, *_: Any) -> registrations.RegistrationSnapshot:
        self.looks += 1
        if self.error is not None:
            raise self.error
        live = {}
        for w in self._alluxio.workers:
            if w.name in self.revisions:
                key = KeyValue(b"", b"", 7, self.revisions[w.name])
                found = registrations.Registration(w.name, w.hostname, w.rpc_port, 0, 0, "", -1)
                live[w.name] = registrations.Entry(key, found)
        return registrations.RegistrationSnapshot("c", 1, {}, live)


class TestRegistrations:
    @pytest.fixture
    def alluxio(self) -> AlluxioCluster:
        return cluster(2, start_timeout=0, failure_detection_timeout=0)

    def gate(self, alluxio: AlluxioCluster) -> start_workers.RegistrationGate:
        handle = Etcd(builders.etcd(), Fleet(1))
        return start_workers.RegistrationGate(alluxio, handle, alluxio.workers)

    def test_those_restarted_before_must_be_live_still(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = Registry(monkeypatch, alluxio)
        first, second = alluxio.workers
        handle = Etcd(builders.etcd(), Fleet(1))
        gate = start_workers.RegistrationGate(alluxio, handle, [second], [first])
        assert gate.before is not None
        assert gate.before.title == "w01 still live; etcd says which workers are registered now"
        gate.before.check()
        del registry.revisions["w01"]
        with pytest.raises(Unhealthy, match="1 of 1 worker is not live"):
            gate.before.check()

    def test_a_key_from_before_the_restart_does_not_count(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = Registry(monkeypatch, alluxio)
        gate = self.gate(alluxio)
        assert gate.before is not None
        gate.before.check()
        registry.revisions["w01"] = 11
        with pytest.raises(Unhealthy, match="1 of 2 workers is not live") as caught:
            gate.after.check()
        assert caught.value.problems[0].where == "w02 at w02"
        registry.revisions["w02"] = 12
        gate.after.check()

    def test_who_is_registered_is_waited_for_until_its_listeners_answer(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = Registry(monkeypatch, alluxio)
        registry.silent = {"w02": "nothing listens"}

        def sleep(_: wait.Clock, seconds: float) -> None:
            if len(registry.asked) == 3:
                registry.silent = {}

        monkeypatch.setattr(wait.Clock, "sleep", sleep)
        self.gate(replace(alluxio, start_timeout=60)).after.check()
        assert registry.asked == [["w01", "w02"], ["w02"], ["w02"], ["w02"]]

    def test_a_plan_says_how_long_a_worker_serves_nobody_at_most(self) -> None:
        alluxio = cluster(1, start_timeout=60, failure_detection_timeout=100)
        assert self.gate(alluxio).after.seconds == (60 + 100) + 60
        without = replace(alluxio, membership=MembershipType.STATIC)
        assert self.gate(without).after.seconds == 60 + 60

    def test_listeners_need_not_wait_for_a_lease(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a worker whose old key was there had two minutes more for its ports."""
        registry = Registry(monkeypatch, alluxio)
        gate = self.gate(replace(alluxio, failure_detection_timeout=1))
        assert gate.before is not None
        gate.before.check()
        registry.revisions |= {"w01": 11, "w02": 12}
        registry.silent = {"w02": "nothing listens"}
        with pytest.raises(Unhealthy, match=r"but not ready$"):
            gate.after.check()

    def test_who_is_registered_and_never_ready_fails_the_gate(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = Registry(monkeypatch, alluxio)
        registry.silent = {"w02": "another process listens on it: pid 7 (nginx)"}
        with pytest.raises(Unhealthy, match="1 of 2 workers is registered, but not ready") as e:
            self.gate(alluxio).after.check()
        (problem,) = e.value.problems
        assert (problem.id, problem.where) == ("worker-not-ready", "w02 at w02")
        assert problem.what.startswith(
            "its http port 28080 does not answer: another process listens on it: pid 7 (nginx);"
        )

    def test_one_that_registers_and_ends_again_and_again_is_not_waited_for(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = Registry(monkeypatch, alluxio)
        registry.silent = {"w01": "nothing listens"}
        counts = iter(range(100))
        monkeypatch.setattr(start_workers, "CRASH_LOOK_SECONDS", 0)
        monkeypatch.setattr(start_workers, "CRASHES_SECONDS", 0)
        monkeypatch.setattr(start_workers, "_failed_attempts", lambda *_: {"w01": next(counts)})
        with pytest.raises(Unhealthy, match=r"not ready: w01 ended by itself 3 times"):
            self.gate(replace(alluxio, start_timeout=3600)).after.check()

    def test_before_a_group_only_the_registration_of_those_done_is_looked_at(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = Registry(monkeypatch, alluxio)
        first, second = alluxio.workers
        handle = Etcd(builders.etcd(), Fleet(1))
        gate = start_workers.RegistrationGate(alluxio, handle, [second], [first])
        assert gate.before is not None
        gate.before.check()
        assert registry.asked == []

    def test_etcd_may_be_away_for_a_moment(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = Registry(monkeypatch, alluxio)
        gate = self.gate(replace(alluxio, start_timeout=60))
        looked = registry._read

        def recover(*given: Any) -> registrations.RegistrationSnapshot:
            if registry.looks == 2:
                registry.error = None
            return looked(*given)

        monkeypatch.setattr(registrations, "read", recover)
        registry.error = Unhealthy("no leader", id="member-down")
        gate.after.check()
        assert registry.looks == 3

    def test_before_anything_changed_it_is_an_error(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = Registry(monkeypatch, alluxio)
        registry.error = Unhealthy("no leader", id="member-down")
        before = self.gate(alluxio).before
        assert before is not None
        with pytest.raises(Unhealthy):
            before.check()

    def test_require_live(self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        registry = Registry(monkeypatch, alluxio)
        given = alluxio, Etcd(builders.etcd(), Fleet(1)), alluxio.workers
        assert start_workers.require_live(*given) == {"w01": 10, "w02": 10}
        del registry.revisions["w02"]
        with pytest.raises(Unhealthy, match="1 of 2 workers is not live"):
            start_workers.require_live(*given)

    def test_a_worker_that_never_comes_up_is_not_waited_for(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = Registry(monkeypatch, alluxio)
        asked: list[list[str]] = []

        def attempts(_: Fleet, workers: Sequence[AlluxioWorker]) -> dict[str, int]:
            asked.append([w.name for w in workers])
            return {w.name: 70 + len(asked) for w in workers}

        def sleep(_: wait.Clock, seconds: float) -> None:
            if registry.looks == 4:  # only then has the lease from before ended
                del registry.revisions["w02"]

        monkeypatch.setattr(start_workers, "CRASH_LOOK_SECONDS", 0)
        monkeypatch.setattr(start_workers, "CRASHES_SECONDS", 0)
        monkeypatch.setattr(start_workers, "_failed_attempts", attempts)
        monkeypatch.setattr(wait.Clock, "sleep", sleep)
        gate = self.gate(replace(alluxio, start_timeout=60))
        assert gate.before is not None
        gate.before.check()
        registry.revisions["w01"] = 11
        said = r"1 of 2 workers is not live: w02 ended by itself 3 times, .* do not help"
        with pytest.raises(Unhealthy, match=said):
            gate.after.check()
        assert asked == [[]] * 3 + [["w02"]] * 4

    def test_crashes_are_counted_while_etcd_answers(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(start_workers, "CRASH_LOOK_SECONDS", 0)
        monkeypatch.setattr(start_workers, "CRASHES_SECONDS", 0)
        counts = iter((0, 2, 4, 6, 7))
        monkeypatch.setattr(start_workers, "_failed_attempts", lambda *_: {"w01": next(counts)})
        crashes = start_workers._Crashes(Fleet(1))
        assert [crashes.told(alluxio.workers) for _ in range(2)] == ["", ""]
        crashes.forget()
        told = [crashes.told(alluxio.workers) for _ in range(3)]
        assert told == ["", "", ": w01 ended by itself 3 times, and systemd's restarts do not help"]

    @pytest.mark.parametrize("period", [4, 40, 60])
    def test_a_crash_loop_is_known_by_its_attempts_whatever_its_period(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch, period: int
    ) -> None:
        """As of a worker that ends ``period`` seconds after each start."""
        now = [1000.0]
        monkeypatch.setattr("provision.plans.alluxio.start_workers.time.monotonic", lambda: now[0])

        def attempts(*_: Any) -> dict[str, int]:
            return {"w01": int((now[0] - 1000) // period)}

        monkeypatch.setattr(start_workers, "_failed_attempts", attempts)
        crashes = start_workers._Crashes(Fleet(1))
        while not (told := crashes.told(alluxio.workers)):
            now[0] += start_workers.POLL_SECONDS
        took = now[0] - 1000
        assert "do not help" in told
        assert max(3 * period, start_workers.CRASHES_SECONDS) <= took
        assert (
            took
            <= max(4 * period, start_workers.CRASHES_SECONDS) + 2 * start_workers.CRASH_LOOK_SECONDS
        )

    def test_at_the_deadline_one_failed_attempt_is_told(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counts = iter((4, 5, 5))
        monkeypatch.setattr(start_workers, "CRASH_LOOK_SECONDS", 0)
        monkeypatch.setattr(start_workers, "_failed_attempts", lambda *_: {"w01": next(counts)})
        crashes = start_workers._Crashes(Fleet(1))
        assert [crashes.told(alluxio.workers) for _ in range(2)] == ["", ""]
        assert crashes.told(alluxio.workers, late=True) == ": w01 ended by itself once meanwhile"

    def test_a_count_that_begins_again_is_no_failure(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counts = iter((7, 0, 0, 2))
        monkeypatch.setattr(start_workers, "CRASH_LOOK_SECONDS", 0)
        monkeypatch.setattr(start_workers, "_failed_attempts", lambda *_: {"w01": next(counts)})
        crashes = start_workers._Crashes(Fleet(1))
        assert crashes.told(alluxio.workers) == ""
        assert [crashes.told(alluxio.workers, late=True) for _ in range(2)] == ["", ""]
        assert crashes.told(alluxio.workers, late=True) == ": w01 ended by itself 2 times meanwhile"

    @pytest.mark.parametrize(
        ("shown", "attempts"),
        [
            ("NRestarts=4\nSubState=running\n", 4),
            ("SubState=auto-restart\nNRestarts=4\n", 5),
            ("NRestarts=4\nSubState=failed\n", 5),
            ("", None),
            ("NRestarts=\nSubState=\n", None),
        ],
    )
    def test_an_attempt_counts_when_it_has_ended(self, shown: str, attempts: int | None) -> None:
        assert start_workers._attempts(shown) == attempts

    @pytest.mark.parametrize(
        ("shown", "age"),
        [
            ("Uptime=100.25\nActiveState=active\nActiveEnterTimestampMonotonic=90500000\n", 9.5),
            ("Uptime=100.25\nActiveState=active\nActiveEnterTimestampMonotonic=100400000\n", 0.0),
            # The uptime is that of a container that is younger than its kernel.
            ("Uptime=40.25\nActiveState=active\nActiveEnterTimestampMonotonic=90000000\n", None),
            ("Uptime=100.2\nActiveState=activating\nActiveEnterTimestampMonotonic=5\n", None),
            ("Uptime=100.2\nActiveState=active\nActiveEnterTimestampMonotonic=0\n", None),
            ("", None),
        ],
    )
    def test_how_long_a_service_has_been_active(self, shown: str, age: float | None) -> None:
        assert start_workers._age(shown) == age

    def test_a_worker_that_lost_its_lease_has_time_to_register_again(
        self, alluxio: AlluxioCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = Registry(monkeypatch, alluxio)
        given = alluxio, Etcd(builders.etcd(), Fleet(1)), alluxio.workers
        revision, slept = registry.revisions.pop("w02"), []

        def sleep(_: wait.Clock, seconds: float) -> None:
            slept.append(seconds)
            registry.revisions["w02"] = revision + 2

        monkeypatch.setattr(wait.Clock, "sleep", sleep)
        assert start_workers.require_live(*given, patience=60) == {"w01": 10, "w02": revision + 2}
        assert slept == [start_workers.POLL_SECONDS]


def test_the_same_endpoints_in_another_order_are_no_change() -> None:
    three = tuple(f"http://10.0.0.{n}:2379" for n in (1, 2, 3))
    alluxio = replace(cluster(1), etcd_endpoints=three)
    seen = running(alluxio)
    other = replace(alluxio, etcd_endpoints=tuple(reversed(three)))
    assert plan(other, seen).steps == ()
    fewer = replace(alluxio, etcd_endpoints=three[1:])
    assert plan(fewer, seen).steps
