"""``stop-workers`` and ``destroy``: what is taken away, and nothing beside it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from provision import gather
from provision.alluxio import desired as worker
from provision.alluxio import java
from provision.etcd import desired as etcd
from provision.host.change import Change
from provision.host.observe import HostFacts, Probe, merged
from provision.inventory.resolved import (
    AlluxioCluster,
    AlluxioWorker,
    EtcdCluster,
    EtcdMember,
    Inventory,
    Machine,
)
from provision.plan import HostChanges, Plan, Step
from provision.remote import Fleet


def workers(inventory: Inventory, chosen: Sequence[AlluxioWorker], fleet: Fleet) -> Plan:
    """Stop the chosen workers. They stay installed and enabled; ``start-workers`` starts them."""
    probe = Probe(units=(worker.UNIT,))
    facts = gather.facts(fleet, {w.machine: probe for w in chosen})
    stop = Change(f"stop {worker.UNIT}", f"systemctl stop {worker.UNIT}", disrupts=True, seconds=90)
    hosts = tuple(
        HostChanges(w.name, w.machine, (stop,))
        for w in chosen
        if facts[w.machine].unit(worker.UNIT).active not in ("inactive", "failed")
    )
    steps = (Step("stop workers", hosts, at_once=inventory.parallel),) if hosts else ()
    return Plan("stop-workers", inventory.cluster, steps)


def destroy(inventory: Inventory, fleet: Fleet) -> Plan:
    """Take the cluster off its hosts, with its data: workers first, then etcd.

    Only what this tool put there goes, and only from hosts whose units carry this cluster's
    name. Users, and directories that hold something else, stay.
    """
    alluxio = inventory.alluxio
    probes: dict[Machine, list[Probe]] = {}
    for member in inventory.etcd.members:
        probes.setdefault(member.machine, []).append(_etcd_probe(inventory.etcd, member))
    for w in alluxio.workers if alluxio else ():
        assert alluxio is not None
        probes.setdefault(w.machine, []).append(_worker_probe(alluxio, w))
    facts = gather.facts(fleet, {machine: merged(every) for machine, every in probes.items()})
    steps: list[Step] = []
    if alluxio is not None:
        steps.append(
            Step("remove workers", _hosts(alluxio.workers, lambda w: _worker(alluxio, w, facts)))
        )
    steps.append(
        Step(
            "remove etcd, with its data",
            _hosts(inventory.etcd.members, lambda m: _etcd(inventory.etcd, m, facts)),
        )
    )
    return Plan("destroy", inventory.cluster, tuple(s for s in steps if s.hosts))


def _worker_paths(alluxio: AlluxioCluster, w: AlluxioWorker) -> tuple[list[str], list[str]]:
    """What goes, and the directories that go if they are empty then."""
    gone = [
        worker.UNIT_PATH,
        worker.home(alluxio),
        f"{alluxio.install_dir}/current",
        *(f"{path}/LOCAL" for path in w.page_store.dirs),
        worker.identity_file(alluxio),
    ]
    empty = [alluxio.install_dir, *w.page_store.dirs, alluxio.state_dir]
    if alluxio.java.source is not None and alluxio.java.source.path is not None:
        gone.append(java.tree_named(alluxio, alluxio.java.source.path.name))
        empty.append(alluxio.java.install_dir)
    return gone, empty


def _etcd_paths(cluster: EtcdCluster, member: EtcdMember) -> tuple[list[str], list[str]]:
    gone = [
        etcd.UNIT_PATH,
        etcd.config_file(cluster),
        etcd.pki_dir(cluster),
        f"{member.data_dir}/member",
    ]
    empty = [cluster.config_dir, member.data_dir]
    if not cluster.source.package:
        gone += [f"{cluster.install_dir}/{cluster.version}", f"{cluster.install_dir}/current"]
        empty.append(cluster.install_dir)
    return gone, empty
