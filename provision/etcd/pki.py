"""The cluster's own certificate authority, its certificates, and what they say.

The authority is ``ca.crt`` and ``ca.key`` in ``<pki_dir>/<cluster>/`` on the control machine; its
key never leaves it. ``client.pem`` beside them is this tool's own key and certificate, for
members that ask for one. Keys are EC P-256. Files that hold keys are made with
mode 0600, complete or not at all, and an existing one is never written over.

While the authority is being replaced, its successor is in the folder ``next`` there; the one
that it replaced ends in ``retired/<fingerprint>``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import secrets
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provision.errors import UsageError
from provision.text import printable

CA_CERTIFICATE, CA_KEY = "ca.crt", "ca.key"
#: Key and certificate in one file, which is replaced as a whole.
CLIENT = "client.pem"
CLIENT_NAME = "alluxio-provision"
#: Folders of the authority that comes after this one, and of those that came before.
NEXT, RETIRED = "next", "retired"
RENEW_BEFORE_DAYS = 30
#: Certificates are valid from a little earlier, for hosts whose clock is behind.
CLOCK_SKEW = timedelta(hours=1)

_MISSING = (
    "{} is missing: deploy-etcd makes it; on another machine, bring the folder of the cluster's "
    "CA there (etcd.tls.pki_dir)"
)
_USAGES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority that can sign."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def cert_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def __repr__(self) -> str:
        return f"Authority({self.certificate.subject.rfc4514_string()!r})"


@dataclass(frozen=True, slots=True)
class Authorities:
    """The cluster's authority and, while it is being replaced, the one that comes after it.

    ``signing`` is the one that new certificates come from: ``next`` as soon as this tool's own
    certificate does, which is when every member trusts it.
    """

    current: Authority
    next: Authority | None
    signing: Authority

    @property
    def all(self) -> tuple[Authority, ...]:
        return (self.current,) if self.next is None else (self.current, self.next)

    @property
    def bundle(self) -> bytes:
        """What members trust: the certificates of all, PEM."""
        return b"".join(a.cert_pem for a in self.all)

    def issuer(self, pem: bytes) -> Authority | None:
        """Whose the first certificate in ``pem`` is, or None: of neither."""
        return next((a for a in self.all if _issued(pem, a)), None)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key (PKCS#8), both PEM."""

    cert_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return "KeyPair(...)"


@dataclass(frozen=True, slots=True)
class CertInfo:
    """What a certificate says. ``sans`` are names and addresses, sorted; times are UTC."""

    subject: str
    issuer: str
    sans: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    serial: str
    fingerprint: str

    def days_left(self, now: datetime | None = None) -> int:
        """Whole days until it expires; negative when it has."""
        return (self.not_after - (now or _now())) // timedelta(days=1)


def home(pki_dir: Path, cluster: str) -> Path:
    """The folder of the cluster's authority."""
    return pki_dir / cluster


def ca_file(pki_dir: Path, cluster: str) -> Path:
    """The authority's certificate. Raises :class:`UsageError` when it is not there."""
    path = home(pki_dir, cluster) / CA_CERTIFICATE
    if not path.is_file():
        raise UsageError(_MISSING.format(path), id="pki-missing")
    return path


def trusted(pki_dir: Path, cluster: str) -> bytes:
    """The certificates (PEM) that a client of the cluster trusts: both during a replacement.

    Raises :class:`UsageError` when there is none.
    """
    directory = home(pki_dir, cluster)
    with explained(directory):
        found = (directory / CA_CERTIFICATE).read_bytes()
        with contextlib.suppress(FileNotFoundError):
            found += (directory / NEXT / CA_CERTIFICATE).read_bytes()
    return found


def ensure_ca(
    pki_dir: Path, cluster: str, days: int = 3650, *, now: datetime | None = None
) -> Authority:
    """The cluster's authority below ``pki_dir``, made there when there is none.

    Raises :class:`UsageError` when what is there is incomplete, unreadable, expired, does not
    belong together, or when its key is readable by others.
    """
    directory = home(pki_dir, cluster)
    _finish_promotion(directory)
    return _ensure(directory, f"{cluster[:57]} etcd CA", days, now or _now())


def load_ca(pki_dir: Path, cluster: str, *, now: datetime | None = None) -> Authority:
    """The cluster's authority below ``pki_dir``. Raises as :func:`ensure_ca`."""
    directory = home(pki_dir, cluster)
    _finish_promotion(directory)
    return _load(directory, now or _now())


def authorities(pki_dir: Path, cluster: str, *, now: datetime | None = None) -> Authorities:
    """As :func:`load_ca`, with the authority that is to replace it, if that has begun."""
    now = now or _now()
    current = load_ca(pki_dir, cluster, now=now)
    directory = home(pki_dir, cluster)
    if not (directory / NEXT / CA_CERTIFICATE).exists():
        return Authorities(current, None, current)
    successor = _load(directory / NEXT, now)
    own = directory / CLIENT
    with explained(directory):
        switched = own.exists() and _issued(_parted(own.read_bytes()).cert_pem, successor)
    return Authorities(current, successor, successor if switched else current)


def begin_replacement(
    pki_dir: Path, cluster: str, days: int = 3650, *, now: datetime | None = None
) -> Authorities:
    """Make the authority that is to replace the cluster's, unless there is one already."""
    now = now or _now()
    # Not the name of the old one: whoever reads a certificate sees which of the two made it.
    name = f"{cluster[:40]} etcd CA {now:%Y-%m-%d %H:%M}"
    ensure_ca(pki_dir, cluster, days, now=now)
    _ensure(home(pki_dir, cluster) / NEXT, name, days, now)
    return authorities(pki_dir, cluster, now=now)


def stand_in(pki_dir: Path, cluster: str, days: int = 3650) -> Authorities:
    """As :func:`begin_replacement`, without leaving anything: for a plan that is only shown."""
    current = load_ca(pki_dir, cluster)
    with tempfile.TemporaryDirectory() as throw_away:
        made = ensure_ca(Path(throw_away), cluster, days)
    return Authorities(current, made, current)


def finish_replacement(pki_dir: Path, cluster: str) -> None:
    """Put the next authority in the place of the current one, which goes to ``retired/``.

    Safe to repeat, also when it was killed in the middle. Without a next one it does nothing.
    """
    directory = home(pki_dir, cluster)
    _finish_promotion(directory)
    successor = directory / NEXT
    if not (successor / CA_CERTIFICATE).exists():
        return
    with explained(directory):
        old = x509.load_pem_x509_certificate((directory / CA_CERTIFICATE).read_bytes())
        retired = directory / RETIRED / short_fingerprint(old)
        make_private_dir(directory / RETIRED)
        make_private_dir(retired)
        for name in (CA_CERTIFICATE, CA_KEY):
            with contextlib.suppress(FileExistsError):
                os.link(directory / name, retired / name)
        # The certificate first: a key left in next/ that fits ca.crt is what tells of a kill here.
        os.replace(successor / CA_CERTIFICATE, directory / CA_CERTIFICATE)
    _finish_promotion(directory)


def _finish_promotion(directory: Path) -> None:
    key = directory / NEXT / CA_KEY
    if not key.exists() or (directory / NEXT / CA_CERTIFICATE).exists():
        return
    with explained(directory):
        certificate = x509.load_pem_x509_certificate((directory / CA_CERTIFICATE).read_bytes())
        if certificate.public_key() == load_key(key).public_key():
            os.replace(key, directory / CA_KEY)
            (directory / NEXT).rmdir()


def _ensure(directory: Path, name: str, days: int, now: datetime) -> Authority:
    certificate, key = directory / CA_CERTIFICATE, directory / CA_KEY
    if certificate.exists() and not key.exists():
        raise UsageError(
            f"{certificate} is there without its key {key.name}: bring the key back from a backup "
            "(without it no certificate of this cluster can be made or renewed)",
            id="pki-missing",
        )
    with explained(directory):
        # A key alone is a first run that was killed: it has signed nothing, and is used.
        if not key.exists():
            make_private_dir(directory)
            _create(key, _private_pem(ec.generate_private_key(ec.SECP256R1())), 0o600)
        if not certificate.exists():
            _create(certificate, _self_signed(name, load_key(key), days, now), 0o644)
    return _load(directory, now)


def _load(directory: Path, now: datetime) -> Authority:
    with explained(directory):
        certificate = x509.load_pem_x509_certificate((directory / CA_CERTIFICATE).read_bytes())
        key = load_key(directory / CA_KEY)
    if certificate.public_key() != key.public_key():
        raise UsageError(
            f"{directory}: {CA_KEY} is not the key of {CA_CERTIFICATE}", id="pki-unusable"
        )
    if certificate.not_valid_after_utc <= now:
        raise UsageError(
            f"{directory / CA_CERTIFICATE} expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            id="pki-unusable",
        )
    return Authority(certificate, key)


def leaf(
    authority: Authority,
    name: str,
    sans: Iterable[str],
    *,
    usages: Sequence[str] = ("server", "client"),
    days: int = 365,
    now: datetime | None = None,
) -> KeyPair:
    """A new key and its certificate for ``name`` (the common name).

    ``sans`` are host names and IP addresses; ``localhost`` and the loopback addresses are added
    for a server. It never outlives the authority. etcd uses one certificate of a peer as server
    and as client, hence both ``usages``.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(authority, name, key.public_key(), sans, usages, days, now or _now())
    return KeyPair(certificate, _private_pem(key))


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
    """A certificate (PEM) for the key of a signing request, whose private key stays where it is.

    Of the request only the public key is taken: names and usages are ours to give. Raises
    :class:`UsageError` when it is not a request, its signature is wrong, or the key is weak.
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
        return _sign(authority, name, key, sans, usages, days, now or _now())
    if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= 256:
        return _sign(authority, name, key, sans, usages, days, now or _now())
    raise UsageError(
        f"{name}: the key must be EC of 256 bits or RSA of 2048 bits at the least",
        id="file-unusable",
    )


def inspect(pem: bytes) -> CertInfo:
    """What the first certificate in ``pem`` says. Raises ``ValueError`` when there is none."""
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
    """The first 16 hex digits of a certificate's SHA-256: enough to tell two apart."""
    return certificate.fingerprint(hashes.SHA256()).hex()[:16]


def is_good(
    pem: bytes,
    authority: Authority,
    sans: Iterable[str],
    now: datetime | None = None,
    *,
    usages: Sequence[str] = ("server", "client"),
    renew_before_days: int = RENEW_BEFORE_DAYS,
) -> str | None:
    """Why a host's certificate has to be made anew, or ``None`` when it can stay.

    Renewal is due ``renew_before_days`` before the end, or in the last third of a shorter life,
    so that a short-lived certificate is not made anew at every run.
    """
    now = now or _now()
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        have = san_names(certificate)
    except ValueError:
        return "it is not a certificate"
    if not _issued(pem, authority):
        return "it was not issued by this cluster's CA"
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return f"it is valid only from {begin:%Y-%m-%d}"
    if now >= end:
        return f"it expired on {end:%Y-%m-%d}"
    # A leaf that ends with its authority cannot be bettered by making it anew.
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


#: Members are asked in parallel: the first makes the certificate, the others find it. Made by each,
#: it would be replaced while another reads it.
_making_client = threading.Lock()


def ensure_client(
    pki_dir: Path, cluster: str, days: int = 365, *, now: datetime | None = None
) -> KeyPair:
    """This tool's own client certificate, made or renewed with the cluster's authority.

    Without the authority's key an existing one is used as it is (certificates from elsewhere).
    Raises :class:`UsageError` when there is neither.
    """
    with _making_client:
        directory = home(pki_dir, cluster)
        path = directory / CLIENT
        with explained(directory):
            found = own_pair(path) if path.exists() else None
            if found is not None and not (directory / CA_KEY).exists():
                return found
        known = authorities(pki_dir, cluster, now=now)
        if found is not None and any(
            is_good(found.cert_pem, a, (), now, usages=("client",)) is None for a in known.all
        ):
            return found
        return renew_client(pki_dir, cluster, known.signing, days, now=now)


def renew_client(
    pki_dir: Path,
    cluster: str,
    authority: Authority,
    days: int = 365,
    *,
    now: datetime | None = None,
) -> KeyPair:
    """A new client certificate of this tool, signed by ``authority``, in the old one's place."""
    directory = home(pki_dir, cluster)
    made = leaf(authority, CLIENT_NAME, (), usages=("client",), days=days, now=now)
    path = directory / CLIENT
    with explained(directory):
        replace_file(path, made.key_pem + made.cert_pem, 0o600)
    return made


def own_pair(path: Path) -> KeyPair:
    """Key and certificate in one file. Raises :class:`UsageError` when they cannot be used."""
    with explained(path.parent):
        return _parted(_private(path).read_bytes())


def ensure_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in ``path``, made there when there is none. Raises :class:`UsageError`."""
    with explained(path.parent):
        if not path.exists():
            make_private_dir(path.parent)
            _create(path, _private_pem(ec.generate_private_key(ec.SECP256R1())), 0o600)
        return load_key(path)


def _issued(pem: bytes, authority: Authority) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _name(common_name: str) -> x509.Name:
    # X.520 allows 64 characters; longer member names still have their SANs.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _self_signed(
    common_name: str, key: ec.EllipticCurvePrivateKey, days: int, now: datetime
) -> bytes:
    name = _name(common_name)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
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
        .not_valid_before(now - CLOCK_SKEW)
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


def san_names(certificate: x509.Certificate) -> set[str]:
    """The host names and addresses that a certificate is for. Raises ``ValueError``."""
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


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """An EC key from a file of this tool's. Raises as what :func:`explained` explains."""
    key = serialization.load_pem_private_key(_private(path).read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path.name} is not an EC key")
    return key


def _private(path: Path) -> Path:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(f"{path} can be read by others: chmod 600 {path}", id="pki-unusable")
    return path


def _parted(pem: bytes) -> KeyPair:
    """A key and a certificate that stand in one file. Raises ``ValueError``."""
    key = serialization.load_pem_private_key(pem, password=None)
    certificate = x509.load_pem_x509_certificate(pem)
    if certificate.public_key() != key.public_key():
        raise ValueError("the key and the certificate do not belong together")
    blocks = re.findall(rb"-----BEGIN [A-Z ]+-----\n.+?-----END [A-Z ]+-----\n?", pem, re.DOTALL)
    keys = [block for block in blocks if b" KEY-----" in block]
    return KeyPair(b"".join(block for block in blocks if block not in keys), b"".join(keys))


def make_private_dir(directory: Path) -> None:
    """The folder, and those above it; it is for its owner alone."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if stat.S_IMODE(directory.stat().st_mode) & 0o077:
        directory.chmod(0o700)


def _create(path: Path, content: bytes, mode: int) -> None:
    """A new file, complete when it appears. One that another run made meanwhile is kept."""
    temporary = _beside(path, content, mode)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """A file, old or new, whole at every moment."""
    os.replace(_beside(path, content, mode), path)


def _beside(path: Path, content: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    return temporary


@contextlib.contextmanager
def explained(directory: Path) -> Iterator[None]:
    """What can be wrong with files of keys and certificates, as a :class:`UsageError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(_MISSING.format(error.filename), id="pki-missing") from error
    except OSError as error:
        raise UsageError(
            f"{error.filename or directory}: {error.strerror or error}", id="pki-unusable"
        ) from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{directory}: not a usable certificate or key: {error}", id="pki-unusable"
        ) from error
