"""Rules of hosts, addresses and ports, among members, workers and both on one machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from provision.inventory import document, model
from provision.inventory.checks.context import Context
from provision.inventory.resolved import (
    SSH_PORT,
    AlluxioMaster,
    AlluxioWorker,
    EtcdMember,
    Machine,
    local_path,
)


def _ssh_files(context: Context) -> None:
    places: list[tuple[document.Path, model.Ssh]] = [(("ssh",), context.file.ssh)]
    places += [
        (("etcd", "members", name, "ssh"), member.ssh)
        for name, member in context.file.etcd.members.items()
    ]
    if context.file.alluxio is not None:
        places += [
            (("alluxio", "workers", name, "ssh"), worker.ssh)
            for name, worker in context.file.alluxio.workers.items()
            if worker.ssh.model_fields_set
        ]
        places += [
            (("alluxio", "masters", name, "ssh"), master.ssh)
            for name, master in context.file.alluxio.masters.items()
        ]
    exists: dict[Path, bool] = {}
    for place, ssh in places:
        for field, given in (("key", ssh.key), ("known_hosts", ssh.known_hosts)):
            if given is None:
                continue
            file = local_path(given, context.inventory.path)
            # os.path.isfile returns False in cases where Path.is_file may raise.
            if not exists.setdefault(file, os.path.isfile(file)):
                remedy = "relative paths start at the inventory's folder"
                if field == "known_hosts" and not os.path.lexists(file):
                    context.warning(
                        f"{field}: there is no file {str(file)!r} yet",
                        f"invoke trust-hosts makes it; {remedy}",
                        (*place, field),
                        id="host-key-unknown",
                    )
                    continue
                context.error(
                    f"{field}: there is no file {str(file)!r}",
                    remedy,
                    (*place, field),
                    id="ssh-key-unusable",
                )


def ssh_server(machine: Machine) -> tuple[str, int]:
    """What makes a machine: several may be behind one address, each at a port of its own."""
    return machine.host.lower(), machine.port or SSH_PORT


def _member_addresses(context: Context) -> None:
    by_host: dict[tuple[str, int], EtcdMember] = {}
    by_address: dict[tuple[str, int], tuple[EtcdMember, str]] = {}
    for member in context.members:
        path = context.member_path(member.name, "host")
        first = by_host.setdefault(ssh_server(member.machine), member)
        if first is not member:
            at = context.member_path(first.name, "host")
            context.error(
                f"members {first.name!r} and {member.name!r} are on the same host"
                f" {member.machine.host!r} (see {context.where(at)})",
                "the loss of that host would stop both; give each its own host",
                path,
                id="inventory-conflict",
            )
            continue
        for field, port in _member_ports(context, member):
            # The plain listener's port is the same on every member by design.
            other, its_field = by_address.setdefault((member.address, port), (member, field))
            if other is not member:
                mine = context.member_path(member.name, "address", "host")
                theirs = context.member_path(other.name, "address", "host")
                context.error(
                    f"members {other.name!r} ({its_field}) and {member.name!r} ({field}) both"
                    f" have {member.address} port {port} (see {context.where(theirs)})",
                    "give each its own address",
                    mine,
                    theirs,
                    id="inventory-conflict",
                )
                break


def _sans(context: Context) -> None:
    tls = context.file.etcd.tls
    for member in context.members:
        path = ("etcd", "members", member.name, "sans")
        for name in member.sans:
            if _is_loopback(name) or _is_link_local(name):
                context.error(
                    f"'sans' of {member.name!r}: {name!r} is an address of every host",
                    "give names and addresses that no other host has",
                    path,
                    id="inventory-value-invalid",
                )
        if member.sans and not (tls.peer or tls.client):
            what = f"'sans' of {member.name!r} has no effect: etcd has no TLS"
            context.warning(
                what, "remove it, or set etcd.tls.peer: true", path, id="inventory-no-effect"
            )


def _member_ports(context: Context, member: EtcdMember) -> Iterator[tuple[str, int]]:
    yield "client_port", member.client_port
    yield "peer_port", member.peer_port
    tls = context.inventory.etcd.tls
    if tls.client and tls.plain_client_port is not None:
        yield "tls.plain_client_port", tls.plain_client_port


def _port_path(context: Context, member: EtcdMember, field: str) -> document.Path:
    if field == "tls.plain_client_port":
        return ("etcd", "tls", "plain_client_port")
    return context.member_path(member.name, field)


def _written_first(one: document.Path, other: document.Path) -> tuple[document.Path, ...]:
    """Both paths; a port written in the file comes before a host with a default port, so that the
    report points to the written port."""
    at_a_host = len(one) == 3 and one[1] in ("members", "masters", "workers")
    return (other, one) if at_a_host else (one, other)


def _ports_within_member(context: Context) -> None:
    for member in context.members:
        used: dict[int, str] = {}
        for field, port in _member_ports(context, member):
            first = used.setdefault(port, field)
            if first != field:
                context.error(
                    f"{first} and {field} are both {port}",
                    "etcd's listeners need a port each",
                    *_written_first(
                        _port_path(context, member, field), _port_path(context, member, first)
                    ),
                    id="inventory-conflict",
                )


def _worker_hosts(context: Context) -> None:
    by_host: dict[tuple[str, int], AlluxioWorker] = {}
    by_name: dict[tuple[str, int], AlluxioWorker] = {}
    for worker in context.workers:
        first = by_host.setdefault(ssh_server(worker.machine), worker)
        if first is not worker:
            at = context.worker_path(first.name, "host")
            context.error(
                f"workers {first.name!r} and {worker.name!r} are on the same host"
                f" {worker.machine.host!r} (see {context.where(at)})",
                "they would share identity, ports and cache; run one worker on each host",
                context.worker_path(worker.name, "host"),
                id="inventory-conflict",
            )
            continue
        first = by_name.setdefault((worker.hostname, worker.rpc_port), worker)
        if first is not worker:
            at = context.worker_path(first.name, "hostname", "host")
            context.error(
                f"clients would reach both workers {first.name!r} and {worker.name!r} at "
                f"{worker.hostname}:{worker.rpc_port} (see {context.where(at)})",
                "give each its own hostname",
                context.worker_path(worker.name, "hostname", "host"),
                at,
                id="inventory-conflict",
            )


def _role_path(context: Context, role: AlluxioWorker | AlluxioMaster, field: str) -> document.Path:
    """The path of a role's port. For a master on a worker's host, it may be a property of that
    worker."""
    if isinstance(role, AlluxioWorker):
        if field == "rpc_port":
            return context.worker_path(role.name, "rpc_port")
        return context.property_path(role.name, field)
    beside = next((w.name for w in context.workers if w.machine == role.machine), None)
    if beside is not None and context.has("alluxio", "workers", beside, "properties", field):
        return ("alluxio", "workers", beside, "properties", field)
    if context.has("alluxio", "properties", field):
        return ("alluxio", "properties", field)
    return ("alluxio", "masters", role.name)


def _ports_of(context: Context, role: AlluxioWorker | AlluxioMaster) -> tuple[tuple[str, int], ...]:
    """The ports that a worker or a master listens on, each with its key or property."""
    # At the top this import would be a cycle: provision.alluxio imports resolved inventories.
    from provision.inventory import ports

    alluxio = context.inventory.alluxio
    assert alluxio is not None  # without it there is no such role
    found = (
        ports.worker_listeners(alluxio, role)
        if isinstance(role, AlluxioWorker)
        else ports.master_listeners(alluxio, role)
    )
    rpc = "alluxio.worker.rpc.port"
    return tuple(("rpc_port" if x.property == rpc else x.property, x.port) for x in found if x.port)


def _ports_on_machine(context: Context) -> None:
    members = {ssh_server(m.machine): m for m in context.members}
    by_address = {m.address: m for m in context.members}
    masters = {ssh_server(m.machine): m for m in context.masters}
    # Thousands of workers share their properties, and so their ports.
    shared: dict[tuple[int, int, int], tuple[tuple[tuple[str, int], ...], bool]] = {}

    def of_worker(worker: AlluxioWorker) -> tuple[tuple[tuple[str, int], ...], bool]:
        """The worker's ports, and whether they are all different."""
        key = id(worker.properties), id(worker.env), worker.rpc_port
        if key not in shared:
            ports = _ports_of(context, worker)
            shared[key] = ports, len({port for _, port in ports}) == len(ports)
        return shared[key]

    for worker in context.workers:
        ports, different = of_worker(worker)
        master = masters.get(ssh_server(worker.machine)) if masters else None
        if different and master is None:
            continue
        used = _within(context, worker, "worker", ports)
        if master is not None:
            _between(context, worker, used, master, _ports_of(context, master))
    roles: list[tuple[str, AlluxioWorker | AlluxioMaster]] = [
        ("worker", w) for w in context.workers
    ]
    roles += [("master", m) for m in context.masters]
    for kind, role in roles:
        member = (
            members.get(ssh_server(role.machine))
            or by_address.get(role.machine.host)
            or by_address.get(role.hostname)
        )
        if isinstance(role, AlluxioMaster):
            used = _within(context, role, kind, _ports_of(context, role))
        elif member is not None:
            used = {port: field for field, port in of_worker(role)[0]}
        if member is None:
            continue
        for field, port in _member_ports(context, member):
            if port in used:
                path = _role_path(context, role, used[port])
                at = _port_path(context, member, field)
                context.error(
                    f"{kind} {role.name!r} ({used[port]}) and member {member.name!r} ({field}) "
                    f"both use port {port} of {role.machine.host!r}",
                    "give one of them another port",
                    *_written_first(path, at),
                    id="inventory-conflict",
                )


def _within(
    context: Context,
    role: AlluxioWorker | AlluxioMaster,
    kind: str,
    ports: tuple[tuple[str, int], ...],
) -> dict[int, str]:
    """The fields by port. Reports a port that the role would use twice."""
    used: dict[int, str] = {}
    for field, port in ports:
        first = used.setdefault(port, field)
        if first != field:
            path, at = _role_path(context, role, field), _role_path(context, role, first)
            context.error(
                f"the {kind}'s {first} and {field} are both {port}",
                "give each its own port",
                *_written_first(path, at),
                id="inventory-conflict",
            )
    return used


def _between(
    context: Context,
    worker: AlluxioWorker,
    used: dict[int, str],
    master: AlluxioMaster,
    ports: tuple[tuple[str, int], ...],
) -> None:
    """Reports a port that a worker and the master on its host would both use."""
    for field, port in ports:
        if port in used:
            path, at = _role_path(context, worker, used[port]), _role_path(context, master, field)
            context.error(
                f"worker {worker.name!r} ({used[port]}) and master {master.name!r} ({field}) "
                f"both use port {port} of {worker.machine.host!r}",
                "give one of them another port",
                *_written_first(path, at),
                id="inventory-conflict",
            )


def _one_way_to_a_host(context: Context) -> None:
    seen: dict[tuple[str, int], tuple[Machine, document.Path]] = {}
    for machine, host in _machines(context):
        first, its = seen.setdefault(ssh_server(machine), (machine, host))
        if first is machine:
            continue
        if first.host != machine.host:
            at = (*its, "host")
            context.error(
                f"{machine.host!r} is the same host as {first.host!r} at {context.where(at)}",
                "write the same name in both places",
                (*host, "host"),
                id="inventory-conflict",
            )
        elif first != machine:
            at = _ssh_path(context, its)
            context.error(
                f"the host {machine.host!r} has other ssh settings than at {context.where(at)}",
                "give the host the same ssh settings in both places",
                _ssh_path(context, host),
                *((*path, "ssh", name) for path in (host, its) for name in model.Ssh.model_fields),
                id="inventory-conflict",
            )


def _machines(context: Context) -> Iterator[tuple[Machine, document.Path]]:
    for member in context.members:
        yield member.machine, ("etcd", "members", member.name)
    for master in context.masters:
        yield master.machine, ("alluxio", "masters", master.name)
    for worker in context.workers:
        yield worker.machine, ("alluxio", "workers", worker.name)


def _ssh_path(context: Context, host: document.Path) -> document.Path:
    return (*host, "ssh") if context.has(*host, "ssh") else (*host, "host")


def _loopback(context: Context) -> None:
    if len({ssh_server(machine) for machine, _ in _machines(context)}) < 2:
        return
    for member in context.members:
        path = ("etcd", "members", member.name, "address")
        _reached(context, "other hosts", member, "address", member.address, path)
    for master in context.masters:
        path = ("alluxio", "masters", master.name, "hostname")
        _reached(context, "workers", master, "name", master.hostname, path)
    for worker in context.workers:
        path = ("alluxio", "workers", worker.name, "hostname")
        _reached(context, "clients", worker, "name", worker.hostname, path)


def _reached(
    context: Context,
    by: str,
    role: EtcdMember | AlluxioMaster | AlluxioWorker,
    kind: str,
    at: str,
    path: document.Path,
) -> None:
    if _is_loopback(at) and not _is_loopback(role.machine.host):
        context.error(
            f"{by} cannot reach {role.name!r} at the loopback {kind} {at!r}",
            f"give its {kind} on the network",
            path,
            id="inventory-value-invalid",
        )


def _is_loopback(host: str) -> bool:
    if not (host[:1].isdigit() or ":" in host):  # a name; thousands of workers have names
        return host.lower() in ("localhost", "localhost.localdomain")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _is_link_local(host: str) -> bool:
    try:
        return ip_address(host).is_link_local
    except ValueError:
        return False


RULES = (
    _ssh_files,
    _sans,
    _member_addresses,
    _ports_within_member,
    _worker_hosts,
    _ports_on_machine,
    _one_way_to_a_host,
    _loopback,
)
