"""New host keys at the end of a known_hosts file, beside others who write to it.

ssh appends to the file, and so does another run of this tool. So the file is never replaced: all
new lines are one write at its end.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from provision import bounds
from provision.errors import UsageError
from provision.files import make_folder, read_text
from provision.ssh.known_hosts import HostKey, KnownHosts

_SALT = 20  # bytes, as ssh's


def append(path: Path, entries: Sequence[tuple[str, HostKey]]) -> int:
    """Add keys under names to ``path``; what is there stays. Returns how many lines are new.

    A new file has mode 0600, and its new folder 0700; one that is there keeps its mode. Names are
    hashed if the file has hashed ones. Raises :class:`UsageError` when the file cannot be written.
    """
    try:
        make_folder(path.parent)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        descriptor = os.open(path, flags, 0o600)
        with contextlib.closing(os.fdopen(descriptor, "r+b", buffering=0)) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = read_text(path, bounds.KNOWN_HOSTS, errors="replace")
            lines = _new_lines(text, path, entries)
            if lines:
                start = "\n" if text and not text.endswith("\n") else ""
                _write(file.fileno(), (start + "".join(lines)).encode())
            return len(lines)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror or error}", id="file-unwritable"
        ) from error


def _new_lines(text: str, path: Path, entries: Sequence[tuple[str, HostKey]]) -> list[str]:
    there = KnownHosts(())
    there.read(text, path)
    hashed = any(line.startswith("|1|") for line in text.splitlines())
    lines = []
    for name, key in dict.fromkeys((name, key[:2]) for name, key in entries):
        kind, blob = key
        if any(blob == other.blob for other in there.of(name, 22, name).keys):
            continue
        shown = _hash(name) if hashed else name
        lines.append(f"{shown} {kind} {base64.b64encode(blob).decode()}\n")
    return lines


def _hash(name: str) -> str:
    salt = secrets.token_bytes(_SALT)
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def _write(descriptor: int, data: bytes) -> None:
    """Write all of ``data``, or nothing, unless somebody else has written meanwhile."""
    before = os.fstat(descriptor).st_size
    written = os.write(descriptor, data)
    if written < len(data):  # a full disk
        if os.fstat(descriptor).st_size == before + written:
            os.ftruncate(descriptor, before)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(descriptor)
