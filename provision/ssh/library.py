"""The import of Paramiko, without the modules that only say which version it is."""

from __future__ import annotations

import sys
from pathlib import Path

#: The package that speaks SSH. It comes with Fabric: the requirements of this tool do not name it.
NAME = "paramiko"
_METADATA = "importlib.metadata"


def import_paramiko() -> None:
    """Import Paramiko, which asks importlib.metadata for its own version, to say it to hosts.

    For that one answer, importlib.metadata imports some 40 modules: readers of mail, of zip
    archives and of tables. The name of the folder beside the package has the same answer. Without
    such a folder, importlib.metadata is asked.
    """
    if NAME in sys.modules or _METADATA in sys.modules:
        return
    version = installed_version()
    if version is None:
        return
    stand_in = type(sys)(_METADATA)  # a module
    vars(stand_in)["version"] = {NAME: version}.__getitem__
    sys.modules[_METADATA] = stand_in
    try:
        import paramiko  # noqa: F401
    finally:
        del sys.modules[_METADATA]


def installed_version() -> str | None:
    """The version of the Paramiko that an import would find, by the folder that pip has made; None
    when there is not exactly one."""
    for folder in map(Path, sys.path):
        if (folder / NAME).is_dir():
            found = [path.name for path in folder.glob(f"{NAME}-*.dist-info")]
            if len(found) != 1:
                return None
            return found[0].removeprefix(f"{NAME}-").removesuffix(".dist-info")
    return None
