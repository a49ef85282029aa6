"""The cluster's own certificate authority on the control machine, and its successor.

The authority is ``ca.crt`` and ``ca.key`` in ``<pki_dir>/<cluster>/``; its key never leaves this
machine. ``client.pem`` beside them is this tool's own key and certificate, for members that ask for
a client certificate.

While the authority is being replaced, its successor is in the folder ``next`` there. The replaced
authority is moved to ``retired/<fingerprint>``.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from provision.errors import UsageError
from provision.etcd.pki import certificates, keyfiles
from provision.etcd.pki.certificates import Authority, KeyPair

CA_CERTIFICATE, CA_KEY = "ca.crt", "ca.key"
#: Key and certificate in one file; it is replaced as a whole.
CLIENT = "client.pem"
CLIENT_NAME = "alluxio-provision"
#: Folders of the next authority, and of the authorities before.
NEXT, RETIRED = "next", "retired"

#: The remedy for an authority that has expired.
REPLACE = "invoke rotate-certs --ca makes a new CA; all members restart together"

#: Members are asked in parallel: the first thread makes the certificate, the others find it. If
#: each thread made one, a thread would replace the file while another reads it.
_making_client = threading.Lock()


@dataclass(frozen=True, slots=True)
class CaSet:
    """The cluster's authority and, while it is being replaced, its successor.

    ``signing`` is the authority for new certificates. It is ``next`` as soon as ``next`` has signed
    this tool's own certificate; from then on every member trusts ``next``.
    """

    current: Authority
    next: Authority | None
    signing: Authority

    @property
    def all(self) -> tuple[Authority, ...]:
        return (self.current,) if self.next is None else (self.current, self.next)

    @property
    def bundle(self) -> bytes:
        """The certificates of all these authorities (PEM): members trust them."""
        return b"".join(a.cert_pem for a in self.all)

    def issuer(self, pem: bytes) -> Authority | None:
        """The authority that signed the first certificate in ``pem``; None when neither did."""
        return next((a for a in self.all if certificates.issued(pem, a)), None)


def home(pki_dir: Path, cluster: str) -> Path:
    """The folder of the cluster's authority."""
    return pki_dir / cluster


def ca_exists(pki_dir: Path, cluster: str) -> bool:
    """Whether the cluster has an authority, expired or not."""
    return (home(pki_dir, cluster) / CA_CERTIFICATE).exists()


def ca_file(pki_dir: Path, cluster: str) -> Path:
    """The file with the authority's certificate. Raises :class:`UsageError` when it is missing."""
    path = home(pki_dir, cluster) / CA_CERTIFICATE
    if not path.is_file():
        raise UsageError(keyfiles.MISSING.format(path), id="pki-missing")
    return path


def trusted(pki_dir: Path, cluster: str) -> bytes:
    """The certificates (PEM) that a client of the cluster trusts: two during a replacement.

    Raises :class:`UsageError` without one.
    """
    directory = home(pki_dir, cluster)
    with keyfiles.pki_errors(directory):
        found = (directory / CA_CERTIFICATE).read_bytes()
        with contextlib.suppress(FileNotFoundError):
            found += (directory / NEXT / CA_CERTIFICATE).read_bytes()
    return found


def ensure_ca(
    pki_dir: Path,
    cluster: str,
    days: int = 3650,
    *,
    now: datetime | None = None,
    behind: timedelta = timedelta(0),
) -> Authority:
    """The cluster's authority below ``pki_dir``; made if missing.

    ``behind``: see :class:`Authority`. Raises :class:`UsageError` when its files are incomplete,
    unreadable, expired, do not belong together, or when others can read its key.
    """
    directory = home(pki_dir, cluster)
    _finish_promotion(directory)
    name = f"{cluster[:57]} etcd CA"
    return _ensure(directory, name, days, now or certificates.now_utc(), behind)


def load_ca(pki_dir: Path, cluster: str, *, now: datetime | None = None) -> Authority:
    """The cluster's authority below ``pki_dir``. Raises as :func:`ensure_ca`."""
    directory = home(pki_dir, cluster)
    _finish_promotion(directory)
    return _load(directory, now or certificates.now_utc())


def authorities(
    pki_dir: Path,
    cluster: str,
    *,
    now: datetime | None = None,
    behind: timedelta = timedelta(0),
) -> CaSet:
    """As :func:`load_ca`, with the successor if a replacement has begun. The authority that is
    being replaced may have expired."""
    now = now or certificates.now_utc()
    directory = home(pki_dir, cluster)
    _finish_promotion(directory)
    replaced = (directory / NEXT / CA_CERTIFICATE).exists()
    current = replace(_load(directory, now, expired=replaced), behind=behind)
    if not replaced:
        return CaSet(current, None, current)
    successor = replace(_load(directory / NEXT, now), behind=behind)
    own = directory / CLIENT
    if current.certificate.not_valid_after_utc <= now:
        return CaSet(current, successor, successor)
    with keyfiles.pki_errors(directory):
        switched = own.exists() and certificates.issued(
            certificates.split_pem(own.read_bytes()).cert_pem, successor
        )
    return CaSet(current, successor, successor if switched else current)


def begin_replacement(
    pki_dir: Path,
    cluster: str,
    days: int = 3650,
    *,
    now: datetime | None = None,
    behind: timedelta = timedelta(0),
) -> CaSet:
    """Make the successor of the cluster's authority, unless one exists already."""
    now = now or certificates.now_utc()
    # The name differs from the old authority's name, so a certificate shows which of the two made
    # it.
    name = f"{cluster[:40]} etcd CA {now:%Y-%m-%d %H:%M}"
    directory = home(pki_dir, cluster)
    if expired(pki_dir, cluster, now):
        _load(directory, now, expired=True)
        _retire_expired_successor(directory, now)
    else:
        ensure_ca(pki_dir, cluster, days, now=now, behind=behind)
    _ensure(directory / NEXT, name, days, now, behind)
    return authorities(pki_dir, cluster, now=now, behind=behind)


def preview_replacement(
    pki_dir: Path, cluster: str, days: int = 3650, *, behind: timedelta = timedelta(0)
) -> CaSet:
    """As :func:`begin_replacement`, but writes nothing: for a plan that is only shown."""
    current = _load(home(pki_dir, cluster), certificates.now_utc(), expired=True)
    with tempfile.TemporaryDirectory() as throw_away:
        made = ensure_ca(Path(throw_away), cluster, days, behind=behind)
    return CaSet(current, made, current)


def expired(pki_dir: Path, cluster: str, now: datetime | None = None) -> bool:
    """Whether the cluster has an authority and it has expired. Raises :class:`UsageError` when its
    file cannot be read."""
    directory = home(pki_dir, cluster)
    _finish_promotion(directory)
    path = directory / CA_CERTIFICATE
    if not path.exists():
        return False
    with keyfiles.pki_errors(directory):
        end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    return end <= (now or certificates.now_utc())


def _retire_expired_successor(directory: Path, now: datetime) -> None:
    """Start again with a replacement that was left unfinished until the new CA itself expired."""
    path = directory / NEXT / CA_CERTIFICATE
    if not path.exists():
        return
    with keyfiles.pki_errors(directory):
        old = x509.load_pem_x509_certificate(path.read_bytes())
        if old.not_valid_after_utc <= now:
            keyfiles.make_private_dir(directory / RETIRED)
            os.replace(directory / NEXT, directory / RETIRED / retired_as(old, now))


def retired_as(certificate: x509.Certificate, now: datetime | None = None) -> str:
    """The folder in ``retired/`` for an authority. For an expired authority the name has the
    date."""
    name = certificates.short_fingerprint(certificate)
    end = certificate.not_valid_after_utc
    return f"expired-{end:%Y-%m-%d}-{name}" if end <= (now or certificates.now_utc()) else name


def finish_replacement(pki_dir: Path, cluster: str) -> None:
    """Put the next authority in the place of the current one, which goes to ``retired/``.

    Safe to repeat, also after a kill in the middle. Without a next authority it does nothing.
    """
    directory = home(pki_dir, cluster)
    _finish_promotion(directory)
    successor = directory / NEXT
    if not (successor / CA_CERTIFICATE).exists():
        return
    with keyfiles.pki_errors(directory):
        old = x509.load_pem_x509_certificate((directory / CA_CERTIFICATE).read_bytes())
        retired = directory / RETIRED / retired_as(old)
        keyfiles.make_private_dir(directory / RETIRED)
        keyfiles.make_private_dir(retired)
        for name in (CA_CERTIFICATE, CA_KEY):
            with contextlib.suppress(FileExistsError):
                os.link(directory / name, retired / name)
        # Move the certificate first: after a kill here, the key left in next/ fits ca.crt.
        os.replace(successor / CA_CERTIFICATE, directory / CA_CERTIFICATE)
    _finish_promotion(directory)


def _finish_promotion(directory: Path) -> None:
    key = directory / NEXT / CA_KEY
    if not key.exists() or (directory / NEXT / CA_CERTIFICATE).exists():
        return
    with keyfiles.pki_errors(directory):
        certificate = x509.load_pem_x509_certificate((directory / CA_CERTIFICATE).read_bytes())
        if certificate.public_key() == keyfiles.load_key(key).public_key():
            os.replace(key, directory / CA_KEY)
            (directory / NEXT).rmdir()


def _ensure(directory: Path, name: str, days: int, now: datetime, behind: timedelta) -> Authority:
    certificate, key = directory / CA_CERTIFICATE, directory / CA_KEY
    if certificate.exists() and not key.exists():
        raise UsageError(
            f"{certificate} is there without its key {key.name}: restore the key from a backup "
            "(without it, no certificate of this cluster can be made or renewed)",
            id="pki-missing",
        )
    # A key without a certificate is from a killed first run: it has signed nothing, so it is used.
    private = keyfiles.ensure_key(key)
    with keyfiles.pki_errors(directory):
        if not certificate.exists():
            made = certificates.self_signed(name, private, days, now, behind)
            keyfiles.create(certificate, made, 0o644)
    return replace(_load(directory, now), behind=behind)


def _load(directory: Path, now: datetime, *, expired: bool = False) -> Authority:
    """The authority in a folder. ``expired``: an expired authority is accepted."""
    with keyfiles.pki_errors(directory):
        certificate = x509.load_pem_x509_certificate((directory / CA_CERTIFICATE).read_bytes())
        key = keyfiles.load_key(directory / CA_KEY)
    if certificate.public_key() != key.public_key():
        raise UsageError(
            f"{directory}: {CA_KEY} is not the key of {CA_CERTIFICATE}", id="pki-unusable"
        )
    if certificate.not_valid_after_utc <= now and not expired:
        raise UsageError(
            f"{directory / CA_CERTIFICATE} expired on {certificate.not_valid_after_utc:%Y-%m-%d}: "
            f"{REPLACE}",
            id="ca-expired",
        )
    if certificate.not_valid_before_utc > now:
        raise UsageError(
            f"{directory / CA_CERTIFICATE} is valid only from "
            f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: the clock was ahead when "
            f"it was made, or the clock of this machine ({now:%Y-%m-%d %H:%M}) is behind",
            id="pki-unusable",
        )
    return Authority(certificate, key)


def ensure_client(
    pki_dir: Path,
    cluster: str,
    days: int = 365,
    *,
    now: datetime | None = None,
    behind: timedelta = timedelta(0),
) -> KeyPair:
    """This tool's own client certificate, made or renewed with the cluster's authority.

    Without the authority's key, an existing client certificate is used as it is (certificates from
    elsewhere). Raises :class:`UsageError` without both.
    """
    with _making_client:
        directory = home(pki_dir, cluster)
        path = directory / CLIENT
        with keyfiles.pki_errors(directory):
            found = keyfiles.own_pair(path) if path.exists() else None
            if found is not None and not (directory / CA_KEY).exists():
                return found
        known = authorities(pki_dir, cluster, now=now, behind=behind)
        if found is not None and any(
            certificates.renewal_reason(found.cert_pem, a, (), now, usages=("client",)) is None
            for a in known.all
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
    """Replace this tool's client certificate with a new one, signed by ``authority``."""
    directory = home(pki_dir, cluster)
    made = certificates.leaf(authority, CLIENT_NAME, (), usages=("client",), days=days, now=now)
    path = directory / CLIENT
    with keyfiles.pki_errors(directory):
        keyfiles.replace_file(path, made.key_pem + made.cert_pem, 0o600)
    return made
