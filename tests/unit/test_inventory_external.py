"""An inventory whose etcd is taken care of elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.check_nodes import status
from provision.cli.commands import namespace
from provision.cli.run import Run
from provision.errors import InventoryError, UsageError
from provision.etcd.api.values import RegisteredMember
from provision.etcd.cluster.health import ClusterHealth
from provision.inventory import Inventory, load, provenance, read
from tests.unit.test_check import healthy

BASE = """\
cluster: Other
etcd:
  external:
    endpoints: ["http://10.0.1.10:2379", "http://[2001:db8::1]:2379/", "http://etcd2:12379"]
alluxio:
  version: 313
  source: {path: alluxio.tar.gz, sha256: file:SUMS}
  workers:
    worker[1-2]: {host: "worker[1-2].example.com"}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "other.yml"
    path.write_text(BASE)
    return path


@pytest.fixture
def inventory(path: Path) -> Inventory:
    return load(path)


def said(path: Path, old: str, new: str) -> list[str]:
    assert old in BASE
    path.write_text(BASE.replace(old, new, 1))
    with pytest.raises(InventoryError) as caught:
        load(path)
    return [f"{p.where.removeprefix(f'{path}:')}: {p.what}" for p in caught.value.problems]


def test_its_endpoints_are_what_workers_are_given(inventory: Inventory) -> None:
    assert inventory.alluxio is not None
    assert inventory.alluxio.etcd_endpoints == (
        *("http://10.0.1.10:2379", "http://[2001:db8::1]:2379", "http://etcd2:12379"),
    )
    assert [m.name for m in inventory.etcd.members] == [
        *("10.0.1.10:2379", "[2001:db8::1]:2379", "etcd2:12379")
    ]


def test_without_workers_it_is_asked_from_here(path: Path) -> None:
    path.write_text(BASE[: BASE.index("alluxio:")])
    asked = [m.machine for m in load(path).etcd.members]
    assert [m.host for m in asked] == ["10.0.1.10", "2001:db8::1", "etcd2"]
    assert {m.where for m in asked} == {str(path)}


def test_no_host_of_it_is_ours(inventory: Inventory) -> None:
    assert [m.host for m in inventory.machines] == ["worker1.example.com", "worker2.example.com"]
    assert [r.name for r in status.roles(inventory)] == ["worker1", "worker2"]
    # What cannot be reached from here may be from where the workers are.
    ways = [m.machine.host for m in inventory.etcd.members]
    assert ways == [f"worker{n}.example.com" for n in (1, 2, 1)]


def test_only_what_was_said_is_shown(path: Path) -> None:
    shown = [r.path for r in provenance(read(path)) if r.path.startswith("etcd.")]
    assert shown == ["etcd.external.endpoints"]


def test_nothing_stands_beside_it(path: Path) -> None:
    more = "etcd:\n  version: 3.6.16\n  auth: {enabled: true}\n"
    assert said(path, "etcd:\n", more) == [
        "3:3: 'version' does not go with 'external': that etcd is managed elsewhere",
        "4:3: 'auth' does not go with 'external': that etcd is managed elsewhere",
    ]


@pytest.mark.parametrize(
    ("endpoint", "what"),
    [
        ("https://10.0.1.10:2379", "is a TLS listener, and Alluxio 313 has no property for TLS"),
        ("http://10.0.1.10", "is not an endpoint such as http://"),
        ("http://user:x@10.0.1.10:2379", "the URL holds a login; secrets must not"),
        ("http://10.0.1.10:2379/v2/keys", "is not an endpoint such as http://"),
        ("http://10.0.1.10:99999", "is not a URL: Port out of range"),
        ("http://10.0.1.300:2379", "is not an IPv4 address"),
        ("http://etcd2:12379", "etcd2:12379 is listed twice"),
        ("10.0.1.10:2379", "must be an http:// or https:// URL"),
    ],
)
def test_endpoints_that_are_none(path: Path, endpoint: str, what: str) -> None:
    (problem,) = said(path, "http://10.0.1.10:2379", endpoint)
    assert problem.startswith("4:")
    assert what in problem


@pytest.mark.parametrize(
    ("task", "given"),
    [
        ("deploy-etcd", ()),
        ("add-member", ()),
        ("remove-member", ("m",)),
        ("replace-member", ("m",)),
        ("upgrade-etcd", ("3.6.16",)),
        ("move-leader", ("m",)),
        ("rotate-certs", ()),
        ("export-csrs", ("folder",)),
        ("import-certs", ("folder",)),
        ("enable-auth", ()),
        ("disable-auth", ()),
        ("backup-etcd", ()),
        ("restore-etcd", ("file",)),
        ("recover-etcd", ("m",)),
        ("defrag-etcd", ()),
        ("disarm-alarms", ()),
    ],
)
def test_commands_that_manage_etcd_refuse(path: Path, task: str, given: tuple[Any, ...]) -> None:
    run = Run("the-command", path)
    with pytest.raises(UsageError, match="the-command is for the inventory that declares"):
        namespace[task].act(run, *given)
    assert run._fleet is None  # nothing was contacted


def test_its_own_members_are_no_disagreement() -> None:
    one = RegisteredMember(1, "infra1", ("http://10.0.0.1:2380",), (), False)
    seen = healthy()
    members = tuple(replace(m, registered=(one,)) for m in seen.members)
    ours = ClusterHealth(seen.cluster, members)
    assert ours.problems
    assert ClusterHealth(replace(seen.cluster, external=True), members).problems == []
