"""What the values of options and arguments are: how help shows each, and how it is completed.

The names of clusters are never completed. They are the operator's consent, and are typed.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from provision.cli.command import placeholder


class Kind(Enum):
    """How a value is completed. The names are read from the inventory."""

    NOTHING = "nothing"
    FILE = "file"
    FOLDER = "folder"
    FORMAT = "format"
    ERROR_ID = "error-id"
    SCHEMA = "schema"
    MEMBERS = "members"
    MASTERS = "masters"
    WORKERS = "workers"
    ROLES = "roles"
    HOSTS = "hosts"


#: Kinds whose values are in the inventory.
OF_INVENTORY = frozenset({Kind.MEMBERS, Kind.MASTERS, Kind.WORKERS, Kind.ROLES, Kind.HOSTS})


class Value(NamedTuple):
    """``shown`` is the placeholder in help. ``several``: names with commas between."""

    shown: str
    kind: Kind = Kind.NOTHING
    several: bool = False


_FILE, _FOLDER = Value("FILE", Kind.FILE), Value("FOLDER", Kind.FOLDER)
_NAMES = {kind: Value("NAMES", kind, several=True) for kind in OF_INVENTORY}
_NAME = {kind: Value("NAME", kind) for kind in OF_INVENTORY}
_COUNT, _SECONDS, _GROUP = Value("N"), Value("SECONDS"), Value("GROUP")
_CLUSTERS, _HOSTS = Value("CLUSTERS"), Value("HOSTS")

#: By the parameter's name.
_VALUES = {
    "allow_unreachable": _COUNT,
    "alluxio_tarball": _FILE,
    "at_once": Value("N|N%"),
    "backup_dir": _FOLDER,
    "batch": Value("K/N"),
    "ca_lost": Value("NAME"),
    "cluster": Value("NAME"),
    "cluster_id": Value("ID"),
    "count": _COUNT,
    "credentials": _FILE,
    "debug": _FILE,
    "delete_data": Value("NAME"),
    "delete": Value("NAMES"),
    "etcd_group": _GROUP,
    "etcd": _HOSTS,
    "etcd_tarball": _FILE,
    "every": _SECONDS,
    "file": _FILE,
    "files": Value("FILES", Kind.FILE, several=True),
    "fingerprints": _FILE,
    "folder": _FOLDER,
    "format": Value("FORMAT", Kind.FORMAT),
    "html": _FILE,
    "id": Value("ID", Kind.ERROR_ID),
    "interval": _SECONDS,
    "into": _FOLDER,
    "inventory": _FILE,
    "java": _FILE,
    "jump": Value("HOST"),
    "keep": Value("N|all"),
    "key": _FILE,
    "kube_context": Value("NAME"),
    "kubeconfig": _FILE,
    "limit": _NAMES[Kind.WORKERS],
    "lines": _COUNT,
    "lock_out": _CLUSTERS,
    "namespace": Value("NAME"),
    "nodes_timeout": _SECONDS,
    "other_cluster": _CLUSTERS,
    "other_clusters_unknown": Value("NAME"),
    "output": _FILE,
    "path": _FILE,
    "read": Value("PATH"),
    "take_over": Value("FOLDERS"),
    "textfiles": _FOLDER,
    "to": _FILE,
    "ufs": Value("URI"),
    "without": Value("NAMES"),
    "worker_group": _GROUP,
    "workers": _HOSTS,
    "yes_clean": Value("NAME"),
    "yes_delete": Value("NAME"),
    "yes_outage": Value("NAME"),
    "yes_recover": Value("NAME"),
    "yes_restore": Value("NAME"),
    "yes_undo": Value("NAME"),
}
#: Values that differ from those of most tasks.
_OF_TASK = {
    **{
        (task, "name"): _NAME[Kind.MEMBERS]
        for task in (
            *("add-member", "remove-member", "replace-member"),
            *("move-leader", "recover-etcd"),
        )
    },
    **{(task, "name"): _NAME[Kind.HOSTS] for task in ("logs", "audit", "clean-host")},
    **{
        (task, "limit"): _NAMES[Kind.MEMBERS]
        for task in ("rotate-certs", "export-csrs", "kept-data")
    },
    **{(task, "limit"): _NAMES[Kind.MASTERS] for task in ("start-masters", "stop-masters")},
    ("decommission-worker", "name"): _NAME[Kind.WORKERS],
    ("show-schema", "name"): Value("NAME", Kind.SCHEMA),
    ("status", "limit"): _NAMES[Kind.ROLES],
    ("backup-etcd", "to"): _FOLDER,
    ("render-client-config", "to"): _FOLDER,
    ("rollback-workers", "to"): Value("VERSION"),
}


def value_of(task: str, parameter: str) -> Value:
    """The value of a task's option or argument; ``parameter`` is its name in the code."""
    found = _OF_TASK.get((task, parameter)) or _VALUES.get(parameter)
    return found or Value(placeholder(parameter))
