"""A few faults of some workers: what the long run (make faults-workers) does, in little."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..faults import workers as faults
from .lab import Lab

#: Printed with a failure, and to be given to the long run to see it again.
SEED = 313


@pytest.mark.usefixtures("workers")
def test_states_are_right_while_workers_fail(lab: Lab, tmp_path: Path) -> None:
    first = ("kill", "cut")  # how long etcd keeps a lease after its leader's loss is not for here
    result = faults.run(lab, tmp_path, workers=4, events=len(first), seed=SEED, first=first)
    # Those that it begins with, and what brings the workers back.
    assert [e.kind for e in result.events] == [*first, "start", "heal"]
    assert result.judgement.wrong == []
    assert result.judgement.info_right > 0
    seen = {event.kind: look for event, _, _, look in result.found}
    assert set(seen) == {"kill", "cut", "start", "heal"}
    assert None not in seen.values()
