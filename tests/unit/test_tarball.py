"""What is read out of a tarball before a host sees it, and kept."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from provision import artifacts, tar_reader
from provision.alluxio.worker import desired, tarball
from provision.alluxio.worker.desired import Artifacts
from provision.alluxio.worker.tarball import LAUNCHERS, Contents
from provision.artifacts import Artifact
from provision.host.facts import HostFacts
from provision.host.predict import after
from provision.host.resources import File
from provision.inventory.model import Java
from provision.plans.alluxio import worker_preflight
from tests.unit import builders, hosts
from tests.unit.hosts import TARBALL, text

#: The check of the releases 300 to 313, word for word.
CHECK = """\
JAVA_MAJORMINOR=$(echo "${JAVA_VERSION}" | awk -F. '{printf("%03d%03d",$1,$2);}')
JAVA_MAJOR=$(echo "${JAVA_VERSION}" | awk -F. '{printf("%03d",$1);}')
if [[ ${JAVA_MAJORMINOR} != 001008 && ${JAVA_MAJOR} != 011 ]]; then
  echo "Error: Alluxio requires Java 8 or Java 11, currently Java $JAVA_VERSION found."
"""
RELEASE = {
    "bin/alluxio": "#!/bin/bash\n",
    "bin/launch-process-bash": "#!/bin/bash\n",
    "conf/masters": "localhost\n",
    "libexec/alluxio-config.sh": CHECK,
    "libexec/version.sh": "VERSION=313\n",
}


def packed(folder: Path, files: Mapping[str, str], top: str = "alluxio-313/") -> Artifact:
    path = folder / "some.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{top}{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
    body = path.read_bytes()
    return Artifact(path, hashlib.sha256(body).hexdigest(), len(body))


def said(artifact: Artifact, declared: str = "313") -> list[str]:
    found = tarball.problems(artifact, tarball.read(artifact.path), declared)
    return [problem.what for problem in found]


def test_a_release_says_all_of_itself(tmp_path: Path) -> None:
    found = tarball.read(packed(tmp_path, RELEASE).path)
    assert (found.launcher, found.version, found.java) == (
        "bin/launch-process-bash",
        "313",
        (8, 11),
    )
    assert tarball.problems(packed(tmp_path, RELEASE), found, "313") == []


def test_an_older_release_has_the_older_launcher(tmp_path: Path) -> None:
    files = {**RELEASE, "bin/launch-process": "", "libexec/version.sh": 'export VERSION="303"\n'}
    del files["bin/launch-process-bash"]
    artifact = packed(tmp_path, files)
    assert tarball.read(artifact.path).launcher == "bin/launch-process"
    assert said(artifact, "303") == []


def test_of_two_launchers_the_newer_is_taken() -> None:
    assert Contents(found=tuple(sorted(LAUNCHERS))).launcher == "bin/launch-process-bash"


@pytest.mark.parametrize(
    ("files", "declared", "what"),
    [
        (
            {},
            "313",
            "is not an Alluxio release: it has no bin/launch-process-bash and no bin/alluxio",
        ),
        ({"etcd": "", "etcdctl": ""}, "313", "holds etcd, not Alluxio"),
        ({"bin/java": "", "release": 'JAVA_VERSION="11.0.2"'}, "313", "holds a JDK, not Alluxio"),
        (RELEASE, "314", "holds Alluxio 313, but alluxio.version is 314"),
        (RELEASE, "31", "holds Alluxio 313, but alluxio.version is 31"),
        (
            {name: text for name, text in RELEASE.items() if name != "bin/launch-process-bash"},
            "313",
            "it holds Alluxio's client or FUSE part only",
        ),
        (
            {**RELEASE, "libexec/version.sh": "VERSION=2.9.3\n"},
            "2.9.3",
            "holds Alluxio 2.9.3: its workers do not register in etcd",
        ),
        (
            {
                "bin/alluxio": "",
                "bin/launch-process": "",
                "conf/masters": "",
                "libexec/alluxio-config.sh": "VERSION=2.9.3\n" + CHECK,
            },
            "2.9.3",
            "holds Alluxio 2.9.3: its workers do not register in etcd",
        ),
        (
            {name: text for name, text in RELEASE.items() if name != "conf/masters"},
            "313",
            "it has no conf",
        ),
    ],
)
def test_another_tarball_is_one_line(
    files: Mapping[str, str], declared: str, what: str, tmp_path: Path
) -> None:
    (problem,) = said(packed(tmp_path, files), declared)
    assert what in problem


def test_a_flat_one_is_refused_and_a_dot_before_the_top_folder_is_not(tmp_path: Path) -> None:
    (problem,) = said(packed(tmp_path, RELEASE, ""))
    assert "has 3 top folders, not one: bin, conf, libexec" in problem
    assert said(packed(tmp_path, RELEASE, "./alluxio-313/")) == []


@pytest.mark.parametrize("declared", ["313-hotfix1", "313", "trial"])
def test_a_build_of_its_own_and_a_name_are_let_be(declared: str, tmp_path: Path) -> None:
    assert said(packed(tmp_path, RELEASE), declared) == []


@pytest.mark.parametrize("content", [b"", b"not a tarball", b"\x1f\x8b\x08\x00broken"])
def test_what_is_no_tarball(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.tar.gz"
    path.write_bytes(content)
    (problem,) = said(Artifact(path, "0" * 64, len(content)))
    assert problem.startswith("is not a complete .tar.gz")


def test_one_that_is_cut_short(tmp_path: Path) -> None:
    artifact = packed(tmp_path, {"lib/big.jar": "x" * (1 << 20), **RELEASE})
    artifact.path.write_bytes(artifact.path.read_bytes()[:600])
    (problem,) = said(artifact)
    assert problem.startswith("is not a complete .tar.gz")


@pytest.mark.parametrize(
    ("script", "java"),
    [
        (CHECK, (8, 11)),
        ('[[ ${JAVA_MAJORMINOR} != "001008" ]]', (8,)),
        ("[[ $JAVA_MAJOR != 017 && ${JAVA_MAJOR} != 021 ]]", (17, 21)),
        ("case $java_version in 1.8.*) ;; esac", ()),
        ("", ()),
    ],
)
def test_the_java_that_a_release_accepts(script: str, java: tuple[int, ...]) -> None:
    assert tarball.accepted_java(script) == java


def test_it_is_read_once(tmp_path: Path) -> None:
    artifact, cache = packed(tmp_path, RELEASE), tmp_path / "cache"
    first = tarball.contents(artifact, cache)
    assert not cache.exists()
    kept = remembered(artifact, cache)
    assert kept.stat().st_size < 2000
    artifact.path.unlink()
    assert tarball.contents(artifact, cache) == first


def remembered(artifact: Artifact, cache: Path) -> Path:
    """The file that is kept after a host has got the tarball."""
    _, seen = tar_reader.read(artifact.path)
    artifacts.remember(replace(artifact, seen=seen), cache)
    (kept,) = (cache / "contents").iterdir()
    return kept


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"format": 1}', '{"format": 0}', "\x00"])
def test_what_is_kept_and_broken_is_read_again(broken: str, tmp_path: Path) -> None:
    artifact, cache = packed(tmp_path, RELEASE), tmp_path / "cache"
    first, kept = tarball.contents(artifact, cache), remembered(artifact, cache)
    kept.write_text(broken)
    assert tarball.contents(artifact, cache) == first
    remembered(artifact, cache)
    assert json.loads(kept.read_text())["texts"]["libexec/version.sh"] == "VERSION=313\n"


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    artifact = packed(tmp_path, RELEASE)
    _, seen = tar_reader.read(artifact.path)
    artifacts.remember(replace(artifact, seen=seen), tmp_path / "cache")
    assert tarball.contents(artifact, tmp_path / "cache").version == "313"


def test_one_that_is_gone_is_a_problem_and_not_kept(tmp_path: Path) -> None:
    gone = Artifact(tmp_path / "gone.tar.gz", "0" * 64, 0)
    found = tarball.contents(gone, tmp_path)
    assert tarball.problems(gone, found, "313")[0].what == "No such file or directory"
    assert not (tmp_path / "contents").exists()


class TestOnHosts:
    """A rollback goes to a release whose tarball may be nowhere but on the hosts."""

    alluxio = builders.alluxio()
    worker = alluxio.workers[0]
    artifacts = Artifacts(TARBALL, None)

    def _facts(self, launcher: str) -> HostFacts:
        there = hosts.facts()
        return replace(there, paths={f"/opt/alluxio/313/{launcher}": text("", 0o755)})

    @pytest.mark.parametrize("launcher", LAUNCHERS)
    def test_the_launcher_is_the_hosts(self, launcher: str) -> None:
        facts = self._facts(launcher)
        resources = desired.resources(self.alluxio, self.worker, self.artifacts, facts)
        units = [r for r in resources if isinstance(r, File) and r.path == desired.UNIT_PATH]
        assert f"ExecStart=/opt/alluxio/313/{launcher} worker -c\n".encode() in (
            units[0].content or b""
        )
        assert (
            worker_preflight.release(self.alluxio, self.artifacts, {self.worker.machine: facts})
            == []
        )

    def test_it_is_looked_for(self) -> None:
        probe = desired.probe(self.alluxio, self.worker, self.artifacts)
        assert set(tarball.launchers("/opt/alluxio/313")) <= set(probe.paths)

    def test_without_one_nothing_begins(self) -> None:
        facts = {self.worker.machine: hosts.facts()}
        (problem,) = worker_preflight.release(self.alluxio, self.artifacts, facts)
        assert "release 313 has no /opt/alluxio/313/bin/launch-process-bash or" in problem.what


def test_a_java_that_the_tarball_refuses() -> None:
    alluxio = builders.alluxio(java=Java(versions=[17]))
    worker = alluxio.workers[0]
    facts = hosts.facts(commands={"java": 'openjdk version "17.0.1"'})
    release = Contents(hosts.RELEASE.found, conf=True, java=(8, 11))
    found = worker_preflight.workers(
        alluxio, [worker], Artifacts(TARBALL, None, release), {worker.machine: facts}
    )
    assert [p.what for p in found] == [
        "Java is 17, but the tarball's own check accepts only 8 or 11"
    ]
    there = after([], facts)
    without = Artifacts(TARBALL, None, hosts.RELEASE)
    assert worker_preflight.workers(alluxio, [worker], without, {worker.machine: there}) == []
