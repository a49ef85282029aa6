"""For all tests, wherever they were started."""

from __future__ import annotations

import signal
from collections.abc import Generator
from typing import Any

import pytest

from tests import documents, recording, remedies


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background jobs begin with Ctrl-C ignored, and so would every process of the tests.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    recording.watch()
    documents.watch()


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, None]:
    """A test does what tests/remedies.py says of it, and prints documents as their schemas say."""
    documents.taken()
    with recording.recording() as events:
        outcome = yield
    if outcome.excinfo is None and (missing := remedies.missing(pyfuncitem.nodeid, events)):
        outcome.force_exception(AssertionError(f"as tests/remedies.py has it: {missing}"))
    if outcome.excinfo is None and (faults := documents.taken()):
        outcome.force_exception(AssertionError(f"documents: {faults}"))
