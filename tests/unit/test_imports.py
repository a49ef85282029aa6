"""Which libraries a command line imports: what it does not need costs every run its time.

Counted, not timed. bench/ has the times.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

#: Libraries whose import takes time, by their top-level names.
pytestmark = pytest.mark.process

HEAVY = {"invoke", "fabric", "paramiko", "grpc", "etcd3", "pydantic", "cryptography", "jinja2"}
HEAVY |= {"rich", "ruamel", "yaml"}
_RUN = """
import contextlib, io, json, sys
sys.argv = ["alluxio-provision", *json.loads(sys.argv[1])]
from provision.cli.main import main
said = io.StringIO()
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
    main()
print(json.dumps([said.getvalue(), sorted(sys.modules)]))
"""
ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "inventory" / "example.yml")
#: One member, without TLS, whose host nobody can reach.
AWAY = """\
cluster: Away
ssh: {user: nobody, port: 1, connect_timeout: 2}
etcd:
  version: 3.6.16
  source: {package: true}
  tls: {peer: false, client: false}
  members:
    etcd0: {host: 127.0.0.1, address: 127.0.0.1}
"""
#: Invoke itself. Its own configuration may be YAML, which is imported when there is some.
TASKS = {"invoke"}
#: An inventory in usual YAML.
INVENTORY = {*TASKS, "pydantic"}


def modules(*words: str, says: bool = True) -> set[str]:
    """The modules that a run of ``alluxio-provision`` imports. ``says``: it prints its answer."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(words)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    said, found = json.loads(done.stdout.splitlines()[-1])
    assert bool(said) is says, done.stderr
    return set(found)


def imported(*words: str, says: bool = True) -> set[str]:
    """The heavy libraries that a run of ``alluxio-provision`` imports."""
    return HEAVY & {name.partition(".")[0] for name in modules(*words, says=says)}


@pytest.mark.parametrize(
    "words", [(), ("help",), ("--help",), ("-h",), ("--version",), ("-V",)], ids=" ".join
)
def test_the_first_screen_and_the_version_need_none(words: tuple[str, ...]) -> None:
    assert imported(*words) == set()


def test_the_version_measures_no_screen() -> None:
    assert {"shutil", "textwrap"}.isdisjoint(modules("--version"))


#: How many modules a completion may import beside Python itself: re, shlex, and what they import.
#: 45 with Python 3.13.
COMPLETION = 50
#: Modules of Python that are no part of it: each takes as long as all names together.
SLOW = {"typing", "pathlib", "dataclasses", "inspect", "json", "signal", "threading", "urllib"}
SLOW |= {"importlib", "warnings", "datetime", "ipaddress", "logging", "tempfile"}
_COMPLETE = """
import sys
before = set(sys.modules)
sys.argv = ["alluxio-provision", "--complete-names", "workers", "", "logs", "-i", sys.argv[1]]
from provision.cli.main import main
main()
print(*sorted(set(sys.modules) - before))
"""


def completed(inventory: str) -> tuple[list[str], set[str]]:
    """The names for a completion, and the modules that it imports: beside those of a bare Python,
    without what a site adds to it."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _COMPLETE, inventory],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    *names, found = done.stdout.splitlines()
    return names, set(found.split())


def test_names_for_a_completion_need_hardly_a_module() -> None:
    names, found = completed(EXAMPLE)
    assert names
    assert {name.partition(".")[0] for name in found} & (HEAVY | SLOW) == set()
    assert len(found) <= COMPLETION, sorted(found)


def test_names_in_yaml_that_is_rare_need_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text("x: &w {host: h}\nalluxio: {workers: {w1: *w}}\n")
    names, found = completed(str(path))
    assert names == ["w1"]
    assert HEAVY & {name.partition(".")[0] for name in found} == {"ruamel"}


@pytest.mark.parametrize(
    "words",
    [
        ("--list",),
        ("help", "workers"),
        ("help", "check-nodes"),
        ("--print-completion-script", "bash"),
        ("explain", "host-unreachable"),
        ("show-schema", "plan"),
    ],
    ids=" ".join,
)
def test_help_and_texts_need_invoke_alone(words: tuple[str, ...]) -> None:
    assert imported(*words) <= TASKS


def test_invoke_comes_without_its_test_double() -> None:
    found = modules("--list")
    assert "invoke.context" in found
    assert {"unittest", "unittest.mock", "asyncio"}.isdisjoint(found)


def test_whoever_wants_a_test_double_afterwards_gets_a_real_one() -> None:
    code = "from provision.cli.lightly import import_invoke; import_invoke(); import_invoke(); "
    code += "from unittest.mock import Mock; print(Mock(return_value=7)())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "7\n"


def test_a_configuration_of_invoke_s_own_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".invoke.yaml").write_text("tasks: {dedupe: false}\n")
    found = modules("help", "check-nodes")
    assert {"invoke.vendor.yaml", "invoke.vendor.yaml.loader"} <= found


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (("show-inventory", "--format", "json"), set()),
        (("show-inventory",), {"rich"}),
        (("export-ssh-config",), set()),
        (("render-client-config",), {"jinja2"}),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_contacts_nobody_needs_neither_ssh_nor_grpc(
    words: tuple[str, ...], more: set[str]
) -> None:
    assert imported(*words, "--inventory", EXAMPLE) <= INVENTORY | more


@pytest.mark.parametrize("task", ["deploy-etcd", "check-nodes", "status"])
def test_an_inventory_with_a_mistake_needs_no_more_than_its_reader(
    task: str, tmp_path: Path
) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text(AWAY.replace("etcd0:", "etcd 0:"))
    assert imported(task, "--inventory", str(path), says=False) <= INVENTORY


def test_a_cluster_without_tls_needs_no_certificates_and_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text(AWAY)
    found = modules("deploy-etcd", "--inventory", str(path), says=False)
    assert "paramiko" in found  # it came as far as the hosts
    assert "rich" not in found
    assert "cryptography.x509" not in found
    for name in ("pki.own_ca", "pki.external_ca", "pki.certificates"):
        assert f"provision.etcd.{name}" not in found
    assert {"ruamel", "provision.cli.help", "provision.cli.completion"}.isdisjoint(found)
    assert {n for n in found if n.startswith(("asyncio.", "grpc.aio."))} == set()
    assert {n for n in found if n.endswith("kubernetes")} == {"provision.kubernetes"} & found


def test_grpc_comes_without_asyncio_which_is_there_for_who_uses_it() -> None:
    code = "import json, sys; from provision.cli.lightly import start_lightly; start_lightly(); "
    code += "import grpc; grpc.insecure_channel('127.0.0.1:9').close(); "
    code += "print(json.dumps(sorted(sys.modules))); "
    code += "import asyncio; print(asyncio.run(asyncio.sleep(0, 7)), grpc.aio.Channel.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found, works = done.stdout.splitlines()
    assert [n for n in json.loads(found) if n.startswith(("asyncio.", "grpc.aio."))] == []
    assert works == "7 Channel"


def test_the_plan_for_etcd_needs_no_worker_s_and_no_lock() -> None:
    """What a run that changes nothing does not use."""
    code = "import json, sys; import provision.plans.etcd.deploy_etcd; "
    code += "import provision.etcd.cluster.guard; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found = json.loads(done.stdout)
    others = (
        *("alluxio", "plans.alluxio", "engine.lock", "engine.audit", "cli", "check_nodes"),
        *("inventory.kubernetes", "etcd.cluster.metrics", "etcd.cluster.scratch"),
        *("etcd.cluster.served_certs", "etcd.cluster.wal"),
    )
    assert [n for n in found if n.startswith(tuple(f"provision.{o}" for o in others))] == []
    assert {"grpc", "rich", "jinja2", "paramiko", "cryptography"}.isdisjoint(found)


@pytest.mark.parametrize(
    "program",
    [
        ("-c", "from provision.cli.main import script; script()"),
        ("-m", "invoke"),
        ("-B", "-m", "invoke"),
    ],
    ids=" ".join,
)
def test_in_a_clone_the_first_run_compiles_for_all_later_ones(
    program: tuple[str, ...], tmp_path: Path
) -> None:
    """Invoke forbids Python to keep anything that it compiles."""
    for name in ("provision", "templates"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "tasks.py", tmp_path)
    subprocess.run(
        [sys.executable, *program, "show-inventory", "--inventory", EXAMPLE],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
    )
    kept = {path.name.partition(".")[0] for path in tmp_path.rglob("*.pyc")}
    assert ({"loader", "model", "show"} <= kept) is ("-B" not in program)
