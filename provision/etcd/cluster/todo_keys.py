"""Notes in etcd about work that is left after a membership change, kept until the work is done.

A run may be killed between the removal of a member and the cleaning of its host, or before the
workers have the new endpoints. Only these notes then show the unfinished work. Any later run, from
any machine, finds them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field

from provision.dataclass import dataclass
from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.cluster.handle import Etcd
from provision.etcd.cluster.health import ClusterHealth
from provision.text import document

PREFIX = "/alluxio-provision/pending/"
WORKERS = f"{PREFIX}workers"
_CLEAN = f"{PREFIX}clean/"


@dataclass(frozen=True, slots=True)
class Pending:
    """``workers``: the workers' endpoint lists may be stale. ``clean``: the addresses of removed
    members' hosts that have not been cleaned, by the member's name."""

    workers: bool = False
    clean: Mapping[str, str] = field(default_factory=dict)


def read(seen: ClusterHealth, etcd: Etcd) -> Pending:
    """The work that is left; nothing when no member of ``seen`` serves reads. The cluster of
    ``seen`` counts, not the handle's."""
    if not seen.healthy_count:
        return Pending()
    try:
        with etcd.with_cluster(seen.cluster).any() as client:
            _, keys = client.range(PREFIX)
    except EtcdUnreachable as error:
        if error.reason in (Reason.LOGIN, Reason.DENIED):
            return Pending()  # without rights to read the notes, this tool could not write them
        raise
    clean: dict[str, str] = {}
    for pair in keys:
        name = pair.key.decode(errors="replace").removeprefix(_CLEAN)
        if pair.key.startswith(_CLEAN.encode()):
            try:
                clean[name] = str(document(pair.value)["address"])
            except (ValueError, KeyError, TypeError):
                continue
    return Pending(any(pair.key == WORKERS.encode() for pair in keys), clean)


def note_workers(client: EtcdClient) -> None:
    client.put(WORKERS, "{}")


def forget_workers(client: EtcdClient) -> None:
    client.delete(WORKERS)


def note_clean(client: EtcdClient, name: str, address: str) -> None:
    client.put(_CLEAN + name, json.dumps({"address": address}))


def forget_clean(client: EtcdClient, name: str) -> None:
    client.delete(_CLEAN + name)
