"""Members and workers with a missing data disk: only their own hosts can report it."""

from __future__ import annotations

from collections.abc import Mapping

from provision.alluxio.worker import desired, state, stores
from provision.errors import Problem
from provision.etcd.cluster.health import ClusterHealth
from provision.etcd.member import desired as etcd
from provision.etcd.member import layout
from provision.host import gather
from provision.host.facts import HostFacts, Probe
from provision.host.resources import DataDisk, File
from provision.inventory.resolved import AlluxioCluster, EtcdMember, Machine
from provision.ssh.session import Fleet

#: A word in the error of a host on which nothing listens. An unreachable host gives another error.
_REFUSED = "refused"


def of_members(fleet: Fleet, seen: ClusterHealth) -> list[Problem]:
    """The problems of members with a host that answers and an etcd that does not run. Other members
    are left out: the look at etcd has reported that the member is down."""
    cluster = seen.cluster
    if cluster.external:
        return []
    down = [m.member for m in seen.members if m.status is None and _REFUSED in m.error]
    if not down:
        return []

    def probe(m: EtcdMember) -> Probe:
        return Probe(
            resources=(
                *(File(layout.UNIT_PATH, None), File(layout.config_file(cluster), None)),
                DataDisk(m.data_dir),
            ),
            paths=(f"{m.data_dir}/member",),
            disks=(m.data_dir,),
        )

    facts, _ = gather.gather_facts(fleet, {m.machine: probe(m) for m in down})
    found = []
    for m in down:
        if m.machine in facts and etcd.is_disk_missing(cluster, m, facts[m.machine]):
            what, remedy = etcd.what_is_lost(cluster, m, facts[m.machine])
            found.append(Problem(f"etcd member {m.name}", what, remedy, id="member-data-lost"))
    return found


def probes(alluxio: AlluxioCluster) -> dict[Machine, Probe]:
    """What to look at on the workers' hosts, for :func:`of_workers`. Hosts of workers with the same
    page stores share a probe."""
    alike: dict[tuple[str, ...], Probe] = {}
    for dirs in dict.fromkeys(tuple(w.page_store.dirs) for w in alluxio.workers):
        alike[dirs] = Probe(
            resources=(
                *(File(desired.UNIT_PATH, None), File(desired.identity_file(alluxio), None)),
                DataDisk(alluxio.state_dir),
            ),
            units=(desired.UNIT,),
            paths=(state.metastore(alluxio), *dirs),
            disks=(alluxio.state_dir, *dirs),
            commands=state.probe_commands(alluxio),
        )
    return {w.machine: alike[tuple(w.page_store.dirs)] for w in alluxio.workers}


def of_workers(alluxio: AlluxioCluster, facts: Mapping[Machine, HostFacts]) -> list[Problem]:
    """The problems of all workers and of their page stores, by facts of :func:`probes`."""
    found = []
    for w in alluxio.workers:
        if w.machine in facts:
            seen, where = facts[w.machine], w.place
            found += desired.disk_problems(alluxio, seen, where)
            found += stores.problems(w, seen, desired.UNIT_PATH, alluxio.user, where)
    return found
