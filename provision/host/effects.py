"""What a change does beyond its own files: the guards of a plan follow from it.

An effect belongs to the change itself, so it is the same in every command. Which guard goes with
which effect is in :mod:`provision.engine.guards`.
"""

from __future__ import annotations

from enum import Enum


class Effect(str, Enum):
    """One kind of effect; the value says it in words."""

    HOST = "changes a host"
    SERVICE = "stops, starts or disturbs a service"
    REMOVAL = "removes something that runs"
    WORKER = "starts a worker, which needs a lease"
    TRUST = "changes a certificate, or the CAs that a member trusts"
    ETCD = "changes etcd by a request"
    MEMBERS = "changes etcd's list of members"
    ETCD_GONE = "deletes every copy of etcd's data"
    ETCD_BACK = "takes etcd's data back to an earlier state"
    CLIENTS = "cuts off clients of etcd"
    HERE = "changes files on this machine"
