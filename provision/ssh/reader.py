"""ssh_config(5) without ssh: what can be said for sure of a host. The rest is left out, and named.

It is used where the program ssh is missing. A block whose condition is not understood does not
count, whatever it says.
"""

from __future__ import annotations

import getpass
import glob
import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from provision import bounds
from provision.files import read_text
from provision.ssh.options import Options
from provision.ssh.tokens import ConfigError, expanded, proxy_command

#: How deep files may include each other, as in ssh.
MAX_DEPTH = 16
_LISTS = ("identityfile", "certificatefile")
_KNOWN = {
    *("hostname", "user", "port", "identitiesonly", "identityagent", "proxyjump", "proxycommand"),
    *("userknownhostsfile", "globalknownhostsfile", "hostkeyalias", *_LISTS),
}
#: Keywords that decide which host is reached, or how; with the value that changes nothing.
_UNSUPPORTED = {
    "canonicalizehostname": "no",
    "revokedhostkeys": "none",
    "knownhostscommand": "none",
    "bindaddress": "none",
    "bindinterface": "none",
    "proxyusefdpass": "no",
    "addressfamily": "any",
}


@dataclass(slots=True)
class _Seen:
    """What the lines so far say of one host."""

    host: str
    user: str | None
    port: int | None
    first: dict[str, list[str]] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)

    @property
    def hostname(self) -> str:
        given = self.first.get("hostname")
        return expanded(given[0], {"h": self.host}) if given else self.host


class Reader:
    """Some configuration files. ``left_out`` are the places that were not understood."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self.left_out: dict[str, None] = {}

    def lookup(self, host: str, user: str | None, port: int | None) -> Options:
        """As of :class:`provision.ssh.asked.Ssh`."""
        seen = _Seen(host, user, port)
        for path in self._files:
            self._read(path, path.parent, seen, depth=0)
        return self._options(seen)

    def _read(self, path: Path, folder: Path, seen: _Seen, *, depth: int) -> None:
        """Take the lines of a file that apply. A file that is included in a block that does not
        apply is not even read."""
        try:
            lines = read_text(path, bounds.SSH_CONFIG, errors="replace").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return
        applies = True
        for number, line in enumerate(lines, 1):
            where = f"{path} line {number}"
            try:
                keyword, rest, words = split(line)
            except ValueError as error:
                raise ConfigError(f"{where}: {error}") from None
            if not keyword:
                continue
            if keyword == "host":
                applies = _matches(words, seen.host)
            elif keyword == "match":
                applies = self._match(words, seen, where)
            elif not applies:
                continue
            elif keyword == "include":
                if depth == MAX_DEPTH:
                    raise ConfigError(f"{where}: too many files include each other")
                for name in _included(words, folder):
                    self._read(name, folder, seen, depth=depth + 1)
            elif keyword in _LISTS:
                seen.lists.setdefault(keyword, []).extend(words[:1])
            elif keyword in _KNOWN and keyword not in seen.first:
                seen.first[keyword] = [rest] if keyword == "proxycommand" else words
            elif keyword in _UNSUPPORTED and words[:1] != [_UNSUPPORTED[keyword]]:
                self.left_out[f"{keyword} ({where})"] = None

    def _match(self, words: Sequence[str], seen: _Seen, where: str) -> bool:
        """Whether all criteria of a Match line hold. One that is not understood does not."""
        left = list(words)
        result = True
        while left:
            word = left.pop(0)
            name, equals, value = word.removeprefix("!").partition("=")
            name = name.lower()
            if name == "all":
                continue
            known = {
                "host": lambda: seen.hostname,
                "originalhost": lambda: seen.host,
                "user": lambda: seen.user or (seen.first.get("user") or [getpass.getuser()])[0],
                "localuser": getpass.getuser,
            }
            if name not in known or not (equals or left):
                self.left_out[f"Match {word} ({where})"] = None
                return False
            patterns = value if equals else left.pop(0)
            value = known[name]()
            if name.endswith("host"):
                patterns, value = patterns.lower(), value.lower()
            holds = _matches(patterns.split(","), value)
            result = result and holds != word.startswith("!")
        return result

    def _options(self, seen: _Seen) -> Options:
        first = seen.first

        def one(key: str) -> str | None:
            found = first.get(key)
            return None if not found or found[0].lower() == "none" else found[0]

        try:
            port = seen.port or int((first.get("port") or ["22"])[0])
        except ValueError:
            raise ConfigError(f"ssh_config: Port {first['port'][0]} is not a number") from None
        user = seen.user or one("user")
        login = user or getpass.getuser()
        few = {"h": seen.hostname.lower(), "n": seen.host, "p": str(port), "r": login}
        here = socket.gethostname()
        tokens = {
            **few,
            **{"d": os.path.expanduser("~"), "u": getpass.getuser(), "i": str(os.getuid())},
            **{"l": here, "L": here.partition(".")[0], "j": one("proxyjump") or ""},
            "k": one("hostkeyalias") or seen.host,
        }

        def path(name: str) -> str:
            return expanded(os.path.expanduser(name), tokens, environment=True)

        def paths(names: Sequence[str]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(path(name) for name in names if name.lower() != "none"))

        keys = seen.lists.get("identityfile")
        agent = first["identityagent"][0] if "identityagent" in first else None
        jump, command = one("proxyjump"), one("proxycommand")
        # As in ssh: the first of the two that the files name is the one that counts.
        order = [key for key in first if key in ("proxyjump", "proxycommand")]
        jump = jump if order[:1] == ["proxyjump"] else None
        command = command if order[:1] == ["proxycommand"] else None
        users, system = first.get("userknownhostsfile"), first.get("globalknownhostsfile")
        return Options(
            hostname=seen.hostname.lower(),
            user=user,
            port=port,
            identity_files=None if keys is None else paths(keys),
            certificate_files=paths(seen.lists.get("certificatefile", ())),
            identities_only=(one("identitiesonly") or "no").lower() in ("yes", "true"),
            identity_agent=agent if agent is None or agent.startswith("$") else path(agent),
            proxy_jump=None if jump is None else expanded(jump, few),
            proxy_command=None if command is None else proxy_command(command, few),
            user_known_hosts=None if users is None else tuple(map(path, users)),
            global_known_hosts=None if system is None else tuple(map(path, system)),
            host_key_alias=one("hostkeyalias"),
        )


def split(line: str) -> tuple[str, str, list[str]]:
    """A line's keyword in lower case, the text after it, and that text in words.

    Words may have quotes and backslashes; a ``#`` begins a comment. Raises ``ValueError``.
    """
    text = line.strip()
    if not text or text.startswith("#"):
        return "", "", []
    end = next((n for n, c in enumerate(text) if c.isspace() or c == "="), len(text))
    keyword, rest = text[:end].strip('"').lower(), text[end:].strip()
    if rest.startswith("="):
        rest = rest[1:].strip()
    if keyword == "proxycommand":
        return keyword, rest, [rest]
    words = list(_words(rest))
    if not words:
        raise ValueError(f"{keyword} has no value")
    return keyword, rest, words


def _words(text: str) -> Iterator[str]:
    at, word, quote = 0, None, ""
    while at < len(text):
        char, after = text[at], text[at + 1 : at + 2]
        if char == "\\" and after and (after in "\"'\\" or (after == " " and not quote)):
            word, at = (word or "") + after, at + 1
        elif quote:
            quote, word = ("", word) if char == quote else (quote, (word or "") + char)
        elif char in "\"'":
            quote, word = char, word or ""
        elif char in " \t":
            if word is not None:
                yield word
            word = None
        elif char == "#" and word is None:
            return
        else:
            word = (word or "") + char
        at += 1
    if quote:
        raise ValueError("a quotation mark has no end")
    if word is not None:
        yield word


def _matches(patterns: Sequence[str], name: str) -> bool:
    """Whether one of the patterns is the name's, and none with ``!`` is."""
    found = False
    for pattern in patterns:
        if _same(pattern.removeprefix("!"), name):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _same(pattern: str, name: str) -> bool:
    """OpenSSH's wildcards: ``*`` and ``?``, and no others."""
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), name, re.DOTALL) is not None


def _included(words: Sequence[str], folder: Path) -> Iterator[Path]:
    for word in words:
        for name in sorted(glob.glob(str(folder / os.path.expanduser(word)))):
            yield Path(name)
