"""Installed files, trees and certificates get the labels of the host's policy where SELinux is on.

The kernel's switch and restorecon are stand-ins here: a file, and a program that notes its words.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import PreflightFailed
from provision.host import selinux, tools
from provision.host.diff import changes
from provision.host.facts import Probe, parse, script
from provision.host.resources import Certificate, File, Tree
from tests.unit import hosts
from tests.unit.hosts import ME
from tests.unit.test_predict import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path / "host")
    monkeypatch.setattr(selinux, "ENFORCE", f"{made.root}/enforce")
    return made


def restorecon(host: Host, code: int = 0) -> Path:
    noted = host.root / "noted"
    shim = host.root / ".shims/restorecon"
    shim.write_text(f'#!/bin/sh\n[ -e "$2" ] && echo "$@" >>{noted}; exit {code}\n')
    shim.chmod(0o755)
    return noted


@pytest.mark.process
def test_what_is_put_gets_its_label(host: Host, tmp_path: Path) -> None:
    noted = restorecon(host)
    file = File(f"{host.root}/unit", b"x", ME)
    pair = Certificate(f"{host.root}/peer", ME, pair=(b"certificate", b"key"))
    tree = Tree(f"{host.root}/opt/etcd/3.6.16", hosts.tarball(tmp_path))
    host.apply(changes([file, pair, tree], host.facts([file, pair, tree])))
    assert not noted.exists()  # SELinux is off
    (host.root / "enforce").write_text("1")
    file, pair = replace(file, content=b"y"), replace(pair, pair=(b"new", b"key"))
    tree = replace(tree, path=f"{host.root}/opt/etcd/3.6.17")
    host.apply(changes([file, pair, tree], host.facts([file, pair, tree])))
    labelled = {line.removeprefix("-R ") for line in noted.read_text().splitlines()}
    assert {file.path, f"{pair.path}.crt", f"{pair.path}.key", tree.path} <= labelled


@pytest.mark.process
def test_a_label_that_cannot_be_given_is_a_failure(host: Host) -> None:
    restorecon(host, code=1)
    (host.root / "enforce").write_text("1")
    file = File(f"{host.root}/unit", b"x", ME)
    with pytest.raises(AssertionError):
        host.apply(changes([file], host.facts([file])))


@pytest.mark.process
def test_without_restorecon_nothing_is_changed(host: Host) -> None:
    (host.root / "enforce").write_text("1")
    seen = parse(host.run(script(Probe(), changes=True)), "here")
    assert "restorecon" in seen.lacks
    with pytest.raises(PreflightFailed) as refused:
        tools.require({"infra0": seen.lacks})
    (problem,) = refused.value.problems
    assert problem.where == "infra0"
    assert "no restorecon" in problem.what
    assert "policycoreutils" in problem.remedy
    (host.root / "enforce").unlink()
    assert "restorecon" not in parse(host.run(script(Probe(), changes=True)), "here").lacks
