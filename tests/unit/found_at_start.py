"""What a process finds when it starts: a program of test_forks.py, run as ``python -m``."""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TextIO


def found() -> dict[str, object]:
    streams = (
        (sys.stdin, sys.__stdin__),
        (sys.stdout, sys.__stdout__),
        (sys.stderr, sys.__stderr__),
    )
    return {
        "arguments": sys.argv,
        "original arguments": sys.orig_argv,
        "path": sys.path,
        "main": __name__,
        "executable": sys.executable,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "group": os.getpgrp(),
        "session": os.getsid(0),
        "umask": os.umask(0),
        "files": sorted(os.listdir("/proc/self/fd")),
        "signals": {number: str(signal.getsignal(number)) for number in range(1, 32)},
        "blocked": [str(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "limits": [resource.getrlimit(number) for number in range(16)],
        "threads": [threading.active_count(), len(os.listdir("/proc/self/task"))],
        "collector": [gc.isenabled(), gc.get_threshold()],
        "flags": list(sys.flags),
        "streams": [[*stream(now), now is first] for now, first in streams],
        "stdin": sys.stdin.read(),
    }


def stream(of: TextIO) -> list[object]:
    buffer = of.buffer
    kinds = [type(each).__name__ for each in (of, buffer, getattr(buffer, "raw", None))]
    raw = [getattr(getattr(buffer, "raw", None), name, None) for name in ("closefd", "mode")]
    names = ("encoding", "errors", "name", "mode", "line_buffering", "write_through", "newlines")
    return [*kinds, *raw, *(getattr(of, name) for name in names), of.isatty()]


def main(words: list[str]) -> None:
    if words[:1] == ["kill"]:
        os.kill(os.getpid(), signal.SIGKILL)
    elif words[:1] == ["wait"]:
        Path(words[1]).write_text(str(os.getpid()))
        time.sleep(60)
    elif words[:1] == ["draw"]:
        print(random.random())
    else:
        atexit.register(print, "at the end")
        print(json.dumps(found(), indent=1))
        print("said", file=sys.stderr)
        raise SystemExit(7)


if __name__ == "__main__":
    main(sys.argv[1:])
