"""The certificates that the TLS listeners of etcd members show."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import ssl
from datetime import datetime, timedelta, timezone
from typing import Literal

from provision import progress, wait
from provision.dataclass import dataclass
from provision.errors import Problem, ProvisionError, UsageError
from provision.etcd.api.values import Endpoint
from provision.etcd.cluster.reach import DIRECT_TIMEOUT, Reach, Route, describe, open_route
from provision.inventory.resolved import EtcdCluster, EtcdMember
from provision.text import counted

EXPIRY_WARNING_DAYS = 30


@dataclass(frozen=True, slots=True)
class CertificateState:
    """The certificate a listener shows. ``error``: why it is not accepted, or not known.

    ``fingerprint`` is the certificate's SHA-256, lower-case hex.
    """

    listener: Literal["client", "peer"]
    not_after: datetime | None
    error: str = ""
    fingerprint: str = ""

    def days_left(self, now: datetime | None = None) -> int | None:
        if self.not_after is None:
            return None
        return (self.not_after - (now or datetime.now(timezone.utc))) // timedelta(days=1)


def shown_certificates(
    etcd: Reach, member: EtcdMember, how: Route | None = None
) -> tuple[CertificateState, ...]:
    """The certificates that the member's TLS listeners show to a new connection."""
    listeners: list[tuple[Literal["client", "peer"], int]] = []
    if member.served.tls:
        listeners.append(("client", member.served.port))
    if member.peer_tls:
        listeners.append(("peer", member.peer_port))
    found: list[CertificateState] = []
    for listener, port in listeners:
        try:
            context = tls_context(etcd.cluster)
            with open_route(etcd, member, port, how) as (endpoint, _):
                found.append(_shown(listener, context, endpoint, member.address))
        except ProvisionError as error:
            found.append(CertificateState(listener, None, describe(error)[0]))
    return tuple(found)


def tls_context(cluster: EtcdCluster) -> ssl.SSLContext:
    from provision.etcd.pki import tls

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=tls.trusted(cluster).decode("ascii", "replace"))
        with contextlib.suppress(UsageError):
            # Members that ask for a client's certificate log every connection without one.
            own = tls.own_pair(cluster)
            _load(context, own.key_pem + own.cert_pem)
    except OSError as error:
        raise UsageError(f"{cluster.tls.pki_dir}: {error}", id="pki-unusable") from error
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Load a key and its certificate, which may exist in this process only. The module ``ssl``
    takes files only; this one is in memory, so that a key is never in a folder for temporary
    files, and the file ends with this function."""
    descriptor = os.memfd_create("client")
    with open(descriptor, "wb", buffering=0) as file:
        file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def _shown(
    listener: Literal["client", "peer"], context: ssl.SSLContext, endpoint: Endpoint, name: str
) -> CertificateState:
    """The certificate of a TLS listener, checked against the CA and the member's name."""
    try:
        with (
            progress.calling(f"etcd at {endpoint}", "its certificate", DIRECT_TIMEOUT * 6),
            socket.create_connection((endpoint.address, endpoint.port), DIRECT_TIMEOUT * 3) as raw,
            wait.ending(raw, DIRECT_TIMEOUT * 6),
            context.wrap_socket(raw, server_hostname=name) as secured,
        ):
            end = (secured.getpeercert() or {}).get("notAfter")
            fingerprint = hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()
    except ssl.SSLCertVerificationError as error:
        return CertificateState(listener, None, error.verify_message or str(error))
    except OSError as error:
        return CertificateState(listener, None, error.strerror or str(error))
    if not isinstance(end, str):
        return CertificateState(listener, None, "shows no certificate")
    seconds = ssl.cert_time_to_seconds(end)
    until = datetime.fromtimestamp(seconds, timezone.utc)
    return CertificateState(listener, until, fingerprint=fingerprint)


def expiry(where: str, certificate: CertificateState, renew: str, replace: str) -> list[Problem]:
    """The problems of a listener's certificate. ``renew`` is the remedy when it expires soon,
    ``replace`` the remedy when it has expired."""
    which = f"{certificate.listener} certificate"
    left = certificate.days_left()
    if left is None:
        over = "expired" in certificate.error
        return [
            Problem(
                where,
                f"{which} not verified: {certificate.error}",
                replace if over else "",
                "error" if over else "warning",
                id="certificate-unverified",
            )
        ]
    if left >= EXPIRY_WARNING_DAYS:
        return []
    when = f"{certificate.not_after:%Y-%m-%d}"
    return [
        Problem(
            where,
            f"{which} expires in {counted(left, 'day')}, on {when}",
            renew,
            "warning",
            id="certificate-expiring",
        )
    ]
