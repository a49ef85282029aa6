"""What can be known beforehand stops deploy-etcd before it changes anything, on any host."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from provision.cli.explain import page

from .lab import NET, SSH, TEST_UNIT, Changes, Host, Lab, firewall, folder, small_disk

pytestmark = pytest.mark.usefixtures("clean")

#: An address of the lab's network that no host has.
NOBODY = f"{NET}.250"


@contextmanager
def listener(host: Host, port: int) -> Iterator[None]:
    """A process of somebody else's that listens on ``port``."""
    # ReuseAddr: connections of the test before may still be in TIME_WAIT there.
    options = f"Listen => 5, LocalPort => {port}, ReuseAddr => 1"
    perl = f"@s = (IO::Socket::INET->new({options}) || die); sleep 600"
    try:
        host.run(
            f"""systemd-run -q --collect --unit={TEST_UNIT} perl -MIO::Socket::INET -e '{perl}'
            until ss -Htln 'sport = :{port}' | grep -q .; do sleep 0.05; done""",
            timeout=10,
        )
        yield
    finally:
        host.run(f"systemctl stop {TEST_UNIT} 2>/dev/null || :")


@contextmanager
def file(host: Host, path: str, content: str) -> Iterator[None]:
    """A file of somebody else's, or other content of one that is there."""
    with folder(host, path.rpartition("/")[0]):
        host.run(f"[ ! -e {path} ] || cp -p {path} {path}.kept")
        host.run(f"cat >{path} <<'END'\n{content}\nEND")
        try:
            yield
        finally:
            host.run(f"rm {path}; [ ! -e {path}.kept ] || mv {path}.kept {path}")


@contextmanager
def foreign_unit(host: Host, content: str) -> Iterator[None]:
    """An etcd.service of somebody else's, which runs."""
    with file(host, UNIT_PATH, content):
        host.run("systemctl daemon-reload; systemctl start etcd")
        try:
            yield
        finally:
            host.run("systemctl stop etcd")
    host.run("systemctl daemon-reload")


@contextmanager
def login_without_sudo(host: Host) -> Iterator[None]:
    host.run(
        """useradd -m plain
        install -d -m 700 -o plain -g plain ~plain/.ssh
        install -m 600 -o plain -g plain ~vagrant/.ssh/authorized_keys ~plain/.ssh/"""
    )
    try:
        yield
    finally:
        host.run("userdel -r plain 2>/dev/null")


@contextmanager
def read_only(host: Host, path: str) -> Iterator[None]:
    """A share that root cannot write to: so is NFS with root_squash."""
    with folder(host, path):
        host.run(f"mount -t tmpfs -o ro tmpfs {path}")
        try:
            yield
        finally:
            host.run(f"umount {path}")


@dataclass(frozen=True)
class Case:
    """A thing that is wrong with etcd1: its host, or what the inventory says of it."""

    says: str
    damage: Callable[[Host], AbstractContextManager[None]] | None = None
    etcd: Changes = field(default_factory=dict)
    member: Changes = field(default_factory=dict)

    @property
    def changes(self) -> dict[str, Any]:
        return {"etcd": {**self.etcd, "members": {"etcd1": self.member}}}


UNIT_PATH = "/etc/systemd/system/etcd.service"
DROP_IN = f"{UNIT_PATH}.d/override.conf"
FOREIGN = "[Service]\nExecStart=/bin/sleep 600\n"
OTHER = f"{FOREIGN}[Unit]\nX-Alluxio-Provision-Cluster=Other"
CASES = {
    "a wrong sha256": Case("but the inventory says 0000", etcd={"source": {"sha256": "0" * 64}}),
    "nobody there": Case(f"{NET}.250 (", member={"host": NOBODY, "ssh": {"connect_timeout": 1.5}}),
    "no sudo": Case(
        "no root: sudo asks for", login_without_sudo, member={"ssh": {"user": "plain"}}
    ),
    "no login": Case("login refused", member={"ssh": {"user": "nobody"}}),
    "the client port taken": Case(
        "port 2379 is taken by perl (pid ", lambda host: listener(host, 2379)
    ),
    "the peer port taken": Case(
        "port 2380 is taken by perl (pid ", lambda host: listener(host, 2380)
    ),
    "no room for the release": Case(
        "/opt/etcd has 8.4 MB free on tmpfs", lambda host: small_disk(host, "/opt", 8)
    ),
    "the data's disk full": Case(
        "the disk of /var/lib/etcd (tmpfs) is 94 % full",
        lambda host: small_disk(host, "/var/lib/etcd", 64, used=60),
    ),
    "a share for backups that root cannot write to": Case(
        "root cannot write in /srv/share/etcd, and it is to be made or changed",
        lambda host: read_only(host, "/srv/share"),
        etcd={"backup": {"dir": "/srv/share/etcd", "keep": 2}},
    ),
    "an etcd of someone else's": Case(
        "an etcd that this tool did not install runs there (/etc/systemd/system/etcd.service)",
        lambda host: foreign_unit(host, FOREIGN),
    ),
    "a member of another cluster": Case(
        "already a member of cluster Other", lambda host: foreign_unit(host, OTHER)
    ),
    "a drop-in of an earlier installation": Case(
        f"{DROP_IN} makes etcd.service run another command than this tool's",
        lambda host: file(host, DROP_IN, "[Service]\nExecStart=\nExecStart=/bin/sleep 600"),
    ),
    "data of someone else's": Case(
        "/var/lib/etcd holds data of an etcd that this tool did not install",
        lambda host: file(host, "/var/lib/etcd/member/wal", ""),
    ),
    "the peer port cut off": Case(
        f"cannot reach etcd1 at {NET}.12:2380: no answer in 3 s",
        lambda host: firewall([host], f"INPUT -s {NET}.13 -p tcp --dport 2380 -j DROP"),
    ),
    "another address": Case(
        f"address {NET}.99 is on no interface of the host", member={"address": f"{NET}.99"}
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_said_and_nothing_is_changed(lab: Lab, name: str) -> None:
    case = CASES[name]
    with case.damage(lab.hosts["etcd1"]) if case.damage else ExitStack():
        before = lab.snapshot()
        failed = lab.invoke("deploy-etcd", lab.inventory(case.changes))
        failed.expect(3, case.says, "nothing was changed")
        assert lab.snapshot() == before


@contextmanager
def masked(host: Host) -> Iterator[None]:
    host.run("systemctl -q mask etcd.service")
    try:
        yield
    finally:
        host.run("systemctl -q unmask etcd.service")


#: Trouble that is mended on the host by what its page says, as root.
BY_HAND: dict[str, tuple[str, Callable[[Host], AbstractContextManager[None]]]] = {
    "an etcd of someone else's": (
        "foreign-installation",
        lambda host: foreign_unit(host, FOREIGN),
    ),
    "a drop-in of an earlier installation": (
        "unit-overridden",
        lambda host: file(host, DROP_IN, "[Service]\nExecStart=\nExecStart=/bin/sleep 600"),
    ),
    "a masked unit": ("unit-masked", masked),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_remedy_by_hand(lab: Lab, name: str) -> None:
    id, damage = BY_HAND[name]
    host = lab.hosts["etcd1"]
    with damage(host):
        if id == "foreign-installation":
            host.run("mkdir -p /var/lib/etcd/member/wal; touch /var/lib/etcd/member/wal/theirs")
        try:
            lab.invoke("deploy-etcd", None, "--dry-run").expect(3, f"[{id}]", "nothing was changed")
            host.run("\n".join(by_hand(id)))
            lab.invoke("deploy-etcd", None, "--dry-run").expect(0, "nothing was changed")
            if id == "foreign-installation":
                assert host.run("ls /var/lib/etcd.old/member/wal") == "theirs"
        finally:
            host.run("rm -rf /var/lib/etcd /var/lib/etcd.old")
            if id == "unit-overridden":  # as it was, for what takes it away
                host.run(f"mkdir -p $(dirname {DROP_IN}); touch {DROP_IN}")


def by_hand(id: str) -> list[str]:
    """The commands of an id's page that change something on a host."""
    section = page(id).text.partition("## What to do")[2].partition("## What was")[0]
    commands = re.findall(r"^\$ (.*)$", section, re.MULTILINE)
    return [c for c in commands if not c.startswith(("invoke ", "systemctl cat "))]


def test_a_port_that_a_connection_may_get_is_said_until_it_is_reserved(lab: Lab) -> None:
    host, settings = lab.hosts["etcd1"], "/proc/sys/net/ipv4"
    before = host.read(f"{settings}/ip_local_port_range")
    host.run(f"echo 1024 65535 >{settings}/ip_local_port_range")
    host.run(f"echo 2379 >{settings}/ip_local_reserved_ports")
    try:
        told = lab.invoke("deploy-etcd", None, "--dry-run").expect(0, "while one has 2380, the")
        assert told.text.count("the kernel gives ports 1024 to 65535 to connections") == 1
        (remedy,) = re.findall(r"sysctl (net\S+=[0-9,]+);", told.text)
        host.run(f"echo {remedy.partition('=')[2]} >{settings}/ip_local_reserved_ports")
        told = lab.invoke("deploy-etcd", None, "--dry-run").expect(0, "nothing was changed")
        assert "connections" not in told.text
        assert host.read(f"{settings}/ip_local_reserved_ports") == "2379-2380"
    finally:
        host.run(f"echo {before} >{settings}/ip_local_port_range")
        host.run(f"echo >{settings}/ip_local_reserved_ports")


def test_a_cloned_machine_id_is_said(lab: Lab) -> None:
    etcd0, etcd1, _ = lab.etcd
    with file(etcd1, "/etc/machine-id", etcd0.read("/etc/machine-id")):
        before = lab.snapshot()
        failed = lab.invoke("deploy-etcd")
        failed.expect(3, f"{NET}.12 (", f"{NET}.11 has the same", "machine-id")
        assert lab.snapshot() == before


def test_several_hosts_failures_are_listed_together(lab: Lab) -> None:
    etcd0, etcd1, _ = lab.etcd
    wrong = {
        "source": {"sha256": "0" * 64},
        "members": {"etcd2": {"host": NOBODY, "ssh": {"connect_timeout": 1.5}}},
    }
    with listener(etcd0, 2380), small_disk(etcd1, "/opt", 8), file(etcd1, UNIT_PATH, OTHER):
        failed = lab.invoke("deploy-etcd", lab.inventory({"etcd": wrong}))
    failed.expect(3, "preflight failed; nothing was changed")
    failed.expect(3, "but the inventory says 0000", f"{NOBODY} (")
    failed.expect(3, f"etcd0 at {NET}.11", "port 2380 is taken")
    failed.expect(3, f"etcd1 at {NET}.12", "already a member of cluster Other")
    assert len(re.findall("^  - ", failed.stderr, re.MULTILINE)) == 4


def _known_hosts(lab: Lab, change: Callable[[str], str], folder: Path) -> Path:
    """An inventory whose known_hosts has the line of etcd1 as ``change`` makes it."""
    lines = (SSH / "known_hosts").read_text().splitlines()
    path = folder / "known_hosts"
    path.write_text("".join(f"{change(x) if ',etcd1 ' in x else x}\n" for x in lines))
    return lab.inventory({"ssh": {"known_hosts": str(path)}})


def test_a_host_with_another_key_is_not_talked_to(lab: Lab, tmp_path: Path) -> None:
    other = lab.etcd[0].read("/etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    inventory = _known_hosts(lab, lambda line: line.rsplit(" ", 1)[0] + f" {other}", tmp_path)
    before = lab.snapshot()
    failed = lab.invoke("deploy-etcd", inventory)
    failed.expect(3, f"{NET}.12 (", "the host key differs from the one in known_hosts")
    assert lab.snapshot() == before


def test_a_host_of_unknown_key_is_not_talked_to(lab: Lab, tmp_path: Path) -> None:
    inventory = _known_hosts(lab, lambda _: "", tmp_path)
    before = lab.snapshot()
    lab.invoke("deploy-etcd", inventory).expect(3, "the host key is not in known_hosts")
    assert lab.snapshot() == before


@pytest.mark.parametrize("task", ["deploy-etcd", "start-workers", "check-nodes", "destroy"])
def test_with_a_bad_inventory_no_host_is_contacted(lab: Lab, task: str) -> None:
    bad = {"etcd": {"data_dri": "/data", "members": {"etcd1": {"host": f"{NET}.11"}}}}
    before = lab.sessions()
    refused = lab.invoke(task, lab.inventory(bad))
    refused.expect(2, "unknown key 'data_dri'", "did you mean 'data_dir'?", f"{NET}.11")
    assert lab.sessions() == before
