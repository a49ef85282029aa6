"""Drop-ins as a real shell finds them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provision.host import dropins
from provision.host.facts import Probe, script
from provision.host.resources import Unit

OVERRIDE = "[Service]\nExecStart=\nExecStart=/usr/bin/etcd --name=old\n"


@pytest.mark.process
@pytest.mark.parametrize("unit", ["etcd.service", "alluxio-worker.service"])
def test_what_the_shell_says(unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        f"etc/{unit}.d/override.conf": OVERRIDE,
        f"etc/{unit}.d/limits.conf": "[Service]\nLimitNOFILE=9\n# ExecStart=/no\nExecStartPre=/x\n",
        f"usr/{unit}.d/limits.conf": OVERRIDE,
        f"usr/{unit}.d/note.txt": OVERRIDE,
        "etc/service.d/all.conf": " ExecStart = /bin/true\n",
        "etc/other.service.d/override.conf": OVERRIDE,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    folders = (f"{tmp_path}/etc", f"{tmp_path}/usr", f"{tmp_path}/none")
    monkeypatch.setattr(dropins, "_FOLDERS", folders)
    done = subprocess.run(
        ["sh", "-c", dropins.command(unit)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        f"else {tmp_path}/etc/{unit}.d/limits.conf",
        f"runs {tmp_path}/etc/{unit}.d/override.conf",
        f"runs {tmp_path}/usr/{unit}.d/limits.conf",
        f"runs {tmp_path}/etc/service.d/all.conf",
    ]
    assert done.stderr == ""


def test_it_is_asked_about_units_that_are_to_be_ours() -> None:
    assert "etcd.service.d" in script(Probe(resources=(Unit("etcd.service"),)))
    assert "etcd.service.d" not in script(Probe(units=("etcd.service",)))
