"""The places of an etcd member's files on its host, and the name of its unit."""

from __future__ import annotations

from provision.host import safely
from provision.inventory.resolved import EtcdCluster, EtcdMember

UNIT = "etcd.service"


UNIT_PATH = f"/etc/systemd/system/{UNIT}"


PACKAGED_BINARY = "/usr/bin/etcd"


def config_file(cluster: EtcdCluster) -> str:
    return f"{cluster.config_dir}/etcd.conf.yml"


def pki_dir(cluster: EtcdCluster) -> str:
    return f"{cluster.config_dir}/pki"


def ca_file(cluster: EtcdCluster) -> str:
    """The file with the trusted CA: one certificate, or two while the CA is being replaced."""
    return f"{pki_dir(cluster)}/ca.crt"


def certificate(cluster: EtcdCluster, kind: str) -> str:
    """The path of a listener's (``peer`` or ``server``) certificate and key, without the suffix."""
    return f"{pki_dir(cluster)}/{kind}"


def tool(cluster: EtcdCluster, name: str) -> str:
    """The path of ``etcd``, ``etcdctl`` or ``etcdutl`` of the release that a member's host runs.

    The host may run a newer patch release than the declared one. The folder of the declared release
    may then be missing.
    """
    folder = "/usr/bin" if cluster.source.package else f"{cluster.install_dir}/current"
    return f"{folder}/{name}"


def as_user(cluster: EtcdCluster) -> str:
    """The start of a simple command that runs as etcd's user: root must not use paths through a
    folder of that user."""
    return safely.become(cluster.user)


def low_priority() -> str:
    """Shell lines that set ``low``: the start of a command that leaves CPU and disk to others."""
    return """\
low="nice -n 19"
! command -v ionice >/dev/null || low="$low ionice -c 3\""""


def refuse_running() -> str:
    """A shell line that ends the script with an error when etcd runs."""
    return f'systemctl is-active -q {UNIT} && {{ echo "{UNIT} runs again" >&2; exit 1; }}'


def last_seen(cluster: EtcdCluster) -> str:
    """The file with the last run's note (:mod:`provision.etcd.cluster.last_seen`)."""
    return f"{cluster.config_dir}/last-seen"


def database(member: EtcdMember) -> str:
    """The database file; a snapshot has its size."""
    return f"{member.data_dir}/member/snap/db"


def unfinished(member: EtcdMember) -> str:
    """The file that marks an unfinished restore or recovery."""
    return f"{member.data_dir}/unfinished"
