"""A unit's sandbox leaves the service its folders and its ports, and is closed otherwise."""

from __future__ import annotations

import pytest

from provision.host.sandbox import Sandbox, sandbox
from provision.inventory.system_folders import refusal

CLOSED = Sandbox("yes", "yes", "")


def test_closed() -> None:
    assert sandbox(["/var/lib/etcd", "/homes/x", "/dev/shmem"], [0, 1024, 65535]) == CLOSED


@pytest.mark.parametrize(
    ("folder", "opened"),
    [
        ("/home/etcd/data", Sandbox("no", "yes", "")),
        ("/dev/shm/pages", Sandbox("yes", "no", "")),
    ],
)
def test_folders(folder: str, opened: Sandbox) -> None:
    assert sandbox(["/var/lib/x", folder]) == opened


def test_a_port_that_needs_a_capability() -> None:
    assert sandbox([], [2379, 443]) == Sandbox("yes", "yes", "CAP_NET_BIND_SERVICE")


@pytest.mark.parametrize("folder", ["/tmp/pages", "/var/tmp/x/y"])
def test_what_the_system_empties_is_no_place(folder: str) -> None:
    assert "which the system empties" in refusal(folder)
    assert refusal(f"/data{folder}") == ""
