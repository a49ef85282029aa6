"""The lab, brought up and clean. Modules say in what state they want it."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import longest

from .lab import CONNECTED, LAB, RELEASE, REPO, SSH, Lab, connected, ssh_hosts

#: The hosts that `lab up` starts.
NAMES = ("etcd0", "etcd1", "etcd2", "worker0", "worker1")

#: The files that take minutes, the longest first.
LONGEST = (
    *("restore", "which_cluster", "recover", "ssh", "rotate_certs", "worker_start", "backup"),
    *("check_nodes", "interrupted", "workers", "generated", "rehearsal", "worker_life"),
    *("members", "preflight", "docs", "destroy", "upgrade", "tool_version", "faults"),
    *("service_users", "auth", "worker_faults", "first_hour", "batches"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest.first(items, LONGEST)
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)
            double = item.get_closest_marker("double")
            if double and RELEASE.real:
                (why,) = double.args
                item.add_marker(pytest.mark.skip(reason=f"not with a real Alluxio: {why}"))


def pytest_report_header() -> str:
    return f"under test: {RELEASE}"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if not _is_up():
        for command in ("artifacts", "up"):
            subprocess.run([LAB, command], check=True)
    with connected(NAMES, tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def clean(lab: Lab) -> None:
    """Nothing of the tool is on any host."""
    lab.clear()


@pytest.fixture(scope="module")
def cluster(lab: Lab, clean: None) -> None:
    """etcd as inventory/lab.yml declares it, whatever a module before has left."""
    lab.invoke("deploy-etcd").expect(0)


@pytest.fixture(scope="module")
def workers(lab: Lab, cluster: None) -> None:
    """etcd and workers as inventory/lab.yml declares them."""
    lab.invoke("start-workers").expect(0)


@pytest.fixture(autouse=True)
def _private_and_owned() -> Iterator[None]:
    """After every test, whatever task it ran: modes on the hosts are as they are to be."""
    yield
    for lab in CONNECTED:
        lab.require_modes()


@pytest.fixture(autouse=True, scope="module")
def _folders_of_the_system() -> Iterator[None]:
    """After every module: what it removed of its own was in the system's folders, never these."""
    yield
    folders = " ".join(f"/{name}" for name in ("home", "media", "mnt", "opt", "srv", "var/opt"))
    look = f"for d in {folders}; do [ -d $d ] || {{ echo $d; mkdir $d; }}; done"
    gone = [found for lab in CONNECTED for found in lab.on(list(lab.hosts.values()), look)]
    assert not any(gone), gone


@pytest.fixture(scope="module")
def clone(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what somebody has who has cloned the repository and brought the lab up."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("tasks.py", "invoke.yaml", "provision", "templates", ".venv"):
        (folder / name).symlink_to(REPO / name)
    (folder / ".lab").mkdir()
    (folder / ".lab" / "ssh").symlink_to(SSH)
    (folder / "inventory").mkdir()
    (folder / "inventory" / "lab.yml").write_bytes(lab.declared.read_bytes())
    return folder


def _is_up() -> bool:
    addresses = ssh_hosts()
    return all(name in addresses and _answers(addresses[name]) for name in NAMES)


def _answers(address: str) -> bool:
    try:
        socket.create_connection((address, 22), 2).close()
    except OSError:
        return False
    return True
