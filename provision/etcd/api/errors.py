"""How calls to etcd fail, in an operator's words."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

from provision.errors import Problem, Unhealthy
from provision.etcd.api.values import Endpoint
from provision.ids import Id
from provision.text import printable


class Reason(str, Enum):
    """Why a member does not serve."""

    REFUSED = "connection refused"
    TIMEOUT = "no answer"
    TLS = "TLS failed"
    LOGIN = "login refused"
    DENIED = "not permitted to this user"
    NO_QUORUM = "no leader: a quorum of members is not up"
    CLOSED = "the connection was closed"
    OTHER = "not available"


class EtcdError(Unhealthy):
    """A call to etcd failed. ``endpoint`` is the endpoint of the call."""

    def __init__(self, endpoint: Endpoint, what: str, remedy: str = "", *, id: Id) -> None:
        problem = Problem(f"etcd {endpoint}", what, remedy, id=id)
        super().__init__(f"etcd at {endpoint}: {what}", [problem], id=id)
        self.endpoint = endpoint


class EtcdUnreachable(EtcdError):
    """The endpoint does not serve; ``reason`` gives the kind of failure."""

    def __init__(self, endpoint: Endpoint, reason: Reason, detail: str = "") -> None:
        tail = f" ({detail})" if detail else ""
        remedy, id = _REMEDIES.get(reason, ""), _IDS.get(reason, "member-down")
        super().__init__(endpoint, f"{reason.value}{tail}", remedy, id=id)
        self.reason = reason


class EtcdRefused(EtcdError):
    """The endpoint serves, and did not accept this request (no space, compacted revision...)."""


class EtcdCompacted(EtcdRefused):
    """A watch cannot go on, because its history is compacted: read the keys again."""


_REMEDIES = {
    Reason.REFUSED: "is etcd running there, and listening on that port?",
    Reason.TLS: "check that the listener and the inventory agree on TLS, and that the listener's "
    "certificate is of this cluster's CA",
    Reason.LOGIN: "etcd has authentication on: see etcd.auth and alluxio.etcd in the inventory",
    Reason.DENIED: "grant this prefix to the user's role",
    Reason.NO_QUORUM: "start the members that are down",
}

_IDS: dict[Reason, Id] = {
    Reason.TLS: "etcd-tls-failed",
    Reason.LOGIN: "etcd-login-refused",
    Reason.DENIED: "etcd-login-refused",
    Reason.NO_QUORUM: "quorum-lost",
}


def translated(endpoint: Endpoint, error: Any, timeout: float) -> EtcdError:
    """gRPC's error in an operator's words."""
    return classified(endpoint, error.code().name, error.details() or "", timeout)


def classified(endpoint: Endpoint, code: str, details: str, timeout: float) -> EtcdError:
    """The error for gRPC's code and the server's text (one of etcd's ``rpctypes``)."""
    text = printable(details, 300)
    low = text.lower()

    def unreachable(reason: Reason, detail: str = text) -> EtcdError:
        return EtcdUnreachable(endpoint, reason, detail)

    if "no leader" in low or "request timed out" in low or "leader changed" in low:
        return unreachable(Reason.NO_QUORUM)
    if "ping timeout" in low:
        return unreachable(Reason.TIMEOUT, "no keepalive reply")
    # etcd knows this call's deadline, too: its RST_STREAM (CANCEL) may arrive before our own
    # deadline.
    if code == "DEADLINE_EXCEEDED" or re.search(r"rst_stream.* error code 8\b", low):
        return unreachable(Reason.TIMEOUT, f"in {timeout:g} s")
    if "rst_stream" in low or "stream removed" in low:
        return unreachable(Reason.CLOSED)
    # A watch ends with the same code for every error, so here the text counts, too.
    if code == "PERMISSION_DENIED" or "permission denied" in low:
        return unreachable(Reason.DENIED)
    if code == "UNAUTHENTICATED" or any(
        part in low for part in ("user name is empty", "authentication failed", "auth token")
    ):
        return unreachable(Reason.LOGIN)
    if code == "UNAVAILABLE":
        last = re.sub(r"^\w+: ipv[46]:\S+: ", "", text.rpartition("last error: ")[2])
        if any(part in low for part in ("handshake", "certificate", "verification", "ssl")):
            return unreachable(Reason.TLS, last)
        if "refused" in low:
            return unreachable(Reason.REFUSED, "")
        if "closed" in low or "reset" in low:
            return unreachable(Reason.CLOSED, last)
        return unreachable(Reason.OTHER, last)
    return EtcdRefused(endpoint, f"{text or code.lower()}", id="etcd-refused")
