"""Key files on this machine: only their owner can read them, and a file is complete or missing.

An existing key is never overwritten.
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

from provision import bounds
from provision.errors import UsageError
from provision.etcd.pki import certificates
from provision.etcd.pki.certificates import KeyPair
from provision.files import make_folder, read_bytes

#: The message about a missing file of the folder.
MISSING = (
    "{} is missing: deploy-etcd makes it; if another machine has the folder of the cluster's "
    "CA, copy it to this machine (etcd.tls.pki_dir)"
)


def own_pair(path: Path) -> KeyPair:
    """Key and certificate from one file. Raises :class:`UsageError` when they cannot be used."""
    with pki_errors(path.parent):
        return certificates.split_pem(read_bytes(_private(path), bounds.PEM))


def ensure_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in ``path``; made if missing. Raises :class:`UsageError`."""
    with pki_errors(path.parent):
        if not path.exists():
            make_private_dir(path.parent)
            create(path, certificates.private_pem(ec.generate_private_key(ec.SECP256R1())), 0o600)
        return load_key(path)


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """An EC key from a file of this tool. Raises errors that :func:`pki_errors` explains."""
    key = serialization.load_pem_private_key(read_bytes(_private(path), bounds.PEM), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path.name} is not an EC key")
    return key


def _private(path: Path) -> Path:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(f"{path} can be read by others: chmod 600 {path}", id="pki-unusable")
    return path


def make_private_dir(directory: Path) -> None:
    """Make the folder, and the folders above it. Only its owner can read it."""
    make_folder(directory)
    if stat.S_IMODE(directory.stat().st_mode) & 0o077:
        directory.chmod(0o700)


def create(path: Path, content: bytes, mode: int) -> None:
    """Create a file; it is complete when it appears. A file that another run made meanwhile is
    kept."""
    temporary = _beside(path, content, mode)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Write a file, old or new, so that it is complete at every moment."""
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
    """Turns errors of key and certificate files into a :class:`UsageError`."""
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
