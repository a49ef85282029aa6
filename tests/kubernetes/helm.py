"""Real Helm over our charts, with the etcd chart in a repository of its own on loopback."""

from __future__ import annotations

import contextlib
import http.server
import os
import platform
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ruamel.yaml import YAML

HERE = Path(__file__).parent
ARTIFACTS = HERE.parents[1] / ".lab" / "artifacts"


def unpack(artifact: str, into: Path) -> Path | None:
    """The tools of an artifact of the lab; None when it was not built."""
    found = sorted(ARTIFACTS.glob(f"{artifact}-linux-*.tar.gz"))
    if not found:
        return None
    with tarfile.open(found[-1]) as tar:
        tar.extractall(into, filter="data")
    return into / artifact


def lacking(artifact: str) -> NoReturn:
    """Skip what needs an artifact that is only built when asked for; fail for one that is not."""
    if artifact == "kubernetes" or platform.machine() != "x86_64":
        pytest.skip("its tools are built by `make kubernetes`")
    pytest.fail(f"missing tools: run tests/lab/lab artifacts {artifact}", pytrace=False)


class Helm:
    """One helm with a home of its own, so that no setting of this machine's user counts."""

    def __init__(self, binary: Path, home: Path) -> None:
        self.binary = binary
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
        }

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        line = [str(self.binary), *map(str, arguments)]
        return subprocess.run(
            line, env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )

    def ok(self, *arguments: str | Path) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, f"helm {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def manifests(self, *arguments: str | Path) -> dict[tuple[str, str], Any]:
        """What ``helm template`` renders, by kind and name."""
        return {
            (d["kind"], d["metadata"]["name"]): d for d in split(self.ok("template", *arguments))
        }


def split(manifests: str) -> list[Any]:
    """The objects in a text of ``helm template``."""
    return [d for d in YAML(typ="safe").load_all(manifests) if d]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def repository(helm: Helm, folder: Path) -> Iterator[str]:
    """A chart repository on loopback that has the etcd chart; its URL."""
    folder.mkdir()
    helm.ok("package", HERE / "etcd-chart", "--destination", folder)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Quiet, directory=str(folder))
    )
    url = f"http://127.0.0.1:{server.server_port}"
    helm.ok("repo", "index", folder, "--url", url)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()


def chart(helm: Helm, repository_url: str, into: Path, *, update: bool = True) -> Path:
    """A copy of our chart, with its dependency fetched by ``helm dependency update``, or without
    it."""
    shutil.copytree(HERE / "chart", into)
    manifest = into / "Chart.yaml"
    manifest.write_text(manifest.read_text().replace("@loopback@", repository_url))
    if update:
        helm.ok("dependency", "update", into)
    return into


def properties(manifests: dict[tuple[str, str], Any], release: str) -> list[tuple[str, str]]:
    """The lines of alluxio-site.properties, in their order: the last of a key wins."""
    text: str = manifests["ConfigMap", f"{release}-alluxio-conf"]["data"]["alluxio-site.properties"]
    pairs = (line.partition("=") for line in text.splitlines() if line)
    return [(key, value) for key, _, value in pairs]
