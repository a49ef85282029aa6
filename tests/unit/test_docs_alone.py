"""Command blocks of the documentation that need no host: nothing but an inventory."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from tests.docs import ALONE, REPO, Reader, fenced


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The reader's, with the tasks in it."""
    for name in ("tasks.py", "invoke.yaml", "provision", "templates"):
        (tmp_path / name).symlink_to(REPO / name)
    (tmp_path / "inventory").mkdir()
    return tmp_path


@pytest.mark.process
def test_monitoring(folder: Path) -> None:
    text = (REPO / "inventory" / "lab.yml").read_text(encoding="utf-8")
    # Nobody is logged in to: the keys need not be there.
    kept = "".join(x for x in text.splitlines(keepends=True) if "/ssh/" not in x)
    (folder / "inventory" / "inventory.yml").write_text(kept, encoding="utf-8")
    with Reader("docs/monitoring.md", ALONE, folder) as reader:
        reader.types("invoke render-monitor --into monitor", deploy=getpass.getuser())
    assert len(list((folder / "monitor").iterdir())) == 3


@pytest.mark.process
def test_ssh(folder: Path) -> None:
    (hosts,) = fenced("docs/ssh.md", "ini")
    (folder / "hosts.ini").write_text(hosts.text, encoding="utf-8")
    with Reader("docs/ssh.md", ALONE, folder) as reader:
        reader.types(
            "invoke import-ansible hosts.ini --to inventory/inventory.yml "
            "--etcd-group etcd --worker-group cache"
        )
    made = (folder / "inventory" / "inventory.yml").read_text(encoding="utf-8")
    assert "worker001.example.com" in made
    assert "EDIT" in made
