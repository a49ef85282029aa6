"""The watch over tests without the marker ``process``, and what it lets through."""

from __future__ import annotations

import subprocess

import pytest


def test_a_process_without_the_marker_is_refused() -> None:
    with pytest.raises(AssertionError, match="test_a_process_without_the_marker_is_refused"):
        subprocess.run(["true"], check=True)


@pytest.mark.process
def test_with_the_marker_it_starts() -> None:
    subprocess.run(["true"], check=True)
