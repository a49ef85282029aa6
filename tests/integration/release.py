"""The release of Alluxio that the lab's tests install: the lab's double, or a real tarball.

``make test ALLUXIO=alluxio-313-bin.tar.gz JDK=jdk11.tar.gz`` puts a real one in its place (as
``ALXP_ALLUXIO`` and ``ALXP_JDK`` in the environment). What a real worker needs beyond that stands
here alone: memory, time, and how much more patience every test has.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

REPO = Path(__file__).parents[2]
ARTIFACTS = REPO / ".lab" / "artifacts"
DOUBLE, JDK = "alluxio-313-bin.tar.gz", "jdk-11-lab.tar.gz"
#: Releases that the tests make of the one under test; it must not have their numbers.
OTHERS = ("314", "315")
#: Of a real worker: 512 MB of heap served two workers and their reads on a machine of 8 GB.
HEAP, DIRECT_MEMORY = "768m", "256m"
#: Seconds until a real worker is live: it takes up to a minute on a loaded machine.
START_TIMEOUT = 300
#: By what the tests' own limits are multiplied with a real worker.
PATIENCE = 5.0

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Release:
    """A tarball and a JDK, with what they are."""

    tarball: Path
    version: str
    jdk: Path
    real: bool

    @property
    def patience(self) -> float:
        """By what a limit in seconds is multiplied."""
        return PATIENCE if self.real else 1.0

    def changes(self) -> Changes:
        """What of inventory/lab.yml is otherwise with it; nothing with the lab's own artifacts."""
        own: dict[str, Any] = {}
        if self.real:
            own = {
                "version": self.version,
                "source": _source(self.tarball),
                "heap": HEAP,
                "direct_memory": DIRECT_MEMORY,
                "start_timeout": START_TIMEOUT,
            }
        if self.jdk != ARTIFACTS / JDK:
            own["java"] = {"source": _source(self.jdk)}
        return {"alluxio": own} if own else {}

    def __str__(self) -> str:
        what = f"a real Alluxio {self.version}" if self.real else "the lab's double of Alluxio"
        return f"{what} ({self.tarball}), Java of {self.jdk.name}"


def named(env: Mapping[str, str] = os.environ) -> Release:
    """The release that the environment names. Raises ValueError for what is no server release."""
    jdk = Path(env.get("ALXP_JDK") or ARTIFACTS / JDK)
    if not env.get("ALXP_ALLUXIO"):
        return Release(ARTIFACTS / DOUBLE, "313", jdk, real=False)
    tarball = Path(env["ALXP_ALLUXIO"])
    for file in (tarball, jdk):
        if not file.is_file():
            raise ValueError(f"there is no file {file}")
    version = _version(tarball)
    if version in OTHERS:
        raise ValueError(f"{tarball} is {version}, as which the tests install another release")
    return Release(tarball, version, jdk, real=True)


def _version(tarball: Path) -> str:
    """As libexec/version.sh in it has it."""
    with tarfile.open(tarball, "r|*") as tar:
        for entry in tar:
            if entry.name.partition("/")[2] == "libexec/version.sh":
                content = tar.extractfile(entry)
                assert content is not None
                for line in content.read().decode().splitlines():
                    if line.startswith("VERSION="):
                        return line.removeprefix("VERSION=").strip("\"'")
    raise ValueError(f"{tarball} has no VERSION in libexec/version.sh")


@functools.cache
def _source(file: Path) -> Mapping[str, str]:
    with file.open("rb") as content:
        digest = hashlib.sha256()
        while block := content.read(1 << 20):
            digest.update(block)
    return {"path": str(file), "sha256": digest.hexdigest()}


def merged(base: Any, changes: Any) -> Any:
    """``base`` with ``changes`` in it; None takes a key away."""
    if not isinstance(base, Mapping) or not isinstance(changes, Mapping):
        return changes
    keys = [key for key in {**base, **changes} if changes.get(key, ...) is not None]
    return {k: merged(base.get(k), changes[k]) if k in changes else base[k] for k in keys}


def absolute(value: Any, base: Path) -> Any:
    """``value`` with its paths relative to ``base`` written out, to be used from elsewhere."""
    if isinstance(value, Mapping):
        return {key: absolute(one, base) for key, one in value.items()}
    if isinstance(value, str) and value.removeprefix("file:").startswith("../"):
        prefix = "file:" if value.startswith("file:") else ""
        return prefix + str((base / value.removeprefix("file:")).resolve())
    return value


def main() -> None:
    """Write inventory/lab.yml as it is with this release, for ``make demo``."""
    yaml = YAML(typ="safe")
    base = REPO / "inventory"
    content = absolute(yaml.load((base / "lab.yml").read_text(encoding="utf-8")), base)
    release = named()
    with Path(sys.argv[1]).open("w", encoding="utf-8") as file:
        yaml.dump(merged(content, release.changes()), file)
    print(f"lab: {release}", file=sys.stderr)


if __name__ == "__main__":
    main()
