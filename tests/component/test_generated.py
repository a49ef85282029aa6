"""Inventories that the model accepts: systemd reads the units of each, and etcd starts with it.

The inventories are made from boundary paths, ports and settings, by a number: the same ones at
every run. The quick part is a few; ``make generated`` tries 200. A real etcd starts with the
configuration as the tool writes it. It has a network of its own, so it gets the declared addresses
and ports. Only folders are others: they are below the test's own. systemd-analyze reads the units;
it starts none.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from provision.alluxio.worker import desired as worker
from provision.alluxio.worker.desired import Artifacts
from provision.etcd.member import desired, layout
from provision.etcd.pki import certificates, own_ca
from provision.host.resources import File, Resource
from provision.inventory.resolved import EtcdCluster, Inventory
from provision.plans.alluxio import masters
from tests.component.conftest import SERVES_WITHIN
from tests.generated import RESERVE, accepted, drawn
from tests.unit import hosts

#: How many inventories are tried.
COUNT = int(os.environ.get("ALXP_GENERATED", "6"))


def units(inventory: Inventory) -> dict[str, str]:
    """The units of each role's host, by a folder and a name."""
    cluster, tarball = inventory.etcd, hosts.TARBALL
    roles: dict[str, Iterable[Resource]] = {
        m.name: desired.resources(cluster, m, tarball, None, None) for m in cluster.members
    }
    if (alluxio := inventory.alluxio) is not None:
        given = Artifacts(tarball, None, hosts.RELEASE)
        roles |= {w.name: worker.resources(alluxio, w, given, None) for w in alluxio.workers}
        roles |= {m.name: masters.resources(alluxio, m, given, None) for m in alluxio.masters}
    return {
        f"{role}/{r.path.rpartition('/')[2]}": (r.content or b"").decode()
        for role, resources in roles.items()
        for r in resources
        if isinstance(r, File) and r.path.startswith("/etc/systemd/system/")
    }


def systemd_says(inventory: Inventory, folder: Path) -> str:
    """Empty when systemd reads every unit without a word."""
    told = ""
    for name, text in units(inventory).items():
        path = folder / "units" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # The releases are not on this machine.
        path.write_text(
            re.sub(r"(?m)^(Exec\w+=[-+!:@]*)/(?!bin/|usr/bin/)\S+", r"\1/bin/true", text)
        )
    for of_role in (folder / "units").iterdir():
        command = ["systemd-analyze", "verify", "--man=no", *map(str, of_role.iterdir())]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        told += done.stdout + done.stderr + (f"exit code {done.returncode}" * bool(done.returncode))
    return told


def etcd_says(inventory: Inventory, binary: Path, folder: Path) -> str:
    """Empty when every member of the cluster is ready, else what one says."""
    cluster = inventory.etcd
    lines = [
        "ip link set lo up",
        RESERVE,
        "mount --make-rprivate /",
        f"mount --bind {folder}/hosts /etc/hosts",
    ]
    names = ["127.0.0.1 localhost"]
    logs: list[Path] = []
    starts: list[str] = []
    for number, m in enumerate(cluster.members, 1):
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(m.address)
            at = f"{address}/{address.max_prefixlen} dev lo"
            lines.append(f"ip addr add {at}" + " nodad" * (address.version == 6))
        names.append(f"127.0.1.{number} {m.address}")
        root = folder / m.name
        for path in (m.data_dir, layout.pki_dir(cluster)):
            Path(f"{root}{path}").mkdir(parents=True, mode=0o700)
        _certificates(inventory, cluster, m.name, folder, root)
        resources = desired.resources(cluster, m, hosts.TARBALL, None, None)
        (config,) = [
            r.content
            for r in resources
            if isinstance(r, File) and r.path == layout.config_file(cluster)
        ]
        text = (config or b"").decode()
        for path in (m.data_dir, cluster.config_dir):
            text = text.replace(f'"{path}', f'"{root}{path}')
        (root / "etcd.conf.yml").write_text(text)
        logs.append(root / "log")
        command = shlex.join([str(binary), "--config-file", str(root / "etcd.conf.yml")])
        starts.append(f"{command} >{shlex.quote(str(logs[-1]))} 2>&1 &")
        logs[-1].touch()
    (folder / "hosts").write_text("\n".join(names) + "\n")
    script = "set -e\n" + "\n".join([*lines, *starts, "wait"])
    namespaces = ["unshare", "-m", "-n", "-p", "-f", "--kill-child"]
    process = subprocess.Popen([*namespaces, "sh", "-c", script], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + SERVES_WITHIN
        while time.monotonic() < deadline:
            said = [log.read_text(errors="replace") for log in logs]
            if all("ready to serve client requests" in text for text in said):
                return ""
            fatal = next(
                (t for t in said if re.search(r'"level":"(fatal|panic)"|Unable|error verif', t)), ""
            )
            if fatal or process.poll() is not None:
                _, errors = process.communicate() if process.poll() is not None else (b"", b"")
                return (fatal or said[0])[-1500:] + errors.decode()
            time.sleep(0.05)
        return "not ready in time: " + "\n".join(text[-800:] for text in said)
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def _certificates(
    inventory: Inventory, cluster: EtcdCluster, name: str, folder: Path, root: Path
) -> None:
    authority = own_ca.ensure_ca(folder / "ca", inventory.cluster)
    ca = own_ca.ca_file(folder / "ca", inventory.cluster).read_bytes()
    Path(f"{root}{layout.ca_file(cluster)}").write_bytes(ca)
    # On one machine, a connection may come from the address of any member.
    names = [*(m.address for m in cluster.members), "127.0.0.1", "::1", "localhost"]
    pair = certificates.leaf(authority, name, names, days=20)
    for kind in ("peer", "server"):
        path = f"{root}{layout.certificate(cluster, kind)}"
        Path(f"{path}.crt").write_bytes(pair.cert_pem)
        Path(f"{path}.key").write_bytes(pair.key_pem)


def test_systemd_and_etcd_take_what_the_model_accepts(
    older_binary: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("a network of its own needs root")
    if shutil.which("systemd-analyze") is None or shutil.which("ip") is None:
        pytest.skip("there is no systemd-analyze or no ip here")
    # etcd waits for its disk at each write, and a memory has none. Where there is no such folder,
    # the test only takes longer.
    memory = Path("/dev/shm")
    base = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    request.addfinalizer(lambda: shutil.rmtree(base, ignore_errors=True))
    etcd = older_binary("3.6")  # as the inventories say
    refused: list[str] = []
    done = number = clusters = 0
    while done < COUNT:
        folder = base / str(number)
        inventory = accepted(drawn(number), folder)
        if inventory is not None:
            done += 1
            clusters += len(inventory.etcd.members) > 1
            told = systemd_says(inventory, folder) or etcd_says(inventory, etcd, folder)
            if told:
                refused.append(f"number {number}: {told}")
        shutil.rmtree(folder)
        number += 1
        if COUNT > 20 and done % 20 == 0:
            with capsys.disabled():
                print(f"{done} of {number}, {len(refused)} refused", flush=True)
    with capsys.disabled():
        print(f"\n{done} of {number} inventories accepted, {clusters} with three members")
    assert not refused, "\n\n".join(refused)
