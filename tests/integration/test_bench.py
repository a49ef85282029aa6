"""bench/floor leaves what deploy-etcd leaves: else its times would be of other work."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from provision.artifacts import fetch
from provision.inventory.loader import load

from .lab import REPO, SSH_CONFIG, Host, Lab

BENCH = REPO / "bench"


def test_the_floor_leaves_what_the_tool_leaves_and_finds_it_unchanged(
    lab: Lab, clean: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = _program(BENCH / "run", monkeypatch)
    inventory = lab.inventory({"etcd": {"tls": {"peer": False, "client": False}}})
    env = _environment(lab, inventory, tmp_path)
    _clean(env)
    lab.invoke("deploy-etcd", inventory).expect(0)
    for host in lab.etcd:
        folder = tmp_path / host.name
        folder.mkdir()
        for path in bench.TAKEN:
            (folder / Path(path).name).write_text(host.read(path) + "\n", encoding="utf-8")
    by_tool = _left(lab, bench.LEFT)
    assert _floor("check", env).returncode == 0
    _clean(env)
    deployed = _floor("deploy", env)
    assert deployed.returncode == 0, deployed.stderr
    assert _left(lab, bench.LEFT) == by_tool
    checked = _floor("check", env)
    assert checked.returncode == 0, checked.stderr
    lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")
    libraries = [sys.executable, str(BENCH / "libraries")]
    assert subprocess.run(libraries, env=env, timeout=60, check=False).returncode == 0
    _check_finds(lab.etcd[0], env)


def _check_finds(host: Host, env: Mapping[str, str]) -> None:
    host.run("echo >>/etc/systemd/system/etcd.service")
    assert _floor("check", env).returncode != 0


def _clean(env: Mapping[str, str]) -> None:
    """Without the user, too, which `destroy` leaves."""
    subprocess.run([BENCH / "clean"], env=env, check=True, timeout=120)


def _left(lab: Lab, script: str) -> list[list[str]]:
    return [text.splitlines() for text in lab.on(lab.etcd, script)]


def _floor(action: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(BENCH / "floor"), action]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def _environment(lab: Lab, inventory: Path, files: Path) -> dict[str, str]:
    etcd = load(inventory).etcd
    assert etcd is not None
    tarball = fetch(etcd.source, files / "cache")
    return os.environ | {
        "SSH_CONFIG": str(SSH_CONFIG),
        "HOSTS": " ".join(f"{host.name}={host.address}" for host in lab.etcd),
        "CLUSTER": lab.name,
        "VERSION": etcd.version,
        "TARBALL": str(tarball.path),
        "SHA256": tarball.sha256,
        "FILES": str(files),
    }


def _program(path: Path, patch: pytest.MonkeyPatch) -> Any:
    """bench/run, as a module for the time of a test."""
    patch.setattr(sys, "path", [*sys.path])  # the program puts a folder of its own there
    loader = importlib.machinery.SourceFileLoader("bench_run", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, loader.name, module)
    loader.exec_module(module)
    return module
