"""Three control machines share the work by GNU parallel, and merge-reports joins what they say.

docs/performance.md has the commands.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import documents

from .control import control_machine
from .lab import REPO, SSH, SSH_CONFIG, Done, Host, Lab, finished

#: On each control machine: the tool, as its users call it.
TOOL = "/usr/local/bin/alluxio-provision"

pytestmark = [
    pytest.mark.usefixtures("workers"),
    pytest.mark.skipif(not shutil.which("parallel"), reason="GNU parallel is not installed"),
]


@pytest.fixture(scope="module")
def controls(lab: Lab, workers: None) -> Iterator[Sequence[Host]]:
    """Three hosts with the tool, the inventory, its tarballs, the SSH key and known_hosts."""
    brought = [lab.declared, Path(lab.pki), SSH / "id_ed25519", SSH / "known_hosts"]
    brought += [*_artifacts()]
    with contextlib.ExitStack() as stack:
        for host in lab.etcd:
            stack.enter_context(control_machine(host, brought))
            script = f'#!/bin/sh\nexec sudo {_environment(lab.declared)} {_program()} "$@"\n'
            host.put(TOOL, script.encode())
            host.run(f"chmod 0755 {TOOL}")
            stack.callback(host.run, f"rm {TOOL}")
        yield lab.etcd


def _artifacts() -> Iterator[Path]:
    names = ("SHA256SUMS", "alluxio-313-bin.tar.gz", "jdk-11-lab.tar.gz")
    yield from (REPO / ".lab" / "artifacts" / name for name in names)
    yield from (REPO / ".lab" / "artifacts").glob("etcd-v3.6.16-*.tar.gz")


def _environment(inventory: Path) -> str:
    return f"PROVISION_INVENTORY={inventory}"


def _program() -> str:
    return str(Path(sys.prefix) / "bin" / "alluxio-provision")


def by_parallel(
    hosts: Sequence[Host], tmp_path: Path, of: int, *words: str
) -> subprocess.CompletedProcess[str]:
    """The documents of ``of`` parts, one behind the other, as GNU parallel prints them."""
    logins = ",".join(host.name for host in hosts)
    command = ["parallel", "--jobs", "1", "--sshlogin", logins]
    command += ["--joblog", str(tmp_path / "jobs"), "alluxio-provision", *words]
    command += ["--batch", f"{{}}/{of}", "--format", "json", ":::", *map(str, range(1, of + 1))]
    return subprocess.run(
        command,
        env={**os.environ, "PARALLEL_SSH": f"ssh -F {SSH_CONFIG}", "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def merged(tmp_path: Path, text: str, *options: str) -> Done:
    path = tmp_path / "parts"
    path.write_text(text)
    command = [sys.executable, "-m", "invoke", "merge-reports", str(path), *options]
    return finished(command)


def jobs(tmp_path: Path) -> list[dict[str, str]]:
    """GNU parallel's own log: where each part ran, and how it ended."""
    head, *lines = (tmp_path / "jobs").read_text().splitlines()
    return [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_a_look_by_three_machines_is_the_look_of_one(
    lab: Lab, controls: Sequence[Host], tmp_path: Path
) -> None:
    ran = by_parallel(controls, tmp_path, 6, "check-nodes", "--hosts")
    assert ran.returncode == 0, ran.stderr
    assert {job["Host"] for job in jobs(tmp_path)} == {host.name for host in controls}
    whole = merged(tmp_path, ran.stdout, "--format", "json").expect(0).json
    alone = lab.invoke("check-nodes", None, "--hosts", "--format", "json").expect(0).json
    assert names(whole) == names(alone) == ["worker0", "worker1"]
    assert whole["alluxio"]["summary"] == alone["alluxio"]["summary"]
    assert whole["alluxio"]["counts"] == {"LIVE": 2}
    assert whole["etcd"]["healthy"] == 3
    assert whole["batch"] is None
    merged(tmp_path, ran.stdout).expect(0, "6 parts", "2 workers: 2 LIVE; 2 READY")


def names(document: dict[str, Any]) -> list[str]:
    return [node["name"] for node in document["alluxio"]["nodes"]]


def test_a_status_by_three_machines(lab: Lab, controls: Sequence[Host], tmp_path: Path) -> None:
    ran = by_parallel(controls, tmp_path, 3, "status")
    whole = merged(tmp_path, ran.stdout, "--format", "json").expect(0).json
    alone = lab.invoke("status", None, "--format", "json").expect(0).json

    def said(document: dict[str, Any]) -> list[tuple[str, str]]:
        return [(s["name"], s["active"]) for s in document["services"]]

    assert said(whole) == said(alone)
    assert len(said(whole)) == 5


def test_a_change_by_three_machines_at_once(
    lab: Lab, controls: Sequence[Host], tmp_path: Path
) -> None:
    """Each worker's host has a lock of its own, so no part waits for another one."""
    for host in lab.workers:
        host.run("sed -i /page.size/d /opt/alluxio/313/conf/alluxio-site.properties")
        host.run("echo alluxio.user.file.x=1 >>/opt/alluxio/313/conf/alluxio-site.properties")
    ran = by_parallel(controls, tmp_path, 3, "start-workers")
    assert ran.returncode == 0, ran.stderr
    at_work = [job for job in jobs(tmp_path) if job["Seq"] != "1"]  # the first part has no worker
    began = [float(job["Starttime"]) for job in at_work]
    ended = [float(job["Starttime"]) + float(job["JobRuntime"]) for job in at_work]
    assert max(began) < min(ended)
    done = merged(tmp_path, ran.stdout, "--format", "json").expect(0).json
    assert done["live"] == ["worker0", "worker1"]
    assert done["applied"]
    assert {h["name"] for s in done["steps"] for h in s["hosts"]} == {"worker0", "worker1"}
    merged(tmp_path, ran.stdout).expect(0, f"{done['changed']} changed; 2 of 2 live")
    again = by_parallel(controls, tmp_path, 3, "start-workers")
    merged(tmp_path, again.stdout).expect(0, "0 changed; 2 of 2 live")


def test_a_machine_that_cannot_work_is_no_missing_part(
    lab: Lab, controls: Sequence[Host], tmp_path: Path
) -> None:
    key = SSH / "id_ed25519"
    controls[1].run(f"mv {key} {key}.away")
    try:
        ran = by_parallel(controls, tmp_path, 3, "check-nodes", "--hosts")
    finally:
        controls[1].run(f"mv {key}.away {key}")
    (bad,) = [job for job in jobs(tmp_path) if job["Host"] == controls[1].name]
    assert bad["Exitval"] == "2"
    said = [json.loads(text) for text in split(ran.stdout)]
    for document in said:
        documents.require(document)
    (failed,) = [d for d in said if d["schema"] == "alluxio-provision/error/1"]
    name = f"part {failed['batch']['number']}/3"
    whole = merged(tmp_path, ran.stdout, "--format", "json").expect(2).json
    assert (whole["schema"], whole["exit_code"]) == ("alluxio-provision/check-nodes/1", 2)
    told = {p["where"]: p["id"] for p in whole["problems"] if p["severity"] == "error"}
    assert told.pop(name) == "inventory-invalid"
    assert [*told.values()] == ["ssh-key-unusable"]
    merged(tmp_path, ran.stdout).expect(2, f"error: {name}: ", "(exit code 2)")


def test_a_part_that_was_killed_is_missing_until_it_ran_again(
    lab: Lab, controls: Sequence[Host], tmp_path: Path
) -> None:
    ran = by_parallel(controls, tmp_path, 3, "check-nodes")
    first, second, third = split(ran.stdout)
    gone = merged(tmp_path, f"{first}{third}")
    number = json.loads(second)["batch"]["number"]
    gone.expect(3, f"1 of 3 parts is missing: {number}/3", "[part-missing]")
    batch = ("--batch", f"{number}/3", "--format", "json")
    again = lab.invoke("check-nodes", None, *batch).expect(0)
    merged(tmp_path, f"{first}{third}{again.stdout}").expect(0, "2 workers: 2 LIVE")
    merged(tmp_path, f"{first}{third}{second}{again.stdout}").expect(2, "is there twice")


def split(text: str) -> list[str]:
    """Each document of the output."""
    return [f"{part}\n}}\n" for part in text.split("\n}\n") if part.strip()]
