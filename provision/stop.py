"""``stop-workers`` and ``destroy``: what is taken away, and nothing beside it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from provision import artifacts, gather
from provision.alluxio import desired as worker
from provision.alluxio import java
from provision.errors import PreflightFailed, Problem
from provision.etcd import desired as etcd
from provision.etcd import timer
from provision.host.change import Change
from provision.host.observe import PENDING_DIR, HostFacts, Probe, merged
from provision.host.ownership import owner
from provision.host.resources import File
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
    """Stop the chosen workers. They stay installed and enabled; ``start-workers`` starts them.

    Raises :class:`PreflightFailed` when one of them is not this cluster's.
    """
    probe = Probe(resources=(File(worker.UNIT_PATH, None),), units=(worker.UNIT,))
    facts = gather.facts(fleet, {w.machine: probe for w in chosen})
    foreign = [
        Problem(
            f"{w.name} at {w.machine.host} ({w.machine.where})",
            f"{worker.UNIT} there is " + (f"of cluster {of}" if of else "not of this tool"),
            "stop it by hand, if that is what you want",
        )
        for w in chosen
        if (of := owner(facts[w.machine], worker.UNIT_PATH)) != inventory.cluster
        and facts[w.machine].unit(worker.UNIT).load != "not-found"
    ]
    if foreign:
        raise PreflightFailed("not this cluster's to stop; nothing was changed", foreign)
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
            Step(
                "remove workers",
                _hosts(alluxio.workers, lambda w: _worker(alluxio, w, facts)),
                at_once=inventory.parallel,
            )
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
    if alluxio.java.source is not None:
        gone.append(java.tree(alluxio, artifacts.file_name(alluxio.java.source)))
        empty.append(alluxio.java.install_dir)
    return gone, empty


def _etcd_paths(cluster: EtcdCluster, member: EtcdMember) -> tuple[list[str], list[str]]:
    gone = [
        *timer.paths(cluster),
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


def _etcd_probe(cluster: EtcdCluster, member: EtcdMember) -> Probe:
    gone, empty = _etcd_paths(cluster, member)
    return Probe(resources=(File(etcd.UNIT_PATH, None),), paths=(*gone, *empty), units=(etcd.UNIT,))


def _worker_probe(alluxio: AlluxioCluster, w: AlluxioWorker) -> Probe:
    gone, empty = _worker_paths(alluxio, w)
    return Probe(
        resources=(File(worker.UNIT_PATH, None),), paths=(*gone, *empty), units=(worker.UNIT,)
    )


def _etcd(
    cluster: EtcdCluster, member: EtcdMember, facts: Mapping[Machine, HostFacts]
) -> tuple[Change, ...]:
    gone, empty = _etcd_paths(cluster, member)
    f = facts[member.machine]
    # Its snapshots stay.
    stop_timer = Change(f"disable {timer.UNIT}", f"systemctl disable -q --now {timer.UNIT}")
    first = (stop_timer,) if timer.TIMER_PATH in f.paths else ()
    return _removal(f, etcd.UNIT, etcd.UNIT_PATH, cluster.name, gone, empty, first)


def _worker(
    alluxio: AlluxioCluster, w: AlluxioWorker, facts: Mapping[Machine, HostFacts]
) -> tuple[Change, ...]:
    gone, empty = _worker_paths(alluxio, w)
    f = facts[w.machine]
    # Its folders, too: `info nodes` makes one.
    logs = f"find {shlex.quote(alluxio.log_dir)} -xdev -mindepth 1 -user {alluxio.user} -delete"
    delete_logs = Change(f"delete the logs in {alluxio.log_dir}", f"{logs} 2>/dev/null || :")
    return _removal(
        f,
        worker.UNIT,
        worker.UNIT_PATH,
        alluxio.name,
        gone,
        [*empty, alluxio.log_dir],
        first=(delete_logs,),
    )


def _removal(
    facts: HostFacts,
    unit: str,
    unit_path: str,
    cluster: str,
    gone: Sequence[str],
    empty: Sequence[str],
    first: Sequence[Change] = (),
) -> tuple[Change, ...]:
    """Nothing, unless the host's unit says that it is this cluster's.

    The unit file goes last: while it is there, a killed run can be run again.
    """
    if owner(facts, unit_path) != cluster:
        return ()
    result = [
        Change(
            f"stop and disable {unit}",
            # Its data goes: a leader need not wait to hand on its leadership.
            f"systemctl disable -q {unit}; systemctl stop --no-block {unit}\n"
            f"systemctl kill -s KILL {unit} 2>/dev/null || :\n"
            f"systemctl stop {unit}; systemctl reset-failed {unit} 2>/dev/null || :",
            disrupts=True,
            seconds=120,
        ),
        *first,
    ]
    result += [
        Change(f"delete {path}", f"rm -rf {shlex.quote(path)}")
        for path in gone
        if path in facts.paths and path != unit_path
    ]
    result += [
        Change(f"remove {path} if empty", f"rmdir {shlex.quote(path)} 2>/dev/null || :")
        for path in empty
    ]
    pending = f"{PENDING_DIR}/restart.{unit}"
    result.append(
        Change(f"delete {unit_path}", f"rm -f {unit_path} {pending}; systemctl daemon-reload")
    )
    return tuple(result)


_T = TypeVar("_T", EtcdMember, AlluxioWorker)


def _hosts(
    roles: Sequence[_T], removal: Callable[[_T], tuple[Change, ...]]
) -> tuple[HostChanges, ...]:
    hosts = (HostChanges(role.name, role.machine, removal(role)) for role in roles)
    return tuple(h for h in hosts if h.changes)
