"""known_hosts, as sshd(8) describes it: names, patterns, hashed names, ``[host]:port``, markers.

Paramiko's own reader parses the key of every line again for every host. It knows no patterns, no
markers, and only one key of each type.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from provision import bounds
from provision.dataclass import dataclass
from provision.files import read_text

Marker = Literal["", "@revoked", "@cert-authority"]


class HostKey(NamedTuple):
    """A key, and the place that it was read from: a file and its line."""

    kind: str
    blob: bytes
    path: Path | None = None
    line: int = 0

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` prints it."""
        digest = hashlib.sha256(self.blob).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


class _Line(NamedTuple):
    names: Sequence[str]
    key: HostKey
    marker: Marker


@dataclass(frozen=True, slots=True)
class Known:
    """The entries of one host in known_hosts. ``authorities`` are CAs of host certificates.

    ``name`` is the name that they stand under.
    """

    keys: tuple[HostKey, ...]
    revoked: frozenset[bytes]
    authorities: frozenset[bytes]
    name: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key.kind for key in self.keys))


class KnownHosts:
    """The lines of some known_hosts files, read once; a missing file has no lines."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._plain: dict[str, list[_Line]] = {}
        self._others: list[_Line] = []
        for path in paths:
            try:
                text = read_text(path, bounds.KNOWN_HOSTS, errors="replace")
            except (FileNotFoundError, NotADirectoryError):
                continue
            self.read(text, path)

    def read(self, text: str, path: Path) -> None:
        """Add the lines of ``text``, which is from ``path``."""
        for number, words in enumerate(text.splitlines(), 1):
            if (line := _parsed(words)) is not None:
                self._add(line._replace(key=line.key._replace(path=path, line=number)))

    def _add(self, line: _Line) -> None:
        if any(name.startswith("|") or set(name) & set("*?!") for name in line.names):
            self._others.append(line)
            return
        for name in line.names:
            self._plain.setdefault(name.lower(), []).append(line)

    def of(self, host: str, port: int, alias: str | None = None) -> Known:
        """The entries of a host: under its name and port, or else under its name alone."""
        found = self._named(entry_name(host, port, alias))
        if alias is not None or port == 22:
            return found
        if found.keys or found.revoked:
            return found
        other = self._named(host)
        return replace(other, authorities=found.authorities | other.authorities)

    def _named(self, name: str) -> Known:
        name = name.lower()
        lines = [*self._plain.get(name, ()), *(x for x in self._others if _matches(x.names, name))]
        revoked = frozenset(line.key.blob for line in lines if line.marker == "@revoked")
        keys = tuple(line.key for line in lines if not line.marker)
        authorities = (line.key.blob for line in lines if line.marker == "@cert-authority")
        return Known(keys, revoked, frozenset(authorities), name)


def entry_name(host: str, port: int, alias: str | None = None) -> str:
    """The name under which ssh writes a host's key; ``alias`` is its HostKeyAlias."""
    if alias is not None:
        return alias.lower()
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def _parsed(text: str) -> _Line | None:
    fields = text.split()
    marker: Marker = ""
    if fields and fields[0] in ("@revoked", "@cert-authority"):
        marker = "@revoked" if fields[0] == "@revoked" else "@cert-authority"
        fields = fields[1:]
    if len(fields) < 3 or fields[0].startswith(("#", "@")):
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    return _Line(fields[0].split(","), HostKey(fields[1], blob), marker)


def _matches(patterns: Sequence[str], name: str) -> bool:
    found = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!").lower()
        # fnmatch has one more wildcard than OpenSSH: [...]. Brackets also occur in [host]:port.
        same = is_hash_of(pattern, name) or fnmatch.fnmatchcase(name, wanted.replace("[", "[[]"))
        if same and pattern.startswith("!"):
            return False
        found = found or same
    return found


def is_hash_of(pattern: str, name: str) -> bool:
    """Whether ``pattern`` is ``|1|salt|HMAC-SHA1(salt, name)``."""
    if not pattern.startswith("|1|") or pattern.count("|") != 3:
        return False
    _, _, salt, digest = pattern.split("|")
    try:
        mac = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1)
        return hmac.compare_digest(mac.digest(), base64.b64decode(digest))
    except (binascii.Error, ValueError):
        return False
