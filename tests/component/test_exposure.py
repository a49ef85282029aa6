"""How exposed the services are, by systemd's own count of their units."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.component.test_generated import units
from tests.unit import builders


@pytest.mark.parametrize(("unit", "most"), [("etcd", 1.5), ("alluxio-worker", 2.5)])
def test_the_services_are_closed(unit: str, most: float, tmp_path: Path) -> None:
    """Lines of the sandbox that are lost count some tenths each."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    path = tmp_path / f"{unit}.service"
    texts = [t for name, t in units(builders.inventory()).items() if name.endswith(path.name)]
    path.write_text(texts[0])
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd looks at running services only")
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure, done.stdout + done.stderr
    assert float(exposure[1]) <= most
