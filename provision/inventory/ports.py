"""Every port on which an Alluxio process listens, from the properties in force on its host.

One list has three uses: preflight (is the port free), the wait until a process is ready, and the
table of connections in the documentation.

Checked against Alluxio 313: names and defaults come from class ``PropertyKey``. A worker
binds in ``GrpcServerModule`` (rpc), ``NettyServerModule`` and ``NettyDataServer`` (data, s3),
``AlluxioWorkerProcess`` (web) and ``HttpServer`` (http). A master binds in ``RpcServerService``
(rpc), ``WebServerService`` (web) and ``RaftJournalSystem`` (journal, with one master too); a
standby keeps rpc and web bound by a ``RejectingServer``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from provision.dataclass import dataclass
from provision.inventory.model import Scalar
from provision.inventory.resolved import AlluxioCluster, AlluxioMaster, AlluxioWorker
from provision.text import number

MAX_PORT = 65535
JOURNAL_TYPE = "alluxio.master.journal.type"
_JAVA_OPTION = re.compile(r"""(?:^|[\s"'])-D(alluxio\.[A-Za-z0-9._-]+)=("[^"]*"|'[^']*'|\S*)""")


@dataclass(frozen=True, slots=True)
class Kind:
    """A listener that a role can have, with Alluxio's defaults.

    ``turned_on_by`` names the property that turns the listener on; empty: it is always on.
    ``essential``: the process exits when it cannot bind the port. ``http_path``: a GET of this path
    is answered with 200 while the process serves; empty: the port does not speak HTTP.
    ``from_whom``: who connects to the port, for the documentation.
    """

    name: str
    property: str
    default: int
    from_whom: str
    turned_on_by: str = ""
    on_by_default: bool = True
    essential: bool = True
    http_path: str = ""


@dataclass(frozen=True, slots=True)
class Listener:
    """A port on which a process listens.

    Port 0 is not known before the start: the process takes any free port, or a property refers to
    another property (``${…}``).

    The other fields are the same as in :class:`Kind`.
    """

    name: str
    port: int
    property: str
    turned_on_by: str = ""
    essential: bool = True
    http_path: str = ""


WORKER = (
    Kind("rpc", "alluxio.worker.rpc.port", 29999, "clients; check-nodes without live keys"),
    Kind(
        "data",
        "alluxio.worker.data.port",
        29997,
        "clients",
        turned_on_by="alluxio.user.netty.data.transmission.enabled",
    ),
    Kind(
        "web",
        "alluxio.worker.web.port",
        30000,
        "browsers, Prometheus",
        http_path="/metrics/",
    ),
    # HttpServer binds in a thread of its own: a failure is logged, and the worker goes on.
    Kind(
        "http",
        "alluxio.worker.http.server.port",
        28080,
        "clients of the REST API",
        turned_on_by="alluxio.worker.http.server.enabled",
        essential=False,
        http_path="/v1/health",
    ),
    Kind(
        "s3",
        "alluxio.worker.rest.port",
        29998,
        "clients of the S3 API",
        turned_on_by="alluxio.worker.s3.api.enabled",
        on_by_default=False,
    ),
)
MASTER = (
    Kind("rpc", "alluxio.master.rpc.port", 19998, "clients, the other masters"),
    Kind(
        "web",
        "alluxio.master.web.port",
        19999,
        "browsers, Prometheus, start-masters",
        # Class AlluxioMasterRestServiceHandler. Only the primary answers: a standby closes
        # connections.
        http_path="/api/v1/master/info",
    ),
    Kind("journal", "alluxio.master.embedded.journal.port", 19200, "the other masters"),
)


def worker_listeners(alluxio: AlluxioCluster, worker: AlluxioWorker) -> tuple[Listener, ...]:
    """The ports of ``worker``, in the order rpc, data, web, http, s3.

    Options ``-Dalluxio…`` in its environment win over properties, as in Alluxio (class ``Source``).
    When a port is not a number from 0 to 65535, the default counts.
    """
    del alluxio  # a worker's properties already contain the cluster's properties
    given = of_worker(worker)
    found = _listeners(WORKER, {"alluxio.worker.rpc.port": worker.rpc_port, **given})
    # NettyDataServer serves data and S3: without data there is no S3.
    data = any(listener.name == "data" for listener in found)
    return tuple(listener for listener in found if data or listener.name != "s3")


def master_listeners(alluxio: AlluxioCluster, master: AlluxioMaster) -> tuple[Listener, ...]:
    """The ports of ``master``, in the order rpc, web, journal.

    The properties come from :func:`of_master`; the rest is as in :func:`worker_listeners`.
    """
    given = of_master(alluxio, master)
    declared: dict[str, Scalar] = {
        "alluxio.master.rpc.port": master.rpc_port,
        "alluxio.master.embedded.journal.port": master.journal_port,
    }
    # With the other journal types (class JournalType) there is no Raft server.
    embedded = str(given.get(JOURNAL_TYPE, "EMBEDDED")).upper() == "EMBEDDED"
    found = _listeners(MASTER, {**declared, **given})
    return tuple(listener for listener in found if embedded or listener.name != "journal")


def of_worker(worker: AlluxioWorker) -> Mapping[str, Scalar]:
    """The inventory's properties of a worker, with the final values in its JVM."""
    return _in_force(worker.properties, worker.env, "ALLUXIO_WORKER_JAVA_OPTS")


def of_master(alluxio: AlluxioCluster, master: AlluxioMaster) -> Mapping[str, Scalar]:
    """As :func:`of_worker`. A master on a worker's host has the worker's properties and
    environment."""
    beside = next((w for w in alluxio.workers if w.machine == master.machine), None)
    properties = alluxio.properties if beside is None else beside.properties
    env = alluxio.env if beside is None else beside.env
    return _in_force(properties, env, "ALLUXIO_MASTER_JAVA_OPTS")


def numbers(listeners: Iterable[Listener]) -> tuple[int, ...]:
    """The ports of ``listeners``, each once, without ports that are not known before the start."""
    return tuple(dict.fromkeys(listener.port for listener in listeners if listener.port))


def _listeners(kinds: Sequence[Kind], given: Mapping[str, Scalar]) -> list[Listener]:
    return [
        Listener(
            kind.name,
            _port(given, kind),
            kind.property,
            kind.turned_on_by,
            kind.essential,
            kind.http_path,
        )
        for kind in kinds
        if _is_on(given, kind)
    ]


def _is_on(given: Mapping[str, Scalar], kind: Kind) -> bool:
    default = str(kind.on_by_default)
    return str(given.get(kind.turned_on_by, default)).strip().lower() == "true"


def _port(given: Mapping[str, Scalar], kind: Kind) -> int:
    text = str(given.get(kind.property, kind.default)).strip()
    if "${" in text:
        return 0
    port = number(text)
    return port if port is not None and port <= MAX_PORT else kind.default


def _in_force(
    properties: Mapping[str, Scalar], env: Mapping[str, str], own: str
) -> Mapping[str, Scalar]:
    """The properties with the changes of the JVM's options; ``own``: the role's variable.

    ``libexec/alluxio-config.sh`` puts ``ALLUXIO_JAVA_OPTS`` before the role's own options, and of
    two options the JVM takes the last.
    """
    options: dict[str, Scalar] = {}
    for variable in ("ALLUXIO_JAVA_OPTS", own):
        for key, value in _JAVA_OPTION.findall(env.get(variable, "")):
            options[key] = value.strip("\"'")
    return {**properties, **options}
