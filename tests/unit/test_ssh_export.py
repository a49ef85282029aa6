"""The exported configuration, as OpenSSH itself reads it (`ssh -G` connects to nothing)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from provision.inventory.resolved import Machine
from provision.ssh.export import ssh_config
from provision.ssh.user_config import UserConfig
from tests.unit import builders

pytestmark = pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh here")


def read(path: Path, host: str) -> dict[str, list[str]]:
    command = ["ssh", "-G", "-F", str(path), host]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.process
def test_openssh_reads_what_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    own = tmp_path / "own"
    own.write_text(
        "Host alias\n  HostName fd00::9\n  ProxyCommand nc %h %p\nHost gate\n  Port 24\n"
    )
    key = tmp_path / "a key 100%"
    known = tmp_path / "known"
    machines = [
        Machine("fd00::1", "deploy", 2222, key, known, jump="me@first:23,gate"),
        Machine("alias", "DOM\\me", known_hosts=known),
        Machine("plain", "u", key=key, known_hosts=known, jump="me@first:23"),
    ]
    members = [builders.member(n, machine=m) for n, m in enumerate(machines, 1)]
    inventory = builders.inventory(None, etcd=builders.etcd(*members))
    path = tmp_path / "config"
    path.write_text(ssh_config(inventory, UserConfig([own])))

    one = read(path, "infra1")
    assert (one["hostname"], one["port"], one["user"]) == (["fd00::1"], ["2222"], ["deploy"])
    assert one["identityfile"] == [str(key).replace("%", "%%")]  # a token, as yet
    assert one["userknownhostsfile"] == [f"{known}"]
    assert one["stricthostkeychecking"] == ["true"]
    assert read(path, "fd00::1")["port"] == ["2222"]
    (last,) = one["proxyjump"]
    gate = read(path, last)
    assert (gate["hostname"], gate["port"], gate["user"]) == (["gate"], ["24"], ["deploy"])
    first = read(path, gate["proxyjump"][0])
    assert (first["hostname"], first["port"], first["user"]) == (["first"], ["23"], ["me"])
    assert "proxyjump" not in first

    two = read(path, "alias")
    assert (two["hostname"], two["user"]) == (["fd00::9"], ["DOM\\me"])
    assert two["proxycommand"] == ["nc fd00::9 22"]
    assert read(path, "infra3")["proxyjump"] == gate["proxyjump"]
