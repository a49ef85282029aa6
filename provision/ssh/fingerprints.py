"""A file of fingerprints that somebody has got from the hosts themselves, to compare keys with.

Its lines are what ``ssh-keygen -l`` prints, lines of known_hosts, or ``NAME SHA256:…``. Each counts
for the hosts that it names only: else a host could pass for another one of the same file.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from provision import bounds
from provision.errors import Problem, UsageError
from provision.files import read_text
from provision.ssh.known_hosts import KnownHosts, is_hash_of
from provision.ssh.scan import Server
from provision.text import EXCERPT, printable

Verdict = Literal["same", "other", "missing"]

_FINGERPRINT = r"SHA256:[A-Za-z0-9+/]{43}"
#: Bits, fingerprint, comment, type. The comment of a host's own key is ``root@HOST``, the one that
#: ssh-keygen prints for a line of known_hosts is the names in it.
_LISTED = re.compile(rf"\d+\s+({_FINGERPRINT})\s+(.+?)\s+\([A-Z0-9-]+\)")
_NAMED = re.compile(rf"(\S+)\s+({_FINGERPRINT})")
_KEY = re.compile(r"(?:@(?:revoked|cert-authority)\s+)?\S+\s+(?:ssh|ecdsa|sk)-[\w@.-]+\s+AAAA\S+.*")


class Fingerprints:
    """The file's lines. Raises :class:`UsageError` when it cannot be read, or has another line."""

    def __init__(self, path: Path) -> None:
        try:
            text = read_text(path, bounds.KNOWN_HOSTS)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise UsageError(f"{path} cannot be read: {why}", id="file-unusable") from None
        self._by_name: dict[str, set[str]] = {}
        self._hashed: list[tuple[str, str]] = []
        keys, problems = [], []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.strip()
            if not words or words.startswith("#"):
                continue
            if found := _LISTED.fullmatch(words):
                self._add(found[2].rpartition("@")[2], found[1])
            elif found := _NAMED.fullmatch(words):
                self._add(found[1], found[2])
            elif _KEY.fullmatch(words):
                keys.append(words)
            else:
                what = f"is no fingerprint: {printable(words, EXCERPT)}"
                remedy = "a line is what ssh-keygen -l prints, of known_hosts, or NAME SHA256:…"
                problems.append(Problem(f"{path}:{number}", what, remedy, id="file-unusable"))
        if problems:
            raise UsageError(f"{path} cannot be used", problems, id="file-unusable")
        self._keys = KnownHosts(())
        self._keys.read("\n".join(keys), path)

    def verdict(self, server: Server, fingerprint: str, names: Collection[str]) -> Verdict:
        """Whether the file has this fingerprint for a server, another one, or none.

        ``names`` are the names that a line may have for it, beside its name in known_hosts.
        """
        hop = server.hop
        known = self._keys.of(hop.address, hop.port, hop.host_key_alias)
        theirs = {key.fingerprint for key in known.keys if key.blob not in known.revoked}
        for name in {n.lower() for n in (*names, server.entry)}:
            theirs |= self._by_name.get(name, set())
            theirs |= {f for pattern, f in self._hashed if is_hash_of(pattern, name)}
        if fingerprint in theirs:
            return "same"
        return "other" if theirs or known.revoked else "missing"

    def _add(self, names: str, fingerprint: str) -> None:
        for name in names.split(","):
            if name.startswith("|"):
                self._hashed.append((name, fingerprint))
            else:
                self._by_name.setdefault(name.lower(), set()).add(fingerprint)
