"""A certificate for one process of etcd and its one client, in memory; nobody keeps its keys.

Both show it to each other: so the client knows that it talks to that process, and not to another
one that has taken its port, and the process serves nobody else.
"""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from provision.dataclass import dataclass
from provision.etcd.pki import certificates
from provision.etcd.pki.certificates import Authority, KeyPair

#: The name in the certificate; it is no name of a host.
NAME = "scratch"
#: The clocks of hosts may be wrong. The keys are thrown away, so time adds no safety.
_AROUND = timedelta(days=20 * 365)


@dataclass(frozen=True, slots=True)
class Throwaway:
    """``pair`` is for both sides, ``ca`` (PEM) is its only signer."""

    ca: bytes
    pair: KeyPair


def make() -> Throwaway:
    """A new CA with one certificate. It has no subject: with authentication, etcd takes a client
    certificate's common name for a user."""
    now, days = certificates.now_utc(), _AROUND.days
    key = ec.generate_private_key(ec.SECP256R1())
    ca = certificates.self_signed(NAME, key, days, now, _AROUND)
    authority = Authority(x509.load_pem_x509_certificate(ca), key, _AROUND)
    return Throwaway(ca, certificates.leaf(authority, "", [NAME], days=days, now=now))
