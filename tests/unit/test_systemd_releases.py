"""The units on a host with systemd 239 (RHEL 8), which nobody had for a test: by systemd's manuals.

Each directive with the release that has it, as systemd.exec(5), systemd.service(5), systemd.unit(5)
and systemd.timer(5) of systemd 257 say ("Added in version …"; 0: they say none, it is older than
187). systemd.unit(5): "If systemd encounters an unknown option, it will write a warning log message
but continue loading the unit", and names with X- are ignored.
"""

from __future__ import annotations

import re
from pathlib import Path

from provision.host.preflight import MIN_SYSTEMD

TEMPLATES = Path(__file__).parents[2] / "templates"
ADDED = {
    **dict.fromkeys(("CapabilityBoundingSet", "EnvironmentFile", "ExecStart", "ExecStartPre"), 0),
    **dict.fromkeys(("Group", "IOSchedulingClass", "LimitMEMLOCK", "LimitNOFILE", "Nice"), 0),
    **dict.fromkeys(("OOMScoreAdjust", "OnActiveSec", "OnUnitInactiveSec", "PrivateTmp"), 0),
    **dict.fromkeys(("Restart", "RestartSec", "Type", "UMask", "User", "WorkingDirectory"), 0),
    **dict.fromkeys(("NoNewPrivileges", "SystemCallFilter"), 187),
    **dict.fromkeys(("TimeoutStartSec", "TimeoutStopSec"), 188),
    **{"SuccessExitStatus": 189, "OnCalendar": 197},
    **dict.fromkeys(("After", "Description", "Documentation", "RequiresMountsFor"), 201),
    **dict.fromkeys(("WantedBy", "Wants"), 201),
    **dict.fromkeys(("AccuracySec", "PrivateDevices", "SystemCallArchitectures"), 209),
    **{"SystemCallErrorNumber": 209, "RestrictAddressFamilies": 211, "Persistent": 212},
    **dict.fromkeys(("ProtectHome", "ProtectSystem"), 214),
    **dict.fromkeys(("AmbientCapabilities", "RandomizedDelaySec", "StartLimitIntervalSec"), 229),
    **dict.fromkeys(("MemoryDenyWriteExecute", "ReadWritePaths", "RestrictRealtime"), 231),
    **dict.fromkeys(("ProtectControlGroups", "ProtectKernelModules"), 232),
    **dict.fromkeys(("ProtectKernelTunables", "RemoveIPC"), 232),
    **{"RestrictNamespaces": 233, "LockPersonality": 235, "UnsetEnvironment": 235},
    # The manual has one release for all of its kind; systemd's NEWS name these for 235.
    **dict.fromkeys(("LogsDirectory", "LogsDirectoryMode"), 235),
    **{"ProtectHostname": 242, "RestrictSUIDSGID": 242, "ProtectKernelLogs": 244},
    **{"ProtectClock": 245, "ProtectProc": 247},
}
#: Without these, a unit starts and does the same; it may only do more than it needs.
SANDBOX = re.compile(r"Protect|Restrict")


def directives() -> dict[str, set[str]]:
    """The templates' units, each with its directives."""
    return {
        path.name: set(re.findall(r"^([A-Z][A-Za-z]*)=", path.read_text(), re.MULTILINE))
        for kind in ("service", "timer")
        for path in TEMPLATES.glob(f"*.{kind}.j2")
    }


def test_every_directive_is_known_to_the_oldest_systemd_or_only_closes_the_sandbox() -> None:
    found = directives()
    assert len(found) > 4
    assert set().union(*found.values()) == ADDED.keys()
    later = {name for name, release in ADDED.items() if release > MIN_SYSTEMD}
    assert later == {name for name in later if SANDBOX.match(name)}


def test_the_filter_of_system_calls_needs_the_oldest_systemd() -> None:
    """The group @system-service is of pull request 8766 of systemd, merged for 239. A systemd 232
    says "Don't know system call group, ignoring", and lets nothing through: with such a unit, the
    service does not run there (miniflux/v2, issue 1297)."""
    assert MIN_SYSTEMD == 239
    text = (TEMPLATES / "etcd.service.j2").read_text()
    groups = re.findall(r"^SystemCallFilter=(.*)$", text, re.MULTILINE)
    assert groups == ["@system-service", "~@privileged @resources"]
