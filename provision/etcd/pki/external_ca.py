"""An external CA: the bundle that members trust, and the certificates that the CA has signed.

``etcd.tls.ca_bundle`` contains its roots: two while one CA follows another. Imported certificates
(:mod:`provision.plans.etcd.certificates.csr_exchange`) are in ``<pki_dir>/<cluster>/imported/``.
Each file has a member's own certificate first, then the intermediates up to the root. A private key
waits on its host as ``<listener>.key.new`` for its certificate, and never leaves the host.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from provision import bounds
from provision.dataclass import dataclass
from provision.errors import Problem, UsageError
from provision.etcd.pki import certificates, keyfiles, own_ca
from provision.files import read_bytes
from provision.inventory.resolved import EtcdCluster
from provision.text import printable

IMPORTED = "imported"
#: The file with intermediates for all certificates of an imported folder.
CHAIN = "chain.pem"
PEM = serialization.Encoding.PEM
HOW = "invoke export-csrs DIR, have the requests signed, invoke import-certs DIR"

BOTH = ("server", "client")
_ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
_OIDS = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True, slots=True)
class External:
    """The CA of ``ca_bundle``: its roots, the intermediates in the same file, its folder."""

    bundle: bytes
    roots: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...]
    folder: Path

    def imported(self, name: str) -> bytes | None:
        """The imported certificate with that name, with its intermediates. The name comes from
        :func:`provision.etcd.pki.imported.name_of`."""
        with keyfiles.pki_errors(self.folder), contextlib.suppress(FileNotFoundError):
            return read_bytes(self.folder / f"{name}.crt", bounds.PEM)
        return None

    def knows(self, pem: bytes) -> bool:
        """Whether a chain leads from the first certificate in ``pem`` to the bundle."""
        try:
            self.chain(pem)
        except ValueError:
            return False
        return True

    def chain(
        self, pem: bytes, more: bytes = b"", now: datetime | None = None
    ) -> tuple[x509.Certificate, ...]:
        """The first certificate in ``pem``, the intermediates up to a root of the bundle, and that
        root.

        ``more`` may have further intermediates. Raises ``ValueError`` without such a chain. The
        rules are the same as in etcd (Go's ``crypto/x509``): signatures, validity, each CA's right
        to sign, and the usages of every certificate in the chain.
        """
        leaf, *between = x509.load_pem_x509_certificates(pem)
        if more:
            between += x509.load_pem_x509_certificates(more)
        policy = (
            verification.PolicyBuilder()
            .store(verification.Store(list(self.roots)))
            .time(now or certificates.now_utc())
            .extension_policies(ca_policy=_for_a_ca(), ee_policy=_for_a_leaf())
        )
        try:
            found = policy.build_client_verifier().verify(leaf, [*between, *self.intermediates])
        except verification.VerificationError as error:
            raise ValueError(str(error)) from error
        return tuple(found.chain)


def load(cluster: EtcdCluster, now: datetime | None = None) -> External:
    """The CA of the inventory's ``ca_bundle``. Raises :class:`UsageError` with every fault of the
    file: no certificates, a certificate that is no CA or has expired, or a missing root."""
    path, now = cluster.tls.ca_bundle, now or certificates.now_utc()
    assert path is not None  # the inventory's checks ensure this
    try:
        found = x509.load_pem_x509_certificates(read_bytes(path, bounds.PEM))
    except OSError as error:
        raise UsageError(
            f"etcd.tls.ca_bundle: {path}: {error.strerror or error}", id="ca-bundle-invalid"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"etcd.tls.ca_bundle: {path}: no PEM certificates: {error}", id="ca-bundle-invalid"
        ) from error
    found = list(dict.fromkeys(found))
    roots = tuple(c for c in found if _is_root(c))
    between = tuple(c for c in found if c not in roots)
    problems = []
    for certificate in found:
        name = f"{path}: {subject(certificate)}"
        if not _is_ca(certificate):
            problems.append(
                Problem(
                    name,
                    "is not the certificate of a CA",
                    "remove it from the file",
                    id="ca-bundle-invalid",
                )
            )
        elif certificate.not_valid_after_utc <= now:
            end = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
            problems.append(
                Problem(
                    name, f"expired on {end}", "remove it from the file", id="ca-bundle-invalid"
                )
            )
        elif certificate in between and not any(_signed(certificate, c) for c in found):
            what = (
                "is not a root CA, and its issuer is not in the file: clients could not verify it"
            )
            problems.append(
                Problem(name, what, "add the root CA to the file", id="ca-bundle-invalid")
            )
    if problems:
        raise UsageError("etcd.tls.ca_bundle cannot be used", problems, id="ca-bundle-invalid")
    folder = own_ca.home(cluster.tls.pki_dir, cluster.name) / IMPORTED
    return External(b"".join(c.public_bytes(PEM) for c in found), roots, between, folder)


def faults(
    ca: External,
    pem: bytes,
    names: Collection[str],
    *,
    usages: Sequence[str] = BOTH,
    more: bytes = b"",
    now: datetime | None = None,
) -> list[str]:
    """Every reason why the first certificate in ``pem`` cannot be used; empty when it can be used.

    ``names`` are host names and addresses that it must have.
    """
    now = now or certificates.now_utc()
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        missing = {certificates.canonical(name) for name in names} - certificates.san_names(
            certificate
        )
    except ValueError:
        return ["it is not a certificate"]
    found = []
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        found.append(f"it is valid only from {begin:%Y-%m-%d %H:%M} UTC")
    if now >= end:
        found.append(f"it expired on {end:%Y-%m-%d}")
    try:
        # Check the chain at a time when the certificate was valid, so that an expired certificate
        # is one fault, not two.
        ca.chain(pem, more, min(max(now, begin), end - timedelta(seconds=1)))
    except ValueError as error:
        issuer = printable(certificate.issuer.rfc4514_string(), 200)
        found.append(
            f"no chain leads from it to etcd.tls.ca_bundle (issuer: {issuer}): {_why(error)}"
        )
    if missing:
        found.append(f"it does not name {', '.join(sorted(missing))}")
    allowed = _usages(certificate)
    if lacking := [u for u in usages if allowed is not None and _OIDS[u] not in allowed]:
        found.append(f"it is not for use as {' and '.join(lacking)}")
    return found


def _why(error: ValueError) -> str:
    text = str(error).removeprefix("validation failed: ").removeprefix("candidates exhausted: ")
    if "no interior errors" in text:
        return (
            f"none of these CAs issued it; put intermediate certificates behind it, or into {CHAIN}"
        )
    return printable(text.split(" (encountered processing")[0], 200)


def key_of(pem: bytes) -> bytes:
    """The public key (DER) of the first certificate in ``pem``. Raises ``ValueError``."""
    return spki(x509.load_pem_x509_certificate(pem).public_key())


def key_of_request(pem: bytes) -> bytes:
    """The public key (DER) of a request. Raises ``ValueError`` unless this key signed the
    request."""
    request = x509.load_pem_x509_csr(pem)
    if not request.is_signature_valid:
        raise ValueError("it is not signed by its own key")
    return spki(request.public_key())


def subject(certificate: x509.Certificate) -> str:
    return printable(certificate.subject.rfc4514_string(), 200)


def _for_a_ca() -> verification.ExtensionPolicy:
    either = verification.Criticality.AGNOSTIC

    def may_sign(_: object, __: object, usage: x509.KeyUsage | None) -> None:
        if usage is not None and not usage.key_cert_sign:
            raise ValueError("a CA in the chain may not sign certificates (key usage)")

    def for_both(_: object, __: object, usage: x509.ExtendedKeyUsage | None) -> None:
        if usage is not None and not {*_OIDS.values()} <= {*usage} and _ANY not in usage:
            raise ValueError("a CA in the chain is not for certificates of servers and clients")

    # Corporate roots often have no key usage, and etcd does not require it.
    return (
        verification.ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, either, None)
        .may_be_present(x509.KeyUsage, either, may_sign)
        .may_be_present(x509.ExtendedKeyUsage, either, for_both)
    )


def _for_a_leaf() -> verification.ExtensionPolicy:
    either = verification.Criticality.AGNOSTIC

    def no_ca(_: object, __: object, basic: x509.BasicConstraints | None) -> None:
        if basic is not None and basic.ca:
            raise ValueError("it is a CA's certificate itself")

    def signs(_: object, __: object, usage: x509.KeyUsage | None) -> None:
        if usage is not None and not usage.digital_signature:
            raise ValueError("its key usage lacks digital signature")

    return (
        verification.ExtensionPolicy.permit_all()
        .may_be_present(x509.BasicConstraints, either, no_ca)
        .may_be_present(x509.KeyUsage, either, signs)
    )


def _usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier] | None:
    """The allowed usages of a certificate; None: all usages."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return None if _ANY in found else set(found)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _is_root(certificate: x509.Certificate) -> bool:
    return _signed(certificate, certificate)


def _signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def spki(key: PublicKeyTypes) -> bytes:
    """A public key in DER, in the form of certificates (SubjectPublicKeyInfo)."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
