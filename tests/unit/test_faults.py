"""The checker of the fault harness must be able to fail, and its document be what it measured."""

from __future__ import annotations

from typing import Any, cast

import pytest

from provision.etcd.api.client import EtcdClient
from tests.faults import report, run
from tests.faults.checker import Register, Registers


class Answers:
    """A client whose reads answer what they are told to."""

    def __init__(self, *values: int | None) -> None:
        self._values = list(values)

    def get(self, key: str) -> Any:
        value = self._values.pop(0)
        if value is None:
            return None
        return type("Found", (), {"value": str(value).encode()})


def reading(register: Register, *values: int | None) -> list[str]:
    registers = Registers("/r/", [], None)
    client = Answers(*values)
    for _ in values:
        registers.read(cast(EtcdClient, client), register)
    return registers.stale


def test_what_was_written_and_what_is_being_written_may_be_read() -> None:
    assert reading(Register("/r/0", floor=4, sent=5), 4, 4, 5, 5) == []
    assert reading(Register("/r/0", floor=0, sent=1), None, 1) == []


@pytest.mark.parametrize(
    ("floor", "sent", "values"),
    [
        (4, 5, [3]),  # older than an acknowledged write
        (4, 5, [None]),
        (4, 5, [6]),  # never sent
        (3, 5, [5, 4]),  # backwards
    ],
)
def test_a_read_that_is_not_linearizable_is_found(
    floor: int, sent: int, values: list[int | None]
) -> None:
    assert len(reading(Register("/r/0", floor, sent), *values)) == 1


def test_the_document_is_made_from_the_results() -> None:
    if not run.RESULTS.exists():
        pytest.skip("no results yet")
    assert report.DOCUMENT.read_text(encoding="utf-8") == report.current()
