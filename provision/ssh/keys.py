"""Private keys and certificates for a login, from files. What cannot be used says why."""

from __future__ import annotations

import base64
import binascii
import copy
import io
import os
import re
import stat
from pathlib import Path
from typing import TypeAlias

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from provision import bounds
from provision.files import read_bytes, read_text, require_regular
from provision.text import printable

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----")
_MAGIC = b"openssh-key-v1\0"
_Key: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Unusable(Exception):
    """A key file is not used. ``str`` follows the file's name in a sentence; ``locked``: only the
    passphrase is missing."""

    def __init__(self, why: str, remedy: str = "", *, locked: bool = False) -> None:
        super().__init__(why)
        self.remedy, self.locked = remedy, locked


def private_key(path: Path, passphrase: str) -> paramiko.PKey:
    """The private key in a file: OpenSSH's format, PEM or PKCS#8. Raises :class:`Unusable`."""
    try:
        require_regular(path, bounds.PEM)
        _require_private(path)
        data = read_bytes(path, bounds.PEM)
    except IsADirectoryError:
        raise Unusable("is a folder") from None
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror}") from None
    kind = _kind(data)
    if kind is None:
        raise Unusable("is not a private key")
    if kind.startswith("sk-"):
        remedy = f"ssh-add {path}"
        raise Unusable("is of a security key (FIDO), which only ssh-agent can use", remedy)
    if kind == "ssh-dss":
        raise Unusable("is a DSA key, which OpenSSH does not accept any more")
    try:
        return _loaded(data, None)
    except TypeError:  # the library's error for an encrypted key
        if not passphrase:
            raise Unusable(
                "has a passphrase, and ssh-agent does not have the key",
                f"ssh-add {path}, or give ssh.key_passphrase",
                locked=True,
            ) from None
    try:
        return _loaded(data, passphrase.encode())
    except Unusable:
        remedy = "check ssh.key_passphrase"
        raise Unusable("does not open with the passphrase", remedy) from None


def _loaded(data: bytes, passphrase: bytes | None) -> paramiko.PKey:
    """The key. Raises ``TypeError`` for an encrypted key without a passphrase."""
    try:
        try:
            key: object = serialization.load_ssh_private_key(data, passphrase)
        except ValueError:
            key = serialization.load_pem_private_key(data, passphrase)
        if isinstance(key, _Key):
            # Paramiko reads neither PKCS#8 nor all ciphers of an encrypted key.
            text = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            )
            return _class(key).from_private_key(io.StringIO(text.decode()))
    except TypeError:
        raise
    except UnsupportedAlgorithm as error:
        raise Unusable(f"is of a kind that this tool does not use: {_line(error)}") from None
    except Exception as error:  # libraries raise many kinds for a damaged key
        raise Unusable(f"is not a readable private key: {_line(error)}") from None
    raise Unusable("is of a kind that this tool does not use")


def _class(key: _Key) -> type[paramiko.PKey]:
    if isinstance(key, rsa.RSAPrivateKey):
        return paramiko.RSAKey
    return paramiko.Ed25519Key if isinstance(key, ed25519.Ed25519PrivateKey) else paramiko.ECDSAKey


def _require_private(path: Path) -> None:
    """As OpenSSH: a key of one's own that others may read is no secret. (A key that belongs to
    somebody else, such as one that is mounted into a container, is not looked at.)"""
    there = path.stat()
    if there.st_uid == os.getuid() and there.st_mode & 0o077:
        mode = stat.S_IMODE(there.st_mode)
        raise Unusable(f"may be read or written by others (mode {mode:04o})", f"chmod 600 {path}")


def _kind(data: bytes) -> str | None:
    """The kind of a private key; ``""`` when it is not known, None when it is no private key."""
    if (found := _PEM.search(data)) is None:
        return None
    if found[1] == b"DSA ":
        return "ssh-dss"
    if found[1] != b"OPENSSH ":
        return ""
    try:
        body = base64.b64decode(data[found.end() :].partition(b"-----END")[0])
        if not body.startswith(_MAGIC):
            return ""
        message = paramiko.Message(body[len(_MAGIC) :])
        for _ in range(3):  # cipher, kdf, options of the kdf
            message.get_binary()
        message.get_int()
        return paramiko.Message(message.get_binary()).get_text()
    except Exception:  # a damaged file: its reading gives the reason
        return ""


def public_blob(path: Path) -> bytes | None:
    """The public key of a key file, from the file beside it or from the file itself."""
    public = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
    try:
        return base64.b64decode(read_text(public, bounds.PEM).split()[1], validate=True)
    except (OSError, ValueError, IndexError, binascii.Error):
        return None


class Certificate:
    """A user's certificate. ``of`` is the public key that it certifies.

    Raises :class:`Unusable`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            data = read_bytes(path, bounds.PEM)
            found = serialization.ssh.load_ssh_public_identity(data)
            if not isinstance(found, serialization.ssh.SSHCertificate):
                raise Unusable("is a public key, not a certificate")
            self.of = base64.b64decode(
                found.public_key()
                .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
                .split()[1]
            )
            self.blob = base64.b64decode(data.split()[1])
        except OSError as error:
            raise Unusable(f"cannot be read: {error.strerror}") from None
        except Unusable:
            raise
        except Exception as error:  # as for keys
            raise Unusable(f"is not a certificate: {_line(error)}") from None


def with_certificate(key: paramiko.PKey, certificate: Certificate) -> paramiko.PKey:
    certified = copy.copy(key)
    certified.load_certificate(paramiko.Message(certificate.blob))
    return certified


def _line(error: Exception) -> str:
    """An error of a library in one line, and not its advice for programmers."""
    return printable(str(error).splitlines()[0] if str(error) else type(error).__name__)[:120]
