"""The Java of Alluxio: from a tarball, from a given JAVA_HOME, or the host's own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from provision.alluxio.worker import tarball
from provision.artifacts import Artifact, default_cache
from provision.errors import Problem
from provision.host import safely
from provision.host.facts import Command, HostFacts
from provision.host.proof import Proof
from provision.host.resources import File, Resource, Tree
from provision.inventory.resolved import AlluxioCluster, AlluxioMaster, AlluxioWorker
from provision.text import printable

major = tarball.java_major
#: The label of the command that prints the host's C library and its version.
GLIBC = "glibc"


def tree(alluxio: AlluxioCluster, name: str) -> str:
    """The folder for a JDK tarball with that name: two releases can be side by side."""
    stem = re.sub(r"(\.tar)?\.(gz|tgz)$", "", name)
    return f"{alluxio.java.install_dir}/{re.sub(r'[^A-Za-z0-9._+-]', '_', stem)}"


def trees(
    alluxio: AlluxioCluster, jdk: Artifact | None, restarts: tuple[str, ...]
) -> tuple[Tree, ...]:
    """The unpacked JDK, if a tarball is declared. Its Java must answer before it is installed."""
    if jdk is None:
        return ()
    path = tree(alluxio, jdk.path.name)
    return (Tree(path, jdk, restarts, proof=proof(path, alluxio.user), cluster=alluxio.name),)


def proof(java_home: str, user: str) -> Proof:
    """The Java at ``java_home`` answers to ``user``."""
    return Proof(java_home, "bin/java", ("-version",), user)


def home(
    alluxio: AlluxioCluster, worker: AlluxioWorker | AlluxioMaster, jdk: Artifact | None
) -> str | None:
    """The JAVA_HOME from the inventory; None for the host's own Java."""
    if worker.java_home is not None:
        return worker.java_home
    return tree(alluxio, jdk.path.name) if jdk is not None else None


def files(java_home: str | None) -> tuple[Resource, ...]:
    """The file with a JDK's version: a JDK that a service runs is not started for it."""
    return () if java_home is None else (File(f"{java_home}/release", None),)


def probe_commands(java_home: str | None, user: str) -> Mapping[str, str]:
    """Shell commands that find the host's own Java and ask its version.

    Somebody may have replaced that Java, so root does not run it. ``user`` runs it: the service of
    this user runs it, too. Before this user exists, nobody runs it (the user of that name).
    """
    if java_home is not None:
        binary, release = (shlex.quote(f"{java_home}/{p}") for p in ("bin/java", "release"))
        # A JVM's start takes most of the time of a look at a host. Where a process of this Java
        # runs, a file with the version is enough. Any other may be for another C library.
        told = f"[ -s {release} ] && runs {binary}"
        return {
            "java": Command(_as_user(user, f"[ ! -x {binary} ] || {binary} -version"), unless=told),
            GLIBC: Command("getconf GNU_LIBC_VERSION", roots=True, unless=f"runs {binary}"),
        }
    return {
        "java-home": 'j=$(command -v java) && j=$(readlink -f "$j") && echo "${j%/bin/java}"',
        "java": _as_user(user, "java -version"),
    }


def _as_user(user: str, command: str) -> str:
    become = safely.become_or_nobody(user)
    return f"{become}\ncd /; timeout -k 2 20 $as sh -c {shlex.quote(command)} 9>&-"


def own_home(facts: HostFacts) -> str | None:
    """The JAVA_HOME of the ``java`` on the host's own PATH, or None."""
    found = facts.commands.get("java-home", "").strip()
    return found if re.fullmatch(r"/[A-Za-z0-9._/+-]+", found) else None


def tarball_major(jdk: Artifact) -> int | None:
    """The major version of a JDK tarball, from its ``release`` file; None without one."""
    return tarball.contents(jdk, default_cache()).jdk


def _too_new(jdk: Artifact, facts: HostFacts) -> str:
    """Why the JDK cannot start with the host's C library; empty when it can, or nobody knows."""
    needed = tarball.contents(jdk, default_cache()).glibc
    said = re.search(r"^glibc ([0-9]{1,3})\.([0-9]{1,3})", facts.commands.get(GLIBC, ""))
    if not needed or said is None or needed <= (int(said[1]), int(said[2])):
        return ""
    return f"needs glibc {'.'.join(map(str, needed))}, and the host has {said[1]}.{said[2]}"


def problems(
    alluxio: AlluxioCluster,
    worker: AlluxioWorker | AlluxioMaster,
    jdk: Artifact | None,
    facts: HostFacts,
    where: str,
    accepted: Sequence[int] = (),
) -> list[Problem]:
    """The problems of the Java that ``worker`` would use.

    ``accepted``: the versions that the release itself accepts, if known.
    """
    wanted = " or ".join(map(str, alluxio.java.versions))
    java_home = home(alluxio, worker, jdk)
    if jdk is not None and worker.java_home is None and (too_new := _too_new(jdk, facts)):
        remedy = f"give alluxio.java.source a JDK {wanted} that was built for an older Linux"
        return [Problem(where, f"{jdk.path.name} {too_new}", remedy, id="java-unfit")]
    answer = facts.commands.get("java", "").strip()
    its_home = java_home or own_home(facts)
    if answer and its_home and major(answer) is None:
        what = f"the Java at {its_home} does not run: {printable(answer.splitlines()[0], 200)}"
        remedy = f"give alluxio.java.source a JDK {wanted} for this Linux, or java.home another one"
        return [Problem(where, what, remedy, id="java-unfit")]
    found = major(facts.text(f"{java_home}/release") or "") or major(answer)
    if found is None and jdk is not None and worker.java_home is None:
        found = tarball_major(jdk)
    if found is None:
        place = f"at {java_home}" if java_home else "on its PATH"
        return [
            Problem(
                where,
                f"no Java {place}",
                f"Alluxio {alluxio.version} needs Java {wanted}: give alluxio.java.source a JDK "
                "tarball, or java.home a JDK on the hosts",
                id="java-unfit",
            )
        ]
    if found not in alluxio.java.versions:
        return [
            Problem(
                where,
                f"Java is {found}, but Alluxio {alluxio.version} needs {wanted}",
                "give alluxio.java.source a JDK tarball, or correct java.versions",
                id="java-unfit",
            )
        ]
    if accepted and found not in accepted:
        said = " or ".join(map(str, accepted))
        return [
            Problem(
                where,
                f"Java is {found}, but the tarball's own check accepts only {said}",
                "give alluxio.java.source a JDK tarball of that version, and correct java.versions",
                id="java-unfit",
            )
        ]
    return []
