"""Nothing is stopped before the new program has answered from its final place."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.worker import desired as worker
from provision.alluxio.worker.desired import Artifacts
from provision.artifacts import Artifact
from provision.etcd.member import desired as member
from provision.host.diff import batch, changes
from provision.host.facts import HostFacts, UnitState
from provision.host.proof import Proof
from provision.host.resources import Move, Resource, Tree, Unit
from provision.inventory.model import Source
from provision.plans.alluxio import masters
from tests.unit import builders, hosts
from tests.unit.hosts import TARBALL
from tests.unit.test_predict import Host

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")


@pytest.mark.process
@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("rewritten", [True, False])
def test_a_restart_waits_for_the_answer(answers: bool, rewritten: bool, tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    program = host.root / "bin/etcd"
    program.write_text(f"#!/bin/sh\necho etcd Version: {'3.6.16' if answers else '0'}\n")
    program.chmod(0o755)
    log = host.root / ".log-of-systemctl"
    systemctl = host.root / ".shims/systemctl"
    systemctl.write_text(f"#!/bin/sh\necho $1 >>{log}\n")
    says = "etcd Version: 3.6.16"
    proof = Proof(f"{host.root}/bin", "etcd", ("--version",), "root", says)
    unit = Unit("etcd.service", proofs=(proof,))
    path = "/etc/systemd/system/etcd.service"
    running = UnitState("loaded", "active", "running", "enabled", 7, fragment=path)
    facts = hosts.facts(
        units={"etcd.service": running}, pending_restarts=frozenset({"etcd.service"})
    )
    wanted: list[Resource] = [unit]
    if rewritten:
        facts = replace(facts, units={"etcd.service": replace(running, needs_reload=True)})
    done = host.run(batch(changes(wanted, facts)))
    if answers:
        assert done.ok, done.stderr
        verbs = log.read_text().split()
        assert verbs == [*(["daemon-reload"] if rewritten else []), "reset-failed", "restart"]
    else:
        assert not done.ok
        assert "does not answer as user root: etcd Version: 0" in done.stderr
        assert not log.exists()


def test_a_unit_that_runs_on_is_not_asked() -> None:
    proof = Proof("/opt", "etcd", ("--version",), "etcd")
    running = UnitState("loaded", "active", "running", "disabled", 7)
    facts = hosts.facts(units={"etcd.service": running})
    (change,) = changes([Unit("etcd.service", proofs=(proof,))], facts)
    assert change.script == "systemctl enable -q etcd.service"


def test_a_new_unit_needs_one_reload_of_systemd() -> None:
    """Enabled after it, systemd would say that the unit needs another one."""
    new = hosts.facts(units={"etcd.service": UnitState("loaded", needs_reload=True)})
    scripts = [change.script for change in changes([Unit("etcd.service")], new)]
    assert scripts[:2] == [
        "systemctl enable -q --no-reload etcd.service",
        "systemctl daemon-reload",
    ]


def units(resources: tuple[Resource, ...]) -> list[Unit]:
    return [r for r in resources if isinstance(r, Unit)]


def test_etcd() -> None:
    cluster = builders.etcd()
    made = member.resources(cluster, cluster.members[0], TARBALL, None, hosts.facts())
    proof = Proof(
        f"/opt/etcd/{cluster.version}",
        "etcd",
        ("--version",),
        "etcd",
        f"etcd Version: {cluster.version}",
    )
    assert [unit.proofs for unit in units(made)] == [(proof,)]
    assert [r.proof for r in made if isinstance(r, Tree)] == [proof]
    package = builders.etcd(source=Source(package=True))
    (unit,) = units(member.resources(package, package.members[0], None, None, hosts.facts()))
    assert unit.proofs == (Proof("/usr/bin", "etcd", ("--version",), "etcd"),)


def _alluxio(facts: HostFacts, jdk: Artifact | None) -> list[tuple[Resource, ...]]:
    alluxio = builders.alluxio(masters=(builders.master("m1"),))
    tarballs = Artifacts(TARBALL, jdk, hosts.RELEASE)
    return [
        worker.resources(alluxio, alluxio.workers[0], tarballs, facts),
        masters.resources(alluxio, alluxio.masters[0], tarballs, facts),
    ]


def test_a_worker_is_not_stopped_for_its_metastore_before_that() -> None:
    """An earlier version of this tool left the metastore in the release's folder."""
    jdk = Artifact(Path("jdk-11.tar.gz"), "b" * 64, 1)
    old = hosts.facts(commands={"old-metastore": "/opt/alluxio/312/metastore\n"})
    made, _ = _alluxio(old, jdk)
    (move,) = [r for r in made if isinstance(r, Move)]
    (unit,) = units(made)
    assert len(unit.proofs) == 2
    assert move.proofs == unit.proofs


def test_workers_and_masters() -> None:
    jdk = Artifact(Path("jdk-11.tar.gz"), "b" * 64, 1)
    version, home = "libexec/version.sh", "/opt/alluxio/313"
    release = Proof(home, "bin/launch-process-bash", (), "alluxio", readable=(version,))
    for made in _alluxio(hosts.facts(), jdk):
        java = Proof("/opt/java/jdk-11", "bin/java", ("-version",), "alluxio")
        assert [unit.proofs for unit in units(made)] == [(release, java)]
        trees = [r for r in made if isinstance(r, Tree)]
        assert [tree.proof for tree in trees] == [java, release]
    own = hosts.facts(commands={"java-home": "/usr/lib/jvm/java-11\n"})
    for made in _alluxio(own, None):
        java = Proof("/usr/lib/jvm/java-11", "bin/java", ("-version",), "alluxio")
        assert [unit.proofs for unit in units(made)] == [(release, java)]
