"""What ``check-nodes`` shows on a screen: of a look at the cluster, or of a document of one.

Whoever wrote the document is not trusted: its texts are shown as they are, never as markup, and
only after it was read as its schema says (:mod:`provision.cli.parts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from provision.alluxio.commands import read
from provision.check_nodes.result import CheckDocument, CheckReport, EtcdDocument, NodeDocument
from provision.check_nodes.verdict import NodeVerdict, State
from provision.dataclass import dataclass
from provision.errors import Problem, from_document
from provision.inventory.membership_type import MembershipType
from provision.plans.etcd.data import stored


@dataclass(frozen=True, slots=True)
class Screen:
    """The parts of the screen. ``unlisted`` stands for a worker that ``info nodes`` does not have;
    ``lease`` is how long a dead worker is live, in seconds, where etcd says who lives."""

    taken: datetime
    etcd: EtcdDocument
    nodes: Sequence[NodeVerdict]
    problems: Sequence[Problem]
    #: Whether the inventory has workers at all.
    workers: bool
    unlisted: str = "..."  # a live view asks `info nodes` again after each change: it takes time
    lease: int | None = None
    backup: str = ""
    #: The line about a read through a worker, and whether it failed.
    read: tuple[str, bool] | None = None
    summary: str = ""


def of_report(report: CheckReport) -> Screen:
    alluxio, info, proof = report.alluxio, report.info_nodes, report.read
    unlisted = "..." if info is None else "not listed"
    if info is not None and info.error:
        unlisted = "no answer" if info.installed else "-"
    leased = alluxio is not None and alluxio.membership.in_etcd
    return Screen(
        report.taken,
        report.etcd_document(),
        report.nodes,
        report.problems,
        alluxio is not None,
        unlisted,
        alluxio.failure_detection_timeout if alluxio is not None and leased else None,
        report.stored.line if report.stored is not None else "",
        (proof.line(alluxio), bool(proof.error)) if alluxio is not None and proof else None,
        report.summary,
    )


def of_document(document: CheckDocument) -> Screen:
    """As :func:`of_report`. Raises ``ValueError`` for a value that no release of this tool
    writes."""
    alluxio = document["alluxio"]
    nodes = [node(n) for n in alluxio["nodes"]] if alluxio is not None else []
    info = alluxio["info_nodes"] if alluxio is not None else None
    unlisted = "..." if info is None else "not listed"
    if info is not None and info["error"]:
        asked = any(p["id"] == "info-nodes-failed" for p in document["problems"])
        unlisted = "no answer" if asked else "-"
    lease = None
    if alluxio is not None and MembershipType(alluxio["membership"]).in_etcd:
        lease = alluxio["failure_detection_timeout"]
    proof, backups = document["read"], document["backups"]
    named = [(n.name, n.host) for n in nodes if n.name is not None]
    taken = datetime.fromisoformat(document["taken"])
    return Screen(
        taken if taken.tzinfo is not None else taken.replace(tzinfo=timezone.utc),
        document["etcd"],
        nodes,
        [from_document(p) for p in document["problems"]],
        alluxio is not None,
        unlisted,
        lease,
        stored.line(backups) if backups is not None else "",
        (read.line(proof, named), bool(proof["error"])) if proof is not None else None,
        alluxio["summary"] if alluxio is not None else "",
    )


def node(document: NodeDocument) -> NodeVerdict:
    """The verdict, without the value in etcd. Raises ``ValueError`` for an unknown state."""
    return NodeVerdict(
        document["name"],
        document["host"],
        document["port"],
        State(document["state"]),
        document["worker_id"],
        document["info_nodes"],
        tuple(document["notes"]),
        ready=document["ready"],
    )
