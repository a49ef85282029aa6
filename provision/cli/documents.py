"""The JSON documents that the tasks themselves make, and what they add to a plan's.

The types of all other documents stand beside what they are made of. Tasks import these types for
their checks alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from provision.alluxio.commands.read import ReadDocument
from provision.engine.audit import EntryDocument
from provision.errors import ProblemDocument
from provision.inventory.selection import BatchDocument
from provision.inventory.show import Value
from provision.plans.etcd.data.defrag_etcd import UsageDocument
from provision.plans.etcd.data.retained import RetainedDocument
from provision.plans.etcd.data.snapshot_proof import ProofDocument


class Part(TypedDict, total=False):
    """What documents of commands with --batch have: null without --batch, and in a document that
    merge-reports made of all parts."""

    batch: BatchDocument | None


class ErrorDocument(TypedDict):
    """A run that failed, or a command line that cannot be parsed."""

    schema: Literal["alluxio-provision/error/1"]
    id: str
    error: str
    exit_code: int
    problems: list[ProblemDocument]


class LogsDocument(TypedDict):
    """The last log lines of a host; ``problems`` says what some of them mean."""

    schema: Literal["alluxio-provision/logs/1"]
    host: str
    lines: list[str]
    problems: list[ProblemDocument]


class AuditDocument(TypedDict):
    """Entries of an audit log, oldest first; ``log`` is its place."""

    schema: Literal["alluxio-provision/audit/1"]
    log: str
    entries: list[EntryDocument]


class ValueDocument(TypedDict):
    """A value of the inventory, and where it comes from."""

    path: str
    value: Value
    origin: str


class InventoryDocument(TypedDict):
    """The inventory, resolved."""

    schema: Literal["alluxio-provision/inventory/1"]
    values: list[ValueDocument]


class PageDocument(TypedDict):
    """The page of an error; ``text`` is Markdown."""

    id: str
    title: str
    text: str


class ExplainDocument(TypedDict):
    """Pages of errors."""

    schema: Literal["alluxio-provision/explain/1"]
    pages: list[PageDocument]


class _InitInventoryDocument(TypedDict):
    schema: Literal["alluxio-provision/init-inventory/1"]
    path: str


class TarballDocument(TypedDict):
    """A tarball that was read. ``listed``: the SHA256SUMS file that has its sha256."""

    path: str
    version: str
    sha256: str
    listed: str | None


class InitInventoryDocument(_InitInventoryDocument, total=False):
    """The inventory that was written. With lists of hosts: how many there are, whether something is
    left to edit, and the tarballs that were given."""

    members: int
    workers: int
    to_edit: bool
    tarballs: list[TarballDocument]


class _ImportAnsibleDocument(TypedDict, total=False):
    to_edit: bool
    tarballs: list[TarballDocument]


class ImportAnsibleDocument(_ImportAnsibleDocument):
    """The inventory that was written, and the groups that it was made of."""

    schema: Literal["alluxio-provision/import-ansible/1"]
    path: str
    etcd_group: str
    worker_group: str | None
    members: int
    workers: int
    problems: list[ProblemDocument]


class SshConfigDocument(TypedDict):
    """The text of an OpenSSH configuration."""

    schema: Literal["alluxio-provision/ssh-config/1"]
    config: str


class ClientConfigDocument(TypedDict):
    """The text of each file by its name, and the files that were written."""

    schema: Literal["alluxio-provision/client-config/1"]
    files: Mapping[str, str]
    wrote: list[str]


class RenderMonitorDocument(TypedDict):
    """The files that were written; ``output`` is what they will write."""

    schema: Literal["alluxio-provision/render-monitor/1"]
    files: list[str]
    output: str


class RenderHelmDocument(TypedDict):
    """The values of the chart, and the files that were written."""

    schema: Literal["alluxio-provision/render-helm/1"]
    chart: str
    release: str
    namespace: str
    values: dict[str, Any]
    files: list[str]
    changed: int


class HostKeyDocument(TypedDict):
    """A host's SSH key. ``key_type`` and ``fingerprint`` are null when it showed none."""

    names: list[str]
    address: str
    port: int
    jump_host: bool
    key_type: str | None
    fingerprint: str | None
    state: str
    known: list[str]


class TrustHostsDocument(TypedDict):
    """The hosts' SSH keys; ``added`` counts lines by file."""

    schema: Literal["alluxio-provision/trust-hosts/1"]
    hosts: list[HostKeyDocument]
    added: dict[str, int]
    changed: int
    problems: list[ProblemDocument]


class _Finished(TypedDict):
    applied: bool


class Finished(_Finished, total=False):
    """What every task adds to its plan. ``would_change`` is of a dry run, ``left_out`` of
    --allow-unreachable."""

    would_change: int
    left_out: list[ProblemDocument]


class DeployEtcd(TypedDict):
    """The members' client URLs."""

    endpoints: list[str]
    plain_endpoints: list[str]


class UpgradeEtcd(TypedDict):
    """The release to which etcd was to come."""

    version: str


class MoveLeader(TypedDict):
    """The member that was to lead."""

    leader: str


class _StartWorkers(TypedDict):
    live: list[str]


class StartWorkers(_StartWorkers, total=False):
    """The live workers; with --read the result of the read."""

    read: ReadDocument
    problems: list[ProblemDocument]


class UpgradeWorkers(TypedDict):
    """The workers by the release that runs."""

    running: dict[str, list[str]]


class RollbackWorkers(UpgradeWorkers):
    """As in upgrade-workers, and the release that runs after it."""

    to: str | None


class Removal(TypedDict):
    """The files with what was removed from etcd."""

    kept: list[str]


class Restore(TypedDict):
    """Where each member's old data is kept, and the proof of the snapshot."""

    kept: dict[str, str]
    snapshot: ProofDocument | None


class UndoRestore(TypedDict):
    """Where each member's restored data is kept, and which restore was undone."""

    kept: dict[str, str]
    undone: str


class RecoverEtcd(TypedDict):
    """Where a copy of the old data is kept."""

    kept: str


class KeptData(TypedDict):
    """The folders that are kept aside."""

    kept: list[RetainedDocument]


class DefragEtcd(TypedDict):
    """The databases before and after."""

    before: list[UsageDocument]
    after: list[UsageDocument]


class ExportCsrs(TypedDict):
    """The folder with the requests."""

    folder: str


#: What a task adds to the document of its plan.
Extra = (
    DeployEtcd
    | UpgradeEtcd
    | MoveLeader
    | StartWorkers
    | UpgradeWorkers
    | RollbackWorkers
    | Removal
    | Restore
    | UndoRestore
    | RecoverEtcd
    | KeptData
    | DefragEtcd
    | ExportCsrs
)
#: The same, by the command; those that add nothing are not here.
EXTRAS: Mapping[str, tuple[Any, ...]] = {
    "deploy-etcd": (DeployEtcd,),
    "upgrade-etcd": (UpgradeEtcd,),
    "move-leader": (MoveLeader,),
    "start-workers": (StartWorkers,),
    "upgrade-workers": (UpgradeWorkers,),
    "rollback-workers": (RollbackWorkers,),
    "decommission-worker": (Removal,),
    "forget-worker": (Removal,),
    "restore-etcd": (Restore, UndoRestore),
    "recover-etcd": (RecoverEtcd,),
    "kept-data": (KeptData,),
    "defrag-etcd": (DefragEtcd,),
    "export-csrs": (ExportCsrs,),
}
