"""Files of keys on this machine: for their owner alone, complete or not there at all.

A key that is there is never written over.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from provision.errors import UsageError
from provision.etcd.pki import certificates
from provision.etcd.pki.certificates import KeyPair

#: What is said of a file of the folder that is not there.
MISSING = (
    "{} is missing: deploy-etcd makes it; on another machine, bring the folder of the cluster's "
    "CA there (etcd.tls.pki_dir)"
)


def own_pair(path: Path) -> KeyPair:
    """Key and certificate in one file. Raises :class:`UsageError` when they cannot be used."""
    with pki_errors(path.parent):
        return certificates.split_pem(_private(path).read_bytes())


def ensure_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in ``path``, made there when there is none. Raises :class:`UsageError`."""
    with pki_errors(path.parent):
        if not path.exists():
            make_private_dir(path.parent)
            create(path, certificates.private_pem(ec.generate_private_key(ec.SECP256R1())), 0o600)
        return load_key(path)


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """An EC key from a file of this tool's. Raises as what :func:`pki_errors` explains."""
    key = serialization.load_pem_private_key(_private(path).read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path.name} is not an EC key")
    return key


def _private(path: Path) -> Path:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(f"{path} can be read by others: chmod 600 {path}", id="pki-unusable")
    return path


def make_private_dir(directory: Path) -> None:
    """The folder, and those above it; it is for its owner alone."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if stat.S_IMODE(directory.stat().st_mode) & 0o077:
        directory.chmod(0o700)


def create(path: Path, content: bytes, mode: int) -> None:
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
def pki_errors(directory: Path) -> Iterator[None]:
    """What can be wrong with files of keys and certificates, as a :class:`UsageError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(MISSING.format(error.filename), id="pki-missing") from error
    except OSError as error:
        raise UsageError(
            f"{error.filename or directory}: {error.strerror or error}", id="pki-unusable"
        ) from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{directory}: not a usable certificate or key: {error}", id="pki-unusable"
        ) from error
