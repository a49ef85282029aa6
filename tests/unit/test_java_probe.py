"""A Java on a host is asked for its version, unless a process of it runs."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from provision.alluxio.worker import java
from provision.host.facts import Command, HostFacts, Probe, parse, script
from tests.unit import builders, hosts

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")


#: A JDK's release file, by kind, and the version that it names.
RELEASES: dict[str, tuple[bytes | None, int | None]] = {
    "as built": (b'IMPLEMENTOR="x"\nJAVA_VERSION="11.0.2"\nLIBC="gnu"\n', 11),
    "of Java 8": (b'JAVA_VERSION="1.8.0_392"\nOS_NAME="Linux"\n', 8),
    "CRLF": (b'IMPLEMENTOR="x"\r\nJAVA_VERSION="11.0.2"\r\n', 11),
    "without quotes": (b"JAVA_VERSION=17\r\n", 17),
    "single quotes": (b"JAVA_VERSION='17.0.1'", 17),
    "long": (b"MODULES=" + b"x" * 99_000 + b'\nJAVA_VERSION="11"\n', 11),
    "bytes around": (b'\xff\xfe\x00\n\nJAVA_VERSION="11.0.2"\n\x80', 11),
    "none": (None, None),
    "empty": (b"", None),
    "other keys": (b'GRAALVM_JAVA_VERSION="11"\nJAVA_VERSION_DATE="2024"\n', None),
    "no number": (b'JAVA_VERSION=""\n', None),
    "too long a number": (b'JAVA_VERSION="1234"\n', None),
    "too long": (b"#" * 300_000 + b'\nJAVA_VERSION="11"\n', None),
    "binary": (bytes(range(256)) * 40, None),
}
#: It answers to -version, and else runs. Only a program, not a script, is a process of its own.
JAVA = """
#include <stdio.h>
#include <unistd.h>
int main(int n, char **words) {
  if (n > 1) { fputs("openjdk version \\"11.0.2\\"\\n", stderr); return 0; }
  return pause();
}
"""


def jdk(open_path: Path, release: bytes | None) -> Path:
    home = open_path / "jdk"
    (home / "bin").mkdir(parents=True)
    if release is not None:
        (home / "release").write_bytes(release)
    return home


def asked(home: Path, open_path: Path) -> HostFacts:
    commands = java.probe_commands(str(home), "nobody")
    probe = Probe(resources=java.files(str(home)), commands=commands)
    text = script(probe).replace("timeout -k 2 20", "timeout -k 2 2")
    return parse(hosts.shell(text, open_path), "here")


def found(home: Path, seen: HostFacts) -> list[str]:
    """What the preflight says of the Java at ``home``."""
    cluster = builders.alluxio()
    worker = cluster.workers[0]._replace(java_home=str(home))
    return [p.what for p in java.problems(cluster, worker, None, seen, "here")]


@pytest.mark.process
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
@pytest.mark.parametrize("kind", RELEASES)
@pytest.mark.parametrize("runs", [True, False])
def test_a_java_whose_release_file_names_no_version_is_asked(
    runs: bool, kind: str, open_path: Path
) -> None:
    release, names = RELEASES[kind]
    home = jdk(open_path, release)
    program = home / "bin/java"
    subprocess.run(["cc", "-x", "c", "-o", program, "-"], input=JAVA, text=True, check=True)
    with contextlib.ExitStack() as stack:
        if runs:
            group = pwd.getpwnam("nobody").pw_gid
            process = stack.enter_context(
                subprocess.Popen([program], user="nobody", group=group, extra_groups=[])
            )
            stack.callback(process.kill)
        seen = asked(home, open_path)
    assert (seen.commands["java"].strip() == java.RUNS) is (runs and names is not None)
    used = names if runs and names else 11
    said = [] if used in (8, 11) else [f"Java is {used}, but Alluxio 313 needs 8 or 11"]
    assert found(home, seen) == said


@pytest.mark.process
@pytest.mark.parametrize("is_others", [True, False])
def test_root_reads_no_release_file_that_others_can_replace(
    is_others: bool, open_path: Path
) -> None:
    home = jdk(open_path, b'JAVA_VERSION="11.0.2"\n')
    home.chmod(0o777 if is_others else 0o755)
    release = str(home / "release")
    command = Command("echo asked", roots=True, unless=f"names {release} {shlex.quote('^JAVA')}")
    probe = Probe(resources=java.files(str(home)), commands={"java": command})
    said = parse(hosts.shell(script(probe), open_path), "here").commands["java"]
    assert said.strip() == ("asked" if is_others else "")


@pytest.mark.process
@pytest.mark.parametrize(
    ("body", "what"),
    [
        (None, "no Java at {home}"),
        ("exit 0", "the Java at {home} does not say its version: no answer"),
        ("echo hello", "the Java at {home} does not say its version: hello"),
        ("exit 3", "the Java at {home} does not run: ended with 3"),
        ("sleep 9", "the Java at {home} does not run: ended with no answer in 20 s"),
    ],
)
def test_a_java_without_a_version_is_not_called_none(
    body: str | None, what: str, open_path: Path
) -> None:
    home = jdk(open_path, None)
    if body is not None:
        (home / "bin/java").write_text(f"#!/bin/sh\n{body}\n")
        (home / "bin/java").chmod(0o755)
    assert found(home, asked(home, open_path)) == [what.format(home=home)]


@pytest.mark.process
def test_a_java_that_the_service_cannot_run(open_path: Path) -> None:
    home = jdk(open_path, b'JAVA_VERSION="11.0.2"\n')
    (home / "bin/java").write_text("#!/bin/sh\n")
    (home / "bin/java").chmod(0o700)
    said = f"a JDK 11 is at {home}, but user alluxio cannot run its java"
    assert found(home, asked(home, open_path)) == [said]


@pytest.mark.process
@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("runs", [True, False])
def test_a_java_that_runs_is_not_started_again(runs: bool, noted: bool, open_path: Path) -> None:
    home = open_path / "jdk"
    (home / "bin").mkdir(parents=True)
    program = home / "bin/java"  # what it says to -version is an error
    shutil.copy(shutil.which("sleep", path="/usr/bin:/bin") or "/bin/sleep", program)
    program.chmod(0o755)
    if noted:
        (home / "release").write_text('JAVA_VERSION="11.0.2"\n')
    commands = java.probe_commands(str(home), "nobody")
    probe = Probe(resources=java.files(str(home)), commands=commands)
    text = script(probe)
    if runs:
        # As a service: with the user's own group.
        group = pwd.getpwnam("nobody").pw_gid
        with subprocess.Popen(
            [program, "60"], user="nobody", group=group, extra_groups=[]
        ) as process:
            said = parse(hosts.shell(text, open_path), "here").commands
            process.kill()
    else:
        said = parse(hosts.shell(text, open_path), "here").commands
    assert (said["java"].strip() == java.RUNS) is (runs and noted)
    # It runs: so it is one for this C library.
    told = said[java.GLIBC].startswith("glibc 2.") or not shutil.which("getconf")
    assert told is not runs
