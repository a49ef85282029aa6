"""The start of a restored member, by a real shell: one that waits for others does not block."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.etcd.member import recovery_marker
from provision.host import safely
from provision.ssh.session import Result
from tests.unit import builders, hosts

SYSTEMCTL = """#!/bin/sh
echo "$1" >>{log}
case $1 in
  start) exec {start};;
  show) echo {state};;
esac
"""


def started(folder: Path, start: str, state: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setattr(recovery_marker, "START_SECONDS", 0.2)
    bin = folder / "bin"
    bin.mkdir()
    (folder / "data").mkdir()
    for name, text in (
        ("systemctl", SYSTEMCTL.format(log=folder / "log", start=start, state=state)),
        ("journalctl", "#!/bin/sh\necho why\n"),
    ):
        (bin / name).write_text(text)
        (bin / name).chmod(0o755)
    script = recovery_marker.start(builders.member(1, data_dir=str(folder / "data"))).script
    return hosts.shell(f"PATH={bin}:$PATH; set -e\n{safely.FUNCTIONS}\n{script}", folder)


@pytest.mark.process
@pytest.mark.parametrize(
    ("start", "state", "ok"),
    [
        ("true", "active", True),
        ("sleep 5", "activating", True),
        ("sleep 5", "failed", False),
        ("false", "activating", False),
        ("false", "failed", False),
    ],
)
def test_one_that_still_starts_is_left_to_the_gate(
    start: str, state: str, ok: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = started(tmp_path, start, state, monkeypatch)
    assert done.ok is ok, done.stderr
    assert ("why" in done.stderr) is not ok
    assert (tmp_path / "log").read_text().split()[:2] == ["enable", "start"]
