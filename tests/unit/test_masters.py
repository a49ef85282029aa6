"""Masters: their files, alone and beside a worker, and the plan that starts them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.worker import desired
from provision.alluxio.worker.desired import MASTER_UNIT, UNIT, Artifacts
from provision.engine.plan import Plan
from provision.errors import InventoryError
from provision.etcd.cluster.handle import Etcd
from provision.host.diff import changes
from provision.host.facts import HostFacts, Listener
from provision.host.predict import after
from provision.host.resources import File, Resource
from provision.inventory import load
from provision.inventory.resolved import AlluxioCluster
from provision.plans import destroy
from provision.plans.alluxio import masters, start_workers
from provision.ssh.session import Fleet
from tests.unit import builders, hosts
from tests.unit.hosts import TARBALL
from tests.unit.test_render import load_properties

ARTIFACTS = Artifacts(TARBALL, None)
ALONE, BESIDE, THIRD = (
    builders.master(n, h) for n, h in (("m0", None), ("m1", "w1"), ("m2", None))
)


def cluster(*found: str) -> AlluxioCluster:
    known = {"m0": ALONE, "m1": BESIDE, "m2": THIRD}
    return builders.alluxio(masters=tuple(known[name] for name in found))


def files(resources: tuple[Resource, ...]) -> dict[str, str]:
    found = {r.path: r.content or b"" for r in resources if isinstance(r, File)}
    return {path.rsplit("/", 1)[-1]: content.decode() for path, content in found.items()}


def of(alluxio: AlluxioCluster, number: int) -> dict[str, str]:
    return files(masters.resources(alluxio, alluxio.masters[number], ARTIFACTS, None))


def worker_files(alluxio: AlluxioCluster, number: int) -> dict[str, str]:
    return files(desired.resources(alluxio, alluxio.workers[number], ARTIFACTS, None))


def test_one_master_is_named_to_everyone() -> None:
    alluxio = cluster("m0")
    for found in (of(alluxio, 0), worker_files(alluxio, 1)):
        site = load_properties(found["alluxio-site.properties"])
        assert site["alluxio.master.hostname"] == "m0"
        assert "alluxio.master.rpc.addresses" not in site
        assert found["masters"].splitlines()[1:] == ["m0"]


def test_of_several_everyone_has_both_lists() -> None:
    alluxio = cluster("m0", "m1", "m2")
    for found in (of(alluxio, 0), worker_files(alluxio, 1)):
        site = load_properties(found["alluxio-site.properties"])
        assert site["alluxio.master.rpc.addresses"] == "m0:19998,w1:19998,m2:19998"
        assert site["alluxio.master.embedded.journal.addresses"] == "m0:19200,w1:19200,m2:19200"
        assert found["masters"].splitlines()[1:] == ["m0", "w1", "m2"]
    assert "alluxio.master.hostname=w1\n" in of(alluxio, 1)["alluxio-site.properties"]
    assert "alluxio.master.hostname" not in worker_files(alluxio, 1)["alluxio-site.properties"]


def test_without_masters_there_is_a_placeholder_for_the_shell_alone() -> None:
    found = worker_files(builders.alluxio(), 0)
    assert "masters" not in found
    lines = found["alluxio-site.properties"].splitlines()
    assert [line for line in lines if "alluxio.master" in line] == [
        "alluxio.master.hostname=localhost"
    ]


def test_a_host_of_both_has_the_same_files_for_either() -> None:
    alluxio = cluster("m0", "m1", "m2")
    shared = ("alluxio-site.properties", "alluxio-env.sh", "workers", "masters")
    one, other = of(alluxio, 1), worker_files(alluxio, 0)
    assert [one[name] for name in shared] == [other[name] for name in shared]
    site = load_properties(one["alluxio-site.properties"])
    assert site["alluxio.worker.hostname"] == site["alluxio.master.hostname"] == "w1"
    (line,) = [t for t in one["alluxio-env.sh"].splitlines() if "ALLUXIO_MASTER_JAVA_OPTS" in t]
    assert line.endswith(" -Xms4g -Xmx4g'")
    # Each of the two has a folder of its own to unpack libraries in, and a metastore of its own.
    assert "-Djava.io.tmpdir=/var/lib/alluxio/tmp/master " in line
    assert "-Djava.io.tmpdir=/var/lib/alluxio/tmp/worker " in one["alluxio-env.sh"]
    assert site["alluxio.master.metastore.dir"] == "/var/lib/alluxio/metastore"
    assert site["alluxio.dora.worker.metastore.rocksdb.dir"] == "/var/lib/alluxio/worker_metastore"
    assert "ALLUXIO_WORKER_JAVA_OPTS" in one["alluxio-env.sh"]
    assert "ALLUXIO_WORKER_JAVA_OPTS" not in of(alluxio, 0)["alluxio-env.sh"]


def test_the_unit_is_the_workers_by_another_role() -> None:
    unit = of(cluster("m0"), 0)[MASTER_UNIT].splitlines()
    assert "ExecStart=/opt/alluxio/313/bin/launch-process-bash master -c" in unit
    assert "Description=Alluxio master m0 of c" in unit
    assert "ReadWritePaths=/var/lib/alluxio /var/log/alluxio" in unit
    worker = worker_files(cluster("m0"), 0)[UNIT].splitlines()
    assert len(unit) + 2 == len(worker)  # the page stores
    assert "RequiresMountsFor=/var/lib/alluxio/journal" in unit
    assert "RequiresMountsFor=/var/lib/alluxio" in worker


def running(alluxio: AlluxioCluster) -> dict[str, HostFacts]:
    """Every host as both commands leave it."""
    found: dict[str, HostFacts] = {}
    for n, m in enumerate(alluxio.masters, 1):
        bare = hosts.facts(n)
        found[m.name] = after(masters.resources(alluxio, m, ARTIFACTS, bare), bare)
        worker = masters.worker_on(alluxio, m)
        if worker is not None:
            wanted = desired.resources(alluxio, worker, ARTIFACTS, found[m.name])
            found[m.name] = after(wanted, found[m.name])
    return found


def plan(alluxio: AlluxioCluster, seen: dict[str, HostFacts], primary: str | None = None) -> Plan:
    found = {m.machine: seen[m.name] for m in alluxio.masters}
    observed = masters.MastersObserved(ARTIFACTS, found, primary=primary)
    with Fleet(4) as fleet:
        inventory = builders.inventory(alluxio)
        return masters.plan(inventory, alluxio, fleet, observed, alluxio.masters)


def test_new_masters_start_together_and_those_that_run_one_by_one() -> None:
    alluxio = cluster("m0", "m1", "m2")
    new = plan(alluxio, {m.name: hosts.facts(n) for n, m in enumerate(alluxio.masters)})
    assert [s.title for s in new.steps] == ["install and start masters"]
    assert new.steps[0].after is not None
    seen = running(alluxio)
    assert plan(alluxio, seen).steps == ()
    changed = plan(replace(alluxio, master_heap="8g"), seen)
    assert [s.title for s in changed.steps] == ["restart m0", "restart m1", "restart m2"]
    assert all(s.before is not None and s.after is not None for s in changed.steps)


def test_a_plans_steps_say_what_becomes_of_each_master() -> None:
    alluxio = cluster("m0", "m1")
    seen = running(alluxio)
    m0, m1 = (m.name for m in alluxio.masters)
    unread = {**seen, m0: hosts.with_unit(seen[m0], MASTER_UNIT, needs_reload=True)}
    assert [s.title for s in plan(alluxio, unread).steps] == ["change m0"]
    stopped = {**seen, m1: hosts.with_unit(seen[m1], MASTER_UNIT, active="inactive")}
    assert [s.title for s in plan(alluxio, stopped).steps] == ["start masters"]


def test_the_primary_is_restarted_last() -> None:
    alluxio = cluster("m0", "m1", "m2")
    changed = plan(replace(alluxio, master_heap="8g"), running(alluxio), primary="m0")
    assert [s.title for s in changed.steps] == ["restart m1", "restart m2", "restart m0"]


def test_a_worker_beside_is_left_a_pending_restart_and_named() -> None:
    alluxio = cluster("m0", "m1", "m2")
    more = replace(alluxio, master_heap="8g")
    found = plan(more, running(alluxio))
    (note,) = found.notes
    assert (note.where, note.remedy) == ("w1 at w1", "then run invoke start-workers")
    beside = next(h for s in found.steps for h in s.hosts if h.name == "m1")
    assert {u for c in beside.changes for u in c.restarts} == {UNIT, MASTER_UNIT}
    assert not any(f"restart {UNIT}" in c.what for c in beside.changes)


def test_a_master_beside_is_left_a_pending_restart_and_named() -> None:
    alluxio = cluster("m0", "m1", "m2")
    seen = running(alluxio)
    (worker, _) = alluxio.workers
    more = replace(alluxio, workers=(worker._replace(heap="8g"), alluxio.workers[1]))
    observed = start_workers.WorkersState(ARTIFACTS, {worker.machine: seen["m1"]})
    with Fleet(1) as fleet:
        inventory = builders.inventory(more)
        handle = Etcd(inventory.etcd, fleet)
        found = start_workers.plan(inventory, more, handle, observed, more.workers[:1])
    assert [(n.where, n.remedy) for n in found.notes] == [
        ("m1 at w1", "then run invoke start-masters")
    ]
    todo = changes(desired.resources(alluxio, worker, ARTIFACTS, seen["m1"]), seen["m1"])
    assert todo == ()


def test_destroy_leaves_a_worker_beside_its_release() -> None:
    alluxio = cluster("m0", "m1", "m2")
    seen = running(alluxio)
    facts = {m.machine: seen[m.name] for m in alluxio.masters}
    for m, alone in ((ALONE, True), (BESIDE, False)):
        todo = [c.what for c in destroy._master(alluxio, m, facts)]
        assert f"stop and disable {MASTER_UNIT}" in todo
        assert any("the releases in /opt/alluxio" in t for t in todo) is alone
        assert any("current" in t for t in todo) is alone


def test_every_port_of_a_master_is_free_or_its_own_and_the_others_are_reached() -> None:
    alluxio = cluster("m0", "m1", "m2")
    probe = masters._probe(alluxio, ALONE, ARTIFACTS)
    assert list(probe.ports or ()) == [19998, 19999, 19200]
    assert list(probe.reach or ()) == [("w1", 19200), ("m2", 19200)]
    seen = replace(
        hosts.facts(),
        listeners={n: Listener(n, 9, "nginx") for n in (19998, 19999, 19200)},
        unreachable={("m2", 19200): "no answer in 3 s"},
    )
    found = masters._problems(alluxio, ALONE, ARTIFACTS, seen)
    assert [(p.id, p.what) for p in found] == [
        *(("port-taken", f"port {n} is taken by nginx (pid 9)") for n in (19998, 19999, 19200)),
        (
            "listener-unreachable",
            "cannot reach m2's journal port at m2:19200: no answer in 3 s",
        ),
    ]


def test_without_a_journal_of_their_own_masters_do_not_reach_one_another() -> None:
    alluxio = replace(cluster("m0", "m2"), properties={"alluxio.master.journal.type": "NOOP"})
    assert list(masters._probe(alluxio, alluxio.masters[0], ARTIFACTS).reach or ()) == []


BASE = """\
etcd:
  external: {endpoints: ["http://10.0.1.10:2379"]}
alluxio:
  version: 313
  source: {path: alluxio.tar.gz, sha256: file:SUMS}
  properties: {alluxio.master.rpc.port: 20998}
  masters:
    m[0-2]: {host: "m[0-2].example.com"}
  workers:
    w0: {host: m0.example.com, java_home: /opt/jdk8}
"""


def test_the_inventory_has_them_with_ranges(tmp_path: Path) -> None:
    path = tmp_path / "i.yml"
    path.write_text(BASE)
    alluxio = load(path).alluxio
    assert alluxio is not None
    assert [(m.name, m.hostname, m.rpc_port, m.journal_port) for m in alluxio.masters] == [
        (f"m{n}", f"m{n}.example.com", 20998, 19200) for n in range(3)
    ]
    assert [m.java_home for m in alluxio.masters] == ["/opt/jdk8", None, None]
    assert len(load(path).machines) == 3
    assert masters.worker_on(alluxio, alluxio.masters[0]) is not None


@pytest.mark.parametrize("port", ["9" * 5000, "x", "\u0663", "-1", ""])
def test_a_port_that_is_no_number_is_the_default(tmp_path: Path, port: str) -> None:
    path = tmp_path / "i.yml"
    path.write_text(BASE.replace("rpc.port: 20998", f"rpc.port: '{port}'"))
    alluxio = load(path).alluxio
    assert alluxio is not None
    assert {m.rpc_port for m in alluxio.masters} == {19998}


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("m[0-2].example.com", "m[0,0,1].example.com", "are on the same host"),
        ("rpc.port: 20998", "hostname: m9", "'alluxio.master.hostname' is set by this tool"),
        ("{host: m0.", "{ssh: {user: other}, host: m0.", "has other ssh settings"),
    ],
)
def test_what_it_refuses(tmp_path: Path, old: str, new: str, what: str) -> None:
    path = tmp_path / "i.yml"
    assert old in BASE
    path.write_text(BASE.replace(old, new, 1))
    with pytest.raises(InventoryError) as caught:
        load(path)
    assert any(what in p.what for p in caught.value.problems)
