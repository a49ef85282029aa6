"""Certificates as values: issue them, read them, and decide on renewal. Keys are EC P-256."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provision.dataclass import dataclass
from provision.errors import UsageError
from provision.text import printable

RENEW_BEFORE_DAYS = 30
#: Certificates begin so long before the earliest clock: a clock may still be set back a little.
CLOCK_SKEW = timedelta(hours=1)
_USAGES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority that can sign.

    ``behind``: how far the earliest clock of all hosts that check its certificates is behind this
    machine's clock. The certificates begin so much earlier.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    behind: timedelta = timedelta(0)

    @property
    def cert_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def __repr__(self) -> str:
        return f"Authority({self.certificate.subject.rfc4514_string()!r})"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key (PKCS#8), both PEM."""

    cert_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return "KeyPair(...)"


@dataclass(frozen=True, slots=True)
class CertInfo:
    """The contents of a certificate. ``sans`` are names and addresses, sorted; times are UTC."""

    subject: str
    issuer: str
    sans: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    serial: str
    fingerprint: str

    def days_left(self, now: datetime | None = None) -> int:
        """Whole days until it expires; negative when it has."""
        return (self.not_after - (now or now_utc())) // timedelta(days=1)


def leaf(
    authority: Authority,
    name: str,
    sans: Iterable[str],
    *,
    usages: Sequence[str] = ("server", "client"),
    days: int = 365,
    now: datetime | None = None,
) -> KeyPair:
    """A new key and its certificate for ``name`` (the common name; empty: no subject).

    ``sans`` are host names and IP addresses; ``localhost`` and the loopback addresses are added
    for a server. The certificate never outlives the authority. etcd uses a peer's certificate as
    server and as client, so the default has both ``usages``.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(authority, name, key.public_key(), sans, usages, days, now or now_utc())
    return KeyPair(certificate, private_pem(key))


def sign_csr(
    authority: Authority,
    csr: bytes,
    name: str,
    sans: Iterable[str],
    *,
    usages: Sequence[str] = ("server", "client"),
    days: int = 365,
    now: datetime | None = None,
) -> bytes:
    """A certificate (PEM) for the key of a signing request. The private key stays where it is.

    Only the public key is taken from the request; this tool sets names and usages. Raises
    :class:`UsageError` when the text is not a request, its signature is wrong, or the key is weak.
    """
    try:
        request = x509.load_pem_x509_csr(csr)
        signed = request.is_signature_valid
    except ValueError as error:
        raise UsageError(
            f"{name}: not a certificate signing request: {error}", id="file-unusable"
        ) from error
    if not signed:
        raise UsageError(
            f"{name}: the signing request is not signed by its own key", id="file-unusable"
        )
    key = request.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return _sign(authority, name, key, sans, usages, days, now or now_utc())
    if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= 256:
        return _sign(authority, name, key, sans, usages, days, now or now_utc())
    raise UsageError(
        f"{name}: the key must be EC of 256 bits or RSA of 2048 bits at the least",
        id="file-unusable",
    )


def inspect(pem: bytes) -> CertInfo:
    """The contents of the first certificate in ``pem``. Raises ``ValueError`` without one."""
    certificate = x509.load_pem_x509_certificate(pem)
    return CertInfo(
        subject=printable(certificate.subject.rfc4514_string()),
        issuer=printable(certificate.issuer.rfc4514_string()),
        sans=tuple(sorted(printable(name) for name in san_names(certificate))),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        serial=f"{certificate.serial_number:x}",
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def short_fingerprint(certificate: x509.Certificate) -> str:
    """The first 16 hex digits of a certificate's SHA-256: enough to distinguish certificates."""
    return certificate.fingerprint(hashes.SHA256()).hex()[:16]


def renewal_reason(
    pem: bytes,
    authority: Authority,
    sans: Iterable[str],
    now: datetime | None = None,
    *,
    usages: Sequence[str] = ("server", "client"),
    renew_before_days: int = RENEW_BEFORE_DAYS,
) -> str | None:
    """Why a host's certificate must be reissued, or ``None`` when it can stay.

    Renewal is due ``renew_before_days`` before the end, or in the last third of a shorter life, so
    that a short-lived certificate is not reissued at every run.
    """
    now = now or now_utc()
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        have = san_names(certificate)
    except ValueError:
        return "it is not a certificate"
    if not issued(pem, authority):
        return "it was not issued by this cluster's CA"
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return f"it is valid only from {begin:%Y-%m-%d}"
    if now >= end:
        return f"it expired on {end:%Y-%m-%d}"
    # A leaf that already expires with its CA gains nothing when it is reissued.
    outlived = end >= authority.certificate.not_valid_after_utc
    if not outlived and end - now < min(timedelta(days=renew_before_days), (end - begin) / 3):
        return f"it expires on {end:%Y-%m-%d}"
    missing = _server_names(sans, usages) - have
    if missing:
        return f"it does not name {', '.join(sorted(missing))}"
    lacking = [usage for usage in usages if _USAGES[usage] not in _extended_usage(certificate)]
    if lacking:
        return f"it is not for use as {' and '.join(lacking)}"
    return None


def issued(pem: bytes, authority: Authority) -> bool:
    """Whether ``authority`` made the first certificate in ``pem``."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return False
    return signed(certificate, authority.certificate)


def signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    """Whether the holder of ``by`` signed ``certificate``; validity times do not matter."""
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def is_current(certificate: x509.Certificate, now: datetime | None = None) -> bool:
    """Whether the certificate's validity has begun and has not ended."""
    now = now or now_utc()
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def now_utc() -> datetime:
    """The present time, with the precision of certificates."""
    return datetime.now(timezone.utc)


def _name(common_name: str) -> x509.Name:
    if not common_name:
        return x509.Name([])
    # X.520 allows 64 characters; longer member names still have their SANs.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def self_signed(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    days: int,
    now: datetime,
    behind: timedelta = timedelta(0),
) -> bytes:
    """An authority's own certificate (PEM). It may sign leaves, but no other authority.

    It begins an hour before the earliest clock, which is ``behind`` this machine's clock.
    """
    name = _name(common_name)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - behind - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _sign(
    authority: Authority,
    name: str,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    sans: Iterable[str],
    usages: Sequence[str],
    days: int,
    now: datetime,
) -> bytes:
    end = min(now + timedelta(days=days), authority.certificate.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(authority.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - authority.behind - CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_USAGES[u] for u in usages]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    names = [_general_name(san) for san in sorted(_server_names(sans, usages))]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _server_names(sans: Iterable[str], usages: Sequence[str]) -> set[str]:
    own = {"localhost", "127.0.0.1", "::1"} if "server" in usages else set()
    return own | {canonical(san) for san in sans}


def canonical(san: str) -> str:
    """One spelling per name: addresses compressed, host names in lower case."""
    try:
        return str(ipaddress.ip_address(san))
    except ValueError:
        return san.lower()


def _general_name(san: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        return x509.DNSName(san)


def names(pem: bytes) -> set[str]:
    """The host names and addresses in the first certificate of ``pem``; none when it is not a
    certificate."""
    try:
        return san_names(x509.load_pem_x509_certificate(pem))
    except ValueError:
        return set()


def san_names(certificate: x509.Certificate) -> set[str]:
    """The host names and addresses in a certificate. Raises ``ValueError``."""
    try:
        value = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = {str(address) for address in value.get_values_for_type(x509.IPAddress)}
    return addresses | {name.lower() for name in value.get_values_for_type(x509.DNSName)}


def _extended_usage(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return set()


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """``key`` as PKCS#8, PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def split_pem(pem: bytes) -> KeyPair:
    """The key and the certificate of one file. Raises ``ValueError``."""
    key = serialization.load_pem_private_key(pem, password=None)
    certificate = x509.load_pem_x509_certificate(pem)
    if certificate.public_key() != key.public_key():
        raise ValueError("the key and the certificate do not belong together")
    blocks = re.findall(rb"-----BEGIN [A-Z ]+-----\n.+?-----END [A-Z ]+-----\n?", pem, re.DOTALL)
    keys = [block for block in blocks if b" KEY-----" in block]
    return KeyPair(b"".join(block for block in blocks if block not in keys), b"".join(keys))
