"""The files of render-monitor. The lab runs them (tests/integration/test_check_nodes.py)."""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from provision.check import monitor
from provision.check.prometheus import PREFIX, exposition
from provision.errors import UsageError
from tests.unit.builders import inventory
from tests.unit.test_check import LIVE, report


def rendered(path: str = "inventory.yml", every: float = 60.0) -> monitor.Monitor:
    return monitor.render_files(inventory(path=Path(path)), every, "/var/lib/textfiles")


def unit(made: monitor.Monitor, kind: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(made.files[f"alluxio-check-c.{kind}"].decode())
    return parser


def test_the_service_looks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = rendered()
    service = unit(made, "service")["Service"]
    assert service["ExecStart"] == (
        f'"{sys.executable}" "-m" "invoke" "check-nodes" "--inventory" "{tmp_path}/inventory.yml" '
        '"--format" "prometheus" "--output" "/var/lib/textfiles/alluxio-c.prom"'
    )
    assert (Path(service["WorkingDirectory"]) / "tasks.py").exists()
    assert service["SuccessExitStatus"] == "1"
    assert str(made.output) == "/var/lib/textfiles/alluxio-c.prom"


def test_what_systemd_would_expand_is_escaped() -> None:
    command = unit(rendered('/a "b"/50%$HOME\\x.yml'), "service")["Service"]["ExecStart"]
    assert '"/a \\"b\\"/50%%$$HOME\\\\x.yml"' in command
    with pytest.raises(UsageError, match="systemd takes no such path"):
        rendered("/a\nExecStart=/bin/evil")


def test_the_timer_waits_from_the_end_of_a_look() -> None:
    timer = unit(rendered(every=90), "timer")
    assert timer["Timer"]["OnUnitInactiveSec"] == "90"
    assert timer["Install"]["WantedBy"] == "timers.target"


def test_the_rules_are_about_metrics_that_there_are() -> None:
    made = rendered(every=100)
    rules = YAML(typ="safe").load(made.files["alluxio-check-c.rules.yml"])
    (group,) = rules["groups"]
    text = exposition(report(LIVE))
    there = set(re.findall(rf"^# TYPE ({PREFIX}\w+)", text, re.MULTILINE))
    there |= {f"{PREFIX}etcd_member_certificate_{x}" for x in ("valid", "expiry_timestamp_seconds")}
    for rule in group["rules"]:
        used = set(re.findall(rf"{PREFIX}\w+", rule["expr"]))
        assert used
        assert used <= there
        assert rule["expr"].count('cluster="c"') == len(re.findall(PREFIX, rule["expr"]))
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        for name in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            assert re.search(rf'\b{name}="', text) or name == "listener"
    assert "> 560" in group["rules"][0]["expr"]


def test_how_they_are_installed_is_said() -> None:
    lines = "\n".join(monitor.instructions(rendered(), Path("/x y")))
    assert "'/x y/alluxio-check-c.service' '/x y/alluxio-check-c.timer'" in lines
    assert "systemctl enable --now alluxio-check-c.timer" in lines
