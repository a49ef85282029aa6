"""What one etcd member's host should look like, as resources."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from provision.artifacts import Artifact
from provision.host.observe import HostFacts, Probe
from provision.host.resources import (
    Directory,
    File,
    Link,
    Package,
    Resource,
    Tree,
    Unit,
    User,
)
from provision.inventory.model import Scalar, version_tuple
from provision.inventory.resolved import EtcdCluster, EtcdMember, bracketed
from provision.render import render

UNIT = "etcd.service"
UNIT_PATH = f"/etc/systemd/system/{UNIT}"
PACKAGED_BINARY = "/usr/bin/etcd"

#: Where etcd's own default would let a database grow for ever or refuse to work.
DEFAULT_SETTINGS: Mapping[str, Scalar] = {
    "auto-compaction-mode": "periodic",
    "auto-compaction-retention": "1h",
}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate and its key; ``key`` None when the one on the host is kept."""

    certificate: bytes
    key: bytes | None


@dataclass(frozen=True, slots=True)
class MemberTls:
    """The TLS material of one member. None where a listener is plain."""

    authority: bytes
    peer: Leaf | None = None
    server: Leaf | None = None


def config_file(cluster: EtcdCluster) -> str:
    return f"{cluster.config_dir}/etcd.conf.yml"


def pki_dir(cluster: EtcdCluster) -> str:
    return f"{cluster.config_dir}/pki"


def binary(cluster: EtcdCluster) -> str:
    return (
        PACKAGED_BINARY
        if cluster.source.package
        else f"{cluster.install_dir}/{cluster.version}/etcd"
    )


def tool(cluster: EtcdCluster, name: str) -> str:
    """The path of ``etcdctl`` or ``etcdutl`` on a member's host."""
    return f"{binary(cluster).rsplit('/', 1)[0]}/{name}"


def resources(
    cluster: EtcdCluster,
    member: EtcdMember,
    artifact: Artifact | None,
    tls: MemberTls | None,
    facts: HostFacts | None,
    initial_state: str = "new",
) -> tuple[Resource, ...]:
    """Everything that makes ``member``'s host a member, in the order it is put there.

    ``facts`` None gives what to look at before anything is known about the host.
    """
    result: list[Resource] = [
        User(cluster.user, home="/var/lib/etcd"),
        Directory(cluster.config_dir),
        Directory(member.data_dir, owner=cluster.user, mode=0o700),
    ]
    if artifact is not None:
        tree = f"{cluster.install_dir}/{cluster.version}"
        result.append(Tree(tree, artifact, restarts=(UNIT,)))
        result.append(Link(f"{cluster.install_dir}/current", cluster.version))
    else:
        result.append(Package(("etcd-server", "etcd-client"), PACKAGED_BINARY))
    if tls is not None:
        result.extend(_tls(cluster, tls))
    result.append(
        File(
            config_file(cluster),
            _config(cluster, member, facts, initial_state),
            restarts=(UNIT,),
        )
    )
    unit = render(
        "etcd.service",
        cluster=cluster.name,
        member=member,
        user=cluster.user,
        binary=binary(cluster),
        config_file=config_file(cluster),
    )
    result.append(File(UNIT_PATH, unit, restarts=(UNIT,)))
    result.append(Unit(UNIT))
    return tuple(result)


def probe(cluster: EtcdCluster, member: EtcdMember, artifact: Artifact | None) -> Probe:
    """What to look at on a member's host, in preflight and for the plan."""
    leaf = Leaf(b"", b"")
    tls = MemberTls(b"", leaf if member.peer_tls else None, leaf if member.client_tls else None)
    others = [m for m in cluster.members if m.name != member.name]
    return Probe(
        resources=resources(cluster, member, artifact, tls, None),
        ports=_ports(cluster, member),
        disks=(member.data_dir, cluster.install_dir),
        paths=(f"{member.data_dir}/member",),
        reach=[(m.address, m.peer_port) for m in others],
        resolve=[m.address for m in others if not is_ip(m.address)],
    )


def has_data(member: EtcdMember, facts: HostFacts) -> bool:
    """Whether the member has ever been started here: its data directory holds ``member/``."""
    return f"{member.data_dir}/member" in facts.paths


def is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def sans(member: EtcdMember) -> tuple[str, ...]:
    """The names a member's certificate must carry: etcd checks them on both sides."""
    return tuple(dict.fromkeys((member.address, member.machine.host, "localhost", "127.0.0.1")))


def _ports(cluster: EtcdCluster, member: EtcdMember) -> tuple[int, ...]:
    plain = cluster.tls.plain_client_port if member.client_tls else None
    ports = (member.client_port, member.peer_port)
    return ports if plain is None else (*ports, plain)


def _tls(cluster: EtcdCluster, tls: MemberTls) -> list[Resource]:
    pki, user = pki_dir(cluster), cluster.user
    result: list[Resource] = [
        Directory(pki, owner=user, mode=0o700),
        File(f"{pki}/ca.crt", tls.authority, owner=user, restarts=(UNIT,)),
    ]
    for name, leaf in (("peer", tls.peer), ("server", tls.server)):
        if leaf is not None:
            # The key first: a run killed between the two leaves a certificate that is still
            # due for renewal, not one that looks good beside another's key.
            result.append(
                File(
                    f"{pki}/{name}.key",
                    leaf.key,
                    owner=user,
                    mode=0o600,
                    secret=True,
                    restarts=(UNIT,),
                )
            )
            result.append(File(f"{pki}/{name}.crt", leaf.certificate, owner=user, restarts=(UNIT,)))
    return result


def _config(
    cluster: EtcdCluster, member: EtcdMember, facts: HostFacts | None, initial_state: str
) -> bytes:
    client_scheme = "https" if member.client_tls else "http"
    listen_client = [f"{client_scheme}://{a}" for a in _listen(member, member.client_port)]
    advertise = [member.client_url]
    plain = cluster.tls.plain_client_port
    if member.client_tls and plain is not None:
        where = cluster.tls.plain_client_address or member.address
        listen_client.append(f"http://{bracketed(where) if is_ip(where) else '0.0.0.0'}:{plain}")
    initial = {
        "initial-cluster": cluster.initial_cluster,
        "initial-cluster-token": cluster.token,
        "initial-cluster-state": initial_state,
    }
    if facts is not None and has_data(member, facts):
        # etcd reads these once. Rewriting them when the membership changes would restart
        # every member for nothing.
        initial.update(_initial(facts.text(config_file(cluster)) or ""))
    return render(
        "etcd.conf.yml",
        cluster=cluster.name,
        member=member,
        listen_peer_urls=[
            f"{'https' if member.peer_tls else 'http'}://{a}"
            for a in _listen(member, member.peer_port, loopback=False)
        ],
        listen_client_urls=listen_client,
        advertise_client_urls=advertise,
        initial_cluster=initial["initial-cluster"],
        token=initial["initial-cluster-token"],
        initial_state=initial["initial-cluster-state"],
        pki=pki_dir(cluster),
        client_auth=cluster.tls.client_auth,
        settings={**_defaults(cluster), **member.settings},
    )


def _defaults(cluster: EtcdCluster) -> dict[str, Scalar]:
    # Before 3.5 the default logger is capnslog, which --config-file cannot set levels of.
    logger: dict[str, Scalar] = {"logger": "zap"} if version_tuple(cluster.version) < (3, 5) else {}
    return {**DEFAULT_SETTINGS, **logger}


def _listen(member: EtcdMember, port: int, *, loopback: bool = True) -> list[str]:
    # etcd listens on addresses only: for a name, on all of them.
    if not is_ip(member.address):
        return [f"0.0.0.0:{port}"]
    own = f"{bracketed(member.address)}:{port}"
    local = f"127.0.0.1:{port}"
    return [own, local] if loopback and own != local else [own]


def _initial(text: str) -> dict[str, str]:
    import json

    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        if key.startswith("initial-cluster") and value.startswith('"'):
            try:
                found[key] = str(json.loads(value))
            except ValueError:
                continue
    return found
