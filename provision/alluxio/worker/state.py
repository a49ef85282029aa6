"""The data of a worker and a master that must outlive a release: below ``state_dir``.

Alluxio's default for all this data is its work folder, which is the release's own folder
(``PropertyKey.WORK_DIR``). An upgrade would leave the data behind, and the service's user may not
write there. The two services get the work folder as a Java option, not in
``alluxio-site.properties``, because the command line takes the work folder for the release's folder
(classes ``CollectInfo`` and ``CollectAlluxioInfoCommand`` of ``info collect``).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from provision.alluxio.worker import written
from provision.errors import Problem
from provision.host.facts import Command, HostFacts
from provision.host.proof import Proof
from provision.host.resources import Move
from provision.inventory import ports, sizes
from provision.inventory.model import Scalar
from provision.inventory.resolved import AlluxioCluster, AlluxioWorker

WORK = "alluxio.work.dir"
METASTORE = "alluxio.dora.worker.metastore.rocksdb.dir"
UFS_ROOT = "alluxio.dora.client.ufs.root"
DIRS, SIZES = written.DIRS, written.SIZES
#: Free bytes that a new metastore should find. It takes some hundred bytes for each known file.
METASTORE_ROOM = 256 << 20


def metastore(alluxio: AlluxioCluster) -> str:
    """The worker's metastore. A master's is ``metastore``, and may be on the same host."""
    return f"{alluxio.state_dir}/worker_metastore"


def temp_dir(alluxio: AlluxioCluster, role: str) -> str:
    """Java's folder for temporary files. RocksDB and Netty unpack their native libraries there
    and execute them; /tmp often forbids this (``noexec``)."""
    return f"{alluxio.state_dir}/tmp/{role}"


def paths(alluxio: AlluxioCluster, role: str) -> tuple[str, ...]:
    """The paths that a worker or a master makes in ``state_dir``, besides its identity, pages and
    journal."""
    if role == "worker":
        return (temp_dir(alluxio, role), metastore(alluxio), f"{metastore(alluxio)}.incoming")
    # The list of files that a load could not read is below the work folder.
    own = (f"{alluxio.state_dir}/metastore", f"{alluxio.state_dir}/job_results")
    return (temp_dir(alluxio, role), *own)


def java_options(alluxio: AlluxioCluster, role: str, properties: Mapping[str, Scalar]) -> str:
    """The options of every JVM that this tool sets up. ``properties`` are its final properties.

    After an OutOfMemoryError a JVM goes on without some of its threads, and a worker may still keep
    its lease alive. With the first option the JVM exits (exit code 3), and systemd starts it again.
    """
    work = [] if WORK in properties else [f"-D{WORK}={alluxio.state_dir}"]
    temp = f"-Djava.io.tmpdir={temp_dir(alluxio, role)}"
    return " ".join(["-XX:+ExitOnOutOfMemoryError", temp, *work])


def probe_commands(alluxio: AlluxioCluster) -> Mapping[str, str]:
    """The shell commands that print the place of a worker's metastore before ``state_dir``, and
    what was last written for the worker."""
    current = shlex.quote(f"{alluxio.install_dir}/current")
    return {
        # RocksDBDoraMetaStore makes DoraMeta in it.
        "old-metastore": Command(
            f"d=$(readlink -f {current}) && [ -d $d/metastore/DoraMeta ] && echo $d/metastore || :",
            roots=True,
            unless=f"[ ! -d {current}/metastore/DoraMeta ]",
        ),
        **written.probe_commands(alluxio),
    }


def moves(
    alluxio: AlluxioCluster,
    worker: AlluxioWorker,
    facts: HostFacts,
    unit: str,
    proofs: tuple[Proof, ...] = (),
) -> tuple[Move, ...]:
    """The moves of data that an earlier deployment's worker (service ``unit``) has in its release's
    folder. ``proofs``: programs that must answer before ``unit`` is stopped for that.

    Earlier versions of this tool left the metastore in Alluxio's default place.
    """
    source = facts.commands.get("old-metastore", "").strip()
    target = metastore(alluxio)
    ours = re.fullmatch(rf"{re.escape(alluxio.install_dir)}/[A-Za-z0-9._+-]+/metastore", source)
    if not ours or METASTORE in ports.of_worker(worker) or target in facts.paths:
        return ()
    return (Move(source, target, alluxio.user, unit, proofs),)


def notes(alluxio: AlluxioCluster, worker: AlluxioWorker, facts: HostFacts) -> list[Problem]:
    """Notes about page stores of ``worker`` that become smaller than last written.

    At its start a worker reads the names of its pages, and deletes the pages beyond the size
    (``LocalCacheManager.restore`` and ``addPageToDir``). If this fails, it deletes the whole store.
    """
    before = given_stores(facts)
    store = worker.page_store
    found = []
    for path, size in zip(store.dirs, store.sizes, strict=True):
        old = before.get(path)
        if old is None or sizes.size_bytes(size) >= sizes.size_bytes(old):
            continue
        found.append(
            Problem(
                worker.place,
                f"page store {path} shrinks from {old} to {size}: at its next start the worker "
                "deletes the pages beyond that size",
                "you need to do nothing: the worker reads them again from the under store when "
                "a client wants them",
                "warning",
                id="page-store-shrinks",
            )
        )
    return found


def given_stores(facts: HostFacts) -> dict[str, str]:
    """The sizes of the page stores last written for the worker, by folder. Empty when they do not
    fit together."""
    values = written.values(facts)
    paths, given = values.get(DIRS, "").split(","), values.get(SIZES, "").split(",")
    good = len(paths) == len(given) and all(re.fullmatch(_SIZE, size) for size in given)
    return dict(zip(paths, given, strict=True)) if good else {}


_SIZE = r"[1-9][0-9]{0,17}([kKmMgGtT][bB]?|[bB])?"
