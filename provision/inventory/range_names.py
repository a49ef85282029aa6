"""The names that a range stands for: ``[1-3,7,9-11]`` lists several, and leading zeros are kept."""

from __future__ import annotations

import re
from itertools import product

#: Where names may have ranges: the groups of an inventory with their hosts.
EXPANDED = (("etcd", "members"), ("alluxio", "masters"), ("alluxio", "workers"))
#: The most entries that one file may expand to.
MAX_ENTRIES = 100_000

_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_PART = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


class RangeError(ValueError):
    """A range that cannot be expanded; the message says why."""


def expand(text: str) -> list[str]:
    """All names of the ranges in ``text``; without a range, only ``text``.

    >>> expand("rack[1-2]-node[09-10]")
    ['rack1-node09', 'rack1-node10', 'rack2-node09', 'rack2-node10']
    """
    if "[" not in text and "]" not in text:
        return [text]
    pieces = _BRACKETS.split(text)
    # re.split leaves literals at even places and the insides of brackets at odd ones.
    if any("[" in literal or "]" in literal for literal in pieces[::2]):
        raise RangeError(f"{text!r} has a bracket without its pair")
    choices = [_numbers(piece) if place % 2 else [piece] for place, piece in enumerate(pieces)]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > MAX_ENTRIES:
        raise RangeError(f"{text!r} stands for {total} names; the maximum is {MAX_ENTRIES}")
    return ["".join(parts) for parts in product(*choices)]


def _numbers(inside: str) -> list[str]:
    numbers: list[str] = []
    for part in inside.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise RangeError(f"[{inside}] is not a range such as [001-200] or [1-3,7]")
        low, high = match[1], match[2] or match[1]
        if len(low) != len(high) and "0" in (low[0], high[0]) and low != "0":
            raise RangeError(f"[{inside}] needs the same number of digits in {low} and {high}")
        count = int(high) - int(low) + 1
        if count < 1:
            raise RangeError(f"[{inside}] runs backwards: {low} is above {high}")
        if len(numbers) + count > MAX_ENTRIES:
            raise RangeError(f"[{inside}] is too long: the maximum is {MAX_ENTRIES} names")
        numbers += [str(n).zfill(len(low)) for n in range(int(low), int(high) + 1)]
    return numbers
