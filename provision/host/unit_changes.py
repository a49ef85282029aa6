"""Changes that end a unit of systemd."""

from __future__ import annotations

from provision.host.diff import Change
from provision.host.facts import restart_mark


def stop(unit: str) -> Change:
    """Stop ``unit``. It stays installed and enabled."""
    what, script = f"stop {unit}", f"systemctl stop {unit}"
    return Change(what, script, disrupts=True, seconds=90, stops=(unit,))


def kill(unit: str) -> str:
    """The script that disables ``unit`` and ends its processes without their own shutdown."""
    return (
        f"systemctl disable -q {unit}; systemctl stop --no-block {unit}\n"
        f"systemctl kill -s KILL {unit} 2>/dev/null || :\n"
        f"systemctl stop {unit}; systemctl reset-failed {unit} 2>/dev/null || :"
    )


def delete(unit: str, path: str) -> Change:
    """Delete the file ``path`` of a stopped unit, and the note that the unit must restart."""
    return Change(f"delete {path}", f"rm -f {path} {restart_mark(unit)}; systemctl daemon-reload")
