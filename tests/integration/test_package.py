"""etcd from the distribution's package, by an apt repository on the host's own disk."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .lab import TEST_UNIT, Host, Lab

#: Debian 12's.
VERSION = "3.4.23"
REPOSITORY = "/srv/alxp-test"
SOURCES = "/etc/apt/sources.list.d/alxp-test.list"

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """etcd's packages, from where this machine's apt has them."""
    folder = tmp_path_factory.mktemp("packages")
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download"]
    subprocess.run([*command, "etcd-server", "etcd-client"], cwd=folder, check=True)
    found = sorted(folder.glob(f"etcd-*_{VERSION}-*.deb"))
    if len(found) != 2:
        pytest.skip(f"this machine's apt has no etcd {VERSION}")
    return found


@contextmanager
def repository(host: Host, packages: list[Path]) -> Iterator[None]:
    """A repository of ``packages`` that the host's apt knows. What was installed of it goes."""
    index = []
    for deb in packages:
        content = deb.read_bytes()
        host.put(f"{REPOSITORY}/{deb.name}", content)
        fields = subprocess.run(["dpkg-deb", "-f", deb], capture_output=True, check=True).stdout
        digest = hashlib.sha256(content).hexdigest()
        index.append(
            f"{fields.decode()}Filename: ./{deb.name}\nSize: {len(content)}\nSHA256: {digest}\n"
        )
    host.put(f"{REPOSITORY}/Packages", "\n".join(index).encode())
    host.put(SOURCES, f"deb [trusted=yes] file:{REPOSITORY} ./\n".encode())
    try:
        # The box's own sources cannot be reached from here.
        host.run(f"apt-get -qq update -o Dir::Etc::sourcelist={SOURCES} -o Dir::Etc::sourceparts=-")
        yield
    finally:
        host.run(
            f"""apt-get -qq -y purge etcd-server etcd-client >/dev/null 2>&1
            rm -r {SOURCES} {REPOSITORY} /var/lib/apt/lists/*{Path(REPOSITORY).name}*
            rm -rf /var/lib/etcd"""
        )


#: perl's F_SETLK of a whole file, as dpkg takes it: struct flock of 64-bit Linux.
_LOCK = (
    'use Fcntl; open(F, ">>", "/var/lib/dpkg/lock-frontend"); '
    '$lock = pack("s s x4 q q i x4", F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $lock) || die; '
    'open(D, ">", "/run/alxp-test-locked"); sleep 6'
)
#: needrestart has such a hook, and then restarts services whose libraries are old.
_HOOK = 'DPkg::Post-Invoke {"env >/run/alxp-test-hook"; };'


@contextmanager
def upgrades_of_its_own(host: Host) -> Iterator[None]:
    """unattended-upgrades is at work: as on a host that has just booted, for some seconds."""
    hook = "/etc/apt/apt.conf.d/99alxp-test"
    host.put("/run/alxp-test-lock", _LOCK.encode())
    host.put(hook, _HOOK.encode())
    try:
        host.run(
            f"""systemd-run -q --collect --unit={TEST_UNIT} perl /run/alxp-test-lock
            until [ -e /run/alxp-test-locked ]; do sleep 0.05; done""",
            timeout=10,
        )
        yield
    finally:
        host.run(f"systemctl stop {TEST_UNIT} 2>/dev/null || :; rm -f /run/alxp-test-* {hook}")


def test_a_member_of_the_package_runs_and_the_packages_own_instance_does_not(
    lab: Lab, packages: list[Path]
) -> None:
    host = lab.etcd[0]
    source = {"package": True, "path": None, "sha256": None}
    members = {"etcd1": None, "etcd2": None}
    inventory = lab.inventory(
        {"etcd": {"version": VERSION, "source": source, "members": members}, "alluxio": None}
    )
    with repository(host, packages):
        with upgrades_of_its_own(host):
            deployed = lab.invoke("deploy-etcd", inventory)
            deployed.expect(0, "install package etcd-server etcd-client", "endpoints: http://")
            assert "NEEDRESTART_SUSPEND=1" in host.read("/run/alxp-test-hook").splitlines()
        with lab.client(host) as client:
            client.quorum_write("test")
            assert client.status().version == VERSION
        assert host.run(f"readlink /proc/{host.main_pid('etcd')}/exe") == "/usr/bin/etcd"
        assert host.run("pgrep -c -x etcd") == "1"
        # Where the package's own instance has its data.
        host.run("[ ! -e /var/lib/etcd/default ]; [ ! -e /usr/sbin/policy-rc.d ]")
        before = lab.snapshot()
        lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")
        assert lab.snapshot() == before
        lab.invoke("destroy", inventory, "--yes-delete", lab.name).expect(0)


def test_the_packages_own_instance_is_someone_elses(lab: Lab, packages: list[Path]) -> None:
    host = lab.etcd[2]
    with repository(host, packages):
        # A user etcd may be there from before; then the package does not make its home.
        host.run(
            """id etcd >/dev/null 2>&1 && install -d -o etcd -g etcd /var/lib/etcd
            DEBIAN_FRONTEND=noninteractive apt-get -qq -y install etcd-server >/dev/null"""
        )
        assert host.show("etcd", "ActiveState") == {"ActiveState": "active"}
        before = lab.snapshot()
        refused = lab.invoke("deploy-etcd")
        refused.expect(3, f"etcd2 at {host.address}", "an etcd that this tool did not install runs")
        refused.expect(3, "port 2379 is taken by etcd (pid ")
        assert lab.snapshot() == before
