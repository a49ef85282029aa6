"""The tarballs that ``init-inventory`` and ``import-ansible`` are given, read on this machine.

Each is read once: its sha256, and whether it is what the option says. Then the inventory needs no
edit for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from provision import artifacts, tar_reader
from provision.alluxio.worker import tarball as alluxio_tarball
from provision.artifacts import Artifact
from provision.dataclass import dataclass
from provision.errors import PreflightFailed, Problem, UsageError
from provision.etcd.member import tarball as etcd_tarball
from provision.inventory.parts import Parts, Tarball

if TYPE_CHECKING:
    from provision.cli.documents import TarballDocument

SUMS = "SHA256SUMS"
_ETCD = re.compile(r"etcd-v?(\d+\.\d+\.\d+[A-Za-z0-9.+-]*?)-linux-\w+\.tar\.gz")
_ALLUXIO = re.compile(r"alluxio-(?:enterprise-)?([0-9][A-Za-z0-9.+-]*?)(?:-bin)?\.tar\.gz")
_JDK = re.compile(r".+\.(tar\.gz|tgz)")


@dataclass(frozen=True, slots=True)
class Given:
    """What the options say; "" is what they leave out. ``to`` is the inventory to write."""

    to: Path
    etcd: str = ""
    alluxio: str = ""
    java: str = ""
    ufs: str = ""
    cluster: str = ""
    kubernetes: bool = False
    ask_sudo: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """A tarball that was read. ``listed``: the SHA256SUMS file that has its sha256, or None."""

    label: str
    path: Path
    tarball: Tarball
    listed: Path | None

    @property
    def line(self) -> str:
        found = f"{self.label}: {self.path.name}, sha256 {self.tarball.sha256}"
        if self.listed is not None:
            return f"{found}, as in {self.listed}"
        return f"{found}, computed here: compare it with its publisher's"

    def document(self) -> TarballDocument:
        listed = None if self.listed is None else str(self.listed)
        return {
            "path": str(self.path),
            "version": self.tarball.version,
            "sha256": self.tarball.sha256,
            "listed": listed,
        }


def read(given: Given) -> tuple[Parts, Sequence[Read]]:
    """The parts of the inventory, and what was read for them.

    Raises :class:`UsageError` with every tarball that cannot be what its option says.
    """
    problems: list[Problem] = []
    found: list[Read] = []

    def one(text: str, option: str, label: str, check: _Check) -> Tarball | None:
        if not text:
            return None
        try:
            seen = _look(Path(text).expanduser(), option, label, given.to, check, problems)
        except OSError as error:
            what = f"{text} cannot be read: {error.strerror or error}"
            problems.append(Problem(option, what, "check the path", id="tarball-unavailable"))
            return None
        except PreflightFailed as error:  # its SHA256SUMS
            problems.extend(error.problems)
            return None
        found.extend([seen] if seen else [])
        return seen.tarball if seen else None

    etcd = one(given.etcd, "--etcd-tarball", "etcd", _etcd)
    alluxio = one(given.alluxio, "--alluxio-tarball", "Alluxio", _alluxio)
    java: Tarball | str = given.java
    if _JDK.fullmatch(given.java):
        java = one(given.java, "--java", "JDK", _jdk) or ""
    elif given.java and not given.java.startswith("/"):
        what = f"{given.java!r} is no JDK's tarball, and no path on the hosts"
        remedy = "give a .tar.gz of this machine, or the hosts' JAVA_HOME from / on"
        problems.append(Problem("--java", what, remedy, id="option-invalid"))
    if problems:
        ids = {problem.id for problem in problems}
        id = problems[0].id if len(ids) == 1 else "option-invalid"
        raise UsageError("no inventory was written", problems, id=id)
    said = (given.ufs, given.kubernetes, given.ask_sudo)
    return Parts(given.cluster, etcd, alluxio, java, *said), found


#: The release in a tarball; "" for one that is not named. With what is wrong with it.
_Check = Callable[[Artifact], tuple[str, Sequence[Problem]]]


def _etcd(artifact: Artifact) -> tuple[str, Sequence[Problem]]:
    named = _ETCD.fullmatch(artifact.path.name)
    return named[1] if named else "", etcd_tarball.problems([artifact])


def _alluxio(artifact: Artifact) -> tuple[str, Sequence[Problem]]:
    assert artifact.seen is not None
    release = alluxio_tarball.of(artifact.seen)
    named = _ALLUXIO.fullmatch(artifact.path.name)
    version = release.version or (named[1] if named else "")
    return version, alluxio_tarball.problems(artifact, release, version or "unknown")


def _jdk(artifact: Artifact) -> tuple[str, Sequence[Problem]]:
    assert artifact.seen is not None
    major = alluxio_tarball.of(artifact.seen).jdk
    return str(major or "of unknown release"), alluxio_tarball.jdk_problems(artifact)


def _look(
    path: Path, option: str, label: str, to: Path, check: _Check, problems: list[Problem]
) -> Read | None:
    """The tarball at ``path``; None with a problem. Raises ``OSError`` for what cannot be read."""
    sha256, seen = tar_reader.read(path)
    version, wrong = check(Artifact(path, sha256, path.stat().st_size, seen))
    if wrong:
        problems.extend(wrong)
        return None
    if not version:
        what = f"the name {path.name} does not say the release"
        remedy = "keep the publisher's name, such as etcd-v3.6.16-linux-amd64.tar.gz"
        problems.append(Problem(option, what, remedy, id="option-invalid"))
        return None
    sums = path.parent / SUMS
    declared = artifacts.listed(sums, path.name) if sums.is_file() else ""
    if declared and declared != sha256:
        what = f"sha256 is {sha256}, but {sums} says {declared}"
        remedy = "the file is damaged or was changed, or is of another release"
        problems.append(Problem(str(path), what, remedy, id="checksum-mismatch"))
        return None
    tarball = Tarball(_from(to, path), sha256, version)
    return Read(f"{label} {version}", path, tarball, sums if declared else None)


def _from(to: Path, path: Path) -> str:
    """``path`` as the inventory ``to`` has it: relative to its folder when both are below this
    one."""
    here, target, folder = Path.cwd(), path.absolute(), to.absolute().parent
    if target.is_relative_to(here) and folder.is_relative_to(here):
        return os.path.relpath(target, folder)
    return str(target)
