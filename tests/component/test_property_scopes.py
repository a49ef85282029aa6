"""The list of properties and their scopes, held to the jar that it was made from."""

from __future__ import annotations

import subprocess
from pathlib import Path

from provision.alluxio.worker import scopes
from tests.component.conftest import ARTIFACTS

SCRIPT = Path(__file__).parents[1] / "lab" / "property-scopes"


def test_the_list_is_what_the_jar_says() -> None:
    tarball = ARTIFACTS / f"alluxio-{scopes.RELEASE}-bin.tar.gz"
    assert tarball.exists(), "make .artifacts builds it"
    done = subprocess.run([SCRIPT, tarball], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == scopes._FILE.read_text(encoding="utf-8")
    assert len(scopes.scopes()) > 800
