"""The id in a worker's key, and the identity in the key's value: Alluxio goes by the value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from provision.alluxio.membership.registrations import (
    Registration,
    RegistrationSnapshot,
    entries,
    parse,
)
from provision.check_nodes import State, verdicts
from provision.etcd.api.values import KeyValue
from tests.unit.builders import alluxio, worker

A, B, C = (f"worker-{c * 8}-0000-0000-0000-000000000000" for c in "abc")
ROOTS = "/DHT/c/AUTHORIZED/", "/ServiceDiscovery/c/"


def value(host: str, identity: Any = None, state: str = "AUTHORIZED") -> bytes:
    """A value as Alluxio 313 writes it (tests/unit/data/alluxio-313)."""
    entity: dict[str, Any] = {
        "WorkerNetAddress": {"Host": host, "RpcPort": 29999},
        "State": state,
        "GenerationNumber": -1,
    }
    if isinstance(identity, str):
        digits = identity.removeprefix("worker-").replace("-", "")
        identity = {"version": 1, "identifier": digits}
    if identity is not None:
        entity["Identity"] = identity
    return json.dumps(entity).encode()


def snapshot(
    authorized: dict[str, bytes], live: dict[str, bytes], cut: str = ""
) -> RegistrationSnapshot:
    def below(root: str, values: dict[str, bytes], lease: int) -> list[KeyValue]:
        return [KeyValue(f"{root}{i}".encode(), v, lease, 5) for i, v in values.items()]

    known = entries(ROOTS[0], below(ROOTS[0], authorized, 0), {})
    return RegistrationSnapshot(
        "c", 9, known, entries(ROOTS[1], below(ROOTS[1], live, 7), known), cut
    )


def notes(seen: RegistrationSnapshot) -> dict[str | None, tuple[str, ...]]:
    return {n.worker_id: n.notes for n in verdicts(alluxio(worker("w1"), worker("w2")), seen, None)}


@pytest.mark.parametrize(
    ("identity", "shown"),
    [
        ({"version": 1, "identifier": "aaaaaaaa000000000000000000000000"}, A),
        ({"version": 1, "identifier": "AAAAAAAA000000000000000000000000"}, A),
        ({"version": 0, "identifier": "00000000000004d2"}, "worker-1234"),
        ({"version": 0, "identifier": "ffffffffffffffff"}, "worker--1"),
        ({"version": 7, "identifier": "\x1b[2J"}, "of version 7: \ufffd[2J"),
        ({"version": True, "identifier": "00"}, ""),
        ({"version": 1}, ""),
        ("", "of version 1: "),
        (["x"], ""),
    ],
)
def test_the_identity_as_alluxio_writes_it_in_a_key(identity: Any, shown: str) -> None:
    found = parse(A, value("w1", identity))
    assert isinstance(found, Registration)
    assert found.identity == shown


@pytest.mark.parametrize("beside", [{}, {A: value("w3", B)}])
def test_a_number_below_0_is_another_worker(beside: dict[str, bytes]) -> None:
    numbers = {
        "worker-5": value("w1", {"version": 0, "identifier": f"{5:016x}"}),
        "worker--5": value("w2", {"version": 0, "identifier": f"{(1 << 64) - 5:016x}"}),
    }
    found = notes(snapshot({**numbers, **beside}, numbers))
    assert (found["worker-5"], found["worker--5"]) == ((), ())


def test_a_key_that_is_named_as_its_value_says() -> None:
    seen = snapshot({A: value("w1", A)}, {A: value("w1", A)})
    assert notes(seen)[A] == ()
    hashed = "0123456789abcdef0123456789abcdef"  # earlier releases write no identity
    older = snapshot({hashed: value("w1")}, {hashed: value("w1")})
    assert notes(older)[hashed] == ()


def test_a_value_without_an_identity_is_noted() -> None:
    """Its key is named as Alluxio 313 names keys, and 313 writes an identity."""
    with_it, without = {A: value("w1", A)}, {A: value("w1")}
    ends = "no identity, which every Alluxio 313 worker writes"
    assert notes(snapshot(without, without))[A] == (
        f"the values of its live and AUTHORIZED keys have {ends}",
    )
    assert notes(snapshot(with_it, without))[A] == (f"the value of its live key has {ends}",)
    assert notes(snapshot(without, with_it))[A] == (f"the value of its AUTHORIZED key has {ends}",)
    assert notes(snapshot(without, {}))[A] == (f"the value of its AUTHORIZED key has {ends}",)
    odd = {A: value("w1", {"version": 1})}
    assert ends in notes(snapshot(odd, odd))[A][0]


def test_a_key_that_is_named_otherwise_shows_both() -> None:
    seen = snapshot({A: value("w1", B)}, {A: value("w1", B)})
    assert notes(seen)[A] == (f"its key is named {A}, its value says {B}",)


def test_only_one_of_its_two_keys() -> None:
    seen = snapshot({A: value("w1", B)}, {A: value("w1", A)})
    assert notes(seen)[A] == (f"its key is named {A}, its value says {B}",)


def test_two_keys_with_one_identity_are_both_named() -> None:
    both = {A: value("w1", A), B: value("w2", A)}
    found = notes(snapshot(both, both))
    assert found[A] == (f"the same identity {A} is in the key of {B}",)
    assert found[B] == (
        f"its key is named {B}, its value says {A}",
        f"the same identity {A} is in the key of {A}",
    )


def test_thousands_of_keys_with_one_identity_name_a_few() -> None:
    many = {f"worker-{n:05}": value(f"h{n}", A) for n in range(5000)}
    found = notes(snapshot(many, {}))
    assert found["worker-00000"][-1] == (
        f"the same identity {A} is in the key of worker-00001, worker-00002, worker-00003, "
        "worker-00004 and 4995 more"
    )


@pytest.mark.parametrize(
    ("permanent", "live", "note"),
    [
        ("DECOMMISSIONED", "DECOMMISSIONED", "decommissioned in etcd"),
        (
            "DECOMMISSIONED",
            "AUTHORIZED",
            "decommissioned in etcd in its AUTHORIZED key, not in the other",
        ),
        (
            "AUTHORIZED",
            "DECOMMISSIONED",
            "decommissioned in etcd in its live key, not in the other",
        ),
        ("DECOMMISSIONED", None, "decommissioned in etcd"),
        (None, "DECOMMISSIONED", "decommissioned in etcd"),
    ],
)
def test_a_state_is_noted_in_whichever_key_it_is(
    permanent: str | None, live: str | None, note: str
) -> None:
    seen = snapshot(
        {} if permanent is None else {A: value("w1", A, permanent)},
        {} if live is None else {A: value("w1", A, live)},
    )
    assert notes(seen)[A][0] == note


def test_what_was_not_read_is_not_called_missing() -> None:
    seen = snapshot({}, {A: value("w1", A)}, cut="below /DHT/c/AUTHORIZED/: more than 3 keys")
    found = verdicts(alluxio(worker("w1"), worker("w2")), seen, None)
    assert [(n.name, n.state, n.notes) for n in found] == [
        ("w1", State.LIVE, ()),
        ("w2", State.UNDETERMINED, ()),
    ]
    whole = snapshot({}, {A: value("w1", A)})
    found = verdicts(alluxio(worker("w1"), worker("w2")), whole, None)
    assert [(n.name, n.state) for n in found] == [("w1", State.LIVE), ("w2", State.UNREGISTERED)]
    assert found[0].notes == ("live without an AUTHORIZED key",)
