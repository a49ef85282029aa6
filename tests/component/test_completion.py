"""Completion in real shells: bash, zsh and fish, each with the script that the program prints."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.cli.commands import namespace
from provision.cli.complete import OPTION
from provision.cli.completion import SHELLS
from provision.cli.first_screen import GROUPS
from provision.ids import IDS

PROGRAM = Path(sys.executable).with_name("alluxio-provision")
TASKS = {*namespace.task_names}
INVENTORY = """\
etcd:
  members:
    infra[0-2]: {host: "infra[0-2].example.com"}
alluxio:
  masters:
    master1: {host: m1.example.com}
  workers:
    worker[01-20]: {host: "worker[01-20].example.com"}
    "$(touch hit)": {host: "`touch hit`"}
"""
#: Seconds for a shell to answer. Completion itself is measured apart.
LONG = 30
#: Seconds that a person waits for names: twice what the program may take, on a machine with load.
SOON = 0.3
#: Records what a Python process does to files and sockets; prints it at its end.
AUDIT = """\
import atexit, os, sys
seen = []
def hook(event, args):
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        seen.append((event, str(args[0])))
    elif event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        seen.append((event, str(args[0])))
    elif event.split(".")[0] in ("socket", "subprocess") or event in (
        "os.mkdir", "os.rename", "os.remove", "os.system", "os.posix_spawn", "os.fork"
    ):
        seen.append((event, ""))
sys.addaudithook(hook)
heavy = ("invoke", "pydantic", "rich", "fabric", "paramiko", "cryptography", "grpc", "jinja2")
atexit.register(lambda: sys.stderr.write(f"{seen} {[m for m in heavy if m in sys.modules]}"))
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script for each shell."""
    folder = tmp_path_factory.mktemp("scripts")
    found = {}
    for shell in SHELLS:
        path = folder / ("_alluxio_provision" if shell == "zsh" else f"alluxio-provision.{shell}")
        line = [str(PROGRAM), "--print-completion-script", shell]
        path.write_bytes(subprocess.run(line, capture_output=True, check=True).stdout)
        found[shell] = path
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the words are typed: with an inventory, a file, a folder, and the program, which
    leaves a mark when it is started."""
    home = tmp_path / "home"
    (home / "inventory").mkdir(parents=True)
    (home / "inventory" / "inventory.yml").write_text(INVENTORY)
    (home / "other.yml").write_text("alluxio: {workers: {edge7: {host: e}, edge8: {host: f}}}\n")
    (home / "requests").mkdir()
    program = tmp_path / "bin" / "alluxio-provision"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ntouch "{tmp_path}/started"\nexec {PROGRAM} "$@"\n')
    program.chmod(0o755)
    return home


class Shell:
    """A shell on a terminal, in a folder, with the script loaded."""

    def __init__(self, name: str, script: Path, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.mark = folder.parent / "started"
        self.environment = {
            "HOME": str(folder),
            "PATH": f"{folder.parent}/bin:{os.environ['PATH']}",
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            "XDG_CONFIG_HOME": f"{folder.parent}/config",
            "XDG_DATA_HOME": f"{folder.parent}/data",
        }
        self.script = script
        self.terminal: _Terminal | None = None

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        if self.terminal is not None:
            self.terminal.close()

    def offers(self, words: str) -> set[str]:
        """The words that may stand in place of the last one of ``words``."""
        if self.name == "fish":
            return self._fish(words)
        if self.terminal is None:
            self.terminal = _Terminal(self._command(), self.folder, self.environment)
            for line in self._setup():
                self.terminal.type(f"{line}\r")
        return self.terminal.completions(words, self.name)

    def _command(self) -> list[str]:
        return ["bash", "--norc", "--noprofile", "-i"] if self.name == "bash" else ["zsh", "-fi"]

    def _setup(self) -> list[str]:
        if self.name == "bash":
            return ["bind 'set enable-bracketed-paste off'", f". {self.script}"]
        # All matches are put into the line; nothing asks or lists.
        return [
            f"fpath=({self.script.parent} $fpath); autoload -Uz compinit",
            "compinit -D",
            "compdef -p _alluxio_provision 2>/dev/null; autoload -Uz _alluxio_provision",
            "compdef _alluxio_provision alluxio-provision",
            "every() { _main_complete; ((compstate[nmatches] > 1)) && compstate[insert]=all }",
            "unset zle_bracketed_paste",
            "zle -C every complete-word every; bindkey '^X' every",
        ]

    def _fish(self, words: str) -> set[str]:
        line = [shutil.which("fish") or "fish", "--no-config", "-c"]
        code = f"source {self.script}; complete --do-complete '{words}'"
        done = subprocess.run(
            [*line, code],
            capture_output=True,
            text=True,
            check=True,
            cwd=self.folder,
            env=self.environment,
        )
        assert done.stderr == ""
        return {line.partition("\t")[0] for line in done.stdout.splitlines()}


class _Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, environment)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def completions(self, words: str, shell: str) -> set[str]:
        """Insert all completions into the line, and let ``printf`` show its words."""
        begin, end = "BEG" + "IN", "EN" + "D"
        insert = "\x1b*" if shell == "bash" else "\x18"
        self.type(words + insert)
        self.type(f" {end}\x01printf '<%s>\\n' {begin} \r")
        shown = self._until(f"<{end}>")
        found = re.findall(r"<([^<>\r\n]*)>", shown.rpartition(f"<{begin}>")[2])
        before = words.split()
        fresh = found[len(before) - (not words.endswith(" ")) : -1]
        return {*fresh}

    def _until(self, mark: str) -> str:
        seen, deadline = "", time.monotonic() + LONG
        while f"\n{mark}" not in seen:
            left = deadline - time.monotonic()
            assert left > 0, seen
            if select.select([self.fd], [], [], left)[0]:
                seen += os.read(self.fd, 65536).decode(errors="replace")
        return seen


@pytest.fixture(params=SHELLS)
def shell(
    request: pytest.FixtureRequest, scripts: dict[str, Path], folder: Path
) -> Iterator[Shell]:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: `tests/lab/lab deps` installs it")
    with Shell(name, scripts[name], folder) as shell:
        yield shell


class TestStatic:
    """No program is started for these."""

    def test_tasks(self, shell: Shell) -> None:
        assert shell.offers("alluxio-provision ") == TASKS | {"help"}
        assert shell.offers("alluxio-provision move-l") == {"move-leader"}
        assert shell.offers("alluxio-provision deploy-etcd --dry-run start-w") == {"start-workers"}
        assert not shell.mark.exists()

    def test_options(self, shell: Shell) -> None:
        assert {"--to", "--keep", "-i", "--help"} <= shell.offers("alluxio-provision backup-etcd -")
        assert shell.offers("alluxio-provision restart-workers --at") == {"--at-once"}
        assert shell.offers("alluxio-provision status restart-workers -n --af") == {"--afresh"}
        assert shell.offers("alluxio-provision --vers") == {"--version"}
        assert not shell.mark.exists()

    def test_values_that_are_known(self, shell: Shell) -> None:
        assert shell.offers("alluxio-provision check-nodes --format ") == {
            "table",
            "json",
            "prometheus",
        }
        assert shell.offers("alluxio-provision status -nf j") == {"json"}
        assert shell.offers("alluxio-provision explain host-key-") == {
            id for id in IDS if id.startswith("host-key-")
        }
        assert shell.offers("alluxio-provision show-schema check-") == {"check-nodes"}
        assert {"plan", "trust-hosts"} <= shell.offers("alluxio-provision show-schema ")
        keys = {group.key for group in GROUPS}
        assert keys | TASKS | {"all"} <= shell.offers("alluxio-provision help ")
        assert not shell.mark.exists()

    def test_files(self, shell: Shell) -> None:
        for words in ("status --inventory o", "status -i o", "init-inventory o"):
            assert shell.offers(f"alluxio-provision {words}") == {"other.yml"}
        assert shell.offers("alluxio-provision check-nodes --html o") == {"other.yml"}
        assert shell.offers("alluxio-provision status --debug oth") == {"other.yml"}
        found = shell.offers("alluxio-provision export-csrs req")
        assert {word.rstrip("/") for word in found} == {"requests"}
        assert not shell.mark.exists()

    def test_consent_is_typed(self, shell: Shell) -> None:
        before = set() if shell.name == "fish" else {""}
        for words in ("destroy --yes-delete ", "recover-etcd a --yes-recover "):
            assert shell.offers(f"alluxio-provision {words}") - {""} <= before
        assert not shell.mark.exists()


class TestNames:
    """By the program, of the inventory in force."""

    def test_of_the_role(self, shell: Shell) -> None:
        infra = {"infra0", "infra1", "infra2"}
        for task in ("move-leader", "remove-member", "recover-etcd", "add-member", "rotate-certs"):
            assert shell.offers(f"alluxio-provision {task} ") == infra, task
        assert shell.offers("alluxio-provision decommission-worker worker2") == {"worker20"}
        assert shell.offers("alluxio-provision start-masters ") == {"master1"}
        assert shell.mark.exists()

    def test_of_every_host(self, shell: Shell) -> None:
        assert shell.offers("alluxio-provision logs m") == {"master1", "m1.example.com"}
        assert shell.offers("alluxio-provision audit infra0") == {"infra0", "infra0.example.com"}

    def test_several(self, shell: Shell) -> None:
        for words in ("restart-workers", "status -v --limit"):
            assert shell.offers(f"alluxio-provision {words} worker01,worker2") == {
                "worker01,worker20"
            }
        assert "worker01,worker01" not in shell.offers(
            "alluxio-provision stop-workers worker01,worker0"
        )

    def test_behind_an_equals_sign(self, shell: Shell) -> None:
        found = shell.offers("alluxio-provision status --limit=infra2")
        assert {word.rpartition("=")[2] for word in found} == {"infra2"}

    def test_of_another_inventory(self, shell: Shell) -> None:
        for words in ("-i other.yml", "--inventory=other.yml", "--inventory ~/other.yml"):
            assert shell.offers(f"alluxio-provision start-workers {words} ") == {"edge7", "edge8"}

    def test_of_the_environment_s_inventory(self, shell: Shell) -> None:
        shell.environment["PROVISION_INVENTORY"] = "other.yml"
        assert shell.offers("alluxio-provision start-workers ") == {"edge7", "edge8"}

    def test_a_file_s_text_is_never_executed(self, shell: Shell) -> None:
        assert len(shell.offers("alluxio-provision start-workers ")) == 20
        assert not (shell.folder / "hit").exists()


def asked(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, OPTION, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **more},
    )


def test_nothing_is_contacted_and_nothing_is_written(folder: Path) -> None:
    (folder / "sitecustomize.py").write_text(AUDIT)
    done = asked(folder, "workers+", "", PYTHONPATH=str(folder))
    assert len(done.stdout.splitlines()) == 20
    assert done.stderr == "[] []"


@pytest.mark.parametrize("text", ["", "a: [", "etcd: []", "etcd: {members: {a[: {}}}"])
def test_an_error_is_no_answer(folder: Path, text: str) -> None:
    (folder / "x.yml").write_text(text)
    for words in (("members", "", "-i", "x.yml"), ("members", "", "-i", "none"), ("nope", "")):
        done = asked(folder, *words)
        assert (done.stdout, done.stderr) == ("", "")


def test_names_come_soon(folder: Path) -> None:
    """With 200 workers; processor time, which other work on the machine does not change."""
    (folder / "x.yml").write_text(INVENTORY.replace("[01-20]", "[001-200]"))
    before = os.times()
    for _ in range(3):
        assert len(asked(folder, "workers", "", "-i", "x.yml").stdout.split()) == 200
    now = os.times()
    used = now.children_user + now.children_system - before.children_user - before.children_system
    assert used / 3 < SOON
