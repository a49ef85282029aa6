"""A read of many keys, a page at a time, from a member that may be broken or hostile.

etcd answers a page with the first keys of the interval in their order, at most as many as were
asked for. ``more`` says that there are others, and then the page is full (``Range`` in its package
``txn``). So etcd never repeats a key, never gives keys of elsewhere, and never says ``more`` with a
page that is not full. The pages end at the limits of :mod:`provision.bounds`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from provision import bounds
from provision.etcd.api.values import KeyValue
from provision.text import printable

#: Keys of a first request. An answer takes some four times its bytes until its keys are taken.
PAGE = 1000
#: A page that was refused as too large has so many times fewer keys when it is asked for again.
SHRINK = 16
#: While pages come in so many seconds, they grow: a page has up to a quarter of the keys that are
#: there already, and up to so many times the first one's.
QUICK, PART, MOST = 1.0, 4, 16
#: A slow page shrinks again, but not below so many keys: the member itself may be slow.
LEAST = 500


class Page(NamedTuple):
    """One answer. ``revision`` is the revision of the read."""

    keys: Sequence[KeyValue]
    more: bool
    revision: int


class TooLarge(Exception):
    """The page has more bytes than a client takes."""


class Odd(Exception):
    """The answer is not one that etcd gives; the message says why."""


class Scan(NamedTuple):
    """The keys that were read, and the revision of the read.

    ``cut``: why keys or values are missing; empty when none is. A value that is too large is empty.
    """

    revision: int
    keys: list[KeyValue]
    cut: str = ""


#: Asks for the first keys from a key on: from, count, revision (0: now), keys only.
Ask = Callable[[bytes, int, int, bool], Page]


def read(
    ask: Ask,
    start: bytes,
    end: bytes,
    *,
    keys_only: bool = False,
    limit: int | None = None,
    revision: int = 0,
    page: int = PAGE,
    clock: Callable[[], float] = time.monotonic,
) -> Scan:
    """All keys from ``start`` up to ``end`` (``\\0``: all), at most ``limit``, at one revision.

    Raises :class:`Odd`, and what ``ask`` raises.
    """
    found: list[KeyValue] = []
    notes: list[str] = []
    size, count = 0, page
    now = clock()
    deadline = now + bounds.READ_SECONDS
    while True:
        before = now
        # One key beyond the limit shows that there are more.
        left = min(count, bounds.KEYS + 1 - len(found))
        if limit is not None:
            left = min(left, limit - len(found))
        try:
            answer = ask(start, left, revision, keys_only)
        except TooLarge:
            if left > 1:
                count = max(1, left // SHRINK)
                continue
            try:
                answer = ask(start, 1, revision, True)
            except TooLarge:
                what = f"one key alone has more than {_mib(bounds.ANSWER)}, without its value"
                raise Odd(what) from None
            if answer.keys:
                name = printable(answer.keys[0].key, 120)
                notes = [*notes[:4], f"the value of {name} has more than {_mib(bounds.ANSWER)}"]
        _check(answer, start, end, left)
        now = clock()
        revision = revision or answer.revision
        found.extend(answer.keys)
        got = sum(len(kv.key) + len(kv.value) for kv in answer.keys)
        size += got
        if len(found) > bounds.KEYS:
            notes.append(f"more than {bounds.KEYS} keys")
        elif not answer.more or len(found) == limit:
            break
        elif size > bounds.KEY_BYTES:
            notes.append(f"more than {_mib(bounds.KEY_BYTES)} of keys and values")
        elif now > deadline:
            notes.append(f"the member gave no more in {bounds.READ_SECONDS:g} s")
        else:
            start = found[-1].key + b"\0"
            fitting = bounds.PAGE_BYTES * len(answer.keys) // max(1, got)
            # For each page etcd counts all keys that follow, so large pages are cheaper. They grow
            # step by step: the next keys may be larger, and each answer has to come in time.
            came = len(answer.keys)
            if now - before < QUICK:
                grown = min(2 * came, max(page, len(found) // PART))
            else:
                grown = max(came // 2, min(came, LEAST))
            count = max(1, min(MOST * page, fitting, grown))
            continue
        break
    return Scan(revision, found[: bounds.KEYS], "; ".join(notes))


def _check(answer: Page, start: bytes, end: bytes, asked: int) -> None:
    """Raises :class:`Odd` unless etcd could have given this answer."""
    keys = answer.keys
    if len(keys) > asked:
        raise Odd(f"{asked} keys were asked for, and {len(keys)} came")
    if answer.more and len(keys) < asked:
        came = f"only {len(keys)} of the {asked} keys asked for" if keys else "no keys"
        raise Odd(f"a page with {came} says that there are more")
    last = b""
    for kv in keys:
        if kv.key < start or (end != b"\0" and kv.key >= end):
            raise Odd(f"the key {printable(kv.key, 120)} is not one of those asked for")
        if kv.key <= last:
            raise Odd(f"the key {printable(kv.key, 120)} does not follow the one before it")
        last = kv.key


def _mib(count: int) -> str:
    return f"{count // bounds.MIB} MiB"
