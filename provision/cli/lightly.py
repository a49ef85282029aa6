"""A start without work that only costs time: imports are half of a run that changes nothing."""

from __future__ import annotations

import atexit
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # these modules are a tenth of what a completion imports
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

#: Invoke's reader of YAML, for a configuration file of Invoke's own; hardly anybody has one. And
#: gRPC's interface for asyncio, with asyncio itself, which gRPC imports for it.
_RARE = frozenset({"invoke.vendor.yaml", "grpc.aio", "asyncio"})
#: What Invoke's ``MockContext`` is made of.
_DOUBLES = "unittest.mock"


def start_lightly() -> None:
    """For the entry points, before they import anything else.

    During imports and at the end, the garbage collector would walk the same thousands of objects
    again and again; in a long run, cycles are still collected. pydantic would read the metadata of
    every installed package to look for plugins.
    """
    gc.set_threshold(200_000)
    atexit.register(gc.freeze)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    sys.meta_path.insert(0, _Later())
    keep_compiled()


def keep_compiled() -> None:
    """Python keeps what it compiles of the tool, as it does without Invoke.

    Invoke forbids it while it reads its options (``Program.parse_core``), for the sake of a user's
    tasks. In a clone every run would then compile two hundred modules.
    """
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)


def import_invoke() -> None:
    """Import Invoke without ``unittest.mock``, which only its test double for contexts uses.

    With it come unittest and asyncio, before the first connection to a host. Whoever imports
    ``unittest.mock`` afterwards gets the real one.
    """
    if _DOUBLES in sys.modules:
        return
    stand_in = type(sys)(_DOUBLES)  # a module
    vars(stand_in)["Mock"] = object
    sys.modules[_DOUBLES] = stand_in
    try:
        import invoke  # noqa: F401
    finally:
        del sys.modules[_DOUBLES]


class _Later:
    """Finds a module that is imported only when it is used."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _RARE:
            return None
        from importlib.machinery import PathFinder
        from importlib.util import LazyLoader

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec
