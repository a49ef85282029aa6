"""The contents of a tarball, read on this machine before the tarball goes to a host.

``dev/scripts/src/alluxio.org/build/profiles.yml`` in Alluxio's source has the layout of a release.
The launch script is ``bin/launch-process-bash`` in 304 to 313 and ``bin/launch-process`` before.
``libexec/version.sh`` has ``VERSION`` (a 2.x release has it in ``libexec/alluxio-config.sh``).
``libexec/alluxio-config.sh`` refuses other versions of Java. :mod:`provision.tar_reader` reads the
tarball and keeps what it found.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from provision import tar_reader
from provision.artifacts import Artifact
from provision.dataclass import dataclass
from provision.errors import Problem
from provision.host.facts import HostFacts
from provision.tar_reader import Seen

#: The names of the launch script in a release, the newest first.
LAUNCHERS = ("bin/launch-process-bash", "bin/launch-process")
CLI, CONFIG, VERSION = "bin/alluxio", "libexec/alluxio-config.sh", "libexec/version.sh"
#: The first release with workers that register themselves.
FIRST = 300
_JDK_RELEASE = ("release", "Contents/Home/release")


@dataclass(frozen=True, slots=True)
class Contents:
    """The known contents of a tarball. Paths are without the top folder, as tar unpacks them.

    ``version``: the version of an Alluxio release; empty when unknown. ``java``: the major versions
    that the release accepts; empty when its check cannot be understood. ``jdk``: a JDK's major
    version. ``conf``: whether it has a folder ``conf``. ``error``: why it cannot be read, or must
    not be unpacked. ``glibc``: the version of glibc that a JDK needs; () when unknown.
    """

    found: tuple[str, ...] = ()
    conf: bool = False
    version: str = ""
    java: tuple[int, ...] = ()
    jdk: int | None = None
    error: str = ""
    glibc: tuple[int, ...] = ()

    @property
    def launcher(self) -> str | None:
        """The launch script, or None without one."""
        return next((name for name in LAUNCHERS if name in self.found), None)


def contents(artifact: Artifact, cache: Path) -> Contents:
    """The contents of ``artifact``, as far as known; else from ``cache``, else by reading it.

    Never raises, and writes nothing. The cache only saves time.
    """
    seen = artifact.seen or tar_reader.kept(cache, artifact.sha256)
    if seen is None:
        try:
            _, seen = tar_reader.read(artifact.path)
        except OSError as error:
            return Contents(error=error.strerror or str(error))
    return of(seen)


def read(path: Path) -> Contents:
    """The contents of the tarball at ``path``. Raises :class:`OSError`."""
    return of(tar_reader.read(path)[1])


def of(seen: Seen) -> Contents:
    """What ``seen`` says about a release of Alluxio or a JDK."""
    texts = seen.texts
    said = next((texts[name] for name in _JDK_RELEASE if name in texts), "")
    return Contents(
        found=seen.found,
        conf=seen.conf,
        version=release_version(texts.get(VERSION, "")) or release_version(texts.get(CONFIG, "")),
        java=accepted_java(texts.get(CONFIG, "")),
        jdk=jdk_major(said),
        error=seen.refusal,
        glibc=seen.glibc,
    )


def release_version(script: str) -> str:
    """The value of ``VERSION`` in a release's shell script; empty without one."""
    match = re.search(r"""^(?:export )?VERSION=["']?([A-Za-z0-9._+-]+)["']?\s*$""", script, re.M)
    return match[1] if match else ""


def accepted_java(script: str) -> tuple[int, ...]:
    """The Java versions that ``libexec/alluxio-config.sh`` does not refuse; empty when unclear.

    The script compares the first two numbers of the version (``001008``) or the first number
    (``011``), each padded to three digits. It refuses a version that equals none of its values.
    """
    number = r"""["']?([0-9]{%s})["']?(?![0-9])"""
    pair = re.findall(r'\$\{?JAVA_MAJORMINOR\}?"?\s*!=\s*' + number % 6, script)
    single = re.findall(r'\$\{?JAVA_MAJOR\}?"?\s*!=\s*' + number % 3, script)
    majors = {int(text[3:]) if text.startswith("001") else int(text[:3]) for text in pair}
    return tuple(sorted(majors | set(map(int, single))))


def java_major(text: str) -> int | None:
    """The major version in the answer to ``java -version``: 8, 11, 17, ..."""
    return _major(r'version "', text)


def jdk_major(text: str) -> int | None:
    """The major version that a JDK's ``release`` file names; None where it names none."""
    return _major(r"""^JAVA_VERSION=["']?""", text)


def _major(before: str, text: str) -> int | None:
    match = re.search(before + r"(?:1\.)?([0-9]{1,3})(?![0-9])", text, re.M)
    return int(match[1]) if match else None


def problems(artifact: Artifact, release: Contents, declared: str) -> list[Problem]:
    """The problem that ``release`` cannot be the Alluxio release ``declared``: at most one."""
    where = str(artifact.path)
    what, remedy = _unfit(release, declared)
    return [Problem(where, what, remedy, id="tarball-unfit")] if what else []


def jdk_problems(jdk: Artifact) -> list[Problem]:
    """The problem that ``jdk`` is no JDK's tarball, or no host may unpack it: at most one."""
    if jdk.seen is None:
        return []
    what = jdk.seen.refusal
    if not what and "bin/java" not in jdk.seen.found:
        what = "is not a JDK: it has no bin/java"
    remedy = "give alluxio.java.source the tarball of a JDK for Linux"
    return [Problem(str(jdk.path), what, remedy, id="tarball-unfit")] if what else []


def same_release(declared: str, version: str) -> bool:
    """Whether ``declared`` names ``version``, or a build of it such as 313-hotfix1."""
    short, long = sorted((declared, version), key=len)
    return long == short or (long.startswith(short) and long[len(short)] in "-+_")


def launcher_on(facts: HostFacts, home: str) -> str | None:
    """The launch script of the release that is unpacked at ``home``, or None."""
    return next((name for name in LAUNCHERS if f"{home}/{name}" in facts.paths), None)


def launchers(home: str) -> tuple[str, ...]:
    """The possible paths of the launch script of a release at ``home``, for :func:`launcher_on`."""
    return tuple(f"{home}/{name}" for name in LAUNCHERS)


def _unfit(release: Contents, declared: str) -> tuple[str, str]:
    right = "give alluxio.source the release's own tarball, alluxio-VERSION-bin.tar.gz"
    if release.error:
        return release.error, right
    if "etcd" in release.found:
        return "holds etcd, not Alluxio", right
    if "bin/java" in release.found and CONFIG not in release.found:
        return "holds a JDK, not Alluxio", f"{right}, and alluxio.java.source this one"
    if re.match(r"[12]\.[0-9]", release.version):
        return (
            f"holds Alluxio {release.version}: its workers do not register in etcd",
            f"give the tarball of a release from {FIRST} on",
        )
    if release.launcher is None and _is_alluxio(release.found):
        return (
            f"has no {' or '.join(LAUNCHERS)}: it holds Alluxio's client or FUSE part only",
            right,
        )
    missing = _missing(release)
    if missing:
        return f"is not an Alluxio release: it has no {' and no '.join(missing)}", right
    # A name that does not begin like a release, such as "trial", only names the folder.
    named = declared[0].isdigit()
    if release.version and named and not same_release(declared, release.version):
        return (
            f"holds Alluxio {release.version}, but alluxio.version is {declared}",
            f"set alluxio.version to {release.version}, or give the tarball of {declared}",
        )
    return "", ""


def _is_alluxio(found: Collection[str]) -> bool:
    return any(name in found for name in (CLI, CONFIG, VERSION))


def _missing(release: Contents) -> Sequence[str]:
    missing = [name for name in (CLI, CONFIG) if name not in release.found]
    first = [LAUNCHERS[0]] if release.launcher is None else []
    return [*first, *missing, *([] if release.conf else ["conf"])]
