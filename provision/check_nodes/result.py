"""The result of ``check-nodes``, its exit code, and its document for ``--format json``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from datetime import datetime, timezone
from typing import Literal, TypedDict

from provision.alluxio.commands.nodes import InfoNodes
from provision.alluxio.commands.read import ReadDocument, ReadProof
from provision.alluxio.membership.leases import Expired
from provision.alluxio.membership.registrations import RegistrationValue
from provision.check_nodes import verdict
from provision.check_nodes.verdict import NodeVerdict
from provision.dataclass import dataclass
from provision.errors import Problem, ProblemDocument
from provision.etcd.cluster.health import ClusterHealth, MemberHealth
from provision.etcd.cluster.served_certs import CertificateState
from provision.inventory.resolved import AlluxioCluster
from provision.plans.etcd.data.stored import Stored, StoredDocument

SCHEMA: Literal["alluxio-provision/check-nodes/1"] = "alluxio-provision/check-nodes/1"


class CertificateDocument(TypedDict):
    """A certificate that a member serves."""

    listener: str
    not_after: str | None
    days_left: int | None
    error: str | None


class MemberStatusDocument(TypedDict):
    """What a member says of itself; sizes in bytes."""

    member_id: str
    leader: bool
    learner: bool
    version: str
    revision: int
    raft_term: int
    raft_index: int
    db_size: int
    db_in_use: int
    quota: int | None
    quota_known: bool
    alarms: list[str]


class MemberDocument(TypedDict):
    """A member of etcd, and how it was asked (``how``)."""

    name: str
    endpoint: str
    healthy: bool
    error: str | None
    how: str | None
    read_seconds: float | None
    status: MemberStatusDocument | None
    certificates: list[CertificateDocument]


class EtcdDocument(TypedDict):
    """etcd: how many members are healthy, and how many make a quorum."""

    healthy: int
    quorum: int
    leader: str | None
    revision: int | None
    members: list[MemberDocument]


class LeasesDocument(TypedDict):
    """The leases of live keys: how many there are, were asked about, and have expired."""

    live: int
    asked: int
    expired: int


class InfoNodesDocument(TypedDict):
    """How ``info nodes`` was asked."""

    host: str
    error: str | None
    seconds: float


class NodeDocument(TypedDict):
    """A worker. ``name`` is null for a worker that the inventory does not have; ``ready`` is null
    when its host was not asked."""

    name: str | None
    host: str
    port: int
    state: str
    ok: bool
    worker_id: str | None
    info_nodes: str | None
    notes: list[str]
    registration: RegistrationValue | None
    ready: bool | None


class AlluxioDocument(TypedDict):
    """The workers, and how many are in each state (``counts``)."""

    membership: str
    failure_detection_timeout: int
    summary: str
    counts: dict[str, int]
    revision: int | None
    leases: LeasesDocument | None
    info_nodes: InfoNodesDocument | None
    nodes: list[NodeDocument]


class CheckDocument(TypedDict):
    """The report of ``check-nodes``."""

    schema: Literal["alluxio-provision/check-nodes/1"]
    cluster: str
    exit_code: int
    taken: str
    seconds: float
    etcd: EtcdDocument
    alluxio: AlluxioDocument | None
    read: ReadDocument | None
    backups: StoredDocument | None
    problems: list[ProblemDocument]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of ``check-nodes``. ``revision`` is etcd's revision of the registrations."""

    cluster: str
    alluxio: AlluxioCluster | None
    etcd: ClusterHealth
    nodes: tuple[NodeVerdict, ...] = ()
    info_nodes: InfoNodes | None = None
    revision: int | None = None
    view_problems: tuple[Problem, ...] = ()
    taken: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    seconds: float = 0.0
    leases: Expired | None = None
    #: With ``--read``: the result of a read through a worker.
    read: ReadProof | None = None
    #: Backups and former data on the members' hosts; None: they were not asked.
    stored: Stored | None = None

    @property
    def problems(self) -> list[Problem]:
        """The problems besides the workers' own states: failed views, etcd's members."""
        stored = self.stored.problems if self.stored is not None else []
        return [*self.view_problems, *self.etcd.problems, *stored]

    @property
    def exit_code(self) -> int:
        """0 when all is as declared, else 1. Warnings alone leave it 0."""
        wrong = any(p.severity == "error" for p in self.problems)
        return 1 if wrong or not all(n.ok for n in self.nodes) else 0

    @property
    def counts(self) -> dict[str, int]:
        """How many workers are in each state, in the order of :class:`State`."""
        return verdict.counts(self.nodes)

    @property
    def summary(self) -> str:
        """``2 workers: 2 LIVE``; undeclared workers are counted separately."""
        return verdict.summary(self.nodes)

    def etcd_document(self) -> EtcdDocument:
        """etcd's part of the document."""
        return {
            "healthy": self.etcd.healthy_count,
            "quorum": self.etcd.quorum,
            "leader": self.etcd.leader,
            "revision": self.etcd.revision,
            "members": [_member(m) for m in self.etcd.members],
        }

    def document(self, nodes: Iterable[NodeDocument] | None = None) -> CheckDocument:
        """The report for ``--format json``: times in seconds, sizes in bytes, UTC. ``nodes``: in
        place of :meth:`node_documents`."""
        return {
            "schema": SCHEMA,
            "cluster": self.cluster,
            "exit_code": self.exit_code,
            "taken": self.taken.isoformat(timespec="milliseconds"),
            "seconds": round(self.seconds, 3),
            "etcd": self.etcd_document(),
            "alluxio": self._alluxio([*(self.node_documents() if nodes is None else nodes)]),
            "read": None if self.read is None else self.read.document(),
            "backups": None if self.stored is None else self.stored.document(),
            "problems": [p.document() for p in self.problems],
        }

    def node_documents(self) -> Iterator[NodeDocument]:
        """The workers of :meth:`document`."""
        return map(_node, self.nodes)

    def _alluxio(self, nodes: list[NodeDocument]) -> AlluxioDocument | None:
        if self.alluxio is None:
            return None
        info = self.info_nodes
        return {
            "membership": self.alluxio.membership.value,
            "failure_detection_timeout": self.alluxio.failure_detection_timeout,
            "summary": self.summary,
            "counts": self.counts,
            "revision": self.revision,
            "leases": None
            if self.leases is None
            else {
                "live": self.leases.live,
                "asked": self.leases.asked,
                "expired": len(self.leases.since),
            },
            "info_nodes": None
            if info is None
            else {"host": info.host, "error": info.error, "seconds": round(info.seconds, 3)},
            "nodes": nodes,
        }


def _node(n: NodeVerdict) -> NodeDocument:
    return {
        "name": n.name,
        "host": n.host,
        "port": n.port,
        "state": n.state.value,
        "ok": n.ok,
        "worker_id": n.worker_id,
        "info_nodes": n.info_nodes,
        "notes": list(n.notes),
        "registration": None if n.registration is None else n.registration.document(),
        "ready": n.ready,
    }


def _member(m: MemberHealth) -> MemberDocument:
    status = m.status
    return {
        "name": m.member.name,
        "endpoint": m.member.client_url,
        "healthy": m.healthy,
        "error": m.error or None,
        "how": m.how,
        "read_seconds": None if m.seconds is None else round(m.seconds, 4),
        "status": None
        if status is None
        else {
            "member_id": f"{status.member_id:x}",
            "leader": status.is_leader,
            "learner": status.is_learner,
            "version": status.version,
            "revision": status.revision,
            "raft_term": status.raft_term,
            "raft_index": status.raft_index,
            "db_size": status.db_size,
            "db_in_use": status.db_in_use,
            "quota": m.quota,
            "quota_known": m.quota_known,
            "alarms": list(status.alarms),
        },
        "certificates": [_certificate(c) for c in m.certificates],
    }


def _certificate(c: CertificateState) -> CertificateDocument:
    return {
        "listener": c.listener,
        "not_after": c.not_after.isoformat() if c.not_after is not None else None,
        "days_left": c.days_left(),
        "error": c.error or None,
    }
