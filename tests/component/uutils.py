"""Releases of uutils (rust-coreutils) as Debian has them, unpacked and not installed.

apt downloads the packages by name from the Debian release that has them, with lists of its own
below ``.lab/``: this machine may be another Debian. A release for a newer C library is started by
that library's own loader.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".lab" / "uutils"
#: By the release of uutils: the Debian release, and the packages beside rust-coreutils.
RELEASES = {
    "0.0.17": ("bookworm", ("libselinux1", "libpcre2-8-0", "libgcc-s1", "libc6")),
    "0.0.30": ("trixie", ("libselinux1", "libpcre2-8-0", "libgcc-s1", "libc6")),
}
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def programs(release: str) -> Path:
    """The folder with the programs of this release. Skips the test where there are none to be
    had."""
    folder = CACHE / release
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # other tests may want it at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The folder may have been moved.
        if not _runs(folder / "bin" / "true"):
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, *RELEASES[release])
    return folder / "bin"


def _runs(program: Path) -> bool:
    try:
        return subprocess.run([program], capture_output=True).returncode == 0
    except OSError:
        return False


def _make(folder: Path, suite: str, libraries: tuple[str, ...]) -> None:
    if shutil.which("apt-get") is None or not _KEYS.exists():
        pytest.skip("no uutils: this machine has no apt-get, or not the keys of Debian's archive")
    root, lists = folder / "root", folder / "lists"
    for path in (root, lists / "partial", folder / "packages", folder / "cache"):
        path.mkdir(parents=True)
    source = folder / "sources.list"
    source.write_text(f"deb [signed-by={_KEYS}] {_mirror()} {suite} main\n")
    options = {
        "Dir::Etc::SourceList": source,
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": lists,
        # The packages of this machine say nothing here.
        "Dir::State::Status": "/dev/null",
        "Dir::Cache": folder / "cache",
        "Acquire::Languages": "none",
        # The folder is not apt's own user's.
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
    for command in (["update"], ["download", "rust-coreutils", *libraries]):
        done = subprocess.run(
            [*apt, *command],
            cwd=folder / "packages",
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode:
            shutil.rmtree(folder)
            pytest.skip(f"no uutils of Debian's {suite}: {done.stderr[-200:]}")
    for package in sorted((folder / "packages").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    for path in (lists, folder / "cache", folder / "packages"):
        shutil.rmtree(path)
    _wrap(root, folder / "new")
    (folder / "new").rename(folder / "bin")


def _mirror() -> str:
    """Where this machine has its own packages of Debian from. Skips the test when nothing says."""
    ask = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    said = subprocess.run([*ask, "Origin: Debian"], capture_output=True, text=True).stdout.split()
    # The updates for security are in an archive of their own.
    found = next((uri for uri in said if "security" not in uri), None)
    if found is None:
        pytest.skip("no uutils: this machine has no packages of Debian")
    return found


def _wrap(root: Path, into: Path) -> None:
    """The programs by their names, which tell the multi-call program what to be. Where it needs
    another C library than this machine's, that library's loader starts it, and says the name."""
    into.mkdir()
    (binary,) = root.glob("usr/bin/coreutils")
    (loader,) = (path for path in root.glob("**/ld-linux*.so.*") if not path.is_symlink())
    folders = sorted({str(path.parent) for path in root.glob("**/*.so.*")})
    start = shlex.join([str(loader), "--library-path", ":".join(folders)])
    (into / "true").symlink_to(binary)
    fits = _runs(into / "true")
    (into / "true").unlink()
    for program in root.glob("usr/lib/cargo/bin/coreutils/*"):
        path = into / program.name
        if fits:
            path.symlink_to(binary)
            continue
        called = f"--argv0 {shlex.quote(program.name)} {shlex.quote(str(binary))}"
        path.write_text(f'#!/bin/sh\nexec {start} {called} "$@"\n')
        path.chmod(0o755)
    assert os.listdir(into)
