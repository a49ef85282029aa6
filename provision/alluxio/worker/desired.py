"""The desired state of one Alluxio worker's host, as resources."""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from urllib.parse import urlsplit

from provision.alluxio.worker import java, membership_properties, state, stores
from provision.alluxio.worker.membership_properties import ENDPOINTS
from provision.alluxio.worker.tarball import (
    LAUNCHERS,
    VERSION,
    Contents,
    launcher_on,
    launchers,
)
from provision.artifacts import Artifact
from provision.dataclass import dataclass
from provision.errors import Problem, UsageError
from provision.etcd.api.values import Login
from provision.host import disks
from provision.host.effects import Effect
from provision.host.facts import PREFLIGHT, HostFacts, Probe
from provision.host.ownership import owner
from provision.host.proof import Proof
from provision.host.resources import (
    MASK,
    DataDisk,
    Directory,
    File,
    Identity,
    Link,
    Move,
    Resource,
    Tree,
    Unit,
    User,
)
from provision.host.sandbox import sandbox
from provision.inventory import journal_folder, ports
from provision.inventory.model import Scalar, Secret
from provision.inventory.resolved import (
    AlluxioCluster,
    AlluxioMaster,
    AlluxioWorker,
    Machine,
    bracketed,
)
from provision.inventory.sizes import jvm_size
from provision.render import render

UNIT = "alluxio-worker.service"
UNIT_PATH = f"/etc/systemd/system/{UNIT}"
MASTER_UNIT = "alluxio-master.service"
MASTER_UNIT_PATH = f"/etc/systemd/system/{MASTER_UNIT}"
#: 3 s after a process has ended, systemd starts it again (``RestartSec``), so many times in a row
#: without more delay. Each further start waits ``LONGER_SECONDS`` more, at most
#: ``LONGEST_SECONDS``: from the 24th start in a row on, a minute passes between an end and the next
#: start.
QUICK_STARTS, LONGER_SECONDS, LONGEST_SECONDS = 5, 3, 57
#: A run of at least so many seconds does not count as a failed start.
LASTING_SECONDS = 600
#: At each stop Alluxio dumps metrics (100 KB) and stacks into its log folder, and deletes none of
#: them (class ``ProcessUtils``, property ``alluxio.exit.collect.info``). So many files of each kind
#: stay; the unit deletes the others at each start. A process that ends every minute must not fill
#: the disk either, and tmpfiles.d can age whole folders, but not single files in a folder.
KEPT_DUMPS = 10
#: systemd makes folders below this one for a service (systemd.exec(5), ``LogsDirectory=``).
LOGS = "/var/log/"
_WORKER_OPTS, _MASTER_OPTS = "ALLUXIO_WORKER_JAVA_OPTS", "ALLUXIO_MASTER_JAVA_OPTS"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The tarballs of a worker. ``jdk`` None: the host's own Java is used.

    ``release``: the contents of Alluxio's tarball. None when the tarball is not on this machine:
    the host is asked instead.
    """

    alluxio: Artifact
    jdk: Artifact | None
    release: Contents | None = None


def running() -> Unit:
    """The worker's unit, enabled and running."""
    return Unit(UNIT, effects=(Effect.WORKER,))


def home(alluxio: AlluxioCluster) -> str:
    """ALLUXIO_HOME on the hosts: one folder for each release."""
    return f"{alluxio.install_dir}/{alluxio.version}"


def launcher(alluxio: AlluxioCluster, artifacts: Artifacts, facts: HostFacts | None) -> str:
    """The launch script's path on the hosts, known from the tarball or else from the host.

    When neither is known, preflight reports it
    (:func:`provision.plans.alluxio.worker_preflight.release`).
    """
    name = artifacts.release.launcher if artifacts.release is not None else None
    if name is None and facts is not None:
        name = launcher_on(facts, home(alluxio))
    return f"{home(alluxio)}/{name or LAUNCHERS[0]}"


def current_link(alluxio: AlluxioCluster) -> str:
    """The link that names the running release on a host. The unit itself names the release's own
    folder."""
    return f"{alluxio.install_dir}/current"


def previous_link(alluxio: AlluxioCluster) -> str:
    """The link that names the release before the running one: the release for a rollback."""
    return f"{alluxio.install_dir}/previous"


def target(facts: HostFacts, link: str) -> str | None:
    """The target of a link on a host; None without such a link."""
    found = facts.paths.get(link)
    return found.target if found is not None and found.kind == "link" else None


def newer_release(alluxio: AlluxioCluster, facts: HostFacts) -> str:
    """The release that ``current`` names, when it is newer than the declared one and therefore
    stays; otherwise empty. An inventory with an older release may be an older checkout."""
    now = target(facts, current_link(alluxio)) or ""
    numbers = [tuple(map(int, re.findall(r"[0-9]+", text))) for text in (now, alluxio.version)]
    return now if not alluxio.downgrade and numbers[0] > numbers[1] else ""


def left(
    alluxio: AlluxioCluster, role: AlluxioWorker | AlluxioMaster, facts: HostFacts, command: str
) -> Problem | None:
    """The note that a worker or master is left as it is, because its release is newer; or None."""
    newer = newer_release(alluxio, facts)
    if not newer:
        return None
    what = (
        f"has Alluxio {newer}, newer than {alluxio.version} in the inventory; the newer "
        "release is kept"
    )
    remedy = f"set alluxio.version to {newer}, or go back: invoke {command} --downgrade"
    return Problem(role.place, what, remedy, "warning", id="release-newer")


def identity_file(alluxio: AlluxioCluster) -> str:
    """The worker's identity, outside the install folder so that it survives a reinstall."""
    return f"{alluxio.state_dir}/worker_identity"


def identity(alluxio: AlluxioCluster, facts: HostFacts) -> str | None:
    """The UUID in the host's identity file, or None when there is no such file or UUID."""
    for line in (facts.text(identity_file(alluxio)) or "").splitlines():
        if not line.startswith("#") and _UUID.fullmatch(line.strip().lower()):
            return line.strip().lower()
    return None


def is_disk_missing(alluxio: AlluxioCluster, facts: HostFacts) -> bool:
    """Whether the host was a worker of ``alluxio``, and its identity, its metastore and the marker
    of its state folder's disk are all missing. A new worker would come up in its place.

    The unit is enabled after everything else has been written, so a killed installation does not
    count.
    """
    was = facts.unit(UNIT).file_state == "enabled" and owner(facts, UNIT_PATH) == alluxio.name
    folder = alluxio.state_dir
    return (
        disks.is_missing(facts.text(UNIT_PATH), facts, folder, was=was)
        and not facts.text(identity_file(alluxio))
        and state.metastore(alluxio) not in facts.paths
    )


def disk_problems(alluxio: AlluxioCluster, facts: HostFacts, where: str) -> list[Problem]:
    """The problems that forbid to start a worker: see :func:`is_disk_missing`."""
    if not is_disk_missing(alluxio, facts):
        return []
    return [
        Problem(
            where,
            disks.what_is_missing(alluxio.state_dir, "lost the worker's identity"),
            "mount it; or, on a new disk, make that folder as root and run invoke "
            "start-workers again: the worker gets a new identity",
            id="data-disk-missing",
        )
    ]


def worker_id(identity_uuid: str) -> str:
    """The id under which a worker registers (class ``WorkerIdentity``, version 1)."""
    return f"worker-{identity_uuid}"


def resources(
    alluxio: AlluxioCluster,
    worker: AlluxioWorker,
    artifacts: Artifacts,
    facts: HostFacts | None,
    *,
    remember: bool = True,
) -> tuple[Resource, ...]:
    """All resources that make the host a worker, in the order of their installation.

    Without ``remember``, the running release is not noted as the release for a rollback.
    """
    user, master = alluxio.user, master_on(alluxio, worker.machine)
    units = units_of(worker, master)
    existing = facts is not None and identity(alluxio, facts)
    jdk = artifacts.jdk
    proven = proofs(alluxio, worker, artifacts, facts)
    moves = () if facts is None else state.moves(alluxio, worker, facts, UNIT, proven)
    away = {} if facts is None else stores.lost(worker, facts, UNIT_PATH)
    old = None if facts is None else facts.text(UNIT_PATH)
    unit = service(
        *(alluxio, "worker", worker.name, launcher(alluxio, artifacts, facts)),
        listeners=ports.worker_listeners(alluxio, worker),
        stores_=worker.page_store.dirs,
        mounts=disks.notes(old, facts, [alluxio.state_dir, *worker.page_store.dirs]),
    )
    return (
        User(user, home=alluxio.state_dir),
        # Write the unit first: it names the owning cluster, so destroy finds a killed run's files.
        File(UNIT_PATH, unit, restarts=() if disks.is_for_next_start(old, unit) else (UNIT,)),
        Directory(alluxio.install_dir),
        Directory(alluxio.state_dir, owner=user, mode=0o750),
        DataDisk(alluxio.state_dir),
        Directory(alluxio.log_dir, owner=user, mode=0o750),
        *(
            Directory(path, owner=user, mode=0o750)
            for path in worker.page_store.dirs
            if path not in away
        ),
        *java.trees(alluxio, jdk, units),
        *moves,
        tree(alluxio, artifacts, units, proven[0], moves),
        *_links(alluxio, facts, remember),
        Identity(identity_file(alluxio), user, existing or str(uuid.uuid4()), restarts=(UNIT,)),
        *conf_files(alluxio, worker, master, artifacts, facts),
        replace(running(), proofs=proven),
    )


def tree(
    alluxio: AlluxioCluster,
    artifacts: Artifacts,
    units: tuple[str, ...],
    proof: Proof,
    moves: tuple[Move, ...] = (),
) -> Tree:
    """The unpacked release. ``moves``: what is moved out of it before it is replaced."""
    path, name = home(alluxio), alluxio.name
    return Tree(path, artifacts.alluxio, restarts=units, before=moves, proof=proof, cluster=name)


def proofs(
    alluxio: AlluxioCluster,
    role: AlluxioWorker | AlluxioMaster,
    artifacts: Artifacts,
    facts: HostFacts | None,
) -> tuple[Proof, ...]:
    """What must hold before a worker or a master is started: its user can run the launch script
    and read the release's version (the first proof), and its Java answers."""
    found = artifacts.release.found if artifacts.release is not None else ()
    name = launcher(alluxio, artifacts, facts).removeprefix(f"{home(alluxio)}/")
    readable = (VERSION,) if VERSION in found else ()
    release = Proof(home(alluxio), name, (), alluxio.user, readable=readable)
    its_java = java.home(alluxio, role, artifacts.jdk) or (facts and java.own_home(facts))
    return (release, *([java.proof(its_java, alluxio.user)] if its_java else []))


def service(
    alluxio: AlluxioCluster,
    role: str,
    name: str,
    launcher: str,
    *,
    listeners: Iterable[ports.Listener] = (),
    stores_: Sequence[str] = (),
    mounts: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """The systemd unit of a worker or a master.

    ``stores_`` are its page stores, and ``mounts`` the mount points to note by path.
    """
    # The disks without which it must not start: of its identity, or of its journal.
    folder = alluxio.state_dir if role == "worker" else journal_folder.journal_dir(alluxio)
    remedy = {
        "worker": "mount it and the worker starts within a minute; on a new disk make that folder "
        "and invoke start-workers: it gets a new identity",
        "master": "mount it and the master starts within a minute; on a new disk make that folder "
        "and invoke start-masters: it gets the journal from the others",
    }[role]
    return render(
        "alluxio.service",
        cluster=alluxio.name,
        role=role,
        name=name,
        user=alluxio.user,
        launcher=launcher,
        state_dir=alluxio.state_dir,
        log_dir=alluxio.log_dir,
        logs=alluxio.log_dir.removeprefix(LOGS) if alluxio.log_dir.startswith(LOGS) else "",
        temp=state.temp_dir(alluxio, role),
        writable=(alluxio.state_dir, alluxio.log_dir),
        folder=folder,
        mounts=mounts,
        disk_check=disks.check(folder, "no root-owned folder", remedy),
        stores=stores_,
        store_check=stores.check(stores_, mounts) if stores_ else "",
        quick=QUICK_STARTS,
        step=LONGER_SECONDS,
        longest=LONGEST_SECONDS,
        lasting=LASTING_SECONDS,
        dumps=KEPT_DUMPS,
        sandbox=sandbox(
            (*stores_, alluxio.state_dir, alluxio.log_dir, folder), ports.numbers(listeners)
        ),
    )


def master_on(alluxio: AlluxioCluster, machine: Machine) -> AlluxioMaster | None:
    """The master on a worker's host, if there is one."""
    return next((m for m in alluxio.masters if m.machine == machine), None)


def units_of(worker: AlluxioWorker | None, master: AlluxioMaster | None) -> tuple[str, ...]:
    """The units of a host with a worker, a master, or both: they share its release and its
    configuration."""
    return (*([UNIT] if worker else []), *([MASTER_UNIT] if master else []))


class _Hosts:
    """Workers or masters, as one key: each of 10,000 hosts looks at all of them otherwise."""

    def __init__(self, hosts: Sequence[AlluxioWorker | AlluxioMaster]) -> None:
        self.hosts = hosts

    def __hash__(self) -> int:
        return id(self.hosts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hosts) and self.hosts is other.hosts


@functools.lru_cache(maxsize=8)
def _hosts_file(cluster: str, of: _Hosts) -> bytes:
    return render("workers", cluster=cluster, hostnames=[host.hostname for host in of.hosts])


def hosts_file(cluster: str, hosts: Sequence[AlluxioWorker | AlluxioMaster]) -> bytes:
    """``conf/workers`` or ``conf/masters``: each host has the same one."""
    return _hosts_file(cluster, _Hosts(hosts))


def conf_files(
    alluxio: AlluxioCluster,
    worker: AlluxioWorker | None,
    master: AlluxioMaster | None,
    artifacts: Artifacts,
    facts: HostFacts | None,
) -> tuple[File, ...]:
    """The files in ``conf`` of a host. Its worker and its master have the same files."""
    conf, units = f"{home(alluxio)}/conf", units_of(worker, master)
    secrets = _secrets(alluxio, worker)
    properties = _properties(alluxio, worker, master, _endpoints(alluxio, facts))

    def site(secret: Mapping[str, str]) -> bytes:
        return render(
            "alluxio-site.properties",
            cluster=alluxio.name,
            properties={**properties, **secret},
        )

    env = _env(alluxio, worker, master, artifacts, facts)
    masters = [
        File(
            f"{conf}/masters",
            hosts_file(alluxio.name, alluxio.masters),
        )
    ]
    return (
        File(
            f"{conf}/alluxio-site.properties",
            site(secrets),
            mode=0o640 if secrets else 0o644,
            group=alluxio.user if secrets else "",
            secret=bool(secrets),
            restarts=units,
            masked=site(dict.fromkeys(secrets, MASK)) if secrets else None,
        ),
        File(
            f"{conf}/alluxio-env.sh",
            render("alluxio-env.sh", cluster=alluxio.name, env=env),
            restarts=units,
        ),
        File(
            f"{conf}/workers",
            hosts_file(alluxio.name, alluxio.workers),
            restarts=units if alluxio.membership.in_file else (),
        ),
        *(masters if alluxio.masters else []),
    )


def probe(alluxio: AlluxioCluster, worker: AlluxioWorker, artifacts: Artifacts) -> Probe:
    """The probe of a worker's host, for preflight and for the plan."""
    java_home = java.home(alluxio, worker, artifacts.jdk)
    return Probe(
        resources=(*resources(alluxio, worker, artifacts, None), *java.files(java_home)),
        ports=ports.numbers(ports.worker_listeners(alluxio, worker)),
        reach=etcd_addresses(alluxio),
        paths=(
            *(previous_link(alluxio), state.metastore(alluxio)),
            *launchers(home(alluxio)),
        ),
        disks=(
            *(alluxio.install_dir, *worker.page_store.dirs, alluxio.log_dir, alluxio.state_dir),
            *(() if artifacts.jdk is None else (alluxio.java.install_dir,)),
        ),
        commands={
            **java.probe_commands(java_home, alluxio.user),
            **state.probe_commands(alluxio),
        },
        units=(MASTER_UNIT,) if master_on(alluxio, worker.machine) else (),
        kinds=PREFLIGHT,
    )


def probes(
    alluxio: AlluxioCluster, workers: Iterable[AlluxioWorker], artifacts: Artifacts
) -> dict[Machine, Probe]:
    """The probes of the workers' hosts. Hosts of which the same is asked have the same probe: its
    files are those of one of them, and say only what to look at."""
    alike: dict[tuple[object, ...], Probe] = {}
    found = {}
    for w in workers:
        # What workers have in common is one object in an inventory.
        shared = (w.page_store, w.properties, w.secret_properties, w.env)
        own = (w.java_home, w.rpc_port, master_on(alluxio, w.machine) is None)
        key = (*map(id, shared), *own)
        if key not in alike:
            alike[key] = probe(alluxio, w, artifacts)
        found[w.machine] = alike[key]
    return found


def etcd_addresses(alluxio: AlluxioCluster) -> tuple[tuple[str, int], ...]:
    """The hosts and ports at which workers ask etcd; none when it does not have the workers."""
    if not alluxio.membership.in_etcd:
        return ()
    parts = (urlsplit(url) for url in alluxio.etcd_endpoints)
    return tuple((part.hostname or "", part.port or 2379) for part in parts)


def _links(alluxio: AlluxioCluster, facts: HostFacts | None, remember: bool) -> tuple[Link, ...]:
    """The links change with the restart, so that they name the running release during a change."""
    now = facts and target(facts, current_link(alluxio))
    if facts is None or now in (None, alluxio.version):
        return (Link(current_link(alluxio), alluxio.version),)
    # A release that does not start is no release for a rollback.
    worked = facts.unit(UNIT).active not in ("failed", "activating")
    previous = [Link(previous_link(alluxio), now, (UNIT,))] if now and remember and worked else []
    return (*previous, Link(current_link(alluxio), alluxio.version, (UNIT,)))


def _endpoints(alluxio: AlluxioCluster, facts: HostFacts | None) -> tuple[str, ...]:
    """etcd's endpoints. If the host has the same endpoints in another order, its order is kept:
    another order is no reason for a restart."""
    text = facts.text(f"{home(alluxio)}/conf/alluxio-site.properties") if facts is not None else ""
    found = re.search(rf"^{re.escape(ENDPOINTS)}=(.*)$", text or "", re.MULTILINE)
    now = tuple(found[1].split(",")) if found is not None else ()
    same = sorted(now) == sorted(alluxio.etcd_endpoints)
    return now if same else alluxio.etcd_endpoints


def _properties(
    alluxio: AlluxioCluster,
    worker: AlluxioWorker | None,
    master: AlluxioMaster | None,
    endpoints: tuple[str, ...],
) -> Mapping[str, Scalar]:
    own: dict[str, Scalar] = {}
    if worker is not None:
        own |= {
            "alluxio.worker.hostname": worker.hostname,
            "alluxio.worker.rpc.port": worker.rpc_port,
            "alluxio.worker.identity.uuid.file.path": identity_file(alluxio),
            "alluxio.worker.page.store.type": "LOCAL",
            "alluxio.worker.page.store.dirs": ",".join(worker.page_store.dirs),
            "alluxio.worker.page.store.sizes": ",".join(worker.page_store.sizes),
            state.METASTORE: state.metastore(alluxio),
        }
    if master is not None:
        own |= {
            "alluxio.master.hostname": master.hostname,
            # Their default is in the release's folder, which an upgrade leaves behind.
            "alluxio.master.journal.folder": journal_folder.journal_dir(alluxio),
            "alluxio.master.metastore.dir": f"{alluxio.state_dir}/metastore",
        }
    return {
        "alluxio.cluster.name": alluxio.name,
        # Its default is in the work folder, and the command line has another work folder.
        state.UFS_ROOT: f"{home(alluxio)}/underFSStorage",
        **master_addresses(alluxio),
        **own,
        **membership_properties.of(alluxio, home(alluxio), endpoints).worker,
        **(worker.properties if worker is not None else alluxio.properties),
    }


def master_addresses(alluxio: AlluxioCluster) -> Mapping[str, Scalar]:
    """The properties with the masters' addresses, for all clients (class ``PropertyKey``).

    A single master is named. Several masters get two lists: for clients and for their journal.
    Without masters there is a placeholder: the shells behind ``bin/alluxio info nodes`` and
    ``bin/alluxio fs`` refuse without a master address, although they ask no master (classes
    ``FileSystemAdminShell`` and ``FileSystemShell``, ``ConfigurationUtils.masterHostConfigured``).
    """
    if not alluxio.masters:
        return {"alluxio.master.hostname": "localhost"}
    if len(alluxio.masters) == 1:
        (one,) = alluxio.masters
        return {"alluxio.master.hostname": one.hostname}
    rpc = (f"{bracketed(m.hostname)}:{m.rpc_port}" for m in alluxio.masters)
    journal = (f"{bracketed(m.hostname)}:{m.journal_port}" for m in alluxio.masters)
    return {
        "alluxio.master.rpc.addresses": ",".join(rpc),
        "alluxio.master.embedded.journal.addresses": ",".join(journal),
    }


def _secrets(alluxio: AlluxioCluster, worker: AlluxioWorker | None) -> Mapping[str, str]:
    secrets = dict((worker or alluxio).secret_properties)
    login = alluxio.etcd_login
    if login.password is not None:
        secrets["alluxio.etcd.password"] = login.password
    found = {key: revealed(key, secret) for key, secret in secrets.items()}
    if login.username is not None:
        found["alluxio.etcd.username"] = login.username
    return found


def login(alluxio: AlluxioCluster) -> Login | None:
    """The login of Alluxio's workers; None when etcd asks for no login."""
    username, password = alluxio.etcd_login.username, alluxio.etcd_login.password
    if username is None or password is None:
        return None
    return Login(username, revealed("alluxio.etcd.password", password))


def revealed(key: str, secret: Secret) -> str:
    """The secret of property ``key``. Raises :class:`UsageError` when it cannot be read."""
    try:
        return secret.reveal()
    except (LookupError, OSError, ValueError) as error:
        reason = error.args[0] if isinstance(error, LookupError) else error
        raise UsageError(
            f"the secret for {key} cannot be read: {reason}", id="secret-unreadable"
        ) from error


def _env(
    alluxio: AlluxioCluster,
    worker: AlluxioWorker | None,
    master: AlluxioMaster | None,
    artifacts: Artifacts,
    facts: HostFacts | None,
) -> Mapping[str, str]:
    role = worker or master
    assert role is not None  # a host of this tool has a worker or a master
    java_home = java.home(alluxio, role, artifacts.jdk) or (facts and java.own_home(facts))
    given = worker.env if worker is not None else alluxio.env
    options = {}
    if worker is not None:
        heap = jvm_size(worker.heap)
        sizes = f"-Xms{heap} -Xmx{heap} -XX:MaxDirectMemorySize={jvm_size(worker.direct_memory)}"
        options[_WORKER_OPTS] = (
            state.java_options(alluxio, "worker", ports.of_worker(worker)),
            sizes,
        )
    if master is not None:
        in_force = ports.of_master(alluxio, master)
        heap = jvm_size(alluxio.master_heap)
        sizes = f"-Xms{heap} -Xmx{heap}"
        options[_MASTER_OPTS] = (state.java_options(alluxio, "master", in_force), sizes)
    return {
        **({"JAVA_HOME": java_home} if java_home else {}),
        "ALLUXIO_LOGS_DIR": alluxio.log_dir,
        **given,
        # These options in the inventory replace the sizes: of two options, the JVM takes the last.
        **{key: f"{ours} {given.get(key, sizes)}" for key, (ours, sizes) in options.items()},
    }
