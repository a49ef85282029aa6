"""A unit's sandbox leaves the service its folders and its ports, and is closed otherwise."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from provision.alluxio.worker import desired as desired_worker
from provision.etcd.member import desired
from provision.host import disks
from provision.host.resources import File
from provision.host.sandbox import Sandbox, sandbox
from provision.inventory import model
from provision.inventory.system_folders import refusal
from tests.unit import builders, hosts

CLOSED = Sandbox("yes", "yes", "")


def test_closed() -> None:
    assert sandbox(["/var/lib/etcd", "/homes/x", "/dev/shmem"], [0, 1024, 65535]) == CLOSED


@pytest.mark.parametrize(
    ("folder", "opened"),
    [
        (
            "/home/etcd/data",
            Sandbox("no", "yes", "", ("ProtectHome is off: /home/etcd/data is below /home.",)),
        ),
        (
            "/dev/shm/pages",
            Sandbox("yes", "no", "", ("RemoveIPC is off: /dev/shm/pages is below /dev/shm.",)),
        ),
    ],
)
def test_folders(folder: str, opened: Sandbox) -> None:
    assert sandbox(["/var/lib/x", folder]) == opened


def test_a_port_that_needs_a_capability() -> None:
    why = ("CAP_NET_BIND_SERVICE is allowed: port 443 is below 1024.",)
    assert sandbox([], [2379, 443]) == Sandbox("yes", "yes", "CAP_NET_BIND_SERVICE", why)


@pytest.mark.parametrize("name", ["etcd.service", "etcd-backup.service", "alluxio-worker.service"])
def test_the_unit_says_what_is_open_and_why(name: str) -> None:
    """A plan shows the unit, so the operator reads it there before anything is changed."""
    member = replace(builders.member(1), data_dir="/home/e/data", client_port=379)
    backup = model.EtcdBackup(dir="/home/e/backups")
    cluster = builders.etcd(member, backup=backup)
    stores = builders.worker("w1").page_store.model_copy(update={"dirs": ["/dev/shm/p"]})
    worker = builders.worker("w1")._replace(page_store=stores)
    given = desired_worker.Artifacts(hosts.TARBALL, None, hosts.RELEASE)
    every = [
        *desired.resources(cluster, member, hosts.TARBALL, None, None),
        *desired_worker.resources(builders.alluxio(worker), worker, given, None),
    ]
    (unit,) = [r for r in every if isinstance(r, File) and r.path.endswith(f"/{name}")]
    text = (unit.content or b"").decode()
    expected = {
        "etcd.service": [
            "# ProtectHome is off: /home/e/data is below /home.",
            "# CAP_NET_BIND_SERVICE is allowed: port 379 is below 1024.",
        ],
        "etcd-backup.service": ["# ProtectHome is off: /home/e/backups is below /home."],
        "alluxio-worker.service": ["# RemoveIPC is off: /dev/shm/p is below /dev/shm."],
    }[name]
    said = [line for line in text.splitlines() if re.match("# .* is (off|allowed): ", line)]
    assert said == expected
    # A running service needs no restart for these lines.
    without = "".join(f"{line}\n" for line in text.splitlines() if line not in said)
    assert disks.is_for_next_start(without, text.encode())


@pytest.mark.parametrize("key", ["state_dir", "log_dir"])
@pytest.mark.parametrize("role", ["worker", "master"])
def test_no_folder_of_alluxio_is_emptied_at_its_stop(role: str, key: str) -> None:
    """RemoveIPC deletes what its user has in /dev/shm, not only page stores."""
    folders: dict[str, Any] = {key: "/dev/shm/a"}
    alluxio = replace(builders.alluxio(), **folders)
    text = desired_worker.service(alluxio, role, "w1", "/opt/alluxio/current/bin/x").decode()
    assert "\nRemoveIPC=no\n" in text
    assert (
        "\nRemoveIPC=yes\n"
        in desired_worker.service(
            builders.alluxio(), role, "w1", "/opt/alluxio/current/bin/x"
        ).decode()
    )


@pytest.mark.parametrize("role", ["worker", "master"])
@pytest.mark.parametrize(
    ("folder", "made"),
    [("/var/log/alluxio", "alluxio"), ("/var/log/a/b", "a/b"), ("/data/var/log/a", None)],
)
def test_systemd_makes_the_log_folder_where_it_can(role: str, folder: str, made: str) -> None:
    alluxio = replace(builders.alluxio(), log_dir=folder)
    text = desired_worker.service(alluxio, role, "w1", "/opt/alluxio/current/bin/x").decode()
    assert re.findall(r"^LogsDirectory=(.*)$", text, re.MULTILINE) == ([made] if made else [])
    # A running service needs no restart for it.
    without = "".join(line for line in text.splitlines(True) if not line.startswith("Logs"))
    assert disks.is_for_next_start(without, text.encode())


@pytest.mark.parametrize("folder", ["/tmp/pages", "/var/tmp/x/y"])
def test_what_the_system_empties_is_no_place(folder: str) -> None:
    assert "which the system empties" in refusal(folder)
    assert refusal(f"/data{folder}") == ""
