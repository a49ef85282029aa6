"""ssh_config(5) of an account: without -F, as ssh reads it. The account is one of a mount
namespace, so that this machine's own files are not in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROUTES = """\
from provision.inventory.resolved import Machine
from provision.ssh.route import route
from provision.ssh.user_config import UserConfig

config = UserConfig()
for machine in (Machine("web"), Machine("web", "deploy", 99), Machine("h", "deploy", jump="gate")):
    for hop in route(machine, config):
        print(hop, *hop.keys)
"""
NAMESPACE = """\
mount --make-rprivate /
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/ssh" /etc/ssh || exit 77
shift
exec "$@"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    if os.geteuid() != 0 or not Path("/etc/ssh").is_dir():
        pytest.skip("a mount namespace needs root, and ssh its folder")
    home = tmp_path / "home"
    (home / ".ssh" / "d").mkdir(parents=True)
    (tmp_path / "ssh").mkdir()
    accounts = Path("/etc/passwd").read_text().splitlines()
    root = f"root:x:0:0::{home}:/bin/sh"
    lines = [root if line.startswith("root:") else line for line in accounts]
    (tmp_path / "passwd").write_text("\n".join(lines) + "\n")
    return home


def routes(home: Path, home_in_use: Path) -> subprocess.CompletedProcess[str]:
    python = [sys.executable, "-c", ROUTES]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", NAMESPACE, "sh", str(home.parent), *python],
        env={**os.environ, "HOME": str(home_in_use)},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr}")
    return done


def written(folder: Path, config: str) -> Path:
    path = folder / "config"
    path.write_text(config)
    path.chmod(0o600)
    return path


CONFIG = """\
Include d/*
Match user deploy
  Port 2022
Host gate
  User root
"""


@pytest.mark.parametrize("where", ["the account's", "another"])
def test_both_files_are_read(home: Path, where: str) -> None:
    """Also when HOME is not the account's."""
    used = home if where == "the account's" else home.parent / "other"
    (used / ".ssh" / "d").mkdir(parents=True, exist_ok=True)
    written(used / ".ssh", CONFIG)
    (used / ".ssh" / "d" / "1").write_text("Host web\n  HostName 10.0.0.%h\n")
    (used / ".ssh" / "key").touch()
    system = "Host *\n  Port 77\n  IdentityFile ~/.ssh/key\nMatch final all\n  Compression yes\n"
    (home.parent / "ssh" / "ssh_config").write_text(system)
    done = routes(home, used)
    key = used / ".ssh" / "key"
    assert done.stdout.splitlines() == [
        f"root@10.0.0.web:77 {key}",
        f"deploy@10.0.0.web:99 {key}",
        f"root@gate:77 {key}",
        f"deploy@h:2022 {key}",
    ], done.stderr


def test_a_file_that_others_may_write(home: Path) -> None:
    path = written(home / ".ssh", CONFIG)
    path.chmod(0o666)
    done = routes(home, home)
    said = f"ConfigError: ssh -G web: Bad owner or permissions on {path}"
    assert done.stderr.splitlines()[-1].endswith(said)


def test_a_mistake_in_the_systems_file(home: Path) -> None:
    written(home / ".ssh", CONFIG)
    (home.parent / "ssh" / "ssh_config").write_text("Host *\n  Nonsense yes\n")
    done = routes(home, home)
    last = done.stderr.splitlines()[-1]
    assert "/etc/ssh/ssh_config" in last
    assert "line 2" in last
    assert "nonsense" in last.lower()
