"""Folders that others use, and tarballs that hold what they should not: nobody loses anything."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from .lab import Changes, Lab

pytestmark = pytest.mark.usefixtures("clean")

FOLDER = "/srv/alxp-test"


def test_a_folder_that_another_service_uses(lab: Lab) -> None:
    """/data of another service as etcd's data folder, on one host of three."""
    host, *_ = lab.etcd
    on = lab.inventory({"etcd": {"data_dir": f"{FOLDER}/data"}})
    state = f"stat -c '%U %G %a' {FOLDER}/data {FOLDER}/data/postgres"
    host.run(
        f"""mkdir -p {FOLDER}/data/postgres {FOLDER}/data/lost+found
        chown games:games {FOLDER}/data/postgres
        chmod 1775 {FOLDER}/data"""
    )
    try:
        before = lab.snapshot()
        owners = host.run(state)
        refused = lab.invoke("deploy-etcd", on)
        refused.expect(3, f"{FOLDER}/data belongs to root and is used by games", "[folder-in-use]")
        assert "folder-in-use" not in refused.text.replace("[folder-in-use]", "", 1)
        assert host.run(state) == owners
        assert lab.snapshot() == before
        lab.invoke("deploy-etcd", on, "--take-over", "/srv").expect(2, "--take-over names /srv")
        done = lab.invoke("deploy-etcd", on, "--take-over", f"{FOLDER}/data")
        done.expect(0, "it is taken over for etcd")
        assert host.run(state).splitlines()[0] == "etcd etcd 700"
        lab.invoke("deploy-etcd", on).expect(0, "0 changed")
        gone = lab.invoke("destroy", on, "--yes-delete", lab.name)
        gone.expect(0, f"give {FOLDER}/data back to the owner before: 0:0 1775")
        assert host.run(state) == owners
        assert host.run("ls /var/lib/alluxio-provision 2>/dev/null || :") == ""
        assert lab.left_over() == {}
    finally:
        lab.on(list(lab.hosts.values()), f"rm -rf {FOLDER}")


def test_a_disk_with_nothing_on_it_is_no_ones(lab: Lab) -> None:
    """A mount point of root's with lost+found, and folders that root made: as operators do it."""
    worker, *_ = lab.workers
    on = lab.inventory(
        {
            "alluxio": {
                "state_dir": f"{FOLDER}/state",
                "page_store": {"dirs": [f"{FOLDER}/state/ssd/pages"], "sizes": ["64MB"]},
            }
        }
    )
    worker.run(f"mkdir -p {FOLDER}/state/ssd/pages/lost+found")
    try:
        lab.invoke("deploy-etcd", on).expect(0)
        lab.invoke("start-workers", on).expect(0)
        lab.invoke("start-workers", on).expect(0, "0 changed")
        assert worker.run(f"stat -c %U {FOLDER}/state/ssd/pages") == "alluxio"
        lab.invoke("destroy", on, "--yes-delete", lab.name).expect(0)
        assert worker.run(f"stat -c '%U %a' {FOLDER}/state/ssd/pages") == "root 755"
    finally:
        lab.on(list(lab.hosts.values()), f"rm -rf {FOLDER}")


def repacked(lab: Lab, into: Path, flaw: tarfile.TarInfo | None, etcd: bytes = b"") -> Changes:
    """etcd's own tarball with one more entry, or with another program as its etcd."""
    source = Path(lab.source()["path"])
    path = into / source.name
    with tarfile.open(source) as old, tarfile.open(path, "w:gz") as new:
        for entry in old:
            file = old.extractfile(entry) if entry.isfile() else None
            entry.name = f"./{entry.name}"
            if etcd and entry.name.endswith("/etcd"):
                entry.size, file = len(etcd), io.BytesIO(etcd)
            entry.mode |= 0o6002
            new.addfile(entry, file)
        if flaw is not None:
            flaw.name = f"{entry.name.rpartition('/')[0]}/{flaw.name}"
            new.addfile(flaw)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"etcd": {"source": {"path": str(path), "sha256": digest}}}


def test_a_tarball_with_the_right_sha256(lab: Lab, tmp_path: Path) -> None:
    """Over a running cluster: a link with the name of the tool's own mark, then an etcd that does
    not start, then the real one with setuid bits, files for all to write, and ``./`` before it."""
    lab.invoke("deploy-etcd").expect(0)
    pids = lab.on(lab.etcd, "systemctl show -P MainPID etcd")
    mark = tarfile.TarInfo(".artifact.sha256")
    mark.type, mark.linkname = tarfile.SYMTYPE, "../../../etc/alxp-test"
    bad = lab.inventory(repacked(lab, tmp_path, mark))
    refused = lab.invoke("deploy-etcd", bad)
    refused.expect(3, "a name of this tool's own files", "[tarball-unfit]")
    assert lab.on(lab.etcd, "ls /etc/alxp-test 2>/dev/null || :") == ["", "", ""]
    broken = lab.inventory(repacked(lab, tmp_path, None, b"#!/bin/sh\nexit 3\n"))
    lab.invoke("deploy-etcd", broken).expect(4, "does not answer as user etcd")
    assert lab.on(lab.etcd, "systemctl show -P MainPID etcd") == pids
    lab.invoke("deploy-etcd").expect(0, "0 changed")
    good = lab.inventory(repacked(lab, tmp_path, None))
    lab.invoke("deploy-etcd", good).expect(0)
    assert lab.on(lab.etcd, "find /opt/etcd -perm /6022 ! -type l") == ["", "", ""]
    assert lab.on(lab.etcd, "systemctl show -P MainPID etcd") != pids
    lab.destroy()
