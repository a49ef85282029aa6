"""Ctrl-C at a moment that Python survives."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

#: Seconds until a Ctrl-C that came amid an import is tried again.
AGAIN = 0.02


@contextlib.contextmanager
def between_imports() -> Iterator[None]:
    """Within, Ctrl-C raises KeyboardInterrupt as ever, but not in the midst of an import.

    There, while another thread imports as well, an exception would leave one of Python's import
    locks taken, for which that thread then waits for ever: the process would never end.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # or it is ignored
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _raise_or_wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _raise_or_wait(number: int, frame: FrameType | None) -> None:
    at = frame
    while at is not None:
        if at.f_code.co_filename.startswith("<frozen importlib"):
            again = threading.Timer(AGAIN, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        at = at.f_back
    signal.default_int_handler(number, frame)
