"""Proof that a folder was only read, and a process that could not write to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NOBODY = 65534

#: Comes after the imports of a script: from here on, the process cannot write to any folder of
#: root. It is in the folder already, because the folders above may be closed to it.
_GIVE_UP = f"""
import os
from cryptography.hazmat.backends import default_backend
default_backend()  # some releases import it at the first signature only
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""


def state(folder: Path) -> dict[str, tuple[object, ...]]:
    """Every path below ``folder``, and the folder itself: inode, mode, times and content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        seen = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        times = (seen.st_mtime_ns, seen.st_ctime_ns)
        found[str(path.relative_to(folder))] = (seen.st_ino, seen.st_mode, *times, content)
    return found


def run(folder: Path, imports: str, script: str) -> str:
    """What ``script`` prints. It runs in ``folder``, which it can read but not write, under a user
    that can write nowhere else either."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-c", imports + _GIVE_UP + script],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "HOME": "/nowhere"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        for path in paths:
            path.chmod(0o700 if path.is_dir() else 0o600)
    assert done.returncode == 0, done.stderr
    return done.stdout
