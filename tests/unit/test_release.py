"""Which release of Alluxio the integration tests install: the lab's double, or a named tarball."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from tests.integration import release


def tarball(folder: Path, version: str | None) -> Path:
    path = folder / "alluxio-bin.tar.gz"
    content = f"VERSION={version}\n".encode() if version else b"# nothing\n"
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo("alluxio-x/libexec/version.sh")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return path


def test_without_a_name_it_is_the_double() -> None:
    named = release.named({"ALXP_ALLUXIO": "", "ALXP_JDK": ""})  # as make exports them
    assert not named.real
    assert named.changes() == {}
    assert named.patience == 1


def test_a_real_one_has_the_version_that_it_says(tmp_path: Path) -> None:
    real, jdk = tarball(tmp_path, "312"), tmp_path / "jdk.tar.gz"
    jdk.write_bytes(b"jdk")
    named = release.named({"ALXP_ALLUXIO": str(real), "ALXP_JDK": str(jdk)})
    alluxio = named.changes()["alluxio"]
    assert (named.version, alluxio["version"]) == ("312", "312")
    assert alluxio["source"]["sha256"] == hashlib.sha256(real.read_bytes()).hexdigest()
    assert alluxio["java"]["source"]["path"] == str(jdk)
    assert alluxio["start_timeout"] == release.START_TIMEOUT
    assert named.patience > 1


def test_a_jdk_alone_changes_nothing_else(tmp_path: Path) -> None:
    jdk = tmp_path / "jdk.tar.gz"
    jdk.write_bytes(b"jdk")
    named = release.named({"ALXP_JDK": str(jdk)})
    assert set(named.changes()["alluxio"]) == {"java"}


@pytest.mark.parametrize(
    ("version", "why"), [(None, "has no VERSION"), ("314", "tests install another release")]
)
def test_what_cannot_be_under_test_is_refused(
    tmp_path: Path, version: str | None, why: str
) -> None:
    env = {"ALXP_ALLUXIO": str(tarball(tmp_path, version)), "ALXP_JDK": str(Path(__file__))}
    with pytest.raises(ValueError, match=why):
        release.named(env)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="there is no file /nowhere"):
        release.named({"ALXP_ALLUXIO": "/nowhere"})
