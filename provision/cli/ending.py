"""The end of the process, when there is nothing left to do."""

from __future__ import annotations

import atexit
import os
import sys
import threading


def end(code: int) -> None:
    """End the process as Python does, up to the last exit handler and the last byte of output.

    After these Python would free every object, one by one, and then the kernel frees the memory:
    15 ms of a run that takes half a second. Nothing of this tool is done by an object that is
    freed: files are closed, and temporary files removed, by ``with``. Returns when the output
    cannot be written, or somebody wants to look at the objects: then Python's own end follows.
    """
    if sys.flags.inspect or sys.flags.interactive:
        return
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, and pools end theirs
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed before the start, with `>&-`
                stream.flush()
    except (OSError, ValueError):
        return
    os._exit(code)
