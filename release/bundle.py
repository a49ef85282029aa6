"""``make bundle``: one archive from which pip installs the tool without internet.

    python -m release.bundle                   for Python 3.10 to 3.13 on this machine's processor
    python -m release.bundle --python 3.12     for that Python only; may be given several times
    python -m release.bundle --arch aarch64    for another processor

In ``dist/alluxio-provision-VERSION-linux-ARCH.tar.gz``: ``wheels/`` with the tool and everything in
``operators.lock``, ``requirements.lock`` with the hashes of exactly these wheels, ``SHA256SUMS`` of
all files, and the documentation. Beside it: the archive's own checksum, and the tool's wheel.

What is downloaded is checked against ``operators.lock``. The wheels are for glibc 2.28 and later.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.markers import Marker
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename

import provision

REPO = Path(__file__).resolve().parents[1]
NAME = "alluxio-provision"
LOCK = REPO / "operators.lock"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
#: Minor releases of glibc 2 whose wheels are taken: Debian 10, RHEL 8 and later have 28.
_GLIBC = (28, 17)
#: Releases that PyPI has no wheel of. They are plain Python, so a wheel made here runs everywhere.
_SOURCE_ONLY = ("etcd3",)
#: What of the repository the tool's own wheel is made of, and what a reader gets.
_SOURCES = ("provision", "pyproject.toml", "README.md", "LICENSE")
_READ = ("*.md", "LICENSE", "docs/*.md", "docs/*.svg", "inventory/example.yml")


@dataclass(frozen=True, slots=True)
class Locked:
    """One release in a lock file."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def fits(self, python: str, arch: str) -> bool:
        """Whether ``python`` on Linux needs it."""
        environment = {
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "python_version": python,
            "python_full_version": f"{python}.0",
            "platform_machine": arch,
            "platform_system": "Linux",
            "sys_platform": "linux",
            "os_name": "posix",
        }
        return not self.marker or Marker(self.marker).evaluate(environment)

    def lines(self, hashes: Iterable[str]) -> str:
        """Its lines for a lock file, with these ``hashes``."""
        condition = f" ; {self.marker}" if self.marker else ""
        options = "".join(f" \\\n    --hash=sha256:{one}" for one in hashes)
        return f"{self.name}=={self.version}{condition}{options}\n"


def locked(text: str) -> list[Locked]:
    """The releases of a lock file. Raises ``ValueError`` for a line that is not understood."""
    found = []
    for entry in re.sub(r"\\\n", "", text).splitlines():
        if not entry.strip() or entry.startswith("#"):
            continue
        head, *options = entry.split("--hash=sha256:")
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+?)(?:\s*;\s*(.*?))?\s*", head)
        hashes = tuple(option.strip() for option in options)
        if (
            match is None
            or not hashes
            or not all(re.fullmatch("[0-9a-f]{64}", one) for one in hashes)
        ):
            raise ValueError(f"not a release with its hashes: {entry!r}")
        found.append(Locked(match[1], match[2], match[3] or "", hashes))
    return found


def bundle(pythons: Sequence[str], arch: str, into: Path) -> Path:
    """Make the archive in the folder ``into``, which is made when it is missing."""
    stem = f"{NAME}-{provision.__version__}-linux-{arch}"
    every = locked(LOCK.read_text(encoding="utf-8"))
    releases = [one for one in every if any(one.fits(python, arch) for python in pythons)]
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as scratch:
        top = Path(scratch) / stem
        wheels = top / "wheels"
        wheels.mkdir(parents=True)
        for python in pythons:
            _download([r for r in releases if r.fits(python, arch)], python, arch, wheels)
        _build([r for r in releases if r.name in _SOURCE_ONLY], wheels)
        (top / "requirements.lock").write_text(_lock(releases, wheels), encoding="utf-8")
        for path in (path for pattern in _READ for path in REPO.glob(pattern)):
            copy = top / path.relative_to(REPO)
            copy.parent.mkdir(exist_ok=True)
            shutil.copy2(path, copy)
        (top / "SHA256SUMS").write_text(_sums(top), encoding="utf-8")
        into.mkdir(parents=True, exist_ok=True)
        for own in wheels.glob(f"{NAME.replace('-', '_')}-*.whl"):
            shutil.copy2(own, into)
        archive = into / f"{stem}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(top, stem, filter=_of_root)
    sum_ = f"{_digest(archive)}  {archive.name}\n"
    archive.with_name(f"{archive.name}.sha256").write_text(sum_, encoding="utf-8")
    return archive


def _download(releases: Sequence[Locked], python: str, arch: str, wheels: Path) -> None:
    """The wheels of ``releases`` for ``python``."""
    tags = [f"manylinux_2_{minor}_{arch}" for minor in _GLIBC] + [f"manylinux2014_{arch}"]
    abis = (f"cp{python.replace('.', '')}", "abi3", "none")
    _pip(
        *("download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", wheels),
        *("--implementation", "cp", "--python-version", python),
        *(word for tag in tags for word in ("--platform", tag)),
        *(word for abi in abis for word in ("--abi", abi)),
        releases=[r for r in releases if r.name not in _SOURCE_ONLY],
    )


def _build(releases: Sequence[Locked], wheels: Path) -> None:
    """Wheels of the releases that have none, which are plain Python, and of the tool itself."""
    _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, releases=releases)
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as scratch:
        # A copy: the build leaves files in its folder, and takes old ones of a build before.
        for name in _SOURCES:
            path, copy = REPO / name, Path(scratch) / name
            if path.is_dir():
                shutil.copytree(path, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(path, copy)
        _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, scratch)
    of_machine = [w.name for w in wheels.glob("*.whl") if not _is_for(w.name)]
    if of_machine:
        raise SystemExit(f"made for this machine's own libraries: {', '.join(of_machine)}")


def _is_for(wheel: str) -> bool:
    """Whether a wheel is plain Python, or for a named glibc (not for that of this machine)."""
    return all(t.platform == "any" or "manylinux" in t.platform for t in _parsed(wheel)[2])


def _lock(releases: Iterable[Locked], wheels: Path) -> str:
    """The lock file of the bundle: the tool and ``releases``, with the hashes of ``wheels``."""
    hashes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for wheel in sorted(wheels.glob("*.whl")):
        hashes[_parsed(wheel.name)[:2]].append(_digest(wheel))
    own = Locked(NAME, provision.__version__, "", ())
    lines = [
        f"# {NAME} {own.version} and what it needs, with the hashes of the files in wheels/.\n",
        "# pip install --no-index --find-links wheels --require-hashes -r requirements.lock\n",
    ]
    for one in (own, *releases):
        found = hashes.pop((canonicalize_name(one.name), one.version), None)
        if not found:
            raise SystemExit(f"no wheel of {one.name} {one.version}")
        lines.append(one.lines(found))
    if hashes:
        raise SystemExit(f"wheels of no release in {LOCK.name}: {', '.join(map(str, hashes))}")
    return "".join(lines)


def _parsed(wheel: str) -> tuple[str, str, frozenset[Tag]]:
    name, version, _, tags = parse_wheel_filename(wheel)
    return name, str(version), tags


def _sums(top: Path) -> str:
    """As of sha256sum: every file below ``top``."""
    files = sorted(path for path in top.rglob("*") if path.is_file())
    return "".join(f"{_digest(path)}  {path.relative_to(top).as_posix()}\n" for path in files)


def _of_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode = 0o755 if info.isdir() else 0o644
    return info


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _pip(*words: str | Path, releases: Sequence[Locked] = ()) -> None:
    """Run pip; with ``releases`` for these alone, each with its hashes."""
    command: list[str | Path] = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        if releases:
            file.write("".join(replace(one, marker="").lines(one.hashes) for one in releases))
            file.flush()
            command += ["--require-hashes", "--requirement", file.name]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit("pip failed: see above")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="release.bundle")
    parser.add_argument("--python", action="append", help="such as 3.12; default: all")
    parser.add_argument("--arch", default=platform.machine(), help="x86_64 or aarch64")
    parser.add_argument("--into", type=Path, default=REPO / "dist")
    options = parser.parse_args()
    made = bundle(options.python or PYTHONS, options.arch, options.into)
    print(f"{made}: {made.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
