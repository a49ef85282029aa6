"""What a change of members still owes once etcd has it, kept in etcd until it is done.

A run that is killed between removing a member and cleaning its host, or before the workers know
the new endpoints, leaves nothing else that says so. Any later run, from any machine, finds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from provision.etcd.api.client import EtcdClient
from provision.etcd.api.errors import EtcdUnreachable, Reason
from provision.etcd.cluster import health
from provision.etcd.cluster.health import ClusterHealth
from provision.ssh.session import Fleet
from provision.text import document

PREFIX = "/alluxio-provision/pending/"
WORKERS = f"{PREFIX}workers"
_CLEAN = f"{PREFIX}clean/"


@dataclass(frozen=True, slots=True)
class Pending:
    """``workers``: their endpoint list may be stale. ``clean``: the address of each removed
    member's host that has not been cleaned, by the member's name."""

    workers: bool = False
    clean: Mapping[str, str] = field(default_factory=dict)


def read(seen: ClusterHealth, fleet: Fleet) -> Pending:
    """What is owed; nothing when no member of ``seen`` serves reads."""
    if not seen.healthy_count:
        return Pending()
    try:
        with health.any_client(seen.cluster, fleet) as client:
            _, keys = client.range(PREFIX)
    except EtcdUnreachable as error:
        if error.reason in (Reason.LOGIN, Reason.DENIED):
            return Pending()  # without rights to read it, nor could it be written
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
