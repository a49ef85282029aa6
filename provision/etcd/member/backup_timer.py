"""``etcd.backup``: a timer on every member's host; the first member that is well saves there.

The files have the names of ``backup-etcd``'s, and its checks but for the scratch member: etcd's
own sha256 and ``snapshot status``. They stay on the host, also when the cluster is destroyed.

The members take turns by ``etcdctl lock`` (its ``lock_command.go``: the command runs while a lease
holds the lock, and its exit code is kept). A member that dies or fails gives the lock to the next
one. What was saved is noted under :func:`key`, out of the prefixes that Alluxio reads. With
authentication both need the user root, which a snapshot needs anyway.
"""

from __future__ import annotations

import re

from provision.etcd.api.login import root_login
from provision.etcd.member import backups, layout
from provision.host.resources import Absent, Directory, File, Resource, Unit
from provision.inventory.model import version_tuple
from provision.inventory.resolved import EtcdCluster, EtcdMember, bracketed, is_ip
from provision.render import render

UNIT = "etcd-backup.timer"
SERVICE = "etcd-backup.service"
TIMER_PATH, SERVICE_PATH = f"/etc/systemd/system/{UNIT}", f"/etc/systemd/system/{SERVICE}"


def script_path(cluster: EtcdCluster) -> str:
    return f"{cluster.config_dir}/backup.sh"


def paths(cluster: EtcdCluster) -> tuple[str, ...]:
    """The files that the timer consists of."""
    return TIMER_PATH, SERVICE_PATH, script_path(cluster), login_path(cluster)


def key(cluster: EtcdCluster) -> str:
    """Where etcd holds the last backup that a timer saved."""
    return f"/alluxio-provision/{cluster.name}/backup"


def has(cluster: EtcdCluster, member: EtcdMember) -> bool:
    """Whether the timer is on this member's host: on every one, unless the inventory names one."""
    backup = cluster.backup
    return backup is not None and backup.member in (None, member.name)


def login_path(cluster: EtcdCluster) -> str:
    """The environment of the timer's etcdctl, for root alone: its login when etcd wants one."""
    return f"{cluster.config_dir}/backup.env"


def resources(cluster: EtcdCluster, member: EtcdMember) -> tuple[Resource, ...]:
    """The timer on a member that has it; that there is none on the others."""
    backup = cluster.backup
    if backup is None or not has(cluster, member):
        return (Absent(UNIT, paths(cluster)),)
    listens = "127.0.0.1" if is_ip(member.address) else member.address
    scheme = "https" if member.client_tls else "http"
    flags = [f"--endpoints={scheme}://{bracketed(listens)}:{member.client_port}"]
    if member.client_tls:
        flags += [
            f"--cacert={layout.ca_file(cluster)}",
            f"--cert={layout.pki_dir(cluster)}/server.crt",
            f"--key={layout.pki_dir(cluster)}/server.key",
        ]
    # etcdctl's own `snapshot status` went with 3.6; before 3.5 there is no etcdutl.
    status = "etcdutl" if version_tuple(cluster.version) >= (3, 5) else "etcdctl"
    script = render(
        "etcd-backup.sh",
        cluster=cluster.name,
        member=member.name,
        pattern=re.escape(cluster.name).replace(r"\-", "-"),
        new=backups.NEW,
        old=backups.OLD,
        dir=backup.dir,
        keep=backup.keep,
        on_calendar=backup.on_calendar,
        shared=backup.member is None,
        key=key(cluster),
        last_seen=layout.last_seen(cluster),
        copy_command=backup.copy_command,
        script=script_path(cluster),
        etcdctl=layout.tool(cluster, "etcdctl"),
        status=layout.tool(cluster, status),
        flags=flags,
    )
    service = render(
        "etcd-backup.service",
        cluster=cluster.name,
        member=member,
        user=cluster.user,
        dir=backup.dir,
        script=script_path(cluster),
        environment=login_path(cluster),
    )
    timer = render("etcd-backup.timer", cluster=cluster.name, on_calendar=backup.on_calendar)
    return (
        Directory(backup.dir, owner=cluster.user, mode=0o700),
        File(script_path(cluster), script),
        File(login_path(cluster), _login(cluster), mode=0o600, secret=True),
        File(SERVICE_PATH, service),
        File(TIMER_PATH, timer, restarts=(UNIT,)),
        Unit(UNIT),
    )


def _login(cluster: EtcdCluster) -> bytes:
    """etcd gives snapshots to users with the role root alone. Without authentication it lets
    one with a login in, too."""
    login = root_login(cluster) if cluster.auth.enabled else None
    if login is None:
        return b""
    # As systemd reads an EnvironmentFile (systemd.exec(5)).
    quoted = re.sub(r'([\\"$`])', r"\\\1", f"{login.user}:{login.password}")
    return f'ETCDCTL_USER="{quoted}"\n'.encode()
