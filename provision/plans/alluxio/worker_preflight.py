"""What keeps hosts from being workers or masters, before anything changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from provision.alluxio.worker import desired as workers_desired
from provision.alluxio.worker import java, stores, tarball
from provision.alluxio.worker.desired import Artifacts
from provision.errors import Problem
from provision.host import preflight
from provision.host.facts import HostFacts
from provision.host.ownership import owner
from provision.host.resources import MARKER
from provision.inventory import ports, sizes
from provision.inventory.resolved import (
    AlluxioCluster,
    AlluxioWorker,
    Machine,
    bracketed,
)
from provision.text import number, size

#: Room for a release, in sizes of its tarball: unpacked it takes about two, and for a moment the
#: tarball lies beside it.
UNPACKED = 3


def release(
    alluxio: AlluxioCluster, artifacts: Artifacts, facts: Mapping[Machine, HostFacts]
) -> list[Problem]:
    """The problems of Alluxio's release: with its tarball, or on the hosts when only hosts have
    it. The problem of the JDK's tarball, too."""
    jdk = tarball.jdk_problems(artifacts.jdk) if artifacts.jdk is not None else []
    if artifacts.release is not None:
        return [*tarball.problems(artifacts.alluxio, artifacts.release, alluxio.version), *jdk]
    home = workers_desired.home(alluxio)
    return jdk + [
        Problem(
            machine.place,
            f"release {alluxio.version} has no {' or '.join(tarball.launchers(home))}",
            f"set alluxio.version to {alluxio.version} and alluxio.source, then upgrade-workers",
            id="release-missing",
        )
        for machine, f in facts.items()
        if tarball.launcher_on(f, home) is None
    ]


def release_rooms(
    alluxio: AlluxioCluster, artifacts: Artifacts, facts: Mapping[Machine, HostFacts]
) -> dict[Machine, list[preflight.SpaceRequirement]]:
    """What a release and a JDK need on the hosts that do not have them yet."""
    marker = f"{workers_desired.home(alluxio)}/{MARKER}"
    room = preflight.SpaceRequirement(
        alluxio.install_dir, artifacts.alluxio.room(UNPACKED), "the Alluxio release"
    )
    rooms = {m: [room] for m, f in facts.items() if f.text(marker) is None}
    if artifacts.jdk is not None:
        tree = java.tree(alluxio, artifacts.jdk.path.name)
        room = preflight.SpaceRequirement(
            alluxio.java.install_dir, artifacts.jdk.room(UNPACKED), "the JDK"
        )
        for m, f in facts.items():
            if f.text(f"{tree}/{MARKER}") is None:
                rooms.setdefault(m, []).append(room)
    return rooms


def workers(
    alluxio: AlluxioCluster,
    chosen: Sequence[AlluxioWorker],
    artifacts: Artifacts,
    facts: Mapping[Machine, HostFacts],
) -> list[Problem]:
    """The problems of the chosen workers' hosts, warnings among them."""
    problems: list[Problem] = []
    for worker in chosen:
        f = facts.get(worker.machine)
        if f is None:
            continue
        where = worker.place
        path = workers_desired.UNIT_PATH
        listeners = ports.worker_listeners(alluxio, worker)
        problems += taken(f, listeners, workers_desired.UNIT, path, where)
        problems += _etcd_out_of_reach(alluxio, f, where)
        problems += preflight.ours(f, workers_desired.UNIT, path, alluxio.name, "worker", where)
        accepted = artifacts.release.java if artifacts.release is not None else ()
        problems += java.problems(alluxio, worker, artifacts.jdk, f, where, accepted)
        identity = workers_desired.identity(alluxio, f)
        file = workers_desired.identity_file(alluxio)
        if identity is None and f.text(file):
            problems.append(
                Problem(
                    where,
                    f"{file} does not contain a UUID",
                    "restore it, or remove it to get a new identity",
                    id="worker-identity-invalid",
                )
            )
        problems += _memory(worker, f, where)
        problems += stores.problems(worker, f, workers_desired.UNIT_PATH, alluxio.user, where)
        problems += workers_desired.disk_problems(alluxio, f, where)
    return problems + cloned(alluxio, chosen, facts)


def cloned(
    alluxio: AlluxioCluster, chosen: Sequence[AlluxioWorker], facts: Mapping[Machine, HostFacts]
) -> list[Problem]:
    """The chosen workers with the identity of one before them in the inventory."""
    problems: list[Problem] = []
    first: dict[str, str] = {}
    names = {w.name for w in chosen}
    for worker in alluxio.workers:
        f = facts.get(worker.machine) if worker.name in names else None
        identity = workers_desired.identity(alluxio, f) if f is not None else None
        if identity is None:
            continue
        if first.setdefault(identity, worker.name) != worker.name:
            problems.append(
                Problem(
                    worker.place,
                    f"it has the same worker identity {identity} as {first[identity]} (a cloned "
                    "image or a copied folder): etcd would keep only one of the two",
                    "stop the worker on the clone and remove "
                    f"{workers_desired.identity_file(alluxio)} there",
                    id="worker-identity-cloned",
                )
            )
    return problems


def _memory(worker: AlluxioWorker, f: HostFacts, where: str) -> list[Problem]:
    memory = number(f.values.get("memory", ""))
    wanted = sizes.size_bytes(worker.heap)
    wanted += sizes.size_bytes(worker.direct_memory)
    if memory is None or wanted <= memory:
        return []
    return [
        Problem(
            where,
            f"heap {worker.heap} and direct memory {worker.direct_memory} are more than the "
            f"host's {size(memory)}",
            "the kernel may kill the worker: give it less, or the host more",
            severity="warning",
            id="memory-short",
        )
    ]


def taken(
    f: HostFacts, listeners: Iterable[ports.Listener], unit: str, path: str, where: str
) -> list[Problem]:
    """Other processes that listen on the ports of the worker or master with the unit ``unit`` at
    ``path``."""
    ours = owner(f, path) is not None
    problems: list[Problem] = []
    for one in listeners:
        remedy = f"stop it, or set {one.property} to another port"
        if one.turned_on_by:
            remedy += f", or {one.turned_on_by} to false"
        found = preflight.port(f, one.port, unit, ours, where)
        problems += [replace(problem, remedy=remedy) for problem in found]
    return problems


def _etcd_out_of_reach(alluxio: AlluxioCluster, f: HostFacts, where: str) -> list[Problem]:
    """A worker needs one of etcd's endpoints. At an endpoint that it cannot reach, the member may
    just be down."""
    wanted = workers_desired.etcd_addresses(alluxio)
    missing = {at: f.unreachable[at] for at in wanted if at in f.unreachable}
    if not missing:
        return []
    shown = ", ".join(
        f"{bracketed(host)}:{number}: {why}" for (host, number), why in missing.items()
    )
    every = len(missing) == len(set(wanted))
    return [
        Problem(
            where,
            f"cannot reach {'any endpoint' if every else 'some endpoints'} of etcd: {shown}",
            "open etcd's client port to the workers' hosts",
            "error" if every else "warning",
            id="listener-unreachable",
        )
    ]
