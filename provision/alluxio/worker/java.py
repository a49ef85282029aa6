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
#: The answer of a Java that is not asked: a process of it runs, and its JDK's file has the version.
RUNS = "runs"
#: How the last line of an answer begins, after which the exit code comes.
ENDED = "ended with "
#: The line of a JDK's ``release`` file for ``grep -E``, as :func:`tarball.jdk_major` reads it.
_NAMED = """^JAVA_VERSION=["']?(1[.])?[0-9]{1,3}([^0-9]|$)"""


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
        # runs, a file with the version is enough. Any other may be for another C library. Not every
        # JDK names its version in this file (OpenJDK has it from jlink), and nobody needs the file.
        told = f"runs {binary} && names {release} {shlex.quote(_NAMED)} && echo {RUNS}"
        ask = f"[ ! -x {binary} ] || {{ {binary} -version; echo {ENDED}$?; }}"
        return {
            "java": Command(_as_user(user, ask), unless=told),
            GLIBC: Command("getconf GNU_LIBC_VERSION", roots=True, unless=f"runs {binary}"),
        }
    return {
        "java-home": 'j=$(command -v java) && j=$(readlink -f "$j") && echo "${j%/bin/java}"',
        "java": _as_user(user, f"java -version; echo {ENDED}$?"),
    }


def _as_user(user: str, command: str) -> str:
    become = safely.become_or_nobody(user)
    late = "|".join(map(str, safely.TIMED_OUT))
    return (
        f"{become}\ncd /; timeout -k 2 20 $as sh -c {shlex.quote(command)} 9>&- || case $? in\n"
        f'{late}) echo "{ENDED}no answer in 20 s";;\n'
        f'*) echo "{ENDED}$? in place of an answer";;\nesac'
    )


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


def _release(facts: HostFacts, java_home: str | None) -> int | None:
    """The major version that the ``release`` file at ``java_home`` names."""
    seen = facts.paths.get(f"{java_home}/release")
    content = seen.content if seen is not None else None
    return tarball.jdk_major((content or b"").decode(errors="replace"))


def _unclear(answer: str) -> str:
    """What is wrong with a Java with this ``answer``, which has no version."""
    first, last = (printable(line, 200) for line in (answer.splitlines()[i] for i in (0, -1)))
    if answer == RUNS:
        return "runs, but its version is unknown: its release file cannot be read"
    if last == f"{ENDED}0":
        return f"does not say its version: {first if first != last else 'no answer'}"
    return f"does not run: {first}"


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
    found = _release(facts, java_home) if answer == RUNS else major(answer)
    if answer and its_home and found is None:
        what = f"the Java at {its_home} {_unclear(answer)}"
        remedy = f"give alluxio.java.source a JDK {wanted} for this Linux, or java.home another one"
        return [Problem(where, what, remedy, id="java-unfit")]
    if found is None and jdk is not None and worker.java_home is None:
        found = tarball_major(jdk)
        if found is None:  # it is asked when it is unpacked, before anything is stopped
            what = f"nobody knows the version of {jdk.path.name}: no file in it names it"
            remedy = f"Alluxio {alluxio.version} needs Java {wanted}: see that it is one"
            return [Problem(where, what, remedy, "warning", id="java-unfit")]
    if found is None:
        what = f"no Java at {java_home}" if java_home else "no Java on its PATH"
        if java_home and (named := _release(facts, java_home)):
            what = f"a JDK {named} is at {java_home}, but user {alluxio.user} cannot run its java"
        return [
            Problem(
                where,
                what,
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
