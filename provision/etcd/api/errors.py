"""How calls to etcd fail, in an operator's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from provision import bounds
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
    ODD = "does not answer as etcd does"
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


class EtcdTooMuch(EtcdRefused):
    """The answer is larger than this tool reads. Its limits are in :mod:`provision.bounds`."""

    def __init__(self, endpoint: Endpoint, what: str) -> None:
        super().__init__(endpoint, what, TOO_MUCH, id="etcd-answer-cut")


class EtcdCompacted(EtcdRefused):
    """A watch cannot go on, because its history is compacted: read the keys again."""


#: What helps when etcd holds more than this tool reads.
TOO_MUCH = "find out who writes so much, and delete what is not needed: see invoke list-clusters"

_REMEDIES = {
    Reason.ODD: "find out what listens there; if it is the member itself, take it out of the "
    "cluster: it is broken, or someone has taken it over",
    Reason.REFUSED: "is etcd running there, and listening on that port?",
    Reason.TLS: "check that the listener and the inventory agree on TLS, and that the listener's "
    "certificate is of this cluster's CA",
    Reason.LOGIN: "etcd has authentication on: see etcd.auth and alluxio.etcd in the inventory",
    Reason.DENIED: "grant this prefix to the user's role",
    Reason.NO_QUORUM: "start the members that are down",
}

_IDS: dict[Reason, Id] = {
    Reason.ODD: "etcd-answer-odd",
    Reason.TLS: "etcd-tls-failed",
    Reason.LOGIN: "etcd-login-refused",
    Reason.DENIED: "etcd-login-refused",
    Reason.NO_QUORUM: "quorum-lost",
}


#: How the texts of etcd's own errors begin (``rpctypes`` and its packages ``mvcc``, ``auth``...).
_OWN = ("etcdserver: ", "mvcc: ", "auth: ", "raft: ", "lease ", "membership: ")
#: Parts of gRPC's texts, in lower case, and what they mean for an operator.
_TLS_TEXTS = {
    "hostname verification": "the certificate is not for this address",
    "peer did not return a certificate": "the listener wants a certificate of the client",
    "certificate_expired": "the certificate has expired",
    "certificate has expired": "the certificate has expired",
    "expired": "the certificate has expired",
    "unknown_ca": "the listener does not trust the client's CA",
    "unknown ca": "the listener does not trust the client's CA",
    "self-signed": "the certificate is not of this CA",
    "self signed": "the certificate is not of this CA",
    "unable to get": "the certificate is not of this CA",
    "verify failed": "the certificate is not of this CA",
    "wrong_version_number": "the listener has no TLS",
    "wrong version number": "the listener has no TLS",
}
_NETWORK_TEXTS = {
    "no route to host": "no route to the host",
    "unreachable": "the network is not reachable",
    "timed out": "no answer in time",
    "name resolution": "the name does not resolve",
    "dns resolution": "the name does not resolve",
    "too many open files": "this machine has too many open files",
    "frame": "it does not speak gRPC",
    "http": "it does not speak gRPC",
}


def translated(endpoint: Endpoint, error: Any, timeout: float) -> EtcdError:
    """gRPC's error in an operator's words."""
    return classified(endpoint, error.code().name, error.details() or "", timeout)


def classified(endpoint: Endpoint, code: str, details: str, timeout: float) -> EtcdError:
    """The error for gRPC's code and text. Only etcd's own texts (its ``rpctypes``) are shown: what
    gRPC writes is for programmers, and may have anything that the other end sends."""
    text = re.sub(r"^rpc error: code = \w+ desc = ", "", printable(details, 300))
    low = text.lower()

    def unreachable(reason: Reason, detail: str = "") -> EtcdError:
        return EtcdUnreachable(endpoint, reason, detail)

    own = low.startswith(_OWN)
    if "larger than max" in low:
        return EtcdTooMuch(endpoint, f"the answer has more than {bounds.ANSWER // bounds.MIB} MiB")
    if "no leader" in low or "request timed out" in low or "leader changed" in low:
        return unreachable(Reason.NO_QUORUM, text if own else "")
    if "ping timeout" in low:
        return unreachable(Reason.TIMEOUT, "no keepalive reply")
    # etcd knows this call's deadline, too: its RST_STREAM (CANCEL) may arrive before our own
    # deadline.
    if code == "DEADLINE_EXCEEDED" or re.search(r"rst_stream.* error code 8\b", low):
        return unreachable(Reason.TIMEOUT, f"in {timeout:g} s")
    if "rst_stream" in low or "stream removed" in low or code == "CANCELLED":
        return unreachable(Reason.CLOSED)
    # A watch ends with the same code for every error, so here the text counts, too.
    if code == "PERMISSION_DENIED" or "permission denied" in low:
        return unreachable(Reason.DENIED, text if own else "")
    if code == "UNAUTHENTICATED" or any(
        part in low for part in ("user name is empty", "authentication failed", "auth token")
    ):
        return unreachable(Reason.LOGIN, text if own else "")
    if own:
        if code == "UNAVAILABLE":
            return unreachable(Reason.OTHER, text)
        return EtcdRefused(endpoint, text, id="etcd-refused")
    if code == "UNAVAILABLE":
        if any(part in low for part in ("handshake", "certificate", "verification", "ssl")):
            return unreachable(Reason.TLS, _known(low, _TLS_TEXTS))
        if "refused" in low:
            return unreachable(Reason.REFUSED)
        if any(part in low for part in ("closed", "reset", "goaway", "broken pipe", "eof")):
            return unreachable(Reason.CLOSED)
        return unreachable(Reason.OTHER, _known(low, _NETWORK_TEXTS))
    if code == "UNIMPLEMENTED":
        return unreachable(Reason.ODD, "it does not know this request")
    if "deserializ" in low:
        return unreachable(Reason.ODD, "its answer cannot be read")
    what = f"it gave no reason that is etcd's own ({code.lower().replace('_', ' ')})"
    return EtcdRefused(endpoint, what, id="etcd-refused")


def _known(low: str, texts: Mapping[str, str]) -> str:
    """What the first of ``texts`` that is in ``low`` stands for; empty without one."""
    return next((said for part, said in texts.items() if part in low), "")
