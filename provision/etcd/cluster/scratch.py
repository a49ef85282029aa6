"""A scratch member: a snapshot, restored and started on a member's host beside the real member.

The scratch member listens only on the host's loopback, and runs with low priority for CPU and disk.
Every local user can take a port there before it does. So it and its client prove themselves with a
certificate that is made for this one member (:mod:`provision.etcd.pki.throwaway`): no password goes
to another process, no answer comes from one, and nobody else can read the data.
When its context or this process ends, it is removed with its data.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from provision import wait
from provision.dataclass import dataclass
from provision.errors import PreflightFailed, Problem, ProvisionError, Unhealthy
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import ClientTls, Endpoint
from provision.etcd.cluster.handle import Etcd
from provision.etcd.member import layout
from provision.host.digest import is_digest
from provision.inventory.model import version_tuple
from provision.inventory.resolved import EtcdCluster, EtcdMember
from provision.ssh.session import DEFAULT_TIMEOUT, Session, Unreachable, relay, tunnel
from provision.text import document, number, printable, size

if TYPE_CHECKING:
    from provision.etcd.pki.throwaway import Throwaway

#: The folder of the system's other large temporary files; not etcd's own disk, which must not fill.
SCRATCH = "/var/tmp/alluxio-provision-scratch"
#: Room: the upload, the database restored from it, and its write-ahead log of 64 MB.
ROOM = 2
WAL_BYTES = 130 << 20
#: A host surely restores at least this many bytes of a snapshot a second, with low priority.
RESTORED_PER_SECOND = 5 << 20
#: Seconds for the scratch member to start; and the seconds after which it ends by itself.
STARTS_WITHIN = 120.0
LIVES = 7200

#: A shell function, ``listens PID PORT``: whether PID itself listens on PORT of 127.0.0.1. Who asks
#: before and after an answer from there knows that the answer is PID's.
LISTENS = r"""listens() {
  hex=$(printf %04X "$2")
  inode=$(sed -nE "s/^ *[0-9]+: 0100007F:$hex [0-9A-F:]+ 0A( +[^ ]+){5} +([0-9]+) .*/\2/p" \
    /proc/net/tcp)
  [ -n "$inode" ] && ls -l "/proc/$1/fd" 2>/dev/null | grep -q "socket:\[$inode\]\$"
}"""


#: Shell functions, each in a shell of its own: they have names as the scripts have. ``inodes PORT``
#: prints the sockets that listen on PORT, at any address. ``free PORT…`` prints the first PORT on
#: which nobody listens, nor on the next one. ``holders PORT…`` prints who listens on each PORT.
PORTS = r"""inodes() (
  hex=$(printf %04X "$1")
  sed -nE "s/^ *[0-9]+: [0-9A-F]+:$hex [0-9A-F:]+ 0A( +[^ ]+){5} +([0-9]+) .*/\2/p" \
    /proc/net/tcp /proc/net/tcp6 2>/dev/null
)
free() (
  for port; do
    [ -n "$(inodes "$port"; inodes $((port + 1)))" ] || { echo "$port"; exit; }
  done
)
holders() (
  for port; do
    for inode in $(inodes "$port"); do
      pid=0
      for fd in /proc/[0-9]*/fd; do
        ! ls -l "$fd" 2>/dev/null | grep -q "socket:\[$inode\]\$" || pid=${fd#/proc/}
      done
      pid=${pid%/fd}
      echo "port $port is taken by $(tr -d '\n' <"/proc/$pid/comm" 2>/dev/null) (pid $pid)"
    done
  done
)"""
#: Ports that are tried, and tenths of a second in which the scratch member listens. It listens
#: before it reads its data.
_CANDIDATES, _LISTENS_WITHIN = 20, 300

#: What programs and etcd say when it is the host's fault: they have said it of no file's content.
_HOSTS_FAULT = re.compile(
    r"no space left|quota exceeded|read-only file system|input/output error|permission denied|"
    r"operation not permitted|cannot allocate memory|resource temporarily unavailable|"
    r"too many open files|address already in use|exec format error|no such file or directory|"
    r": not found",
    re.IGNORECASE,
)
#: The signal that ends a process when the host's memory is full.
_SIGKILL = 9
_KILLED = "it was killed, perhaps for lack of memory"


class HostFault(Unhealthy):
    """A scratch member failed because of its host: this says nothing about the file."""


@dataclass(frozen=True, slots=True)
class SnapshotStatus:
    """The output of ``snapshot status`` for a file. ``total_size`` in bytes."""

    revision: int
    total_keys: int
    total_size: int


@contextlib.contextmanager
def member(
    etcd: Etcd, host: EtcdMember, snapshot: Path, sha256: str, *, timeout: float
) -> Iterator[tuple[EtcdClient, SnapshotStatus]]:
    """Upload ``snapshot`` to ``host``, restore it there, start a member with it, and connect.

    The client's calls take at most ``timeout`` seconds. Raises :class:`PreflightFailed` when the
    host has no room, :class:`HostFault` for another fault of the host, and :class:`Unhealthy` when
    the file cannot be restored or served.
    """
    from provision.etcd.pki import throwaway

    cluster = etcd.cluster
    folder = f"{SCRATCH}.{secrets.token_hex(8)}"
    name = f"scratch member on {host.machine.host}"
    session = etcd.fleet.session(host.machine)
    secret = throwaway.make()
    try:
        _upload(etcd, host, snapshot, sha256, folder)
        port = _send_pair(etcd, host, folder, secret)
        held = session.hold(
            _script(cluster, folder, port),
            "restore into a scratch member",
            timeout=DEFAULT_TIMEOUT + snapshot.stat().st_size / RESTORED_PER_SECOND,
        )
    except Unreachable:
        raise  # the next backup removes files that are left
    except BaseException as error:  # also Ctrl-C; a held script removes its folder by itself
        if not isinstance(error, Exception):
            session.close()  # Ctrl-C within a packet leaves a connection that is of no use
        with contextlib.suppress(ProvisionError):
            session.run(_removal(folder), "remove the scratch folder")
        raise
    try:
        if held.greeting == "ended":
            why, by_host = _why(session, folder)
            raise _unusable(host, f"the scratch member does not start: {why}", by_host=by_host)
        if not held.greeting.startswith("started "):
            text = printable(held.greeting.removeprefix("failed "), 400)
            what = f"the snapshot cannot be restored: {text or 'it printed nothing'}"
            raise _unusable(host, what, by_host=not text or _is_hosts(text))
        status = _status(host, held.greeting.removeprefix("started "))
        with (
            _way(host, session, port) as local,
            EtcdClient(
                Endpoint("127.0.0.1", local, name),
                timeout=timeout,
                tls=ClientTls(secret.ca, secret.pair.cert_pem, secret.pair.key_pem, throwaway.NAME),
                login=etcd.credentials,  # its tokens are its own
            ) as client,
        ):
            _wait(client)
            yield client, status
    except EtcdUnreachable as error:
        # The caller may ask other members, too.
        if error.endpoint.name != name or error.reason in (Reason.LOGIN, Reason.DENIED):
            raise
        why, by_host = _why(session, folder)
        what = f"the scratch member does not serve: {error.problems[0].what}; {why}"
        raise _unusable(host, what, by_host=by_host) from error
    finally:
        held.close()


def _way(host: EtcdMember, session: Session, port: int) -> contextlib.AbstractContextManager[int]:
    """A local port that leads to ``port`` of the host's loopback, whatever its sshd forwards.

    Raises :class:`PreflightFailed` when sshd does not forward, and the host has no bash.
    """
    try:
        session.open_tcp("127.0.0.1", port, timeout=10).close()
    except Unreachable as error:
        if error.forwarding == "prohibited":
            if session.run("command -v bash", "look for bash").ok:
                return relay(session, port)
            what = "its sshd does not forward connections (AllowTcpForwarding), and it has no bash"
            where = host.place
            raise PreflightFailed(
                f"{where}: the scratch member cannot be asked",
                [
                    Problem(
                        where, what, "allow the one, or install the other", id="host-unsupported"
                    )
                ],
                id="host-unsupported",
            ) from error
    return tunnel(session, "127.0.0.1", port)


def tool(cluster: EtcdCluster) -> str:
    """The command that restores snapshots: etcdutl since 3.5, before that etcdctl.

    The distribution's packages of 3.4 have no etcdutl; etcdctl's restore was removed in 3.6.
    """
    name = "etcdutl" if version_tuple(cluster.version) >= (3, 5) else "etcdctl"
    return layout.tool(cluster, name)


def _upload(etcd: Etcd, host: EtcdMember, snapshot: Path, sha256: str, folder: str) -> None:
    needed = (snapshot.stat().st_size * ROOM + WAL_BYTES) >> 10
    user = shlex.quote(etcd.cluster.user)
    command = f"""\
set -e
umask 077
find /var/tmp -maxdepth 1 -name '{SCRATCH.rpartition("/")[2]}.*' -mmin +{LIVES // 30} \
-exec rm -rf {{}} +
free=$(df -Pk /var/tmp | awk 'END {{ print $4 }}')
[ "$free" -ge {needed} ] || {{ echo "free=$free" >&2; exit 9; }}
d={folder}
mkdir "$d"
trap '[ -n "$ok" ] || rm -rf "$d"' EXIT
cat >"$d/db"
{is_digest("$d/db", sha256)} || {{ echo "sha256 differs" >&2; exit 1; }}
# The folder stays root's, whose scripts write in it. etcd's user reads in it, and writes in "own".
mkdir "$d/own"
chown {user}: "$d/own"
chmod 0640 "$d/db"
chown root:$(id -gn {user}) "$d/db" "$d"
chmod 0750 "$d"
ok=1
"""
    with snapshot.open("rb") as body:
        result = etcd.fleet.session(host.machine).feed(command, body, "upload the snapshot")
    if result.code == 9:
        raise PreflightFailed(
            f"{host.machine.host}: no room to verify the snapshot",
            [
                Problem(
                    host.place,
                    f"/var/tmp has {size(_free(result.stderr))} free, restoring the snapshot to "
                    f"verify it needs {size(needed << 10)}",
                    "free space there",
                    id="disk-full",
                )
            ],
            id="disk-full",
        )
    if not result.ok:
        what = f"the upload failed: {printable(result.stderr.strip(), 300)}"
        raise _unusable(host, what, by_host=True)


def _send_pair(etcd: Etcd, host: EtcdMember, folder: str, secret: Throwaway) -> int:
    """A port on which nobody listens there, nor on the next one. The key goes by standard input,
    not in a command line, which everybody on the host sees."""
    user = shlex.quote(etcd.cluster.user)
    ports = " ".join(map(str, candidates()))
    script = f"""\
set -e
umask 077
cd {folder}
cat >pair.pem <<'END'
{(secret.pair.cert_pem + secret.pair.key_pem).decode()}END
cat >ca.pem <<'END'
{secret.ca.decode()}END
chmod 0640 pair.pem ca.pem
chown root:$(id -gn {user}) pair.pem ca.pem
{PORTS}
free {ports}
"""
    result = etcd.fleet.session(host.machine).run(script, "send the scratch member's certificate")
    if not result.ok:
        text = printable(result.stderr.strip(), 300)
        raise _unusable(host, f"the certificate cannot be written: {text}")
    port = number(result.stdout.strip())
    if port is None:
        raise _unusable(host, f"none of these ports is free there: {ports}", by_host=True)
    return port


def candidates() -> list[int]:
    """Ports to try; peers get the next one."""
    return [20000 + 2 * secrets.randbelow(4999) for _ in range(_CANDIDATES)]


def _removal(folder: str) -> str:
    # A command sent before Ctrl-C still runs, and might make the folder again: so the folder is
    # removed when no command line names it any more. This script and grep's pattern come by
    # standard input, so their command lines do not name the folder.
    return f"""\
n=0
while [ $n -lt 100 ] && echo {folder} | grep -qsFf - /proc/[0-9]*/cmdline; do
  n=$((n + 1))
  sleep 0.1
done
rm -rf {folder}
"""


def _script(cluster: EtcdCluster, folder: str, port: int) -> str:
    q = shlex.quote
    client, peer = f"https://127.0.0.1:{port}", f"https://127.0.0.1:{port + 1}"
    flags = [
        *("--name", "scratch", "--data-dir", f"{folder}/own/data"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", f"scratch={peer}"),
    ]
    if version_tuple(cluster.version) >= (3, 5):
        flags.append("--unsafe-no-fsync")
    for side in ("", "peer-"):
        flags += [f"--{side}cert-file", f"{folder}/pair.pem", f"--{side}key-file"]
        flags += [f"{folder}/pair.pem", f"--{side}trusted-ca-file", f"{folder}/ca.pem"]
        flags.append(f"--{side}client-cert-auth")
    restore = [
        *("--data-dir", f"{folder}/own/data", "--name", "scratch"),
        *("--initial-advertise-peer-urls", peer, "--initial-cluster", f"scratch={peer}"),
        *("--initial-cluster-token", secrets.token_hex(8)),
    ]
    as_user = layout.as_user(cluster)
    return f"""\
d={q(folder)}
pid=
trap '[ -z "$pid" ] || kill -9 $pid; wait; rm -rf "$d"' EXIT
trap 'exit 1' HUP INT TERM PIPE
export ETCDCTL_API=3
cd /
{layout.low_priority()}
{LISTENS}
{PORTS}
fail() {{ echo "failed $(tail -n 3 "$d/log" | tr '\\n' ' ')"; exit 1; }}
{as_user} $low {q(tool(cluster))} snapshot restore "$d/db" {shlex.join(restore)} \\
  >"$d/log" 2>&1 || fail
status=$({as_user} $low {q(tool(cluster))} snapshot status "$d/db" -w json 2>>"$d/log") || fail
rm -f "$d/db"
{as_user} $low {q(layout.tool(cluster, "etcd"))} {shlex.join(flags)} </dev/null >>"$d/log" 2>&1 &
pid=$!
echo $pid >"$d/pid"
said="started $status" left={_LISTENS_WITHIN}
until [ $left = 0 ] || listens $pid {port}; do
  case $(sed -n 's/^State:[^A-Z]*//p' "/proc/$pid/status" 2>/dev/null) in
    '' | Z*)
      wait $pid
      [ $? != {128 + _SIGKILL} ] || echo {q(_KILLED)} >"$d/why"
      pid=
      ! grep -q 'address already in use' "$d/log" || holders {port} {port + 1} >"$d/why"
      said=ended left=1;;
  esac
  left=$((left - 1))
  [ $left = 0 ] || sleep 0.1
done
echo "$said"
timeout {LIVES} cat >/dev/null"""


def _status(host: EtcdMember, text: str) -> SnapshotStatus:
    try:
        said = document(text)
        return SnapshotStatus(
            int(said["revision"]), int(said["totalKey"]), int(said.get("totalSize", 0))
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(host, f"snapshot status is unreadable: {printable(text, 200)}") from error


def _wait(client: EtcdClient) -> None:
    def why_not() -> EtcdUnreachable | None:
        try:
            if client.status().leader:
                return None
            return EtcdUnreachable(client.endpoint, Reason.NO_QUORUM, "it has no leader")
        except EtcdUnreachable as error:
            # A refusal for lack of a login is an answer: the caller sees to the login.
            return None if error.reason in (Reason.LOGIN, Reason.DENIED) else error

    if why := wait.until(
        why_not, lambda why: why is None, STARTS_WITHIN, 0.1, what="the scratch member"
    ):
        raise why


def _why(session: Session, folder: str) -> tuple[str, bool]:
    """The last lines of the scratch member's log, and whether the host is at fault: it says so, the
    process still runs, or it was killed."""
    script = f"""\
tr '\\n' ' ' <{folder}/why 2>/dev/null; echo
tail -n 5 {folder}/log 2>/dev/null | tr '\\n' ' '
p=$(cat {folder}/pid 2>/dev/null); p=/proc/${{p:-gone}}
echo; sed -n 's/^State:[^A-Z]*//p' $p/status 2>/dev/null
awk '{{ print $NF }}' $p/stat 2>/dev/null"""
    try:
        said = session.run(script, "ask the scratch member's log").stdout.splitlines()
    except ProvisionError as error:
        return error.message, True
    why, text, state, code = [*said, "", "", "", ""][:4]
    if why.strip():
        return printable(why.strip(), 400), True
    shown = printable(text.strip(), 400) or "its log says nothing"
    # A process that has ended is kept as a zombie, with the status that it ended with.
    ended = not state or state.startswith("Z")
    killed = state.startswith("Z") and (number(code) or 0) & 0x7F == _SIGKILL
    if killed:
        shown = f"{_KILLED}; {shown}"
    return shown, not ended or killed or _is_hosts(text)


def _is_hosts(text: str) -> bool:
    return _HOSTS_FAULT.search(text) is not None


def _free(stderr: str) -> int:
    return (number(stderr.rpartition("free=")[2].strip()) or 0) << 10


def _unusable(host: EtcdMember, what: str, *, by_host: bool = False) -> Unhealthy:
    where = host.place
    kind = HostFault if by_host else Unhealthy
    remedy = "see to this host: its fault says nothing about the file" if by_host else ""
    problem = Problem(where, what, remedy, id="backup-unproven")
    return kind(f"{where}: {what}", [problem], id="backup-unproven")
