"""The lab as the tests see it: hosts over SSH, `invoke TASK` as a process, etcd by its client."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.values import Endpoint
from tests import documents, forks, recording

from .release import REPO as REPO
from .release import absolute, merged, named
from .shells import Shell

#: Keys and SSH configuration of this process's lab; artifacts are in .lab for all of them.
SSH = Path(os.environ.get("ALXP_LAB_STATE", REPO / ".lab")) / "ssh"
SSH_CONFIG = SSH / "config"
LAB = REPO / "tests" / "lab" / "lab"
#: The release of Alluxio that the tests install.
RELEASE = named()
CLUSTER = "AlxpLab"
#: The lab's word that it may go, also when a test has left an etcd that cannot be asked.
DESTROY = ("--yes-delete", CLUSTER, "--other-clusters-unknown", CLUSTER)
#: The network of inventory/lab.yml; a lab beside it (see tests/lab/lab) has another.
DECLARED_NET = "10.213.77"
NET = os.environ.get("ALXP_LAB_NET", DECLARED_NET)

#: Everything that the tool puts on a host, but for users.
OURS = (
    *("/etc/etcd", "/var/lib/etcd", "/opt/etcd", "/etc/systemd/system/etcd.service"),
    *("/opt/alluxio", "/opt/java", "/var/lib/alluxio", "/var/log/alluxio"),
    *("/etc/systemd/system/alluxio-worker.service", "/var/lib/alluxio-provision"),
)
#: What a run that changes nothing must leave as it is: files by name, mode, owner, size and
#: time of change; services by process. Not the data that etcd itself writes, nor what a run that
#: changed anything notes of the cluster.
#: All that the tool makes on a host, for :meth:`Lab.require_modes`.
_OWN = (*OURS, "/run/alluxio-provision", "/var/log/alluxio-provision", "/var/backups/etcd")
#: What others may write; keys that others may read; files with a secret in them that others may.
_LOOSE = f"""
ours=$(ls -d {" ".join(_OWN)} /var/tmp/alluxio-provision* 2>/dev/null || :)
[ -n "$ours" ] || exit 0
find $ours ! -type l -perm /022 -printf 'written by others: %M %p\\n' 2>/dev/null
find $ours -type f -name '*.key*' -perm /037 -printf 'key: %M %p\\n' 2>/dev/null
find $ours -type f -size -256k -perm /007 ! -path '*/lib/*' ! -path '/opt/java/*' -exec grep -lsE \
  'PRIVATE KEY|PASSWORD=.|alluxio.etcd.password=.' {{}} + 2>/dev/null | sed 's/^/secret: /'
"""
_SNAPSHOT = """
find /etc/etcd /etc/systemd/system /opt /var/lib/alluxio ! -path /etc/etcd/last-seen \
  -printf '%p %y %m %u %s %C@ %l\\n' 2>/dev/null | sort
find /var/lib/etcd -maxdepth 1 -printf '%p %y %m %u\\n' 2>/dev/null | sort
systemctl show -p Id,LoadState,ActiveState,MainPID,NRestarts etcd.service alluxio-worker.service
cat /etc/passwd
"""

Changes = Mapping[str, Any]
Snapshot = Mapping[str, Sequence[str]]


#: Seconds that a command may take.
TIMEOUT = 600.0
#: Another one after each boot.
BOOT = "/proc/sys/kernel/random/boot_id"


class Host:
    """One host of the lab, as root over a connection that stays open."""

    def __init__(self, name: str, address: str, sockets: Path) -> None:
        self.name, self.address = name, address
        self._ssh = ["ssh", "-F", str(SSH_CONFIG), "-o", f"ControlPath={sockets / name}"]
        self._shell = Shell([*self._ssh, name, "sudo", "sh"])

    def __repr__(self) -> str:
        return self.name

    def connect(self) -> None:
        command = [*self._ssh, "-fN", "-o", "ControlMaster=yes", self.name]
        # Not captured: the connection, which stays behind, would keep the pipe open.
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def disconnect(self) -> None:
        self._shell.close()
        subprocess.run([*self._ssh, "-O", "exit", self.name], check=False, capture_output=True)

    def reconnect(self) -> None:
        """Connect once more if a test has cut the connection, as one that restarts the host has."""
        command = [*self._ssh, "-O", "check", self.name]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            self.connect()

    def run(self, script: str, *, check: bool = True, timeout: float = 60) -> str:
        """The output of a shell script, run as root. It must succeed unless ``check`` is off."""
        code, out, err = self._shell.run(f"set -e\n{script}", timeout * RELEASE.patience)
        if check and code:
            raise AssertionError(f"{self}: exit code {code} of:\n{script}\n{err}")
        return out.strip()

    def read(self, path: str) -> str:
        return self.run(f"cat {shlex.quote(path)}")

    def put(self, path: str, content: bytes) -> None:
        """Write a file that anyone may read, and the folders above it."""
        command = f"sudo sh -c 'mkdir -p $(dirname {path}); cat >{path}'"
        subprocess.run([*self._ssh, self.name, command], input=content, check=True)

    def reboot(self) -> None:
        """Boot again, and wait until the host can be worked on."""
        before = self.read(BOOT)
        self.run("systemctl --no-block reboot", check=False)
        wait_until(lambda: self._boot() not in ("", before), f"{self} has booted", seconds=180)

    def _boot(self) -> str:
        try:
            return self.run(f"cat {BOOT}", timeout=5)
        except (AssertionError, subprocess.TimeoutExpired):
            return ""

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a systemd unit."""
        lines = self.run(f"systemctl show -p {','.join(properties)} {unit}").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def main_pid(self, unit: str) -> int:
        return int(self.show(unit, "MainPID")["MainPID"])

    @contextlib.contextmanager
    def masked(self, unit: str) -> Iterator[None]:
        """With ``unit``, whose own file stands in /etc, masked. Its process lives on."""
        path, aside = f"/etc/systemd/system/{unit}", f"/root/{unit}.aside"
        self.run(f"mv {path} {aside}; systemctl -q mask {unit}")
        try:
            yield
        finally:
            self.run(f"rm {path}; mv {aside} {path}; systemctl daemon-reload")


@dataclass(frozen=True)
class Done:
    """An ``invoke`` that has ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    @property
    def json(self) -> dict[str, Any]:
        """stdout, which must be one JSON document and nothing else."""
        document = json.loads(self.stdout)
        documents.require(document)
        return cast("dict[str, Any]", document)

    def expect(self, code: int, *texts: str) -> Done:
        """This, if it ended with ``code``, and each of ``texts`` stands in one of its lines. A
        number at a text's begin is a whole one: 10 changes are not 0."""
        assert self.code == code, f"exit code {self.code}, not {code}:\n{self.text}"
        assert "Traceback" not in self.text, self.text
        for text in texts:
            whole = (r"(?<!\d)" if text[:1].isdigit() else "") + re.escape(text)
            assert any(re.search(whole, x) for x in self.text.splitlines()), (
                f"{text!r}?\n{self.text}"
            )
        return self


class Running:
    """An ``invoke`` under way: its stderr read line by line, and signals to it."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = REPO
    ) -> None:
        pipe = subprocess.PIPE
        self._started = time.monotonic()
        self._words = command[command.index("invoke") + 1 :] if "invoke" in command else ()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self._seen: list[str] = []

    def wait_for(self, pattern: str, times: int = 1) -> str:
        """The line on stderr that matches for the ``times``-th time, as soon as it is there."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._seen.append(line)
            times -= bool(re.search(pattern, line))
            if times == 0:
                return line.rstrip("\n")
        raise AssertionError(f"ended before {pattern!r}:\n{''.join(self._seen)}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def interrupt(self, after: float = 0) -> Done:
        """Ctrl-C, ``after`` seconds from now on, and what it makes of it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(after)
        self.process.send_signal(signal.SIGINT)
        return self.finish()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """While it neither does nor hears anything."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def finish(self, timeout: float = TIMEOUT) -> Done:
        out, err = self.process.communicate(timeout=timeout * RELEASE.patience)
        seconds = time.monotonic() - self._started
        done = Done(self.process.returncode, out, "".join(self._seen) + err, seconds)
        recording.ran(self._words, done.code, done.text)
        return done


def finished(command: Sequence[str], env: Mapping[str, str] | None = None) -> Done:
    """An ``invoke`` that nobody disturbs, to its end; a fork where that will do."""
    words, started = command[command.index("invoke") + 1 :], time.monotonic()
    ended = forks.run(words, {**os.environ, **(env or {})}, TIMEOUT * RELEASE.patience)
    if ended is None:
        return Running(command, env).finish()
    done = Done(*ended, time.monotonic() - started)
    recording.ran(words, done.code, done.text)
    return done


class Lab:
    """The default five hosts, and commands against them."""

    name = CLUSTER

    def __init__(self, hosts: Sequence[Host], folder: Path) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.etcd = [host for host in hosts if host.name.startswith("etcd")]
        self.workers = [host for host in hosts if host.name.startswith("worker")]
        self._folder = folder
        self._inventories = 0
        #: inventory/lab.yml, with a CA of these tests' own.
        self.declared = self.inventory()

    def inventory(self, changes: Changes | None = None) -> Path:
        """A file of inventory/lab.yml with ``changes`` merged in; None takes a key away."""
        yaml = YAML(typ="safe")
        base = REPO / "inventory"
        text = (base / "lab.yml").read_text(encoding="utf-8")
        here = text.replace(f"{DECLARED_NET}.", f"{NET}.").replace("../.lab/ssh", str(SSH))
        content = merged(absolute(yaml.load(here), base), RELEASE.changes())
        content = merged(content, {"etcd": {"tls": {"pki_dir": self.pki}}})
        self._inventories += 1
        path = self._folder / f"inventory{self._inventories}.yml"
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(merged(content, changes or {}), file)
        return path

    def source(self) -> dict[str, str]:
        """Where inventory/lab.yml has etcd from, with the paths written out."""
        content = YAML(typ="safe").load(self.declared.read_text(encoding="utf-8"))
        return dict(content["etcd"]["source"])

    @property
    def pki(self) -> str:
        return str(self._folder / "pki")

    def invoke(
        self,
        task: str,
        inventory: Path | None = None,
        *options: str,
        env: Mapping[str, str] | None = None,
    ) -> Done:
        return finished(self.command(task, inventory, *options), env)

    def start(
        self,
        task: str,
        inventory: Path | None = None,
        *options: str,
        env: Mapping[str, str] | None = None,
    ) -> Running:
        return Running(self.command(task, inventory, *options), env)

    def command(self, task: str, inventory: Path | None = None, *options: str) -> list[str]:
        path = str(inventory or self.declared)
        return [sys.executable, "-m", "invoke", task, "--inventory", path, *options]

    def on(self, hosts: Sequence[Host], script: str, *, check: bool = True) -> list[str]:
        """A script on several hosts at once."""
        with ThreadPoolExecutor(len(hosts)) as pool:
            return list(pool.map(lambda host: host.run(script, check=check), hosts))

    def snapshot(self) -> Snapshot:
        """Every host's state, to be compared with a later one."""
        hosts = list(self.hosts.values())
        texts = self.on(hosts, _SNAPSHOT, check=False)
        return {h.name: text.splitlines() for h, text in zip(hosts, texts, strict=True)}

    def sessions(self) -> list[str]:
        """How many SSH connections each host's sshd has seen, this call's own left out."""
        for host in self.hosts.values():
            host.reconnect()
        count = "journalctl -u ssh -o cat | grep -cE '^(Accepted|Connection|Disconnected)'"
        return self.on(list(self.hosts.values()), count, check=False)

    @contextlib.contextmanager
    def client(self, host: Host, port: int = 2379) -> Iterator[EtcdClient]:
        with EtcdClient(Endpoint(host.address, port), timeout=3) as client:
            yield client

    def leader(self) -> Host:
        for host in self.etcd:
            with self.client(host) as client:
                if client.status().is_leader:
                    return host
        raise AssertionError("no leader")

    def destroy(self) -> None:
        """Take everything away by the tool, and see that it is gone."""
        self.invoke("destroy", None, *DESTROY).expect(0)
        assert self.left_over() == {}

    def clear(self) -> None:
        """Nothing of the tool is on any host, whatever tests before have left there."""
        self.invoke("destroy", None, *DESTROY)
        self.wipe()
        assert self.left_over() == {}

    def left_over(self) -> dict[str, str]:
        """What is there of the tool on each host that has anything."""
        hosts = list(self.hosts.values())
        found = self.on(hosts, f"ls -d {' '.join(OURS)} 2>/dev/null || :")
        return {h.name: text for h, text in zip(hosts, found, strict=True) if text}

    def require_modes(self) -> None:
        """Nothing of the tool's on any host may be written by others; no secret may be read."""
        hosts = list(self.hosts.values())
        found = self.on(hosts, _LOOSE, check=False)
        loose = {h.name: text for h, text in zip(hosts, found, strict=True) if text}
        assert loose == {}

    def wipe(self) -> None:
        """What a session that was killed may have left. Only for the beginning and the end."""
        self.on(
            list(self.hosts.values()),
            f"""
            iptables -F
            ip6tables -F
            systemctl kill -s KILL etcd alluxio-worker 2>/dev/null || :
            systemctl stop etcd alluxio-worker 'alxp-test*' 2>/dev/null || :
            umount /opt /var/lib/etcd 2>/dev/null || :
            rm -rf {" ".join(OURS)} /run/alluxio-provision /root/*.aside
            [ ! -e /etc/machine-id.kept ] || mv /etc/machine-id.kept /etc/machine-id
            for user in plain op; do userdel -r $user 2>/dev/null || :; done
            rm -f /etc/sudoers.d/op
            systemctl daemon-reload
            systemctl reset-failed
            """,
        )


#: Those of now, whoever connected them.
CONNECTED: list[Lab] = []


@contextlib.contextmanager
def connected(names: Sequence[str], folder: Path) -> Iterator[Lab]:
    """The hosts of these names, which are up, wiped before and after."""
    addresses = ssh_hosts()
    with contextlib.ExitStack() as stack:
        # A socket's path may have 108 characters.
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alxp-")))
        hosts = [Host(name, addresses[name], sockets) for name in names]
        for host in hosts:
            host.connect()
            stack.callback(host.disconnect)
        lab = Lab(hosts, folder)
        lab.wipe()
        stack.callback(lab.wipe)
        CONNECTED.append(lab)
        stack.callback(CONNECTED.remove, lab)
        yield lab


#: The transient unit of a test's own processes on a host.
TEST_UNIT = "alxp-test.service"


@contextlib.contextmanager
def firewall(hosts: Sequence[Host], rule: str) -> Iterator[None]:
    """With a rule of iptables, its chain first, on each of ``hosts``."""
    with contextlib.ExitStack() as stack:
        for host in hosts:
            host.run(f"iptables -I {rule}")
            stack.callback(host.run, f"iptables -D {rule}")
        yield


@contextlib.contextmanager
def folder(host: Host, path: str) -> Iterator[None]:
    """The folder ``path``. Those that were made for it go afterwards, if they are empty."""
    made = host.run(
        f"""path={path}; made=
        while [ ! -e "$path" ]; do made="$made $path"; path=${{path%/*}}; done
        mkdir -p {path}; echo "$made" """
    ).strip()
    try:
        yield
    finally:
        if made:
            # The deepest first.
            host.run(f"rmdir {made} 2>/dev/null || :")


@contextlib.contextmanager
def small_disk(
    host: Host, path: str, mebibytes: int, used: int = 0, inodes: int = 0
) -> Iterator[None]:
    """A file system of its own at ``path``, which is not there without. ``inodes`` 0: half of the
    host's pages of memory (tmpfs(5))."""
    limit = f",nr_inodes={inodes}" if inodes else ""
    with folder(host, path):
        host.run(f"mount -t tmpfs -o size={mebibytes}m{limit} tmpfs {path}")
        try:
            if used:
                host.run(f"head -c {used}M /dev/zero >{path}/lost+found")
            yield
        finally:
            host.run(f"umount {path}")


def another_release(into: Path) -> Path:
    """A tarball of Alluxio 314 in the folder ``into``: the code of the one under test.

    Its libexec/version.sh and the names of its jars say 314, so its scripts find them.
    """
    tarball = into / "alluxio-314-bin.tar.gz"
    with (
        tarfile.open(RELEASE.tarball, "r:*") as old,
        tarfile.open(tarball, "w:gz", compresslevel=1) as new,
    ):
        for entry in old:
            content = old.extractfile(entry) if entry.isreg() else None
            _, _, path = entry.name.partition("/")
            if path == "libexec/version.sh":
                content = io.BytesIO(b"VERSION=314\n")
                entry.size = len(content.getvalue())
            if path.startswith("assembly/"):
                path = path.replace(f"-{RELEASE.version}.jar", "-314.jar")
            entry.name = "/".join(filter(None, ["alluxio-314", path]))
            new.addfile(entry, content)
    return tarball


def wait_until(true: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Poll; fails with ``what`` when it has not become so in time."""
    seconds *= RELEASE.patience
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.1)


def ssh_hosts() -> dict[str, str]:
    """Names and addresses in the lab's SSH configuration; none when there is no lab."""
    if not SSH_CONFIG.exists():
        return {}
    lines = re.findall(r"^Host (\S+) (\S+)$", SSH_CONFIG.read_text(), re.MULTILINE)
    return dict(lines)
