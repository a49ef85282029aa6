"""The README's ways to install: in a clone, from a wheel, and from the archive of `make bundle`.

Each has a folder and a virtualenv of its own. The archive is installed without a way to any package
index. It is made for the Python of this process alone, which is quicker.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import provision
from release import bundle
from tests.docs import INSTALLS, REPO, Reader

pytestmark = pytest.mark.slow
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
#: For programs that would fetch something: nothing listens there.
NOWHERE = "http://127.0.0.1:9"
CUT_OFF = {
    **{name: NOWHERE for name in ("http_proxy", "https_proxy", "PIP_INDEX_URL")},
    **{"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""},
}
#: What only the development of the tool needs, of requirements.lock.
DEVELOPMENT = {"pytest", "mypy", "ruff", "mkdocs", "hypothesis", "bandit", "pip-audit"}


@pytest.fixture(scope="module", autouse=True)
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip without a package index: what is tried here must first be downloaded."""
    folder = str(tmp_path_factory.mktemp("index"))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    done = subprocess.run([*command, "six==1.17.0"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package index can be reached: {done.stderr.strip()[-200:]}")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make bundle` makes."""
    into = tmp_path_factory.mktemp("dist")
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    subprocess.run(
        ["make", "--silent", "bundle", f"BUNDLE=--python {PYTHON} --into {into}"],
        cwd=REPO,
        env=clean,
        check=True,
    )
    (made,) = into.glob("*.tar.gz")
    return made


def installed(python: Path) -> set[str]:
    """The packages of a virtualenv, without pip's own."""
    command = [
        str(python),
        "-m",
        "pip",
        "list",
        "--format",
        "freeze",
        "--disable-pip-version-check",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    names: set[str] = {canonicalize_name(re.split("==| @ ", line)[0]) for line in lines}
    return names - {"pip", "setuptools"}


def test_the_readme(tmp_path: Path, archive: Path) -> None:
    clone, machine = tmp_path / "clone", tmp_path / "machine"
    machine.mkdir()
    clone.mkdir()
    for name in ("provision", "templates", "inventory"):
        shutil.copytree(REPO / name, clone / name)
    for name in ("pyproject.toml", "README.md", "LICENSE", "operators.lock", "tasks.py"):
        shutil.copy2(REPO / name, clone)
    for name in (archive.name, f"{archive.name}.sha256"):
        shutil.copy2(archive.with_name(name), machine)
    here = archive.name.removesuffix(".tar.gz")
    declared = f"{bundle.NAME}-{provision.__version__}-linux-x86_64"
    with Reader("README.md", INSTALLS, clone, HOME=str(machine)) as reader:
        reader.types("python3 -m venv .venv")
        names = installed(clone / ".venv" / "bin" / "python")
        locked = {one.name for one in bundle.locked(bundle.LOCK.read_text(encoding="utf-8"))}
        assert names == {bundle.NAME, *locked}
        assert not names & DEVELOPMENT

        wheel = f"alluxio_provision-{provision.__version__}-py3-none-any.whl"
        assert wheel in reader.types(
            "python3 -m venv ~/alluxio-provision",
            **{"~/alluxio-provision": str(tmp_path / "pip"), wheel: str(archive.with_name(wheel))},
        )
        assert installed(tmp_path / "pip" / "bin" / "python") == names

        reader.folder = machine
        reader.environment |= CUT_OFF
        first = f"sha256sum --check {declared}.tar.gz.sha256"
        printed = reader.types(first, **{declared: here})
        assert f"{bundle.NAME} {provision.__version__}\n" in printed
        assert installed(machine / bundle.NAME / "bin" / "python") >= names
    empty = machine / "empty"
    empty.mkdir()
    lists = ("--etcd", "host1,host2,host3", "--workers", "worker[1-20].example.com")
    ways = (clone / ".venv", tmp_path / "pip", machine / bundle.NAME)
    for folder, words in [
        *((way, ("init-inventory", f"{n}.yml", *lists)) for n, way in enumerate(ways)),
        # What the commands read beside their own code is in the wheel, too: a template, a list.
        (ways[-1], ("render-client-config", "--inventory", "2.yml")),
        (ways[-1], ("show-inventory", "--inventory", "2.yml")),
    ]:
        shown = subprocess.run(
            [folder / "bin" / bundle.NAME, *words],
            cwd=empty,
            capture_output=True,
            text=True,
            check=True,
        )
    assert "worker20.example.com" in shown.stdout
    unpacked = machine / here
    assert (unpacked / "docs" / "ssh.md").exists()
    assert platform.machine() in here


def test_a_wheel_that_was_exchanged_is_not_installed(tmp_path: Path, archive: Path) -> None:
    subprocess.run(["tar", "-xzf", archive, "-C", tmp_path], check=True)
    (unpacked,) = tmp_path.iterdir()
    wheel = next((unpacked / "wheels").glob("six-*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    sums = subprocess.run(
        ["sha256sum", "--quiet", "--check", "SHA256SUMS"], cwd=unpacked, check=False
    )
    assert sums.returncode == 1
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    done = subprocess.run(
        [
            *(str(tmp_path / "venv" / "bin" / "pip"), "install", "--no-index"),
            *("--find-links", "wheels", "--require-hashes", "-r", "requirements.lock"),
        ],
        cwd=unpacked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
