"""Standard output whose reader may have gone, as with ``| head``."""

from __future__ import annotations

import os
import sys

#: The exit code of a command after its reader has gone.
BROKEN_PIPE = 141


def flush_output() -> None:
    """Write the buffered output now: the interpreter's own flush at its end is outside of any try.

    Raises :class:`BrokenPipeError` when the reader has gone.
    """
    if sys.stdout is not None:  # None when stdout was closed before the start, with `>&-`
        sys.stdout.flush()


def discard_output() -> None:
    """Nobody reads stdout: discard the buffered output and all later output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    try:
        sys.stderr.flush()
    except BrokenPipeError:  # for example with `2>&1 | head`
        os.dup2(nowhere, sys.stderr.fileno())
    os.close(nowhere)
