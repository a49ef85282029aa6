"""Members and workers with a missing data disk: only their own hosts can report it."""

from __future__ import annotations

from provision.alluxio.worker import desired, state, stores
from provision.errors import Problem
from provision.etcd.cluster.health import ClusterHealth
from provision.etcd.member import desired as etcd
from provision.etcd.member import layout
from provision.host import gather
from provision.host.facts import Probe
from provision.host.resources import DataDisk, File
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker, EtcdMember
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


def of_workers(fleet: Fleet, alluxio: AlluxioCluster) -> list[Problem]:
    """The problems of all workers and of their page stores."""

    def probe(w: AlluxioWorker) -> Probe:
        return Probe(
            resources=(
                *(File(desired.UNIT_PATH, None), File(desired.identity_file(alluxio), None)),
                DataDisk(alluxio.state_dir),
            ),
            units=(desired.UNIT,),
            paths=(state.metastore(alluxio), *w.page_store.dirs),
            disks=(alluxio.state_dir, *w.page_store.dirs),
            commands=state.probe_commands(alluxio),
        )

    facts, _ = gather.gather_facts(fleet, {w.machine: probe(w) for w in alluxio.workers})
    found = []
    for w in alluxio.workers:
        if w.machine in facts:
            seen, where = facts[w.machine], w.place
            found += desired.disk_problems(alluxio, seen, where)
            found += stores.problems(w, seen, desired.UNIT_PATH, alluxio.user, where)
    return found
