"""``etcd.backup``: a timer on every member's host; the first healthy member saves a backup there.

The files have the same names as in ``backup-etcd``, and the same checks without the scratch member:
etcd's own sha256 and ``snapshot status``. They stay on the host, also when the cluster is
destroyed.

The members take turns with ``etcdctl lock`` (its ``lock_command.go``: the command runs while a
lease holds the lock, and its exit code is kept). When a member dies or fails, the next one gets the
lock. Each backup is noted under :func:`key`, outside the prefixes that Alluxio reads. With
authentication, the lock and the note need the user root, which a snapshot needs anyway.
"""

from __future__ import annotations

import re
import shlex

from provision.etcd.api.login import root_login
from provision.etcd.member import backups, layout
from provision.host.resources import MASK, Absent, Directory, File, Resource, Unit
from provision.host.sandbox import sandbox
from provision.inventory.model import version_tuple
from provision.inventory.resolved import EtcdCluster, EtcdMember, bracketed, is_ip
from provision.render import render

UNIT = "etcd-backup.timer"
SERVICE = "etcd-backup.service"
#: The label of :func:`probe`.
CALENDAR = "calendar"
TIMER_PATH, SERVICE_PATH = f"/etc/systemd/system/{UNIT}", f"/etc/systemd/system/{SERVICE}"


def script_path(cluster: EtcdCluster) -> str:
    return f"{cluster.config_dir}/backup.sh"


def paths(cluster: EtcdCluster) -> tuple[str, ...]:
    """The files of the timer."""
    return TIMER_PATH, SERVICE_PATH, script_path(cluster), login_path(cluster)


def key(cluster: EtcdCluster) -> str:
    """The key in etcd with the last backup that a timer saved."""
    return f"/alluxio-provision/{cluster.name}/backup"


def has(cluster: EtcdCluster, member: EtcdMember) -> bool:
    """Whether the timer is on this member's host. It is on every host, unless the inventory names
    one host."""
    backup = cluster.backup
    return backup is not None and backup.member in (None, member.name)


def login_path(cluster: EtcdCluster) -> str:
    """The environment file of the timer's etcdctl, readable only by root. It has the login when
    etcd needs one."""
    return f"{cluster.config_dir}/backup.env"


def resources(cluster: EtcdCluster, member: EtcdMember) -> tuple[Resource, ...]:
    """The files of the timer on a member that has it, and their absence on other members."""
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
    # etcdctl has no `snapshot status` from 3.6 on, and before 3.5 there is no etcdutl.
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
        sandbox=sandbox((backup.dir, cluster.install_dir, cluster.config_dir)),
    )
    timer = render("etcd-backup.timer", cluster=cluster.name, on_calendar=backup.on_calendar)
    return (
        Directory(backup.dir, owner=cluster.user, mode=0o700),
        File(script_path(cluster), script),
        File(
            login_path(cluster),
            _login(cluster),
            mode=0o600,
            secret=True,
            masked=_login(cluster, masked=True),
        ),
        File(SERVICE_PATH, service),
        File(TIMER_PATH, timer, restarts=(UNIT,)),
        Unit(UNIT),
    )


def probe(cluster: EtcdCluster, member: EtcdMember) -> dict[str, str]:
    """The probe command that prints something when the host's systemd takes no such schedule."""
    backup = cluster.backup
    if backup is None or not has(cluster, member):
        return {}
    calendar = shlex.quote(backup.on_calendar)
    return {
        CALENDAR: f"systemd-analyze calendar {calendar} >/dev/null 2>&1; [ $? != 1 ] || echo no"
    }


def _login(cluster: EtcdCluster, *, masked: bool = False) -> bytes:
    """The login file's text; ``masked``: without the password.

    etcd gives snapshots only to users with the role root. Without authentication, etcd also accepts
    a client with a login.
    """
    login = root_login(cluster) if cluster.auth.enabled else None
    if login is None:
        return b""
    # The format of a systemd EnvironmentFile (systemd.exec(5)).
    password = MASK if masked else login.password
    quoted = re.sub(r'([\\"$`])', r"\\\1", f"{login.user}:{password}")
    return f'ETCDCTL_USER="{quoted}"\n'.encode()
