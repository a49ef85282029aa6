"""Ctrl-C at any moment: exit code 130 and one line, never a traceback.

Before and after a command there is nothing to finish: :func:`exit_when_interrupted`. While the
command runs, it must report its state: :func:`between_imports`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

#: The exit code that shells use for a command ended by Ctrl-C.
INTERRUPTED = 130
#: Seconds until a Ctrl-C that came during an import is tried again.
AGAIN = 0.02


def exit_when_interrupted() -> None:
    """From now on Ctrl-C ends this process at once, with one line and :data:`INTERRUPTED`.

    Only in the main thread, and only if Python's own handler is installed: a process that handles
    or ignores SIGINT already goes on doing so.
    """
    if _is_replaceable(signal.default_int_handler):
        signal.signal(signal.SIGINT, _exit)


def _is_replaceable(*handlers: object) -> bool:
    main = threading.current_thread() is threading.main_thread()
    return main and signal.getsignal(signal.SIGINT) in handlers


def _exit(number: int, frame: FrameType | None) -> None:
    # No exception here: half-done imports, or Invoke, would turn it into another one.
    with contextlib.suppress(OSError):  # stderr may be closed
        os.write(2, b"error: interrupted [interrupted]\n")
    os._exit(INTERRUPTED)


@contextlib.contextmanager
def between_imports() -> Iterator[None]:
    """Within this context, Ctrl-C raises KeyboardInterrupt as usual, but not during an import or a
    validation.

    If another thread imports as well, an exception during an import would leave one of Python's
    import locks taken. That thread would wait for the lock for ever, and the process would never
    end. During a validation, pydantic's compiled part would turn the exception into a validation
    error.
    """
    if not _is_replaceable(signal.default_int_handler, _exit):  # for example, SIGINT is ignored
        yield
        return
    handler = _Postponing()
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    handler.raise_postponed()


class _Postponing:
    """A SIGINT handler that tries again later when an exception would break Python."""

    def __init__(self) -> None:
        self._again: threading.Timer | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._again = None
        if not _is_delicate(frame):
            signal.default_int_handler(number, frame)
        self._again = threading.Timer(AGAIN, os.kill, (os.getpid(), number))
        self._again.daemon = True
        self._again.start()

    def raise_postponed(self) -> None:
        """Raises KeyboardInterrupt when a Ctrl-C still waits."""
        if self._again is not None:
            self._again.cancel()
            raise KeyboardInterrupt


def _is_delicate(frame: FrameType | None) -> bool:
    """Whether an import, or a validation of pydantic, is under way."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib") or f"{os.sep}pydantic{os.sep}" in file:
            return True
        frame = frame.f_back
    return False
