"""systemd starts etcd and a worker from the units and files of inventories that the model accepts.

The inventories are those of ``tests/generated.py``: first each boundary path, port, name and
setting, then as many by a number as ALXP_GENERATED says (``make generated``: 200). Each is made
true on two hosts of the lab by the tool's own changes, but for the releases, which stay. Then etcd
takes a key, the backup's unit saves a snapshot, the worker registers and uses every page store, and
a second look finds nothing to change. After a stop the data must still be there.

The declared addresses are on the host's loopback. A heap of 64 GB fits no host of the lab, and the
lab's Alluxio has no S3 and no master: these alone are others.
"""

from __future__ import annotations

import copy
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from provision import artifacts
from provision.alluxio.worker import desired as worker
from provision.alluxio.worker import tarball
from provision.alluxio.worker.desired import Artifacts
from provision.artifacts import Artifact
from provision.engine.plan import HostChanges, Plan, Step, apply
from provision.errors import ProvisionError
from provision.etcd.member import desired, layout
from provision.etcd.member.desired import Leaf, MemberTls
from provision.etcd.pki import certificates, own_ca
from provision.host.diff import Resource, changes
from provision.host.facts import HostFacts
from provision.host.gather import require_facts
from provision.host.resources import Directory, File, User
from provision.inventory.resolved import AlluxioWorker, EtcdMember, Inventory, Machine
from provision.inventory.system_folders import SYSTEM_DIRS
from provision.ssh.session import Fleet
from tests import generated

from .lab import RELEASE, SSH, Host, Lab

pytestmark = pytest.mark.usefixtures("clean")

#: How many inventories are tried beside those with the boundary values.
COUNT = int(os.environ.get("ALXP_GENERATED", "2"))
#: The member's addresses in these inventories. Its name is in /etc/hosts, with the host's address.
ADDRESSES = ("10.1.0.1/32", "fd00::1/128")
NAME = "infra1.example.com"
#: Waits until no connection of an earlier test has a port of these inventories.
FREE = " ".join(
    (
        "for n in $(seq 80); do ss -Htan state connected",
        f"'( {' or '.join(f'sport = {port}' for port in generated.RPC_PORTS)} )'",
        "| grep -q . || exit 0; sleep 1; done; exit 1",
    )
)


@pytest.fixture(scope="module")
def releases(lab: Lab) -> tuple[Artifact, Artifacts]:
    """etcd's tarball, and Alluxio's with its Java."""
    etcd, alluxio, jdk = (
        Artifact(path, artifacts.digest(path), path.stat().st_size)
        for path in (Path(lab.source()["path"]), RELEASE.tarball, RELEASE.jdk)
    )
    contents = tarball.contents(alluxio, artifacts.default_cache())
    return etcd, Artifacts(alluxio, jdk, contents)


@pytest.fixture(scope="module")
def addresses(lab: Lab, clean: None) -> Iterator[None]:
    """etcd0 has the addresses of every member, and worker0 a way to them."""
    member, other = lab.etcd[0], lab.workers[0]
    v4, v6 = ADDRESSES
    member.run(f"ip addr replace {v4} dev lo; ip -6 addr replace {v6} dev lo nodad")
    other.run(f"ip route replace {v4} via {member.address}")
    lab.on([member, other], f"echo '{member.address} {NAME}' >>/etc/hosts")
    for host in (member, other):
        host.run(f"{generated.RESERVE}\n{FREE}", timeout=90)
    yield
    lab.on([member, other], "echo >/proc/sys/net/ipv4/ip_local_reserved_ports")
    lab.on([member, other], f"sed '/ {NAME}$/d' /etc/hosts >/tmp/h; cat /tmp/h >/etc/hosts")
    lab.on([member, other], "rm /tmp/h; rm -rf /opt/etcd /opt/alluxio /opt/java")
    other.run(f"ip route del {v4}")
    member.run(f"ip addr del {v4} dev lo; ip -6 addr del {v6} dev lo")


def until(command: str, otherwise: str) -> str:
    """A script that waits for ``command``, at most 30 s."""
    return f"""for n in $(seq 150); do {command} && exit 0; sleep 0.2; done
echo "{otherwise}" >&2; exit 1"""


def for_the_lab(given: dict[str, Any], lab: Lab) -> dict[str, Any]:
    """An inventory whose hosts are those of the lab, and whose worker they can bear."""
    given = copy.deepcopy(given)
    login = {"key": str(SSH / "id_ed25519"), "known_hosts": str(SSH / "known_hosts")}
    given["ssh"] = {"user": "vagrant", **login}
    given["etcd"]["members"]["infra0"]["host"] = lab.etcd[0].address
    if (alluxio := given.get("alluxio")) is not None:
        hosts = {f"w{n}": {"host": h.address} for n, h in enumerate(lab.workers, 1)}
        alluxio |= {"workers": hosts, "failure_detection_timeout": 5}
        alluxio |= {"version": RELEASE.version, "heap": "96m", "direct_memory": "32m"}
        alluxio |= RELEASE.changes().get("alluxio", {})
        alluxio.pop("source"), alluxio.pop("java", None)
        alluxio["source"] = {"path": "alluxio.tar.gz", "sha256": "0" * 64}
        alluxio["properties"] = {"alluxio.dora.client.ufs.root": "/srv"}
        for master in alluxio.get("masters", {}).values():
            # Beside the worker, or elsewhere.
            master["host"] = lab.workers[0 if master["host"] == "w1" else 1].address
    return given


class Trial:
    """One inventory on the lab's hosts."""

    def __init__(self, lab: Lab, inventory: Inventory, folder: Path) -> None:
        self.inventory, self.folder = inventory, folder
        self.host, self.other = lab.etcd[0], lab.workers[0]
        (self.member,) = inventory.etcd.members
        #: What was declared on each host.
        self.declared: dict[Host, list[Resource]] = {}

    def etcd(self, fleet: Fleet, release: Artifact) -> None:
        cluster, member, tls = self.inventory.etcd, self.member, self._tls()

        def wanted(facts: HostFacts, again: bool) -> Sequence[Resource]:
            known = tls and MemberTls(
                tls.name, tls.authority, tls.peer and Leaf(), tls.server and Leaf()
            )
            return desired.resources(cluster, member, release, known if again else tls, facts)

        probe = desired.probe(cluster, member, release)
        self._true(fleet, self.host, member, wanted, probe)
        tool = f"{cluster.install_dir}/current/etcdctl"
        flags = f"--endpoints={member.client_url} --dial-timeout=5s"
        if member.client_tls:
            pki = layout.pki_dir(cluster)
            flags += f" --cacert={pki}/ca.crt --cert={pki}/server.crt --key={pki}/server.key"
        self.etcdctl = f"{tool} {flags}"
        self.host.run(f"{self.etcdctl} put alxp-tried yes; {self.etcdctl} endpoint health 2>&1")
        if cluster.backup is not None:
            self.host.run("systemctl start etcd-backup.service")
            self.host.run(f"ls {cluster.backup.dir}/*.db && systemctl is-active etcd-backup.timer")

    def worker(self, fleet: Fleet, release: Artifacts) -> None:
        alluxio = self.inventory.alluxio
        assert alluxio is not None
        found = alluxio.workers[0]

        def wanted(facts: HostFacts, again: bool) -> Sequence[Resource]:
            return worker.resources(alluxio, found, release, facts)

        probe = worker.probe(alluxio, found, release)
        self._true(fleet, self.other, found, wanted, probe)
        live = f"{self.etcdctl} get --keys-only --prefix /ServiceDiscovery/{alluxio.name}/"
        self.host.run(until(f"{live} | grep -q .", "the worker does not register"))
        for path in found.page_store.dirs:
            self.other.run(until(f"[ -d {path}/LOCAL ]", f"no page store in {path}"))
        port = f"ss -Htln sport = :{found.rpc_port} | grep -q ."
        self.other.run(until(port, f"nobody listens on {found.rpc_port}"))
        self.other.run("systemctl is-active alluxio-worker.service")

    def stop(self) -> None:
        """What systemd stops ends well, and leaves its data."""
        alluxio = self.inventory.alluxio
        if alluxio is not None:
            self.other.run("systemctl stop alluxio-worker.service")
            assert self.other.show(worker.UNIT, "Result") == {"Result": "success"}
            for path in alluxio.workers[0].page_store.dirs:
                self.other.run(f"[ -d {path}/LOCAL ]")
            self.other.run(f"[ -s {worker.identity_file(alluxio)} ]")
        self.host.run("systemctl stop etcd-backup.timer etcd.service 2>&1 || systemctl stop etcd")
        assert self.host.show(layout.UNIT, "Result") == {"Result": "success"}
        self.host.run(f"[ -s {self.member.data_dir}/member/snap/db ]")

    def logs(self) -> str:
        """What the units' own journals say last."""
        units = (layout.UNIT, "etcd-backup.service", worker.UNIT)
        script = "\n".join(
            f"journalctl -q -u {u} -n 12 -o cat --no-pager | cut -c -300" for u in units
        )
        return "\n".join(host.run(script, check=False) for host in self.declared)

    def remove(self) -> None:
        """All but the releases: they are the same for every inventory."""
        for host, resources in self.declared.items():
            folders = [r.path for r in resources if isinstance(r, Directory)]
            files = [r.path for r in resources if isinstance(r, File)]
            users = [r.name for r in resources if isinstance(r, User)]
            gone = [p for p in (*files, *folders) if not p.startswith("/opt/alluxio")]
            paths = shlex.join(gone)
            # Never the system's own, as /srv. The deepest first.
            above = {str(parent) for path in gone for parent in PurePosixPath(path).parents}
            parents = shlex.join(sorted(above - SYSTEM_DIRS - {"/"}, key=len, reverse=True))
            host.run(
                f"systemctl stop etcd-backup.timer etcd-backup.service etcd alluxio-worker || :\n"
                f"systemctl disable -q etcd-backup.timer etcd alluxio-worker || :\n"
                f"rm -rf {paths}; rmdir {parents} 2>/dev/null || :\n"
                + "".join(f"userdel -f {user} || :\n" for user in users)
                + "rm -rf /var/log/alluxio-provision /run/alluxio-provision\n"
                "systemctl daemon-reload; systemctl reset-failed",
            )

    def _true(
        self,
        fleet: Fleet,
        host: Host,
        role: EtcdMember | AlluxioWorker,
        wanted: Callable[[HostFacts, bool], Sequence[Resource]],
        probe: Any,
    ) -> None:
        """Make it true, and see that it is."""
        machine: Machine = role.machine
        for again in (False, True):
            facts = require_facts(fleet, {machine: probe})[machine]
            resources = list(wanted(facts, again))
            self.declared[host] = resources
            todo = changes(resources, facts)
            if again:
                assert [change.what for change in todo] == []
            else:
                step = Step("start", (HostChanges(role.name, machine, todo),))
                apply(Plan("test", self.inventory.cluster, (step,)), fleet)

    def _tls(self) -> MemberTls | None:
        member = self.member
        if not desired.kinds(member):
            return None
        authority = own_ca.ensure_ca(self.folder / "ca", self.inventory.cluster)
        ca = own_ca.ca_file(self.folder / "ca", self.inventory.cluster).read_bytes()

        def sign(csr: bytes) -> bytes:
            return certificates.sign_csr(authority, csr, member.name, desired.sans(member))

        leaf = Leaf("there is none", sign)
        return MemberTls(
            member.name, ca, leaf if member.peer_tls else None, leaf if member.client_tls else None
        )


def inventories() -> Iterator[tuple[str, dict[str, Any]]]:
    for number, given in enumerate(generated.boundaries()):
        yield f"boundaries {number}", given
    number = 0
    while True:
        yield f"number {number}", generated.drawn(number, 1)
        number += 1


def test_systemd_starts_what_the_model_accepts(
    lab: Lab,
    releases: tuple[Artifact, Artifacts],
    addresses: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    etcd, alluxio = releases
    refused: list[str] = []
    done = workers = drawn = 0
    for name, given in inventories():
        if drawn == COUNT and name.startswith("number"):
            break
        folder = tmp_path / name.replace(" ", "-")
        inventory = generated.accepted(for_the_lab(given, lab), folder)
        if inventory is None:
            continue
        drawn += name.startswith("number")
        done += 1
        began = time.monotonic()
        trial = Trial(lab, inventory, folder)
        try:
            with Fleet(2, changes=True) as fleet:
                trial.etcd(fleet, etcd)
                if inventory.alluxio is not None:
                    workers += 1
                    trial.worker(fleet, alluxio)
            trial.stop()
        except (ProvisionError, AssertionError, subprocess.TimeoutExpired) as error:
            problems = [p.what for p in getattr(error, "problems", ())]
            refused.append("\n".join([f"{name}: {error}", *problems, trial.logs()]))
        finally:
            trial.remove()
        with capsys.disabled():
            print(f"{name}: {time.monotonic() - began:.1f} s, {len(refused)} refused", flush=True)
    with capsys.disabled():
        print(f"\n{done} inventories started by systemd, {workers} with a worker")
    assert not refused, "\n\n".join(refused)
