"""The order of test files that run side by side: whole files, each in one process."""

from __future__ import annotations

from collections.abc import Sequence

import pytest


def first(items: list[pytest.Item], names: Sequence[str]) -> None:
    """Put the tests of the files ``test_NAME.py`` first, in the order of ``names``.

    pytest-xdist would begin the files with the most tests first, and one test that takes minutes
    last, when the other processes have nothing left. (`pytest -vv --durations=0` of a whole run
    shows what has become longer.)
    """
    # Stable: within a file, and among the others, the order stays.
    rank = {f"test_{name}": n for n, name in enumerate(names)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))
