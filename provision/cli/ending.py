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
    cannot be written, or when somebody has something to do then, such as a profiler: Python's own
    end follows.
    """
    if sys.flags.inspect or sys.flags.interactive or _is_watched():
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


def _is_watched() -> bool:
    """Whether a profiler, a tracer or a debugger looks on."""
    tools = getattr(sys, "monitoring", None)  # from Python 3.12 on
    return bool(
        sys.getprofile()
        or sys.gettrace()
        or (tools is not None and any(map(tools.get_tool, range(6))))
    )
