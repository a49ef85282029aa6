"""The metrics, read by Prometheus' own parser."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone

from prometheus_client.parser import text_string_to_metric_families

from provision.alluxio.commands.nodes import InfoNodes
from provision.alluxio.commands.read import ReadProof
from provision.check_nodes import CheckReport, NodeVerdict, State
from provision.check_nodes.prometheus import PREFIX, exposition
from provision.errors import Problem
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.cluster.served_certs import CertificateState
from provision.inventory.membership_type import MembershipType
from tests.unit.builders import alluxio
from tests.unit.test_check import LIVE, A, healthy, report

Series = dict[tuple[str, ...], float]


def parsed(shown: CheckReport) -> dict[str, Series]:
    """Each family's samples, by the values of their labels without the cluster's."""
    found: dict[str, Series] = {}
    for family in text_string_to_metric_families(exposition(shown)):
        assert family.name.startswith(PREFIX)
        assert family.type == "gauge"
        assert family.documentation.endswith(".")
        assert family.name not in found
        series = found[family.name.removeprefix(PREFIX)] = {}
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("cluster") == shown.cluster
            key = tuple(labels.values())
            assert key not in series
            series[key] = sample.value
    return found


def test_a_healthy_cluster() -> None:
    taken = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    seen = parsed(report(LIVE, taken=taken, seconds=0.25, info_nodes=InfoNodes("w1", seconds=0.5)))
    assert seen["healthy"] == {(): 1}
    assert seen["problems"] == {("error",): 0, ("warning",): 0}
    assert seen["check_timestamp_seconds"] == {(): taken.timestamp()}
    assert seen["check_duration_seconds"] == {(): 0.25}
    assert seen["info_nodes_answered"] == {(): 1}
    assert seen["info_nodes_duration_seconds"] == {(): 0.5}
    assert seen["workers"][("LIVE",)] == 1
    assert sum(seen["workers"].values()) == 1
    assert seen["worker_state"] == {
        ("w1", "w1:29999", state): state == "LIVE"
        for state in (
            *("LIVE", "FAILED", "STALE", "UNREGISTERED", "UNDETERMINED"),
            "NOT_INSTALLED",
        )
    }
    assert seen["worker_disagreements"] == {("w1", "w1:29999"): 0}
    assert seen["worker_info_nodes_agrees"] == {("w1", "w1:29999"): 1}
    assert seen["failure_detection_timeout_seconds"] == {(): 120}
    member = ("infra1", "http://10.0.0.1:2379")
    assert seen["etcd_member_healthy"][member] == 1
    assert seen["etcd_member_is_leader"][member] == 1
    assert sum(seen["etcd_member_is_leader"].values()) == 1
    assert seen["etcd_member_db_size_bytes"][member] == 20480
    assert seen["etcd_member_read_duration_seconds"][member] == 0.001
    assert seen["etcd_member_info"] == {
        (f"infra{i}", f"http://10.0.0.{i}:2379", "3.6.16"): 1 for i in (1, 2, 3)
    }
    assert seen["etcd_has_leader"] == {(): 1}


def test_names_and_labels_are_those_of_the_rules_and_boards() -> None:
    until = datetime(2027, 1, 1, tzinfo=timezone.utc)
    seen = healthy()
    first = dataclasses.replace(seen.members[0], certificates=(CertificateState("peer", until),))
    text = exposition(
        report(LIVE, etcd=ClusterHealth(seen.cluster, (first, *seen.members[1:])), seconds=2.0)
    )
    found = {
        sample.name.removeprefix(PREFIX): " ".join(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    member, worker = "cluster member endpoint", "cluster worker address"
    assert found == {
        **dict.fromkeys(
            ("healthy", "check_timestamp_seconds", "check_duration_seconds"), "cluster"
        ),
        **dict.fromkeys(("etcd_quorum", "etcd_has_leader"), "cluster"),
        **dict.fromkeys(("info_nodes_answered", "info_nodes_duration_seconds"), "cluster"),
        "failure_detection_timeout_seconds": "cluster",
        "problems": "cluster severity",
        "etcd_member_info": f"{member} version",
        "etcd_member_alarm": f"{member} alarm",
        "etcd_member_certificate_valid": f"{member} listener",
        "etcd_member_certificate_expiry_timestamp_seconds": f"{member} listener",
        **{
            f"etcd_member_{name}": member
            for name in (
                *("healthy", "read_duration_seconds", "is_leader", "is_learner", "revision"),
                *("db_size_bytes", "db_in_use_bytes"),
            )
        },
        "workers": "cluster state",
        "worker_state": f"{worker} state",
        "worker_disagreements": worker,
        "worker_info_nodes_agrees": worker,
    }
    assert f'{PREFIX}check_duration_seconds{{cluster="c"}} 2\n' in text  # no 2.0


def test_what_is_wrong_shows() -> None:
    until = datetime(2027, 1, 1, tzinfo=timezone.utc)
    full = healthy(errors=("memberID:1 alarm:NOSPACE ",))
    first = dataclasses.replace(
        full.members[0],
        certificates=(CertificateState("peer", until), CertificateState("client", None, "x")),
    )
    away = MemberHealth(full.members[1].member, error="connection refused")
    stranger = NodeVerdict(None, "x", 1, State.UNKNOWN, A, None, ("live, not in the inventory",))
    seen = parsed(
        report(
            LIVE._replace(state=State.FAILED),
            LIVE._replace(name="w2", notes=("one", "two")),
            stranger,
            etcd=ClusterHealth(full.cluster, (first, away)),
            view_problems=(Problem("etcd", "x", "", "warning", id="disk-full"),),
        )
    )
    one, two = ("infra1", "http://10.0.0.1:2379"), ("infra2", "http://10.0.0.2:2379")
    assert seen["healthy"] == {(): 0}
    assert seen["problems"][("error",)] > 0
    assert seen["etcd_member_healthy"] == {one: 1, two: 0}
    assert list(seen["etcd_member_db_size_bytes"]) == [one]
    assert seen["etcd_member_alarm"] == {(*one, "CORRUPT"): 0, (*one, "NOSPACE"): 1}
    assert seen["etcd_member_certificate_valid"] == {(*one, "peer"): 1, (*one, "client"): 0}
    assert seen["etcd_member_certificate_expiry_timestamp_seconds"] == {
        (*one, "peer"): until.timestamp()
    }
    assert seen["worker_state"][("w1", "w1:29999", "FAILED")] == 1
    assert seen["worker_state"][("w1", "w1:29999", "LIVE")] == 0
    assert seen["worker_state"][("", "x:1", A, "UNKNOWN")] == 1
    assert seen["worker_disagreements"][("w2", "w1:29999")] == 2
    # FAILED in etcd, ONLINE in info nodes.
    assert seen["worker_info_nodes_agrees"][("w1", "w1:29999")] == 0


def test_whether_info_nodes_agrees() -> None:
    nodes = [
        LIVE._replace(name="a", state=State.FAILED, info_nodes="OFFLINE"),
        LIVE._replace(name="b", state=State.FAILED, info_nodes=None),
        LIVE._replace(name="c", state=State.UNREGISTERED, info_nodes=None),
        LIVE._replace(name="d", state=State.UNREGISTERED, info_nodes="ONLINE"),
        LIVE._replace(name="e", state=State.UNDETERMINED, info_nodes="ONLINE"),
        LIVE._replace(name="f", state=State.UNDETERMINED, info_nodes=None),
    ]
    seen = parsed(report(*nodes))
    agrees = {name: value for (name, _), value in seen["worker_info_nodes_agrees"].items()}
    assert agrees == {"a": 1, "b": 0, "c": 1, "d": 0, "e": 1, "f": 0}


def test_what_was_asked_for_only() -> None:
    plain = parsed(report(LIVE))
    assert plain.keys().isdisjoint({"worker_ready", "read_succeeded"})
    ready = LIVE._replace(ready=True)
    dead = LIVE._replace(name="w2", ready=False)
    failed = ReadProof("/f", "w1", error="no")
    seen = parsed(report(ready, dead, LIVE._replace(name="w3"), read=failed))
    assert seen["worker_ready"] == {("w1", "w1:29999"): 1, ("w2", "w1:29999"): 0}
    assert seen["read_succeeded"] == {(): 0}


def test_a_stranger_is_named_by_its_id() -> None:
    one = NodeVerdict(None, "x", 1, State.UNKNOWN, A, None, ("live, not in the inventory",))
    lines = exposition(report(one, one._replace(worker_id=None))).splitlines()
    start = f'{PREFIX}worker_disagreements{{cluster="c",worker="",address="x:1",worker_id='
    assert [line for line in lines if line.startswith(start)] == [
        f'{start}"{A}"}} 1',
        f'{start}""}} 1',
    ]


def test_a_view_without_an_answer_says_nothing_of_the_workers() -> None:
    seen = parsed(report(LIVE, info_nodes=InfoNodes("w1", error="w1: did not answer")))
    assert seen["info_nodes_answered"] == {(): 0}
    assert "worker_info_nodes_agrees" not in seen


def test_static_has_its_own_states() -> None:
    node = LIVE._replace(state=State.UNREACHABLE, info_nodes="N/A")
    seen = parsed(report(node, alluxio=alluxio(membership=MembershipType.STATIC)))
    assert seen["worker_state"][("w1", "w1:29999", "UNREACHABLE")] == 1
    assert set(seen["workers"]) == {
        ("REACHABLE",),
        ("UNREACHABLE",),
        ("UNDETERMINED",),
        ("NOT_INSTALLED",),
        ("UNKNOWN",),
    }
    assert "failure_detection_timeout_seconds" not in seen


def test_without_workers_there_is_etcd_alone() -> None:
    seen = parsed(report(alluxio=None))
    assert "etcd_member_healthy" in seen
    assert "workers" not in seen


def test_label_values_are_escaped_and_no_series_comes_twice() -> None:
    evil = 'a"b\\c\nd{}=,#'
    node = NodeVerdict(None, "", 0, State.UNKNOWN, evil, None, ("x",))
    assert r'="a\"b\\c\nd{}=,#"' in exposition(report(node))
    seen = parsed(report(node, node))
    assert seen["worker_state"] == {("", "", evil, "UNKNOWN"): 1}
    assert seen["workers"][("UNKNOWN",)] == 2
