"""Where a member of etcd has its files on its host, and the names of its unit."""

from __future__ import annotations

from provision.inventory.resolved import EtcdCluster, EtcdMember

UNIT = "etcd.service"


UNIT_PATH = f"/etc/systemd/system/{UNIT}"


PACKAGED_BINARY = "/usr/bin/etcd"


def config_file(cluster: EtcdCluster) -> str:
    return f"{cluster.config_dir}/etcd.conf.yml"


def pki_dir(cluster: EtcdCluster) -> str:
    return f"{cluster.config_dir}/pki"


def ca_file(cluster: EtcdCluster) -> str:
    """What the members trust: one CA certificate, or two while it is being replaced."""
    return f"{pki_dir(cluster)}/ca.crt"


def certificate(cluster: EtcdCluster, kind: str) -> str:
    """The path of a listener's (``peer`` or ``server``) certificate and key, but for the end."""
    return f"{pki_dir(cluster)}/{kind}"


def tool(cluster: EtcdCluster, name: str) -> str:
    """The path of ``etcd``, ``etcdctl`` or ``etcdutl`` of the release that a member's host runs.

    That may be a newer patch release than the declared one, whose folder may not be there.
    """
    folder = "/usr/bin" if cluster.source.package else f"{cluster.install_dir}/current"
    return f"{folder}/{name}"


def last_seen(cluster: EtcdCluster) -> str:
    """The note of the cluster as the last run saw it (:mod:`provision.etcd.cluster.last_seen`)."""
    return f"{cluster.config_dir}/last-seen"


def database(member: EtcdMember) -> str:
    """The file whose size a snapshot has."""
    return f"{member.data_dir}/member/snap/db"


def unfinished(member: EtcdMember) -> str:
    """Where it is noted that a restore or a recovery has begun and not ended."""
    return f"{member.data_dir}/unfinished"
