"""A start without work that only costs time: imports are half of a run that changes nothing."""

from __future__ import annotations

import atexit
import gc
import os


def start_lightly() -> None:
    """For the entry points, before they import anything else.

    During imports and at the end, the garbage collector would walk the same thousands of objects
    again and again; in a long run, cycles are still collected. pydantic would read the metadata of
    every installed package to look for plugins.
    """
    gc.set_threshold(200_000)
    atexit.register(gc.freeze)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
