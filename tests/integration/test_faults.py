"""A few of the cases of ``make faults``: see tests/faults, and docs/reliability.md for all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.faults import FAULTS
from tests.faults.operations import OPERATIONS, Bed
from tests.faults.run import Case, run_case

from .lab import Lab

pytestmark = pytest.mark.slow

CASES = (
    ("rolling-change", "kill-leader", 2),
    ("rolling-change", "partition", 3),
    ("replace-member", "kill-control", 2),
    ("restore-etcd", "kill-control", 3),
)


@pytest.fixture(scope="module")
def bed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    lab.clear()
    bed = Bed(lab, 3, tmp_path_factory.mktemp("faults"))
    yield bed
    lab.wipe()


@pytest.mark.parametrize(("operation", "fault", "moment"), CASES)
def test_a_fault_in_the_middle_loses_nothing(
    bed: Bed, operation: str, fault: str, moment: int
) -> None:
    case = Case(next(o for o in OPERATIONS if o.name == operation), FAULTS[fault], moment)
    run_case(bed, case)
    assert case.outcome
    assert case.verdict.acknowledged > 20
    assert (case.verdict.lost, case.verdict.stale) == (0, 0)
