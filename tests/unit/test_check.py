from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from provision import check_nodes
from provision.alluxio.commands import nodes, read
from provision.alluxio.commands.nodes import InfoNodes, NodeRow
from provision.alluxio.commands.read import ReadProof
from provision.alluxio.commands.readiness import Readiness
from provision.alluxio.membership import leases, registrations
from provision.alluxio.membership.registrations import (
    Entry,
    Registration,
    RegistrationSnapshot,
    UnknownRegistration,
)
from provision.alluxio.worker import desired
from provision.check_nodes import CheckReport, NodeVerdict, State, collect, verdicts, worker_hosts
from provision.check_nodes.worker_hosts import WorkerHosts
from provision.errors import Problem, ProvisionError, UsageError
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.api.values import Endpoint, KeyValue, MemberStatus
from provision.etcd.cluster import health
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.cluster.served_certs import CertificateState
from provision.etcd.pki import imported
from provision.host.facts import UnitState
from provision.inventory import ports
from provision.inventory.membership_type import MembershipType
from provision.inventory.model import AlluxioEtcd, EtcdTls, Secret
from provision.inventory.resolved import AlluxioWorker, Inventory
from provision.ssh.session import Fleet
from tests.unit.builders import alluxio, etcd, inventory, member, worker

A, B, C = (f"worker-{c * 8}-0000-0000-0000-000000000000" for c in "abc")
LEASE = 7


def entry(
    worker_id: str, host: str, port: int = 29999, lease: int = 0, revision: int = 1, **changed: Any
) -> Entry:
    key = KeyValue(b"k", b"v", lease, revision)
    known = {"state": "AUTHORIZED", "generation": -1, "data_port": 0, "web_port": 0}
    values = {**known, "identity": worker_id, **changed}
    return Entry(key, Registration(worker_id=worker_id, host=host, rpc_port=port, **values))


def members(
    *found: tuple[str, str], dead: tuple[tuple[str, str], ...] = ()
) -> RegistrationSnapshot:
    """``found`` are live (id, host), ``dead`` are registered only."""
    return RegistrationSnapshot(
        "c",
        9,
        {i: entry(i, host) for i, host in (*found, *dead)},
        {i: entry(i, host, lease=LEASE) for i, host in found},
    )


def rows(*found: tuple[str, str, str]) -> list[NodeRow]:
    return [NodeRow(i, host, 29999, status) for i, host, status in found]


def states(found: list[NodeVerdict]) -> list[tuple[str | None, str]]:
    return [(n.name, n.state.value) for n in found]


W1, W2 = worker("w1"), worker("w2")


def test_all_live() -> None:
    found = verdicts(
        alluxio(W1, W2),
        members((A, "w1"), (B, "W2")),
        rows((A, "w1", "ONLINE"), (B, "w2", "ONLINE")),
    )
    assert states(found) == [("w1", "LIVE"), ("w2", "LIVE")]
    assert [n.worker_id for n in found] == [A, B]
    assert [n.info_nodes for n in found] == ["ONLINE", "ONLINE"]
    assert all(n.ok for n in found)


def test_the_four_states() -> None:
    found = verdicts(
        alluxio(W1, W2, worker("w3")),
        members((A, "w1"), (C, "stranger"), dead=((B, "w2"),)),
        rows((A, "w1", "ONLINE"), (B, "w2", "OFFLINE"), (C, "stranger", "ONLINE")),
    )
    assert states(found) == [
        ("w1", "LIVE"),
        ("w2", "FAILED"),
        ("w3", "UNREGISTERED"),
        (None, "UNKNOWN"),
    ]
    assert [n.ok for n in found] == [True, False, False, False]
    assert found[1].notes == found[2].notes == ()
    assert found[3].notes == ("live, not in the inventory",)
    assert found[3].address == "stranger:29999"
    assert [n.info_nodes for n in found] == ["ONLINE", "OFFLINE", None, "ONLINE"]


@pytest.mark.parametrize(
    ("registered", "info", "note"),
    [
        (
            members((A, "w1")),
            rows((A, "w1", "OFFLINE")),
            "live in etcd, OFFLINE in info nodes",
        ),
        (
            members(dead=((A, "w1"),)),
            rows((A, "w1", "ONLINE")),
            "no lease in etcd, ONLINE in info nodes",
        ),
        (members((A, "w1")), rows(), "info nodes does not list it"),
        (
            RegistrationSnapshot(
                "c",
                1,
                {A: entry(A, "w1", older=True)},
                {A: entry(A, "w1", lease=LEASE, older=True)},
            ),
            rows(),
            "info nodes does not list it: Alluxio 313 cannot read an older release's registration",
        ),
        (
            members((A, "w1")),
            [NodeRow(A, "w1", 1, "ONLINE")],
            "info nodes has it at w1:1",
        ),
        (members(), rows((A, "w1", "ONLINE")), f"info nodes lists {A}, etcd does not"),
        (
            RegistrationSnapshot("c", 1, {}, {A: entry(A, "w1", lease=LEASE)}),
            rows((A, "w1", "ONLINE")),
            "live without an AUTHORIZED key",
        ),
        (
            RegistrationSnapshot("c", 1, {A: entry(A, "w1")}, {A: entry(A, "w1", lease=0)}),
            rows((A, "w1", "OFFLINE")),
            "its live key has no lease, so the key does not show that the worker runs",
        ),
        (
            RegistrationSnapshot("c", 1, {A: entry(A, "old")}, {A: entry(A, "w1", lease=LEASE)}),
            rows((A, "w1", "ONLINE")),
            "its live and its AUTHORIZED key have different addresses",
        ),
        (
            RegistrationSnapshot("c", 1, {A: entry(A, "w1", state="DECOMMISSIONED")}, {}),
            rows((A, "w1", "OFFLINE")),
            "decommissioned in etcd",
        ),
    ],
)
def test_a_disagreement_is_a_note_and_not_ok(
    registered: RegistrationSnapshot, info: list[NodeRow], note: str
) -> None:
    (found,) = verdicts(alluxio(W1), registered, info)
    assert found.name == "w1"
    assert found.notes == (note,)
    assert not found.ok


def test_an_old_id_of_a_live_host_is_stale() -> None:
    found = verdicts(
        alluxio(W1),
        members((B, "w1"), dead=((A, "w1"),)),
        rows((A, "w1", "OFFLINE"), (B, "w1", "ONLINE")),
    )
    assert states(found) == [("w1", "LIVE"), (None, "UNKNOWN")]
    assert found[0].ok
    assert (found[1].worker_id, found[1].notes) == (A, (f"stale: w1 is live as {B}",))


def test_of_two_dead_ids_the_newer_is_the_workers() -> None:
    registered = RegistrationSnapshot(
        "c", 9, {A: entry(A, "w1", revision=2), B: entry(B, "w1", revision=8)}, {}
    )
    found = verdicts(alluxio(W1), registered, None)
    assert [(n.name, n.worker_id) for n in found] == [("w1", B), (None, A)]
    assert found[1].notes == (f"stale: w1 has the newer registration {B}",)


def test_the_same_address_live_under_two_ids() -> None:
    found = verdicts(alluxio(W1), members((A, "w1"), (B, "w1")), None)
    assert states(found) == [("w1", "LIVE"), (None, "UNKNOWN")]
    assert found[0].ok  # nobody was asked who could list it
    assert found[1].notes == (f"live at the address of w1, which is {found[0].worker_id}",)


def test_a_known_identity_finds_a_worker_at_another_address() -> None:
    uuid = A.removeprefix("worker-").upper()
    found = verdicts(alluxio(W1), members((A, "new-name")), None, identities={"w1": uuid})
    assert states(found) == [("w1", "LIVE")]
    assert found[0].notes == ("registered as new-name:29999, the inventory says w1:29999",)


@pytest.mark.parametrize("known", [A, A.removeprefix("worker-").replace("-", "").upper()])
def test_an_identity_has_several_spellings(known: str) -> None:
    found = verdicts(alluxio(W1), members((A, "w1")), None, identities={"w1": known})
    assert [n.notes for n in found] == [()]


def test_a_known_identity_that_is_not_in_etcd() -> None:
    found = verdicts(alluxio(W1), members(), None, identities={"w1": A})
    assert states(found) == [("w1", "UNREGISTERED")]


def test_a_live_worker_whose_identity_file_says_otherwise() -> None:
    found = verdicts(alluxio(W1), members((A, "w1")), None, identities={"w1": B})
    assert states(found) == [("w1", "LIVE")]
    assert found[0].notes == (f"its identity file says {B}",)


def test_of_dead_ids_the_identity_decides() -> None:
    registered = RegistrationSnapshot(
        "c", 9, {A: entry(A, "w1", revision=8), B: entry(B, "elsewhere", revision=2)}, {}
    )
    found = verdicts(alluxio(W1), registered, None, identities={"w1": B})
    assert (found[0].worker_id, found[0].state) == (B, State.FAILED)
    assert found[1].notes == (f"stale: w1 has the newer registration {B}",)


def test_one_identity_on_two_hosts_is_one_workers_only() -> None:
    found = verdicts(alluxio(W1, W2), members((A, "w2")), None, identities={"w1": A, "w2": A})
    assert states(found) == [("w1", "UNREGISTERED"), ("w2", "LIVE")]


def test_another_port_of_a_known_host() -> None:
    registered = RegistrationSnapshot("c", 1, {A: entry(A, "w1", 31000)}, {})
    found = verdicts(alluxio(W1), registered, None)
    assert states(found) == [("w1", "UNREGISTERED"), (None, "UNKNOWN")]
    assert found[1].notes == ("no lease, on the host of w1, whose port is 29999 in the inventory",)


def unreadable(worker_id: str, lease: int) -> Entry:
    return Entry(KeyValue(b"k", b"v", lease, 1), UnknownRegistration(worker_id, "\ufffdsr"))


def test_a_value_of_another_form_is_shown() -> None:
    registered = RegistrationSnapshot(
        "c", 1, {"h": unreadable("h", 0)}, {"h": unreadable("h", LEASE)}
    )
    found = verdicts(alluxio(W1), registered, None)
    assert states(found) == [("w1", "UNREGISTERED"), (None, "UNKNOWN")]
    assert (found[1].address, found[1].port) == ("", 0)
    assert found[1].notes == (
        "live, not in the inventory",
        "its value in etcd is of an unknown form: \ufffdsr",
    )


def test_alluxios_own_reading_helps_with_another_form() -> None:
    registered = RegistrationSnapshot(
        "c", 1, {"h": unreadable("h", 0)}, {"h": unreadable("h", LEASE)}
    )
    found = verdicts(alluxio(W1), registered, rows(("h", "w1", "ONLINE")))
    assert states(found) == [("w1", "LIVE")]
    assert found[0].notes == ("its value in etcd is of an unknown form: \ufffdsr",)


def test_what_only_info_nodes_lists_is_unknown() -> None:
    found = verdicts(alluxio(W1), members((A, "w1")), rows((A, "w1", "ONLINE"), (C, "x", "ONLINE")))
    assert states(found) == [("w1", "LIVE"), (None, "UNKNOWN")]
    note = f"info nodes lists {C}, etcd does not"
    assert found[1] == NodeVerdict(None, "x", 29999, State.UNKNOWN, C, "ONLINE", (note,))


def test_a_declared_worker_that_only_info_nodes_lists() -> None:
    found = verdicts(alluxio(W1), members(), rows((A, "W1", "OFFLINE")))
    note = f"info nodes lists {A}, etcd does not"
    assert found == [NodeVerdict("w1", "w1", 29999, State.UNREGISTERED, None, "OFFLINE", (note,))]


def test_a_lease_that_has_expired_and_is_there_is_not_live() -> None:
    seen = members((A, "w1"), (B, "w2"), (C, "x"))
    asked = rows((A, "w1", "ONLINE"), (B, "w2", "ONLINE"), (C, "x", "ONLINE"))
    assert {e.key.lease for e in seen.live.values()} == {LEASE}
    assert states(verdicts(alluxio(W1, W2), seen, asked, expired={LEASE + 1: 60}))[0][1] == "LIVE"
    found = verdicts(alluxio(W1, W2), seen, asked, expired={LEASE: 60})
    assert states(found) == [("w1", "STALE"), ("w2", "STALE"), (None, "UNKNOWN")]
    said = "its lease expired 60 s ago, and etcd has not removed it: Alluxio counts it as live"
    assert [n.notes for n in found] == [(said,), (said,), ("live, not in the inventory", said)]
    assert not found[0].ok


def test_a_verdict_has_the_whole_value() -> None:
    seen = members((A, "w1"))
    (found,) = verdicts(alluxio(W1), seen, None)
    assert found.registration == seen.live[A].registration
    document: Any = report(found).document()
    assert document["alluxio"]["nodes"][0]["registration"]["web_port"] == 0
    assert document["alluxio"]["nodes"][0]["registration"]["container_host"] == ""


def test_a_stranger_that_info_nodes_does_not_list() -> None:
    found = verdicts(alluxio(W1), members((A, "w1"), (C, "x")), rows((A, "w1", "ONLINE")))
    assert found[1].notes == ("live, not in the inventory", "info nodes does not list it")


def test_without_etcd_alluxios_word_is_taken() -> None:
    info = rows((A, "w1", "ONLINE"), (B, "w2", "OFFLINE"), (C, "x", "ONLINE"))
    found = verdicts(alluxio(W1, W2, worker("w3")), None, info)
    assert states(found) == [
        ("w1", "LIVE"),
        ("w2", "FAILED"),
        ("w3", "UNREGISTERED"),
        (None, "UNKNOWN"),
    ]
    assert [n.info_nodes for n in found] == ["ONLINE", "OFFLINE", None, "ONLINE"]
    assert found[3].notes == ("not in the inventory",)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_rows_of_one_address_the_one_online_is_taken(order: int) -> None:
    info = rows((A, "w1", "OFFLINE"), (B, "W1", "ONLINE"))[::order]
    found = verdicts(alluxio(W1), None, info)
    assert [(n.name, n.state, n.worker_id) for n in found] == [
        ("w1", State.LIVE, B),
        (None, State.UNKNOWN, A),
    ]


def test_without_any_view_nothing_is_claimed() -> None:
    found = verdicts(alluxio(W1), None, None)
    assert states(found) == [("w1", "UNDETERMINED")]
    assert not found[0].ok


def test_service_registry_goes_by_the_live_key_alone() -> None:
    registered = RegistrationSnapshot("c", 1, {B: entry(B, "w2")}, {A: entry(A, "w1", lease=LEASE)})
    found = verdicts(alluxio(W1, W2, membership=MembershipType.SERVICE_REGISTRY), registered, None)
    assert states(found) == [("w1", "LIVE"), ("w2", "UNREGISTERED")]
    assert found[0].ok


def test_static_goes_by_the_port() -> None:
    # The id is a hash, and the port is the asked host's own for all: as recorded from 313.
    info = [NodeRow("1f", "w1", 29999, "N/A"), NodeRow("2f", "w2", 29999, "N/A")]
    cluster = alluxio(W1, worker("w2", port=31000), worker("w3"), membership=MembershipType.STATIC)
    found = verdicts(cluster, None, info, reachable={"w1": True, "w2": False, "w3": True})
    assert states(found) == [("w1", "REACHABLE"), ("w2", "UNREACHABLE"), ("w3", "REACHABLE")]
    assert [n.info_nodes for n in found] == ["N/A", "N/A", None]
    assert [n.worker_id for n in found] == ["1f", "2f", None]
    assert [n.notes for n in found] == [(), (), ("info nodes does not list it",)]


def test_static_with_two_workers_on_a_host() -> None:
    info = [NodeRow("2f", "w1", 31000, "N/A"), NodeRow("1f", "w1", 29999, "N/A")]
    cluster = alluxio(W1, worker("w2", host="w1", port=31000), membership=MembershipType.STATIC)
    found = verdicts(cluster, None, info, reachable={"w1": True})
    assert [n.worker_id for n in found] == ["1f", "2f"]
    assert states(found) == [("w1", "REACHABLE"), ("w2", "UNDETERMINED")]


def test_static_with_a_stranger_in_conf_workers() -> None:
    found = verdicts(
        alluxio(W1, membership=MembershipType.STATIC),
        None,
        rows(("1f", "w1", "N/A"), ("2f", "x", "N/A")),
        reachable={"w1": True},
    )
    assert states(found) == [("w1", "REACHABLE"), (None, "UNKNOWN")]
    assert found[1].notes == ("in conf/workers, not in the inventory",)


@pytest.mark.long
def test_of_ten_thousand_workers_exactly_the_dead_are_failed() -> None:
    workers = [worker(f"w{i}") for i in range(10_000)]
    found = [(f"worker-{i:032x}", f"w{i}") for i in range(10_000)]
    registered = members(*found[100:], dead=tuple(found[:100]))
    info = rows(*((i, h, "OFFLINE" if n < 100 else "ONLINE") for n, (i, h) in enumerate(found)))
    cluster = alluxio(*workers)
    result = verdicts(cluster, registered, info)
    assert [n.name for n in result if n.state is State.FAILED] == [f"w{i}" for i in range(100)]
    assert sum(n.ok for n in result) == 9_900


STATUS = MemberStatus(
    cluster_id=1,
    member_id=1,
    version="3.6.16",
    db_size=20480,
    db_in_use=16384,
    leader=1,
    revision=9,
    raft_term=2,
    raft_index=20,
    is_learner=False,
    errors=(),
)


def healthy(**changed: Any) -> ClusterHealth:
    cluster = etcd()
    return ClusterHealth(
        cluster,
        tuple(
            MemberHealth(
                m, "direct", dataclasses.replace(STATUS, member_id=i, **changed), seconds=0.001
            )
            for i, m in enumerate(cluster.members, 1)
        ),
    )


def with_members(**changed: Any) -> ClusterHealth:
    """Every member of :func:`healthy`, otherwise."""
    seen = healthy()
    return dataclasses.replace(
        seen, members=tuple(dataclasses.replace(m, **changed) for m in seen.members)
    )


def report(*nodes: NodeVerdict, **changed: Any) -> CheckReport:
    values: dict[str, Any] = {
        "cluster": "c",
        "alluxio": alluxio(),
        "etcd": healthy(),
        "nodes": nodes,
        "info_nodes": InfoNodes("w1"),
        "revision": 9,
    }
    return CheckReport(**{**values, **changed})


LIVE = NodeVerdict("w1", "w1", 29999, State.LIVE, A, "ONLINE")


def test_the_exit_code() -> None:
    assert report(LIVE).exit_code == 0
    assert report(LIVE, LIVE._replace(notes=("x",))).exit_code == 1
    assert report(LIVE._replace(state=State.FAILED)).exit_code == 1
    assert report(LIVE, view_problems=(Problem("etcd", "x", id="disk-full"),)).exit_code == 1
    assert (
        report(LIVE, view_problems=(Problem("etcd", "x", "", "warning", id="disk-full"),)).exit_code
        == 0
    )
    assert report(LIVE, etcd=healthy(errors=("memberID:1 alarm:NOSPACE ",))).exit_code == 1


def test_the_summary() -> None:
    assert report(LIVE).summary == "1 worker: 1 LIVE"
    assert report().summary == "0 workers: none"
    assert (
        report(
            LIVE._replace(state=State.FAILED),
            LIVE._replace(notes=("x",)),
            LIVE,
            LIVE._replace(name=None, state=State.UNKNOWN, notes=("x",)),
        ).summary
        == "3 workers: 2 LIVE, 1 FAILED; 1 not in the inventory; 1 with notes"
    )


def test_the_document_is_what_scripts_use() -> None:
    until = datetime.now(timezone.utc) + timedelta(days=3, hours=1)
    seen = healthy(errors=("memberID:1 alarm:NOSPACE ",))
    states = CertificateState("peer", until), CertificateState("client", None, "has expired")
    first = dataclasses.replace(seen.members[0], seconds=0.00123456, certificates=states)
    away = MemberHealth(member(3), error="connection refused")
    document: Any = report(
        LIVE,
        LIVE._replace(name=None, state=State.UNKNOWN, notes=("x",)),
        etcd=ClusterHealth(seen.cluster, (first, seen.members[1], away)),
        taken=datetime(2026, 1, 2, 3, 4, 5, 678_901, timezone.utc),
        seconds=1.23456,
        info_nodes=InfoNodes("w1", seconds=2.34567),
        view_problems=(Problem("etcd", "x", "y", "warning", id="disk-full"),),
    ).document()
    problems = document.pop("problems")
    assert problems[0] == Problem("etcd", "x", "y", "warning", id="disk-full").document()
    assert [p["where"] for p in problems[1:]] == [f"etcd member infra{i}" for i in (1, 1, 1, 2, 3)]
    assert document["etcd"]["members"].pop(1)["name"] == "infra2"
    assert document["alluxio"]["nodes"].pop(1)["notes"] == ["x"]
    assert document == {
        "schema": "alluxio-provision/check-nodes/1",
        "cluster": "c",
        "exit_code": 1,
        "taken": "2026-01-02T03:04:05.678+00:00",
        "seconds": 1.235,
        "etcd": {
            "healthy": 2,
            "quorum": 2,
            "leader": "infra1",
            "revision": 9,
            "members": [
                {
                    "name": "infra1",
                    "endpoint": "http://10.0.0.1:2379",
                    "healthy": True,
                    "error": None,
                    "how": "direct",
                    "read_seconds": 0.0012,
                    "status": {
                        "member_id": "1",
                        "leader": True,
                        "learner": False,
                        "version": "3.6.16",
                        "revision": 9,
                        "raft_term": 2,
                        "raft_index": 20,
                        "db_size": 20480,
                        "db_in_use": 16384,
                        "quota": None,
                        "quota_known": False,
                        "alarms": ["NOSPACE"],
                    },
                    "certificates": [
                        {
                            "listener": "peer",
                            "not_after": until.isoformat(),
                            "days_left": 3,
                            "error": None,
                        },
                        {
                            "listener": "client",
                            "not_after": None,
                            "days_left": None,
                            "error": "has expired",
                        },
                    ],
                },
                {
                    "name": "infra3",
                    "endpoint": "http://10.0.0.3:2379",
                    "healthy": False,
                    "error": "connection refused",
                    "how": away.how,
                    "read_seconds": None,
                    "status": None,
                    "certificates": [],
                },
            ],
        },
        "alluxio": {
            "membership": "ETCD",
            "failure_detection_timeout": 120,
            "summary": "1 worker: 1 LIVE; 1 not in the inventory",
            "counts": {"LIVE": 1, "UNKNOWN": 1},
            "revision": 9,
            "leases": None,
            "info_nodes": {"host": "w1", "error": "", "seconds": 2.346},
            "nodes": [
                {
                    "name": "w1",
                    "host": "w1",
                    "port": 29999,
                    "state": "LIVE",
                    "ok": True,
                    "worker_id": A,
                    "info_nodes": "ONLINE",
                    "notes": [],
                    "registration": None,
                    "ready": None,
                },
            ],
        },
        "read": None,
        "backups": None,
    }
    unasked: Any = report(LIVE, info_nodes=None).document()
    assert unasked["alluxio"]["info_nodes"] is None


def test_expiry_is_a_warning_and_then_an_error() -> None:
    now = datetime.now(timezone.utc)

    def problems(state: CertificateState) -> list[tuple[str, str]]:
        seen = healthy()
        first = dataclasses.replace(seen.members[0], certificates=(state,))
        seen = ClusterHealth(seen.cluster, (first, *seen.members[1:]))
        return [(p.severity, p.what.split(",")[0]) for p in seen.problems]

    day = timedelta(days=1)
    assert problems(CertificateState("peer", now + 31 * day)) == []
    assert problems(CertificateState("peer", now + 29.5 * day)) == [
        ("warning", "peer certificate expires in 29 days")
    ]
    assert problems(CertificateState("peer", None, "certificate has expired"))[0][0] == "error"


#: What the look at etcd is to find out besides the members' health.
QUESTIONS = {"certificates": True, "quotas": True}


class Views:
    """The three views that :func:`check.run` asks, without a network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.info = InfoNodes("w1", tuple(rows((A, "w1", "ONLINE"), (B, "w2", "ONLINE"))))
        self.reads = [members((A, "w1"), (B, "w2"))]
        self.names = ["c"]
        self.health = healthy()
        #: What each view was asked with, in the order of the questions.
        self.asked: list[tuple[object, ...]] = []
        monkeypatch.setattr(health, "preload", lambda: None)
        monkeypatch.setattr(health, "observing", self.observing)
        monkeypatch.setattr(nodes, "ask", self.ask)
        monkeypatch.setattr(collect, "_read", self.read)

    def observing(self, asked: Etcd, **named: object) -> Iterator[MemberHealth]:
        self.asked.append(("health", asked.cluster, asked.fleet, asked.login, named))
        self.began = datetime.now(timezone.utc)
        yield from self.health.members

    def ask(self, *given: object) -> InfoNodes:
        self.asked.append(("nodes", *given))
        return self.info

    def read(self, declared: Inventory, asked: Etcd, *given: object) -> collect._Read:
        handle = asked.cluster, asked.fleet, asked.login
        self.asked.append(("read", declared, *handle, *given))
        if not self.reads:
            raise ProvisionError("no leader", id="etcd-refused")
        return collect._Read(self.reads.pop(0), self.names)


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> Views:
    return Views(monkeypatch)


def checked(declared: Inventory, fleet: Fleet | None = None, **options: Any) -> CheckReport:
    return check_nodes.run(declared, Etcd(declared.etcd, fleet or Fleet(2)), **options)


def test_a_run_over_all_views(views: Views) -> None:
    declared, fleet = inventory(), Fleet(2)
    began, before = time.monotonic(), datetime.now(timezone.utc)
    found = checked(declared, fleet, nodes_timeout=3, etcd_timeout=2)
    assert found.exit_code == 0
    assert found.summary == "2 workers: 2 LIVE"
    assert found.revision == 9
    assert (found.cluster, found.alluxio) == ("c", declared.alluxio)
    assert found.info_nodes is views.info
    assert before <= found.taken <= views.began
    assert 0 < found.seconds <= time.monotonic() - began
    assert sorted(views.asked, key=lambda one: str(one[0])) == [
        ("health", declared.etcd, fleet, None, {**QUESTIONS, "timeout": 2}),
        ("nodes", fleet, declared.alluxio, 3),
        ("read", declared, declared.etcd, fleet, None, 2),
    ]


@pytest.mark.usefixtures("unplugged")
def test_without_etcd_nobody_waits_for_a_table_that_does_not_come(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = threading.Event()
    views.health = with_members(error="does not answer")

    def hang(*given: object) -> InfoNodes:
        assert hanging.wait(60)
        return views.info

    monkeypatch.setattr(nodes, "ask", hang)
    found = checked(inventory(), nodes_timeout=0.09)
    hanging.set()
    assert found.info_nodes is not None
    said = "did not answer in 0 s, and no member of etcd serves reads"
    assert (found.info_nodes.host, found.info_nodes.error) == ("w1", said)
    assert 0.03 <= found.info_nodes.seconds < 30
    # A host that sees more of etcd than this one, or with membership STATIC its own file, answers.
    monkeypatch.setattr(nodes, "ask", views.ask)
    assert checked(inventory(), nodes_timeout=60).info_nodes is views.info
    monkeypatch.setattr(collect, "_table", None)
    assert checked(inventory(alluxio(membership=MembershipType.STATIC))).info_nodes is views.info
    for serves in (healthy(), with_members(error="wants a login", refused=True)):
        views.health = serves
        assert checked(inventory()).info_nodes is views.info


def test_etcd_is_asked_with_the_workers_login(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_PASSWORD", "hunter2")
    login = AlluxioEtcd(username="alluxio", password=Secret(env="ETCD_PASSWORD"))
    views.reads = [members((A, "w1")), members((A, "w1"))]  # two looks: w2 is noted
    declared, fleet = inventory(alluxio(etcd_login=login)), Fleet(2)
    checked(declared, fleet, etcd_timeout=2)
    with_it = desired.login(alluxio(etcd_login=login))
    assert with_it is not None
    of_health = next(one for one in views.asked if one[0] == "health")
    assert of_health[-2:] == (with_it, {**QUESTIONS, "timeout": 2})
    reads = [one for one in views.asked if one[0] == "read"]
    assert [one[:5] for one in reads] == [("read", declared, declared.etcd, fleet, with_it)] * 2


def test_what_changed_between_two_looks_is_no_disagreement(views: Views) -> None:
    views.reads = [members((A, "w1"), dead=((B, "w2"),)), members((A, "w1"), (B, "w2"))]
    assert checked(inventory()).exit_code == 0
    assert views.reads == []


def test_what_both_looks_see_is_a_disagreement(views: Views) -> None:
    views.reads = [members((A, "w1"), dead=((B, "w2"),)) for _ in range(2)]
    found = checked(inventory())
    assert found.nodes[1].notes == ("no lease in etcd, ONLINE in info nodes",)
    assert found.exit_code == 1


def test_a_second_look_that_fails_leaves_the_first(views: Views) -> None:
    views.reads = [members((A, "w1"), dead=((B, "w2"),))]
    found = checked(inventory())
    assert found.nodes[1].notes == ("no lease in etcd, ONLINE in info nodes",)
    assert [one[0] for one in views.asked].count("read") == 2
    assert found.revision == 9


def test_identities_are_looked_at(views: Views) -> None:
    views.reads = [members((A, "w1"), (B, "w2")) for _ in range(2)]
    found = checked(inventory(), identities={"w1": A, "w2": C})
    assert [n.notes for n in found.nodes] == [(), (f"its identity file says {C}",)]


def test_info_nodes_that_hung_leaves_the_other_views(views: Views) -> None:
    views.info = InfoNodes("w1", error="w1: did not answer in 15 s")
    found = checked(inventory())
    assert [str(p) for p in found.problems] == ["info nodes: w1: did not answer in 15 s"]
    assert found.summary == "2 workers: 2 LIVE"
    assert found.exit_code == 1


def test_before_the_first_start_workers_are_not_installed(views: Views) -> None:
    views.reads = [members()]
    hosts = frozenset(w.machine for w in alluxio().workers)
    views.info = InfoNodes("w1", error="not there", without=hosts, installed=False)
    found = checked(inventory())
    assert [(n.state.value, n.notes) for n in found.nodes] == [
        ("NOT_INSTALLED", ("not installed yet: run invoke start-workers",))
    ] * 2
    assert found.problems == []
    assert (found.exit_code, found.summary) == (1, "2 workers: 2 NOT_INSTALLED")


def test_a_live_worker_whose_host_has_no_alluxio_is_noted(views: Views) -> None:
    views.reads = [members((A, "w1"), (B, "w2")) for _ in range(2)]
    views.info = dataclasses.replace(views.info, without=frozenset({W1.machine}))
    found = checked(inventory())
    assert [(n.state.value, n.notes) for n in found.nodes] == [
        ("LIVE", ("its host has no Alluxio",)),
        ("LIVE", ()),
    ]


@pytest.mark.parametrize("kind", [MembershipType.ETCD, MembershipType.STATIC])
def test_not_installed_is_known_without_etcd(kind: MembershipType) -> None:
    found = verdicts(alluxio(W1, W2, membership=kind), None, None, without={W1.machine})
    assert states(found) == [("w1", "NOT_INSTALLED"), ("w2", "UNDETERMINED")]


def test_leases_that_cannot_be_asked_for_hide_no_registration() -> None:
    class Client:
        def lease_times(self, *_: object) -> object:
            raise EtcdUnreachable(Endpoint("m1", 2379), Reason.TIMEOUT)

    client: Any = Client()
    found = leases.expired(client, client, members((A, "w1"), (B, "w2")))
    assert found == leases.Expired({}, 0, 1)
    problem = leases.unasked(found)
    assert problem is not None
    assert problem.severity == "warning"


def test_a_second_look_does_not_ask_for_the_leases_again(views: Views) -> None:
    views.reads = [members((A, "w1")), members((A, "w1"), (B, "w2"))]
    assert checked(inventory()).exit_code == 0
    first, second = (given for given in views.asked if given[0] == "read")
    assert second == (*first, leases.NONE)


def readinesses(**silent: str) -> dict[str, Readiness]:
    """Of w1 and w2; ``silent`` says why a worker's HTTP port does not answer."""
    return {
        w.name: Readiness(
            ports.worker_listeners(alluxio(), w),
            {"http": silent[w.name]} if w.name in silent else {},
        )
        for w in (W1, W2)
    }


@pytest.mark.usefixtures("unplugged")
def test_hosts_are_asked_whether_their_workers_are_ready(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    views.reads = [members((A, "w1"), (B, "w2")) for _ in range(4)]
    declared, fleet = inventory(), Fleet(2)
    assert [n.ready for n in checked(declared, fleet).nodes] == [None, None]
    asked: list[object] = []

    def look(*given: object) -> WorkerHosts:
        asked.extend(given)
        return WorkerHosts(readinesses(w2="nothing listens"), {}, {}, ())

    monkeypatch.setattr(worker_hosts, "look", look)
    found = checked(declared, fleet, hosts=True)
    assert asked == [fleet, declared.alluxio]
    assert [(n.ready, n.notes) for n in found.nodes] == [
        (True, ()),
        (False, ("its http port 28080 does not answer: nothing listens",)),
    ]
    assert found.summary == "2 workers: 2 LIVE; 1 READY; 1 with notes"
    assert found.exit_code == 1


@pytest.mark.usefixtures("unplugged")
def test_a_host_that_cannot_be_asked_is_a_problem(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    views.reads = [members((A, "w1"), (B, "w2")) for _ in range(2)]
    away = Problem("w2 (x:1)", "no route", id="host-unreachable")
    hosts = WorkerHosts({"w1": readinesses()["w1"]}, {}, {}, (away,))
    monkeypatch.setattr(worker_hosts, "look", lambda *_: hosts)
    found = checked(inventory(), hosts=True)
    assert found.problems == [away]
    assert [(n.ready, n.notes) for n in found.nodes] == [
        (True, ()),
        (None, ("its host could not be asked",)),
    ]


@pytest.mark.usefixtures("unplugged")
def test_who_is_not_live_is_not_ready_whatever_answers(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    views.reads = [members((A, "w1"), dead=((B, "w2"),)) for _ in range(2)]
    views.info = InfoNodes("w1", tuple(rows((A, "w1", "ONLINE"), (B, "w2", "OFFLINE"))))
    services = {"w1": UnitState("loaded", "active", "running", restarts=2)}
    services["w2"] = UnitState("loaded", "activating", "auto-restart", restarts=2)
    hosts = WorkerHosts(readinesses(w2="x"), {}, services, ())
    monkeypatch.setattr(worker_hosts, "look", lambda *_: hosts)
    found = checked(inventory(), hosts=True)
    assert [(n.state.value, n.ready, n.notes) for n in found.nodes] == [
        ("LIVE", True, ()),
        ("FAILED", False, ("its service is activating (auto-restart), restarted 2 times",)),
    ]


@pytest.mark.usefixtures("unplugged")
@pytest.mark.parametrize("came_before", [True, False])
def test_a_clone_is_named(
    views: Views, monkeypatch: pytest.MonkeyPatch, *, came_before: bool
) -> None:
    """Alluxio lets the second of two workers with one identity not join."""
    former = ((B, "w2"),) if came_before else ()
    views.reads = [members((A, "w1"), dead=former) for _ in range(2)]
    views.info = InfoNodes("w1", tuple(rows((A, "w1", "ONLINE"))))
    uuids = dict.fromkeys(("w1", "w2"), A.removeprefix("worker-"))
    runs = UnitState("loaded", "active", "running")
    hosts = WorkerHosts(readinesses(), uuids, {"w2": runs}, ())
    monkeypatch.setattr(worker_hosts, "look", lambda *_: hosts)
    one, clone = checked(inventory(), hosts=True).nodes
    assert (one.state.value, one.notes) == ("LIVE", ())
    assert clone.state.value == ("FAILED" if came_before else "UNREGISTERED")
    same = f"its identity file says {uuids['w2']}, the identity of w1: one is a clone of the other"
    assert clone.notes[0] == same
    assert clone.notes[-1] == "its service is active (running)"


@pytest.mark.usefixtures("unplugged")
def test_a_host_without_alluxio_is_seen_there(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    views.reads = [members((A, "w1")) for _ in range(2)]
    views.info = InfoNodes("w1", tuple(rows((A, "w1", "ONLINE"))))
    seen = readinesses()
    seen["w2"] = dataclasses.replace(seen["w2"], installed=False)
    monkeypatch.setattr(worker_hosts, "look", lambda *_: WorkerHosts(seen, {}, {}, ()))
    found = checked(inventory(), hosts=True)
    assert states(list(found.nodes)) == [("w1", "LIVE"), ("w2", "NOT_INSTALLED")]


@pytest.mark.parametrize("error", ["", "on w2: no such file"])
def test_a_read_is_by_a_client_on_the_host_of_a_worker_that_is_well(
    monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    asked: list[object] = []

    def prove(
        fleet: Fleet, cluster: object, path: str, workers: list[AlluxioWorker], timeout: float
    ) -> ReadProof:
        asked.extend((path, [w.name for w in workers], timeout))
        return ReadProof(path, "w2", 7, "a" * 64, "w1", True, error, seconds=2.0)

    monkeypatch.setattr(read, "prove", prove)
    failed = LIVE._replace(state=State.FAILED)
    well = LIVE._replace(name="w2", host="w2")
    found = check_nodes.with_read(report(failed, well, seconds=1.0), Fleet(2), "/f", 9)
    assert asked == ["/f", ["w2"], 9]
    assert [p.id for p in found.problems] == (["read-failed"] if error else [])
    assert check_nodes.with_read(report(well), Fleet(2), "/f", 9).exit_code == (1 if error else 0)
    assert found.seconds == 3.0
    assert found.document()["read"] == {
        "path": "/f",
        "host": "w2",
        "bytes": 7,
        "sha256": "a" * 64,
        "worker": "w1",
        "cached": True,
        "error": error or None,
        "seconds": 2.0,
    }


@pytest.mark.usefixtures("unplugged")
@pytest.mark.parametrize(
    ("external", "remedy"),
    [
        (False, "invoke deploy-etcd installs etcd, or starts it"),
        (True, "check that etcd.external is right, and that this etcd runs"),
    ],
)
def test_etcd_that_is_away_leaves_the_other_views(
    views: Views, external: bool, remedy: str
) -> None:
    """With what to do: a look before the first deployment is no dead end."""
    cluster = etcd(external=external)
    views.health = ClusterHealth(
        cluster, tuple(MemberHealth(m, error="connection refused") for m in cluster.members)
    )
    found = checked(inventory(etcd=cluster))
    assert found.exit_code == 1
    assert found.summary == "2 workers: 2 LIVE"  # by info nodes' word
    said = [str(p) for p in found.problems]
    assert (
        said[0] == f"etcd: the registrations could not be read: no member serves reads ({remedy})"
    )
    assert said[1:] == [f"etcd member infra{i}: connection refused" for i in (1, 2, 3)]


def test_why_etcd_is_away_is_said_in_its_own_words(views: Views) -> None:
    views.reads = []
    found = checked(inventory())
    assert [str(p) for p in found.problems] == [
        "etcd: the registrations could not be read: no leader"
    ]
    whole = ProvisionError(
        "2 problems",
        [Problem("infra1", "is full", id="disk-full"), Problem("infra2", "x", id="disk-full")],
        id="etcd-refused",
    )
    assert collect.unread(whole).what == "the registrations could not be read: is full"


def test_files_of_an_authority_that_is_not_ours_are_looked_at(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired = Problem("pki/ca.crt", "has expired", id="disk-full")
    declared = inventory()
    outside = dataclasses.replace(declared, etcd=etcd(tls=EtcdTls(ca="external")))
    monkeypatch.setattr(
        imported, "own_problems", lambda its: [expired] if its is outside.etcd else []
    )
    views.names = ["c", "c2"]
    found = checked(outside)
    assert found.problems[0] == expired
    assert len(found.problems) == 2
    alone = checked(dataclasses.replace(outside, alluxio=None))
    assert alone.view_problems == (expired,)
    views.reads = [members((A, "w1"), (B, "w2"))]
    assert expired not in checked(declared).problems


def test_a_cluster_with_a_name_that_begins_alike_is_a_warning(views: Views) -> None:
    views.names = ["c", "c2", "d"]
    found = checked(inventory())
    (problem,) = found.problems
    assert problem.severity == "warning"
    assert "also lists the live workers of 'c2' as workers of 'c'" in problem.what
    assert found.exit_code == 0


def test_static_asks_the_ports(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(2)
    monkeypatch.setattr(registrations, "port_answers", lambda f, w: f is fleet and w.name == "w1")
    found = checked(inventory(alluxio(membership=MembershipType.STATIC)), fleet)
    assert found.summary == "2 workers: 1 REACHABLE, 1 UNREACHABLE"
    assert found.revision is None


def test_what_etcd_is_left_with_is_named_where_it_is_of_no_use(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registrations, "port_answers", lambda *_: True)
    views.reads = [members((A, "w1"), (B, "w2")) for _ in range(2)]
    for kind in (MembershipType.STATIC, MembershipType.SERVICE_REGISTRY):
        found = checked(inventory(alluxio(membership=kind)))
        (problem,) = found.problems
        assert problem.severity == "warning"
        assert f"not used with membership {kind}: {A}, {B}" in problem.what
        assert "invoke forget-worker ID" in problem.remedy


def test_static_does_not_mind_what_etcd_cannot_say(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registrations, "port_answers", lambda *_: True)

    def refuse(*_: object) -> collect._Read:
        raise ProvisionError("permission denied", id="etcd-refused")

    monkeypatch.setattr(collect, "_read", refuse)
    assert checked(inventory(alluxio(membership=MembershipType.STATIC))).problems == []


def test_without_workers_only_etcd_is_looked_at(views: Views) -> None:
    began, before = time.monotonic(), datetime.now(timezone.utc)
    found = checked(dataclasses.replace(inventory(), alluxio=None))
    assert found.nodes == ()
    assert found.cluster == "c"
    assert before <= found.taken <= views.began
    assert 0 < found.seconds <= time.monotonic() - began
    assert [one[0] for one in views.asked] == ["health"]
    assert found.document()["alluxio"] is None
    assert found.exit_code == 0


def test_a_password_that_cannot_be_read_is_a_usage_error(views: Views) -> None:
    login = AlluxioEtcd(username="alluxio", password=Secret(env="NO_SUCH_VARIABLE"))
    with pytest.raises(UsageError, match="NO_SUCH_VARIABLE is not set"):
        checked(inventory(alluxio(etcd_login=login)))


def test_a_change_is_what_is_said_not_when() -> None:
    later = report(LIVE, seconds=3.0, revision=12, etcd=healthy(revision=12, db_size=1))
    failed = report(LIVE._replace(state=State.FAILED))
    said = list(check_nodes.changes([report(LIVE), later, failed, failed, report(LIVE)]))
    assert [r.exit_code for r in said] == [0, 1, 0]
    seen = healthy()
    tunnelled = dataclasses.replace(seen.members[0], how="tunnel")
    others = (
        report(LIVE, etcd=ClusterHealth(seen.cluster, (tunnelled, *seen.members[1:]))),
        report(LIVE, etcd=healthy(version="3.6.17")),
        report(LIVE, info_nodes=None),
        report(LIVE, etcd=healthy(leader=2)),
    )
    for other in others:
        assert len(list(check_nodes.changes([report(LIVE), other]))) == 2


def test_members_are_named_by_the_inventory() -> None:
    alone = ClusterHealth(etcd(member(1)), (MemberHealth(member(1), error="x"),))
    assert alone.leader is None
    assert not alone.established
