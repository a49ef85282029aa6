"""``--allow-unreachable``: who is left out, and who never is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from provision.cli.tasks import common
from provision.errors import PreflightFailed, Problem, UsageError
from provision.ids import Id
from provision.inventory.resolved import Machine
from provision.ssh.session import Unreachable

WORKERS = [SimpleNamespace(name=n, machine=Machine(n)) for n in ("a", "b", "c", "m")]


def run(**failing: Id) -> Any:
    """A run whose hosts fail with these ids; ``m`` is a member's host."""

    def fan_out(work: object, machines: list[Machine]) -> dict[Machine, object]:
        return {m: _error(m, failing.get(m.host)) for m in machines}

    members = [SimpleNamespace(machine=Machine("m"))]
    inventory = SimpleNamespace(etcd=SimpleNamespace(members=members))
    return SimpleNamespace(fleet=SimpleNamespace(map=fan_out), inventory=inventory, left_out=[])


def _error(machine: Machine, id: Id | None) -> Unreachable | None:
    if id is None:
        return None
    return Unreachable(machine.host, [Problem(machine.host, "x", id=id)], id=id)


def left(run: Any, count: str) -> list[str]:
    return [w.name for w in common.reachable(run, cast(Any, WORKERS), count)]


def test_as_many_as_are_allowed() -> None:
    two = run(a="host-unreachable", c="name-unresolved")
    assert left(two, "2") == ["b", "m"]
    assert [p.where for p in two.left_out] == ["a", "c"]


def test_one_more_and_nothing_is_done() -> None:
    two = run(a="host-unreachable", c="host-unreachable")
    with pytest.raises(PreflightFailed) as caught:
        left(two, "1")
    assert [p.where for p in caught.value.problems] == ["a", "c"]
    assert two.left_out == []


@pytest.mark.parametrize(
    ("host", "id"),
    [("a", "host-key-changed"), ("a", "ssh-login-refused"), ("m", "host-unreachable")],
)
def test_who_is_never_left_out(host: str, id: Id) -> None:
    failing: dict[str, Id] = {host: id, "b": "host-unreachable"}
    with pytest.raises(PreflightFailed) as caught:
        left(run(**failing), "4")
    assert [p.where for p in caught.value.problems] == [host]


def test_all_of_them() -> None:
    gone = run(a="host-unreachable", b="host-unreachable", c="host-unreachable")
    with pytest.raises(PreflightFailed, match="no host can be reached"):
        common.reachable(gone, cast(Any, WORKERS[:3]), "9")


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5"])
def test_a_count(text: str) -> None:
    with pytest.raises(UsageError, match="how many hosts"):
        left(run(), text)


def test_nobody_is_asked_without_the_option() -> None:
    assert common.reachable(cast(Any, None), cast(Any, WORKERS), "") == tuple(WORKERS)
