"""The certificates a member needs: kept where they are good, made where they are not."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from provision.etcd import desired, pki
from provision.etcd.desired import Leaf, MemberTls
from provision.host.observe import HostFacts
from provision.inventory.resolved import EtcdCluster, EtcdMember


def authority(cluster: EtcdCluster, *, write: bool) -> pki.Authorities | None:
    """The cluster's CA below ``tls.pki_dir``, or None when both listeners are plain.

    With ``write`` it is made there at first use; without, a throw-away one stands in for it.
    """
    if not (cluster.tls.peer or cluster.tls.client):
        return None
    directory, days = cluster.tls.pki_dir, cluster.tls.ca_days
    if write or (pki.home(directory, cluster.name) / pki.CA_CERTIFICATE).exists():
        pki.ensure_ca(directory, cluster.name, days)
        return pki.authorities(directory, cluster.name)
    with tempfile.TemporaryDirectory() as throw_away:
        pki.ensure_ca(Path(throw_away), cluster.name, days)
        return pki.authorities(Path(throw_away), cluster.name)


def material(
    cluster: EtcdCluster, member: EtcdMember, facts: HostFacts, ca: pki.Authorities | None
) -> MemberTls | None:
    """The TLS files of ``member``, or None when both listeners are plain.

    A certificate on the host that is good (signed by the CA, right names, not about to expire)
    is kept with its key. While the CA is being replaced (see :mod:`provision.etcd.rotate`), what
    belongs to that is left as it is.
    """
    if ca is None:
        return None

    def one(kind: str) -> Leaf:
        why = due(cluster, member, kind, facts, ca)
        return Leaf() if why is None else leaf(cluster, member, facts, ca.signing, why)

    return MemberTls(
        name=member.name,
        authority=_trust(cluster, facts, ca),
        peer=one("peer") if member.peer_tls else None,
        server=one("server") if member.client_tls else None,
    )


def kinds(member: EtcdMember) -> tuple[str, ...]:
    """Which certificates the member has: ``peer`` (port 2380), ``server`` (its client port)."""
    return ("peer",) * member.peer_tls + ("server",) * member.client_tls


def due(
    cluster: EtcdCluster, member: EtcdMember, kind: str, facts: HostFacts, ca: pki.Authorities
) -> str | None:
    """Why a listener needs a new certificate; None when the one on the host is good."""
    here = installed(cluster, kind, facts)
    if here is None:
        return ""
    issuer = ca.issuer(here) or ca.signing
    return pki.is_good(here, issuer, desired.sans(member))


def leaf(
    cluster: EtcdCluster,
    member: EtcdMember,
    facts: HostFacts,
    authority: pki.Authority,
    why: str,
    on_made: Callable[[bytes], None] = lambda _: None,
) -> Leaf:
    """A new certificate for ``member``; its key is made on the host if that has openssl.

    ``on_made`` is given the certificate (PEM) when it is made.
    """
    names, days = desired.sans(member), cluster.tls.leaf_days

    def sign(request: bytes) -> bytes:
        certificate = pki.sign_csr(authority, request, member.name, names, days=days)
        on_made(certificate)
        return certificate

    if facts.commands.get(desired.OPENSSL, "").strip():
        return Leaf(why, sign=sign)
    pair = pki.leaf(authority, member.name, names, days=days)
    on_made(pair.cert_pem)
    return Leaf(why, pair=(pair.cert_pem, pair.key_pem))


def installed(cluster: EtcdCluster, kind: str, facts: HostFacts) -> bytes | None:
    """The certificate of a listener (``peer`` or ``server``) on a host that has its key, too."""
    path = desired.certificate(cluster, kind)
    certificate, key = facts.paths.get(f"{path}.crt"), facts.paths.get(f"{path}.key")
    return certificate.content if certificate is not None and key is not None and key.size else None


def trust(cluster: EtcdCluster, facts: HostFacts) -> bytes:
    """The CA certificates (PEM) that the host's file holds; empty when there is none."""
    here = facts.paths.get(desired.ca_file(cluster))
    return (here.content or b"") if here is not None else b""


def _trust(cluster: EtcdCluster, facts: HostFacts, ca: pki.Authorities) -> bytes:
    here = trust(cluster, facts)
    return here if here in (a.cert_pem for a in ca.all) and ca.next is not None else ca.bundle
