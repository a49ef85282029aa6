"""Ctrl-C in the first second: exit code 130 and one line, of both programs."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
#: How each program is called, and the first thing it imports behind the handler of Ctrl-C.
PROGRAMS = {
    "alluxio-provision": ([f"{BIN}/alluxio-provision"], "provision.cli.program"),
    "invoke": ([f"{BIN}/invoke"], "provision.cli.chain"),
}
#: Interrupts this process at the import of that number, and says how many there were.
SITE = """
import atexit, os, signal, sys

class Cut:
    count = 0

    def find_spec(self, name, path=None, target=None):
        if self.count or name == os.environ["CUT_FROM"]:
            self.count += 1
            if self.count == 1:
                os.close(os.open(os.environ["BEGUN"], os.O_WRONLY | os.O_CREAT))
            if self.count == int(os.environ["CUT_AT"]):
                os.kill(os.getpid(), signal.SIGINT)

cut = Cut()
sys.meta_path.insert(0, cut)
if os.environ["CUT_AT"] == "0":
    atexit.register(lambda: sys.stderr.write(f"{cut.count} imports"))
"""
CUTS = 20
SAID = "error: interrupted [interrupted]\n"


class Started:
    """A program with :data:`SITE` in it; ``begun`` is there when it can be interrupted."""

    def __init__(self, folder: Path, program: str, arguments: list[str], at: int) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(SITE)
        words, first = PROGRAMS[program]
        self.begun = folder / "begun"
        cut = {"CUT_FROM": first, "CUT_AT": str(at), "BEGUN": str(self.begun)}
        self.process = subprocess.Popen(
            [*words, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(folder), **cut},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ends(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.mark.process
@pytest.mark.parametrize("program", PROGRAMS)
def test_at_an_import(tmp_path: Path, program: str) -> None:
    show = ["show-inventory", "--inventory", "inventory/example.yml"]
    _, whole, err = Started(tmp_path / "whole", program, show, 0).ends()
    found = re.search(r"(\d+) imports", err)
    assert found is not None, err
    total = int(found[1])
    assert total > 5 * CUTS
    for number in range(CUTS):
        at = 1 + number * (total - 1) // CUTS
        code, out, err = Started(tmp_path / str(at), program, show, at).ends()
        assert (code, err) == (130, SAID), f"import {at} of {total}"
        # Ctrl-C waits for the end of an import or a validation, of which this command consists
        # almost alone: it may have printed its answer by then, whole.
        assert out in ("", whole), f"import {at} of {total}"


@pytest.mark.process
@pytest.mark.parametrize("program", PROGRAMS)
def test_at_a_time(tmp_path: Path, program: str) -> None:
    """A host takes the connection and says nothing: the run would last for ten seconds."""
    (tmp_path / "known_hosts").touch()
    with socket.create_server(("0.0.0.0", 0), backlog=64) as silent:
        inventory = tmp_path / "inventory.yml"
        inventory.write_text(
            f"""
cluster: c
ssh: {{port: {silent.getsockname()[1]}, known_hosts: known_hosts, connect_timeout: 2}}
etcd:
  version: 3.6.16
  source: {{package: true}}
  members:
    infra[0-2]: {{host: "127.0.0.[1-3]"}}
"""
        )
        for number in range(CUTS // 2):
            after = number / (CUTS // 2)
            deploy = ["status", "--inventory", str(inventory)]
            started = Started(tmp_path / str(number), program, deploy, -1)
            while not started.begun.exists():
                assert started.process.poll() is None
                time.sleep(0.001)
            time.sleep(after)
            started.process.send_signal(signal.SIGINT)
            assert started.ends() == (130, "", SAID), f"after {after} s"


@pytest.mark.process
def test_the_command_has_imported_nothing_before_it_handles_ctrl_c() -> None:
    show = "import sys; before = {*sys.modules}; import provision.cli.main; "
    show += "print(*{*sys.modules} - before)"
    done = subprocess.run(
        [sys.executable, "-c", show], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seen = done.stdout.split()
    ours = {name for name in seen if name.partition(".")[0] not in sys.stdlib_module_names}
    assert ours == {"provision", "provision.cli", "provision.cli.main", "provision.cli.lightly"}
    assert len(seen) < 25, done.stdout  # 20 with Python 3.10, of the standard library
