"""A lab host as a control machine: this machine's Python and the tool on it, at their own paths.

The hosts have no Python, and no way out to get one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from .lab import REPO, SSH_CONFIG, Host

#: What check-nodes does without: the tests' own packages, and parts of the standard library.
_LEFT_OUT = (
    *("mypy", "mypy-*", "mypyc", "*__mypyc*", "ruff", "ruff-*", "pip", "pip-*", "setuptools"),
    *("setuptools-*", "hypothesis", "pygments", "_pytest", "test", "idlelib", "lib2to3"),
    *("ensurepip", "tkinter", "turtledemo", "config-*", "dist-packages"),
)


@contextlib.contextmanager
def control_machine(host: Host, files: Sequence[Path]) -> Iterator[None]:
    """With Python, the tool, and ``files`` on ``host``; what was not there before goes again."""
    wanted = [
        *_python(),
        *(REPO / name for name in ("provision", "templates", "tasks.py", "invoke.yaml")),
    ]
    names = " ".join(shlex.quote(str(path)) for path in [*wanted, *files])
    # -h too: a link whose end is yet to come is there.
    absent = host.run(f'for p in {names}; do [ -e "$p" ] || [ -h "$p" ] || echo "$p"; done')
    missing = absent.splitlines()
    others = f"{_standard_library()}/site-packages".lstrip("/")  # not the virtualenv's own
    left_out = (f"--exclude={name}" for name in (*_LEFT_OUT, others))
    pack = ["tar", "-C", "/", "-cf", "-", *left_out]
    pack += [path.lstrip("/") for path in missing]
    unpack = ["ssh", "-F", str(SSH_CONFIG), host.name, "sudo tar -C / -xf -"]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
        subprocess.run(unpack, stdin=packing.stdout, check=True, timeout=300)
    assert packing.returncode == 0
    try:
        yield
    finally:
        host.run("rm -rf " + " ".join(map(shlex.quote, missing)), timeout=300)


@functools.cache  # `ldd` is three processes for each module
def _python() -> tuple[Path, ...]:
    """The virtualenv, the Python under it, and the libraries that both want."""
    return tuple(_found())


def _found() -> Iterator[Path]:
    yield Path(sys.prefix)
    link = Path(sys.executable)
    while link.is_symlink():
        link = link.parent / os.readlink(link)
        yield link
    standard = _standard_library()
    yield standard
    modules = [str(path) for path in standard.glob("lib-dynload/*.so")]
    said = subprocess.run(["ldd", str(link), *modules], capture_output=True, text=True, check=False)
    for found in sorted(set(re.findall(r"=> (/\S+)", said.stdout))):
        library = Path(found)
        while True:
            yield library
            if not library.is_symlink():
                break
            library = library.parent / os.readlink(library)


def _standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
