"""The cluster's own certificate authority on the control machine, and its successor.

The authority is ``ca.crt`` and ``ca.key`` in ``<pki_dir>/<cluster>/``; its key never leaves this
machine. ``client.pem`` beside them is this tool's own key and certificate, for members that ask for
a client certificate.

While the authority is being replaced, its successor is in the folder ``next`` there. The replaced
authority is moved to ``retired/<fingerprint>``. While an authority that is lost is being replaced,
its certificate is in the folder ``lost`` (:mod:`provision.etcd.pki.lost_ca`).

Commands that only look use the functions that read: they work on a folder that cannot be written.
Only :func:`ensure_ca`, :func:`begin_replacement`, :func:`finish_replacement` and
:func:`renew_client` write, for commands that change something.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from provision import bounds
from provision.dataclass import dataclass
from provision.errors import UsageError
from provision.etcd.pki import certificates, keyfiles
from provision.etcd.pki.certificates import Authority, KeyPair
from provision.files import read_bytes

CA_CERTIFICATE, CA_KEY = "ca.crt", "ca.key"
#: Key and certificate in one file; it is replaced as a whole.
CLIENT = "client.pem"
CLIENT_NAME = "alluxio-provision"
#: Folders of the next authority, and of the authorities before.
NEXT, RETIRED = "next", "retired"
#: Folder of what is known of an authority that is lost: see :mod:`provision.etcd.pki.lost_ca`.
LOST = "lost"

#: The remedy for an authority that has expired.
REPLACE = "invoke rotate-certs --ca makes a new CA; all members restart together"
#: The remedy when members cannot change to a new authority one by one.
TOGETHER = (
    "invoke rotate-certs --ca --ca-lost {0} --yes-outage {0} gives all members a new CA, and "
    "restarts them together"
)

#: Validity (days) of a certificate that is made for one connection. Its key is stored nowhere. It
#: may not be shorter than a member's clock may be ahead.
CONNECTION_DAYS = 7


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
    successor = lost = b""
    with keyfiles.pki_errors(directory):
        # While a lost authority is being replaced, some members still have its certificates.
        with contextlib.suppress(FileNotFoundError):
            lost = read_bytes(directory / LOST / CA_CERTIFICATE, bounds.PEM)
        # Read the successor first: when it takes the authority's place meanwhile, it is read twice,
        # not missed.
        with contextlib.suppress(FileNotFoundError):
            successor = read_bytes(directory / NEXT / CA_CERTIFICATE, bounds.PEM)
        return read_bytes(directory / CA_CERTIFICATE, bounds.PEM) + successor + lost


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
    directory, now = home(pki_dir, cluster), now or certificates.now_utc()
    return _ensure(directory, _first_name(cluster), days, now, behind)


def preview(cluster: str, days: int = 3650, *, behind: timedelta = timedelta(0)) -> CaSet:
    """An authority as :func:`ensure_ca` makes it, in memory: for a plan that is only shown."""
    made = _in_memory(_first_name(cluster), days, certificates.now_utc(), behind)
    return CaSet(made, None, made)


def load_ca(pki_dir: Path, cluster: str, *, now: datetime | None = None) -> Authority:
    """The cluster's authority below ``pki_dir``. Raises as :func:`ensure_ca`."""
    return _load(home(pki_dir, cluster), now or certificates.now_utc())


def authorities(
    pki_dir: Path,
    cluster: str,
    *,
    now: datetime | None = None,
    behind: timedelta = timedelta(0),
    expired: bool = False,
) -> CaSet:
    """As :func:`load_ca`, with the successor if a replacement has begun. The authority that is
    being replaced may have expired; with ``expired``, also one that is not."""
    now = now or certificates.now_utc()
    directory = home(pki_dir, cluster)
    successor = None
    with keyfiles.pki_errors(directory):
        replaced = (directory / NEXT / CA_CERTIFICATE).exists()
    if replaced:
        successor = replace(_load(directory / NEXT, now, expired=expired), behind=behind)
    accepted = expired or successor is not None
    current = replace(_load(directory, now, expired=accepted), behind=behind)
    # They are the same when the successor took the authority's place meanwhile.
    if successor is None or successor.certificate == current.certificate:
        return CaSet(current, None, current)
    own = directory / CLIENT
    if current.certificate.not_valid_after_utc <= now:
        return CaSet(current, successor, successor)
    with keyfiles.pki_errors(directory):
        switched = own.exists() and certificates.issued(
            certificates.split_pem(read_bytes(own, bounds.PEM)).cert_pem, successor
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
    directory = home(pki_dir, cluster)
    _finish_promotion(directory)
    if expired(pki_dir, cluster, now):
        _load(directory, now, expired=True)
        _retire_expired_successor(directory, now)
    else:
        ensure_ca(pki_dir, cluster, days, now=now, behind=behind)
    _ensure(directory / NEXT, _next_name(cluster, now), days, now, behind)
    return authorities(pki_dir, cluster, now=now, behind=behind)


def preview_replacement(
    pki_dir: Path, cluster: str, days: int = 3650, *, behind: timedelta = timedelta(0)
) -> CaSet:
    """As :func:`begin_replacement`, but writes nothing: for a plan that is only shown."""
    now = certificates.now_utc()
    current = _load(home(pki_dir, cluster), now, expired=True)
    return CaSet(current, _in_memory(_next_name(cluster, now), days, now, behind), current)


def expired(pki_dir: Path, cluster: str, now: datetime | None = None) -> bool:
    """Whether the cluster has an authority and it has expired. Raises :class:`UsageError` when its
    file cannot be read."""
    directory = home(pki_dir, cluster)
    with keyfiles.pki_errors(directory):
        path = directory / CA_CERTIFICATE
        if not path.exists():
            return False
        end = x509.load_pem_x509_certificate(read_bytes(path, bounds.PEM)).not_valid_after_utc
    return end <= (now or certificates.now_utc())


def _retire_expired_successor(directory: Path, now: datetime) -> None:
    """Start again with a replacement that was left unfinished until the new CA itself expired."""
    path = directory / NEXT / CA_CERTIFICATE
    if not path.exists():
        return
    with keyfiles.pki_errors(directory):
        old = x509.load_pem_x509_certificate(read_bytes(path, bounds.PEM))
        if old.not_valid_after_utc <= now:
            keyfiles.make_private_dir(directory / RETIRED)
            os.replace(directory / NEXT, directory / RETIRED / retired_as(old, now))


def retired_as(certificate: x509.Certificate, now: datetime | None = None) -> str:
    """The folder in ``retired/`` for an authority. For an expired authority the name has the
    date."""
    name = certificates.short_fingerprint(certificate)
    end = certificate.not_valid_after_utc
    return f"expired-{end:%Y-%m-%d}-{name}" if end <= (now or certificates.now_utc()) else name


def retired(pki_dir: Path, cluster: str) -> list[x509.Certificate]:
    """The certificates of the authorities that were replaced; unreadable files are left out."""
    found = []
    for path in sorted((home(pki_dir, cluster) / RETIRED).glob(f"*/{CA_CERTIFICATE}")):
        with contextlib.suppress(OSError, ValueError):
            found.append(x509.load_pem_x509_certificate(read_bytes(path, bounds.PEM)))
    return found


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
        old = x509.load_pem_x509_certificate(read_bytes(directory / CA_CERTIFICATE, bounds.PEM))
        retired = directory / RETIRED / retired_as(old)
        keyfiles.make_private_dir(directory / RETIRED)
        keyfiles.make_private_dir(retired)
        for name in (CA_CERTIFICATE, CA_KEY):
            with contextlib.suppress(FileExistsError):
                os.link(directory / name, retired / name)
        # Move the certificate first: after a kill here, the key left in next/ fits ca.crt.
        os.replace(successor / CA_CERTIFICATE, directory / CA_CERTIFICATE)
    _finish_promotion(directory)


def half_finished(pki_dir: Path, cluster: str) -> bool:
    """Whether :func:`finish_replacement` was killed after it had moved the next authority's
    certificate, and before it moved the key."""
    return _promoted_key(home(pki_dir, cluster)) is not None


def _finish_promotion(directory: Path) -> None:
    key = _promoted_key(directory)
    if key is not None:
        with keyfiles.pki_errors(directory):
            os.replace(key, directory / CA_KEY)
            (directory / NEXT).rmdir()


def _promoted_key(directory: Path) -> Path | None:
    """The key in ``next``, when the certificate that it belongs to has left ``next``. A first run
    that was killed leaves a key there, too, which belongs to no certificate yet."""
    with keyfiles.pki_errors(directory):
        key = directory / NEXT / CA_KEY
        if not key.exists() or (directory / NEXT / CA_CERTIFICATE).exists():
            return None
        certificate = x509.load_pem_x509_certificate(
            read_bytes(directory / CA_CERTIFICATE, bounds.PEM)
        )
        return key if certificate.public_key() == keyfiles.load_key(key).public_key() else None


def _first_name(cluster: str) -> str:
    return f"{cluster[:57]} etcd CA"


def _next_name(cluster: str, now: datetime) -> str:
    """It differs from the old authority's name, so a certificate shows which of the two made it."""
    return f"{cluster[:40]} etcd CA {now:%Y-%m-%d %H:%M}"


def _in_memory(name: str, days: int, now: datetime, behind: timedelta) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    made = certificates.self_signed(name, key, days, now, behind)
    return Authority(x509.load_pem_x509_certificate(made), key, behind)


def _ensure(directory: Path, name: str, days: int, now: datetime, behind: timedelta) -> Authority:
    certificate, key = directory / CA_CERTIFICATE, directory / CA_KEY
    _require_key(directory)
    # A key without a certificate is from a killed first run: it has signed nothing, so it is used.
    private = keyfiles.ensure_key(key)
    with keyfiles.pki_errors(directory):
        if not certificate.exists():
            made = certificates.self_signed(name, private, days, now, behind)
            keyfiles.create(certificate, made, 0o644)
    return replace(_load(directory, now), behind=behind)


def _load(directory: Path, now: datetime, *, expired: bool = False) -> Authority:
    """The authority in a folder. ``expired``: an expired authority is accepted.

    When :func:`finish_replacement` was killed half-way, its key is still in ``next``. The keys are
    read before the certificate: if the key is moved meanwhile, one of them belongs to it.
    """
    with keyfiles.pki_errors(directory):
        (directory / CA_CERTIFICATE).stat()  # report this file first when all are missing
        _require_key(directory)
        keys = []
        with contextlib.suppress(FileNotFoundError):
            keys.append(keyfiles.load_key(directory / NEXT / CA_KEY))
        keys.append(keyfiles.load_key(directory / CA_KEY))
        certificate = x509.load_pem_x509_certificate(
            read_bytes(directory / CA_CERTIFICATE, bounds.PEM)
        )
    key = next((k for k in keys if k.public_key() == certificate.public_key()), None)
    if key is None:
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


def _require_key(directory: Path) -> None:
    certificate, key = directory / CA_CERTIFICATE, directory / CA_KEY
    if certificate.exists() and not key.exists():
        raise UsageError(
            f"{certificate} is there without its key {key.name}: restore the key from a backup "
            "(without it, no certificate of this cluster can be made or renewed). If it is lost "
            f"for good: move {directory} away; invoke explain ca-unknown says how to go on",
            id="pki-missing",
        )


def client_pair(pki_dir: Path, cluster: str, *, now: datetime | None = None) -> KeyPair:
    """This tool's own key and certificate for a connection to a member; nothing is written.

    It is ``client.pem`` while that is good. Otherwise the authority signs a pair for this call
    alone: a pair takes half a millisecond, less than the check of ``client.pem``, so none is kept.
    Without the authority's key, ``client.pem`` is used as it is (certificates from elsewhere).
    Raises :class:`UsageError` without both.
    """
    directory, now = home(pki_dir, cluster), now or certificates.now_utc()
    with keyfiles.pki_errors(directory):
        path = directory / CLIENT
        found = keyfiles.own_pair(path) if path.exists() else None
        if found is not None and not (directory / CA_KEY).exists():
            return found
    with keyfiles.pki_errors(directory):
        # Until the members trust the new authority, they accept a pair of the lost one only.
        if (directory / LOST / CLIENT).exists():
            return keyfiles.own_pair(directory / LOST / CLIENT)
    known = authorities(pki_dir, cluster, now=now)
    if found is not None and _renewal_reason(found, known, now) is None:
        return found
    # The members' clocks are not known here. Nobody accepts the pair before its authority.
    begin = known.signing.certificate.not_valid_before_utc
    signer = replace(known.signing, behind=now - certificates.CLOCK_SKEW - begin)
    return certificates.leaf(
        signer, CLIENT_NAME, (), usages=("client",), days=CONNECTION_DAYS, now=now
    )


def client_reason(pki_dir: Path, cluster: str, known: CaSet) -> str | None:
    """Why ``client.pem`` must be made or renewed: empty when it is missing, None when it is good.

    Raises :class:`UsageError` when it cannot be read.
    """
    path = home(pki_dir, cluster) / CLIENT
    with keyfiles.pki_errors(path.parent):
        if not path.exists():
            return ""
    return _renewal_reason(keyfiles.own_pair(path), known, certificates.now_utc())


def _renewal_reason(client: KeyPair, known: CaSet, now: datetime) -> str | None:
    by = known.issuer(client.cert_pem) or known.signing
    return certificates.renewal_reason(client.cert_pem, by, (), now, usages=("client",))


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
