"""The address that a worker registers, as far as its properties define it.

Alluxio 313 makes the address in ``AlluxioWorkerProcess.getAddress``. Under an id that is registered
already, ``EtcdMembershipManager.join`` accepts only an equal address.
``WorkerServiceEntity.equalsIgnoringHttpServerPort`` compares all fields except the HTTP and the
Netty port.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from provision.inventory import ports
from provision.inventory.resolved import AlluxioWorker

#: Fields of :class:`Address`, with their names for an operator.
TITLES = {
    "host": "host",
    "container_host": "container host",
    "rpc_port": "rpc port",
    "data_port": "data port",
    "web_port": "web port",
    "secure_rpc_port": "secure rpc port",
    "domain_socket": "domain socket",
}
#: Stands for a path that is new at each start: it equals no other path.
NEW_PATH = "(a new path at each start)"


class Address(NamedTuple):
    """The fields that Alluxio compares. None: the value is not known before the start."""

    host: str | None
    container_host: str | None
    rpc_port: int | None
    data_port: int | None
    web_port: int | None
    secure_rpc_port: int | None
    domain_socket: str | None


def declared(worker: AlluxioWorker) -> Address:
    """The address that ``worker`` registers with the properties of the inventory."""
    said = {
        "alluxio.worker.hostname": worker.hostname,
        "alluxio.worker.rpc.port": str(worker.rpc_port),
        **dict.fromkeys(worker.secret_properties, "${}"),
        **{key: _text(value) for key, value in ports.of_worker(worker).items()},
    }
    rpc_port = _port(said, "alluxio.worker.rpc.port", 29999)
    netty = said.get("alluxio.user.netty.data.transmission.enabled", "true") == "true"
    return Address(
        host=_known(said, "alluxio.worker.hostname"),
        container_host=_known(said, "alluxio.worker.container.hostname"),
        rpc_port=rpc_port,
        # Without Netty, data goes through the RPC server.
        data_port=_port(said, "alluxio.worker.data.port", 29997) if netty else rpc_port,
        web_port=_port(said, "alluxio.worker.web.port", 30000),
        secure_rpc_port=0,  # 313 never sets it
        domain_socket=_socket(said),
    )


def overwritten(worker: AlluxioWorker) -> bool:
    """Whether the worker overwrites a registration of its id with any address, as Alluxio does in
    Kubernetes (``alluxio.k8s.env.deployment``)."""
    return _text(worker.properties.get("alluxio.k8s.env.deployment", "")) == "true"


def _socket(said: Mapping[str, str]) -> str | None:
    """The path of the domain socket (``AlluxioWorkerProcess.isDomainSocketEnabled``)."""
    path = _known(said, "alluxio.worker.data.server.domain.socket.address")
    if path == "" or said.get("alluxio.worker.network.netty.channel", "NIO") != "EPOLL":
        return ""
    if said.get("alluxio.worker.data.server.domain.socket.as.uuid") == "true":
        return NEW_PATH
    return path


def _known(said: Mapping[str, str], key: str) -> str | None:
    """A property's value. A value that refers to other properties (``${…}``) is not known."""
    value = said.get(key, "")
    return None if "${" in value else value


def _port(said: Mapping[str, str], key: str, default: int) -> int | None:
    value = said.get(key, str(default))
    # For port 0 the kernel picks another port at each start.
    return int(value) if value.isascii() and value.isdigit() and int(value) else None


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
