"""A CA that is lost for good: what the folder of the CA keeps while a new CA takes its place.

The key is gone, but every member's host has the certificate, in its ``ca.crt``. The folder ``lost``
beside the new CA keeps these certificates, so that this machine trusts members of both CAs. When
the members ask for a client certificate, it also keeps a pair that the lost CA has signed
(``client.pem``): until a member trusts the new CA, it accepts no other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from provision import bounds
from provision.errors import PreflightFailed, Problem
from provision.etcd.member import desired
from provision.etcd.pki import certificates, keyfiles, own_ca
from provision.files import read_bytes
from provision.host.facts import HostFacts
from provision.inventory.resolved import EtcdCluster, Machine


def folder(cluster: EtcdCluster) -> Path:
    """The folder that is there while a lost CA is being replaced."""
    return own_ca.home(cluster.tls.pki_dir, cluster.name) / own_ca.LOST


def begun(cluster: EtcdCluster) -> bool:
    """Whether the replacement of a lost CA has begun and has not ended."""
    return (folder(cluster) / own_ca.CA_CERTIFICATE).exists()


def trust(cluster: EtcdCluster) -> bytes:
    """The certificates (PEM) of the lost CA, as :func:`begin` kept them."""
    with keyfiles.pki_errors(folder(cluster)):
        return read_bytes(folder(cluster) / own_ca.CA_CERTIFICATE, bounds.PEM)


def found(cluster: EtcdCluster, facts: Mapping[Machine, HostFacts]) -> bytes:
    """The certificates (PEM) of the lost CA, from the members' own ``ca.crt``.

    A certificate counts when most members trust it: one host that somebody has taken over must not
    bring a CA of its own to the others. Raises :class:`PreflightFailed` with the members whose
    certificates these CAs have not signed.
    """
    votes: Counter[bytes] = Counter()
    for m in cluster.members:
        with contextlib.suppress(ValueError, KeyError):
            pem = desired.trusted(cluster, facts[m.machine])
            votes.update(set(map(_pem, x509.load_pem_x509_certificates(pem))))
    known = sorted(pem for pem, count in votes.items() if 2 * count > len(cluster.members))
    issuers = [x509.load_pem_x509_certificate(pem) for pem in known]
    problems = [
        Problem(
            m.place,
            f"has a {kind} certificate of a CA that most members do not trust",
            f"find out who changed that host; {own_ca.TOGETHER.format(cluster.name)}",
            id="ca-unknown",
        )
        for m in cluster.members
        for kind in desired.kinds(m)
        if not _signed(desired.installed(cluster, kind, facts[m.machine]), issuers)
    ]
    if problems:
        raise PreflightFailed(
            "the members' hosts do not agree on the lost CA", problems, id="ca-unknown"
        )
    return b"".join(known)


def begin(cluster: EtcdCluster, old: bytes, client: bytes | None, behind: timedelta) -> None:
    """Keep the certificates ``old`` (PEM) of the lost CA, and make the new CA.

    ``client``: key and certificate (PEM) of the lost CA, for connections. Parts of the lost CA that
    are still in its folder are moved aside. Safe to repeat.
    """
    home, aside = own_ca.home(cluster.tls.pki_dir, cluster.name), folder(cluster)
    with keyfiles.pki_errors(home):
        keyfiles.make_private_dir(home)
        keyfiles.make_private_dir(aside)
        if not begun(cluster) and not (home / own_ca.CA_KEY).exists():
            for name in (own_ca.CLIENT, own_ca.NEXT):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(home / name, aside / name)
            with contextlib.suppress(FileNotFoundError):
                os.replace(home / own_ca.CA_CERTIFICATE, aside / "former.crt")
        if client is not None and not (aside / own_ca.CLIENT).exists():
            keyfiles.replace_file(aside / own_ca.CLIENT, client, 0o600)
        # This file comes last: with it, the folder is complete.
        if not begun(cluster):
            keyfiles.replace_file(aside / own_ca.CA_CERTIFICATE, old, 0o644)
    own_ca.ensure_ca(cluster.tls.pki_dir, cluster.name, cluster.tls.ca_days, behind=behind)


def has_pair(cluster: EtcdCluster) -> bool:
    """Whether a pair of the lost CA is kept for connections."""
    return (folder(cluster) / own_ca.CLIENT).exists()


def forget_pair(cluster: EtcdCluster) -> None:
    """Delete the pair: every member accepts a certificate of the new CA."""
    with keyfiles.pki_errors(folder(cluster)):
        (folder(cluster) / own_ca.CLIENT).unlink(missing_ok=True)


def finish(cluster: EtcdCluster) -> None:
    """Nobody trusts the lost CA any more: keep its certificates in ``retired/``, delete the rest.

    Safe to repeat.
    """
    home, aside = own_ca.home(cluster.tls.pki_dir, cluster.name), folder(cluster)
    if not aside.exists():
        return
    with keyfiles.pki_errors(home):
        if begun(cluster):
            for certificate in x509.load_pem_x509_certificates(trust(cluster)):
                into = home / own_ca.RETIRED / own_ca.retired_as(certificate)
                keyfiles.make_private_dir(home / own_ca.RETIRED)
                keyfiles.make_private_dir(into)
                keyfiles.replace_file(into / own_ca.CA_CERTIFICATE, _pem(certificate), 0o644)
        # A key is never left by a run that is killed here.
        forget_pair(cluster)
        shutil.rmtree(aside)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _signed(pem: bytes | None, issuers: list[x509.Certificate]) -> bool:
    try:
        leaf = x509.load_pem_x509_certificate(pem or b"")
    except ValueError:
        return False
    return any(certificates.signed(leaf, ca) for ca in issuers)
