"""The tarballs that init-inventory and import-ansible are given."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from provision.cli.tarballs import Given, read
from provision.errors import UsageError
from provision.inventory import loader
from tests.unit.test_program_in_use import run

ETCD, ALLUXIO, JDK = "etcd-v3.5.35-linux-amd64.tar.gz", "alluxio-310-bin.tar.gz", "jdk.tgz"
FILES: Mapping[str, Mapping[str, str]] = {
    ETCD: {"e/etcd": "", "e/etcdctl": "", "e/etcdutl": ""},
    ALLUXIO: {
        "a/bin/alluxio": "",
        "a/bin/launch-process-bash": "",
        "a/libexec/alluxio-config.sh": "",
        "a/libexec/version.sh": "VERSION=310-hotfix1\n",
        "a/conf/x": "",
    },
    JDK: {"j/bin/java": "", "j/release": 'JAVA_VERSION="11.0.13"\n'},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a tarball of each kind."""
    monkeypatch.chdir(tmp_path)
    for name, files in FILES.items():
        pack(tmp_path / name, files)
    return tmp_path


def pack(path: Path, files: Mapping[str, str]) -> None:
    with gzip.open(path, "wb") as plain, tarfile.open(fileobj=plain, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.process
def test_the_inventory_needs_no_edit(folder: Path) -> None:
    (folder / "SHA256SUMS").write_text(f"{digest(folder / ETCD)}  {ETCD}\n")
    options = ("--etcd-tarball", ETCD, "--alluxio-tarball", ALLUXIO, "--java", JDK)
    lists = ("--etcd", "a,b,c", "--workers", "w[1-2]", "--ufs", "s3://b/p")
    done = run("alluxio-provision", "init-inventory", *lists, *options, cwd=folder)
    assert done.stdout.splitlines() == [
        f"etcd 3.5.35: {ETCD}, sha256 {digest(folder / ETCD)}, as in SHA256SUMS",
        f"Alluxio 310-hotfix1: {ALLUXIO}, sha256 {digest(folder / ALLUXIO)}, computed here: "
        "compare it with its publisher's",
        f"JDK 11: {JDK}, sha256 {digest(folder / JDK)}, computed here: compare it with its "
        "publisher's",
        "wrote inventory/inventory.yml: 3 members, 2 workers; nothing is left to edit; next: "
        "alluxio-provision trust-hosts",
    ]
    found = loader.read(folder / "inventory" / "inventory.yml").inventory
    assert found.etcd.source is not None
    assert found.etcd.source.path == folder / ETCD
    assert found.alluxio is not None
    assert (found.alluxio.version, found.alluxio.source.path) == ("310-hotfix1", folder / ALLUXIO)
    again = ("b.yml", *lists, *options, "--format", "json")
    printed = run("alluxio-provision", "init-inventory", *again, cwd=folder).stdout
    document = json.loads(printed)
    assert document["to_edit"] is False
    assert document["tarballs"][0] == {
        "path": ETCD,
        "version": "3.5.35",
        "sha256": digest(folder / ETCD),
        "listed": "SHA256SUMS",
    }


@pytest.mark.process
def test_from_ansible(folder: Path) -> None:
    (folder / "hosts").write_text("[etcd]\na\nb\nc\n[workers]\nw1\n")
    options = ("--etcd-tarball", ETCD, "--alluxio-tarball", ALLUXIO, "--ufs", "s3://b/p")
    done = run("alluxio-provision", "import-ansible", "hosts", *options, "--ask-sudo", cwd=folder)
    assert done.stdout.endswith("nothing is left to edit; next: alluxio-provision trust-hosts\n")
    text = (folder / "inventory" / "inventory.yml").read_text()
    assert "EDIT" not in text
    assert "\nssh: {sudo_password: {ask: true}}\n" in text
    (folder / "hosts").write_text("[etcd]\na\nb\nc\n")
    none = ("hosts", "--to", "x.yml", "--ufs", "s3://b/p")
    done = run("alluxio-provision", "import-ansible", *none, cwd=folder)
    assert done.returncode == 2
    assert "--ufs: there are no workers (name the workers' hosts, too)" in done.stderr


def test_paths(folder: Path) -> None:
    """Relative where both are below the current folder, so that the folder can be moved."""
    for to, path in (
        ("inventory.yml", ETCD),
        ("a/b/inventory.yml", f"../../{ETCD}"),
        ("/etc/x/inventory.yml", str(folder / ETCD)),
    ):
        parts, _ = read(Given(Path(to), etcd=ETCD))
        assert parts.etcd is not None
        assert parts.etcd.path == path


def test_a_file_that_is_not_what_its_publisher_made(folder: Path) -> None:
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  {ETCD}\n")
    with pytest.raises(UsageError) as caught:
        read(Given(Path("x"), etcd=ETCD))
    assert caught.value.id == "checksum-mismatch"
    (folder / "SHA256SUMS").write_text(f"none  {ETCD}\n")
    with pytest.raises(UsageError, match="no inventory was written") as caught:
        read(Given(Path("x"), etcd=ETCD))
    assert "has no sha256" in caught.value.problems[0].line


def test_every_problem_at_once(folder: Path) -> None:
    (folder / "cut.tar.gz").write_bytes((folder / ALLUXIO).read_bytes()[:-40])
    with pytest.raises(UsageError, match="no inventory was written") as caught:
        read(Given(Path("x"), etcd=JDK, alluxio="none.tar.gz", java="jdk"))
    said = [problem.line for problem in caught.value.problems]
    assert [problem.id for problem in caught.value.problems] == [
        "tarball-unfit",
        "tarball-unavailable",
        "option-invalid",
    ]
    assert said[0].startswith("jdk.tgz: is not an etcd release")
    assert said[1].startswith("--alluxio-tarball: none.tar.gz cannot be read: No such file")
    assert said[2].startswith("--java: 'jdk' is no JDK's tarball, and no path on the hosts")
    for given in (
        Given(Path("x"), alluxio="cut.tar.gz"),
        Given(Path("x"), alluxio=ETCD),
        Given(Path("x"), java=ALLUXIO),
        Given(Path("x"), java="."),
    ):
        with pytest.raises(UsageError):
            read(given)


def test_a_name_that_does_not_say_the_release(folder: Path) -> None:
    (folder / ETCD).rename(folder / "etcd.tar.gz")
    with pytest.raises(UsageError) as caught:
        read(Given(Path("x"), etcd="etcd.tar.gz"))
    (problem,) = caught.value.problems
    assert "the name etcd.tar.gz does not say the release" in problem.line
