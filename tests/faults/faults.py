"""The faults: each is put on the lab's hosts by real means, and taken away again."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdError
from provision.etcd.api.values import Endpoint

from ..integration.lab import Host, Running

PREFIX = os.environ.get("ALXP_LAB_PREFIX", "alxp")
#: Seconds. An election takes one or two; sshd and TCP bear the short loss without a word.
PARTITIONED = 8
SSH_LOST_SHORTLY = 8
#: Longer than the tool waits for a silent connection, and than a host keeps a silent run's lock.
SSH_LOST_LONG = 50
#: What is done to packets to the leader's host. The second is for kernels without netem.
SLOW = (
    "netem delay 80ms 20ms loss 0.5%",
    "tbf rate 4mbit burst 16kbit latency 300ms",
)


@dataclass(frozen=True)
class Fault:
    """A fault, and how it is put in place once the run is at a step.

    ``inject`` returns on whom it fell. ``whole``: it is there from before the run to after it;
    ``lasting``: from the step on to after it.
    """

    name: str
    what: str
    inject: Callable[[Scene], str]
    whole: bool = False
    lasting: bool = False


@dataclass
class Scene:
    """Who is there: the members' ``hosts``, and the run."""

    hosts: Sequence[Host]
    running: Running | None = None
    #: The title of the step that has begun.
    step: str = ""

    def subject(self) -> Host:
        """The host that the step is about; the last one when it is about all."""
        return next((h for h in self.hosts if h.name in self.step), self.hosts[-1])

    def leader(self) -> Host | None:
        for host in self.hosts:
            with (
                contextlib.suppress(EtcdError),
                EtcdClient(Endpoint(host.address, 2379), timeout=0.5) as client,
            ):
                if client.status().is_leader:
                    return host
        return None

    def follower(self) -> Host | None:
        """The last follower that answers."""
        for host in reversed(self.hosts):
            with (
                contextlib.suppress(EtcdError),
                EtcdClient(Endpoint(host.address, 2379), timeout=0.5) as client,
            ):
                if not client.status().is_leader:
                    return host
        return None


def _kill(host: Host | None) -> str:
    if host is None:
        return "nobody"
    host.run("systemctl kill -s KILL etcd.service 2>/dev/null || :")
    return host.name


def kill_leader(scene: Scene) -> str:
    return _kill(scene.leader() or scene.hosts[0])


def kill_follower(scene: Scene) -> str:
    return _kill(scene.follower() or scene.hosts[-1])


def kill_control(scene: Scene) -> str:
    assert scene.running is not None
    scene.running.kill()
    return "the control process"


def partition_leader(scene: Scene) -> str:
    host = scene.leader()
    if host is None:
        return "nobody"
    _for_a_while(host, "-p tcp -m multiport --ports 2380 -j DROP", PARTITIONED)
    return host.name


def cut_off(scene: Scene) -> str:
    host = scene.subject()
    _for_a_while(host, "-p tcp -m multiport --ports 2380 -j DROP", SSH_LOST_LONG)
    return host.name


def lose_ssh(scene: Scene) -> str:
    host = scene.subject()
    _for_a_while(host, "-p tcp --dport 22 -j DROP", SSH_LOST_LONG, chains=("INPUT",))
    return host.name


def lose_ssh_shortly(scene: Scene) -> str:
    host = scene.subject()
    _for_a_while(host, "-p tcp --dport 22 -j DROP", SSH_LOST_SHORTLY, chains=("INPUT",))
    return host.name


def fill_disk(scene: Scene) -> str:
    """The data disk of the last host: a small one, that was mounted there before."""
    host = scene.hosts[-1]
    host.run(
        "mountpoint -q /var/lib/etcd\n"  # never the disk of the machine itself
        "dd if=/dev/zero of=/var/lib/etcd/filler bs=64k 2>/dev/null || :"
    )
    return host.name


def slow_link(scene: Scene) -> str:
    host = scene.leader() or scene.hosts[0]
    for how in SLOW:
        command = ["tc", "qdisc", "replace", "dev", f"{PREFIX}-{host.name}", "root", *how.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return f"{host.name}: {how}"
    raise AssertionError(f"no slow link here: {done.stderr}")


def heal(hosts: Sequence[Host]) -> None:
    """Take away whatever is there of any fault. A host whose SSH is cut off heals by itself."""
    for host in hosts:
        subprocess.run(
            ["tc", "qdisc", "del", "dev", f"{PREFIX}-{host.name}", "root"],
            check=False,
            capture_output=True,
        )
        host.run("rm -f /var/lib/etcd/filler; iptables -F", timeout=SSH_LOST_LONG + 30)


def _for_a_while(
    host: Host, rule: str, seconds: int, chains: Sequence[str] = ("INPUT", "OUTPUT")
) -> None:
    """A rule of the firewall that ends by itself, for it may be us who are shut out."""
    on = "; ".join(f"iptables -I {chain} {rule}" for chain in chains)
    off = "; ".join(f"iptables -D {chain} {rule} 2>/dev/null" for chain in chains)
    # Our own connection gets its answer before the rule is there.
    host.run(f"setsid sh -c 'sleep 0.1; {on}; sleep {seconds}; {off}' </dev/null >/dev/null 2>&1 &")


@contextlib.contextmanager
def small_data_disk(host: Host, mebibytes: int = 400) -> Iterator[None]:
    """The host's data directory on a disk of its own, there before etcd is."""
    host.run(f"mkdir -p /var/lib/etcd; mount -t tmpfs -o size={mebibytes}m tmpfs /var/lib/etcd")
    try:
        yield
    finally:
        host.run(
            "systemctl kill -s KILL etcd 2>/dev/null || :; systemctl stop etcd 2>/dev/null || :\n"
            "umount /var/lib/etcd"
        )


NONE = Fault("none", "no fault", lambda scene: "nobody", whole=True)
FAULTS = {
    fault.name: fault
    for fault in (
        NONE,
        Fault("kill-leader", "SIGKILL of the leader's etcd", kill_leader),
        Fault("kill-follower", "SIGKILL of a follower's etcd", kill_follower),
        Fault("kill-control", "SIGKILL of the control process", kill_control),
        Fault(
            "partition",
            f"the leader cut off from the other members for {PARTITIONED} s",
            partition_leader,
        ),
        Fault(
            "cut-off",
            "a new member hears nothing of the others as it starts",
            cut_off,
            lasting=True,
        ),
        Fault("ssh-short", f"no SSH to one host for {SSH_LOST_SHORTLY} s", lose_ssh_shortly),
        Fault("ssh-long", f"no SSH to one host for {SSH_LOST_LONG} s", lose_ssh, lasting=True),
        Fault("full-disk", "the data disk of one member fills up", fill_disk, lasting=True),
        Fault("slow-link", "the link to the leader's host is slow", slow_link, whole=True),
    )
}
