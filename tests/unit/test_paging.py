"""Pages of keys, from plain functions: what ends a read, and what it costs.

The same over gRPC is in tests/component/test_hostile_member.py.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision import bounds
from provision.alluxio.membership import registrations
from provision.etcd.api import paging
from provision.etcd.api.paging import Odd, Page, TooLarge
from provision.etcd.api.values import KeyValue


def kv(name: bytes, size: int = 0) -> KeyValue:
    return KeyValue(name, b"v" * size, 0, 1)


class Store:
    """etcd's answers from ``keys``; a page of more than ``answer`` bytes is refused."""

    def __init__(self, keys: list[KeyValue], answer: int = 1 << 40) -> None:
        self.keys, self.answer, self.asked = sorted(keys), answer, 0

    def __call__(self, start: bytes, count: int, revision: int, keys_only: bool) -> Page:
        self.asked += 1
        found = list(itertools.islice((k for k in self.keys if k.key >= start), count + 1))
        page = [kv(k.key) if keys_only else k for k in found[:count]]
        if sum(len(k.key) + len(k.value) for k in page) > self.answer:
            raise TooLarge
        return Page(page, len(found) > count, 5)


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=3), st.integers(0, 90)), max_size=40),
    st.integers(1, 7),
    st.integers(100, 300),
)
def test_whatever_the_sizes_all_keys_come_once(
    given: list[tuple[bytes, int]], page: int, answer: int
) -> None:
    keys = {name: kv(name, size) for name, size in given}
    found = paging.read(Store([*keys.values()], answer), b"\0", b"\0", page=page)
    assert found == (5, [keys[n] for n in sorted(keys) if n >= b"\0"], "")


def test_pages_shrink_and_grow_again() -> None:
    keys = [kv(b"a%05d" % n) for n in range(20_000)]
    keys[7000:7200] = [kv(b"a%05d" % n, 1 << 20) for n in range(7000, 7200)]
    store = Store(keys, 64 << 20)
    found = paging.read(store, b"a", b"b")
    assert found == (5, keys, "")
    assert store.asked < 200 + 20  # each large value has a page of its own


def test_a_limit_is_no_cut() -> None:
    store = Store([kv(b"a%d" % n) for n in range(9)])
    assert len(paging.read(store, b"a", b"b", limit=4, page=3).keys) == 4
    assert paging.read(store, b"a", b"b", limit=4, page=3).cut == ""


@pytest.mark.parametrize(("count", "cut"), [(10, ""), (11, "more than 10 keys")])
def test_the_bound_of_keys_is_exact(monkeypatch: pytest.MonkeyPatch, count: int, cut: str) -> None:
    monkeypatch.setattr(bounds, "KEYS", 10)
    found = paging.read(Store([kv(b"a%02d" % n) for n in range(count)]), b"a", b"b", page=4)
    assert (len(found.keys), found.cut) == (10, cut)


def test_the_bound_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    times: Iterator[float] = itertools.count(0.0, 200.0)
    store = Store([kv(b"a%02d" % n) for n in range(90)])
    found = paging.read(store, b"a", b"b", page=10, clock=lambda: next(times))
    assert found.cut == "the member gave no more in 600 s"
    assert len(found.keys) == 40  # four pages, none of which grew: each took 200 s


@pytest.mark.parametrize(("seconds", "asked"), [(0.1, 16), (2.0, 50)])
def test_pages_grow_while_they_come_quickly(seconds: float, asked: int) -> None:
    times: Iterator[float] = itertools.count(0.0, seconds)
    store = Store([kv(b"a%05d" % n) for n in range(5000)])
    found = paging.read(store, b"a", b"b", page=100, clock=lambda: next(times))
    assert (len(found.keys), found.cut) == (5000, "")
    assert store.asked == asked


@pytest.mark.parametrize(
    ("names", "more", "why"),
    [
        ([b"a"], True, "a page with only 1 of the 2 keys asked for says that there are more"),
        ([], True, "a page with no keys says that there are more"),
        ([b"a", b"a"], True, "the key a does not follow the one before it"),
        ([b"b", b"a"], False, "the key a does not follow the one before it"),
        ([b"a", b"b", b"c"], False, "2 keys were asked for, and 3 came"),
        ([b"z"], False, "the key z is not one of those asked for"),
        ([b"\x1b[2J"], False, "the key \ufffd[2J is not one of those asked for"),
    ],
)
def test_what_etcd_never_answers(names: list[bytes], more: bool, why: str) -> None:
    with pytest.raises(Odd) as caught:
        paging.read(lambda *_: Page([*map(kv, names)], more, 1), b"a", b"d", page=2)
    assert str(caught.value) == why


class TestIdsThatPrintAlike:
    PREFIX = "/DHT/a/AUTHORIZED/"

    def keys(self, prefix: str, numbers: range) -> list[KeyValue]:
        # Five characters that cannot be shown, each of eight.
        raw = (bytes(1 + (n >> 3 * at) % 8 for at in range(5)) for n in numbers)
        return [kv(prefix.encode() + b"w" + name) for name in sorted(raw)]

    @pytest.mark.long
    def test_many_of_them_take_no_time(self) -> None:
        keys = self.keys(self.PREFIX, range(30_000))
        started = time.process_time()
        found = registrations.entries(self.PREFIX, keys, {})
        assert time.process_time() - started < 10  # it took a minute for 5,000
        assert len(found) == 30_000
        assert max(map(len, found)) < 20
        assert [*found][:3] == [
            "w\ufffd\ufffd\ufffd\ufffd\ufffd" + tail for tail in ("", "'", "'3")
        ]

    def test_two_of_them_are_not_one_worker(self) -> None:
        first, second, third = self.keys(self.PREFIX, range(3))
        known = registrations.entries(self.PREFIX, [second, third], {})
        live = [
            k._replace(key=k.key.replace(b"/DHT/a/AUTHORIZED", b"/ServiceDiscovery/a"))
            for k in (first, third)
        ]
        found = registrations.entries("/ServiceDiscovery/a/", live, known)
        by_raw = {e.key.key.rpartition(b"/")[2]: i for i, e in found.items()}
        names = {e.key.key.rpartition(b"/")[2]: i for i, e in known.items()}
        raw = [k.key.rpartition(b"/")[2] for k in (first, second, third)]
        assert by_raw[raw[2]] == names[raw[2]]
        assert by_raw[raw[0]] not in names.values()


def test_names_that_alluxio_mixes_up_are_found_in_one_pass() -> None:
    names = ["a", "a-b", "b", "ab", "a-bc"]
    every = registrations.all_confusable(names, 10)
    assert {n: sorted(o) for n, o in every.items()} == {
        n: sorted(registrations.confusable(n, names)) for n in names
    }
    chain = ["x" * n for n in range(1, 2000)]
    started = time.process_time()
    found = registrations.all_confusable([*chain, *(f"c{n}" for n in range(20_000))], 8)
    assert time.process_time() - started < 10
    assert max(map(len, found.values())) == 8
