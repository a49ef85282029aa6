"""``--format prometheus``: the report in Prometheus' text exposition format, version 0.0.4.

Names end with their base unit (seconds, bytes); times of day are Unix timestamps, so that a rule
can use ``… - time()``. Each state has a series, with the value 1 for the present state, so that an
alert on a state ends when the worker leaves the state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from provision.check_nodes.result import CheckReport
from provision.check_nodes.verdict import NodeVerdict, State
from provision.etcd.cluster.health import MemberHealth

PREFIX = "alluxio_provision_"
ALARMS = ("CORRUPT", "NOSPACE")

Labels = Mapping[str, str]


class Family(NamedTuple):
    """One gauge: its name without the prefix, its help text, and its samples."""

    name: str
    help: str
    samples: list[tuple[Labels, float]]


def exposition(report: CheckReport) -> str:
    """The text, for a scrape or node_exporter's textfile collector (which gives no timestamps)."""
    return "".join(_lines(report))


def _lines(report: CheckReport) -> Iterator[str]:
    cluster = {"cluster": report.cluster}
    for family in (*_look(report), *_etcd(report), *_stored(report), *_workers(report)):
        if not family.samples:
            continue
        name = PREFIX + family.name
        yield f"# HELP {name} {family.help}\n# TYPE {name} gauge\n"
        told: set[str] = set()
        for labels, value in family.samples:
            pairs = ",".join(f'{k}="{_escaped(v)}"' for k, v in {**cluster, **labels}.items())
            # Prometheus refuses the whole text when it has one series twice.
            if pairs not in told:
                told.add(pairs)
                yield f"{name}{{{pairs}}} {_number(value)}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _look(report: CheckReport) -> Iterator[Family]:
    severities = [p.severity for p in report.problems]
    yield Family(
        "healthy", "Whether everything is as the inventory declares.", _one(not report.exit_code)
    )
    yield Family(
        "problems",
        "Number of problems, without the workers' states.",
        [({"severity": s}, severities.count(s)) for s in ("error", "warning")],
    )
    yield Family(
        "check_timestamp_seconds", "When this check began.", _one(report.taken.timestamp())
    )
    yield Family("check_duration_seconds", "How long this check took.", _one(report.seconds))


def _etcd(report: CheckReport) -> Iterator[Family]:
    etcd = report.etcd
    yield Family("etcd_quorum", "Members that make a quorum.", _one(etcd.quorum))
    yield Family(
        "etcd_has_leader", "Whether the members agree on a leader.", _one(bool(etcd.leader))
    )
    yield Family(
        "etcd_member_healthy",
        "Whether a linearizable read through the member succeeds.",
        [(_member(m), m.healthy) for m in etcd.members],
    )
    yield Family(
        "etcd_member_read_duration_seconds",
        "How long the linearizable read through the member took.",
        [(_member(m), m.seconds) for m in etcd.members if m.seconds is not None],
    )
    known = [(m, m.status) for m in etcd.members if m.status is not None]
    yield Family(
        "etcd_member_info",
        "The release that the member runs; always 1.",
        [({**_member(m), "version": s.version}, 1) for m, s in known],
    )
    yield Family(
        "etcd_member_is_leader",
        "Whether the member leads.",
        [(_member(m), etcd.role(m) == "leader") for m, _ in known],
    )
    yield Family(
        "etcd_member_is_learner",
        "Whether the member is a learner, which has no vote.",
        [(_member(m), s.is_learner) for m, s in known],
    )
    yield Family(
        "etcd_member_revision",
        "The newest revision that the member has.",
        [(_member(m), s.revision) for m, s in known],
    )
    yield Family(
        "etcd_member_db_size_bytes",
        "The database on the member's disk.",
        [(_member(m), s.db_size) for m, s in known],
    )
    yield Family(
        "etcd_member_db_in_use_bytes",
        "The part of the database that is in use; defrag-etcd frees the rest.",
        [(_member(m), s.db_in_use) for m, s in known],
    )
    yield Family(
        "etcd_member_quota_bytes",
        "The quota in force; missing if there is none or if it is not known.",
        [(_member(m), m.quota) for m, _ in known if m.quota is not None],
    )
    yield Family(
        "etcd_member_alarm",
        "Whether the member has this alarm.",
        [({**_member(m), "alarm": a}, a in s.alarms) for m, s in known for a in ALARMS],
    )
    shown = [
        ({**_member(m), "listener": c.listener}, c) for m in etcd.members for c in m.certificates
    ]
    yield Family(
        "etcd_member_certificate_valid",
        "1 when the listener's certificate is valid now, issued by the cluster's CA, and has the "
        "member's address. 0 also when the listener could not be asked.",
        [(labels, not c.error) for labels, c in shown],
    )
    yield Family(
        "etcd_member_certificate_expiry_timestamp_seconds",
        "When the listener's certificate expires.",
        [(labels, c.not_after.timestamp()) for labels, c in shown if c.not_after is not None],
    )


def _stored(report: CheckReport) -> Iterator[Family]:
    stored = report.stored
    if stored is None:
        return
    newest, answered = stored.newest, [h for h in stored.hosts if not h.error]
    if not stored.cluster.external:
        yield Family("etcd_backups", "Number of known proven backups.", _one(stored.count))
    if newest is not None:
        at = {"host": newest.host}
        yield Family(
            "etcd_backup_timestamp_seconds",
            "When the newest proven backup was taken.",
            [(at, newest.name.when.timestamp())],
        )
        yield Family(
            "etcd_backup_revision",
            "The revision of the newest proven backup.",
            [(at, float(newest.name.revision))],
        )
    if stored.longest is not None:
        yield Family(
            "etcd_backup_interval_seconds",
            "The longest time between two of the schedule's next runs.",
            _one(stored.longest),
        )
    yield Family(
        "etcd_backup_run_succeeded",
        "Whether the last run of the timer on the member's host succeeded.",
        [({"member": h.member.name}, h.result == "success") for h in answered if h.result],
    )
    yield Family(
        "etcd_kept_bytes",
        "Former data and backups of former histories on the member's host.",
        [({"member": h.member.name}, sum(c for _, c, _ in h.aside)) for h in answered],
    )
    yield Family(
        "etcd_kept_ratio",
        "The share of the disk that former data and backups of former histories take.",
        [({"member": h.member.name}, h.share) for h in answered],
    )


def _workers(report: CheckReport) -> Iterator[Family]:
    if report.alluxio is None:
        return
    declared = (
        (State.LIVE, State.FAILED, State.STALE, State.UNREGISTERED, State.UNDETERMINED)
        if report.alluxio.membership.in_etcd
        else (State.REACHABLE, State.UNREACHABLE, State.UNDETERMINED)
    )
    declared = (*declared, State.NOT_INSTALLED)
    labelled = [(_worker(n), n) for n in report.nodes]
    yield Family(
        "workers",
        "Workers in this state; UNKNOWN are those that the inventory does not have.",
        [
            ({"state": s.value}, sum(n.state is s for n in report.nodes))
            for s in (*declared, State.UNKNOWN)
        ],
    )
    yield Family(
        "worker_state",
        "1 for the state that the worker is in.",
        [
            ({**labels, "state": s.value}, n.state is s)
            for labels, n in labelled
            for s in ((State.UNKNOWN,) if n.name is None else declared)
        ],
    )
    yield Family(
        "worker_disagreements",
        "Number of differences between the views of the worker (inventory, etcd, info nodes).",
        [(labels, len(n.notes)) for labels, n in labelled],
    )
    yield Family(
        "worker_ready",
        "With --hosts: whether the worker is live and all its listeners answer.",
        [(labels, n.ready) for labels, n in labelled if n.ready is not None],
    )
    if report.read is not None:
        yield Family(
            "read_succeeded",
            "With --read: whether a file was read through a worker.",
            _one(not report.read.error),
        )
    if report.alluxio.membership.in_etcd:
        yield Family(
            "failure_detection_timeout_seconds",
            "How long a dead worker still counts as LIVE.",
            _one(report.alluxio.failure_detection_timeout),
        )
    if report.info_nodes is None:
        return
    answered = not report.info_nodes.error
    yield Family("info_nodes_answered", "Whether `info nodes` gave a table.", _one(answered))
    yield Family(
        "info_nodes_duration_seconds",
        "How long `info nodes` took.",
        _one(report.info_nodes.seconds),
    )
    if answered:
        yield Family(
            "worker_info_nodes_agrees",
            "Whether `info nodes` and etcd agree about the worker.",
            [(labels, _agrees(n)) for labels, n in labelled if n.name is not None],
        )


def _agrees(n: NodeVerdict) -> bool:
    expected = {
        State.LIVE: "ONLINE",
        State.STALE: "ONLINE",
        State.FAILED: "OFFLINE",
        State.UNREGISTERED: None,
        State.NOT_INSTALLED: None,
    }
    if n.state in expected:
        return n.info_nodes == expected[n.state]
    return n.info_nodes is not None


def _one(value: float) -> list[tuple[Labels, float]]:
    return [({}, value)]


def _member(m: MemberHealth) -> dict[str, str]:
    return {"member": m.member.name, "endpoint": m.member.client_url}


def _worker(n: NodeVerdict) -> dict[str, str]:
    """Labels that stay the same while the worker lives, dies and comes back.

    An undeclared worker is named by its id: two of them may be at one address.
    """
    labels = {"worker": n.name or "", "address": n.address}
    return labels if n.name is not None else {**labels, "worker_id": n.worker_id or ""}
