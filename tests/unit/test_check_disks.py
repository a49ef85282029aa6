"""check-nodes: what a host says of a data disk that is away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from provision.check_nodes import disks
from provision.errors import Problem
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.member import desired
from provision.host import gather
from provision.host.facts import HostFacts, Probe
from provision.host.predict import after
from provision.host.resources import DataDisk
from provision.inventory.resolved import Machine
from provision.ssh.session import Fleet
from tests.unit import builders, hosts
from tests.unit.hosts import TARBALL
from tests.unit.test_stores import ALLUXIO, WORKER, installed, on, without

CLUSTER = builders.etcd()


def asked(
    monkeypatch: pytest.MonkeyPatch, facts: Mapping[Machine, HostFacts]
) -> list[Mapping[Machine, Probe]]:
    """Each question, to hosts that answer with ``facts``."""
    seen: list[Mapping[Machine, Probe]] = []

    def look(
        fleet: Fleet, probes: Mapping[Machine, Probe]
    ) -> tuple[dict[Machine, HostFacts], list[Problem]]:
        seen.append(probes)
        return {m: facts[m] for m in probes if m in facts}, []

    monkeypatch.setattr(gather, "gather_facts", look)
    return seen


@pytest.mark.parametrize(
    ("error", "gone", "said"),
    [
        ("connection refused", True, ["member-data-lost"]),
        ("connection refused", False, []),
        ("no answer in 3 s", True, []),  # a host that is away is not asked
    ],
)
def test_a_member(error: str, gone: bool, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = CLUSTER.members[0]
    bare = hosts.facts()
    wanted = desired.resources(CLUSTER, first, TARBALL, None, None, bootstrapped=True)
    facts = after(wanted, bare)
    if gone:
        facts = without(facts, DataDisk(first.data_dir).marker)
    questions = asked(monkeypatch, {first.machine: facts})
    health = ClusterHealth(CLUSTER, (MemberHealth(first, error=error),))
    with Fleet(1) as fleet:
        found = disks.of_members(fleet, health)
    assert [p.id for p in found] == said
    assert [list(q) for q in questions] == ([[first.machine]] if "refused" in error else [])


def test_workers() -> None:
    facts = without(on(installed(d1="/d1", d2="/d2"), d1="/d1"), "/d2", ALLUXIO.state_dir)
    alone = replace(ALLUXIO, workers=(WORKER,))
    assert set(disks.probes(alone)) == {WORKER.machine}
    found = disks.of_workers(alone, {WORKER.machine: facts})
    assert [(p.severity, p.id) for p in found] == [
        ("error", "data-disk-missing"),
        ("warning", "page-store-away"),
    ]
