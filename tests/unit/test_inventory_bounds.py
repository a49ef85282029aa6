"""Rules of the inventory exactly at their bounds: what is still taken, and what is no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.inventory.checks.hosts import _is_loopback
from provision.inventory.sentences import shorten
from tests.unit.test_inventory_loader import edited, findings

VERSION = "version: 3.6.16"
MEMBER = "    infra2: {host: infra2.example.com, address: 10.0.1.12}\n"


def settings(text: str) -> tuple[str, str]:
    return ("  members:", f"  settings: {{{text}}}\n  members:")


def properties(text: str) -> tuple[str, str]:
    return ("version: 313", f"version: 313\n  properties: {{{text}}}")


def members(count: int) -> tuple[str, str]:
    """``count`` members instead of the last, so two more than that altogether."""
    lines = [MEMBER.replace("infra2", f"more{n}").replace(".12", f".{n}") for n in range(20, 40)]
    return (MEMBER, "".join(lines[:count]))


CASES: dict[str, tuple[tuple[str, str], list[str]]] = {
    "etcd 3.3.27": ((VERSION, "version: 3.3.27"), ["etcd-version-unfit"]),
    "etcd 3.4.0": ((VERSION, "version: 3.4.0"), []),
    "etcd 3.4.19": ((VERSION, "version: 3.4.19"), []),
    "etcd 3.4.20": ((VERSION, "version: 3.4.20"), ["etcd-version-unfit"]),
    "etcd 3.4.21": ((VERSION, "version: 3.4.21"), ["etcd-version-unfit"]),
    "etcd 3.4.22": ((VERSION, "version: 3.4.22"), []),
    "etcd 3.4.34": ((VERSION, "version: 3.4.34"), []),
    "etcd 3.5.0": ((VERSION, "version: 3.5.0"), ["etcd-version-unfit"]),
    "etcd 3.5.2": ((VERSION, "version: 3.5.2"), ["etcd-version-unfit"]),
    "etcd 3.5.5": ((VERSION, "version: 3.5.5"), ["etcd-version-unfit"]),
    "etcd 3.5.6": ((VERSION, "version: 3.5.6"), []),
    "etcd 3.6.1": ((VERSION, "version: 3.6.1"), []),
    "election of five heartbeats": (
        settings("heartbeat-interval: 200, election-timeout: 1000"),
        [],
    ),
    "election a millisecond shorter": (
        settings("heartbeat-interval: 200, election-timeout: 999"),
        ["inventory-value-invalid"],
    ),
    "longest election": (settings("election-timeout: 50000"), []),
    "election a millisecond longer": (
        settings("election-timeout: 50001"),
        ["inventory-value-invalid"],
    ),
    "shortest heartbeat": (settings("heartbeat-interval: 1"), []),
    "no heartbeat": (settings("heartbeat-interval: 0"), ["inventory-value-invalid"]),
    "election beside a heartbeat that is none": (
        settings("heartbeat-interval: [100], election-timeout: 400"),
        ["inventory-value-invalid"],
    ),
    "a release beside the one that runs": (
        ("  members:", "  releases: {3.5.9: {path: x.tar.gz, sha256: file:SUMS}}\n  members:"),
        [],
    ),
    "compaction by a number of revisions": (
        settings("auto-compaction-mode: revision, auto-compaction-retention: 1000"),
        [],
    ),
    "a plain port that has no effect": (
        ("  members:", "  tls: {plain_client_port: 2380}\n  members:"),
        ["inventory-no-effect"],
    ),
    "a plain port that is none": (
        ("  members:", "  tls: {client: true, plain_client_port: http}\n  members:"),
        ["inventory-value-invalid"],
    ),
    "programs in a folder of data": (
        (
            "version: 313",
            "version: 313\n  install_dir: /srv/data/alluxio\n"
            "  page_store: {dirs: [/srv/data], sizes: [1GB]}",
        ),
        ["inventory-conflict", "inventory-unwise"],
    ),
    "a port by reference": (properties("alluxio.worker.web.port: '${other}'"), []),
    "ports that the system chooses": (
        properties("alluxio.worker.web.port: 0, alluxio.worker.data.port: 0"),
        [],
    ),
    "the least port twice": (
        properties("alluxio.worker.web.port: 1, alluxio.worker.data.port: 1"),
        ["inventory-conflict"],
    ),
    "largest quota": (settings("quota-backend-bytes: 8589934592"), []),
    "quota a byte larger": (settings("quota-backend-bytes: 8589934593"), ["inventory-unwise"]),
    "a switch that is called like a secret": (
        properties("a.password.enabled: true, b.token: 'FALSE', c.secret: 'false'"),
        [],
    ),
    "a secret's place": (properties("fs.gcs.credential.path: /etc/gcs.json"), []),
    "a secret called a place": (
        properties("fs.gcs.credential.path: etc/gcs.json"),
        ["inventory-secret-inline"],
    ),
    "two members": (members(0), ["member-count"]),
    "three members": (members(1), []),
    "seven members": (members(5), []),
    "eight members": (members(6), ["member-count", "member-count"]),
    "nine members": (members(7), ["member-count"]),
}


def test_every_member_s_own_mistake_is_named(tmp_path: Path) -> None:
    edits = [
        (f"10.0.1.1{n}}}", f"10.0.1.1{n}, settings: {{heartbeat-interval: 0}}}}") for n in (1, 2)
    ]
    found = findings(tmp_path / "lab.yml", edited(*edits).encode())
    assert [p.where.rpartition(".yml:")[2] for p in found] == ["7:91", "8:91"]


def test_a_broken_login_is_not_also_missing(tmp_path: Path) -> None:
    edits = [
        ("  members:", "  auth: {enabled: true, root_password: {env: R}}\n  members:"),
        ("version: 313", "version: 313\n  etcd: {username: [a], password: {env: P}}"),
    ]
    found = findings(tmp_path / "lab.yml", edited(*edits).encode())
    assert {p.where.rpartition(".yml:")[2] for p in found} == {"12:10"}, "\n".join(map(str, found))


@pytest.mark.parametrize("case", CASES)
def test_at_the_bound(case: str, tmp_path: Path) -> None:
    edit, ids = CASES[case]
    found = findings(tmp_path / "lab.yml", edited(edit).encode())
    assert [p.id for p in found] == ids, "\n".join(map(str, found))


@pytest.mark.parametrize(
    ("release", "said"),
    [
        (
            "3.5.9: {package: true}",
            "error :5:31: release 3.5.9 cannot come from a package: a host has only one etcd "
            "package (give a tarball by path or url) [inventory-value-invalid]",
        ),
        (
            "3.6.16: {path: x.tar.gz, sha256: file:SUMS}",
            "warning :5:14: 3.6.16 is etcd.version: etcd.source has its tarball, so this "
            "tarball is not used (remove it) [inventory-no-effect]",
        ),
    ],
)
def test_what_is_said_of_a_release(release: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "lab.yml"
    text = edited(("  members:", f"  releases: {{{release}}}\n  members:"))
    (problem,) = findings(path, text.encode())
    assert f"{problem.severity} {problem.line}".replace(str(path), "") == said


def test_what_does_not_come_to_etcd_needs_nothing_there(tmp_path: Path) -> None:
    closed = "  tls: {client: true}\n  auth: {enabled: true, root_password: {env: R}}\n  members:"
    edits = [("  members:", closed), ("version: 313", "version: 313\n  membership: STATIC")]
    found = findings(tmp_path / "lab.yml", edited(*edits).encode())
    assert [problem.id for problem in found] == ["static-workers-unused"]


@pytest.mark.parametrize(
    ("count", "ids"), [(1, ["member-count"]), (2, ["inventory-unwise", "member-count"])]
)
def test_one_plain_address_for_several_members(count: int, ids: list[str], tmp_path: Path) -> None:
    tls = "  tls: {client: true, plain_client_port: 2378, plain_client_address: 10.0.1.99}"
    text = edited(("  members:", f"{tls}\n  members:"), (MEMBER, ""))
    if count == 1:
        text = text.replace("    infra1: {host: infra1.example.com, address: 10.0.1.11}\n", "")
    assert [p.id for p in findings(tmp_path / "lab.yml", text.encode())] == ids


@pytest.mark.parametrize(("length", "shown"), [(60, "a" * 60), (61, "a" * 57 + "...")])
def test_a_text_is_shortened(length: int, shown: str) -> None:
    assert shorten("a" * length) == repr(shown)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LocalHost.LocalDomain", True),
        ("127.0.0.53", True),
        ("1.2.3.4", False),
        ("::1", True),
        ("fd00::1", False),
        ("9worker.example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_only_this_host_is_reached_at_loopback(host: str, loopback: bool) -> None:
    assert _is_loopback(host) is loopback
