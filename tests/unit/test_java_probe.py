"""A Java on a host is asked for its version, unless a process of it runs."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from provision.alluxio.worker import java
from provision.host.facts import Probe, parse, script
from tests.unit import hosts

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")


@pytest.mark.process
@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("runs", [True, False])
def test_a_java_that_runs_is_not_started_again(runs: bool, noted: bool, tmp_path: Path) -> None:
    home = tmp_path / "jdk"
    (home / "bin").mkdir(parents=True)
    program = home / "bin/java"  # what it says to -version is an error
    shutil.copy(shutil.which("sleep", path="/usr/bin:/bin") or "/bin/sleep", program)
    for folder in (program, home / "bin", home, *list(home.parents)[:-2]):
        folder.chmod(0o755)  # nobody asks
    if noted:
        (home / "release").write_text('JAVA_VERSION="11.0.2"\n')
    probe = Probe(commands=java.probe_commands(str(home), "nobody"))
    text = script(probe)
    if runs:
        # As a service: with the user's own group.
        group = pwd.getpwnam("nobody").pw_gid
        with subprocess.Popen(
            [program, "60"], user="nobody", group=group, extra_groups=[]
        ) as process:
            said = parse(hosts.shell(text, tmp_path), "here").commands
            process.kill()
    else:
        said = parse(hosts.shell(text, tmp_path), "here").commands
    assert bool(said["java"]) is not (runs and noted)
    # It runs: so it is one for this C library.
    told = said[java.GLIBC].startswith("glibc 2.") or not shutil.which("getconf")
    assert told is not runs
