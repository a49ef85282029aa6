"""Many workers of the lab's release on few hosts, each killed, cut off and let back by itself.

Alluxio's real membership code in a process each, but not a host each: twenty more hosts want
more memory, sshds and inotify instances (Linux allows root 128 of these) than a test machine has
to spare, and show nothing more of a worker's states. Each worker has an address, an identity, a
folder and a Unix user of its own on its host, so that ``check-nodes`` sees a host for each, and
the firewall can part one of them from etcd.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdError

from ..integration.lab import CLUSTER, NET, SSH_CONFIG, Changes, Host, Lab
from .worker_judge import Keys

#: Of the first worker: last octet of its address, Unix user, port. The lab's hosts have lower ones.
FIRST = 100
FIRST_UID = 61000
FIRST_PORT = 31000
IDENTITY = "/var/lib/alluxio/worker_identity"
PREFIX = f"/ServiceDiscovery/{CLUSTER}/"
#: Seconds between two looks at the live keys, and that one may take.
KEYS_EVERY = 0.1
KEYS_TIMEOUT = 0.5


@dataclass(frozen=True)
class Worker:
    """One process. ``name`` is that of the inventory and of its systemd unit."""

    number: int
    host: Host

    @property
    def name(self) -> str:
        return f"w{self.number:02}"

    @property
    def unit(self) -> str:
        return f"alxp-fault-{self.name}.service"

    @property
    def address(self) -> str:
        return f"{NET}.{FIRST + self.number}"

    @property
    def port(self) -> int:
        """The first of three. The host's own worker has Alluxio's default ports."""
        return FIRST_PORT + 3 * self.number

    @property
    def uid(self) -> int:
        return FIRST_UID + self.number

    @property
    def uuid(self) -> str:
        return f"{self.number:08x}-0000-4000-8000-000000000000"

    @property
    def folder(self) -> str:
        return f"/run/alxp-fault/{self.name}"

    @property
    def rule(self) -> str:
        """Of iptables: nothing of this worker's reaches etcd."""
        return f"OUTPUT -p tcp --dport 2379 -m owner --uid-owner {self.uid} -j DROP"


class WorkerBed:
    """The workers, and who is to know them: an inventory, and a client that watches their keys.

    The hosts' own workers, which run, are in that inventory, too: nothing is done to them, so
    they must be LIVE all the time. ``declared`` is the inventory that they were started by.
    """

    def __init__(self, lab: Lab, count: int, folder: Path, declared: Changes) -> None:
        self.lab, self._declared = lab, declared
        self.controls = {host.name: f"worker-{host.read(IDENTITY)}" for host in lab.workers}
        self.workers = [Worker(n, lab.workers[n % len(lab.workers)]) for n in range(count)]
        self.by_name = {w.name: w for w in self.workers}
        self.inventory = self._inventory(folder)
        self.keys = Keys()
        self._over = threading.Event()

    def _inventory(self, folder: Path) -> Path:
        known = folder / "known_hosts"
        own = (SSH_CONFIG.parent / "known_hosts").read_text().splitlines()
        for w in self.workers:
            key = next(k for k in own if f",{w.host.name} " in k).split(" ", 1)[1]
            own.append(f"{w.address} {key}")
        known.write_text("\n".join(own) + "\n")
        declared: dict[str, object] = {
            w.name: {"host": w.address, "rpc_port": w.port} for w in self.workers
        }
        workers = {**self._declared, **declared}
        return self.lab.inventory(
            {"ssh": {"known_hosts": str(known)}, "alluxio": {"workers": workers}}
        )

    @property
    def everyone(self) -> frozenset[str]:
        return frozenset((*self.by_name, *self.controls))

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        """With all workers started, and their keys watched."""
        watching = threading.Thread(target=self._watch, name="keys")
        self.clean()  # what a run that was killed has left
        try:
            self._on_hosts(self.workers, _prepare)
            watching.start()
            self.start(self.workers)
            yield
        finally:
            self._over.set()
            if watching.is_alive():
                watching.join()
            self.clean()

    def clean(self) -> None:
        """Nothing of the workers is left: neither processes, rules, addresses nor folders."""
        for host in self.lab.workers:
            own = [w for w in self.workers if w.host is host]
            lines = ["systemctl kill -s KILL 'alxp-fault-*' 2>/dev/null || :"]
            lines += ["systemctl stop 'alxp-fault-*'", "systemctl reset-failed", "iptables -F"]
            lines += [f"ip addr del {w.address}/32 dev eth0 2>/dev/null || :" for w in own]
            host.run("\n".join([*lines, "rm -rf /run/alxp-fault"]))

    def start(self, workers: Sequence[Worker]) -> None:
        self._on_hosts(
            workers,
            lambda w: (
                f"systemctl reset-failed {w.unit} 2>/dev/null || :\n"
                # Not systemd's User=: that takes only users with a name.
                f"systemd-run -q --unit={w.unit} -E ALLUXIO_CONF_DIR={w.folder}/conf "
                f"-p SuccessExitStatus=143 -p WorkingDirectory={w.folder} "
                f"setpriv --reuid {w.uid} --regid {w.uid} --clear-groups "
                "/opt/alluxio/current/bin/launch-process-bash worker -c"
            ),
        )

    def kill(self, workers: Sequence[Worker]) -> None:
        self._on_hosts(workers, lambda w: f"systemctl kill -s KILL {w.unit}")

    def cut(self, workers: Sequence[Worker]) -> None:
        self._on_hosts(workers, lambda w: f"iptables -I {w.rule}")

    def heal(self, workers: Sequence[Worker]) -> None:
        self._on_hosts(workers, lambda w: f"iptables -D {w.rule}")

    def _on_hosts(self, workers: Sequence[Worker], line: Callable[[Worker], str]) -> None:
        for host in self.lab.workers:
            if own := [w for w in workers if w.host is host]:
                host.run("\n".join(map(line, own)), timeout=120)

    def kill_leader(self) -> str:
        """SIGKILL for etcd's leader, which systemd starts again. Returns its host's name."""
        for host in self.lab.etcd:
            with contextlib.suppress(EtcdError), self.lab.client(host) as client:
                if client.status().is_leader:
                    host.run("systemctl kill -s KILL etcd.service")
                    return host.name
        return "nobody"

    def live(self) -> frozenset[str]:
        """The workers that had a live key a moment ago."""
        return self.keys.alive[-1] if self.keys.alive else frozenset()

    def _watch(self) -> None:
        """The live keys, again and again, by whichever member serves reads."""
        names = {f"worker-{w.uuid}": w.name for w in self.workers}
        names.update({worker_id: name for name, worker_id in self.controls.items()})
        turn = 0
        while not self._over.is_set():
            host = self.lab.etcd[turn % len(self.lab.etcd)]
            turn += 1
            with contextlib.suppress(EtcdError), self.lab.client(host) as client:
                client.timeout = KEYS_TIMEOUT
                while not self._over.wait(KEYS_EVERY):
                    self.keys.add(time.monotonic(), self._names(client, names))

    def _names(self, client: EtcdClient, names: dict[str, str]) -> list[str]:
        _, found = client.range(PREFIX)
        ids = [kv.key.decode().removeprefix(PREFIX) for kv in found if kv.lease]
        return [names[i] for i in ids if i in names]


def _prepare(w: Worker) -> str:
    """A shell script: the address, and a configuration like the host's own but for who it is."""
    own = {
        "alluxio.worker.hostname": w.address,
        "alluxio.worker.rpc.port": w.port,
        "alluxio.worker.data.port": w.port + 1,
        "alluxio.worker.web.port": w.port + 2,
        "alluxio.worker.http.server.enabled": "false",
        "alluxio.worker.identity.uuid.file.path": f"{w.folder}/identity",
        "alluxio.worker.page.store.dirs": f"{w.folder}/pages",
        "alluxio.work.dir": w.folder,
        "alluxio.dora.worker.metastore.rocksdb.dir": f"{w.folder}/metastore",
    }
    lines = "\n".join(f"{key}={value}" for key, value in own.items())
    expressions = " ".join(f"-e '/^{key}=/d'" for key in own)
    # The compiler and the collector that twenty JVMs on two cores get by with.
    light = "-Xmx64m -XX:MaxDirectMemorySize=32m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
    return f"""\
ip addr replace {w.address}/32 dev eth0
mkdir -p {w.folder}/conf {w.folder}/pages {w.folder}/logs
cp /opt/alluxio/current/conf/log4j.properties {w.folder}/conf
sed {expressions} /opt/alluxio/current/conf/alluxio-site.properties \\
  >{w.folder}/conf/alluxio-site.properties
cat >>{w.folder}/conf/alluxio-site.properties <<'@@end'
{lines}
@@end
cat /opt/alluxio/current/conf/alluxio-env.sh >{w.folder}/conf/alluxio-env.sh
echo 'ALLUXIO_LOGS_DIR={w.folder}/logs' >>{w.folder}/conf/alluxio-env.sh
echo 'ALLUXIO_WORKER_JAVA_OPTS="{light}"' >>{w.folder}/conf/alluxio-env.sh
echo {w.uuid} >{w.folder}/identity
chown -R {w.uid}:{w.uid} {w.folder}
"""
