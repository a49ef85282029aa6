"""Host patterns of Ansible inventories: ranges such as ``node[01:10:2]`` and ``db-[a:f]``, ports.

The rules come from Ansible's documentation, "Adding ranges of hosts": both ends belong to a
range, its step is optional, and leading zeros are kept.
"""

from __future__ import annotations

import re
import string
from ipaddress import AddressValueError, IPv6Address

#: The most hosts that one pattern, and all patterns of a file, may stand for.
MAX_HOSTS, MAX_ALL = 100_000, 500_000
#: Characters of a pattern: a host's name has 253.
MAX_PATTERN = 1000
_RANGE = re.compile(r"\[([0-9]*|[A-Za-z]?):([0-9]+|[A-Za-z])(?::([0-9]+))?\]")
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]+))?")


class PatternError(ValueError):
    """An invalid pattern; the message gives the reason."""


class Patterns:
    """The patterns of one file."""

    def __init__(self) -> None:
        self._count = 0

    def expand(self, pattern: str) -> tuple[list[str], int | None]:
        """As :func:`expand`, up to :data:`MAX_ALL` hosts in all."""
        names, port = expand(pattern)
        self._count += len(names)
        if self._count > MAX_ALL:
            raise PatternError(f"the patterns of this file stand for more than {MAX_ALL} hosts")
        return names, port


def expand(pattern: str) -> tuple[list[str], int | None]:
    """The hosts of ``pattern``, and the port after it.

    >>> expand("node[08:10].example.com:2222")
    (['node08.example.com', 'node09.example.com', 'node10.example.com'], 2222)
    """
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"a host's name has more than {MAX_PATTERN} characters")
    name, port = _split_port(pattern)
    names = [name]
    while any(_RANGE.search(one) for one in names):
        names = [made for one in names for made in _first_range(one)]
        if len(names) > MAX_HOSTS:
            raise PatternError(f"{pattern!r} stands for more than {MAX_HOSTS} hosts")
    if any("[" in one or "]" in one for one in names):
        raise PatternError(
            f"{pattern!r} has a range that is not valid: write [01:10], [a:f] or [0:9:3]"
        )
    return names, port


def _split_port(pattern: str) -> tuple[str, int | None]:
    if (match := _BRACKETED.fullmatch(pattern)) and _is_ipv6(match[1]):
        return match[1], int(match[2]) if match[2] else None
    bare = _RANGE.sub("", pattern)
    if bare.count(":") != 1:  # no port, or an IPv6 address
        return pattern, None
    name, _, port = pattern.rpartition(":")
    if not port.isdigit():
        raise PatternError(f"{pattern!r} has no port behind its ':'")
    return name, int(port)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


def _first_range(name: str) -> list[str]:
    match = _RANGE.search(name)
    if match is None:
        return [name]
    low, high, step = match[1] or "0", match[2], int(match[3] or 1)
    if step < 1:
        raise PatternError(f"{match[0]} has a step of 0")
    if low.isdigit() != high.isdigit():
        raise PatternError(f"{match[0]} goes from a number to a letter")
    if low.isdigit():
        if len(low) > 1 and low[0] == "0" and len(low) != len(high):
            raise PatternError(f"{match[0]} needs the same number of digits at both ends")
        width = len(low) if low[0] == "0" else 0
        if (int(high) - int(low)) // step > MAX_HOSTS:
            raise PatternError(f"{match[0]} stands for more than {MAX_HOSTS} hosts")
        middle = [str(n).zfill(width) for n in range(int(low), int(high) + 1, step)]
    else:
        letters = string.ascii_letters
        middle = list(letters[letters.index(low) : letters.index(high) + 1 : step])
    if not middle:
        raise PatternError(f"{match[0]} runs backwards")
    return [name[: match.start()] + part + name[match.end() :] for part in middle]
