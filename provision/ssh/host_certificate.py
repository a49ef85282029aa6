"""Certificates of hosts: signed by a CA that known_hosts names with @cert-authority."""

from __future__ import annotations

import base64
import fnmatch
import time

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization.ssh import (
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from provision.ssh.known_hosts import Known
from provision.text import printable


def fault(kind: str, blob: bytes, known: Known, name: str) -> str | None:
    """Why a host's certificate does not prove that the host is ``name``; None when it does.

    ``kind`` and ``blob`` are the certificate as in a file; ``known`` are the host's entries.
    """
    try:
        found = load_ssh_public_identity(f"{kind} ".encode() + base64.b64encode(blob))
        if not isinstance(found, SSHCertificate):
            return "it is no certificate"
        signer = _blob(found.signature_key())
        if signer in known.revoked or _blob(found.public_key()) in known.revoked:
            return "its key or its CA is marked @revoked in known_hosts"
        if signer not in known.authorities:
            return "its CA is not in known_hosts"
        found.verify_cert_signature()
    except Exception as error:  # whatever the host sent, it proves nothing
        return f"it cannot be verified: {printable(str(error), 100) or type(error).__name__}"
    if found.type != SSHCertificateType.HOST:
        return "it is a user's certificate"
    if found.critical_options:
        return "it has critical options that are not known"
    now = time.time()
    if now < found.valid_after:
        return "it is not valid yet"
    if now >= found.valid_before:
        return "it has expired"
    names = [name.decode(errors="replace") for name in found.valid_principals]
    if not any(_same(pattern, name) for pattern in names):
        return f"it is for {printable(', '.join(names), 100) or 'no name'}, not for {name}"
    return None


def _blob(key: serialization.ssh.SSHCertPublicKeyTypes) -> bytes:
    text = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return base64.b64decode(text.split()[1])


def _same(pattern: str, name: str) -> bool:
    """OpenSSH's wildcards are ``*`` and ``?`` only."""
    return fnmatch.fnmatchcase(name.lower(), pattern.lower().replace("[", "[[]"))
