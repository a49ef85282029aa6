"""The audit log: the host's line is written by the real shell, however a batch ends."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest

from provision.engine import audit
from provision.engine.audit import Author
from provision.errors import UsageError

BY = Author("it's me@control", "deploy-etcd", "Lab")


def run(tmp_path: Path, script: str) -> tuple[int, list[audit.Entry]]:
    """A batch with its audit lines, whose log is below ``tmp_path``."""
    lines = audit.lines(BY, "etcd0", ["write /etc/a 'b'", "start etcd.service 100%"])
    text = f"set -e\n{lines}\n{script}".replace(audit.HOST_DIR, str(tmp_path / "log"))
    code = subprocess.run(["sh", "-s"], input=text, text=True, check=False).returncode
    log = tmp_path / "log" / "audit.log"
    return code, audit.parse(log.read_text().splitlines()) if log.exists() else []


@pytest.mark.process
@pytest.mark.parametrize(
    ("script", "code", "done", "result"),
    [
        ("audit_done=1\naudit_done=2", 0, 2, "ok"),
        ("audit_done=1\nfalse\naudit_done=2", 1, 1, "failed"),
        ("exit 7", 7, 0, "failed"),
        ("audit_done=1\nkill -HUP $$\naudit_done=2", 129, 1, "failed"),
    ],
)
def test_a_batch_leaves_one_line(
    tmp_path: Path, script: str, code: int, done: int, result: str
) -> None:
    ended, entries = run(tmp_path, script)
    assert ended == code
    assert [(e.done, e.result) for e in entries] == [(done, result)]
    assert entries[0].who == "it's me@control"
    assert entries[0].changes == ("write /etc/a 'b'", "start etcd.service 100%")
    assert entries[0].when.endswith("Z")
    assert stat.S_IMODE((tmp_path / "log" / "audit.log").stat().st_mode) == 0o640


@pytest.mark.process
def test_a_log_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("in the way")
    assert run(tmp_path, "audit_done=1")[0] == 0
    assert run(tmp_path, "exit 3")[0] == 3


@pytest.mark.process
def test_a_large_log_is_put_aside_once(tmp_path: Path) -> None:
    log = tmp_path / "log" / "audit.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * audit.MAX_BYTES)
    run(tmp_path, ":")
    assert (tmp_path / "log" / "audit.log.1").stat().st_size == audit.MAX_BYTES
    assert len(log.read_text().splitlines()) == 1


def test_the_local_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    audit.note(BY, "etcd0", ["one"], ok=True)
    audit.note(BY, "etcd1", ["two", "three"], ok=False)
    path = audit.local_log()
    assert path == tmp_path / "alluxio-provision" / "audit.log"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [(e.name, e.done, e.result) for e in audit.read_local(10)] == [
        ("etcd0", 1, "ok"),
        ("etcd1", 0, "failed"),
    ]
    assert [e.name for e in audit.read_local(1)] == ["etcd1"]
    assert audit.rows(audit.read_local(1))[0][-2:] == ("failed after 0 of 2", "two; three")


def test_no_local_log_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alluxio-provision").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    audit.note(BY, "etcd0", ["one"], ok=True)
    assert "no audit line" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ["", "{", "null", "[]", '{"when": 1}', "\x1b[2J", json.dumps({"changes": 3})]
)
def test_what_is_no_entry_is_shown_safely(line: str) -> None:
    (entry,) = audit.parse([line])
    assert entry.result == "unreadable"
    assert "\x1b" not in "".join(entry.changes)


@pytest.mark.parametrize("count", [0, -1, 10_001])
def test_bounds(count: int) -> None:
    with pytest.raises(UsageError):
        audit.read_local(count)
